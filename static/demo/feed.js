// A feed that everybody writes to: posts wait behind "3 new posts" unless one wants them at once; counts move live.
// Promises: what is read does not move under the reader; posts come from this user's own log, where they are kept; each
// is shown once, whether it came at once, in a digest or on a page. Texts are text.
import { act } from './session.js';
import { avatar, createLifetime, el, showList } from './dom.js';
import { ago } from './time.js';

const TOPIC = 'feed:demo';
const POSTS_MAX = 100;
const TEXT_MAX = 500;
const PAGE = `/v1/events?format=json&cursor=-1000&wait=0&limit=1000&types=feed.*&topics=${encodeURIComponent(TOPIC)}`;

export function feedView({ tidings, model, user, toasts }) {
  const lifetime = createLifetime();
  const posts = new Map();
  const likes = new Map();
  /** Posts that wait until one asks for them. */
  const waiting = new Map();
  const field = el('textarea', { id: 'post', rows: 2, maxlength: TEXT_MAX, required: true, placeholder: 'What is new?' });
  const pill = el('button', { type: 'button', class: 'pill still', hidden: true, onclick: showWaiting });
  const list = el('ol', { class: 'posts', 'aria-busy': 'true' });
  const hint = el('p', { class: 'small' });
  const node = el('div', { class: 'column' },
    el('h1', { tabindex: -1 }, 'Feed'), hint,
    el('form', { class: 'card', onsubmit: write }, el('label', { for: 'post' }, 'Your post'), field,
      el('div', { class: 'row end' }, el('button', { class: 'primary' }, 'Post'))),
    el('div', { class: 'pill-place', role: 'status' }, pill), list);

  async function write(event) {
    event.preventDefault();
    const text = field.value.trim();
    if (text === '') return;
    try {
      await act('post', { user, text });
      field.value = '';
    } catch (error) {
      toasts.failed(error);
    }
  }

  function like(post) {
    const count = (likes.get(post.id) ?? 0) + 1;
    act('like', { user, post: post.id, likes: count }).catch(toasts.failed);
  }

  /** One event of the feed; a digest holds the last of each. */
  function take(event, { isNews }) {
    const { type, id, data, time, actor } = event;
    if (type === 'feed.digest') return (data.latest ?? []).toReversed().forEach((each) => take(each, { isNews }));
    if (type === 'feed.likes') return void likes.set(data.post, Number(data.likes) || 0);
    if (type !== 'feed.post' || posts.has(id)) return;
    const post = { id, text: data.text, time, author: actor?.id ?? '?' };
    // One's own post is expected at once, as is everything where one has chosen so.
    if (isNews && post.author !== user && !model.preferences.feed_auto) waiting.set(id, post);
    else posts.set(id, post);
  }

  function showWaiting() {
    for (const [id, post] of waiting) posts.set(id, post);
    waiting.clear();
    show();
    node.querySelector('h1').focus();
    node.scrollIntoView({ block: 'start' });
  }

  function show() {
    hint.textContent = model.preferences.feed_auto ? 'New posts appear at once.' : 'New posts are gathered for half a minute. Settings can bring them at once.';
    pill.hidden = waiting.size === 0;
    pill.textContent = `${waiting.size} new post${waiting.size === 1 ? '' : 's'}`;
    const newest = [...posts.values()].sort((a, b) => Date.parse(b.time) - Date.parse(a.time)).slice(0, POSTS_MAX);
    showList(list, newest, { key: ({ id }) => id, make, update });
  }

  function make(post) {
    return el('li', { class: 'card post' }, avatar(post.author),
      el('div', { class: 'text' }, el('p', { class: 'by' }, el('strong', {}, post.author), ' ', el('time', { datetime: post.time })), el('p', { class: 'content' }, post.text),
        el('button', { type: 'button', class: 'like', onclick: () => like(post) })));
  }

  function update(row, post) {
    const count = likes.get(post.id) ?? 0;
    row.querySelector('time').textContent = ago(post.time);
    const button = row.querySelector('.like');
    button.textContent = `♥ ${count}`;
    button.setAttribute('aria-label', `Like, ${count} so far`);
  }

  async function load() {
    const page = await tidings.request('GET', PAGE);
    for (const event of page.events) take(event, { isNews: false });
    list.removeAttribute('aria-busy');
    show();
  }

  function heard(event) {
    if (event.topic !== TOPIC) return;
    take(event, { isNews: true });
    show();
  }

  tidings.subscribe(TOPIC).then(load).catch(toasts.failed);
  lifetime.add(tidings.on('feed.*', heard), model.subscribe(show));
  show();
  return { node, close: lifetime.end };
}

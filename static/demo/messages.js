// The messages of a conversation, as they stand one below the other.
// Promises: a node stays the same from the moment one has written to the last tick; the scroll position holds when something
// is put in above or below; it follows the end only for the one who is at the end; every content is text.
import { createLifetime, el, iconButton, showList } from './dom.js';
import { clockTime, dayName, dayOf } from './time.js';

const NEAR_END = 60;
const NEAR_TOP = 120;
const TICKS = {
  queued: ['◷', 'waiting to be sent'], failed: ['!', 'not sent'], sent: ['✓', 'sent'], delivered: ['✓✓', 'delivered'], read: ['✓✓', 'read'],
};

export function createMessages({ view, user, toasts, read, remove, again }) {
  const lifetime = createLifetime();
  const list = el('ol', { class: 'messages' });
  const more = el('p', { class: 'more', hidden: true }, 'Loading …');
  const failure = el('p', { class: 'refusal', hidden: true });
  const scroller = el('div', { class: 'scroller', tabindex: 0, role: 'log', 'aria-live': 'off', 'aria-label': 'Messages', onscroll: scrolled }, more, failure, list);
  const pill = el('button', { type: 'button', class: 'pill', hidden: true, onclick: toEnd }, 'New messages');
  const node = el('div', { class: 'scroll-frame' }, scroller, pill);
  let isFollowing = true;
  let isGroup = false;
  let newest = null;
  let unseen = 0;

  const isAtEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END;

  function scrolled() {
    isFollowing = isAtEnd();
    if (isFollowing) seen();
    if (scroller.scrollTop < NEAR_TOP) older();
  }

  function seen() {
    unseen = 0;
    pill.hidden = true;
    read();
  }

  function older() {
    const { has_older: hasOlder, is_loading: isLoading } = view.get();
    if (hasOlder && !isLoading) view.older().catch(toasts.failed);
  }

  function toEnd() {
    isFollowing = true;
    scroller.scrollTop = scroller.scrollHeight;
    seen();
  }

  /** The message at the top edge and where it stands: what is put in above must not move it. */
  function anchor() {
    const top = scroller.getBoundingClientRect().top;
    const first = [...list.children].find((row) => row.getBoundingClientRect().bottom > top);
    return first === undefined ? null : { row: first, at: first.getBoundingClientRect().top };
  }

  function changed() {
    const { messages, has_older: hasOlder, is_loading: isLoading, error } = view.get();
    const held = isFollowing ? null : anchor();
    more.hidden = !(isLoading && hasOlder);
    failure.hidden = error === null;
    failure.textContent = error?.message ?? '';
    const rows = messages.map((message, at) => ({ message, previous: messages[at - 1] }));
    showList(list, rows, { key: keyOf, make, update });
    const last = messages.findLast(({ n }) => n !== null)?.n ?? null;
    const arrived = newest === null || last === null ? 0 : messages.filter(({ n, sender }) => n > newest && sender !== user).length;
    newest = last ?? newest;
    if (isFollowing) {
      scroller.scrollTop = scroller.scrollHeight;
      read();
    } else {
      if (held?.row.isConnected) scroller.scrollTop += held.row.getBoundingClientRect().top - held.at;
      unseen += arrived;
      pill.hidden = unseen === 0;
      pill.textContent = `${unseen} new message${unseen === 1 ? '' : 's'}`;
    }
    // A short page leaves nothing to scroll: what comes before it is loaded at once.
    if (hasOlder && !isLoading && scroller.scrollHeight <= scroller.clientHeight) older();
  }

  /** Only an own message has a client id that is surely its own. */
  const keyOf = ({ message: { sender, client_id, n } }) => (sender === user && client_id ? `own ${client_id}` : `n ${n}`);

  function make({ message }) {
    const isOwn = message.sender === user;
    return el('li', { class: isOwn ? 'message own' : 'message' },
      el('span', { class: 'day' }), el('div', { class: 'bubble' },
        el('span', { class: 'sender' }), el('p', { class: 'content' }),
        el('span', { class: 'foot' }, el('time'), isOwn ? el('span', { class: 'tick' }) : null)),
      isOwn ? deleteButton(message) : null);
  }

  /** Asks once more: on a phone it is under the thumb. */
  function deleteButton(message) {
    const sure = el('button', { type: 'button', class: 'delete sure bad', hidden: true, onclick: () => remove(current(message)), onblur: () => (sure.hidden = true) }, 'Really delete?');
    const button = iconButton('close', 'Delete message', () => {
      sure.hidden = false;
      sure.focus();
    }, { class: 'icon-button delete' });
    return el('span', { class: 'deletion' }, sure, button);
  }

  /** The message as it is now: what was queued has its id since. */
  const current = ({ client_id, id }) => view.get().messages.find((each) => (client_id ? each.client_id === client_id : each.id === id)) ?? { id };

  function update(row, { message, previous }) {
    const part = (name) => row.querySelector(`.${name}`);
    const isSameDay = previous !== undefined && dayOf(previous.time) === dayOf(message.time);
    const isRun = isSameDay && previous.sender === message.sender;
    row.classList.toggle('run', isRun);
    row.classList.toggle('deleted', message.deleted === true);
    part('day').textContent = isSameDay ? '' : dayName(message.time);
    part('day').hidden = isSameDay;
    part('sender').textContent = message.sender;
    part('sender').classList.toggle('visually-hidden', isRun || !isGroup || message.sender === user);
    part('content').textContent = message.deleted ? 'Message deleted' : message.content;
    const time = row.querySelector('time');
    time.textContent = clockTime(message.time);
    time.dateTime = message.time;
    const tick = part('tick');
    if (tick === null) return;
    const isGone = message.deleted === true || message.id === null;
    part('deletion').hidden = isGone;
    const [sign, words] = TICKS[message.status ?? 'sent'] ?? TICKS.sent;
    tick.dataset.status = message.status ?? 'sent';
    tick.title = message.read_by > 0 && message.status !== 'read' ? `read by ${message.read_by}` : words;
    if (message.status === 'failed') tick.replaceChildren(el('button', { type: 'button', class: 'link', onclick: () => again(message) }, 'Not sent. Try again'));
    else tick.replaceChildren(el('span', { 'aria-hidden': 'true' }, sign), el('span', { class: 'visually-hidden' }, words));
  }

  // A field that grows or a keyboard that comes up must not hide the end.
  const resized = new ResizeObserver(() => isFollowing && (scroller.scrollTop = scroller.scrollHeight));
  resized.observe(scroller);
  lifetime.add(() => resized.disconnect());
  return { node, changed, toEnd, isAtEnd, group: (is) => void (isGroup = is), close: lifetime.end };
}

// One conversation: who is there, what was written, and the field to write in.
// Promises: own messages are shown at once and never twice; who reads further up is not moved, a pill says that there is
// more; older messages come as one scrolls up; read marks are sent only for what is on the screen of a visible page.
import { conversationView } from '../views.js';
import { avatar, createLifetime, el, icon } from './dom.js';
import { memberPane } from './members.js';
import { createMessages } from './messages.js';
import { conversationName, partner } from './model.js';
import { presenceText } from './time.js';

const CONTENT_MAX = 8000;
const TYPING_SHOWN = 3;

export function conversationPane(context, id) {
  const { tidings, model, user, toasts } = context;
  const view = conversationView(tidings, id);
  const lifetime = createLifetime();
  const face = el('span', { class: 'face' });
  const title = el('h2', { tabindex: -1 });
  const subtitle = el('p', { class: 'subtitle' });
  const messages = createMessages({ view, user, toasts, read, remove, again });
  const typing = el('p', { class: 'typing', 'aria-live': 'polite' });
  const field = el('textarea', {
    id: 'content', rows: 1, maxlength: CONTENT_MAX, placeholder: 'Write a message', 'aria-label': 'Message', enterkeyhint: 'send',
    oninput: typed, onkeydown: pressed,
  });
  const members = memberPane(context, id);
  const node = el('section', { class: 'conversation', 'aria-label': 'Conversation' },
    el('header', { class: 'head' },
      el('a', { class: 'icon-button back', href: '#/chats', 'aria-label': 'All conversations' }, icon('back')), face,
      el('div', { class: 'titles' }, title, subtitle), members.node),
    messages.node, typing,
    el('form', { class: 'write', onsubmit: send }, field, el('button', { class: 'icon-button primary', 'aria-label': 'Send', title: 'Send' }, icon('send'))));
  let faceName = null;
  let readUpto = 0;

  function typed() {
    field.style.height = 'auto';
    field.style.height = `${Math.min(field.scrollHeight, 160)}px`;
    if (field.value === '') view.typing('stop');
    else view.typing();
  }

  function pressed(event) {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send(event);
  }

  function send(event) {
    event.preventDefault();
    const content = field.value.trim();
    if (content === '') return;
    field.value = '';
    typed();
    post(content);
    messages.toEnd();
    field.focus();
  }

  function post(content, options) {
    view.send(content, options).done.catch(toasts.failed);
  }

  /** A message that the server refused is tried again under its own id. */
  function again({ content, client_id }) {
    post(content, { client_id });
  }

  function remove(message) {
    tidings.request('DELETE', `/v1/conversations/${encodeURIComponent(id)}/messages/${encodeURIComponent(message.id)}`).catch(toasts.failed);
  }

  function read() {
    const newest = view.get().messages.findLast(({ n }) => n !== null)?.n ?? 0;
    const isUnread = (model.conversations.get(id)?.unread ?? 0) > 0;
    if (document.visibilityState !== 'visible' || !isUnread || newest <= readUpto) return;
    readUpto = newest;
    view.read().catch(() => (readUpto = 0));
  }

  function showTyping() {
    const who = view.get().typing;
    const names = who.length > TYPING_SHOWN ? 'Several people' : who.join(', ');
    typing.replaceChildren(...(who.length === 0 ? [] : [
      el('span', { class: 'dots', 'aria-hidden': 'true' }, el('i'), el('i'), el('i')),
      `${names} ${who.length === 1 ? 'is' : 'are'} typing`,
    ]));
  }

  function changed() {
    const conversation = model.conversations.get(id);
    const name = conversation === undefined ? (model.is_loaded ? 'No such conversation' : '') : conversationName(conversation, user);
    if (name !== faceName) {
      faceName = name;
      title.textContent = name;
      face.replaceChildren(avatar(name), el('span', { class: 'presence-dot' }));
    }
    const other = conversation === undefined ? undefined : partner(conversation, user);
    const count = conversation?.member_count ?? conversation?.members?.length ?? 0;
    const here = (conversation?.members ?? []).filter((member) => member !== user && ['online', 'busy', 'away'].includes(model.presence(member)?.status));
    subtitle.textContent = conversation === undefined ? '' : other === undefined ? `${count} members${here.length > 0 ? `, ${here.length} here` : ''}` : presenceText(model.presence(other));
    face.querySelector('.presence-dot').dataset.status = other === undefined ? 'none' : model.presence(other)?.status ?? 'offline';
    members.changed(conversation);
    messages.group(conversation?.direct === false);
    messages.changed();
  }

  function heard({ data }) {
    if (data.conversation_id === id && data.sender !== user) toasts.say(`${data.sender}: ${data.content}`);
  }

  const visible = () => messages.isAtEnd() && read();
  document.addEventListener('visibilitychange', visible);
  lifetime.add(view.subscribe(() => {
    messages.changed();
    showTyping();
  }), tidings.on('message.new', heard), () => document.removeEventListener('visibilitychange', visible),
  () => view.get().messages.length > 0 && field.value !== '' && view.typing('stop'), messages.close, view.close);
  return { node, changed, focus: () => (matchMedia('(pointer: fine)').matches ? field : title).focus(), close: lifetime.end };
}

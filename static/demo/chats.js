// Conversations: the list beside the one that is open; on a narrow screen one of the two.
// Promises: the newest activity stands first; unread counts are the server's own; names and texts are text.
import { conversationPane } from './conversation.js';
import { avatar, createLifetime, el, iconButton, showList } from './dom.js';
import { conversationName, partner } from './model.js';
import { newConversationDialog } from './new_conversation.js';
import { presenceText, shortTime } from './time.js';

const REFRESH_MS = 30_000;

export function chatsView(context) {
  const { model, user } = context;
  const lifetime = createLifetime();
  const list = el('ul', { class: 'conversations' });
  const empty = el('div', { class: 'empty', hidden: true },
    el('p', {}, 'No conversations yet.'), el('button', { type: 'button', class: 'primary', onclick: make }, 'Start one'));
  const aside = el('section', { class: 'chat-list', 'aria-label': 'Conversations' },
    el('div', { class: 'head' }, el('h1', { tabindex: -1 }, 'Chats'), iconButton('plus', 'New conversation', make)), list, empty);
  const place = el('div', { class: 'chat-place' });
  const node = el('div', { class: 'chats' }, aside, place);
  let open = null;

  async function make() {
    const id = await newConversationDialog(context);
    if (id !== null) context.go('chats', id);
  }

  function show(id) {
    if (open?.id === id && id !== undefined) return;
    open?.pane.close();
    open = null;
    node.classList.toggle('has-open', Boolean(id));
    if (id) {
      open = { id, pane: conversationPane(context, id) };
      place.replaceChildren(open.pane.node);
      open.pane.focus();
    } else {
      place.replaceChildren(el('p', { class: 'hint' }, 'Choose a conversation, or start a new one.'));
    }
    changed();
  }

  function changed() {
    const all = model.inOrder();
    showList(list, all, { key: ({ id }) => id, make: makeRow, update: showRow });
    empty.hidden = all.length > 0 || !model.is_loaded;
    open?.pane.changed();
  }

  function makeRow(conversation) {
    const name = conversationName(conversation, user);
    const link = el('a', { href: `#/chats/${encodeURIComponent(conversation.id)}` },
      el('span', { class: 'face' }, avatar(name), el('span', { class: 'presence-dot' })),
      el('span', { class: 'who' }, el('span', { class: 'name' }), el('span', { class: 'presence visually-hidden' })),
      el('span', { class: 'when' }), el('span', { class: 'last' }), el('span', { class: 'unread' }));
    return el('li', {}, link);
  }

  function showRow(row, conversation) {
    const part = (name) => row.querySelector(`.${name}`);
    const { last_message: last, unread = 0 } = conversation;
    const other = partner(conversation, user);
    const presence = other === undefined ? undefined : model.presence(other);
    part('name').textContent = conversationName(conversation, user);
    part('presence').textContent = other === undefined ? '' : `, ${presenceText(presence)}`;
    part('presence-dot').dataset.status = other === undefined ? 'none' : presence?.status ?? 'offline';
    part('when').textContent = last ? shortTime(last.time) : '';
    part('last').textContent = lastText(conversation, last);
    part('unread').textContent = unread === 0 ? '' : unread > 99 ? '99+' : String(unread);
    part('unread').setAttribute('aria-label', unread === 0 ? '' : `${unread} unread`);
    part('unread').hidden = unread === 0;
    row.classList.toggle('has-unread', unread > 0);
    const link = row.querySelector('a');
    if (conversation.id === open?.id) link.setAttribute('aria-current', 'true');
    else link.removeAttribute('aria-current');
  }

  function lastText(conversation, last) {
    if (!last) return 'Nothing written yet';
    const text = last.deleted ? 'Message deleted' : last.content;
    if (last.sender === user) return `You: ${text}`;
    return conversation.direct ? text : `${last.sender}: ${text}`;
  }

  const timer = setInterval(changed, REFRESH_MS);
  lifetime.add(model.subscribe(changed), () => clearInterval(timer), () => open?.pane.close());
  return { node, show, close: lifetime.end };
}

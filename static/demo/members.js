// Who is in a group: seen, added, left; and its name.
// Promises: shown for groups only, since a conversation of two stays what it is; a refusal is told in the server's words.
import { avatar, el, showList } from './dom.js';
import { presenceText } from './time.js';

export function memberPane({ tidings, model, user, toasts, go }, id) {
  const path = `/v1/conversations/${encodeURIComponent(id)}`;
  const list = el('ul', { class: 'members' });
  const field = el('input', { id: 'add-member', autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false', maxlength: 128 });
  const name = el('input', { id: 'rename', maxlength: 128, autocomplete: 'off' });
  const summary = el('summary', {}, 'Members');
  const node = el('details', { class: 'member-pane', hidden: true, onkeydown: (event) => event.key === 'Escape' && close() }, summary,
    el('div', { class: 'sheet' }, list,
      el('form', { onsubmit: add }, el('label', { for: 'add-member' }, 'Add someone'), el('div', { class: 'row' }, field, el('button', {}, 'Add'))),
      el('form', { onsubmit: rename }, el('label', { for: 'rename' }, 'Name'), el('div', { class: 'row' }, name, el('button', {}, 'Rename'))),
      el('button', { type: 'button', class: 'bad', onclick: leave }, 'Leave the group')));

  function close() {
    node.open = false;
    summary.focus();
  }

  function add(event) {
    event.preventDefault();
    const member = field.value.trim();
    if (member === '') return;
    tidings.request('PUT', `${path}/members/${encodeURIComponent(member)}`).then(() => (field.value = ''), toasts.failed);
  }

  function rename(event) {
    event.preventDefault();
    if (name.value.trim() !== '') tidings.request('PATCH', path, { name: name.value.trim() }).then(close, toasts.failed);
  }

  function leave() {
    tidings.request('DELETE', `${path}/members/${encodeURIComponent(user)}`).then(() => go('chats'), toasts.failed);
  }

  function changed(conversation) {
    node.hidden = conversation === undefined || conversation.direct !== false;
    if (node.hidden) return;
    if (document.activeElement !== name) name.value = conversation.name ?? '';
    showList(list, conversation.members ?? [], {
      key: (member) => member,
      make: (member) => el('li', {}, avatar(member), el('span', { class: 'name' }, member === user ? `${member} (you)` : member), el('span', { class: 'presence' })),
      update: (row, member) => void (row.querySelector('.presence').textContent = member === user ? '' : presenceText(model.presence(member))),
    });
  }

  return { node, changed };
}

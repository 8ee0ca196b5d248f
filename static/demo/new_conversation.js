// Asks with whom to talk, and makes the conversation.
// Promises: resolves with its id, or null when it was left; a refusal is told at the field in the server's own words;
// Escape leaves, and the focus goes back to where it was.
import { el } from './dom.js';

export function newConversationDialog({ tidings, user }) {
  const people = el('input', { id: 'members', required: true, autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false', placeholder: 'bob, carol', 'aria-describedby': 'members-hint members-error' });
  const name = el('input', { id: 'group-name', maxlength: 128, autocomplete: 'off', placeholder: 'optional for two' });
  const refusal = el('p', { id: 'members-error', class: 'refusal', role: 'alert' });
  const dialog = el('dialog', { class: 'dialog', 'aria-labelledby': 'new-title' });
  const form = el('form', { method: 'dialog' },
    el('h2', { id: 'new-title' }, 'New conversation'),
    el('label', { for: 'members' }, 'With whom'), people,
    el('p', { id: 'members-hint', class: 'small' }, 'One name, or several with commas. Two people without a name always share the same conversation.'),
    el('label', { for: 'group-name' }, 'Name of the group'), name, refusal,
    el('div', { class: 'row end' },
      el('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'), el('button', { class: 'primary' }, 'Start')));
  dialog.append(form);
  document.body.append(dialog);

  return new Promise((resolve) => {
    let made = null;
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      refusal.textContent = '';
      const members = people.value.split(/[\s,;]+/).filter((member) => member !== '');
      const body = { members: [...new Set([user, ...members])], ...(name.value.trim() === '' ? {} : { name: name.value.trim() }) };
      try {
        made = (await tidings.request('POST', '/v1/conversations', body)).id;
        dialog.close();
      } catch (error) {
        refusal.textContent = error.message;
        people.focus();
      }
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(made);
    });
    dialog.showModal();
  });
}

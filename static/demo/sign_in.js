// The page on which one becomes someone.
// Promises: a refusal is told in the server's own words, at the field, and read out.
import { avatar, el } from './dom.js';
import { signIn } from './session.js';

const PEOPLE = ['alice', 'bob', 'carol'];

export function signInView({ done }) {
  const field = el('input', {
    id: 'user', name: 'user', required: true, maxlength: 128, autocomplete: 'username', autocapitalize: 'none', spellcheck: 'false',
    placeholder: 'alice', 'aria-describedby': 'user-error',
  });
  const refusal = el('p', { id: 'user-error', class: 'refusal', role: 'alert' });

  async function enter(user) {
    refusal.textContent = '';
    try {
      await signIn(user);
      done();
    } catch (error) {
      refusal.textContent = error.message;
      field.focus();
    }
  }

  const form = el('form', {
    class: 'sign-in-form',
    onsubmit(event) {
      event.preventDefault();
      void enter(field.value.trim());
    },
  }, el('label', { for: 'user' }, 'Your name'), el('div', { class: 'row' }, field, el('button', { class: 'primary' }, 'Sign in')), refusal);

  const known = PEOPLE.map((user) => el('button', { type: 'button', class: 'person', onclick: () => void enter(user) }, avatar(user), user));
  return el('main', { class: 'sign-in' },
    el('img', { src: '/static/icon.svg', alt: '', width: 48, height: 48 }),
    el('h1', {}, 'Tidings'),
    el('p', { class: 'lead' }, 'News that arrives, each once and in order. Try it as two people: one here, the other in a second tab.'),
    form,
    el('p', { class: 'or' }, 'or go on as'),
    el('div', { class: 'people' }, known),
    el('p', { class: 'small' }, 'This demo believes everyone, so it answers only where it was switched on. ',
      el('a', { href: '/static/events.html' }, 'Events, for developers'), ' · ', el('a', { href: '/docs' }, 'API')));
}

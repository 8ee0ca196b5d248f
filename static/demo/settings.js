// What one chooses: who sees what, which notifications come, sound and desktop notifications; one's own status.
// Promises: a choice is shown as the server keeps it, so that a refused one goes back; it holds on all devices; the browser
// is asked for desktop notifications only on a click.
import { createLifetime, el } from './dom.js';

const CHOICES = [
  ['presence_visible', 'Others see whether I am here', 'Off: you look offline to everyone else.'],
  ['typing_visible', 'Others see that I type', ''],
  ['read_receipts', 'Read receipts', 'Off: nobody sees what you have read, and you do not see what they have.'],
  ['feed_auto', 'Feed posts at once', 'Off: they are gathered as "3 new posts".'],
  ['sound', 'A sound for news', 'One for the browser, not one for each tab.'],
  ['desktop', 'Desktop notifications', 'Only while no tab of this page is looked at.'],
];
const KINDS = ['like', 'comment', 'follow', 'mention', 'announcement'];
const STATUSES = [['auto', 'Automatic'], ['online', 'Active'], ['away', 'Away'], ['busy', 'Busy'], ['offline', 'Look offline']];

export function settingsView({ tidings, model, toasts, alerts, user }) {
  const lifetime = createLifetime();
  const boxes = new Map();
  const status = el('select', { id: 'status', onchange: setPresence }, STATUSES.map(([value, words]) => el('option', { value }, words)));
  const activity = el('input', { id: 'activity', maxlength: 64, autocomplete: 'off', placeholder: 'e.g. responding', onchange: setPresence });

  async function change(name, isOn) {
    try {
      if (name === 'desktop' && isOn && !(await alerts.allow())) {
        toasts.show('The browser does not allow notifications here', { tone: 'bad' });
        return changed();
      }
      model.preferences = { ...model.preferences, ...(await tidings.request('PATCH', '/v1/preferences', { [name]: isOn })) };
    } catch (error) {
      toasts.failed(error);
    }
    changed();
  }

  function mute(kind, isMuted) {
    const type = `notification.${kind}`;
    const others = (model.preferences.muted ?? []).filter((each) => each !== type);
    void change('muted', isMuted ? [...others, type] : others);
  }

  function setPresence() {
    const words = activity.value.trim();
    tidings.presence(status.value, ...(words === '' ? [] : [words])).catch(toasts.failed);
  }

  function box(name, words, hint, onchange) {
    const input = el('input', { type: 'checkbox', id: `choice-${name}`, role: 'switch', onchange: () => onchange(input.checked), 'aria-describedby': hint ? `hint-${name}` : null });
    boxes.set(name, input);
    return el('div', { class: 'choice' }, el('div', {}, el('label', { for: `choice-${name}` }, words), hint ? el('p', { id: `hint-${name}`, class: 'small' }, hint) : null), input);
  }

  function changed() {
    for (const [name] of CHOICES) boxes.get(name).checked = model.preferences[name] === true;
    for (const kind of KINDS) boxes.get(`kind-${kind}`).checked = !(model.preferences.muted ?? []).includes(`notification.${kind}`);
  }

  const node = el('div', { class: 'column' }, el('h1', { tabindex: -1 }, 'Settings'),
    el('section', { class: 'card', 'aria-labelledby': 'status-title' }, el('h2', { id: 'status-title' }, 'My status'),
      el('div', { class: 'fields' }, el('div', {}, el('label', { for: 'status' }, 'Status'), status), el('div', {}, el('label', { for: 'activity' }, 'What I do'), activity))),
    el('section', { class: 'card', 'aria-labelledby': 'choices-title' }, el('h2', { id: 'choices-title' }, 'Preferences'),
      CHOICES.map(([name, words, hint]) => box(name, words, hint, (isOn) => void change(name, isOn)))),
    el('section', { class: 'card', 'aria-labelledby': 'kinds-title' }, el('h2', { id: 'kinds-title' }, 'Notifications I want'),
      KINDS.map((kind) => box(`kind-${kind}`, kind[0].toUpperCase() + kind.slice(1), '', (isOn) => mute(kind, !isOn)))),
    el('section', { class: 'card', 'aria-labelledby': 'more-title' }, el('h2', { id: 'more-title' }, 'More'),
      el('p', {}, el('a', { href: `/?as=${encodeURIComponent(user === 'bob' ? 'alice' : 'bob')}`, target: '_blank', rel: 'noopener' }, `Open a tab as ${user === 'bob' ? 'alice' : 'bob'}`)),
      el('p', {}, el('a', { href: '/static/events.html' }, 'Events, for developers')), el('p', {}, el('a', { href: '/docs' }, 'The API'))));
  lifetime.add(model.subscribe(changed));
  changed();
  return { node, close: lifetime.end };
}

// The bell: how many notifications are unread, the list of them, and a note for each that comes.
// Promises: the badge is the server's count; reading here reads on all devices; links are followed only where they are
// http or https; titles, names and texts are text.
import { act } from './session.js';
import { avatar, createLifetime, el, iconButton, linked, showList } from './dom.js';
import { shortTime } from './time.js';

const FRESH_MS = 60_000;
const KINDS = { like: 'liked something of yours', comment: 'commented', follow: 'follows you now', mention: 'mentioned you', announcement: 'Announcement' };

export function titleOf({ title, kind, actor }) {
  if (title) return title;
  const words = Object.hasOwn(KINDS, kind) ? KINDS[kind] : String(kind);
  return actor ? `${actor.name ?? actor.id} ${words}` : words;
}

export function createBell({ tidings, model, user, toasts }) {
  const lifetime = createLifetime();
  const badge = el('span', { class: 'badge', hidden: true, 'aria-hidden': 'true' });
  const button = iconButton('bell', 'Notifications', toggle, { 'aria-expanded': 'false', 'aria-controls': 'bell-panel' });
  button.append(badge);
  const list = el('ul', { class: 'notifications' });
  const empty = el('p', { class: 'hint' }, 'Nothing yet.');
  const more = el('button', { type: 'button', class: 'link', onclick: () => model.more().catch(toasts.failed) }, 'Older ones');
  const readAll = el('button', { type: 'button', class: 'link', onclick: () => read({ all: true }) }, 'Mark all as read');
  const trial = el('button', { type: 'button', class: 'link', onclick: () => act('notify', sample(user)).catch(toasts.failed) }, 'Send me one');
  const panel = el('section', { id: 'bell-panel', class: 'panel', hidden: true, 'aria-label': 'Notifications' },
    el('div', { class: 'head' }, el('h2', { tabindex: -1 }, 'Notifications'), readAll), list, empty,
    el('div', { class: 'foot' }, more, trial));
  const node = el('div', { class: 'bell', onkeydown: (event) => event.key === 'Escape' && close(true) }, button, panel);

  function toggle() {
    if (!panel.hidden) return close(true);
    panel.hidden = false;
    // What they say stands in the list.
    toasts.clear();
    button.setAttribute('aria-expanded', 'true');
    panel.querySelector('h2').focus();
  }

  function close(isByKey) {
    if (panel.hidden) return;
    panel.hidden = true;
    button.setAttribute('aria-expanded', 'false');
    if (isByKey) button.focus();
  }

  function read(which) {
    tidings.request('POST', '/v1/notifications/read', which).catch(toasts.failed);
  }

  function changed() {
    const { notifications: unread } = model.badge;
    badge.hidden = unread === 0;
    badge.textContent = unread > 99 ? '99+' : String(unread);
    button.setAttribute('aria-label', unread === 0 ? 'Notifications' : `Notifications, ${unread} unread`);
    readAll.hidden = unread === 0;
    empty.hidden = model.notifications.length > 0;
    more.hidden = !model.has_more_notifications;
    showList(list, model.notifications, { key: ({ id }) => id, make, update });
  }

  function make(notification) {
    const { id, actor, link, body } = notification;
    return el('li', {},
      avatar(actor?.name ?? actor?.id ?? notification.kind),
      el('div', { class: 'text' },
        el('p', { class: 'title' }, link ? linked(titleOf(notification), link) : titleOf(notification)),
        body ? el('p', { class: 'body' }, body) : null, el('time', { datetime: notification.time }, shortTime(notification.time))),
      el('button', { type: 'button', class: 'link mark', onclick: () => read({ ids: [id] }) }, 'Mark as read'));
  }

  function update(row, notification) {
    row.classList.toggle('is-unread', !notification.read);
    row.querySelector('.mark').hidden = notification.read;
  }

  function arrived({ data, time }) {
    // What was missed while away is in the list; only news is called out.
    if (panel.hidden && !data.read && Date.now() - Date.parse(time) < FRESH_MS) toasts.show(titleOf(data), { body: data.body, link: data.link });
  }

  function gathered({ data: { kind, count, actors }, time }) {
    if (Date.now() - Date.parse(time) > FRESH_MS) return;
    const names = (actors ?? []).slice(0, 3).map((actor) => actor.name ?? actor.id).join(', ');
    toasts.show(`${count} more: ${kind}`, { body: names });
  }

  const outside = (event) => !node.contains(event.target) && close(false);
  document.addEventListener('pointerdown', outside);
  lifetime.add(model.subscribe(changed), tidings.on('notification.new', arrived), tidings.on('notification.digest', gathered),
    () => document.removeEventListener('pointerdown', outside));
  changed();
  return { node, close: lifetime.end };
}

const SAMPLES = [
  { kind: 'like', body: 'Your post about tea' },
  { kind: 'comment', body: 'Well said. I read it twice.' },
  { kind: 'follow', title: 'A new follower' },
  { kind: 'mention', body: 'Have a look at the board, please.' },
];

/** Something that somebody else does to one. */
function sample(to) {
  const user = ['mallory', 'trent', 'peggy'][Math.floor(Math.random() * 3)];
  return { user, to, notification: SAMPLES[Math.floor(Math.random() * SAMPLES.length)] };
}

// The frame around the views: navigation, connection, bell, and which view the address names.
// Promises: one view at a time, and the one that goes lets go of everything; the address says where one is, so that back,
// forward and reload work; the focus follows to the new view's heading.
import { createAlerts } from '../alerts.js';
import { boardView } from './board.js';
import { chatsView } from './chats.js';
import { connectionIndicator } from './connection.js';
import { avatar, createLifetime, el, icon, iconButton } from './dom.js';
import { feedView } from './feed.js';
import { createModel } from './model.js';
import { createBell } from './notifications.js';
import { ordersView } from './orders.js';
import { settingsView } from './settings.js';
import { playTone } from './sound.js';

const VIEWS = {
  chats: { title: 'Chats', icon: 'chats', view: chatsView },
  feed: { title: 'Feed', icon: 'feed', view: feedView },
  board: { title: 'Board', icon: 'board', view: boardView },
  orders: { title: 'Orders', icon: 'orders', view: ordersView },
  settings: { title: 'Settings', icon: 'settings', view: settingsView },
};

export function createApplication({ tidings, user, toasts, leave }) {
  const model = createModel(tidings);
  const alerts = createAlerts(tidings, { play: playTone });
  const lifetime = createLifetime();
  const context = { tidings, model, user, toasts, alerts, go };
  const bell = createBell(context);
  const main = el('main', { id: 'main', tabindex: -1 });
  const links = new Map(Object.entries(VIEWS).map(([name, { title, icon: picture }]) =>
    [name, el('a', { href: `#/${name}` }, icon(picture), el('span', {}, title), el('span', { class: 'count', hidden: true }))]));
  const node = el('div', { class: 'application' },
    el('a', { class: 'skip', href: '#main', onclick: skip }, 'Skip to the content'),
    el('header', { class: 'bar' },
      el('a', { class: 'brand', href: '#/chats' }, el('img', { src: '/static/icon.svg', alt: '', width: 24, height: 24 }), 'Tidings'),
      connectionIndicator(context, lifetime),
      bell.node,
      el('span', { class: 'me' }, avatar(user), el('span', { class: 'name' }, user)),
      iconButton('leave', 'Sign out', leave)),
    el('nav', { class: 'tabs', 'aria-label': 'Views' }, [...links.values()]),
    main);
  let shown = null;

  function skip(event) {
    event.preventDefault();
    main.focus();
  }

  function go(...parts) {
    location.hash = `#/${parts.map(encodeURIComponent).join('/')}`;
  }

  function route() {
    const [, name, id] = location.hash.split('/').map(decoded);
    const known = Object.hasOwn(VIEWS, name) ? name : 'chats';
    for (const [each, link] of links) link.toggleAttribute('aria-current', each === known);
    for (const link of links.values()) if (link.hasAttribute('aria-current')) link.setAttribute('aria-current', 'page');
    // A view that can show another of its things stays: its list keeps its place.
    if (shown?.name === known && shown.view.show !== undefined) return shown.view.show(id);
    shown?.view.close();
    shown = { name: known, view: VIEWS[known].view(context) };
    main.className = `view-${known}`;
    main.replaceChildren(shown.view.node);
    shown.view.show?.(id);
    if (document.activeElement !== document.body) main.querySelector('h1')?.focus({ preventScroll: true });
  }

  function changed() {
    const { messages, notifications } = model.badge;
    const count = links.get('chats').querySelector('.count');
    count.hidden = messages === 0;
    count.textContent = messages > 99 ? '99+' : String(messages);
    links.get('chats').setAttribute('aria-label', messages === 0 ? 'Chats' : `Chats, ${messages} unread`);
    document.title = messages + notifications > 0 ? `(${messages + notifications}) Tidings` : 'Tidings';
    alerts.set({ desktop: model.preferences.desktop === true, sound: model.preferences.sound === true });
  }

  window.addEventListener('hashchange', route);
  lifetime.add(model.subscribe(changed), () => window.removeEventListener('hashchange', route), () => shown?.view.close(),
    bell.close, alerts.close, model.close);
  route();
  return { node, close: lifetime.end };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return '';
  }
}

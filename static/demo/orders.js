// A list of things that others change too: it says that its data is older than the server's, and loads it when asked.
// Promises: what one looks at changes only when one asks, or at once where one changed it oneself; the newest version counts,
// whatever order the news comes in.
import { act } from './session.js';
import { createLifetime, el, showList } from './dom.js';
import { ago } from './time.js';

const TOPIC = 'entity:orders';
const STATES = ['new', 'paid', 'packed', 'sent'];
const ORDERS = ['1001', '1002', '1003', '1004'];
const PAGE = `/v1/events?format=json&cursor=-1000&wait=0&limit=1000&types=entity.*&topics=${encodeURIComponent(TOPIC)}`;

export function ordersView({ tidings, user, toasts }) {
  const lifetime = createLifetime();
  const shown = new Map(ORDERS.map((id) => [id, { id, version: 0, time: null, by: null }]));
  /** Newer versions than those shown. */
  const newer = new Map();
  const hint = el('div', { class: 'hint-bar', role: 'status' });
  const list = el('ul', { class: 'orders', 'aria-busy': 'true' });
  const node = el('div', { class: 'column' }, el('h1', { tabindex: -1 }, 'Orders'),
    el('p', { class: 'small' }, 'A cached list. When somebody changes an order, it is told here that the data is no longer fresh.'), hint, list);

  function take({ type, data, time, actor }) {
    if (!type.startsWith('entity.') || data?.entity !== 'order') return null;
    const order = { id: String(data.id), version: Number(data.version) || 0, time, by: actor?.id ?? null, deleted: type === 'entity.deleted' };
    const known = newer.get(order.id) ?? shown.get(order.id);
    return known !== undefined && known.version >= order.version ? null : order;
  }

  function heard(event) {
    const order = event.topic === TOPIC ? take(event) : null;
    if (order === null) return;
    if (order.by === user) shown.set(order.id, order);
    else newer.set(order.id, order);
    show();
  }

  async function load() {
    const { events } = await tidings.request('GET', PAGE);
    newer.clear();
    for (const event of events) {
      const order = take(event);
      if (order !== null) shown.set(order.id, order);
    }
    list.removeAttribute('aria-busy');
    show();
  }

  function advance({ id }) {
    const { version } = newer.get(id) ?? shown.get(id);
    act('entity', { user, action: 'updated', entity: 'order', id, version: version + 1 }).catch(toasts.failed);
  }

  function show() {
    if (newer.size === 0) hint.replaceChildren();
    else if (hint.firstChild === null) {
      hint.replaceChildren(el('span', {}, 'Data updated'), el('button', { type: 'button', class: 'primary', onclick: () => load().catch(toasts.failed) }, 'Load'));
    }
    showList(list, [...shown.values()], { key: ({ id }) => id, make, update });
  }

  const stateOf = ({ version }) => STATES[Math.min(version, STATES.length - 1)];

  function make(order) {
    return el('li', { class: 'card order' },
      el('div', {}, el('strong', {}, `Order ${order.id}`), el('p', { class: 'small when' })),
      el('span', { class: 'state' }), el('span', { class: 'stale', hidden: true }, 'changed'),
      el('button', { type: 'button', class: 'next', onclick: () => advance(order) }));
  }

  function update(row, order) {
    const state = row.querySelector('.state');
    state.textContent = order.deleted ? 'deleted' : stateOf(order);
    state.dataset.state = stateOf(order);
    row.querySelector('.when').textContent = order.time === null ? 'unchanged' : `version ${order.version}, ${order.by ?? 'someone'}, ${ago(order.time)}`;
    row.querySelector('.stale').hidden = !newer.has(order.id);
    const next = row.querySelector('.next');
    next.hidden = order.version >= STATES.length - 1;
    next.textContent = `Mark ${STATES[Math.min(order.version + 1, STATES.length - 1)]}`;
    next.setAttribute('aria-label', `Mark order ${order.id} ${STATES[Math.min(order.version + 1, STATES.length - 1)]}`);
  }

  tidings.subscribe(TOPIC).then(load).catch(toasts.failed);
  lifetime.add(tidings.on('entity.*', heard));
  show();
  return { node, close: lifetime.end };
}

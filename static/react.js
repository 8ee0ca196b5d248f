// @ts-check
// React: a provider and hooks over one client.
// Promises: what a hook returns is the same object until something changed; every subscription ends with its component;
// a handler may change at each render without missing an event. Rendering on a server shows empty values and asks nothing.
import { createContext, createElement, useContext, useEffect, useMemo, useRef, useSyncExternalStore } from 'react';
import { createTidings } from './tidings.js';
import { badgeView, conversationView, presenceView, typingView } from './views.js';

/** @type {import('react').Context<import('./tidings.js').Tidings | null>} */
const Context = createContext(/** @type {import('./tidings.js').Tidings | null} */ (null));

/** A render that React gave up never subscribes: its view goes after this long. */
const UNUSED_MS = 10_000;
/** @type {import('./views.js').ConversationValue} */
const NO_CONVERSATION = { messages: [], typing: [], has_older: false, is_loading: true, read: {}, delivered: {}, error: null };
const NOBODY = {};
/** @type {readonly string[]} */
const NO_ONE = [];
const NO_BADGE = { notifications: 0, messages: 0, conversations: 0 };

/** Views that live as long as somebody shows them. @type {WeakMap<object, Map<string, { view: any, users: number }>>} */
const shared = new WeakMap();

/** @type {typeof import('./react.js').TidingsProvider} */
export const TidingsProvider = ({ client, options, children }) => {
  const tidings = useMemo(() => client ?? createTidings(options), [client]);
  // A client that was passed in belongs to whoever made it.
  useEffect(() => {
    if (client !== undefined) return;
    tidings.connect();
    return () => tidings.disconnect();
  }, [tidings, client]);
  return createElement(Context.Provider, { value: tidings }, children);
};

/** @type {typeof import('./react.js').useTidings} */
export const useTidings = () => {
  const tidings = useContext(Context);
  if (tidings === null) throw new Error('useTidings needs a TidingsProvider above it');
  return tidings;
};

/** @type {typeof import('./react.js').useEvents} */
export const useEvents = (pattern, handler) => {
  const tidings = useTidings();
  const newest = useRef(handler);
  useEffect(() => void (newest.current = handler));
  useEffect(() => tidings.on(pattern, (event) => newest.current(event)), [tidings, pattern]);
};

/** @type {typeof import('./react.js').useConnection} */
export const useConnection = () => {
  const tidings = useTidings();
  const store = useMemo(() => {
    let status = tidings.status;
    return {
      // The client makes a new object at each question; React needs the same one until it changed.
      get: () => (JSON.stringify(status) === JSON.stringify(tidings.status) ? status : (status = tidings.status)),
      subscribe: (/** @type {() => void} */ changed) => tidings.on('sys.status', changed),
    };
  }, [tidings]);
  return useSyncExternalStore(store.subscribe, store.get, store.get);
};

/**
 * One view for all components that show the same, made at the first and closed after the last.
 * @template T
 * @param {string} key
 * @param {T} empty
 * @param {(tidings: import('./tidings.js').Tidings) => import('./views.js').View<T>} make
 */
function useView(key, empty, make) {
  const tidings = useTidings();
  const hold = useMemo(() => holder(tidings, key, make), [tidings, key]);
  const value = useSyncExternalStore(hold.subscribe, hold.get, () => empty);
  return { value, view: hold.view };
}

/**
 * @template T
 * @param {import('./tidings.js').Tidings} tidings
 * @param {string} key
 * @param {(tidings: import('./tidings.js').Tidings) => import('./views.js').View<T>} make
 */
function holder(tidings, key, make) {
  const views = shared.get(tidings) ?? new Map();
  shared.set(tidings, views);

  function entry() {
    const known = views.get(key);
    if (known !== undefined) return known;
    const made = { view: make(tidings), users: 0 };
    views.set(key, made);
    tidings.environment.setTimeout(() => closeUnused(made), UNUSED_MS);
    return made;
  }

  /** @param {{ view: any, users: number }} held */
  function closeUnused(held) {
    if (held.users > 0 || views.get(key) !== held) return;
    views.delete(key);
    held.view.close();
  }

  return {
    view: () => entry().view,
    get: () => entry().view.get(),
    subscribe(/** @type {() => void} */ changed) {
      const held = entry();
      held.users += 1;
      const off = held.view.subscribe(changed);
      return () => {
        off();
        held.users -= 1;
        // React unsubscribes and subscribes again when it checks effects: wait for that.
        Promise.resolve().then(() => closeUnused(held));
      };
    },
  };
}

/** @type {typeof import('./react.js').useConversation} */
export const useConversation = (conversation, options) => {
  const { value, view } = useView(`conversation ${conversation}`, NO_CONVERSATION, (tidings) => conversationView(tidings, conversation, options));
  const of = /** @type {() => import('./views.js').ConversationView} */ (view);
  const actions = useMemo(() => ({
    send: (/** @type {string} */ content, /** @type {any} */ more) => of().send(content, more),
    setTyping: (/** @type {any} */ state) => of().typing(state),
    markRead: () => of().read(),
    loadOlder: () => of().older(),
  }), [view]);
  return useMemo(() => ({ .../** @type {import('./views.js').ConversationValue} */ (value), ...actions }), [value, actions]);
};

/** @type {typeof import('./react.js').usePresence} */
export const usePresence = (user) => {
  const { value } = useView('presence', /** @type {Readonly<Record<string, import('./tidings.js').Presence>>} */ (NOBODY), presenceView);
  // A user may be called `constructor`.
  return Object.hasOwn(value, user) ? value[user] : null;
};

/** @type {typeof import('./react.js').useTyping} */
export const useTyping = (conversation) => useView(`typing ${conversation}`, NO_ONE, (tidings) => typingView(tidings, conversation)).value;

/** @type {typeof import('./react.js').useBadge} */
export const useBadge = () => useView('badge', NO_BADGE, badgeView).value;

// @ts-check
// Small stores over a client: a conversation, who types, who is there, the badge. Framework adapters and plain pages show
// them as they are.
// Promises: a value changes only by being replaced; messages are in order, without holes and without doubles, whatever
// order history, events and own sending arrive in; what is typed by others is text and stays text. `close` lets go.

const PAGE = 50;
const TYPING_MS = 5_000;
/** A group's counts are told by the history alone: after a receipt it is asked, at most this often. */
const COUNTS_MS = 1_000;
/** @type {Record<string, number>} */
const RANKS = { failed: 0, queued: 1, sent: 2, delivered: 3, read: 4 };

/** @typedef {import('./tidings.js').Message} Message */

/**
 * @template T
 * @param {T} first
 */
function createValue(first) {
  let value = first;
  /** @type {Set<() => void>} */
  const listeners = new Set();
  return {
    get: () => value,
    /** @param {T} next */
    set(next) {
      value = next;
      for (const changed of [...listeners]) changed();
    },
    /** @param {() => void} changed */
    subscribe(changed) {
      const entry = () => changed();
      listeners.add(entry);
      return () => void listeners.delete(entry);
    },
  };
}

/**
 * The conversation that an event is about.
 * @param {any} event
 */
const conversationOf = ({ topic, data }) =>
  data?.conversation_id ?? (topic?.startsWith('conversation:') ? topic.slice('conversation:'.length) : undefined);

/** @type {typeof import('./views.js').badgeView} */
export const badgeView = (tidings) => {
  const value = createValue({ notifications: 0, messages: 0, conversations: 0 });
  const close = tidings.on('badge', ({ data }) => value.set({ ...value.get(), ...data }));
  return { get: value.get, subscribe: value.subscribe, close };
};

/** @type {typeof import('./views.js').stateView} */
export const stateView = (tidings) => {
  const value = createValue(/** @type {import('./tidings.js').State | null} */ (null));
  const close = tidings.on('sys.state', ({ data }) => value.set(data.state));
  return { get: value.get, subscribe: value.subscribe, close };
};

/** @type {typeof import('./views.js').presenceView} */
export const presenceView = (tidings) => {
  /** @typedef {Record<string, import('./tidings.js').Presence>} All */
  const value = createValue(/** @type {All} */ ({}));
  const offs = [
    tidings.on('presence.changed', ({ data }) => value.set({ ...value.get(), [data.user]: data })),
    tidings.on('sys.state', ({ data }) => {
      const known = Object.entries(data.state.presence ?? {});
      value.set({ ...value.get(), .../** @type {All} */ (Object.fromEntries(known.map(([user, presence]) => [user, { ...presence, user }]))) });
    }),
  ];
  return { get: value.get, subscribe: value.subscribe, close: () => offs.forEach((off) => off()) };
};

/** @type {typeof import('./views.js').typingView} */
export const typingView = (tidings, conversation) => {
  const env = tidings.environment;
  const value = createValue(/** @type {readonly string[]} */ ([]));
  /** @type {Map<string, unknown>} */
  const timers = new Map();

  /** @param {string | undefined} user */
  function stopped(user) {
    if (user === undefined || !timers.has(user)) return;
    env.clearTimeout(timers.get(user));
    timers.delete(user);
    value.set([...timers.keys()]);
  }

  /** @param {string | undefined} user @param {number} ms */
  function started(user, ms) {
    if (user === undefined || user === tidings.user) return;
    const isNew = !timers.has(user);
    env.clearTimeout(timers.get(user));
    // Should the stop be lost, typing ends by itself.
    timers.set(user, env.setTimeout(() => stopped(user), ms));
    if (isNew) value.set([...timers.keys()]);
  }

  const offs = [
    tidings.on('typing.*', (event) => {
      if (conversationOf(event) !== conversation) return;
      const user = event.actor?.id ?? event.data?.user;
      if (event.type === 'typing.start') started(user, event.ttl_ms ?? TYPING_MS);
      else stopped(user);
    }),
    tidings.on('message.new', ({ data }) => data.conversation_id === conversation && stopped(data.sender)),
  ];
  return {
    get: value.get,
    subscribe: value.subscribe,
    close() {
      offs.forEach((off) => off());
      for (const timer of timers.values()) env.clearTimeout(timer);
      timers.clear();
    },
  };
};

/** @type {typeof import('./views.js').conversationView} */
export const conversationView = (tidings, conversation, { limit = PAGE } = {}) => {
  const path = `/v1/conversations/${encodeURIComponent(conversation)}/messages`;
  const typing = typingView(tidings, conversation);
  /** Stored messages by `n`: always one run without holes. @type {Map<number, Message>} */
  let stored = new Map();
  /** Own messages that are not stored yet, by client id. @type {Map<string, Message>} */
  const unsent = new Map();
  /** Arrived while a page was on its way. @type {Message[]} */
  let early = [];
  /** @type {Record<string, number>} */
  let read = {};
  /** @type {Record<string, number>} */
  let delivered = {};
  let isClosed = false;
  /** @type {unknown} */
  let countsTimer = null;
  let isLoading = false;
  let wantsReload = false;
  let hasOlder = false;
  /** @type {Error | null} */
  let failure = null;
  const value = createValue(shown());

  /** @returns {import('./views.js').ConversationValue} */
  function shown() {
    const inOrder = [...stored.values()].sort((a, b) => Number(a.n) - Number(b.n));
    return {
      messages: [...inOrder.map(marked), ...unsent.values()],
      typing: typing.get(), has_older: hasOlder, is_loading: isLoading, read, delivered, error: failure,
    };
  }

  const show = () => isClosed || value.set(shown());
  const newest = () => Math.max(0, ...stored.keys());
  const oldest = () => Math.min(Infinity, ...stored.keys());

  /** A tick never goes back, whether page or event came first. @param {Message} message @returns {Message} */
  function marked(message) {
    const { n, sender, status } = message;
    if (sender !== tidings.user || n === null || status === undefined || isGroup(message)) return message;
    const isReached = (/** @type {Record<string, number>} */ marks) => Object.values(marks).some((upto) => upto >= n);
    const told = isReached(read) ? 'read' : isReached(delivered) ? 'delivered' : status;
    return RANKS[told] > RANKS[status] ? { ...message, status: /** @type {Message['status']} */ (told) } : message;
  }

  const isGroup = (/** @type {Message} */ message) => message.delivered_to !== undefined;

  /** In a group a message is read when everyone has read it, which only the server can tell. */
  function countSoon() {
    if (countsTimer !== null || isClosed || ![...stored.values()].some(isGroup)) return;
    countsTimer = tidings.environment.setTimeout(() => {
      countsTimer = null;
      void reload();
    }, COUNTS_MS);
  }

  /** @param {Message} message */
  function put(message) {
    if (message.n === null) return;
    if (message.client_id) unsent.delete(message.client_id);
    stored.set(message.n, { status: 'sent', ...stored.get(message.n), ...message });
  }

  /** @param {Record<string, number | undefined>} query @returns {Promise<{ messages: Message[], more: boolean }>} oldest first */
  async function page(query) {
    const pairs = Object.entries({ ...query, limit }).filter(([, value]) => value !== undefined);
    const answer = /** @type {any} */ (await tidings.request('GET', `${path}?${new URLSearchParams(pairs.map(([name, value]) => [name, String(value)]))}`));
    const messages = [...answer.messages].sort((a, b) => a.n - b.n);
    return { messages, more: answer.more ?? Number(messages[0]?.n ?? 1) > 1 };
  }

  /** One page at a time; what arrives meanwhile is put in after it. @param {() => Promise<void>} load */
  async function loading(load) {
    if (isLoading || isClosed) return;
    isLoading = true;
    failure = null;
    show();
    try {
      await load();
    } catch (error) {
      failure = /** @type {Error} */ (error);
    }
    isLoading = false;
    if (wantsReload && !isClosed) {
      wantsReload = false;
      return reload();
    }
    const waiting = early;
    early = [];
    waiting.forEach(arrived);
    show();
  }

  /** The newest page; what was shown stays if it joins on without a hole.  @returns {Promise<void>} */
  function reload() {
    if (isLoading) {
      wantsReload = true;
      return Promise.resolve();
    }
    return loading(async () => {
      const { messages, more } = await page({});
      const from = Number(messages[0]?.n ?? Infinity);
      const isJoined = stored.size > 0 && from <= newest() + 1;
      if (!isJoined) {
        stored = new Map();
        hasOlder = more;
      }
      messages.forEach(put);
    });
  }

  async function fillHole() {
    const before = newest();
    const { messages } = await page({ after: before });
    for (const message of messages) if (Number(message.n) <= newest() + 1) put(message);
    // What is missing is not there any more: what is left of it is shown anew.
    if (newest() === before) wantsReload = true;
  }

  /** @param {Message} message */
  function arrived(message) {
    if (isLoading) return void early.push(message);
    const n = Number(message.n);
    if (stored.size > 0 && n > newest() + 1) {
      early.push(message);
      return void loading(fillHole);
    }
    if (stored.size === 0 || n >= oldest()) put(message);
    show();
  }

  /** @param {Record<string, number>} marks @param {{ by?: string, upto: number }} data */
  const raised = (marks, { by, upto }) => (by === undefined ? marks : { ...marks, [by]: Math.max(Object.hasOwn(marks, by) ? marks[by] : 0, upto) });

  const offs = [
    tidings.on('message.new', ({ data }) => data.conversation_id === conversation && arrived(data)),
    tidings.on('message.deleted', ({ data }) => {
      for (const [n, message] of stored) {
        if (message.id === data.id) stored.set(n, { ...message, content: '', deleted: true });
      }
      show();
    }),
    tidings.on('message.delivered', ({ data }) => {
      if (data.conversation_id !== conversation) return;
      delivered = raised(delivered, data);
      countSoon();
      show();
    }),
    tidings.on('message.read', ({ data }) => {
      if (data.conversation_id !== conversation) return;
      read = raised(read, data);
      countSoon();
      show();
    }),
    tidings.on('sys.outgoing', ({ data: { op, status, message } }) => {
      if (op !== 'send' || message?.conversation_id !== conversation) return;
      if (status === 'sent') arrived(message);
      else if (message.client_id) unsent.set(message.client_id, message);
      show();
    }),
    tidings.on('sys.state', () => void reload()),
    tidings.on('sys.status', ({ data }) => data.status === 'connected' && failure !== null && void reload()),
    typing.subscribe(show),
  ];
  void reload();

  return {
    get: value.get,
    subscribe: value.subscribe,
    close() {
      isClosed = true;
      offs.forEach((off) => off());
      tidings.environment.clearTimeout(countsTimer);
      typing.close();
    },
    older: () => loading(async () => {
      if (!hasOlder) return;
      const { messages, more } = await page({ before: oldest() });
      messages.forEach(put);
      hasOlder = messages.length > 0 && more;
    }),
    send: (content, options) => tidings.send(conversation, content, options),
    typing: (state) => tidings.typing(conversation, state),
    read: () => (stored.size === 0 ? Promise.resolve() : tidings.read(conversation, newest())),
  };
};

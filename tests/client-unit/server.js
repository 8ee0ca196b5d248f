// A Tidings server in memory, as PROTOCOL.md describes it, with faults that a test switches on: it is down, a proxy holds
// streams back, sockets are blocked, answers are lost after the work was done.
// Promises: it keeps every request for the test to look at; a stream says ready, reset, events and live in that order.

const NO_BADGE = { notifications: 0, messages: 0, conversations: 0 };

export function createServer(clock) {
  const server = {
    epoch: 'abcdef',
    log: [],
    earliest: 1,
    ids: 0,
    readers: new Set(),
    requests: [],
    messages: [],
    faults: { isDown: false, holdsStreams: false, blocksSockets: false, losesAnswers: 0, status: null, isHung: false },
    /** Token → user; a test takes tokens away. */
    tokens: new Map([['t1', 'alice']]),
    tickets: new Map(),
    revoked: new Set(),
    ping_ms: 20_000,
    retry_ms: 2_000,
    state: { badge: NO_BADGE, conversations: [], notifications: [], presence: {}, preferences: {} },
    refreshed: [],
    acks: [],
    extra: new Map(),
    head: () => `${server.epoch}-${server.log.length}`,
    /** Appends one durable event and shows it to every reader. */
    publish(type, data = {}, more = {}) {
      server.ids += 1;
      const seq = server.log.length + 1;
      const event = { v: 1, id: `e${server.ids}`, seq, cursor: `${server.epoch}-${seq}`, type, time: new Date(clock.now()).toISOString(), data, ...more };
      server.log.push(event);
      for (const reader of [...server.readers]) reader.send(event);
      return event;
    },
    signal(type, data, more = {}) {
      for (const reader of [...server.readers]) reader.send({ v: 1, type, ephemeral: true, data, ...more });
    },
    /** Trims everything before `seq`. */
    trim: (seq) => (server.earliest = Math.min(seq, server.log.length + 1)),
    say: (frame, retry_ms) => [...server.readers].forEach((reader) => reader.send(frame, retry_ms)),
    /** Cuts every open stream, with or without a word. */
    cut: (how) => [...server.readers].forEach((reader) => reader.end(how)),
    ping: () => server.say({ type: 'sys.ping', head: server.head() }),
  };

  /** Who asks; null when nobody is believed. */
  server.caller = ({ headers = {}, query = {}, cookie }) => {
    const bearer = headers.Authorization?.replace('Bearer ', '');
    const user = server.tokens.get(bearer ?? cookie) ?? server.tickets.get(query.ticket) ?? null;
    return user;
  };

  /** Opens a reader: `send(frame, retry_ms)` and `end(how)` are the transport's. */
  server.open = (user, query, reader) => {
    const wanted = query.cursor ?? '';
    const reset = resetFor(wanted);
    const from = wanted === '' || wanted === 'now' || reset !== null ? server.log.length : startOf(wanted);
    const ready = {
      type: 'sys.ready', v: 1, user, conn: `c${server.requests.length}`, cursor: `${server.epoch}-${from}`, head: server.head(),
      ping_ms: server.ping_ms, badge: server.state.badge, auth_expires: new Date(clock.now() + 3600_000).toISOString(),
    };
    server.readers.add(reader);
    reader.user = user;
    reader.conn = ready.conn;
    reader.send(ready, server.retry_ms);
    if (reset !== null) reader.send(reset);
    for (const event of server.log.slice(from)) reader.send(event);
    reader.send({ type: 'sys.live', cursor: server.head() });
    return () => server.readers.delete(reader);
  };

  function startOf(wanted) {
    if (wanted === 'start') return server.earliest - 1;
    if (/^-\d+$/.test(wanted)) return Math.max(server.earliest - 1, server.log.length + Number(wanted));
    return Number(wanted.split('-')[1]);
  }

  function resetFor(wanted) {
    const [epoch, seq] = wanted.split('-');
    if (!/^[a-z0-9]{6}$/.test(epoch) || seq === undefined) return null;
    const told = { type: 'sys.reset', requested: wanted, earliest: server.earliest, head: server.head(), cursor: server.head(), state: '/v1/state' };
    if (epoch !== server.epoch) return { ...told, reason: 'epoch' };
    if (Number(seq) > server.log.length) return { ...told, reason: 'ahead' };
    return Number(seq) < server.earliest - 1 ? { ...told, reason: 'trimmed' } : null;
  }

  /** One page for a poll, waiting as asked. */
  server.page = async (query, signal) => {
    const wanted = query.cursor ?? '';
    const read = () => {
      const reset = resetFor(wanted);
      const from = wanted === '' || wanted === 'now' || reset !== null ? server.log.length : startOf(wanted);
      const limit = Number(query.limit ?? 500);
      const events = server.log.slice(from, from + limit);
      const cursor = `${server.epoch}-${from + events.length}`;
      return { events, ephemeral: [], cursor, head: server.head(), more: from + events.length < server.log.length, reset, poll_after_ms: 0 };
    };
    const page = read();
    const wait_ms = Number(query.wait ?? 0) * 1000;
    if (page.events.length > 0 || page.reset !== null || wait_ms === 0) return page;
    return new Promise((resolve, reject) => {
      const ephemeral = [];
      const finish = (change = {}) => {
        server.readers.delete(reader);
        clock.clearTimeout(timer);
        resolve({ ...read(), ephemeral, ...change });
      };
      const reader = {
        send: (frame) => {
          if (frame.ephemeral) ephemeral.push(frame);
          if (!frame.type.startsWith('sys.')) finish();
        },
        end: ({ poll_after_ms } = {}) => (poll_after_ms === undefined ? fail() : finish({ poll_after_ms })),
      };
      const fail = () => {
        server.readers.delete(reader);
        clock.clearTimeout(timer);
        reject(new TypeError('network'));
      };
      const timer = clock.setTimeout(finish, wait_ms);
      server.readers.add(reader);
      signal?.addEventListener('abort', fail);
    });
  };
  return server;
}

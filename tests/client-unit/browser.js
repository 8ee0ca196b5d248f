// A browser in memory: tabs that share locks, broadcasts and localStorage, each with its own environment for a client.
// Promises: broadcasts arrive later, never at once, in order, as copies; a lock is held by one tab; a tab that crashes lets
// its lock go and says nothing.
import { createFetch } from './routes.js';
import { store } from './routes.js';

export function createStorage(values = new Map()) {
  return {
    getItem: (key) => values.get(key) ?? null,
    setItem: (key, value) => void values.set(key, String(value)),
    removeItem: (key) => void values.delete(key),
    keys: () => [...values.keys()],
  };
}

export function createBrowser(clock, server) {
  const broadcasts = new Map();
  const locks = new Map();
  const shared_storage = createStorage();
  const jar = { token: undefined };
  const notifications = [];
  let ids = 0;

  class Notification {
    static permission = 'granted';
    static requestPermission = async () => 'granted';
    constructor(title, options) {
      notifications.push({ title, ...options, shown: this });
    }
    close() {}
  }

  function tab() {
    const listeners = new Map();
    const sockets = new Set();
    const page = { isOnline: true, isVisible: true, isCrashed: false, console: [] };
    const own = new Set();

    class BroadcastChannel {
      constructor(name) {
        this.name = name;
        broadcasts.set(name, (broadcasts.get(name) ?? new Set()).add(this));
        own.add(this);
      }
      postMessage(message) {
        const copy = structuredClone(message);
        if (page.isCrashed) return;
        for (const other of broadcasts.get(this.name)) {
          if (other !== this) setImmediate(() => !other.isClosed && other.onmessage?.({ data: structuredClone(copy) }));
        }
      }
      close() {
        this.isClosed = true;
        broadcasts.get(this.name).delete(this);
      }
    }

    const held = new Set();
    const sharedLocks = {
      request: (name, options, action) => new Promise((resolve, reject) => {
        const queue = locks.get(name) ?? [];
        locks.set(name, queue);
        const entry = { action, resolve, reject, isHeld: false, owner: held };
        options.signal?.addEventListener('abort', () => {
          if (entry.isHeld || !queue.includes(entry)) return;
          queue.splice(queue.indexOf(entry), 1);
          reject(new DOMException('aborted', 'AbortError'));
        });
        held.add([queue, entry]);
        if (options.steal) {
          for (const stolen of queue.splice(0).filter(({ isHeld }) => isHeld)) stolen.reject(new DOMException('stolen', 'AbortError'));
          queue.unshift(entry);
        } else queue.push(entry);
        grant(queue);
      }),
    };

    const environment = {
      fetch: createFetch(server, jar),
      EventSource: eventSource(server, jar, sockets),
      WebSocket: webSocket(server, jar, sockets),
      BroadcastChannel,
      locks: sharedLocks,
      storage: createStorage(),
      shared_storage,
      Notification,
      setTimeout: (action, ms) => clock.setTimeout(() => !page.isCrashed && action(), ms),
      clearTimeout: clock.clearTimeout,
      now: clock.now,
      random: () => clock.dice,
      uuid: () => `id${(ids += 1)}`,
      origin: 'http://tidings.test',
      online: () => page.isOnline,
      visible: () => page.isVisible,
      listen(name, handler) {
        listeners.set(name, (listeners.get(name) ?? new Set()).add(handler));
        return () => listeners.get(name).delete(handler);
      },
      console: { debug: (...words) => page.console.push(words), error: (...words) => page.console.push(['error', ...words]) },
    };
    return {
      environment,
      page,
      fire: (name, event = {}) => [...(listeners.get(name) ?? [])].forEach((handler) => handler(event)),
      /** The tab is gone without a word: its lock is free, its streams are closed. */
      crash() {
        page.isCrashed = true;
        for (const broadcast of own) broadcast.close();
        for (const [queue, entry] of held) {
          if (queue.includes(entry)) queue.splice(queue.indexOf(entry), 1);
          grant(queue);
        }
        server.cut();
      },
      /** It stops answering, but the browser thinks that it lives. */
      hang() {
        page.isCrashed = true;
        for (const broadcast of own) broadcast.isClosed = true;
      },
    };
  }

  function grant(queue) {
    const first = queue[0];
    if (first === undefined || first.isHeld) return;
    first.isHeld = true;
    setImmediate(() => {
      if (!queue.includes(first)) return;
      Promise.resolve(first.action({})).then((value) => {
        if (queue.includes(first)) queue.splice(queue.indexOf(first), 1);
        first.resolve(value);
        grant(queue);
      });
    });
  }

  return { tab, notifications, jar, shared_storage, broadcasts, post: (name, data) => broadcasts.get(name)?.forEach((broadcast) => broadcast.onmessage?.({ data })) };
}

function eventSource(server, jar, sockets) {
  return class EventSource {
    constructor(address, { withCredentials } = {}) {
      const url = new URL(address);
      const query = Object.fromEntries(url.searchParams);
      this.handlers = new Map();
      this.readyState = 0;
      server.requests.push({ method: 'EventSource', path: url.pathname, query, headers: {}, withCredentials });
      sockets.add(this);
      setImmediate(() => this.open(query, withCredentials ? jar.token : undefined));
    }
    open(query, cookie) {
      if (this.readyState === 2 || server.faults.isHung) return;
      const user = server.caller({ query, cookie });
      const isRefused = user === null || server.revoked.has(user) || server.faults.status !== null;
      if (server.faults.isDown || isRefused) {
        this.readyState = isRefused && !server.faults.isDown ? 2 : 0;
        return this.emit('error', {});
      }
      const reader = {
        kind: 'eventsource',
        send: (frame) => {
          if (server.faults.holdsStreams || this.readyState === 2) return;
          this.emit(frame.type.startsWith('sys.') ? frame.type.slice(4) : 'message', { data: JSON.stringify(frame), lastEventId: frame.cursor ?? '' });
        },
        end: () => {
          this.forget();
          this.emit('error', {});
        },
      };
      this.readyState = 1;
      this.forget = server.open(user, query, reader);
    }
    addEventListener(name, handler) {
      this.handlers.set(name, [...(this.handlers.get(name) ?? []), handler]);
    }
    emit(name, event) {
      for (const handler of this.handlers.get(name) ?? []) handler(event);
    }
    close() {
      this.readyState = 2;
      this.forget?.();
    }
  };
}

function webSocket(server, jar, sockets) {
  return class WebSocket {
    constructor(address, protocols) {
      const url = new URL(address);
      const query = Object.fromEntries(url.searchParams);
      this.readyState = 0;
      server.requests.push({ method: 'WebSocket', path: url.pathname, query, headers: {}, protocols });
      sockets.add(this);
      const token = protocols.find((name) => name.startsWith('bearer.'))?.slice(7);
      setImmediate(() => this.open(query, token === undefined ? jar.token : token));
    }
    open(query, token) {
      const user = server.tokens.get(token) ?? server.tickets.get(query.ticket) ?? null;
      const { isDown, blocksSockets, isHung } = server.faults;
      if (this.readyState !== 0 || isHung) return;
      if (isDown || blocksSockets || user === null || server.revoked.has(user)) return this.ended(1006, '');
      this.readyState = 1;
      this.user = user;
      this.onopen?.({});
      const reader = {
        kind: 'websocket',
        send: (frame) => this.readyState === 1 && this.onmessage?.({ data: JSON.stringify(frame) }),
        end: ({ code = 1006, reason = '' } = {}) => this.ended(code, reason),
      };
      this.forget = server.open(user, query, reader);
    }
    ended(code, reason) {
      if (this.readyState === 3) return;
      this.readyState = 3;
      this.forget?.();
      this.onclose?.({ code, reason });
    }
    send(text) {
      const command = JSON.parse(text);
      server.requests.push({ method: 'op', path: command.op, body: command, query: {}, headers: {} });
      const reply = (body) => setImmediate(() => this.readyState === 1 && this.onmessage?.({ data: JSON.stringify({ ref: command.ref, ...body }) }));
      const special = server.extra.get(`op ${command.op}`);
      if (special !== undefined) return special(command, reply, this);
      if (command.op === 'auth') server.refreshed.push({ token: command.token });
      if (command.op === 'ack') server.acks.push(command);
      const data = command.op === 'send' ? store(server, this.user, command.conversation, command) : {};
      reply({ type: 'sys.reply', data });
    }
    close() {
      this.ended(1000, '');
    }
  };
}

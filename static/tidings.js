// @ts-check
// The browser's client: one factory that puts the parts together and gives what an application calls.
// Promises: no dependency, no build step, no global of its own; everything a browser gives is in the environment and can be
// replaced; nothing happens before `connect()`. The parts are in the modules beside it: `connection.js` for the state
// machine, `reader.js` for what is told and when, `tabs.js` for sharing, `outbox.js` for what goes out.
import { createAccess } from './access.js';
import { httpForm, socketForm } from './commands.js';
import { createDispatch } from './dispatch.js';
import { browserEnvironment } from './environment.js';
import { TidingsError, isPassing } from './error.js';
import { createHttp } from './http.js';
import { createLive } from './live.js';
import { createOutbox } from './outbox.js';
import { createReader } from './reader.js';

export { TidingsError, browserEnvironment };

/** @typedef {import('./internal.js').Command} Command */

/** @type {import('./tidings.js').Timing} */
const TIMING = {
  backoff_ms: 1_000, backoff_max_ms: 30_000, ready_ms: 6_000, ping_slack_ms: 4_000, stable_ms: 5_000, unfit_ms: 600_000,
  request_ms: 15_000, poll_wait_ms: 25_000, ack_ms: 500, leader_ms: 45_000,
};
/** @type {import('./tidings.js').TransportName[]} */
const TRANSPORTS = ['sse', 'eventsource', 'websocket', 'poll'];

/** @type {typeof import('./tidings.js').createTidings} */
export const createTidings = (options = {}) => {
  const env = { ...browserEnvironment(), ...options.environment };
  const timing = { ...TIMING, ...options.timing };
  const url = (options.url ?? env.origin).replace(/\/+$/, '');
  let isDebug = options.debug === true || env.storage?.getItem('tidings.debug') != null;
  const log = (/** @type {unknown[]} */ ...words) => isDebug && env.console.debug('[tidings]', ...words);
  const access = createAccess({ env, options, url, log });
  const http = createHttp({ env, url, access, timing });
  const dispatch = createDispatch(env);
  /** Commands that went over the socket and are not answered. @type {Map<string, { resolve: (value: any) => void, reject: (error: any) => void, timer: unknown }>} */
  const asked = new Map();
  /** @type {(() => void)[]} */
  let unlisten = [];
  let isWanted = false;
  let isHidden = false;
  /** Beginning takes its time; only the last one counts. */
  let begun = 0;
  /** @type {unknown} */
  let retry = null;

  const reader = createReader({
    env, timing, log, options, url, access, http, obey,
    names: options.transports ?? TRANSPORTS,
    emit: dispatch.emit,
    changed,
    answered: ({ ref, type, data, code, message }) => answer(String(ref), type === 'sys.reply' ? { data } : { code, message }),
  });
  const outbox = createOutbox({ env, timing, log, perform, told });
  const live = createLive({ env, timing, reader, fire: perform, on: dispatch.on, is_acking: options.ack !== false, device: options.device });

  /** Carries out a command: through the leading tab, or from here. @param {Command} command */
  function perform(command) {
    return reader.hand(command) ?? obey(command);
  }

  /** @param {Command} command @returns {Promise<any>} */
  async function obey(command) {
    const text = socketForm(command);
    if (text !== null && reader.send(text)) {
      const result = await new Promise((resolve, reject) => {
        const late = () => answer(command.ref, { code: 'timeout', message: 'no answer came' });
        asked.set(command.ref, { resolve, reject, timer: env.setTimeout(late, timing.request_ms) });
      }).catch((error) => {
        // A server that does not know the op may know its HTTP form.
        if (error.code === 'unknown_op') return obeyByHttp(command);
        throw error;
      });
      return result;
    }
    return obeyByHttp(command);
  }

  /** @param {Command} command */
  function obeyByHttp(command) {
    const user = reader.user();
    const [method, path, body] = httpForm(command, user ?? '');
    if (user === null && path.endsWith('/')) throw new TidingsError({ status: 0, code: 'network', message: 'who is signed in is not known yet' });
    return http(method, path, body);
  }

  /** @param {string} ref @param {{ data?: any, code?: string, message?: string }} result */
  function answer(ref, { data, code, message }) {
    const entry = asked.get(ref);
    if (entry === undefined) return;
    asked.delete(ref);
    env.clearTimeout(entry.timer);
    if (code === undefined) return entry.resolve(data);
    const error = new TidingsError({ status: 400, code, message: String(message) });
    if (isPassing(error) || ['timeout', 'network'].includes(code)) error.status = 0;
    entry.reject(error);
  }

  /** @param {Command} command @param {'queued' | 'sent' | 'failed'} status @param {any} result */
  function told(command, status, result) {
    const { op, ref } = command;
    const message = op === 'send' ? messageOf(command, status, result) : undefined;
    const error = status === 'failed' ? result : undefined;
    dispatch.emit({ type: 'sys.outgoing', data: { op, ref, status, message, error } });
  }

  /** @param {Command} command @param {string} status @param {any} result */
  function messageOf({ conversation, content, client_id, data, time }, status, result) {
    if (status === 'sent') return result;
    return { id: null, conversation_id: conversation, n: null, sender: reader.user() ?? '', content, time, client_id, data, status };
  }

  /** @param {string} op @param {object} fields */
  const command = (op, fields) => ({ op, ref: env.uuid(), ...fields });

  /** @param {import('./tidings.js').Status} status */
  function changed(status) {
    // What went over a socket that is gone may have arrived or not: it is sent again under its own id.
    if (status.status !== 'connected') for (const ref of [...asked.keys()]) answer(ref, { code: 'network', message: 'the connection was lost' });
    if (status.status === 'connected') outbox.kick();
    if (status.status === 'stopped') {
      outbox.pause();
      isWanted = isHidden && isWanted;
    }
    dispatch.emit({ type: 'sys.status', data: status });
  }

  async function begin() {
    begun += 1;
    const mine = begun;
    const isShared = options.tabs !== false || options.persist === true;
    /** @type {any} */
    let state = null;
    try {
      // Tabs of different users must never share: who is signed in comes first.
      if (isShared && access.user() === null && reader.user() === null && !access.is_ticket_only) {
        await access.request();
        if (access.user() === null) state = await http('GET', '/v1/state');
      }
    } catch (error) {
      log('who is signed in is not known yet', error);
      const { status, code } = /** @type {any} */ (error);
      if (isWanted && mine === begun && (status === 0 || code === 'token_failed')) {
        retry = env.setTimeout(begin, timing.backoff_ms * (0.5 + env.random() * 2));
        return;
      }
      // Refused: the connection finds out in its own way and says so.
    }
    if (!isWanted || mine !== begun) return;
    const user = access.user() ?? reader.user() ?? state?.user ?? null;
    const name = user === null ? null : JSON.stringify([1, url, user, options.types ?? [], options.topics ?? []]);
    if (options.persist === true && name !== null) outbox.restore(`tidings.outbox:${name}`);
    reader.begin({
      group: options.tabs === false || name === null ? null : `tidings:${name}`,
      storage_key: options.persist === true && name !== null ? `tidings.cursor:${name}` : null,
      state,
    });
    outbox.kick();
  }

  function listen() {
    const again = (/** @type {boolean} */ isNetworkNew) => {
      reader.kick(isNetworkNew);
      if (isWanted) outbox.kick();
    };
    unlisten = [
      env.listen('online', () => again(true)),
      env.listen('offline', () => reader.offline()),
      env.listen('visibilitychange', () => env.visible() && again(false)),
      env.listen('pageshow', () => {
        if (!isHidden) return again(false);
        isHidden = false;
        if (isWanted) begin();
      }),
      env.listen('pagehide', () => {
        // The page goes, or is kept frozen: another tab takes over now, not when somebody notices.
        isHidden = true;
        live.flush();
        reader.end('hidden');
      }),
    ];
  }

  /** @type {import('./tidings.js').Tidings} */
  const tidings = {
    get status() {
      return reader.status();
    },
    get cursor() {
      return reader.cursor();
    },
    get user() {
      return reader.user();
    },
    get queued() {
      return outbox.list();
    },
    connect() {
      if (isWanted) return tidings;
      isWanted = true;
      if (unlisten.length === 0) listen();
      begin();
      return tidings;
    },
    ready: () => new Promise((resolve, reject) => {
      const off = dispatch.on('sys.status', ({ data }) => settled(data));
      const settled = (/** @type {import('./tidings.js').Status} */ status) => {
        if (status.status === 'connected') resolve(status);
        else if (status.status === 'stopped' && !isWanted) reject(new TidingsError({ status: 0, code: status.reason, message: `stopped: ${status.reason}` }));
        else return;
        off();
      };
      settled(reader.status());
    }),
    disconnect() {
      isWanted = false;
      env.clearTimeout(retry);
      for (const stop of unlisten) stop();
      unlisten = [];
      live.flush();
      reader.end('disconnected');
      outbox.pause();
    },
    on: (pattern, handler) => dispatch.on(pattern, handler),
    subscribe: (topic) => outbox.add(command('subscribe', { topic })).then(() => undefined),
    unsubscribe: (topic) => outbox.add(command('unsubscribe', { topic })).then(() => undefined),
    send(conversation, content, { client_id = env.uuid(), data } = {}) {
      const time = new Date(env.now()).toISOString();
      const sending = command('send', { conversation, content, client_id, time, ...(data === undefined ? {} : { data }) });
      live.typed(conversation);
      const done = outbox.add(sending);
      // Who looks only at events need not catch: the failure is told as `sys.outgoing` too.
      done.catch(() => {});
      return { client_id, message: /** @type {any} */ (messageOf(sending, 'queued', null)), done };
    },
    typing: (conversation, state = 'start') => live.typing(conversation, state),
    read: (conversation, upto) =>
      outbox.add(command('read', { conversation, ...(typeof upto === 'number' ? { upto } : { message_ids: upto.message_ids }) })).then(() => undefined),
    presence: (status, activity) => outbox.add(command('presence', { status, ...(activity === undefined ? {} : { activity }) })).then(() => undefined),
    signal: (conversation, kind, data) => live.signal(conversation, kind, data),
    ack: async (cursor = reader.cursor() ?? undefined) => {
      if (cursor !== undefined) await perform(command('ack', { cursor, ...(options.device === undefined ? {} : { device: options.device }) }));
    },
    request: (method, path, body) => http(method, path, body),
    state: () => http('GET', '/v1/state'),
    watched: () => reader.watched(),
    debug(on) {
      isDebug = on;
    },
    environment: env,
  };
  return tidings;
};

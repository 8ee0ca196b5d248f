// @ts-check
// The tabs of one browser: one of them leads (it holds a Web Lock), all talk over a BroadcastChannel.
// Promises: at most one leads; when it goes, the browser gives the lock to the next; one that hangs is replaced by a tab
// that is looked at. A message that is not of the table below is not heard: other scripts of this origin may post anything.
// It never touches the network.
import { isCommand } from './commands.js';
import { TidingsError } from './error.js';
import { parseCursor } from './place.js';
import { isFrame } from './transports/wire.js';

const ANSWER_MS = 3_000;
const GLANCE_MS = 200;
const FRAMES_MAX = 5_000;
const STATUSES = ['connecting', 'connected', 'reconnecting', 'offline', 'stopped'];

const isText = (/** @type {any} */ value) => typeof value === 'string' && value.length > 0 && value.length < 200;
const isCursor = (/** @type {any} */ value) => value === null || parseCursor(value) !== null;
const isObject = (/** @type {any} */ value) => typeof value === 'object' && value !== null;
const isStatus = (/** @type {any} */ value) => isObject(value) && STATUSES.includes(value.status) && isText(value.reason);
/** Only what comes from others: what the client itself says is not taken from a broadcast. */
const isEvent = (/** @type {any} */ value) =>
  isFrame(value) && !value.type.startsWith('sys.') && (value.ephemeral === true || parseCursor(value.cursor) !== null);
const areEvents = (/** @type {any} */ value) => Array.isArray(value) && value.length <= FRAMES_MAX && value.every(isEvent);

/** What a message must carry, by kind. @type {Record<string, (body: any) => boolean>} */
const KINDS = {
  hello: () => true,
  welcome: ({ to, status, cursor, latest }) => isText(to) && isStatus(status) && isCursor(cursor) && areEvents(latest),
  status: ({ status }) => isStatus(status),
  batch: ({ after, cursor, events }) => isCursor(after) && isCursor(cursor) && areEvents(events),
  state: ({ reason, state }) => isText(reason) && isObject(state) && parseCursor(state.cursor) !== null,
  command: ({ command }) => isCommand(command),
  reply: ({ to, ref, error }) => isText(to) && isText(ref) && (error === null || (isObject(error) && isText(error.code))),
  ask: () => true,
  alive: () => true,
  nudge: () => true,
  glance: () => true,
  seen: ({ to }) => isText(to),
  bye: () => true,
};
const FROM_LEADER = ['welcome', 'status', 'batch', 'state', 'reply', 'alive'];

/** @param {any} data @returns {data is import('./internal.js').TabMessage} */
export const isTabMessage = (data) =>
  isObject(data) && data.v === 1 && isText(data.from) && Object.hasOwn(KINDS, data.kind) && KINDS[data.kind](data);

/**
 * @param {{
 *   env: import('./tidings.js').Environment, timing: import('./tidings.js').Timing, log: import('./internal.js').Log, name: string,
 *   lead: () => void, yielded: () => void, heard: (message: import('./internal.js').TabMessage) => void }} parts
 */
export function createTabs({ env, timing, log, name, lead, yielded, heard }) {
  const id = env.uuid();
  /** @type {BroadcastChannel | null} */
  let broadcast = null;
  /** @type {AbortController | null} */
  let waiting = null;
  /** @type {(() => void) | null} */
  let release = null;
  let leaderHeardAt = 0;
  let hasLeader = false;
  /** @type {unknown} */
  let timer = null;
  /** @type {Map<string, { resolve: (value: any) => void, reject: (error: any) => void, timer: unknown }>} */
  const asked = new Map();
  /** @type {(() => void) | null} */
  let seen = null;

  /** @param {string} kind @param {object} [body] */
  function post(kind, body = {}) {
    try {
      broadcast?.postMessage({ v: 1, from: id, kind, ...body });
    } catch (error) {
      log('not shared with other tabs', kind, error);
    }
  }

  /** @param {MessageEvent} event */
  function receive({ data }) {
    if (!isTabMessage(data)) return log('a broadcast that is none of ours');
    if (data.from === id || (data.to !== undefined && data.to !== id)) return;
    if (FROM_LEADER.includes(data.kind)) {
      hasLeader = true;
      leaderHeardAt = env.now();
    }
    switch (data.kind) {
      case 'ask': return void (release !== null && post('alive'));
      case 'glance': return void (env.visible() && post('seen', { to: data.from }));
      case 'seen': return seen?.();
      case 'reply': return settle(data);
      case 'bye':
        hasLeader = false;
        giveUp('network');
        return heard(data);
      default: return heard(data);
    }
  }

  /** @param {import('./internal.js').TabMessage} message */
  function settle({ ref, value, error }) {
    const entry = asked.get(ref);
    if (entry === undefined) return;
    asked.delete(ref);
    env.clearTimeout(entry.timer);
    if (error === null) entry.resolve(value);
    else entry.reject(new TidingsError(error));
  }

  /** @param {string} code */
  function giveUp(code) {
    for (const [ref, entry] of [...asked]) {
      asked.delete(ref);
      env.clearTimeout(entry.timer);
      entry.reject(new TidingsError({ status: 0, code, message: 'the leading tab went away' }));
    }
  }

  /** @param {boolean} isSteal */
  function queue(isSteal) {
    waiting?.abort();
    const abort = new AbortController();
    waiting = abort;
    const options = isSteal ? { steal: true } : { signal: abort.signal };
    const held = env.locks?.request(name, options, () => new Promise((resolve) => {
      // Left, or queued again, before the browser came to it.
      if (waiting !== abort) return resolve(undefined);
      release = () => resolve(undefined);
      giveUp('network');
      log('this tab leads');
      lead();
    }));
    Promise.resolve(held).catch((error) => {
      if (waiting !== abort) return;
      const wasLeading = release !== null;
      release = null;
      log('the lock is lost', error?.name);
      if (wasLeading) yielded();
      queue(false);
    });
  }

  /** A tab that is looked at does not wait for ever for a leader that hangs. */
  function watch() {
    timer = env.setTimeout(() => {
      watch();
      if (release !== null || !env.visible() || env.now() - leaderHeardAt < timing.leader_ms) return;
      const before = leaderHeardAt;
      post('ask');
      env.clearTimeout(timer);
      timer = env.setTimeout(() => {
        watch();
        if (release === null && leaderHeardAt === before) queue(true);
      }, ANSWER_MS);
    }, timing.leader_ms / 3);
  }

  return {
    id,
    post,
    join() {
      const Broadcast = env.BroadcastChannel;
      if (Broadcast === undefined || broadcast !== null) return;
      broadcast = new Broadcast(name);
      broadcast.onmessage = receive;
      leaderHeardAt = env.now();
      post('hello');
      queue(false);
      watch();
    },
    leave() {
      if (release !== null) post('bye');
      env.clearTimeout(timer);
      const abort = waiting;
      waiting = null;
      abort?.abort();
      release?.();
      release = null;
      hasLeader = false;
      giveUp('disconnected');
      broadcast?.close();
      broadcast = null;
    },
    hasLeader: () => hasLeader,
    /** Hands a command to the leading tab. @param {import('./internal.js').Command} command @returns {Promise<any>} */
    hand: (command) => new Promise((resolve, reject) => {
      const late = env.setTimeout(() => {
        asked.delete(command.ref);
        reject(new TidingsError({ status: 0, code: 'timeout', message: 'the leading tab did not answer' }));
      }, timing.request_ms + ANSWER_MS);
      asked.set(command.ref, { resolve, reject, timer: late });
      post('command', { command });
    }),
    /** Whether any tab is being looked at. @returns {Promise<boolean>} */
    watched: () => new Promise((resolve) => {
      if (env.visible()) return resolve(true);
      if (broadcast === null) return resolve(false);
      const none = env.setTimeout(() => resolve(false), GLANCE_MS);
      seen = () => {
        env.clearTimeout(none);
        resolve(true);
      };
      post('glance');
    }),
  };
}

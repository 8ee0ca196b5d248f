// @ts-check
// One connection: the state machine, the choice of transport, the back-off, the watch over silence.
// Promises: at most one transport is open; every attempt starts at the tab's place, whatever the transport; waits grow, are
// random, have a ceiling and are never shorter than the server asked; whatever ends has a reason that can be shown.
// What a frame means to the application is not its business.
import { createFitness } from './fitness.js';
import { openEventSource } from './transports/eventsource.js';
import { openPoll } from './transports/poll.js';
import { openSse } from './transports/sse.js';
import { openWebSocket } from './transports/websocket.js';
import { address, refusal } from './transports/wire.js';

/** @type {Record<string, import('./internal.js').Opener>} */
const OPENERS = { sse: openSse, eventsource: openEventSource, websocket: openWebSocket, poll: openPoll };
/** Failures in a row without a `ready`, after which the server is asked whether it is the transport. */
const FAILURES_TRIED = 3;
const PING_MS = 20_000;

/**
 * @typedef {import('./internal.js').Ended} Ended
 * @typedef {import('./internal.js').Frame} Frame
 */

/**
 * @param {{
 *   env: import('./tidings.js').Environment, timing: import('./tidings.js').Timing, log: import('./internal.js').Log,
 *   url: string, access: import('./internal.js').Access, names: import('./tidings.js').TransportName[],
 *   query: () => Record<string, string>, prepare: () => Promise<void>, hear: (frame: Frame) => void,
 *   changed: (status: Omit<import('./tidings.js').Status, 'role'>) => void, lost_place: () => void }} parts
 */
export function createConnection(parts) {
  const { env, timing, log, access, url } = parts;
  const fitness = createFitness({ env, timing, log, names: parts.names });
  /** @type {Omit<import('./tidings.js').Status, 'role'>} */
  let status = { status: 'stopped', reason: 'not_started', transport: null, live: false, attempt: 0, retry_at: null };
  /** @type {{ name: import('./tidings.js').TransportName, opened: import('./internal.js').Opened | null, ready_at: number | null, bye: string | null } | null} */
  let current = null;
  /** Every attempt has its number, so that what a former one still says is not heard. */
  let turn = 0;
  let isWanted = false;
  let attempt = 0;
  let failures = 0;
  let hasRenewed = false;
  /** The server asked for this wait before the next attempt. */
  let asked_ms = 0;
  let notBefore = 0;
  let heard_at = 0;
  /** In a row, without being caught up in between. */
  let gaps = 0;
  let ping_ms = PING_MS;
  /** @type {unknown} */
  let timer = null;
  /** @type {unknown} */
  let watch = null;

  /** @param {Partial<typeof status>} change */
  function set(change) {
    const next = { ...status, retry_at: null, attempt, ...change };
    const isSame = /** @type {(keyof typeof next)[]} */ (Object.keys(next)).every((field) => next[field] === status[field]);
    status = next;
    if (isSame) return;
    log('status', status.status, status.reason, status.transport ?? '');
    parts.changed(status);
  }

  function leave() {
    turn += 1;
    env.clearTimeout(timer);
    env.clearTimeout(watch);
    timer = null;
    current?.opened?.close();
    current = null;
  }

  async function go() {
    leave();
    if (!isWanted) return;
    const mine = turn;
    try {
      await parts.prepare();
    } catch (error) {
      if (mine === turn) decide(null, endedBy(error));
      return;
    }
    if (mine !== turn) return;
    const name = fitness.choose();
    log('trying', name);
    current = { name, opened: null, ready_at: null, bye: null };
    heard_at = env.now();
    watch = env.setTimeout(() => mine === turn && ended({ kind: 'no_ready' }), timing.ready_ms);
    // A transport never ends before it is open: all begin with a request that takes its time.
    current.opened = OPENERS[name]({
      env, timing, url, query: parts.query(), access,
      sink: {
        frame: (frame) => mine === turn && hear(frame),
        retry: (ms) => mine === turn && (asked_ms = ms),
        ended: (end) => mine === turn && ended(end),
      },
    });
  }

  /** @param {Frame} frame */
  function hear(frame) {
    if (current === null) return;
    heard_at = env.now();
    const mine = turn;
    if (frame.type === 'sys.ready') {
      current.ready_at = env.now();
      ping_ms = Number(frame.ping_ms) > 0 ? Number(frame.ping_ms) : PING_MS;
      failures = 0;
      hasRenewed = false;
      keepWatch();
    } else if (frame.type === 'sys.bye') current.bye = String(frame.reason);
    else if (frame.type === 'sys.refused') return ended({ kind: 'limited', reason: String(frame.code ?? 'limited') });
    // What comes in one breath with `ready` does not show that the way stays open.
    else if (current.ready_at !== null && env.now() - current.ready_at >= timing.stable_ms) fitness.works(current.name);
    parts.hear(frame);
    if (mine !== turn || current === null) return;
    if (frame.type === 'sys.ready') set({ status: 'connected', reason: 'ready', transport: current.name, live: false });
    if (frame.type === 'sys.live') caughtUp();
  }

  function caughtUp() {
    gaps = 0;
    set({ live: true });
    // Polling is the last resort: between two pages a better way is tried when its time has come.
    if (current?.name === 'poll' && fitness.choose() !== 'poll') go();
  }

  /** Silence is found at the latest one watch after it began to be too long. */
  function keepWatch() {
    env.clearTimeout(watch);
    const mine = turn;
    const most_ms = quiet_ms();
    watch = env.setTimeout(() => {
      if (mine !== turn) return;
      if (env.now() - heard_at >= most_ms) ended({ kind: 'silent' });
      else keepWatch();
    }, Math.max(1, heard_at + most_ms - env.now()));
  }

  // A long poll is silent for as long as it waits; its own time-out comes first.
  const quiet_ms = () => timing.ping_slack_ms + (current?.name === 'poll' ? timing.poll_wait_ms + timing.request_ms : ping_ms * 2);

  /** @param {Ended} end */
  function ended(end) {
    const was = current;
    leave();
    log('ended', was?.name, end.kind, end.reason ?? '', was?.bye ?? '');
    if (was !== null && was.ready_at !== null && env.now() - was.ready_at >= timing.stable_ms) attempt = 0;
    decide(was, end);
  }

  /**
   * @param {typeof current} was
   * @param {Ended} end
   * @returns {void}
   */
  function decide(was, end) {
    if (end.after_ms) asked_ms = Math.max(asked_ms, end.after_ms);
    switch (end.kind) {
      case 'revoked': return stop('revoked');
      case 'forbidden': return stop('forbidden');
      case 'refused': return stop('refused');
      case 'unauthorized': return void (was?.bye === 'revoked' ? look(null, 'revoked') : renew());
      case 'gap':
        parts.lost_place();
        return schedule('gap');
      case 'unfit': return moveOn(was, [was?.name], end.reason ?? 'unfit');
      // The two carry the same bytes: what holds one back holds back the other.
      case 'no_ready': return moveOn(was, was?.name === 'sse' ? ['sse', 'eventsource'] : [was?.name], 'no_ready');
      case 'failed': return void look(was, end.reason ?? 'network');
      case 'silent':
        fitness.silent(was?.name);
        return schedule('silent');
      case 'limited': return schedule('limited');
      case 'server': return schedule('server');
      default: return lost(was, end);
    }
  }

  /**
   * @param {typeof current} was
   * @param {Ended} end
   */
  function lost(was, end) {
    if (was?.bye === 'token_expired') return void renew();
    // The user, or only this token: a request without a transport's ambiguity is told which.
    if (was?.bye === 'revoked') return void look(null, 'revoked');
    if (was?.ready_at === null) failures += 1;
    if (failures >= FAILURES_TRIED && was?.name !== 'poll' && env.online()) return void look(was, 'network');
    schedule(was?.bye ?? end.reason ?? 'network');
  }

  /**
   * Another transport at once; when none is left, nothing works: then it is not the transports.
   * @param {typeof current} was
   * @param {(import('./tidings.js').TransportName | undefined)[]} names
   * @param {string} reason
   */
  function moveOn(was, names, reason) {
    for (const name of names) if (name !== undefined) fitness.unfit(name);
    if (!fitness.hasFit() || was === null) {
      fitness.forget();
      return schedule(reason);
    }
    set({ status: status.status === 'connecting' ? 'connecting' : 'reconnecting', reason, transport: fitness.choose(), live: false });
    go();
  }

  /**
   * A browser does not say why a socket or an EventSource failed: an ordinary request is told.
   * @param {typeof current} was
   * @param {string} reason
   * @returns {Promise<void>}
   */
  async function look(was, reason) {
    const mine = turn;
    failures = 0;
    const end = await asked(reason);
    if (mine !== turn) return;
    log('the server says', end === null ? 'yes' : end.kind);
    if (end !== null) return decide(null, end);
    if (was === null || was.name === 'poll') return schedule(reason);
    moveOn(was, [was.name], reason);
  }

  /**
   * @param {string} reason
   * @returns {Promise<Ended | null>}
   */
  async function asked(reason) {
    const abort = new AbortController();
    const patience = env.setTimeout(() => abort.abort(), timing.request_ms);
    try {
      const { headers, credentials } = await access.request();
      const ticket = access.is_ticket_only ? { ticket: await access.ticket() } : {};
      // Who asks for an event stream is told by 204 that the user was revoked.
      const accept = { ...headers, Accept: 'text/event-stream' };
      const query = { ...parts.query(), ...ticket, format: 'json', wait: '0', limit: '1' };
      const response = await env.fetch(address(url, '/v1/events', query), {
        headers: accept, credentials, cache: 'no-store', signal: abort.signal,
      });
      const isPage = response.status === 200 && (response.headers.get('content-type') ?? '').startsWith('application/json');
      if (isPage) return null;
      return response.status === 200 ? { kind: 'limited', after_ms: 5000, reason } : await refusal(response, env.now());
    } catch (error) {
      return endedBy(error);
    } finally {
      env.clearTimeout(patience);
    }
  }

  async function renew() {
    const mine = turn;
    if (hasRenewed) return stop('unauthorized');
    hasRenewed = true;
    set({ status: 'reconnecting', reason: 'expired', live: false });
    try {
      const isNew = await access.renew('refused');
      if (mine !== turn) return;
      if (!isNew) return stop('unauthorized');
      go();
    } catch (error) {
      hasRenewed = false;
      if (mine === turn) decide(null, endedBy(error));
    }
  }

  /** @param {string} reason */
  function schedule(reason) {
    if (!isWanted) return;
    const most_ms = Math.min(timing.backoff_max_ms, timing.backoff_ms * 2 ** attempt);
    attempt = Math.min(attempt + 1, 30);
    const isOffline = !env.online();
    // Offline is what the browser believes; it is asked again by trying, only seldom.
    const wait_ms = isOffline ? timing.backoff_max_ms : Math.max(asked_ms, env.random() * most_ms);
    notBefore = env.now() + asked_ms;
    asked_ms = 0;
    wait(wait_ms, isOffline ? 'offline' : 'reconnecting', isOffline ? 'offline' : reason);
  }

  /**
   * @param {number} ms
   * @param {'offline' | 'reconnecting'} name
   * @param {string} reason
   */
  function wait(ms, name, reason) {
    env.clearTimeout(timer);
    timer = env.setTimeout(go, ms);
    set({ status: name, reason, live: false, retry_at: env.now() + ms });
  }

  /** @param {string} reason */
  function stop(reason) {
    isWanted = false;
    leave();
    attempt = 0;
    asked_ms = 0;
    set({ status: 'stopped', reason, transport: null, live: false });
  }

  return {
    /** @param {'connecting' | 'reconnecting'} as @param {string} reason */
    start(as, reason) {
      if (isWanted) return;
      isWanted = true;
      attempt = 0;
      hasRenewed = false;
      set({ status: as, reason, live: false });
      go();
    },
    stop,
    /** Again from the tab's place: a gap. At once, unless it comes again and again. */
    again(/** @type {string} */ reason) {
      if (!isWanted) return;
      gaps += 1;
      leave();
      if (gaps > 1) return schedule(reason);
      set({ status: 'reconnecting', reason, live: false });
      go();
    },
    /** Things look better (online, page shown): no more waiting, but for what the server asked. */
    kick(/** @type {boolean} */ isNetworkNew) {
      if (!isWanted) return;
      if (isNetworkNew) fitness.forget();
      attempt = 0;
      if (timer !== null) {
        const left_ms = notBefore - env.now();
        if (left_ms <= 0) {
          set({ status: 'reconnecting', reason: status.reason === 'offline' ? 'network' : status.reason });
          go();
        } else wait(left_ms, 'reconnecting', 'limited');
      } else if (current !== null && current.ready_at !== null && env.now() - heard_at >= quiet_ms()) ended({ kind: 'silent' });
    },
    /** The browser lost its network: what is open is dead or soon will be. */
    offline() {
      if (!isWanted) return;
      leave();
      wait(timing.backoff_max_ms, 'offline', 'offline');
    },
    /** Sends a command's text, where the transport takes it. */
    send: (/** @type {string} */ text) => (current !== null && current.ready_at !== null && current.opened?.send?.(text)) === true,
    status: () => status,
  };
}

/**
 * @param {any} error
 * @returns {Ended}
 */
function endedBy(error) {
  if (error?.ended !== undefined) return error.ended;
  const reason = typeof error?.code === 'string' ? error.code : 'network';
  const after_ms = error?.retry_after_ms ?? null;
  switch (error?.status) {
    case 401: return { kind: 'unauthorized', reason };
    case 403: return { kind: 'forbidden', reason };
    case 429:
    case 503: return { kind: 'limited', reason, after_ms };
    case undefined:
    case 0: return { kind: 'lost', reason: 'network' };
    default: return { kind: 'server', reason, after_ms };
  }
}

// @ts-check
// The reading side of one tab: it leads the browser's connection, follows another tab, or reads on its own.
// Promises: every durable event is told here once and in order, in whatever role; a tab that becomes the leader goes on
// from its own place; a hole in what another tab broadcasts is filled from the server; after a gap the state is loaded
// and told before anything that follows it.
import { createConnection } from './connection.js';
import { createLatest } from './latest.js';
import { createPlace } from './place.js';
import { createTabs } from './tabs.js';
import { address } from './transports/wire.js';

const HELD_MAX = 500;
const KEEP_CURSOR_MS = 250;

/** @typedef {import('./internal.js').Frame} Frame */

/**
 * @param {{
 *   env: import('./tidings.js').Environment, timing: import('./tidings.js').Timing, log: import('./internal.js').Log,
 *   options: import('./tidings.js').Options, url: string, names: import('./tidings.js').TransportName[],
 *   access: import('./internal.js').Access, http: import('./internal.js').Http, emit: (event: any) => void,
 *   changed: (status: import('./tidings.js').Status) => void, answered: (frame: Frame) => void,
 *   obey: (command: import('./internal.js').Command) => Promise<any> }} parts
 */
export function createReader(parts) {
  const { env, timing, log, options, access, http, emit, url } = parts;
  const start = options.start ?? 'state';
  const place = createPlace(start);
  const latest = createLatest(env);
  /** @type {import('./tidings.js').Status['role']} */
  let role = 'alone';
  /** @type {ReturnType<typeof createTabs> | null} */
  let tabs = null;
  /** What the leading tab says of the connection. @type {any} */
  let followed = null;
  /** Whether another tab led before this one. */
  let hasFollowed = false;
  /** Why the state must be loaded before anything else is told. @type {'start' | 'gap' | null} */
  let wish = start === 'state' && !access.is_ticket_only ? 'start' : null;
  /** @type {any} */
  let preloaded = null;
  /** @type {string | null} */
  let user = null;
  /** @type {string | null} */
  let conn = null;
  let run = 0;
  /** @type {string | null} */
  let cursorKey = null;
  /** @type {unknown} */
  let keepTimer = null;
  /** Events of this turn, for the other tabs. @type {{ after: string | null, events: Frame[] } | null} */
  let batch = null;
  /** What the leading tab broadcast while this one was filling a hole. @type {import('./internal.js').TabMessage[]} */
  let held = [];
  let isFilling = false;
  let wasOverfull = false;

  const connection = createConnection({
    env, timing, log, url, access, names: parts.names,
    query: () => ({
      cursor: place.cursor() ?? (start === 'state' ? '' : start),
      types: (options.types ?? []).join(','),
      topics: (options.topics ?? []).join(','),
      // Without a token of its own this page cannot load the state: the stream brings it.
      snapshot: access.is_ticket_only && (start === 'state' || place.cursor() !== null) ? '1' : '',
    }),
    prepare: () => (wish === null || access.is_ticket_only ? Promise.resolve() : loadState()),
    hear,
    changed,
    lost_place: () => {
      place.set(null);
      wish = 'gap';
    },
  });

  function status() {
    const own = role === 'follower' && followed !== null ? followed : connection.status();
    return { ...own, role };
  }

  function changed() {
    // Another tab may have better credentials: who is refused does not keep the lead.
    if (connection.status().status === 'stopped' && role === 'leader') leaveTabs();
    tellStatus();
  }

  function leaveTabs() {
    role = 'alone';
    followed = null;
    tabs?.leave();
    tabs = null;
  }

  function tellStatus() {
    if (role === 'leader') tabs?.post('status', { status: connection.status() });
    parts.changed(status());
  }

  /** @param {Frame} frame */
  function hear(frame) {
    switch (frame.type) {
      case 'sys.ready': return ready(frame);
      case 'sys.live':
      case 'sys.ping': return moved(frame);
      case 'sys.reset': return reset(frame);
      case 'sys.snapshot': return adopt(frame, wish ?? 'start');
      case 'sys.auth': return void expiring();
      case 'sys.reply':
      case 'sys.error': return parts.answered(frame);
      default: return frame.type.startsWith('sys.') ? undefined : tell(frame);
    }
  }

  /** @param {Frame} frame */
  function ready(frame) {
    user = frame.user ?? user;
    conn = frame.conn ?? null;
    // A page that named no place is told where its stream begins.
    if (place.cursor() === null) place.set(frame.cursor ?? null);
    latest.clear();
    emit({ type: 'sys.ready', data: frame });
    if (frame.badge) tell({ type: 'badge', ephemeral: true, data: frame.badge });
  }

  /** @param {Frame} frame */
  function moved(frame) {
    const after = place.cursor();
    if (place.advance(frame.cursor)) share(after, null);
    else if (role === 'leader') tabs?.post('alive');
    keepCursor();
    if (frame.type === 'sys.live') emit({ type: 'sys.live', data: { cursor: frame.cursor } });
  }

  /** One event. @param {Frame} event */
  function tell(event) {
    const after = place.cursor();
    const isDurable = typeof event.cursor === 'string' && event.ephemeral !== true;
    if (isDurable && !place.accept(event)) return;
    if (!isDurable) latest.note(event);
    share(after, event);
    emit(event);
    keepCursor();
  }

  /** @param {Frame} frame */
  function reset(frame) {
    emit({ type: 'sys.reset', data: frame });
    wish = 'gap';
    if (!access.is_ticket_only) return connection.again('gap');
    // The stream goes on from here, and brings the state where it can.
    place.set(frame.cursor ?? frame.head);
  }

  async function loadState() {
    const mine = run;
    const state = preloaded ?? (await http('GET', '/v1/state'));
    if (mine !== run || wish === null) return;
    preloaded = null;
    adopt(state, wish);
  }

  /** @param {any} state @param {'start' | 'gap'} reason */
  function adopt(state, reason) {
    wish = null;
    user = state.user ?? user;
    place.set(state.cursor);
    batch = null;
    // Other tabs had their own start; a gap is everyone's.
    if (role === 'leader' && reason === 'gap') tabs?.post('state', { reason, state });
    tellState(state, reason);
  }

  /** @param {any} state @param {string} reason */
  function tellState(state, reason) {
    emit({ type: 'sys.state', data: { reason, state } });
    if (state.badge) emit({ type: 'badge', ephemeral: true, data: state.badge });
    keepCursor();
  }

  /** A minute before the token ends: another one prolongs the stream. */
  async function expiring() {
    try {
      if (!(await access.renew('expiring'))) return;
      const text = JSON.stringify({ op: 'auth', token: access.token() });
      if (!connection.send(text) && conn !== null) await http('POST', '/v1/session/refresh', { conn });
    } catch (error) {
      // The stream will end with its token, and a new one is asked for then.
      log('the token was not renewed', error);
    }
  }

  /** @param {string | null} after @param {Frame | null} event */
  function share(after, event) {
    if (role !== 'leader') return;
    if (batch === null) {
      batch = { after, events: [] };
      Promise.resolve().then(flush);
    }
    if (event !== null) batch.events.push(event);
  }

  function flush() {
    if (batch === null) return;
    const { after, events } = batch;
    batch = null;
    if (role === 'leader') tabs?.post('batch', { after, cursor: place.cursor(), events });
  }

  /** @param {import('./internal.js').TabMessage} message */
  function heard(message) {
    if (role === 'leader') return asLeader(message);
    switch (message.kind) {
      case 'welcome':
        follow(message.status);
        message.latest.forEach((/** @type {Frame} */ event) => tell(event));
        if (wish === null && place.cursor() === null && start === 'now') return place.set(message.cursor);
        return take({ ...message, after: message.cursor, events: [] });
      case 'status':
        follow(message.status);
        return wish === null ? undefined : void fill();
      case 'bye': return follow({ ...status(), status: 'reconnecting', reason: 'takeover', live: false });
      case 'batch': return take(message);
      case 'state':
        wish = null;
        held = [];
        place.set(message.state.cursor);
        return tellState(message.state, message.reason);
    }
  }

  /** @param {import('./internal.js').TabMessage} message */
  function asLeader(message) {
    if (message.kind === 'hello') {
      flush();
      tabs?.post('welcome', { to: message.from, status: connection.status(), cursor: place.cursor(), latest: latest.list() });
    } else if (message.kind === 'nudge') connection.kick(false);
    else if (message.kind === 'command') {
      const { ref } = message.command;
      const reply = (/** @type {object} */ body) => tabs?.post('reply', { to: message.from, ref, error: null, ...body });
      parts.obey(message.command).then(
        (value) => reply({ value }),
        ({ status = 0, code = 'network', message: text = '', retry_after_ms = null }) => reply({ error: { status, code, message: text, retry_after_ms } }),
      );
    }
  }

  /** @param {any} of */
  function follow(of) {
    hasFollowed = true;
    followed = of;
    tellStatus();
  }

  /** What the leading tab broadcast, told here if it follows what is known here. @param {import('./internal.js').TabMessage} message */
  function take(message) {
    if (isFilling || wish !== null || !place.reaches(message.after)) {
      if (held.length < HELD_MAX) held.push(message);
      else wasOverfull = true;
      return void fill();
    }
    message.events.forEach((/** @type {Frame} */ event) => tell(event));
    place.advance(message.cursor);
    keepCursor();
  }

  /** Loads what is missing between this tab's place and the leading tab's. */
  async function fill() {
    if (isFilling) return;
    isFilling = true;
    const mine = run;
    for (let attempt = 0; mine === run && role === 'follower'; attempt += 1) {
      try {
        if (wish !== null) await loadState();
        else await loadPages(mine);
        if (mine === run && wish === null && !wasOverfull) break;
        wasOverfull = false;
      } catch (error) {
        log('a hole is not filled yet', error);
        const most_ms = Math.min(timing.backoff_max_ms, timing.backoff_ms * 2 ** Math.min(attempt, 20));
        await new Promise((resolve) => env.setTimeout(() => resolve(undefined), env.random() * most_ms));
      }
    }
    if (mine !== run) return;
    isFilling = false;
    const waiting = held;
    held = [];
    if (role === 'follower') waiting.forEach(take);
  }

  /** @param {number} mine */
  async function loadPages(mine) {
    for (let more = true; more; ) {
      const query = { format: 'json', wait: '0', limit: '500', cursor: place.cursor() ?? start };
      const filters = { types: (options.types ?? []).join(','), topics: (options.topics ?? []).join(',') };
      const page = await http('GET', address('', '/v1/events', { ...query, ...filters }));
      if (mine !== run || role !== 'follower') return;
      if (page.reset !== null) {
        emit({ type: 'sys.reset', data: page.reset });
        wish = 'gap';
        return;
      }
      page.events.forEach((/** @type {Frame} */ event) => tell(event));
      if (place.cursor() === null) place.set(page.cursor);
      else place.advance(page.cursor);
      more = page.more === true;
    }
  }

  function lead() {
    role = 'leader';
    followed = null;
    held = [];
    connection.start(hasFollowed ? 'reconnecting' : 'connecting', hasFollowed ? 'takeover' : 'start');
    hasFollowed = false;
  }

  /** Another tab took the lock: this one hung for too long. */
  function yielded() {
    role = 'follower';
    followed = { ...connection.status(), status: 'reconnecting', reason: 'takeover', live: false };
    connection.stop('takeover');
    tabs?.post('hello');
  }

  function keepCursor() {
    if (cursorKey === null || keepTimer !== null) return;
    keepTimer = env.setTimeout(keepNow, KEEP_CURSOR_MS);
  }

  function keepNow() {
    env.clearTimeout(keepTimer);
    keepTimer = null;
    try {
      if (cursorKey !== null && place.cursor() !== null) env.storage?.setItem(cursorKey, /** @type {string} */ (place.cursor()));
    } catch (error) {
      log('the cursor could not be stored', error);
    }
  }

  return {
    /** @param {{ group: string | null, storage_key: string | null, state: any }} how */
    begin({ group, storage_key, state }) {
      run += 1;
      isFilling = false;
      cursorKey = storage_key;
      const kept = storage_key === null || place.cursor() !== null ? null : env.storage?.getItem(storage_key);
      if (kept) {
        place.set(kept);
        if (place.cursor() !== null) wish = null;
      }
      preloaded = wish === 'start' ? state : null;
      if (group === null || env.locks === undefined || env.BroadcastChannel === undefined) {
        role = 'alone';
        return connection.start('connecting', 'start');
      }
      role = 'follower';
      hasFollowed = false;
      followed = { ...connection.status(), status: 'connecting', reason: 'start' };
      tellStatus();
      tabs = createTabs({ env, timing, log, name: group, lead, yielded, heard });
      tabs.join();
    },
    /** @param {string} reason */
    end(reason) {
      run += 1;
      keepNow();
      flush();
      held = [];
      leaveTabs();
      connection.stop(reason);
    },
    /** The timers of a hidden leading tab are slow: one that is looked at tells it to try now. @param {boolean} isNetworkNew */
    kick: (isNetworkNew) => (role === 'follower' ? tabs?.post('nudge') : connection.kick(isNetworkNew)),
    offline: connection.offline,
    send: connection.send,
    status,
    cursor: place.cursor,
    user: () => user ?? access.user(),
    /** Whether another tab carries out this one's commands. */
    hand: (/** @type {import('./internal.js').Command} */ command) =>
      role === 'follower' && tabs?.hasLeader() ? tabs.hand(command) : null,
    watched: () => tabs?.watched() ?? Promise.resolve(env.visible()),
  };
}

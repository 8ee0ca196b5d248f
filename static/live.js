// @ts-check
// What goes out and is not kept: typing, signals, and acks of what has arrived.
// Promises: never more often than the server takes; of signals the latest of each kind wins; nothing here is repeated
// after a failure, but for an ack, which the next one covers. Nothing waits in a queue.

const TYPING_MS = 2_000;
/** After this long without a start the server itself says stop. */
const TYPING_ENDS_MS = 5_000;
const SIGNAL_MS = 50;
const KEYS_MAX = 1_000;

/**
 * @param {{
 *   env: import('./tidings.js').Environment, timing: import('./tidings.js').Timing, is_acking: boolean, device: string | undefined,
 *   reader: { status: () => import('./tidings.js').Status, cursor: () => string | null, user: () => string | null },
 *   fire: (command: import('./internal.js').Command) => Promise<any>, on: (pattern: string, handler: (event: any) => void) => void }} parts
 */
export function createLive({ env, timing, is_acking, device, reader, fire, on }) {
  /** When a start went out, by conversation. @type {Map<string, number>} */
  const started = new Map();
  /** By conversation and kind. @type {Map<string, { next: import('./internal.js').Command | null }>} */
  const signals = new Map();
  /** @type {unknown} */
  let ackTimer = null;
  /** @type {string | null} */
  let acked = null;
  let acked_at = -Infinity;

  if (is_acking) on('message.new', ({ data }) => data?.sender !== reader.user() && arrived());

  /** @param {string} op @param {object} fields */
  const send = (op, fields) => fire({ op, ref: env.uuid(), ...fields }).catch(() => {});
  const isOpen = () => reader.status().status === 'connected';

  /** The first at once: in a hidden tab timers may take a minute, and the sender waits for its tick. */
  function arrived() {
    const wait_ms = acked_at + timing.ack_ms - env.now();
    if (wait_ms <= 0 && isOurs()) ack();
    else ackSoon(wait_ms);
  }

  /** A poll acks by asking; of several tabs one speaks. */
  function isOurs() {
    const { role, transport } = reader.status();
    return role !== 'follower' && transport !== 'poll';
  }

  /** @param {number} ms */
  function ackSoon(ms) {
    if (ackTimer === null && isOurs()) ackTimer = env.setTimeout(ack, ms);
  }

  function ack() {
    env.clearTimeout(ackTimer);
    ackTimer = null;
    const cursor = reader.cursor();
    if (cursor === null || cursor === acked || !isOpen()) return;
    acked = cursor;
    acked_at = env.now();
    fire({ op: 'ack', ref: env.uuid(), cursor, ...(device === undefined ? {} : { device }) }).catch((error) => {
      acked = null;
      if (error?.status === 429) ackSoon(Math.max(error.retry_after_ms ?? 0, timing.ack_ms));
    });
  }

  /** @param {string} key @param {{ next: import('./internal.js').Command | null }} entry */
  function pace(key, entry) {
    env.setTimeout(() => {
      if (entry.next === null) return void signals.delete(key);
      const { op, ref, ...fields } = entry.next;
      entry.next = null;
      send(op, fields);
      pace(key, entry);
    }, SIGNAL_MS);
  }

  return {
    /** @param {string} conversation @param {'start' | 'stop'} state */
    typing(conversation, state) {
      if (!isOpen()) return;
      const since_ms = env.now() - (started.get(conversation) ?? -Infinity);
      if (state === 'start' ? since_ms < TYPING_MS : since_ms > TYPING_ENDS_MS) return;
      started.delete(conversation);
      if (state === 'start') started.set(conversation, env.now());
      if (started.size > KEYS_MAX) started.clear();
      send('typing', { conversation, state });
    },
    /** A message ends the typing, at the server too. @param {string} conversation */
    typed: (conversation) => void started.delete(conversation),
    /** @param {string} conversation @param {string} kind @param {unknown} data */
    signal(conversation, kind, data) {
      if (!isOpen()) return;
      const key = JSON.stringify([conversation, kind]);
      const entry = signals.get(key);
      if (entry !== undefined) return void (entry.next = { op: 'signal', ref: '', conversation, kind, data });
      if (signals.size >= KEYS_MAX) return;
      const begun = { next: null };
      signals.set(key, begun);
      send('signal', { conversation, kind, data });
      pace(key, begun);
    },
    flush: () => ackTimer !== null && ack(),
  };
}

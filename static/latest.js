// @ts-check
// The latest ephemeral value of each key: who is online, who types, the badge; for a tab that joins later.
// Promises: only the newest of each key, typing only while it lasts, never more than a bound. Signals are not kept: who
// was not there missed them.

const KEYS_MAX = 1000;

/** @param {{ now: () => number }} env */
export function createLatest(env) {
  /** @type {Map<string, { event: any, until_ms: number }>} oldest first */
  const kept = new Map();

  /** @param {any} event */
  function key(event) {
    if (event.type === 'badge') return 'badge';
    if (event.type === 'presence.changed') return `presence ${event.data?.user}`;
    if (event.type.startsWith('typing.')) return `typing ${event.topic ?? event.data?.conversation_id} ${event.actor?.id ?? event.data?.user}`;
    return null;
  }

  return {
    /** @param {any} event */
    note(event) {
      const of = key(event);
      if (of === null) return;
      kept.delete(of);
      if (event.type === 'typing.stop') return;
      const until_ms = event.type === 'typing.start' ? env.now() + (event.ttl_ms ?? 5000) : Infinity;
      kept.set(of, { event, until_ms });
      if (kept.size > KEYS_MAX) kept.delete(/** @type {string} */ (kept.keys().next().value));
    },
    list() {
      const now_ms = env.now();
      return [...kept.values()].filter(({ until_ms }) => until_ms > now_ms).map(({ event }) => event);
    },
    /** Another connection tells the present anew. */
    clear: () => kept.clear(),
  };
}

// @ts-check
// What the client takes from the browser, in one object that tests replace.
// Promises: nothing else in the client reads a global that differs between browsers, tells the time or rolls dice. What a
// browser forbids (storage in a sandbox, for one) is absent, not an error.

/** @type {typeof import('./tidings.js').browserEnvironment} */
export const browserEnvironment = () => {
  const page = globalThis;
  return {
    fetch: (...request) => page.fetch(...request),
    EventSource: page.EventSource,
    WebSocket: page.WebSocket,
    BroadcastChannel: page.BroadcastChannel,
    locks: page.navigator?.locks,
    storage: allowed(() => page.sessionStorage),
    shared_storage: allowed(() => page.localStorage),
    Notification: page.Notification,
    setTimeout: (action, ms) => page.setTimeout(action, ms),
    clearTimeout: (timer) => page.clearTimeout(/** @type {number} */ (timer)),
    now: () => Date.now(),
    random: () => Math.random(),
    uuid,
    origin: page.location?.origin ?? '',
    online: () => page.navigator?.onLine !== false,
    visible: () => page.document?.visibilityState !== 'hidden',
    listen(name, handler) {
      const target = name === 'visibilitychange' ? page.document : page;
      target?.addEventListener?.(name, handler);
      return () => target?.removeEventListener?.(name, handler);
    },
    console: page.console,
  };
};

/**
 * @template T
 * @param {() => T} read
 */
function allowed(read) {
  try {
    return read() ?? undefined;
  } catch {
    return undefined;
  }
}

/** `crypto.randomUUID` is missing on plain-HTTP pages. */
function uuid() {
  if (typeof crypto.randomUUID === 'function') return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`;
}

// @ts-check
// Who hears what: handlers by type, by family (`message.*`) and for everything.
// Promises: handlers run in the order in which they were added, each event once; one that throws is told on the console
// and stops nobody else, nor the stream.

/** @param {import('./tidings.js').Environment} env */
export function createDispatch(env) {
  /** @type {Map<string, Set<(event: any) => void>>} */
  const handlers = new Map();

  /** @param {string} type */
  function patterns(type) {
    const parts = type.split('.');
    const families = parts.slice(0, -1).map((_, at) => `${parts.slice(0, at + 1).join('.')}.*`);
    // `*` is for what comes from others; what the client says of itself is asked for by name.
    return parts[0] === 'sys' ? [type, ...families] : [type, ...families, '*'];
  }

  return {
    /**
     * @param {string} pattern
     * @param {(event: any) => void} handler
     */
    on(pattern, handler) {
      const entry = (/** @type {any} */ event) => handler(event);
      const known = handlers.get(pattern) ?? new Set();
      handlers.set(pattern, known.add(entry));
      return () => {
        known.delete(entry);
        if (known.size === 0 && handlers.get(pattern) === known) handlers.delete(pattern);
      };
    },
    /** @param {{ type: string, [field: string]: any }} event */
    emit(event) {
      for (const pattern of patterns(event.type)) {
        for (const handler of [...(handlers.get(pattern) ?? [])]) {
          try {
            handler(event);
          } catch (error) {
            env.console.error(`a handler of ${pattern} failed`, error);
          }
        }
      }
    },
  };
}

// @ts-check
// TanStack Query: `entity.*` events make cached queries stale, by a table from entity to query keys.
// Promises: many events at once become one invalidation for each key; after a gap everything of the table is stale, since
// nobody knows what was missed. It never writes data into the cache.

/** @type {typeof import('./query.js').invalidateQueries} */
export const invalidateQueries = (tidings, client, table, { gather_ms = 50 } = {}) => {
  const env = tidings.environment;
  /** Keys to invalidate, by their JSON. @type {Map<string, readonly unknown[]>} */
  const stale = new Map();
  /** @type {unknown} */
  let timer = null;

  /** @param {string} entity @param {import('./query.js').EntityChange} change */
  function note(entity, change) {
    const rule = Object.hasOwn(table, entity) ? table[entity] : undefined;
    if (rule === undefined) return;
    const keys = typeof rule === 'function' ? rule(change) : [rule];
    for (const key of keys) stale.set(JSON.stringify(key), key);
    timer ??= env.setTimeout(flush, gather_ms);
  }

  function flush() {
    timer = null;
    const keys = [...stale.values()];
    stale.clear();
    for (const queryKey of keys) {
      // A query that fails to load anew shows that itself.
      client.invalidateQueries({ queryKey }).catch(() => {});
    }
  }

  const offs = [
    tidings.on('entity.*', ({ type, data }) => note(data.entity, { type, entity: data.entity, id: data.id, version: data.version })),
    tidings.on('sys.state', ({ data }) => {
      if (data.reason !== 'gap') return;
      for (const entity of Object.keys(table)) note(entity, { type: 'gap', entity, id: null, version: undefined });
    }),
  ];
  return () => {
    offs.forEach((off) => off());
    env.clearTimeout(timer);
  };
};

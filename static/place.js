// @ts-check
// This tab's place in the user's log: the cursor up to which everything was told.
// Promises: `accept` says yes to each durable event once, in order, whatever connection, tab or transport it came by; the
// place never moves back within one epoch. The newest ids are remembered for logs that began anew.

const IDS_MAX = 2000;
const CURSOR = /^([a-z0-9]{6})-(\d{1,16})$/;

/** @param {string | null | undefined} cursor */
export function parseCursor(cursor) {
  const found = CURSOR.exec(cursor ?? '');
  return found === null ? null : { epoch: found[1], seq: Number(found[2]) };
}

/** @param {string | null} start a cursor, or null */
export function createPlace(start) {
  let place = parseCursor(start);
  /** @type {Set<string>} in order of arrival */
  const ids = new Set();

  /** @param {string | undefined} id */
  function isKnown(id) {
    if (id === undefined) return false;
    if (ids.has(id)) return true;
    ids.add(id);
    if (ids.size > IDS_MAX) ids.delete(/** @type {string} */ (ids.values().next().value));
    return false;
  }

  /** @param {string | null | undefined} cursor */
  function advance(cursor) {
    const to = parseCursor(cursor);
    if (to === null) return false;
    const isForward = place === null || (to.epoch === place.epoch && to.seq > place.seq);
    if (isForward) place = to;
    return isForward;
  }

  return {
    cursor: () => (place === null ? null : `${place.epoch}-${place.seq}`),
    /**
     * Whether a durable event is new here; moves the place past it.
     * @param {{ id?: string, cursor?: string }} event
     */
    accept(event) {
      // A position of another epoch is told by a reset or a state, never by an event.
      return advance(event.cursor) && !isKnown(event.id);
    },
    advance,
    /**
     * Moves anywhere: a state was loaded, or nothing is known any more.
     * @param {string | null} cursor
     */
    set(cursor) {
      place = parseCursor(cursor);
    },
    /**
     * Whether what follows `after` follows what is known here without a hole.
     * @param {string | null} after
     */
    reaches(after) {
      const from = parseCursor(after);
      if (from === null || place === null) return from === null || place === null;
      return from.epoch === place.epoch && from.seq <= place.seq;
    },
  };
}

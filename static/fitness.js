// @ts-check
// Which transports work here: all until one was found not to, for a time that doubles, across reloads of this tab.
// Promises: the best fit one is chosen in the given order; a transport that was found unfit is tried again later, since
// people move between networks; there is always one to choose.

const KEY = 'tidings.unfit';
const DOUBLED_MAX = 4;
/** Silences in a row after a good start, before the transport is to blame. */
const SILENCES = 2;

/**
 * @param {{ env: import('./tidings.js').Environment, timing: import('./tidings.js').Timing, log: import('./internal.js').Log,
 *   names: import('./tidings.js').TransportName[] }} parts
 */
export function createFitness({ env, timing, log, names }) {
  /** @type {Record<string, { until_ms: number, times: number }>} */
  let marks = restore();
  /** @type {Record<string, number>} */
  let silences = {};

  function restore() {
    try {
      const kept = JSON.parse(env.storage?.getItem(KEY) ?? '{}');
      const good = Object.entries(kept).filter(([, mark]) => Number.isFinite(mark?.until_ms) && Number.isFinite(mark?.times));
      return Object.fromEntries(good);
    } catch {
      return {};
    }
  }

  function keep() {
    try {
      env.storage?.setItem(KEY, JSON.stringify(marks));
    } catch {
      // Without storage the next page finds out again.
    }
  }

  const fit = () => names.filter((name) => !(marks[name]?.until_ms > env.now()));

  /** @param {import('./tidings.js').TransportName} name */
  function unfit(name) {
    const times = Math.min((marks[name]?.times ?? 0) + 1, DOUBLED_MAX);
    marks[name] = { until_ms: env.now() + timing.unfit_ms * 2 ** (times - 1), times };
    log('does not work here:', name);
    keep();
  }

  return {
    choose: () => fit()[0] ?? names[0],
    hasFit: () => fit().length > 0,
    unfit,
    /** @param {string | undefined} name */
    works(name) {
      if (name !== undefined && silences[name] !== undefined) delete silences[name];
    },
    /** @param {import('./tidings.js').TransportName | undefined} name */
    silent(name) {
      if (name === undefined || name === 'poll') return;
      silences[name] = (silences[name] ?? 0) + 1;
      if (silences[name] < SILENCES) return;
      delete silences[name];
      unfit(name);
    },
    /** Another network, or nothing works: nothing is known. */
    forget() {
      marks = {};
      silences = {};
      keep();
    },
  };
}

// Time that stands still until a test moves it: timers, wall time, dice. Everything a client does between two moments is
// let happen before time moves on, so that no test waits for a real clock.
// Promises: timers fire in order of their time; a run of `pass` is the same every time.

export function createClock() {
  let now_ms = Date.UTC(2026, 10, 21, 12);
  let count = 0;
  const timers = new Map();

  /** Lets promises and streams run until nothing is left to do. */
  async function settle() {
    for (let turn = 0; turn < 12; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }

  return {
    /** What `random()` gives next; a test sets it. */
    dice: 0.5,
    now: () => now_ms,
    setTimeout(action, ms) {
      count += 1;
      timers.set(count, { at: now_ms + Math.max(0, Number(ms) || 0), action, order: count });
      return count;
    },
    clearTimeout: (timer) => void timers.delete(timer),
    settle,
    async pass(ms) {
      const end = now_ms + ms;
      await settle();
      for (;;) {
        const due = [...timers.entries()].filter(([, timer]) => timer.at <= end);
        if (due.length === 0) break;
        const [id, timer] = due.sort(([, a], [, b]) => a.at - b.at || a.order - b.order)[0];
        timers.delete(id);
        now_ms = Math.max(now_ms, timer.at);
        timer.action();
        await settle();
      }
      now_ms = end;
    },
    pending: () => timers.size,
  };
}

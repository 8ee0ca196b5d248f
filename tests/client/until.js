// Waiting for what comes in its own time. Looks again and again, and fails with a sentence when it does not come.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';

export const DEADLINE_MS = 10_000;

/** The first true value that `look` gives. */
export async function until(look, what, { withinMs = DEADLINE_MS, everyMs = 50 } = {}) {
  const end = Date.now() + withinMs;
  for (;;) {
    const value = await look();
    if (value) return value;
    assert.ok(Date.now() < end, `not within ${withinMs} ms: ${what}`);
    await pause(everyMs);
  }
}

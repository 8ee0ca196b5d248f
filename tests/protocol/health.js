// What must hold after every hostile row: a right request on a new connection is served at once, no panic was logged, and
// the resident memory comes back near where it was. Measured from outside, by /healthz and /proc.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { exchange, request } from './wire.js';

const SERVED_WITHIN_MS = 100;
// The machine is shared and builds run beside the tests: the best of several tries counts.
const TRIES = 5;
const SETTLE_DEADLINE_MS = 30_000;
const SETTLE_LOOK_MS = 250;

export async function assertServes(server) {
  let best = Infinity;
  for (let attempt = 0; attempt < TRIES && best >= SERVED_WITHIN_MS; attempt += 1) {
    const begun = performance.now();
    const { status, wire } = await exchange(server.port, request('GET /healthz HTTP/1.1', ['Host: x', 'Connection: close']));
    assert.equal(status, 200, 'a right request after the wrong one');
    best = Math.min(best, performance.now() - begun);
    wire.destroy();
  }
  assert.ok(best < SERVED_WITHIN_MS, `a right request took ${best.toFixed(0)} ms`);
  assert.deepEqual(server.panics, []);
}

/** Resident memory is back within a tenth and 16 MiB of what it was, soon. */
export async function assertSettles(server, baseBytes) {
  const bound = baseBytes * 1.1 + 16 * 2 ** 20;
  const end = Date.now() + SETTLE_DEADLINE_MS;
  while (server.residentBytes > bound && Date.now() < end) {
    await assertServes(server);
    await pause(SETTLE_LOOK_MS);
  }
  const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  assert.ok(server.residentBytes <= bound, `resident memory ${mib(server.residentBytes)}, before it was ${mib(baseBytes)}`);
}

/** Runs `work` and gives the most resident memory seen meanwhile. */
export async function peakResident(server, work) {
  let peak = server.residentBytes;
  const timer = setInterval(() => {
    peak = Math.max(peak, server.residentBytes);
  }, 20);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  return Math.max(peak, server.residentBytes);
}

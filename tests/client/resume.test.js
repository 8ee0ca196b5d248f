// One scenario for every client of the table: numbered events are published while the client reads through a proxy
// that cuts it off more than twenty times, refuses for a while, and the server is killed with -9 and started again.
// In the end the client has every event once and in order. Repeat a failure with the TIDINGS_SEED that it prints.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { READERS } from './clients/readers.js';
import { Journal } from './journal.js';
import { cuttingPlan, startProxy } from './proxy.js';
import { chosenSeed, seeded } from './random.js';
import { numberedEvents, startServer } from './server.js';
import { until } from './until.js';

const EVENTS = Number(process.env.TIDINGS_CLIENT_EVENTS ?? 2000);
const BATCH = 10;
const CUTS = 28;
const CUTS_LEAST = 20;
// The reader is never further behind, else one lucky connection could take all that is left past the cuts.
const LAG_EVENTS_MAX = 60;
// So many events wait for one more connection, else those that are cut by the time would take most of them on a fast
// day. They are more than what any other cut waits for.
const EVENTS_PER_CONNECTION = Math.max(LAG_EVENTS_MAX, Math.ceil(EVENTS / CUTS));
const DEADLINE_MS = 60_000;

for (const { name, read, wholeHead } of READERS) {
  test(`${name}: every event once and in order through cuts, a refusal and a kill -9`, { timeout: 120_000 }, async () => {
    const seed = chosenSeed();
    const random = seeded(seed);
    const proxy = await startProxy({ upstreamPort: 0, random, plan: cuttingPlan(random, CUTS, { wholeHead }) });
    const server = await startServer({
      'server.allowed_origins': [proxy.origin.replace('127.0.0.1', 'localhost'), proxy.origin],
    });
    proxy.upstreamPort = server.port;
    const journal = new Journal();
    const stop = await read(proxy, 'alice', journal);
    try {
      const published = await publishThroughFaults(server, proxy, journal, random);
      await journal.reached(published.length, DEADLINE_MS);
      assert.deepEqual(journal.verdict(published), []);
      // Each of these clients resumes from the last frame that it handed over, so nothing needs to come twice.
      assert.equal(journal.duplicates, 0);
      assert.deepEqual(server.panics, []);
      assert.ok(proxy.counts.cuts >= CUTS_LEAST, `only ${proxy.counts.cuts} cuts`);
      assert.ok(journal.connections > CUTS_LEAST / 2, `only ${journal.connections} connections`);
      console.log(JSON.stringify({ name, seed, connections: journal.connections, duplicates: journal.duplicates, ...proxy.counts }));
    } catch (error) {
      error.message = `seed ${seed}: ${error.message}\nfaults: ${journal.faults.join('\n')}\nserver: ${server.stderr.slice(-2000)}`;
      throw error;
    } finally {
      await stop();
      await proxy.close();
      await server.stop();
    }
  });
}

/** Publishes all events; refuses connections at a third, kills the server in the middle of a publish at one half. */
async function publishThroughFaults(server, proxy, journal, random) {
  const events = numberedEvents(random, 0, EVENTS);
  let refusal = Promise.resolve();
  for (let first = 0; first < EVENTS; first += BATCH) {
    await journal.reached(first - LAG_EVENTS_MAX, DEADLINE_MS);
    const wanted = Math.min(CUTS, Math.floor(first / EVENTS_PER_CONNECTION));
    await until(() => proxy.counts.armed >= wanted, `${wanted} connections`, { withinMs: DEADLINE_MS, everyMs: 1 });
    const batch = server.publish('alice', events.slice(first, first + BATCH));
    if (first === nearest(EVENTS / 3)) refusal = proxy.refuseFor(300);
    if (first === nearest(EVENTS / 2)) await restart(server, proxy, random);
    await batch;
  }
  await refusal;
  return events;
}

async function restart(server, proxy, random) {
  await pause(random() * 10);
  await server.kill();
  await server.start();
  proxy.upstreamPort = server.port;
}

function nearest(count) {
  return Math.round(count / BATCH) * BATCH;
}

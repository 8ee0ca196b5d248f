// One cursor, carried from transport to transport in the middle of a log that grows: SSE (npm eventsource), long poll,
// NDJSON (fetch) and WebSocket (npm ws), in random order. Every event comes exactly once: no de-duplication here.
// Repeat a failure with the TIDINGS_SEED that it prints.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { between, chosenSeed, pick, seeded } from './random.js';
import { numberedEvents, startServer, token } from './server.js';

const EVENTS = 1500;
const TAKE_MAX = 40;
const STEP_DEADLINE_MS = 10_000;

/** Each reads up to `count` events after `cursor`, then leaves; the rest is left for the next one. */
const TRANSPORTS = { sse, poll, ndjson, socket };

test('changing transport in the middle loses and repeats nothing', { timeout: 90_000 }, async () => {
  const seed = chosenSeed();
  const random = seeded(seed);
  const server = await startServer();
  const published = numberedEvents(random, 0, EVENTS);
  const publishing = publishSlowly(server, published, random);
  const taken = [];
  const steps = {};
  try {
    for (let cursor = 'start'; taken.length < EVENTS; cursor = taken.at(-1).cursor) {
      const name = pick(random, Object.keys(TRANSPORTS));
      const count = Math.min(between(random, 1, TAKE_MAX), EVENTS - taken.length);
      const events = await within(STEP_DEADLINE_MS, name, TRANSPORTS[name](server.origin, cursor, count));
      taken.push(...events);
      steps[name] = (steps[name] ?? 0) + 1;
      assert.ok(events.length > 0, `${name} after ${cursor} gave nothing`);
      assert.equal(taken.at(-1).seq, taken.length, `${name} after ${cursor}`);
    }
    await publishing;
    assert.deepEqual(taken.map(({ seq }) => seq), published.map((_, at) => at + 1));
    assert.deepEqual(taken.map(({ id, data }) => ({ id, data })), published);
    for (const name of Object.keys(TRANSPORTS)) assert.ok(steps[name] >= 5, `${name}: ${steps[name]} steps`);
  } catch (error) {
    error.message = `seed ${seed}: ${error.message}`;
    throw error;
  } finally {
    await server.stop();
  }
});

async function publishSlowly(server, events, random) {
  for (let first = 0; first < events.length; ) {
    const count = between(random, 1, 30);
    await server.publish('alice', events.slice(first, first + count));
    first += count;
  }
}

async function sse(origin, cursor, count) {
  const authorized = (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...bearer() } });
  const source = new EventSource(`${origin}/v1/events?cursor=${cursor}`, { fetch: authorized });
  const events = [];
  await new Promise((done, fail) => {
    source.onmessage = ({ data }) => events.push(JSON.parse(data)) === count && done();
    source.onerror = (error) => fail(new Error(`EventSource: ${error.message}`));
    source.addEventListener('reset', ({ data }) => fail(new Error(data)));
  }).finally(() => source.close());
  return events.slice(0, count);
}

async function poll(origin, cursor, count) {
  const answer = await fetch(`${origin}/v1/events?format=json&wait=5&limit=${count}&cursor=${cursor}`, { headers: bearer() });
  const page = await answer.json();
  assert.equal(answer.status, 200);
  assert.equal(page.reset, null);
  assert.equal(page.cursor, page.events.at(-1)?.cursor);
  return page.events;
}

async function ndjson(origin, cursor, count) {
  const leave = new AbortController();
  const headers = { ...bearer(), accept: 'application/x-ndjson' };
  const answer = await fetch(`${origin}/v1/events?cursor=${cursor}`, { headers, signal: leave.signal });
  const events = [];
  let rest = '';
  for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    events.push(...lines.map((line) => JSON.parse(line)).filter(isDurable));
    if (events.length >= count) break;
  }
  leave.abort();
  return events.slice(0, count);
}

async function socket(origin, cursor, count) {
  const url = `${origin.replace('http', 'ws')}/v1/ws?cursor=${cursor}`;
  const client = new WebSocket(url, ['tidings.v1', `bearer.${token('alice')}`]);
  const events = [];
  await new Promise((done, fail) => {
    client.on('error', fail);
    client.on('close', (code) => fail(new Error(`closed with ${code}`)));
    client.on('message', (text) => {
      const content = JSON.parse(text);
      if (isDurable(content) && events.push(content) === count) done();
    });
  }).finally(() => client.terminate());
  return events.slice(0, count);
}

function isDurable({ type, ephemeral }) {
  if (type === 'sys.reset' || type === 'sys.error') throw new Error(`unexpected ${type}`);
  return !type.startsWith('sys.') && ephemeral !== true;
}

function bearer() {
  return { authorization: `Bearer ${token('alice')}` };
}

async function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`${what} took longer than ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

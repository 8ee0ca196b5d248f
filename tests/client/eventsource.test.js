// What the server means by its answers, as EventSource understands them: 401 and 204 end it for good, a limit or a drain
// does not, and a stream that is revoked or drained says so first. In npm eventsource and in Chromium alike.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { EventSource } from 'eventsource';
import { launchChromium } from './clients/chromium.js';
import { numberedEvents, startServer, token } from './server.js';
import { DEADLINE_MS, until } from './until.js';

const [CONNECTING, CLOSED] = [0, 2];

let server;
let browser;

before(async () => {
  server = await startServer({ 'limits.connections_per_user': 2 });
  browser = await launchChromium();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Both give the same view: the frames by name, the state, and a way to close. */
const SOURCES = { 'npm eventsource': openInNode, Chromium: openInChromium };

async function openInNode(query, bearer) {
  const authorized = (url, init) => fetch(url, { ...init, headers: { ...init.headers, authorization: `Bearer ${bearer}` } });
  const source = new EventSource(`${server.origin}/v1/events?${query}`, { fetch: authorized });
  const frames = [];
  for (const name of ['message', 'ready', 'bye', 'error']) {
    source.addEventListener(name, ({ data }) => data !== undefined && frames.push({ name, ...JSON.parse(data) }));
  }
  return { frames: async () => frames, state: async () => source.readyState, close: async () => source.close() };
}

async function openInChromium(query, bearer) {
  const page = await browser.newPage();
  await page.goto(`${server.origin}/healthz`);
  const ticket = await ticketOf(bearer);
  await page.evaluate((url) => {
    window.frames_seen = [];
    window.source = new EventSource(url);
    const keep = ({ type, data }) => data !== undefined && window.frames_seen.push({ name: type, ...JSON.parse(data) });
    for (const name of ['message', 'ready', 'bye', 'error']) window.source.addEventListener(name, keep);
  }, `${server.origin}/v1/events?${query}&ticket=${ticket}`);
  return {
    frames: () => page.evaluate(() => window.frames_seen),
    state: () => page.evaluate(() => window.source.readyState),
    close: () => page.close(),
  };
}

/** A wrong token gets no ticket; then the wrong token itself stands for one. */
async function ticketOf(bearer) {
  const answer = await post('/v1/tickets', bearer);
  return answer.ok ? (await answer.json()).ticket : 'wrong';
}

function post(path, bearer, body) {
  const headers = { authorization: `Bearer ${bearer}`, 'content-type': 'application/json' };
  return fetch(server.origin + path, { method: 'POST', headers, body: body && JSON.stringify(body) });
}

const named = (source, name) => async () => (await source.frames()).find((frame) => frame.name === name);

for (const [name, open] of Object.entries(SOURCES)) {
  test(`${name}: a wrong token ends it for good`, async () => {
    const source = await open('', `${token('wrong')}x`);
    await until(async () => (await source.state()) === CLOSED, 'it gave up');
    await source.close();
  });

  test(`${name}: a stream too many is told so and comes back later`, async () => {
    const user = `crowded-${name === 'Chromium'}`;
    const sources = [];
    for (let opened = 0; opened < 2; opened += 1) {
      sources.push(await open('', token(user)));
      await until(named(sources.at(-1), 'ready'), 'ready');
    }
    sources.push(await open('', token(user)));
    const problem = await until(named(sources[2], 'error'), 'the problem');
    assert.equal(problem.status, 429);
    assert.equal(await sources[2].state(), CONNECTING);
    for (const source of sources) await source.close();
  });

  test(`${name}: a revoked user's stream says so, ends, and does not come back`, async () => {
    const user = `revoked-${name === 'Chromium'}`;
    const source = await open('', token(user));
    await until(named(source, 'ready'), 'ready');
    const answer = await post('/v1/admin/revoke', token('root', { scope: 'admin' }), { user });
    assert.ok(answer.ok, `revoke: ${answer.status} ${await answer.text()}`);
    await until(named(source, 'bye'), 'bye');
    await until(async () => (await source.state()) === CLOSED, 'it stopped for good');
    await source.close();
  });
}

test('a drain says bye, exits with 0, and a resume after it misses nothing', { timeout: 60_000 }, async (t) => {
  const own = await startServer();
  t.after(() => own.stop());
  const published = numberedEvents(Math.random, 0, 200);
  await own.publish('alice', published.slice(0, 100));
  const authorized = (url, init) => fetch(url, { ...init, headers: { ...init.headers, authorization: `Bearer ${token('alice')}` } });
  const first = await readUntil(own, `cursor=start`, authorized, ({ type }) => type === 'sys.bye', () => own.child.kill('SIGTERM'), 100);
  assert.deepEqual(await own.exited, [0, null]);
  assert.equal(first.at(-1).reason, 'drain');
  await own.start();
  await own.publish('alice', published.slice(100));
  const cursor = first.findLast((frame) => frame.seq !== undefined).cursor;
  const second = await readUntil(own, `cursor=${cursor}`, authorized, ({ seq }) => seq === 200);
  const seen = [...first, ...second].filter(({ seq }) => seq !== undefined);
  assert.deepEqual(seen.map(({ id }) => id), published.map(({ id }) => id));
});

/** The frames of one EventSource up to the one that is `last`; `act` is called once `after` events have come. */
function readUntil(from, query, authorized, last, act, count) {
  const source = new EventSource(`${from.origin}/v1/events?${query}`, { fetch: authorized });
  const frames = [];
  return new Promise((done, fail) => {
    const timer = setTimeout(() => fail(new Error(`after ${frames.length} frames: ${JSON.stringify(frames.at(-1))}`)), DEADLINE_MS);
    const keep = ({ data }) => {
      if (data === undefined) return;
      const frame = JSON.parse(data);
      frames.push(frame);
      if (frame.seq === count) act?.();
      if (last(frame)) {
        clearTimeout(timer);
        done(frames);
      }
    };
    for (const name of ['message', 'bye', 'reset']) source.addEventListener(name, keep);
  }).finally(() => source.close());
}

// The client against the real server (TIDINGS_BIN): every transport over kill -9 and restart, tickets and cookie, a token
// renewed in mid-stream, a gap. The browser's parts that Node lacks come from the packages `ws` and `eventsource`.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { EventSource } from 'eventsource';
import { WebSocket } from 'ws';
import { createTidings } from '../../static/tidings.js';
import { startServer, token } from '../client/server.js';

const ORIGIN = 'http://tidings.test';
const DEADLINE_MS = 60_000;
let server;

before(async () => (server = await startServer()));
after(() => server.stop());

/** The environment of a page: the server's port changes at each restart, the page's address does not. */
function environment(answers = []) {
  const real = (address) => String(address).replace(ORIGIN, server.origin).replace(ORIGIN.replace('http', 'ws'), server.origin.replace('http', 'ws'));
  let cookie;
  const remember = (response) => {
    cookie = response.headers.getSetCookie().map((set) => set.split(';')[0])[0] ?? cookie;
    return response;
  };
  const withCookie = (headers, is) => (is && cookie !== undefined ? { ...headers, cookie, origin: server.origin } : headers);
  return {
    origin: ORIGIN,
    fetch: async (address, init = {}) => {
      const response = remember(await fetch(real(address), { ...init, headers: withCookie(init.headers, init.credentials === 'include') }));
      answers.push(`${init.method ?? 'GET'} ${new URL(address).pathname} ${response.status}`);
      return response;
    },
    EventSource: class extends EventSource {
      constructor(address, { withCredentials }) {
        super(real(address), { fetch: (url, init) => fetch(url, { ...init, headers: withCookie(init.headers, withCredentials) }) });
      }
    },
    WebSocket: class extends WebSocket {
      constructor(address, protocols) {
        super(real(address), protocols);
        this.on('error', () => {});
      }
    },
  };
}

async function until(holds, what) {
  const end = Date.now() + DEADLINE_MS;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`not in time: ${what()}`);
    await pause(20);
  }
}

const FAST = { backoff_ms: 20, backoff_max_ms: 200, poll_wait_ms: 2_000, stable_ms: 100, ready_ms: 20_000 };
const publish = (user, from, count) => server.publish(user, Array.from({ length: count }, (_, at) => ({ id: randomUUID(), data: { n: from + at } })));

for (const [transport, options] of [['sse', {}], ['eventsource', {}], ['websocket', {}], ['poll', {}], ['eventsource', { cookie: true }], ['sse', { cookie: true }]]) {
  test(`${transport}${options.cookie ? ' by cookie' : ''}: nothing lost, nothing twice over three kills of the real server`, async () => {
    const user = `u-${randomUUID()}`;
    const tidings = createTidings({ token: token(user), transports: [transport], timing: FAST, environment: environment(), ...options });
    const numbers = [];
    tidings.on('test.item', ({ data }) => numbers.push(data.n));
    await tidings.connect().ready();
    assert.equal(tidings.status.transport, transport);
    for (let round = 0; round < 3; round += 1) {
      await publish(user, round * 20, 10);
      if (round % 2 === 0) await until(() => numbers.length >= round * 20 + 1, () => `${numbers}`);
      await server.kill();
      await server.start();
      await publish(user, round * 20 + 10, 10);
    }
    await until(() => numbers.length >= 60, () => `${numbers} ${JSON.stringify(tidings.status)}`);
    assert.deepEqual(numbers, Array.from({ length: 60 }, (_, n) => n));
    assert.equal(tidings.user, user);
    tidings.disconnect();
  });
}

test('all transports in turn on one client\'s cursor', async () => {
  const user = `u-${randomUUID()}`;
  const numbers = [];
  let start = 'state';
  for (let round = 0; round < 8; round += 1) {
    const tidings = createTidings({ token: token(user), transports: [['sse', 'eventsource', 'websocket', 'poll'][round % 4]], start, timing: FAST, environment: environment() });
    tidings.on('test.item', ({ data }) => numbers.push(data.n));
    await tidings.connect().ready();
    await publish(user, round * 10, 5);
    await until(() => numbers.length >= round * 10 + 5, () => `${numbers}`);
    tidings.disconnect();
    start = tidings.cursor;
    await publish(user, round * 10 + 5, 5);
  }
  assert.deepEqual(numbers, Array.from({ length: 75 }, (_, n) => n));
});

test('a position that the log does not have is a gap: the state, then what follows', async () => {
  const user = `u-${randomUUID()}`;
  await publish(user, 0, 1);
  const first = createTidings({ token: token(user), transports: ['sse'], start: 'now', timing: FAST, environment: environment() });
  await first.connect().ready();
  const [epoch] = first.cursor.split('-');
  first.disconnect();
  for (const [start, reason] of [[`${epoch}-999999`, 'ahead'], ['zzzzzz-1', 'epoch']]) {
    for (const transport of ['sse', 'eventsource', 'websocket', 'poll']) {
      const told = [];
      const tidings = createTidings({ token: token(user), transports: [transport], start, timing: FAST, environment: environment() });
      for (const type of ['sys.reset', 'sys.state', 'test.item']) tidings.on(type, ({ data }) => told.push(type === 'test.item' ? data.n : `${type} ${data.reason}`));
      await tidings.connect().ready();
      await until(() => tidings.status.live, () => JSON.stringify(tidings.status));
      await publish(user, 1000, 1);
      await until(() => told.includes(1000), () => `${told}`);
      assert.deepEqual(told, [`sys.reset ${reason}`, 'sys.state gap', 1000], transport);
      tidings.disconnect();
    }
  }
});

for (const transport of ['sse', 'eventsource', 'websocket']) {
  test(`${transport}: a token that ends within the minute is renewed on the open stream`, async () => {
    const user = `u-${randomUUID()}`;
    const answers = [];
    const seconds = () => Math.floor(Date.now() / 1000);
    const reasons = [];
    const source = (reason) => {
      reasons.push(reason);
      return token(user, { exp: seconds() + (reason === 'start' ? 30 : 3600), n: reasons.length });
    };
    const tidings = createTidings({ token: source, transports: [transport], timing: FAST, environment: environment(answers) });
    const statuses = [];
    tidings.on('sys.status', ({ data }) => statuses.push(data.status));
    await tidings.connect().ready();
    await until(() => reasons.includes('expiring'), () => `${reasons}`);
    if (transport !== 'websocket') await until(() => answers.includes('POST /v1/session/refresh 200'), () => `${answers}`);
    await tidings.ack();
    assert.deepEqual(reasons, ['start', 'expiring']);
    assert.ok(!statuses.includes('reconnecting'), statuses.join());
    tidings.disconnect();
  });
}

test('a wrong token stops; a subscription is durable; a refusal has the server\'s code', async () => {
  const user = `u-${randomUUID()}`;
  const wrong = createTidings({ token: 'a.b.c', timing: FAST, environment: environment() });
  await assert.rejects(wrong.connect().ready(), { code: 'unauthorized' });
  const tidings = createTidings({ token: token(user, { topics: ['feed:*'] }), timing: FAST, environment: environment() });
  await tidings.connect().ready();
  await tidings.subscribe('feed:news');
  await assert.rejects(tidings.subscribe('secret'), { status: 403, code: 'forbidden' });
  await tidings.unsubscribe('feed:news');
  await assert.rejects(tidings.request('POST', '/v1/ack', { cursor: 'nonsense' }), { status: 400, code: 'invalid_cursor' });
  assert.equal((await tidings.state()).user, user);
  tidings.disconnect();
});

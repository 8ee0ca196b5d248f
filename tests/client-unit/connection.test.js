// The state machine: how a client connects, what it does when that fails, and what it says about it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { problem } from './routes.js';
import { count, createWorld } from './world.js';

const ALL = ['sse', 'eventsource', 'websocket', 'poll'];

for (const transport of ALL) {
  test(`${transport}: connects, tells every event once and in order, resumes after each cut`, async () => {
    const world = createWorld();
    const { clock, server } = world;
    const made = await world.connected({ transports: [transport] });
    assert.deepEqual(made.names(), ['connecting start', 'connected ready']);
    assert.equal(made.tidings.status.transport, transport);
    assert.equal(made.tidings.status.live, true);
    for (let round = 0; round < 10; round += 1) {
      server.publish('note.new', { round });
      server.cut({ isClean: round % 2 === 0 });
      server.publish('note.new', { round });
      await clock.pass(40_000);
    }
    assert.deepEqual(made.seqs(), Array.from({ length: 20 }, (_, at) => at + 1));
    assert.equal(made.tidings.cursor, 'abcdef-20');
  });
}

test('what is already there when it starts is told by the state, what follows by events', async () => {
  const world = createWorld();
  world.server.publish('note.new');
  const made = await world.connected();
  world.server.publish('note.new');
  await world.clock.settle();
  assert.deepEqual(made.heard.states.map(({ reason, state }) => [reason, state.cursor]), [['start', 'abcdef-1']]);
  assert.deepEqual(made.seqs(), [2]);
});

for (const [start, seqs] of [['start', [1, 2, 3]], ['now', [3]], ['-1', [2, 3]], ['abcdef-1', [2, 3]]]) {
  test(`start ${start}: begins there, without the state`, async () => {
    const world = createWorld();
    world.server.publish('note.new');
    world.server.publish('note.new');
    const made = await world.connected({ start });
    world.server.publish('note.new');
    await world.clock.settle();
    assert.deepEqual(made.seqs(), seqs);
    assert.equal(made.heard.states.length, 0);
  });
}

test('a token goes in the header, never in an address', async () => {
  const world = createWorld();
  const { clock, server } = world;
  for (const transport of ALL) {
    const made = await world.connected({ transports: [transport] });
    made.tidings.send('c1', 'hi');
    await clock.settle();
    made.tidings.disconnect();
  }
  assert.ok(server.requests.length > 8);
  assert.ok(server.requests.every(({ path, query }) => !JSON.stringify([path, query]).includes('t1')));
  const streams = server.requests.filter(({ method, headers }) => method === 'GET' && headers.Accept === 'text/event-stream');
  assert.ok(streams.every(({ headers, credentials }) => headers.Authorization === 'Bearer t1' && credentials === 'omit'));
});

test('waits between attempts double up to a ceiling, and the dice decide how much of each is waited', async () => {
  const world = createWorld();
  const { clock, server } = world;
  server.faults.isDown = true;
  clock.dice = 0.999999;
  const made = await world.connected({ start: 'now', transports: ['poll'] });
  const waits = [];
  for (let n = 0; n < 8; n += 1) {
    const { retry_at } = made.tidings.status;
    waits.push(Math.round((retry_at - clock.now()) / 100) / 10);
    await clock.pass(retry_at - clock.now());
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
  clock.dice = 0.001;
  await clock.pass(made.tidings.status.retry_at - clock.now());
  assert.equal(made.tidings.status.retry_at, clock.now() + 30, 'full jitter reaches down to nothing');
});

test('a stable connection resets the back-off, one that dies at once does not', async () => {
  const world = createWorld();
  const { clock, server } = world;
  server.retry_ms = undefined;
  clock.dice = 0.999999;
  const made = await world.connected({ start: 'now' });
  const wait = async (lives_ms) => {
    await clock.pass(lives_ms);
    server.cut();
    await clock.settle();
    const ms = made.tidings.status.retry_at - clock.now();
    await clock.pass(ms);
    return Math.round(ms / 1000);
  };
  assert.deepEqual([await wait(0), await wait(0), await wait(0)], [1, 2, 4]);
  assert.deepEqual([await wait(6_000), await wait(0)], [1, 2]);
});

test('the server asks for a wait and gets it: retry, Retry-After, poll_after_ms, bye', async () => {
  const world = createWorld();
  const { clock, server } = world;
  clock.dice = 0;
  const made = await world.connected({ start: 'now' });
  const left = () => made.tidings.status.retry_at - clock.now();
  server.cut();
  await clock.settle();
  assert.equal(left(), 2_000, 'retry of ready');
  await clock.pass(2_000);
  server.say({ type: 'sys.bye', reason: 'drain' }, 17_000);
  server.cut({ isClean: true });
  await clock.settle();
  assert.deepEqual([left(), made.tidings.status.reason], [17_000, 'drain']);
  server.faults.status = () => problem(503, 'draining', { 'retry-after': '7' });
  await clock.pass(17_000);
  assert.deepEqual([left(), made.tidings.status.reason], [7_000, 'limited']);
  made.tab.fire('pageshow');
  await clock.settle();
  assert.equal(left(), 7_000, 'a shown page does not cut short what the server asked');
  server.faults.status = () => new Response('retry: 9000\nevent: error\ndata: {"type":"about:blank","status":429,"code":"too_many_connections"}\n\n', { headers: { 'content-type': 'text/event-stream' } });
  await clock.pass(7_000);
  assert.deepEqual([left(), made.tidings.status.reason], [9_000, 'limited']);

  server.faults.status = null;
  const polling = await world.connected({ start: 'now', transports: ['poll'] });
  server.cut({ poll_after_ms: 12_345 });
  await clock.settle();
  assert.equal(polling.tidings.status.retry_at - clock.now(), 12_345);
});

test('online and a shown page end the waiting and reset the back-off', async () => {
  const world = createWorld();
  const { clock, server } = world;
  server.faults.isDown = true;
  clock.dice = 0.9;
  const made = await world.connected({ start: 'now', transports: ['poll'] });
  for (const name of ['online', 'pageshow', 'visibilitychange']) {
    await clock.pass(200_000);
    const tried = world.openings().length;
    made.tab.fire(name);
    await clock.settle();
    assert.equal(world.openings().length, tried + 1, name);
    assert.equal(made.tidings.status.attempt, 1, name);
  }
  server.faults.isDown = false;
  made.tab.fire('online');
  await clock.settle();
  assert.equal(made.tidings.status.status, 'connected');
});

test('offline is told at once, tried seldom, and over when the browser says online', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected({ start: 'now' });
  made.tab.page.isOnline = false;
  server.faults.isDown = true;
  made.tab.fire('offline');
  assert.equal(made.tidings.status.status, 'offline');
  assert.equal(server.readers.size, 0, 'what was open is closed');
  const tried = world.openings().length;
  await clock.pass(95_000);
  assert.equal(world.openings().length, tried + 3);
  server.publish('note.new');
  server.faults.isDown = false;
  made.tab.page.isOnline = true;
  made.tab.fire('online');
  await clock.settle();
  assert.equal(made.tidings.status.status, 'connected');
  assert.deepEqual(made.seqs(), [1]);
});

test('silence past twice the ping time and some ends the connection; pings keep it', async () => {
  const world = createWorld();
  const { clock, server } = world;
  clock.dice = 0;
  const made = await world.connected({ start: 'now' });
  for (let n = 0; n < 10; n += 1) {
    await clock.pass(20_000);
    server.ping();
  }
  assert.equal(count(made.names(), 'connected ready'), 1);
  await clock.pass(43_000);
  assert.equal(made.tidings.status.status, 'connected');
  await clock.pass(2_000);
  assert.ok(made.names().includes('reconnecting silent'), made.names().join());
});

test('a page that wakes after a long sleep does not wait for the watch', async () => {
  const world = createWorld();
  const { clock } = world;
  const made = await world.connected({ start: 'now' });
  const before = world.openings().length;
  // The machine slept: wall time went on, timers did not.
  const slept = clock.now() + 3_600_000;
  made.tidings.environment.now = () => slept;
  made.tab.fire('visibilitychange');
  await clock.pass(2_001);
  assert.equal(world.openings().length, before + 1);
  assert.ok(made.names().includes('reconnecting silent'));
});

test('a long poll that never ends is cut by its own time-out', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected({ start: 'now', transports: ['poll'] });
  server.faults.isHung = true;
  await clock.pass(25_000 + 40_000);
  server.faults.isHung = false;
  await clock.pass(30_000);
  server.publish('note.new');
  await clock.settle();
  assert.deepEqual(made.seqs(), [1]);
  assert.ok(made.names().includes('reconnecting network'));
});

test('a gap: reset, then the state before anything that follows it, then on from there', async () => {
  for (const transport of ALL) {
    const world = createWorld();
    const { clock, server } = world;
    const told = [];
    const made = world.client({ start: 'now', transports: [transport] });
    made.tidings.on('sys.reset', ({ data }) => told.push(`reset ${data.reason}`));
    made.tidings.on('sys.state', ({ data }) => told.push(`state ${data.reason} ${data.state.cursor}`));
    made.tidings.on('note.new', ({ seq }) => told.push(seq));
    made.tidings.connect();
    await clock.settle();
    server.publish('note.new');
    await clock.settle();
    // The fifth event is written while the state is being loaded.
    server.extra.set('GET /v1/state', () => {
      server.publish('note.new');
      const cursor = server.head();
      server.publish('note.new');
      return new Response(JSON.stringify({ user: 'alice', cursor, ...server.state }));
    });
    server.faults.isDown = true;
    server.cut();
    for (let n = 0; n < 3; n += 1) server.publish('note.new');
    server.trim(4);
    server.faults.isDown = false;
    await clock.pass(40_000);
    assert.deepEqual(told, [1, 'reset trimmed', 'state gap abcdef-5', 6], transport);
  }
});

test('a server that says reset again and again is asked less and less often', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected();
  server.earliest = 1000;
  server.cut();
  await clock.pass(300_000);
  assert.ok(made.heard.states.length < 40, `${made.heard.states.length} states in five minutes`);
  server.earliest = 1;
  await clock.pass(40_000);
  assert.equal(made.tidings.status.live, true);
});

test('a log that began anew: the state replaces everything, and its first events are not taken for old ones', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected({ start: 'now' });
  for (let n = 0; n < 3; n += 1) server.publish('note.new');
  await clock.settle();
  server.cut();
  server.epoch = 'zzzzzz';
  server.log = [];
  await clock.pass(40_000);
  server.publish('note.new');
  await clock.settle();
  assert.deepEqual(made.heard.events.map(({ cursor }) => cursor), ['abcdef-1', 'abcdef-2', 'abcdef-3', 'zzzzzz-1']);
  assert.deepEqual(made.heard.states.map(({ reason }) => reason), ['gap']);
});

test('an event that the server sends again is told once, by its position and by its id', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected({ start: 'now' });
  const event = server.publish('note.new');
  server.say(event);
  server.say({ ...event, seq: 2, cursor: 'abcdef-2' });
  server.say({ ...event, id: 'other', seq: 1, cursor: 'abcdef-1' });
  server.say({ ...event, id: 'another', seq: 2, cursor: 'abcdef-2' });
  await clock.settle();
  assert.deepEqual(made.seqs(), [1]);
});

test('a state that cannot be loaded is asked for again, with the same back-off', async () => {
  const world = createWorld();
  const { clock, server } = world;
  let fails = 2;
  server.extra.set('GET /v1/state', () => (fails-- > 0 ? problem(500, 'internal') : new Response(JSON.stringify({ user: 'alice', cursor: server.head() }))));
  const made = await world.connected();
  assert.deepEqual(made.names(), ['connecting start', 'reconnecting server']);
  await clock.pass(5_000);
  assert.equal(made.tidings.status.status, 'connected');
  assert.equal(made.heard.states.length, 1);
});

test('disconnect ends everything at once, and connect begins again from the same place', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected({ start: 'now' });
  server.publish('note.new');
  await clock.settle();
  made.tidings.disconnect();
  assert.deepEqual(made.tidings.status.reason, 'disconnected');
  assert.equal(server.readers.size, 0);
  server.publish('note.new');
  await clock.pass(100_000);
  assert.equal(clock.pending(), 0, 'no timer is left');
  made.tidings.connect();
  await made.tidings.ready();
  await clock.settle();
  assert.deepEqual(made.seqs(), [1, 2]);
});

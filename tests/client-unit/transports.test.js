// The choice of transport: what happens where one does not work, and that nothing is lost on the way.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createWorld } from './world.js';

const tried = (world) => world.server.requests
  .filter(({ path, method }) => path === '/v1/ws' || (path === '/v1/events' && method !== 'op'))
  .map(({ method, headers, query }) => (method === 'GET' ? (query.format === 'json' ? (headers.Accept === 'application/json' ? 'poll' : 'look') : 'sse') : method));

test('behind a proxy that holds streams back it takes a socket, and loses nothing meanwhile', async () => {
  const world = createWorld();
  const { clock, server } = world;
  server.faults.holdsStreams = true;
  const made = await world.connected();
  server.publish('note.new');
  assert.equal(made.tidings.status.status, 'connecting');
  await clock.pass(5_999);
  assert.deepEqual(tried(world), ['sse']);
  await clock.pass(1);
  // EventSource would carry the same bytes through the same proxy.
  assert.deepEqual(tried(world), ['sse', 'WebSocket']);
  assert.deepEqual([made.tidings.status.status, made.tidings.status.transport], ['connected', 'websocket']);
  assert.deepEqual(made.seqs(), [1]);
  assert.equal(world.openings().at(-1).query.cursor, 'abcdef-0');
});

test('behind one that also refuses sockets it polls, and each change keeps the place', async () => {
  const world = createWorld();
  const { clock, server } = world;
  Object.assign(server.faults, { holdsStreams: true, blocksSockets: true });
  const made = await world.connected();
  server.publish('note.new');
  await clock.pass(6_000);
  assert.deepEqual(tried(world).slice(0, 4), ['sse', 'WebSocket', 'look', 'poll']);
  assert.equal(made.tidings.status.transport, 'poll');
  server.publish('note.new');
  await clock.settle();
  assert.deepEqual(made.seqs(), [1, 2]);
});

test('a tab that was reloaded remembers what did not work', async () => {
  const world = createWorld();
  const { clock, server } = world;
  server.faults.holdsStreams = true;
  const first = await world.connected();
  await clock.pass(6_000);
  first.tidings.disconnect();
  server.requests.length = 0;
  await world.connected({}, first.tab);
  assert.deepEqual(tried(world), ['WebSocket']);
});

test('from polling it goes back to something better when its time has come, or when the network is another', async () => {
  const world = createWorld();
  const { clock, server } = world;
  Object.assign(server.faults, { holdsStreams: true, blocksSockets: true });
  const made = await world.connected();
  await clock.pass(6_000);
  Object.assign(server.faults, { holdsStreams: false, blocksSockets: false });
  server.publish('note.new');
  await clock.pass(500_000);
  assert.equal(made.tidings.status.transport, 'poll');
  await clock.pass(150_000);
  assert.equal(made.tidings.status.transport, 'sse');
  server.publish('note.new');
  await clock.settle();
  assert.deepEqual(made.seqs(), [1, 2]);
});

test('from polling it goes back at the next page when the browser says that the network is another', async () => {
  const world = createWorld();
  const { clock, server } = world;
  Object.assign(server.faults, { holdsStreams: true, blocksSockets: true });
  const made = await world.connected();
  await clock.pass(6_000);
  assert.equal(made.tidings.status.transport, 'poll');
  Object.assign(server.faults, { holdsStreams: false, blocksSockets: false });
  made.tab.fire('online');
  await clock.pass(25_000);
  assert.equal(made.tidings.status.transport, 'sse');
});

test('a transport that failed again is left alone for twice as long', async () => {
  const world = createWorld();
  const { clock, server } = world;
  Object.assign(server.faults, { holdsStreams: true, blocksSockets: true });
  await world.connected({ transports: ['sse', 'poll'] });
  await clock.pass(6_000);
  const times = () => tried(world).filter((name) => name === 'sse').length;
  await clock.pass(650_000);
  assert.equal(times(), 2);
  await clock.pass(700_000);
  assert.equal(times(), 2);
  await clock.pass(600_000);
  assert.equal(times(), 3);
});

test('a stream that begins well and then goes silent twice is left for another transport', async () => {
  const world = createWorld();
  const { clock } = world;
  const made = await world.connected();
  await clock.pass(120_000);
  assert.equal(made.tidings.status.transport, 'eventsource');
});

test('a page instead of a stream is no stream: the next transport is tried at once', async () => {
  const world = createWorld();
  const { clock, server } = world;
  server.extra.set('GET /v1/events', ({ headers }) => headers.Accept === 'text/event-stream'
    ? new Response('<html>please log in</html>', { headers: { 'content-type': 'text/html' } })
    : new Response('{}'));
  const made = await world.connected({ start: 'now' });
  assert.deepEqual(tried(world), ['sse', 'EventSource']);
  assert.equal(made.tidings.status.transport, 'eventsource');
  await clock.settle();
});

test('a server that is down is no transport\'s fault: the first is tried again and again', async () => {
  const world = createWorld();
  const { clock, server } = world;
  server.faults.isDown = true;
  const made = await world.connected({ start: 'now' });
  await clock.pass(300_000);
  server.faults.isDown = false;
  await clock.pass(30_000);
  assert.equal(made.tidings.status.transport, 'sse');
});

test('a server that hangs is found by each transport in turn, then waited for', async () => {
  const world = createWorld();
  const { clock, server } = world;
  server.faults.isHung = true;
  const made = await world.connected({ start: 'now' });
  await clock.pass(60_000);
  assert.ok(made.names().includes('reconnecting no_ready'), made.names().join());
  server.faults.isHung = false;
  await clock.pass(60_000);
  assert.equal(made.tidings.status.status, 'connected');
});

test('where there is no WebSocket and no EventSource it says so to nobody and goes on', async () => {
  const world = createWorld();
  const { clock, server } = world;
  server.faults.holdsStreams = true;
  const made = await world.connected({ environment: { WebSocket: undefined, EventSource: undefined } });
  await clock.pass(6_000);
  assert.equal(made.tidings.status.transport, 'poll');
});

test('what EventSource gives up on for ever is opened again', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected({ transports: ['eventsource'] });
  server.faults.status = () => new Response('bad gateway', { status: 502 });
  server.cut();
  await clock.pass(60_000);
  assert.ok(made.names().includes('reconnecting server'), made.names().join());
  server.publish('note.new');
  server.faults.status = null;
  await clock.pass(30_000);
  assert.deepEqual(made.seqs(), [1]);
  assert.equal(made.tidings.status.transport, 'eventsource');
});

test('a socket told of a drain spreads itself; one told that it broke the protocol is left', async () => {
  const world = createWorld();
  const { clock, server } = world;
  clock.dice = 0.5;
  const made = await world.connected({ start: 'now', transports: ['websocket', 'poll'] });
  server.cut({ code: 4010, reason: 'drain' });
  await clock.settle();
  assert.deepEqual([made.tidings.status.retry_at - clock.now(), made.tidings.status.reason], [5_500, 'drain']);
  await clock.pass(5_500);
  assert.equal(made.tidings.status.transport, 'websocket');
  server.cut({ code: 4400, reason: '' });
  await clock.settle();
  assert.equal(made.tidings.status.transport, 'poll');
});

test('filters are asked for on every transport, and the place moves past what they hide', async () => {
  for (const transport of ['sse', 'eventsource', 'websocket', 'poll']) {
    const world = createWorld();
    const made = await world.connected({ transports: [transport], types: ['note.*', 'message.new'], topics: ['a', 'b'], start: 'now' });
    const { query } = world.openings().at(-1);
    assert.deepEqual([query.types, query.topics], ['note.*,message.new', 'a,b']);
    if (transport === 'poll') continue;
    world.server.say({ type: 'sys.ping', head: 'abcdef-9', cursor: 'abcdef-9' });
    await world.clock.settle();
    assert.equal(made.tidings.cursor, 'abcdef-9', transport);
  }
});

// Who the client is: tokens, their renewal, the cookie, tickets, and the ends that are final.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { problem } from './routes.js';
import { createWorld } from './world.js';

const ALL = ['sse', 'eventsource', 'websocket', 'poll'];

/** A token source that gives t1, t2, … and remembers why it was asked. */
function tokens(server) {
  const reasons = [];
  const source = async (reason) => {
    reasons.push(reason);
    server.tokens.set(`t${reasons.length}`, 'alice');
    return `t${reasons.length}`;
  };
  return { reasons, source };
}

for (const transport of ALL) {
  test(`${transport}: a token that ends soon is renewed on the open stream`, async () => {
    const world = createWorld();
    const { clock, server } = world;
    const { reasons, source } = tokens(server);
    const made = await world.connected({ transports: [transport], token: source, start: 'now' });
    if (transport === 'poll') return assert.deepEqual(reasons, ['start']);
    server.say({ type: 'sys.auth', expires_in: 60 });
    await clock.settle();
    assert.deepEqual(reasons, ['start', 'expiring']);
    assert.deepEqual(server.refreshed.map(({ token }) => token), ['t2']);
    if (transport !== 'websocket') assert.equal(server.refreshed[0].conn, [...server.readers][0].conn);
    assert.deepEqual(made.names(), ['connecting start', 'connected ready']);
  });

  test(`${transport}: a token that the server refuses is renewed once, and nothing is lost`, async () => {
    const world = createWorld();
    const { clock, server } = world;
    const { reasons, source } = tokens(server);
    const made = await world.connected({ transports: [transport], token: source, start: 'now' });
    server.tokens.delete('t1');
    server.say({ type: 'sys.bye', reason: 'token_expired' });
    server.cut({ code: 4001, reason: 'token_expired' });
    server.publish('note.new');
    await clock.pass(30_000);
    assert.deepEqual(reasons, ['start', 'refused']);
    assert.equal(made.tidings.status.status, 'connected');
    assert.deepEqual(made.seqs(), [1]);
  });

  test(`${transport}: without another token it stops, and says why`, async () => {
    const world = createWorld();
    const { clock, server } = world;
    server.tokens.clear();
    const made = await world.connected({ transports: [transport], start: 'now' });
    await clock.pass(60_000);
    assert.deepEqual([made.tidings.status.status, made.tidings.status.reason], ['stopped', 'unauthorized']);
    await assert.rejects(made.tidings.ready(), { code: 'unauthorized' });
    assert.equal(clock.pending(), 0);
    server.tokens.set('t1', 'alice');
    made.tidings.connect();
    await clock.settle();
    assert.equal(made.tidings.status.status, 'connected', 'connect() tries again');
  });

  test(`${transport}: a revoked user stops for good`, async () => {
    const world = createWorld();
    const { clock, server } = world;
    const { reasons, source } = tokens(server);
    const made = await world.connected({ transports: [transport], token: source, start: 'now' });
    server.revoked.add('alice');
    server.say({ type: 'sys.bye', reason: 'revoked' });
    server.cut({ code: 4001, reason: 'revoked' });
    await clock.pass(60_000);
    assert.deepEqual([made.tidings.status.status, made.tidings.status.reason], ['stopped', 'revoked']);
    assert.deepEqual(reasons, ['start']);
    const asked = server.requests.length;
    await clock.pass(600_000);
    made.tab.fire('online');
    await clock.settle();
    assert.equal(server.requests.length, asked, 'nothing is asked any more');
  });
}

test('a token source that fails is asked again later; one that gives null is not', async () => {
  const world = createWorld();
  const { clock } = world;
  let fails = 2;
  const made = await world.connected({ token: async () => (fails-- > 0 ? Promise.reject(new Error('offline')) : 't1'), tabs: true });
  await clock.pass(20_000);
  assert.equal(made.tidings.status.status, 'connected');
  const none = await world.connected({ token: () => null });
  await clock.settle();
  assert.equal(none.tidings.status.reason, 'unauthorized');
});

test('a source whose tokens are all refused is asked once more, not for ever', async () => {
  const world = createWorld();
  let asked = 0;
  const made = await world.connected({ token: () => `bad${(asked += 1)}`, start: 'now' });
  await world.clock.pass(60_000);
  assert.deepEqual([made.tidings.status.reason, asked], ['unauthorized', 2]);
});

test('a token is asked for once, however many ask at a time', async () => {
  const world = createWorld();
  const { reasons, source } = tokens(world.server);
  const made = world.client({ token: source, start: 'now' });
  made.tidings.connect();
  await Promise.all([made.tidings.state(), made.tidings.state(), made.tidings.state()]);
  assert.deepEqual(reasons, ['start']);
});

test('403 and a wrong request stop the client, 404 and 500 do not', async () => {
  for (const [status, reason] of [[403, 'forbidden'], [400, 'refused'], [422, 'refused']]) {
    const world = createWorld();
    world.server.faults.status = () => problem(status, 'no');
    const made = await world.connected({ start: 'now' });
    assert.deepEqual([made.tidings.status.status, made.tidings.status.reason], ['stopped', reason]);
  }
  for (const status of [404, 500, 502, 504]) {
    const world = createWorld();
    world.server.faults.status = () => problem(status, 'no');
    const made = await world.connected({ start: 'now' });
    assert.equal(made.tidings.status.status, 'reconnecting');
  }
});

test('a cursor that is none is a gap, not the end', async () => {
  const world = createWorld();
  world.server.extra.set('GET /v1/events', ({ query }) => (query.cursor === 'abcdef-9'
    ? problem(400, 'invalid_cursor')
    : new Response(JSON.stringify({ events: [], ephemeral: [], cursor: 'abcdef-0', head: 'abcdef-0', more: false, reset: null, poll_after_ms: 1000 }))));
  const made = await world.connected({ transports: ['poll'], start: 'abcdef-9' });
  await world.clock.pass(1_100);
  assert.deepEqual(made.heard.states.map(({ reason }) => reason), ['gap']);
});

test('the cookie: the session is made from the token, streams and writes use it, and the token stays out of them', async () => {
  for (const transport of ALL) {
    const world = createWorld();
    const { server, clock } = world;
    const made = await world.connected({ cookie: true, transports: [transport] });
    assert.equal(made.tidings.status.status, 'connected', transport);
    const made_session = server.requests.filter(({ path }) => path === '/v1/session');
    assert.equal(made_session.length, 1, 'one session');
    made.tidings.send('c1', 'hi');
    await clock.settle();
    const others = server.requests.filter(({ path }) => path !== '/v1/session');
    assert.ok(others.every(({ headers, credentials, protocols }) => headers.Authorization === undefined && credentials !== 'omit' && !protocols?.some((name) => name.startsWith('bearer'))));
    assert.ok(others.filter(({ method }) => method === 'EventSource').every(({ withCredentials }) => withCredentials === true));
  }
});

test('tickets: an EventSource across sites gets one from the token; a page without a token reads with those it is given', async () => {
  const world = createWorld();
  const made = await world.connected({ transports: ['eventsource'] });
  assert.equal(made.tidings.status.status, 'connected');
  assert.match(world.openings().at(-1).query.ticket, /^ticket/);

  for (const transport of ALL) {
    const { server, connected, clock } = createWorld();
    server.tickets.set('given', 'alice');
    const reading = await connected({ token: undefined, ticket: () => 'given', transports: [transport], start: 'now' });
    server.publish('note.new');
    await clock.settle();
    assert.deepEqual(reading.seqs(), [1], transport);
    assert.ok(server.requests.every(({ path }) => path !== '/v1/state' && path !== '/v1/tickets'));
  }
});

test('with tickets alone the state comes in the stream', async () => {
  const world = createWorld();
  const { server, clock } = world;
  server.tickets.set('given', 'alice');
  const made = await world.connected({ token: undefined, ticket: () => 'given' });
  assert.equal(world.openings().at(-1).query.snapshot, '1');
  server.say({ type: 'sys.snapshot', v: 1, user: 'alice', cursor: 'abcdef-0', badge: server.state.badge, conversations: [] });
  server.publish('note.new');
  server.say({ type: 'sys.reset', reason: 'trimmed', requested: 'abcdef-1', earliest: 5, head: 'abcdef-7', cursor: 'abcdef-7' });
  server.say({ type: 'sys.snapshot', v: 1, user: 'alice', cursor: 'abcdef-8', badge: server.state.badge, conversations: [] });
  await clock.settle();
  assert.deepEqual(made.heard.states.map(({ reason, state }) => [reason, state.cursor]), [['start', 'abcdef-0'], ['gap', 'abcdef-8']]);
  assert.equal(made.tidings.cursor, 'abcdef-8');
});

test('debugging tells what happens and never a token', async () => {
  const world = createWorld();
  const { server, clock } = world;
  const { source } = tokens(server);
  const made = await world.connected({ debug: true, token: source, transports: ['websocket', 'sse'] });
  server.say({ type: 'sys.auth', expires_in: 60 });
  server.cut({ code: 4001 });
  await clock.pass(60_000);
  const told = JSON.stringify(made.tab.page.console);
  assert.match(told, /status.*connected/);
  assert.doesNotMatch(told, /"t\d+"|Bearer|bearer/);
  const quiet = await world.connected();
  assert.deepEqual(quiet.tab.page.console, []);
  quiet.tidings.debug(true);
  quiet.tidings.disconnect();
  assert.ok(quiet.tab.page.console.length > 0);
});

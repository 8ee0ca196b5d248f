// What goes out: commands by HTTP or socket, kept while offline, in order, and stored once whatever gets lost.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { problem } from './routes.js';
import { createWorld } from './world.js';

const contents = (server) => server.messages.map(({ content }) => content);

for (const transport of ['sse', 'websocket', 'poll']) {
  test(`${transport}: a message is shown at once, confirmed later, and comes back as an event with its client id`, async () => {
    const world = createWorld();
    const { clock, server } = world;
    const made = await world.connected({ transports: [transport], tabs: false });
    const told = [];
    made.tidings.on('sys.outgoing', ({ data }) => told.push(data.status));
    const { client_id, message, done } = made.tidings.send('c1', 'hello');
    assert.deepEqual([message.status, message.id, message.sender, message.content, message.conversation_id], ['queued', null, 'alice', 'hello', 'c1']);
    assert.equal(made.tidings.queued.length, 1);
    await clock.settle();
    const stored = await done;
    assert.deepEqual([stored.id, stored.n, stored.client_id], ['m1', 1, client_id]);
    assert.deepEqual(told, ['queued', 'sent']);
    assert.equal(made.heard.events.find(({ type }) => type === 'message.new').data.client_id, client_id);
    assert.equal(made.tidings.queued.length, 0);
    const isOp = server.requests.some(({ method, path }) => method === 'op' && path === 'send');
    assert.equal(isOp, transport === 'websocket');
  });
}

test('an answer that gets lost after the server stored the message: it is sent again and stored once', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected();
  server.faults.losesAnswers = 3;
  const sent = made.tidings.send('c1', 'once');
  const next = made.tidings.send('c1', 'twice');
  await clock.pass(60_000);
  assert.equal((await sent.done).n, 1);
  assert.equal((await next.done).n, 2);
  assert.deepEqual(contents(server), ['once', 'twice']);
  assert.equal(server.requests.filter(({ method, path }) => method === 'POST' && path.endsWith('/messages')).length, 5);
});

test('a socket that dies with a message under way: it is sent again by whatever comes next, and stored once', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const { store } = await import('./routes.js');
  const made = await world.connected({ transports: ['websocket', 'poll'] });
  server.extra.set('op send', (command, _, socket) => {
    server.extra.delete('op send');
    store(server, 'alice', command.conversation, command);
    socket.ended(1006, '');
    server.faults.blocksSockets = true;
  });
  const { done } = made.tidings.send('c1', 'once');
  await clock.pass(10_000);
  assert.equal((await done).n, 1);
  assert.deepEqual(contents(server), ['once']);
  assert.equal(made.tidings.status.transport, 'poll');
});

test('written offline: sent in order when the network is back', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected();
  server.faults.isDown = true;
  made.tab.page.isOnline = false;
  made.tab.fire('offline');
  const sent = ['a', 'b', 'c', 'd'].map((content) => made.tidings.send('c1', content));
  await clock.pass(300_000);
  assert.equal(made.tidings.queued.length, 4);
  server.faults.isDown = false;
  made.tab.page.isOnline = true;
  made.tab.fire('online');
  await clock.pass(1_000);
  assert.deepEqual(contents(server), ['a', 'b', 'c', 'd']);
  assert.deepEqual((await Promise.all(sent.map(({ done }) => done))).map(({ n }) => n), [1, 2, 3, 4]);
});

test('with persist, what was written before a reload is sent after it, once', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const before = await world.connected({ persist: true });
  server.publish('note.new');
  await clock.pass(300);
  server.faults.losesAnswers = 1;
  before.tidings.send('c1', 'stored, but nobody knows');
  before.tidings.send('c1', 'not sent');
  await clock.settle();
  // The page goes without a word.
  before.tab.page.isCrashed = true;
  server.cut();
  server.publish('note.new');
  const reloaded = world.browser.tab();
  reloaded.environment.storage = before.tab.environment.storage;
  const after = await world.connected({ persist: true }, reloaded);
  await clock.pass(10_000);
  assert.deepEqual(contents(server), ['stored, but nobody knows', 'not sent']);
  assert.equal(after.heard.states.length, 0, 'it goes on from the stored cursor');
  assert.deepEqual(after.heard.events.map(({ type }) => type), ['message.new', 'note.new', 'message.new'].slice(-after.heard.events.length));
  assert.deepEqual(after.tidings.queued, []);
  assert.equal(reloaded.environment.storage.keys().some((key) => key.startsWith('tidings.outbox')), false);
});

test('what the server refuses is told and does not hold up what follows', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected();
  server.extra.set('POST /v1/conversations/gone/messages', () => problem(404, 'not_found'));
  const failures = [];
  made.tidings.on('sys.outgoing', ({ data }) => data.status === 'failed' && failures.push([data.op, data.error.code, data.message.status]));
  const refused = made.tidings.send('gone', 'a');
  made.tidings.send('c1', 'b');
  await clock.settle();
  await assert.rejects(refused.done, { name: 'TidingsError', status: 404, code: 'not_found' });
  assert.deepEqual(failures, [['send', 'not_found', 'failed']]);
  assert.deepEqual(contents(server), ['b']);
});

test('too many requests: as long as Retry-After says, not shorter', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected();
  server.extra.set('POST /v1/conversations/c1/messages', () => {
    server.extra.clear();
    return problem(429, 'rate_limited', { 'retry-after': '7' });
  });
  made.tidings.send('c1', 'a');
  await clock.pass(6_999);
  assert.deepEqual(contents(server), []);
  await clock.pass(1);
  assert.deepEqual(contents(server), ['a']);
});

test('an op that the server does not know goes by HTTP; a message with data too', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected({ transports: ['websocket'] });
  server.extra.set('op send', (_, reply) => reply({ type: 'sys.error', code: 'unknown_op', message: '' }));
  made.tidings.send('c1', 'a');
  made.tidings.send('c1', 'b', { data: { x: 1 } });
  await clock.settle();
  assert.deepEqual(contents(server), ['a', 'b']);
  assert.deepEqual(server.messages[1].data, { x: 1 });
});

test('a socket\'s refusal is final or passing by its code', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected({ transports: ['websocket'] });
  for (const code of ['rate_limited', 'store_failed', 'disk_full', 'draining', 'internal_error', 'unauthorized']) {
    server.extra.set('op send', (_, reply) => {
      server.extra.clear();
      reply({ type: 'sys.error', code, message: '' });
    });
    made.tidings.send('c1', code);
    await clock.pass(10_000);
    assert.equal(contents(server).at(-1), code);
  }
  server.extra.set('op send', (_, reply) => reply({ type: 'sys.error', code: 'forbidden', message: '' }));
  const refused = made.tidings.send('c1', 'no');
  await clock.settle();
  await assert.rejects(refused.done, { code: 'forbidden' });
});

test('the queue has a bound', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected();
  server.faults.isDown = true;
  for (let n = 0; n < 500; n += 1) made.tidings.send('c1', 'x');
  await assert.rejects(made.tidings.send('c1', 'one too many').done, { code: 'queue_full' });
  await clock.settle();
});

test('read marks, presence and subscriptions: the newest wins while they wait, each has its HTTP form', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected();
  server.faults.isDown = true;
  const done = [
    made.tidings.subscribe('feed:a b'), made.tidings.unsubscribe('feed:x'),
    made.tidings.read('c/1', 3), made.tidings.read('c/1', 9), made.tidings.read('c/1', 5), made.tidings.read('c2', 1),
    made.tidings.read('c2', { message_ids: ['m1'] }),
    made.tidings.presence('away'), made.tidings.presence('busy', 'responding'),
  ];
  await clock.settle();
  server.requests.length = 0;
  server.faults.isDown = false;
  await clock.pass(5_000);
  await Promise.all(done);
  const forms = server.requests.filter(({ method }) => method === 'PUT' || method === 'DELETE' || method === 'POST').map(({ method, path, body }) => [method, path, body]);
  assert.deepEqual(forms, [
    ['PUT', '/v1/topics/feed%3Aa%20b/subscribers/alice', undefined],
    ['DELETE', '/v1/topics/feed%3Ax/subscribers/alice', undefined],
    ['POST', '/v1/conversations/c%2F1/read', { upto: 9 }],
    ['POST', '/v1/conversations/c2/read', { upto: 1 }],
    ['POST', '/v1/conversations/c2/read', { message_ids: ['m1'] }],
    ['PUT', '/v1/presence', { status: 'busy', activity: 'responding' }],
  ]);
});

test('typing: a start at most every two seconds, a stop only after a start, nothing while not connected', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected();
  const sent = () => server.requests.filter(({ path }) => path.endsWith('/typing')).map(({ body }) => body.state).join(' ');
  made.tidings.typing('c1', 'stop');
  for (let n = 0; n < 30; n += 1) {
    made.tidings.typing('c1');
    await clock.pass(100);
  }
  assert.equal(sent(), 'start start');
  made.tidings.typing('c1', 'stop');
  made.tidings.typing('c1', 'stop');
  await clock.settle();
  assert.equal(sent(), 'start start stop');
  server.faults.isDown = true;
  server.cut();
  await clock.settle();
  const asked = server.requests.length;
  made.tidings.typing('c1');
  made.tidings.signal('c1', 'pointer', {});
  assert.equal(server.requests.length, asked);
});

test('signals: at most twenty a second of a kind, and the last one always arrives', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected();
  for (let n = 0; n < 100; n += 1) {
    made.tidings.signal('c1', 'pointer', { n });
    await clock.pass(10);
  }
  await clock.pass(200);
  const sent = server.requests.filter(({ path }) => path.endsWith('/signals')).map(({ body }) => body);
  assert.ok(sent.length >= 18 && sent.length <= 22, `${sent.length} sent in a second`);
  assert.deepEqual(sent.at(-1), { kind: 'pointer', data: { n: 99 } });
});

test('what arrived is acked, the first at once, then gathered, for messages of others only, and not by who polls', async () => {
  for (const transport of ['sse', 'websocket', 'poll']) {
    const world = createWorld();
    const { clock, server } = world;
    const made = await world.connected({ transports: [transport], device: 'phone' });
    for (let n = 0; n < 5; n += 1) server.publish('message.new', { sender: 'bob', conversation_id: 'c1', n: n + 1 });
    server.publish('message.new', { sender: 'alice', conversation_id: 'c1', n: 6 });
    await clock.pass(600);
    const acked = server.acks.map(({ cursor, device }) => [cursor, device]);
    assert.deepEqual(acked, transport === 'poll' ? [] : [['abcdef-1', 'phone'], ['abcdef-6', 'phone']], transport);
    server.publish('message.new', { sender: 'alice', conversation_id: 'c1', n: 7 });
    server.publish('note.new');
    await clock.pass(600);
    assert.equal(server.acks.length, acked.length);
    made.tidings.disconnect();
  }
});

test('a request is refused with the server\'s code, and ends when no answer comes', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const made = await world.connected();
  server.extra.set('GET /v1/preferences', () => problem(429, 'rate_limited', { 'retry-after': '3' }));
  await assert.rejects(made.tidings.request('GET', '/v1/preferences'), { status: 429, code: 'rate_limited', retry_after_ms: 3_000 });
  server.faults.isHung = true;
  const late = assert.rejects(made.tidings.request('GET', '/v1/presence?users=bob'), { status: 0, code: 'timeout' });
  await clock.pass(15_000);
  await late;
  server.faults.isHung = false;
  server.faults.isDown = true;
  await assert.rejects(made.tidings.request('PATCH', '/v1/preferences', { sound: true }), { status: 0, code: 'network' });
});

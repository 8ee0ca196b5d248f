// The stores that pages show: conversations in order without holes or doubles, ticks that never go back, typing that ends.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { badgeView, conversationView, presenceView, stateView, typingView } from '../../static/views.js';
import { createWorld } from './world.js';

function write(server, count, sender = 'bob', conversation_id = 'c1') {
  for (let at = 0; at < count; at += 1) {
    const n = server.messages.filter((message) => message.conversation_id === conversation_id).length + 1;
    const message = { id: `${conversation_id}-${n}`, conversation_id, n, sender, content: `text ${n}`, time: '2026-11-21T12:00:00.000Z', client_id: null, status: 'sent' };
    server.messages.push(message);
    server.publish('message.new', message, { topic: `conversation:${conversation_id}`, actor: { id: sender } });
  }
}
const numbers = (view) => view.get().messages.map(({ n }) => n);
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => from + at);

test('a conversation: the newest page, older ones on demand, new ones as they come', async () => {
  const world = createWorld();
  const { clock, server } = world;
  write(server, 120);
  const { tidings } = await world.connected();
  const view = conversationView(tidings, 'c1', { limit: 50 });
  assert.equal(view.get().is_loading, true);
  await clock.settle();
  assert.deepEqual(numbers(view), range(71, 120));
  assert.equal(view.get().has_older, true);
  write(server, 2);
  write(server, 1, 'bob', 'other');
  await Promise.all([view.older(), view.older()]);
  await clock.settle();
  assert.deepEqual(numbers(view), range(21, 122));
  await view.older();
  assert.deepEqual(numbers(view), range(1, 122));
  assert.equal(view.get().has_older, false);
});

test('a conversation: what arrives while the first page is on its way is neither lost nor doubled', async () => {
  const world = createWorld();
  const { clock, server } = world;
  write(server, 60);
  const { tidings } = await world.connected();
  const view = conversationView(tidings, 'c1', { limit: 5 });
  write(server, 2);
  await clock.settle();
  assert.deepEqual(numbers(view), [58, 59, 60, 61, 62]);
  assert.equal(view.get().has_older, true);
});

test('a conversation: a hole between what is shown and what arrives is filled', async () => {
  const world = createWorld();
  const { clock, server } = world;
  write(server, 3);
  const { tidings } = await world.connected({ types: ['message.new'] });
  const view = conversationView(tidings, 'c1');
  await clock.settle();
  const { readers } = server;
  server.readers = new Set();
  write(server, 2);
  server.readers = readers;
  write(server, 1);
  await clock.settle();
  assert.deepEqual(numbers(view), [1, 2, 3, 4, 5, 6]);
});

test('a conversation: after a gap it is loaded anew, and what no longer joins on is let go', async () => {
  const world = createWorld();
  const { clock, server } = world;
  write(server, 10);
  const { tidings } = await world.connected();
  const view = conversationView(tidings, 'c1', { limit: 5 });
  await clock.settle();
  assert.deepEqual(numbers(view), range(6, 10));
  server.cut();
  write(server, 20);
  server.trim(31);
  await clock.pass(5_000);
  assert.deepEqual(numbers(view), range(26, 30));
  assert.equal(view.get().has_older, true);
});

test('a conversation: own messages are shown at once, confirmed in place, and marked when refused', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const { tidings } = await world.connected();
  const view = conversationView(tidings, 'c1');
  await clock.settle();
  view.send('a');
  view.send('b');
  assert.deepEqual(view.get().messages.map(({ content, status }) => `${content} ${status}`), ['a queued', 'b queued']);
  await clock.settle();
  assert.deepEqual(view.get().messages.map(({ content, status, n }) => `${content} ${status} ${n}`), ['a sent 1', 'b sent 2']);
  const { problem } = await import('./routes.js');
  server.extra.set('POST /v1/conversations/c1/messages', () => problem(403, 'forbidden'));
  view.send('c');
  await clock.settle();
  assert.deepEqual(view.get().messages.map(({ content, status }) => `${content} ${status}`), ['a sent', 'b sent', 'c failed']);
});

test('a conversation: ticks go forward only, whatever order they come in', async () => {
  const world = createWorld();
  const { clock, server } = world;
  write(server, 3, 'alice');
  write(server, 1, 'bob');
  write(server, 1, 'alice');
  server.messages.at(-1).status = 'read';
  const { tidings } = await world.connected();
  const view = conversationView(tidings, 'c1');
  await clock.settle();
  const ticks = () => view.get().messages.map(({ status }) => status).join(' ');
  const tell = async (type, upto) => {
    server.publish(type, { conversation_id: 'c1', upto, by: 'bob' });
    await clock.settle();
    return ticks();
  };
  assert.equal(await tell('message.delivered', 2), 'delivered delivered sent sent read');
  assert.equal(await tell('message.read', 1), 'read delivered sent sent read');
  assert.equal(await tell('message.delivered', 1), 'read delivered sent sent read');
  assert.equal(await tell('message.read', 3), 'read read read sent read');
  assert.equal(await tell('message.delivered', 5), 'read read read sent read');
  server.publish('message.read', { conversation_id: 'c2', upto: 9, by: 'bob' });
  server.publish('message.deleted', { conversation_id: 'c1', id: 'c1-2' });
  await clock.settle();
  assert.deepEqual(view.get().messages.map(({ content, deleted }) => [content, deleted === true]), [['text 1', false], ['', true], ['text 3', false], ['text 4', false], ['text 5', false]]);
});

test('a conversation: in a group the ticks and counts are those of the server, asked for after a receipt', async () => {
  const world = createWorld();
  const { clock, server } = world;
  write(server, 2, 'alice');
  const count = (n, status, delivered_to, read_by) => Object.assign(server.messages[n - 1], { status, delivered_to, read_by });
  count(1, 'delivered', 3, 1);
  count(2, 'sent', 1, 0);
  const { tidings } = await world.connected();
  const view = conversationView(tidings, 'c1');
  await clock.settle();
  const shown = () => view.get().messages.map(({ status, delivered_to, read_by }) => `${status} ${delivered_to} ${read_by}`).join(', ');
  server.requests.length = 0;
  count(1, 'delivered', 3, 2);
  for (const by of ['bob', 'carol']) server.publish('message.read', { conversation_id: 'c1', upto: 2, by });
  server.signal('message.delivered', { conversation_id: 'c1', upto: 2, delivered_to: 3, read_by: 0 });
  await clock.settle();
  assert.equal(shown(), 'delivered 3 1, sent 1 0', 'one reader is not everyone');
  await clock.pass(1_000);
  assert.equal(shown(), 'delivered 3 2, sent 1 0');
  assert.equal(server.requests.length, 1);
});

test('a conversation: a page that could not be loaded is loaded when connected again; read marks all that is shown', async () => {
  const world = createWorld();
  const { clock, server } = world;
  write(server, 3);
  const { tidings } = await world.connected();
  server.faults.isDown = true;
  server.cut();
  const view = conversationView(tidings, 'c1');
  await clock.settle();
  assert.equal(view.get().error.code, 'network');
  server.faults.isDown = false;
  await clock.pass(5_000);
  assert.deepEqual([numbers(view), view.get().error], [[1, 2, 3], null]);
  view.read();
  await clock.settle();
  assert.deepEqual(server.requests.filter(({ path }) => path === '/v1/conversations/c1/read').map(({ body }) => body), [{ upto: 3 }]);
});

test('a conversation: the same value until something changed, and silence after close', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const { tidings } = await world.connected();
  const view = conversationView(tidings, 'c1');
  await clock.settle();
  let changes = 0;
  view.subscribe(() => (changes += 1));
  const value = view.get();
  server.publish('note.new');
  await clock.settle();
  assert.equal(view.get(), value);
  assert.equal(changes, 0);
  view.close();
  write(server, 1);
  await clock.settle();
  assert.equal(changes, 0);
});

test('typing: others only, each once, over by stop, by a message, or by itself', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const { tidings } = await world.connected();
  const view = typingView(tidings, 'c1');
  const type = async (state, user, topic = 'conversation:c1') => {
    server.signal(`typing.${state}`, { conversation_id: topic.slice(13) }, { topic, actor: { id: user }, ttl_ms: 5_000 });
    await clock.settle();
    return view.get().join(' ');
  };
  assert.equal(await type('start', 'alice'), '');
  assert.equal(await type('start', 'bob'), 'bob');
  assert.equal(await type('start', 'bob'), 'bob');
  assert.equal(await type('start', 'eve', 'conversation:c2'), 'bob');
  assert.equal(await type('start', 'carol'), 'bob carol');
  assert.equal(await type('stop', 'bob'), 'carol');
  write(server, 1, 'carol');
  await clock.settle();
  assert.deepEqual(view.get(), []);
  await type('start', 'bob');
  await clock.pass(4_999);
  assert.deepEqual(view.get(), ['bob']);
  await clock.pass(1);
  assert.deepEqual(view.get(), []);
});

test('presence, badge and state: what the state said, then what is told', async () => {
  const world = createWorld();
  const { clock, server } = world;
  server.state.presence = { bob: { status: 'online', activity: null, last_seen: null } };
  server.state.badge = { notifications: 1, messages: 2, conversations: 1 };
  const made = world.client();
  const [presence, badge, state] = [presenceView(made.tidings), badgeView(made.tidings), stateView(made.tidings)];
  made.tidings.connect();
  await clock.settle();
  assert.deepEqual(presence.get(), { bob: { user: 'bob', status: 'online', activity: null, last_seen: null } });
  assert.deepEqual(badge.get(), { notifications: 1, messages: 2, conversations: 1 });
  assert.equal(state.get().cursor, 'abcdef-0');
  server.signal('presence.changed', { user: 'carol', status: 'away' });
  server.signal('badge', { notifications: 0, messages: 2, conversations: 1 });
  await clock.settle();
  assert.equal(presence.get().carol.status, 'away');
  assert.equal(badge.get().notifications, 0);
});

test('handlers: by type, by family, for all; one that throws stops nobody', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const { tidings, tab } = await world.connected();
  const heard = [];
  for (const pattern of ['a.b.c', 'a.b.*', 'a.*', '*', 'a', 'b.*']) tidings.on(pattern, ({ type }) => heard.push(`${pattern} ${type}`));
  tidings.on('a.*', () => {
    throw new Error('mine');
  });
  const off = tidings.on('a.*', () => heard.push('last'));
  server.publish('a.b.c');
  await clock.settle();
  assert.deepEqual(heard, ['a.b.c a.b.c', 'a.* a.b.c', 'last', 'a.b.* a.b.c', '* a.b.c']);
  assert.match(JSON.stringify(tab.page.console), /a handler of a\.\* failed/);
  off();
  server.publish('ab.c');
  server.publish('a.x');
  await clock.settle();
  assert.deepEqual(heard.slice(5), ['* ab.c', 'a.* a.x', '* a.x']);
});

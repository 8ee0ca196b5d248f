// Many tabs, one connection: who leads, what the others hear, and that no change of the lead loses or repeats anything.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAlerts } from '../../static/alerts.js';
import { isTabMessage } from '../../static/tabs.js';
import { count, createWorld } from './world.js';

const shared = { tabs: true, start: 'now' };
const roles = (tabs) => tabs.map(({ tidings }) => tidings.status.role);

async function open(world, number, options = {}) {
  const tabs = [];
  for (let n = 0; n < number; n += 1) tabs.push(await world.connected({ ...shared, ...options }));
  return tabs;
}

test('of five tabs one connects, all hear the same, in the same order', async () => {
  const world = createWorld();
  const tabs = await open(world, 5);
  assert.deepEqual(roles(tabs), ['leader', 'follower', 'follower', 'follower', 'follower']);
  assert.equal(world.server.readers.size, 1);
  for (let n = 0; n < 50; n += 1) world.server.publish('note.new');
  world.server.signal('typing.start', { user: 'bob' }, { topic: 'conversation:c1' });
  await world.clock.settle();
  for (const tab of tabs) {
    assert.deepEqual(tab.seqs(), Array.from({ length: 50 }, (_, at) => at + 1));
    assert.equal(count(tab.heard.live.map(({ type }) => type), 'typing.start'), 1);
    assert.deepEqual([tab.tidings.status.status, tab.tidings.status.transport, tab.tidings.cursor], ['connected', 'sse', 'abcdef-50']);
  }
});

for (const how of ['disconnect', 'pagehide', 'crash']) {
  test(`the lead goes by ${how}: another tab takes over at once, and no tab loses or repeats anything`, async () => {
    const world = createWorld();
    const { clock, server } = world;
    const tabs = await open(world, 4);
    for (let lead = 0; lead < 3; lead += 1) {
      server.publish('note.new');
      await clock.settle();
      server.publish('note.new');
      // Not even what the leading tab has heard and had no time to share.
      if (how === 'crash') tabs[lead].tab.crash();
      else if (how === 'disconnect') tabs[lead].tidings.disconnect();
      else tabs[lead].tab.fire('pagehide', { persisted: true });
      server.publish('note.new');
      await clock.pass(5_000);
      assert.equal(tabs[lead + 1].tidings.status.role, 'leader');
      assert.equal(server.readers.size, 1);
    }
    assert.deepEqual(tabs[3].seqs(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    if (how !== 'pagehide') return;
    tabs[0].tab.fire('pageshow', { persisted: true });
    await clock.settle();
    assert.deepEqual([tabs[0].tidings.status.role, tabs[0].tidings.status.status], ['follower', 'connected']);
    assert.deepEqual(tabs[0].seqs(), [1, 2, 3, 4, 5, 6, 7, 8, 9], 'a page that comes back is told what it missed');
  });
}

test('a tab that comes later loads its own state and hears what follows; who is there it learns from the leading tab', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const [first] = await open(world, 1, { start: 'state' });
  server.signal('presence.changed', { user: 'bob', status: 'online' });
  server.signal('presence.changed', { user: 'bob', status: 'away' });
  server.signal('badge', { notifications: 2, messages: 0, conversations: 0 });
  server.signal('typing.start', {}, { topic: 'conversation:c1', actor: { id: 'bob' }, ttl_ms: 5_000 });
  server.signal('typing.start', {}, { topic: 'conversation:c2', actor: { id: 'bob' }, ttl_ms: 5_000 });
  server.signal('typing.stop', {}, { topic: 'conversation:c2', actor: { id: 'bob' } });
  server.publish('note.new');
  await clock.pass(1_000);
  const [second] = await open(world, 1, { start: 'state' });
  server.publish('note.new');
  await clock.pass(10_000);
  const [third] = await open(world, 1, { start: 'state' });
  assert.deepEqual(second.heard.states.map(({ state }) => state.cursor), ['abcdef-1']);
  assert.deepEqual([first.seqs(), second.seqs(), third.seqs()], [[1, 2], [2], []]);
  const told = ({ heard }) => heard.live.filter(({ type, data }) => type !== 'badge' || data.notifications > 0).map(({ type, data }) => `${type} ${data.status ?? ''}`);
  assert.deepEqual(told(second), ['presence.changed away', 'badge ', 'typing.start ']);
  assert.deepEqual(told(third), ['presence.changed away', 'badge '], 'typing is over by then');
});

test('a tab with an older place is told what it missed before it joins', async () => {
  const world = createWorld();
  const { clock, server } = world;
  for (let n = 0; n < 1200; n += 1) server.publish('note.new');
  await open(world, 1);
  const [late] = await open(world, 1, { start: 'abcdef-3' });
  server.publish('note.new');
  await clock.settle();
  assert.deepEqual(late.seqs(), Array.from({ length: 1198 }, (_, at) => at + 4));
  assert.equal(server.requests.filter(({ query }) => query.format === 'json').length, 3, 'in pages');
});

test('a broadcast that got lost is found and filled from the server', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const [, follower] = await open(world, 2);
  server.publish('note.new');
  await clock.settle();
  const [broadcast] = [...world.browser.broadcasts.values()].map((each) => [...each][1]);
  const { onmessage } = broadcast;
  broadcast.onmessage = () => {};
  server.publish('note.new');
  server.publish('note.new');
  await clock.settle();
  broadcast.onmessage = onmessage;
  assert.deepEqual(follower.seqs(), [1]);
  server.publish('note.new');
  await clock.settle();
  assert.deepEqual(follower.seqs(), [1, 2, 3, 4]);
});

test('a gap is every tab\'s: all are told the same state before what follows', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const tabs = await open(world, 3);
  server.cut();
  for (let n = 0; n < 5; n += 1) server.publish('note.new');
  server.trim(6);
  server.requests.length = 0;
  await clock.pass(10_000);
  assert.equal(count(server.requests.map(({ path }) => path), '/v1/state'), 1, 'one asks for all');
  server.publish('note.new');
  await clock.settle();
  for (const tab of tabs) {
    assert.deepEqual(tab.heard.states.map(({ reason, state }) => [reason, state.cursor]), [['gap', 'abcdef-5']]);
    assert.deepEqual(tab.seqs(), [6]);
  }
});

test('commands of every tab go through the leading one, and survive its end', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const tabs = await open(world, 3, { transports: ['websocket'] });
  const { done } = tabs[1].tidings.send('c1', 'from a follower');
  await clock.settle();
  assert.equal((await done).n, 1);
  assert.equal(count(server.requests.map(({ method }) => method), 'op'), 1);
  server.extra.set('op send', () => tabs[0].tab.crash());
  const second = tabs[2].tidings.send('c1', 'while the lead dies');
  await clock.settle();
  server.extra.clear();
  await clock.pass(30_000);
  assert.equal((await second.done).n, 2);
  assert.deepEqual(server.messages.map(({ content }) => content), ['from a follower', 'while the lead dies']);
});

test('what the server refuses a follower is refused with the same error', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const tabs = await open(world, 2);
  const { problem } = await import('./routes.js');
  server.extra.set('POST /v1/conversations/no/messages', () => problem(404, 'not_found'));
  const { done } = tabs[1].tidings.send('no', 'x');
  await clock.settle();
  await assert.rejects(done, { name: 'TidingsError', status: 404, code: 'not_found' });
});

test('a leading tab that hangs is replaced by one that is looked at', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const tabs = await open(world, 3);
  tabs[1].tab.page.isVisible = false;
  tabs[0].tab.hang();
  server.cut();
  server.publish('note.new');
  await clock.pass(90_000);
  assert.deepEqual([tabs[1].tidings.status.role, tabs[2].tidings.status.role], ['follower', 'leader']);
  assert.deepEqual([tabs[1].seqs(), tabs[2].seqs()], [[1], [1]]);
});

test('a tab that is looked at hurries the leading one, whose timers may be slow', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const tabs = await open(world, 2);
  server.faults.isDown = true;
  server.cut();
  clock.dice = 0.9;
  await clock.pass(120_000);
  server.faults.isDown = false;
  tabs[1].tab.fire('visibilitychange');
  await clock.settle();
  assert.deepEqual(tabs.map(({ tidings }) => tidings.status.status), ['connected', 'connected']);
});

test('a leading tab that is only quiet keeps the lead', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const tabs = await open(world, 2);
  // Nothing comes from the server, and so nothing from the leading tab, for far longer than it is believed.
  server.ping_ms = 3_600_000;
  server.cut();
  await clock.pass(600_000);
  assert.deepEqual(roles(tabs), ['leader', 'follower']);
  assert.ok(tabs.every(({ names }) => !names().join().includes('takeover')));
});

test('a leading tab whose token is refused gives the lead away; when all are refused, all stop', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const [first] = await open(world, 1);
  server.tokens.set('good', 'alice');
  const [second] = await open(world, 1, { token: 'good', user: 'alice' });
  await clock.settle();
  // The fake's token says nothing of its user; here both tabs are told who it is.
  first.tidings.disconnect();
  const third = await world.connected({ ...shared, token: 't1', user: 'alice' });
  assert.equal(third.tidings.status.role, 'follower');
  server.tokens.delete('good');
  server.cut();
  await clock.pass(30_000);
  assert.deepEqual([second.tidings.status.reason, third.tidings.status.role, third.tidings.status.status], ['unauthorized', 'leader', 'connected']);
  server.tokens.clear();
  server.cut();
  await clock.pass(30_000);
  assert.equal(third.tidings.status.reason, 'unauthorized');
});

test('connected, disconnected and connected again in one breath, a tab joins once', async () => {
  const world = createWorld();
  const made = world.client({ ...shared, token: async () => 't1' });
  made.tidings.connect();
  made.tidings.disconnect();
  made.tidings.connect();
  made.tidings.disconnect();
  made.tidings.connect();
  await world.clock.settle();
  assert.deepEqual([made.tidings.status.role, made.tidings.status.status], ['leader', 'connected']);
  assert.deepEqual([...world.browser.broadcasts.values()].map(({ size }) => size), [1]);
  assert.equal(world.server.readers.size, 1);
});

test('tabs of different users, or with different filters, share nothing', async () => {
  const world = createWorld();
  world.server.tokens.set('b1', 'bob');
  const alice = await world.connected({ ...shared });
  const bob = await world.connected({ ...shared, token: 'b1' });
  const filtered = await world.connected({ ...shared, types: ['note.*'] });
  assert.deepEqual(roles([alice, bob, filtered]), ['leader', 'leader', 'leader']);
  assert.equal(world.browser.broadcasts.size, 3);
});

test('where there are no locks or no broadcasts each tab is on its own', async () => {
  for (const missing of ['locks', 'BroadcastChannel']) {
    const world = createWorld();
    const tabs = await open(world, 2, { environment: { [missing]: undefined } });
    assert.deepEqual(roles(tabs), ['alone', 'alone']);
    world.server.publish('note.new');
    await world.clock.settle();
    assert.deepEqual(tabs.map(({ seqs }) => seqs().length), [1, 1]);
  }
});

// Whoever runs scripts in this origin can post anything.
const BAD_MESSAGES = [
  null, 1, 'x', [], {}, { v: 1 }, { v: 2, from: 'x', kind: 'hello' }, { v: 1, from: '', kind: 'hello' }, { v: 1, from: 'x', kind: 'toString' },
  { v: 1, from: 'x', kind: 'constructor' }, { v: 1, from: 'x'.repeat(300), kind: 'hello' },
  { v: 1, from: 'x', kind: 'batch', after: null, cursor: null, events: 'x' },
  { v: 1, from: 'x', kind: 'batch', after: 5, cursor: null, events: [] },
  { v: 1, from: 'x', kind: 'batch', after: null, cursor: '<img src=x onerror=alert(1)>', events: [] },
  { v: 1, from: 'x', kind: 'batch', after: null, cursor: null, events: [{ type: 'sys.state', ephemeral: true, data: {} }] },
  { v: 1, from: 'x', kind: 'batch', after: null, cursor: null, events: [{ type: 'note.new' }] },
  { v: 1, from: 'x', kind: 'batch', after: null, cursor: null, events: [null] },
  { v: 1, from: 'x', kind: 'batch', after: null, cursor: null, events: Array(6000).fill({ type: 'a', ephemeral: true }) },
  { v: 1, from: 'x', kind: 'status', status: { status: 'winning', reason: 'x' } },
  { v: 1, from: 'x', kind: 'status', status: null },
  { v: 1, from: 'x', kind: 'state', reason: 'gap', state: { cursor: 7 } },
  { v: 1, from: 'x', kind: 'welcome', to: 'y', status: { status: 'connected', reason: 'ready' }, cursor: 'abcdef-1' },
  { v: 1, from: 'x', kind: 'command', command: { op: 'publish', ref: 'r' } },
  { v: 1, from: 'x', kind: 'command', command: { op: 'send', ref: 'r', conversation: 'c', content: 5, client_id: 'i' } },
  { v: 1, from: 'x', kind: 'command', command: { op: '__proto__', ref: 'r' } },
  { v: 1, from: 'x', kind: 'command' },
  { v: 1, from: 'x', kind: 'reply', to: 'y', ref: 'r', error: 'bad' },
];

test('broadcasts that are not of the table are not heard', async () => {
  const world = createWorld();
  const tabs = await open(world, 2);
  const before = tabs.map(({ heard }) => JSON.stringify(heard));
  const asked = world.server.requests.length;
  for (const message of BAD_MESSAGES) {
    assert.equal(isTabMessage(message), false, JSON.stringify(message)?.slice(0, 100));
    for (const name of world.browser.broadcasts.keys()) world.browser.post(name, message);
  }
  await world.clock.settle();
  assert.deepEqual(tabs.map(({ heard }) => JSON.stringify(heard)), before);
  assert.equal(world.server.requests.length, asked);
  assert.equal(isTabMessage({ v: 1, from: 'x', kind: 'batch', after: null, cursor: 'abcdef-1', events: [{ type: 'note.new', cursor: 'abcdef-1' }] }), true);
});

test('one desktop notification and one sound for the browser, none while a tab is looked at, none twice over a takeover', async () => {
  const world = createWorld();
  const { clock, server, browser } = world;
  const tabs = await open(world, 3);
  let sounds = 0;
  for (const { tidings } of tabs) createAlerts(tidings, { desktop: true, sound: true, play: () => (sounds += 1) });
  const notify = (title) => server.publish('notification.new', { id: 'n1', kind: 'like', title, body: '<b>x</b>', link: 'javascript:alert(1)', read: false });
  notify('seen');
  await clock.pass(1_000);
  assert.deepEqual([browser.notifications.length, sounds], [0, 1], 'somebody looks: a sound, no pop-up');
  for (const { tab } of tabs) tab.page.isVisible = false;
  notify('<img src=x onerror=alert(1)>');
  await clock.pass(1_000);
  assert.deepEqual(browser.notifications.map(({ title }) => title), ['<img src=x onerror=alert(1)>']);
  assert.equal(sounds, 2);
  // The leading tab sounds, and is gone before it could share the event: the next one hears it again.
  tabs[0].tab.page.isCrashed = true;
  notify('sounded, not shared');
  await clock.settle();
  assert.equal(sounds, 3);
  tabs[0].tab.crash();
  await clock.pass(5_000);
  assert.deepEqual([tabs[1].seqs().length, sounds], [3, 3]);
  notify('after the takeover');
  await clock.pass(1_000);
  assert.deepEqual([browser.notifications.length, sounds], [2, 4]);
  server.publish('message.new', { sender: 'alice', content: 'my own', conversation_id: 'c1', n: 1 });
  server.publish('message.new', { sender: 'bob', content: 'hi', conversation_id: 'c1', n: 2 }, { actor: { id: 'bob', name: 'Bob' } });
  await clock.pass(1_000);
  assert.deepEqual(browser.notifications.slice(2).map(({ title, body }) => [title, body]), [['Bob', 'hi']]);
});

test('a notification\'s link is followed only when it is http or https', async () => {
  const { safeLink } = await import('../../static/alerts.js');
  const base = 'https://example.test/';
  assert.equal(safeLink('/a?b', base), 'https://example.test/a?b');
  assert.equal(safeLink('http://x.test/', base), 'http://x.test/');
  for (const bad of ['javascript:alert(1)', ' JaVaScRiPt:alert(1)', 'java\nscript:alert(1)', 'data:text/html,x', 'vbscript:x', 'blob:x', 'file:///etc/passwd', 'http://', '', null, 5, {}]) {
    assert.equal(safeLink(bad, base), null, String(bad));
  }
});

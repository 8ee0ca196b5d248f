// The adapters for React and TanStack Query with the real libraries. Texts from others stay texts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QueryClient, QueryObserver } from '@tanstack/query-core';
import React from 'react';
import { renderToStaticMarkup } from 'react-dom/server';
import { act, create } from 'react-test-renderer';
import { invalidateQueries } from 'tidings-client/query';
import { TidingsProvider, useBadge, useConnection, useConversation, useEvents, usePresence, useTidings, useTyping } from 'tidings-client/react';
import { createWorld } from './world.js';
import { LINKS, TEXTS } from '../browser/payloads.js';

globalThis.IS_REACT_ACT_ENVIRONMENT = true;
const element = React.createElement;
const HOSTILE = '<img src=x onerror="window.__pwned=1">';

async function rendered(world, component, options = {}) {
  const made = world.client(options);
  made.tidings.connect();
  let root;
  await act(async () => {
    root = create(element(React.StrictMode, null, element(TidingsProvider, { client: made.tidings }, element(component))));
    await world.clock.settle();
  });
  const during = (action) => act(async () => {
    await action();
    await world.clock.settle();
  });
  return { ...made, root, during, text: () => JSON.stringify(root.toJSON()) };
}

test('react: every hook shows what is and what changes', async () => {
  const world = createWorld();
  const { server } = world;
  const heard = [];
  function Page() {
    const { status, transport } = useConnection();
    const { messages, typing } = useConversation('c1');
    useEvents('note.*', ({ type }) => heard.push(type));
    return element('p', null, JSON.stringify({
      status, transport, user: useTidings().user, messages: messages.map(({ content }) => content), typing,
      alone: useTyping('c1'), bob: usePresence('bob')?.status ?? 'unknown', badge: useBadge().messages,
    }));
  }
  const page = await rendered(world, Page);
  const shown = () => JSON.parse(page.root.toJSON().children[0]);
  assert.deepEqual(shown(), { status: 'connected', transport: 'sse', user: 'alice', messages: [], typing: [], alone: [], bob: 'unknown', badge: 0 });
  await page.during(() => {
    server.publish('message.new', { id: 'm1', conversation_id: 'c1', n: 1, sender: 'bob', content: HOSTILE });
    server.signal('typing.start', {}, { topic: 'conversation:c1', actor: { id: 'carol' } });
    server.signal('presence.changed', { user: 'bob', status: 'busy' });
    server.signal('badge', { notifications: 0, messages: 4, conversations: 1 });
    server.publish('note.new');
  });
  assert.deepEqual(shown(), { status: 'connected', transport: 'sse', user: 'alice', messages: [HOSTILE], typing: ['carol'], alone: ['carol'], bob: 'busy', badge: 4 });
  assert.deepEqual(heard, ['note.new']);
  await page.during(() => {
    server.faults.isDown = true;
    server.cut();
  });
  assert.equal(shown().status, 'reconnecting');
});

// Texts that would run if anything on the way took them for markup, an address or code.
const PAYLOADS = [...new Set([HOSTILE, ...TEXTS, ...LINKS, '__proto__', 'constructor'])];

test('react: hostile names, messages and presence come out as the text that they are', async () => {
  const world = createWorld();
  const { server } = world;
  function Page() {
    const { messages, typing } = useConversation('c1');
    return element('p', null, JSON.stringify([messages.map(({ content, sender }) => [content, sender]), typing, PAYLOADS.map((user) => usePresence(user)?.activity ?? null)]));
  }
  const page = await rendered(world, Page);
  assert.deepEqual(JSON.parse(page.root.toJSON().children[0])[2], PAYLOADS.map(() => null), 'nobody is there by nature');
  await page.during(() => PAYLOADS.forEach((payload, at) => {
    server.publish('message.new', { id: payload, conversation_id: 'c1', n: at + 1, sender: payload, content: payload });
    server.signal('typing.start', {}, { topic: 'conversation:c1', actor: { id: `${payload}!`, name: payload } });
    server.signal('presence.changed', { user: payload, status: 'online', activity: payload });
  }));
  const [messages, typing, activities] = JSON.parse(page.root.toJSON().children[0]);
  assert.deepEqual(messages, PAYLOADS.map((payload) => [payload, payload]));
  assert.deepEqual(typing, PAYLOADS.map((payload) => `${payload}!`));
  assert.deepEqual(activities.filter((text) => text !== null), PAYLOADS);
  assert.equal({}.status, undefined);
});

test('react: sends, marks read, loads older; the actions stay the same functions', async () => {
  const world = createWorld();
  const { server } = world;
  const actions = [];
  let conversation;
  function Page() {
    conversation = useConversation('c1', { limit: 2 });
    actions.push(conversation.send);
    return element('p', null, conversation.messages.map(({ content, status }) => `${content}:${status}`).join());
  }
  const page = await rendered(world, Page);
  for (const content of ['a', 'b', 'c']) await page.during(() => void conversation.send(content));
  assert.match(page.text(), /a:sent,b:sent,c:sent/);
  assert.equal(new Set(actions).size <= 2, true, 'StrictMode renders twice, nothing else makes new ones');
  await page.during(() => conversation.markRead());
  assert.deepEqual(server.requests.filter(({ path }) => path.endsWith('/read')).map(({ body }) => body), [{ upto: 3 }]);
});

test('react: everything ends with the component, and two components share one view', async () => {
  const world = createWorld();
  const { server, clock } = world;
  const Part = () => element('i', null, useConversation('c1').messages.length);
  const Page = () => element('p', null, element(Part), element(Part));
  const page = await rendered(world, Page);
  assert.equal(server.requests.filter(({ path }) => path === '/v1/conversations/c1/messages').length, 1);
  await page.during(() => void server.publish('message.new', { id: 'm1', conversation_id: 'c1', n: 1, sender: 'bob', content: 'x' }));
  await page.during(() => clock.pass(20_000));
  const renders = page.text();
  await act(async () => {
    page.root.unmount();
    await clock.settle();
  });
  server.publish('message.new', { id: 'm9', conversation_id: 'c1', n: 9, sender: 'bob', content: 'late' });
  await clock.pass(20_000);
  assert.equal(server.requests.filter(({ path }) => path === '/v1/conversations/c1/messages').length, 1, `nobody looks: ${renders}`);
});

test('react: a provider with options connects its client and disconnects it', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const { environment } = world.browser.tab();
  const Page = () => element('p', null, useConnection().status);
  let root;
  await act(async () => {
    root = create(element(TidingsProvider, { options: { token: 't1', tabs: false, environment } }, element(Page)));
    await clock.settle();
  });
  assert.deepEqual(root.toJSON().children, ['connected']);
  await act(async () => root.unmount());
  assert.equal(server.readers.size, 0);
  assert.throws(() => renderToStaticMarkup(element(Page)), /TidingsProvider/);
});

test('query: entity events make the keys of the table stale, each once for many events, all after a gap', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const { tidings } = await world.connected();
  const client = new QueryClient();
  const loads = {};
  const watch = (queryKey) => new QueryObserver(client, {
    queryKey, staleTime: Infinity, queryFn: async () => (loads[queryKey.join()] = (loads[queryKey.join()] ?? 0) + 1),
  }).subscribe(() => {});
  const offs = [['orders'], ['orders', '7'], ['users', '1'], ['users', '2'], ['other']].map(watch);
  await clock.settle();
  const stop = invalidateQueries(tidings, client, {
    order: ['orders'],
    user: ({ id }) => (id === null ? [['users']] : [['users', id]]),
  });
  for (let n = 0; n < 20; n += 1) server.publish('entity.updated', { entity: 'order', id: String(n) });
  server.publish('entity.deleted', { entity: 'user', id: '2' });
  server.publish('entity.created', { entity: 'toString', id: '2' });
  await clock.pass(100);
  assert.deepEqual(loads, { orders: 2, 'orders,7': 2, 'users,1': 1, 'users,2': 2, other: 1 });
  server.cut();
  for (let n = 0; n < 3; n += 1) server.publish('note.new');
  server.trim(100);
  await clock.pass(5_000);
  assert.deepEqual(loads, { orders: 3, 'orders,7': 3, 'users,1': 2, 'users,2': 3, other: 1 });
  stop();
  server.publish('entity.updated', { entity: 'order', id: '1' });
  await clock.pass(1_000);
  assert.equal(loads.orders, 3);
  offs.forEach((off) => off());
  client.clear();
});

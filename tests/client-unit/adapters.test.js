// The adapters with the real libraries: React, Angular with RxJS, TanStack Query. Texts from others stay texts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import '@angular/compiler';
import { HttpClient, HttpErrorResponse, HttpResponse, HttpBackend, provideHttpClient, withInterceptors } from '@angular/common/http';
import { NgZone, createEnvironmentInjector, Injector } from '@angular/core';
import { QueryClient, QueryObserver } from '@tanstack/query-core';
import React from 'react';
import { act, create } from 'react-test-renderer';
import { firstValueFrom, of, throwError } from 'rxjs';
import { TIDINGS, provideTidings, tidingsInterceptor } from 'tidings-client/angular';
import { invalidateQueries } from 'tidings-client/query';
import { TidingsProvider, useBadge, useConnection, useConversation, useEvents, usePresence, useTidings, useTyping } from 'tidings-client/react';
import { createWorld } from './world.js';

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
  await assert.rejects(act(async () => void create(element(Page))), /TidingsProvider/);
});

function angular(world, options = {}, backend = () => of(new HttpResponse({ status: 200 }))) {
  const { environment } = world.browser.tab();
  const zone = new NgZone({ enableLongStackTrace: false });
  return createEnvironmentInjector([
    { provide: NgZone, useValue: zone },
    provideTidings({ token: 't1', tabs: false, url: 'http://tidings.test', environment, ...options }),
    provideHttpClient(withInterceptors([tidingsInterceptor])),
    { provide: HttpBackend, useValue: { handle: backend } },
  ], Injector.NULL);
}

test('angular: streams of events, status, conversations; the end of the injector is the end of the connection', async () => {
  const world = createWorld();
  const { clock, server } = world;
  const injector = angular(world);
  const tidings = injector.get(TIDINGS);
  const events = [];
  const statuses = [];
  let messages = [];
  tidings.events('note.*').subscribe(({ type }) => events.push(type));
  tidings.status$.subscribe(({ status }) => statuses.push(status));
  tidings.connect();
  await clock.settle();
  const watching = tidings.conversation('c1').subscribe((value) => (messages = value.messages));
  await clock.settle();
  server.publish('note.new');
  server.publish('message.new', { id: 'm1', conversation_id: 'c1', n: 1, sender: 'bob', content: HOSTILE });
  server.signal('badge', { notifications: 3, messages: 0, conversations: 0 });
  await clock.settle();
  assert.deepEqual(events, ['note.new']);
  assert.deepEqual([statuses[0], statuses.at(-1)], ['stopped', 'connected']);
  assert.deepEqual(messages.map(({ content }) => content), [HOSTILE]);
  watching.unsubscribe();
  server.publish('message.new', { id: 'm2', conversation_id: 'c1', n: 2, sender: 'bob', content: 'late' });
  await clock.settle();
  assert.equal(messages.length, 1);
  injector.destroy();
  assert.equal(server.readers.size, 0);
});

test('angular: the interceptor gives the token to the server\'s API and to nothing else, and renews it once', async () => {
  const world = createWorld();
  const seen = [];
  let good = 'Bearer t1';
  let asked = 0;
  const backend = (request) => {
    const given = request.headers.get('Authorization');
    seen.push([request.url, given]);
    return given === good || given === null ? of(new HttpResponse({ status: 200, body: 'ok' })) : throwError(() => new HttpErrorResponse({ status: 401, url: request.url }));
  };
  const injector = angular(world, { token: async () => `t${(asked += 1)}` }, backend);
  const http = injector.get(HttpClient);
  await firstValueFrom(http.get('http://tidings.test/v1/preferences'));
  for (const other of ['http://evil.test/v1/preferences', 'http://tidings.test.evil.test/v1/x', 'http://tidings.test/other', 'https://tidings.test/v1/x', 'http://tidings.test:81/v1/x']) {
    await firstValueFrom(http.get(other));
  }
  good = 'Bearer t2';
  await firstValueFrom(http.get('http://tidings.test/v1/notifications'));
  good = 'Bearer none';
  await assert.rejects(firstValueFrom(http.get('http://tidings.test/v1/state')), { status: 401 });
  assert.deepEqual(seen.map(([, token]) => token), ['Bearer t1', null, null, null, null, null, 'Bearer t1', 'Bearer t2', 'Bearer t2', 'Bearer t3']);
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

// The Angular adapter with the real library, RxJS and zone.js.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import 'zone.js';
import '@angular/compiler';
import { HttpBackend, HttpClient, HttpErrorResponse, HttpResponse, provideHttpClient, withInterceptors } from '@angular/common/http';
import { Injector, NgZone, createEnvironmentInjector, ɵChangeDetectionScheduler as Scheduler, ɵINJECTOR_SCOPE as INJECTOR_SCOPE } from '@angular/core';
import { firstValueFrom, of, throwError } from 'rxjs';
import { TIDINGS, provideTidings, tidingsInterceptor } from 'tidings-client/angular';
import { createWorld } from './world.js';
import { TEXTS } from '../browser/payloads.js';

const HOSTILE = '<img src=x onerror="window.__pwned=1">';

function angular(world, options = {}, backend = () => of(new HttpResponse({ status: 200 }))) {
  const { environment } = world.browser.tab();
  const zone = new NgZone({ enableLongStackTrace: false });
  return createEnvironmentInjector([
    // What `bootstrapApplication` would set; it needs a DOM.
    { provide: INJECTOR_SCOPE, useValue: 'root' },
    { provide: Scheduler, useValue: { notify() {}, runningTick: false } },
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
  tidings.events('note.*').subscribe(({ type }) => events.push(`${type} ${NgZone.isInAngularZone()}`));
  tidings.status$.subscribe(({ status }) => statuses.push(status));
  tidings.connect();
  await clock.settle();
  const watching = tidings.conversation('c1').subscribe((value) => (messages = value.messages));
  await clock.settle();
  server.publish('note.new');
  server.publish('message.new', { id: 'm1', conversation_id: 'c1', n: 1, sender: 'bob', content: HOSTILE });
  server.signal('badge', { notifications: 3, messages: 0, conversations: 0 });
  await clock.settle();
  assert.deepEqual(events, ['note.new true'], 'what is emitted is emitted in the zone');
  assert.deepEqual([statuses[0], statuses.at(-1)], ['stopped', 'connected']);
  assert.deepEqual(messages.map(({ content }) => content), [HOSTILE]);
  // More than a hundred of them come out as the text that they are.
  TEXTS.forEach((content, at) => server.publish('message.new', { id: `h${at}`, conversation_id: 'c1', n: at + 2, sender: 'bob', content }));
  await clock.settle();
  assert.deepEqual(messages.map(({ content }) => content), [HOSTILE, ...TEXTS]);
  watching.unsubscribe();
  server.publish('message.new', { id: 'm2', conversation_id: 'c1', n: TEXTS.length + 2, sender: 'bob', content: 'late' });
  await clock.settle();
  assert.equal(messages.length, 1 + TEXTS.length);
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

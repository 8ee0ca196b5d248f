// An application that uses the package as installed: what must compile does, what must not is marked. Checked by tsc only.
import { HttpClient, provideHttpClient, withInterceptors } from '@angular/common/http';
import { QueryClient } from '@tanstack/query-core';
import { createElement } from 'react';
import { createTidings, TidingsError, browserEnvironment, type Message, type Presence, type Status, type Tidings } from 'tidings-client';
import { createAlerts, safeLink } from 'tidings-client/alerts';
import { provideTidings, TIDINGS, tidingsInterceptor, type TidingsService } from 'tidings-client/angular';
import { createParser } from 'tidings-client/parser';
import { invalidateQueries } from 'tidings-client/query';
import { TidingsProvider, useBadge, useConnection, useConversation, useEvents, usePresence, useTidings, useTyping } from 'tidings-client/react';
import { badgeView, conversationView } from 'tidings-client/views';

declare module 'tidings-client' {
  interface Events {
    'order.paid': { order: string };
  }
}

const tidings: Tidings = createTidings({ token: async (reason) => (reason === 'start' ? 'x' : null), transports: ['sse', 'poll'], timing: { ready_ms: 1 } });
const off: () => void = tidings.on('message.new', ({ data }) => {
  const message: Message = data;
  // @ts-expect-error a message has no such field
  message.nothing;
});
tidings.on('order.paid', ({ data }) => data.order.toUpperCase());
// @ts-expect-error not a field of this event
tidings.on('order.paid', ({ data }) => data.other);
tidings.on('presence.changed', ({ data }) => { const presence: Presence = data; return presence; });
tidings.on('typing.*', (event) => { const type: 'typing.start' | 'typing.stop' = event.type; return type; });
tidings.on('entity.*', ({ data }) => data.entity);
tidings.on('anything.else', ({ data, seq }) => [data.whatever, seq]);
tidings.on('*', ({ type, cursor }) => [type, cursor]);
tidings.on('sys.status', ({ data }) => { const status: Status = data; return status; });
tidings.on('sys.state', ({ data }) => data.state.badge.messages);
tidings.on('sys.outgoing', ({ data }) => data.error?.code);
// @ts-expect-error no such status
const wrong: Status['status'] = 'winning';
// @ts-expect-error no such transport
createTidings({ transports: ['carrier-pigeon'] });
// @ts-expect-error no such option
createTidings({ tokn: 'x' });
const { client_id, message, done } = tidings.send('c1', 'hi', { data: { a: 1 } });
const stored: Promise<Message> = done;
tidings.read('c1', 4);
tidings.read('c1', { message_ids: ['m1'] });
// @ts-expect-error upto is a number
tidings.read('c1', '4');
// @ts-expect-error no such status
tidings.presence('sleeping');
tidings.connect().ready().then(({ transport, reason }) => [transport, reason]);
tidings.request<{ messages: Message[] }>('GET', '/v1/x').then(({ messages }) => messages);
const error = new TidingsError({ status: 0, code: 'x', message: 'y' });
if (error instanceof TidingsError) error.retry_after_ms;
browserEnvironment().now();
off();

createAlerts(tidings, { desktop: true, describe: ({ data }) => ({ title: data.title }) }).set({ sound: true });
const link: string | null = safeLink('x');
createParser(({ event, data, id }) => [event, data, id]).text('data: x\n\n');
const shown: readonly Message[] = conversationView(tidings, 'c1').get().messages;
const unread: number = badgeView(tidings).get().messages;

invalidateQueries(tidings, new QueryClient(), { order: ['orders'], user: ({ id }) => [['users', id]] })();
// @ts-expect-error a key is an array
invalidateQueries(tidings, new QueryClient(), { order: 'orders' });

function Page() {
  const { messages, send, typing } = useConversation('c1');
  const { status } = useConnection();
  useEvents('notification.new', ({ data }) => data.title);
  send('x').done;
  return createElement('p', null, status, typing.join(), messages.length, useTyping('c1').length, usePresence('bob')?.status, useBadge().messages, useTidings().user);
}
createElement(TidingsProvider, { client: tidings }, createElement(Page));
createElement(TidingsProvider, { options: { cookie: true } });

const providers = [provideTidings({ token: 'x' }), provideHttpClient(withInterceptors([tidingsInterceptor]))];
declare const service: TidingsService;
service.events('message.new').subscribe(({ data }) => data.content);
service.status$.subscribe(({ status }) => status);
export { HttpClient, TIDINGS, client_id, link, message, providers, shown, stored, unread, wrong };

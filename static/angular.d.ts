// The types of angular.js: a service with RxJS streams, and an HTTP interceptor for the token.
// Promises: works with Angular 18 and newer, with and without zone.js.
import type { HttpInterceptorFn } from '@angular/common/http';
import type { EnvironmentProviders, InjectionToken } from '@angular/core';
import type { Observable } from 'rxjs';
import type { Badge, EventOf, Options, Outgoing, Pattern, Presence, SendOptions, Status, Tidings, TokenReason } from './tidings.js';
import type { ConversationValue } from './views.js';

export interface TidingsService {
  /** The client itself, for everything else. */
  readonly client: Tidings;
  connect(): Tidings;
  disconnect(): void;
  events<P extends Pattern>(pattern: P): Observable<EventOf<P>>;
  readonly status$: Observable<Status>;
  readonly badge$: Observable<Badge>;
  readonly presence$: Observable<Readonly<Record<string, Presence>>>;
  typing(conversation: string): Observable<readonly string[]>;
  conversation(id: string): Observable<ConversationValue>;
  send(conversation: string, content: string, options?: SendOptions): Outgoing;
}

/** `inject(TIDINGS)` gives the service. */
export const TIDINGS: InjectionToken<TidingsService>;
/** Among the application's providers. Connect with `inject(TIDINGS).connect()`. */
export const provideTidings: (options: Options, given?: { client?: Tidings }) => EnvironmentProviders;
/** `provideHttpClient(withInterceptors([tidingsInterceptor]))`: the token for calls to the Tidings server, renewed once when refused. */
export const tidingsInterceptor: HttpInterceptorFn;

/** Used by the two above. */
export interface TidingsTokens {
  renew(reason: TokenReason): Promise<string | null>;
  current(): Promise<string | null>;
  after(used: string | null): Promise<string | null>;
  covers(address: string): boolean;
}

// @ts-check
// Angular: a service with RxJS streams, and an HTTP interceptor that gives the application's own calls the token.
// Promises: the connection runs outside the zone, so that pings cause no change detection; what is emitted, is emitted
// inside it; the token goes to the Tidings server's address and to no other. No decorators, so it needs no build step.
import { HttpErrorResponse } from '@angular/common/http';
import { DestroyRef, InjectionToken, NgZone, inject, makeEnvironmentProviders } from '@angular/core';
import { Observable, from, shareReplay, switchMap, throwError, catchError } from 'rxjs';
import { createTidings } from './tidings.js';
import { badgeView, conversationView, presenceView, typingView } from './views.js';

/** @type {typeof import('./angular.js').TIDINGS} */
export const TIDINGS = new InjectionToken('Tidings');
/** @type {InjectionToken<import('./angular.js').TidingsTokens | null>} */
const TOKENS = new InjectionToken('Tidings tokens');

/** @type {typeof import('./angular.js').provideTidings} */
export const provideTidings = (options, { client } = {}) => makeEnvironmentProviders([
  { provide: TOKENS, useFactory: () => tokensOf(options) },
  {
    provide: TIDINGS,
    useFactory: () => {
      const zone = inject(NgZone);
      const tokens = inject(TOKENS);
      const given = tokens === null ? options : { ...options, token: tokens.renew };
      const tidings = client ?? zone.runOutsideAngular(() => createTidings(given));
      inject(DestroyRef).onDestroy(() => tidings.disconnect());
      return service(tidings, zone);
    },
  },
]);

/**
 * @param {import('./tidings.js').Tidings} tidings
 * @param {NgZone} zone
 * @returns {import('./angular.js').TidingsService}
 */
function service(tidings, zone) {
  /** @template T @param {(next: (value: T) => void) => () => void} subscribe @returns {Observable<T>} */
  const stream = (subscribe) => new Observable((subscriber) =>
    zone.runOutsideAngular(() => subscribe((value) => zone.run(() => subscriber.next(value)))));

  /** @template T @param {() => import('./views.js').View<T>} make @returns {Observable<T>} */
  const viewed = (make) => /** @type {Observable<T>} */ (stream((next) => {
    const view = make();
    next(view.get());
    const off = view.subscribe(() => next(view.get()));
    return () => {
      off();
      view.close();
    };
  }).pipe(shareReplay({ bufferSize: 1, refCount: true })));

  return {
    client: tidings,
    connect: () => zone.runOutsideAngular(() => tidings.connect()),
    disconnect: () => tidings.disconnect(),
    events: (pattern) => /** @type {any} */ (stream((next) => tidings.on(pattern, next))),
    status$: /** @type {Observable<import('./tidings.js').Status>} */ (stream((next) => {
      next(tidings.status);
      return tidings.on('sys.status', ({ data }) => next(data));
    })),
    badge$: viewed(() => badgeView(tidings)),
    presence$: viewed(() => presenceView(tidings)),
    typing: (conversation) => viewed(() => typingView(tidings, conversation)),
    conversation: (id) => viewed(() => conversationView(tidings, id)),
    send: (conversation, content, options) => tidings.send(conversation, content, options),
  };
}

/** @type {typeof import('./angular.js').tidingsInterceptor} */
export const tidingsInterceptor = (request, next) => {
  const tokens = inject(TOKENS, { optional: true });
  if (tokens === null || !tokens.covers(request.url) || request.headers.has('Authorization')) return next(request);
  const send = (/** @type {string | null} */ token) =>
    next(token === null ? request : request.clone({ setHeaders: { Authorization: `Bearer ${token}` } }));
  return from(tokens.current()).pipe(
    switchMap((used) => send(used).pipe(
      // Once: a second refusal is the application's to see.
      catchError((error) => {
        if (!(error instanceof HttpErrorResponse) || error.status !== 401) return throwError(() => error);
        return from(tokens.after(used)).pipe(switchMap((token) => (token === used ? throwError(() => error) : send(token))));
      }),
    )),
  );
};

/**
 * The application's token, asked for once for the client and the interceptor together.
 * @param {import('./tidings.js').Options} options
 * @returns {import('./angular.js').TidingsTokens | null}
 */
function tokensOf({ token: source, url = globalThis.location?.origin ?? '', cookie }) {
  if (source === undefined || cookie === true) return null;
  /** @type {string | null} */
  let token = typeof source === 'string' ? source : null;
  /** @type {Promise<string | null> | null} */
  let asking = null;

  /** @param {import('./tidings.js').TokenReason} reason */
  function renew(reason) {
    if (typeof source !== 'function') return Promise.resolve(token);
    asking ??= Promise.resolve(source(reason)).then((given) => (token = given)).finally(() => (asking = null));
    return asking;
  }

  return {
    renew,
    current: () => (token === null ? renew('start') : Promise.resolve(token)),
    after: (used) => (token === used ? renew('refused') : Promise.resolve(token)),
    covers(address) {
      const base = globalThis.location?.href;
      try {
        const { origin, pathname } = new URL(address, base);
        return origin === new URL(url, base).origin && pathname.startsWith('/v1/');
      } catch {
        return false;
      }
    },
  };
}

// @ts-check
// One request to the server's API, as this user.
// Promises: it ends, with JSON or with a TidingsError that carries the server's code; a refused token is renewed once and
// the request made again. It retries nothing else: that is the outbox's business.
import { TidingsError } from './error.js';
import { retryAfter } from './transports/wire.js';

const KEPT_ALIVE_CHARS = 16_000;

/**
 * @param {{ env: import('./tidings.js').Environment, url: string, access: import('./internal.js').Access, timing: import('./tidings.js').Timing }} parts
 * @returns {import('./internal.js').Http}
 */
export function createHttp({ env, url, access, timing }) {
  /** @type {import('./internal.js').Http} */
  async function request(method, path, body) {
    const used = access.token();
    const response = await answer(method, path, body);
    const isAgain = response.status === 401 && (await access.renew('refused', used));
    return result(isAgain ? await answer(method, path, body) : response);
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {unknown} body
   */
  async function answer(method, path, body) {
    const abort = new AbortController();
    const timer = env.setTimeout(() => abort.abort(), timing.request_ms);
    try {
      const { headers, credentials } = await access.request();
      const text = body === undefined ? undefined : JSON.stringify(body);
      const response = await env.fetch(`${url}${path}`, {
        method,
        headers: text === undefined ? headers : { ...headers, 'Content-Type': 'application/json' },
        body: text,
        credentials,
        cache: 'no-store',
        // What was written last still leaves when the page is closed; browsers bound what may.
        keepalive: text !== undefined && text.length < KEPT_ALIVE_CHARS,
        signal: abort.signal,
      });
      // The time-out covers the body too.
      return { status: response.status, ok: response.ok, headers: response.headers, text: await response.text() };
    } catch (error) {
      if (error instanceof TidingsError) throw error;
      const ended = /** @type {any} */ (error)?.ended;
      if (ended?.kind === 'unauthorized') throw new TidingsError({ status: 401, code: 'unauthorized', message: 'a valid token is needed' });
      const code = abort.signal.aborted ? 'timeout' : 'network';
      throw new TidingsError({ status: 0, code, message: `no answer from the server (${code})` });
    } finally {
      env.clearTimeout(timer);
    }
  }

  /** @param {Awaited<ReturnType<typeof answer>>} response */
  function result({ status, ok, headers, text }) {
    let json;
    try {
      json = text === '' ? null : JSON.parse(text);
    } catch {
      json = undefined;
    }
    if (ok && json !== undefined) return json;
    throw new TidingsError({
      status: ok ? 502 : status,
      code: typeof json?.code === 'string' ? json.code : `status_${status}`,
      message: typeof json?.message === 'string' ? json.message : `the server answered ${status}`,
      request_id: json?.request_id,
      errors: json?.errors,
      retry_after_ms: retryAfter(headers.get('retry-after'), env.now()),
    });
  }

  return request;
}

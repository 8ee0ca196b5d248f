// @ts-check
// Who the client is to the server: the token and how to get another, the cookie session, tickets.
// Promises: one question for a token at a time, however many ask; a token is never logged, stored or put in an address.
// Failing to get one is a passing trouble; having none is not.
import { TidingsError } from './error.js';
import { refusal } from './transports/wire.js';

/**
 * @param {{ env: import('./tidings.js').Environment, options: import('./tidings.js').Options, url: string, log: import('./internal.js').Log }} parts
 * @returns {import('./internal.js').Access}
 */
export function createAccess({ env, options, url, log }) {
  const source = options.token;
  const isCookie = options.cookie === true;
  const isTicketOnly = !isCookie && source === undefined && options.ticket !== undefined;
  /** @type {string | null} */
  let token = typeof source === 'string' ? source : null;
  /** @type {Promise<boolean> | null} */
  let asking = null;
  let hasSession = !isCookie || source === undefined;

  /** @param {import('./tidings.js').TokenReason} reason */
  async function ask(reason) {
    if (typeof source !== 'function') return false;
    log('asking for a token:', reason);
    let given;
    try {
      given = await source(reason);
    } catch (error) {
      throw new TidingsError({ status: 0, code: 'token_failed', message: `no token: ${error}` });
    }
    const isNew = typeof given === 'string' && given !== token;
    if (isNew) {
      token = given;
      hasSession = !isCookie;
    }
    return isNew;
  }

  /** @param {import('./tidings.js').TokenReason} reason */
  function askOnce(reason) {
    asking ??= ask(reason).finally(() => (asking = null));
    return asking;
  }

  /** The cookie is out of reach for scripts: the server makes it from the token. */
  async function makeSession() {
    const response = await env.fetch(`${url}/v1/session`, {
      method: 'POST',
      headers: bearer(),
      credentials: 'include',
    });
    if (!response.ok) throw endedBy(await refusal(response, env.now()));
    hasSession = true;
  }

  /** @returns {Record<string, string>} */
  const bearer = () => (token === null ? {} : { Authorization: `Bearer ${token}` });

  async function request() {
    if (token === null && typeof source === 'function') await askOnce('start');
    if (!hasSession) await makeSession();
    /** @type {RequestCredentials} */
    const credentials = isCookie ? 'include' : 'omit';
    return { headers: isCookie ? {} : bearer(), credentials };
  }

  async function ticket() {
    if (options.ticket !== undefined) return options.ticket();
    const { headers, credentials } = await request();
    const response = await env.fetch(`${url}/v1/tickets`, { method: 'POST', headers, credentials });
    if (!response.ok) throw endedBy(await refusal(response, env.now()));
    return (await response.json()).ticket;
  }

  return {
    request,
    ticket,
    // A request that was refused with an older token than the one in hand only has to be made again.
    renew: async (reason, used) => (used !== undefined && used !== token) || askOnce(reason),
    token: () => token,
    user: () => options.user ?? subject(token),
    is_cookie: isCookie,
    is_ticket_only: isTicketOnly,
  };
}

/** @param {import('./internal.js').Ended} ended */
const endedBy = (ended) => Object.assign(new Error(ended.reason), { ended });

/**
 * The user in a token, believed only for naming: the server judges.
 * @param {string | null} token
 */
function subject(token) {
  try {
    const bytes = atob((token ?? '').split('.')[1].replace(/-/g, '+').replace(/_/g, '/'));
    const claims = JSON.parse(decodeURIComponent([...bytes].map((c) => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`).join('')));
    return typeof claims.sub === 'string' ? claims.sub : null;
  } catch {
    return null;
  }
}

// @ts-check
// The one error of the client: a request that was refused, or got no answer.
// Promises: `code` is the server's stable code, or `network`, `timeout`, `disconnected`, `queue_full`, `token_failed`;
// `isPassing` says whether the same request may succeed later.

/** @type {typeof import('./tidings.js').TidingsError} */
export const TidingsError = class TidingsError extends Error {
  /** @param {import('./tidings.js').ErrorFields} fields */
  constructor({ status, code, message, request_id, errors, retry_after_ms = null }) {
    super(message);
    this.name = 'TidingsError';
    this.status = status;
    this.code = code;
    this.request_id = request_id;
    this.errors = errors;
    this.retry_after_ms = retry_after_ms;
  }
};

/** Codes of sockets, which have no status, that stand for a passing trouble. */
const PASSING_CODES = new Set([
  'rate_limited', 'draining', 'server_full', 'too_many_connections', 'internal_error', 'store_failed', 'disk_full', 'unauthorized',
]);

/** @param {any} error */
export const isPassing = (error) =>
  !(error instanceof TidingsError) ||
  [0, 401, 408, 425, 429].includes(error.status) || error.status >= 500 || PASSING_CODES.has(error.code);

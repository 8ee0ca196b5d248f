// @ts-check
// What the HTTP transports share: the address with its query, frames out of server-sent events, and what a refusal means.
// Promises: a frame that is not a JSON object with a type is dropped, never thrown; a status is judged in one place.
// It opens nothing and keeps nothing.

/** @typedef {import('../internal.js').Ended} Ended */
/** @typedef {import('../internal.js').Frame} Frame */

/**
 * @param {string} url
 * @param {string} path
 * @param {Record<string, string | undefined>} query
 */
export function address(url, path, query) {
  const pairs = Object.entries(query).flatMap(([name, value]) => (value === undefined || value === '' ? [] : [[name, value]]));
  return `${url}${path}${pairs.length > 0 ? `?${new URLSearchParams(pairs)}` : ''}`;
}

/**
 * @param {string} text
 * @returns {Frame | null}
 */
export function parseFrame(text) {
  try {
    const value = JSON.parse(text);
    return isFrame(value) ? value : null;
  } catch {
    return null;
  }
}

/** @param {any} value */
export const isFrame = (value) => typeof value === 'object' && value !== null && typeof value.type === 'string';

/**
 * One server-sent event as a frame. The `error` event carries a problem object, whose `type` means something else.
 * @param {{ event: string, data: string }} sent
 * @returns {Frame | null}
 */
export function frameOf({ event, data }) {
  const frame = parseFrame(data);
  return event === 'error' && frame !== null ? { ...frame, type: 'sys.refused' } : frame;
}

/**
 * What an answer other than the wanted one means.
 * @param {Response} response
 * @param {number} now_ms
 * @returns {Promise<Ended>}
 */
export async function refusal(response, now_ms) {
  const after_ms = retryAfter(response.headers.get('retry-after'), now_ms);
  const problem = await response.json().catch(() => null);
  const reason = typeof problem?.code === 'string' ? problem.code : `status ${response.status}`;
  switch (response.status) {
    case 204: return { kind: 'revoked', reason };
    case 401: return { kind: 'unauthorized', reason };
    case 403: return { kind: 'forbidden', reason };
    case 400: return { kind: reason === 'invalid_cursor' ? 'gap' : 'refused', reason };
    case 422: return { kind: 'refused', reason };
    case 429:
    case 503: return { kind: 'limited', reason, after_ms };
    default: return { kind: 'server', reason, after_ms };
  }
}

/**
 * `Retry-After` in milliseconds: seconds, or a date.
 * @param {string | null} value
 * @param {number} now_ms
 */
export function retryAfter(value, now_ms) {
  if (value === null) return null;
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? null : Math.max(0, date - now_ms);
}

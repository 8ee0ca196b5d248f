// @ts-check
// Long polling: pages of the log by ordinary requests, which pass where nothing else does.
// Promises: the next page is asked for only after this one was taken; each request has an end, also when the server has
// none; `poll_after_ms` is kept. Its pages look like a stream: ready first, live when caught up.
import { address, isFrame, refusal } from './wire.js';

/** @type {import('../internal.js').Opener} */
export const openPoll = ({ env, timing, url, query, access, sink }) => {
  let isOpen = true;
  let isReady = false;
  let cursor = query.cursor ?? '';
  let abort = new AbortController();

  /** @param {import('../internal.js').Ended} ended */
  function end(ended) {
    if (!isOpen) return;
    isOpen = false;
    abort.abort();
    sink.ended(ended);
  }

  /** @param {number} wait_ms */
  async function ask(wait_ms) {
    const { headers, credentials } = await access.request();
    const ticket = access.is_ticket_only ? { ticket: await access.ticket() } : {};
    const asked = { ...query, ...ticket, format: 'json', cursor, wait: String(Math.round(wait_ms / 1000)), limit: '500' };
    abort = new AbortController();
    if (!isOpen) return null;
    const timer = env.setTimeout(() => abort.abort(), wait_ms + timing.request_ms);
    try {
      const response = await env.fetch(address(url, '/v1/events', asked), {
        headers: { ...headers, Accept: 'application/json' },
        credentials,
        cache: 'no-store',
        redirect: 'error',
        signal: abort.signal,
      });
      if (response.status !== 200) {
        const ended = await refusal(response, env.now());
        // The page form says 401 to a revoked user too; the look that follows `failed` tells them apart.
        end(ended.kind === 'unauthorized' ? { kind: 'failed', reason: 'unauthorized' } : ended);
        return null;
      }
      return await response.json();
    } finally {
      env.clearTimeout(timer);
    }
  }

  /** @param {any} page */
  function take(page) {
    if (!isReady) sink.frame({ type: 'sys.ready', cursor: page.cursor, head: page.head });
    isReady = true;
    const frames = [...(page.reset === null ? [] : [page.reset]), ...page.events, ...page.ephemeral];
    for (const frame of frames) {
      if (isOpen && isFrame(frame)) sink.frame(frame);
    }
    cursor = page.cursor;
    // A page that hid events by its filter moves the position all the same.
    if (isOpen) sink.frame({ type: page.more ? 'sys.ping' : 'sys.live', cursor: page.cursor });
  }

  async function run() {
    let wait_ms = 0;
    while (isOpen) {
      const page = await ask(wait_ms);
      if (!isOpen || page === null) return;
      const isPage = Array.isArray(page.events) && Array.isArray(page.ephemeral) && typeof page.cursor === 'string';
      if (!isPage) return end({ kind: 'server', reason: 'not a page' });
      take(page);
      if (page.poll_after_ms > 0) return end({ kind: 'lost', reason: 'drain', after_ms: page.poll_after_ms });
      wait_ms = page.more ? 0 : timing.poll_wait_ms;
    }
  }

  run().catch((error) => end(error.ended ?? { kind: 'lost', reason: 'network' }));

  return {
    close() {
      isOpen = false;
      abort.abort();
    },
  };
};

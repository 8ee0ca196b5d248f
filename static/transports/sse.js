// @ts-check
// Server-sent events read by fetch: the token goes in a header, the status is seen, `retry:` is heard.
// Promises: `ended` is told once and never after `close`; a stream is never read again from another place than asked.
// What buffers between server and browser is found by the missing `ready`, not here.
import { createParser } from '../parser.js';
import { address, frameOf, refusal } from './wire.js';

/** @type {import('../internal.js').Opener} */
export const openSse = ({ env, url, query, access, sink }) => {
  const abort = new AbortController();
  let isOpen = true;

  /** @param {import('../internal.js').Ended} ended */
  function end(ended) {
    if (!isOpen) return;
    isOpen = false;
    abort.abort();
    sink.ended(ended);
  }

  async function run() {
    const { headers, credentials } = await access.request();
    const ticket = access.is_ticket_only ? { ticket: await access.ticket() } : {};
    if (!isOpen) return;
    const response = await env.fetch(address(url, '/v1/events', { ...query, ...ticket }), {
      headers: { ...headers, Accept: 'text/event-stream' },
      credentials,
      cache: 'no-store',
      redirect: 'error',
      signal: abort.signal,
    });
    if (response.status !== 200) return end(await refusal(response, env.now()));
    const isStream = (response.headers.get('content-type') ?? '').startsWith('text/event-stream');
    if (!isStream || response.body === null) return end({ kind: 'unfit', reason: 'not an event stream' });
    await read(response.body.getReader());
    end({ kind: 'lost', reason: 'ended' });
  }

  /** @param {ReadableStreamDefaultReader<Uint8Array>} reader */
  async function read(reader) {
    const parser = createParser(
      (sent) => {
        const frame = frameOf(sent);
        if (isOpen && frame !== null) sink.frame(frame);
      },
      { onRetry: (ms) => isOpen && sink.retry(ms) },
    );
    for (;;) {
      const { done, value } = await reader.read();
      if (done || !isOpen) return;
      parser.bytes(value);
    }
  }

  run().catch((error) => {
    if (error instanceof RangeError) return end({ kind: 'unfit', reason: error.message });
    end(error.ended ?? { kind: 'lost', reason: 'network' });
  });

  return {
    close() {
      isOpen = false;
      abort.abort();
    },
  };
};

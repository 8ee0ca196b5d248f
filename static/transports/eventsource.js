// @ts-check
// The browser's own EventSource, with the cookie or a ticket, where fetch cannot stream.
// Promises: it never reconnects by itself: the position, the back-off and what EventSource gives up on for ever are the
// connection's business. Why it was refused the browser does not say: `failed` asks for a look.
import { address, frameOf } from './wire.js';

/** Control frames have names; events have none. */
const NAMES = ['message', 'ready', 'snapshot', 'reset', 'live', 'ping', 'auth', 'bye', 'error'];

/** @type {import('../internal.js').Opener} */
export const openEventSource = ({ env, url, query, access, sink }) => {
  /** @type {EventSource | null} */
  let source = null;
  let isOpen = true;

  function close() {
    isOpen = false;
    source?.close();
  }

  /** @param {import('../internal.js').Ended} ended */
  function end(ended) {
    if (!isOpen) return;
    close();
    sink.ended(ended);
  }

  async function run() {
    const Source = env.EventSource;
    if (Source === undefined) return end({ kind: 'unfit', reason: 'no EventSource here' });
    const ticket = access.is_cookie ? {} : { ticket: await access.ticket() };
    if (access.is_cookie) await access.request();
    if (!isOpen) return;
    const opened = new Source(address(url, '/v1/events', { ...query, ...ticket }), { withCredentials: access.is_cookie });
    source = opened;
    for (const name of NAMES) {
      opened.addEventListener(name, (message) => {
        // The error event of EventSource itself has no data; that of the server has.
        if (!isOpen || typeof message.data !== 'string') return;
        const frame = frameOf({ event: name, data: message.data });
        if (frame !== null) sink.frame(frame);
      });
    }
    opened.addEventListener('error', (event) => {
      if (/** @type {MessageEvent} */ (event).data !== undefined) return;
      const isGivenUp = opened.readyState === 2;
      end(isGivenUp ? { kind: 'failed', reason: 'refused' } : { kind: 'lost', reason: 'network' });
    });
  }

  run().catch((error) => end(error.ended ?? { kind: 'lost', reason: 'network' }));
  return { close };
};

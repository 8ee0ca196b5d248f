// @ts-check
// A WebSocket with the subprotocol `tidings.v1`: the same frames, one per message, and commands the other way.
// Promises: the token travels as a subprotocol, never in the address; a close code becomes what it means. A handshake that
// fails tells a page nothing: `failed` asks for a look.
import { address, parseFrame } from './wire.js';

const SUBPROTOCOL = 'tidings.v1';
/** A socket's drain brings no `retry`, so its readers spread themselves. */
const DRAIN_SPREAD_MS = 9_000;
const LIMITED_SPREAD_MS = 25_000;

/** @type {import('../internal.js').Opener} */
export const openWebSocket = ({ env, url, query, access, sink }) => {
  /** @type {WebSocket | null} */
  let socket = null;
  let isOpen = true;
  let wasOpen = false;

  function close() {
    isOpen = false;
    socket?.close(1000);
  }

  /** @param {import('../internal.js').Ended} ended */
  function end(ended) {
    if (!isOpen) return;
    close();
    sink.ended(ended);
  }

  async function run() {
    const Socket = env.WebSocket;
    if (Socket === undefined) return end({ kind: 'unfit', reason: 'no WebSocket here' });
    await access.request();
    const ticket = access.is_ticket_only ? { ticket: await access.ticket() } : {};
    if (!isOpen) return;
    const token = access.is_cookie || access.is_ticket_only ? null : access.token();
    const protocols = token === null ? [SUBPROTOCOL] : [SUBPROTOCOL, `bearer.${token}`];
    const opened = new Socket(address(url.replace(/^http/, 'ws'), '/v1/ws', { ...query, ...ticket }), protocols);
    socket = opened;
    opened.onopen = () => (wasOpen = true);
    opened.onmessage = (message) => {
      const frame = typeof message.data === 'string' ? parseFrame(message.data) : null;
      if (isOpen && frame !== null) sink.frame(frame);
    };
    opened.onclose = (event) => end(meaning(event.code, event.reason));
  }

  /**
   * @param {number} code
   * @param {string} reason
   * @returns {import('../internal.js').Ended}
   */
  function meaning(code, reason) {
    if (!wasOpen) return { kind: 'failed', reason: 'handshake' };
    switch (code) {
      case 4001: return { kind: 'unauthorized', reason };
      case 4003: return { kind: 'forbidden', reason };
      case 4010: return { kind: 'lost', reason: 'drain', after_ms: 1000 + env.random() * DRAIN_SPREAD_MS };
      case 4029: return { kind: 'limited', reason, after_ms: 5000 + env.random() * LIMITED_SPREAD_MS };
      case 4400:
      case 1002:
      case 1003:
      case 1007: return { kind: 'unfit', reason: `closed with ${code}` };
      default: return { kind: 'lost', reason: 'ended' };
    }
  }

  run().catch((error) => end(error.ended ?? { kind: 'failed', reason: 'network' }));

  return {
    close,
    send(text) {
      if (!isOpen || socket?.readyState !== 1) return false;
      socket.send(text);
      return true;
    },
  };
};

// Whether news arrives, and by which way.
// Promises: says it in words, not by colour alone; "Reconnected" is told once after each loss, not at the first connection.
import { el } from './dom.js';

const TRANSPORTS = { sse: 'SSE', eventsource: 'EventSource', websocket: 'WebSocket', poll: 'long poll' };
const WORDS = { connecting: 'Connecting …', connected: 'Connected', reconnecting: 'Reconnecting …', offline: 'Offline', stopped: 'Stopped' };
const REASONS = { revoked: 'access was revoked', unauthorized: 'not signed in', forbidden: 'not allowed', refused: 'refused' };
/** Nobody has lost anything when the client itself opens another connection. */
const PLANNED = ['gap', 'takeover', 'expired'];

export function connectionIndicator({ tidings, toasts }, lifetime) {
  const text = el('span', { class: 'words' });
  const way = el('span', { class: 'way' });
  const again = el('button', { type: 'button', class: 'link', hidden: true, onclick: () => tidings.connect() }, 'Connect');
  const node = el('div', { class: 'connection', role: 'group', 'aria-label': 'Connection' },
    el('span', { class: 'dot', 'aria-hidden': 'true' }), text, way, again);
  let isLost = false;
  let wasConnected = false;

  function show(status) {
    const { status: name, reason, transport, role } = status;
    node.dataset.status = name;
    node.dataset.transport = transport ?? '';
    text.textContent = WORDS[name] ?? name;
    way.textContent = name === 'connected' ? TRANSPORTS[transport] ?? '' : REASONS[reason] ?? '';
    node.title = name === 'connected' ? `By ${TRANSPORTS[transport] ?? transport}${role === 'follower' ? ', held by another tab' : ''}` : `${WORDS[name]} (${reason})`;
    again.hidden = name !== 'stopped' || reason === 'not_started';
    if (name === 'connected') {
      if (wasConnected && isLost) toasts.show('Reconnected', { tone: 'good' });
      isLost = false;
      wasConnected = true;
    } else if (!PLANNED.includes(reason)) isLost = true;
    if (name === 'offline') toasts.say('Offline. What you write is sent when the connection is back.');
  }

  show(tidings.status);
  lifetime.add(tidings.on('sys.status', ({ data }) => show(data)));
  return node;
}

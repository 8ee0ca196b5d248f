// Proxies that break streams: one that buffers, and one that also strips `Upgrade`. The page finds a way by itself.
import { before, after, describe, test } from 'node:test';
import { startNginx } from './nginx.js';
import { openDevice, seen, shows, startConversation, startDemo, transport, write } from './browser.js';

// As it comes: HTTP/1.0 to the server, which nginx keeps until a buffer is full or the answer ends.
const BUFFERS = { '/': 'proxy_http_version 1.0; proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;' };
const UPGRADES = { '/v1/ws': 'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";' };

describe('behind a proxy', () => {
  let server;
  before(async () => (server = await startDemo()));
  after(() => server.stop());

  for (const [title, rules, way] of [
    ['that only strips Upgrade, streams are read as streams', { '/': 'proxy_http_version 1.1; proxy_buffering off;' }, 'sse'],
    ['that buffers, the page falls back to a WebSocket', { ...BUFFERS, ...UPGRADES }, 'websocket'],
    ['that buffers and strips Upgrade, the page falls back to long polls', BUFFERS, 'poll'],
  ]) {
    test(title, { timeout: 120_000 }, async (t) => {
      const proxy = await startNginx(t, server.port, rules);
      const [one, two] = [await openDevice(t, proxy), await openDevice(t, server.origin)];
      one.context.setDefaultTimeout(60_000);
      const alice = await one.as(`alice-${way}`);
      await transport(alice, way);
      const id = await startConversation(alice, `bob-${way}`);
      const bob = await two.as(`bob-${way}`, `#/chats/${id}`);
      await write(bob, 'through the proxy');
      await seen(alice, 'through the proxy');
      await write(alice, 'and back');
      await shows(bob, ['through the proxy', 'and back']);
      await shows(alice, ['through the proxy', 'and back']);
      await one.assertClean();
    });
  }
});

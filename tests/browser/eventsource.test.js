// Pages of twelve lines with nothing but EventSource: by the cookie, and by a ticket on another site.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { randomUUID } from 'node:crypto';
import { before, after, describe, test } from 'node:test';
import { token } from '../client/server.js';
import { openDevice, startDemo } from './browser.js';

const page = (source) => `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Twelve lines</title></head>
<body>
<ol id="list"></ol>
<script>
const source = new EventSource(${source});
source.onmessage = ({ data }) => {
  document.querySelector('#list').appendChild(document.createElement('li')).textContent = JSON.parse(data).data.n;
};
</script>
</body></html>`;

describe('a page of twelve lines', () => {
  let server;
  let site;
  let html;
  before(async () => {
    site = createServer((_, answer) => answer.writeHead(200, { 'content-type': 'text/html' }).end(html)).listen(0, '127.0.0.1');
    await once(site, 'listening');
    // Another origin, the same site: cookies go along where the server allows the origin.
    server = await startDemo({ 'server.allowed_origins': [`http://127.0.0.1:${site.address().port}`] });
  });
  after(async () => {
    site.close();
    await server.stop();
  });

  async function follows(t, user, source, signIn) {
    html = page(source);
    assert.ok(html.split('\n').length <= 12, 'twelve lines');
    const device = await openDevice(t, server.origin);
    await signIn?.(device.context);
    const tab = await device.context.newPage();
    await tab.goto(`http://127.0.0.1:${site.address().port}/`);
    const events = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => ({ id: randomUUID(), data: { n: from + at } }));
    const shows = (count) => tab.waitForFunction((count) => document.querySelectorAll('li').length >= count, count);
    await server.publish(user, events(1, 20));
    await shows(20);
    const { port } = server;
    await server.kill();
    await server.start({ port });
    await server.publish(user, events(21, 40));
    await shows(40);
    assert.deepEqual(await tab.locator('li').allTextContents(), Array.from({ length: 40 }, (_, at) => String(at + 1)));
  }

  test('by the cookie', (t) => follows(t, 'cora', `'${server.origin}/v1/events?cursor=start', { withCredentials: true }`, async (context) => {
    const answer = await context.request.post(`${server.origin}/v1/session`, { headers: { authorization: `Bearer ${token('cora')}`, origin: server.origin } });
    assert.equal(answer.status(), 200, await answer.text());
  }));

  test('by a ticket, across sites', async (t) => {
    const answer = await fetch(`${server.origin}/v1/tickets`, { method: 'POST', headers: { authorization: `Bearer ${token('tina')}` } });
    const { ticket } = await answer.json();
    await follows(t, 'tina', `'${server.origin}/v1/events?cursor=start&ticket=${ticket}'`);
  });
});

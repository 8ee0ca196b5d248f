// permessage-deflate as npm ws and Chromium negotiate it: chosen when offered, absent when not, and messages of every
// size and of text that compresses well or badly arrive unharmed in both directions.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomBytes, randomUUID } from 'node:crypto';
import WebSocket from 'ws';
import { launchChromium } from './clients/chromium.js';
import { startServer, token } from './server.js';

const DATA = [
  {},
  { text: 'a'.repeat(60_000) },
  { text: randomBytes(30_000).toString('hex') },
  { text: 'Zażółć 🦀 '.repeat(2500) },
  ...Array.from({ length: 40 }, (_, n) => ({ n, text: 'the same words again and again, 你好' })),
];
const EVENTS = DATA.map((data) => ({ id: randomUUID(), data }));

test('npm ws: deflate is negotiated when offered, and messages are right either way', { timeout: 60_000 }, async (t) => {
  const server = await startServer();
  t.after(() => server.stop());
  await server.publish('alice', EVENTS);
  for (const perMessageDeflate of [true, false]) {
    const protocols = ['tidings.v1', `bearer.${token('alice')}`];
    const socket = new WebSocket(`${server.origin.replace('http', 'ws')}/v1/ws?cursor=start`, protocols, { perMessageDeflate });
    const { events, replies } = await receive(socket);
    assert.equal(socket.extensions.includes('permessage-deflate'), perMessageDeflate);
    assert.deepEqual(events.map(({ data }) => data), DATA);
    assert.deepEqual(replies, ['short', 'r'.repeat(120)]);
    socket.terminate();
  }
  assert.deepEqual(server.panics, []);
});

/** Everything up to the last event, and the replies to two pings: one short, one long enough to be compressed. */
async function receive(socket) {
  const events = [];
  const replies = [];
  await new Promise((done, fail) => {
    socket.on('error', fail);
    socket.on('close', (code) => fail(new Error(`closed with ${code}`)));
    socket.on('open', () => {
      for (const ref of ['short', 'r'.repeat(120)]) {
        socket.send(JSON.stringify({ op: 'ping', ref, note: 'z'.repeat(2000) }), { compress: true });
      }
    });
    socket.on('message', (bytes) => {
      const content = JSON.parse(bytes);
      if (content.type === 'sys.error') fail(new Error(bytes));
      if (content.type === 'sys.reply') replies.push(content.ref);
      else if (!content.type.startsWith('sys.') && content.ephemeral !== true) events.push(content);
      if (events.length >= DATA.length && replies.length === 2) done();
    });
  });
  return { events, replies };
}

test('Chromium: deflate is negotiated, the subprotocol is tidings.v1, and messages are right', { timeout: 60_000 }, async (t) => {
  const server = await startServer();
  t.after(() => server.stop());
  await server.publish('alice', EVENTS);
  const browser = await launchChromium();
  t.after(() => browser.close());
  const page = await browser.newPage();
  await page.goto(`${server.origin}/healthz`);
  const seen = await page.evaluate(readInPage, { bearer: token('alice'), count: DATA.length });
  assert.match(seen.extensions, /permessage-deflate/);
  assert.equal(seen.protocol, 'tidings.v1');
  assert.deepEqual(seen.data, DATA);
});

/** Runs in the page. */
function readInPage({ bearer, count }) {
  return new Promise((done, fail) => {
    const url = `${location.origin.replace('http', 'ws')}/v1/ws?cursor=start`;
    const socket = new WebSocket(url, ['tidings.v1', `bearer.${bearer}`]);
    const data = [];
    socket.onclose = ({ code }) => fail(new Error(`closed with ${code}`));
    socket.onmessage = (message) => {
      const content = JSON.parse(message.data);
      if (content.type.startsWith('sys.') || content.ephemeral) return;
      data.push(content.data);
      if (data.length === count) done({ data, protocol: socket.protocol, extensions: socket.extensions });
    };
  });
}

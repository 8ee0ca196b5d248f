// HTTP/2 floods over plain TCP with prior knowledge (FAULTS.md 4.1, H8): rapid reset, CONTINUATION, SETTINGS and PING
// floods, and a window that is never opened. The server may answer or end the connection; it must stay small, serve
// others at once, and log no panic. Conformance as such is h2spec's part, in tools.test.js.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { startServer, token } from '../client/server.js';
import { assertServes, assertSettles, peakResident } from './health.js';
import { Wire } from './wire.js';

const MIB = 2 ** 20;
const FLOOD = 20_000;
const RISE_MAX = 32 * MIB;
const ENDS_WITHIN_MS = 15_000;
const TYPE = { headers: 1, reset: 3, settings: 4, ping: 6, goaway: 7, continuation: 9 };
const END_STREAM = 1;
const END_HEADERS = 4;
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

function frame(type, flags, stream, payload = Buffer.alloc(0)) {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** A header block without Huffman codes and without the dynamic table: GET over http. */
function block(target, fields = {}) {
  const literal = (text) => Buffer.concat([integer(text.length), Buffer.from(text)]);
  const pairs = Object.entries({ ':path': target, ':authority': 'localhost', ...fields });
  return Buffer.concat([Buffer.of(0x82, 0x86), ...pairs.flatMap(([name, value]) => [Buffer.of(0), literal(name), literal(value)])]);
}

/** An integer with a prefix of seven bits (RFC 7541, 5.1). */
function integer(value) {
  if (value < 127) return Buffer.of(value);
  const bytes = [127];
  for (let rest = value - 127; ; rest >>= 7) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest & 127) | 128);
  }
}

const GET = block('/healthz');
const RESET = Buffer.of(0, 0, 0, 8);
const stream = (at) => 2 * at + 1;

const FLOODS = [
  { name: 'rapid reset', each: (at) => Buffer.concat([frame(TYPE.headers, END_STREAM | END_HEADERS, stream(at), GET), frame(TYPE.reset, 0, stream(at), RESET)]) },
  { name: 'streams that are never read', each: (at) => frame(TYPE.headers, END_STREAM | END_HEADERS, stream(at), GET) },
  { name: 'CONTINUATION without end', each: (at) => (at === 0 ? frame(TYPE.headers, END_STREAM, 1, GET) : frame(TYPE.continuation, 0, 1, Buffer.concat([Buffer.of(0, 1, 0x78, 100), Buffer.alloc(100, 0x61)]))), ends: true },
  { name: 'empty CONTINUATION without end', each: (at) => (at === 0 ? frame(TYPE.headers, END_STREAM, 1, GET) : frame(TYPE.continuation, 0, 1)), ends: true },
  { name: 'SETTINGS', each: () => frame(TYPE.settings, 0, 0, Buffer.of(0, 3, 0, 0, 0, 100)) },
  { name: 'PING', each: () => frame(TYPE.ping, 0, 0, Buffer.alloc(8)) },
  { name: 'frames of an unknown type', each: () => frame(0xfa, 0, 0, Buffer.alloc(20)) },
];

let server;
let baseBytes;

before(async () => {
  server = await startServer({ 'stream.write_timeout_seconds': 5 });
  const text = 'x'.repeat(50_000);
  await server.publish('alice', Array.from({ length: 20 }, () => ({ id: randomUUID(), data: { text } })));
  await assertServes(server);
  baseBytes = server.residentBytes;
});

after(() => server?.stop());

async function connected(settings = Buffer.alloc(0)) {
  const wire = new Wire(server.port);
  await wire.send(Buffer.concat([PREFACE, frame(TYPE.settings, 0, 0, settings)]));
  assert.ok(await wire.until(() => (wire.received.length >= 9 ? true : undefined)), 'no SETTINGS');
  return wire;
}

for (const { name, each, ends } of FLOODS) {
  for (const isRead of [true, false]) {
    test(`HTTP/2: ${FLOOD} of ${name}, ${isRead ? 'answers read' : 'answers unread'}`, { timeout: 60_000 }, async () => {
      const wire = await connected();
      if (isRead) discard(wire);
      else wire.socket.pause();
      const before = server.residentBytes;
      const peak = await peakResident(server, () => flood(wire, each));
      assert.ok(peak - before < RISE_MAX, `resident memory rose by ${((peak - before) / MIB).toFixed(1)} MiB`);
      wire.socket.resume();
      if (ends) assert.notEqual(await wire.untilEnded(ENDS_WITHIN_MS), undefined, 'the connection was not ended');
      await assertServes(server);
      wire.destroy();
    });
  }
}

function discard(wire) {
  wire.socket.removeAllListeners('data');
  wire.socket.on('data', () => {});
}

/** Ends early when the server closes, or no longer reads. */
async function flood(wire, each) {
  for (let at = 0; at < FLOOD; at += 100) {
    const bytes = Buffer.concat(Array.from({ length: 100 }, (_, more) => each(at + more)));
    const isTaken = await Promise.race([wire.send(bytes), new Promise((done) => setTimeout(done, 2000, false))]);
    if (!isTaken) return;
  }
}

test('HTTP/2: pages for a window that never opens cost little, and others are served', { timeout: 60_000 }, async () => {
  const window = Buffer.of(0, 4, 0, 0, 0, 0);
  const wire = await connected(window);
  discard(wire);
  const page = block('/v1/events?format=json&cursor=start&limit=1000', { authorization: `Bearer ${token('alice')}` });
  const asked = Array.from({ length: 50 }, (_, at) => frame(TYPE.headers, END_STREAM | END_HEADERS, stream(at), page));
  const before = server.residentBytes;
  const peak = await peakResident(server, async () => {
    await wire.send(Buffer.concat(asked));
    await assertServes(server);
    await new Promise((done) => setTimeout(done, 1500));
  });
  assert.ok(peak - before < 128 * MIB, `resident memory rose by ${((peak - before) / MIB).toFixed(1)} MiB`);
  wire.destroy();
});

test('HTTP/2: memory is back near base and no panic was logged', { timeout: 40_000 }, async () => {
  await assertSettles(server, baseBytes);
  assert.deepEqual(server.panics, []);
});

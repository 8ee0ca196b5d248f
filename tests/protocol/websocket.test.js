// WebSocket that no proper client speaks (FAULTS.md 4.5, RFC 6455 and 7692), over raw sockets on /v1/ws. Each row of frames
// names the close codes that are right, or that the connection lives on. After each row the server serves at once, and
// at the end its memory is back near where it was. Sizes count after inflating.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { deflateRawSync, constants } from 'node:zlib';
import { startServer, token } from '../client/server.js';
import { assertServes, assertSettles, peakResident } from './health.js';
import { closePayload, frame, OPCODE, openSocket } from './wire.js';

const MESSAGE_LIMIT = 65536;
const MIB = 2 ** 20;
const FLOOD = 100_000;
const FRAGMENT_TIMEOUT_MS = 10_000;
const UNFINISHED_ENDS_WITHIN_MS = 15_000;
const BEARER = { Authorization: `Bearer ${token('alice')}` };
const DEFLATE = { ...BEARER, 'Sec-WebSocket-Extensions': 'permessage-deflate; server_no_context_takeover' };
const PING_OP = '{"op":"ping","ref":"row"}';
const LIVES = 'lives on';
const { text, binary, continuation, close, ping, pong } = OPCODE;
const hex = (digits) => Buffer.from(digits, 'hex');
const inText = (bytes) => Buffer.concat([Buffer.from('{"op":"ping","ref":"'), bytes, Buffer.from('"}')]);

/** A message as permessage-deflate sends it: without the empty block at the end. */
function deflated(content) {
  return deflateRawSync(content, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4);
}

/** A ping op of exactly this many bytes. */
function sizedOp(bytes) {
  const frameless = '{"op":"ping","ref":"row","pad":""}';
  return `{"op":"ping","ref":"row","pad":"${'x'.repeat(bytes - frameless.length)}"}`;
}

const FRAMES = [
  { name: 'a right op', send: [frame({ payload: PING_OP })], ends: LIVES },
  { name: 'an op in fragments with a ping between', send: [frame({ payload: '{"op":"pi', fin: false }), frame({ opcode: ping, payload: 'x' }), frame({ opcode: continuation, payload: 'ng","ref":"row"}' })], ends: LIVES },
  { name: 'an unmasked frame', send: [frame({ payload: PING_OP, masked: false })], ends: [1002] },
  ...[1, 2, 4, 7].map((rsv) => ({ name: `reserved bits ${rsv} without deflate`, send: [frame({ payload: PING_OP, rsv })], ends: [1002] })),
  ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode) => ({ name: `reserved opcode ${opcode}`, send: [frame({ opcode, payload: 'x' })], ends: [1002] })),
  { name: 'a fragmented ping', send: [frame({ opcode: ping, payload: 'x', fin: false })], ends: [1002] },
  { name: 'a fragmented close', send: [frame({ opcode: close, payload: closePayload(1000), fin: false })], ends: [1002] },
  { name: 'a ping of 125 bytes', send: [frame({ opcode: ping, payload: 'p'.repeat(125) })], ends: LIVES },
  { name: 'a ping of 126 bytes', send: [frame({ opcode: ping, payload: 'p'.repeat(126) })], ends: [1002] },
  { name: 'a close of 126 bytes', send: [frame({ opcode: close, payload: closePayload(1000, 'r'.repeat(124)) })], ends: [1002] },
  { name: 'a pong of 126 bytes', send: [frame({ opcode: pong, payload: 'p'.repeat(126) })], ends: [1002] },
  { name: 'a pong nobody asked for', send: [frame({ opcode: pong, payload: 'x' })], ends: LIVES },
  { name: 'a continuation of nothing', send: [frame({ opcode: continuation, payload: PING_OP })], ends: [1002] },
  { name: 'a new message inside a fragmented one', send: [frame({ payload: '{', fin: false }), frame({ payload: PING_OP })], ends: [1002] },
  { name: 'text of one bad byte', send: [frame({ payload: inText(hex('ff')) })], ends: [1007] },
  { name: 'overlong UTF-8', send: [frame({ payload: inText(hex('c0af')) })], ends: [1007] },
  { name: 'a surrogate in UTF-8', send: [frame({ payload: inText(hex('eda080')) })], ends: [1007] },
  { name: 'UTF-8 beyond U+10FFFF', send: [frame({ payload: inText(hex('f4908080')) })], ends: [1007] },
  { name: 'text that ends inside a character', send: [frame({ payload: hex('e282') })], ends: [1007] },
  { name: 'bad UTF-8 split over fragments', send: [frame({ payload: hex('cebae1bdb9cf83cebc'), fin: false }), frame({ opcode: continuation, payload: hex('eda080') })], ends: [1007] },
  { name: 'a character split over fragments', send: [frame({ payload: inText(hex('e282')).subarray(0, -2), fin: false }), frame({ opcode: continuation, payload: Buffer.concat([hex('ac'), Buffer.from('"}')]) })], ends: LIVES },
  { name: 'a binary message', send: [frame({ opcode: binary, payload: hex('00ff') })], ends: [1003, 4400] },
  ...[0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535].map((code) => ({ name: `close code ${code}`, send: [frame({ opcode: close, payload: closePayload(code) })], ends: [1002] })),
  ...[1000, 1001, 1002, 1003, 1007, 1011, 3000, 3999, 4000, 4999].map((code) => ({ name: `close code ${code} is echoed`, send: [frame({ opcode: close, payload: closePayload(code, 'grüße') })], ends: [code, 1000] })),
  { name: 'an empty close', send: [frame({ opcode: close })], ends: [null, 1000] },
  { name: 'a close of one byte', send: [frame({ opcode: close, payload: hex('03') })], ends: [1002] },
  { name: 'a close reason that is no UTF-8', send: [frame({ opcode: close, payload: closePayload(1000, hex('cebaed')) })], ends: [1007, 1002] },
  { name: 'ops after a close are not answered', send: [frame({ opcode: close, payload: closePayload(1000) }), frame({ payload: PING_OP })], ends: [1000], silent: true },
  { name: 'a message at the limit', send: [frame({ payload: sizedOp(MESSAGE_LIMIT) })], ends: LIVES },
  { name: 'a message one byte over the limit', send: [frame({ payload: sizedOp(MESSAGE_LIMIT + 1) })], ends: [1009] },
  { name: 'fragments that are over the limit together', send: Array.from({ length: 5 }, (_, at) => frame({ opcode: at ? continuation : text, payload: 'x'.repeat(20_000), fin: at === 4 })), ends: [1009] },
  { name: 'fragments without end', send: Array.from({ length: 10 }, (_, at) => frame({ opcode: at ? continuation : text, payload: 'x'.repeat(20_000), fin: false })), ends: [1009] },
  { name: 'a header that claims 2^40 bytes', send: [frame({ payload: 'x', length: 2n ** 40n })], ends: [1009] },
  { name: 'a header that claims 2^63 bytes', send: [frame({ payload: 'x', length: 2n ** 63n })], ends: [1002, 1009] },
];

const DEFLATED = [
  { name: 'a deflated op', send: [frame({ payload: deflated(PING_OP), rsv: 4 })], ends: LIVES },
  { name: 'an op that is not deflated', send: [frame({ payload: PING_OP })], ends: LIVES },
  { name: 'a deflated op in fragments', send: [frame({ payload: deflated(PING_OP).subarray(0, 9), rsv: 4, fin: false }), frame({ opcode: continuation, payload: deflated(PING_OP).subarray(9) })], ends: LIVES },
  { name: 'a deflated message at the limit', send: [frame({ payload: deflated(sizedOp(MESSAGE_LIMIT)), rsv: 4 })], ends: LIVES },
  { name: 'a deflated message one byte over the limit', send: [frame({ payload: deflated(sizedOp(MESSAGE_LIMIT + 1)), rsv: 4 })], ends: [1009] },
  { name: 'a bomb of 64 MiB', send: [frame({ payload: deflated(Buffer.alloc(64 * MIB - 4096)), rsv: 4 })], ends: [1009], flat: true },
  { name: 'a bomb of 64 MiB in fragments', send: inFragments(deflated(Buffer.alloc(64 * MIB - 4096)), 10), ends: [1009], flat: true },
  { name: 'a bomb of 10 MiB', send: [frame({ payload: deflated(Buffer.alloc(10 * MIB)), rsv: 4 })], ends: [1009], flat: true },
  { name: 'bytes that do not inflate', send: [frame({ payload: hex('ffffffffffff'), rsv: 4 })], ends: [1007] },
  { name: 'text that inflates to bad UTF-8', send: [frame({ payload: deflated(inText(hex('ff'))), rsv: 4 })], ends: [1007] },
  { name: 'the deflate bit on a continuation', send: [frame({ payload: '{', fin: false }), frame({ opcode: continuation, payload: '}', rsv: 4 })], ends: [1007] },
  // Wrong today: RFC 7692, 6.1 wants the connection failed; yawc takes it for a ping.
  { name: 'the deflate bit on a ping', send: [frame({ opcode: ping, payload: 'x', rsv: 4 })], ends: LIVES },
];

function inFragments(bytes, count) {
  const size = Math.ceil(bytes.length / count);
  return Array.from({ length: count }, (_, at) => {
    const payload = bytes.subarray(at * size, (at + 1) * size);
    return frame({ opcode: at ? continuation : text, rsv: at ? 0 : 4, payload, fin: at === count - 1 });
  });
}

let server;
let baseBytes;

before(async () => {
  server = await startServer();
  await assertServes(server);
  baseBytes = server.residentBytes;
});

after(() => server?.stop());

async function opened(headers) {
  const { status, isAcceptRight, socket, headers: answer } = await openSocket(server.port, { headers });
  assert.equal(status, 101);
  assert.ok(isAcceptRight, 'Sec-WebSocket-Accept');
  assert.equal('permessage-deflate' in { [answer['sec-websocket-extensions']?.split(';')[0]]: 1 }, headers === DEFLATE);
  assert.ok(await socket.message(({ type }) => type === 'sys.ready'), 'no sys.ready');
  return socket;
}

for (const [title, headers, rows] of [['WebSocket', BEARER, FRAMES], ['WebSocket with deflate', DEFLATE, DEFLATED]]) {
  for (const row of rows) test(`${title}: ${row.name}`, { timeout: 30_000 }, () => checkFrames(headers, row));
}

async function checkFrames(headers, { send, ends, flat, silent }) {
  const socket = await opened(headers);
  const rise = server.residentBytes;
  const peak = await peakResident(server, async () => {
    await socket.send(...send);
    if (ends === LIVES) assert.ok(await socket.isAlive(), 'the connection should live');
    else await assertCloses(socket, ends);
  });
  if (flat) assert.ok(peak - rise < 16 * MIB, `resident memory rose by ${peak - rise} bytes`);
  if (silent) assert.equal(socket.frames.filter((one) => one.opcode === text && /"row"/.test(one.payload)).length, 0);
  assert.ok(socket.frames.every(({ masked }) => masked === 0), 'a server never masks');
  socket.destroy();
  await assertServes(server);
}

async function assertCloses(socket, codes) {
  const { code, hasCloseFrame, isEnded } = await socket.closed();
  assert.ok(hasCloseFrame, `no close frame (wanted ${codes}); the connection ${isEnded ? 'was cut' : 'stays open'}`);
  assert.ok(codes.includes(code), `close code ${code}, wanted ${codes}`);
  assert.ok(isEnded, 'TCP was not closed');
}

test('WebSocket: a ping comes back as a pong with its payload', async () => {
  const socket = await opened(BEARER);
  await socket.send(frame({ opcode: ping, payload: 'p'.repeat(125) }), frame({ opcode: ping }));
  assert.ok(await socket.find((one) => one.opcode === pong && one.payload.equals(Buffer.from('p'.repeat(125)))));
  assert.ok(await socket.find((one) => one.opcode === pong && one.payload.length === 0));
  socket.destroy();
});

test('WebSocket: what is no op is told, with its ref', async () => {
  for (const content of ['{"op":"nothing","ref":"row"}', '{"op":"ack","ref":"row"}', '{"op":"ack","ref":"row","cursor":5}']) {
    const socket = await opened(BEARER);
    await socket.send(frame({ payload: content }));
    const answer = await socket.message(({ type, ref }) => type === 'sys.error' && ref === 'row');
    assert.ok(answer?.code && answer?.message, `${content}: ${JSON.stringify(answer)}`);
    socket.destroy();
  }
});

for (const content of ['', 'nonsense', '[]', '5', '"ping"', '{"op":5}', '[[[['.repeat(10_000)]) {
  test(`WebSocket: text ${JSON.stringify(content.slice(0, 12))} is an error or the end, never silence`, async () => {
    const socket = await opened(BEARER);
    await socket.send(frame({ payload: content }));
    const isTold = (one) => (one.opcode === text && /"sys.error"/.test(one.payload)) || (one.opcode === close && one.payload.readUInt16BE() === 4400);
    assert.ok(await socket.find(isTold), 'neither sys.error nor 4400');
    socket.destroy();
    await assertServes(server);
  });
}

test(`WebSocket: ${FLOOD} pings are bounded, read or unread`, { timeout: 90_000 }, async () => {
  const flood = Buffer.concat(Array.from({ length: 1000 }, () => frame({ opcode: ping, payload: 'flood' })));
  for (const isRead of [true, false]) {
    const socket = await opened(BEARER);
    if (!isRead) socket.wire.socket.pause();
    await assertBounded(() => sendMany(socket, flood, FLOOD / 1000));
    socket.destroy();
    await assertServes(server);
  }
});

test(`WebSocket: ${FLOOD} empty fragments are bounded`, { timeout: 90_000 }, async () => {
  const socket = await opened(BEARER);
  await socket.send(frame({ payload: '', fin: false }));
  const flood = Buffer.concat(Array.from({ length: 1000 }, () => frame({ opcode: continuation, fin: false })));
  await assertBounded(() => sendMany(socket, flood, FLOOD / 1000));
  socket.destroy();
  await assertServes(server);
});

async function assertBounded(work) {
  const before = server.residentBytes;
  const peak = await peakResident(server, work);
  assert.ok(peak - before < 32 * MIB, `resident memory rose by ${peak - before} bytes`);
}

/** Ends early when the server closes, or no longer reads. */
async function sendMany(socket, bytes, times) {
  for (let sent = 0; sent < times; sent += 1) {
    const isTaken = await Promise.race([socket.send(bytes), new Promise((done) => setTimeout(done, 3000, false))]);
    if (!isTaken) return;
  }
}

test('WebSocket: memory is back near base and no panic was logged', { timeout: 40_000 }, async () => {
  await assertSettles(server, baseBytes);
  assert.deepEqual(server.panics, []);
});

const BEGUN = {
  'half a frame': frame({ payload: PING_OP }).subarray(0, 10),
  'half a head': frame({ payload: sizedOp(200) }).subarray(0, 2),
};

test('WebSocket: what is begun and never finished is ended', { timeout: UNFINISHED_ENDS_WITHIN_MS * 2 }, async (t) => {
  const impatient = await startServer({ 'ws.ping_seconds': 2, 'ws.pong_timeout_seconds': 2 });
  t.after(() => impatient.stop());
  const open = await Promise.all(Object.entries(BEGUN).map(([name, bytes]) => staysOpen(impatient.port, name, bytes)));
  assert.deepEqual(open.filter((name) => name !== null), []);
});

/** The name, when the connection lives longer than it may. */
async function staysOpen(port, name, bytes) {
  const { socket } = await openSocket(port, { headers: BEARER });
  await socket.send(bytes);
  const ended = await socket.wire.untilEnded(UNFINISHED_ENDS_WITHIN_MS);
  socket.destroy();
  return ended === undefined ? name : null;
}

// Before the ping timer has its turn: a peer that answers pings could otherwise hold half a message for ever.
test('WebSocket: a fragment that does not come ends the connection', { timeout: 30_000 }, async () => {
  const socket = await opened(BEARER);
  await socket.send(frame({ payload: '{"op":', fin: false }));
  const waiting = setInterval(() => socket.send(frame({ opcode: pong })), 1000);
  await pause(FRAGMENT_TIMEOUT_MS);
  await assertCloses(socket, [1008]);
  clearInterval(waiting);
});

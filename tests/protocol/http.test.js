// HTTP/1.1 that no proper client sends (FAULTS.md 4.1: H2, H3, H5, H7, H9, H10), over raw sockets. Each row names the
// statuses that are right and whether the connection must end. After each row the server still serves at once, and in
// the end its memory is back near where it was. Nothing here may be half applied: refused publishes leave no event.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startServer, token } from '../client/server.js';
import { assertServes, assertSettles, peakResident } from './health.js';
import { exchange, request, Wire } from './wire.js';

const BODY_LIMIT = 4 * 2 ** 20;
const ENDS_WITHIN_MS = 12_000;
const PIPELINED = 20_000;
const CONNECTS = 3_000;
const MIB = 2 ** 20;

const HOST = 'Host: localhost';
const PUBLISHER = `Authorization: Bearer ${token('backend', { scope: 'publish' })}`;
const READER = `Authorization: Bearer ${token('alice')}`;
const JSON_BODY = 'Content-Type: application/json';
const EVENT = JSON.stringify({ to: { user: 'victim' }, type: 'test.item', data: { refused: true } });

function get(target, fields = []) {
  return request(`GET ${target} HTTP/1.1`, [HOST, READER, ...fields]);
}

function publish(body, fields = []) {
  return request('POST /v1/publish HTTP/1.1', [HOST, PUBLISHER, JSON_BODY, ...fields], body);
}

function sized(body) {
  return publish(body, [`Content-Length: ${Buffer.byteLength(body)}`]);
}

/** One event in a body of exactly this many bytes. */
function padded(bytes) {
  return EVENT.replace('victim', 'bystander') + ' '.repeat(bytes - EVENT.length - 'bystander'.length + 'victim'.length);
}

/** `fields` header lines beside Host. */
function headers(fields) {
  return request('GET /healthz HTTP/1.1', [HOST, ...Array.from({ length: fields }, (_, n) => `X-Field-${n}: v`)]);
}

function longHeader(bytes) {
  return request('GET /healthz HTTP/1.1', [HOST, `X-Long: ${'v'.repeat(bytes)}`]);
}

const BAD_UTF8 = Buffer.concat([Buffer.from(EVENT.slice(0, -3)), Buffer.of(0x22, 0xff, 0x22), Buffer.from('}}')]);

const SMUGGLING = Buffer.concat([
  publish(chunked(EVENT.replace('victim', 'bystander')), ['Content-Length: 5', 'Transfer-Encoding: chunked']),
  get('/v1/events?format=json'),
]);

const ROWS = [
  // H2
  { name: 'wrong UTF-8 in a JSON body', send: sized(BAD_UTF8), status: [400] },
  { name: '%ff in a path', send: publish('{}', ['Content-Length: 2']).toString('latin1').replace('/v1/publish', '/v1/users/%ff/notify'), status: [400] },
  { name: 'a raw 0xff in a path', send: get('/v1/topics/\xff/subscribers'), status: [400] },
  { name: '%ff in a filter', send: get('/v1/events?format=json&types=%ff'), status: [400] },
  { name: '%ff in a cursor of a page', send: get('/v1/events?format=json&cursor=%ff'), status: [400] },
  { name: 'a raw 0xff in a query', send: get('/v1/events?format=json&cursor=\xff'), status: [400] },
  { name: 'a raw 0xff in a bearer token', send: request('GET /v1/events HTTP/1.1', [HOST, 'Authorization: Bearer \xff']), status: [400, 401] },
  { name: 'a raw 0xff in an idempotency key', send: publish(EVENT, [`Content-Length: ${EVENT.length}`, 'Idempotency-Key: \xff']), status: [400] },
  { name: 'NUL in a header', send: request('GET /healthz HTTP/1.1', [HOST, 'X-Field: a\0b']), status: [400], ends: true },
  { name: 'a header line without a colon', send: request('GET /healthz HTTP/1.1', [HOST, 'nonsense']), status: [400], ends: true },
  { name: 'a space before the colon', send: request('GET /healthz HTTP/1.1', [HOST, 'X-Field : a']), status: [400], ends: true },
  { name: 'a folded header line', send: request('GET /healthz HTTP/1.1', [HOST, 'X-Field: a\r\n b']), status: [400], ends: true },
  { name: 'bytes that are no HTTP', send: Buffer.from('\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', 'latin1'), status: [400, 0], ends: true },
  // H3
  { name: 'a body at the limit', send: sized(padded(BODY_LIMIT)), status: [201] },
  // Wrong today: the early answer leaves the body unread, and the reset that follows can overtake the 413 (RFC 9112, 9.6).
  { name: 'a body one byte over the limit', send: sized(padded(BODY_LIMIT + 1)), status: [413] },
  { name: '10 GB declared', send: publish(EVENT, ['Content-Length: 10000000000']), status: [413], ends: true },
  { name: '10 GB declared, Expect: 100-continue', send: publish('', ['Content-Length: 10000000000', 'Expect: 100-continue']), status: [413, 417], ends: true },
  { name: 'a length beyond 64 bits', send: publish(EVENT, ['Content-Length: 18446744073709551616']), status: [400, 413], ends: true },
  { name: 'a negative length', send: publish(EVENT, ['Content-Length: -1']), status: [400], ends: true },
  { name: 'a length with a sign', send: publish(EVENT, [`Content-Length: +${EVENT.length}`]), status: [400], ends: true },
  { name: 'a length in words', send: publish(EVENT, ['Content-Length: many']), status: [400], ends: true },
  { name: 'two different lengths', send: publish(EVENT, [`Content-Length: ${EVENT.length}`, 'Content-Length: 5']), status: [400], ends: true },
  { name: 'two different lengths in one line', send: publish(EVENT, [`Content-Length: ${EVENT.length}, 5`]), status: [400], ends: true },
  // RFC 9112, 6.1 lets a server take the chunks if it ends the connection after, and hyper does; what follows must not be answered.
  { name: 'length and chunks', send: SMUGGLING, status: [400, 201], ends: true, body: (text) => text.split('HTTP/1.1 ').length === 2 },
  { name: 'an unknown transfer coding', send: publish(EVENT, ['Transfer-Encoding: xchunked']), status: [400, 501], ends: true },
  { name: 'chunked, but not last', send: publish(EVENT, ['Transfer-Encoding: chunked, gzip']), status: [400, 501], ends: true },
  { name: 'a chunk size that is no number', send: publish(`zz\r\n${EVENT}\r\n0\r\n\r\n`, ['Transfer-Encoding: chunked']), status: [400], ends: true },
  { name: 'a chunk size beyond 64 bits', send: publish(`fffffffffffffffff\r\n${EVENT}`, ['Transfer-Encoding: chunked']), status: [400, 413], ends: true },
  { name: 'a body cut by its sender', send: publish(EVENT.slice(0, 20), [`Content-Length: ${EVENT.length}`]), status: [400, 408, 0], ends: true },
  { name: 'chunks without end', send: publish(chunked('[1,'), ['Transfer-Encoding: chunked']).subarray(0, -5), status: [400, 408, 0], ends: true },
  { name: 'chunks without end, over the limit', send: publish(chunked(' '.repeat(BODY_LIMIT + 70000)), ['Transfer-Encoding: chunked']).subarray(0, -5), status: [413], ends: true },
  { name: 'a compressed body', send: publish(EVENT, [`Content-Length: ${EVENT.length}`, 'Content-Encoding: gzip']), status: [415, 400] },
  // H5
  { name: '90 headers', send: headers(90), status: [200] },
  { name: '101 headers', send: headers(100), status: [431], ends: true },
  { name: 'a header of 8 KB', send: longHeader(8 * 1024), status: [200] },
  { name: 'a header of 64 KB', send: longHeader(64 * 1024), status: [431], ends: true },
  { name: 'a header of 500 KB', send: longHeader(500 * 1024), status: [431], ends: true },
  { name: 'a request line of 70 KB', send: get(`/${'p'.repeat(70 * 1024)}`), status: [400, 414, 431], ends: true },
  // H9
  { name: 'TRACE', send: request('TRACE / HTTP/1.1', [HOST]), status: [405, 501] },
  { name: 'TRACE on a stream', send: request('TRACE /v1/events HTTP/1.1', [HOST, READER]), status: [405] },
  { name: 'CONNECT', send: request('CONNECT example.com:443 HTTP/1.1', ['Host: example.com:443']), status: [400, 404, 405, 501] },
  { name: 'PUT on a stream', send: request('PUT /v1/events HTTP/1.1', [HOST, READER, 'Content-Length: 0']), status: [405] },
  { name: 'POST on a stream', send: request('POST /v1/events HTTP/1.1', [HOST, READER, 'Content-Length: 0']), status: [405] },
  { name: 'DELETE on publish', send: request('DELETE /v1/publish HTTP/1.1', [HOST, PUBLISHER]), status: [405] },
  { name: 'an unknown method', send: request('FROBNICATE /v1/events HTTP/1.1', [HOST, READER]), status: [405, 501] },
  { name: 'an override header changes nothing', send: get('/v1/events?format=json', ['X-HTTP-Method-Override: DELETE', 'X-Method-Override: PUT']), status: [200] },
  { name: 'no Host', send: request('GET /healthz HTTP/1.1'), status: [400] },
  { name: 'Host twice', send: request('GET /healthz HTTP/1.1', ['Host: a', 'Host: b']), status: [400] },
  { name: 'a Host with a space', send: request('GET /healthz HTTP/1.1', ['Host: a b']), status: [400] },
  { name: 'HTTP/1.0 without Host', send: request('GET /healthz HTTP/1.0'), status: [200], ends: true },
  { name: 'HTTP/9.9', send: request('GET /healthz HTTP/9.9', [HOST]), status: [400, 505], ends: true },
];

const DRIPS = {
  'a head': [Buffer.from('GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: '), 'a'],
  'a body of known length': [publish('{"to":', ['Content-Length: 4096']), ' '],
  'a chunked body': [publish('1\r\n{\r\n', ['Transfer-Encoding: chunked']), '1\r\n \r\n'],
};

const TRAVERSALS = [
  '/../../../../etc/passwd', '/%2e%2e/%2e%2e/%2e%2e/etc/passwd', '/..%2f..%2f..%2fetc%2fpasswd', '/..%5c..%5c..%5cetc%5cpasswd',
  '/%00', '/index.html%00.txt', '//etc/passwd', '/static/../../../etc/passwd', '/static/%2e%2e%2f%2e%2e%2fCargo.toml', '/./../Cargo.toml',
  '/docs/..%2f..%2fconfig.toml', '/%252e%252e/%252e%252e/etc/passwd',
];
for (const target of TRAVERSALS) {
  ROWS.push({ name: `path ${target}`, send: get(target), status: [400, 404], body: (text) => !/root:|\[package\]|\[server\]/.test(text) });
}

function chunked(body) {
  const size = 65536;
  const pieces = [];
  for (let at = 0; at < body.length; at += size) {
    const piece = body.slice(at, at + size);
    pieces.push(`${piece.length.toString(16)}\r\n${piece}\r\n`);
  }
  return `${pieces.join('')}0\r\n\r\n`;
}

let server;
let baseBytes;

before(async () => {
  server = await startServer();
  await assertServes(server);
  baseBytes = server.residentBytes;
});

after(() => server?.stop());

// Side by side, since some rows wait for a time-out.
describe('HTTP/1.1', { concurrency: 16 }, () => {
  for (const { name, send, status, ends, body } of ROWS) {
    test(`HTTP: ${name}`, async () => {
      const got = await exchange(server.port, Buffer.from(send), ENDS_WITHIN_MS);
      assert.ok(status.includes(got.status), `status ${got.status}, wanted ${status}: ${got.rest.toString('latin1', 0, 300)}`);
      if (ends) assert.notEqual(await got.wire.untilEnded(ENDS_WITHIN_MS), undefined, 'the connection was not ended');
      if (body) assert.ok(body(got.wire.received.toString('latin1')), 'the answer holds what it must not');
      got.wire.destroy();
      await assertServes(server);
    });
  }

  for (const [name, [begin, drip]] of Object.entries(DRIPS)) {
    test(`HTTP: ${name} that drips one byte each half second is ended`, { timeout: 30_000 }, async () => {
      const wire = new Wire(server.port);
      await wire.send(begin);
      const dripping = setInterval(() => wire.socket.destroyed || wire.socket.write(drip), 500);
      assert.notEqual(await wire.untilEnded(ENDS_WITHIN_MS), undefined, 'still open');
      clearInterval(dripping);
      wire.destroy();
    });
  }
});

test('HTTP: 405 names the allowed methods', async () => {
  const { status, headers: fields } = await exchange(server.port, request('PUT /v1/events HTTP/1.1', [HOST, READER, 'Content-Length: 0']));
  assert.equal(status, 405);
  assert.match(fields.allow ?? '', /GET/);
});

test('HTTP: nothing that was refused is half applied', async () => {
  const target = '/v1/events?format=json&cursor=start&wait=0';
  const got = await exchange(server.port, request(`GET ${target} HTTP/1.1`, [HOST, `Authorization: Bearer ${token('victim')}`]));
  await got.wire.until(() => (/"head"/.test(got.wire.received.toString()) ? true : undefined));
  assert.match(got.wire.received.toString(), /"events":\[\]/);
  got.wire.destroy();
});

test(`HTTP: ${PIPELINED} pipelined requests are all answered in order`, { timeout: 60_000 }, async () => {
  const wire = new Wire(server.port);
  const answers = countAnswers(wire);
  const batch = Buffer.concat(Array.from({ length: 100 }, () => request('GET /healthz HTTP/1.1', [HOST])));
  const peak = await peakResident(server, async () => {
    for (let sent = 0; sent < PIPELINED; sent += 100) await wire.send(batch);
    assert.equal(await wire.until(() => (answers.count >= PIPELINED ? answers.count : undefined), 50_000), PIPELINED);
  });
  assert.ok(peak < baseBytes + 64 * MIB, `resident memory rose to ${peak}`);
  wire.destroy();
  await assertServes(server);
});

/** Counts status lines as they come, without keeping the bytes. */
function countAnswers(wire) {
  const answers = { count: 0, rest: '' };
  wire.socket.removeAllListeners('data');
  wire.socket.on('data', (bytes) => {
    const text = answers.rest + bytes.toString('latin1');
    const parts = text.split('HTTP/1.1 200 OK\r\n');
    answers.count += parts.length - 1;
    // Only the start of a status line that was cut is carried on.
    answers.rest = parts.at(-1).slice(-16);
    wire.waiting.forEach((look) => look());
  });
  return answers;
}

test(`HTTP: ${PIPELINED} pipelined requests whose answers nobody reads cost little`, { timeout: 60_000 }, async () => {
  const wire = new Wire(server.port);
  wire.socket.pause();
  const batch = Buffer.concat(Array.from({ length: 100 }, () => request('GET /openapi.json HTTP/1.1', [HOST])));
  const peak = await peakResident(server, async () => {
    for (let sent = 0; sent < PIPELINED; sent += 100) {
      const isTaken = await Promise.race([wire.send(batch), new Promise((done) => setTimeout(done, 2000, 'stalled'))]);
      if (isTaken !== true) break;
    }
  });
  assert.ok(peak < baseBytes + 64 * MIB, `resident memory rose to ${peak}`);
  await assertServes(server);
  wire.destroy();
});

test(`HTTP: ${CONNECTS} connections opened and closed at once`, { timeout: 60_000 }, async () => {
  for (let opened = 0; opened < CONNECTS; opened += 50) {
    await Promise.all(Array.from({ length: 50 }, async (_, at) => {
      const wire = new Wire(server.port);
      await new Promise((done) => wire.socket.once('connect', done).once('error', done));
      if (at % 2) await wire.send(Buffer.from('GET / HT'));
      if (at % 3) wire.socket.resetAndDestroy();
      else wire.destroy();
    }));
  }
  await assertServes(server);
});

test('HTTP: memory is back near base and no panic was logged', { timeout: 40_000 }, async () => {
  await assertSettles(server, baseBytes);
  assert.deepEqual(server.panics, []);
});

// Who may open a WebSocket, and how (FAULTS.md 4.5, PROTOCOL.md 3.5 and 4): the handshake's fields, subprotocols, origins,
// cookies, tickets, the bearer subprotocol, the first message, extension offers, and pings that nobody answers.
// Each row names the statuses that are right; an accepted one must also be a right answer to its key.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startServer, token } from '../client/server.js';
import { assertServes } from './health.js';
import { openSocket } from './wire.js';

const BEARER = { Authorization: `Bearer ${token('alice')}` };
const AUTH_TIMEOUT_SECONDS = 2;
const SLACK_MS = 3000;

let server;
let cookie;
const own = () => `http://127.0.0.1:${server.port}`;
const ALLOWED = 'https://allowed.example';

before(async () => {
  server = await startServer({
    'server.allowed_origins': [ALLOWED],
    'ws.auth_timeout_seconds': AUTH_TIMEOUT_SECONDS,
    'ws.ping_seconds': 1,
    'ws.pong_timeout_seconds': 1,
  });
  const session = await fetch(`${own()}/v1/session`, { method: 'POST', headers: { authorization: BEARER.Authorization, origin: own() } });
  cookie = session.headers.get('set-cookie')?.split(';')[0] ?? `no cookie: ${session.status}`;
});

after(() => server?.stop());

const UPGRADES = [
  { name: 'a right one', status: [101] },
  { name: 'the alias /ws', target: '/ws', status: [101] },
  { name: 'field values in other case', headers: { Upgrade: 'WebSocket', Connection: 'keep-alive, upgrade' }, status: [101] },
  { name: 'no key', headers: { 'Sec-WebSocket-Key': null }, status: [400] },
  { name: 'an empty key', headers: { 'Sec-WebSocket-Key': '' }, status: [400] },
  { name: 'a key of 15 bytes', headers: { 'Sec-WebSocket-Key': Buffer.alloc(15).toString('base64') }, status: [400] },
  { name: 'a key that is not base64', headers: { 'Sec-WebSocket-Key': '!!!!!!!!!!!!!!!!!!!!!!==' }, status: [400] },
  { name: 'two keys', headers: { 'Sec-WebSocket-Key': ['AAAAAAAAAAAAAAAAAAAAAA==', 'AQAAAAAAAAAAAAAAAAAAAA=='] }, status: [400] },
  { name: 'no version', headers: { 'Sec-WebSocket-Version': null }, status: [400, 426] },
  { name: 'version 8', headers: { 'Sec-WebSocket-Version': '8' }, status: [400, 426] },
  { name: 'version 13x', headers: { 'Sec-WebSocket-Version': '13x' }, status: [400, 426] },
  { name: 'no Upgrade', headers: { Upgrade: null }, status: [400, 426] },
  { name: 'another Upgrade', headers: { Upgrade: 'h2c' }, status: [400, 426] },
  { name: 'no Connection', headers: { Connection: null }, status: [400, 426] },
  { name: 'POST', method: 'POST', headers: { 'Content-Length': '0' }, status: [400, 405] },
  { name: 'HTTP/1.0', version: 'HTTP/1.0', status: [400, 426, 505] },
  { name: 'no Host', headers: { Host: null }, status: [400] },
];

for (const { name, status, headers = {}, ...rest } of UPGRADES) {
  test(`handshake: ${name}`, async () => checkStatus({ headers: { ...BEARER, ...headers }, ...rest }, status));
}

const OFFERS = [
  { offered: null, status: [101], selected: undefined },
  { offered: 'tidings.v1', status: [101], selected: 'tidings.v1' },
  { offered: 'chat, tidings.v1', status: [101], selected: 'tidings.v1' },
  { offered: ['chat', 'tidings.v1'], status: [101], selected: 'tidings.v1' },
  { offered: 'chat', status: [400] },
  { offered: 'tidings.v2, chat', status: [400] },
  { offered: 'TIDINGS.V1', status: [400] },
];

for (const { offered, status, selected } of OFFERS) {
  test(`handshake: subprotocols ${JSON.stringify(offered)}`, async () => {
    const answer = await checkStatus({ headers: { ...BEARER, 'Sec-WebSocket-Protocol': offered } }, status);
    assert.equal(answer['sec-websocket-protocol'], selected);
  });
}

// A right bearer token does not excuse a foreign page: the list is checked on every handshake.
const ORIGINS = [
  { name: 'a bearer token and no origin', fields: () => BEARER, status: [101] },
  { name: 'a bearer token from the own origin', fields: () => ({ ...BEARER, Origin: own() }), status: [101] },
  { name: 'a bearer token from an allowed origin', fields: () => ({ ...BEARER, Origin: ALLOWED }), status: [101] },
  ...['https://evil.example', 'null', `${ALLOWED}.evil.example`, 'http://allowed.example', `${ALLOWED}:444`, 'https://evil.example/https://allowed.example']
    .map((origin) => ({ name: `a bearer token from ${origin}`, fields: () => ({ ...BEARER, Origin: origin }), status: [403] })),
  { name: 'a bearer token from a longer own origin', fields: () => ({ ...BEARER, Origin: `${own()}.evil.example` }), status: [403] },
  { name: 'two origins', fields: () => ({ ...BEARER, Origin: [own(), 'https://evil.example'] }), status: [400, 403] },
  { name: 'a cookie from the own origin', fields: () => ({ Cookie: cookie, Origin: own() }), status: [101] },
  { name: 'a cookie from an allowed origin', fields: () => ({ Cookie: cookie, Origin: ALLOWED }), status: [101] },
  { name: 'a cookie without an origin', fields: () => ({ Cookie: cookie }), status: [403] },
  { name: 'a cookie from a foreign origin', fields: () => ({ Cookie: cookie, Origin: 'https://evil.example' }), status: [403] },
  { name: 'a cookie from another port', fields: () => ({ Cookie: cookie, Origin: 'http://127.0.0.1:1' }), status: [403] },
  { name: 'a wrong bearer token', fields: () => ({ Authorization: `${BEARER.Authorization}x` }), status: [401] },
];

for (const { name, fields, status } of ORIGINS) {
  test(`handshake: ${name}`, async () => checkStatus({ headers: fields() }, status));
}

async function checkStatus(options, status) {
  const got = await openSocket(server.port, options);
  assert.ok(status.includes(got.status), `status ${got.status}, wanted ${status}: ${got.rest.toString('latin1', 0, 200)}`);
  if (got.status === 101) {
    assert.ok(got.isAcceptRight, 'Sec-WebSocket-Accept');
    assert.ok(await got.socket.message(({ type }) => type === 'sys.ready'), 'no sys.ready');
  }
  if (got.status === 426) assert.ok('upgrade' in got.headers || got.headers['sec-websocket-version'] === '13', '426 names the cure');
  got.socket.destroy();
  await assertServes(server);
  return got.headers;
}

const WAYS = [
  { name: 'the bearer subprotocol', open: () => ({ headers: { 'Sec-WebSocket-Protocol': `tidings.v1, bearer.${token('alice')}` } }) },
  { name: 'a ticket', open: async () => ({ target: `/v1/ws?ticket=${await ticket()}` }) },
  { name: 'the first message', open: () => ({}), say: { op: 'auth', token: token('alice'), ref: 'a' } },
];

for (const { name, open, say } of WAYS) {
  test(`handshake: in by ${name}, and nothing secret comes back`, async () => {
    const { status, headers, socket } = await openSocket(server.port, await open());
    assert.equal(status, 101);
    if (say) await socket.say(say);
    const ready = await socket.message(({ type }) => type === 'sys.ready');
    assert.equal(ready?.user, 'alice');
    assert.doesNotMatch(JSON.stringify(headers), /bearer|eyJ/);
    socket.destroy();
  });
}

async function ticket() {
  const answer = await fetch(`${own()}/v1/tickets`, { method: 'POST', headers: { authorization: BEARER.Authorization } });
  return (await answer.json()).ticket;
}

const REFUSALS = [
  { name: 'no first message in time', within: AUTH_TIMEOUT_SECONDS * 1000 + SLACK_MS },
  { name: 'a first message with a wrong token', say: { op: 'auth', token: `${token('alice')}x` } },
  { name: 'a first message with an expired token', say: { op: 'auth', token: token('alice', { exp: 1 }) } },
  { name: 'another op first', say: { op: 'subscribe', topic: 'x', ref: 'r' }, within: AUTH_TIMEOUT_SECONDS * 1000 + SLACK_MS },
];

for (const { name, say, within = SLACK_MS } of REFUSALS) {
  test(`handshake: ${name} closes with 4001`, async () => {
    const { status, socket } = await openSocket(server.port, {});
    assert.equal(status, 101);
    if (say) await socket.say(say);
    const { code, isEnded } = await socket.closed(within);
    assert.deepEqual({ code, isEnded }, { code: 4001, isEnded: true });
    assert.equal(socket.frames.filter((one) => /sys.ready/.test(one.payload)).length, 0);
  });
}

test('handshake: a wrong bearer subprotocol is refused', async () => {
  const headers = { 'Sec-WebSocket-Protocol': `tidings.v1, bearer.${token('alice')}x` };
  const { status, socket } = await openSocket(server.port, { headers });
  if (status === 101) assert.equal((await socket.closed()).code, 4001);
  else assert.equal(status, 401);
  socket.destroy();
});

// RFC 7692: an offer with unknown, repeated or wrong parameters is declined, never answered with something else.
const EXTENSIONS = [
  { offer: 'permessage-deflate', accepted: true },
  { offer: 'permessage-deflate; client_max_window_bits', accepted: true },
  { offer: 'permessage-deflate; server_no_context_takeover; client_no_context_takeover', accepted: true },
  // Which of several offers is taken, or none, is the server's choice.
  { offer: 'permessage-deflate; unknown, permessage-deflate', accepted: null },
  { offer: 'permessage-bzip2, permessage-deflate', accepted: null },
  { offer: 'permessage-deflate; server_max_window_bits=10', accepted: true },
  { offer: 'permessage-deflate; server_max_window_bits=8; client_max_window_bits', accepted: true },
  { offer: 'permessage-deflate; unknown', accepted: false },
  { offer: 'permessage-deflate; server_max_window_bits=7', accepted: false },
  { offer: 'permessage-deflate; server_max_window_bits=16', accepted: false },
  { offer: 'permessage-deflate; client_no_context_takeover=1', accepted: false },
  { offer: 'permessage-deflate; client_no_context_takeover; client_no_context_takeover', accepted: false },
  { offer: 'x-webkit-deflate-frame', accepted: false },
];

for (const { offer, accepted } of EXTENSIONS) {
  test(`handshake: the offer "${offer}" is ${accepted ? 'taken' : 'declined'}${accepted === null ? ', or taken rightly' : ''}`, async () => {
    const answer = await checkStatus({ headers: { ...BEARER, 'Sec-WebSocket-Extensions': offer } }, [101]);
    const chosen = answer['sec-websocket-extensions'] ?? '';
    if (accepted !== null) assert.equal(chosen.startsWith('permessage-deflate'), accepted, chosen);
    if (chosen === '') return;
    assert.doesNotMatch(chosen, /unknown|,/);
    if (offer.includes('server_max_window_bits')) assert.match(chosen, /server_max_window_bits="?(8|9|10)\b/);
    if (!offer.includes('client_max_window_bits')) assert.doesNotMatch(chosen, /client_max_window_bits/);
    if (/server_no_context/.test(offer)) assert.match(chosen, /server_no_context_takeover/);
  });
}

test('handshake: who never answers pings is dropped', async () => {
  const { socket } = await openSocket(server.port, { headers: BEARER });
  assert.notEqual(await socket.wire.untilEnded(2000 + SLACK_MS), undefined, 'still open after two ping times');
  socket.destroy();
});

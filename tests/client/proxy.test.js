// The proxy is itself under test: a cut falls where it was asked for, what passes is a true beginning of what was sent,
// and one seed gives one plan.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { test } from 'node:test';
import { cutPoint, cuttingPlan, startProxy } from './proxy.js';
import { seeded } from './random.js';

const FRAME = Buffer.from('data: {"text":"grüße 🦀"}\nid: abc123-42\n\ndata: {}\nid: abc123-43\n\n');

const PLACES = [
  { kind: 'bytes', after: 4, passes: 'data' },
  { kind: 'head', after: 0, passes: '' },
  { kind: 'utf8', after: 0, passes: Buffer.concat([Buffer.from('data: {"text":"gr'), Buffer.of(0xc3)]) },
  { kind: 'before_id', after: 0, passes: 'data: {"text":"grüße 🦀"}\n' },
  { kind: 'inside_id', after: 0, passes: 'data: {"text":"grüße 🦀"}\nid: abc123-4' },
  { kind: 'before_blank', after: 0, passes: 'data: {"text":"grüße 🦀"}\nid: abc123-42\n' },
  { kind: 'before_id', after: 50, passes: 'data: {"text":"grüße 🦀"}\nid: abc123-42\n\ndata: {}\n' },
];

for (const { kind, after, passes } of PLACES) {
  test(`a cut of kind ${kind} after ${after} bytes falls in its place`, () => {
    const point = cutPoint({ kind, after }, FRAME, 0);
    assert.deepEqual(FRAME.subarray(0, point), Buffer.from(passes));
  });
}

test('a cut that is not due yet passes the whole chunk', () => {
  assert.equal(cutPoint({ kind: 'bytes', after: 1000 }, FRAME, 10), -1);
  assert.equal(cutPoint({ kind: 'before_id', after: 0 }, Buffer.from('no id here'), 0), -1);
  assert.equal(cutPoint(null, FRAME, 0), -1);
});

test('one seed gives one plan', () => {
  const plans = [1, 2].map(() => cuttingPlan(seeded(7), 30));
  for (let at = 0; at < 40; at += 1) assert.deepEqual(plans[0](), plans[1]());
});

test('armed requests are cut after the asked number of bytes, others are not, pages are served, refusals refuse', async () => {
  const body = 'ü'.repeat(5000);
  const upstream = http.createServer((request, response) => response.end(body)).listen(0, '127.0.0.1');
  await once(upstream, 'listening');
  const plan = () => ({ cut: { kind: 'bytes', after: 700, abrupt: false }, pieces: 100 });
  const proxy = await startProxy({ upstreamPort: upstream.address().port, random: seeded(Date.now()), plan });
  proxy.serve('/page.html', '<p>ß</p>');
  assert.equal(await (await fetch(`${proxy.origin}/whole`)).text(), body);
  assert.equal(await (await fetch(`${proxy.origin}/page.html?x`)).text(), '<p>ß</p>');
  const cut = await fetch(`${proxy.origin}/v1/events`);
  await assert.rejects(cut.text());
  assert.deepEqual([proxy.counts.cuts, proxy.counts.pieces, proxy.counts.armed], [1, 100, 1]);
  const refusal = proxy.refuseFor(100);
  await assert.rejects(fetch(`${proxy.origin}/whole`), (error) => error.cause.code === 'ECONNREFUSED');
  await refusal;
  assert.equal(await (await fetch(`${proxy.origin}/whole`)).text(), body);
  await proxy.close();
  upstream.close();
  upstream.closeAllConnections();
});

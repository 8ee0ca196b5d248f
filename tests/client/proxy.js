// A TCP proxy that damages connections on purpose. It cuts the answers of armed requests at chosen byte counts, times
// or places in a frame, splits writes into single bytes, refuses for a while, and counts all of it.
// The bytes it passes on are never changed: what a client gets is always a true beginning of what the server sent.
// Cuts come from a plan that is called once for each armed request, so one seed gives one series of cuts.
import net from 'node:net';
import { once } from 'node:events';
import { setImmediate as yieldOnce } from 'node:timers/promises';
import { between } from './random.js';

// Outside Linux's range for outgoing connections (32768 and up), so that nobody takes the port while we refuse.
const PORTS = { first: 20000, last: 31999 };
// A place that never comes (a compressed stream shows no `id:`) is given up after this many bytes.
const PLACE_GIVEN_UP_BYTES = 2048;
// Response heads are shorter than this.
const HEAD_BYTES_MAX = 1000;
const ARMED_REQUEST = /^GET \/(v1\/(events|ws)|ws|api\/v1\/realtime\/stream)[? ]/;
const CUT_KINDS = ['bytes', 'utf8', 'before_id', 'inside_id', 'before_blank', 'head', 'time'];

/**
 * A plan of `count` cuts that goes through every kind in turn; every third connection starts in one-byte pieces, about
 * every second cut is a reset instead of an orderly end. After the last cut connections live. With `wholeHead` a cut in
 * the response head is always a reset.
 */
export function cuttingPlan(random, count, { wholeHead = false, bytesMax = 6000 } = {}) {
  let made = 0;
  return () => {
    if (made >= count) return { cut: null, pieces: 0 };
    const kind = CUT_KINDS[made % CUT_KINDS.length];
    made += 1;
    const after = kind === 'head' ? between(random, 0, 150) : between(random, HEAD_BYTES_MAX, bytesMax);
    const abrupt = random() < 0.5 || (kind === 'head' && wholeHead);
    const cut = { kind, after, ms: between(random, 30, 250), abrupt };
    return { cut, pieces: made % 3 === 0 ? between(random, 50, 1500) : 0 };
  };
}

/**
 * How many bytes of `chunk` still pass before the cut; -1 when all of it does. `seen` bytes passed before it.
 * Pure, so that each place is tested without a socket.
 */
export function cutPoint(cut, chunk, seen) {
  if (!cut || cut.kind === 'time') return -1;
  const from = Math.max(0, cut.after - seen);
  if (from > chunk.length) return -1;
  if (cut.kind === 'bytes' || cut.kind === 'head') return from;
  const place = placeInFrame(cut.kind, chunk, from);
  if (place >= 0) return place;
  const giveUp = cut.after + PLACE_GIVEN_UP_BYTES - seen;
  return giveUp <= chunk.length ? Math.max(0, giveUp) : -1;
}

function placeInFrame(kind, chunk, from) {
  if (kind === 'utf8') {
    const lead = chunk.subarray(from).findIndex((byte) => byte >= 0xc2);
    return lead < 0 ? -1 : from + lead + 1;
  }
  const line = chunk.indexOf('\nid: ', from);
  if (line < 0) return -1;
  if (kind === 'before_id') return line + 1;
  const end = chunk.indexOf('\n', line + 1);
  if (end < 0) return -1;
  return kind === 'inside_id' ? end - 1 : end + 1;
}

/** Starts a proxy to 127.0.0.1:`upstreamPort`. `plan()` says what happens to each armed request. */
export async function startProxy({ upstreamPort, random, plan }) {
  const proxy = new CuttingProxy(upstreamPort, plan);
  await proxy.listenAnywhere(random);
  return proxy;
}

class CuttingProxy {
  constructor(upstreamPort, plan) {
    this.upstreamPort = upstreamPort;
    this.plan = plan;
    this.pages = new Map();
    this.sockets = new Set();
    this.counts = { connections: 0, armed: 0, cuts: 0, kinds: {}, pieces: 0, refusals: 0, bytes: 0 };
  }

  get origin() {
    return `http://127.0.0.1:${this.port}`;
  }

  async listenAnywhere(random) {
    for (;;) {
      this.port = between(random, PORTS.first, PORTS.last);
      if (await this.listen()) return;
    }
  }

  /** False when the port is taken. */
  async listen() {
    this.listener = net.createServer((client) => this.accept(client));
    this.listener.listen(this.port, '127.0.0.1');
    return once(this.listener, 'listening').then(() => true, () => false);
  }

  /** Nobody listens for so long: new connections get ECONNREFUSED, open ones live on. */
  async refuseFor(ms) {
    this.counts.refusals += 1;
    this.listener.close();
    await new Promise((done) => setTimeout(done, ms));
    while (!(await this.listen())) await yieldOnce();
  }

  /** Answers GET `path` itself, so that a page can share the origin of the server behind. */
  serve(path, html) {
    this.pages.set(path, html);
  }

  accept(client) {
    this.counts.connections += 1;
    const upstream = net.connect(this.upstreamPort, '127.0.0.1');
    const link = { client, upstream, treatment: null, seen: 0, timer: null };
    for (const socket of [client, upstream]) {
      this.sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => {});
      socket.on('close', () => {
        this.sockets.delete(socket);
        clearTimeout(link.timer);
        // The other side is told only after what is under way has been written, else a clean end would lose bytes.
        if (socket === client) upstream.destroy();
      });
    }
    client.on('data', (bytes) => this.forwardRequest(link, bytes));
    this.forwardAnswers(link).catch(() => {}).finally(() => client.destroySoon());
  }

  forwardRequest(link, bytes) {
    const head = bytes.toString('latin1', 0, 2000);
    const page = this.pages.get(/^GET (\/[^ ?]*)/.exec(head)?.[1]);
    if (page !== undefined) {
      const type = 'Content-Type: text/html; charset=utf-8\r\nConnection: close';
      link.client.end(`HTTP/1.1 200 OK\r\n${type}\r\nContent-Length: ${Buffer.byteLength(page)}\r\n\r\n${page}`);
      link.upstream.destroy();
      return;
    }
    if (ARMED_REQUEST.test(head)) this.arm(link);
    link.upstream.write(bytes);
  }

  arm(link) {
    this.counts.armed += 1;
    link.treatment = this.plan();
    link.seen = 0;
    const { cut } = link.treatment;
    if (cut?.kind === 'time') link.timer = setTimeout(() => this.cut(link), cut.ms);
  }

  async forwardAnswers(link) {
    for await (const chunk of link.upstream) {
      const { cut = null, pieces = 0 } = link.treatment ?? {};
      const end = cutPoint(cut, chunk, link.seen);
      const passing = end < 0 ? chunk : chunk.subarray(0, end);
      const single = Math.min(passing.length, Math.max(0, pieces - link.seen));
      await this.writePieces(link, passing.subarray(0, single));
      await write(link.client, passing.subarray(single));
      link.seen += passing.length;
      this.counts.bytes += passing.length;
      if (end >= 0) return this.cut(link);
    }
  }

  async writePieces(link, bytes) {
    for (const byte of bytes) {
      await write(link.client, Buffer.of(byte));
      this.counts.pieces += 1;
      await yieldOnce();
    }
  }

  cut(link) {
    if (link.client.destroyed) return;
    const { kind, abrupt } = link.treatment.cut;
    this.counts.cuts += 1;
    this.counts.kinds[kind] = (this.counts.kinds[kind] ?? 0) + 1;
    link.upstream.destroy();
    if (abrupt) link.client.resetAndDestroy();
    else link.client.destroySoon();
  }

  async close() {
    this.listener.close();
    for (const socket of this.sockets) socket.destroy();
  }
}

async function write(socket, bytes) {
  if (bytes.length === 0) return;
  if (socket.destroyed) throw new Error('the client went away');
  await new Promise((done, fail) => socket.write(bytes, (error) => (error ? fail(error) : done())));
}

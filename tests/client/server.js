// Runs the real Tidings binary for a test: port 0, a data directory of its own, its one `listening on` line, kill -9,
// restart. Mints user and publisher tokens itself with the secret that it configured, and publishes with a retry under
// the same ids, as a careful backend does. Never touches a server that it did not start.
import { spawn } from 'node:child_process';
import { createHmac, randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

const ROOT = path.resolve(import.meta.dirname, '../..');
const SECRET = 'a secret for tests only, 32 bytes or more';
const START_DEADLINE_MS = 20_000;
const STDERR_KEPT = 20_000;
// Room for tests that reconnect and publish faster than any one person does.
const ROOMY = {
  'limits.user_writes_per_second': 100000,
  'limits.user_writes_burst': 100000,
  'limits.publish_per_second': 1000000,
  'limits.auth_failures_per_minute': 100000,
  'limits.connections_per_user': 1000,
  'log.retention_events': 100000,
  'stream.retry_ms_min': 20,
  'stream.retry_ms_max': 60,
  'demo.enabled': false,
};

// A test that fails must not leave its server behind, nor wait for it.
const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

export async function startServer(settings = {}) {
  const server = new Server(await mkdtemp(path.join(tmpdir(), 'tidings-client-')), { ...ROOMY, ...settings });
  await server.start();
  return server;
}

class Server {
  constructor(dataDir, settings) {
    this.dataDir = dataDir;
    this.settings = settings;
    this.starts = 0;
    this.stderr = '';
  }

  get pid() {
    return this.child.pid;
  }

  /** Resident memory in bytes, as the kernel counts it now. */
  get residentBytes() {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)[1]) * 1024;
  }

  /** Lines of the log that tell of a panic; must stay empty whatever a client sends. */
  get panics() {
    return this.stderr.split('\n').filter((line) => /panicked at|"panic"/.test(line));
  }

  /** A port of its own choice, or the one that open pages know from before. */
  async start({ port = 0 } = {}) {
    const sets = Object.entries(this.settings).flatMap(([key, value]) => ['--set', `${key}=${written(value)}`]);
    const args = ['serve', '--listen', `127.0.0.1:${port}`, '--data', this.dataDir, ...sets];
    this.child = spawn(binary(), args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, TIDINGS_AUTH__HS256_SECRET: SECRET },
    });
    this.child.stderr.setEncoding('utf8').on('data', (text) => {
      this.stderr = (this.stderr + text).slice(-STDERR_KEPT);
    });
    running.add(this.child);
    this.exited = once(this.child, 'exit').finally(() => running.delete(this.child));
    this.port = await this.listeningPort();
    this.starts += 1;
  }

  async listeningPort() {
    const lines = createInterface({ input: this.child.stdout });
    const first = Promise.race([
      once(lines, 'line').then(([line]) => line),
      this.exited.then(([code, signal]) => `exit ${code ?? signal}`),
      pause(START_DEADLINE_MS, 'nothing in time', { ref: false }),
    ]);
    const port = /^listening on http:\/\/127\.0\.0\.1:(\d+)$/.exec(await first)?.[1];
    if (port === undefined) throw new Error(`the server did not start: ${await first}\n${this.stderr}`);
    return Number(port);
  }

  get origin() {
    return `http://127.0.0.1:${this.port}`;
  }

  async kill() {
    this.child.kill('SIGKILL');
    await this.exited;
  }

  async stop() {
    if (this.child.exitCode === null && this.child.signalCode === null) await this.kill();
    await rm(this.dataDir, { recursive: true, force: true });
  }

  /** Publishes to one user and, while no answer comes, again under the same ids: nothing twice, nothing lost. */
  async publish(user, events, deadlineMs = 30_000) {
    const body = JSON.stringify({ events: events.map(({ id, data }) => ({ to: { user }, type: 'test.item', id, data })) });
    const headers = { authorization: `Bearer ${token('backend', { scope: 'publish' })}`, 'content-type': 'application/json' };
    const end = Date.now() + deadlineMs;
    for (;;) {
      const answer = await fetch(`${this.origin}/v1/publish`, { method: 'POST', headers, body }).catch(() => null);
      if (answer?.ok) {
        const refused = JSON.stringify(await answer.json().catch(() => null));
        if (refused === 'null' || /"status":[45]\d\d/.test(refused)) throw new Error(`publish refused: ${refused}`);
        return;
      }
      if (answer !== null && answer.status < 500) throw new Error(`publish: ${answer.status} ${await answer.text()}`);
      if (Date.now() > end) throw new Error('publish: no answer in time');
      await pause(20);
    }
  }
}

/** A JWT of this user, made with the server's own secret. */
export function token(user, claims = {}) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const expires = Math.floor(Date.now() / 1000) + 3600;
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ sub: user, exp: expires, ...claims })}`;
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
}

const WORDS = ['grüße', 'naïve', 'Zażółć', 'привет', '你好', 'こんにちは', '🦀', '👩‍🚀', 'e\u0301', '\u2028', 'plain'];

/** `count` numbered events from `first` on, with text of every length of UTF-8 sequence and of varying size. */
export function numberedEvents(random, first, count) {
  return Array.from({ length: count }, (_, at) => {
    const words = Array.from({ length: 1 + Math.floor(random() * 25) }, () => WORDS[Math.floor(random() * WORDS.length)]);
    return { id: randomUUID(), data: { n: first + at, text: words.join(' '), noise: random().toString(36).slice(2) } };
  });
}

function written(value) {
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

export function binary() {
  const given = process.env.TIDINGS_BIN;
  const places = given ? [path.resolve(given)] : ['release', 'debug'].map((kind) => path.join(ROOT, 'target', kind, 'tidings'));
  const found = places.find((place) => existsSync(place));
  if (found === undefined) throw new Error(`no server binary at ${places.join(' or ')}: build it or set TIDINGS_BIN`);
  return found;
}

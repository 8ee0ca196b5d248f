// An nginx of the test's own before the server, with the rules that a test gives for each path.
// Promises: a port that was free, a directory of its own, nothing of the machine's nginx touched; ended by its own pid.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

const NGINX = '/usr/sbin/nginx';
const START_MS = 15_000;

async function freePort() {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  await once(listener, 'close');
  return port;
}

export async function startNginx(t, upstream, rules) {
  const place = await mkdtemp(path.join(tmpdir(), 'tidings-nginx-'));
  const port = await freePort();
  const locations = Object.entries(rules).map(([path, rule]) => `location ${path} { proxy_pass http://127.0.0.1:${upstream}; proxy_set_header Host $http_host; ${rule} }`);
  await writeFile(path.join(place, 'nginx.conf'), `
daemon off; worker_processes 1; pid ${place}/pid; error_log ${place}/error.log;
events { worker_connections 256; }
http {
  access_log off; client_body_temp_path ${place}/body; proxy_temp_path ${place}/proxy; fastcgi_temp_path ${place}/f; uwsgi_temp_path ${place}/u; scgi_temp_path ${place}/s;
  server {
    listen 127.0.0.1:${port};
    proxy_read_timeout 120s;
    ${locations.join('\n    ')}
  }
}`);
  const child = spawn(NGINX, ['-p', place, '-c', path.join(place, 'nginx.conf'), '-e', path.join(place, 'error.log')], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  t.after(async () => {
    child.kill('SIGTERM');
    await exited;
    await rm(place, { recursive: true, force: true });
  });
  const origin = `http://127.0.0.1:${port}`;
  for (const end = Date.now() + START_MS; ;) {
    if (await fetch(`${origin}/healthz`).then((answer) => answer.ok, () => false)) return origin;
    if (child.exitCode !== null || Date.now() > end) throw new Error(`nginx did not start: ${child.exitCode}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

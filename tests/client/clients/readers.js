// The clients nobody here wrote, each behind the same door: `read(proxy, user, journal)` opens the whole log of the user
// through the proxy, hands every frame to the journal, resumes by its own means, and returns a function that ends it.
// A reader never repairs what its client does; it only turns its frames into journal entries.
// `wholeHead` marks a client that takes half a response head for a whole one when the connection then ends in order, as
// Chromium does on plain HTTP: it would give up for want of a content type, and no server can prevent that.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import path from 'node:path';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { token } from '../server.js';
import { chromiumReader } from './chromium.js';

const HERE = import.meta.dirname;
const PYTHON = path.resolve(HERE, '../../../.venv/bin/python');
const SOCKET_RETRY_MS = 30;
const CONTROL_NAMES = ['ready', 'reset', 'error'];

export const READERS = [
  { name: 'curl -N in a shell loop', read: scriptReader('bash', path.join(HERE, 'curl.sh')) },
  { name: 'npm eventsource', read: readWithEventSource },
  { name: 'npm ws', read: socketReader({ perMessageDeflate: false }) },
  { name: 'npm ws with permessage-deflate', read: socketReader({ perMessageDeflate: true }) },
  { name: 'Python httpx-sse', read: scriptReader(PYTHON, path.join(HERE, 'httpx_sse_reader.py')) },
  { name: 'Chromium EventSource with a ticket from another site', read: chromiumReader({ cookie: false }), wholeHead: true },
  { name: 'Chromium EventSource with the session cookie', read: chromiumReader({ cookie: true }), wholeHead: true },
];

/** A program that prints `id <tab> data` for each frame. */
function scriptReader(command, script) {
  return async (proxy, user, journal) => {
    const child = spawn(command, [script, `${proxy.origin}/v1/events?cursor=start`], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, TOKEN: token(user), PYTHONUNBUFFERED: '1' },
      detached: true,
    });
    const complaints = [];
    child.stderr.on('data', (text) => complaints.push(text));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const tab = line.indexOf('\t');
      journal.frame(line.slice(tab + 1), line.slice(0, tab));
    });
    child.on('exit', (code) => code !== null && journal.fault(`the client ended with ${code}: ${Buffer.concat(complaints)}`));
    return async () => {
      const exited = once(child, 'exit');
      // The whole group, since the shell loop has a curl of its own.
      if (child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
      else return;
      await exited;
    };
  };
}

async function readWithEventSource(proxy, user, journal) {
  const authorized = (url, init) =>
    fetch(url, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token(user)}` } });
  const source = new EventSource(`${proxy.origin}/v1/events?cursor=start`, { fetch: authorized });
  const keep = (frame) => typeof frame.data === 'string' && journal.frame(frame.data, frame.lastEventId);
  for (const name of ['message', ...CONTROL_NAMES]) source.addEventListener(name, keep);
  source.addEventListener('error', (error) => {
    if (source.readyState === EventSource.CLOSED) journal.fault(`EventSource gave up: ${error.code} ${error.message}`);
  });
  return async () => source.close();
}

/** Reconnects for ever with the cursor of the last event in the query. */
function socketReader(options) {
  return async (proxy, user, journal) => {
    const state = { cursor: 'start', socket: null, stopped: false };
    const connect = () => {
      if (state.stopped) return;
      const url = `${proxy.origin.replace('http', 'ws')}/v1/ws?cursor=${state.cursor}`;
      state.socket = new WebSocket(url, ['tidings.v1', `bearer.${token(user)}`], options);
      state.socket.on('open', () => checkNegotiated(state.socket, options, journal));
      state.socket.on('message', (bytes, binary) => {
        if (binary) journal.fault('a binary message');
        const text = bytes.toString('utf8');
        journal.frame(text);
        const { cursor, type } = JSON.parse(text);
        if (cursor !== undefined && type !== 'sys.ping') state.cursor = cursor;
      });
      state.socket.on('unexpected-response', (request, response) => {
        journal.fault(`handshake answered with ${response.statusCode}`);
        state.stopped = true;
        request.destroy();
      });
      state.socket.on('error', () => {});
      state.socket.on('close', () => setTimeout(connect, SOCKET_RETRY_MS));
    };
    connect();
    return async () => {
      state.stopped = true;
      state.socket.terminate();
    };
  };
}

function checkNegotiated(socket, options, journal) {
  if (socket.protocol !== 'tidings.v1') journal.fault(`subprotocol ${socket.protocol}`);
  if (socket.extensions.includes('permessage-deflate') !== options.perMessageDeflate) journal.fault(`extensions: ${socket.extensions}`);
}

// Raw HTTP/1.1 and WebSocket over a plain TCP socket, for requests that no proper client can be made to send.
// It promises to send exactly the given bytes and to report what came back and when the connection ended. It checks
// nothing itself and repairs nothing.
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { constants, inflateRawSync } from 'node:zlib';

export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };
const ANSWER_DEADLINE_MS = 10_000;

/** A TCP connection that keeps all it was sent. */
export class Wire {
  constructor(port) {
    this.socket = net.connect(port, '127.0.0.1').setNoDelay(true);
    this.received = Buffer.alloc(0);
    this.ended = false;
    this.waiting = new Set();
    this.opened = Date.now();
    const changed = () => this.waiting.forEach((look) => look());
    this.socket.on('data', (bytes) => {
      this.received = Buffer.concat([this.received, bytes]);
      changed();
    });
    this.socket.on('error', () => {});
    for (const name of ['end', 'close']) {
      this.socket.on(name, () => {
        this.ended = true;
        changed();
      });
    }
  }

  /** Writes all, waiting while the kernel's buffer is full. False when the other side has gone. */
  async send(bytes) {
    if (this.socket.destroyed) return false;
    if (this.socket.write(bytes)) return true;
    await Promise.race([once(this.socket, 'drain'), once(this.socket, 'close')]).catch(() => {});
    return !this.socket.destroyed;
  }

  /** What `look` gives as soon as it is not undefined; undefined when that has not happened in time. */
  until(look, ms = ANSWER_DEADLINE_MS) {
    return new Promise((done) => {
      const finish = (value) => {
        clearTimeout(timer);
        this.waiting.delete(attempt);
        done(value);
      };
      const attempt = () => {
        const value = look();
        if (value !== undefined) finish(value);
      };
      const timer = setTimeout(() => finish(undefined), ms);
      this.waiting.add(attempt);
      attempt();
    });
  }

  /** Milliseconds until the other side ended the connection; undefined when it has not. */
  untilEnded(ms) {
    const asked = Date.now();
    return this.until(() => (this.ended ? Date.now() - asked : undefined), ms);
  }

  /** The first response: status, headers in lower case, what followed the head. */
  async response(ms) {
    const end = await this.until(() => {
      const at = this.received.indexOf('\r\n\r\n');
      return at >= 0 || this.ended ? at : undefined;
    }, ms);
    if (end === undefined || end < 0) return { status: 0, headers: {}, rest: this.received };
    const [line, ...fields] = this.received.toString('latin1', 0, end).split('\r\n');
    const headers = Object.fromEntries(fields.map((field) => [field.split(':')[0].toLowerCase(), field.replace(/^[^:]*:\s*/, '')]));
    return { status: Number(line.split(' ')[1]), headers, rest: this.received.subarray(end + 4) };
  }

  destroy() {
    this.socket.destroy();
  }
}

/** Sends `bytes` on a new connection and gives the first response. */
export async function exchange(port, bytes, ms) {
  const wire = new Wire(port);
  await wire.send(bytes);
  const response = await wire.response(ms);
  return { ...response, wire };
}

/** A request with exactly these header lines, Host included only where the caller says so. */
export function request(line, fields = [], body = '') {
  return Buffer.concat([Buffer.from(`${line}\r\n${fields.map((field) => `${field}\r\n`).join('')}\r\n`, 'latin1'), Buffer.from(body)]);
}

/** One WebSocket frame; `length` may claim another payload length than the true one. */
export function frame({ opcode = OPCODE.text, payload = '', fin = true, rsv = 0, masked = true, length } = {}) {
  const body = Buffer.from(payload);
  const claimed = length ?? BigInt(body.length);
  const first = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  const second = masked ? 0x80 : 0;
  let head;
  if (claimed < 126n) head = Buffer.from([first, second | Number(claimed)]);
  else if (claimed < 65536n) head = Buffer.from([first, second | 126, Number(claimed >> 8n), Number(claimed & 255n)]);
  else {
    head = Buffer.alloc(10);
    head[0] = first;
    head[1] = second | 127;
    head.writeBigUInt64BE(claimed, 2);
  }
  if (!masked) return Buffer.concat([head, body]);
  const mask = randomBytes(4);
  return Buffer.concat([head, mask, body.map((byte, at) => byte ^ mask[at % 4])]);
}

export function closePayload(code, reason = '') {
  return Buffer.concat([Buffer.from([code >> 8, code & 255]), Buffer.from(reason)]);
}

/** The header lines of a right handshake; a value of null leaves a line out, an array gives it several times. */
export function handshake(port, { target = '/v1/ws', method = 'GET', version = 'HTTP/1.1', headers = {} } = {}) {
  const fields = {
    Host: `127.0.0.1:${port}`,
    Upgrade: 'websocket',
    Connection: 'Upgrade',
    'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
    'Sec-WebSocket-Version': '13',
    ...headers,
  };
  const lines = Object.entries(fields).flatMap(([name, value]) => (value === null ? [] : [value].flat().map((one) => `${name}: ${one}`)));
  return { bytes: request(`${method} ${target} ${version}`, lines), key: fields['Sec-WebSocket-Key'] };
}

/** Opens a WebSocket; gives the response, and the frames that follow when it is 101. */
export async function openSocket(port, options) {
  const { bytes, key } = handshake(port, options);
  const wire = new Wire(port);
  await wire.send(bytes);
  const response = await wire.response();
  const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  return { ...response, isAcceptRight: response.headers['sec-websocket-accept'] === accept, socket: new RawSocket(wire) };
}

/** The frames of an open WebSocket. Pings are not answered unless the test does so. */
class RawSocket {
  constructor(wire) {
    this.wire = wire;
    this.frames = [];
    this.at = Math.max(0, wire.received.indexOf('\r\n\r\n') + 4);
  }

  send(...frames) {
    return this.wire.send(Buffer.concat(frames));
  }

  say(content) {
    return this.send(frame({ payload: JSON.stringify(content) }));
  }

  /** The first frame after `from` that fits; undefined when none came in time. */
  async find(fits, ms, from = 0) {
    return this.wire.until(() => {
      this.parse();
      const found = this.frames.find((one, at) => at >= from && fits(one));
      return found ?? (this.wire.ended ? null : undefined);
    }, ms).then((found) => found ?? undefined);
  }

  /** The text frame that holds JSON of this type, parsed. */
  async message(fits, ms) {
    const found = await this.find((one) => one.opcode === OPCODE.text && fits(JSON.parse(one.payload)), ms);
    return found && JSON.parse(found.payload);
  }

  /** How the server ended it: the code of its close frame (null without one) and whether TCP ended in time. */
  async closed(ms = ANSWER_DEADLINE_MS) {
    const close = await this.find((one) => one.opcode === OPCODE.close, ms);
    const code = close && close.payload.length >= 2 ? close.payload.readUInt16BE() : null;
    const answered = close !== undefined && this.send(frame({ opcode: OPCODE.close, payload: close.payload }));
    await answered;
    const ended = await this.wire.untilEnded(ms);
    return { code, hasCloseFrame: close !== undefined, isEnded: ended !== undefined };
  }

  /** True when the server still answers an op on this connection. */
  async isAlive(ref = randomBytes(4).toString('hex')) {
    await this.say({ op: 'ping', ref });
    return (await this.message((content) => content.ref === ref)) !== undefined;
  }

  parse() {
    for (;;) {
      const bytes = this.wire.received.subarray(this.at);
      if (bytes.length < 2) return;
      const short = bytes[1] & 127;
      const head = short === 127 ? 10 : short === 126 ? 4 : 2;
      if (bytes.length < head) return;
      const length = short === 127 ? Number(bytes.readBigUInt64BE(2)) : short === 126 ? bytes.readUInt16BE(2) : short;
      if (bytes.length < head + length) return;
      const rsv = (bytes[0] >> 4) & 7;
      const payload = rsv & 4 ? inflated(bytes.subarray(head, head + length)) : bytes.subarray(head, head + length);
      this.frames.push({ fin: bytes[0] >> 7, rsv, opcode: bytes[0] & 15, masked: bytes[1] >> 7, payload });
      this.at += head + length;
    }
  }

  destroy() {
    this.wire.destroy();
  }
}

/** One whole message; right only where the server keeps no context from one message to the next. */
function inflated(payload) {
  return inflateRawSync(Buffer.concat([payload, Buffer.from([0, 0, 0xff, 0xff])]), { finishFlush: constants.Z_SYNC_FLUSH });
}

// The HTTP side of the server in memory: which request does what, and `fetch` over it with real Response objects.
// Promises: refusals are problem objects; a stream's body is cut as a connection is; an aborted request ends at once.
const JSON_TYPE = { 'content-type': 'application/json' };

export const problem = (status, code, headers = {}) =>
  new Response(JSON.stringify({ type: 'about:blank', status, code, message: `${code}!` }), { status, headers: { 'content-type': 'application/problem+json', ...headers } });
export const json = (value, status = 200) => new Response(JSON.stringify(value), { status, headers: JSON_TYPE });
const NOTHING = () => new Response(null, { status: 204 });

/** `fetch` of one browser: its cookie is kept in `jar`. */
export function createFetch(server, jar) {
  return async (address, init = {}) => {
    const url = new URL(address);
    const query = Object.fromEntries(url.searchParams);
    const headers = init.headers ?? {};
    const body = init.body === undefined ? undefined : JSON.parse(init.body);
    const method = init.method ?? 'GET';
    const asked = { method, path: url.pathname, query, headers, body, credentials: init.credentials };
    server.requests.push(asked);
    const { signal } = init;
    if (signal?.aborted) throw new DOMException('aborted', 'AbortError');
    if (server.faults.isDown) throw new TypeError('failed to fetch');
    if (server.faults.isHung) return untilAborted(signal);
    const cookie = init.credentials === 'include' ? jar.token : undefined;
    const user = server.caller({ headers, query, cookie });
    const made = server.extra.get(`${method} ${url.pathname}`);
    if (made !== undefined) return made(asked, user);
    if (server.faults.status !== null) return server.faults.status(asked);
    if (server.revoked.has(user)) return (headers.Accept ?? '').includes('event-stream') ? NOTHING() : problem(401, 'unauthorized');
    if (user === null) return problem(401, 'unauthorized');
    const response = await answer(server, jar, asked, user, signal);
    if (server.faults.losesAnswers > 0 && method !== 'GET') {
      server.faults.losesAnswers -= 1;
      throw new TypeError('connection reset');
    }
    return response;
  };
}

const untilAborted = (signal) =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(new DOMException('aborted', 'AbortError'))));

async function answer(server, jar, { method, path, query, headers, body }, user, signal) {
  switch (`${method} ${path}`) {
    case 'GET /v1/events':
      if (query.format === 'json') return json(await server.page(query, signal));
      return stream(server, user, query, signal);
    case 'GET /v1/state': return json({ user, cursor: server.head(), ...server.state });
    case 'POST /v1/tickets': {
      const ticket = `ticket${server.requests.length}`;
      server.tickets.set(ticket, user);
      return json({ ticket, expires_in: 60 });
    }
    case 'POST /v1/session':
      jar.token = headers.Authorization.replace('Bearer ', '');
      return json({ user });
    case 'POST /v1/session/refresh':
      server.refreshed.push({ conn: body.conn, token: headers.Authorization?.replace('Bearer ', '') });
      return json({ conn: body.conn });
    case 'POST /v1/ack':
      server.acks.push(body);
      return json({ cursor: body.cursor });
  }
  const sent = /^\/v1\/conversations\/([^/]+)\/messages$/.exec(path);
  if (sent !== null && method === 'POST') return json(store(server, user, sent[1], body), 201);
  if (sent !== null && method === 'GET') return json({ messages: pageOf(server, sent[1], query) });
  return method === 'GET' ? problem(404, 'not_found') : json({});
}

/** Stores a message once for each client id, as the server promises. */
export function store(server, user, conversation_id, { content, client_id, data }) {
  const known = server.messages.find((message) => message.client_id === client_id && client_id !== undefined);
  if (known !== undefined) return { ...known, duplicate: true };
  const n = server.messages.filter((message) => message.conversation_id === conversation_id).length + 1;
  const message = { id: `m${server.messages.length + 1}`, conversation_id, n, sender: user, content, time: '2026-11-21T12:00:00.000Z', client_id: client_id ?? null, status: 'sent', ...(data === undefined ? {} : { data }) };
  server.messages.push(message);
  server.publish('message.new', message, { topic: `conversation:${conversation_id}`, actor: { id: user } });
  return message;
}

function pageOf(server, conversation, { before, after, limit = 50 }) {
  const all = server.messages.filter((message) => message.conversation_id === conversation);
  if (after !== undefined) return all.filter(({ n }) => n > Number(after)).slice(0, Number(limit));
  return all.filter(({ n }) => before === undefined || n < Number(before)).slice(-Number(limit));
}

function stream(server, user, query, signal) {
  const encoder = new TextEncoder();
  let output;
  let forget = () => {};
  const body = new ReadableStream({
    start: (controller) => void (output = controller),
    cancel: () => forget(),
  });
  const reader = {
    kind: 'sse',
    send: (frame, retry_ms) => !server.faults.holdsStreams && output.enqueue(encoder.encode(frameText(frame, retry_ms))),
    end: (how) => {
      forget();
      if (how?.isClean) output.close();
      else output.error(new TypeError('network error'));
    },
  };
  forget = server.open(user, query, reader);
  signal?.addEventListener('abort', () => {
    forget();
    try {
      output.error(new DOMException('aborted', 'AbortError'));
    } catch {
      // It had ended already.
    }
  });
  return new Response(body, { status: 200, headers: { 'content-type': 'text/event-stream' } });
}

export function frameText(frame, retry_ms) {
  const isControl = frame.type.startsWith('sys.');
  const name = isControl ? `event: ${frame.type.slice(4)}\n` : '';
  const id = frame.cursor === undefined ? '' : `id: ${frame.cursor}\n`;
  return `${retry_ms === undefined ? '' : `retry: ${retry_ms}\n`}${name}data: ${JSON.stringify(frame)}\n${id}\n`;
}

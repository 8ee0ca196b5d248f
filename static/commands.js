// @ts-check
// Every command in its two forms: the HTTP call and the socket's op.
// Promises: both mean the same; what another tab hands over is checked against this table before it is carried out. It
// knows nothing of queues and retries.

/** @typedef {import('./internal.js').Command} Command */

const isText = (/** @type {unknown} */ value) => typeof value === 'string' && value !== '';
const part = encodeURIComponent;

/**
 * By op: what it must carry, its HTTP form, and which fields go over a socket (none: HTTP only).
 * @type {Record<string, { fields: string[], http: (command: Command, user: string) => [string, string, unknown?], socket: string[] }>}
 */
const COMMANDS = {
  send: {
    fields: ['conversation', 'content', 'client_id'],
    http: ({ conversation, content, client_id, data }) =>
      ['POST', `/v1/conversations/${part(conversation)}/messages`, { content, client_id, ...(data === undefined ? {} : { data }) }],
    socket: ['conversation', 'content', 'client_id'],
  },
  typing: {
    fields: ['conversation', 'state'],
    http: ({ conversation, state }) => ['POST', `/v1/conversations/${part(conversation)}/typing`, { state }],
    socket: ['conversation', 'state'],
  },
  read: {
    fields: ['conversation'],
    http: ({ conversation, upto, message_ids }) =>
      ['POST', `/v1/conversations/${part(conversation)}/read`, message_ids === undefined ? { upto } : { message_ids }],
    socket: ['conversation', 'upto', 'message_ids'],
  },
  presence: {
    fields: ['status'],
    http: ({ status, activity }) => ['PUT', '/v1/presence', activity === undefined ? { status } : { status, activity }],
    socket: ['status', 'activity'],
  },
  signal: {
    fields: ['conversation', 'kind'],
    http: ({ conversation, kind, data }) => ['POST', `/v1/conversations/${part(conversation)}/signals`, { kind, data }],
    socket: ['conversation', 'kind', 'data'],
  },
  subscribe: {
    fields: ['topic'],
    http: ({ topic }, user) => ['PUT', `/v1/topics/${part(topic)}/subscribers/${part(user)}`],
    socket: ['topic'],
  },
  unsubscribe: {
    fields: ['topic'],
    http: ({ topic }, user) => ['DELETE', `/v1/topics/${part(topic)}/subscribers/${part(user)}`],
    socket: ['topic'],
  },
  ack: {
    fields: ['cursor'],
    http: ({ cursor, device }) => ['POST', '/v1/ack', device === undefined ? { cursor } : { cursor, device }],
    socket: ['cursor', 'device'],
  },
};

/**
 * @param {any} command
 * @returns {command is Command}
 */
export function isCommand(command) {
  if (typeof command !== 'object' || command === null || !isText(command.ref)) return false;
  const known = Object.hasOwn(COMMANDS, command.op) ? COMMANDS[command.op] : undefined;
  return known !== undefined && known.fields.every((field) => isText(command[field]));
}

/**
 * @param {Command} command
 * @param {string} user
 */
export const httpForm = (command, user) => COMMANDS[command.op].http(command, user);

/**
 * The text for a socket, or null when the command does not fit through one.
 * @param {Command} command
 */
export function socketForm(command) {
  if (command.op === 'send' && command.data !== undefined) return null;
  const fields = COMMANDS[command.op].socket.filter((field) => command[field] !== undefined);
  const pairs = fields.map((field) => [field, command[field]]);
  return JSON.stringify({ op: command.op, ref: command.ref, ...Object.fromEntries(pairs) });
}

/**
 * Commands with the same key replace one another while they wait: only the newest counts.
 * @param {Command} command
 */
export function replaceKey({ op, conversation, upto }) {
  if (op === 'presence' || op === 'ack') return op;
  return op === 'read' && upto !== undefined ? `read ${conversation}` : null;
}

// The public types of the client: what an application passes in, calls and hears.
// Promises: written by hand and checked by tsc against the modules beside it; a name here is kept.
// Applications add their own event types by declaration merging:
//   declare module 'tidings-client' { interface Events { 'order.paid': { order: string } } }

/** Makes one client. It does nothing until `connect()`. */
export const createTidings: (options?: Options) => Tidings;
/** What the client takes from the browser; pass parts of it in `options.environment` to replace them. */
export const browserEnvironment: () => Environment;
/** A request that was refused, or got no answer. */
export const TidingsError: { new (fields: ErrorFields): TidingsError; readonly prototype: TidingsError };

export type TransportName = 'sse' | 'eventsource' | 'websocket' | 'poll';

/** Why a token is asked for: the first one, before the old one ends, or because the server refused the old one. */
export type TokenReason = 'start' | 'expiring' | 'refused';

export interface Options {
  /** Where the server is, without a path at its end. Default: the page's own origin. */
  url?: string;
  /** A token, or a function that gives one and is asked again when a new one is needed; null: none to be had. */
  token?: string | ((reason: TokenReason) => string | null | Promise<string | null>);
  /** Uses the cookie session. Together with `token`, the client makes the session itself (`POST /v1/session`). */
  cookie?: boolean;
  /** Gives a ticket for each connection, where the page itself has no token: such a client reads and does nothing else. */
  ticket?: () => string | Promise<string>;
  /** Who is signed in. Read from the token where there is one; it only keeps tabs of different users apart. */
  user?: string;
  /** Transports that may be used, best first. Default: sse, eventsource, websocket, poll. */
  transports?: TransportName[];
  /**
   * Where a client without a position starts. `state` (default): loads `/v1/state`, tells it as `sys.state`, and goes on
   * from there. Else `now`, `start`, `-20` (the last 20) or a cursor.
   */
  start?: string;
  /** Only events of these types (`notification.*` for a prefix). */
  types?: string[];
  /** Only events of these topics. */
  topics?: string[];
  /** One connection for all tabs of this browser. Default: true. */
  tabs?: boolean;
  /** Keeps cursor and unsent commands in sessionStorage, so that they survive a reload. Default: false. */
  persist?: boolean;
  /** Tells the server by itself what has arrived, so that senders see "delivered". Default: true. */
  ack?: boolean;
  /** A name for this device, told with each ack. */
  device?: string;
  timing?: Partial<Timing>;
  /** Tells on the console what happens; never a token. Also on when sessionStorage has `tidings.debug`. */
  debug?: boolean;
  environment?: Partial<Environment>;
}

/** All in milliseconds. */
export interface Timing {
  /** First step of the back-off, doubled at each failure. 1000. */
  backoff_ms: number;
  /** The back-off's ceiling. 30000. */
  backoff_max_ms: number;
  /** A transport that has not said `ready` after this long does not work here. 6000. */
  ready_ms: number;
  /** A connection is silent too long after the server's ping time twice and this. 4000. */
  ping_slack_ms: number;
  /** A connection that lived this long resets the back-off. 5000. */
  stable_ms: number;
  /** A transport that did not work is tried again after this long. 600000. */
  unfit_ms: number;
  /** An ordinary request may take this long. 15000. */
  request_ms: number;
  /** How long one long poll waits at the server. 25000. */
  poll_wait_ms: number;
  /** What arrived is acked at most this often. 500. */
  ack_ms: number;
  /** A leading tab that has said nothing for this long is asked whether it lives. 45000. */
  leader_ms: number;
}

export type StatusName = 'connecting' | 'connected' | 'reconnecting' | 'offline' | 'stopped';

/**
 * Reasons, by status: connecting `start`; connected `ready`; reconnecting `network`, `ended`, `no_ready`, `silent`, `gap`,
 * `limited`, `server`, `expired`, `takeover`, or what the server's `bye` says (`drain`, …); offline `offline`; stopped `not_started`,
 * `disconnected`, `hidden` (the page is kept by the browser), `revoked`, `unauthorized`, `forbidden`, `refused`.
 */
export interface Status {
  status: StatusName;
  reason: string;
  /** The transport in use or being tried; of the leading tab where another tab holds the connection. */
  transport: TransportName | null;
  /** Whether this tab holds the browser's connection, follows another tab, or is on its own. */
  role: 'leader' | 'follower' | 'alone';
  /** Whether everything up to now has arrived: what comes is new. */
  live: boolean;
  /** Failures in a row. */
  attempt: number;
  /** When the next attempt is made (Unix milliseconds), or null. */
  retry_at: number | null;
}

export interface Tidings {
  readonly status: Status;
  /** The position up to which this tab has everything. */
  readonly cursor: string | null;
  readonly user: string | null;
  /** Opens the connection, or joins that of another tab. */
  connect(): Tidings;
  /** Resolves when connected, rejects when stopped. */
  ready(): Promise<Status>;
  /** Ends the connection; unsent commands stay queued. */
  disconnect(): void;
  /**
   * Calls the handler for each event of a type, of a family (`message.*`), of all (`*`, without `sys.*`), or for what the
   * client itself tells (`sys.*`). Returns the way to stop. Events come in order, each once.
   */
  on<P extends Pattern>(pattern: P, handler: (event: EventOf<P>) => void): () => void;
  /** A durable subscription of this user to a topic, where the token allows it. */
  subscribe(topic: string): Promise<void>;
  unsubscribe(topic: string): Promise<void>;
  /** Sends a chat message: shown at once, kept in the queue until the server has it, never stored twice. */
  send(conversation: string, content: string, options?: SendOptions): Outgoing;
  /** Says that this user types or has stopped. Call it on every key press; at most one goes out every 2 seconds. */
  typing(conversation: string, state?: 'start' | 'stop'): void;
  /** Marks as read up to a message's `n`, or single messages. */
  read(conversation: string, upto: number | { message_ids: string[] }): Promise<void>;
  /** Sets the status by hand; `auto` gives it back to the server. */
  presence(status: 'online' | 'away' | 'busy' | 'offline' | 'auto', activity?: string): Promise<void>;
  /** Something live to the other members (a pointer, a stroke): the latest of each kind, at most 20 a second, never kept. */
  signal(conversation: string, kind: string, data: unknown): void;
  /** Acks by hand; without a cursor, what has arrived here. */
  ack(cursor?: string): Promise<void>;
  /** Any other call of the server's API as this user; rejects with a TidingsError. */
  request<T = unknown>(method: string, path: string, body?: unknown): Promise<T>;
  /** Loads `/v1/state` without moving the cursor. */
  state(): Promise<State>;
  /** Messages and commands that the server has not confirmed yet, oldest first. */
  readonly queued: readonly QueuedCommand[];
  /** Whether any tab of this browser with this user is being looked at. */
  watched(): Promise<boolean>;
  debug(on: boolean): void;
  readonly environment: Environment;
}

export interface SendOptions {
  /** Made here when not given. The same id is never stored twice. */
  client_id?: string;
  data?: unknown;
}

export interface Outgoing {
  client_id: string;
  /** The message as it may be shown at once; `status` is `queued`. */
  message: Message;
  /** Resolves with the stored message; rejects with a TidingsError when the server refused it. */
  done: Promise<Message>;
}

export interface QueuedCommand {
  op: string;
  ref: string;
  [field: string]: unknown;
}

export interface ErrorFields {
  status: number;
  code: string;
  message: string;
  request_id?: string;
  errors?: { index: number; code: string; message: string }[];
  retry_after_ms?: number | null;
}

export interface TidingsError extends Error {
  /** HTTP status; 0 when no answer came. */
  status: number;
  code: string;
  request_id: string | undefined;
  errors: { index: number; code: string; message: string }[] | undefined;
  retry_after_ms: number | null;
}

export interface Actor {
  id: string;
  name?: string;
}

/** One event, the same on every transport. */
export interface TidingsEvent<Type extends string = string, Data = unknown> {
  v?: number;
  id?: string;
  /** Position in this user's log; absent on ephemeral events. */
  seq?: number;
  cursor?: string;
  type: Type;
  time?: string;
  topic?: string;
  actor?: Actor;
  data: Data;
  ephemeral?: boolean;
  ttl_ms?: number;
}

/** The data of each event type that the server knows. Extend it with your own. */
export interface Events {
  'message.new': Message;
  'message.deleted': { id: string; conversation_id: string; n?: number };
  'message.delivered': Receipt;
  'message.read': Receipt;
  'conversation.new': Conversation;
  'conversation.updated': Conversation;
  'conversation.joined': { conversation_id: string; user: string; conversation?: Conversation };
  'conversation.left': { conversation_id: string; user: string };
  'conversation.read': { conversation_id: string; upto: number; unread: number };
  'notification.new': Notification;
  'notification.read': { ids?: string[]; all?: unknown; unread?: number };
  'notification.digest': { kind: string; count: number; ids: string[]; actors: Actor[]; unread?: number };
  'typing.start': { conversation_id: string; user: string };
  'typing.stop': { conversation_id: string; user: string };
  'presence.changed': Presence;
  badge: Badge;
  'feed.digest': { topic: string; count: number; ids: string[] };
  'entity.created': Entity;
  'entity.updated': Entity;
  'entity.deleted': Entity;
}

/** What the client itself tells. */
export interface SystemEvents {
  'sys.status': Status;
  /** The state that replaces what was shown before: at the start, and after a gap. */
  'sys.state': { reason: 'start' | 'gap'; state: State };
  /** This and `sys.live`, `sys.reset`: only in the tab that holds the connection. */
  'sys.ready': { user: string; conn: string; cursor?: string; head: string; ping_ms: number; badge: Badge; auth_expires: string };
  'sys.live': { cursor: string };
  'sys.reset': { reason: string; requested: string; earliest: number; head: string };
  /** A message or command on its way out. */
  'sys.outgoing': { op: string; ref: string; status: 'queued' | 'sent' | 'failed'; message?: Message; error?: TidingsError };
}

export type AllEvents = Events & SystemEvents;
export type Pattern = keyof AllEvents | '*' | `${string}.*` | (string & {});
type Family<P extends string> = P extends `${infer F}.*`
  ? { [K in keyof AllEvents & string]: K extends `${F}.${string}` ? TidingsEvent<K, AllEvents[K]> : never }[keyof AllEvents & string]
  : never;
export type EventOf<P extends string> = P extends keyof AllEvents
  ? TidingsEvent<P & string, AllEvents[P]>
  : [Family<P>] extends [never]
    ? TidingsEvent<string, any>
    : Family<P>;

export interface Message {
  /** null while it is only queued. */
  id: string | null;
  conversation_id: string;
  /** Place in the conversation: 1, 2, 3 …; null while it is only queued. */
  n: number | null;
  sender: string;
  content: string;
  time: string;
  client_id?: string | null;
  data?: unknown;
  deleted?: boolean;
  status?: 'queued' | 'failed' | 'sent' | 'delivered' | 'read';
  delivered_to?: number;
  read_by?: number;
}

/** In a large group nobody is named: then there are counts instead of `by`. */
export interface Receipt {
  conversation_id: string;
  upto: number;
  by?: string;
  delivered_to?: number;
  read_by?: number | null;
}

export interface Conversation {
  id: string;
  name?: string | null;
  /** Two members and no name. */
  direct?: boolean;
  members: string[];
  member_count?: number;
  unread?: number;
  last_message?: Message | null;
  [field: string]: unknown;
}

export interface Notification {
  id: string;
  kind: string;
  title?: string;
  body?: string;
  link?: string;
  actor?: Actor;
  read: boolean;
  time?: string;
  data?: unknown;
}

export interface Presence {
  user: string;
  status: 'online' | 'away' | 'busy' | 'offline';
  activity?: string | null;
  last_seen?: string | null;
}

export interface Badge {
  notifications: number;
  messages: number;
  conversations: number;
}

export interface Entity {
  entity: string;
  id: string;
  version?: number | string;
}

export interface State {
  user: string;
  cursor: string;
  badge: Badge;
  conversations: Conversation[];
  notifications: Notification[];
  presence: Record<string, Omit<Presence, 'user'> & { user?: string }>;
  preferences: Record<string, unknown>;
}

export interface Environment {
  fetch: typeof globalThis.fetch;
  EventSource: typeof globalThis.EventSource | undefined;
  WebSocket: typeof globalThis.WebSocket | undefined;
  BroadcastChannel: typeof globalThis.BroadcastChannel | undefined;
  locks: Pick<LockManager, 'request'> | undefined;
  /** Kept for one tab. */
  storage: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'> | undefined;
  /** Kept for the browser. */
  shared_storage: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'> | undefined;
  Notification: typeof globalThis.Notification | undefined;
  setTimeout(action: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
  /** Wall time in milliseconds. */
  now(): number;
  /** 0 up to 1. */
  random(): number;
  uuid(): string;
  origin: string;
  online(): boolean;
  visible(): boolean;
  /** Hears `online`, `offline`, `pageshow`, `pagehide` or `visibilitychange`; returns the way to stop. */
  listen(name: string, handler: (event: Event) => void): () => void;
  console: Pick<Console, 'debug' | 'error'>;
}

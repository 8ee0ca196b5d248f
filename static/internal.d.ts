// Types that the client's own modules share; not part of its public API.
// Promises: nothing outside this folder relies on them.
import type { Environment, Message, Notification, State, Status, Timing, TidingsError, TidingsEvent, TokenReason, TransportName } from './tidings.js';

export type Log = (...words: unknown[]) => void;

/** What comes off the wire: an event or a control object, never more than an object with a type. */
export interface Frame {
  type: string;
  id?: string;
  seq?: number;
  cursor?: string;
  ephemeral?: boolean;
  [field: string]: any;
}

/** How a transport ended. */
export interface Ended {
  kind:
    | 'lost' // network error, or the stream's end
    | 'failed' // it ended and the browser does not say why: ask the server
    | 'unfit' // it does not work here: not what the server sends, or not supported
    | 'unauthorized'
    | 'forbidden'
    | 'revoked'
    | 'refused' // the request itself is wrong
    | 'gap' // the position is no position
    | 'limited' // come back later
    | 'server' // the server, or what stands before it, has a fault
    | 'no_ready'
    | 'silent';
  reason?: string;
  /** The server asks to wait at least this long. */
  after_ms?: number | null;
}

export interface Sink {
  frame(frame: Frame): void;
  retry(ms: number): void;
  /** Called once, never after `close`. */
  ended(ended: Ended): void;
}

export interface Opening {
  env: Environment;
  timing: Timing;
  url: string;
  /** What the query carries whatever the transport; `cursor` among it. */
  query: Record<string, string>;
  access: Access;
  sink: Sink;
}

export interface Opened {
  close(): void;
  /** Only where commands can go the other way. False: it could not be sent. */
  send?(text: string): boolean;
}

export type Opener = (opening: Opening) => Opened;

export interface Access {
  /** Headers and credentials mode of a request; asks for the first token when there is none yet. */
  request(): Promise<{ headers: Record<string, string>; credentials: RequestCredentials }>;
  /** Asks for another token. True when a new one is in hand. */
  renew(reason: TokenReason, used?: string | null): Promise<boolean>;
  ticket(): Promise<string>;
  token(): string | null;
  user(): string | null;
  is_cookie: boolean;
  /** Reads with tickets made elsewhere, and can do nothing else. */
  is_ticket_only: boolean;
}

export type Http = (method: string, path: string, body?: unknown) => Promise<any>;

export interface Command {
  op: string;
  ref: string;
  [field: string]: any;
}

export interface TabMessage {
  v: 1;
  from: string;
  kind: string;
  [field: string]: any;
}

export type { Environment, Message, Notification, State, Status, Timing, TidingsError, TidingsEvent, TokenReason, TransportName };

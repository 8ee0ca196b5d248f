// The types of views.js: small stores over a client that a page or a framework adapter can show as they are.
// Promises: `get()` gives the same object until something changed; `subscribe` calls back after each change.
import type { Badge, Message, Outgoing, Presence, SendOptions, State, Tidings } from './tidings.js';

export interface View<T> {
  get(): T;
  subscribe(changed: () => void): () => void;
  /** Lets go of the client; the last value stays. */
  close(): void;
}

export interface ConversationValue {
  /** Oldest first, without holes; unsent ones last. */
  messages: readonly Message[];
  /** Who types now, without the user itself. */
  typing: readonly string[];
  /** Whether older messages may exist. */
  has_older: boolean;
  is_loading: boolean;
  /** Up to where each other member has read and received, by user. */
  read: Readonly<Record<string, number>>;
  delivered: Readonly<Record<string, number>>;
  error: Error | null;
}

export interface ConversationView extends View<ConversationValue> {
  /** Loads the page before the oldest message shown. */
  older(): Promise<void>;
  send(content: string, options?: SendOptions): Outgoing;
  typing(state?: 'start' | 'stop'): void;
  /** Marks everything shown as read. */
  read(): Promise<void>;
}

export function conversationView(tidings: Tidings, conversation: string, options?: { limit?: number }): ConversationView;
/** Who types in a conversation. */
export function typingView(tidings: Tidings, conversation: string): View<readonly string[]>;
/** The presence of everyone that was told of, by user. */
export function presenceView(tidings: Tidings): View<Readonly<Record<string, Presence>>>;
export function badgeView(tidings: Tidings): View<Badge>;
/** The state as loaded last, kept as it was told. */
export function stateView(tidings: Tidings): View<State | null>;

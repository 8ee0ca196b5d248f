// The types of react.js: a provider and hooks.
// Promises: works with React 18 and newer.
import type { ReactElement, ReactNode } from 'react';
import type { Badge, EventOf, Options, Outgoing, Pattern, Presence, SendOptions, Status, Tidings } from './tidings.js';
import type { ConversationValue } from './views.js';

/** Give it a client of your own, or options: then it makes one, connects it, and disconnects it when it goes. */
export const TidingsProvider: (props: { client?: Tidings; options?: Options; children?: ReactNode }) => ReactElement;
export const useTidings: () => Tidings;
/** Calls the handler for each event while the component is shown. */
export const useEvents: <P extends Pattern>(pattern: P, handler: (event: EventOf<P>) => void) => void;
export const useConnection: () => Status;
export const useConversation: (conversation: string, options?: { limit?: number }) => ConversationValue & {
  send(content: string, options?: SendOptions): Outgoing;
  setTyping(state?: 'start' | 'stop'): void;
  markRead(): Promise<void>;
  loadOlder(): Promise<void>;
};
/** null: nothing was told of this user. */
export const usePresence: (user: string) => Presence | null;
export const useTyping: (conversation: string) => readonly string[];
export const useBadge: () => Badge;

// The types of query.js: which cached queries an `entity.*` event makes stale.
// Promises: needs only `invalidateQueries` of a QueryClient, so any TanStack Query of version 5 fits.
import type { Tidings } from './tidings.js';

export interface EntityChange {
  /** `entity.created`, `.updated`, `.deleted`; `gap` when any of them may have been missed. */
  type: string;
  entity: string;
  /** null after a gap: any. */
  id: string | null;
  version: number | string | undefined;
}

/** By entity: a query key (all queries that begin with it), or a function that gives the keys for one change. */
export type Table = Record<string, readonly unknown[] | ((change: EntityChange) => readonly (readonly unknown[])[])>;

/** Returns the way to stop. */
export const invalidateQueries: (
  tidings: Pick<Tidings, 'on' | 'environment'>,
  client: { invalidateQueries(filters: { queryKey: readonly unknown[] }): Promise<void> },
  table: Table,
  options?: { gather_ms?: number },
) => () => void;

// The types of alerts.js: desktop notifications and sounds, once for the whole browser.
// Promises: see alerts.js.
import type { Tidings, TidingsEvent } from './tidings.js';

export interface Alert {
  title: string;
  body?: string;
  link?: string;
  icon?: string;
}

export interface AlertOptions {
  /** Shows desktop notifications, once the person allowed them. Default: false. */
  desktop?: boolean;
  /** Calls `play`. Default: false. */
  sound?: boolean;
  play?: (event: TidingsEvent<string, any>) => void;
  /** What an event is shown as; null: not at all. */
  describe?: (event: TidingsEvent<string, any>, tidings: Tidings) => Alert | null;
  /** A notification was clicked. The link is http or https, or null. */
  open?: (link: string | null, event: TidingsEvent<string, any>) => void;
}

export interface Alerts {
  set(change: { desktop?: boolean; sound?: boolean }): void;
  /** Asks the person for permission; call it from a click. */
  allow(): Promise<boolean>;
  close(): void;
}

export const createAlerts: (tidings: Tidings, options?: AlertOptions) => Alerts;
/** The link if a page may follow it, else null. */
export const safeLink: (link: unknown, base?: string) => string | null;

// Times as a person says them.
// Promises: every function is pure, the present is passed in; a time that cannot be read is shown as nothing.

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: 'short' });
const date = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });
const day = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });

const read = (text) => Date.parse(text ?? '');

export const clockTime = (text) => (Number.isNaN(read(text)) ? '' : clock.format(read(text)));

/** As short as a list wants it: a clock time today, then a weekday, then a date. */
export function shortTime(text, now = Date.now()) {
  const at = read(text);
  if (Number.isNaN(at)) return '';
  if (new Date(at).toDateString() === new Date(now).toDateString()) return clock.format(at);
  return (now - at < 6 * DAY_MS ? weekday : date).format(at);
}

export const dayOf = (text) => (Number.isNaN(read(text)) ? '' : new Date(read(text)).toDateString());

export function dayName(text, now = Date.now()) {
  const name = dayOf(text);
  if (name === new Date(now).toDateString()) return 'Today';
  if (name === new Date(now - DAY_MS).toDateString()) return 'Yesterday';
  return name === '' ? '' : day.format(read(text));
}

export function ago(text, now = Date.now()) {
  const ms = now - read(text);
  if (Number.isNaN(ms)) return '';
  if (ms < MINUTE_MS) return 'just now';
  if (ms < HOUR_MS) return `${Math.floor(ms / MINUTE_MS)} min ago`;
  if (ms < DAY_MS) return `${Math.floor(ms / HOUR_MS)} h ago`;
  return ms < 2 * DAY_MS ? 'yesterday' : `on ${date.format(read(text))}`;
}

/** What a conversation says of the other one. */
export function presenceText(presence, now = Date.now()) {
  const activity = presence?.activity ? ` · ${presence.activity}` : '';
  switch (presence?.status) {
    case 'online': return `Active now${activity}`;
    case 'away': return `Away${activity}`;
    case 'busy': return `Busy${activity}`;
    default: return presence?.last_seen ? `Last seen ${ago(presence.last_seen, now)}` : 'Offline';
  }
}

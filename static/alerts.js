// @ts-check
// Desktop notifications and sounds: one for the browser, not one for each tab.
// Promises: only the tab that holds the connection speaks, and only of what is fresh; nothing pops up while a tab is looked
// at; each event is claimed in storage, so that a change of the leading tab repeats nothing; a link other than http or
// https is not followed; texts stay texts.

const KEY = 'tidings.alerted';
const CLAIMS_MAX = 50;
/** What is older than this when it arrives was missed, not news. */
const FRESH_MS = 60_000;
const TEXT_MAX = 300;

/** @type {typeof import('./alerts.js').createAlerts} */
export const createAlerts = (tidings, options = {}) => {
  const env = tidings.environment;
  let { desktop = false, sound = false } = options;
  const describe = options.describe ?? describeEvent;

  /** @param {any} event */
  async function heard(event) {
    if (tidings.status.role === 'follower' || env.now() - Date.parse(event.time ?? '') > FRESH_MS) return;
    const alert = describe(event, tidings);
    if (alert === null || !claim(event.id)) return;
    if (sound) options.play?.(event);
    if (desktop && !(await tidings.watched())) show(event, alert);
  }

  /** @param {string | undefined} id */
  function claim(id) {
    if (id === undefined) return true;
    try {
      const kept = JSON.parse(env.shared_storage?.getItem(KEY) ?? '[]');
      const ids = Array.isArray(kept) ? kept : [];
      if (ids.includes(id)) return false;
      env.shared_storage?.setItem(KEY, JSON.stringify([...ids, id].slice(-CLAIMS_MAX)));
    } catch {
      // Without storage the notification's tag keeps doubles away.
    }
    return true;
  }

  /** @param {any} event @param {import('./alerts.js').Alert} alert */
  function show(event, { title, body, link, icon }) {
    if (env.Notification === undefined || env.Notification.permission !== 'granted') return;
    const notification = new env.Notification(short(title), { body: short(body ?? ''), tag: event.id, icon });
    notification.onclick = () => {
      notification.close();
      const target = safeLink(link, env.origin);
      (options.open ?? (() => globalThis.focus?.()))(target, event);
    };
  }

  const offs = [tidings.on('notification.new', heard), tidings.on('message.new', heard)];

  return {
    set(change) {
      desktop = change.desktop ?? desktop;
      sound = change.sound ?? sound;
    },
    // Browsers ask only on a click or a key: call it from one.
    allow: async () => (await env.Notification?.requestPermission()) === 'granted',
    close: () => offs.forEach((off) => off()),
  };
};

/** @type {typeof import('./alerts.js').safeLink} */
export const safeLink = (link, base) => {
  if (typeof link !== 'string' || link === '') return null;
  try {
    const url = new URL(link, base || undefined);
    return url.protocol === 'https:' || url.protocol === 'http:' ? url.href : null;
  } catch {
    return null;
  }
};

/** @param {unknown} text */
const short = (text) => String(text).slice(0, TEXT_MAX);

/** @param {any} event @param {import('./tidings.js').Tidings} tidings @returns {import('./alerts.js').Alert | null} */
function describeEvent({ type, data, actor }, tidings) {
  if (type === 'notification.new') {
    return data.read ? null : { title: data.title ?? data.kind ?? 'New', body: data.body ?? undefined, link: data.link ?? undefined };
  }
  if (data.sender === tidings.user) return null;
  return { title: actor?.name ?? data.sender, body: data.content };
}

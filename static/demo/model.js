// What the signed-in user has: conversations, notifications, preferences, badge; kept up to date by events.
// Promises: `sys.state` replaces everything, events change it after that, so that state + events = the present; a listener
// is called after each change; texts are kept as they came. It shows nothing and asks the server only for the inbox.
import { presenceView } from '../views.js';

const NOTIFICATIONS_KEPT = 200;

export function createModel(tidings) {
  const presence = presenceView(tidings);
  const listeners = new Set();
  /** Position of a state that was loaded here, beside the client. */
  let upto = null;
  let isLoading = false;
  let presences = {};
  const model = {
    conversations: new Map(),
    notifications: [],
    has_more_notifications: false,
    preferences: {},
    badge: { notifications: 0, messages: 0, conversations: 0 },
    is_loaded: false,
    presence: (user) => presence.get()[user] ?? (Object.hasOwn(presences, user) ? presences[user] : undefined),
    subscribe(changed) {
      listeners.add(changed);
      return () => listeners.delete(changed);
    },
    /** Newest activity first. */
    inOrder: () => [...model.conversations.values()].sort((a, b) => activity(b) - activity(a)),
    more: () => inbox(model.notifications.at(-1)?.id),
    close,
  };

  const tell = () => [...listeners].forEach((changed) => changed());
  const activity = (conversation) => Date.parse(conversation.last_message?.time ?? conversation.updated ?? conversation.created ?? '') || 0;

  function changeConversation(id, change) {
    const known = model.conversations.get(id);
    if (known !== undefined) model.conversations.set(id, { ...known, ...change(known) });
  }

  function arrived(message) {
    changeConversation(message.conversation_id, (known) => {
      if (message.n <= (known.head ?? 0)) return {};
      const isOwn = message.sender === tidings.user;
      return { head: message.n, last_message: message, unread: (known.unread ?? 0) + (isOwn ? 0 : 1) };
    });
  }

  function joined({ conversation_id, user, conversation }) {
    if (user === tidings.user && conversation !== undefined) {
      model.conversations.set(conversation_id, { unread: 0, ...conversation });
    }
    changeConversation(conversation_id, ({ members }) => ({ members: [...new Set([...members, user])] }));
  }

  function left({ conversation_id, user }) {
    if (user === tidings.user) model.conversations.delete(conversation_id);
    changeConversation(conversation_id, ({ members }) => ({ members: members.filter((member) => member !== user) }));
  }

  /** A page of the inbox: the newest, or the one before what is shown. */
  async function inbox(before) {
    const query = before === undefined ? '' : `&before=${encodeURIComponent(before)}`;
    const page = await tidings.request('GET', `/v1/notifications?limit=20${query}`);
    const known = before === undefined ? [] : model.notifications;
    model.notifications = [...known, ...page.notifications].slice(0, NOTIFICATIONS_KEPT);
    model.has_more_notifications = page.more && model.notifications.length < NOTIFICATIONS_KEPT;
    tell();
  }

  const changes = {
    'sys.state': ({ state }) => {
      presences = state.presence ?? {};
      model.conversations = new Map(state.conversations.map((conversation) => [conversation.id, conversation]));
      model.notifications = state.notifications;
      model.has_more_notifications = state.notifications.length >= 20;
      model.preferences = state.preferences ?? {};
      model.badge = { ...model.badge, ...state.badge };
      model.is_loaded = true;
    },
    badge: (data) => void (model.badge = { ...model.badge, ...data }),
    'message.new': arrived,
    'message.deleted': ({ conversation_id, id }) =>
      changeConversation(conversation_id, ({ last_message: last }) => (last?.id === id ? { last_message: { ...last, content: '', deleted: true } } : {})),
    'conversation.new': (data) => void model.conversations.set(data.id, { unread: 0, ...data }),
    'conversation.updated': (data) =>
      changeConversation(data.id, () => ({ name: data.name, members: data.members, member_count: data.member_count, updated: data.updated })),
    'conversation.joined': joined,
    'conversation.left': left,
    'conversation.read': ({ conversation_id, unread }) => changeConversation(conversation_id, () => ({ unread })),
    'notification.new': (data, event) => {
      const fresh = { time: event.time, ...data };
      model.notifications = [fresh, ...model.notifications.filter(({ id }) => id !== data.id)].slice(0, NOTIFICATIONS_KEPT);
    },
    'notification.read': ({ ids, all }) => {
      const isRead = (notification) => Boolean(all) || (ids ?? []).includes(notification.id);
      model.notifications = model.notifications.map((known) => (isRead(known) ? { ...known, read: true } : known));
    },
    'notification.digest': () => void inbox().catch(() => {}),
    'preferences.updated': (data) => void (model.preferences = { ...model.preferences, ...data }),
  };

  const offs = Object.entries(changes).map(([type, change]) =>
    tidings.on(type, (event) => {
      if (isKnown(event)) return;
      change(event.data, event);
      tell();
    }));
  offs.push(presence.subscribe(tell), tidings.on('sys.status', ({ data }) => data.status === 'connected' && void load()));

  /** After a reload the client goes on from the place it kept: then the state is asked for here, and what it includes is not told again. */
  async function load() {
    if (model.is_loaded || isLoading) return;
    isLoading = true;
    const state = await tidings.state().catch(() => null);
    isLoading = false;
    if (state === null || model.is_loaded) return;
    upto = state.cursor;
    changes['sys.state']({ state });
    tell();
  }

  function isKnown({ type, cursor }) {
    if (type === 'sys.state') upto = null;
    if (upto === null || cursor === undefined) return false;
    const [[epoch, seq], [loaded, last]] = [cursor.split('-'), upto.split('-')];
    return epoch === loaded && Number(seq) <= Number(last);
  }

  function close() {
    offs.forEach((off) => off());
    presence.close();
    listeners.clear();
  }

  return model;
}

/** What a conversation is called by one of its members. */
export function conversationName(conversation, me) {
  if (conversation.name) return conversation.name;
  const others = (conversation.members ?? []).filter((member) => member !== me);
  return others.length > 0 ? others.join(', ') : 'Only you';
}

/** The other one of a 1:1. */
export const partner = (conversation, me) => (conversation.direct ? (conversation.members ?? []).find((member) => member !== me) : undefined);

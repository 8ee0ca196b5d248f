//! The shapes of bodies and answers, as the API's description tells them.
//!
//! Promises: words and types for people and generators of clients; the tests compare real answers with them. Nothing
//! is parsed or written by these types: they are never made.

#![expect(
    dead_code,
    reason = "read by the derive of ToSchema, never constructed"
)]

use serde_json::Value;
use utoipa::ToSchema;

/// A refusal (RFC 9457). `code` is stable, `message` says what is wrong and what to do.
#[derive(ToSchema)]
pub struct Problem {
    r#type: String,
    title: String,
    status: u16,
    code: String,
    message: String,
    request_id: String,
    /// The faults of single items of a batch.
    #[schema(required = false)]
    errors: Vec<ItemError>,
}

#[derive(ToSchema)]
pub struct ItemError {
    /// Place of the item, from 0.
    index: usize,
    code: String,
    message: String,
}

/// Who caused an event.
#[derive(ToSchema)]
pub struct Actor {
    id: String,
    #[schema(required = false)]
    name: String,
}

/// One event of a log, the same JSON on every transport. Ephemeral ones have no seq and no cursor.
#[derive(ToSchema)]
pub struct Event {
    v: u32,
    /// The same for every recipient: de-duplicate by it.
    id: String,
    #[schema(required = false)]
    seq: u64,
    #[schema(required = false)]
    cursor: String,
    r#type: String,
    /// RFC 3339, UTC, milliseconds.
    time: String,
    #[schema(required = false)]
    topic: String,
    #[schema(required = false)]
    actor: Actor,
    data: Value,
    #[schema(required = false)]
    ephemeral: bool,
    #[schema(required = false)]
    ttl_ms: u64,
}

/// One page of a log.
#[derive(ToSchema)]
pub struct EventPage {
    events: Vec<Event>,
    ephemeral: Vec<Event>,
    /// Ask for what comes after it with `cursor=`.
    cursor: String,
    head: String,
    /// There is more: ask again at once.
    more: bool,
    reset: Option<Reset>,
    /// Wait this long before the next poll.
    poll_after_ms: u64,
}

/// Events after the asked position are gone, or never were.
#[derive(ToSchema)]
pub struct Reset {
    r#type: String,
    /// trimmed, epoch, ahead or malformed.
    reason: String,
    requested: String,
    earliest: u64,
    head: String,
    cursor: String,
    state: String,
}

/// Who gets the event: one of the four.
#[derive(ToSchema)]
pub struct To {
    #[schema(required = false)]
    user: String,
    #[schema(required = false)]
    users: Vec<String>,
    #[schema(required = false)]
    topic: String,
    #[schema(required = false)]
    conversation: String,
}

/// One event to publish.
#[derive(ToSchema)]
pub struct Publish {
    to: To,
    r#type: String,
    /// Any JSON value, at most limits.event_bytes; null when left out.
    #[schema(required = false)]
    data: Value,
    /// Makes a repeat harmless: the same id with the same body is stored once.
    #[schema(required = false)]
    id: String,
    #[schema(required = false)]
    topic: String,
    #[schema(required = false)]
    actor: Actor,
    /// To open connections only, never stored.
    #[schema(required = false)]
    ephemeral: bool,
    /// Seconds after which an ephemeral event need not be told any more.
    #[schema(required = false)]
    ttl: f64,
    /// Of ephemeral events with one key, and of gathered feed events, only the last is told.
    #[schema(required = false)]
    collapse_key: String,
    /// A connection that is not told, since it caused the event.
    #[schema(required = false)]
    exclude_conn: String,
}

/// Up to 500 events; with `atomic` all or none.
#[derive(ToSchema)]
pub struct PublishBatch {
    events: Vec<Publish>,
    #[schema(required = false)]
    atomic: bool,
}

#[derive(ToSchema)]
pub struct Published {
    id: String,
    time: String,
    recipients: u32,
    duplicate: bool,
    /// For one named user only.
    #[schema(required = false)]
    seq: u64,
    #[schema(required = false)]
    cursor: String,
}

/// One result for each item, in order: what was published, or `{"error":{status,code,message}}`.
#[derive(ToSchema)]
pub struct Results {
    results: Vec<Value>,
}

#[derive(ToSchema)]
pub struct Notify {
    /// like, comment, follow, mention, announcement, or an application's own.
    kind: String,
    #[schema(required = false)]
    title: String,
    #[schema(required = false)]
    body: String,
    /// https://, http:// or a path.
    #[schema(required = false)]
    link: String,
    #[schema(required = false)]
    actor: Actor,
    #[schema(required = false)]
    data: Value,
}

#[derive(ToSchema)]
pub struct SetPresence {
    /// online, away, busy, offline or auto.
    status: String,
    /// At most 64 characters, such as `responding`.
    #[schema(required = false)]
    activity: String,
    /// The caller's connection of which this is the own state.
    #[schema(required = false)]
    conn: String,
}

/// How a user is. `last_seen` only while it is offline.
#[derive(ToSchema)]
pub struct Presence {
    status: String,
    activity: Option<String>,
    last_seen: Option<String>,
}

#[derive(ToSchema)]
pub struct OwnPresence {
    user: String,
    status: String,
    activity: Option<String>,
    last_seen: Option<String>,
}

/// By user id.
#[derive(ToSchema)]
pub struct Presences {
    presence: std::collections::BTreeMap<String, Presence>,
}

#[derive(ToSchema)]
pub struct Typing {
    /// start or stop.
    state: String,
}

#[derive(ToSchema)]
pub struct LiveSignal {
    /// 1 to 32 of `a-z 0-9 _ -`; the type of the event is `signal.<kind>`.
    kind: String,
    #[schema(required = false)]
    data: Value,
}

#[derive(ToSchema)]
pub struct Ack {
    cursor: String,
    #[schema(required = false)]
    device: String,
}

#[derive(ToSchema)]
pub struct Acked {
    cursor: String,
}

#[derive(ToSchema)]
pub struct Subscribers {
    topic: String,
    subscribers: Vec<String>,
    /// `after` of the next page; null on the last.
    next: Option<String>,
}

#[derive(ToSchema)]
pub struct CreateConversation {
    members: Vec<String>,
    /// 1 to 128 characters.
    #[schema(required = false)]
    name: String,
}

/// A 1:1 or a group. `unread` and `read_upto` are the caller's own.
#[derive(ToSchema)]
pub struct Conversation {
    id: String,
    direct: bool,
    name: Option<String>,
    /// The first 100 of them.
    members: Vec<String>,
    member_count: u64,
    created: String,
    /// The newest message or change.
    updated: String,
    /// The `n` of the newest message.
    head: u64,
    #[schema(required = false)]
    last_message: Message,
    #[schema(required = false)]
    unread: u64,
    #[schema(required = false)]
    read_upto: u64,
}

#[derive(ToSchema)]
pub struct Conversations {
    conversations: Vec<Conversation>,
    /// `before` of the next page; null on the last.
    next: Option<String>,
}

#[derive(ToSchema)]
pub struct RenameConversation {
    name: String,
}

#[derive(ToSchema)]
pub struct Members {
    members: Vec<String>,
    /// `after` of the next page; null on the last.
    next: Option<String>,
}

#[derive(ToSchema)]
pub struct SendMessage {
    /// 1 to 8000 characters.
    content: String,
    #[schema(required = false)]
    client_id: String,
    #[schema(required = false)]
    data: Value,
}

/// One message. How far it has come is told to its sender alone.
#[derive(ToSchema)]
pub struct Message {
    id: String,
    conversation_id: String,
    /// 1, 2, 3 … in its conversation.
    n: u64,
    sender: String,
    content: String,
    time: String,
    client_id: Option<String>,
    #[schema(required = false)]
    data: Value,
    /// `sent`, `delivered` or `read`: what all have reached to whom it was sent.
    #[schema(required = false)]
    status: String,
    /// In groups.
    #[schema(required = false)]
    delivered_to: u64,
    #[schema(required = false)]
    read_by: u64,
    /// A tombstone.
    #[schema(required = false)]
    deleted: bool,
    #[schema(required = false)]
    duplicate: bool,
}

#[derive(ToSchema)]
pub struct History {
    messages: Vec<Message>,
    head: u64,
    /// The `n` of the oldest message that is kept.
    floor: u64,
    more: bool,
}

/// Either `upto` or `message_ids`.
#[derive(ToSchema)]
pub struct ReadMessages {
    #[schema(required = false)]
    upto: u64,
    /// At most 1000.
    #[schema(required = false)]
    message_ids: Vec<String>,
}

#[derive(ToSchema)]
pub struct ReadAnswer {
    conversation_id: String,
    upto: u64,
    unread: u64,
}

/// How much the user has not seen.
#[derive(ToSchema)]
pub struct Badge {
    notifications: u64,
    messages: u64,
    conversations: u64,
}

/// Everything that a client shows, and the cursor from which it goes on.
#[derive(ToSchema)]
pub struct State {
    user: String,
    cursor: String,
    badge: Badge,
    conversations: Vec<Conversation>,
    notifications: Vec<Notification>,
    presence: Value,
    preferences: Preferences,
}

/// Plain text.
#[derive(ToSchema)]
pub struct Text(String);

/// One notification as the inbox tells it; its event says the same, without `time`.
#[derive(ToSchema)]
pub struct Notification {
    id: String,
    kind: String,
    title: Option<String>,
    body: String,
    link: Option<String>,
    actor: Option<Actor>,
    read: bool,
    time: String,
    #[schema(required = false)]
    data: Value,
}

#[derive(ToSchema)]
pub struct Inbox {
    /// Newest first.
    notifications: Vec<Notification>,
    /// Unread ones in the whole inbox.
    unread: u64,
    /// Whether older ones follow: ask with `before` = the last id.
    more: bool,
}

/// Either `ids` or `all`.
#[derive(ToSchema)]
pub struct ReadNotifications {
    /// At most 1000.
    #[schema(required = false)]
    ids: Vec<String>,
    #[schema(required = false)]
    all: bool,
}

#[derive(ToSchema)]
pub struct Unread {
    unread: u64,
}

/// What a user chose.
#[derive(ToSchema)]
pub struct Preferences {
    #[schema(required = false)]
    presence_visible: bool,
    #[schema(required = false)]
    typing_visible: bool,
    #[schema(required = false)]
    read_receipts: bool,
    /// Types like `notification.like`, at most 100.
    #[schema(required = false)]
    muted: Vec<String>,
    #[schema(required = false)]
    feed_auto: bool,
    #[schema(required = false)]
    sound: bool,
    #[schema(required = false)]
    desktop: bool,
}

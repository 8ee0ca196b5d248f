//! The shapes of sessions, health and administration, as the API's description tells them.
//!
//! Promises: words and types for people and generators of clients. Nothing is parsed or written by these types: they
//! are never made.

#![expect(
    dead_code,
    reason = "read by the derive of ToSchema, never constructed"
)]

use serde_json::Value;
use utoipa::ToSchema;

#[derive(ToSchema)]
pub struct Session {
    user: String,
    expires: String,
}

#[derive(ToSchema)]
pub struct Refresh {
    conn: String,
}

#[derive(ToSchema)]
pub struct Refreshed {
    conn: String,
    auth_expires: String,
}

#[derive(ToSchema)]
pub struct Ticket {
    ticket: String,
    /// Seconds within which it must be used first.
    expires_in: u64,
}

#[derive(ToSchema)]
pub struct Login {
    user: String,
}

/// `post` takes text; `like` post and likes; `notify` to and notification; `entity` action, entity, id and version;
/// `event` to, type and data.
#[derive(ToSchema)]
pub struct Act {
    kind: String,
    user: String,
    #[schema(required = false)]
    text: String,
    #[schema(required = false)]
    post: String,
    #[schema(required = false)]
    likes: u32,
    #[schema(required = false)]
    to: String,
    #[schema(required = false)]
    notification: Value,
    #[schema(required = false)]
    action: String,
    #[schema(required = false)]
    entity: String,
    #[schema(required = false)]
    id: String,
    #[schema(required = false)]
    version: u64,
    #[schema(required = false)]
    r#type: String,
    #[schema(required = false)]
    data: Value,
}

#[derive(ToSchema)]
pub struct LoggedIn {
    token: String,
    user: String,
    expires: String,
}

/// Either the user's tokens issued up to a moment, or one token.
#[derive(ToSchema)]
pub struct Revoke {
    #[schema(required = false)]
    user: String,
    #[schema(required = false)]
    jti: String,
    /// RFC 3339, or Unix seconds or milliseconds; now when left out.
    #[schema(required = false)]
    issued_before: Value,
}

#[derive(ToSchema)]
pub struct Health {
    status: String,
    version: String,
}

#[derive(ToSchema)]
pub struct Ready {
    status: String,
}

/// Percentiles are upper bounds; null where no bucket tells one.
#[derive(ToSchema)]
pub struct Spread {
    count: u64,
    p50_below: Option<f64>,
    p90_below: Option<f64>,
    p99_below: Option<f64>,
}

#[derive(ToSchema)]
pub struct Stats {
    version: String,
    started: String,
    uptime_seconds: u64,
    logs: u64,
    /// Events committed since the start.
    events: u64,
    /// Of stored bodies, and of the data files.
    bytes: Value,
    /// In all and by transport.
    connections: Value,
    /// A second, over the last minute; null in the first moment.
    rates: Value,
    publish_ms: Spread,
    sync_ms: Spread,
    lag_events: Spread,
    store: Value,
    draining: bool,
    limits: Value,
}

#[derive(ToSchema)]
pub struct Connection {
    conn: String,
    user: String,
    transport: String,
    since: String,
    cursor: String,
    /// Events between it and the head of its log.
    lag: u64,
    user_agent: String,
    auth_expires: String,
}

#[derive(ToSchema)]
pub struct Connections {
    connections: Vec<Connection>,
    /// Where the next page begins; null on the last.
    next: Option<String>,
}

#[derive(ToSchema)]
pub struct KnownUser {
    user: String,
    epoch: String,
    head: String,
    earliest: u64,
    bytes: u64,
    connections: Vec<Connection>,
    devices: Vec<Value>,
    /// As in `/v1/state`.
    badge: Value,
    /// How many it is in.
    conversations: u64,
    subscriptions: Vec<String>,
    preferences: Value,
    revoked_before: Option<String>,
}

#[derive(ToSchema)]
pub struct Trace {
    id: String,
    r#type: String,
    topic: Option<String>,
    time: String,
    commit: u64,
    appended_at: Option<String>,
    synced_at: Option<String>,
    /// Why the two times are not known, where they are not.
    unknown: Option<String>,
    recipient_count: u64,
    /// The first 100: seq, connections with what was written when, devices with what they acked.
    recipients: Vec<Value>,
}

//! The open subscribers: who they are, how long they may stay, and the word that ends them.
//!
//! Promises: a connection is listed exactly as long as it is open; whoever ends it says why, and the stream hears it at
//! its next wake. It never keeps a token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use dashmap::DashMap;

use crate::clock::UnixMs;
use crate::event::ConnId;
use crate::features::people::Departure;
use crate::features::presence::Presence;
use crate::features::typing::Typing;
use crate::id::UserNo;
use crate::limits::Seat;
use crate::metrics::{Ended, Metrics, Transport};
use crate::token::Claims;
use crate::wake::Wakes;

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    Drain,
    Revoked,
    Disconnected,
    TokenExpired,
    /// The store failed or the log cannot be read.
    Failed,
    /// The reader took nothing for too long.
    Slow,
    /// The reader closed in order, and said that it did not mean to come back.
    Left,
}

impl Closing {
    pub fn reason(self) -> &'static str {
        match self {
            Closing::Drain => "drain",
            Closing::Revoked => "revoked",
            Closing::Disconnected => "disconnected",
            Closing::TokenExpired => "token_expired",
            Closing::Failed => "failed",
            Closing::Slow => "too_slow",
            Closing::Left => "closed",
        }
    }

    /// What the others make of it: an end on purpose shows at once, any other may be a moment's.
    fn departure(self) -> Departure {
        match self {
            Closing::Revoked | Closing::Disconnected | Closing::TokenExpired | Closing::Left => {
                Departure::Closed
            }
            Closing::Drain | Closing::Failed | Closing::Slow => Departure::Cut,
        }
    }
}

const OPEN: u8 = 0;
const REVOKED: u8 = 1;
const DISCONNECTED: u8 = 2;

/// One open subscriber.
pub struct Connection {
    pub id: ConnId,
    pub user: UserNo,
    pub transport: &'static str,
    pub since_ms: UnixMs,
    pub user_agent: Box<str>,
    /// Time at which its token was issued; a refresh moves it.
    issued_ms: AtomicU64,
    jti: parking_lot::Mutex<Option<Box<str>>>,
    /// Written by a refresh, read by the stream.
    expires_ms: AtomicU64,
    /// Written by whoever ends it, read by the stream.
    closing: AtomicU8,
    /// Newest seq written to it; written by the stream, read by the list of connections.
    pub written_seq: AtomicU64,
}

impl Connection {
    pub fn expires_ms(&self) -> UnixMs {
        self.expires_ms.load(Ordering::Relaxed)
    }
}

/// All open subscribers of the server.
pub struct Connections {
    by_id: DashMap<ConnId, Arc<Connection>>,
    is_draining: AtomicBool,
    told: Told,
}

/// Who is told of connections that open and end.
pub struct Told {
    pub wakes: Wakes,
    pub metrics: Arc<Metrics>,
    pub presence: Presence,
    pub typing: Typing,
}

/// A listed connection; dropping it takes it off the list and gives its seat back.
pub struct Listed {
    pub connection: Arc<Connection>,
    connections: Arc<Connections>,
    /// Why it ended, unless the reader just went away.
    ended: Option<Closing>,
    _seat: Seat,
}

/// What a new connection is listed with.
pub struct Newcomer<'a> {
    pub id: ConnId,
    pub user: UserNo,
    pub transport: &'static str,
    pub now_ms: UnixMs,
    pub user_agent: &'a str,
    pub claims: &'a Claims,
    pub seat: Seat,
}

impl Connections {
    pub fn new(told: Told) -> Arc<Connections> {
        Arc::new(Connections {
            by_id: DashMap::new(),
            is_draining: AtomicBool::new(false),
            told,
        })
    }

    pub fn list(self: &Arc<Self>, newcomer: Newcomer<'_>) -> Listed {
        let Newcomer {
            id,
            user,
            transport,
            now_ms,
            user_agent,
            claims,
            seat,
        } = newcomer;
        let connection = Arc::new(Connection {
            id: id.clone(),
            user,
            transport,
            since_ms: now_ms,
            user_agent: user_agent.into(),
            issued_ms: AtomicU64::new(claims.issued_ms.unwrap_or(0)),
            jti: parking_lot::Mutex::new(claims.jti.as_deref().map(Into::into)),
            expires_ms: AtomicU64::new(claims.expires_ms),
            closing: AtomicU8::new(OPEN),
            written_seq: AtomicU64::new(0),
        });
        self.by_id.insert(id, Arc::clone(&connection));
        self.told.presence.opened(user);
        let metrics = &self.told.metrics;
        metrics
            .connects
            .get_or_create(&Transport { transport })
            .inc();
        metrics
            .subscribers
            .get_or_create(&Transport { transport })
            .inc();
        Listed {
            connection,
            connections: Arc::clone(self),
            ended: None,
            _seat: seat,
        }
    }

    pub fn find(&self, id: &ConnId) -> Option<Arc<Connection>> {
        self.by_id.get(id).map(|entry| Arc::clone(entry.value()))
    }

    /// Prolongs an open stream by a newer token of the same user.
    pub fn prolong(&self, connection: &Connection, claims: &Claims) {
        connection
            .expires_ms
            .store(claims.expires_ms, Ordering::Relaxed);
        connection
            .issued_ms
            .store(claims.issued_ms.unwrap_or(0), Ordering::Relaxed);
        *connection.jti.lock() = claims.jti.as_deref().map(Into::into);
        self.told.wakes.wake(connection.user);
    }

    /// Ends the user's streams whose token was issued before.
    pub fn revoke_user(&self, user: UserNo, issued_before_ms: UnixMs) {
        self.end(REVOKED, |connection| {
            connection.user == user
                && connection.issued_ms.load(Ordering::Relaxed) <= issued_before_ms
        });
    }

    /// Ends the streams that one token opened.
    pub fn revoke_token(&self, jti: &str) {
        self.end(REVOKED, |connection| {
            connection.jti.lock().as_deref() == Some(jti)
        });
    }

    /// Ends one stream by its id. Tells whether it was open.
    pub fn disconnect(&self, id: &ConnId) -> bool {
        self.end(DISCONNECTED, |connection| connection.id == *id) > 0
    }

    fn end(&self, reason: u8, is_meant: impl Fn(&Connection) -> bool) -> usize {
        let meant: Vec<Arc<Connection>> = self
            .by_id
            .iter()
            .filter(|entry| is_meant(entry.value()))
            .map(|entry| Arc::clone(entry.value()))
            .collect();
        for connection in &meant {
            connection.closing.store(reason, Ordering::Relaxed);
            self.told.wakes.wake(connection.user);
        }
        meant.len()
    }

    /// Tells every stream to end, and refuses new ones.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
        self.told.presence.freeze();
        self.told.wakes.wake_all();
    }

    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }
}

impl Listed {
    /// Why the stream must end now, if it must.
    pub fn closing(&self) -> Option<Closing> {
        match self.connection.closing.load(Ordering::Relaxed) {
            REVOKED => Some(Closing::Revoked),
            DISCONNECTED => Some(Closing::Disconnected),
            _ if self.connections.is_draining() => Some(Closing::Drain),
            _ => None,
        }
    }

    pub fn ended(&mut self, closing: Closing) {
        self.ended = Some(closing);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let connection = &self.connection;
        self.connections.by_id.remove(&connection.id);
        let transport = connection.transport;
        let Told {
            metrics,
            presence,
            typing,
            ..
        } = &self.connections.told;
        let departure = self.ended.map_or(Departure::Cut, Closing::departure);
        let left = presence.ended(connection.user, &connection.id, departure);
        // Between two polls a reader is still there.
        if left == 0 && transport != "poll" {
            typing.gone(connection.user);
        }
        metrics
            .subscribers
            .get_or_create(&Transport { transport })
            .dec();
        metrics
            .disconnects
            .get_or_create(&Ended {
                transport,
                reason: self.ended.map_or("client", Closing::reason),
            })
            .inc();
    }
}

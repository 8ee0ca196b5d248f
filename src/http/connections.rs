//! The open subscribers: who they are, how long they may stay, what was written to them of late, and the word that ends
//! them.
//!
//! Promises: a connection is listed exactly as long as it is open; whoever ends it says why, and the stream hears it at
//! its next wake. What is remembered of written events and of ended connections is bounded. It never keeps a token.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;
use crate::deadlines::Ms;
use crate::event::ConnId;
use crate::features::people::Departure;
use crate::features::presence::Presence;
use crate::features::typing::Typing;
use crate::http::heartbeat::Heartbeat;
use crate::id::{Random, UserNo};
use crate::limits::Seat;
use crate::metrics::{Ended, Metrics, Readers, Transport};
use crate::store::read::Entry;
use crate::token::Claims;
use crate::wake::Wakes;

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    Drain,
    Revoked,
    Disconnected,
    TokenExpired,
    /// The user was erased.
    Erased,
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
            Closing::Erased => "erased",
            Closing::Failed => "failed",
            Closing::Slow => "too_slow",
            Closing::Left => "closed",
        }
    }

    /// What the others make of it: an end on purpose shows at once, any other may be a moment's.
    fn departure(self) -> Departure {
        match self {
            Closing::Revoked
            | Closing::Disconnected
            | Closing::TokenExpired
            | Closing::Erased
            | Closing::Left => Departure::Closed,
            Closing::Drain | Closing::Failed | Closing::Slow => Departure::Cut,
        }
    }
}

/// Turns remembered of one connection, 24 bytes each; a connection that was written nothing remembers none.
const TURNS_MAX: usize = 32;
/// Connections that were written something and have ended, remembered for traces.
const ENDED_MAX: usize = 1_000;

const OPEN: u8 = 0;
const REVOKED: u8 = 1;
const DISCONNECTED: u8 = 2;
const ERASED: u8 = 3;

/// One open subscriber. The order of the fields counts: those of every delivery fill the last 64 bytes, a cache line of
/// their own where the counts of the `Arc` stand before the first.
#[repr(C)]
pub struct Connection {
    pub id: ConnId,
    pub user_agent: Box<str>,
    pub since_ms: UnixMs,
    pub user: UserNo,
    pub transport: Transport,
    /// Whether it asked for some events only.
    pub is_filtered: bool,
    /// Where it began to read.
    pub start_seq: u64,
    /// Time at which its token was issued; a refresh moves it.
    issued_ms: AtomicU64,
    /// Written by a refresh, read by the stream.
    expires_ms: AtomicU64,
    /// Everything up to here was written to it or hidden from it; written by the stream, read by the administrator.
    reached_seq: AtomicU64,
    /// When the heartbeat wakes its stream; the stream's own.
    expected: AtomicU64,
    /// `None` until there is something in it: most connections are only open.
    more: Mutex<Option<Box<More>>>,
    /// Written by whoever ends it, read by the stream.
    closing: AtomicU8,
}

#[derive(Debug, Default)]
struct More {
    /// The id of its token; written by a refresh.
    jti: Option<Box<str>>,
    /// When which events were written to it, of late; written by the stream, read by traces.
    turns: VecDeque<WrittenTurn>,
}

impl More {
    /// What a connection has whose token has this id.
    fn of_token(jti: Option<&str>) -> Option<Box<More>> {
        jti.map(|jti| {
            Box::new(More {
                jti: Some(jti.into()),
                turns: VecDeque::new(),
            })
        })
    }
}

/// Events written in one turn: the first and the last of them, and some in between may have been hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WrittenTurn {
    first: u64,
    last: u64,
    time_ms: UnixMs,
}

/// What a connection knows of one event of its user's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It began behind the event.
    BeganAfter,
    NotYet,
    Written(UnixMs),
    /// It has passed the event; when is not remembered any more, nor whether a filter hid it.
    Passed,
}

impl Connection {
    pub fn expires_ms(&self) -> UnixMs {
        self.expires_ms.load(Ordering::Relaxed)
    }

    /// The reader has everything up to here, as far as it wants it.
    pub fn reach(&self, seq: u64) {
        self.reached_seq.store(seq, Ordering::Relaxed);
    }

    pub fn reached_seq(&self) -> u64 {
        self.reached_seq.load(Ordering::Relaxed)
    }

    /// Remembers that these events were handed to the transport.
    pub fn wrote(&self, page: &[Entry], time_ms: UnixMs) {
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            return;
        };
        let mut more = self.more.lock();
        let turns = &mut more.get_or_insert_default().turns;
        if turns.len() >= TURNS_MAX {
            turns.pop_front();
        }
        turns.push_back(WrittenTurn {
            first: first.seq,
            last: last.seq,
            time_ms,
        });
    }

    fn was_written(&self) -> bool {
        let more = self.more.lock();
        more.as_ref().is_some_and(|more| !more.turns.is_empty())
    }

    fn is_of_token(&self, jti: &str) -> bool {
        let more = self.more.lock();
        more.as_ref()
            .is_some_and(|more| more.jti.as_deref() == Some(jti))
    }

    pub fn heard(&self, seq: u64) -> Heard {
        if seq <= self.start_seq {
            return Heard::BeganAfter;
        }
        let more = self.more.lock();
        let mut turns = more.iter().flat_map(|more| &more.turns);
        let turn = turns.find(|turn| (turn.first..=turn.last).contains(&seq));
        match turn.filter(|_| !self.is_filtered) {
            Some(turn) => Heard::Written(turn.time_ms),
            None if seq > self.reached_seq() => Heard::NotYet,
            None => Heard::Passed,
        }
    }
}

/// The id of a new connection, which nobody can guess.
pub fn new_id(random: &Random) -> ConnId {
    let id = random.hex(8).parse();
    id.expect("hexadecimal digits are plain")
}

/// All open subscribers of the server.
pub struct Connections {
    by_id: DashMap<ConnId, Arc<Connection>>,
    /// Written when a connection ends, read by traces.
    ended: Mutex<VecDeque<Arc<Connection>>>,
    is_draining: AtomicBool,
    heartbeat: Heartbeat,
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
    pub transport: Transport,
    pub now_ms: UnixMs,
    pub user_agent: &'a str,
    pub claims: &'a Claims,
    pub seat: Seat,
    pub start_seq: u64,
    pub is_filtered: bool,
}

impl Connections {
    pub fn new(told: Told, ping_every: Duration) -> Arc<Connections> {
        Arc::new(Connections {
            by_id: DashMap::new(),
            ended: Mutex::default(),
            is_draining: AtomicBool::new(false),
            heartbeat: Heartbeat::new(ping_every),
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
            start_seq,
            is_filtered,
        } = newcomer;
        let connection = Arc::new(Connection {
            id: id.clone(),
            user,
            transport,
            since_ms: now_ms,
            user_agent: user_agent.into(),
            issued_ms: AtomicU64::new(claims.issued_ms.unwrap_or(0)),
            expires_ms: AtomicU64::new(claims.expires_ms),
            closing: AtomicU8::new(OPEN),
            start_seq,
            is_filtered,
            reached_seq: AtomicU64::new(start_seq),
            expected: AtomicU64::new(0),
            more: Mutex::new(More::of_token(claims.jti.as_deref())),
        });
        self.by_id.insert(id, Arc::clone(&connection));
        self.told.presence.opened(user);
        let (metrics, readers) = (&self.told.metrics, Readers { transport });
        metrics.connects.get_or_create(&readers).inc();
        metrics.subscribers.get_or_create(&readers).inc();
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

    /// Open connections after `after` in the order of their ids, at most `count_max`, of one user or of all; and whether
    /// more follow.
    pub fn page(
        &self,
        user: Option<UserNo>,
        after: Option<&ConnId>,
        count_max: usize,
    ) -> (Vec<Arc<Connection>>, bool) {
        let is_meant = |connection: &Connection| {
            user.is_none_or(|user| connection.user == user)
                && after.is_none_or(|after| connection.id > *after)
        };
        let mut first = BTreeMap::new();
        for entry in self.by_id.iter().filter(|entry| is_meant(entry.value())) {
            first.insert(entry.key().clone(), Arc::clone(entry.value()));
            // One more than asked for tells whether more follow.
            if first.len() > count_max + 1 {
                first.pop_last();
            }
        }
        let is_more = first.len() > count_max;
        (first.into_values().take(count_max).collect(), is_more)
    }

    /// Open connections by transport.
    pub fn count(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for entry in &self.by_id {
            *counts.entry(entry.value().transport.as_str()).or_insert(0) += 1;
        }
        counts
    }

    /// Connections of these users: the open ones, and those that ended of late after something was written to them.
    pub fn of_users(&self, users: &BTreeSet<UserNo>) -> Vec<(Arc<Connection>, bool)> {
        let is_meant = |connection: &Arc<Connection>| users.contains(&connection.user);
        let ended = self.ended.lock().clone();
        let ended = ended.into_iter().filter(is_meant);
        let open = self.by_id.iter().map(|entry| Arc::clone(entry.value()));
        let open = open.filter(is_meant).map(|connection| (connection, true));
        open.chain(ended.map(|connection| (connection, false)))
            .collect()
    }

    /// Prolongs an open stream by a newer token of the same user.
    pub fn prolong(&self, connection: &Connection, claims: &Claims) {
        connection
            .expires_ms
            .store(claims.expires_ms, Ordering::Relaxed);
        connection
            .issued_ms
            .store(claims.issued_ms.unwrap_or(0), Ordering::Relaxed);
        let jti = claims.jti.as_deref().map(Into::into);
        connection.more.lock().get_or_insert_default().jti = jti;
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
        self.end(REVOKED, |connection| connection.is_of_token(jti));
    }

    /// Ends all streams of a user who was erased.
    pub fn erase_user(&self, user: UserNo) {
        self.end(ERASED, |connection| connection.user == user);
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

    /// Wakes streams that must say or look at something although nothing happens, until `stop`.
    pub async fn beat_forever(self: Arc<Self>, stop: CancellationToken) {
        self.heartbeat.beat_forever(&self.told.wakes, stop).await;
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
            ERASED => Some(Closing::Erased),
            _ if self.connections.is_draining() => Some(Closing::Drain),
            _ => None,
        }
    }

    pub fn ended(&mut self, closing: Closing) {
        self.ended = Some(closing);
    }

    /// The time by the clock of `expect_by`, as of the last beat.
    pub fn now(&self) -> Ms {
        self.connections.heartbeat.now()
    }

    /// The stream is to be woken at this moment, or a beat of the heart later. It may be woken before, and asks anew then.
    pub fn expect_by(&self, due: Ms) {
        let (heartbeat, connection) = (&self.connections.heartbeat, &self.connection);
        let expected = connection.expected.load(Ordering::Relaxed);
        if expected > heartbeat.now() && expected <= due {
            return;
        }
        connection.expected.store(due, Ordering::Relaxed);
        heartbeat.expect(connection.user, due);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let connection = &self.connection;
        self.connections.by_id.remove(&connection.id);
        if connection.was_written() {
            let mut ended = self.connections.ended.lock();
            if ended.len() >= ENDED_MAX {
                ended.pop_front();
            }
            ended.push_back(Arc::clone(connection));
        }
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
        if left == 0 && transport != Transport::Poll {
            typing.gone(connection.user);
        }
        let readers = Readers { transport };
        metrics.subscribers.get_or_create(&readers).dec();
        let reason = self.ended.map_or("client", Closing::reason);
        let ended = Ended { transport, reason };
        metrics.disconnects.get_or_create(&ended).inc();
    }
}

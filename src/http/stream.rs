//! One open reader, whatever its transport: ready, what the cursor yields, pings, the end of its token, the bye.
//!
//! Promises: `ready` is first, `reset` comes before any event, silence is broken by a ping, and whoever is ended is
//! told why. A turn may be dropped while it waits and loses nothing. It never queues an event.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use crate::clock::{UnixMs, rfc3339};
use crate::cursor::filter::Filter;
use crate::cursor::start::Start;
use crate::cursor::{Cursor, Delivery, Reset, TURN_BYTES, Wish};
use crate::features::badge::Badge;
use crate::features::snapshot::snapshot;
use crate::features::ticket::Riding;
use crate::frame::{Control, Ready};
use crate::http::caller::Caller;
use crate::http::connections::{self, Closing, Connections, Listed, Newcomer};
use crate::http::error::Problem;
use crate::http::frames::Frames;
use crate::http::presence;
use crate::http::state::App;
use crate::id::{Position, UserNo};
use crate::metrics::{Outcome, Transport};
use crate::store::read::{Page, PageBounds};
use crate::store::shared::StoreError;
use crate::token::LEEWAY_MS;

/// A reader hears this long before the end of its token.
const AUTH_NOTICE_MS: u64 = 60_000;
/// Where readers reconnect after a drain, they are spread over this time.
pub const DRAIN_RETRY_MS: std::ops::RangeInclusive<u64> = 1_000..=30_000;
const TURN_BOUNDS: PageBounds = PageBounds {
    bytes: TURN_BYTES,
    events: usize::MAX,
};

/// Whether the stream goes on after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Goes,
    Ends(Closing),
}

/// What a reader asked for, beside its position.
#[derive(Debug, Clone)]
pub struct Opening {
    pub transport: &'static str,
    pub wish: Wish,
    /// Whether the reader named a position.
    pub has_position: bool,
    pub wants_snapshot: bool,
    pub user_agent: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Greeting,
    Reading,
}

pub struct Stream {
    app: Arc<App>,
    cursor: Cursor,
    listed: Listed,
    user: UserNo,
    delivered: Counter,
    phase: Phase,
    wants_snapshot: bool,
    /// The state comes before anything else. It is asked for in a turn of its own, which may be dropped while it waits.
    is_snapshot_due: bool,
    /// How others are comes before any event, likewise in a turn of its own.
    is_picture_due: bool,
    /// The badge that `ready` tells.
    badge: Badge,
    ping_every: Duration,
    written: Instant,
    /// End of the token of which the reader was warned.
    warned_of_ms: u64,
    _riding: Option<Riding>,
}

/// Lets a caller in as a reader of its own log.
pub async fn open(app: &Arc<App>, caller: Caller, opening: Opening) -> Result<Stream, Problem> {
    if app.connections.is_draining() {
        return Err(Problem::draining());
    }
    let seat = app.limits.connect(caller.user())?;
    let user = app.store.log(caller.user()).await?;
    let conn = connections::new_id(&app.random);
    let subscriber = app.wakes.subscribe(user);
    let Opening {
        transport,
        wish,
        has_position,
        wants_snapshot,
        user_agent,
    } = opening;
    let start = wish.start.clone();
    let wish = Wish {
        conn: Some(conn.clone()),
        ..wish
    };
    let is_filtered = wish.filter != Filter::default();
    let cursor = Cursor::open(app.store.clone(), subscriber, user, wish).await?;
    count_start(app, user, &start, &cursor);
    // The cursor listens already: a change after this count is told.
    let badge = app.badges.of(&app.store, user).await?;
    let newcomer = Newcomer {
        id: conn,
        user,
        transport,
        now_ms: app.clock.now_ms(),
        user_agent: &user_agent,
        claims: &caller.claims,
        seat,
        start_seq: cursor.position().seq,
        is_filtered,
    };
    let ping_ms = u64::try_from(app.config.stream.ping_seconds.as_millis()).unwrap_or(u64::MAX);
    let listed = Connections::list(&app.connections, newcomer);
    // Erased between its first look and here: nobody else would end it.
    if app.store.is_erased(user) {
        app.connections.erase_user(user);
    }
    Ok(Stream {
        app: Arc::clone(app),
        cursor,
        listed,
        user,
        delivered: app
            .metrics
            .delivered
            .get_or_create_owned(&Transport { transport }),
        phase: Phase::Greeting,
        wants_snapshot,
        is_snapshot_due: wants_snapshot && !has_position,
        is_picture_due: true,
        badge,
        ping_every: Duration::from_millis(
            app.random
                // A beat of the server's heart may pass before it is noticed.
                .between(ping_ms * 9 / 10, ping_ms * 21 / 20)
                .max(1),
        ),
        written: Instant::now(),
        warned_of_ms: 0,
        _riding: caller.riding,
    })
}

/// Counts how a reader that named a position started, and takes the position as its ack.
pub fn count_start(app: &App, user: UserNo, start: &Start, cursor: &Cursor) {
    let result = match (start, cursor.pending_reset()) {
        (_, Some(reset)) => reset.reason.as_str(),
        (Start::Now, None) => return,
        (Start::After(_) | Start::AfterSeq(_), None) => "resumed",
        (_, None) => "placed",
    };
    app.metrics.resumes.get_or_create(&Outcome { result }).inc();
    if matches!(start, Start::After(_)) && cursor.pending_reset().is_none() {
        app.acks.note(user, cursor.position().seq);
    }
}

impl Stream {
    pub fn user(&self) -> UserNo {
        self.user
    }

    /// A newer token of the same user prolongs the stream.
    pub fn prolong(&self, claims: &crate::token::Claims) {
        self.app
            .connections
            .prolong(&self.listed.connection, claims);
    }

    /// Writes what is next for the reader; waits until there is something. On a failed store the reader is cut off.
    pub async fn turn(&mut self, frames: &mut Frames) -> Turn {
        if self.phase == Phase::Greeting {
            self.greet(frames);
            self.phase = Phase::Reading;
            return self.wrote(Turn::Goes);
        }
        loop {
            let now_ms = self.app.clock.wall_ms();
            if let Some(closing) = self.closing(now_ms) {
                self.say_bye(frames, closing);
                return self.wrote(Turn::Ends(closing));
            }
            if self.is_snapshot_due {
                // Boxed, like the picture: a stream has no room for them while it waits, which is nearly always.
                return match Box::pin(self.write_snapshot(frames)).await {
                    Ok(()) => self.wrote(Turn::Goes),
                    Err(error) => self.fail(frames, &error),
                };
            }
            if self.is_picture_due && self.cursor.pending_reset().is_none() {
                match Box::pin(self.write_picture(frames)).await {
                    Ok(true) => return self.wrote(Turn::Goes),
                    Ok(false) => {}
                    Err(error) => return self.fail(frames, &error),
                }
            }
            if self.warn_of_expiry(frames, now_ms) {
                return self.wrote(Turn::Goes);
            }
            self.listed.expect_by(self.deadline(now_ms));
            let delivery = match self.cursor.next(TURN_BOUNDS, None).await {
                Ok(delivery) => delivery,
                Err(error) => return self.fail(frames, &error),
            };
            if self.write(frames, delivery) {
                return self.wrote(Turn::Goes);
            }
        }
    }

    fn wrote(&mut self, turn: Turn) -> Turn {
        self.written = Instant::now();
        self.listed.connection.reach(self.cursor.position().seq);
        if let Turn::Ends(closing) = turn {
            self.listed.ended(closing);
        }
        turn
    }

    fn fail(&mut self, frames: &mut Frames, error: &StoreError) -> Turn {
        tracing::error!(%error, "a reader is cut off: its log cannot be read");
        self.say_bye(frames, Closing::Failed);
        self.wrote(Turn::Ends(Closing::Failed))
    }

    /// Names why the stream ended from outside, such as a write that timed out.
    pub fn ended(&mut self, closing: Closing) {
        self.listed.ended(closing);
    }

    fn greet(&mut self, frames: &mut Frames) {
        let retry_ms = self.retry_ms();
        let name = self.app.store.name(self.user);
        let ready = Ready {
            user: name.as_str(),
            conn: self.listed.connection.id.as_str(),
            position: match self.cursor.pending_reset() {
                Some(reset) => reset.asked(),
                None => self.cursor.position(),
            },
            head: self.cursor.head(),
            ping_ms: millis(self.app.config.stream.ping_seconds),
            badge: &self.badge.to_json(),
            auth_expires: &rfc3339(self.listed.connection.expires_ms()),
        };
        frames.control(&Control::Ready(ready), Some(retry_ms));
        self.cursor.place_told();
    }

    fn retry_ms(&self) -> u64 {
        let stream = &self.app.config.stream;
        self.app
            .random
            .between(millis(stream.retry_ms_min), millis(stream.retry_ms_max))
            .max(1)
    }

    async fn write_snapshot(&mut self, frames: &mut Frames) -> Result<(), StoreError> {
        let snapshot = snapshot(&self.app.store, &self.app.presence, self.user).await?;
        self.is_snapshot_due = false;
        self.cursor.skip_to(snapshot.position.seq);
        frames.control(
            &Control::Snapshot {
                position: snapshot.position,
                state: &snapshot.json,
            },
            None,
        );
        Ok(())
    }

    /// Tells how others are and who types. Tells whether there was anything to tell.
    async fn write_picture(&mut self, frames: &mut Frames) -> Result<bool, StoreError> {
        let picture = presence::picture(&self.app, self.user).await?;
        self.is_picture_due = false;
        let mut heard = picture
            .iter()
            .filter(|signal| self.cursor.hears(signal))
            .peekable();
        let is_any = heard.peek().is_some();
        for signal in heard {
            frames.signal(signal);
        }
        Ok(is_any)
    }

    fn closing(&self, now_ms: UnixMs) -> Option<Closing> {
        let ends_ms = self
            .listed
            .connection
            .expires_ms()
            .saturating_add(LEEWAY_MS);
        let is_over = now_ms >= ends_ms;
        self.listed
            .closing()
            .or(is_over.then_some(Closing::TokenExpired))
    }

    fn say_bye(&mut self, frames: &mut Frames, closing: Closing) {
        let retry_ms = match closing {
            Closing::Drain => self
                .app
                .random
                .between(*DRAIN_RETRY_MS.start(), *DRAIN_RETRY_MS.end()),
            _ => self.retry_ms(),
        };
        frames.control(
            &Control::Bye {
                reason: closing.reason(),
            },
            Some(retry_ms),
        );
    }

    /// Tells once for each token that its end is near.
    fn warn_of_expiry(&mut self, frames: &mut Frames, now_ms: UnixMs) -> bool {
        let expires_ms = self.listed.connection.expires_ms();
        let left_ms = expires_ms.saturating_sub(now_ms);
        if left_ms > AUTH_NOTICE_MS || self.warned_of_ms == expires_ms {
            return false;
        }
        self.warned_of_ms = expires_ms;
        frames.control(
            &Control::Auth {
                expires_in_seconds: left_ms.div_ceil(1_000),
            },
            None,
        );
        true
    }

    /// When something must be said or looked at, should no event come.
    fn deadline(&self, now_ms: UnixMs) -> Instant {
        let expires_ms = self.listed.connection.expires_ms();
        let next_ms = match self.warned_of_ms == expires_ms {
            true => expires_ms.saturating_add(LEEWAY_MS),
            false => expires_ms.saturating_sub(AUTH_NOTICE_MS),
        };
        let ping = self.written + self.ping_every;
        let wait = Duration::from_millis(next_ms.saturating_sub(now_ms).max(1));
        match wait > self.ping_every {
            // `written` is not in the future, so the ping comes first.
            true => ping,
            false => ping.min(Instant::now() + wait),
        }
    }

    /// Writes one delivery. Tells whether there was anything to write.
    fn write(&mut self, frames: &mut Frames, delivery: Delivery) -> bool {
        match delivery {
            Delivery::Events(page) => {
                let position = self.cursor.position();
                let json_bytes = page.iter().map(|entry| entry.event.json().len()).sum();
                frames.reserve(page.len(), json_bytes);
                for entry in &page {
                    let position = Position {
                        seq: entry.seq,
                        ..position
                    };
                    frames.event(position, &entry.event);
                }
                self.count_delivered(&page, position);
            }
            Delivery::Signals(signals) => {
                for signal in signals {
                    frames.signal(&signal);
                }
            }
            Delivery::Reset(reset) => {
                self.write_reset(frames, &reset);
                self.is_snapshot_due = self.wants_snapshot;
            }
            Delivery::Live => frames.control(
                &Control::Live {
                    position: self.cursor.position(),
                },
                None,
            ),
            Delivery::Moved => self.write_ping(frames, Some(self.cursor.position())),
            Delivery::Silence | Delivery::Woken if self.written.elapsed() >= self.ping_every => {
                self.write_ping(frames, None)
            }
            Delivery::Silence | Delivery::Woken => return false,
        }
        true
    }

    fn write_ping(&self, frames: &mut Frames, resumable: Option<Position>) {
        frames.control(
            &Control::Ping {
                head: self.cursor.head(),
                resumable,
            },
            None,
        );
    }

    fn write_reset(&self, frames: &mut Frames, reset: &Reset) {
        let result = reset.reason.as_str();
        self.app
            .metrics
            .resets
            .get_or_create(&Outcome { result })
            .inc();
        frames.control(&reset_control(reset), None);
    }

    fn count_delivered(&self, page: &Page, position: Position) {
        self.delivered.inc_by(page.len() as u64);
        self.app
            .metrics
            .lag_events
            .observe(self.cursor.head().seq.saturating_sub(position.seq) as f64);
        let now_ms = self.app.clock.now_ms();
        self.listed.connection.wrote(page, now_ms);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub fn reset_control(reset: &Reset) -> Control<'_> {
    Control::Reset {
        reason: reset.reason.as_str(),
        requested: &reset.requested,
        earliest: reset.earliest,
        head: reset.head,
        resumed: reset.resumed,
    }
}

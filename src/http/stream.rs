//! One open reader, whatever its transport: ready, what the cursor yields, pings, the end of its token, the bye.
//!
//! Promises: `ready` is first, `reset` comes before any event, silence is broken by a ping, and whoever is ended is
//! told why. Waiting may be given up at any time and loses nothing; writing never waits. It never queues an event.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use crate::clock::{UnixMs, rfc3339};
use crate::cursor::filter::Filter;
use crate::cursor::start::Start;
use crate::cursor::{Cursor, Delivery, Reset, TURN_BYTES, Wish};
use crate::deadlines::Ms;
use crate::event::Signal;
use crate::features::badge::Badge;
use crate::features::snapshot::{Snapshot, snapshot};
use crate::features::ticket::Riding;
use crate::frame::{Control, Ready};
use crate::http::caller::Caller;
use crate::http::connections::{self, Closing, Connections, Listed, Newcomer};
use crate::http::error::Problem;
use crate::http::frames::Frames;
use crate::http::presence;
use crate::http::state::App;
use crate::id::{Position, UserNo};
use crate::metrics::{Outcome, Readers, Transport};
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
/// Times between two pings, in shares of `stream.ping_seconds`: drawn for each stream, so that they do not beat together.
/// A beat of the server's heart may pass before a ping's time is noticed.
const PING_PERCENT: std::ops::RangeInclusive<u64> = 90..=105;

/// Whether the stream goes on after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Goes,
    Ends(Closing),
}

/// What a reader asked for, beside its position.
#[derive(Debug, Clone)]
pub struct Opening {
    pub transport: Transport,
    pub wish: Wish,
    /// Whether the reader named a position.
    pub has_position: bool,
    pub wants_snapshot: bool,
    pub user_agent: String,
}

/// What a stream has for its reader; `Stream::write` writes it.
pub enum News {
    /// It is over, and the reader is told why.
    Over(Closing),
    Snapshot(Box<Snapshot>),
    /// How others are, and who types.
    Picture(Vec<Signal>),
    /// The token ends in so many seconds.
    TokenEnds(u64),
    Ping,
    Delivered(Delivery),
}

impl News {
    /// Whether it is one small frame.
    pub fn is_short(&self) -> bool {
        match self {
            News::Snapshot(_) | News::Picture(_) => false,
            News::Delivered(delivery) => {
                !matches!(delivery, Delivery::Events(_) | Delivery::Signals(_))
            }
            News::Over(_) | News::TokenEnds(_) | News::Ping => true,
        }
    }
}

pub struct Stream {
    app: Arc<App>,
    cursor: Cursor,
    listed: Listed,
    delivered: Counter,
    wants_snapshot: bool,
    /// The state comes before anything else.
    is_snapshot_due: bool,
    /// How others are comes before any event.
    is_picture_due: bool,
    /// The badge that `ready` tells.
    badge: Badge,
    ping_every_ms: u32,
    /// When something was written last, by the clock of `Listed::now`.
    written: Ms,
    /// End of the token of which the reader was warned.
    warned_of_ms: UnixMs,
    _riding: Option<Box<Riding>>,
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
    let cursor = Cursor::open(app.store.clone(), subscriber, wish).await?;
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
    let ping_ms = millis(app.config.stream.ping_seconds);
    let [least, most] =
        [*PING_PERCENT.start(), *PING_PERCENT.end()].map(|share| ping_ms * share / 100);
    let listed = Connections::list(&app.connections, newcomer);
    // Erased between its first look and here: nobody else would end it.
    if app.store.is_erased(user) {
        app.connections.erase_user(user);
    }
    Ok(Stream {
        app: Arc::clone(app),
        cursor,
        written: listed.now(),
        listed,
        delivered: app
            .metrics
            .delivered
            .get_or_create_owned(&Readers { transport }),
        wants_snapshot,
        is_snapshot_due: wants_snapshot && !has_position,
        is_picture_due: true,
        badge,
        ping_every_ms: u32::try_from(app.random.between(least, most).max(1)).unwrap_or(u32::MAX),
        warned_of_ms: 0,
        _riding: caller.riding.map(Box::new),
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
        self.cursor.user()
    }

    /// Whether the reader was told that what follows is new.
    pub fn is_caught_up(&self) -> bool {
        self.cursor.is_live_told()
    }

    /// A newer token of the same user prolongs the stream.
    pub fn prolong(&self, claims: &crate::token::Claims) {
        self.app
            .connections
            .prolong(&self.listed.connection, claims);
    }

    /// Waits until there is something for the reader, who has been greeted. It may be dropped while it waits and loses
    /// nothing.
    pub async fn news(&mut self) -> News {
        loop {
            let now_ms = self.app.clock.wall_ms();
            if let Some(closing) = self.closing(now_ms) {
                return News::Over(closing);
            }
            // A reset comes before the picture.
            if self.is_snapshot_due
                || (self.is_picture_due && self.cursor.pending_reset().is_none())
            {
                // Boxed: a stream has no place for them while it waits, which is nearly always.
                match Box::pin(self.first_news()).await {
                    Ok(Some(news)) => return news,
                    Ok(None) => continue,
                    Err(error) => return over(&error),
                }
            }
            if let Some(seconds) = self.warn_of_expiry(now_ms) {
                return News::TokenEnds(seconds);
            }
            match self.cursor.next(&TURN_BOUNDS, None).await {
                Ok(Delivery::Silence | Delivery::Woken) if self.is_ping_due() => return News::Ping,
                Ok(Delivery::Silence | Delivery::Woken) => {}
                Ok(Delivery::Reset(reset)) => return self.begin_anew(reset),
                Ok(delivery) => return News::Delivered(delivery),
                Err(error) => return over(&error),
            }
        }
    }

    /// The state, and how others are: each once, before any event. Nothing where there is nothing to tell of others.
    async fn first_news(&mut self) -> Result<Option<News>, StoreError> {
        if self.is_snapshot_due {
            let snapshot = snapshot(&self.app.store, &self.app.presence, self.user()).await?;
            self.is_snapshot_due = false;
            self.cursor.skip_to(snapshot.position.seq);
            return Ok(Some(News::Snapshot(Box::new(snapshot))));
        }
        let mut picture = presence::picture(&self.app, self.user()).await?;
        self.is_picture_due = false;
        picture.retain(|signal| self.cursor.hears(signal));
        Ok((!picture.is_empty()).then_some(News::Picture(picture)))
    }

    fn begin_anew(&mut self, reset: Reset) -> News {
        self.is_snapshot_due = self.wants_snapshot;
        News::Delivered(Delivery::Reset(reset))
    }

    /// Tells once for each token that its end is near; else has itself woken when something must be said or looked at,
    /// should nothing come before.
    fn warn_of_expiry(&mut self, now_ms: UnixMs) -> Option<u64> {
        let expires_ms = self.listed.connection.expires_ms();
        let is_warned = self.warned_of_ms == expires_ms;
        let left_ms = expires_ms.saturating_sub(now_ms);
        if !is_warned && left_ms <= AUTH_NOTICE_MS {
            self.warned_of_ms = expires_ms;
            return Some(left_ms.div_ceil(1_000));
        }
        let next_ms = match is_warned {
            true => expires_ms.saturating_add(LEEWAY_MS),
            false => expires_ms.saturating_sub(AUTH_NOTICE_MS),
        };
        let wait = next_ms.saturating_sub(now_ms).max(1);
        let ping_every = Ms::from(self.ping_every_ms);
        let ping = self.written + ping_every;
        let due = match wait > ping_every {
            // What was written was written before now, so the ping comes first.
            true => ping,
            false => ping.min(self.listed.now() + wait),
        };
        self.listed.expect_by(due);
        None
    }

    fn is_ping_due(&self) -> bool {
        self.listed.now() >= self.written + Ms::from(self.ping_every_ms)
    }

    /// Writes the first frame, which says where the reader is.
    pub fn greet(&mut self, frames: &mut Frames) {
        let retry_ms = self.retry_ms();
        let name = self.app.store.name(self.user());
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
        self.wrote();
    }

    /// Writes what `news` gave.
    pub fn write(&mut self, news: News, frames: &mut Frames) -> Turn {
        let mut turn = Turn::Goes;
        match news {
            News::Over(closing) => {
                self.say_bye(frames, closing);
                self.listed.ended(closing);
                turn = Turn::Ends(closing);
            }
            News::Snapshot(snapshot) => frames.control(
                &Control::Snapshot {
                    position: snapshot.position,
                    state: &snapshot.json,
                },
                None,
            ),
            News::Picture(signals) => frames.signals(&signals),
            News::TokenEnds(expires_in_seconds) => {
                frames.control(&Control::Auth { expires_in_seconds }, None);
            }
            News::Ping => self.write_ping(frames, None),
            News::Delivered(delivery) => self.write_delivery(frames, &delivery),
        }
        self.wrote();
        turn
    }

    fn wrote(&mut self) {
        self.written = self.listed.now();
        self.listed.connection.reach(self.cursor.position().seq);
    }

    /// Names why the stream ended from outside, such as a write that timed out.
    pub fn ended(&mut self, closing: Closing) {
        self.listed.ended(closing);
    }

    fn retry_ms(&self) -> u64 {
        let stream = &self.app.config.stream;
        self.app
            .random
            .between(millis(stream.retry_ms_min), millis(stream.retry_ms_max))
            .max(1)
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

    fn write_delivery(&mut self, frames: &mut Frames, delivery: &Delivery) {
        match delivery {
            Delivery::Events(page) => {
                let position = self.cursor.position();
                let json_bytes = page.iter().map(|entry| entry.event.json().len()).sum();
                frames.reserve(page.len(), json_bytes);
                for entry in page {
                    let position = Position {
                        seq: entry.seq,
                        ..position
                    };
                    frames.event(position, &entry.event);
                }
                self.count_delivered(page);
            }
            Delivery::Signals(signals) => frames.signals(signals),
            Delivery::Reset(reset) => self.write_reset(frames, reset),
            Delivery::Live => {
                let position = self.cursor.position();
                frames.control(&Control::Live { position }, None);
            }
            Delivery::Moved => self.write_ping(frames, Some(self.cursor.position())),
            Delivery::Silence | Delivery::Woken => {}
        }
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

    fn count_delivered(&self, page: &Page) {
        self.delivered.inc_by(page.len() as u64);
        self.app
            .metrics
            .lag_events
            .observe(self.cursor.lag() as f64);
        let now_ms = self.app.clock.now_ms();
        self.listed.connection.wrote(page, now_ms);
    }
}

fn over(error: &StoreError) -> News {
    tracing::error!(%error, "a reader is cut off: its log cannot be read");
    News::Over(Closing::Failed)
}

fn millis(duration: std::time::Duration) -> u64 {
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

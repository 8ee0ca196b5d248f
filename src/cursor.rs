//! A reader's place in one log, and the one loop by which every transport reads: catch up, wait, repeat.
//!
//! Promises: seqs rise by one without a silent gap; what is gone is told by a reset before anything else; a reader that
//! falls behind costs this place and nothing more, for it pulls from the log at its own pace. It never writes.

pub mod filter;
pub mod start;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::cursor::filter::Filter;
use crate::cursor::start::Start;
use crate::event::{ConnId, Event, Signal};
use crate::id::{Epoch, Position, UserNo, parse_seq};
use crate::store::Store;
use crate::store::logs::View;
use crate::store::read::{Page, PageBounds, Read};
use crate::store::shared::StoreError;
use crate::wake::{Subscriber, Waiting};

/// Everything after the cursor is written in one turn, up to this many bytes.
pub const TURN_BYTES: usize = 64 << 10;
/// Hidden events move a reader's position: it is told after this many of them, or after this time.
const HIDDEN_EVENTS_MAX: u32 = 256;
const HIDDEN_TOLD_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    Trimmed,
    Epoch,
    Ahead,
    Malformed,
}

impl ResetReason {
    pub fn as_str(self) -> &'static str {
        match self {
            ResetReason::Trimmed => "trimmed",
            ResetReason::Epoch => "epoch",
            ResetReason::Ahead => "ahead",
            ResetReason::Malformed => "malformed",
        }
    }
}

/// Events after the asked position are not there any more, or never were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    pub reason: ResetReason,
    pub requested: String,
    /// Oldest retained seq.
    pub earliest: u64,
    pub head: Position,
    /// From where the reader goes on.
    pub resumed: Position,
}

impl Reset {
    /// What was asked, as a position: who asks for it again hears of the reset again. What was no position at all becomes
    /// the one before the first event.
    pub fn asked(&self) -> Position {
        let of_this_log = |seq| Position { seq, ..self.head };
        let asked = self.requested.parse();
        asked.unwrap_or_else(|_| of_this_log(parse_seq(&self.requested).unwrap_or(0)))
    }
}

/// Where a reader goes on after a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnGap {
    #[default]
    Head,
    Earliest,
}

/// What a cursor yields.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The next events, in order; those that the filter hides are left out.
    Events(Page),
    Signals(SmallVec<[Arc<Signal>; 2]>),
    Reset(Reset),
    /// Caught up: what follows is new.
    Live,
    /// Hidden events moved the position; it is time to say where it is.
    Moved,
    /// Nothing came until the deadline.
    Silence,
    /// A wake without news for this reader: look at what else may have changed.
    Woken,
}

/// How a cursor is opened.
#[derive(Debug, Clone)]
pub struct Wish {
    pub start: Start,
    pub on_gap: OnGap,
    pub filter: Filter,
    /// The reader's own connection, which is not told what it caused.
    pub conn: Option<ConnId>,
}

pub struct Cursor {
    store: Store,
    subscriber: Subscriber,
    epoch: Epoch,
    /// Everything up to this seq was yielded or hidden.
    after: u64,
    on_gap: OnGap,
    /// `None` where nothing is hidden, as for nearly every reader.
    filter: Option<Box<Filter>>,
    conn: Option<ConnId>,
    reset: Option<Box<Reset>>,
    is_live_told: bool,
    /// Nothing was newer than the last page: a wake comes before there is anything to look for.
    is_at_tail: bool,
    /// The reader asked for the oldest there is, or for the newest few, and has got nothing yet: should retention take
    /// some meanwhile, it starts at what is left.
    is_placed_loosely: bool,
    /// `ready` told the reader its place, so that it cannot move without a word.
    is_place_told: bool,
    signals_seen: u64,
    wakes_seen: u64,
    /// What was hidden since the position was told last; there once something was.
    hidden: Option<Box<Hidden>>,
    /// Kept from wait to wait: to put one off costs less than to make one. There once a wait had an end.
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy)]
struct Hidden {
    events: u32,
    since: Instant,
}

impl Cursor {
    /// Places a cursor in the log of the subscriber's user. `subscriber` must have been made before, so that no wake is missed.
    pub async fn open(
        store: Store,
        subscriber: Subscriber,
        wish: Wish,
    ) -> Result<Cursor, StoreError> {
        let user = subscriber.user();
        let view = store.view(user);
        let is_placed_loosely =
            matches!(wish.start, Start::Oldest | Start::Last(_) | Start::Since(_));
        let (after, reset) = place(&store, user, &view, wish.start, wish.on_gap).await?;
        let signals_seen = subscriber.newest_signal();
        Ok(Cursor {
            store,
            subscriber,
            epoch: view.epoch,
            after,
            on_gap: wish.on_gap,
            filter: (wish.filter != Filter::default()).then(|| Box::new(wish.filter)),
            conn: wish.conn,
            reset: reset.map(Box::new),
            is_live_told: false,
            is_at_tail: false,
            is_placed_loosely,
            is_place_told: false,
            signals_seen,
            wakes_seen: 0,
            hidden: None,
            timer: None,
        })
    }

    /// The position from which the reader may resume.
    pub fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            seq: self.after,
        }
    }

    /// Whether `Delivery::Live` was yielded.
    pub fn is_live_told(&self) -> bool {
        self.is_live_told
    }

    /// The reader was told its position.
    pub fn place_told(&mut self) {
        self.is_place_told = true;
    }

    /// The newest position of the log.
    pub fn head(&self) -> Position {
        Position {
            epoch: self.epoch,
            seq: self.store.view(self.user()).tail,
        }
    }

    /// Committed events that the reader has not been given.
    pub fn lag(&self) -> u64 {
        match self.is_at_tail {
            true => 0,
            false => self.head().seq.saturating_sub(self.after),
        }
    }

    /// The reset that stands before everything else, if there is one.
    pub fn pending_reset(&self) -> Option<&Reset> {
        self.reset.as_deref()
    }

    /// Moves on to a position at which the reader was given the state.
    pub fn skip_to(&mut self, seq: u64) {
        self.after = self.after.max(seq);
    }

    /// Whose log it reads.
    pub fn user(&self) -> UserNo {
        self.subscriber.user()
    }

    /// The next thing for the reader, at the latest at `deadline`; without one, somebody else must wake who waits too
    /// long. Events come as many as `bounds` allow.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice, and every reader waits in here"
    )]
    pub fn next(
        &mut self,
        bounds: &PageBounds,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<Delivery, StoreError>> + Send {
        async move {
            if !std::mem::take(&mut self.is_at_tail)
                && let Some(delivery) = self.look(bounds).await?
            {
                return Ok(delivery);
            }
            if self.wait(deadline).await {
                return Ok(self.look(bounds).await?.unwrap_or(Delivery::Woken));
            }
            Ok(match self.hidden.is_some() {
                true => self.told_moved(),
                false => Delivery::Silence,
            })
        }
    }

    /// Waits for a wake that was not seen yet. Tells whether there was one before `deadline`, or before it is time to tell
    /// of hidden positions.
    fn wait(&mut self, deadline: Option<Instant>) -> Waiting<'_> {
        #[cfg(feature = "faults")]
        if crate::store::committer::is_mutant("mutant_subscribe_after_read") {
            std::thread::sleep(Duration::from_millis(2));
            self.wakes_seen = self.subscriber.wakes();
        }
        let told = self.hidden.as_ref();
        let told = told.map(|hidden| hidden.since + HIDDEN_TOLD_EVERY);
        let until = told.into_iter().chain(deadline).min();
        let timer = &mut self.timer;
        let timer = until.map(|until| {
            let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if timer.deadline() != until {
                timer.as_mut().reset(until);
            }
            timer.as_mut()
        });
        self.subscriber.wait(&mut self.wakes_seen, timer)
    }

    /// What there is for the reader now.
    async fn look(&mut self, bounds: &PageBounds) -> Result<Option<Delivery>, StoreError> {
        if let Some(reset) = self.reset.take() {
            return Ok(Some(Delivery::Reset(*reset)));
        }
        if self.is_live_told
            && let Some(signals) = self.signals()
        {
            return Ok(Some(Delivery::Signals(signals)));
        }
        loop {
            let reading = self.store.view_and_read(self.user(), self.after, *bounds);
            let (view, read) = reading.await?;
            if view.epoch != self.epoch {
                return Ok(Some(Delivery::Reset(self.start_anew(&view))));
            }
            match read {
                Read::AtTail => break,
                Read::Gone { floor } if self.is_placed_loosely && !self.is_place_told => {
                    self.after = floor - 1;
                }
                Read::Gone { floor } => {
                    #[cfg(feature = "faults")]
                    if crate::store::committer::is_mutant("mutant_drop_without_reset") {
                        self.after = floor - 1;
                        continue;
                    }
                    return Ok(Some(Delivery::Reset(self.fell_behind(floor))));
                }
                Read::Page(page) => {
                    if let Some(delivery) = self.take(page) {
                        self.is_at_tail = self.is_live_told && self.after >= view.tail;
                        return Ok(Some(delivery));
                    }
                }
            }
        }
        if !self.is_live_told {
            self.is_live_told = true;
            // From here on the reader knows its place: what retention takes behind it is told.
            self.is_placed_loosely = false;
            return Ok(Some(Delivery::Live));
        }
        Ok(None)
    }

    /// Moves past a page and leaves out what is hidden.
    fn take(&mut self, mut page: Page) -> Option<Delivery> {
        let last = page.last()?.seq;
        assert_eq!(
            page[0].seq,
            self.after + 1,
            "a page begins right after the cursor"
        );
        self.after = last;
        self.is_placed_loosely = false;
        let read = page.len();
        page.retain(|entry| self.is_shown(&entry.event));
        match page.last() {
            // The position is told with the last event that is shown; those hidden behind it count anew.
            Some(shown) => {
                self.hidden = None;
                self.hide(last - shown.seq);
                Some(Delivery::Events(page))
            }
            None => {
                let hidden = self.hide(read as u64);
                (hidden >= HIDDEN_EVENTS_MAX).then(|| self.told_moved())
            }
        }
    }

    /// Counts hidden events; gives how many there are since the position was told.
    fn hide(&mut self, events: u64) -> u32 {
        if events == 0 && self.hidden.is_none() {
            return 0;
        }
        let none = || {
            Box::new(Hidden {
                events: 0,
                since: Instant::now(),
            })
        };
        let hidden = self.hidden.get_or_insert_with(none);
        hidden.events = hidden
            .events
            .saturating_add(u32::try_from(events).unwrap_or(u32::MAX));
        hidden.events
    }

    fn told_moved(&mut self) -> Delivery {
        self.hidden = None;
        Delivery::Moved
    }

    fn is_shown(&self, event: &Event) -> bool {
        let is_own = self.conn.is_some() && event.exclude_conn == self.conn;
        !is_own && self.shows(|filter| filter.shows(event.event_type(), event.topic()))
    }

    fn signals(&mut self) -> Option<SmallVec<[Arc<Signal>; 2]>> {
        if self.subscriber.newest_signal() == self.signals_seen {
            return None;
        }
        let now_ms = self.store.now_ms();
        let mut signals = self
            .subscriber
            .signals_after(&mut self.signals_seen, now_ms);
        signals.retain(|signal| self.hears(signal));
        (!signals.is_empty()).then_some(signals)
    }

    /// Whether the reader wants to hear of the signal: it did not cause it, and its filter shows it.
    pub fn hears(&self, signal: &Signal) -> bool {
        let is_own = self.conn.is_some() && signal.exclude_conn == self.conn;
        let topic = signal.topic.as_ref().map(|topic| topic.as_str());
        !is_own && self.shows(|filter| filter.shows(signal.event_type.as_str(), topic))
    }

    fn shows(&self, ask: impl FnOnce(&Filter) -> bool) -> bool {
        self.filter.as_deref().is_none_or(ask)
    }

    /// Retention overtook the reader.
    fn fell_behind(&mut self, floor: u64) -> Reset {
        let view = self.store.view(self.user());
        let requested = self.position().to_string();
        let view = View {
            floor: floor.max(view.floor),
            ..view
        };
        // Who asked for the oldest, and was told a place that is gone by now, goes on from what is the oldest now.
        let on_gap = if self.is_placed_loosely {
            OnGap::Earliest
        } else {
            self.on_gap
        };
        let reset = reset(ResetReason::Trimmed, requested, &view, on_gap);
        self.after = reset.resumed.seq;
        reset
    }

    /// The log was created anew under the reader.
    fn start_anew(&mut self, view: &View) -> Reset {
        let requested = self.position().to_string();
        let reset = reset(ResetReason::Epoch, requested, view, self.on_gap);
        self.epoch = view.epoch;
        self.after = reset.resumed.seq;
        reset
    }
}

/// Where a start puts the cursor, with the reset that must be told first.
async fn place(
    store: &Store,
    user: UserNo,
    view: &View,
    start: Start,
    on_gap: OnGap,
) -> Result<(u64, Option<Reset>), StoreError> {
    let refused = |reason, requested: String| {
        let reset = reset(reason, requested, view, on_gap);
        (reset.resumed.seq, Some(reset))
    };
    Ok(match start {
        Start::Now => (view.tail, None),
        Start::Oldest => (view.floor - 1, None),
        Start::Last(count) => (view.tail.saturating_sub(count).max(view.floor - 1), None),
        Start::Since(time_ms) => (store.seq_before(user, time_ms).await?, None),
        Start::Malformed(text) => refused(ResetReason::Malformed, text),
        Start::After(position) if position.epoch != view.epoch => {
            refused(ResetReason::Epoch, position.to_string())
        }
        Start::After(position) => after(position.seq, view).map_or_else(
            |reason| refused(reason, position.to_string()),
            |seq| (seq, None),
        ),
        Start::AfterSeq(seq) => after(seq, view)
            .map_or_else(|reason| refused(reason, seq.to_string()), |seq| (seq, None)),
    })
}

fn after(seq: u64, view: &View) -> Result<u64, ResetReason> {
    if seq > view.tail {
        return Err(ResetReason::Ahead);
    }
    if seq + 1 < view.floor {
        #[cfg(feature = "faults")]
        if crate::store::committer::is_mutant("mutant_drop_without_reset") {
            return Ok(view.floor - 1);
        }
        return Err(ResetReason::Trimmed);
    }
    #[cfg(feature = "faults")]
    if crate::store::committer::is_mutant("mutant_resume_inclusive") {
        return Ok(seq.saturating_sub(1).max(view.floor - 1));
    }
    Ok(seq)
}

fn reset(reason: ResetReason, requested: String, view: &View, on_gap: OnGap) -> Reset {
    let resumed = match on_gap {
        OnGap::Head => view.tail,
        OnGap::Earliest => view.floor - 1,
    };
    Reset {
        reason,
        requested,
        earliest: view.floor,
        head: Position {
            epoch: view.epoch,
            seq: view.tail,
        },
        resumed: Position {
            epoch: view.epoch,
            seq: resumed,
        },
    }
}

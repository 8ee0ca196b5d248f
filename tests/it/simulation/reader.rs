//! Readers: they connect somewhere, read, stall, drop, and come back where they were.
//!
//! Promises: each connection is held to the rules of the wire on its own: seqs rise by one, what is missing was hidden
//! by the filter or told by a reset, and nobody sleeps on news.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use tidings::cursor::filter::Filter;
use tidings::cursor::start::Start;
use tidings::cursor::{Cursor, Delivery, OnGap, Reset, ResetReason, Wish};
use tidings::id::{Epoch, Position, UserNo};
use tidings::store::logs::View;
use tidings::store::read::{Page, PageBounds};
use tokio::time::{Instant, sleep};

use super::oracle::{FloorClaim, LogKey, Skip};
use super::world::{Life, World};

/// One reader, over all its connections.
pub struct Reader {
    pub world: Rc<World>,
    pub number: usize,
    pub user: usize,
    /// Where it would resume.
    pub resume: Cell<Option<Position>>,
    /// Whether its present connection has everything.
    pub is_at_head: Cell<bool>,
}

impl Reader {
    pub async fn run(self: Rc<Self>, mut rng: Rng) {
        loop {
            let life = self.world.life().await;
            let ended = self.world.ended(life.number);
            self.is_at_head.set(false);
            tokio::select! {
                biased;
                () = ended => self.note("cut off"),
                () = self.connect(life, &mut rng) => {}
            }
            if !self.world.is_healed.get() {
                sleep(Duration::from_millis(rng.u64(0..400))).await;
            }
        }
    }

    fn note(&self, line: impl std::fmt::Display) {
        self.world.note(format_args!("r{} {line}", self.number));
    }

    async fn connect(&self, life: Life, rng: &mut Rng) {
        let Ok(user) = life.store.log(&self.world.user(self.user)).await else {
            return sleep(Duration::from_millis(50)).await;
        };
        let subscriber = life.wakes.subscribe(user);
        if rng.bool() {
            tokio::task::yield_now().await;
        }
        let view = life.store.view(user);
        let wish = Wish {
            start: self.start(&view, rng),
            on_gap: [OnGap::Head, OnGap::Earliest][rng.usize(0..2)],
            filter: filter(rng),
            conn: (rng.u8(0..4) == 0).then(|| "c1".parse().expect("letters")),
        };
        let opened = Cursor::open(life.store.clone(), subscriber, wish.clone()).await;
        let Ok(cursor) = opened else {
            return self.note("could not open");
        };
        let mut connection = Connection::new(self, &life, user, wish, cursor);
        connection.opened(&view);
        connection.read(rng).await;
    }

    /// Mostly where it was, else anywhere: the edges of the log above all.
    fn start(&self, view: &View, rng: &mut Rng) -> Start {
        let at = |seq| {
            Start::After(Position {
                epoch: view.epoch,
                seq,
            })
        };
        if let Some(position) = self.resume.get()
            && rng.u8(0..10) < 7
        {
            return Start::After(position);
        }
        match rng.u8(0..12) {
            0 => Start::Now,
            1..=3 => Start::Oldest,
            4 => Start::Last(rng.u64(1..10)),
            5 => at(view.tail),
            6 => at(view.tail + 1),
            7 => at(view.floor),
            8 => at(view.floor - 1),
            9 => at(view.floor.saturating_sub(2)),
            10 => Start::After(Position {
                epoch: Epoch::of(1, UserNo(1), 9),
                seq: view.tail,
            }),
            _ => Start::AfterSeq(rng.u64(0..=view.tail + 1)),
        }
    }
}

fn filter(rng: &mut Rng) -> Filter {
    let types = ["", "", "", "", "a.*", "b.new,b.old"][rng.usize(0..6)];
    Filter::parse(types, "").expect("the patterns are well formed")
}

/// One connection and what it must be told next.
struct Connection<'a> {
    reader: &'a Reader,
    life: &'a Life,
    user: UserNo,
    wish: Wish,
    cursor: Cursor,
    epoch: Epoch,
    /// Everything up to here was shown, hidden or told by a reset.
    after: u64,
    /// It asked for the oldest or the newest few, and was told nothing yet: it may start at what is left.
    is_placed_loosely: bool,
    is_live: bool,
}

impl<'a> Connection<'a> {
    fn new(reader: &'a Reader, life: &'a Life, user: UserNo, wish: Wish, cursor: Cursor) -> Self {
        let Position { epoch, seq } = cursor.position();
        let is_placed_loosely = matches!(wish.start, Start::Oldest | Start::Last(_));
        Connection {
            reader,
            life,
            user,
            wish,
            cursor,
            epoch,
            after: seq,
            is_placed_loosely,
            is_live: false,
        }
    }

    fn violation(&self, what: impl std::fmt::Display) {
        let place = format!(
            "r{} of u{} after {}-{}",
            self.reader.number, self.reader.user, self.epoch, self.after
        );
        self.reader.world.violation(format_args!("{place}: {what}"));
    }

    fn log(&self) -> LogKey {
        (self.reader.user, self.epoch.to_string())
    }

    /// A connection that is not reset begins exactly where it was asked to.
    fn opened(&mut self, view: &View) {
        let position = self.cursor.position();
        self.reader.note(format_args!(
            "opens {:?} at {position} of {view:?}",
            self.wish.start
        ));
        let is_reset = self.cursor.pending_reset().is_some();
        let expected = match self.wish.start {
            Start::After(asked) if !is_reset => asked.seq,
            Start::AfterSeq(asked) if !is_reset => asked,
            Start::Oldest => view.floor - 1,
            Start::Now => view.tail,
            Start::Last(count) => view.tail.saturating_sub(count).max(view.floor - 1),
            _ => position.seq,
        };
        self.after = expected;
    }

    async fn read(&mut self, rng: &mut Rng) {
        let deliveries = rng.u32(1..=60);
        let mut delivered = 0;
        while delivered < deliveries || self.reader.world.is_healed.get() {
            delivered += 1;
            let bounds = PageBounds {
                bytes: [1, 500, 64 << 10][rng.usize(0..3)],
                events: [1, 3, 64, 512][rng.usize(0..4)],
            };
            let wait = Duration::from_millis(rng.u64(1..=3_000));
            match self.cursor.next(&bounds, Some(Instant::now() + wait)).await {
                Ok(delivery) => self.take(delivery, bounds),
                Err(error) => return self.reader.note(error),
            }
            let is_at_head = self.cursor.position() == self.cursor.head();
            self.reader.is_at_head.set(self.is_live && is_at_head);
            match rng.u8(0..20) {
                _ if self.reader.world.is_healed.get() => {}
                0 => sleep(Duration::from_millis(rng.u64(0..1_500))).await,
                1..=5 => tokio::task::yield_now().await,
                _ => {}
            }
        }
        self.reader.note("drops");
    }

    fn take(&mut self, delivery: Delivery, bounds: PageBounds) {
        match delivery {
            Delivery::Events(page) => self.events(page, bounds),
            Delivery::Reset(reset) => self.reset(&reset),
            Delivery::Live => {
                if self.is_live {
                    self.violation("live was told twice");
                }
                self.is_live = true;
                self.hidden_up_to_position();
                self.caught_up("live was told");
            }
            Delivery::Moved => self.hidden_up_to_position(),
            Delivery::Silence => {
                self.hidden_up_to_position();
                self.caught_up("it slept");
            }
            Delivery::Woken => {
                self.hidden_up_to_position();
                self.caught_up("it was woken for nothing");
            }
            Delivery::Signals(_) => self.violation("a signal came, nobody sent one"),
        }
        // A client resumes from what it was told: the last event, or the position that a ping carries.
        let seq = self.after;
        let position = Position {
            epoch: self.epoch,
            seq,
        };
        self.reader.resume.set(Some(position));
    }

    fn caught_up(&self, what: &str) {
        let (position, head) = (self.cursor.position(), self.cursor.head());
        if position != head {
            self.violation(format_args!(
                "{what} at {position} though the head is {head}"
            ));
        }
    }

    fn events(&mut self, page: Page, bounds: PageBounds) {
        let (first, last) = (page[0].seq, page[page.len() - 1].seq);
        self.reader
            .note(format_args!("gets {}-{first}..{last}", self.epoch));
        if page.len() > bounds.events {
            self.violation("a page is larger than its bound");
        }
        for entry in page {
            if entry.seq <= self.after {
                self.violation(format_args!("{} is shown again", entry.seq));
            }
            self.hidden_up_to(entry.seq.saturating_sub(1));
            self.reader
                .world
                .oracle
                .borrow_mut()
                .shown(self.log(), entry.seq, &entry.event);
            self.after = entry.seq;
        }
    }

    fn hidden_up_to_position(&mut self) {
        self.hidden_up_to(self.cursor.position().seq);
    }

    fn hidden_up_to(&mut self, last: u64) {
        let floor = self.life.store.view(self.user).floor;
        if self.is_placed_loosely && self.after + 1 < floor && self.after < last {
            self.claim_floor(self.log(), floor.min(last + 1));
            self.after = (floor - 1).min(last);
        }
        self.is_placed_loosely = false;
        if last <= self.after {
            return;
        }
        let is_open = self.wish.filter == Filter::default() && self.wish.conn.is_none();
        if is_open {
            self.violation(format_args!("{}..={last} is missing", self.after + 1));
        }
        let skip = Skip {
            log: self.log(),
            first: self.after + 1,
            last,
            filter: self.wish.filter.clone(),
            conn: self.wish.conn.as_ref().map(|conn| conn.as_str().to_owned()),
        };
        self.reader.world.oracle.borrow_mut().skips.push(skip);
        self.after = last;
    }

    /// A reset must be true: what it says is gone is gone, and it goes on where it says.
    fn reset(&mut self, reset: &Reset) {
        self.reader.note(format_args!("reset {reset:?}"));
        self.reader.world.oracle.borrow_mut().resets += 1;
        let requested = reset.requested.parse::<Position>().ok();
        let requested = requested.or_else(|| {
            let seq = reset.requested.parse().ok()?;
            Some(Position {
                epoch: reset.head.epoch,
                seq,
            })
        });
        let resumed = match self.wish.on_gap {
            OnGap::Head => reset.head.seq,
            OnGap::Earliest => reset.earliest - 1,
        };
        let Some(requested) = requested else {
            return self.violation("a reset tells a position back that was not asked for");
        };
        let is_true = match reset.reason {
            ResetReason::Trimmed => requested.seq + 1 < reset.earliest,
            ResetReason::Epoch => requested.epoch != reset.head.epoch,
            ResetReason::Ahead => requested.seq > reset.head.seq,
            ResetReason::Malformed => false,
        };
        if !is_true
            || reset.resumed
                != (Position {
                    epoch: reset.head.epoch,
                    seq: resumed,
                })
        {
            self.violation(format_args!("the reset is not true: {reset:?}"));
        }
        self.judge_loss(reset, requested);
        self.epoch = reset.head.epoch;
        self.after = reset.resumed.seq;
    }

    fn judge_loss(&self, reset: &Reset, requested: Position) {
        let mut oracle = self.reader.world.oracle.borrow_mut();
        let asked_log = (self.reader.user, requested.epoch.to_string());
        let newest = oracle
            .places
            .get(&asked_log)
            .and_then(|log| log.keys().next_back());
        let newest = newest.copied().unwrap_or(0);
        let is_loss = match reset.reason {
            ResetReason::Epoch => newest > 0,
            _ => newest > reset.head.seq,
        };
        if is_loss && !oracle.has_damage() {
            oracle.violation(format!(
                "{asked_log:?} had {newest}, now its reader is told {reset:?}"
            ));
        }
        drop(oracle);
        if reset.reason == ResetReason::Trimmed {
            self.claim_floor(asked_log, reset.earliest);
        }
    }

    /// Everything before the floor is said to be gone.
    fn claim_floor(&self, log: LogKey, floor: u64) {
        let mut oracle = self.reader.world.oracle.borrow_mut();
        let clock_ms = oracle.clock_ms;
        oracle.claims.push(FloorClaim {
            log,
            floor,
            tail: self.life.store.view(self.user).tail,
            clock_ms,
        });
    }
}

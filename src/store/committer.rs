//! The one writer: gathers waiting commands, applies them as one group, syncs, and only then lets anyone know.
//!
//! Promises: an ack and a wake come after the sync that made their events durable. While a crowd is synced the next
//! gathers and is applied; nobody sees it before its own sync. After a failed write or sync nothing is acked any more: a
//! second sync might lie. Between groups it does the store's upkeep in small steps.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use crate::clock::UnixMs;
use crate::id::UserNo;
use crate::store::engine::EngineError;
use crate::store::mark::Mark;
use crate::store::queue::{Receiver, Request, Until, Verdict};
use crate::store::redaction::Redacted;
use crate::store::shared::{Shared, StoreError};
use crate::store::space::Space;
use crate::store::syncing::Syncing;
use crate::store::transaction::{Arrival, Writer};
use crate::store::upkeep::Upkeep;

/// A group ends here even when more commands wait: it bounds what one sync carries, in commands and bytes.
const GROUP_COMMANDS_MAX: usize = 1024;
const GROUP_BYTES_MAX: u64 = 4 << 20;
/// Each group costs a sync, which takes more of the processor than many events do. So where several come together, the
/// next group begins no sooner than this after the last: at 5,000 events a second it takes a third of the processor time
/// away, and adds half a millisecond to an ack on a fast disk. One or two publishers that wait for each answer are not
/// held up, nor is a crowd.
const PACE: Duration = Duration::from_micros(800);
const PACED_COMMANDS_MIN: usize = 3;

pub struct Committer {
    writer: Writer,
    upkeep: Upkeep,
    requests: Receiver,
    mark: Option<Mark>,
    space: Option<Space>,
    gathered: Gathered,
    syncing: Syncing,
    /// The group whose sync is under way.
    flight: Option<Flight>,
    /// When the last group of several commands began.
    paced_from: Option<Instant>,
    /// When the last step of upkeep ended. The next is due a pause later, however many commands change nothing meanwhile.
    kept_up: Instant,
    /// Events before this commit number are durable and shown; only those may be indexed and trimmed.
    shown_next: u64,
}

/// Commands that ran and wait for their group's sync to begin.
#[derive(Default)]
struct Gathered {
    acks: Vec<Ack>,
    bytes: u64,
}

impl Gathered {
    fn is_within_bounds(&self) -> bool {
        self.acks.len() < GROUP_COMMANDS_MAX && self.bytes <= GROUP_BYTES_MAX
    }
}

/// A group that is applied and not yet known to be durable.
struct Flight {
    acks: Vec<Ack>,
    arrivals: Vec<Arrival>,
    forgotten: Vec<UserNo>,
    redacted: Vec<Redacted>,
    appended_ms: UnixMs,
    next_commit: u64,
}

/// What the committer is told next.
enum Turn {
    Synced(Result<(), EngineError>),
    Command(Request),
    /// No handle on the store is left.
    Closed,
    Idle,
}

impl Committer {
    pub fn new(
        writer: Writer,
        upkeep: Upkeep,
        requests: Receiver,
        mark: Option<Mark>,
        space: Option<Space>,
    ) -> Committer {
        Committer {
            syncing: Syncing::new(&writer.shared),
            shown_next: writer.next_commit,
            writer,
            upkeep,
            requests,
            mark,
            space,
            gathered: Gathered::default(),
            flight: None,
            paced_from: None,
            kept_up: Instant::now(),
        }
    }

    /// Works until all senders are gone or the disk fails.
    pub async fn run(mut self) {
        if let Err(error) = self.work().await {
            return self.fail(&error).await;
        }
        if let Some(mark) = &mut self.mark
            && let Err(error) = mark.sync()
        {
            tracing::error!(%error, "cannot sync the high-water mark at the end");
        }
    }

    async fn work(&mut self) -> Result<(), EngineError> {
        let mut is_open = true;
        while is_open || self.flight.is_some() {
            let turn = self.next(is_open).await;
            let shared = Arc::clone(&self.writer.shared);
            shared.at_work.begin();
            is_open &= !matches!(turn, Turn::Closed);
            let done = self.take(turn);
            shared.at_work.end();
            done?;
        }
        Ok(())
    }

    fn take(&mut self, turn: Turn) -> Result<(), EngineError> {
        match turn {
            Turn::Synced(outcome) => {
                self.writer.shared.in_sync.end();
                outcome?;
                self.land()?;
                self.keep_up(false)
            }
            Turn::Command(first) => {
                if self.flight.is_none() {
                    self.pace();
                }
                self.gather(first)?;
                self.launch()
            }
            Turn::Closed => Ok(()),
            Turn::Idle => self.keep_up(true),
        }
    }

    async fn next(&mut self, is_open: bool) -> Turn {
        let is_free = self.flight.is_none();
        let can_take = is_open && self.gathered.is_within_bounds();
        let until = if is_free {
            Until::Command
        } else {
            Until::Crowd
        };
        let until_looked = self.space.as_ref().map_or(Duration::MAX, Space::pause);
        let pause = self.upkeep.pause(&self.writer.shared).min(until_looked);
        tokio::select! {
            biased;
            outcome = self.syncing.end(), if !is_free => Turn::Synced(outcome),
            request = self.requests.next(until), if can_take => request.map_or(Turn::Closed, Turn::Command),
            () = sleep_until(self.kept_up + pause), if is_free => Turn::Idle,
        }
    }

    /// Lets more commands come where several came together a moment ago. The thread is the committer's own.
    fn pace(&mut self) {
        let Some(began) = self.paced_from.take() else {
            return;
        };
        let left = PACE.saturating_sub(began.elapsed());
        if !left.is_zero() && !self.requests.is_crowded() {
            std::thread::sleep(left);
        }
    }

    /// Runs the commands that wait, up to the group's bounds.
    fn gather(&mut self, first: Request) -> Result<(), EngineError> {
        let mut next = Some(first);
        while let Some(request) = next {
            let mut transaction = self.writer.begin();
            match (request.run)(&mut transaction) {
                Verdict::Keep(ack) => {
                    self.gathered.bytes += transaction.keep()?;
                    self.gathered.acks.push((ack, request.permit));
                }
                Verdict::Discard(answer) => {
                    transaction.discard();
                    answer();
                }
            }
            next = self.waiting();
        }
        Ok(())
    }

    /// A command that waits, if the group has place for it.
    fn waiting(&mut self) -> Option<Request> {
        match self.gathered.is_within_bounds() {
            true => self.requests.waiting(),
            false => None,
        }
    }

    /// Begins the sync of what was gathered, unless one is under way. Commands that changed nothing wait only for the
    /// group whose changes they may have seen.
    fn launch(&mut self) -> Result<(), EngineError> {
        if self.flight.is_some() {
            return Ok(());
        }
        if !std::mem::take(&mut self.writer.is_dirty) {
            answer(std::mem::take(&mut self.gathered).acks);
            return Ok(());
        }
        let Gathered { acks, bytes } = std::mem::take(&mut self.gathered);
        if let Some(space) = &mut self.space {
            space.spend(bytes);
        }
        let metrics = &self.writer.shared.metrics;
        metrics.group_commands.observe(acks.len() as f64);
        #[cfg(feature = "faults")]
        let acks = self.mutants(acks)?;
        let is_paced = acks.len() >= PACED_COMMANDS_MIN && !self.writer.shared.rows.is_resident();
        self.paced_from = is_paced.then(Instant::now);
        self.writer.shared.in_sync.begin();
        self.syncing.begin(acks.len())?;
        self.flight = Some(Flight {
            acks,
            arrivals: std::mem::take(&mut self.writer.arrivals),
            forgotten: std::mem::take(&mut self.writer.forgotten),
            redacted: std::mem::take(&mut self.writer.redacted),
            appended_ms: self.writer.shared.clock.now_ms(),
            next_commit: self.writer.next_commit,
        });
        Ok(())
    }

    /// The group under way is durable: readers may find it and callers hear of it. Then the next one takes its place.
    fn land(&mut self) -> Result<(), EngineError> {
        let durable = self.flight.take().expect("a sync belongs to a group");
        if let Some(mark) = &mut self.mark {
            mark.advance(durable.next_commit - 1).map_err(failed)?;
        }
        self.show(&durable.arrivals);
        if let [first, .., last] | [first @ last] = durable.arrivals.as_slice() {
            let (commits, shared) = (first.event.commit..=last.event.commit, &self.writer.shared);
            let synced_ms = shared.clock.now_ms();
            shared.times.note(commits, durable.appended_ms, synced_ms);
        }
        self.upkeep
            .erased(&self.writer.shared, durable.forgotten, durable.redacted);
        fail::fail_point!("before_ack");
        answer(durable.acks);
        fail::fail_point!("before_wake");
        wake(&self.writer.shared, &durable.arrivals);
        if self.gathered.acks.is_empty() {
            return Ok(());
        }
        if let Some(first) = self.waiting() {
            self.gather(first)?;
        }
        self.launch()
    }

    /// The events are durable: readers may find them.
    fn show(&mut self, arrivals: &[Arrival]) {
        let shared = &self.writer.shared;
        shared
            .ring
            .push(arrivals.iter().map(|arrival| Arc::clone(&arrival.event)));
        for arrival in arrivals {
            self.shown_next = arrival.event.commit + 1;
            for recipient in &arrival.recipients {
                self.upkeep.arrived(&shared.logs, recipient, &arrival.event);
            }
            self.upkeep.stored(arrival.record_bytes);
            shared.metrics.events.inc();
            shared
                .metrics
                .copies
                .inc_by(arrival.recipients.len() as u64);
        }
    }

    fn keep_up(&mut self, is_idle: bool) -> Result<(), EngineError> {
        self.upkeep
            .step(&self.writer.shared, self.shown_next, is_idle)?;
        if let Some(space) = &mut self.space {
            space.settle();
        }
        if let Some(mark) = &mut self.mark {
            mark.settle().map_err(failed)?;
        }
        self.kept_up = Instant::now();
        Ok(())
    }

    /// The store can promise nothing any more. Whoever waits is told, and the server ends.
    async fn fail(mut self, error: &EngineError) {
        tracing::error!(%error, "a write to the data directory failed: nothing is acknowledged any more");
        self.writer.shared.failed.send_replace(true);
        self.flight = None;
        self.gathered = Gathered::default();
        self.requests.close().await;
    }

    /// Faults that the checker must catch: acks and deliveries before the sync.
    #[cfg(feature = "faults")]
    fn mutants(&mut self, acks: Vec<Ack>) -> Result<Vec<Ack>, EngineError> {
        if is_mutant("mutant_deliver_before_sync") {
            let arrivals = std::mem::take(&mut self.writer.arrivals);
            self.show(&arrivals);
            wake(&self.writer.shared, &arrivals);
        }
        if is_mutant("mutant_ack_before_sync") {
            answer(acks);
            return Ok(Vec::new());
        }
        Ok(acks)
    }
}

/// Whether a fault is switched on by name.
#[cfg(feature = "faults")]
pub fn is_mutant(name: &str) -> bool {
    fail::eval(name, |_| ()).is_some()
}

type Ack = (
    Box<dyn FnOnce(Result<(), StoreError>) + Send>,
    OwnedSemaphorePermit,
);

fn answer(acks: Vec<Ack>) {
    for (ack, permit) in acks {
        ack(Ok(()));
        drop(permit);
    }
}

fn wake(shared: &Shared, arrivals: &[Arrival]) {
    for arrival in arrivals {
        for recipient in &arrival.recipients {
            shared.wakes.wake(recipient.user);
        }
    }
}

fn failed(error: std::io::Error) -> EngineError {
    EngineError::Failed(error.to_string())
}

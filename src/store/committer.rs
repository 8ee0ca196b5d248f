//! The one writer: gathers waiting commands, applies them as one group, syncs, and only then lets anyone know.
//!
//! Promises: an ack and a wake come after the sync that made their events durable. After a failed write or sync
//! nothing is acked any more: a second sync might lie. Between groups it does the store's upkeep in small steps.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};

use crate::store::engine::EngineError;
use crate::store::mark::Mark;
use crate::store::record;
use crate::store::shared::StoreError;
use crate::store::space::Space;
use crate::store::transaction::{Arrival, Transaction, Writer};
use crate::store::upkeep::Upkeep;

/// A group ends here even when more commands wait: it bounds what one sync carries, in commands and bytes.
const GROUP_COMMANDS_MAX: usize = 1024;
const GROUP_BYTES_MAX: u64 = 4 << 20;
/// Without commands the committer looks after the store this often.
const IDLE: Duration = Duration::from_millis(100);

/// While upkeep has work, it goes on after this pause.
const BUSY: Duration = Duration::from_millis(1);

/// A command on its way to the committer.
pub struct Request {
    pub run: Box<dyn FnOnce(&mut Transaction<'_>) -> Verdict + Send>,
    /// Its share of the bytes that may wait.
    pub permit: OwnedSemaphorePermit,
}

/// What a command decided.
pub enum Verdict {
    /// Keep what it staged, and answer once that is durable.
    Keep(Box<dyn FnOnce(Result<(), StoreError>) + Send>),
    /// Forget what it staged, and answer now.
    Discard(Box<dyn FnOnce() + Send>),
}

pub struct Committer {
    writer: Writer,
    upkeep: Upkeep,
    requests: mpsc::Receiver<Request>,
    mark: Option<Mark>,
    space: Option<Space>,
}

impl Committer {
    pub fn new(
        writer: Writer,
        upkeep: Upkeep,
        requests: mpsc::Receiver<Request>,
        mark: Option<Mark>,
        space: Option<Space>,
    ) -> Committer {
        Committer {
            writer,
            upkeep,
            requests,
            mark,
            space,
        }
    }

    /// Works until all senders are gone or the disk fails.
    pub async fn run(mut self) {
        let mut waiting = Vec::new();
        loop {
            let wait = if self.upkeep.is_busy() { BUSY } else { IDLE };
            let first = timeout(wait, self.requests.recv()).await;
            let is_idle = first.is_err();
            match first {
                Ok(None) => break,
                Ok(Some(first)) => waiting.push(first),
                Err(_) => {}
            }
            while waiting.len() < GROUP_COMMANDS_MAX
                && let Ok(next) = self.requests.try_recv()
            {
                waiting.push(next);
            }
            let worked = self
                .commit(&mut waiting)
                .and_then(|()| self.keep_up(is_idle));
            if let Err(error) = worked {
                return self.fail(&error).await;
            }
        }
        if let Some(mark) = &mut self.mark
            && let Err(error) = mark.sync()
        {
            tracing::error!(%error, "cannot sync the high-water mark at the end");
        }
    }

    /// Runs the waiting commands, a group at a time.
    fn commit(&mut self, waiting: &mut Vec<Request>) -> Result<(), EngineError> {
        let mut queue = std::mem::take(waiting).into_iter().peekable();
        while queue.peek().is_some() {
            let mut acks = Vec::new();
            let mut bytes = 0;
            for request in queue.by_ref() {
                let mut transaction = self.writer.begin();
                match (request.run)(&mut transaction) {
                    Verdict::Keep(ack) => {
                        bytes += transaction.keep()?;
                        acks.push((ack, request.permit));
                    }
                    Verdict::Discard(answer) => {
                        transaction.discard();
                        answer();
                    }
                }
                if bytes > GROUP_BYTES_MAX {
                    break;
                }
            }
            self.finish(acks, bytes)?;
        }
        Ok(())
    }

    /// Makes the group durable, shows it to readers, and answers.
    fn finish(&mut self, acks: Vec<Ack>, bytes: u64) -> Result<(), EngineError> {
        if !self.writer.is_dirty() {
            return answer(acks);
        }
        if let Some(space) = &mut self.space {
            space.spend(bytes);
        }
        let shared = Arc::clone(&self.writer.shared);
        shared.metrics.group_commands.observe(acks.len() as f64);
        #[cfg(feature = "faults")]
        let acks = self.mutants(acks)?;
        self.writer.apply_rest()?;
        let started = Instant::now();
        shared.rows.sync()?;
        shared
            .metrics
            .sync_seconds
            .observe(started.elapsed().as_secs_f64());
        if let Some(mark) = &mut self.mark {
            mark.advance(self.writer.next_commit - 1).map_err(failed)?;
        }
        let arrivals = std::mem::take(&mut self.writer.arrivals);
        self.show(&arrivals);
        fail::fail_point!("before_ack");
        answer(acks)?;
        fail::fail_point!("before_wake");
        for arrival in &arrivals {
            for recipient in &arrival.recipients {
                shared.wakes.wake(recipient.user);
            }
        }
        Ok(())
    }

    /// The events are durable: readers may find them.
    fn show(&mut self, arrivals: &[Arrival]) {
        let shared = &self.writer.shared;
        shared
            .ring
            .push(arrivals.iter().map(|arrival| Arc::clone(&arrival.event)));
        for arrival in arrivals {
            let bytes = record::retained_bytes(arrival.event.json().len());
            for recipient in &arrival.recipients {
                shared
                    .logs
                    .arrive(recipient.user, recipient.seq, arrival.event.commit, bytes);
                self.upkeep
                    .arrived(&shared.logs, recipient.user, &arrival.event);
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
        self.upkeep.step(&mut self.writer, is_idle)?;
        if let Some(space) = &mut self.space {
            space.settle();
        }
        match &mut self.mark {
            Some(mark) => mark.settle().map_err(failed),
            None => Ok(()),
        }
    }

    /// The store can promise nothing any more. Whoever waits is told, and the server ends.
    async fn fail(mut self, error: &EngineError) {
        tracing::error!(%error, "a write to the data directory failed: nothing is acknowledged any more");
        self.writer.shared.failed.send_replace(true);
        self.requests.close();
        while self.requests.recv().await.is_some() {}
    }

    /// Faults that the checker must catch: acks and deliveries before the sync.
    #[cfg(feature = "faults")]
    fn mutants(&mut self, acks: Vec<Ack>) -> Result<Vec<Ack>, EngineError> {
        if is_mutant("mutant_deliver_before_sync") {
            self.writer.apply_rest()?;
            let arrivals = std::mem::take(&mut self.writer.arrivals);
            self.show(&arrivals);
            for recipient in arrivals.iter().flat_map(|arrival| &arrival.recipients) {
                self.writer.shared.wakes.wake(recipient.user);
            }
        }
        if is_mutant("mutant_ack_before_sync") {
            answer(acks)?;
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

fn answer(acks: Vec<Ack>) -> Result<(), EngineError> {
    for (ack, permit) in acks {
        ack(Ok(()));
        drop(permit);
    }
    Ok(())
}

fn failed(error: std::io::Error) -> EngineError {
    EngineError::Failed(error.to_string())
}

//! The sync of one group, while the committer works on the next.
//!
//! Promises: one sync at a time; what was applied before it began is on stable storage when it ends well. For a crowd
//! a disk is waited for on a thread of its own, which ends with this value. It never touches heads, acks or wakes.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::store::engine::EngineError;
use crate::store::shared::Shared;

type Outcome = Result<(), EngineError>;

/// A group of at most so many commands is synced by the committer's own thread: to hand it over and back costs more than
/// deciding the next few commands during the sync would gain.
const HERE_COMMANDS_MAX: usize = 31;

/// A resident engine syncs at once, but the committer hears of it only after this many turns of the other tasks: so
/// the simulation meets groups that are applied while the one before is under way.
const RESIDENT_TURNS: usize = 3;

pub struct Syncing {
    shared: Arc<Shared>,
    /// `None` until there is a crowd, and while the value is dropped.
    disk: Option<DiskThread>,
    /// The sync that is under way.
    current: Option<Current>,
}

struct DiskThread {
    jobs: mpsc::Sender<oneshot::Sender<Outcome>>,
    thread: JoinHandle<()>,
}

enum Current {
    OnThread(oneshot::Receiver<Outcome>),
    /// Told after so many turns of the other tasks.
    Ended {
        outcome: Outcome,
        turns: usize,
    },
}

impl Syncing {
    pub fn new(shared: &Arc<Shared>) -> Syncing {
        Syncing {
            shared: Arc::clone(shared),
            disk: None,
            current: None,
        }
    }

    /// Begins to sync what is applied, for a group of so many commands.
    pub fn begin(&mut self, commands: usize) -> Outcome {
        assert!(self.current.is_none(), "one sync at a time");
        let is_resident = self.shared.rows.is_resident();
        let current = match is_resident || commands <= HERE_COMMANDS_MAX {
            true => Current::Ended {
                outcome: timed_sync(&self.shared),
                turns: if is_resident { RESIDENT_TURNS } else { 0 },
            },
            false => Current::OnThread(self.ask_thread()?),
        };
        self.current = Some(current);
        Ok(())
    }

    fn ask_thread(&mut self) -> Result<oneshot::Receiver<Outcome>, EngineError> {
        let disk = match &self.disk {
            Some(disk) => disk,
            None => self.disk.insert(DiskThread::start(&self.shared)?),
        };
        let (reply, outcome) = oneshot::channel();
        disk.jobs.send(reply).map_err(|_| gone())?;
        Ok(outcome)
    }

    /// Waits for the end of the sync that is under way. Nothing is lost when the future is dropped and asked for again.
    pub async fn end(&mut self) -> Outcome {
        let outcome = match self.current.as_mut().expect("a sync was begun") {
            Current::OnThread(outcome) => outcome.await.unwrap_or_else(|_| Err(gone())),
            Current::Ended { outcome, turns } => {
                while *turns > 0 {
                    *turns -= 1;
                    tokio::task::yield_now().await;
                }
                outcome.clone()
            }
        };
        self.current = None;
        outcome
    }
}

impl Drop for Syncing {
    /// The files are free once the thread has ended.
    fn drop(&mut self) {
        if let Some(DiskThread { jobs, thread }) = self.disk.take() {
            drop(jobs);
            if thread.join().is_err() {
                tracing::error!("the thread that syncs ended in a panic");
            }
        }
    }
}

impl DiskThread {
    fn start(shared: &Arc<Shared>) -> Result<DiskThread, EngineError> {
        let (jobs, asked) = mpsc::channel::<oneshot::Sender<Outcome>>();
        let shared = Arc::clone(shared);
        let work = move || {
            while let Ok(reply) = asked.recv() {
                // The committer is gone when nobody hears it.
                drop(reply.send(timed_sync(&shared)));
            }
        };
        let thread = std::thread::Builder::new().name("sync".to_owned());
        let thread = thread
            .spawn(work)
            .map_err(|error| EngineError::Failed(error.to_string()))?;
        Ok(DiskThread { jobs, thread })
    }
}

fn timed_sync(shared: &Shared) -> Outcome {
    let started = Instant::now();
    shared.rows.sync()?;
    let seconds = started.elapsed().as_secs_f64();
    shared.metrics.sync_seconds.observe(seconds);
    Ok(())
}

fn gone() -> EngineError {
    EngineError::Failed("the thread that syncs has stopped".to_owned())
}

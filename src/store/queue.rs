//! The queue before the committer, bounded in commands and in bytes.
//!
//! Promises: commands leave in the order in which they came; whoever sends waits while the queue is full. A committer
//! that is free is woken by the first command. One whose group is being synced is woken by a crowd only: a wake costs both
//! threads a switch, and what waits is taken when the sync ends. It never looks into a command.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;

/// Commands that may wait for the committer, in number and in bytes.
const COMMANDS_MAX: usize = 4096;
const BYTES_MAX: usize = 64 << 20;

/// A command: what it is to do in the committer's thread.
pub type Run = Box<dyn FnOnce(&mut Transaction<'_>) -> Verdict + Send>;

/// What a command decided.
pub enum Verdict {
    /// Keep what it staged, and answer once that is durable.
    Keep(Box<dyn FnOnce(Result<(), StoreError>) + Send>),
    /// Forget what it staged, and answer now.
    Discard(Box<dyn FnOnce() + Send>),
}

/// A command on its way to the committer.
pub struct Request {
    pub run: Run,
    /// Its share of the bytes that may wait.
    pub permit: OwnedSemaphorePermit,
}

/// The committer has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// One pointer: every open stream has a handle on the store.
#[derive(Clone)]
pub struct Sender(Arc<Entrance>);

struct Entrance {
    requests: mpsc::Sender<Request>,
    bytes: Arc<Semaphore>,
    crowd: Arc<Notify>,
    /// So many that wait are a crowd.
    crowd_min: usize,
}

pub struct Receiver {
    requests: mpsc::Receiver<Request>,
    crowd: Arc<Notify>,
    crowd_min: usize,
}

/// What a committer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Command,
    Crowd,
}

pub fn queue(crowd_min: usize) -> (Sender, Receiver) {
    let (sender, requests) = mpsc::channel(COMMANDS_MAX);
    let crowd = Arc::new(Notify::new());
    let entrance = Entrance {
        requests: sender,
        bytes: Arc::new(Semaphore::new(BYTES_MAX)),
        crowd: Arc::clone(&crowd),
        crowd_min,
    };
    let receiver = Receiver {
        requests,
        crowd,
        crowd_min,
    };
    (Sender(Arc::new(entrance)), receiver)
}

impl Sender {
    /// Hands a command over that holds about so many bytes.
    pub async fn send(&self, bytes: usize, run: Run) -> Result<(), Gone> {
        let Entrance {
            requests,
            crowd,
            crowd_min,
            ..
        } = &*self.0;
        let share =
            u32::try_from(bytes.clamp(1, BYTES_MAX)).expect("the queue's bound fits 32 bits");
        let permit = Arc::clone(&self.0.bytes).acquire_many_owned(share).await;
        let permit = permit.map_err(|_| Gone)?;
        let request = Request { run, permit };
        requests.send(request).await.map_err(|_| Gone)?;
        let waiting = requests.max_capacity() - requests.capacity();
        // Of two that come at once each may count both. Then this crowd is not told, and waits for the sync.
        if waiting > 0 && waiting.is_multiple_of(*crowd_min) {
            crowd.notify_one();
        }
        Ok(())
    }
}

impl Receiver {
    /// The next command, or nothing once no sender is left. It may be dropped while it waits and loses no command.
    pub async fn next(&mut self, until: Until) -> Option<Request> {
        if until == Until::Crowd {
            self.crowd.notified().await;
        }
        self.requests.recv().await
    }

    /// Whether as many wait as a committer is woken for while it is busy.
    pub fn is_crowded(&self) -> bool {
        self.requests.len() >= self.crowd_min
    }

    /// A command that waits already.
    pub fn waiting(&mut self) -> Option<Request> {
        self.requests.try_recv().ok()
    }

    /// Refuses further commands, and drops those that wait.
    pub async fn close(&mut self) {
        self.requests.close();
        while self.requests.recv().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    fn command() -> Run {
        Box::new(|_| Verdict::Discard(Box::new(|| ())))
    }

    #[tokio::test]
    async fn a_free_committer_hears_of_the_first_command_and_a_busy_one_of_a_crowd() {
        let (sender, mut receiver) = queue(3);
        sender.send(1, command()).await.unwrap();
        assert!(receiver.next(Until::Command).await.is_some());
        {
            let mut next = pin!(receiver.next(Until::Crowd));
            assert!(poll!(next.as_mut()).is_pending());
            sender.send(1, command()).await.unwrap();
            sender.send(1, command()).await.unwrap();
            assert!(poll!(next.as_mut()).is_pending(), "two are no crowd");
            sender.send(1, command()).await.unwrap();
            assert!(poll!(next.as_mut()).is_ready());
        }
        assert!(receiver.waiting().is_some() && receiver.waiting().is_some());
        assert!(receiver.waiting().is_none());
    }

    #[tokio::test]
    async fn whoever_sends_waits_while_too_many_bytes_wait() {
        let (sender, mut receiver) = queue(1);
        sender.send(BYTES_MAX - 1, command()).await.unwrap();
        let mut large = pin!(sender.send(2, command()));
        assert!(poll!(large.as_mut()).is_pending());
        drop(receiver.waiting());
        assert_eq!(large.await, Ok(()));
        receiver.close().await;
        assert_eq!(sender.send(1, command()).await, Err(Gone));
    }
}

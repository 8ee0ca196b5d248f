//! Groups that overlap: while one is synced, the next is decided and applied, and nobody hears of it.
//!
//! Promises: each sync ends when the test says so, well or badly, so every moment between is looked at without a sleep.

use std::ops::ControlFlow;
use std::sync::mpsc;

use parking_lot::Mutex;
use tidings::clock::Clock;
use tidings::event::Event;
use tidings::publish::{self, Publication, PublishError, Receipt};
use tidings::store::engine::{Engine, EngineError, Op, Visit};
use tidings::store::keys;
use tidings::store::memory::Memory;
use tidings::store::read::Read;
use tidings::store::shared::StoreError;
use tidings::store::{Store, open_on};
use tokio::sync::mpsc as async_mpsc;
use tokio::task::JoinHandle;

use super::{KEEP_ALL, NOON_MS, PAGE, draft, settings, surroundings, to};

/// A crowd: its sync is waited for on a thread of its own, and for so many the committer leaves its waiting.
const MANY: u64 = 100;

/// An engine on a "disk" whose syncs tell that they began and wait to be told how they end.
struct Held {
    memory: Memory,
    began: async_mpsc::UnboundedSender<()>,
    ends: Mutex<mpsc::Receiver<Result<(), EngineError>>>,
}

impl Engine for Held {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.memory.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), EngineError> {
        self.memory.scan(from, to, visit)
    }

    fn last_key(&self, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.memory.last_key(from, to)
    }

    fn apply(&self, ops: Vec<Op>) -> Result<(), EngineError> {
        self.memory.apply(ops)
    }

    fn sync(&self) -> Result<(), EngineError> {
        // What is applied from here on is not covered.
        self.memory.sync()?;
        if self.began.send(()).is_err() {
            // The test is over.
            return Ok(());
        }
        self.ends.lock().recv().unwrap_or(Ok(()))
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn unsynced_values(&self) -> u64 {
        0
    }

    fn is_resident(&self) -> bool {
        false
    }
}

struct Bench {
    memory: Memory,
    store: Store,
    began: async_mpsc::UnboundedReceiver<()>,
    ends: mpsc::Sender<Result<(), EngineError>>,
}

type Published = JoinHandle<Result<Receipt, PublishError>>;

impl Bench {
    async fn new() -> Bench {
        let memory = Memory::default();
        let (began_sender, began) = async_mpsc::unbounded_channel();
        let (ends, ends_receiver) = mpsc::channel();
        let held = Held {
            memory: memory.clone(),
            began: began_sender,
            ends: Mutex::new(ends_receiver),
        };
        // Opening syncs once.
        ends.send(Ok(())).unwrap();
        let surroundings = surroundings(&Clock::manual(NOON_MS));
        let (store, committer) =
            open_on(Box::new(held), &settings(KEEP_ALL), &surroundings).unwrap();
        tokio::spawn(committer.run());
        let mut bench = Bench {
            memory,
            store,
            began,
            ends,
        };
        bench.sync_begins().await;
        bench
    }

    async fn sync_begins(&mut self) {
        self.began.recv().await.expect("the store is open");
    }

    fn sync_ends(&self, outcome: Result<(), EngineError>) {
        self.ends.send(outcome).unwrap();
    }

    fn publish(&self, id: &str) -> Published {
        let publication = Publication {
            event: Event::of(&draft(id, NOON_MS, 0)),
            to: to("alice"),
            keys: vec![keys::hash(&[b"id", id.as_bytes()])],
            fingerprint: [1; 16],
        };
        let store = self.store.clone();
        tokio::spawn(async move { publish::publish(&store, publication).await })
    }

    /// Publishes that come at once, and so make one group.
    fn crowd(&self, name: &str) -> Vec<Published> {
        let ids = (0..MANY).map(|number| format!("{name}-{number}"));
        ids.map(|id| self.publish(&id)).collect()
    }

    fn records(&self) -> u64 {
        let mut count = 0;
        let (from, to) = (keys::record(0, 0), keys::records_end());
        let scanned = self.memory.scan(&from, &to, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        scanned.unwrap();
        count
    }

    /// Waits until the engine holds so many records, synced or not.
    async fn applied(&self, records: u64) {
        while self.records() < records {
            tokio::task::yield_now().await;
        }
    }

    /// Seqs that a reader finds.
    async fn found(&self) -> Vec<u64> {
        let user = self.store.find(&"alice".parse().unwrap()).unwrap();
        match self.store.read(user, 0, PAGE).await.unwrap() {
            Read::Page(page) => page.iter().map(|entry| entry.seq).collect(),
            Read::AtTail => Vec::new(),
            other => panic!("{other:?}"),
        }
    }
}

fn is_any_finished(published: &[Published]) -> bool {
    published.iter().any(Published::is_finished)
}

async fn seqs(published: Vec<Published>) -> Vec<u64> {
    let mut seqs = Vec::new();
    for published in published {
        let position = published.await.unwrap().unwrap().position;
        seqs.push(position.unwrap().seq);
    }
    seqs
}

#[tokio::test]
async fn the_next_group_is_applied_during_a_sync_and_shown_after_its_own() {
    let mut bench = Bench::new().await;
    let first = bench.crowd("first");
    bench.sync_begins().await;
    let more = bench.crowd("more");
    bench.applied(2 * MANY).await;
    assert!(!is_any_finished(&first) && !is_any_finished(&more));
    assert_eq!(bench.found().await, [0u64; 0]);

    bench.sync_ends(Ok(()));
    let all = (1..=MANY).collect::<Vec<_>>();
    assert_eq!(seqs(first).await, all);
    bench.sync_begins().await;
    assert!(!is_any_finished(&more));
    assert_eq!(bench.found().await, all);

    bench.sync_ends(Ok(()));
    for published in more {
        published.await.unwrap().unwrap();
    }
    assert_eq!(bench.found().await, (1..=2 * MANY).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_repeat_waits_for_the_sync_of_the_first() {
    let mut bench = Bench::new().await;
    let first = bench.crowd("first");
    bench.sync_begins().await;
    let repeat = bench.publish("first-0");
    // The committer took the repeat once it took the ones that came after it.
    let more = bench.crowd("more");
    bench.applied(2 * MANY).await;
    assert!(!repeat.is_finished());
    bench.sync_ends(Ok(()));
    seqs(first).await;
    bench.sync_begins().await;
    bench.sync_ends(Ok(()));
    assert!(repeat.await.unwrap().unwrap().is_duplicate);
    for published in more {
        published.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_repeat_alone_is_answered_when_the_first_is_durable() {
    let mut bench = Bench::new().await;
    let first = bench.crowd("first");
    bench.sync_begins().await;
    let repeat = bench.publish("first-0");
    bench.sync_ends(Ok(()));
    seqs(first).await;
    assert!(repeat.await.unwrap().unwrap().is_duplicate);
    assert_eq!(bench.found().await, (1..=MANY).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_sync_takes_the_group_that_was_gathered_with_it() {
    let mut bench = Bench::new().await;
    let first = bench.crowd("first");
    bench.sync_begins().await;
    let more = bench.crowd("more");
    bench.applied(2 * MANY).await;
    bench.sync_ends(Err(EngineError::Failed("the disk broke".to_owned())));
    let is_failed = |published: Result<Receipt, PublishError>| {
        matches!(published, Err(PublishError::Store(StoreError::Failed(_))))
    };
    for published in first.into_iter().chain(more) {
        assert!(is_failed(published.await.unwrap()));
    }
    assert!(is_failed(bench.publish("later").await.unwrap()));
    assert!(bench.store.has_failed());
    assert_eq!(bench.found().await, [0u64; 0]);
}

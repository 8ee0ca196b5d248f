//! The logic of the store over the engine in memory: what is appended, found again, trimmed, and what damage does.
//!
//! Promises: the real committer runs in virtual time; a restart is a crash that keeps what was synced. It looks at rows
//! only to see that none was left behind. What the engine on a disk does with its file is in `churn` alone.

mod churn;
mod damage;
mod erase;
mod inbox;
mod logs;
mod overlap;
mod retention;
mod rows;
mod unread;
mod whole;

use std::ops::ControlFlow;
use std::time::Duration;

use tidings::clock::Clock;
use tidings::event::{Draft, Event, Json, UserId};
use tidings::id::{Random, UserNo};
use tidings::publish::{self, Audience, Publication, PublishError, Receipt};
use tidings::store::engine::{Engine, EngineError};
use tidings::store::read::{PageBounds, Read};
use tidings::store::upkeep::Retention;
use tidings::store::{Settings, Store, Surroundings, keys, open_on};
use tidings::wake::Wakes;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::simulation::disk::Disk;

/// 2026-11-21 12:00 UTC.
const NOON_MS: u64 = 1_795_262_400_000;
const KEEP_ALL: Retention = Retention {
    events: 0,
    age_ms: 0,
    bytes: 0,
    total_bytes: 0,
};
const PAGE: PageBounds = PageBounds {
    bytes: 64 << 10,
    events: 512,
};

/// A disk and the store that is open on it.
struct Bench {
    disk: Disk,
    clock: Clock,
    retention: Retention,
    store: Store,
    committer: JoinHandle<()>,
}

impl Bench {
    fn new(retention: Retention) -> Bench {
        Bench::on(Disk::default(), retention).expect("an empty disk opens")
    }

    fn on(disk: Disk, retention: Retention) -> Result<Bench, EngineError> {
        let clock = Clock::manual(NOON_MS);
        let (store, committer) = open(&disk, &clock, retention)?;
        Ok(Bench {
            disk,
            clock,
            retention,
            store,
            committer,
        })
    }

    /// A power cut that keeps so many of the batches that were not synced, and a new start.
    async fn restart(self, kept: usize) -> Bench {
        self.committer.abort();
        drop(self.committer.await);
        drop(self.store);
        self.disk.memory.crash(kept);
        let disk = Disk::on(self.disk.memory.clone());
        let (store, committer) = open(&disk, &self.clock, self.retention).expect("the disk opens");
        Bench {
            disk,
            store,
            committer,
            ..self
        }
    }

    async fn publish(&self, to: Audience, id: &str, bytes: usize) -> Receipt {
        let published = publish::publish(&self.store, self.publication(to, id, bytes)).await;
        published.expect("the disk is healthy")
    }

    /// An event with that many bytes of data, remembered by its id.
    fn publication(&self, to: Audience, id: &str, bytes: usize) -> Publication {
        Publication {
            event: Event::of(&draft(id, self.clock.now_ms(), bytes)),
            to,
            keys: vec![keys::hash(&[b"id", id.as_bytes()])],
            fingerprint: [1; 16],
        }
    }

    fn user(&self, name: &str) -> UserNo {
        let user = self.store.find(&name.parse().unwrap());
        user.expect("the user has a log")
    }

    /// The user's retained events: their seqs and ids.
    async fn log(&self, name: &str) -> Vec<(u64, String)> {
        let user = self.user(name);
        let mut after = self.store.view(user).floor - 1;
        let mut found = Vec::new();
        while let Read::Page(page) = self.store.read(user, after, PAGE).await.unwrap() {
            assert_eq!(
                page[0].seq,
                after + 1,
                "a page begins after the place that was asked for"
            );
            after = page[page.len() - 1].seq;
            found.extend(
                page.iter()
                    .map(|entry| (entry.seq, entry.event.id().to_owned())),
            );
        }
        assert_eq!(after, self.store.view(user).tail);
        found
    }

    async fn ids(&self, name: &str) -> Vec<String> {
        self.log(name).await.into_iter().map(|(_, id)| id).collect()
    }

    /// Lets the upkeep do all that is due.
    async fn idle(&self) {
        sleep(Duration::from_secs(10)).await;
    }

    /// Rows of one kind, by the first byte of their keys.
    fn rows(&self, kind: u8) -> usize {
        let mut count = 0;
        let scanned = self.disk.scan(&[kind], &[kind + 1], &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        scanned.unwrap();
        count
    }
}

fn open(
    disk: &Disk,
    clock: &Clock,
    retention: Retention,
) -> Result<(Store, JoinHandle<()>), EngineError> {
    let (settings, surroundings) = (settings(retention), surroundings(clock));
    let (store, committer) = open_on(Box::new(disk.clone()), &settings, &surroundings)?;
    Ok((store, tokio::spawn(committer.run())))
}

fn settings(retention: Retention) -> Settings {
    Settings {
        directory: Default::default(),
        retention,
        // Nothing is found in memory, so that every read goes to the rows.
        ring_bytes: 0,
        cache_bytes: 0,
        free_bytes_min: 0,
        ballast_bytes: 0,
    }
}

fn surroundings(clock: &Clock) -> Surroundings {
    Surroundings {
        clock: clock.clone(),
        random: Random::system(),
        wakes: Wakes::default(),
        metrics: Default::default(),
    }
}

/// An event with that many bytes of data.
fn draft(id: &str, time_ms: u64, bytes: usize) -> Draft {
    Draft {
        id: id.parse().unwrap(),
        event_type: "a.b".parse().unwrap(),
        time_ms,
        topic: None,
        actor: None,
        data: Json::of(&"x".repeat(bytes).into()),
        exclude_conn: None,
    }
}

fn to(name: &str) -> Audience {
    Audience::User(name.parse().unwrap())
}

fn to_all(names: &[&str]) -> Audience {
    let names: Vec<UserId> = names.iter().map(|name| name.parse().unwrap()).collect();
    Audience::Users(names)
}

/// `e1`, `e2` and so on.
fn names(first: usize, last: usize) -> Vec<String> {
    (first..=last).map(|number| format!("e{number}")).collect()
}

async fn together(bench: &Bench, batch: Vec<Publication>) -> Result<Vec<Receipt>, PublishError> {
    let batch = batch.into_iter().map(Publication::decision).collect();
    let receipts = publish::publish_together(&bench.store, 64, batch).await;
    receipts.map_err(|refused| refused.error)
}

//! Acked durable events a second, against a raw file with the same group commit.
//!
//! Runs on the store and on the file alternate, for machines are shared and noisy: the median of the ratios counts. The
//! store runs on its real engine, opened beside its directory's mark and free-space guard, which cost microseconds a group.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidings::publish::publish;
use tidings::store::engine::{Engine, EngineError, Op, Visit};
use tidings::store::journaled::{Journaled, Missing};
use tidings::store::{Store, open_on};

use super::{PUBLISHERS, RUN, UNBOUNDED, cpu_seconds, publication, settings, user};

/// Pairs of runs from which the ratio is taken.
const ROUNDS: usize = 5;

/// A store whose syncs last at least so long, beside a raw file of which the same is true: what a disk of 1 ms a sync
/// gives, on a faster one. Runs alternate, for the machine is shared; the median of the ratios counts.
pub fn commit(runtime: &tokio::runtime::Runtime) {
    for sync_min in [None, Some(Duration::from_millis(1))] {
        let disk = sync_min.map_or("this disk".to_owned(), |sync_min| {
            format!("at least {sync_min:?} a sync")
        });
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let directory = tempfile::tempdir_in(".").unwrap();
            let (raw, sync_ms) = runtime.block_on(raw_file(directory.path(), RUN, sync_min));
            let (rate, p99_ms, cpu_us) = commit_once(runtime, directory.path(), sync_min);
            ratios.push(rate / raw);
            println!(
                "commit, {disk}: {rate:.0} acked events/s with {PUBLISHERS} publishers, p99 {p99_ms:.1} ms, {cpu_us:.1} µs CPU an event; \
                 raw file with the same group commit {raw:.0}/s, {sync_ms:.2} ms a sync; ratio {:.2}",
                rate / raw
            );
        }
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        println!("commit, {disk}: median ratio {median:.2} (bar 0.35), all {ratios:.2?}");
    }
}

/// Events a second, p99 in milliseconds and microseconds of CPU an event, publishers included.
fn commit_once(
    runtime: &tokio::runtime::Runtime,
    directory: &std::path::Path,
    sync_min: Option<Duration>,
) -> (f64, f64, f64) {
    let path = directory.join("log");
    std::fs::create_dir(&path).unwrap();
    let disk = Journaled::open(&path, 16 << 20, Missing::Refuse).expect("the directory is new");
    let (settings, surroundings) = settings(directory, UNBOUNDED, 64 << 20);
    let engine = Box::new(Slowed { disk, sync_min });
    let (store, committer) = open_on(engine, &settings, &surroundings).expect("an empty store");
    let committer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.unwrap().block_on(committer.run());
    });
    let cpu = cpu_seconds("self");
    let (rate, p99_ms) = runtime.block_on(publish_for(&store, 10_000, RUN));
    let cpu_us = (cpu_seconds("self") - cpu) / (rate * RUN.as_secs_f64()) * 1e6;
    drop(store);
    committer.join().unwrap();
    (rate, p99_ms, cpu_us)
}

/// Publishes from many tasks for a while; gives events a second and the time within which 99 of 100 were acked.
async fn publish_for(store: &Store, users: u64, run: Duration) -> (f64, f64) {
    let numbers = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let tasks: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let (store, numbers) = (store.clone(), Arc::clone(&numbers));
            tokio::spawn(async move {
                let mut waits = Vec::new();
                while started.elapsed() < run {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let asked = Instant::now();
                    publish(&store, publication(number, user(number % users)))
                        .await
                        .unwrap();
                    waits.push(asked.elapsed());
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    let rate = waits.len() as f64 / started.elapsed().as_secs_f64();
    waits.sort();
    (rate, waits[waits.len() * 99 / 100].as_secs_f64() * 1e3)
}

/// The same group commit on a raw file: whatever waits is written in one call, synced once, acked. Gives events a
/// second and the mean time of a sync in milliseconds.
async fn raw_file(
    directory: &std::path::Path,
    run: Duration,
    sync_min: Option<Duration>,
) -> (f64, f64) {
    type Waiting = (Vec<u8>, tokio::sync::oneshot::Sender<()>);
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Waiting>(4096);
    let mut file = File::create(directory.join("raw")).unwrap();
    let committer = std::thread::spawn(move || {
        let (mut syncs, mut synced) = (0u32, Duration::ZERO);
        while let Some(first) = receiver.blocking_recv() {
            let mut group = vec![first];
            while let Ok(next) = receiver.try_recv() {
                group.push(next);
            }
            let bytes: Vec<u8> = group
                .iter()
                .flat_map(|(bytes, _)| bytes.iter().copied())
                .collect();
            file.write_all(&bytes).unwrap();
            let asked = Instant::now();
            file.sync_data().unwrap();
            rest(asked, sync_min);
            (syncs, synced) = (syncs + 1, synced + asked.elapsed());
            for (_, ack) in group {
                ack.send(()).unwrap();
            }
        }
        synced.as_secs_f64() * 1e3 / f64::from(syncs)
    });
    let started = Instant::now();
    let tasks: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut acked = 0u64;
                while started.elapsed() < run {
                    let (ack, heard) = tokio::sync::oneshot::channel();
                    // The same work of making an event as for the store.
                    let event = publication(acked, user(acked % 10_000)).event;
                    sender.send((event.json().to_vec(), ack)).await.unwrap();
                    heard.await.unwrap();
                    acked += 1;
                }
                acked
            })
        })
        .collect();
    drop(sender);
    let mut acked = 0;
    for task in tasks {
        acked += task.await.unwrap();
    }
    let rate = acked as f64 / started.elapsed().as_secs_f64();
    (rate, committer.join().unwrap())
}

/// Makes a sync that began at `asked` last at least so long, as on a slower disk.
fn rest(asked: Instant, sync_min: Option<Duration>) {
    if let Some(left) = sync_min.and_then(|sync_min| sync_min.checked_sub(asked.elapsed())) {
        std::thread::sleep(left);
    }
}

/// The engine on the disk, with a sync that lasts at least so long.
struct Slowed {
    disk: Journaled,
    sync_min: Option<Duration>,
}

impl Engine for Slowed {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.disk.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), EngineError> {
        self.disk.scan(from, to, visit)
    }

    fn last_key(&self, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.disk.last_key(from, to)
    }

    fn apply(&self, ops: Vec<Op>) -> Result<(), EngineError> {
        self.disk.apply(ops)
    }

    fn sync(&self) -> Result<(), EngineError> {
        let asked = Instant::now();
        self.disk.sync()?;
        rest(asked, self.sync_min);
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.disk.disk_bytes()
    }

    fn unsynced_values(&self) -> u64 {
        self.disk.unsynced_values()
    }

    fn is_resident(&self) -> bool {
        false
    }
}

//! Steady churn on the real engine: what retention lets go must leave the data file too.
//!
//! Promises: the file is measured by its length, not by what the engine says is used of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidings::publish::publish;
use tidings::store::Running;

use super::*;

const USERS: u64 = 500;
const KEPT_EVENTS: u64 = 50;
const EVENTS: u64 = 4 * USERS * KEPT_EVENTS;
/// What a record holds besides the data.
const RECORD_BYTES: u64 = 140;
const DATA_BYTES: usize = 600;
/// Few, so that groups are small and many.
const PUBLISHERS: usize = 16;
/// STORE.md: the file holds at most two and a half times what is live.
const FILE_PER_LIVE_MAX: f64 = 2.5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_file_stays_in_proportion_to_what_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        directory: directory.path().join("data"),
        cache_bytes: 16 << 20,
        ring_bytes: 1 << 20,
        ..settings(Retention {
            events: KEPT_EVENTS,
            ..KEEP_ALL
        })
    };
    let running = Running::open(&settings, &surroundings(&Clock::system())).unwrap();
    let numbers = Arc::new(AtomicU64::new(0));
    let publishers = (0..PUBLISHERS).map(|_| {
        let (store, numbers) = (running.store.clone(), Arc::clone(&numbers));
        tokio::spawn(async move {
            loop {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                if number >= EVENTS {
                    return;
                }
                publish(&store, publication(number)).await.unwrap();
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.unwrap();
    }
    let live = USERS * KEPT_EVENTS * (DATA_BYTES as u64 + RECORD_BYTES);
    let ratio = running.store.disk_bytes() as f64 / live as f64;
    tokio::task::block_in_place(|| running.close());
    assert!(
        ratio <= FILE_PER_LIVE_MAX,
        "the file holds {ratio:.2} times what is live"
    );
}

/// Remembered by nothing, so that it is one operation.
fn publication(number: u64) -> Publication {
    Publication {
        event: Event::of(&draft(&format!("e{number}"), NOON_MS, DATA_BYTES)),
        to: to(&format!("user{}", number % USERS)),
        keys: Vec::new(),
        fingerprint: [0; 16],
    }
}

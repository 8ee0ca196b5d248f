//! Steady churn under retention: the disk must find a plateau.
//!
//! `churn` goes as fast as it can, `hour` at a pace. What counts is the length of the engine's file, not what is used of it.

use std::time::{Duration, Instant};

use tidings::publish::publish;
use tidings::store::upkeep::Retention;

use super::{BODY_BYTES, UNBOUNDED, fill, open, publication, resident_mib, user};

/// Steady churn under retention: the disk must find a plateau.
pub fn churn(runtime: &tokio::runtime::Runtime) {
    let directory = tempfile::tempdir_in(".").unwrap();
    let retention = Retention {
        events: 100,
        ..UNBOUNDED
    };
    let running = open(&directory.path().join("data"), retention, 8 << 20);
    let live = 1_000u64 * 100 * (BODY_BYTES as u64 + 140);
    println!(
        "churn: 1,000 users keep 100 events each, about {} MiB live",
        live >> 20
    );
    for round in 1..=20 {
        runtime.block_on(fill(&running.store, 100_000, 1_000));
        let disk = running.store.disk_bytes();
        let ratio = disk as f64 / live as f64;
        let resident = resident_mib("self");
        println!(
            "churn: {}00,000 events published, disk {} MiB = {ratio:.2} x live (bar 2.5), RSS {resident} MiB",
            round,
            disk >> 20
        );
    }
    running.close();
}

/// An hour's worth of churn at 2,000 events a second, at a pace that upkeep and clean-up can keep: 7.2 million events at
/// 5,000 a second unless told otherwise (`TIDINGS_HOUR_RATE`, `TIDINGS_HOUR_EVENTS`).
pub async fn hour() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let rate = number("TIDINGS_HOUR_RATE", 5_000);
    let events = number("TIDINGS_HOUR_EVENTS", 7_200_000);
    let directory = tempfile::tempdir_in(".").unwrap();
    let retention = Retention {
        events: 100,
        ..UNBOUNDED
    };
    let running = open(&directory.path().join("data"), retention, 8 << 20);
    let live = 1_000u64 * 100 * (BODY_BYTES as u64 + 140);
    let started = Instant::now();
    let mut greatest = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let mut published = 0;
    while published < events {
        ticks.tick().await;
        let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
        let (from, to) = (published, due.clamp(published, published + 512).min(events));
        let tasks: Vec<_> = (from..to)
            .map(|number| {
                let store = running.store.clone();
                let made = publication(number, user(number % 1_000));
                tokio::spawn(async move { publish(&store, made).await.map(drop) })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        published = to;
        let disk = running.store.disk_bytes();
        // The first tenth fills the store and its first segments.
        greatest = disk.max(if published > events / 10 { greatest } else { 0 });
        if from / 200_000 != to / 200_000 {
            println!(
                "hour: {published} events at {:.0}/s, disk {} MiB = {:.2} x live (bar 2.5), greatest {:.2} x, RSS {} MiB",
                published as f64 / started.elapsed().as_secs_f64(),
                disk >> 20,
                disk as f64 / live as f64,
                greatest as f64 / live as f64,
                resident_mib("self")
            );
        }
    }
    tokio::task::block_in_place(|| running.close());
}

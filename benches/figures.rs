//! The figures of the issue: commit rate against a raw file, catch-up, start, churn, memory per idle stream.
//!
//! `cargo bench --bench figures -- commit` (or `http`, `catchup`, `start`, `churn`, `idle`, `fanout`; none = all but `hour`, which
//! takes 24 minutes). Each figure is printed with what it was compared to in the same run, for machines are shared and
//! noisy. Only loopback is spoken to.

#[path = "figures/churn.rs"]
mod churn;
#[path = "figures/commit.rs"]
mod commit;
#[path = "figures/served.rs"]
mod served;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidings::clock::Clock;
use tidings::event::{Draft, Event, Json};
use tidings::id::Random;
use tidings::metrics::Metrics;
use tidings::publish::{Audience, Publication, publish};
use tidings::store::read::{PageBounds, Read as Found};
use tidings::store::upkeep::Retention;
use tidings::store::{Running, Settings, Store, Surroundings};
use tidings::wake::Wakes;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PUBLISHERS: usize = 256;
const RUN: Duration = Duration::from_secs(5);
const BODY_BYTES: usize = 220;
const UNBOUNDED: Retention = Retention {
    events: 0,
    age_ms: 0,
    bytes: 0,
    total_bytes: 0,
};

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    if is_wanted("commit") {
        commit::commit(&runtime);
    }
    if is_wanted("http") {
        runtime.block_on(served::http());
    }
    if is_wanted("catchup") {
        catchup(&runtime);
    }
    if is_wanted("start") {
        start(&runtime);
    }
    if is_wanted("fanout") {
        fanout(&runtime);
    }
    if is_wanted("churn") {
        churn::churn(&runtime);
    }
    if is_wanted("idle") {
        runtime.block_on(served::idle());
    }
    if wanted.iter().any(|wanted| wanted == "hour") {
        runtime.block_on(churn::hour());
    }
}

fn open(directory: &std::path::Path, retention: Retention, ring_bytes: u64) -> Running {
    let (settings, surroundings) = settings(directory, retention, ring_bytes);
    Running::open(&settings, &surroundings).expect("the data directory is new or was closed")
}

fn settings(
    directory: &std::path::Path,
    retention: Retention,
    ring_bytes: u64,
) -> (Settings, Surroundings) {
    let settings = Settings {
        directory: directory.to_owned(),
        retention,
        ring_bytes,
        cache_bytes: 16 << 20,
        free_bytes_min: 1 << 20,
        ballast_bytes: 0,
    };
    let surroundings = Surroundings {
        clock: Clock::system(),
        random: Random::system(),
        wakes: Wakes::default(),
        metrics: Arc::new(Metrics::default()),
    };
    (settings, surroundings)
}

fn publication(number: u64, to: Audience) -> Publication {
    let draft = Draft {
        id: format!("e-{number}").parse().unwrap(),
        event_type: "message.new".parse().unwrap(),
        time_ms: 1_795_228_200_123,
        topic: None,
        actor: None,
        data: Json::of(&serde_json::json!({ "n": number, "text": "x".repeat(BODY_BYTES) })),
        exclude_conn: None,
    };
    Publication {
        event: Event::of(&draft),
        to,
        keys: Vec::new(),
        fingerprint: [0; 16],
    }
}

fn user(number: u64) -> Audience {
    Audience::User(format!("user-{number}").parse().unwrap())
}

fn catchup(runtime: &tokio::runtime::Runtime) {
    let directory = tempfile::tempdir_in(".").unwrap();
    let path = directory.path().join("data");
    let running = open(&path, UNBOUNDED, 64 << 20);
    runtime.block_on(async {
        fill(&running.store, 10_000, 1).await;
        println!(
            "catchup: 10,000 recent events in {:.1} ms (bar 25)",
            read_all(&running.store, "user-0").await
        );
        // 200,000 more push them out of the ring and into index blocks.
        fill(&running.store, 400_000, 1_000).await;
        println!(
            "catchup: 10,000 old events in {:.1} ms (bar 150)",
            read_all(&running.store, "user-0").await
        );
    });
    running.close();
    drop_caches();
    let running = open(&path, UNBOUNDED, 1 << 20);
    let cold_ms = runtime.block_on(read_all(&running.store, "user-0"));
    println!("catchup: 10,000 old and cold events after a restart in {cold_ms:.1} ms (bar 150)");
    running.close();
}

async fn fill(store: &Store, events: u64, users: u64) {
    let numbers = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..512)
        .map(|_| {
            let (store, numbers) = (store.clone(), Arc::clone(&numbers));
            tokio::spawn(async move {
                loop {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    if number >= events {
                        return;
                    }
                    publish(&store, publication(number, user(number % users)))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Milliseconds to read the first 10,000 events of a log in turns of 64 KiB.
async fn read_all(store: &Store, name: &str) -> f64 {
    let log = store.find(&name.parse().unwrap()).unwrap();
    let started = Instant::now();
    let mut after = 0;
    let bounds = PageBounds {
        bytes: 64 << 10,
        events: usize::MAX,
    };
    while after < 10_000 {
        match store.read(log, after, bounds).await.unwrap() {
            Found::Page(page) => {
                assert_eq!(page[0].seq, after + 1);
                after = page[page.len() - 1].seq;
            }
            other => panic!("{other:?} after {after}"),
        }
    }
    started.elapsed().as_secs_f64() * 1e3
}

fn start(runtime: &tokio::runtime::Runtime) {
    let directory = tempfile::tempdir_in(".").unwrap();
    let path = directory.path().join("data");
    let running = open(&path, UNBOUNDED, 64 << 20);
    runtime.block_on(fill(&running.store, 1_000_000, 10_000));
    let disk = running.store.disk_bytes() >> 20;
    running.close();
    drop_caches();
    let began = Instant::now();
    let running = open(&path, UNBOUNDED, 64 << 20);
    let open_ms = began.elapsed().as_secs_f64() * 1e3;
    println!(
        "start: {open_ms:.0} ms with 1,000,000 events of 10,000 users on disk ({disk} MiB; bar 3,000 ms)"
    );
    println!(
        "start: resident memory of this process {} MiB (bar 256)",
        resident_mib("self")
    );
    running.close();
}

fn fanout(runtime: &tokio::runtime::Runtime) {
    let directory = tempfile::tempdir_in(".").unwrap();
    let running = open(&directory.path().join("data"), UNBOUNDED, 64 << 20);
    runtime.block_on(async {
        let topic: tidings::event::Topic = "feed:all".parse().unwrap();
        for some in (0..100_000u64).collect::<Vec<_>>().chunks(200) {
            let (users, topic) = (some.to_vec(), topic.clone());
            let join = move |transaction: &mut tidings::store::transaction::Transaction<'_>| {
                for number in users {
                    let user = transaction.user(&format!("user-{number}").parse().unwrap());
                    transaction.subscribe(&topic, user);
                }
                Ok::<(), tidings::store::shared::StoreError>(())
            };
            running.store.commit(1 << 10, join).await.unwrap();
        }
        for _ in 0..3 {
            let asked = Instant::now();
            let receipt = publish(
                &running.store,
                publication(1, Audience::Topic(topic.clone())),
            )
            .await
            .unwrap();
            let ms = asked.elapsed().as_secs_f64() * 1e3;
            println!(
                "fanout: one event to {} logs acked in {ms:.0} ms (bar 2,000)",
                receipt.recipients
            );
        }
    });
    println!("fanout: resident memory {} MiB", resident_mib("self"));
    running.close();
}

fn pss_kib(pid: &str) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup
        .lines()
        .find(|line| line.starts_with("Pss:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn resident_mib(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        >> 10
}

/// User and system time of a process, in seconds.
fn cpu_seconds(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

/// Takes cached pages from the kernel where that is allowed, so that "cold" is cold.
fn drop_caches() {
    if std::fs::write("/proc/sys/vm/drop_caches", "3").is_err() {
        println!("(not root: the kernel's cache could not be dropped, the next figure is warm)");
    }
}

//! The figures of the issue: commit rate against a raw file, catch-up, start, churn, memory per idle stream.
//!
//! `cargo bench --bench figures -- commit` (or `http`, `catchup`, `start`, `churn`, `idle`, `fanout`; none = all). Each figure is
//! printed with what it was compared to in the same run, for machines are shared and noisy. Only loopback is spoken to.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
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
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
        commit(&runtime);
    }
    if is_wanted("http") {
        runtime.block_on(http());
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
        churn(&runtime);
    }
    if is_wanted("idle") {
        runtime.block_on(idle());
    }
}

fn open(directory: &std::path::Path, retention: Retention, ring_bytes: u64) -> Running {
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
    Running::open(&settings, &surroundings).expect("the data directory is new or was closed")
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
async fn raw_file(directory: &std::path::Path, run: Duration) -> (f64, f64) {
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

fn commit(runtime: &tokio::runtime::Runtime) {
    let directory = tempfile::tempdir_in(".").unwrap();
    let (raw, sync_ms) = runtime.block_on(raw_file(directory.path(), RUN));
    let running = open(&directory.path().join("data"), UNBOUNDED, 64 << 20);
    let cpu = cpu_seconds("self");
    let (rate, p99_ms) = runtime.block_on(publish_for(&running.store, 10_000, RUN));
    let cpu_us = (cpu_seconds("self") - cpu) / (rate * RUN.as_secs_f64()) * 1e6;
    println!(
        "commit: {rate:.0} acked events/s with {PUBLISHERS} publishers, p99 {p99_ms:.1} ms, {cpu_us:.1} µs CPU an event"
    );
    println!(
        "commit: raw file with the same group commit {raw:.0}/s, {sync_ms:.2} ms a sync; ratio {:.2} (bar 0.35)",
        rate / raw
    );
    running.close();
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

/// Steady churn under retention: the disk must find a plateau.
fn churn(runtime: &tokio::runtime::Runtime) {
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

/// The release binary on a port of its own.
struct Server {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let directory = tempfile::tempdir_in(".").unwrap();
        let data = directory.path().join("data");
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .args([
                "--set",
                "limits.publish_per_second=10000000",
                "--set",
                "limits.connections_per_user=20000",
            ])
            .args([
                "--set",
                "auth.hs256_secret=0123456789abcdef0123456789abcdef",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().to_owned();
        Server {
            child,
            address,
            _directory: directory,
        }
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn token(sub: &str, scope: &str) -> String {
    let now_s = Clock::system().wall_ms() / 1_000;
    let grant = tidings::token::Grant {
        sub: sub.parse().unwrap(),
        scope: scope.to_owned(),
        topics: Vec::new(),
        expires_s: now_s + 3_600,
        issued_s: now_s,
        jti: None,
        issuer: String::new(),
        audience: Vec::new(),
    };
    tidings::token::mint(
        &"0123456789abcdef0123456789abcdef".to_owned().into(),
        &grant,
    )
}

async fn http() {
    let server = Server::start();
    let token = token("backend", "publish");
    let started = Instant::now();
    let cpu = cpu_seconds(&server.pid());
    let tasks: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let (address, token) = (server.address.clone(), token.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(&address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let text = "x".repeat(BODY_BYTES);
                let body = format!(r#"{{"to":{{"user":"user-{publisher}"}},"type":"a.b","data":{{"text":"{text}"}}}}"#);
                let request = format!(
                    "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let mut reply = vec![0; 4096];
                let mut acked = 0u64;
                while started.elapsed() < RUN {
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let count = stream.read(&mut reply).await.unwrap();
                    assert!(reply[..count].starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&reply[..count]));
                    acked += 1;
                }
                acked
            })
        })
        .collect();
    let mut acked = 0;
    for task in tasks {
        acked += task.await.unwrap();
    }
    let rate = acked as f64 / started.elapsed().as_secs_f64();
    let cpu_us = (cpu_seconds(&server.pid()) - cpu) / acked as f64 * 1e6;
    println!(
        "http: {rate:.0} acked durable events/s over HTTP, one event a request, {PUBLISHERS} connections (bar 10,000)"
    );
    println!("http: {cpu_us:.1} µs CPU of the server an event");
}

async fn idle() {
    const STREAMS: usize = 5_000;
    let server = Server::start();
    let before = pss_kib(&server.pid());
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let token = token(&format!("user-{}", number % 500), "");
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        let request = format!(
            "GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = vec![0; 4096];
        let mut text = String::new();
        while !text.contains("sys.live") {
            let count = stream.read(&mut reply).await.unwrap();
            text.push_str(&String::from_utf8_lossy(&reply[..count]));
        }
        streams.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let grown = (pss_kib(&server.pid()) - before) as f64 / STREAMS as f64;
    println!(
        "idle: {grown:.1} KiB of PSS for each of {STREAMS} idle SSE streams of 500 users (bar 12)"
    );
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

//! The hot pieces, each by itself: `cargo bench --bench pieces`, or one of them by name.
//!
//! Promises: real components; what a piece needs is made before the clock starts. These say where time goes; what a
//! server delivers is measured by `loadtest` and `figures`.

use std::hint::black_box;

use bytes::BytesMut;
use divan::Bencher;
use divan::counter::ItemsCount;
use secrecy::SecretString;
use tidings::clock::Clock;
use tidings::event::{Draft, Event, Json, UserId};
use tidings::frame::Layout;
use tidings::id::{Position, Random, UserNo};
use tidings::metrics::Metrics;
use tidings::publish::{Audience, Publication, publish};
use tidings::store::memory::Memory;
use tidings::store::read::PageBounds;
use tidings::store::upkeep::Retention;
use tidings::store::{self, Running, Store, Surroundings};
use tidings::token::{self, Grant, Verifier};
use tidings::wake::Wakes;

const PAYLOAD_BYTES: usize = 200;
const CAUGHT_UP: u64 = 10_000;
const NOW_MS: u64 = 1_795_228_200_123;

fn main() {
    divan::main();
}

fn draft(id: u64) -> Draft {
    Draft {
        id: format!("e-{id}").parse().unwrap(),
        event_type: "message.new".parse().unwrap(),
        time_ms: NOW_MS,
        topic: Some("conversation:9f".parse().unwrap()),
        actor: None,
        data: Json::of(&"x".repeat(PAYLOAD_BYTES).into()),
        exclude_conn: None,
    }
}

fn publication(id: u64, to: Audience) -> Publication {
    Publication {
        event: Event::of(&draft(id)),
        to,
        keys: Vec::new(),
        fingerprint: [0; 16],
    }
}

fn settings(directory: &std::path::Path) -> store::Settings {
    store::Settings {
        directory: directory.to_owned(),
        retention: Retention::default(),
        ring_bytes: 64 << 20,
        cache_bytes: 64 << 20,
        free_bytes_min: 0,
        ballast_bytes: 0,
    }
}

fn surroundings() -> Surroundings {
    Surroundings {
        clock: Clock::system(),
        random: Random::system(),
        wakes: Wakes::default(),
        metrics: std::sync::Arc::new(Metrics::default()),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

fn names(count: usize) -> Vec<UserId> {
    let names = (0..count).map(|number| format!("user-{number}").parse().unwrap());
    names.collect()
}

#[divan::bench]
fn cursor_parse(bencher: Bencher<'_, '_>) {
    bencher.bench(|| black_box("q7m2kd-9007199254740991").parse::<Position>());
}

#[divan::bench]
fn event_json_written_once(bencher: Bencher<'_, '_>) {
    let draft = draft(1);
    bencher.bench(|| Event::of(black_box(&draft)));
}

#[divan::bench]
fn frame_write_sse(bencher: Bencher<'_, '_>) {
    let (event, layout) = (Event::of(&draft(1)), Layout::Sse { is_named: false });
    let position: Position = "q7m2kd-42".parse().unwrap();
    let mut out = BytesMut::with_capacity(1 << 20);
    bencher.bench_local(|| {
        out.clear();
        layout.event(&mut out, position, black_box(&event));
        out.len()
    });
}

/// A commit with its real sync, on the disk of the temporary directory.
#[divan::bench(args = [1, 100, 5_000])]
fn commit_to(bencher: Bencher<'_, '_>, recipients: usize) {
    let (runtime, directory) = (runtime(), tempfile::tempdir().unwrap());
    let running = Running::open(&settings(directory.path()), &surroundings()).unwrap();
    let to = Audience::Users(names(recipients));
    let mut number = 0;
    bencher
        .counter(ItemsCount::new(recipients))
        .bench_local(|| {
            number += 1;
            let published = publish(&running.store, publication(number, to.clone()));
            runtime.block_on(published).unwrap()
        });
}

/// The same without a disk: what the committer itself costs.
#[divan::bench(args = [1, 100, 5_000])]
fn commit_in_memory_to(bencher: Bencher<'_, '_>, recipients: usize) {
    let runtime = runtime();
    let store = in_memory(&runtime);
    let to = Audience::Users(names(recipients));
    let mut number = 0;
    bencher
        .counter(ItemsCount::new(recipients))
        .bench_local(|| {
            number += 1;
            let published = publish(&store, publication(number, to.clone()));
            runtime.block_on(published).unwrap()
        });
}

#[divan::bench]
fn catch_up_recent(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let store = in_memory(&runtime);
    let alice: UserId = "alice".parse().unwrap();
    for number in 0..CAUGHT_UP {
        let to = Audience::User(alice.clone());
        runtime
            .block_on(publish(&store, publication(number, to)))
            .unwrap();
    }
    let user = store.find(&alice).unwrap();
    bencher
        .counter(ItemsCount::new(CAUGHT_UP))
        .bench_local(|| read_all(&store, user));
}

fn read_all(store: &Store, user: UserNo) -> u64 {
    let bounds = PageBounds {
        bytes: 64 << 10,
        events: usize::MAX,
    };
    let mut after = 0;
    while let (_, Some(store::read::Read::Page(page))) = store.read_recent(user, after, bounds) {
        after = page.last().expect("a page has an event").seq;
    }
    assert_eq!(after, CAUGHT_UP, "all of them are recent");
    after
}

fn in_memory(runtime: &tokio::runtime::Runtime) -> Store {
    let nowhere = std::path::Path::new("");
    let opened = store::open_on(
        Box::new(Memory::default()),
        &settings(nowhere),
        &surroundings(),
    );
    let (store, committer) = opened.unwrap();
    runtime.spawn(committer.run());
    store
}

/// A token that never came before, as at a client's first request.
#[divan::bench]
fn token_check_hs256(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let verifier = verifier(&runtime);
    let mut number = 0;
    bencher
        .with_inputs(|| {
            number += 1;
            token_of(&format!("user-{number}"))
        })
        .bench_local_values(|token| {
            runtime
                .block_on(verifier.verify(black_box(&token), NOW_MS))
                .unwrap()
        });
}

/// A token that came before, as at every request of a backend.
#[divan::bench]
fn token_check_known(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let verifier = verifier(&runtime);
    let token = token_of("alice");
    bencher.bench_local(|| {
        runtime
            .block_on(verifier.verify(black_box(&token), NOW_MS))
            .unwrap()
    });
}

fn secret() -> SecretString {
    SecretString::from("a secret of the benchmark, long enough".to_owned())
}

fn token_of(sub: &str) -> String {
    let grant = Grant {
        sub: sub.parse().unwrap(),
        scope: String::new(),
        topics: Vec::new(),
        expires_s: NOW_MS / 1_000 + 3_600,
        issued_s: NOW_MS / 1_000,
        jti: None,
        issuer: String::new(),
        audience: Vec::new(),
    };
    token::mint(&secret(), &grant)
}

fn verifier(runtime: &tokio::runtime::Runtime) -> Verifier {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let opened = runtime.block_on(Verifier::open(token::Settings {
        hs256_secret: secret(),
        public_keys: Vec::new(),
        jwks: String::new(),
        issuer: String::new(),
        audience: Vec::new(),
    }));
    opened.unwrap()
}

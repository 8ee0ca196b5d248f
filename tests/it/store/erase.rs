//! Erasing in the store: a forgotten log leaves nothing and gives its name back, a redacted body is another one in every
//! log that has it, and neither a power cut nor retention sees a difference.
//!
//! Promises: what was answered holds after the cut, whatever of the rest survives; other logs keep every id and seq.

use fastrand::Rng;
use tidings::features::ack::Acks;
use tidings::features::people::Departure;
use tidings::features::person::{Said, Status};
use tidings::features::presence::{self, Presence};
use tidings::features::receipts::Receipts;
use tidings::store::shared::StoreError;
use tidings::store::transaction::Transaction;
use tokio_util::sync::CancellationToken;

use super::*;

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

impl Bench {
    async fn forget(&self, name: &str) -> UserNo {
        let user = self.user(name);
        let forgotten = self.store.commit_always(64, move |transaction| {
            transaction.forget_log(user);
            Ok::<(), StoreError>(())
        });
        forgotten.await.expect("the disk is healthy");
        user
    }

    /// Puts `bytes` of `y` in the place of the event's data.
    async fn redact(&self, commit: u64, bytes: usize) -> bool {
        let redacted = self.store.commit_always(64, move |transaction| {
            transaction.redact(commit, |event| Some(other_body(event, bytes)))
        });
        redacted.await.expect("the disk is healthy")
    }

    /// The data of each of the user's events, by its commit.
    async fn bodies(&self, name: &str) -> Vec<(u64, u64, String)> {
        let user = self.user(name);
        let mut after = self.store.view(user).floor - 1;
        let mut found = Vec::new();
        while let Read::Page(page) = self.store.read(user, after, PAGE).await.unwrap() {
            for entry in &page {
                let json = String::from_utf8(entry.event.json().to_vec()).unwrap();
                let (_, data) = json.split_once("\"data\":").unwrap();
                found.push((entry.seq, entry.event.commit, data.to_owned()));
            }
            after = page[page.len() - 1].seq;
        }
        found
    }
}

fn other_body(event: &Event, bytes: usize) -> Event {
    Event::of(&Draft {
        id: event.id().parse().unwrap(),
        event_type: event.event_type().parse().unwrap(),
        time_ms: event.time_ms,
        topic: None,
        actor: None,
        data: Json::of(&"y".repeat(bytes).into()),
        exclude_conn: None,
    })
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_log_leaves_no_row_and_its_name_begins_anew() {
    let bench = Bench::new(KEEP_ALL);
    for id in names(1, 700) {
        bench.publish(to("bob"), &id, 5_000).await;
    }
    bench.publish(to_all(&["alice", "bob"]), "shared", 10).await;
    let old = bench.store.view(bench.user("bob"));
    let number = bench.forget("bob").await;
    assert_eq!(bench.store.find(&"bob".parse().unwrap()), None);
    assert!(bench.store.is_erased(number));
    assert_eq!(bench.store.name(number).as_str(), "erased:0");
    assert_ne!(bench.store.view(number).epoch, old.epoch);
    bench.idle().await;
    assert!(bench.store.is_trimmed(number));
    assert_eq!(bench.rows(b'e'), 1, "the shared body is alice's now");
    assert_eq!(bench.rows(b'i'), 0, "no part of the index is left");
    assert_eq!(bench.ids("alice").await, ["shared"]);
    // Also to nobody but erased ones nothing is appended.
    let receipt = bench.publish(to("bob"), "back", 10).await;
    assert_eq!(receipt.position.unwrap().seq, 1);
    assert_ne!(receipt.position.unwrap().epoch, old.epoch);

    let bench = bench.restart(0).await;
    assert!(bench.store.is_erased(number));
    assert_eq!(bench.ids("bob").await, ["back"]);
    assert_eq!(bench.ids("alice").await, ["shared"]);
    bench.forget("alice").await;
    bench.forget("bob").await;
    bench.idle().await;
    assert_eq!((bench.rows(b'e'), bench.rows(b'i')), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_user_who_is_called_like_a_placeholder_is_someone_else() {
    let bench = Bench::new(KEEP_ALL);
    bench.publish(to("bob"), "e1", 10).await;
    bench.publish(to("erased:0"), "e2", 10).await;
    let number = bench.forget("bob").await;
    for _ in 0..2 {
        assert_ne!(bench.user("erased:0"), number);
        assert_eq!(bench.ids("erased:0").await, ["e2"]);
        // An erasure that is begun again after a restart does the same once more.
        let again = bench.store.commit_always(64, move |transaction| {
            transaction.forget_log(number);
            Ok::<(), StoreError>(())
        });
        again.await.unwrap();
    }
    let bench = bench.restart(usize::MAX).await;
    assert_eq!(bench.ids("erased:0").await, ["e2"]);
    assert_eq!(bench.store.find(&"bob".parse().unwrap()), None);
}

#[tokio::test(start_paused = true)]
async fn a_refused_command_forgets_and_redacts_nothing() {
    let bench = Bench::new(KEEP_ALL);
    bench.publish(to("bob"), "e1", 10).await;
    let user = bench.user("bob");
    let refused = bench.store.commit_always(64, move |transaction| {
        transaction.forget_log(user);
        transaction.redact(1, |event| Some(other_body(event, 3)))?;
        Err::<(), _>(StoreError::DiskFull)
    });
    assert_eq!(refused.await, Err(StoreError::DiskFull));
    bench.idle().await;
    assert_eq!(
        bench.bodies("bob").await,
        [(1, 1, "\"xxxxxxxxxx\"}".to_owned())]
    );
}

/// Publishes, redactions, erasures and power cuts in any order, against a model of what each log must hold.
#[tokio::test(start_paused = true)]
async fn whatever_is_forgotten_and_redacted_the_rest_stays() {
    for seed in 0..60 {
        let mut rng = Rng::with_seed(seed);
        let mut bench = Bench::new(KEEP_ALL);
        // For each user the events of its log: seq, commit, data.
        let mut model: Vec<Vec<(u64, u64, String)>> = vec![Vec::new(); USERS.len()];
        let mut commits = 0;
        for step in 0..60 {
            match rng.u32(0..20) {
                0..12 => {
                    let chosen: Vec<usize> = (0..USERS.len()).filter(|_| rng.bool()).collect();
                    if chosen.is_empty() {
                        continue;
                    }
                    let bytes = if rng.u32(0..4) == 0 {
                        9_000
                    } else {
                        rng.usize(0..200)
                    };
                    let users: Vec<&str> = chosen.iter().map(|user| USERS[*user]).collect();
                    bench
                        .publish(to_all(&users), &format!("s{step}"), bytes)
                        .await;
                    commits += 1;
                    for user in chosen {
                        let seq = model[user].last().map_or(1, |(seq, ..)| seq + 1);
                        model[user].push((seq, commits, format!("\"{}\"}}", "x".repeat(bytes))));
                    }
                }
                12..16 if commits > 0 => {
                    let commit = rng.u64(1..=commits);
                    let bytes = if rng.bool() { rng.usize(0..50) } else { 12_000 };
                    let holds =
                        |log: &Vec<(u64, u64, String)>| log.iter().any(|entry| entry.1 == commit);
                    if model.iter().any(holds) {
                        assert!(bench.redact(commit, bytes).await, "seed {seed} step {step}");
                    }
                    for entry in model.iter_mut().flatten().filter(|entry| entry.1 == commit) {
                        entry.2 = format!("\"{}\"}}", "y".repeat(bytes));
                    }
                }
                16 => {
                    let user = rng.usize(0..USERS.len());
                    if bench.store.find(&USERS[user].parse().unwrap()).is_some() {
                        bench.forget(USERS[user]).await;
                    }
                    model[user].clear();
                }
                17 => bench.idle().await,
                _ => bench = bench.restart(rng.usize(0..4)).await,
            }
            for (user, expected) in USERS.iter().zip(&model) {
                if bench.store.find(&user.parse().unwrap()).is_some() {
                    let found = bench.bodies(user).await;
                    assert_eq!(found, *expected, "{user}, seed {seed} step {step}");
                } else {
                    assert!(expected.is_empty(), "{user}, seed {seed} step {step}");
                }
            }
        }
        // When the last one is erased, and upkeep has done its work, not one record is left.
        for user in USERS {
            if bench.store.find(&user.parse().unwrap()).is_some() {
                bench.forget(user).await;
            }
        }
        bench.idle().await;
        assert_eq!((bench.rows(b'e'), bench.rows(b'i')), (0, 0), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shorter_body_counts_less_against_the_retention() {
    let bench = Bench::new(KEEP_ALL);
    for id in names(1, 3) {
        bench.publish(to_all(&["alice", "bob"]), &id, 5_000).await;
    }
    let before = bench.store.log_bytes(bench.user("bob"));
    bench.redact(2, 100).await;
    for user in ["alice", "bob"] {
        assert_eq!(bench.store.log_bytes(bench.user(user)), before - 4_900);
    }
    let bytes = bench.store.log_bytes(bench.user("bob"));
    bench.redact(9, 100).await;
    assert_eq!(
        bench.store.log_bytes(bench.user("bob")),
        bytes,
        "there is no such event"
    );
}

/// Requests, acks and connections that end may be a moment behind the erasure of their user.
#[tokio::test(start_paused = true)]
async fn what_comes_late_writes_nothing_of_an_erased_user() {
    let bench = Bench::new(KEEP_ALL);
    bench.publish(to("bob"), "a", 10).await;
    let (store, wakes, random) = (&bench.store, Wakes::default(), Random::seeded(1));
    let presence = Presence::load(store, &bench.clock, Duration::ZERO).await;
    let presence = presence.unwrap();
    let user = bench.user("bob");
    let busy = Said {
        status: Some(Status::Busy),
        activity: None,
    };
    presence
        .say_by_hand(store, user, busy.clone())
        .await
        .unwrap();
    assert_eq!(bench.rows(b's'), 1, "the test can see");
    bench.forget("bob").await;
    let erase = move |transaction: &mut Transaction<'_>| presence::erase(transaction, user, 10);
    assert!(!store.commit_always(64, erase).await.unwrap());
    assert_eq!(bench.rows(b's'), 0);

    presence.say_by_hand(store, user, busy).await.unwrap();
    presence.opened(user);
    let telling = presence.clone().tell_forever(
        store.clone(),
        wakes,
        random.clone(),
        CancellationToken::new(),
    );
    drop(tokio::time::timeout(Duration::from_secs(5), telling).await);
    assert_eq!(bench.rows(b's'), 0, "neither by hand nor by being here");
    let conn = "c-1".parse().unwrap();
    assert_eq!(presence.ended(user, &conn, Departure::Closed), 0);
    let telling = presence.tell_forever(
        store.clone(),
        Wakes::default(),
        random.clone(),
        CancellationToken::new(),
    );
    drop(tokio::time::timeout(Duration::from_secs(5), telling).await);
    let acks = Acks::default();
    acks.note(user, 1);
    let stop = CancellationToken::new();
    stop.cancel();
    acks.write_forever(store.clone(), Receipts::default(), random, stop)
        .await;
    assert_eq!(bench.rows(b's'), 0, "neither when it was seen nor an ack");
}

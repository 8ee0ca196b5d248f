//! Damage: what is lost is told to those who had it, and to nobody else; a lost end gives every log a new epoch.
//!
//! Promises: each planted damage must be found out and announced; a store that reads damaged rows as good ones fails here.

use tidings::cursor::filter::Filter;
use tidings::cursor::start::Start;
use tidings::cursor::{Cursor, Delivery, OnGap, ResetReason, Wish};
use tidings::store::engine::{Op, Rows};
use tidings::store::opening::{Opened, Opening};
use tokio::time::Instant;

use super::*;

async fn filled() -> Bench {
    let bench = Bench::new(KEEP_ALL);
    for id in names(1, 10) {
        bench.publish(to("alice"), &id, 0).await;
        bench.publish(to("bob"), &format!("b{id}"), 5_000).await;
    }
    bench
}

async fn cursor(bench: &Bench, name: &str) -> Cursor {
    let user = bench.user(name);
    let subscriber = Wakes::default().subscribe(user);
    let wish = Wish {
        start: Start::Oldest,
        on_gap: OnGap::Earliest,
        filter: Filter::default(),
        conn: None,
    };
    Cursor::open(bench.store.clone(), subscriber, wish)
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_a_reset_for_its_reader_and_nothing_for_others() {
    for (chunk, spoil) in [(0u16, 0usize), (0, 40), (1, 10)] {
        let bench = filled().await;
        // Bob's fifth event is the tenth commit.
        bench.disk.memory.damage(&keys::record(10, chunk), |row| {
            row[spoil] ^= 1;
        });
        let mut reader = cursor(&bench, "bob").await;
        let mut seqs = Vec::new();
        let mut resets = Vec::new();
        loop {
            match reader.next(&PAGE, Some(Instant::now())).await.unwrap() {
                Delivery::Events(page) => seqs.extend(page.iter().map(|entry| entry.seq)),
                Delivery::Reset(reset) => resets.push(reset),
                Delivery::Live => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seqs, [1, 2, 3, 4, 6, 7, 8, 9, 10]);
        assert_eq!(resets.len(), 1);
        assert_eq!(resets[0].reason, ResetReason::Trimmed);
        assert_eq!((resets[0].earliest, resets[0].resumed.seq), (6, 5));
        assert_eq!(bench.ids("alice").await, names(1, 10));
        let next = bench.publish(to("bob"), "next", 0).await;
        assert_eq!(next.position.unwrap().seq, 11);
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_end_gives_new_epochs_before_its_seqs_are_given_again() {
    let bench = filled().await;
    let epoch = |bench: &Bench, name: &str| bench.store.view(bench.user(name)).epoch;
    let before = (epoch(&bench, "alice"), epoch(&bench, "bob"));
    bench
        .disk
        .memory
        .damage(&keys::record(20, 0), |row| row.truncate(3));
    let bench = bench.restart(0).await;
    assert_ne!(epoch(&bench, "bob"), before.1);
    assert_eq!(bench.store.view(bench.user("bob")).tail, 9);
    assert_eq!(
        bench.ids("alice").await,
        names(1, 10),
        "alice has lost nothing"
    );
    let next = bench.publish(to("bob"), "next", 0).await;
    assert_eq!(next.position.unwrap().epoch, epoch(&bench, "bob"));
}

#[tokio::test(start_paused = true)]
async fn one_damage_is_one_loss_and_not_a_loss_at_every_start() {
    for key in [
        keys::record(10, 0),
        keys::record(20, 0),
        keys::user(UserNo(1)),
    ] {
        let bench = filled().await;
        bench.disk.memory.damage(&key, |row| row[0] ^= 1);
        let bench = bench.restart(0).await;
        let after_loss = bench.store.view(bench.user("alice")).epoch;
        bench.publish(to("alice"), "next", 0).await;
        let bench = bench.restart(0).await;
        assert_eq!(
            bench.store.view(bench.user("alice")).epoch,
            after_loss,
            "the damage of {} was told already",
            key.escape_ascii()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_end_is_known_by_the_mark() {
    let bench = filled().await;
    let generation_of = |marked| {
        let rows = Rows::new(Box::new(bench.disk.memory.clone()));
        let random = Random::system();
        let opening = Opening {
            rows: &rows,
            random: &random,
            retention_events: 0,
            marked,
        };
        let Opened {
            logs, next_commit, ..
        } = opening.run().unwrap();
        (logs.view(bench.user("alice")).epoch, next_commit)
    };
    let before = bench.store.view(bench.user("alice")).epoch;
    assert_eq!(generation_of(None), (before, 21));
    assert_eq!(
        generation_of(Some(20)),
        (before, 21),
        "the mark is where the log ends"
    );
    assert_eq!(
        generation_of(Some(3)),
        (before, 21),
        "the mark may be behind"
    );
    let (epoch, next_commit) = generation_of(Some(25));
    assert_ne!(epoch, before);
    assert_eq!(
        next_commit, 26,
        "numbers that were shown are not given again"
    );
    assert_eq!(
        generation_of(Some(25)),
        (epoch, 26),
        "the loss was told already"
    );
}

#[tokio::test(start_paused = true)]
async fn the_number_of_a_lost_user_is_not_given_to_another() {
    let bench = filled().await;
    let row = keys::user(bench.user("bob"));
    bench.disk.memory.apply(vec![Op::Delete(row)]).unwrap();
    bench.disk.memory.sync().unwrap();
    let bench = bench.restart(0).await;
    for id in ["c1", "c2"] {
        bench.publish(to("carol"), id, 0).await;
    }
    let bench = bench.restart(0).await;
    assert_eq!(
        bench.ids("carol").await,
        ["c1", "c2"],
        "carol must not get bob's events"
    );
    assert_eq!(bench.ids("alice").await, names(1, 10));
}

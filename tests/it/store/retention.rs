//! Retention: by count, bytes, age and in total; a body goes with the last log that keeps it, and nothing stays behind.
//!
//! Promises: a log keeps what its bounds allow and tells what they took; a body goes with the last log that keeps it.

use super::*;

#[tokio::test(start_paused = true)]
async fn by_count_each_log_keeps_its_newest_and_bodies_go_with_the_last_log() {
    let bench = Bench::new(Retention {
        events: 3,
        ..KEEP_ALL
    });
    bench
        .publish(to_all(&["alice", "bob"]), "shared", 8_000)
        .await;
    for id in names(1, 200) {
        bench.publish(to("alice"), &id, 0).await;
    }
    bench.idle().await;
    assert_eq!(bench.ids("alice").await, names(198, 200));
    assert_eq!(
        bench.ids("bob").await,
        ["shared"],
        "another log lets go, bob's does not"
    );
    assert_eq!(
        bench.rows(b'e'),
        3 + 3,
        "three small bodies and the three chunks of the shared one"
    );

    let bench = bench.restart(usize::MAX).await;
    for id in names(201, 203) {
        bench.publish(to("bob"), &id, 0).await;
    }
    bench.idle().await;
    assert_eq!(bench.ids("bob").await, names(201, 203));
    assert_eq!(
        bench.rows(b'e'),
        6,
        "the shared body went with the last log that kept it"
    );
    assert!(
        bench.rows(b'i') <= 2 + 1,
        "blocks before the floor are gone"
    );
    let alice = bench.user("alice");
    assert_eq!(
        bench.store.read(alice, 5, PAGE).await,
        Ok(Read::Gone { floor: 199 })
    );
}

#[tokio::test(start_paused = true)]
async fn by_bytes_a_log_keeps_what_fits() {
    let bench = Bench::new(Retention {
        bytes: 1_000,
        ..KEEP_ALL
    });
    for id in names(1, 20) {
        bench.publish(to("alice"), &id, 200).await;
    }
    bench.idle().await;
    assert_eq!(
        bench.ids("alice").await,
        names(18, 20),
        "three events of about 300 bytes fit"
    );
    assert_eq!(bench.rows(b'e'), 3);
    // One that alone is too large leaves an empty log.
    bench.publish(to("alice"), "large", 2_000).await;
    bench.idle().await;
    assert_eq!(bench.ids("alice").await, [""; 0]);
    assert_eq!(bench.rows(b'e'), 0);
    assert_eq!(bench.store.view(bench.user("alice")).tail, 21);
}

#[tokio::test(start_paused = true)]
async fn by_age_old_events_go_also_after_a_restart() {
    let bench = Bench::new(Retention {
        age_ms: 10_000,
        ..KEEP_ALL
    });
    bench.publish(to_all(&["alice", "bob"]), "e1", 0).await;
    bench.clock.advance_ms(5_000);
    let bench = bench.restart(0).await;
    bench.publish(to("alice"), "e2", 0).await;
    bench.clock.advance_ms(5_000);
    bench.idle().await;
    assert_eq!(bench.ids("alice").await, ["e2"]);
    assert_eq!(
        bench.ids("bob").await,
        [""; 0],
        "nobody wrote to bob after the restart"
    );
    assert_eq!(bench.rows(b'e'), 1);
}

#[tokio::test(start_paused = true)]
async fn in_total_the_oldest_bodies_go_from_all_logs() {
    let bench = Bench::new(Retention {
        total_bytes: 2_000,
        ..KEEP_ALL
    });
    for id in names(1, 20) {
        bench.publish(to_all(&["alice", "bob"]), &id, 200).await;
    }
    bench.idle().await;
    let kept = bench.ids("alice").await;
    assert_eq!(bench.ids("bob").await, kept);
    assert!((4..=7).contains(&kept.len()), "{kept:?}");
    assert_eq!(kept.last().unwrap(), "e20");
    assert_eq!(bench.rows(b'e'), kept.len());
    let bench = bench.restart(usize::MAX).await;
    assert_eq!(
        bench.ids("alice").await,
        kept,
        "the count of live bytes lasts"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_power_cut_gives_back_is_trimmed_again() {
    let bench = Bench::new(Retention {
        events: 5,
        ..KEEP_ALL
    });
    for id in names(1, 100) {
        bench.publish(to_all(&["alice", "bob"]), &id, 0).await;
    }
    bench.idle().await;
    // The trims were applied and never synced.
    let pending = bench.disk.memory.pending();
    assert!(pending > 0);
    let mut bench = bench;
    for kept in 0..pending.min(4) {
        bench = bench.restart(kept).await;
        assert_eq!(bench.ids("alice").await, names(96, 100));
        assert_eq!(bench.ids("bob").await, names(96, 100));
        bench.idle().await;
        assert_eq!(bench.rows(b'e'), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn commit_numbers_are_not_given_again_after_the_newest_events_went() {
    let bench = Bench::new(Retention {
        age_ms: 1_000,
        ..KEEP_ALL
    });
    for id in names(1, 5) {
        bench.publish(to("alice"), &id, 0).await;
    }
    bench.clock.advance_ms(1_000);
    bench.idle().await;
    assert_eq!(bench.rows(b'e'), 0);
    let bench = bench.restart(usize::MAX).await;
    for id in names(6, 8) {
        bench.publish(to("alice"), &id, 0).await;
    }
    let user = bench.user("alice");
    let Ok(Read::Page(page)) = bench.store.read(user, 5, PAGE).await else {
        panic!("three events are there");
    };
    assert_eq!(page[0].event.commit, 6);
    // Their places go on in the block that holds the places of those that went.
    bench.clock.advance_ms(1_000);
    bench.idle().await;
    assert!(!bench.committer.is_finished());
    assert_eq!(bench.store.view(user).floor, 9);
}

#[tokio::test(start_paused = true)]
async fn keys_are_forgotten_after_two_days_and_not_before_one() {
    const HOUR_MS: u64 = 3_600_000;
    let bench = Bench::new(KEEP_ALL);
    bench.publish(to("alice"), "e1", 0).await;
    bench.clock.advance_ms(23 * HOUR_MS);
    bench.idle().await;
    let bench = bench.restart(usize::MAX).await;
    assert!(bench.publish(to("alice"), "e1", 0).await.is_duplicate);
    for id in names(2, 900) {
        bench.publish(to("alice"), &id, 0).await;
    }
    assert_eq!(bench.rows(b'k'), 900);
    // Two midnights after the first one's day.
    bench.clock.advance_ms(14 * HOUR_MS);
    bench.idle().await;
    assert_eq!(bench.rows(b'k'), 899);
    bench.clock.advance_ms(24 * HOUR_MS);
    bench.idle().await;
    assert_eq!(bench.rows(b'k'), 0, "more than one batch of them goes too");
    assert!(!bench.publish(to("alice"), "e1", 0).await.is_duplicate);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_never_idle_forgets_keys_too() {
    let bench = Bench::new(KEEP_ALL);
    for id in names(1, 900) {
        bench.publish(to("alice"), &id, 0).await;
    }
    bench.clock.advance_ms(48 * 3_600_000);
    for id in names(901, 910) {
        sleep(Duration::from_millis(10)).await;
        bench.publish(to("alice"), &id, 0).await;
    }
    assert_eq!(bench.rows(b'k'), 10);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_does_not_hold_the_total_up() {
    for (commit, chunk) in [(1, 0), (1, 1), (4, 0)] {
        let bench = Bench::new(Retention {
            total_bytes: 20_000,
            ..KEEP_ALL
        });
        for id in names(1, 4) {
            bench.publish(to("alice"), &id, 4_000).await;
        }
        bench
            .disk
            .memory
            .damage(&keys::record(commit, chunk), |row| row[9] ^= 1);
        for id in names(5, 40) {
            bench.publish(to("alice"), &id, 4_000).await;
            sleep(Duration::from_millis(300)).await;
        }
        let rows = bench.rows(b'e');
        assert!(rows <= 2 * 5 + 1, "{rows} chunks are kept");
        assert!(bench.ids("alice").await.ends_with(&names(38, 40)));
    }
}

//! Commands are whole or absent, whatever their size and wherever the power fails; what fails is not acknowledged.
//!
//! Promises: a command that was cut short anywhere is there entirely or not at all.

use tidings::store::shared::StoreError;

use super::*;

fn batch(bench: &Bench) -> Vec<Publication> {
    let ids = names(1, 500);
    let users = ["alice", "bob", "carol"];
    let item = |(number, id): (usize, &String)| {
        bench.publication(to_all(&users[..1 + number % 3]), id, 50)
    };
    ids.iter().enumerate().map(item).collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_500_is_one_commit_wherever_the_power_fails() {
    let mut absent = 0;
    let mut whole = 0;
    for steps in 0.. {
        let bench = Bench::new(KEEP_ALL);
        bench.publish(to("alice"), "before", 0).await;
        bench.disk.cut_after(steps, false);
        let answer = together(&bench, batch(&bench)).await;
        let is_acked = answer.is_ok();
        assert_eq!(is_acked, !bench.disk.is_cut());
        let bench = bench.restart(usize::MAX).await;
        let ids = bench.ids("alice").await;
        assert!(
            ids.len() == 1 || ids[1..] == names(1, 500),
            "{} of 500 after {steps} steps",
            ids.len() - 1
        );
        assert!(!is_acked || ids.len() == 501);
        assert_eq!(
            bench.rows(b'k'),
            ids.len(),
            "ids are remembered with their events"
        );
        assert_eq!(bench.rows(b'e'), ids.len());
        assert_eq!(bench.rows(b'x'), 0, "the intent is forgotten");
        let is_whole = ids.len() == 501;
        let receipts = together(&bench, batch(&bench)).await.unwrap();
        assert!(
            receipts
                .iter()
                .all(|receipt| receipt.is_duplicate == is_whole)
        );
        assert_eq!(
            bench.ids("alice").await.len(),
            501,
            "the repeat makes it whole, once"
        );
        absent += usize::from(!is_whole);
        whole += usize::from(is_whole);
        if is_acked {
            break;
        }
    }
    assert!(
        absent >= 3 && whole >= 3,
        "{absent} and {whole}: the power failed at few steps"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_item_undoes_its_batch() {
    let bench = Bench::new(KEEP_ALL);
    bench.publish(to("alice"), "e1", 0).await;
    let mut misused = bench.publication(to("alice"), "e1", 0);
    misused.fingerprint = [2; 16];
    let batch = vec![bench.publication(to("alice"), "e2", 0), misused];
    assert_eq!(together(&bench, batch).await, Err(PublishError::Mismatch));
    assert_eq!(bench.ids("alice").await, ["e1"]);
    assert_eq!(
        bench
            .publish(to("alice"), "e3", 0)
            .await
            .position
            .unwrap()
            .seq,
        2
    );
    let bench = bench.restart(0).await;
    assert_eq!(bench.ids("alice").await, ["e1", "e3"]);
}

#[tokio::test(start_paused = true)]
async fn a_large_command_without_events_is_durable_when_it_is_acknowledged() {
    let bench = Bench::new(KEEP_ALL);
    let rows = bench.store.commit(0, |transaction| {
        for number in 0..1_000u32 {
            transaction.put(keys::state(b'z', &number.to_be_bytes()), vec![7]);
        }
        Ok::<(), StoreError>(())
    });
    rows.await.unwrap();
    let bench = bench.restart(0).await;
    assert_eq!(bench.rows(b's'), 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_broken_disk_is_told_and_nothing_is_acknowledged() {
    let bench = Bench::new(KEEP_ALL);
    bench.publish(to("alice"), "e1", 0).await;
    let store = bench.store.clone();
    let failure = tokio::spawn(async move { store.failure().await });
    bench.disk.memory.fail();
    for id in names(2, 4) {
        let publication = bench.publication(to("alice"), &id, 0);
        let answer = publish::publish(&bench.store, publication).await;
        assert!(
            matches!(answer, Err(PublishError::Store(StoreError::Failed(_)))),
            "{answer:?}"
        );
    }
    failure.await.unwrap();
    assert!(bench.store.has_failed());
    assert_eq!(bench.ids("alice").await, ["e1"], "readers live on");
    let bench = bench.restart(0).await;
    assert_eq!(bench.ids("alice").await, ["e1"]);
}

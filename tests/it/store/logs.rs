//! Logs: appended, read in pages, found again after a restart, also across the borders of index blocks.
//!
//! Promises: what was appended is read back in order, from memory and from rows alike, also after a replay.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_found_after_a_restart() {
    let bench = Bench::new(KEEP_ALL);
    let first = bench.publish(to("alice"), "e1", 10).await;
    bench.publish(to_all(&["alice", "bob"]), "e2", 9_000).await;
    bench.publish(to("bob"), "e3", 0).await;
    let before = (bench.log("alice").await, bench.log("bob").await);
    assert_eq!(before.0, [(1, "e1".to_owned()), (2, "e2".to_owned())]);
    assert_eq!(before.1, [(1, "e2".to_owned()), (2, "e3".to_owned())]);

    let bench = bench.restart(0).await;
    assert_eq!((bench.log("alice").await, bench.log("bob").await), before);
    let position = first.position.expect("one user was named");
    let view = bench.store.view(bench.user("alice"));
    assert_eq!(view.epoch, position.epoch, "a restart is no loss");
    let repeated = bench.publish(to("alice"), "e1", 10).await;
    assert!(repeated.is_duplicate);
    assert_eq!(repeated.position, first.position);
    assert_eq!(
        bench
            .publish(to("alice"), "e4", 0)
            .await
            .position
            .unwrap()
            .seq,
        3
    );
}

#[tokio::test(start_paused = true)]
async fn a_page_begins_anywhere_also_at_the_borders_of_blocks() {
    // Age moves the log into index blocks as soon as its first event is due.
    let bench = Bench::new(Retention {
        age_ms: 1_000,
        ..KEEP_ALL
    });
    bench.publish(to("alice"), "e1", 0).await;
    bench.clock.advance_ms(500);
    for id in names(2, 300) {
        bench.publish(to("alice"), &id, 0).await;
    }
    bench.clock.advance_ms(600);
    bench.idle().await;
    let user = bench.user("alice");
    assert_eq!(bench.store.view(user).floor, 2);
    assert_eq!(bench.rows(b'i'), 3, "300 places take three blocks of 128");
    // New ones go on behind the blocks, and then into the same block.
    for id in names(301, 310) {
        bench.publish(to("alice"), &id, 0).await;
    }
    assert_eq!(bench.ids("alice").await, names(2, 310));
    for after in [1, 2, 126, 127, 128, 129, 255, 256, 257, 299, 300, 301, 309] {
        for events in [1, 2, 127, 128, 129, 500] {
            let bounds = PageBounds { events, ..PAGE };
            let Ok(Read::Page(page)) = bench.store.read(user, after, bounds).await else {
                panic!("nothing after {after}");
            };
            assert!((1..=events).contains(&page.len()));
            let seqs = page.iter().map(|entry| entry.seq);
            assert!(
                seqs.eq(after + 1..=after + page.len() as u64),
                "after {after}"
            );
            let ids = page.iter().map(|entry| entry.event.id().to_owned());
            assert!(ids.eq(names(after as usize + 1, after as usize + page.len())));
        }
    }
    assert_eq!(bench.store.read(user, 310, PAGE).await, Ok(Read::AtTail));
    assert_eq!(
        bench.store.read(user, 0, PAGE).await,
        Ok(Read::Gone { floor: 2 })
    );
    let bench = bench.restart(0).await;
    assert_eq!(bench.ids("alice").await, names(2, 310));
}

#[tokio::test(start_paused = true)]
async fn the_index_is_written_behind_50_000_commits_and_read_back() {
    const COUNT: usize = 50_500;
    let bench = Bench::new(KEEP_ALL);
    for first in (1..=COUNT).step_by(500) {
        let batch = names(first, first + 499);
        let user: UserId = format!("u{}", first % 3).parse().unwrap();
        let events: Vec<Event> = batch
            .iter()
            .map(|id| bench.publication(to("x"), id, 0).event)
            .collect();
        let committed = bench.store.commit(0, move |transaction| {
            let user = transaction.user(&user);
            for event in events {
                transaction.append(event, vec![user]);
            }
            Ok::<(), tidings::store::shared::StoreError>(())
        });
        committed.await.unwrap();
    }
    bench.publish(to("u1"), "last", 0).await;
    bench.idle().await;
    assert!(bench.rows(b'i') > 200, "the index is behind the commits");
    let expected = |user: usize| -> Vec<String> {
        let mine = (1..=COUNT).step_by(500).filter(|first| first % 3 == user);
        let mut ids: Vec<String> = mine.flat_map(|first| names(first, first + 499)).collect();
        ids.extend((user == 1).then(|| "last".to_owned()));
        ids
    };
    for user in 0..3 {
        assert!(bench.ids(&format!("u{user}")).await == expected(user));
    }
    let bench = bench.restart(usize::MAX).await;
    for user in 0..3 {
        assert!(
            bench.ids(&format!("u{user}")).await == expected(user),
            "after the restart"
        );
    }
    let next = bench.publish(to("u2"), "next", 0).await;
    assert_eq!(next.position.unwrap().seq, expected(2).len() as u64 + 1);
}

#[tokio::test(start_paused = true)]
async fn subscriptions_last_and_a_topic_reaches_those_who_are_in_it() {
    use tidings::features::subscribe::{Change, change};
    let bench = Bench::new(KEEP_ALL);
    let topic: tidings::event::Topic = "news".parse().unwrap();
    for name in ["alice", "bob", "carol"] {
        let joined = change(
            &bench.store,
            topic.clone(),
            name.parse().unwrap(),
            Change::Join,
        );
        joined.await.unwrap();
    }
    let left = change(
        &bench.store,
        topic.clone(),
        "bob".parse().unwrap(),
        Change::Leave,
    );
    left.await.unwrap();
    let bench = bench.restart(0).await;
    let receipt = bench.publish(Audience::Topic(topic), "e1", 0).await;
    assert_eq!(receipt.recipients, 2);
    assert_eq!(bench.ids("alice").await, ["e1"]);
    assert_eq!(bench.ids("bob").await, [""; 0]);
    assert_eq!(bench.ids("carol").await, ["e1"]);
}

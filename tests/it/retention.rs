//! Retention seen from outside: by count, bytes and age, each announced by a reset, and no seq ever given twice.
//!
//! Promises: limits are configured small. Trimming happens in idle time, so every test looks until it has happened.

use serde_json::json;

use crate::delivery::{Kind, epoch_of, seq_of};
use crate::harness::{Options, Server, eventually, spawn};
use crate::reader::{Ask, Transport, open};

/// Seqs of the events that are kept.
async fn kept(server: &Server, user: &str) -> Vec<u64> {
    let page = server.page(user, "cursor=start&wait=0&limit=1000").await;
    page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_log_that_lost_all_its_events_goes_on_counting() {
    let mut server = spawn(Options::new().set("log.retention_days", 0.00001));
    let head = server.notes("alice", 5).await;
    for round in 0..3 {
        // A trim need not be on stable storage: a crash may bring old events back, until they are trimmed again.
        eventually("all events are too old", async || {
            kept(&server, "alice").await.is_empty()
        })
        .await;
        assert_eq!(
            server.head("alice").await,
            head,
            "round {round}: the head stays"
        );
        let ask = Ask::user("alice").cursor(&format!("{}-2", epoch_of(&head)));
        let mut reader = open(&server, Transport::Sse, &ask).await;
        let reset = reader.next_of(Kind::Reset).await;
        assert_eq!(
            (reset.str("reason"), reset.json["earliest"].as_u64()),
            ("trimmed", Some(6)),
            "{reset:?}"
        );
        let mut reader = open(&server, Transport::Sse, &Ask::user("alice").cursor(&head)).await;
        assert_eq!(reader.events_until_live().await.len(), 0);
        server.kill9();
        server.restart();
    }
    let event = server.note("alice", json!("after")).await;
    assert_eq!(
        event["cursor"],
        format!("{}-6", epoch_of(&head)),
        "a seq is never given twice"
    );
}

#[tokio::test]
async fn a_log_is_bounded_in_bytes() {
    let server = spawn(Options::new().set("log.retention_bytes", 20_000));
    let text = "x".repeat(1000);
    for _ in 0..60 {
        server.note("alice", json!(text)).await;
    }
    server.notes("bob", 20).await;
    eventually("the older events are gone", async || {
        kept(&server, "alice").await.len() <= 20
    })
    .await;
    let kept_seqs = kept(&server, "alice").await;
    assert!(kept_seqs.len() >= 5, "{kept_seqs:?}");
    assert_eq!(kept_seqs.last(), Some(&60), "the newest stay");
    let first = kept_seqs[0];
    assert_eq!(
        kept_seqs,
        (first..=60).collect::<Vec<u64>>(),
        "the oldest go first"
    );
    assert_eq!(
        kept(&server, "bob").await.len(),
        20,
        "bob's log has its own bound"
    );
}

#[tokio::test]
async fn a_reader_that_retention_overtakes_is_told() {
    let server = spawn(
        Options::new()
            .set("log.retention_events", 10)
            .set("stream.ping_seconds", 0.3),
    );
    let head = server.notes("alice", 10).await;
    for transport in Transport::ALL {
        let start = server.head("alice").await;
        server.notes("alice", 50).await;
        eventually("the log keeps ten events", async || {
            kept(&server, "alice").await.len() == 10
        })
        .await;
        let mut reader = open(&server, transport, &Ask::user("alice").cursor(&start)).await;
        let reset = reader.next_of(Kind::Reset).await;
        let earliest = reset.json["earliest"].as_u64().unwrap();
        let newest = seq_of(reset.str("head"));
        assert_eq!(
            (earliest, newest),
            (seq_of(&start) + 41, seq_of(&start) + 50),
            "{transport:?}: {reset:?}"
        );
    }
    assert_eq!(
        epoch_of(&server.head("alice").await),
        epoch_of(&head),
        "the epoch stays"
    );
}

#[tokio::test]
async fn retention_keeps_what_was_kept_over_restarts() {
    let mut server = spawn(Options::new().set("log.retention_events", 10));
    server.notes("alice", 35).await;
    eventually("the log keeps ten events", async || {
        kept(&server, "alice").await.len() == 10
    })
    .await;
    for _ in 0..2 {
        server.kill9();
        server.restart();
        eventually("ten events are kept", async || {
            kept(&server, "alice").await.len() == 10
        })
        .await;
        assert_eq!(
            kept(&server, "alice").await,
            (26..=35).collect::<Vec<u64>>()
        );
    }
    server.note("alice", json!("one more")).await;
    eventually("the oldest makes way", async || {
        kept(&server, "alice").await == (27..=36).collect::<Vec<u64>>()
    })
    .await;
}

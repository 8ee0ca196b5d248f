//! PROTOCOL.md section 3.2: a position that cannot be resumed is told as `reset`, with a reason and a way on.
//!
//! The same table runs over all transports; a JSON page refuses a malformed cursor with 400 instead.

use serde_json::json;

use crate::delivery::{Kind, epoch_of, seq_of};
use crate::harness::{Options, Server, eventually, spawn};
use crate::reader::{Ask, Transport, open};

/// A server whose logs keep ten events, and a user of whose thirty events the first twenty are gone.
async fn trimmed_server() -> (Server, String) {
    let server = spawn(Options::new().set("log.retention_events", 10));
    let head = server.notes("alice", 30).await;
    eventually("the log keeps ten events", async || {
        let page = server.page("alice", "cursor=start&wait=0").await;
        page["events"][0]["seq"] == 21
    })
    .await;
    (server, epoch_of(&head).to_owned())
}

#[tokio::test]
async fn a_reset_says_why_and_goes_on_from_the_head() {
    let (server, epoch) = trimmed_server().await;
    let mut head = 30;
    let cases = [
        (format!("{epoch}-17"), "trimmed"),
        (format!("{epoch}-0"), "trimmed"),
        ("17".to_owned(), "trimmed"),
        ("aaaaaa-25".to_owned(), "epoch"),
        ("aaaaaa-0".to_owned(), "epoch"),
        (format!("{epoch}-9007199254740991"), "ahead"),
        ("1000".to_owned(), "ahead"),
        ("not-a-cursor".to_owned(), "malformed"),
        (format!("{epoch}-"), "malformed"),
    ];
    for (cursor, reason) in cases {
        for transport in Transport::ALL {
            if transport == Transport::Poll && reason == "malformed" {
                continue;
            }
            let context = format!("{cursor} over {transport:?}");
            let mut reader = open(&server, transport, &Ask::user("alice").cursor(&cursor)).await;
            let reset = reader.next_of(Kind::Reset).await;
            assert_eq!(reset.str("reason"), reason, "{context}");
            assert!(
                reset.str("requested").ends_with(&cursor),
                "{context}: {reset:?}"
            );
            assert_eq!(reset.str("head"), format!("{epoch}-{head}"), "{context}");
            assert_eq!(reset.json["earliest"], head - 9, "{context}");
            if transport == Transport::Sse {
                assert_eq!(
                    reset.cursor.as_deref(),
                    Some(reset.str("head")),
                    "{context}"
                );
            }
            reader.next_of(Kind::Live).await;
            server.note("alice", json!("after")).await;
            head += 1;
            eventually("the log was trimmed", async || {
                let page = server.page("alice", "cursor=start&wait=0").await;
                page["events"][0]["seq"] == head - 9
            })
            .await;
            assert_eq!(reader.seqs(1).await, [head], "{context}");
        }
    }
}

#[tokio::test]
async fn on_gap_earliest_goes_on_from_the_oldest_event() {
    let (server, epoch) = trimmed_server().await;
    for (cursor, reason) in [
        ("17".to_owned(), "trimmed"),
        ("aaaaaa-3".to_owned(), "epoch"),
        (format!("{epoch}-31"), "ahead"),
    ] {
        for transport in Transport::ALL {
            let ask = Ask::user("alice").query(&format!("cursor={cursor}&on_gap=earliest"));
            let mut reader = open(&server, transport, &ask).await;
            let reset = reader.next_of(Kind::Reset).await;
            assert_eq!(reset.str("reason"), reason);
            if transport == Transport::Sse {
                assert_eq!(
                    reset.cursor.as_deref(),
                    Some(format!("{epoch}-20").as_str()),
                    "{reset:?}"
                );
            }
            let seqs = reader.seqs(10).await;
            assert_eq!(
                seqs,
                (21..=30).collect::<Vec<u64>>(),
                "{cursor} over {transport:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_reset_comes_exactly_when_something_is_missing() {
    let (server, epoch) = trimmed_server().await;
    for (cursor, is_reset) in [
        (format!("{epoch}-19"), true),
        (format!("{epoch}-20"), false),
        (format!("{epoch}-30"), false),
        (format!("{epoch}-31"), true),
        ("start".to_owned(), false),
        ("-100".to_owned(), false),
        ("now".to_owned(), false),
    ] {
        for transport in Transport::ALL {
            let mut reader = open(&server, transport, &Ask::user("alice").cursor(&cursor)).await;
            let was_reset = loop {
                let delivery = reader.next().await;
                match delivery.kind {
                    Kind::Reset => break true,
                    Kind::Live => break false,
                    // Whoever is cut off here asks for the same again, and hears of what is missing.
                    Kind::Ready if is_reset => {
                        let place = delivery.json["cursor"].as_str();
                        assert_eq!(place, Some(cursor.as_str()), "{delivery:?}");
                    }
                    _ => {}
                }
            };
            assert_eq!(was_reset, is_reset, "{cursor} over {transport:?}");
        }
    }
}

#[tokio::test]
async fn a_json_page_refuses_a_malformed_cursor() {
    let server = spawn(Options::new());
    for bad in ["x", "abcdef-", "abcdef-1-2", "1e3", "%2B5", "0x10"] {
        let path = format!("/v1/events?format=json&cursor={bad}&wait=0");
        let reply = server
            .get(&path)
            .token(&crate::tokens::user("alice"))
            .send()
            .await;
        reply.refused(&[400]);
    }
    for bad in ["yesterday", "-5", "2026-13-01T00:00:00Z"] {
        let path = format!("/v1/events?format=json&since={bad}&wait=0");
        let reply = server
            .get(&path)
            .token(&crate::tokens::user("alice"))
            .send()
            .await;
        reply.refused(&[400]);
    }
}

#[tokio::test]
async fn a_snapshot_stands_in_the_stream_where_it_is_asked_for() {
    let (server, epoch) = trimmed_server().await;
    for transport in Transport::OPEN {
        let ask = Ask::user("alice").query("snapshot=1");
        let mut reader = open(&server, transport, &ask).await;
        assert_eq!(reader.next().await.kind, Kind::Ready);
        let snapshot = reader.next().await;
        assert_eq!(
            snapshot.kind,
            Kind::Snapshot,
            "right after ready: {snapshot:?}"
        );
        let cursor = snapshot.cursor.clone().expect("the state has a cursor");
        assert_eq!(cursor, format!("{epoch}-30"), "{snapshot:?}");

        let ask = Ask::user("alice").query("snapshot=1&cursor=3");
        let mut reader = open(&server, transport, &ask).await;
        reader.next_of(Kind::Reset).await;
        assert_eq!(
            reader.next().await.kind,
            Kind::Snapshot,
            "right after reset"
        );

        let ask = Ask::user("alice").query("snapshot=1&cursor=28");
        let mut reader = open(&server, transport, &ask).await;
        for expected in [Kind::Ready, Kind::Event, Kind::Event, Kind::Live] {
            assert_eq!(
                reader.next().await.kind,
                expected,
                "a good position needs no snapshot"
            );
        }
    }
}

#[tokio::test]
async fn a_log_keeps_its_epoch_and_its_seqs_over_restarts() {
    let mut server = spawn(Options::new());
    let cursor = server.notes("alice", 3).await;
    for round in 0..3 {
        server.restart();
        let event = server.note("alice", json!(round)).await;
        let expected = format!("{}-{}", epoch_of(&cursor), 4 + round);
        assert_eq!(
            event["cursor"], expected,
            "an acked seq is neither lost nor given again"
        );
    }
    for transport in Transport::ALL {
        let mut reader = open(&server, transport, &Ask::user("alice").cursor(&cursor)).await;
        assert_eq!(reader.seqs(3).await, [4, 5, 6]);
        assert_eq!(seq_of(reader.cursor()), 6);
    }
}

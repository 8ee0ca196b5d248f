//! PROTOCOL.md sections 3.1 and 3.4: what only SSE and only NDJSON know.
//!
//! Promises: `retry` is judged by its range and by not being always the same, never by a figure. The bytes themselves
//! are held by `wire`.

use serde_json::{Value, json};

use crate::client::WAIT;
use crate::delivery::Kind;
use crate::harness::{Options, spawn};
use crate::reader::{Ask, Reader, Transport, open};
use crate::{door, tokens};

#[tokio::test]
async fn retry_is_random_and_in_range() {
    let server = spawn(Options::new().set("limits.connections_per_user", 100));
    let mut seen = Vec::new();
    for _ in 0..12 {
        let mut reader = open(&server, Transport::Sse, &Ask::user("alice")).await;
        let retry = reader
            .next()
            .await
            .retry
            .expect("the first frame tells retry");
        assert!((2000..=6000).contains(&retry), "{retry}");
        seen.push(retry);
    }
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 6, "12 connections, but only these: {seen:?}");
}

#[tokio::test]
async fn named_adds_the_type_to_data_events_only() {
    let server = spawn(Options::new());
    server.notes("alice", 1).await;
    let mut reader = open(
        &server,
        Transport::Sse,
        &Ask::user("alice").query("cursor=start&named=1"),
    )
    .await;
    let event = reader.next_of(Kind::Event).await;
    assert!(
        event.raw.starts_with("event: note.new\ndata: {"),
        "{:?}",
        event.raw
    );
    reader.next_of(Kind::Live).await;
    server
        .signal("alice", "typing.start", json!({}))
        .await
        .expect(201);
    let signal = reader.next_of(Kind::Signal).await;
    assert!(
        signal.raw.starts_with("event: typing.start\ndata: {"),
        "{:?}",
        signal.raw
    );
}

#[tokio::test]
async fn events_are_unnamed_unless_asked() {
    let server = spawn(Options::new());
    server.notes("alice", 1).await;
    let mut reader = open(
        &server,
        Transport::Sse,
        &Ask::user("alice").query("cursor=start"),
    )
    .await;
    let event = reader.next_of(Kind::Event).await;
    assert!(
        event.raw.starts_with("data: {"),
        "onmessage sees unnamed events only: {:?}",
        event.raw
    );
}

#[tokio::test]
async fn ndjson_can_be_had_without_control_lines() {
    let server = spawn(Options::new().set("stream.ping_seconds", 0.2));
    server.notes("alice", 2).await;
    let call = server
        .get("/v1/events?format=ndjson&cursor=start&control=0")
        .token(&tokens::user("alice"));
    let mut opened = call.open().await.unwrap();
    let mut text = String::new();
    while text.matches('\n').count() < 2 {
        text.push_str(std::str::from_utf8(&opened.next(WAIT).await.unwrap()).unwrap());
    }
    server.note("alice", json!("third")).await;
    while !text.contains("third") {
        text.push_str(std::str::from_utf8(&opened.next(WAIT).await.unwrap()).unwrap());
    }
    let seqs: Vec<Value> = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone())
        .collect();
    assert_eq!(seqs, [1, 2, 3], "{text}");
}

#[tokio::test]
async fn an_event_source_is_never_told_429_or_503() {
    let server = spawn(Options::new().set("limits.connections_per_user", 1));
    let _first = {
        let mut reader = open(&server, Transport::Sse, &Ask::user("alice")).await;
        reader.next_of(Kind::Ready).await;
        reader
    };
    let mut retries = Vec::new();
    for _ in 0..4 {
        let mut refused = open(&server, Transport::Sse, &Ask::user("alice")).await;
        let error = refused.next().await;
        assert_eq!(
            (error.kind, error.json["status"].as_u64()),
            (Kind::Error, Some(429)),
            "{error:?}"
        );
        let retry = error.retry.expect("it says when to come back");
        assert!((5000..=30_000).contains(&retry), "{retry}");
        retries.push(retry);
        assert_eq!(refused.next().await.kind, Kind::End);
    }
    retries.dedup();
    assert!(retries.len() > 1, "retry is random: {retries:?}");
    for accept in ["*/*", "application/x-ndjson"] {
        let call = server
            .get("/v1/events")
            .token(&tokens::user("alice"))
            .header("accept", accept);
        call.open().await.err().expect("refused").refused(&[429]);
    }
    let both = "text/event-stream, application/json";
    let call = server
        .get("/v1/events")
        .token(&tokens::user("alice"))
        .header("accept", both);
    let mut reader = Reader::of_sse(call.open().await.expect("it names text/event-stream"));
    assert_eq!(reader.next().await.kind, Kind::Error);
}

#[tokio::test]
async fn an_event_source_is_told_401_and_403_as_they_are() {
    let server = spawn(Options::new());
    let call = server
        .get("/v1/events")
        .header("accept", "text/event-stream");
    call.clone()
        .open()
        .await
        .err()
        .expect("refused")
        .refused(&[401]);
    call.token("nonsense")
        .open()
        .await
        .err()
        .expect("refused")
        .refused(&[401]);
}

#[tokio::test]
async fn events_of_many_sizes_arrive_whole() {
    let server = spawn(Options::new());
    let sizes = [0, 1, 3000, 3500, 3600, 16_000, 60_000, 65_000];
    for size in sizes {
        server.note("alice", json!("ä".repeat(size / 2))).await;
    }
    for transport in Transport::ALL {
        let mut reader = open(
            &server,
            transport,
            &Ask::user("alice").query("cursor=start"),
        )
        .await;
        for (event, size) in reader.events(sizes.len()).await.iter().zip(sizes) {
            assert_eq!(event.str("data").len(), size / 2 * 2, "{transport:?}");
        }
    }
    let event = json!({"to": {"user": "alice"}, "type": "a.b", "data": "x".repeat(65_535)});
    let reply = server.publish(&event).await;
    reply.refused(&[413]);
    door::check(&reply);
}

#[tokio::test]
async fn the_sender_connection_can_be_left_out() {
    let server = spawn(Options::new());
    for transport in Transport::OPEN {
        let user = format!("own-{transport:?}").to_lowercase();
        let mut own = open(&server, transport, &Ask::user(&user)).await;
        let conn = own.next_of(Kind::Ready).await.str("conn").to_owned();
        own.next_of(Kind::Live).await;
        let mut other = open(&server, transport, &Ask::user(&user)).await;
        other.next_of(Kind::Live).await;
        let to = json!({"user": user});
        let body = json!({"to": to, "type": "note.new", "data": "hidden", "exclude_conn": conn});
        server.publish(&body).await.expect(201);
        server.note(&user, json!("shown")).await;
        assert_eq!(other.seqs(2).await, [1, 2], "{transport:?}");
        assert_eq!(own.seqs(1).await, [2], "{transport:?}");
    }
}

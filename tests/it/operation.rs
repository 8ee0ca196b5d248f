//! PROTOCOL.md section 5: errors, limits, health, readiness and metrics.
//!
//! Promises: limits are configured small, so that they are met in a moment. It never asserts a figure of a metric,
//! only that what happened was counted.

use std::time::Duration;

use serde_json::json;

use crate::delivery::Kind;
use crate::harness::{Options, eventually, spawn};
use crate::reader::{Ask, Transport, open, try_open};
use crate::tokens;

#[tokio::test]
async fn errors_have_one_shape() {
    let server = spawn(Options::new());
    let publisher = tokens::publisher();
    let publish = || server.post("/v1/publish").token(&publisher);
    let cases = [
        (
            server.get("/v1/nothing").token(&publisher),
            404,
            "not_found",
        ),
        (server.get("/nothing/at/all"), 404, "not_found"),
        (
            server.get("/v1/publish").token(&publisher),
            405,
            "method_not_allowed",
        ),
        (server.call("DELETE", "/healthz"), 405, "method_not_allowed"),
        (server.get("/v1/events"), 401, "unauthorized"),
        (publish().body("text/csv", "a,b"), 415, ""),
        (publish().body("application/json", "{"), 400, ""),
        (publish().body("application/json", ""), 400, ""),
    ];
    for (call, status, code) in cases {
        let reply = call.send().await;
        let found = reply.refused(&[status]);
        if !code.is_empty() && found != code {
            // Codes are stable, but the contract names few of them; this keeps them from moving unnoticed.
            panic!("{status}: the code is {found}, not {code}");
        }
    }
}

#[tokio::test]
async fn request_ids_are_told_and_differ() {
    let server = spawn(Options::new());
    let first = server.get("/nothing").send().await.json()["request_id"].clone();
    let second = server.get("/nothing").send().await.json()["request_id"].clone();
    assert_ne!(first, second);
    let hostile = "x\" onload=\"1";
    let reply = server
        .get("/nothing")
        .header("x-request-id", hostile)
        .send()
        .await;
    assert!(
        !reply.text().contains("onload"),
        "a request id from outside is not echoed raw: {reply:?}"
    );
}

#[tokio::test]
async fn health_readiness_and_metrics_need_no_token() {
    let server = spawn(Options::new());
    server.notes("alice", 3).await;
    server.get("/healthz").send().await.expect(200);
    server.get("/readyz").send().await.expect(200);
    let head = server.call("HEAD", "/healthz").send().await;
    assert_eq!(head.status, 200);
    let reply = server.get("/metrics").send().await;
    let content_type = reply.header("content-type").unwrap();
    assert!(
        content_type.starts_with("application/openmetrics-text; version=1.0.0"),
        "{content_type}"
    );
    let text = reply.text();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(
            line.starts_with("tidings_") || line.starts_with("process_"),
            "{line}"
        );
    }
    for words in ["publish", "sync", "connect", "panic"] {
        assert!(text.contains(words), "nothing about {words} in:\n{text}");
    }
    assert!(!text.contains("alice"), "user names are no metrics");
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let server = spawn(Options::new());
    let sum = async || {
        let samples = server.metrics().await;
        let counted = |word: &str| {
            let matching = samples.iter().filter(|(name, _)| name.contains(word));
            matching.map(|(_, value)| value).sum::<f64>()
        };
        (counted("publish"), counted("connect"), counted("reset"))
    };
    let before = sum().await;
    server.notes("alice", 5).await;
    let mut reader = open(
        &server,
        Transport::Sse,
        &Ask::user("alice").cursor("aaaaaa-1"),
    )
    .await;
    reader.next_of(Kind::Reset).await;
    drop(reader);
    eventually("publishes, connects and resets are counted", async || {
        let now = sum().await;
        now.0 > before.0 && now.1 > before.1 && now.2 > before.2
    })
    .await;
}

#[tokio::test]
async fn a_user_has_so_many_connections_and_none_is_evicted() {
    let server = spawn(Options::new().set("limits.connections_per_user", 2));
    for transport in [Transport::Ndjson, Transport::Sse] {
        let user = format!("many-{transport:?}").to_lowercase();
        let mut kept = Vec::new();
        for _ in 0..2 {
            let mut reader = open(&server, transport, &Ask::user(&user)).await;
            reader.next_of(Kind::Live).await;
            kept.push(reader);
        }
        match try_open(&server, transport, &Ask::user(&user)).await {
            Err(reply) => drop(reply.refused(&[429])),
            Ok(mut reader) => assert_eq!(reader.next().await.kind, Kind::Error),
        }
        server.note(&user, json!("to both")).await;
        for reader in &mut kept {
            reader.events(1).await;
        }
        kept.pop();
        eventually(
            "the place of a closed connection is free again",
            async || match try_open(&server, transport, &Ask::user(&user)).await {
                Err(_) => false,
                Ok(mut reader) => reader.next().await.kind == Kind::Ready,
            },
        )
        .await;
    }
}

#[tokio::test]
async fn all_connections_together_have_a_bound() {
    let server = spawn(Options::new().set("limits.connections", 2));
    let mut kept = Vec::new();
    for user in ["a", "b"] {
        let mut reader = open(&server, Transport::Ndjson, &Ask::user(user)).await;
        reader.next_of(Kind::Live).await;
        kept.push(reader);
    }
    let reply = try_open(&server, Transport::Ndjson, &Ask::user("c"))
        .await
        .err();
    reply.expect("one too many").refused(&[503]);
    let mut reader = open(&server, Transport::Sse, &Ask::user("c")).await;
    let error = reader.next().await;
    assert_eq!(
        (error.kind, &error.json["status"]),
        (Kind::Error, &json!(503)),
        "{error:?}"
    );
}

#[tokio::test]
async fn writes_of_one_user_have_a_rate() {
    let options = Options::new()
        .set("limits.user_writes_per_second", 1)
        .set("limits.user_writes_burst", 3);
    let server = spawn(options);
    let head = server.notes("alice", 1).await;
    let ack = |user: &str| {
        let call = server.post("/v1/ack").token(&tokens::user(user));
        call.json(&json!({"cursor": head})).send()
    };
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(ack("alice").await.status);
    }
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(
        (3..=5).contains(&refused),
        "a burst of 3, then 1/s: {statuses:?}"
    );
    assert_ne!(ack("bob").await.status, 429, "bob is not alice");
}

#[tokio::test]
async fn publishing_has_a_rate() {
    let server = spawn(Options::new().set("limits.publish_per_second", 1));
    let note = json!({"to": {"user": "alice"}, "type": "note.new", "data": 1});
    let batch = json!({"events": vec![note; 500]});
    let mut accepted = 0;
    let mut refused = 0;
    for _ in 0..4 {
        match server.publish(&batch).await.status {
            200 => accepted += 500,
            429 => refused += 1,
            status => panic!("{status}"),
        }
    }
    assert!(
        accepted > 0 && refused > 1,
        "{accepted} accepted, {refused} refused"
    );
    let head = crate::delivery::seq_of(&server.head("alice").await);
    assert_eq!(head, accepted, "what was refused was not applied");
}

#[tokio::test]
async fn tries_without_a_good_token_have_a_rate() {
    let server = spawn(Options::new().set("limits.auth_failures_per_minute", 5));
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(
            server
                .get("/v1/events?format=json")
                .token("nonsense")
                .send()
                .await
                .status,
        );
    }
    assert_eq!(statuses[0], 401, "{statuses:?}");
    assert_eq!(*statuses.last().unwrap(), 429, "{statuses:?}");
}

#[tokio::test]
async fn sizes_have_bounds() {
    let options = Options::new()
        .set("limits.event_bytes", 1000)
        .set("limits.body_bytes", 20_000)
        .set("limits.recipients", 3);
    let server = spawn(options);
    let event = |data: String| json!({"to": {"user": "alice"}, "type": "note.new", "data": data});
    server.publish(&event("x".repeat(900))).await.expect(201);
    server
        .publish(&event("x".repeat(1100)))
        .await
        .refused(&[413]);
    server
        .publish(&event("x".repeat(30_000)))
        .await
        .refused(&[413]);
    let to = |users: &[&str]| json!({"to": {"users": users}, "type": "note.new", "data": 1});
    server.publish(&to(&["a", "b", "c"])).await.expect(201);
    server
        .publish(&to(&["a", "b", "c", "d"]))
        .await
        .refused(&[400, 413, 422]);
    assert_eq!(
        crate::delivery::seq_of(&server.head("a").await),
        1,
        "half applied"
    );
}

#[tokio::test]
async fn a_connection_that_left_is_noticed() {
    let server = spawn(
        Options::new()
            .set("limits.connections_per_user", 1)
            .set("stream.ping_seconds", 0.2),
    );
    for _ in 0..5 {
        eventually("the place is free", async || {
            match try_open(&server, Transport::Ndjson, &Ask::user("alice")).await {
                Err(_) => false,
                Ok(mut reader) => {
                    reader.wait = Duration::from_secs(5);
                    reader.next().await.kind == Kind::Ready
                }
            }
        })
        .await;
    }
}

//! PROTOCOL.md section 5, idempotency: a repeat gives the first result and appends nothing, over a crash too.
//!
//! Promises: after each repeat the log itself is looked at, not only the reply. The 24 hours pass on a clock of the test's.

use serde_json::{Value, json};
use tidings::clock::Clock;

use crate::client::Reply;
use crate::delivery::seq_of;
use crate::harness::{Options, Server, spawn, start_by};
use crate::tokens;
use crate::write::results;

fn note(id: Option<&str>, data: u64) -> Value {
    let mut body = json!({"to": {"user": "alice"}, "type": "note.new", "data": data});
    if let Some(id) = id {
        body["id"] = json!(id);
    }
    body
}

async fn publish_with_key(server: &Server, key: &str, body: &Value) -> Reply {
    let call = server.post("/v1/publish").token(&tokens::publisher());
    call.header("idempotency-key", key).json(body).send().await
}

#[track_caller]
fn assert_repeat(first: &Value, again: &Value) {
    assert_eq!(first["duplicate"], false, "{first}");
    assert_eq!(again["duplicate"], true, "{again}");
    for name in ["id", "time", "recipients", "seq", "cursor"] {
        assert_eq!(again[name], first[name], "{name}: {first} and {again}");
    }
}

#[tokio::test]
async fn a_repeated_id_or_key_appends_nothing_even_after_a_crash() {
    let mut server = spawn(Options::new());
    let by_id = server.publish(&note(Some("e-1"), 1)).await.expect(201);
    let by_key = publish_with_key(&server, "key-1", &note(None, 2))
        .await
        .expect(201);
    for is_restarted in [false, true] {
        if is_restarted {
            server.kill9();
            server.restart();
        }
        let again = server.publish(&note(Some("e-1"), 1)).await;
        assert!([200, 201].contains(&again.status), "{again:?}");
        assert_repeat(&by_id, &again.json());
        let again = publish_with_key(&server, "key-1", &note(None, 2)).await;
        assert!([200, 201].contains(&again.status), "{again:?}");
        assert_repeat(&by_key, &again.json());
        for reply in [
            server.publish(&note(Some("e-1"), 100)).await,
            publish_with_key(&server, "key-1", &note(None, 100)).await,
        ] {
            reply.refused(&[422]);
            assert_eq!(reply.code(), "idempotency_mismatch");
        }
        assert_eq!(
            seq_of(&server.head("alice").await),
            2,
            "restarted: {is_restarted}"
        );
    }
}

/// Behind the last moment at which a key is remembered, and before it.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const MINUTE_MS: u64 = 60 * 1000;

#[tokio::test]
async fn a_key_is_remembered_for_24_hours_over_a_restart_and_no_longer() {
    let directory = tempfile::tempdir().unwrap();
    // An hour before midnight and one after: keys are kept by days.
    for begin_ms in [
        day_of_tests() + 23 * 60 * MINUTE_MS,
        day_of_tests() + 60 * MINUTE_MS,
    ] {
        let clock = Clock::manual(begin_ms);
        let data = directory.path().join(begin_ms.to_string());
        let options = Options::new().data(&data);
        let mut server = start_by(clock.clone(), options.clone()).await;
        let first = publish_later(&server, "e-1").await;
        clock.advance_ms(DAY_MS / 2);
        assert_repeat(&first, &publish_later(&server, "e-1").await);
        server.drain().await;
        let server = start_by(clock.clone(), options).await;
        clock.advance_ms(DAY_MS / 2 - MINUTE_MS);
        assert_repeat(&first, &publish_later(&server, "e-1").await);
        clock.advance_ms(2 * MINUTE_MS);
        let anew = publish_later(&server, "e-1").await;
        assert_eq!(
            (&anew["duplicate"], &anew["seq"]),
            (&json!(false), &json!(2)),
            "a day and a minute later it is another event: {anew}"
        );
        assert_repeat(&anew, &publish_later(&server, "e-1").await);
    }
}

/// Publishes with a token that is good by a clock days ahead.
async fn publish_later(server: &Server, id: &str) -> Value {
    let publisher = tokens::Token::of("backend").claim("scope", "publish");
    let call = server.post("/v1/publish").token(
        &publisher
            .expires_in(i64::try_from(4 * DAY_MS / 1000).unwrap())
            .sign(),
    );
    call.json(&note(Some(id), 1)).send().await.expect(201)
}

/// The midnight before now.
fn day_of_tests() -> u64 {
    tokens::unix_seconds() * 1000 / DAY_MS * DAY_MS
}

#[tokio::test]
async fn the_spelling_of_the_same_body_does_not_matter() {
    let server = spawn(Options::new());
    let publish = |text: &str| {
        let call = server.post("/v1/publish").token(&tokens::publisher());
        call.body("application/json", text.to_owned()).send()
    };
    let first =
        publish(r#"{"to":{"user":"alice"},"type":"note.new","id":"e-1","data":{"a":1}}"#).await;
    let again = publish(
        r#"{ "type": "note.new", "id": "e-1", "data": {"a": 1}, "to": {"user": "alice"} }"#,
    )
    .await;
    assert_repeat(&first.expect(201), &again.json());
}

#[tokio::test]
async fn a_repeat_within_one_batch_is_a_repeat() {
    let server = spawn(Options::new());
    let events =
        json!({"events": [note(Some("e-1"), 1), note(Some("e-1"), 1), note(Some("e-1"), 2)]});
    let reply = server.publish(&events).await.expect(200);
    let results = results(&reply);
    assert_repeat(&results[0], &results[1]);
    assert!(
        results[2].to_string().contains("idempotency_mismatch"),
        "{reply}"
    );
    assert_eq!(seq_of(&server.head("alice").await), 1);
}

#[tokio::test]
async fn a_whole_batch_can_be_repeated_by_key() {
    let server = spawn(Options::new());
    let events = json!({"events": [note(None, 1), note(None, 2)]});
    let first = publish_with_key(&server, "batch-1", &events)
        .await
        .expect(200);
    let again = publish_with_key(&server, "batch-1", &events)
        .await
        .expect(200);
    for (first, again) in results(&first).iter().zip(results(&again)) {
        assert_repeat(first, again);
    }
    assert_eq!(seq_of(&server.head("alice").await), 2);
}

#[tokio::test]
async fn repeats_at_the_same_moment_are_one_event() {
    let server = spawn(Options::new());
    let body = note(Some("e-1"), 1);
    let all = futures_util::future::join_all((0..16).map(|_| server.publish(&body))).await;
    let replies: Vec<Value> = all.iter().map(Reply::json).collect();
    let firsts = replies
        .iter()
        .filter(|reply| reply["duplicate"] == false)
        .count();
    assert_eq!(firsts, 1, "{replies:?}");
    assert!(replies.iter().all(|reply| reply["seq"] == 1), "{replies:?}");
    assert_eq!(seq_of(&server.head("alice").await), 1);
}

#[tokio::test]
async fn keys_that_cannot_be_kept_are_refused() {
    let server = spawn(Options::new());
    for bad in ["a b", "a\"b", &"k".repeat(300)] {
        publish_with_key(&server, bad, &note(None, 1))
            .await
            .refused(&[400, 422]);
    }
    assert_eq!(seq_of(&server.head("alice").await), 0);
}

#[tokio::test]
async fn a_refused_publish_does_not_use_its_key_up() {
    let server = spawn(Options::new());
    let mut bad = note(None, 1);
    bad["type"] = json!("Not A Type");
    publish_with_key(&server, "key-1", &bad)
        .await
        .refused(&[400, 422]);
    let reply = publish_with_key(&server, "key-1", &note(None, 1))
        .await
        .expect(201);
    assert_eq!(reply["duplicate"], false, "{reply}");
}

#[tokio::test]
async fn notify_is_repeated_by_key_too() {
    let server = spawn(Options::new());
    let notify = || {
        let call = server
            .post("/v1/users/alice/notify")
            .token(&tokens::publisher());
        call.header("idempotency-key", "n-1")
            .body("text/plain", "Backup done")
            .send()
    };
    let (first, again) = (notify().await, notify().await);
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!(again.json()["duplicate"], true, "{again:?}");
    assert_eq!(seq_of(&server.head("alice").await), 1);
}

//! PROTOCOL.md section 6, feeds: at once for those who chose so, in digests for the others, live counts by `collapse_key`.
//!
//! Promises: each test looks at both ways of getting a feed. A digest is waited for, never slept for.

use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::{Server, spawn, start};
use crate::inbox::{patient, text};
use crate::reader::{Ask, Reader, Transport, open};
use crate::write::results;

const TOPIC: &str = "feed:news";

fn event(data: Value) -> Value {
    json!({"to": {"topic": TOPIC}, "type": "feed.post", "data": data})
}

fn live(key: &str, data: u64) -> Value {
    let mut event = event(json!(data));
    event["collapse_key"] = json!(key);
    event
}

/// Publishes one event and gives its id.
async fn post(server: &Server, event: &Value, recipients: u64) -> String {
    let reply = server.publish(event).await.expect(201);
    assert_eq!(reply["recipients"], recipients, "{reply}");
    text(&reply["id"])
}

/// Alice gets the feed at once, bob and carol in digests.
async fn readers(server: &Server) -> (Reader, Vec<Reader>) {
    for user in ["alice", "bob", "carol"] {
        server.subscribe(TOPIC, user).await;
    }
    server.choose("alice", &json!({"feed_auto": true})).await;
    let mut others = Vec::new();
    for user in ["bob", "carol"] {
        others.push(open(server, Transport::Sse, &Ask::user(user)).await);
    }
    let mut alice = open(server, Transport::Sse, &Ask::user("alice")).await;
    alice.next_of(Kind::Live).await;
    (alice, others)
}

#[tokio::test]
async fn a_feed_comes_at_once_or_in_digests() {
    let server = start(patient().set("feed.digest_seconds", 1)).await;
    let (mut alice, mut others) = readers(&server).await;
    let first = post(&server, &event(json!({"n": 1})), 3).await;
    let second = post(&server, &event(json!({"n": 2})), 3).await;
    for (id, n) in [(&first, 1), (&second, 2)] {
        let at_once = alice.event_of("feed.post").await;
        assert_eq!(
            (&at_once["id"], &at_once["topic"]),
            (&json!(id), &json!(TOPIC))
        );
        assert_eq!(at_once["data"], json!({"n": n}));
    }
    let expected = json!({"topic": TOPIC, "count": 2, "ids": [second, first]});
    for other in &mut others {
        let digest = other.event_of("feed.digest").await;
        assert_eq!(
            (&digest["topic"], &digest["data"]),
            (&json!(TOPIC), &expected)
        );
        assert_eq!(digest["seq"], 1, "nothing came before it");
    }
    let third = post(&server, &event(json!(3)), 3).await;
    alice.event_of("feed.post").await;
    for other in &mut others {
        let digest = other.event_of("feed.digest").await;
        assert_eq!(
            digest["data"]["ids"],
            json!([third]),
            "the next window is its own"
        );
    }
    let types = server.types_of("alice").await;
    assert!(!types.contains(&"feed.digest".to_owned()), "{types:?}");
}

#[tokio::test]
async fn of_one_collapse_key_only_the_last_is_kept() {
    let server = start(patient().set("feed.digest_seconds", 1)).await;
    let (mut alice, mut others) = readers(&server).await;
    post(&server, &live("likes:7", 1), 3).await;
    let plain = post(&server, &event(json!("post")), 3).await;
    post(&server, &live("likes:8", 1), 3).await;
    let seven = post(&server, &live("likes:7", 2), 3).await;
    let eight = post(&server, &live("likes:8", 5), 3).await;
    for data in [json!(1), json!("post"), json!(1), json!(2), json!(5)] {
        assert_eq!(
            alice.event_of("feed.post").await["data"],
            data,
            "at once means each of them"
        );
    }
    let digest = others[0].event_of("feed.digest").await["data"].clone();
    assert_eq!(
        (&digest["count"], &digest["ids"]),
        (&json!(3), &json!([eight, seven, plain]))
    );
    let latest = digest["latest"].as_array().unwrap();
    let told: Vec<Value> = latest
        .iter()
        .map(|one| json!([one["collapse_key"], one["id"], one["data"]]))
        .collect();
    assert_eq!(
        told,
        [json!(["likes:8", eight, 5]), json!(["likes:7", seven, 2])]
    );
    assert!(
        latest
            .iter()
            .all(|one| one["type"] == "feed.post" && one["time"].is_string()),
        "{digest}"
    );
    // In the next window the key begins anew.
    let again = post(&server, &live("likes:7", 3), 3).await;
    let digest = others[0].event_of("feed.digest").await["data"].clone();
    assert_eq!(
        (&digest["count"], &digest["ids"]),
        (&json!(1), &json!([again]))
    );
}

#[tokio::test]
async fn a_long_window_counts_all_and_names_the_newest() {
    let server = start(patient().set("feed.digest_seconds", 3)).await;
    server.subscribe(TOPIC, "bob").await;
    let mut bob = open(&server, Transport::Sse, &Ask::user("bob")).await;
    let rare = post(&server, &live("rare", 1), 1).await;
    let mut sent = vec![rare.clone()];
    for round in 0..2 {
        let events: Vec<Value> = (0..300).map(|n| event(json!(round * 300 + n))).collect();
        let reply = server
            .publish(&json!({"events": events, "atomic": round == 0}))
            .await
            .expect(200);
        sent.extend(results(&reply).iter().map(|result| text(&result["id"])));
    }
    let rare_again = post(&server, &live("rare", 2), 1).await;
    sent.push(rare_again);
    sent.reverse();
    let (mut ids, mut count) = (Vec::new(), 0);
    // A slow machine may need a second window: then the first named and counted its part.
    while count < 601 {
        let digest = bob.event_of("feed.digest").await["data"].clone();
        count += digest["count"].as_u64().unwrap();
        let some: Vec<String> = digest["ids"].as_array().unwrap().iter().map(text).collect();
        assert!(some.len() <= 500, "{} ids", some.len());
        ids.splice(0..0, some);
    }
    assert!(ids.len() >= 500, "{} ids of {count}", ids.len());
    assert_eq!(ids[..500], sent[..500], "the newest are named");
    assert!(count <= 602, "{count}");
}

#[tokio::test]
async fn only_feeds_to_topics_are_gathered() {
    let server = start(patient().set("feed.digest_seconds", 3_600)).await;
    server.subscribe(TOPIC, "bob").await;
    let mut bob = open(&server, Transport::Sse, &Ask::user("bob")).await;
    post(&server, &event(json!("gathered")), 1).await;
    for (to, event_type) in [
        (json!({"user": "bob"}), "feed.post"),
        (json!({"users": ["bob", "alice"]}), "feed.post"),
        (json!({"topic": TOPIC}), "feed"),
        (json!({"topic": TOPIC}), "feeds.post"),
        (json!({"topic": TOPIC}), "note.new"),
    ] {
        let body = json!({"to": to, "type": event_type, "data": event_type});
        server.publish(&body).await.expect(201);
        assert_eq!(bob.event_of(event_type).await["data"], event_type);
    }
    let nobody = json!({"to": {"topic": "feed:empty"}, "type": "feed.post", "data": 1});
    post(&server, &nobody, 0).await;
}

#[tokio::test]
async fn a_repeat_is_gathered_once() {
    let server = start(patient().set("feed.digest_seconds", 1)).await;
    let (mut alice, mut others) = readers(&server).await;
    let mut named = event(json!(1));
    named["id"] = json!("post-1");
    for is_duplicate in [false, true, true] {
        let reply = server.publish(&named).await.expect(201);
        assert_eq!(reply["duplicate"], is_duplicate, "{reply}");
        assert_eq!(reply["recipients"], 3, "{reply}");
    }
    named["data"] = json!(2);
    assert_eq!(
        server.publish(&named).await.refused(&[422]),
        "idempotency_mismatch"
    );
    let last = post(&server, &event(json!("last")), 3).await;
    for data in [json!(1), json!("last")] {
        assert_eq!(alice.event_of("feed.post").await["data"], data);
    }
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let digest = others[0].event_of("feed.digest").await["data"].clone();
        ids.extend(digest["ids"].as_array().unwrap().iter().rev().map(text));
    }
    assert_eq!(ids, ["post-1", last.as_str()]);
}

#[tokio::test]
async fn what_was_gathered_survives_a_crash() {
    let mut server = spawn(patient().set("feed.digest_seconds", 3_600));
    let (_, _) = readers(&server).await;
    let first = post(&server, &live("likes", 1), 3).await;
    let second = post(&server, &live("likes", 2), 3).await;
    let third = post(&server, &event(json!("post")), 3).await;
    assert_eq!(server.types_of("bob").await, Vec::<String>::new());
    server.kill9();
    server.restart();
    for user in ["bob", "carol"] {
        let mut reader = open(&server, Transport::Sse, &Ask::user(user).cursor("start")).await;
        let digest = reader.event_of("feed.digest").await["data"].clone();
        assert_eq!(
            digest["ids"],
            json!([third, second]),
            "not {first}, which was overtaken"
        );
        assert_eq!(digest["latest"][0]["data"], 2);
    }
    // Alice still has it at once, and the digest was told once.
    post(&server, &event(json!("after")), 3).await;
    server.kill9();
    server.restart();
    let posts: Vec<String> = server.types_of("alice").await;
    assert_eq!(posts[1..], vec!["feed.post"; 4], "{posts:?}");
    let mut bob = open(&server, Transport::Sse, &Ask::user("bob").cursor("1")).await;
    assert_eq!(bob.event_of("feed.digest").await["data"]["count"], 1);
    server.assert_healthy().await;
}

#[tokio::test]
async fn who_changes_the_way_misses_nothing() {
    let server = start(patient().set("feed.digest_seconds", 2)).await;
    server.subscribe(TOPIC, "bob").await;
    let mut bob = open(&server, Transport::Sse, &Ask::user("bob")).await;
    let gathered = post(&server, &event(json!("before")), 1).await;
    server.choose("bob", &json!({"feed_auto": true})).await;
    let at_once = post(&server, &event(json!("after")), 1).await;
    let (mut heard, mut digests) = (Vec::new(), 0);
    while digests < 1 || heard.len() < 2 {
        let event = bob.events(1).await.remove(0).json;
        match event["type"].as_str().unwrap() {
            "feed.post" => heard.push(text(&event["id"])),
            "feed.digest" => {
                digests += 1;
                heard.extend(event["data"]["ids"].as_array().unwrap().iter().map(text));
            }
            _ => {}
        }
    }
    heard.sort();
    let mut expected = vec![gathered, at_once];
    expected.sort();
    assert_eq!(heard, expected);
}

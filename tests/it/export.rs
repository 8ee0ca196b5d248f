//! `GET /v1/users/{id}/export`: all that is kept about a user, as lines that can be counted.
//!
//! Promises: each line is a JSON object with a `kind`; the last one counts the others; others are told nothing.

use serde_json::{Value, json};

use crate::harness::{Options, Server, spawn};
use crate::inbox::{patient, text};
use crate::tokens;

/// The lines of an export; the last one must count the others.
pub async fn lines(server: &Server, user: &str, token: &str) -> Vec<Value> {
    let path = format!("/v1/users/{user}/export");
    let reply = server.get(&path).token(token).send().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    let text = reply.text();
    let mut lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        text.lines().all(|line| line.starts_with("{\"kind\":\"")),
        "the kind stands first"
    );
    let end = lines.pop().expect("there is a last line");
    assert_eq!(
        (&end["kind"], &end["lines"]),
        (&json!("end"), &json!(lines.len()))
    );
    for (kind, count) in end["counts"].as_object().unwrap() {
        assert_eq!(
            of(&lines, kind).len(),
            count.as_u64().unwrap() as usize,
            "{kind}"
        );
    }
    lines
}

pub fn of<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

#[tokio::test]
async fn all_that_is_kept_is_told() {
    let server = spawn(patient().set("notifications.digest_every_seconds", 86_400));
    let head = server.notes("alice", 1_200).await;
    server.notes("bob", 3).await;
    server.notify("bob", "like").await;
    for topic in ["feed:x", "feed:y"] {
        let path = format!("/v1/topics/{topic}/subscribers/alice");
        server
            .call("PUT", &path)
            .token(&tokens::publisher())
            .send()
            .await
            .expect(204);
    }
    for device in 0..450 {
        let ack = json!({"cursor": head, "device": format!("device-{device}")});
        let admin = tokens::Token::of("alice").claim("scope", "publish").sign();
        server
            .post("/v1/ack")
            .token(&admin)
            .json(&ack)
            .send()
            .await
            .expect(200);
    }
    let sent = server.notify_times("alice", "like", 410).await;
    let read = json!({"ids": [sent[0], sent[409]]});
    assert_eq!(server.mark_read("alice", &read).await, 408);
    let passed = server.types_of("alice").await.len() as u64;
    let head = server.page("alice", "cursor=now&wait=0").await["cursor"].clone();
    for token in [tokens::user("alice"), tokens::admin()] {
        let lines = lines(&server, "alice", &token).await;
        assert_eq!(
            (&lines[0]["kind"], &lines[0]["cursor"]),
            (&json!("profile"), &json!(head))
        );
        assert_eq!(of(&lines, "preferences").len(), 1);
        assert_eq!(of(&lines, "subscription").len(), 2);
        // The unnamed device has a row too where receipts are told.
        let acks = of(&lines, "ack").into_iter();
        let named = acks.filter(|line| line["device"] != "-");
        assert_eq!(named.count(), 450);
        let events = of(&lines, "event");
        let seqs: Vec<u64> = events
            .iter()
            .filter_map(|line| line["event"]["seq"].as_u64())
            .collect();
        assert_eq!(seqs, (1..=passed).collect::<Vec<u64>>());
        assert_eq!(events[7]["event"]["data"], json!({"n": 8}));
        // Also those that came in digests only.
        let notifications = of(&lines, "notification").into_iter();
        let told: Vec<(String, bool)> = notifications
            .map(|line| &line["notification"])
            .map(|one| (text(&one["id"]), one["read"] == true))
            .collect();
        let expected = (0..sent.len()).rev();
        let expected = expected.map(|n| (sent[n].clone(), n == 0 || n == 409));
        assert_eq!(told, expected.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn others_are_told_nothing() {
    let server = spawn(Options::new());
    server.notes("alice", 1).await;
    for (path, token) in [
        ("/v1/users/alice/export", tokens::user("bob")),
        ("/v1/users/alice/export", tokens::publisher()),
        ("/v1/users/nobody/export", tokens::user("bob")),
        ("/v1/users/nobody/export", tokens::admin()),
    ] {
        let refused = server.get(path).token(&token).send().await;
        assert_eq!(refused.refused(&[404]), "not_found", "{path}");
        assert_eq!(refused.json()["message"], "there is nothing here", "{path}");
    }
    server
        .get("/v1/users/alice/export")
        .send()
        .await
        .refused(&[401]);
}

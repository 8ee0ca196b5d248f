//! PROTOCOL.md sections 5 and 6, history: pages both ways, tombstones, and what retention in days takes.
//!
//! Promises: what was taken back is looked for everywhere but in the logs, which keep what they told. It relies on no
//! pace of the sweep.

use serde_json::{Value, json};

use crate::harness::{eventually, spawn};
use crate::talk::{contents, options, server};
use crate::tokens;

#[tokio::test]
async fn history_comes_in_pages_both_ways() {
    let server = server();
    let id = server.direct("alice", "bob").await;
    for n in 1..=7 {
        server.say("alice", &id, &n.to_string()).await;
    }
    for (query, expected, more) in [
        ("", vec!["1", "2", "3", "4", "5", "6", "7"], false),
        ("?limit=3", vec!["5", "6", "7"], true),
        ("?limit=3&before=5", vec!["2", "3", "4"], true),
        ("?limit=3&before=2", vec!["1"], false),
        ("?before=1", vec![], false),
        ("?limit=3&after=0", vec!["1", "2", "3"], true),
        ("?limit=3&after=3", vec!["4", "5", "6"], true),
        ("?limit=3&after=6", vec!["7"], false),
        ("?after=7", vec![], false),
        ("?after=99", vec![], false),
        ("?after=2&before=5", vec!["3", "4"], false),
    ] {
        let page = server.history("bob", &id, query).await;
        assert_eq!(contents(&page), expected, "{query}");
        assert_eq!((&page["head"], &page["floor"]), (&json!(7), &json!(1)));
        assert_eq!(page["more"], more, "{query}");
    }
    for query in ["limit=0", "limit=201", "before=x", "after=-1", "colour=1"] {
        let path = format!("/v1/conversations/{id}/messages?{query}");
        server.of("bob", "GET", &path).send().await.refused(&[400]);
    }
}

#[tokio::test]
async fn a_page_of_long_messages_is_bounded_and_says_so() {
    let server = server();
    let id = server.direct("alice", "bob").await;
    for n in 0..40 {
        server
            .say("alice", &id, &format!("{n} {}", "👍".repeat(7_990)))
            .await;
    }
    let mut seen = 0;
    let mut before = String::new();
    loop {
        let page = server
            .history("bob", &id, &format!("?limit=200{before}"))
            .await;
        let messages = page["messages"].as_array().unwrap();
        assert!(!messages.is_empty());
        let bytes: usize = messages
            .iter()
            .map(|one| one["content"].as_str().unwrap().len())
            .sum();
        assert!(bytes < 1_100_000, "{bytes}");
        seen += messages.len();
        if page["more"] == false {
            break;
        }
        before = format!("&before={}", messages[0]["n"]);
    }
    assert_eq!(seen, 40);
}

#[tokio::test]
async fn a_message_is_taken_back_by_its_sender_or_an_administrator() {
    let server = server();
    let id = server.group(&["alice", "bob"], Some("Tea")).await;
    let body = json!({"content": "secret one", "data": {"secret": 2}});
    let first = server.post_message("alice", &id, &body).await.expect(201);
    let second = server.say("alice", &id, "secret three").await;
    let delete = |token: String, message: &Value| {
        let message = message["id"].as_str().unwrap();
        let path = format!("/v1/conversations/{id}/messages/{message}");
        server.call("DELETE", &path).token(&token).send()
    };
    delete(tokens::user("bob"), &first).await.refused(&[403]);
    delete(tokens::publisher(), &first).await.refused(&[403]);
    delete(tokens::user("eve"), &first).await.refused(&[404]);
    for _ in 0..2 {
        assert_eq!(delete(tokens::user("alice"), &first).await.status, 204);
    }
    assert_eq!(delete(tokens::admin(), &second).await.status, 204);
    delete(tokens::user("alice"), &json!({"id": "none"}))
        .await
        .refused(&[404]);
    let other = server.group(&["alice", "bob"], Some("Other")).await;
    let path = format!(
        "/v1/conversations/{other}/messages/{}",
        first["id"].as_str().unwrap()
    );
    server
        .of("alice", "DELETE", &path)
        .send()
        .await
        .refused(&[404]);
    let page = server.history("bob", &id, "").await;
    assert!(!page.to_string().contains("secret"), "{page}");
    for (n, sent) in [&first, &second].into_iter().enumerate() {
        let left = &page["messages"][n];
        assert_eq!(
            (&left["deleted"], &left["content"]),
            (&json!(true), &json!(""))
        );
        assert_eq!(
            (&left["id"], &left["sender"]),
            (&sent["id"], &json!("alice"))
        );
        assert_eq!(left.get("data"), None);
    }
    let log = server.log_of("bob").await;
    let told: Vec<&Value> = log
        .iter()
        .filter(|(kind, _)| kind == "message.deleted")
        .map(|(_, data)| data)
        .collect();
    let expected = [(&first, 1), (&second, 2)]
        .map(|(sent, n)| json!({"conversation_id": id, "id": sent["id"], "n": n}));
    assert_eq!(told, expected.iter().collect::<Vec<_>>());
    assert_eq!(
        server.unread("bob").await,
        (2, 1),
        "deleted ones count until they are read"
    );
    assert_eq!(
        server.seen("bob", &id).await["last_message"]["deleted"],
        true
    );
}

#[tokio::test]
async fn old_messages_go_and_are_not_unread_any_more() {
    let server = spawn(options().set("conversations.message_retention_days", 0.00005));
    let id = server.direct("alice", "bob").await;
    for n in 1..=3 {
        server.say("alice", &id, &n.to_string()).await;
    }
    eventually("the messages are gone", async || {
        server.history("bob", &id, "").await["floor"] == 4
    })
    .await;
    assert_eq!(server.unread("bob").await, (0, 0));
    let page = server.history("bob", &id, "").await;
    assert_eq!((contents(&page).len(), &page["head"]), (0, &json!(3)));
    assert_eq!(server.say("bob", &id, "next").await["n"], 4);
    assert_eq!(contents(&server.history("alice", &id, "").await), ["next"]);
    assert_eq!(server.unread("alice").await, (1, 1));
}

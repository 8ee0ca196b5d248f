//! PROTOCOL.md section 5, groups: who comes later, long lists in pages, and what a backend publishes to all members.
//!
//! Promises: pages are followed to their end and hold everything once. It relies on no order of members in a list.

use serde_json::{Value, json};

use crate::conversations::names;
use crate::reader::Transport;
use crate::talk::{listen, options, server};
use crate::tokens;

#[tokio::test]
async fn who_comes_later_reads_the_history_and_has_nothing_unread() {
    let server = server();
    let id = server.group(&["alice", "bob"], Some("Tea")).await;
    for n in 1..=3 {
        server.say("alice", &id, &format!("message {n}")).await;
    }
    let path = format!("/v1/conversations/{id}/members/carol");
    assert_eq!(server.of("alice", "PUT", &path).send().await.status, 204);
    assert_eq!(server.unread("carol").await, (0, 0));
    let page = server.history("carol", &id, "").await;
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(3));
    server.say("alice", &id, "welcome").await;
    assert_eq!(server.unread("carol").await, (1, 1));
    assert_eq!(server.unread("bob").await, (4, 1));
    // Out of the group nothing of it is unread, and nothing more comes.
    assert_eq!(server.of("alice", "DELETE", &path).send().await.status, 204);
    assert_eq!(server.unread("carol").await, (0, 0));
    server.say("alice", &id, "they left").await;
    let types: Vec<String> = server
        .log_of("carol")
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(
        types,
        ["conversation.joined", "message.new", "conversation.left"]
    );
    // Back again: the same as new.
    assert_eq!(server.of("alice", "PUT", &path).send().await.status, 204);
    assert_eq!(server.unread("carol").await, (0, 0));
    server.say("carol", &id, "hello again").await;
    server.say("bob", &id, "hello").await;
    assert_eq!(server.unread("carol").await, (1, 1));
}

#[tokio::test]
async fn lists_come_in_pages_newest_activity_first() {
    let server = server();
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(
            server
                .group(&["alice", "bob"], Some(&format!("group {n}")))
                .await,
        );
    }
    let said = server.say("bob", &ids[1], "up").await;
    let expected = [&ids[1], &ids[4], &ids[3], &ids[2], &ids[0]].map(String::as_str);
    let mut seen = Vec::new();
    let mut before = String::new();
    loop {
        let path = format!("/v1/conversations?limit=2{before}");
        let page = server.of("alice", "GET", &path).send().await.expect(200);
        let list = page["conversations"].as_array().unwrap();
        assert!((1..=2).contains(&list.len()), "{page}");
        seen.extend(
            list.iter()
                .map(|one| one["id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(seen, expected);
    let state = server.state("alice").await;
    let told: Vec<&str> = state["conversations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(told, expected);
    let first = &state["conversations"][0];
    assert_eq!(
        (&first["unread"], &first["read_upto"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(first["last_message"]["id"], said["id"], "{first}");
    assert_eq!(state["conversations"][1].get("last_message"), None);
}

#[tokio::test]
async fn members_come_in_pages_and_are_bounded() {
    let server = crate::harness::spawn(options().set("limits.recipients", 1200));
    let members: Vec<String> = (0..1200).map(|n| format!("user-{n}")).collect();
    let body = json!({"members": members, "name": "All"});
    let call = server.post("/v1/conversations").token(&tokens::publisher());
    let made = call.json(&body).send().await.expect(201);
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(made["members"].as_array().map(Vec::len), Some(100));
    assert_eq!(made["member_count"], 1200);
    let page = |query: &str| {
        let path = format!("/v1/conversations/{id}/members{query}");
        server.of("user-7", "GET", &path).send()
    };
    let first = page("").await.expect(200);
    let next = first["next"].as_str().unwrap();
    let second = page(&format!("?after={next}")).await.expect(200);
    assert_eq!(second["next"], Value::Null);
    let mut all = names(&first["members"]);
    all.extend(names(&second["members"]));
    all.sort();
    let mut expected = members.clone();
    expected.sort();
    assert_eq!(all, expected);
    let path = format!("/v1/conversations/{id}/members/one-more");
    let full = server.of("user-7", "PUT", &path).send().await;
    assert_eq!(full.refused(&[409]), "conversation_full");
}

#[tokio::test]
async fn a_backend_publishes_to_the_members_of_a_conversation() {
    let server = server();
    let id = server.group(&["alice", "bob", "carol"], Some("Tea")).await;
    let body = json!({"to": {"conversation": id}, "type": "call.ringing", "data": 7, "id": "e-1"});
    let receipt = server.publish(&body).await.expect(201);
    assert_eq!(receipt["recipients"], 3, "{receipt}");
    assert_eq!(server.publish(&body).await.expect(201)["duplicate"], true);
    for user in ["alice", "bob", "carol"] {
        let page = server.page(user, "cursor=start&wait=0&types=call.*").await;
        assert_eq!(page["events"].as_array().map(Vec::len), Some(1), "{user}");
        assert_eq!(page["events"][0]["topic"], format!("conversation:{id}"));
    }
    assert_eq!(
        server.unread("alice").await,
        (0, 0),
        "only messages are unread"
    );
    let mut reader = listen(&server, Transport::Sse, "bob").await;
    let pulse =
        json!({"to": {"conversation": id}, "type": "call.level", "data": 3, "ephemeral": true});
    assert_eq!(server.publish(&pulse).await.expect(201)["recipients"], 3);
    let signal = loop {
        let signal = reader.next_of(crate::delivery::Kind::Signal).await;
        if signal.str("type") == "call.level" {
            break signal;
        }
    };
    assert_eq!(signal.json["data"], 3);
    for ephemeral in [false, true] {
        let body = json!({"to": {"conversation": "none"}, "type": "a.b", "ephemeral": ephemeral});
        assert_eq!(
            server.publish(&body).await.refused(&[404]),
            "unknown_conversation"
        );
    }
    let batch = json!({"events": [{"to": {"conversation": "none"}, "type": "a.b"}, {"to": {"conversation": id}, "type": "a.b"}]});
    let results = server.publish(&batch).await.expect(200);
    assert_eq!(
        results["results"][0]["error"]["code"],
        "unknown_conversation"
    );
    assert_eq!(results["results"][1]["recipients"], 3);
    let bad = json!({"to": {"conversation": "a b"}, "type": "a.b"});
    server.publish(&bad).await.refused(&[400]);
}

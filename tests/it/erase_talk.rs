//! Erasing and exporting someone who talked: what others find in conversations, histories and logs afterwards.
//!
//! Promises: nothing that the person wrote is in any answer; others keep their conversations, numbers and messages.

use serde_json::{Value, json};

use crate::export::{lines, of};
use crate::harness::Server;
use crate::talk::server;
use crate::tokens;

async fn ask(server: &Server, user: &str, method: &str, path: &str, body: Value) -> Value {
    let call = server.of(user, method, path);
    let call = if body.is_null() {
        call
    } else {
        call.json(&body)
    };
    let reply = call.send().await;
    assert!(
        (200..300).contains(&reply.status),
        "{method} {path}: {reply:?}"
    );
    reply.json()
}

async fn say(server: &Server, user: &str, conversation: &str, content: &str) -> Value {
    let path = format!("/v1/conversations/{conversation}/messages");
    let body = json!({"content": content, "client_id": format!("{user}-{content}"), "data": {"of": content}});
    ask(server, user, "POST", &path, body).await
}

/// A 1:1 of alice and bob and a group of three, with a few words in each.
async fn talked(server: &Server) -> [String; 2] {
    let direct = ask(
        server,
        "alice",
        "POST",
        "/v1/conversations",
        json!({"members": ["bob"]}),
    )
    .await;
    let group = json!({"members": ["bob", "carol"], "name": "Three"});
    let group = ask(server, "alice", "POST", "/v1/conversations", group).await;
    let ids = [&direct, &group].map(|made| made["id"].as_str().unwrap().to_owned());
    for id in &ids {
        for n in 0..3 {
            say(server, "bob", id, &format!("canary-{n}")).await;
            say(server, "alice", id, &format!("mine-{n}")).await;
        }
    }
    ids
}

#[tokio::test]
async fn what_an_erased_user_said_is_gone_and_the_others_talk_on() {
    let server = server();
    let [direct, group] = talked(&server).await;
    assert_eq!(server.erase("bob", &tokens::user("bob")).await, 204);
    let mut placeholder = String::new();
    for id in [&direct, &group] {
        let path = format!("/v1/conversations/{id}/messages");
        let history = ask(&server, "alice", "GET", &path, Value::Null).await;
        assert!(!history.to_string().contains("canary"), "{history}");
        assert!(!history.to_string().contains("\"bob\""), "{history}");
        let messages = history["messages"].as_array().unwrap();
        let numbers: Vec<u64> = messages
            .iter()
            .filter_map(|one| one["n"].as_u64())
            .collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
        for pair in messages.chunks(2) {
            assert_eq!(
                (&pair[0]["deleted"], &pair[0]["content"]),
                (&json!(true), &json!(""))
            );
            assert!(
                pair[1]["content"].as_str().unwrap().starts_with("mine-"),
                "{history}"
            );
            pair[0]["sender"]
                .as_str()
                .unwrap()
                .clone_into(&mut placeholder);
        }
    }
    assert!(placeholder.starts_with("erased:"), "{placeholder}");
    let members = async |id: &str| {
        let path = format!("/v1/conversations/{id}");
        let told = ask(&server, "alice", "GET", &path, Value::Null).await;
        let names = told["members"].as_array().unwrap().clone();
        let mut names: Vec<String> = names
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(members(&direct).await, ["alice".to_owned(), placeholder]);
    assert_eq!(members(&group).await, ["alice", "carol"]);
    for user in ["alice", "carol"] {
        let page = server.page(user, "cursor=start&wait=0&limit=1000").await;
        let text = page.to_string();
        assert!(
            !text.contains("canary") && !text.contains("\"bob\""),
            "{user}: {text}"
        );
        let state = ask(&server, user, "GET", "/v1/state", Value::Null).await;
        assert!(!state.to_string().contains("canary"), "{state}");
    }
    say(&server, "alice", &group, "still-here").await;
    // The name is free, and whoever has it now was in none of this.
    let list = ask(&server, "bob", "GET", "/v1/conversations", Value::Null).await;
    assert_eq!(list["conversations"], json!([]));
    let anew = ask(
        &server,
        "bob",
        "POST",
        "/v1/conversations",
        json!({"members": ["alice"]}),
    )
    .await;
    assert_ne!(anew["id"], direct.as_str());
    server.assert_healthy().await;
}

#[tokio::test]
async fn an_export_has_the_persons_own_words() {
    let server = server();
    let ids = talked(&server).await;
    let told = lines(&server, "bob", &tokens::user("bob")).await;
    let mut contents: Vec<&str> = of(&told, "message")
        .iter()
        .filter_map(|line| line["message"]["content"].as_str())
        .collect();
    contents.sort_unstable();
    let mut expected = ["canary-0", "canary-1", "canary-2"].repeat(2);
    expected.sort_unstable();
    assert_eq!(contents, expected);
    let conversations: Vec<&str> = of(&told, "membership")
        .iter()
        .filter_map(|line| line["conversation"]["id"].as_str())
        .collect();
    assert_eq!(conversations.len(), 2);
    assert!(ids.iter().all(|id| conversations.contains(&id.as_str())));
}

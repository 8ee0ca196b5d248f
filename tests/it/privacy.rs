//! Who may know what of whom, live: the audience of presence by conversations, and what users chose to hide.
//!
//! Promises: every sentence is looked at from both sides, those who are told and those who are not. What is stored and
//! exported is elsewhere.

use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::{Options, Server, spawn};
use crate::reader::{Ask, Reader, Transport, open};
use crate::tokens;

async fn live(server: &Server, user: &str) -> Reader {
    let mut reader = open(server, Transport::Sse, &Ask::user(user)).await;
    reader.next_of(Kind::Live).await;
    reader
}

fn server() -> Server {
    spawn(
        Options::new()
            .set("presence.offline_after_seconds", 3600)
            .set("typing.clear_seconds", 3600),
    )
}

fn of_presence(told: &[Value]) -> Vec<&Value> {
    let is_presence = |signal: &&Value| signal["type"] == "presence.changed";
    told.iter().filter(is_presence).collect()
}

#[tokio::test]
async fn those_who_share_a_conversation_are_told_and_others_are_not() {
    let server = server();
    let id = server.conversation(&["alice", "bob"]).await;
    let mut alice = live(&server, "alice").await;
    let mut carol = live(&server, "carol").await;
    let mut bob = live(&server, "bob").await;
    alice.sees("bob", "online").await;
    server
        .set_presence("bob", &json!({"status": "busy"}))
        .await
        .expect(200);
    alice.sees("bob", "busy").await;
    let strange = carol.until_mark(&server, "carol").await;
    assert!(strange.is_empty(), "{strange:?}");
    // From the moment on at which they share one they hear of each other.
    let path = format!(
        "/v1/conversations/{}/members/carol",
        group(&server, &["alice", "bob"]).await
    );
    let joined = server.call("PUT", &path).token(&tokens::publisher());
    assert!((200..300).contains(&joined.send().await.status));
    carol.sees("bob", "busy").await;
    bob.sees("carol", "online").await;
    assert_eq!(server.presence("carol", "bob").await["status"], "busy");
    drop(id);
}

async fn group(server: &Server, members: &[&str]) -> String {
    let body = json!({"members": members, "name": "a group"});
    let call = server.post("/v1/conversations").token(&tokens::publisher());
    let made = call.json(&body).send().await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_very_large_conversation_spreads_no_presence() {
    let server = server();
    let names: Vec<String> = (0..257).map(|number| format!("user-{number}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    group(&server, &all).await;
    let mut first = live(&server, "user-0").await;
    let _second = live(&server, "user-1").await;
    let seen = server.presence("user-0", "user-1").await;
    assert_eq!(seen["status"], "offline", "{seen}");
    let told = first.until_mark(&server, "user-0").await;
    assert!(of_presence(&told).is_empty(), "{told:?}");
    group(&server, &all[..256]).await;
    first.sees("user-1", "online").await;
}

#[tokio::test]
async fn nobody_learns_of_strangers_not_even_whether_they_exist() {
    let server = server();
    let _bob = live(&server, "bob").await;
    let busy = json!({"status": "busy", "activity": "secret"});
    server.set_presence("bob", &busy).await.expect(200);
    let ask = |user: &str, token: &str| {
        let path = format!("/v1/presence?users={user}");
        server.get(&path).token(token).send()
    };
    let token = tokens::user("alice");
    let (known, unknown) = (ask("bob", &token).await, ask("nob", &token).await);
    assert_eq!((known.status, unknown.status), (200, 200));
    assert_eq!(known.text().replace("bob", "nob"), unknown.text());
    let nobody = json!({"status": "offline", "activity": null, "last_seen": null});
    assert_eq!(known.json()["presence"]["bob"], nobody);
    for (user, token) in [("bob", tokens::user("bob")), ("bob", tokens::publisher())] {
        let told = ask(user, &token).await.expect(200);
        assert_eq!(told["presence"][user]["status"], "busy", "{told}");
    }
    let several = ask("bob,alice,x", &tokens::admin()).await.expect(200);
    let names: Vec<&String> = several["presence"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["alice", "bob", "x"]);
}

#[tokio::test]
async fn a_hidden_user_looks_offline_to_everyone_but_itself() {
    let server = server();
    server.conversation(&["alice", "bob"]).await;
    let mut alice = live(&server, "alice").await;
    let _bob = live(&server, "bob").await;
    alice.sees("bob", "online").await;
    server
        .prefer("bob", &json!({"presence_visible": false}))
        .await;
    let nobody = json!({"status": "offline", "activity": null, "last_seen": null});
    assert_eq!(server.presence("alice", "bob").await, nobody);
    let told = alice.sees("bob", "offline").await;
    assert!(told["last_seen"].is_null(), "{told}");
    assert_eq!(server.presence("bob", "bob").await["status"], "online");
    let busy = json!({"status": "busy"});
    assert_eq!(
        server.set_presence("bob", &busy).await.expect(200)["status"],
        "busy"
    );
    let admin = server.get("/v1/presence?users=bob").token(&tokens::admin());
    assert_eq!(admin.send().await.expect(200)["presence"]["bob"], nobody);
    let mut late = open(&server, Transport::Sse, &Ask::user("alice")).await;
    let picture = late.heard("presence.changed").await["data"].take();
    assert_eq!(
        (&picture["status"], &picture["last_seen"]),
        (&json!("offline"), &Value::Null)
    );
    let told = alice.until_mark(&server, "alice").await;
    assert!(of_presence(&told).is_empty(), "{told:?}");
    server
        .prefer("bob", &json!({"presence_visible": true}))
        .await;
    alice.sees("bob", "busy").await;
}

#[tokio::test]
async fn nothing_is_told_of_the_typing_of_one_who_turned_it_off() {
    let server = server();
    let id = server.conversation(&["alice", "bob", "carol"]).await;
    let mut alice = live(&server, "alice").await;
    let start = json!({"state": "start"});
    let types = async |user: &str| {
        let reply = server.in_conversation(user, (&id, "typing"), &start).await;
        assert_eq!(reply.status, 204, "{reply:?}");
    };
    types("bob").await;
    alice.heard("typing.start").await;
    server
        .prefer("bob", &json!({"typing_visible": false}))
        .await;
    alice.heard("typing.stop").await;
    types("bob").await;
    types("carol").await;
    let next = alice.heard("typing.start").await;
    assert_eq!(next["data"]["user"], "carol", "{next}");
    let page = server.page("carol", "wait=0").await;
    assert!(
        !page["ephemeral"].to_string().contains("bob\",\"user\""),
        "{page}"
    );
    let typing = page["ephemeral"].as_array().unwrap().iter();
    let typing = typing
        .filter(|signal| signal["type"] == "typing.start")
        .count();
    assert_eq!(typing, 0, "{page}");
}

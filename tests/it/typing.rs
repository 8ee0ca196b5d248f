//! PROTOCOL.md section 6, typing: its three clocks, who is told, and what stops it.
//!
//! Promises: clocks are configured small where they must run down, and so large that they cannot where something else
//! must act. The order of starts and stops is held by the unit tests of the rules.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::{Options, Server, spawn};
use crate::reader::{Ask, Reader, Transport, open};

/// A server with these clocks, and a conversation of alice, bob and carol.
async fn typing_server(repeat: f64, clear: f64) -> (Server, String) {
    let server = spawn(
        Options::new()
            .set("typing.repeat_seconds", repeat)
            .set("typing.clear_seconds", clear),
    );
    let conversation = server.conversation(&["alice", "bob", "carol"]).await;
    (server, conversation)
}

async fn live(server: &Server, transport: Transport, user: &str) -> Reader {
    let mut reader = open(server, transport, &Ask::user(user)).await;
    reader.next_of(Kind::Live).await;
    reader
}

async fn types(server: &Server, user: &str, conversation: &str, state: &str) {
    let body = json!({ "state": state });
    let reply = server
        .in_conversation(user, (conversation, "typing"), &body)
        .await;
    assert_eq!((reply.status, reply.body.len()), (204, 0), "{reply:?}");
}

fn of_typing(told: Vec<Value>) -> Vec<Value> {
    let is_typing = |signal: &Value| signal["type"].as_str().unwrap_or("").starts_with("typing.");
    told.into_iter().filter(is_typing).collect()
}

#[tokio::test]
async fn the_other_members_hear_a_start_and_a_stop() {
    let (server, id) = typing_server(3600.0, 3600.0).await;
    let mut alice = live(&server, Transport::Sse, "alice").await;
    let mut bob = live(&server, Transport::Sse, "bob").await;
    let mut dave = live(&server, Transport::Sse, "dave").await;
    for transport in Transport::OPEN {
        let typist = format!("typist-{transport:?}").to_lowercase();
        let id = server.conversation(&["alice", "bob", &typist]).await;
        types(&server, &typist, &id, "start").await;
        let start = alice.heard("typing.start").await;
        assert_eq!(
            start["data"],
            json!({"conversation_id": id, "user": typist}),
            "{start}"
        );
        assert_eq!(start["topic"], format!("conversation:{id}"), "{start}");
        assert_eq!(
            (&start["actor"]["id"], &start["ttl_ms"]),
            (&json!(typist), &json!(3_600_000))
        );
        assert_eq!(start["ephemeral"], true, "{start}");
        bob.heard("typing.start").await;
        types(&server, &typist, &id, "stop").await;
        let stop = alice.heard("typing.stop").await;
        assert_eq!(
            (&stop["data"], &stop["topic"]),
            (&start["data"], &start["topic"]),
            "{stop}"
        );
    }
    types(&server, "bob", &id, "start").await;
    alice.heard("typing.start").await;
    let own = of_typing(bob.until_mark(&server, "bob").await);
    assert!(
        !own.iter().any(|signal| signal["data"]["user"] == "bob"),
        "{own:?}"
    );
    let strange = dave.until_mark(&server, "dave").await;
    assert!(strange.is_empty(), "{strange:?}");
    let page = server.page("alice", "cursor=start&wait=0").await;
    assert!(
        !page["events"].to_string().contains("typing."),
        "nothing of it is logged"
    );
}

#[tokio::test]
async fn repeats_too_soon_are_swallowed_and_the_server_stops_what_nobody_stops() {
    let (server, id) = typing_server(0.9, 1.0).await;
    let mut alice = live(&server, Transport::Sse, "alice").await;
    let started = Instant::now();
    for _ in 0..10 {
        types(&server, "bob", &id, "start").await;
    }
    let asked_in = started.elapsed();
    let start = alice.heard("typing.start").await;
    assert_eq!(start["ttl_ms"], 1000, "{start}");
    let mut told = Vec::new();
    loop {
        let signal = alice.next_of(Kind::Signal).await.json;
        match signal["type"].as_str() {
            Some("typing.stop") => break,
            Some("typing.start") => told.push(signal),
            _ => {}
        }
    }
    assert!(
        started.elapsed() >= Duration::from_millis(950),
        "stopped too soon"
    );
    let turns = asked_in.as_millis() / 900;
    assert!(
        told.len() as u128 <= turns,
        "{} more starts in {asked_in:?}",
        told.len()
    );
}

#[tokio::test]
async fn typing_is_never_refused_for_its_rate_and_uses_up_no_writes() {
    let options = Options::new()
        .set("limits.user_writes_per_second", 1)
        .set("limits.user_writes_burst", 1);
    let server = spawn(options);
    let id = server.conversation(&["alice", "bob"]).await;
    for _ in 0..20 {
        types(&server, "bob", &id, "start").await;
        types(&server, "bob", &id, "stop").await;
    }
    let status = json!({"status": "busy"});
    server.set_presence("bob", &status).await.expect(200);
    server.set_presence("bob", &status).await.refused(&[429]);
}

#[tokio::test]
async fn the_last_disconnect_stops_it_and_an_earlier_one_does_not() {
    let (server, id) = typing_server(3600.0, 3600.0).await;
    let mut alice = live(&server, Transport::Sse, "alice").await;
    let first = live(&server, Transport::Socket, "bob").await;
    let second = live(&server, Transport::Sse, "bob").await;
    types(&server, "bob", &id, "start").await;
    alice.heard("typing.start").await;
    drop(first);
    types(&server, "carol", &id, "start").await;
    let carol = alice.heard("typing.start").await;
    assert_eq!(carol["data"]["user"], "carol", "{carol}");
    drop(second);
    let stop = alice.heard("typing.stop").await;
    assert_eq!(stop["data"]["user"], "bob", "{stop}");
}

#[tokio::test]
async fn a_message_stops_it() {
    let (server, id) = typing_server(3600.0, 3600.0).await;
    let mut alice = live(&server, Transport::Sse, "alice").await;
    types(&server, "bob", &id, "start").await;
    alice.heard("typing.start").await;
    let message = json!({"content": "done"});
    let sent = server
        .in_conversation("bob", (&id, "messages"), &message)
        .await;
    sent.expect(201);
    let stop = alice.heard("typing.stop").await;
    assert_eq!(stop["data"]["user"], "bob", "{stop}");
}

#[tokio::test]
async fn who_connects_is_told_who_types_now() {
    let (server, id) = typing_server(3600.0, 3600.0).await;
    let mut carol = live(&server, Transport::Sse, "carol").await;
    for user in ["alice", "bob"] {
        types(&server, user, &id, "start").await;
        carol.heard("typing.start").await;
    }
    types(&server, "bob", &id, "stop").await;
    carol.heard("typing.stop").await;
    for transport in Transport::OPEN {
        let mut late = open(&server, transport, &Ask::user("carol")).await;
        let mut told = Vec::new();
        loop {
            let delivery = late.next().await;
            match delivery.kind {
                Kind::Signal => told.push(delivery.json),
                Kind::Live => break,
                _ => {}
            }
        }
        let told = of_typing(told);
        assert_eq!(told.len(), 1, "{transport:?}: {told:?}");
        let start = &told[0];
        assert_eq!(
            (&start["type"], &start["data"]["user"]),
            (&json!("typing.start"), &json!("alice"))
        );
        let ttl_ms = start["ttl_ms"].as_u64().unwrap();
        assert!(
            (1..=3_600_000).contains(&ttl_ms),
            "what is left of it: {start}"
        );
    }
    let page = server.page("carol", "wait=0").await;
    let told = of_typing(page["ephemeral"].as_array().unwrap().clone());
    assert_eq!(told.len(), 1, "{page}");
    let own = server.page("alice", "wait=0").await;
    let told = of_typing(own["ephemeral"].as_array().unwrap().clone());
    assert!(told.is_empty(), "nobody is told of itself: {own}");
}

#[tokio::test]
async fn who_left_hears_nothing_and_types_nowhere() {
    let (server, id) = typing_server(0.01, 3600.0).await;
    let mut alice = live(&server, Transport::Sse, "alice").await;
    let mut carol = live(&server, Transport::Sse, "carol").await;
    let path = format!("/v1/conversations/{id}/members/carol");
    let left = server
        .call("DELETE", &path)
        .token(&crate::tokens::publisher());
    assert!((200..300).contains(&left.send().await.status));
    types(&server, "bob", &id, "start").await;
    alice.heard("typing.start").await;
    let told = of_typing(carol.until_mark(&server, "carol").await);
    assert!(told.is_empty(), "{told:?}");
    let start = json!({"state": "start"});
    let refused = server
        .in_conversation("carol", (&id, "typing"), &start)
        .await;
    assert_eq!(refused.refused(&[404]), "not_found");
}

#[tokio::test]
async fn strangers_and_bad_input_are_refused_alike_over_http_and_sockets() {
    let (server, id) = typing_server(2.0, 5.0).await;
    let start = json!({"state": "start"});
    let mut bodies = Vec::new();
    for conversation in [id.as_str(), "0199f2c4-0000-7000-8000-000000000000"] {
        let refused = server
            .in_conversation("dave", (conversation, "typing"), &start)
            .await;
        assert_eq!(refused.status, 404, "{conversation}: {refused:?}");
        let mut problem = refused.json();
        problem["request_id"] = Value::Null;
        bodies.push(problem);
    }
    for malformed in ["no%20such", "a.b"] {
        let path = (malformed, "typing");
        let refused = server.in_conversation("dave", path, &start).await;
        assert_eq!(refused.refused(&[400]), "invalid_conversation_id");
    }
    bodies.dedup();
    assert_eq!(
        bodies.len(),
        1,
        "a stranger is told what all are told: {bodies:?}"
    );
    let mut socket = live(&server, Transport::Socket, "bob").await;
    for (body, code) in [
        (json!({}), "invalid_json"),
        (json!({"state": "begin"}), "invalid_state"),
        (json!({"state": true}), "invalid_json"),
    ] {
        let refused = server.in_conversation("bob", (&id, "typing"), &body).await;
        assert_eq!(refused.refused(&[400]), code, "{body}");
        let mut op = body.clone();
        (op["op"], op["conversation"]) = (json!("typing"), json!(id));
        assert_eq!(socket.ask(op).await["code"], code, "{body}");
    }
    let unknown = json!({"op": "typing", "conversation": "nowhere", "state": "start"});
    assert_eq!(socket.ask(unknown).await["code"], "not_found");
    let mut alice = live(&server, Transport::Sse, "alice").await;
    let op = json!({"op": "typing", "conversation": id, "state": "start"});
    assert_eq!(socket.ask(op).await["data"], json!({}));
    assert_eq!(alice.heard("typing.start").await["data"]["user"], "bob");
    let path = format!("/v1/conversations/{id}/typing");
    server.post(&path).json(&start).send().await.refused(&[401]);
    server.assert_healthy().await;
}

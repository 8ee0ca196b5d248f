//! PROTOCOL.md section 5, signals: live values to the other members, the latest one wins, none of them is stored.
//!
//! Promises: floods are sent as fast as the server answers, so that nothing depends on its speed; the pace itself is
//! held by the unit tests of the rules.

use std::time::Instant;

use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::{Options, Server, spawn};
use crate::reader::{Ask, Reader, Transport, open};
use crate::tokens;

async fn live(server: &Server, transport: Transport, user: &str) -> Reader {
    let mut reader = open(server, transport, &Ask::user(user)).await;
    reader.next_of(Kind::Live).await;
    reader
}

async fn tell(server: &Server, user: &str, conversation: &str, body: &Value) {
    let reply = server
        .in_conversation(user, (conversation, "signals"), body)
        .await;
    assert_eq!((reply.status, reply.body.len()), (204, 0), "{reply:?}");
}

#[tokio::test]
async fn the_other_members_hear_the_value_as_it_was_sent() {
    let server = spawn(Options::new());
    let id = server.conversation(&["alice", "bob", "carol"]).await;
    let mut alice = live(&server, Transport::Sse, "alice").await;
    let mut carol = live(&server, Transport::Socket, "carol").await;
    let mut bob = live(&server, Transport::Sse, "bob").await;
    let mut dave = live(&server, Transport::Sse, "dave").await;
    let raw = r#"{"kind":"cursor_2-x","data":{"x":0.10,"big":12345678901234567890,"e":1e2,"z":"ä\u0000"}}"#;
    let path = format!("/v1/conversations/{id}/signals");
    let call = server.post(&path).token(&tokens::user("bob"));
    assert_eq!(call.body("application/json", raw).send().await.status, 204);
    for reader in [&mut alice, &mut carol] {
        let told = loop {
            let delivery = reader.next_of(Kind::Signal).await;
            if delivery.json["type"] == "signal.cursor_2-x" {
                break delivery;
            }
        };
        let data = r#""data":{"x":0.10,"big":12345678901234567890,"e":1e2,"z":"ä\u0000"}"#;
        assert!(told.raw.contains(data), "{:?}", told.raw);
        assert_eq!(told.json["topic"], format!("conversation:{id}"));
        assert_eq!(told.json["actor"], json!({"id": "bob"}));
    }
    let without = json!({"kind": "poke"});
    tell(&server, "bob", &id, &without).await;
    assert_eq!(alice.heard("signal.poke").await["data"], Value::Null);
    for (reader, user) in [(&mut bob, "bob"), (&mut dave, "dave")] {
        let told = reader.until_mark(&server, user).await;
        let signals: Vec<&Value> = told
            .iter()
            .filter(|signal| signal["type"].as_str().unwrap_or("").starts_with("signal."))
            .collect();
        assert!(signals.is_empty(), "{user}: {signals:?}");
    }
    let page = server.page("alice", "cursor=start&wait=0").await;
    assert!(
        !page["events"].to_string().contains("signal."),
        "nothing of it is logged"
    );
}

#[tokio::test]
async fn a_flood_is_never_refused_comes_in_few_frames_and_its_last_value_always_arrives() {
    let options = Options::new()
        .set("limits.user_writes_per_second", 1)
        .set("limits.user_writes_burst", 1);
    let server = spawn(options);
    let id = server.conversation(&["alice", "bob"]).await;
    let mut alice = live(&server, Transport::Sse, "alice").await;
    let mut bob = live(&server, Transport::Socket, "bob").await;
    let started = Instant::now();
    for number in 1..=500 {
        for kind in ["cursor", "drawing"] {
            let data = json!({ "n": number });
            let op = json!({"op": "signal", "conversation": id, "kind": kind, "data": data});
            bob.socket().send_text(&op.to_string()).await;
        }
    }
    let reply = bob.ask(json!({"op": "ping"})).await;
    assert_eq!(
        reply["type"], "sys.reply",
        "none of them was refused: {reply}"
    );
    let mut told = [Vec::new(), Vec::new()];
    while told.iter().any(|told| told.last() != Some(&500)) {
        let signal = alice.next_of(Kind::Signal).await.json;
        let number = signal["data"]["n"].as_u64();
        match signal["type"].as_str() {
            Some("signal.cursor") => told[0].push(number.unwrap()),
            Some("signal.drawing") => told[1].push(number.unwrap()),
            _ => {}
        }
    }
    let paces = started.elapsed().as_millis() as usize / 50;
    for told in told {
        assert!(
            told.len() <= paces + 2,
            "{} frames in {paces} paces",
            told.len()
        );
        assert!(told.is_sorted(), "{told:?}");
    }
}

#[tokio::test]
async fn who_left_hears_nothing_and_tells_nothing() {
    let server = spawn(Options::new());
    let id = server.conversation(&["alice", "bob", "carol"]).await;
    let mut alice = live(&server, Transport::Sse, "alice").await;
    let mut carol = live(&server, Transport::Sse, "carol").await;
    let value = json!({"kind": "cursor", "data": 1});
    tell(&server, "bob", &id, &value).await;
    carol.heard("signal.cursor").await;
    let path = format!("/v1/conversations/{id}/members/carol");
    let left = server.call("DELETE", &path).token(&tokens::publisher());
    assert!((200..300).contains(&left.send().await.status));
    tell(&server, "bob", &id, &json!({"kind": "last", "data": 2})).await;
    alice.heard("signal.last").await;
    let told = carol.until_mark(&server, "carol").await;
    assert!(
        !told.iter().any(|signal| signal["type"] == "signal.last"),
        "{told:?}"
    );
    let refused = server
        .in_conversation("carol", (&id, "signals"), &value)
        .await;
    assert_eq!(refused.refused(&[404]), "not_found");
}

#[tokio::test]
async fn strangers_and_bad_input_are_refused_alike_over_http_and_sockets() {
    let server = spawn(Options::new());
    let id = server.conversation(&["alice", "bob"]).await;
    let good = json!({"kind": "cursor", "data": 1});
    let mut bodies = Vec::new();
    for conversation in [id.as_str(), "0199f2c4-0000-7000-8000-000000000000"] {
        let refused = server
            .in_conversation("dave", (conversation, "signals"), &good)
            .await;
        assert_eq!(refused.status, 404, "{conversation}: {refused:?}");
        let mut problem = refused.json();
        problem["request_id"] = Value::Null;
        bodies.push(problem);
    }
    for malformed in ["no%20such", "a.b"] {
        let path = (malformed, "signals");
        let refused = server.in_conversation("dave", path, &good).await;
        assert_eq!(refused.refused(&[400]), "invalid_conversation_id");
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let mut socket = live(&server, Transport::Socket, "bob").await;
    let path = format!("/v1/conversations/{id}/signals");
    let kind = |kind: &str| format!(r#""kind":"{kind}","data":1"#);
    for (fields, code, statuses) in [
        (String::new(), "invalid_json", [400]),
        (kind(""), "invalid_kind", [400]),
        (kind("A"), "invalid_kind", [400]),
        (kind("a.b"), "invalid_kind", [400]),
        (kind(&"x".repeat(33)), "invalid_kind", [400]),
        (r#""kind":5,"data":1"#.to_owned(), "invalid_json", [400]),
        (
            r#""kind":"a","data":{"b":1,"b":2}"#.to_owned(),
            "invalid_data",
            [400],
        ),
        (
            format!(r#""kind":"a","data":"{}""#, "x".repeat(4095)),
            "signal_too_large",
            [413],
        ),
    ] {
        let call = server.post(&path).token(&tokens::user("bob"));
        let refused = call
            .body("application/json", format!("{{{fields}}}"))
            .send()
            .await;
        assert_eq!(refused.refused(&statuses), code, "{fields}");
        let comma = if fields.is_empty() { "" } else { "," };
        let op = format!(r#"{{"op":"signal","ref":"r","conversation":"{id}"{comma}{fields}}}"#);
        socket.socket().send_text(&op).await;
        assert_eq!(
            socket.next_of(Kind::Error).await.json["code"],
            code,
            "{fields}"
        );
    }
    let fits = json!({"kind": "a", "data": "x".repeat(4094)});
    tell(&server, "bob", &id, &fits).await;
    let unknown = json!({"op": "signal", "conversation": "nowhere", "kind": "a", "data": 1});
    assert_eq!(socket.ask(unknown).await["code"], "not_found");
    server.post(&path).json(&good).send().await.refused(&[401]);
    server.assert_healthy().await;
}

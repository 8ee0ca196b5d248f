//! PROTOCOL.md sections 5 and 6, messages: numbered, told to every member, read back in pages, taken back.
//!
//! Promises: what one transport sends every transport reads; what a repeat must not do is looked for in every log. Unread
//! counts are those of the badge, of the conversation and of the state alike.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::{eventually, spawn};
use crate::reader::{Ask, Transport, open};
use crate::talk::{command, contents, listen, next_event, options, server};
use crate::tokens;

#[tokio::test]
async fn a_message_reaches_every_member_on_every_transport() {
    let server = server();
    let id = server.group(&["alice", "bob"], Some("Tea")).await;
    for (n, transport) in (1..).zip(Transport::ALL) {
        let mut sender = listen(&server, transport, "alice").await;
        let mut reader = listen(&server, transport, "bob").await;
        let body = json!({"content": "a \"b\"\n👍", "client_id": format!("c-{n}"), "data": {"large": 18446744073709551615u64, "at": [1.5, null]}});
        let sent = server.post_message("alice", &id, &body).await.expect(201);
        assert_eq!(
            (&sent["n"], &sent["conversation_id"]),
            (&json!(n), &json!(id))
        );
        assert_eq!(
            (&sent["sender"], &sent["status"]),
            (&json!("alice"), &json!("sent"))
        );
        for name in ["content", "client_id", "data"] {
            assert_eq!(sent[name], body[name], "{name}");
        }
        for reader in [&mut sender, &mut reader] {
            let event = next_event(reader, "message.new").await;
            assert_eq!(event.json["data"], sent, "{transport:?}");
            assert_eq!(
                event.json["id"], sent["id"],
                "the event has the message's id"
            );
            assert_eq!(event.json["topic"], format!("conversation:{id}"));
            assert_eq!(event.json["actor"]["id"], "alice");
            assert_eq!(event.json["time"], sent["time"]);
        }
    }
}

#[tokio::test]
async fn data_comes_out_with_the_bytes_that_went_in() {
    let server = server();
    let id = server.direct("alice", "bob").await;
    let data = r#"{"z":100000000000000000000001,"a":1.50,"e":1e3}"#;
    let path = format!("/v1/conversations/{id}/messages");
    let body = format!(r#"{{"content":"x","data":{data}}}"#);
    let call = server
        .of("alice", "POST", &path)
        .body("application/json", body);
    let sent = call.send().await;
    assert!(sent.text().contains(data), "{}", sent.text());
    let page = server.of("bob", "GET", &path).send().await;
    assert!(page.text().contains(data), "{}", page.text());
    let mut reader = open(
        &server,
        Transport::Sse,
        &Ask::user("bob").query("cursor=start"),
    )
    .await;
    let event = next_event(&mut reader, "message.new").await;
    assert!(event.raw.contains(data), "{}", event.raw);
}

#[tokio::test]
async fn the_socket_sends_and_reads_as_http_does() {
    let server = server();
    let id = server.direct("alice", "bob").await;
    let mut alice = listen(&server, Transport::Socket, "alice").await;
    let send = json!({"op": "send", "conversation": id, "content": "hi", "client_id": "c-1"});
    let first = command(&mut alice, send.clone()).await["data"].clone();
    assert_eq!(
        (&first["n"], &first["client_id"]),
        (&json!(1), &json!("c-1"))
    );
    // A repeat over the other transport is the same repeat.
    let body = json!({"content": "hi", "client_id": "c-1"});
    let again = server.post_message("alice", &id, &body).await.expect(200);
    assert_eq!(
        (&again["id"], &again["duplicate"]),
        (&first["id"], &json!(true))
    );
    let again = command(&mut alice, send).await["data"].clone();
    assert_eq!(
        (&again["id"], &again["duplicate"]),
        (&first["id"], &json!(true))
    );
    let mut bob = listen(&server, Transport::Socket, "bob").await;
    let read = json!({"op": "read", "conversation": id, "upto": 1});
    let reply = command(&mut bob, read).await["data"].clone();
    assert_eq!(
        reply,
        json!({"conversation_id": id, "upto": 1, "unread": 0})
    );
    let http = server
        .read("bob", &id, &json!({"upto": 1}))
        .await
        .expect(200);
    assert_eq!(http, reply);
}

#[tokio::test]
async fn the_socket_refuses_what_http_refuses() {
    let server = server();
    let id = server.direct("alice", "bob").await;
    let body = json!({"content": "hi", "client_id": "c-1"});
    server.post_message("alice", &id, &body).await.expect(201);
    let mut alice = listen(&server, Transport::Socket, "alice").await;
    let ids: Vec<Value> = (0..1001).map(|n| json!(format!("m-{n}"))).collect();
    let text = "x".repeat(8_001);
    for (op, path, body) in [
        ("send", "messages", json!({"content": ""})),
        ("send", "messages", json!({ "content": text })),
        ("send", "messages", json!({})),
        (
            "send",
            "messages",
            json!({"content": "hi", "client_id": "a b"}),
        ),
        (
            "send",
            "messages",
            json!({"content": "ho", "client_id": "c-1"}),
        ),
        ("read", "read", json!({})),
        ("read", "read", json!({"upto": 2})),
        ("read", "read", json!({"upto": -1})),
        ("read", "read", json!({"upto": 1, "message_ids": ["m-1"]})),
        ("read", "read", json!({"message_ids": ["m-1"]})),
        ("read", "read", json!({"message_ids": []})),
        ("read", "read", json!({ "message_ids": ids })),
    ] {
        let path = format!("/v1/conversations/{id}/{path}");
        let http = server.of("alice", "POST", &path).json(&body).send().await;
        assert!(http.status >= 400, "{op} {body}: {http:?}");
        let mut twin = body.clone();
        twin["op"] = op.into();
        twin["conversation"] = id.clone().into();
        let reply = command(&mut alice, twin).await;
        assert_eq!(reply["type"], "sys.error", "{op} {body}: {reply}");
        assert_eq!(reply["code"], http.code(), "{op} {body}");
    }
    let mut eve = listen(&server, Transport::Socket, "eve").await;
    for body in [
        json!({"op": "send", "conversation": id, "content": "x"}),
        json!({"op": "read", "conversation": id, "upto": 1}),
        json!({"op": "send", "conversation": "none", "content": "x"}),
    ] {
        assert_eq!(command(&mut eve, body).await["code"], "not_found");
    }
}

#[tokio::test]
async fn a_repeat_appends_nothing_also_after_a_crash() {
    let mut server = server();
    let id = server.direct("alice", "bob").await;
    let other = server.direct("alice", "carol").await;
    let body = json!({"content": "once", "client_id": "c-1"});
    let first = server.post_message("alice", &id, &body).await.expect(201);
    let keyed = |server: &crate::harness::Server, body: &Value| {
        let path = format!("/v1/conversations/{id}/messages");
        let call = server.of("alice", "POST", &path).json(body);
        call.header("idempotency-key", "k-1").send()
    };
    let plain = json!({"content": "keyed"});
    let second = keyed(&server, &plain).await.expect(201);
    for _ in 0..2 {
        let again = server.post_message("alice", &id, &body).await.expect(200);
        assert_eq!((&again["id"], &again["n"]), (&first["id"], &json!(1)));
        assert_eq!(again["duplicate"], true);
        let again = keyed(&server, &plain).await.expect(200);
        assert_eq!(
            (&again["id"], &again["duplicate"]),
            (&second["id"], &json!(true))
        );
        server.kill9();
        server.restart();
    }
    let changed = json!({"content": "twice", "client_id": "c-1"});
    let reply = server.post_message("alice", &id, &changed).await;
    assert_eq!(reply.refused(&[422]), "idempotency_mismatch");
    assert_eq!(
        keyed(&server, &changed).await.refused(&[422]),
        "idempotency_mismatch"
    );
    // Another sender and another conversation have keys of their own.
    server.post_message("bob", &id, &changed).await.expect(201);
    server
        .post_message("alice", &other, &changed)
        .await
        .expect(201);
    let page = server.history("bob", &id, "").await;
    assert_eq!(contents(&page), ["once", "keyed", "twice"]);
    let log = server.log_of("bob").await;
    let news = log
        .iter()
        .filter(|(event_type, _)| event_type == "message.new");
    assert_eq!(news.count(), 3);
}

#[tokio::test]
async fn content_has_its_bounds() {
    let server = spawn(options().set("limits.event_bytes", 40_000));
    let id = server.direct("alice", "bob").await;
    let longest = "👍".repeat(8_000);
    let sent = server.say("alice", &id, &longest).await;
    assert_eq!(sent["content"], longest);
    assert_eq!(contents(&server.history("bob", &id, "").await), [longest]);
    for (body, status, code) in [
        (json!({"content": ""}), 400, "invalid_content"),
        (
            json!({"content": "x".repeat(8_001)}),
            400,
            "invalid_content",
        ),
        (json!({"content": "a\u{0}b"}), 400, "invalid_content"),
        (json!({"content": 7}), 400, "invalid_json"),
        (json!({"content": "x", "client_id": ""}), 400, "invalid_key"),
        (
            json!({"content": "x", "sender": "bob"}),
            400,
            "invalid_json",
        ),
        (
            json!({"content": "x", "data": "y".repeat(40_000)}),
            413,
            "event_too_large",
        ),
    ] {
        let reply = server.post_message("alice", &id, &body).await;
        assert_eq!(reply.refused(&[status]), code);
    }
    let path = format!("/v1/conversations/{id}/messages");
    let twice = r#"{"content":"x","data":{"a":1,"a":2}}"#;
    let call = server
        .of("alice", "POST", &path)
        .body("application/json", twice);
    call.send().await.refused(&[400]);
    let plain = server.of("alice", "POST", &path).body("text/plain", "hi");
    plain.send().await.refused(&[415]);
    assert_eq!(
        server.seen("bob", &id).await["head"],
        1,
        "nothing else was stored"
    );
}

#[tokio::test]
async fn own_messages_are_never_unread_and_sending_is_not_reading() {
    let server = server();
    let id = server.direct("alice", "bob").await;
    let counts = async |user: &str| {
        let seen = server.seen(user, &id).await;
        (
            server.unread(user).await.0,
            seen["unread"].clone(),
            seen["read_upto"].clone(),
        )
    };
    server.say("alice", &id, "one").await;
    server.say("bob", &id, "two").await;
    server.say("alice", &id, "three").await;
    server.say("alice", &id, "four").await;
    assert_eq!(counts("alice").await, (1, json!(1), json!(0)));
    assert_eq!(counts("bob").await, (3, json!(3), json!(0)));
    server
        .read("bob", &id, &json!({"upto": 3}))
        .await
        .expect(200);
    assert_eq!(counts("bob").await, (1, json!(1), json!(3)));
    let reply = server
        .read("bob", &id, &json!({"upto": 1}))
        .await
        .expect(200);
    assert_eq!(
        reply,
        json!({"conversation_id": id, "upto": 3, "unread": 1}),
        "never back"
    );
    let page = server.history("alice", &id, "").await;
    let one = page["messages"][1]["id"].clone();
    server
        .read("alice", &id, &json!({"message_ids": [one]}))
        .await
        .expect(200);
    assert_eq!(counts("alice").await, (0, json!(0), json!(2)));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let server = server();
    let id = server.direct("alice", "bob").await;
    let other = server.direct("alice", "carol").await;
    let here = server.say("alice", &id, "here").await["id"].clone();
    let there = server.say("alice", &other, "there").await["id"].clone();
    let ids = |count: usize| vec![here.clone(); count];
    for (body, status, code) in [
        (json!({"upto": 2}), 409, "ahead_of_head"),
        (json!({"message_ids": ["none"]}), 404, "not_found"),
        (json!({"message_ids": [here, there]}), 404, "not_found"),
        (json!({"message_ids": ids(1001)}), 400, "too_many_ids"),
        (json!({"message_ids": []}), 400, "invalid_read"),
        (json!({}), 400, "invalid_read"),
        (
            json!({"upto": 1, "message_ids": ids(1)}),
            400,
            "invalid_read",
        ),
        (json!({"upto": 1.5}), 400, "invalid_json"),
        (json!({"upto": "1"}), 400, "invalid_json"),
        (json!({"message_ids": ["a b"]}), 400, "invalid_id"),
    ] {
        let reply = server.read("bob", &id, &body).await;
        assert_eq!(reply.refused(&[status]), code, "{body}");
    }
    assert_eq!(server.unread("bob").await, (1, 1), "nothing was half read");
    let reply = server
        .read("bob", &id, &json!({"message_ids": ids(1000)}))
        .await;
    assert_eq!(reply.expect(200)["upto"], 1);
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let mut server = server();
    let id = server.group(&["alice", "bob"], Some("Tea")).await;
    for n in 1..=3 {
        server.say("alice", &id, &n.to_string()).await;
    }
    server
        .read("bob", &id, &json!({"upto": 2}))
        .await
        .expect(200);
    let look = async |server: &crate::harness::Server| {
        let mut state = server.state("bob").await;
        state["cursor"] = Value::Null;
        (
            state,
            server.history("bob", &id, "").await,
            server.seen("bob", &id).await,
        )
    };
    eventually("the read is told", async || {
        server
            .log_of("alice")
            .await
            .iter()
            .any(|(kind, _)| kind == "message.read")
    })
    .await;
    let before = look(&server).await;
    server.kill9();
    server.restart();
    assert_eq!(look(&server).await, before);
    assert_eq!(server.say("alice", &id, "next").await["n"], 4);
}

#[tokio::test]
async fn a_message_to_a_thousand_members_is_one_body_and_a_right_badge_for_each() {
    let server = server();
    let id = crowd(&server, 1000).await;
    let mut readers = Vec::new();
    for (n, transport) in [
        (1, Transport::Sse),
        (2, Transport::Ndjson),
        (3, Transport::Socket),
    ] {
        readers.push((n, listen(&server, transport, &format!("user-{n}")).await));
    }
    let before: f64 = stored(&server).await;
    let started = Instant::now();
    let sent = server.say("user-0", &id, "to all").await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "one message took {took:?}");
    assert_eq!(
        stored(&server).await - before,
        1.0,
        "one event is stored, however many logs have it"
    );
    for (n, reader) in &mut readers {
        let (mut has_event, mut badge) = (false, Value::Null);
        while !has_event || badge["messages"] != 1 {
            let delivery = reader.next().await;
            match delivery.kind {
                Kind::Event if delivery.str("type") == "message.new" => {
                    assert_eq!(delivery.json["data"]["id"], sent["id"]);
                    has_event = true;
                }
                Kind::Signal if delivery.str("type") == "badge" => {
                    badge = delivery.json["data"].clone();
                }
                Kind::End | Kind::Bye => panic!("user-{n}: {delivery:?}"),
                _ => {}
            }
        }
        assert_eq!(
            (&badge["messages"], &badge["conversations"]),
            (&json!(1), &json!(1))
        );
    }
    assert_eq!(server.unread("user-0").await, (0, 0));
    for n in [1, 4, 31, 32, 399, 400, 401, 998, 999] {
        assert_eq!(
            server.unread(&format!("user-{n}")).await,
            (1, 1),
            "user-{n}"
        );
    }
}

/// A group of `user-0`, `user-1` and so on.
async fn crowd(server: &crate::harness::Server, count: usize) -> String {
    let members: Vec<String> = (0..count).map(|n| format!("user-{n}")).collect();
    let body = json!({"members": members, "name": "All"});
    let call = server.post("/v1/conversations").token(&tokens::publisher());
    let made = call.json(&body).send().await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn senders_in_a_crowd_are_shown_counts_and_no_log_grows() {
    let server = server();
    let id = crowd(&server, 100).await;
    server.say("user-0", &id, "to all").await;
    let mut sender = listen(&server, Transport::Sse, "user-0").await;
    for n in 1..=3 {
        server
            .read(&format!("user-{n}"), &id, &json!({"upto": 1}))
            .await
            .expect(200);
    }
    loop {
        let signal = sender.next_of(Kind::Signal).await;
        if signal.str("type") == "message.read" && signal.json["data"]["read_by"] == 3 {
            assert_eq!(signal.json["data"]["upto"], 1);
            break;
        }
    }
    let page = server.history("user-0", &id, "").await;
    let told = &page["messages"][0];
    assert_eq!(
        (&told["read_by"], &told["delivered_to"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(told["status"], "sent", "not all have it");
    let types: Vec<String> = server
        .log_of("user-0")
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(types, ["conversation.new", "message.new"]);
    server.assert_healthy().await;
}

/// Events stored since the start, however many logs they are in.
async fn stored(server: &crate::harness::Server) -> f64 {
    let metrics = server.metrics().await;
    let events = metrics
        .iter()
        .find(|(name, _)| name == "tidings_events_total");
    events.unwrap_or_else(|| panic!("{metrics:?}")).1
}

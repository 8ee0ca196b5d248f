//! PROTOCOL.md section 5: publish in all its forms, notify and ack.
//!
//! What is refused is looked for afterwards: nothing that is refused is half applied.

use serde_json::{Value, json};

use crate::client::Reply;
use crate::delivery::{Kind, epoch_of, seq_of};
use crate::harness::{Options, Server, spawn};
use crate::reader::{Ask, Transport, open};
use crate::tokens;
use crate::write::results;

async fn events_of(server: &Server, user: &str) -> Vec<Value> {
    let page = server.page(user, "cursor=start&wait=0&limit=1000").await;
    page["events"].as_array().unwrap().clone()
}

async fn publish_ndjson(server: &Server, lines: &str) -> Reply {
    let call = server.post("/v1/publish").token(&tokens::publisher());
    call.body("application/x-ndjson", lines.to_owned())
        .send()
        .await
}

#[tokio::test]
async fn one_event_for_one_user_tells_its_place() {
    let server = spawn(Options::new());
    let reply = server.note("alice", json!({"n": 1})).await;
    assert_eq!(reply["recipients"], 1, "{reply}");
    assert_eq!(
        (&reply["duplicate"], &reply["seq"]),
        (&json!(false), &json!(1)),
        "{reply}"
    );
    assert_eq!(seq_of(reply["cursor"].as_str().unwrap()), 1, "{reply}");
    let id = reply["id"].as_str().unwrap();
    assert_eq!(
        (id.len(), id.as_bytes()[14]),
        (36, b'7'),
        "an id made by the server is a UUIDv7: {id}"
    );
    let time = reply["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let event = &events_of(&server, "alice").await[0];
    for name in ["id", "time", "seq", "cursor"] {
        assert_eq!(event[name], reply[name], "{name}");
    }
}

#[tokio::test]
async fn many_users_get_one_event_each_in_their_own_log() {
    let server = spawn(Options::new());
    server.note("bob", json!("before")).await;
    let to = json!({"users": ["alice", "bob", "carol", "alice"]});
    let reply = server
        .publish(&json!({"to": to, "type": "note.new", "data": "all"}))
        .await
        .expect(201);
    assert_eq!(
        reply["recipients"], 3,
        "a user named twice gets one copy: {reply}"
    );
    assert!(
        reply.get("seq").is_none() && reply.get("cursor").is_none(),
        "{reply}"
    );
    for (user, seq) in [("alice", 1), ("bob", 2), ("carol", 1)] {
        let event = events_of(&server, user).await.pop().unwrap();
        assert_eq!(
            (&event["id"], &event["seq"]),
            (&reply["id"], &json!(seq)),
            "{user}: {event}"
        );
    }
    let to = json!({"users": []});
    let reply = server
        .publish(&json!({"to": to, "type": "note.new", "data": 1}))
        .await;
    assert!(
        reply.status == 400 || reply.json()["recipients"] == 0,
        "{reply:?}"
    );
}

#[tokio::test]
async fn a_batch_answers_item_by_item() {
    let server = spawn(Options::new());
    let note = |user: &str, n: u64| json!({"to": {"user": user}, "type": "note.new", "data": n});
    let mut bad_type = note("alice", 9);
    bad_type["type"] = json!("Not A Type");
    let events = json!([
        note("alice", 1),
        bad_type,
        note("b b", 2),
        note("bob", 3),
        7,
        note("alice", 4)
    ]);
    let reply = server
        .publish(&json!({ "events": events }))
        .await
        .expect(200);
    let results = results(&reply);
    assert_eq!(results.len(), 6, "{reply}");
    for (position, is_good) in [
        (0, true),
        (1, false),
        (2, false),
        (3, true),
        (4, false),
        (5, true),
    ] {
        let result = &results[position];
        let code = result.get("code").or_else(|| result["error"].get("code"));
        assert_eq!(
            result["id"].is_string(),
            is_good,
            "item {position}: {result}"
        );
        assert_eq!(code.is_some(), !is_good, "item {position}: {result}");
    }
    let data: Vec<Value> = events_of(&server, "alice")
        .await
        .iter()
        .map(|event| event["data"].clone())
        .collect();
    assert_eq!(data, [1, 4]);
    assert_eq!(events_of(&server, "bob").await.len(), 1);
}

#[tokio::test]
async fn an_atomic_batch_is_all_or_nothing() {
    let server = spawn(Options::new());
    let note = |n: u64| json!({"to": {"user": "alice"}, "type": "note.new", "data": n});
    let bad = json!({"to": {"user": "alice"}, "type": "sys.fake", "data": 1});
    let reply = server
        .publish(&json!({"atomic": true, "events": [note(1), bad, note(2)]}))
        .await;
    assert!((400..500).contains(&reply.status), "{reply:?}");
    assert_eq!(
        events_of(&server, "alice").await,
        Vec::<Value>::new(),
        "half applied"
    );
    let reply = server
        .publish(&json!({"atomic": true, "events": [note(1), note(2)]}))
        .await
        .expect(200);
    assert_eq!(results(&reply).len(), 2);
    assert_eq!(events_of(&server, "alice").await.len(), 2);
}

#[tokio::test]
async fn a_batch_has_a_greatest_length() {
    let server = spawn(Options::new());
    let note = json!({"to": {"user": "alice"}, "type": "note.new", "data": 1});
    let events = |count: usize| json!({"events": vec![note.clone(); count]});
    assert_eq!(
        results(&server.publish(&events(500)).await.expect(200)).len(),
        500
    );
    server.publish(&events(501)).await.refused(&[400, 413, 422]);
    assert_eq!(seq_of(&server.head("alice").await), 500, "half applied");
    let reply = server.publish(&events(0)).await;
    assert!([200, 400].contains(&reply.status), "{reply:?}");
}

#[tokio::test]
async fn ndjson_bodies_are_batches() {
    let server = spawn(Options::new());
    let line = |n: u64| json!({"to": {"user": "alice"}, "type": "note.new", "data": n}).to_string();
    let reply = publish_ndjson(&server, &format!("{}\n{}\n", line(1), line(2)))
        .await
        .expect(200);
    assert_eq!(results(&reply).len(), 2, "{reply}");
    let reply = publish_ndjson(&server, &format!("{}\r\n\n{{bad\n{}", line(3), line(4)))
        .await
        .expect(200);
    let results = results(&reply);
    assert_eq!(results.len(), 3, "{reply}");
    assert!(
        results[0]["id"].is_string() && results[2]["id"].is_string(),
        "{reply}"
    );
    assert!(results[1]["id"].is_null(), "{reply}");
    let data: Vec<Value> = events_of(&server, "alice")
        .await
        .iter()
        .map(|event| event["data"].clone())
        .collect();
    assert_eq!(data, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_batch_keeps_its_order() {
    let server = spawn(Options::new());
    server.notes("alice", 500).await;
    let lines: Vec<String> = (501..=1000)
        .map(|n| json!({"to": {"user": "alice"}, "type": "note.new", "data": {"n": n}}).to_string())
        .collect();
    publish_ndjson(&server, &lines.join("\n")).await.expect(200);
    for (position, event) in events_of(&server, "alice").await.iter().enumerate() {
        assert_eq!(event["data"]["n"], position as u64 + 1, "{event}");
    }
}

#[tokio::test]
async fn what_is_no_event_is_refused_with_a_reason() {
    let server = spawn(Options::new());
    let good = json!({"to": {"user": "alice"}, "type": "note.new", "data": 1});
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let cases = [
        with("to", json!(null)),
        with("to", json!({})),
        with("to", json!("alice")),
        with("to", json!({"user": "alice", "topic": "x"})),
        with("to", json!({"user": ""})),
        with("to", json!({"user": "a b"})),
        with("to", json!({"user": 7})),
        with("to", json!({"users": "alice"})),
        with("to", json!({"users": ["alice", "b\n"]})),
        with("to", json!({"group": "x"})),
        with("type", json!(null)),
        with("type", json!("")),
        with("type", json!("Note.New")),
        with("type", json!("sys.ready")),
        with("type", json!("event.x")),
        with("type", json!("a".repeat(65))),
        with("id", json!("")),
        with("id", json!("a b")),
        with("id", json!("a\nid: 9")),
        with("id", json!(7)),
        with("topic", json!("a b")),
        with("topic", json!("t".repeat(129))),
        with("actor", json!("bob")),
        with("actor", json!({"name": "Bob"})),
        with("actor", json!({"id": "bob", "name": "a\u{0}b"})),
        with("ephemeral", json!("yes")),
        with("exclude_conn", json!("a b")),
        with("seq", json!(1)),
        with("cursor", json!("abcdef-1")),
        with("time", json!("2026-01-01T00:00:00Z")),
        with("surprise", json!(1)),
        json!([]),
        json!({}),
        json!("x"),
        json!(null),
    ];
    for body in cases {
        let reply = server.publish(&body).await;
        reply.refused(&[400, 422]);
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(message.len() > 10, "{body}: {message:?} helps no one");
    }
    assert_eq!(
        server
            .publish(&with("to", json!({"user": "a b"})))
            .await
            .code(),
        "invalid_user_id"
    );
    assert_eq!(events_of(&server, "alice").await, Vec::<Value>::new());
    server.assert_healthy().await;
}

#[tokio::test]
async fn notify_makes_a_notification_of_plain_text() {
    let server = spawn(Options::new());
    let token = tokens::publisher();
    let notify = |user: &str| {
        server
            .post(&format!("/v1/users/{user}/notify"))
            .token(&token)
    };
    let reply = notify("alice")
        .body("text/plain", "Backup done")
        .send()
        .await;
    assert!([200, 201].contains(&reply.status), "{reply:?}");
    // What `curl -d` sends by itself.
    let form = "application/x-www-form-urlencoded";
    let reply = notify("alice").body(form, "Backup done").send().await;
    assert!([200, 201, 415].contains(&reply.status), "{reply:?}");
    let body = json!({
        "kind": "comment", "title": "New comment", "body": "Nice", "link": "/p/1",
        "actor": {"id": "bob", "name": "Bob"}, "data": {"post": 1},
    });
    notify("alice").json(&body).send().await.expect(201);
    let events = events_of(&server, "alice").await;
    for event in &events {
        assert_eq!(event["type"], "notification.new", "{event}");
        assert_eq!(event["data"]["read"], false, "{event}");
        assert!(event["data"]["id"].is_string(), "{event}");
    }
    assert_eq!(events[0]["data"]["body"], "Backup done", "{}", events[0]);
    let last = &events.last().unwrap()["data"];
    for name in ["kind", "title", "body", "link"] {
        assert_eq!(last[name], body[name], "{name} of {last}");
    }
    assert_eq!(last["actor"]["id"], "bob", "{last}");
    for bad in [
        json!({"kind": "comment"}),
        json!({"body": ""}),
        json!({"kind": 7, "body": "x"}),
        json!([]),
    ] {
        notify("alice").json(&bad).send().await.refused(&[400, 422]);
    }
    notify("a%20b")
        .body("text/plain", "x")
        .send()
        .await
        .refused(&[400]);
    notify("alice")
        .body("image/png", "x")
        .send()
        .await
        .refused(&[415]);
    notify("alice")
        .body("text/plain", vec![0xff, 0xfe])
        .send()
        .await
        .refused(&[400]);
    assert_eq!(
        events_of(&server, "alice").await.len(),
        events.len(),
        "half applied"
    );
}

#[tokio::test]
async fn curl_needs_no_content_type_to_notify() {
    let server = spawn(Options::new());
    let call = server
        .post("/v1/users/alice/notify")
        .token(&tokens::publisher());
    let form = "application/x-www-form-urlencoded";
    let reply = call.body(form, "Backup done").send().await;
    assert!(
        [200, 201].contains(&reply.status),
        "`curl -d 'Backup done'` sends {form}: {reply:?}"
    );
    assert_eq!(
        events_of(&server, "alice").await[0]["data"]["body"],
        "Backup done"
    );
}

#[tokio::test]
async fn an_ack_is_a_cursor_of_ones_own_log() {
    let server = spawn(Options::new());
    let head = server.notes("alice", 3).await;
    let epoch = epoch_of(&head).to_owned();
    let ack = |body: Value| {
        server
            .post("/v1/ack")
            .token(&tokens::user("alice"))
            .json(&body)
            .send()
    };
    for body in [
        json!({"cursor": head}),
        json!({"cursor": format!("{epoch}-1")}),
        json!({"cursor": head, "device": "phone"}),
    ] {
        let reply = ack(body.clone()).await;
        assert!([200, 204].contains(&reply.status), "{body}: {reply:?}");
    }
    for body in [
        json!({"cursor": "nonsense"}),
        json!({"cursor": ""}),
        json!({"cursor": 7}),
        json!({}),
        json!({"cursor": format!("{epoch}-99")}),
        json!({"cursor": "aaaaaa-1"}),
        json!({"cursor": head, "device": "a\nb"}),
        json!({"cursor": head, "device": 7}),
    ] {
        ack(body).await.refused(&[400, 409, 422]);
    }
    server
        .post("/v1/ack")
        .json(&json!({"cursor": head}))
        .send()
        .await
        .refused(&[401]);
}

#[tokio::test]
async fn an_expiring_signal_says_for_how_long() {
    let server = spawn(Options::new());
    let mut reader = open(&server, Transport::Sse, &Ask::user("alice")).await;
    reader.next_of(Kind::Live).await;
    let body = json!({
        "to": {"user": "alice"}, "type": "typing.start", "data": {}, "ephemeral": true, "ttl": 5,
    });
    let reply = server.publish(&body).await.expect(201);
    assert!(
        reply.get("seq").is_none() && reply.get("cursor").is_none(),
        "{reply}"
    );
    let signal = reader.next_of(Kind::Signal).await;
    assert_eq!(signal.json["ephemeral"], true, "{signal:?}");
    assert!(
        signal.json["ttl_ms"].as_u64().is_some_and(|ms| ms > 0),
        "{signal:?}"
    );
}

//! PROTOCOL.md section 6, receipts: sent, delivered, read, told to the sender and to nobody else.
//!
//! Promises: every way in which a cursor passes a message counts as delivery, written once over all of them. What must
//! not be told is looked for after something that came later, never after a pause.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{Server, eventually};
use crate::reader::{Ask, Transport, open};
use crate::talk::{command, listen, next_event, server};

/// How a reader says that it has everything up to a cursor.
#[derive(Debug, Clone, Copy)]
enum Way {
    LastEventId(Transport),
    Query(Transport),
    Poll,
    HttpAck,
    HttpAckOfDevice,
    SocketAck,
}

const WAYS: [Way; 9] = [
    Way::LastEventId(Transport::Sse),
    Way::LastEventId(Transport::Ndjson),
    Way::LastEventId(Transport::Socket),
    Way::Query(Transport::Sse),
    Way::Query(Transport::Socket),
    Way::Poll,
    Way::HttpAck,
    Way::HttpAckOfDevice,
    Way::SocketAck,
];

async fn pass(server: &Server, user: &str, cursor: &str, way: Way) {
    let ack = async |body: Value| {
        let call = server.of(user, "POST", "/v1/ack").json(&body);
        call.send().await.expect(200);
    };
    match way {
        Way::LastEventId(transport) => {
            let ask = Ask::user(user).last_event_id(cursor);
            open(server, transport, &ask)
                .await
                .events_until_live()
                .await;
        }
        Way::Query(transport) => {
            let ask = Ask::user(user).cursor(cursor);
            open(server, transport, &ask)
                .await
                .events_until_live()
                .await;
        }
        Way::Poll => drop(server.page(user, &format!("cursor={cursor}&wait=0")).await),
        Way::HttpAck => ack(json!({ "cursor": cursor })).await,
        Way::HttpAckOfDevice => ack(json!({"cursor": cursor, "device": "phone"})).await,
        Way::SocketAck => {
            let mut reader = listen(server, Transport::Socket, user).await;
            let reply = command(&mut reader, json!({"op": "ack", "cursor": cursor})).await;
            assert_eq!(reply["type"], "sys.reply", "{reply}");
        }
    }
}

async fn status_of(server: &Server, sender: &str, id: &str, n: usize) -> Value {
    let page = server.history(sender, id, "").await;
    page["messages"][n - 1]["status"].clone()
}

#[tokio::test]
async fn every_cursor_that_passes_a_message_delivers_it() {
    let server = server();
    let id = server.direct("alice", "bob").await;
    for (n, way) in (1..).zip(WAYS) {
        let mut alice = listen(&server, Transport::Sse, "alice").await;
        server.say("alice", &id, &format!("message {n}")).await;
        assert_eq!(status_of(&server, "alice", &id, n).await, "sent", "{way:?}");
        let cursor = server.head("bob").await;
        pass(&server, "bob", &cursor, way).await;
        let event = next_event(&mut alice, "message.delivered").await;
        assert_eq!(
            event.json["data"],
            json!({"conversation_id": id, "upto": n, "by": "bob"}),
            "{way:?}"
        );
        assert_eq!(event.json["topic"], format!("conversation:{id}"));
        assert_eq!(
            status_of(&server, "alice", &id, n).await,
            "delivered",
            "{way:?}"
        );
        assert_eq!(
            status_of(&server, "bob", &id, n).await,
            Value::Null,
            "for its sender alone"
        );
    }
    let bob = server.log_of("bob").await;
    assert!(
        bob.iter().all(|(kind, _)| kind != "message.delivered"),
        "{bob:?}"
    );
}

#[tokio::test]
async fn a_read_is_told_to_the_sender_and_to_the_readers_devices() {
    let server = server();
    let id = server.group(&["alice", "bob", "carol"], Some("Tea")).await;
    server.say("alice", &id, "one").await;
    server.say("carol", &id, "two").await;
    server.say("bob", &id, "three").await;
    let mut devices = Vec::new();
    for transport in [Transport::Sse, Transport::Socket, Transport::Ndjson] {
        devices.push(listen(&server, transport, "bob").await);
    }
    let mut alice = listen(&server, Transport::Sse, "alice").await;
    // Only the first of the two messages by others: carol's is not among them.
    server
        .read("bob", &id, &json!({"upto": 1}))
        .await
        .expect(200);
    for device in &mut devices {
        let event = next_event(device, "conversation.read").await;
        assert_eq!(
            event.json["data"],
            json!({"conversation_id": id, "upto": 1, "unread": 1})
        );
    }
    let delivered = next_event(&mut alice, "message.delivered").await;
    let read = next_event(&mut alice, "message.read").await;
    for event in [delivered, read] {
        assert_eq!(
            event.json["data"],
            json!({"conversation_id": id, "upto": 1, "by": "bob"})
        );
    }
    let page = server.history("alice", &id, "").await;
    let one = &page["messages"][0];
    assert_eq!(
        (&one["delivered_to"], &one["read_by"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(one["status"], "sent", "carol has not got it");
    server
        .read("carol", &id, &json!({"upto": 3}))
        .await
        .expect(200);
    let event = next_event(&mut alice, "message.read").await;
    assert_eq!(event.json["data"]["by"], "carol");
    assert_eq!(status_of(&server, "alice", &id, 1).await, "read");
    let kinds = async |user: &str| -> Vec<(String, Value)> {
        let log = server.log_of(user).await.into_iter();
        log.filter(|(kind, _)| {
            ["message.delivered", "message.read", "conversation.read"].contains(&kind.as_str())
        })
        .map(|(kind, data)| (kind, data["by"].clone()))
        .collect()
    };
    let told = |kind: &str, by: Value| (kind.to_owned(), by);
    let bob = kinds("bob").await;
    assert_eq!(
        bob,
        [
            told("conversation.read", Value::Null),
            told("message.delivered", json!("carol")),
            told("message.read", json!("carol"))
        ]
    );
    assert_eq!(
        kinds("carol").await,
        [told("conversation.read", Value::Null)]
    );
}

#[tokio::test]
async fn receipts_of_a_moment_are_told_together() {
    let server = server();
    let id = server.direct("alice", "bob").await;
    for n in 0..30 {
        server.say("alice", &id, &n.to_string()).await;
    }
    let mut alice = listen(&server, Transport::Sse, "alice").await;
    let mut bob = listen(&server, Transport::Socket, "bob").await;
    for n in 1..=30 {
        let body = json!({"op": "read", "conversation": id, "upto": n});
        bob.socket().send_text(&body.to_string()).await;
    }
    let (mut told, started) = (0, Instant::now());
    loop {
        let event = next_event(&mut alice, "message.read").await;
        told += 1;
        if event.json["data"]["upto"] == 30 {
            break;
        }
    }
    let gatherings = started.elapsed().as_millis() / 250 + 2;
    assert!(
        told <= gatherings,
        "30 reads made {told} events in {gatherings} gatherings"
    );
}

#[tokio::test]
async fn reading_is_private_where_either_side_wants_it() {
    let server = server();
    let choose = async |user: &str, choice: bool| {
        let path = "/v1/preferences";
        let call = server
            .of(user, "PATCH", path)
            .json(&json!({"read_receipts": choice}));
        call.send().await.expect(200);
    };
    for (reader, sender) in [(false, true), (true, false)] {
        let names = [format!("reader-{reader}"), format!("sender-{reader}")];
        let [by, to] = [&names[0], &names[1]];
        let id = server.direct(to, by).await;
        choose(by, reader).await;
        choose(to, sender).await;
        server.say(to, &id, "one").await;
        let mut stream = listen(&server, Transport::Sse, to).await;
        server.read(by, &id, &json!({"upto": 1})).await.expect(200);
        let event = next_event(&mut stream, "message.delivered").await;
        assert_eq!(
            event.json["data"]["by"], **by,
            "that it came is told all the same"
        );
        assert_eq!(status_of(&server, to, &id, 1).await, "delivered");
        // Both let it be seen now: the next read is told.
        choose(by, true).await;
        choose(to, true).await;
        server.say(to, &id, "two").await;
        server.read(by, &id, &json!({"upto": 2})).await.expect(200);
        let event = next_event(&mut stream, "message.read").await;
        assert_eq!(event.json["data"]["upto"], 2);
        assert_eq!(status_of(&server, to, &id, 2).await, "read");
        let reads = server.log_of(to).await;
        assert_eq!(
            reads
                .iter()
                .filter(|(kind, _)| kind == "message.read")
                .count(),
            1
        );
        assert_eq!(
            server.seen(by, &id).await["unread"],
            0,
            "the reader's own count is not private to itself"
        );
    }
}

#[tokio::test]
async fn a_read_that_was_answered_is_told_after_a_crash() {
    let mut server = server();
    let id = server.direct("alice", "bob").await;
    for round in 1..=5 {
        server.say("alice", &id, "again").await;
        server
            .read("bob", &id, &json!({"upto": round}))
            .await
            .expect(200);
        server.kill9();
        server.restart();
        eventually("the read is told", async || {
            let log = server.log_of("alice").await;
            log.iter()
                .any(|(kind, data)| kind == "message.read" && data["upto"] == round)
        })
        .await;
        assert_eq!(status_of(&server, "alice", &id, round).await, "read");
    }
}

#[tokio::test]
async fn a_cursor_that_was_acked_before_a_crash_delivers_after_it() {
    let mut server = server();
    let id = server.direct("alice", "bob").await;
    for round in 1..=3 {
        server.say("alice", &id, "again").await;
        let cursor = server.head("bob").await;
        pass(&server, "bob", &cursor, Way::HttpAck).await;
        server.kill9();
        server.restart();
        // Every client comes back after a crash with the cursor that it has.
        pass(&server, "bob", &cursor, Way::Poll).await;
        eventually("the message is delivered", async || {
            status_of(&server, "alice", &id, round).await == "delivered"
        })
        .await;
    }
}

#[tokio::test]
async fn what_comes_after_a_cursor_is_not_delivered_by_it() {
    let server = server();
    let id = server.direct("alice", "bob").await;
    server.say("alice", &id, "one").await;
    let cursor = server.head("bob").await;
    server.say("alice", &id, "two").await;
    let mut alice = listen(&server, Transport::Sse, "alice").await;
    pass(&server, "bob", &cursor, Way::Poll).await;
    let event = next_event(&mut alice, "message.delivered").await;
    assert_eq!(event.json["data"]["upto"], 1);
    assert_eq!(status_of(&server, "alice", &id, 2).await, "sent");
}

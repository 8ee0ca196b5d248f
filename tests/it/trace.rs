//! `GET /v1/admin/trace/{event id}`: where one event went, told with times where they are known and reasons where not.
//!
//! Promises: every transport leaves its mark; nothing is guessed after a restart.

use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::{Options, Server, spawn};
use crate::inbox::patient;
use crate::reader::{Ask, Transport, open};
use crate::tokens;

async fn publish(server: &Server, id: &str, users: &[&str]) {
    let body = json!({"to": {"users": users}, "type": "note.new", "data": 1, "id": id});
    server.publish(&body).await.expect(201);
}

async fn trace(server: &Server, id: &str) -> Value {
    server.ask(&format!("/v1/admin/trace/{id}")).await
}

fn is_time(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|time| time.len() == 24 && time.ends_with('Z'))
}

#[track_caller]
fn of_user<'a>(trace: &'a Value, user: &str) -> &'a Value {
    let mut recipients = trace["recipients"].as_array().unwrap().iter();
    recipients
        .find(|recipient| recipient["user"] == user)
        .unwrap_or_else(|| panic!("no {user} in {trace}"))
}

#[tokio::test]
async fn an_event_is_followed_from_the_publish_to_each_device() {
    let server = spawn(Options::new());
    let mut readers = Vec::new();
    for transport in Transport::OPEN {
        let mut reader = open(&server, transport, &Ask::user("alice")).await;
        reader.next_of(Kind::Live).await;
        readers.push(reader);
    }
    publish(&server, "e-1", &["alice", "bob"]).await;
    for reader in &mut readers {
        reader.events(1).await;
    }
    let mut late = open(&server, Transport::Sse, &Ask::user("alice")).await;
    late.next_of(Kind::Live).await;
    let told = trace(&server, "e-1").await;
    assert_eq!(
        (&told["id"], &told["type"]),
        (&json!("e-1"), &json!("note.new"))
    );
    for time in ["time", "appended_at", "synced_at"] {
        assert!(is_time(&told[time]), "{time} of {told}");
    }
    assert!(
        told["appended_at"].as_str() <= told["synced_at"].as_str(),
        "{told}"
    );
    assert_eq!(
        (&told["unknown"], &told["recipient_count"]),
        (&Value::Null, &json!(2))
    );
    let alice = of_user(&told, "alice");
    assert_eq!(
        (&alice["seq"], &alice["retained"]),
        (&json!(1), &json!(true))
    );
    let connections = alice["connections"].as_array().unwrap();
    let (written, not): (Vec<&Value>, Vec<&Value>) =
        connections.iter().partition(|one| one["written"] == true);
    let mut transports: Vec<&str> = written
        .iter()
        .filter_map(|one| one["transport"].as_str())
        .collect();
    transports.sort_unstable();
    assert_eq!(transports, ["ndjson", "sse", "websocket"], "{alice}");
    assert!(
        written
            .iter()
            .all(|one| is_time(&one["written_at"]) && one["open"] == true)
    );
    assert_eq!(not.len(), 1, "{alice}");
    assert!(
        not[0]["written"] == false && not[0]["unknown"].is_string(),
        "{alice}"
    );
}

#[tokio::test]
async fn polls_and_acks_leave_their_marks_too() {
    let server = spawn(Options::new());
    publish(&server, "e-1", &["bob"]).await;
    let page = server.page("bob", "cursor=start&wait=0").await;
    let cursor = page["cursor"].as_str().unwrap();
    let ack = json!({"cursor": cursor, "device": "phone"});
    let ack = server
        .post("/v1/ack")
        .token(&tokens::user("bob"))
        .json(&ack);
    ack.send().await.expect(200);
    publish(&server, "e-2", &["bob"]).await;
    let told = trace(&server, "e-1").await;
    let bob = of_user(&told, "bob");
    let poll = &bob["connections"][0];
    assert_eq!(
        (&poll["transport"], &poll["open"]),
        (&json!("poll"), &json!(false))
    );
    assert!(is_time(&poll["written_at"]), "{bob}");
    let phone = &bob["devices"][0];
    assert_eq!(
        (&phone["device"], &phone["acked"]),
        (&json!("phone"), &json!(true))
    );
    assert_eq!(phone["acked_upto"], cursor);
    assert!(is_time(&phone["acked_upto_at"]), "{bob}");
    let told = trace(&server, "e-2").await;
    assert_eq!(of_user(&told, "bob")["devices"][0]["acked"], false);
}

#[tokio::test]
async fn whether_a_notification_was_read_is_told_while_the_inbox_keeps_it() {
    let server = spawn(patient().set("notifications.inbox_max", 3));
    let read_of = async |id: &str| {
        let told = trace(&server, id).await;
        of_user(&told, "alice")["read"].clone()
    };
    let sent = server.notify_times("alice", "like", 3).await;
    assert_eq!(read_of(&sent[0]).await, false);
    server.mark_read("alice", &json!({"ids": [sent[0]]})).await;
    assert_eq!(
        (read_of(&sent[0]).await, read_of(&sent[2]).await),
        (json!(true), json!(false))
    );
    server.mark_read("alice", &json!({"all": true})).await;
    assert_eq!(read_of(&sent[2]).await, true);
    server.notify_times("alice", "like", 3).await;
    assert_eq!(
        read_of(&sent[2]).await,
        Value::Null,
        "the inbox keeps three"
    );
    publish(&server, "e-1", &["alice"]).await;
    assert_eq!(read_of("e-1").await, Value::Null, "nothing that is read");
}

#[tokio::test]
async fn what_is_not_known_any_more_is_not_invented() {
    let mut server = spawn(Options::new().set("store.ring_bytes", 1024));
    publish(&server, "e-1", &["alice"]).await;
    let users: Vec<String> = (0..150).map(|n| format!("user-{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    publish(&server, "e-2", &users).await;
    server.notes("alice", 500).await;
    server.kill9();
    server.restart();
    for id in ["e-1", "e-2"] {
        let told = trace(&server, id).await;
        assert_eq!(told["id"], id, "found on the disk");
        assert_eq!(
            (&told["appended_at"], &told["synced_at"]),
            (&Value::Null, &Value::Null)
        );
        assert!(
            told["unknown"].is_string() && is_time(&told["time"]),
            "{told}"
        );
    }
    let told = trace(&server, "e-2").await;
    assert_eq!(told["recipient_count"], 150);
    assert_eq!(told["recipients"].as_array().unwrap().len(), 100);
    let unknown = server
        .get("/v1/admin/trace/e-3")
        .token(&tokens::admin())
        .send()
        .await;
    assert_eq!(unknown.refused(&[404]), "not_found");
}

#[tokio::test]
async fn a_filter_leaves_it_open_whether_the_event_was_written() {
    let server = spawn(Options::new());
    let ask = Ask::user("alice").query("types=note.*");
    let mut reader = open(&server, Transport::Sse, &ask).await;
    reader.next_of(Kind::Live).await;
    publish(&server, "e-1", &["alice"]).await;
    reader.events(1).await;
    let told = trace(&server, "e-1").await;
    let connection = &of_user(&told, "alice")["connections"][0];
    assert_eq!(
        (&connection["written"], &connection["written_at"]),
        (&Value::Null, &Value::Null)
    );
    assert!(
        connection["unknown"]
            .as_str()
            .is_some_and(|why| why.contains("filter")),
        "{told}"
    );
}

//! PROTOCOL.md section 6, the badge: after every change, in `ready` and in the state, and always what the queries count.
//!
//! Promises: each change is followed by the badge that it makes, on every open transport. The queries are asked each
//! time: no number is believed because it was told twice.

use serde_json::json;

use crate::delivery::Kind;
use crate::harness::{Server, spawn, start};
use crate::inbox::{patient, text};
use crate::reader::{Ask, Reader, Transport, open};

/// What the queries count, which is what every badge must say.
async fn counted(server: &Server, user: &str) -> u64 {
    let (mut count, mut before) = (0, String::new());
    loop {
        let page = server
            .inbox(user, &format!("unread=1&limit=3{before}"))
            .await;
        let found = crate::inbox::ids(&page);
        count += found.len() as u64;
        if page["more"] == false {
            assert_eq!(page["unread"], count, "{page}");
            return count;
        }
        before = format!(
            "&before={}",
            found.last().expect("a page with more is not empty")
        );
    }
}

/// Every way to learn the badge says `expected`.
async fn check(server: &Server, devices: &mut [Reader], expected: u64) {
    assert_eq!(counted(server, "alice").await, expected, "the queries");
    for device in devices {
        device.badge_of(expected).await;
    }
    check_at_rest(server, expected).await;
}

async fn check_at_rest(server: &Server, expected: u64) {
    let badge = json!({"notifications": expected, "messages": 0, "conversations": 0});
    assert_eq!(server.state("alice").await["badge"], badge, "the state");
    for transport in Transport::OPEN {
        let mut reader = open(server, transport, &Ask::user("alice").query("snapshot=1")).await;
        assert_eq!(
            reader.next_of(Kind::Ready).await.json["badge"],
            badge,
            "ready"
        );
        let snapshot = reader.next_of(Kind::Snapshot).await.json;
        assert!(
            snapshot
                .to_string()
                .contains(&format!(r#""notifications":{expected}"#)),
            "{snapshot}"
        );
    }
}

#[tokio::test]
async fn the_badge_is_what_the_queries_count_after_every_change() {
    let options = patient()
        .set("notifications.digest_threshold", 4)
        .set("notifications.digest_every_seconds", 0.2)
        .set("notifications.inbox_max", 12);
    let server = start(options).await;
    let mut devices = Vec::new();
    for transport in Transport::OPEN {
        devices.push(open(&server, transport, &Ask::user("alice")).await);
    }
    check_at_rest(&server, 0).await;
    let mut sent = Vec::new();
    for expected in 1..=3 {
        sent.push(text(&server.notify("alice", "like").await["id"]));
        check(&server, &mut devices, expected).await;
    }
    server
        .mark_read("alice", &json!({"ids": [sent[1], "unknown"]}))
        .await;
    check(&server, &mut devices, 2).await;
    // The fifth and sixth are gathered: the badge does not wait for their digest.
    for expected in 3..=5 {
        server.notify("alice", "like").await;
        check(&server, &mut devices, expected).await;
    }
    server
        .choose("alice", &json!({"muted": ["notification.follow"]}))
        .await;
    server.notify("alice", "follow").await;
    check_at_rest(&server, 5).await;
    server.notify("alice", "comment").await;
    check(&server, &mut devices, 6).await;
    server.mark_read("alice", &json!({"all": true})).await;
    check(&server, &mut devices, 0).await;
    // Beyond the bound of the inbox the oldest unread ones go, and with them their share of the badge.
    for kind in ["a", "b", "c", "d", "e"] {
        server.notify_times("alice", kind, 3).await;
    }
    check(&server, &mut devices, 12).await;
    server.notify("bob", "like").await;
    check_at_rest(&server, 12).await;
}

#[tokio::test]
async fn the_badge_is_the_same_after_a_crash() {
    let mut server = spawn(patient());
    let sent = server.notify_times("alice", "like", 5).await;
    server.mark_read("alice", &json!({"ids": [sent[0]]})).await;
    server.kill9();
    server.restart();
    assert_eq!(counted(&server, "alice").await, 4);
    check_at_rest(&server, 4).await;
}

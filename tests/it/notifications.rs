//! PROTOCOL.md sections 5 and 6, notifications: the inbox, reading on every device, muted kinds, digests.
//!
//! Promises: what is told and what the inbox holds are compared each time. Nothing waits by the clock: what comes later
//! is waited for, and what must not come is looked for after something that comes after it.

use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::{Options, Server, spawn, start};
use crate::inbox::{ids, patient, text};
use crate::reader::{Ask, Transport, open};
use crate::tokens;

#[tokio::test]
async fn a_notification_is_an_event_and_is_in_the_inbox() {
    let server = start(Options::new()).await;
    let body = json!({
        "kind": "comment", "title": "New comment", "body": "Nice", "link": "/p/1",
        "actor": {"id": "bob", "name": "Bob"}, "data": {"post": [1, "ä"]},
    });
    let reply = server.try_notify("alice", &body).await.expect(201);
    assert_eq!(
        (&reply["recipients"], &reply["seq"]),
        (&json!(1), &json!(1)),
        "{reply}"
    );
    for transport in Transport::ALL {
        let mut reader = open(&server, transport, &Ask::user("alice").cursor("start")).await;
        let event = reader.event_of("notification.new").await;
        assert_eq!(
            (&event["id"], &event["cursor"]),
            (&reply["id"], &reply["cursor"])
        );
        let data = &event["data"];
        assert_eq!((&data["id"], &data["read"]), (&reply["id"], &json!(false)));
        for (name, value) in body.as_object().unwrap() {
            assert_eq!(&data[name], value, "{name} of {data}");
        }
    }
    let page = server.inbox("alice", "").await;
    assert_eq!((&page["unread"], &page["more"]), (&json!(1), &json!(false)));
    let kept = &page["notifications"][0];
    for (name, value) in body.as_object().unwrap() {
        assert_eq!(&kept[name], value, "{name} of {kept}");
    }
    assert_eq!(
        (&kept["id"], &kept["time"], &kept["read"]),
        (&reply["id"], &reply["time"], &json!(false))
    );
    assert_eq!(
        server.inbox("bob", "").await["notifications"],
        json!([]),
        "it is alice's"
    );
}

#[tokio::test]
async fn read_here_is_read_on_every_device() {
    let server = start(Options::new()).await;
    let sent = server.notify_times("alice", "like", 4).await;
    let mut devices = Vec::new();
    for transport in Transport::ALL {
        let mut device = open(&server, transport, &Ask::user("alice").cursor("now")).await;
        device.next_of(Kind::Live).await;
        devices.push(device);
    }
    let some = json!({"ids": [sent[0], "unknown", sent[2], sent[0]]});
    assert_eq!(server.mark_read("alice", &some).await, 2);
    for device in &mut devices {
        let event = device.event_of("notification.read").await;
        assert_eq!(
            event["data"],
            json!({"ids": [sent[0], sent[2]], "unread": 2})
        );
    }
    // What changes nothing tells nothing: the next event is that of the last line.
    assert_eq!(server.mark_read("alice", &some).await, 2);
    assert_eq!(server.mark_read("alice", &json!({"ids": []})).await, 2);
    assert_eq!(
        server.mark_read("bob", &json!({"ids": sent})).await,
        0,
        "these are alice's"
    );
    let page = server.inbox("alice", "unread=1").await;
    assert_eq!(ids(&page), [sent[3].as_str(), &sent[1]]);
    assert_eq!(server.mark_read("alice", &json!({"all": true})).await, 0);
    for device in &mut devices {
        let event = device.event_of("notification.read").await;
        assert_eq!(event["data"], json!({"all": true, "unread": 0}));
    }
    assert_eq!(server.mark_read("alice", &json!({"all": true})).await, 0);
    let page = server.inbox("alice", "").await;
    assert!(
        page["notifications"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["read"] == true),
        "{page}"
    );
    server.notify("alice", "like").await;
    for device in &mut devices {
        device.event_of("notification.new").await;
    }
    assert_eq!(server.inbox("alice", "unread=1").await["unread"], 1);
}

#[tokio::test]
async fn a_muted_kind_is_stored_as_read_and_not_pushed() {
    let server = start(Options::new()).await;
    server
        .choose("alice", &json!({"muted": ["notification.like"]}))
        .await;
    let mut reader = open(&server, Transport::Sse, &Ask::user("alice")).await;
    reader.next_of(Kind::Live).await;
    let reply = server.notify("alice", "like").await;
    assert!(
        reply.get("seq").is_none() && reply["recipients"] == 1,
        "{reply}"
    );
    server.notify("alice", "comment").await;
    let event = reader.event_of("notification.new").await;
    assert_eq!(
        event["data"]["kind"], "comment",
        "the muted one was not pushed"
    );
    let page = server.inbox("alice", "").await;
    assert_eq!(page["unread"], 1, "{page}");
    assert_eq!(page["notifications"][0]["read"], false);
    let muted = &page["notifications"][1];
    assert_eq!(
        (&muted["kind"], &muted["read"]),
        (&json!("like"), &json!(true))
    );
    // It muted what comes after, not what was there; and speaks again when it is no longer muted.
    server
        .choose("alice", &json!({"muted": ["notification.comment"]}))
        .await;
    assert_eq!(server.inbox("alice", "unread=1").await["unread"], 1);
    server.notify("alice", "like").await;
    reader.event_of("preferences.updated").await;
    assert_eq!(
        reader.event_of("notification.new").await["data"]["kind"],
        "like"
    );
}

/// A server that gathers from the fourth of a kind in a minute on, and tells so much later.
async fn gathering(every_seconds: f64) -> Server {
    let options = patient()
        .set("notifications.digest_threshold", 3)
        .set("notifications.digest_window_seconds", 60)
        .set("notifications.digest_every_seconds", every_seconds);
    start(options).await
}

#[tokio::test]
async fn a_burst_comes_as_one_digest() {
    let server = gathering(0.3).await;
    let mut reader = open(&server, Transport::Sse, &Ask::user("alice")).await;
    let likes = server.notify_times("alice", "like", 3).await;
    let follow = server.notify("alice", "follow").await;
    for (id, kind) in [
        (&likes[0], "like"),
        (&likes[1], "like"),
        (&likes[2], "like"),
        (&text(&follow["id"]), "follow"),
    ] {
        let event = reader.event_of("notification.new").await;
        assert_eq!(
            (&event["data"]["id"], &event["data"]["kind"]),
            (&json!(id), &json!(kind))
        );
    }
    let reply = server.notify("alice", "like").await;
    assert!(
        reply.get("seq").is_none() && reply["recipients"] == 1,
        "{reply}"
    );
    let page = server.inbox("alice", "unread=1").await;
    assert_eq!(page["unread"], 5, "gathered ones are in the inbox at once");
    assert_eq!(page["notifications"][0]["id"], reply["id"]);
    let first = reader.event_of("notification.digest").await;
    let expected = json!({"kind": "like", "count": 1, "ids": [reply["id"]], "actors": [{"id": "by-like"}], "unread": 5});
    assert_eq!(first["data"], expected);
    // The flood goes on: each digest tells what came since the last.
    let mut later = server.notify_times("alice", "like", 30).await;
    later.reverse();
    let (mut told, mut count) = (Vec::new(), 0);
    while count < 30 {
        let digest = reader.event_of("notification.digest").await;
        count += digest["data"]["count"].as_u64().unwrap();
        let some: Vec<String> = digest["data"]["ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect();
        told.splice(0..0, some);
    }
    assert_eq!(told, later, "each id once, newest first");
    assert_eq!(server.state("alice").await["badge"]["notifications"], 35);
    // Another user's burst is its own.
    assert!(server.notify("bob", "like").await["seq"].is_u64());
}

#[tokio::test]
async fn a_digest_names_a_hundred_and_counts_all() {
    let server = gathering(2.0).await;
    let body =
        |n: usize| json!({"kind": "like", "body": "x", "actor": {"id": format!("u{}", n % 15)}});
    for n in 0..3 {
        server.try_notify("alice", &body(n)).await.expect(201);
    }
    let mut sent = Vec::new();
    for n in 0..120 {
        let reply = server.try_notify("alice", &body(n)).await.expect(201);
        sent.push(text(&reply["id"]));
    }
    // Reading tells all of it at once, so no timing decides how much one digest has.
    let before = server.events_after("alice", "start").await;
    let early: u64 = before
        .iter()
        .filter_map(|event| event["data"]["count"].as_u64())
        .sum();
    server
        .mark_read("alice", &json!({"ids": [sent[119]]}))
        .await;
    let events = server.events_after("alice", "start").await;
    let digests: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "notification.digest")
        .map(|event| &event["data"])
        .collect();
    let counts: u64 = digests
        .iter()
        .map(|digest| digest["count"].as_u64().unwrap())
        .sum();
    assert_eq!(counts, 120, "{early} of them before");
    for digest in digests {
        let (ids, actors) = (
            digest["ids"].as_array().unwrap(),
            digest["actors"].as_array().unwrap(),
        );
        let count = digest["count"].as_u64().unwrap() as usize;
        assert_eq!(ids.len(), count.min(100), "{digest}");
        assert_eq!(actors.len(), count.min(10), "{digest}");
    }
}

#[tokio::test]
async fn what_was_gathered_is_on_stable_storage_before_its_ack() {
    let options = patient()
        .set("notifications.digest_window_seconds", 3_600)
        .set("notifications.digest_every_seconds", 3_600);
    let mut server = spawn(options);
    let sent = server.notify_times("alice", "like", 20).await;
    let gathered = server.notify_times("alice", "like", 7).await;
    assert_eq!(server.types_of("alice").await, vec!["notification.new"; 20]);
    server.kill9();
    server.restart();
    let page = server.inbox("alice", "limit=200").await;
    let mut all: Vec<String> = sent.iter().chain(&gathered).cloned().collect();
    all.reverse();
    assert_eq!((ids(&page), &page["unread"]), (all.clone(), &json!(27)));
    let mut reader = open(&server, Transport::Sse, &Ask::user("alice").cursor("20")).await;
    let digest = reader.event_of("notification.digest").await;
    assert_eq!(
        (&digest["data"]["count"], &digest["data"]["ids"]),
        (&json!(7), &json!(all[..7]))
    );
    // It is told once.
    server.kill9();
    server.restart();
    server.notify("bob", "like").await;
    server.mark_read("alice", &json!({"all": true})).await;
    let types = server.types_of("alice").await;
    assert_eq!(types[20..], ["notification.digest", "notification.read"]);
    server.assert_healthy().await;
}

#[tokio::test]
async fn what_was_gathered_is_told_before_it_is_read() {
    for read_one in [true, false] {
        let server = gathering(3_600.0).await;
        let sent = server.notify_times("alice", "like", 5).await;
        let body = if read_one {
            json!({"ids": [sent[4]]})
        } else {
            json!({"all": true})
        };
        let unread = server.mark_read("alice", &body).await;
        assert_eq!(unread, if read_one { 4 } else { 0 });
        let events = server.events_after("alice", "3").await;
        let told: Vec<String> = events.iter().map(|event| text(&event["type"])).collect();
        assert_eq!(told, ["notification.digest", "notification.read"]);
        assert_eq!(events[0]["data"]["ids"], json!([sent[4], sent[3]]));
    }
}

#[tokio::test]
async fn a_repeat_adds_nothing() {
    let server = gathering(3_600.0).await;
    let notify = async |key: &str| {
        let call = server
            .post("/v1/users/alice/notify")
            .token(&tokens::publisher());
        let call = call.header("idempotency-key", key);
        call.json(&json!({"kind": "like", "body": "x"}))
            .send()
            .await
            .expect(201)
    };
    let mut first = Value::Null;
    // More often than the threshold: a repeat is no part of a burst either. The fourth is gathered.
    for key in ["a", "a", "a", "a", "b", "c", "d", "d"] {
        let reply = notify(key).await;
        let is_repeat = reply["id"] == first["id"];
        assert_eq!(reply["duplicate"], is_repeat, "{key}: {reply}");
        assert_eq!(reply.get("seq").is_some(), key != "d", "{key}: {reply}");
        first = reply;
    }
    assert_eq!(server.inbox("alice", "").await["unread"], 4);
    assert_eq!(server.types_of("alice").await, ["notification.new"; 3]);
}

#[tokio::test]
async fn an_inbox_keeps_the_newest() {
    let server = start(patient().set("notifications.inbox_max", 5)).await;
    let sent = server.notify_times("alice", "like", 8).await;
    let page = server.inbox("alice", "").await;
    let newest: Vec<String> = sent[3..].iter().rev().cloned().collect();
    assert_eq!((ids(&page), &page["unread"]), (newest, &json!(5)));
    assert_eq!(
        server
            .mark_read("alice", &json!({"ids": [sent[0], sent[3]]}))
            .await,
        4
    );
    server.notify("alice", "like").await;
    assert_eq!(
        server.inbox("alice", "").await["unread"],
        5,
        "a read one went out"
    );
    server.mark_read("alice", &json!({"all": true})).await;
    server.notify("alice", "like").await;
    let page = server.inbox("alice", "").await;
    assert_eq!((ids(&page).len(), &page["unread"]), (5, &json!(1)));
    server
        .try_inbox("alice", &format!("before={}", sent[0]))
        .await
        .refused(&[404]);
}

#[tokio::test]
async fn the_inbox_comes_in_pages_newest_first() {
    let server = start(patient()).await;
    let mut all = server.notify_times("alice", "like", 7).await;
    all.reverse();
    server
        .mark_read("alice", &json!({"ids": [all[1], all[4]]}))
        .await;
    let unread: Vec<String> = [0, 2, 3, 5, 6].map(|n: usize| all[n].clone()).to_vec();
    for (filter, expected) in [("", &all), ("&unread=1", &unread), ("&unread=0", &all)] {
        for limit in [1, 2, 3, 4, 5, 6, 7, 8, 200] {
            let (mut found, mut before) = (Vec::new(), String::new());
            loop {
                let page = server
                    .inbox("alice", &format!("limit={limit}{filter}{before}"))
                    .await;
                let some = ids(&page);
                assert!(some.len() <= limit && page["unread"] == 5, "{page}");
                found.extend(some);
                assert_eq!(page["more"], found.len() < expected.len(), "{page}");
                if page["more"] == false {
                    break;
                }
                before = format!("&before={}", found.last().unwrap());
            }
            assert_eq!(&found, expected, "limit {limit} {filter}");
        }
    }
}

#[tokio::test]
async fn bad_input_is_refused_and_changes_nothing() {
    let server = start(patient()).await;
    let id = text(&server.notify("alice", "like").await["id"]);
    let many: Vec<String> = (0..1_001).map(|n| format!("n{n}")).collect();
    for (body, code) in [
        (json!({"ids": many}), "too_many_ids"),
        (json!({}), "invalid_read"),
        (json!({"all": false}), "invalid_read"),
        (json!({"ids": [id], "all": true}), "invalid_read"),
        (json!({"ids": [id, "a b"]}), "invalid_json"),
        (json!({"ids": [id, 7]}), "invalid_json"),
        (json!({"ids": id}), "invalid_json"),
        (json!({"all": "yes"}), "invalid_json"),
        (json!({"ids": [id], "device": "x"}), "invalid_json"),
    ] {
        let reply = server.try_read("alice", &body).await;
        assert_eq!(
            (reply.refused(&[400]), reply.status),
            (code.to_owned(), 400),
            "{body}"
        );
    }
    for (query, statuses, code) in [
        ("limit=0", [400], "invalid_query"),
        ("limit=201", [400], "invalid_query"),
        ("limit=x", [400], "invalid_query"),
        ("limit=-1", [400], "invalid_query"),
        ("unread=maybe", [400], "invalid_query"),
        ("limit=1&limit=2", [400], "invalid_query"),
        ("after=x", [400], "invalid_query"),
        ("before=a%20b", [400], "invalid_id"),
        ("before=unknown", [404], "not_found"),
    ] {
        let reply = server.try_inbox("alice", query).await;
        assert_eq!(reply.refused(&statuses), code, "{query}");
    }
    for kind in ["", "Like", "a b", "a.b", &"x".repeat(33)] {
        let body = json!({"kind": kind, "body": "x"});
        let reply = server.try_notify("alice", &body).await;
        assert_eq!(reply.refused(&[400]), "invalid_notification", "{kind:?}");
    }
    let large = json!({"kind": "like", "body": "x", "data": "y".repeat(70_000)});
    server.try_notify("alice", &large).await.refused(&[413]);
    server.get("/v1/notifications").send().await.refused(&[401]);
    server
        .post("/v1/notifications/read")
        .json(&json!({"all": true}))
        .send()
        .await
        .refused(&[401]);
    let page = server.inbox("alice", "").await;
    assert_eq!((ids(&page), &page["unread"]), (vec![id], &json!(1)));
    // A thousand are allowed.
    assert_eq!(
        server
            .mark_read("alice", &json!({"ids": many[..1_000]}))
            .await,
        1
    );
}

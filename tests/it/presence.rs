//! PROTOCOL.md section 6, presence: who is told of whom, when, and by which of several devices; and its two calls.
//!
//! Promises: delays are configured small, or so large that only what is told at once can come; nothing is assumed about
//! how fast the server is. Audiences of conversations and privacy are in `privacy`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::{Options, Server, eventually, spawn, start};
use crate::reader::{Ask, Reader, Transport, open};
use crate::tokens;

/// A server on which whoever is cut stays here for this long, and `alice`, who watches `bob`.
async fn watching(offline_after: f64) -> (Server, Reader) {
    let server = spawn(options(offline_after));
    server.watch("alice", "bob").await;
    let mut alice = open(&server, Transport::Sse, &Ask::user("alice")).await;
    let first = alice.heard("presence.changed").await;
    assert_eq!(first["data"]["status"], "offline", "{first}");
    (server, alice)
}

fn options(offline_after: f64) -> Options {
    Options::new()
        .set("presence.offline_after_seconds", offline_after)
        .set("limits.connections_per_user", 1000)
}

/// A connected reader of `user`, and the id of its connection.
async fn connected(server: &Server, transport: Transport, user: &str) -> (Reader, String) {
    let mut reader = open(server, transport, &Ask::user(user)).await;
    let conn = reader.next_of(Kind::Ready).await.str("conn").to_owned();
    (reader, conn)
}

#[tokio::test]
async fn the_first_connection_of_any_transport_shows_and_the_last_one_gone_a_while_later() {
    let (server, mut alice) = watching(0.7).await;
    for transport in Transport::OPEN {
        let (first, _) = connected(&server, transport, "bob").await;
        let online = alice.sees("bob", "online").await;
        assert_eq!(
            (&online["activity"], &online["last_seen"]),
            (&Value::Null, &Value::Null),
            "{online}"
        );
        let (second, _) = connected(&server, Transport::Sse, "bob").await;
        drop(first);
        let told = alice.until_mark(&server, "alice").await;
        assert!(told.is_empty(), "one of two devices left: {told:?}");
        let left = Instant::now();
        drop(second);
        let offline = alice.sees("bob", "offline").await;
        let took = left.elapsed();
        assert!(
            took >= Duration::from_millis(600),
            "{transport:?}: {took:?}"
        );
        assert!(offline["last_seen"].is_string(), "{offline}");
        assert_eq!(
            server.presence("alice", "bob").await["last_seen"],
            offline["last_seen"]
        );
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn a_long_poller_is_online_between_polls() {
    let (server, mut alice) = watching(60.0).await;
    for _ in 0..5 {
        server.page("bob", "cursor=now&wait=0").await;
    }
    alice.sees("bob", "online").await;
    assert_eq!(server.presence("alice", "bob").await["status"], "online");
    let told = alice.until_mark(&server, "alice").await;
    assert!(told.is_empty(), "between polls nobody leaves: {told:?}");
}

#[tokio::test]
async fn an_end_on_purpose_shows_at_once_and_a_page_that_is_reloaded_does_not() {
    let (server, mut alice) = watching(3600.0).await;
    let token = tokens::admin();
    for how in ["close", "disconnect", "revoke"] {
        let (mut bob, conn) = connected(&server, Transport::Socket, "bob").await;
        alice.sees("bob", "online").await;
        let status = match how {
            "close" => {
                bob.socket().close(1000).await;
                204
            }
            "disconnect" => {
                let path = format!("/v1/admin/connections/{conn}");
                server
                    .call("DELETE", &path)
                    .token(&token)
                    .send()
                    .await
                    .status
            }
            _ => {
                let body = json!({"user": "bob"});
                let call = server.post("/v1/admin/revoke").token(&token).json(&body);
                call.send().await.status
            }
        };
        assert_eq!(status, 204, "{how}");
        let offline = alice.sees("bob", "offline").await;
        assert!(offline["last_seen"].is_string(), "{how}: {offline}");
    }
    server.watch("alice", "carol").await;
    let (mut carol, _) = connected(&server, Transport::Socket, "carol").await;
    alice.sees("carol", "online").await;
    carol.socket().close(1001).await;
    assert_eq!(carol.socket().close_code().await, Some(1001));
    eventually("the socket has ended", async || {
        let connected = server.metrics().await;
        let is_open = |(name, value): &(String, f64)| {
            name.contains("subscribers") && name.contains("websocket") && *value > 0.0
        };
        !connected.iter().any(is_open)
    })
    .await;
    assert_eq!(server.presence("alice", "carol").await["status"], "online");
}

#[tokio::test]
async fn of_several_devices_the_most_available_counts_until_the_hand_says_otherwise() {
    let (server, mut alice) = watching(3600.0).await;
    let (phone, phone_conn) = connected(&server, Transport::Sse, "bob").await;
    let (desk, desk_conn) = connected(&server, Transport::Socket, "bob").await;
    alice.sees("bob", "online").await;
    let set = async |body: Value, expected: &str| {
        let own = server.set_presence("bob", &body).await.expect(200);
        assert_eq!(own["status"], expected, "{body}: {own}");
        assert_eq!(
            server.presence("alice", "bob").await["status"],
            expected,
            "{body}"
        );
        own
    };
    set(json!({"status": "away", "conn": phone_conn}), "online").await;
    set(
        json!({"status": "busy", "conn": desk_conn, "activity": "call"}),
        "busy",
    )
    .await;
    let busy = alice.sees("bob", "busy").await;
    assert_eq!(busy["activity"], "call", "{busy}");
    set(json!({"status": "away", "activity": "responding"}), "away").await;
    let away = alice.sees("bob", "away").await;
    assert_eq!(away["activity"], "responding", "{away}");
    set(json!({"status": "auto", "conn": desk_conn}), "away").await;
    set(json!({"status": "auto"}), "online").await;
    alice.sees("bob", "online").await;
    set(
        json!({"status": "offline", "activity": "hiding"}),
        "offline",
    )
    .await;
    let offline = alice.sees("bob", "offline").await;
    assert!(
        offline["activity"].is_null() && offline["last_seen"].is_string(),
        "{offline}"
    );
    set(json!({"status": "auto"}), "online").await;
    drop((phone, desk));
    let foreign = json!({"status": "away", "conn": phone_conn});
    server.set_presence("carol", &foreign).await.refused(&[404]);
}

#[tokio::test]
async fn what_was_set_by_hand_and_the_last_time_survive_a_crash() {
    let mut server = spawn(options(0.3));
    server.watch("alice", "bob").await;
    let (mut alice, _) = connected(&server, Transport::Sse, "alice").await;
    let (bob, _) = connected(&server, Transport::Sse, "bob").await;
    let busy = json!({"status": "busy", "activity": "in a meeting"});
    server.set_presence("bob", &busy).await.expect(200);
    alice.sees("bob", "busy").await;
    drop(bob);
    alice.sees("bob", "offline").await;
    let gone = server.presence("alice", "bob").await;
    assert!(
        gone["last_seen"].is_string() && gone["activity"].is_null(),
        "{gone}"
    );
    server.kill9();
    server.restart();
    assert_eq!(server.presence("alice", "bob").await, gone);
    let mut alice = open(&server, Transport::Sse, &Ask::user("alice")).await;
    let (_bob, _) = connected(&server, Transport::Sse, "bob").await;
    let back = alice.sees("bob", "busy").await;
    assert_eq!(back["activity"], "in a meeting", "{back}");
}

#[tokio::test]
async fn a_restart_makes_nobody_seem_to_leave() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = start(options(60.0).data(directory.path())).await;
    server.watch("alice", "bob").await;
    let (mut alice, _) = connected(&server, Transport::Sse, "alice").await;
    let (bob, _) = connected(&server, Transport::Socket, "bob").await;
    alice.sees("bob", "online").await;
    eventually("it is noted that bob is here", async || {
        server.presence("alice", "bob").await["status"] == "online"
    })
    .await;
    let (drained, ()) = tokio::join!(
        async {
            let mut told = Vec::new();
            loop {
                let delivery = alice.next().await;
                match delivery.kind {
                    Kind::Bye | Kind::End => return told,
                    Kind::Signal => told.push(delivery.json),
                    _ => {}
                }
            }
        },
        server.drain()
    );
    assert!(drained.is_empty(), "told in the drain: {drained:?}");
    drop(bob);
    let mut server = start(options(60.0).data(directory.path())).await;
    let mut alice = open(&server, Transport::Sse, &Ask::user("alice")).await;
    let picture = alice.heard("presence.changed").await;
    assert_eq!(
        picture["data"]["status"], "online",
        "bob has time to return: {picture}"
    );
    drop(alice);
    server.drain().await;
    let mut server = start(options(0.2).data(directory.path())).await;
    let mut alice = open(&server, Transport::Sse, &Ask::user("alice")).await;
    let offline = alice.sees("bob", "offline").await;
    assert!(
        offline["last_seen"].is_string(),
        "who does not return is gone: {offline}"
    );
    drop(alice);
    server.drain().await;
}

#[tokio::test]
async fn a_client_that_comes_and_goes_does_not_flood_its_audience() {
    let (server, mut alice) = watching(0.0).await;
    let started = Instant::now();
    for _ in 0..200 {
        let (mut bob, _) = connected(&server, Transport::Socket, "bob").await;
        bob.socket().close(1000).await;
    }
    let seconds = started.elapsed().as_secs() as usize;
    let told = alice.until_mark(&server, "alice").await;
    assert!(
        told.len() <= seconds + 3,
        "{} frames in {seconds} s",
        told.len()
    );
    eventually("bob has gone", async || {
        server.presence("alice", "bob").await["status"] == "offline"
    })
    .await;
}

#[tokio::test]
async fn how_others_are_comes_after_ready_and_before_any_event() {
    let server = spawn(options(3600.0));
    for number in 0..3 {
        server.watch("alice", &format!("friend-{number}")).await;
    }
    server.watch("alice", "nobody-yet").await;
    let cursor = server.notes("alice", 3).await;
    let (_friend, _) = connected(&server, Transport::Sse, "friend-1").await;
    eventually("the friend shows", async || {
        server.presence("alice", "friend-1").await["status"] == "online"
    })
    .await;
    for transport in Transport::OPEN {
        for query in ["cursor=start", "cursor=aaaaaa-1&on_gap=earliest", ""] {
            let mut alice = open(&server, transport, &Ask::user("alice").query(query)).await;
            let mut kinds = Vec::new();
            let mut told = Vec::new();
            loop {
                let delivery = alice.next().await;
                kinds.push(delivery.kind);
                match delivery.kind {
                    Kind::Signal => told.push(delivery.json["data"].clone()),
                    Kind::Live => break,
                    _ => {}
                }
            }
            let place = |kind| kinds.iter().position(|other| *other == kind);
            let (signal, event) = (place(Kind::Signal), place(Kind::Event));
            assert!(
                place(Kind::Ready) < signal && signal.is_some(),
                "{query}: {kinds:?}"
            );
            assert!(
                event.is_none_or(|event| Some(event) > signal),
                "{query}: {kinds:?}"
            );
            assert!(
                place(Kind::Reset).is_none_or(|reset| Some(reset) < signal),
                "{kinds:?}"
            );
            let users: Vec<&str> = told
                .iter()
                .map(|data| data["user"].as_str().unwrap())
                .collect();
            assert_eq!(users.len(), 4, "{query}: {told:?}");
            assert_eq!(
                users[0], "friend-1",
                "the most available comes first: {told:?}"
            );
            assert_eq!(told[0]["status"], "online", "{told:?}");
        }
    }
    let page = server.page("alice", "wait=0").await;
    assert_eq!(
        page["ephemeral"].as_array().map(Vec::len),
        Some(4),
        "{page}"
    );
    let page = server
        .page("alice", &format!("cursor={cursor}&wait=0"))
        .await;
    assert_eq!(page["ephemeral"], json!([]), "{page}");
    let ask = Ask::user("alice").query("types=note.*");
    let mut filtered = open(&server, Transport::Sse, &ask).await;
    assert_eq!(filtered.next_of(Kind::Live).await.kind, Kind::Live);
}

#[tokio::test]
async fn the_state_tells_how_others_are() {
    let server = spawn(options(3600.0));
    server.watch("alice", "bob").await;
    let (_bob, conn) = connected(&server, Transport::Sse, "bob").await;
    let away = json!({"status": "away", "activity": "tea", "conn": conn});
    server.set_presence("bob", &away).await.expect(200);
    let call = server.get("/v1/state").token(&tokens::user("alice"));
    let state = call.send().await.expect(200);
    let bob = json!({"status": "away", "activity": "tea", "last_seen": null});
    assert_eq!(state["presence"], json!({ "bob": bob }), "{state}");
    let ask = Ask::user("alice").query("snapshot=1");
    let mut alice = open(&server, Transport::Sse, &ask).await;
    let snapshot = alice.next_of(Kind::Snapshot).await.json;
    assert_eq!(snapshot["presence"], state["presence"], "{snapshot}");
}

#[tokio::test]
async fn who_subscribes_while_connected_is_told_how_the_other_is() {
    let server = spawn(options(3600.0));
    let (mut alice, _) = connected(&server, Transport::Sse, "alice").await;
    let (_bob, _) = connected(&server, Transport::Sse, "bob").await;
    alice.next_of(Kind::Live).await;
    let told = alice.until_mark(&server, "alice").await;
    assert!(
        told.is_empty(),
        "a stranger's coming is nobody's business: {told:?}"
    );
    server.watch("alice", "bob").await;
    alice.sees("bob", "online").await;
    server
        .set_presence("bob", &json!({"status": "away"}))
        .await
        .expect(200);
    alice.sees("bob", "away").await;
    let path = "/v1/topics/presence:bob/subscribers/alice";
    let reply = server
        .call("DELETE", path)
        .token(&tokens::publisher())
        .send();
    assert_eq!(reply.await.status, 204);
    server
        .set_presence("bob", &json!({"status": "busy"}))
        .await
        .expect(200);
    let unknown = server.presence("alice", "bob").await;
    assert_eq!(unknown["status"], "offline", "{unknown}");
}

#[tokio::test]
async fn the_users_own_devices_hear_what_it_says_by_hand() {
    let server = spawn(options(3600.0));
    let (mut phone, _) = connected(&server, Transport::Sse, "bob").await;
    let (mut desk, _) = connected(&server, Transport::Socket, "bob").await;
    let reply = desk
        .ask(json!({"op": "presence", "status": "busy", "activity": "call"}))
        .await;
    let data = &reply["data"];
    assert_eq!(
        (&data["status"], &data["activity"]),
        (&json!("busy"), &json!("call")),
        "{reply}"
    );
    let told = phone.sees("bob", "busy").await;
    assert_eq!(told["activity"], "call", "{told}");
    let mut later = open(&server, Transport::Ndjson, &Ask::user("bob")).await;
    later.sees("bob", "busy").await;
}

#[tokio::test]
async fn bad_input_is_refused_alike_over_http_and_sockets() {
    let server = spawn(options(3600.0));
    let (mut socket, _) = connected(&server, Transport::Socket, "bob").await;
    for (body, code) in [
        (json!({"status": "asleep"}), "invalid_status"),
        (json!({"status": ""}), "invalid_status"),
        (json!({"status": 1}), "invalid_json"),
        (json!({}), "invalid_json"),
        (
            json!({"status": "away", "activity": "x".repeat(65)}),
            "invalid_activity",
        ),
        (
            json!({"status": "away", "activity": "a\nb"}),
            "invalid_activity",
        ),
        (json!({"status": "away", "activity": 5}), "invalid_json"),
        (json!({"status": "away", "conn": "c0ffee"}), "not_found"),
        (json!({"status": "away", "conn": "a b"}), "not_found"),
    ] {
        let refused = server.set_presence("bob", &body).await;
        assert_eq!(refused.refused(&[400, 404]), code, "{body}");
        let mut op = body.clone();
        op["op"] = json!("presence");
        let error = socket.ask(op).await;
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("sys.error"), &json!(code)),
            "{body}"
        );
    }
    let unknown = json!({"status": "away", "mood": "good"});
    assert_eq!(
        server.set_presence("bob", &unknown).await.refused(&[400]),
        "invalid_json"
    );
    let long = "ä".repeat(64);
    let fits = json!({"status": "away", "activity": long});
    assert_eq!(
        server.set_presence("bob", &fits).await.expect(200)["activity"],
        long
    );
    let none = json!({"status": "auto", "activity": ""});
    assert!(server.set_presence("bob", &none).await.expect(200)["activity"].is_null());
    let many = vec!["u"; 201].join(",");
    for (query, code) in [
        ("".to_owned(), "invalid_query"),
        ("?users=".to_owned(), "invalid_user_id"),
        ("?users=a%20b".to_owned(), "invalid_user_id"),
        ("?users=a,,b".to_owned(), "invalid_user_id"),
        (format!("?users={many}"), "too_many_users"),
    ] {
        let call = server
            .get(&format!("/v1/presence{query}"))
            .token(&tokens::user("bob"));
        assert_eq!(call.send().await.refused(&[400]), code, "{query}");
    }
    server
        .get("/v1/presence?users=a")
        .send()
        .await
        .refused(&[401]);
    server
        .call("PUT", "/v1/presence")
        .json(&none)
        .send()
        .await
        .refused(&[401]);
    server.assert_healthy().await;
}

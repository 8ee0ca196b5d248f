//! PROTOCOL.md section 5, conversations: made once, found again, joined and left, and unseen by everyone else.
//!
//! Promises: what a member sees is asked over HTTP and read from logs; who is not a member gets the same bytes as who
//! asks for what never was. It relies on no order of members in a list.

use serde_json::{Value, json};

use crate::harness::{Options, Server};
use crate::reader::Transport;
use crate::talk::{listen, next_event, server};
use crate::tokens;

/// The names in a list of members, sorted.
pub fn names(members: &Value) -> Vec<String> {
    let members = members.as_array().expect("a list of names").iter();
    let mut names: Vec<String> = members
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

async fn create(server: &Server, user: &str, body: Value) -> crate::client::Reply {
    let call = server.of(user, "POST", "/v1/conversations");
    call.json(&body).send().await
}

#[tokio::test]
async fn two_users_have_one_conversation_whoever_asks_for_it() {
    let server = server();
    let made = create(&server, "alice", json!({"members": ["bob"]}))
        .await
        .expect(201);
    let id = made["id"].as_str().unwrap();
    assert_eq!(names(&made["members"]), ["alice", "bob"], "{made}");
    assert_eq!(
        (&made["direct"], &made["name"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!((&made["head"], &made["unread"]), (&json!(0), &json!(0)));
    for (user, members) in [
        ("alice", json!(["bob", "alice", "bob"])),
        ("bob", json!(["alice"])),
        ("bob", json!(["alice", "bob"])),
    ] {
        let found = create(&server, user, json!({ "members": members }))
            .await
            .expect(200);
        assert_eq!(found["id"], id, "{user}");
    }
    let backend = json!({"members": ["alice", "bob"]});
    let call = server.post("/v1/conversations").token(&tokens::publisher());
    assert_eq!(call.json(&backend).send().await.expect(200)["id"], id);
    // A name makes it a group, and groups are made anew.
    for _ in 0..2 {
        let group = json!({"members": ["alice", "bob"], "name": "Us"});
        let group = create(&server, "alice", group).await.expect(201);
        assert_eq!(
            (&group["direct"], &group["name"]),
            (&json!(false), &json!("Us"))
        );
        assert_ne!(group["id"], id);
    }
}

#[tokio::test]
async fn a_backend_makes_conversations_of_exactly_those_it_names() {
    let server = server();
    let call = server.post("/v1/conversations").token(&tokens::publisher());
    let body = json!({"members": ["alice", "bob", "carol"], "name": "Shift 7"});
    let made = call.json(&body).send().await.expect(201);
    assert_eq!(names(&made["members"]), ["alice", "bob", "carol"], "{made}");
    assert!(
        made.get("unread").is_none(),
        "a backend is no member: {made}"
    );
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/conversations/{id}/messages");
    let call = server.post(&path).token(&tokens::publisher());
    let reply = call.json(&json!({"content": "x"})).send().await;
    reply.refused(&[404]);
}

#[tokio::test]
async fn every_member_hears_of_every_change() {
    let server = server();
    let id = server.group(&["alice", "bob"], Some("Tea")).await;
    let path = format!("/v1/conversations/{id}");
    let rename = server
        .of("bob", "PATCH", &path)
        .json(&json!({"name": "Coffee"}));
    let renamed = rename.send().await.expect(200);
    assert_eq!(
        (&renamed["id"], &renamed["name"]),
        (&json!(id), &json!("Coffee"))
    );
    let put = |user: &str, who: &str| {
        let path = format!("/v1/conversations/{id}/members/{who}");
        server.of(user, "PUT", &path).send()
    };
    for _ in 0..2 {
        assert_eq!(put("bob", "carol").await.status, 204, "twice is once");
    }
    let away = format!("/v1/conversations/{id}/members/bob");
    let left = server.of("bob", "DELETE", &away).send().await;
    assert_eq!(left.status, 204);
    let told = |log: Vec<(String, Value)>| -> Vec<String> {
        log.into_iter().map(|(event_type, _)| event_type).collect()
    };
    let all = [
        "conversation.new",
        "conversation.updated",
        "conversation.joined",
        "conversation.left",
    ];
    assert_eq!(told(server.log_of("alice").await), all);
    assert_eq!(
        told(server.log_of("bob").await),
        all,
        "who leaves is told too"
    );
    let carol = server.log_of("carol").await;
    assert_eq!(
        told(carol.clone()),
        ["conversation.joined", "conversation.left"]
    );
    let (_, joined) = &carol[0];
    assert_eq!(
        (&joined["conversation_id"], &joined["user"]),
        (&json!(id), &json!("carol"))
    );
    let conversation = &joined["conversation"];
    assert_eq!(
        (&conversation["id"], &conversation["name"]),
        (&json!(id), &json!("Coffee"))
    );
    assert_eq!(names(&conversation["members"]), ["alice", "bob", "carol"]);
    assert_eq!(carol[1].1, json!({"conversation_id": id, "user": "bob"}));
    let page = server.page("carol", "cursor=start&wait=0").await;
    let event = &page["events"][0];
    assert_eq!(event["topic"], format!("conversation:{id}"));
    assert_eq!(event["actor"]["id"], "bob");
    server.of("bob", "GET", &path).send().await.refused(&[404]);
    assert_eq!(server.seen("carol", &id).await["member_count"], 2);
}

#[tokio::test]
async fn only_its_creator_and_backends_take_others_out() {
    let server = server();
    let id = server
        .group(&["alice", "bob", "carol", "dave"], Some("Tea"))
        .await;
    let out = |token: String, who: &str| {
        let path = format!("/v1/conversations/{id}/members/{who}");
        server.call("DELETE", &path).token(&token).send()
    };
    out(tokens::user("bob"), "carol").await.refused(&[403]);
    out(tokens::user("eve"), "carol").await.refused(&[404]);
    assert_eq!(out(tokens::user("alice"), "carol").await.status, 204);
    assert_eq!(out(tokens::user("alice"), "nobody").await.status, 204);
    assert_eq!(out(tokens::publisher(), "dave").await.status, 204);
    assert_eq!(out(tokens::admin(), "alice").await.status, 204);
    assert_eq!(names(&server.seen("bob", &id).await["members"]), ["bob"]);
    assert_eq!(out(tokens::user("bob"), "bob").await.status, 204);
    let gone = server
        .get(&format!("/v1/conversations/{id}"))
        .token(&tokens::admin());
    gone.send().await.refused(&[404]);
}

#[tokio::test]
async fn a_direct_conversation_keeps_its_two_members_and_has_no_name() {
    let server = server();
    let id = server.direct("alice", "bob").await;
    let of = |method: &str, rest: &str| {
        let path = format!("/v1/conversations/{id}{rest}");
        server.of("alice", method, &path)
    };
    let refusals = [
        of("PATCH", "").json(&json!({"name": "Us"})).send().await,
        of("PUT", "/members/carol").send().await,
        of("DELETE", "/members/alice").send().await,
    ];
    for refusal in refusals {
        assert_eq!(refusal.refused(&[409]), "direct_conversation");
    }
}

#[tokio::test]
async fn to_strangers_it_does_not_exist() {
    let server = server();
    let id = server.group(&["alice", "bob"], Some("Secret")).await;
    let message = server.say("alice", &id, "hush").await;
    let message = message["id"].as_str().unwrap();
    let calls = |of: &str| {
        [
            ("GET", format!("/v1/conversations/{of}"), None),
            (
                "PATCH",
                format!("/v1/conversations/{of}"),
                Some(json!({"name": "x"})),
            ),
            ("GET", format!("/v1/conversations/{of}/members"), None),
            ("PUT", format!("/v1/conversations/{of}/members/eve"), None),
            (
                "DELETE",
                format!("/v1/conversations/{of}/members/alice"),
                None,
            ),
            ("GET", format!("/v1/conversations/{of}/messages"), None),
            (
                "POST",
                format!("/v1/conversations/{of}/messages"),
                Some(json!({"content": "x"})),
            ),
            (
                "DELETE",
                format!("/v1/conversations/{of}/messages/{message}"),
                None,
            ),
            (
                "POST",
                format!("/v1/conversations/{of}/read"),
                Some(json!({"upto": 1})),
            ),
            (
                "POST",
                format!("/v1/conversations/{of}/read"),
                Some(json!({"upto": 99})),
            ),
            (
                "POST",
                format!("/v1/conversations/{of}/read"),
                Some(json!({"message_ids": [message]})),
            ),
        ]
    };
    // But for the request's own id the two answers are the same bytes.
    let unknown = "0199f2c4-0000-7000-8000-000000000000";
    for (one, other) in calls(&id).into_iter().zip(calls(unknown)) {
        let mut bodies = Vec::new();
        for (method, path, body) in [one, other] {
            let mut call = server.of("eve", method, &path);
            if let Some(body) = body {
                call = call.json(&body);
            }
            let reply = call.send().await;
            assert_eq!(reply.refused(&[404]), "not_found", "{method} {path}");
            let mut body = reply.json();
            body["request_id"] = Value::Null;
            bodies.push(body);
        }
        assert_eq!(bodies[0], bodies[1]);
    }
    assert!(server.log_of("eve").await.is_empty());
    let list = server.of("eve", "GET", "/v1/conversations").send().await;
    assert_eq!(list.expect(200)["conversations"], json!([]));
}

#[tokio::test]
async fn what_is_malformed_is_refused_and_changes_nothing() {
    let server = server();
    let many: Vec<String> = (0..5001).map(|n| format!("user-{n}")).collect();
    for (body, code) in [
        (json!({"members": []}), "invalid_members"),
        (json!({"members": ["alice"]}), "invalid_members"),
        (json!({ "members": many }), "invalid_members"),
        (json!({"members": ["a b"]}), "invalid_user_id"),
        (json!({"members": ["bob"], "name": ""}), "invalid_name"),
        (json!({"members": ["bob"], "name": "a\nb"}), "invalid_name"),
        (
            json!({"members": ["bob"], "name": "x".repeat(129)}),
            "invalid_name",
        ),
        (json!({"members": "bob"}), "invalid_json"),
        (json!({"members": ["bob"], "colour": 1}), "invalid_json"),
        (json!({}), "invalid_json"),
    ] {
        assert_eq!(create(&server, "alice", body).await.refused(&[400]), code);
    }
    assert!(server.log_of("alice").await.is_empty());
    let id = server.group(&["alice", "bob"], Some("Tea")).await;
    let path = format!("/v1/conversations/{id}");
    for body in [
        json!({}),
        json!({"name": null}),
        json!({"name": ""}),
        json!({"name": 7}),
    ] {
        server
            .of("alice", "PATCH", &path)
            .json(&body)
            .send()
            .await
            .refused(&[400]);
    }
    for path in ["/v1/conversations/a%20b", "/v1/conversations/a%00"] {
        server.of("alice", "GET", path).send().await.refused(&[400]);
    }
    for query in ["limit=0", "limit=201", "limit=x", "before=x", "colour=1"] {
        let path = format!("/v1/conversations?{query}");
        server
            .of("alice", "GET", &path)
            .send()
            .await
            .refused(&[400]);
    }
    let mut path = format!("/v1/conversations/{id}/members/a%20b");
    server
        .of("alice", "PUT", &path)
        .send()
        .await
        .refused(&[400]);
    path = format!("/v1/conversations/{id}");
    server
        .of("alice", "POST", &path)
        .send()
        .await
        .refused(&[405]);
    server.get(&path).send().await.refused(&[401]);
    assert_eq!(server.log_of("alice").await.len(), 1);
}

#[tokio::test]
async fn a_repeat_with_the_same_key_makes_one_group() {
    let mut server = server();
    let call = |server: &Server, body: Value| {
        let call = server.of("alice", "POST", "/v1/conversations").json(&body);
        call.header("idempotency-key", "k-1").send()
    };
    let body = json!({"members": ["bob", "carol"], "name": "Tea"});
    let first = call(&server, body.clone()).await.expect(201);
    server.kill9();
    server.restart();
    let again = call(&server, body).await.expect(200);
    assert_eq!(again["id"], first["id"]);
    let other = call(&server, json!({"members": ["bob", "dave"], "name": "Tea"})).await;
    assert_eq!(other.refused(&[422]), "idempotency_mismatch");
    assert_eq!(server.log_of("bob").await.len(), 1);
}

#[tokio::test]
async fn writes_of_users_have_their_rate() {
    let options = Options::new().set("limits.user_writes_per_second", 1);
    let server = crate::harness::spawn(options.set("limits.user_writes_burst", 3));
    let id = server.direct("alice", "bob").await;
    let mut tries = 0..60;
    while tries.next().is_some() {
        let body = json!({"content": "x"});
        let reply = server.post_message("alice", &id, &body).await;
        if reply.status != 201 {
            assert_eq!(reply.refused(&[429]), "rate_limited");
            break;
        }
    }
    let mut reader = listen(&server, Transport::Socket, "alice").await;
    while tries.next().is_some() {
        let body = json!({"op": "send", "conversation": id, "content": "x"});
        let reply = crate::talk::command(&mut reader, body).await;
        if reply["type"] != "sys.reply" {
            assert_eq!(reply["code"], "rate_limited", "{reply}");
            break;
        }
    }
    assert!(tries.next().is_some(), "nothing was refused");
}

#[tokio::test]
async fn a_new_conversation_is_heard_of_at_once() {
    let server = server();
    for transport in Transport::ALL {
        let mut reader = listen(&server, transport, "bob").await;
        let id = server.group(&["alice", "bob"], Some("Tea")).await;
        let event = next_event(&mut reader, "conversation.new").await;
        assert_eq!(event.json["data"]["id"], id, "{transport:?}");
        assert_eq!(names(&event.json["data"]["members"]), ["alice", "bob"]);
    }
}

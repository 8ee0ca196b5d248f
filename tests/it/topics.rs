//! PROTOCOL.md section 5, topics: durable subscribers, who may subscribe whom, and events to a topic.
//!
//! Promises: subscriptions are looked at through what they do: who gets the event, also after a crash. It never relies
//! on the form of the list of subscribers beyond the names in it.

use serde_json::json;

use crate::harness::{Options, Server, spawn};
use crate::reader::{Ask, Transport, open};
use crate::tokens::{self, Token};

async fn count_of(server: &Server, user: &str) -> usize {
    let page = server.page(user, "cursor=start&wait=0&limit=1000").await;
    page["events"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_topic_reaches_its_subscribers() {
    let mut server = spawn(Options::new());
    let token = tokens::publisher();
    let topic = "feed:news";
    let put = async |server: &Server, method: &str, user: &str| {
        let path = format!("/v1/topics/{topic}/subscribers/{user}");
        let reply = server.call(method, &path).token(&token).send().await;
        assert!(
            (200..300).contains(&reply.status),
            "{method} {path}: {reply:?}"
        );
    };
    for user in ["alice", "bob", "carol", "bob"] {
        put(&server, "PUT", user).await;
    }
    put(&server, "DELETE", "carol").await;
    put(&server, "DELETE", "dave").await;
    for round in 1..=2 {
        let list = server
            .get(&format!("/v1/topics/{topic}/subscribers"))
            .token(&token)
            .send()
            .await;
        let list = list.expect(200).to_string();
        let named: Vec<bool> = ["alice", "bob", "carol", "dave"]
            .map(|user| list.contains(user))
            .to_vec();
        assert_eq!(named, [true, true, false, false], "{list}");
        let body = json!({"to": {"topic": topic}, "type": "note.new", "data": round});
        let reply = server.publish(&body).await.expect(201);
        assert_eq!(reply["recipients"], 2, "{reply}");
        for (user, count) in [("alice", round), ("bob", round), ("carol", 0)] {
            assert_eq!(
                count_of(&server, user).await,
                count,
                "{user} in round {round}"
            );
        }
        let page = server.page("alice", "cursor=start&wait=0").await;
        assert_eq!(
            page["events"][0]["topic"], topic,
            "the event names its topic"
        );
        server.kill9();
        server.restart();
    }
    let body = json!({"to": {"topic": "no:one"}, "type": "note.new", "data": 1});
    assert_eq!(server.publish(&body).await.expect(201)["recipients"], 0);
}

#[tokio::test]
async fn users_subscribe_themselves_to_what_their_token_names() {
    let server = spawn(Options::new());
    let token = Token::of("alice")
        .claim("topics", json!(["feed:*", "entity:7"]))
        .sign();
    let put = |topic: &str, user: &str, token: &str| {
        let path = format!("/v1/topics/{topic}/subscribers/{user}");
        server.call("PUT", &path).token(token).send()
    };
    for topic in ["feed:news", "feed:", "entity:7"] {
        let reply = put(topic, "alice", &token).await;
        assert!((200..300).contains(&reply.status), "{topic}: {reply:?}");
    }
    for (topic, user) in [
        ("entity:8", "alice"),
        ("fee", "alice"),
        ("feed:news", "bob"),
        ("presence:bob", "alice"),
    ] {
        put(topic, user, &token).await.refused(&[403, 404]);
    }
    put("feed:news", "alice", &tokens::user("alice"))
        .await
        .refused(&[403, 404]);
    put("feed%20news", "alice", &tokens::publisher())
        .await
        .refused(&[400]);
    put("feed:news", "a%0Ab", &tokens::publisher())
        .await
        .refused(&[400]);
    let list = server
        .get("/v1/topics/feed:news/subscribers")
        .token(&tokens::user("bob"));
    list.send().await.refused(&[403, 404]);
}

#[tokio::test]
async fn names_may_hold_all_that_their_rule_allows() {
    let server = spawn(Options::new());
    let token = tokens::publisher();
    let user = format!("A.b_c@d:e-{}", "9".repeat(118));
    let topic = "entity:a/b@c.d_e-F";
    let path = format!(
        "/v1/topics/{}/subscribers/{user}",
        topic.replace('/', "%2F")
    );
    let reply = server.call("PUT", &path).token(&token).send().await;
    assert!((200..300).contains(&reply.status), "{reply:?}");
    let body = json!({"to": {"topic": topic}, "type": "a.b-c_d.0", "data": 1, "id": "!#$%&'()*+,-./:;<=>?@[]^_`{|}~"});
    let reply = server.publish(&body).await.expect(201);
    assert_eq!(
        (&reply["recipients"], &reply["id"]),
        (&json!(1), &body["id"]),
        "{reply}"
    );
    for transport in Transport::ALL {
        let mut reader = open(
            &server,
            transport,
            &Ask::user(&user).query("cursor=start&named=1"),
        )
        .await;
        let event = reader.events(1).await.remove(0);
        assert_eq!(
            (event.str("topic"), &event.json["id"]),
            (topic, &body["id"]),
            "{transport:?}"
        );
    }
    let list = server.get(&format!(
        "/v1/topics/{}/subscribers",
        topic.replace('/', "%2F")
    ));
    let list = list.token(&token).send().await.expect(200);
    assert!(list.to_string().contains(&user), "{list}");
}

#[tokio::test]
async fn an_event_for_very_many_is_one_event_even_after_a_crash() {
    let mut server = spawn(Options::new());
    let users: Vec<String> = (0..5000).map(|n| format!("user-{n}")).collect();
    let body = json!({"to": {"users": users}, "type": "note.new", "data": "all", "id": "e-1"});
    let first = server.publish(&body).await.expect(201);
    assert_eq!(first["recipients"], 5000, "{first}");
    server.kill9();
    server.restart();
    let again = server.publish(&body).await.json();
    assert_eq!(
        (&again["duplicate"], &again["recipients"]),
        (&json!(true), &json!(5000)),
        "{again}"
    );
    for n in [0, 1, 399, 400, 401, 2500, 4999] {
        let page = server
            .page(&format!("user-{n}"), "cursor=start&wait=0")
            .await;
        assert_eq!(
            page["events"].as_array().map(Vec::len),
            Some(1),
            "user-{n}: {page}"
        );
        assert_eq!(page["events"][0]["id"], "e-1", "user-{n}: {page}");
    }
}

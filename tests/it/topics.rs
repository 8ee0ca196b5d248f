//! PROTOCOL.md section 5, topics: durable subscribers, who may subscribe whom, and events to a topic.
//!
//! Promises: subscriptions are looked at through what they do: who gets the event, also after a crash. It never relies
//! on the form of the list of subscribers beyond the names in it.

use serde_json::json;

use crate::harness::{Options, Server, spawn};
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

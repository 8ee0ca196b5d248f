//! Conversations as tests make them and talk in them, over HTTP and over sockets.
//!
//! Promises: each call is one request with a token of the user named, and its reply comes through the door. Nothing is
//! asserted here but that what a test takes for granted succeeded.

use serde_json::{Value, json};

use crate::client::{Call, Reply};
use crate::delivery::{Delivery, Kind};
use crate::harness::{Options, Server, spawn};
use crate::reader::{Ask, Reader, Transport, open};
use crate::tokens;

/// A server on which users may write as fast as tests do.
pub fn options() -> Options {
    Options::new()
        .set("limits.user_writes_per_second", 100_000)
        .set("limits.user_writes_burst", 100_000)
}

pub fn server() -> Server {
    spawn(options())
}

impl Server {
    pub fn of(&self, user: &str, method: &str, path: &str) -> Call {
        self.call(method, path).token(&tokens::user(user))
    }

    /// A new conversation of these users, made by the first of them. Gives its id.
    pub async fn group(&self, members: &[&str], name: Option<&str>) -> String {
        let body = json!({ "members": members, "name": name });
        let reply = self.of(members[0], "POST", "/v1/conversations").json(&body);
        let made = reply.send().await.expect(201);
        made["id"].as_str().expect("an id").to_owned()
    }

    pub async fn direct(&self, a: &str, b: &str) -> String {
        self.group(&[a, b], None).await
    }

    pub async fn say(&self, user: &str, id: &str, content: &str) -> Value {
        let body = json!({ "content": content });
        self.post_message(user, id, &body).await.expect(201)
    }

    pub async fn post_message(&self, user: &str, id: &str, body: &Value) -> Reply {
        let path = format!("/v1/conversations/{id}/messages");
        self.of(user, "POST", &path).json(body).send().await
    }

    pub async fn history(&self, user: &str, id: &str, query: &str) -> Value {
        let path = format!("/v1/conversations/{id}/messages{query}");
        self.of(user, "GET", &path).send().await.expect(200)
    }

    pub async fn read(&self, user: &str, id: &str, body: &Value) -> Reply {
        let path = format!("/v1/conversations/{id}/read");
        self.of(user, "POST", &path).json(body).send().await
    }

    pub async fn seen(&self, user: &str, id: &str) -> Value {
        let path = format!("/v1/conversations/{id}");
        self.of(user, "GET", &path).send().await.expect(200)
    }

    /// Messages and conversations of the badge, as `/v1/state` tells it.
    pub async fn unread(&self, user: &str) -> (u64, u64) {
        let badge = &self.state(user).await["badge"];
        let number = |name: &str| badge[name].as_u64().expect("a number");
        (number("messages"), number("conversations"))
    }

    /// The types of all events in a user's log, and their data.
    pub async fn log_of(&self, user: &str) -> Vec<(String, Value)> {
        let page = self.page(user, "cursor=start&wait=0&limit=1000").await;
        let events = page["events"].as_array().expect("a list").iter();
        let told = events.map(|event| {
            let event_type = event["type"].as_str().expect("a type").to_owned();
            (event_type, event["data"].clone())
        });
        told.collect()
    }
}

pub fn contents(page: &Value) -> Vec<&str> {
    let messages = page["messages"].as_array().expect("a list").iter();
    messages
        .map(|message| message["content"].as_str().expect("a text"))
        .collect()
}

/// A reader of the user's log from now on, after `ready`.
pub async fn listen(server: &Server, transport: Transport, user: &str) -> Reader {
    let mut reader = open(server, transport, &Ask::user(user)).await;
    reader.next_of(Kind::Live).await;
    reader
}

/// The next event of this type; what stands before it is skipped.
pub async fn next_event(reader: &mut Reader, event_type: &str) -> Delivery {
    loop {
        let event = reader.events(1).await.remove(0);
        if event.str("type") == event_type {
            return event;
        }
    }
}

/// Sends one command on a socket and gives its reply: `sys.reply` or `sys.error`.
pub async fn command(reader: &mut Reader, body: Value) -> Value {
    let mut body = body;
    body["ref"] = "r".into();
    reader.socket().send_text(&body.to_string()).await;
    loop {
        let delivery = reader.next().await;
        if matches!(delivery.kind, Kind::Reply | Kind::Error) {
            return delivery.json;
        }
    }
}

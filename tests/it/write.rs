//! What most tests need to have written before they can read: events for a user.
//!
//! Promises: each call asserts its success, so that a test about reading fails at the write when the write is at
//! fault. It never retries.

use serde_json::{Value, json};

use crate::client::Reply;
use crate::harness::Server;
use crate::tokens;

impl Server {
    /// Asks to publish whatever `body` says.
    pub async fn publish(&self, body: &Value) -> Reply {
        self.post("/v1/publish")
            .token(&tokens::publisher())
            .json(body)
            .send()
            .await
    }

    /// Publishes one `note.new` with `data` to `user` and gives the reply.
    pub async fn note(&self, user: &str, data: Value) -> Value {
        let body = json!({"to": {"user": user}, "type": "note.new", "data": data});
        self.publish(&body).await.expect(201)
    }

    /// Publishes `count` notes `{"n":1}`, `{"n":2}` … to `user` and gives the cursor after the last one.
    pub async fn notes(&self, user: &str, count: usize) -> String {
        let mut cursor = String::new();
        let numbers: Vec<usize> = (1..=count).collect();
        for chunk in numbers.chunks(500) {
            let note =
                |n: &usize| json!({"to": {"user": user}, "type": "note.new", "data": {"n": n}});
            let events: Vec<Value> = chunk.iter().map(note).collect();
            let results = self.publish(&json!({ "events": events })).await.expect(200);
            cursor = last_cursor(&results);
        }
        cursor
    }

    /// Publishes an ephemeral event to `user`.
    pub async fn signal(&self, user: &str, event_type: &str, data: Value) -> Reply {
        let to = json!({"user": user});
        let body = json!({"to": to, "type": event_type, "data": data, "ephemeral": true});
        self.publish(&body).await
    }

    /// The JSON page at `query`, as `user`.
    pub async fn page(&self, user: &str, query: &str) -> Value {
        let path = format!("/v1/events?format=json&{query}");
        let page = self
            .get(&path)
            .token(&tokens::user(user))
            .send()
            .await
            .expect(200);
        crate::delivery::check_page(&page);
        page
    }

    /// The newest cursor of `user`.
    pub async fn head(&self, user: &str) -> String {
        self.page(user, "cursor=now&wait=0").await["head"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

/// The results of a batch, in order.
#[track_caller]
pub fn results(reply: &Value) -> &Vec<Value> {
    let results = reply.as_array().or_else(|| reply["results"].as_array());
    results.unwrap_or_else(|| panic!("no results in {reply}"))
}

#[track_caller]
fn last_cursor(reply: &Value) -> String {
    let last = results(reply).last().expect("a batch of one at least");
    last["cursor"]
        .as_str()
        .unwrap_or_else(|| panic!("no cursor in {last}"))
        .to_owned()
}

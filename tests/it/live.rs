//! What the tests of presence, typing and live signals have in common: conversations, who watches whom, and signals read
//! up to a mark.
//!
//! Promises: `until_mark` gives everything that was told before the mark was asked for, so that a test can say that
//! nothing came without waiting for a while.

use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::Server;
use crate::reader::Reader;
use crate::tokens;

/// The type of the signal that a test sends itself to know how far it has read.
const MARK: &str = "test.mark";

impl Server {
    /// Makes a conversation of exactly these members and gives its id.
    pub async fn conversation(&self, members: &[&str]) -> String {
        let call = self
            .post("/v1/conversations")
            .token(&tokens::publisher())
            .json(&json!({ "members": members }));
        let made = call.send().await.expect(201);
        made["id"].as_str().expect("it has an id").to_owned()
    }

    /// Subscribes `watcher` to the presence of `watched`.
    pub async fn watch(&self, watcher: &str, watched: &str) {
        let path = format!("/v1/topics/presence:{watched}/subscribers/{watcher}");
        let reply = self.call("PUT", &path).token(&tokens::publisher());
        assert_eq!(reply.send().await.status, 204);
    }

    /// The presence of one user as `viewer` sees it.
    pub async fn presence(&self, viewer: &str, user: &str) -> Value {
        let path = format!("/v1/presence?users={user}");
        let told = self.get(&path).token(&tokens::user(viewer)).send().await;
        told.expect(200)["presence"][user].clone()
    }

    /// What `user` sets, whatever it is answered.
    pub async fn set_presence(&self, user: &str, body: &Value) -> crate::client::Reply {
        let call = self.call("PUT", "/v1/presence").token(&tokens::user(user));
        call.json(body).send().await
    }

    pub async fn prefer(&self, user: &str, choices: &Value) {
        let call = self
            .call("PATCH", "/v1/preferences")
            .token(&tokens::user(user));
        call.json(choices).send().await.expect(200);
    }

    /// Calls `POST /v1/conversations/{id}/{what}` as `user`.
    pub async fn in_conversation(
        &self,
        user: &str,
        (conversation, what): (&str, &str),
        body: &Value,
    ) -> crate::client::Reply {
        let path = format!("/v1/conversations/{conversation}/{what}");
        let call = self.post(&path).token(&tokens::user(user));
        call.json(body).send().await
    }
}

impl Reader {
    /// The next signal of this type.
    pub async fn heard(&mut self, event_type: &str) -> Value {
        loop {
            let signal = self.next_of(Kind::Signal).await.json;
            if signal["type"] == event_type {
                return signal;
            }
        }
    }

    /// Reads on to a `presence.changed` of `user` with this status, and gives its data.
    pub async fn sees(&mut self, user: &str, status: &str) -> Value {
        loop {
            let data = self.heard("presence.changed").await["data"].take();
            if data["user"] == user && data["status"] == status {
                return data;
            }
        }
    }

    /// Signals that `user`, who reads here, has been told until now, the badge left out.
    pub async fn until_mark(&mut self, server: &Server, user: &str) -> Vec<Value> {
        server.signal(user, MARK, json!(null)).await.expect(201);
        let mut told = Vec::new();
        loop {
            let signal = self.next_of(Kind::Signal).await.json;
            match signal["type"].as_str() {
                Some(MARK) => return told,
                Some("badge") => {}
                _ => told.push(signal),
            }
        }
    }

    /// Sends one op over this socket and gives the reply or the error to it.
    pub async fn ask(&mut self, op: Value) -> Value {
        let mut op = op;
        op["ref"] = json!("r");
        self.socket().send_text(&op.to_string()).await;
        loop {
            let delivery = self.next().await;
            if matches!(delivery.kind, Kind::Reply | Kind::Error | Kind::End) {
                return delivery.json;
            }
        }
    }
}

//! What the tests ask of the inbox, the preferences and the state, in one place.
//!
//! Promises: each call is one request and its reply came through `door`. Pages of the inbox and states are checked for
//! their form as they are read; what they should hold is the business of the tests.

use serde_json::{Value, json};

use crate::client::Reply;
use crate::delivery::{Delivery, Kind};
use crate::harness::{Options, Server};
use crate::reader::Reader;
use crate::tokens;

/// Servers on which one user may write as fast as a test does.
pub fn patient() -> Options {
    Options::new()
        .set("limits.user_writes_per_second", 1_000_000)
        .set("limits.user_writes_burst", 1_000_000)
}

impl Server {
    /// Notifies `user` of whatever `body` says.
    pub async fn try_notify(&self, user: &str, body: &Value) -> Reply {
        let call = self.post(&format!("/v1/users/{user}/notify"));
        call.token(&tokens::publisher()).json(body).send().await
    }

    pub async fn notify(&self, user: &str, kind: &str) -> Value {
        let body = json!({"kind": kind, "body": "x", "actor": {"id": format!("by-{kind}")}});
        self.try_notify(user, &body).await.expect(201)
    }

    /// Notifies so often and gives the ids, oldest first.
    pub async fn notify_times(&self, user: &str, kind: &str, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(text(&self.notify(user, kind).await["id"]));
        }
        ids
    }

    pub async fn try_inbox(&self, user: &str, query: &str) -> Reply {
        let call = self.get(&format!("/v1/notifications?{query}"));
        call.token(&tokens::user(user)).send().await
    }

    /// One page of the inbox.
    pub async fn inbox(&self, user: &str, query: &str) -> Value {
        let page = self.try_inbox(user, query).await.expect(200);
        assert!(
            page["unread"].is_u64() && page["more"].is_boolean(),
            "{page}"
        );
        for notification in page["notifications"].as_array().expect("a list") {
            assert!(notification["id"].is_string(), "{notification}");
            assert!(notification["read"].is_boolean(), "{notification}");
            assert!(notification["time"].is_string(), "{notification}");
        }
        page
    }

    pub async fn try_read(&self, user: &str, body: &Value) -> Reply {
        let call = self.post("/v1/notifications/read");
        call.token(&tokens::user(user)).json(body).send().await
    }

    /// Marks as read and gives how many are unread then.
    pub async fn mark_read(&self, user: &str, body: &Value) -> u64 {
        let reply = self.try_read(user, body).await.expect(200);
        reply["unread"]
            .as_u64()
            .unwrap_or_else(|| panic!("{reply}"))
    }

    pub async fn choose(&self, user: &str, change: &Value) -> Value {
        let call = self.call("PATCH", "/v1/preferences");
        let call = call.token(&tokens::user(user)).json(change);
        call.send().await.expect(200)
    }

    pub async fn state(&self, user: &str) -> Value {
        let call = self.get("/v1/state").token(&tokens::user(user));
        let state = call.send().await.expect(200);
        check_state(&state);
        state
    }

    pub async fn subscribe(&self, topic: &str, user: &str) {
        let path = format!("/v1/topics/{topic}/subscribers/{user}");
        let reply = self
            .call("PUT", &path)
            .token(&tokens::publisher())
            .send()
            .await;
        assert_eq!(reply.status, 204, "{reply:?}");
    }

    /// All retained events of the user after `cursor`.
    pub async fn events_after(&self, user: &str, cursor: &str) -> Vec<Value> {
        let (mut cursor, mut events) = (cursor.to_owned(), Vec::new());
        loop {
            let page = self
                .page(user, &format!("cursor={cursor}&wait=0&limit=1000"))
                .await;
            assert!(page["reset"].is_null(), "{page}");
            events.extend(page["events"].as_array().expect("a list").iter().cloned());
            if page["more"] == false {
                return events;
            }
            cursor = text(&page["cursor"]);
        }
    }

    /// The types of all retained events of the user, oldest first.
    pub async fn types_of(&self, user: &str) -> Vec<String> {
        let events = self.events_after(user, "start").await;
        events.iter().map(|event| text(&event["type"])).collect()
    }
}

impl Reader {
    /// The next event of this type; badges and control objects are skipped, another event is none.
    pub async fn event_of(&mut self, event_type: &str) -> Value {
        let event = self.events(1).await.remove(0).json;
        assert_eq!(event["type"], event_type, "{event}");
        event
    }

    /// Reads until a badge says this.
    pub async fn badge_of(&mut self, notifications: u64) {
        loop {
            let Delivery { json, .. } = self.next_of(Kind::Signal).await;
            if json["type"] == "badge" && json["data"]["notifications"] == notifications {
                return;
            }
        }
    }
}

#[track_caller]
pub fn check_state(state: &Value) {
    let known = [
        "user",
        "cursor",
        "badge",
        "conversations",
        "notifications",
        "presence",
        "preferences",
    ];
    for name in known {
        assert!(state.get(name).is_some(), "no {name} in {state}");
    }
    assert!(
        state["conversations"].is_array() && state["notifications"].is_array(),
        "{state}"
    );
    assert!(
        state["presence"].is_object() && state["preferences"].is_object(),
        "{state}"
    );
    for name in ["notifications", "messages", "conversations"] {
        assert!(state["badge"][name].is_u64(), "the {name} of {state}");
    }
}

#[track_caller]
pub fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

/// The ids of a page of the inbox or of a state.
pub fn ids(page: &Value) -> Vec<String> {
    let notifications = page["notifications"].as_array().expect("a list");
    notifications
        .iter()
        .map(|notification| text(&notification["id"]))
        .collect()
}

//! `POST /demo/act`: what an application's own backend would do, done for the demo's pages, whose users may not publish.
//!
//! Promises: answers exactly where `POST /demo/login` does, and nowhere else; each act is published by the same code,
//! with the same checks and the same pace, as what a backend publishes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::event::UserId;
use crate::http::body::StrictJson;
use crate::http::error::Problem;
use crate::http::notify;
use crate::http::publish::{Request, new_id};
use crate::http::session::must_be_demo;
use crate::http::state::App;

const FEED: &str = "feed:demo";
const ORDERS: &str = "entity:orders";

/// What is done, and by whom.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Act {
    Post {
        user: UserId,
        text: String,
    },
    Like {
        user: UserId,
        post: String,
        likes: u32,
    },
    Notify {
        user: UserId,
        to: UserId,
        notification: Map<String, Value>,
    },
    Entity {
        user: UserId,
        action: String,
        entity: String,
        id: String,
        version: u64,
    },
    /// Any event to one user, for the page that shows frames.
    Event {
        user: UserId,
        to: UserId,
        r#type: String,
        data: Value,
    },
}

pub async fn act(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    StrictJson(act): StrictJson<Act>,
) -> Result<Response, Problem> {
    must_be_demo(&app, &headers)?;
    let user = act.user();
    let request = Request {
        app: &app,
        caller: user,
        idempotency_key: None,
    };
    match &act {
        Act::Notify {
            to, notification, ..
        } => {
            let mut notification = notification.clone();
            notification.insert("actor".to_owned(), json!({ "id": user.as_str() }));
            let text = Value::Object(notification).to_string();
            notify::send(&request, to.clone(), &text).await
        }
        other => request.json(&other.item(&app).to_string()).await,
    }
}

impl Act {
    fn user(&self) -> &UserId {
        match self {
            Act::Post { user, .. }
            | Act::Like { user, .. }
            | Act::Notify { user, .. }
            | Act::Entity { user, .. }
            | Act::Event { user, .. } => user,
        }
    }

    /// The item that a backend would publish.
    fn item(&self, app: &App) -> Value {
        let actor = json!({ "id": self.user().as_str() });
        match self {
            Act::Post { text, .. } => {
                // A key of its own, so that a digest holds the whole post and not its id alone.
                let id = new_id(app, app.clock.now_ms());
                json!({ "to": { "topic": FEED }, "type": "feed.post", "id": id.as_str(), "collapse_key": id.as_str(),
                        "actor": actor, "data": { "text": text } })
            }
            Act::Like { post, likes, .. } => {
                json!({ "to": { "topic": FEED }, "type": "feed.likes", "collapse_key": format!("likes:{post}"),
                        "actor": actor, "data": { "post": post, "likes": likes } })
            }
            Act::Entity {
                action,
                entity,
                id,
                version,
                ..
            } => {
                json!({ "to": { "topic": ORDERS }, "type": format!("entity.{action}"), "actor": actor,
                        "data": { "entity": entity, "id": id, "version": version } })
            }
            Act::Event {
                to, r#type, data, ..
            } => {
                json!({ "to": { "user": to.as_str() }, "type": r#type, "actor": actor, "data": data })
            }
            Act::Notify { .. } => unreachable!("a notification is no published item"),
        }
    }
}

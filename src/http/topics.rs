//! Durable subscriptions over HTTP: `PUT`/`DELETE …/subscribers/{user}` and the list of a topic's subscribers.
//!
//! Promises: a success means stable; subscribing twice is subscribing once; a long list comes in pages.

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::event::{Topic, UserId};
use crate::features::acquaintance;
use crate::features::subscribe::{self, Change};
use crate::http::caller::Caller;
use crate::http::error::Problem;
use crate::http::state::App;

/// Subscribers told in one page.
const PAGE_MAX: usize = 1_000;

pub async fn subscribe(
    state: State<Arc<App>>,
    path: Path<(String, String)>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    change(state, path, caller, Change::Join).await
}

pub async fn unsubscribe(
    state: State<Arc<App>>,
    path: Path<(String, String)>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    change(state, path, caller, Change::Leave).await
}

async fn change(
    State(app): State<Arc<App>>,
    Path((topic, user)): Path<(String, String)>,
    caller: Caller,
    change: Change,
) -> Result<StatusCode, Problem> {
    let topic: Topic = topic.parse()?;
    let user: UserId = user.parse()?;
    if !subscribe::is_allowed(&caller.claims, &topic, &user, change) {
        let message = "this needs the scope publish, or one's own user and a topic that the token's topics name";
        return Err(Problem::forbidden(message));
    }
    change_of(&app, topic, user, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes a subscription, over HTTP and on sockets alike. One to a user's presence is told how that is.
pub async fn change_of(
    app: &App,
    topic: Topic,
    user: UserId,
    change: Change,
) -> Result<(), Problem> {
    let watched = acquaintance::of_topic(&topic).filter(|_| change == Change::Join);
    subscribe::change(&app.store, topic, user.clone(), change).await?;
    if let (Some(watched), Some(watcher)) = (watched, app.store.find(&user)) {
        app.presence.watched(app.store.find(&watched), watcher);
    }
    Ok(())
}

#[derive(Deserialize)]
pub struct ListQuery {
    #[serde(default)]
    after: Option<String>,
}

/// A page of subscribers in the order in which the server came to know them; `next` names the last of a full page.
pub async fn list(
    State(app): State<Arc<App>>,
    Path(topic): Path<String>,
    Query(query): Query<ListQuery>,
    caller: Caller,
) -> Result<JsonBody<Value>, Problem> {
    caller.must_publish()?;
    let topic: Topic = topic.parse()?;
    let after = match query.after {
        None => None,
        Some(name) => Some(
            app.store
                .find(&name.parse()?)
                .ok_or_else(Problem::not_found)?,
        ),
    };
    let users = app
        .store
        .subscribers(topic.clone(), after, PAGE_MAX)
        .await?;
    let names: Vec<UserId> = users.iter().map(|user| app.store.name(*user)).collect();
    let next = names.last().filter(|_| names.len() == PAGE_MAX).cloned();
    Ok(JsonBody(
        json!({ "topic": topic, "subscribers": names, "next": next }),
    ))
}

//! `GET` and `PATCH /v1/preferences`: what the caller chose, over HTTP.
//!
//! Promises: a change names some choices and keeps the others; unknown names are refused; the answer is always the
//! whole.

use std::sync::Arc;

use crate::features::preferences::{self, Change};
use crate::http::body::StrictJson;
use crate::http::caller::Caller;
use crate::http::error::Problem;
use crate::http::presence;
use crate::http::state::App;
use axum::Json as JsonBody;
use axum::extract::State;
use serde_json::{Value, json};

pub async fn show(State(app): State<Arc<App>>, caller: Caller) -> Result<JsonBody<Value>, Problem> {
    let user = app.store.log(caller.user()).await?;
    let look = move |transaction: &mut crate::store::transaction::Transaction<'_>| {
        preferences::of(transaction, user)
    };
    Ok(JsonBody(json!(app.store.look(look).await?)))
}

pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    StrictJson(change): StrictJson<Change>,
) -> Result<JsonBody<Value>, Problem> {
    change.check()?;
    let user = caller.user().clone();
    let changed =
        preferences::change(&app.store, &app.feeds.auto, &app.random, user, change).await?;
    presence::chosen(&app, caller.user(), &changed);
    Ok(JsonBody(json!(changed)))
}

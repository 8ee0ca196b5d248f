//! `GET` and `PATCH /v1/preferences`: what the caller chose, over HTTP.
//!
//! Promises: a change names some choices and keeps the others; unknown names are refused; the answer is always the
//! whole.

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::State;
use serde_json::{Value, json};
use utoipa::openapi::HttpMethod::{Get, Patch};

use crate::features::preferences::{self, Change};
use crate::http::body::StrictJson;
use crate::http::caller::Caller;
use crate::http::docs::Access::User;
use crate::http::docs::Route;
use crate::http::error::Problem;
use crate::http::state::App;

pub fn routes() -> Vec<Route> {
    vec![
        Route::new("Reading", User, (Get, "/v1/preferences"), show)
            .says("One's choices", "")
            .gives::<Value>(200, "All of them."),
        Route::new("Reading", User, (Patch, "/v1/preferences"), change)
            .says("Choose", "What is not named stays as it is.")
            .takes::<Value>()
            .gives::<Value>(200, "All of them."),
    ]
}

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
    let user = caller.user().clone();
    let changed = preferences::change(&app.store, user, change).await?;
    Ok(JsonBody(json!(changed)))
}

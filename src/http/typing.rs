//! `POST /v1/conversations/{id}/typing` and the op `typing`.
//!
//! Promises: typing has a pace of its own and never uses up the caller's writes; a start that repeats another too soon
//! is answered like any other. Whoever is not a member is told what it would be told of no conversation.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::openapi::HttpMethod::Post;

use crate::event::ConversationId;
use crate::features::typing::TypingError;
use crate::features::typists::Change;
use crate::http::body::StrictJson;
use crate::http::caller::Unpaced;
use crate::http::conversations::REFUSALS;
use crate::http::docs::Access::User;
use crate::http::docs::{Route, schemas};
use crate::http::error::Problem;
use crate::http::state::App;
use crate::token::Claims;

pub fn routes() -> Vec<Route> {
    let path = "/v1/conversations/{id}/typing";
    vec![
        Route::new("Typing", User, (Post, path), typing)
            .says(
                "Start or stop typing",
                "A `typing.start` or `typing.stop` to the other members, none of it logged. Repeats within `typing.repeat_seconds` are swallowed.",
            )
            .takes::<schemas::Typing>()
            .done(204, "Taken; nothing is said about who hears it.")
            .refuses(REFUSALS)
            .refuses("invalid_state"),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    state: String,
}

pub async fn typing(
    State(app): State<Arc<App>>,
    Path(conversation): Path<String>,
    Unpaced(caller): Unpaced,
    StrictJson(request): StrictJson<Request>,
) -> Result<StatusCode, Problem> {
    typing_of(&app, &caller.claims, &conversation, &request.state).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller types or has stopped, over HTTP and on sockets alike.
pub async fn typing_of(
    app: &App,
    claims: &Claims,
    conversation: &str,
    state: &str,
) -> Result<(), Problem> {
    let change = match state {
        "start" => Change::Start,
        "stop" => Change::Stop,
        _ => {
            let message = "state is start or stop";
            return Err(Problem::bad_request("invalid_state", message));
        }
    };
    let conversation: ConversationId = conversation.parse()?;
    let changed = app
        .typing
        .change(&app.store, claims.sub.clone(), conversation, change);
    changed.await.map_err(|error| match error {
        TypingError::Unknown => Problem::not_found(),
        TypingError::Store(error) => error.into(),
    })
}

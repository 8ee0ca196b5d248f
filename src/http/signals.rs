//! `POST /v1/conversations/{id}/signals` and the op `signal`.
//!
//! Promises: signals have a pace of their own, so that they are never refused for their rate and never use up the
//! caller's writes; data is checked as strictly as that of events. Whoever is not a member is told what it would be
//! told of no conversation.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::openapi::HttpMethod::Post;

use crate::event::{ConversationId, Json};
use crate::features::pointers::{DATA_BYTES_MAX, Kind, PointerError};
use crate::http::body::StrictJson;
use crate::http::caller::Unpaced;
use crate::http::conversations::REFUSALS;
use crate::http::docs::Access::User;
use crate::http::docs::{Route, schemas};
use crate::http::error::Problem;
use crate::http::state::App;
use crate::limits::RetryAfter;
use crate::token::Claims;

pub fn routes() -> Vec<Route> {
    let path = "/v1/conversations/{id}/signals";
    vec![
        Route::new("Signals", User, (Post, path), signal)
            .says(
                "Tell a live value",
                "A `signal.<kind>` to the other members, none of it logged; of one user and kind the latest wins, at most 20 a second.",
            )
            .takes::<schemas::LiveSignal>()
            .done(204, "Taken; nothing is said about who hears it.")
            .refuses(REFUSALS)
            .refuses("invalid_kind invalid_data signal_too_large rate_limited"),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    kind: String,
    #[serde(default)]
    data: Option<Box<RawValue>>,
}

/// The op `signal`, whose data must not be taken apart on the way.
#[derive(Deserialize)]
pub struct Op {
    conversation: String,
    kind: String,
    #[serde(default)]
    data: Option<Box<RawValue>>,
}

pub async fn signal(
    State(app): State<Arc<App>>,
    Path(conversation): Path<String>,
    Unpaced(caller): Unpaced,
    StrictJson(Request { kind, data }): StrictJson<Request>,
) -> Result<StatusCode, Problem> {
    let op = Op {
        conversation,
        kind,
        data,
    };
    signal_of(&app, &caller.claims, op).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells the other members a value, over HTTP and on sockets alike.
pub async fn signal_of(app: &App, claims: &Claims, op: Op) -> Result<(), Problem> {
    let kind: Kind = op.kind.parse()?;
    let data = op.data.as_deref();
    let data = data.map_or_else(|| Ok(Json::null()), Json::checked)?;
    if data.as_str().len() > DATA_BYTES_MAX {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        let message = "the data of a signal is at most 4096 bytes";
        return Err(Problem::new(status, "signal_too_large", message));
    }
    let conversation: ConversationId = op.conversation.parse()?;
    let told = app
        .pointers
        .tell(&app.store, claims.sub.clone(), (conversation, kind), data);
    told.await.map_err(|error| match error {
        PointerError::Unknown => Problem::not_found(),
        PointerError::Full => Problem::rate_limited(RetryAfter(Duration::from_secs(1))),
        PointerError::Store(error) => error.into(),
    })
}

//! A person's rights: `GET /v1/users/{id}/export` and `DELETE /v1/users/{id}`.
//!
//! Promises: for the person itself and for administrators; everyone else is told what it would be told of a user who
//! never was. An erasure is answered when all of it is on stable storage; asked for again it is answered alike.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::event::UserId;
use crate::features::erase::{EraseError, Erasures};
use crate::features::export::Export;
use crate::http::caller::Caller;
use crate::http::error::Problem;
use crate::http::events::stream_response;
use crate::http::state::App;
use crate::store::shared::StoreError;

/// Exports written at a time.
const EXPORTS_MAX: usize = 4;

/// What one server keeps for people who take their data along or away.
pub struct Privacy {
    pub erasures: Erasures,
    /// Places for exports.
    exports: Arc<Semaphore>,
}

impl Default for Privacy {
    fn default() -> Privacy {
        Privacy {
            erasures: Erasures::default(),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
        }
    }
}

/// The user that a path names, if the caller may ask about it.
fn subject(caller: &Caller, user: &str) -> Result<UserId, Problem> {
    let user: UserId = user.parse()?;
    match caller.claims.scope.is_admin() || *caller.user() == user {
        true => Ok(user),
        false => Err(Problem::not_found()),
    }
}

/// `GET /v1/users/{id}/export`: all that is kept about the user, one JSON object a line.
pub async fn export(
    State(app): State<Arc<App>>,
    Path(user): Path<String>,
    caller: Caller,
) -> Result<axum::response::Response, Problem> {
    let user = subject(&caller, &user)?;
    let place = Arc::clone(&app.privacy.exports).try_acquire_owned();
    let place = place.map_err(|_| busy("other exports are being written"))?;
    let export = Export::begin(&app.store, &app.revocations, &user).await?;
    let mut export = export.ok_or_else(Problem::not_found)?;
    let body = async_stream::stream! {
        let _place = place;
        loop {
            match export.page().await {
                Ok(Some(lines)) => yield Ok::<Bytes, StoreError>(lines.into()),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "an export was cut short: the store cannot be read");
                    yield Err(error);
                    break;
                }
            }
        }
    };
    Ok(stream_response(
        Body::from_stream(body),
        "application/x-ndjson",
    ))
}

/// `DELETE /v1/users/{id}`: takes away everything about the user.
pub async fn erase(
    State(app): State<Arc<App>>,
    Path(user): Path<String>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    let user = subject(&caller, &user)?;
    app.tickets.erase(&app.store, &user).await?;
    let erasures = &app.privacy.erasures;
    let Some(number) = erasures.begin(&app.store, &user).await? else {
        return Ok(StatusCode::NO_CONTENT);
    };
    app.connections.erase_user(number);
    app.presence.forget(number);
    tokio::select! {
        biased;
        () = erasures.finished(number) => Ok(StatusCode::NO_CONTENT),
        () = app.store.failure() => Err(StoreError::Failed(String::new()).into()),
    }
}

impl From<EraseError> for Problem {
    fn from(error: EraseError) -> Problem {
        match error {
            EraseError::TooMany => busy("too many erasures are waiting for their turn"),
            EraseError::Store(error) => error.into(),
        }
    }
}

pub fn busy(message: &str) -> Problem {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Problem::new(status, "busy", message).retry_after(Duration::from_secs(5))
}

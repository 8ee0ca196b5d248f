//! Operation: health, readiness, metrics, the state, acks, and the acts of an administrator.
//!
//! Promises: readiness is red while publishes would be refused; a revocation is on stable storage before it is
//! answered. What is told here names no user and no token.

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::parse_time;
use crate::event::{ConnId, Key, UserId};
use crate::features::ack;
use crate::features::snapshot::snapshot;
use crate::http::body::StrictJson;
use crate::http::caller::Caller;
use crate::http::error::Problem;
use crate::http::state::App;
use crate::id::Position;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process answers.
pub async fn health() -> JsonBody<Value> {
    JsonBody(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// The server takes publishes: it is not draining, its disk has room and has not failed.
pub async fn ready(State(app): State<Arc<App>>) -> Result<JsonBody<Value>, Problem> {
    let refused = |code, message: &str| {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        Err(problem.retry_after(std::time::Duration::from_secs(2)))
    };
    if app.store.has_failed() {
        return refused("store_failed", "a write to the data directory failed");
    }
    if app.connections.is_draining() {
        return Err(Problem::draining());
    }
    if app.store.is_full() {
        return refused(
            "not_ready",
            "the disk is nearly full: publishes are refused",
        );
    }
    Ok(JsonBody(json!({ "status": "ready" })))
}

pub async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let encoded = encoded(&app).await?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], encoded).into_response())
}

/// All metrics as they are now, in the text that `/metrics` gives.
pub async fn encoded(app: &App) -> Result<String, Problem> {
    let metrics = &app.metrics;
    metrics.logs.set(i64::from(app.store.logs()));
    metrics.is_disk_full.set(i64::from(app.store.is_full()));
    let store = app.store.clone();
    let looked =
        tokio::task::spawn_blocking(move || (store.disk_bytes(), store.unsynced_values())).await;
    let (disk_bytes, unsynced_values) = looked.unwrap_or_default();
    let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.disk_bytes.set(gauge(disk_bytes));
    metrics.unsynced_values.set(gauge(unsynced_values));
    metrics.encode().map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "the metrics could not be written",
        )
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    cursor: String,
    #[serde(default)]
    device: Option<Key>,
}

/// `POST /v1/ack`: everything up to the cursor reached this device.
pub async fn ack(
    State(app): State<Arc<App>>,
    caller: Caller,
    StrictJson(request): StrictJson<Ack>,
) -> Result<JsonBody<Value>, Problem> {
    let user = app.store.log(caller.user()).await?;
    let acked = ack_of(&app, user, &request.cursor, request.device).await?;
    Ok(JsonBody(json!({ "cursor": acked.to_string() })))
}

/// The ack of a reader, over HTTP and on sockets alike.
pub async fn ack_of(
    app: &App,
    user: crate::id::UserNo,
    cursor: &str,
    device: Option<Key>,
) -> Result<Position, Problem> {
    let malformed = |_| {
        Problem::bad_request(
            "invalid_cursor",
            "cursor must be <epoch>-<seq>, as events carry it",
        )
    };
    let position: Position = cursor.parse().map_err(malformed)?;
    let acked = ack::ack(&app.store, user, device, position).await;
    let acked = acked.map_err(|error| match error {
        ack::AckError::Store(error) => error.into(),
        other => Problem::new(StatusCode::CONFLICT, "cursor_not_here", other.to_string()),
    })?;
    // The senders of what it passed hear of it with the acks that readers give by resuming.
    app.acks.note(user, acked.seq);
    Ok(acked)
}

/// `GET /v1/state`: everything a client shows, and the cursor from which it goes on.
pub async fn state(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    let user = app.store.log(caller.user()).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((
        headers,
        snapshot(&app.store, &app.presence, user).await?.json,
    )
        .into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    #[serde(default)]
    user: Option<UserId>,
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    issued_before: Option<Value>,
}

/// `POST /v1/admin/revoke`: refuses tokens from now on and ends their streams.
pub async fn revoke(
    State(app): State<Arc<App>>,
    caller: Caller,
    StrictJson(request): StrictJson<Revoke>,
) -> Result<StatusCode, Problem> {
    caller.must_administer()?;
    let now_ms = app.clock.wall_ms();
    match (request.user, request.jti) {
        (Some(user), None) => {
            let before_ms = request
                .issued_before
                .map_or(Ok(now_ms), |time| read_time(&time))?;
            app.revocations
                .revoke_user(&app.store, &user, before_ms)
                .await?;
            if let Some(user) = app.store.find(&user) {
                app.connections.revoke_user(user, before_ms);
            }
        }
        (None, Some(jti)) if (1..=256).contains(&jti.len()) => {
            app.revocations
                .revoke_token(&app.store, &jti, now_ms)
                .await?;
            app.connections.revoke_token(&jti);
        }
        _ => {
            return Err(Problem::bad_request(
                "invalid_revocation",
                "name either user or jti",
            ));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// RFC 3339, Unix milliseconds, or Unix seconds as a token's `iat` has them.
fn read_time(value: &Value) -> Result<u64, Problem> {
    /// A number below this is in seconds: in milliseconds it would be a day in 1973.
    const SECONDS_BELOW: u64 = 100_000_000_000;
    let time = match value {
        Value::String(text) => parse_time(text),
        Value::Number(number) => number.as_u64(),
        _ => None,
    };
    let refused = || {
        Problem::bad_request(
            "invalid_revocation",
            "issued_before is RFC 3339 or Unix seconds or milliseconds",
        )
    };
    let time = time.ok_or_else(refused)?;
    Ok(if time < SECONDS_BELOW {
        time * 1_000
    } else {
        time
    })
}

/// `DELETE /v1/admin/connections/{conn}`: ends one stream.
pub async fn disconnect(
    State(app): State<Arc<App>>,
    Path(conn): Path<String>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    caller.must_administer()?;
    let conn: ConnId = conn.parse()?;
    match app.connections.disconnect(&conn) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found()),
    }
}

//! Ways to carry a token: the cookie session, its refresh on open streams, and tickets.
//!
//! Promises: the cookie is out of reach for scripts and other sites; a refresh prolongs only a stream of the same user;
//! neither tokens nor tickets are ever logged.

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use crate::clock::rfc3339;
use crate::event::{ConnId, UserId};
use crate::features::ticket::{FIRST_USE_MS, IssueError};
use crate::http::body::StrictJson;
use crate::http::caller::{COOKIE, Caller, peer};
use crate::http::error::Problem;
use crate::http::state::App;
use crate::token::{Grant, mint};

/// Headers by which a proxy says that it is one.
const FORWARDED: [&str; 4] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-real-ip",
];
/// How long a token of the demo is good.
const DEMO_TOKEN_SECONDS: u64 = 12 * 3600;

/// `POST /v1/session`: puts the bearer token of this request into the cookie.
pub async fn create(State(app): State<Arc<App>>, mut parts: Parts) -> Result<Response, Problem> {
    let token = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .map(|(_, token)| token.trim().to_owned());
    let caller = Caller::from_request_parts(&mut parts, &app).await?;
    let token = token.ok_or_else(Problem::unauthorized)?;
    let left_seconds = caller.claims.expires_ms.saturating_sub(app.clock.wall_ms()) / 1_000;
    let cookie = format!(
        "{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={left_seconds}{}",
        secure(&parts)
    );
    let told =
        json!({ "user": caller.user().as_str(), "expires": rfc3339(caller.claims.expires_ms) });
    with_cookie(JsonBody(told).into_response(), &cookie)
}

/// `DELETE /v1/session`: the browser forgets the cookie.
pub async fn remove(parts: Parts) -> Result<Response, Problem> {
    let cookie = format!(
        "{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{}",
        secure(&parts)
    );
    with_cookie(StatusCode::NO_CONTENT.into_response(), &cookie)
}

fn with_cookie(mut response: Response, cookie: &str) -> Result<Response, Problem> {
    let value = HeaderValue::from_str(cookie).map_err(|_| Problem::unauthorized())?;
    response.headers_mut().insert(header::SET_COOKIE, value);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `; Secure`, unless the browser speaks plain HTTP to the machine it runs on.
fn secure(parts: &Parts) -> &'static str {
    let is_local =
        peer(parts).ip().to_canonical().is_loopback() && is_loopback_host(&parts.headers);
    if is_local { "" } else { "; Secure" }
}

fn is_loopback_host(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("");
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name == "[::1]" || name.starts_with("127.")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    conn: ConnId,
}

/// `POST /v1/session/refresh`: the new token of this request prolongs an open stream.
pub async fn refresh(
    State(app): State<Arc<App>>,
    caller: Caller,
    StrictJson(refresh): StrictJson<Refresh>,
) -> Result<JsonBody<serde_json::Value>, Problem> {
    let connection = app.connections.find(&refresh.conn);
    // A stream of someone else is not told apart from one that does not exist.
    let own =
        connection.filter(|connection| app.store.find(caller.user()) == Some(connection.user));
    let connection = own.ok_or_else(Problem::not_found)?;
    app.connections.prolong(&connection, &caller.claims);
    Ok(JsonBody(
        json!({ "conn": refresh.conn.as_str(), "auth_expires": rfc3339(caller.claims.expires_ms) }),
    ))
}

/// `POST /v1/tickets`: a way to open a stream where no header can be sent.
pub async fn ticket(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<
    (
        [(header::HeaderName, &'static str); 1],
        JsonBody<serde_json::Value>,
    ),
    Problem,
> {
    let issued = app
        .tickets
        .issue(&app.store, &app.random, &caller.claims)
        .await;
    let ticket = issued.map_err(|error| match error {
        IssueError::Store(error) => error.into(),
        IssueError::TooMany(error) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_tickets",
            error.to_string(),
        )
        .retry_after(std::time::Duration::from_millis(FIRST_USE_MS)),
    })?;
    let left_ms = caller.claims.expires_ms.saturating_sub(app.clock.wall_ms());
    let body = json!({ "ticket": ticket, "expires_in": left_ms.min(FIRST_USE_MS).div_ceil(1_000) });
    Ok(([(header::CACHE_CONTROL, "no-store")], JsonBody(body)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    user: UserId,
}

/// Behind a proxy that says so the demo is off, for then "loopback" is the proxy and not the person, unless the
/// configuration allows that.
pub fn must_be_demo(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let is_forwarded = FORWARDED.iter().any(|name| headers.contains_key(*name));
    match app.config.demo.enabled && (!is_forwarded || app.config.demo.allow_public) {
        true => Ok(()),
        false => Err(Problem::not_found()),
    }
}

/// `POST /demo/login`: anyone is whoever they say, where the demo is on.
pub async fn demo_login(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    StrictJson(login): StrictJson<Login>,
) -> Result<JsonBody<serde_json::Value>, Problem> {
    must_be_demo(&app, &headers)?;
    let now_s = app.clock.wall_ms() / 1_000;
    let grant = Grant {
        sub: login.user,
        scope: String::new(),
        topics: vec!["*".to_owned()],
        expires_s: now_s + DEMO_TOKEN_SECONDS,
        issued_s: now_s,
        jti: Some(app.random.hex(16)),
        issuer: app.config.auth.issuer.clone(),
        audience: app.config.auth.audience.clone(),
    };
    let token = mint(&app.secret, &grant);
    Ok(JsonBody(
        json!({ "token": token, "user": grant.sub.as_str(), "expires": rfc3339(grant.expires_s * 1_000) }),
    ))
}

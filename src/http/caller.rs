//! Who is asking: the token behind a request, however it came.
//!
//! Promises: nobody is anybody without a good signature; a cookie is believed for writes and sockets only with an
//! allowed `Origin`; a ticket reads and does nothing else. Refusals look alike whatever their reason.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};

use crate::event::UserId;
use crate::features::revoke::Revoked;
use crate::features::ticket::Riding;
use crate::http::error::Problem;
use crate::http::state::App;
use crate::token::Claims;

pub const COOKIE: &str = "tidings";

/// The identity behind a request.
pub struct Caller {
    pub claims: Claims,
    /// The ticket that opened a stream, held as long as the stream lives.
    pub riding: Option<Riding>,
}

/// Why a reader is not let in.
pub enum Refusal {
    /// The user was revoked: an `EventSource` must stop for good.
    RevokedUser,
    Problem(Problem),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal::Problem(problem)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        match refusal {
            Refusal::RevokedUser => Problem::unauthorized(),
            Refusal::Problem(problem) => problem,
        }
    }
}

/// Credentials as a request may carry them.
#[derive(Default)]
pub struct Credentials<'a> {
    pub ticket: Option<&'a str>,
    pub query_token: Option<&'a str>,
    /// A token in `Sec-WebSocket-Protocol`.
    pub subprotocol_token: Option<&'a str>,
}

/// How strictly a cookie must prove where the request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieRule {
    /// Reading: the browser's SameSite rule is enough.
    Plain,
    /// Writing, or a socket: an allowed `Origin` must be named.
    NeedsOrigin,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Caller, Problem> {
        let Unpaced(caller) = Unpaced::from_request_parts(parts, app).await?;
        if !is_reading(parts) && !caller.claims.scope.may_publish() {
            app.limits
                .user_write(&caller.claims.sub)
                .map_err(Problem::rate_limited)?;
        }
        Ok(caller)
    }
}

/// A caller whose writes are not counted: what it asks for has a pace of its own.
pub struct Unpaced(pub Caller);

impl FromRequestParts<Arc<App>> for Unpaced {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Unpaced, Problem> {
        let rule = match is_reading(parts) {
            true => CookieRule::Plain,
            false => CookieRule::NeedsOrigin,
        };
        let identified = identify(
            app,
            &parts.headers,
            peer(parts),
            &Credentials::default(),
            rule,
        )
        .await;
        Ok(Unpaced(identified.map_err(Problem::from)?))
    }
}

fn is_reading(parts: &Parts) -> bool {
    matches!(parts.method, Method::GET | Method::HEAD)
}

impl Caller {
    pub fn user(&self) -> &UserId {
        &self.claims.sub
    }

    pub fn must_publish(&self) -> Result<(), Problem> {
        match self.claims.scope.may_publish() {
            true => Ok(()),
            false => Err(Problem::forbidden(
                "this needs a token with the scope publish",
            )),
        }
    }

    pub fn must_administer(&self) -> Result<(), Problem> {
        match self.claims.scope.is_admin() {
            true => Ok(()),
            false => Err(Problem::forbidden(
                "this needs a token with the scope admin",
            )),
        }
    }
}

/// The address at the other end of the connection.
pub fn peer(parts: &Parts) -> SocketAddr {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(unknown, |info| info.0)
}

/// Finds the token of a request and judges it.
pub async fn identify(
    app: &App,
    headers: &HeaderMap,
    peer: SocketAddr,
    credentials: &Credentials<'_>,
    rule: CookieRule,
) -> Result<Caller, Refusal> {
    if headers.contains_key(header::AUTHORIZATION) {
        return verify(app, peer, bearer(headers)).await;
    }
    if credentials.subprotocol_token.is_some() {
        return verify(app, peer, credentials.subprotocol_token).await;
    }
    if let Some(ticket) = credentials.ticket {
        return match app.tickets.ride(&app.store, &app.clock, ticket).await {
            Some((claims, riding)) => admit(app, claims, Some(riding)),
            None => Err(refuse(app, peer).into()),
        };
    }
    if let Some(token) = credentials
        .query_token
        .filter(|_| app.config.auth.allow_query_token)
    {
        return verify(app, peer, Some(token)).await;
    }
    let token = cookie(headers);
    if token.is_some() && rule == CookieRule::NeedsOrigin && !is_origin_allowed(app, headers) {
        return Err(
            Problem::forbidden("a cookie is believed here only from an allowed Origin").into(),
        );
    }
    verify(app, peer, token).await
}

/// Judges one token; a wrong or missing one counts against the address that sent it.
pub async fn verify(app: &App, peer: SocketAddr, token: Option<&str>) -> Result<Caller, Refusal> {
    let Some(token) = token else {
        return Err(refuse(app, peer).into());
    };
    #[cfg(feature = "faults")]
    if let Some(caller) = unverified(token) {
        return Ok(caller);
    }
    match app.verifier.verify(token, app.clock.wall_ms()).await {
        Ok(claims) => admit(app, claims, None),
        Err(refused) => {
            tracing::debug!(cause = %refused, "a token was refused");
            Err(refuse(app, peer).into())
        }
    }
}

fn admit(app: &App, claims: Claims, riding: Option<Riding>) -> Result<Caller, Refusal> {
    match app.revocations.check(&claims) {
        None => Ok(Caller { claims, riding }),
        Some(Revoked::User) => Err(Refusal::RevokedUser),
        Some(Revoked::Token) => Err(Problem::unauthorized().into()),
    }
}

/// A good token is always let through, so that nobody behind a shared address is locked out by others' failures.
fn refuse(app: &App, peer: SocketAddr) -> Problem {
    match app.limits.auth_allowed(peer.ip()) {
        Ok(()) => {
            app.limits.auth_failure(peer.ip());
            Problem::unauthorized()
        }
        Err(after) => Problem::rate_limited(after),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = str::from_utf8(values.next()?.as_bytes()).ok()?;
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    let is_only = values.next().is_none();
    (is_only && scheme.eq_ignore_ascii_case("Bearer ")).then(|| token.trim_ascii())
}

pub fn has_cookie(headers: &HeaderMap) -> bool {
    cookie(headers).is_some()
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = values
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, token)| token)
        .filter(|token| !token.is_empty())
}

/// Whether the page that sent this is one of ours or of those in `server.allowed_origins`.
pub fn is_origin_allowed(app: &App, headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (
        origins.next().and_then(|origin| origin.to_str().ok()),
        origins.next(),
    ) else {
        return false;
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let origin_host = origin.split_once("://").map(|(_, host)| host);
    let is_own = origin_host.is_some() && origin_host == host;
    is_own
        || app
            .config
            .server
            .allowed_origins
            .iter()
            .any(|allowed| allowed == origin)
}

/// The mutant that reads what a token says without looking at who signed it.
#[cfg(feature = "faults")]
fn unverified(token: &str) -> Option<Caller> {
    if !crate::store::committer::is_mutant("mutant_replay_without_auth") {
        return None;
    }
    let claims = crate::token::unverified(token)?;
    let claims = Claims {
        sub: claims["sub"].as_str()?.parse().ok()?,
        scope: crate::token::Scopes::parse(claims["scope"].as_str().unwrap_or("")),
        expires_ms: u64::MAX,
        issued_ms: None,
        jti: None,
        topics: Vec::new(),
    };
    Some(Caller {
        claims,
        riding: None,
    })
}

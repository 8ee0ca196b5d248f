//! What happens to a request before it reaches its handler, in order; the routes themselves are in `routes`.
//!
//! Promises: a request has an id, its log line has no query and no token, a panic in a handler becomes a 500 that is
//! counted, and every refusal is a problem object. What a route means is its handler's business.

pub mod admin;
pub mod body;
pub mod caller;
pub mod commands;
pub mod connections;
pub mod conversations;
pub mod demo;
pub mod docs;
pub mod error;
pub mod events;
pub mod frames;
pub mod handshake;
pub mod heartbeat;
pub mod inbox_routes;
pub mod link;
pub mod messages;
pub mod notifications;
pub mod notify;
pub mod operation_routes;
pub mod ops;
pub mod pages;
pub mod poll;
pub mod preferences;
pub mod presence;
pub mod privacy;
pub mod publish;
pub mod publishing_routes;
pub mod reading_routes;
pub mod receipt;
pub mod routes;
pub mod session;
pub mod signals;
pub mod socket;
pub mod state;
pub mod stream;
pub mod streaming;
pub mod topics;
pub mod trace;
pub mod typing;
pub mod watching_routes;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, Method, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tower::{Layer, Service};
use tower_http::cors::{AllowOrigin, Cors, CorsLayer};

use crate::http::error::{Problem, REQUEST_ID};
use crate::http::state::App;
use crate::metrics::Refusal;

/// What the answer to a request depends on, as `CorsLayer` tells it.
const VARY: &str = "origin, access-control-request-method, access-control-request-headers";
/// A refused body is read to its end up to this many times the limit.
const READ_AWAY_FACTOR: u64 = 4;
const READ_ALIASES: [(&str, &str); 3] = [
    ("/api/v1/realtime/poll", "format=json&wait=30"),
    ("/api/v1/realtime/stream", "format=sse"),
    ("/api/v1/events/missed", "format=json&wait=0"),
];

/// Paths of older documents lead to the same handler, with the query that they stood for.
fn aliases(app: &Arc<App>) -> Router<Arc<App>> {
    let add = |router: Router<Arc<App>>, (path, query): (&'static str, &'static str)| {
        let app = Arc::clone(app);
        let handler = move |mut request: Request| {
            let given = request
                .uri()
                .query()
                .map(|given| format!("&{given}"))
                .unwrap_or_default();
            // A parameter named twice would be refused, so the alias only adds what was not given.
            let added = query.split('&').filter(|pair| {
                let name = pair.split('=').next().unwrap_or(pair);
                !given.contains(&format!("&{name}="))
            });
            let added: Vec<&str> = added.collect();
            let query = format!("{}{given}", added.join("&"));
            if let Ok(uri) = format!("/v1/events?{}", query.trim_start_matches('&')).parse() {
                *request.uri_mut() = uri;
            }
            events::read(State(app), request)
        };
        router.route(path, get(handler))
    };
    READ_ALIASES.into_iter().fold(Router::new(), add)
}

/// The whole of HTTP: every request goes through the guard.
pub fn service(app: Arc<App>) -> impl Fn(Request) -> BoxFuture<'static, Response> + Send + Sync {
    let routes = routes::router()
        .merge(aliases(&app))
        .with_state(Arc::clone(&app));
    let guard = Arc::new(Guard {
        cors: cors(&app).layer(routes.clone()),
        plain: routes,
        app,
    });
    move |request| Arc::clone(&guard).answer(request)
}

/// Stands beside a request that tells twice where it ends: by a length and by chunks.
#[derive(Debug, Clone, Copy)]
pub struct AmbiguousLength;

/// Gives the request its id, refuses what is malformed beyond doubt, and writes the log line.
struct Guard {
    app: Arc<App>,
    /// All routes, for requests that tell no `Origin`: no page of another origin sent them. Layers around each route
    /// would be copied for each request; these stand around all of them.
    plain: Router,
    /// The same for all other requests.
    cors: Cors<Router>,
}

impl Guard {
    /// Everything but the waiting is done here, so that what waits in memory for an answer is small.
    fn answer(self: Arc<Guard>, mut request: Request) -> BoxFuture<'static, Response> {
        let asked = Asked::note(&mut request, &self.app);
        let body_bytes_max = self.app.config.limits.body_bytes;
        if let Some(problem) = malformed(&request, body_bytes_max) {
            return Box::pin(async move {
                read_away(request, body_bytes_max).await;
                asked.answered(problem.into_response(), &self.app)
            });
        }
        let routed = AssertUnwindSafe(self.route(request)).catch_unwind();
        Box::pin(async move {
            let response = routed.await.unwrap_or_else(|_| self.panicked());
            asked.answered(response, &self.app)
        })
    }

    /// What the route makes of the request.
    fn route(&self, request: Request) -> impl Future<Output = Response> + use<> {
        if request.headers().contains_key(header::ORIGIN) {
            let answered = self.cors.clone().call(request);
            return answered.map(|Ok(response)| response).left_future();
        }
        let answered = self.plain.clone().call(request);
        answered
            .map(|Ok(mut response)| {
                // As the answers to other origins have it: caches must keep the two apart.
                let vary = HeaderValue::from_static(VARY);
                response.headers_mut().append(header::VARY, vary);
                response
            })
            .right_future()
    }

    /// A panic is a fault of ours: it is counted, logged and answered.
    fn panicked(&self) -> Response {
        self.app.metrics.panics.inc();
        tracing::error!("a handler panicked");
        axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

/// What the log line and the answer repeat of a request.
struct Asked {
    id: HeaderValue,
    method: Method,
    path: String,
    started: Instant,
}

impl Asked {
    /// Notes it, and gives the request its id.
    fn note(request: &mut Request, app: &App) -> Asked {
        let id = HeaderValue::from_maybe_shared(Bytes::from(app.random.hex(8)));
        let id = id.expect("hexadecimal digits are a header value");
        request.headers_mut().insert(&REQUEST_ID, id.clone());
        Asked {
            id,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            started: Instant::now(),
        }
    }

    /// Writes the log line, and what every answer has.
    fn answered(self, response: Response, app: &App) -> Response {
        let Asked {
            id, method, path, ..
        } = self;
        let request_id = id.to_str().expect("hexadecimal digits are text");
        let mut response = error::rendered(response, request_id);
        let status = response.status().as_u16();
        let duration_ms = || self.started.elapsed().as_millis() as u64;
        if let Some(problem) = response.extensions().get::<Problem>() {
            app.metrics
                .refusals
                .get_or_create(&Refusal { code: problem.code })
                .inc();
            let code = problem.code;
            tracing::info!(%request_id, %method, path, status, code, duration_ms = duration_ms(), "a request was refused");
        } else {
            tracing::debug!(%request_id, %method, path, status, duration_ms = duration_ms(), "a request was answered");
        }
        let headers = response.headers_mut();
        headers.insert(&REQUEST_ID, id);
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        response
    }
}

/// Reads a body that is somewhat too large to its end: a client that is still sending when the connection is reset
/// would not see the answer. A far larger one is answered at once.
async fn read_away(request: Request, body_bytes_max: usize) {
    use futures_util::StreamExt;
    let declared = declared_length(&request).unwrap_or(0);
    // Who asks first whether to send is told not to.
    if request.headers().contains_key(header::EXPECT)
        || declared > body_bytes_max as u64 * READ_AWAY_FACTOR
    {
        return;
    }
    let mut left = body_bytes_max as u64 * READ_AWAY_FACTOR;
    let mut body = request.into_body().into_data_stream();
    while let Some(Ok(bytes)) = body.next().await
        && left > 0
    {
        left = left.saturating_sub(bytes.len() as u64);
    }
}

fn declared_length(request: &Request) -> Option<u64> {
    let length = request.headers().get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// What no route would take: two hosts or none, a path or query that is not UTF-8.
fn malformed(request: &Request, body_bytes_max: usize) -> Option<Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    let needs_host = request.version() == Version::HTTP_11;
    let is_authority = |host: &HeaderValue| Authority::try_from(host.as_bytes()).is_ok();
    if hosts.next().is_some()
        || (needs_host && host.is_none())
        || host.is_some_and(|host| !is_authority(host))
    {
        return Some(Problem::bad_request(
            "invalid_host",
            "a request names its host once",
        ));
    }
    if request.extensions().get::<AmbiguousLength>().is_some() {
        let message = "a request tells its length by Content-Length or by chunks, not by both";
        let problem = Problem::bad_request("ambiguous_length", message);
        return Some(problem.with_header(header::CONNECTION, "close"));
    }
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        let status = axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let message = "compressed request bodies are not read here: send the body as it is";
        return Some(Problem::new(status, "unsupported_encoding", message));
    }
    if declared_length(request).is_some_and(|length| length > body_bytes_max as u64) {
        return Some(error::too_large());
    }
    let uri = request.uri();
    let is_utf8 = |text: &str| is_utf8_decoded(text.as_bytes());
    match is_utf8(uri.path()) && uri.query().is_none_or(is_utf8) {
        true => None,
        false => Some(Problem::bad_request(
            "invalid_url",
            "the percent-encoded bytes of the URL are not UTF-8",
        )),
    }
}

fn is_utf8_decoded(text: &[u8]) -> bool {
    if !text.contains(&b'%') {
        return std::str::from_utf8(text).is_ok();
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    std::str::from_utf8(&decoded).is_ok()
}

/// Pages of `server.allowed_origins` may read answers and send credentials; others may not.
fn cors(app: &App) -> CorsLayer {
    let origins = app.config.server.allowed_origins.iter();
    let origins = origins.filter_map(|origin| HeaderValue::from_str(origin).ok());
    let named = |name| HeaderName::from_static(name);
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_credentials(true)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::CACHE_CONTROL,
            named("last-event-id"),
            named("idempotency-key"),
        ])
        .expose_headers([header::RETRY_AFTER, REQUEST_ID.clone()])
        .max_age(Duration::from_secs(3600))
}

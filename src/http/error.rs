//! What a refused request is told: RFC 9457 problem details with a stable code.
//!
//! Promises: every refusal has a status, a code and a public sentence; causes and secrets stay in the log. The body is
//! written by `rendered`, which knows the request's id, so that it is the same wherever the refusal came from.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

use crate::event::Invalid;
use crate::http::docs::codes;
use crate::limits::{Full, RetryAfter};
use crate::publish::PublishError;
use crate::store::shared::StoreError;

pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One refusal. Boxed, since results carry it through every handler and it is rare.
#[derive(Debug, Clone)]
pub struct Problem(Box<Details>);

impl std::ops::Deref for Problem {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

/// The problem object. `errors` lists the faults of single items.
#[derive(Debug, Clone, Serialize)]
pub struct Details {
    #[serde(rename = "type")]
    problem_type: &'static str,
    title: &'static str,
    status: u16,
    pub code: &'static str,
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    request_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ItemError>,
    #[serde(skip)]
    retry_after: Option<Duration>,
    #[serde(skip)]
    headers: Vec<(HeaderName, &'static str)>,
}

/// The fault of one item of a batch.
#[derive(Debug, Clone, Serialize)]
pub struct ItemError {
    pub index: usize,
    pub code: &'static str,
    pub message: String,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Problem {
        debug_assert!(
            codes::is_known(code, status.as_u16()),
            "{code} with {status} stands in docs::codes"
        );
        Problem(Box::new(Details {
            problem_type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            message: message.into(),
            request_id: String::new(),
            errors: Vec::new(),
            retry_after: None,
            headers: Vec::new(),
        }))
    }

    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// No reason is given away: not whether the token was missing, wrong, old or revoked.
    pub fn unauthorized() -> Problem {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "a valid token is needed",
        )
    }

    pub fn forbidden(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub fn not_found() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
    }

    pub fn rate_limited(after: RetryAfter) -> Problem {
        let message = "too many requests: wait as long as Retry-After says";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).retry_after(after.0)
    }

    pub fn draining() -> Problem {
        let message = "the server is about to stop: try again in a moment";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining", message)
            .retry_after(Duration::from_secs(2))
    }

    pub fn retry_after(mut self, after: Duration) -> Problem {
        self.0.retry_after = Some(after);
        self
    }

    pub fn with_header(mut self, name: HeaderName, value: &'static str) -> Problem {
        self.0.headers.push((name, value));
        self
    }

    pub fn with_errors(mut self, errors: Vec<ItemError>) -> Problem {
        self.0.errors = errors;
        self
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the same request may succeed a little later.
    pub fn is_passing(&self) -> bool {
        matches!(self.status, 429 | 503)
    }

    pub fn for_request(mut self, request_id: &str) -> Problem {
        self.0.request_id = request_id.to_owned();
        self
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(&*self.0).expect("a problem is made of strings and numbers")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == 401 {
            let bearer = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, bearer);
        }
        for (name, value) in &self.headers {
            response
                .headers_mut()
                .insert(name.clone(), HeaderValue::from_static(value));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Problem {
        Problem::bad_request(invalid.code, invalid.message)
    }
}

impl From<Full> for Problem {
    fn from(full: Full) -> Problem {
        let after = Duration::from_secs(5);
        match full {
            Full::User => {
                let message =
                    "this user has as many open connections as limits.connections_per_user allows";
                let status = StatusCode::TOO_MANY_REQUESTS;
                Problem::new(status, "too_many_connections", message).retry_after(after)
            }
            Full::Server => {
                let message =
                    "the server has as many open connections as limits.connections allows";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Problem::new(status, "server_full", message).retry_after(after)
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        match error {
            StoreError::DiskFull => {
                let message =
                    "the server's disk is nearly full: nothing was stored, reading goes on";
                Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", message)
                    .retry_after(Duration::from_secs(10))
            }
            StoreError::Failed(_) => {
                let message = "the server cannot store anything: whether this request was stored is not known";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_failed", message)
                    .retry_after(Duration::from_secs(2))
            }
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Problem {
        match error {
            PublishError::Mismatch => {
                let message = "this id or Idempotency-Key was used before with another body";
                Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "idempotency_mismatch",
                    message,
                )
            }
            PublishError::UnknownConversation => {
                let message = "there is no such conversation";
                Problem::new(StatusCode::NOT_FOUND, "unknown_conversation", message)
            }
            PublishError::Store(error) => error.into(),
        }
    }
}

pub fn too_large() -> Problem {
    let message = "the body is larger than limits.body_bytes";
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

/// Writes the body of a refusal, also of one that the router made (404, 405 and the like).
pub fn rendered(response: axum::response::Response, request_id: &str) -> axum::response::Response {
    let status = response.status();
    let is_bare = (status.is_client_error() || status.is_server_error())
        && !response.headers().contains_key(header::CONTENT_TYPE);
    let known = response.extensions().get::<Problem>().cloned();
    let Some(problem) = known.or_else(|| is_bare.then(|| of_status(status))) else {
        return response;
    };
    let problem = problem.for_request(request_id);
    let (mut parts, _) = response.into_parts();
    let body = problem.to_json();
    let json = HeaderValue::from_static("application/problem+json");
    parts.headers.insert(header::CONTENT_TYPE, json);
    parts
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    parts
        .headers
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    parts.extensions.insert(problem);
    Response::from_parts(parts, Body::from(body))
}

fn of_status(status: StatusCode) -> Problem {
    match status {
        StatusCode::NOT_FOUND => Problem::not_found(),
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(
            status,
            "method_not_allowed",
            "this path does not know this method; see Allow",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(
            status,
            "unsupported_media_type",
            "this path does not read this Content-Type",
        ),
        _ if status.is_client_error() => {
            Problem::new(status, "bad_request", "the request is malformed")
        }
        _ => Problem::new(
            status,
            "internal_error",
            "the server could not answer; its log says why",
        ),
    }
}

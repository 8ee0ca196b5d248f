//! Request bodies read strictly: JSON of a known shape, or a problem that says what is wrong with it.
//!
//! Promises: a body has at most `limits.body_bytes`; another Content-Type is refused before the body is looked at; a
//! fault is told with its place.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use memchr::memchr;
use serde::de::DeserializeOwned;

use crate::http::error::{Problem, too_large};
use crate::http::state::App;

/// A request's headers, which axum's own extractor would copy, and its whole body, if it could be read.
pub struct Whole {
    pub headers: HeaderMap,
    pub body: Result<Bytes, Problem>,
}

impl FromRequest<Arc<App>> for Whole {
    type Rejection = Infallible;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Whole, Infallible> {
        let (parts, body) = request.into_parts();
        let body = read(body, app.config.limits.body_bytes).await;
        let headers = parts.headers;
        Ok(Whole { headers, body })
    }
}

async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Problem::bad_request(
            "invalid_body",
            "the body could not be read to its end",
        )),
    }
}

/// A JSON body. A missing Content-Type counts as JSON, another one does not.
pub struct StrictJson<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for StrictJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<StrictJson<T>, Problem> {
        if !matches!(&*media_type(request.headers()), "application/json" | "") {
            let status = axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let message = "the body must be application/json; say so in Content-Type";
            return Err(Problem::new(status, "unsupported_media_type", message));
        }
        let body = read(request.into_body(), app.config.limits.body_bytes).await?;
        // A list would be taken for the fields of an object, one after the other.
        if body.trim_ascii_start().first() != Some(&b'{') {
            let message = "the body must be a JSON object";
            return Err(Problem::bad_request("invalid_json", message));
        }
        match serde_json::from_slice(&body) {
            Ok(value) => Ok(StrictJson(value)),
            Err(error) => {
                let message = format!("the body is not what this call takes: {error}");
                Err(Problem::bad_request("invalid_json", message))
            }
        }
    }
}

pub fn not_utf8() -> Problem {
    Problem::bad_request("invalid_json", "the body is not UTF-8")
}

pub fn unsupported(wanted: &str) -> Problem {
    let message = format!("the body must be {wanted}; say so in Content-Type");
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        message,
    )
}

/// The media type in lower case, without its parameters (RFC 9110 section 8.3.1).
pub fn media_type(headers: &HeaderMap) -> Cow<'_, str> {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let end = memchr(b';', value.as_bytes()).unwrap_or(value.len());
    let media_type = value[..end].trim_ascii();
    match media_type.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(media_type.to_ascii_lowercase()),
        false => Cow::Borrowed(media_type),
    }
}

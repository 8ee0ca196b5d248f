//! Request bodies read strictly: JSON of a known shape, or a problem that says what is wrong with it.
//!
//! Promises: another Content-Type is refused before the body is looked at; a fault is told with its place.

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::http::error::Problem;

/// A JSON body. A missing Content-Type counts as JSON, another one does not.
pub struct StrictJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for StrictJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<StrictJson<T>, Problem> {
        if !matches!(
            media_type(request.headers()).as_str(),
            "application/json" | ""
        ) {
            let status = axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let message = "the body must be application/json; say so in Content-Type";
            return Err(Problem::new(status, "unsupported_media_type", message));
        }
        let body = Bytes::from_request(request, state).await?;
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
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    value
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase()
}

//! Request bodies read strictly: JSON of a known shape, or a problem that says what is wrong with it.
//!
//! Promises: another Content-Type is refused before the body is looked at; a fault is told with its place.

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::http::error::Problem;
use crate::http::publish::media_type;

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

//! The files of `static/`, which are part of the binary: the demo page and what it loads.
//!
//! Promises: nothing outside `static/` is served; a page may load only from this server (Content-Security-Policy); a
//! file's ETag is its hash.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::http::error::Problem;
use crate::http::state::App;
use crate::id::hex;

#[derive(rust_embed::Embed)]
#[folder = "static/"]
struct Files;

const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

pub async fn index(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    match app.config.demo.enabled {
        true => serve("index.html", &headers),
        false => Err(Problem::not_found()),
    }
}

pub async fn file(Path(path): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    serve(&path, &headers)
}

fn serve(path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let file = Files::get(path).ok_or_else(Problem::not_found)?;
    let etag = format!("\"{}\"", hex(&file.metadata.sha256_hash()[..16]));
    let etag = HeaderValue::from_str(&etag).expect("hexadecimal digits are a header value");
    let is_known = headers.get(header::IF_NONE_MATCH) == Some(&etag);
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => file.data.into_owned().into_response(),
    };
    let content_type = match file.metadata.mimetype() {
        text if text.starts_with("text/") => {
            HeaderValue::from_str(&format!("{text}; charset=utf-8"))
        }
        other => HeaderValue::from_str(other),
    };
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        content_type.unwrap_or(HeaderValue::from_static("application/octet-stream")),
    );
    headers.insert(header::ETAG, etag);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    Ok(response)
}

//! What every reply must look like, whoever asked for it.
//!
//! Promises: headers come from an allow-list; a refusal is a problem object of RFC 9457 with exactly the members
//! that PROTOCOL.md section 5 names and tells no internals; 401 and 429 carry their headers; what is streamed is
//! marked as not to be stored. It never looks at what a success says.

use hyper::HeaderMap;
use serde_json::Value;

use crate::client::Reply;

/// Headers that a reply may carry. A new one is a change of the API and gets its line here.
const HEADERS_ALLOWED: &[&str] = &[
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "etag",
    "keep-alive",
    "location",
    "referrer-policy",
    "retry-after",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "set-cookie",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
    "x-accel-buffering",
    "x-content-type-options",
    "x-frame-options",
    "x-request-id",
];

const PROBLEM_MEMBERS: &[&str] = &[
    "type",
    "title",
    "status",
    "code",
    "message",
    "request_id",
    "errors",
];

/// Words that only an accident puts into a sentence for the public.
const INTERNALS: &[&str] = &[
    "panicked",
    "src/",
    ".rs:",
    "sled",
    "serde",
    "hyper",
    "tokio",
    "axum",
    "RUST_BACKTRACE",
    "Some(",
    "Err(",
];

/// Checks a whole reply.
#[track_caller]
pub fn check(reply: &Reply) {
    check_head(reply);
    match reply.status {
        100..=199 | 204 | 304 => assert!(
            reply.body.is_empty(),
            "a body with {}: {reply:?}",
            reply.status
        ),
        200..=299 => check_success(reply),
        300..=399 => {}
        _ => check_problem(reply),
    }
}

/// Checks a reply to raw bytes. hyper itself answers what is no HTTP at all, with a bare status.
#[track_caller]
pub fn check_raw(reply: &Reply) {
    let is_bare = reply.body.is_empty() && matches!(reply.status, 400 | 413 | 414 | 431);
    if is_bare {
        check_headers(&reply.headers)
    } else {
        check(reply)
    }
}

/// Checks what can be checked without a body.
#[track_caller]
pub fn check_head(reply: &Reply) {
    check_headers(&reply.headers);
    if reply.status == 401 {
        let challenge = reply.header("www-authenticate").unwrap_or("");
        assert_eq!(
            challenge, "Bearer",
            "401 tells how to ask and nothing else: {reply:?}"
        );
    }
    if matches!(reply.status, 429 | 503) {
        let seconds = reply
            .header("retry-after")
            .and_then(|value| value.parse::<u32>().ok());
        assert!(
            seconds.is_some(),
            "{} without Retry-After: {reply:?}",
            reply.status
        );
    }
    if reply.status == 405 {
        assert!(
            reply.header("allow").is_some(),
            "405 without Allow: {reply:?}"
        );
    }
}

/// Checks the head of a reply that goes on: SSE and NDJSON.
#[track_caller]
pub fn check_stream_head(headers: &HeaderMap) {
    check_headers(headers);
    let value = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    };
    let content_type = value("content-type");
    assert!(
        ["text/event-stream", "application/x-ndjson"].contains(&content_type),
        "a stream of {content_type:?}"
    );
    assert_eq!(value("cache-control"), "no-store, no-transform");
    assert_eq!(value("x-accel-buffering"), "no");
}

#[track_caller]
fn check_headers(headers: &HeaderMap) {
    for name in headers.keys() {
        let is_allowed = HEADERS_ALLOWED.contains(&name.as_str());
        assert!(
            is_allowed,
            "the header {name} is not on the list: {headers:?}"
        );
    }
}

#[track_caller]
fn check_success(reply: &Reply) {
    let content_type = reply.header("content-type").unwrap_or("");
    // The viewer of the API's description is kept compressed.
    if reply.body.is_empty() || reply.header("content-encoding") == Some("gzip") {
        return;
    }
    let essence = content_type.split(';').next().unwrap_or("");
    match essence {
        "application/json" => drop(reply.json()),
        "text/plain" | "text/html" | "text/css" | "text/javascript" | "application/javascript" => {
            assert!(
                content_type.contains("charset=utf-8"),
                "{content_type:?} without charset"
            );
            reply.text();
        }
        "application/openmetrics-text" => assert!(reply.text().ends_with("# EOF\n"), "cut metrics"),
        "application/x-ndjson" | "text/event-stream" => check_stream_head(&reply.headers),
        other => panic!("a reply of type {other:?}: {reply:?}"),
    }
}

#[track_caller]
fn check_problem(reply: &Reply) {
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json"),
        "{reply:?}"
    );
    check_problem_object(&reply.json(), reply.status);
    if let Some(request_id) = reply.header("x-request-id") {
        assert_eq!(reply.json()["request_id"], request_id, "{reply:?}");
    }
}

/// Checks a problem object, which an SSE stream may carry too.
#[track_caller]
pub fn check_problem_object(problem: &Value, status: u16) {
    let members = problem
        .as_object()
        .unwrap_or_else(|| panic!("no object: {problem}"));
    for name in members.keys() {
        assert!(
            PROBLEM_MEMBERS.contains(&name.as_str()),
            "the member {name} of {problem}"
        );
    }
    for name in ["type", "title", "code", "message", "request_id"] {
        let text = members.get(name).and_then(Value::as_str).unwrap_or("");
        assert!(!text.is_empty(), "no {name} in {problem}");
    }
    assert_eq!(problem["status"], status, "{problem}");
    let code = problem["code"].as_str().expect("checked above");
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    assert!(code.bytes().all(is_plain), "the code {code:?}");
    let errors = members.get("errors");
    assert!(
        errors.is_none_or(Value::is_array),
        "errors is a list: {problem}"
    );
    let message = problem["message"].as_str().expect("checked above");
    for word in INTERNALS {
        assert!(
            !message.contains(word),
            "{word:?} in a message: {message:?}"
        );
    }
}

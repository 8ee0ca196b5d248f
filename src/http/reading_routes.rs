//! The routes by which a user reads its own log.
//!
//! Promises: words only; what they do is in `events`, `poll`, `stream` and `ops`.

use utoipa::openapi::HttpMethod::{Get, Post};

use crate::http::docs::Access::User;
use crate::http::docs::{Route, schemas};
use crate::http::{events, ops};

const READ_QUERY: &[(&str, &str)] = &[
    (
        "cursor",
        "Where to start: a cursor, a bare seq, `start`, `now` (default), or `-N` for the last N. `Last-Event-ID` wins.",
    ),
    (
        "last_event_id",
        "Another spelling of `cursor`, as is `lastEventId`.",
    ),
    (
        "since",
        "From the first retained event at or after this time: RFC 3339 or Unix milliseconds.",
    ),
    (
        "types",
        "Only these types, with commas; `notification.*` is a prefix.",
    ),
    (
        "topics",
        "Only these topics, with commas; `*` at the end is a prefix.",
    ),
    (
        "format",
        "`sse`, `ndjson` or `json`; else `Accept` decides.",
    ),
    (
        "wait",
        "JSON only: seconds to wait for events, 0 to 60; default 30 with a cursor, 0 without.",
    ),
    (
        "limit",
        "JSON only: events in one page, 1 to 1000; default 500.",
    ),
    ("named", "`1`: SSE events carry their type as their name."),
    (
        "on_gap",
        "After a reset go on from `head` (default) or `earliest`.",
    ),
    (
        "snapshot",
        "`1`: the state comes in the stream itself, after `ready` or `reset`.",
    ),
    ("control", "`0`: NDJSON without control lines."),
    ("ticket", "A ticket from `POST /v1/tickets`."),
    (
        "access_token",
        "A token, where the configuration allows it.",
    ),
];

pub fn reading() -> Vec<Route> {
    vec![
        Route::new("Reading", User, (Get, "/v1/events"), events::read)
            .says(
                "Read one's own log",
                "As server-sent events, NDJSON lines or a JSON page, from any position.",
            )
            .query(READ_QUERY)
            .gives_as::<schemas::Text>(
                200,
                "A stream of frames; see /static/asyncapi.yaml.",
                "text/event-stream",
            )
            .gives_as::<schemas::EventPage>(
                200,
                "A stream, lines or a page; see /static/asyncapi.yaml.",
                "application/json",
            )
            .done(204, "The user is revoked: an EventSource stops for good.")
            .refuses("invalid_cursor invalid_query invalid_format invalid_filter")
            .refuses("not_acceptable")
            .refuses("invalid_type invalid_topic too_many_connections server_full draining"),
        Route::new("Reading", User, (Get, "/v1/state"), ops::state)
            .says(
                "The present state",
                "Everything a client shows, with the cursor up to which it includes the log.",
            )
            .gives::<schemas::State>(200, "State and cursor of one moment."),
        Route::new("Reading", User, (Post, "/v1/ack"), ops::ack)
            .says("Ack", "Everything up to the cursor reached this device.")
            .takes::<schemas::Ack>()
            .gives::<schemas::Acked>(200, "The position that is acked now.")
            .refuses("invalid_cursor cursor_not_here"),
    ]
}

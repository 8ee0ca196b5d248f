//! Every route in one table: method and path, who may call it, what does it, and what is said about it.
//!
//! Promises: what is served is what is described. What a route means is its handler's business.

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get};
use utoipa::openapi::HttpMethod::{Delete, Get, Patch, Post, Put};

use crate::http::docs::Access::{Admin, Public, Publish, User};
use crate::http::docs::{self, Route, schemas};
use crate::http::state::App;
use crate::http::{
    conversations, events, messages, notify, ops, pages, preferences, presence, publish, session,
    signals, socket, topics, typing,
};

/// Opens the description.
pub const INTRODUCTION: &str = "One durable log per user, read in every way a client can read. Success means stable: \
    the answer leaves after a real sync. Errors are problem objects (RFC 9457) with a stable `code`. What streams \
    carry, the WebSocket's ops and close codes, is described in `/static/asyncapi.yaml`.";

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

/// What is said of a parameter in the path.
pub fn path_parameter(name: &str) -> &'static str {
    match name {
        "user" => "A user id: 1 to 128 of `A-Z a-z 0-9 _ . @ : -`.",
        "topic" => "A topic: 1 to 128 of `A-Z a-z 0-9 _ . : @ / -`.",
        "conn" => "The id of an open connection, as `ready` tells it.",
        "path" => "The path of a file.",
        "message" => "The id of a message.",
        _ => "An id.",
    }
}

/// All routes of PROTOCOL.md, in the order in which the description shows them.
pub fn table() -> Vec<Route> {
    let areas = [
        reading(),
        publishing(),
        conversations::routes(),
        messages::routes(),
        presence::routes(),
        typing::routes(),
        signals::routes(),
        sessions(),
        admin(),
        operation(),
    ];
    areas.into_iter().flatten().collect()
}

fn reading() -> Vec<Route> {
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
            .refuses(&[
                "invalid_cursor",
                "invalid_query",
                "invalid_format",
                "invalid_filter",
                "not_acceptable",
            ])
            .refuses(&[
                "invalid_type",
                "invalid_topic",
                "too_many_connections",
                "server_full",
                "draining",
            ]),
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
            .refuses(&["invalid_cursor", "cursor_not_here"]),
        Route::new("Reading", User, (Get, "/v1/preferences"), preferences::show)
            .says("One's choices", "")
            .gives::<serde_json::Value>(200, "All of them."),
        Route::new(
            "Reading",
            User,
            (Patch, "/v1/preferences"),
            preferences::change,
        )
        .says("Choose", "What is not named stays as it is.")
        .takes::<serde_json::Value>()
        .gives::<serde_json::Value>(200, "All of them."),
    ]
}

fn publishing() -> Vec<Route> {
    vec![
        Route::new(
            "Publishing",
            Publish,
            (Post, "/v1/publish"),
            publish::publish,
        )
        .says(
            "Publish events",
            "One event, `{\"events\":[…]}`, or NDJSON. `Idempotency-Key` makes a repeat harmless.",
        )
        .takes::<schemas::Publish>()
        .takes_as::<schemas::PublishBatch>("application/x-ndjson")
        .gives::<schemas::Published>(201, "On stable storage.")
        .gives::<schemas::Results>(200, "A batch: one result or error per item, in order.")
        .refuses(&[
            "empty_batch",
            "invalid_batch",
            "invalid_event",
            "too_many_events",
            "event_too_large",
        ])
        .refuses(&[
            "no_recipient",
            "too_many_recipients",
            "reserved_type",
            "idempotency_mismatch",
        ])
        .refuses(&[
            "invalid_user_id",
            "invalid_topic",
            "invalid_type",
            "invalid_id",
            "invalid_key",
        ])
        .refuses(&["invalid_data", "invalid_ttl", "invalid_conn"]),
        Route::new(
            "Publishing",
            Publish,
            (Post, "/v1/users/{user}/notify"),
            notify::notify,
        )
        .says(
            "Notify a user",
            "A JSON notification, or a plain text that becomes an announcement.",
        )
        .takes::<schemas::Notify>()
        .takes_as::<schemas::Text>("text/plain")
        .gives::<schemas::Published>(201, "On stable storage.")
        .refuses(&[
            "invalid_user_id",
            "invalid_notification",
            "event_too_large",
            "invalid_key",
        ])
        .refuses(&["idempotency_mismatch", "invalid_data"]),
        Route::new(
            "Topics",
            User,
            (Get, "/v1/topics/{topic}/subscribers"),
            topics::list,
        )
        .says(
            "Subscribers of a topic",
            "In pages of 1000. Needs the scope `publish`.",
        )
        .query(&[("after", "`next` of the page before.")])
        .gives::<schemas::Subscribers>(200, "A page.")
        .refuses(&[
            "invalid_topic",
            "invalid_user_id",
            "not_found",
            "bad_request",
        ]),
        Route::new(
            "Topics",
            User,
            (Put, "/v1/topics/{topic}/subscribers/{user}"),
            topics::subscribe,
        )
        .says(
            "Subscribe a user",
            "One's own user where the token's `topics` name it, anyone with `publish`.",
        )
        .done(204, "Subscribed; twice is once.")
        .refuses(&["invalid_topic", "invalid_user_id"]),
        Route::new(
            "Topics",
            User,
            (Delete, "/v1/topics/{topic}/subscribers/{user}"),
            topics::unsubscribe,
        )
        .says("Unsubscribe a user", "Leaving is always one's own affair.")
        .done(204, "Not subscribed.")
        .refuses(&["invalid_topic", "invalid_user_id"]),
    ]
}

fn sessions() -> Vec<Route> {
    vec![
        Route::new("Sessions", User, (Post, "/v1/session"), session::create)
            .says(
                "Open a cookie session",
                "Puts the bearer token of this request into a cookie that scripts cannot read.",
            )
            .gives::<schemas::Session>(200, "The cookie is set."),
        Route::new("Sessions", Public, (Delete, "/v1/session"), session::remove)
            .says(
                "Close the cookie session",
                "The browser forgets the cookie.",
            )
            .done(204, "The cookie is gone."),
        Route::new(
            "Sessions",
            User,
            (Post, "/v1/session/refresh"),
            session::refresh,
        )
        .says(
            "Prolong an open stream",
            "The new token of this request takes the place of the stream's.",
        )
        .takes::<schemas::Refresh>()
        .gives::<schemas::Refreshed>(200, "The stream goes on until then.")
        .refuses(&["not_found"]),
        Route::new("Sessions", User, (Post, "/v1/tickets"), session::ticket)
            .says(
                "Buy a ticket",
                "For EventSource and WebSocket across sites: reads only, first used within 60 s.",
            )
            .gives::<schemas::Ticket>(200, "Use it as `?ticket=`.")
            .refuses(&["too_many_tickets"]),
        Route::new(
            "Sessions",
            Public,
            (Post, "/demo/login"),
            session::demo_login,
        )
        .says(
            "Sign in to the demo",
            "Where `demo.enabled`: anyone is whoever they say.",
        )
        .takes::<schemas::Login>()
        .gives::<schemas::LoggedIn>(200, "A token for 12 hours.")
        .refuses(&["not_found"]),
    ]
}

fn admin() -> Vec<Route> {
    vec![
        Route::new("Admin", Admin, (Post, "/v1/admin/revoke"), ops::revoke)
            .says(
                "Revoke tokens",
                "Open streams end at once, the tokens are refused from then on, across restarts.",
            )
            .takes::<schemas::Revoke>()
            .done(204, "Revoked.")
            .refuses(&["invalid_revocation"]),
        Route::new(
            "Admin",
            Admin,
            (Delete, "/v1/admin/connections/{conn}"),
            ops::disconnect,
        )
        .says("End one stream", "Its client may come back.")
        .done(204, "Ended.")
        .refuses(&["invalid_conn", "not_found"]),
    ]
}

fn operation() -> Vec<Route> {
    vec![
        Route::new("Operation", Public, (Get, "/healthz"), ops::health)
            .says("Whether the process lives", "")
            .gives::<schemas::Health>(200, "It does."),
        Route::new("Operation", Public, (Get, "/readyz"), ops::ready)
            .says("Whether publishes are taken", "")
            .gives::<schemas::Ready>(200, "They are.")
            .refuses(&["draining", "store_failed", "disk_full"]),
        Route::new("Operation", Public, (Get, "/metrics"), ops::metrics)
            .says("Metrics", "For Prometheus.")
            .gives_as::<schemas::Text>(200, "OpenMetrics 1.0.", "application/openmetrics-text"),
        Route::new("Operation", Public, (Get, "/openapi.json"), docs::document)
            .says("This description", "")
            .gives::<serde_json::Value>(200, "OpenAPI."),
        Route::new("Operation", Public, (Get, "/docs"), docs::index)
            .says("This description to look at", "")
            .done(308, "To /docs/."),
        Route::new("Operation", Public, (Get, "/"), pages::index)
            .says("The demo", "Where `demo.enabled`.")
            .gives_as::<schemas::Text>(200, "The page.", "text/html")
            .refuses(&["not_found"]),
        Route::new("Operation", Public, (Get, "/static/{*path}"), pages::file)
            .says("A file of the browser client or the demo", "")
            .gives_as::<schemas::Text>(200, "The file.", "*/*")
            .done(304, "The ETag is still good.")
            .refuses(&["not_found"]),
    ]
}

/// The router of all routes; the socket answers to any method, since HTTP/2 opens one with CONNECT.
pub fn router() -> Router<Arc<App>> {
    let sockets = Router::new()
        .route("/v1/ws", any(socket::socket))
        .route("/ws", any(socket::socket))
        .route("/docs/", get(docs::page))
        .route("/docs/{*path}", get(docs::page));
    table().into_iter().fold(sockets, |router, route| {
        let (path, handler) = route.into_parts();
        router.route(path, handler)
    })
}

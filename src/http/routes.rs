//! Every route in one table: method and path, who may call it, what does it, and what is said about it.
//!
//! Promises: what is served is what is described. What a route means is its handler's business.

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get};

use crate::http::docs::{self, Route};
use crate::http::state::App;
use crate::http::{
    conversations, messages, operation_routes, preferences, publishing_routes, reading_routes,
    socket,
};

/// Opens the description.
pub const INTRODUCTION: &str = "One durable log per user, read in every way a client can read. Success means stable: \
    the answer leaves after a real sync. Errors are problem objects (RFC 9457) with a stable `code`. What streams \
    carry, the WebSocket's ops and close codes, is described in `/static/asyncapi.yaml`.";

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
        reading_routes::reading(),
        publishing_routes::publishing(),
        publishing_routes::topics(),
        conversations::routes(),
        messages::routes(),
        preferences::routes(),
        operation_routes::sessions(),
        operation_routes::admin(),
        operation_routes::operation(),
    ];
    areas.into_iter().flatten().collect()
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

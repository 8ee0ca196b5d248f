//! The routes of sessions, administration and operation.
//!
//! Promises: words only; what they do is in `session`, `ops`, `pages` and `docs`.

use utoipa::openapi::HttpMethod::{Delete, Get, Post};

use crate::http::docs::Access::{Admin, Public, User};
use crate::http::docs::{self, Route, operation, schemas};
use crate::http::{demo, ops, pages, session};

pub fn sessions() -> Vec<Route> {
    vec![
        Route::new("Sessions", User, (Post, "/v1/session"), session::create)
            .says(
                "Open a cookie session",
                "Puts the bearer token of this request into a cookie that scripts cannot read.",
            )
            .gives::<operation::Session>(200, "The cookie is set."),
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
        .takes::<operation::Refresh>()
        .gives::<operation::Refreshed>(200, "The stream goes on until then.")
        .refuses("not_found"),
        Route::new("Sessions", User, (Post, "/v1/tickets"), session::ticket)
            .says(
                "Buy a ticket",
                "For EventSource and WebSocket across sites: reads only, first used within 60 s.",
            )
            .gives::<operation::Ticket>(200, "Use it as `?ticket=`.")
            .refuses("too_many_tickets"),
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
        .takes::<operation::Login>()
        .gives::<operation::LoggedIn>(200, "A token for 12 hours.")
        .refuses("not_found"),
        Route::new("Sessions", Public, (Post, "/demo/act"), demo::act)
            .says(
                "Do what a backend does, for the demo",
                "Where `demo.enabled`: a post, a like, a notification, a changed entity or any event, published without \
                 the scope for it.",
            )
            .takes::<operation::Act>()
            .gives::<schemas::Published>(201, "Kept.")
            .refuses("not_found invalid_notification invalid_entity invalid_type"),
    ]
}

pub fn admin() -> Vec<Route> {
    vec![
        Route::new("Admin", Admin, (Post, "/v1/admin/revoke"), ops::revoke)
            .says(
                "Revoke tokens",
                "Open streams end at once, the tokens are refused from then on, across restarts.",
            )
            .takes::<operation::Revoke>()
            .done(204, "Revoked.")
            .refuses("invalid_revocation"),
        Route::new(
            "Admin",
            Admin,
            (Delete, "/v1/admin/connections/{conn}"),
            ops::disconnect,
        )
        .says("End one stream", "Its client may come back.")
        .done(204, "Ended.")
        .refuses("invalid_conn not_found"),
    ]
}

pub fn operation() -> Vec<Route> {
    vec![
        Route::new("Operation", Public, (Get, "/healthz"), ops::health)
            .says("Whether the process lives", "")
            .gives::<operation::Health>(200, "It does."),
        Route::new("Operation", Public, (Get, "/readyz"), ops::ready)
            .says("Whether publishes are taken", "")
            .gives::<operation::Ready>(200, "They are.")
            .refuses("draining store_failed not_ready"),
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
            .refuses("not_found"),
        Route::new("Operation", Public, (Get, "/static/{*path}"), pages::file)
            .says("A file of the browser client or the demo", "")
            .gives_as::<schemas::Text>(200, "The file.", "*/*")
            .done(304, "The ETag is still good.")
            .refuses("not_found"),
    ]
}

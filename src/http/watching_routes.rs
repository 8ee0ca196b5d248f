//! The routes of privacy and of watching a server: export and erase, statistics, connections, users, traces.
//!
//! Promises: words only; what they do is in `privacy`, `admin` and `trace`.

use utoipa::openapi::HttpMethod::{Delete, Get};

use crate::http::docs::Access::{Admin, User};
use crate::http::docs::{Route, operation, schemas};
use crate::http::{admin, privacy, trace};

pub fn personal() -> Vec<Route> {
    vec![
        Route::new(
            "Privacy",
            User,
            (Get, "/v1/users/{user}/export"),
            privacy::export,
        )
        .says(
            "Take one's data along",
            "All that is kept about the user, one object with a `kind` a line; the last one, `end`, counts the others. \
             For oneself or an administrator; for others there is no such user.",
        )
        .gives_as::<schemas::Text>(200, "Lines of JSON.", "application/x-ndjson")
        .refuses("invalid_user_id not_found busy"),
        Route::new(
            "Privacy",
            User,
            (Delete, "/v1/users/{user}"),
            privacy::erase,
        )
        .says(
            "Erase a user",
            "Everything about the user goes; answered when all of it is on stable storage. For oneself or an \
             administrator; for others there is no such user.",
        )
        .done(204, "Nothing is kept; also where nothing was.")
        .refuses("invalid_user_id not_found busy"),
    ]
}

pub fn watching() -> Vec<Route> {
    vec![
        Route::new("Admin", Admin, (Get, "/v1/admin/stats"), admin::stats)
            .says(
                "The server in numbers",
                "Percentiles are upper bounds, rates are those of the last minute.",
            )
            .gives::<operation::Stats>(200, "As it is now."),
        Route::new(
            "Admin",
            Admin,
            (Get, "/v1/admin/connections"),
            admin::connections,
        )
        .says("Who is connected", "In the order of connection ids.")
        .query(&[
            ("user", "Only this user's."),
            ("after", "`next` of the page before."),
            ("limit", "Connections in one page, 1 to 1000; default 100."),
        ])
        .gives::<operation::Connections>(200, "A page.")
        .refuses("invalid_query invalid_conn invalid_user_id"),
        Route::new("Admin", Admin, (Get, "/v1/admin/users/{user}"), admin::user)
            .says("One user as the server knows it", "")
            .gives::<operation::KnownUser>(200, "What is known.")
            .refuses("invalid_user_id not_found"),
        Route::new(
            "Admin",
            Admin,
            (Get, "/v1/admin/trace/{event}"),
            trace::trace,
        )
        .says(
            "What became of one event",
            "A time that is not known any more is null, with a reason beside it.",
        )
        .gives::<operation::Trace>(200, "Where it went.")
        .refuses("invalid_id not_found busy search_given_up"),
    ]
}

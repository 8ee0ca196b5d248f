//! The routes of a user's inbox and preferences.
//!
//! Promises: words only; what they do is in `notifications` and `preferences`.

use utoipa::openapi::HttpMethod::{Get, Patch, Post};

use crate::http::docs::Access::User;
use crate::http::docs::{Route, schemas};
use crate::http::{notifications, preferences};

pub fn inbox() -> Vec<Route> {
    vec![
        Route::new(
            "Inbox",
            User,
            (Get, "/v1/notifications"),
            notifications::list,
        )
        .says(
            "The caller's notifications",
            "Newest first. Muted and gathered ones are among them.",
        )
        .query(&[
            ("unread", "`1`: only those that are unread."),
            ("before", "Id of a notification: only older ones."),
            ("limit", "1 to 200, default 50."),
        ])
        .gives::<schemas::Inbox>(200, "A page, and how many are unread in all.")
        .refuses("invalid_query invalid_id not_found"),
        Route::new(
            "Inbox",
            User,
            (Post, "/v1/notifications/read"),
            notifications::read,
        )
        .says(
            "Mark as read",
            "Either some ids or all; read here is read on every device. Ids that are not in the inbox are passed over.",
        )
        .takes::<schemas::ReadNotifications>()
        .gives::<schemas::Unread>(200, "How many are unread now.")
        .refuses("too_many_ids invalid_read"),
        Route::new("Inbox", User, (Get, "/v1/preferences"), preferences::show)
            .says("The caller's preferences", "Whoever never chose has the defaults.")
            .gives::<schemas::Preferences>(200, "All of them."),
        Route::new(
            "Inbox",
            User,
            (Patch, "/v1/preferences"),
            preferences::change,
        )
        .says(
            "Change some preferences",
            "What is not named stays. Every device hears of it: `preferences.updated`.",
        )
        .takes::<schemas::Preferences>()
        .gives::<schemas::Preferences>(200, "All of them.")
        .refuses("invalid_muted too_many_muted"),
    ]
}

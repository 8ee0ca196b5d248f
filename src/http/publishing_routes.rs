//! The routes by which a backend publishes, and those of topics.
//!
//! Promises: words only; what they do is in `publish`, `notify` and `topics`.

use utoipa::openapi::HttpMethod::{Delete, Get, Post, Put};

use crate::http::docs::Access::{Publish, User};
use crate::http::docs::{Route, schemas};
use crate::http::{notify, publish, topics};

pub fn publishing() -> Vec<Route> {
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
        .refuses("unknown_conversation invalid_conversation_id")
        .refuses("empty_batch invalid_batch invalid_event too_many_events event_too_large")
        .refuses("no_recipient too_many_recipients reserved_type idempotency_mismatch")
        .refuses("invalid_user_id invalid_topic invalid_type invalid_id invalid_key")
        .refuses("invalid_data invalid_ttl invalid_conn invalid_entity"),
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
        .refuses("invalid_user_id invalid_notification event_too_large invalid_key")
        .refuses("idempotency_mismatch invalid_data"),
    ]
}

pub fn topics() -> Vec<Route> {
    vec![
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
        .refuses("invalid_topic invalid_user_id not_found bad_request"),
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
        .refuses("invalid_topic invalid_user_id"),
        Route::new(
            "Topics",
            User,
            (Delete, "/v1/topics/{topic}/subscribers/{user}"),
            topics::unsubscribe,
        )
        .says("Unsubscribe a user", "Leaving is always one's own affair.")
        .done(204, "Not subscribed.")
        .refuses("invalid_topic invalid_user_id"),
    ]
}

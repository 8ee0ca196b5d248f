//! Events that the server itself makes, such as `notification.read`.
//!
//! Promises: each has an id of its own and the time of its commit. What it says is the business of the feature that
//! asks for it.

use serde_json::Value;

use crate::clock::UnixMs;
use crate::event::{Draft, Event, Json, Topic};
use crate::id::Random;

/// An event of a type that our own code names; without an actor, for every connection.
pub fn event(
    random: &Random,
    now_ms: UnixMs,
    event_type: &'static str,
    topic: Option<Topic>,
    data: &Value,
) -> Event {
    Event::of(&Draft {
        id: random.uuid_v7(now_ms).parse().expect("a UUID is plain"),
        event_type: event_type.parse().expect("our own types are valid"),
        time_ms: now_ms,
        topic,
        actor: None,
        data: Json::of(data),
        exclude_conn: None,
    })
}

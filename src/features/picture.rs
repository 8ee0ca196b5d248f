//! What one user sees of another's presence, and the `presence.changed` that tells it.
//!
//! Promises: whoever may not be seen looks like one who does not exist; of the signals about one user a slow reader gets
//! only the latest. It decides nothing about who may see whom.

use serde_json::{Map, Value, json};

use crate::clock::{UnixMs, rfc3339};
use crate::event::{Draft, Json, Signal, UserId};
use crate::features::acquaintance;
use crate::features::person::Shown;
use crate::id::{Random, UserNo};

/// One user as another, or itself, sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pictured {
    pub user: UserId,
    pub shown: Shown,
}

impl Pictured {
    /// `{status, activity, last_seen}`.
    pub fn to_json(&self) -> Value {
        let Shown {
            status,
            activity,
            last_seen_ms,
        } = &self.shown;
        json!({ "status": status, "activity": activity, "last_seen": last_seen_ms.map(rfc3339) })
    }

    /// The `presence.changed` that tells it.
    pub fn signal(&self, random: &Random, now_ms: UnixMs) -> Signal {
        let mut data = self.to_json();
        data["user"] = json!(self.user);
        let draft = Draft {
            id: random.uuid_v7(now_ms).parse().expect("a UUID is plain"),
            event_type: "presence.changed".parse().expect("a valid type"),
            time_ms: now_ms,
            topic: acquaintance::topic(&self.user),
            actor: None,
            data: Json::of(&data),
            exclude_conn: None,
        };
        Signal::keyed(&draft, format!("presence={}", self.user), None)
    }
}

/// All of them as one JSON object, by user.
pub fn by_user(pictured: &[Pictured]) -> Map<String, Value> {
    let entry = |pictured: &Pictured| (pictured.user.to_string(), pictured.to_json());
    pictured.iter().map(entry).collect()
}

/// Who asks for the presence of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewer {
    /// `None`: no user of this name was ever here.
    pub user: Option<UserNo>,
    /// A backend or an administrator sees whoever is not hidden.
    pub sees_all: bool,
}

//! The state of one user, told together with the position up to which it includes the log.
//!
//! Promises: state + events after its cursor = the present. It holds what the features keep; with none of them built
//! yet its lists are empty.

use crate::id::{Position, UserNo};
use crate::store::Store;

/// The counts of a user without unread news.
pub const EMPTY_BADGE: &str = r#"{"notifications":0,"messages":0,"conversations":0}"#;

pub struct Snapshot {
    pub position: Position,
    /// The JSON object of `/v1/state`.
    pub json: String,
}

pub fn snapshot(store: &Store, user: UserNo) -> Snapshot {
    let view = store.view(user);
    let position = Position {
        epoch: view.epoch,
        seq: view.tail,
    };
    let name = store.name(user);
    let json = format!(
        r#"{{"user":"{name}","cursor":"{position}","badge":{EMPTY_BADGE},"conversations":[],"notifications":[],"presence":{{}},"preferences":{{}}}}"#
    );
    Snapshot { position, json }
}

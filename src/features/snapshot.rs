//! The state of one user, told together with the position up to which it includes the log.
//!
//! Promises: all of it is read at one moment, so state + events after its cursor = the present. What it tells is bounded:
//! the newest conversations and notifications; the rest comes in pages of their own.

use serde_json::json;

use crate::features::presence::Presence;
use crate::features::{badge, conversation, inbox, picture, preferences};
use crate::id::{Position, UserNo};
use crate::store::Store;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;

/// Conversations told, those with the newest activity first.
const CONVERSATIONS_MAX: usize = 200;
/// The newest notifications that a state tells; the others come by `GET /v1/notifications`.
const NOTIFICATIONS_MAX: usize = 20;

pub struct Snapshot {
    pub position: Position,
    /// The JSON object of `/v1/state`.
    pub json: String,
}

pub async fn snapshot(
    store: &Store,
    presence: &Presence,
    user: UserNo,
) -> Result<Snapshot, StoreError> {
    let presence = presence.clone();
    store
        .look(move |transaction| read(transaction, &presence, user))
        .await
}

fn read(
    transaction: &Transaction<'_>,
    presence: &Presence,
    user: UserNo,
) -> Result<Snapshot, StoreError> {
    let position = transaction.position(user);
    let name = transaction.name(user);
    let badge = badge::count(transaction, user)?.to_json();
    let ask = inbox::Ask {
        is_unread_only: false,
        before: None,
        limit: NOTIFICATIONS_MAX,
    };
    let page = inbox::page(transaction, user, &ask)?;
    let notifications = json!(page.map(|page| page.notifications).unwrap_or_default());
    let preferences = json!(preferences::of(transaction, user)?);
    let conversations = conversation::list(transaction, user, CONVERSATIONS_MAX)?.join(",");
    let presence = json!(picture::by_user(&presence.picture(transaction, user)?));
    let json = format!(
        r#"{{"user":"{name}","cursor":"{position}","badge":{badge},"conversations":[{conversations}],"notifications":{notifications},"presence":{presence},"preferences":{preferences}}}"#
    );
    Ok(Snapshot { position, json })
}

//! What a user chose: who may see its presence, typing and reading, which notifications it wants, how feeds reach it.
//!
//! Promises: a user who never chose has the defaults; a change names some of the choices and keeps the others. Every
//! feature asks here, inside the command that obeys the answer.

use serde::{Deserialize, Serialize};

use crate::event::{EventType, UserId};
use crate::id::UserNo;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::store::{Store, keys};

const PREFERENCES: u8 = b'p';
/// Kinds of notifications that a user may mute.
pub const MUTED_MAX: usize = 100;

/// The choices of one user, as they are stored and told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preferences {
    /// Others see whether this user is online. Off: they see it offline, without a last time.
    pub presence_visible: bool,
    pub typing_visible: bool,
    /// Off: neither this user's reading is told to senders, nor theirs to this user.
    pub read_receipts: bool,
    /// Types like `notification.like`: stored as read and not pushed.
    pub muted: Vec<EventType>,
    /// Feed events come at once instead of in digests.
    pub feed_auto: bool,
    /// For clients: whether to play a sound, and to show desktop notifications.
    pub sound: bool,
    pub desktop: bool,
}

impl Default for Preferences {
    fn default() -> Preferences {
        Preferences {
            presence_visible: true,
            typing_visible: true,
            read_receipts: true,
            muted: Vec::new(),
            feed_auto: false,
            sound: false,
            desktop: false,
        }
    }
}

/// A change of some of the choices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    pub presence_visible: Option<bool>,
    pub typing_visible: Option<bool>,
    pub read_receipts: Option<bool>,
    pub muted: Option<Vec<EventType>>,
    pub feed_auto: Option<bool>,
    pub sound: Option<bool>,
    pub desktop: Option<bool>,
}

impl Preferences {
    pub fn mutes(&self, event_type: &str) -> bool {
        self.muted.iter().any(|muted| muted.as_str() == event_type)
    }

    fn changed(self, change: Change) -> Preferences {
        let mut muted = change.muted.unwrap_or(self.muted);
        muted.sort_unstable();
        muted.dedup();
        Preferences {
            presence_visible: change.presence_visible.unwrap_or(self.presence_visible),
            typing_visible: change.typing_visible.unwrap_or(self.typing_visible),
            read_receipts: change.read_receipts.unwrap_or(self.read_receipts),
            muted,
            feed_auto: change.feed_auto.unwrap_or(self.feed_auto),
            sound: change.sound.unwrap_or(self.sound),
            desktop: change.desktop.unwrap_or(self.desktop),
        }
    }
}

/// The user's choices at this moment.
pub fn of(transaction: &Transaction<'_>, user: UserNo) -> Result<Preferences, StoreError> {
    let row = transaction.get_long(&key(user))?;
    // A row of an older shape counts as far as it is understood.
    Ok(row
        .and_then(|row| serde_json::from_slice(&row).ok())
        .unwrap_or_default())
}

/// Changes the choices that are named; gives all of them.
pub async fn change(
    store: &Store,
    user: UserId,
    change: Change,
) -> Result<Preferences, StoreError> {
    store
        .commit(512, move |transaction| {
            let user = transaction.user(&user);
            let changed = of(transaction, user)?.changed(change);
            let row = serde_json::to_vec(&changed).expect("choices are flags and names");
            transaction.put_long(&key(user), &row)?;
            Ok(changed)
        })
        .await
}

/// Takes the row away, for a user who is erased.
pub fn erase(transaction: &mut Transaction<'_>, user: UserNo) -> Result<(), StoreError> {
    transaction.delete_long(&key(user))
}

fn key(user: UserNo) -> Vec<u8> {
    keys::state(PREFERENCES, &user.0.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let change: Change =
            serde_json::from_str(r#"{"read_receipts":false,"muted":["notification.like"]}"#)
                .unwrap();
        let changed = Preferences::default().changed(change);
        assert!(changed.presence_visible && !changed.read_receipts);
        assert!(changed.mutes("notification.like") && !changed.mutes("notification.follow"));
        assert_eq!(changed.clone().changed(Change::default()), changed);
    }

    #[test]
    fn a_row_of_another_version_keeps_what_is_known() {
        let row = r#"{"sound":true,"colour":"blue"}"#;
        let read: Preferences = serde_json::from_str(row).unwrap();
        assert!(read.sound && read.presence_visible);
    }
}

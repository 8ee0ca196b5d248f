//! What a user chose: who may see its presence, typing and reading, which notifications it wants, how feeds reach it.
//!
//! Promises: a user who never chose has the defaults; a change names some of the choices and keeps the others, and the
//! user's other devices hear of it in the same commit (`preferences.updated`). Every feature asks here, inside the
//! command that obeys the answer.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::UnixMs;
use crate::event::{EventType, Invalid, UserId};
use crate::features::inbox::Kind;
use crate::features::news;
use crate::id::{Random, UserNo};
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::store::{Store, keys, long};

const PREFERENCES: u8 = b'p';
/// Kinds of notifications that a user may mute.
pub const MUTED_MAX: usize = 100;

/// The choices of one user, as they are told.
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

/// The choices and what is kept beside them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct PreferencesRow {
    #[serde(flatten)]
    choices: Preferences,
    /// Since when feed events come at once.
    feed_auto_since_ms: UnixMs,
}

/// Users whose feed events come at once, and since when: in memory, since each feed event asks for all its subscribers.
/// Written by the commands that change preferences, read by those that publish to feeds.
#[derive(Clone, Default)]
pub struct FeedAuto(Arc<Mutex<HashMap<UserNo, UnixMs>>>);

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

impl Change {
    /// Refuses what no notification could have: `like` for `notification.like`, for one.
    pub fn check(&self) -> Result<(), Invalid> {
        let muted = self.muted.as_deref().unwrap_or_default();
        if muted.len() > MUTED_MAX {
            let message = format!("muted names at most {MUTED_MAX} types");
            return Err(Invalid::new("too_many_muted", message));
        }
        let is_kind = |muted: &EventType| {
            let kind = muted.as_str().strip_prefix("notification.");
            kind.is_some_and(|kind| kind.parse::<Kind>().is_ok())
        };
        match muted.iter().all(is_kind) {
            true => Ok(()),
            false => {
                let message = "muted names types of notifications, such as notification.like";
                Err(Invalid::new("invalid_muted", message))
            }
        }
    }
}

impl FeedAuto {
    pub async fn load(store: &Store) -> Result<FeedAuto, StoreError> {
        let auto = FeedAuto::default();
        let rows = store.rows(PREFERENCES).await?;
        for chunks in rows.chunk_by(|(a, _), (b, _)| a.get(..4) == b.get(..4)) {
            let user = chunks[0].0.first_chunk::<4>();
            let row = long::join(chunks.iter().map(|(_, chunk)| chunk.as_slice()));
            if let (Some(user), Some(row)) = (user, row) {
                auto.note(UserNo(u32::from_be_bytes(*user)), &decode(&row));
            }
        }
        Ok(auto)
    }

    /// Since when feed events come at once to this user.
    pub fn since(&self, user: UserNo) -> Option<UnixMs> {
        self.0.lock().get(&user).copied()
    }

    fn note(&self, user: UserNo, row: &PreferencesRow) {
        match row.choices.feed_auto {
            true => drop(self.0.lock().insert(user, row.feed_auto_since_ms)),
            false => drop(self.0.lock().remove(&user)),
        }
    }
}

/// The user's choices at this moment.
pub fn of(transaction: &Transaction<'_>, user: UserNo) -> Result<Preferences, StoreError> {
    Ok(row(transaction, user)?.choices)
}

/// Changes the choices that are named and tells the user's devices; gives all of them.
pub async fn change(
    store: &Store,
    auto: &FeedAuto,
    random: &Random,
    user: UserId,
    change: Change,
) -> Result<Preferences, StoreError> {
    let (auto, random) = (auto.clone(), random.clone());
    store
        .commit(512, move |transaction| {
            let user = transaction.user(&user);
            let before = row(transaction, user)?;
            let choices = before.choices.clone().changed(change);
            if choices == before.choices {
                return Ok(choices);
            }
            let now_ms = transaction.now_ms();
            let began = choices.feed_auto && !before.choices.feed_auto;
            let row = PreferencesRow {
                choices,
                feed_auto_since_ms: if began {
                    now_ms
                } else {
                    before.feed_auto_since_ms
                },
            };
            let bytes = serde_json::to_vec(&row).expect("choices are flags and names");
            transaction.put_long(&key(user), &bytes)?;
            auto.note(user, &row);
            let data = json!(row.choices);
            let event = news::event(&random, now_ms, "preferences.updated", None, &data);
            transaction.append(event, vec![user]);
            Ok(row.choices)
        })
        .await
}

/// Takes the row away, for a user who is erased.
pub fn erase(
    transaction: &mut Transaction<'_>,
    auto: &FeedAuto,
    user: UserNo,
) -> Result<(), StoreError> {
    auto.note(user, &PreferencesRow::default());
    transaction.delete_long(&key(user))
}

fn row(transaction: &Transaction<'_>, user: UserNo) -> Result<PreferencesRow, StoreError> {
    let row = transaction.get_long(&key(user))?;
    Ok(row.map(|row| decode(&row)).unwrap_or_default())
}

/// A row of an older shape counts as far as it is understood.
fn decode(row: &[u8]) -> PreferencesRow {
    serde_json::from_slice(row).unwrap_or_default()
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
        let read: PreferencesRow = serde_json::from_str(row).unwrap();
        assert!(read.choices.sound && read.choices.presence_visible);
        let written = serde_json::to_string(&read).unwrap();
        let again: PreferencesRow = serde_json::from_str(&written).unwrap();
        assert_eq!(again.choices, read.choices);
    }

    #[test]
    fn only_types_of_notifications_can_be_muted() {
        let check = |muted: &[&str]| {
            let muted = muted.iter().map(|muted| muted.parse().unwrap()).collect();
            Change {
                muted: Some(muted),
                ..Change::default()
            }
            .check()
            .map_err(|invalid| invalid.code)
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(
            check(&["notification.like", "notification.friend_request"]),
            Ok(())
        );
        for bad in ["like", "message.new", "notification.", "notification.a.b"] {
            assert_eq!(
                check(&["notification.like", bad]),
                Err("invalid_muted"),
                "{bad}"
            );
        }
        assert_eq!(
            check(&["notification.like"; MUTED_MAX + 1]),
            Err("too_many_muted")
        );
    }
}

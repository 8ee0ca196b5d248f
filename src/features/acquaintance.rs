//! Whose presence is whose business: those who share a conversation that is not too large, and who watches whom.
//!
//! Promises: a watch is noted in the commit of the subscription to `presence:<user>`, also to a user whom nobody has
//! yet; what is read here is of one moment. It knows nothing of who is here.

use std::collections::BTreeSet;

use crate::event::{Topic, UserId};
use crate::features::conversation;
use crate::id::UserNo;
use crate::store::engine::Row;
use crate::store::keys;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;

/// Users whose `presence:<user>` someone is subscribed to, by the subscriber.
const WATCHED: u8 = b'w';
const TOPIC_PREFIX: &str = "presence:";

/// Larger conversations spread no presence: everyone in them would hear of everyone's comings and goings.
pub const SPREAD_MEMBERS_MAX: usize = 256;
/// Subscriptions to `presence:<user>` that count for one reader's picture.
const WATCHED_MAX: usize = 500;

/// Those whose presence is one user's business.
pub struct Interest {
    pub users: BTreeSet<UserNo>,
    /// Names that it watches and nobody has yet.
    pub unknown: Vec<UserId>,
}

/// `presence:<user>`; a user whose name is too long for a topic has none.
pub fn topic(user: &UserId) -> Option<Topic> {
    format!("{TOPIC_PREFIX}{user}").parse().ok()
}

/// The user whose presence a topic is about.
pub fn of_topic(topic: &Topic) -> Option<UserId> {
    topic.as_str().strip_prefix(TOPIC_PREFIX)?.parse().ok()
}

/// Notes that `watcher` is subscribed to the presence of `watched`; in the commit of the subscription.
pub fn watch(transaction: &mut Transaction<'_>, watcher: UserNo, watched: &UserId) {
    transaction.put(watched_key(watcher, watched.as_str()), Vec::new());
}

pub fn unwatch(transaction: &mut Transaction<'_>, watcher: UserNo, watched: &UserId) {
    transaction.delete(watched_key(watcher, watched.as_str()));
}

/// Takes the watches of a user away who is erased, at most `rows_max` at a time. Tells whether any are left.
pub fn erase(
    transaction: &mut Transaction<'_>,
    user: UserNo,
    rows_max: usize,
) -> Result<bool, StoreError> {
    let (from, to) = keys::states_of(WATCHED, user);
    Ok(transaction.delete_some(&from, &to, rows_max)? == rows_max)
}

pub fn watches_nobody(transaction: &Transaction<'_>, user: UserNo) -> Result<bool, StoreError> {
    Ok(watched_rows(transaction, user, 1)?.is_empty())
}

pub fn interest(transaction: &Transaction<'_>, user: UserNo) -> Result<Interest, StoreError> {
    let mut users = conversation::peers(transaction, user, SPREAD_MEMBERS_MAX)?;
    let mut unknown = Vec::new();
    let from = watched_key(user, "").len();
    for (key, _) in watched_rows(transaction, user, WATCHED_MAX)? {
        let name = std::str::from_utf8(&key[from..]).ok();
        let Some(name) = name.and_then(|name| name.parse::<UserId>().ok()) else {
            continue;
        };
        match transaction.find_user(&name) {
            Some(watched) => drop(users.insert(watched)),
            None => unknown.push(name),
        }
    }
    users.remove(&user);
    Ok(Interest { users, unknown })
}

/// Those who hear of the user's changes, connected or not.
pub fn audience(
    transaction: &Transaction<'_>,
    user: UserNo,
    name: &UserId,
) -> Result<BTreeSet<UserNo>, StoreError> {
    let mut audience = conversation::peers(transaction, user, SPREAD_MEMBERS_MAX)?;
    if let Some(topic) = topic(name) {
        audience.extend(transaction.subscribers(&topic));
    }
    audience.remove(&user);
    Ok(audience)
}

fn watched_key(watcher: UserNo, watched: &str) -> Vec<u8> {
    let mut key = keys::state(WATCHED, &watcher.0.to_be_bytes());
    key.extend_from_slice(watched.as_bytes());
    key
}

fn watched_rows(
    transaction: &Transaction<'_>,
    watcher: UserNo,
    count_max: usize,
) -> Result<Vec<Row>, StoreError> {
    let from = watched_key(watcher, "");
    let mut to = from.clone();
    to.push(u8::MAX);
    transaction.scan(&from, &to, count_max)
}

//! The inbox: notifications of one user, newest first, read or unread.
//!
//! Promises: the unread count is that of the rows, changed in the same commit; reading all is one step however many
//! there are; the newest `notifications.inbox_max` are kept. It appends no event: that is the business of
//! `notification`.
//!
//! Rows: `n` user, number (newest first): the notification, long. `N` user, id: its number. `W` user, number: its kind,
//! as long as it waits to be read. `h` user: the head.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::{UnixMs, rfc3339};
use crate::event::{EventId, Invalid};
use crate::id::UserNo;
use crate::store::keys;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;

pub const ENTRIES: u8 = b'n';
const NUMBERS: u8 = b'N';
const WAITING: u8 = b'W';
const HEADS: u8 = b'h';

const KIND_BYTES_MAX: usize = 32;
/// Notifications that one newcomer may push out: more than one only after `inbox_max` was lowered.
const TRIMMED_AT_ONCE: usize = 4;
/// A page ends at this size, since commits wait for it.
const PAGE_BYTES: usize = 1 << 20;
/// Waiting rows that a search for one kind looks at.
const SEARCHED_MAX: usize = 2_000;

/// What a notification is about: `like`, `comment`, `mention` and whatever the application has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(Arc<str>);

/// One notification on its way into the inbox.
#[derive(Debug, Clone)]
pub struct Notification {
    pub id: EventId,
    pub kind: Kind,
    pub time_ms: UnixMs,
    /// Written before the commit, which should not spend its time on it.
    row: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct NotificationRow {
    time_ms: UnixMs,
    data: Value,
}

/// What is known of one inbox without looking at its notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct HeadRow {
    /// Number of the newest one; they count 1, 2, 3 …
    newest: u64,
    /// Number of the oldest one kept.
    floor: u64,
    unread: u64,
    /// Everything up to here is read, whatever waits.
    read_upto: u64,
}

/// What a reader of the inbox asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    pub is_unread_only: bool,
    /// Only those older than this one.
    pub before: Option<EventId>,
    pub limit: usize,
}

#[derive(Debug)]
pub struct Page {
    /// Newest first, each as it is told.
    pub notifications: Vec<Value>,
    pub unread: u64,
    pub is_more: bool,
}

impl Notification {
    /// `data` is what its event says: an object that names this `id` and `kind`.
    pub fn new(id: EventId, kind: Kind, time_ms: UnixMs, data: Value) -> Notification {
        let row = serde_json::to_vec(&NotificationRow { time_ms, data });
        Notification {
            id,
            kind,
            time_ms,
            row: row.expect("a number and a JSON value"),
        }
    }
}

impl Kind {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

impl FromStr for Kind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Kind, Invalid> {
        let is_kind =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        match (1..=KIND_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_kind) {
            true => Ok(Kind(Arc::from(text))),
            false => {
                let message = "kind must be 1 to 32 characters of a-z 0-9 _ -";
                Err(Invalid::new("invalid_notification", message))
            }
        }
    }
}

impl Default for HeadRow {
    fn default() -> HeadRow {
        HeadRow {
            newest: 0,
            floor: 1,
            unread: 0,
            read_upto: 0,
        }
    }
}

/// Unread notifications of the user.
pub fn unread(transaction: &Transaction<'_>, user: UserNo) -> Result<u64, StoreError> {
    Ok(head(transaction, user)?.unread)
}

/// Adds a notification and gives its number.
pub fn add(
    transaction: &mut Transaction<'_>,
    user: UserNo,
    notification: Notification,
    is_unread: bool,
    inbox_max: u64,
) -> Result<u64, StoreError> {
    let mut head = head(transaction, user)?;
    head.newest += 1;
    let number = head.newest;
    transaction.put_long(&entry_key(user, number), &notification.row)?;
    let number_row = number.to_be_bytes().to_vec();
    transaction.put(number_key(user, &notification.id), number_row);
    if is_unread {
        head.unread += 1;
        let kind = notification.kind.as_str().as_bytes().to_vec();
        transaction.put(waiting_key(user, number), kind);
    }
    let kept = |head: &HeadRow| head.newest + 1 - head.floor;
    for _ in 0..TRIMMED_AT_ONCE {
        if kept(&head) > inbox_max {
            trim(transaction, user, &mut head)?;
        }
    }
    put_head(transaction, user, head);
    Ok(number)
}

/// Takes the oldest notification out.
fn trim(
    transaction: &mut Transaction<'_>,
    user: UserNo,
    head: &mut HeadRow,
) -> Result<(), StoreError> {
    let number = head.floor;
    if let Some(row) = entry(transaction, user, number)?
        && let Some(id) = id_of(&row.data)
    {
        transaction.delete(number_key(user, &id));
    }
    transaction.delete_long(&entry_key(user, number))?;
    if is_waiting(transaction, user, head, number)? {
        head.unread -= 1;
    }
    // Also one that `read_all` passed over.
    transaction.delete(waiting_key(user, number));
    head.floor += 1;
    Ok(())
}

/// Marks these as read. Gives those that were unread; ids that are not in the inbox are passed over.
pub fn read_these(
    transaction: &mut Transaction<'_>,
    user: UserNo,
    ids: Vec<EventId>,
) -> Result<Vec<EventId>, StoreError> {
    let mut head = head(transaction, user)?;
    let mut changed = Vec::new();
    for id in ids {
        let Some(number) = number_of(transaction, user, &id)? else {
            continue;
        };
        if is_waiting(transaction, user, &head, number)? {
            transaction.delete(waiting_key(user, number));
            head.unread -= 1;
            changed.push(id);
        }
    }
    put_head(transaction, user, head);
    Ok(changed)
}

/// Marks all as read. Tells whether there was any unread.
pub fn read_all(transaction: &mut Transaction<'_>, user: UserNo) -> Result<bool, StoreError> {
    let mut head = head(transaction, user)?;
    if head.unread == 0 {
        return Ok(false);
    }
    head.read_upto = head.newest;
    head.unread = 0;
    put_head(transaction, user, head);
    Ok(true)
}

/// One page, newest first; `None` when `before` is not in this inbox.
pub fn page(
    transaction: &Transaction<'_>,
    user: UserNo,
    ask: &Ask,
) -> Result<Option<Page>, StoreError> {
    let head = head(transaction, user)?;
    let before = match &ask.before {
        None => head.newest + 1,
        Some(id) => match number_of(transaction, user, id)? {
            Some(number) => number,
            None => return Ok(None),
        },
    };
    // One more than asked for tells whether more follow.
    let numbers = match ask.is_unread_only {
        true => waiting(transaction, user, &head, before, ask.limit + 1)?,
        false => {
            let numbers = (head.floor..before).rev().take(ask.limit + 1);
            numbers.collect()
        }
    };
    let (mut notifications, mut bytes) = (Vec::new(), 0);
    for number in numbers.iter().copied().take(ask.limit) {
        if bytes > PAGE_BYTES {
            break;
        }
        let is_read = !is_waiting(transaction, user, &head, number)?;
        if let Some(row) = transaction.get_long(&entry_key(user, number))? {
            bytes += row.len();
            notifications.extend(decode(&row).map(|row| told(row, is_read)));
        }
    }
    Ok(Some(Page {
        is_more: notifications.len() < numbers.len(),
        notifications,
        unread: head.unread,
    }))
}

/// What the unread notifications of a kind since `first` say, newest first, at most `count_max`.
pub fn unread_of_kind(
    transaction: &Transaction<'_>,
    user: UserNo,
    kind: &Kind,
    first: u64,
    count_max: usize,
) -> Result<Vec<Value>, StoreError> {
    let head = head(transaction, user)?;
    let from = waiting_key(user, head.newest);
    let to = waiting_key(user, first.max(head.read_upto + 1).max(head.floor) - 1);
    let rows = transaction.scan(&from, &to, SEARCHED_MAX)?;
    let of_kind = rows
        .iter()
        .filter(|(_, its_kind)| its_kind == kind.as_str().as_bytes());
    let mut found = Vec::new();
    for number in of_kind.filter_map(|(key, _)| parse_number(key)) {
        if found.len() == count_max {
            break;
        }
        found.extend(entry(transaction, user, number)?.map(|row| row.data));
    }
    Ok(found)
}

/// Whether any of these waits to be read.
pub fn is_any_unread(
    transaction: &Transaction<'_>,
    user: UserNo,
    ids: &[EventId],
) -> Result<bool, StoreError> {
    let head = head(transaction, user)?;
    for id in ids {
        if let Some(number) = number_of(transaction, user, id)?
            && is_waiting(transaction, user, &head, number)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a notification was read; `None` when it is not in the inbox any more.
pub fn is_read(
    transaction: &Transaction<'_>,
    user: UserNo,
    id: &EventId,
) -> Result<Option<bool>, StoreError> {
    let Some(number) = number_of(transaction, user, id)? else {
        return Ok(None);
    };
    let head = head(transaction, user)?;
    Ok(Some(!is_waiting(transaction, user, &head, number)?))
}

/// Takes away all that is kept about the user here, at most `rows_max` rows at a time. Tells whether any are left.
pub fn erase(
    transaction: &mut Transaction<'_>,
    user: UserNo,
    rows_max: usize,
) -> Result<bool, StoreError> {
    let mut left = rows_max;
    for kind in [ENTRIES, NUMBERS, WAITING, HEADS] {
        let (from, to) = user_range(kind, user);
        left -= transaction.delete_some(&from, &to, left)?;
    }
    Ok(left == 0)
}

/// Numbers of the unread ones before `before`, newest first.
fn waiting(
    transaction: &Transaction<'_>,
    user: UserNo,
    head: &HeadRow,
    before: u64,
    count_max: usize,
) -> Result<Vec<u64>, StoreError> {
    let from = waiting_key(user, before.saturating_sub(1));
    let to = waiting_key(user, head.read_upto);
    let rows = transaction.scan(&from, &to, count_max)?;
    Ok(rows
        .iter()
        .filter_map(|(key, _)| parse_number(key))
        .collect())
}

fn is_waiting(
    transaction: &Transaction<'_>,
    user: UserNo,
    head: &HeadRow,
    number: u64,
) -> Result<bool, StoreError> {
    Ok(number > head.read_upto && transaction.get(&waiting_key(user, number))?.is_some())
}

fn told(row: NotificationRow, is_read: bool) -> Value {
    let mut told = row.data;
    told["read"] = is_read.into();
    told["time"] = rfc3339(row.time_ms).into();
    told
}

fn id_of(data: &Value) -> Option<EventId> {
    data["id"].as_str()?.parse().ok()
}

fn head(transaction: &Transaction<'_>, user: UserNo) -> Result<HeadRow, StoreError> {
    let row = transaction.get(&head_key(user))?;
    Ok(row
        .and_then(|row| serde_json::from_slice(&row).ok())
        .unwrap_or_default())
}

fn put_head(transaction: &mut Transaction<'_>, user: UserNo, head: HeadRow) {
    let row = serde_json::to_vec(&head).expect("four numbers");
    transaction.put(head_key(user), row);
}

fn entry(
    transaction: &Transaction<'_>,
    user: UserNo,
    number: u64,
) -> Result<Option<NotificationRow>, StoreError> {
    let row = transaction.get_long(&entry_key(user, number))?;
    Ok(row.and_then(|row| decode(&row)))
}

fn decode(row: &[u8]) -> Option<NotificationRow> {
    serde_json::from_slice(row).ok()
}

fn number_of(
    transaction: &Transaction<'_>,
    user: UserNo,
    id: &EventId,
) -> Result<Option<u64>, StoreError> {
    let row = transaction.get(&number_key(user, id))?;
    Ok(row.and_then(|row| Some(u64::from_be_bytes(row.try_into().ok()?))))
}

/// The greater the number, the smaller the key.
fn entry_key(user: UserNo, number: u64) -> Vec<u8> {
    numbered(ENTRIES, user, number)
}

fn waiting_key(user: UserNo, number: u64) -> Vec<u8> {
    numbered(WAITING, user, number)
}

fn numbered(kind: u8, user: UserNo, number: u64) -> Vec<u8> {
    let (mut key, _) = user_range(kind, user);
    key.extend_from_slice(&(!number).to_be_bytes());
    key
}

fn parse_number(key: &[u8]) -> Option<u64> {
    let (_, number) = key.split_last_chunk::<8>()?;
    Some(!u64::from_be_bytes(*number))
}

fn number_key(user: UserNo, id: &EventId) -> Vec<u8> {
    let (mut key, _) = user_range(NUMBERS, user);
    key.extend_from_slice(id.as_str().as_bytes());
    key
}

fn head_key(user: UserNo) -> Vec<u8> {
    user_range(HEADS, user).0
}

/// First key and end of the user's rows of one kind.
fn user_range(kind: u8, user: UserNo) -> (Vec<u8>, Vec<u8>) {
    keys::states_of(kind, user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_newest_sorts_first(a: u64, b: u64, user: u32) {
            let (first, second) = (entry_key(UserNo(user), a), entry_key(UserNo(user), b));
            prop_assert_eq!(first.cmp(&second), b.cmp(&a));
            prop_assert_eq!(parse_number(&first), Some(a));
            let (from, to) = user_range(ENTRIES, UserNo(user));
            prop_assert!(from < first && first < to);
        }
    }

    #[test]
    fn kinds_are_short_plain_words() {
        for bad in ["", "Like", "a b", "ä", "a.b", &"x".repeat(33)] {
            assert!(bad.parse::<Kind>().is_err(), "{bad:?} was taken for a kind");
        }
        for good in ["like", "friend_request-2", &"x".repeat(32)] {
            assert_eq!(good.parse::<Kind>().unwrap().as_str(), good);
        }
    }
}

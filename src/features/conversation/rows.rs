//! The rows of conversations: one head each, one row for each member, and for each user those that it is in.
//!
//! Promises: what was written reads back; a row that cannot be read is an error, never a guess. Numbers of messages
//! begin at 1, so 0 stands for "none yet". It decides nothing.

use crate::clock::UnixMs;
use crate::event::ConversationId;
use crate::id::UserNo;
use crate::publish::members;
use crate::store::keys;
use crate::store::record::{Damaged, read_varint, write_varint};
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;

const HEADS: u8 = b'c';
/// Heads of conversations without members, until their messages are deleted.
const LEFT: u8 = b'C';
const DIRECT: u8 = b'd';
const MEMBERSHIPS: u8 = b'u';

/// What all members of a conversation share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub creator: UserNo,
    pub created_ms: UnixMs,
    /// The newest message or change.
    pub updated_ms: UnixMs,
    /// The number of the newest message.
    pub head: u64,
    /// The number of the oldest message that is kept; one past the head where none is.
    pub floor: u64,
    /// The time of that oldest message; 0 where none is kept.
    pub oldest_ms: UnixMs,
    pub members: u64,
    /// Between two users, found again rather than made twice.
    pub is_direct: bool,
    pub name: Option<String>,
}

/// How far one member has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Member {
    /// The head when the member came.
    pub joined_n: u64,
    /// The newest message that it has read; its own do not count as read by being sent.
    pub read_n: u64,
    /// How far its reading was told to senders.
    pub receipt_n: u64,
    /// The newest message that reached one of its devices, as told to senders.
    pub delivered_n: u64,
    /// Messages that it sent since it came.
    pub own_total: u64,
    /// How many of those have a number up to `read_n`.
    pub own_at_read: u64,
}

pub fn damaged(_: Damaged) -> StoreError {
    StoreError::Failed("a row of a conversation cannot be read".to_owned())
}

pub fn head(
    transaction: &Transaction<'_>,
    conversation: &ConversationId,
) -> Result<Option<Head>, StoreError> {
    let row = transaction.get(&head_key(conversation))?;
    row.map(|row| Head::decode(&row).map_err(damaged))
        .transpose()
}

pub fn put_head(transaction: &mut Transaction<'_>, conversation: &ConversationId, head: &Head) {
    transaction.put(head_key(conversation), head.encode());
}

/// The last member has left: nobody finds the conversation any more, and its messages are due for deletion.
pub fn retire(transaction: &mut Transaction<'_>, conversation: &ConversationId, head: &Head) {
    transaction.delete(head_key(conversation));
    let left = keys::state(LEFT, conversation.as_str().as_bytes());
    transaction.put(left, head.encode());
}

/// The messages of a conversation without members are deleted.
pub fn forget_left(transaction: &mut Transaction<'_>, conversation: &ConversationId) {
    transaction.delete(keys::state(LEFT, conversation.as_str().as_bytes()));
}

/// The conversation whose head has this key.
pub fn conversation_of(key: &[u8]) -> Option<ConversationId> {
    let (prefix, _) = keys::states(HEADS);
    std::str::from_utf8(key.get(prefix.len()..)?)
        .ok()?
        .parse()
        .ok()
}

pub fn member(
    transaction: &Transaction<'_>,
    conversation: &ConversationId,
    user: UserNo,
) -> Result<Option<Member>, StoreError> {
    let row = transaction.get(&members::key(conversation, user))?;
    row.map(|row| Member::decode(&row).map_err(damaged))
        .transpose()
}

pub fn put_member(
    transaction: &mut Transaction<'_>,
    conversation: &ConversationId,
    user: UserNo,
    member: &Member,
) {
    transaction.put(members::key(conversation, user), member.encode());
}

/// The conversations that the user is in, in the order of their ids: those made first come first.
pub fn memberships(
    transaction: &Transaction<'_>,
    user: UserNo,
) -> Result<Vec<ConversationId>, StoreError> {
    let first = membership_count_key(user);
    let (mut from, mut to) = (first.clone(), first);
    from.push(b' ');
    to.push(u8::MAX);
    let rows = transaction.scan(&from, &to, usize::MAX)?;
    let id = |key: &[u8]| {
        std::str::from_utf8(&key[from.len() - 1..])
            .ok()?
            .parse()
            .ok()
    };
    Ok(rows.iter().filter_map(|(key, _)| id(key)).collect())
}

/// How many conversations the user is in.
pub fn membership_count(transaction: &Transaction<'_>, user: UserNo) -> Result<u64, StoreError> {
    let row = transaction.get(&membership_count_key(user))?;
    row.map_or(Ok(0), |row| {
        read_varint(&mut row.as_slice()).map_err(damaged)
    })
}

/// Writes that the user is in the conversation; `count` is how many it is in now.
pub fn put_membership(
    transaction: &mut Transaction<'_>,
    user: UserNo,
    conversation: &ConversationId,
    count: u64,
) {
    transaction.put(membership_key(user, conversation), Vec::new());
    put_membership_count(transaction, user, count);
}

pub fn delete_membership(
    transaction: &mut Transaction<'_>,
    user: UserNo,
    conversation: &ConversationId,
    count: u64,
) {
    transaction.delete(membership_key(user, conversation));
    match count {
        0 => transaction.delete(membership_count_key(user)),
        _ => put_membership_count(transaction, user, count),
    }
}

fn put_membership_count(transaction: &mut Transaction<'_>, user: UserNo, count: u64) {
    let mut row = Vec::new();
    write_varint(&mut row, count);
    transaction.put(membership_count_key(user), row);
}

/// The key under which the 1:1 conversation of two users is found again.
pub fn direct_key(a: UserNo, b: UserNo) -> Vec<u8> {
    let (low, high) = (a.min(b), a.max(b));
    let hash = keys::hash(&[&low.0.to_be_bytes(), &high.0.to_be_bytes()]);
    keys::state(DIRECT, &hash)
}

fn head_key(conversation: &ConversationId) -> Vec<u8> {
    keys::state(HEADS, conversation.as_str().as_bytes())
}

/// First key and end of the heads after `after`.
pub fn heads_after(after: Option<&ConversationId>, kept: Kept) -> (Vec<u8>, Vec<u8>) {
    let (from, to) = keys::states(kept.kind());
    let next = after.map(|after| {
        let mut next = keys::state(kept.kind(), after.as_str().as_bytes());
        next.push(0);
        next
    });
    (next.unwrap_or(from), to)
}

/// Whether a conversation still has members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    ByMembers,
    UntilDeleted,
}

impl Kept {
    fn kind(self) -> u8 {
        match self {
            Kept::ByMembers => HEADS,
            Kept::UntilDeleted => LEFT,
        }
    }
}

/// The row that says how many conversations a user is in; those it is in stand behind it.
fn membership_count_key(user: UserNo) -> Vec<u8> {
    keys::state(MEMBERSHIPS, &user.0.to_be_bytes())
}

fn membership_key(user: UserNo, conversation: &ConversationId) -> Vec<u8> {
    let mut key = membership_count_key(user);
    key.extend_from_slice(conversation.as_str().as_bytes());
    key
}

impl Head {
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(40);
        for number in [
            u64::from(self.creator.0),
            self.created_ms,
            self.updated_ms,
            self.head,
            self.floor,
            self.oldest_ms,
            self.members,
            u64::from(self.is_direct),
        ] {
            write_varint(&mut row, number);
        }
        // A name is never empty, so nothing behind the numbers is no name.
        row.extend_from_slice(self.name.as_deref().unwrap_or("").as_bytes());
        row
    }

    pub fn decode(row: &[u8]) -> Result<Head, Damaged> {
        let mut rest = row;
        let mut number = || read_varint(&mut rest);
        let head = Head {
            creator: UserNo(u32::try_from(number()?).map_err(|_| Damaged)?),
            created_ms: number()?,
            updated_ms: number()?,
            head: number()?,
            floor: number()?,
            oldest_ms: number()?,
            members: number()?,
            is_direct: number()? != 0,
            name: None,
        };
        let name = std::str::from_utf8(rest).map_err(|_| Damaged)?;
        Ok(Head {
            name: (!name.is_empty()).then(|| name.to_owned()),
            ..head
        })
    }
}

impl Member {
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(12);
        for number in [
            self.joined_n,
            self.read_n,
            self.receipt_n,
            self.delivered_n,
            self.own_total,
            self.own_at_read,
        ] {
            write_varint(&mut row, number);
        }
        row
    }

    pub fn decode(row: &[u8]) -> Result<Member, Damaged> {
        let mut rest = row;
        let mut number = || read_varint(&mut rest);
        Ok(Member {
            joined_n: number()?,
            read_n: number()?,
            receipt_n: number()?,
            delivered_n: number()?,
            own_total: number()?,
            own_at_read: number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn heads_read_back(numbers: [u64; 6], creator: u32, is_direct: bool, name in proptest::option::of(".{1,128}")) {
            let [created_ms, updated_ms, head, floor, oldest_ms, members] = numbers;
            let creator = UserNo(creator);
            let head = Head { creator, created_ms, updated_ms, head, floor, oldest_ms, members, is_direct, name };
            prop_assert_eq!(Head::decode(&head.encode()), Ok(head));
        }

        #[test]
        fn members_read_back(numbers: [u64; 6]) {
            let [joined_n, read_n, receipt_n, delivered_n, own_total, own_at_read] = numbers;
            let member = Member { joined_n, read_n, receipt_n, delivered_n, own_total, own_at_read };
            prop_assert_eq!(Member::decode(&member.encode()), Ok(member));
        }

        #[test]
        fn any_bytes_read_as_something_or_nothing(row in prop::collection::vec(any::<u8>(), 0..80)) {
            drop((Head::decode(&row), Member::decode(&row)));
        }
    }
}

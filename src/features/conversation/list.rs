//! What is read of conversations: one, all of a user, and who is in one.
//!
//! Promises: each answer is of one moment, and bounded: longer lists come in pages. It changes no row.

use super::asker::{Asker, ConversationError, Seen, seen};
use super::messages;
use super::rows;
use super::told::{self, MEMBERS_TOLD};
use super::unread;
use crate::clock::UnixMs;
use crate::event::{ConversationId, UserId};
use crate::id::UserNo;
use crate::publish::members as member_rows;
use crate::store::Store;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;

/// A conversation as its asker sees it: with the newest message, and with what is unread where it is a member.
pub fn told_to(
    transaction: &Transaction<'_>,
    id: &ConversationId,
    seen: &Seen,
) -> Result<String, StoreError> {
    let head = &seen.head;
    let (from, to) = member_rows::range(id);
    let rows = transaction.scan(&from, &to, MEMBERS_TOLD)?;
    let users = rows.iter().filter_map(|(key, _)| member_rows::user_of(key));
    let names = first_names(transaction, &users.collect::<Vec<UserNo>>());
    let mut told = told::conversation(id, head, &names);
    if let (Some(member), Some(viewer)) = (&seen.member, seen.viewer) {
        told["read_upto"] = member.read_n.into();
        told["unread"] = unread::of_member(transaction, id, viewer, head, member)?.into();
    }
    let last = match head.head >= head.floor {
        true => messages::get(transaction, id, head.head)?,
        false => None,
    };
    Ok(match last {
        Some(last) => {
            let sender = transaction.name(last.sender);
            let last = told::message(id, &last, &sender, None);
            told::with(&told, "last_message", &last)
        }
        None => told.to_string(),
    })
}

/// The names of the first members, as many as are told.
pub fn first_names(transaction: &Transaction<'_>, users: &[UserNo]) -> Vec<UserId> {
    let told = users.iter().take(MEMBERS_TOLD);
    told.map(|user| transaction.name(*user)).collect()
}

/// One conversation as the asker sees it.
pub async fn get(
    store: &Store,
    asker: Asker,
    id: ConversationId,
) -> Result<String, ConversationError> {
    let read = move |transaction: &mut Transaction<'_>| {
        let seen = seen(transaction, &id, &asker)?;
        Ok(told_to(transaction, &id, &seen)?)
    };
    store.commit_always(64, read).await
}

/// The names of all members after `after`, in the order in which the server came to know them.
pub async fn members_page(
    store: &Store,
    asker: Asker,
    id: ConversationId,
    after: Option<UserNo>,
    count_max: usize,
) -> Result<Vec<UserId>, ConversationError> {
    let read = move |transaction: &mut Transaction<'_>| {
        seen(transaction, &id, &asker)?;
        let (first, to) = member_rows::range(&id);
        let next = after.map(|after| {
            let mut next = member_rows::key(&id, after);
            next.push(0);
            next
        });
        let rows = transaction.scan(&next.unwrap_or(first), &to, count_max)?;
        let users = rows.iter().filter_map(|(key, _)| member_rows::user_of(key));
        Ok(users.map(|user| transaction.name(user)).collect())
    };
    store.commit_always(64, read).await
}

/// A place in a user's list of conversations, which stands in the order of their last activity, newest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListPlace {
    pub updated_ms: UnixMs,
    pub id: ConversationId,
}

/// The user's conversations from a place on, those with the newest activity first, at most `count_max`; and the place
/// of the last one when there are more.
pub fn of_user(
    transaction: &Transaction<'_>,
    user: UserNo,
    before: Option<ListPlace>,
    count_max: usize,
) -> Result<(Vec<String>, Option<ListPlace>), StoreError> {
    let mut found = Vec::new();
    for id in rows::memberships(transaction, user)? {
        if let Some(head) = rows::head(transaction, &id)? {
            let updated_ms = head.updated_ms;
            found.push((ListPlace { updated_ms, id }, head));
        }
    }
    found.retain(|(place, _)| before.as_ref().is_none_or(|before| place < before));
    found.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
    let is_more = found.len() > count_max;
    found.truncate(count_max);
    let last = found.last().map(|(place, _)| place.clone());
    let mut told = Vec::with_capacity(found.len());
    for (place, head) in found {
        let seen = Seen {
            head,
            viewer: Some(user),
            member: rows::member(transaction, &place.id, user)?,
        };
        told.push(told_to(transaction, &place.id, &seen)?);
    }
    Ok((told, last.filter(|_| is_more)))
}

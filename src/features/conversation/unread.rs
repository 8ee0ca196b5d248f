//! How much a member has not read: derived from a few numbers, so that a message to a thousand members writes nothing
//! for each of them.
//!
//! Promises: a member's own messages never count, deleted ones of others do, those that retention took do not. It
//! reads no more than one row for each conversation where retention has not passed the reader.

use super::messages;
use super::rows::{self, Head, Member};
use crate::event::ConversationId;
use crate::id::UserNo;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;

/// What a user has not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unread {
    /// Messages by others after the user's read cursors.
    pub messages: u64,
    /// Conversations with such messages.
    pub conversations: u64,
}

/// In all conversations of the user.
pub fn of_user(transaction: &Transaction<'_>, user: UserNo) -> Result<Unread, StoreError> {
    let mut unread = Unread::default();
    for conversation in rows::memberships(transaction, user)? {
        let head = rows::head(transaction, &conversation)?;
        let member = rows::member(transaction, &conversation, user)?;
        if let (Some(head), Some(member)) = (head, member) {
            let messages = of_member(transaction, &conversation, user, &head, &member)?;
            unread.messages += messages;
            unread.conversations += u64::from(messages > 0);
        }
    }
    Ok(unread)
}

/// In one conversation.
pub fn of_member(
    transaction: &Transaction<'_>,
    conversation: &ConversationId,
    user: UserNo,
    head: &Head,
    member: &Member,
) -> Result<u64, StoreError> {
    let seen = member.read_n.max(head.floor - 1);
    let own = match seen == member.read_n {
        true => member.own_total - member.own_at_read,
        false => messages::own_after(transaction, user, conversation, seen, member.own_total)?,
    };
    Ok((head.head - seen.min(head.head)).saturating_sub(own))
}

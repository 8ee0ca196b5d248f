//! Conversations: who is in them, and how far each member has read.
//!
//! Promises: two users have one 1:1 conversation; heads, members and read cursors change in the same commit as the
//! events that tell of it. It knows nothing of how they are shown.

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

pub fn unread(_transaction: &Transaction<'_>, _user: UserNo) -> Result<Unread, StoreError> {
    Ok(Unread::default())
}

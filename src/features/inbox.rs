//! The inbox: notifications of one user, newest first, read or unread.
//!
//! Promises: a notification is in the inbox in the same commit as the event that tells of it, and unread counts are
//! changed with it. It knows nothing of how they are shown.

use crate::id::UserNo;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;

/// Unread notifications of the user.
pub fn unread(_transaction: &Transaction<'_>, _user: UserNo) -> Result<u64, StoreError> {
    Ok(0)
}

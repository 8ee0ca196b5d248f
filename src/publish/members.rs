//! Who is in a conversation: the audience of what is said there.
//!
//! Promises: the rows of one conversation's members stand together, in the order of user numbers, and no conversation's
//! rows are among another's. What a row says of its member is the business of `features/conversation`.

use crate::event::ConversationId;
use crate::id::UserNo;
use crate::store::keys;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;

const MEMBERS: u8 = b'm';

/// The key of one member's row. An id holds no NUL, so none is another's prefix.
pub fn key(conversation: &ConversationId, user: UserNo) -> Vec<u8> {
    let (mut key, _) = range(conversation);
    key.extend_from_slice(&user.0.to_be_bytes());
    key
}

/// First key and end of the rows of all members.
pub fn range(conversation: &ConversationId) -> (Vec<u8>, Vec<u8>) {
    let mut from = keys::state(MEMBERS, conversation.as_str().as_bytes());
    let mut to = from.clone();
    from.push(0);
    to.push(1);
    (from, to)
}

/// The member whose row has this key.
pub fn user_of(key: &[u8]) -> Option<UserNo> {
    let (_, number) = key.split_last_chunk::<4>()?;
    Some(UserNo(u32::from_be_bytes(*number)))
}

/// All members, in the order of their numbers; none where there is no such conversation.
pub fn of(
    transaction: &Transaction<'_>,
    conversation: &ConversationId,
) -> Result<Vec<UserNo>, StoreError> {
    let (from, to) = range(conversation);
    let rows = transaction.scan(&from, &to, usize::MAX)?;
    Ok(rows.iter().filter_map(|(key, _)| user_of(key)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn members_read_back_and_stand_apart(a in "[A-Za-z0-9_-]{1,64}", b in "[A-Za-z0-9_-]{1,64}", user: u32) {
            let (a, b): (ConversationId, ConversationId) = (a.parse().unwrap(), b.parse().unwrap());
            let key = key(&a, UserNo(user));
            prop_assert_eq!(user_of(&key), Some(UserNo(user)));
            let is_within = |conversation| {
                let (from, to) = range(conversation);
                from <= key && key < to
            };
            prop_assert!(is_within(&a));
            prop_assert_eq!(is_within(&b), a == b);
        }
    }
}

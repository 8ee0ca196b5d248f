//! Who asks for a conversation, and what it may see of it.
//!
//! Promises: whoever is not a member and has no token for all conversations learns nothing, not even that there is one.
//! It changes no row.

use super::news::News;
use super::rows::{self, Head, Member};
use crate::event::{ConversationId, UserId};
use crate::id::{Random, UserNo};
use crate::publish::PublishError;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::token::Scopes;

/// Who asks, and what its token lets it do beyond its own conversations.
#[derive(Debug, Clone)]
pub struct Asker {
    pub user: UserId,
    pub scope: Scopes,
}

impl Asker {
    pub fn news(&self, random: &Random) -> News {
        News {
            random: random.clone(),
            actor: self.user.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConversationError {
    /// There is none, or none that the asker may know of.
    #[error("there is no such conversation")]
    Unknown,
    #[error("there is no such message in this conversation")]
    UnknownMessage,
    #[error("a 1:1 conversation has no name and keeps its two members")]
    Direct,
    #[error("the conversation has as many members as one can have")]
    Full,
    #[error("a user is in as many conversations as one can be in")]
    TooMany,
    #[error("this is for the creator of the conversation")]
    NotTheCreator,
    #[error("this is for the sender of the message")]
    NotTheSender,
    #[error("upto is beyond the newest message")]
    AheadOfHead,
    #[error("the message is larger than limits.event_bytes")]
    TooLarge,
    #[error("the idempotency key was used before with another body")]
    Mismatch,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PublishError> for ConversationError {
    fn from(error: PublishError) -> ConversationError {
        match error {
            PublishError::Mismatch => ConversationError::Mismatch,
            PublishError::UnknownConversation => ConversationError::Unknown,
            PublishError::Store(error) => error.into(),
        }
    }
}

/// A conversation as one asker sees it.
pub struct Seen {
    pub head: Head,
    /// The asker's number, where it is known at all.
    pub viewer: Option<UserNo>,
    /// The asker's own row; a backend need not be a member.
    pub member: Option<Member>,
}

/// The conversation, if the asker is in it or its token sees all of them.
pub fn seen(
    transaction: &Transaction<'_>,
    id: &ConversationId,
    asker: &Asker,
) -> Result<Seen, ConversationError> {
    let viewer = transaction.find_user(&asker.user);
    let member = match viewer {
        Some(viewer) => rows::member(transaction, id, viewer)?,
        None => None,
    };
    let head = rows::head(transaction, id)?;
    match head.filter(|_| member.is_some() || asker.scope.may_publish()) {
        Some(head) => Ok(Seen {
            head,
            viewer,
            member,
        }),
        None => Err(ConversationError::Unknown),
    }
}

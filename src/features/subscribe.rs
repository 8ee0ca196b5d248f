//! Durable subscriptions of users to topics: who gets what is published to a topic.
//!
//! Promises: subscribing twice is subscribing once; the answer comes when it is on stable storage. A user may subscribe
//! itself only to topics that its token names.

use crate::event::{Topic, UserId};
use crate::features::acquaintance;
use crate::store::Store;
use crate::store::shared::StoreError;
use crate::token::Claims;

/// Whether the caller may change `user`'s subscription to `topic`. Leaving a topic is always one's own affair.
pub fn is_allowed(claims: &Claims, topic: &Topic, user: &UserId, does_join: Change) -> bool {
    let is_own = claims.sub == *user;
    let is_named = claims.topics.iter().any(|pattern| pattern.matches(topic));
    claims.scope.may_publish() || (is_own && (is_named || does_join == Change::Leave))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Join,
    Leave,
}

pub async fn change(
    store: &Store,
    topic: Topic,
    user: UserId,
    change: Change,
) -> Result<(), StoreError> {
    let decide = move |transaction: &mut crate::store::transaction::Transaction<'_>| {
        match change {
            Change::Join => {
                let user = transaction.user(&user);
                transaction.subscribe(&topic, user);
                if let Some(watched) = acquaintance::of_topic(&topic) {
                    acquaintance::watch(transaction, user, &watched);
                }
            }
            Change::Leave => {
                if let Some(user) = transaction.find_user(&user) {
                    transaction.unsubscribe(&topic, user);
                    if let Some(watched) = acquaintance::of_topic(&topic) {
                        acquaintance::unwatch(transaction, user, &watched);
                    }
                }
            }
        }
        Ok::<(), StoreError>(())
    };
    match change {
        Change::Join => store.commit(256, decide).await,
        Change::Leave => store.commit_always(256, decide).await,
    }
}

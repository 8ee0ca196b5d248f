//! Retention of messages: those older than the configuration allows are deleted, and those of conversations that all
//! members have left.
//!
//! Promises: a message is deleted with everything that points to it, in commits that stay small; the floor of its
//! conversation rises in the same commit, so unread counts never count what is gone. It never looks at the logs, which
//! have a retention of their own.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;
use crate::event::ConversationId;
use crate::features::badge::Badges;
use crate::features::conversation::messages;
use crate::features::conversation::rows::{self, Head, Kept};
use crate::id::UserNo;
use crate::publish::members;
use crate::store::Store;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;

/// How often it looks for what is due, at most and at least: a tenth of the retention between them.
const EVERY_MAX: Duration = Duration::from_secs(60);
const EVERY_MIN: Duration = Duration::from_millis(100);
/// Conversations looked at together.
const PAGE_HEADS: usize = 500;
/// Messages deleted in one commit.
const COMMIT_MESSAGES: u64 = 50;

/// Deletes what is due, until `stop`. Without `keep_for` messages stay as long as their conversation.
pub async fn keep_forever(
    store: Store,
    badges: Badges,
    keep_for: Option<Duration>,
    stop: CancellationToken,
) {
    let every = keep_for.map_or(EVERY_MAX, |keep_for| {
        (keep_for / 10).clamp(EVERY_MIN, EVERY_MAX)
    });
    while tokio::time::timeout(every, stop.cancelled()).await.is_err() {
        if let Err(error) = sweep(&store, &badges, keep_for).await {
            tracing::warn!(%error, "old messages could not be deleted");
        }
    }
}

/// Deletes what is due now.
pub async fn sweep(
    store: &Store,
    badges: &Badges,
    keep_for: Option<Duration>,
) -> Result<(), StoreError> {
    for (id, head) in page(store, None, Kept::UntilDeleted).await? {
        delete_left(store, id, head).await?;
    }
    let Some(keep_for) = keep_for else {
        return Ok(());
    };
    let keep_ms = u64::try_from(keep_for.as_millis()).unwrap_or(u64::MAX);
    let mut after = None;
    loop {
        let heads = page(store, after.as_ref(), Kept::ByMembers).await?;
        let Some((last, _)) = heads.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for (id, head) in heads {
            // Asked again for each: a long sweep must not spare what has become due meanwhile.
            let before_ms = store.now_ms().saturating_sub(keep_ms);
            if head.head >= head.floor && head.oldest_ms < before_ms {
                badges.changed(delete_old(store, id, before_ms).await?);
            }
        }
    }
}

/// The next heads in the order of their ids.
async fn page(
    store: &Store,
    after: Option<&ConversationId>,
    kept: Kept,
) -> Result<Vec<(ConversationId, Head)>, StoreError> {
    let (from, to) = rows::heads_after(after, kept);
    let found = store.range(from, to, PAGE_HEADS).await?;
    let parsed = found
        .iter()
        .filter_map(|(key, row)| Some((rows::conversation_of(key)?, Head::decode(row).ok()?)));
    Ok(parsed.collect())
}

/// Deletes the messages of one conversation that were sent before `before_ms`. Gives its members.
async fn delete_old(
    store: &Store,
    id: ConversationId,
    before_ms: UnixMs,
) -> Result<Vec<UserNo>, StoreError> {
    loop {
        let one = id.clone();
        let decide = move |transaction: &mut Transaction<'_>| {
            let Some(mut head) = rows::head(transaction, &one)? else {
                return Ok::<_, StoreError>(Some(Vec::new()));
            };
            let last = head.head.min(head.floor + COMMIT_MESSAGES - 1);
            head.oldest_ms = 0;
            while head.floor <= last {
                let message = messages::get(transaction, &one, head.floor)?;
                match message {
                    Some(message) if message.time_ms >= before_ms => {
                        head.oldest_ms = message.time_ms;
                        break;
                    }
                    Some(message) => messages::delete(transaction, &one, &message)?,
                    None => {}
                }
                head.floor += 1;
            }
            let is_done = head.oldest_ms > 0 || head.floor > head.head;
            rows::put_head(transaction, &one, &head);
            Ok(match is_done {
                true => Some(members::of(transaction, &one)?),
                false => None,
            })
        };
        if let Some(members) = store.commit_always(256, decide).await? {
            return Ok(members);
        }
    }
}

/// Deletes all messages of a conversation without members, and then the last that was known of it.
async fn delete_left(store: &Store, id: ConversationId, head: Head) -> Result<(), StoreError> {
    let mut floor = head.floor;
    while floor <= head.head {
        let last = head.head.min(floor + COMMIT_MESSAGES - 1);
        let one = id.clone();
        let decide = move |transaction: &mut Transaction<'_>| {
            for n in floor..=last {
                if let Some(message) = messages::get(transaction, &one, n)? {
                    messages::delete(transaction, &one, &message)?;
                }
            }
            Ok::<(), StoreError>(())
        };
        store.commit_always(256, decide).await?;
        floor = last + 1;
    }
    store
        .commit_always(64, move |transaction| {
            rows::forget_left(transaction, &id);
            Ok(())
        })
        .await
}

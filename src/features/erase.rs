//! Erasing a user: everything that is kept about one person goes, in bounded steps that a crash only interrupts.
//!
//! Promises: the first commit takes the name away and writes down what is to be done; from then on nobody finds the
//! user, and who comes with the name again begins anew. The rest is done by one worker, step after step, each of which
//! may be done twice; a start finishes what the last one left. An erasure is over when all of it is on stable storage.
//! It
//! never touches an event that the name's next life wrote.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::event::{Event, UserId};
use crate::features::conversation::news::News;
use crate::features::preferences::FeedAuto;
use crate::features::presence::Presence;
use crate::features::redact::{self, Erased};
use crate::features::{
    ack, acquaintance, conversation, digest, feed, inbox, message, preferences, presence,
};
use crate::id::{Random, UserNo};
use crate::store::engine::Row;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::store::{Store, keys, sweep, topics};

/// Rows of erasures that are not over: user number → what is to be done.
const ERASURES: u8 = b'e';
/// Erasures that may wait at a time; each is a pass over the whole store.
const WAITING_MAX: usize = 1_000;
/// Rows changed in one commit, and events rewritten in one.
const COMMIT_ROWS: usize = 200;
const COMMIT_EVENTS: usize = 32;
/// Conversations that are left in one commit: each tells all its members.
const COMMIT_CONVERSATIONS: usize = 4;
/// Rows read in one step of a walk through rows that may name the user.
const WALKED_ROWS: usize = 1_000;
/// How often is looked whether upkeep has taken the user's events away.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Kinds of long rows in JSON that belong to others and may name the user.
const NAMING_ROWS: [u8; 2] = [inbox::ENTRIES, feed::GATHERED];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EraseError {
    #[error("too many erasures are waiting")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The erasures of one server.
#[derive(Clone, Default)]
pub struct Erasures(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Those that are not over; written by `begin` and by the worker.
    waiting: Mutex<BTreeMap<UserNo, Intent>>,
    /// Something is to be done.
    due: Notify,
    /// Something is over.
    over: Notify,
}

/// What the features of one server remember of their users beside the store.
#[derive(Clone)]
pub struct Memory {
    pub feed_auto: FeedAuto,
    pub presence: Presence,
}

/// What is to be done, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct IntentRow {
    name: UserId,
    /// Events from this commit on are of a later life of the name.
    before: u64,
}

type Intent = IntentRow;

impl Erasures {
    /// Takes the user's name away and writes down that all the rest must go. `None` when nobody has that name, and
    /// nothing that is not over stands under it. The work goes on whether anyone waits for it or not.
    pub async fn begin(&self, store: &Store, name: &UserId) -> Result<Option<UserNo>, EraseError> {
        if let Some(user) = self.waiting_for(name) {
            return Ok(Some(user));
        }
        if self.0.waiting.lock().len() >= WAITING_MAX {
            return Err(EraseError::TooMany);
        }
        let (named, inner) = (name.clone(), Arc::clone(&self.0));
        let begun = store
            .commit_always(256, move |transaction| {
                let Some(user) = transaction.find_user(&named) else {
                    return Ok::<_, StoreError>(None);
                };
                let intent = IntentRow {
                    name: named,
                    before: transaction.next_commit(),
                };
                transaction.forget_log(user);
                let row = serde_json::to_vec(&intent).expect("a name and a number");
                transaction.put(intent_key(user), row);
                // Whoever does not find the name any more finds it here.
                inner.waiting.lock().insert(user, intent);
                Ok(Some(user))
            })
            .await?;
        self.0.due.notify_one();
        Ok(begun.or_else(|| self.waiting_for(name)))
    }

    /// Resolves when the erasure of this user is over.
    pub async fn finished(&self, user: UserNo) {
        loop {
            let over = self.0.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            if !self.0.waiting.lock().contains_key(&user) {
                return;
            }
            over.await;
        }
    }

    fn waiting_for(&self, name: &UserId) -> Option<UserNo> {
        let waiting = self.0.waiting.lock();
        let found = waiting.iter().find(|(_, intent)| intent.name == *name);
        found.map(|(user, _)| *user)
    }

    /// Finishes what the last start left, and then whatever is begun, until `stop`.
    pub async fn work_forever(
        self,
        store: Store,
        memory: Memory,
        random: Random,
        stop: CancellationToken,
    ) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            worked = self.work(&store, &memory, &random) => {
                if let Err(error) = worked {
                    tracing::error!(%error, "an erasure was interrupted; the next start finishes it");
                }
            }
        }
    }

    async fn work(
        &self,
        store: &Store,
        memory: &Memory,
        random: &Random,
    ) -> Result<(), StoreError> {
        self.load(store).await?;
        loop {
            let next = self
                .0
                .waiting
                .lock()
                .first_key_value()
                .map(|(user, intent)| (*user, intent.clone()));
            let Some((user, intent)) = next else {
                self.0.due.notified().await;
                continue;
            };
            let started = tokio::time::Instant::now();
            let erasing = Erasing::new(store, random, user, intent);
            erasing.run(memory).await?;
            self.0.waiting.lock().remove(&user);
            self.0.over.notify_waiters();
            let duration_ms = started.elapsed().as_millis() as u64;
            tracing::info!(user = user.0, duration_ms, "a user was erased");
        }
    }

    async fn load(&self, store: &Store) -> Result<(), StoreError> {
        for (key, row) in store.rows(ERASURES).await? {
            let user = key.try_into().map(|user| UserNo(u32::from_be_bytes(user)));
            match (user, serde_json::from_slice(&row)) {
                (Ok(user), Ok(intent)) => drop(self.0.waiting.lock().insert(user, intent)),
                _ => tracing::error!("the row of an erasure cannot be read; it is left as it is"),
            }
        }
        Ok(())
    }
}

fn intent_key(user: UserNo) -> Vec<u8> {
    keys::state(ERASURES, &user.0.to_be_bytes())
}

/// One erasure at work. Each step may be done again from its beginning.
struct Erasing<'a> {
    store: &'a Store,
    user: UserNo,
    before: u64,
    erased: Erased,
    news: News,
}

impl<'a> Erasing<'a> {
    fn new(store: &'a Store, random: &Random, user: UserNo, intent: IntentRow) -> Erasing<'a> {
        let erased = Erased {
            name: intent.name,
            placeholder: store.name(user),
        };
        Erasing {
            store,
            user,
            before: intent.before,
            news: News {
                random: random.clone(),
                actor: erased.placeholder.clone(),
            },
            erased,
        }
    }

    async fn run(&self, memory: &Memory) -> Result<(), StoreError> {
        // After a restart this brings the trimming of the log to the front; otherwise it changes nothing.
        let user = self.user;
        self.change(move |transaction| {
            transaction.forget_log(user);
            Ok(false)
        })
        .await?;
        self.leave_topics().await?;
        self.erase_own(memory).await?;
        self.leave_conversations().await?;
        for kind in NAMING_ROWS {
            self.clean_rows(kind).await?;
        }
        self.redact_events(0..self.before, redact::event).await?;
        // What stood in rows until now may have been told in digests meanwhile.
        let end = self
            .store
            .commit_always(64, |transaction| {
                Ok::<_, StoreError>(transaction.next_commit())
            })
            .await?;
        self.redact_events(self.before..end, redact::digest).await?;
        while !self.store.is_trimmed(user) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        // This commit's sync is also that of the trimming, which does not sync by itself.
        self.change(move |transaction| {
            transaction.delete(intent_key(user));
            Ok(false)
        })
        .await
    }

    /// Runs one bounded step as often as it says that there is more.
    async fn change(
        &self,
        step: impl Fn(&mut Transaction<'_>) -> Result<bool, StoreError> + Clone + Send + 'static,
    ) -> Result<(), StoreError> {
        while self.store.commit_always(256, step.clone()).await? {}
        Ok(())
    }

    /// Takes the user out of all topics, and everyone out of the topic of its presence.
    async fn leave_topics(&self) -> Result<(), StoreError> {
        let user = self.user;
        loop {
            let topics = self
                .store
                .aside(move |rows| topics::of(rows, user, None, COMMIT_ROWS))
                .await?;
            if topics.is_empty() {
                break;
            }
            self.change(move |transaction| {
                for topic in &topics {
                    transaction.unsubscribe(topic, user);
                }
                Ok(false)
            })
            .await?;
        }
        let watched = self.erased.name.clone();
        let Some(presence) = acquaintance::topic(&watched) else {
            return Ok(());
        };
        self.change(move |transaction| {
            let watchers = transaction.subscribers(&presence);
            for watcher in watchers.iter().take(COMMIT_ROWS) {
                transaction.unsubscribe(&presence, *watcher);
                acquaintance::unwatch(transaction, *watcher, &watched);
            }
            Ok(watchers.len() > COMMIT_ROWS)
        })
        .await
    }

    /// Takes away what each feature keeps for the user alone.
    async fn erase_own(&self, memory: &Memory) -> Result<(), StoreError> {
        let (user, feed_auto) = (self.user, memory.feed_auto.clone());
        self.change(move |transaction| {
            preferences::erase(transaction, &feed_auto, user)?;
            Ok(false)
        })
        .await?;
        for erase in [ack::erase, inbox::erase, digest::erase, presence::erase] {
            self.change(move |transaction| erase(transaction, user, COMMIT_ROWS))
                .await?;
        }
        memory.presence.forget(user);
        Ok(())
    }

    /// Leaves tombstones where the user wrote, takes it out of groups, and lets its 1:1s be.
    async fn leave_conversations(&self) -> Result<(), StoreError> {
        let (user, news) = (self.user, self.news.clone());
        self.change(move |transaction| {
            let is_done = message::forget(transaction, &news, user, COMMIT_EVENTS)?;
            Ok(!is_done)
        })
        .await?;
        let news = self.news.clone();
        self.change(move |transaction| {
            let is_done = conversation::forget(transaction, &news, user, COMMIT_CONVERSATIONS)?;
            Ok(!is_done)
        })
        .await
    }

    /// Rewrites the rows of others that tell of the user. A value is read again in the command that rewrites it.
    async fn clean_rows(&self, kind: u8) -> Result<(), StoreError> {
        let (mut from, to) = keys::states(kind);
        loop {
            let rows = self
                .store
                .range(from.clone(), to.clone(), WALKED_ROWS)
                .await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            let mut next = last.clone();
            next.push(0);
            for some in naming(&rows, &self.erased.name).chunks(COMMIT_EVENTS) {
                let (some, erased) = (some.to_vec(), self.erased.clone());
                self.change(move |transaction| {
                    some.iter()
                        .try_for_each(|key| clean_row(transaction, key, &erased))?;
                    Ok(false)
                })
                .await?;
            }
            from = next;
        }
    }

    /// Rewrites the events in the logs of others that the user wrote or that name it.
    async fn redact_events(
        &self,
        commits: Range<u64>,
        change: fn(&Event, &Erased) -> Option<Event>,
    ) -> Result<(), StoreError> {
        let mut from = Some(commits.start);
        while let Some(start) = from {
            let (name, commits) = (self.erased.name.clone(), start..commits.end);
            let step = self
                .store
                .aside(move |rows| sweep::naming(rows, name.as_str(), commits))
                .await?;
            for some in step.commits.chunks(COMMIT_EVENTS) {
                let (some, erased) = (some.to_vec(), self.erased.clone());
                self.change(move |transaction| {
                    for commit in &some {
                        transaction.redact(*commit, |event| change(event, &erased))?;
                    }
                    Ok(false)
                })
                .await?;
            }
            from = step.next;
        }
        Ok(())
    }
}

/// Keys of the long rows among these that may name the user: where a name stands across two chunks, or the rows end in
/// the middle of a value, that value is one of them.
fn naming(rows: &[Row], name: &UserId) -> Vec<Vec<u8>> {
    let quoted = format!("\"{name}\"").into_bytes();
    let mut found: Vec<Vec<u8>> = Vec::new();
    for (key, chunk) in rows {
        let Some((long_key, number)) = key.split_last_chunk::<2>() else {
            continue;
        };
        let is_named = chunk.windows(quoted.len()).any(|part| part == quoted);
        let is_more = *number != [0, 0];
        if (is_named || is_more) && found.last().is_none_or(|last| last != long_key) {
            found.push(long_key.to_vec());
        }
    }
    found
}

fn clean_row(
    transaction: &mut Transaction<'_>,
    key: &[u8],
    erased: &Erased,
) -> Result<(), StoreError> {
    let row = transaction.get_long(key)?;
    let Some(mut value) = row.and_then(|row| serde_json::from_slice(&row).ok()) else {
        return Ok(());
    };
    if redact::row(&mut value, erased) {
        transaction.put_long(key, value.to_string().as_bytes())?;
    }
    Ok(())
}

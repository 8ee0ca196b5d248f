//! From drafts to one commit: who gets the event, and whether this was asked before.
//!
//! Promises: an event and its idempotency keys are one commit; a repeat gives the first result and appends nothing; a
//! refused item changes nothing, and in an atomic batch nothing at all is changed. Signals go to open connections only.

pub mod members;

use std::sync::Arc;

use crate::clock::UnixMs;
use crate::event::{ConnId, ConversationId, Draft, Event, EventId, Key, Signal, Topic, UserId};
use crate::id::{EPOCH_CHARS, Epoch, Position, UserNo};
use crate::store::Store;
use crate::store::keys;
use crate::store::record::{read_varint, write_varint};
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::wake::Wakes;

/// A key is remembered for at least this long: 24 h.
const REMEMBERED_MS: u64 = keys::DAY_MS;

/// The users who get a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    User(UserId),
    Users(Vec<UserId>),
    Topic(Topic),
    /// Its members.
    Conversation(ConversationId),
}

/// One event on its way into logs.
#[derive(Debug, Clone)]
pub struct Publication {
    pub event: Event,
    pub to: Audience,
    /// Hashes under which a repeat is recognised.
    pub keys: Vec<[u8; 16]>,
    /// Hash of everything that a repeat must have in common with the first.
    pub fingerprint: [u8; 16],
}

/// The result of a publication, told again to a repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub id: EventId,
    pub time_ms: UnixMs,
    pub recipients: u32,
    pub is_duplicate: bool,
    /// Where the event is, when it was for one named user.
    pub position: Option<Position>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error("the idempotency key was used before with another body")]
    Mismatch,
    #[error("there is no such conversation")]
    UnknownConversation,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// In an atomic batch: which item was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchError {
    /// `None` when the whole batch failed.
    pub index: Option<usize>,
    pub error: PublishError,
}

impl From<StoreError> for BatchError {
    fn from(error: StoreError) -> BatchError {
        BatchError {
            index: None,
            error: error.into(),
        }
    }
}

impl Publication {
    /// The rules of an ordinary publication, for a batch of several kinds.
    pub fn decision(self) -> Decision {
        Box::new(move |transaction| decide(transaction, self))
    }
}

/// Commits one event.
pub async fn publish(store: &Store, publication: Publication) -> Result<Receipt, PublishError> {
    let bytes = publication.event.json().len();
    store
        .commit(bytes, move |transaction| decide(transaction, publication))
        .await
}

/// What is decided about one publication inside its commit.
pub type Decision = Box<dyn FnOnce(&mut Transaction<'_>) -> Result<Receipt, PublishError> + Send>;

/// Commits all events or none. `bytes` is about what they hold in memory.
pub async fn publish_together(
    store: &Store,
    bytes: usize,
    batch: Vec<Decision>,
) -> Result<Vec<Receipt>, BatchError> {
    store
        .commit(bytes, move |transaction| {
            let decide_at = |(index, decide): (usize, Decision)| {
                let error = |error| BatchError {
                    index: Some(index),
                    error,
                };
                decide(transaction).map_err(error)
            };
            batch.into_iter().enumerate().map(decide_at).collect()
        })
        .await
}

/// The rules of one publication: a repeat is answered, anything else is appended.
pub fn decide(
    transaction: &mut Transaction<'_>,
    publication: Publication,
) -> Result<Receipt, PublishError> {
    if let Some(first) = repeated(transaction, &publication.keys, &publication.fingerprint)? {
        return Ok(first);
    }
    let audience = match &publication.to {
        Audience::User(name) => vec![transaction.user(name)],
        Audience::Users(names) => names.iter().map(|name| transaction.user(name)).collect(),
        Audience::Topic(topic) => transaction.subscribers(topic),
        Audience::Conversation(conversation) => members::of(transaction, conversation)?,
    };
    let is_of_members = matches!(publication.to, Audience::Conversation(_));
    if is_of_members && audience.is_empty() {
        return Err(PublishError::UnknownConversation);
    }
    let id: EventId = publication
        .event
        .id()
        .parse()
        .expect("an event was made of a valid id");
    let time_ms = publication.event.time_ms;
    let appended = transaction.append(publication.event, audience).recipients;
    let recipients = u32::try_from(appended.len()).unwrap_or(u32::MAX);
    let only = appended
        .first()
        .copied()
        .filter(|_| matches!(publication.to, Audience::User(_)));
    let position = only.map(|recipient| Position {
        epoch: transaction.view(recipient.user).epoch,
        seq: recipient.seq,
    });
    let receipt = Receipt {
        id,
        time_ms,
        recipients,
        is_duplicate: false,
        position,
    };
    remember(
        transaction,
        &publication.keys,
        publication.fingerprint,
        &receipt,
    );
    Ok(receipt)
}

/// The result of the first command that came under one of these keys, if there was one within the last day.
pub fn repeated(
    transaction: &Transaction<'_>,
    keys: &[[u8; 16]],
    fingerprint: &[u8; 16],
) -> Result<Option<Receipt>, PublishError> {
    for key in keys {
        match recall(transaction, key)? {
            Some(first) if first.fingerprint == *fingerprint => {
                return Ok(Some(Receipt {
                    is_duplicate: true,
                    ..first.receipt
                }));
            }
            Some(_) => return Err(PublishError::Mismatch),
            None => {}
        }
    }
    Ok(None)
}

/// Remembers a command's result under its keys, in the commit that made it.
pub fn remember(
    transaction: &mut Transaction<'_>,
    keys: &[[u8; 16]],
    fingerprint: [u8; 16],
    receipt: &Receipt,
) {
    fail::fail_point!("mutant_forget_keys", |_| ());
    let first = Remembered {
        receipt: receipt.clone(),
        fingerprint,
    };
    let today = keys::day_of(transaction.now_ms());
    for key in keys {
        transaction.put(keys::remembered(today, key), encode(&first));
    }
}

/// Everything that a repeat must have in common with the first; not the time, nor an id that the server made.
pub fn fingerprint(
    draft: &Draft,
    to: &Audience,
    id: Option<&EventId>,
    collapse_key: Option<&Key>,
) -> [u8; 16] {
    let names = match to {
        Audience::User(user) => format!("user {user}"),
        Audience::Topic(topic) => format!("topic {topic}"),
        Audience::Conversation(conversation) => format!("conversation {conversation}"),
        Audience::Users(users) => {
            let mut names: Vec<&str> = users.iter().map(UserId::as_str).collect();
            names.sort_unstable();
            names.dedup();
            format!("users {}", names.join(" "))
        }
    };
    let actor = draft
        .actor
        .as_ref()
        .map(|actor| serde_json::to_string(actor).unwrap_or_default());
    keys::hash(&[
        names.as_bytes(),
        id.map_or("", EventId::as_str).as_bytes(),
        draft.event_type.as_str().as_bytes(),
        draft.topic.as_ref().map_or("", Topic::as_str).as_bytes(),
        actor.unwrap_or_default().as_bytes(),
        draft.data.as_str().as_bytes(),
        collapse_key.map_or("", Key::as_str).as_bytes(),
        draft
            .exclude_conn
            .as_ref()
            .map_or("", ConnId::as_str)
            .as_bytes(),
    ])
}

/// A publication as its idempotency keys remember it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Remembered {
    receipt: Receipt,
    fingerprint: [u8; 16],
}

fn recall(transaction: &Transaction<'_>, key: &[u8; 16]) -> Result<Option<Remembered>, StoreError> {
    let now_ms = transaction.now_ms();
    let today = keys::day_of(now_ms);
    for day in [today, today.saturating_sub(1)] {
        let row = transaction.get(&keys::remembered(day, key))?;
        let first = row.and_then(|row| decode(&row));
        if let Some(first) =
            first.filter(|first| first.receipt.time_ms.saturating_add(REMEMBERED_MS) > now_ms)
        {
            return Ok(Some(first));
        }
    }
    Ok(None)
}

fn encode(first: &Remembered) -> Vec<u8> {
    let receipt = &first.receipt;
    let mut row = first.fingerprint.to_vec();
    write_varint(&mut row, receipt.time_ms);
    write_varint(&mut row, u64::from(receipt.recipients));
    if let Some(position) = &receipt.position {
        write_varint(&mut row, position.seq);
        row.extend_from_slice(position.epoch.as_str().as_bytes());
    } else {
        write_varint(&mut row, 0);
    }
    row.extend_from_slice(receipt.id.as_str().as_bytes());
    row
}

fn decode(row: &[u8]) -> Option<Remembered> {
    let (fingerprint, mut rest) = row.split_first_chunk::<16>()?;
    let time_ms = read_varint(&mut rest).ok()?;
    let recipients = u32::try_from(read_varint(&mut rest).ok()?).ok()?;
    let position = match read_varint(&mut rest).ok()? {
        0 => None,
        seq => {
            let (epoch, after) = rest.split_first_chunk::<EPOCH_CHARS>()?;
            rest = after;
            let epoch: Epoch = std::str::from_utf8(epoch).ok()?.parse().ok()?;
            Some(Position { epoch, seq })
        }
    };
    let id = std::str::from_utf8(rest).ok()?.parse().ok()?;
    Some(Remembered {
        receipt: Receipt {
            id,
            time_ms,
            recipients,
            is_duplicate: false,
            position,
        },
        fingerprint: *fingerprint,
    })
}

/// Gives a signal to the open connections of its audience; nothing of it is stored. Tells how many users it was for.
pub async fn signal(
    store: &Store,
    wakes: &Wakes,
    to: &Audience,
    signal: Signal,
) -> Result<u32, PublishError> {
    let audience: Vec<UserNo> = match to {
        Audience::User(name) => store.find(name).into_iter().collect(),
        Audience::Users(names) => {
            let mut users: Vec<UserNo> = names.iter().filter_map(|name| store.find(name)).collect();
            users.sort_unstable();
            users.dedup();
            users
        }
        Audience::Topic(topic) => store.subscribers(topic.clone(), None, usize::MAX).await?,
        Audience::Conversation(conversation) => {
            let (from, to) = members::range(conversation);
            let rows = store.range(from, to, usize::MAX).await?;
            match rows.is_empty() {
                true => return Err(PublishError::UnknownConversation),
                false => rows
                    .iter()
                    .filter_map(|(key, _)| members::user_of(key))
                    .collect(),
            }
        }
    };
    let signal = Arc::new(signal);
    for user in &audience {
        wakes.signal(*user, Arc::clone(&signal));
    }
    Ok(u32::try_from(audience.len()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_remembered_reads_back(time_ms: u64, recipients: u32, seq in 1u64..1 << 53, is_for_one: bool) {
            let position = Position { epoch: Epoch::of(1, UserNo(2), 3), seq };
            let receipt = Receipt {
                id: "e-1".parse().unwrap(),
                time_ms,
                recipients,
                is_duplicate: false,
                position: is_for_one.then_some(position),
            };
            let first = Remembered { receipt, fingerprint: [7; 16] };
            prop_assert_eq!(decode(&encode(&first)), Some(first));
        }

        #[test]
        fn any_bytes_read_as_something_or_nothing(row in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&row);
        }
    }
}

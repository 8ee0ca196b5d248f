//! Feeds: events of the family `feed.*` to a topic, at once for those who chose so, gathered for all others.
//!
//! Promises: a gathered event is on stable storage before its ack and is told within `feed.digest_seconds`, also after
//! a restart; of the events with one `collapse_key` a digest has only the last; nobody who changes between the two ways
//! misses an event. One digest is one record, however many users get it.
//!
//! Rows: `F` topic: what is pending. `f` topic, NUL, `i`, number: one event. `f` topic, NUL, `k`, hash: which number has
//! this `collapse_key`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;
use crate::event::{Event, EventId, EventType, Key, Topic};
use crate::features::news;
use crate::features::preferences::FeedAuto;
use crate::features::schedule::Schedule;
use crate::id::{Random, UserNo};
use crate::publish::{self, Audience, Decision, Publication, PublishError, Receipt};
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::store::{Store, keys, long};

const PENDING: u8 = b'F';
pub const GATHERED: u8 = b'f';
const FAMILY: &str = "feed.";
/// Events of one topic that are gathered; of more only the newest are named, and all are counted.
const GATHERED_MAX: u64 = 500;
/// What a digest tells in full stays below the size of an event: its ids and its live counts.
const IDS_BYTES: usize = 24 << 10;
const LATEST_BYTES: usize = 32 << 10;
/// A digest that could not be committed is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// The feeds of one server.
#[derive(Clone)]
pub struct Feeds {
    pub auto: FeedAuto,
    digest_every: Duration,
    schedule: Schedule<Topic>,
}

/// What waits for the next digest of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct PendingRow {
    /// When the first of them was gathered.
    since_ms: UnixMs,
    /// Number of the newest one.
    newest: u64,
    /// Those with one `collapse_key` count once.
    count: u64,
    /// Rows that are still there; less than `count` when there were more than `GATHERED_MAX`.
    kept: u64,
}

/// One gathered event; only those with a `collapse_key` are kept whole, since digests tell the last of them.
#[derive(Serialize, Deserialize)]
struct GatheredRow {
    id: EventId,
    collapse_key: Option<Key>,
    event: Option<Box<RawValue>>,
}

/// Whether an event goes the way of feeds: its type says so, and it goes to a topic.
pub fn is_feed(event_type: &EventType, to: &Audience) -> bool {
    matches!(to, Audience::Topic(_)) && event_type.as_str().starts_with(FAMILY)
}

impl Feeds {
    /// Takes up what was pending when the server stopped.
    pub async fn load(store: &Store, digest_every: Duration) -> Result<Feeds, StoreError> {
        let feeds = Feeds {
            auto: FeedAuto::load(store).await?,
            digest_every,
            schedule: Schedule::default(),
        };
        for (name, _) in store.rows(PENDING).await? {
            let topic = std::str::from_utf8(&name).ok();
            if let Some(topic) = topic.and_then(|topic| topic.parse().ok()) {
                feeds.schedule.add(topic, Instant::now());
            }
        }
        Ok(feeds)
    }

    /// The rules of one event for a feed. Other audiences than a topic get it as an ordinary one.
    pub fn decision(&self, publication: Publication, collapse_key: Option<Key>) -> Decision {
        let Audience::Topic(topic) = publication.to.clone() else {
            return publication.decision();
        };
        let feeds = self.clone();
        Box::new(move |transaction| feeds.decide(transaction, publication, &topic, collapse_key))
    }

    fn decide(
        &self,
        transaction: &mut Transaction<'_>,
        publication: Publication,
        topic: &Topic,
        collapse_key: Option<Key>,
    ) -> Result<Receipt, PublishError> {
        let Publication {
            event,
            keys,
            fingerprint,
            ..
        } = publication;
        if let Some(first) = publish::repeated(transaction, &keys, &fingerprint)? {
            return Ok(first);
        }
        let subscribers = transaction.subscribers(topic);
        let recipients = u32::try_from(subscribers.len()).unwrap_or(u32::MAX);
        let is_at_once = |user: &UserNo| self.auto.since(*user).is_some();
        let (at_once, later): (Vec<UserNo>, Vec<UserNo>) =
            subscribers.into_iter().partition(is_at_once);
        let id: EventId = event.id().parse().expect("an event was made of a valid id");
        if !later.is_empty() {
            self.gather(transaction, topic, &event, id.clone(), collapse_key)?;
        }
        let receipt = Receipt {
            id,
            time_ms: event.time_ms,
            recipients,
            is_duplicate: false,
            position: None,
        };
        transaction.append(event, at_once);
        publish::remember(transaction, &keys, fingerprint, &receipt);
        Ok(receipt)
    }

    fn gather(
        &self,
        transaction: &mut Transaction<'_>,
        topic: &Topic,
        event: &Event,
        id: EventId,
        collapse_key: Option<Key>,
    ) -> Result<(), StoreError> {
        let pending = pending(transaction, topic)?;
        if pending.is_none() {
            self.schedule
                .add(topic.clone(), Instant::now() + self.digest_every);
        }
        let mut pending = pending.unwrap_or(PendingRow {
            since_ms: transaction.now_ms(),
            newest: 0,
            count: 0,
            kept: 0,
        });
        pending.newest += 1;
        pending.count += 1;
        pending.kept += 1;
        if let Some(key) = &collapse_key {
            let last = collapsed_key(topic, key);
            if let Some(number) = transaction.get(&last)?.and_then(|row| parse_number(&row)) {
                transaction.delete_long(&gathered_key(topic, number))?;
                pending.count -= 1;
                pending.kept -= 1;
            }
            transaction.put(last, pending.newest.to_be_bytes().to_vec());
        }
        let row = GatheredRow {
            id,
            event: collapse_key.as_ref().and_then(|_| whole(event)),
            collapse_key,
        };
        let row = serde_json::to_vec(&row).expect("names and JSON");
        transaction.put_long(&gathered_key(topic, pending.newest), &row)?;
        if pending.kept > GATHERED_MAX {
            forget_oldest(transaction, topic)?;
            pending.kept -= 1;
        }
        let row = serde_json::to_vec(&pending).expect("four numbers");
        transaction.put(pending_key(topic), row);
        Ok(())
    }

    /// Tells what falls due, until `stop`.
    pub async fn tell_forever(self, store: Store, random: Random, stop: CancellationToken) {
        loop {
            let due = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                due = self.schedule.take() => due,
            };
            for topic in due {
                let (feeds, about, random) = (self.clone(), topic.clone(), random.clone());
                let tell = move |transaction: &mut Transaction<'_>| {
                    feeds.tell(transaction, &about, &random)
                };
                // It makes room, so a full disk does not keep it.
                if let Err(error) = store.commit_always(IDS_BYTES + LATEST_BYTES, tell).await {
                    tracing::warn!(%error, "the digest of a feed could not be told");
                    self.schedule.add(topic, Instant::now() + RETRY);
                }
            }
        }
    }

    /// Appends the digest of what is pending, and forgets that it was.
    fn tell(
        &self,
        transaction: &mut Transaction<'_>,
        topic: &Topic,
        random: &Random,
    ) -> Result<(), StoreError> {
        let Some(pending) = pending(transaction, topic)? else {
            return Ok(());
        };
        let (from, to) = gathered_range(topic);
        let rows = transaction.scan(&from, &to, usize::MAX)?;
        let (first, end) = numbered_range(topic);
        let numbered = rows.iter().filter(|(key, _)| first <= *key && *key < end);
        let data = digest(topic, pending.count, &gathered(numbered));
        for (key, _) in rows {
            transaction.delete(key);
        }
        transaction.delete(pending_key(topic));
        let mut audience = transaction.subscribers(topic);
        // Who changed to "at once" meanwhile has not seen what came before the change.
        let heard_all = |user: &UserNo| {
            self.auto
                .since(*user)
                .is_some_and(|since| since < pending.since_ms)
        };
        audience.retain(|user| !heard_all(user));
        let now_ms = transaction.now_ms();
        let event = news::event(random, now_ms, "feed.digest", Some(topic.clone()), &data);
        transaction.append(event, audience);
        Ok(())
    }
}

/// The rows of gathered events, put together from their chunks, oldest first.
fn gathered<'a>(rows: impl Iterator<Item = &'a (Vec<u8>, Vec<u8>)>) -> Vec<GatheredRow> {
    let rows: Vec<_> = rows.collect();
    // The last two bytes of a key number the chunk.
    let name = |key: &'a Vec<u8>| &key[..key.len().saturating_sub(2)];
    let whole = rows.chunk_by(|(a, _), (b, _)| name(a) == name(b));
    let decoded = whole.filter_map(|chunks| {
        let row = long::join(chunks.iter().map(|(_, chunk)| chunk.as_slice()))?;
        serde_json::from_slice(&row).ok()
    });
    decoded.collect()
}

/// What a digest says: newest first, as much as its bounds allow.
fn digest(topic: &Topic, count: u64, gathered: &[GatheredRow]) -> Value {
    let (mut ids, mut ids_bytes) = (Vec::new(), 0);
    let (mut latest, mut latest_bytes) = (Vec::new(), 0);
    for row in gathered.iter().rev() {
        ids_bytes += row.id.as_str().len() + 3;
        if ids_bytes <= IDS_BYTES {
            ids.push(&row.id);
        }
        let (Some(key), Some(event)) = (&row.collapse_key, &row.event) else {
            continue;
        };
        let bytes = event.get().len() + key.as_str().len();
        if latest_bytes + bytes <= LATEST_BYTES
            && let Ok(Value::Object(mut event)) = serde_json::from_str(event.get())
        {
            latest_bytes += bytes;
            event.insert("collapse_key".to_owned(), key.as_str().into());
            latest.push(event);
        }
    }
    let mut digest = json!({ "topic": topic, "count": count, "ids": ids });
    if !latest.is_empty() {
        digest["latest"] = latest.into();
    }
    digest
}

/// The event as a JSON object of its own.
fn whole(event: &Event) -> Option<Box<RawValue>> {
    let json = format!("{{{}", std::str::from_utf8(event.json()).ok()?);
    RawValue::from_string(json).ok()
}

fn forget_oldest(transaction: &mut Transaction<'_>, topic: &Topic) -> Result<(), StoreError> {
    let (from, to) = numbered_range(topic);
    let oldest = transaction.scan(&from, &to, 1)?;
    let Some((key, _)) = oldest.first() else {
        return Ok(());
    };
    let key = key[..key.len().saturating_sub(2)].to_vec();
    let row = transaction.get_long(&key)?;
    let row: Option<GatheredRow> = row.and_then(|row| serde_json::from_slice(&row).ok());
    if let Some(collapse_key) = row.and_then(|row| row.collapse_key) {
        transaction.delete(collapsed_key(topic, &collapse_key));
    }
    transaction.delete_long(&key)
}

fn pending(transaction: &Transaction<'_>, topic: &Topic) -> Result<Option<PendingRow>, StoreError> {
    let row = transaction.get(&pending_key(topic))?;
    Ok(row.and_then(|row| serde_json::from_slice(&row).ok()))
}

fn pending_key(topic: &Topic) -> Vec<u8> {
    keys::state(PENDING, topic.as_str().as_bytes())
}

/// First key and end of what is gathered for one topic; a topic holds no NUL, so none is another's prefix.
fn gathered_range(topic: &Topic) -> (Vec<u8>, Vec<u8>) {
    let mut from = keys::state(GATHERED, topic.as_str().as_bytes());
    let mut to = from.clone();
    from.push(0);
    to.push(1);
    (from, to)
}

fn numbered_range(topic: &Topic) -> (Vec<u8>, Vec<u8>) {
    let (mut from, _) = gathered_range(topic);
    let mut to = from.clone();
    from.push(b'i');
    to.push(b'i' + 1);
    (from, to)
}

fn gathered_key(topic: &Topic, number: u64) -> Vec<u8> {
    let (mut key, _) = numbered_range(topic);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn collapsed_key(topic: &Topic, collapse_key: &Key) -> Vec<u8> {
    let (mut key, _) = gathered_range(topic);
    key.push(b'k');
    key.extend_from_slice(&keys::hash(&[collapse_key.as_str().as_bytes()]));
    key
}

fn parse_number(row: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(row.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(id: &str, collapse_key: Option<&str>, bytes: usize) -> GatheredRow {
        let event = format!(r#"{{"id":"{id}","data":"{}"}}"#, "x".repeat(bytes));
        GatheredRow {
            id: id.parse().unwrap(),
            collapse_key: collapse_key.map(|key| key.parse().unwrap()),
            event: collapse_key.map(|_| RawValue::from_string(event).unwrap()),
        }
    }

    #[test]
    fn a_digest_names_the_newest_first_and_tells_the_last_of_each_key() {
        let topic: Topic = "feed:news".parse().unwrap();
        let rows = [
            row("e1", None, 1),
            row("e2", Some("likes"), 1),
            row("e3", None, 1),
        ];
        let expected = json!({
            "topic": "feed:news", "count": 3, "ids": ["e3", "e2", "e1"],
            "latest": [{"id": "e2", "data": "x", "collapse_key": "likes"}],
        });
        assert_eq!(digest(&topic, 3, &rows), expected);
        assert!(digest(&topic, 1, &rows[..1]).get("latest").is_none());
    }

    #[test]
    fn a_digest_is_no_larger_than_an_event() {
        let topic: Topic = "t".parse().unwrap();
        let id = |n: usize| format!("{n:0128}");
        let rows: Vec<GatheredRow> = (0..500)
            .map(|n| row(&id(n), Some(&format!("k{n}")), 1_000))
            .collect();
        let digest = digest(&topic, 500, &rows);
        assert!(digest.to_string().len() < 64 << 10);
        assert_eq!(digest["count"], 500);
        assert_eq!(digest["latest"][0]["collapse_key"], "k499");
    }

    proptest! {
        #[test]
        fn numbers_sort_as_they_count(topic in "[A-Za-z0-9_.:@/-]{1,128}", a: u64, b: u64, key in "[!#-\\[\\]-~]{1,128}") {
            let topic: Topic = topic.parse().unwrap();
            let (first, second) = (gathered_key(&topic, a), gathered_key(&topic, b));
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
            let (from, to) = numbered_range(&topic);
            prop_assert!(from < first && first < to);
            let collapsed = collapsed_key(&topic, &key.parse().unwrap());
            prop_assert!(collapsed >= to, "keys stand behind the numbers");
            let (from, to) = gathered_range(&topic);
            prop_assert!(from < collapsed && collapsed < to);
        }
    }
}

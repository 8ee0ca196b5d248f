//! The rows of messages: one body however many members, the place of each id, and the numbers of a sender's own.
//!
//! Promises: what was written reads back, whatever its length; the own messages of a user stand together, so that all
//! of them can be found. A deleted message keeps its number, sender and time. It decides nothing.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::UnixMs;
use crate::event::{ConversationId, EventId, Json, Key};
use crate::id::UserNo;
use crate::store::engine::Row;
use crate::store::record::{read_varint, write_varint};
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::store::{keys, long};

const BODIES: u8 = b'b';
const PLACES: u8 = b'B';
const OWN: u8 = b'o';
const N_BYTES: usize = 8;
const CHUNK_NUMBER_BYTES: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: EventId,
    /// 1, 2, 3 … in its conversation.
    pub n: u64,
    pub sender: UserNo,
    pub time_ms: UnixMs,
    pub client_id: Option<Key>,
    /// Empty when it was deleted.
    pub content: String,
    pub data: Option<Json>,
    pub is_deleted: bool,
}

impl Message {
    /// What is left of it when it is deleted.
    pub fn tombstone(self) -> Message {
        Message {
            content: String::new(),
            data: None,
            is_deleted: true,
            ..self
        }
    }
}

/// A message as it is stored; short names, since there is one for every message.
#[derive(Serialize, Deserialize)]
struct MessageRow {
    i: EventId,
    s: u32,
    t: UnixMs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    k: Option<Key>,
    c: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "is_false")]
    x: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this form")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn unreadable<E>(_: E) -> StoreError {
    StoreError::Failed("a row of a message cannot be read".to_owned())
}

pub fn encode(message: &Message) -> Vec<u8> {
    let data = message.data.as_ref().map(|data| {
        RawValue::from_string(data.as_str().to_owned()).expect("`Json` holds valid JSON")
    });
    let row = MessageRow {
        i: message.id.clone(),
        s: message.sender.0,
        t: message.time_ms,
        k: message.client_id.clone(),
        c: message.content.clone(),
        d: data,
        x: message.is_deleted,
    };
    serde_json::to_vec(&row).expect("a row is made of strings and numbers")
}

pub fn decode(n: u64, row: &[u8]) -> Result<Message, StoreError> {
    let row: MessageRow = serde_json::from_slice(row).map_err(unreadable)?;
    let data = row.d.map(|data| Json::checked(&data)).transpose();
    Ok(Message {
        id: row.i,
        n,
        sender: UserNo(row.s),
        time_ms: row.t,
        client_id: row.k,
        content: row.c,
        data: data.map_err(unreadable)?,
        is_deleted: row.x,
    })
}

/// Writes a new message: its body, its place, and that it is its sender's own, the `ordinal`th of them.
pub fn put(
    transaction: &mut Transaction<'_>,
    conversation: &ConversationId,
    message: &Message,
    ordinal: u64,
) -> Result<(), StoreError> {
    let mut place = conversation.as_str().as_bytes().to_vec();
    place.push(0);
    place.extend_from_slice(&message.n.to_be_bytes());
    transaction.put(place_key(&message.id), place);
    let mut own = Vec::new();
    write_varint(&mut own, ordinal);
    transaction.put(own_key(message.sender, conversation, message.n), own);
    put_body(transaction, conversation, message)
}

pub fn put_body(
    transaction: &mut Transaction<'_>,
    conversation: &ConversationId,
    message: &Message,
) -> Result<(), StoreError> {
    transaction.put_long(&body_key(conversation, message.n), &encode(message))
}

pub fn get(
    transaction: &Transaction<'_>,
    conversation: &ConversationId,
    n: u64,
) -> Result<Option<Message>, StoreError> {
    let row = transaction.get_long(&body_key(conversation, n))?;
    row.map(|row| decode(n, &row)).transpose()
}

/// Takes away everything of a message.
pub fn delete(
    transaction: &mut Transaction<'_>,
    conversation: &ConversationId,
    message: &Message,
) -> Result<(), StoreError> {
    transaction.delete(place_key(&message.id));
    transaction.delete(own_key(message.sender, conversation, message.n));
    transaction.delete_long(&body_key(conversation, message.n))
}

/// The conversation and number of a message.
pub fn place(
    transaction: &Transaction<'_>,
    id: &EventId,
) -> Result<Option<(ConversationId, u64)>, StoreError> {
    let row = transaction.get(&place_key(id))?;
    row.map(|row| parse_place(&row).ok_or_else(|| unreadable(())))
        .transpose()
}

fn parse_place(row: &[u8]) -> Option<(ConversationId, u64)> {
    let (conversation, n) = row.split_last_chunk::<N_BYTES>()?;
    let conversation = conversation.strip_suffix(&[0])?;
    let conversation = std::str::from_utf8(conversation).ok()?.parse().ok()?;
    Some((conversation, u64::from_be_bytes(*n)))
}

/// First key and end of the rows of the bodies from number `first` to `last`.
pub fn bodies(conversation: &ConversationId, first: u64, last: u64) -> (Vec<u8>, Vec<u8>) {
    let end = keys::chunks_end(&body_key(conversation, last));
    (body_key(conversation, first), end)
}

/// The messages whose rows these are, in order; one of which a part is missing is left out.
pub fn join(rows: &[Row]) -> Result<Vec<Message>, StoreError> {
    let n = |row: &Row| {
        let (key, _) = row;
        let (key, _) = key.split_last_chunk::<CHUNK_NUMBER_BYTES>()?;
        let (_, n) = key.split_last_chunk::<N_BYTES>()?;
        Some(u64::from_be_bytes(*n))
    };
    let of_one = rows.chunk_by(|a, b| n(a) == n(b));
    let joined = of_one.filter_map(|chunks| {
        let body = long::join(chunks.iter().map(|(_, chunk)| chunk.as_slice()))?;
        Some(decode(n(chunks.first()?)?, &body))
    });
    joined.collect()
}

/// How many messages of its own a sender of `total` has after number `after`. Older ones need not be there any more.
pub fn own_after(
    transaction: &Transaction<'_>,
    sender: UserNo,
    conversation: &ConversationId,
    after: u64,
    total: u64,
) -> Result<u64, StoreError> {
    let next = next_own(transaction, sender, conversation, after, u64::MAX - 1)?;
    Ok(next.map_or(0, |next| (total + 1).saturating_sub(next.ordinal)))
}

/// Whether the user sent any of the messages after `after` up to `upto`.
pub fn is_sender_within(
    transaction: &Transaction<'_>,
    sender: UserNo,
    conversation: &ConversationId,
    after: u64,
    upto: u64,
) -> Result<bool, StoreError> {
    Ok(next_own(transaction, sender, conversation, after, upto)?.is_some())
}

struct Own {
    ordinal: u64,
}

fn next_own(
    transaction: &Transaction<'_>,
    sender: UserNo,
    conversation: &ConversationId,
    after: u64,
    upto: u64,
) -> Result<Option<Own>, StoreError> {
    if after >= upto {
        return Ok(None);
    }
    let from = own_key(sender, conversation, after + 1);
    let to = own_key(sender, conversation, upto + 1);
    let rows = transaction.scan(&from, &to, 1)?;
    let own = rows.first().map(|(_, row)| {
        let ordinal = read_varint(&mut row.as_slice()).map_err(unreadable)?;
        Ok(Own { ordinal })
    });
    own.transpose()
}

/// Messages that the user sent, in all conversations, also those that it has left; at most `count_max`.
pub fn own(
    transaction: &Transaction<'_>,
    sender: UserNo,
    count_max: usize,
) -> Result<Vec<(ConversationId, u64)>, StoreError> {
    own_behind(transaction, sender, None, count_max)
}

/// The same, from behind one of them on.
pub fn own_behind(
    transaction: &Transaction<'_>,
    sender: UserNo,
    last: Option<&(ConversationId, u64)>,
    count_max: usize,
) -> Result<Vec<(ConversationId, u64)>, StoreError> {
    let first = keys::state(OWN, &sender.0.to_be_bytes());
    let mut to = first.clone();
    to.push(u8::MAX);
    let from = last.map_or(first.clone(), |(conversation, n)| {
        own_key(sender, conversation, n + 1)
    });
    let rows = transaction.scan(&from, &to, count_max)?;
    let places = rows
        .iter()
        .filter_map(|(key, _)| parse_place(&key[first.len()..]));
    Ok(places.collect())
}

/// Forgets that a message was its sender's own, for a sender who is erased.
pub fn disown(
    transaction: &mut Transaction<'_>,
    sender: UserNo,
    conversation: &ConversationId,
    n: u64,
) {
    transaction.delete(own_key(sender, conversation, n));
}

fn body_key(conversation: &ConversationId, n: u64) -> Vec<u8> {
    let mut key = keys::state(BODIES, conversation.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(&n.to_be_bytes());
    key
}

fn place_key(id: &EventId) -> Vec<u8> {
    keys::state(PLACES, id.as_str().as_bytes())
}

fn own_key(sender: UserNo, conversation: &ConversationId, n: u64) -> Vec<u8> {
    let mut key = keys::state(OWN, &sender.0.to_be_bytes());
    key.extend_from_slice(conversation.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(&n.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(content: String, data: Option<&str>) -> Message {
        Message {
            id: "m-1".parse().unwrap(),
            n: 7,
            sender: UserNo(3),
            time_ms: 1_795_228_200_123,
            client_id: Some("c-1".parse().unwrap()),
            content,
            data: data.map(|data| Json::parse(data).unwrap()),
            is_deleted: false,
        }
    }

    proptest! {
        #[test]
        fn messages_read_back(content in ".{0,200}", is_deleted: bool, data in proptest::option::of("[0-9]{1,3}")) {
            let data = data.map(|number| format!(r#"{{"large":1844674407370955161{}}}"#, number.len()));
            let message = Message { is_deleted, ..message(content, data.as_deref()) };
            prop_assert_eq!(decode(7, &encode(&message)).unwrap(), message);
        }

        #[test]
        fn bodies_stand_in_the_order_of_their_numbers(a in 1..u64::MAX, b in 1..u64::MAX) {
            let conversation: ConversationId = "x".parse().unwrap();
            let order = body_key(&conversation, a).cmp(&body_key(&conversation, b));
            prop_assert_eq!(order, a.cmp(&b));
            let (from, to) = bodies(&conversation, a.min(b), a.max(b));
            for n in [a, b] {
                let row = keys::chunk(&body_key(&conversation, n), 300);
                prop_assert!(from <= row && row < to);
            }
        }
    }

    #[test]
    fn rows_join_to_the_messages_that_are_whole() {
        let conversation: ConversationId = "x".parse().unwrap();
        let rows_of = |n: u64, content: &str| {
            let message = Message {
                n,
                ..message(content.to_owned(), None)
            };
            let key = body_key(&conversation, n);
            let chunks: Vec<Vec<u8>> = long::chunks(&encode(&message)).collect();
            let numbered = (0u16..).zip(chunks);
            let row = |(number, chunk)| (keys::chunk(&key, number), chunk);
            numbered.map(row).collect::<Vec<Row>>()
        };
        let long_text = "x".repeat(9_000);
        let mut rows = rows_of(1, "one");
        let broken = rows_of(2, &long_text);
        rows.extend(broken.into_iter().skip(1));
        rows.extend(rows_of(3, &long_text));
        let joined = join(&rows).unwrap();
        let told: Vec<(u64, usize)> = joined
            .iter()
            .map(|message| (message.n, message.content.len()))
            .collect();
        assert_eq!(told, [(1, 3), (3, 9_000)]);
    }
}

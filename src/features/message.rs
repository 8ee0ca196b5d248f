//! Messages: sent, read back in pages, and taken back by their sender.
//!
//! Promises: a message has one number and one body however many members there are; a repeat with the same `client_id`
//! or `Idempotency-Key` appends nothing; how far a message has come is told to its sender alone. What a deleted message
//! said is gone from the history; the logs keep their `message.new` until retention takes it.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::json;

use crate::event::{ConversationId, Event, EventId, Invalid, Json, Key, UserId};
use crate::features::conversation::asker::{Asker, ConversationError, seen};
use crate::features::conversation::messages::{self, Message};
use crate::features::conversation::news::News;
use crate::features::conversation::rows::{self, Head, Member};
use crate::features::conversation::told::{self, Reads, Status};
use crate::features::preferences;
use crate::id::{Random, UserNo};
use crate::publish::{self, Receipt, members};
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::store::{Store, keys};

/// Characters of a message.
pub const CONTENT_CHARS_MAX: usize = 8_000;
/// Bytes of the messages in one page of history; a page always holds one.
const PAGE_BYTES: usize = 1 << 20;

/// What a message says: 1 to 8,000 characters, none of them NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content(String);

impl FromStr for Content {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Content, Invalid> {
        let is_short = (1..=CONTENT_CHARS_MAX).contains(&text.chars().count());
        match is_short && !text.contains('\0') {
            true => Ok(Content(text.to_owned())),
            false => Err(Invalid::new(
                "invalid_content",
                "content must be 1 to 8000 characters, none of them NUL",
            )),
        }
    }
}

/// A message on its way.
#[derive(Debug, Clone)]
pub struct Sending {
    /// The id of the message and of its event.
    pub id: EventId,
    pub conversation: ConversationId,
    pub content: Content,
    pub client_id: Option<Key>,
    pub data: Option<Json>,
    /// The hash under which the caller's Idempotency-Key is known.
    pub key: Option<[u8; 16]>,
    /// Bytes that the event's data may take.
    pub bytes_max: usize,
}

impl Sending {
    /// A `client_id` is known within the conversation and to its sender alone.
    fn keys(&self, sender: &UserId) -> Vec<[u8; 16]> {
        let of_client = self.client_id.as_ref().map(|client_id| {
            let conversation = self.conversation.as_str().as_bytes();
            let parts = [
                b"message".as_slice(),
                conversation,
                sender.as_str().as_bytes(),
                client_id.as_str().as_bytes(),
            ];
            keys::hash(&parts)
        });
        of_client.into_iter().chain(self.key).collect()
    }

    fn fingerprint(&self, sender: &UserId) -> [u8; 16] {
        keys::hash(&[
            b"message",
            self.conversation.as_str().as_bytes(),
            sender.as_str().as_bytes(),
            self.client_id.as_ref().map_or("", Key::as_str).as_bytes(),
            self.content.0.as_bytes(),
            self.data.as_ref().map_or("", Json::as_str).as_bytes(),
        ])
    }
}

/// A message that was sent, now or by the first of the repeats.
pub struct Sent {
    pub json: String,
    pub is_duplicate: bool,
    /// The members whose badge it changes.
    pub others: Vec<UserNo>,
}

pub async fn send(
    store: &Store,
    random: &Random,
    asker: Asker,
    sending: Sending,
) -> Result<Sent, ConversationError> {
    let news = asker.news(random);
    let data_bytes = sending.data.as_ref().map_or(0, |data| data.as_str().len());
    let bytes = 512 + sending.content.0.len() + data_bytes;
    let decide = move |transaction: &mut Transaction<'_>| {
        let seen = seen(transaction, &sending.conversation, &asker)?;
        let (Some(sender), Some(member)) = (seen.viewer, seen.member) else {
            return Err(ConversationError::Unknown);
        };
        let keys = sending.keys(&asker.user);
        let fingerprint = sending.fingerprint(&asker.user);
        if let Some(first) = publish::repeated(transaction, &keys, &fingerprint)? {
            return told_again(transaction, &sending.conversation, &first.id, &asker.user);
        }
        let id = sending.id.clone();
        let sent = append(transaction, &news, sending, seen.head, (sender, member))?;
        let receipt = Receipt {
            id,
            time_ms: transaction.now_ms(),
            recipients: 0,
            is_duplicate: false,
            position: None,
        };
        publish::remember(transaction, &keys, fingerprint, &receipt);
        Ok(sent)
    };
    store.commit(bytes, decide).await
}

/// Writes the message, its number, and the event to every member.
fn append(
    transaction: &mut Transaction<'_>,
    news: &News,
    sending: Sending,
    mut head: Head,
    (sender, mut member): (UserNo, Member),
) -> Result<Sent, ConversationError> {
    let conversation = sending.conversation;
    let now_ms = transaction.now_ms();
    head.head += 1;
    head.updated_ms = now_ms;
    if head.floor == head.head {
        head.oldest_ms = now_ms;
    }
    member.own_total += 1;
    let message = Message {
        id: sending.id,
        n: head.head,
        sender,
        time_ms: now_ms,
        client_id: sending.client_id,
        content: sending.content.0,
        data: sending.data,
        is_deleted: false,
    };
    let json = told::message(&conversation, &message, &news.actor, Some(Status::SENT));
    if json.len() > sending.bytes_max {
        return Err(ConversationError::TooLarge);
    }
    let users = members::of(transaction, &conversation)?;
    messages::put(transaction, &conversation, &message, member.own_total)?;
    rows::put_head(transaction, &conversation, &head);
    rows::put_member(transaction, &conversation, sender, &member);
    let data = Json::parse(&json).expect("an object of our own, with data that was checked");
    let others = users.iter().copied().filter(|user| *user != sender);
    let others = others.collect();
    let draft = news.draft((message.id, now_ms), "message.new", &conversation, data);
    transaction.append(Event::of(&draft), users);
    Ok(Sent {
        json,
        is_duplicate: false,
        others,
    })
}

/// What the first of the repeats made. When retention has taken it already there is nothing left to tell.
fn told_again(
    transaction: &Transaction<'_>,
    conversation: &ConversationId,
    id: &EventId,
    sender: &UserId,
) -> Result<Sent, ConversationError> {
    let place = messages::place(transaction, id)?;
    let (_, n) = place.ok_or(ConversationError::UnknownMessage)?;
    let message = messages::get(transaction, conversation, n)?;
    let message = message.ok_or(ConversationError::UnknownMessage)?;
    let json = told::message(conversation, &message, sender, Some(Status::SENT));
    let open = json
        .strip_suffix('}')
        .expect("an object ends with its brace");
    Ok(Sent {
        json: format!(r#"{open},"duplicate":true}}"#),
        is_duplicate: true,
        others: Vec::new(),
    })
}

/// Leaves a tombstone in the place of a message. Its sender may, and an administrator.
pub async fn delete(
    store: &Store,
    random: &Random,
    asker: Asker,
    conversation: ConversationId,
    id: EventId,
) -> Result<(), ConversationError> {
    let news = asker.news(random);
    let decide = move |transaction: &mut Transaction<'_>| {
        let seen = seen(transaction, &conversation, &asker)?;
        let place = messages::place(transaction, &id)?;
        let (_, n) = place
            .filter(|(of, _)| *of == conversation)
            .ok_or(ConversationError::UnknownMessage)?;
        let message = messages::get(transaction, &conversation, n)?;
        let message = message.ok_or(ConversationError::UnknownMessage)?;
        let is_sender = seen.member.is_some() && seen.viewer == Some(message.sender);
        if !is_sender && !asker.scope.is_admin() {
            return Err(ConversationError::NotTheSender);
        }
        if !message.is_deleted {
            bury(transaction, &news, &conversation, message)?;
        }
        Ok(())
    };
    store.commit_always(256, decide).await
}

fn bury(
    transaction: &mut Transaction<'_>,
    news: &News,
    conversation: &ConversationId,
    message: Message,
) -> Result<(), StoreError> {
    let data = json!({ "conversation_id": conversation, "id": message.id, "n": message.n });
    let users = members::of(transaction, conversation)?;
    messages::put_body(transaction, conversation, &message.tombstone())?;
    news.append(
        transaction,
        "message.deleted",
        conversation,
        Json::of(&data),
        users,
    );
    Ok(())
}

/// Leaves tombstones in the place of all messages of a user who is erased, at most `count_max` in one command, also in
/// conversations that it has left. Tells whether none is left.
pub fn forget(
    transaction: &mut Transaction<'_>,
    news: &News,
    user: UserNo,
    count_max: usize,
) -> Result<bool, StoreError> {
    let own = messages::own(transaction, user, count_max)?;
    for (conversation, n) in &own {
        let message = messages::get(transaction, conversation, *n)?;
        if let Some(message) = message {
            // What the client called it is the person's too.
            let client_id = None;
            let nameless = Message {
                client_id,
                ..message
            };
            match nameless.is_deleted {
                true => messages::put_body(transaction, conversation, &nameless)?,
                false => bury(transaction, news, conversation, nameless)?,
            }
        }
        messages::disown(transaction, user, conversation, *n);
    }
    Ok(own.len() < count_max)
}

/// Which part of the history is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Messages with smaller numbers only.
    pub before: Option<u64>,
    /// Messages with greater numbers only, the oldest of them first.
    pub after: Option<u64>,
    pub limit: u64,
}

/// The numbers of one page, and whether there are more in its direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
    is_more: bool,
}

impl Wanted {
    /// The newest numbers that were asked for, or the oldest where `after` is given; `None` when there are none.
    fn span(&self, floor: u64, head: u64) -> Option<Span> {
        let low = floor.max(self.after.map_or(0, |after| after.saturating_add(1)));
        let high = head.min(
            self.before
                .map_or(u64::MAX, |before| before.saturating_sub(1)),
        );
        if low > high {
            return None;
        }
        let count = (high - low + 1).min(self.limit);
        Some(match self.after {
            Some(_) => Span {
                first: low,
                last: low + count - 1,
                is_more: low + count - 1 < high,
            },
            None => Span {
                first: high + 1 - count,
                last: high,
                is_more: high + 1 - count > low,
            },
        })
    }
}

/// What one moment says of the conversation, before its messages are read.
struct Frame {
    head: Head,
    viewer: Option<UserNo>,
    reads: Reads,
}

/// A page of history as JSON. The bodies are read beside the commits, so a long page holds up none.
pub async fn history(
    store: &Store,
    asker: Asker,
    conversation: ConversationId,
    wanted: Wanted,
) -> Result<String, ConversationError> {
    let id = conversation.clone();
    let look = move |transaction: &mut Transaction<'_>| {
        let seen = seen(transaction, &id, &asker)?;
        let viewer = seen.viewer.filter(|_| seen.member.is_some());
        let reads = match viewer {
            Some(viewer) => reads_of(transaction, viewer)?,
            None => Reads::Hidden,
        };
        let head = seen.head;
        Ok::<_, ConversationError>(Frame {
            head,
            viewer,
            reads,
        })
    };
    let frame = store.commit_always(64, look).await?;
    let (floor, head) = (frame.head.floor, frame.head.head);
    let Some(mut span) = wanted.span(floor, head) else {
        return Ok(page_json(&[], &frame.head, false));
    };
    let (from, to) = messages::bodies(&conversation, span.first, span.last);
    let mut page = messages::join(&store.range(from, to, usize::MAX).await?)?;
    span.is_more |= cut(&mut page, wanted.after.is_some());
    let is_own = |message: &Message| Some(message.sender) == frame.viewer;
    let others = match page.iter().any(is_own) {
        true => others(store, &conversation, frame.viewer).await?,
        false => Vec::new(),
    };
    let mut names = BTreeMap::new();
    let tell = |message: &Message| {
        let sender = names
            .entry(message.sender)
            .or_insert_with(|| store.name(message.sender));
        let status =
            is_own(message).then(|| Status::of(message.n, &frame.head, &others, frame.reads));
        told::message(&conversation, message, sender, status)
    };
    let told: Vec<String> = page.iter().map(tell).collect();
    Ok(page_json(&told, &frame.head, span.is_more))
}

/// Whether this user is shown how far others have read: only one who lets others see its own reading.
pub fn reads_of(transaction: &Transaction<'_>, user: UserNo) -> Result<Reads, StoreError> {
    match preferences::of(transaction, user)?.read_receipts {
        true => Ok(Reads::Shown),
        false => Ok(Reads::Hidden),
    }
}

/// Keeps as many messages as a page may hold, from the end at which the page began. Tells whether it took any away.
fn cut(page: &mut Vec<Message>, is_forward: bool) -> bool {
    let bytes = |message: &Message| {
        message.content.len() + message.data.as_ref().map_or(0, |data| data.as_str().len())
    };
    let mut left = PAGE_BYTES;
    let mut fits = |message: &Message| {
        let did_fit = left > 0;
        left = left.saturating_sub(bytes(message));
        did_fit
    };
    let count = match is_forward {
        true => page.iter().take_while(|message| fits(message)).count(),
        false => page
            .iter()
            .rev()
            .take_while(|message| fits(message))
            .count(),
    };
    let surplus = page.len() - count;
    match is_forward {
        true => page.truncate(count),
        false => drop(page.drain(..surplus)),
    }
    surplus > 0
}

/// The rows of all members but one.
async fn others(
    store: &Store,
    conversation: &ConversationId,
    but: Option<UserNo>,
) -> Result<Vec<Member>, StoreError> {
    let (from, to) = members::range(conversation);
    let rows = store.range(from, to, usize::MAX).await?;
    let others = rows
        .iter()
        .filter(|(key, _)| members::user_of(key) != but)
        .map(|(_, row)| Member::decode(row).map_err(rows::damaged));
    others.collect()
}

fn page_json(told: &[String], head: &Head, is_more: bool) -> String {
    format!(
        r#"{{"messages":[{}],"head":{},"floor":{},"more":{is_more}}}"#,
        told.join(","),
        head.head,
        head.floor
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn content_is_counted_in_characters() {
        for good in ["x", " ", "\n", &"ä".repeat(8_000), "👍"] {
            assert!(good.parse::<Content>().is_ok());
        }
        for bad in ["", "a\0b", &"ä".repeat(8_001)] {
            assert_eq!(
                bad.parse::<Content>().map_err(|invalid| invalid.code),
                Err("invalid_content")
            );
        }
    }

    proptest! {
        /// A page holds what filtering all numbers would give.
        #[test]
        fn pages_are_those_of_a_naive_list(
            floor in 1u64..12, kept in 0u64..12, limit in 1u64..6,
            before in proptest::option::of(0u64..25), after in proptest::option::of(0u64..25),
        ) {
            let head = floor + kept - 1;
            let is_meant = |n: &u64| before.is_none_or(|before| *n < before) && after.is_none_or(|after| *n > after);
            let all: Vec<u64> = (floor..=head).filter(is_meant).collect();
            let count = all.len().min(limit as usize);
            let expected = match after {
                Some(_) => &all[..count],
                None => &all[all.len() - count..],
            };
            let span = Wanted { before, after, limit }.span(floor, head);
            let got: Vec<u64> = span.map_or(Vec::new(), |span| (span.first..=span.last).collect());
            prop_assert_eq!(&got, expected);
            prop_assert_eq!(span.is_some_and(|span| span.is_more), count < all.len());
        }
    }
}

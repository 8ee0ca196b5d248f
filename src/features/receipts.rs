//! Receipts: how far each member's devices and each member's eyes have come, told to those who sent the messages.
//!
//! Promises: a cursor of a member moves forward only, in the commit of the events that tell of it; only senders hear of
//! it, and of reading only where both sides let it be seen; what is told is gathered over 250 ms. A read that was
//! answered and not told when the server stopped is told after the next start. In large conversations senders are
//! shown counts, as signals, so that one message to a thousand members does not become a thousand events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::event::{ConversationId, Event, EventId, Json};
use crate::features::conversation::asker::{Asker, ConversationError, seen};
use crate::features::conversation::news::News;
use crate::features::conversation::rows::{self, Kept, Member};
use crate::features::conversation::{messages, unread};
use crate::features::{crowd, preferences};
use crate::id::{Random, UserNo};
use crate::publish::members;
use crate::store::read::{PageBounds, Read};
use crate::store::record::{read_varint, write_varint};
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::store::{Store, keys};
use crate::wake::Wakes;

/// Reads that were answered and are not yet told to senders, by conversation and reader.
const DUE: u8 = b'R';
/// What happens within this time is told together.
pub const GATHERED: Duration = Duration::from_millis(250);
/// In conversations of more members senders are shown counts instead of names.
const NAMED_MEMBERS_MAX: u64 = 32;
/// Readers whose cursors are moved in one commit.
const COMMIT_READERS: usize = 100;
/// Ids that one read may name.
pub const READ_IDS_MAX: usize = 1_000;
/// Events of a reader's log looked through at once, and in one gathering; the rest follows in the next.
const PAGE: PageBounds = PageBounds {
    bytes: 1 << 20,
    events: 256,
};
const LOOKED_THROUGH_MAX: u64 = 2_048;

/// What is waiting to be told, and what tells it.
#[derive(Clone, Default)]
pub struct Receipts(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Written by `read` and at the start, emptied by `tell_forever`.
    reads: Mutex<BTreeSet<(ConversationId, UserNo)>>,
    /// Large conversations whose counts changed; written by whoever moved a cursor, emptied by `tell_forever`.
    crowds: Mutex<BTreeSet<ConversationId>>,
    /// Whether there has ever been a conversation: without one no log need be looked through for messages.
    has_conversations: AtomicBool,
}

/// What a read names as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Upto(u64),
    Messages(Vec<EventId>),
}

/// Where a reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    pub reader: UserNo,
    pub upto: u64,
    pub unread: u64,
}

/// How far a reader's devices have come in the conversations that part of its log tells of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached {
    /// The log was looked through up to this seq.
    pub through: u64,
    pub heads: BTreeMap<ConversationId, u64>,
}

impl Receipts {
    /// Finds what was answered and not told before the last stop.
    pub async fn load(store: &Store) -> Result<Receipts, StoreError> {
        let receipts = Receipts::default();
        for (name, _) in store.rows(DUE).await? {
            receipts.0.reads.lock().extend(parse_due(&name));
        }
        let (from, to) = rows::heads_after(None, Kept::ByMembers);
        let any = store.range(from, to, 1).await?;
        receipts
            .0
            .has_conversations
            .store(!any.is_empty(), Ordering::Relaxed);
        Ok(receipts)
    }

    /// To be said before the first conversation is made.
    pub fn expect_messages(&self) {
        self.0.has_conversations.store(true, Ordering::SeqCst);
    }

    /// Whether logs may hold messages. Ask it after the position up to which a log was acked is known.
    pub fn expects_messages(&self) -> bool {
        self.0.has_conversations.load(Ordering::SeqCst)
    }

    /// Moves the reader's read cursor forward and tells its own devices; senders hear of it a moment later.
    pub async fn read(
        &self,
        store: &Store,
        random: &Random,
        asker: Asker,
        conversation: ConversationId,
        target: Target,
    ) -> Result<Reading, ConversationError> {
        let news = asker.news(random);
        let id = conversation.clone();
        let decide = move |transaction: &mut Transaction<'_>| {
            decide_read(transaction, &news, &asker, &id, &target)
        };
        let (reading, is_due) = store.commit_always(512, decide).await?;
        if is_due {
            self.0.reads.lock().insert((conversation, reading.reader));
        }
        Ok(reading)
    }

    /// Moves how far the reader's devices have come, within a commit.
    pub fn deliver(
        &self,
        transaction: &mut Transaction<'_>,
        random: &Random,
        reader: UserNo,
        reached: &Reached,
    ) -> Result<(), StoreError> {
        for (conversation, n) in &reached.heads {
            let cursors = Cursors {
                delivered_n: *n,
                receipt_n: 0,
            };
            let place = (conversation, reader);
            if advance(transaction, random, place, cursors)? == Told::ByCounts {
                self.0.crowds.lock().insert(conversation.clone());
            }
        }
        Ok(())
    }

    /// Tells what was read, until `stop`.
    pub async fn tell_forever(
        self,
        store: Store,
        wakes: Wakes,
        random: Random,
        stop: CancellationToken,
    ) {
        loop {
            let is_over = tokio::time::timeout(GATHERED, stop.cancelled())
                .await
                .is_ok();
            if let Err(error) = self.tell_reads(&store, &random).await {
                tracing::warn!(%error, "reads could not be told to senders");
            }
            let crowds = std::mem::take(&mut *self.0.crowds.lock());
            for conversation in crowds {
                if let Err(error) = crowd::tell(&store, &wakes, &random, conversation).await {
                    tracing::warn!(%error, "counts of readers could not be told to senders");
                }
            }
            if is_over {
                return;
            }
        }
    }

    async fn tell_reads(&self, store: &Store, random: &Random) -> Result<(), StoreError> {
        let gathered = std::mem::take(&mut *self.0.reads.lock());
        let gathered: Vec<(ConversationId, UserNo)> = gathered.into_iter().collect();
        for some in gathered.chunks(COMMIT_READERS) {
            let (due, random) = (some.to_vec(), random.clone());
            let decide = move |transaction: &mut Transaction<'_>| {
                let mut crowds = Vec::new();
                for (conversation, reader) in due {
                    if settle(transaction, &random, &conversation, reader)? == Told::ByCounts {
                        crowds.push(conversation);
                    }
                }
                Ok::<_, StoreError>(crowds)
            };
            let crowds = store.commit_always(some.len() * 64, decide).await?;
            self.0.crowds.lock().extend(crowds);
        }
        Ok(())
    }
}

/// The rules of a read. Gives where the reader stands, and whether senders are to hear of it.
fn decide_read(
    transaction: &mut Transaction<'_>,
    news: &News,
    asker: &Asker,
    id: &ConversationId,
    target: &Target,
) -> Result<(Reading, bool), ConversationError> {
    let seen = seen(transaction, id, asker)?;
    let (Some(reader), Some(mut member)) = (seen.viewer, seen.member) else {
        return Err(ConversationError::Unknown);
    };
    let head = seen.head;
    let upto = match target {
        Target::Upto(n) if *n > head.head => return Err(ConversationError::AheadOfHead),
        Target::Upto(n) => *n,
        Target::Messages(ids) => newest_of(transaction, id, ids)?,
    };
    let has_moved = upto > member.read_n;
    if has_moved {
        let own_total = member.own_total;
        let own_after = messages::own_after(transaction, reader, id, upto, own_total)?;
        member.read_n = upto;
        member.own_at_read = own_total - own_after.min(own_total);
    }
    let reading = Reading {
        reader,
        upto: member.read_n,
        unread: unread::of_member(transaction, id, reader, &head, &member)?,
    };
    if !has_moved {
        return Ok((reading, false));
    }
    rows::put_member(transaction, id, reader, &member);
    let data = json!({ "conversation_id": id, "upto": upto, "unread": reading.unread });
    let own_log = vec![reader];
    news.append(
        transaction,
        "conversation.read",
        id,
        Json::of(&data),
        own_log,
    );
    note_due(transaction, id, reader, upto)?;
    Ok((reading, true))
}

fn newest_of(
    transaction: &Transaction<'_>,
    id: &ConversationId,
    messages: &[EventId],
) -> Result<u64, ConversationError> {
    let mut newest = 0;
    for message in messages {
        let place = messages::place(transaction, message)?;
        match place.filter(|(of, _)| of == id) {
            Some((_, n)) => newest = newest.max(n),
            None => return Err(ConversationError::UnknownMessage),
        }
    }
    Ok(newest)
}

/// Writes down that senders are to hear of this read. How far they may hear of it is decided by the reader's choice
/// at this moment: what was read unseen stays unseen until a later read that may be seen passes it.
fn note_due(
    transaction: &mut Transaction<'_>,
    id: &ConversationId,
    reader: UserNo,
    upto: u64,
) -> Result<(), StoreError> {
    let key = due_key(id, reader);
    let before = transaction.get(&key)?;
    let before = before.map_or(Ok(0), |row| read_varint(&mut row.as_slice()));
    let seen_n = match preferences::of(transaction, reader)?.read_receipts {
        true => upto,
        false => before.map_err(rows::damaged)?,
    };
    let mut row = Vec::new();
    write_varint(&mut row, seen_n);
    transaction.put(key, row);
    Ok(())
}

/// Tells what one reader has read, and that it is told.
fn settle(
    transaction: &mut Transaction<'_>,
    random: &Random,
    conversation: &ConversationId,
    reader: UserNo,
) -> Result<Told, StoreError> {
    let key = due_key(conversation, reader);
    let Some(row) = transaction.get(&key)? else {
        return Ok(Told::Nothing);
    };
    let receipt_n = read_varint(&mut row.as_slice()).map_err(rows::damaged)?;
    transaction.delete(key);
    let member = rows::member(transaction, conversation, reader)?;
    let cursors = Cursors {
        delivered_n: member.map_or(0, |member| member.read_n),
        receipt_n,
    };
    advance(transaction, random, (conversation, reader), cursors)
}

/// How far senders may know a reader to have come.
struct Cursors {
    delivered_n: u64,
    receipt_n: u64,
}

/// How a change was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    ByEvents,
    /// The conversation is large: counts are to be shown.
    ByCounts,
}

/// Moves a member's cursors forward and tells the senders of the messages that they passed.
fn advance(
    transaction: &mut Transaction<'_>,
    random: &Random,
    (conversation, reader): (&ConversationId, UserNo),
    cursors: Cursors,
) -> Result<Told, StoreError> {
    let head = rows::head(transaction, conversation)?;
    let member = rows::member(transaction, conversation, reader)?;
    // Whoever has left in the meantime is told of no more.
    let (Some(head), Some(before)) = (head, member) else {
        return Ok(Told::Nothing);
    };
    let delivered_n = cursors.delivered_n.min(head.head).max(before.delivered_n);
    let after = Member {
        delivered_n,
        receipt_n: cursors.receipt_n.min(head.head).max(before.receipt_n),
        ..before
    };
    if after == before {
        return Ok(Told::Nothing);
    }
    rows::put_member(transaction, conversation, reader, &after);
    if head.members > NAMED_MEMBERS_MAX {
        return Ok(Told::ByCounts);
    }
    let others: Vec<UserNo> = members::of(transaction, conversation)?;
    let others: Vec<UserNo> = others.into_iter().filter(|user| *user != reader).collect();
    let news = News {
        random: random.clone(),
        actor: transaction.name(reader),
    };
    let steps = [
        ("message.delivered", before.delivered_n, after.delivered_n),
        ("message.read", before.receipt_n, after.receipt_n),
    ];
    for (event_type, from, upto) in steps {
        let mut senders = Vec::new();
        for other in &others {
            if messages::is_sender_within(transaction, *other, conversation, from, upto)?
                && (event_type != "message.read"
                    || preferences::of(transaction, *other)?.read_receipts)
            {
                senders.push(*other);
            }
        }
        let data = json!({ "conversation_id": conversation, "upto": upto, "by": news.actor });
        news.append(
            transaction,
            event_type,
            conversation,
            Json::of(&data),
            senders,
        );
    }
    Ok(Told::ByEvents)
}

/// Looks through the reader's log after `after` up to `upto` for messages that reached it.
pub async fn reached(
    store: &Store,
    reader: UserNo,
    after: u64,
    upto: u64,
) -> Result<Reached, StoreError> {
    let mut reached = Reached {
        through: after,
        heads: BTreeMap::new(),
    };
    let stop = upto.min(after.saturating_add(LOOKED_THROUGH_MAX));
    while reached.through < stop {
        match store.read(reader, reached.through, PAGE).await? {
            Read::AtTail => reached.through = upto,
            // What retention took cannot be looked through any more.
            Read::Gone { floor } => reached.through = (floor - 1).max(reached.through + 1),
            Read::Page(page) => {
                for entry in page.iter().take_while(|entry| entry.seq <= upto) {
                    reached.through = entry.seq;
                    if let Some((conversation, n)) = message_of(&entry.event) {
                        let newest = reached.heads.entry(conversation).or_insert(0);
                        *newest = n.max(*newest);
                    }
                }
            }
        }
    }
    reached.through = reached.through.min(upto);
    Ok(reached)
}

/// The conversation and number of the message that an event tells of.
fn message_of(event: &Event) -> Option<(ConversationId, u64)> {
    #[derive(Deserialize)]
    struct Numbered {
        n: u64,
    }
    #[derive(Deserialize)]
    struct New {
        data: Numbered,
    }
    if event.event_type() != "message.new" {
        return None;
    }
    let conversation = ConversationId::of_topic(event.topic()?)?;
    let members = std::str::from_utf8(event.json()).ok()?;
    let new: New = serde_json::from_str(&format!("{{{members}")).ok()?;
    Some((conversation, new.data.n))
}

fn due_key(conversation: &ConversationId, reader: UserNo) -> Vec<u8> {
    let mut name = conversation.as_str().as_bytes().to_vec();
    name.push(0);
    name.extend_from_slice(&reader.0.to_be_bytes());
    keys::state(DUE, &name)
}

fn parse_due(name: &[u8]) -> Option<(ConversationId, UserNo)> {
    let (conversation, reader) = name.split_last_chunk::<4>()?;
    let conversation = std::str::from_utf8(conversation.strip_suffix(&[0])?).ok()?;
    Some((
        conversation.parse().ok()?,
        UserNo(u32::from_be_bytes(*reader)),
    ))
}

//! Counts of a large conversation, shown to the senders of its newest messages while they are connected.
//!
//! Promises: one look at the members for each change that was gathered; of the counts only the latest is kept for a slow
//! reader. The history tells the same counts to whoever was not connected. It writes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::event::{ConversationId, Draft, EventId, Json, Signal};
use crate::features::conversation::messages;
use crate::features::conversation::rows::{self, Member};
use crate::features::conversation::told::{Reads, Status};
use crate::features::message;
use crate::id::{Random, UserNo};
use crate::publish::members;
use crate::store::Store;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::wake::Wakes;

/// The senders of so many of the newest messages are shown counts, each those of its own newest one.
const NEWEST_MESSAGES: u64 = 50;

/// Shows each of those senders how many its newest message has reached and how many have read it.
pub async fn tell(
    store: &Store,
    wakes: &Wakes,
    random: &Random,
    conversation: ConversationId,
) -> Result<(), StoreError> {
    let id = conversation.clone();
    let head = store
        .look(move |transaction| rows::head(transaction, &id))
        .await?;
    let Some(head) = head.filter(|head| head.head >= head.floor) else {
        return Ok(());
    };
    let first = head
        .floor
        .max((head.head + 1).saturating_sub(NEWEST_MESSAGES));
    let (from, to) = messages::bodies(&conversation, first, head.head);
    let mut newest = BTreeMap::new();
    for message in messages::join(&store.range(from, to, usize::MAX).await?)? {
        if wakes.subscribers(message.sender) > 0 {
            newest.insert(message.sender, message.n);
        }
    }
    if newest.is_empty() {
        return Ok(());
    }
    let senders: Vec<UserNo> = newest.keys().copied().collect();
    let look = move |transaction: &mut Transaction<'_>| {
        let reads = senders
            .iter()
            .map(|sender| message::reads_of(transaction, *sender));
        reads.collect::<Result<Vec<Reads>, StoreError>>()
    };
    let reads = store.look(look).await?;
    let members = rows_of(store, &conversation).await?;
    for ((sender, n), reads) in newest.into_iter().zip(reads) {
        // Who has left since hears nothing.
        if !members.iter().any(|(user, _)| *user == sender) {
            continue;
        }
        let others = members.iter().filter(|(user, _)| *user != sender);
        let others: Vec<Member> = others.map(|(_, member)| *member).collect();
        let status = Status::of(n, &head, &others, reads);
        let signal = signal(random, store.now_ms(), &conversation, n, status);
        wakes.signal(sender, Arc::new(signal));
    }
    Ok(())
}

async fn rows_of(
    store: &Store,
    conversation: &ConversationId,
) -> Result<Vec<(UserNo, Member)>, StoreError> {
    let (from, to) = members::range(conversation);
    let rows = store.range(from, to, usize::MAX).await?;
    let member = |(key, row): &(Vec<u8>, Vec<u8>)| {
        let user = members::user_of(key)?;
        Some(Member::decode(row).map(|member| (user, member)))
    };
    let found = rows.iter().filter_map(member);
    found.collect::<Result<_, _>>().map_err(rows::damaged)
}

fn signal(
    random: &Random,
    now_ms: u64,
    conversation: &ConversationId,
    upto: u64,
    status: Status,
) -> Signal {
    let (delivered_to, read_by) = status.counts();
    let event_type = match read_by {
        Some(1..) => "message.read",
        _ => "message.delivered",
    };
    let data = json!({
        "conversation_id": conversation, "upto": upto, "delivered_to": delivered_to, "read_by": read_by,
    });
    let draft = Draft {
        id: random
            .uuid_v7(now_ms)
            .parse::<EventId>()
            .expect("a UUID is plain"),
        event_type: event_type.parse().expect("our own types are valid"),
        time_ms: now_ms,
        topic: Some(conversation.topic()),
        actor: None,
        data: Json::of(&data),
        exclude_conn: None,
    };
    Signal::keyed(&draft, format!("receipt={conversation}"), None)
}

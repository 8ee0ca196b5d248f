//! The events of conversations: each has an id of its own, the conversation as its topic, and names who caused it.
//!
//! Promises: they are appended in the commit that changes the rows they tell of. It decides nothing.

use crate::clock::UnixMs;
use crate::event::{Actor, ConversationId, Draft, Event, EventId, Json, UserId};
use crate::id::{Random, UserNo};
use crate::store::transaction::Transaction;

/// What the events of one command have in common.
#[derive(Clone)]
pub struct News {
    pub random: Random,
    pub actor: UserId,
}

impl News {
    /// Appends an event with an id of its own, of this moment.
    pub fn append(
        &self,
        transaction: &mut Transaction<'_>,
        event_type: &str,
        conversation: &ConversationId,
        data: Json,
        audience: Vec<UserNo>,
    ) {
        let time_ms = transaction.now_ms();
        let id = self.random.uuid_v7(time_ms);
        let id: EventId = id.parse().expect("a UUID is plain");
        let draft = self.draft((id, time_ms), event_type, conversation, data);
        transaction.append(Event::of(&draft), audience);
    }

    /// An event with the id and the time of what it tells of.
    pub fn draft(
        &self,
        (id, time_ms): (EventId, UnixMs),
        event_type: &str,
        conversation: &ConversationId,
        data: Json,
    ) -> Draft {
        Draft {
            id,
            event_type: event_type.parse().expect("our own types are valid"),
            time_ms,
            topic: Some(conversation.topic()),
            actor: Some(Actor {
                id: self.actor.clone(),
                name: None,
            }),
            data,
            exclude_conn: None,
        }
    }
}

//! The events of conversations: each has an id of its own, the conversation as its topic, and names who caused it.
//!
//! Promises: they are appended in the commit that changes the rows they tell of. It decides nothing.

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
    /// Appends an event with an id of its own.
    pub fn append(
        &self,
        transaction: &mut Transaction<'_>,
        event_type: &str,
        conversation: &ConversationId,
        data: Json,
        audience: Vec<UserNo>,
    ) {
        let id = self.random.uuid_v7(transaction.now_ms());
        let id: EventId = id.parse().expect("a UUID is plain");
        self.append_as(transaction, id, event_type, conversation, data, audience);
    }

    /// The same, with the id of what it tells of.
    pub fn append_as(
        &self,
        transaction: &mut Transaction<'_>,
        id: EventId,
        event_type: &str,
        conversation: &ConversationId,
        data: Json,
        audience: Vec<UserNo>,
    ) {
        let draft = Draft {
            id,
            event_type: event_type.parse().expect("our own types are valid"),
            time_ms: transaction.now_ms(),
            topic: Some(conversation.topic()),
            actor: Some(Actor {
                id: self.actor.clone(),
                name: None,
            }),
            data,
            exclude_conn: None,
        };
        transaction.append(Event::of(&draft), audience);
    }
}

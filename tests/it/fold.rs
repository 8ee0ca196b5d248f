//! What a client knows of its user: a state, and the events after it folded into it.
//!
//! Promises: each event has its rule, a type without one fails; seqs must go on without a hole; `difference` compares
//! with another state member by member and says what is not the same. It asks the server nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::delivery::seq_of;
use crate::inbox::{check_state, text};

/// The kind of notification that writers may mute: no event tells of one.
const MUTED: &str = "like";

/// What a client knows of its user, from a state and the events after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    pub user: String,
    pub cursor: String,
    /// Whether each notification is read.
    notifications: BTreeMap<String, bool>,
    unread: u64,
    preferences: Value,
    pub conversations: BTreeMap<String, Conversation>,
}

/// One conversation of the user.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    direct: bool,
    name: Value,
    members: BTreeSet<String>,
    updated: String,
    head: u64,
    unread: u64,
    read_upto: u64,
    /// The messages that were told, by number, each without what only its sender sees.
    pub messages: BTreeMap<u64, Value>,
    /// How far each other one has come: delivered, read.
    pub receipts: BTreeMap<String, (u64, u64)>,
}

/// A message as all members see it.
pub fn plain(message: &Value) -> Value {
    let mut plain = message.clone();
    let members = plain.as_object_mut().expect("a message is an object");
    for name in ["status", "delivered_to", "read_by", "duplicate"] {
        members.remove(name);
    }
    plain
}

/// What stands in the place of a deleted message.
fn tombstone(message: &mut Value) {
    message["content"] = json!("");
    message["deleted"] = json!(true);
    message
        .as_object_mut()
        .expect("a message is an object")
        .remove("data");
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

impl Conversation {
    fn of(told: &Value) -> Conversation {
        let members = told["members"].as_array().expect("members are told");
        let last = told.get("last_message").map(plain);
        Conversation {
            direct: told["direct"] == true,
            name: told["name"].clone(),
            members: members.iter().map(text).collect(),
            updated: text(&told["updated"]),
            head: number(&told["head"]),
            unread: told["unread"].as_u64().unwrap_or(0),
            read_upto: told["read_upto"].as_u64().unwrap_or(0),
            messages: last
                .into_iter()
                .map(|last| (number(&last["n"]), last))
                .collect(),
            receipts: BTreeMap::new(),
        }
    }

    /// What an event says of it; its own part stays.
    fn update(&mut self, told: &Value) {
        let told = Conversation::of(told);
        assert_eq!(self.head, told.head, "the head that an event tells");
        *self = Conversation {
            unread: self.unread,
            read_upto: self.read_upto,
            messages: std::mem::take(&mut self.messages),
            receipts: std::mem::take(&mut self.receipts),
            ..told
        };
    }

    fn fold(&mut self, user: &str, event: &Value) {
        let data = &event["data"];
        match event["type"].as_str().unwrap_or("") {
            "conversation.updated" => self.update(data),
            "conversation.joined" => self.update(&data["conversation"]),
            "conversation.left" => {
                let was_in = self.members.remove(&text(&data["user"]));
                assert!(was_in, "who left was a member: {event}");
                self.updated = text(&event["time"]);
            }
            "conversation.read" => {
                assert!(number(&data["upto"]) > self.read_upto, "backwards: {event}");
                self.read_upto = number(&data["upto"]);
                self.unread = number(&data["unread"]);
            }
            "message.new" => {
                self.head += 1;
                assert_eq!(data["n"], self.head, "one after the other: {event}");
                self.unread += u64::from(data["sender"] != user);
                self.updated = text(&event["time"]);
                self.messages.insert(self.head, plain(data));
            }
            "message.deleted" => {
                if let Some(message) = self.messages.get_mut(&number(&data["n"])) {
                    assert_eq!(message["id"], data["id"], "{event}");
                    tombstone(message);
                }
            }
            "message.delivered" | "message.read" => {
                let receipt = self.receipts.entry(text(&data["by"])).or_default();
                let upto = match event["type"] == "message.read" {
                    true => &mut receipt.1,
                    false => &mut receipt.0,
                };
                assert!(number(&data["upto"]) > *upto, "backwards: {event}");
                *upto = number(&data["upto"]);
                // A read is a delivery, told or not.
                receipt.0 = receipt.0.max(receipt.1);
            }
            other => panic!("no rule for {other}: {event}"),
        }
    }

    /// The members of which a state says the same.
    fn comparable(&self) -> Value {
        json!({
            "direct": self.direct, "name": self.name, "members": self.members, "updated": self.updated,
            "head": self.head, "unread": self.unread, "read_upto": self.read_upto,
        })
    }
}

impl Known {
    pub fn of(state: &Value) -> Known {
        check_state(state);
        let listed = state["notifications"].as_array().unwrap();
        let is_read = |one: &Value| (text(&one["id"]), one["read"] == true);
        let conversations = state["conversations"].as_array().unwrap().iter();
        let named = conversations.map(|told| (text(&told["id"]), Conversation::of(told)));
        Known {
            user: text(&state["user"]),
            cursor: text(&state["cursor"]),
            notifications: listed.iter().map(is_read).collect(),
            unread: number(&state["badge"]["notifications"]),
            preferences: state["preferences"].clone(),
            conversations: named.collect(),
        }
    }

    pub fn fold(&mut self, event: &Value) {
        let expected = seq_of(&self.cursor) + 1;
        assert_eq!(
            event["seq"], expected,
            "the events go on after the cursor {}: {event}",
            self.cursor
        );
        self.cursor = text(&event["cursor"]);
        let data = &event["data"];
        match event["type"].as_str().unwrap() {
            "note.new" => {}
            "preferences.updated" => self.preferences = data.clone(),
            "notification.new" => {
                self.notifications.insert(text(&data["id"]), false);
                self.unread += 1;
            }
            "notification.digest" => {
                let ids = data["ids"].as_array().unwrap().iter();
                self.notifications.extend(ids.map(|id| (text(id), false)));
                self.unread = number(&data["unread"]);
            }
            "notification.read" => {
                match data["ids"].as_array() {
                    Some(ids) => self
                        .notifications
                        .extend(ids.iter().map(|id| (text(id), true))),
                    None => self
                        .notifications
                        .values_mut()
                        .for_each(|is_read| *is_read = true),
                }
                self.unread = number(&data["unread"]);
            }
            "conversation.new" => {
                let new = Conversation::of(data);
                let before = self.conversations.insert(text(&data["id"]), new);
                assert!(before.is_none(), "made twice: {event}");
            }
            _ => self.fold_conversation(event),
        }
    }

    fn fold_conversation(&mut self, event: &Value) {
        let data = &event["data"];
        let is_own = data["user"] == self.user.as_str();
        let named = data.get("conversation_id").unwrap_or(&data["id"]);
        let id = text(named);
        assert_eq!(event["topic"], format!("conversation:{id}"), "{event}");
        match event["type"].as_str().unwrap() {
            "conversation.joined" if is_own => {
                let mut joined = Conversation::of(&data["conversation"]);
                joined.read_upto = joined.head;
                let before = self.conversations.insert(id, joined);
                assert!(before.is_none(), "joined twice: {event}");
            }
            "conversation.left" if is_own => {
                let left = self.conversations.remove(&id);
                assert!(left.is_some(), "left what it was not in: {event}");
            }
            _ => self
                .conversations
                .get_mut(&id)
                .unwrap_or_else(|| panic!("not in the conversation of {event}"))
                .fold(&self.user, event),
        }
    }

    /// The badge that follows from what is known.
    fn badge(&self) -> Value {
        let unread = || self.conversations.values().map(|one| one.unread);
        json!({
            "notifications": self.unread,
            "messages": unread().sum::<u64>(),
            "conversations": unread().filter(|unread| *unread > 0).count(),
        })
    }

    /// The present that another state tells.
    #[track_caller]
    pub fn check(&self, present: &Value) {
        if let Some(difference) = self.difference(present) {
            panic!("{difference}");
        }
    }

    /// What a state of the same moment tells otherwise.
    pub fn difference(&self, present: &Value) -> Option<String> {
        let same = [
            ("cursor", json!(self.cursor), &present["cursor"]),
            ("badge", self.badge(), &present["badge"]),
            (
                "preferences",
                self.preferences.clone(),
                &present["preferences"],
            ),
        ];
        for (name, known, told) in same {
            if known != *told {
                let user = &self.user;
                return Some(format!("{name} of {user}: known {known}, told {told}"));
            }
        }
        let notifications = present["notifications"].as_array().unwrap().iter();
        let wrong = notifications.filter_map(|one| self.wrong_notification(one));
        wrong.chain(self.wrong_conversations(present)).next()
    }

    fn wrong_notification(&self, one: &Value) -> Option<String> {
        let known = self.notifications.get(one["id"].as_str().unwrap());
        // What was muted is read from the start, and no event tells of it.
        let may_be_muted = one["kind"] == MUTED && one["read"] == true;
        let fits = known == Some(&(one["read"] == true)) || (known.is_none() && may_be_muted);
        (!fits).then(|| format!("{one} is known as {known:?}"))
    }

    fn wrong_conversations(&self, present: &Value) -> Option<String> {
        let told = &Known::of(present).conversations;
        let (known_ids, told_ids): (Vec<_>, Vec<_>) =
            (self.conversations.keys().collect(), told.keys().collect());
        if known_ids != told_ids {
            return Some(format!(
                "conversations: known {known_ids:?}, told {told_ids:?}"
            ));
        }
        for (id, known) in &self.conversations {
            let told = &told[id];
            if known.comparable() != told.comparable() {
                return Some(format!("{id}: known {known:?}, told {told:?}"));
            }
            let last = (
                known.messages.get(&known.head),
                told.messages.get(&known.head),
            );
            if last.0.is_some() && last.0 != last.1 {
                return Some(format!("the newest message of {id}: {last:?}"));
            }
        }
        None
    }
}

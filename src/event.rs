//! The words of the log: names that cannot hold a bad value, drafts, events and signals.
//!
//! Promises: whoever holds one of these types need not check it again. Names are short ASCII without control
//! characters, quotes or backslashes, and `Json` is valid, one line, and at most 127 levels deep, so the encoders
//! of `frame` cannot fail. It never looks at the store or the network.

pub mod invalid;
pub mod json;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use crate::clock::{UnixMs, rfc3339};
pub use crate::event::invalid::Invalid;
pub use crate::event::json::Json;

/// Length of an actor's display name, in characters.
pub const ACTOR_NAME_CHARS_MAX: usize = 128;
/// Prefixes of event types that only the server itself may use.
const RESERVED_FAMILIES: [&str; 2] = ["sys", "event"];
/// Names of the server's own SSE events, and of those that `EventSource` itself fires: with `named=1` a type of this
/// name could not be told from them.
const RESERVED_TYPES: [&str; 9] = [
    "ready", "snapshot", "reset", "live", "ping", "auth", "bye", "error", "open",
];

/// Begins the topic of everything that happens in a conversation.
const CONVERSATION_PREFIX: &str = "conversation:";

/// Makes a string type that holds 1 to `$max` bytes of the characters that `$allowed` names.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $max:expr, $code:expr, $what:expr, $rule:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<$name, Invalid> {
                let allowed: fn(u8) -> bool = $allowed;
                if (1..=$max).contains(&text.len()) && text.bytes().all(allowed) {
                    return Ok($name(Arc::from(text)));
                }
                Err(Invalid::new($code, format!("{} must be 1 to {} characters of {}", $what, $max, $rule)))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, formatter)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// A user, as the token's `sub` names it.
    UserId, 128, "invalid_user_id", "a user id", "A-Z a-z 0-9 _ . @ : -",
    |byte| byte.is_ascii_alphanumeric() || b"_.@:-".contains(&byte)
);
name_type!(
    /// What an event is about: a conversation, an entity, a feed.
    Topic, 128, "invalid_topic", "a topic", "A-Z a-z 0-9 _ . : @ / -",
    |byte| byte.is_ascii_alphanumeric() || b"_.:@/-".contains(&byte)
);
name_type!(
    /// Dotted name of what happened; its first part is the family.
    EventType, 64, "invalid_type", "a type", "a-z 0-9 _ . -",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte)
);
name_type!(
    /// The event's id, the same for every recipient.
    EventId, 128, "invalid_id", "an id", "printable ASCII without space, quote and backslash",
    is_plain
);
name_type!(
    /// A key that makes a repeated request harmless, or that lets a later signal replace an earlier one.
    Key, 128, "invalid_key", "a key", "printable ASCII without space, quote and backslash",
    is_plain
);
name_type!(
    /// The id of one open connection, as `ready` tells it.
    ConnId, 64, "invalid_conn", "a connection id", "printable ASCII without space, quote and backslash",
    is_plain
);

name_type!(
    /// A conversation. Shorter than a topic, since `conversation:<id>` is one.
    ConversationId, 64, "invalid_conversation_id", "a conversation id", "A-Z a-z 0-9 _ -",
    |byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)
);

impl ConversationId {
    /// What the events of this conversation are about.
    pub fn topic(&self) -> Topic {
        Topic(Arc::from(format!("{CONVERSATION_PREFIX}{self}")))
    }

    /// The conversation that a topic names.
    pub fn of_topic(topic: &str) -> Option<ConversationId> {
        topic.strip_prefix(CONVERSATION_PREFIX)?.parse().ok()
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'
}

impl EventType {
    /// Refuses the families that the server keeps for itself.
    pub fn published(text: &str) -> Result<EventType, Invalid> {
        let event_type: EventType = text.parse()?;
        let family = text.split('.').next().unwrap_or(text);
        if RESERVED_FAMILIES.contains(&family) {
            let message = format!("types of the family {family} are reserved for the server");
            return Err(Invalid::new("reserved_type", message));
        }
        if RESERVED_TYPES.contains(&text) {
            let message = format!("the type {text} is a name of the stream itself");
            return Err(Invalid::new("reserved_type", message));
        }
        Ok(event_type)
    }
}

/// Who caused an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    pub id: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ActorName>,
}

/// A display name: text of at most `ACTOR_NAME_CHARS_MAX` characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ActorName(String);

impl<'de> Deserialize<'de> for ActorName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ActorName, D::Error> {
        let name = String::deserialize(deserializer)?;
        let is_short = (1..=ACTOR_NAME_CHARS_MAX).contains(&name.chars().count());
        if is_short && !name.chars().any(char::is_control) {
            return Ok(ActorName(name));
        }
        Err(de::Error::custom(
            "an actor's name must be 1 to 128 characters without control characters",
        ))
    }
}

/// An event not yet committed: it has no seq.
#[derive(Debug, Clone)]
pub struct Draft {
    pub id: EventId,
    pub event_type: EventType,
    pub time_ms: UnixMs,
    pub topic: Option<Topic>,
    pub actor: Option<Actor>,
    pub data: Json,
    /// The connection that caused the event and need not be told of it.
    pub exclude_conn: Option<ConnId>,
}

/// An event as the logs of all its recipients share it: everything but seq and cursor, which differ from log to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Global number of the event, given by the store; rises by one from event to event in the order of commits.
    pub commit: u64,
    pub time_ms: UnixMs,
    /// The connection that need not be told; its text is empty when there is none.
    pub exclude_conn: Option<ConnId>,
    /// The end of its wire JSON, from `"id":` to the closing brace. The three lengths say where the names stand.
    json: Bytes,
    id_len: u8,
    type_len: u8,
    topic_len: u8,
}

/// The parts of an event that a stored record keeps beside the JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameLens {
    pub id: u8,
    pub event_type: u8,
    pub topic: u8,
}

const ID_START: usize = "\"id\":\"".len();
const BEFORE_TYPE: usize = "\",\"type\":\"".len();
const TIME_CHARS: usize = "2026-11-21T02:30:00.123Z".len();
const BEFORE_TOPIC: usize = "\",\"time\":\"".len() + TIME_CHARS + "\",\"topic\":\"".len();

impl Event {
    /// Writes the wire JSON of `draft` once; every later layer copies these bytes.
    pub fn of(draft: &Draft) -> Event {
        Event {
            commit: 0,
            time_ms: draft.time_ms,
            exclude_conn: draft.exclude_conn.clone(),
            json: Bytes::from(shared_json(draft)),
            id_len: name_len(draft.id.as_str()),
            type_len: name_len(draft.event_type.as_str()),
            topic_len: draft
                .topic
                .as_ref()
                .map_or(0, |topic| name_len(topic.as_str())),
        }
    }

    /// Puts an event together from what a record kept; `None` when the lengths do not fit the JSON.
    pub fn from_parts(
        commit: u64,
        time_ms: UnixMs,
        exclude_conn: Option<ConnId>,
        lens: NameLens,
        json: Bytes,
    ) -> Option<Event> {
        let event = Event {
            commit,
            time_ms,
            exclude_conn,
            json,
            id_len: lens.id,
            type_len: lens.event_type,
            topic_len: lens.topic,
        };
        let text = std::str::from_utf8(&event.json).ok()?;
        let spans = [event.id_span(), event.type_span(), event.topic_span()];
        spans
            .into_iter()
            .all(|(start, end)| text.get(start..end).is_some())
            .then_some(event)
    }

    pub fn id(&self) -> &str {
        self.name(self.id_span())
    }

    pub fn event_type(&self) -> &str {
        self.name(self.type_span())
    }

    pub fn topic(&self) -> Option<&str> {
        (self.topic_len > 0).then(|| self.name(self.topic_span()))
    }

    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The JSON up to the end of the id, and from there on: seq and cursor stand between the two.
    pub fn json_around_position(&self) -> (&[u8], &[u8]) {
        let quote = 1;
        self.json.split_at(self.id_span().1 + quote)
    }

    pub fn lens(&self) -> NameLens {
        NameLens {
            id: self.id_len,
            event_type: self.type_len,
            topic: self.topic_len,
        }
    }

    fn name(&self, (start, end): (usize, usize)) -> &str {
        std::str::from_utf8(&self.json[start..end])
            .expect("names are ASCII, checked when the event was made")
    }

    fn id_span(&self) -> (usize, usize) {
        (ID_START, ID_START + usize::from(self.id_len))
    }

    fn type_span(&self) -> (usize, usize) {
        let start = self.id_span().1 + BEFORE_TYPE;
        (start, start + usize::from(self.type_len))
    }

    fn topic_span(&self) -> (usize, usize) {
        match self.topic_len {
            0 => (0, 0),
            len => {
                let start = self.type_span().1 + BEFORE_TOPIC;
                (start, start + usize::from(len))
            }
        }
    }
}

fn name_len(name: &str) -> u8 {
    u8::try_from(name.len()).expect("names are at most 128 characters")
}

/// `"id":…,"type":…,"time":…[,"topic":…][,"actor":…],"data":…}`: the part that all recipients share.
fn shared_json(draft: &Draft) -> String {
    let mut json = String::with_capacity(draft.data.as_str().len() + 256);
    json.push_str("\"id\":\"");
    json.push_str(draft.id.as_str());
    json.push_str("\",\"type\":\"");
    json.push_str(draft.event_type.as_str());
    json.push_str("\",\"time\":\"");
    json.push_str(&rfc3339(draft.time_ms));
    json.push('"');
    if let Some(topic) = &draft.topic {
        json.push_str(",\"topic\":\"");
        json.push_str(topic.as_str());
        json.push('"');
    }
    if let Some(actor) = &draft.actor {
        json.push_str(",\"actor\":");
        json.push_str(&serde_json::to_string(actor).expect("an actor is two strings"));
    }
    json.push_str(",\"data\":");
    json.push_str(draft.data.as_str());
    json.push('}');
    json
}

/// Short-lived news: never logged, without seq; of the signals with one key a slow reader gets only the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    pub key: String,
    pub event_type: EventType,
    pub topic: Option<Topic>,
    pub exclude_conn: Option<ConnId>,
    /// When a reader that has not seen it need not hear of it any more.
    pub expires_ms: Option<UnixMs>,
    /// The whole of its wire JSON.
    pub json: Bytes,
}

impl Signal {
    /// Writes the wire JSON of `draft` as an ephemeral event. Signals of one type, topic, actor and `collapse_key`
    /// replace each other.
    pub fn of(draft: &Draft, collapse_key: Option<&Key>, ttl_ms: Option<u64>) -> Signal {
        let topic = draft.topic.as_ref().map_or("", Topic::as_str);
        let actor = draft.actor.as_ref().map_or("", |actor| actor.id.as_str());
        let collapse = collapse_key.map_or("", Key::as_str);
        let key = format!("{} {topic} {actor} {collapse}", draft.event_type);
        Signal::keyed(draft, key, ttl_ms)
    }

    /// The same, with a key that says what it replaces: a `typing.stop` its `typing.start`, for one. A key begins with
    /// the name of its feature and an equals sign, so that no published signal can have it.
    pub fn keyed(draft: &Draft, key: String, ttl_ms: Option<u64>) -> Signal {
        let shared = shared_json(draft);
        let ttl = ttl_ms
            .map(|ttl_ms| format!("\"ttl_ms\":{ttl_ms},"))
            .unwrap_or_default();
        Signal {
            key,
            event_type: draft.event_type.clone(),
            topic: draft.topic.clone(),
            exclude_conn: draft.exclude_conn.clone(),
            expires_ms: ttl_ms.map(|ttl_ms| draft.time_ms.saturating_add(ttl_ms)),
            json: Bytes::from(format!("{{\"v\":1,\"ephemeral\":true,{ttl}{shared}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft {
            id: "e-1".parse().unwrap(),
            event_type: "message.new".parse().unwrap(),
            time_ms: 1_795_228_200_123,
            topic: Some("conversation:9f".parse().unwrap()),
            actor: serde_json::from_str(r#"{"id":"bob","name":"Bob \"B\""}"#).unwrap(),
            data: Json::parse(" { \"a b\" : [ 1 , \"\\\" \\n\" ] } ").unwrap(),
            exclude_conn: None,
        }
    }

    #[test]
    fn an_event_knows_its_names_again() {
        let event = Event::of(&draft());
        assert_eq!((event.id(), event.event_type()), ("e-1", "message.new"));
        assert_eq!(event.topic(), Some("conversation:9f"));
        let again = Event::from_parts(0, event.time_ms, None, event.lens(), event.json().clone());
        assert_eq!(again.as_ref(), Some(&event));
        let cut = Event::from_parts(
            7,
            event.time_ms,
            None,
            event.lens(),
            event.json().slice(..20),
        );
        assert_eq!(cut, None);
    }

    #[test]
    fn an_events_json_is_written_once_and_exactly() {
        let json = String::from_utf8(Event::of(&draft()).json().to_vec()).unwrap();
        let expected = concat!(
            r#""id":"e-1","type":"message.new","time":"2026-11-21T02:30:00.123Z","topic":"conversation:9f","#,
            r#""actor":{"id":"bob","name":"Bob \"B\""},"data":{"a b":[1,"\" \n"]}}"#
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn a_signal_is_a_whole_event_without_seq() {
        let signal = Signal::of(&draft(), None, Some(5000));
        let value: serde_json::Value = serde_json::from_slice(&signal.json).unwrap();
        assert_eq!(value["ephemeral"], true);
        assert_eq!(value["ttl_ms"], 5000);
        assert_eq!(value["type"], "message.new");
        assert!(value.get("seq").is_none() && value.get("cursor").is_none());
    }

    #[test]
    fn names_refuse_what_their_rule_does_not_name() {
        for bad in ["", "a b", "a\nb", "a\u{0}", "ä", &"x".repeat(129)] {
            assert!(
                bad.parse::<UserId>().is_err(),
                "{bad:?} was taken for a user id"
            );
            assert!(
                bad.parse::<Topic>().is_err(),
                "{bad:?} was taken for a topic"
            );
            assert!(
                bad.parse::<EventId>().is_err(),
                "{bad:?} was taken for an id"
            );
        }
        for bad in [
            "",
            "A",
            "a b",
            "a\r",
            &"x".repeat(65),
            "sys.ready",
            "event.x",
            "sys",
            "event",
        ] {
            assert!(
                EventType::published(bad).is_err(),
                "{bad:?} was taken for a type"
            );
        }
        for good in ["a", "message.new", "system.note", "events.x", "eventful"] {
            assert!(EventType::published(good).is_ok(), "{good:?} was refused");
        }
    }
}

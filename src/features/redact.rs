//! What is left of an event or a row that names a person who was erased.
//!
//! Promises: what the person wrote goes whole, also where it is quoted as a structure inside something else (the last
//! message of a conversation, a notification that the person caused); where others' news only names the person, the
//! name becomes the placeholder. What readers know an event by stays: id, type, time, topic, and the numbers of a
//! message. Free text of others and what an application wrote without naming the person as actor is left as it is.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::event::{Actor, ConversationId, Draft, Event, Json, UserId};

/// Types of the server's own making begin with these: their members mean what PROTOCOL.md says.
const OWN_FAMILIES: [&str; 4] = ["message.", "conversation.", "notification.", "feed."];
/// What tells of several things at once, some time after they came.
const DIGESTS: [&str; 2] = ["notification.digest", "feed.digest"];
/// Where a structure of ours names users; alone or in a list.
const NAMING: [&str; 5] = ["user", "by", "creator", "members", "actors"];
/// What stays of a structure that the person wrote or caused.
const KEPT: [&str; 9] = [
    "id",
    "conversation_id",
    "n",
    "kind",
    "type",
    "collapse_key",
    "time",
    "time_ms",
    "read",
];

/// Whom nothing may name any more.
#[derive(Debug, Clone)]
pub struct Erased {
    pub name: UserId,
    /// What stands in the place of the name.
    pub placeholder: UserId,
}

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(default)]
    actor: Option<Actor>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The event without the person; `None` when it does not name the person, or is not to be touched.
pub fn event(event: &Event, erased: &Erased) -> Option<Event> {
    let text = [b"{".as_slice(), event.json()].concat();
    let Written { actor, data } = serde_json::from_slice(&text).ok()?;
    let is_ours = OWN_FAMILIES
        .iter()
        .any(|family| event.event_type().starts_with(family));
    let is_by = actor.as_ref().is_some_and(|actor| actor.id == erased.name);
    let mut data: Value = serde_json::from_str(data.get()).ok()?;
    let data = match (is_by, is_ours) {
        (true, true) => remains(&data, event),
        (true, false) => json!({ "erased": true, "id": event.id() }),
        (false, true) if is_persons(&data, erased) => remains(&data, event),
        (false, true) => clean(&mut data, erased).then_some(data)?,
        (false, false) => return None,
    };
    rewritten(event, actor.filter(|_| !is_by), &data)
}

/// The same for an event that was told while the person was being erased: there only a digest may still quote it, and
/// whoever wrote under the name by then is someone else.
pub fn digest(event: &Event, erased: &Erased) -> Option<Event> {
    if !DIGESTS.contains(&event.event_type()) {
        return None;
    }
    let text = [b"{".as_slice(), event.json()].concat();
    let Written { actor, data } = serde_json::from_slice(&text).ok()?;
    let mut data: Value = serde_json::from_str(data.get()).ok()?;
    match clean(&mut data, erased) {
        true => rewritten(event, actor, &data),
        false => None,
    }
}

fn rewritten(event: &Event, actor: Option<Actor>, data: &Value) -> Option<Event> {
    let topic = event.topic();
    Some(Event::of(&Draft {
        id: event.id().parse().ok()?,
        event_type: event.event_type().parse().ok()?,
        time_ms: event.time_ms,
        topic: topic.and_then(|topic| topic.parse().ok()),
        actor,
        data: Json::of(data),
        exclude_conn: event.exclude_conn.clone(),
    }))
}

/// A stored row without the person. Tells whether anything changed.
pub fn row(row: &mut Value, erased: &Erased) -> bool {
    clean(row, erased)
}

/// What stays of an event's data: that it was erased, and the numbers by which clients keep their order.
fn remains(data: &Value, event: &Event) -> Value {
    let mut kept = json!({ "erased": true, "id": event.id() });
    if let Some(conversation) = event.topic().and_then(ConversationId::of_topic) {
        kept["conversation_id"] = json!(conversation);
    }
    for number in ["n", "upto"] {
        if let Some(number_of) = data[number].as_u64() {
            kept[number] = number_of.into();
        }
    }
    kept
}

/// Whether the structure was written or caused by the person.
fn is_persons(value: &Value, erased: &Erased) -> bool {
    let is_name = |value: &Value| value.as_str() == Some(erased.name.as_str());
    is_name(&value["sender"]) || is_name(&value["actor"]) || is_name(&value["actor"]["id"])
}

fn clean(value: &mut Value, erased: &Erased) -> bool {
    if is_persons(value, erased) {
        *value = kept_part(value);
        return true;
    }
    match value {
        Value::Object(members) => {
            let mut is_changed = false;
            for (name, member) in members.iter_mut() {
                let names_users = NAMING.contains(&name.as_str());
                is_changed |= names_users && replace_name(member, erased);
                is_changed |= clean(member, erased);
            }
            is_changed
        }
        Value::Array(items) => {
            let mut is_changed = false;
            for item in items {
                is_changed |= clean(item, erased);
            }
            is_changed
        }
        _ => false,
    }
}

fn kept_part(value: &Value) -> Value {
    let mut kept = Map::new();
    for name in KEPT {
        if let Some(member) = value
            .get(name)
            .filter(|member| !member.is_object() && !member.is_array())
        {
            kept.insert(name.to_owned(), member.clone());
        }
    }
    kept.insert("erased".to_owned(), true.into());
    Value::Object(kept)
}

fn replace_name(value: &mut Value, erased: &Erased) -> bool {
    match value {
        Value::String(name) if name == erased.name.as_str() => {
            *value = json!(erased.placeholder);
            true
        }
        // Digests tell who caused them as actors, with whatever else was said of them.
        Value::Object(members)
            if members
                .get("id")
                .is_some_and(|id| *id == *erased.name.as_str()) =>
        {
            *value = json!({ "id": erased.placeholder });
            true
        }
        Value::Array(items) => {
            let mut is_changed = false;
            for item in items {
                is_changed |= replace_name(item, erased);
            }
            is_changed
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bob() -> Erased {
        Erased {
            name: "bob".parse().unwrap(),
            placeholder: "erased:7".parse().unwrap(),
        }
    }

    fn written(event_type: &str, actor: Option<&str>, data: &Value) -> Event {
        let actor = actor.map(|id| json!({ "id": id, "name": "B. Canary" }));
        Event::of(&Draft {
            id: "e-1".parse().unwrap(),
            event_type: event_type.parse().unwrap(),
            time_ms: 1_795_228_200_123,
            topic: Some("conversation:9f".parse().unwrap()),
            actor: actor.map(|actor| serde_json::from_value(actor).unwrap()),
            data: Json::of(data),
            exclude_conn: None,
        })
    }

    fn left(event_type: &str, actor: Option<&str>, data: Value) -> Option<Value> {
        let redacted = event(&written(event_type, actor, &data), &bob())?;
        let text = format!("{{{}", String::from_utf8(redacted.json().to_vec()).unwrap());
        Some(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn what_the_person_wrote_goes_whole() {
        let message = json!({"id": "e-1", "conversation_id": "9f", "n": 4, "sender": "bob", "content": "canary"});
        let expected = json!({"erased": true, "id": "e-1", "conversation_id": "9f", "n": 4});
        for actor in [Some("bob"), Some("backend"), None] {
            let left = left("message.new", actor, message.clone()).unwrap();
            assert_eq!(left["data"], expected);
            let is_kept = actor == Some("backend");
            assert_eq!(left.get("actor").is_some(), is_kept, "{left}");
        }
        let own = left("app.note", Some("bob"), json!({"id": "canary", "n": 1})).unwrap();
        assert_eq!(own["data"], json!({"erased": true, "id": "e-1"}));
    }

    #[test]
    fn what_others_say_keeps_all_but_the_name() {
        let data = json!({"conversation_id": "9f", "user": "carol", "conversation": {
            "name": "bob", "members": ["alice", "bob", "bobby"],
            "last_message": {"id": "m", "n": 3, "sender": "bob", "content": "canary", "data": {"x": 1}}}});
        let left_of = left("conversation.joined", Some("alice"), data).unwrap();
        let expected = json!({"conversation_id": "9f", "user": "carol", "conversation": {
            "name": "bob", "members": ["alice", "erased:7", "bobby"],
            "last_message": {"erased": true, "id": "m", "n": 3}}});
        assert_eq!(left_of["data"], expected);
        assert_eq!(left_of["actor"]["id"], "alice");
        let read = left("message.read", None, json!({"upto": 4, "by": "bob"})).unwrap();
        assert_eq!(read["data"], json!({"upto": 4, "by": "erased:7"}));
        assert_eq!(
            left(
                "message.new",
                Some("alice"),
                json!({"sender": "alice", "content": "bob"})
            ),
            None
        );
        assert_eq!(
            left("app.note", Some("alice"), json!({"user": "bob"})),
            None
        );
    }

    #[test]
    fn a_digest_names_the_others_only() {
        let data = json!({"kind": "like", "count": 2, "ids": ["n-1", "n-2"], "unread": 2,
            "actors": [{"id": "bob", "name": "B. Canary"}, {"id": "carol", "name": "Carol"}]});
        let expected = json!([{"id": "erased:7"}, {"id": "carol", "name": "Carol"}]);
        let told = left("notification.digest", None, data.clone()).unwrap();
        assert_eq!(
            (&told["data"]["actors"], &told["data"]["count"]),
            (&expected, &json!(2))
        );
        let event = written("notification.digest", None, &data);
        let late = digest(&event, &bob()).unwrap();
        let late = String::from_utf8(late.json().to_vec()).unwrap();
        assert!(
            late.contains("erased:7") && !late.contains("Canary"),
            "{late}"
        );
        let latest = json!({"id": "e", "type": "feed.post", "time": "t", "topic": "feed:x", "data": "canary",
            "actor": {"id": "bob"}, "collapse_key": "likes:7"});
        let told = left(
            "feed.digest",
            None,
            json!({"count": 1, "ids": ["e"], "latest": [latest]}),
        );
        let expected = json!([{"id": "e", "type": "feed.post", "time": "t", "collapse_key": "likes:7", "erased": true}]);
        assert_eq!(told.unwrap()["data"]["latest"], expected);
    }

    #[test]
    fn what_the_next_one_of_the_name_writes_meanwhile_stays() {
        let message = json!({"sender": "bob", "content": "mine"});
        let event = written("message.new", Some("bob"), &message);
        assert!(digest(&event, &bob()).is_none());
    }

    #[test]
    fn a_notification_that_the_person_caused_says_nothing_any_more() {
        let data = json!({"id": "e-1", "kind": "like", "title": "Bob likes it", "actor": {"id": "bob", "name": "Bob"}});
        let left = left("notification.new", Some("backend"), data.clone()).unwrap();
        assert_eq!(
            left["data"],
            json!({"erased": true, "id": "e-1", "conversation_id": "9f"})
        );
        let mut stored = json!({"time_ms": 5, "data": data});
        assert!(row(&mut stored, &bob()));
        assert_eq!(
            stored,
            json!({"time_ms": 5, "data": {"erased": true, "id": "e-1", "kind": "like"}})
        );
        assert!(
            !row(&mut stored, &bob()),
            "a second time there is nothing to do"
        );
    }

    proptest! {
        /// Whatever stands around it: nothing that the person wrote and no place that names the person is left.
        #[test]
        fn nothing_that_names_the_person_stays(
            outer in prop::sample::select(vec!["message", "conversation", "anything"]),
            depth in 0usize..6,
            by_sender: bool,
        ) {
            let mut data = match by_sender {
                true => json!({"sender": "bob", "content": "canary"}),
                false => json!({"actor": {"id": "bob", "name": "canary"}, "body": "canary"}),
            };
            for level in 0..depth {
                data = match level % 2 {
                    0 => json!({ outer: data, "members": ["bob"] }),
                    _ => json!([data, 1]),
                };
            }
            let left = left("conversation.updated", Some("alice"), data).unwrap();
            let text = left["data"].to_string();
            prop_assert!(!text.contains("canary") && !text.contains("\"bob\""), "{}", text);
        }
    }
}

//! Events on their way to the server: each as the JSON of `POST /v1/publish`, gathered into bounded batches.
//!
//! Promises: every event has an id, so that a batch which is sent again is published once; a batch has at most
//! `EVENTS_MAX` events and `BYTES_MAX` bytes, unless one event alone is larger, which then goes alone.

use serde_json::json;

use crate::clock::Clock;
use crate::event::{EventId, EventType, Invalid, Json, Topic, UserId};
use crate::id::Random;

/// Events of one request, as the server takes them.
pub const EVENTS_MAX: usize = 500;
/// Bytes of one request: a quarter of what the server takes by default.
pub const BYTES_MAX: usize = 1024 * 1024;
/// What stands around and between the events.
const START: &str = "{\"events\":[";
const END: &str = "]}";

/// What all events of one command have in common.
#[derive(Debug)]
pub struct Template {
    /// The members between id and data.
    middle: String,
    /// The beginning of all ids, where the user gave one.
    id_start: Option<EventId>,
}

impl Template {
    pub fn new(
        to: &[UserId],
        event_type: &EventType,
        topic: Option<&Topic>,
        id_start: Option<EventId>,
    ) -> Template {
        let to = match to {
            [user] => json!({ "user": user }),
            users => json!({ "users": users }),
        };
        let topic = topic
            .map(|topic| format!(",\"topic\":{}", json!(topic)))
            .unwrap_or_default();
        let event_type = json!(event_type);
        Template {
            middle: format!(",\"to\":{to},\"type\":{event_type}{topic},\"data\":"),
            id_start,
        }
    }

    /// The one event of a command without `--ndjson`.
    pub fn event(&self, data: &Json) -> String {
        let id = self.id_start.as_ref().map(EventId::to_string);
        self.json(&id.unwrap_or_else(fresh_id), data)
    }

    /// The event of one line of input.
    pub fn event_of_line(&self, line: u64, data: &Json) -> Result<String, Invalid> {
        let id = match &self.id_start {
            Some(start) => format!("{start}-{line}").parse::<EventId>()?.to_string(),
            None => fresh_id(),
        };
        Ok(self.json(&id, data))
    }

    fn json(&self, id: &str, data: &Json) -> String {
        format!("{{\"id\":{}{}{}}}", json!(id), self.middle, data.as_str())
    }
}

fn fresh_id() -> String {
    Random::system().uuid_v7(Clock::system().wall_ms())
}

/// Events that go in one request, with the lines that they come from.
#[derive(Debug)]
pub struct Batch {
    body: String,
    pub lines: Vec<u64>,
}

impl Batch {
    pub fn new() -> Batch {
        Batch {
            body: START.to_owned(),
            lines: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether one more event of `bytes` still fits; an empty batch takes any.
    pub fn fits(&self, bytes: usize) -> bool {
        let whole = self.body.len() + 1 + bytes + END.len();
        self.is_empty() || (self.lines.len() < EVENTS_MAX && whole <= BYTES_MAX)
    }

    pub fn push(&mut self, line: u64, event: &str) {
        assert!(self.fits(event.len()), "the caller asks fits first");
        if !self.is_empty() {
            self.body.push(',');
        }
        self.body.push_str(event);
        self.lines.push(line);
    }

    /// The request's body.
    pub fn body(&self) -> String {
        format!("{}{END}", self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn template(id_start: Option<&str>) -> Template {
        let to: Vec<UserId> = vec!["alice".parse().unwrap()];
        let topic: Topic = "build:7".parse().unwrap();
        let id_start = id_start.map(|id| id.parse().unwrap());
        Template::new(&to, &"build.done".parse().unwrap(), Some(&topic), id_start)
    }

    #[test]
    fn an_event_is_what_publish_takes() {
        let data = Json::parse("{ \"a\" : 1 }").unwrap();
        let event = template(Some("x")).event(&data);
        assert_eq!(
            event,
            r#"{"id":"x","to":{"user":"alice"},"type":"build.done","topic":"build:7","data":{"a":1}}"#
        );
        let several = Template::new(
            &["a".parse().unwrap(), "b".parse().unwrap()],
            &"t".parse().unwrap(),
            None,
            None,
        );
        let event: Value = serde_json::from_str(&several.event(&Json::null())).unwrap();
        assert_eq!(event["to"], json!({ "users": ["a", "b"] }));
        assert_eq!(event["id"].as_str().unwrap().len(), 36);
        assert_eq!(event["data"], Value::Null);
    }

    #[test]
    fn ids_of_lines_are_their_numbers_or_new() {
        let id = |template: &Template, line| {
            let event = template.event_of_line(line, &Json::null()).unwrap();
            let event: Value = serde_json::from_str(&event).unwrap();
            event["id"].as_str().unwrap().to_owned()
        };
        assert_eq!(id(&template(Some("run")), 12), "run-12");
        assert_ne!(id(&template(None), 1), id(&template(None), 1));
        let long = template(Some(&"x".repeat(128)));
        assert!(long.event_of_line(1, &Json::null()).is_err());
    }

    #[test]
    fn a_batch_is_bounded_in_events_and_bytes() {
        let mut batch = Batch::new();
        for line in 1..=500 {
            assert!(batch.fits(2), "event {line}");
            batch.push(line, "{}");
        }
        assert!(!batch.fits(2));
        let body: Value = serde_json::from_str(&batch.body()).unwrap();
        assert_eq!(body["events"].as_array().unwrap().len(), 500);

        let mut batch = Batch::new();
        let half = format!("\"{}\"", "x".repeat(BYTES_MAX / 2 - 20));
        batch.push(1, &half);
        assert!(batch.fits(half.len()));
        batch.push(2, &half);
        assert!(!batch.fits(half.len()) && batch.body().len() <= BYTES_MAX);
        assert!(Batch::new().fits(2 * BYTES_MAX), "a great event goes alone");
    }
}

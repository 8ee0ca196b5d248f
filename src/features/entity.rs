//! Entity events: what a client's cache of an application's objects must forget or load again.
//!
//! Promises: `entity.created`, `entity.updated` and `entity.deleted` name the entity and its id, so that every client
//! can rely on it; what else an application adds is its own. It stores nothing.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::{Invalid, Json};

const TYPES: [&str; 3] = ["entity.created", "entity.updated", "entity.deleted"];
const NAME_CHARS_MAX: usize = 128;

#[derive(Deserialize)]
struct Entity<'a> {
    #[serde(borrow)]
    entity: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow, default)]
    version: Option<&'a RawValue>,
}

/// Refuses an entity event that does not say what it is about. Other types are no business of this file.
pub fn check(event_type: &str, data: &Json) -> Result<(), Invalid> {
    if !TYPES.contains(&event_type) {
        return Ok(());
    }
    let entity: Option<Entity<'_>> = serde_json::from_str(data.as_str()).ok();
    let is_whole = entity.is_some_and(|entity| {
        is_name(&entity.entity) && is_id(entity.id) && entity.version.is_none_or(is_id)
    });
    match is_whole {
        true => Ok(()),
        false => {
            let message = "data of an entity event is {entity, id, version?}: entity a text, id and version texts of 1 \
                           to 128 characters or whole numbers";
            Err(Invalid::new("invalid_entity", message))
        }
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// A text or a whole number.
fn is_id(raw: &RawValue) -> bool {
    match serde_json::from_str::<std::borrow::Cow<'_, str>>(raw.get()) {
        Ok(text) => is_name(&text),
        Err(_) => raw.get().parse::<i64>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_event_names_its_entity() {
        let code = |event_type: &str, data: &str| {
            let checked = check(event_type, &Json::parse(data).unwrap());
            checked.map_err(|invalid| invalid.code)
        };
        for good in [
            r#"{"entity":"order","id":"7"}"#,
            r#"{"entity":"order","id":7,"version":3}"#,
            r#"{"entity":"\u00e4","id":"a\"b","version":"3f","fields":["x"]}"#,
            r#"{"entity":"order","id":-7,"version":null}"#,
        ] {
            for event_type in TYPES {
                assert_eq!(code(event_type, good), Ok(()), "{good}");
            }
        }
        for bad in [
            "null",
            "[]",
            "{}",
            r#"{"entity":"order"}"#,
            r#"{"id":"7"}"#,
            r#"{"entity":"","id":"7"}"#,
            r#"{"entity":7,"id":"7"}"#,
            r#"{"entity":"order","id":""}"#,
            r#"{"entity":"order","id":null}"#,
            r#"{"entity":"order","id":1.5}"#,
            r#"{"entity":"order","id":{}}"#,
            r#"{"entity":"order","id":"a\nb"}"#,
            r#"{"entity":"order","id":"7","version":true}"#,
        ] {
            assert_eq!(code("entity.updated", bad), Err("invalid_entity"), "{bad}");
            assert_eq!(code("entity.touched", bad), Ok(()), "an application's own");
        }
    }
}

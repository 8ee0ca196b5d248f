//! From the JSON on the wire to the words of the history; the same for all transports.
//!
//! What it cannot understand it names in a sentence, which the reader records as a broken promise: a frame that a
//! strict reader does not understand is a fault of the server.

use serde_json::Value;

use crate::history::{Position, Read, Reset, Seen};
use crate::sse::SseFrame;

/// What one object on the wire means to a reader. Signals, pings without position and the like mean nothing here.
pub fn understand(value: &Value) -> Result<Option<Read>, String> {
    let name = value["type"]
        .as_str()
        .ok_or_else(|| format!("no type: {value}"))?;
    if value["ephemeral"] == Value::Bool(true) {
        return Ok(None);
    }
    match name {
        // A `ready` that announces a reset says no place.
        "sys.ready" if value["cursor"].is_null() => Ok(None),
        "sys.ready" => Ok(Some(Read::Ready {
            position: position(value, "cursor")?,
        })),
        "sys.live" => Ok(Some(Read::Reached {
            position: position(value, "cursor")?,
        })),
        "sys.reset" => Ok(Some(Read::Reset(reset(value, None)?))),
        _ if name.starts_with("sys.") => Ok(None),
        _ => Ok(Some(Read::Event(seen(value)?))),
    }
}

/// As `understand`, and the `id:` line must agree with what the object says.
pub fn understand_sse(frame: &SseFrame) -> Result<Option<Read>, String> {
    let Some(data) = &frame.data else {
        return Ok(None);
    };
    // A problem object instead of a status, because `EventSource` would give up on one.
    if frame.event.as_deref() == Some("error") {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(data).map_err(|error| format!("{error}: {data}"))?;
    let id = match &frame.id {
        Some(id) => Some(Position::parse(id).ok_or_else(|| format!("id {id:?} is not a cursor"))?),
        None => None,
    };
    if id.is_some() && !frame.is_id_last {
        return Err(format!("the id line is not the last one: {frame:?}"));
    }
    let understood = understand(&value)?;
    match (understood, id) {
        (Some(Read::Reset(told)), Some(id)) => Ok(Some(Read::Reset(Reset {
            position: id,
            ..told
        }))),
        // A ping with an id moves the cursor over what a filter hid.
        (None, Some(id)) if value["type"] == "sys.ping" => Ok(Some(Read::Reached { position: id })),
        (Some(read), Some(id)) if position_of(&read) == Some(&id) => Ok(Some(read)),
        (None, None) => Ok(None),
        (understood, id) => Err(format!("id line {id:?} does not fit {understood:?}")),
    }
}

fn position_of(read: &Read) -> Option<&Position> {
    match read {
        Read::Ready { position } | Read::Reached { position } => Some(position),
        Read::Event(seen) => Some(&seen.position),
        _ => None,
    }
}

pub fn seen(value: &Value) -> Result<Seen, String> {
    let text = |field: &str| {
        let found = value[field].as_str();
        found
            .map(str::to_owned)
            .ok_or_else(|| format!("no {field}: {value}"))
    };
    let position = position(value, "cursor")?;
    if value["seq"].as_u64() != Some(position.seq) {
        return Err(format!("seq and cursor disagree: {value}"));
    }
    Ok(Seen {
        position,
        id: text("id")?,
        event_type: text("type")?,
        time: text("time")?,
        nonce: value["data"]["nonce"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        owner: value["data"]["for"].as_str().unwrap_or_default().to_owned(),
        data: value["data"].to_string(),
    })
}

/// A reset as the object tells it. A page names where it goes on by itself; a stream goes on from the head unless
/// something else is said.
pub fn reset(value: &Value, goes_on: Option<Position>) -> Result<Reset, String> {
    let head = position(value, "head")?;
    let said = value["cursor"].as_str().and_then(Position::parse);
    Ok(Reset {
        reason: value["reason"]
            .as_str()
            .ok_or_else(|| format!("no reason: {value}"))?
            .to_owned(),
        requested: value["requested"].as_str().unwrap_or_default().to_owned(),
        earliest: value["earliest"]
            .as_u64()
            .ok_or_else(|| format!("no earliest: {value}"))?,
        position: goes_on.or(said).unwrap_or_else(|| head.clone()),
        head,
    })
}

pub fn position(value: &Value, field: &str) -> Result<Position, String> {
    let cursor = value[field]
        .as_str()
        .ok_or_else(|| format!("no {field}: {value}"))?;
    Position::parse(cursor).ok_or_else(|| format!("{cursor:?} is not a cursor"))
}

/// One page of the log: what it tells in the order in which it counts.
pub fn understand_page(page: &Value) -> Result<Vec<Read>, String> {
    let events = page["events"]
        .as_array()
        .ok_or_else(|| format!("not a page: {page}"))?;
    let events: Vec<Seen> = events.iter().map(seen).collect::<Result<_, _>>()?;
    let end = position(page, "cursor")?;
    let mut reads = Vec::new();
    if !page["reset"].is_null() {
        let before_first = events.first().map(|event| Position {
            seq: event.position.seq - 1,
            ..event.position.clone()
        });
        let goes_on = before_first.unwrap_or_else(|| end.clone());
        reads.push(Read::Reset(reset(&page["reset"], Some(goes_on))?));
    }
    reads.extend(events.into_iter().map(Read::Event));
    reads.push(Read::Reached { position: end });
    Ok(reads)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({"v":1,"id":"a","seq":3,"cursor":"abcdef-3","type":"app.x","time":"t","data":{"nonce":"n","for":"u"}})
    }

    #[test]
    fn an_event_needs_its_seq_to_fit_its_cursor() {
        assert_eq!(seen(&event()).unwrap().nonce, "n");
        let mut wrong = event();
        wrong["seq"] = json!(4);
        assert!(seen(&wrong).is_err());
    }

    #[test]
    fn an_id_line_must_say_what_the_object_says() {
        let data = Some(event().to_string());
        let right = SseFrame {
            event: None,
            data: data.clone(),
            id: Some("abcdef-3".into()),
            is_id_last: true,
        };
        assert!(matches!(understand_sse(&right), Ok(Some(Read::Event(_)))));
        let late = SseFrame {
            is_id_last: false,
            event: None,
            data: data.clone(),
            id: Some("abcdef-3".into()),
        };
        assert!(understand_sse(&late).is_err());
        let other = SseFrame {
            event: None,
            data: data.clone(),
            id: Some("abcdef-4".into()),
            is_id_last: true,
        };
        assert!(understand_sse(&other).is_err());
        let none = SseFrame {
            event: None,
            data,
            id: None,
            is_id_last: false,
        };
        assert!(understand_sse(&none).is_err());
    }
}

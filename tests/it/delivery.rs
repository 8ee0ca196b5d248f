//! What a log yields, in the same words whether it came by SSE, NDJSON, JSON pages or a WebSocket.
//!
//! Promises: each form is checked as it is read: cursor and seq agree, ephemeral events have neither, a reset and a page
//! have the members that PROTOCOL.md names and no others. It knows one delivery at a time; their order is the
//! business of `reader`.

use serde_json::Value;

use crate::door;
use crate::sse;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ready,
    Event,
    Signal,
    Live,
    Ping,
    Reset,
    Snapshot,
    Auth,
    Bye,
    Error,
    Reply,
    /// The stream or the connection ended; for a WebSocket `json` is the close code.
    End,
}

#[derive(Debug, Clone)]
pub struct Delivery {
    pub kind: Kind,
    pub json: Value,
    /// Where a client that has processed this may resume.
    pub cursor: Option<String>,
    /// The `retry:` that came with it.
    pub retry: Option<u64>,
    /// As it came: a frame, a line, a message. Empty for JSON pages.
    pub raw: String,
}

impl Delivery {
    #[track_caller]
    pub fn seq(&self) -> u64 {
        self.json["seq"]
            .as_u64()
            .unwrap_or_else(|| panic!("no seq: {self:?}"))
    }

    pub fn str(&self, name: &str) -> &str {
        self.json[name].as_str().unwrap_or("")
    }
}

#[track_caller]
pub fn check_event(delivery: &Delivery) {
    let json = &delivery.json;
    assert_eq!(json["v"], 1, "{json}");
    let cursor = delivery.str("cursor");
    assert!(sse::is_cursor(cursor), "the cursor of {json}");
    assert!(
        cursor.ends_with(&format!("-{}", delivery.seq())),
        "cursor and seq of {json}"
    );
    assert_eq!(
        delivery.cursor.as_deref(),
        Some(cursor),
        "the id line of {delivery:?}"
    );
    for name in ["id", "type", "time"] {
        assert!(!delivery.str(name).is_empty(), "no {name} in {json}");
    }
    let time = delivery.str("time");
    let is_rfc3339 = time.len() == 24 && time.ends_with('Z') && time.as_bytes()[19] == b'.';
    assert!(is_rfc3339, "the time of {json}");
    assert!(json.get("data").is_some(), "{json}");
    let known = [
        "v", "id", "seq", "cursor", "type", "time", "topic", "actor", "data",
    ];
    for name in json.as_object().expect("an event is an object").keys() {
        assert!(
            known.contains(&name.as_str()),
            "the member {name} of {json}"
        );
    }
}

#[track_caller]
pub fn check_reset(json: &Value) {
    let reasons = ["trimmed", "epoch", "ahead", "malformed"];
    let reason = json["reason"].as_str().unwrap_or("");
    assert!(reasons.contains(&reason), "{json}");
    assert!(json["earliest"].is_u64(), "{json}");
    assert!(
        sse::is_cursor(json["head"].as_str().unwrap_or("")),
        "{json}"
    );
    assert_eq!(json["state"], "/v1/state", "{json}");
    assert!(json.get("requested").is_some(), "{json}");
}

pub fn end(json: Value) -> Delivery {
    Delivery {
        kind: Kind::End,
        json,
        cursor: None,
        retry: None,
        raw: String::new(),
    }
}

pub fn of_frame(frame: sse::Frame) -> Delivery {
    frame.check();
    let json = frame.data();
    let kind = match frame.event() {
        Some("error") => Kind::Error,
        Some("snapshot") => Kind::Snapshot,
        _ => kind_of(&json),
    };
    if kind == Kind::Error {
        let status = json["status"]
            .as_u64()
            .and_then(|status| status.try_into().ok());
        door::check_problem_object(&json, status.unwrap_or(0));
    } else if kind != Kind::Event && kind != Kind::Signal {
        let name = frame.event().unwrap_or("");
        assert_eq!(json["type"], format!("sys.{name}"), "{:?}", frame.raw);
    }
    let is_named_by_cursor = !matches!(kind, Kind::Reset | Kind::Snapshot | Kind::Ping);
    if let (true, Some(id)) = (is_named_by_cursor, frame.id()) {
        assert_eq!(json["cursor"], id, "id and cursor of {:?}", frame.raw);
    }
    let (cursor, retry) = (frame.id().map(str::to_owned), frame.retry());
    Delivery {
        kind,
        json,
        cursor,
        retry,
        raw: frame.raw,
    }
}

/// One line or one message; what is a cursor there stands in the JSON.
pub fn of_text(text: &str) -> Delivery {
    let json: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    let kind = kind_of(&json);
    let cursor = match (kind, json["cursor"].as_str()) {
        (Kind::Reset, None) => json["head"].as_str(),
        (_, cursor) => cursor,
    };
    Delivery {
        kind,
        cursor: cursor.map(str::to_owned),
        json,
        retry: None,
        raw: text.to_owned(),
    }
}

fn kind_of(json: &Value) -> Kind {
    match json["type"].as_str().unwrap_or("") {
        "sys.ready" => Kind::Ready,
        "sys.live" => Kind::Live,
        "sys.ping" => Kind::Ping,
        "sys.reset" => Kind::Reset,
        "sys.snapshot" => Kind::Snapshot,
        "sys.auth" => Kind::Auth,
        "sys.bye" => Kind::Bye,
        "sys.error" => Kind::Error,
        "sys.reply" => Kind::Reply,
        other if other.starts_with("sys.") => panic!("an unknown control object: {json}"),
        _ if json["ephemeral"] == true => Kind::Signal,
        _ => Kind::Event,
    }
}

/// What PROTOCOL.md section 3.3 says of every page.
#[track_caller]
pub fn check_page(page: &Value) {
    let members = page.as_object().expect("a page is an object");
    let known = [
        "events",
        "ephemeral",
        "cursor",
        "head",
        "more",
        "reset",
        "poll_after_ms",
    ];
    for name in known {
        assert!(members.contains_key(name), "no {name} in {page}");
    }
    for name in members.keys() {
        assert!(
            known.contains(&name.as_str()) || name == "snapshot",
            "{name} in {page}"
        );
    }
    assert!(
        page["events"].is_array() && page["ephemeral"].is_array(),
        "{page}"
    );
    assert!(
        page["more"].is_boolean() && page["poll_after_ms"].is_u64(),
        "{page}"
    );
    for name in ["cursor", "head"] {
        assert!(
            sse::is_cursor(page[name].as_str().unwrap_or("")),
            "the {name} of {page}"
        );
    }
    if !page["reset"].is_null() {
        check_reset(&page["reset"]);
    }
    let last = page["events"].as_array().and_then(|events| events.last());
    if let (Some(last), false) = (last, page["more"] == true) {
        let (seq, end) = (
            last["seq"].as_u64(),
            seq_of(page["cursor"].as_str().unwrap_or("")),
        );
        assert!(
            seq <= Some(end),
            "the page's cursor stands before its last event: {page}"
        );
    }
}

pub fn seq_of(cursor: &str) -> u64 {
    let seq = cursor.split_once('-').and_then(|(_, seq)| seq.parse().ok());
    seq.unwrap_or_else(|| panic!("{cursor:?} is no cursor"))
}

pub fn epoch_of(cursor: &str) -> &str {
    cursor.split_once('-').map_or("", |(epoch, _)| epoch)
}

/// The deliveries that one page stands for, `live` where the reader has caught up for the first time.
pub fn of_page(page: &Value, is_live: &mut bool) -> Vec<Delivery> {
    let page_cursor = page["cursor"].as_str().map(str::to_owned);
    let plain = |kind, json: &Value, cursor| Delivery {
        kind,
        json: json.clone(),
        cursor,
        retry: None,
        raw: String::new(),
    };
    let mut deliveries = Vec::new();
    if !page["reset"].is_null() {
        let cursor = page["reset"]["cursor"].as_str().map(str::to_owned);
        deliveries.push(plain(Kind::Reset, &page["reset"], cursor));
    }
    for event in page["events"].as_array().into_iter().flatten() {
        let cursor = event["cursor"].as_str().map(str::to_owned);
        deliveries.push(plain(Kind::Event, event, cursor));
    }
    for signal in page["ephemeral"].as_array().into_iter().flatten() {
        deliveries.push(plain(Kind::Signal, signal, None));
    }
    let is_caught_up = page["more"] == false && !*is_live;
    *is_live |= is_caught_up;
    let kind = if is_caught_up { Kind::Live } else { Kind::Ping };
    deliveries.push(plain(kind, &Value::Null, page_cursor));
    deliveries
}

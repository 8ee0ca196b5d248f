//! The wire format: events, signals and control objects as SSE frames, NDJSON lines, socket texts and JSON pages.
//!
//! Promises: an event is one frame with the same bytes on every transport, and only the part that differs between
//! logs is formatted for each reader. `id:` is the last line of its frame, is never empty, and stands only where a
//! client that has processed the frame may resume. Nothing here can fail.

use std::fmt::Write;

use bytes::BytesMut;

use crate::event::{Event, Signal};
use crate::id::{Position, PositionText};

/// About what a frame holds beside the event's own JSON: position, id, type, ends of lines and of a chunk.
pub const AROUND_EVENT_BYTES: usize = 160;

/// How frames are laid out on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// WHATWG server-sent events; `is_named` adds the event's type as the name of the SSE event.
    Sse { is_named: bool },
    /// One JSON object per line; control objects may be left out.
    Lines { has_control: bool },
    /// One JSON object per WebSocket text message, without anything around it.
    Bare,
}

/// What the server says beside events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control<'a> {
    Ready(Ready<'a>),
    /// The state, as `/v1/state` tells it: a JSON object.
    Snapshot {
        position: Position,
        state: &'a str,
    },
    Reset {
        reason: &'a str,
        requested: &'a str,
        earliest: u64,
        head: Position,
        resumed: Position,
    },
    Live {
        position: Position,
    },
    /// `resumable` is told where hidden events moved the reader's position.
    Ping {
        head: Position,
        resumable: Option<Position>,
    },
    Auth {
        expires_in_seconds: u64,
    },
    Bye {
        reason: &'a str,
    },
    /// A problem object (RFC 9457), before the end of a stream that was refused.
    Refused {
        problem: &'a str,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready<'a> {
    pub user: &'a str,
    pub conn: &'a str,
    /// Before a reset it is what was asked: whoever is cut off between the two asks for the same again, and is told.
    pub position: Position,
    pub head: Position,
    pub ping_ms: u64,
    /// A JSON object.
    pub badge: &'a str,
    pub auth_expires: &'a str,
}

impl Control<'_> {
    fn name(&self) -> &'static str {
        match self {
            Control::Ready(_) => "ready",
            Control::Snapshot { .. } => "snapshot",
            Control::Reset { .. } => "reset",
            Control::Live { .. } => "live",
            Control::Ping { .. } => "ping",
            Control::Auth { .. } => "auth",
            Control::Bye { .. } => "bye",
            Control::Refused { .. } => "error",
        }
    }

    /// Where a client that has processed this may resume.
    fn resumable(&self) -> Option<Position> {
        match self {
            Control::Ready(ready) => Some(ready.position),
            Control::Snapshot { position, .. } | Control::Live { position } => Some(*position),
            Control::Reset { resumed, .. } => Some(*resumed),
            Control::Ping { resumable, .. } => *resumable,
            Control::Auth { .. } | Control::Bye { .. } | Control::Refused { .. } => None,
        }
    }

    fn write_json(&self, out: &mut BytesMut) {
        let written = match self {
            Control::Ready(ready) => {
                write_ready(out, ready);
                Ok(())
            }
            Control::Snapshot { state, .. } => {
                // The state is an object of at least one field; its fields follow those of the control object.
                let fields = state.strip_prefix('{').unwrap_or(state);
                write!(out, r#"{{"type":"sys.snapshot","v":1,{fields}"#)
            }
            Control::Reset {
                reason,
                requested,
                earliest,
                head,
                resumed,
            } => write!(
                out,
                r#"{{"type":"sys.reset","reason":"{reason}","requested":{},"earliest":{earliest},"head":"{head}","cursor":"{resumed}","state":"/v1/state"}}"#,
                quoted(requested),
            ),
            Control::Live { position } => {
                put_position(out, r#"{"type":"sys.live","cursor":""#, *position, r#""}"#);
                Ok(())
            }
            Control::Ping { head, resumable } => {
                put_position(out, r#"{"type":"sys.ping","head":""#, *head, "\"");
                if let Some(position) = resumable {
                    put_position(out, r#","cursor":""#, *position, "\"");
                }
                put(out, &["}"]);
                Ok(())
            }
            Control::Auth { expires_in_seconds } => {
                write!(
                    out,
                    r#"{{"type":"sys.auth","expires_in":{expires_in_seconds}}}"#
                )
            }
            Control::Bye { reason } => write!(out, r#"{{"type":"sys.bye","reason":"{reason}"}}"#),
            Control::Refused { problem } => out.write_str(problem),
        };
        written.expect("writing to memory does not fail");
    }
}

/// Every reader that connects waits for it, so it is put together without the machinery of `write!`.
fn write_ready(out: &mut BytesMut, ready: &Ready<'_>) {
    let Ready {
        user,
        conn,
        position,
        head,
        ping_ms,
        badge,
        auth_expires,
    } = ready;
    put(
        out,
        &[
            r#"{"type":"sys.ready","v":1,"user":""#,
            user,
            r#"","conn":""#,
            conn,
        ],
    );
    put_position(out, r#"","cursor":""#, *position, r#"","head":""#);
    put_position(out, "", *head, r#"","ping_ms":"#);
    put_number(out, "", *ping_ms, r#","badge":"#);
    put(out, &[badge, r#","auth_expires":""#, auth_expires, r#""}"#]);
}

/// A JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Layout {
    /// One durable event as `position` of its reader's log has it.
    pub fn event(self, out: &mut BytesMut, position: Position, event: &Event) {
        out.reserve(AROUND_EVENT_BYTES + event.json().len());
        let position = position.text();
        match self {
            Layout::Sse { is_named } => {
                if is_named {
                    put(out, &["event: ", event.event_type(), "\n"]);
                }
                put(out, &["data: "]);
                write_event(out, &position, event);
                put(out, &["\nid: "]);
                out.extend_from_slice(position.as_bytes());
                put(out, &["\n\n"]);
            }
            Layout::Lines { .. } => {
                write_event(out, &position, event);
                put(out, &["\n"]);
            }
            Layout::Bare => write_event(out, &position, event),
        }
    }

    /// One signal: it has no position.
    pub fn signal(self, out: &mut BytesMut, signal: &Signal) {
        match self {
            Layout::Sse { is_named } => {
                if is_named {
                    put(out, &["event: ", signal.event_type.as_str(), "\n"]);
                }
                put(out, &["data: "]);
                out.extend_from_slice(&signal.json);
                put(out, &["\n\n"]);
            }
            Layout::Lines { .. } => {
                out.extend_from_slice(&signal.json);
                put(out, &["\n"]);
            }
            Layout::Bare => out.extend_from_slice(&signal.json),
        }
    }

    /// One control object; `retry_ms` tells an `EventSource` how long to wait before it reconnects.
    pub fn control(self, out: &mut BytesMut, control: &Control<'_>, retry_ms: Option<u64>) {
        match self {
            Layout::Sse { .. } => {
                if let Some(retry_ms) = retry_ms {
                    put_number(out, "retry: ", retry_ms, "\n");
                }
                put(out, &["event: ", control.name(), "\ndata: "]);
                control.write_json(out);
                put(out, &["\n"]);
                if let Some(position) = control.resumable() {
                    put_position(out, "id: ", position, "\n");
                }
                put(out, &["\n"]);
            }
            Layout::Lines { has_control: false } => {}
            Layout::Lines { has_control: true } => {
                control.write_json(out);
                put(out, &["\n"]);
            }
            Layout::Bare => control.write_json(out),
        }
    }
}

/// The event's JSON: what differs between logs stands between two parts that all share.
fn write_event(out: &mut BytesMut, position: &PositionText, event: &Event) {
    let (id, rest) = event.json_around_position();
    put(out, &[r#"{"v":1,"#]);
    out.extend_from_slice(id);
    put(out, &[r#","seq":"#]);
    out.extend_from_slice(position.seq_bytes());
    put(out, &[r#","cursor":""#]);
    out.extend_from_slice(position.as_bytes());
    put(out, &["\""]);
    out.extend_from_slice(rest);
}

fn put_position(out: &mut BytesMut, before: &str, position: Position, after: &str) {
    put(out, &[before]);
    out.extend_from_slice(position.text().as_bytes());
    put(out, &[after]);
}

fn put_number(out: &mut BytesMut, before: &str, number: u64, after: &str) {
    put(out, &[before, itoa::Buffer::new().format(number), after]);
}

fn put(out: &mut BytesMut, texts: &[&str]) {
    for text in texts {
        out.extend_from_slice(text.as_bytes());
    }
}

/// A page of a long poll, written as its parts come.
pub struct PollPage {
    events: BytesMut,
    ephemeral: BytesMut,
    reset: Option<BytesMut>,
}

/// What closes a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollEnd {
    pub position: Position,
    pub head: Position,
    pub is_more: bool,
    pub poll_after_ms: u64,
}

impl Default for PollPage {
    fn default() -> PollPage {
        PollPage {
            events: BytesMut::new(),
            ephemeral: BytesMut::new(),
            reset: None,
        }
    }
}

impl PollPage {
    pub fn event(&mut self, position: Position, event: &Event) {
        separate(&mut self.events);
        Layout::Bare.event(&mut self.events, position, event);
    }

    pub fn signal(&mut self, signal: &Signal) {
        separate(&mut self.ephemeral);
        Layout::Bare.signal(&mut self.ephemeral, signal);
    }

    pub fn reset(&mut self, reset: &Control<'_>) {
        let mut json = BytesMut::new();
        Layout::Bare.control(&mut json, reset, None);
        self.reset = Some(json);
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.ephemeral.is_empty() && self.reset.is_none()
    }

    pub fn into_json(self, end: PollEnd) -> BytesMut {
        let PollEnd {
            position,
            head,
            is_more,
            poll_after_ms,
        } = end;
        let mut json = BytesMut::with_capacity(self.events.len() + self.ephemeral.len() + 256);
        put(&mut json, &[r#"{"events":["#]);
        json.extend_from_slice(&self.events);
        put(&mut json, &[r#"],"ephemeral":["#]);
        json.extend_from_slice(&self.ephemeral);
        write!(
            json,
            r#"],"cursor":"{position}","head":"{head}","more":{is_more},"reset":"#
        )
        .expect("writing to memory does not fail");
        json.extend_from_slice(self.reset.as_deref().unwrap_or(b"null"));
        write!(json, r#","poll_after_ms":{poll_after_ms}}}"#)
            .expect("writing to memory does not fail");
        json
    }
}

fn separate(list: &mut BytesMut) {
    if !list.is_empty() {
        put(list, &[","]);
    }
}

/// The reply to a command on a socket; `data` is a JSON value.
pub fn reply(reference: &str, data: &str) -> String {
    format!(
        r#"{{"type":"sys.reply","ref":{},"data":{data}}}"#,
        quoted(reference)
    )
}

/// The refusal of a command on a socket.
pub fn socket_error(reference: Option<&str>, code: &str, message: &str) -> String {
    let reference = reference
        .map(|reference| format!(r#""ref":{},"#, quoted(reference)))
        .unwrap_or_default();
    format!(
        r#"{{"type":"sys.error",{reference}"code":"{code}","message":{}}}"#,
        quoted(message)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Draft, Json};

    fn position(seq: u64) -> Position {
        Position {
            epoch: "q7m2kd".parse().unwrap(),
            seq,
        }
    }

    fn event() -> Event {
        Event::of(&Draft {
            id: "e1".parse().unwrap(),
            event_type: "message.new".parse().unwrap(),
            time_ms: 1_795_228_200_123,
            topic: None,
            actor: None,
            data: Json::parse(r#"{"a":"\n\u2028id: 9"}"#).unwrap(),
            exclude_conn: None,
        })
    }

    const EVENT: &str = concat!(
        r#"{"v":1,"id":"e1","seq":43,"cursor":"q7m2kd-43","type":"message.new","#,
        r#""time":"2026-11-21T02:30:00.123Z","data":{"a":"\n\u2028id: 9"}}"#
    );

    fn written(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn an_event_is_the_same_json_on_every_transport() {
        let frame = |layout: Layout| written(|out| layout.event(out, position(43), &event()));
        assert_eq!(frame(Layout::Bare), EVENT);
        assert_eq!(
            frame(Layout::Lines { has_control: false }),
            format!("{EVENT}\n")
        );
        assert_eq!(
            frame(Layout::Sse { is_named: false }),
            format!("data: {EVENT}\nid: q7m2kd-43\n\n")
        );
        let named = format!("event: message.new\ndata: {EVENT}\nid: q7m2kd-43\n\n");
        assert_eq!(frame(Layout::Sse { is_named: true }), named);
    }

    #[test]
    fn control_frames_end_with_their_id() {
        let sse = |control: Control<'_>, retry| {
            written(|out| Layout::Sse { is_named: false }.control(out, &control, retry))
        };
        let ping = Control::Ping {
            head: position(57),
            resumable: None,
        };
        assert_eq!(
            sse(ping, None),
            "event: ping\ndata: {\"type\":\"sys.ping\",\"head\":\"q7m2kd-57\"}\n\n"
        );
        let live = Control::Live {
            position: position(57),
        };
        assert_eq!(
            sse(live, None),
            "event: live\ndata: {\"type\":\"sys.live\",\"cursor\":\"q7m2kd-57\"}\nid: q7m2kd-57\n\n"
        );
        let bye = Control::Bye { reason: "drain" };
        assert_eq!(
            sse(bye, Some(1500)),
            "retry: 1500\nevent: bye\ndata: {\"type\":\"sys.bye\",\"reason\":\"drain\"}\n\n"
        );
    }

    #[test]
    fn what_a_reader_sent_is_told_back_as_a_json_string() {
        let reset = Control::Reset {
            reason: "malformed",
            requested: "\"\\x",
            earliest: 1,
            head: position(2),
            resumed: position(2),
        };
        let line = written(|out| Layout::Lines { has_control: true }.control(out, &reset, None));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["requested"], "\"\\x");
    }

    #[test]
    fn a_page_is_one_json_object() {
        let mut page = PollPage::default();
        page.event(position(43), &event());
        page.event(position(44), &event());
        let end = PollEnd {
            position: position(44),
            head: position(57),
            is_more: true,
            poll_after_ms: 0,
        };
        let value: serde_json::Value = serde_json::from_slice(&page.into_json(end)).unwrap();
        assert_eq!(value["events"][1]["seq"], 44);
        assert_eq!(value["cursor"], "q7m2kd-44");
        assert_eq!(value["reset"], serde_json::Value::Null);
    }
}

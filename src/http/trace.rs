//! `GET /v1/admin/trace/{event id}`: what became of one event: appended, synced, written to whom, acked, read.
//!
//! Promises: a time is told where it is known and is `null` where it is not, with a word beside it that says why;
//! nothing is guessed. Of many recipients the first are told and all are counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::event::{ConversationId, Event, EventId};
use crate::features::trace::TraceError;
use crate::features::{ack, conversation, inbox};
use crate::http::caller::Caller;
use crate::http::connections::{Connection, Heard};
use crate::http::error::Problem;
use crate::http::privacy::busy;
use crate::http::state::App;
use crate::id::{Position, UserNo};
use crate::store::read;
use crate::store::record::Recipient;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;

/// Recipients told one by one, and devices of each.
const RECIPIENTS_TOLD: usize = 100;
const DEVICES_TOLD: usize = 20;

type Connections = Vec<(Arc<Connection>, bool)>;

pub async fn trace(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<JsonBody<Value>, Problem> {
    caller.must_administer()?;
    let id: EventId = id.parse()?;
    let event = app.watch.traces.find(&app.store, &id).await?;
    let event = event.ok_or_else(Problem::not_found)?;
    let commit = event.commit;
    let recipients = app
        .store
        .aside(move |rows| read::recipients(rows, commit))
        .await?;
    let mut told = of_event(&app, &event);
    told["recipient_count"] = recipients.len().into();
    told["recipients"] = of_recipients(&app, &event, &recipients).await?.into();
    Ok(JsonBody(told))
}

fn of_event(app: &App, event: &Event) -> Value {
    let written = app.store.written(event.commit);
    let unknown = written
        .is_none()
        .then_some("appended before the last start, or longer ago than the server remembers");
    json!({
        "id": event.id(),
        "type": event.event_type(),
        "topic": event.topic(),
        "time": rfc3339(event.time_ms),
        "commit": event.commit,
        "appended_at": written.map(|written| rfc3339(written.appended_ms)),
        "synced_at": written.map(|written| rfc3339(written.synced_ms)),
        "unknown": unknown,
    })
}

async fn of_recipients(
    app: &App,
    event: &Arc<Event>,
    recipients: &[Recipient],
) -> Result<Vec<Value>, Problem> {
    let told = &recipients[..recipients.len().min(RECIPIENTS_TOLD)];
    let users: BTreeSet<UserNo> = told.iter().map(|recipient| recipient.user).collect();
    let connections = app.connections.of_users(&users);
    let mut answers = Vec::with_capacity(told.len());
    for recipient in told {
        answers.push(of_recipient(app, event, *recipient, &connections).await?);
    }
    Ok(answers)
}

async fn of_recipient(
    app: &App,
    event: &Arc<Event>,
    Recipient { user, seq }: Recipient,
    connections: &Connections,
) -> Result<Value, Problem> {
    let told = Arc::clone(event);
    let (devices, read) = app
        .store
        .look(move |transaction| {
            let devices = ack::devices(transaction, user, None, DEVICES_TOLD)?;
            Ok((devices, is_read(transaction, &told, user)?))
        })
        .await?;
    let view = app.store.view(user);
    let position = Position {
        epoch: view.epoch,
        seq,
    };
    let of_user = connections.iter().filter(|(one, _)| one.user == user);
    let connections: Vec<Value> = of_user
        .map(|(connection, is_open)| of_connection(connection, *is_open, event, seq))
        .collect();
    Ok(json!({
        "user": app.store.name(user),
        "seq": seq,
        "cursor": position.to_string(),
        "retained": seq >= view.floor,
        "read": read,
        "connections": connections,
        "devices": devices.iter().map(|device| of_device(device, position)).collect::<Vec<_>>(),
    }))
}

/// Whether the user has read what the event brought; `None` where that is not known: it is neither a message nor a
/// notification, the user has left the conversation, or the inbox does not keep the notification any more.
fn is_read(
    transaction: &Transaction<'_>,
    event: &Event,
    user: UserNo,
) -> Result<Option<bool>, StoreError> {
    if event.event_type() == "notification.new" {
        let id = event.id().parse::<EventId>();
        return id.map_or(Ok(None), |id| inbox::is_read(transaction, user, &id));
    }
    let Some((conversation, n)) = message_of(event) else {
        return Ok(None);
    };
    let read_upto = conversation::read_upto(transaction, &conversation, user)?;
    Ok(read_upto.map(|upto| upto >= n))
}

/// Conversation and number of the message that an event brought.
fn message_of(event: &Event) -> Option<(ConversationId, u64)> {
    if event.event_type() != "message.new" {
        return None;
    }
    let text = [b"{".as_slice(), event.json()].concat();
    let json: Value = serde_json::from_slice(&text).ok()?;
    let conversation = ConversationId::of_topic(event.topic()?)?;
    Some((conversation, json["data"]["n"].as_u64()?))
}

/// What one connection knows: `written` is `true`, `false`, or `null` with the reason why nobody can tell.
fn of_connection(connection: &Connection, is_open: bool, event: &Event, seq: u64) -> Value {
    let is_own = event.exclude_conn.as_ref() == Some(&connection.id);
    let (written, at, why) = match connection.heard(seq) {
        _ if is_own => (
            Some(false),
            None,
            Some("it caused the event and is not told"),
        ),
        Heard::BeganAfter => (Some(false), None, Some("it began to read behind the event")),
        Heard::NotYet => (Some(false), None, Some("it has not come so far")),
        Heard::Written(time_ms) => (Some(true), Some(rfc3339(time_ms)), None),
        Heard::Passed if connection.is_filtered => (
            None,
            None,
            Some("it is past the event, which its filter may have hidden"),
        ),
        Heard::Passed => (
            Some(true),
            None,
            Some("written longer ago than the connection remembers"),
        ),
    };
    json!({
        "conn": connection.id,
        "transport": connection.transport.as_str(),
        "since": rfc3339(connection.since_ms),
        "open": is_open,
        "written": written,
        "written_at": at,
        "unknown": why,
    })
}

/// An ack says "everything up to here", so its time is that of the newest ack and not of this one event.
fn of_device(device: &ack::Device, position: Position) -> Value {
    let is_same = device.acked.epoch == position.epoch;
    let is_acked = is_same && device.acked.seq >= position.seq;
    json!({
        "device": device.name,
        "acked": is_acked,
        "acked_upto": device.acked.to_string(),
        "acked_upto_at": rfc3339(device.acked_ms),
    })
}

impl From<TraceError> for Problem {
    fn from(error: TraceError) -> Problem {
        match error {
            TraceError::Busy => busy("another search through the stored events is going on"),
            TraceError::GivenUp => {
                let message = "the search through the stored events took too long and was given up";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "search_given_up", message)
                    .retry_after(std::time::Duration::from_secs(60))
            }
            TraceError::Store(error) => error.into(),
        }
    }
}

//! Messages over HTTP, and what their WebSocket twins call: sent, read back, taken back, marked as read.
//!
//! Promises: a success means stable; `send` and `read` have one function each for both transports, so the checks, the
//! effects and the errors are the same.

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::openapi::HttpMethod::{Delete, Get, Post};

use crate::event::{ConversationId, EventId, Json, Key};
use crate::features::message::{self, Sending, Sent, Wanted};
use crate::features::receipts::{READ_IDS_MAX, Target};
use crate::http::body::StrictJson;
use crate::http::caller::Caller;
use crate::http::conversations::{REFUSALS, asker, limit, made, strict, written};
use crate::http::docs::Access::User;
use crate::http::docs::{Route, schemas};
use crate::http::error::Problem;
use crate::http::publish::{caller_key, idempotency_key, new_id};
use crate::http::state::App;
use crate::token::Claims;

const TAG: &str = "Messages";
/// Messages told in one page, and where no `limit` is given.
const PAGE_MAX: usize = 200;
const PAGE: usize = 50;

pub fn routes() -> Vec<Route> {
    vec![
        Route::new(TAG, User, (Post, "/v1/conversations/{id}/messages"), send)
            .says(
                "Send a message",
                "`client_id` and `Idempotency-Key` make a repeat harmless for 24 h.",
            )
            .takes::<schemas::SendMessage>()
            .gives::<schemas::Message>(201, "Sent; `message.new` is in every member's log.")
            .gives::<schemas::Message>(200, "A repeat: the first message, with `duplicate`.")
            .refuses(REFUSALS)
            .refuses("invalid_content invalid_key invalid_data event_too_large")
            .refuses("idempotency_mismatch"),
        Route::new(TAG, User, (Get, "/v1/conversations/{id}/messages"), history)
            .says(
                "History",
                "The newest page first; inside a page the oldest message first. A page is bounded in bytes too: \
                 `more` says whether there is another.",
            )
            .query(&[
                ("before", "Only messages with a smaller `n`."),
                ("after", "Only messages with a greater `n`, the oldest of them first."),
                ("limit", "1 to 200; default 50."),
            ])
            .gives::<schemas::History>(200, "A page.")
            .refuses(REFUSALS)
            .refuses("invalid_query"),
        Route::new(
            TAG,
            User,
            (Delete, "/v1/conversations/{id}/messages/{message}"),
            delete,
        )
        .says(
            "Take a message back",
            "Its sender may, and an administrator. A tombstone keeps its place; logs keep their `message.new` until \
             their retention takes it.",
        )
        .done(204, "Deleted; twice is once.")
        .refuses(REFUSALS)
        .refuses("invalid_id"),
        Route::new(TAG, User, (Post, "/v1/conversations/{id}/read"), read)
            .says(
                "Mark as read",
                "Moves the caller's read cursor forward, never back. Sending is not reading.",
            )
            .takes::<schemas::ReadMessages>()
            .gives::<schemas::ReadAnswer>(200, "Where the cursor stands now.")
            .refuses(REFUSALS)
            .refuses("invalid_read invalid_id too_many_ids ahead_of_head"),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    pub content: String,
    #[serde(default)]
    pub client_id: Option<String>,
    #[serde(default)]
    pub data: Option<Box<RawValue>>,
}

pub async fn send(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    StrictJson(request): StrictJson<Send>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    let sent = send_of(&app, &caller.claims, &id, key, request).await?;
    Ok(made(sent.json, !sent.is_duplicate))
}

/// Sends a message, over HTTP and on sockets alike.
pub async fn send_of(
    app: &App,
    claims: &Claims,
    conversation: &str,
    key: Option<Key>,
    request: Send,
) -> Result<Sent, Problem> {
    let sending = Sending {
        id: new_id(app, app.clock.now_ms()),
        conversation: conversation.parse()?,
        content: request.content.parse()?,
        client_id: request.client_id.as_deref().map(str::parse).transpose()?,
        data: request.data.as_deref().map(Json::checked).transpose()?,
        key: key.map(|key| caller_key(&claims.sub, &key, "")),
        bytes_max: app.config.limits.event_bytes,
    };
    let mut sent = message::send(&app.store, &app.random, asker(claims), sending).await?;
    after_message(app, &mut sent);
    Ok(sent)
}

/// What a new message brings with it once it is stable. Whoever has sent one has stopped typing it.
fn after_message(app: &App, sent: &mut Sent) {
    if sent.is_duplicate {
        app.metrics.duplicates.inc();
    }
    app.badges.changed(std::mem::take(&mut sent.others));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    #[serde(default)]
    before: Option<u64>,
    #[serde(default)]
    after: Option<u64>,
    #[serde(default)]
    limit: Option<usize>,
}

pub async fn history(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
    caller: Caller,
) -> Result<Response, Problem> {
    let id: ConversationId = id.parse()?;
    let query = strict(query)?;
    let wanted = Wanted {
        before: query.before,
        after: query.after,
        limit: limit(query.limit, PAGE, PAGE_MAX)? as u64,
    };
    let page = message::history(&app.store, asker(&caller.claims), id, wanted).await?;
    Ok(written(StatusCode::OK, page))
}

pub async fn delete(
    State(app): State<Arc<App>>,
    Path((id, message)): Path<(String, String)>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    let (id, message): (ConversationId, EventId) = (id.parse()?, message.parse()?);
    message::delete(&app.store, &app.random, asker(&caller.claims), id, message).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    #[serde(default)]
    pub upto: Option<u64>,
    #[serde(default)]
    pub message_ids: Option<Vec<String>>,
}

pub async fn read(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
    StrictJson(request): StrictJson<Read>,
) -> Result<JsonBody<Value>, Problem> {
    Ok(JsonBody(read_of(&app, &caller.claims, &id, request).await?))
}

/// Moves the reader's cursor, over HTTP and on sockets alike.
pub async fn read_of(
    app: &App,
    claims: &Claims,
    conversation: &str,
    request: Read,
) -> Result<Value, Problem> {
    let id: ConversationId = conversation.parse()?;
    let target = request.target()?;
    let (store, random) = (&app.store, &app.random);
    let reading = app
        .receipts
        .read(store, random, asker(claims), id.clone(), target)
        .await?;
    app.badges.changed([reading.reader]);
    Ok(json!({ "conversation_id": id, "upto": reading.upto, "unread": reading.unread }))
}

impl Read {
    fn target(self) -> Result<Target, Problem> {
        match (self.upto, self.message_ids) {
            (Some(upto), None) => Ok(Target::Upto(upto)),
            (None, Some(ids)) if ids.len() > READ_IDS_MAX => Err(Problem::bad_request(
                "too_many_ids",
                "message_ids holds at most 1000 ids",
            )),
            (None, Some(ids)) if !ids.is_empty() => {
                let ids: Result<Vec<EventId>, _> = ids.iter().map(|id| id.parse()).collect();
                Ok(Target::Messages(ids?))
            }
            _ => Err(Problem::bad_request(
                "invalid_read",
                "name either upto or message_ids",
            )),
        }
    }
}

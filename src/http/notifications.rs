//! `GET /v1/notifications` and `POST /v1/notifications/read`: the caller's own inbox.
//!
//! Promises: a page and its unread count are of one moment; what is read here is read on every device. Queries and
//! bodies are read strictly.

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::event::EventId;
use crate::features::inbox::{self, Ask};
use crate::features::notification::{READ_IDS_MAX, Read};
use crate::http::body::StrictJson;
use crate::http::caller::Caller;
use crate::http::error::Problem;
use crate::http::events::flag;
use crate::http::state::App;

const LIMIT_MAX: usize = 200;
const LIMIT: usize = 50;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    unread: String,
    before: String,
    limit: String,
}

pub async fn list(
    State(app): State<Arc<App>>,
    query: Result<Query<ListQuery>, QueryRejection>,
    caller: Caller,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| invalid(&rejection.body_text()))?;
    let ask = query.ask()?;
    let user = app.store.log(caller.user()).await?;
    let page = app
        .store
        .look(move |transaction| inbox::page(transaction, user, &ask))
        .await?
        .ok_or_else(Problem::not_found)?;
    let told = json!({
        "notifications": page.notifications, "unread": page.unread, "more": page.is_more,
    });
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((headers, JsonBody(told)).into_response())
}

impl ListQuery {
    fn ask(&self) -> Result<Ask, Problem> {
        let before = match self.before.as_str() {
            "" => None,
            text => Some(text.parse::<EventId>()?),
        };
        let limit = match self.limit.as_str() {
            "" => LIMIT,
            text => text
                .parse()
                .ok()
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(|| invalid("limit is 1 to 200"))?,
        };
        Ok(Ask {
            is_unread_only: flag("unread", &self.unread)?,
            before,
            limit,
        })
    }
}

fn invalid(message: &str) -> Problem {
    Problem::bad_request("invalid_query", message)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadBody {
    #[serde(default)]
    ids: Option<Vec<EventId>>,
    #[serde(default)]
    all: bool,
}

pub async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    StrictJson(body): StrictJson<ReadBody>,
) -> Result<JsonBody<Value>, Problem> {
    let read = match (body.ids, body.all) {
        (Some(ids), false) if ids.len() > READ_IDS_MAX => {
            let message = "one request marks at most 1000 ids; \"all\":true marks everything";
            return Err(Problem::bad_request("too_many_ids", message));
        }
        (Some(ids), false) => Read::These(ids),
        (None, true) => Read::All,
        _ => {
            let message = "name either ids or \"all\":true";
            return Err(Problem::bad_request("invalid_read", message));
        }
    };
    let user = app.store.log(caller.user()).await?;
    let unread = app.notifications.read(&app.store, user, read).await?;
    Ok(JsonBody(json!({ "unread": unread })))
}

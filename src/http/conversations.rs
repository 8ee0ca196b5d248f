//! Conversations over HTTP: made, listed, renamed, and who is in them.
//!
//! Promises: a success means stable; to whoever is not in a conversation it does not exist; long lists come in pages,
//! and `next` says how to ask for the one that follows.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::openapi::HttpMethod::{Delete, Get, Patch, Post, Put};

use crate::event::{ConversationId, UserId};
use crate::features::conversation::asker::{Asker, ConversationError};
use crate::features::conversation::list::{self, ListPlace};
use crate::features::conversation::{self, Creation, Name};
use crate::http::body::StrictJson;
use crate::http::caller::Caller;
use crate::http::docs::Access::User;
use crate::http::docs::{Route, schemas};
use crate::http::error::Problem;
use crate::http::publish::{caller_key, idempotency_key, new_id};
use crate::http::state::App;
use crate::token::Claims;

const TAG: &str = "Conversations";
/// What is refused wherever a conversation is named.
pub const REFUSALS: &str = "invalid_conversation_id not_found";
/// Conversations told in one page, and where no `limit` is given.
const PAGE_MAX: usize = 200;
const PAGE: usize = 50;
/// Members told in one page.
const MEMBERS_PAGE: usize = 1_000;

pub fn routes() -> Vec<Route> {
    vec![
        Route::new(TAG, User, (Post, "/v1/conversations"), create)
            .says(
                "Make a conversation",
                "Two members and no name: the 1:1 that there is, or a new one. Else a new group. A user is always a \
                 member of what it makes; a backend makes it of exactly those it names.",
            )
            .takes::<schemas::CreateConversation>()
            .gives::<schemas::Conversation>(201, "Made; `conversation.new` is in every member's log.")
            .gives::<schemas::Conversation>(200, "There was one already.")
            .refuses("invalid_members invalid_user_id invalid_name invalid_key")
            .refuses("too_many_conversations idempotency_mismatch not_found"),
        Route::new(TAG, User, (Get, "/v1/conversations"), list)
            .says("One's conversations", "Those with the newest activity first, in pages.")
            .query(&[
                ("before", "`next` of the page before."),
                ("limit", "1 to 200; default 50."),
            ])
            .gives::<schemas::Conversations>(200, "A page.")
            .refuses("invalid_query"),
        Route::new(TAG, User, (Get, "/v1/conversations/{id}"), get)
            .says("One conversation", "As its caller sees it.")
            .gives::<schemas::Conversation>(200, "With its newest message.")
            .refuses(REFUSALS),
        Route::new(TAG, User, (Patch, "/v1/conversations/{id}"), rename)
            .says("Rename a group", "Any member may; all hear of it by `conversation.updated`.")
            .takes::<schemas::RenameConversation>()
            .gives::<schemas::Conversation>(200, "With its new name.")
            .refuses(REFUSALS)
            .refuses("invalid_name direct_conversation"),
        Route::new(TAG, User, (Get, "/v1/conversations/{id}/members"), members)
            .says("Members of a conversation", "In pages of 1000.")
            .query(&[("after", "`next` of the page before.")])
            .gives::<schemas::Members>(200, "A page.")
            .refuses(REFUSALS)
            .refuses("invalid_query invalid_user_id"),
        Route::new(TAG, User, (Put, "/v1/conversations/{id}/members/{user}"), join)
            .says(
                "Take a user into a group",
                "Any member may. Who comes later reads the whole history and has nothing unread.",
            )
            .done(204, "A member; twice is once.")
            .refuses(REFUSALS)
            .refuses("invalid_user_id direct_conversation conversation_full")
            .refuses("too_many_conversations"),
        Route::new(TAG, User, (Delete, "/v1/conversations/{id}/members/{user}"), leave)
            .says(
                "Leave a group, or take someone out",
                "Oneself always; others where the caller made the group or has the scope publish.",
            )
            .done(204, "No member.")
            .refuses(REFUSALS)
            .refuses("invalid_user_id direct_conversation"),
    ]
}

pub fn asker(claims: &Claims) -> Asker {
    Asker {
        user: claims.sub.clone(),
        scope: claims.scope,
    }
}

impl From<ConversationError> for Problem {
    fn from(error: ConversationError) -> Problem {
        let conflict = |code| Problem::new(StatusCode::CONFLICT, code, error.to_string());
        match error {
            // Nobody learns from a refusal whether there is such a conversation.
            ConversationError::Unknown | ConversationError::UnknownMessage => Problem::not_found(),
            ConversationError::Direct => conflict("direct_conversation"),
            ConversationError::Full => conflict("conversation_full"),
            ConversationError::TooMany => conflict("too_many_conversations"),
            ConversationError::AheadOfHead => conflict("ahead_of_head"),
            ConversationError::NotTheCreator | ConversationError::NotTheSender => {
                Problem::forbidden(error.to_string())
            }
            ConversationError::TooLarge => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "event_too_large",
                error.to_string(),
            ),
            ConversationError::Mismatch => crate::publish::PublishError::Mismatch.into(),
            ConversationError::Store(error) => error.into(),
        }
    }
}

/// JSON that a feature has written already.
pub fn written(status: StatusCode, json: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, json).into_response()
}

/// 201 for what is new, 200 for what was there already.
pub fn made(json: String, is_new: bool) -> Response {
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    written(status, json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    members: Vec<String>,
    #[serde(default)]
    name: Option<String>,
}

pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    StrictJson(request): StrictJson<Create>,
) -> Result<Response, Problem> {
    let asker = asker(&caller.claims);
    let now_ms = app.clock.now_ms();
    let id = new_id(&app, now_ms).as_str().parse()?;
    let key = idempotency_key(&headers)?;
    let creation = Creation {
        id,
        members: members_of(&app, &asker, &request.members)?,
        name: request.name.as_deref().map(str::parse).transpose()?,
        keys: key
            .map(|key| caller_key(&asker.user, &key, ""))
            .into_iter()
            .collect(),
    };
    app.receipts.expect_messages();
    let made_of = conversation::create(&app.store, &app.random, asker, creation).await?;
    Ok(made(made_of.0, made_of.1))
}

/// A user makes conversations that it is in itself; a backend makes them of exactly those it names.
fn members_of(app: &App, asker: &Asker, names: &[String]) -> Result<BTreeSet<UserId>, Problem> {
    let max = app.config.limits.recipients;
    let refused = |message: &str| Err(Problem::bad_request("invalid_members", message));
    if names.len() > max {
        return refused("more members than limits.recipients");
    }
    let named = names.iter().map(|name| name.parse::<UserId>());
    let mut members = named.collect::<Result<BTreeSet<_>, _>>()?;
    if !asker.scope.may_publish() {
        members.insert(asker.user.clone());
    }
    match members.len() {
        0 | 1 => refused("a conversation has at least two different members"),
        count if count > max => refused("more members than limits.recipients"),
        _ => Ok(members),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    #[serde(default)]
    before: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
}

pub fn strict<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(Problem::bad_request("invalid_query", rejection.body_text())),
    }
}

/// `limit`, or what is usual where none is given.
pub fn limit(given: Option<usize>, usual: usize, max: usize) -> Result<usize, Problem> {
    match given.unwrap_or(usual) {
        limit if (1..=max).contains(&limit) => Ok(limit),
        _ => {
            let message = format!("limit is 1 to {max}");
            Err(Problem::bad_request("invalid_query", message))
        }
    }
}

/// The caller's conversations, those with the newest activity first.
pub async fn list(
    State(app): State<Arc<App>>,
    query: Result<Query<ListQuery>, QueryRejection>,
    caller: Caller,
) -> Result<Response, Problem> {
    let query = strict(query)?;
    let limit = limit(query.limit, PAGE, PAGE_MAX)?;
    let before = query.before.as_deref().map(parse_place).transpose()?;
    let Some(user) = app.store.find(caller.user()) else {
        return Ok(written(
            StatusCode::OK,
            r#"{"conversations":[],"next":null}"#.to_owned(),
        ));
    };
    let (told, next) = app
        .store
        .look(move |transaction| list::of_user(transaction, user, before, limit))
        .await?;
    let next = next.map(|place| format!("{}-{}", place.updated_ms, place.id));
    let json = format!(
        r#"{{"conversations":[{}],"next":{}}}"#,
        told.join(","),
        json!(next)
    );
    Ok(written(StatusCode::OK, json))
}

fn parse_place(text: &str) -> Result<ListPlace, Problem> {
    let refused = || Problem::bad_request("invalid_query", "before is what `next` said");
    let (updated_ms, id) = text.split_once('-').ok_or_else(refused)?;
    Ok(ListPlace {
        updated_ms: updated_ms.parse().map_err(|_| refused())?,
        id: id.parse().map_err(|_| refused())?,
    })
}

pub async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Response, Problem> {
    let id: ConversationId = id.parse()?;
    let told = list::get(&app.store, asker(&caller.claims), id).await?;
    Ok(written(StatusCode::OK, told))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    name: String,
}

pub async fn rename(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
    StrictJson(request): StrictJson<Rename>,
) -> Result<Response, Problem> {
    let id: ConversationId = id.parse()?;
    let name: Name = request.name.parse()?;
    let asker = asker(&caller.claims);
    let told = conversation::rename(&app.store, &app.random, asker, id, name).await?;
    Ok(written(StatusCode::OK, told))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MembersQuery {
    #[serde(default)]
    after: Option<String>,
}

/// A page of members; `next` names the last of a full page.
pub async fn members(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Result<Query<MembersQuery>, QueryRejection>,
    caller: Caller,
) -> Result<JsonBody<Value>, Problem> {
    let id: ConversationId = id.parse()?;
    let after: Option<UserId> = strict(query)?
        .after
        .as_deref()
        .map(str::parse)
        .transpose()?;
    let after = after.map(|after| app.store.find(&after).ok_or_else(Problem::not_found));
    let (asker, after) = (asker(&caller.claims), after.transpose()?);
    let names = list::members_page(&app.store, asker, id, after, MEMBERS_PAGE).await?;
    let next = names.last().filter(|_| names.len() == MEMBERS_PAGE);
    Ok(JsonBody(json!({ "members": names, "next": next })))
}

pub async fn join(
    State(app): State<Arc<App>>,
    Path((id, user)): Path<(String, String)>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    let (id, user): (ConversationId, UserId) = (id.parse()?, user.parse()?);
    let (asker, max) = (asker(&caller.claims), app.config.limits.recipients);
    conversation::join(&app.store, &app.random, asker, id, user, max).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn leave(
    State(app): State<Arc<App>>,
    Path((id, user)): Path<(String, String)>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    let (id, user): (ConversationId, UserId) = (id.parse()?, user.parse()?);
    let asker = asker(&caller.claims);
    conversation::leave(&app.store, &app.random, asker, id, user.clone()).await?;
    // What was unread there is not unread any more.
    app.badges.changed(app.store.find(&user));
    Ok(StatusCode::NO_CONTENT)
}

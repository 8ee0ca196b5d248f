//! `PUT` and `GET /v1/presence`, the op `presence`, and the picture that a reader gets when it connects.
//!
//! Promises: what was set by hand is stable when it is answered; whom the caller may not see looks exactly like a user
//! who does not exist. The rules are in `features`.

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::openapi::HttpMethod::{Get, Put};

use crate::event::{ConnId, Signal, UserId};
use crate::features::person::{Activity, Said, Status};
use crate::features::picture::{self, Viewer};
use crate::features::preferences::Preferences;
use crate::http::body::StrictJson;
use crate::http::caller::Caller;
use crate::http::docs::Access::User;
use crate::http::docs::{Route, schemas};
use crate::http::error::Problem;
use crate::http::state::App;
use crate::id::UserNo;
use crate::store::shared::StoreError;
use crate::token::Claims;

/// Users asked for in one call.
const USERS_MAX: usize = 200;

pub fn routes() -> Vec<Route> {
    vec![
        Route::new("Presence", User, (Put, "/v1/presence"), put)
            .says(
                "Say how one is",
                "By hand, until `auto`; with `conn` only for that connection, of which the most available counts. Who \
                 says so without a connection is here for `presence.offline_after_seconds`.",
            )
            .takes::<schemas::SetPresence>()
            .gives::<schemas::OwnPresence>(200, "As the caller sees itself.")
            .refuses("invalid_status invalid_activity not_found"),
        Route::new("Presence", User, (Get, "/v1/presence"), get)
            .says(
                "How others are",
                "Those who share a conversation of at most 256 members, or whose `presence:<user>` the caller is \
                 subscribed to; with `publish` anyone. All others look like users who do not exist, as do the hidden.",
            )
            .query(&[("users", "User ids with commas, at most 200.")])
            .gives::<schemas::Presences>(200, "One entry for each user asked for.")
            .refuses("invalid_query invalid_user_id too_many_users"),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub status: String,
    #[serde(default)]
    pub activity: Option<String>,
    /// The caller's connection of which this is the own state; without it the state is set by hand.
    #[serde(default)]
    pub conn: Option<String>,
}

pub async fn put(
    State(app): State<Arc<App>>,
    caller: Caller,
    StrictJson(change): StrictJson<Change>,
) -> Result<JsonBody<Value>, Problem> {
    Ok(JsonBody(put_of(&app, &caller.claims, change).await?))
}

/// Sets the caller's presence, over HTTP and on sockets alike; gives it as the caller sees itself.
pub async fn put_of(app: &App, claims: &Claims, change: Change) -> Result<Value, Problem> {
    let said = said(&change)?;
    let user = app.store.log(&claims.sub).await?;
    match change.conn {
        None => app.presence.say_by_hand(&app.store, user, said).await?,
        Some(conn) => say(app, user, &conn, said)?,
    }
    let presence = app.presence.clone();
    let own = app
        .store
        .look(move |transaction| presence.own(transaction, user));
    let own = own.await?;
    let mut told = own.to_json();
    told["user"] = json!(own.user);
    Ok(told)
}

fn said(change: &Change) -> Result<Said, Problem> {
    let status = match change.status.as_str() {
        "online" => Some(Status::Online),
        "away" => Some(Status::Away),
        "busy" => Some(Status::Busy),
        "offline" => Some(Status::Offline),
        "auto" => None,
        _ => {
            let message = "status is online, away, busy, offline or auto";
            return Err(Problem::bad_request("invalid_status", message));
        }
    };
    let activity = change.activity.as_deref().filter(|text| !text.is_empty());
    let activity: Option<Activity> = activity.map(str::parse).transpose()?;
    Ok(Said { status, activity })
}

/// Sets what one open connection of the user says.
fn say(app: &App, user: UserNo, conn: &str, said: Said) -> Result<(), Problem> {
    let conn: ConnId = conn.parse().map_err(|_| Problem::not_found())?;
    let is_own = || {
        let found = app.connections.find(&conn);
        found.is_some_and(|connection| connection.user == user)
    };
    if !is_own() {
        return Err(Problem::not_found());
    }
    app.presence.say(user, conn.clone(), said);
    // One that ended meanwhile says nothing any more.
    if !is_own() {
        app.presence.say(user, conn, Said::default());
        return Err(Problem::not_found());
    }
    Ok(())
}

#[derive(Deserialize)]
pub struct Asked {
    users: String,
}

pub async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let names = names(query)?;
    let viewer = Viewer {
        user: app.store.find(caller.user()),
        sees_all: caller.claims.scope.may_publish(),
    };
    let presence = app.presence.clone();
    let look = app
        .store
        .look(move |transaction| presence.seen_by(transaction, viewer, names));
    let seen = look.await?;
    let headers = [(header::CACHE_CONTROL, "no-store")];
    let told = json!({ "presence": picture::by_user(&seen) });
    Ok((headers, JsonBody(told)).into_response())
}

fn names(query: Result<Query<Asked>, QueryRejection>) -> Result<Vec<UserId>, Problem> {
    let refused = |message: String| Problem::bad_request("invalid_query", message);
    let Query(asked) = query.map_err(|rejection| refused(rejection.body_text()))?;
    let names: Vec<&str> = asked.users.split(',').collect();
    if names.len() > USERS_MAX {
        let message = "at most 200 users can be asked for in one call";
        return Err(Problem::bad_request("too_many_users", message));
    }
    let names = names.into_iter().map(|name| name.trim().parse());
    Ok(names.collect::<Result<Vec<UserId>, _>>()?)
}

/// The user chose who sees it and its typing: it counts from the answer on. Call it after the commit of the choice.
pub fn chosen(app: &App, user: &UserId, preferences: &Preferences) {
    let Some(user) = app.store.find(user) else {
        return;
    };
    app.presence.choose(user, !preferences.presence_visible);
    if !preferences.typing_visible {
        app.typing.gone(user);
    }
}

/// What a reader that connects is told of others: how they are, and who types.
pub async fn picture(app: &App, user: UserNo) -> Result<Vec<Signal>, StoreError> {
    if app.presence.is_plain(user) {
        return Ok(Vec::new());
    }
    let (presence, typing) = (app.presence.clone(), app.typing.clone());
    let look = app.store.look(move |transaction| {
        let people = presence.picture(transaction, user)?;
        Ok((people, typing.picture(transaction, user)?))
    });
    let (people, typists) = look.await?;
    let now_ms = app.clock.now_ms();
    let people = people
        .iter()
        .map(|pictured| pictured.signal(&app.random, now_ms));
    let typists = typists.iter().map(|told| told.signal(&app.random, now_ms));
    Ok(people.chain(typists).collect())
}

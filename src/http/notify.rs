//! `POST /v1/users/{user}/notify`: one notification, as JSON or as the plain text that `curl -d` sends.
//!
//! Promises: lengths are bounded, links are the web's own schemes or a path, and a repeat with an Idempotency-Key
//! adds nothing. Whether it is told at once, gathered or muted is decided by `features/notification`.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::event::{Actor, Draft, Event, Invalid, Json, UserId};
use crate::features::inbox::{Kind, Notification};
use crate::features::notification;
use crate::http::body::{Whole, media_type, not_utf8, unsupported};
use crate::http::caller::Caller;
use crate::http::error::Problem;
use crate::http::publish::{Request, idempotency_key, invalid_json, new_id};
use crate::http::receipt::{reply, told};
use crate::http::state::App;
use crate::publish::{Audience, fingerprint};

/// A notification as a backend writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Notice<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    title: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    body: Cow<'a, str>,
    #[serde(borrow, default)]
    link: Option<Cow<'a, str>>,
    #[serde(default)]
    actor: Option<Actor>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

const KIND_OF_TEXT: &str = "announcement";
const TITLE_CHARS_MAX: usize = 200;
const BODY_CHARS_MAX: usize = 8_000;
const LINK_CHARS_MAX: usize = 2_000;

pub async fn notify(
    State(app): State<Arc<App>>,
    Path(user): Path<String>,
    caller: Caller,
    Whole { headers, body }: Whole,
) -> Result<axum::response::Response, Problem> {
    caller.must_publish()?;
    let user: UserId = user.parse()?;
    let body = body?;
    let text = std::str::from_utf8(&body).map_err(|_| not_utf8())?;
    let notice: Notice<'_> = match &*media_type(&headers) {
        "application/json" => serde_json::from_str(text).map_err(|error| invalid_json(&error))?,
        // What `curl -d` says of a plain text.
        "text/plain" | "application/x-www-form-urlencoded" | "" => Notice::of_text(text),
        _ => return Err(unsupported("text/plain or application/json")),
    };
    let request = Request {
        app: &app,
        caller: caller.user(),
        idempotency_key: idempotency_key(&headers)?,
    };
    notice.send(&request, user).await
}

/// A notification that is JSON, for a caller that was let in already.
pub async fn send(
    request: &Request<'_>,
    user: UserId,
    text: &str,
) -> Result<axum::response::Response, Problem> {
    let notice: Notice<'_> = serde_json::from_str(text).map_err(|error| invalid_json(&error))?;
    notice.send(request, user).await
}

impl<'a> Notice<'a> {
    async fn send(
        &self,
        request: &Request<'_>,
        user: UserId,
    ) -> Result<axum::response::Response, Problem> {
        request.pace(1)?;
        let notice = self.checked(request, user)?;
        let app = request.app;
        let receipt = app.notifications.notify(&app.store, notice).await?;
        request.count(&receipt);
        Ok(reply(StatusCode::CREATED, told(&receipt)))
    }

    fn of_text(text: &'a str) -> Notice<'a> {
        let body = Cow::Borrowed(text.trim_end_matches(['\r', '\n']));
        Notice {
            kind: KIND_OF_TEXT.into(),
            title: None,
            body,
            link: None,
            actor: None,
            data: None,
        }
    }

    fn checked(
        &self,
        request: &Request<'_>,
        user: UserId,
    ) -> Result<notification::Notice, Problem> {
        let kind: Kind = self.kind.parse()?;
        self.check()?;
        let time_ms = request.app.clock.now_ms();
        let id = new_id(request.app, time_ms);
        let mut data = json!({
            "kind": self.kind, "title": self.title, "body": self.body, "link": self.link,
            "actor": self.actor, "read": false,
        });
        if let Some(given) = self.data.map(Json::checked).transpose()? {
            data["data"] =
                serde_json::from_str(given.as_str()).map_err(|error| invalid_json(&error))?;
        }
        // A repeat has another id of its own, so the fingerprint is taken without it.
        let mut draft = Draft {
            id: id.clone(),
            event_type: "notification.new".parse().expect("a valid type"),
            time_ms,
            topic: None,
            actor: self.actor.clone(),
            data: Json::of(&data),
            exclude_conn: None,
        };
        request.check_size(&draft.data)?;
        let fingerprint = fingerprint(&draft, &Audience::User(user.clone()), None, None);
        data["id"] = id.as_str().into();
        draft.data = Json::of(&data);
        Ok(notification::Notice {
            to: user,
            notification: Notification::new(id, kind, time_ms, data),
            event: Event::of(&draft),
            keys: request.keys(None, None),
            fingerprint,
        })
    }

    fn check(&self) -> Result<(), Invalid> {
        let refused = |message: &str| Err(Invalid::new("invalid_notification", message));
        if self.body.is_empty() && self.title.is_none() {
            return refused("a notification needs a body or a title");
        }
        if self.body.chars().count() > BODY_CHARS_MAX {
            return refused("body is at most 8000 characters");
        }
        if self
            .title
            .as_ref()
            .is_some_and(|title| title.chars().count() > TITLE_CHARS_MAX)
        {
            return refused("title is at most 200 characters");
        }
        match &self.link {
            Some(link) if link.len() > LINK_CHARS_MAX || !is_link(link) => {
                refused("link must begin with https://, http:// or /, at most 2000 characters")
            }
            _ => Ok(()),
        }
    }
}

/// Pages show links: nothing but the web's own schemes, or a path on the same site.
fn is_link(link: &str) -> bool {
    let is_path = link.starts_with('/') && !link.starts_with("//");
    let is_web = link.starts_with("https://") || link.starts_with("http://");
    (is_path || is_web) && !link.chars().any(char::is_control)
}

//! `POST /v1/publish`: from a request's bytes to publications.
//!
//! Promises: an item is read strictly, unknown fields are refused; a batch gives one result or error per item, in
//! order; an atomic one that has a fault changes nothing. Payloads become JSON bytes here, once.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::{
    Actor, ConnId, Draft, Event, EventId, EventType, Invalid, Json, Key, Signal, UserId,
};
use crate::features::{entity, feed};
use crate::http::body::{Whole, media_type, not_utf8, unsupported};
use crate::http::caller::Caller;
use crate::http::error::{ItemError, Problem};
use crate::http::receipt::{refused, reply, reply_to_batch, told};
use crate::http::state::App;
use crate::publish::{self, Audience, BatchError, Decision, Publication, Receipt, fingerprint};
use crate::store::keys;

/// Events in one request with `events`.
const BATCH_EVENTS_MAX: usize = 500;
/// Events of a request that are under way at once.
const UNDER_WAY: usize = 256;
const TTL_SECONDS_MAX: f64 = 86_400.0;
pub static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    to: To<'a>,
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    topic: Option<Cow<'a, str>>,
    #[serde(default)]
    actor: Option<Actor>,
    #[serde(default)]
    ephemeral: bool,
    /// Seconds after which an ephemeral event need not be told any more.
    #[serde(default)]
    ttl: Option<f64>,
    #[serde(borrow, default)]
    collapse_key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    exclude_conn: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum To<'a> {
    User(#[serde(borrow)] Cow<'a, str>),
    Users(#[serde(borrow)] Vec<Cow<'a, str>>),
    Topic(#[serde(borrow)] Cow<'a, str>),
    Conversation(#[serde(borrow)] Cow<'a, str>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    #[serde(default)]
    atomic: bool,
}

/// One item, checked: it goes into logs, or to open connections only.
enum Checked {
    Durable {
        bytes: usize,
        decide: Decision,
    },
    Ephemeral {
        to: Audience,
        id: EventId,
        time_ms: u64,
        signal: Box<Signal>,
    },
}

/// What all items of a request have in common.
pub struct Request<'a> {
    pub app: &'a App,
    pub caller: &'a UserId,
    pub idempotency_key: Option<Key>,
}

pub async fn publish(
    State(app): State<Arc<App>>,
    caller: Caller,
    Whole { headers, body }: Whole,
) -> Result<axum::response::Response, Problem> {
    caller.must_publish()?;
    let body = body?;
    let text = std::str::from_utf8(&body).map_err(|_| not_utf8())?;
    let request = Request {
        app: &app,
        caller: caller.user(),
        idempotency_key: idempotency_key(&headers)?,
    };
    let started = tokio::time::Instant::now();
    let response = match &*media_type(&headers) {
        "application/json" | "" => request.json(text).await,
        "application/x-ndjson" => request.lines(text).await,
        _ => Err(unsupported("application/json or application/x-ndjson")),
    };
    app.metrics
        .publish_seconds
        .observe(started.elapsed().as_secs_f64());
    response
}

pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<Key>, Problem> {
    let Some(value) = headers.get(&IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let refused = || {
        Problem::bad_request(
            "invalid_key",
            "Idempotency-Key must be 1 to 128 printable characters",
        )
    };
    let text = value.to_str().map_err(|_| refused())?;
    text.trim_matches('"')
        .parse()
        .map(Some)
        .map_err(|_| refused())
}

/// The hash under which an Idempotency-Key is known, to its caller alone; `place` names an item of a batch.
pub fn caller_key(caller: &UserId, key: &Key, place: &str) -> [u8; 16] {
    keys::hash(&[
        b"key",
        caller.as_str().as_bytes(),
        key.as_str().as_bytes(),
        place.as_bytes(),
    ])
}

pub fn invalid_json(error: &serde_json::Error) -> Problem {
    // A fault that a field's own rule told keeps its words; serde adds where it is.
    Problem::bad_request(
        "invalid_json",
        format!("the body is not what this call takes: {error}"),
    )
}

impl Request<'_> {
    pub async fn json(&self, text: &str) -> Result<axum::response::Response, Problem> {
        if is_batch(text) {
            let batch: Batch<'_> =
                serde_json::from_str(text).map_err(|error| invalid_json(&error))?;
            return match batch.events.len() {
                0 => Err(Problem::bad_request("empty_batch", "events is empty")),
                1..=BATCH_EVENTS_MAX if batch.atomic => self.together(&batch.events).await,
                1..=BATCH_EVENTS_MAX => {
                    let items: Vec<&str> = batch.events.iter().map(|item| item.get()).collect();
                    self.each(&items).await
                }
                _ => Err(Problem::bad_request(
                    "too_many_events",
                    "a batch holds at most 500 events",
                )),
            };
        }
        self.pace(1)?;
        let checked = self.check(text, None)?;
        let receipt = self.send(checked).await?;
        Ok(reply(StatusCode::CREATED, told(&receipt)))
    }

    async fn lines(&self, text: &str) -> Result<axum::response::Response, Problem> {
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        match lines.is_empty() {
            true => Err(Problem::bad_request(
                "empty_batch",
                "the body holds no line",
            )),
            false => self.each(&lines).await,
        }
    }

    pub fn pace(&self, events: usize) -> Result<(), Problem> {
        let events = u32::try_from(events)
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MIN);
        self.app
            .limits
            .publish(events)
            .map_err(Problem::rate_limited)
    }

    /// One result or error for each item; the commits of many share a sync.
    async fn each(&self, items: &[&str]) -> Result<axum::response::Response, Problem> {
        use futures_util::StreamExt;
        self.pace(items.len())?;
        let mut sent = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            sent.push(self.one(index, item));
        }
        // Without tokio's budget: it would let later items reach the committer before earlier ones.
        let results = futures_util::stream::iter(sent).buffered(UNDER_WAY);
        let results: Vec<String> = tokio::task::unconstrained(results.collect()).await;
        Ok(reply_to_batch(&results))
    }

    async fn one(&self, index: usize, item: &str) -> String {
        let receipt = match self.check(item, Some(index)) {
            Ok(checked) => self.send(checked).await,
            Err(problem) => Err(problem),
        };
        receipt.map_or_else(|problem| refused(&problem), |receipt| told(&receipt))
    }

    /// All items or none.
    async fn together(&self, items: &[&RawValue]) -> Result<axum::response::Response, Problem> {
        self.pace(items.len())?;
        let (mut decisions, mut all_bytes) = (Vec::new(), 0);
        let mut errors = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match self.check(item.get(), Some(index)) {
                Ok(Checked::Durable { bytes, decide }) => {
                    all_bytes += bytes;
                    decisions.push(decide);
                }
                Ok(Checked::Ephemeral { .. }) => {
                    let message = "an ephemeral event cannot be part of an atomic batch".to_owned();
                    errors.push(ItemError {
                        index,
                        code: "invalid_event",
                        message,
                    });
                }
                Err(problem) => errors.push(ItemError {
                    index,
                    code: problem.code,
                    message: problem.message.clone(),
                }),
            }
        }
        if !errors.is_empty() {
            let problem = Problem::bad_request(
                "invalid_batch",
                "nothing was stored: some events are at fault",
            );
            return Err(problem.with_errors(errors));
        }
        match publish::publish_together(&self.app.store, all_bytes, decisions).await {
            Ok(receipts) => {
                let results: Vec<String> = receipts.iter().map(told).collect();
                Ok(reply_to_batch(&results))
            }
            Err(BatchError { index, error }) => {
                let problem = Problem::from(error);
                let fault = |index| ItemError {
                    index,
                    code: problem.code,
                    message: problem.message.clone(),
                };
                let errors = index.map(fault).into_iter().collect();
                Err(problem.clone().with_errors(errors))
            }
        }
    }

    fn check(&self, text: &str, index: Option<usize>) -> Result<Checked, Problem> {
        let item: Item<'_> = serde_json::from_str(text).map_err(|error| invalid_json(&error))?;
        let to = self.audience(&item.to)?;
        let topic = match (&item.topic, &to) {
            (Some(topic), _) => Some(topic.parse()?),
            (None, Audience::Topic(topic)) => Some(topic.clone()),
            (None, Audience::Conversation(conversation)) => Some(conversation.topic()),
            (None, _) => None,
        };
        let data = item
            .data
            .map(Json::checked)
            .transpose()?
            .unwrap_or_else(Json::null);
        self.check_size(&data)?;
        let event_type = EventType::published(&item.event_type)?;
        entity::check(event_type.as_str(), &data)?;
        let time_ms = self.app.clock.now_ms();
        let given: Option<EventId> = item.id.as_deref().map(str::parse).transpose()?;
        let draft = Draft {
            id: given.clone().unwrap_or_else(|| new_id(self.app, time_ms)),
            event_type,
            time_ms,
            topic,
            actor: item.actor,
            data,
            exclude_conn: item
                .exclude_conn
                .as_deref()
                .map(str::parse::<ConnId>)
                .transpose()?,
        };
        let collapse_key: Option<Key> = item.collapse_key.as_deref().map(str::parse).transpose()?;
        if item.ephemeral {
            let signal = Box::new(Signal::of(&draft, collapse_key.as_ref(), ttl_ms(item.ttl)?));
            return Ok(Checked::Ephemeral {
                to,
                id: draft.id,
                time_ms,
                signal,
            });
        }
        if item.ttl.is_some() {
            return Err(Invalid::new(
                "invalid_event",
                "ttl is for ephemeral events; logs have their retention",
            )
            .into());
        }
        let keys = self.keys(given.as_ref(), index);
        // What can never be recognised needs nothing to be recognised by.
        let fingerprint = match keys.is_empty() {
            true => [0; 16],
            false => fingerprint(&draft, &to, given.as_ref(), collapse_key.as_ref()),
        };
        let is_feed = feed::is_feed(&draft.event_type, &to);
        let publication = Publication {
            event: Event::of(&draft),
            keys,
            to,
            fingerprint,
        };
        Ok(Checked::Durable {
            bytes: publication.event.json().len(),
            decide: match is_feed {
                true => self.app.feeds.decision(publication, collapse_key),
                false => publication.decision(),
            },
        })
    }

    fn audience(&self, to: &To<'_>) -> Result<Audience, Problem> {
        Ok(match to {
            To::User(user) => Audience::User(user.parse()?),
            To::Topic(topic) => Audience::Topic(topic.parse()?),
            To::Conversation(conversation) => Audience::Conversation(conversation.parse()?),
            To::Users(users) if users.is_empty() => {
                return Err(Problem::bad_request("no_recipient", "users is empty"));
            }
            To::Users(users) if users.len() > self.app.config.limits.recipients => {
                let message =
                    "more users than limits.recipients; a topic can have any number of subscribers";
                return Err(Problem::bad_request("too_many_recipients", message));
            }
            To::Users(users) => {
                let users: Result<Vec<UserId>, Invalid> =
                    users.iter().map(|user| user.parse()).collect();
                Audience::Users(users?)
            }
        })
    }

    /// Hashes under which a repeat of this item is known: its id is everyone's, an Idempotency-Key its caller's own.
    pub fn keys(&self, id: Option<&EventId>, index: Option<usize>) -> Vec<[u8; 16]> {
        let of_id = id.map(|id| keys::hash(&[b"id", id.as_str().as_bytes()]));
        let place = index.map_or(String::new(), |index| index.to_string());
        let of_key = self.idempotency_key.as_ref();
        let of_key = of_key.map(|key| caller_key(self.caller, key, &place));
        of_id.into_iter().chain(of_key).collect()
    }

    async fn send(&self, checked: Checked) -> Result<Receipt, Problem> {
        match checked {
            Checked::Durable { bytes, decide } => {
                let receipt = self.app.store.commit(bytes, decide).await?;
                self.count(&receipt);
                Ok(receipt)
            }
            Checked::Ephemeral {
                to,
                id,
                time_ms,
                signal,
            } => {
                let recipients =
                    publish::signal(&self.app.store, &self.app.wakes, &to, *signal).await?;
                self.app.metrics.signals.inc();
                Ok(Receipt {
                    id,
                    time_ms,
                    recipients,
                    is_duplicate: false,
                    position: None,
                })
            }
        }
    }

    pub fn check_size(&self, data: &Json) -> Result<(), Problem> {
        if data.as_str().len() <= self.app.config.limits.event_bytes {
            return Ok(());
        }
        let message = "the data of an event is larger than limits.event_bytes";
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Err(Problem::new(status, "event_too_large", message))
    }

    /// Counts a request that was a repeat.
    pub fn count(&self, receipt: &Receipt) {
        if receipt.is_duplicate {
            self.app.metrics.duplicates.inc();
        }
    }
}

/// Whether the body is an object with `events`. One look at the keys decides; a body that is neither is told so later.
fn is_batch(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Look<'a> {
        #[serde(borrow)]
        events: Option<&'a RawValue>,
    }
    text.contains("\"events\"")
        && serde_json::from_str::<Look<'_>>(text).is_ok_and(|look| look.events.is_some())
}

pub fn new_id(app: &App, time_ms: u64) -> EventId {
    #[cfg(feature = "faults")]
    if crate::store::committer::is_mutant("mutant_id_from_clock") {
        return format!("{time_ms}").parse().expect("digits are plain");
    }
    app.random
        .uuid_v7(time_ms)
        .parse()
        .expect("a UUID is plain")
}

fn ttl_ms(ttl: Option<f64>) -> Result<Option<u64>, Invalid> {
    match ttl {
        None => Ok(None),
        Some(seconds) if seconds > 0.0 && seconds <= TTL_SECONDS_MAX => {
            Ok(Some((seconds * 1_000.0).ceil() as u64))
        }
        Some(_) => Err(Invalid::new(
            "invalid_ttl",
            "ttl is a number of seconds, more than 0 and at most 86400",
        )),
    }
}

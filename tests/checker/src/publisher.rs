//! Publishers: they write events that name themselves, one by one and in batches, with and without keys.
//!
//! Every try stands in the history before it is sent. An answer that did not come is `info`; a keyed event is then
//! asked for again with the same key until it is answered. A publisher never invents an outcome.

use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::history::{Acked, Attempt, Op, Position, Publish, Recorder};
use crate::http::{Answer, Ask, Link, Target};

pub const EVENT_TYPE: &str = "app.checked";
/// The disk failed under the write: the server cannot know whether the event is there.
const OUTCOME_UNKNOWN: &str = "store_failed";
/// How long a publisher that should stop goes on asking for its unanswered keys.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);

/// An event to be published, with what it says about itself.
#[derive(Clone, Debug)]
pub struct Draft {
    pub nonce: String,
    pub user: String,
    pub key: Key,
    pub atomic: Option<String>,
    pub data: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    None,
    /// The event's own id.
    Id(String),
    /// The header `Idempotency-Key`.
    Header(String),
}

impl Draft {
    pub fn new(nonce: String, user: &str, key: Key, pad_bytes: usize) -> Draft {
        let data = json!({ "for": user, "nonce": nonce, "pad": "x".repeat(pad_bytes) });
        Draft {
            nonce,
            user: user.to_owned(),
            key,
            atomic: None,
            data,
        }
    }

    fn attempt(&self, attempt: u64) -> Attempt {
        let key = match &self.key {
            Key::None => None,
            Key::Id(key) | Key::Header(key) => Some(key.clone()),
        };
        Attempt {
            attempt,
            nonce: self.nonce.clone(),
            user: self.user.clone(),
            key,
            atomic: self.atomic.clone(),
            event_type: EVENT_TYPE.to_owned(),
            data: self.data.to_string(),
        }
    }

    pub fn body(&self) -> Value {
        let mut body =
            json!({ "to": { "user": self.user }, "type": EVENT_TYPE, "data": self.data });
        if let Key::Id(id) = &self.key {
            body["id"] = json!(id);
        }
        body
    }

    pub fn ask(&self, token: &str) -> Ask {
        let idempotency_key = match &self.key {
            Key::Header(key) => Some(key.clone()),
            Key::None | Key::Id(_) => None,
        };
        Ask {
            idempotency_key,
            ..Ask::post("/v1/publish", token, &self.body())
        }
    }
}

/// What became of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acked,
    Refused,
    Unknown,
}

/// Notes that a draft is about to be sent; the number belongs to this try.
pub fn invoke(recorder: &Recorder, process: &str, draft: &Draft) -> u64 {
    let attempt = recorder.next_attempt();
    recorder.record(
        process,
        Op::Publish(Publish::Invoke(draft.attempt(attempt))),
    );
    attempt
}

pub fn unanswered(recorder: &Recorder, process: &str, attempt: u64) {
    recorder.record(process, Op::Publish(Publish::Info { attempt }));
}

/// Publishes one draft over an open connection and notes what came of it.
pub async fn publish(
    recorder: &Recorder,
    process: &str,
    token: &str,
    link: &mut Link,
    draft: &Draft,
) -> Outcome {
    let attempt = invoke(recorder, process, draft);
    let Ok(answer) = link.ask(&draft.ask(token)).await else {
        unanswered(recorder, process, attempt);
        return Outcome::Unknown;
    };
    conclude(
        recorder,
        process,
        attempt,
        answer.status,
        answer.has_retry_after,
        &answer.body,
    )
}

/// As `publish`, and gives the position of the event.
pub async fn publish_at(
    recorder: &Recorder,
    process: &str,
    token: &str,
    link: &mut Link,
    draft: &Draft,
) -> Option<Position> {
    let attempt = invoke(recorder, process, draft);
    let Ok(answer) = link.ask(&draft.ask(token)).await else {
        unanswered(recorder, process, attempt);
        return None;
    };
    conclude(
        recorder,
        process,
        attempt,
        answer.status,
        answer.has_retry_after,
        &answer.body,
    );
    answer.body["cursor"].as_str().and_then(Position::parse)
}

/// Notes the answer to one try.
pub fn conclude(
    recorder: &Recorder,
    process: &str,
    attempt: u64,
    status: u16,
    has_retry_after: bool,
    body: &Value,
) -> Outcome {
    let is_success = (200..300).contains(&status);
    if let (true, Some(acked)) = (is_success, acked_from(attempt, body)) {
        recorder.record(process, Op::Publish(Publish::Ok(acked)));
        return Outcome::Acked;
    }
    let code = body["code"].as_str().unwrap_or_default().to_owned();
    if code == OUTCOME_UNKNOWN {
        unanswered(recorder, process, attempt);
        return Outcome::Unknown;
    }
    recorder.record(
        process,
        Op::Publish(Publish::Fail {
            attempt,
            status,
            code,
            has_retry_after,
        }),
    );
    Outcome::Refused
}

fn acked_from(attempt: u64, body: &Value) -> Option<Acked> {
    Some(Acked {
        attempt,
        id: body["id"].as_str()?.to_owned(),
        position: body["cursor"].as_str().and_then(Position::parse),
        recipients: body["recipients"].as_u64()?,
        is_duplicate: body["duplicate"].as_bool().unwrap_or(false),
    })
}

pub struct Publisher {
    pub name: String,
    pub users: Vec<String>,
    pub target: Target,
    pub recorder: Recorder,
    pub token: String,
    pub rng: Rng,
    pub pad_bytes: usize,
}

impl Publisher {
    /// Publishes until told to stop, then until every keyed event has its answer.
    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut open: Option<Link> = None;
        let mut again: Vec<Draft> = Vec::new();
        let mut made = 0_u64;
        let mut settle_until: Option<Instant> = None;
        loop {
            // A row that was broken off drops the other end.
            if *stop.borrow() || stop.has_changed().is_err() {
                let until = *settle_until.get_or_insert_with(|| Instant::now() + SETTLE_TIME_MAX);
                if again.is_empty() || Instant::now() >= until {
                    return;
                }
            }
            let Some(link) = self.connected(&mut open).await else {
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            let drafts = match again.pop() {
                Some(draft) => vec![draft],
                None => {
                    made += 1;
                    self.make(made)
                }
            };
            let outcomes = self.send(link, &drafts).await;
            if outcomes.contains(&Outcome::Unknown) {
                open = None;
            }
            if outcomes.contains(&Outcome::Refused) {
                sleep(Duration::from_millis(20)).await;
            }
            let unanswered = drafts
                .into_iter()
                .zip(outcomes)
                .filter(|(draft, outcome)| *outcome == Outcome::Unknown && draft.key != Key::None);
            again.extend(unanswered.map(|(draft, _)| draft));
        }
    }

    async fn connected<'a>(&self, open: &'a mut Option<Link>) -> Option<&'a mut Link> {
        if open.is_none() {
            *open = Link::open(self.target.address()?).await.ok();
        }
        open.as_mut()
    }

    /// One new event, a batch of a few, or rarely one so large that the server must write it in pieces.
    fn make(&mut self, number: u64) -> Vec<Draft> {
        let (count, is_atomic) = match self.rng.u8(0..40) {
            0 => (self.rng.usize(150..=400), true),
            1..3 => (self.rng.usize(2..=8), true),
            3..5 => (self.rng.usize(2..=8), false),
            _ => (1, false),
        };
        let atomic = is_atomic.then(|| format!("batch-{}-{number}", self.name));
        (0..count)
            .map(|item| {
                let nonce = format!("{}-{number}-{item}", self.name);
                let user = &self.users[self.rng.usize(0..self.users.len())];
                let key = match self.rng.u8(0..10) {
                    // Asking again for one item of an atomic batch would rightly make half of it.
                    _ if is_atomic => Key::None,
                    0..2 => Key::Id(format!("id-{nonce}")),
                    2..4 if count == 1 => Key::Header(format!("key-{nonce}")),
                    _ => Key::None,
                };
                Draft {
                    atomic: atomic.clone(),
                    ..Draft::new(nonce, user, key, self.pad_bytes)
                }
            })
            .collect()
    }

    async fn send(&self, link: &mut Link, drafts: &[Draft]) -> Vec<Outcome> {
        match drafts {
            [draft] => vec![publish(&self.recorder, &self.name, &self.token, link, draft).await],
            drafts => self.send_batch(link, drafts).await,
        }
    }

    async fn send_batch(&self, link: &mut Link, drafts: &[Draft]) -> Vec<Outcome> {
        let attempts: Vec<u64> = drafts
            .iter()
            .map(|draft| invoke(&self.recorder, &self.name, draft))
            .collect();
        let events: Vec<Value> = drafts.iter().map(Draft::body).collect();
        let answer = link
            .ask(&Ask::post(
                "/v1/publish",
                &self.token,
                &json!({ "events": events, "atomic": drafts[0].atomic.is_some() }),
            ))
            .await;
        let results = answer
            .as_ref()
            .map_err(|_| ())
            .and_then(|answer| results_of(answer, drafts.len()).ok_or(()));
        let conclude_item = |(place, attempt): (usize, &u64)| match (&answer, &results) {
            (Err(_), _) => {
                unanswered(&self.recorder, &self.name, *attempt);
                Outcome::Unknown
            }
            (Ok(_), Ok(results)) => {
                let item = &results[place];
                let status = item["status"]
                    .as_u64()
                    .and_then(|status| u16::try_from(status).ok());
                let status = status.unwrap_or(if item["id"].is_string() { 201 } else { 400 });
                let problem = if item["error"].is_object() {
                    &item["error"]
                } else {
                    item
                };
                // A refused item has no headers of its own.
                conclude(&self.recorder, &self.name, *attempt, status, true, problem)
            }
            (Ok(answer), Err(())) => {
                let Answer {
                    status,
                    has_retry_after,
                    body,
                } = answer;
                conclude(
                    &self.recorder,
                    &self.name,
                    *attempt,
                    *status,
                    *has_retry_after,
                    body,
                )
            }
        };
        attempts.iter().enumerate().map(conclude_item).collect()
    }
}

/// One result per item, in order, if the whole batch was taken.
fn results_of(answer: &Answer, count: usize) -> Option<&Vec<Value>> {
    if !answer.is_success() {
        return None;
    }
    let list = answer
        .body
        .as_array()
        .or_else(|| answer.body["results"].as_array())?;
    (list.len() == count).then_some(list)
}

/// A publisher's token, good for everybody.
pub fn token() -> Result<String> {
    crate::http::token("checker", Some("publish"))
}

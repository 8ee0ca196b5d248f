//! Commands that a socket's client sends: one JSON object each, with an `op` and an optional `ref`.
//!
//! Promises: each has the checks, limits and errors of its HTTP twin. With a `ref` it is answered, without one only its
//! errors are told. An object that is no command known here is an error, not the end of the socket.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::event::{Key, Topic};
use crate::features::subscribe::{self, Change};
use crate::frame;
use crate::http::caller::{self, Caller};
use crate::http::error::Problem;
use crate::http::messages;
use crate::http::ops;
use crate::http::presence;
use crate::http::signals;
use crate::http::state::App;
use crate::http::stream::Stream;
use crate::http::topics;
use crate::http::typing;
use crate::token::Claims;

/// What is sent back for a command.
pub enum Answer {
    Nothing,
    Text(String),
    /// The message is not a JSON object with an `op`.
    NotACommand,
}

/// The first message of a socket that came without credentials.
#[derive(Deserialize)]
pub struct Auth {
    #[serde(rename = "op")]
    _op: AuthOp,
    pub token: String,
    #[serde(rename = "ref")]
    pub reference: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum AuthOp {
    Auth,
}

pub fn parse_auth(text: &str) -> Option<Auth> {
    serde_json::from_str(text).ok()
}

/// What every command has, whatever its op.
#[derive(Deserialize)]
struct Envelope {
    op: String,
    #[serde(rename = "ref")]
    reference: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Command {
    Auth {
        token: String,
    },
    Ack {
        cursor: String,
        device: Option<Key>,
    },
    Subscribe {
        topic: Topic,
    },
    Unsubscribe {
        topic: Topic,
    },
    #[serde(skip)]
    Send(SendCommand),
    Read {
        conversation: String,
        upto: Option<u64>,
        message_ids: Option<Vec<String>>,
    },
    Typing {
        conversation: String,
        state: String,
    },
    Presence {
        status: String,
        activity: Option<String>,
        conn: Option<String>,
    },
    #[serde(skip)]
    Signal(signals::Op),
    Ping,
}

/// Read by itself: only so does its `data` keep its bytes.
#[derive(Deserialize)]
struct SendCommand {
    conversation: String,
    content: String,
    client_id: Option<String>,
    data: Option<Box<RawValue>>,
}

impl Command {
    fn parse(op: &str, text: &str) -> Result<Command, serde_json::Error> {
        match op {
            "send" => serde_json::from_str(text).map(Command::Send),
            "signal" => serde_json::from_str(text).map(Command::Signal),
            _ => serde_json::from_str(text),
        }
    }
}

/// Ops of this version; others are told to be unknown.
const KNOWN: [&str; 10] = [
    "auth",
    "ack",
    "subscribe",
    "unsubscribe",
    "send",
    "read",
    "typing",
    "presence",
    "signal",
    "ping",
];
/// A `ref` longer than this is refused.
const REFERENCE_BYTES_MAX: usize = 128;

pub struct Commands {
    app: Arc<App>,
    claims: Claims,
    /// A ticket reads and acks; it changes nothing else.
    is_ticket: bool,
    address: SocketAddr,
}

impl Commands {
    pub fn new(app: &Arc<App>, caller: &Caller, address: SocketAddr) -> Commands {
        Commands {
            app: Arc::clone(app),
            claims: caller.claims.clone(),
            is_ticket: caller.riding.is_some(),
            address,
        }
    }

    pub async fn run(&mut self, stream: &Stream, text: &str) -> Answer {
        let Ok(envelope) = serde_json::from_str::<Envelope>(text) else {
            return Answer::NotACommand;
        };
        let reference = envelope.reference.as_deref();
        if reference.is_some_and(|reference| reference.len() > REFERENCE_BYTES_MAX) {
            return refusal(
                None,
                &Problem::bad_request("invalid_ref", "a ref is at most 128 bytes"),
            );
        }
        if !KNOWN.contains(&envelope.op.as_str()) {
            return refusal(
                reference,
                &Problem::bad_request("unknown_op", "this op is not known here"),
            );
        }
        let done = match Command::parse(&envelope.op, text) {
            Ok(command) => self.obey(stream, command).await,
            Err(error) => Err(Problem::bad_request("invalid_json", error.to_string())),
        };
        match (done, reference) {
            (Ok(data), Some(reference)) => Answer::Text(frame::reply(reference, &data.to_string())),
            (Ok(_), None) => Answer::Nothing,
            (Err(problem), reference) => refusal(reference, &problem),
        }
    }

    async fn obey(
        &mut self,
        stream: &Stream,
        command: Command,
    ) -> Result<serde_json::Value, Problem> {
        match command {
            Command::Ping => Ok(json!({ "time": crate::clock::rfc3339(self.app.clock.now_ms()) })),
            Command::Auth { token } => self.refresh(stream, &token).await,
            Command::Ack { cursor, device } => {
                self.pace()?;
                let acked = ops::ack_of(&self.app, stream.user(), &cursor, device).await?;
                Ok(json!({ "cursor": acked.to_string() }))
            }
            Command::Subscribe { topic } => self.change(topic, Change::Join).await,
            Command::Unsubscribe { topic } => self.change(topic, Change::Leave).await,
            Command::Send(command) => {
                self.may_write()?;
                self.send(command).await
            }
            Command::Read {
                conversation,
                upto,
                message_ids,
            } => {
                self.may_write()?;
                let request = messages::Read { upto, message_ids };
                messages::read_of(&self.app, &self.claims, &conversation, request).await
            }
            Command::Typing {
                conversation,
                state,
            } => {
                self.must_change()?;
                typing::typing_of(&self.app, &self.claims, &conversation, &state).await?;
                Ok(json!({}))
            }
            Command::Presence {
                status,
                activity,
                conn,
            } => {
                self.may_write()?;
                let change = presence::Change {
                    status,
                    activity,
                    conn,
                };
                presence::put_of(&self.app, &self.claims, change).await
            }
            Command::Signal(op) => {
                self.must_change()?;
                signals::signal_of(&self.app, &self.claims, op).await?;
                Ok(json!({}))
            }
        }
    }

    async fn send(&self, command: SendCommand) -> Result<serde_json::Value, Problem> {
        let request = messages::Send {
            content: command.content,
            client_id: command.client_id,
            data: command.data,
        };
        let (app, claims) = (&self.app, &self.claims);
        let sent = messages::send_of(app, claims, &command.conversation, None, request).await?;
        Ok(serde_json::from_str(&sent.json).expect("an object of our own"))
    }

    /// What HTTP asks of every write: a token that may, within its rate.
    fn may_write(&self) -> Result<(), Problem> {
        self.pace()?;
        self.must_change()
    }

    /// A ticket only reads. What has a pace of its own asks for no more than that.
    fn must_change(&self) -> Result<(), Problem> {
        match self.is_ticket {
            true => Err(Problem::forbidden("a ticket reads and changes nothing")),
            false => Ok(()),
        }
    }

    fn pace(&self) -> Result<(), Problem> {
        match self.claims.scope.may_publish() {
            true => Ok(()),
            false => self
                .app
                .limits
                .user_write(&self.claims.sub)
                .map_err(Problem::rate_limited),
        }
    }

    async fn change(&self, topic: Topic, change: Change) -> Result<serde_json::Value, Problem> {
        self.pace()?;
        let user = self.claims.sub.clone();
        if self.is_ticket || !subscribe::is_allowed(&self.claims, &topic, &user, change) {
            return Err(Problem::forbidden(
                "the token's topics do not name this topic",
            ));
        }
        topics::change_of(&self.app, topic, user, change).await?;
        Ok(json!({}))
    }

    /// A new token of the same user prolongs the stream.
    async fn refresh(
        &mut self,
        stream: &Stream,
        token: &str,
    ) -> Result<serde_json::Value, Problem> {
        let caller = caller::verify(&self.app, self.address, Some(token))
            .await
            .map_err(Problem::from)?;
        if caller.claims.sub != self.claims.sub {
            return Err(Problem::forbidden("the token is another user's"));
        }
        stream.prolong(&caller.claims);
        self.claims = caller.claims;
        self.is_ticket = false;
        Ok(json!({ "auth_expires": crate::clock::rfc3339(self.claims.expires_ms) }))
    }
}

fn refusal(reference: Option<&str>, problem: &Problem) -> Answer {
    Answer::Text(frame::socket_error(
        reference,
        problem.code,
        &problem.message,
    ))
}

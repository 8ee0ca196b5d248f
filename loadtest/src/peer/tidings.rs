//! Tidings itself, by the words of PROTOCOL.md: started here with limits wide enough for a load, or found at a URL.
//!
//! Promises: every reader is a user of its own with a token of its own, as in life; names carry the run, so that a
//! server that was used before can be measured again. It uses nothing that a client could not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use jsonwebtoken::{EncodingKey, Header};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Control, Form, Needs, Page, Peer, Reach};
use crate::child::{Server, Start};
use crate::context::Context;
use crate::frames;
use crate::verify::Position;

/// Of servers that are started here; it guards nothing.
const SECRET: &str = "loadtest-secret-that-guards-nothing-at-all";
const START_TIME_MAX: Duration = Duration::from_secs(60);
const TOKEN_SECONDS: u64 = 4 * 3600;

pub struct Tidings {
    server: Option<Server>,
    data: PathBuf,
    address: SocketAddr,
    pid: Option<u32>,
    secret: String,
    backend: String,
}

impl Tidings {
    pub fn start(context: &Context, needs: &Needs, directory: &Path) -> Result<Tidings> {
        let mut peer = Tidings {
            server: None,
            data: directory.join("data"),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            pid: None,
            secret: SECRET.to_owned(),
            backend: String::new(),
        };
        match &context.existing {
            Some(existing) => {
                peer.address = existing.address;
                peer.pid = existing.pid;
                peer.secret.clone_from(&existing.secret);
            }
            None => peer.restart(context, needs)?,
        }
        peer.backend = token(&peer.secret, "loadtest", Some("publish"))?;
        Ok(peer)
    }

    fn user(needs: &Needs, reader: u32) -> String {
        format!("lt-{:x}-{reader}", needs.run)
    }

    fn topic(needs: &Needs) -> String {
        format!("lt:{:x}", needs.run)
    }
}

/// Users who act for themselves, with their names and tokens.
pub struct Chat {
    pub names: Vec<String>,
    pub tokens: Vec<String>,
}

impl Chat {
    pub fn of(context: &Context, needs: &Needs, users: u32) -> Result<Chat> {
        let secret = context
            .existing
            .as_ref()
            .map_or(SECRET, |existing| &existing.secret);
        let names: Vec<String> = (0..users).map(|user| Tidings::user(needs, user)).collect();
        let tokens = names.iter().map(|name| token(secret, name, None));
        Ok(Chat {
            tokens: tokens.collect::<Result<_>>()?,
            names,
        })
    }
}

fn token(secret: &str, sub: &str, scope: Option<&str>) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut claims = json!({"sub": sub, "iat": now, "exp": now + TOKEN_SECONDS});
    if let Some(scope) = scope {
        claims["scope"] = scope.into();
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).context("cannot make a token")
}

/// Bounds that a load reaches on purpose.
fn settings(needs: &Needs) -> Vec<String> {
    [
        format!("auth.hs256_secret={SECRET}"),
        "demo.enabled=false".to_owned(),
        "limits.connections=100000".to_owned(),
        "limits.connections_per_user=20000".to_owned(),
        "limits.recipients=1000000".to_owned(),
        "limits.publish_per_second=10000000".to_owned(),
        "limits.user_writes_per_second=1000000".to_owned(),
        "limits.user_writes_burst=1000000".to_owned(),
        format!("stream.ping_seconds={}", needs.ping_seconds),
        format!("store.ring_bytes={}", needs.recent_bytes),
        "log.retention_events=0".to_owned(),
        "log.retention_bytes=0".to_owned(),
    ]
    .into_iter()
    .flat_map(|setting| ["--set".to_owned(), setting])
    .collect()
}

pub fn request(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[derive(Deserialize)]
struct PollPage<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    cursor: String,
    reset: Option<serde_json::Value>,
}

impl Peer for Tidings {
    fn name(&self) -> &'static str {
        "tidings"
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pid(&self) -> Option<u32> {
        self.pid
    }

    fn envelope_bytes(&self, needs: &Needs) -> usize {
        let topic = match needs.reach {
            Reach::Topic => r#""topic":"lt:12345678","#.len(),
            Reach::Users | Reach::Conversations => 0,
        };
        topic + "data: {\"v\":1,\"id\":\"01a1fe85-5961-7f5c-8cd5-c6e0bb5fcd61\",\"seq\":1234,\"cursor\":\"sa2pmz-1234\",\"type\":\"load.mark\",\"time\":\"2026-11-21T14:31:54.465Z\",\"data\":{\"text\":\"\"}}\nid: sa2pmz-1234\n\n".len()
    }

    fn is_dense(&self) -> bool {
        true
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn batch_max(&self) -> usize {
        500
    }

    fn preparation(&self, needs: &Needs, readers: u32) -> Vec<Vec<u8>> {
        if needs.reach != Reach::Topic {
            return Vec::new();
        }
        let topic = Tidings::topic(needs);
        let requests = (0..readers).map(|reader| {
            let user = Tidings::user(needs, reader);
            let path = format!("/v1/topics/{topic}/subscribers/{user}");
            request("PUT", &path, &self.backend, "")
        });
        requests.collect()
    }

    fn subscribe(
        &self,
        needs: &Needs,
        reader: u32,
        track: u32,
        form: Form,
        after: &str,
    ) -> Vec<u8> {
        let number = match needs.reach {
            Reach::Topic | Reach::Conversations => reader,
            Reach::Users => track,
        };
        let token = token(&self.secret, &Tidings::user(needs, number), None)
            .expect("the same secret made a token before");
        let after = if after.is_empty() { "start" } else { after };
        let (path, headers) = match form {
            Form::Events => ("/v1/events?", "Accept: text/event-stream\r\n".to_owned()),
            Form::Poll => ("/v1/events?format=json&wait=30&limit=1000&", String::new()),
            Form::Socket => ("/v1/ws?", crate::websocket::offer(false)),
            Form::DeflatedSocket => ("/v1/ws?", crate::websocket::offer(true)),
        };
        format!(
            "GET {path}cursor={after} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{headers}\r\n"
        )
        .into_bytes()
    }

    fn publish(&self, needs: &Needs, events: &[(u32, String)]) -> Vec<u8> {
        let event = |(track, text): &(u32, String)| {
            let (to, topic) = match needs.reach {
                Reach::Topic => {
                    let topic = Tidings::topic(needs);
                    (
                        format!(r#"{{"topic":"{topic}"}}"#),
                        format!(r#""topic":"{topic}","#),
                    )
                }
                Reach::Users | Reach::Conversations => {
                    let user = Tidings::user(needs, *track);
                    (format!(r#"{{"user":"{user}"}}"#), String::new())
                }
            };
            format!(r#"{{"to":{to},"type":"load.mark",{topic}"data":{{"text":"{text}"}}}}"#)
        };
        let body = match events {
            [one] => event(one),
            many => format!(
                r#"{{"events":[{}]}}"#,
                many.iter().map(event).collect::<Vec<_>>().join(",")
            ),
        };
        request("POST", "/v1/publish", &self.backend, &body)
    }

    /// `<epoch>-<seq>`; one log has one epoch, so the seq is enough.
    fn position(&self, id: &str) -> Option<Position> {
        let major = id.rsplit_once('-')?.1.parse().ok()?;
        Some(Position { major, minor: 0 })
    }

    fn control(&self, name: Option<&str>, data: Option<&[u8]>) -> Control {
        match (name, data) {
            (Some("live"), _) => Control::Live,
            (Some("reset" | "bye" | "error"), _) => Control::Lost,
            _ => Control::Nothing,
        }
    }

    fn page<'a>(&self, _head: &[u8], body: &'a [u8]) -> Result<Page<'a>> {
        let page: PollPage<'a> =
            serde_json::from_slice(body).context("a poll's page is not right")?;
        if let Some(reset) = page.reset {
            bail!("a poll says reset: {reset}");
        }
        let events = page.events.iter().map(|event| {
            let data = event.get().as_bytes();
            let position = frames::text(data, "cursor").and_then(|id| self.position(id));
            (data, position)
        });
        Ok(Page {
            events: events.collect(),
            next: Some(page.cursor),
        })
    }

    fn socket_text<'a>(&self, text: &'a [u8]) -> (Option<&'a str>, Option<Control>) {
        let name = frames::text(text, "type").and_then(|name| name.strip_prefix("sys."));
        match name {
            Some(name) => (None, Some(self.control(Some(name), Some(text)))),
            None => (frames::text(text, "cursor"), None),
        }
    }

    fn kill(&mut self) -> Result<()> {
        match &mut self.server {
            Some(server) => server.kill(),
            None => bail!("a server that was not started here is not killed"),
        }
    }

    fn restart(&mut self, context: &Context, needs: &Needs) -> Result<()> {
        // One server at a time on a data directory: the old one must be gone first.
        self.server = None;
        let mut arguments = vec![
            "serve".to_owned(),
            "--listen".to_owned(),
            "127.0.0.1:0".to_owned(),
        ];
        arguments.extend(["--data".to_owned(), self.data.display().to_string()]);
        arguments.extend(settings(needs));
        let mut server = Server::start(&Start {
            program: &context.server,
            arguments,
            core: context.server_core(),
            log: self.data.with_extension("log"),
        })?;
        self.address = server.listening(START_TIME_MAX)?;
        self.pid = Some(server.pid());
        self.server = Some(server);
        Ok(())
    }
}

//! HTTP/1.1 to a server on this machine: one connection, one request at a time, nothing repeated behind our back.
//!
//! A client library that silently sends a request again would make the history untrue, so connections are opened and
//! used by hand. Every wait is bounded by `ANSWER_TIME_MAX`. Tokens are made here with the secret the server was given.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// The HS256 secret of every server that the checker starts; it guards nothing.
pub const SECRET: &str = "checker-secret-that-guards-nothing-at-all";
/// A server that takes longer for a single answer counts as hanging.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// Where the server is at the moment; empty while it is down. The nemesis writes it, all clients read it.
#[derive(Clone, Default)]
pub struct Target {
    address: Arc<Mutex<Option<SocketAddr>>>,
}

impl Target {
    pub fn address(&self) -> Option<SocketAddr> {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, address: Option<SocketAddr>) {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    pub fn required(&self) -> Result<SocketAddr> {
        self.address().context("the server is down")
    }
}

/// A request in the few words that the checker needs.
#[derive(Clone, Default)]
pub struct Ask {
    pub path: String,
    pub token: String,
    pub accept: Option<&'static str>,
    pub idempotency_key: Option<String>,
    pub last_event_id: Option<String>,
    /// A JSON body makes it a POST.
    pub body: Option<String>,
}

pub struct Answer {
    pub status: u16,
    pub has_retry_after: bool,
    pub body: Value,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The stable code of a problem, or what else stands there.
    pub fn code(&self) -> String {
        self.body["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub struct Link {
    sender: SendRequest<Full<Bytes>>,
}

impl Link {
    pub async fn open(address: SocketAddr) -> Result<Link> {
        Link::over(TcpStream::connect(address).await?).await
    }

    /// A connection whose peer can send only a little before it must wait for us.
    pub async fn open_narrow(address: SocketAddr, receive_buffer_bytes: u32) -> Result<Link> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(receive_buffer_bytes)?;
        Link::over(socket.connect(address).await?).await
    }

    async fn over(stream: TcpStream) -> Result<Link> {
        stream.set_nodelay(true)?;
        // A small buffer here keeps a slow reader slow; a frame larger than it grows it.
        let mut builder = http1::Builder::new();
        let (sender, connection) = builder
            .max_buf_size(16 * 1024)
            .handshake(TokioIo::new(stream))
            .await?;
        // The task ends with the connection; how it ended shows in the answer that did not come.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Link { sender })
    }

    /// Sends a request and reads the whole answer.
    pub async fn ask(&mut self, ask: &Ask) -> Result<Answer> {
        timeout(ANSWER_TIME_MAX, self.ask_unbounded(ask))
            .await
            .context("no answer in time")?
    }

    async fn ask_unbounded(&mut self, ask: &Ask) -> Result<Answer> {
        let response = self.send(ask).await?;
        let status = response.status().as_u16();
        let has_retry_after = response.headers().contains_key("retry-after");
        let bytes = response.into_body().collect().await?.to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer {
            status,
            has_retry_after,
            body,
        })
    }

    /// Sends a request whose answer goes on for ever.
    pub async fn stream(mut self, ask: &Ask) -> Result<Response<Incoming>> {
        timeout(ANSWER_TIME_MAX, self.send(ask))
            .await
            .context("no answer in time")?
    }

    async fn send(&mut self, ask: &Ask) -> Result<Response<Incoming>> {
        self.sender.ready().await?;
        Ok(self.sender.send_request(ask.request()?).await?)
    }
}

impl Ask {
    pub fn get(path: impl Into<String>, token: &str) -> Ask {
        Ask {
            path: path.into(),
            token: token.to_owned(),
            ..Ask::default()
        }
    }

    pub fn post(path: impl Into<String>, token: &str, body: &Value) -> Ask {
        Ask {
            body: Some(body.to_string()),
            ..Ask::get(path, token)
        }
    }

    fn request(&self) -> Result<Request<Full<Bytes>>> {
        let method = if self.body.is_some() { "POST" } else { "GET" };
        let mut builder = Request::builder()
            .method(method)
            .uri(&self.path)
            .header("host", "127.0.0.1");
        if !self.token.is_empty() {
            builder = builder.header("authorization", format!("Bearer {}", self.token));
        }
        if let Some(accept) = self.accept {
            builder = builder.header("accept", accept);
        }
        if let Some(key) = &self.idempotency_key {
            builder = builder.header("idempotency-key", key);
        }
        if let Some(id) = &self.last_event_id {
            builder = builder.header("last-event-id", id);
        }
        let body = match &self.body {
            Some(body) => {
                builder = builder.header("content-type", "application/json");
                Full::new(Bytes::from(body.clone()))
            }
            None => Full::new(Bytes::new()),
        };
        Ok(builder.body(body)?)
    }
}

/// One request on a connection of its own.
pub async fn ask_once(target: &Target, ask: &Ask) -> Result<Answer> {
    Link::open(target.required()?).await?.ask(ask).await
}

/// A token that is good for a day.
pub fn token(sub: &str, scope: Option<&str>) -> Result<String> {
    token_by(SECRET, sub, scope)
}

pub fn token_by(secret: &str, sub: &str, scope: Option<&str>) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut claims = json!({ "sub": sub, "iat": now, "exp": now + 86_400 });
    if let Some(scope) = scope {
        claims["scope"] = json!(scope);
    }
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    Ok(jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &claims,
        &key,
    )?)
}

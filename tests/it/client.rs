//! The tests' HTTP client, and the one door through which every reply comes.
//!
//! Promises: no reply reaches a test before `door` has looked at its headers, its content type and, where it is a
//! refusal, at its problem object. Every wait has an end. One connection per call, so that nothing that a
//! pool does can hide a fault of the server; it never follows redirects.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::door;

/// How long any one reply, or any one piece of a stream, may take unless a test says otherwise.
pub const WAIT: Duration = Duration::from_secs(15);

/// One request, built up and then sent.
#[derive(Clone)]
pub struct Call {
    address: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Bytes,
}

/// A whole reply.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A reply whose body is read piece by piece. Dropping it closes the connection.
pub struct Opened {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    connection: Connection,
}

/// The task that drives one connection; the connection is cut when this is dropped.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Call {
    pub fn new(address: SocketAddr, method: &str, path: &str) -> Call {
        Call {
            address,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    pub fn header(self, name: &str, value: &str) -> Call {
        self.header_bytes(name, value.as_bytes())
    }

    pub fn header_bytes(mut self, name: &str, value: &[u8]) -> Call {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn token(self, token: &str) -> Call {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn json(self, body: &Value) -> Call {
        self.body("application/json", body.to_string())
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Call {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    /// Sends the request and waits for the whole reply.
    pub async fn send(self) -> Reply {
        self.send_within(WAIT).await
    }

    pub async fn send_within(self, wait: Duration) -> Reply {
        let what = format!("{} {}", self.method, self.path);
        let is_head = self.method == "HEAD";
        let whole = async {
            let opened = self.connect().await;
            let Opened {
                status,
                headers,
                body,
                connection,
            } = opened;
            let body = body
                .collect()
                .await
                .unwrap_or_else(|error| panic!("body of {what}: {error}"));
            drop(connection);
            Reply {
                status,
                headers,
                body: body.to_bytes(),
            }
        };
        let reply = tokio::time::timeout(wait, whole).await;
        let reply = reply.unwrap_or_else(|_| panic!("{what} was not answered within {wait:?}"));
        if is_head {
            door::check_head(&reply);
        } else {
            door::check(&reply);
        }
        reply
    }

    /// Sends the request and waits for the head of the reply only. Refusals come through the door whole.
    pub async fn open(self) -> Result<Opened, Reply> {
        let what = format!("{} {}", self.method, self.path);
        let opened = tokio::time::timeout(WAIT, self.connect()).await;
        let opened = opened.unwrap_or_else(|_| panic!("{what} was not answered within {WAIT:?}"));
        if opened.status == 200 {
            door::check_stream_head(&opened.headers);
            return Ok(opened);
        }
        let Opened {
            status,
            headers,
            body,
            connection,
        } = opened;
        let body = tokio::time::timeout(WAIT, body.collect())
            .await
            .expect("a refusal ends");
        let body = body.expect("a refusal has a body").to_bytes();
        drop(connection);
        let reply = Reply {
            status,
            headers,
            body,
        };
        door::check(&reply);
        Err(reply)
    }

    /// Sends the request to a server that may die before it answers.
    pub async fn try_send(self) -> Option<Reply> {
        let Opened {
            status,
            headers,
            body,
            connection,
        } = self.try_connect().await.ok()?;
        let body = body.collect().await.ok()?.to_bytes();
        drop(connection);
        let reply = Reply {
            status,
            headers,
            body,
        };
        door::check(&reply);
        Some(reply)
    }

    async fn connect(self) -> Opened {
        let what = format!("{} {}", self.method, self.path);
        let opened = self.try_connect().await;
        opened.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    async fn try_connect(self) -> Result<Opened, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true).expect("the socket is open");
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake?;
        // An error of the connection reaches the request or the body as well, and is told there.
        let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
        let mut request = Request::builder()
            .method(self.method.as_str())
            .uri(&self.path);
        let has_host = self.headers.iter().any(|(name, _)| name == "host");
        if !has_host {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in &self.headers {
            request = request.header(name, value.as_slice());
        }
        let request = request
            .body(Full::new(self.body))
            .expect("the test wrote a valid request");
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Opened {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            connection,
        })
    }
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("all our texts are UTF-8")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("our headers are ASCII"))
    }

    /// The stable code of a refusal.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no code: {self:?}"))
            .to_owned()
    }

    /// Asserts the status and gives the JSON body.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        let content_type = self.header("content-type").unwrap_or("");
        if content_type.contains("json") {
            self.json()
        } else {
            Value::Null
        }
    }

    /// Asserts a refusal with one of `statuses`.
    #[track_caller]
    pub fn refused(&self, statuses: &[u16]) -> String {
        assert!(
            statuses.contains(&self.status),
            "expected {statuses:?}: {self:?}"
        );
        self.code()
    }
}

impl Opened {
    /// The next piece of the body, or `None` at its end. A connection that was cut ends too.
    pub async fn next(&mut self, wait: Duration) -> Option<Bytes> {
        loop {
            let frame = tokio::time::timeout(wait, self.body.frame()).await;
            let frame = frame
                .unwrap_or_else(|_| panic!("nothing came for {wait:?}"))?
                .ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }
}

/// A connection that sends exactly the bytes it is given.
pub struct Raw {
    pub stream: TcpStream,
    pub received: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address)
            .await
            .expect("the server listens");
        stream.set_nodelay(true).expect("the socket is open");
        Raw {
            stream,
            received: Vec::new(),
        }
    }

    /// Sends `bytes`; a server that hung up on the way is no error here, its reply tells.
    pub async fn send(&mut self, bytes: &[u8]) {
        let sent = tokio::time::timeout(WAIT, self.stream.write_all(bytes)).await;
        drop(sent.expect("the server reads or hangs up"));
    }

    /// Reads once more; `false` when the server has closed.
    pub async fn read_more(&mut self, wait: Duration) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        let read = tokio::time::timeout(wait, self.stream.read(&mut buffer)).await;
        match read.unwrap_or_else(|_| panic!("nothing came for {wait:?}")) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                true
            }
        }
    }

    /// Reads one whole HTTP reply and takes it off `received`; `None` when the server closed without one.
    pub async fn reply(&mut self) -> Option<Reply> {
        loop {
            if let Some((reply, used)) = parse_reply(&self.received) {
                self.received.drain(..used);
                door::check_raw(&reply);
                return Some(reply);
            }
            if !self.read_more(WAIT).await {
                assert!(
                    self.received.is_empty(),
                    "half a reply: {:?}",
                    String::from_utf8_lossy(&self.received)
                );
                return None;
            }
        }
    }

    /// Whether the server closes the connection by itself.
    pub async fn is_closed(&mut self, wait: Duration) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match tokio::time::timeout(wait, self.stream.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => return true,
                Ok(Ok(_)) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Sends one request of exactly these bytes and reads its reply.
pub async fn raw_reply(address: SocketAddr, bytes: &[u8]) -> Option<Reply> {
    let mut raw = Raw::connect(address).await;
    raw.send(bytes).await;
    raw.reply().await
}

/// The first whole reply with a `Content-Length` in `bytes`, and its length.
fn parse_reply(bytes: &[u8]) -> Option<(Reply, usize)> {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_end]).expect("heads are ASCII");
    let mut lines = head.trim_end().split("\r\n");
    let status_line = lines.next().expect("split gives one part at least");
    let status = status_line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status: u16 = status.unwrap_or_else(|| panic!("status line {status_line:?}"));
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line
            .split_once(": ")
            .unwrap_or_else(|| panic!("header {line:?}"));
        let name: hyper::header::HeaderName = name.parse().expect("a header name");
        headers.append(name, value.parse().expect("a header value"));
    }
    let length = headers.get("content-length").map_or(0, |length| {
        length
            .to_str()
            .ok()
            .and_then(|length| length.parse::<usize>().ok())
            .expect("a number")
    });
    let body = bytes.get(head_end..head_end + length)?;
    let body = Bytes::copy_from_slice(body);
    Some((
        Reply {
            status,
            headers,
            body,
        },
        head_end + length,
    ))
}

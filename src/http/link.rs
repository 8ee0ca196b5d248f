//! One WebSocket as whole messages (RFC 6455, 7692). The only file that names yawc.
//!
//! Promises: an incoming message is whole, good UTF-8 where it is text, bounded in size after inflating and in the time
//! its fragments may take; a peer that breaks the protocol is told with the code of RFC 6455 section 7.4.1, and the
//! connection ends so that it can read that code; a peer that does not take what we send is `Slow`. It queues nothing
//! but one pong, and knows nothing of events, commands or callers.

use std::future::poll_fn;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use yawc::close::CloseCode;
use yawc::streaming::Streaming;
use yawc::{DeflatePool, Frame, HttpStream, IncomingUpgrade, OpCode, Options, WebSocketError};

/// The fragments of one message must come within this time.
const FRAGMENTS_TIME: Duration = Duration::from_secs(10);
/// RFC 6455, section 5.5.
const CONTROL_BYTES_MAX: usize = 125;
/// Shorter messages are sent as they are: compressing them gains nothing.
const COMPRESSED_FROM_BYTES: usize = 128;
const ENCODER_WINDOW_BITS: u8 = 15;
const BUFFER_BYTES: usize = 1024;
/// The wait for the peer's half of a closing handshake.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

const PROTOCOL: u16 = 1002;
const NOT_CONSISTENT: u16 = 1007;
const POLICY: u16 = 1008;
const TOO_BIG: u16 = 1009;
const TOO_SLOW: u16 = 4008;

/// Deflate states shared by all sockets, so that an idle one holds none.
#[derive(Clone)]
pub struct DeflatePools(DeflatePool);

impl Default for DeflatePools {
    fn default() -> DeflatePools {
        DeflatePools(DeflatePool::new(64))
    }
}

/// What bounds a link.
pub struct Bounds {
    /// Of one incoming message, counted after inflating.
    pub message_bytes_max: usize,
    /// For a peer that takes nothing of what we send.
    pub write_time: Duration,
    /// Where permessage-deflate may be used.
    pub deflate: Option<Deflate>,
}

/// How permessage-deflate is used on one link.
pub struct Deflate {
    pub pools: DeflatePools,
    /// The window, in bits, that the peer wants what we compress to keep to.
    pub window_bits: Option<u8>,
}

impl Deflate {
    /// The encoder knows one window. Where the peer wants a smaller one, every message is sent as it is, which RFC 7692,
    /// section 6, leaves to the sender; what the peer compresses is inflated.
    fn compressed_from_bytes(&self) -> usize {
        match self.window_bits {
            Some(..ENCODER_WINDOW_BITS) => usize::MAX,
            _ => COMPRESSED_FROM_BYTES,
        }
    }
}

impl Bounds {
    fn options(&self) -> Options {
        // yawc's bound excludes its own value. That of a fragmented message is held here.
        let limit = self.message_bytes_max + 1;
        let options = Options::default()
            .with_limits(limit, limit)
            .with_read_buffer_capacity(BUFFER_BYTES)
            .with_write_buffer_capacity(BUFFER_BYTES)
            .with_no_delay();
        match &self.deflate {
            None => options.without_compression(),
            Some(deflate) => options
                .with_low_latency_compression()
                .with_compression_threshold(deflate.compressed_from_bytes())
                .server_no_context_takeover()
                .client_no_context_takeover()
                .with_deflate_pool(deflate.pools.0.clone()),
        }
    }
}

/// The answer to a handshake, and the link once that answer is on its way; `None` where nothing can be upgraded.
pub async fn upgrade(
    parts: &mut Parts,
    bounds: Bounds,
) -> Option<(
    Response,
    impl Future<Output = Result<Link, hyper::Error>> + use<>,
)> {
    let upgrade = IncomingUpgrade::from_request_parts(parts, &()).await.ok()?;
    let (mut response, upgraded) = upgrade.upgrade(bounds.options()).ok()?;
    let window_bits = bounds
        .deflate
        .as_ref()
        .and_then(|deflate| deflate.window_bits);
    let extensions = response
        .headers_mut()
        .get_mut(header::SEC_WEBSOCKET_EXTENSIONS);
    if let (Some(bits), Some(extensions)) = (window_bits, extensions) {
        let chosen = extensions.to_str().ok()?;
        let chosen = format!("{chosen}; server_max_window_bits={bits}");
        *extensions = HeaderValue::from_str(&chosen).ok()?;
    }
    let link = async move {
        Ok(Link {
            socket: upgraded.await?.into_streaming(),
            bounds,
            partial: None,
            pong_until: None,
        })
    };
    Some((response.map(Body::new), link))
}

/// A message as it came or is sent.
#[derive(Debug)]
pub enum Message {
    Text(String),
    Binary(Bytes),
    /// A ping is answered here.
    Ping,
    /// Also one that was not asked for.
    Pong,
}

/// How a link ends.
#[derive(Debug)]
pub enum End {
    /// We close it, with this code and reason.
    Close(u16, &'static str),
    /// The peer broke the protocol, so nothing that still comes can be understood.
    Broken(u16, &'static str),
    /// The peer does not take what we send.
    Slow,
    /// The peer asked to close, with this code or none.
    Closed(Option<u16>),
    /// The peer went.
    Gone,
}

pub struct Link {
    socket: Streaming<HttpStream>,
    bounds: Bounds,
    partial: Option<Partial>,
    /// A pong is not sent yet; no further frame is read until it is, or a flood of pings would be queued.
    pong_until: Option<Instant>,
}

impl Link {
    /// The next message. It may be dropped while it waits and loses nothing.
    pub async fn next(&mut self) -> Result<Message, End> {
        loop {
            if let Some(until) = self.pong_until {
                let ready = poll_fn(|context| self.socket.poll_ready_unpin(context));
                taken(timeout_at(until, ready).await)?;
                self.pong_until = None;
            }
            let frame = match &self.partial {
                None => self.socket.next_frame().await,
                Some(partial) => timeout_at(partial.until, self.socket.next_frame())
                    .await
                    .map_err(|_| End::Broken(POLICY, "the rest of a message did not come"))?,
            };
            if let Some(message) = self.take(frame.map_err(End::from)?)? {
                return Ok(message);
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Message>, End> {
        let (opcode, is_last, payload) = frame.into_parts();
        match opcode {
            // yawc bounds only pings.
            OpCode::Pong | OpCode::Close if payload.len() > CONTROL_BYTES_MAX => {
                return Err(End::Broken(PROTOCOL, "a control frame is too long"));
            }
            OpCode::Close => {
                let code = payload.first_chunk::<2>().copied();
                return Err(End::Closed(code.map(u16::from_be_bytes)));
            }
            OpCode::Pong => return Ok(Some(Message::Pong)),
            OpCode::Ping => {
                self.pong_until = Some(Instant::now() + self.bounds.write_time);
                return Ok(Some(Message::Ping));
            }
            OpCode::Text | OpCode::Binary | OpCode::Continuation => {}
        }
        let begins = opcode != OpCode::Continuation;
        let mut partial = match self.partial.take() {
            None if begins => Partial::begin(opcode == OpCode::Text),
            Some(partial) if !begins => partial,
            _ => return Err(End::Broken(PROTOCOL, "fragments of messages are mixed up")),
        };
        if partial.bytes.len() + payload.len() > self.bounds.message_bytes_max {
            return Err(End::Broken(TOO_BIG, "the message is too big"));
        }
        partial.bytes.extend_from_slice(&payload);
        if is_last {
            return partial.whole().map(Some);
        }
        partial.check_text()?;
        self.partial = Some(partial);
        Ok(None)
    }

    pub async fn send(&mut self, message: Message) -> Result<(), End> {
        let frame = match message {
            Message::Text(text) => Frame::text(text),
            Message::Binary(bytes) => Frame::binary(bytes),
            Message::Ping => Frame::ping(Bytes::new()),
            Message::Pong => Frame::pong(Bytes::new()),
        };
        taken(timeout(self.bounds.write_time, self.socket.send(frame)).await)
    }

    /// Sends texts that are UTF-8, the peer having the time of one message for all.
    pub async fn send_texts(&mut self, texts: impl Iterator<Item = Bytes>) -> Result<(), End> {
        let sent = timeout(self.bounds.write_time, async {
            for text in texts {
                self.socket.feed(Frame::text(text)).await?;
            }
            self.socket.flush().await
        });
        taken(sent.await)
    }

    /// Ends the link; the peer hears why, if it listens for another moment.
    pub async fn close(self, end: End) {
        // Whether the peer heard it or not, the link is over.
        drop(timeout(CLOSE_WAIT, self.farewell(end)).await);
    }

    async fn farewell(mut self, end: End) -> Result<(), WebSocketError> {
        let is_broken = matches!(end, End::Broken(..));
        let close = match end {
            End::Gone => return Ok(()),
            End::Close(code, reason) | End::Broken(code, reason) => Some((code, reason)),
            End::Slow => Some((TOO_SLOW, "messages were not taken in time")),
            // yawc holds the answer to the peer's close, and sends it while it waits for what will not come.
            End::Closed(_) => {
                while self.socket.next_frame().await.is_ok() {}
                None
            }
        };
        // yawc may also hold a close frame of its own, with a less fitting code. Below it, ours is the only one.
        // SAFETY: it moves plain values out. yawc calls it unsafe since the caller must keep the protocol from there on;
        // all that is written here is one close frame, the last of this connection.
        let (mut framed, ..) = unsafe { self.socket.split_stream() };
        if let Some((code, reason)) = close {
            framed
                .send(Frame::close(CloseCode::from(code), reason))
                .await?;
            while !is_broken
                && let Some(Ok(frame)) = framed.next().await
                && frame.opcode() != OpCode::Close
            {}
        }
        // Closing with bytes unread would reset the connection, and could take our last frame from the peer.
        let mut stream = framed.into_inner();
        stream.shutdown().await?;
        let mut bytes = [0; BUFFER_BYTES];
        while stream.read(&mut bytes).await? > 0 {}
        Ok(())
    }
}

fn taken(
    written: Result<Result<(), WebSocketError>, tokio::time::error::Elapsed>,
) -> Result<(), End> {
    match written {
        Ok(written) => written.map_err(End::from),
        Err(_) => Err(End::Slow),
    }
}

/// A message of which not every fragment has come.
struct Partial {
    is_text: bool,
    bytes: Vec<u8>,
    /// So many bytes are known to be whole characters.
    checked: usize,
    until: Instant,
}

impl Partial {
    fn begin(is_text: bool) -> Partial {
        Partial {
            is_text,
            bytes: Vec::new(),
            checked: 0,
            until: Instant::now() + FRAGMENTS_TIME,
        }
    }

    /// Bad text is refused with the fragment that spoils it; a character may go on in the next.
    fn check_text(&mut self) -> Result<(), End> {
        if self.is_text {
            self.checked += match std::str::from_utf8(&self.bytes[self.checked..]) {
                Ok(text) => text.len(),
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                Err(_) => return Err(NOT_UTF8),
            };
        }
        Ok(())
    }

    fn whole(self) -> Result<Message, End> {
        match self.is_text {
            true => String::from_utf8(self.bytes)
                .map(Message::Text)
                .map_err(|_| NOT_UTF8),
            false => Ok(Message::Binary(self.bytes.into())),
        }
    }
}

const NOT_UTF8: End = End::Broken(NOT_CONSISTENT, "text is UTF-8");

impl From<WebSocketError> for End {
    fn from(error: WebSocketError) -> End {
        match error {
            WebSocketError::ConnectionClosed => End::Gone,
            // What yawc's inflating says; a connection never does.
            WebSocketError::IoError(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                End::Broken(NOT_CONSISTENT, "the message does not inflate")
            }
            WebSocketError::IoError(_) => End::Gone,
            WebSocketError::FrameTooLarge => End::Broken(TOO_BIG, "the message is too big"),
            WebSocketError::InvalidUTF8 => NOT_UTF8,
            _ => End::Broken(PROTOCOL, "the frame breaks the protocol"),
        }
    }
}

//! `/v1/ws`: the caller's log over a WebSocket (RFC 6455), and commands the other way. The only file that names yawc.
//!
//! Promises: the same events and control objects as every stream, one per text message; a command has the effect, the
//! checks and the errors of its HTTP twin; what a peer inflates is bounded (RFC 7692); a peer that does not take its
//! messages, answer pings or say who it is in time is closed with a code that says so.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::SinkExt;
use tokio::time::{Instant, timeout};
use yawc::close::CloseCode;
use yawc::{
    DeflatePool, Frame, HttpStream, IncomingUpgrade, OpCode, Options, WebSocket, WebSocketError,
};

use crate::frame::Layout;
use crate::http::caller::{self, Caller, CookieRule, Credentials};
use crate::http::commands::{Answer, Commands};
use crate::http::connections::Closing;
use crate::http::error::Problem;
use crate::http::events::{ReadQuery, opening, read_query};
use crate::http::handshake;
use crate::http::state::App;
use crate::http::stream::{self, Frames, Opening, Stream, Turn};

/// A message is at most 64 KiB, counted after inflating; yawc's bounds exclude their own value.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 + 1;
const FRAGMENTS_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// The parts of a fragmented message must arrive within this time.
const FRAGMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter messages are sent as they are: compressing them gains nothing.
const COMPRESSED_FROM_BYTES: usize = 128;
const BUFFER_BYTES: usize = 1024;
/// The wait for the peer's half of a closing handshake.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

const UNAUTHENTICATED: u16 = 4001;
const TOO_SLOW: u16 = 4008;
const DRAINING: u16 = 4010;
const TOO_MANY: u16 = 4029;
const PROTOCOL_ERROR: u16 = 4400;
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const INTERNAL: u16 = 1011;

/// Deflate states shared by all sockets, so that an idle one holds none.
pub struct DeflatePools(DeflatePool);

impl Default for DeflatePools {
    fn default() -> DeflatePools {
        DeflatePools(DeflatePool::new(64))
    }
}

type Socket = WebSocket<HttpStream>;

pub async fn socket(State(app): State<Arc<App>>, mut parts: Parts) -> Result<Response, Problem> {
    let query = read_query(Query::from_request_parts(&mut parts, &()).await)?;
    handshake::check(&parts)?;
    handshake::keep_good_offer(&mut parts.headers);
    let (subprotocol, token) = handshake::subprotocols(&parts.headers)?;
    let has_origin = parts.headers.contains_key(header::ORIGIN);
    if has_origin && !caller::is_origin_allowed(&app, &parts.headers) {
        return Err(Problem::forbidden(
            "pages of this origin may not open sockets here; see server.allowed_origins",
        ));
    }
    let opening = opening("websocket", &parts.headers, &query)?;
    let caller = admit(&app, &parts, &query, token.as_deref()).await?;
    if app.connections.is_draining() {
        return Err(Problem::draining());
    }
    let upgrade = IncomingUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade.map_err(|_| handshake::not_a_socket())?;
    let (response, upgraded) = upgrade
        .upgrade(options(&app))
        .map_err(|_| handshake::not_a_socket())?;
    let mut response = response.map(axum::body::Body::new).into_response();
    if subprotocol {
        let selected = HeaderValue::from_static(handshake::SUBPROTOCOL);
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, selected);
    }
    let address = caller::peer(&parts);
    app.sockets.clone().spawn(async move {
        match upgraded.await {
            Ok(socket) => {
                Conversation {
                    app,
                    socket,
                    address,
                }
                .run(caller, opening)
                .await
            }
            Err(error) => tracing::debug!(%error, "a socket was not taken up"),
        }
    });
    Ok(response)
}

/// The caller, or `None` when it will say who it is in its first message.
async fn admit(
    app: &App,
    parts: &Parts,
    query: &ReadQuery,
    subprotocol_token: Option<&str>,
) -> Result<Option<Caller>, Problem> {
    let named = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    let (ticket, query_token) = (named(&query.ticket), named(&query.access_token));
    let query_token = query_token.filter(|_| app.config.auth.allow_query_token);
    let has_credentials = ticket.is_some()
        || query_token.is_some()
        || subprotocol_token.is_some()
        || parts.headers.contains_key(header::AUTHORIZATION)
        || caller::has_cookie(&parts.headers);
    if !has_credentials {
        return Ok(None);
    }
    let credentials = Credentials {
        ticket: ticket.as_deref(),
        query_token: query_token.as_deref(),
        subprotocol_token,
    };
    let peer = caller::peer(parts);
    let identified = caller::identify(
        app,
        &parts.headers,
        peer,
        &credentials,
        CookieRule::NeedsOrigin,
    )
    .await;
    identified.map(Some).map_err(Problem::from)
}

fn options(app: &App) -> Options {
    let options = Options::default()
        .with_limits(MESSAGE_BYTES_MAX, FRAGMENTS_BYTES_MAX)
        .with_read_buffer_capacity(BUFFER_BYTES)
        .with_write_buffer_capacity(BUFFER_BYTES)
        .with_utf8()
        .with_no_delay()
        .with_fragment_timeout(FRAGMENT_TIMEOUT);
    match app.config.ws.deflate {
        false => options.without_compression(),
        true => options
            .with_low_latency_compression()
            .with_compression_threshold(COMPRESSED_FROM_BYTES)
            .server_no_context_takeover()
            .client_no_context_takeover()
            .with_deflate_pool(app.deflate.0.clone()),
    }
}

/// One open socket.
struct Conversation {
    app: Arc<App>,
    socket: Socket,
    address: std::net::SocketAddr,
}

/// How a conversation ends.
enum End {
    /// Close with this code and reason.
    Close(u16, &'static str),
    /// The peer went, or broke the protocol; yawc's error says how.
    Gone(WebSocketError),
    /// The peer asked to close.
    Closed,
}

impl Conversation {
    async fn run(mut self, caller: Option<Caller>, opening: Opening) {
        let end = match caller {
            Some(caller) => self.open(caller, opening).await,
            None => match self.hear_auth().await {
                Ok(caller) => self.open(caller, opening).await,
                Err(end) => end,
            },
        };
        self.close(end).await;
    }

    /// Waits for the first message, which must say who is there.
    async fn hear_auth(&mut self) -> Result<Caller, End> {
        let patience = self.app.config.ws.auth_timeout_seconds;
        let unauthenticated =
            || End::Close(UNAUTHENTICATED, "say who you are first: {\"op\":\"auth\"}");
        let deadline = Instant::now() + patience;
        loop {
            let Ok(frame) = tokio::time::timeout_at(deadline, self.socket.next_frame()).await
            else {
                return Err(unauthenticated());
            };
            let frame = frame.map_err(End::Gone)?;
            match frame.opcode() {
                OpCode::Text => {}
                OpCode::Close => return Err(End::Closed),
                OpCode::Binary => return Err(End::Close(PROTOCOL_ERROR, "messages are JSON text")),
                _ => continue,
            }
            let Some(auth) = crate::http::commands::parse_auth(frame.as_str()) else {
                return Err(unauthenticated());
            };
            let verified = caller::verify(&self.app, self.address, Some(&auth.token)).await;
            let caller =
                verified.map_err(|_| End::Close(UNAUTHENTICATED, "the token is not valid"))?;
            if let Some(reference) = &auth.reference {
                self.send(crate::frame::reply(reference, "{}").into())
                    .await?;
            }
            return Ok(caller);
        }
    }

    async fn open(&mut self, caller: Caller, opening: Opening) -> End {
        let commands = Commands::new(&self.app, &caller, self.address);
        let opened = stream::open(&self.app, caller, opening).await;
        match opened {
            Ok(stream) => self.talk(stream, commands).await,
            Err(problem) => {
                let code = match problem.code {
                    "too_many_connections" | "server_full" => TOO_MANY,
                    "draining" => DRAINING,
                    _ => INTERNAL,
                };
                End::Close(code, problem.code)
            }
        }
    }

    /// Reads commands and writes deliveries until one side has had enough.
    async fn talk(&mut self, mut stream: Stream, mut commands: Commands) -> End {
        let ping_every = self.app.config.ws.ping_seconds;
        let patience = self.app.config.ws.pong_timeout_seconds;
        let mut pinged: Option<Instant> = None;
        let mut ping_at = Instant::now() + ping_every;
        loop {
            let mut frames = Frames::new(Layout::Bare);
            let timer = pinged.map_or(ping_at, |pinged| pinged + patience);
            let done = tokio::select! {
                biased;
                frame = self.socket.next_frame() => {
                    pinged = None;
                    ping_at = Instant::now() + ping_every;
                    self.hear(&mut stream, &mut commands, frame).await
                }
                turn = stream.turn(&mut frames) => self.tell(&mut stream, frames, turn).await,
                () = tokio::time::sleep_until(timer) => match pinged {
                    Some(_) => Err(End::Close(GOING_AWAY, "no pong came")),
                    None => {
                        pinged = Some(Instant::now());
                        self.send_frame(Frame::ping(&b""[..])).await
                    }
                },
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Takes one incoming message.
    async fn hear(
        &mut self,
        stream: &mut Stream,
        commands: &mut Commands,
        frame: Result<Frame, WebSocketError>,
    ) -> Result<(), End> {
        let frame = frame.map_err(End::Gone)?;
        match frame.opcode() {
            OpCode::Text => {}
            OpCode::Close => {
                // A page that is reloaded says 1001 and comes back; `close()` says 1000 or nothing.
                if matches!(frame.close_code(), None | Some(CloseCode::Normal)) {
                    stream.ended(Closing::Left);
                }
                return Err(End::Closed);
            }
            OpCode::Binary => return Err(End::Close(PROTOCOL_ERROR, "messages are JSON text")),
            // yawc answers pings; pongs only show that the peer lives.
            _ => return Ok(()),
        }
        match commands.run(stream, frame.as_str()).await {
            Answer::Nothing => Ok(()),
            Answer::Text(text) => self.send(text.into()).await,
            Answer::NotACommand => Err(End::Close(
                PROTOCOL_ERROR,
                "a message is a JSON object with an op",
            )),
        }
    }

    /// Writes one turn's messages; a peer that does not take them in time is too slow.
    async fn tell(&mut self, stream: &mut Stream, frames: Frames, turn: Turn) -> Result<(), End> {
        let patience = self.app.config.stream.write_timeout_seconds;
        let written = timeout(patience, async {
            for message in frames.into_messages() {
                self.socket.feed(Frame::text(message)).await?;
            }
            self.socket.flush().await
        });
        match written.await {
            Err(_) => {
                stream.ended(Closing::Slow);
                return Err(End::Close(TOO_SLOW, "messages were not taken in time"));
            }
            Ok(Err(error)) => return Err(End::Gone(error)),
            Ok(Ok(())) => {}
        }
        match turn {
            Turn::Goes => Ok(()),
            Turn::Ends(closing) => Err(End::Close(close_code(closing), closing.reason())),
        }
    }

    async fn send(&mut self, text: bytes::Bytes) -> Result<(), End> {
        self.send_frame(Frame::text(text)).await
    }

    async fn send_frame(&mut self, frame: Frame) -> Result<(), End> {
        let patience = self.app.config.stream.write_timeout_seconds;
        match timeout(patience, self.socket.send(frame)).await {
            Err(_) => Err(End::Close(TOO_SLOW, "messages were not taken in time")),
            Ok(sent) => sent.map_err(End::Gone),
        }
    }

    /// Says why, and waits a moment for the peer's half of the handshake, or a browser would see 1006.
    async fn close(mut self, end: End) {
        let close = match &end {
            End::Closed => None,
            End::Close(code, reason) => Some(Frame::close(CloseCode::from(*code), reason)),
            End::Gone(error) => protocol_close(error),
        };
        let farewell = async {
            if let Some(close) = close {
                self.socket.send(close).await?;
            }
            self.socket.flush().await?;
            while self.socket.next_frame().await.is_ok() {}
            Ok::<(), WebSocketError>(())
        };
        // Whether the peer heard it or not, the socket is over.
        drop(timeout(CLOSE_WAIT, farewell).await);
    }
}

fn close_code(closing: Closing) -> u16 {
    match closing {
        Closing::Drain => DRAINING,
        Closing::Revoked | Closing::TokenExpired => UNAUTHENTICATED,
        Closing::Disconnected => GOING_AWAY,
        Closing::Failed => INTERNAL,
        Closing::Slow => TOO_SLOW,
        Closing::Left => NORMAL,
    }
}

/// What a peer that broke the protocol is told (RFC 6455, section 7.4.1).
fn protocol_close(error: &WebSocketError) -> Option<Frame> {
    let code = match error {
        WebSocketError::InvalidUTF8 => CloseCode::Invalid,
        WebSocketError::FrameTooLarge => CloseCode::Size,
        WebSocketError::FragmentTimeout => CloseCode::Policy,
        WebSocketError::ConnectionClosed | WebSocketError::IoError(_) => return None,
        _ => CloseCode::Protocol,
    };
    Some(Frame::close(code, ""))
}

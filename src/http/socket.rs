//! `/v1/ws`: the caller's log over a WebSocket, and commands the other way.
//!
//! Promises: the same events and control objects as every stream, one per text message; a command has the effect, the
//! checks and the errors of its HTTP twin; a peer that does not take its messages, answer pings or say who it is in time
//! is closed with a code that says so. What a frame is and how one is refused is `link`'s business.

use std::sync::Arc;

use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use tokio::time::{Instant, timeout_at};

use crate::frame::Layout;
use crate::http::caller::{self, Caller, CookieRule, Credentials};
use crate::http::commands::{Answer, Commands};
use crate::http::connections::Closing;
use crate::http::error::Problem;
use crate::http::events::{ReadQuery, opening, read_query, start};
use crate::http::frames::Frames;
use crate::http::handshake;
use crate::http::link::{self, Bounds, Deflate, End, Link, Message};
use crate::http::state::App;
use crate::http::stream::{self, Opening, Stream, Turn};
use crate::metrics::Transport;

const MESSAGE_BYTES_MAX: usize = 64 * 1024;

const UNAUTHENTICATED: u16 = 4001;
const FORBIDDEN: u16 = 4003;
const TOO_SLOW: u16 = 4008;
const DRAINING: u16 = 4010;
const TOO_MANY: u16 = 4029;
const PROTOCOL_ERROR: u16 = 4400;
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const INTERNAL: u16 = 1011;

pub async fn socket(State(app): State<Arc<App>>, mut parts: Parts) -> Result<Response, Problem> {
    let query = read_query(&parts.uri)?;
    handshake::check(&parts)?;
    let window_bits = handshake::keep_good_offer(&mut parts.headers);
    let (subprotocol, token) = handshake::subprotocols(&parts.headers)?;
    let has_origin = parts.headers.contains_key(header::ORIGIN);
    if has_origin && !caller::is_origin_allowed(&app, &parts.headers) {
        return Err(Problem::forbidden(
            "pages of this origin may not open sockets here; see server.allowed_origins",
        ));
    }
    let start = start(&parts.headers, &query);
    let opening = opening(Transport::WebSocket, &parts.headers, &query, start)?;
    let caller = admit(&app, &parts, &query, token.as_deref()).await?;
    if app.connections.is_draining() {
        return Err(Problem::draining());
    }
    let deflate = app.config.ws.deflate.then(|| Deflate {
        pools: app.deflate.clone(),
        window_bits,
    });
    let bounds = Bounds {
        message_bytes_max: MESSAGE_BYTES_MAX,
        write_time: app.config.stream.write_timeout_seconds,
        deflate,
    };
    let upgraded = link::upgrade(&mut parts, bounds).await;
    let (mut response, link) = upgraded.ok_or_else(handshake::not_a_socket)?;
    if subprotocol {
        let selected = HeaderValue::from_static(handshake::SUBPROTOCOL);
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, selected);
    }
    let address = caller::peer(&parts);
    app.sockets.clone().spawn(async move {
        match link.await {
            Ok(link) => {
                Conversation { app, link, address }
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

/// One open socket.
struct Conversation {
    app: Arc<App>,
    link: Link,
    address: std::net::SocketAddr,
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
        self.link.close(end).await;
    }

    /// Waits for the first message, which must say who is there.
    async fn hear_auth(&mut self) -> Result<Caller, End> {
        let patience = self.app.config.ws.auth_timeout_seconds;
        let unauthenticated =
            || End::Close(UNAUTHENTICATED, "say who you are first: {\"op\":\"auth\"}");
        let deadline = Instant::now() + patience;
        loop {
            let Ok(message) = timeout_at(deadline, self.link.next()).await else {
                return Err(unauthenticated());
            };
            let text = match message? {
                Message::Text(text) => text,
                Message::Binary(_) => return Err(NOT_TEXT),
                Message::Ping | Message::Pong => continue,
            };
            let Some(auth) = crate::http::commands::parse_auth(&text) else {
                return Err(unauthenticated());
            };
            let verified = caller::verify(&self.app, self.address, Some(&auth.token)).await;
            let caller =
                verified.map_err(|_| End::Close(UNAUTHENTICATED, "the token is not valid"))?;
            if let Some(reference) = &auth.reference {
                let reply = crate::frame::reply(reference, "{}");
                self.link.send(Message::Text(reply)).await?;
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
        let mut frames = Frames::new(Layout::Bare, 0);
        stream.greet(&mut frames);
        if let Err(end) = self.tell(&mut stream, frames, Turn::Goes).await {
            return end;
        }
        loop {
            let timer = pinged.map_or(ping_at, |pinged| pinged + patience);
            let done = tokio::select! {
                biased;
                message = self.link.next() => {
                    pinged = None;
                    ping_at = Instant::now() + ping_every;
                    self.hear(&mut stream, &mut commands, message).await
                }
                news = stream.news() => {
                    let mut frames = Frames::new(Layout::Bare, 0);
                    let turn = stream.write(news, &mut frames);
                    self.tell(&mut stream, frames, turn).await
                }
                () = tokio::time::sleep_until(timer) => match pinged {
                    Some(_) => Err(End::Close(GOING_AWAY, "no pong came")),
                    None => {
                        pinged = Some(Instant::now());
                        self.link.send(Message::Ping).await
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
        message: Result<Message, End>,
    ) -> Result<(), End> {
        // A page that is reloaded says 1001 and comes back; `close()` says 1000 or nothing.
        if matches!(message, Err(End::Closed(None | Some(NORMAL)))) {
            stream.ended(Closing::Left);
        }
        let text = match message? {
            Message::Text(text) => text,
            Message::Binary(_) => return Err(NOT_TEXT),
            // They only show that the peer lives.
            Message::Ping | Message::Pong => return Ok(()),
        };
        match commands.run(stream, &text).await {
            Answer::Nothing => Ok(()),
            Answer::Text(text) => self.link.send(Message::Text(text)).await,
            Answer::NotACommand => Err(End::Close(
                PROTOCOL_ERROR,
                "a message is a JSON object with an op",
            )),
        }
    }

    /// Writes one turn's messages; a peer that does not take them in time is too slow.
    async fn tell(&mut self, stream: &mut Stream, frames: Frames, turn: Turn) -> Result<(), End> {
        let written = self.link.send_texts(frames.into_messages()).await;
        if matches!(written, Err(End::Slow)) {
            stream.ended(Closing::Slow);
        }
        written?;
        match turn {
            Turn::Goes => Ok(()),
            Turn::Ends(closing) => Err(End::Close(close_code(closing), closing.reason())),
        }
    }
}

const NOT_TEXT: End = End::Close(PROTOCOL_ERROR, "messages are JSON text");

fn close_code(closing: Closing) -> u16 {
    match closing {
        Closing::Drain => DRAINING,
        Closing::Revoked | Closing::TokenExpired => UNAUTHENTICATED,
        Closing::Disconnected => GOING_AWAY,
        Closing::Erased => FORBIDDEN,
        Closing::Failed => INTERNAL,
        Closing::Slow => TOO_SLOW,
        Closing::Left => NORMAL,
    }
}

//! One reader over four transports: what a log yields, in the same words whether it came by SSE, NDJSON, JSON pages
//! or a WebSocket. A scenario is written once against `Reader` and runs over `Transport::ALL`.
//!
//! Promises: every delivery is checked on its way in (`ready` first, `reset` before any event, seqs rising, cursor and
//! seq agreeing, ephemeral events without either). It never reconnects by itself: reconnecting is what tests are about.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use crate::client::{Opened, Reply, WAIT};
use crate::door;
use crate::harness::Server;
use crate::sse::{self, Parser};
use crate::websocket::{self, Handshake, Message, Socket};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Sse,
    Ndjson,
    Poll,
    Socket,
}

impl Transport {
    pub const ALL: [Transport; 4] = [
        Transport::Sse,
        Transport::Ndjson,
        Transport::Poll,
        Transport::Socket,
    ];
    /// Those that stay open and send control objects.
    pub const OPEN: [Transport; 3] = [Transport::Sse, Transport::Ndjson, Transport::Socket];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ready,
    Event,
    Signal,
    Live,
    Ping,
    Reset,
    Snapshot,
    Auth,
    Bye,
    Error,
    Reply,
    /// The stream or the connection ended; for a WebSocket `json` is the close code.
    End,
}

#[derive(Debug, Clone)]
pub struct Delivery {
    pub kind: Kind,
    pub json: Value,
    /// Where a client that has processed this may resume.
    pub cursor: Option<String>,
    /// The `retry:` that came with it.
    pub retry: Option<u64>,
    /// As it came: a frame, a line, a message. Empty for JSON pages.
    pub raw: String,
}

impl Delivery {
    #[track_caller]
    pub fn seq(&self) -> u64 {
        self.json["seq"]
            .as_u64()
            .unwrap_or_else(|| panic!("no seq: {self:?}"))
    }

    pub fn str(&self, name: &str) -> &str {
        self.json[name].as_str().unwrap_or("")
    }
}

/// Where and how to read.
#[derive(Clone, Debug)]
pub struct Ask {
    pub token: String,
    /// Query without format, such as `cursor=…&types=a.*`.
    pub query: String,
    pub last_event_id: Option<String>,
}

impl Ask {
    pub fn user(name: &str) -> Ask {
        Ask {
            token: crate::tokens::user(name),
            query: String::new(),
            last_event_id: None,
        }
    }

    pub fn token(token: &str) -> Ask {
        Ask {
            token: token.to_owned(),
            ..Ask::user("")
        }
    }

    pub fn query(mut self, query: &str) -> Ask {
        self.query = query.to_owned();
        self
    }

    pub fn cursor(self, cursor: &str) -> Ask {
        let query = format!("cursor={cursor}");
        self.query(&query)
    }

    pub fn last_event_id(mut self, id: &str) -> Ask {
        self.last_event_id = Some(id.to_owned());
        self
    }

    fn path(&self, base: &str) -> String {
        match (self.query.is_empty(), base.contains('?')) {
            (true, _) => base.to_owned(),
            (false, true) => format!("{base}&{}", self.query),
            (false, false) => format!("{base}?{}", self.query),
        }
    }
}

pub struct Reader {
    source: Source,
    waiting: VecDeque<Delivery>,
    cursor: Option<String>,
    greatest_seq: u64,
    has_begun: bool,
    has_data: bool,
    pub wait: Duration,
}

enum Source {
    Sse {
        body: Opened,
        parser: Parser,
    },
    Ndjson {
        body: Opened,
        bytes: Vec<u8>,
    },
    Poll {
        address: std::net::SocketAddr,
        ask: Ask,
        is_live: bool,
    },
    Socket(Box<Socket>),
}

/// Opens a reader that must be let in.
pub async fn open(server: &Server, transport: Transport, ask: &Ask) -> Reader {
    match try_open(server, transport, ask).await {
        Ok(reader) => reader,
        Err(reply) => panic!("{transport:?} was refused: {reply:?}"),
    }
}

/// Opens a reader, or gives the refusal. A JSON page is asked for at the first `next` only.
pub async fn try_open(server: &Server, transport: Transport, ask: &Ask) -> Result<Reader, Reply> {
    let stream = async |accept: &str| {
        let mut call = server.get(&ask.path("/v1/events")).header("accept", accept);
        call = call.token(&ask.token);
        if let Some(id) = &ask.last_event_id {
            call = call.header("last-event-id", id);
        }
        call.open().await
    };
    let source = match transport {
        Transport::Sse => Source::Sse {
            body: stream("text/event-stream").await?,
            parser: Parser::default(),
        },
        Transport::Ndjson => Source::Ndjson {
            body: stream("application/x-ndjson").await?,
            bytes: Vec::new(),
        },
        Transport::Poll => Source::Poll {
            address: server.address,
            ask: ask.clone(),
            is_live: false,
        },
        Transport::Socket => {
            let mut handshake = Handshake::default().token(&ask.token);
            if let Some(id) = &ask.last_event_id {
                handshake = handshake.header("Last-Event-ID", id);
            }
            let path = ask.path("/v1/ws");
            Source::Socket(Box::new(
                websocket::connect(server.address, &path, handshake).await?,
            ))
        }
    };
    Ok(Reader::of(source))
}

impl Reader {
    fn of(source: Source) -> Reader {
        Reader {
            source,
            waiting: VecDeque::new(),
            cursor: None,
            greatest_seq: 0,
            has_begun: false,
            has_data: false,
            wait: WAIT,
        }
    }

    /// Reads an SSE stream that a test opened in a way of its own.
    pub fn of_sse(body: Opened) -> Reader {
        Reader::of(Source::Sse {
            body,
            parser: Parser::default(),
        })
    }

    pub fn of_ndjson(body: Opened) -> Reader {
        Reader::of(Source::Ndjson {
            body,
            bytes: Vec::new(),
        })
    }

    pub fn of_socket(socket: Socket) -> Reader {
        Reader::of(Source::Socket(Box::new(socket)))
    }

    /// Where this reader may resume.
    #[track_caller]
    pub fn cursor(&self) -> &str {
        self.cursor
            .as_deref()
            .expect("something with a cursor has come")
    }

    /// The socket below, to send something.
    pub fn socket(&mut self) -> &mut Socket {
        match &mut self.source {
            Source::Socket(socket) => socket,
            _ => panic!("this reader is no WebSocket"),
        }
    }

    /// The next delivery, whatever it is.
    pub async fn next(&mut self) -> Delivery {
        while self.waiting.is_empty() {
            self.read().await;
        }
        let delivery = self.waiting.pop_front().expect("not empty");
        self.check(&delivery);
        if delivery.cursor.is_some() {
            self.cursor.clone_from(&delivery.cursor);
        }
        delivery
    }

    /// The next delivery of `kind`; what stands before it is skipped, except the end.
    pub async fn next_of(&mut self, kind: Kind) -> Delivery {
        loop {
            let delivery = self.next().await;
            if delivery.kind == kind {
                return delivery;
            }
            assert_ne!(delivery.kind, Kind::End, "ended before any {kind:?}");
        }
    }

    /// Waits for `count` events, and for nothing that would say that the reader lost its place.
    pub async fn events(&mut self, count: usize) -> Vec<Delivery> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            let delivery = self.next().await;
            match delivery.kind {
                Kind::Event => events.push(delivery),
                Kind::Ready | Kind::Live | Kind::Ping | Kind::Signal | Kind::Snapshot => {}
                _ => panic!("{delivery:?} after {} of {count} events", events.len()),
            }
        }
        events
    }

    pub async fn seqs(&mut self, count: usize) -> Vec<u64> {
        self.events(count).await.iter().map(Delivery::seq).collect()
    }

    /// All events up to `live`.
    pub async fn events_until_live(&mut self) -> Vec<Delivery> {
        let mut events = Vec::new();
        loop {
            let delivery = self.next().await;
            match delivery.kind {
                Kind::Live => return events,
                Kind::Event => events.push(delivery),
                Kind::Ready | Kind::Ping | Kind::Signal | Kind::Snapshot | Kind::Reset => {}
                _ => panic!("{delivery:?} before live"),
            }
        }
    }

    async fn read(&mut self) {
        match &mut self.source {
            Source::Sse { body, parser } => match body.next(self.wait).await {
                Some(bytes) => {
                    parser.feed(&bytes);
                    self.waiting
                        .extend(std::iter::from_fn(|| parser.next_frame()).map(of_frame));
                }
                None => self.waiting.push_back(end(Value::Null)),
            },
            Source::Ndjson { body, bytes } => match body.next(self.wait).await {
                Some(more) => {
                    bytes.extend_from_slice(&more);
                    while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
                        let line: Vec<u8> = bytes.drain(..=end).collect();
                        let line = String::from_utf8(line).expect("NDJSON is UTF-8");
                        self.waiting.push_back(of_text(&line));
                    }
                }
                None => {
                    assert!(bytes.is_empty(), "half a line at the end: {bytes:?}");
                    self.waiting.push_back(end(Value::Null));
                }
            },
            Source::Poll {
                address,
                ask,
                is_live,
            } => {
                let ask = match &self.cursor {
                    Some(cursor) => Ask {
                        last_event_id: None,
                        ..following(ask, cursor)
                    },
                    None => ask.clone(),
                };
                let page = page_of(*address, &ask, self.wait).await;
                self.waiting.extend(of_page(&page, is_live));
            }
            Source::Socket(socket) => {
                let delivery = match socket.next_within(self.wait).await {
                    Message::Text(text) => of_text(&text),
                    Message::Close(code, _) => end(Value::from(code)),
                    Message::End => end(Value::Null),
                    Message::Ping(_) | Message::Pong(_) => return,
                };
                self.waiting.push_back(delivery);
            }
        }
    }

    #[track_caller]
    fn check(&mut self, delivery: &Delivery) {
        let is_poll = matches!(self.source, Source::Poll { .. });
        if !self.has_begun {
            let may_begin = matches!(delivery.kind, Kind::Ready | Kind::Error | Kind::End);
            assert!(is_poll || may_begin, "the first delivery was {delivery:?}");
        }
        self.has_begun = true;
        match delivery.kind {
            Kind::Event => {
                let seq = delivery.seq();
                assert!(
                    seq > self.greatest_seq,
                    "seq {seq} after {}",
                    self.greatest_seq
                );
                self.greatest_seq = seq;
                self.has_data = true;
                check_event(delivery);
            }
            Kind::Signal => {
                let json = &delivery.json;
                assert!(
                    json.get("seq").is_none() && json.get("cursor").is_none(),
                    "{json}"
                );
            }
            Kind::Reset => {
                assert!(!self.has_data, "reset after an event: {delivery:?}");
                check_reset(&delivery.json);
            }
            _ => {}
        }
    }
}

#[track_caller]
fn check_event(delivery: &Delivery) {
    let json = &delivery.json;
    assert_eq!(json["v"], 1, "{json}");
    let cursor = delivery.str("cursor");
    assert!(sse::is_cursor(cursor), "the cursor of {json}");
    assert!(
        cursor.ends_with(&format!("-{}", delivery.seq())),
        "cursor and seq of {json}"
    );
    assert_eq!(
        delivery.cursor.as_deref(),
        Some(cursor),
        "the id line of {delivery:?}"
    );
    for name in ["id", "type", "time"] {
        assert!(!delivery.str(name).is_empty(), "no {name} in {json}");
    }
    let time = delivery.str("time");
    let is_rfc3339 = time.len() == 24 && time.ends_with('Z') && time.as_bytes()[19] == b'.';
    assert!(is_rfc3339, "the time of {json}");
    assert!(json.get("data").is_some(), "{json}");
    let known = [
        "v", "id", "seq", "cursor", "type", "time", "topic", "actor", "data",
    ];
    for name in json.as_object().expect("an event is an object").keys() {
        assert!(
            known.contains(&name.as_str()),
            "the member {name} of {json}"
        );
    }
}

#[track_caller]
pub fn check_reset(json: &Value) {
    let reasons = ["trimmed", "epoch", "ahead", "malformed"];
    let reason = json["reason"].as_str().unwrap_or("");
    assert!(reasons.contains(&reason), "{json}");
    assert!(json["earliest"].is_u64(), "{json}");
    assert!(
        sse::is_cursor(json["head"].as_str().unwrap_or("")),
        "{json}"
    );
    assert_eq!(json["state"], "/v1/state", "{json}");
    assert!(json.get("requested").is_some(), "{json}");
}

fn end(json: Value) -> Delivery {
    Delivery {
        kind: Kind::End,
        json,
        cursor: None,
        retry: None,
        raw: String::new(),
    }
}

fn of_frame(frame: sse::Frame) -> Delivery {
    frame.check();
    let json = frame.data();
    let kind = match frame.event() {
        Some("error") => Kind::Error,
        Some("snapshot") => Kind::Snapshot,
        _ => kind_of(&json),
    };
    if kind == Kind::Error {
        let status = json["status"]
            .as_u64()
            .and_then(|status| status.try_into().ok());
        door::check_problem_object(&json, status.unwrap_or(0));
    } else if kind != Kind::Event && kind != Kind::Signal {
        let name = frame.event().unwrap_or("");
        assert_eq!(json["type"], format!("sys.{name}"), "{:?}", frame.raw);
    }
    let is_named_by_cursor = !matches!(kind, Kind::Reset | Kind::Snapshot | Kind::Ping);
    if let (true, Some(id)) = (is_named_by_cursor, frame.id()) {
        assert_eq!(json["cursor"], id, "id and cursor of {:?}", frame.raw);
    }
    let (cursor, retry) = (frame.id().map(str::to_owned), frame.retry());
    Delivery {
        kind,
        json,
        cursor,
        retry,
        raw: frame.raw,
    }
}

/// One line or one message; what is a cursor there stands in the JSON.
fn of_text(text: &str) -> Delivery {
    let json: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    let kind = kind_of(&json);
    let cursor = match (kind, json["cursor"].as_str()) {
        (Kind::Reset, None) => json["head"].as_str(),
        (_, cursor) => cursor,
    };
    Delivery {
        kind,
        cursor: cursor.map(str::to_owned),
        json,
        retry: None,
        raw: text.to_owned(),
    }
}

fn kind_of(json: &Value) -> Kind {
    match json["type"].as_str().unwrap_or("") {
        "sys.ready" => Kind::Ready,
        "sys.live" => Kind::Live,
        "sys.ping" => Kind::Ping,
        "sys.reset" => Kind::Reset,
        "sys.snapshot" => Kind::Snapshot,
        "sys.auth" => Kind::Auth,
        "sys.bye" => Kind::Bye,
        "sys.error" => Kind::Error,
        "sys.reply" => Kind::Reply,
        other if other.starts_with("sys.") => panic!("an unknown control object: {json}"),
        _ if json["ephemeral"] == true => Kind::Signal,
        _ => Kind::Event,
    }
}

/// The same question, but from `cursor` on.
fn following(ask: &Ask, cursor: &str) -> Ask {
    let kept = ask.query.split('&').filter(|part| {
        let name = part.split('=').next().unwrap_or("");
        ![
            "cursor",
            "since",
            "last_event_id",
            "lastEventId",
            "on_gap",
            "",
        ]
        .contains(&name)
    });
    let mut query: Vec<String> = kept.map(str::to_owned).collect();
    query.push(format!("cursor={cursor}"));
    ask.clone().query(&query.join("&"))
}

async fn page_of(address: std::net::SocketAddr, ask: &Ask, wait: Duration) -> Value {
    let path = ask.path("/v1/events?format=json");
    let mut call = crate::client::Call::new(address, "GET", &path).token(&ask.token);
    if let Some(id) = &ask.last_event_id {
        call = call.header("last-event-id", id);
    }
    let page = call.send_within(wait).await.expect(200);
    check_page(&page);
    page
}

/// What PROTOCOL.md section 3.3 says of every page.
#[track_caller]
pub fn check_page(page: &Value) {
    let members = page.as_object().expect("a page is an object");
    let known = [
        "events",
        "ephemeral",
        "cursor",
        "head",
        "more",
        "reset",
        "poll_after_ms",
    ];
    for name in known {
        assert!(members.contains_key(name), "no {name} in {page}");
    }
    for name in members.keys() {
        assert!(
            known.contains(&name.as_str()) || name == "snapshot",
            "{name} in {page}"
        );
    }
    assert!(
        page["events"].is_array() && page["ephemeral"].is_array(),
        "{page}"
    );
    assert!(
        page["more"].is_boolean() && page["poll_after_ms"].is_u64(),
        "{page}"
    );
    for name in ["cursor", "head"] {
        assert!(
            sse::is_cursor(page[name].as_str().unwrap_or("")),
            "the {name} of {page}"
        );
    }
    if !page["reset"].is_null() {
        check_reset(&page["reset"]);
    }
    let last = page["events"].as_array().and_then(|events| events.last());
    if let (Some(last), false) = (last, page["more"] == true) {
        let (seq, end) = (
            last["seq"].as_u64(),
            seq_of(page["cursor"].as_str().unwrap_or("")),
        );
        assert!(
            seq <= Some(end),
            "the page's cursor stands before its last event: {page}"
        );
    }
}

pub fn seq_of(cursor: &str) -> u64 {
    let seq = cursor.split_once('-').and_then(|(_, seq)| seq.parse().ok());
    seq.unwrap_or_else(|| panic!("{cursor:?} is no cursor"))
}

pub fn epoch_of(cursor: &str) -> &str {
    cursor.split_once('-').map_or("", |(epoch, _)| epoch)
}

/// The deliveries that one page stands for, `live` where the reader has caught up for the first time.
fn of_page(page: &Value, is_live: &mut bool) -> Vec<Delivery> {
    let page_cursor = page["cursor"].as_str().map(str::to_owned);
    let plain = |kind, json: &Value, cursor| Delivery {
        kind,
        json: json.clone(),
        cursor,
        retry: None,
        raw: String::new(),
    };
    let mut deliveries = Vec::new();
    if !page["reset"].is_null() {
        let cursor = page["reset"]["cursor"].as_str().map(str::to_owned);
        deliveries.push(plain(Kind::Reset, &page["reset"], cursor));
    }
    for event in page["events"].as_array().into_iter().flatten() {
        let cursor = event["cursor"].as_str().map(str::to_owned);
        deliveries.push(plain(Kind::Event, event, cursor));
    }
    for signal in page["ephemeral"].as_array().into_iter().flatten() {
        deliveries.push(plain(Kind::Signal, signal, None));
    }
    let is_caught_up = page["more"] == false && !*is_live;
    *is_live |= is_caught_up;
    let kind = if is_caught_up { Kind::Live } else { Kind::Ping };
    deliveries.push(plain(kind, &Value::Null, page_cursor));
    deliveries
}

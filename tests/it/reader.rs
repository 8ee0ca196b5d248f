//! One reader over four transports. A scenario is written once against `Reader` and runs over `Transport::ALL`.
//!
//! Promises: `ready` comes first, `reset` before any event, seqs rise. It remembers the cursor of the last delivery
//! that had one, and never reconnects by itself: reconnecting is what tests are about.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use crate::client::{Call, Opened, Reply, WAIT};
use crate::delivery::{self, Delivery, Kind};
use crate::harness::Server;
use crate::sse::Parser;
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
                        .extend(std::iter::from_fn(|| parser.next_frame()).map(delivery::of_frame));
                }
                None => self.waiting.push_back(delivery::end(Value::Null)),
            },
            Source::Ndjson { body, bytes } => match body.next(self.wait).await {
                Some(more) => {
                    bytes.extend_from_slice(&more);
                    while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
                        let line: Vec<u8> = bytes.drain(..=end).collect();
                        let line = String::from_utf8(line).expect("NDJSON is UTF-8");
                        self.waiting.push_back(delivery::of_text(&line));
                    }
                }
                None => {
                    assert!(bytes.is_empty(), "half a line at the end: {bytes:?}");
                    self.waiting.push_back(delivery::end(Value::Null));
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
                self.waiting.extend(delivery::of_page(&page, is_live));
            }
            Source::Socket(socket) => {
                let delivery = match socket.next_within(self.wait).await {
                    Message::Text(text) => delivery::of_text(&text),
                    Message::Close(code, _) => delivery::end(Value::from(code)),
                    Message::End => delivery::end(Value::Null),
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
                delivery::check_event(delivery);
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
                delivery::check_reset(&delivery.json);
            }
            _ => {}
        }
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
    if !ask.query.contains("wait=") {
        query.push("wait=5".to_owned());
    }
    ask.clone().query(&query.join("&"))
}

async fn page_of(address: std::net::SocketAddr, ask: &Ask, wait: Duration) -> Value {
    // The first page comes at once, the following ones when there is something.
    let has_wait = ask.query.contains("wait=");
    let base = if has_wait {
        "/v1/events?format=json"
    } else {
        "/v1/events?format=json&wait=0"
    };
    let path = ask.path(base);
    let mut call = Call::new(address, "GET", &path).token(&ask.token);
    if let Some(id) = &ask.last_event_id {
        call = call.header("last-event-id", id);
    }
    let page = call.send_within(wait).await.expect(200);
    delivery::check_page(&page);
    page
}

//! Readers: they follow one user's log over SSE, NDJSON, WebSocket and long poll, and resume where they stopped.
//!
//! A reader knows only what it has read: its cursor is the last one it was told. It changes transports between
//! connections and leaves connections at random, as people do. Everything it sees goes to the history unjudged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use fastrand::Rng;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, handshake};

use crate::delivery;
use crate::history::{Invariant, Op, Origin, Position, Read, Recorder, Reset, Transport};
use crate::http::{ANSWER_TIME_MAX, Ask, Link, Target};
use crate::sse::SseParser;

pub const TRANSPORTS: [Transport; 4] = [
    Transport::Sse,
    Transport::Poll,
    Transport::Ndjson,
    Transport::Socket,
];

/// What a stalled reader's end holds at most.
const NARROW_BYTES: u32 = 32 * 1024;

/// How far a reader is; the reader writes it, the row that waits for it reads it.
#[derive(Clone, Default)]
pub struct Progress {
    position: Arc<Mutex<Option<Position>>>,
}

impl Progress {
    pub fn position(&self) -> Option<Position> {
        self.position
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, position: Position) {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
    }

    pub fn is_at(&self, head: &Position) -> bool {
        self.position()
            .is_some_and(|position| position.epoch == head.epoch && position.seq >= head.seq)
    }
}

pub struct Reader {
    pub name: String,
    pub user: String,
    pub token: String,
    pub target: Target,
    pub recorder: Recorder,
    pub transports: Vec<Transport>,
    /// Where to begin while nothing was read yet.
    pub origin: Origin,
    /// After a reset, go on from the oldest event instead of the head.
    pub on_gap_earliest: bool,
    /// Connections end by themselves within this time.
    pub lifetime_max: Duration,
    /// After its first piece this reader takes nothing from its narrow connection until it is told to go on.
    pub stall: Option<watch::Receiver<bool>>,
    pub progress: Progress,
    pub rng: Rng,
}

impl Reader {
    /// Reads until told to stop.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        // A row that was broken off drops the other end.
        while !*stop.borrow() && stop.has_changed().is_ok() {
            if self.target.address().is_none() {
                sleep(Duration::from_millis(10)).await;
                continue;
            }
            let lifetime = self.lifetime_max.mul_f64(0.05 + 0.95 * self.rng.f64());
            tokio::select! {
                biased;
                _ = stop.changed() => {}
                // A lost connection is part of the game; what matters is where the reader goes on.
                _ = timeout(lifetime, self.connect()) => {}
            }
            self.note(Read::End);
            tokio::select! {
                biased;
                _ = stop.changed() => {}
                () = sleep(Duration::from_millis(self.rng.u64(1..40))) => {}
            }
        }
        self.note(Read::Leave);
    }

    /// One connection from its request to its end.
    pub async fn connect(&mut self) -> Result<()> {
        let transport = self.transports[self.rng.usize(0..self.transports.len())];
        match transport {
            Transport::Sse => self.follow_sse().await,
            Transport::Ndjson => self.follow_ndjson().await,
            Transport::Socket => self.follow_socket().await,
            Transport::Poll => self.poll().await,
        }
    }

    fn invoke(&self, transport: Transport) -> String {
        let origin = match self.progress.position() {
            Some(position) => Origin::After(position),
            None => self.origin.clone(),
        };
        let cursor = match &origin {
            Origin::After(position) => position.to_string(),
            Origin::Start => "start".to_owned(),
            Origin::Now => "now".to_owned(),
        };
        self.note(Read::Invoke {
            user: self.user.clone(),
            transport,
            origin,
        });
        cursor
    }

    fn query(&self, cursor: &str) -> String {
        let on_gap = if self.on_gap_earliest {
            "&on_gap=earliest"
        } else {
            ""
        };
        format!("cursor={cursor}{on_gap}")
    }

    async fn open(&self) -> Result<Link> {
        let address = self.target.required()?;
        match self.stall {
            Some(_) => Link::open_narrow(address, NARROW_BYTES).await,
            None => Link::open(address).await,
        }
    }

    async fn follow_sse(&mut self) -> Result<()> {
        let cursor = self.invoke(Transport::Sse);
        let mut ask = Ask::get(format!("/v1/events?{}", self.query(&cursor)), &self.token);
        ask.accept = Some("text/event-stream");
        if self.progress.position().is_some() {
            // As a browser does: the query still says where it began once, the header says where it is.
            ask.path = format!("/v1/events?{}", self.query("start"));
            ask.last_event_id = Some(cursor);
        }
        let mut parser = SseParser::default();
        self.follow_body(&ask, |reader, bytes| {
            for frame in parser.push(&bytes) {
                reader.take(delivery::understand_sse(&frame));
            }
        })
        .await
    }

    async fn follow_ndjson(&mut self) -> Result<()> {
        let cursor = self.invoke(Transport::Ndjson);
        let ask = Ask::get(
            format!("/v1/events?format=ndjson&{}", self.query(&cursor)),
            &self.token,
        );
        let mut rest: Vec<u8> = Vec::new();
        self.follow_body(&ask, |reader, bytes| {
            rest.extend_from_slice(&bytes);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if line.len() > 1 {
                    reader.take_json(&line);
                }
            }
        })
        .await
    }

    async fn follow_body(&mut self, ask: &Ask, mut take: impl FnMut(&Reader, Bytes)) -> Result<()> {
        let response = self.open().await?.stream(ask).await?;
        ensure!(response.status() == 200, "status {}", response.status());
        let mut body = response.into_body();
        loop {
            let Some(frame) = body.frame().await else {
                return Ok(());
            };
            if let Ok(bytes) = frame?.into_data() {
                take(self, bytes);
            }
            if let Some(go_on) = &mut self.stall {
                // Whoever stalled the reader is gone: there is nothing left to wait for.
                go_on.wait_for(|go_on| *go_on).await.ok();
            }
        }
    }

    async fn follow_socket(&mut self) -> Result<()> {
        let cursor = self.invoke(Transport::Socket);
        let path = format!("/v1/ws?{}", self.query(&cursor));
        let stream = timeout(
            ANSWER_TIME_MAX,
            open_socket(&self.target, &path, &self.token),
        )
        .await;
        let mut socket = stream.context("no handshake in time")??;
        while let Some(message) = socket.next().await {
            match message? {
                Message::Text(text) => self.take_json(text.as_bytes()),
                Message::Close(_) => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Long polls over one connection; in the history each poll is a connection of its own.
    async fn poll(&mut self) -> Result<()> {
        let mut link = self.open().await?;
        loop {
            let cursor = self.invoke(Transport::Poll);
            let limit = self.rng.u32(1..200);
            let query = self.query(&cursor);
            // Well below the 5 s within which a reader must be at the head: one that starts there hears of it only by the
            // answer to its poll.
            let path = format!("/v1/events?format=json&wait=2&limit={limit}&{query}");
            let answer = link.ask(&Ask::get(path, &self.token)).await?;
            if !answer.is_success() {
                bail!("status {}", answer.status);
            }
            match delivery::understand_page(&answer.body) {
                Ok(reads) => reads.into_iter().for_each(|read| self.take(Ok(Some(read)))),
                Err(reason) => self.take(Err(reason)),
            }
            self.note(Read::End);
        }
    }

    fn take_json(&self, bytes: &[u8]) {
        let value = serde_json::from_slice::<Value>(bytes).map_err(|error| error.to_string());
        self.take(value.and_then(|value| match delivery::understand(&value)? {
            // Without an id line a reset need not say where it goes on; this reader asked for it, so it knows.
            Some(Read::Reset(reset)) if value["cursor"].is_null() && self.on_gap_earliest => {
                let position = Position {
                    seq: reset.earliest.saturating_sub(1),
                    ..reset.head.clone()
                };
                Ok(Some(Read::Reset(Reset { position, ..reset })))
            }
            read => Ok(read),
        }));
    }

    fn take(&self, understood: Result<Option<Read>, String>) {
        let read = match understood {
            Ok(None) => return,
            Ok(Some(read)) => read,
            Err(reason) => {
                let what = format!("{} of {} cannot understand: {reason}", self.name, self.user);
                return self.recorder.claim(Invariant::Agree, false, what);
            }
        };
        match &read {
            // `ready` tells what was asked; it moves nobody but who asked for no place.
            Read::Ready { position } if self.progress.position().is_none() => {
                self.progress.set(position.clone())
            }
            Read::Reached { position } => self.progress.set(position.clone()),
            Read::Event(seen) => self.progress.set(seen.position.clone()),
            Read::Reset(reset) => self.progress.set(reset.position.clone()),
            _ => {}
        }
        self.note(read);
    }

    fn note(&self, read: Read) {
        self.recorder.record(&self.name, Op::Read(read));
    }
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

pub async fn open_socket(target: &Target, path: &str, token: &str) -> Result<Socket> {
    let address = target.required()?;
    let mut request = format!("ws://{address}{path}").into_client_request()?;
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", "tidings.v1".parse()?);
    if !token.is_empty() {
        headers.insert("authorization", format!("Bearer {token}").parse()?);
    }
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (socket, _): (Socket, handshake::client::Response) =
        tokio_tungstenite::client_async(request, stream).await?;
    Ok(socket)
}

//! A slow reader costs a cursor, not a queue: 50,000 events of 300 bytes pass a socket that no one reads, memory stays
//! where it was but for the ring, and then the reader gets them all, in order.
//!
//! Promises: the receive buffer is small, so that the kernel does not hold the events. It measures resident memory.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Options, Server, eventually, spawn};
use crate::reader::{Ask, Transport, try_open};
use crate::sse::{Frame, Parser};
use crate::tokens;

const EVENTS: u64 = 50_000;
/// After these the ring of recent events and the page cache are full.
const WARM_EVENTS: u64 = 20_000;
/// What the server may grow by while 30,000 more events (9 MB) pass the reader.
const GROWTH_BYTES_MAX: u64 = 8 << 20;
const RING_BYTES: u64 = 4 << 20;
const CACHE_BYTES: u64 = 4 << 20;

/// A server whose caches are small, and which has patience.
fn options() -> Options {
    Options::new()
        .set("log.retention_events", 0)
        .set("store.ring_bytes", RING_BYTES)
        .set("store.cache_bytes", CACHE_BYTES)
        .set("limits.publish_per_second", 1_000_000)
        .set("stream.write_timeout_seconds", 600)
}

/// An SSE reader that reads only when it is asked to.
struct Stalled {
    stream: TcpStream,
    body: Unchunked,
    parser: Parser,
}

impl Stalled {
    /// Opens alice's log with a small receive buffer, and reads what comes first.
    async fn open(server: &Server) -> Stalled {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        let mut stream = socket.connect(server.address).await.unwrap();
        let token = tokens::user("alice");
        let request = format!(
            "GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stalled = Stalled {
            stream,
            body: Unchunked::default(),
            parser: Parser::default(),
        };
        while stalled.next().await.event() != Some("live") {}
        stalled
    }

    async fn next(&mut self) -> Frame {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            if let Some(frame) = self.parser.next_frame() {
                let event = frame.event();
                assert!(
                    !matches!(event, Some("reset" | "bye" | "error")),
                    "{:?}",
                    frame.raw
                );
                return frame;
            }
            let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read(&mut bytes));
            let count = read
                .await
                .expect("the stream goes on")
                .expect("the stream is open");
            assert!(count > 0, "the stream ended");
            self.parser.feed(&self.body.feed(&bytes[..count]));
        }
    }
}

#[tokio::test]
async fn a_reader_that_stalls_for_fifty_thousand_events_reads_them_all() {
    let server = spawn(options());
    let mut stalled = Stalled::open(&server).await;
    publish_all(&server, 0..WARM_EVENTS).await;
    let before = server.resident_bytes();
    publish_all(&server, WARM_EVENTS..EVENTS).await;
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(
        grown < GROWTH_BYTES_MAX,
        "the server grew by {} KiB",
        grown / 1024
    );
    let mut next = 1;
    while next <= EVENTS {
        let frame = stalled.next().await;
        let data = frame.data();
        if let Some(seq) = data["seq"].as_u64() {
            let found = (seq, data["data"]["n"].as_u64());
            assert_eq!(found, (next, Some(next - 1)), "{:?}", frame.raw);
            next += 1;
        }
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn of_signals_a_slow_reader_gets_the_latest_of_each_key() {
    let server = spawn(options());
    let mut stalled = Stalled::open(&server).await;
    // More than the buffers of both sides hold, so that the signals find a reader that takes nothing.
    publish_all(&server, 0..30_000).await;
    let before = server.resident_bytes();
    let padding = "x".repeat(4000);
    for n in 0..1000 {
        for event_type in ["signal.pointer", "signal.drawing"] {
            let data = json!({"n": n, "padding": padding});
            server.signal("alice", event_type, data).await.expect(201);
        }
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(
        grown < GROWTH_BYTES_MAX,
        "the server grew by {} KiB",
        grown / 1024
    );
    let (mut pointers, mut drawings, mut seq) = (Vec::new(), Vec::new(), 0);
    while seq < 30_000 || pointers.is_empty() || drawings.is_empty() {
        let data = stalled.next().await.data();
        let n = data["data"]["n"].as_u64();
        match data["type"].as_str() {
            Some("signal.pointer") => pointers.extend(n),
            Some("signal.drawing") => drawings.extend(n),
            _ => seq = data["seq"].as_u64().unwrap_or(seq),
        }
    }
    for found in [pointers, drawings] {
        assert!(found.len() < 10 && found.last() == Some(&999), "{found:?}");
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_let_go() {
    let options = options().set("stream.write_timeout_seconds", 0.5);
    let server = spawn(options.set("limits.connections_per_user", 1));
    let _stalled = Stalled::open(&server).await;
    publish_all(&server, 0..30_000).await;
    eventually("its place is free again", async || {
        let ask = Ask::user("alice").cursor("-1");
        match try_open(&server, Transport::Ndjson, &ask).await {
            Err(_) => false,
            Ok(mut reader) => reader.events(1).await[0].seq() == 30_000,
        }
    })
    .await;
    server.assert_healthy().await;
}

async fn publish_all(server: &Server, numbers: std::ops::Range<u64>) {
    let padding = "x".repeat(180);
    let event = |n: u64| json!({"to": {"user": "alice"}, "type": "note.new", "data": {"n": n, "padding": padding}});
    let numbers: Vec<u64> = numbers.collect();
    for chunk in numbers.chunks(500) {
        let events: Vec<Value> = chunk.iter().map(|&n| event(n)).collect();
        server
            .publish(&json!({ "events": events }))
            .await
            .expect(200);
    }
}

/// Takes the head and the chunk sizes off an HTTP/1.1 reply.
#[derive(Default)]
struct Unchunked {
    bytes: Vec<u8>,
    is_past_head: bool,
}

impl Unchunked {
    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.bytes.extend_from_slice(bytes);
        if !self.is_past_head {
            let Some(end) = self
                .bytes
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            else {
                return Vec::new();
            };
            assert!(
                self.bytes.starts_with(b"HTTP/1.1 200"),
                "{:?}",
                String::from_utf8_lossy(&self.bytes)
            );
            self.bytes.drain(..end + 4);
            self.is_past_head = true;
        }
        let mut body = Vec::new();
        let mut used = 0;
        while let Some((start, end)) = chunk_at(&self.bytes, used) {
            body.extend_from_slice(&self.bytes[start..end]);
            used = end + 2;
        }
        self.bytes.drain(..used);
        body
    }
}

/// Where the data of the chunk at `from` starts and ends, if it has arrived whole.
fn chunk_at(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let rest = &bytes[from..];
    let line = rest.windows(2).position(|window| window == b"\r\n")?;
    let size = std::str::from_utf8(&rest[..line]).expect("a chunk size is ASCII");
    let size = usize::from_str_radix(size, 16).expect("a chunk size is hexadecimal");
    let (start, end) = (from + line + 2, from + line + 2 + size);
    (bytes.len() >= end + 2).then_some((start, end))
}

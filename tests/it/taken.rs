//! An HTTP/1.1 connection that carries a stream is taken back from hyper: what its peer sees must not change by that.
//!
//! Promises: looked at as raw bytes: head, chunks, end; what is no plain `GET` of HTTP/1.1 keeps hyper's way. Frames
//! themselves are judged elsewhere.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::json;

use crate::client::{Raw, WAIT};
use crate::harness::{Options, Server, spawn, start};
use crate::tokens;

fn request(method: &str, version: &str, more: &str) -> String {
    let token = tokens::user("alice");
    format!(
        "{method} /v1/events HTTP/{version}\r\nHost: x\r\nAccept: text/event-stream\r\n\
         Authorization: Bearer {token}\r\n{more}\r\n"
    )
}

async fn open(server: &Server, request: &str, until: &str) -> (Raw, String) {
    let mut raw = Raw::connect(server.address).await;
    raw.send(request.as_bytes()).await;
    let text = read_until(&mut raw, until).await;
    (raw, text)
}

async fn read_until(raw: &mut Raw, end: &str) -> String {
    loop {
        let text = String::from_utf8_lossy(&raw.received).into_owned();
        if text.contains(end) {
            return text;
        }
        assert!(raw.read_more(WAIT).await, "closed before {end:?}: {text}");
    }
}

/// The bytes of all whole chunks, and whether the last one was the end.
fn unchunked(mut body: &str) -> (String, bool) {
    let mut joined = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a chunk begins with its length");
        if length == 0 {
            return (joined, true);
        }
        if rest.len() < length + 2 {
            break;
        }
        joined.push_str(&rest[..length]);
        assert_eq!(&rest[length..length + 2], "\r\n", "a chunk ends its line");
        body = &rest[length + 2..];
    }
    (joined, false)
}

#[tokio::test]
async fn a_stream_has_a_whole_head_and_whole_chunks_and_an_end() {
    let mut server = spawn(Options::new());
    let (mut raw, _) = open(&server, &request("GET", "1.1", ""), "sys.live").await;
    let body = json!({"to": {"user": "alice"}, "type": "note.new", "data": "x".repeat(10_000)});
    server.publish(&body).await.expect(201);
    read_until(&mut raw, "note.new").await;
    server.sigterm();
    let text = read_until(&mut raw, "\r\n0\r\n\r\n").await;
    assert!(raw.is_closed(WAIT).await, "nothing else is answered here");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    for line in [
        "content-type: text/event-stream",
        "cache-control: no-store, no-transform",
        "x-accel-buffering: no",
        "x-content-type-options: nosniff",
        "transfer-encoding: chunked",
        "connection: close",
    ] {
        assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
    }
    assert!(head.contains("\r\ndate: ") && head.contains("\r\nx-request-id: "));
    let (frames, has_end) = unchunked(body);
    assert!(has_end && frames.starts_with("retry: "), "{frames}");
    assert!(frames.contains(&"x".repeat(10_000)) && frames.trim_end().ends_with('}'));
    assert_eq!(server.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_reader_that_returns_has_the_head_and_what_it_missed_with_one_read() {
    let server = start(Options::new()).await;
    let (mut raw, _) = open(&server, &request("GET", "1.1", ""), "sys.live").await;
    let body = json!({"to": {"user": "alice"}, "type": "note.new", "data": 1});
    let first = server.publish(&body).await.expect(201);
    let last = server.publish(&body).await.expect(201);
    read_until(&mut raw, last["id"].as_str().unwrap()).await;
    let cursor = first["cursor"].as_str().unwrap();
    let again = request("GET", "1.1", &format!("Last-Event-ID: {cursor}\r\n"));
    // What goes out in two pieces comes apart in one of so many tries.
    for _ in 0..20 {
        let (address, again) = (server.address, again.clone());
        let text = tokio::task::spawn_blocking(move || first_read(address, &again));
        let text = text.await.unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains(last["id"].as_str().unwrap()),
            "{text}"
        );
    }
}

/// What is there as soon as anything is: it looks without a pause.
fn first_read(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nonblocking(true).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let (mut buffer, began) = (vec![0; 64 << 10], Instant::now());
    loop {
        match stream.read(&mut buffer) {
            Ok(count) => return String::from_utf8_lossy(&buffer[..count]).into_owned(),
            Err(error) if error.kind() == ErrorKind::WouldBlock && began.elapsed() < WAIT => {}
            Err(error) => panic!("nothing came: {error}"),
        }
    }
}

#[tokio::test]
async fn what_a_peer_sends_into_a_stream_is_not_answered_and_harms_nothing() {
    let server = start(Options::new()).await;
    let twice = format!(
        "{}GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        request("GET", "1.1", "")
    );
    let (mut raw, _) = open(&server, &twice, "sys.live").await;
    // More than it listens to: it goes on writing all the same.
    raw.send(&vec![b'x'; 60_000]).await;
    let body = json!({"to": {"user": "alice"}, "type": "note.new", "data": 1});
    server.publish(&body).await.expect(201);
    let text = read_until(&mut raw, "note.new").await;
    assert!(!text.contains("\"status\":\"ok\""), "{text}");
}

#[tokio::test]
async fn a_peer_that_leaves_is_noticed_at_once() {
    let server = start(Options::new()).await;
    let (raw, _) = open(&server, &request("GET", "1.1", ""), "sys.live").await;
    let count = async || {
        let metrics = server.metrics().await;
        let sse = metrics
            .iter()
            .find(|(name, _)| name.starts_with("tidings_subscribers{") && name.contains("\"sse\""));
        sse.map_or(0.0, |(_, value)| *value)
    };
    assert_eq!(count().await, 1.0);
    drop(raw);
    crate::harness::eventually("the reader is gone", async || count().await == 0.0).await;
}

#[tokio::test]
async fn head_and_older_versions_keep_their_way() {
    let server = start(Options::new()).await;
    let (_raw, text) = open(&server, &request("GET", "1.0", ""), "sys.live").await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(
        !head.to_lowercase().contains("chunked"),
        "HTTP/1.0 knows no chunks: {head}"
    );
    assert!(body.starts_with("retry: "), "{body}");
    let mut raw = Raw::connect(server.address).await;
    raw.send(request("HEAD", "1.1", "").as_bytes()).await;
    let text = read_until(&mut raw, "\r\n\r\n").await;
    assert!(
        text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\n"),
        "{text}"
    );
}

//! PROTOCOL.md section 7, the drain: what is under way is finished, who reads is told, who only holds a connection open
//! holds nothing up.
//!
//! Promises: every drain ends with exit code 0 within its bound, and what was acked before or during it is kept.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Raw, WAIT};
use crate::delivery::Kind;
use crate::harness::{Options, Server, spawn};
use crate::reader::{Ask, Transport, open};
use crate::tokens;

/// Waits for a clean end and gives how long it took.
async fn ends_cleanly(server: &mut Server) -> Duration {
    let started = Instant::now();
    let status = server.exited().await;
    assert_eq!(status.code(), Some(0), "{}", server.logs());
    let logs = server.logs();
    assert!(
        !logs.contains("panicked at") && !logs.contains(" ERROR "),
        "{logs}"
    );
    started.elapsed()
}

#[tokio::test]
async fn a_request_that_is_half_sent_is_finished() {
    let mut server = spawn(Options::new());
    let body = json!({"to": {"user": "alice"}, "type": "note.new", "data": "whole"}).to_string();
    let (begun, rest) = body.split_at(20);
    let token = tokens::publisher();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    let mut raw = Raw::connect(server.address).await;
    raw.send(head.as_bytes()).await;
    // The interim reply shows that the server has begun to read the body.
    assert_eq!(raw.reply().await.map(|reply| reply.status), Some(100));
    raw.send(begun.as_bytes()).await;
    let mut reader = open(&server, Transport::Sse, &Ask::user("bob")).await;
    reader.next_of(Kind::Live).await;
    server.sigterm();
    reader.next_of(Kind::Bye).await;
    raw.send(rest.as_bytes()).await;
    assert_eq!(
        raw.reply().await.map(|reply| reply.status),
        Some(201),
        "what is under way is finished"
    );
    assert!(
        raw.is_closed(WAIT).await,
        "and its connection is closed then"
    );
    ends_cleanly(&mut server).await;
    server.restart();
    let page = server.page("alice", "cursor=start&wait=0").await;
    assert_eq!(page["events"][0]["data"], "whole", "{page}");
}

#[tokio::test]
async fn idle_connections_hold_nothing_up() {
    let mut server = spawn(Options::new());
    let mut kept_alive = Raw::connect(server.address).await;
    kept_alive
        .send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert_eq!(
        kept_alive.reply().await.map(|reply| reply.status),
        Some(200)
    );
    let _silent = Raw::connect(server.address).await;
    let mut socket = open(&server, Transport::Socket, &Ask::user("alice")).await;
    socket.next_of(Kind::Live).await;
    server.sigterm();
    let took = ends_cleanly(&mut server).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_at_the_bound() {
    let mut server = spawn(Options::new().set("server.drain_seconds", 1));
    let token = tokens::publisher();
    let mut raw = Raw::connect(server.address).await;
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    );
    raw.send(head.as_bytes()).await;
    assert_eq!(raw.reply().await.map(|reply| reply.status), Some(100));
    server.sigterm();
    let took = ends_cleanly(&mut server).await;
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn everyone_is_told_even_when_there_are_many() {
    let mut server = spawn(Options::new().set("limits.connections_per_user", 1000));
    let head = server.notes("alice", 3).await;
    let mut readers = Vec::new();
    for n in 0..60 {
        let transport = Transport::OPEN[n % 3];
        let mut reader = open(&server, transport, &Ask::user("alice").cursor("-1")).await;
        reader.next_of(Kind::Live).await;
        readers.push(reader);
    }
    server.sigterm();
    let mut retries = Vec::new();
    for reader in &mut readers {
        let bye = reader.next_of(Kind::Bye).await;
        assert_eq!(bye.str("reason"), "drain", "{bye:?}");
        retries.extend(bye.retry);
        assert_eq!(reader.cursor(), head, "a bye moves no cursor");
        reader.next_of(Kind::End).await;
    }
    retries.sort_unstable();
    retries.dedup();
    assert!(
        retries.len() > 10,
        "20 readers are spread over time: {retries:?}"
    );
    ends_cleanly(&mut server).await;
}

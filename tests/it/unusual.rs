//! What is lawful but unusual: HTTP/1.0 and HTTP/2, HEAD, `Expect`, clients that leave without a word, claims at the ends
//! of their ranges.
//!
//! Promises: each is answered as the standard says, holds no place longer than it must, and harms no one else.

use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use crate::client::{Raw, WAIT, raw_reply};
use crate::delivery::Kind;
use crate::harness::{Options, Server, eventually, spawn};
use crate::reader::{Ask, Transport, open, try_open};
use crate::tokens::{self, Token};

/// Whether alice may open one more connection.
async fn has_place(server: &Server) -> bool {
    match try_open(server, Transport::Ndjson, &Ask::user("alice")).await {
        Err(_) => false,
        Ok(mut reader) => reader.next().await.kind == Kind::Ready,
    }
}

#[tokio::test]
async fn clients_that_leave_give_their_place_back() {
    let server = spawn(Options::new().set("limits.connections_per_user", 1));
    let head = server.notes("alice", 1).await;
    for transport in Transport::OPEN {
        eventually("a place is free", async || {
            let Ok(mut reader) = try_open(&server, transport, &Ask::user("alice")).await else {
                return false;
            };
            reader.next().await.kind == Kind::Ready
        })
        .await;
    }
    let token = tokens::user("alice");
    let poll = format!(
        "GET /v1/events?format=json&wait=60&cursor={head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    eventually("a place is free", async || has_place(&server).await).await;
    let mut raw = Raw::connect(server.address).await;
    raw.send(poll.as_bytes()).await;
    drop(raw);
    eventually("the place of the poll is free again", async || {
        has_place(&server).await
    })
    .await;
    eventually("HEAD is answered", async || {
        let call = server.call("HEAD", "/v1/events").token(&token);
        call.send().await.status == 200
    })
    .await;
    eventually("HEAD holds no place", async || has_place(&server).await).await;
    server.assert_healthy().await;
}

#[tokio::test]
async fn http_1_0_is_answered_in_its_own_way() {
    let server = spawn(Options::new());
    server.notes("alice", 2).await;
    let reply = raw_reply(server.address, b"GET /healthz HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    let mut raw = Raw::connect(server.address).await;
    let token = tokens::user("alice");
    let request =
        format!("GET /v1/events?cursor=start HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n");
    raw.send(request.as_bytes()).await;
    while !String::from_utf8_lossy(&raw.received).contains("event: live") {
        assert!(
            raw.read_more(WAIT).await,
            "{:?}",
            String::from_utf8_lossy(&raw.received)
        );
    }
    let text = String::from_utf8_lossy(&raw.received).to_lowercase();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(
        !head.contains("chunked"),
        "HTTP/1.0 knows no chunks: {head}"
    );
    assert!(body.starts_with("retry: "), "{body}");
}

#[tokio::test]
async fn a_big_body_may_be_announced_first() {
    let server = spawn(Options::new());
    let token = tokens::publisher();
    let body = json!({"to": {"user": "alice"}, "type": "note.new", "data": "x".repeat(50_000)})
        .to_string();
    let head = |length: usize| {
        format!(
            "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut raw = Raw::connect(server.address).await;
    raw.send(head(body.len()).as_bytes()).await;
    assert_eq!(raw.reply().await.map(|reply| reply.status), Some(100));
    raw.send(body.as_bytes()).await;
    assert_eq!(raw.reply().await.map(|reply| reply.status), Some(201));
    let mut raw = Raw::connect(server.address).await;
    raw.send(head(10_000_000).as_bytes()).await;
    assert_eq!(
        raw.reply().await.map(|reply| reply.status),
        Some(413),
        "refused before it was sent"
    );
}

#[tokio::test]
async fn http_2_carries_publishes_and_streams() {
    let server = spawn(Options::new());
    let stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let base = format!("http://{}", server.address);
    let request = |method: &str, path: &str, token: &str, body: String| {
        hyper::Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Full::new(bytes::Bytes::from(body)))
            .unwrap()
    };
    let user = tokens::user("alice");
    let events = sender
        .send_request(request("GET", "/v1/events", &user, String::new()))
        .await
        .unwrap();
    assert_eq!(events.status(), 200);
    let mut events = events.into_body();
    let body =
        json!({"to": {"user": "alice"}, "type": "note.new", "data": "over HTTP/2"}).to_string();
    let reply = sender
        .send_request(request("POST", "/v1/publish", &tokens::publisher(), body))
        .await
        .unwrap();
    assert_eq!(reply.status(), 201);
    let mut text = String::new();
    while !text.contains("over HTTP/2") {
        let frame = tokio::time::timeout(WAIT, events.frame())
            .await
            .expect("in time")
            .unwrap()
            .unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    connection.abort();
    server.assert_healthy().await;
}

#[tokio::test]
async fn claims_at_the_ends_of_their_ranges_harm_no_one() {
    let server = spawn(Options::new());
    for exp in [
        json!(4_102_444_800_u64),
        json!(253_402_300_800_u64),
        json!(9_007_199_254_740_991_u64),
        json!(9_223_372_036_854_775_807_u64),
        json!(18_446_744_073_709_551_615_u64),
        json!(1e300),
        json!(4_102_444_800.5),
    ] {
        let token = Token::of("alice")
            .claim("exp", exp.clone())
            .claim("iat", 0)
            .sign();
        for transport in Transport::OPEN {
            match try_open(&server, transport, &Ask::token(&token)).await {
                Ok(mut reader) => drop(reader.next_of(Kind::Live).await),
                Err(reply) => assert_eq!(reply.status, 401, "{exp}: {reply:?}"),
            }
        }
    }
    for (name, value) in [
        ("iat", json!(-1)),
        ("iat", json!(1e300)),
        ("nbf", json!(-1)),
        ("jti", json!("j".repeat(7000))),
    ] {
        let token = Token::of("alice").claim(name, value.clone()).sign();
        let status = server
            .get("/v1/events?format=json")
            .token(&token)
            .send()
            .await
            .status;
        assert!([200, 401].contains(&status), "{name} {value}: {status}");
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn media_types_are_read_as_the_standard_says() {
    let server = spawn(Options::new());
    let body = json!({"to": {"user": "alice"}, "type": "note.new", "data": 1}).to_string();
    for content_type in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/json;charset=UTF-8",
    ] {
        let call = server.post("/v1/publish").token(&tokens::publisher());
        let reply = call.body(content_type, body.clone()).send().await;
        assert_eq!(reply.status, 201, "{content_type}: {reply:?}");
    }
}

#[tokio::test]
async fn the_state_and_its_cursor_are_of_one_moment() {
    let server = spawn(Options::new());
    let head = server.notes("alice", 3).await;
    let state = server
        .get("/v1/state")
        .token(&tokens::user("alice"))
        .send()
        .await
        .expect(200);
    assert_eq!(
        (&state["user"], &state["cursor"]),
        (&json!("alice"), &json!(head)),
        "{state}"
    );
    assert!(state["badge"].is_object(), "{state}");
    server.get("/v1/state").send().await.refused(&[401]);
}

#[tokio::test]
async fn a_socket_prolongs_itself_with_a_new_token_of_the_same_user() {
    let server = spawn(
        Options::new()
            .set("limits.user_writes_burst", 3)
            .set("limits.user_writes_per_second", 1),
    );
    let short = Token::of("alice").expires_in(-27).sign();
    let mut reader = open(&server, Transport::Socket, &Ask::token(&short)).await;
    reader.next_of(Kind::Live).await;
    let auth = |token: String| json!({"op": "auth", "ref": "r", "token": token}).to_string();
    reader.socket().send_text(&auth(tokens::user("bob"))).await;
    assert_eq!(reader.next_of(Kind::Error).await.json["ref"], "r");
    reader
        .socket()
        .send_text(&auth(tokens::user("alice")))
        .await;
    reader.next_of(Kind::Reply).await;
    let started = std::time::Instant::now();
    while started.elapsed().as_secs() < 5 {
        reader
            .socket()
            .send_text(&json!({"op": "ping", "ref": "p"}).to_string())
            .await;
        let delivery = reader.next_of(Kind::Reply).await;
        assert_eq!(delivery.json["ref"], "p");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let head = server.head("alice").await;
    let mut refusals = 0;
    for _ in 0..8 {
        reader
            .socket()
            .send_text(&json!({"op": "ack", "ref": "a", "cursor": head}).to_string())
            .await;
        let delivery = loop {
            let delivery = reader.next().await;
            if matches!(delivery.kind, Kind::Reply | Kind::Error) {
                break delivery;
            }
        };
        refusals += usize::from(delivery.json["code"] == "rate_limited");
    }
    assert!(
        refusals >= 3,
        "writes over a socket have the rate of their HTTP twins: {refusals}"
    );
}

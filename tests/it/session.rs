//! PROTOCOL.md section 4: the cookie session with its rules about `Origin`, CORS, and what ends or prolongs an open
//! stream: expiry, refresh, revocation, over restarts too.
//!
//! Promises: origins are tried as browsers send them. Tokens are made to expire by their claims, never by waiting long.

use serde_json::json;

use crate::client::{Call, Reply};
use crate::delivery::Kind;
use crate::harness::{Options, Server, eventually, spawn};
use crate::reader::{Ask, Transport, open, try_open};
use crate::tokens::{self, Token};
use crate::websocket::{Handshake, connect};

const ALLOWED: &str = "https://app.example";
const OTHER: &str = "https://evil.example";

fn options() -> Options {
    Options::new().set("server.allowed_origins", ALLOWED)
}

fn own_origin(server: &Server) -> String {
    format!("http://{}", server.address)
}

/// Signs in and gives the cookie as a browser would send it back.
async fn sign_in(server: &Server, user: &str) -> String {
    let call = server.post("/v1/session").token(&tokens::user(user));
    let reply = call.header("origin", &own_origin(server)).send().await;
    cookie_of(&reply)
}

#[track_caller]
fn cookie_of(reply: &Reply) -> String {
    assert!([200, 201, 204].contains(&reply.status), "{reply:?}");
    let set = reply
        .header("set-cookie")
        .unwrap_or_else(|| panic!("no cookie: {reply:?}"));
    set.split(';').next().unwrap().to_owned()
}

fn with_cookie(call: Call, cookie: &str) -> Call {
    call.header("cookie", cookie)
}

#[tokio::test]
async fn a_session_is_a_cookie_that_scripts_cannot_read() {
    let server = spawn(options());
    let call = server.post("/v1/session").token(&tokens::user("alice"));
    let reply = call.header("origin", &own_origin(&server)).send().await;
    let set = reply.header("set-cookie").unwrap_or_default().to_owned();
    assert!(set.starts_with("tidings="), "{set}");
    let lower = set.to_lowercase();
    for part in ["httponly", "samesite=strict", "path=/"] {
        assert!(lower.contains(part), "{part} is missing: {set}");
    }
    assert!(
        !lower.contains("; secure"),
        "a browser drops Secure on plain HTTP: {set}"
    );
    let cookie = cookie_of(&reply);
    let page = with_cookie(server.get("/v1/events?format=json"), &cookie)
        .send()
        .await;
    page.expect(200);
    let call = with_cookie(server.call("DELETE", "/v1/session"), &cookie);
    let reply = call.header("origin", &own_origin(&server)).send().await;
    let cleared = reply.header("set-cookie").unwrap_or_default();
    assert!(
        cleared.starts_with("tidings=;") && cleared.to_lowercase().contains("max-age=0"),
        "{reply:?}"
    );
    server.post("/v1/session").send().await.refused(&[401]);
}

#[tokio::test]
async fn a_cookie_alone_writes_only_from_an_allowed_origin() {
    let server = spawn(options());
    let cookie = sign_in(&server, "alice").await;
    let head = server.notes("alice", 1).await;
    let own = own_origin(&server);
    let cases = [
        (Some(own.as_str()), true),
        (Some(ALLOWED), true),
        (Some(OTHER), false),
        (Some("null"), false),
        (Some("https://app.example.evil.example"), false),
        (Some("http://app.example"), false),
        (None, false),
    ];
    for (origin, is_allowed) in cases {
        let mut call = with_cookie(server.post("/v1/ack"), &cookie).json(&json!({"cursor": head}));
        let mut handshake = Handshake::default().header("Cookie", &cookie);
        if let Some(origin) = origin {
            call = call.header("origin", origin);
            handshake = handshake.header("Origin", origin);
        }
        let reply = call.send().await;
        assert_eq!(
            reply.status < 300,
            is_allowed,
            "write from {origin:?}: {reply:?}"
        );
        let socket = connect(server.address, "/v1/ws", handshake).await;
        assert_eq!(socket.is_ok(), is_allowed, "WebSocket from {origin:?}");
        if let Err(reply) = socket {
            reply.refused(&[401, 403]);
        }
    }
    // A token in the header is no cookie that a foreign page could borrow.
    let call = server
        .post("/v1/ack")
        .token(&tokens::user("alice"))
        .json(&json!({"cursor": head}));
    assert!(call.send().await.status < 300, "a token needs no Origin");
}

#[tokio::test]
async fn cors_opens_for_allowed_origins_only() {
    let server = spawn(options());
    for (origin, is_allowed) in [(ALLOWED, true), (OTHER, false), ("null", false)] {
        let call = server
            .get("/v1/events?format=json")
            .token(&tokens::user("alice"));
        let reply = call.header("origin", origin).send().await;
        let expected = is_allowed.then_some(origin);
        assert_eq!(
            reply.header("access-control-allow-origin"),
            expected,
            "{reply:?}"
        );
        if is_allowed {
            assert_eq!(
                reply.header("access-control-allow-credentials"),
                Some("true"),
                "{reply:?}"
            );
            let vary = reply.header("vary").unwrap_or("").to_lowercase();
            assert!(vary.contains("origin"), "caches must know: {reply:?}");
        }
        let call = server
            .call("OPTIONS", "/v1/publish")
            .header("origin", origin);
        let call = call.header("access-control-request-method", "POST");
        let call = call.header(
            "access-control-request-headers",
            "authorization,content-type,idempotency-key",
        );
        let reply = call.send().await;
        assert_eq!(
            reply.header("access-control-allow-origin"),
            expected,
            "{reply:?}"
        );
        if is_allowed {
            let headers = reply
                .header("access-control-allow-headers")
                .unwrap_or("")
                .to_lowercase();
            for name in ["authorization", "content-type", "idempotency-key"] {
                assert!(headers.contains(name), "{name}: {reply:?}");
            }
            let methods = reply.header("access-control-allow-methods").unwrap_or("");
            for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
                assert!(methods.contains(method), "{method}: {reply:?}");
            }
        }
    }
    // The stream itself, and a refusal, which a script could otherwise not read.
    let call = server
        .get("/v1/events")
        .token(&tokens::user("alice"))
        .header("origin", ALLOWED);
    let opened = call.open().await.unwrap();
    assert_eq!(opened.headers["access-control-allow-origin"], ALLOWED);
    let reply = server
        .get("/v1/events")
        .header("origin", ALLOWED)
        .send()
        .await;
    reply.refused(&[401]);
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some(ALLOWED),
        "{reply:?}"
    );
}

#[tokio::test]
async fn a_token_about_to_expire_is_told_and_can_be_prolonged() {
    let server = spawn(Options::new());
    for transport in Transport::OPEN {
        let short = Token::of("alice").expires_in(30).sign();
        let mut reader = open(&server, transport, &Ask::token(&short)).await;
        let conn = reader.next_of(Kind::Ready).await.str("conn").to_owned();
        let auth = reader.next_of(Kind::Auth).await;
        let seconds = auth.json["expires_in"].as_u64().expect("seconds");
        assert!((1..=60).contains(&seconds), "{auth:?}");
        let refresh = |token: &str, conn: &str| {
            server
                .post("/v1/session/refresh")
                .token(token)
                .json(&json!({ "conn": conn }))
        };
        refresh(&tokens::user("bob"), &conn)
            .send()
            .await
            .refused(&[403, 404]);
        refresh(&tokens::user("alice"), "unknown-conn")
            .send()
            .await
            .refused(&[404]);
        let reply = refresh(&tokens::user("alice"), &conn).send().await;
        assert!([200, 204].contains(&reply.status), "{reply:?}");
        server.note("alice", json!("still here")).await;
        reader.events(1).await;
    }
}

#[tokio::test]
async fn an_expired_token_ends_its_stream() {
    let server = spawn(Options::new());
    // 30 s of leeway: this token is valid for about three more seconds.
    let ask = Ask::token(&Token::of("alice").expires_in(-27).sign());
    let mut readers = Vec::new();
    for transport in Transport::OPEN {
        readers.push((transport, open(&server, transport, &ask).await));
    }
    for (transport, mut reader) in readers {
        let bye = reader.next_of(Kind::Bye).await;
        assert_eq!(bye.str("reason"), "token_expired", "{bye:?}");
        let end = reader.next_of(Kind::End).await;
        if transport == Transport::Socket {
            assert_eq!(end.json, 4001);
        }
    }
}

#[tokio::test]
async fn a_prolonged_stream_outlives_its_first_token() {
    let server = spawn(Options::new().set("stream.ping_seconds", 0.3));
    let token = Token::of("alice").expires_in(-26).sign();
    let mut reader = open(&server, Transport::Sse, &Ask::token(&token)).await;
    let conn = reader.next_of(Kind::Ready).await.str("conn").to_owned();
    let call = server
        .post("/v1/session/refresh")
        .token(&tokens::user("alice"));
    let reply = call.json(&json!({ "conn": conn })).send().await;
    assert!([200, 204].contains(&reply.status), "{reply:?}");
    let started = std::time::Instant::now();
    while started.elapsed().as_secs() < 5 {
        let delivery = reader.next().await;
        assert!(
            !matches!(delivery.kind, Kind::Bye | Kind::End),
            "{delivery:?}"
        );
    }
}

#[tokio::test]
async fn revocation_closes_streams_at_once_and_refuses_for_ever() {
    let mut server = spawn(Options::new());
    let alice = tokens::user("alice");
    for transport in Transport::OPEN {
        let user = format!("revoked-{transport:?}").to_lowercase();
        let mut reader = open(&server, transport, &Ask::user(&user)).await;
        let mut other = open(&server, transport, &Ask::token(&alice)).await;
        reader.next_of(Kind::Live).await;
        other.next_of(Kind::Live).await;
        let call = server.post("/v1/admin/revoke").token(&tokens::admin());
        let reply = call.json(&json!({ "user": user })).send().await;
        assert!([200, 204].contains(&reply.status), "{reply:?}");
        let started = std::time::Instant::now();
        let end = reader.next_of(Kind::End).await;
        assert!(
            started.elapsed().as_secs() < 5,
            "at once, not {:?}",
            started.elapsed()
        );
        if transport == Transport::Socket {
            assert!(end.json == 4001 || end.json == 4003, "{end:?}");
        }
        server.note("alice", json!("others live on")).await;
        other.events(1).await;
    }
    for is_restarted in [false, true] {
        if is_restarted {
            server.restart();
        }
        for transport in Transport::OPEN {
            let user = format!("revoked-{transport:?}").to_lowercase();
            let token = Token::of(&user)
                .claim("iat", tokens::unix_seconds() - 5)
                .sign();
            let reply = try_open(&server, Transport::Sse, &Ask::token(&token))
                .await
                .err();
            let status = reply.expect("a revoked token opens nothing").status;
            assert_eq!(
                status, 204,
                "204 tells an EventSource to stop; restarted: {is_restarted}"
            );
            let call = server.get("/v1/events?format=json").token(&token);
            call.send().await.refused(&[401]);
        }
        server
            .get("/v1/events?format=json")
            .token(&alice)
            .send()
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn one_token_can_be_revoked_by_its_jti() {
    let mut server = spawn(Options::new());
    let one = Token::of("alice").claim("jti", "one").sign();
    let two = Token::of("alice").claim("jti", "two").sign();
    let mut reader = open(&server, Transport::Sse, &Ask::token(&one)).await;
    let mut kept = open(&server, Transport::Sse, &Ask::token(&two)).await;
    reader.next_of(Kind::Live).await;
    kept.next_of(Kind::Live).await;
    let call = server.post("/v1/admin/revoke").token(&tokens::admin());
    let reply = call.json(&json!({"jti": "one"})).send().await;
    assert!([200, 204].contains(&reply.status), "{reply:?}");
    reader.next_of(Kind::End).await;
    server.note("alice", json!("for the other")).await;
    kept.events(1).await;
    drop(kept);
    server.restart();
    let page = |token: &str| server.get("/v1/events?format=json").token(token).send();
    page(&one).await.refused(&[401]);
    page(&two).await.expect(200);
}

#[tokio::test]
async fn tokens_issued_after_the_revocation_are_good() {
    let server = spawn(Options::new());
    let now = tokens::unix_seconds();
    let call = server.post("/v1/admin/revoke").token(&tokens::admin());
    let body = json!({"user": "alice", "issued_before": now - 100});
    let reply = call.json(&body).send().await;
    assert!([200, 204].contains(&reply.status), "{reply:?}");
    let issued = |at: u64| Token::of("alice").claim("iat", at).sign();
    let page = |token: String| server.get("/v1/events?format=json").token(&token).send();
    page(issued(now - 200)).await.refused(&[401]);
    page(issued(now - 10)).await.expect(200);
    page(Token::of("alice").without("iat").sign())
        .await
        .refused(&[401]);
    for bad in [
        json!({}),
        json!({"user": ""}),
        json!({"user": "a b"}),
        json!({"user": 7}),
        json!({"who": "x"}),
    ] {
        let call = server
            .post("/v1/admin/revoke")
            .token(&tokens::admin())
            .json(&bad);
        call.send().await.refused(&[400, 422]);
    }
}

#[tokio::test]
async fn a_cookie_for_another_host_travels_by_https_only() {
    let server = spawn(options());
    let call = server.post("/v1/session").token(&tokens::user("alice"));
    let call = call
        .header("host", "app.example")
        .header("origin", "http://app.example");
    let reply = call.send().await;
    let set = reply
        .header("set-cookie")
        .unwrap_or_default()
        .to_lowercase();
    assert!(set.contains("; secure"), "{reply:?}");
}

#[tokio::test]
async fn a_waiting_poll_ends_with_its_users_revocation() {
    let server = spawn(Options::new().set("limits.connections_per_user", 1));
    let head = server.notes("alice", 1).await;
    let path = format!("/v1/events?format=json&wait=60&cursor={head}");
    let call = server.get(&path).token(&tokens::user("alice"));
    // The probe below may be quicker and take the poll's place for a moment; then the poll asks again.
    let poll = tokio::spawn(async move {
        loop {
            let reply = call
                .clone()
                .send_within(std::time::Duration::from_secs(30))
                .await;
            if reply.status != 429 {
                return reply;
            }
        }
    });
    eventually("the poll waits", async || {
        poll.is_finished()
            || try_open(&server, Transport::Ndjson, &Ask::user("alice"))
                .await
                .is_err()
    })
    .await;
    let call = server.post("/v1/admin/revoke").token(&tokens::admin());
    let reply = call.json(&json!({"user": "alice"})).send().await;
    assert!([200, 204].contains(&reply.status), "{reply:?}");
    let reply = poll.await.unwrap();
    assert!([200, 401].contains(&reply.status), "{reply:?}");
}

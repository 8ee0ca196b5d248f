//! FAULTS.md 4.1: bad HTTP and bad JSON.
//!
//! Promises: each table ends with the same question: does the server still answer, with no panic in its log and none
//! in its metrics, and is nothing half applied. It never waits for a server that hangs: every read has an end.

use std::time::Duration;

use serde_json::json;

use crate::client::{Raw, Reply, raw_reply};
use crate::delivery::seq_of;
use crate::harness::{Options, Server, spawn};
use crate::tokens;

async fn publish_text(server: &Server, body: impl Into<bytes::Bytes>) -> Reply {
    let call = server.post("/v1/publish").token(&tokens::publisher());
    call.body("application/json", body).send().await
}

/// H1: texts that are no JSON, or not the JSON that it looks like. `@` stands for the data of a good event.
const BAD_JSON: &[&str] = &[
    "",
    " ",
    "{",
    "}",
    "[",
    "]",
    "{\"",
    "{\"to\"",
    "{\"to\":",
    "nul",
    "tru",
    "NaN",
    "Infinity",
    "-Infinity",
    "'a'",
    "{'to':1}",
    "{to:1}",
    "{\"a\":1,}",
    "[1,]",
    "[1 2]",
    "{\"a\" 1}",
    "{\"a\":1 \"b\":2}",
    "// x\n{}",
    "/* x */ {}",
    "{}{}",
    "{} x",
    "\u{feff}{}",
    "\"\\x\"",
    "\"\\u12\"",
    "\"a\nb\"",
    "\"a\tb\"",
    "\"a\u{0}b\"",
    "01",
    "+1",
    "1.",
    ".5",
    "1e",
    "0x10",
    "1_000",
    "--1",
    "\"",
    "\"\\\"",
    "{\"a\":\u{a0}1}",
    "@[1,]",
    "@{\"a\":1,}",
    "@NaN",
    "@1e400",
    "@-1e400",
    "@01",
    "@+1",
    "@\"\\ud800\"",
    "@\"\\udc00\\ud800\"",
    "@\"\\uZZZZ\"",
    "@\"a\nb\"",
    "@\u{feff}1",
    "@{\"a\":1,\"a\":2}",
    "@{\"b\":{\"a\":1,\"a\":2}}",
    "@undefined",
    "@",
    "@1}{",
];

#[tokio::test]
async fn malformed_json_is_refused_without_internals() {
    let server = spawn(Options::new());
    for bad in BAD_JSON {
        let body = match bad.strip_prefix('@') {
            Some(data) => {
                format!("{{\"to\":{{\"user\":\"alice\"}},\"type\":\"a.b\",\"data\":{data}}}")
            }
            None => (*bad).to_owned(),
        };
        let reply = publish_text(&server, body).await;
        assert!([400, 422].contains(&reply.status), "{bad:?}: {reply:?}");
    }
    for twice in ["to", "type", "data", "id"] {
        let body = format!(
            "{{\"to\":{{\"user\":\"alice\"}},\"type\":\"a.b\",\"data\":1,\"id\":\"x\",\"{twice}\":\"again\"}}"
        );
        publish_text(&server, body).await.refused(&[400, 422]);
    }
    assert_eq!(seq_of(&server.head("alice").await), 0, "half applied");
    for good in [
        "-0",
        "18446744073709551616",
        "1e300",
        "\"\\ud83d\\ude00\"",
        "[[],{}]",
    ] {
        let body = format!("{{\"to\":{{\"user\":\"alice\"}},\"type\":\"a.b\",\"data\":{good}}}");
        publish_text(&server, body).await.expect(201);
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn wrong_utf8_is_refused_wherever_it_stands() {
    let server = spawn(Options::new());
    let mut body = b"{\"to\":{\"user\":\"alice\"},\"type\":\"a.b\",\"data\":\"".to_vec();
    body.extend([0xff, 0xfe, 0xc0, 0x80]);
    body.extend(b"\"}");
    publish_text(&server, body).await.refused(&[400]);
    let publisher = tokens::publisher();
    for path in [
        "/v1/users/%ff/notify",
        "/v1/users/%c0%80/notify",
        "/v1/users/%ED%A0%80/notify",
    ] {
        let call = server.post(path).token(&publisher).body("text/plain", "x");
        call.send().await.refused(&[400, 404]);
    }
    for query in [
        "types=%ff",
        "cursor=%ff",
        "topics=%c3%28",
        "since=%ff",
        "limit=%ff",
    ] {
        let call = server.get(&format!("/v1/events?format=json&wait=0&{query}"));
        call.token(&publisher).send().await.refused(&[400]);
    }
    for name in ["idempotency-key", "authorization", "content-type"] {
        let call = server
            .post("/v1/publish")
            .token(&publisher)
            .header_bytes(name, b"\xff\xfe");
        call.send().await.refused(&[400, 401, 415]);
    }
    assert_eq!(seq_of(&server.head("alice").await), 0, "half applied");
    server.assert_healthy().await;
}

/// A publish with a body of exactly `length` bytes, most of them white space.
fn padded(length: usize) -> String {
    let event = "{\"to\":{\"user\":\"alice\"},\"type\":\"a.b\",\"data\":1}";
    format!("{event}{}", " ".repeat(length - event.len()))
}

#[tokio::test]
async fn bodies_end_at_their_limit() {
    let server = spawn(
        Options::new()
            .set("limits.body_bytes", 20_000)
            .set("limits.event_bytes", 10_000),
    );
    publish_text(&server, padded(20_000)).await.expect(201);
    publish_text(&server, padded(20_001)).await.refused(&[413]);
    let token = tokens::publisher();
    let head = |more: &str| {
        format!(
            "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\n{more}\r\n"
        )
    };
    let event = padded(60);
    let declared = head("Content-Length: 10000000000\r\n") + &event;
    let reply = raw_reply(server.address, declared.as_bytes())
        .await
        .expect("a refusal");
    reply.refused(&[413]);
    let twice = head("Content-Length: 60\r\nContent-Length: 61\r\n") + &event;
    assert_eq!(
        raw_reply(server.address, twice.as_bytes())
            .await
            .map(|reply| reply.status),
        Some(400)
    );
    for bad in [
        "Content-Length: -1\r\n",
        "Content-Length: x\r\n",
        "Transfer-Encoding: gzip, identity\r\n",
    ] {
        let reply = raw_reply(server.address, (head(bad) + &event).as_bytes()).await;
        assert!(
            reply.is_none_or(|reply| [400, 501].contains(&reply.status)),
            "{bad}"
        );
    }
    endless_chunks(&server, &head("Transfer-Encoding: chunked\r\n")).await;
    assert_eq!(seq_of(&server.head("alice").await), 1, "half applied");
    server.assert_healthy().await;
}

#[tokio::test]
async fn a_request_that_two_readers_could_cut_in_two_places_is_refused() {
    let server = spawn(Options::new());
    let token = tokens::publisher();
    let event = padded(60);
    let request = |fields: &str| {
        format!(
            "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\n{fields}\r\n3c\r\n{event}\r\n0\r\n\r\n"
        )
    };
    let chunked = request("Transfer-Encoding: chunked\r\n");
    for both in [
        "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        // Behind others on its connection, at once and after their answers, and in pieces.
        let mut raw = Raw::connect(server.address).await;
        raw.send(chunked.as_bytes()).await;
        let first = raw.reply().await.expect("an answer");
        assert_eq!(first.status, 201, "{first:?}");
        let more = chunked.clone() + &request(both) + &chunked;
        for piece in more.as_bytes().chunks(97) {
            raw.send(piece).await;
        }
        let second = raw.reply().await.expect("an answer");
        assert_eq!(second.status, 201, "{second:?}");
        let third = raw.reply().await.expect("a refusal");
        third.refused(&[400]);
        assert_eq!(third.json()["code"], "ambiguous_length", "{third:?}");
        assert!(raw.is_closed(Duration::from_secs(5)).await, "{both}");
    }
    assert_eq!(seq_of(&server.head("alice").await), 4, "half applied");
    server.assert_healthy().await;
}

/// Chunks without end: the server must stop reading by itself.
async fn endless_chunks(server: &Server, head: &str) {
    let mut raw = Raw::connect(server.address).await;
    raw.send(head.as_bytes()).await;
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    for _ in 0..64 {
        raw.send(chunk.as_bytes()).await;
    }
    let reply = raw
        .reply()
        .await
        .expect("a refusal while chunks are still to come");
    reply.refused(&[413]);
}

#[tokio::test]
async fn depth_has_a_bound() {
    let server = spawn(Options::new());
    let body = |depth: usize| {
        let data = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!("{{\"to\":{{\"user\":\"alice\"}},\"type\":\"a.b\",\"data\":{data}}}")
    };
    for (depth, status) in [
        (1, 201),
        (100, 201),
        (120, 201),
        (128, 400),
        (1000, 400),
        (100_000, 400),
    ] {
        let reply = publish_text(&server, body(depth)).await;
        // A text that is too long is refused for its length before anyone looks at its depth.
        let is_expected = reply.status == status || (depth == 100_000 && reply.status == 413);
        assert!(is_expected, "depth {depth}: {reply:?}");
    }
    let deep = format!("{}1{}", "{\"to\":".repeat(50_000), "}".repeat(50_000));
    publish_text(&server, deep).await.refused(&[400]);
    assert_eq!(seq_of(&server.head("alice").await), 3);
    server.assert_healthy().await;
}

#[tokio::test]
async fn heads_have_a_bound() {
    let server = spawn(Options::new());
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("X-H{n}: v\r\n"))
            .collect::<String>()
    };
    let long = |bytes: usize| format!("X-Long: {}\r\n", "a".repeat(bytes));
    let cases = [
        (many(50), &[200][..]),
        (many(101), &[431]),
        (many(1000), &[431]),
        (long(8 * 1024), &[200, 431]),
        (long(64 * 1024), &[431]),
        (long(500 * 1024), &[431]),
    ];
    for (headers, statuses) in cases {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let reply = raw_reply(server.address, request.as_bytes()).await;
        let status = reply.map(|reply| reply.status);
        // The refusal may be lost when the server hangs up on bytes that are still under way.
        let is_expected = status.is_some_and(|status| statuses.contains(&status))
            || (status.is_none() && request.len() > 60_000);
        assert!(
            is_expected,
            "{} bytes of head: {status:?}, not {statuses:?}",
            request.len()
        );
    }
    let path = format!("/v1/events?cursor={}", "9".repeat(100_000));
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let status = raw_reply(server.address, request.as_bytes())
        .await
        .map(|reply| reply.status);
    assert!(
        status.is_none_or(|status| [400, 414, 431].contains(&status)),
        "{status:?}"
    );
    server.assert_healthy().await;
}

#[tokio::test]
async fn odd_methods_and_hosts_are_refused() {
    let server = spawn(Options::new());
    let token = tokens::publisher();
    let cases: [(&str, &[u16]); 12] = [
        ("TRACE /v1/events HTTP/1.1\r\nHost: x\r\n", &[405, 501]),
        (
            "CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n",
            &[400, 404, 405],
        ),
        ("PUT /v1/events HTTP/1.1\r\nHost: x\r\n", &[405]),
        ("DELETE /v1/events HTTP/1.1\r\nHost: x\r\n", &[405]),
        ("BREW /v1/events HTTP/1.1\r\nHost: x\r\n", &[405, 501]),
        (
            "GET /v1/publish HTTP/1.1\r\nHost: x\r\nX-HTTP-Method-Override: POST\r\n",
            &[405],
        ),
        ("GET /healthz HTTP/1.1\r\n", &[400]),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n", &[400]),
        ("GET /healthz HTTP/1.1\r\nHost: a b\r\n", &[400]),
        ("GET /healthz HTTP/1.1\r\nHost : x\r\n", &[400]),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\n folded: y\r\n", &[400]),
        ("GET /healthz HTTP/9.9\r\nHost: x\r\n", &[400, 505]),
    ];
    for (request, statuses) in cases {
        let request = format!("{request}Authorization: Bearer {token}\r\n\r\n");
        let status = raw_reply(server.address, request.as_bytes())
            .await
            .map(|reply| reply.status);
        let is_expected = status.is_none_or(|status| statuses.contains(&status));
        assert!(is_expected, "{request:?}: {status:?}, not {statuses:?}");
    }
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\r\n\r\n\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"{}",
    ] {
        let mut raw = Raw::connect(server.address).await;
        raw.send(nonsense).await;
        let shut = tokio::io::AsyncWriteExt::shutdown(&mut raw.stream).await;
        assert!(shut.is_ok() || raw.is_closed(Duration::from_secs(1)).await);
        assert!(
            raw.is_closed(Duration::from_secs(15)).await,
            "{nonsense:?} is kept open"
        );
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn paths_do_not_climb() {
    let server = spawn(Options::new());
    for path in [
        "/../Cargo.toml",
        "/../../../../etc/passwd",
        "/static/../Cargo.toml",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/..%5c..%5cetc%5cpasswd",
        "/%00",
        "/index.html%00.js",
        "//etc/passwd",
        "/./././etc/passwd",
        "/docs/../../etc/passwd",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let reply = raw_reply(server.address, request.as_bytes())
            .await
            .expect("an answer");
        assert!([400, 404].contains(&reply.status), "{path}: {reply:?}");
        assert!(
            !reply.text().contains("root:") && !reply.text().contains("[package]"),
            "{path}"
        );
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn compressed_bodies_are_refused_or_measured() {
    let server = spawn(Options::new());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let block = vec![b' '; 1 << 20];
    for _ in 0..20 {
        std::io::Write::write_all(&mut gzip, &block).unwrap();
    }
    let bomb = gzip.finish().unwrap();
    let call = server.post("/v1/publish").token(&tokens::publisher());
    let call = call
        .header("content-encoding", "gzip")
        .body("application/json", bomb);
    call.send().await.refused(&[400, 413, 415]);
    server.assert_healthy().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = spawn(Options::new());
    let mut raw = Raw::connect(server.address).await;
    let one = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let other = "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    raw.send(format!("{one}{other}").repeat(50).as_bytes())
        .await;
    for round in 0..50 {
        assert_eq!(
            raw.reply().await.map(|reply| reply.status),
            Some(200),
            "round {round}"
        );
        assert_eq!(
            raw.reply().await.map(|reply| reply.status),
            Some(404),
            "round {round}"
        );
    }
    let body = json!({"to": {"user": "alice"}, "type": "a.b", "data": 1});
    server.publish(&body).await.expect(201);
    server.assert_healthy().await;
}

#[tokio::test]
async fn heads_and_bodies_that_never_end_are_cut_off() {
    let server = spawn(Options::new());
    let token = tokens::publisher();
    let body = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    let beginnings = [
        "",
        "G",
        "GET /healthz HTTP/1.1\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: b\r\n",
        &body,
    ];
    let mut waiting = Vec::new();
    for begun in beginnings {
        let mut raw = Raw::connect(server.address).await;
        raw.send(begun.as_bytes()).await;
        waiting.push((begun, raw));
    }
    let all = waiting.iter_mut().map(async |(begun, raw)| {
        assert!(
            raw.is_closed(Duration::from_secs(25)).await,
            "{begun:?} is kept open"
        );
    });
    futures_util::future::join_all(all).await;
    server.assert_healthy().await;
}

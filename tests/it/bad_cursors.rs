//! FAULTS.md 4.2: only a well-formed cursor of the current epoch, not beyond the head, resumes. All else gets 200 and
//! a `reset` over SSE, never 4xx (an `EventSource` that gets 4xx stops for ever), never silently "from now".
//!
//! On a JSON page what is malformed is 400, and what is well-formed but lost is a reset.

use crate::client::Call;
use crate::delivery::{Kind, epoch_of};
use crate::harness::{Options, Server, eventually, spawn};
use crate::reader::Reader;
use crate::tokens;

/// What a cursor must lead to: so many events, or a reset for this reason. A page with no position at all is `Now`.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Events(usize),
    Reset(&'static str),
    Now,
}

use Expected::{Events, Now, Reset};

/// The 40 cases for a log of 30 events of which the last ten are kept. `E` stands for its epoch.
fn cases(epoch: &str, other: &str) -> Vec<(Vec<u8>, Expected)> {
    let of = |text: &str| text.replace('E', epoch).into_bytes();
    let mut cases: Vec<(Vec<u8>, Expected)> = vec![
        (of(""), Now),
        (of(" "), Now),
        (of("-1"), Events(1)),
        (of("-x"), Reset("malformed")),
        (of("--1"), Reset("malformed")),
        (of("+5"), Reset("malformed")),
        (of("0"), Reset("trimmed")),
        (of("007"), Reset("malformed")),
        (of("25"), Events(5)),
        (of("18446744073709551615"), Reset("ahead")),
        (of("18446744073709551616"), Reset("malformed")),
        (of("1e3"), Reset("malformed")),
        (of("0x19"), Reset("malformed")),
        (of("25.0"), Reset("malformed")),
        (of("2_5"), Reset("malformed")),
        (of("NaN"), Reset("malformed")),
        (of("null"), Reset("malformed")),
        ("٢٥".as_bytes().to_vec(), Reset("malformed")),
        (vec![0xff, 0xfe], Reset("malformed")),
        (vec![b'9'; 10_000], Reset("malformed")),
        (other.as_bytes().to_vec(), Reset("epoch")),
        (b"aaaaaa-25".to_vec(), Reset("epoch")),
        (of("E-30"), Events(0)),
        (of("E-31"), Reset("ahead")),
        (of("E-1000030"), Reset("ahead")),
        (of("E-19"), Reset("trimmed")),
        (of("E-20"), Events(10)),
        (of("E-0"), Reset("trimmed")),
        (of("E-29"), Events(1)),
        (of("E-029"), Reset("malformed")),
        (of("E-+9"), Reset("malformed")),
        (of("E--9"), Reset("malformed")),
        (of("E-9007199254740992"), Reset("ahead")),
        (of("E-18446744073709551616"), Reset("malformed")),
        (of("E"), Reset("malformed")),
        (of("E-"), Reset("malformed")),
        (of("-E"), Reset("malformed")),
        (of("E-25%0d%0aX-Evil: 1"), Reset("malformed")),
        (of("E-25\t"), Events(5)),
        (of("E-25 x"), Reset("malformed")),
    ];
    let upper = format!("{}-25", epoch.to_uppercase()).into_bytes();
    if upper != of("E-25") {
        cases.push((upper, Reset("malformed")));
    }
    cases
}

async fn trimmed_server() -> (Server, String, String) {
    let server = spawn(Options::new().set("log.retention_events", 10));
    let head = server.notes("alice", 30).await;
    let other = server.notes("bob", 30).await;
    eventually("the log keeps ten events", async || {
        let page = server.page("alice", "cursor=start&wait=0").await;
        page["events"][0]["seq"] == 21
    })
    .await;
    (server, epoch_of(&head).to_owned(), other)
}

async fn assert_leads_to(call: Call, expected: Expected, what: &str) {
    let opened = call.token(&tokens::user("alice")).open().await;
    let opened = opened.unwrap_or_else(|reply| panic!("{what}: never 4xx, but {reply:?}"));
    let mut reader = Reader::of_sse(opened);
    let (mut count, mut reason) = (0, None);
    loop {
        let delivery = reader.next().await;
        match delivery.kind {
            Kind::Event => count += 1,
            Kind::Reset => reason = Some(delivery.str("reason").to_owned()),
            Kind::Live => break,
            Kind::Ready | Kind::Ping => {}
            _ => panic!("{what}: {delivery:?}"),
        }
    }
    match expected {
        Reset(expected) => {
            // A number too big for a seq may be read as such or as no number.
            let is_too_big = what.len() > 15 && expected != "epoch";
            let is_expected = reason.as_deref() == Some(expected)
                || (is_too_big && matches!(reason.as_deref(), Some("malformed" | "ahead")));
            assert!(is_expected, "{what}: {reason:?}, not {expected}");
            assert_eq!(count, 0, "{what}: it goes on from the head");
        }
        Events(expected) => assert_eq!((count, reason), (expected, None), "{what}"),
        Now => assert_eq!((count, reason), (0, None), "{what}"),
    }
}

/// A text as it may stand in a query.
fn encoded(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => text + &char::from(*byte).to_string(),
        _ => text + &format!("%{byte:02X}"),
    })
}

#[tokio::test]
async fn every_cursor_in_the_header_resumes_or_resets() {
    let (server, epoch, other) = trimmed_server().await;
    for (cursor, expected) in cases(&epoch, &other) {
        let what = String::from_utf8_lossy(&cursor).into_owned();
        let call = server
            .get("/v1/events")
            .header("accept", "text/event-stream");
        assert_leads_to(call.header_bytes("last-event-id", &cursor), expected, &what).await;
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn every_cursor_in_the_query_resumes_or_resets() {
    let (server, epoch, other) = trimmed_server().await;
    let mut cases = cases(&epoch, &other);
    cases.push((b"a\0b".to_vec(), Reset("malformed")));
    cases.push((b"\r\n\r\nid: 9".to_vec(), Reset("malformed")));
    for (cursor, expected) in cases {
        // Headers are trimmed on the way, queries are not; and what is no UTF-8 in a query is no cursor either.
        if cursor.ends_with(b"\t") || cursor == b" " {
            continue;
        }
        let what = String::from_utf8_lossy(&cursor).into_owned();
        let call = server.get(&format!("/v1/events?cursor={}", encoded(&cursor)));
        if cursor.starts_with(&[0xff]) {
            match call.clone().token(&tokens::user("alice")).open().await {
                Err(reply) => drop(reply.refused(&[400])),
                Ok(_) => assert_leads_to(call, expected, &what).await,
            }
            continue;
        }
        assert_leads_to(call.header("accept", "text/event-stream"), expected, &what).await;
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn a_json_page_tells_malformed_from_lost() {
    let (server, epoch, other) = trimmed_server().await;
    for (cursor, expected) in cases(&epoch, &other) {
        if cursor.ends_with(b"\t") || cursor == b" " || cursor.len() > 1000 {
            continue;
        }
        let what = String::from_utf8_lossy(&cursor).into_owned();
        let path = format!("/v1/events?format=json&wait=0&cursor={}", encoded(&cursor));
        let reply = server.get(&path).token(&tokens::user("alice")).send().await;
        match expected {
            Reset("malformed") => drop(reply.refused(&[400])),
            Reset(reason) => {
                let is_too_big = what.len() > 15 && reply.status == 400;
                assert!(
                    is_too_big || reply.expect(200)["reset"]["reason"] == reason,
                    "{what}: {reply:?}"
                );
            }
            Events(count) => {
                let events = reply.expect(200)["events"].as_array().map(Vec::len);
                assert_eq!(events, Some(count), "{what}: {reply:?}");
            }
            Now => assert_eq!(reply.expect(200)["events"], serde_json::json!([]), "{what}"),
        }
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn two_headers_and_disagreeing_places() {
    let (server, epoch, _) = trimmed_server().await;
    let stream = |query: &str| {
        server
            .get(&format!("/v1/events?{query}"))
            .header("accept", "text/event-stream")
    };
    let header = |call: Call, seq: u64| call.header("last-event-id", &format!("{epoch}-{seq}"));
    assert_leads_to(
        header(stream("cursor=start"), 28),
        Events(2),
        "the header wins",
    )
    .await;
    assert_leads_to(
        header(stream("cursor=nonsense"), 28),
        Events(2),
        "the header wins over nonsense",
    )
    .await;
    let call = stream("cursor=28").header("last-event-id", "nonsense");
    assert_leads_to(
        call,
        Reset("malformed"),
        "a malformed header is not passed over",
    )
    .await;
    // Two different headers: no one can say which is right, so either is taken or neither; never "from now".
    let call = header(header(stream(""), 27), 29).token(&tokens::user("alice"));
    let mut reader = Reader::of_sse(call.open().await.expect("never 4xx"));
    let mut seen = 0;
    let was_reset = loop {
        match reader.next().await.kind {
            Kind::Reset => break true,
            Kind::Event => seen += 1,
            Kind::Live => break false,
            _ => {}
        }
    };
    assert!(was_reset || [1, 3].contains(&seen), "{seen} events");
}

//! PROTOCOL.md section 3.3: the JSON page and the long poll.
//!
//! Promises: a wait is bounded from both sides, generously, since the machine may be busy. What pages share with the
//! other transports is in `reading` and `reset`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::delivery::{Kind, check_page, epoch_of, seq_of};
use crate::harness::{Options, Server, eventually, spawn};
use crate::reader::{Ask, Transport, open};
use crate::tokens;

#[tokio::test]
async fn a_poll_is_answered_as_soon_as_there_is_something() {
    let server = spawn(Options::new());
    let mut cursor = server.notes("alice", 1).await;
    for round in 2..10 {
        let path = format!("/v1/events?format=json&cursor={cursor}&wait=12");
        let call = server.get(&path).token(&tokens::user("alice"));
        let started = Instant::now();
        let (page, event) = tokio::join!(call.send(), server.note("alice", json!(round)));
        let (page, took) = (page.expect(200), started.elapsed());
        check_page(&page);
        assert_eq!(page["events"][0]["id"], event["id"], "{page}");
        assert_eq!(
            (&page["cursor"], &page["more"]),
            (&event["cursor"], &json!(false)),
            "{page}"
        );
        assert!(took < Duration::from_secs(8), "the answer took {took:?}");
        event["cursor"].as_str().unwrap().clone_into(&mut cursor);
    }
}

#[tokio::test]
async fn a_poll_that_hears_nothing_gives_a_usable_cursor() {
    let server = spawn(Options::new());
    let cursor = server.notes("alice", 2).await;
    let started = Instant::now();
    let page = server
        .page("alice", &format!("cursor={cursor}&wait=1"))
        .await;
    let took = started.elapsed().as_secs_f64();
    assert!((0.9..5.0).contains(&took), "wait=1 took {took} s");
    assert_eq!(page["events"], json!([]), "{page}");
    assert_eq!(
        (&page["cursor"], &page["head"]),
        (&json!(cursor), &json!(cursor)),
        "{page}"
    );
    assert!(page["reset"].is_null() && page["more"] == false, "{page}");
    server.note("alice", json!(3)).await;
    let page = server.page("alice", &format!("cursor={cursor}")).await;
    assert_eq!(page["events"][0]["seq"], 3, "{page}");
}

#[tokio::test]
async fn without_a_cursor_a_page_comes_at_once() {
    let server = spawn(Options::new());
    let head = server.notes("alice", 2).await;
    let started = Instant::now();
    let page = server.page("alice", "").await;
    assert!(started.elapsed() < Duration::from_secs(5), "it waited");
    assert_eq!(
        (&page["events"], &page["cursor"]),
        (&json!([]), &json!(head)),
        "{page}"
    );
    assert_eq!(page["poll_after_ms"], 0, "{page}");
}

#[tokio::test]
async fn limit_cuts_pages_and_more_says_so() {
    let server = spawn(Options::new());
    server.notes("alice", 10).await;
    let mut seqs = Vec::new();
    let mut position = "start".to_owned();
    loop {
        let page = server
            .page("alice", &format!("cursor={position}&limit=3&wait=5"))
            .await;
        let events = page["events"].as_array().unwrap();
        seqs.extend(events.iter().map(|event| event["seq"].as_u64().unwrap()));
        page["cursor"].as_str().unwrap().clone_into(&mut position);
        assert_eq!(seq_of(&position), *seqs.last().unwrap(), "{page}");
        if page["more"] == false {
            break;
        }
        assert_eq!(events.len(), 3, "{page}");
    }
    assert_eq!(seqs, (1..=10).collect::<Vec<u64>>());
}

#[tokio::test]
async fn numbers_out_of_range_are_refused_or_bounded() {
    let server = spawn(Options::new());
    server.notes("alice", 3).await;
    let token = tokens::user("alice");
    for query in [
        "limit=0",
        "limit=1001",
        "limit=99999999999999999999",
        "wait=61",
        "wait=1e9",
        "on_gap=perhaps",
        "named=maybe",
        "control=x",
    ] {
        let path = format!("/v1/events?format=json&cursor=start&{query}");
        let reply = server.get(&path).token(&token).send().await;
        assert!([200, 400].contains(&reply.status), "{query}: {reply:?}");
    }
    for query in ["limit=x", "limit=-1", "wait=x", "wait=-1"] {
        let path = format!("/v1/events?format=json&cursor=start&{query}");
        server.get(&path).token(&token).send().await.refused(&[400]);
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn a_page_with_a_lost_cursor_is_whole() {
    let server = spawn(Options::new());
    let head = server.notes("alice", 3).await;
    let page = server.page("alice", "cursor=aaaaaa-1&wait=10").await;
    assert_eq!(page["reset"]["reason"], "epoch", "{page}");
    assert_eq!(
        (&page["events"], &page["cursor"]),
        (&json!([]), &json!(head)),
        "{page}"
    );
    let ask = Ask::user("alice").query("cursor=aaaaaa-1&wait=10&on_gap=earliest");
    let mut reader = open(&server, Transport::Poll, &ask).await;
    let reset = reader.next().await;
    assert_eq!(reset.kind, Kind::Reset, "{reset:?}");
    assert_eq!(reader.seqs(3).await, [1, 2, 3]);
}

#[tokio::test]
async fn pages_are_not_stored_by_anyone_between() {
    let server = spawn(Options::new());
    let reply = server
        .get("/v1/events?format=json")
        .token(&tokens::user("alice"))
        .send()
        .await;
    let cache = reply.header("cache-control").unwrap_or("");
    assert!(cache.contains("no-store"), "{reply:?}");
}

#[tokio::test]
async fn the_aliases_are_the_same_handlers() {
    let server = spawn(Options::new());
    let cursor = server.notes("alice", 2).await;
    let token = tokens::user("alice");
    for path in [
        "/api/v1/realtime/poll?cursor=start",
        "/api/v1/events/missed?cursor=start",
    ] {
        let page = server.get(path).token(&token).send().await.expect(200);
        check_page(&page);
        assert_eq!(
            page["events"].as_array().map(Vec::len),
            Some(2),
            "{path}: {page}"
        );
    }
    let started = Instant::now();
    let path = format!("/api/v1/events/missed?cursor={cursor}");
    let page: Value = server.get(&path).token(&token).send().await.expect(200);
    assert_eq!(page["events"], json!([]));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "missed does not wait"
    );
    let opened = server
        .get("/api/v1/realtime/stream?cursor=start")
        .token(&token)
        .open()
        .await;
    let mut reader = crate::reader::Reader::of_sse(opened.unwrap());
    assert_eq!(reader.seqs(2).await, [1, 2]);
    let handshake = crate::websocket::Handshake::default().token(&token);
    let socket = crate::websocket::connect(server.address, "/ws?cursor=start", handshake).await;
    let mut reader = crate::reader::Reader::of_socket(socket.unwrap());
    assert_eq!(reader.seqs(2).await, [1, 2]);
}

#[tokio::test]
async fn a_poll_acks_the_cursor_that_it_goes_on_from() {
    let mut server = spawn(Options::new());
    let head = server.notes("alice", 3).await;
    let cursor = |seq: u64| json!(format!("{}-{seq}", epoch_of(&head)));
    // An ack is answered with the furthest one; an older one moves nothing.
    let acked = async |server: &Server| {
        let call = server.post("/v1/ack").token(&tokens::user("alice"));
        let reply = call.json(&json!({"cursor": cursor(1)})).send().await;
        reply.expect(200)["cursor"].clone()
    };
    assert_eq!(acked(&server).await, cursor(1));
    server.page("alice", "cursor=start").await;
    let asked = format!("cursor={}", cursor(2).as_str().unwrap());
    server.page("alice", &asked).await;
    eventually("the poll's cursor is acked", async || {
        acked(&server).await == cursor(2)
    })
    .await;
    server.kill9();
    server.restart();
    assert_eq!(acked(&server).await, cursor(2), "shown, so it stays");
    server.page("alice", &format!("cursor={head}&wait=0")).await;
    eventually("the head is acked", async || {
        acked(&server).await == cursor(3)
    })
    .await;
}

//! PROTOCOL.md sections 1 to 3, reading: one log, one cursor, four transports.
//!
//! Each scenario is written once and runs over every transport that can play it. Resets have their own file, and
//! so has what only one transport knows.

use serde_json::{Value, json};

use crate::delivery::{Delivery, Kind, epoch_of, seq_of};
use crate::harness::{Options, spawn};
use crate::reader::{Ask, Transport, open};
use crate::tokens;

#[tokio::test]
async fn changing_transport_loses_and_repeats_nothing() {
    let server = spawn(Options::new());
    for first in Transport::ALL {
        for second in Transport::ALL {
            let user = format!("{first:?}-{second:?}").to_lowercase();
            let cursor = server.notes(&user, 7).await;
            let mut reader = open(&server, first, &Ask::user(&user).query("cursor=start")).await;
            assert_eq!(reader.seqs(3).await, [1, 2, 3], "{user}");
            let middle = reader.cursor().to_owned();
            assert_eq!(middle, format!("{}-3", epoch_of(&cursor)), "{user}");
            drop(reader);
            server.note(&user, json!({"n": 8})).await;
            let mut reader = open(&server, second, &Ask::user(&user).cursor(&middle)).await;
            let events = reader.events(5).await;
            let numbers: Vec<u64> = events
                .iter()
                .map(|event| event.json["data"]["n"].as_u64().unwrap())
                .collect();
            assert_eq!(numbers, [4, 5, 6, 7, 8], "{user}");
            server.note(&user, json!({"n": 9})).await;
            assert_eq!(reader.seqs(1).await, [9], "{user}");
        }
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn an_event_is_the_same_json_on_every_transport() {
    let server = spawn(Options::new());
    let body = json!({
        "to": {"user": "alice"}, "type": "message.new", "id": "e-1", "topic": "conversation:9f",
        "actor": {"id": "bob", "name": "Bob \"B\""}, "data": {"text": "Hällo\n\u{2028}", "n": [1, 2.5, null]},
    });
    let reply = server.publish(&body).await.expect(201);
    let mut seen: Vec<Value> = Vec::new();
    for transport in Transport::ALL {
        let mut reader = open(
            &server,
            transport,
            &Ask::user("alice").query("cursor=start"),
        )
        .await;
        seen.push(reader.events(1).await.remove(0).json);
    }
    for event in &seen {
        assert_eq!(event, &seen[0]);
    }
    let event = &seen[0];
    for name in ["type", "id", "topic", "actor", "data"] {
        assert_eq!(event[name], body[name], "{name} of {event}");
    }
    for name in ["id", "time", "seq", "cursor"] {
        assert_eq!(event[name], reply[name], "{name} of {event} and {reply}");
    }
}

#[tokio::test]
async fn start_positions() {
    let server = spawn(Options::new());
    let mut events = Vec::new();
    for n in 1..=6 {
        events.push(server.note("alice", json!({ "n": n })).await);
    }
    let epoch = epoch_of(events[0]["cursor"].as_str().unwrap()).to_owned();
    let time = events[3]["time"].as_str().unwrap();
    let since = |time: &str| {
        events
            .iter()
            .filter(|event| event["time"].as_str().unwrap() >= time)
            .count()
    };
    let (since_time, since_count) = (format!("since={time}"), since(time));
    let cases: Vec<(String, usize)> = vec![
        (String::new(), 0),
        ("cursor=now".to_owned(), 0),
        ("cursor=start".to_owned(), 6),
        (format!("cursor={epoch}-4"), 2),
        (format!("cursor={epoch}-6"), 0),
        (format!("cursor={epoch}-0"), 6),
        ("cursor=4".to_owned(), 2),
        ("cursor=-2".to_owned(), 2),
        ("cursor=-100".to_owned(), 6),
        ("last_event_id=4".to_owned(), 2),
        ("lastEventId=4".to_owned(), 2),
        ("cursor=".to_owned(), 0),
        ("cursor=&last_event_id=4".to_owned(), 2),
        (since_time.clone(), since_count),
        (format!("cursor=&{since_time}"), since_count),
        (format!("cursor=5&{since_time}"), 1),
        ("since=0".to_owned(), 6),
        ("since=32503680000000".to_owned(), 0),
        ("since=2000-01-01T00:00:00Z".to_owned(), 6),
    ];
    for (query, count) in cases {
        for transport in Transport::ALL {
            let mut reader = open(&server, transport, &Ask::user("alice").query(&query)).await;
            let seqs: Vec<u64> = reader
                .events_until_live()
                .await
                .iter()
                .map(Delivery::seq)
                .collect();
            let expected: Vec<u64> = (7 - count as u64..=6).collect();
            assert_eq!(seqs, expected, "{query:?} over {transport:?}");
            assert_eq!(
                reader.cursor(),
                format!("{epoch}-6"),
                "{query:?} over {transport:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_header_wins_over_the_query() {
    let server = spawn(Options::new());
    let cursor = server.notes("alice", 5).await;
    let epoch = epoch_of(&cursor);
    let cases = [
        (format!("{epoch}-3"), "cursor=start", 2),
        ("4".to_owned(), "cursor=now", 1),
        ("start".to_owned(), "since=32503680000000", 5),
        (String::new(), "cursor=3", 2),
        (format!("{epoch}-5"), "cursor=start&last_event_id=1", 0),
    ];
    for (header, query, count) in cases {
        for transport in [Transport::Sse, Transport::Ndjson, Transport::Poll] {
            let ask = Ask::user("alice").query(query).last_event_id(&header);
            let mut reader = open(&server, transport, &ask).await;
            let events = reader.events_until_live().await;
            assert_eq!(
                events.len(),
                count,
                "{header:?} and {query:?} over {transport:?}"
            );
        }
    }
}

#[tokio::test]
async fn ready_comes_first_and_live_when_caught_up() {
    let server = spawn(Options::new());
    let head = server.notes("alice", 4).await;
    let mut conns = Vec::new();
    for transport in Transport::OPEN {
        let mut reader = open(&server, transport, &Ask::user("alice").query("cursor=2")).await;
        let ready = reader.next().await;
        assert_eq!(ready.kind, Kind::Ready, "{ready:?}");
        let json = &ready.json;
        assert_eq!(
            (json["v"].as_u64(), json["user"].as_str()),
            (Some(1), Some("alice")),
            "{json}"
        );
        assert_eq!(
            ready.cursor.as_deref(),
            Some(format!("{}-2", epoch_of(&head)).as_str()),
            "{json}"
        );
        assert_eq!(json["head"], head, "{json}");
        assert_eq!(json["ping_ms"], 20_000, "{json}");
        let expires = ready.str("auth_expires");
        assert!(
            expires.starts_with("20") && expires.ends_with('Z'),
            "{json}"
        );
        conns.push(ready.str("conn").to_owned());
        let kinds: Vec<Kind> = vec![reader.next().await.kind, reader.next().await.kind];
        assert_eq!(kinds, [Kind::Event, Kind::Event], "{transport:?}");
        let live = reader.next().await;
        assert_eq!(
            (live.kind, live.cursor.as_deref()),
            (Kind::Live, Some(head.as_str())),
            "{transport:?}"
        );
    }
    conns.sort();
    conns.dedup();
    assert_eq!(
        conns.len(),
        3,
        "every connection has an id of its own: {conns:?}"
    );
    assert!(conns.iter().all(|conn| !conn.is_empty()), "{conns:?}");
}

#[tokio::test]
async fn a_new_user_has_an_empty_log_and_hears_the_first_event() {
    let server = spawn(Options::new());
    for transport in Transport::ALL {
        let user = format!("new-{transport:?}").to_lowercase();
        let mut reader = open(&server, transport, &Ask::user(&user).query("cursor=start")).await;
        assert_eq!(reader.events_until_live().await.len(), 0);
        assert_eq!(seq_of(reader.cursor()), 0, "{transport:?}");
        let before = epoch_of(reader.cursor()).to_owned();
        server.note(&user, json!(1)).await;
        assert_eq!(reader.seqs(1).await, [1]);
        assert_eq!(
            epoch_of(reader.cursor()),
            before,
            "the epoch is that of `ready`: {transport:?}"
        );
    }
}

#[tokio::test]
async fn no_one_reads_the_log_of_another() {
    let server = spawn(Options::new());
    for transport in Transport::ALL {
        let mut reader = open(
            &server,
            transport,
            &Ask::user("alice").query("cursor=start"),
        )
        .await;
        reader.events_until_live().await;
        server.note("bob", json!("for bob")).await;
        server
            .signal("bob", "typing.start", json!("for bob"))
            .await
            .expect(201);
        server.note("alice", json!("for alice")).await;
        let next = loop {
            let delivery = reader.next().await;
            if !matches!(delivery.kind, Kind::Ping | Kind::Live) {
                break delivery;
            }
        };
        assert_eq!(next.json["data"], "for alice", "{transport:?}");
    }
    let bob = server.page("bob", "cursor=start").await["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let page = server.page("alice", &format!("cursor={bob}&wait=0")).await;
    assert_eq!(
        page["reset"]["reason"], "epoch",
        "bob's cursor is no position in alice's log: {page}"
    );
}

#[tokio::test]
async fn filters_choose_what_is_sent() {
    let server = spawn(Options::new());
    for (event_type, topic) in [
        ("note.new", Some("a:1")),
        ("note.changed", Some("a:2")),
        ("message.new", None),
        ("notebook.new", Some("b:1")),
        ("message.deleted", Some("a:1")),
    ] {
        let mut body = json!({"to": {"user": "alice"}, "type": event_type, "data": {}});
        if let Some(topic) = topic {
            body["topic"] = json!(topic);
        }
        server.publish(&body).await.expect(201);
    }
    let cases: [(&str, &[u64]); 7] = [
        ("types=note.*", &[1, 2]),
        ("types=message.new", &[3]),
        ("types=note.*,message.new", &[1, 2, 3]),
        ("types=nothing.here", &[]),
        ("topics=a:1", &[1, 5]),
        ("topics=a:1,b:1", &[1, 4, 5]),
        ("types=message.*&topics=a:1", &[5]),
    ];
    for (query, expected) in cases {
        for transport in Transport::ALL {
            let ask = Ask::user("alice").query(&format!("cursor=start&{query}"));
            let mut reader = open(&server, transport, &ask).await;
            let seqs: Vec<u64> = reader
                .events_until_live()
                .await
                .iter()
                .map(Delivery::seq)
                .collect();
            assert_eq!(seqs, expected, "{query} over {transport:?}");
            assert_eq!(
                seq_of(reader.cursor()),
                5,
                "the cursor moves on: {query} over {transport:?}"
            );
        }
    }
}

#[tokio::test]
async fn hidden_events_move_the_cursor_by_pings() {
    let server = spawn(Options::new());
    let mut readers = Vec::new();
    for transport in Transport::OPEN {
        let ask = Ask::user("alice").query("types=other.*");
        let mut reader = open(&server, transport, &ask).await;
        reader.next_of(Kind::Live).await;
        readers.push((transport, reader));
    }
    server.notes("alice", 300).await;
    for (transport, mut reader) in readers {
        let ping = reader.next_of(Kind::Ping).await;
        let moved = seq_of(
            ping.cursor
                .as_deref()
                .expect("a ping that moves the cursor"),
        );
        assert!((1..=300).contains(&moved), "{ping:?}");
        // What is left over follows within 5 s.
        while seq_of(reader.cursor()) < 300 {
            reader.next_of(Kind::Ping).await;
        }
        let resumed = Ask::user("alice").cursor(reader.cursor());
        let mut reader = open(&server, transport, &resumed).await;
        assert_eq!(reader.events_until_live().await.len(), 0, "{transport:?}");
    }
}

#[tokio::test]
async fn silence_is_filled_with_pings() {
    let server = spawn(Options::new().set("stream.ping_seconds", 0.3));
    let head = server.notes("alice", 1).await;
    for transport in Transport::OPEN {
        let mut reader = open(&server, transport, &Ask::user("alice")).await;
        let ready = reader.next_of(Kind::Ready).await;
        assert_eq!(ready.json["ping_ms"], 300, "{ready:?}");
        reader.next_of(Kind::Live).await;
        let started = std::time::Instant::now();
        for _ in 0..3 {
            let ping = reader.next().await;
            assert_eq!(
                (ping.kind, ping.str("head")),
                (Kind::Ping, head.as_str()),
                "{ping:?}"
            );
        }
        let took = started.elapsed().as_secs_f64();
        assert!(
            (0.7..3.0).contains(&took),
            "3 pings of 0.3 s took {took} s over {transport:?}"
        );
    }
}

#[tokio::test]
async fn ephemeral_events_reach_who_listens_and_are_not_kept() {
    let server = spawn(Options::new());
    for transport in Transport::ALL {
        let user = format!("signals-{transport:?}").to_lowercase();
        let mut reader = open(&server, transport, &Ask::user(&user)).await;
        reader.next_of(Kind::Live).await;
        let waits = tokio::spawn(async move { (reader.next_of(Kind::Signal).await, reader) });
        // A poll hears what comes while it waits, so the first signals may be too early for it.
        let mut n = 0;
        while !waits.is_finished() {
            let reply = server
                .signal(&user, "signal.pointer", json!({ "n": n }))
                .await
                .expect(201);
            assert!(
                reply.get("seq").is_none(),
                "an ephemeral event has no seq: {reply}"
            );
            n += 1;
            tokio::time::sleep(crate::harness::LOOK_AGAIN).await;
        }
        let (signal, _reader) = waits.await.unwrap();
        assert_eq!(signal.json["type"], "signal.pointer", "{signal:?}");
        assert_eq!(signal.json["v"], 1, "{signal:?}");
        let page = server.page(&user, "cursor=start&wait=0").await;
        assert_eq!(page["events"], json!([]), "{transport:?}");
        assert_eq!(seq_of(page["head"].as_str().unwrap()), 0, "{transport:?}");
    }
}

#[tokio::test]
async fn the_form_is_chosen_by_format_and_accept() {
    let server = spawn(Options::new());
    let (sse, ndjson, json) = (
        "text/event-stream",
        "application/x-ndjson",
        "application/json",
    );
    let cases = [
        ("", None, sse),
        ("", Some("*/*"), sse),
        ("", Some(sse), sse),
        ("", Some("text/html, */*;q=0.8"), sse),
        ("", Some(ndjson), ndjson),
        ("", Some(json), json),
        ("format=sse", Some(json), sse),
        ("format=ndjson", Some(sse), ndjson),
        ("format=json", Some(sse), json),
        ("format=json", None, json),
        ("format=", Some(ndjson), ndjson),
    ];
    for (query, accept, expected) in cases {
        let mut call = server
            .get(&format!("/v1/events?{query}"))
            .token(&tokens::user("alice"));
        if let Some(accept) = accept {
            call = call.header("accept", accept);
        }
        let content_type = if expected == json {
            call.send().await.header("content-type").unwrap().to_owned()
        } else {
            let opened = call.open().await.unwrap();
            opened.headers["content-type"].to_str().unwrap().to_owned()
        };
        assert_eq!(content_type, expected, "{query:?} with {accept:?}");
    }
    let call = server
        .get("/v1/events?format=xml")
        .token(&tokens::user("alice"));
    call.send().await.refused(&[400]);
}

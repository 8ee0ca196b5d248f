//! FAULTS.md 4.3: whatever users put into names and data, one event in is one event out, with the same JSON.
//!
//! The property test publishes batches of random JSON, full of what breaks careless encoders, and reads them back
//! over every transport through the strict parsers.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::{Options, spawn};
use crate::reader::{Ask, Transport, open};
use crate::write::results;

/// Text with everything that means something to an encoder, a parser or a terminal.
fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n".to_owned()),
        Just("\r".to_owned()),
        Just("\r\n".to_owned()),
        Just("\0".to_owned()),
        Just("\u{2028}\u{2029}\u{85}".to_owned()),
        Just("\u{feff}".to_owned()),
        Just("\n\nid: 9\n\n".to_owned()),
        Just("\n\ndata: {}\nid: aaaaaa-1\n\nevent: bye\n".to_owned()),
        Just("\"\\\u{8}\u{c}/</script>".to_owned()),
        Just("\u{202e}\u{200f}\u{1b}[2J\u{7f}".to_owned()),
        Just("😀\u{10ffff}\u{fffe}".to_owned()),
        "[ -~]{0,8}".prop_map(|text| text),
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn hostile_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        hostile_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(hostile_text(), inner, 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

#[tokio::test]
async fn one_event_in_is_one_event_out() {
    let server = spawn(Options::new());
    let rng = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for batch in 0..4 {
        let user = format!("user-{batch}");
        let values: Vec<Value> = (0..250)
            .map(|_| hostile_json().new_tree(&mut runner).unwrap().current())
            .collect();
        let to = json!({"user": user});
        let event = |data: &Value| json!({"to": to, "type": "a.b", "data": data});
        let events: Vec<Value> = values.iter().map(event).collect();
        let reply = server
            .publish(&json!({ "events": events }))
            .await
            .expect(200);
        assert!(
            results(&reply)
                .iter()
                .all(|result| result["id"].is_string()),
            "{reply}"
        );
        for transport in Transport::ALL {
            let query = if batch % 2 == 0 {
                "cursor=start"
            } else {
                "cursor=start&named=1"
            };
            let mut reader = open(&server, transport, &Ask::user(&user).query(query)).await;
            let events = reader.events(values.len()).await;
            for (event, value) in events.iter().zip(&values) {
                assert_eq!(
                    &event.json["data"], value,
                    "{:?} over {transport:?}",
                    event.raw
                );
            }
            assert_eq!(
                reader.next().await.kind,
                Kind::Live,
                "nothing but these events"
            );
        }
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn data_comes_out_as_it_went_in_to_the_byte() {
    let server = spawn(Options::new());
    // Numbers that lose their form in a float, escapes that need none, keys in no order.
    let texts = [
        "123456789012345678901234567890",
        "1.0",
        "1E+2",
        "-0",
        "0.1000",
        "\"\\u0041\\/\"",
        "\"\\n\\r\\u2028\"",
        "{\"b\":1,\"a\":2}",
    ];
    for text in texts {
        let body = format!("{{\"to\":{{\"user\":\"alice\"}},\"type\":\"a.b\",\"data\": {text} }}");
        let call = server
            .post("/v1/publish")
            .token(&crate::tokens::publisher());
        call.body("application/json", body).send().await.expect(201);
    }
    for transport in Transport::OPEN {
        let mut reader = open(
            &server,
            transport,
            &Ask::user("alice").query("cursor=start"),
        )
        .await;
        for (event, text) in reader.events(texts.len()).await.iter().zip(texts) {
            let is_kept = event.raw.contains(&format!("\"data\":{text}}}"));
            assert!(is_kept, "{text} became {:?} over {transport:?}", event.raw);
        }
    }
}

#[tokio::test]
async fn names_with_a_meaning_on_the_wire_are_refused() {
    let server = spawn(Options::new());
    let breaks = [
        "\n",
        "\r",
        "\r\n",
        "\0",
        "\u{2028}",
        "\u{feff}",
        "\n\nid: 9",
        " ",
        "\"",
        "\\",
        "\u{7f}",
        "é",
        "",
    ];
    let good = json!({"to": {"user": "alice"}, "type": "a.b", "data": 1});
    for text in breaks {
        for (name, value) in [
            ("type", json!(format!("a{text}"))),
            ("id", json!(format!("a{text}"))),
            ("topic", json!(format!("a{text}"))),
            ("to", json!({"user": format!("a{text}")})),
            ("to", json!({"topic": format!("a{text}")})),
            ("collapse_key", json!(format!("a{text}"))),
            ("exclude_conn", json!(format!("a{text}"))),
        ] {
            if text.is_empty() {
                continue;
            }
            let mut body = good.clone();
            body[name] = value;
            server.publish(&body).await.refused(&[400]);
        }
    }
    // With `named=1` these would be taken for the server's own frames.
    for reserved in [
        "sys.ready",
        "sys.x",
        "event.x",
        "ready",
        "live",
        "ping",
        "reset",
        "snapshot",
        "bye",
        "error",
        "auth",
    ] {
        let mut body = good.clone();
        body["type"] = json!(reserved);
        let reply = server.publish(&body).await;
        assert_eq!(
            reply.status, 400,
            "the type {reserved} was taken: {reply:?}"
        );
    }
    assert_eq!(
        server.page("alice", "cursor=start&wait=0").await["events"],
        json!([])
    );
    server.assert_healthy().await;
}

#[tokio::test]
async fn what_is_refused_is_not_echoed_as_markup() {
    let server = spawn(Options::new());
    let reply = server
        .get("/%3Cscript%3Ealert(1)%3C/script%3E")
        .send()
        .await;
    reply.refused(&[404]);
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json")
    );
    let body = json!({"to": {"user": "<b>\u{1b}[2J"}, "type": "a.b", "data": 1});
    let message = server.publish(&body).await.expect(400)["message"].to_string();
    assert!(
        !message.contains("\\u001b") && !message.contains("<b>"),
        "{message}"
    );
}

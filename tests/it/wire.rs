//! The wire, to the byte: what each form of the log, a refusal and a receipt look like.
//!
//! Promises: nothing is masked. What the test did not choose it reads from the publish call's reply (time, epoch), from
//! a header (request id) or from `ready` (conn), and builds the expected bytes from it. Changing one is changing the API.

use serde_json::{Value, json};

use crate::client::WAIT;
use crate::delivery::{Kind, epoch_of};
use crate::harness::{Options, Server, spawn};
use crate::reader::{Ask, Transport, open};
use crate::tokens;

/// Reads a stream until `enough` has arrived, and gives all bytes until then.
async fn bytes_until(server: &Server, path: &str, accept: &str, enough: &str) -> String {
    let call = server
        .get(path)
        .token(&tokens::user("alice"))
        .header("accept", accept);
    let mut opened = call.open().await.unwrap();
    let mut bytes = Vec::new();
    loop {
        bytes.extend(opened.next(WAIT).await.expect("the stream goes on"));
        let text = String::from_utf8_lossy(&bytes);
        if text.contains(enough) {
            return text.into_owned();
        }
    }
}

async fn server() -> Server {
    let options = Options::new()
        .set("stream.retry_ms_min", 3740)
        .set("stream.retry_ms_max", 3740);
    spawn(options.set("stream.ping_seconds", 0.5))
}

async fn published(server: &Server) -> Value {
    let body = json!({
        "to": {"user": "alice"}, "type": "message.new", "id": "e-1", "topic": "conversation:9f",
        "actor": {"id": "bob", "name": "Bob"}, "data": {"n": 1.50, "text": "two\nlines"},
    });
    server.publish(&body).await.expect(201)
}

/// The event of `published` as PROTOCOL.md section 2 writes it.
fn event_json(event: &Value) -> String {
    let (cursor, time) = (
        event["cursor"].as_str().unwrap(),
        event["time"].as_str().unwrap(),
    );
    format!(
        concat!(
            r#"{{"v":1,"id":"e-1","seq":1,"cursor":"{}","type":"message.new","time":"{}","topic":"conversation:9f","#,
            r#""actor":{{"id":"bob","name":"Bob"}},"data":{{"n":1.5,"text":"two\nlines"}}}}"#
        ),
        cursor, time
    )
}

/// The `ready` that `text` begins with, for a reader that starts at `cursor`.
fn ready_json(text: &str, cursor: &str, head: &str) -> String {
    let (_, conn) = text
        .split_once(r#""conn":""#)
        .expect("ready tells its conn");
    let conn = &conn[..conn.find('"').unwrap()];
    let (_, expires) = text
        .split_once(r#""auth_expires":""#)
        .expect("ready tells when the token ends");
    let expires = &expires[..expires.find('"').unwrap()];
    assert_eq!(expires.len(), "2026-11-21T02:30:00.123Z".len(), "{text}");
    format!(
        concat!(
            r#"{{"type":"sys.ready","v":1,"user":"alice","conn":"{}","cursor":"{}","head":"{}","ping_ms":500,"#,
            r#""badge":{{"notifications":0,"messages":0,"conversations":0}},"auth_expires":"{}"}}"#
        ),
        conn, cursor, head, expires
    )
}

#[tokio::test]
async fn the_bytes_of_sse() {
    let server = server().await;
    let event = published(&server).await;
    let cursor = event["cursor"].as_str().unwrap();
    let start = format!("{}-0", epoch_of(cursor));
    for (query, name) in [
        ("cursor=start", ""),
        ("cursor=start&named=1", "event: message.new\n"),
    ] {
        let ping =
            format!("event: ping\ndata: {{\"type\":\"sys.ping\",\"head\":\"{cursor}\"}}\n\n");
        let path = format!("/v1/events?{query}");
        let text = bytes_until(&server, &path, "text/event-stream", &ping).await;
        let ready = ready_json(&text, &start, cursor);
        let expected = format!(
            "retry: 3740\nevent: ready\ndata: {ready}\nid: {start}\n\n\
             {name}data: {}\nid: {cursor}\n\n\
             event: live\ndata: {{\"type\":\"sys.live\",\"cursor\":\"{cursor}\"}}\nid: {cursor}\n\n\
             {ping}",
            event_json(&event)
        );
        assert_eq!(text, expected);
    }
}

#[tokio::test]
async fn the_bytes_of_a_reset() {
    let server = server().await;
    let event = published(&server).await;
    let cursor = event["cursor"].as_str().unwrap();
    let live = format!(
        "event: live\ndata: {{\"type\":\"sys.live\",\"cursor\":\"{cursor}\"}}\nid: {cursor}\n\n"
    );
    let path = "/v1/events?cursor=aaaaaa-1";
    let text = bytes_until(&server, path, "text/event-stream", &live).await;
    // Nobody may go on from elsewhere before the reset was heard.
    let ready = ready_json(&text, "aaaaaa-1", cursor);
    let expected = format!(
        "retry: 3740\nevent: ready\ndata: {ready}\nid: aaaaaa-1\n\n\
         event: reset\ndata: {{\"type\":\"sys.reset\",\"reason\":\"epoch\",\"requested\":\"aaaaaa-1\",\"earliest\":1,\
         \"head\":\"{cursor}\",\"cursor\":\"{cursor}\",\"state\":\"/v1/state\"}}\nid: {cursor}\n\n{live}"
    );
    assert_eq!(text, expected);
}

#[tokio::test]
async fn the_bytes_of_ndjson() {
    let server = server().await;
    let event = published(&server).await;
    let (json, cursor) = (event_json(&event), event["cursor"].as_str().unwrap());
    let start = format!("{}-0", epoch_of(cursor));
    let (ndjson, path) = ("application/x-ndjson", "/v1/events?cursor=start");
    let text = bytes_until(&server, &format!("{path}&control=0"), ndjson, "\n").await;
    assert_eq!(text, format!("{json}\n"));
    let live = format!("{{\"type\":\"sys.live\",\"cursor\":\"{cursor}\"}}\n");
    let text = bytes_until(&server, path, ndjson, &live).await;
    let ready = ready_json(&text, &start, cursor);
    assert_eq!(text, format!("{ready}\n{json}\n{live}"));
}

#[tokio::test]
async fn the_bytes_of_a_socket() {
    let server = server().await;
    let event = published(&server).await;
    let cursor = event["cursor"].as_str().unwrap();
    let start = format!("{}-0", epoch_of(cursor));
    let mut reader = open(
        &server,
        Transport::Socket,
        &Ask::user("alice").query("cursor=start"),
    )
    .await;
    let ready = reader.next().await.raw;
    assert_eq!(ready, ready_json(&ready, &start, cursor));
    assert_eq!(reader.next().await.raw, event_json(&event));
    assert_eq!(
        reader.next().await.raw,
        format!("{{\"type\":\"sys.live\",\"cursor\":\"{cursor}\"}}")
    );
    reader
        .socket()
        .send_text(r#"{"op":"ack","ref":"r1","cursor":"x"}"#)
        .await;
    let error = reader.next_of(Kind::Error).await;
    let message = error.str("message");
    let code = error.str("code");
    assert_eq!(
        error.raw,
        format!(r#"{{"type":"sys.error","ref":"r1","code":"{code}","message":"{message}"}}"#)
    );
    reader
        .socket()
        .send_text(&format!(r#"{{"op":"ack","ref":"r2","cursor":"{cursor}"}}"#))
        .await;
    let reply = reader.next_of(Kind::Reply).await.raw;
    assert_eq!(
        reply,
        format!(r#"{{"type":"sys.reply","ref":"r2","data":{{"cursor":"{cursor}"}}}}"#)
    );
}

#[tokio::test]
async fn the_bytes_of_a_page() {
    let server = server().await;
    let event = published(&server).await;
    let cursor = event["cursor"].as_str().unwrap();
    let get = async |query: &str| {
        let path = format!("/v1/events?format=json&wait=0&{query}");
        let reply = server.get(&path).token(&tokens::user("alice")).send().await;
        reply.text().to_owned()
    };
    let end = format!(
        r#""cursor":"{cursor}","head":"{cursor}","more":false,"reset":null,"poll_after_ms":0}}"#
    );
    let events = format!(
        r#"{{"events":[{}],"ephemeral":[],{end}"#,
        event_json(&event)
    );
    assert_eq!(get("cursor=start").await, events);
    assert_eq!(
        get("cursor=now").await,
        format!(r#"{{"events":[],"ephemeral":[],{end}"#)
    );
}

#[tokio::test]
async fn the_bytes_of_a_receipt_and_of_a_refusal() {
    let server = server().await;
    let event = published(&server).await;
    let (cursor, time) = (
        event["cursor"].as_str().unwrap(),
        event["time"].as_str().unwrap(),
    );
    let to = json!({"user": "alice"});
    let body = json!({"to": to, "type": "message.new", "id": "e-1", "topic": "conversation:9f",
        "actor": {"id": "bob", "name": "Bob"}, "data": {"n": 1.50, "text": "two\nlines"}});
    let receipt = server.publish(&body).await;
    let members: Value = serde_json::from_str(&format!(
        r#"{{"id":"e-1","time":"{time}","recipients":1,"duplicate":true,"seq":1,"cursor":"{cursor}"}}"#
    ))
    .unwrap();
    assert_eq!(receipt.json(), members);
    let refusal = server.get("/v1/events").send().await;
    let request_id = refusal.header("x-request-id").unwrap();
    let expected = format!(
        concat!(
            r#"{{"type":"about:blank","title":"Unauthorized","status":401,"code":"unauthorized","#,
            r#""message":"a valid token is needed","request_id":"{}"}}"#
        ),
        request_id
    );
    assert_eq!(refusal.text(), expected);
}

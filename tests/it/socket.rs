//! PROTOCOL.md section 3.5: what only the WebSocket knows: handshake, ops, pings, deflate and close codes; and the
//! bad input of FAULTS.md 4.5.
//!
//! Promises: frames are sent byte by byte as RFC 6455 forbids or allows them. Reading is in `reading` and `reset`.

use serde_json::{Value, json};

use crate::client::{Reply, WAIT};
use crate::delivery::{Kind, epoch_of};
use crate::harness::{Options, Server, spawn};
use crate::reader::{Ask, Reader, Transport, open};
use crate::tokens;
use crate::websocket::{Handshake, Message, Socket, connect, encode_frame, opcode};

async fn socket(server: &Server, user: &str) -> Socket {
    connected(server, Handshake::default().token(&tokens::user(user)))
        .await
        .unwrap()
}

async fn connected(server: &Server, handshake: Handshake) -> Result<Socket, Reply> {
    connect(server.address, "/v1/ws", handshake).await
}

/// Sends one op and gives the reply or the error to it.
async fn ask(reader: &mut Reader, op: Value) -> Value {
    reader.socket().send_text(&op.to_string()).await;
    replied(reader).await
}

/// The next reply or error.
async fn replied(reader: &mut Reader) -> Value {
    loop {
        let delivery = reader.next().await;
        if matches!(delivery.kind, Kind::Reply | Kind::Error | Kind::End) {
            return delivery.json;
        }
    }
}

#[tokio::test]
async fn the_subprotocol_is_agreed_upon() {
    let server = spawn(Options::new());
    let bearer = format!("bearer.{}", tokens::user("alice"));
    let cases = [
        ("tidings.v1".to_owned(), true, Some("tidings.v1")),
        ("other.v9, tidings.v1".to_owned(), true, Some("tidings.v1")),
        (format!("tidings.v1, {bearer}"), false, Some("tidings.v1")),
        (format!("{bearer}, tidings.v1"), false, Some("tidings.v1")),
    ];
    for (protocols, with_header, expected) in cases {
        let mut handshake = Handshake::default().protocols(&protocols);
        if with_header {
            handshake = handshake.token(&tokens::user("alice"));
        }
        let socket = connected(&server, handshake).await.unwrap();
        assert_eq!(
            socket.reply.header("sec-websocket-protocol"),
            expected,
            "{protocols}"
        );
        let mut reader = Reader::of_socket(socket);
        assert_eq!(reader.next().await.str("user"), "alice", "{protocols}");
    }
    let socket = socket(&server, "alice").await;
    assert_eq!(
        socket.reply.header("sec-websocket-protocol"),
        None,
        "none offered, none selected"
    );
    let handshake = Handshake::default()
        .token(&tokens::user("alice"))
        .protocols("other.v9, foo");
    connected(&server, handshake)
        .await
        .err()
        .expect("only unknown ones")
        .refused(&[400]);
}

#[tokio::test]
async fn a_plain_get_is_no_handshake() {
    let server = spawn(Options::new());
    let reply = server
        .get("/v1/ws")
        .token(&tokens::user("alice"))
        .send()
        .await;
    assert!([400, 426].contains(&reply.status), "{reply:?}");
}

#[tokio::test]
async fn a_socket_may_say_who_it_is_in_its_first_message() {
    let server = spawn(Options::new());
    let mut socket = connected(&server, Handshake::default()).await.unwrap();
    let auth = json!({"op": "auth", "ref": "r1", "token": tokens::user("alice")});
    socket.send_text(&auth.to_string()).await;
    let mut texts = Vec::new();
    while !texts.iter().any(|text: &Value| text["type"] == "sys.ready") {
        match socket.next_text().await {
            Message::Text(text) => texts.push(serde_json::from_str(&text).unwrap()),
            other => panic!("{other:?} after {texts:?}"),
        }
    }
    assert_eq!(texts.last().unwrap()["user"], "alice", "{texts:?}");

    let mut socket = connected(&server, Handshake::default()).await.unwrap();
    socket
        .send_text(&json!({"op": "auth", "token": "nonsense"}).to_string())
        .await;
    assert_eq!(socket.close_code().await, Some(4001));
}

#[tokio::test]
async fn a_socket_that_never_says_who_it_is_is_closed() {
    let server = spawn(Options::new().set("ws.auth_timeout_seconds", 0.3));
    let mut socket = connected(&server, Handshake::default()).await.unwrap();
    assert_eq!(socket.close_code().await, Some(4001));
    let bearer = "tidings.v1, bearer.nonsense";
    match connected(&server, Handshake::default().protocols(bearer)).await {
        Ok(mut socket) => assert_eq!(socket.close_code().await, Some(4001)),
        Err(reply) => drop(reply.refused(&[401])),
    }
}

#[tokio::test]
async fn ops_are_answered_by_their_ref() {
    let server = spawn(Options::new());
    let head = server.notes("alice", 2).await;
    let token = tokens::Token::of("alice")
        .claim("topics", json!(["feed:*"]))
        .sign();
    let mut reader = open(&server, Transport::Socket, &Ask::token(&token)).await;
    reader.next_of(Kind::Live).await;
    let refs = [
        json!({"op": "ping", "ref": "r1"}),
        json!({"op": "ack", "ref": "r2", "cursor": head}),
        json!({"op": "subscribe", "ref": "r3", "topic": "feed:news"}),
    ];
    for op in refs {
        let reply = ask(&mut reader, op.clone()).await;
        assert_eq!(
            (&reply["type"], &reply["ref"]),
            (&json!("sys.reply"), &op["ref"]),
            "{reply}"
        );
    }
    let body = json!({"to": {"topic": "feed:news"}, "type": "note.new", "data": "to the topic"});
    server.publish(&body).await.expect(201);
    assert_eq!(reader.events(1).await[0].json["data"], "to the topic");
    let reply = ask(
        &mut reader,
        json!({"op": "unsubscribe", "ref": "r4", "topic": "feed:news"}),
    )
    .await;
    assert_eq!(
        (&reply["type"], &reply["ref"]),
        (&json!("sys.reply"), &json!("r4")),
        "{reply}"
    );
    let published = server.publish(&body).await.expect(201);
    assert_eq!(published["recipients"], 0, "{published}");
}

#[tokio::test]
async fn refused_ops_say_why_and_harm_nothing() {
    let server = spawn(Options::new());
    let head = server.notes("alice", 2).await;
    let epoch = epoch_of(&head);
    let mut reader = open(&server, Transport::Socket, &Ask::user("alice")).await;
    reader.next_of(Kind::Live).await;
    let cases = [
        json!({"op": "fly", "ref": "1"}),
        json!({"op": "ack", "ref": "2"}),
        json!({"op": "ack", "ref": "3", "cursor": "nonsense"}),
        json!({"op": "ack", "ref": "4", "cursor": format!("{epoch}-99")}),
        json!({"op": "subscribe", "ref": "5", "topic": "not:allowed"}),
        json!({"op": "subscribe", "ref": "6", "topic": "a b\n"}),
        json!({"op": "subscribe", "ref": "7"}),
        json!({"op": "ping", "ref": "8", "surprise": true}),
    ];
    for op in cases {
        let reply = ask(&mut reader, op.clone()).await;
        let is_surprise = op["op"] == "ping";
        assert!(is_surprise || reply["type"] == "sys.error", "{op}: {reply}");
        assert_eq!(reply["ref"], op["ref"], "{op}: {reply}");
        if !is_surprise {
            assert!(
                reply["code"].is_string() && reply["message"].is_string(),
                "{op}: {reply}"
            );
        }
    }
    // Without a ref there is no reply, only errors.
    reader
        .socket()
        .send_text(&json!({"op": "ping"}).to_string())
        .await;
    let reply = ask(&mut reader, json!({"op": "ping", "ref": "last"})).await;
    assert_eq!(reply["ref"], "last", "{reply}");
    let error = ask(&mut reader, json!({"op": "fly"})).await;
    assert_eq!(error["type"], "sys.error", "{error}");
    assert!(error.get("ref").is_none_or(Value::is_null), "{error}");
    server.assert_healthy().await;
}

#[tokio::test]
async fn what_is_no_op_at_all_is_a_protocol_error() {
    let server = spawn(Options::new());
    for bad in [
        "",
        "{",
        "[]",
        "7",
        "null",
        "\"ping\"",
        "{\"op\":7}",
        "{\"ref\":\"x\"}",
    ] {
        let mut reader = open(&server, Transport::Socket, &Ask::user("alice")).await;
        reader.next_of(Kind::Live).await;
        reader.socket().send_text(bad).await;
        let delivery = loop {
            let delivery = reader.next().await;
            if matches!(delivery.kind, Kind::Error | Kind::End) {
                break delivery;
            }
        };
        let is_closed = delivery.kind == Kind::End && delivery.json == 4400;
        assert!(
            is_closed || delivery.kind == Kind::Error,
            "{bad:?}: {delivery:?}"
        );
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn frames_that_break_the_rules_close_the_connection() {
    let server = spawn(Options::new());
    let unmasked = vec![0x81, 0x02, b'{', b'}'];
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        (
            "invalid UTF-8",
            encode_frame(0x81, &[0xff, 0xfe, 0xc0]),
            &[1007],
        ),
        ("an unmasked frame", unmasked, &[1002]),
        ("an unknown opcode", encode_frame(0x83, b""), &[1002]),
        ("reserved bits", encode_frame(0xb1, b"{}"), &[1002]),
        (
            "a fragmented ping",
            encode_frame(opcode::PING, b""),
            &[1002],
        ),
        (
            "a long ping",
            encode_frame(0x80 | opcode::PING, &[0; 126]),
            &[1002],
        ),
        (
            "a continuation of nothing",
            encode_frame(0x80, b"x"),
            &[1002],
        ),
        (
            "a message inside another",
            [encode_frame(1, b"a"), encode_frame(0x81, b"b")].concat(),
            &[1002],
        ),
        (
            "a big message",
            encode_frame(0x81, &vec![b' '; 300_000]),
            &[1009],
        ),
        (
            "a binary message",
            encode_frame(0x80 | opcode::BINARY, b"{}"),
            &[1003, 4400],
        ),
        (
            "a close with a bad code",
            encode_frame(0x88, &999_u16.to_be_bytes()),
            &[1002],
        ),
        (
            "a close with half a code",
            encode_frame(0x88, &[3]),
            &[1002],
        ),
    ];
    for (what, bytes, codes) in cases {
        let mut socket = socket(&server, "alice").await;
        socket.send_bytes(&bytes).await;
        let code = socket.close_code().await;
        assert!(
            code.is_some_and(|code| codes.contains(&code)),
            "{what}: {code:?}, not {codes:?}"
        );
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn lawful_frames_of_odd_shapes_are_understood() {
    let server = spawn(Options::new());
    let mut socket = socket(&server, "alice").await;
    socket
        .send_frame(0x80 | opcode::PING, b"are you there")
        .await;
    // One message in three fragments, one of them empty, with a ping between.
    socket.send_frame(opcode::TEXT, b"{\"op\":\"pi").await;
    socket.send_frame(opcode::CONTINUATION, b"").await;
    socket.send_frame(0x80 | opcode::PING, b"").await;
    socket
        .send_frame(0x80 | opcode::CONTINUATION, b"ng\",\"ref\":\"r1\"}")
        .await;
    let mut pongs = Vec::new();
    loop {
        match socket.next().await {
            Message::Pong(payload) => pongs.push(payload),
            Message::Text(text) if text.contains("sys.reply") => {
                assert!(text.contains("\"r1\""), "{text}");
                break;
            }
            Message::Text(_) | Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pongs, [b"are you there".to_vec(), Vec::new()]);
    socket.close(1000).await;
    assert_eq!(
        socket.close_code().await,
        Some(1000),
        "a close is answered with its code"
    );
    assert_eq!(socket.next().await, Message::End);
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_gone() {
    let options = Options::new()
        .set("ws.ping_seconds", 0.2)
        .set("ws.pong_timeout_seconds", 0.4);
    let server = spawn(options);
    let mut silent = socket(&server, "alice").await;
    silent.answers_pings = false;
    let mut pings = 0;
    loop {
        match silent.next().await {
            Message::Ping(_) => pings += 1,
            Message::Close(..) | Message::End => break,
            _ => {}
        }
    }
    assert!(pings >= 1, "closed without having asked");
    let mut faithful = socket(&server, "alice").await;
    let mut pings = 0;
    while pings < 6 {
        match faithful.next().await {
            Message::Ping(_) => pings += 1,
            Message::Text(_) => {}
            other => panic!("{other:?} although every ping was answered"),
        }
    }
}

#[tokio::test]
async fn deflate_is_used_where_it_is_offered_and_allowed() {
    let offer = "permessage-deflate; client_max_window_bits";
    let handshake = || {
        let handshake = Handshake::default().token(&tokens::user("alice"));
        handshake.header("Sec-WebSocket-Extensions", offer)
    };
    let server = spawn(Options::new());
    let text = "the same words again and again ".repeat(100);
    server.note("alice", json!(text)).await;
    let socket = connect(server.address, "/v1/ws?cursor=start", handshake())
        .await
        .unwrap();
    let extensions = socket
        .reply
        .header("sec-websocket-extensions")
        .unwrap_or("")
        .to_owned();
    assert!(extensions.contains("permessage-deflate"), "{extensions:?}");
    assert!(
        extensions.contains("server_no_context_takeover"),
        "{extensions:?}"
    );
    let mut reader = Reader::of_socket(socket);
    assert_eq!(reader.events(1).await[0].json["data"], text);

    let server = spawn(Options::new().set("ws.deflate", false));
    let socket = connected(&server, handshake()).await.unwrap();
    assert_eq!(socket.reply.header("sec-websocket-extensions"), None);
}

#[tokio::test]
async fn a_small_window_is_kept_to_by_sending_what_is_not_compressed() {
    let server = spawn(Options::new());
    let text = "the same words again and again ".repeat(100);
    server.note("alice", json!(text)).await;
    let handshake = Handshake::default().token(&tokens::user("alice"));
    let offers = "permessage-deflate; server_max_window_bits=9, permessage-deflate";
    let handshake = handshake.header("Sec-WebSocket-Extensions", offers);
    let socket = connect(server.address, "/v1/ws?cursor=start", handshake)
        .await
        .unwrap();
    let extensions = socket.reply.header("sec-websocket-extensions");
    let extensions = extensions.unwrap_or("").to_owned();
    assert!(
        extensions.contains("server_max_window_bits=9"),
        "{extensions:?}"
    );
    let mut reader = Reader::of_socket(socket);
    assert_eq!(reader.events(1).await[0].json["data"], text);
    let mut deflater = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut deflater, br#"{"op":"ping","ref":"r7"}"#).unwrap();
    let deflated = deflater.finish().unwrap();
    reader.socket().send_frame(0xc1, &deflated).await;
    let reply = replied(&mut reader).await;
    assert_eq!(reply["ref"], "r7", "{reply:?}");
}

#[tokio::test]
async fn a_bomb_is_measured_after_inflating() {
    let server = spawn(Options::new());
    let handshake = Handshake::default().token(&tokens::user("alice"));
    let handshake = handshake.header("Sec-WebSocket-Extensions", "permessage-deflate");
    let mut socket = connected(&server, handshake).await.unwrap();
    let before = server.resident_bytes();
    let mut deflater = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    let block = vec![b' '; 1 << 20];
    for _ in 0..40 {
        std::io::Write::write_all(&mut deflater, &block).unwrap();
    }
    let bomb = deflater.finish().unwrap();
    socket.send_frame(0xc1, &bomb).await;
    assert_eq!(
        socket.close_code().await,
        Some(1009),
        "a bomb of {} bytes",
        bomb.len()
    );
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 20 << 20, "the server grew by {grown} bytes");
    server.assert_healthy().await;
}

#[tokio::test]
async fn too_many_connections_of_one_user_are_refused() {
    let server = spawn(Options::new().set("limits.connections_per_user", 2));
    let mut kept = Vec::new();
    for _ in 0..2 {
        // The place is taken when `ready` comes, which is after the handshake.
        let mut reader = Reader::of_socket(socket(&server, "alice").await);
        reader.next_of(Kind::Ready).await;
        kept.push(reader);
    }
    match connected(&server, Handshake::default().token(&tokens::user("alice"))).await {
        Ok(mut socket) => assert_eq!(socket.close_code().await, Some(4029)),
        Err(reply) => drop(reply.refused(&[429])),
    }
    let mut other = socket(&server, "bob").await;
    assert!(
        matches!(other.next_within(WAIT).await, Message::Text(_)),
        "bob is not alice"
    );
}

//! PROTOCOL.md section 4: who may, by which way; and a handful of FAULTS.md 4.4 over HTTP.
//!
//! The whole table of bad tokens stands beside the verifier; here is what only the running server can show: that no
//! refusal tells why, that no secret reaches a log line, and which way is open to whom.

use jsonwebtoken::{Algorithm, Header};
use serde_json::json;
use tidings::clock::Clock;

use crate::delivery::Kind;
use crate::harness::{Options, Server, eventually, spawn, start_by};
use crate::reader::{Ask, Reader, Transport, open};
use crate::tokens::{self, SECRET, Token, base64url};
use crate::websocket::{Handshake, connect};

/// The status of a JSON page for the bearer of `token`.
async fn status(server: &Server, token: &str) -> u16 {
    server
        .get("/v1/events?format=json")
        .token(token)
        .send()
        .await
        .status
}

/// Claims that are, or are not, those of a user now.
fn claims_table() -> Vec<(&'static str, Token, u16)> {
    let good = Token::of("alice");
    let with = |name: &str, value: serde_json::Value| good.clone().claim(name, value);
    vec![
        ("good", good.clone(), 200),
        ("within the leeway", good.clone().expires_in(-10), 200),
        ("expired", good.clone().expires_in(-60), 401),
        ("without exp", good.clone().without("exp"), 401),
        ("exp as text", with("exp", json!("tomorrow")), 401),
        ("exp before all time", with("exp", json!(-1)), 401),
        (
            "not yet",
            with("nbf", json!(tokens::unix_seconds() + 3600)),
            401,
        ),
        ("nbf as text", with("nbf", json!("soon")), 401),
        ("without sub", good.clone().without("sub"), 401),
        ("empty sub", with("sub", json!("")), 401),
        (
            "sub with a control character",
            with("sub", json!("a\nb")),
            401,
        ),
        ("sub with a star", with("sub", json!("*")), 401),
        ("long sub", with("sub", json!("a".repeat(129))), 401),
    ]
}

/// Good claims in a form that must not be taken.
fn forms_table() -> Vec<(&'static str, String)> {
    let good = Token::of("alice");
    let signed = good.sign();
    let parts: Vec<&str> = signed.split('.').collect();
    let (head, body, signature) = (parts[0], parts[1], parts[2]);
    let none = |alg: &str| base64url(json!({"alg": alg, "typ": "JWT"}).to_string().as_bytes());
    let path = Header {
        kid: Some("../../etc/passwd".to_owned()),
        ..Header::default()
    };
    let other = "another secret of the same kind";
    vec![
        ("another secret", good.sign_with(&Header::default(), other)),
        (
            "HS384",
            good.sign_with(&Header::new(Algorithm::HS384), SECRET),
        ),
        (
            "HS512",
            good.sign_with(&Header::new(Algorithm::HS512), SECRET),
        ),
        ("alg none", format!("{}.{body}.", none("none"))),
        ("alg None", format!("{}.{body}.{signature}", none("None"))),
        ("alg nOnE", format!("{}.{body}.", none("nOnE"))),
        ("no signature", format!("{head}.{body}.")),
        ("two parts", format!("{head}.{body}")),
        ("five parts", format!("{signed}.{body}.{signature}")),
        ("kid as a path", good.sign_with(&path, SECRET)),
        ("no base64", "!!!.???.***".to_owned()),
        ("a space", format!("{signed} x")),
        ("8 KB", format!("{signed}{}", "a".repeat(8000))),
    ]
}

#[tokio::test]
async fn a_valid_token_is_let_in_and_a_bad_one_is_not() {
    let server = spawn(Options::new());
    for (what, token, expected) in claims_table() {
        assert_eq!(
            status(&server, &token.sign()).await,
            expected,
            "{what}: {}",
            token.claims()
        );
    }
    for (what, token) in forms_table() {
        assert_eq!(status(&server, &token).await, 401, "{what}: {token}");
    }
    server.assert_healthy().await;
}

#[tokio::test]
async fn a_refusal_gives_no_reason_away() {
    let server = spawn(Options::new());
    let mut bodies = Vec::new();
    for token in [
        "nonsense".to_owned(),
        Token::of("alice").expires_in(-3600).sign(),
        Token::of("alice").sign_with(&Header::default(), "another secret"),
        Token::of("alice").claim("sub", "").sign(),
    ] {
        let reply = server
            .get("/v1/events?format=json")
            .token(&token)
            .send()
            .await;
        let mut body = reply.expect(401);
        body["request_id"].take();
        bodies.push(body);
    }
    let missing = server.get("/v1/events?format=json").send().await;
    missing.refused(&[401]);
    assert!(bodies.iter().all(|body| body == &bodies[0]), "{bodies:?}");
}

#[tokio::test]
async fn other_ways_of_writing_the_header() {
    let server = spawn(Options::new());
    let token = tokens::user("alice");
    for (value, expected) in [
        (format!("Bearer {token}"), 200),
        (format!("bearer {token}"), 200),
        (format!("Basic {token}"), 401),
        (token.clone(), 401),
        ("Bearer".to_owned(), 401),
        ("Bearer ".to_owned(), 401),
    ] {
        let call = server
            .get("/v1/events?format=json")
            .header("authorization", &value);
        assert_eq!(
            call.send().await.status,
            expected,
            "{}",
            &value[..value.len().min(12)]
        );
    }
}

#[tokio::test]
async fn issuer_and_audience_are_checked_where_they_are_configured() {
    let options = Options::new()
        .set("auth.issuer", "https://issuer")
        .set("auth.audience", "tidings");
    let server = spawn(options);
    let plain = Token::of("alice");
    let (iss, aud) = (("iss", "https://issuer"), ("aud", "tidings"));
    let cases = [
        (plain.clone().claim(iss.0, iss.1).claim(aud.0, aud.1), 200),
        (
            plain
                .clone()
                .claim(iss.0, iss.1)
                .claim(aud.0, json!(["x", "tidings"])),
            200,
        ),
        (plain.clone(), 401),
        (plain.clone().claim(iss.0, iss.1), 401),
        (plain.clone().claim(aud.0, aud.1), 401),
        (
            plain
                .clone()
                .claim(iss.0, "https://other")
                .claim(aud.0, aud.1),
            401,
        ),
        (plain.clone().claim(iss.0, iss.1).claim(aud.0, "other"), 401),
    ];
    for (token, expected) in cases {
        assert_eq!(
            status(&server, &token.sign()).await,
            expected,
            "{}",
            token.claims()
        );
    }
}

#[tokio::test]
async fn scopes_open_what_they_name_and_nothing_else() {
    let server = spawn(Options::new());
    let event = json!({"to": {"user": "alice"}, "type": "note.new", "data": 1});
    let scoped = |scope: &str| Token::of("backend").claim("scope", scope).sign();
    let cases = [
        (tokens::user("alice"), 403),
        (scoped("read"), 403),
        (scoped("publisher"), 403),
        (scoped(""), 403),
        (scoped("publish"), 201),
        (scoped("other publish"), 201),
        (scoped("admin"), 201),
    ];
    for (token, expected) in cases {
        let reply = server
            .post("/v1/publish")
            .token(&token)
            .json(&event)
            .send()
            .await;
        assert_eq!(reply.status, expected, "{reply:?}");
    }
    let notify = server
        .post("/v1/users/bob/notify")
        .token(&tokens::user("alice"));
    notify
        .body("text/plain", "hello")
        .send()
        .await
        .refused(&[403]);
    let revoke = || {
        server
            .post("/v1/admin/revoke")
            .json(&json!({"user": "bob"}))
    };
    revoke()
        .token(&tokens::user("alice"))
        .send()
        .await
        .refused(&[403]);
    revoke()
        .token(&tokens::publisher())
        .send()
        .await
        .refused(&[403]);
}

#[tokio::test]
async fn a_token_in_the_query_is_refused_unless_allowed() {
    let token = tokens::user("alice");
    let path = format!("/v1/events?format=json&access_token={token}");
    let server = spawn(Options::new());
    server.get(&path).send().await.refused(&[401]);
    assert!(
        !server.logs().contains(&token),
        "the token stands in the log"
    );
    let server = spawn(Options::new().set("auth.allow_query_token", true));
    server.get(&path).send().await.expect(200);
    assert!(
        !server.logs().contains(&token),
        "the token stands in the log"
    );
}

#[tokio::test]
async fn no_token_and_no_ticket_stands_in_a_log_line() {
    let server = spawn(Options::new().environment("RUST_LOG", "debug"));
    let good = tokens::user("alice");
    let bad = format!("{good}x");
    for token in [&good, &bad] {
        server
            .get("/v1/events?format=json")
            .token(token)
            .send()
            .await;
        server
            .get(&format!("/v1/events?format=json&access_token={token}"))
            .send()
            .await;
        server
            .get("/v1/events?format=json")
            .header("cookie", &format!("tidings={token}"))
            .send()
            .await;
        let protocols = format!("tidings.v1, bearer.{token}");
        drop(
            connect(
                server.address,
                "/v1/ws",
                Handshake::default().protocols(&protocols),
            )
            .await,
        );
    }
    let ticket = server.post("/v1/tickets").token(&good).send().await.json();
    let ticket = ticket["ticket"].as_str().unwrap().to_owned();
    server
        .get(&format!("/v1/events?format=json&ticket={ticket}"))
        .send()
        .await
        .expect(200);
    server.get("/healthz").send().await.expect(200);
    let logs = server.logs();
    let signature = good.rsplit('.').next().unwrap();
    assert!(
        !logs.contains(signature),
        "a token stands in the log:\n{logs}"
    );
    assert!(
        !logs.contains(&ticket),
        "a ticket stands in the log:\n{logs}"
    );
    assert!(
        !logs.contains(SECRET),
        "the secret stands in the log:\n{logs}"
    );
}

#[tokio::test]
async fn a_ticket_opens_a_stream_and_nothing_more() {
    let server = spawn(Options::new());
    let reply = server
        .post("/v1/tickets")
        .token(&tokens::user("alice"))
        .send()
        .await;
    assert!([200, 201].contains(&reply.status), "{reply:?}");
    let json = reply.json();
    let ticket = json["ticket"].as_str().expect("a ticket").to_owned();
    assert!(
        json["expires_in"]
            .as_u64()
            .is_some_and(|seconds| (1..=60).contains(&seconds)),
        "{json}"
    );
    assert!(
        ticket.len() >= 43,
        "256 random bits are 43 characters at least: {ticket}"
    );

    let path = format!("/v1/events?ticket={ticket}");
    let opened = server.get(&path).open().await.unwrap();
    let mut stream = Reader::of_sse(opened);
    assert_eq!(stream.next_of(Kind::Ready).await.str("user"), "alice");
    // A reconnecting EventSource brings the same ticket again.
    let mut again = Reader::of_sse(server.get(&path).open().await.unwrap());
    assert_eq!(again.next_of(Kind::Ready).await.str("user"), "alice");
    let socket = connect(
        server.address,
        &format!("/v1/ws?ticket={ticket}"),
        Handshake::default(),
    )
    .await;
    let mut socket = Reader::of_socket(socket.unwrap());
    assert_eq!(socket.next_of(Kind::Ready).await.str("user"), "alice");

    // Reading only.
    for (method, path) in [
        ("POST", "/v1/ack"),
        ("POST", "/v1/tickets"),
        ("POST", "/v1/publish"),
    ] {
        let call = server.call(method, &format!("{path}?ticket={ticket}"));
        call.json(&json!({"cursor": "now"}))
            .send()
            .await
            .refused(&[401, 403]);
    }
    for bad in [
        "",
        "x",
        &ticket[1..],
        &format!("{ticket}x"),
        &"a".repeat(43),
    ] {
        let reply = server
            .get(&format!("/v1/events?format=json&ticket={bad}"))
            .send()
            .await;
        reply.refused(&[401]);
    }
    server.post("/v1/tickets").send().await.refused(&[401]);
}

#[tokio::test]
async fn a_ticket_waits_60_s_for_its_first_use_and_outlives_its_last_stream_by_two_minutes() {
    let clock = Clock::manual(tokens::unix_seconds() * 1000);
    let server = start_by(clock.clone(), Options::new()).await;
    let buy = async || {
        let call = server.post("/v1/tickets").token(&tokens::user("alice"));
        let json = call.send().await.json();
        assert_eq!(json["expires_in"], 60, "{json}");
        json["ticket"].as_str().unwrap().to_owned()
    };
    let opens = async |ticket: &str| {
        let path = format!("/v1/events?format=json&wait=0&ticket={ticket}");
        server.get(&path).send().await.status
    };
    let (used, unused) = (buy().await, buy().await);
    clock.advance_ms(59_999);
    assert_eq!(opens(&used).await, 200, "within 60 s");
    clock.advance_ms(1);
    assert_eq!(opens(&unused).await, 401, "first used after 60 s");

    let path = format!("/v1/events?ticket={used}");
    let mut stream = Reader::of_sse(server.get(&path).open().await.unwrap());
    stream.next_of(Kind::Ready).await;
    clock.advance_ms(600_000);
    assert_eq!(opens(&used).await, 200, "while its stream lives");
    drop(stream);
    let is_over = async || {
        let metrics = server.metrics().await;
        let mut open = metrics
            .iter()
            .filter(|(name, _)| name.contains("subscribers"));
        open.all(|(_, number)| *number == 0.0)
    };
    eventually("the stream has ended", is_over).await;
    clock.advance_ms(119_999);
    assert_eq!(opens(&used).await, 200, "within two minutes of its stream");
    clock.advance_ms(120_000);
    assert_eq!(opens(&used).await, 401, "two minutes after its last use");
}

#[tokio::test]
async fn tickets_differ_and_end_with_their_token() {
    let server = spawn(Options::new());
    let mut seen = Vec::new();
    for _ in 0..3 {
        let json = server
            .post("/v1/tickets")
            .token(&tokens::user("alice"))
            .send()
            .await
            .json();
        seen.push(json["ticket"].as_str().unwrap().to_owned());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "{seen:?}");
    let short = Token::of("alice").expires_in(5).sign();
    let json = server.post("/v1/tickets").token(&short).send().await.json();
    let seconds = json["expires_in"].as_u64().unwrap();
    assert!(
        seconds <= 35,
        "a ticket outlives its token and the leeway: {json}"
    );
}

#[tokio::test]
async fn a_shared_secret_has_no_place_in_a_jwks() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.json");
    let key = |kid: &str, secret: &str| json!({"kty": "oct", "alg": "HS256", "use": "sig", "kid": kid, "k": base64url(secret.as_bytes())});
    // Public keys are tested beside the verifier; a shared secret has no place in a JWKS.
    let secret_in_jwks = json!({"keys": [key("a", "a shared secret that is long enough, yes")]});
    std::fs::write(&file, secret_in_jwks.to_string()).unwrap();
    let started = crate::harness::try_spawn(Options::new().set("auth.jwks", file.display()));
    if let Ok(server) = started {
        let header = Header {
            kid: Some("a".to_owned()),
            ..Header::default()
        };
        let token =
            Token::of("alice").sign_with(&header, "a shared secret that is long enough, yes");
        assert_eq!(status(&server, &token).await, 401);
    }
}

#[tokio::test]
async fn every_way_in_leads_to_the_same_user() {
    let server = spawn(Options::new());
    server.notes("alice", 1).await;
    for transport in Transport::ALL {
        let mut reader = open(
            &server,
            transport,
            &Ask::user("alice").query("cursor=start"),
        )
        .await;
        assert_eq!(reader.seqs(1).await, [1], "{transport:?}");
    }
}

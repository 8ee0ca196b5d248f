//! PROTOCOL.md section 7: what scripts rely on when they start, stop and ask the binary.
//!
//! Promises: a refused start is judged by its exit code and by its last line, which must name the key or the file.
//! It never looks for a certain wording.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::delivery::Kind;
use crate::harness::{Options, eventually, run, spawn, start, try_spawn};
use crate::reader::{Ask, Transport, open, try_open};
use crate::tokens;

#[tokio::test]
async fn one_line_on_stdout_and_all_else_on_stderr() {
    let mut server = spawn(Options::new());
    server.notes("alice", 3).await;
    server.get("/nothing").send().await.refused(&[404]);
    server.sigterm();
    let status = server.exited().await;
    assert_eq!(status.code(), Some(0), "{}", server.logs());
    assert_eq!(server.more_stdout(), Vec::<String>::new());
    assert!(
        !server.logs().is_empty(),
        "a start and a drain are worth a line"
    );
}

#[tokio::test]
async fn draining_tells_every_reader_to_come_back() {
    let mut server = spawn(Options::new().set("limits.connections_per_user", 4));
    let head = server.notes("alice", 1).await;
    let mut readers = Vec::new();
    for transport in Transport::OPEN {
        let mut reader = open(&server, transport, &Ask::user("alice")).await;
        reader.next_of(Kind::Live).await;
        readers.push((transport, reader));
    }
    let path = format!("/v1/events?format=json&cursor={head}&wait=30");
    let call = server.get(&path).token(&tokens::user("alice"));
    // The probe below may be quicker and take the poll's place for a moment; then the poll asks again.
    let poll = tokio::spawn(async move {
        loop {
            let reply = call.clone().send_within(Duration::from_secs(40)).await;
            if reply.status != 429 {
                return reply;
            }
        }
    });
    eventually("the poll waits and takes the fourth place", async || {
        try_open(&server, Transport::Ndjson, &Ask::user("alice"))
            .await
            .is_err()
    })
    .await;
    let started = Instant::now();
    server.sigterm();
    for (transport, reader) in &mut readers {
        let bye = reader.next_of(Kind::Bye).await;
        assert_eq!(bye.str("reason"), "drain", "{bye:?}");
        if *transport == Transport::Sse {
            let retry = bye.retry.expect("a fresh retry");
            assert!((1000..=30_000).contains(&retry), "{retry}");
        }
        let end = reader.next_of(Kind::End).await;
        if *transport == Transport::Socket {
            assert_eq!(end.json, 4010);
        }
    }
    let page = poll.await.unwrap().expect(200);
    assert!(
        page["poll_after_ms"].as_u64().is_some_and(|ms| ms > 0),
        "{page}"
    );
    assert_eq!(page["cursor"], head, "{page}");
    assert_eq!(server.exited().await.code(), Some(0), "{}", server.logs());
    assert!(
        started.elapsed() < Duration::from_secs(12),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_drain_loses_no_answer() {
    let mut server = spawn(Options::new());
    let mut publishes = tokio::task::JoinSet::new();
    let mut acked = Vec::new();
    let body = |n: usize| json!({"to": {"user": "alice"}, "type": "note.new", "data": n});
    for n in 0..40 {
        let call = server
            .post("/v1/publish")
            .token(&tokens::publisher())
            .json(&body(n));
        publishes.spawn(async move { (n, call.send().await.status) });
        if n == 20 {
            let (n, status) = publishes.join_next().await.unwrap().unwrap();
            acked.extend((status == 201).then_some(n));
            server.sigterm();
        }
        if n > 20 {
            break;
        }
    }
    while let Some(result) = publishes.join_next().await {
        // A connection that came after the listener closed is refused; that is no lost answer.
        if let Ok((n, 201)) = result {
            acked.push(n);
        }
    }
    assert_eq!(server.exited().await.code(), Some(0), "{}", server.logs());
    server.restart();
    let page = server.page("alice", "cursor=start&wait=0").await;
    let kept: Vec<u64> = page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["data"].as_u64().unwrap())
        .collect();
    assert!(!acked.is_empty());
    for n in acked {
        assert!(
            kept.contains(&(n as u64)),
            "{n} was acked and is gone: {kept:?}"
        );
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_does_not_hold_a_drain_up() {
    let mut server = spawn(Options::new().set("server.drain_seconds", 1));
    server.notes("alice", 500).await;
    let text = "x".repeat(60_000);
    for _ in 0..100 {
        server.note("alice", json!(text)).await;
    }
    let mut raw = crate::client::Raw::connect(server.address).await;
    let token = tokens::user("alice");
    let request = format!(
        "GET /v1/events?cursor=start HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    raw.send(request.as_bytes()).await;
    assert!(raw.read_more(Duration::from_secs(5)).await);
    let started = Instant::now();
    server.sigterm();
    let status = server.exited().await;
    assert_eq!(status.code(), Some(0), "{}", server.logs());
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn interrupting_drains_too() {
    let mut server = spawn(Options::new());
    let mut reader = open(&server, Transport::Sse, &Ask::user("alice")).await;
    reader.next_of(Kind::Live).await;
    server.interrupt("INT");
    assert_eq!(reader.next_of(Kind::Bye).await.str("reason"), "drain");
    assert_eq!(server.exited().await.code(), Some(0), "{}", server.logs());
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_used_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path(), std::path::Path::new("/proc/tidings")] {
        let Err(failure) = try_spawn(Options::new().data(path)) else {
            panic!("{} was taken for a data directory", path.display())
        };
        assert_eq!(
            failure.status.and_then(|status| status.code()),
            Some(1),
            "{failure:?}"
        );
        one_sentence(&failure.stderr, &path.display().to_string());
    }
}

#[tokio::test]
async fn a_second_server_on_one_directory_says_so() {
    let first = spawn(Options::new());
    first.notes("alice", 2).await;
    let started = Instant::now();
    let Err(failure) = try_spawn(Options::new().data(&first.data)) else {
        panic!("two servers, one directory")
    };
    assert_eq!(
        failure.status.and_then(|status| status.code()),
        Some(1),
        "{failure:?}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    one_sentence(&failure.stderr, "data");
    first.note("alice", json!("unharmed")).await;
    first.assert_healthy().await;
}

/// The last line that was said: one sentence that names `word`.
#[track_caller]
fn one_sentence(stderr: &str, word: &str) {
    let last = stderr.trim_end().lines().last().unwrap_or("");
    assert!(last.contains(word), "nothing about {word}: {stderr:?}");
    assert!(last.len() < 400, "one sentence: {stderr:?}");
    assert!(
        !stderr.contains("panicked") && !stderr.contains("stack backtrace"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_wrong_configuration_stops_the_start_with_the_key_and_the_cure() {
    let cases = [
        ("stream.ping_second", "1", "ping_second"),
        ("nothing.here", "1", "nothing"),
        ("limits.connections", "many", "limits.connections"),
        ("limits.connections", "-1", "limits.connections"),
        ("stream.retry_ms_min", "9000", "stream.retry_ms"),
        ("server.allowed_origins", "7", "allowed_origins"),
        ("ws.deflate", "perhaps", "ws.deflate"),
        ("auth.hs256_secret", "short", "auth.hs256_secret"),
    ];
    for (key, value, word) in cases {
        let Err(failure) = try_spawn(Options::new().set(key, value)) else {
            panic!("{key}={value} was taken")
        };
        assert_eq!(
            failure.status.and_then(|status| status.code()),
            Some(1),
            "{key}={value}: {failure:?}"
        );
        one_sentence(&failure.stderr, word);
    }
    let options = Options::new().environment("TIDINGS_LIMITS__CONECTIONS", "5");
    let Err(failure) = try_spawn(options) else {
        panic!("an unknown variable was taken")
    };
    one_sentence(&failure.stderr.to_lowercase(), "conections");
}

#[tokio::test]
async fn the_environment_lies_between_the_file_and_set() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "[stream]\nping_seconds = 7\nretry_ms_min = 3000\n",
    )
    .unwrap();
    let config = file.path().display().to_string();
    let options = Options::new().argument("--config").argument(&config);
    let ready = async |options: Options| {
        let server = spawn(options);
        let mut reader = open(&server, Transport::Sse, &Ask::user("alice")).await;
        reader.next_of(Kind::Ready).await.json["ping_ms"].as_u64()
    };
    assert_eq!(ready(options.clone()).await, Some(7000));
    let options = options.environment("TIDINGS_STREAM__PING_SECONDS", "8");
    assert_eq!(ready(options.clone()).await, Some(8000));
    assert_eq!(
        ready(options.set("stream.ping_seconds", 9)).await,
        Some(9000)
    );
    let missing = Options::new()
        .argument("--config")
        .argument("/no/such/file.toml");
    let Err(failure) = try_spawn(missing) else {
        panic!("a missing file was taken")
    };
    one_sentence(&failure.stderr, "/no/such/file.toml");
    // Orchestrators inject variables such as TIDINGS_PORT; only those with two underscores are ours.
    drop(spawn(
        Options::new().environment("TIDINGS_PORT", "tcp://10.0.0.1:80"),
    ));
}

#[tokio::test]
async fn a_secret_is_made_once_and_is_its_owners_own() {
    let mut server = spawn(Options::bare());
    let data = server.data.display().to_string();
    let token = |data: &str| {
        let output = run(&["token", "--sub", "alice", "--data", data], &[]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        output.stdout.trim().to_owned()
    };
    let before = token(&data);
    server
        .get("/v1/events?format=json")
        .token(&before)
        .send()
        .await
        .expect(200);
    server.restart();
    server
        .get("/v1/events?format=json")
        .token(&before)
        .send()
        .await
        .expect(200);
    for entry in std::fs::read_dir(&server.data).unwrap() {
        let entry = entry.unwrap();
        let is_secret = entry.file_name().to_string_lossy().contains("secret");
        let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
        assert!(
            !is_secret || mode == 0,
            "{:?} is open to others: {mode:o}",
            entry.path()
        );
    }
}

#[tokio::test]
async fn tokens_of_the_command_line_carry_what_was_asked_for() {
    let server = spawn(Options::new());
    let secret = format!("auth.hs256_secret={}", tokens::SECRET);
    let token = |arguments: &[&str]| {
        let mut all = vec!["token", "--set", &secret];
        all.extend(arguments);
        let output = run(&all, &[]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        assert_eq!(output.stdout.lines().count(), 1, "{:?}", output.stdout);
        output.stdout.trim().to_owned()
    };
    let publisher = token(&["--sub", "backend", "--scope", "publish"]);
    let body = json!({"to": {"user": "alice"}, "type": "note.new", "data": 1});
    server
        .post("/v1/publish")
        .token(&publisher)
        .json(&body)
        .send()
        .await
        .expect(201);
    let plain = token(&["--sub", "alice", "--ttl", "10m"]);
    server
        .post("/v1/publish")
        .token(&plain)
        .json(&body)
        .send()
        .await
        .refused(&[403]);
    let topics = token(&["--sub", "alice", "--topics", "feed:*,entity:*"]);
    let call = server
        .call("PUT", "/v1/topics/feed:x/subscribers/alice")
        .token(&topics);
    assert!(call.send().await.status < 300);
}

#[tokio::test]
async fn servers_in_one_process_share_nothing() {
    let mut one = start(Options::new().set("stream.ping_seconds", 7)).await;
    let two = start(Options::new().set("stream.ping_seconds", 8)).await;
    one.notes("alice", 3).await;
    two.notes("alice", 5).await;
    for (server, count, ping_ms) in [(&one, 3, 7000), (&two, 5, 8000)] {
        for transport in Transport::ALL {
            let ask = Ask::user("alice").query("cursor=start");
            let mut reader = open(server, transport, &ask).await;
            if transport != Transport::Poll {
                assert_eq!(
                    reader.next().await.json["ping_ms"],
                    ping_ms,
                    "{transport:?}"
                );
            }
            assert_eq!(
                reader.events_until_live().await.len(),
                count,
                "{transport:?}"
            );
        }
    }
    one.drain().await;
    let again = start(Options::new().data(&one.data)).await;
    assert_eq!(
        again.note("alice", json!(4)).await["seq"],
        4,
        "a drained directory is free"
    );
    two.assert_healthy().await;
}

#[test]
fn wrong_arguments_end_with_two() {
    for arguments in [
        &["fly"][..],
        &["serve", "--no-such-option"],
        &["serve", "--listen"],
        &["token"],
        &["publish", "--to"],
        &["token", "--sub", "alice", "--ttl", "soon"],
    ] {
        let output = run(arguments, &[]);
        assert_eq!(output.code, Some(2), "{arguments:?}: {}", output.stderr);
        assert!(output.stdout.is_empty(), "{arguments:?}: {}", output.stdout);
    }
}

#[test]
fn help_and_version_are_worth_reading() {
    let help = run(&["--help"], &[]);
    assert_eq!(help.code, Some(0), "{}", help.stderr);
    for command in [
        "serve",
        "token",
        "publish",
        "tail",
        "check-config",
        "backup",
        "restore",
    ] {
        assert!(
            help.stdout.contains(command),
            "{command} is missing:\n{}",
            help.stdout
        );
        let help = run(&[command, "--help"], &[]);
        assert_eq!(help.code, Some(0), "{command}: {}", help.stderr);
        assert!(
            help.stdout.len() > 200,
            "{command} --help says too little:\n{}",
            help.stdout
        );
    }
    let version = run(&["--version"], &[]);
    assert!(
        version.stdout.contains(env!("CARGO_PKG_VERSION")),
        "{}",
        version.stdout
    );
}

#[test]
fn check_config_says_what_is_wrong() {
    let good = run(&["check-config"], &[]);
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    let bad = run(&["check-config", "--set", "limits.connections=many"], &[]);
    assert_eq!(bad.code, Some(1), "{}{}", bad.stdout, bad.stderr);
    one_sentence(&bad.stderr, "limits.connections");
}

#[tokio::test]
async fn an_address_in_use_is_told() {
    let server = spawn(Options::new());
    let address = server.address.to_string();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().display().to_string();
    let output = run(&["serve", "--listen", &address, "--data", &data], &[]);
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    one_sentence(&output.stderr, &address);
}

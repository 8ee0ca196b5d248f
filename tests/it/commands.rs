//! PROTOCOL.md section 7: the client commands and the demo login, as a person or a script at a terminal uses them.
//!
//! Promises: commands run as processes of their own with the token in the environment. A command that runs for ever
//! is killed when its test ends.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::delivery::{epoch_of, seq_of};
use crate::harness::{Options, Output, Server, eventually, run, spawn};
use crate::tokens;

fn client(server: &Server, token: &str, arguments: &[&str]) -> Output {
    let url = format!("http://{}", server.address);
    let mut all = arguments.to_vec();
    all.extend(["--url", &url]);
    run(&all, &[("TIDINGS_TOKEN", token)])
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_sends_one_event_or_a_file_of_them() {
    let server = spawn(Options::new());
    let token = tokens::publisher();
    let one = [
        "publish",
        "--to",
        "alice",
        "--type",
        "note.new",
        "--data",
        "{\"n\":1}",
        "--id",
        "e-1",
    ];
    for _ in 0..2 {
        let output = client(&server, &token, &one);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for n in 2..=1200 {
        writeln!(file, "{{\"n\":{n}}}").unwrap();
    }
    let path = file.path().display().to_string();
    let many = [
        "publish", "--to", "alice", "--type", "note.new", "--ndjson", &path,
    ];
    let output = client(&server, &token, &many);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert_eq!(
        seq_of(&server.head("alice").await),
        1200,
        "the repeated id appends nothing"
    );
    let page = server.page("alice", "cursor=-1&wait=0").await;
    assert_eq!(page["events"][0]["data"]["n"], 1200, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_that_fails_says_so() {
    let server = spawn(Options::new());
    for (token, arguments) in [
        (
            tokens::user("alice"),
            ["publish", "--to", "alice", "--type", "note.new"],
        ),
        (
            "nonsense".to_owned(),
            ["publish", "--to", "alice", "--type", "note.new"],
        ),
        (
            tokens::publisher(),
            ["publish", "--to", "alice", "--type", "Not A Type"],
        ),
    ] {
        let output = client(&server, &token, &arguments);
        assert!(output.code.is_some_and(|code| code != 0), "{arguments:?}");
        assert!(
            !output.stderr.is_empty() && !output.stderr.contains("panicked"),
            "{}",
            output.stderr
        );
    }
    let nowhere = [
        "publish",
        "--to",
        "alice",
        "--type",
        "a.b",
        "--url",
        "http://127.0.0.1:9",
        "--retry-for",
        "200ms",
    ];
    let output = run(&nowhere, &[("TIDINGS_TOKEN", "x")]);
    assert!(
        output.code.is_some_and(|code| code != 0),
        "{}",
        output.stderr
    );
}

/// A running `tidings tail` whose lines go to a file.
struct Tail {
    child: std::process::Child,
    output: std::path::PathBuf,
}

impl Tail {
    fn start(server: &Server, directory: &std::path::Path, name: &str) -> Tail {
        let output = directory.join(name);
        let file = std::fs::File::create(&output).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .args([
                "tail",
                "--cursor",
                "start",
                "--url",
                &format!("http://{}", server.address),
            ])
            .args([
                "--cursor-file",
                &directory.join("cursor").display().to_string(),
            ])
            .env("TIDINGS_TOKEN", tokens::user("alice"))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Tail { child, output }
    }

    fn numbers(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.output).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let event = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        whole
            .lines()
            .map(|line| event(line)["data"].clone())
            .collect()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_every_event_once_and_resumes_where_it_was() {
    let server = spawn(Options::new());
    let directory = tempfile::tempdir().unwrap();
    for n in 1..=3 {
        server.note("alice", json!(n)).await;
    }
    let tail = Tail::start(&server, directory.path(), "first");
    eventually("the first three are printed", async || {
        tail.numbers() == [1, 2, 3]
    })
    .await;
    server.note("alice", json!(4)).await;
    eventually("the fourth is printed", async || {
        tail.numbers() == [1, 2, 3, 4]
    })
    .await;
    let cursor_file = directory.path().join("cursor");
    eventually("the cursor is kept", async || {
        std::fs::read_to_string(&cursor_file).is_ok_and(|text| text.trim().ends_with("-4"))
    })
    .await;
    drop(tail);
    server.note("alice", json!(5)).await;
    let tail = Tail::start(&server, directory.path(), "second");
    eventually("the fifth alone is printed", async || tail.numbers() == [5]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_restores_every_log_with_a_new_epoch() {
    let mut server = spawn(Options::new());
    let cursor = server.notes("alice", 5).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup").display().to_string();
    let data = server.data.display().to_string();
    let restored = directory.path().join("data").display().to_string();
    server.sigterm();
    assert_eq!(server.exited().await.code(), Some(0));
    let output = run(&["backup", &file, "--data", &data], &[]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let output = run(&["restore", &file, "--data", &restored], &[]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let copy = spawn(Options::new().data(std::path::Path::new(&restored)));
    let page = copy.page("alice", "cursor=start&wait=0").await;
    let seqs: Vec<u64> = page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    let head = page["head"].as_str().unwrap();
    assert_ne!(
        epoch_of(head),
        epoch_of(&cursor),
        "a restore changes every epoch"
    );
    let page = copy.page("alice", &format!("cursor={cursor}&wait=0")).await;
    assert_eq!(page["reset"]["reason"], "epoch", "{page}");
}

#[tokio::test]
async fn the_demo_gives_user_tokens_where_it_is_on() {
    let server = spawn(Options::new().set("demo.enabled", true));
    let login = |body: Value| server.post("/demo/login").json(&body).send();
    let reply = login(json!({"user": "alice"})).await;
    assert!([200, 201].contains(&reply.status), "{reply:?}");
    let token = reply.json()["token"].as_str().expect("a token").to_owned();
    server
        .get("/v1/events?format=json")
        .token(&token)
        .send()
        .await
        .expect(200);
    let event = json!({"to": {"user": "bob"}, "type": "note.new", "data": 1});
    server
        .post("/v1/publish")
        .token(&token)
        .json(&event)
        .send()
        .await
        .refused(&[403]);
    for bad in [
        json!({}),
        json!({"user": ""}),
        json!({"user": "a b"}),
        json!({"user": 7}),
    ] {
        login(bad).await.refused(&[400, 422]);
    }
    let server = spawn(Options::new());
    let reply = server
        .post("/demo/login")
        .json(&json!({"user": "alice"}))
        .send()
        .await;
    reply.refused(&[404]);
}

#[tokio::test]
async fn the_demo_acts_as_a_backend_where_it_is_on_and_nowhere_else() {
    let server = spawn(Options::new().set("demo.enabled", true));
    let act = |server: &Server, body: Value| server.post("/demo/act").json(&body).send();
    let notification = json!({"kind": "like", "body": "tea"});
    let good = [
        json!({"kind": "notify", "user": "bob", "to": "alice", "notification": notification}),
        json!({"kind": "event", "user": "bob", "to": "alice", "type": "note.new", "data": 1}),
        json!({"kind": "post", "user": "bob", "text": "tea"}),
        json!({"kind": "like", "user": "bob", "post": "p1", "likes": 1}),
        json!({"kind": "entity", "user": "bob", "action": "updated", "entity": "order", "id": "7", "version": 1}),
    ];
    for body in &good {
        act(&server, body.clone()).await.expect(201);
    }
    let page = server.page("alice", "cursor=start&wait=0").await;
    assert_eq!(page["events"][0]["data"]["actor"]["id"], "bob", "{page}");
    assert_eq!(page["events"][1]["actor"]["id"], "bob", "{page}");
    for bad in [
        json!({"kind": "notify", "user": "bob", "to": "alice", "notification": 7}),
        json!({"kind": "event", "user": "bob", "to": "alice", "type": "sys.ready", "data": 1}),
        json!({"kind": "entity", "user": "bob", "action": "eaten up", "entity": "order", "id": "7", "version": 1}),
        json!({"kind": "post", "user": "a b", "text": "tea"}),
        json!({"kind": "dance", "user": "bob"}),
    ] {
        act(&server, bad).await.refused(&[400, 422]);
    }
    let behind = server.post("/demo/act").json(&good[0]);
    let behind = behind.header("x-forwarded-for", "192.0.2.1").send().await;
    behind.refused(&[404]);
    let server = spawn(Options::new());
    act(&server, good[0].clone()).await.refused(&[404]);
}

#[test]
fn the_demo_does_not_go_public_by_accident() {
    let public = [
        "check-config",
        "--set",
        "server.listen=0.0.0.0:8082",
        "--set",
        "demo.enabled=true",
    ];
    let output = run(&public, &[]);
    assert_eq!(output.code, Some(1), "{}{}", output.stdout, output.stderr);
    assert!(
        output.stderr.contains("demo.allow_public"),
        "{}",
        output.stderr
    );
    let mut meant = public.to_vec();
    meant.extend(["--set", "demo.allow_public=true"]);
    let output = run(&meant, &[]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

//! `DELETE /v1/users/{id}` seen from outside: the person is gone, what it wrote is gone from others' logs, others keep
//! every event, and a kill in the middle changes nothing of that (F27 of FAULTS.md).
//!
//! Promises: canaries are looked for in every answer, and after `tidings compact` in every byte of the data directory.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::delivery::Kind;
use crate::harness::{self, Options, Server, eventually, spawn};
use crate::reader::{Ask, Transport, open};
use crate::tokens;

impl Server {
    pub async fn erase(&self, user: &str, token: &str) -> u16 {
        let path = format!("/v1/users/{user}");
        let call = self.call("DELETE", &path).token(token);
        call.send_within(Duration::from_secs(60)).await.status
    }

    /// Publishes what `actor` wrote to `users`.
    async fn write(&self, actor: &str, users: &[&str], data: Value) {
        let actor = json!({"id": actor, "name": format!("name-of-{actor}")});
        let body =
            json!({"to": {"users": users}, "type": "note.new", "data": data, "actor": actor});
        self.publish(&body).await.expect(201);
    }

    /// All that the user's log holds.
    async fn all(&self, user: &str) -> Vec<Value> {
        let mut events = Vec::new();
        let mut cursor = "start".to_owned();
        loop {
            let page = self
                .page(user, &format!("cursor={cursor}&wait=0&limit=1000"))
                .await;
            events.extend(page["events"].as_array().unwrap().iter().cloned());
            if page["more"] == false {
                return events;
            }
            page["cursor"].as_str().unwrap().clone_into(&mut cursor);
        }
    }
}

#[tokio::test]
async fn who_was_erased_comes_back_as_someone_new() {
    let server = spawn(Options::new());
    let old = server.notes("bob", 3).await;
    let topic = "/v1/topics/feed:x/subscribers";
    for user in ["bob", "alice"] {
        let path = format!("{topic}/{user}");
        server
            .call("PUT", &path)
            .token(&tokens::publisher())
            .send()
            .await
            .expect(204);
    }
    let ack = server
        .post("/v1/ack")
        .token(&tokens::user("bob"))
        .json(&json!({"cursor": old}));
    ack.send().await.expect(200);
    assert_eq!(server.erase("bob", &tokens::user("bob")).await, 204);
    assert_eq!(
        server.erase("bob", &tokens::user("bob")).await,
        204,
        "a second time"
    );

    let known = server
        .get("/v1/admin/users/bob")
        .token(&tokens::admin())
        .send()
        .await;
    assert_eq!(known.refused(&[404]), "not_found");
    let list = server
        .get(topic)
        .token(&tokens::publisher())
        .send()
        .await
        .expect(200);
    assert_eq!(list["subscribers"], json!(["alice"]));
    for transport in Transport::OPEN {
        let mut reader = open(&server, transport, &Ask::user("bob").cursor(&old)).await;
        let reset = reader.next_of(Kind::Reset).await;
        assert_eq!(reset.str("reason"), "epoch", "{transport:?}");
        assert_eq!(reset.json["earliest"], 1, "{transport:?}");
    }
    let page = server.page("bob", &format!("cursor={old}&wait=0")).await;
    assert_eq!(page["reset"]["reason"], "epoch");
    assert_eq!(server.note("bob", json!(1)).await["seq"], 1);
    let told = server
        .get("/v1/admin/users/bob")
        .token(&tokens::admin())
        .send()
        .await
        .expect(200);
    assert_eq!(
        (&told["devices"], &told["subscriptions"]),
        (&json!([]), &json!([]))
    );
}

#[tokio::test]
async fn only_the_person_and_an_administrator_may_erase() {
    let server = spawn(Options::new());
    server.notes("bob", 1).await;
    let unknown = server
        .call("DELETE", "/v1/users/nobody")
        .token(&tokens::user("alice"));
    let unknown = unknown.send().await;
    assert_eq!(unknown.refused(&[404]), "not_found");
    for token in [tokens::user("alice"), tokens::publisher()] {
        let refused = server
            .call("DELETE", "/v1/users/bob")
            .token(&token)
            .send()
            .await;
        assert_eq!(refused.refused(&[404]), "not_found");
        assert_eq!(refused.json()["message"], unknown.json()["message"]);
    }
    server
        .call("DELETE", "/v1/users/bob")
        .send()
        .await
        .refused(&[401]);
    assert_eq!(server.all("bob").await.len(), 1);
    assert_eq!(server.erase("bob", &tokens::admin()).await, 204);
    assert_eq!(server.all("bob").await.len(), 0);
}

#[tokio::test]
async fn open_streams_of_the_user_end_and_say_why() {
    let server = spawn(Options::new());
    server.notes("bob", 2).await;
    let mut readers = Vec::new();
    for transport in Transport::OPEN {
        let mut reader = open(&server, transport, &Ask::user("bob")).await;
        reader.next_of(Kind::Live).await;
        readers.push((transport, reader));
    }
    let mut other = open(&server, Transport::Sse, &Ask::user("alice")).await;
    other.next_of(Kind::Live).await;
    assert_eq!(server.erase("bob", &tokens::admin()).await, 204);
    for (transport, mut reader) in readers {
        let bye = reader.next_of(Kind::Bye).await;
        assert_eq!(bye.str("reason"), "erased", "{transport:?}");
        let end = reader.next_of(Kind::End).await;
        if transport == Transport::Socket {
            assert_eq!(end.json, 4003);
        }
    }
    server.note("alice", json!("still here")).await;
    assert_eq!(other.seqs(1).await, [1]);
}

#[tokio::test]
async fn what_the_person_wrote_is_gone_from_the_logs_of_others() {
    let mut server = spawn(Options::new());
    for n in 0..3 {
        server
            .write(
                "bob",
                &["alice", "carol", "bob"],
                json!({"text": "canary", "n": n}),
            )
            .await;
        server
            .write(
                "alice",
                &["alice", "carol"],
                json!({"text": "mine", "n": n}),
            )
            .await;
    }
    let large = json!({"text": "canary".repeat(3_000)});
    server.write("bob", &["alice", "carol"], large).await;
    let before = server.all("alice").await;
    assert_eq!(server.erase("bob", &tokens::admin()).await, 204);
    // In memory, after a restart from the disk, and for who reads on.
    for _ in 0..2 {
        for user in ["alice", "carol"] {
            let after = server.all(user).await;
            assert_eq!(after.len(), before.len());
            for (before, after) in before.iter().zip(&after) {
                assert_same_but_redacted(before, after, user == "alice");
            }
        }
        server.kill9();
        server.restart();
    }
    let repeated = server.erase("bob", &tokens::admin()).await;
    assert_eq!(repeated, 204);
}

/// Whether anything that bob wrote, or what bob is called, stands in it.
fn is_told(event: &Value) -> bool {
    let text = event.to_string();
    text.contains("canary") || text.contains("name-of-bob")
}

fn assert_same_but_redacted(before: &Value, after: &Value, is_same_log: bool) {
    for name in ["id", "seq", "type", "time", "topic"] {
        assert_eq!(before[name], after[name], "{name} of {after}");
    }
    if is_same_log {
        assert_eq!(before["cursor"], after["cursor"]);
    }
    if before["actor"]["id"] == "bob" {
        assert_eq!(after["data"], json!({"erased": true, "id": before["id"]}));
        assert!(!is_told(after), "{after}");
        assert!(after.get("actor").is_none(), "{after}");
    } else {
        assert_eq!(
            (&before["data"], &before["actor"]),
            (&after["data"], &after["actor"])
        );
    }
}

/// F27: erasures under way while others are read and written, and then the process is gone.
#[tokio::test]
async fn an_erasure_that_a_kill_interrupts_is_finished_by_the_next_start() {
    for delay_ms in [0, 15, 60, 150] {
        let mut server = spawn(Options::new());
        for n in 0..60 {
            let text = format!("canary-{n}-{}", "x".repeat(2_000));
            server
                .write("bob", &["alice", "carol", "bob"], json!({ "text": text }))
                .await;
            server
                .write(
                    "alice",
                    &["alice", "carol"],
                    json!({"text": "mine", "n": n}),
                )
                .await;
        }
        let before = server.all("alice").await;
        let mut streaming = open(&server, Transport::Sse, &Ask::user("bob")).await;
        streaming.next_of(Kind::Live).await;
        let erase = server
            .call("DELETE", "/v1/users/bob")
            .token(&tokens::admin());
        let asked = tokio::spawn(erase.try_send());
        // The moment of the kill is the point of the test; whatever it meets must hold.
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        server.kill9();
        let answered = asked.await.unwrap().map(|reply| reply.status);
        server.restart();
        let has_begun = async || {
            let known = server
                .get("/v1/admin/users/bob")
                .token(&tokens::admin())
                .send()
                .await;
            known.status == 404
        };
        if !has_begun().await {
            assert_eq!(answered, None, "answered and not done");
            assert_eq!(server.erase("bob", &tokens::admin()).await, 204);
        }
        eventually("the erasure is over", async || {
            let alice = server.all("alice").await;
            !alice
                .iter()
                .any(|event| event.to_string().contains("canary"))
        })
        .await;
        // Asked again, it is answered when all of it is done.
        assert_eq!(server.erase("bob", &tokens::admin()).await, 204);
        for user in ["alice", "carol"] {
            let after = server.all(user).await;
            assert_eq!(after.len(), before.len(), "{user}, {delay_ms} ms");
            for (before, after) in before.iter().zip(&after) {
                assert_same_but_redacted(before, after, user == "alice");
            }
        }
        assert!(server.all("bob").await.is_empty());
        server.assert_healthy().await;
    }
}

/// Files below `directory` that hold `text`.
pub fn files_with(directory: &Path, text: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            let count = bytes
                .windows(text.len())
                .filter(|part| *part == text)
                .count();
            if count > 0 {
                found.push(format!("{}: {count}", path.display()));
            }
        }
    }
    found
}

/// What the engine deletes stays in its file until it writes over it; `tidings compact` leaves nothing of it.
#[tokio::test]
async fn after_a_compaction_no_file_holds_a_byte_of_the_person() {
    const PERSON: &str = "person.to-erase@example.org";
    let mut server = spawn(Options::new());
    for n in 0..200 {
        let text = format!("canary-{n}-{}", "x".repeat(500));
        server
            .write(PERSON, &["alice", PERSON], json!({ "text": text }))
            .await;
        server
            .write("alice", &["alice", "carol"], json!({ "n": n }))
            .await;
    }
    let revoke = json!({"user": PERSON, "issued_before": "2026-01-01T00:00:00.000Z"});
    let revoke = server
        .post("/v1/admin/revoke")
        .token(&tokens::admin())
        .json(&revoke);
    revoke.send().await.expect(204);
    let topic = format!("/v1/topics/presence:{PERSON}/subscribers");
    for user in [PERSON, "alice"] {
        let path = format!("{topic}/{user}");
        server
            .call("PUT", &path)
            .token(&tokens::publisher())
            .send()
            .await
            .expect(204);
    }
    assert_ne!(
        files_with(&server.data, b"canary-7-"),
        [""; 0],
        "the test can see"
    );
    assert_eq!(server.erase(PERSON, &tokens::admin()).await, 204);
    let before = server.all("alice").await;
    server.sigterm();
    assert!(server.exited().await.success());
    let data = server.data.display().to_string();
    let output = harness::run(&["compact", "--data", &data], &[]);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
    for text in ["canary", PERSON, "name-of-person"] {
        assert_eq!(files_with(&server.data, text.as_bytes()), [""; 0], "{text}");
    }
    let beside = std::fs::read_dir(server.data.parent().unwrap()).unwrap();
    assert_eq!(
        beside.count(),
        1,
        "nothing is left beside the data directory"
    );
    server.restart();
    assert_eq!(
        server.all("alice").await,
        before,
        "cursors and epochs are what they were"
    );
    server.assert_healthy().await;
}

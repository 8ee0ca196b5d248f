//! Issue 3, line 6: `/v1/state` and `snapshot=1` while others write. State + events after its cursor = the present.
//!
//! Promises: writers run concurrently and are never paused for a look; a state is folded with the events after its
//! cursor by the rules that a client has, and compared with the last state. A seed decides what the writers do.

use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::delivery::{Kind, seq_of};
use crate::fold::Known;
use crate::harness::{Server, start};
use crate::inbox::{ids, patient, text};
use crate::reader::{Ask, Transport, open};
use crate::tokens;

const KINDS: [&str; 4] = ["like", "comment", "follow", "mention"];

/// Everything that changes alice's state, until `stop`.
async fn write(server: &Server, seed: u64, stop: &AtomicBool) {
    let mut rng = Rng::with_seed(seed);
    while !stop.load(Ordering::Relaxed) {
        match rng.u32(0..16) {
            0..=5 => drop(server.notify("alice", rng.choice(KINDS).unwrap()).await),
            6..=7 => drop(server.note("alice", json!(rng.u32(..))).await),
            8..=9 => {
                let mut some = ids(&server.inbox("alice", "unread=1&limit=5").await);
                rng.shuffle(&mut some);
                some.truncate(2);
                server.mark_read("alice", &json!({ "ids": some })).await;
            }
            10 => drop(server.mark_read("alice", &json!({"all": true})).await),
            11..=14 => talk(server, &mut rng).await,
            _ => {
                let muted = rng.choice([json!([]), json!(["notification.like"])]);
                let change = json!({"muted": muted, "sound": rng.bool()});
                server.choose("alice", &change).await;
            }
        }
    }
}

/// A group comes and is talked in; alice reads some of it, and some of it is taken back.
async fn talk(server: &Server, rng: &mut Rng) {
    let id = server.group(&["bob", "alice", "carol"], Some("Tea")).await;
    let first = server.say("bob", &id, "one").await;
    server.say("alice", &id, "two").await;
    server.say("carol", &id, "three").await;
    let upto = json!({"upto": rng.u32(0..4)});
    server.read("alice", &id, &upto).await.expect(200);
    if rng.bool() {
        let path = format!("/v1/conversations/{id}/messages/{}", text(&first["id"]));
        server.of("bob", "DELETE", &path).send().await.expect(204);
    }
    if rng.u32(0..4) == 0 {
        let path = format!("/v1/conversations/{id}/members/alice");
        server.of("alice", "DELETE", &path).send().await.expect(204);
    }
}

/// States taken one after the other while four writers work.
async fn states_under_writing(server: &Server, count: usize) -> Vec<Value> {
    let stop = AtomicBool::new(false);
    let writers = (0..4).map(|seed| write(server, seed, &stop));
    let look = async {
        let mut states = Vec::new();
        for _ in 0..count {
            states.push(server.state("alice").await);
        }
        stop.store(true, Ordering::Relaxed);
        states
    };
    futures_util::future::join(look, futures_util::future::join_all(writers))
        .await
        .0
}

/// The state after everything that was gathered is told, with something read and something unread in it.
async fn present(server: &Server) -> Value {
    server.choose("alice", &json!({"muted": []})).await;
    server.notify("alice", "last").await;
    server.mark_read("alice", &json!({"all": true})).await;
    server.notify_times("alice", "very-last", 2).await;
    server.state("alice").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_and_the_events_after_it_are_the_present() {
    let options = patient()
        .set("notifications.digest_threshold", 5)
        .set("notifications.digest_window_seconds", 1)
        .set("notifications.digest_every_seconds", 0.2);
    let server = start(options).await;
    let states = states_under_writing(&server, 60).await;
    let present = present(&server).await;
    let all = server.events_after("alice", "start").await;
    let kinds: Vec<&str> = all
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    for needed in [
        "notification.new",
        "notification.digest",
        "notification.read",
        "preferences.updated",
        "note.new",
        "conversation.new",
        "conversation.read",
        "message.new",
        "message.deleted",
    ] {
        assert!(kinds.contains(&needed), "the writers made no {needed}");
    }
    for state in &states {
        let mut known = Known::of(state);
        for event in server.events_after("alice", &known.cursor).await {
            known.fold(&event);
        }
        known.check(&present);
    }
}

/// Where nothing is gathered, each state follows from the one before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_state_follows_from_the_one_before() {
    let server = start(patient().set("notifications.digest_threshold", 1_000_000)).await;
    let states = states_under_writing(&server, 60).await;
    let all = server.events_after("alice", "start").await;
    for pair in states.windows(2) {
        let mut known = Known::of(&pair[0]);
        let (from, to) = (
            seq_of(&known.cursor),
            seq_of(pair[1]["cursor"].as_str().unwrap()),
        );
        let between = all
            .iter()
            .filter(|event| (from + 1..=to).contains(&event["seq"].as_u64().unwrap()));
        between.for_each(|event| known.fold(event));
        known.check(&pair[1]);
    }
    let cursors: Vec<&Value> = states.iter().map(|state| &state["cursor"]).collect();
    assert_ne!(
        cursors.first(),
        cursors.last(),
        "something was written between the looks"
    );
}

/// A stream that begins with a snapshot, over each transport that has one: it heals without a second request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_the_stream_after_it_are_the_present() {
    let options = patient()
        .set("notifications.digest_threshold", 5)
        .set("notifications.digest_window_seconds", 1)
        .set("notifications.digest_every_seconds", 0.2);
    let server = start(options).await;
    let opening = async {
        let mut readers = Vec::new();
        for round in 0..9 {
            let ask = Ask::user("alice").query("snapshot=1");
            let mut reader = open(&server, Transport::OPEN[round % 3], &ask).await;
            let snapshot = reader.next_of(Kind::Snapshot).await;
            let known = Known::of(&snapshot.json);
            assert_eq!(Some(&known.cursor), snapshot.cursor.as_ref());
            readers.push((reader, known));
        }
        readers
    };
    let (_, mut readers) =
        futures_util::future::join(states_under_writing(&server, 40), opening).await;
    let present = present(&server).await;
    for (reader, known) in &mut readers {
        while known.cursor != present["cursor"] {
            known.fold(&reader.events(1).await[0].json);
        }
        known.check(&present);
    }
}

#[tokio::test]
async fn a_state_tells_the_newest_twenty() {
    let server = start(patient()).await;
    let mut sent = server.notify_times("alice", "like", 12).await;
    sent.extend(server.notify_times("alice", "follow", 13).await);
    sent.reverse();
    let state = server.state("alice").await;
    assert_eq!(ids(&state), sent[..20]);
    assert_eq!(state["badge"]["notifications"], 25);
    assert_eq!(
        state["notifications"],
        server.inbox("alice", "limit=20").await["notifications"]
    );
    let empty = server.state("bob").await;
    assert_eq!(
        (&empty["notifications"], &empty["conversations"]),
        (&json!([]), &json!([]))
    );
    server
        .get("/v1/state")
        .token(&tokens::Token::of("alice").expires_in(-60).sign())
        .send()
        .await
        .refused(&[401]);
}

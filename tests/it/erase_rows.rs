//! Erasing someone who used everything: what the rows of the store hold of the person before and after.
//!
//! Promises: every kind of row that `src/features.rs` lists is accounted for here, and every kind that stands under a
//! user's number is there before the erasure; afterwards nothing stands under it, and no row names the person, whether
//! the erasure was left alone or a kill interrupted it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidings::store::engine::Rows;
use tidings::store::keys;
use tidings::store::opening::Directory;

use crate::harness::{Options, Server, spawn};
use crate::inbox::patient;
use crate::reader::{Reader, Transport};
use crate::talk::listen;
use crate::tokens;

const PERSON: &str = "person.to-erase@example.org";
/// What the person wrote, and how it is called elsewhere.
const WORDS: [&str; 3] = [PERSON, "canary", "name-of-person"];

/// Rows that stand under a user's number: all of them go. `e` is there only while an erasure is not over.
const UNDER_THE_NUMBER: &str = "aeghnNopsSuwW";
/// All others. `m` and `R` end with a user's number: `m` stays in 1:1s, beside the other one. `b`, `c` and `C` hold
/// the numbers of senders and creators; `c` and `C` also a group's name, which stays. `B`, `d`, `j` and `r` hold ids
/// and hashes. `f` and `q` hold names, and must lose them; `F` counts.
const OTHERS: &str = "bBcCdfFjmqrR";

#[derive(Debug)]
struct Row {
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Row {
    /// Kind and name, if it is a feature's.
    fn of_feature(&self) -> Option<(char, &[u8])> {
        let kinds = UNDER_THE_NUMBER.chars().chain(OTHERS.chars());
        let mut kinds = kinds.map(|kind| (kind, keys::state(kind as u8, b"")));
        let (kind, prefix) = kinds.find(|(_, prefix)| self.key.starts_with(prefix))?;
        Some((kind, &self.key[prefix.len()..]))
    }

    fn holds(&self, text: &str) -> bool {
        let is_in = |bytes: &[u8]| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        is_in(&self.key) || is_in(&self.value)
    }
}

/// All rows of a stopped server.
fn rows_of(data: &Path) -> Vec<Row> {
    let directory = Directory::lock(data).expect("the server is stopped");
    let engine = directory.open_engine(16 << 20, 16 << 20).unwrap();
    let mut found = Vec::new();
    let rows = Rows::new(Box::new(engine));
    rows.scan_all(&[], &[u8::MAX], &mut |key, value| {
        found.push(Row {
            key: key.to_vec(),
            value: value.expect("no row is damaged").to_vec(),
        });
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

/// How many rows of each kind stand under the number.
fn under(rows: &[Row], number: [u8; 4]) -> BTreeMap<char, usize> {
    let mut counts = BTreeMap::new();
    for (kind, name) in rows.iter().filter_map(Row::of_feature) {
        if UNDER_THE_NUMBER.contains(kind) && name.starts_with(&number) {
            *counts.entry(kind).or_insert(0) += 1;
        }
    }
    counts
}

/// The kinds whose rows end with the number.
fn ending_with(rows: &[Row], number: [u8; 4]) -> Vec<char> {
    let end = [&[0], number.as_slice()].concat();
    let of_features = rows.iter().filter_map(Row::of_feature);
    let found = of_features.filter(|(kind, name)| "mR".contains(*kind) && name.ends_with(&end));
    found.map(|(kind, _)| kind).collect()
}

impl Server {
    async fn stopped(&mut self) -> Vec<Row> {
        self.sigterm();
        assert!(self.exited().await.success());
        rows_of(&self.data)
    }
}

fn options() -> Options {
    patient()
        .set("notifications.digest_every_seconds", 86_400)
        .set("feed.digest_seconds", 86_400)
        .set("presence.offline_after_seconds", 0.1)
}

/// Subscriptions, conversations, preferences, presence, acks and a ticket.
async fn take_part(server: &Server) {
    let direct = server.direct(PERSON, "alice").await;
    let group = server
        .group(&[PERSON, "alice", "carol"], Some("Three"))
        .await;
    for id in [&direct, &group] {
        server.say(PERSON, id, "canary").await;
        server.say("alice", id, "mine").await;
        let read = server.read(PERSON, id, &json!({"upto": 2})).await;
        read.expect(200);
    }
    server
        .subscribe(&format!("presence:{PERSON}"), "alice")
        .await;
    for topic in ["presence:carol", "presence:nobody", "feed:news"] {
        server.subscribe(topic, PERSON).await;
    }
    server.subscribe("feed:news", "alice").await;
    let choices = json!({"feed_auto": true, "muted": ["notification.canary"]});
    server.choose(PERSON, &choices).await;
    let cursor = server.page(PERSON, "cursor=start&wait=0").await;
    let ack = json!({"cursor": cursor["cursor"]});
    let posts = [("/v1/ack", ack), ("/v1/tickets", Value::Null)];
    for (path, body) in posts {
        let call = server.post(path).token(&tokens::user(PERSON));
        let call = if body.is_null() {
            call
        } else {
            call.json(&body)
        };
        let reply = call.send().await;
        assert!(reply.status < 300, "{path}: {reply:?}");
    }
}

/// Notifications and feed events that wait for their digests.
async fn gather(server: &Server, kind: &str) {
    server.notify_times(PERSON, kind, 90).await;
    let actor = json!({"id": PERSON, "name": "name-of-person"});
    let notice = json!({"kind": kind, "body": "canary", "actor": actor});
    for _ in 0..25 {
        server.try_notify("alice", &notice).await.expect(201);
    }
    let event = json!({"to": {"topic": "feed:news"}, "type": "feed.post", "data": "canary", "actor": actor,
        "collapse_key": format!("{kind}:7")});
    server.publish(&event).await.expect(201);
}

/// The person is connected, and others have heard of it.
async fn appear(server: &Server, status: &str) -> (Reader, Reader) {
    let mut alice = listen(server, Transport::Sse, "alice").await;
    let person = listen(server, Transport::Sse, PERSON).await;
    let by_hand = json!({"status": status, "activity": "canary"});
    server.set_presence(PERSON, &by_hand).await.expect(200);
    alice.sees(PERSON, status).await;
    (alice, person)
}

#[test]
fn every_kind_of_row_is_accounted_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let features = std::fs::read_to_string(root.join("features.rs")).unwrap();
    let kind_of = |part: &str| (part.chars().count() == 1).then(|| part.chars().next())?;
    let comments = features.lines().filter(|line| line.starts_with("// "));
    let listed: BTreeSet<char> = comments
        .flat_map(|line| line.split('`').skip(1).step_by(2).filter_map(kind_of))
        .collect();
    let accounted: BTreeSet<char> = UNDER_THE_NUMBER.chars().chain(OTHERS.chars()).collect();
    assert_eq!(listed, accounted);
    let mut waiting = vec![root.join("features"), root.join("publish")];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for (_, rest) in text.lines().filter_map(|line| line.split_once(": u8 = b'")) {
                let kind = rest.chars().next().unwrap();
                assert!(listed.contains(&kind), "{kind} of {}", path.display());
            }
        }
    }
}

/// Rows of every kind stand under the person's number, and rows of others name it. Gives the number.
fn assert_used(before: &[Row]) -> [u8; 4] {
    let named = before
        .iter()
        .find(|row| keys::parse_user(&row.key).is_some() && row.holds(PERSON));
    let number = keys::parse_user(&named.expect("there is such a user").key).unwrap();
    let number = number.0.to_be_bytes();
    let kinds: String = under(before, number).into_keys().collect();
    let mut expected: Vec<char> = UNDER_THE_NUMBER
        .chars()
        .filter(|kind| *kind != 'e')
        .collect();
    expected.sort_unstable();
    assert_eq!(kinds, expected.into_iter().collect::<String>());
    for kind in ['f', 'q', 'n'] {
        let of_kind = |row: &&Row| row.of_feature().is_some_and(|(of, _)| of == kind);
        assert!(
            before.iter().filter(of_kind).any(|row| row.holds(PERSON)),
            "{kind}"
        );
    }
    number
}

/// Others have their notifications and events, and nothing in them is the person's.
async fn assert_others_keep_what_is_theirs(server: &Server) {
    let inbox = server.inbox("alice", "limit=200").await;
    let notifications = inbox["notifications"].as_array().unwrap();
    assert_eq!((notifications.len(), &inbox["unread"]), (50, &json!(50)));
    assert!(
        notifications.iter().all(|one| one["erased"] == true),
        "{inbox}"
    );
    let log = server.events_after("alice", "start").await;
    let log = Value::from(log).to_string();
    assert!(
        log.contains("notification.digest") && log.contains("feed.digest"),
        "{log}"
    );
    for word in WORDS {
        assert!(
            !inbox.to_string().contains(word) && !log.contains(word),
            "{word}"
        );
    }
}

fn assert_gone(after: &[Row], number: [u8; 4], killed_after_ms: Option<u64>) {
    assert_eq!(under(after, number), BTreeMap::new(), "{killed_after_ms:?}");
    assert_eq!(
        ending_with(after, number),
        ['m'],
        "its place in the 1:1 alone"
    );
    for word in WORDS {
        let named: Vec<&Row> = after.iter().filter(|row| row.holds(word)).collect();
        assert!(named.is_empty(), "{killed_after_ms:?}, {word}: {named:?}");
    }
}

#[tokio::test]
async fn no_row_is_left_of_someone_who_used_everything() {
    for killed_after_ms in [None, Some(5), Some(40)] {
        let mut server = spawn(options());
        take_part(&server).await;
        gather(&server, "like").await;
        let readers = appear(&server, "busy").await;
        let before = server.stopped().await;
        drop(readers);
        let number = assert_used(&before);

        server.restart();
        // What was pending is told by the start; this is pending when the erasure comes.
        gather(&server, "comment").await;
        let readers = appear(&server, "away").await;
        if let Some(delay_ms) = killed_after_ms {
            let path = format!("/v1/users/{PERSON}");
            let erase = server.call("DELETE", &path).token(&tokens::admin());
            let asked = tokio::spawn(erase.try_send());
            // The moment of the kill is the point of the test; whatever it meets must hold.
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            server.kill9();
            drop(asked.await);
            server.restart();
        }
        assert_eq!(server.erase(PERSON, &tokens::admin()).await, 204);
        assert_others_keep_what_is_theirs(&server).await;
        drop(readers);
        server.assert_healthy().await;

        let after = server.stopped().await;
        assert_gone(&after, number, killed_after_ms);

        server.restart();
        let anew = server.state(PERSON).await;
        assert_eq!(
            (&anew["notifications"], &anew["conversations"]),
            (&json!([]), &json!([]))
        );
        assert_eq!(
            (
                &anew["preferences"]["feed_auto"],
                &anew["preferences"]["muted"]
            ),
            (&json!(false), &json!([]))
        );
    }
}

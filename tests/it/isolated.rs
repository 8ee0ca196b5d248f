//! Invariants X and A of FAULTS.md over the features: nothing of one conversation or inbox reaches who is not in it, and
//! every transport, the history and the state tell the same.
//!
//! Promises: three pairs of strangers put canaries into everything that they can write; each canary is looked for in
//! every byte that every user is told, live and later. A canary that its own pair is not told fails too.

use serde_json::{Value, json};

use crate::delivery::{Delivery, Kind};
use crate::fold::plain;
use crate::harness::{Server, spawn};
use crate::inbox::text;
use crate::reader::{Ask, Reader, Transport, open};
use crate::talk;

/// Who talks with whom; nobody knows anyone of another pair.
const PAIRS: [[&str; 2]; 3] = [["ann", "abe"], ["ben", "bea"], ["cyd", "cal"]];

/// Where a canary is put: each is `canary-<pair>-<place>`.
const DURABLE: [&str; 11] = [
    "name", "content", "data", "client", "title", "body", "link", "actor", "notified", "renamed",
    "note",
];
const LIVE: [&str; 3] = ["activity", "signal", "ephemeral"];

fn canary(pair: usize, place: &str) -> String {
    format!("canary-{}-{place}", PAIRS[pair][0])
}

/// Everything that `user` is told over one transport up to the mark that comes last.
struct Ear {
    user: &'static str,
    transport: Transport,
    reader: Reader,
    heard: Vec<Delivery>,
}

impl Ear {
    async fn open(server: &Server, user: &'static str, transport: Transport) -> Ear {
        let query = if transport == Transport::Poll {
            "cursor=start&wait=0"
        } else {
            "cursor=start&snapshot=1"
        };
        let reader = open(server, transport, &Ask::user(user).query(query)).await;
        let mut ear = Ear {
            user,
            transport,
            reader,
            heard: Vec::new(),
        };
        ear.until(Kind::Live, None).await;
        ear
    }

    async fn until(&mut self, kind: Kind, event_type: Option<&str>) {
        loop {
            let delivery = self.reader.next().await;
            assert_ne!(
                delivery.kind,
                Kind::End,
                "{} by {:?}",
                self.user,
                self.transport
            );
            let is_last =
                delivery.kind == kind && event_type.is_none_or(|name| delivery.str("type") == name);
            self.heard.push(delivery);
            if is_last {
                return;
            }
        }
    }

    /// Reads on until all these words were heard, however they are spaced out.
    async fn until_heard(&mut self, words: &[String]) {
        let is_missing =
            |heard: &[Delivery], word: &String| !heard.iter().any(|one| one.raw.contains(word));
        while words.iter().any(|word| is_missing(&self.heard, word)) {
            let delivery = self.reader.next().await;
            assert_ne!(delivery.kind, Kind::End, "before {words:?}");
            self.heard.push(delivery);
        }
    }

    fn events(&self) -> Vec<&Value> {
        let events = self
            .heard
            .iter()
            .filter(|delivery| delivery.kind == Kind::Event);
        events.map(|delivery| &delivery.json).collect()
    }
}

/// The pair writes its canaries wherever something can be written.
async fn sing(server: &Server, pair: usize) -> String {
    let [one, two] = PAIRS[pair];
    let canary = |place| canary(pair, place);
    let id = server.group(&[one, two], Some(&canary("name"))).await;
    let message = json!({"content": canary("content"), "data": {"x": canary("data")}, "client_id": canary("client")});
    let sent = server.post_message(one, &id, &message).await.expect(201);
    let renamed = json!({"name": canary("renamed")});
    let path = format!("/v1/conversations/{id}");
    server
        .of(two, "PATCH", &path)
        .json(&renamed)
        .send()
        .await
        .expect(200);
    server
        .read(two, &id, &json!({"message_ids": [sent["id"]]}))
        .await
        .expect(200);
    let notification = json!({
        "kind": "mention", "title": canary("title"), "body": canary("body"),
        "link": format!("/{}", canary("link")), "actor": {"id": "system", "name": canary("actor")},
        "data": canary("notified"),
    });
    for user in [one, two] {
        server.try_notify(user, &notification).await.expect(201);
    }
    let note = json!({"to": {"conversation": id}, "type": "note.new", "data": canary("note")});
    server.publish(&note).await.expect(201);
    id
}

/// What is told only to who is there.
async fn sing_live(server: &Server, pair: usize, id: &str) {
    let [one, two] = PAIRS[pair];
    for (from, kind) in [(one, "pen"), (two, "brush")] {
        let signal = json!({"kind": kind, "data": canary(pair, "signal")});
        let reply = server.in_conversation(from, (id, "signals"), &signal).await;
        assert_eq!(reply.status, 204, "{reply:?}");
        let typing = json!({"state": "start"});
        let reply = server.in_conversation(from, (id, "typing"), &typing).await;
        assert_eq!(reply.status, 204, "{reply:?}");
        let presence = json!({"status": "busy", "activity": canary(pair, "activity")});
        server.set_presence(from, &presence).await.expect(200);
    }
    let to = json!({"conversation": id});
    let live = json!({"to": to, "type": "note.live", "data": canary(pair, "ephemeral"), "ephemeral": true});
    server.publish(&live).await.expect(201);
}

/// All that `user` is told when it asks, by what it asked for.
async fn told(server: &Server, user: &str) -> Vec<(String, String)> {
    let everyone = PAIRS.concat().join(",");
    let mut paths = vec![
        "/v1/state".to_owned(),
        "/v1/conversations".to_owned(),
        "/v1/notifications".to_owned(),
        "/v1/preferences".to_owned(),
        format!("/v1/presence?users={everyone}"),
        format!("/v1/users/{user}/export"),
        "/v1/events?format=json&cursor=start&wait=0&limit=1000".to_owned(),
    ];
    let list = server
        .of(user, "GET", "/v1/conversations")
        .send()
        .await
        .expect(200);
    for conversation in list["conversations"].as_array().unwrap() {
        let path = format!("/v1/conversations/{}", text(&conversation["id"]));
        paths.extend([format!("{path}/messages"), format!("{path}/members"), path]);
    }
    let mut told = Vec::new();
    for path in paths {
        let reply = server.of(user, "GET", &path).send().await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        told.push((path, reply.text().to_owned()));
    }
    told
}

/// Nothing of another pair's is in the text: no canary, no conversation, no other one's name as actor or sender.
#[track_caller]
fn assert_own(pair: usize, what: &str, said: &str, ids: &[String]) {
    for (other, id) in ids.iter().enumerate().filter(|(other, _)| *other != pair) {
        let foreign = format!("canary-{}", PAIRS[other][0]);
        assert!(
            !said.contains(&foreign),
            "{foreign} in {what} of {:?}: {said}",
            PAIRS[pair]
        );
        assert!(
            !said.contains(id.as_str()),
            "{id} in {what} of {:?}: {said}",
            PAIRS[pair]
        );
        for name in PAIRS[other] {
            let is_asked = what.starts_with("/v1/presence");
            assert!(
                is_asked || !said.contains(&format!("\"{name}\"")),
                "{name} in {what}: {said}"
            );
        }
    }
}

/// A mark for every user, after which nothing more is expected.
async fn mark(server: &Server) {
    for user in PAIRS.concat() {
        let body = json!({"to": {"user": user}, "type": "test.end", "data": null});
        server.publish(&body).await.expect(201);
    }
}

#[tokio::test]
async fn nothing_reaches_who_is_not_in_it() {
    let server = spawn(talk::options());
    let mut ids = Vec::new();
    for pair in 0..PAIRS.len() {
        ids.push(sing(&server, pair).await);
    }
    let mut ears = Vec::new();
    for user in PAIRS.concat() {
        for transport in Transport::ALL {
            ears.push(Ear::open(&server, user, transport).await);
        }
    }
    for (pair, id) in ids.iter().enumerate() {
        sing_live(&server, pair, id).await;
        sing_more(&server, pair, id).await;
    }
    // Signals are spaced out, so the mark may overtake the last of them.
    for ear in ears
        .iter_mut()
        .filter(|ear| ear.transport != Transport::Poll)
    {
        let pair = PAIRS
            .iter()
            .position(|pair| pair.contains(&ear.user))
            .expect("one of them");
        ear.until_heard(&LIVE.map(|place| canary(pair, place)))
            .await;
    }
    mark(&server).await;
    for ear in &mut ears {
        ear.until(Kind::Event, Some("test.end")).await;
    }
    for (number, user) in PAIRS.concat().into_iter().enumerate() {
        let (pair, mut all) = (number / 2, String::new());
        for (path, said) in told(&server, user).await {
            assert_own(pair, &path, &said, &ids);
            all.push_str(&said);
        }
        for place in DURABLE.iter().filter(|place| **place != "name") {
            assert!(
                all.contains(&canary(pair, place)),
                "{place} is not told to {user}: {all}"
            );
        }
        for ear in ears.iter().filter(|ear| ear.user == user) {
            let heard = ear.heard.iter().map(|one| one.json.to_string() + &one.raw);
            let heard: Vec<String> = heard.collect();
            assert_own(
                pair,
                &format!("{:?}", ear.transport),
                &heard.join("\n"),
                &ids,
            );
        }
    }
    agree(&server, &ears, &ids).await;
    server.assert_healthy().await;
}

/// Something durable while all listen.
async fn sing_more(server: &Server, pair: usize, id: &str) {
    let [one, two] = PAIRS[pair];
    let sent = server.say(two, id, &canary(pair, "content")).await;
    server
        .read(one, id, &json!({"upto": sent["n"]}))
        .await
        .expect(200);
    server.notify(one, "like").await;
    server.mark_read(one, &json!({"all": true})).await;
}

/// Invariant A: one log, whatever it is read by; and messages are what the history says.
async fn agree(server: &Server, ears: &[Ear], ids: &[String]) {
    for (number, user) in PAIRS.concat().into_iter().enumerate() {
        let own: Vec<&Ear> = ears.iter().filter(|ear| ear.user == user).collect();
        assert_eq!(own.len(), Transport::ALL.len());
        for ear in &own[1..] {
            assert_eq!(own[0].events(), ear.events(), "{user}: {:?}", ear.transport);
        }
        let events = own[0].events().into_iter();
        let messages = events.filter(|event| event["type"] == "message.new");
        let messages: Vec<Value> = messages.map(|event| plain(&event["data"])).collect();
        let history = server.history(user, &ids[number / 2], "").await;
        let history = history["messages"].as_array().unwrap().iter();
        assert_eq!(
            messages,
            history.map(plain).collect::<Vec<Value>>(),
            "{user}"
        );
    }
}

/// Who was in it hears nothing more once it is out, and whoever never was cannot make itself heard.
#[tokio::test]
async fn who_left_hears_nothing_more() {
    let server = spawn(talk::options());
    let id = server.group(&["ann", "abe", "ben"], Some("Three")).await;
    let mut ears = Vec::new();
    for transport in Transport::ALL {
        ears.push(Ear::open(&server, "ben", transport).await);
    }
    let path = format!("/v1/conversations/{id}/members/ben");
    server.of("ben", "DELETE", &path).send().await.expect(204);
    for ear in &mut ears {
        ear.until(Kind::Event, Some("conversation.left")).await;
        ear.heard.clear();
    }
    server
        .post_message("ann", &id, &json!({"content": canary(0, "content")}))
        .await
        .expect(201);
    sing_live(&server, 0, &id).await;
    for user in ["ben", "cyd"] {
        for (what, body) in [
            ("messages", json!({"content": "intruding"})),
            ("typing", json!({"state": "start"})),
            ("signals", json!({"kind": "pen", "data": "intruding"})),
            ("read", json!({"upto": 1})),
        ] {
            let reply = server.in_conversation(user, (&id, what), &body).await;
            assert_eq!(reply.refused(&[404]), "not_found");
        }
    }
    mark(&server).await;
    for ear in &mut ears {
        ear.until(Kind::Event, Some("test.end")).await;
        let events: Vec<&Value> = ear.events().iter().map(|event| &event["type"]).collect();
        assert_eq!(events, ["test.end"], "{:?}", ear.transport);
        let heard: String = ear.heard.iter().map(|one| one.json.to_string()).collect();
        assert!(
            !heard.contains("canary-ann") && !heard.contains(&id),
            "{heard}"
        );
    }
    for (path, said) in told(&server, "ben").await {
        assert!(!said.contains("canary-ann"), "{path}: {said}");
    }
    let said = server.history("abe", &id, "").await.to_string();
    assert!(
        said.contains("canary-ann") && !said.contains("intruding"),
        "{said}"
    );
}

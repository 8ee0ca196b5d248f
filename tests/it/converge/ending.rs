//! How a run ends: everything that is due is told, and then all that can be asked must agree.
//!
//! Promises: it waits for what is gathered by looking, never by pausing for a while; what it compares comes from the
//! server's public answers only.

use std::collections::BTreeMap;

use fastrand::Rng;
use futures_util::FutureExt;
use serde_json::{Value, json};

use super::device::catch_up;
use super::{DEVICES_PER_USER, USERS};
use crate::export::{lines, of};
use crate::fold::{Known, plain};
use crate::harness::{Server, eventually};
use crate::inbox::{ids, text};
use crate::reader::{Ask, Transport, open};
use crate::tokens;

/// Where one member stands in one conversation, as its export says.
struct Place {
    joined: u64,
    read_upto: u64,
    delivered_upto: u64,
}

/// Acks everything, and waits until all is told: receipts to senders, digests to whoever was gathered for.
pub async fn settle(server: &Server) {
    for (user, status) in USERS.into_iter().zip(["busy", "away", "online"]) {
        let body = json!({"status": status, "activity": format!("{user} at the end")});
        server.set_presence(user, &body).await.expect(200);
        let cursor = server.head(user).await;
        let ack = server.of(user, "POST", "/v1/ack");
        ack.json(&json!({ "cursor": cursor }))
            .send()
            .await
            .expect(200);
    }
    let mut last = String::new();
    let settled = eventually("all that is due is told", async || {
        for user in USERS {
            if let Some(question) = open_question(server, user).await {
                last = question;
                return false;
            }
        }
        true
    });
    let settled = std::panic::AssertUnwindSafe(settled).catch_unwind().await;
    println!("what was open last: {last}");
    if let Err(panicked) = settled {
        std::panic::resume_unwind(panicked);
    }
}

async fn whole(server: &Server, user: &str) -> Known {
    let nothing = server.page(user, "cursor=start&wait=0&limit=1").await;
    let epoch = crate::delivery::epoch_of(nothing["head"].as_str().unwrap()).to_owned();
    let mut known = Known::of(&json!({
        "user": user, "cursor": format!("{epoch}-0"), "conversations": [], "notifications": [], "presence": {},
        "preferences": server.of("nobody", "GET", "/v1/preferences").send().await.expect(200),
        "badge": {"notifications": 0, "messages": 0, "conversations": 0},
    }));
    for event in server.events_after(user, "start").await {
        known.fold(&event);
    }
    known
}

/// What is still to be told to this user.
async fn open_question(server: &Server, user: &str) -> Option<String> {
    let known = whole(server, user).await;
    let difference = known.difference(&server.state(user).await);
    if difference.is_some() {
        return difference;
    }
    let places = places(server).await;
    for (id, conversation) in &known.conversations {
        for (other, place) in places[id].iter().filter(|(other, _)| *other != user) {
            let joined = place.joined.max(places[id][user].joined);
            let own = |upto: u64| {
                let passed = conversation.messages.range(..=upto);
                let own = passed.filter(|(n, message)| **n > joined && message["sender"] == user);
                own.map(|(n, _)| *n).next_back().unwrap_or(0)
            };
            let expected = (own(place.delivered_upto), own(place.read_upto));
            let told = conversation
                .receipts
                .get(other)
                .copied()
                .unwrap_or_default();
            if told.0 < expected.0 || told.1 < expected.1 {
                return Some(format!(
                    "{user} of {other} in {id}: {told:?}, not {expected:?}"
                ));
            }
            assert!(
                told.1 <= place.read_upto,
                "{other} did not read so far in {id}"
            );
            assert!(
                told.0 <= place.delivered_upto,
                "{other} does not have it in {id}"
            );
        }
    }
    None
}

async fn places(server: &Server) -> BTreeMap<String, BTreeMap<String, Place>> {
    let mut places: BTreeMap<String, BTreeMap<String, Place>> = BTreeMap::new();
    for user in USERS {
        let export = lines(server, user, &tokens::user(user)).await;
        for line in of(&export, "membership") {
            let number = |name: &str| {
                line[name]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{name}: {line}"))
            };
            let place = Place {
                joined: number("joined"),
                read_upto: number("read_upto"),
                delivered_upto: number("delivered_upto"),
            };
            let id = text(&line["conversation"]["id"]);
            places.entry(id).or_default().insert(user.to_owned(), place);
        }
    }
    places
}

/// All devices, all queries and all histories agree.
pub async fn check(server: &Server, devices: Vec<Known>, rng: &mut Rng) {
    let mut histories: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (number, mut known) in devices.into_iter().enumerate() {
        let user = USERS[number / DEVICES_PER_USER];
        let state = server.state(user).await;
        let transport = rng.choice(Transport::ALL).expect("not empty");
        let ask = Ask::user(user).cursor(&known.cursor);
        let mut reader = open(server, transport, &ask).await;
        let badge = catch_up(&mut reader, &mut known, &state["cursor"]).await;
        known.check(&state);
        assert!(
            badge.is_none_or(|badge| badge == state["badge"]),
            "{transport:?}"
        );
        for (id, conversation) in &known.conversations {
            let history = history(server, user, id).await;
            for (n, message) in &conversation.messages {
                assert_eq!(
                    *message,
                    plain(&history[*n as usize - 1]),
                    "known to {user}"
                );
            }
            let seen: Vec<Value> = history.iter().map(plain).collect();
            let first = histories.entry(id.clone()).or_insert_with(|| seen.clone());
            assert_eq!(*first, seen, "the history of {id} as {user} sees it");
        }
    }
    for user in USERS {
        check_queries(server, user).await;
        check_statuses(server, user).await;
    }
}

/// The badge and the presences are what the queries count and tell.
async fn check_queries(server: &Server, user: &str) {
    let state = server.state(user).await;
    let unread = server.inbox(user, "unread=1&limit=200").await;
    assert_eq!(unread["more"], false, "more than a page for {user}");
    assert_eq!(
        state["badge"]["notifications"],
        ids(&unread).len(),
        "{user}"
    );
    let list = server.of(user, "GET", "/v1/conversations?limit=200");
    let list = list.send().await.expect(200);
    assert_eq!(list["conversations"], state["conversations"]);
    let counts = list["conversations"].as_array().unwrap().iter();
    let counts: Vec<u64> = counts.map(|one| one["unread"].as_u64().unwrap()).collect();
    assert_eq!(
        state["badge"]["messages"],
        counts.iter().sum::<u64>(),
        "{user}"
    );
    for (other, told) in state["presence"].as_object().unwrap() {
        assert_eq!(
            *told,
            server.presence(other, other).await,
            "{other} to {user}"
        );
        let activity = format!("{other} at the end");
        assert_eq!(told["activity"], activity, "{user} of {other}: {told}");
    }
}

/// A message is as far as the cursors of those to whom it was sent.
async fn check_statuses(server: &Server, user: &str) {
    let places = places(server).await;
    for (id, members) in places
        .iter()
        .filter(|(_, members)| members.contains_key(user))
    {
        for message in history(server, user, id).await {
            if message["sender"] != user {
                assert!(message.get("status").is_none(), "{message}");
                continue;
            }
            let n = message["n"].as_u64().unwrap();
            let others = members.iter().filter(|(other, _)| *other != user);
            let others: Vec<&Place> = others
                .map(|(_, place)| place)
                .filter(|place| place.joined < n)
                .collect();
            let delivered = others
                .iter()
                .filter(|place| place.delivered_upto >= n)
                .count();
            let read = others.iter().filter(|place| place.read_upto >= n).count();
            let expected = match others.len() {
                0 => "sent",
                all if all == read => "read",
                all if all == delivered => "delivered",
                _ => "sent",
            };
            assert_eq!(message["status"], expected, "{message}");
            assert!(
                expected != "sent" || others.is_empty(),
                "all was acked: {message}"
            );
        }
    }
}

async fn history(server: &Server, user: &str, id: &str) -> Vec<Value> {
    let mut messages = Vec::new();
    loop {
        let query = format!("?after={}&limit=7", messages.len());
        let page = server.history(user, id, &query).await;
        messages.extend(page["messages"].as_array().unwrap().iter().cloned());
        if page["more"] == false {
            return messages;
        }
    }
}

//! One user who acts at random: makes groups, talks, reads, types, leaves, notifies others, takes messages back.
//!
//! Promises: its choices come from its seed alone. Every write carries a key, and is asked again with the same key when
//! its answer never came; a repeat must give the same message. Refusals are those that a race with the others explains.

use std::sync::atomic::Ordering;

use fastrand::Rng;
use serde_json::{Value, json};

use super::device::as_backend;
use super::{ACTIONS_PER_USER, DEVICES_PER_USER, USERS, World};
use crate::client::Reply;
use crate::inbox::{ids, text};

struct Actor<'a> {
    world: &'a World,
    user: &'static str,
    rng: Rng,
    /// Numbers the keys of the writes.
    count: usize,
}

pub async fn act(world: &World, user: &'static str, rng: Rng) {
    let mut actor = Actor {
        world,
        user,
        rng,
        count: 0,
    };
    for _ in 0..ACTIONS_PER_USER {
        actor.act_once().await;
        world.done.fetch_add(1, Ordering::SeqCst);
        world.acted.notify_one();
    }
}

impl Actor<'_> {
    async fn act_once(&mut self) {
        self.count += 1;
        match self.rng.u32(0..24) {
            0..=1 => self.converse().await,
            2..=9 => self.say().await,
            10..=12 => self.read().await,
            13 => self.live("typing", json!({"state": "start"})).await,
            14 => {
                self.live("signals", json!({"kind": "pen", "data": [1, 2]}))
                    .await
            }
            15 => self.appear().await,
            16..=17 => self.notify().await,
            18..=19 => self.read_notifications().await,
            20 => self.take_back().await,
            21 => self.join_or_leave().await,
            22 => self.choose().await,
            _ => {
                let device = self.rng.usize(0..USERS.len() * DEVICES_PER_USER);
                self.world.cuts[device].notify_one();
            }
        }
    }

    /// Asks until it is answered; only a dead server gives no answer.
    async fn ask(&self, method: &str, path: &str, body: &Value, key: Option<&str>) -> Reply {
        loop {
            let server = self.world.server.read().await;
            let mut call = match path.ends_with("/notify") {
                true => as_backend(server.call(method, path)),
                false => server.of(self.user, method, path),
            };
            drop(server);
            if let Some(key) = key {
                call = call.header("idempotency-key", key);
            }
            if !body.is_null() {
                call = call.json(body);
            }
            if let Some(reply) = call.try_send().await {
                return reply;
            }
        }
    }

    fn key(&self) -> String {
        format!("{}-{}", self.user, self.count)
    }

    fn other(&mut self) -> &'static str {
        self.rng.choice(USERS).expect("not empty")
    }

    /// Any conversation, also one that the user is not in.
    fn conversation(&mut self) -> Option<String> {
        let all = self.world.conversations.lock().unwrap().clone();
        self.rng.choice(all)
    }

    async fn converse(&mut self) {
        let mut members: Vec<&str> = vec![self.user, self.other(), self.other()];
        members.sort_unstable();
        members.dedup();
        let is_direct = members.len() == 2 && self.rng.bool();
        let name = (!is_direct).then(|| format!("group of {}", self.key()));
        let body = json!({"members": members, "name": name});
        let path = "/v1/conversations";
        let reply = self.ask("POST", path, &body, Some(&self.key())).await;
        match members.len() {
            1 => drop(reply.refused(&[400])),
            _ => {
                assert!([200, 201].contains(&reply.status), "{reply:?}");
                let id = text(&reply.json()["id"]);
                let mut all = self.world.conversations.lock().unwrap();
                if !all.contains(&id) {
                    all.push(id);
                }
            }
        }
    }

    async fn say(&mut self) {
        let Some(id) = self.conversation() else {
            return self.converse().await;
        };
        let path = format!("/v1/conversations/{id}/messages");
        let body = json!({
            "content": format!("{} says {}", self.user, self.rng.u32(..)),
            "client_id": self.key(),
            "data": {"n": self.count},
        });
        let reply = self.ask("POST", &path, &body, None).await;
        if reply.status == 404 {
            return;
        }
        assert!([200, 201].contains(&reply.status), "{reply:?}");
        let sent = reply.json();
        assert_eq!(sent["client_id"], self.key(), "{sent}");
        if self.rng.u32(0..3) == 0 {
            let again = self.ask("POST", &path, &body, None).await;
            // Meanwhile another one may have taken the sender out of the group.
            if again.status != 404 {
                let again = again.expect(200);
                assert_eq!((&again["id"], &again["n"]), (&sent["id"], &sent["n"]));
                assert_eq!(again["duplicate"], true, "{again}");
            }
        }
        let message = (id, text(&sent["id"]), self.user);
        self.world.messages.lock().unwrap().push(message);
    }

    async fn read(&mut self) {
        let Some(id) = self.conversation() else {
            return;
        };
        let path = format!("/v1/conversations/{id}");
        let reply = self.ask("GET", &path, &Value::Null, None).await;
        if reply.status == 404 {
            return;
        }
        let head = reply.expect(200)["head"].as_u64().expect("a number");
        let upto = self.rng.u64(0..=head);
        let path = format!("{path}/read");
        let reply = self.ask("POST", &path, &json!({"upto": upto}), None).await;
        assert!([200, 404].contains(&reply.status), "{reply:?}");
    }

    async fn live(&mut self, what: &str, body: Value) {
        if let Some(id) = self.conversation() {
            let path = format!("/v1/conversations/{id}/{what}");
            let reply = self.ask("POST", &path, &body, None).await;
            assert!([204, 404].contains(&reply.status), "{reply:?}");
        }
    }

    async fn appear(&mut self) {
        let status = self
            .rng
            .choice(["online", "away", "busy", "offline", "auto"])
            .expect("not empty");
        let body = json!({"status": status, "activity": "converging"});
        let reply = self.ask("PUT", "/v1/presence", &body, None).await;
        reply.expect(200);
    }

    /// The application notifies someone of what this user did, often many times.
    async fn notify(&mut self) {
        let path = format!("/v1/users/{}/notify", self.other());
        for n in 0..self.rng.usize(1..8) {
            let body = json!({"kind": "comment", "body": "x", "actor": {"id": self.user}});
            let key = format!("{}-{n}", self.key());
            let reply = self.ask("POST", &path, &body, Some(&key)).await;
            assert!([200, 201].contains(&reply.status), "{reply:?}");
        }
    }

    async fn read_notifications(&mut self) {
        let path = "/v1/notifications?unread=1&limit=5";
        let page = self.ask("GET", path, &Value::Null, None).await.expect(200);
        let body = match self.rng.u32(0..3) {
            0 => json!({"all": true}),
            _ => json!({ "ids": ids(&page) }),
        };
        let reply = self
            .ask("POST", "/v1/notifications/read", &body, None)
            .await;
        reply.expect(200);
    }

    /// Deletes any message; only its sender may.
    async fn take_back(&mut self) {
        let all = self.world.messages.lock().unwrap().clone();
        if let Some((id, message, sender)) = self.rng.choice(all) {
            let path = format!("/v1/conversations/{id}/messages/{message}");
            let reply = self.ask("DELETE", &path, &Value::Null, None).await;
            let expected = if sender == self.user { 204 } else { 403 };
            assert!([expected, 404].contains(&reply.status), "{reply:?}");
        }
    }

    async fn join_or_leave(&mut self) {
        let Some(id) = self.conversation() else {
            return;
        };
        let (method, user) = match self.rng.bool() {
            true => ("PUT", self.other()),
            false => ("DELETE", self.user),
        };
        let path = format!("/v1/conversations/{id}/members/{user}");
        let reply = self.ask(method, &path, &Value::Null, None).await;
        assert!([204, 404, 409].contains(&reply.status), "{reply:?}");
    }

    async fn choose(&mut self) {
        let body = json!({"sound": self.rng.bool(), "desktop": self.rng.bool()});
        let reply = self.ask("PATCH", "/v1/preferences", &body, None).await;
        reply.expect(200);
    }
}

//! A chat: members of conversations write, type, read and change their presence, all at one steady rate.
//!
//! Promises: every message reaches every member once and in order; typing, receipts and presence must come too, though
//! how many is the server's to say. It acts with each user's own token, as applications do.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::needs;
use crate::context::Context;
use crate::load::{Crowd, Load};
use crate::outcome::Outcome;
use crate::pace::Plan;
use crate::peer::tidings::{Chat, request};
use crate::peer::{Form, Needs, Reach};
use crate::publishers::Job;
use crate::verify::Ledger;

const MEMBERS: usize = 4;
const PUBLISHERS: usize = 64;
/// Receipts are gathered over 250 ms.
const GATHERING: Duration = Duration::from_millis(1_500);
const KINDS_WANTED: [&str; 4] = [
    "message.new",
    "typing.start",
    "message.read",
    "presence.changed",
];
const STATUSES: [&str; 3] = ["online", "away", "busy"];

pub fn run(context: &Context, peer: &str, directory: &Path) -> Result<Vec<Outcome>> {
    let users = context.connections(400, 40).next_multiple_of(MEMBERS);
    let conversations = users / MEMBERS;
    let crowd = Crowd {
        form: Form::Events,
        tracks: conversations as u32,
        tracks_of_readers: (0..users).map(|user| (user / MEMBERS) as u32).collect(),
        has_unmarked: true,
    };
    let needs = needs(Reach::Conversations);
    let mut load = Load::start(context, peer, directory, needs, crowd)?;
    let mut acts = begin(&mut load, &needs, users)?;
    load.say("chatting");
    load.open_publishers(PUBLISHERS)?;
    load.open_readers()?;
    let rate = context.rate.unwrap_or(context.size(500.0, 50.0));
    let measured = load.begin()?;
    let mut k = 0;
    load.drive(
        Plan::at(rate, context.seconds(10.0, 2.0)),
        &mut |_, ledger, due_ns| {
            k += 1;
            acts.next(k - 1, ledger, due_ns)
        },
    )?;
    load.read_for(GATHERING)?;
    let mut outcome = load.end("mixed", &measured)?;
    for kind in KINDS_WANTED {
        if !load.readers.kinds.contains_key(kind) {
            load.readers.ledger.cut(|| format!("no {kind} came"));
        }
    }
    load.judge(&mut outcome);
    let kinds = load
        .readers
        .kinds
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"));
    outcome.note = format!("{rate:.0} acts/s: {}", kinds.collect::<Vec<_>>().join(", "));
    Ok(vec![outcome])
}

/// Makes the conversations, one after the other, so that each answer is that of its request.
fn begin(load: &mut Load, needs: &Needs, users: usize) -> Result<Acts> {
    load.say("making conversations");
    let chat = Chat::of(load.context, needs, users as u32)?;
    load.open_publishers(1)?;
    load.publishers.bodies = Some(Vec::new());
    let requests = (0..users).step_by(MEMBERS).map(|first| {
        let members: Vec<&str> = (first..first + MEMBERS)
            .map(|user| chat.names[user].as_str())
            .collect();
        let body = json!({"members": members, "name": format!("conversation {first}")});
        request(
            "POST",
            "/v1/conversations",
            &chat.tokens[first],
            &body.to_string(),
        )
    });
    load.ask_all(requests.collect())
        .context("no conversation could be made")?;
    let bodies = load.publishers.bodies.take().unwrap_or_default();
    let ids = bodies.iter().map(|body| {
        let body: Value = serde_json::from_slice(body)?;
        let id = body["id"]
            .as_str()
            .context("a conversation without an id")?;
        Ok(id.to_owned())
    });
    Ok(Acts {
        ids: ids.collect::<Result<_>>()?,
        run: needs.run,
        chat,
    })
}

struct Acts {
    chat: Chat,
    ids: Vec<String>,
    run: u32,
}

impl Acts {
    /// Of ten acts five are messages, two typing, two reading, one presence. Users take turns, so that nobody types
    /// more often than anybody could.
    fn next(&mut self, k: usize, ledger: &mut Ledger, due_ns: u64) -> Job {
        let user = (k * 7 + k / 10) % self.chat.names.len();
        let track = (user / MEMBERS) as u32;
        let id = &self.ids[track as usize];
        let path = |what: &str| format!("/v1/conversations/{id}/{what}");
        let acked = ledger.acked(track);
        let (method, path, body, marks) = match k % 10 {
            0 | 5 => (
                "POST",
                path("typing"),
                json!({"state": "start"}),
                Vec::new(),
            ),
            3 | 7 if acked > 0 => ("POST", path("read"), json!({"upto": acked}), Vec::new()),
            9 => {
                let status = STATUSES[k / 10 % STATUSES.len()];
                (
                    "PUT",
                    "/v1/presence".to_owned(),
                    json!({"status": status}),
                    Vec::new(),
                )
            }
            _ => {
                let mark = ledger.draft(track, due_ns);
                let client_id = format!("{:x}-{track}-{}", self.run, mark.number);
                let body = json!({"content": ledger.text(&mark), "client_id": client_id});
                ("POST", path("messages"), body, vec![(track, mark.number)])
            }
        };
        Job {
            request: request(method, &path, &self.chat.tokens[user], &body.to_string()),
            marks,
            due_ns,
        }
    }
}

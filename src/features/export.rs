//! Everything that is kept about one user, line by line, for that user to take along.
//!
//! Promises: memory holds one page at a time, whatever is stored; the last line counts all others, so that a cut file is
//! known. The first line names the position at which the log is taken: events up to there are all in it, save those
//! that retention takes meanwhile, which a `gap` line tells. Every other list is told page by page as it is when its
//! page is read, so a change during the export may be in it or not.

use std::collections::BTreeMap;

use bytes::BytesMut;
use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::event::{ConversationId, EventId, Topic, UserId};
use crate::features::conversation::messages;
use crate::features::conversation::told;
use crate::features::revoke::Revocations;
use crate::features::{ack, badge, conversation, inbox, preferences, presence};
use crate::frame::Layout;
use crate::id::{Position, UserNo};
use crate::store::read::{PageBounds, Read};
use crate::store::shared::StoreError;
use crate::store::{Store, topics};

/// Rows read for one page, and bytes of events.
const PAGE_ROWS: usize = 200;
/// Messages of 8,000 characters and 64 KiB of data are told this many at a time: commits wait for it.
const PAGE_MESSAGES: usize = 32;
const PAGE_BOUNDS: PageBounds = PageBounds {
    bytes: 256 << 10,
    events: 500,
};

pub struct Export {
    store: Store,
    user: UserNo,
    position: Position,
    next: Stage,
    counts: BTreeMap<&'static str, u64>,
}

/// What the next page tells, and after which item of it.
enum Stage {
    Profile(Option<u64>),
    Acks(Option<String>),
    Subscriptions(Option<Topic>),
    /// Those that are still to be told.
    Conversations(Vec<ConversationId>),
    Messages(Option<(ConversationId, u64)>),
    Notifications(Option<EventId>),
    Events(u64),
    End,
    Over,
}

/// Lines of one page.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    counts: BTreeMap<&'static str, u64>,
}

impl Lines {
    /// One line; its `kind` stands first.
    fn put(&mut self, kind: &'static str, members: &Value) {
        let members = members.to_string();
        let rest = members.strip_prefix('{').unwrap_or("}");
        let comma = if rest == "}" { "" } else { "," };
        let line = format!("{{\"kind\":\"{kind}\"{comma}{rest}\n");
        self.text.extend_from_slice(line.as_bytes());
        *self.counts.entry(kind).or_insert(0) += 1;
    }
}

impl Export {
    /// `None` when nothing is kept about anyone of this name.
    pub async fn begin(
        store: &Store,
        revocations: &Revocations,
        name: &UserId,
    ) -> Result<Option<Export>, StoreError> {
        let Some(user) = store.find(name) else {
            return Ok(None);
        };
        let position = store
            .look(move |transaction| Ok(transaction.position(user)))
            .await?;
        Ok(Some(Export {
            store: store.clone(),
            user,
            position,
            next: Stage::Profile(revocations.revoked_before(name)),
            counts: BTreeMap::new(),
        }))
    }

    /// The next lines; `None` after the last. When the user is erased meanwhile the export ends without its last line.
    pub async fn page(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        if self.store.is_erased(self.user) {
            return Ok(None);
        }
        let mut lines = Lines::default();
        self.next = match std::mem::replace(&mut self.next, Stage::Over) {
            Stage::Profile(revoked_ms) => self.profile(&mut lines, revoked_ms).await?,
            Stage::Acks(after) => self.acks(&mut lines, after).await?,
            Stage::Subscriptions(after) => self.subscriptions(&mut lines, after).await?,
            Stage::Conversations(ids) => self.conversations(&mut lines, ids).await?,
            Stage::Messages(last) => self.messages(&mut lines, last).await?,
            Stage::Notifications(before) => self.notifications(&mut lines, before).await?,
            Stage::Events(after) => self.events(&mut lines, after).await?,
            Stage::End => {
                let total: u64 = self.counts.values().sum();
                lines.put("end", &json!({ "lines": total, "counts": self.counts }));
                Stage::Over
            }
            Stage::Over => return Ok(None),
        };
        for (kind, count) in lines.counts {
            *self.counts.entry(kind).or_insert(0) += count;
        }
        Ok(Some(lines.text))
    }

    async fn profile(
        &self,
        lines: &mut Lines,
        revoked_ms: Option<u64>,
    ) -> Result<Stage, StoreError> {
        let user = self.user;
        let (badge, preferences, presence) = self
            .store
            .look(move |transaction| {
                let badge = badge::count(transaction, user)?;
                let presence = presence::stored(transaction, user)?;
                Ok((
                    badge.to_json(),
                    preferences::of(transaction, user)?,
                    presence,
                ))
            })
            .await?;
        let badge: Value = serde_json::from_str(&badge).expect("an object of three numbers");
        let view = self.store.view(user);
        let profile = json!({
            "v": 1,
            "user": self.store.name(user),
            "time": rfc3339(self.store.now_ms()),
            "cursor": self.position.to_string(),
            "earliest": view.floor,
            "badge": badge,
            "revoked_before": revoked_ms.map(rfc3339),
        });
        lines.put("profile", &profile);
        lines.put("preferences", &json!({ "preferences": preferences }));
        if let Some(presence) = presence {
            lines.put("presence", &json!({ "presence": presence }));
        }
        Ok(Stage::Acks(None))
    }

    async fn acks(&self, lines: &mut Lines, after: Option<String>) -> Result<Stage, StoreError> {
        let user = self.user;
        let devices = self
            .store
            .look(move |transaction| ack::devices(transaction, user, after.as_deref(), PAGE_ROWS))
            .await?;
        for device in &devices {
            let acked = json!({
                "device": device.name,
                "cursor": device.acked.to_string(),
                "time": rfc3339(device.acked_ms),
            });
            lines.put("ack", &acked);
        }
        let last = devices.last().filter(|_| devices.len() == PAGE_ROWS);
        Ok(last.map_or(Stage::Subscriptions(None), |last| {
            Stage::Acks(Some(last.name.clone()))
        }))
    }

    async fn subscriptions(
        &self,
        lines: &mut Lines,
        after: Option<Topic>,
    ) -> Result<Stage, StoreError> {
        let user = self.user;
        let topics = self
            .store
            .aside(move |rows| topics::of(rows, user, after.as_ref(), PAGE_ROWS))
            .await?;
        for topic in &topics {
            lines.put("subscription", &json!({ "topic": topic }));
        }
        if let Some(last) = topics.last().filter(|_| topics.len() == PAGE_ROWS) {
            return Ok(Stage::Subscriptions(Some(last.clone())));
        }
        let ids = self
            .store
            .look(move |transaction| conversation::memberships(transaction, user))
            .await?;
        Ok(Stage::Conversations(ids))
    }

    async fn conversations(
        &self,
        lines: &mut Lines,
        mut ids: Vec<ConversationId>,
    ) -> Result<Stage, StoreError> {
        let user = self.user;
        let page: Vec<ConversationId> = ids.drain(..ids.len().min(PAGE_ROWS)).collect();
        if page.is_empty() {
            return Ok(Stage::Messages(None));
        }
        let told = self
            .store
            .look(move |transaction| conversation::export(transaction, user, &page))
            .await?;
        for membership in &told {
            lines.put("membership", membership);
        }
        Ok(Stage::Conversations(ids))
    }

    /// What the user wrote, also in conversations that it has left.
    async fn messages(
        &self,
        lines: &mut Lines,
        last: Option<(ConversationId, u64)>,
    ) -> Result<Stage, StoreError> {
        let user = self.user;
        let (told, last) = self
            .store
            .look(move |transaction| {
                let sender = transaction.name(user);
                let own = messages::own_behind(transaction, user, last.as_ref(), PAGE_MESSAGES)?;
                let mut told = Vec::with_capacity(own.len());
                for (conversation, n) in &own {
                    let message = messages::get(transaction, conversation, *n)?;
                    told.extend(
                        message.map(|message| told::message(conversation, &message, &sender, None)),
                    );
                }
                Ok((told, own.last().cloned()))
            })
            .await?;
        for message in told {
            let line = format!("{{\"kind\":\"message\",\"message\":{message}}}\n");
            lines.text.extend_from_slice(line.as_bytes());
            *lines.counts.entry("message").or_insert(0) += 1;
        }
        Ok(last.map_or(Stage::Notifications(None), |last| {
            Stage::Messages(Some(last))
        }))
    }

    /// The inbox, newest first.
    async fn notifications(
        &self,
        lines: &mut Lines,
        before: Option<EventId>,
    ) -> Result<Stage, StoreError> {
        let user = self.user;
        let ask = inbox::Ask {
            is_unread_only: false,
            before,
            limit: PAGE_ROWS,
        };
        let page = self
            .store
            .look(move |transaction| inbox::page(transaction, user, &ask))
            .await?;
        let first = Stage::Events(self.store.view(user).floor - 1);
        // Where the oldest one told is not there any more, the bound of the inbox took it and all before it.
        let Some(page) = page else {
            return Ok(first);
        };
        for notification in &page.notifications {
            lines.put("notification", &json!({ "notification": notification }));
        }
        let last = page.notifications.last().filter(|_| page.is_more);
        let last = last.and_then(|last| last["id"].as_str()?.parse().ok());
        Ok(last.map_or(first, |last| Stage::Notifications(Some(last))))
    }

    async fn events(&self, lines: &mut Lines, after: u64) -> Result<Stage, StoreError> {
        if after >= self.position.seq {
            return Ok(Stage::End);
        }
        let page = match self.store.read(self.user, after, PAGE_BOUNDS).await? {
            Read::AtTail => return Ok(Stage::End),
            Read::Gone { floor } => {
                lines.put("gap", &json!({ "from": after + 1, "to": floor - 1 }));
                return Ok(Stage::Events(floor - 1));
            }
            Read::Page(page) => page,
        };
        let mut last = after;
        for entry in page {
            last = entry.seq;
            if entry.seq > self.position.seq {
                break;
            }
            let position = Position {
                seq: entry.seq,
                ..self.position
            };
            let mut wire = BytesMut::new();
            Layout::Bare.event(&mut wire, position, &entry.event);
            lines
                .text
                .extend_from_slice(b"{\"kind\":\"event\",\"event\":");
            lines.text.extend_from_slice(&wire);
            lines.text.extend_from_slice(b"}\n");
            *lines.counts.entry("event").or_insert(0) += 1;
        }
        Ok(Stage::Events(last))
    }
}

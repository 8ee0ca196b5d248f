//! What is done with notifications: one is added, some are read; each time inbox, event and badge change together.
//!
//! Promises: a muted kind is stored as read and tells nobody; a burst is gathered, and is in the inbox all the same;
//! what was gathered is told before it can be read, so that events alone tell the whole story. A repeat with an
//! idempotency key adds nothing.

use serde_json::json;

use crate::event::{Event, EventId, UserId};
use crate::features::badge::Badges;
use crate::features::digest::Digests;
use crate::features::inbox::{self, Notification};
use crate::features::{news, preferences};
use crate::id::{Position, Random, UserNo};
use crate::publish::{self, PublishError, Receipt};
use crate::store::Store;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;

/// Ids that one request may mark as read.
pub const READ_IDS_MAX: usize = 1_000;

/// The notifications of one server.
#[derive(Clone)]
pub struct Notifications {
    pub inbox_max: u64,
    pub digests: Digests,
    pub badges: Badges,
    pub random: Random,
}

/// One notification for one user, with the event that tells of it.
#[derive(Debug, Clone)]
pub struct Notice {
    pub to: UserId,
    pub notification: Notification,
    pub event: Event,
    /// Hashes under which a repeat is recognised.
    pub keys: Vec<[u8; 16]>,
    pub fingerprint: [u8; 16],
}

/// What a user has read.
#[derive(Debug, Clone)]
pub enum Read {
    /// At most `READ_IDS_MAX`.
    These(Vec<EventId>),
    All,
}

impl Notifications {
    /// Puts the notification into the inbox, and tells of it unless it is muted or gathered.
    pub async fn notify(&self, store: &Store, notice: Notice) -> Result<Receipt, PublishError> {
        let notifications = self.clone();
        // The body is held twice: as the event and as the row.
        let bytes = notice.event.json().len() * 2;
        store
            .commit(bytes, move |transaction| {
                notifications.decide(transaction, notice)
            })
            .await
    }

    fn decide(
        &self,
        transaction: &mut Transaction<'_>,
        notice: Notice,
    ) -> Result<Receipt, PublishError> {
        let Notice {
            to,
            notification,
            event,
            keys,
            fingerprint,
        } = notice;
        if let Some(first) = publish::repeated(transaction, &keys, &fingerprint)? {
            return Ok(first);
        }
        let user = transaction.user(&to);
        let (id, kind) = (notification.id.clone(), notification.kind.clone());
        let (time_ms, now_ms) = (notification.time_ms, transaction.now_ms());
        let muted =
            preferences::of(transaction, user)?.mutes(&format!("notification.{}", kind.as_str()));
        let passes = !muted && self.digests.passes(user, &kind, now_ms);
        let number = inbox::add(transaction, user, notification, !muted, self.inbox_max)?;
        let mut position = None;
        if passes {
            let appended = transaction.append(event, vec![user]).recipients;
            let seq = appended.first().map(|recipient| recipient.seq);
            let epoch = transaction.view(user).epoch;
            position = seq.map(|seq| Position { epoch, seq });
        } else if !muted {
            self.digests.gather(transaction, user, &kind, number)?;
        }
        // Counted only after this command, in whatever order the two become due.
        self.badges.changed([user]);
        let receipt = Receipt {
            id,
            time_ms,
            recipients: 1,
            is_duplicate: false,
            position,
        };
        publish::remember(transaction, &keys, fingerprint, &receipt);
        Ok(receipt)
    }

    /// Marks notifications as read on every device of the user. Gives how many are unread now.
    pub async fn read(&self, store: &Store, user: UserNo, read: Read) -> Result<u64, StoreError> {
        let notifications = self.clone();
        let bytes = match &read {
            Read::These(ids) => ids.len() * 64,
            Read::All => 64,
        };
        store
            .commit(bytes, move |transaction| {
                notifications.decide_read(transaction, user, read)
            })
            .await
    }

    fn decide_read(
        &self,
        transaction: &mut Transaction<'_>,
        user: UserNo,
        read: Read,
    ) -> Result<u64, StoreError> {
        let unread = inbox::unread(transaction, user)?;
        let is_news = match &read {
            Read::These(ids) => inbox::is_any_unread(transaction, user, ids)?,
            Read::All => unread > 0,
        };
        if !is_news {
            return Ok(unread);
        }
        self.digests.tell_all(transaction, user, &self.random)?;
        let mut data = match read {
            Read::These(ids) => json!({ "ids": inbox::read_these(transaction, user, ids)? }),
            Read::All => json!({ "all": inbox::read_all(transaction, user)? }),
        };
        let unread = inbox::unread(transaction, user)?;
        data["unread"] = unread.into();
        let now_ms = transaction.now_ms();
        let event = news::event(&self.random, now_ms, "notification.read", None, &data);
        transaction.append(event, vec![user]);
        self.badges.changed([user]);
        Ok(unread)
    }
}

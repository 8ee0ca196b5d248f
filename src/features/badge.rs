//! The badge: how much a user has not seen, counted from the rows and told as a signal after every change.
//!
//! Promises: a badge always equals what the queries would count at some moment after the change; changes in a burst
//! share one badge, so a flood makes a bounded number of frames; nobody who is not connected costs a count. It keeps no
//! numbers of its own beside those that it counted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;
use crate::event::{Draft, Json, Signal};
use crate::features::{conversation, inbox};
use crate::id::{ByUser, Random, UserNo};
use crate::store::Store;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::wake::Wakes;

/// After one badge the next changes are gathered this long.
const GATHERED: Duration = Duration::from_millis(50);
/// Badges counted in one look, so that commits go on between.
const COUNTED_AT_ONCE: usize = 32;
/// Badges remembered; a full table is emptied.
const REMEMBERED_MAX: usize = 100_000;

/// Counts in 32 bits, which is more than anyone has unread: one is remembered for each open user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Badge {
    pub notifications: u32,
    pub messages: u32,
    pub conversations: u32,
}

/// The badges of one server.
#[derive(Clone, Default)]
pub struct Badges(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Users whose badge must be counted and told; written by `changed`, emptied by `tell_forever`.
    due: Mutex<BTreeSet<UserNo>>,
    notify: Notify,
    /// What was counted last, until the next change; written by `of`, made void by `changed`.
    counted: DashMap<UserNo, Counted, ByUser>,
    /// Gives each entry and each change a number of its own.
    stamps: AtomicU32,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    /// Changes with every change of the user: a count that was begun before one is not kept.
    stamp: u32,
    badge: Option<Badge>,
}

/// Counts the user's badge.
pub fn count(transaction: &Transaction<'_>, user: UserNo) -> Result<Badge, StoreError> {
    let unread = conversation::unread(transaction, user)?;
    let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(Badge {
        notifications: narrow(inbox::unread(transaction, user)?),
        messages: narrow(unread.messages),
        conversations: narrow(unread.conversations),
    })
}

impl Badge {
    /// The JSON object of `ready`, of `/v1/state` and of the signal.
    pub fn to_json(self) -> String {
        format!(
            r#"{{"notifications":{},"messages":{},"conversations":{}}}"#,
            self.notifications, self.messages, self.conversations
        )
    }
}

impl Badges {
    /// A commit changed what these users have not seen.
    pub fn changed(&self, users: impl IntoIterator<Item = UserNo>) {
        let users: Vec<UserNo> = users.into_iter().collect();
        for user in &users {
            if let Some(mut counted) = self.0.counted.get_mut(user) {
                *counted = self.uncounted();
            }
        }
        self.0.due.lock().extend(users);
        self.0.notify.notify_one();
    }

    /// The user's badge now.
    pub async fn of(&self, store: &Store, user: UserNo) -> Result<Badge, StoreError> {
        if self.0.counted.len() >= REMEMBERED_MAX {
            self.0.counted.clear();
        }
        let uncounted = || self.uncounted();
        let known = *self.0.counted.entry(user).or_insert_with(uncounted);
        if let Some(badge) = known.badge {
            return Ok(badge);
        }
        let badge = store
            .look(move |transaction| count(transaction, user))
            .await?;
        if let Some(mut counted) = self.0.counted.get_mut(&user)
            && counted.stamp == known.stamp
        {
            counted.badge = Some(badge);
        }
        Ok(badge)
    }

    fn uncounted(&self) -> Counted {
        Counted {
            stamp: self.0.stamps.fetch_add(1, Ordering::Relaxed),
            badge: None,
        }
    }

    /// Counts and tells the badges that changed, until `stop`.
    pub async fn tell_forever(
        self,
        store: Store,
        wakes: Wakes,
        random: Random,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.0.notify.notified() => {}
            }
            let due = std::mem::take(&mut *self.0.due.lock());
            let here: Vec<UserNo> = due
                .into_iter()
                .filter(|user| wakes.subscribers(*user) > 0)
                .collect();
            for some in here.chunks(COUNTED_AT_ONCE) {
                if let Err(error) = tell(&store, &wakes, &random, some.to_vec()).await {
                    tracing::warn!(%error, "badges could not be counted");
                }
            }
            // A burst of changes makes one badge, and the last change is always followed by one.
            drop(tokio::time::timeout(GATHERED, stop.cancelled()).await);
        }
    }
}

async fn tell(
    store: &Store,
    wakes: &Wakes,
    random: &Random,
    users: Vec<UserNo>,
) -> Result<(), StoreError> {
    let count_each = move |transaction: &mut Transaction<'_>| {
        let counted = users
            .into_iter()
            .map(|user| Ok((user, count(transaction, user)?)));
        counted.collect::<Result<Vec<(UserNo, Badge)>, StoreError>>()
    };
    let now_ms = store.now_ms();
    for (user, badge) in store.look(count_each).await? {
        wakes.signal(user, Arc::new(signal(random, now_ms, badge)));
    }
    Ok(())
}

fn signal(random: &Random, now_ms: UnixMs, badge: Badge) -> Signal {
    let data = Json::parse(&badge.to_json()).expect("an object of three numbers");
    let draft = Draft {
        id: random.uuid_v7(now_ms).parse().expect("a UUID is plain"),
        event_type: "badge".parse().expect("a valid type"),
        time_ms: now_ms,
        topic: None,
        actor: None,
        data,
        exclude_conn: None,
    };
    Signal::keyed(&draft, "badge=".to_owned(), None)
}

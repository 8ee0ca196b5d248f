//! Presence: who is here, told to those whose business it is. The rules are in `people`; here are the rows, the
//! audience, and the task that tells.
//!
//! Promises: what was set by hand is on stable storage before it is answered and survives a restart, as does the last
//! time; those who were here when the server stopped count as here until they had time to return. An audience is those
//! who share a conversation of at most `acquaintance::SPREAD_MEMBERS_MAX` members, and the subscribers of `presence:<user>`; nobody
//! else learns anything, not even whether a user exists.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, UnixMs, rfc3339};
use crate::deadlines::{Alarm, Ms};
use crate::event::{ConnId, UserId};
use crate::features::acquaintance::{self, Interest};
use crate::features::people::{Departure, Facts, People};
use crate::features::person::{Activity, Said, Shown, Status};
use crate::features::picture::{Pictured, Viewer};
use crate::features::preferences;
use crate::id::{Random, UserNo};
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::store::{Store, keys};
use crate::wake::Wakes;

/// What a user said by hand, and when it was last here.
const PRESENCE: u8 = b's';
/// Users who are here; without a name: when the server stopped.
const HERE: u8 = b'S';
/// Users told of when a reader connects, the most available first.
pub const PICTURE_MAX: usize = 500;
/// Users told of in one look, so that commits go on between.
const TOLD_AT_ONCE: usize = 32;

/// The presence of one server's users.
#[derive(Clone)]
pub struct Presence(Arc<Inner>);

struct Inner {
    /// Written by connections, requests and the task that tells; read by requests and by readers that connect.
    people: Mutex<People>,
    /// Those who must be told how others are, since they got to know them; written by `acquainted`, emptied by the task.
    curious: Mutex<BTreeSet<UserNo>>,
    alarm: Alarm,
    clock: Clock,
}

#[derive(Serialize, Deserialize)]
struct PresenceRow {
    #[serde(default)]
    status: Option<Status>,
    #[serde(default)]
    activity: Option<Activity>,
    seen_ms: UnixMs,
}

/// Takes the rows of a user away who is erased, about `rows_max` at a time; its memory goes with `Presence::forget`.
/// Tells whether any are left.
pub fn erase(
    transaction: &mut Transaction<'_>,
    user: UserNo,
    rows_max: usize,
) -> Result<bool, StoreError> {
    transaction.delete(user_key(PRESENCE, user));
    transaction.delete(user_key(HERE, user));
    acquaintance::erase(transaction, user, rows_max)
}

/// What is stored about the user, for an export.
pub fn stored(transaction: &Transaction<'_>, user: UserNo) -> Result<Option<Value>, StoreError> {
    let row = row(transaction, user)?;
    Ok(row.map(|row| {
        let seen = (row.seen_ms > 0).then(|| rfc3339(row.seen_ms));
        json!({ "status": row.status, "activity": row.activity, "last_seen": seen })
    }))
}

impl Presence {
    /// Takes up those who were here when the server stopped.
    pub async fn load(
        store: &Store,
        clock: &Clock,
        offline_after: Duration,
    ) -> Result<Presence, StoreError> {
        let offline_after = Ms::try_from(offline_after.as_millis()).unwrap_or(Ms::MAX / 2);
        let alarm = Alarm::default();
        let mut people = People::new(offline_after);
        let here = store.rows(HERE).await?;
        let stopped = here.iter().find(|(name, _)| name.is_empty());
        let stopped_ms = stopped
            .and_then(|(_, row)| row.as_slice().try_into().ok())
            .map_or(clock.now_ms(), UnixMs::from_be_bytes);
        for (name, _) in &here {
            if let Ok(number) = name.as_slice().try_into() {
                people.returning(UserNo(u32::from_be_bytes(number)), stopped_ms, alarm.now());
            }
        }
        if stopped.is_some() {
            let forget = |transaction: &mut Transaction<'_>| {
                transaction.delete(keys::state(HERE, b""));
                Ok::<(), StoreError>(())
            };
            store.commit_always(64, forget).await?;
        }
        Ok(Presence(Arc::new(Inner {
            people: Mutex::new(people),
            curious: Mutex::default(),
            alarm,
            clock: clock.clone(),
        })))
    }

    pub fn opened(&self, user: UserNo) {
        self.change(|people, now, _| people.opened(user, now));
    }

    /// Tells how many connections of the user are left.
    pub fn ended(&self, user: UserNo, conn: &ConnId, departure: Departure) -> u32 {
        self.change(|people, now, now_ms| people.ended(user, conn, departure, (now, now_ms)))
    }

    /// The server is stopping: nobody seems to leave any more.
    pub fn freeze(&self) {
        self.0.people.lock().freeze();
    }

    /// One connection says how its user is.
    pub fn say(&self, user: UserNo, conn: ConnId, said: Said) {
        self.change(|people, now, _| people.say(user, conn, said, now));
    }

    /// The user says how it is until it says otherwise. Durable when this returns.
    pub async fn say_by_hand(
        &self,
        store: &Store,
        user: UserNo,
        said: Said,
    ) -> Result<(), StoreError> {
        let presence = self.clone();
        let say = move |transaction: &mut Transaction<'_>| {
            // The request may be a moment behind the erasure of its user.
            if transaction.is_erased(user) {
                return Ok(());
            }
            let before = row(transaction, user)?;
            let was_offline = before
                .as_ref()
                .is_some_and(|row| row.status == Some(Status::Offline));
            let is_leaving = said.status == Some(Status::Offline) && !was_offline;
            let seen_ms = match is_leaving {
                true => transaction.now_ms(),
                false => before.map_or(0, |row| row.seen_ms),
            };
            let row = PresenceRow {
                status: said.status,
                activity: said.activity.clone(),
                seen_ms,
            };
            put_row(transaction, user, &row);
            // In the order of commits, so that of two at once memory keeps the one that the row keeps.
            presence.change(|people, now, now_ms| people.say_by_hand(user, said, (now, now_ms)));
            Ok(())
        };
        store.commit_always(256, say).await
    }

    /// The user chose whether others see it. Call it after the commit of that choice.
    pub fn choose(&self, user: UserNo, is_hidden: bool) {
        self.change(|people, now, _| people.choose(user, is_hidden, now));
    }

    /// These users share a conversation since a commit just now: they hear of one another.
    pub fn acquainted(&self, users: &[UserNo]) {
        self.0.curious.lock().extend(users);
        self.change(|people, now, _| people.acquainted(users, now));
        self.0.alarm.rouse();
    }

    /// `watcher` has subscribed to the presence of `watched`, which may not be a user yet: it hears how it is.
    pub fn watched(&self, watched: Option<UserNo>, watcher: UserNo) {
        self.0.curious.lock().insert(watcher);
        self.change(|people, now, _| {
            for user in watched.into_iter().chain([watcher]) {
                people.has_somebody(user, now);
            }
        });
        self.0.alarm.rouse();
    }

    pub fn forget(&self, user: UserNo) {
        self.change(|people, now, _| people.forget(user, now));
    }

    /// Whether the user has no one to hear of and no one who hears of it, as far as is known.
    pub fn is_plain(&self, user: UserNo) -> bool {
        self.0.people.lock().is_plain(user)
    }

    fn change<T>(&self, change: impl FnOnce(&mut People, Ms, UnixMs) -> T) -> T {
        let (now, now_ms) = (self.0.alarm.now(), self.0.clock.now_ms());
        let (result, is_nearer) = {
            let mut people = self.0.people.lock();
            let next = people.next_due();
            let result = change(&mut people, now, now_ms);
            let nearer = people.next_due();
            (result, nearer.is_some() && nearer != next)
        };
        if is_nearer {
            self.0.alarm.rouse();
        }
        result
    }

    /// How the user sees itself.
    pub fn own(&self, transaction: &Transaction<'_>, user: UserNo) -> Result<Pictured, StoreError> {
        self.load_missing(transaction, [user])?;
        let now = self.0.alarm.now();
        Ok(Pictured {
            user: transaction.name(user),
            shown: self.0.people.lock().seen_by_itself(user, now),
        })
    }

    /// Everyone whose presence is the user's business, the most available first, at most `PICTURE_MAX`; with the user
    /// itself where it said something by hand.
    pub fn picture(
        &self,
        transaction: &Transaction<'_>,
        user: UserNo,
    ) -> Result<Vec<Pictured>, StoreError> {
        let Interest { users, unknown } = acquaintance::interest(transaction, user)?;
        let peers = self.here_first(users);
        self.load_missing(transaction, peers.iter().copied().chain([user]))?;
        let now = self.0.alarm.now();
        let mut seen: Vec<(UserNo, Shown)> = {
            let people = self.0.people.lock();
            let own = people
                .has_said(user)
                .then(|| (user, people.seen_by_itself(user, now)));
            let others = peers
                .iter()
                .map(|peer| (*peer, people.seen_by_others(*peer, now)));
            own.into_iter().chain(others).collect()
        };
        seen.sort_by_key(|(user, shown)| (std::cmp::Reverse(shown.status), *user));
        let known = seen.into_iter().map(|(user, shown)| Pictured {
            user: transaction.name(user),
            shown,
        });
        let unknown = unknown.into_iter().map(|user| Pictured {
            user,
            shown: Shown::NOBODY,
        });
        Ok(known.chain(unknown).take(PICTURE_MAX).collect())
    }

    /// These users as `viewer` sees them; whom it may not see looks as one who does not exist.
    pub fn seen_by(
        &self,
        transaction: &Transaction<'_>,
        viewer: Viewer,
        names: Vec<UserId>,
    ) -> Result<Vec<Pictured>, StoreError> {
        let users: Vec<Option<UserNo>> = names
            .iter()
            .map(|name| transaction.find_user(name))
            .collect();
        self.load_missing(transaction, users.iter().flatten().copied())?;
        let peers: BTreeSet<UserNo> = match (viewer.user, viewer.sees_all) {
            (Some(user), false) => acquaintance::interest(transaction, user)?.users,
            _ => BTreeSet::new(),
        };
        let now = self.0.alarm.now();
        let people = self.0.people.lock();
        let shown = |user: Option<UserNo>| match user {
            Some(user) if viewer.user == Some(user) => people.seen_by_itself(user, now),
            Some(user) if viewer.sees_all || peers.contains(&user) => {
                people.seen_by_others(user, now)
            }
            _ => Shown::NOBODY,
        };
        let pictured = names.into_iter().zip(users);
        Ok(pictured
            .map(|(name, user)| Pictured {
                user: name,
                shown: shown(user),
            })
            .collect())
    }

    /// As many as a picture holds. Whoever is here is known, so that of the others no more rows are read than that.
    fn here_first(&self, users: BTreeSet<UserNo>) -> Vec<UserNo> {
        let now = self.0.alarm.now();
        let mut users: Vec<UserNo> = users.into_iter().collect();
        let people = self.0.people.lock();
        users.sort_by_key(|user| !people.is_here(*user, now));
        users.truncate(PICTURE_MAX);
        users
    }

    /// Reads the rows of those who are not known yet.
    fn load_missing(
        &self,
        transaction: &Transaction<'_>,
        users: impl IntoIterator<Item = UserNo>,
    ) -> Result<(), StoreError> {
        let missing: Vec<UserNo> = {
            let people = self.0.people.lock();
            let is_missing = |user: &UserNo| people.must_load(*user);
            users.into_iter().filter(is_missing).collect()
        };
        for user in missing {
            let facts = facts(transaction, user)?;
            self.change(|people, now, _| people.load(user, facts, now));
        }
        Ok(())
    }

    /// Tells what changed and notes who is here, until `stop`.
    pub async fn tell_forever(
        self,
        store: Store,
        wakes: Wakes,
        random: Random,
        stop: CancellationToken,
    ) {
        loop {
            let next = self.0.people.lock().next_due();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.0.alarm.wait(next) => {}
            }
            let now = self.0.alarm.now();
            let due = self.0.people.lock().take_due(now, TOLD_AT_ONCE);
            let curious = self.take_curious(&wakes);
            if due.is_empty() && curious.is_empty() {
                continue;
            }
            let told = self.settle(&store, &wakes, due, curious).await;
            let told = told.unwrap_or_else(|error| {
                tracing::warn!(%error, "presence could not be told");
                Vec::new()
            });
            for (pictured, audience) in told {
                let signal = Arc::new(pictured.signal(&random, store.now_ms()));
                for user in audience {
                    wakes.signal(user, Arc::clone(&signal));
                }
            }
        }
        if !self.0.people.lock().is_anyone_here() {
            return;
        }
        let stopped = |transaction: &mut Transaction<'_>| {
            let now_ms = transaction.now_ms().to_be_bytes().to_vec();
            transaction.put(keys::state(HERE, b""), now_ms);
            Ok::<(), StoreError>(())
        };
        if let Err(error) = store.commit_always(64, stopped).await {
            tracing::warn!(%error, "the time of the stop could not be noted");
        }
    }

    fn take_curious(&self, wakes: &Wakes) -> Vec<UserNo> {
        let curious = std::mem::take(&mut *self.0.curious.lock());
        let is_here = |user: &UserNo| wakes.subscribers(*user) > 0;
        curious.into_iter().filter(is_here).collect()
    }

    /// Settles what is due in one commit. Gives what must be told, and to whom.
    async fn settle(
        &self,
        store: &Store,
        wakes: &Wakes,
        due: Vec<UserNo>,
        curious: Vec<UserNo>,
    ) -> Result<Vec<(Pictured, Vec<UserNo>)>, StoreError> {
        let (presence, wakes) = (self.clone(), wakes.clone());
        let settle = move |transaction: &mut Transaction<'_>| {
            let mut told = Vec::new();
            for user in due {
                presence.settle_one(transaction, &wakes, user, &mut told)?;
            }
            for user in curious {
                let picture = presence.picture(transaction, user)?;
                told.extend(picture.into_iter().map(|seen| (seen, vec![user])));
            }
            Ok(told)
        };
        store.commit_always(1024, settle).await
    }

    fn settle_one(
        &self,
        transaction: &mut Transaction<'_>,
        wakes: &Wakes,
        user: UserNo,
        told: &mut Vec<(Pictured, Vec<UserNo>)>,
    ) -> Result<(), StoreError> {
        let acquaintances = self.0.people.lock().acquaintances();
        self.load_missing(transaction, [user])?;
        let name = transaction.name(user);
        let audience = acquaintance::audience(transaction, user, &name)?;
        let is_plain = audience.is_empty() && acquaintance::watches_nobody(transaction, user)?;
        let tell = self.change(|people, now, _| {
            if is_plain && !people.has_said(user) {
                people.has_nobody(user, acquaintances, now);
            }
            people.settle(user, now)
        });
        // The last connections of a user end after its erasure began.
        let is_kept = !transaction.is_erased(user);
        match tell.is_here {
            Some(true) if is_kept => transaction.put(user_key(HERE, user), Vec::new()),
            Some(_) => transaction.delete(user_key(HERE, user)),
            None => {}
        }
        if let Some(seen_ms) = tell.seen_ms.filter(|_| is_kept) {
            let row = row(transaction, user)?.unwrap_or(PresenceRow {
                status: None,
                activity: None,
                seen_ms,
            });
            put_row(transaction, user, &PresenceRow { seen_ms, ..row });
        }
        let of = |shown: Shown| Pictured {
            user: name.clone(),
            shown,
        };
        if let Some(shown) = tell.others {
            let here = audience.into_iter();
            let here = here.filter(|user| wakes.subscribers(*user) > 0);
            told.push((of(shown), here.collect()));
        }
        told.extend(tell.own.map(|shown| (of(shown), vec![user])));
        Ok(())
    }
}

fn facts(transaction: &Transaction<'_>, user: UserNo) -> Result<Facts, StoreError> {
    let is_hidden = !preferences::of(transaction, user)?.presence_visible;
    let row = row(transaction, user)?;
    Ok(row.map_or(
        Facts {
            is_hidden,
            ..Facts::default()
        },
        |row| Facts {
            by_hand: Said {
                status: row.status,
                activity: row.activity,
            },
            seen_ms: row.seen_ms,
            is_hidden,
        },
    ))
}

fn row(transaction: &Transaction<'_>, user: UserNo) -> Result<Option<PresenceRow>, StoreError> {
    let row = transaction.get(&user_key(PRESENCE, user))?;
    // A row of another shape counts as none.
    Ok(row.and_then(|row| serde_json::from_slice(&row).ok()))
}

fn put_row(transaction: &mut Transaction<'_>, user: UserNo, row: &PresenceRow) {
    let row = serde_json::to_vec(row).expect("words and a number");
    transaction.put(user_key(PRESENCE, user), row);
}

fn user_key(kind: u8, user: UserNo) -> Vec<u8> {
    keys::state(kind, &user.0.to_be_bytes())
}

//! Digests: of a burst of one kind to one user the first come as events, the following ones are gathered.
//!
//! Promises: a gathered notification is in the inbox and in a pending row before its ack; what is pending is told every
//! `notifications.digest_every_seconds`, also after a restart. It never gathers what was muted, and never decides what
//! is unread. The windows are memory only: after a restart a burst may begin anew.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;
use crate::features::inbox::{self, Kind};
use crate::features::news;
use crate::features::schedule::Schedule;
use crate::id::{Random, UserNo};
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::store::{Store, keys};

const GATHERED: u8 = b'g';
/// Windows kept; when there are more, those that have passed are dropped, and all if that does not make room: a burst
/// then begins anew.
const WINDOWS_MAX: usize = 100_000;
/// A digest names the newest so many, and so many who caused them.
const IDS_MAX: usize = 100;
const ACTORS_MAX: usize = 10;
/// A digest that could not be committed is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// Kinds of one user that are told in one commit.
const KINDS_AT_ONCE: usize = 1_000;

/// The bounds of `notifications.*` in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// So many of a kind within the window come as events.
    pub threshold: usize,
    pub window_ms: u64,
    pub every: Duration,
}

#[derive(Clone)]
pub struct Digests(Arc<Inner>);

struct Inner {
    rule: Rule,
    /// Written and read by the commands that notify, one at a time.
    windows: Mutex<HashMap<(UserNo, Kind), Window>>,
    schedule: Schedule<(UserNo, Kind)>,
}

/// When the last notifications of one kind came to one user, oldest first; no more of them than the threshold.
#[derive(Debug, Default)]
struct Window(VecDeque<UnixMs>);

/// What waits for the next digest.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct GatheredRow {
    /// Number of the first one in the inbox.
    first: u64,
    count: u64,
}

impl Window {
    /// Takes note of one more, and tells whether it comes as an event.
    fn passes(&mut self, rule: &Rule, now_ms: UnixMs) -> bool {
        let is_over = |then: &UnixMs| now_ms.saturating_sub(*then) >= rule.window_ms;
        while self.0.front().is_some_and(is_over) {
            self.0.pop_front();
        }
        let passes = self.0.len() < rule.threshold;
        if !passes {
            self.0.pop_front();
        }
        self.0.push_back(now_ms);
        passes
    }
}

impl Digests {
    pub fn new(rule: Rule) -> Digests {
        Digests(Arc::new(Inner {
            rule,
            windows: Mutex::default(),
            schedule: Schedule::default(),
        }))
    }

    /// Takes up what was pending when the server stopped.
    pub async fn load(rule: Rule, store: &Store) -> Result<Digests, StoreError> {
        let digests = Digests::new(rule);
        for (name, _) in store.rows(GATHERED).await? {
            if let Some(key) = parse_name(&name) {
                digests.0.schedule.add(key, Instant::now());
            }
        }
        Ok(digests)
    }

    /// Takes note of one more notification, and tells whether it comes as an event.
    pub fn passes(&self, user: UserNo, kind: &Kind, now_ms: UnixMs) -> bool {
        let rule = &self.0.rule;
        let mut windows = self.0.windows.lock();
        if windows.len() >= WINDOWS_MAX {
            let is_open = |window: &Window| {
                let newest = window.0.back().copied().unwrap_or(0);
                now_ms.saturating_sub(newest) < rule.window_ms
            };
            windows.retain(|_, window| is_open(window));
            if windows.len() >= WINDOWS_MAX {
                windows.clear();
            }
        }
        let window = windows.entry((user, kind.clone())).or_default();
        window.passes(rule, now_ms)
    }

    /// Puts the notification with this number into the next digest.
    pub fn gather(
        &self,
        transaction: &mut Transaction<'_>,
        user: UserNo,
        kind: &Kind,
        number: u64,
    ) -> Result<(), StoreError> {
        let key = key(user, kind);
        let gathered = gathered(transaction, &key)?.unwrap_or(GatheredRow {
            first: number,
            count: 0,
        });
        let row = GatheredRow {
            count: gathered.count + 1,
            ..gathered
        };
        let row = serde_json::to_vec(&row).expect("two numbers");
        transaction.put(key, row);
        let at = Instant::now() + self.0.rule.every;
        self.0.schedule.add((user, kind.clone()), at);
        Ok(())
    }

    /// Tells everything that is pending for the user.
    pub fn tell_all(
        &self,
        transaction: &mut Transaction<'_>,
        user: UserNo,
        random: &Random,
    ) -> Result<(), StoreError> {
        let (from, to) = range(user);
        for (key, _) in transaction.scan(&from, &to, KINDS_AT_ONCE)? {
            // Behind the kind byte of the row stand user and kind.
            if let Some((user, kind)) = key.get(2..).and_then(parse_name) {
                tell(transaction, user, &kind, random)?;
            }
        }
        Ok(())
    }

    /// Tells what falls due, until `stop`.
    pub async fn tell_forever(self, store: Store, random: Random, stop: CancellationToken) {
        loop {
            let due = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                due = self.0.schedule.take() => due,
            };
            let (keys, random) = (due.clone(), random.clone());
            let tell_each = move |transaction: &mut Transaction<'_>| {
                let mut each = keys.iter();
                each.try_for_each(|(user, kind)| tell(transaction, *user, kind, &random))
            };
            // It moves forward and is small, so a full disk does not keep it.
            if let Err(error) = store.commit_always(due.len() * 4_096, tell_each).await {
                tracing::warn!(%error, "digests of notifications could not be told");
                for key in due {
                    self.0.schedule.add(key, Instant::now() + RETRY);
                }
            }
        }
    }
}

/// Appends the digest of what is pending, and forgets that it was.
fn tell(
    transaction: &mut Transaction<'_>,
    user: UserNo,
    kind: &Kind,
    random: &Random,
) -> Result<(), StoreError> {
    let key = key(user, kind);
    let Some(gathered) = gathered(transaction, &key)? else {
        return Ok(());
    };
    transaction.delete(key);
    let newest = inbox::unread_of_kind(transaction, user, kind, gathered.first, IDS_MAX)?;
    let data = json!({
        "kind": kind.as_str(),
        "count": gathered.count,
        "ids": newest.iter().map(|data| &data["id"]).collect::<Vec<_>>(),
        "actors": actors(&newest),
        "unread": inbox::unread(transaction, user)?,
    });
    let now_ms = transaction.now_ms();
    let event = news::event(random, now_ms, "notification.digest", None, &data);
    transaction.append(event, vec![user]);
    Ok(())
}

/// Who caused them, each once, the latest first.
fn actors(newest: &[Value]) -> Vec<&Value> {
    let mut seen = BTreeSet::new();
    let actors = newest.iter().filter_map(|data| {
        let actor = data.get("actor")?;
        seen.insert(actor["id"].as_str()?).then_some(actor)
    });
    actors.take(ACTORS_MAX).collect()
}

/// Takes away what is pending for a user who is erased, at most `rows_max` kinds at a time. Tells whether any are left.
pub fn erase(
    transaction: &mut Transaction<'_>,
    user: UserNo,
    rows_max: usize,
) -> Result<bool, StoreError> {
    let (from, to) = range(user);
    Ok(transaction.delete_some(&from, &to, rows_max)? == rows_max)
}

fn gathered(transaction: &Transaction<'_>, key: &[u8]) -> Result<Option<GatheredRow>, StoreError> {
    let row = transaction.get(key)?;
    Ok(row.and_then(|row| serde_json::from_slice(&row).ok()))
}

fn key(user: UserNo, kind: &Kind) -> Vec<u8> {
    let (mut key, _) = range(user);
    key.extend_from_slice(kind.as_str().as_bytes());
    key
}

/// First key and end of what is pending for one user; a kind is ASCII.
fn range(user: UserNo) -> (Vec<u8>, Vec<u8>) {
    let from = keys::state(GATHERED, &user.0.to_be_bytes());
    let mut to = from.clone();
    to.push(0x80);
    (from, to)
}

fn parse_name(name: &[u8]) -> Option<(UserNo, Kind)> {
    let (user, kind) = name.split_first_chunk::<4>()?;
    let kind = std::str::from_utf8(kind).ok()?.parse().ok()?;
    Some((UserNo(u32::from_be_bytes(*user)), kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULE: Rule = Rule {
        threshold: 20,
        window_ms: 10_000,
        every: Duration::from_secs(5),
    };

    /// So many at each time, and how many of them come as events.
    #[track_caller]
    fn check(bursts: &[(UnixMs, usize, usize)]) {
        let mut window = Window::default();
        for &(now_ms, count, expected) in bursts {
            let passed = (0..count).filter(|_| window.passes(&RULE, now_ms)).count();
            assert_eq!(passed, expected, "{count} at {now_ms} of {bursts:?}");
        }
    }

    #[test]
    fn twenty_in_ten_seconds_pass_and_the_following_ones_are_gathered() {
        check(&[(0, 20, 20), (0, 1, 0)]);
        check(&[(0, 21, 20)]);
        check(&[(0, 1, 1), (9_999, 20, 19)]);
        // At ten seconds the first is outside.
        check(&[(0, 1, 1), (10_000, 20, 20)]);
        check(&[(0, 20, 20), (9_999, 1, 0), (10_000, 30, 19)]);
        // A flood that goes on is gathered until it has paused: what was gathered counts too.
        check(&[
            (0, 100, 20),
            (5_000, 100, 0),
            (10_000, 100, 0),
            (19_999, 1, 0),
            (20_000, 21, 19),
        ]);
        check(&[(0, 5_000, 20), (10_000, 21, 20)]);
        // Slow and steady is never gathered.
        let steady: Vec<(UnixMs, usize, usize)> = (0..200).map(|n| (n * 500, 1, 1)).collect();
        check(&steady);
    }

    proptest! {
        /// Against the plain rule: it passes when fewer than the threshold came within the window before it.
        #[test]
        fn a_window_is_the_plain_rule(steps in prop::collection::vec(0u64..2_000, 1..200)) {
            let mut window = Window::default();
            let (mut now_ms, mut came) = (0, Vec::new());
            for step in steps {
                now_ms += step;
                let before = came.iter().filter(|then| now_ms - **then < RULE.window_ms).count();
                prop_assert_eq!(window.passes(&RULE, now_ms), before < RULE.threshold);
                prop_assert!(window.0.len() <= RULE.threshold);
                came.push(now_ms);
            }
        }

        #[test]
        fn names_of_pending_rows_read_back(user: u32, kind in "[a-z0-9_-]{1,32}") {
            let kind: Kind = kind.parse().unwrap();
            let key = key(UserNo(user), &kind);
            let (from, to) = range(UserNo(user));
            prop_assert!(from < key && key < to);
            prop_assert_eq!(parse_name(&key[2..]), Some((UserNo(user), kind)));
        }
    }

    #[test]
    fn a_digest_names_each_actor_once_the_latest_first() {
        let by = |id: &str| json!({"id": "n", "actor": {"id": id}});
        let mut newest = vec![
            by("carol"),
            by("bob"),
            by("carol"),
            json!({"actor": null}),
            json!({}),
        ];
        newest.extend((0..20).map(|n| by(&format!("u{n}"))));
        let ids: Vec<&str> = actors(&newest)
            .iter()
            .map(|actor| actor["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids[..3], ["carol", "bob", "u0"]);
        assert_eq!(ids.len(), ACTORS_MAX);
    }
}

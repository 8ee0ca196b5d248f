//! What falls due when: one moment for each key, and the wait for the earliest of them.
//!
//! Promises: keys fall due in the order of their moments; a key without a moment costs nothing; while nothing is due
//! nobody wakes. The state machines that use it are given the time, so that a test passes its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Milliseconds since the server started, by a clock that only moves forward.
pub type Ms = u64;

/// The keys that will fall due, each with its moment.
#[derive(Debug)]
pub struct Deadlines<K> {
    by_key: BTreeMap<K, Ms>,
    by_time: BTreeSet<(Ms, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Deadlines<K> {
        Deadlines {
            by_key: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Deadlines<K> {
    /// Gives the key this moment instead of the one that it had; `None`: it does not fall due.
    pub fn set(&mut self, key: K, at: Option<Ms>) {
        let before = match at {
            Some(at) => self.by_key.insert(key.clone(), at),
            None => self.by_key.remove(&key),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            self.by_time.insert((at, key));
        }
    }

    /// Gives the key this moment unless it has an earlier one. Tells whether it is the earliest of all now.
    pub fn hasten(&mut self, key: K, at: Ms) -> bool {
        if self.by_key.get(&key).is_some_and(|known| *known <= at) {
            return false;
        }
        self.set(key, Some(at));
        self.next() == Some(at)
    }

    /// The earliest moment.
    pub fn next(&self) -> Option<Ms> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest key that is due.
    pub fn take(&mut self, now: Ms) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

/// Tells the time to one state machine and wakes the task that serves it.
#[derive(Debug)]
pub struct Alarm {
    start: Instant,
    /// The moment that was noted last; written by `note`, read by `noted`.
    noted: AtomicU64,
    roused: Notify,
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm {
            start: Instant::now(),
            noted: AtomicU64::new(0),
            roused: Notify::new(),
        }
    }
}

impl Alarm {
    pub fn now(&self) -> Ms {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The time now, and from now on what `noted` tells.
    pub fn note(&self) -> Ms {
        let now = self.now();
        self.noted.store(now, Ordering::Relaxed);
        now
    }

    /// The time when it was noted last: for those who ask so often that reading the clock costs more than an old time.
    pub fn noted(&self) -> Ms {
        self.noted.load(Ordering::Relaxed)
    }

    /// The first moment that is not before `instant`.
    pub fn at(&self, instant: Instant) -> Ms {
        let nanos = instant.saturating_duration_since(self.start).as_nanos();
        u64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// There may be an earlier moment than the one that is waited for.
    pub fn rouse(&self) {
        self.roused.notify_one();
    }

    /// Waits until `next` has come, or until someone rouses it.
    pub async fn wait(&self, next: Option<Ms>) {
        match next {
            Some(next) => {
                let until = self.start + Duration::from_millis(next);
                // Whichever came first: the deadlines are looked at again.
                drop(tokio::time::timeout_at(until, self.roused.notified()).await);
            }
            None => self.roused.notified().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain list.
        #[test]
        fn keys_fall_due_at_their_last_moment_in_order(
            steps in prop::collection::vec((0u8..6, prop::option::of(0u64..40)), 1..80),
        ) {
            let mut deadlines = Deadlines::default();
            let mut model: BTreeMap<u8, Ms> = BTreeMap::new();
            for (now, (key, at)) in steps.into_iter().enumerate() {
                let now = now as u64;
                deadlines.set(key, at);
                match at {
                    Some(at) => drop(model.insert(key, at)),
                    None => drop(model.remove(&key)),
                }
                prop_assert_eq!(deadlines.next(), model.values().min().copied());
                let first = model.iter().map(|(key, at)| (*at, *key)).min().filter(|(at, _)| *at <= now);
                prop_assert_eq!(deadlines.take(now), first.map(|(_, key)| key));
                if let Some((_, key)) = first {
                    model.remove(&key);
                }
                prop_assert_eq!(deadlines.by_key.len(), deadlines.by_time.len());
            }
        }
    }

    proptest! {
        /// Against the plain list of what was asked for.
        #[test]
        fn each_key_falls_due_once_at_its_earliest_moment(
            steps in prop::collection::vec((0u8..5, 0u64..50, any::<bool>()), 1..80),
        ) {
            let mut due = Deadlines::default();
            let mut model: BTreeMap<u8, Ms> = BTreeMap::new();
            let mut now = 0;
            for (key, ms, is_take) in steps {
                if is_take {
                    now += ms;
                    let mut expected: Vec<(Ms, u8)> =
                        model.iter().filter(|(_, at)| **at <= now).map(|(key, at)| (*at, *key)).collect();
                    expected.sort_unstable();
                    let keys: Vec<u8> = expected.into_iter().map(|(_, key)| key).collect();
                    let taken: Vec<u8> = std::iter::from_fn(|| due.take(now)).collect();
                    prop_assert_eq!(taken, keys.clone());
                    model.retain(|key, _| !keys.contains(key));
                } else {
                    let at = now + ms;
                    due.hasten(key, at);
                    model.entry(key).and_modify(|known| *known = at.min(*known)).or_insert(at);
                }
                prop_assert_eq!(due.by_key.len(), due.by_time.len());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_nearer_moment_wakes_who_waits_for_a_later_one() {
        let alarm = Alarm::default();
        let woken = async {
            alarm.wait(Some(60_000)).await;
            alarm.now()
        };
        let rousing = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            alarm.rouse();
        };
        let (woken, ()) = tokio::join!(woken, rousing);
        assert!(woken < 1_000, "it woke after {woken} ms");
        alarm.wait(Some(70_000)).await;
        assert!(alarm.now() >= 70_000);
    }
}

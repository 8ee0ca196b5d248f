//! What falls due when: the keys of gathered rows, each with the moment at which it is told.
//!
//! Promises: a key has one moment, the earliest that was asked for; whoever waits hears of a nearer moment at once. It
//! is memory only: the rows are what counts, and a key without a row is simply nothing to tell. There is an entry for
//! each row that waits, so the rate of publishing bounds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Keys taken at once, so that commits go on between.
const TAKEN_AT_ONCE: usize = 64;

pub struct Schedule<K>(Arc<Inner<K>>);

struct Inner<K> {
    /// Written by the commands that gather, emptied by the task that tells.
    due: Mutex<Due<K>>,
    notify: Notify,
}

/// The keys and their moments; the time is passed in.
#[derive(Debug)]
struct Due<K> {
    by_key: BTreeMap<K, Instant>,
    by_time: BTreeSet<(Instant, K)>,
}

impl<K> Clone for Schedule<K> {
    fn clone(&self) -> Schedule<K> {
        Schedule(Arc::clone(&self.0))
    }
}

impl<K> Default for Schedule<K> {
    fn default() -> Schedule<K> {
        let due = Due {
            by_key: BTreeMap::new(),
            by_time: BTreeSet::new(),
        };
        Schedule(Arc::new(Inner {
            due: Mutex::new(due),
            notify: Notify::new(),
        }))
    }
}

impl<K: Ord + Clone> Schedule<K> {
    pub fn add(&self, key: K, at: Instant) {
        if self.0.due.lock().add(key, at) {
            self.0.notify.notify_one();
        }
    }

    /// Waits until something is due and takes the earliest of it.
    pub async fn take(&self) -> Vec<K> {
        loop {
            let (taken, next) = {
                let mut due = self.0.due.lock();
                (due.take(Instant::now()), due.next())
            };
            if !taken.is_empty() {
                return taken;
            }
            let news = self.0.notify.notified();
            match next {
                // Either way the table is looked at again.
                Some(next) => drop(tokio::time::timeout_at(next, news).await),
                None => news.await,
            }
        }
    }
}

impl<K: Ord + Clone> Due<K> {
    /// Tells whether this is the earliest of all now.
    fn add(&mut self, key: K, at: Instant) -> bool {
        match self.by_key.get(&key) {
            Some(known) if *known <= at => return false,
            Some(known) => drop(self.by_time.remove(&(*known, key.clone()))),
            None => {}
        }
        self.by_key.insert(key.clone(), at);
        self.by_time.insert((at, key));
        self.next() == Some(at)
    }

    fn take(&mut self, now: Instant) -> Vec<K> {
        let mut taken = Vec::new();
        while taken.len() < TAKEN_AT_ONCE
            && self.next().is_some_and(|at| at <= now)
            && let Some((_, key)) = self.by_time.pop_first()
        {
            self.by_key.remove(&key);
            taken.push(key);
        }
        taken
    }

    fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        /// Against the plain list of what was asked for.
        #[test]
        fn each_key_falls_due_once_at_its_earliest_moment(
            steps in prop::collection::vec((0u8..5, 0u64..50, any::<bool>()), 1..80),
        ) {
            let start = Instant::now();
            let mut due = Due { by_key: BTreeMap::new(), by_time: BTreeSet::new() };
            let mut model: BTreeMap<u8, u64> = BTreeMap::new();
            let mut now_ms = 0;
            for (key, ms, is_take) in steps {
                if is_take {
                    now_ms += ms;
                    let mut expected: Vec<(u64, u8)> =
                        model.iter().filter(|(_, at)| **at <= now_ms).map(|(key, at)| (*at, *key)).collect();
                    expected.sort_unstable();
                    let keys: Vec<u8> = expected.into_iter().map(|(_, key)| key).collect();
                    prop_assert_eq!(due.take(start + Duration::from_millis(now_ms)), keys.clone());
                    model.retain(|key, _| !keys.contains(key));
                } else {
                    let at = now_ms + ms;
                    due.add(key, start + Duration::from_millis(at));
                    model.entry(key).and_modify(|known| *known = at.min(*known)).or_insert(at);
                }
                prop_assert_eq!(due.by_key.len(), due.by_time.len());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_nearer_moment_wakes_who_waits_for_a_later_one() {
        let schedule = Schedule::default();
        let start = Instant::now();
        schedule.add("late", start + Duration::from_secs(60));
        let taker = schedule.clone();
        let taken = tokio::spawn(async move { (taker.take().await, Instant::now()) });
        tokio::task::yield_now().await;
        schedule.add("soon", start + Duration::from_secs(1));
        let (taken, at) = taken.await.unwrap();
        assert_eq!(taken, ["soon"]);
        let early = Duration::from_secs(1)..Duration::from_secs(2);
        assert!(early.contains(&(at - start)));
    }
}

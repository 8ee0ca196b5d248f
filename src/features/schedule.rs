//! What falls due when: the keys of gathered rows, each with the moment at which it is told.
//!
//! Promises: a key has one moment, the earliest that was asked for; whoever waits hears of a nearer moment at once. It
//! is memory only: the rows are what counts, and a key without a row is simply nothing to tell. There is an entry for
//! each row that waits, so the rate of publishing bounds it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::deadlines::{Alarm, Deadlines};

/// Keys taken at once, so that commits go on between.
const TAKEN_AT_ONCE: usize = 64;

pub struct Schedule<K>(Arc<Inner<K>>);

struct Inner<K> {
    /// Written by the commands that gather, emptied by the task that tells.
    due: Mutex<Deadlines<K>>,
    alarm: Alarm,
}

impl<K> Clone for Schedule<K> {
    fn clone(&self) -> Schedule<K> {
        Schedule(Arc::clone(&self.0))
    }
}

impl<K> Default for Schedule<K> {
    fn default() -> Schedule<K> {
        Schedule(Arc::new(Inner {
            due: Mutex::default(),
            alarm: Alarm::default(),
        }))
    }
}

impl<K: Ord + Clone> Schedule<K> {
    pub fn add(&self, key: K, at: Instant) {
        let at = self.0.alarm.at(at);
        if self.0.due.lock().hasten(key, at) {
            self.0.alarm.rouse();
        }
    }

    /// Waits until something is due and takes the earliest of it.
    pub async fn take(&self) -> Vec<K> {
        loop {
            let now = self.0.alarm.now();
            let (taken, next) = {
                let mut due = self.0.due.lock();
                let keys = std::iter::from_fn(|| due.take(now));
                let taken: Vec<K> = keys.take(TAKEN_AT_ONCE).collect();
                (taken, due.next())
            };
            if !taken.is_empty() {
                return taken;
            }
            self.0.alarm.wait(next).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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

//! Per user with open connections: the wake that moves waiting cursors, and the signals of the moment.
//!
//! Promises: a wake carries no data, may merge with others or repeat, and is never lost by a subscriber that
//! listened before it looked. Of the signals with one key only the latest is kept, and no longer than until everyone who
//! was connected has taken it. It never knows what was committed: the log says that.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use dashmap::DashMap;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Sleep;

use crate::clock::UnixMs;
use crate::event::Signal;
use crate::id::{ByUser, UserNo};

/// Keys of signals kept for one user; past that the oldest goes.
const SIGNALS_MAX: usize = 256;

/// All users with open connections.
#[derive(Clone, Default)]
pub struct Wakes(Arc<DashMap<UserNo, Arc<Wake>, ByUser>>);

/// What the connections of one user share.
#[derive(Default)]
pub struct Wake {
    notify: Notify,
    /// Counts wakes, so that one which came before a cursor listened is noticed; written by whoever wakes.
    wakes: AtomicU64,
    /// Open connections; written by `subscribe` and by the drop of a `Subscriber`.
    subscribers: AtomicU32,
    /// Counts signals; a cursor remembers the count up to which it has seen them. Written under the lock of `signals`.
    newest_signal: AtomicU64,
    /// Written by `signal`, read by the user's cursors. `None` until there is a signal: most users never get one.
    signals: Mutex<Option<Box<Signals>>>,
}

#[derive(Default)]
struct Signals {
    by_key: BTreeMap<String, Kept>,
}

/// A signal that somebody has not taken yet.
struct Kept {
    number: u64,
    /// Subscribers that were there when it came and have not taken it. One that left without taking it is counted for
    /// as long as the signal lives, which `SIGNALS_MAX` bounds.
    left: u32,
    signal: Arc<Signal>,
}

/// One open connection's hold on its user's wake.
pub struct Subscriber {
    wake: Arc<Wake>,
    user: UserNo,
    wakes: Wakes,
}

pin_project! {
    /// A subscriber's wait for a wake that it has not seen.
    pub struct Waiting<'a> {
        #[pin]
        listening: Notified<'a>,
        subscriber: &'a Subscriber,
        seen: &'a mut u64,
        timer: Option<Pin<&'a mut Sleep>>,
    }
}

impl Wakes {
    /// From now on wakes and signals of the user reach the subscriber.
    pub fn subscribe(&self, user: UserNo) -> Subscriber {
        let entry = self.0.entry(user).or_default();
        entry.subscribers.fetch_add(1, Ordering::Relaxed);
        Subscriber {
            wake: Arc::clone(&entry),
            user,
            wakes: self.clone(),
        }
    }

    /// Moves every cursor that waits on the user's log.
    pub fn wake(&self, user: UserNo) {
        if let Some(wake) = self.0.get(&user) {
            wake.wake();
        }
    }

    /// Moves every cursor there is, as a drain does.
    pub fn wake_all(&self) {
        let all: Vec<Arc<Wake>> = self
            .0
            .iter()
            .map(|entry| Arc::clone(entry.value()))
            .collect();
        for wake in all {
            wake.wake();
        }
    }

    /// Gives a signal to the user's open connections; where there is none it is gone. Tells whether there was one.
    pub fn signal(&self, user: UserNo, signal: Arc<Signal>) -> bool {
        let Some(wake) = self.find(user) else {
            return false;
        };
        wake.put(signal);
        wake.wake();
        true
    }

    /// Open connections of the user.
    pub fn subscribers(&self, user: UserNo) -> u32 {
        self.find(user)
            .map_or(0, |wake| wake.subscribers.load(Ordering::Relaxed))
    }

    fn find(&self, user: UserNo) -> Option<Arc<Wake>> {
        self.0.get(&user).map(|entry| Arc::clone(entry.value()))
    }
}

impl Wake {
    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.notify.notify_waiters();
    }

    fn put(&self, signal: Arc<Signal>) {
        let left = self.subscribers.load(Ordering::Relaxed);
        let mut signals = self.signals.lock();
        let number = self.newest_signal.load(Ordering::Relaxed) + 1;
        signals.get_or_insert_default().put(Kept {
            number,
            left,
            signal,
        });
        self.newest_signal.store(number, Ordering::Release);
    }
}

impl Signals {
    fn put(&mut self, kept: Kept) {
        self.by_key.insert(kept.signal.key.clone(), kept);
        if self.by_key.len() > SIGNALS_MAX {
            let oldest = self.by_key.iter().min_by_key(|(_, kept)| kept.number);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.by_key.remove(&key);
            }
        }
    }
}

impl Subscriber {
    pub fn user(&self) -> UserNo {
        self.user
    }

    /// Waits for a wake beyond those that were `seen`: true once there is one, false when the timer ends before.
    pub fn wait<'a>(&'a self, seen: &'a mut u64, timer: Option<Pin<&'a mut Sleep>>) -> Waiting<'a> {
        Waiting {
            listening: self.wake.notify.notified(),
            subscriber: self,
            seen,
            timer,
        }
    }

    /// How often the user was woken.
    pub fn wakes(&self) -> u64 {
        self.wake.wakes.load(Ordering::SeqCst)
    }

    /// The count up to which a new connection has nothing to hear of.
    pub fn newest_signal(&self) -> u64 {
        self.wake.newest_signal.load(Ordering::Acquire)
    }

    /// Signals after `seen` that have not expired, oldest first; `seen` moves to the newest.
    pub fn signals_after(&self, seen: &mut u64, now_ms: UnixMs) -> SmallVec<[Arc<Signal>; 2]> {
        let mut signals = self.wake.signals.lock();
        let is_live = |signal: &Signal| {
            signal
                .expires_ms
                .is_none_or(|expires_ms| expires_ms > now_ms)
        };
        let mut fresh: SmallVec<[(u64, Arc<Signal>); 2]> = SmallVec::new();
        signals.get_or_insert_default().by_key.retain(|_, kept| {
            if !is_live(&kept.signal) {
                return false;
            }
            if kept.number > *seen {
                fresh.push((kept.number, Arc::clone(&kept.signal)));
                kept.left = kept.left.saturating_sub(1);
            }
            kept.left > 0
        });
        *seen = self.newest_signal();
        drop(signals);
        fresh.sort_unstable_by_key(|(number, _)| *number);
        fresh.into_iter().map(|(_, signal)| signal).collect()
    }
}

impl Future for Waiting<'_> {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let waiting = self.project();
        // It listens before it compares: a wake between the last look and here has moved the count, a later one is heard.
        let is_heard = waiting.listening.poll(context).is_ready();
        let wakes = waiting.subscriber.wakes();
        if is_heard || wakes != **waiting.seen {
            // Before the look that follows: a wake during it moves the count again.
            **waiting.seen = wakes;
            return Poll::Ready(true);
        }
        match waiting.timer {
            Some(timer) => timer.as_mut().poll(context).map(|()| false),
            None => Poll::Pending,
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.wake.subscribers.fetch_sub(1, Ordering::Relaxed);
        let is_unused = |wake: &Arc<Wake>| wake.subscribers.load(Ordering::Relaxed) == 0;
        self.wakes
            .0
            .remove_if(&self.user, |_, wake| is_unused(wake));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Draft, Json};

    fn signal(data: u64, ttl_ms: Option<u64>) -> Arc<Signal> {
        let draft = Draft {
            id: "s".parse().unwrap(),
            event_type: "typing.start".parse().unwrap(),
            time_ms: 1_000,
            topic: None,
            actor: None,
            data: Json::of(&data.into()),
            exclude_conn: None,
        };
        Arc::new(Signal::of(&draft, None, ttl_ms))
    }

    #[test]
    fn a_slow_reader_gets_only_the_latest_of_each_key() {
        let wakes = Wakes::default();
        assert!(
            !wakes.signal(UserNo(1), signal(0, None)),
            "nobody was there to hear it"
        );
        let subscriber = wakes.subscribe(UserNo(1));
        let mut seen = subscriber.newest_signal();
        wakes.signal(UserNo(1), signal(1, None));
        wakes.signal(UserNo(1), signal(2, None));
        let heard = subscriber.signals_after(&mut seen, 1_000);
        assert_eq!(heard.as_slice(), [signal(2, None)]);
        assert!(subscriber.signals_after(&mut seen, 1_000).is_empty());
    }

    #[test]
    fn an_expired_signal_is_not_told() {
        let wakes = Wakes::default();
        let subscriber = wakes.subscribe(UserNo(1));
        let mut seen = 0;
        wakes.signal(UserNo(1), signal(1, Some(50)));
        assert!(subscriber.signals_after(&mut seen, 1_050).is_empty());
    }

    #[test]
    fn what_everyone_has_taken_is_kept_no_longer() {
        let wakes = Wakes::default();
        let (first, second) = (wakes.subscribe(UserNo(1)), wakes.subscribe(UserNo(1)));
        let (mut first_seen, mut second_seen) = (0, 0);
        wakes.signal(UserNo(1), signal(1, None));
        assert_eq!(first.signals_after(&mut first_seen, 1_000).len(), 1);
        assert_eq!(
            second.wake.signals.lock().as_ref().unwrap().by_key.len(),
            1,
            "one has not"
        );
        let late = wakes.subscribe(UserNo(1));
        let mut late_seen = late.newest_signal();
        assert!(late.signals_after(&mut late_seen, 1_000).is_empty());
        assert_eq!(second.signals_after(&mut second_seen, 1_000).len(), 1);
        assert!(
            second
                .wake
                .signals
                .lock()
                .as_ref()
                .unwrap()
                .by_key
                .is_empty()
        );
    }

    #[test]
    fn the_last_subscriber_takes_the_entry_along() {
        let wakes = Wakes::default();
        let first = wakes.subscribe(UserNo(1));
        let second = wakes.subscribe(UserNo(1));
        drop(first);
        assert_eq!(wakes.subscribers(UserNo(1)), 1);
        drop(second);
        assert!(wakes.0.is_empty());
    }
}

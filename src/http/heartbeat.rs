//! When open streams are to be woken although nothing happens: one clock and one timer for all of them.
//!
//! Promises: who asked for a moment is woken at it or a beat later, once; asking costs four bytes until then, and a beat
//! looks only at those whose moment has come. A stream that ended meanwhile costs its user a needless wake at most.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::deadlines::{Alarm, Ms};
use crate::id::UserNo;
use crate::wake::Wakes;

/// How often it beats: a share of the time between two pings, within these bounds.
const BEATS_PER_PING: u32 = 20;
const BEAT_MIN: Duration = Duration::from_millis(10);
const BEAT_MAX: Duration = Duration::from_secs(1);

pub struct Heartbeat {
    clock: Alarm,
    /// Milliseconds from beat to beat.
    every: Ms,
    /// Whom each beat that is to come wakes, by its number. Written by streams that begin to wait and by `beat_forever`.
    due: Mutex<BTreeMap<Ms, Vec<UserNo>>>,
}

impl Heartbeat {
    pub fn new(ping_every: Duration) -> Heartbeat {
        let every = (ping_every / BEATS_PER_PING).clamp(BEAT_MIN, BEAT_MAX);
        Heartbeat {
            clock: Alarm::default(),
            every: u64::try_from(every.as_millis()).unwrap_or(u64::MAX),
            due: Mutex::default(),
        }
    }

    /// The time as of the last beat.
    pub fn now(&self) -> Ms {
        self.clock.noted()
    }

    /// The user's streams are to be woken at this moment. It cannot be taken back.
    pub fn expect(&self, user: UserNo, at: Ms) {
        let beat = at.div_ceil(self.every);
        self.due.lock().entry(beat).or_default().push(user);
    }

    /// Wakes whom it was asked to wake, each in its time, until `stop`.
    pub async fn beat_forever(&self, wakes: &Wakes, stop: CancellationToken) {
        loop {
            let next = (self.now() / self.every + 1) * self.every;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.clock.wait(Some(next)) => {}
            }
            // The time first: whom a wake reaches sees that its moment has come.
            let now = self.clock.note();
            while let Some(users) = self.take(now) {
                users.into_iter().for_each(|user| wakes.wake(user));
            }
        }
    }

    /// Whom a beat that is due wakes.
    fn take(&self, now: Ms) -> Option<Vec<UserNo>> {
        let mut due = self.due.lock();
        let first = due.first_entry()?;
        (*first.key() <= now / self.every).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn heartbeat() -> Heartbeat {
        Heartbeat::new(Duration::from_secs(1))
    }

    #[test]
    fn each_falls_due_once_and_with_the_first_beat_that_is_not_before_its_moment() {
        let heart = heartbeat();
        for (user, at) in [(1, 100), (2, 101), (3, 150), (4, 0)] {
            heart.expect(UserNo(user), at);
        }
        assert_eq!(heart.take(49), Some(vec![UserNo(4)]));
        assert_eq!(heart.take(99), None);
        assert_eq!(heart.take(149), Some(vec![UserNo(1)]));
        assert_eq!(heart.take(149), None);
        assert_eq!(heart.take(10_000), Some(vec![UserNo(2), UserNo(3)]));
        assert_eq!(heart.take(u64::MAX), None);
        assert!(heart.due.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_at_its_moment_or_a_beat_later() {
        let (heart, wakes, stop) = (
            Arc::new(heartbeat()),
            Wakes::default(),
            CancellationToken::new(),
        );
        let subscriber = wakes.subscribe(UserNo(7));
        heart.expect(UserNo(7), 420);
        let beating = tokio::spawn({
            let (heart, wakes, stop) = (Arc::clone(&heart), wakes.clone(), stop.clone());
            async move { heart.beat_forever(&wakes, stop).await }
        });
        let mut seen = 0;
        assert!(subscriber.wait(&mut seen, None).await);
        assert_eq!((heart.now(), seen), (450, 1));
        stop.cancel();
        beating.await.unwrap();
    }
}

//! The committer's rounds: which logs have something to trim that no new event points at.
//!
//! Promises: every log is looked at once a round, a few at a time, and nothing is changed. A round takes a small part of
//! the time for which events are kept, so that what is due by age is found soon after it is.

use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::UnixMs;
use crate::id::UserNo;
use crate::store::logs::{Head, Logs};
use crate::store::upkeep::Retention;

/// Logs are looked at this often, a few at a time: with each group, they would push out of the processor's caches what the
/// group needs, and a processor that rests is slow to wake.
const LOOK_EVERY: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(1);
/// Logs of one look. Their heads are cold memory, so nobody hurries: a round takes a 256th of the time for which events are
/// kept, and seven minutes where that is longer; those of a million logs take no less.
const LOGS: RangeInclusive<u32> = 10..=256;
const ROUNDS_PER_AGE: u64 = 256;
const ROUND_MAX: Duration = Duration::from_secs(400);

/// How far the round is.
#[derive(Debug, Default)]
pub struct Rounds {
    last: u32,
    looked: Option<Instant>,
}

impl Rounds {
    /// Of the next few logs, those that are due by age or size; on an idle server also those that have less to trim than
    /// is worth a step under load.
    pub fn look(
        &mut self,
        logs: &Logs,
        retention: &Retention,
        now_ms: UnixMs,
        is_idle: bool,
    ) -> Vec<UserNo> {
        let count = logs.count();
        let (every, logs_of_a_look) = looks(count, retention.age_ms);
        if self.looked.is_some_and(|looked| looked.elapsed() < every) {
            return Vec::new();
        }
        self.looked = Some(Instant::now());
        let next = (0..logs_of_a_look).map(|_| {
            self.last = (self.last + 1) % count;
            UserNo(self.last)
        });
        let is_due = |head: &Head| {
            let Retention { age_ms, bytes, .. } = *retention;
            let is_old =
                age_ms > 0 && head.oldest_ms > 0 && head.oldest_ms.saturating_add(age_ms) <= now_ms;
            let is_left_over = is_idle && head.kept_from < head.floor;
            let is_large = bytes > 0 && head.bytes > bytes;
            head.kept_from <= head.tail && (is_old || is_left_over || is_large)
        };
        next.filter(|user| logs.read(*user, is_due)).collect()
    }
}

/// How often logs are looked at where there are `count`, and how many of them each time.
pub fn looks(count: u32, age_ms: u64) -> (Duration, u32) {
    let round = match age_ms {
        0 => ROUND_MAX,
        age_ms => Duration::from_millis(age_ms / ROUNDS_PER_AGE).min(ROUND_MAX),
    };
    let most = round * *LOGS.end() / count.max(1);
    let every = most.clamp(*LOOK_EVERY.start(), *LOOK_EVERY.end());
    let share = every.as_secs_f64() / round.as_secs_f64().max(f64::MIN_POSITIVE);
    let logs = (f64::from(count) * share).ceil() as u32;
    (every, count.min(logs.clamp(*LOGS.start(), *LOGS.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn a_round_is_short_where_events_are_kept_for_a_short_time() {
        let looks = |count, age_ms| {
            let (every, logs) = looks(count, age_ms);
            (every.as_millis(), logs)
        };
        assert_eq!(looks(19_000, 30 * DAY_MS), (1_000, 48));
        assert_eq!(looks(1_000_000, 30 * DAY_MS), (102, 256));
        assert_eq!(looks(100_000_000, 30 * DAY_MS), (100, 256));
        assert_eq!(looks(19_000, 0), (1_000, 48));
        assert_eq!(looks(100, 2_000), (100, 100));
        assert_eq!(looks(19_000, 2_000), (100, 256));
        assert_eq!(looks(19_000, 1), (100, 256));
        assert_eq!((looks(0, 0), looks(3, DAY_MS)), ((1_000, 0), (1_000, 3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_comes_to_every_log_that_is_due() {
        let logs = Logs::new(1, 0);
        let users = 0..50;
        for user in users.clone() {
            let mut head = Head::new(format!("user-{user}").parse().unwrap());
            head.tail = 1;
            head.oldest_ms = if user % 3 == 0 { 1 } else { 9_000 };
            logs.add(UserNo(user), head);
        }
        let retention = Retention {
            age_ms: 5_000,
            ..Retention::default()
        };
        let (mut rounds, mut found) = (Rounds::default(), Vec::new());
        let (every, logs_of_a_look) = looks(50, retention.age_ms);
        for _ in 0..50_u32.div_ceil(logs_of_a_look) {
            found.extend(rounds.look(&logs, &retention, 10_000, false));
            assert!(rounds.look(&logs, &retention, 10_000, false).is_empty());
            tokio::time::advance(every).await;
        }
        found.sort_unstable();
        found.dedup();
        let due: Vec<UserNo> = users.filter(|user| user % 3 == 0).map(UserNo).collect();
        assert_eq!(found, due);
    }
}

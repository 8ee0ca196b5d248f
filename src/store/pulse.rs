//! Whether the committer gets on: a disk, or an engine, that hangs must not leave a server that says it is well.
//!
//! Promises: a step that does not end within `STUCK_CHECKS` checks makes the store fail, so that the server ends and can
//! be started again; a process that was stopped and goes on, or a machine that slept, is not taken for one that hangs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::store::shared::Shared;

/// The time between two looks.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Looks in a row that find the same step under way: a minute, longer than any disk that is merely slow.
const STUCK_CHECKS: u32 = 12;

/// Counts steps; odd while one is under way. Written by the committer, read by the watch.
#[derive(Debug, Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    pub fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The step that is under way.
    fn step(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|step| step % 2 == 1)
    }
}

/// What looks at one pulse have found.
#[derive(Debug, Default)]
pub struct Watch {
    step: Option<u64>,
    checks: u32,
}

impl Watch {
    /// Looks once more. Tells whether the pulse stands still.
    pub fn is_stuck(&mut self, pulse: &Pulse) -> bool {
        let step = pulse.step();
        self.checks = match step.is_some() && step == self.step {
            true => self.checks + 1,
            false => 0,
        };
        self.step = step;
        self.checks >= STUCK_CHECKS
    }
}

/// Lets the store fail when one of its pulses stands still, until `stop`.
pub async fn watch(shared: &Shared, stop: CancellationToken) {
    let mut watches = [Watch::default(), Watch::default()];
    while timeout(CHECK_EVERY, stop.cancelled()).await.is_err() {
        let pulses = [&shared.at_work, &shared.in_sync];
        let mut looks = watches.iter_mut().zip(pulses);
        if looks.any(|(watch, pulse)| watch.is_stuck(pulse)) {
            tracing::error!("the data directory has not answered for a minute");
            shared.failed.send_replace(true);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_and_the_same_step_for_long_is_stuck() {
        let (pulse, mut watch) = (Pulse::default(), Watch::default());
        for _ in 0..2 * STUCK_CHECKS {
            assert!(!watch.is_stuck(&pulse), "nothing is under way");
        }
        for _ in 0..2 * STUCK_CHECKS {
            pulse.begin();
            assert!(!watch.is_stuck(&pulse), "another step each time");
            pulse.end();
        }
        pulse.begin();
        let found = (0..=STUCK_CHECKS).find(|_| watch.is_stuck(&pulse));
        assert_eq!(
            found,
            Some(STUCK_CHECKS),
            "the first look only sees it begin"
        );
        pulse.end();
        assert!(!watch.is_stuck(&pulse));
    }
}

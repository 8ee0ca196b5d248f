//! When each request of a plan is due. Open loop: the plan does not wait for a slow server, so that the time that
//! requests wait to be sent counts as latency (no coordinated omission).
//!
//! Promises: due times depend on the plan alone. Saturated is the one closed loop, and its latencies say nothing.

use std::time::Duration;

use anyhow::{Result, ensure};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The next as soon as a publisher is free.
    Saturated,
    /// Requests a second, evenly.
    Rate(f64),
    /// So many at once, so often a second, but never before all of the last ones are delivered: on a machine too
    /// slow for the rate they would mingle, and another thing would be measured. Waiting counts as latency.
    Bursts { size: u64, per_second: f64 },
}

/// What a drive waits for before it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Nothing: requests are still on their way.
    Nothing,
    Answers,
    Deliveries,
}

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub pace: Pace,
    pub requests: u64,
    pub seconds_max: f64,
    pub awaited: Awaited,
}

impl Plan {
    /// At a rate for a time, until all is delivered.
    pub fn at(rate: f64, seconds: f64) -> Plan {
        Plan {
            pace: Pace::Rate(rate),
            requests: (rate * seconds).ceil() as u64,
            // An open loop has as many requests as it has; only a broken server makes it take longer.
            seconds_max: seconds * 4.0 + 30.0,
            awaited: Awaited::Deliveries,
        }
    }

    pub fn bursts(size: u64, per_second: f64, seconds: f64) -> Plan {
        Plan {
            pace: Pace::Bursts { size, per_second },
            requests: (per_second * seconds).ceil() as u64 * size,
            // They wait for one another: on a slow machine it takes long, and ends with fewer.
            seconds_max: seconds * 10.0 + 30.0,
            awaited: Awaited::Deliveries,
        }
    }

    /// As fast as it goes, for a time.
    pub fn saturated(seconds: f64) -> Plan {
        Plan {
            pace: Pace::Saturated,
            requests: u64::MAX,
            seconds_max: seconds,
            awaited: Awaited::Deliveries,
        }
    }

    /// A known number of requests, as fast as it goes.
    pub fn all(requests: u64, awaited: Awaited) -> Plan {
        Plan {
            pace: Pace::Saturated,
            requests,
            seconds_max: 300.0,
            awaited,
        }
    }

    /// Whether request `k` may only follow when nothing is on its way.
    pub fn is_alone(&self, k: u64) -> bool {
        matches!(self.pace, Pace::Bursts { size, .. } if k.is_multiple_of(size))
    }

    /// A plan that was not carried out has shown nothing.
    pub fn check_sent(&self, sent: u64) -> Result<()> {
        let is_bounded_by_time =
            self.requests == u64::MAX || matches!(self.pace, Pace::Bursts { .. });
        ensure!(
            is_bounded_by_time && sent > 0 || sent == self.requests,
            "{sent} of {} requests could be sent in {} s: the server is too slow for this rate",
            self.requests,
            self.seconds_max
        );
        Ok(())
    }

    /// When request `k` is due after the start. None: whenever a publisher is free.
    pub fn due(&self, k: u64) -> Option<Duration> {
        match self.pace {
            Pace::Saturated => None,
            Pace::Rate(rate) => Some(Duration::from_secs_f64(k as f64 / rate)),
            Pace::Bursts { size, per_second } => {
                Some(Duration::from_secs_f64((k / size) as f64 / per_second))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_are_those_of_the_plan() {
        let plan = Plan::at(200.0, 2.5);
        assert_eq!(plan.requests, 500);
        assert_eq!(plan.due(0), Some(Duration::ZERO));
        assert_eq!(plan.due(100), Some(Duration::from_millis(500)));
        let plan = Plan::bursts(16, 4.0, 2.0);
        assert_eq!(plan.requests, 128);
        assert_eq!(plan.due(15), Some(Duration::ZERO));
        assert_eq!(plan.due(16), Some(Duration::from_millis(250)));
        assert_eq!(
            [0, 1, 15, 16].map(|k| plan.is_alone(k)),
            [true, false, false, true]
        );
        assert_eq!(Plan::saturated(1.0).due(7), None);
    }

    #[test]
    fn a_plan_that_was_not_carried_out_is_an_error() {
        assert!(Plan::at(10.0, 1.0).check_sent(10).is_ok());
        assert!(Plan::at(10.0, 1.0).check_sent(9).is_err());
        assert!(Plan::saturated(1.0).check_sent(9).is_ok());
        assert!(Plan::saturated(1.0).check_sent(0).is_err());
    }
}

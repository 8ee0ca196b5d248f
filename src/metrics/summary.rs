//! What an administrator reads out of the metrics: rates over the last minute, and how long most of a kind took.
//!
//! Promises: it reads the same text that `/metrics` gives, so the two can never disagree. A percentile is told as the
//! bound below which it lies, for a histogram knows no more.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How often the counts are sampled, and how many samples make a minute.
pub const SAMPLED_EVERY: Duration = Duration::from_secs(5);
const SAMPLES_MAX: usize = 13;

/// The samples of one moment.
pub struct Summary<'a> {
    text: &'a str,
}

/// A histogram in four numbers; a bound that no bucket tells is `None`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub count: u64,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
}

/// What is counted without end.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    pub publishes: f64,
    pub events: f64,
    pub syncs: f64,
    pub delivered: f64,
}

/// Totals of the last minute; written by a task of the server, read by the administrator.
#[derive(Default)]
pub struct Rates(Mutex<VecDeque<(Instant, Totals)>>);

impl<'a> Summary<'a> {
    pub fn of(text: &'a str) -> Summary<'a> {
        Summary { text }
    }

    /// The sum of all samples of a metric, whatever their labels.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples(name).map(|(_, value)| value).sum()
    }

    pub fn totals(&self) -> Totals {
        Totals {
            publishes: self.sum("tidings_publish_seconds_count"),
            events: self.sum("tidings_events_total"),
            syncs: self.sum("tidings_sync_seconds_count"),
            delivered: self.sum("tidings_delivered_events_total"),
        }
    }

    /// A histogram without labels.
    pub fn spread(&self, name: &str) -> Spread {
        let bucket = format!("{name}_bucket");
        let buckets: Vec<(f64, f64)> = self
            .samples(&bucket)
            .filter_map(|(labels, value)| Some((bound(labels)?, value)))
            .collect();
        let count = buckets.last().map_or(0.0, |(_, count)| *count);
        let below = |share: f64| {
            let found = buckets.iter().find(|(_, upto)| *upto >= count * share);
            let bound = found.map(|(bound, _)| *bound);
            bound.filter(|bound| count > 0.0 && bound.is_finite())
        };
        Spread {
            count: count as u64,
            p50: below(0.5),
            p90: below(0.9),
            p99: below(0.99),
        }
    }

    /// Labels and values of the samples with this name.
    fn samples(&self, name: &str) -> impl Iterator<Item = (&'a str, f64)> {
        self.text.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let is_whole = labels.is_empty() || labels.starts_with('{');
            Some((labels, value.parse().ok()?)).filter(|_| is_whole)
        })
    }
}

/// The upper bound of a bucket.
fn bound(labels: &str) -> Option<f64> {
    let (_, bound) = labels.split_once("le=\"")?;
    match bound.split('"').next()? {
        "+Inf" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

impl Rates {
    pub fn sample(&self, at: Instant, totals: Totals) {
        let mut samples = self.0.lock();
        if samples.len() >= SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back((at, totals));
    }

    /// How much came a second since the oldest sample, and how long that is; `None` before there is one.
    pub fn until(&self, now: Instant, totals: Totals) -> Option<(Duration, Totals)> {
        let (since, then) = *self.0.lock().front()?;
        let window = now.saturating_duration_since(since);
        let a_second = |now: f64, then: f64| (now - then) / window.as_secs_f64().max(0.001);
        Some((
            window,
            Totals {
                publishes: a_second(totals.publishes, then.publishes),
                events: a_second(totals.events, then.events),
                syncs: a_second(totals.syncs, then.syncs),
                delivered: a_second(totals.delivered, then.delivered),
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP x y\n\
        tidings_events_total 7\n\
        tidings_events_total_other 9\n\
        tidings_delivered_events_total{transport=\"sse\"} 3\n\
        tidings_delivered_events_total{transport=\"poll\"} 4\n\
        tidings_sync_seconds_count 10\n\
        tidings_sync_seconds_bucket{le=\"0.001\"} 5\n\
        tidings_sync_seconds_bucket{le=\"0.002\"} 9\n\
        tidings_sync_seconds_bucket{le=\"+Inf\"} 10\n";

    #[test]
    fn sums_and_bounds_are_those_of_the_text() {
        let summary = Summary::of(TEXT);
        let totals = summary.totals();
        assert_eq!(
            (totals.events, totals.delivered, totals.publishes),
            (7.0, 7.0, 0.0)
        );
        let expected = Spread {
            count: 10,
            p50: Some(0.001),
            p90: Some(0.002),
            p99: None,
        };
        assert_eq!(summary.spread("tidings_sync_seconds"), expected);
        assert_eq!(summary.spread("tidings_none").p50, None);
    }

    #[test]
    fn a_rate_is_that_of_the_last_minute() {
        let rates = Rates::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let events = |events: f64| Totals {
            events,
            ..Totals::default()
        };
        assert_eq!(rates.until(at(0), events(1.0)), None);
        for sample in 0..40 {
            rates.sample(at(sample * 5), events(sample as f64 * 50.0));
        }
        let (window, totals) = rates.until(at(196), events(1_960.0)).unwrap();
        assert_eq!((window.as_secs(), totals.events), (61, 10.0));
    }
}

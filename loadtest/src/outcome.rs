//! What one scenario gave against one peer, and the figures in it that TARGETS.md sets targets for.
//!
//! Promises: a number that was not measured is absent, never zero; it serializes as it is.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::verify::Faults;

const CURVE: [f64; 14] = [
    0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.99, 100.0,
];

#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    /// Percentile and microseconds.
    pub curve: Vec<(f64, f64)>,
}

impl Latency {
    pub fn of(histogram: &Histogram<u64>) -> Option<Latency> {
        let at = |percentile: f64| histogram.value_at_percentile(percentile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Latency {
            p50_us: at(50.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            max_us: at(100.0),
            curve: CURVE
                .iter()
                .map(|percentile| (*percentile, at(*percentile)))
                .collect(),
        })
    }
}

/// A figure of one row of TARGETS.md, with a bar of its own where the row's depends on the run.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub row: &'static str,
    pub value: f64,
    pub bar: Option<f64>,
    pub moonshot: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub scenario: String,
    pub peer: String,
    pub connections: usize,
    pub published: u64,
    pub deliveries: u64,
    pub seconds: f64,
    pub cpu_us_per_delivery: Option<f64>,
    pub pss_kib_per_connection: Option<f64>,
    pub pss_mib: Option<f64>,
    pub latency: Option<Latency>,
    pub figures: Vec<Figure>,
    pub faults: Faults,
    /// Sent and never answered, because the server was killed.
    pub in_doubt: u64,
    pub examples: Vec<String>,
    pub note: String,
}

impl Outcome {
    pub fn new(scenario: &str, peer: &str) -> Outcome {
        Outcome {
            scenario: scenario.to_owned(),
            peer: peer.to_owned(),
            connections: 0,
            published: 0,
            deliveries: 0,
            seconds: 0.0,
            cpu_us_per_delivery: None,
            pss_kib_per_connection: None,
            pss_mib: None,
            latency: None,
            figures: Vec::new(),
            faults: Faults::default(),
            in_doubt: 0,
            examples: Vec::new(),
            note: String::new(),
        }
    }

    pub fn figure(&mut self, row: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.figures.push(Figure {
                row,
                value,
                bar: None,
                moonshot: None,
            });
        }
    }

    /// Latencies of a closed loop say nothing about a load that does not wait.
    pub fn without_latency(mut self) -> Outcome {
        self.latency = None;
        self
    }
}

//! What `/metrics` tells: counters, gauges and histograms, each fed by the one place that knows the fact.
//!
//! Promises: handles are cached, label values come from our own code and are few, names carry their unit. It never
//! holds a user's name, a token or a payload.

pub mod summary;

use std::sync::atomic::AtomicU64;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// How a reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Sse,
    Ndjson,
    Poll,
    WebSocket,
}

impl Transport {
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Sse => "sse",
            Transport::Ndjson => "ndjson",
            Transport::Poll => "poll",
            Transport::WebSocket => "websocket",
        }
    }
}

impl EncodeLabelValue for Transport {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Readers {
    pub transport: Transport,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    pub transport: Transport,
    pub reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    pub result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Refusal {
    pub code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Source {
    source: &'static str,
}

/// All metrics of one server.
pub struct Metrics {
    registry: Registry,
    /// Open subscribers.
    pub subscribers: Family<Readers, Gauge>,
    pub connects: Family<Readers, Counter>,
    pub disconnects: Family<Ended, Counter>,
    /// How readers that named a position started.
    pub resumes: Family<Outcome, Counter>,
    pub resets: Family<Outcome, Counter>,
    pub refusals: Family<Refusal, Counter>,
    pub publish_seconds: Histogram,
    pub sync_seconds: Histogram,
    /// Commands that shared one sync.
    pub group_commands: Histogram,
    pub events: Counter,
    pub copies: Counter,
    pub duplicates: Counter,
    pub signals: Counter,
    pub delivered: Family<Readers, Counter>,
    /// Where readers found their events.
    reads: Family<Source, Counter>,
    pub reads_memory: Counter,
    pub reads_disk: Counter,
    /// How far behind the tail readers were when they were served, in events.
    pub lag_events: Histogram,
    pub trimmed: Counter,
    pub logs: Gauge,
    pub live_bytes: Gauge,
    pub disk_bytes: Gauge,
    pub index_backlog: Gauge,
    pub is_disk_full: Gauge,
    /// Values that the engine keeps in files that it never syncs: must stay 0.
    pub unsynced_values: Gauge,
    pub panics: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let millis = || Histogram::new(exponential_buckets(0.000_1, 2.0, 17));
        let counts = || Histogram::new(exponential_buckets(1.0, 2.0, 15));
        let reads = Family::<Source, Counter>::default();
        let reads_from = |source| reads.get_or_create_owned(&Source { source });
        let mut metrics = Metrics {
            registry: Registry::with_prefix("tidings"),
            subscribers: Family::default(),
            connects: Family::default(),
            disconnects: Family::default(),
            resumes: Family::default(),
            resets: Family::default(),
            refusals: Family::default(),
            publish_seconds: millis(),
            sync_seconds: millis(),
            group_commands: counts(),
            events: Counter::default(),
            copies: Counter::default(),
            duplicates: Counter::default(),
            signals: Counter::default(),
            delivered: Family::default(),
            reads_memory: reads_from("memory"),
            reads_disk: reads_from("disk"),
            reads,
            lag_events: counts(),
            trimmed: Counter::default(),
            logs: Gauge::default(),
            live_bytes: Gauge::default(),
            disk_bytes: Gauge::default(),
            index_backlog: Gauge::default(),
            is_disk_full: Gauge::default(),
            unsynced_values: Gauge::default(),
            panics: Counter::default(),
        };
        metrics.register_readers();
        metrics.register_writers();
        metrics.register_store();
        metrics
    }
}

impl Metrics {
    fn register_readers(&mut self) {
        let registry = &mut self.registry;
        registry.register("subscribers", "Open subscribers", self.subscribers.clone());
        registry.register("connects", "Subscribers that came", self.connects.clone());
        registry.register(
            "disconnects",
            "Subscribers that went, by reason",
            self.disconnects.clone(),
        );
        registry.register(
            "resumes",
            "Start positions asked for, by result",
            self.resumes.clone(),
        );
        registry.register(
            "resets",
            "Resets told to readers, by reason",
            self.resets.clone(),
        );
        registry.register(
            "delivered_events",
            "Events written to readers",
            self.delivered.clone(),
        );
        registry.register(
            "signals",
            "Signals handed to open connections",
            self.signals.clone(),
        );
        registry.register(
            "reads",
            "Pages read, by where they were found",
            self.reads.clone(),
        );
        registry.register(
            "lag_events",
            "Events between a reader and its tail when it was served",
            self.lag_events.clone(),
        );
    }

    fn register_writers(&mut self) {
        let registry = &mut self.registry;
        registry.register_with_unit(
            "publish",
            "From request to reply",
            Unit::Seconds,
            self.publish_seconds.clone(),
        );
        registry.register_with_unit(
            "sync",
            "One sync to stable storage",
            Unit::Seconds,
            self.sync_seconds.clone(),
        );
        registry.register(
            "group_commands",
            "Commands that shared one sync",
            self.group_commands.clone(),
        );
        registry.register("events", "Events committed", self.events.clone());
        registry.register(
            "copies",
            "Logs that committed events were appended to",
            self.copies.clone(),
        );
        registry.register(
            "duplicates",
            "Repeated publishes that appended nothing",
            self.duplicates.clone(),
        );
        registry.register(
            "refusals",
            "Requests refused, by code",
            self.refusals.clone(),
        );
        registry.register(
            "panics",
            "Requests that panicked; must stay 0",
            self.panics.clone(),
        );
    }

    fn register_store(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "trimmed_events",
            "Events that retention took from a log",
            self.trimmed.clone(),
        );
        registry.register("logs", "Logs known", self.logs.clone());
        registry.register_with_unit(
            "live",
            "Stored bodies of kept events",
            Unit::Bytes,
            self.live_bytes.clone(),
        );
        registry.register_with_unit("disk", "Data files", Unit::Bytes, self.disk_bytes.clone());
        registry.register(
            "index_backlog",
            "Log entries not yet in index blocks",
            self.index_backlog.clone(),
        );
        registry.register(
            "disk_full",
            "1 while publishes are refused for want of room",
            self.is_disk_full.clone(),
        );
        registry.register(
            "unsynced_values",
            "Values outside the synced file; must stay 0",
            self.unsynced_values.clone(),
        );
    }

    /// Takes in numbers that another part of the server counts by itself.
    pub fn with(mut self, collector: Box<dyn Collector>) -> Metrics {
        self.registry.register_collector(collector);
        self
    }

    /// The OpenMetrics text of all of them.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut encoded = String::new();
        text::encode(&mut encoded, &self.registry)?;
        Ok(encoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_told_with_its_unit() {
        let metrics = Metrics::default();
        metrics.publish_seconds.observe(0.01);
        metrics
            .refusals
            .get_or_create(&Refusal {
                code: "rate_limited",
            })
            .inc();
        let encoded = metrics.encode().unwrap();
        assert!(encoded.contains("tidings_publish_seconds_count 1"));
        assert!(encoded.contains("tidings_refusals_total{code=\"rate_limited\"} 1"));
        assert!(encoded.ends_with("# EOF\n"));
    }
}

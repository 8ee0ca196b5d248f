//! How connections came and went.
//!
//! Promises: each connection is counted once where it ends, by the one reason that ended it. Written by the accept loop
//! and its connections, read by the metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

#[derive(Debug, Default)]
pub struct Counts {
    /// Sockets open now, those of WebSockets included.
    pub open: AtomicU64,
    pub accepted: AtomicU64,
    /// Tries to accept that failed, as when descriptors run out.
    pub accept_failed: AtomicU64,
    /// Closed since no byte came.
    pub silent: AtomicU64,
    /// Closed since a request's head took too long, or since none came on an idle connection.
    pub head_late: AtomicU64,
    /// Closed with 431.
    pub head_too_large: AtomicU64,
    /// Closed since what came is not HTTP; with 400 where that can be said.
    pub malformed: AtomicU64,
    /// Request bodies that came too slowly.
    pub body_late: AtomicU64,
    /// Closed since the peer took no byte for too long.
    pub write_stalled: AtomicU64,
    /// HTTP/2 streams reset since the peer took nothing of them for too long; their connections went on.
    pub streams_stalled: AtomicU64,
    /// Given up by the kernel: the peer answers no more, or has kept its window closed.
    pub vanished: AtomicU64,
    /// Ended by the peer in the middle of something, as every stream ends; the stalled and vanished are among them.
    pub left: AtomicU64,
    /// Ended by force at the end of a drain.
    pub cut: AtomicU64,
}

impl Counts {
    /// Adds one to `count`.
    pub fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The counts as `/metrics` tells them.
#[derive(Debug)]
pub struct Told(pub Arc<Counts>);

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = &self.0;
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let open = ConstGauge::new(i64::try_from(number(&counts.open)).unwrap_or(i64::MAX));
        let kind = open.metric_type();
        open.encode(encoder.encode_descriptor("connections", "Open sockets", None, kind)?)?;
        let totals = [
            ("accepted_connections", "Sockets accepted", &counts.accepted),
            (
                "failed_accepts",
                "Tries to accept that failed",
                &counts.accept_failed,
            ),
            (
                "stalled_streams",
                "HTTP/2 streams reset since their reader took nothing",
                &counts.streams_stalled,
            ),
        ];
        for (name, help, count) in totals {
            let total = ConstCounter::new(number(count));
            let kind = total.metric_type();
            total.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        let reasons = [
            ("silent", &counts.silent),
            ("head_late", &counts.head_late),
            ("head_too_large", &counts.head_too_large),
            ("malformed", &counts.malformed),
            ("body_late", &counts.body_late),
            ("write_stalled", &counts.write_stalled),
            ("vanished", &counts.vanished),
            ("left", &counts.left),
            ("cut", &counts.cut),
        ];
        let help = "Sockets that ended other than by agreement, by reason";
        let kind = ConstCounter::new(0u64).metric_type();
        let mut family = encoder.encode_descriptor("ended_connections", help, None, kind)?;
        for (reason, count) in reasons {
            let labels = [("reason", reason)];
            let encoder = family.encode_family(&labels)?;
            ConstCounter::new(number(count)).encode(encoder)?;
        }
        Ok(())
    }
}

//! How connections came and went. Written by the accept loop and its connections, read by the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

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

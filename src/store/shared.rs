//! What the committer and the readers of one store have in common, and how it fails.
//!
//! Promises: every field says who writes it and who reads it; nothing here locks across a disk call.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{Semaphore, watch};

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::engine::{EngineError, Rows};
use crate::store::logs::Logs;
use crate::store::pulse::Pulse;
use crate::store::ring::Ring;
use crate::store::times::Times;
use crate::wake::Wakes;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Less room than `store.min_free_bytes`: it may be tried again when the disk has room.
    #[error("the disk is nearly full")]
    DiskFull,
    /// The store can promise nothing any more; the server ends.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> StoreError {
        StoreError::Failed(error.to_string())
    }
}

/// What committer and readers share.
pub struct Shared {
    pub rows: Rows,
    pub logs: Logs,
    pub ring: Ring,
    /// Written by the committer after each sync, read by a trace.
    pub times: Times,
    pub wakes: Wakes,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    /// Written by the space guard, read before a command is sent.
    pub is_full: Arc<AtomicBool>,
    /// The committer's steps, and its syncs, which may be under way beside them.
    pub at_work: Pulse,
    pub in_sync: Pulse,
    /// Turns true once, when a write or sync failed.
    pub failed: watch::Sender<bool>,
    /// Places for readers that wait for the disk.
    pub disk_readers: Semaphore,
}

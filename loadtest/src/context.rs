//! What one run of the tool knows before it begins: sizes, processors, where servers are, how to end early.
//!
//! Promises: every bound of a run is a number in here or beside the scenario; it is read by all and changed by none.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::machine::Cores;

/// A server that was not started here.
pub struct Existing {
    pub address: SocketAddr,
    pub pid: Option<u32>,
    pub secret: String,
}

pub struct Context {
    pub began: Instant,
    pub interrupted: Arc<AtomicBool>,
    /// The binary to start.
    pub server: PathBuf,
    pub existing: Option<Existing>,
    pub floor_fault: Option<String>,
    pub cores: Option<Cores>,
    pub connections_max: usize,
    /// Where data directories are made.
    pub directory: PathBuf,
    /// Every scenario as small as shows that it is right.
    pub is_small: bool,
    pub connections: Option<usize>,
    pub rate: Option<f64>,
    pub seconds: Option<f64>,
    pub is_quiet: bool,
}

impl Context {
    /// One size in a full run, another where only correctness counts.
    pub fn size<T>(&self, full: T, small: T) -> T {
        if self.is_small { small } else { full }
    }

    /// Connections as asked for, else as given, never more than this process may hold.
    pub fn connections(&self, full: usize, small: usize) -> usize {
        let wanted = self.connections.unwrap_or(self.size(full, small));
        if wanted > self.connections_max {
            eprintln!(
                "{} connections instead of {wanted}: the limit of open descriptors allows no more",
                self.connections_max
            );
        }
        wanted.clamp(1, self.connections_max)
    }

    pub fn seconds(&self, full: f64, small: f64) -> f64 {
        self.seconds.unwrap_or(self.size(full, small))
    }

    /// When nothing has moved for so long, nothing more will come.
    pub fn stall_time_max(&self) -> Duration {
        Duration::from_secs(self.size(20, 10))
    }

    pub fn server_core(&self) -> Option<usize> {
        self.cores.map(|cores| cores.server)
    }

    pub fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    pub fn check_interrupted(&self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

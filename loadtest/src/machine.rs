//! This machine: descriptors, processors, the disk's own sync, the kernel's cache.
//!
//! Promises: what cannot be had is said, never silently done without. It changes limits of this process only.

use std::fs::File;
use std::io::Write;
use std::num::NonZeroU64;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, set_current_timer_slack};

/// Descriptors that are not connections: files, pipes, the epoll set.
const DESCRIPTORS_RESERVED: u64 = 200;

/// Raises the limit of open descriptors as far as it goes; gives the connections that leaves room for.
pub fn connections_max() -> Result<usize> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: hard,
        maximum: hard,
    };
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open descriptors")?;
    Ok((hard.unwrap_or(1 << 20).saturating_sub(DESCRIPTORS_RESERVED)) as usize)
}

/// Where the server and the load run: each on a processor of its own, where there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    pub server: usize,
    pub load: usize,
}

pub fn cores() -> Option<Cores> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut free = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    Some(Cores {
        server: free.next()?,
        load: free.next()?,
    })
}

pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on processor {core} only"))
}

/// Waits end when they should: the kernel's default is up to 50 µs later.
pub fn wake_promptly() -> Result<()> {
    set_current_timer_slack(NonZeroU64::new(1)).context("cannot set the timer slack")
}

/// What the disk itself takes for one sync of a small append.
#[derive(Clone, Copy)]
pub struct Disk {
    pub sync_p50: Duration,
    /// Events a second of a raw file that writes what 256 publishers wait for, syncs once, and answers them.
    pub group_commit_per_second: f64,
}

pub fn disk(directory: &Path, tries: usize) -> Result<Disk> {
    const PUBLISHERS: usize = 256;
    const EVENT_BYTES: usize = 300;
    let path = directory.join("sync-probe");
    let mut file = File::create(&path).context("cannot write where the data goes")?;
    let mut timed = |bytes: usize| -> Result<Duration> {
        let mut times = Vec::with_capacity(tries);
        let block = vec![b'x'; bytes];
        for _ in 0..tries {
            let began = Instant::now();
            file.write_all(&block)?;
            file.sync_data()?;
            times.push(began.elapsed());
        }
        times.sort();
        Ok(times[tries / 2])
    };
    let sync_p50 = timed(EVENT_BYTES)?;
    let group = timed(PUBLISHERS * EVENT_BYTES)?;
    std::fs::remove_file(&path)?;
    Ok(Disk {
        sync_p50,
        group_commit_per_second: PUBLISHERS as f64 / group.as_secs_f64(),
    })
}

/// Takes cached pages from the kernel, so that cold is cold. False: not allowed here.
pub fn drop_caches() -> bool {
    std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

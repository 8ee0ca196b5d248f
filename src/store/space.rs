//! The free-space guard: publishes are refused before the disk is full, for sled does not open on a full one.
//!
//! Promises: it looks at the disk at most once a second and counts down what is written in between; it opens again by
//! itself. The ballast is a file that a start on a full disk may delete to have room for opening.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While the disk is full, whether the last look is old is asked this often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A byte of payload takes about this many on the disk before old segments are cleaned up.
const AMPLIFICATION: u64 = 3;
const BALLAST: &str = "ballast";

pub struct Space {
    directory: PathBuf,
    free_bytes_min: u64,
    ballast_bytes: u64,
    /// Written by the committer, read by whoever wants to publish and by readiness.
    is_full: Arc<AtomicBool>,
    looked: Instant,
    /// What may still be written before the next look.
    left_bytes: u64,
}

impl Space {
    pub fn watch(
        directory: &Path,
        free_bytes_min: u64,
        ballast_bytes: u64,
        is_full: Arc<AtomicBool>,
    ) -> Space {
        let mut space = Space {
            directory: directory.to_owned(),
            free_bytes_min,
            ballast_bytes,
            is_full,
            looked: Instant::now(),
            left_bytes: 0,
        };
        space.look();
        space
    }

    /// Notes that `bytes` of payload are about to be written.
    pub fn spend(&mut self, bytes: u64) {
        self.left_bytes = self.left_bytes.saturating_sub(bytes * AMPLIFICATION);
        if self.left_bytes == 0 {
            self.look();
        }
    }

    /// How long the next look may wait at most: those who are refused wait for it.
    pub fn pause(&self) -> Duration {
        match self.is_full.load(Ordering::Relaxed) {
            true => LOOK_AGAIN,
            false => Duration::MAX,
        }
    }

    /// Looks at the disk if the last look is old.
    pub fn settle(&mut self) {
        if self.looked.elapsed() >= LOOK_EVERY {
            self.look();
        }
    }

    fn look(&mut self) {
        self.looked = Instant::now();
        let free_bytes = match free_bytes(&self.directory) {
            Ok(free_bytes) => free_bytes,
            Err(error) => {
                tracing::warn!(%error, "cannot tell how much of the disk is free");
                u64::MAX
            }
        };
        let is_full = free_bytes < self.free_bytes_min;
        if is_full != self.is_full.swap(is_full, Ordering::Relaxed) {
            match is_full {
                true => tracing::error!(
                    free_bytes,
                    "the disk is nearly full: publishes are refused until it has room"
                ),
                false => tracing::info!(free_bytes, "the disk has room again: publishes are taken"),
            }
        }
        self.left_bytes = free_bytes.saturating_sub(self.free_bytes_min).max(1);
        if !is_full && free_bytes > self.free_bytes_min.saturating_add(2 * self.ballast_bytes) {
            self.lay_ballast();
        }
    }

    fn lay_ballast(&self) {
        let path = self.directory.join(BALLAST);
        if self.ballast_bytes == 0 || path.exists() {
            return;
        }
        if let Err(error) = write_ballast(&path, self.ballast_bytes) {
            tracing::warn!(%error, "cannot lay the ballast file; a start on a full disk may fail");
            drop(fs::remove_file(&path));
        }
    }
}

fn write_ballast(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::create(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    file.sync_all()
}

/// Before the engine opens: makes room by deleting the ballast where the disk has next to none.
pub fn drop_ballast(directory: &Path, ballast_bytes: u64) -> io::Result<()> {
    let path = directory.join(BALLAST);
    if free_bytes(directory)? < ballast_bytes && path.exists() {
        tracing::warn!("the disk is full: the ballast file makes room for the start");
        fs::remove_file(path)?;
    }
    Ok(())
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let stats = rustix::fs::statvfs(directory)?;
    Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_less_than_the_minimum_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let is_full = Arc::new(AtomicBool::new(false));
        Space::watch(directory.path(), u64::MAX, 0, Arc::clone(&is_full));
        assert!(is_full.load(Ordering::Relaxed));
        Space::watch(directory.path(), 1, 4096, Arc::clone(&is_full));
        assert!(!is_full.load(Ordering::Relaxed));
        assert_eq!(
            fs::metadata(directory.path().join(BALLAST)).unwrap().len(),
            4096
        );
    }
}

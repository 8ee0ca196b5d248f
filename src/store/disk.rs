//! The engine on a disk: sled, made durable. The only file that names sled.
//!
//! Promises: `sync` reaches stable storage (sled's own `flush` is `sync_file_range` and does not survive a power
//! cut); a directory that cannot be opened ends in one sentence, never in a panic. Values stay below the size from
//! which sled would spill them into files that it never syncs. STORE.md has the measurements behind each rule.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::engine::{BATCH_OPS_MAX, Engine, EngineError, Op, Visit};

/// sled collects its garbage only when asked: this often for each operation of a batch, and a few times more.
const COLLECT_OPS: usize = 64;
const COLLECT_EXTRA: usize = 4;
/// sled moves what is live out of old segments (512 KiB of its file) when it puts a whole page in place of another, one
/// page each time, so that the file finds its size. Writes of ours alone replace too few pages for that: file and journal
/// held 3.3 times what is live at 20,000 events a second. sled's own thread for the rest syncs the file each time it
/// wakes, also when nothing is written; so there is no such thread, and `clean_up` replaces pages (2.0 times; 2.1 at 5,000
/// a second and at full speed). Every tenth write of a row is a whole page.
const PAGE_WRITES: usize = 10;
/// So many pages are moved between two looks at whether there was anything to move; they are 12 KiB or so.
const CLEAN_UP_PAGES: usize = 8;
/// What the writes of `clean_up` themselves take of the file, at most; a look that finds no more moved nothing.
const CLEAN_UP_BYTES: u64 = 8 << 10;
/// Cleaning up is for when so much was written, and ends when so much was moved. sled writes over the old place of what it
/// moved after another whole segment at the soonest: with a sync before and after, the new place is on stable storage then.
const CLEAN_UP_AFTER_BYTES: u64 = 128 << 10;

/// sled writes on a pool of 7 threads; a batch takes 2 of them and one more for each segment that it fills. When all of
/// them wait for a lock whose holder waits for a task that none has begun (the truncation of the file, before the file
/// may grow again), sled stands still for good. So no more batches than these are on their way to the file at a time,
/// and `BATCH_BYTES_MAX` bounds each.
const UNWRITTEN_BATCHES_MAX: u64 = 2;

pub struct Disk {
    db: sled::Db,
    rows: sled::Tree,
    /// sled's data file by a handle of our own, for the sync that sled does not do.
    file: File,
    directory: PathBuf,
    /// Operations applied since the last collection; written and read by `apply`.
    uncollected_ops: AtomicU64,
    /// Batches since sled last wrote all it had; counted by `apply`, reset by whoever flushes.
    unwritten_batches: AtomicU64,
    /// Bytes that sled wrote since the last cleaning up; counted by `flush`, reset by `clean_up`.
    uncleaned_bytes: AtomicU64,
}

/// Why the engine does not open.
#[derive(Debug)]
pub enum OpenError {
    Damaged(String),
    Io(std::io::Error),
}

impl Disk {
    /// Opens or creates the engine's files in `directory`, which must exist.
    pub fn open(directory: &Path, cache_bytes: u64) -> Result<Disk, OpenError> {
        let io = OpenError::Io;
        remove_torn_snapshots(directory).map_err(io)?;
        let is_new = !directory.join("db").exists();
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None);
        let damaged = OpenError::Damaged;
        silence_engine_panics();
        // sled panics on a truncated file; the panic ends here, in one sentence.
        let opened = panic::catch_unwind(AssertUnwindSafe(|| {
            let db = config.open()?;
            let rows = db.open_tree("rows")?;
            Ok((db, rows))
        }));
        let (db, rows) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(sled::Error::Io(error))) => return Err(io(error)),
            Ok(Err(error)) => return Err(damaged(cause(&error))),
            Err(_) => {
                return Err(damaged(
                    "its data file is cut short or overwritten".to_owned(),
                ));
            }
        };
        let file = File::options()
            .read(true)
            .write(true)
            .open(directory.join("db"))
            .map_err(io)?;
        let disk = Disk {
            db,
            rows,
            file,
            directory: directory.to_owned(),
            uncollected_ops: AtomicU64::new(0),
            unwritten_batches: AtomicU64::new(0),
            uncleaned_bytes: AtomicU64::new(0),
        };
        if is_new {
            disk.sync_files().map_err(io)?;
        }
        match disk.unsynced_values() > 0 {
            true => Err(damaged(
                "it holds values in `blobs`, which are never synced".to_owned(),
            )),
            false => Ok(disk),
        }
    }

    /// After the first open the names of the files must be on the disk too, not only their bytes.
    fn sync_files(&self) -> std::io::Result<()> {
        self.db
            .flush()
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        for name in ["db", "conf", "blobs", "."] {
            File::open(self.directory.join(name))?.sync_all()?;
        }
        match self.directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    }

    /// Waits while too much is on its way to the file, and counts in what is to be applied now.
    fn throttle(&self) -> Result<(), EngineError> {
        if self.unwritten_batches.load(Ordering::Relaxed) >= UNWRITTEN_BATCHES_MAX {
            self.flush()?;
        }
        self.unwritten_batches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Has sled collect the garbage of so many operations.
    fn collect(&self, ops: usize) {
        let uncollected = self
            .uncollected_ops
            .fetch_add(ops as u64, Ordering::Relaxed) as usize;
        let uncollected = uncollected + ops;
        if uncollected >= COLLECT_OPS {
            self.uncollected_ops.store(0, Ordering::Relaxed);
            for _ in 0..uncollected / COLLECT_OPS + COLLECT_EXTRA {
                crossbeam_epoch::pin().flush();
            }
        }
    }

    /// Waits until sled has written all that was applied before, and gives about how many bytes that were.
    fn flush(&self) -> Result<u64, EngineError> {
        self.unwritten_batches.store(0, Ordering::Relaxed);
        let bytes = self.guarded(|| self.db.flush())? as u64;
        self.uncleaned_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Has sled move live pages out of segments that it wants to use again, if there are any.
    fn clean_up(&self) -> Result<(), EngineError> {
        let mut moved_bytes = 0;
        while moved_bytes < CLEAN_UP_AFTER_BYTES {
            for number in 0..CLEAN_UP_PAGES * PAGE_WRITES {
                // The tree that sled always has and nobody uses. What is there already would not be written.
                self.guarded(|| self.db.insert(b"", &[number as u8 % 2]))?;
            }
            self.collect(CLEAN_UP_PAGES * PAGE_WRITES);
            let bytes = self.flush()?;
            if bytes <= CLEAN_UP_BYTES {
                break;
            }
            moved_bytes += bytes;
        }
        self.uncleaned_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), EngineError> {
        let failed = |error: std::io::Error| EngineError::Failed(error.to_string());
        self.file.sync_data().map_err(failed)
    }

    /// Runs a call into sled, which reports some damage by panicking.
    fn guarded<T>(&self, call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, EngineError> {
        match panic::catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(sled::Error::Corruption { at, .. })) => Err(EngineError::Damaged {
                key: match at {
                    Some(place) => format!("near byte {} of `log/db`", place.lid()),
                    None => "at an unknown place of `log/db`".to_owned(),
                },
            }),
            Ok(Err(error)) => Err(EngineError::Failed(error.to_string())),
            Err(_) => Err(EngineError::Failed("the storage engine gave up".to_owned())),
        }
    }
}

/// What sled's own error says to an operator.
fn cause(error: &sled::Error) -> String {
    match error {
        sled::Error::Corruption { at: None, .. } => {
            "its file `log/db` does not belong to `log/conf` or `log/snap.*`, or one of them is damaged".to_owned()
        }
        sled::Error::Corruption {
            at: Some(place), ..
        } => format!("its file `log/db` is damaged near byte {}", place.lid()),
        sled::Error::Unsupported(_) => "its file `log/conf` is damaged".to_owned(),
        other => other.to_string(),
    }
}

/// sled reports damage by panicking, also on threads of its own. What is caught here is told in one sentence; a panic
/// of ours is printed as ever.
fn silence_engine_panics() {
    static SILENCED: Once = Once::new();
    SILENCED.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            let file = panicked.location().map_or("", |location| location.file());
            if file.contains("/sled-") || file.contains("/sled/") {
                tracing::debug!(%panicked, "the storage engine panicked");
            } else {
                print(panicked);
            }
        }));
    });
}

/// A snapshot that was being written when the machine stopped would block every later open; sled makes a new one.
fn remove_torn_snapshots(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "generating")
        {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

impl Engine for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.guarded(|| Ok(self.rows.get(key)?.map(|value| value.to_vec())))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), EngineError> {
        self.guarded(|| {
            for row in self.rows.range(from..to) {
                let (key, value) = row?;
                if let ControlFlow::Break(()) = visit(&key, &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn last_key(&self, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.guarded(|| {
            let last = self.rows.range(from..to).next_back().transpose()?;
            Ok(last.map(|(key, _)| key.to_vec()))
        })
    }

    fn apply(&self, ops: Vec<Op>) -> Result<(), EngineError> {
        assert!(
            ops.len() <= BATCH_OPS_MAX,
            "a larger batch makes sled leak memory"
        );
        let count = ops.len();
        let mut batch = sled::Batch::default();
        for op in ops {
            match op {
                Op::Put(key, value) => batch.insert(key, value),
                Op::Delete(key) => batch.remove(key),
            }
        }
        self.throttle()?;
        self.guarded(|| self.rows.apply_batch(batch))?;
        self.collect(count);
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        fail::fail_point!("before_flush");
        self.flush()?;
        fail::fail_point!("after_flush");
        self.sync_data()?;
        if self.uncleaned_bytes.load(Ordering::Relaxed) >= CLEAN_UP_AFTER_BYTES {
            self.clean_up()?;
            self.sync_data()?;
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    /// sled moves a value that grew too large to a file of its own.
    fn unsynced_values(&self) -> u64 {
        let blobs = fs::read_dir(self.directory.join("blobs"));
        blobs.map_or(0, |entries| entries.count() as u64)
    }

    fn is_resident(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;

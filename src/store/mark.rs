//! The high-water mark: a small file beside the engine that knows the newest durable commit number.
//!
//! Promises: the mark is never ahead of what was synced, and at most a second behind after a power cut, not at all
//! after a crash. So a store that opens with fewer commits than its mark has lost its end, and says so by new epochs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Two places are written in turn, so that a torn write leaves the other one whole.
const SLOTS: u64 = 2;
const SLOT_BYTES: usize = 24;
const MAGIC: u64 = u64::from_le_bytes(*b"tidmark1");
/// How long a mark may wait for its sync.
const SYNC_EVERY: Duration = Duration::from_secs(1);

pub struct Mark {
    file: File,
    turn: u64,
    synced: Instant,
    is_synced: bool,
}

impl Mark {
    /// Opens or creates the file and tells the newest commit number in it.
    pub fn open(path: &Path) -> io::Result<(Mark, Option<u64>)> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let newest = (0..SLOTS).filter_map(|slot| read_slot(&file, slot)).max();
        let mark = Mark {
            file,
            turn: 0,
            synced: Instant::now(),
            is_synced: true,
        };
        Ok((mark, newest))
    }

    /// Notes that everything up to `commit` is on stable storage.
    pub fn advance(&mut self, commit: u64) -> io::Result<()> {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(&MAGIC.to_le_bytes());
        slot[8..16].copy_from_slice(&commit.to_le_bytes());
        let checksum = crc32c::crc32c(&slot[..16]);
        slot[16..20].copy_from_slice(&checksum.to_le_bytes());
        self.file
            .write_all_at(&slot, self.turn % SLOTS * SLOT_BYTES as u64)?;
        self.turn += 1;
        self.is_synced = false;
        Ok(())
    }

    /// Syncs the file if that is due.
    pub fn settle(&mut self) -> io::Result<()> {
        if self.is_synced || self.synced.elapsed() < SYNC_EVERY {
            return Ok(());
        }
        self.sync()
    }

    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = Instant::now();
        self.is_synced = true;
        Ok(())
    }
}

fn read_slot(file: &File, slot: u64) -> Option<u64> {
    let mut bytes = [0; SLOT_BYTES];
    file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64)
        .ok()?;
    let number =
        |at: usize| -> Option<u64> { Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?)) };
    let checksum = u32::from_le_bytes(bytes[16..20].try_into().ok()?);
    let is_whole = number(0) == Some(MAGIC) && checksum == crc32c::crc32c(&bytes[..16]);
    number(8).filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_slot_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mark");
        let (mut mark, newest) = Mark::open(&path).unwrap();
        assert_eq!(newest, None);
        mark.advance(7).unwrap();
        mark.advance(8).unwrap();
        mark.sync().unwrap();
        assert_eq!(Mark::open(&path).unwrap().1, Some(8));
        mark.file
            .write_all_at(b"torn", SLOT_BYTES as u64 + 8)
            .unwrap();
        assert_eq!(Mark::open(&path).unwrap().1, Some(7));
    }
}

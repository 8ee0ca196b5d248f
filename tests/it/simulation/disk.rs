//! The disk of the simulation: the engine in memory, with a power cut that comes at a chosen write or sync.
//!
//! Promises: after the cut every write and sync is refused, as if the process were gone, until the power is back; the
//! write or sync that met the cut may have reached the disk or not. Reads go on, for readers live a moment longer.

use std::ops::ControlFlow;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;
use tidings::store::engine::{Engine, EngineError, Op, Visit};
use tidings::store::memory::Memory;

#[derive(Clone, Default)]
pub struct Disk {
    pub memory: Memory,
    cut: Arc<Mutex<Cut>>,
}

#[derive(Default)]
struct Cut {
    /// Writes and syncs until the cut.
    left: Option<u32>,
    is_cut: bool,
    /// Whether the step that meets the cut still reaches the disk.
    is_last_done: bool,
    refused: u32,
}

impl Disk {
    /// What a power cut left of another disk.
    pub fn on(memory: Memory) -> Disk {
        Disk {
            memory,
            ..Disk::default()
        }
    }

    /// The power fails after so many more writes and syncs.
    pub fn cut_after(&self, steps: u32, is_last_done: bool) {
        let mut cut = self.cut.lock();
        cut.left = Some(steps);
        cut.is_last_done = is_last_done;
    }

    pub fn is_cut(&self) -> bool {
        self.cut.lock().is_cut
    }

    /// Whether a write or sync failed since the power came.
    pub fn has_refused(&self) -> bool {
        self.cut.lock().refused > 0
    }

    /// The power is back; what was not synced is there up to a random batch.
    pub fn power_up(&self, rng: &mut Rng) -> (usize, usize) {
        *self.cut.lock() = Cut::default();
        let pending = self.memory.pending();
        let kept = rng.usize(0..=pending);
        self.memory.crash(kept);
        (kept, pending)
    }

    /// Damages a random row of those that hold events, blocks and users. Tells which.
    pub fn damage(&self, rng: &mut Rng) -> Option<String> {
        let kind = [b'e', b'e', b'i', b'u'][rng.usize(0..4)];
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let scanned = self.memory.scan(&[kind], &[kind + 1], &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        });
        scanned.expect("the engine in memory reads always");
        let key = rng.choice(keys)?;
        let how = rng.u8(0..3);
        let place = rng.usize(..);
        self.memory.damage(&key, |row| match how {
            0 => row.clear(),
            1 => row.truncate(place % (row.len() + 1)),
            _ if row.is_empty() => row.push(1),
            _ => {
                let place = place % row.len();
                row[place] ^= 1 << (how % 8);
            }
        });
        Some(key.escape_ascii().to_string())
    }

    fn step(&self) -> Result<(), bool> {
        let mut cut = self.cut.lock();
        if cut.is_cut {
            cut.refused += 1;
            return Err(false);
        }
        match cut.left {
            Some(0) => {
                cut.is_cut = true;
                cut.refused += 1;
                Err(cut.is_last_done)
            }
            left => {
                cut.left = left.map(|left| left - 1);
                Ok(())
            }
        }
    }

    fn run(&self, act: impl FnOnce() -> Result<(), EngineError>) -> Result<(), EngineError> {
        let done = match self.step() {
            Ok(()) => return act().inspect_err(|_| self.cut.lock().refused += 1),
            Err(true) => act(),
            Err(false) => Ok(()),
        };
        done.and(Err(EngineError::Failed("the power was cut".to_owned())))
    }
}

impl Engine for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.memory.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), EngineError> {
        self.memory.scan(from, to, visit)
    }

    fn last_key(&self, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.memory.last_key(from, to)
    }

    fn apply(&self, ops: Vec<Op>) -> Result<(), EngineError> {
        self.run(|| self.memory.apply(ops))
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.run(|| self.memory.sync())
    }

    fn disk_bytes(&self) -> u64 {
        self.memory.disk_bytes()
    }

    fn unsynced_values(&self) -> u64 {
        0
    }

    fn is_resident(&self) -> bool {
        true
    }
}

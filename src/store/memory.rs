//! The engine in memory: a durable image and what was applied since, for the simulation and for tests of logic.
//!
//! Promises: a crash keeps everything synced and a prefix of the batches applied since, as a disk does after its
//! journal was replayed. It never blocks and never fails unless told to.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::store::engine::{Engine, EngineError, Op, Visit};

type Image = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    /// What a power cut leaves.
    durable: Image,
    /// What readers see.
    applied: Image,
    /// Batches applied since the last sync, in order.
    pending: Vec<Vec<Op>>,
    does_fail: bool,
}

impl Memory {
    /// A power cut: of the batches that were not synced only the first `keep` survive.
    pub fn crash(&self, keep: usize) {
        let mut disk = self.0.lock();
        let kept: Vec<Vec<Op>> = disk.pending.drain(..).take(keep).collect();
        for ops in &kept {
            change(&mut disk.durable, ops);
        }
        disk.applied = disk.durable.clone();
        disk.does_fail = false;
    }

    /// Batches that the next power cut may take.
    pub fn pending(&self) -> usize {
        self.0.lock().pending.len()
    }

    /// From now on every write and sync fails, as on a broken disk.
    pub fn fail(&self) {
        self.0.lock().does_fail = true;
    }

    /// Takes one row away or changes one of its bytes, as damage would.
    pub fn damage(&self, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.0.lock();
        let mut value = disk.applied.get(key).cloned().unwrap_or_default();
        change(&mut value);
        disk.applied.insert(key.to_vec(), value.clone());
        disk.durable.insert(key.to_vec(), value);
    }
}

fn change(image: &mut Image, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Put(key, value) => image.insert(key.clone(), value.clone()),
            Op::Delete(key) => image.remove(key),
        };
    }
}

fn between<'a>(from: &'a [u8], to: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), Bound::Excluded(to))
}

impl Engine for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.0.lock().applied.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), EngineError> {
        let disk = self.0.lock();
        for (key, value) in disk.applied.range::<[u8], _>(between(from, to)) {
            if let ControlFlow::Break(()) = visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn last_key(&self, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let disk = self.0.lock();
        let last = disk.applied.range::<[u8], _>(between(from, to)).next_back();
        Ok(last.map(|(key, _)| key.clone()))
    }

    fn apply(&self, ops: Vec<Op>) -> Result<(), EngineError> {
        let mut disk = self.0.lock();
        if disk.does_fail {
            return Err(EngineError::Failed("the disk was told to fail".to_owned()));
        }
        change(&mut disk.applied, &ops);
        disk.pending.push(ops);
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut disk = self.0.lock();
        if disk.does_fail {
            return Err(EngineError::Failed("the disk was told to fail".to_owned()));
        }
        fail::fail_point!("mutant_skip_sync", |_| Ok(()));
        for ops in std::mem::take(&mut disk.pending) {
            change(&mut disk.durable, &ops);
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        let disk = self.0.lock();
        disk.durable
            .iter()
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum()
    }

    fn unsynced_values(&self) -> u64 {
        0
    }

    fn is_resident(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_the_synced_and_a_prefix_of_the_rest() {
        let memory = Memory::default();
        let put = |name: &str| vec![Op::Put(name.into(), b"1".to_vec())];
        memory.apply(put("a")).unwrap();
        memory.sync().unwrap();
        memory.apply(put("b")).unwrap();
        memory.apply(put("c")).unwrap();
        memory.crash(1);
        let has = |name: &str| memory.get(name.as_bytes()).unwrap().is_some();
        assert!(has("a") && has("b") && !has("c"));
    }
}

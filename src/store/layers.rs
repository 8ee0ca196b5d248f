//! What was applied and is not in the engine yet: rows in memory, by how far they have come.
//!
//! Promises: a newer layer hides an older one, and all of them the engine. Rows go to the engine only when they are
//! durable in the journal, and stay visible here until they are visible there. It knows no file and never waits.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Bound;
use std::sync::Arc;

use crate::store::engine::Op;

/// Rows by key; `None` hides a row of the engine.
pub type Layer = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Newest first: each is emptied into the one below.
#[derive(Default)]
pub struct Layers {
    /// Applied, and not yet on the way to the journal.
    fresh: Layer,
    /// Being written to the journal.
    syncing: Layer,
    /// Durable in the journal.
    durable: Layer,
    durable_bytes: u64,
    /// Being put into the engine.
    moving: Arc<Layer>,
    moving_bytes: u64,
}

impl Layers {
    pub fn put(&mut self, op: Op) {
        let (key, value) = row(op);
        self.fresh.insert(key, value);
    }

    /// What was applied so far is written to the journal now.
    pub fn begin_sync(&mut self) {
        assert!(self.syncing.is_empty(), "one group is written at a time");
        self.syncing = mem::take(&mut self.fresh);
    }

    /// It is durable. Gives how many bytes wait for the engine, as memory counts them.
    pub fn end_sync(&mut self) -> u64 {
        for (key, value) in mem::take(&mut self.syncing) {
            self.durable_bytes += bytes(&key, value.as_deref());
            self.durable.insert(key, value);
        }
        self.durable_bytes
    }

    pub fn waiting_bytes(&self) -> u64 {
        self.durable_bytes + self.moving_bytes
    }

    pub fn is_anything_durable(&self) -> bool {
        !self.durable.is_empty()
    }

    /// All that is durable, for the engine.
    pub fn begin_move(&mut self) -> Arc<Layer> {
        self.moving = Arc::new(mem::take(&mut self.durable));
        self.moving_bytes = mem::take(&mut self.durable_bytes);
        Arc::clone(&self.moving)
    }

    /// The engine shows it.
    pub fn end_move(&mut self) {
        self.moving = Arc::default();
        self.moving_bytes = 0;
    }

    fn newest_first(&self) -> [&Layer; 4] {
        [&self.fresh, &self.syncing, &self.durable, &self.moving]
    }

    /// What the layers make of one row; `None` where only the engine knows it.
    pub fn get(&self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let mut layers = self.newest_first().into_iter();
        layers.find_map(|layer| layer.get(key)).cloned()
    }

    /// What they make of the rows of a range, the first `count_max` or a few more, and whether those are all.
    pub fn changes(&self, from: &[u8], to: &[u8], count_max: usize) -> (Layer, bool) {
        let mut changes = Layer::new();
        let mut first_left: Option<&Vec<u8>> = None;
        for layer in self.newest_first() {
            let mut range = layer.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
            for (key, value) in range.by_ref().take(count_max) {
                if !changes.contains_key(key) {
                    changes.insert(key.clone(), value.clone());
                }
            }
            let left = range.next().map(|(key, _)| key);
            first_left = [first_left, left].into_iter().flatten().min();
        }
        // Behind it a layer may have more than was looked at.
        if let Some(left) = first_left {
            changes.split_off(left);
        }
        (changes, first_left.is_none())
    }
}

/// What the operation makes of its row.
pub fn row(op: Op) -> (Vec<u8>, Option<Vec<u8>>) {
    match op {
        Op::Put(key, value) => (key, Some(value)),
        Op::Delete(key) => (key, None),
    }
}

/// The greatest key up to but not including `to`, of changes to a range and of what is stored of it: `stored` gives the
/// greatest that is stored before a key.
pub fn last_key<E>(
    changes: &Layer,
    to: &[u8],
    stored: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Vec<u8>>, E> {
    let mut end = to.to_vec();
    let stored = loop {
        match stored(&end)? {
            Some(key) if changes.get(&key) == Some(&None) => end = key,
            stored => break stored,
        }
    };
    let changed = changes.iter().rev().find(|(_, value)| value.is_some());
    Ok(stored.max(changed.map(|(key, _)| key.clone())))
}

/// What a row takes in memory beside its bytes: its places in a tree and on the heap. Most rows of features are small.
const ROW_BYTES: u64 = 96;

pub fn bytes(key: &[u8], value: Option<&[u8]>) -> u64 {
    (key.len() + value.map_or(0, <[u8]>::len)) as u64 + ROW_BYTES
}

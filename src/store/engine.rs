//! What the store asks of an engine: ordered rows, atomic batches, and a sync that is one.
//!
//! Promises, for every implementation: `apply` is all or nothing, also across a crash; what was applied before a
//! `sync` that returned is there after a power cut; a crash keeps a prefix of the applied batches. There are three:
//! `disk` (sled), `journaled` (the same behind a journal, which is what servers use) and `memory`, the durable image of
//! the simulation.

use std::ops::ControlFlow;

/// One batch holds at most this many operations: larger ones make sled leak memory and stall its readers.
pub const BATCH_OPS_MAX: usize = 400;
/// A batch that goes on to more rows ends at this many bytes: sled writes about four times as much, in segments
/// of 512 KiB, and must not have many of them on the way at a time (see `disk`).
pub const BATCH_BYTES_MAX: u64 = 256 << 10;
/// No value is longer: 32 of them fill one leaf of sled to less than the 128 KiB from which it spills into files
/// that it never syncs.
pub const VALUE_BYTES_MAX: usize = 3584;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

impl Op {
    pub fn bytes(&self) -> u64 {
        match self {
            Op::Put(key, value) => (key.len() + value.len()) as u64,
            Op::Delete(key) => key.len() as u64,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine can no longer promise anything: a write, read or sync failed.
    #[error("{0}")]
    Failed(String),
    /// A row's bytes are not those that were written.
    #[error("the row {key} is damaged")]
    Damaged { key: String },
}

/// Key and value of a row.
pub type Row = (Vec<u8>, Vec<u8>);
/// Called with each row's key and value until it breaks.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;
/// The same, where a damaged row has no value.
pub type VisitAll<'a> = &'a mut dyn FnMut(&[u8], Option<&[u8]>) -> ControlFlow<()>;

pub trait Engine: Send + Sync + 'static {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;
    /// Visits the rows from `from` up to but not including `to`, in order.
    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), EngineError>;
    /// The greatest key from `from` up to but not including `to`.
    fn last_key(&self, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;
    fn apply(&self, ops: Vec<Op>) -> Result<(), EngineError>;
    fn sync(&self) -> Result<(), EngineError>;
    /// Bytes that the data takes on its disk.
    fn disk_bytes(&self) -> u64;
    /// Values that the engine keeps where `sync` does not reach; must be none.
    fn unsynced_values(&self) -> u64;
    /// Whether reads never wait for a disk, so that async workers may call them.
    fn is_resident(&self) -> bool;
}

/// Rows with a checksum over key and value, so that no other row's bytes and no flipped bit passes for a row. A range that
/// ends before it begins holds none: no engine is asked for one, for ordered maps panic at it.
pub struct Rows {
    engine: Box<dyn Engine>,
}

const CHECKSUM_BYTES: usize = 4;

impl Rows {
    pub fn new(engine: Box<dyn Engine>) -> Rows {
        Rows { engine }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        match self.engine.get(key)? {
            None => Ok(None),
            Some(mut sealed) => {
                opened(key, &sealed)?;
                sealed.drain(..CHECKSUM_BYTES);
                Ok(Some(sealed))
            }
        }
    }

    /// Visits rows in order; a damaged one ends the scan with an error.
    pub fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), EngineError> {
        if from > to {
            return Ok(());
        }
        let mut damage = None;
        self.engine
            .scan(from, to, &mut |key, sealed| match opened(key, sealed) {
                Ok(value) => visit(key, value),
                Err(error) => {
                    damage = Some(error);
                    ControlFlow::Break(())
                }
            })?;
        damage.map_or(Ok(()), Err)
    }

    /// Rows from `from` up to but not including `to`, in order, at most `count_max`.
    pub fn range(&self, from: &[u8], to: &[u8], count_max: usize) -> Result<Vec<Row>, EngineError> {
        let mut found = Vec::new();
        self.scan(from, to, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            match found.len() < count_max {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        Ok(found)
    }

    /// Visits rows in order with their value, or `None` where a row is damaged.
    pub fn scan_all(&self, from: &[u8], to: &[u8], visit: VisitAll<'_>) -> Result<(), EngineError> {
        if from > to {
            return Ok(());
        }
        self.engine.scan(from, to, &mut |key, sealed| {
            visit(key, opened(key, sealed).ok())
        })
    }

    pub fn last_key(&self, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        match from > to {
            true => Ok(None),
            false => self.engine.last_key(from, to),
        }
    }

    /// Applies one atomic batch of at most `BATCH_OPS_MAX` operations.
    pub fn apply(&self, ops: Vec<Op>) -> Result<(), EngineError> {
        match ops.len() {
            0 => Ok(()),
            _ => self.engine.apply(sealed(ops)),
        }
    }

    pub fn sync(&self) -> Result<(), EngineError> {
        self.engine.sync()
    }

    pub fn disk_bytes(&self) -> u64 {
        self.engine.disk_bytes()
    }

    pub fn unsynced_values(&self) -> u64 {
        self.engine.unsynced_values()
    }

    pub fn is_resident(&self) -> bool {
        self.engine.is_resident()
    }
}

fn sealed(ops: Vec<Op>) -> Vec<Op> {
    assert!(
        ops.len() <= BATCH_OPS_MAX,
        "a batch is split before it grows past the bound"
    );
    ops.into_iter().map(sealed_op).collect()
}

fn sealed_op(op: Op) -> Op {
    match op {
        Op::Delete(key) => Op::Delete(key),
        Op::Put(key, value) => {
            let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + value.len());
            sealed.extend_from_slice(&checksum(&key, &value).to_le_bytes());
            sealed.extend_from_slice(&value);
            assert!(
                sealed.len() <= VALUE_BYTES_MAX + CHECKSUM_BYTES,
                "long values are chunked before they come here"
            );
            Op::Put(key, sealed)
        }
    }
}

fn opened<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], EngineError> {
    let damaged = || EngineError::Damaged {
        key: key.escape_ascii().to_string(),
    };
    let (sum, value) = sealed
        .split_first_chunk::<CHECKSUM_BYTES>()
        .ok_or_else(damaged)?;
    match u32::from_le_bytes(*sum) == checksum(key, value) {
        true => Ok(value),
        false => Err(damaged()),
    }
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

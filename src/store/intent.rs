//! Commands that need more operations than one batch holds: written down whole first, then applied in steps.
//!
//! Promises: after a crash such a command is done entirely or not at all; `redo` at open finishes one that was cut
//! short after it was written down.

use std::ops::ControlFlow;

use crate::store::engine::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, EngineError, Op, Rows, VALUE_BYTES_MAX,
};
use crate::store::keys;
use crate::store::ops;
use crate::store::record::Damaged;

/// The row that says "the intent is whole"; it sorts after all pieces.
const COMPLETE: u32 = u32::MAX;

/// Writes the operations down, applies them, and forgets them. Only a later sync makes them durable.
pub fn apply_large(rows: &Rows, ops: Vec<Op>) -> Result<(), EngineError> {
    let mut text = Vec::new();
    ops.iter().for_each(|op| ops::write(&mut text, op));
    let pieces: Vec<Op> = (0u32..)
        .zip(text.chunks(VALUE_BYTES_MAX))
        .map(|(number, piece)| Op::Put(keys::intent(number), piece.to_vec()))
        .collect();
    let count = u32::try_from(pieces.len()).expect("a command is bounded far below 4 GiB");
    in_steps(rows, pieces)?;
    rows.apply(vec![Op::Put(
        keys::intent(COMPLETE),
        count.to_le_bytes().to_vec(),
    )])?;
    in_steps(rows, ops)?;
    forget(rows, count)
}

/// At open: finishes a command that was written down whole, and clears away one that was not.
pub fn redo(rows: &Rows) -> Result<(), EngineError> {
    let (from, to) = keys::intents();
    let mut text = Vec::new();
    let mut pieces = 0;
    let mut complete = None;
    rows.scan(&from, &to, &mut |key, value| {
        if key == keys::intent(COMPLETE) {
            complete = value.try_into().ok().map(u32::from_le_bytes);
        } else {
            text.extend_from_slice(value);
            pieces += 1;
        }
        ControlFlow::Continue(())
    })?;
    if complete == Some(pieces) {
        tracing::info!(bytes = text.len(), "finishing a command that was cut short");
        let damaged = |Damaged| EngineError::Damaged {
            key: "intent".to_owned(),
        };
        in_steps(rows, ops::read(&text).map_err(damaged)?)?;
    }
    match pieces {
        0 if complete.is_none() => Ok(()),
        pieces => forget(rows, pieces),
    }
}

fn in_steps(rows: &Rows, ops: Vec<Op>) -> Result<(), EngineError> {
    let mut step = Vec::new();
    let mut bytes = 0;
    for op in ops {
        if step.len() == BATCH_OPS_MAX || bytes + op.bytes() > BATCH_BYTES_MAX {
            rows.apply(std::mem::take(&mut step))?;
            bytes = 0;
        }
        bytes += op.bytes();
        step.push(op);
    }
    rows.apply(step)
}

/// The completion row goes first, so that a command is not done again once anything of it is forgotten.
fn forget(rows: &Rows, pieces: u32) -> Result<(), EngineError> {
    rows.apply(vec![Op::Delete(keys::intent(COMPLETE))])?;
    in_steps(
        rows,
        (0..pieces)
            .map(|number| Op::Delete(keys::intent(number)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    fn large() -> Vec<Op> {
        let put = |number: u32| Op::Put(keys::state(b'z', &number.to_be_bytes()), vec![7; 100]);
        (0..1_000).map(put).collect()
    }

    fn stored(rows: &Rows) -> usize {
        let (from, to) = keys::states(b'z');
        let mut count = 0;
        rows.scan(&from, &to, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        count
    }

    #[test]
    fn a_large_command_is_whole_or_absent_after_every_crash() {
        let memory = Memory::default();
        apply_large(&Rows::new(Box::new(memory.clone())), large()).unwrap();
        let steps = memory.pending();
        for kept in 0..=steps {
            let memory = Memory::default();
            let rows = Rows::new(Box::new(memory.clone()));
            apply_large(&rows, large()).unwrap();
            memory.crash(kept);
            redo(&rows).unwrap();
            let count = stored(&rows);
            assert!(
                count == 0 || count == 1_000,
                "{count} of 1,000 rows after {kept} of {steps} batches"
            );
            let (from, to) = keys::intents();
            assert_eq!(
                rows.last_key(&from, &to).unwrap(),
                None,
                "the intent is forgotten"
            );
        }
        assert_eq!(stored(&Rows::new(Box::new(memory))), 1_000);
    }
}

//! Operations as bytes, for what must be written down before it is applied.
//!
//! Promises: what was written reads back the same; bytes that are no operations are refused, never guessed at. Whoever
//! stores them knows by a checksum that they are whole.

use crate::store::engine::Op;
use crate::store::record::{Damaged, read_varint, write_varint};

/// Appends one operation.
pub fn write(text: &mut Vec<u8>, op: &Op) {
    let (key, value) = match op {
        Op::Put(key, value) => (key, Some(value)),
        Op::Delete(key) => (key, None),
    };
    write_varint(text, key.len() as u64);
    text.extend_from_slice(key);
    // 0 says "delete"; a length is told one higher.
    write_varint(text, value.map_or(0, |value| value.len() as u64 + 1));
    text.extend_from_slice(value.map_or(&[], Vec::as_slice));
}

/// All operations of the text, in order.
pub fn read(mut text: &[u8]) -> Result<Vec<Op>, Damaged> {
    let mut ops = Vec::new();
    while !text.is_empty() {
        let key_len = read_varint(&mut text)?;
        let key = take(&mut text, key_len)?;
        ops.push(match read_varint(&mut text)? {
            0 => Op::Delete(key),
            length => Op::Put(key, take(&mut text, length - 1)?),
        });
    }
    Ok(ops)
}

fn take(text: &mut &[u8], length: u64) -> Result<Vec<u8>, Damaged> {
    let length = usize::try_from(length).map_err(|_| Damaged)?;
    let (taken, rest) = text.split_at_checked(length).ok_or(Damaged)?;
    *text = rest;
    Ok(taken.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_op() -> impl Strategy<Value = Op> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..400);
        prop_oneof![
            (bytes(), bytes()).prop_map(|(key, value)| Op::Put(key, value)),
            bytes().prop_map(Op::Delete),
        ]
    }

    proptest! {
        #[test]
        fn operations_round_trip(ops in prop::collection::vec(any_op(), 0..20)) {
            let mut text = Vec::new();
            ops.iter().for_each(|op| write(&mut text, op));
            prop_assert_eq!(read(&text), Ok(ops));
        }

        #[test]
        fn any_bytes_are_operations_or_refused(text: Vec<u8>) {
            drop(read(&text));
        }
    }
}

//! Values that are longer than one row may be, cut into chunks and put together again.
//!
//! Promises: what was cut joins to the same bytes; a chunk that is missing at the end is noticed, since the first
//! chunk knows the length of all. It knows bytes only.

use crate::store::engine::VALUE_BYTES_MAX;

const LEN_BYTES: usize = 4;

/// The chunks of a value; at least one, also of an empty value.
pub fn chunks(value: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let len = u32::try_from(value.len()).expect("values are bounded by limits.body_bytes");
    let mut sealed = Vec::with_capacity(LEN_BYTES + value.len());
    sealed.extend_from_slice(&len.to_le_bytes());
    sealed.extend_from_slice(value);
    let count = sealed.len().div_ceil(VALUE_BYTES_MAX);
    (0..count).map(move |number| {
        let start = number * VALUE_BYTES_MAX;
        sealed[start..sealed.len().min(start + VALUE_BYTES_MAX)].to_vec()
    })
}

/// The value whose chunks these are, in order; `None` without a chunk, or when not all are there.
pub fn join<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let sealed: Vec<u8> = chunks.flatten().copied().collect();
    let (len, value) = sealed.split_first_chunk::<LEN_BYTES>()?;
    (u32::from_le_bytes(*len) as usize == value.len()).then(|| value.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_cut_joins_again(len in 0usize..20_000, byte: u8) {
            let value = vec![byte; len];
            let cut: Vec<Vec<u8>> = chunks(&value).collect();
            prop_assert!(cut.iter().all(|chunk| chunk.len() <= VALUE_BYTES_MAX));
            prop_assert_eq!(join(cut.iter().map(Vec::as_slice)), Some(value));
            let but_last = &cut[..cut.len() - 1];
            prop_assert_eq!(join(but_last.iter().map(Vec::as_slice)), None);
        }
    }
}

//! The index behind the heads: user rows, and blocks of commit numbers keyed by user and seq.
//!
//! Promises: a user row and the blocks up to its `indexed` seq are written in one batch, so that either both are
//! there or the records are replayed. A block that does not hold what the head says is damage, never silence.

use crate::event::UserId;
use crate::id::UserNo;
use crate::store::engine::{EngineError, Op, Rows};
use crate::store::keys::{self, BLOCK_EVENTS};
use crate::store::logs::Head;
use crate::store::record::{Damaged, read_varint, write_varint};

const USER_ROW_VERSION: u64 = 1;
/// The same fields, of a log whose user was erased.
const ERASED_ROW_VERSION: u64 = 2;

/// The bytes of a user row. The head's fresh part must be empty or written in the same batch.
pub fn encode_user(head: &Head) -> Vec<u8> {
    let mut row = Vec::with_capacity(40 + head.name.as_str().len());
    let version = match head.is_erased {
        true => ERASED_ROW_VERSION,
        false => USER_ROW_VERSION,
    };
    let fields = [
        version,
        u64::from(head.life),
        head.tail,
        head.floor,
        head.kept_from,
        head.bytes,
        head.oldest_ms,
    ];
    for field in fields {
        write_varint(&mut row, field);
    }
    row.extend_from_slice(head.name.as_str().as_bytes());
    row
}

pub fn decode_user(mut row: &[u8]) -> Result<Head, Damaged> {
    let is_erased = match read_varint(&mut row)? {
        USER_ROW_VERSION => false,
        ERASED_ROW_VERSION => true,
        _ => return Err(Damaged),
    };
    let life = u32::try_from(read_varint(&mut row)?).map_err(|_| Damaged)?;
    let mut fields = [0; 5];
    for field in &mut fields {
        *field = read_varint(&mut row)?;
    }
    let [tail, floor, kept_from, bytes, oldest_ms] = fields;
    let name = std::str::from_utf8(row).map_err(|_| Damaged)?;
    let name: UserId = name.parse().map_err(|_| Damaged)?;
    let is_ordered = kept_from >= 1 && kept_from <= floor && floor <= tail + 1;
    is_ordered
        .then(|| Head {
            life,
            assigned: tail,
            tail,
            floor,
            kept_from,
            bytes,
            oldest_ms,
            is_erased,
            ..Head::new(name)
        })
        .ok_or(Damaged)
}

/// A run of a log: its first seq, and the commit numbers from there on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub first_seq: u64,
    pub commits: Vec<u64>,
}

impl Block {
    /// The commit number of `seq`.
    pub fn commit(&self, seq: u64) -> Option<u64> {
        let place = seq.checked_sub(self.first_seq)?;
        self.commits.get(usize::try_from(place).ok()?).copied()
    }
}

/// Distance of the first seq from the block's start, then commit numbers as differences, for they rise.
fn encode_block(block: &Block) -> Vec<u8> {
    let mut row = Vec::with_capacity(8 + block.commits.len() * 2);
    write_varint(
        &mut row,
        block.first_seq - keys::block_start(block.first_seq),
    );
    let mut previous = 0;
    for commit in &block.commits {
        write_varint(&mut row, commit - previous);
        previous = *commit;
    }
    row
}

fn decode_block(start: u64, mut row: &[u8]) -> Result<Block, Damaged> {
    let skipped = read_varint(&mut row)?;
    let mut commits = Vec::with_capacity(BLOCK_EVENTS as usize);
    let mut commit = 0u64;
    while !row.is_empty() {
        commit = commit.checked_add(read_varint(&mut row)?).ok_or(Damaged)?;
        commits.push(commit);
    }
    let is_whole = skipped + commits.len() as u64 <= BLOCK_EVENTS;
    is_whole
        .then_some(Block {
            first_seq: start + skipped,
            commits,
        })
        .ok_or(Damaged)
}

/// The block that holds `seq`, if there is one.
pub fn read_block(rows: &Rows, user: UserNo, seq: u64) -> Result<Option<Block>, EngineError> {
    let key = keys::block(user, seq);
    let Some(row) = rows.get(&key)? else {
        return Ok(None);
    };
    let damaged = |Damaged| EngineError::Damaged {
        key: key.escape_ascii().to_string(),
    };
    decode_block(keys::block_start(seq), &row)
        .map(Some)
        .map_err(damaged)
}

/// Operations that write the head's fresh part into blocks, and its user row.
pub fn write_ops(rows: &Rows, user: UserNo, head: &Head) -> Result<Vec<Op>, EngineError> {
    let mut ops = Vec::with_capacity(2 + head.fresh.len() / BLOCK_EVENTS as usize);
    let mut seq = head.indexed() + 1;
    let mut fresh = head.fresh.iter().copied().peekable();
    while fresh.peek().is_some() {
        let start = keys::block_start(seq);
        let continued = match seq > start {
            true => read_block(rows, user, seq).or_else(only_damage)?,
            false => None,
        };
        // A block whose earlier part was lost goes on without it; readers of that part will find the hole.
        let mut block = continued
            .filter(|block| block.first_seq + block.commits.len() as u64 == seq)
            .unwrap_or(Block {
                first_seq: seq,
                commits: Vec::new(),
            });
        let left = usize::try_from(start + BLOCK_EVENTS - seq).expect("a block is small");
        block.commits.extend(fresh.by_ref().take(left));
        seq = block.first_seq + block.commits.len() as u64;
        ops.push(Op::Put(keys::block(user, start), encode_block(&block)));
    }
    ops.push(Op::Put(keys::user(user), encode_user(head)));
    Ok(ops)
}

fn only_damage(error: EngineError) -> Result<Option<Block>, EngineError> {
    match error {
        EngineError::Damaged { key } => {
            tracing::error!(
                key,
                "an index block is damaged; its part of the log is lost"
            );
            Ok(None)
        }
        failed => Err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;
    use proptest::prelude::*;

    fn head(tail: u64, fresh: impl IntoIterator<Item = u64>) -> Head {
        Head {
            tail,
            assigned: tail,
            fresh: fresh.into_iter().collect(),
            ..Head::new("alice".parse().unwrap())
        }
    }

    #[test]
    fn fresh_positions_continue_their_block_and_fill_the_next() {
        let rows = Rows::new(Box::new(Memory::default()));
        let user = UserNo(3);
        rows.apply(write_ops(&rows, user, &head(100, 1001..=1100)).unwrap())
            .unwrap();
        rows.apply(write_ops(&rows, user, &head(300, 2101..=2300)).unwrap())
            .unwrap();
        let commit = |seq| read_block(&rows, user, seq).unwrap().unwrap().commit(seq);
        assert_eq!(commit(1), Some(1001));
        assert_eq!(commit(100), Some(1100));
        assert_eq!(commit(101), Some(2101));
        assert_eq!(commit(129), Some(2129));
        assert_eq!(commit(300), Some(2300));
        assert_eq!(commit(301), None);
    }

    proptest! {
        #[test]
        fn blocks_round_trip(skipped in 0u64..100, differences in prop::collection::vec(1u64..1 << 40, 0..28)) {
            let commits: Vec<u64> =
                differences.iter().scan(0, |sum, difference| { *sum += difference; Some(*sum) }).collect();
            let block = Block { first_seq: 129 + skipped, commits };
            prop_assert_eq!(decode_block(129, &encode_block(&block)), Ok(block));
        }

        #[test]
        fn user_rows_round_trip(life: u32, tail in 0u64..1 << 53, kept in 1u64..1 << 20, bytes: u64, is_erased: bool) {
            let kept_from = kept.min(tail + 1);
            let head = Head { life, floor: kept_from, kept_from, bytes, oldest_ms: 5, is_erased, ..head(tail, []) };
            prop_assert_eq!(decode_user(&encode_user(&head)), Ok(head));
        }

        #[test]
        fn any_bytes_decode_or_are_damaged(row in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode_user(&row);
            let _ = decode_block(1, &row);
        }
    }
}

//! Acks: how far each device of a user has come.
//!
//! Promises: an ack moves forward, never back; one asked for by name is on stable storage before it is answered, those
//! that a reader gives by resuming are gathered and written a moment later, together with the news for those who sent
//! what they passed.

use std::sync::Arc;

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;
use crate::event::Key;
use crate::features::receipts::{self, GATHERED, Reached, Receipts};
use crate::id::{Epoch, Position, Random, UserNo};
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::store::{Store, keys};

const ACKS: u8 = b'a';
/// Acks written in one commit.
const COMMIT_ACKS: usize = 200;

/// The device of a reader that names none.
pub const UNNAMED: &str = "-";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    #[error(
        "the cursor belongs to an earlier life of this log: load /v1/state and go on from there"
    )]
    Epoch,
    #[error("the cursor is ahead of the log")]
    Ahead,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Positions that readers gave in passing, until they are written.
#[derive(Clone, Default)]
pub struct Acks(Arc<DashMap<UserNo, u64>>);

/// Moves the device's ack to `position`, durably. Gives the position that is acked now.
pub async fn ack(
    store: &Store,
    user: UserNo,
    device: Option<Key>,
    position: Position,
) -> Result<Position, AckError> {
    let view = store.view(user);
    if position.epoch != view.epoch {
        return Err(AckError::Epoch);
    }
    if position.seq > view.tail {
        return Err(AckError::Ahead);
    }
    let device: Box<str> = device.as_ref().map_or(UNNAMED, Key::as_str).into();
    let acked = store
        .commit(64, move |transaction| {
            advance(transaction, user, &device, position)
        })
        .await?;
    Ok(Position {
        seq: acked,
        ..position
    })
}

fn advance(
    transaction: &mut Transaction<'_>,
    user: UserNo,
    device: &str,
    position: Position,
) -> Result<u64, StoreError> {
    let key = key(user, device);
    // A reader may be a moment behind the erasure of its user.
    if transaction.is_erased(user) {
        return Ok(position.seq);
    }
    let before = read(transaction, &key, position.epoch)?;
    if before.seq >= position.seq {
        return Ok(before.seq);
    }
    let after = Acked {
        seq: position.seq,
        acked_ms: transaction.now_ms(),
        ..before
    };
    transaction.put(key, after.encode(position.epoch));
    Ok(position.seq)
}

/// What is known of one device in one life of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Acked {
    seq: u64,
    acked_ms: UnixMs,
    /// The row of the unnamed device alone: how far the log was looked through for messages whose senders are told
    /// that they were delivered. It may be behind, never ahead.
    told: u64,
}

impl Acked {
    fn encode(self, epoch: Epoch) -> Vec<u8> {
        let seq = self.seq;
        let position = Position { epoch, seq };
        format!("{position} {} {}", self.acked_ms, self.told).into_bytes()
    }

    fn decode(row: &[u8]) -> Option<(Epoch, Acked)> {
        let mut words = std::str::from_utf8(row).ok()?.split(' ');
        let position: Position = words.next()?.parse().ok()?;
        let acked = Acked {
            seq: position.seq,
            acked_ms: words.next()?.parse().ok()?,
            told: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some((position.epoch, acked))
    }
}

/// A row of an earlier life of the log counts as none.
fn read(transaction: &Transaction<'_>, key: &[u8], epoch: Epoch) -> Result<Acked, StoreError> {
    let row = transaction.get(key)?.and_then(|row| Acked::decode(&row));
    let acked = row.filter(|(of, _)| *of == epoch).map(|(_, acked)| acked);
    Ok(acked.unwrap_or_default())
}

/// How far one device has come, and when it said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    pub acked: Position,
    pub acked_ms: UnixMs,
}

/// The user's devices after `after`, at most `count_max`, in the order of their names.
pub fn devices(
    transaction: &Transaction<'_>,
    user: UserNo,
    after: Option<&str>,
    count_max: usize,
) -> Result<Vec<Device>, StoreError> {
    let first = key(user, "");
    let to = [first.as_slice(), &[u8::MAX]].concat();
    let from = after.map_or_else(
        || first.clone(),
        |after| [first.as_slice(), after.as_bytes(), &[0]].concat(),
    );
    let rows = transaction.scan(&from, &to, count_max)?;
    let device = |(key, row): (Vec<u8>, Vec<u8>)| {
        let (epoch, Acked { seq, acked_ms, .. }) = Acked::decode(&row)?;
        Some(Device {
            name: String::from_utf8(key[first.len()..].to_vec()).ok()?,
            acked: Position { epoch, seq },
            acked_ms,
        })
    };
    Ok(rows.into_iter().filter_map(device).collect())
}

/// Takes away what the user's devices acked, at most `rows_max` rows at a time. Tells whether any are left.
pub fn erase(
    transaction: &mut Transaction<'_>,
    user: UserNo,
    rows_max: usize,
) -> Result<bool, StoreError> {
    let (from, to) = keys::states_of(ACKS, user);
    Ok(transaction.delete_some(&from, &to, rows_max)? == rows_max)
}

fn key(user: UserNo, device: &str) -> Vec<u8> {
    let mut name = user.0.to_be_bytes().to_vec();
    name.extend_from_slice(device.as_bytes());
    keys::state(ACKS, &name)
}

/// What one reader acked in passing, and which messages came with it.
struct Passed {
    user: UserNo,
    position: Position,
    reached: Reached,
}

impl Acks {
    /// Notes that a reader has everything up to its position; written with the next gathering.
    pub fn note(&self, user: UserNo, seq: u64) {
        if seq > 0 {
            let mut entry = self.0.entry(user).or_insert(0);
            *entry = seq.max(*entry);
        }
    }

    /// Writes what readers acked in passing and tells the senders of messages, until `stop`.
    pub async fn write_forever(
        self,
        store: Store,
        receipts: Receipts,
        random: Random,
        stop: CancellationToken,
    ) {
        loop {
            let is_over = tokio::time::timeout(GATHERED, stop.cancelled())
                .await
                .is_ok();
            if let Err(error) = self.write(&store, &receipts, &random).await {
                tracing::warn!(%error, "acks of readers could not be written");
            }
            if is_over {
                return;
            }
        }
    }

    async fn write(
        &self,
        store: &Store,
        receipts: &Receipts,
        random: &Random,
    ) -> Result<(), StoreError> {
        let gathered: Vec<UserNo> = self.0.iter().map(|entry| *entry.key()).collect();
        for some in gathered.chunks(COMMIT_ACKS) {
            let taken: Vec<_> = some.iter().filter_map(|user| self.0.remove(user)).collect();
            let passed = self.look_through(store, receipts, taken).await?;
            let (receipts, random) = (receipts.clone(), random.clone());
            let write = move |transaction: &mut Transaction<'_>| {
                for one in passed {
                    record(transaction, &receipts, &random, &one)?;
                }
                Ok::<(), StoreError>(())
            };
            store.commit_always(some.len() * 64, write).await?;
        }
        Ok(())
    }

    /// Finds the messages in what was acked. Where there is more than one gathering looks through, the rest is noted
    /// again.
    async fn look_through(
        &self,
        store: &Store,
        receipts: &Receipts,
        taken: Vec<(UserNo, u64)>,
    ) -> Result<Vec<Passed>, StoreError> {
        let has_messages = receipts.expects_messages();
        let look = move |transaction: &mut Transaction<'_>| {
            let told = taken.into_iter().map(|(user, seq)| {
                let view = transaction.view(user);
                let before = read(transaction, &key(user, UNNAMED), view.epoch)?;
                let epoch = view.epoch;
                // The log may have been erased since it was acked.
                let seq = seq.min(view.tail);
                Ok((user, Position { epoch, seq }, before.told))
            });
            told.collect::<Result<Vec<_>, StoreError>>()
        };
        let mut passed = Vec::new();
        for (user, position, told) in store.look(look).await? {
            let reached = match has_messages && told < position.seq {
                true => receipts::reached(store, user, told, position.seq).await?,
                false => Reached {
                    through: position.seq.max(told),
                    ..Reached::default()
                },
            };
            if reached.through < position.seq {
                self.note(user, position.seq);
            }
            passed.push(Passed {
                user,
                position,
                reached,
            });
        }
        Ok(passed)
    }
}

/// Writes one reader's position and tells the senders of what it reached, in one commit.
fn record(
    transaction: &mut Transaction<'_>,
    receipts: &Receipts,
    random: &Random,
    passed: &Passed,
) -> Result<(), StoreError> {
    let epoch = passed.position.epoch;
    let is_erased = transaction.is_erased(passed.user);
    if is_erased || transaction.view(passed.user).epoch != epoch {
        return Ok(());
    }
    let key = key(passed.user, UNNAMED);
    let before = read(transaction, &key, epoch)?;
    let mut after = before;
    if passed.position.seq > before.seq {
        (after.seq, after.acked_ms) = (passed.position.seq, transaction.now_ms());
    }
    after.told = passed.reached.through.max(before.told);
    if after != before {
        transaction.put(key, after.encode(epoch));
    }
    receipts.deliver(transaction, random, passed.user, &passed.reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_back_and_nothing_else_does() {
        let epoch = Epoch::of(7, UserNo(1), 0);
        let acked = Acked {
            seq: 42,
            acked_ms: 1_795_228_200_123,
            told: 7,
        };
        assert_eq!(Acked::decode(&acked.encode(epoch)), Some((epoch, acked)));
        for bad in [
            "",
            "q7m2kd-1",
            "q7m2kd-1 1",
            "q7m2kd-1 1 x",
            "q7m2kd-1 1 1 1",
            "1 1 1",
        ] {
            assert_eq!(Acked::decode(bad.as_bytes()), None, "{bad:?}");
        }
    }
}

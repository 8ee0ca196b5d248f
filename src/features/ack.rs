//! Acks: how far each device of a user has come.
//!
//! Promises: an ack moves forward, never back; one asked for by name is on stable storage before it is answered, those
//! that a reader gives by resuming are gathered and written a moment later.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

use crate::event::Key;
use crate::id::{Position, UserNo};
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::store::{Store, keys};

const ACKS: u8 = b'a';
/// Acks that readers give in passing are gathered this long.
const GATHERED: Duration = Duration::from_millis(250);
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

#[derive(Clone, Default)]
pub struct Acks(Arc<DashMap<(UserNo, Box<str>), u64>>);

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
    let acked = transaction
        .get(&key)?
        .and_then(|row| decode(&row))
        .filter(|acked| acked.epoch == position.epoch);
    match acked.filter(|acked| acked.seq >= position.seq) {
        Some(acked) => Ok(acked.seq),
        None => {
            transaction.put(key, position.to_string().into_bytes());
            Ok(position.seq)
        }
    }
}

fn decode(row: &[u8]) -> Option<Position> {
    std::str::from_utf8(row).ok()?.parse().ok()
}

fn key(user: UserNo, device: &str) -> Vec<u8> {
    let mut name = user.0.to_be_bytes().to_vec();
    name.extend_from_slice(device.as_bytes());
    keys::state(ACKS, &name)
}

impl Acks {
    /// Notes that a reader has everything up to its position; written with the next gathering.
    pub fn note(&self, user: UserNo, seq: u64) {
        if seq > 0 {
            let mut entry = self.0.entry((user, UNNAMED.into())).or_insert(0);
            *entry = seq.max(*entry);
        }
    }

    /// Writes what readers acked in passing, until `stop`.
    pub async fn write_forever(self, store: Store, stop: CancellationToken) {
        loop {
            let is_over = tokio::time::timeout(GATHERED, stop.cancelled())
                .await
                .is_ok();
            if let Err(error) = self.write(&store).await {
                tracing::warn!(%error, "acks of readers could not be written");
            }
            if is_over {
                return;
            }
        }
    }

    async fn write(&self, store: &Store) -> Result<(), StoreError> {
        let gathered: Vec<(UserNo, Box<str>)> =
            self.0.iter().map(|entry| entry.key().clone()).collect();
        for some in gathered.chunks(COMMIT_ACKS) {
            let taken: Vec<_> = some.iter().filter_map(|key| self.0.remove(key)).collect();
            let write = move |transaction: &mut Transaction<'_>| {
                for ((user, device), seq) in taken {
                    let epoch = transaction.view(user).epoch;
                    advance(transaction, user, &device, Position { epoch, seq })?;
                }
                Ok::<(), StoreError>(())
            };
            store.commit_always(some.len() * 64, write).await?;
        }
        Ok(())
    }
}

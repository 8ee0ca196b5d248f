//! Rewriting the body of one stored event, for every log that has it.
//!
//! Promises: commit, recipients and seqs stay what they are, so no index and no cursor notices; what the old body needed
//! more than the new one is deleted; memory shows the new body once it is on stable storage. It does not know why.

use std::sync::Arc;

use crate::event::Event;
use crate::store::engine::{EngineError, Op, Rows};
use crate::store::keys;
use crate::store::read;
use crate::store::record::{self, CHUNK_BYTES, Header, Recipient};
use crate::store::shared::Shared;

/// A body that was rewritten, until memory shows it.
pub struct Redacted {
    event: Arc<Event>,
    recipients: Vec<Recipient>,
    /// What the new body counts more than the old one against each log's retention; mostly less than nothing.
    retained_change: i64,
    record_change: i64,
}

impl Redacted {
    /// The new body is durable: the ring shows it, and each log's bytes count it. Gives by how much the record grew.
    ///
    /// A log's row learns its bytes when it is written next: should the process end before, the row counts the old
    /// body, and retention by bytes comes that much early.
    pub fn show(self, shared: &Shared) -> i64 {
        for recipient in &self.recipients {
            shared.logs.change(recipient.user, |head| {
                if head.kept_from <= recipient.seq {
                    head.bytes = head.bytes.saturating_add_signed(self.retained_change);
                }
            });
        }
        shared.ring.replace(self.event);
        self.record_change
    }
}

/// The operations that put what `change` makes of the event in its place; `None` when the event is gone, damaged, or
/// left alone.
pub fn rewrite(
    rows: &Rows,
    commit: u64,
    change: impl FnOnce(&Event) -> Option<Event>,
) -> Result<Option<(Vec<Op>, Redacted)>, EngineError> {
    let (Some(header), Some(old)) = (read::header(rows, commit)?, read::event(rows, commit)?)
    else {
        return Ok(None);
    };
    let recipients = read::recipients(rows, commit)?;
    let changed = change(&old).filter(|_| !recipients.is_empty());
    let Some(mut event) = changed else {
        return Ok(None);
    };
    assert!(
        (event.id(), event.event_type(), event.topic(), event.time_ms)
            == (old.id(), old.event_type(), old.topic(), old.time_ms),
        "a redaction keeps what readers know an event by"
    );
    event.commit = commit;
    let record = record::encode(&event, &recipients);
    let mut ops: Vec<Op> = (0u16..)
        .zip(record.chunks(CHUNK_BYTES))
        .map(|(chunk, bytes)| Op::Put(keys::record(commit, chunk), bytes.to_vec()))
        .collect();
    let chunks = Header::chunks_of(record.len())..Header::chunks_of(header.total_bytes());
    ops.extend(chunks.map(|chunk| Op::Delete(keys::record(commit, chunk))));
    let retained = record::retained_bytes(event.json().len());
    let redacted = Redacted {
        retained_change: difference(retained, header.retained_bytes()),
        record_change: difference(record.len() as u64, header.total_bytes() as u64),
        event: Arc::new(event),
        recipients,
    };
    Ok(Some((ops, redacted)))
}

fn difference(new: u64, old: u64) -> i64 {
    i64::try_from(i128::from(new) - i128::from(old)).expect("records are bounded far below 4 GiB")
}

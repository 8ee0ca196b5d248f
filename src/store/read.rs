//! Reading old events: from index blocks to commit numbers, from those to bodies.
//!
//! Promises: the cost follows what is read, never the length of the history. What is damaged is told as lost; nothing
//! is skipped in silence. These functions may wait for the disk: async code calls them on the blocking pool.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::clock::UnixMs;
use crate::event::Event;
use crate::id::UserNo;
use crate::store::engine::{EngineError, Rows};
use crate::store::index;
use crate::store::keys;
use crate::store::logs::{Commits, Place};
use crate::store::record::{self, CHUNK_BYTES, Header, Recipient};
use crate::store::shared::Shared;

/// One event of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub seq: u64,
    pub event: Arc<Event>,
}

/// Events of one log with rising seqs, without a hole between them.
pub type Page = SmallVec<[Entry; 2]>;

/// What reading after a seq gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// Nothing is newer.
    AtTail,
    /// Some of what is newer is gone; the oldest left is `floor`.
    Gone {
        floor: u64,
    },
    Page(Page),
}

/// How much a page may hold. It always holds one event, however large.
#[derive(Debug, Clone, Copy)]
pub struct PageBounds {
    pub bytes: usize,
    pub events: usize,
}

/// Fills a page until a bound is reached.
pub struct Filling {
    page: Page,
    bounds: PageBounds,
    bytes: usize,
}

impl Filling {
    pub fn new(bounds: PageBounds) -> Filling {
        Filling {
            page: Page::new(),
            bounds,
            bytes: 0,
        }
    }

    pub fn is_full(&self) -> bool {
        self.page.len() >= self.bounds.events || self.bytes >= self.bounds.bytes
    }

    pub fn push(&mut self, seq: u64, event: Arc<Event>) {
        self.bytes += event.json().len();
        self.page.push(Entry { seq, event });
    }

    pub fn len(&self) -> usize {
        self.page.len()
    }

    pub fn is_empty(&self) -> bool {
        self.page.is_empty()
    }

    pub fn into_page(self) -> Page {
        self.page
    }
}

/// Reads what memory does not hold.
pub fn old(
    shared: &Shared,
    user: UserNo,
    after: u64,
    bounds: PageBounds,
    places_max: usize,
) -> Result<Read, EngineError> {
    let mut filling = Filling::new(bounds);
    let count_max = places_max.min(bounds.events);
    let mut commits = Commits::new();
    let (_, place) = shared
        .logs
        .place_after(user, after, count_max, &mut commits);
    let lost = match place {
        Place::AtTail => return Ok(Read::AtTail),
        Place::Gone { floor } => return Ok(Read::Gone { floor }),
        Place::Known => fill(shared, &mut filling, after + 1, &commits)?,
        Place::Indexed { through } => fill_indexed(shared, &mut filling, user, after, through)?,
    };
    // Retention may have taken the first of them while they were read: then they are not all there.
    if let (_, Place::Gone { floor }) = shared.logs.place_after(user, after, 0, &mut commits) {
        return Ok(Read::Gone { floor });
    }
    Ok(after_loss(shared, user, filling, lost))
}

/// Events after `after`, whose commit numbers are these, from memory alone; `None` when the disk must be asked.
pub fn recent(shared: &Shared, after: u64, bounds: PageBounds, commits: &[u64]) -> Option<Read> {
    let mut filling = Filling::new(bounds);
    fill_from_ring(shared, &mut filling, after + 1, commits);
    if filling.is_empty() {
        return None;
    }
    shared.metrics.reads_memory.inc();
    Some(Read::Page(filling.into_page()))
}

/// Adds the events of `commits` from the ring, from `seq` on; tells how many it had or the page took.
fn fill_from_ring(shared: &Shared, filling: &mut Filling, seq: u64, commits: &[u64]) -> usize {
    let mut taken = 0;
    // A few at a time, so that a page that is full early does not hold the ring for the rest.
    for some in commits.chunks(32) {
        if filling.is_full() {
            break;
        }
        let mut next = seq + taken as u64;
        let found = shared.ring.take_each(some, |event| {
            if !filling.is_full() {
                filling.push(next, event);
                next += 1;
            }
        });
        taken = usize::try_from(next - seq).expect("a page is small");
        if found < some.len() {
            break;
        }
    }
    taken
}

/// Adds the events of `commits` from the ring or the disk. Stops at a lost one and gives its seq.
pub fn fill(
    shared: &Shared,
    filling: &mut Filling,
    seq: u64,
    commits: &[u64],
) -> Result<Option<u64>, EngineError> {
    let mut next = 0;
    while next < commits.len() && !filling.is_full() {
        let from_ring = fill_from_ring(shared, filling, seq + next as u64, &commits[next..]);
        next += from_ring;
        if from_ring > 0 || next >= commits.len() || filling.is_full() {
            continue;
        }
        match event(&shared.rows, commits[next])? {
            Some(event) => filling.push(seq + next as u64, Arc::new(event)),
            None => return Ok(Some(seq + next as u64)),
        }
        next += 1;
    }
    Ok(None)
}

/// Adds events by the index blocks, from after `after` up to `through`. Gives the seq of the first lost one.
pub fn fill_indexed(
    shared: &Shared,
    filling: &mut Filling,
    user: UserNo,
    after: u64,
    through: u64,
) -> Result<Option<u64>, EngineError> {
    let mut seq = after + 1;
    while seq <= through && !filling.is_full() {
        let block = or_lost(index::read_block(&shared.rows, user, seq))?.flatten();
        let Some(block) = block.filter(|block| block.commit(seq).is_some()) else {
            return Ok(Some(seq));
        };
        let skip = usize::try_from(seq - block.first_seq).expect("a block is small");
        let count = usize::try_from(through - seq + 1).unwrap_or(usize::MAX);
        let commits: Vec<u64> = block.commits.into_iter().skip(skip).take(count).collect();
        let before = filling.len();
        if let Some(lost) = fill(shared, filling, seq, &commits)? {
            return Ok(Some(lost));
        }
        seq += (filling.len() - before) as u64;
    }
    Ok(None)
}

/// The event with this commit number; `None` when it is damaged or gone.
pub fn event(rows: &Rows, commit: u64) -> Result<Option<Event>, EngineError> {
    let body = prefix(rows, commit, Header::body_bytes)?;
    Ok(body.and_then(|body| record::decode_event(commit, body).ok()))
}

/// All who have the event; an empty list when its record is damaged or gone.
pub fn recipients(rows: &Rows, commit: u64) -> Result<Vec<Recipient>, EngineError> {
    let record = prefix(rows, commit, Header::total_bytes)?;
    let decoded = record.map(|record| record::decode_recipients(&record));
    Ok(decoded.and_then(Result::ok).unwrap_or_default())
}

pub fn header(rows: &Rows, commit: u64) -> Result<Option<Header>, EngineError> {
    let first = or_lost(rows.get(&keys::record(commit, 0)))?.flatten();
    Ok(first.and_then(|first| Header::read(&first).ok()))
}

/// The first bytes of a record, as many as `length` says, or `None` when some are lost.
fn prefix(
    rows: &Rows,
    commit: u64,
    length: impl Fn(&Header) -> usize,
) -> Result<Option<Vec<u8>>, EngineError> {
    let Some(mut bytes) = or_lost(rows.get(&keys::record(commit, 0)))?.flatten() else {
        return Ok(None);
    };
    let Ok(header) = Header::read(&bytes) else {
        return Ok(None);
    };
    let chunks = Header::chunks_of(length(&header));
    for chunk in 1..chunks {
        match or_lost(rows.get(&keys::record(commit, chunk)))?.flatten() {
            Some(more) if bytes.len() == usize::from(chunk) * CHUNK_BYTES => {
                bytes.extend_from_slice(&more)
            }
            _ => return Ok(None),
        }
    }
    Ok((bytes.len() >= length(&header)).then_some(bytes))
}

/// The newest seq before the first event at or after `time_ms`: where a reader "since" that time starts.
pub fn seq_before(shared: &Shared, user: UserNo, time_ms: UnixMs) -> Result<u64, EngineError> {
    let view = shared.logs.view(user);
    let (mut low, mut high) = (view.floor, view.tail + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let time = commit_of(shared, user, middle)?
            .map(|commit| header(&shared.rows, commit))
            .transpose()?
            .flatten()
            .map(|header| header.time_ms);
        // A lost event counts as old: the search goes on in the newer half.
        match time.is_some_and(|time| time >= time_ms) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    Ok(low - 1)
}

fn commit_of(shared: &Shared, user: UserNo, seq: u64) -> Result<Option<u64>, EngineError> {
    let fresh = shared.logs.read(user, |head| {
        let place = seq.checked_sub(head.indexed() + 1)?;
        head.fresh.get(usize::try_from(place).ok()?)
    });
    match fresh {
        Some(commit) => Ok(Some(commit)),
        None => {
            let block = or_lost(index::read_block(&shared.rows, user, seq))?.flatten();
            Ok(block.and_then(|block| block.commit(seq)))
        }
    }
}

/// Turns a damaged row into `None`; a failed engine stays an error.
pub fn or_lost<T>(result: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(EngineError::Damaged { key }) => {
            tracing::error!(key, "a stored row is damaged");
            Ok(None)
        }
        Err(failed) => Err(failed),
    }
}

/// What reading made of a place where an event was lost: readers behind it are told of the gap.
pub fn after_loss(shared: &Shared, user: UserNo, filling: Filling, lost: Option<u64>) -> Read {
    let Some(seq) = lost.filter(|_| filling.is_empty()) else {
        return Read::Page(filling.into_page());
    };
    let floor = shared.logs.change(user, |head| {
        head.floor = head.floor.max(seq + 1);
        head.floor
    });
    tracing::error!(
        seq,
        "a stored event is lost to damage; its readers are told by a reset"
    );
    Read::Gone { floor }
}

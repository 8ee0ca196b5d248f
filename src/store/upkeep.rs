//! What the committer does between groups: write the index behind the commits, trim logs, forget old keys.
//!
//! Promises: each step is a few small batches; heads and rows change together; a body is deleted once no log keeps it,
//! in the batch in which the last log lets it go. Under load it works only on what has piled up.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::UnixMs;
use crate::event::Event;
use crate::id::UserNo;
use crate::store::engine::{BATCH_OPS_MAX, EngineError, Op};
use crate::store::index::{self, Block};
use crate::store::intent;
use crate::store::keys;
use crate::store::logs::{Fresh, Head, Logs};
use crate::store::read;
use crate::store::record::{self, Header, Recipient};
use crate::store::redaction::Redacted;
use crate::store::rounds::{self, Rounds};
use crate::store::shared::Shared;

/// The index may lag this many commits and log entries behind: it bounds the replay at start and the memory.
const BACKLOG_COMMITS_MAX: u64 = 50_000;
const BACKLOG_ENTRIES_MAX: usize = 1_000_000;
/// A step stops once it holds this many operations; the rest of the batch is room for the last log's.
const STEP_OPS: usize = 200;
/// Under load a log is trimmed once this many of its events are due, or an eighth of what it may keep: the rest is
/// disk that nobody reads.
const TRIM_EVENTS_MIN: u64 = 64;
/// Of the logs that are due, one in this many is trimmed in a step: the work grows with what has piled up.
const LOGS_PER_STEP: usize = 32;
/// The pause between two steps while logs are due, and while old keys are.
const BUSY: Duration = Duration::from_millis(1);
const FORGETTING: Duration = Duration::from_millis(100);
/// Bodies with several recipients whose remaining keepers are counted in memory; past that the counts start anew.
const COUNTED_MAX: usize = 200_000;

/// What a log may keep; 0, which is the default, = no bound.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    pub events: u64,
    pub age_ms: u64,
    pub bytes: u64,
    pub total_bytes: u64,
}

impl Retention {
    fn slack(&self) -> u64 {
        TRIM_EVENTS_MIN.min(self.events / 8).max(1)
    }
}

pub struct Upkeep {
    retention: Retention,
    /// Logs with entries that are not in index blocks, by the commit number of the first of them.
    unindexed: BTreeSet<(u64, UserNo)>,
    entries: usize,
    /// Logs with something to trim.
    due: VecDeque<UserNo>,
    is_due: std::collections::HashSet<UserNo>,
    rounds: Rounds,
    /// How many logs still keep a body that several got; counted when the first of them lets it go.
    keepers: HashMap<u64, u32>,
    forgotten_before: u32,
    /// There are more keys to forget.
    is_forgetting: bool,
    /// Bytes of stored bodies, each counted once.
    live_bytes: u64,
}

impl Upkeep {
    pub fn new(retention: Retention, live_bytes: u64) -> Upkeep {
        Upkeep {
            retention,
            unindexed: BTreeSet::new(),
            entries: 0,
            due: VecDeque::new(),
            is_due: std::collections::HashSet::new(),
            rounds: Rounds::default(),
            keepers: HashMap::new(),
            forgotten_before: 0,
            is_forgetting: false,
            live_bytes,
        }
    }

    /// Adds a durable event to one of the logs that got it, and notes what that leaves to do.
    pub fn arrived(&mut self, logs: &Logs, recipient: &Recipient, event: &Event) {
        let Recipient { user, seq } = *recipient;
        let (retention, commit) = (self.retention, event.commit);
        let bytes = record::retained_bytes(event.json().len());
        let is_due = logs.arrive((user, seq), (commit, bytes), |head| {
            if head.fresh.len() == 1 {
                self.unindexed.insert((commit, user));
            }
            if head.oldest_ms == 0 {
                head.oldest_ms = event.time_ms;
            }
            head.floor - head.kept_from >= retention.slack()
                || (retention.bytes > 0 && head.bytes > retention.bytes)
        });
        self.entries += 1;
        if is_due {
            self.enqueue(user);
        }
    }

    /// Takes in what was replayed at open: its heads know it, the index does not.
    pub fn resume(&mut self, logs: &Logs, replayed: &[(Arc<Event>, Vec<Recipient>)]) {
        for (event, recipients) in replayed {
            for recipient in recipients {
                let is_first = logs.change(recipient.user, |head| {
                    // Without this, a log that nobody writes to after a restart would never be trimmed by age.
                    if head.oldest_ms == 0 {
                        head.oldest_ms = event.time_ms;
                    }
                    head.fresh.first() == Some(event.commit)
                });
                if is_first {
                    self.unindexed.insert((event.commit, recipient.user));
                }
                self.entries += 1;
            }
        }
    }

    pub fn stored(&mut self, bytes: u64) {
        self.live_bytes += bytes;
    }

    /// Takes in what erasures of the last group left: logs to trim, and bodies that are shorter now.
    pub fn erased(&mut self, shared: &Shared, forgotten: Vec<UserNo>, redacted: Vec<Redacted>) {
        for user in forgotten {
            self.enqueue(user);
        }
        for redacted in redacted {
            let left = redacted.show(shared);
            self.live_bytes = self.live_bytes.saturating_add_signed(left);
        }
    }

    fn enqueue(&mut self, user: UserNo) {
        if self.is_due.insert(user) {
            self.due.push_back(user);
        }
    }

    /// One small step of each kind of work that is due. Events from commit number `shown_next` on may be applied, but
    /// are not durable: no head knows them, and nothing here may count them in.
    pub fn step(
        &mut self,
        shared: &Shared,
        shown_next: u64,
        is_idle: bool,
    ) -> Result<(), EngineError> {
        let behind = self
            .unindexed
            .first()
            .map_or(0, |(commit, _)| shown_next - commit);
        if behind > BACKLOG_COMMITS_MAX || self.entries > BACKLOG_ENTRIES_MAX {
            self.write_index(shared, shown_next)?;
        }
        self.trim_due(shared, shown_next)?;
        let (logs, now_ms) = (&shared.logs, shared.clock.now_ms());
        for user in self.rounds.look(logs, &self.retention, now_ms, is_idle) {
            self.enqueue(user);
        }
        if self.retention.total_bytes > 0 && self.live_bytes > self.retention.total_bytes {
            self.shed_oldest(shared, shown_next)?;
        }
        // A server that is never idle must forget too, or its disk fills.
        self.forget_keys(shared, if is_idle { BATCH_OPS_MAX } else { STEP_OPS })?;
        let metrics = &shared.metrics;
        metrics
            .live_bytes
            .set(i64::try_from(self.live_bytes).unwrap_or(i64::MAX));
        metrics
            .index_backlog
            .set(i64::try_from(self.entries).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Trims some of the logs that are due, in few batches: each costs writes of its own, whatever it holds.
    fn trim_due(&mut self, shared: &Shared, shown_next: u64) -> Result<(), EngineError> {
        let count = self.due.len().div_ceil(LOGS_PER_STEP);
        let users: Vec<UserNo> = self.due.drain(..count).collect();
        for user in &users {
            self.is_due.remove(user);
        }
        self.index_logs(shared, &users)?;
        let mut ops = Vec::new();
        for user in users {
            let trimmed = self.trim(shared, user)?;
            // One place is left for the mark.
            if ops.len() + trimmed.len() >= BATCH_OPS_MAX {
                self.apply_trimmed(shared, shown_next, std::mem::take(&mut ops))?;
            }
            ops.extend(trimmed);
        }
        self.apply_trimmed(shared, shown_next, ops)
    }

    fn apply_trimmed(
        &self,
        shared: &Shared,
        shown_next: u64,
        mut ops: Vec<Op>,
    ) -> Result<(), EngineError> {
        if ops.is_empty() {
            return Ok(());
        }
        ops.push(live_mark(shown_next, self.live_bytes));
        apply_together(shared, ops)
    }

    /// How long the committer may wait for the next command before it takes another step.
    pub fn pause(&self, shared: &Shared) -> Duration {
        if !self.due.is_empty() {
            return BUSY;
        }
        match self.is_forgetting {
            true => FORGETTING,
            false => rounds::looks(shared.logs.count(), self.retention.age_ms).0,
        }
    }

    /// Writes the entries that have waited longest into index blocks, and how far the index is complete.
    fn write_index(&mut self, shared: &Shared, shown_next: u64) -> Result<(), EngineError> {
        let mut ops = Vec::new();
        let mut written = Vec::new();
        while ops.len() < STEP_OPS
            && let Some((_, user)) = self.unindexed.pop_first()
        {
            let head = shared.logs.read(user, Head::clone);
            ops.extend(index::write_ops(&shared.rows, user, &head)?);
            written.push((user, head.fresh.len()));
        }
        let complete = self
            .unindexed
            .first()
            .map_or(shown_next, |(commit, _)| *commit)
            - 1;
        ops.push(index_mark(complete));
        ops.push(live_mark(shown_next, self.live_bytes));
        apply_together(shared, ops)?;
        for (user, entries) in written {
            shared.logs.change(user, |head| head.fresh.forget(entries));
            self.entries -= entries;
        }
        Ok(())
    }

    /// Writes the logs' entries, so that their user rows may be written.
    fn index_logs(&mut self, shared: &Shared, users: &[UserNo]) -> Result<(), EngineError> {
        let mut ops = Vec::new();
        for user in users {
            let head = shared.logs.read(*user, Head::clone);
            let Some(first) = head.fresh.first() else {
                continue;
            };
            self.unindexed.remove(&(first, *user));
            self.entries -= head.fresh.len();
            ops.extend(index::write_ops(&shared.rows, *user, &head)?);
            if ops.len() >= STEP_OPS {
                apply_together(shared, std::mem::take(&mut ops))?;
            }
        }
        apply_together(shared, ops)?;
        for user in users {
            shared
                .logs
                .change(*user, |head| head.fresh = Fresh::default());
        }
        Ok(())
    }

    /// Takes the log's oldest due events away, about one batch of them, from its head. Gives what its rows lack for it.
    fn trim(&mut self, shared: &Shared, user: UserNo) -> Result<Vec<Op>, EngineError> {
        let mut head = shared.logs.read(user, Head::clone);
        let started_at = head.kept_from;
        let mut ops = Vec::new();
        let mut block: Option<Block> = None;
        let mut is_more_due = true;
        while is_more_due && ops.len() < STEP_OPS {
            is_more_due = self.trim_one(shared, user, &mut head, &mut block, &mut ops)?;
        }
        let trimmed = head.kept_from - started_at;
        if trimmed > 0 {
            if head.is_erased && head.kept_from > head.tail {
                // Nothing is appended any more: the block that others would go on to fill goes too.
                ops.push(Op::Delete(keys::block(user, head.tail)));
            }
            ops.push(Op::Put(keys::user(user), index::encode_user(&head)));
        }
        shared.logs.change(user, |old| {
            old.floor = old.floor.max(head.floor);
            old.kept_from = head.kept_from;
            old.bytes = head.bytes;
            old.oldest_ms = head.oldest_ms;
        });
        shared.metrics.trimmed.inc_by(trimmed);
        if is_more_due && trimmed > 0 {
            self.enqueue(user);
        }
        Ok(ops)
    }

    /// Takes the log's oldest event away if it is due.
    fn trim_one(
        &mut self,
        shared: &Shared,
        user: UserNo,
        head: &mut Head,
        block: &mut Option<Block>,
        ops: &mut Vec<Op>,
    ) -> Result<bool, EngineError> {
        let seq = head.kept_from;
        if seq > head.tail {
            return Ok(false);
        }
        if block.as_ref().and_then(|block| block.commit(seq)).is_none() {
            *block = read::or_lost(index::read_block(&shared.rows, user, seq))?.flatten();
        }
        let commit = block.as_ref().and_then(|block| block.commit(seq));
        let found = match commit {
            Some(commit) => read::header(&shared.rows, commit)?.map(|header| (commit, header)),
            None => None,
        };
        match found {
            Some((commit, header)) => {
                if !self.is_event_due(seq, head, &header, shared.clock.now_ms()) {
                    head.oldest_ms = header.time_ms;
                    return Ok(false);
                }
                head.bytes = head.bytes.saturating_sub(header.retained_bytes());
                head.oldest_ms = header.time_ms;
                self.let_go(shared, user, commit, &header, ops)?;
            }
            None => tracing::error!(
                seq,
                "an event was lost to damage before retention reached it"
            ),
        }
        head.kept_from = seq + 1;
        head.floor = head.floor.max(seq + 1);
        if keys::block_start(seq + 1) == seq + 1 {
            ops.push(Op::Delete(keys::block(user, seq)));
        }
        Ok(true)
    }

    fn is_event_due(&self, seq: u64, head: &Head, header: &Header, now_ms: UnixMs) -> bool {
        let Retention { bytes, age_ms, .. } = self.retention;
        seq < head.floor
            || (bytes > 0 && head.bytes > bytes)
            || (age_ms > 0 && header.time_ms.saturating_add(age_ms) <= now_ms)
    }

    /// One log no longer keeps the body; with the last one the body goes.
    fn let_go(
        &mut self,
        shared: &Shared,
        user: UserNo,
        commit: u64,
        header: &Header,
        ops: &mut Vec<Op>,
    ) -> Result<(), EngineError> {
        if header.recipients > 1 {
            if self.keepers.len() > COUNTED_MAX {
                self.keepers.clear();
            }
            let others = match self.keepers.get(&commit) {
                Some(keepers) => keepers - 1,
                None => count_other_keepers(shared, user, commit)?,
            };
            if others > 0 {
                self.keepers.insert(commit, others);
                return Ok(());
            }
            self.keepers.remove(&commit);
        }
        let chunks = Header::chunks_of(header.total_bytes());
        ops.extend((0..chunks).map(|chunk| Op::Delete(keys::record(commit, chunk))));
        self.live_bytes = self.live_bytes.saturating_sub(header.total_bytes() as u64);
        Ok(())
    }

    /// The store is larger than it may be: the oldest body goes from every log that keeps it.
    fn shed_oldest(&mut self, shared: &Shared, shown_next: u64) -> Result<(), EngineError> {
        let mut oldest = None;
        shared
            .rows
            .scan_all(&keys::record(0, 0), &keys::records_end(), &mut |key, _| {
                oldest = keys::parse_record(key);
                ControlFlow::Break(())
            })?;
        let Some((commit, chunk)) = oldest else {
            // What damage took away was never counted as gone.
            self.live_bytes = 0;
            return Ok(());
        };
        if commit >= shown_next {
            return Ok(());
        }
        let recipients = read::recipients(&shared.rows, commit)?;
        let keeps = |recipient: &Recipient| {
            shared
                .logs
                .read(recipient.user, |head| head.kept_from <= recipient.seq)
        };
        // A damaged record that no log will ever let go would stand before all others for good.
        if !recipients.iter().any(keeps) {
            return shared
                .rows
                .apply(vec![Op::Delete(keys::record(commit, chunk))]);
        }
        for recipient in recipients {
            self.index_logs(shared, &[recipient.user])?;
            shared.logs.change(recipient.user, |head| {
                head.floor = head.floor.max(recipient.seq + 1)
            });
            self.enqueue(recipient.user);
        }
        Ok(())
    }

    /// Forgets idempotency keys that are two days old, a batch at a time.
    fn forget_keys(&mut self, shared: &Shared, ops_max: usize) -> Result<(), EngineError> {
        let keep_from = keys::day_of(shared.clock.now_ms()).saturating_sub(1);
        if self.forgotten_before >= keep_from {
            return Ok(());
        }
        let (from, to) = keys::remembered_before(keep_from);
        let mut ops = Vec::new();
        shared.rows.scan_all(&from, &to, &mut |key, _| {
            ops.push(Op::Delete(key.to_vec()));
            if ops.len() < ops_max {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        self.is_forgetting = !ops.is_empty();
        if !self.is_forgetting {
            self.forgotten_before = keep_from;
        }
        shared.rows.apply(ops)
    }
}

/// The row that says up to which commit the index is complete.
fn index_mark(complete: u64) -> Op {
    Op::Put(keys::meta("indexed"), complete.to_le_bytes().to_vec())
}

/// The row that says how many bytes of bodies the commits before `shown_next` left.
pub fn live_mark(shown_next: u64, live_bytes: u64) -> Op {
    let mut value = shown_next.to_le_bytes().to_vec();
    value.extend_from_slice(&live_bytes.to_le_bytes());
    Op::Put(keys::meta("live"), value)
}

/// Applies operations that belong together, whatever their number.
fn apply_together(shared: &Shared, ops: Vec<Op>) -> Result<(), EngineError> {
    match ops.len() > BATCH_OPS_MAX {
        true => intent::apply_large(&shared.rows, ops),
        false => shared.rows.apply(ops),
    }
}

/// Logs other than `user` that still keep the body.
fn count_other_keepers(shared: &Shared, user: UserNo, commit: u64) -> Result<u32, EngineError> {
    let recipients = read::recipients(&shared.rows, commit)?;
    let keeps = |other: &&Recipient| {
        other.user != user
            && shared
                .logs
                .read(other.user, |head| head.kept_from <= other.seq)
    };
    Ok(u32::try_from(recipients.iter().filter(keeps).count()).unwrap_or(u32::MAX))
}

//! One command at work in the committer: what it reads, what it appends, what it changes.
//!
//! Promises: a command sees the store as all commands before it left it, also those of its own group; its events and
//! its rows become one commit, or none of them does. It never waits for a reader or for the network.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::clock::UnixMs;
use crate::event::{Event, Topic, UserId};
use crate::id::{Position, UserNo};
use crate::store::engine::{BATCH_OPS_MAX, EngineError, Op, Row};
use crate::store::index;
use crate::store::intent;
use crate::store::keys;
use crate::store::layers::{self, Layer};
use crate::store::logs::{Head, View};
use crate::store::long;
use crate::store::record::{self, CHUNK_BYTES, Recipient};
use crate::store::redaction::{self, Redacted};
use crate::store::shared::{Shared, StoreError};
use crate::store::topics::Topics;

/// The committer's own state: what the next command builds on.
pub struct Writer {
    pub shared: Arc<Shared>,
    pub topics: Topics,
    pub next_commit: u64,
    /// Whether anything was applied since a sync began. Written by the writer, taken back by the committer.
    pub is_dirty: bool,
    /// Logs created since the last command; their rows go before those of the next one.
    new_users: Vec<UserNo>,
    /// Events of this group, for the readers once they are durable.
    pub arrivals: Vec<Arrival>,
    /// Logs that this group forgot and bodies that it rewrote, for memory once that is durable.
    pub forgotten: Vec<UserNo>,
    pub redacted: Vec<Redacted>,
}

pub struct Arrival {
    pub event: Arc<Event>,
    pub recipients: Vec<Recipient>,
    /// Size of the record, body and recipients.
    pub record_bytes: u64,
}

/// What one command wants, until it is kept or discarded as a whole.
#[derive(Default)]
struct Staged {
    ops: Vec<Op>,
    events: Vec<(Event, Vec<Recipient>)>,
    topics: Vec<(Topic, UserNo, Membership)>,
    forgotten: Vec<UserNo>,
    redacted: Vec<Redacted>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Membership {
    Joins,
    Leaves,
}

pub struct Transaction<'a> {
    writer: &'a mut Writer,
    now_ms: UnixMs,
    staged: Staged,
}

/// The seqs that an appended event got, in the order of user numbers.
pub struct Appended<'a> {
    pub recipients: &'a [Recipient],
}

impl Transaction<'_> {
    /// The time of this command: the same whenever it is asked, so that its rows and its events agree.
    pub fn now_ms(&self) -> UnixMs {
        self.now_ms
    }

    /// The number of a user, who gets an empty log now if there was none.
    pub fn user(&mut self, name: &UserId) -> UserNo {
        if let Some(user) = self.writer.shared.logs.find(name) {
            return user;
        }
        let user = UserNo(self.writer.shared.logs.count());
        self.writer.shared.logs.add(user, Head::new(name.clone()));
        self.writer.new_users.push(user);
        user
    }

    pub fn find_user(&self, name: &UserId) -> Option<UserNo> {
        self.writer.shared.logs.find(name)
    }

    /// The log as its readers see it: events that are not durable yet, also of earlier commands, are not in it.
    pub fn view(&self, user: UserNo) -> View {
        self.writer.shared.logs.view(user)
    }

    /// Users subscribed to a topic.
    pub fn subscribers(&self, topic: &Topic) -> Vec<UserNo> {
        let mut users = self.writer.topics.users(topic).to_vec();
        for (changed, user, membership) in &self.staged.topics {
            if changed == topic {
                users.retain(|other| other != user);
                users.extend((*membership == Membership::Joins).then_some(*user));
            }
        }
        users
    }

    pub fn subscribe(&mut self, topic: &Topic, user: UserNo) {
        let since = self.now_ms().to_le_bytes().to_vec();
        self.staged
            .ops
            .push(Op::Put(keys::subscription(topic, user), since));
        self.staged
            .topics
            .push((topic.clone(), user, Membership::Joins));
    }

    pub fn unsubscribe(&mut self, topic: &Topic, user: UserNo) {
        self.staged
            .ops
            .push(Op::Delete(keys::subscription(topic, user)));
        self.staged
            .topics
            .push((topic.clone(), user, Membership::Leaves));
    }

    /// A row as this command and all before it left it.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        for op in self.staged.ops.iter().rev() {
            match op {
                Op::Put(changed, value) if changed == key => return Ok(Some(value.clone())),
                Op::Delete(changed) if changed == key => return Ok(None),
                _ => {}
            }
        }
        Ok(self.writer.shared.rows.get(key)?)
    }

    /// Rows from `from` up to but not including `to`, in order, at most `count_max`, as this command and all before it
    /// left them.
    pub fn scan(&self, from: &[u8], to: &[u8], count_max: usize) -> Result<Vec<Row>, StoreError> {
        let changes = self.changes(from, to);
        // Each row that this command deletes may hide one that would have been found.
        let stored_max = count_max.saturating_add(changes.len());
        let mut rows = BTreeMap::new();
        self.writer.shared.rows.scan(from, to, &mut |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            match rows.len() < stored_max {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        for (key, value) in changes {
            match value {
                Some(value) => drop(rows.insert(key, value)),
                None => drop(rows.remove(&key)),
            }
        }
        Ok(rows.into_iter().take(count_max).collect())
    }

    /// The greatest key from `from` up to but not including `to`.
    pub fn last_key(&self, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let changes = self.changes(from, to);
        let rows = &self.writer.shared.rows;
        let last = layers::last_key(&changes, to, |end| rows.last_key(from, end));
        Ok(last?)
    }

    /// What this command makes of the rows of a range, that the engine does not have yet.
    fn changes(&self, from: &[u8], to: &[u8]) -> Layer {
        let is_meant = |key: &[u8]| from <= key && key < to;
        let mut changes = Layer::new();
        for op in &self.staged.ops {
            match op {
                Op::Put(key, value) if is_meant(key) => {
                    changes.insert(key.clone(), Some(value.clone()));
                }
                Op::Delete(key) if is_meant(key) => drop(changes.insert(key.clone(), None)),
                _ => {}
            }
        }
        changes
    }

    /// The value must not be longer than `VALUE_BYTES_MAX`; see `put_long`.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.staged.ops.push(Op::Put(key, value));
    }

    /// Puts a value of any length, as chunks under `keys::chunk`, over whatever was there.
    pub fn put_long(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.delete_long(key)?;
        for (number, chunk) in (0u16..).zip(long::chunks(value)) {
            self.put(keys::chunk(key, number), chunk);
        }
        Ok(())
    }

    pub fn get_long(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self.scan(&keys::chunk(key, 0), &keys::chunks_end(key), usize::MAX)?;
        Ok(long::join(rows.iter().map(|(_, chunk)| chunk.as_slice())))
    }

    pub fn delete_long(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let rows = self.scan(&keys::chunk(key, 0), &keys::chunks_end(key), usize::MAX)?;
        for (key, _) in rows {
            self.delete(key);
        }
        Ok(())
    }

    /// The newest position of the user's log, with what this command has appended so far.
    pub fn position(&self, user: UserNo) -> Position {
        let logs = &self.writer.shared.logs;
        Position {
            epoch: logs.view(user).epoch,
            seq: logs.read(user, |head| head.assigned),
        }
    }

    pub fn name(&self, user: UserNo) -> UserId {
        self.writer.shared.logs.name(user)
    }

    /// Whether the user of this number was erased.
    pub fn is_erased(&self, user: UserNo) -> bool {
        self.writer.shared.logs.read(user, |head| head.is_erased)
    }

    /// The number that the next event gets; every event that is there has a lower one.
    pub fn next_commit(&self) -> u64 {
        self.writer.next_commit + self.staged.events.len() as u64
    }

    /// The name leads nowhere from the next command on, readers find nothing, and upkeep takes the events away. Who
    /// comes with the name again gets another number, and so another epoch.
    pub fn forget_log(&mut self, user: UserNo) {
        let mut head = self.writer.shared.logs.read(user, Head::indexed_part);
        head.erase(user);
        self.put(keys::user(user), index::encode_user(&head));
        self.staged.forgotten.push(user);
    }

    /// Puts another body in the place of an event's own, in every log that has it: the same seqs, id, type, time and
    /// topic, as `change` promises. An event that is gone, or that `change` leaves alone, stays as it is. Two commands
    /// of one group must not redact the same event: neither would see what the other made of it.
    pub fn redact(
        &mut self,
        commit: u64,
        change: impl FnOnce(&Event) -> Option<Event>,
    ) -> Result<bool, StoreError> {
        let rewritten = redaction::rewrite(&self.writer.shared.rows, commit, change)?;
        let Some((ops, redacted)) = rewritten else {
            return Ok(false);
        };
        self.staged.ops.extend(ops);
        self.staged.redacted.push(redacted);
        Ok(true)
    }

    pub fn delete(&mut self, key: Vec<u8>) {
        self.staged.ops.push(Op::Delete(key));
    }

    /// Deletes the first rows of a range, at most `count_max`, and gives how many there were.
    pub fn delete_some(
        &mut self,
        from: &[u8],
        to: &[u8],
        count_max: usize,
    ) -> Result<usize, StoreError> {
        let rows = self.scan(from, to, count_max)?;
        let count = rows.len();
        rows.into_iter().for_each(|(key, _)| self.delete(key));
        Ok(count)
    }

    /// Appends the event to the log of each user of the audience who was not erased. Without an audience nothing is
    /// stored.
    pub fn append(&mut self, mut event: Event, mut audience: Vec<UserNo>) -> Appended<'_> {
        audience.sort_unstable();
        audience.dedup();
        let logs = &self.writer.shared.logs;
        let assign = |user| {
            let seq = logs.change(user, |head| {
                head.assigned += u64::from(!head.is_erased);
                (!head.is_erased).then_some(head.assigned)
            });
            seq.map(|seq| Recipient { user, seq })
        };
        let recipients: Vec<Recipient> = audience.into_iter().filter_map(assign).collect();
        if recipients.is_empty() {
            return Appended { recipients: &[] };
        }
        event.commit = self.writer.next_commit + self.staged.events.len() as u64;
        self.staged.events.push((event, recipients));
        let (_, recipients) = self.staged.events.last().expect("pushed on the line above");
        Appended { recipients }
    }
}

impl Writer {
    pub fn new(shared: Arc<Shared>, topics: Topics, next_commit: u64) -> Writer {
        Writer {
            shared,
            topics,
            next_commit,
            is_dirty: false,
            new_users: Vec::new(),
            arrivals: Vec::new(),
            forgotten: Vec::new(),
            redacted: Vec::new(),
        }
    }

    pub fn begin(&mut self) -> Transaction<'_> {
        Transaction {
            now_ms: self.shared.clock.now_ms(),
            writer: self,
            staged: Staged::default(),
        }
    }

    /// Applies one command's operations, which belong together; readers of rows see them then, none of them durable.
    fn apply(&mut self, ops: Vec<Op>) -> Result<(), EngineError> {
        fail::fail_point!("before_apply");
        self.is_dirty |= !ops.is_empty();
        match ops.len() > BATCH_OPS_MAX {
            true => intent::apply_large(&self.shared.rows, ops)?,
            false => self.shared.rows.apply(ops)?,
        }
        fail::fail_point!("after_apply");
        Ok(())
    }

    fn user_rows(&mut self) -> Vec<Op> {
        let shared = &self.shared;
        let row = |user: UserNo| {
            shared.logs.read(user, |head| {
                Op::Put(keys::user(user), index::encode_user(head))
            })
        };
        self.new_users.drain(..).map(row).collect()
    }
}

impl Transaction<'_> {
    /// The command succeeded: its events and rows join the group. Gives the bytes that they take.
    pub fn keep(self) -> Result<u64, EngineError> {
        let Transaction { writer, staged, .. } = self;
        // The rows of new users go first, a batch at a time: a log must be known before anything names its number.
        let user_rows = writer.user_rows();
        for rows in user_rows.chunks(BATCH_OPS_MAX) {
            writer.apply(rows.to_vec())?;
        }
        let mut ops = staged.ops;
        for (event, recipients) in staged.events {
            assert_eq!(event.commit, writer.next_commit, "commit numbers are dense");
            writer.next_commit += 1;
            let record = record::encode(&event, &recipients);
            let record_bytes = record.len() as u64;
            if record.len() <= CHUNK_BYTES {
                ops.push(Op::Put(keys::record(event.commit, 0), record));
            } else {
                for (chunk, bytes) in (0u16..).zip(record.chunks(CHUNK_BYTES)) {
                    ops.push(Op::Put(keys::record(event.commit, chunk), bytes.to_vec()));
                }
            }
            writer.arrivals.push(Arrival {
                event: Arc::new(event),
                recipients,
                record_bytes,
            });
        }
        for (topic, user, membership) in staged.topics {
            match membership {
                Membership::Joins => writer.topics.add(&topic, user),
                Membership::Leaves => writer.topics.remove(&topic, user),
            }
        }
        let bytes = ops.iter().map(Op::bytes).sum();
        writer.apply(ops)?;
        for user in staged.forgotten {
            writer.shared.logs.forget(user);
            writer.forgotten.push(user);
        }
        writer.redacted.extend(staged.redacted);
        Ok(bytes)
    }

    /// The command was refused: its seqs go back, nothing of it remains.
    pub fn discard(self) {
        for (_, recipients) in &self.staged.events {
            for recipient in recipients {
                self.writer
                    .shared
                    .logs
                    .change(recipient.user, |head| head.assigned -= 1);
            }
        }
    }
}

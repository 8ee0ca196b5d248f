//! Opening a store: the lock on its directory, the engine, and everything that memory derives from the rows.
//!
//! Promises: only one process has a directory open; a newer format is refused by name; a store that lost its end gives
//! every log a new epoch before anyone reads; nothing is shown that a power cut could still take back.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::event::Event;
use crate::id::{Random, UserNo};
use crate::store::disk;
use crate::store::engine::{Engine, EngineError, Op, Rows, VALUE_BYTES_MAX};
use crate::store::index;
use crate::store::intent;
use crate::store::journaled::{Journaled, Missing};
use crate::store::keys;
use crate::store::logs::{Head, Logs};
use crate::store::mark::Mark;
use crate::store::record::{self, CHUNK_BYTES, Damaged, Header, Recipient};
use crate::store::space;
use crate::store::upkeep::live_mark;

/// The format that this version writes. Format 1 had no journal: this version reads it and goes on in its own.
const FORMAT: u64 = 2;
/// Bytes by which a loss is known again.
const LOSS_BYTES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the data directory {0} is in use by another tidings process; stop that one or choose another --data"
    )]
    InUse(PathBuf),
    #[error(
        "the data directory {0} was written by a newer version of tidings (format {1}); use that version, nothing was changed"
    )]
    Newer(PathBuf, u64),
    #[error("cannot use the data directory {0}: {1}")]
    Io(PathBuf, std::io::Error),
    #[error(
        "the data directory {0} is damaged: {1}; `tidings verify` tells what is lost, `tidings repair` saves the rest, `tidings restore` brings a backup back"
    )]
    Damaged(PathBuf, String),
}

/// The directory, locked for this process as long as the value lives.
pub struct Directory {
    pub path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Creates the directory, readable by its owner only, and locks it.
    pub fn lock(path: &Path) -> Result<Directory, OpenError> {
        let io = |error| OpenError::Io(path.to_owned(), error);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(io)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Directory {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(path.to_owned())),
            Err(error) => Err(io(error.into())),
        }
    }

    /// Where the engine keeps its files.
    pub fn engine_path(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Whether the engine's data file is there.
    pub fn has_engine(&self) -> bool {
        self.engine_path().join("db").exists()
    }

    pub fn mark_path(&self) -> PathBuf {
        self.path.join("mark")
    }

    /// Opens the engine; a directory that has a mark but no engine lost it.
    pub fn open_engine(
        &self,
        cache_bytes: u64,
        ballast_bytes: u64,
    ) -> Result<Journaled, OpenError> {
        let io = |error| OpenError::Io(self.path.clone(), error);
        let path = self.engine_path();
        if self.mark_path().exists() && !self.has_engine() {
            return Err(OpenError::Damaged(
                self.path.clone(),
                "its file `log/db` is missing".to_owned(),
            ));
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(io)?;
        space::drop_ballast(&self.path, ballast_bytes).map_err(io)?;
        let opened = Journaled::open(&path, cache_bytes, Missing::Refuse);
        let engine = opened.map_err(|error| match error {
            disk::OpenError::Damaged(cause) => OpenError::Damaged(self.path.clone(), cause),
            disk::OpenError::Io(error) => io(error),
        })?;
        let last = engine.last_key(&[], &[0xff]);
        // sled takes a file that it cannot make sense of for a new one.
        match last.map_err(|error| self.damaged(&error))? {
            None if self.has_mark().map_err(io)? => Err(OpenError::Damaged(
                self.path.clone(),
                "its file `log/db` holds nothing any more".to_owned(),
            )),
            _ => Ok(engine),
        }
    }

    /// Whether something was ever committed here.
    fn has_mark(&self) -> std::io::Result<bool> {
        match self.mark_path().exists() {
            true => Mark::open(&self.mark_path()).map(|(_, newest)| newest.is_some()),
            false => Ok(false),
        }
    }

    pub fn damaged(&self, error: &EngineError) -> OpenError {
        OpenError::Damaged(self.path.clone(), error.to_string())
    }
}

/// What the rows say, ready for work.
pub struct Opened {
    pub logs: Logs,
    pub next_commit: u64,
    pub live_bytes: u64,
    /// Events that are not in index blocks yet, oldest first, with those who have them.
    pub replayed: Vec<(Arc<Event>, Vec<Recipient>)>,
    /// Newest time in the store; the clock must not tell an earlier one.
    pub newest_ms: u64,
}

/// What opening needs to know.
pub struct Opening<'a> {
    pub rows: &'a Rows,
    pub random: &'a Random,
    pub retention_events: u64,
    /// Newest commit number that was on stable storage for certain.
    pub marked: Option<u64>,
}

/// The format of a store that has rows.
pub fn check_format(rows: &Rows, path: &Path) -> Result<(), OpenError> {
    let damaged = |error: EngineError| OpenError::Damaged(path.to_owned(), error.to_string());
    match number(rows, "format").map_err(damaged)? {
        None | Some(1) => {
            let op = Op::Put(keys::meta("format"), FORMAT.to_le_bytes().to_vec());
            rows.apply(vec![op]).map_err(damaged)
        }
        Some(FORMAT) => Ok(()),
        Some(newer) => Err(OpenError::Newer(path.to_owned(), newer)),
    }
}

impl Opening<'_> {
    /// Reads heads and replays what the index does not know yet. Everything found is synced before it is returned.
    pub fn run(self) -> Result<Opened, EngineError> {
        intent::redo(self.rows)?;
        let logs = Logs::new(0, self.retention_events);
        let mut losses = load_users(self.rows, &logs)?;
        let indexed = number(self.rows, "indexed")?.unwrap_or(0);
        let (live_from, live_bytes) = live(self.rows)?;
        let mut opened = Opened {
            logs,
            next_commit: indexed + 1,
            live_bytes,
            replayed: Vec::new(),
            newest_ms: 0,
        };
        self.replay(&mut opened, live_from, &mut losses)?;
        // The newest records may be trimmed already: their numbers must not be given again.
        opened.next_commit = opened.next_commit.max(live_from);
        if let Some(marked) = self.marked.filter(|marked| *marked >= opened.next_commit) {
            let found = opened.next_commit - 1;
            tracing::error!(
                marked,
                found,
                "the store lost its newest commits; every log gets a new epoch"
            );
            opened.next_commit = marked + 1;
            losses.note(&keys::record(marked, 0));
        }
        let generation = self.generation(&losses, &opened)?;
        opened.logs.set_generation(generation);
        self.rows.sync()?;
        Ok(opened)
    }

    /// The random number of this life of the store: a new one after a loss, so that every epoch changes. A loss that
    /// was told so before is not told again, though its damage is found at every start.
    fn generation(&self, losses: &Losses, opened: &Opened) -> Result<u64, EngineError> {
        let is_told = losses.are_in(&self.rows.get(&keys::meta("losses"))?.unwrap_or_default());
        #[cfg(feature = "faults")]
        let is_told = is_told || crate::store::committer::is_mutant("mutant_keep_epoch");
        match number(self.rows, "generation")? {
            Some(generation) if is_told => Ok(generation),
            _ => {
                let generation = self.random.number();
                let number = generation.to_le_bytes().to_vec();
                self.rows.apply(vec![
                    Op::Put(keys::meta("generation"), number),
                    Op::Put(keys::meta("losses"), losses.encode()),
                    live_mark(opened.next_commit, opened.live_bytes),
                ])?;
                Ok(generation)
            }
        }
    }

    /// Takes every record that is newer than the index into the heads, in one pass over their rows.
    fn replay(
        &self,
        opened: &mut Opened,
        live_from: u64,
        losses: &mut Losses,
    ) -> Result<(), EngineError> {
        let mut last: Option<Piecing> = None;
        let from = keys::record(opened.next_commit, 0);
        self.rows
            .scan_all(&from, &keys::records_end(), &mut |key, row| {
                match keys::parse_record(key) {
                    Some((commit, 0)) => {
                        let bytes = row.unwrap_or_default().to_vec();
                        let whole = last.replace(Piecing { commit, bytes });
                        take_record(opened, whole, live_from, losses);
                    }
                    Some((commit, chunk)) => {
                        let record = last.as_mut().filter(|record| record.commit == commit);
                        if let (Some(record), Some(row)) = (record, row) {
                            record.add(chunk, row);
                        }
                    }
                    None => {}
                }
                ControlFlow::Continue(())
            })?;
        take_record(opened, last, live_from, losses);
        Ok(())
    }
}

/// A record as its rows come by.
struct Piecing {
    commit: u64,
    bytes: Vec<u8>,
}

impl Piecing {
    /// What follows a hole is left out: the record is too short then.
    fn add(&mut self, chunk: u16, row: &[u8]) {
        if self.bytes.len() == usize::from(chunk) * CHUNK_BYTES {
            self.bytes.extend_from_slice(row);
        }
    }

    fn decode(self) -> Result<(Event, Vec<Recipient>, u64), Damaged> {
        let recipients = record::decode_recipients(&self.bytes)?;
        let record_bytes = Header::read(&self.bytes)?.total_bytes() as u64;
        let event = record::decode_event(self.commit, self.bytes)?;
        match recipients.is_empty() {
            true => Err(Damaged),
            false => Ok((event, recipients, record_bytes)),
        }
    }
}

fn take_record(opened: &mut Opened, record: Option<Piecing>, live_from: u64, losses: &mut Losses) {
    let Some(record) = record else {
        return;
    };
    let commit = record.commit;
    opened.next_commit = commit + 1;
    let Ok((event, recipients, record_bytes)) = record.decode() else {
        tracing::error!(
            commit,
            "a record is damaged; the logs that held it get new epochs"
        );
        return losses.note(&keys::record(commit, 0));
    };
    if commit >= live_from {
        opened.live_bytes += record_bytes;
    }
    opened.newest_ms = opened.newest_ms.max(event.time_ms);
    let event = Arc::new(event);
    let taken = take_in(&opened.logs, &event, &recipients, losses);
    opened.replayed.push((event, taken));
}

/// Appends a replayed event to the heads that do not know it, and gives those.
fn take_in(
    logs: &Logs,
    event: &Arc<Event>,
    recipients: &[Recipient],
    losses: &mut Losses,
) -> Vec<Recipient> {
    let mut taken = Vec::new();
    let bytes = record::retained_bytes(event.json().len());
    for recipient in recipients {
        // Its number must not be given to another, who would get these events at the next start.
        while logs.count() <= recipient.user.0 {
            let lost = UserNo(logs.count());
            losses.note(&keys::user(lost));
            logs.add(lost, Head::lost(lost));
        }
        let tail = logs.read(recipient.user, |head| head.tail);
        if recipient.seq <= tail {
            continue;
        }
        if recipient.seq > tail + 1 {
            losses.note(&[keys::user(recipient.user), keys::record(event.commit, 0)].concat());
            logs.change(recipient.user, |head| head.skip_to(recipient.seq));
        }
        logs.arrive(
            (recipient.user, recipient.seq),
            (event.commit, bytes),
            |_| (),
        );
        taken.push(*recipient);
    }
    taken
}

/// What an opening misses, by hashes of the keys of what is lost.
#[derive(Default)]
struct Losses(BTreeSet<[u8; LOSS_BYTES]>);

impl Losses {
    fn note(&mut self, key: &[u8]) {
        let hash = keys::hash(&[key]);
        let loss = hash.first_chunk().expect("a hash is longer");
        self.0.insert(*loss);
    }

    /// Whether each of them was written down before.
    fn are_in(&self, row: &[u8]) -> bool {
        let (known, _) = row.as_chunks::<LOSS_BYTES>();
        self.0.iter().all(|loss| known.contains(loss))
    }

    /// A row holds the first few hundred: where more is lost, every start tells it.
    fn encode(&self) -> Vec<u8> {
        let mut row: Vec<u8> = self.0.iter().flatten().copied().collect();
        row.truncate(VALUE_BYTES_MAX / LOSS_BYTES * LOSS_BYTES);
        row
    }
}

/// Reads all user rows. A number without a good row keeps its place by a log without a name that anyone can have.
fn load_users(rows: &Rows, logs: &Logs) -> Result<Losses, EngineError> {
    let mut losses = Losses::default();
    let (from, to) = keys::users();
    rows.scan_all(&from, &to, &mut |key, row| {
        let Some(user) = keys::parse_user(key) else {
            return ControlFlow::Continue(());
        };
        while logs.count() < user.0 {
            let lost = UserNo(logs.count());
            losses.note(&keys::user(lost));
            logs.add(lost, Head::lost(lost));
        }
        let head = row.and_then(|row| index::decode_user(row).ok());
        logs.add(
            user,
            head.unwrap_or_else(|| {
                losses.note(&keys::user(user));
                Head::lost(user)
            }),
        );
        ControlFlow::Continue(())
    })?;
    if !losses.0.is_empty() {
        tracing::error!("user rows are damaged: the logs of those users are lost");
    }
    Ok(losses)
}

fn number(rows: &Rows, name: &str) -> Result<Option<u64>, EngineError> {
    let value = rows.get(&keys::meta(name))?;
    Ok(value
        .and_then(|value| value.try_into().ok())
        .map(u64::from_le_bytes))
}

/// From which commit on the stored bytes are not counted yet, and the count before it.
fn live(rows: &Rows) -> Result<(u64, u64), EngineError> {
    let row = rows.get(&keys::meta("live"))?.unwrap_or_default();
    let Some((from, bytes)) = row.split_first_chunk::<8>() else {
        return Ok((0, 0));
    };
    let bytes = bytes.try_into().map_or(0, u64::from_le_bytes);
    Ok((u64::from_le_bytes(*from), bytes))
}

//! Looking over a store at rest: what its rows hold, and where they contradict each other.
//!
//! Promises: it reads every row and changes none; what it cannot read it steps over and tells. The records are the
//! truth: they name their recipients, so each log is put together from them and compared with index and user rows.
//! Memory is eight bytes for each kept copy of an event.

use std::fmt;
use std::ops::{ControlFlow, RangeInclusive};

use crate::event::UserId;
use crate::id::UserNo;
use crate::store::engine::{EngineError, Rows};
use crate::store::index;
use crate::store::keys;
use crate::store::logs::Head;
use crate::store::record::{self, Header};

/// Behind all rows: the kinds of keys are letters.
const ROWS_END: &[u8] = &[0xff];
/// A log does not jump further than this between two of its records; what says so is damaged.
const HOLE_EVENTS_MAX: u64 = 1 << 24;
/// First distance at which rows behind a damaged page are looked for: less than one commit.
const FIRST_STEP: u128 = 1 << 40;

/// Called with each row's key, and its value where that is whole.
pub type VisitAll<'a> = &'a mut dyn FnMut(&[u8], Option<&[u8]>);

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The engine cannot read what lies between these keys.
    Unreadable { from: Vec<u8>, to: Vec<u8> },
    /// A row whose bytes are not those that were written.
    Row { key: Vec<u8> },
    /// A record that misses a part, or a part without its record.
    Record { commit: u64 },
    /// The row that says whose log this is.
    LogRow { user: UserNo },
    /// Events that a log should have and that are nowhere.
    Lost {
        name: UserId,
        seqs: Vec<RangeInclusive<u64>>,
    },
    /// The index does not say what the records say; nothing is lost by that.
    Index { name: UserId },
    /// The newest commits are gone.
    End { marked: u64, found: u64 },
    /// The row from which epochs are made.
    Generation,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Unreadable { from, to } => write!(
                formatter,
                "{} cannot be read, from {} to {}",
                keys::kind_words(from),
                from.escape_ascii(),
                to.escape_ascii()
            ),
            Finding::Row { key } => {
                let words = keys::kind_words(key);
                write!(formatter, "{words} are damaged, row {}", key.escape_ascii())
            }
            Finding::Record { commit } => {
                write!(formatter, "the record of commit {commit} is not whole")
            }
            Finding::LogRow { user } => write!(
                formatter,
                "the name of user number {} is lost, and with it that user's log",
                user.0
            ),
            Finding::Lost { name, seqs } => {
                let count: u64 = seqs.iter().map(|run| run.end() - run.start() + 1).sum();
                let first = seqs.first().map_or(0, |run| *run.start());
                let last = seqs.last().map_or(0, |run| *run.end());
                write!(
                    formatter,
                    "the log of {name} lost {count} events between seq {first} and {last}"
                )
            }
            Finding::Index { name } => write!(
                formatter,
                "the index of the log of {name} is damaged; its events are there"
            ),
            Finding::End { marked, found } => write!(
                formatter,
                "the newest commits are lost: there were {marked}, found are {found}"
            ),
            Finding::Generation => write!(formatter, "the row that epochs are made from is lost"),
        }
    }
}

/// One log as its records tell it.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// What its user row says.
    pub head: Option<Head>,
    /// Seq of the first of `commits`.
    pub first_seq: u64,
    /// Commit numbers by seq; 0 where no record has that seq.
    pub commits: Vec<u64>,
}

impl Log {
    fn take(&mut self, seq: u64, commit: u64) -> Result<(), record::Damaged> {
        if self.commits.is_empty() {
            self.first_seq = seq;
        }
        let next = self.first_seq + self.commits.len() as u64;
        let hole = seq.checked_sub(next).ok_or(record::Damaged)?;
        if hole > HOLE_EVENTS_MAX {
            return Err(record::Damaged);
        }
        self.commits.extend((0..hole).map(|_| 0));
        self.commits.push(commit);
        Ok(())
    }

    /// Newest seq that the log is known to have had.
    pub fn tail(&self) -> u64 {
        let stored = match self.commits.len() as u64 {
            0 => 0,
            count => self.first_seq + count - 1,
        };
        stored.max(self.head.as_ref().map_or(0, |head| head.tail))
    }

    pub fn commit(&self, seq: u64) -> Option<u64> {
        let place = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        self.commits
            .get(place)
            .copied()
            .filter(|commit| *commit > 0)
    }

    /// Seqs that readers may have and no record holds.
    pub fn lost(&self, floor: u64) -> Vec<RangeInclusive<u64>> {
        let mut lost: Vec<RangeInclusive<u64>> = Vec::new();
        for seq in floor..=self.tail() {
            if self.commit(seq).is_some() {
                continue;
            }
            match lost.last_mut().filter(|run| run.end() + 1 == seq) {
                Some(run) => *run = *run.start()..=seq,
                None => lost.push(seq..=seq),
            }
        }
        lost
    }
}

/// What was found in a store.
#[derive(Debug, Default)]
pub struct Survey {
    pub rows: u64,
    pub events: u64,
    /// Bytes of whole records.
    pub live_bytes: u64,
    pub logs: Vec<Log>,
    /// Up to this commit the index claims to be complete.
    pub indexed: u64,
    /// Newest commit that left anything.
    pub newest: u64,
    pub findings: Vec<Finding>,
    /// The newest seq of some log is not known for certain, so it could be given twice.
    pub is_end_in_doubt: bool,
}

impl Survey {
    /// Copies of events in logs of which it is known whose they are.
    pub fn readable_events(&self) -> usize {
        let named = self.logs.iter().filter(|log| log.head.is_some());
        named
            .map(|log| log.commits.iter().filter(|commit| **commit > 0).count())
            .sum()
    }
}

/// Reads everything. `marked` is the newest commit that was on stable storage for certain.
pub fn survey(rows: &Rows, marked: Option<u64>) -> Result<Survey, EngineError> {
    let mut gathering = Gathering::default();
    let unreadable = scan_surviving(rows, &mut |key, value| gathering.row(key, value))?;
    gathering.finish_record();
    let mut survey = gathering.survey;
    survey.indexed = number(rows, "indexed").unwrap_or(0);
    survey.is_end_in_doubt |= unreadable
        .iter()
        .any(|finding| does_hide_an_end(finding, survey.indexed));
    survey.findings.extend(unreadable);
    survey.newest = survey.newest.max(survey.indexed);
    if number(rows, "generation").is_none() && survey.rows > 0 {
        survey.findings.push(Finding::Generation);
        survey.is_end_in_doubt = true;
    }
    for commit in gathering.broken {
        survey.is_end_in_doubt |= commit > survey.indexed;
        survey.findings.push(Finding::Record { commit });
    }
    for user in 0..survey.logs.len() {
        check_log(rows, &mut survey, user);
    }
    if let Some(marked) = marked.filter(|marked| *marked > survey.newest) {
        let found = survey.newest;
        survey.findings.push(Finding::End { marked, found });
        survey.is_end_in_doubt = true;
    }
    Ok(survey)
}

/// Whether what cannot be read may have told of the newest seq of a log.
fn does_hide_an_end(finding: &Finding, indexed: u64) -> bool {
    let Finding::Unreadable { from, to } = finding else {
        return false;
    };
    let overlaps = |first: &[u8], end: &[u8]| from.as_slice() < end && to.as_slice() > first;
    let (users, users_end) = keys::users();
    overlaps(&keys::record(indexed + 1, 0), &keys::records_end())
        || overlaps(&users, &users_end)
        || overlaps(&keys::meta(""), &keys::meta("\u{7f}"))
}

/// Compares one log's records with its user row and its index blocks.
fn check_log(rows: &Rows, survey: &mut Survey, user: usize) {
    let log = &survey.logs[user];
    let user = UserNo(u32::try_from(user).expect("user numbers have 32 bits"));
    let Some(head) = &log.head else {
        survey.findings.push(Finding::LogRow { user });
        survey.is_end_in_doubt = true;
        return;
    };
    let lost = log.lost(head.floor);
    let name = head.name.clone();
    let mut is_index_whole = true;
    let mut seq = head.floor;
    while seq <= head.tail {
        let next = keys::block_start(seq) + keys::BLOCK_EVENTS;
        let block = index::read_block(rows, user, seq).ok().flatten();
        for seq in seq..next.min(head.tail + 1) {
            let told = block.as_ref().and_then(|block| block.commit(seq));
            is_index_whole &=
                told.is_some() && log.commit(seq).is_none_or(|commit| told == Some(commit));
        }
        seq = next;
    }
    // What the user row does not know yet must be newer than the index, or a start would not find it.
    let fresh = (head.tail + 1).max(head.floor)..=log.tail();
    is_index_whole &= fresh
        .clone()
        .filter_map(|seq| log.commit(seq))
        .all(|commit| commit > survey.indexed);
    survey.is_end_in_doubt |= lost.iter().any(|run| run.end() > &head.tail);
    if !lost.is_empty() {
        let (name, seqs) = (name.clone(), lost);
        survey.findings.push(Finding::Lost { name, seqs });
    }
    if !is_index_whole {
        survey.findings.push(Finding::Index { name });
    }
}

/// Takes rows as they come, in the order of their keys.
#[derive(Default)]
struct Gathering {
    survey: Survey,
    /// The record whose parts are being put together.
    current: Option<Parts>,
    broken: Vec<u64>,
}

struct Parts {
    commit: u64,
    bytes: Vec<u8>,
    next_chunk: u16,
    is_whole: bool,
}

impl Gathering {
    fn row(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.survey.rows += 1;
        if value.is_none() {
            let key = key.to_vec();
            self.survey.findings.push(Finding::Row { key });
        }
        if let Some((commit, chunk)) = keys::parse_record(key) {
            self.record_part(commit, chunk, value);
        } else if let Some(user) = keys::parse_user(key) {
            let head = value.and_then(|row| index::decode_user(row).ok());
            self.log(user).head = head;
        }
    }

    fn log(&mut self, user: UserNo) -> &mut Log {
        let place = user.0 as usize;
        if self.survey.logs.len() <= place {
            self.survey.logs.resize(place + 1, Log::default());
        }
        &mut self.survey.logs[place]
    }

    fn record_part(&mut self, commit: u64, chunk: u16, value: Option<&[u8]>) {
        if self
            .current
            .as_ref()
            .is_none_or(|parts| parts.commit != commit)
        {
            self.finish_record();
            self.current = Some(Parts {
                commit,
                bytes: Vec::new(),
                next_chunk: 0,
                is_whole: true,
            });
        }
        let parts = self.current.as_mut().expect("set on the lines above");
        parts.is_whole &= chunk == parts.next_chunk && value.is_some();
        parts.next_chunk = chunk.saturating_add(1);
        parts.bytes.extend_from_slice(value.unwrap_or_default());
    }

    fn finish_record(&mut self) {
        let Some(parts) = self.current.take() else {
            return;
        };
        self.survey.newest = self.survey.newest.max(parts.commit);
        if self.take_record(&parts).is_err() {
            self.broken.push(parts.commit);
        }
    }

    fn take_record(&mut self, parts: &Parts) -> Result<(), record::Damaged> {
        let bytes = &parts.bytes;
        let header = Header::read(bytes)?;
        if !parts.is_whole || header.total_bytes() != bytes.len() {
            return Err(record::Damaged);
        }
        record::decode_event(parts.commit, bytes.clone())?;
        let recipients = record::decode_recipients(bytes)?;
        if recipients.is_empty() {
            return Err(record::Damaged);
        }
        let mut result = Ok(());
        for recipient in recipients {
            let taken = self.log(recipient.user).take(recipient.seq, parts.commit);
            result = result.and(taken);
        }
        self.survey.events += 1;
        self.survey.live_bytes += bytes.len() as u64;
        result
    }
}

fn number(rows: &Rows, name: &str) -> Option<u64> {
    let value = rows.get(&keys::meta(name)).ok().flatten()?;
    value.try_into().ok().map(u64::from_le_bytes)
}

/// Visits every row that can be read, `None` where its bytes are damaged, and tells which stretches the engine itself
/// could not read.
pub fn scan_surviving(rows: &Rows, visit: VisitAll<'_>) -> Result<Vec<Finding>, EngineError> {
    let mut unreadable = Vec::new();
    let mut from = Vec::new();
    loop {
        let mut last = None;
        let scanned = rows.scan_all(&from, ROWS_END, &mut |key, value| {
            visit(key, value);
            last = Some(key.to_vec());
            ControlFlow::Continue(())
        });
        if scanned.is_ok() {
            return Ok(unreadable);
        }
        // The damaged page begins behind the last row that was read.
        if let Some(last) = last {
            from = last;
            from.push(0);
        }
        let next = after_damage(rows, &from);
        let to = next.clone().unwrap_or_else(|| ROWS_END.to_vec());
        let damaged = std::mem::replace(&mut from, to.clone());
        unreadable.push(Finding::Unreadable { from: damaged, to });
        if next.is_none() {
            return Ok(unreadable);
        }
    }
}

/// The first place behind `from` at which the engine reads again, as exactly as 16 bytes of a key can say.
fn after_damage(rows: &Rows, from: &[u8]) -> Option<Vec<u8>> {
    let can_read = |place: &[u8]| {
        let probe = rows.scan_all(place, ROWS_END, &mut |_, _| ControlFlow::Break(()));
        probe.is_ok()
    };
    let mut prefix = [0; 16];
    let length = from.len().min(16);
    prefix[..length].copy_from_slice(&from[..length]);
    let mut bad = u128::from_be_bytes(prefix);
    let mut step = FIRST_STEP;
    let mut good = loop {
        let place = bad.checked_add(step)?;
        if place.to_be_bytes().as_slice() >= ROWS_END {
            return None;
        }
        if can_read(&place.to_be_bytes()) {
            break place;
        }
        bad = place;
        step = step.saturating_mul(2);
    };
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        match can_read(&middle.to_be_bytes()) {
            true => good = middle,
            false => bad = middle,
        }
    }
    // A shorter key sorts before the same with zeros behind it, and may be the very first row.
    let good = good.to_be_bytes();
    let shortest = good
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(1, |last| last + 1);
    (shortest..=good.len())
        .map(|length| &good[..length])
        .find(|place| *place > from && can_read(place))
        .map(<[u8]>::to_vec)
}

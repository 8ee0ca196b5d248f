//! The history: what every process asked and what came back, in the order in which the checker saw it.
//!
//! One entry is one JSON line: time, process, op, phase. A publish that got no answer is `info`: it may have
//! happened. Nothing here judges; `invariants` reads a history and says what is wrong with it. A history is kept in
//! memory and written to a file when something was violated, so that it can be read after the run.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Microseconds since the history began.
    pub at_us: u64,
    pub process: String,
    #[serde(flatten)]
    pub op: Op,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    Publish(Publish),
    Read(Read),
    /// A user's whole log, read page by page while nobody published: the committed truth of that moment.
    Log(CommittedLog),
    Fault(Fault),
    /// From here on the server was well and the user's log ended at `head`: every open reader must reach it.
    Healed {
        user: String,
        head: Position,
    },
    /// Something that a row observed directly: an exit code, a file count, an answer to a wrong token.
    Claim(Claim),
    /// The server keeps at least this many events of each log; without this entry it keeps all.
    Retention {
        events: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Publish {
    Invoke(Attempt),
    Ok(Acked),
    /// The server refused: it must not have happened.
    Fail {
        attempt: u64,
        status: u16,
        code: String,
        has_retry_after: bool,
    },
    /// No answer came: it may have happened.
    Info {
        attempt: u64,
    },
}

/// One request to publish one event. Retries of one event share `nonce`, `key` and `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub attempt: u64,
    pub nonce: String,
    pub user: String,
    pub key: Option<String>,
    pub event_type: String,
    /// Names the batch whose events come all together or not at all.
    pub atomic: Option<String>,
    /// The payload as canonical JSON; it names its nonce and the user it is meant for.
    pub data: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acked {
    pub attempt: u64,
    pub id: String,
    /// Absent where the server's answer to a repeat does not name the position.
    pub position: Option<Position>,
    pub recipients: u64,
    pub is_duplicate: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Read {
    /// A connection begins, or one poll is sent.
    Invoke {
        user: String,
        transport: Transport,
        origin: Origin,
    },
    /// The server said from which position it goes on.
    Ready {
        position: Position,
    },
    Event(Seen),
    Reset(Reset),
    /// The server claimed that everything up to this position was sent (`live`, `ping`, the end of a page).
    Reached {
        position: Position,
    },
    /// The connection ended, by whoever.
    End,
    /// The reader went away for good; nothing is owed to it any more.
    Leave,
}

/// An event as it was read. `nonce` and `owner` are what its payload says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seen {
    pub position: Position,
    pub id: String,
    pub event_type: String,
    pub time: String,
    pub nonce: String,
    pub owner: String,
    pub data: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reset {
    pub reason: String,
    pub requested: String,
    /// Oldest seq that is still there.
    pub earliest: u64,
    pub head: Position,
    /// The position from which the stream goes on.
    pub position: Position,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommittedLog {
    pub user: String,
    /// What the server called the head, in words of its own.
    pub head: Position,
    pub floor: u64,
    pub events: Vec<Seen>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub what: String,
    /// True where bytes of the log were destroyed by hand, so that a new epoch is an honest answer.
    pub is_damage: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    pub invariant: Invariant,
    pub holds: bool,
    pub what: String,
}

/// The invariants of FAULTS.md, by their letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    Durable,
    Ordered,
    Unique,
    Reliable,
    Resumable,
    Immutable,
    NoPhantom,
    Idempotent,
    Isolated,
    Agree,
    Honest,
    Bounded,
}

impl Invariant {
    pub fn letter(self) -> char {
        match self {
            Invariant::Durable => 'D',
            Invariant::Ordered => 'O',
            Invariant::Unique => 'U',
            Invariant::Reliable => 'R',
            Invariant::Resumable => 'S',
            Invariant::Immutable => 'I',
            Invariant::NoPhantom => 'P',
            Invariant::Idempotent => 'K',
            Invariant::Isolated => 'X',
            Invariant::Agree => 'A',
            Invariant::Honest => 'H',
            Invariant::Bounded => 'B',
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    Sse,
    Poll,
    Ndjson,
    Socket,
}

/// Where a reader asked to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    After(Position),
    Start,
    Now,
}

/// A cursor taken apart: `q7m2kd-42`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    pub epoch: String,
    pub seq: u64,
}

impl Position {
    pub fn parse(cursor: &str) -> Option<Position> {
        let (epoch, seq) = cursor.rsplit_once('-')?;
        let seq = seq.parse().ok()?;
        Some(Position {
            epoch: epoch.to_owned(),
            seq,
        })
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}-{}", self.epoch, self.seq)
    }
}

/// Collects the entries of all processes of one run.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    started: Instant,
    /// Written by every process through `record`, read by the row that judges.
    entries: Mutex<Vec<Entry>>,
    attempts: AtomicU64,
    acks: AtomicU64,
}

impl Recorder {
    pub fn new() -> Recorder {
        Recorder::with(Vec::new())
    }

    /// Goes on with a history that was recorded before.
    pub fn with(entries: Vec<Entry>) -> Recorder {
        let attempts = entries.iter().map(|entry| match &entry.op {
            Op::Publish(Publish::Invoke(attempt)) => attempt.attempt,
            _ => 0,
        });
        let inner = Inner {
            started: Instant::now(),
            attempts: AtomicU64::new(attempts.max().unwrap_or(0)),
            entries: Mutex::new(entries),
            acks: AtomicU64::new(0),
        };
        Recorder {
            inner: Arc::new(inner),
        }
    }

    pub fn now_us(&self) -> u64 {
        u64::try_from(self.inner.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub fn next_attempt(&self) -> u64 {
        self.inner.attempts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many publishes were acknowledged so far.
    pub fn acks(&self) -> u64 {
        self.inner.acks.load(Ordering::Relaxed)
    }

    pub fn record(&self, process: &str, op: Op) {
        self.record_at(self.now_us(), process, op);
    }

    pub fn record_at(&self, at_us: u64, process: &str, op: Op) {
        if matches!(op, Op::Publish(Publish::Ok(_))) {
            self.inner.acks.fetch_add(1, Ordering::Relaxed);
        }
        self.entries().push(Entry {
            at_us,
            process: process.to_owned(),
            op,
        });
    }

    pub fn claim(&self, invariant: Invariant, holds: bool, what: impl Into<String>) {
        let claim = Claim {
            invariant,
            holds,
            what: what.into(),
        };
        self.record("nemesis", Op::Claim(claim));
    }

    pub fn fault(&self, what: impl Into<String>, is_damage: bool) {
        let fault = Fault {
            what: what.into(),
            is_damage,
        };
        self.record("nemesis", Op::Fault(fault));
    }

    /// Lets the caller look at all entries; recording waits meanwhile.
    pub fn with_entries<T>(&self, look: impl FnOnce(&[Entry]) -> T) -> T {
        look(&self.entries())
    }

    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        for entry in self.entries().iter() {
            serde_json::to_writer(&mut file, entry)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Entries are pushed whole, so a panic elsewhere cannot leave half of one behind.
        self.inner
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_json_line() {
        let seen = Seen {
            position: Position {
                epoch: "q7m2kd".into(),
                seq: 3,
            },
            id: "a".into(),
            event_type: "app.x".into(),
            time: "2026-11-21T02:30:00.123Z".into(),
            nonce: "n1".into(),
            owner: "alice".into(),
            data: "{}".into(),
        };
        let entry = Entry {
            at_us: 7,
            process: "reader-1".into(),
            op: Op::Read(Read::Event(seen)),
        };
        let line = serde_json::to_string(&entry).unwrap();
        assert!(
            line.starts_with(r#"{"at_us":7,"process":"reader-1","op":"read","phase":"event""#),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry);
    }

    #[test]
    fn a_cursor_is_an_epoch_and_a_seq() {
        assert_eq!(
            Position::parse("q7m2kd-42").unwrap().to_string(),
            "q7m2kd-42"
        );
        assert_eq!(Position::parse("q7m2kd"), None);
        assert_eq!(Position::parse("q7m2kd-x"), None);
    }
}

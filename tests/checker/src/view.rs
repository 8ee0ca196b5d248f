//! A history sorted by what the invariants ask: attempts, connections, readers, committed logs, faults.
//!
//! It borrows the history and changes nothing. It promises that everything it lists stands in the order in which it
//! was recorded; `order` is the number of the entry.

use std::collections::{BTreeMap, HashMap};

use crate::history::{
    Acked, Attempt, Claim, CommittedLog, Entry, Op, Origin, Position, Publish, Read, Seen,
    Transport,
};

pub struct View<'a> {
    pub attempts: BTreeMap<u64, Tried<'a>>,
    pub connections: Vec<Connection<'a>>,
    /// Connections of each process, as places in `connections`.
    pub readers: BTreeMap<&'a str, Vec<usize>>,
    pub logs: Vec<LogRead<'a>>,
    pub healed: Vec<Healed<'a>>,
    pub claims: Vec<&'a Claim>,
    /// Orders of the faults that destroyed bytes of a log.
    pub damages: Vec<usize>,
    pub retention_events: Option<u64>,
}

pub struct Tried<'a> {
    pub order: usize,
    pub attempt: &'a Attempt,
    pub outcome: Outcome<'a>,
}

pub enum Outcome<'a> {
    Unknown,
    Acked {
        order: usize,
        acked: &'a Acked,
    },
    Refused {
        status: u16,
        code: &'a str,
        has_retry_after: bool,
    },
}

pub struct Connection<'a> {
    pub process: &'a str,
    pub user: &'a str,
    pub transport: Transport,
    pub origin: &'a Origin,
    pub began_us: u64,
    pub frames: Vec<Frame<'a>>,
}

pub struct Frame<'a> {
    pub order: usize,
    pub at_us: u64,
    pub read: &'a Read,
}

pub struct LogRead<'a> {
    pub order: usize,
    pub log: &'a CommittedLog,
}

pub struct Healed<'a> {
    pub at_us: u64,
    pub user: &'a str,
    pub head: &'a Position,
}

impl LogRead<'_> {
    pub fn event_at(&self, seq: u64) -> Option<&Seen> {
        // A damaged log may be out of order, so this is a search and not an index.
        let likely = usize::try_from(seq.checked_sub(self.log.floor)?).ok()?;
        match self.log.events.get(likely) {
            Some(event) if event.position.seq == seq => Some(event),
            _ => self
                .log
                .events
                .iter()
                .find(|event| event.position.seq == seq),
        }
    }
}

impl<'a> View<'a> {
    pub fn of(entries: &'a [Entry]) -> View<'a> {
        let mut view = View {
            attempts: BTreeMap::new(),
            connections: Vec::new(),
            readers: BTreeMap::new(),
            logs: Vec::new(),
            healed: Vec::new(),
            claims: Vec::new(),
            damages: Vec::new(),
            retention_events: None,
        };
        let mut open: HashMap<&str, usize> = HashMap::new();
        for (order, entry) in entries.iter().enumerate() {
            match &entry.op {
                Op::Publish(publish) => view.take_publish(order, publish),
                Op::Read(read) => view.take_read(order, entry, read, &mut open),
                Op::Log(log) => view.logs.push(LogRead { order, log }),
                Op::Fault(fault) if fault.is_damage => view.damages.push(order),
                Op::Fault(_) => {}
                Op::Healed { user, head } => view.healed.push(Healed {
                    at_us: entry.at_us,
                    user,
                    head,
                }),
                Op::Claim(claim) => view.claims.push(claim),
                Op::Retention { events } => view.retention_events = Some(*events),
            }
        }
        view
    }

    /// Every event that anyone read, with the order of the reading and the user whose log was asked for.
    pub fn sightings(&self) -> impl Iterator<Item = Sighting<'_>> {
        let read = self.connections.iter().flat_map(|connection| {
            connection
                .frames
                .iter()
                .filter_map(|frame| match frame.read {
                    Read::Event(seen) => Some(Sighting {
                        order: frame.order,
                        user: connection.user,
                        transport: Some(connection.transport),
                        seen,
                    }),
                    _ => None,
                })
        });
        let logged = self.logs.iter().flat_map(|read| {
            read.log.events.iter().map(|seen| Sighting {
                order: read.order,
                user: &read.log.user,
                transport: None,
                seen,
            })
        });
        read.chain(logged)
    }

    pub fn has_damage_between(&self, earlier: usize, later: usize) -> bool {
        self.damages
            .iter()
            .any(|order| (earlier..later).contains(order))
    }

    fn take_publish(&mut self, order: usize, publish: &'a Publish) {
        let (number, outcome) = match publish {
            Publish::Invoke(attempt) => {
                let tried = Tried {
                    order,
                    attempt,
                    outcome: Outcome::Unknown,
                };
                self.attempts.insert(attempt.attempt, tried);
                return;
            }
            Publish::Info { .. } => return,
            Publish::Ok(acked) => (acked.attempt, Outcome::Acked { order, acked }),
            Publish::Fail {
                attempt,
                status,
                code,
                has_retry_after,
            } => (
                *attempt,
                Outcome::Refused {
                    status: *status,
                    code,
                    has_retry_after: *has_retry_after,
                },
            ),
        };
        if let Some(tried) = self.attempts.get_mut(&number) {
            tried.outcome = outcome;
        }
    }

    fn take_read(
        &mut self,
        order: usize,
        entry: &'a Entry,
        read: &'a Read,
        open: &mut HashMap<&'a str, usize>,
    ) {
        if let Read::Invoke {
            user,
            transport,
            origin,
        } = read
        {
            let place = self.connections.len();
            self.connections.push(Connection {
                process: &entry.process,
                user,
                transport: *transport,
                origin,
                began_us: entry.at_us,
                frames: Vec::new(),
            });
            self.readers.entry(&entry.process).or_default().push(place);
            open.insert(&entry.process, place);
            return;
        }
        if let Some(place) = open.get(entry.process.as_str()) {
            self.connections[*place].frames.push(Frame {
                order,
                at_us: entry.at_us,
                read,
            });
        }
    }
}

pub struct Sighting<'a> {
    pub order: usize,
    pub user: &'a str,
    /// Absent for the page-by-page read of the whole log.
    pub transport: Option<Transport>,
    pub seen: &'a Seen,
}

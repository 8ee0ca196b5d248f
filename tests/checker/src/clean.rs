//! Clean histories, made by a model server that keeps every promise: the ground on which the checker is checked.
//!
//! The model publishes, answers or stays silent, crashes, trims, loses its end to damage with a new epoch, and serves
//! readers on all transports. The same seed gives the same history. It never touches a network.

use fastrand::Rng;

use crate::history::{
    Acked, Attempt, CommittedLog, Entry, Fault, Op, Origin, Position, Publish, Read, Reset, Seen,
    Transport,
};

/// Steps of one history; about twice as many entries come of them.
const STEPS: usize = 160;
const TRANSPORTS: [Transport; 4] = [
    Transport::Sse,
    Transport::Poll,
    Transport::Ndjson,
    Transport::Socket,
];

pub fn history(seed: u64) -> Vec<Entry> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world.entries
}

struct World {
    rng: Rng,
    at_us: u64,
    entries: Vec<Entry>,
    logs: Vec<Log>,
    readers: Vec<Reader>,
    retention_events: Option<u64>,
    attempts: u64,
    /// Keyed publishes without an answer, with the event they made if they made one.
    unanswered: Vec<(usize, Attempt, Option<Seen>)>,
}

struct Log {
    user: String,
    epoch: String,
    floor: u64,
    /// All events of this epoch, trimmed ones too.
    events: Vec<Seen>,
}

struct Reader {
    process: String,
    log: usize,
    transport: Transport,
    position: Option<Position>,
    is_open: bool,
}

impl Log {
    fn head(&self) -> Position {
        Position {
            epoch: self.epoch.clone(),
            seq: self.events.len() as u64,
        }
    }

    fn at(&self, seq: u64) -> Position {
        Position {
            epoch: self.epoch.clone(),
            seq,
        }
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::with_seed(seed);
        let logs: Vec<Log> = (0..rng.usize(2..=4))
            .map(|number| Log {
                user: format!("user-{number}"),
                epoch: format!("ep{:04}", rng.u32(0..10_000)),
                floor: 1,
                events: Vec::new(),
            })
            .collect();
        let readers = (0..rng.usize(2..=6))
            .map(|number| Reader {
                process: format!("reader-{number}"),
                log: rng.usize(0..logs.len()),
                transport: TRANSPORTS[number % TRANSPORTS.len()],
                position: None,
                is_open: false,
            })
            .collect();
        let retention_events = rng.bool().then(|| rng.u64(3..8));
        let mut world = World {
            rng,
            at_us: 0,
            entries: Vec::new(),
            logs,
            readers,
            retention_events,
            attempts: 0,
            unanswered: Vec::new(),
        };
        if let Some(events) = retention_events {
            world.record("nemesis", Op::Retention { events });
        }
        world
    }

    fn step(&mut self) {
        match self.rng.u32(0..100) {
            0..45 => self.publish(),
            45..50 => self.retry(),
            50..88 => {
                let reader = self.rng.usize(0..self.readers.len());
                self.turn(reader);
            }
            88..93 => {
                let reader = self.rng.usize(0..self.readers.len());
                self.close(reader);
            }
            93..96 => self.crash(),
            96..99 => self.trim(),
            _ => self.damage(),
        }
    }

    /// Everything the end of a real run does: heal, read the logs, let every reader reach the head.
    fn settle(&mut self) {
        while !self.unanswered.is_empty() {
            self.retry();
        }
        for log in 0..self.logs.len() {
            self.read_log(log);
            let (user, head) = (self.logs[log].user.clone(), self.logs[log].head());
            self.record("nemesis", Op::Healed { user, head });
        }
        for reader in 0..self.readers.len() {
            while !self.turn(reader) {}
            self.close(reader);
            let process = self.readers[reader].process.clone();
            if self.rng.bool() {
                self.record(&process, Op::Read(Read::Leave));
            }
        }
    }

    fn read_log(&mut self, log: usize) {
        let Log {
            user,
            floor,
            events,
            ..
        } = &self.logs[log];
        let first = usize::try_from(floor - 1).expect("a model log is small");
        let committed = CommittedLog {
            user: user.clone(),
            head: self.logs[log].head(),
            floor: *floor,
            events: events[first..].to_vec(),
        };
        self.record("truth", Op::Log(committed));
    }

    fn publish(&mut self) {
        self.attempts += 1;
        let log = self.rng.usize(0..self.logs.len());
        let user = self.logs[log].user.clone();
        let nonce = format!("n{}", self.attempts);
        let attempt = Attempt {
            attempt: self.attempts,
            data: format!(r#"{{"for":"{user}","nonce":"{nonce}"}}"#),
            key: self.rng.bool().then(|| format!("key-{nonce}")),
            nonce,
            user,
            event_type: "app.checked".to_owned(),
            atomic: None,
        };
        self.record("publisher", Op::Publish(Publish::Invoke(attempt.clone())));
        match self.rng.u32(0..10) {
            0..7 => {
                let seen = self.append(log, &attempt);
                self.acknowledge(&attempt, &seen, false);
            }
            7 => self.record(
                "publisher",
                Op::Publish(Publish::Fail {
                    attempt: attempt.attempt,
                    status: 429,
                    code: "rate_limited".to_owned(),
                    has_retry_after: true,
                }),
            ),
            committed => {
                let seen = (committed == 8).then(|| self.append(log, &attempt));
                self.record(
                    "publisher",
                    Op::Publish(Publish::Info {
                        attempt: attempt.attempt,
                    }),
                );
                if attempt.key.is_some() {
                    self.unanswered.push((log, attempt, seen));
                }
            }
        }
    }

    fn retry(&mut self) {
        let Some((log, attempt, made)) = self.unanswered.pop() else {
            return;
        };
        self.attempts += 1;
        let again = Attempt {
            attempt: self.attempts,
            ..attempt
        };
        self.record("publisher", Op::Publish(Publish::Invoke(again.clone())));
        let is_duplicate = made.is_some();
        let seen = made.unwrap_or_else(|| self.append(log, &again));
        self.acknowledge(&again, &seen, is_duplicate);
    }

    fn append(&mut self, log: usize, attempt: &Attempt) -> Seen {
        let log = &mut self.logs[log];
        let seen = Seen {
            position: log.at(log.events.len() as u64 + 1),
            id: format!("id-{}", attempt.nonce),
            event_type: attempt.event_type.clone(),
            time: "2026-11-21T02:30:00.123Z".to_owned(),
            nonce: attempt.nonce.clone(),
            owner: attempt.user.clone(),
            data: attempt.data.clone(),
        };
        log.events.push(seen.clone());
        seen
    }

    fn acknowledge(&mut self, attempt: &Attempt, seen: &Seen, is_duplicate: bool) {
        let acked = Acked {
            attempt: attempt.attempt,
            id: seen.id.clone(),
            position: Some(seen.position.clone()),
            recipients: 1,
            is_duplicate,
        };
        self.record("publisher", Op::Publish(Publish::Ok(acked)));
    }

    /// Lets one reader connect if it must and read some events; true once it is at the head.
    fn turn(&mut self, reader: usize) -> bool {
        if !self.readers[reader].is_open {
            self.open(reader);
        }
        let log = &self.logs[self.readers[reader].log];
        let (head, floor) = (log.head(), log.floor);
        let position = self.readers[reader]
            .position
            .clone()
            .unwrap_or_else(|| log.at(floor - 1));
        if position.epoch != head.epoch || position.seq + 1 < floor || position.seq > head.seq {
            self.reset(reader, &position);
            return false;
        }
        let count = self.rng.u64(1..=4).min(head.seq - position.seq);
        for seq in position.seq + 1..=position.seq + count {
            let place = usize::try_from(seq - 1).expect("a model log is small");
            let seen = self.logs[self.readers[reader].log].events[place].clone();
            self.reader_frame(reader, Read::Event(seen));
        }
        let reached = Position {
            seq: position.seq + count,
            ..position
        };
        let is_at_head = reached == head;
        self.readers[reader].position = Some(reached.clone());
        if is_at_head || self.readers[reader].transport == Transport::Poll {
            self.reader_frame(reader, Read::Reached { position: reached });
        }
        if self.readers[reader].transport == Transport::Poll {
            self.close(reader);
        }
        is_at_head
    }

    fn open(&mut self, reader: usize) {
        let log = &self.logs[self.readers[reader].log];
        let (user, head, start) = (log.user.clone(), log.head(), log.at(log.floor - 1));
        let Reader {
            transport,
            position,
            ..
        } = &self.readers[reader];
        let transport = *transport;
        let (origin, ready) = match position {
            Some(position) => (Origin::After(position.clone()), position.clone()),
            // A poll has no `ready` that could say where now is.
            None if transport == Transport::Poll || self.rng.bool() => (Origin::Start, start),
            None => (Origin::Now, head),
        };
        self.readers[reader].position = Some(ready.clone());
        self.reader_frame(
            reader,
            Read::Invoke {
                user,
                transport,
                origin,
            },
        );
        self.readers[reader].is_open = true;
        if transport != Transport::Poll {
            self.reader_frame(reader, Read::Ready { position: ready });
        }
    }

    fn reset(&mut self, reader: usize, requested: &Position) {
        let log = &self.logs[self.readers[reader].log];
        let head = log.head();
        let reason = match requested.epoch == head.epoch {
            true if requested.seq > head.seq => "ahead",
            true => "trimmed",
            false => "epoch",
        };
        let position = match self.rng.bool() {
            true => head.clone(),
            false => log.at(log.floor - 1),
        };
        let reset = Reset {
            reason: reason.to_owned(),
            requested: requested.to_string(),
            earliest: log.floor,
            head,
            position: position.clone(),
        };
        self.readers[reader].position = Some(position);
        self.reader_frame(reader, Read::Reset(reset));
    }

    fn close(&mut self, reader: usize) {
        if self.readers[reader].is_open {
            self.readers[reader].is_open = false;
            self.reader_frame(reader, Read::End);
        }
    }

    fn crash(&mut self) {
        let fault = Fault {
            what: "kill -9".to_owned(),
            is_damage: false,
        };
        self.record("nemesis", Op::Fault(fault));
        for reader in 0..self.readers.len() {
            self.close(reader);
        }
    }

    fn trim(&mut self) {
        let Some(kept) = self.retention_events else {
            return;
        };
        for log in &mut self.logs {
            let floor_max = log.head().seq.saturating_sub(kept) + 1;
            log.floor = self.rng.u64(log.floor..=floor_max.max(log.floor));
        }
    }

    /// A log loses its end and says so with a new epoch. As in a real run, the logs are read before that.
    fn damage(&mut self) {
        (0..self.logs.len()).for_each(|log| self.read_log(log));
        self.crash();
        let fault = Fault {
            what: "truncated".to_owned(),
            is_damage: true,
        };
        self.record("nemesis", Op::Fault(fault));
        let number = self.rng.usize(0..self.logs.len());
        let log = &mut self.logs[number];
        let kept = self
            .rng
            .usize(0..=log.events.len())
            .max(usize::try_from(log.floor - 1).unwrap_or(0));
        log.epoch = format!("new{:03}", self.entries.len());
        log.events.truncate(kept);
        for event in &mut log.events {
            event.position.epoch.clone_from(&log.epoch);
        }
        // What the lost end held is lost with its keys, so nobody asks for it again here.
        self.unanswered.retain(|(of, _, _)| *of != number);
    }

    fn reader_frame(&mut self, reader: usize, read: Read) {
        let process = self.readers[reader].process.clone();
        self.record(&process, Op::Read(read));
    }

    fn record(&mut self, process: &str, op: Op) {
        self.at_us += self.rng.u64(1..2000);
        self.entries.push(Entry {
            at_us: self.at_us,
            process: process.to_owned(),
            op,
        });
    }
}

//! The ledger: what was sent, what was acknowledged, and what each reader got. It decides whether a run failed.
//!
//! Promises: an event that is missing, repeated, out of order, damaged or of somebody else is counted once and never
//! forgiven; what was sent and not acknowledged may arrive or not, but only once. It never talks to a server.

use std::fmt;

use serde::Serialize;

use crate::mark::{Found, Mark};

const EXAMPLES_MAX: usize = 8;

/// A place in one reader's log as its server names it. Dense places rise by one, others only rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub major: u64,
    pub minor: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    pub missing: u64,
    pub repeated: u64,
    pub disordered: u64,
    pub foreign: u64,
    pub damaged: u64,
    /// A connection that the server ended, or a control frame that says that something is lost.
    pub cut: u64,
}

impl Faults {
    pub fn total(&self) -> u64 {
        let Faults {
            missing,
            repeated,
            disordered,
            foreign,
            damaged,
            cut,
        } = self;
        missing + repeated + disordered + foreign + damaged + cut
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} missing, {} repeated, {} out of order, {} foreign, {} damaged, {} cut",
            self.missing, self.repeated, self.disordered, self.foreign, self.damaged, self.cut
        )
    }
}

#[derive(Default)]
struct Track {
    sent: Vec<Sent>,
    readers: u32,
}

#[derive(Clone, Copy, Default)]
struct Sent {
    is_acked: bool,
    /// Where the reader's log has it, told by the ack or by the delivery, whichever came first. 0: not told yet.
    seq: u64,
}

struct Reader {
    track: u32,
    last: Option<Position>,
    /// One bit for each number of the track.
    seen: Vec<u64>,
}

impl Reader {
    /// Whether the number is new to this reader.
    fn see(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1u64 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let is_new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_new
    }

    fn has_seen(&self, number: usize) -> bool {
        let word = self.seen.get(number / 64).copied().unwrap_or(0);
        word & (1 << (number % 64)) != 0
    }
}

/// What the ledger has to know of a peer.
#[derive(Clone, Copy)]
pub struct Rules {
    pub run: u32,
    /// Length of a mark with its filling.
    pub text_bytes: usize,
    /// Positions rise by one from 1.
    pub is_dense: bool,
    /// A track is one user's log, so an ack may name the position.
    pub is_log: bool,
    /// Events without a mark are part of the scenario.
    pub has_unmarked: bool,
}

pub struct Ledger {
    rules: Rules,
    tracks: Vec<Track>,
    readers: Vec<Reader>,
    faults: Faults,
    examples: Vec<String>,
    /// Deliveries of events that their reader had not seen before.
    pub fresh: u64,
    /// Deliveries that all that was sent should lead to.
    pub wanted: u64,
}

impl Ledger {
    /// `tracks_of_readers` names the track of each reader.
    pub fn new(rules: Rules, tracks: u32, tracks_of_readers: &[u32]) -> Ledger {
        let mut ledger = Ledger {
            rules,
            tracks: (0..tracks).map(|_| Track::default()).collect(),
            readers: Vec::with_capacity(tracks_of_readers.len()),
            faults: Faults::default(),
            examples: Vec::new(),
            fresh: 0,
            wanted: 0,
        };
        for &track in tracks_of_readers {
            ledger.tracks[track as usize].readers += 1;
            ledger.readers.push(Reader {
                track,
                last: rules.is_dense.then_some(Position { major: 0, minor: 0 }),
                seen: Vec::new(),
            });
        }
        ledger
    }

    /// The next event of a track.
    pub fn draft(&mut self, track: u32, due_ns: u64) -> Mark {
        let entry = &mut self.tracks[track as usize];
        let number = entry.sent.len() as u32;
        entry.sent.push(Sent::default());
        self.wanted += u64::from(entry.readers);
        Mark {
            run: self.rules.run,
            track,
            number,
            due_ns,
        }
    }

    pub fn text(&self, mark: &Mark) -> String {
        mark.text(self.rules.text_bytes)
    }

    /// The server answered with success, and perhaps with the position.
    pub fn ack(&mut self, track: u32, number: u32, seq: Option<u64>) {
        self.tracks[track as usize].sent[number as usize].is_acked = true;
        if let Some(seq) = seq.filter(|_| self.rules.is_log) {
            self.place(track, number, seq);
        }
    }

    /// Events of a track that were acknowledged.
    pub fn acked(&self, track: u32) -> usize {
        let sent = &self.tracks[track as usize].sent;
        sent.iter().filter(|sent| sent.is_acked).count()
    }

    /// An event came, with its position where the server tells one. Some: when it was due, for it is new to this
    /// reader.
    pub fn receive(
        &mut self,
        reader: usize,
        data: &[u8],
        position: Option<Position>,
    ) -> Option<u64> {
        let mark = match Mark::find(data, self.rules.text_bytes) {
            Found::Whole(mark) => mark,
            Found::Damaged => {
                self.fault(|f| &mut f.damaged, || format!("damaged: {}", lossy(data)));
                self.pass_over(reader, position);
                return None;
            }
            Found::Nothing => {
                if !self.rules.has_unmarked {
                    self.fault(|f| &mut f.foreign, || format!("no mark: {}", lossy(data)));
                }
                self.advance(reader, position, None);
                return None;
            }
        };
        let track = self.readers[reader].track;
        let is_ours = mark.run == self.rules.run
            && mark.track == track
            && (mark.number as usize) < self.tracks[track as usize].sent.len();
        if !is_ours {
            self.fault(
                |f| &mut f.foreign,
                || format!("reader {reader} got {mark:?}"),
            );
            self.pass_over(reader, position);
            return None;
        }
        if !self.readers[reader].see(mark.number) {
            self.fault(
                |f| &mut f.repeated,
                || format!("reader {reader} got {mark:?} again"),
            );
            self.pass_over(reader, position);
            return None;
        }
        self.advance(reader, position, Some(mark));
        self.fresh += 1;
        Some(mark.due_ns)
    }

    /// A fault is counted once: what follows it is not out of order for that.
    fn pass_over(&mut self, reader: usize, position: Option<Position>) {
        let last = &mut self.readers[reader].last;
        *last = (*last).max(position);
    }

    fn advance(&mut self, reader: usize, position: Option<Position>, mark: Option<Mark>) {
        let Some(position) = position else {
            if mark.is_some() && self.rules.is_dense {
                self.fault(
                    |f| &mut f.disordered,
                    || format!("reader {reader} got {mark:?} without a position"),
                );
            }
            return;
        };
        let last = self.readers[reader].last.replace(position);
        let fits = match last {
            Some(last) if self.rules.is_dense => position.major == last.major + 1,
            Some(last) => position > last,
            None => true,
        };
        if !fits {
            self.fault(
                |f| &mut f.disordered,
                || format!("reader {reader} got {position:?} after {last:?}"),
            );
        }
        if let Some(mark) = mark.filter(|_| self.rules.is_log && self.rules.is_dense) {
            self.place(mark.track, mark.number, position.major);
        }
    }

    /// The ack and all deliveries must name the same position.
    fn place(&mut self, track: u32, number: u32, seq: u64) {
        let known = &mut self.tracks[track as usize].sent[number as usize].seq;
        if *known == 0 {
            *known = seq;
        } else if *known != seq {
            let known = *known;
            self.fault(
                |f| &mut f.disordered,
                || format!("event {number} of track {track} is at {seq} and at {known}"),
            );
        }
    }

    pub fn cut(&mut self, why: impl FnOnce() -> String) {
        self.fault(|f| &mut f.cut, why);
    }

    fn fault(
        &mut self,
        count: impl FnOnce(&mut Faults) -> &mut u64,
        example: impl FnOnce() -> String,
    ) {
        *count(&mut self.faults) += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }

    /// Sent, and neither acknowledged nor refused: a crash took the answer.
    pub fn in_doubt(&self) -> u64 {
        let sent = self.tracks.iter().flat_map(|track| &track.sent);
        sent.filter(|sent| !sent.is_acked).count() as u64
    }

    /// After a crash: what was in doubt and has not come by now will not come.
    pub fn give_up_doubts(&mut self) {
        let missing: u64 = (0..self.readers.len())
            .map(|index| self.missing(index).count() as u64)
            .sum();
        self.wanted = self.fresh + missing;
    }

    /// Numbers that a reader should have seen.
    fn missing(&self, index: usize) -> impl Iterator<Item = usize> {
        let reader = &self.readers[index];
        let sent = &self.tracks[reader.track as usize].sent;
        let acked = sent.iter().enumerate().filter(|(_, sent)| sent.is_acked);
        acked
            .map(|(number, _)| number)
            .filter(|number| !reader.has_seen(*number))
    }

    /// The verdict: counts what never came, and gives some examples of what was wrong.
    pub fn finish(&mut self) -> (Faults, Vec<String>) {
        for index in 0..self.readers.len() {
            let missing: Vec<usize> = self.missing(index).collect();
            for number in missing {
                self.fault(
                    |f| &mut f.missing,
                    || format!("reader {index} never got event {number}"),
                );
            }
        }
        (self.faults, self.examples.clone())
    }
}

fn lossy(data: &[u8]) -> String {
    let end = data.len().min(160);
    String::from_utf8_lossy(&data[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        run: 1,
        text_bytes: 80,
        is_dense: true,
        is_log: true,
        has_unmarked: false,
    };

    fn at(major: u64) -> Option<Position> {
        Some(Position { major, minor: 0 })
    }

    /// One user with two readers, three events sent and acknowledged.
    fn ledger(rules: Rules) -> (Ledger, Vec<String>) {
        let mut ledger = Ledger::new(rules, 1, &[0, 0]);
        let texts = (0..3)
            .map(|n| {
                let mark = ledger.draft(0, n);
                ledger.ack(0, mark.number, Some(n + 1));
                ledger.text(&mark)
            })
            .collect();
        (ledger, texts)
    }

    #[track_caller]
    fn check(deliveries: &[(usize, usize, u64)], expected: Faults) {
        let (mut ledger, texts) = ledger(RULES);
        for &(reader, event, seq) in deliveries {
            ledger.receive(reader, texts[event].as_bytes(), at(seq));
        }
        assert_eq!(ledger.finish().0, expected);
    }

    #[test]
    fn each_fault_is_counted_as_what_it_is() {
        let whole = [(0, 0, 1), (0, 1, 2), (0, 2, 3)];
        let second = [(1, 0, 1), (1, 1, 2), (1, 2, 3)];
        let none = Faults::default();
        check(&[whole, second].concat(), none);
        check(&whole, Faults { missing: 3, ..none });
        let repeated = [&whole[..], &[(0, 2, 3)], &second].concat();
        check(
            &repeated,
            Faults {
                repeated: 1,
                ..none
            },
        );
        // An event left out: never came, and the next position jumps.
        let gap = [&[(0, 0, 1), (0, 2, 3)], &second[..]].concat();
        let expected = Faults {
            missing: 1,
            disordered: 1,
            ..none
        };
        check(&gap, expected);
        let swapped = [&[(0, 1, 2), (0, 0, 1), (0, 2, 3)], &second[..]].concat();
        check(
            &swapped,
            Faults {
                disordered: 3,
                ..none
            },
        );
        // Positions rise, yet they are not those that the acks named.
        let elsewhere = [&[(0, 1, 1), (0, 0, 2), (0, 2, 3)], &second[..]].concat();
        check(
            &elsewhere,
            Faults {
                disordered: 2,
                ..none
            },
        );
    }

    #[test]
    fn events_of_others_are_foreign_and_damage_is_damage() {
        let (mut ledger, texts) = ledger(RULES);
        let other = Mark {
            run: 2,
            track: 0,
            number: 0,
            due_ns: 0,
        };
        ledger.receive(0, other.text(80).as_bytes(), at(1));
        let unsent = Mark {
            run: 1,
            track: 0,
            number: 3,
            due_ns: 0,
        };
        ledger.receive(0, unsent.text(80).as_bytes(), at(1));
        ledger.receive(0, &texts[0].as_bytes()[..70], at(1));
        ledger.receive(0, b"{}", None);
        let faults = ledger.faults;
        assert_eq!((faults.foreign, faults.damaged), (3, 1));
        assert_eq!(ledger.fresh, 0);
    }

    #[test]
    fn what_was_not_acknowledged_may_come_once_or_not_at_all() {
        let mut ledger = Ledger::new(RULES, 1, &[0, 0]);
        let mark = ledger.draft(0, 5);
        let text = ledger.text(&mark);
        assert_eq!(ledger.receive(0, text.as_bytes(), at(1)), Some(5));
        assert_eq!((ledger.in_doubt(), ledger.wanted), (1, 2));
        assert_eq!(ledger.finish().0.total(), 0);
        ledger.receive(0, text.as_bytes(), at(2));
        assert_eq!(ledger.finish().0.repeated, 1);
    }

    #[test]
    fn an_event_of_a_log_without_its_position_is_out_of_order() {
        let (mut ledger, texts) = ledger(RULES);
        ledger.receive(0, texts[0].as_bytes(), None);
        assert_eq!(ledger.faults.disordered, 1);
    }

    #[test]
    fn places_that_only_rise_need_not_be_dense() {
        let rules = Rules {
            is_dense: false,
            is_log: false,
            ..RULES
        };
        let (mut ledger, texts) = ledger(rules);
        for (event, seq) in [(0, 10), (1, 20), (2, 15)] {
            ledger.receive(0, texts[event].as_bytes(), at(seq));
        }
        assert_eq!(ledger.faults.disordered, 1);
    }
}

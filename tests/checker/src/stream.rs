//! What a reader must see: on one connection (O, U, R) and over all its connections (S).
//!
//! A connection is followed frame by frame from the position it asked for. Whatever the transport, the next event is
//! the next seq, or a reset stands before it and is true. Nothing here knows the network.

use std::collections::HashSet;

use crate::history::{Invariant, Origin, Position, Read, Reset, Seen};
use crate::invariants::Violation;
use crate::view::{Connection, View};

/// After the server is well again, a reader must be at the head within this time.
pub const HEALED_US_MAX: u64 = 5_000_000;

/// O, U and R for each connection.
pub fn followed(view: &View) -> Vec<Violation> {
    let mut violations = Vec::new();
    for connection in &view.connections {
        let mut follower = Follower::new(view, connection);
        for frame in &connection.frames {
            follower.take(frame.order, frame.read);
        }
        violations.extend(follower.violations);
    }
    violations
}

/// S: a reader's connections join at its cursors, and it reaches the head in time after each healing.
pub fn resumable(view: &View) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (process, places) in &view.readers {
        let mut end: Option<Position> = None;
        for place in places {
            let connection = &view.connections[*place];
            if let (Origin::After(asked), Some(last)) = (connection.origin, &end)
                && asked != last
            {
                let what = format!("{process} was at {last} and went on from {asked}");
                violations.push(Violation::new(Invariant::Resumable, what));
            }
            end = last_position(connection).or(end);
        }
    }
    violations.extend(late(view));
    violations
}

fn late(view: &View) -> Vec<Violation> {
    let mut violations = Vec::new();
    // An empty log owes nobody anything; a poll may rightly wait there without a word.
    for healed in view.healed.iter().filter(|healed| healed.head.seq > 0) {
        for (process, places) in &view.readers {
            let connections = || places.iter().map(|place| &view.connections[*place]);
            let is_owed = connections()
                .next()
                .is_some_and(|first| first.user == healed.user && first.began_us <= healed.at_us);
            if !is_owed {
                continue;
            }
            let deadline_us = healed.at_us + HEALED_US_MAX;
            let is_settled =
                connections().any(|connection| reaches(connection, healed.head, deadline_us));
            let left_before = leave_us(connections()) < healed.at_us;
            if !is_settled && !left_before {
                let what = format!(
                    "{process} did not reach {} within 5 s of healing",
                    healed.head
                );
                violations.push(Violation::new(Invariant::Resumable, what));
            }
        }
    }
    violations
}

fn leave_us<'a>(connections: impl Iterator<Item = &'a Connection<'a>>) -> u64 {
    let mut frames = connections.flat_map(|connection| &connection.frames);
    frames
        .find(|frame| matches!(frame.read, Read::Leave))
        .map_or(u64::MAX, |frame| frame.at_us)
}

fn reaches(connection: &Connection, head: &Position, deadline_us: u64) -> bool {
    let is_there = |position: &Position| position.epoch == head.epoch && position.seq >= head.seq;
    let began_there = matches!(connection.origin, Origin::After(position) if is_there(position));
    let frames = connection
        .frames
        .iter()
        .filter(|frame| frame.at_us <= deadline_us);
    (began_there && connection.began_us <= deadline_us)
        || frames
            .filter_map(|frame| position_after(frame.read))
            .any(is_there)
}

/// Where a reader stands after this frame, if the frame says so.
fn position_after(read: &Read) -> Option<&Position> {
    match read {
        Read::Ready { position } | Read::Reached { position } => Some(position),
        Read::Event(seen) => Some(&seen.position),
        Read::Reset(reset) => Some(&reset.position),
        Read::Invoke { .. } | Read::End | Read::Leave => None,
    }
}

fn last_position(connection: &Connection) -> Option<Position> {
    let told = connection
        .frames
        .iter()
        .rev()
        .find_map(|frame| position_after(frame.read));
    match (told, connection.origin) {
        (Some(position), _) | (None, Origin::After(position)) => Some(position.clone()),
        (None, Origin::Start | Origin::Now) => None,
    }
}

/// Walks along one connection.
struct Follower<'a> {
    view: &'a View<'a>,
    connection: &'a Connection<'a>,
    /// Everything up to here was sent or was asked to be left out.
    position: Option<Position>,
    ids: HashSet<&'a str>,
    violations: Vec<Violation>,
}

impl<'a> Follower<'a> {
    fn new(view: &'a View<'a>, connection: &'a Connection<'a>) -> Follower<'a> {
        let position = match connection.origin {
            Origin::After(position) => Some(position.clone()),
            Origin::Start | Origin::Now => None,
        };
        Follower {
            view,
            connection,
            position,
            ids: HashSet::new(),
            violations: Vec::new(),
        }
    }

    fn take(&mut self, order: usize, read: &'a Read) {
        match read {
            Read::Ready { position } => self.take_ready(position),
            Read::Event(seen) => self.take_event(order, seen),
            Read::Reset(reset) => self.take_reset(order, reset),
            Read::Reached { position } => self.take_reached(order, position),
            Read::Invoke { .. } | Read::End | Read::Leave => {}
        }
    }

    /// A reader that is cut off after `ready` goes on from what it says, so that must be what was asked: a reset, which would
    /// have told of the difference, may never arrive.
    fn take_ready(&mut self, position: &Position) {
        if let Origin::After(asked) = self.connection.origin
            && asked != position
        {
            self.report(
                Invariant::Reliable,
                format!("ready says {position} before any reset was told"),
            );
        }
        self.position.get_or_insert_with(|| position.clone());
    }

    fn take_event(&mut self, order: usize, seen: &'a Seen) {
        let here = &seen.position;
        self.judge_start(order, here, here.seq);
        if !self.ids.insert(&seen.id) {
            self.report(
                Invariant::Unique,
                format!("id {} came twice, again at {here}", seen.id),
            );
        }
        if let Some(before) = self.position.clone() {
            if before.epoch != here.epoch {
                self.report(
                    Invariant::Reliable,
                    format!("after {before} came {here} without a reset"),
                );
            } else if here.seq <= before.seq {
                let is_first = self.ids.len() == 1;
                let invariant = if is_first {
                    Invariant::Unique
                } else {
                    Invariant::Ordered
                };
                self.report(invariant, format!("after {before} came {here}"));
            } else if here.seq > before.seq + 1 {
                self.report(
                    Invariant::Reliable,
                    format!("between {before} and {here} events are missing"),
                );
            }
        }
        self.position = Some(here.clone());
    }

    /// Who asked for the oldest kept event must not begin later than `floor`.
    fn judge_start(&mut self, order: usize, here: &Position, floor: u64) {
        let is_first = self.position.is_none() && *self.connection.origin == Origin::Start;
        if is_first && self.is_kept_later(order, &here.epoch, floor) {
            self.report(
                Invariant::Reliable,
                format!("{here} came first although the log began earlier"),
            );
        }
    }

    fn take_reset(&mut self, order: usize, reset: &Reset) {
        if let Some(false_because) = self.falsehood(order, reset) {
            self.report(
                Invariant::Reliable,
                format!("false reset, {false_because}: {reset:?}"),
            );
        }
        self.position = Some(reset.position.clone());
    }

    /// Why a reset is not true, if it is not.
    fn falsehood(&self, order: usize, reset: &Reset) -> Option<&'static str> {
        let Some(before) = &self.position else {
            // The oldest event may go between the question and the answer, but nothing that is left may be skipped.
            let is_next_oldest =
                reset.reason == "trimmed" && reset.position.seq + 1 == reset.earliest;
            let is_from_start = *self.connection.origin == Origin::Start;
            return (!is_next_oldest || !is_from_start).then_some("no position was asked for");
        };
        let head = &reset.head;
        let goes_on = &reset.position;
        if goes_on.epoch != head.epoch
            || (goes_on.seq != head.seq && goes_on.seq + 1 != reset.earliest)
        {
            return Some("it goes on neither from the head nor from the earliest");
        }
        let is_same_epoch = before.epoch == head.epoch;
        match reset.reason.as_str() {
            "trimmed" if !is_same_epoch => Some("the epoch differs"),
            "trimmed" if before.seq + 1 >= reset.earliest => Some("nothing was missing"),
            "trimmed" if self.is_kept_later(order, &head.epoch, reset.earliest) => {
                Some("the log holds more than it says")
            }
            "epoch" if is_same_epoch => Some("the epoch is the same"),
            "ahead" if !is_same_epoch || before.seq <= head.seq => {
                Some("the position is not ahead")
            }
            "trimmed" | "epoch" | "ahead" => None,
            _ => Some("the reason is not one that can apply"),
        }
    }

    /// The floor only rises: a later reading of the log that begins before `seq` proves that the earlier events were
    /// still there.
    fn is_kept_later(&self, order: usize, epoch: &str, seq: u64) -> bool {
        self.view.logs.iter().any(|read| {
            let log = read.log;
            log.user == self.connection.user
                && read.order > order
                && log.head.epoch == epoch
                && log.floor < seq
        })
    }

    fn take_reached(&mut self, order: usize, position: &Position) {
        self.judge_start(order, position, position.seq + 1);
        if let Some(before) = self.position.clone()
            && before != *position
        {
            self.report(
                Invariant::Reliable,
                format!("{position} was called reached at {before}"),
            );
        }
        self.position = Some(position.clone());
    }

    fn report(&mut self, invariant: Invariant, what: String) {
        let Connection {
            process,
            user,
            transport,
            origin,
            ..
        } = self.connection;
        let what = format!("{process} of {user} over {transport:?} from {origin:?}: {what}");
        self.violations.push(Violation::new(invariant, what));
    }
}

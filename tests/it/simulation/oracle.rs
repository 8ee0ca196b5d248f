//! What is known of a run: what was asked for, what was acknowledged, what was shown, and what was broken by it.
//!
//! Promises: acknowledged ⊆ delivered ⊆ submitted; a place in a log, once acknowledged or shown, keeps its bytes; an
//! idempotency key appends once. It sees only what callers and readers see.

use std::collections::{BTreeMap, BTreeSet};

use tidings::event::Event;
use tidings::publish::Receipt;

use super::plan::Plan;

const DAY_MS: u64 = 86_400_000;

/// Who is to get something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    Users(Vec<usize>),
    Topic(usize),
}

/// One thing that a publisher wants to have published, however often it asks for it.
#[derive(Debug, Clone)]
pub struct Wish {
    pub to: To,
    pub is_keyed: bool,
    /// Its key was used for something else: it must be refused.
    pub is_mismatch: bool,
    /// The moment and the clock when it was first asked for.
    pub invoked: u64,
    pub invoked_ms: u64,
    /// The moment of the first acknowledgement, and what it said.
    pub acked: Option<u64>,
    pub receipt: Option<Receipt>,
}

/// A place in a log that was acknowledged or shown.
#[derive(Debug, Clone)]
pub struct Place {
    pub event_id: String,
    pub wish: usize,
}

/// One life of one user's log.
pub type LogKey = (usize, String);

/// A change of one user's subscription to one topic; those of a pair never overlap.
#[derive(Debug, Clone)]
pub struct Change {
    pub invoked: u64,
    /// When it was answered or its server was gone.
    pub done: Option<u64>,
    pub is_acked: bool,
    pub does_join: bool,
}

/// Someone was told that everything before a seq is gone.
#[derive(Debug, Clone)]
pub struct FloorClaim {
    pub log: LogKey,
    pub floor: u64,
    pub tail: u64,
    pub clock_ms: u64,
}

/// Seqs that a reader's filter must have hidden.
#[derive(Debug, Clone)]
pub struct Skip {
    pub log: LogKey,
    pub first: u64,
    pub last: u64,
    pub filter: tidings::cursor::filter::Filter,
    pub conn: Option<String>,
}

pub struct Oracle {
    pub plan: Plan,
    pub wishes: Vec<Wish>,
    pub batches: Vec<Vec<usize>>,
    /// Every event that was ever submitted, by its id, with the wish that it was made for.
    pub attempts: BTreeMap<String, (usize, Event)>,
    pub places: BTreeMap<LogKey, BTreeMap<u64, Place>>,
    /// Where each wish stands in each user's log.
    pub found: BTreeMap<(usize, usize), (String, u64)>,
    pub changes: BTreeMap<(usize, usize), Vec<Change>>,
    pub claims: Vec<FloorClaim>,
    pub skips: Vec<Skip>,
    pub violations: Vec<String>,
    pub transcript: Vec<String>,
    pub shown: u64,
    pub resets: u64,
    /// Rises with everything that is asked or answered.
    moment: u64,
    /// The latest time that any clock told.
    pub clock_ms: u64,
    has_damage: bool,
}

impl Oracle {
    pub fn new(plan: &Plan, start_ms: u64) -> Oracle {
        Oracle {
            plan: plan.clone(),
            wishes: Vec::new(),
            batches: Vec::new(),
            attempts: BTreeMap::new(),
            places: BTreeMap::new(),
            found: BTreeMap::new(),
            changes: BTreeMap::new(),
            claims: Vec::new(),
            skips: Vec::new(),
            violations: Vec::new(),
            transcript: Vec::new(),
            shown: 0,
            resets: 0,
            moment: 0,
            clock_ms: start_ms,
            has_damage: false,
        }
    }

    pub fn note(&mut self, line: String) {
        self.transcript.push(line);
    }

    pub fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    pub fn moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    pub fn clock(&mut self, now_ms: u64) {
        self.clock_ms = self.clock_ms.max(now_ms);
    }

    pub fn damaged(&mut self) {
        self.has_damage = true;
    }

    /// Whether rows were damaged: from then on a loss is allowed where it is announced.
    pub fn has_damage(&self) -> bool {
        self.has_damage
    }

    pub fn wish(&mut self, to: To, batch: Option<usize>, is_keyed: bool, now_ms: u64) -> usize {
        let invoked = self.moment();
        self.wishes.push(Wish {
            to,

            is_keyed,
            is_mismatch: false,
            invoked,
            invoked_ms: now_ms,
            acked: None,
            receipt: None,
        });
        let number = self.wishes.len() - 1;
        if let Some(batch) = batch {
            self.batches[batch].push(number);
        }
        number
    }

    pub fn batch(&mut self) -> usize {
        self.batches.push(Vec::new());
        self.batches.len() - 1
    }

    /// Whether the wish's key may be forgotten by now.
    pub fn is_forgettable(&self, wish: usize) -> bool {
        self.clock_ms >= self.wishes[wish].invoked_ms + DAY_MS
    }

    /// The server acknowledged the wish.
    pub fn acked(&mut self, wish: usize, receipt: Receipt) {
        let moment = self.moment();
        let is_forgettable = self.is_forgettable(wish);
        let known = &mut self.wishes[wish];
        if known.is_mismatch && !is_forgettable {
            let what = format!("wish {wish} was taken though its key had another body");
            return self.violation(what);
        }
        known.acked.get_or_insert(moment);
        let as_first = Receipt {
            is_duplicate: false,
            ..receipt.clone()
        };
        let first = known.receipt.get_or_insert(as_first.clone()).clone();
        if first != as_first && !is_forgettable {
            self.violation(format!(
                "wish {wish} was acknowledged as {first:?} and as {as_first:?}"
            ));
        }
        let position = receipt.position;
        let To::Users(users) = &self.wishes[wish].to else {
            return;
        };
        if let (Some(position), [user]) = (position, users.as_slice()) {
            let log = (*user, position.epoch.to_string());
            self.place(log, position.seq, receipt.id.as_str(), "acknowledged");
        }
    }

    /// A reader was shown an event.
    pub fn shown(&mut self, log: LogKey, seq: u64, event: &Event) {
        self.shown += 1;
        match self.attempts.get(event.id()) {
            Some((_, submitted)) if submitted.json() == event.json() => {
                self.place(log, seq, event.id(), "shown");
            }
            Some(_) => self.violation(format!("{log:?} {seq}: {} has other bytes", event.id())),
            None => self.violation(format!("{log:?} {seq}: {} is a phantom", event.id())),
        }
    }

    /// A place in a log was acknowledged or shown: it must be the same for ever.
    fn place(&mut self, log: LogKey, seq: u64, event_id: &str, how: &str) {
        let Some((wish, _)) = self.attempts.get(event_id) else {
            return self.violation(format!("{log:?} {seq}: {event_id} was never submitted"));
        };
        let wish = *wish;
        if let Some(known) = self.places.get(&log).and_then(|log| log.get(&seq)) {
            if known.event_id != event_id {
                let before = known.event_id.clone();
                self.violation(format!(
                    "{log:?} {seq} was {before}, now {event_id} is {how}"
                ));
            }
            return;
        }
        let (user, epoch) = log.clone();
        if self.wishes[wish].is_mismatch && !self.is_forgettable(wish) {
            self.violation(format!(
                "{log:?} {seq}: {event_id} was refused, now it is {how}"
            ));
        }
        if let To::Users(users) = &self.wishes[wish].to
            && !users.contains(&user)
        {
            self.violation(format!(
                "{log:?} {seq}: {event_id} is for {users:?}, not for this user"
            ));
        }
        // After damage the same log goes on under another epoch, with everything that is left.
        if let Some(other) = self.found.insert((user, wish), (epoch.clone(), seq))
            && !self.is_forgettable(wish)
            && !(self.has_damage && other.0 != epoch)
        {
            self.violation(format!(
                "{log:?} {seq}: {event_id} is {how}, but wish {wish} is at {other:?} already"
            ));
        }
        let place = Place {
            event_id: event_id.to_owned(),
            wish,
        };
        self.places.entry(log).or_default().insert(seq, place);
    }

    /// Whether a user was subscribed during all of a span: `None` where that is uncertain.
    pub fn was_subscribed(&self, user: usize, topic: usize, from: u64, to: u64) -> Option<bool> {
        let mut state = Some(false);
        for change in self.changes.get(&(user, topic)).into_iter().flatten() {
            let is_before = change.done.is_some_and(|done| done < from);
            if is_before {
                state = match change.is_acked {
                    true => Some(change.does_join),
                    false => state.filter(|state| *state == change.does_join),
                };
            } else if change.invoked < to {
                state = state.filter(|state| *state == change.does_join);
            }
        }
        state
    }

    /// Logs of a user that something was ever shown or acknowledged of.
    pub fn epochs(&self, user: usize) -> BTreeSet<&str> {
        let logs = self.places.keys().filter(|(owner, _)| *owner == user);
        logs.map(|(_, epoch)| epoch.as_str()).collect()
    }
}

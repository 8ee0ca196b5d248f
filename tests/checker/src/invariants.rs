//! The invariants of FAULTS.md as pure functions from a history to what is wrong with it.
//!
//! Each function is one question and answers with sentences; an empty answer means that the history is clean. They
//! read nothing but the history and know nothing of how it came about. What one connection must look like (O, U, R)
//! and what a reader may expect over its connections (S) is in `stream`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::history::{Entry, Invariant, Position, Seen, Transport};
use crate::stream;
use crate::view::{LogRead, Outcome, Tried, View};

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
}

impl Violation {
    pub fn new(invariant: Invariant, what: impl Into<String>) -> Violation {
        Violation {
            invariant,
            what: what.into(),
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.invariant.letter(), self.what)
    }
}

pub fn check(entries: &[Entry]) -> Vec<Violation> {
    let view = View::of(entries);
    let mut violations = Vec::new();
    violations.extend(durable(&view));
    violations.extend(stream::followed(&view));
    violations.extend(stream::resumable(&view));
    violations.extend(immutable(&view));
    violations.extend(shown_and_lost(&view));
    violations.extend(published(&view));
    violations.extend(idempotent(&view));
    violations.extend(agree(&view));
    violations.extend(honest(&view));
    violations.extend(whole(&view));
    violations.extend(claims(&view));
    violations
}

/// D: every acked event is in every later reading of the log, unless retention was allowed to remove it. The log
/// itself has no holes.
fn durable(view: &View) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut logs_of: HashMap<&str, Vec<&LogRead>> = HashMap::new();
    for read in &view.logs {
        logs_of.entry(&read.log.user).or_default().push(read);
        violations.extend(dense(view, read));
    }
    for Tried {
        attempt, outcome, ..
    } in view.attempts.values()
    {
        let Outcome::Acked { order, acked } = outcome else {
            continue;
        };
        let Some(position) = &acked.position else {
            continue;
        };
        let later = logs_of
            .get(attempt.user.as_str())
            .into_iter()
            .flatten()
            .filter(|read| read.order > *order);
        for read in later {
            if position.epoch != read.log.head.epoch {
                if !view.has_damage_between(*order, read.order) {
                    let what = format!(
                        "{} acked {position}, now the epoch is {}",
                        attempt.user, read.log.head.epoch
                    );
                    violations.push(Violation::new(Invariant::Durable, what));
                }
                continue;
            }
            if is_trimmed(view, read, position.seq) {
                continue;
            }
            let is_kept = read
                .event_at(position.seq)
                .is_some_and(|event| event.id == acked.id);
            if !is_kept {
                let what = format!(
                    "{} acked {} at {position}, the log does not hold it",
                    attempt.user, acked.id
                );
                violations.push(Violation::new(Invariant::Durable, what));
            }
        }
    }
    violations
}

/// True where the log had the right to forget this seq and says that it did.
fn is_trimmed(view: &View, read: &LogRead, seq: u64) -> bool {
    let Some(kept) = view.retention_events else {
        return false;
    };
    seq < read.log.floor && seq + kept <= read.log.head.seq
}

fn dense(view: &View, read: &LogRead) -> Option<Violation> {
    let log = read.log;
    for (expected, event) in (log.floor..).zip(&log.events) {
        if event.position.seq != expected || event.position.epoch != log.head.epoch {
            let what = format!(
                "log of {}: {}-{expected} expected, {} found",
                log.user, log.head.epoch, event.position
            );
            return Some(Violation::new(Invariant::Durable, what));
        }
    }
    let floor_max = match view.retention_events {
        Some(kept) => log.head.seq.saturating_sub(kept) + 1,
        None => 1,
    };
    if log.floor > floor_max && !view.has_damage_between(0, read.order) {
        let what = format!(
            "log of {} begins at {} although {floor_max} must be kept",
            log.user, log.floor
        );
        return Some(Violation::new(Invariant::Durable, what));
    }
    None
}

/// I and A: one position means the same event for ever, whoever reads it and however.
fn immutable(view: &View) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut first: HashMap<(&str, &Position), (Option<Transport>, &Seen)> = HashMap::new();
    for sighting in view.sightings() {
        let place = (sighting.user, &sighting.seen.position);
        let (transport, seen) = *first
            .entry(place)
            .or_insert((sighting.transport, sighting.seen));
        if seen != sighting.seen {
            let is_same_way = transport == sighting.transport;
            let invariant = if is_same_way {
                Invariant::Immutable
            } else {
                Invariant::Agree
            };
            let what = format!(
                "{} {} was {seen:?}, then {:?}",
                sighting.user, seen.position, sighting.seen
            );
            violations.push(Violation::new(invariant, what));
        }
    }
    let mut acked_at: HashMap<(&str, &Position), &str> = HashMap::new();
    for Tried {
        attempt, outcome, ..
    } in view.attempts.values()
    {
        let Outcome::Acked { acked, .. } = outcome else {
            continue;
        };
        let Some(position) = &acked.position else {
            continue;
        };
        let place = (attempt.user.as_str(), position);
        let shown = first.get(&place).map(|(_, seen)| seen.id.as_str());
        let earlier = *acked_at.entry(place).or_insert(&acked.id);
        if earlier != acked.id || shown.is_some_and(|id| id != acked.id) {
            let what = format!(
                "{} {position} was given to {} and to {earlier}/{shown:?}",
                attempt.user, acked.id
            );
            violations.push(Violation::new(Invariant::Immutable, what));
        }
    }
    violations
}

/// I: what was once shown to a reader stays in the log.
fn shown_and_lost(view: &View) -> Vec<Violation> {
    let mut shown: BTreeMap<&str, BTreeMap<(&str, u64), usize>> = BTreeMap::new();
    for sighting in view.sightings() {
        let position = &sighting.seen.position;
        let place = (position.epoch.as_str(), position.seq);
        let order = shown
            .entry(sighting.user)
            .or_default()
            .entry(place)
            .or_insert(sighting.order);
        *order = sighting.order.min(*order);
    }
    let mut violations = Vec::new();
    for read in &view.logs {
        for ((epoch, seq), order) in shown.get(read.log.user.as_str()).into_iter().flatten() {
            if *order >= read.order {
                continue;
            }
            let is_there = match *epoch == read.log.head.epoch {
                true => read.event_at(*seq).is_some() || is_trimmed(view, read, *seq),
                false => view.has_damage_between(*order, read.order),
            };
            if !is_there {
                let what = format!(
                    "{} was shown {epoch}-{seq}, later the log does not hold it",
                    read.log.user
                );
                violations.push(Violation::new(Invariant::Immutable, what));
            }
        }
    }
    violations
}

/// P and X: every event was published to the user who sees it, with this very payload, and was not refused.
fn published(view: &View) -> Vec<Violation> {
    let mut attempts_of: HashMap<&str, Vec<&Tried>> = HashMap::new();
    for tried in view.attempts.values() {
        attempts_of
            .entry(&tried.attempt.nonce)
            .or_default()
            .push(tried);
    }
    let mut violations = Vec::new();
    let mut judged: HashSet<(&str, &Seen)> = HashSet::new();
    for sighting in view.sightings() {
        let (user, seen) = (sighting.user, sighting.seen);
        if !judged.insert((user, seen)) {
            continue;
        }
        if seen.owner != user {
            let what = format!("{user} sees {} of {}", seen.position, seen.owner);
            violations.push(Violation::new(Invariant::Isolated, what));
        }
        let Some(tries) = attempts_of.get(seen.nonce.as_str()) else {
            let what = format!(
                "{user} sees {} that nobody published: {}",
                seen.position, seen.data
            );
            violations.push(Violation::new(Invariant::NoPhantom, what));
            continue;
        };
        let wanted = tries[0].attempt;
        if wanted.data != seen.data || wanted.event_type != seen.event_type {
            let what = format!(
                "{user} {}: published {} seen {}",
                seen.position, wanted.data, seen.data
            );
            violations.push(Violation::new(Invariant::NoPhantom, what));
        }
        if tries
            .iter()
            .all(|tried| matches!(tried.outcome, Outcome::Refused { .. }))
        {
            let what = format!("{user} sees {} although it was refused", seen.position);
            violations.push(Violation::new(Invariant::NoPhantom, what));
        }
    }
    violations
}

/// K: one key is one event, one id and one position, however often it is asked for.
fn idempotent(view: &View) -> Vec<Violation> {
    let mut violations = Vec::new();
    for read in &view.logs {
        let mut nonces = HashSet::new();
        for event in read
            .log
            .events
            .iter()
            .filter(|event| !nonces.insert(event.nonce.as_str()))
        {
            let what = format!(
                "log of {} holds {} twice, again at {}",
                read.log.user, event.nonce, event.position
            );
            violations.push(Violation::new(Invariant::Idempotent, what));
        }
    }
    let mut tries_of: BTreeMap<&str, Vec<&Tried>> = BTreeMap::new();
    for tried in view
        .attempts
        .values()
        .filter(|tried| tried.attempt.key.is_some())
    {
        tries_of
            .entry(&tried.attempt.nonce)
            .or_default()
            .push(tried);
    }
    for (nonce, tries) in tries_of {
        let acks: Vec<_> = tries
            .iter()
            .filter_map(|tried| match &tried.outcome {
                Outcome::Acked { acked, .. } => Some(*acked),
                _ => None,
            })
            .collect();
        let ids: BTreeSet<_> = acks.iter().map(|acked| &acked.id).collect();
        let cursors: BTreeSet<_> = acks
            .iter()
            .filter_map(|acked| acked.position.as_ref())
            .map(|p| p.to_string())
            .collect();
        let fresh = acks.iter().filter(|acked| !acked.is_duplicate).count();
        let is_wrong = ids.len() > 1 || cursors.len() > 1 || fresh > 1;
        if is_wrong || (tries.len() == 1 && fresh == 0 && acks.len() == 1) {
            let what = format!(
                "{nonce}: {} tries gave ids {ids:?} at {cursors:?}, {fresh} called new",
                tries.len()
            );
            violations.push(Violation::new(Invariant::Idempotent, what));
        }
    }
    violations
}

/// A: the numbers the server states are the numbers one counts.
fn agree(view: &View) -> Vec<Violation> {
    let mut violations = Vec::new();
    for LogRead { log, .. } in &view.logs {
        let last = log
            .events
            .last()
            .map_or(log.floor - 1, |event| event.position.seq);
        if last != log.head.seq {
            let what = format!(
                "log of {} ends at {last}, the server says {}",
                log.user, log.head
            );
            violations.push(Violation::new(Invariant::Agree, what));
        }
    }
    for Tried {
        attempt, outcome, ..
    } in view.attempts.values()
    {
        let Outcome::Acked { acked, .. } = outcome else {
            continue;
        };
        if acked.recipients != 1 {
            let what = format!(
                "{} to one user says {} recipients",
                attempt.nonce, acked.recipients
            );
            violations.push(Violation::new(Invariant::Agree, what));
        }
    }
    violations
}

/// H: a refusal is 4xx or 5xx, and says when to come back where the protocol promises it.
fn honest(view: &View) -> Vec<Violation> {
    let mut violations = Vec::new();
    for Tried {
        attempt, outcome, ..
    } in view.attempts.values()
    {
        let Outcome::Refused {
            status,
            code,
            has_retry_after,
        } = outcome
        else {
            continue;
        };
        let is_silent = matches!(status, 429 | 503) && !has_retry_after;
        if !(400..600).contains(status) || code.is_empty() || is_silent {
            let what = format!(
                "{} answered {status} {code:?}, Retry-After {has_retry_after}",
                attempt.nonce
            );
            violations.push(Violation::new(Invariant::Honest, what));
        }
    }
    violations
}

/// H: an atomic batch is in the logs as a whole or not at all, whatever became of its answer.
fn whole(view: &View) -> Vec<Violation> {
    let mut latest: HashMap<&str, &LogRead> = HashMap::new();
    for read in &view.logs {
        latest.insert(&read.log.user, read);
    }
    let events = latest.values().flat_map(|read| &read.log.events);
    let kept: HashSet<&str> = events.map(|event| event.nonce.as_str()).collect();
    let mut batches: BTreeMap<&str, Vec<&Tried>> = BTreeMap::new();
    for tried in view.attempts.values() {
        if let Some(batch) = &tried.attempt.atomic {
            batches.entry(batch).or_default().push(tried);
        }
    }
    let mut violations = Vec::new();
    for (batch, items) in batches {
        let is_read = |tried: &&Tried| {
            let read = latest.get(tried.attempt.user.as_str());
            read.is_some_and(|read| read.order > tried.order)
        };
        // Where retention or damage took events, a part of a batch proves nothing.
        let is_judged = view.retention_events.is_none() && view.damages.is_empty();
        let found = items
            .iter()
            .filter(|tried| kept.contains(tried.attempt.nonce.as_str()))
            .count();
        if is_judged && items.iter().all(is_read) && found != 0 && found != items.len() {
            let what = format!(
                "of the atomic batch {batch} {found} of {} events are there",
                items.len()
            );
            violations.push(Violation::new(Invariant::Honest, what));
        }
    }
    violations
}

fn claims(view: &View) -> Vec<Violation> {
    let broken = view.claims.iter().filter(|claim| !claim.holds);
    broken
        .map(|claim| Violation::new(claim.invariant, claim.what.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clean;
    use crate::history::{Op, Publish};

    #[test]
    fn half_a_batch_is_flagged() {
        let mut history = clean::history(1);
        history.retain(|entry| !matches!(entry.op, Op::Retention { .. } | Op::Fault(_)));
        let last = history.iter().rev().find_map(|entry| match &entry.op {
            Op::Log(log) => log.events.last(),
            _ => None,
        });
        let kept = last.unwrap().nonce.clone();
        for entry in &mut history {
            let Op::Publish(Publish::Invoke(attempt)) = &mut entry.op else {
                continue;
            };
            if kept == attempt.nonce {
                attempt.atomic = Some("b".to_owned());
                let missing = crate::history::Attempt {
                    attempt: 1_000_000,
                    nonce: "n-missing".to_owned(),
                    ..attempt.clone()
                };
                let entry = Entry {
                    op: Op::Publish(Publish::Invoke(missing)),
                    ..entry.clone()
                };
                history.insert(0, entry);
                break;
            }
        }
        let violations = check(&history);
        assert!(
            violations
                .iter()
                .any(|violation| violation.what.contains("atomic batch b 1 of 2"))
        );
    }
}

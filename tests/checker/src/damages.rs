//! Twelve ways in which a history can be wrong, seeded into clean ones: the test of the checker itself.
//!
//! Each damage changes one thing, as a faulty server would, and the invariants must flag it by a letter that fits.
//! Clean histories must not be flagged at all.

use fastrand::Rng;

use crate::clean;
use crate::history::{
    Acked, Attempt, Entry, Invariant, Op, Origin, Position, Publish, Read, Reset, Seen,
};
use crate::invariants;
use crate::stream::HEALED_US_MAX;

pub struct Damage {
    pub name: &'static str,
    /// Any one of these letters is a right answer.
    pub answers: &'static [Invariant],
    /// None where this history has no place for this damage.
    apply: fn(Vec<Entry>, &mut Rng) -> Option<Vec<Entry>>,
}

pub const DAMAGES: [Damage; 12] = [
    Damage {
        name: "drop",
        answers: &[Invariant::Reliable, Invariant::Resumable],
        apply: drop_event,
    },
    Damage {
        name: "duplicate",
        answers: &[Invariant::Unique],
        apply: duplicate,
    },
    Damage {
        name: "swap",
        answers: &[Invariant::Ordered],
        apply: swap,
    },
    Damage {
        name: "late",
        answers: &[Invariant::Resumable],
        apply: late,
    },
    Damage {
        name: "phantom",
        answers: &[Invariant::NoPhantom],
        apply: phantom,
    },
    Damage {
        name: "id reuse",
        answers: &[Invariant::Immutable, Invariant::Agree],
        apply: id_reuse,
    },
    Damage {
        name: "foreign event",
        answers: &[Invariant::Isolated],
        apply: foreign_event,
    },
    Damage {
        name: "wrong payload",
        answers: &[Invariant::NoPhantom],
        apply: wrong_payload,
    },
    Damage {
        name: "missing gap signal",
        answers: &[Invariant::Reliable],
        apply: missing_gap,
    },
    Damage {
        name: "false gap",
        answers: &[Invariant::Reliable],
        apply: false_gap,
    },
    Damage {
        name: "count off by one",
        answers: &[Invariant::Agree],
        apply: count_off,
    },
    Damage {
        name: "ack without log",
        answers: &[Invariant::Durable],
        apply: ack_without_log,
    },
];

/// Outcome of seeding one damage into many clean histories.
pub struct Tally {
    pub name: &'static str,
    pub seeded: usize,
    pub flagged: usize,
    /// Seeds of the histories whose damage nobody noticed.
    pub missed: Vec<u64>,
}

pub fn seed_all(seeds: std::ops::Range<u64>) -> Vec<Tally> {
    DAMAGES
        .iter()
        .map(|damage| seed_one(damage, seeds.clone()))
        .collect()
}

fn seed_one(damage: &Damage, seeds: std::ops::Range<u64>) -> Tally {
    let mut tally = Tally {
        name: damage.name,
        seeded: 0,
        flagged: 0,
        missed: Vec::new(),
    };
    for seed in seeds {
        let mut rng = Rng::with_seed(seed ^ 0x5eed);
        let Some(history) = (damage.apply)(clean::history(seed), &mut rng) else {
            continue;
        };
        tally.seeded += 1;
        let violations = invariants::check(&history);
        if violations
            .iter()
            .any(|violation| damage.answers.contains(&violation.invariant))
        {
            tally.flagged += 1;
        } else {
            tally.missed.push(seed);
        }
    }
    tally
}

/// Seeds of clean histories that were flagged although nothing is wrong with them.
pub fn false_alarms(seeds: std::ops::Range<u64>) -> Vec<(u64, invariants::Violation)> {
    seeds
        .filter_map(|seed| {
            Some((
                seed,
                invariants::check(&clean::history(seed))
                    .into_iter()
                    .next()?,
            ))
        })
        .collect()
}

fn choose(places: Vec<usize>, rng: &mut Rng) -> Option<usize> {
    (!places.is_empty()).then(|| places[rng.usize(0..places.len())])
}

fn places(history: &[Entry], wanted: impl Fn(&Op) -> bool) -> Vec<usize> {
    (0..history.len())
        .filter(|place| wanted(&history[*place].op))
        .collect()
}

fn event_place(history: &[Entry], rng: &mut Rng) -> Option<usize> {
    choose(
        places(history, |op| matches!(op, Op::Read(Read::Event(_)))),
        rng,
    )
}

fn seen_at(history: &mut [Entry], place: usize) -> &mut Seen {
    match &mut history[place].op {
        Op::Read(Read::Event(seen)) => seen,
        other => unreachable!("place of an event holds {other:?}"),
    }
}

fn drop_event(mut history: Vec<Entry>, rng: &mut Rng) -> Option<Vec<Entry>> {
    let place = event_place(&history, rng)?;
    // Where retention may have taken the event as well, nobody could tell: at the start, and just before a reset.
    let process = &history[place].process;
    let is_same = |entry: &&Entry| entry.process == *process;
    let before = history[..place].iter().rev().find(is_same);
    let after = history[place + 1..].iter().find(is_same);
    let is_at_start = before.is_some_and(|entry| {
        matches!(&entry.op, Op::Read(Read::Invoke { origin, .. }) if *origin == Origin::Start)
    });
    if is_at_start || after.is_some_and(|entry| matches!(entry.op, Op::Read(Read::Reset(_)))) {
        return None;
    }
    history.remove(place);
    Some(history)
}

fn duplicate(mut history: Vec<Entry>, rng: &mut Rng) -> Option<Vec<Entry>> {
    let place = event_place(&history, rng)?;
    let again = history[place].clone();
    history.insert(place + 1, again);
    Some(history)
}

/// The next event of the same connection, if the very next frame of the process is one.
fn next_event(history: &[Entry], place: usize) -> Option<usize> {
    let process = &history[place].process;
    let next = (place + 1..history.len()).find(|next| history[*next].process == *process)?;
    matches!(history[next].op, Op::Read(Read::Event(_))).then_some(next)
}

fn swap(mut history: Vec<Entry>, rng: &mut Rng) -> Option<Vec<Entry>> {
    let events = places(&history, |op| matches!(op, Op::Read(Read::Event(_))));
    let pairs = events
        .into_iter()
        .filter(|place| next_event(&history, *place).is_some())
        .collect();
    let place = choose(pairs, rng)?;
    let next =
        next_event(&history, place).expect("only events that another one follows were chosen from");
    let first = history[place].op.clone();
    history[place].op = history[next].op.clone();
    history[next].op = first;
    Some(history)
}

/// A reader comes to the head only after the time that it was promised.
fn late(mut history: Vec<Entry>, rng: &mut Rng) -> Option<Vec<Entry>> {
    let healed = choose(places(&history, |op| matches!(op, Op::Healed { .. })), rng)?;
    let at_us = history[healed].at_us;
    let Op::Healed { user, head } = history[healed].op.clone() else {
        return None;
    };
    let is_open_before = |entry: &&Entry| {
        matches!(&entry.op, Op::Read(Read::Invoke { user: of, .. }) if *of == user)
            && entry.at_us <= at_us
    };
    let process = history
        .iter()
        .find(is_open_before)
        .map(|entry| entry.process.clone())?;
    let is_head = |position: &Position| *position == head;
    let arrival = history.iter().position(|entry| {
        entry.process == process
            && match &entry.op {
                Op::Read(Read::Event(seen)) => is_head(&seen.position),
                Op::Read(Read::Reached { position } | Read::Ready { position }) => {
                    is_head(position)
                }
                Op::Read(Read::Reset(reset)) => is_head(&reset.position),
                _ => false,
            }
    });
    let arrival = arrival?;
    for entry in history[arrival..]
        .iter_mut()
        .filter(|entry| entry.process == process)
    {
        entry.at_us += at_us + HEALED_US_MAX + 1;
    }
    Some(history)
}

fn phantom(mut history: Vec<Entry>, rng: &mut Rng) -> Option<Vec<Entry>> {
    let place = event_place(&history, rng)?;
    seen_at(&mut history, place).nonce = "n-never-published".to_owned();
    Some(history)
}

/// The position and id of one event come again with what somebody else published to the same user.
fn id_reuse(mut history: Vec<Entry>, rng: &mut Rng) -> Option<Vec<Entry>> {
    let place = event_place(&history, rng)?;
    let seen = seen_at(&mut history, place).clone();
    let is_seen_elsewhere =
        |entry: &Entry| matches!(&entry.op, Op::Log(log) if log.events.contains(&seen));
    if !history.iter().any(is_seen_elsewhere) {
        return None;
    }
    let attempt = Attempt {
        attempt: 1_000_000,
        nonce: "n-other".to_owned(),
        user: seen.owner.clone(),
        key: None,
        atomic: None,
        event_type: seen.event_type.clone(),
        data: format!(r#"{{"for":"{}","nonce":"n-other"}}"#, seen.owner),
    };
    let reused = Seen {
        nonce: attempt.nonce.clone(),
        data: attempt.data.clone(),
        ..seen
    };
    *seen_at(&mut history, place) = reused;
    let first = Entry {
        at_us: 0,
        process: "publisher".to_owned(),
        op: Op::Publish(Publish::Invoke(attempt)),
    };
    history.insert(0, first);
    Some(history)
}

fn foreign_event(mut history: Vec<Entry>, rng: &mut Rng) -> Option<Vec<Entry>> {
    let place = event_place(&history, rng)?;
    let seen = seen_at(&mut history, place).clone();
    let foreign = history.iter().find_map(|entry| match &entry.op {
        Op::Publish(Publish::Invoke(attempt)) if attempt.user != seen.owner => {
            Some(attempt.clone())
        }
        _ => None,
    });
    let foreign = foreign?;
    let seen = seen_at(&mut history, place);
    (seen.nonce, seen.owner, seen.data) = (foreign.nonce, foreign.user, foreign.data);
    Some(history)
}

fn wrong_payload(mut history: Vec<Entry>, rng: &mut Rng) -> Option<Vec<Entry>> {
    let place = event_place(&history, rng)?;
    seen_at(&mut history, place).data.push(' ');
    Some(history)
}

fn missing_gap(mut history: Vec<Entry>, rng: &mut Rng) -> Option<Vec<Entry>> {
    let resets = places(&history, |op| matches!(op, Op::Read(Read::Reset(_))));
    let told: Vec<usize> = resets
        .into_iter()
        .filter(|place| is_followed(&history, *place))
        .collect();
    let place = choose(told, rng)?;
    history.remove(place);
    Some(history)
}

/// True where the reader went on on the same connection, so that the silence about the gap can be seen.
fn is_followed(history: &[Entry], place: usize) -> bool {
    let process = &history[place].process;
    let next = history[place + 1..]
        .iter()
        .find(|entry| entry.process == *process);
    next.is_some_and(|entry| matches!(entry.op, Op::Read(Read::Event(_) | Read::Reached { .. })))
}

fn false_gap(mut history: Vec<Entry>, rng: &mut Rng) -> Option<Vec<Entry>> {
    let place = event_place(&history, rng)?;
    let Entry { at_us, process, .. } = history[place].clone();
    let here = seen_at(&mut history, place).position.clone();
    // Either a gap of nothing, or one that skips an event which the log still has.
    let skipped = rng
        .u64(0..2)
        .min(u64::from(next_event(&history, place).is_some()));
    let there = Position {
        seq: here.seq + skipped,
        ..here.clone()
    };
    let head = Position {
        seq: here.seq + 100,
        ..here.clone()
    };
    let is_trimmed_later = history.iter().any(|entry| {
        matches!(&entry.op, Op::Log(log) if log.head.epoch != here.epoch || log.floor > there.seq)
    });
    if skipped > 0 {
        if is_trimmed_later {
            return None;
        }
        let next = next_event(&history, place).expect("an event is skipped only where one follows");
        history.remove(next);
    }
    let reset = Reset {
        reason: "trimmed".to_owned(),
        requested: here.to_string(),
        earliest: there.seq + 1,
        head,
        position: there,
    };
    history.insert(
        place + 1,
        Entry {
            at_us,
            process,
            op: Op::Read(Read::Reset(reset)),
        },
    );
    Some(history)
}

fn count_off(mut history: Vec<Entry>, rng: &mut Rng) -> Option<Vec<Entry>> {
    let counted = places(&history, |op| {
        matches!(op, Op::Log(_) | Op::Publish(Publish::Ok(_)))
    });
    let place = choose(counted, rng)?;
    match &mut history[place].op {
        Op::Log(log) => log.head.seq += 1,
        Op::Publish(Publish::Ok(acked)) => acked.recipients += 1,
        other => unreachable!("place of a count holds {other:?}"),
    }
    Some(history)
}

fn ack_without_log(mut history: Vec<Entry>, rng: &mut Rng) -> Option<Vec<Entry>> {
    let place = choose(places(&history, |op| matches!(op, Op::Log(_))), rng)?;
    let Op::Log(log) = history[place].op.clone() else {
        return None;
    };
    let Entry { at_us, .. } = history[place];
    let attempt = Attempt {
        attempt: 1_000_000,
        nonce: "n-lost".to_owned(),
        user: log.user.clone(),
        key: None,
        atomic: None,
        event_type: "app.checked".to_owned(),
        data: "{}".to_owned(),
    };
    let acked = Acked {
        attempt: attempt.attempt,
        id: "id-lost".to_owned(),
        position: Some(Position {
            seq: log.head.seq + 1,
            ..log.head
        }),
        recipients: 1,
        is_duplicate: false,
    };
    let publisher = "publisher".to_owned();
    let answered = Entry {
        at_us,
        process: publisher.clone(),
        op: Op::Publish(Publish::Ok(acked)),
    };
    let asked = Entry {
        at_us,
        process: publisher,
        op: Op::Publish(Publish::Invoke(attempt)),
    };
    history.insert(place, answered);
    history.insert(place, asked);
    Some(history)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_clean_histories_raise_no_alarm() {
        let alarms = false_alarms(0..1000);
        assert!(
            alarms.is_empty(),
            "seed {} is clean but: {}",
            alarms[0].0,
            alarms[0].1
        );
    }

    #[test]
    fn every_damage_is_flagged_wherever_it_fits() {
        for tally in seed_all(0..200) {
            assert!(
                tally.seeded >= 50,
                "{} fits only {} of 200 histories",
                tally.name,
                tally.seeded
            );
            assert_eq!(
                tally.missed,
                Vec::<u64>::new(),
                "{} was missed in these seeds",
                tally.name
            );
        }
    }

    #[test]
    fn a_seed_gives_the_same_history_twice() {
        assert_eq!(clean::history(7), clean::history(7));
    }
}

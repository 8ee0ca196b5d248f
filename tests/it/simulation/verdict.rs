//! The end of a run: the whole log of every user, held against all that was acknowledged and shown.
//!
//! Promises: it reads what a reader would read; what it says is missing was acknowledged, and no retention took it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use tidings::cursor::filter::Filter;
use tidings::cursor::start::Start;
use tidings::cursor::{Cursor, Delivery, OnGap, Wish};
use tidings::store::engine::Engine;
use tidings::store::keys;
use tidings::store::read::PageBounds;
use tidings::store::record;
use tokio::time::Instant;

use super::oracle::{FloorClaim, LogKey, Oracle, To};
use super::world::World;

/// The sweep finds within this time what has become too old.
const SWEEP_MS: u64 = 1_000;

/// One user's log as it is in the end.
struct Final {
    log: LogKey,
    floor: u64,
    tail: u64,
    /// Event ids from the floor to the tail.
    ids: BTreeMap<u64, String>,
}

pub async fn judge(world: &World) {
    let mut finals = BTreeMap::new();
    for user in 0..world.plan.users {
        if let Some(read) = read(world, user).await {
            finals.insert(user, read);
        }
    }
    let mut oracle = world.oracle.borrow_mut();
    let claims = std::mem::take(&mut oracle.claims);
    let false_claims: Vec<FloorClaim> = claims
        .into_iter()
        .filter(|claim| !is_due(&oracle, claim))
        .collect();
    // A damaged row may take an event away before its time.
    if oracle.has_damage() {
        return;
    }
    for claim in false_claims {
        oracle.violation(format!("told as trimmed, though it was not due: {claim:?}"));
    }
    let mut violations = Vec::new();
    for read in finals.values() {
        violations.extend(kept(&oracle, read));
        violations.extend(in_real_time(&oracle, &read.log));
        violations.extend(bounded(&oracle, read, world.now_ms()));
    }
    violations.extend(acknowledged(&oracle, &finals));
    violations.extend(together(&oracle, &finals));
    violations.extend(audiences(&oracle));
    violations.extend(hidden(&oracle));
    violations.extend(orphans(world, &finals));
    for violation in violations {
        oracle.violation(violation);
    }
}

/// Reads a user's whole log as a reader does.
async fn read(world: &World, user: usize) -> Option<Final> {
    let life = world.present().expect("the world is healed");
    let user_no = life.store.find(&world.user(user))?;
    let subscriber = life.wakes.subscribe(user_no);
    let wish = Wish {
        start: Start::Oldest,
        on_gap: OnGap::Earliest,
        filter: Filter::default(),
        conn: None,
    };
    let cursor = Cursor::open(life.store.clone(), subscriber, wish).await;
    let mut cursor = cursor.expect("the disk is healthy");
    let mut ids = BTreeMap::new();
    loop {
        let bounds = PageBounds {
            bytes: 64 << 10,
            events: 512,
        };
        let log = (user, cursor.position().epoch.to_string());
        let until = Instant::now() + Duration::from_secs(1);
        match cursor.next(&bounds, Some(until)).await {
            Ok(Delivery::Events(page)) => {
                for entry in page {
                    ids.insert(entry.seq, entry.event.id().to_owned());
                    let mut oracle = world.oracle.borrow_mut();
                    oracle.shown(log.clone(), entry.seq, &entry.event);
                }
            }
            Ok(Delivery::Live) => break,
            Ok(Delivery::Reset(reset)) if world.oracle.borrow().has_damage() => {
                world.note(format_args!("the last reader is told {reset:?}"));
                ids.clear();
            }
            other => {
                world.violation(format_args!("the last reader of u{user} got {other:?}"));
                break;
            }
        }
    }
    let view = life.store.view(user_no);
    let log = (user, view.epoch.to_string());
    let clock_ms = world.oracle.borrow().clock_ms;
    world.oracle.borrow_mut().claims.push(FloorClaim {
        log: log.clone(),
        floor: view.floor,
        tail: view.tail,
        clock_ms,
    });
    if ids.keys().copied().ne(view.floor..=view.tail) {
        world.violation(format_args!(
            "u{user}: {view:?}, but there are {:?}",
            ids.keys()
        ));
    }
    Some(Final {
        log,
        floor: view.floor,
        tail: view.tail,
        ids,
    })
}

/// Whether retention could have taken everything before the floor.
fn is_due(oracle: &Oracle, claim: &FloorClaim) -> bool {
    let retention = oracle.plan.retention;
    let last_gone = claim.floor - 1;
    if last_gone == 0 || retention.total_bytes > 0 {
        return true;
    }
    let event = |seq: u64| {
        let place = oracle.places.get(&claim.log)?.get(&seq)?;
        Some(&oracle.attempts[&place.event_id].1)
    };
    let is_over_count = retention.events > 0 && claim.tail >= last_gone + retention.events;
    // What nobody was shown may have been as large and as old as it takes.
    let is_over_age = retention.age_ms > 0
        && event(last_gone).is_none_or(|event| event.time_ms + retention.age_ms <= claim.clock_ms);
    let size = |seq| event(seq).map_or(1 << 20, |event| record::retained_bytes(event.json().len()));
    let is_over_bytes =
        retention.bytes > 0 && (last_gone..=claim.tail).map(size).sum::<u64>() > retention.bytes;
    is_over_count || is_over_age || is_over_bytes
}

/// Everything that was shown or acknowledged is there, in the same life of the log, unless retention took it.
fn kept(oracle: &Oracle, read: &Final) -> Vec<String> {
    let mut violations = Vec::new();
    let (user, epoch) = &read.log;
    for other in oracle.epochs(*user) {
        if other != epoch {
            violations.push(format!(
                "u{user} had the epoch {other}, now {epoch}, without damage"
            ));
        }
    }
    for (seq, place) in oracle.places.get(&read.log).into_iter().flatten() {
        if *seq >= read.floor && read.ids.get(seq) != Some(&place.event_id) {
            violations.push(format!(
                "u{user}: {} at {epoch}-{seq} is lost; the log ends at {}",
                place.event_id, read.tail
            ));
        }
    }
    violations
}

/// What was acknowledged before something else was asked for stands before it.
fn in_real_time(oracle: &Oracle, log: &LogKey) -> Vec<String> {
    let mut violations = Vec::new();
    let mut latest = (0, String::new());
    for place in oracle
        .places
        .get(log)
        .into_iter()
        .flatten()
        .map(|(_, place)| place)
    {
        let wish = &oracle.wishes[place.wish];
        if wish.acked.is_some_and(|acked| acked < latest.0) {
            violations.push(format!(
                "{log:?}: {} stands after {}",
                place.event_id, latest.1
            ));
        }
        if wish.invoked > latest.0 {
            latest = (wish.invoked, place.event_id.clone());
        }
    }
    violations
}

/// In the end, after some idle time, no log keeps more than it may.
fn bounded(oracle: &Oracle, read: &Final, now_ms: u64) -> Vec<String> {
    let retention = oracle.plan.retention;
    let events: Vec<_> = read.ids.values().map(|id| &oracle.attempts[id].1).collect();
    let bytes: u64 = events
        .iter()
        .map(|event| record::retained_bytes(event.json().len()))
        .sum();
    let is_old =
        |time_ms: u64| retention.age_ms > 0 && time_ms + retention.age_ms + SWEEP_MS <= now_ms;
    let mut violations = Vec::new();
    if retention.events > 0 && events.len() as u64 > retention.events {
        violations.push(format!("{:?} keeps {} events", read.log, events.len()));
    }
    if retention.bytes > 0 && bytes > retention.bytes {
        violations.push(format!("{:?} keeps {bytes} bytes", read.log));
    }
    if let Some(oldest) = events.first()
        && is_old(oldest.time_ms)
    {
        violations.push(format!(
            "{:?} keeps {}, which is too old",
            read.log,
            oldest.id()
        ));
    }
    violations
}

/// Seqs of a log that retention took before anyone was shown them.
fn unseen(oracle: &Oracle, read: &Final) -> u64 {
    let seen = oracle.places.get(&read.log);
    let seen = seen.map_or(0, |log| log.range(..read.floor).count());
    read.floor - 1 - seen as u64
}

/// Everything acknowledged was delivered to everyone it was for, as far as anyone can still tell.
fn acknowledged(oracle: &Oracle, finals: &BTreeMap<usize, Final>) -> Vec<String> {
    let mut violations = Vec::new();
    for (user, read) in finals {
        let mut missing = Vec::new();
        for (number, wish) in oracle.wishes.iter().enumerate() {
            let Some(acked) = wish.acked.filter(|_| !wish.is_mismatch) else {
                continue;
            };
            let is_for_user = match &wish.to {
                To::Users(users) => users.contains(user),
                To::Topic(topic) => {
                    oracle.was_subscribed(*user, *topic, wish.invoked, acked) == Some(true)
                }
            };
            if is_for_user && !oracle.found.contains_key(&(*user, number)) {
                missing.push(number);
            }
        }
        let unseen = unseen(oracle, read);
        if missing.len() as u64 > unseen {
            violations.push(format!(
                "u{user} never got the acknowledged {missing:?}; retention can have taken {unseen}"
            ));
        }
    }
    for (number, wish) in oracle.wishes.iter().enumerate() {
        if let (Some(_), To::Users(users)) = (wish.acked, &wish.to)
            && !users.iter().all(|user| finals.contains_key(user))
        {
            violations.push(format!(
                "wish {number} was acknowledged, its users are unknown"
            ));
        }
    }
    violations
}

/// A batch is whole or absent, and stands together.
fn together(oracle: &Oracle, finals: &BTreeMap<usize, Final>) -> Vec<String> {
    let mut violations = Vec::new();
    for batch in &oracle.batches {
        let is_any_found = oracle.found.keys().any(|(_, wish)| batch.contains(wish));
        if !is_any_found || oracle.is_forgettable(batch[0]) {
            continue;
        }
        for (user, read) in finals {
            let is_for_user = |wish: &&usize| {
                let To::Users(users) = &oracle.wishes[**wish].to else {
                    return false;
                };
                users.contains(user)
            };
            let expected: Vec<usize> = batch.iter().filter(is_for_user).copied().collect();
            let seqs: Vec<u64> = expected
                .iter()
                .filter_map(|wish| oracle.found.get(&(*user, *wish)))
                .map(|(_, seq)| *seq)
                .collect();
            let missing = (expected.len() - seqs.len()) as u64;
            if missing > unseen(oracle, read) {
                violations.push(format!(
                    "u{user} misses {missing} of the batch {expected:?}"
                ));
            }
            if missing == 0 && seqs.windows(2).any(|pair| pair[1] != pair[0] + 1) {
                violations.push(format!("u{user} has the batch {expected:?} at {seqs:?}"));
            }
        }
    }
    violations
}

/// Nobody got what was published to a topic that they were certainly not subscribed to.
fn audiences(oracle: &Oracle) -> Vec<String> {
    let mut violations = Vec::new();
    for (user, number) in oracle.found.keys() {
        let wish = &oracle.wishes[*number];
        if let To::Topic(topic) = wish.to {
            let until = wish.acked.unwrap_or(u64::MAX);
            if oracle.was_subscribed(*user, topic, wish.invoked, until) == Some(false) {
                violations.push(format!(
                    "u{user} got wish {number} of a topic it was not in"
                ));
            }
        }
    }
    violations
}

/// What a filter left out was none of what it shows.
fn hidden(oracle: &Oracle) -> Vec<String> {
    let mut violations = BTreeSet::new();
    for skip in &oracle.skips {
        let places = oracle.places.get(&skip.log).into_iter();
        for (seq, place) in places.flat_map(|log| log.range(skip.first..=skip.last)) {
            let event = &oracle.attempts[&place.event_id].1;
            let conn = event.exclude_conn.as_ref().map(|conn| conn.as_str());
            let is_own = conn.is_some() && conn == skip.conn.as_deref();
            if !is_own && skip.filter.shows(event.event_type(), event.topic()) {
                violations.insert(format!(
                    "{:?} {seq} was not shown to {:?}",
                    skip.log, skip.filter
                ));
            }
        }
    }
    violations.into_iter().collect()
}

/// After some idle time the disk holds the bodies that logs keep, and no other.
fn orphans(world: &World, finals: &BTreeMap<usize, Final>) -> Vec<String> {
    let kept: BTreeSet<&String> = finals.values().flat_map(|read| read.ids.values()).collect();
    let mut bodies = 0;
    let scanned = world
        .disk
        .scan(&keys::record(0, 0), &keys::records_end(), &mut |key, _| {
            bodies += usize::from(keys::parse_record(key).is_some_and(|(_, chunk)| chunk == 0));
            ControlFlow::Continue(())
        });
    scanned.expect("the engine in memory reads always");
    match bodies == kept.len() {
        true => Vec::new(),
        false => vec![format!(
            "the disk holds {bodies} bodies, logs keep {}",
            kept.len()
        )],
    }
}

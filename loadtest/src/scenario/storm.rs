//! All drop, miss some events, and return at once. Row 11; with a `kill -9` and a start in between, row 12.
//!
//! Promises: after the kill every acknowledged event must be there, once and in place; what was in flight may be there
//! or not. The time counts from the kill to the last client that has caught up.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::needs;
use crate::context::Context;
use crate::load::{Crowd, Load};
use crate::outcome::Outcome;
use crate::pace::{Awaited, Plan};
use crate::peer::{Form, Reach};

const MISSED: u64 = 5;
const PUBLISHERS: usize = 64;

pub fn run(context: &Context, peer: &str, directory: &Path) -> Result<Vec<Outcome>> {
    let count = context.connections(2_000, 50);
    let rounds = context.size(5, 2);
    let crowd = Crowd::of(Form::Events, Reach::Users, count);
    let mut load = Load::start(context, peer, directory, needs(Reach::Users), crowd)?;
    load.say("opening streams");
    load.open_publishers(PUBLISHERS)?;
    load.open_readers()?;
    let tracks = count as u32;
    load.publish(
        each(&load, tracks, 1, Awaited::Deliveries),
        tracks,
        usize::MAX,
    )?;
    let mut cpu = load.cpu_seconds()?.map(|_| 0.0);
    let mut slowest = Duration::ZERO;
    let measured = load.begin()?;
    for round in 1..=rounds {
        load.say(&format!("storm {round} of {rounds}"));
        load.drop_readers();
        load.publish(
            each(&load, tracks, MISSED, Awaited::Answers),
            tracks,
            usize::MAX,
        )?;
        // The server notices the dropped ones before the storm, as it does when a network goes away.
        load.read_for(Duration::from_millis(context.size(500, 50)))?;
        let before = load.cpu_seconds()?;
        let began = Instant::now();
        load.open_readers()?;
        load.read_until(|readers| readers.ledger.fresh >= readers.ledger.wanted)?;
        slowest = slowest.max(began.elapsed());
        let spent = load
            .cpu_seconds()?
            .zip(before)
            .map(|(now, then)| now - then);
        cpu = cpu.zip(spent).map(|(sum, spent)| sum + spent);
    }
    let mut outcome = load.end("storm", &measured)?.without_latency();
    outcome.cpu_us_per_delivery = None;
    load.judge(&mut outcome);
    let per_client = cpu.map(|cpu| cpu * 1e6 / (rounds * count) as f64);
    outcome.figure("11", per_client);
    let slowest_ms = slowest.as_secs_f64() * 1e3;
    outcome.note =
        format!("{count} clients, the slowest of {rounds} storms over in {slowest_ms:.0} ms");
    if let Some(us) = per_client {
        outcome.note += &format!(", {us:.1} µs CPU a client");
    }
    Ok(vec![outcome])
}

/// So many events for each track, in as few requests as the peer takes.
fn each(load: &Load, tracks: u32, events: u64, awaited: Awaited) -> Plan {
    let batch = load.peer.batch_max() as u64;
    Plan::all((u64::from(tracks) * events).div_ceil(batch), awaited)
}

pub fn restart(context: &Context, peer: &str, directory: &Path) -> Result<Vec<Outcome>> {
    let count = context.connections(2_000, 50);
    let tracks = count as u32;
    let crowd = Crowd::of(Form::Events, Reach::Users, count);
    let mut load = Load::start(context, peer, directory, needs(Reach::Users), crowd)?;
    load.say("opening streams");
    load.open_publishers(PUBLISHERS)?;
    load.open_readers()?;
    load.publish(
        each(&load, tracks, 1, Awaited::Deliveries),
        tracks,
        usize::MAX,
    )?;
    load.say("publishing, then kill -9");
    let measured = load.begin()?;
    let mut flood = Plan::saturated(context.seconds(3.0, 0.5));
    flood.awaited = Awaited::Nothing;
    load.publish(flood, tracks, 1)?;
    let killed = Instant::now();
    load.kill()?;
    load.restart()?;
    let ready = killed.elapsed().as_secs_f64();
    let started = Instant::now();
    load.say("all come back");
    load.open_readers()?;
    load.readers.ledger.give_up_doubts();
    load.read_until(|readers| readers.ledger.fresh >= readers.ledger.wanted)?;
    let caught_up = started.elapsed().as_secs_f64();
    let in_doubt = load.readers.ledger.in_doubt();
    // It goes on: what is published now follows what was there.
    load.open_publishers(PUBLISHERS)?;
    load.publish(
        each(&load, tracks, MISSED, Awaited::Deliveries),
        tracks,
        usize::MAX,
    )?;
    let mut outcome = load.end("storm --restart", &measured)?.without_latency();
    outcome.cpu_us_per_delivery = None;
    load.judge(&mut outcome);
    outcome.note = format!(
        "{count} clients, ready {ready:.2} s after the kill, all caught up {caught_up:.2} s later, {in_doubt} in doubt"
    );
    outcome.figure("12", Some(ready + caught_up));
    Ok(vec![outcome])
}

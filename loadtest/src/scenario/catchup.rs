//! Clients come back to a log. Row 9: one client, 10,000 events, recent, or old and cold. Row 10: 50 clients, 100 each.
//!
//! Promises: old means pushed out of the server's memory by others' events, cold means after a restart with the kernel's
//! cache dropped; where that is not allowed the note says so. Every event of every catch-up is verified.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::{median, needs};
use crate::context::Context;
use crate::load::{Crowd, Load};
use crate::machine;
use crate::outcome::Outcome;
use crate::pace::{Awaited, Plan};
use crate::peer::{Form, Reach};

const TIMES: usize = 5;
const CLIENTS: usize = 50;
const EVENTS_EACH: usize = 100;
const OTHERS: u32 = 40;
const PUBLISHERS: usize = 32;
/// What a server that just started keeps in memory, in the cold part.
const COLD_RECENT_BYTES: u64 = 1 << 20;

pub fn run(context: &Context, peer: &str, directory: &Path) -> Result<Vec<Outcome>> {
    let few = directory.join("few");
    std::fs::create_dir_all(&few)?;
    let mut outcomes = vec![long(context, peer, directory)?];
    outcomes.push(many(context, peer, &few)?);
    Ok(outcomes)
}

fn long(context: &Context, peer: &str, directory: &Path) -> Result<Outcome> {
    let events = context.size(10_000u64, 500);
    let is_cold_too = peer == "tidings" && context.existing.is_none();
    let colds = if is_cold_too { context.size(3, 1) } else { 0 };
    let crowd = Crowd {
        form: Form::Events,
        tracks: 1 + OTHERS,
        tracks_of_readers: vec![0; TIMES + colds],
        has_unmarked: false,
    };
    let mut load = Load::start(context, peer, directory, needs(Reach::Users), crowd)?;
    load.say("publishing a long log");
    load.open_publishers(PUBLISHERS)?;
    let batch = load.peer.batch_max() as u64;
    load.publish(
        Plan::all(events.div_ceil(batch), Awaited::Answers),
        1,
        usize::MAX,
    )?;
    let measured = load.begin()?;
    let mut recent = Vec::new();
    for time in 0..TIMES {
        recent.push(one(&mut load, time, events)?);
    }
    let mut outcome = load.end("catchup", &measured)?.without_latency();
    outcome.figure("9 recent", median(recent.clone()));
    outcome.note = format!("{events} events, recent in {recent:.1?} ms");
    if is_cold_too {
        load.say("publishing what pushes it out");
        let others = context.size(200_000u64, 2_000).div_ceil(batch);
        push_out(&mut load, others)?;
        let mut is_dropped = true;
        let mut cold = Vec::new();
        for time in 0..colds {
            load.kill()?;
            load.needs.recent_bytes = COLD_RECENT_BYTES;
            is_dropped &= machine::drop_caches();
            load.restart()?;
            cold.push(one(&mut load, TIMES + time, events)?);
        }
        outcome.figure("9 cold", median(cold.clone()));
        let warm = if is_dropped {
            ""
        } else {
            " (not root: the kernel's cache was warm)"
        };
        outcome.note += &format!(", old and cold in {cold:.1?} ms{warm}");
    }
    load.judge(&mut outcome);
    outcome.deliveries = load.readers.ledger.fresh;
    Ok(outcome)
}

/// Milliseconds from the connect to the last event.
fn one(load: &mut Load, time: usize, events: u64) -> Result<f64> {
    let wanted = load.readers.ledger.fresh + events;
    let began = Instant::now();
    load.open_reader(time as u32)?;
    load.read_until(|readers| readers.ledger.fresh >= wanted)?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// Events of users whom nobody reads.
fn push_out(load: &mut Load, requests: u64) -> Result<()> {
    load.publish_to(
        Plan::all(requests, Awaited::Answers),
        1..1 + OTHERS,
        usize::MAX,
    )
}

fn many(context: &Context, peer: &str, directory: &Path) -> Result<Outcome> {
    let rounds = context.size(40, 2);
    let crowd = Crowd {
        form: Form::Events,
        tracks: CLIENTS as u32,
        tracks_of_readers: (0..rounds * CLIENTS)
            .map(|reader| (reader % CLIENTS) as u32)
            .collect(),
        has_unmarked: false,
    };
    let mut load = Load::start(context, peer, directory, needs(Reach::Users), crowd)?;
    load.say("50 clients catch up 100 events each");
    load.open_publishers(PUBLISHERS)?;
    let each = CLIENTS * EVENTS_EACH;
    let requests = (each as u64).div_ceil(load.peer.batch_max() as u64);
    load.publish(
        Plan::all(requests, Awaited::Answers),
        CLIENTS as u32,
        usize::MAX,
    )?;
    let measured = load.begin()?;
    for round in 1..=rounds {
        load.open_readers_up_to(round * CLIENTS)?;
        let wanted = (round * each) as u64;
        load.read_until(|readers| readers.ledger.fresh >= wanted)?;
    }
    let mut outcome = load
        .end("catchup, 50 clients", &measured)?
        .without_latency();
    load.judge(&mut outcome);
    outcome.figure("10", outcome.cpu_us_per_delivery);
    Ok(outcome)
}

//! Many open streams on which nothing is said but pings. Rows 1, 3 and 14.
//!
//! Promises: memory is read after the heartbeats were measured, so that what they cost is in it; at the end every
//! stream gets one event, so that none was idle because it was dead.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::needs;
use crate::context::Context;
use crate::load::{Crowd, Load};
use crate::outcome::Outcome;
use crate::pace::{Awaited, Plan};
use crate::peer::{Form, Reach};

/// Streams that are open before memory is read for the first time.
const WARM: usize = 16;
const PUBLISHERS: usize = 32;

pub fn run(context: &Context, peer: &str, directory: &Path) -> Result<Vec<Outcome>> {
    let count = context.connections(19_000, 1_000).max(2 * WARM);
    let mut needs = needs(Reach::Users);
    needs.ping_seconds = context.size(needs.ping_seconds, 1);
    let window = Duration::from_secs(u64::from(needs.ping_seconds) * 2 + 1);
    let crowd = Crowd::of(Form::Events, Reach::Users, count);
    let mut load = Load::start(context, peer, directory, needs, crowd)?;
    load.say("opening streams");
    load.open_readers_up_to(WARM)?;
    load.read_for(Duration::from_millis(300))?;
    let before = load.pss_kib()?;
    load.open_readers()?;
    load.say("idle, but for pings");
    load.read_for(Duration::from_secs(context.size(3, 0)))?;
    let measured = load.begin()?;
    let cpu = load.cpu_seconds()?;
    let pings = load.readers.pings;
    load.read_for(window)?;
    let cpu = load.cpu_seconds()?.zip(cpu).map(|(now, then)| now - then);
    let pings = load.readers.pings - pings;
    let after = load.pss_kib()?;
    let mut outcome = load.end("idle", &measured)?.without_latency();
    load.say("one event for each");
    load.open_publishers(PUBLISHERS)?;
    let tracks = count as u32;
    let plan = Plan::all(
        u64::from(tracks).div_ceil(load.peer.batch_max() as u64),
        Awaited::Deliveries,
    );
    load.publish(plan, tracks, usize::MAX)?;
    if (pings as usize) < count {
        load.readers
            .ledger
            .cut(|| format!("{pings} pings on {count} streams in two intervals"));
    }
    load.judge(&mut outcome);
    outcome.deliveries = load.readers.ledger.fresh;
    outcome.pss_kib_per_connection = before
        .zip(after)
        .map(|(before, after)| after.saturating_sub(before) as f64 / (count - WARM) as f64);
    outcome.pss_mib = after.map(|kib| kib as f64 / 1024.0);
    let idle_us = cpu.map(|cpu| cpu * 1e6 / count as f64 / window.as_secs_f64());
    outcome.note = match idle_us {
        Some(us) => format!("idle CPU {us:.2} µs/s a stream, {pings} pings"),
        None => format!("{pings} pings"),
    };
    outcome.figure("1", outcome.pss_kib_per_connection);
    outcome.figure("3", outcome.pss_mib);
    outcome.figure("14", idle_us);
    Ok(vec![outcome])
}

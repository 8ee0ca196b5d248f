//! One event, one user. Row 6: saturated. Row 7: latency at a fixed rate, beside the disk's own sync. Row 8: acks alone.
//!
//! Promises: at a fixed rate the loop is open, so that a stall of the server shows in the latencies of all that was due
//! meanwhile; saturated it is closed, and its latencies are left out.

use std::path::Path;

use anyhow::Result;

use super::needs;
use crate::context::Context;
use crate::load::{Crowd, Load};
use crate::machine;
use crate::outcome::{Figure, Outcome};
use crate::pace::Plan;
use crate::peer::{Form, Reach};

const PUBLISHERS: usize = 256;

pub fn run(context: &Context, peer: &str, directory: &Path) -> Result<Vec<Outcome>> {
    let count = context.connections(1_000, 50);
    let tracks = count as u32;
    let crowd = Crowd::of(Form::Events, Reach::Users, count);
    let mut load = Load::start(context, peer, directory, needs(Reach::Users), crowd)?;
    load.say("opening streams");
    load.open_publishers(context.size(PUBLISHERS, 16))?;
    load.open_readers()?;
    load.publish(Plan::saturated(context.size(1.0, 0.1)), tracks, 1)?;

    load.say("saturated");
    let measured = load.begin()?;
    load.publish(Plan::saturated(context.seconds(6.0, 0.5)), tracks, 1)?;
    let mut saturated = load.end("unicast, saturated", &measured)?.without_latency();
    let rate = saturated.deliveries as f64 / saturated.seconds;
    saturated.note = format!("{rate:.0} deliveries/s");
    saturated.figure("6", saturated.cpu_us_per_delivery);

    load.say("at a fixed rate");
    let disk = machine::disk(directory, context.size(200, 10))?;
    let rate = context.rate.unwrap_or(context.size(5_000.0, 200.0));
    let measured = load.begin()?;
    load.publish(Plan::at(rate, context.seconds(10.0, 1.0)), tracks, 1)?;
    let mut steady = load.end("unicast", &measured)?;
    let sync_us = disk.sync_p50.as_secs_f64() * 1e6;
    steady.note = format!("{rate:.0}/s; the disk's own sync {sync_us:.0} µs");
    if let Some(latency) = &steady.latency {
        let figures = [
            Figure {
                row: "7 p50",
                value: latency.p50_us,
                bar: Some(sync_us + 1_000.0),
                moonshot: Some(sync_us * 1.15),
            },
            Figure {
                row: "7 p99",
                value: latency.p99_us,
                bar: Some(latency.p50_us * 10.0),
                moonshot: None,
            },
        ];
        steady.figures.extend(figures);
    }
    load.judge(&mut steady);
    let mut outcomes = vec![saturated, steady];
    drop(load);
    if peer == "tidings" {
        outcomes.push(acks(context, peer, &directory.join("acks"))?);
    }
    Ok(outcomes)
}

/// Nobody reads: what a commit costs, seen through HTTP.
fn acks(context: &Context, peer: &str, directory: &Path) -> Result<Outcome> {
    std::fs::create_dir_all(directory)?;
    let crowd = Crowd {
        tracks: 1_000,
        ..Crowd::of(Form::Events, Reach::Users, 0)
    };
    let mut load = Load::start(context, peer, directory, needs(Reach::Users), crowd)?;
    load.say("acks alone");
    let disk = machine::disk(directory, context.size(200, 10))?;
    load.open_publishers(context.size(PUBLISHERS, 16))?;
    let measured = load.begin()?;
    load.publish(Plan::saturated(context.seconds(5.0, 0.5)), 1_000, 1)?;
    let mut outcome = load.end("acks", &measured)?.without_latency();
    load.judge(&mut outcome);
    let rate = outcome.published as f64 / outcome.seconds;
    let raw = disk.group_commit_per_second;
    outcome.note = format!("{rate:.0} acked/s over HTTP, a raw file {raw:.0}/s");
    outcome.figure("8", Some(rate / raw));
    Ok(outcome)
}

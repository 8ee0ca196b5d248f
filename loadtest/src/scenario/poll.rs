//! Long polls: each answer brings one event, and the next question follows at once. Row 13.
//!
//! Promises: one connection a reader, kept alive, asked again by the cursor of the last answer; an open loop.

use std::path::Path;

use anyhow::Result;

use super::needs;
use crate::context::Context;
use crate::load::{Crowd, Load};
use crate::outcome::Outcome;
use crate::pace::Plan;
use crate::peer::{Form, Reach};

const PUBLISHERS: usize = 64;

pub fn run(context: &Context, peer: &str, directory: &Path) -> Result<Vec<Outcome>> {
    let count = context.connections(500, 50);
    let crowd = Crowd::of(Form::Poll, Reach::Users, count);
    let mut load = Load::start(context, peer, directory, needs(Reach::Users), crowd)?;
    load.say("long polls");
    let tracks = count as u32;
    load.open_publishers(PUBLISHERS)?;
    load.open_readers()?;
    let rate = context.rate.unwrap_or(context.size(2_000.0, 200.0));
    load.publish(Plan::at(rate, context.size(1.0, 0.2)), tracks, 1)?;
    let measured = load.begin()?;
    load.publish(Plan::at(rate, context.seconds(10.0, 1.0)), tracks, 1)?;
    let mut outcome = load.end("poll", &measured)?;
    load.judge(&mut outcome);
    outcome.note = format!("{rate:.0}/s");
    outcome.figure("13 CPU", outcome.cpu_us_per_delivery);
    let p99_us = outcome.latency.as_ref().map(|latency| latency.p99_us);
    outcome.figure("13 p99", p99_us);
    Ok(vec![outcome])
}

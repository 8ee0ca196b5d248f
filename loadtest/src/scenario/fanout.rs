//! One topic and many readers. Rows 4 and 5; and row 15, one event into 100,000 logs.
//!
//! Promises: every reader is a user with a log of its own; of the 100,000 some are read to the end. The next event, or
//! the next 16, are sent when they are due and the last are delivered, whichever is later.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{median, needs};
use crate::context::Context;
use crate::load::{Crowd, Load};
use crate::outcome::Outcome;
use crate::pace::{Awaited, Plan};
use crate::peer::{Form, Reach};
use crate::process;

const BURST: u64 = 16;
const BURSTS_PER_SECOND: f64 = 4.0;
const SAMPLE: usize = 20;
const SUBSCRIBING_PUBLISHERS: usize = 128;

pub fn run(context: &Context, peer: &str, directory: &Path) -> Result<Vec<Outcome>> {
    let mut outcomes = deliveries(context, peer, directory)?;
    if peer == "tidings" {
        outcomes.push(many_logs(context, peer, &directory.join("logs"))?);
    }
    Ok(outcomes)
}

fn deliveries(context: &Context, peer: &str, directory: &Path) -> Result<Vec<Outcome>> {
    let count = context.connections(1_000, 50);
    let seconds = context.seconds(10.0, 1.0);
    let needs = needs(Reach::Topic);
    let crowd = Crowd::of(Form::Events, Reach::Topic, count);
    let mut load = Load::start(context, peer, directory, needs, crowd)?;
    load.say("subscribing and opening streams");
    subscribe(&mut load, count)?;
    load.open_readers()?;
    load.publish(Plan::at(20.0, 0.5), 1, 1)?;

    load.say("one event at a time");
    let measured = load.begin()?;
    load.publish(Plan::bursts(1, context.rate.unwrap_or(20.0), seconds), 1, 1)?;
    let mut single = load.end("fanout", &measured)?;
    single.figure("4", single.cpu_us_per_delivery);

    load.say("16 publishes at once");
    let measured = load.begin()?;
    load.publish(Plan::bursts(BURST, BURSTS_PER_SECOND, seconds), 1, 1)?;
    let mut burst = load.end("fanout, 16 at once", &measured)?;
    burst.figure("5", burst.cpu_us_per_delivery);
    load.judge(&mut burst);
    Ok(vec![single, burst])
}

fn subscribe(load: &mut Load, subscribers: usize) -> Result<()> {
    let requests = load.peer.preparation(&load.needs, subscribers as u32);
    load.open_publishers(if requests.len() > 2_000 {
        SUBSCRIBING_PUBLISHERS
    } else {
        BURST as usize
    })?;
    load.ask_all(requests)
}

/// Row 15: the ack of one event means that it is on the disk in every log.
fn many_logs(context: &Context, peer: &str, directory: &Path) -> Result<Outcome> {
    std::fs::create_dir_all(directory)?;
    let logs = context.size(100_000, 2_000);
    let needs = needs(Reach::Topic);
    let crowd = Crowd::of(Form::Events, Reach::Topic, SAMPLE);
    let mut load = Load::start(context, peer, directory, needs, crowd)?;
    load.say("subscribing users to a topic");
    subscribe(&mut load, logs)?;
    load.open_readers()?;
    let before = load.peer.pid().and_then(process::peak_kib);
    load.say("one event into every log");
    let measured = load.begin()?;
    let mut times = Vec::new();
    for _ in 0..3 {
        load.publishers.answered.reset();
        load.publish(Plan::all(1, Awaited::Deliveries), 1, 1)?;
        times.push(load.publishers.answered.max() as f64 / 1e9);
        load.read_for(Duration::from_millis(context.size(500, 50)))?;
    }
    let mut outcome = load.end("fanout to many logs", &measured)?;
    // Per delivery says nothing here: nearly all logs have no reader.
    outcome.cpu_us_per_delivery = None;
    load.judge(&mut outcome);
    let after = load.peer.pid().and_then(process::peak_kib);
    outcome.note = format!("{logs} logs, acked in {times:.3?} s");
    if let Some((before, after)) = before.zip(after) {
        outcome.note += &format!(", peak memory {} MiB, {} before", after >> 10, before >> 10);
    }
    outcome.figure("15", median(times));
    Ok(outcome)
}

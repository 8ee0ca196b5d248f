//! A start with a million stored events. Row 16.
//!
//! Promises: the server is killed, the kernel's cache is dropped where that is allowed, and some logs are read to the
//! end afterwards. The bench `start` measures the store alone; this is the whole program up to its one line.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::needs;
use crate::context::Context;
use crate::load::{Crowd, Load};
use crate::machine;
use crate::outcome::Outcome;
use crate::pace::{Awaited, Plan};
use crate::peer::{Form, Reach};

const SAMPLE: usize = 20;
const PUBLISHERS: usize = 16;

pub fn run(context: &Context, peer: &str, directory: &Path) -> Result<Vec<Outcome>> {
    let events = context.size(1_000_000u64, 5_000);
    let users = context.size(10_000, 100);
    let crowd = Crowd {
        tracks: users,
        ..Crowd::of(Form::Events, Reach::Users, SAMPLE)
    };
    let mut load = Load::start(context, peer, directory, needs(Reach::Users), crowd)?;
    load.say("storing events");
    load.open_publishers(PUBLISHERS)?;
    let requests = events.div_ceil(load.peer.batch_max() as u64);
    let began = Instant::now();
    load.publish(Plan::all(requests, Awaited::Answers), users, usize::MAX)?;
    let stored_seconds = began.elapsed().as_secs_f64();
    load.kill()?;
    let is_dropped = machine::drop_caches();
    load.say("starting again");
    let began = Instant::now();
    load.restart()?;
    let ready = began.elapsed().as_secs_f64();
    let pss_kib = load.pss_kib()?;
    let measured = load.begin()?;
    load.open_readers()?;
    load.read_until(|readers| readers.ledger.fresh >= readers.ledger.wanted)?;
    let mut outcome = load.end("start", &measured)?.without_latency();
    outcome.cpu_us_per_delivery = None;
    load.judge(&mut outcome);
    outcome.pss_mib = pss_kib.map(|kib| kib as f64 / 1024.0);
    let warm = if is_dropped {
        ""
    } else {
        " (not root: the kernel's cache was warm)"
    };
    let rate = events as f64 / stored_seconds;
    outcome.note = format!("{events} events stored at {rate:.0}/s, ready in {ready:.2} s{warm}");
    outcome.figure("16", Some(ready));
    Ok(vec![outcome])
}

//! WebSockets. Row 2: memory of idle ones with deflate negotiated, each of which was given an event before; then
//! deliveries with and without deflate.
//!
//! Promises: compressed messages are inflated and verified like all others; a peer without deflate is measured without.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::needs;
use crate::context::Context;
use crate::load::{Crowd, Load};
use crate::outcome::Outcome;
use crate::pace::{Awaited, Plan};
use crate::peer::{Form, Reach};

const WARM: usize = 16;
const PUBLISHERS: usize = 64;

pub fn run(context: &Context, peer: &str, directory: &Path) -> Result<Vec<Outcome>> {
    let forms: &[(Form, &str)] = match peer {
        "tidings" => &[(Form::Socket, "ws"), (Form::DeflatedSocket, "ws, deflate")],
        "nchan" => &[(Form::Socket, "ws")],
        _ => return Ok(Vec::new()),
    };
    let mut outcomes = Vec::new();
    for (number, (form, name)) in forms.iter().enumerate() {
        let directory = directory.join(format!("ws-{number}"));
        std::fs::create_dir_all(&directory)?;
        let is_row = number + 1 == forms.len();
        outcomes.push(one(context, peer, &directory, *form, name, is_row)?);
    }
    Ok(outcomes)
}

fn one(
    context: &Context,
    peer: &str,
    directory: &Path,
    form: Form,
    name: &str,
    is_row: bool,
) -> Result<Outcome> {
    let count = context.connections(5_000, 100).max(2 * WARM);
    let tracks = count as u32;
    let crowd = Crowd::of(form, Reach::Users, count);
    let mut load = Load::start(context, peer, directory, needs(Reach::Users), crowd)?;
    load.say(&format!("{name}: opening sockets"));
    load.open_publishers(PUBLISHERS)?;
    load.open_readers_up_to(WARM)?;
    load.read_for(Duration::from_millis(300))?;
    let before = load.pss_kib()?;
    load.open_readers()?;
    let requests = u64::from(tracks).div_ceil(load.peer.batch_max() as u64);
    load.publish(Plan::all(requests, Awaited::Deliveries), tracks, usize::MAX)?;
    load.say(&format!("{name}: idle"));
    load.read_for(Duration::from_secs(context.size(12, 0)))?;
    let after = load.pss_kib()?;

    load.say(&format!("{name}: at a fixed rate"));
    let rate = context.rate.unwrap_or(context.size(5_000.0, 200.0));
    let measured = load.begin()?;
    load.publish(Plan::at(rate, context.seconds(6.0, 1.0)), tracks, 1)?;
    let mut outcome = load.end(name, &measured)?;
    load.judge(&mut outcome);
    outcome.pss_kib_per_connection = before
        .zip(after)
        .map(|(before, after)| after.saturating_sub(before) as f64 / (count - WARM) as f64);
    outcome.pss_mib = after.map(|kib| kib as f64 / 1024.0);
    outcome.note = format!(
        "{rate:.0}/s, {} messages came compressed",
        load.readers.inflated
    );
    if is_row {
        outcome.figure("2", outcome.pss_kib_per_connection);
    }
    Ok(outcome)
}

//! Load for a Tidings server on this machine: runs scenarios against it, the floor and other servers, checks every event,
//! and tells what each delivery costs.
//!
//! Promises: exit code 1 if any event was wrong; bounded in count and time; no server outlives it. README.md beside this
//! package says how to read the figures.

mod arguments;
mod child;
mod context;
mod floor;
mod frames;
mod http;
mod links;
mod load;
mod machine;
mod mark;
mod outcome;
mod pace;
mod page;
mod peer;
mod process;
mod progress;
mod publishers;
mod readers;
mod report;
mod scenario;
mod targets;
mod verify;
mod websocket;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::arguments::{Arguments, Command, Run};
use crate::context::{Context, Existing};
use crate::outcome::Outcome;
use crate::report::Report;
use crate::scenario::{SCENARIOS, Scenario};

const SECONDS_MAX: f64 = 600.0;

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(faults) => {
            eprintln!("{faults} faults: the run failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the run could not be made: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Gives the number of faults, of events and of bounds that were not kept.
fn run(command: Command) -> Result<u64> {
    let (names, run): (Vec<&str>, Run) = match command {
        Command::FloorServer {
            ping_seconds,
            fault,
        } => {
            let fault = fault
                .map(|fault| fault.parse())
                .transpose()?
                .unwrap_or_default();
            let ping = Duration::from_secs(u64::from(ping_seconds.max(1)));
            return floor::serve(ping, fault).map(|()| 0);
        }
        Command::Guard {
            parent,
            core,
            command,
        } => {
            return child::guard(parent, core, &command).map(|()| 0);
        }
        Command::All(run) => (
            SCENARIOS.iter().map(|scenario| scenario.name).collect(),
            run,
        ),
        Command::Idle(run) => (vec!["idle"], run),
        Command::Fanout(run) => (vec!["fanout"], run),
        Command::Unicast(run) => (vec!["unicast"], run),
        Command::Catchup(run) => (vec!["catchup"], run),
        Command::Storm { restart: true, run } => (vec!["restart"], run),
        Command::Storm {
            restart: false,
            run,
        } => (vec!["storm"], run),
        Command::Poll(run) => (vec!["poll"], run),
        Command::Ws(run) => (vec!["ws"], run),
        Command::Mixed(run) => (vec!["mixed"], run),
        Command::Start(run) => (vec!["start"], run),
    };
    let context = context(&run)?;
    let peers = peers(&run);
    peers
        .iter()
        .try_for_each(|name| peer::check_installed(name))?;
    let is_left_out = |name: &&str| run.without.iter().any(|left| left == name);
    let names: Vec<&str> = names
        .into_iter()
        .filter(|name| !is_left_out(name))
        .collect();
    let outcomes = measure(&context, &names, &peers)?;
    let mut report = Report::new(machine_words(&context), command_words(), outcomes);
    let broken = run.at_most.iter();
    let broken: Vec<String> = broken
        .filter_map(|bound| bound.broken(&report.rows))
        .collect();
    if context.is_small {
        report.rows.clear();
    }
    print!("{}", report.text());
    if let Some(path) = &run.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json).context("cannot write the JSON")?;
    }
    if let Some(path) = &run.html {
        std::fs::write(path, page::page(&report)?).context("cannot write the page")?;
    }
    for words in &broken {
        eprintln!("{words}");
    }
    Ok(report.faults + broken.len() as u64)
}

fn context(run: &Run) -> Result<Context> {
    ensure!(
        run.seconds.unwrap_or(1.0) <= SECONDS_MAX,
        "a measurement lasts at most {SECONDS_MAX} seconds"
    );
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let existing = run.url.map(|address| -> Result<Existing> {
        let secret = run.secret.clone();
        Ok(Existing {
            address,
            pid: run.pid,
            secret: secret.context("the secret of that server is needed: --secret")?,
        })
    });
    let cores = machine::cores().filter(|_| !run.no_pin);
    if let Some(cores) = cores {
        machine::pin(cores.load)?;
    }
    machine::wake_promptly()?;
    Ok(Context {
        began: Instant::now(),
        interrupted,
        server: server(run)?,
        existing: existing.transpose()?,
        floor_fault: run.floor_fault.clone(),
        cores,
        connections_max: machine::connections_max()?,
        directory: match &run.directory {
            Some(directory) => std::path::absolute(directory)?,
            None => std::env::temp_dir(),
        },
        is_small: run.small,
        connections: run.connections.map(|connections| connections as usize),
        rate: run.rate,
        seconds: run.seconds,
        is_quiet: run.quiet,
    })
}

fn server(run: &Run) -> Result<PathBuf> {
    let is_wanted = run.url.is_none() && run.only.as_deref().unwrap_or("tidings") == "tidings";
    let path = match &run.server {
        Some(path) => std::path::absolute(path)?,
        None => std::env::current_exe()?.with_file_name("tidings"),
    };
    ensure!(
        path.exists() || !is_wanted,
        "there is no server at {}: build it with `cargo build --release`, or name it with --server",
        path.display()
    );
    Ok(path)
}

fn peers(run: &Run) -> Vec<String> {
    match &run.only {
        Some(only) => vec![only.clone()],
        None => {
            let mut peers = vec!["floor".to_owned()];
            peers.extend(run.vs.iter().cloned());
            peers.push("tidings".to_owned());
            peers
        }
    }
}

fn measure(context: &Context, names: &[&str], peers: &[String]) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let wanted = SCENARIOS
        .iter()
        .filter(|scenario| names.contains(&scenario.name));
    for scenario in wanted {
        if scenario.is_restarting && context.existing.is_some() {
            eprintln!(
                "{} is left out: only a server that was started here is killed",
                scenario.name
            );
            continue;
        }
        for peer in peers {
            if scenario.has_peers || peer == "tidings" {
                match one(context, scenario, peer) {
                    Ok(some) => outcomes.extend(some),
                    Err(error) => {
                        outcomes.push(failed(scenario, peer, &error));
                        // What was measured until then is told.
                        if context.check_interrupted().is_err() {
                            return Ok(outcomes);
                        }
                    }
                }
            }
        }
    }
    ensure!(
        !outcomes.is_empty(),
        "nothing was measured: these peers cannot do it"
    );
    Ok(outcomes)
}

fn one(context: &Context, scenario: &Scenario, peer: &str) -> Result<Vec<Outcome>> {
    if !context.is_quiet {
        eprintln!("{peer}: {}: {}", scenario.name, scenario.about);
    }
    let directory = tempfile::Builder::new()
        .prefix("tidings-load-")
        .tempdir_in(&context.directory)
        .context("cannot make a data directory")?;
    (scenario.run)(context, peer, directory.path()).map_err(|error| {
        let told = last_words(directory.path());
        error.context(format!(
            "{} against {peer} could not be run{told}",
            scenario.name
        ))
    })
}

/// A run that could not be made is a failure, and the others are made all the same.
fn failed(scenario: &Scenario, peer: &str, error: &anyhow::Error) -> Outcome {
    let mut outcome = Outcome::new(scenario.name, peer);
    outcome.faults.cut = 1;
    outcome.examples.push(format!("{error:#}"));
    outcome
}

/// The ends of the servers' logs, before the directory goes.
fn last_words(directory: &Path) -> String {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let logs = files.filter(|file| {
        file.path()
            .extension()
            .is_some_and(|ending| ending == "log")
    });
    let words = logs.map(|log| child::log_tail(&log.path()));
    words
        .filter(|words| !words.is_empty())
        .map(|words| format!(" (the server's log: {words})"))
        .collect()
}

fn machine_words(context: &Context) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let pinned = match context.cores {
        Some(cores) => format!(
            "server on processor {}, load on processor {}",
            cores.server, cores.load
        ),
        None => format!("{processors} processors, nothing pinned"),
    };
    let size = if context.is_small {
        "small sizes: figures mean nothing; "
    } else {
        ""
    };
    format!("{size}Linux {}, {pinned}", kernel.trim())
}

/// The command line as it was given, without the secret.
fn command_words() -> String {
    let mut words = vec!["loadtest".to_owned()];
    let mut is_secret = false;
    for word in std::env::args().skip(1) {
        match (
            std::mem::replace(&mut is_secret, word == "--secret"),
            word.starts_with("--secret="),
        ) {
            (true, _) => words.push("…".to_owned()),
            (false, true) => words.push("--secret=…".to_owned()),
            (false, false) => words.push(word),
        }
    }
    words.join(" ")
}

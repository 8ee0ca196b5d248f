//! Breaks a Tidings server in nine ways and checks from outside that it kept its promises.
//!
//! It knows HTTP and processes and nothing of the server's code. In the order of the data: clients (`publisher`,
//! `reader`, `truth`) write a `history`, `nemesis` and `power` break things, `invariants` and `stream` judge, `rows`
//! say what happens when. `clean` and `damages` are the test of the judge, `mutants` the test of the rows.

mod bench;
mod clean;
mod damages;
mod delivery;
mod history;
mod http;
mod invariants;
mod life;
mod mutants;
mod nemesis;
mod power;
mod publisher;
mod reader;
mod rows;
mod sse;
mod stream;
mod truth;
mod view;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::Bench;
use crate::rows::{ROWS, Row};

/// Checks from outside that a Tidings server keeps its promises while it is killed, cut off, filled and damaged.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the checker: twelve damages must be flagged, a thousand clean histories must not
    SelfTest {
        /// How many clean histories each damage is seeded into
        #[arg(long, default_value_t = 500)]
        seeds: u64,
    },
    /// Run one row of FAULTS.md
    Row {
        #[arg(ignore_case = true)]
        row: Row,
        /// Trials; for F3 rounds over all sync points [default: the count of CI]
        #[arg(long)]
        count: Option<usize>,
        #[command(flatten)]
        common: Common,
    },
    /// Run all rows with the counts of CI, about eight minutes on two cores
    Ci {
        #[command(flatten)]
        common: Common,
        /// Rows to leave out, such as F2,F3,F5 where there is no root
        #[arg(long, value_delimiter = ',', ignore_case = true)]
        without: Vec<Row>,
    },
    /// Run all rows with the counts behind a claim, some hours
    Proof {
        #[command(flatten)]
        common: Common,
        /// Rows to leave out, such as F2,F3,F5 where there is no root
        #[arg(long, value_delimiter = ',', ignore_case = true)]
        without: Vec<Row>,
    },
    /// Check the rows: ten servers with one fault each must all be caught
    Mutants {
        #[command(flatten)]
        common: Common,
        /// Just the mutants with this in their name
        #[arg(long)]
        only: Option<String>,
    },
}

#[derive(Args)]
struct Common {
    /// The server's binary; F3 and the mutants need one built with --features faults
    #[arg(long, value_name = "PATH")]
    server: PathBuf,
    /// Repeats the choices of an earlier run; the machine's own timing cannot be repeated
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("checker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<bool> {
    match arguments.command {
        Command::SelfTest { seeds } => Ok(self_test(seeds)),
        Command::Row { row, count, common } => {
            let count = count.unwrap_or(row.ci_count());
            on_bench(&common, async |bench| {
                run_rows(bench, &[(row, count)]).await
            })
        }
        Command::Ci { common, without } => {
            let rows = chosen(&without, Row::ci_count);
            on_bench(&common, async |bench| run_rows(bench, &rows).await)
        }
        Command::Proof { common, without } => {
            let rows = chosen(&without, Row::proof_count);
            on_bench(&common, async |bench| run_rows(bench, &rows).await)
        }
        Command::Mutants { common, only } => on_bench(&common, async |bench| {
            mutants::catch_all(bench, only.as_deref()).await
        }),
    }
}

fn chosen(without: &[Row], count: fn(Row) -> usize) -> Vec<(Row, usize)> {
    ROWS.into_iter()
        .filter(|row| !without.contains(row))
        .map(|row| (row, count(row)))
        .collect()
}

/// Gives the work a runtime and a directory, which stays only where something was violated.
fn on_bench(common: &Common, work: impl AsyncFnOnce(&Bench) -> Result<bool>) -> Result<bool> {
    let server = common.server.canonicalize();
    let server =
        server.with_context(|| format!("there is no server at {}", common.server.display()))?;
    let seed = common.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    println!("seed {seed}");
    let directory = std::env::temp_dir().join(format!("tidings-checker-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let bench = Bench {
        server,
        seed,
        work: directory.clone(),
        failpoints: None,
    };
    // The servers are started from this thread: they are told to die with the thread that started them.
    let is_clean = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // Dropping the work unmounts its disks and ends its servers.
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => bail!("interrupted; what was there stays in {}", directory.display()),
            _ = terminate.recv() => bail!("terminated; what was there stays in {}", directory.display()),
            outcome = work(&bench) => outcome,
        }
    })?;
    if is_clean {
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(is_clean)
}

async fn run_rows(bench: &Bench, rows: &[(Row, usize)]) -> Result<bool> {
    let needs_root = |row: &Row| matches!(row, Row::F2 | Row::F3 | Row::F5);
    let can_run = power::is_root() || !rows.iter().any(|(row, _)| needs_root(row));
    ensure!(
        can_run,
        "F2, F3 and F5 cut and fill loop mounts and need root; leave them out with --without F2,F3,F5"
    );
    let mut is_clean = true;
    for (row, count) in rows {
        let report = row.run(bench, *count).await?;
        report.print();
        is_clean &= report.is_clean();
    }
    Ok(is_clean)
}

fn self_test(seeds: u64) -> bool {
    let alarms = damages::false_alarms(0..1_000);
    for (seed, violation) in &alarms {
        println!("false alarm in clean history {seed}: {violation}");
    }
    println!("clean histories: {} false alarms in 1000", alarms.len());
    let mut is_good = alarms.is_empty();
    for tally in damages::seed_all(0..seeds) {
        println!(
            "{:<20} {} of {} flagged",
            tally.name, tally.flagged, tally.seeded
        );
        if let Some(seed) = tally.missed.first() {
            println!("{:<20} missed first with seed {seed}", "");
        }
        is_good &= tally.seeded > 0 && tally.missed.is_empty();
    }
    is_good
}

/// Hundreds of readers and their server's log need more open files than the usual soft limit.
fn raise_file_limit() {
    // SAFETY: both calls only read or write the struct that they are given.
    unsafe {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

//! `tidings serve`: from a configuration to a server that has drained.
//!
//! Promises: exactly one line on stdout, `listening on http://ADDRESS`, once connections are accepted; logs go to
//! stderr. SIGTERM and SIGINT drain, a second one ends at once; a data directory that fails ends with 74. The server
//! itself is `server`'s.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::accept;
use crate::config::Config;
use crate::server::{self, Outcome, Running};

/// sysexits(3) EX_IOERR: the disk failed, nothing more could be promised.
const IO_FAILED: u8 = 74;
/// What is logged unless `RUST_LOG` says otherwise. sled's own notes are of no use to an operator.
const LOGGED: &str = "info,sled=off";

/// Serves until a signal, drains, and returns.
pub fn serve(config: Config) -> anyhow::Result<ExitCode> {
    start_logging();
    #[cfg(feature = "faults")]
    let _faults = fail::FailScenario::setup();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    runtime.block_on(run(config))
}

/// Text for people, JSON lines where `TIDINGS_LOG_FORMAT=json`.
fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let is_json = std::env::var("TIDINGS_LOG_FORMAT").is_ok_and(|format| format == "json");
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    match is_json {
        true => logging.json().init(),
        false => logging.init(),
    }
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let listen = config.server.listen;
    let listener = accept::bind(listen)
        .with_context(|| format!("cannot listen on {listen}; choose another --listen"))?;
    let demo = config.demo.enabled;
    let data_dir = config.server.data_dir.clone();
    let mut signals = Signals::listen()?;
    let running = server::start(config, listener).await?;
    let address = running.address();
    writeln!(io::stdout(), "listening on http://{address}")?;
    io::stdout().flush()?;
    tracing::info!(%address, data_dir = %data_dir.display(), demo, "serving");
    if demo {
        tracing::warn!(
            "the demo is on: whoever reaches this address can sign in as anyone; demo.enabled = false ends that"
        );
    }
    wait_and_drain(running, &mut signals).await
}

/// The operator's wish to end; listened for before anyone knows that the server is there.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn wait_and_drain(running: Running, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    let store_failed = tokio::select! {
        biased;
        () = running.failure() => true,
        () = signals.next() => false,
    };
    if store_failed {
        // Nothing may be answered or written any more, not even by a destructor of the engine.
        std::process::exit(i32::from(IO_FAILED));
    }
    tracing::info!("draining: streams are told to come back, writes are finished");
    tokio::select! {
        biased;
        outcome = running.drain() => match outcome {
            Outcome::Drained => {
                tracing::info!("drained");
                Ok(ExitCode::SUCCESS)
            }
            Outcome::StoreFailed => std::process::exit(i32::from(IO_FAILED)),
        },
        () = signals.next() => hurry(),
    }
}

/// A second signal: the operator does not want to wait. What was acknowledged is on the disk.
fn hurry() -> anyhow::Result<ExitCode> {
    tracing::warn!("a second signal: ending without waiting for streams");
    std::process::exit(1);
}

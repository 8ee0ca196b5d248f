//! The command line.
//!
//! Promises: `--help` tells what each scenario does and what the tool never does; a URL that is not on this machine is
//! refused before anything is sent.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::peer::PEERS;
use crate::scenario::SCENARIOS;
use crate::targets::Bound;

const ABOUT: &str =
    "Puts load on a Tidings server on this machine, checks every event, and measures what it costs";

const LONG_ABOUT: &str = "\
Puts load on a Tidings server on this machine, checks every event, and measures what it costs.

Each scenario starts its own server on a port and a data directory of its own, and runs first against the floor: a bare
epoll server that keeps nothing, contained in this program. What the floor needs is what the kernel needs, so a figure
in floors can be compared between machines. Every event is checked: one that is missing, repeated, out of order, damaged
or of somebody else ends the run with exit code 1. Loads at a fixed rate do not wait for a slow server: latency counts
from when an event was due, not from when it could be sent.

CPU is user and system time of the server's process, divided by deliveries; memory is PSS. Where there are two
processors, the server gets one and the load the other. Only loopback addresses are spoken to. Every run is bounded in
count and time, ends by itself, and takes its servers with it.";

const AFTER_HELP: &str = "\
Examples:
  loadtest all                          every row of TARGETS.md, about ten minutes
  loadtest all --vs nchan --html run.html --json run.json
  loadtest fanout --connections 5000 --rate 20 --seconds 30
  loadtest storm --restart              kill -9 in the middle; nothing acknowledged may be missing
  loadtest all --small                  every scenario as a correctness test, under two minutes
  loadtest unicast --url http://127.0.0.1:8082 --pid $(pidof tidings)
  loadtest fanout --only floor --floor-fault drop=50      see it fail

Exit codes: 0 all events right, 1 not, or the run could not be made; 2 wrong arguments. Targets that are missed are
told in the table and do not change the exit code.";

#[derive(Parser)]
#[command(name = "loadtest", version, about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Every scenario: the whole table of TARGETS.md
    All(Run),
    /// Many open streams, nothing said but pings: memory and idle CPU (rows 1, 3, 14)
    Idle(Run),
    /// One topic, many readers: one event at a time, 16 at once, 100,000 logs (rows 4, 5, 15)
    Fanout(Run),
    /// One event, one user: saturated, at a fixed rate, acks alone (rows 6, 7, 8)
    Unicast(Run),
    /// Clients come back to a long log, recent or old and cold (rows 9, 10)
    Catchup(Run),
    /// All drop, miss some events, and return at once (rows 11, 12)
    Storm {
        /// kill -9 the server while events are published, and start it again, before they return
        #[arg(long)]
        restart: bool,
        #[command(flatten)]
        run: Run,
    },
    /// Long polls, one event an answer (row 13)
    Poll(Run),
    /// WebSockets, with and without deflate: memory and deliveries (row 2)
    Ws(Run),
    /// A chat: messages, typing, receipts, presence
    Mixed(Run),
    /// A start with 1,000,000 stored events (row 16)
    Start(Run),
    /// The floor alone: the reference server that everything is compared to, until it is killed
    FloorServer {
        #[arg(long, default_value_t = 20)]
        ping_seconds: u32,
        /// Break on purpose: drop, repeat, swap, forge or damage every Nth event, as KIND=N
        #[arg(long, value_name = "KIND=N")]
        fault: Option<String>,
    },
    /// Becomes a server that ends with its parent (used by the tool itself)
    #[command(hide = true)]
    Guard {
        #[arg(long)]
        parent: u32,
        #[arg(long)]
        core: Option<usize>,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Args, Clone, Default)]
pub struct Run {
    /// The server's binary [default: `tidings` beside this program]
    #[arg(long, value_name = "PATH")]
    pub server: Option<PathBuf>,
    /// A server that runs already, on this machine; needs its secret. Nothing is restarted then
    #[arg(long, value_name = "URL", value_parser = loopback, conflicts_with = "server")]
    pub url: Option<SocketAddr>,
    /// The process of that server, to measure its CPU and memory
    #[arg(long, requires = "url")]
    pub pid: Option<u32>,
    /// The HS256 secret of that server
    #[arg(long, env = "TIDINGS_AUTH__HS256_SECRET", hide_env_values = true)]
    pub secret: Option<String>,
    /// Another server to run the same scenario on, in the same run (nchan: Debian's nginx with libnginx-mod-nchan)
    #[arg(long, value_name = "PEER", value_parser = ["nchan"])]
    pub vs: Vec<String>,
    /// This peer alone, without the floor
    #[arg(long, value_name = "PEER", value_parser = PEERS, conflicts_with = "vs")]
    pub only: Option<String>,
    /// Leaves a scenario out of `all`
    #[arg(long, value_name = "SCENARIO", value_parser = SCENARIOS.map(|scenario| scenario.name))]
    pub without: Vec<String>,
    /// A bound for Tidings' figure of a row of the table, for its ratio to the floor where the bar is one; above it, the
    /// exit code is 1. As 1=2.5; can be given more than once
    #[arg(long, value_name = "ROW=N")]
    pub at_most: Vec<Bound>,
    /// Every scenario as small as shows that it is right; figures mean nothing then
    #[arg(long)]
    pub small: bool,
    /// Readers, instead of the scenario's own number (this process may hold as many as its limit of descriptors)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: Option<u32>,
    /// Publishes a second, where the scenario has a fixed rate
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    pub rate: Option<f64>,
    /// Seconds of each measurement, at most 600
    #[arg(long, value_parser = positive)]
    pub seconds: Option<f64>,
    /// Where data directories are made; its disk is the one that is measured [default: the system's for such files]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Leave it to the kernel which processor the server and the load run on
    #[arg(long)]
    pub no_pin: bool,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with tables and plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// No progress
    #[arg(long, short)]
    pub quiet: bool,
    /// The floor breaks on purpose: drop, repeat, swap, forge or damage every Nth event, as KIND=N
    #[arg(long, value_name = "KIND=N")]
    pub floor_fault: Option<String>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1e7 => Ok(value),
        _ => Err("a number above 0".to_owned()),
    }
}

/// `http://127.0.0.1:8082`, and nothing that is not this machine.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = text
        .strip_prefix("http://")
        .ok_or("only http:// is spoken")?
        .trim_end_matches('/')
        .replace("localhost", "127.0.0.1");
    let address: SocketAddr = address
        .parse()
        .map_err(|_| "an address of this machine with its port, as http://127.0.0.1:8082")?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err("a load goes to loopback addresses only".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn only_this_machine_is_ever_a_target() {
        for url in [
            "http://127.0.0.1:8082",
            "http://localhost:8082/",
            "http://[::1]:8082",
        ] {
            assert!(loopback(url).is_ok(), "{url}");
        }
        for url in [
            "http://192.168.1.1:8082",
            "http://10.0.0.1:80",
            "http://example.com:80",
            "https://127.0.0.1:8082",
            "http://0.0.0.0:8082",
            "http://127.0.0.1",
        ] {
            assert!(loopback(url).is_err(), "{url}");
        }
    }
}

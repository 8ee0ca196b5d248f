//! The scenarios, in the order of `all`. Each runs against one peer in a directory of its own and gives its outcomes.
//!
//! Promises: a scenario knows no wire format; what a peer cannot do is left out, not pretended. Sizes for a full run
//! are those of TARGETS.md; small ones only show that it is right.

mod catchup;
mod fanout;
mod idle;
mod mixed;
mod poll;
mod start;
mod storm;
mod unicast;
mod ws;

use std::path::Path;

use anyhow::Result;

use crate::context::Context;
use crate::outcome::Outcome;
use crate::peer::{Needs, Reach};

pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    /// Other servers can do it too.
    pub has_peers: bool,
    /// It kills the server, so it cannot be run on one that was not started here.
    pub is_restarting: bool,
    pub run: fn(&Context, &str, &Path) -> Result<Vec<Outcome>>,
}

pub const SCENARIOS: [Scenario; 10] = [
    Scenario {
        name: "idle",
        about: "many open streams, nothing said but pings: memory and idle CPU (rows 1, 3, 14)",
        has_peers: true,
        is_restarting: false,
        run: idle::run,
    },
    Scenario {
        name: "fanout",
        about: "one topic, many readers, one event at a time and 16 at once; 100,000 logs (rows 4, 5, 15)",
        has_peers: true,
        is_restarting: false,
        run: fanout::run,
    },
    Scenario {
        name: "unicast",
        about: "one event, one user: saturated, at a fixed rate, and acks alone (rows 6, 7, 8)",
        has_peers: true,
        is_restarting: false,
        run: unicast::run,
    },
    Scenario {
        name: "catchup",
        about: "clients come back to a long log, recent or old and cold (rows 9, 10)",
        has_peers: true,
        is_restarting: false,
        run: catchup::run,
    },
    Scenario {
        name: "storm",
        about: "all drop, miss some, and return at once; with --restart after kill -9 (rows 11, 12)",
        has_peers: true,
        is_restarting: false,
        run: storm::run,
    },
    Scenario {
        name: "restart",
        about: "storm --restart alone (row 12)",
        has_peers: false,
        is_restarting: true,
        run: storm::restart,
    },
    Scenario {
        name: "poll",
        about: "long polls, one event an answer (row 13)",
        has_peers: true,
        is_restarting: false,
        run: poll::run,
    },
    Scenario {
        name: "ws",
        about: "WebSockets, with and without deflate: memory and deliveries (row 2)",
        has_peers: true,
        is_restarting: false,
        run: ws::run,
    },
    Scenario {
        name: "mixed",
        about: "a chat: messages, typing, receipts, presence",
        has_peers: false,
        is_restarting: false,
        run: mixed::run,
    },
    Scenario {
        name: "start",
        about: "start with 1,000,000 stored events (row 16)",
        has_peers: false,
        is_restarting: true,
        run: start::run,
    },
];

const RECENT_BYTES: u64 = 64 << 20;
const PING_SECONDS: u32 = 20;

/// What most scenarios need of a server.
fn needs(reach: Reach) -> Needs {
    Needs {
        run: fastrand::u32(0x1000_0000..),
        reach,
        ping_seconds: PING_SECONDS,
        recent_bytes: RECENT_BYTES,
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

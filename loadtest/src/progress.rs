//! How a run shows that it goes on: a bar on a terminal, plain lines elsewhere.
//!
//! Promises: it writes to stderr only, at most ten times a second on a terminal and once in five seconds elsewhere, so
//! that it costs the load nothing. Figures are never printed here.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(5);
const DRAW_EVERY: Duration = Duration::from_millis(100);

pub struct Progress {
    bar: Option<ProgressBar>,
    is_quiet: bool,
    peer: String,
    what: String,
    shown: Instant,
}

impl Progress {
    pub fn new(is_quiet: bool, peer: &str) -> Progress {
        let bar = (!is_quiet && std::io::stderr().is_terminal()).then(|| {
            let style =
                ProgressStyle::with_template("{prefix:9} {msg:42} {bar:24} {pos}/{len} {elapsed}")
                    .expect("the template is right");
            ProgressBar::new(0)
                .with_style(style)
                .with_prefix(peer.to_owned())
        });
        Progress {
            bar,
            is_quiet,
            peer: peer.to_owned(),
            what: String::new(),
            shown: Instant::now(),
        }
    }

    /// What is done now.
    pub fn say(&mut self, what: &str) {
        what.clone_into(&mut self.what);
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None if !self.is_quiet => eprintln!("{}: {what}", self.peer),
            None => {}
        }
    }

    pub fn at(&mut self, done: u64, all: u64) {
        let every = if self.bar.is_some() {
            DRAW_EVERY
        } else {
            LINE_EVERY
        };
        if self.is_quiet || self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        match &self.bar {
            Some(bar) => {
                bar.set_length(all);
                bar.set_position(done);
            }
            None => eprintln!("{}: {}: {done} of {all}", self.peer, self.what),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

//! What all rows share: the binary, the seed, a place to work, progress on the terminal, and the report at the end.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;

use crate::history::{Invariant, Recorder};
use crate::invariants::Violation;
use crate::nemesis::Recipe;

/// More sentences than these do not help anyone.
const VIOLATIONS_SHOWN: usize = 8;

#[derive(Clone)]
pub struct Bench {
    pub server: PathBuf,
    pub seed: u64,
    /// Histories, data directories and disk images of this run; kept when something was violated.
    pub work: PathBuf,
    /// A mutant that the server is started with.
    pub failpoints: Option<String>,
}

impl Bench {
    pub fn rng(&self, row: &str) -> Rng {
        let salt = row
            .bytes()
            .fold(0_u64, |sum, byte| sum * 31 + u64::from(byte));
        Rng::with_seed(self.seed ^ salt)
    }

    /// How this row starts its servers, with an empty data directory of its own.
    pub fn recipe(&self, row: &str) -> Result<Recipe> {
        let data = self.work.join(format!("{row}-data"));
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        Ok(Recipe {
            binary: self.server.clone(),
            data,
            stderr: self.work.join(format!("{row}-server.log")),
            settings: Vec::new(),
            failpoints: self.failpoints.clone(),
        })
    }
}

/// A row at work: counts its trials, shows them, and becomes the report.
pub struct Run<'a> {
    bench: &'a Bench,
    row: &'static str,
    wanted: usize,
    clean: usize,
    acked: u64,
    slowest_ready: Duration,
    began: Instant,
    facts: Vec<String>,
    violations: Vec<Violation>,
    kept: Vec<PathBuf>,
}

impl<'a> Run<'a> {
    pub fn new(bench: &'a Bench, row: &'static str, wanted: usize) -> Run<'a> {
        Run {
            bench,
            row,
            wanted,
            clean: 0,
            acked: 0,
            slowest_ready: Duration::ZERO,
            began: Instant::now(),
            facts: Vec::new(),
            violations: Vec::new(),
            kept: Vec::new(),
        }
    }

    pub fn is_broken(&self) -> bool {
        !self.violations.is_empty()
    }

    pub fn ready_after(&mut self, ready_after: Duration) {
        self.slowest_ready = self.slowest_ready.max(ready_after);
    }

    pub fn fact(&mut self, fact: impl Into<String>) {
        self.facts.push(fact.into());
    }

    pub fn acked(&mut self, events: u64) {
        self.acked += events;
    }

    /// Counts trials in which nothing was wrong.
    pub fn clean(&mut self, trials: usize) {
        self.clean += trials;
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            write!(stderr, "\r{} {}/{} ", self.row, self.clean, self.wanted).ok();
        }
    }

    /// Takes the outcome of one trial; a trial that could not be finished is a server that did not do its part.
    pub fn judge(
        &mut self,
        outcome: Result<Vec<Violation>>,
        recorder: Option<&Recorder>,
        data: &Path,
    ) {
        let found = outcome
            .unwrap_or_else(|error| vec![Violation::new(Invariant::Honest, format!("{error:#}"))]);
        if found.is_empty() {
            return self.clean(1);
        }
        let history = self.bench.work.join(format!("{}-history.jsonl", self.row));
        if recorder.is_some_and(|recorder| recorder.save(&history).is_ok()) {
            self.kept.push(history);
        }
        self.kept.push(keep_data(data));
        self.violations.extend(found);
    }

    pub fn report(self) -> Report {
        Report {
            row: self.row,
            wanted: self.wanted,
            clean: self.clean,
            acked: self.acked,
            slowest_ready: self.slowest_ready,
            took: self.began.elapsed(),
            facts: self.facts,
            violations: self.violations,
            kept: self.kept,
        }
    }
}

/// A data directory on a loop mount goes away with it, so it is copied beside the mount.
fn keep_data(data: &Path) -> PathBuf {
    let is_mounted = data
        .parent()
        .is_some_and(|parent| parent.extension().is_some_and(|name| name == "mnt"));
    let Some(parent) = data.parent().filter(|_| is_mounted) else {
        return data.to_owned();
    };
    let kept = parent.with_extension("data");
    match copy_directory(data, &kept) {
        Ok(()) => kept,
        Err(_) => data.to_owned(),
    }
}

pub fn copy_directory(from: &Path, to: &Path) -> std::io::Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// What came of one row.
pub struct Report {
    pub row: &'static str,
    wanted: usize,
    pub clean: usize,
    acked: u64,
    slowest_ready: Duration,
    took: Duration,
    facts: Vec<String>,
    pub violations: Vec<Violation>,
    kept: Vec<PathBuf>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.clean >= self.wanted
    }

    pub fn print(&self) {
        let Report {
            row,
            wanted,
            clean,
            acked,
            ..
        } = self;
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        let mut line = format!("{row:<4} {clean}/{wanted} clean, {acked} acked events");
        if self.violations.is_empty() {
            line.push_str(", 0 lost");
        }
        if !self.slowest_ready.is_zero() {
            line.push_str(&format!(
                ", slowest ready {:.2} s",
                self.slowest_ready.as_secs_f64()
            ));
        }
        for fact in &self.facts {
            line.push_str(", ");
            line.push_str(fact);
        }
        println!("{line} ({:.0} s)", self.took.as_secs_f64());
        for violation in self.violations.iter().take(VIOLATIONS_SHOWN) {
            println!("     violated {}", shorten(&violation.to_string()));
        }
        if self.violations.len() > VIOLATIONS_SHOWN {
            println!("     and {} more", self.violations.len() - VIOLATIONS_SHOWN);
        }
        for path in &self.kept {
            println!("     kept {}", path.display());
        }
    }
}

fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 600;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

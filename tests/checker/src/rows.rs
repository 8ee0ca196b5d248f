//! The rows of FAULTS.md that this checker runs, with the counts of its table.

pub mod crash;
pub mod damage;
pub mod disk;
pub mod lock;
pub mod retry;
pub mod seam;
pub mod strangers;

use anyhow::Result;

use crate::bench::{Bench, Report};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Row {
    F1,
    F2,
    F3,
    F5,
    F8,
    F20,
    F21,
    F25,
    F26,
}

pub const ROWS: [Row; 9] = [
    Row::F1,
    Row::F2,
    Row::F3,
    Row::F5,
    Row::F8,
    Row::F20,
    Row::F21,
    Row::F25,
    Row::F26,
];

impl Row {
    /// Trials in CI; for F3 the rounds over all sync points.
    pub fn ci_count(self) -> usize {
        match self {
            Row::F1 => 50,
            Row::F2 => 60,
            Row::F3 | Row::F5 => 3,
            Row::F8 => 64,
            Row::F20 => 500,
            Row::F21 => 5,
            Row::F25 => 5_000,
            Row::F26 => 500,
        }
    }

    /// Trials behind a claim.
    pub fn proof_count(self) -> usize {
        match self {
            Row::F1 => 1_000,
            Row::F2 => 2_000,
            Row::F3 => 50,
            Row::F5 => 100,
            Row::F8 => 1_000,
            Row::F20 => 20_000,
            Row::F21 => 50,
            Row::F25 => 1_000_000,
            Row::F26 => 50_000,
        }
    }

    pub async fn run(self, bench: &Bench, count: usize) -> Result<Report> {
        match self {
            Row::F1 => crash::kill(bench, count).await,
            Row::F2 => crash::power(bench, count).await,
            Row::F3 => crash::sync_points(bench, count).await,
            Row::F5 => disk::full(bench, count).await,
            Row::F8 => damage::damaged(bench, count).await,
            Row::F20 => retry::repeated(bench, count).await,
            Row::F21 => lock::second_server(bench, count).await,
            Row::F25 => seam::seam(bench, count).await,
            Row::F26 => seam::edge(bench, count).await,
        }
    }
}

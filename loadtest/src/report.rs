//! A run on paper: tables for people, JSON for programs.
//!
//! Promises: the same numbers in every form; what was not measured is a dash; a run with faults says so first and last.

use std::fmt::Write;

use serde::Serialize;

use crate::outcome::Outcome;
use crate::targets::{self, Row};

#[derive(Serialize)]
pub struct Report {
    /// Where it ran: processors, kernel, sizes.
    pub machine: String,
    pub command: String,
    pub outcomes: Vec<Outcome>,
    pub rows: Vec<Row>,
    pub faults: u64,
}

impl Report {
    pub fn new(machine: String, command: String, outcomes: Vec<Outcome>) -> Report {
        Report {
            machine,
            command,
            rows: targets::rows(&outcomes),
            faults: outcomes.iter().map(|outcome| outcome.faults.total()).sum(),
            outcomes,
        }
    }

    /// Rows of which this run measured anything.
    pub fn measured_rows(&self) -> Vec<&Row> {
        let is_measured = |row: &&Row| {
            [row.floor, row.nchan, row.tidings]
                .iter()
                .any(Option::is_some)
        };
        self.rows.iter().filter(is_measured).collect()
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n\n", self.command, self.machine);
        text += &table(
            &OUTCOME_HEAD,
            &self.outcomes.iter().map(outcome_cells).collect::<Vec<_>>(),
        );
        let rows = self.measured_rows();
        if !rows.is_empty() {
            text += "\nRows of TARGETS.md, as this run measured them:\n\n";
            text += &table(
                &ROW_HEAD,
                &rows.iter().map(|row| row_cells(row)).collect::<Vec<_>>(),
            );
        }
        for outcome in &self.outcomes {
            if !outcome.note.is_empty() {
                write!(
                    text,
                    "\n{} {}: {}",
                    outcome.scenario, outcome.peer, outcome.note
                )
                .expect("a String takes what is written");
            }
        }
        text.push('\n');
        for outcome in self
            .outcomes
            .iter()
            .filter(|outcome| outcome.faults.total() > 0)
        {
            let Outcome {
                scenario,
                peer,
                faults,
                ..
            } = outcome;
            write!(text, "\nFAILED {scenario} {peer}: {faults}\n")
                .expect("a String takes what is written");
            for example in &outcome.examples {
                writeln!(text, "  {example}").expect("a String takes what is written");
            }
        }
        text
    }
}

pub const OUTCOME_HEAD: [&str; 12] = [
    "scenario",
    "peer",
    "conns",
    "published",
    "delivered",
    "s",
    "CPU µs/del.",
    "KiB/conn",
    "p50 µs",
    "p99 µs",
    "p99.9 µs",
    "faults",
];

pub fn outcome_cells(outcome: &Outcome) -> Vec<String> {
    let latency =
        |pick: fn(&crate::outcome::Latency) -> f64| number(outcome.latency.as_ref().map(pick));
    vec![
        outcome.scenario.clone(),
        outcome.peer.clone(),
        outcome.connections.to_string(),
        outcome.published.to_string(),
        outcome.deliveries.to_string(),
        format!("{:.1}", outcome.seconds),
        number(outcome.cpu_us_per_delivery),
        number(outcome.pss_kib_per_connection),
        latency(|latency| latency.p50_us),
        latency(|latency| latency.p99_us),
        latency(|latency| latency.p999_us),
        outcome.faults.total().to_string(),
    ]
}

pub const ROW_HEAD: [&str; 10] = [
    "row", "what", "unit", "floor", "nchan", "tidings", "÷ floor", "bar", "moonshot", "reached",
];

pub fn row_cells(row: &Row) -> Vec<String> {
    vec![
        row.row.to_owned(),
        row.what.to_owned(),
        row.unit.to_owned(),
        number(row.floor),
        number(row.nchan),
        number(row.tidings),
        number(row.ratio),
        row.bar.clone(),
        row.moonshot.clone(),
        row.reached.to_owned(),
    ]
}

/// Three digits that count.
pub fn number(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// A table in Markdown, its columns aligned.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells
            .chain([head[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
    };
    let mut text = line(
        &head
            .iter()
            .map(|cell| (*cell).to_owned())
            .collect::<Vec<_>>(),
    );
    text += &line(
        &widths
            .iter()
            .map(|width| "-".repeat(*width))
            .collect::<Vec<_>>(),
    );
    for row in rows {
        text += &line(row);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Faults;

    #[test]
    fn a_run_with_faults_says_which() {
        let mut outcome = Outcome::new("fanout", "tidings");
        outcome.faults = Faults {
            missing: 3,
            ..Faults::default()
        };
        outcome.examples = vec!["reader 1 never got event 7".to_owned()];
        outcome.figure("4", Some(2.5));
        let report = Report::new(
            "2 processors".to_owned(),
            "loadtest fanout".to_owned(),
            vec![outcome],
        );
        assert_eq!(report.faults, 3);
        let text = report.text();
        assert!(
            text.contains("FAILED fanout tidings: 3 missing, 0 repeated"),
            "{text}"
        );
        assert!(text.contains("reader 1 never got event 7"), "{text}");
        assert!(text.contains("| 4 "), "{text}");
        assert!(
            !text.contains("| 16 "),
            "a row that was not measured: {text}"
        );
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        let numbers = [None, Some(1234.5), Some(12.34), Some(0.217)].map(number);
        assert_eq!(numbers, ["–", "1234", "12.3", "0.22"]);
    }
}

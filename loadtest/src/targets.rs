//! The rows of TARGETS.md: what each measures, its bar, its moonshot, and whether a run reached them.
//!
//! Promises: a ratio is told only where floor and server were measured in the same run; a row without a figure says
//! which command gives it, and keeps to no bound.

use std::str::FromStr;

use serde::Serialize;

use crate::outcome::{Figure, Outcome};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// The bar is a value.
    Value,
    /// The bar is a multiple of the floor's figure.
    Floor,
    /// A value that must be reached, not stayed below.
    AtLeast,
    /// The bar depends on the run.
    Run,
}

pub struct Target {
    pub row: &'static str,
    pub what: &'static str,
    pub unit: &'static str,
    pub against: Against,
    pub bar: f64,
    pub moonshot: f64,
    pub command: &'static str,
}

const fn target(
    row: &'static str,
    what: &'static str,
    unit: &'static str,
    (against, bar, moonshot): (Against, f64, f64),
    command: &'static str,
) -> Target {
    Target {
        row,
        what,
        unit,
        against,
        bar,
        moonshot,
        command,
    }
}

use Against::{AtLeast, Floor, Run, Value};

pub const TARGETS: [Target; 19] = [
    target(
        "1",
        "memory per idle SSE stream",
        "KiB",
        (Value, 2.0, 1.1),
        "idle",
    ),
    target(
        "2",
        "memory per idle WebSocket, deflate negotiated",
        "KiB",
        (Value, 16.0, 5.0),
        "ws",
    ),
    target(
        "3",
        "whole process, 19,000 SSE streams",
        "MiB",
        (Value, 60.0, 35.0),
        "idle",
    ),
    target(
        "4",
        "fan-out, one event at a time, CPU/delivery",
        "µs",
        (Floor, 1.35, 1.15),
        "fanout",
    ),
    target(
        "5",
        "fan-out, 16 at once, CPU/delivery",
        "µs",
        (Floor, 1.5, 0.8),
        "fanout",
    ),
    target(
        "6",
        "POST to delivery, saturated, CPU/delivery",
        "µs",
        (Floor, 2.8, 1.7),
        "unicast",
    ),
    target(
        "7 p50",
        "latency at a fixed rate, p50",
        "µs",
        (Run, 0.0, 0.0),
        "unicast",
    ),
    target(
        "7 p99",
        "latency at a fixed rate, p99",
        "µs",
        (Run, 0.0, 0.0),
        "unicast",
    ),
    target(
        "8",
        "acked/s over HTTP, of a raw file's (bench: commit)",
        "×",
        (AtLeast, 0.35, 0.6),
        "unicast",
    ),
    target(
        "9 recent",
        "one client catches up, recent",
        "ms",
        (Value, 25.0, 5.0),
        "catchup",
    ),
    target(
        "9 cold",
        "one client catches up, old and cold",
        "ms",
        (Value, 150.0, 40.0),
        "catchup",
    ),
    target(
        "10",
        "50 clients catch up 100 each, CPU/event",
        "µs",
        (Value, 1.0, 0.5),
        "catchup",
    ),
    target(
        "11",
        "storm, 5 missed, CPU/client",
        "µs",
        (Floor, 2.9, 1.8),
        "storm",
    ),
    target(
        "12",
        "all caught up after kill -9",
        "s",
        (Value, 3.0, 1.0),
        "storm --restart",
    ),
    target(
        "13 CPU",
        "long poll, CPU/delivery",
        "µs",
        (Floor, 2.0, 1.5),
        "poll",
    ),
    target(
        "13 p99",
        "long poll, p99",
        "µs",
        (Value, 300.0, 300.0),
        "poll",
    ),
    target(
        "14",
        "idle CPU per stream with heartbeats",
        "µs/s",
        (Value, 0.6, 0.2),
        "idle",
    ),
    target(
        "15",
        "one event to 100,000 logs, acked",
        "s",
        (Value, 2.0, 0.7),
        "fanout",
    ),
    target(
        "16",
        "start with 1,000,000 events (bench: start)",
        "s",
        (Value, 3.0, 1.0),
        "start",
    ),
];

/// What a row's figure may be at most, where whoever runs the tool says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    row: &'static str,
    most: f64,
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Bound, String> {
        let (row, most) = text
            .rsplit_once('=')
            .ok_or("a row and a number, as 1=2.5 or \"9 cold=150\"")?;
        let is_meant = |target: &&Target| target.row == row && target.against != Against::AtLeast;
        let target = TARGETS.iter().find(is_meant).ok_or_else(|| {
            let rows = TARGETS.iter().filter(|target| target.against != AtLeast);
            let rows: Vec<&str> = rows.map(|target| target.row).collect();
            format!("there is no such row: {}", rows.join(", "))
        })?;
        let most = most.parse().ok().filter(|most: &f64| *most > 0.0);
        Ok(Bound {
            row: target.row,
            most: most.ok_or("a number above 0 follows the row")?,
        })
    }
}

impl Bound {
    /// Says how the bound is not kept.
    pub fn broken(&self, rows: &[Row]) -> Option<String> {
        let Bound { row, most } = self;
        let measured = rows.iter().find(|measured| measured.row == *row);
        match measured.and_then(|measured| measured.measured) {
            Some(measured) if measured <= *most => None,
            Some(measured) => Some(format!(
                "row {row}: {measured:.2}, at most {most} is wanted"
            )),
            None => Some(format!(
                "row {row} has no figure, at most {most} is wanted: this run did not measure it"
            )),
        }
    }
}

/// One row as a run gave it.
#[derive(Debug, Serialize, PartialEq)]
pub struct Row {
    pub row: &'static str,
    pub what: &'static str,
    pub unit: &'static str,
    pub floor: Option<f64>,
    pub nchan: Option<f64>,
    pub tidings: Option<f64>,
    /// Tidings in floors.
    pub ratio: Option<f64>,
    /// The one of these that is compared with the bar.
    pub measured: Option<f64>,
    pub bar: String,
    pub moonshot: String,
    /// `moonshot`, `bar` or `missed`; empty where it cannot be said.
    pub reached: &'static str,
    pub command: &'static str,
}

pub fn rows(outcomes: &[Outcome]) -> Vec<Row> {
    TARGETS.iter().map(|target| row(target, outcomes)).collect()
}

fn row(target: &Target, outcomes: &[Outcome]) -> Row {
    let figure = |peer: &str| -> Option<&Figure> {
        let of_peer = outcomes.iter().filter(|outcome| outcome.peer == peer);
        of_peer
            .flat_map(|outcome| &outcome.figures)
            .find(|figure| figure.row == target.row)
    };
    let value = |peer: &str| figure(peer).map(|figure| figure.value);
    let (floor, tidings) = (value("floor"), value("tidings"));
    let ratio = tidings.zip(floor).filter(|(_, floor)| *floor > 0.0);
    let ratio = ratio.map(|(tidings, floor)| tidings / floor);
    let own = figure("tidings");
    let (bar, moonshot) = match target.against {
        Against::Run => (
            own.and_then(|figure| figure.bar),
            own.and_then(|figure| figure.moonshot),
        ),
        _ => (Some(target.bar), Some(target.moonshot)),
    };
    let measured = match target.against {
        Against::Floor => ratio,
        _ => tidings,
    };
    let holds = |bound: Option<f64>| {
        let (measured, bound) = (measured?, bound?);
        Some(match target.against {
            Against::AtLeast => measured >= bound,
            _ => measured <= bound,
        })
    };
    let reached = match (holds(bar), holds(moonshot)) {
        (_, Some(true)) => "moonshot",
        (Some(true), _) => "bar",
        (Some(false), _) => "missed",
        (None, _) => "",
    };
    let words = |bound: Option<f64>| match (bound, target.against) {
        (None, _) => "–".to_owned(),
        (Some(bound), Against::Floor) => format!("≤ {bound}×"),
        (Some(bound), Against::AtLeast) => format!("≥ {bound}"),
        (Some(bound), Against::Run) => format!("≤ {bound:.0}"),
        (Some(bound), Against::Value) => format!("≤ {bound}"),
    };
    Row {
        row: target.row,
        what: target.what,
        unit: target.unit,
        floor,
        nchan: value("nchan"),
        tidings,
        ratio,
        measured,
        bar: words(bar),
        moonshot: words(moonshot),
        reached,
        command: target.command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(figures: &[(&'static str, &str, f64)]) -> Vec<Outcome> {
        let outcome = |(row, peer, value): &(&'static str, &str, f64)| {
            let mut outcome = Outcome::new("x", peer);
            outcome.figure(row, Some(*value));
            outcome
        };
        figures.iter().map(outcome).collect()
    }

    #[track_caller]
    fn check(figures: &[(&'static str, &str, f64)], reached: &str) {
        let rows = rows(&outcomes(figures));
        let row = rows.iter().find(|row| row.row == figures[0].0).unwrap();
        assert_eq!(row.reached, reached, "{row:?}");
    }

    #[test]
    fn a_row_says_what_was_reached() {
        check(&[("1", "tidings", 1.0)], "moonshot");
        check(&[("1", "tidings", 1.9)], "bar");
        check(&[("1", "tidings", 2.1)], "missed");
        // Multiples of a floor that was not measured are not told.
        check(&[("4", "tidings", 1.0)], "");
        check(&[("4", "tidings", 2.6), ("4", "floor", 2.0)], "bar");
        check(&[("4", "tidings", 2.8), ("4", "floor", 2.0)], "missed");
        check(&[("8", "tidings", 0.5)], "bar");
        check(&[("8", "tidings", 0.3)], "missed");
        check(&[("8", "nchan", 0.3)], "");
    }

    #[test]
    fn a_bound_is_kept_broken_or_not_measured() {
        let rows = rows(&outcomes(&[
            ("1", "tidings", 2.1),
            ("4", "tidings", 3.0),
            ("4", "floor", 2.0),
        ]));
        let broken = |text: &str| text.parse::<Bound>().unwrap().broken(&rows);
        assert_eq!((broken("1=2.1"), broken("4=1.5")), (None, None));
        assert!(broken("1=2").unwrap().contains("2.10"));
        assert!(broken("4=1.4").unwrap().contains("1.50"), "a ratio");
        assert!(broken("9 cold=150").unwrap().contains("not measure"));
        for wrong in ["1", "=1", "99=1", "8=1", "1=", "1=0", "1=x", "1=NaN"] {
            assert!(wrong.parse::<Bound>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bars_of_the_run_come_with_the_figure() {
        let mut outcome = Outcome::new("unicast", "tidings");
        outcome.figures.push(Figure {
            row: "7 p50",
            value: 2_000.0,
            bar: Some(2_500.0),
            moonshot: Some(1_700.0),
        });
        let rows = rows(&[outcome]);
        let row = rows.iter().find(|row| row.row == "7 p50").unwrap();
        assert_eq!((row.reached, row.bar.as_str()), ("bar", "≤ 2500"));
    }
}

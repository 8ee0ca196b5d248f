//! The test of the rows: ten servers that break one promise each must be caught, within the counts of CI.
//!
//! The server is built with `--features faults`; a mutant is switched on by `FAILPOINTS`. A mutant that survives
//! means that the rows prove less than they say.

use anyhow::Result;

use crate::bench::Bench;
use crate::history::Invariant;
use crate::invariants::Violation;
use crate::rows::Row;

struct Mutant {
    name: &'static str,
    /// A wider window between two steps, where the fault lives in one.
    window: Option<&'static str>,
    rows: &'static [Row],
    /// The promises that it breaks; another one broken by chance does not count.
    answers: &'static [Invariant],
}

const WIDE_SYNC: Option<&str> = Some("before_sync=sleep(30)");

const MUTANTS: [Mutant; 10] = [
    Mutant {
        name: "mutant_ack_before_sync",
        window: WIDE_SYNC,
        rows: &[Row::F2],
        answers: &[Invariant::Durable],
    },
    Mutant {
        name: "mutant_deliver_before_sync",
        window: WIDE_SYNC,
        rows: &[Row::F2],
        answers: &[Invariant::Immutable, Invariant::Agree],
    },
    Mutant {
        name: "mutant_skip_sync",
        window: None,
        rows: &[Row::F2],
        // The engine has more than the journal that was not synced: then the server knows it, and does not start.
        answers: &[Invariant::Durable, Invariant::Immutable, Invariant::Honest],
    },
    Mutant {
        name: "mutant_resume_inclusive",
        window: None,
        rows: &[Row::F25],
        answers: &[Invariant::Unique],
    },
    Mutant {
        name: "mutant_subscribe_after_read",
        window: None,
        rows: &[Row::F25],
        answers: &[Invariant::Resumable],
    },
    Mutant {
        name: "mutant_drop_without_reset",
        window: None,
        rows: &[Row::F26],
        answers: &[Invariant::Reliable],
    },
    Mutant {
        name: "mutant_keep_epoch",
        window: None,
        rows: &[Row::F8],
        answers: &[Invariant::Immutable, Invariant::Durable],
    },
    Mutant {
        name: "mutant_id_from_clock",
        window: None,
        rows: &[Row::F21, Row::F1],
        answers: &[
            Invariant::Unique,
            Invariant::Immutable,
            Invariant::Idempotent,
            Invariant::Reliable,
        ],
    },
    Mutant {
        name: "mutant_forget_keys",
        window: None,
        rows: &[Row::F20],
        answers: &[Invariant::Idempotent],
    },
    Mutant {
        name: "mutant_replay_without_auth",
        window: None,
        rows: &[Row::F25],
        answers: &[Invariant::Isolated],
    },
];

/// True if every mutant was caught. With `only`, just the one of that name.
pub async fn catch_all(bench: &Bench, only: Option<&str>) -> Result<bool> {
    if only.is_none() && !is_clean_without(bench).await? {
        return Ok(false);
    }
    let mut caught = 0;
    let chosen: Vec<_> = MUTANTS
        .iter()
        .filter(|mutant| only.is_none_or(|name| mutant.name.contains(name)))
        .collect();
    for mutant in &chosen {
        match catch(bench, mutant).await? {
            Some(how) => {
                caught += 1;
                println!("{:<28} caught by {how}", mutant.name);
            }
            None => println!("{:<28} SURVIVED {:?}", mutant.name, mutant.rows),
        }
    }
    println!("{caught} of {} mutants caught", chosen.len());
    Ok(caught == chosen.len())
}

/// A row that flags the server as it is would catch every mutant and prove nothing; a short run must be clean.
async fn is_clean_without(bench: &Bench) -> Result<bool> {
    let mut is_clean = true;
    for row in [Row::F2, Row::F8, Row::F20, Row::F21, Row::F25, Row::F26] {
        let report = row.run(bench, row.ci_count().div_ceil(10)).await?;
        report.print();
        is_clean &= report.is_clean();
    }
    Ok(is_clean)
}

/// The row that caught it and the first promise it broke.
async fn catch(bench: &Bench, mutant: &Mutant) -> Result<Option<String>> {
    let switched_on = format!("{}=return", mutant.name);
    let failpoints = mutant
        .window
        .into_iter()
        .chain([switched_on.as_str()])
        .collect::<Vec<_>>()
        .join(";");
    let bench = Bench {
        failpoints: Some(failpoints),
        ..bench.clone()
    };
    for row in mutant.rows {
        let report = row.run(&bench, row.ci_count()).await?;
        let fitting = |violation: &&Violation| mutant.answers.contains(&violation.invariant);
        if let Some(violation) = report.violations.iter().find(fitting) {
            let what: String = violation.to_string().chars().take(160).collect();
            return Ok(Some(format!(
                "{} after {} clean trials, {what}",
                report.row, report.clean
            )));
        }
        if !report.is_clean() {
            println!("{} broke for another reason:", mutant.name);
            report.print();
        }
    }
    Ok(None)
}

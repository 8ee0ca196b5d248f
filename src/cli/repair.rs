//! `tidings verify` and `tidings repair`: what is wrong with a stopped data directory, and the way out.
//!
//! Promises: verify changes nothing; repair works on copies, keeps the damaged store aside, and prints all that was
//! given up. Both take the server's lock, and what they refuse is one sentence with the cure.

use std::io::{self, Write};

use anyhow::{Context, bail};

use super::data::{Loading, engine_failed, existing, staging_of, stamp};
use crate::config::Config;
use crate::id::Random;
use crate::store::disk;
use crate::store::inspect::{self, Finding, Survey};
use crate::store::opening::{self, Directory};
use crate::store::repair::{self, Epochs, GivenUp, Repair};
use crate::store::staging::{Attempt, Staging};

/// Of what is damaged, this many lines are printed.
const LINES_MAX: usize = 100;

/// Checks a data directory and changes nothing: it works on a copy, for opening the engine already writes.
pub fn verify(config: &Config) -> anyhow::Result<()> {
    let directory = existing(&config.server.data_dir)?;
    if !directory.has_engine() {
        let cause = "its file `log/db` is missing".to_owned();
        return Err(opening::OpenError::Damaged(directory.path, cause).into());
    }
    let staging = staging_of(&directory)?;
    let marked = staging.read_mark(&directory)?;
    let rows = staging
        .open_copy(&directory, Attempt::AsItIs)
        .map_err(|error| engine_failed(error, &directory))?;
    opening::check_format(&rows, &directory.path)?;
    repair::settle(&rows).map_err(|error| directory.damaged(&error))?;
    let survey = inspect::survey(&rows, marked).map_err(|error| directory.damaged(&error))?;
    if survey.findings.is_empty() {
        return Ok(writeln!(io::stdout(), "ok: {}", found(&survey))?);
    }
    print_findings(&survey.findings)?;
    let count = survey.findings.len();
    let cause = match count {
        1 => "one thing is wrong in it, told above".to_owned(),
        count => format!("{count} things are wrong in it, told above"),
    };
    Err(opening::OpenError::Damaged(directory.path.clone(), cause).into())
}

/// Makes a damaged data directory usable again.
pub fn repair(config: &Config) -> anyhow::Result<()> {
    let directory = existing(&config.server.data_dir)?;
    let shown = directory.path.display();
    let staging = staging_of(&directory)?;
    let marked = staging.read_mark(&directory)?;
    let Some((attempt, damage)) = best_attempt(&staging, &directory, marked)? else {
        bail!(
            "nothing in {shown} can be saved; `tidings restore FILE --force` brings a backup back"
        );
    };
    if attempt == Attempt::AsItIs && damage.findings.is_empty() {
        return Ok(writeln!(
            io::stdout(),
            "ok: there is nothing to repair in {shown}: {}",
            found(&damage)
        )?);
    }
    print_findings(&damage.findings)?;
    writeln!(io::stdout(), "{}", attempt_words(attempt))?;
    let (given_up, newest) = save(&staging, &directory, (attempt, &damage), marked)
        .with_context(|| format!("cannot repair {shown}, nothing was changed"))?;
    for given_up in &given_up {
        writeln!(io::stdout(), "{}", given_up_words(given_up))?;
    }
    staging.write_mark(newest)?;
    let aside = staging
        .take_place(&directory, &format!("damaged-{}", stamp()))
        .with_context(|| format!("the repaired store cannot be moved into {shown}"))?;
    let aside = aside.map_or(String::new(), |aside| {
        format!("; the damaged store is kept in {}", aside.display())
    });
    let kept = match given_up.is_empty() {
        true => ", no event was given up",
        false => "",
    };
    writeln!(io::stdout(), "repaired {shown}{kept}{aside}")?;
    Ok(())
}

/// Which treatment lets the engine give most, and what is wrong then.
fn best_attempt(
    staging: &Staging,
    directory: &Directory,
    marked: Option<u64>,
) -> anyhow::Result<Option<(Attempt, Survey)>> {
    if !directory.has_engine() {
        return Ok(None);
    }
    let mut best: Option<(Attempt, Survey)> = None;
    for attempt in Attempt::ALL {
        let rows = match staging.open_copy(directory, attempt) {
            Ok(rows) => rows,
            Err(disk::OpenError::Damaged(_)) => continue,
            Err(disk::OpenError::Io(error)) => {
                bail!("cannot copy {}: {error}", directory.path.display())
            }
        };
        // What cannot be settled here is cleared away when the rest has been taken over.
        drop(repair::settle(&rows));
        let Ok(survey) = inspect::survey(&rows, marked) else {
            continue;
        };
        // Events of logs whose names are lost are of no use to anyone.
        if survey.rows == 0 || (!survey.findings.is_empty() && survey.readable_events() == 0) {
            continue;
        }
        if let Err(error @ opening::OpenError::Newer(..)) =
            opening::check_format(&rows, &directory.path)
        {
            return Err(error.into());
        }
        let is_readable = !survey
            .findings
            .iter()
            .any(|finding| matches!(finding, Finding::Unreadable { .. }));
        let saves_more =
            |(_, other): &(Attempt, Survey)| other.readable_events() < survey.readable_events();
        if best.as_ref().is_none_or(saves_more) {
            best = Some((attempt, survey));
        }
        if is_readable {
            break;
        }
    }
    Ok(best)
}

/// Takes what can be read into a new engine and makes that whole.
fn save(
    staging: &Staging,
    directory: &Directory,
    (attempt, damage): (Attempt, &Survey),
    marked: Option<u64>,
) -> anyhow::Result<(Vec<GivenUp>, u64)> {
    let copy = staging
        .open_copy(directory, attempt)
        .map_err(|error| engine_failed(error, directory))?;
    let rows = staging
        .create()
        .map_err(|error| engine_failed(error, directory))?;
    let mut loading = Loading::new(rows, staging);
    let mut loaded = Ok(());
    inspect::scan_surviving(&copy, &mut |key, value| {
        if let (Some(value), Ok(())) = (value, &loaded) {
            loaded = loading.put(key, value);
        }
    })?;
    loaded?;
    let rows = loading.into_rows()?;
    opening::check_format(&rows, &directory.path)?;
    repair::settle(&rows)?;
    let survey = inspect::survey(&rows, marked)?;
    let repair = Repair {
        rows: &rows,
        survey: &survey,
        epochs: match damage.is_end_in_doubt || attempt != Attempt::AsItIs {
            true => Epochs::Renew,
            false => Epochs::Keep,
        },
        marked,
        random: &Random::system(),
    };
    let (newest, given_up) = repair.run()?;
    let left = inspect::survey(&rows, Some(newest))?.findings;
    match left.first() {
        None => Ok((given_up, newest)),
        Some(finding) => bail!("{finding} even after the repair"),
    }
}

fn print_findings(findings: &[Finding]) -> io::Result<()> {
    for finding in findings.iter().take(LINES_MAX) {
        writeln!(io::stdout(), "damaged: {finding}")?;
    }
    match findings.len().saturating_sub(LINES_MAX) {
        0 => Ok(()),
        more => writeln!(io::stdout(), "and {more} more"),
    }
}

fn attempt_words(attempt: Attempt) -> &'static str {
    match attempt {
        Attempt::AsItIs => "the storage engine opens; what it can read is taken over",
        Attempt::AcrossGaps => {
            "the journal lacks something; what it and the data file hold is taken over"
        }
        Attempt::Lengthened => "the data file was cut short; what is left of it is taken over",
        Attempt::WithoutSnapshot => "the data file is read without the files beside it",
        Attempt::WholeSegments => "the data file is read up to its last whole segment",
    }
}

fn given_up_words(given_up: &GivenUp) -> String {
    match given_up {
        GivenUp::Events { name, floor, tail } if floor > tail => {
            format!("given up: all events of {name} up to seq {tail}; readers get a reset")
        }
        GivenUp::Events { name, floor, .. } => {
            format!("given up: the events of {name} before seq {floor}; readers get a reset")
        }
        GivenUp::Log { user } => format!(
            "given up: the log of user number {}, whose name is lost; that user begins with an empty log",
            user.0
        ),
    }
}

fn found(survey: &Survey) -> String {
    format!(
        "{} logs, {} events, {} rows",
        survey.logs.len(),
        survey.events,
        survey.rows
    )
}

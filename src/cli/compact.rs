//! `tidings compact`: a stopped data directory written anew, so that nothing that was deleted is left in its files.
//!
//! Promises: the new store holds the same rows, cursors and epochs, and takes the old one's place when it is whole and on
//! stable storage; the old files are deleted then. A damaged store is refused and stays as it is.

use std::fs;
use std::io::{self, Write};
use std::ops::ControlFlow;

use anyhow::{Context, bail};

use super::data::{Loading, engine_failed, existing, staging_of};
use crate::config::Config;
use crate::store::engine::Rows;
use crate::store::opening::{self, Directory};
use crate::store::staging::Staging;

/// What the command can be stopped in; a later one clears it away.
const LABEL: &str = "before-compact";

pub fn compact(config: &Config) -> anyhow::Result<()> {
    let directory = existing(&config.server.data_dir)?;
    let shown = directory.path.display();
    let staging = staging_of(&directory)?;
    let before = file_bytes(&directory)?;
    let marked = staging.read_mark(&directory)?;
    let rows = copy(config, &directory, &staging)
        .with_context(|| format!("cannot compact {shown}, nothing was changed"))?;
    // A store whose first commit is still to come has no mark.
    if let Some(marked) = marked {
        staging.write_mark(marked)?;
    } else {
        bail!("{shown} holds no events: there is nothing to compact");
    }
    let aside = staging
        .take_place(&directory, LABEL)
        .with_context(|| format!("the compacted store cannot be moved into {shown}"))?;
    if let Some(aside) = aside {
        fs::remove_dir_all(&aside).with_context(|| {
            format!(
                "{} holds the old files and cannot be deleted",
                aside.display()
            )
        })?;
    }
    let after = file_bytes(&directory)?;
    writeln!(
        io::stdout(),
        "compacted {shown}: {rows} rows, {before} bytes before, {after} bytes now"
    )?;
    Ok(())
}

/// Copies every row into a new engine, and tells how many.
fn copy(config: &Config, directory: &Directory, staging: &Staging) -> anyhow::Result<u64> {
    let store = &config.store;
    let old = Rows::new(Box::new(
        directory.open_engine(store.cache_bytes, store.ballast_bytes)?,
    ));
    opening::check_format(&old, &directory.path)?;
    let new = staging
        .create()
        .map_err(|error| engine_failed(error, directory))?;
    let mut loading = Loading::new(new, staging);
    let (mut count, mut loaded) = (0, Ok(()));
    old.scan(&[], &[0xff], &mut |key, value| {
        count += 1;
        loaded = loading.put(key, value);
        match loaded {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })
    .map_err(|error| directory.damaged(&error))?;
    loaded?;
    loading.into_rows()?.sync()?;
    Ok(count)
}

fn file_bytes(directory: &Directory) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory.engine_path())? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

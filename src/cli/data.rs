//! `tidings backup` and `tidings restore`, on a data directory whose server is stopped.
//!
//! Promises: both take the server's lock and leave a whole result or none; a restore gives every log a new epoch and
//! moves aside what it replaces. What they refuse is one sentence that names the file and the cure.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufReader, BufWriter, ErrorKind, IsTerminal, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::arguments::BackupArguments;
use crate::clock::Clock;
use crate::config::Config;
use crate::id::Random;
use crate::store::archive::{self, ArchiveError, Counts, Piece, Source};
use crate::store::disk;
use crate::store::engine::{BATCH_OPS_MAX, EngineError, Op, Rows};
use crate::store::keys;
use crate::store::opening::{self, Directory};
use crate::store::staging::{self, Staging};

/// The file in the data directory that signs tokens where none is configured.
const SECRET: &str = "secret";

/// Writes all that is kept into one file.
pub fn backup(config: &Config, arguments: &BackupArguments) -> anyhow::Result<()> {
    let directory = existing(&config.server.data_dir)?;
    let data_dir = directory.path.display();
    let store = &config.store;
    let engine = directory.open_engine(store.cache_bytes, store.ballast_bytes)?;
    let rows = Rows::new(Box::new(engine));
    opening::check_format(&rows, &directory.path)?;
    let secret = match fs::read(directory.path.join(SECRET)) {
        Ok(secret) => Some(secret),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => bail!("the secret in {data_dir} cannot be read: {error}"),
    };
    let source = Source {
        rows: &rows,
        secret: secret.as_deref(),
        time_ms: Clock::system().now_ms(),
    };
    let counts = match arguments.file == Path::new("-") {
        true => write_to_stdout(&source, &directory)?,
        false => write_to_file(&source, &directory, arguments)?,
    };
    eprintln!("backup of {data_dir}: {}", words(&counts));
    Ok(())
}

fn write_to_stdout(source: &Source<'_>, directory: &Directory) -> anyhow::Result<Counts> {
    if io::stdout().is_terminal() {
        bail!("a backup is not for a terminal; send it to a file or a program");
    }
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let counts = archive::write(source, &mut out, &mut |_| {}).map_err(|error| {
        // As words, not as an error of the pipe: a backup that was not taken to its end has failed.
        backup_failed(error, directory, Path::new("stdout"))
    })?;
    let flushed = out.flush();
    flushed.map_err(|error| anyhow!("the backup cannot be written to stdout: {error}"))?;
    Ok(counts)
}

fn write_to_file(
    source: &Source<'_>,
    directory: &Directory,
    arguments: &BackupArguments,
) -> anyhow::Result<Counts> {
    let path = &arguments.file;
    if path.exists() && !arguments.force {
        bail!(
            "{} exists already; choose another name, or say --force to replace it",
            path.display()
        );
    }
    let mut part = path.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = write_part(source, directory, &part).and_then(|counts| {
        fs::rename(&part, path)?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(counts)
    });
    if written.is_err() {
        drop(fs::remove_file(&part));
    }
    written
}

fn write_part(source: &Source<'_>, directory: &Directory, part: &Path) -> anyhow::Result<Counts> {
    let cannot = || format!("the backup cannot be written to {}", part.display());
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(part)
        .with_context(cannot)?;
    file.set_permissions(Permissions::from_mode(0o600))
        .with_context(cannot)?;
    let bar = progress(None);
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let counts = archive::write(source, &mut out, &mut |counts| {
        bar.set_message(format!("{} events", counts.events));
        bar.inc(1);
    })
    .map_err(|error| backup_failed(error, directory, part))?;
    bar.finish_and_clear();
    out.flush().with_context(cannot)?;
    out.get_ref().sync_all().with_context(cannot)?;
    Ok(counts)
}

fn backup_failed(error: ArchiveError, directory: &Directory, file: &Path) -> anyhow::Error {
    match error {
        ArchiveError::Store(error) => directory.damaged(&error).into(),
        error => anyhow!(
            "the backup cannot be written to {}: {error}",
            file.display()
        ),
    }
}

/// Fills a data directory from a backup.
pub fn restore(config: &Config, arguments: &BackupArguments) -> anyhow::Result<()> {
    let data_dir = &config.server.data_dir;
    let (file, is_new) = (&arguments.file, !data_dir.exists());
    let mut input = open_backup(file)?;
    let directory = Directory::lock(data_dir)?;
    let restored = restore_into(&directory, &mut input, arguments);
    if restored.is_err() && is_new {
        // The directory was made for this and holds nothing but the lock.
        drop(fs::remove_file(data_dir.join("lock")));
        drop(fs::remove_dir(data_dir));
    }
    let (counts, aside) = restored?;
    let shown = data_dir.display();
    eprintln!(
        "restored {} into {shown}: {}",
        file.display(),
        words(&counts)
    );
    if let Some(aside) = aside {
        eprintln!("what was in {shown} is now in {}", aside.display());
    }
    Ok(())
}

fn open_backup(file: &Path) -> anyhow::Result<Box<dyn Read>> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let shown = file.display();
    let opened = File::open(file).with_context(|| format!("cannot read the backup {shown}"))?;
    let bar = progress(Some(opened.metadata()?.len()));
    Ok(Box::new(BufReader::with_capacity(
        1 << 20,
        bar.wrap_read(opened),
    )))
}

fn restore_into(
    directory: &Directory,
    input: &mut dyn Read,
    arguments: &BackupArguments,
) -> anyhow::Result<(Counts, Option<PathBuf>)> {
    let (file, shown) = (&arguments.file, directory.path.display());
    if !arguments.force && !staging::is_empty(directory)? {
        bail!(
            "the data directory {shown} is not empty; restore into another --data, or say --force to move what is \
             there aside"
        );
    }
    let staging = Staging::new(directory).with_context(|| format!("cannot write in {shown}"))?;
    let rows = staging
        .create()
        .map_err(|error| engine_failed(error, directory))?;
    let mut loading = Loading::new(rows, &staging);
    let counts = archive::read(input, &mut |piece| loading.take(piece))
        .map_err(|error| anyhow!("the backup {} cannot be restored: {error}", file.display()))?;
    let newest = loading
        .finish(directory)
        .with_context(|| format!("cannot write in {shown}"))?;
    staging.write_mark(newest)?;
    let aside = staging
        .take_place(directory, &format!("before-restore-{}", stamp()))
        .with_context(|| format!("the restored store cannot be moved into {shown}"))?;
    Ok((counts, aside))
}

/// A store that is being filled.
pub(super) struct Loading {
    rows: Rows,
    secret_path: PathBuf,
    ops: Vec<Op>,
    /// Newest commit of any record.
    newest: u64,
}

impl Loading {
    pub(super) fn new(rows: Rows, staging: &Staging) -> Loading {
        Loading {
            rows,
            secret_path: staging.path.join(SECRET),
            ops: Vec::new(),
            newest: 0,
        }
    }

    fn take(&mut self, piece: Piece<'_>) -> Result<(), ArchiveError> {
        match piece {
            Piece::Secret(secret) => write_secret(&self.secret_path, secret)?,
            Piece::Row { key, value } => self.put(key, value)?,
        }
        Ok(())
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        if let Some((commit, _)) = keys::parse_record(key) {
            self.newest = self.newest.max(commit);
        }
        self.ops.push(Op::Put(key.to_vec(), value.to_vec()));
        match self.ops.len() < BATCH_OPS_MAX {
            true => Ok(()),
            false => self.rows.apply(std::mem::take(&mut self.ops)),
        }
    }

    /// The rows, all of them applied.
    pub(super) fn into_rows(mut self) -> Result<Rows, EngineError> {
        self.rows.apply(std::mem::take(&mut self.ops))?;
        Ok(self.rows)
    }

    /// Gives every log a new epoch, makes all durable, and tells the newest commit.
    fn finish(mut self, directory: &Directory) -> anyhow::Result<u64> {
        let generation = Random::system().number().to_le_bytes().to_vec();
        let generation = Op::Put(keys::meta("generation"), generation);
        self.rows.apply(std::mem::take(&mut self.ops))?;
        opening::check_format(&self.rows, &directory.path)?;
        self.rows.apply(vec![generation])?;
        self.rows.sync()?;
        let indexed = self.rows.get(&keys::meta("indexed"))?;
        let indexed = indexed.and_then(|value| value.try_into().ok());
        Ok(self.newest.max(indexed.map_or(0, u64::from_le_bytes)))
    }
}

fn write_secret(path: &Path, secret: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(secret)?;
    file.sync_all()
}

/// Locks a data directory that must be there.
pub(super) fn existing(data_dir: &Path) -> anyhow::Result<Directory> {
    let shown = data_dir.display();
    if !data_dir.is_dir() {
        bail!("there is no data directory {shown}; name another with --data");
    }
    let directory = Directory::lock(data_dir)?;
    match directory.has_engine() || directory.mark_path().exists() {
        true => Ok(directory),
        false => bail!("{shown} holds no events: no server has run on it yet"),
    }
}

pub(super) fn staging_of(directory: &Directory) -> anyhow::Result<Staging> {
    Staging::new(directory).with_context(|| format!("cannot write in {}", directory.path.display()))
}

pub(super) fn engine_failed(error: disk::OpenError, directory: &Directory) -> anyhow::Error {
    let path = directory.path.clone();
    match error {
        disk::OpenError::Damaged(cause) => opening::OpenError::Damaged(path, cause).into(),
        disk::OpenError::Io(error) => opening::OpenError::Io(path, error).into(),
    }
}

fn words(counts: &Counts) -> String {
    let Counts {
        rows,
        logs,
        events,
        bytes,
    } = counts;
    format!("{rows} rows, {logs} logs, {events} events, {bytes} bytes")
}

/// The time as a part of a name.
pub(super) fn stamp() -> String {
    jiff::Timestamp::now()
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string()
}

fn progress(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:32} {percent}% {elapsed}"),
        None => (ProgressBar::no_length(), "{spinner} {msg} {elapsed}"),
    };
    let style = ProgressStyle::with_template(template).expect("a template of known keys");
    bar.set_style(style);
    bar
}

#[cfg(test)]
mod tests;

//! A place beside the data in which a new store is made whole before it takes the old one's place.
//!
//! Promises: the data directory holds the old store, the new one, or for a moment neither, and then no start accepts
//! it; what is replaced is moved aside, never deleted. Attempts on damaged files are made on copies.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::store::disk;
use crate::store::engine::Rows;
use crate::store::journaled::{Journaled, Missing};
use crate::store::mark::Mark;
use crate::store::opening::Directory;

/// Memory for the engine while a command works on it alone.
const CACHE_BYTES: u64 = 64 << 20;
/// sled writes its file in pieces of this size; a torn one at the end is of no use to it.
const SEGMENT_BYTES: u64 = 512 << 10;
/// What may have been cut from the end of the file, at least.
const CUT_BYTES: u64 = 64 << 20;
const STAGING: &str = "staging";
/// What makes a store.
const PARTS: [&str; 3] = ["mark", "secret", "log"];

/// An empty directory inside a locked data directory; it is removed with all it holds when the value goes.
pub struct Staging {
    pub path: PathBuf,
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next command that stages.
        drop(fs::remove_dir_all(&self.path));
    }
}

impl Staging {
    pub fn new(directory: &Directory) -> io::Result<Staging> {
        let path = directory.path.join(STAGING);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        private_directory(&path)?;
        Ok(Staging { path })
    }

    /// A new, empty engine in `log`.
    pub fn create(&self) -> Result<Rows, disk::OpenError> {
        let path = self.path.join("log");
        private_directory(&path).map_err(disk::OpenError::Io)?;
        let engine = Journaled::open(&path, CACHE_BYTES, Missing::Refuse)?;
        Ok(Rows::new(Box::new(engine)))
    }

    /// Opens a copy of the directory's engine, treated as `attempt` says.
    pub fn open_copy(
        &self,
        directory: &Directory,
        attempt: Attempt,
    ) -> Result<Rows, disk::OpenError> {
        let copy = self.path.join("copy");
        let io = disk::OpenError::Io;
        match fs::remove_dir_all(&copy) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        copy_files(&directory.engine_path(), &copy).map_err(io)?;
        attempt.treat(&copy).map_err(io)?;
        let missing = match attempt {
            Attempt::AsItIs => Missing::Refuse,
            _ => Missing::StepOver,
        };
        let engine = Journaled::open(&copy, CACHE_BYTES, missing)?;
        Ok(Rows::new(Box::new(engine)))
    }

    /// Newest commit in the directory's mark; the file itself is not touched.
    pub fn read_mark(&self, directory: &Directory) -> io::Result<Option<u64>> {
        let copy = self.path.join("mark-copy");
        match fs::copy(directory.mark_path(), &copy) {
            Ok(_) => Mark::open(&copy).map(|(_, newest)| newest),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the mark that goes with the engine in `log`.
    pub fn write_mark(&self, newest: u64) -> io::Result<()> {
        let (mut mark, _) = Mark::open(&self.path.join("mark"))?;
        mark.advance(newest)?;
        mark.sync()
    }

    /// Puts the new store in the old one's place. Tells where the old one went, if there was one.
    pub fn take_place(self, directory: &Directory, label: &str) -> io::Result<Option<PathBuf>> {
        sync_all(&self.path)?;
        let aside = match PARTS.iter().any(|part| directory.path.join(part).exists()) {
            true => Some(aside(&directory.path, label)?),
            false => None,
        };
        let data = &directory.path;
        if let Some(aside) = &aside
            && data.join("mark").exists()
        {
            fs::copy(data.join("mark"), aside.join("mark"))?;
        }
        // From here on there is a mark at every moment, and without `log` no start accepts that.
        fs::rename(self.path.join("mark"), data.join("mark"))?;
        for part in ["log", "secret"] {
            // A part of which there is no new one stays, such as the secret when a store is repaired.
            let is_replaced = self.path.join(part).exists() && data.join(part).exists();
            if let Some(aside) = aside.as_ref().filter(|_| is_replaced) {
                fs::rename(data.join(part), aside.join(part))?;
                File::open(aside)?.sync_all()?;
            }
        }
        for part in ["secret", "log"] {
            if self.path.join(part).exists() {
                fs::rename(self.path.join(part), data.join(part))?;
            }
        }
        File::open(&directory.path)?.sync_all()?;
        Ok(aside)
    }
}

/// What is tried on a copy to make the engine open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    AsItIs,
    /// What the journal lacks is stepped over.
    AcrossGaps,
    /// The data file is as long again as its snapshot expects; what was cut off reads as damaged pages.
    Lengthened,
    /// sled builds its snapshot and its settings from the data file again.
    WithoutSnapshot,
    /// The data file ends with its last whole segment.
    WholeSegments,
}

impl Attempt {
    pub const ALL: [Attempt; 5] = [
        Attempt::AsItIs,
        Attempt::AcrossGaps,
        Attempt::Lengthened,
        Attempt::WithoutSnapshot,
        Attempt::WholeSegments,
    ];

    fn treat(self, copy: &Path) -> io::Result<()> {
        let resize = |length: fn(u64) -> u64| {
            let file = File::options().write(true).open(copy.join("db"))?;
            file.set_len(length(file.metadata()?.len()))
        };
        match self {
            Attempt::AsItIs | Attempt::AcrossGaps => Ok(()),
            Attempt::Lengthened => {
                resize(|bytes| (bytes * 2 + CUT_BYTES).next_multiple_of(SEGMENT_BYTES))
            }
            Attempt::WithoutSnapshot => remove_derived(copy),
            Attempt::WholeSegments => {
                remove_derived(copy)?;
                resize(|bytes| bytes / SEGMENT_BYTES * SEGMENT_BYTES)
            }
        }
    }
}

/// Removes what sled makes again from its data file, and what never belonged to it.
fn remove_derived(copy: &Path) -> io::Result<()> {
    for entry in fs::read_dir(copy)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "blobs" {
            fs::remove_dir_all(entry.path())?;
        } else if name == "conf" || name.to_string_lossy().starts_with("snap.") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether nothing of a store is in the directory yet.
pub fn is_empty(directory: &Directory) -> io::Result<bool> {
    for entry in fs::read_dir(&directory.path)? {
        let name = entry?.file_name();
        if !["lock", STAGING, "lost+found"]
            .iter()
            .any(|own| name == *own)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates the directory that takes what is replaced: beside the data directory, or inside it where that is a mount
/// point or stands in a directory that is not ours.
fn aside(data: &Path, label: &str) -> io::Result<PathBuf> {
    let full = fs::canonicalize(data)?;
    let beside = full.parent().filter(|parent| {
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
        matches!((device(parent), device(&full)), (Ok(a), Ok(b)) if a == b)
    });
    if let (Some(parent), Some(name)) = (beside, full.file_name()) {
        let path = parent.join(format!("{}.{label}", name.to_string_lossy()));
        if private_directory(&path).is_ok() {
            return Ok(path);
        }
    }
    let path = full.join(label);
    private_directory(&path)?;
    Ok(path)
}

fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    private_directory(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => copy_files(&entry.path(), &to.join(entry.file_name()))?,
            false => drop(fs::copy(entry.path(), to.join(entry.file_name()))?),
        }
    }
    Ok(())
}

fn sync_all(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => sync_all(&entry.path())?,
            false => File::open(entry.path())?.sync_all()?,
        }
    }
    File::open(path)?.sync_all()
}

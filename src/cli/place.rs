//! Where a reader stands, kept in a file from run to run.
//!
//! Promises: the file holds the old cursor or the new one, whole, whenever the program or the machine stops. It never
//! guesses: a file that holds no cursor is refused rather than taken for the beginning.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Bytes of a cursor file; a cursor has at most 23 characters.
const BYTES_MAX: u64 = 256;

#[derive(Debug)]
pub struct CursorFile {
    path: PathBuf,
    beside: PathBuf,
}

impl CursorFile {
    pub fn new(path: &Path) -> CursorFile {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        CursorFile {
            path: path.to_owned(),
            beside: PathBuf::from(beside),
        }
    }

    /// The cursor in the file; `None` where there is no file yet.
    pub fn read(&self) -> anyhow::Result<Option<String>> {
        let shown = self.path.display();
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("the cursor file {shown} cannot be read"));
            }
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("the cursor file {shown} cannot be read"))?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        let cursor = text.trim();
        let is_cursor = !cursor.is_empty() && cursor.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_cursor || text.len() as u64 > BYTES_MAX {
            bail!("the cursor file {shown} holds no cursor: delete it to begin at --cursor");
        }
        Ok(Some(cursor.to_owned()))
    }

    /// Puts `cursor` in the place of the one before.
    pub fn write(&self, cursor: &str) -> anyhow::Result<()> {
        let written = File::create(&self.beside).and_then(|mut file| {
            writeln!(file, "{cursor}")?;
            file.sync_all()?;
            fs::rename(&self.beside, &self.path)
        });
        written
            .with_context(|| format!("the cursor file {} cannot be written", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = CursorFile::new(&directory.path().join("c"));
        assert_eq!(file.read().unwrap(), None);
        for cursor in ["q7m2kd-1", "q7m2kd-100", "q7m2kd-9"] {
            file.write(cursor).unwrap();
            assert_eq!(file.read().unwrap().as_deref(), Some(cursor));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_without_a_cursor_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c");
        for bad in [&b""[..], b"\n", b"a b\n", b"\xff", &[b'x'; 300]] {
            fs::write(&path, bad).unwrap();
            let error = CursorFile::new(&path).read().unwrap_err().to_string();
            assert!(error.contains("holds no cursor"), "{bad:?}: {error}");
        }
        assert!(CursorFile::new(directory.path()).read().is_err());
        let nowhere = CursorFile::new(&directory.path().join("none/c"));
        assert!(nowhere.write("q7m2kd-1").is_err());
    }
}

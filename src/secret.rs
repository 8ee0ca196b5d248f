//! The secret that signs tokens where none is configured: one file in the data directory.
//!
//! Promises: it is made once, from the system's random source, readable by its owner only, and is whole or not there,
//! even when two programs make it at once or the power fails. It never shows the secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::id::Random;

const FILE_NAME: &str = "secret";
/// Random bytes of a secret; written as twice as many hexadecimal digits.
const RANDOM_BYTES: usize = 32;
/// Bytes of a secret that a person may have put in the file: as HS256 wants it, and no more than anyone needs.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 32..=4096;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(
        "there is no secret in {0} yet: start the server once, or name another data directory or --token"
    )]
    Missing(PathBuf),
    #[error(
        "{0} holds no secret of 32 to 4096 bytes: put it back from a backup, or delete it to have a new one made, \
             after which older tokens are refused"
    )]
    Damaged(PathBuf),
    #[error("the secret {path} cannot be read or written: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Reads the secret of a data directory.
pub fn read(data_dir: &Path) -> Result<SecretString, SecretError> {
    let path = data_dir.join(FILE_NAME);
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::NotFound => SecretError::Missing(path.clone()),
        _ => SecretError::Io {
            path: path.clone(),
            source,
        },
    };
    let file = File::open(&path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        // Some file systems know no modes, so this cannot be refused.
        tracing::warn!(
            mode = format!("{:o}", mode & 0o777),
            "others than its owner can read the secret in the data directory"
        );
    }
    let mut bytes = Vec::new();
    let bound = u64::try_from(*SECRET_BYTES.end()).expect("a small number") + 2;
    file.take(bound).read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    let text = text.trim();
    if SECRET_BYTES.contains(&text.len()) {
        return Ok(SecretString::from(text));
    }
    Err(SecretError::Damaged(path))
}

/// Reads the secret of a data directory that exists; makes it where there is none.
pub fn read_or_make(data_dir: &Path) -> Result<SecretString, SecretError> {
    match read(data_dir) {
        Err(SecretError::Missing(path)) => {
            make(data_dir, &path).map_err(|source| SecretError::Io { path, source })?;
            read(data_dir)
        }
        other => other,
    }
}

/// Writes a new secret beside its place and links it there, so that of two makers one wins and both read the same.
fn make(data_dir: &Path, path: &Path) -> io::Result<()> {
    let random = Random::system();
    let beside = data_dir.join(format!("{FILE_NAME}.{}", random.hex(8)));
    let written =
        write_new(&beside, &random.hex(RANDOM_BYTES)).and_then(|()| fs::hard_link(&beside, path));
    fs::remove_file(&beside)?;
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(data_dir)?.sync_all(),
    }
}

fn write_new(path: &Path, secret: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{secret}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_secret_is_made_once_and_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        assert!(matches!(
            read(directory.path()),
            Err(SecretError::Missing(_))
        ));
        let made = read_or_make(directory.path()).unwrap();
        assert_eq!(made.expose_secret().len(), 64);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let again = read_or_make(directory.path()).unwrap();
        assert_eq!(made.expose_secret(), again.expose_secret());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn makers_at_the_same_time_agree() {
        let directory = tempfile::tempdir().unwrap();
        let read = || {
            read_or_make(directory.path())
                .unwrap()
                .expose_secret()
                .to_owned()
        };
        let secrets: Vec<String> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8).map(|_| scope.spawn(read)).collect();
            makers
                .into_iter()
                .map(|maker| maker.join().unwrap())
                .collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    }

    #[test]
    fn a_damaged_secret_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        for bad in ["", "\n", "short", &"x".repeat(5000)] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(
                read_or_make(directory.path()),
                Err(SecretError::Damaged(_))
            ));
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }
}

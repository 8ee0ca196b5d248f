//! The commands on real data directories: what they refuse, what they leave, and what damage does to them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::*;
use crate::cli::repair::{repair, verify};
use crate::config::Sources;
use crate::store::mark::Mark;
use crate::store::repair::tests::{COMMITS, fill};

fn config(data: &Path) -> Config {
    let sources = Sources {
        file: None,
        environment: Vec::new(),
        set: vec!["store.ballast_bytes=0".to_owned()],
        listen: None,
        data: Some(data.to_owned()),
    };
    Config::load(&sources).unwrap()
}

fn arguments(file: &Path, force: bool) -> BackupArguments {
    BackupArguments {
        file: file.to_owned(),
        force,
        config: crate::cli::arguments::ConfigArguments {
            settings: crate::cli::arguments::SettingArguments {
                config: None,
                set: Vec::new(),
            },
            data: None,
        },
    }
}

/// A data directory with 300 events and a secret, whose server is stopped.
fn filled(data: &Path) {
    let directory = Directory::lock(data).unwrap();
    let rows = Rows::new(Box::new(directory.open_engine(1 << 20, 0).unwrap()));
    fill(&rows);
    fs::write(data.join(SECRET), "s".repeat(64)).unwrap();
    let (mut mark, _) = Mark::open(&directory.mark_path()).unwrap();
    mark.advance(COMMITS).unwrap();
    mark.sync().unwrap();
}

fn rows_of(data: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let directory = Directory::lock(data).unwrap();
    let rows = Rows::new(Box::new(directory.open_engine(1 << 20, 0).unwrap()));
    let mut found = BTreeMap::new();
    rows.scan(&[], &[0xff], &mut |key, value| {
        found.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn files_of(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_of(&path)),
            false => drop(found.insert(path.clone(), fs::read(path).unwrap())),
        }
    }
    found
}

#[track_caller]
fn refused(result: anyhow::Result<()>, words: &str) {
    let told = format!("{:#}", result.unwrap_err());
    assert!(told.contains(words), "{told:?} lacks {words:?}");
    assert!(!told.contains('\n'), "{told:?} is more than a sentence");
}

#[test]
fn a_backup_comes_back_elsewhere_with_new_epochs() {
    let place = tempfile::tempdir().unwrap();
    let (old, new) = (place.path().join("old"), place.path().join("new"));
    let file = place.path().join("backup");
    filled(&old);
    backup(&config(&old), &arguments(&file, false)).unwrap();
    refused(
        backup(&config(&old), &arguments(&file, false)),
        "exists already",
    );
    backup(&config(&old), &arguments(&file, true)).unwrap();
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    restore(&config(&new), &arguments(&file, false)).unwrap();
    verify(&config(&new)).unwrap();
    let (mut before, mut after) = (rows_of(&old), rows_of(&new));
    let generation = keys::meta("generation");
    assert_ne!(before.remove(&generation), after.remove(&generation));
    assert_eq!(before, after);
    let secret = |data: &Path| fs::read(data.join(SECRET)).unwrap();
    assert_eq!(secret(&old), secret(&new));

    refused(
        restore(&config(&new), &arguments(&file, false)),
        "is not empty",
    );
    restore(&config(&new), &arguments(&file, true)).unwrap();
    let aside = fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let aside: Vec<_> = aside
        .filter(|name| name.to_string_lossy().starts_with("new.before-restore-"))
        .collect();
    assert_eq!(aside.len(), 1);
    let aside = files_of(&place.path().join(&aside[0]));
    assert!(aside.len() >= 4, "log, mark and secret: {:?}", aside.keys());
}

#[test]
fn a_damaged_backup_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let (old, new) = (place.path().join("old"), place.path().join("new"));
    let file = place.path().join("backup");
    filled(&old);
    backup(&config(&old), &arguments(&file, false)).unwrap();
    let whole = fs::read(&file).unwrap();
    for length in [0, 10, 24, 1000, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        let result = restore(&config(&new), &arguments(&file, false));
        refused(result, &format!("cut short after {length} bytes"));
        assert!(!new.exists());
    }
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    fs::write(&file, &changed).unwrap();
    let before = rows_of(&old);
    refused(
        restore(&config(&old), &arguments(&file, true)),
        "damaged between byte",
    );
    assert_eq!(rows_of(&old), before, "what was there is still there");
    assert!(!old.join("staging").exists());
}

#[test]
fn a_directory_that_is_in_use_or_absent_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let file = arguments(&place.path().join("backup"), false);
    for result in [
        backup(&config(&data), &file),
        verify(&config(&data)),
        repair(&config(&data)),
    ] {
        refused(result, "there is no data directory");
    }
    assert!(!data.exists());
    filled(&data);
    backup(&config(&data), &file).unwrap();
    let _lock = Directory::lock(&data).unwrap();
    let file = arguments(&place.path().join("backup"), true);
    let config = config(&data);
    for result in [
        backup(&config, &file),
        restore(&config, &file),
        verify(&config),
        repair(&config),
    ] {
        refused(result, "in use by another tidings process");
    }
}

#[test]
fn verify_changes_nothing_and_repair_ends_what_it_found() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    filled(&data);
    let before = files_of(&data);
    verify(&config(&data)).unwrap();
    assert_eq!(files_of(&data), before);
    repair(&config(&data)).unwrap();
    assert_eq!(files_of(&data), before, "there was nothing to repair");
    {
        let (mut mark, _) = Mark::open(&data.join("mark")).unwrap();
        mark.advance(COMMITS + 50).unwrap();
    }
    let before = files_of(&data);
    refused(verify(&config(&data)), "one thing is wrong");
    assert_eq!(files_of(&data), before);
    repair(&config(&data)).unwrap();
    verify(&config(&data)).unwrap();
    let rows = rows_of(&data);
    assert_eq!(rows[&keys::meta("indexed")], (COMMITS + 50).to_le_bytes());
    assert_ne!(rows[&keys::meta("generation")], 77u64.to_le_bytes());
}

#[test]
fn a_data_file_cut_at_any_length_is_saved_or_refused() {
    let place = tempfile::tempdir().unwrap();
    let whole = place.path().join("whole");
    filled(&whole);
    // A second open writes the snapshot that a running server would leave.
    rows_of(&whole);
    let rows = rows_of(&whole);
    let bytes = fs::metadata(whole.join("log/db")).unwrap().len();
    let mut saved = 0;
    for length in (0..8)
        .map(|eighth| bytes / 8 * eighth)
        .chain([bytes - 1, 512 << 10])
    {
        let data = place.path().join(format!("cut-{length}"));
        for (path, content) in files_of(&whole) {
            let path = data.join(path.strip_prefix(&whole).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let file = File::options()
            .write(true)
            .open(data.join("log/db"))
            .unwrap();
        file.set_len(length).unwrap();
        let found = verify(&config(&data));
        match repair(&config(&data)) {
            Ok(()) => {
                verify(&config(&data)).unwrap();
                saved += 1;
            }
            result => {
                refused(result, "brings a backup back");
                refused(found, "is damaged");
                let directory = Directory::lock(&data).unwrap();
                assert!(
                    directory.open_engine(1 << 20, 0).is_err(),
                    "cut at {length}"
                );
                continue;
            }
        }
        let kept = rows_of(&data);
        let is_record = |key: &Vec<u8>| keys::parse_record(key).is_some();
        for (key, value) in kept.iter().filter(|(key, _)| is_record(key)) {
            assert_eq!(rows.get(key), Some(value), "cut at {length}");
        }
    }
    println!("{saved} of 10 were saved");
}

use proptest::prelude::*;

use super::*;

impl Journal {
    /// From now on every write fails, as on a broken disk.
    pub fn lose_files(&mut self) {
        self.files = [(); 2].map(|()| File::open("/dev/null").unwrap());
    }
}

fn op(number: u64, bytes: usize) -> Op {
    Op::Put(number.to_be_bytes().to_vec(), vec![b'x'; bytes])
}

fn text(ops: &[Op]) -> Text {
    let mut text = Text::default();
    ops.iter().for_each(|op| text.add(op));
    text
}

fn write(journal: &mut Journal, bytes: usize) {
    let number = journal.next();
    journal.write(&mut text(&[op(number, bytes)])).unwrap();
    journal.sync().unwrap();
}

fn open(directory: &Path) -> Journal {
    let found = read(directory).unwrap();
    Journal::open(directory, found.places, found.newest()).unwrap()
}

/// Numbers of the groups after `after`, and the first that is missing.
fn numbers(directory: &Path, after: u64) -> (Vec<u64>, Option<u64>) {
    let (groups, missing) = read(directory).unwrap().after(after);
    (groups.iter().map(|(number, _)| *number).collect(), missing)
}

/// Changes the bytes of a file from `place` on.
fn overwrite(directory: &Path, file: usize, place: u64, bytes: &[u8]) {
    let file = File::options()
        .write(true)
        .open(directory.join(NAMES[file]));
    file.unwrap().write_all_at(bytes, place).unwrap();
}

#[test]
fn groups_are_found_again_over_many_turns() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    // 128 of these fill a file.
    for number in 1..=1_000u64 {
        write(&mut journal, 14_000);
        if number % 50 != 0 {
            continue;
        }
        let moved = number.saturating_sub(120);
        let (groups, missing) = read(directory.path()).unwrap().after(moved);
        assert_eq!(missing, None);
        let wanted: Vec<(u64, Vec<Op>)> = (moved + 1..=number)
            .map(|n| (n, vec![op(n, 14_000)]))
            .collect();
        assert_eq!(groups, wanted);
        if number % 300 == 0 {
            journal = open(directory.path());
        }
    }
    assert_eq!(disk_bytes(directory.path()), 2 * FILE_BYTES);
}

#[test]
fn a_turn_asks_for_what_it_takes_over() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    let mut asked = Vec::new();
    for _ in 0..400 {
        let number = journal.next();
        let mut text = text(&[op(number, 14_000)]);
        asked.extend(journal.taken_over(&text));
        journal.write(&mut text).unwrap();
    }
    // The first turn takes over an empty file, each other the groups of the turn before the last.
    assert_eq!(asked, [0, 128, 256]);
}

#[test]
fn a_group_longer_than_a_file_is_whole_and_the_file_shrinks_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    write(&mut journal, 100);
    write(&mut journal, 3 * FILE_BYTES as usize);
    assert_eq!(numbers(directory.path(), 0), (vec![1, 2], None));
    for _ in 0..300 {
        write(&mut journal, 14_000);
    }
    assert_eq!(disk_bytes(directory.path()), 2 * FILE_BYTES);
    assert_eq!(numbers(directory.path(), 200).1, None);
}

#[test]
fn a_group_that_is_missing_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    (0..5).for_each(|_| write(&mut journal, 100));
    assert_eq!(
        numbers(directory.path(), 9),
        (vec![], Some(9)),
        "more was there once"
    );
    overwrite(directory.path(), 0, 2 * BLOCK_BYTES as u64 + 40, b"?");
    assert_eq!(numbers(directory.path(), 0), (vec![1, 2, 4, 5], Some(3)));
    assert_eq!(
        numbers(directory.path(), 3),
        (vec![4, 5], None),
        "nobody needs it any more"
    );
}

#[test]
fn a_start_does_not_write_over_the_newest_group() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    write(&mut journal, 100);
    drop(journal);
    let mut journal = open(directory.path());
    write(&mut journal, 100);
    assert_eq!(numbers(directory.path(), 0), (vec![1, 2], None));
    // The second was torn: the first still says how far the journal went.
    overwrite(directory.path(), 1, 30, b"????");
    assert_eq!(numbers(directory.path(), 1), (vec![], None));
}

#[test]
fn no_text_passes_for_a_group() {
    assert!(
        std::str::from_utf8(&MAGIC).is_err(),
        "what users send is UTF-8"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_torn_group_takes_no_other(lengths in prop::collection::vec(1usize..9_000, 1..8), share in 0.0f64..1.0) {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = open(directory.path());
        let torn = lengths.len() as u64;
        let mut place = 0;
        for length in lengths {
            place = journal.place;
            write(&mut journal, length);
        }
        // The disk wrote a part of the last group; what was there before follows.
        let kept = (share * (journal.place - place) as f64) as u64;
        let blocks = vec![0x55; (journal.place - place - kept) as usize];
        overwrite(directory.path(), 0, place + kept, &blocks);
        let (found, missing) = numbers(directory.path(), 0);
        prop_assert!(found.len() as u64 == torn - 1 || kept + (BLOCK_BYTES as u64) > journal.place - place);
        prop_assert!(found.len() as u64 >= torn - 1);
        prop_assert_eq!(missing, None);
    }

    #[test]
    fn any_bytes_are_groups_or_none(bytes: Vec<u8>, place in 0u64..3) {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = open(directory.path());
        write(&mut journal, 10);
        overwrite(directory.path(), 0, place * BLOCK_BYTES as u64, &bytes);
        drop(read(directory.path()).unwrap().after(0));
    }
}

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::engine::Rows;
use crate::store::memory::Memory;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

struct Bench {
    directory: tempfile::TempDir,
    memory: Memory,
    journaled: Option<Journaled>,
}

impl Bench {
    fn new() -> Bench {
        let mut bench = Bench {
            directory: tempfile::tempdir().unwrap(),
            memory: Memory::default(),
            journaled: None,
        };
        bench.start(Missing::Refuse).unwrap();
        bench
    }

    fn start(&mut self, missing: Missing) -> Result<(), OpenError> {
        self.journaled = None;
        let found = journal::read(self.directory.path()).unwrap();
        let moved = moved(&self.memory)?.unwrap_or(0);
        let engine = Box::new(self.memory.clone());
        self.journaled = Some(Journaled::on(
            engine,
            self.directory.path(),
            (found, moved),
            missing,
        )?);
        Ok(())
    }

    fn journaled(&self) -> &Journaled {
        self.journaled.as_ref().unwrap()
    }

    fn put(&self, ops: &[Op]) {
        self.journaled().apply(ops.to_vec()).unwrap();
    }

    fn sync(&self) {
        self.journaled().sync().unwrap();
    }

    fn move_all(&self) {
        let core = &self.journaled().core;
        let durable = core.state.lock().durable;
        core.wait_until_moved(durable).unwrap();
    }

    /// From here on nothing goes to the engine: its thread is gone, as after a crash.
    fn stop_moving(&mut self) {
        let journaled = self.journaled.as_mut().unwrap();
        journaled.core.state.lock().failed = Some(EngineError::Failed("stopped".to_owned()));
        journaled.core.changed.notify_all();
        journaled.mover.take().unwrap().join().unwrap();
        journaled.core.state.lock().failed = None;
    }

    /// A power cut: of what the engine did not sync, `kept` batches survive.
    fn crash(&mut self, kept: usize) {
        self.kill();
        self.memory.crash(kept);
    }

    /// The process is gone, what it wrote is not.
    fn kill(&mut self) {
        if self.journaled().mover.is_some() {
            self.stop_moving();
        }
        // Without this the end would be an orderly one.
        self.journaled().core.state.lock().failed = Some(EngineError::Failed("crashed".to_owned()));
        self.journaled = None;
    }

    fn rows(&self) -> Model {
        let mut rows = Model::new();
        let scanned = self.journaled().scan(&[], &[0xff], &mut |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        });
        scanned.unwrap();
        rows
    }

    fn assert_rows(&self, model: &Model) {
        assert_eq!(&self.rows(), model);
        for key in (0..KEYS).map(key) {
            assert_eq!(
                self.journaled().get(&key).unwrap().as_ref(),
                model.get(&key)
            );
            let last = model
                .range(..key.clone())
                .next_back()
                .map(|(key, _)| key.clone());
            assert_eq!(self.journaled().last_key(&[], &key).unwrap(), last);
        }
    }
}

const KEYS: u16 = 40;

fn key(number: u16) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn change(model: &mut Model, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Put(key, value) => drop(model.insert(key.clone(), value.clone())),
            Op::Delete(key) => drop(model.remove(key)),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Apply(Vec<Op>),
    Sync,
    MoveAll,
    StopMoving,
    Kill,
    Crash(usize),
    /// A power cut in the middle of a write: what was applied last is gone.
    CrashInWrite(Vec<Op>, usize),
    EndInOrder,
}

fn any_ops() -> impl Strategy<Value = Vec<Op>> {
    let any_op = prop_oneof![
        3 => (0..KEYS, 0usize..300).prop_map(|(number, bytes)| Op::Put(key(number), vec![bytes as u8; bytes])),
        1 => (0..KEYS).prop_map(|number| Op::Delete(key(number))),
    ];
    prop::collection::vec(any_op, 1..12)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any_ops().prop_map(Step::Apply),
        4 => Just(Step::Sync),
        2 => Just(Step::MoveAll),
        1 => Just(Step::StopMoving),
        2 => Just(Step::Kill),
        2 => (0usize..4).prop_map(Step::Crash),
        1 => (any_ops(), 0usize..4).prop_map(|(ops, kept)| Step::CrashInWrite(ops, kept)),
        1 => Just(Step::EndInOrder),
    ]
}

/// Zeroes the blocks of the group that was written last.
fn tear(directory: &Path) {
    let found = journal::read(directory).unwrap();
    let newest = found.newest();
    for name in ["journal.0", "journal.1"] {
        let mut bytes = std::fs::read(directory.join(name)).unwrap();
        let number = newest.to_le_bytes();
        for block in bytes.chunks_mut(4096) {
            if block[8..16] == number {
                block[24..].fill(0x55);
            }
        }
        std::fs::write(directory.join(name), bytes).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_crash_keeps_what_was_synced_and_readers_see_what_was_applied(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut bench = Bench::new();
        let (mut applied, mut synced) = (Model::new(), Model::new());
        for step in steps {
            let is_moving = bench.journaled().mover.is_some();
            match step {
                Step::Apply(ops) => {
                    bench.put(&ops);
                    change(&mut applied, &ops);
                }
                Step::Sync => {
                    bench.sync();
                    synced = applied.clone();
                }
                Step::MoveAll if is_moving => bench.move_all(),
                Step::StopMoving if is_moving => bench.stop_moving(),
                Step::MoveAll | Step::StopMoving => {}
                Step::Kill => {
                    bench.kill();
                    bench.start(Missing::Refuse).unwrap();
                    applied = synced.clone();
                }
                Step::Crash(kept) => {
                    bench.crash(kept);
                    bench.start(Missing::Refuse).unwrap();
                    applied = synced.clone();
                }
                Step::CrashInWrite(ops, kept) => {
                    if is_moving {
                        bench.stop_moving();
                    }
                    bench.put(&ops);
                    bench.sync();
                    tear(bench.directory.path());
                    bench.crash(kept);
                    bench.start(Missing::Refuse).unwrap();
                    applied = synced.clone();
                }
                Step::EndInOrder => {
                    synced = applied.clone();
                    // A mover that is gone cannot leave an orderly end.
                    if !is_moving {
                        bench.sync();
                        bench.crash(usize::MAX);
                    }
                    bench.start(Missing::Refuse).unwrap();
                }
            }
            bench.assert_rows(&applied);
        }
    }
}

#[test]
fn nothing_is_lost_over_many_turns_of_the_journal() {
    let mut bench = Bench::new();
    let mut model = Model::new();
    for round in 0u32..1_500 {
        let ops = [
            Op::Put(key((round % 37) as u16), round.to_le_bytes().to_vec()),
            Op::Put(key((round % 40) as u16), vec![7; 9_000]),
        ];
        bench.put(&ops);
        bench.sync();
        change(&mut model, &ops);
        if round % 400 == 399 {
            bench.crash((round / 400) as usize);
            bench.start(Missing::Refuse).unwrap();
            bench.assert_rows(&model);
        }
    }
    bench.assert_rows(&model);
}

#[test]
fn an_orderly_end_leaves_everything_in_the_engine() {
    let mut bench = Bench::new();
    bench.put(&[Op::Put(key(1), b"one".to_vec())]);
    bench.journaled = None;
    bench.memory.crash(0);
    assert_eq!(bench.memory.get(&key(1)).unwrap(), Some(b"one".to_vec()));
    assert_eq!(moved(&bench.memory).unwrap(), Some(1));
}

#[test]
fn a_scan_sees_changes_and_engine_as_one() {
    let mut bench = Bench::new();
    let number = |n: u32| n.to_be_bytes().to_vec();
    let mut model = Model::new();
    let mut ops: Vec<Op> = (0..3_000)
        .step_by(3)
        .map(|n| Op::Put(number(n), vec![1]))
        .collect();
    bench.put(&ops);
    change(&mut model, &ops);
    bench.sync();
    bench.move_all();
    bench.stop_moving();
    ops = (0..3_000)
        .step_by(2)
        .map(|n| Op::Put(number(n), vec![2]))
        .collect();
    ops.extend((0..3_000).step_by(5).map(|n| Op::Delete(number(n))));
    bench.put(&ops);
    change(&mut model, &ops);
    bench.sync();
    ops = (1_000..2_000)
        .map(|n| Op::Put(number(n), vec![3]))
        .collect();
    bench.put(&ops);
    change(&mut model, &ops);
    for (from, to, count) in [
        (0, 3_000, usize::MAX),
        (7, 2_500, 700),
        (990, 1_010, 4),
        (2_999, 3_000, 1),
        (5, 5, 9),
    ] {
        let mut found = Vec::new();
        let scanned = bench
            .journaled()
            .scan(&number(from), &number(to), &mut |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                if found.len() < count {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
        scanned.unwrap();
        let wanted = model.range(number(from)..number(to)).take(count);
        let wanted: Vec<_> = wanted
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(found, wanted, "from {from} to {to}, at most {count}");
    }
}

#[test]
fn an_engine_and_a_journal_that_do_not_belong_together_are_refused() {
    let mut bench = Bench::new();
    let put = |bench: &Bench, n: u16| {
        bench.put(&[Op::Put(key(n), vec![9; 1_500_000])]);
        bench.sync();
    };
    put(&bench, 1);
    bench.move_all();
    // A copy of the engine from before: the journal has gone on over both of its files.
    let older_rows = bench.rows();
    (2..8).for_each(|n| put(&bench, n));
    bench.move_all();
    bench.crash(0);
    let replaced = Memory::default();
    let ops = older_rows
        .into_iter()
        .map(|(key, value)| Op::Put(key, value));
    let ops = ops
        .chain([Op::Put(MOVED_KEY.to_vec(), moved_row(1))])
        .collect();
    replaced.apply(ops).unwrap();
    replaced.sync().unwrap();
    bench.memory = replaced;
    let Err(OpenError::Damaged(cause)) = bench.start(Missing::Refuse) else {
        panic!("a hole between engine and journal is refused");
    };
    assert!(cause.contains("lacks group 2"), "{cause}");
    bench.start(Missing::StepOver).unwrap();
    assert_eq!(bench.rows().len(), 3, "what the one and the other have");
}

#[test]
fn a_journal_that_lost_its_end_is_refused() {
    let mut bench = Bench::new();
    for n in 1..4 {
        bench.put(&[Op::Put(key(n), b"x".to_vec())]);
        bench.sync();
        bench.move_all();
    }
    bench.crash(0);
    for name in ["journal.0", "journal.1"] {
        std::fs::write(bench.directory.path().join(name), vec![0; 4096]).unwrap();
    }
    assert!(matches!(
        bench.start(Missing::Refuse),
        Err(OpenError::Damaged(_))
    ));
    bench.start(Missing::StepOver).unwrap();
    assert_eq!(bench.rows().len(), 3);
}

#[test]
fn an_engine_that_fails_ends_the_acks_and_loses_nothing() {
    let mut bench = Bench::new();
    bench.put(&[Op::Put(key(1), b"one".to_vec())]);
    bench.sync();
    bench.memory.fail();
    let core = &bench.journaled().core;
    assert!(core.wait_until_moved(1).is_err());
    assert!(bench.journaled().apply(vec![Op::Delete(key(1))]).is_err());
    assert!(bench.journaled().sync().is_err());
    bench.journaled = None;
    bench.memory.crash(0);
    bench.start(Missing::Refuse).unwrap();
    assert_eq!(bench.rows().len(), 1);
}

#[test]
fn what_a_killed_server_left_in_the_engine_is_synced_before_the_journal_forgets_it() {
    let mut bench = Bench::new();
    for n in 1..4 {
        bench.put(&[Op::Put(key(n), vec![n as u8; MOVE_BYTES as usize])]);
        bench.sync();
        // So much goes to the engine at once, which need not sync it.
        while moved(&bench.memory).unwrap() != Some(n.into()) {
            std::thread::yield_now();
        }
        // Each start fills the other file.
        bench.kill();
        bench.start(Missing::Refuse).unwrap();
    }
    bench.crash(0);
    bench.start(Missing::Refuse).unwrap();
    assert_eq!(bench.rows().len(), 3);
}

#[test]
fn a_journal_that_fails_is_not_written_again() {
    let mut bench = Bench::new();
    bench.put(&[Op::Put(key(1), b"one".to_vec())]);
    bench.sync();
    bench.put(&[Op::Put(key(2), b"two".to_vec())]);
    bench.journaled().core.journal.lock().lose_files();
    assert!(bench.journaled().sync().is_err());
    assert!(bench.journaled().sync().is_err(), "it might lie");
    assert!(bench.journaled().apply(vec![Op::Delete(key(1))]).is_err());
    // Its end does not try it again either.
    bench.start(Missing::Refuse).unwrap();
    assert_eq!(bench.rows().len(), 1);
}

#[test]
fn a_range_that_ends_before_it_begins_is_empty() {
    let mut bench = Bench::new();
    bench.put(&[Op::Put(key(5), b"five".to_vec())]);
    let rows = Rows::new(Box::new(bench.journaled.take().unwrap()));
    assert_eq!(rows.range(&key(9), &key(1), 10).unwrap(), []);
    assert_eq!(rows.last_key(&key(9), &key(1)).unwrap(), None);
    let visited = rows.scan_all(&key(9), &key(1), &mut |_, _| panic!("there is none"));
    visited.unwrap();
}

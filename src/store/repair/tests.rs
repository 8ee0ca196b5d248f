//! Damage of every kind, planted in a small store: a survey finds it, a repair ends it, and what is left is unchanged.

use super::*;
use crate::event::{Draft, Event, Json};
use crate::store::engine::{Engine, Visit};
use crate::store::inspect::{self, survey};
use crate::store::memory::Memory;
use crate::store::opening::Opening;
use crate::store::record::{self, CHUNK_BYTES, Recipient};

pub const COMMITS: u64 = 300;
const INDEXED: u64 = 200;
const USERS: u32 = 3;

fn event(commit: u64) -> Event {
    let letters = if commit.is_multiple_of(50) { 5000 } else { 20 };
    let mut event = Event::of(&Draft {
        id: format!("e{commit}").parse().unwrap(),
        event_type: "note.new".parse().unwrap(),
        time_ms: 1_795_228_200_000 + commit,
        topic: None,
        actor: None,
        data: Json::of(&serde_json::Value::from("x".repeat(letters))),
        exclude_conn: None,
    });
    event.commit = commit;
    event
}

/// Each event goes to one of three users, each tenth to all of them; the index knows the first 200.
pub fn fill(rows: &Rows) {
    let name = |user: u32| format!("user{user}").parse().unwrap();
    let mut heads: Vec<Head> = (0..USERS).map(|user| Head::new(name(user))).collect();
    for commit in 1..=COMMITS {
        let gets = |user: &u32| commit.is_multiple_of(10) || u64::from(*user) == commit % 3;
        let mut recipients = Vec::new();
        for user in (0..USERS).filter(gets) {
            let head = &mut heads[user as usize];
            head.assigned += 1;
            if commit <= INDEXED {
                head.tail += 1;
                head.fresh.push(commit);
            }
            let seq = head.assigned;
            recipients.push(Recipient {
                user: UserNo(user),
                seq,
            });
        }
        let record = record::encode(&event(commit), &recipients);
        for (chunk, bytes) in (0u16..).zip(record.chunks(CHUNK_BYTES)) {
            let key = keys::record(commit, chunk);
            rows.apply(vec![Op::Put(key, bytes.to_vec())]).unwrap();
        }
    }
    for (user, head) in (0..USERS).zip(&heads) {
        rows.apply(index::write_ops(rows, UserNo(user), head).unwrap())
            .unwrap();
    }
    for (name, value) in [("format", 1u64), ("indexed", INDEXED), ("generation", 77)] {
        let value = value.to_le_bytes().to_vec();
        rows.apply(vec![Op::Put(keys::meta(name), value)]).unwrap();
    }
    rows.sync().unwrap();
}

/// Ids of the events of each log that a reader can have, by seq.
fn contents(rows: &Rows) -> Vec<Vec<(u64, String)>> {
    let survey = survey(rows, None).unwrap();
    let id = |commit| read::event(rows, commit).unwrap().unwrap().id().to_owned();
    let kept = |log: &Log| {
        let seqs = head_floor(log)..=log.tail();
        seqs.filter_map(|seq| Some((seq, id(log.commit(seq)?))))
            .collect()
    };
    survey.logs.iter().map(kept).collect()
}

fn repaired(rows: &Rows, marked: Option<u64>) -> (u64, Vec<GivenUp>) {
    let found = survey(rows, marked).unwrap();
    let repair = Repair {
        rows,
        survey: &found,
        epochs: Epochs::Keep,
        marked,
        random: &Random::seeded(5),
    };
    repair.run().unwrap()
}

fn generation(rows: &Rows) -> Vec<u8> {
    rows.get(&keys::meta("generation")).unwrap().unwrap()
}

type Damage = fn(&Memory, &Rows);

fn flip(memory: &Memory, key: &[u8]) {
    memory.damage(key, |value| *value.last_mut().unwrap() ^= 4);
}

fn remove(rows: &Rows, key: Vec<u8>) {
    rows.apply(vec![Op::Delete(key)]).unwrap();
}

/// What is planted, the words a survey must find, the floors after a repair, and whether epochs must change.
const CASES: &[(&str, Damage, &str, [u64; 3], Epochs)] = &[
    (
        "a flipped record in the index",
        |memory, _| flip(memory, &keys::record(100, 0)),
        "the log of user2 lost 1 events between seq 40 and 40",
        [41, 41, 41],
        Epochs::Keep,
    ),
    (
        "a flipped record behind the index",
        |memory, _| flip(memory, &keys::record(251, 0)),
        "the record of commit 251 is not whole",
        [1, 1, 102],
        Epochs::Renew,
    ),
    (
        "a record that is gone",
        |_, rows| remove(rows, keys::record(3, 0)),
        "the log of user0 lost 1 events between seq 1 and 1",
        [2, 1, 1],
        Epochs::Keep,
    ),
    (
        "the end of a record is gone",
        |_, rows| remove(rows, keys::record(50, 1)),
        "the record of commit 50 is not whole",
        [21, 21, 21],
        Epochs::Keep,
    ),
    (
        "the start of a record is gone",
        |_, rows| remove(rows, keys::record(50, 0)),
        "the record of commit 50 is not whole",
        [21, 21, 21],
        Epochs::Keep,
    ),
    (
        "a flipped index block",
        |memory, _| flip(memory, &keys::block(UserNo(1), 1)),
        "the index of the log of user1 is damaged",
        [1, 1, 1],
        Epochs::Keep,
    ),
    (
        "an index block that is gone",
        |_, rows| remove(rows, keys::block(UserNo(1), 1)),
        "the index of the log of user1 is damaged",
        [1, 1, 1],
        Epochs::Keep,
    ),
    (
        "an index that tells of other events",
        |_, rows| {
            let block = rows.get(&keys::block(UserNo(0), 1)).unwrap().unwrap();
            rows.apply(vec![Op::Put(keys::block(UserNo(1), 1), block)])
                .unwrap();
        },
        "the index of the log of user1 is damaged",
        [1, 1, 1],
        Epochs::Keep,
    ),
    (
        "a flipped user row",
        |memory, _| flip(memory, &keys::user(UserNo(1))),
        "the name of user number 1 is lost",
        [1, 121, 1],
        Epochs::Renew,
    ),
    (
        "the last user row is gone",
        |_, rows| remove(rows, keys::user(UserNo(2))),
        "the name of user number 2 is lost",
        [1, 1, 121],
        Epochs::Renew,
    ),
    (
        "the row of epochs is gone",
        |_, rows| remove(rows, keys::meta("generation")),
        "the row that epochs are made from is lost",
        [1, 1, 1],
        Epochs::Renew,
    ),
    (
        "the newest commit is gone",
        |_, rows| {
            remove(rows, keys::record(COMMITS, 0));
            remove(rows, keys::record(COMMITS, 1));
        },
        "the newest commits are lost: there were 300, found are 299",
        [1, 1, 1],
        Epochs::Renew,
    ),
    (
        "a row of a feature is flipped",
        |memory, rows| {
            rows.apply(vec![Op::Put(keys::state(b'z', b"a"), vec![1])])
                .unwrap();
            flip(memory, &keys::state(b'z', b"a"));
        },
        "rows of features are damaged, row sza",
        [1, 1, 1],
        Epochs::Keep,
    ),
];

#[test]
fn planted_damage_is_found_and_repaired() {
    for (name, damage, words, floors, epochs) in CASES {
        let memory = Memory::default();
        let rows = Rows::new(Box::new(memory.clone()));
        fill(&rows);
        let before = contents(&rows);
        damage(&memory, &rows);
        let found = survey(&rows, Some(COMMITS)).unwrap();
        let told: Vec<String> = found.findings.iter().map(Finding::to_string).collect();
        assert!(
            told.iter().any(|told| told.starts_with(words)),
            "{name}: {told:?}"
        );
        let was = rows.get(&keys::meta("generation")).unwrap();
        let (newest, _) = repaired(&rows, Some(COMMITS));
        assert_eq!(newest, COMMITS, "{name}");
        let left = survey(&rows, Some(newest)).unwrap();
        assert_eq!(left.findings, [], "{name}");
        let found = left.logs.iter().map(head_floor).collect::<Vec<_>>();
        assert_eq!(found, floors, "{name}");
        let is_kept = was.is_some_and(|was| was == generation(&rows));
        assert_eq!(is_kept, *epochs == Epochs::Keep, "{name}");
        for (user, (before, after)) in before.iter().zip(contents(&rows)).enumerate() {
            let mut expected: Vec<_> = before
                .iter()
                .filter(|(seq, _)| *seq >= floors[user])
                .collect();
            if words.starts_with("the newest") {
                expected.retain(|(_, id)| id != "e300");
            }
            assert_eq!(
                after.iter().collect::<Vec<_>>(),
                expected,
                "{name}: user{user}"
            );
        }
    }
}

#[test]
fn a_repaired_store_opens_with_all_that_it_kept() {
    let memory = Memory::default();
    let rows = Rows::new(Box::new(memory.clone()));
    fill(&rows);
    flip(&memory, &keys::record(100, 0));
    let (newest, given_up) = repaired(&rows, Some(400));
    assert_eq!(
        (newest, given_up.len()),
        (400, 3),
        "no number is given twice"
    );
    let opening = Opening {
        rows: &rows,
        random: &Random::seeded(1),
        retention_events: 0,
        marked: Some(newest),
    };
    let opened = opening.run().unwrap();
    assert_eq!((opened.next_commit, opened.replayed.len()), (401, 0));
    let view = opened.logs.view(UserNo(0));
    assert_eq!((view.floor, view.tail), (41, 120));
    let survey = survey(&rows, Some(newest)).unwrap();
    assert_eq!(opened.live_bytes, survey.live_bytes);
    assert_eq!(
        rows.get(&keys::record(1, 0)).unwrap(),
        None,
        "no log keeps it"
    );
}

#[test]
fn a_whole_store_has_no_findings() {
    let rows = Rows::new(Box::new(Memory::default()));
    fill(&rows);
    let survey = survey(&rows, Some(COMMITS)).unwrap();
    assert_eq!(survey.findings, []);
    assert_eq!((survey.events, survey.logs.len()), (COMMITS, 3));
    let record = rows.get(&keys::record(1, 0)).unwrap();
    assert_eq!(record.map(|record| record.len() as u64 > 0), Some(true));
}

#[test]
fn an_empty_store_has_no_findings() {
    let rows = Rows::new(Box::new(Memory::default()));
    assert_eq!(survey(&rows, None).unwrap().findings, []);
}

/// An engine that cannot read what lies from the first key up to the second, like sled with a damaged page.
struct Holed {
    memory: Memory,
    holes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Holed {
    fn check(&self, from: &[u8], to: &[u8]) -> Result<(), EngineError> {
        let is_in =
            |(start, end): &(Vec<u8>, Vec<u8>)| from < end.as_slice() && to > start.as_slice();
        match self.holes.iter().any(is_in) {
            true => Err(EngineError::Damaged {
                key: "a page".to_owned(),
            }),
            false => Ok(()),
        }
    }
}

impl Engine for Holed {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.check(key, &[key, &[0]].concat())?;
        self.memory.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), EngineError> {
        let mut is_broken_off = false;
        let hole = self.holes.iter().find(|(_, end)| from < end.as_slice());
        let end = hole.map_or(to, |(start, _)| start.as_slice().min(to));
        if end > from {
            self.memory.scan(from, end, &mut |key, value| {
                let flow = visit(key, value);
                is_broken_off = flow.is_break();
                flow
            })?;
        }
        match is_broken_off {
            true => Ok(()),
            false => self.check(from, to),
        }
    }

    fn last_key(&self, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.check(from, to)?;
        self.memory.last_key(from, to)
    }

    fn apply(&self, ops: Vec<Op>) -> Result<(), EngineError> {
        self.memory.apply(ops)
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.memory.sync()
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn unsynced_values(&self) -> u64 {
        0
    }

    fn is_resident(&self) -> bool {
        true
    }
}

#[test]
fn what_lies_around_a_page_that_cannot_be_read_is_saved() {
    let memory = Memory::default();
    fill(&Rows::new(Box::new(memory.clone())));
    let holes = vec![
        (keys::record(101, 0), keys::record(103, 0)),
        (keys::record(290, 0), vec![b'f']),
    ];
    let rows = Rows::new(Box::new(Holed { memory, holes }));
    let found = survey(&rows, Some(COMMITS)).unwrap();
    assert!(found.is_end_in_doubt);
    assert_eq!(found.events, 300 - 2 - 11);
    let fresh = Rows::new(Box::new(Memory::default()));
    let unreadable = inspect::scan_surviving(&rows, &mut |key, value| {
        let value = value.unwrap().to_vec();
        fresh.apply(vec![Op::Put(key.to_vec(), value)]).unwrap();
    });
    assert_eq!(unreadable.unwrap().len(), 2);
    repaired(&fresh, Some(COMMITS));
    assert_eq!(survey(&fresh, Some(COMMITS)).unwrap().findings, []);
    let contents = contents(&fresh);
    assert_eq!(
        contents[1].len(),
        115,
        "user1 lost nothing before commit 290 behind 101"
    );
}

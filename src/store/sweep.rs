//! Walking through the records in the order of commits, a bounded step at a time: to find an event by its id, and to
//! find the events that name someone.
//!
//! Promises: one step looks at a bounded number of rows, whatever is stored; a damaged row is passed over. It is for
//! rare and slow work beside the readers, and never on their path.

use std::ops::{ControlFlow, Range};

use crate::event::Event;
use crate::store::engine::{EngineError, Rows};
use crate::store::keys;
use crate::store::read;
use crate::store::record::Header;

/// Rows looked at in one step.
const ROWS_MAX: usize = 8_192;

/// What a step found, and where the next one begins; `None` at the end.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub commits: Vec<u64>,
    pub next: Option<u64>,
}

/// Commits from `commits` whose records may name `name` as a JSON string. A record of several rows is always one of
/// them, for the name may stand across two.
pub fn naming(rows: &Rows, name: &str, commits: Range<u64>) -> Result<Step, EngineError> {
    let quoted = format!("\"{name}\"").into_bytes();
    let mut found: Vec<u64> = Vec::new();
    let mut looked_at = 0;
    let mut next = None;
    let (from, to) = (keys::record(commits.start, 0), keys::record(commits.end, 0));
    rows.scan_all(&from, &to, &mut |key, value| {
        let (Some((commit, chunk)), Some(value)) = (keys::parse_record(key), value) else {
            return ControlFlow::Continue(());
        };
        // A step ends between two records.
        if looked_at >= ROWS_MAX && chunk == 0 {
            next = Some(commit);
            return ControlFlow::Break(());
        }
        looked_at += 1;
        let is_named = chunk > 0 || contains(value, &quoted);
        if is_named && found.last() != Some(&commit) {
            found.push(commit);
        }
        ControlFlow::Continue(())
    })?;
    Ok(Step {
        commits: found,
        next,
    })
}

/// The newest event with this id among `commits`, every one of which is looked at.
pub fn with_id(rows: &Rows, id: &str, commits: Range<u64>) -> Result<Option<Event>, EngineError> {
    let mut found = None;
    let (from, to) = (keys::record(commits.start, 0), keys::record(commits.end, 0));
    rows.scan_all(&from, &to, &mut |key, value| {
        let is_meant = value.and_then(Header::id) == Some(id.as_bytes());
        if let Some((commit, 0)) = keys::parse_record(key).filter(|_| is_meant) {
            found = Some(commit);
        }
        ControlFlow::Continue(())
    })?;
    let event = found.map(|commit| read::event(rows, commit));
    Ok(event.transpose()?.flatten())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    let first = part[0];
    let mut rest = text;
    while let Some(place) = rest.iter().position(|byte| *byte == first) {
        rest = &rest[place..];
        if rest.starts_with(part) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Draft, Json};
    use crate::id::UserNo;
    use crate::store::engine::Op;
    use crate::store::memory::Memory;
    use crate::store::record::{self, CHUNK_BYTES, Recipient};

    /// A store with one event for each text, from commit 1 on.
    fn rows_of(texts: &[String]) -> Rows {
        let rows = Rows::new(Box::new(Memory::default()));
        for (commit, text) in (1u64..).zip(texts) {
            let draft = Draft {
                id: format!("id-{commit}").parse().unwrap(),
                event_type: "a.b".parse().unwrap(),
                time_ms: 1,
                topic: None,
                actor: None,
                data: Json::of(&text.as_str().into()),
                exclude_conn: None,
            };
            let recipient = Recipient {
                user: UserNo(1),
                seq: commit,
            };
            let record = record::encode(&Event::of(&draft), &[recipient]);
            let chunks = (0u16..).zip(record.chunks(CHUNK_BYTES));
            let put =
                |(chunk, bytes): (u16, &[u8])| Op::Put(keys::record(commit, chunk), bytes.to_vec());
            rows.apply(chunks.map(put).collect()).unwrap();
        }
        rows
    }

    #[test]
    fn a_name_is_found_as_a_whole_string_and_in_every_long_record() {
        let texts = ["bob", "bobby", "x", "a bob b"].map(str::to_owned);
        let long = "y".repeat(CHUNK_BYTES * 2);
        let rows = rows_of(&[texts.to_vec(), vec![long]].concat());
        let step = naming(&rows, "bob", 0..u64::MAX).unwrap();
        assert_eq!((step.commits, step.next), (vec![1, 5], None));
        assert!(naming(&rows, "bob", 2..5).unwrap().commits.is_empty());
    }

    #[test]
    fn a_long_way_is_walked_in_steps() {
        let count = ROWS_MAX as u64 + 100;
        let texts: Vec<String> = (0..count)
            .map(|n| (if n % 1_000 == 0 { "bob" } else { "x" }).to_owned())
            .collect();
        let rows = rows_of(&texts);
        let first = naming(&rows, "bob", 0..u64::MAX).unwrap();
        assert_eq!(first.next, Some(ROWS_MAX as u64 + 1));
        let second = naming(&rows, "bob", first.next.unwrap()..u64::MAX).unwrap();
        assert_eq!(
            (first.commits.len() + second.commits.len(), second.next),
            (9, None)
        );
        let found = |commits| {
            with_id(&rows, "id-77", commits)
                .unwrap()
                .map(|event| event.commit)
        };
        assert_eq!((found(0..u64::MAX), found(78..u64::MAX)), (Some(77), None));
    }
}

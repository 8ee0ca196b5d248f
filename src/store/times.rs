//! When the commits of late were appended and synced, for who asks what became of one event.
//!
//! Promises: one entry for each group of commands, however many events it held; the oldest go when the bound is passed,
//! and of those nothing is told. It costs a commit one push.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use parking_lot::Mutex;

use crate::clock::UnixMs;

/// Groups remembered: 32 bytes each. At 1,000 syncs a second that is the last minute, for a quiet server days.
const GROUPS_MAX: usize = 65_536;

/// Written by the committer, read by traces.
#[derive(Default)]
pub struct Times(Mutex<VecDeque<Group>>);

struct Group {
    commits: RangeInclusive<u64>,
    written: Written,
}

/// When one event was handed to the engine, and when it was on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub appended_ms: UnixMs,
    pub synced_ms: UnixMs,
}

impl Times {
    pub fn note(&self, commits: RangeInclusive<u64>, appended_ms: UnixMs, synced_ms: UnixMs) {
        let written = Written {
            appended_ms,
            synced_ms,
        };
        let mut groups = self.0.lock();
        if groups.len() >= GROUPS_MAX {
            groups.pop_front();
        }
        groups.push_back(Group { commits, written });
    }

    /// `None` when the commit is older than what is remembered, or than this start.
    pub fn of(&self, commit: u64) -> Option<Written> {
        let groups = self.0.lock();
        let place = groups.partition_point(|group| *group.commits.end() < commit);
        let group = groups.get(place)?;
        group.commits.contains(&commit).then_some(group.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_found_in_its_group_until_the_bound_is_passed() {
        let times = Times::default();
        let last = GROUPS_MAX as u64 + 10;
        for group in 0..=last {
            times.note(group * 3..=group * 3 + 1, group, group + 1);
        }
        let synced = |commit: u64| times.of(commit).map(|written| written.synced_ms);
        assert_eq!((synced(0), synced(10 * 3)), (None, None));
        assert_eq!(synced(12 * 3 + 1), Some(13));
        assert_eq!(synced(12 * 3 + 2), None, "between two groups");
        assert_eq!(
            (synced(last * 3), synced(last * 3 + 2)),
            (Some(last + 1), None)
        );
    }
}

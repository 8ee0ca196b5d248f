//! The newest events in memory, once for all readers, bounded in bytes.
//!
//! Promises: an event is found by its commit number in constant time; the oldest go when the bound is passed. It
//! holds only what is on stable storage.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::event::Event;

/// Events looked at for an id while the ring is held.
const SEARCHED_AT_ONCE: usize = 2048;
/// What an event costs beside its JSON: the allocation, the pointer and the lengths.
const EVENT_OVERHEAD_BYTES: u64 = 160;

pub struct Ring {
    bytes_max: u64,
    events: RwLock<Events>,
}

#[derive(Default)]
struct Events {
    /// Commit number of the front; those behind it follow without a hole.
    first: u64,
    queue: VecDeque<Arc<Event>>,
    bytes: u64,
}

impl Ring {
    pub fn new(bytes_max: u64) -> Ring {
        Ring {
            bytes_max,
            events: RwLock::default(),
        }
    }

    pub fn push(&self, added: impl IntoIterator<Item = Arc<Event>>) {
        let mut events = self.events.write();
        for event in added {
            if event.commit != events.first + events.queue.len() as u64 {
                events.queue.clear();
                events.bytes = 0;
            }
            if events.queue.is_empty() {
                events.first = event.commit;
            }
            events.bytes += cost(&event);
            events.queue.push_back(event);
        }
        while events.bytes > self.bytes_max {
            let Some(oldest) = events.queue.pop_front() else {
                break;
            };
            events.bytes -= cost(&oldest);
            events.first += 1;
        }
    }

    /// Puts another body in the place of the event with its commit number, if that is here.
    pub fn replace(&self, event: Arc<Event>) {
        let mut events = self.events.write();
        let place = event.commit.checked_sub(events.first);
        let place = place.and_then(|place| usize::try_from(place).ok());
        let Some(place) = place.filter(|place| *place < events.queue.len()) else {
            return;
        };
        let added = cost(&event);
        let replaced = std::mem::replace(&mut events.queue[place], event);
        events.bytes = events.bytes + added - cost(&replaced);
    }

    /// The newest event with this id.
    pub fn find(&self, id: &str) -> Option<Arc<Event>> {
        let mut end = u64::MAX;
        loop {
            let events = self.events.read();
            let left = end.saturating_sub(events.first);
            let left = usize::try_from(left)
                .map_or(events.queue.len(), |left| left.min(events.queue.len()));
            let from = left.saturating_sub(SEARCHED_AT_ONCE);
            let found = events
                .queue
                .range(from..left)
                .rfind(|event| event.id() == id);
            if found.is_some() || from == 0 {
                return found.map(Arc::clone);
            }
            end = events.first + from as u64;
        }
    }

    /// Calls `take` with the event of each commit number, in order, until one is not here. Tells how many were.
    pub fn take_each(&self, commits: &[u64], mut take: impl FnMut(Arc<Event>)) -> usize {
        let events = self.events.read();
        for (index, commit) in commits.iter().enumerate() {
            let found = commit
                .checked_sub(events.first)
                .and_then(|place| events.queue.get(usize::try_from(place).ok()?));
            match found {
                Some(event) => take(Arc::clone(event)),
                None => return index,
            }
        }
        commits.len()
    }
}

fn cost(event: &Event) -> u64 {
    event.json().len() as u64 + EVENT_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Draft, Json};

    fn event(commit: u64) -> Arc<Event> {
        named(commit, "e")
    }

    fn named(commit: u64, id: &str) -> Arc<Event> {
        let draft = Draft {
            id: id.parse().unwrap(),
            event_type: "a".parse().unwrap(),
            time_ms: 1,
            topic: None,
            actor: None,
            data: Json::null(),
            exclude_conn: None,
        };
        let mut event = Event::of(&draft);
        event.commit = commit;
        Arc::new(event)
    }

    fn taken(ring: &Ring, commits: &[u64]) -> Vec<u64> {
        let mut taken = Vec::new();
        ring.take_each(commits, |event| taken.push(event.commit));
        taken
    }

    #[test]
    fn the_oldest_go_when_the_bound_is_passed() {
        let ring = Ring::new(cost(&event(1)) * 3);
        ring.push((5..=9).map(event));
        assert_eq!(taken(&ring, &[7, 8, 9]), [7, 8, 9]);
        assert_eq!(taken(&ring, &[6, 7]), [0u64; 0]);
        assert_eq!(taken(&ring, &[9, 10]), [9]);
        assert_eq!(taken(&ring, &[0]), [0u64; 0]);
    }

    #[test]
    fn a_body_is_replaced_where_it_is_and_found_by_its_id() {
        let ring = Ring::new(u64::MAX);
        ring.push((1..=5_000).map(event));
        for commit in [0, 3, 4_000, 5_001] {
            ring.replace(named(commit, "other"));
        }
        let found = |id: &str| ring.find(id).map(|event| event.commit);
        assert_eq!(
            (found("other"), found("e"), found("none")),
            (Some(4_000), Some(5_000), None)
        );
        assert_eq!(taken(&ring, &[3, 4_000, 5_000, 5_001]), [3, 4_000, 5_000]);
        let bytes: u64 = ring
            .events
            .read()
            .queue
            .iter()
            .map(|event| cost(event))
            .sum();
        assert_eq!(ring.events.read().bytes, bytes);
    }

    #[test]
    fn a_hole_between_commits_starts_the_ring_anew() {
        let ring = Ring::new(u64::MAX);
        ring.push([event(1), event(2), event(9)]);
        assert_eq!(taken(&ring, &[9]), [9]);
        assert_eq!(taken(&ring, &[2]), [0u64; 0]);
    }
}

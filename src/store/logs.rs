//! The heads of all logs in memory: who they belong to, where they begin and end, and where their newest events are.
//!
//! Promises: a head's tail moves only when the event is on stable storage; its floor only rises. The committer alone
//! changes heads; cursors read them. Older positions are in the index blocks, which `index` writes and reads.

use std::collections::HashMap;

use parking_lot::RwLock;
use smallvec::SmallVec;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock::UnixMs;
use crate::event::UserId;
use crate::id::{Epoch, UserNo};

/// Heads are spread over this many locks, so that a large fan-out and the readers seldom meet.
const SHARDS: usize = 64;
/// A full shard grows by this part of itself.
const GROWTH: usize = 8;

pub struct Logs {
    /// Random number of this life of the store; written at open and after damage.
    generation: AtomicU64,
    /// Events that a log keeps; 0 = no bound.
    retention_events: u64,
    names: RwLock<HashMap<UserId, UserNo>>,
    count: AtomicU32,
    shards: Vec<RwLock<Vec<Slot>>>,
}

/// A head, and the epoch of its life: a hash, which every look at the log needs. The order of the fields counts: what a
/// reader looks at stands together, so that a delivery waits for one or two cache lines of a slot, not for two or three.
#[repr(C)]
struct Slot {
    epoch: OnceLock<Epoch>,
    head: Head,
}

/// One log. Written by the committer, read by cursors. The fields are in the order that `Slot` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(C)]
pub struct Head {
    /// Newest committed seq.
    pub tail: u64,
    /// Oldest seq that readers may have; tail + 1 when there is none.
    pub floor: u64,
    /// Commit numbers of the seqs up to the tail that are not in index blocks yet.
    pub fresh: Fresh,
    /// Newest seq that was given; the committer's own, ahead of the tail while a group is being synced.
    pub assigned: u64,
    /// What the kept events count against the retention.
    pub bytes: u64,
    /// How often the log was created anew.
    pub life: u32,
    /// Its user was erased: the name is a placeholder that leads nowhere, and nothing is appended any more.
    pub is_erased: bool,
    /// Oldest seq whose body may still be stored; at most the floor.
    pub kept_from: u64,
    /// Not after the time of the oldest kept event; 0 = unknown.
    pub oldest_ms: UnixMs,
    pub name: UserId,
}

/// Commit numbers in the order of their seqs. A log without any, as nearly all are at a time, keeps a pointer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fresh(Option<Box<SmallVec<[u64; 4]>>>);

impl Fresh {
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |fresh| fresh.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn as_slice(&self) -> &[u64] {
        self.0.as_ref().map_or(&[], |fresh| fresh.as_slice())
    }

    pub fn iter(&self) -> impl Iterator<Item = &u64> {
        self.as_slice().iter()
    }

    pub fn get(&self, place: usize) -> Option<u64> {
        self.as_slice().get(place).copied()
    }

    pub fn first(&self) -> Option<u64> {
        self.get(0)
    }

    pub fn push(&mut self, commit: u64) {
        self.0.get_or_insert_default().push(commit);
    }

    /// Takes the first ones away.
    pub fn forget(&mut self, count: usize) {
        if let Some(fresh) = &mut self.0 {
            fresh.drain(..count);
        }
        if self.is_empty() {
            self.0 = None;
        }
    }
}

impl FromIterator<u64> for Fresh {
    fn from_iter<I: IntoIterator<Item = u64>>(commits: I) -> Fresh {
        let fresh: SmallVec<[u64; 4]> = commits.into_iter().collect();
        Fresh((!fresh.is_empty()).then(|| Box::new(fresh)))
    }
}

impl Head {
    pub fn new(name: UserId) -> Head {
        Head {
            name,
            life: 0,
            assigned: 0,
            tail: 0,
            floor: 1,
            kept_from: 1,
            bytes: 0,
            oldest_ms: 0,
            fresh: Fresh::default(),
            is_erased: false,
        }
    }

    /// The head without its fresh part, as a row may have it before the index is written.
    pub fn indexed_part(&self) -> Head {
        let tail = self.indexed();
        Head {
            tail,
            assigned: tail,
            floor: self.floor.min(tail + 1),
            fresh: Fresh::default(),
            ..self.clone()
        }
    }

    /// Takes the name away and hides everything. Nobody can be told of a user by what is left.
    pub fn erase(&mut self, user: UserNo) -> UserId {
        self.is_erased = true;
        self.life = self.life.wrapping_add(1);
        self.floor = self.tail + 1;
        let placeholder = format!("erased:{}", user.0);
        let placeholder = placeholder
            .parse()
            .expect("made of letters, a colon and digits");
        std::mem::replace(&mut self.name, placeholder)
    }

    /// The place of a log whose row is damaged.
    pub fn lost(user: UserNo) -> Head {
        let name = format!("lost:{}", user.0);
        Head::new(name.parse().expect("made of letters, a colon and digits"))
    }

    /// Seqs before `seq` are lost to damage: the log goes on there.
    pub fn skip_to(&mut self, seq: u64) {
        self.tail = seq - 1;
        self.assigned = seq - 1;
        self.floor = seq;
        self.kept_from = seq;
        self.fresh = Fresh::default();
    }

    /// Newest seq whose commit number is in an index block.
    pub fn indexed(&self) -> u64 {
        self.tail - self.fresh.len() as u64
    }

    fn place_after(&self, after: u64, count_max: usize, commits: &mut Commits) -> Place {
        if after >= self.tail {
            return Place::AtTail;
        }
        if after + 1 < self.floor {
            return Place::Gone { floor: self.floor };
        }
        let indexed = self.indexed();
        if after < indexed {
            return Place::Indexed { through: indexed };
        }
        let skip = usize::try_from(after - indexed).expect("the fresh part fits memory");
        let after = self.fresh.as_slice().get(skip..).unwrap_or_default();
        commits.extend_from_slice(&after[..count_max.min(after.len())]);
        Place::Known
    }
}

/// What a cursor needs to know of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    pub epoch: Epoch,
    pub tail: u64,
    pub floor: u64,
}

/// Commit numbers in the order of their seqs, for one read.
pub type Commits = SmallVec<[u64; 32]>;

/// Where the events after a seq are to be found.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// There are none.
    AtTail,
    /// Some of them are gone; the oldest left is `floor`.
    Gone { floor: u64 },
    /// Their commit numbers are known, the first ones at least.
    Known,
    /// In the index blocks, up to and including this seq.
    Indexed { through: u64 },
}

impl Logs {
    pub fn new(generation: u64, retention_events: u64) -> Logs {
        Logs {
            generation: AtomicU64::new(generation),
            retention_events,
            names: RwLock::default(),
            count: AtomicU32::new(0),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
        }
    }

    pub fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
        for shard in &self.shards {
            for slot in shard.write().iter_mut() {
                slot.epoch.take();
            }
        }
    }

    pub fn find(&self, name: &UserId) -> Option<UserNo> {
        self.names.read().get(name).copied()
    }

    /// Number of logs; user numbers run from 0 to one less.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Takes the next log in; `user` is the number that follows the last one.
    pub fn add(&self, user: UserNo, mut head: Head) {
        assert_eq!(user.0, self.count(), "user numbers are dense");
        match head.is_erased {
            true => head.floor = head.tail + 1,
            false => drop(self.names.write().insert(head.name.clone(), user)),
        }
        let epoch = OnceLock::new();
        let mut slots = self.shards[shard(user)].write();
        if slots.len() == slots.capacity() {
            // Doubling would leave a third of the memory of all heads unused.
            let more = slots.len() / GROWTH + 1;
            slots.reserve_exact(more);
        }
        slots.push(Slot { head, epoch });
        drop(slots);
        self.count.store(user.0 + 1, Ordering::Release);
    }

    pub fn view(&self, user: UserNo) -> View {
        self.view_of(user, &self.shards[shard(user)].read()[slot(user)])
    }

    fn view_of(&self, user: UserNo, Slot { head, epoch }: &Slot) -> View {
        let generation = || self.generation.load(Ordering::Relaxed);
        View {
            epoch: *epoch.get_or_init(|| Epoch::of(generation(), user, head.life)),
            tail: head.tail,
            floor: head.floor,
        }
    }

    pub fn name(&self, user: UserNo) -> UserId {
        self.read(user, |head| head.name.clone())
    }

    pub fn read<T>(&self, user: UserNo, look: impl FnOnce(&Head) -> T) -> T {
        look(&self.shards[shard(user)].read()[slot(user)].head)
    }

    /// For the committer and for opening only.
    pub fn change<T>(&self, user: UserNo, change: impl FnOnce(&mut Head) -> T) -> T {
        let mut slots = self.shards[shard(user)].write();
        let Slot { head, epoch } = &mut slots[slot(user)];
        let life = head.life;
        let changed = change(head);
        if head.life != life {
            epoch.take();
        }
        changed
    }

    /// The user is erased: its name leads nowhere, its log shows nothing, and what it kept is trimmed in its turn.
    pub fn forget(&self, user: UserNo) {
        let name = self.change(user, |head| head.erase(user));
        let mut names = self.names.write();
        // Erased once more, it has a placeholder, which may be the name of someone else.
        if names.get(&name) == Some(&user) {
            names.remove(&name);
        }
    }

    /// An event reached stable storage: it is in the log from now on. Gives what `then` makes of the head.
    pub fn arrive<T>(
        &self,
        (user, seq): (UserNo, u64),
        (commit, bytes): (u64, u64),
        then: impl FnOnce(&mut Head) -> T,
    ) -> T {
        self.change(user, |head| {
            assert_eq!(seq, head.tail + 1, "the seqs of a log are dense");
            head.tail = seq;
            head.assigned = head.assigned.max(seq);
            head.bytes += bytes;
            head.fresh.push(commit);
            self.raise_floor(head);
            then(head)
        })
    }

    /// What retention by count hides is gone for readers at once; its bytes go later.
    pub fn raise_floor(&self, head: &mut Head) {
        if head.is_erased {
            head.floor = head.tail + 1;
        }
        if self.retention_events > 0 {
            let oldest = (head.tail + 1).saturating_sub(self.retention_events);
            head.floor = head.floor.max(oldest);
        }
    }

    /// Where the events after `after` are, and how the log stands at that moment. Where they are known, `commits` gets the
    /// first of them, at most `count_max`.
    pub fn place_after(
        &self,
        user: UserNo,
        after: u64,
        count_max: usize,
        commits: &mut Commits,
    ) -> (View, Place) {
        let slots = self.shards[shard(user)].read();
        let slot = &slots[slot(user)];
        (
            self.view_of(user, slot),
            slot.head.place_after(after, count_max, commits),
        )
    }
}

fn shard(user: UserNo) -> usize {
    user.0 as usize % SHARDS
}

fn slot(user: UserNo) -> usize {
    user.0 as usize / SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(retention_events: u64) -> Logs {
        let logs = Logs::new(7, retention_events);
        logs.add(UserNo(0), Head::new("alice".parse().unwrap()));
        logs
    }

    #[test]
    fn a_place_is_at_the_tail_known_indexed_or_gone() {
        let logs = logs(0);
        let place = |after, count_max| {
            let mut commits = Commits::new();
            let (view, place) = logs.place_after(UserNo(0), after, count_max, &mut commits);
            assert_eq!(view, logs.view(UserNo(0)));
            (place, commits.to_vec())
        };
        assert_eq!(place(0, 10), (Place::AtTail, vec![]));
        for seq in 1..=5 {
            logs.arrive((UserNo(0), seq), (100 + seq, 10), |_| ());
        }
        assert_eq!(place(2, 2), (Place::Known, vec![103, 104]));
        assert_eq!(place(5, 2), (Place::AtTail, vec![]));
        logs.change(UserNo(0), |head| head.fresh.forget(3));
        assert_eq!(place(2, 2), (Place::Indexed { through: 3 }, vec![]));
        logs.change(UserNo(0), |head| head.floor = 4);
        assert_eq!(place(2, 2), (Place::Gone { floor: 4 }, vec![]));
        assert_eq!(place(3, 2), (Place::Known, vec![104, 105]));
    }

    #[test]
    fn the_epoch_follows_the_life_and_the_generation() {
        let logs = logs(0);
        let epoch = |logs: &Logs| logs.view(UserNo(0)).epoch;
        let first = epoch(&logs);
        logs.change(UserNo(0), |head| head.tail += 1);
        assert_eq!((epoch(&logs), first), (first, Epoch::of(7, UserNo(0), 0)));
        logs.change(UserNo(0), |head| head.life += 1);
        assert_eq!(epoch(&logs), Epoch::of(7, UserNo(0), 1));
        logs.set_generation(8);
        assert_eq!(epoch(&logs), Epoch::of(8, UserNo(0), 1));
    }

    #[test]
    fn retention_by_count_hides_the_oldest_at_once() {
        let logs = logs(3);
        for seq in 1..=5 {
            logs.arrive((UserNo(0), seq), (seq, 10), |_| ());
        }
        assert_eq!(logs.view(UserNo(0)).floor, 3);
        assert_eq!(
            logs.read(UserNo(0), |head| (head.kept_from, head.bytes)),
            (1, 50)
        );
    }
}

//! Unread counts against a list that remembers everything: who sent what, who read how far, what retention took.
//!
//! Promises: after every step of a random course the counts are those that counting would give, for every member; also
//! when members leave and come again.

use fastrand::Rng;
use tidings::event::{ConversationId, EventId};
use tidings::features::badge::Badges;
use tidings::features::conversation::asker::Asker;
use tidings::features::conversation::{self, Creation};
use tidings::features::message::{self, Sending, Wanted};
use tidings::features::receipts::{Receipts, Target};
use tidings::features::retention;
use tidings::token::Scopes;

use super::*;

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// A step takes a second of the clock.
const STEP_MS: u64 = 1_000;
const KEEP: Duration = Duration::from_secs(25);

/// Everything that happened, in a form in which counting is simple.
#[derive(Default)]
struct Naive {
    /// Sender, time and id of each message; the first has number 1.
    sent: Vec<(usize, u64, EventId)>,
    floor: u64,
    /// For each user that is in the conversation, the number up to which it has read.
    read: [Option<u64>; USERS.len()],
}

impl Naive {
    fn unread(&self, user: usize) -> u64 {
        let Some(read) = self.read[user] else {
            return 0;
        };
        let numbered = (1..).zip(&self.sent);
        let counts = |(n, (sender, ..)): &(u64, &(usize, u64, EventId))| {
            *n >= self.floor && *n > read && *sender != user
        };
        numbered.filter(counts).count() as u64
    }

    fn head(&self) -> u64 {
        self.sent.len() as u64
    }

    fn sweep(&mut self, now_ms: u64) {
        let keep_ms = KEEP.as_millis() as u64;
        let old = |(_, time_ms, _): &&(usize, u64, EventId)| time_ms + keep_ms < now_ms;
        self.floor = self.sent.iter().take_while(old).count() as u64 + 1;
    }
}

fn asker(name: &str) -> Asker {
    Asker {
        user: name.parse().unwrap(),
        scope: Scopes::default(),
    }
}

struct Course {
    bench: Bench,
    random: Random,
    receipts: Receipts,
    id: ConversationId,
    naive: Naive,
    rng: Rng,
}

impl Course {
    async fn begin(seed: u64) -> Course {
        let bench = Bench::new(KEEP_ALL);
        let random = Random::seeded(seed);
        let id: ConversationId = "one".parse().unwrap();
        let creation = Creation {
            id: id.clone(),
            members: USERS.iter().map(|name| name.parse().unwrap()).collect(),
            name: Some("Tea".parse().unwrap()),
            keys: Vec::new(),
        };
        let made = conversation::create(&bench.store, &random, asker(USERS[0]), creation).await;
        assert!(made.is_ok_and(|(_, is_new)| is_new));
        Course {
            bench,
            random,
            receipts: Receipts::default(),
            id,
            naive: Naive {
                floor: 1,
                read: [Some(0); USERS.len()],
                ..Naive::default()
            },
            rng: Rng::with_seed(seed),
        }
    }

    async fn step(&mut self) {
        self.bench.clock.advance_ms(STEP_MS);
        let user = self.rng.usize(0..USERS.len());
        let is_in = self.naive.read[user].is_some();
        match self.rng.u8(0..20) {
            0..=8 if is_in => self.send(user).await,
            9..=13 if is_in => self.read(user).await,
            14..=15 if is_in => self.delete(user).await,
            16..=17 => {
                let badges = Badges::default();
                let swept = retention::sweep(&self.bench.store, &badges, Some(KEEP)).await;
                swept.unwrap();
                self.naive.sweep(self.bench.clock.now_ms());
            }
            18 if user != 0 && is_in => self.leave(user).await,
            19 if user != 0 && !is_in => self.join(user).await,
            _ => {}
        }
    }

    async fn send(&mut self, user: usize) {
        let id: EventId = format!("m-{}", self.naive.sent.len()).parse().unwrap();
        let sending = Sending {
            id: id.clone(),
            conversation: self.id.clone(),
            content: "x".parse().unwrap(),
            client_id: None,
            data: None,
            key: None,
            bytes_max: 65_536,
        };
        let (store, random) = (&self.bench.store, &self.random);
        let sent = message::send(store, random, asker(USERS[user]), sending).await;
        assert!(sent.is_ok_and(|sent| !sent.is_duplicate));
        let time_ms = self.bench.clock.now_ms();
        self.naive.sent.push((user, time_ms, id));
    }

    async fn read(&mut self, user: usize) {
        let upto = self.rng.u64(0..=self.naive.head());
        let index = usize::try_from(upto).unwrap();
        let is_kept = upto >= self.naive.floor;
        let target = match self.rng.bool() && is_kept && upto > 0 {
            true => Target::Messages(vec![self.naive.sent[index - 1].2.clone()]),
            false => Target::Upto(upto),
        };
        let (store, random) = (&self.bench.store, &self.random);
        let asker = asker(USERS[user]);
        let reading = self
            .receipts
            .read(store, random, asker, self.id.clone(), target)
            .await
            .unwrap();
        let read = self.naive.read[user].unwrap().max(upto);
        self.naive.read[user] = Some(read);
        assert_eq!(
            (reading.upto, reading.unread),
            (read, self.naive.unread(user))
        );
    }

    /// A tombstone counts as what it was.
    async fn delete(&mut self, user: usize) {
        let floor = self.naive.floor;
        let own = (1..)
            .zip(&self.naive.sent)
            .filter(|(n, (sender, ..))| *n >= floor && *sender == user);
        let Some((_, (_, _, id))) = own.last() else {
            return;
        };
        let (store, random) = (&self.bench.store, &self.random);
        let asker = asker(USERS[user]);
        let deleted = message::delete(store, random, asker, self.id.clone(), id.clone()).await;
        assert_eq!(deleted, Ok(()));
    }

    async fn leave(&mut self, user: usize) {
        let (store, random) = (&self.bench.store, &self.random);
        let name = USERS[user];
        let id = self.id.clone();
        let left = conversation::leave(store, random, asker(name), id, name.parse().unwrap()).await;
        assert_eq!(left, Ok(true));
        self.naive.read[user] = None;
    }

    async fn join(&mut self, user: usize) {
        let (store, random) = (&self.bench.store, &self.random);
        let name = USERS[user].parse().unwrap();
        let id = self.id.clone();
        let joined = conversation::join(store, random, asker(USERS[0]), id, name, 100).await;
        assert_eq!(joined, Ok(()));
        self.naive.read[user] = Some(self.naive.head());
    }

    async fn check(&self, what: &str) {
        for (index, name) in USERS.iter().enumerate() {
            let user = self.bench.user(name);
            let counted = self
                .bench
                .store
                .look(move |transaction| conversation::unread(transaction, user))
                .await
                .unwrap();
            let expected = self.naive.unread(index);
            assert_eq!(counted.messages, expected, "{name} {what}");
            assert_eq!(
                counted.conversations,
                u64::from(expected > 0),
                "{name} {what}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unread_counts_are_what_counting_would_give() {
    let mut greatest = 0;
    for seed in 0..25 {
        let mut course = Course::begin(seed).await;
        for step in 0..120 {
            course.step().await;
            course
                .check(&format!("in step {step} of seed {seed}"))
                .await;
            greatest = greatest.max(course.naive.unread(0));
        }
        let floor = course.naive.floor;
        assert!(floor > 1, "retention took nothing with seed {seed}");
    }
    assert!(greatest > 5, "hardly anything was ever unread");
}

/// Nothing that points to a message outlives it.
#[tokio::test(start_paused = true)]
async fn what_retention_takes_leaves_no_row_behind() {
    let mut course = Course::begin(7).await;
    for _ in 0..130 {
        course.bench.clock.advance_ms(1);
        course.send(1).await;
    }
    let rows = |course: &Course, kind: u8| {
        let (from, to) = keys::states(kind);
        let mut count = 0;
        let scanned = course.bench.disk.scan(&from, &to, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        scanned.unwrap();
        count
    };
    assert_eq!([b'b', b'B', b'o'].map(|kind| rows(&course, kind)), [130; 3]);
    course.bench.clock.advance_ms(60_000);
    let badges = Badges::default();
    let swept = retention::sweep(&course.bench.store, &badges, Some(KEEP)).await;
    swept.unwrap();
    assert_eq!([b'b', b'B', b'o'].map(|kind| rows(&course, kind)), [0; 3]);
    course.send(2).await;
    let wanted = Wanted {
        before: None,
        after: None,
        limit: 10,
    };
    let (store, id) = (&course.bench.store, course.id.clone());
    let page = message::history(store, asker("bob"), id, wanted).await;
    let page: serde_json::Value = serde_json::from_str(&page.unwrap()).unwrap();
    assert_eq!((&page["floor"], &page["head"]), (&131.into(), &131.into()));
    // When all have left, nothing at all is left.
    for user in [1, 2, 3] {
        course.leave(user).await;
    }
    let (store, random) = (&course.bench.store, &course.random);
    let last = asker(USERS[0]);
    let left = conversation::leave(store, random, last.clone(), course.id.clone(), last.user).await;
    assert_eq!(left, Ok(true));
    assert_eq!(
        [b'c', b'C', b'm', b'u'].map(|kind| rows(&course, kind)),
        [0, 1, 0, 0]
    );
    let swept = retention::sweep(&course.bench.store, &badges, None).await;
    swept.unwrap();
    assert_eq!(
        [b'b', b'B', b'o', b'C'].map(|kind| rows(&course, kind)),
        [0; 4]
    );
}

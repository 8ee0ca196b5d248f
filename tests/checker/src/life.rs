//! A life: users, the readers who follow them and the publishers who write to them, around one or more faults.
//!
//! Readers live as long as the life and resume over every fault; publishers come in storms. After a fault the life
//! settles: publishers get their last answers, the logs are read, every reader must reach the head. Then it is judged.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::history::{CommittedLog, Invariant, Op, Origin, Position, Recorder};
use crate::http::{self, Target};
use crate::invariants::{self, Violation};
use crate::publisher::{self, Publisher};
use crate::reader::{Progress, Reader, TRANSPORTS};
use crate::stream::HEALED_US_MAX;
use crate::truth;

/// How many of everything.
#[derive(Clone, Copy)]
pub struct Shape {
    pub users: usize,
    pub publishers: usize,
    pub readers: usize,
    pub pad_bytes: usize,
}

pub struct Life {
    pub name: String,
    pub recorder: Recorder,
    pub users: Vec<String>,
    target: Target,
    shape: Shape,
    rng: Rng,
    stop_readers: watch::Sender<bool>,
    readers: Vec<Following>,
    storms: usize,
}

struct Following {
    user: String,
    progress: Progress,
    task: JoinHandle<()>,
}

/// Publishers at work.
pub struct Storm {
    stop: watch::Sender<bool>,
    publishers: Vec<JoinHandle<()>>,
}

impl Life {
    pub fn begin(name: &str, target: &Target, shape: Shape, rng: &mut Rng) -> Result<Life> {
        let users: Vec<String> = (0..shape.users)
            .map(|number| format!("{name}-user-{number}"))
            .collect();
        let mut life = Life {
            name: name.to_owned(),
            recorder: Recorder::new(),
            users,
            target: target.clone(),
            shape,
            rng: rng.fork(),
            stop_readers: watch::Sender::new(false),
            readers: Vec::new(),
            storms: 0,
        };
        for number in 0..shape.readers {
            life.follow(number)?;
        }
        Ok(life)
    }

    fn follow(&mut self, number: usize) -> Result<()> {
        let user = self.users[number % self.users.len()].clone();
        let progress = Progress::default();
        let reader = Reader {
            name: format!("{}-reader-{number}", self.name),
            token: http::token(&user, None)?,
            user: user.clone(),
            target: self.target.clone(),
            recorder: self.recorder.clone(),
            transports: TRANSPORTS.to_vec(),
            origin: Origin::Start,
            on_gap_earliest: self.rng.bool(),
            lifetime_max: Duration::from_millis(3_000),
            stall: None,
            progress: progress.clone(),
            rng: self.rng.fork(),
        };
        let task = tokio::spawn(reader.run(self.stop_readers.subscribe()));
        self.readers.push(Following {
            user,
            progress,
            task,
        });
        Ok(())
    }

    pub fn storm(&mut self) -> Result<Storm> {
        self.storms += 1;
        let stop = watch::Sender::new(false);
        let mut publishers = Vec::new();
        for number in 0..self.shape.publishers {
            let publisher = Publisher {
                name: format!("{}-{}-publisher-{number}", self.name, self.storms),
                users: self.users.clone(),
                target: self.target.clone(),
                recorder: self.recorder.clone(),
                token: publisher::token()?,
                rng: self.rng.fork(),
                pad_bytes: self.shape.pad_bytes,
            };
            publishers.push(tokio::spawn(publisher.run(stop.subscribe())));
        }
        Ok(Storm { stop, publishers })
    }

    /// Reads every log and gives the readers the time that they were promised to reach its head.
    pub async fn settle(&self) -> Result<Vec<CommittedLog>> {
        let healed_at_us = self.recorder.now_us();
        let mut logs = Vec::new();
        for user in &self.users {
            let log = truth::read_log(&self.target, user).await?;
            self.recorder.record("truth", Op::Log(log.clone()));
            let healed = Op::Healed {
                user: user.clone(),
                head: log.head.clone(),
            };
            self.recorder.record_at(healed_at_us, "nemesis", healed);
            logs.push(log);
        }
        let deadline = Instant::now() + Duration::from_micros(HEALED_US_MAX);
        let heads = |user: &str| {
            logs.iter()
                .find(|log| log.user == user)
                .map(|log| &log.head)
        };
        let is_at_head = |following: &Following, head: &Position| {
            head.seq == 0 || following.progress.is_at(head)
        };
        while Instant::now() < deadline {
            let mut readers = self.readers.iter();
            if readers.all(|following| {
                heads(&following.user).is_some_and(|head| is_at_head(following, head))
            }) {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(logs)
    }

    pub fn judge(&self) -> Vec<Violation> {
        self.recorder.with_entries(invariants::check)
    }

    /// Sends the readers home.
    pub async fn end(self) -> Recorder {
        self.stop_readers.send_replace(true);
        for following in self.readers {
            // A reader that panicked has said so on stderr; what it owed shows in the history.
            following.task.await.ok();
        }
        self.recorder
    }
}

impl Storm {
    /// Lets the publishers finish what they asked for.
    pub async fn calm(self) {
        self.stop.send_replace(true);
        for publisher in self.publishers {
            publisher.await.ok();
        }
    }
}

/// What a log was when its life ended, small enough to be kept for the whole run.
pub struct Remembered {
    user: String,
    head: Position,
    digest: u64,
}

impl Remembered {
    pub fn of(log: &CommittedLog) -> Remembered {
        let mut hasher = DefaultHasher::new();
        log.events.hash(&mut hasher);
        Remembered {
            user: log.user.clone(),
            head: log.head.clone(),
            digest: hasher.finish(),
        }
    }

    /// Reads the log again: nothing published since, so it must be what it was.
    pub async fn compare(&self, target: &Target) -> Result<Option<Violation>> {
        let now = Remembered::of(&truth::read_log(target, &self.user).await?);
        if now.head == self.head && now.digest == self.digest {
            return Ok(None);
        }
        let what = format!(
            "the log of {} was {} and is {}, or its events differ",
            self.user, self.head, now.head
        );
        Ok(Some(Violation::new(Invariant::Immutable, what)))
    }
}

//! The one server of the simulation and its lives: opened, crashed, opened again on the same disk.
//!
//! Promises: at most one life at a time; who belongs to an earlier one is told before it can look again. All time is
//! virtual, all chance comes from the seed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use tidings::clock::Clock;
use tidings::event::{Topic, UserId};
use tidings::id::Random;
use tidings::store::{Settings, Store, Surroundings, open_on};
use tidings::wake::Wakes;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::disk::Disk;
use super::oracle::Oracle;
use super::plan::{HOUR_MS, Plan};

/// 2026-11-21 22:30 UTC: midnight is near, and with it the day under which keys are remembered.
const START_MS: u64 = 1_795_300_200_000;

/// One opening of the store.
#[derive(Clone)]
pub struct Life {
    pub number: u32,
    pub store: Store,
    pub wakes: Wakes,
}

pub struct World {
    pub plan: Plan,
    pub disk: Disk,
    pub oracle: RefCell<Oracle>,
    /// Written by the nemesis, heard by everyone.
    life: RefCell<Option<Life>>,
    /// Rises with every life; written by the nemesis.
    number: Cell<u32>,
    /// Wakes whoever waits for a life or its end, in their order: a `watch` wakes in a random one.
    turned: Notify,
    committer: RefCell<Option<JoinHandle<()>>>,
    clock: RefCell<Clock>,
    random: Random,
    started: Instant,
    /// Publishers are done and no fault comes any more.
    pub is_healed: Cell<bool>,
}

impl World {
    pub fn new(plan: Plan) -> Rc<World> {
        let random = Random::seeded(plan.seed);
        Rc::new(World {
            oracle: RefCell::new(Oracle::new(&plan, START_MS)),
            plan,
            disk: Disk::default(),
            life: RefCell::new(None),
            number: Cell::new(0),
            turned: Notify::new(),
            committer: RefCell::new(None),
            clock: RefCell::new(Clock::manual(START_MS)),
            random,
            started: Instant::now(),
            is_healed: Cell::new(false),
        })
    }

    pub fn user(&self, number: usize) -> UserId {
        format!("u{number}").parse().expect("a letter and digits")
    }

    pub fn topic(&self, number: usize) -> Topic {
        format!("t{number}").parse().expect("a letter and digits")
    }

    pub fn note(&self, line: impl std::fmt::Display) {
        let at = self.started.elapsed().as_millis();
        self.oracle.borrow_mut().note(format!("{at:>6} {line}"));
    }

    pub fn violation(&self, what: impl std::fmt::Display) {
        self.note(format_args!("VIOLATION {what}"));
        self.oracle.borrow_mut().violation(what.to_string());
    }

    pub fn now_ms(&self) -> u64 {
        self.clock.borrow().now_ms()
    }

    pub fn advance_ms(&self, by_ms: u64) {
        self.clock.borrow().advance_ms(by_ms);
        self.oracle.borrow_mut().clock(self.now_ms());
    }

    /// The present life, as soon as there is one.
    pub async fn life(&self) -> Life {
        loop {
            let turned = self.turned.notified();
            if let Some(life) = self.present() {
                return life;
            }
            turned.await;
        }
    }

    pub fn present(&self) -> Option<Life> {
        self.life.borrow().clone()
    }

    /// Resolves when the life with this number has ended.
    pub async fn ended(&self, number: u32) {
        loop {
            let turned = self.turned.notified();
            if self.present().is_none_or(|life| life.number != number) {
                return;
            }
            turned.await;
        }
    }

    fn turn(&self, life: Option<Life>) {
        drop(self.life.replace(life));
        self.turned.notify_waiters();
    }

    /// Opens the store; a power cut on the way is followed by another try.
    pub async fn open(&self, rng: &mut Rng) {
        loop {
            let is_disturbed = !self.is_healed.get() && rng.u8(0..8) == 0;
            if is_disturbed {
                self.disk.cut_after(rng.u32(0..6), rng.bool());
            }
            let wakes = Wakes::default();
            let surroundings = Surroundings {
                clock: self.clock.borrow().clone(),
                random: self.random.clone(),
                wakes: wakes.clone(),
                metrics: Default::default(),
            };
            let opened = open_on(Box::new(self.disk.clone()), &self.settings(), &surroundings);
            match opened {
                Ok((store, committer)) => {
                    self.note(format_args!("open with {} logs", store.logs()));
                    *self.committer.borrow_mut() = Some(tokio::task::spawn_local(committer.run()));
                    self.number.set(self.number.get() + 1);
                    let number = self.number.get();
                    self.turn(Some(Life {
                        number,
                        store,
                        wakes,
                    }));
                    return;
                }
                Err(_) if self.disk.is_cut() => {
                    let (kept, pending) = self.disk.power_up(rng);
                    self.note(format_args!("cut while opening, {kept} of {pending} kept"));
                }
                Err(error) => {
                    self.violation(format_args!("the store does not open: {error}"));
                    return std::future::pending().await;
                }
            }
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            directory: Default::default(),
            retention: self.plan.retention,
            ring_bytes: self.plan.ring_bytes,
            cache_bytes: 0,
            free_bytes_min: 0,
            ballast_bytes: 0,
        }
    }

    /// The process is gone from one moment to the next, and with it what the disk did not keep.
    pub async fn crash(&self, rng: &mut Rng) {
        self.turn(None);
        let committer = self.committer.take().expect("a life has a committer");
        committer.abort();
        self.judge_end(committer.await);
        let (kept, pending) = self.disk.power_up(rng);
        self.note(format_args!("crash, {kept} of {pending} kept"));
        self.step_back(rng);
    }

    /// The server ends by itself: everything asked for is committed first.
    pub async fn close(&self, rng: &mut Rng) {
        self.turn(None);
        let committer = self.committer.take().expect("a life has a committer");
        match timeout(Duration::from_secs(30), committer).await {
            Ok(ended) => self.judge_end(ended),
            Err(_) => self.violation("the committer did not end though all handles are gone"),
        }
        self.note("closed");
        let (kept, pending) = self.disk.power_up(rng);
        self.note(format_args!(
            "power cut after closing, {kept} of {pending} kept"
        ));
        self.step_back(rng);
    }

    fn judge_end(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            let panic = error.into_panic();
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            self.violation(format_args!("the committer panicked: {text:?}"));
        }
    }

    /// Between two lives the system's clock may have been set back.
    fn step_back(&self, rng: &mut Rng) {
        if self.plan.does_step_back && rng.bool() {
            let earlier = self.now_ms() - rng.u64(0..2 * HOUR_MS);
            self.note("the clock is earlier");
            *self.clock.borrow_mut() = Clock::manual(earlier);
        }
    }
}

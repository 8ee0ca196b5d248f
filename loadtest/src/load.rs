//! One server under one load: readers and publishers on one thread, driven by a plan, measured from begin to end.
//!
//! Promises: it ends by itself: when nothing moves for a while, what has not come is missing; a connection that
//! the server ends is a fault unless the scenario said so. It decides nothing about targets.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::context::Context;
use crate::links::{Inbox, Links, Owner};
use crate::outcome::{Latency, Outcome};
use crate::pace::{Awaited, Plan};
use crate::peer::{self, FRAME_BYTES, Form, Needs, Peer, Reach};
use crate::process;
use crate::progress::Progress;
use crate::publishers::{Job, Publishers};
use crate::readers::{Fate, Readers};
use crate::verify::{Ledger, Rules};

/// Connections that have not been answered yet, at most.
const OPENING_MAX: usize = 256;
/// Well below the shortest time after which a server closes a connection on which nothing is asked.
const REST_TIME_MAX: Duration = Duration::from_secs(4);
const TURN_TIME_MAX: Duration = Duration::from_millis(50);
const READ_BYTES: usize = 256 * 1024;

pub struct Load<'c> {
    pub context: &'c Context,
    pub peer: Box<dyn Peer>,
    pub needs: Needs,
    pub readers: Readers,
    pub publishers: Publishers,
    links: Links,
    buffer: Vec<u8>,
    happened: Vec<u64>,
    progress: Progress,
}

/// Who reads what, in which form.
pub struct Crowd {
    pub form: Form,
    pub tracks: u32,
    pub tracks_of_readers: Vec<u32>,
    pub has_unmarked: bool,
}

impl Crowd {
    /// Each reader is a user; there is one track for all, or one for each.
    pub fn of(form: Form, reach: Reach, readers: usize) -> Crowd {
        let count = readers as u32;
        let (tracks, tracks_of_readers) = match reach {
            Reach::Topic => (1, vec![0; readers]),
            Reach::Users | Reach::Conversations => (count, (0..count).collect()),
        };
        Crowd {
            form,
            tracks,
            tracks_of_readers,
            has_unmarked: false,
        }
    }
}

/// Counters at the beginning of what is measured.
pub struct Measured {
    cpu_seconds: Option<f64>,
    fresh: u64,
    acked: u64,
    began: Instant,
}

impl<'c> Load<'c> {
    pub fn start(
        context: &'c Context,
        name: &str,
        directory: &Path,
        needs: Needs,
        crowd: Crowd,
    ) -> Result<Load<'c>> {
        let peer = peer::start(name, context, &needs, directory)?;
        let rules = Rules {
            run: needs.run,
            text_bytes: FRAME_BYTES - peer.envelope_bytes(&needs),
            is_dense: peer.is_dense(),
            is_log: needs.reach == Reach::Users,
            has_unmarked: crowd.has_unmarked,
        };
        let ledger = Ledger::new(rules, crowd.tracks, &crowd.tracks_of_readers);
        let mut readers = Readers::new(&crowd.tracks_of_readers, crowd.form, ledger)?;
        readers.counts_kinds = crowd.has_unmarked;
        Ok(Load {
            context,
            peer,
            needs,
            readers,
            publishers: Publishers::new()?,
            links: Links::new(context.cores.is_some())?,
            buffer: vec![0; READ_BYTES],
            happened: Vec::new(),
            progress: Progress::new(context.is_quiet, name),
        })
    }

    pub fn say(&mut self, what: &str) {
        self.progress.say(what);
    }

    /// Opens every reader that is not open, some at a time, until all are live.
    pub fn open_readers(&mut self) -> Result<()> {
        let all = self.readers.list.len();
        self.open_readers_up_to(all)
    }

    pub fn open_readers_up_to(&mut self, wanted: usize) -> Result<()> {
        let mut next = 0;
        let mut opened = self
            .readers
            .list
            .iter()
            .filter(|reader| reader.slot.is_some())
            .count();
        let mut moved = Instant::now();
        while self.readers.live < wanted {
            while next < wanted && opened - self.readers.live.min(opened) < OPENING_MAX {
                if self.readers.list[next].slot.is_none() {
                    self.open_reader(next as u32)?;
                    opened += 1;
                }
                next += 1;
            }
            let before = self.readers.live;
            self.turn(TURN_TIME_MAX)?;
            self.progress.at(self.readers.live as u64, wanted as u64);
            if self.readers.live > before {
                moved = Instant::now();
            }
            ensure!(
                moved.elapsed() < self.context.stall_time_max(),
                "{} of {wanted} readers are live, and no more come",
                self.readers.live
            );
        }
        Ok(())
    }

    pub fn open_reader(&mut self, index: u32) -> Result<()> {
        let request = self.readers.request(&*self.peer, &self.needs, index);
        let inbox = self.readers.inbox();
        let slot = self
            .links
            .open(self.peer.address(), Owner::Reader(index), inbox, request)?;
        self.readers.list[index as usize].slot = Some(slot);
        if self.readers.form == Form::Poll {
            // Nobody says that a poll waits; its cursor makes that unimportant.
            self.readers.set_live(index);
        }
        Ok(())
    }

    /// Has `count` publishers, those that are free connected.
    pub fn open_publishers(&mut self, count: usize) -> Result<()> {
        while self.publishers.list.len() < count {
            self.publishers.add();
        }
        for index in self.publishers.idle.clone() {
            if self.publishers.list[index as usize].slot.is_none() {
                self.connect_publisher(index)?;
            }
        }
        Ok(())
    }

    fn connect_publisher(&mut self, index: u32) -> Result<()> {
        let (to, owner) = (self.peer.address(), Owner::Publisher(index));
        let slot = self.links.open(to, owner, Inbox::whole(), Vec::new())?;
        self.publishers.set_open(index, slot);
        Ok(())
    }

    /// A connection that rested may be closed by its server at this very moment: it is replaced before it is used.
    fn freshen(&mut self, index: u32) -> Result<()> {
        let publisher = &self.publishers.list[index as usize];
        if publisher.slot.is_some() && publisher.rested() < REST_TIME_MAX {
            return Ok(());
        }
        if let Some(slot) = publisher.slot {
            self.links.close(slot);
        }
        self.connect_publisher(index)
    }

    /// Closes all readers, as when a network goes away.
    pub fn drop_readers(&mut self) {
        for index in 0..self.readers.list.len() {
            if let Some(slot) = self.readers.list[index].slot {
                self.links.close(slot);
                self.readers.set_closed(index as u32);
            }
        }
    }

    /// Closes all publishers; what they had not been answered is in doubt.
    pub fn drop_publishers(&mut self) {
        for index in 0..self.publishers.list.len() as u32 {
            if let Some(slot) = self.publishers.list[index as usize].slot {
                self.links.close(slot);
            }
            if self.publishers.set_closed(index) {
                self.publishers.idle.push_back(index);
            }
        }
    }

    /// Requests without events, all answered when this returns.
    pub fn ask_all(&mut self, requests: Vec<Vec<u8>>) -> Result<()> {
        let count = requests.len() as u64;
        let mut requests = requests.into_iter();
        self.drive(Plan::all(count, Awaited::Answers), &mut |_, _, due_ns| {
            Job {
                request: requests.next().unwrap_or_default(),
                marks: Vec::new(),
                due_ns,
            }
        })
    }

    /// Publishes by a plan: request after request, `batch` events in each, track after track.
    pub fn publish(&mut self, plan: Plan, tracks: u32, batch: usize) -> Result<()> {
        self.publish_to(plan, 0..tracks, batch)
    }

    pub fn publish_to(&mut self, plan: Plan, tracks: Range<u32>, batch: usize) -> Result<()> {
        let batch = batch.min(self.peer.batch_max());
        let needs = self.needs;
        let mut next = 0u64;
        self.drive(plan, &mut |peer, ledger, due_ns| {
            let events: Vec<_> = (0..batch)
                .map(|_| {
                    let track = tracks.start + (next % tracks.len() as u64) as u32;
                    next += 1;
                    let mark = ledger.draft(track, due_ns);
                    ((track, mark.number), (track, ledger.text(&mark)))
                })
                .collect();
            let (marks, events): (Vec<_>, Vec<_>) = events.into_iter().unzip();
            Job {
                request: peer.publish(&needs, &events),
                marks,
                due_ns,
            }
        })
    }

    /// Sends what `make` makes, each when it is due and a publisher is free, and waits for what the plan awaits.
    pub fn drive(
        &mut self,
        plan: Plan,
        make: &mut dyn FnMut(&dyn Peer, &mut Ledger, u64) -> Job,
    ) -> Result<()> {
        // Servers close connections on which nothing was asked for some seconds.
        self.open_publishers(self.publishers.list.len())?;
        let began = Instant::now();
        let began_ns = self.context.now_ns();
        let mut sent = 0;
        let mut moved = Instant::now();
        let mut before = (0, 0, 0);
        loop {
            let is_sending =
                sent < plan.requests && began.elapsed().as_secs_f64() < plan.seconds_max;
            let mut wait = TURN_TIME_MAX;
            while is_sending && sent < plan.requests {
                let due = plan.due(sent);
                let early = due.unwrap_or_default().saturating_sub(began.elapsed());
                if !early.is_zero() {
                    wait = wait.min(early);
                    break;
                }
                if plan.is_alone(sent) && !self.is_over(Awaited::Deliveries) {
                    break;
                }
                let Some(publisher) = self.publishers.idle.pop_front() else {
                    break;
                };
                let due_ns = due.map_or_else(
                    || self.context.now_ns(),
                    |due| began_ns + due.as_nanos() as u64,
                );
                let mut job = make(&*self.peer, &mut self.readers.ledger, due_ns);
                self.freshen(publisher)?;
                self.send(publisher, &mut job)?;
                sent += 1;
            }
            if !is_sending && self.is_over(plan.awaited) {
                return plan.check_sent(sent);
            }
            self.turn(wait)?;
            let ledger = &self.readers.ledger;
            let now = (sent, self.publishers.answers, ledger.fresh);
            self.progress.at(now.2.max(now.1), ledger.wanted.max(sent));
            if std::mem::replace(&mut before, now) != now || wait < TURN_TIME_MAX {
                moved = Instant::now();
            }
            if moved.elapsed() > self.context.stall_time_max() {
                let busy = self.publishers.busy();
                ensure!(busy == 0, "{busy} requests are not answered");
                // What has not come by now is missing, and the ledger says so; it is not waited for again.
                self.readers.ledger.wanted = self.readers.ledger.fresh;
                if !(is_sending && plan.is_alone(sent)) {
                    return plan.check_sent(sent);
                }
                moved = Instant::now();
            }
        }
    }

    fn is_over(&self, awaited: Awaited) -> bool {
        let ledger = &self.readers.ledger;
        match awaited {
            Awaited::Nothing => true,
            Awaited::Answers => self.publishers.busy() == 0,
            Awaited::Deliveries => self.publishers.busy() == 0 && ledger.fresh >= ledger.wanted,
        }
    }

    fn send(&mut self, publisher: u32, job: &mut Job) -> Result<()> {
        match self.publishers.begin(publisher, job) {
            Some(slot) => self.links.send(slot, &job.request),
            None => bail!("publisher {publisher} is not connected"),
        }
    }

    /// Reads on until `is_done`, or nothing moves any more.
    pub fn read_until(&mut self, is_done: impl Fn(&Readers) -> bool) -> Result<bool> {
        let mut moved = Instant::now();
        let mut before = 0;
        while !is_done(&self.readers) {
            self.turn(TURN_TIME_MAX)?;
            let fresh = self.readers.ledger.fresh;
            self.progress.at(fresh, self.readers.ledger.wanted);
            if std::mem::replace(&mut before, fresh) != fresh {
                moved = Instant::now();
            }
            if moved.elapsed() > self.context.stall_time_max() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads on for a time.
    pub fn read_for(&mut self, time: Duration) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < time {
            let left = time.saturating_sub(began.elapsed());
            self.turn(left.min(TURN_TIME_MAX))?;
            self.progress
                .at(began.elapsed().as_millis() as u64, time.as_millis() as u64);
        }
        Ok(())
    }

    /// Waits once and takes in all that came.
    fn turn(&mut self, time_max: Duration) -> Result<()> {
        self.context.check_interrupted()?;
        let mut happened = std::mem::take(&mut self.happened);
        self.links.wait(time_max, &mut happened)?;
        for &token in &happened {
            self.take_in(token)?;
        }
        self.happened = happened;
        Ok(())
    }

    fn take_in(&mut self, token: u64) -> Result<()> {
        let Some((slot, mut link)) = self.links.take(token) else {
            return Ok(());
        };
        let fate = match link.read(&mut self.buffer)? {
            None => Fate::Stays,
            Some(0) => Fate::Ends,
            Some(count) => {
                let now_ns = self.context.now_ns();
                let input = &self.buffer[..count];
                match link.owner {
                    Owner::Reader(index) => {
                        let peer = (&*self.peer, &self.needs);
                        self.readers
                            .take_in(peer, index, &mut link, input, now_ns)?
                    }
                    Owner::Publisher(index) => {
                        let ledger = &mut self.readers.ledger;
                        self.publishers
                            .take_in(ledger, index, &mut link, input, now_ns)?
                    }
                }
            }
        };
        match fate {
            Fate::Stays => self.links.put(slot, link),
            Fate::Ends => {
                self.links.close(slot);
                self.ended(link.owner)
            }
        }
    }

    fn ended(&mut self, owner: Owner) -> Result<()> {
        match owner {
            Owner::Reader(index) => {
                self.readers.set_closed(index);
                let why = || format!("the server ended the connection of reader {index}");
                self.readers.ledger.cut(why);
            }
            Owner::Publisher(index) => {
                let was_busy = self.publishers.set_closed(index);
                ensure!(!was_busy, "the server ended a connection without an answer");
            }
        }
        Ok(())
    }

    /// Takes the server away without warning: every connection is lost, what was not answered is in doubt.
    pub fn kill(&mut self) -> Result<()> {
        self.peer.kill()?;
        self.drop_readers();
        self.drop_publishers();
        Ok(())
    }

    pub fn restart(&mut self) -> Result<()> {
        self.peer.restart(self.context, &self.needs)
    }

    pub fn cpu_seconds(&self) -> Result<Option<f64>> {
        self.peer.pid().map(process::cpu_seconds).transpose()
    }

    pub fn pss_kib(&self) -> Result<Option<u64>> {
        self.peer.pid().map(process::pss_kib).transpose()
    }

    pub fn begin(&mut self) -> Result<Measured> {
        self.readers.delivered.reset();
        self.publishers.answered.reset();
        Ok(Measured {
            cpu_seconds: self.cpu_seconds()?,
            fresh: self.readers.ledger.fresh,
            acked: self.publishers.acked,
            began: Instant::now(),
        })
    }

    /// What it took since `begin`.
    pub fn end(&mut self, name: &str, measured: &Measured) -> Result<Outcome> {
        let seconds = measured.began.elapsed().as_secs_f64();
        let cpu_seconds = self.cpu_seconds()?;
        let cpu_seconds = cpu_seconds
            .zip(measured.cpu_seconds)
            .map(|(now, then)| now - then);
        let deliveries = self.readers.ledger.fresh - measured.fresh;
        let mut outcome = Outcome::new(name, self.peer.name());
        outcome.connections = self.readers.list.len();
        outcome.published = self.publishers.acked - measured.acked;
        outcome.deliveries = deliveries;
        outcome.seconds = seconds;
        outcome.cpu_us_per_delivery = cpu_seconds
            .filter(|_| deliveries > 0)
            .map(|cpu| cpu * 1e6 / deliveries as f64);
        outcome.latency = Latency::of(&self.readers.delivered);
        Ok(outcome)
    }

    /// The verdict over all of it.
    pub fn judge(&mut self, outcome: &mut Outcome) {
        (outcome.faults, outcome.examples) = self.readers.ledger.finish();
        outcome.in_doubt = self.readers.ledger.in_doubt();
        if outcome.published == 0 {
            // All of it was published before anything was measured.
            outcome.published = self.publishers.acked;
        }
    }
}

//! The publishers: connections that send one request at a time and wait for its answer.
//!
//! Promises: an answer other than success ends the run with its words; what was sent and never answered stays in
//! doubt. The time of an answer counts from when its request was due, not from when a connection was free for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;

use crate::frames;
use crate::http::Part;
use crate::links::{Inbox, Link};
use crate::readers::{Fate, histogram};
use crate::verify::Ledger;

const REFUSAL_BYTES_MAX: usize = 400;

/// One request and what it publishes: the track and number of each of its events.
pub struct Job {
    pub request: Vec<u8>,
    pub marks: Vec<(u32, u32)>,
    pub due_ns: u64,
}

pub struct Publisher {
    pub slot: Option<usize>,
    used: Instant,
    marks: Vec<(u32, u32)>,
    due_ns: u64,
    is_busy: bool,
}

impl Publisher {
    /// How long its connection was not used.
    pub fn rested(&self) -> Duration {
        self.used.elapsed()
    }
}

pub struct Publishers {
    pub list: Vec<Publisher>,
    /// Those that are free, the longest free first: none idles until its server closes it.
    pub idle: VecDeque<u32>,
    pub answered: Histogram<u64>,
    /// Events acknowledged.
    pub acked: u64,
    /// Requests answered.
    pub answers: u64,
    /// What the answers said, where somebody wants to know.
    pub bodies: Option<Vec<Vec<u8>>>,
}

impl Publishers {
    pub fn new() -> Result<Publishers> {
        Ok(Publishers {
            list: Vec::new(),
            idle: VecDeque::new(),
            answered: histogram()?,
            acked: 0,
            answers: 0,
            bodies: None,
        })
    }

    pub fn add(&mut self) {
        self.idle.push_back(self.list.len() as u32);
        self.list.push(Publisher {
            slot: None,
            used: Instant::now(),
            marks: Vec::new(),
            due_ns: 0,
            is_busy: false,
        });
    }

    pub fn set_open(&mut self, index: u32, slot: usize) {
        let publisher = &mut self.list[index as usize];
        publisher.slot = Some(slot);
        publisher.used = Instant::now();
    }

    pub fn busy(&self) -> usize {
        self.list
            .iter()
            .filter(|publisher| publisher.is_busy)
            .count()
    }

    /// Gives the job to a publisher that has none, and gives the slot to send it on.
    pub fn begin(&mut self, index: u32, job: &mut Job) -> Option<usize> {
        let publisher = &mut self.list[index as usize];
        publisher.marks = std::mem::take(&mut job.marks);
        publisher.due_ns = job.due_ns;
        publisher.is_busy = true;
        publisher.slot
    }

    /// True: a request of it is lost.
    pub fn set_closed(&mut self, index: u32) -> bool {
        let publisher = &mut self.list[index as usize];
        publisher.slot = None;
        std::mem::take(&mut publisher.is_busy)
    }

    /// Takes in what one connection brought.
    pub fn take_in(
        &mut self,
        ledger: &mut Ledger,
        index: u32,
        link: &mut Link,
        mut input: &[u8],
        now_ns: u64,
    ) -> Result<Fate> {
        while let Some(part) = link.decoder.next(&mut input)? {
            match (part, &mut link.inbox) {
                (Part::Head { status: told, .. }, Inbox::Whole { status, .. }) => *status = told,
                (Part::Body(bytes), Inbox::Whole { body, .. }) => body.extend_from_slice(bytes),
                (Part::End, Inbox::Whole { status, body, .. }) => {
                    self.answer(ledger, index, *status, body, now_ns)?;
                    body.clear();
                }
                _ => bail!("a publisher's inbox is whole answers"),
            }
        }
        Ok(Fate::Stays)
    }

    fn answer(
        &mut self,
        ledger: &mut Ledger,
        index: u32,
        status: u16,
        body: &[u8],
        now_ns: u64,
    ) -> Result<()> {
        if !(200..300).contains(&status) {
            let words = String::from_utf8_lossy(&body[..body.len().min(REFUSAL_BYTES_MAX)]);
            bail!("a publish was answered with {status}: {words}");
        }
        let publisher = &mut self.list[index as usize];
        let mut seqs = frames::seqs(body);
        for &(track, number) in &publisher.marks {
            ledger.ack(track, number, seqs.next());
        }
        self.acked += publisher.marks.len() as u64;
        self.answers += 1;
        self.answered
            .saturating_record(now_ns.saturating_sub(publisher.due_ns));
        publisher.is_busy = false;
        publisher.used = Instant::now();
        self.idle.push_back(index);
        if let Some(bodies) = &mut self.bodies {
            bodies.push(body.to_vec());
        }
        Ok(())
    }
}

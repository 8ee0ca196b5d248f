//! F25 and F26: readers connect at every kind of position while events come in, and while retention takes the oldest.
//!
//! Each worker has a user of its own, so that after its last publish no other wake hides one that was missed: the
//! reader must have everything within 5 s. A reset must stand exactly where something is missing.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, Report, Run};
use crate::history::{Entry, Invariant, Op, Origin, Position, Read, Recorder};
use crate::http::{self, Link, Target};
use crate::invariants;
use crate::nemesis::Server;
use crate::publisher::{self, Draft, Key};
use crate::reader::{Progress, Reader, TRANSPORTS};
use crate::rows::strangers;
use crate::stream::HEALED_US_MAX;
use crate::truth;

const WORKERS: usize = 64;
/// FAULTS.md, B: this many more open files than before are no leak.
const FILES_MORE_MAX: usize = 5;
const SETTLE_TIME_MAX: Duration = Duration::from_secs(30);

/// What distinguishes the two rows.
#[derive(Clone, Copy)]
struct Kind {
    row: &'static str,
    retention_events: u64,
    /// Events published around one connect, at most.
    burst_max: u64,
    pad_bytes: usize,
    /// One connect of so many stalls while events come in.
    stalled_one_of: Option<u64>,
    connects_per_life: usize,
}

const SEAM: Kind = Kind {
    row: "F25",
    retention_events: 100,
    burst_max: 3,
    pad_bytes: 20,
    stalled_one_of: None,
    connects_per_life: 2_000,
};
const EDGE: Kind = Kind {
    row: "F26",
    retention_events: 20,
    burst_max: 24,
    pad_bytes: 20,
    stalled_one_of: Some(25),
    connects_per_life: 500,
};
/// A stalled reader meets so many events of so many bytes: more than all buffers between server and reader hold.
const STALLED_BURST: u64 = 160;
const STALLED_PAD_BYTES: usize = 60_000;

pub async fn seam(bench: &Bench, count: usize) -> Result<Report> {
    connects(bench, SEAM, count).await
}

pub async fn edge(bench: &Bench, count: usize) -> Result<Report> {
    connects(bench, EDGE, count).await
}

async fn connects(bench: &Bench, kind: Kind, count: usize) -> Result<Report> {
    let mut run = Run::new(bench, kind.row, count);
    let mut rng = bench.rng(kind.row);
    let mut recipe = bench.recipe(kind.row)?;
    recipe
        .settings
        .push(format!("log.retention_events={}", kind.retention_events));
    let target = Target::default();
    let server = recipe.start_ready(&target).await?;
    let mut files_before = None;
    let (mut done, mut lives, mut resets, mut overtaken) = (0, 0, 0, 0);
    while done < count && !run.is_broken() {
        lives += 1;
        let share = kind.connects_per_life.min(count - done);
        let recorder = Recorder::new();
        recorder.record(
            "nemesis",
            Op::Retention {
                events: kind.retention_events,
            },
        );
        let outcome = one_life(&recorder, kind, &target, lives, share, &mut rng).await;
        // The first life warms the server up; what it holds then is the base.
        files_before.get_or_insert(server.open_files()?);
        let violations = outcome.map(|()| recorder.with_entries(invariants::check));
        done += share;
        run.judge(violations, Some(&recorder), &recipe.data);
        run.clean(if run.is_broken() { 0 } else { share - 1 });
        run.acked(recorder.acks());
        let (all, midway) = recorder.with_entries(count_resets);
        resets += all;
        overtaken += midway;
    }
    if !run.is_broken() {
        let recorder = Recorder::new();
        let what = "no reader met a reset, so retention took nothing and this row proved nothing";
        recorder.claim(Invariant::Reliable, resets > 0 || count < 100, what);
        let is_tried = kind.stalled_one_of.is_none() || overtaken > 0 || count < 300;
        let what =
            "retention overtook no stalled reader, so this row proved nothing about slow ones";
        recorder.claim(Invariant::Reliable, is_tried, what);
        judge_files(&recorder, &server, files_before.unwrap_or_default()).await?;
        let violations = recorder.with_entries(invariants::check);
        if !violations.is_empty() {
            run.judge(Ok(violations), Some(&recorder), &recipe.data);
        }
    }
    run.fact(format!(
        "{resets} resets, {overtaken} of them to readers overtaken by retention"
    ));
    Ok(run.report())
}

/// All resets, and those that came after an event on the same connection.
fn count_resets(entries: &[Entry]) -> (usize, usize) {
    let (mut all, mut midway) = (0, 0);
    let mut has_event: HashMap<&str, bool> = HashMap::new();
    for entry in entries {
        let process = entry.process.as_str();
        match &entry.op {
            Op::Read(Read::Invoke { .. }) => {
                has_event.insert(process, false);
            }
            Op::Read(Read::Event(_)) => {
                has_event.insert(process, true);
            }
            Op::Read(Read::Reset(_)) => {
                all += 1;
                midway += usize::from(has_event.get(process) == Some(&true));
            }
            _ => {}
        }
    }
    (all, midway)
}

async fn judge_files(recorder: &Recorder, server: &Server, before: usize) -> Result<()> {
    let deadline = Instant::now() + SETTLE_TIME_MAX;
    let mut now = server.open_files()?;
    while now > before + FILES_MORE_MAX && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
        now = server.open_files()?;
    }
    let what = format!("{now} open files after the load, {before} before");
    recorder.claim(Invariant::Bounded, now <= before + FILES_MORE_MAX, what);
    Ok(())
}

/// Some workers with a user each, and a stranger who must see nothing; then the logs are read.
async fn one_life(
    recorder: &Recorder,
    kind: Kind,
    target: &Target,
    life: usize,
    count: usize,
    rng: &mut Rng,
) -> Result<()> {
    let workers = WORKERS.min(count);
    let mut tasks = Vec::new();
    let mut users = Vec::new();
    for number in 0..workers {
        let user = format!("{}-{life}-user-{number}", kind.row);
        users.push(user.clone());
        let worker = Worker {
            kind,
            name: format!("{}-{life}-{number}", kind.row),
            publisher_token: publisher::token()?,
            reader_token: http::token(&user, None)?,
            user,
            target: target.clone(),
            recorder: recorder.clone(),
            rng: rng.fork(),
            head: None,
            drafts: 0,
        };
        let share = count / workers + usize::from(number < count % workers);
        tasks.push(tokio::spawn(worker.run(share)));
    }
    for outcome in join_all(tasks).await {
        outcome.context("a worker panicked")??;
    }
    strangers::probe(recorder, target, &users[0]).await?;
    for user in &users {
        recorder.record("truth", Op::Log(truth::read_log(target, user).await?));
    }
    Ok(())
}

struct Worker {
    kind: Kind,
    name: String,
    user: String,
    publisher_token: String,
    reader_token: String,
    target: Target,
    recorder: Recorder,
    rng: Rng,
    /// The newest position that was acked.
    head: Option<Position>,
    drafts: u64,
}

impl Worker {
    async fn run(mut self, count: usize) -> Result<()> {
        let before = self.rng.u64(1..self.kind.retention_events * 2);
        self.publish(before, 20).await?;
        for number in 0..count {
            let is_at_head = self.connect(number).await?;
            if !is_at_head {
                // The history says it all; to wait for more such readers tells nothing new.
                break;
            }
        }
        Ok(())
    }

    /// One reader comes while events are published, and stays until it has them all; false where it did not get them.
    async fn connect(&mut self, number: usize) -> Result<bool> {
        let is_stalled = self
            .kind
            .stalled_one_of
            .is_some_and(|one_of| self.rng.u64(0..one_of) == 0);
        let progress = Progress::default();
        let (stop, stopped) = watch::channel(false);
        let (go_on, stall) = watch::channel(false);
        let stall = is_stalled.then_some(stall);
        let reader = self.reader(number, stall, progress.clone());
        let reading = tokio::spawn(reader.run(stopped));
        sleep(Duration::from_micros(self.rng.u64(0..3_000))).await;
        let (count, pad_bytes) = match is_stalled {
            true => (STALLED_BURST, STALLED_PAD_BYTES),
            false => (self.rng.u64(1..=self.kind.burst_max), self.kind.pad_bytes),
        };
        self.publish(count, pad_bytes).await?;
        go_on.send_replace(true);
        let head = self.head.clone().context("events were published")?;
        self.recorder.record(
            "nemesis",
            Op::Healed {
                user: self.user.clone(),
                head: head.clone(),
            },
        );
        let deadline = Instant::now() + Duration::from_micros(HEALED_US_MAX);
        while !progress.is_at(&head) && Instant::now() < deadline {
            sleep(Duration::from_micros(300)).await;
        }
        stop.send_replace(true);
        reading.await.context("the reader panicked")?;
        Ok(progress.is_at(&head))
    }

    fn reader(
        &mut self,
        number: usize,
        stall: Option<watch::Receiver<bool>>,
        progress: Progress,
    ) -> Reader {
        let origin = self.origin();
        // A stalled reader must be one whose connection stays open.
        let transports = if stall.is_some() {
            TRANSPORTS[..1].to_vec()
        } else {
            TRANSPORTS.to_vec()
        };
        Reader {
            name: format!("{}-reader-{number}", self.name),
            user: self.user.clone(),
            token: self.reader_token.clone(),
            target: self.target.clone(),
            recorder: self.recorder.clone(),
            transports,
            origin,
            on_gap_earliest: self.rng.bool(),
            lifetime_max: Duration::from_secs(60),
            stall,
            progress,
            rng: self.rng.fork(),
        }
    }

    /// The head, around the oldest kept event, one too far, or anywhere.
    fn origin(&mut self) -> Origin {
        let Some(head) = self.head.clone() else {
            return Origin::Start;
        };
        let first_kept = (head.seq + 1)
            .saturating_sub(self.kind.retention_events)
            .max(1);
        let seq = match self.rng.u8(0..10) {
            0..4 => head.seq,
            4 => first_kept,
            5 => first_kept - 1,
            6 => first_kept.saturating_sub(self.rng.u64(2..5)),
            7 => self.rng.u64(0..=head.seq),
            8 => head.seq + 1,
            _ => {
                return if self.rng.bool() {
                    Origin::Start
                } else {
                    Origin::Now
                };
            }
        };
        Origin::After(Position { seq, ..head })
    }

    /// Publishes one after the other, or two at a time a moment apart: the second wake then comes while the reader
    /// turns from the first event to waiting.
    async fn publish(&mut self, count: u64, pad_bytes: usize) -> Result<()> {
        // New connections each time: the server rightly closes those that were idle while a reader was waited for.
        let address = self.target.required()?;
        let [mut first, mut second] = [Link::open(address).await?, Link::open(address).await?];
        let mut left = count;
        while left > 0 {
            let is_pair = left > 1 && self.rng.bool();
            left -= if is_pair { 2 } else { 1 };
            let (one, other) = (self.draft(pad_bytes), self.draft(pad_bytes));
            let apart = Duration::from_micros(self.rng.u64(0..4_000));
            let later = async {
                if !is_pair {
                    return Ok(None);
                }
                sleep(apart).await;
                self.publish_one(&mut second, &other).await.map(Some)
            };
            let (acked, later) = tokio::join!(self.publish_one(&mut first, &one), later);
            let newest = [Some(acked?), later?]
                .into_iter()
                .flatten()
                .max_by_key(|head| head.seq);
            self.head = newest;
        }
        Ok(())
    }

    fn draft(&mut self, pad_bytes: usize) -> Draft {
        self.drafts += 1;
        let nonce = format!("{}-{}", self.name, self.drafts);
        Draft::new(nonce, &self.user, Key::None, pad_bytes)
    }

    async fn publish_one(&self, link: &mut Link, draft: &Draft) -> Result<Position> {
        let token = &self.publisher_token;
        let acked = publisher::publish_at(&self.recorder, &self.name, token, link, draft).await;
        acked.context("a publish was not answered with success and a cursor")
    }
}

//! F1, F2 and F3: the process is killed, the power is cut, the power is cut at every sync point.
//!
//! A storm of publishers runs, the fault strikes at a random moment, the server starts again, and everything that
//! was acked or shown must still be there. Readers resume over five faults before a life is judged for the last time.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use fastrand::Rng;
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, Report, Run};
use crate::history::Invariant;
use crate::http::Target;
use crate::invariants::Violation;
use crate::life::{Life, Remembered, Shape};
use crate::nemesis::{Recipe, Server};
use crate::power::{Disk, FileSystem};

/// FAULTS.md, F1: ready again within this time.
const READY_TIME_MAX: Duration = Duration::from_secs(2);
/// On a machine that is busy with other things a start may take longer, if the server itself worked no longer than this.
const WORK_TIME_MAX: Duration = Duration::from_secs(1);
const BUSY_TIME_MAX: Duration = Duration::from_secs(15);
const FAULTS_PER_LIFE: usize = 5;
const FAULTS_PER_LOG: usize = 50;
const DISK_BYTES: u64 = 1 << 30;
/// A server held at a sync point acks nothing for this long.
const HELD_TIME: Duration = Duration::from_millis(300);
/// Where the server can be held, and after how many passes at least: first where a commit passes, in that order, then
/// where the engine takes over what the journal holds. Held there the server goes on until its journal is full.
const SYNC_POINTS: [(&str, u32); 12] = [
    ("before_apply", 300),
    ("after_apply", 300),
    ("before_write", 30),
    ("after_write", 30),
    ("before_sync", 30),
    ("after_sync", 30),
    ("before_ack", 30),
    ("before_wake", 30),
    ("before_move", 1),
    ("after_move", 1),
    ("before_flush", 1),
    ("after_flush", 1),
];
const STORM: Shape = Shape {
    users: 32,
    publishers: 64,
    readers: 200,
    pad_bytes: 60,
};
const SMALL_STORM: Shape = Shape {
    users: 12,
    publishers: 24,
    readers: 36,
    pad_bytes: 60,
};

pub async fn kill(bench: &Bench, count: usize) -> Result<Report> {
    let mut run = Run::new(bench, "F1", count);
    let mut rng = bench.rng("F1");
    for share in shares(count) {
        let recipe = bench.recipe("F1")?;
        let data = recipe.data.clone();
        let mut crashing = Crashing::new(rng.fork(), recipe, None, STORM);
        crashing.repeat(&mut run, share, 50..1_500).await?;
        if run.is_broken() {
            break;
        }
        drop(crashing);
        fs::remove_dir_all(&data)?;
    }
    Ok(run.report())
}

pub async fn power(bench: &Bench, count: usize) -> Result<Report> {
    let mut run = Run::new(bench, "F2", count);
    let mut rng = bench.rng("F2");
    for (file_system, half) in [
        (FileSystem::Ext4, count.div_ceil(2)),
        (FileSystem::Xfs, count / 2),
    ] {
        for share in shares(half) {
            if run.is_broken() {
                break;
            }
            let disk = Disk::make(&bench.work, file_system, DISK_BYTES)?;
            let mut recipe = bench.recipe("F2")?;
            recipe.data = disk.mounted_at.join("data");
            let mut crashing = Crashing::new(rng.fork(), recipe, Some(disk), SMALL_STORM);
            crashing.repeat(&mut run, share, 30..600).await?;
        }
    }
    run.fact("half on ext4, half on xfs");
    Ok(run.report())
}

/// So many faults in so many logs: a log that grew with the count would outgrow the size for which a time is promised.
fn shares(count: usize) -> impl Iterator<Item = usize> {
    let begins = (0..count).step_by(FAULTS_PER_LOG);
    begins.map(move |begin| FAULTS_PER_LOG.min(count - begin))
}

pub async fn sync_points(bench: &Bench, rounds: usize) -> Result<Report> {
    let mut run = Run::new(bench, "F3", rounds * SYNC_POINTS.len());
    for file_system in [FileSystem::Ext4, FileSystem::Xfs] {
        let disk = Disk::make(&bench.work, file_system, DISK_BYTES)?;
        let mut recipe = bench.recipe("F3")?;
        recipe.data = disk.mounted_at.join("data");
        let mut crashing = Crashing::new(
            bench.rng(file_system.name()),
            recipe,
            Some(disk),
            SMALL_STORM,
        );
        let mine =
            (0..rounds).filter(|round| (round % 2 == 0) == (file_system == FileSystem::Ext4));
        for point in mine.flat_map(|_| SYNC_POINTS) {
            if run.is_broken() {
                break;
            }
            let outcome = crashing.hold_and_cut(point, &mut run).await;
            let recorder = crashing.life.as_ref().map(|life| life.recorder.clone());
            run.judge(outcome, recorder.as_ref(), &crashing.recipe.data);
            crashing.end_life(&mut run).await;
        }
    }
    run.fact(format!("{} sync points", SYNC_POINTS.len()));
    Ok(run.report())
}

/// A server, its disk if it has one of its own, and the life around it.
struct Crashing {
    rng: Rng,
    recipe: Recipe,
    target: Target,
    shape: Shape,
    life: Option<Life>,
    lives: usize,
    /// Logs of the lives that ended, for the last look.
    remembered: Vec<Remembered>,
    /// Before the disk, so that the server is gone when the disk goes.
    server: Option<Server>,
    disk: Option<Disk>,
}

impl Crashing {
    fn new(rng: Rng, recipe: Recipe, disk: Option<Disk>, shape: Shape) -> Crashing {
        let (target, remembered) = (Target::default(), Vec::new());
        Crashing {
            rng,
            recipe,
            target,
            shape,
            life: None,
            lives: 0,
            remembered,
            server: None,
            disk,
        }
    }

    async fn repeat(
        &mut self,
        run: &mut Run<'_>,
        count: usize,
        moment_ms: std::ops::Range<u64>,
    ) -> Result<()> {
        let mut in_life = 0;
        for trial in 1..=count {
            in_life += 1;
            let moment = Duration::from_millis(self.rng.u64(moment_ms.clone()));
            let survived = self.trial(moment, run).await;
            let is_last = in_life == FAULTS_PER_LIFE || trial == count;
            // A life is judged as a whole: what is wrong after one fault is still so after the next.
            if survived.is_ok() && !is_last {
                continue;
            }
            let outcome = survived.and_then(|()| self.life().map(|life| life.judge()));
            let recorder = self.life.as_ref().map(|life| life.recorder.clone());
            run.judge(outcome, recorder.as_ref(), &self.recipe.data);
            self.end_life(run).await;
            if run.is_broken() {
                break;
            }
            run.clean(in_life - 1);
            in_life = 0;
        }
        if !run.is_broken() {
            let outcome = self.look_back().await;
            if !matches!(&outcome, Ok(violations) if violations.is_empty()) {
                run.judge(outcome, None, &self.recipe.data);
            }
        }
        Ok(())
    }

    /// One fault at a random moment of a storm, and all logs and readers after it.
    async fn trial(&mut self, moment: Duration, run: &mut Run<'_>) -> Result<()> {
        if self.server.is_none() {
            self.start(run).await?;
        }
        let storm = self.life()?.storm()?;
        sleep(moment).await;
        self.strike()?;
        self.start(run).await?;
        storm.calm().await;
        self.life()?.settle().await?;
        Ok(())
    }

    /// Holds the server at a sync point, cuts the power there, and lets it start again without the hold.
    async fn hold_and_cut(
        &mut self,
        (point, passes): (&str, u32),
        run: &mut Run<'_>,
    ) -> Result<Vec<Violation>> {
        self.server = None;
        let unheld = self.recipe.failpoints.clone();
        let hold = format!(
            "{point}={}*off->sleep(60000)",
            self.rng.u32(passes..3 * passes)
        );
        let both = unheld
            .iter()
            .cloned()
            .chain([hold])
            .collect::<Vec<_>>()
            .join(";");
        self.recipe.failpoints = Some(both);
        let started = self.start(run).await;
        self.recipe.failpoints = unheld;
        started?;
        let storm = self.life()?.storm()?;
        let is_held = self.wait_until_held().await?;
        ensure!(
            is_held,
            "{point} never held the server: it must be built with --features faults"
        );
        self.strike()?;
        self.start(run).await?;
        storm.calm().await;
        let life = self.life()?;
        life.settle().await?;
        Ok(life.judge())
    }

    async fn wait_until_held(&mut self) -> Result<bool> {
        let recorder = self.life()?.recorder.clone();
        let deadline = Instant::now() + Duration::from_secs(15);
        let (mut acks, mut since) = (recorder.acks(), Instant::now());
        while Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
            if recorder.acks() != acks {
                (acks, since) = (recorder.acks(), Instant::now());
            }
            if acks > 0 && since.elapsed() >= HELD_TIME {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn life(&mut self) -> Result<&mut Life> {
        if self.life.is_none() {
            self.lives += 1;
            let name = match &self.disk {
                Some(disk) => format!("{}-{}", disk.name(), self.lives),
                None => format!("kill-{}", self.lives),
            };
            self.life = Some(Life::begin(&name, &self.target, self.shape, &mut self.rng)?);
        }
        Ok(self.life.as_mut().expect("it was begun just above"))
    }

    fn strike(&mut self) -> Result<()> {
        self.target.set(None);
        let Some(server) = self.server.take() else {
            return Ok(());
        };
        let what = match &self.disk {
            Some(disk) => {
                disk.cut()?;
                server.kill()?;
                disk.restore()?;
                "power cut"
            }
            None => {
                server.kill()?;
                "kill -9"
            }
        };
        if let Some(life) = &self.life {
            life.recorder.fault(what, false);
        }
        Ok(())
    }

    async fn start(&mut self, run: &mut Run<'_>) -> Result<()> {
        let server = self.recipe.start_ready(&self.target).await?;
        run.ready_after(server.ready_after);
        if let Some(life) = &self.life {
            let (after, worked) = (server.ready_after, server.worked()?);
            let is_in_time =
                after <= READY_TIME_MAX || (worked <= WORK_TIME_MAX && after <= BUSY_TIME_MAX);
            let what = format!(
                "ready again after {after:?} with {worked:?} of work, allowed are {READY_TIME_MAX:?}"
            );
            life.recorder.claim(Invariant::Honest, is_in_time, what);
        }
        self.server = Some(server);
        Ok(())
    }

    async fn end_life(&mut self, run: &mut Run<'_>) {
        let Some(life) = self.life.take() else { return };
        let users = life.users.clone();
        let recorder = life.end().await;
        run.acked(recorder.acks());
        for user in users {
            // The logs were read when the life settled; the last reading of each is what must remain.
            let last = recorder.with_entries(|entries| {
                let logs = entries.iter().rev().filter_map(|entry| match &entry.op {
                    crate::history::Op::Log(log) if log.user == user => Some(Remembered::of(log)),
                    _ => None,
                });
                logs.into_iter().next()
            });
            self.remembered.extend(last);
        }
    }

    /// Whatever ended long ago must still be what it was.
    async fn look_back(&self) -> Result<Vec<Violation>> {
        let mut violations = Vec::new();
        for remembered in &self.remembered {
            violations.extend(remembered.compare(&self.target).await?);
        }
        Ok(violations)
    }
}

//! F5: the disk runs full while publishers and readers are at work, the server dies and starts on the full disk, and
//! space comes back. Publishing is refused with a reason, reading goes on, and nothing acked is lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, Report, Run};
use crate::history::Invariant;
use crate::http::{Ask, Link, Target, ask_once};
use crate::invariants::Violation;
use crate::life::{Life, Shape};
use crate::nemesis::Recipe;
use crate::power::{Disk, FileSystem};
use crate::publisher::{self, Draft, Key, Outcome};

const DISK_BYTES: u64 = 64 << 20;
const MIN_FREE_BYTES: u64 = 12 << 20;
/// The server looks at the disk at least once a second, so it must have noticed by then.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(5);
const SHAPE: Shape = Shape {
    users: 4,
    publishers: 6,
    readers: 12,
    pad_bytes: 60,
};

pub async fn full(bench: &Bench, count: usize) -> Result<Report> {
    let mut run = Run::new(bench, "F5", count);
    let mut rng = bench.rng("F5");
    for trial in 1..=count {
        if run.is_broken() {
            break;
        }
        let disk = Disk::make(&bench.work, FileSystem::Ext4, DISK_BYTES)?;
        let mut recipe = bench.recipe("F5")?;
        recipe.data = disk.mounted_at.join("data");
        recipe
            .settings
            .push(format!("store.min_free_bytes={MIN_FREE_BYTES}"));
        recipe
            .settings
            .push("store.ballast_bytes=4194304".to_owned());
        let target = Target::default();
        let mut life = Life::begin(&format!("full-{trial}"), &target, SHAPE, &mut rng)?;
        let outcome = fill_and_free(&disk, &recipe, &target, &mut life, &mut run).await;
        run.judge(outcome, Some(&life.recorder), &recipe.data);
        run.acked(life.end().await.acks());
    }
    Ok(run.report())
}

async fn fill_and_free(
    disk: &Disk,
    recipe: &Recipe,
    target: &Target,
    life: &mut Life,
    run: &mut Run<'_>,
) -> Result<Vec<Violation>> {
    let server = recipe.start_ready(target).await?;
    let storm = life.storm()?;
    sleep(Duration::from_millis(400)).await;
    disk.fill(MIN_FREE_BYTES - (4 << 20))?;
    life.recorder.fault("disk nearly full", false);
    ensure!(
        publishing_is(Outcome::Refused, life, target).await?,
        "publishing goes on below store.min_free_bytes"
    );
    storm.calm().await;
    judge_refusal(life, target).await?;
    life.settle().await?;

    disk.fill_up()?;
    target.set(None);
    server.kill()?;
    life.recorder
        .fault("disk full to the last block, kill -9", false);
    let server = recipe.start_ready(target).await?;
    run.ready_after(server.ready_after);
    life.settle().await?;
    let is_refused = publishing_is(Outcome::Refused, life, target).await?;
    life.recorder.claim(
        Invariant::Honest,
        is_refused,
        "after a start on a full disk publishing must be refused",
    );

    disk.free_up()?;
    life.recorder.fault("space came back", false);
    let is_back = publishing_is(Outcome::Acked, life, target).await?;
    life.recorder.claim(
        Invariant::Honest,
        is_back,
        "with space back publishing must work again without a restart",
    );
    let storm = life.storm()?;
    sleep(Duration::from_millis(200)).await;
    storm.calm().await;
    life.settle().await?;
    target.set(None);
    server.kill()?;
    let server = recipe.start_ready(target).await?;
    life.settle().await?;
    let violations = life.judge();
    drop(server);
    Ok(violations)
}

/// Publishes single events until one of them has the wanted outcome; false where none had it in time.
async fn publishing_is(wanted: Outcome, life: &Life, target: &Target) -> Result<bool> {
    let token = publisher::token()?;
    let deadline = Instant::now() + NOTICE_TIME_MAX;
    let mut link = Link::open(target.required()?).await?;
    while Instant::now() < deadline {
        let nonce = format!("{}-probe-{}", life.name, life.recorder.now_us());
        let draft = Draft::new(nonce, &life.users[0], Key::None, 10);
        if publisher::publish(&life.recorder, "probe", &token, &mut link, &draft).await == wanted {
            return Ok(true);
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}

async fn judge_refusal(life: &Life, target: &Target) -> Result<()> {
    let draft = Draft::new(
        format!("{}-refused", life.name),
        &life.users[0],
        Key::None,
        10,
    );
    let recorder = &life.recorder;
    let attempt = publisher::invoke(recorder, "probe", &draft);
    let answer = ask_once(target, &draft.ask(&publisher::token()?)).await?;
    let status = answer.status;
    publisher::conclude(
        recorder,
        "probe",
        attempt,
        status,
        answer.has_retry_after,
        &answer.body,
    );
    let is_named = matches!(status, 507 | 503) && answer.code() == "disk_full";
    let what = format!(
        "a full disk is answered 507 or 503 disk_full, not {status} {}",
        answer.body
    );
    recorder.claim(Invariant::Honest, is_named, what);
    let ready = ask_once(target, &Ask::get("/readyz", "")).await?;
    let what = format!(
        "/readyz is red while publishing is refused, not {}",
        ready.status
    );
    recorder.claim(Invariant::Honest, ready.status == 503, what);
    Ok(())
}

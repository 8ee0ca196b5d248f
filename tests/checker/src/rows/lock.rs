//! F21: a second server is started on a data directory that one already has. It says so and goes; the first goes on.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::bench::{Bench, Report, Run};
use crate::history::Invariant;
use crate::http::Target;
use crate::invariants::Violation;
use crate::life::{Life, Shape};
use crate::nemesis::{Recipe, Started};

const GIVE_UP_TIME_MAX: Duration = Duration::from_secs(1);
const SHAPE: Shape = Shape {
    users: 4,
    publishers: 4,
    readers: 8,
    pad_bytes: 20,
};

pub async fn second_server(bench: &Bench, count: usize) -> Result<Report> {
    let mut run = Run::new(bench, "F21", count);
    let mut rng = bench.rng("F21");
    let recipe = bench.recipe("F21")?;
    let target = Target::default();
    let server = recipe.start_ready(&target).await?;
    for trial in 1..=count {
        if run.is_broken() {
            break;
        }
        let mut life = Life::begin(&format!("lock-{trial}"), &target, SHAPE, &mut rng)?;
        let outcome = start_second(&recipe, &mut life).await;
        run.judge(outcome, Some(&life.recorder), &recipe.data);
        run.acked(life.end().await.acks());
    }
    drop(server);
    Ok(run.report())
}

async fn start_second(recipe: &Recipe, life: &mut Life) -> Result<Vec<Violation>> {
    let storm = life.storm()?;
    let refused = match recipe.start().await? {
        Started::Refused(refused) => refused,
        Started::Ready(_) => bail!("a second server opened the same data directory"),
    };
    let is_in_time = refused.after <= GIVE_UP_TIME_MAX;
    let what = format!(
        "the second server gives up within {GIVE_UP_TIME_MAX:?}, not after {:?}",
        refused.after
    );
    life.recorder.claim(Invariant::Honest, is_in_time, what);
    let names_directory = refused
        .said
        .contains(recipe.data.to_string_lossy().as_ref());
    let is_plain =
        refused.code == Some(1) && names_directory && !refused.said.contains("panicked at");
    let said = refused.said.trim();
    let what = format!(
        "it exits 1 and names the directory; it exits {:?} and says: {said}",
        refused.code
    );
    life.recorder.claim(Invariant::Honest, is_plain, what);
    storm.calm().await;
    life.settle().await?;
    Ok(life.judge())
}

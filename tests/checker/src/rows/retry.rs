//! F20: the answer to a publish is lost, the publisher asks again with the same key, also over a crash.

use std::time::Duration;

use anyhow::{Result, ensure};
use fastrand::Rng;
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::bench::{Bench, Report, Run};
use crate::history::Invariant;
use crate::http::{Link, Target, ask_once};
use crate::invariants::Violation;
use crate::life::{Life, Shape};
use crate::nemesis::{Recipe, Server};
use crate::publisher::{self, Draft, Key, Outcome};

const KEYS_PER_ROUND: usize = 50;
const SHAPE: Shape = Shape {
    users: 8,
    publishers: 0,
    readers: 8,
    pad_bytes: 20,
};

/// `count` is the number of repeated requests.
pub async fn repeated(bench: &Bench, count: usize) -> Result<Report> {
    let mut run = Run::new(bench, "F20", count);
    let mut rng = bench.rng("F20");
    let recipe = bench.recipe("F20")?;
    let target = Target::default();
    let mut server = Some(recipe.start_ready(&target).await?);
    let mut done = 0;
    let mut lives = 0;
    while done < count && !run.is_broken() {
        lives += 1;
        let life = Life::begin(&format!("retry-{lives}"), &target, SHAPE, &mut rng)?;
        let keys = KEYS_PER_ROUND.min((count - done).div_ceil(2));
        let outcome = one_round(&life, &recipe, &target, &mut server, keys, &mut rng).await;
        done += keys * 2;
        run.judge(outcome, Some(&life.recorder), &recipe.data);
        run.clean(if run.is_broken() { 0 } else { keys * 2 - 1 });
        run.acked(life.end().await.acks());
    }
    Ok(run.report())
}

async fn one_round(
    life: &Life,
    recipe: &Recipe,
    target: &Target,
    server: &mut Option<Server>,
    keys: usize,
    rng: &mut Rng,
) -> Result<Vec<Violation>> {
    let drafts: Vec<Draft> = (0..keys).map(|number| draft(life, number, rng)).collect();
    let patience_us: Vec<u64> = drafts.iter().map(|_| rng.u64(0..20_000)).collect();
    let lost = drafts.iter().zip(&patience_us).map(|(draft, patience_us)| {
        publish_and_lose_answer(life, target, draft, Duration::from_micros(*patience_us))
    });
    for outcome in join_all(lost).await {
        outcome?;
    }
    for repeat in 0..2 {
        // Between the repeats the server crashes, so the second one must find the key on the disk.
        if repeat == 1 || rng.bool() {
            restart(life, recipe, target, server).await?;
        }
        let token = publisher::token()?;
        let again = drafts.iter().map(async |draft| {
            let mut link = Link::open(target.required()?).await?;
            Ok::<_, anyhow::Error>(
                publisher::publish(&life.recorder, "publisher", &token, &mut link, draft).await,
            )
        });
        for outcome in join_all(again).await {
            ensure!(
                outcome? == Outcome::Acked,
                "a repeat was not answered with success"
            );
        }
    }
    mismatch(life, target, &drafts[0]).await?;
    life.settle().await?;
    Ok(life.judge())
}

fn draft(life: &Life, number: usize, rng: &mut Rng) -> Draft {
    let nonce = format!("{}-{number}", life.name);
    let key = match rng.bool() {
        true => Key::Id(format!("id-{nonce}")),
        false => Key::Header(format!("key-{nonce}")),
    };
    Draft::new(nonce, &life.users[number % life.users.len()], key, 20)
}

/// Sends the request, goes away after a moment and never learns what came of it.
async fn publish_and_lose_answer(
    life: &Life,
    target: &Target,
    draft: &Draft,
    patience: Duration,
) -> Result<()> {
    let token = publisher::token()?;
    let mut link = Link::open(target.required()?).await?;
    let attempt = publisher::invoke(&life.recorder, "publisher", draft);
    // Even an answer that came in time counts as lost.
    timeout(patience, link.ask(&draft.ask(&token))).await.ok();
    publisher::unanswered(&life.recorder, "publisher", attempt);
    Ok(())
}

async fn restart(
    life: &Life,
    recipe: &Recipe,
    target: &Target,
    server: &mut Option<Server>,
) -> Result<()> {
    target.set(None);
    if let Some(server) = server.take() {
        server.kill()?;
    }
    life.recorder.fault("kill -9", false);
    *server = Some(recipe.start_ready(target).await?);
    Ok(())
}

/// The same key with another body is refused and changes nothing.
async fn mismatch(life: &Life, target: &Target, draft: &Draft) -> Result<()> {
    let other = Draft {
        data: serde_json::json!({ "for": draft.user, "nonce": "other" }),
        ..draft.clone()
    };
    let answer = ask_once(target, &other.ask(&publisher::token()?)).await?;
    let is_refused = answer.status == 422 && answer.code() == "idempotency_mismatch";
    let what = format!(
        "the same key with another body is 422 idempotency_mismatch, not {}: {}",
        answer.status, answer.body
    );
    life.recorder.claim(Invariant::Idempotent, is_refused, what);
    Ok(())
}

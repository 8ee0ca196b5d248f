//! The seeded simulation: publishers, readers, power cuts, restarts and clock jumps around the real store and cursor.
//!
//! Promises: one thread, virtual time, and all chance from one seed, so that a seed repeats a run word for word. Each
//! finding comes with its seed and the command to run it again. `SIMULATION_SEEDS=1000` runs that many,
//! `SIMULATION_SEED=42` runs one and tells everything that happened.

pub mod disk;
mod nemesis;
mod oracle;
mod plan;
mod publisher;
mod reader;
mod verdict;
mod world;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::sleep;

use oracle::Oracle;
use plan::Plan;
use reader::Reader;
use world::World;

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 40;
/// In the end every reader is at its head after this time.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Time for the upkeep to trim what is due.
const IDLE: Duration = Duration::from_secs(20);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a seed is a number"))
}

#[test]
fn nothing_acknowledged_or_shown_is_lost() {
    #[cfg(feature = "faults")]
    mutants::switch_on();
    if let Some(seed) = number("SIMULATION_SEED") {
        let oracle = run(seed);
        println!("{}", oracle.transcript.join("\n"));
        return hold(seed, &oracle);
    }
    let (mut shown, mut resets) = (0, 0);
    for seed in 0..number("SIMULATION_SEEDS").unwrap_or(SEEDS) {
        let oracle = run(seed);
        hold(seed, &oracle);
        shown += oracle.shown;
        resets += oracle.resets;
    }
    println!("{shown} deliveries, {resets} resets");
}

#[test]
fn a_seed_repeats_word_for_word() {
    for seed in [3, 8, 21] {
        let (first, second) = (run(seed), run(seed));
        assert!(
            first.transcript.len() > 50,
            "seed {seed} did next to nothing"
        );
        for (one, other) in first.transcript.iter().zip(&second.transcript) {
            assert_eq!(one, other, "seed {seed} went another way the second time");
        }
        assert_eq!(first.transcript.len(), second.transcript.len());
    }
}

fn hold(seed: u64, oracle: &Oracle) {
    let Some(violation) = oracle.violations.first() else {
        return;
    };
    let last = oracle.transcript.len().saturating_sub(40);
    println!("{}", oracle.transcript[last..].join("\n"));
    println!("{:?}", oracle.plan);
    println!("all violations: {:#?}", oracle.violations);
    panic!(
        "violation with seed {seed}: {violation}\nrepeat it: SIMULATION_SEED={seed} cargo test --test it \
         simulation::nothing_acknowledged_or_shown_is_lost -- --exact --nocapture"
    );
}

/// One whole run, from an empty disk to the verdict.
fn run(seed: u64) -> Oracle {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.expect("a runtime with a timer only needs memory");
    let local = LocalSet::new();
    let world = local.block_on(&runtime, live(Plan::of(seed)));
    drop(local);
    let world = Rc::into_inner(world).expect("all tasks ended with their thread");
    world.oracle.into_inner()
}

async fn live(plan: Plan) -> Rc<World> {
    // Another stream of chance than the plan's.
    let mut rng = Rng::with_seed(plan.seed ^ 0x5eed_5eed_5eed_5eed);
    let world = World::new(plan);
    world.open(&mut rng).await;
    let time = spawn_local(pass_time(Rc::clone(&world)));
    let readers: Vec<(Rc<Reader>, JoinHandle<()>)> = (0..world.plan.readers)
        .map(|number| read(&world, number, &mut rng))
        .collect();
    let is_over = Rc::new(Cell::new(false));
    let nemesis = nemesis::disturb(Rc::clone(&world), rng.fork(), Rc::clone(&is_over));
    let nemesis = spawn_local(nemesis);
    let mut busy = vec![spawn_local(publisher::subscribe(
        Rc::clone(&world),
        rng.fork(),
    ))];
    for number in 0..world.plan.publishers {
        let does_large = number == 0 && world.plan.has_large_batch;
        let publisher = publisher::publish(Rc::clone(&world), rng.fork(), does_large);
        busy.push(spawn_local(publisher));
    }
    for task in busy {
        task.await.expect("publishers and subscribers do not panic");
    }
    is_over.set(true);
    nemesis.await.expect("the nemesis does not panic");
    heal(&world, &readers, &mut rng).await;
    for (_, task) in readers {
        task.abort();
        drop(task.await);
    }
    verdict::judge(&world).await;
    world.close(&mut rng).await;
    time.abort();
    drop(time.await);
    world
}

fn read(world: &Rc<World>, number: usize, rng: &mut Rng) -> (Rc<Reader>, JoinHandle<()>) {
    let reader = Rc::new(Reader {
        world: Rc::clone(world),
        number,
        user: rng.usize(0..world.plan.users),
        resume: Cell::new(None),
        is_at_head: Cell::new(false),
    });
    let task = spawn_local(Rc::clone(&reader).run(rng.fork()));
    (reader, task)
}

/// The wall clock goes on with virtual time.
async fn pass_time(world: Rc<World>) {
    loop {
        sleep(Duration::from_millis(50)).await;
        world.advance_ms(50);
    }
}

/// A last crash, then peace: every reader must reach the head, and the upkeep do what is due.
async fn heal(world: &World, readers: &[(Rc<Reader>, JoinHandle<()>)], rng: &mut Rng) {
    world.is_healed.set(true);
    world.note("healed");
    world.crash(rng).await;
    world.open(rng).await;
    sleep(CATCH_UP).await;
    for (reader, task) in readers {
        if task.is_finished() {
            world.violation(format_args!("r{} panicked", reader.number));
        } else if !reader.is_at_head.get() {
            world.violation(format_args!("r{} does not reach its head", reader.number));
        }
    }
    sleep(IDLE).await;
}

/// The suite tested: each planted fault must be found.
#[cfg(feature = "faults")]
mod mutants {
    use std::process::Command;

    const SEEDS: &str = "300";
    const MUTANTS: [&str; 7] = [
        "mutant_resume_inclusive",
        "mutant_subscribe_after_read",
        "mutant_drop_without_reset",
        "mutant_deliver_before_sync",
        "mutant_ack_before_sync",
        "mutant_skip_sync",
        "mutant_forget_keys",
    ];

    /// In the process that is to fail: faults are switched on for a whole process.
    pub fn switch_on() {
        if let Ok(mutant) = std::env::var("SIMULATION_MUTANT") {
            fail::cfg(mutant, "return").expect("the fault can be switched on");
        }
    }

    #[test]
    fn every_planted_fault_is_found() {
        let program = std::env::current_exe().expect("a test knows its program");
        for mutant in MUTANTS {
            let name = "simulation::nothing_acknowledged_or_shown_is_lost";
            let run = Command::new(&program)
                .args(["--exact", name, "--nocapture"])
                .env("SIMULATION_MUTANT", mutant)
                .env("SIMULATION_SEEDS", SEEDS)
                .output()
                .expect("the test's own program runs");
            let told = String::from_utf8_lossy(&run.stderr);
            let violation = told
                .lines()
                .find(|line| line.contains("violation with seed"));
            assert!(
                !run.status.success(),
                "{mutant} was not found within {SEEDS} seeds"
            );
            assert!(
                violation.is_some(),
                "{mutant} failed, but not by a violation: {told}"
            );
            println!("{mutant}: {}", violation.unwrap_or_default());
        }
    }
}

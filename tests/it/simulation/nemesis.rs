//! The nemesis: power cuts, broken disks, restarts, jumps of the clock, damaged rows.
//!
//! Promises: whatever it does is in the transcript; it waits on virtual time only.

use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{sleep, timeout};

use super::plan::HOUR_MS;
use super::world::World;

/// Disturbs the world until it is dropped between two acts.
pub async fn disturb(world: Rc<World>, mut rng: Rng, is_over: Rc<std::cell::Cell<bool>>) {
    while !is_over.get() {
        sleep(Duration::from_millis(rng.u64(20..800))).await;
        match rng.u8(0..16) {
            0..=2 => restart(&world, &mut rng).await,
            3..=8 => cut(&world, &mut rng).await,
            9 => break_disk(&world, &mut rng).await,
            10..=11 => close(&world, &mut rng).await,
            12..=14 => jump(&world, &mut rng),
            _ => {}
        }
        if world.plan.does_damage && rng.u8(0..3) == 0 {
            damage(&world, &mut rng);
        }
    }
}

async fn restart(world: &World, rng: &mut Rng) {
    world.crash(rng).await;
    reopen(world, rng).await;
}

async fn reopen(world: &World, rng: &mut Rng) {
    if world.plan.does_damage && rng.bool() {
        damage(world, rng);
    }
    sleep(Duration::from_millis(rng.u64(0..100))).await;
    world.open(rng).await;
}

/// The power fails in the middle of the committer's work. For a moment the readers live on.
async fn cut(world: &World, rng: &mut Rng) {
    let (steps, is_last_done) = (rng.u32(0..12), rng.bool());
    world.note(format_args!("cut after {steps}, done {is_last_done}"));
    world.disk.cut_after(steps, is_last_done);
    linger(world, rng).await;
    restart(world, rng).await;
}

/// Every write fails from now on.
async fn break_disk(world: &World, rng: &mut Rng) {
    world.note("the disk breaks");
    world.disk.memory.fail();
    linger(world, rng).await;
    restart(world, rng).await;
}

/// Waits until the fault was met, and a little longer. A store whose disk failed must say so.
async fn linger(world: &World, rng: &mut Rng) {
    for _ in 0..rng.u32(10..60) {
        sleep(Duration::from_millis(10)).await;
        if world.disk.has_refused() {
            break;
        }
    }
    sleep(Duration::from_millis(rng.u64(0..20))).await;
    if !world.disk.has_refused() {
        return;
    }
    let life = world.present().expect("the nemesis alone ends a life");
    let told = timeout(Duration::from_secs(1), life.store.failure()).await;
    if told.is_err() || !life.store.has_failed() {
        world.violation("the disk failed and the store does not say so");
    }
}

async fn close(world: &World, rng: &mut Rng) {
    world.close(rng).await;
    reopen(world, rng).await;
}

fn jump(world: &World, rng: &mut Rng) {
    let by_ms = match rng.u8(0..10) {
        0 => 25 * HOUR_MS,
        1..=4 => rng.u64(0..3 * HOUR_MS),
        _ => rng.u64(0..5_000),
    };
    world.note(format_args!("the clock jumps {by_ms} ms"));
    world.advance_ms(by_ms);
}

fn damage(world: &World, rng: &mut Rng) {
    if let Some(key) = world.disk.damage(rng) {
        world.note(format_args!("the row {key} is damaged"));
        world.oracle.borrow_mut().damaged();
    }
}

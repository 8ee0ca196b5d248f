//! What one seed does: how many take part, how much the store may keep, which faults come.
//!
//! Promises: everything is drawn from the seed, so that the seed alone repeats a run. It never looks at the run.

use fastrand::Rng;
use tidings::store::upkeep::Retention;

pub const HOUR_MS: u64 = 3_600_000;

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub users: usize,
    pub topics: usize,
    pub publishers: usize,
    /// What each publisher asks for, at the least.
    pub publications: usize,
    pub readers: usize,
    pub retention: Retention,
    pub ring_bytes: u64,
    /// Whether rows are damaged: then only announced losses are allowed.
    pub does_damage: bool,
    /// Whether one batch needs more operations than the engine takes at a time.
    pub has_large_batch: bool,
    /// Whether the wall clock may be earlier after a restart.
    pub does_step_back: bool,
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed);
        Plan {
            seed,
            users: rng.usize(1..=5),
            topics: rng.usize(1..=2),
            publishers: rng.usize(1..=3),
            publications: rng.usize(5..=25),
            readers: rng.usize(1..=5),
            retention: retention(&mut rng),
            ring_bytes: [0, 2_000, 1 << 20][rng.usize(0..3)],
            does_damage: rng.u8(0..8) == 0,
            has_large_batch: rng.u8(0..16) == 0,
            does_step_back: rng.u8(0..6) == 0,
        }
    }
}

/// No bound, or tiny ones, so that readers stand on the edge all the time.
fn retention(rng: &mut Rng) -> Retention {
    let mut retention = Retention::default();
    match rng.u8(0..8) {
        0..=2 => {}
        3..=4 => retention.events = rng.u64(1..=20),
        5 => retention.bytes = rng.u64(200..=3_000),
        6 => retention.age_ms = rng.u64(500..=2 * HOUR_MS),
        _ => {
            retention.events = rng.u64(3..=40);
            retention.age_ms = rng.u64(1_000..=HOUR_MS);
            retention.total_bytes = [0, 4_000][rng.usize(0..2)];
        }
    }
    retention
}

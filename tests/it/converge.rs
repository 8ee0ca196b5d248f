//! Issue 3, "How it is proven": three users with two devices each on mixed transports, while connections drop and the
//! server is killed. At the end all devices know the same, and it is what the queries say.
//!
//! Promises: a seed decides every choice, is printed, and repeats the choices with `CONVERGE_SEED=n`; more seeds run
//! with `CONVERGE_SEEDS=n`. A write whose answer never came is asked again with the same key until it is answered.

mod actor;
mod device;
mod ending;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;
use tokio::sync::{Notify, RwLock, watch};

use crate::harness::{Server, spawn};
use crate::talk;

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const DEVICES_PER_USER: usize = 2;
const ACTIONS_PER_USER: usize = 45;
/// Seeds of the everyday run.
const SEEDS: [u64; 2] = [1, 2];

/// What the tasks of one run share.
struct World {
    /// Read for as long as a request is made up, written while the server is killed and started again.
    server: RwLock<Server>,
    /// Conversations that were made; written by the actors.
    conversations: Mutex<Vec<String>>,
    /// Messages that were sent: conversation, message, sender.
    messages: Mutex<Vec<(String, String, &'static str)>>,
    /// Actions done by all users; written by the actors, read by the nemesis.
    done: AtomicUsize,
    acted: Notify,
    /// One for each device: its connection drops now.
    cuts: Vec<Notify>,
    /// Whether the devices are to stop.
    is_over: watch::Sender<bool>,
}

impl World {
    fn new() -> World {
        // Digests come quickly, so that the run meets them; closed connections may still be counted for a moment.
        let options = talk::options()
            .set("notifications.digest_threshold", 4)
            .set("notifications.digest_window_seconds", 1)
            .set("notifications.digest_every_seconds", 0.3)
            .set("limits.connections_per_user", 1_000)
            .set("presence.offline_after_seconds", 60);
        World {
            server: RwLock::new(spawn(options)),
            conversations: Mutex::default(),
            messages: Mutex::default(),
            done: AtomicUsize::new(0),
            acted: Notify::new(),
            cuts: (0..USERS.len() * DEVICES_PER_USER)
                .map(|_| Notify::new())
                .collect(),
            is_over: watch::Sender::new(false),
        }
    }

    /// Kills the server once or twice, in the midst of what the users do.
    async fn kill(&self, mut rng: Rng) {
        let total = USERS.len() * ACTIONS_PER_USER;
        let mut moments: Vec<usize> = (0..rng.usize(1..=2))
            .map(|_| rng.usize(total / 8..total * 7 / 8))
            .collect();
        moments.sort_unstable();
        for moment in moments {
            while self.done.load(Ordering::SeqCst) < moment {
                self.acted.notified().await;
            }
            let mut server = self.server.write().await;
            server.kill9();
            server.restart();
        }
    }
}

async fn run(seed: u64) {
    println!("CONVERGE_SEED={seed}");
    let world = World::new();
    let mut seeds = Rng::with_seed(seed);
    let actors = USERS.map(|user| actor::act(&world, user, seeds.fork()));
    let nemesis = world.kill(seeds.fork());
    let devices: Vec<_> = (0..world.cuts.len())
        .map(|number| device::live(&world, number, seeds.fork()))
        .collect();
    let writing = async {
        futures_util::future::join(futures_util::future::join_all(actors), nemesis).await;
        // Nothing is due any more before the devices are looked at.
        let server = world.server.read().await;
        ending::settle(&server).await;
        drop(server);
        world.is_over.send_replace(true);
    };
    let (_, known) =
        futures_util::future::join(writing, futures_util::future::join_all(devices)).await;
    let server = world.server.into_inner();
    ending::check(&server, known, &mut seeds).await;
    server.assert_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_converges() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    let seeds = match (number("CONVERGE_SEED"), number("CONVERGE_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (1..=count).collect(),
        (None, None) => SEEDS.to_vec(),
    };
    for seed in seeds {
        run(seed).await;
    }
}

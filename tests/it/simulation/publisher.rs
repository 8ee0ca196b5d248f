//! Publishers and subscribers: they ask, lose patience, ask again, and never wait for each other.
//!
//! Promises: each request runs as its own task in the server's life that it met; an answer counts when it was given,
//! also to a caller who has gone. Only what has an idempotency key is asked for twice.

use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use tidings::event::{Draft, Event, Json};
use tidings::features::subscribe;
use tidings::publish::{self, Audience, Publication, PublishError, Receipt};
use tidings::store::keys;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::oracle::{Change, To};
use super::plan::HOUR_MS;
use super::world::World;

/// How often one thing is asked for.
const ATTEMPTS_MAX: u32 = 6;
/// Items of a batch whose rows do not fit one batch of the engine.
const LARGE_ITEMS: usize = 300;

/// One publisher's work, from beginning to end.
pub async fn publish(world: Rc<World>, mut rng: Rng, does_large: bool) {
    let mut asked = Vec::new();
    for number in 0..world.plan.publications {
        sleep(Duration::from_millis(rng.u64(0..150))).await;
        for _ in 0..[1, 1, 1, 4][rng.usize(0..4)] {
            let items = match rng.u8(0..6) {
                _ if does_large && number == 2 => LARGE_ITEMS,
                0 => rng.usize(2..6),
                _ => 1,
            };
            let wishes = wishes(&world, &mut rng, items);
            asked.push(spawn_local(ask(Rc::clone(&world), rng.fork(), wishes)));
        }
        if rng.bool() {
            let last = asked.pop().expect("something was asked for");
            last.await.expect("a publisher does not panic");
        }
    }
    for task in asked {
        task.await.expect("a publisher does not panic");
    }
}

fn wishes(world: &World, rng: &mut Rng, items: usize) -> Vec<usize> {
    let is_keyed = items > 10 || rng.u8(0..10) < 7;
    let mut oracle = world.oracle.borrow_mut();
    let batch = (items > 1).then(|| oracle.batch());
    let wish = |_| {
        let to = match rng.u8(0..10) {
            0..=1 if batch.is_none() => To::Topic(rng.usize(0..world.plan.topics)),
            2..=3 => {
                let mut users: Vec<usize> = (0..world.plan.users).collect();
                rng.shuffle(&mut users);
                users.truncate(rng.usize(1..=world.plan.users));
                // One user named alone gets a position in the receipt, a list of one does not.
                To::Users(users)
            }
            _ => To::Users(vec![rng.usize(0..world.plan.users)]),
        };
        oracle.wish(to, batch, is_keyed, world.now_ms())
    };
    (0..items).map(wish).collect()
}

/// Asks until there is an answer, as often as that is harmless.
async fn ask(world: Rc<World>, mut rng: Rng, wishes: Vec<usize>) {
    for attempt in 0..ATTEMPTS_MAX {
        if attempt > 0 && is_late(&world, wishes[0]) {
            return;
        }
        let publications: Vec<Publication> = wishes
            .iter()
            .map(|wish| publication(&world, &mut rng, *wish, attempt))
            .collect();
        let request = spawn_local(request(Rc::clone(&world), wishes.clone(), publications));
        let patience = Duration::from_millis(rng.u64(1..=400));
        let is_acked = matches!(timeout(patience, request).await, Ok(Ok(true)));
        let (is_keyed, is_mismatch) = {
            let first = &world.oracle.borrow().wishes[wishes[0]];
            (first.is_keyed, first.is_mismatch)
        };
        // What was acknowledged is sometimes asked for again, as by a caller who lost the answer.
        if is_mismatch || !is_keyed || (is_acked && rng.u8(0..4) > 0) {
            break;
        }
        if is_acked && wishes.len() == 1 && rng.bool() {
            misuse(&world, &mut rng, wishes[0]).await;
        }
        sleep(Duration::from_millis(rng.u64(0..300))).await;
    }
}

/// Whether the key may be forgotten soon: then asking again could append again.
fn is_late(world: &World, wish: usize) -> bool {
    let first_ms = world.oracle.borrow().wishes[wish].invoked_ms;
    world.now_ms() + HOUR_MS >= first_ms + 24 * HOUR_MS
}

/// Uses the key of one thing for another, which must be refused.
async fn misuse(world: &Rc<World>, rng: &mut Rng, wish: usize) {
    let other = {
        let mut oracle = world.oracle.borrow_mut();
        let first = oracle.wishes[wish].clone();
        let other = oracle.wish(first.to, None, true, first.invoked_ms);
        oracle.wishes[other].is_mismatch = true;
        other
    };
    let mut misused = publication(world, rng, other, 0);
    misused.keys = vec![key(wish)];
    spawn_local(request(Rc::clone(world), vec![other], vec![misused]))
        .await
        .expect("a request does not panic");
}

/// One request to the life of the server that it finds. Tells whether it was acknowledged.
async fn request(world: Rc<World>, wishes: Vec<usize>, mut publications: Vec<Publication>) -> bool {
    let store = world.life().await.store;
    let answer: Result<Vec<Receipt>, PublishError> = match publications.len() {
        1 => {
            let publication = publications.pop().expect("there is one");
            let receipt = publish::publish(&store, publication).await;
            receipt.map(|receipt| vec![receipt])
        }
        _ => {
            let receipts = publish::publish_together(&store, publications).await;
            receipts.map_err(|refused| refused.error)
        }
    };
    drop(store);
    match answer {
        Ok(receipts) => {
            for (wish, receipt) in wishes.iter().zip(receipts) {
                let position = receipt.position.map(|position| position.to_string());
                world.note(format_args!(
                    "w{wish} acked as {} at {position:?}, duplicate {}",
                    receipt.id, receipt.is_duplicate
                ));
                world.oracle.borrow_mut().acked(*wish, receipt);
            }
            true
        }
        Err(PublishError::Mismatch) => {
            if !world.oracle.borrow().wishes[wishes[0]].is_mismatch {
                world.violation(format_args!("wish {} was refused as a mismatch", wishes[0]));
            }
            false
        }
        Err(PublishError::UnknownConversation) => {
            world.violation(format_args!("wish {} names no conversation", wishes[0]));
            false
        }
        Err(PublishError::Store(error)) => {
            world.note(format_args!("w{} not answered: {error}", wishes[0]));
            false
        }
    }
}

fn key(wish: usize) -> [u8; 16] {
    keys::hash(&[b"wish", &wish.to_le_bytes()])
}

fn publication(world: &World, rng: &mut Rng, wish: usize, attempt: u32) -> Publication {
    let (to, is_keyed) = {
        let wish = &world.oracle.borrow().wishes[wish];
        (wish.to.clone(), wish.is_keyed)
    };
    let length = [0, 3, 40, 300, 5_000][rng.usize(0..50) / 10 * usize::from(rng.u8(0..4) == 0)];
    let topic = match &to {
        To::Topic(topic) => Some(world.topic(*topic)),
        To::Users(_) => None,
    };
    let draft = Draft {
        id: format!("w{wish}.{attempt}").parse().expect("plain"),
        event_type: ["a.new", "b.new", "b.old"][rng.usize(0..3)]
            .parse()
            .expect("plain"),
        time_ms: world.now_ms(),
        topic: topic.clone(),
        actor: None,
        data: Json::of(&"x".repeat(length).into()),
        exclude_conn: (rng.u8(0..6) == 0).then(|| "c1".parse().expect("plain")),
    };
    let event = Event::of(&draft);
    let id = event.id().to_owned();
    let mut oracle = world.oracle.borrow_mut();
    oracle.attempts.insert(id, (wish, event.clone()));
    let audience = match to {
        To::Users(users) if users.len() == 1 => Audience::User(world.user(users[0])),
        To::Users(users) => Audience::Users(users.iter().map(|user| world.user(*user)).collect()),
        To::Topic(topic) => Audience::Topic(world.topic(topic)),
    };
    Publication {
        event,
        to: audience,
        keys: if is_keyed {
            vec![key(wish)]
        } else {
            Vec::new()
        },
        fingerprint: keys::hash(&[&wish.to_le_bytes()]),
    }
}

/// Joins and leaves topics, one change after another.
pub async fn subscribe(world: Rc<World>, mut rng: Rng) {
    for _ in 0..world.plan.publications {
        sleep(Duration::from_millis(rng.u64(0..200))).await;
        let pair = (
            rng.usize(0..world.plan.users),
            rng.usize(0..world.plan.topics),
        );
        let does_join = rng.u8(0..3) > 0;
        let store = world.life().await.store;
        let place = {
            let mut oracle = world.oracle.borrow_mut();
            let invoked = oracle.moment();
            let changes = oracle.changes.entry(pair).or_default();
            changes.push(Change {
                invoked,
                done: None,
                is_acked: false,
                does_join,
            });
            changes.len() - 1
        };
        let change = match does_join {
            true => subscribe::Change::Join,
            false => subscribe::Change::Leave,
        };
        let (user, topic) = (world.user(pair.0), world.topic(pair.1));
        let answer = subscribe::change(&store, topic, user, change).await;
        drop(store);
        world.note(format_args!("{pair:?} joins {does_join}: {answer:?}"));
        let mut oracle = world.oracle.borrow_mut();
        let done = oracle.moment();
        let change = &mut oracle.changes.get_mut(&pair).expect("entered above")[place];
        change.done = Some(done);
        change.is_acked = answer.is_ok();
    }
}

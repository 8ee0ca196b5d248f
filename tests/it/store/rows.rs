//! What a command sees of the rows: those of all commands before it, also of its own group, and what it changed itself.
//!
//! Promises: random commands, many to a group, see exactly what one map after the other would show them. It knows
//! nothing of what the rows mean.

use std::collections::BTreeMap;

use fastrand::Rng;
use futures_util::future::join_all;
use tidings::store::shared::StoreError;
use tidings::store::transaction::Transaction;

use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Scan(Vec<u8>, Vec<u8>, usize),
    Last(Vec<u8>, Vec<u8>),
    Get(Vec<u8>),
}

#[derive(Debug, PartialEq)]
enum Sight {
    Rows(Vec<(Vec<u8>, Vec<u8>)>),
    Key(Option<Vec<u8>>),
    Value(Option<Vec<u8>>),
}

/// One of few keys, so that commands meet each other's rows.
fn some_key(rng: &mut Rng) -> Vec<u8> {
    let letters = rng.usize(0..3);
    let name: Vec<u8> = (0..letters).map(|_| b"ab\0"[rng.usize(0..3)]).collect();
    keys::state(b'z', &name)
}

fn step(rng: &mut Rng) -> Step {
    let keys = [some_key(rng), some_key(rng)];
    let (a, b) = match keys[0] <= keys[1] {
        true => (keys[0].clone(), keys[1].clone()),
        false => (keys[1].clone(), keys[0].clone()),
    };
    match rng.u8(0..10) {
        0..=3 => Step::Put(a, vec![rng.u8(..)]),
        4..=5 => Step::Delete(a),
        6..=7 => Step::Scan(a, b, [1, 2, 5, usize::MAX][rng.usize(0..4)]),
        8 => Step::Last(a, b),
        _ => Step::Get(a),
    }
}

fn expected(model: &mut Model, step: &Step) -> Option<Sight> {
    let within = |model: &Model, from: &Vec<u8>, to: &Vec<u8>| -> Vec<(Vec<u8>, Vec<u8>)> {
        let is_meant = |key: &Vec<u8>| from <= key && key < to;
        let rows = model.iter().filter(|(key, _)| is_meant(key));
        rows.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    match step {
        Step::Put(key, value) => {
            model.insert(key.clone(), value.clone());
            None
        }
        Step::Delete(key) => {
            model.remove(key);
            None
        }
        Step::Scan(from, to, count_max) => {
            let mut rows = within(model, from, to);
            rows.truncate(*count_max);
            Some(Sight::Rows(rows))
        }
        Step::Last(from, to) => {
            let last = within(model, from, to).pop();
            Some(Sight::Key(last.map(|(key, _)| key)))
        }
        Step::Get(key) => Some(Sight::Value(model.get(key).cloned())),
    }
}

fn seen(transaction: &mut Transaction<'_>, step: Step) -> Result<Option<Sight>, StoreError> {
    Ok(match step {
        Step::Put(key, value) => {
            transaction.put(key, value);
            None
        }
        Step::Delete(key) => {
            transaction.delete(key);
            None
        }
        Step::Scan(from, to, count_max) => {
            Some(Sight::Rows(transaction.scan(&from, &to, count_max)?))
        }
        Step::Last(from, to) => Some(Sight::Key(transaction.last_key(&from, &to)?)),
        Step::Get(key) => Some(Sight::Value(transaction.get(&key)?)),
    })
}

#[tokio::test(start_paused = true)]
async fn a_command_sees_what_all_before_it_left() {
    for seed in 0..60 {
        let mut rng = Rng::with_seed(seed);
        let bench = Bench::new(KEEP_ALL);
        let mut model = Model::new();
        for _ in 0..6 {
            // Asked for together, so that they become one group.
            let mut commands = Vec::new();
            for _ in 0..rng.usize(1..12) {
                let steps: Vec<Step> = (0..rng.usize(1..12)).map(|_| step(&mut rng)).collect();
                let is_refused = rng.u8(0..5) == 0;
                commands.push((steps, is_refused));
            }
            let asked = commands.iter().cloned().map(|(steps, is_refused)| {
                bench.store.commit(64, move |transaction| {
                    let mut sights = Vec::new();
                    for step in steps {
                        sights.extend(seen(transaction, step).expect("the disk is healthy"));
                    }
                    match is_refused {
                        true => Err(Refused(sights)),
                        false => Ok(sights),
                    }
                })
            });
            let answers = join_all(asked).await;
            for ((steps, is_refused), answer) in commands.into_iter().zip(answers) {
                let mut after = model.clone();
                let wanted: Vec<Sight> = steps
                    .iter()
                    .filter_map(|step| expected(&mut after, step))
                    .collect();
                let got = answer.unwrap_or_else(|Refused(sights)| sights);
                assert_eq!(got, wanted, "seed {seed}");
                if !is_refused {
                    model = after;
                }
            }
        }
    }
}

/// A command that changed its mind, and what it saw.
struct Refused(Vec<Sight>);

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Refused {
        panic!("the disk is healthy: {error}")
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_has_one_time_from_its_first_word_to_its_last() {
    let bench = Bench::new(KEEP_ALL);
    let clock = bench.clock.clone();
    let look = bench.store.look(move |transaction| {
        let first = transaction.now_ms();
        clock.advance_ms(1);
        Ok((first, transaction.now_ms()))
    });
    assert_eq!(look.await.unwrap(), (NOON_MS, NOON_MS));
    let next = bench.store.look(|transaction| Ok(transaction.now_ms()));
    assert_eq!(next.await.unwrap(), NOON_MS + 1);
}

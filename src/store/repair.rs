//! Making a damaged store whole: what is lost is taken out so that every log is dense again and its readers are told.
//!
//! Promises: no event that a reader can still have without a hole before it is given up; a log that lost events begins
//! behind them, so that its readers get a reset; after it a survey finds nothing. It works on a store at rest and may
//! be run again after it was cut short.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::event::UserId;
use crate::id::{Random, UserNo};
use crate::store::engine::{BATCH_OPS_MAX, EngineError, Op, Rows};
use crate::store::index;
use crate::store::inspect::{Finding, Log, Survey};
use crate::store::intent;
use crate::store::keys;
use crate::store::logs::{Fresh, Head};
use crate::store::read;

/// What had to be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenUp {
    /// Readers of this log begin at `floor` now.
    Events { name: UserId, floor: u64, tail: u64 },
    /// The log of a user whom no row names any more.
    Log { user: UserNo },
}

/// Whether every log begins a new life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epochs {
    Keep,
    Renew,
}

pub struct Repair<'a> {
    pub rows: &'a Rows,
    /// What was found in these rows.
    pub survey: &'a Survey,
    pub epochs: Epochs,
    /// Newest commit that was on stable storage for certain; its number is not given again.
    pub marked: Option<u64>,
    pub random: &'a Random,
}

/// Finishes or clears away a command that was cut short, as every start does; one that is damaged is cleared away.
pub fn settle(rows: &Rows) -> Result<(), EngineError> {
    match intent::redo(rows) {
        Err(EngineError::Damaged { .. }) => {
            let (from, to) = keys::intents();
            delete_between(rows, &from, &to)
        }
        result => result,
    }
}

impl Repair<'_> {
    /// Gives the newest commit number, and what was given up.
    pub fn run(&self) -> Result<(u64, Vec<GivenUp>), EngineError> {
        self.remove_damage()?;
        let mut given_up = Vec::new();
        let mut floors = Vec::with_capacity(self.survey.logs.len());
        let ill: HashSet<&UserId> = self.survey.findings.iter().filter_map(log_of).collect();
        for (user, log) in (0u32..).zip(&self.survey.logs) {
            let user = UserNo(user);
            let head = match &log.head {
                Some(head) if ill.contains(&head.name) || log.tail() > head.tail => {
                    let head = self.whole_log(user, log, head)?;
                    let is_shorter =
                        ill.contains(&head.name) && !log.lost(head_floor(log)).is_empty();
                    given_up.extend(is_shorter.then(|| GivenUp::Events {
                        name: head.name.clone(),
                        floor: head.floor,
                        tail: head.tail,
                    }));
                    head
                }
                Some(head) => head.clone(),
                None => {
                    given_up.push(GivenUp::Log { user });
                    self.lost_log(user, log)?
                }
            };
            floors.push(head.kept_from);
        }
        let live_bytes = self.remove_unkept(&floors)?;
        let newest = self.survey.newest.max(self.marked.unwrap_or(0));
        let mut live = (newest + 1).to_le_bytes().to_vec();
        live.extend_from_slice(&live_bytes.to_le_bytes());
        let mut ops = vec![
            Op::Put(keys::meta("indexed"), newest.to_le_bytes().to_vec()),
            Op::Put(keys::meta("live"), live),
        ];
        if self.epochs == Epochs::Renew || self.survey.is_end_in_doubt {
            let generation = self.random.number().to_le_bytes().to_vec();
            ops.push(Op::Put(keys::meta("generation"), generation));
        }
        self.rows.apply(ops)?;
        self.rows.sync()?;
        Ok((newest, given_up))
    }

    /// Takes away rows that are no rows and records that are not whole.
    fn remove_damage(&self) -> Result<(), EngineError> {
        for finding in &self.survey.findings {
            match finding {
                Finding::Row { key } => self.rows.apply(vec![Op::Delete(key.clone())])?,
                Finding::Record { commit } => {
                    let (from, to) = (keys::record(*commit, 0), keys::record(*commit + 1, 0));
                    delete_between(self.rows, &from, &to)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes user row and index blocks of a log from its records, beginning behind what it lost.
    fn whole_log(&self, user: UserNo, log: &Log, head: &Head) -> Result<Head, EngineError> {
        let tail = log.tail();
        let floor = log
            .lost(head.floor)
            .last()
            .map_or(head.floor, |run| run.end() + 1);
        let mut whole = Head {
            tail,
            assigned: tail,
            floor,
            kept_from: floor,
            bytes: 0,
            oldest_ms: 0,
            fresh: (floor..=tail).filter_map(|seq| log.commit(seq)).collect(),
            ..head.clone()
        };
        for commit in whole.fresh.iter() {
            let Some(header) = read::header(self.rows, *commit)? else {
                continue;
            };
            whole.bytes += header.retained_bytes();
            if whole.oldest_ms == 0 {
                whole.oldest_ms = header.time_ms;
            }
        }
        // Its old blocks go first: what they say below the floor is not true any more.
        let (from, to) = (keys::block(user, 1), keys::block(UserNo(user.0 + 1), 1));
        delete_between(self.rows, &from, &to)?;
        in_steps(self.rows, index::write_ops(self.rows, user, &whole)?)?;
        whole.fresh = Fresh::default();
        Ok(whole)
    }

    /// Keeps the number of a log that nobody can name any more, so that it is not given to anyone else.
    fn lost_log(&self, user: UserNo, log: &Log) -> Result<Head, EngineError> {
        let (tail, floor) = (log.tail(), log.tail() + 1);
        let head = Head {
            tail,
            assigned: tail,
            floor,
            kept_from: floor,
            ..Head::lost(user)
        };
        let (from, to) = (keys::block(user, 1), keys::block(UserNo(user.0 + 1), 1));
        delete_between(self.rows, &from, &to)?;
        self.rows
            .apply(vec![Op::Put(keys::user(user), index::encode_user(&head))])?;
        Ok(head)
    }

    /// Deletes records that no log keeps any more. Gives the bytes of the others.
    fn remove_unkept(&self, floors: &[u64]) -> Result<u64, EngineError> {
        let mut commits = HashSet::new();
        for (log, floor) in self.survey.logs.iter().zip(floors) {
            commits.extend((*floor..=log.tail()).filter_map(|seq| log.commit(seq)));
        }
        let mut live_bytes = 0;
        let mut ops = Vec::new();
        let (from, to) = (keys::record(0, 0), keys::records_end());
        self.rows.scan(&from, &to, &mut |key, value| {
            match keys::parse_record(key).is_some_and(|(commit, _)| commits.contains(&commit)) {
                true => live_bytes += value.len() as u64,
                false => ops.push(Op::Delete(key.to_vec())),
            }
            ControlFlow::Continue(())
        })?;
        in_steps(self.rows, ops)?;
        Ok(live_bytes)
    }
}

fn log_of(finding: &Finding) -> Option<&UserId> {
    match finding {
        Finding::Lost { name, .. } | Finding::Index { name } => Some(name),
        _ => None,
    }
}

fn head_floor(log: &Log) -> u64 {
    log.head.as_ref().map_or(1, |head| head.floor)
}

fn delete_between(rows: &Rows, from: &[u8], to: &[u8]) -> Result<(), EngineError> {
    let mut ops = Vec::new();
    rows.scan_all(from, to, &mut |key, _| {
        ops.push(Op::Delete(key.to_vec()));
        ControlFlow::Continue(())
    })?;
    in_steps(rows, ops)
}

fn in_steps(rows: &Rows, ops: Vec<Op>) -> Result<(), EngineError> {
    ops.chunks(BATCH_OPS_MAX)
        .try_for_each(|step| rows.apply(step.to_vec()))
}

#[cfg(test)]
pub mod tests;

//! Who is subscribed to which topic, in memory: the audience of a publish to a topic.
//!
//! Promises: users of a topic stand sorted, four bytes each. The committer alone reads and changes it; the rows are
//! the truth, and `load` reads them at open.

use std::collections::HashMap;
use std::ops::ControlFlow;

use crate::event::Topic;
use crate::id::UserNo;
use crate::store::engine::{EngineError, Rows};
use crate::store::keys;

#[derive(Default)]
pub struct Topics(HashMap<Topic, Vec<UserNo>>);

impl Topics {
    pub fn load(rows: &Rows) -> Result<Topics, EngineError> {
        let mut topics = Topics::default();
        let (from, to) = keys::subscriptions();
        rows.scan(&from, &to, &mut |key, _| {
            match keys::parse_subscription(key) {
                Some((topic, user)) => topics.add(&topic, user),
                None => tracing::error!("a subscription row has an unknown key; it is left out"),
            }
            ControlFlow::Continue(())
        })?;
        Ok(topics)
    }

    /// The topic's users, in the order of their numbers.
    pub fn users(&self, topic: &Topic) -> &[UserNo] {
        self.0.get(topic).map_or(&[], Vec::as_slice)
    }

    pub fn add(&mut self, topic: &Topic, user: UserNo) {
        let users = self.0.entry(topic.clone()).or_default();
        if let Err(place) = users.binary_search(&user) {
            users.insert(place, user);
        }
    }

    pub fn remove(&mut self, topic: &Topic, user: UserNo) {
        let Some(users) = self.0.get_mut(topic) else {
            return;
        };
        if let Ok(place) = users.binary_search(&user) {
            users.remove(place);
        }
        if users.is_empty() {
            self.0.remove(topic);
        }
    }
}

/// Users of a topic from the rows, in the order of their numbers, at most `count_max` after `after`.
pub fn subscribers(
    rows: &Rows,
    topic: &Topic,
    after: Option<UserNo>,
    count_max: usize,
) -> Result<Vec<UserNo>, EngineError> {
    let (first, end) = keys::topic_subscriptions(topic);
    let from = after.map_or(first, |user| {
        let mut next = keys::subscription(topic, user);
        next.push(0);
        next
    });
    let mut users = Vec::new();
    rows.scan(&from, &end, &mut |key, _| {
        users.extend(keys::parse_subscription(key).map(|(_, user)| user));
        match users.len() < count_max {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(users)
}

/// Topics of one user from the rows, at most `count_max` after `after`. It walks through all subscriptions.
pub fn of(
    rows: &Rows,
    user: UserNo,
    after: Option<&Topic>,
    count_max: usize,
) -> Result<Vec<Topic>, EngineError> {
    let mut topics = Vec::new();
    let (first, to) = keys::subscriptions();
    let from = after.map_or(first, |topic| {
        let mut next = keys::subscription(topic, user);
        next.push(0);
        next
    });
    rows.scan(&from, &to, &mut |key, _| {
        let subscription = keys::parse_subscription(key).filter(|(_, other)| *other == user);
        topics.extend(subscription.map(|(topic, _)| topic));
        match topics.len() < count_max {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(topics)
}

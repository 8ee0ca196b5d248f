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

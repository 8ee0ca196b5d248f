//! Who types where: the state machine of typing, without clock, store or network.
//!
//! Promises: of one user and conversation at most one start is told in `repeat`; a start within that time after a stop
//! waits for its end; every start that was told is followed by a stop, at the latest `clear` after the last start that
//! was asked for. A typist costs memory only while it types.

use std::collections::{BTreeMap, BTreeSet};

use crate::deadlines::{Deadlines, Ms};
use crate::event::ConversationId;
use crate::id::UserNo;

/// Who types where.
pub type Place = (ConversationId, UserNo);

/// Typists at a time; past that a start is not taken up.
const TYPISTS_MAX: usize = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Start,
    Stop,
}

#[derive(Debug)]
pub struct Typists {
    repeat: Ms,
    clear: Ms,
    typists: BTreeMap<Place, Typist>,
    by_user: BTreeMap<UserNo, BTreeSet<ConversationId>>,
    due: Deadlines<Place>,
}

#[derive(Debug)]
struct Typist {
    /// Until when it types, without another start.
    until: Option<Ms>,
    /// The others heard a start and no stop since.
    is_told: bool,
    /// A start came that the others must hear, as it renews the one that they heard.
    is_renewed: bool,
    /// No start is told before.
    quiet_until: Ms,
}

impl Typists {
    pub fn new(repeat: Ms, clear: Ms) -> Typists {
        Typists {
            repeat,
            clear,
            typists: BTreeMap::new(),
            by_user: BTreeMap::new(),
            due: Deadlines::default(),
        }
    }

    pub fn start(&mut self, place: Place, now: Ms) {
        if self.typists.len() >= TYPISTS_MAX && !self.typists.contains_key(&place) {
            return;
        }
        let places = self.by_user.entry(place.1).or_default();
        places.insert(place.0.clone());
        let typist = self.typists.entry(place.clone()).or_insert(Typist {
            until: None,
            is_told: false,
            is_renewed: false,
            quiet_until: now,
        });
        typist.until = Some(now + self.clear);
        typist.is_renewed |= typist.is_told && now >= typist.quiet_until;
        self.refresh(place, now);
    }

    pub fn stop(&mut self, place: Place, now: Ms) {
        if let Some(typist) = self.typists.get_mut(&place) {
            typist.until = None;
            self.refresh(place, now);
        }
    }

    /// The user types nowhere any more.
    pub fn gone(&mut self, user: UserNo, now: Ms) {
        let places = self.by_user.get(&user).cloned().unwrap_or_default();
        for conversation in places {
            self.stop((conversation, user), now);
        }
    }

    /// Who types in the conversation as the others heard, and for how long at most.
    pub fn typing(&self, conversation: &ConversationId, now: Ms) -> Vec<(UserNo, Ms)> {
        let from = (conversation.clone(), UserNo(0));
        let to = (conversation.clone(), UserNo(u32::MAX));
        let left = |until: Option<Ms>| until.map_or(0, |until| until.saturating_sub(now));
        self.typists
            .range(from..=to)
            .filter(|(_, typist)| typist.is_told && left(typist.until) > 0)
            .map(|((_, user), typist)| (*user, left(typist.until)))
            .collect()
    }

    pub fn is_empty(&self) -> bool {
        self.typists.is_empty()
    }

    pub fn next_due(&self) -> Option<Ms> {
        self.due.next()
    }

    /// What must be told now; it counts as told from here on.
    pub fn take_due(&mut self, now: Ms, count_max: usize) -> Vec<(Place, Change)> {
        let mut changes = Vec::new();
        while changes.len() < count_max
            && let Some(place) = self.due.take(now)
        {
            let Some(typist) = self.typists.get_mut(&place) else {
                continue;
            };
            typist.until = typist.until.filter(|until| *until > now);
            let is_typing = typist.until.is_some();
            if typist.is_told && !is_typing {
                (typist.is_told, typist.is_renewed) = (false, false);
                changes.push((place.clone(), Change::Stop));
            } else if is_typing
                && now >= typist.quiet_until
                && (typist.is_renewed || !typist.is_told)
            {
                (typist.is_told, typist.is_renewed) = (true, false);
                typist.quiet_until = now + self.repeat;
                changes.push((place.clone(), Change::Start));
            }
            self.refresh(place, now);
        }
        changes
    }

    fn refresh(&mut self, place: Place, now: Ms) {
        let Some(typist) = self.typists.get(&place) else {
            return;
        };
        let at = match typist.until {
            Some(until) if typist.is_told && !typist.is_renewed => until,
            Some(until) => until.min(typist.quiet_until.max(now)),
            None if typist.is_told => now,
            // What was told last is remembered until another start may be told.
            None if typist.quiet_until > now => typist.quiet_until,
            None => {
                self.typists.remove(&place);
                if let Some(places) = self.by_user.get_mut(&place.1) {
                    places.remove(&place.0);
                    if places.is_empty() {
                        self.by_user.remove(&place.1);
                    }
                }
                self.due.set(place, None);
                return;
            }
        };
        self.due.set(place, Some(at));
    }
}

#[cfg(test)]
mod tests;

//! Who is here: the state machine of presence over all users, without clock, store or network.
//!
//! Promises: of several connections the most available counts; what was set by hand wins while the user is here; one
//! whose last connection was cut is here a while longer; after any change the others are told the latest state,
//! and of one user at most once in `TELL_EVERY_MS`. A user who is only connected costs one entry of 48 bytes.

use std::collections::HashMap;

use crate::clock::UnixMs;
use crate::deadlines::{Deadlines, Ms};
use crate::event::ConnId;
use crate::features::person::{Person, Said, Shown, Status};
use crate::id::UserNo;

/// Others hear of one user's changes at most this often: the first at once, then the latest.
pub const TELL_EVERY_MS: Ms = 1_000;
/// Users remembered while they are not here; past that all of them are forgotten and read again when asked for.
const REMEMBERED_MAX: usize = 100_000;

/// What the store knows of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub by_hand: Said,
    /// When it was last here; 0 = never.
    pub seen_ms: UnixMs,
    pub is_hidden: bool,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It broke, or its client may be about to come back.
    Cut,
    /// It was closed on purpose.
    Closed,
}

/// What follows from a user's state now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tell {
    /// For those who may see the user.
    pub others: Option<Shown>,
    /// For the user's own connections: it said something of itself on one of them.
    pub own: Option<Shown>,
    /// Whether the user is here, where the store must note a change of that.
    pub is_here: Option<bool>,
    /// When the user was last here, where the store must note it.
    pub seen_ms: Option<UnixMs>,
}

impl Tell {
    pub fn is_nothing(&self) -> bool {
        *self == Tell::default()
    }
}

/// Everyone who is here or was asked for. The time is passed in.
#[derive(Debug)]
pub struct People {
    offline_after: Ms,
    known: HashMap<UserNo, Person>,
    due: Deadlines<UserNo>,
    /// Nothing changes any more: the server is stopping, and nobody is to seem to leave.
    is_frozen: bool,
    /// As many known users call for forgetting some.
    sweep_at: usize,
    /// Counts what may have given someone an audience, so that an older look at it is not believed.
    acquaintances: u64,
}

impl People {
    pub fn new(offline_after: Ms) -> People {
        People {
            offline_after,
            known: HashMap::new(),
            due: Deadlines::default(),
            is_frozen: false,
            sweep_at: REMEMBERED_MAX,
            acquaintances: 0,
        }
    }

    /// The user was here when the server stopped, and has some time to come back.
    pub fn returning(&mut self, user: UserNo, seen_ms: UnixMs, now: Ms) {
        let until = now + self.offline_after;
        let person = self.person(user, now);
        (person.told, person.is_marked) = (Status::Online, true);
        (person.seen_ms, person.is_seen_due) = (seen_ms, true);
        person.rare().lingering.push(until);
        self.refresh(user, now);
    }

    pub fn opened(&mut self, user: UserNo, now: Ms) {
        let person = self.person(user, now);
        person.open += 1;
        if let Some(rare) = &mut person.rare
            && !rare.lingering.is_empty()
        {
            rare.lingering.remove(0);
            rare.forget_left();
        }
        self.refresh(user, now);
    }

    /// Tells how many connections of the user are left.
    pub fn ended(
        &mut self,
        user: UserNo,
        conn: &ConnId,
        departure: Departure,
        (now, now_ms): (Ms, UnixMs),
    ) -> u32 {
        let (is_frozen, until) = (self.is_frozen, now + self.offline_after);
        let person = self.person(user, now);
        person.open = person.open.saturating_sub(1);
        let left = person.open;
        if is_frozen {
            return left;
        }
        let said = person.forget_said(conn);
        if departure == Departure::Cut && until > now {
            let rare = person.rare();
            rare.lingering.push(until);
            rare.left = said;
        }
        if left == 0 {
            person.was_seen(now_ms);
        }
        self.refresh(user, now);
        left
    }

    /// One connection tells how its user is; without a status and activity it says no more than that it is open.
    pub fn say(&mut self, user: UserNo, conn: ConnId, said: Said, now: Ms) {
        let person = self.person(user, now);
        person.forget_said(&conn);
        if !said.is_nothing() && person.said().len() < person.open as usize {
            person.rare().own.push((conn, said));
        }
        self.refresh(user, now);
    }

    /// The user tells how it is, on whatever connection. Who does so without one is here for a while.
    pub fn say_by_hand(&mut self, user: UserNo, said: Said, (now, now_ms): (Ms, UnixMs)) {
        let until = now + self.offline_after;
        let person = self.person(user, now);
        if said.status == Some(Status::Offline) {
            person.was_seen(now_ms);
        } else if person.open == 0 {
            person.was_seen(now_ms);
            person.rare().lingering = vec![until];
        }
        person.rare().by_hand = said;
        (person.is_own_due, person.is_plain) = (true, false);
        self.refresh(user, now);
    }

    /// What the store says of the user, where it was not known yet.
    pub fn load(&mut self, user: UserNo, facts: Facts, now: Ms) {
        self.sweep();
        let person = self.person(user, now);
        if person.is_loaded {
            return;
        }
        (person.is_loaded, person.is_hidden) = (true, facts.is_hidden);
        person.seen_ms = person.seen_ms.max(facts.seen_ms);
        if !facts.by_hand.is_nothing() {
            person.rare().by_hand = facts.by_hand;
        }
        self.refresh(user, now);
    }

    /// The user chose who may see it. One who is not known yet will be loaded with its choice.
    pub fn choose(&mut self, user: UserNo, is_hidden: bool, now: Ms) {
        if let Some(person) = self.known.get_mut(&user) {
            (person.is_hidden, person.is_plain) = (is_hidden, false);
            self.refresh(user, now);
        }
    }

    /// These have got to know others, who must hear how they are.
    pub fn acquainted(&mut self, users: &[UserNo], now: Ms) {
        self.acquaintances += 1;
        for user in users {
            if let Some(person) = self.known.get_mut(user) {
                person.is_plain = false;
                person.told_as(&Shown::NOBODY);
                self.refresh(*user, now);
            }
        }
    }

    /// There is someone now who sees the user, or whom it sees.
    pub fn has_somebody(&mut self, user: UserNo, now: Ms) {
        self.acquaintances += 1;
        if let Some(person) = self.known.get_mut(&user) {
            person.is_plain = false;
            self.refresh(user, now);
        }
    }

    /// Changes with everything that may give someone an audience. Read it before looking for one.
    pub fn acquaintances(&self) -> u64 {
        self.acquaintances
    }

    /// A look at `acquaintances` found nobody whose business the user is.
    pub fn has_nobody(&mut self, user: UserNo, acquaintances: u64, now: Ms) {
        if acquaintances == self.acquaintances
            && let Some(person) = self.known.get_mut(&user)
        {
            person.is_plain = true;
            self.refresh(user, now);
        }
    }

    pub fn is_plain(&self, user: UserNo) -> bool {
        self.known.get(&user).is_some_and(|person| person.is_plain)
    }

    pub fn freeze(&mut self) {
        self.is_frozen = true;
    }

    pub fn forget(&mut self, user: UserNo, now: Ms) {
        if let Some(person) = self.known.get_mut(&user) {
            let open = person.open;
            *person = Person {
                open,
                ..Person::default()
            };
            self.refresh(user, now);
        }
    }

    /// Whether the store has noted anyone as here.
    pub fn is_anyone_here(&self) -> bool {
        self.known.values().any(|person| person.is_marked)
    }

    /// Users whose rows must be read before anything can be said of them.
    pub fn must_load(&self, user: UserNo) -> bool {
        self.known.get(&user).is_none_or(|person| !person.is_loaded)
    }

    /// Whether the user is connected, or was a moment ago.
    pub fn is_here(&self, user: UserNo, now: Ms) -> bool {
        let known = self.known.get(&user);
        known.is_some_and(|person| person.automatic(now).0 != Status::Offline)
    }

    /// How others see the user; nobody where it is not loaded.
    pub fn seen_by_others(&self, user: UserNo, now: Ms) -> Shown {
        let known = self.known.get(&user);
        known.map_or(Shown::NOBODY, |person| person.to_others(now))
    }

    /// How the user sees itself.
    pub fn seen_by_itself(&self, user: UserNo, now: Ms) -> Shown {
        let known = self.known.get(&user);
        known.map_or(Shown::NOBODY, |person| person.shown(now))
    }

    /// Whether the user said something of itself by hand.
    pub fn has_said(&self, user: UserNo) -> bool {
        let rare = self
            .known
            .get(&user)
            .and_then(|person| person.rare.as_ref());
        rare.is_some_and(|rare| !rare.by_hand.is_nothing())
    }

    pub fn next_due(&self) -> Option<Ms> {
        match self.is_frozen {
            true => None,
            false => self.due.next(),
        }
    }

    /// Users of whom something may have to be told or noted now: settle each of them.
    pub fn take_due(&mut self, now: Ms, count_max: usize) -> Vec<UserNo> {
        match self.is_frozen {
            true => Vec::new(),
            false => std::iter::from_fn(|| self.due.take(now))
                .take(count_max)
                .collect(),
        }
    }

    /// What must be told and noted of the user now; it counts as done from here on.
    pub fn settle(&mut self, user: UserNo, now: Ms) -> Tell {
        let Some(person) = self.known.get_mut(&user) else {
            return Tell::default();
        };
        let mut tell = Tell::default();
        person.drop_expired(now);
        let is_here = person.automatic(now).0 != Status::Offline;
        if (is_here && !person.is_plain) != person.is_marked {
            person.is_marked = !person.is_marked;
            tell.is_here = Some(person.is_marked);
        }
        if !is_here && std::mem::take(&mut person.is_seen_due) {
            tell.seen_ms = Some(person.seen_ms);
        }
        if now >= person.quiet_until && person.is_loaded {
            if std::mem::take(&mut person.is_own_due) {
                tell.own = Some(person.shown(now));
            }
            let others = person.to_others(now);
            if !person.was_told(&others) {
                person.told_as(&others);
                tell.others = Some(others);
            }
            if tell.own.is_some() || tell.others.is_some() {
                person.quiet_until = now + TELL_EVERY_MS;
            }
        }
        self.refresh(user, now);
        tell
    }

    fn person(&mut self, user: UserNo, now: Ms) -> &mut Person {
        let person = self.known.entry(user).or_default();
        person.drop_expired(now);
        person
    }

    /// Forgets those who are not here, once they are too many.
    fn sweep(&mut self) {
        if self.known.len() < self.sweep_at {
            return;
        }
        self.known.retain(|_, person| {
            let is_settled = !person.is_marked && !person.is_seen_due && !person.is_own_due;
            let is_here = person.open > 0 || person.rare.is_some();
            is_here || !is_settled || person.told != Status::Offline
        });
        self.sweep_at = REMEMBERED_MAX.max(self.known.len() * 2);
    }

    /// Sets the moment at which the user must be looked at again.
    fn refresh(&mut self, user: UserNo, now: Ms) {
        let Some(person) = self.known.get_mut(&user) else {
            return;
        };
        person.drop_rare_if_empty();
        let is_here = person.automatic(now).0 != Status::Offline;
        if person.is_plain {
            let shown = person.to_others(now);
            person.told_as(&shown);
        }
        let is_unheard = person.is_own_due || !person.was_told(&person.to_others(now));
        let is_unnoted =
            (is_here && !person.is_plain) != person.is_marked || (!is_here && person.is_seen_due);
        let at = match () {
            () if !person.is_loaded && (is_here || is_unnoted || person.is_own_due) => Some(now),
            () if person.is_loaded && is_unnoted => Some(now),
            () if person.is_loaded && is_unheard => Some(now.max(person.quiet_until)),
            () => None,
        };
        let lingers = (person.open == 0).then(|| person.lingering().last().copied());
        let at = at.into_iter().chain(lingers.flatten()).min();
        self.due.set(user, at);
    }
}

#[cfg(test)]
mod tests;

//! One user's presence: what its connections and the user itself said, and what follows from it.
//!
//! Promises: of several connections the most available counts; what was set by hand wins while the user is here; one
//! whose last connection was cut stays here as it was until its time is over. It knows nothing of others.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::deadlines::Ms;
use crate::event::{ConnId, Invalid};

const ACTIVITY_CHARS_MAX: usize = 64;

/// How available someone is, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Offline,
    Away,
    Busy,
    Online,
}

/// What someone is doing: 1 to 64 characters without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Activity(Box<str>);

impl std::str::FromStr for Activity {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Activity, Invalid> {
        let is_short = (1..=ACTIVITY_CHARS_MAX).contains(&text.chars().count());
        if is_short && !text.chars().any(char::is_control) {
            return Ok(Activity(text.into()));
        }
        let message = "activity must be 1 to 64 characters without control characters";
        Err(Invalid::new("invalid_activity", message))
    }
}

/// What someone sees of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub status: Status,
    pub activity: Option<Activity>,
    pub last_seen_ms: Option<UnixMs>,
}

impl Shown {
    /// How hidden users look, and those who were never here, and those who do not exist.
    pub const NOBODY: Shown = Shown {
        status: Status::Offline,
        activity: None,
        last_seen_ms: None,
    };

    fn is_told_as(&self, status: Status, activity: Option<&Activity>) -> bool {
        self.status == status && self.activity.as_ref() == activity
    }
}

/// What a user, or one of its connections, said of itself. Without a status the connections tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    pub status: Option<Status>,
    pub activity: Option<Activity>,
}

impl Said {
    pub fn is_nothing(&self) -> bool {
        *self == Said::default()
    }
}

#[derive(Debug)]
pub struct Person {
    pub open: u32,
    /// The status that the others heard last.
    pub told: Status,
    pub is_loaded: bool,
    pub is_hidden: bool,
    /// Nobody can see this user, it sees nobody, and it never said anything: its changes are nobody's business.
    pub is_plain: bool,
    /// The store has noted that the user is here.
    pub is_marked: bool,
    pub is_seen_due: bool,
    pub is_own_due: bool,
    pub seen_ms: UnixMs,
    /// The others hear nothing new before.
    pub quiet_until: Ms,
    pub rare: Option<Box<Rare>>,
}

/// What few have at a time.
#[derive(Debug, Default)]
pub struct Rare {
    /// Until when each cut connection counts as here, in order.
    pub lingering: Vec<Ms>,
    /// What the last connection that was cut had said.
    pub left: Said,
    /// What open connections said of themselves.
    pub own: Vec<(ConnId, Said)>,
    pub by_hand: Said,
    pub told_activity: Option<Activity>,
}

impl Rare {
    pub fn forget_left(&mut self) {
        if self.lingering.is_empty() {
            self.left = Said::default();
        }
    }
}

impl Default for Person {
    fn default() -> Person {
        Person {
            open: 0,
            told: Status::Offline,
            is_loaded: false,
            is_hidden: false,
            is_plain: false,
            is_marked: false,
            is_seen_due: false,
            is_own_due: false,
            seen_ms: 0,
            quiet_until: 0,
            rare: None,
        }
    }
}

impl Person {
    pub fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub fn lingering(&self) -> &[Ms] {
        self.rare.as_ref().map_or(&[], |rare| &rare.lingering)
    }

    pub fn said(&self) -> &[(ConnId, Said)] {
        self.rare.as_ref().map_or(&[], |rare| &rare.own)
    }

    pub fn by_hand(&self) -> Option<&Said> {
        self.rare.as_ref().map(|rare| &rare.by_hand)
    }

    pub fn forget_said(&mut self, conn: &ConnId) -> Said {
        let place = self.said().iter().position(|(other, _)| other == conn);
        place.map_or_else(Said::default, |place| self.rare().own.remove(place).1)
    }

    pub fn drop_expired(&mut self, now: Ms) {
        if let Some(rare) = &mut self.rare {
            rare.lingering.retain(|until| *until > now);
            rare.forget_left();
        }
        self.drop_rare_if_empty();
    }

    pub fn drop_rare_if_empty(&mut self) {
        let is_empty = |rare: &Rare| {
            rare.lingering.is_empty()
                && rare.own.is_empty()
                && rare.by_hand.is_nothing()
                && rare.told_activity.is_none()
        };
        if self.rare.as_ref().is_some_and(|rare| is_empty(rare)) {
            self.rare = None;
        }
    }

    /// Who looks offline by choice is not given away by a later time.
    pub fn was_seen(&mut self, now_ms: UnixMs) {
        let looks_offline = self
            .by_hand()
            .is_some_and(|said| said.status == Some(Status::Offline));
        if !looks_offline {
            (self.seen_ms, self.is_seen_due) = (now_ms, true);
        }
    }

    /// What the connections make of the user.
    pub fn automatic(&self, now: Ms) -> (Status, Option<&Activity>) {
        let of = |said: &Said| said.status.unwrap_or(Status::Online);
        if self.open == 0 {
            let is_lingering = self.lingering().iter().any(|until| *until > now);
            return match &self.rare {
                Some(rare) if is_lingering => (of(&rare.left), rare.left.activity.as_ref()),
                _ => (Status::Offline, None),
            };
        }
        let silent = (self.said().len() < self.open as usize).then_some(Status::Online);
        let said = self.said().iter().map(|(_, said)| of(said));
        let status = said.chain(silent).max().unwrap_or(Status::Online);
        let mut best = self.said().iter().filter(|(_, said)| of(said) == status);
        (status, best.find_map(|(_, said)| said.activity.as_ref()))
    }

    /// What the user is, as it sees itself.
    pub fn shown(&self, now: Ms) -> Shown {
        let (automatic, own) = self.automatic(now);
        let by_hand = self.by_hand();
        let status = match by_hand.and_then(|said| said.status) {
            Some(status) if automatic != Status::Offline => status,
            _ => automatic,
        };
        let is_offline = status == Status::Offline;
        let activity = by_hand.and_then(|said| said.activity.as_ref()).or(own);
        Shown {
            status,
            activity: activity.filter(|_| !is_offline).cloned(),
            last_seen_ms: Some(self.seen_ms).filter(|seen_ms| is_offline && *seen_ms > 0),
        }
    }

    pub fn to_others(&self, now: Ms) -> Shown {
        match self.is_loaded && !self.is_hidden {
            true => self.shown(now),
            false => Shown::NOBODY,
        }
    }

    pub fn was_told(&self, shown: &Shown) -> bool {
        let activity = self
            .rare
            .as_ref()
            .and_then(|rare| rare.told_activity.as_ref());
        shown.is_told_as(self.told, activity)
    }

    pub fn told_as(&mut self, shown: &Shown) {
        self.told = shown.status;
        match &shown.activity {
            Some(activity) => self.rare().told_activity = Some(activity.clone()),
            None => {
                if let Some(rare) = &mut self.rare {
                    rare.told_activity = None;
                }
            }
        }
    }
}

//! Live signals between the members of a conversation: shared pointers, drawings, anything that is only worth its
//! latest value.
//!
//! Promises: of one user, conversation and kind at most one value is told every `TELL_EVERY_MS`, the first at once and
//! then the latest; the last value is always told; nobody but the members of that moment hears any. Nothing is refused
//! for its rate, and nothing is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;
use crate::deadlines::{Alarm, Deadlines, Ms};
use crate::event::{Actor, ConversationId, Draft, EventType, Invalid, Json, Signal, UserId};
use crate::features::conversation;
use crate::id::{Random, UserNo};
use crate::store::Store;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::wake::Wakes;

/// Twenty values a second of each user, conversation and kind.
pub const TELL_EVERY_MS: Ms = 50;
const KIND_CHARS_MAX: usize = 32;
/// The data of one signal.
pub const DATA_BYTES_MAX: usize = 4 << 10;
/// Users, conversations and kinds with a value of the last moments; past that no new one is taken up.
const PLACES_MAX: usize = 10_000;
/// Values told in one look, so that commits go on between.
const TOLD_AT_ONCE: usize = 32;

/// What a signal is about: 1 to 32 of `[a-z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(String);

impl std::str::FromStr for Kind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Kind, Invalid> {
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        if (1..=KIND_CHARS_MAX).contains(&text.len()) && text.bytes().all(is_plain) {
            return Ok(Kind(text.to_owned()));
        }
        let message = "a kind must be 1 to 32 characters of a-z 0-9 _ -";
        Err(Invalid::new("invalid_kind", message))
    }
}

/// Where a value replaces another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub conversation: ConversationId,
    pub user: UserNo,
    pub kind: Kind,
}

/// The latest values and when they may be told. The time is passed in.
#[derive(Debug, Default)]
struct Latest {
    /// What waits to be told, for each place that was told of in the last moments.
    waiting: BTreeMap<Place, Option<Json>>,
    due: Deadlines<Place>,
}

impl Latest {
    /// Takes a value where another of the last moments shows that the user may tell one.
    fn replace(&mut self, place: &Place, value: &Json) -> bool {
        match self.waiting.get_mut(place) {
            Some(waiting) => {
                *waiting = Some(value.clone());
                true
            }
            None => false,
        }
    }

    /// Takes a value; `false` when there is no room for another place.
    fn put(&mut self, place: Place, value: Json, now: Ms) -> bool {
        if self.replace(&place, &value) {
            return true;
        }
        if self.waiting.len() >= PLACES_MAX {
            return false;
        }
        self.waiting.insert(place.clone(), Some(value));
        self.due.set(place, Some(now));
        true
    }

    /// The values that may be told now.
    fn take_due(&mut self, now: Ms, count_max: usize) -> Vec<(Place, Json)> {
        let mut values = Vec::new();
        while values.len() < count_max
            && let Some(place) = self.due.take(now)
        {
            match self.waiting.get_mut(&place).and_then(Option::take) {
                Some(value) => {
                    self.due.set(place.clone(), Some(now + TELL_EVERY_MS));
                    values.push((place, value));
                }
                None => drop(self.waiting.remove(&place)),
            }
        }
        values
    }
}

/// The live signals of one server.
#[derive(Clone, Default)]
pub struct Pointers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Written by requests, served by `tell_forever`.
    latest: Mutex<Latest>,
    alarm: Alarm,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// The caller is not a member, or there is no such conversation.
    #[error("there is no such conversation")]
    Unknown,
    #[error("more signals are under way than the server takes up")]
    Full,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Pointers {
    /// Takes a value that the user tells the other members.
    pub async fn tell(
        &self,
        store: &Store,
        user: UserId,
        (conversation, kind): (ConversationId, Kind),
        value: Json,
    ) -> Result<(), PointerError> {
        let place = Place {
            conversation,
            user: store.find(&user).ok_or(PointerError::Unknown)?,
            kind,
        };
        // Whether the user is a member is looked at once more before any value is told.
        if self.0.latest.lock().replace(&place, &value) {
            return Ok(());
        }
        let asked = place.clone();
        let is_member = move |transaction: &mut Transaction<'_>| {
            conversation::is_member(transaction, &asked.conversation, asked.user)
        };
        if !store.look(is_member).await? {
            return Err(PointerError::Unknown);
        }
        let now = self.0.alarm.now();
        if !self.0.latest.lock().put(place, value, now) {
            return Err(PointerError::Full);
        }
        self.0.alarm.rouse();
        Ok(())
    }

    /// Tells the latest values, until `stop`.
    pub async fn tell_forever(
        self,
        store: Store,
        wakes: Wakes,
        random: Random,
        stop: CancellationToken,
    ) {
        loop {
            let next = self.0.latest.lock().due.next();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.0.alarm.wait(next) => {}
            }
            let now = self.0.alarm.now();
            let values = self.0.latest.lock().take_due(now, TOLD_AT_ONCE);
            if values.is_empty() {
                continue;
            }
            let here = wakes.clone();
            let look = move |transaction: &mut Transaction<'_>| {
                let told = values
                    .into_iter()
                    .map(|(place, value)| audience(transaction, &here, place, value));
                told.collect::<Result<Vec<Told>, StoreError>>()
            };
            match store.look(look).await {
                Ok(told) => {
                    for told in told {
                        let signal = Arc::new(signal(&random, store.now_ms(), &told));
                        for user in told.audience {
                            wakes.signal(user, Arc::clone(&signal));
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "signals could not be told"),
            }
        }
    }
}

struct Told {
    place: Place,
    name: UserId,
    value: Json,
    audience: Vec<UserNo>,
}

/// The other members who are connected; none where the user is no member any more.
fn audience(
    transaction: &Transaction<'_>,
    wakes: &Wakes,
    place: Place,
    value: Json,
) -> Result<Told, StoreError> {
    let members = conversation::members(transaction, &place.conversation)?.unwrap_or_default();
    let is_member = members.contains(&place.user);
    let others = members
        .into_iter()
        .filter(|user| is_member && *user != place.user && wakes.subscribers(*user) > 0);
    Ok(Told {
        audience: others.collect(),
        name: transaction.name(place.user),
        place,
        value,
    })
}

fn signal(random: &Random, now_ms: UnixMs, told: &Told) -> Signal {
    let Place {
        conversation, kind, ..
    } = &told.place;
    let name = &told.name;
    let event_type: EventType = format!("signal.{}", kind.0)
        .parse()
        .expect("a kind is short and plain");
    let actor = Actor {
        id: name.clone(),
        name: None,
    };
    let draft = Draft {
        id: random.uuid_v7(now_ms).parse().expect("a UUID is plain"),
        event_type,
        time_ms: now_ms,
        topic: Some(conversation.topic()),
        actor: Some(actor),
        data: told.value.clone(),
        exclude_conn: None,
    };
    let key = format!("pointer={conversation} {name} {}", kind.0);
    Signal::keyed(&draft, key, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(number: u8) -> Place {
        Place {
            conversation: "c".parse().unwrap(),
            user: UserNo(u32::from(number)),
            kind: "cursor".parse().unwrap(),
        }
    }

    fn value(number: u64) -> Json {
        Json::of(&number.into())
    }

    proptest! {
        /// Values of three places at any times: told at once when nothing was told lately, never two within the pace,
        /// never out of order, and the last one always.
        #[test]
        fn the_latest_wins_and_the_last_always_arrives(
            steps in prop::collection::vec((0u8..3, 0u64..90), 1..120),
        ) {
            let mut latest = Latest::default();
            let mut told: Vec<(u8, u64, Ms)> = Vec::new();
            let mut now = 0;
            let run = |latest: &mut Latest, told: &mut Vec<(u8, u64, Ms)>, until: Ms| {
                while let Some(at) = latest.due.next().filter(|at| *at <= until) {
                    for (place, value) in latest.take_due(at, 2) {
                        told.push((place.user.0 as u8, value.as_str().parse().unwrap(), at));
                    }
                }
            };
            let mut last = BTreeMap::new();
            for (number, (user, wait)) in steps.into_iter().enumerate() {
                now += wait;
                run(&mut latest, &mut told, now);
                let is_quiet = told.iter().rev().find(|(other, ..)| *other == user)
                    .is_none_or(|(.., at)| at + TELL_EVERY_MS <= now);
                prop_assert!(latest.put(place(user), value(number as u64), now));
                last.insert(user, number as u64);
                run(&mut latest, &mut told, now);
                if is_quiet {
                    let newest = told.iter().rev().find(|(other, ..)| *other == user);
                    prop_assert_eq!(newest.map(|(_, value, at)| (*value, *at)), Some((number as u64, now)));
                }
            }
            run(&mut latest, &mut told, Ms::MAX);
            for (user, expected) in last {
                let of_user: Vec<_> = told.iter().filter(|(other, ..)| *other == user).collect();
                prop_assert_eq!(of_user.last().map(|(_, value, _)| *value), Some(expected));
                for pair in of_user.windows(2) {
                    prop_assert!(pair[0].2 + TELL_EVERY_MS <= pair[1].2 && pair[0].1 < pair[1].1);
                }
            }
            prop_assert!(latest.waiting.is_empty() && latest.due.next().is_none(), "nothing is kept");
        }
    }

    #[test]
    fn a_kind_is_short_and_plain() {
        for bad in ["", "A", "a.b", "a b", "ä", "a\n", &"x".repeat(33)] {
            assert!(bad.parse::<Kind>().is_err(), "{bad:?} was taken for a kind");
        }
        for good in ["cursor", "a", "draw_2-d", &"x".repeat(32)] {
            assert!(good.parse::<Kind>().is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn no_more_places_are_taken_up_than_there_is_room_for() {
        let mut latest = Latest::default();
        for number in 0..PLACES_MAX {
            let user = UserNo(number as u32);
            assert!(latest.put(Place { user, ..place(0) }, value(0), 0));
        }
        let late = Place {
            user: UserNo(u32::MAX),
            ..place(0)
        };
        assert!(!latest.put(late, value(1), 0));
        assert!(
            latest.put(place(7), value(1), 0),
            "what is there may be replaced"
        );
    }
}

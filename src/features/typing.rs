//! Typing: who writes in a conversation just now, told to its other members as signals.
//!
//! Promises: nothing is told of a user who turned it off, and nothing to anyone who is not a member at that moment.
//! The rules of time are in `typists`; nothing of it is stored.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;
use crate::deadlines::{Alarm, Ms};
use crate::event::{Actor, ConversationId, Draft, Json, Signal, UserId};
use crate::features::typists::{Change, Place, Typists};
use crate::features::{conversation, preferences};
use crate::id::{Random, UserNo};
use crate::store::Store;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::wake::Wakes;

/// Changes told in one look, so that commits go on between.
const TOLD_AT_ONCE: usize = 32;
/// Typists told to one reader that connects.
pub const PICTURE_MAX: usize = 100;

/// The typists of one server.
#[derive(Clone)]
pub struct Typing(Arc<Inner>);

struct Inner {
    /// Written by requests and connections, read by readers that connect, served by `tell_forever`.
    typists: Mutex<Typists>,
    alarm: Alarm,
    clear_ms: Ms,
}

/// The caller is not a member, or there is no such conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypingError {
    #[error("there is no such conversation")]
    Unknown,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Someone types or has stopped, as the other members hear it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub conversation: ConversationId,
    pub user: UserId,
    pub change: Change,
    pub ttl_ms: u64,
}

impl Told {
    pub fn signal(&self, random: &Random, now_ms: UnixMs) -> Signal {
        let Told {
            conversation,
            user,
            change,
            ttl_ms,
        } = self;
        let event_type = match change {
            Change::Start => "typing.start",
            Change::Stop => "typing.stop",
        };
        let actor = Actor {
            id: user.clone(),
            name: None,
        };
        let draft = Draft {
            id: random.uuid_v7(now_ms).parse().expect("a UUID is plain"),
            event_type: event_type.parse().expect("a valid type"),
            time_ms: now_ms,
            topic: Some(conversation.topic()),
            actor: Some(actor),
            data: Json::of(&json!({ "conversation_id": conversation.as_str(), "user": user })),
            exclude_conn: None,
        };
        // A stop replaces the start that a slow reader has not heard.
        let key = format!("typing={conversation} {user}");
        Signal::keyed(&draft, key, Some(*ttl_ms))
    }
}

impl Typing {
    pub fn new(repeat: Duration, clear: Duration) -> Typing {
        let ms = |duration: Duration| Ms::try_from(duration.as_millis()).unwrap_or(Ms::MAX / 4);
        Typing(Arc::new(Inner {
            typists: Mutex::new(Typists::new(ms(repeat), ms(clear))),
            alarm: Alarm::default(),
            clear_ms: ms(clear),
        }))
    }

    /// The user types, or says that it stopped. A start that repeats another too soon changes nothing that is told.
    pub async fn change(
        &self,
        store: &Store,
        user: UserId,
        conversation: ConversationId,
        change: Change,
    ) -> Result<(), TypingError> {
        let place = conversation.clone();
        let look = move |transaction: &mut Transaction<'_>| {
            let Some(user) = transaction.find_user(&user) else {
                return Ok(None);
            };
            if !conversation::is_member(transaction, &place, user)? {
                return Ok(None);
            }
            let is_visible = preferences::of(transaction, user)?.typing_visible;
            Ok(Some((user, is_visible)))
        };
        let (user, is_visible) = store.look(look).await?.ok_or(TypingError::Unknown)?;
        match change {
            Change::Start if is_visible => {
                self.at(|typists, now| typists.start((conversation, user), now));
            }
            Change::Start => {}
            Change::Stop => self.cleared(&conversation, user),
        }
        Ok(())
    }

    /// The user wrote what it was typing. Call it after the commit of the message.
    pub fn cleared(&self, conversation: &ConversationId, user: UserNo) {
        self.at(|typists, now| typists.stop((conversation.clone(), user), now));
    }

    /// The user's last connection ended, or it turned typing off: it types nowhere any more.
    pub fn gone(&self, user: UserNo) {
        self.at(|typists, now| typists.gone(user, now));
    }

    fn at(&self, change: impl FnOnce(&mut Typists, Ms)) {
        let now = self.0.alarm.now();
        let is_nearer = {
            let mut typists = self.0.typists.lock();
            let next = typists.next_due();
            change(&mut typists, now);
            typists.next_due() != next
        };
        if is_nearer {
            self.0.alarm.rouse();
        }
    }

    /// Who types now in the user's conversations, the user itself left out; at most `PICTURE_MAX`.
    pub fn picture(
        &self,
        transaction: &Transaction<'_>,
        user: UserNo,
    ) -> Result<Vec<Told>, StoreError> {
        if self.0.typists.lock().is_empty() {
            return Ok(Vec::new());
        }
        let now = self.0.alarm.now();
        let mut told = Vec::new();
        for conversation in conversation::memberships(transaction, user)? {
            let typing = self.0.typists.lock().typing(&conversation, now);
            let others = typing.into_iter().filter(|(typist, _)| *typist != user);
            told.extend(others.map(|(typist, ttl_ms)| Told {
                conversation: conversation.clone(),
                user: transaction.name(typist),
                change: Change::Start,
                ttl_ms,
            }));
            if told.len() >= PICTURE_MAX {
                break;
            }
        }
        told.truncate(PICTURE_MAX);
        Ok(told)
    }

    /// Tells who types and who stopped, until `stop`.
    pub async fn tell_forever(
        self,
        store: Store,
        wakes: Wakes,
        random: Random,
        stop: CancellationToken,
    ) {
        loop {
            let next = self.0.typists.lock().next_due();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.0.alarm.wait(next) => {}
            }
            let now = self.0.alarm.now();
            let changes = self.0.typists.lock().take_due(now, TOLD_AT_ONCE);
            if changes.is_empty() {
                continue;
            }
            let (clear_ms, here) = (self.0.clear_ms, wakes.clone());
            let look = move |transaction: &mut Transaction<'_>| {
                let told = changes
                    .into_iter()
                    .map(|change| audience(transaction, &here, clear_ms, change));
                told.collect::<Result<Vec<_>, StoreError>>()
            };
            match store.look(look).await {
                Ok(told) => {
                    for (told, audience) in told {
                        let signal = Arc::new(told.signal(&random, store.now_ms()));
                        for user in audience {
                            wakes.signal(user, Arc::clone(&signal));
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "typing could not be told"),
            }
        }
    }
}

/// The other members who are connected. One who left starts nothing any more; its stop is told to those who heard it.
fn audience(
    transaction: &Transaction<'_>,
    wakes: &Wakes,
    clear_ms: Ms,
    ((conversation, user), change): (Place, Change),
) -> Result<(Told, Vec<UserNo>), StoreError> {
    let members = conversation::members(transaction, &conversation)?.unwrap_or_default();
    let may_tell = change == Change::Stop || members.contains(&user);
    let others = members
        .into_iter()
        .filter(|member| may_tell && *member != user && wakes.subscribers(*member) > 0);
    let others = others.collect();
    let told = Told {
        user: transaction.name(user),
        conversation,
        change,
        ttl_ms: clear_ms,
    };
    Ok((told, others))
}

//! Conversations: who is in them, what they are called, and the commands that change either.
//!
//! Promises: two users have one 1:1 conversation; heads, members and read cursors change in the same commit as the
//! events that tell of it; whoever may not see a conversation is told what it would be told of one that never was.
//! It knows nothing of how they are shown.

pub mod rows;

use std::collections::BTreeSet;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::event::{Actor, ConversationId, Draft, Event, EventId, Invalid, Json, UserId};
use crate::features::conversation::rows::{Head, Member};
use crate::id::{Random, UserNo};
use crate::publish::members as member_rows;
use crate::store::Store;
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::token::Scopes;

/// Conversations that one user can be in.
pub const MEMBERSHIPS_MAX: u64 = 10_000;
/// Characters of a conversation's name.
pub const NAME_CHARS_MAX: usize = 128;
/// Users that `peers` gives at most, those of the newest conversations first.
pub const PEERS_MAX: usize = 20_000;

/// Who asks, and what its token lets it do beyond its own conversations.
#[derive(Debug, Clone)]
pub struct Asker {
    pub user: UserId,
    pub scope: Scopes,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConversationError {
    /// There is none, or none that the asker may know of.
    #[error("there is no such conversation")]
    Unknown,
    #[error("there is no such message in this conversation")]
    UnknownMessage,
    #[error("a 1:1 conversation has no name and keeps its two members")]
    Direct,
    #[error("the conversation has as many members as one can have")]
    Full,
    #[error("a user is in as many conversations as one can be in")]
    TooMany,
    #[error("this is for the creator of the conversation")]
    NotTheCreator,
    #[error("this is for the sender of the message")]
    NotTheSender,
    #[error("upto is beyond the newest message")]
    AheadOfHead,
    #[error("the message is larger than limits.event_bytes")]
    TooLarge,
    #[error("the idempotency key was used before with another body")]
    Mismatch,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a group is called: text without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl FromStr for Name {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Name, Invalid> {
        let is_short = (1..=NAME_CHARS_MAX).contains(&text.chars().count());
        match is_short && !text.chars().any(char::is_control) {
            true => Ok(Name(text.to_owned())),
            false => Err(Invalid::new(
                "invalid_name",
                "name must be 1 to 128 characters without control characters",
            )),
        }
    }
}

/// All members, in the order of their numbers; `None` where there is no such conversation.
pub fn members(
    transaction: &Transaction<'_>,
    conversation: &ConversationId,
) -> Result<Option<Vec<UserNo>>, StoreError> {
    let users = member_rows::of(transaction, conversation)?;
    Ok((!users.is_empty()).then_some(users))
}

pub fn is_member(
    transaction: &Transaction<'_>,
    conversation: &ConversationId,
    user: UserNo,
) -> Result<bool, StoreError> {
    Ok(rows::member(transaction, conversation, user)?.is_some())
}

/// The conversations that the user is in, those made first first; at most `MEMBERSHIPS_MAX`.
pub fn memberships(
    transaction: &Transaction<'_>,
    user: UserNo,
) -> Result<Vec<ConversationId>, StoreError> {
    rows::memberships(transaction, user)
}

/// The others in the user's conversations of at most `members_max` members; at most `PEERS_MAX` of them.
pub fn peers(
    transaction: &Transaction<'_>,
    user: UserNo,
    members_max: usize,
) -> Result<BTreeSet<UserNo>, StoreError> {
    let mut peers = BTreeSet::new();
    for conversation in rows::memberships(transaction, user)?.iter().rev() {
        let head = rows::head(transaction, conversation)?;
        let is_small = head.is_some_and(|head| head.members <= members_max as u64);
        if is_small && peers.len() < PEERS_MAX {
            peers.extend(member_rows::of(transaction, conversation)?);
        }
    }
    peers.remove(&user);
    Ok(peers)
}

/// A conversation that is asked for.
#[derive(Debug, Clone)]
pub struct Creation {
    /// Its id, unless it is found again.
    pub id: ConversationId,
    /// At least two different ones, and no more than the configuration allows.
    pub members: BTreeSet<UserId>,
    pub name: Option<Name>,
}

/// Makes a conversation, or finds the 1:1 that there is. Gives its id, and whether it is new.
pub async fn create(
    store: &Store,
    random: &Random,
    asker: Asker,
    creation: Creation,
) -> Result<(ConversationId, bool), ConversationError> {
    let news = News::of(random, &asker);
    let bytes = 256 + creation.members.len() * 128;
    store
        .commit(bytes, move |transaction| {
            make(transaction, &news, &asker, creation)
        })
        .await
}

fn make(
    transaction: &mut Transaction<'_>,
    news: &News,
    asker: &Asker,
    creation: Creation,
) -> Result<(ConversationId, bool), ConversationError> {
    let users: Vec<UserNo> = creation
        .members
        .iter()
        .map(|name| transaction.user(name))
        .collect();
    let direct_key = match (&creation.name, users.as_slice()) {
        (None, [a, b]) => Some(rows::direct_key(*a, *b)),
        _ => None,
    };
    if let Some(found) = find_direct(transaction, direct_key.as_deref())? {
        return Ok((found, false));
    }
    // All reads come before the writes: a read looks through everything that the command has staged.
    let mut counts = Vec::with_capacity(users.len());
    for user in &users {
        counts.push(free_membership(transaction, *user)?);
    }
    let creator = transaction.user(&asker.user);
    let now_ms = transaction.now_ms();
    let head = Head {
        creator,
        created_ms: now_ms,
        updated_ms: now_ms,
        head: 0,
        floor: 1,
        oldest_ms: 0,
        members: users.len() as u64,
        is_direct: direct_key.is_some(),
        name: creation.name.map(|name| name.0),
    };
    let id = creation.id;
    let names: Vec<UserId> = creation.members.into_iter().take(MEMBERS_TOLD).collect();
    let told = head_json(&id, &head, &names);
    if let Some(key) = direct_key {
        transaction.put(key, id.as_str().as_bytes().to_vec());
    }
    rows::put_head(transaction, &id, &head);
    for (user, count) in users.iter().zip(counts) {
        rows::put_member(transaction, &id, *user, &Member::default());
        rows::put_membership(transaction, *user, &id, count + 1);
    }
    news.append(transaction, "conversation.new", &id, &told, users);
    Ok((id, true))
}

fn find_direct(
    transaction: &Transaction<'_>,
    key: Option<&[u8]>,
) -> Result<Option<ConversationId>, StoreError> {
    let row = key.map(|key| transaction.get(key)).transpose()?.flatten();
    Ok(row.and_then(|row| String::from_utf8(row).ok()?.parse().ok()))
}

/// How many conversations the user is in, if one more is allowed.
fn free_membership(transaction: &Transaction<'_>, user: UserNo) -> Result<u64, ConversationError> {
    match rows::membership_count(transaction, user)? {
        count if count < MEMBERSHIPS_MAX => Ok(count),
        _ => Err(ConversationError::TooMany),
    }
}

/// Calls a group by another name.
pub async fn rename(
    store: &Store,
    random: &Random,
    asker: Asker,
    id: ConversationId,
    name: Name,
) -> Result<(), ConversationError> {
    let news = News::of(random, &asker);
    let decide = move |transaction: &mut Transaction<'_>| {
        let mut head = seen(transaction, &id, &asker)?.head;
        if head.is_direct {
            return Err(ConversationError::Direct);
        }
        if head.name.as_ref() == Some(&name.0) {
            return Ok(());
        }
        head.name = Some(name.0);
        head.updated_ms = transaction.now_ms();
        rows::put_head(transaction, &id, &head);
        let users = member_rows::of(transaction, &id)?;
        let told = head_json(&id, &head, &first_names(transaction, &users));
        news.append(transaction, "conversation.updated", &id, &told, users);
        Ok(())
    };
    store.commit(512, decide).await
}

/// Takes `user` into a group; one who is in it already stays as it is.
pub async fn join(
    store: &Store,
    random: &Random,
    asker: Asker,
    id: ConversationId,
    user: UserId,
    members_max: usize,
) -> Result<(), ConversationError> {
    let news = News::of(random, &asker);
    let decide = move |transaction: &mut Transaction<'_>| {
        let mut head = seen(transaction, &id, &asker)?.head;
        if head.is_direct {
            return Err(ConversationError::Direct);
        }
        let known = transaction.find_user(&user);
        if let Some(known) = known
            && is_member(transaction, &id, known)?
        {
            return Ok(());
        }
        if head.members >= members_max as u64 {
            return Err(ConversationError::Full);
        }
        let joined = transaction.user(&user);
        let count = free_membership(transaction, joined)?;
        head.members += 1;
        head.updated_ms = transaction.now_ms();
        rows::put_head(transaction, &id, &head);
        // What was said before is there to read, but not unread.
        let member = Member {
            joined_n: head.head,
            read_n: head.head,
            receipt_n: head.head,
            delivered_n: head.head,
            ..Member::default()
        };
        rows::put_member(transaction, &id, joined, &member);
        rows::put_membership(transaction, joined, &id, count + 1);
        let users = member_rows::of(transaction, &id)?;
        let told = head_json(&id, &head, &first_names(transaction, &users));
        let data = json!({ "conversation_id": id, "user": user, "conversation": told });
        news.append(transaction, "conversation.joined", &id, &data, users);
        Ok(())
    };
    store.commit(512, decide).await
}

/// Takes `user` out of a group: itself, or anyone where its creator or a backend asks. Tells whether it was in it.
pub async fn leave(
    store: &Store,
    random: &Random,
    asker: Asker,
    id: ConversationId,
    user: UserId,
) -> Result<bool, ConversationError> {
    let news = News::of(random, &asker);
    let decide = move |transaction: &mut Transaction<'_>| {
        let seen = seen(transaction, &id, &asker)?;
        if seen.head.is_direct {
            return Err(ConversationError::Direct);
        }
        let is_creator = seen.viewer == Some(seen.head.creator);
        if user != asker.user && !is_creator && !asker.scope.may_publish() {
            return Err(ConversationError::NotTheCreator);
        }
        let Some(leaving) = transaction.find_user(&user) else {
            return Ok(false);
        };
        if !is_member(transaction, &id, leaving)? {
            return Ok(false);
        }
        take_out(transaction, &news, &id, seen.head, leaving)?;
        Ok(true)
    };
    store.commit_always(512, decide).await
}

/// Takes a member out and tells all, also the one who is out now. The last one leaves nothing behind.
fn take_out(
    transaction: &mut Transaction<'_>,
    news: &News,
    id: &ConversationId,
    mut head: Head,
    leaving: UserNo,
) -> Result<(), StoreError> {
    let users = member_rows::of(transaction, id)?;
    let count = rows::membership_count(transaction, leaving)?;
    transaction.delete(member_rows::key(id, leaving));
    rows::delete_membership(transaction, leaving, id, count.saturating_sub(1));
    head.members = users.len() as u64 - 1;
    head.updated_ms = transaction.now_ms();
    match head.members {
        0 => rows::retire(transaction, id, &head),
        _ => rows::put_head(transaction, id, &head),
    }
    let user = transaction.name(leaving);
    let data = json!({ "conversation_id": id, "user": user });
    news.append(transaction, "conversation.left", id, &data, users);
    Ok(())
}

/// A conversation as one asker sees it.
pub struct Seen {
    pub head: Head,
    /// The asker's number, where it is known at all.
    pub viewer: Option<UserNo>,
    /// The asker's own row; a backend need not be a member.
    pub member: Option<Member>,
}

/// The conversation, if the asker is in it or its token sees all of them.
pub fn seen(
    transaction: &Transaction<'_>,
    id: &ConversationId,
    asker: &Asker,
) -> Result<Seen, ConversationError> {
    let viewer = transaction.find_user(&asker.user);
    let member = match viewer {
        Some(viewer) => rows::member(transaction, id, viewer)?,
        None => None,
    };
    let head = rows::head(transaction, id)?;
    match head.filter(|_| member.is_some() || asker.scope.may_publish()) {
        Some(head) => Ok(Seen {
            head,
            viewer,
            member,
        }),
        None => Err(ConversationError::Unknown),
    }
}

/// Members that are named wherever a conversation is told; `member_count` says how many there are.
pub const MEMBERS_TOLD: usize = 100;

fn first_names(transaction: &Transaction<'_>, users: &[UserNo]) -> Vec<UserId> {
    let told = users.iter().take(MEMBERS_TOLD);
    told.map(|user| transaction.name(*user)).collect()
}

/// What is the same for all who see the conversation.
fn head_json(id: &ConversationId, head: &Head, names: &[UserId]) -> Value {
    json!({
        "id": id,
        "direct": head.is_direct,
        "name": head.name,
        "members": names,
        "member_count": head.members,
        "created": crate::clock::rfc3339(head.created_ms),
        "updated": crate::clock::rfc3339(head.updated_ms),
        "head": head.head,
    })
}

/// Writes the events of one command: each has an id of its own and names who caused it.
pub struct News {
    random: Random,
    actor: UserId,
}

impl News {
    pub fn of(random: &Random, asker: &Asker) -> News {
        News {
            random: random.clone(),
            actor: asker.user.clone(),
        }
    }

    fn append(
        &self,
        transaction: &mut Transaction<'_>,
        event_type: &str,
        conversation: &ConversationId,
        data: &Value,
        audience: Vec<UserNo>,
    ) {
        let time_ms = transaction.now_ms();
        let id = self.random.uuid_v7(time_ms);
        let draft = Draft {
            id: id.parse::<EventId>().expect("a UUID is plain"),
            event_type: event_type.parse().expect("our own types are valid"),
            time_ms,
            topic: Some(conversation.topic()),
            actor: Some(Actor {
                id: self.actor.clone(),
                name: None,
            }),
            data: Json::of(data),
            exclude_conn: None,
        };
        transaction.append(Event::of(&draft), audience);
    }
}

/// What a user has not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unread {
    /// Messages by others after the user's read cursors.
    pub messages: u64,
    /// Conversations with such messages.
    pub conversations: u64,
}

pub fn unread(_transaction: &Transaction<'_>, _user: UserNo) -> Result<Unread, StoreError> {
    Ok(Unread::default())
}

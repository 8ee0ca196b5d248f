//! Conversations: who is in them, what they are called, and the commands that change either.
//!
//! Promises: two users have one 1:1 conversation; heads, members and read cursors change in the same commit as the
//! events that tell of it; whoever may not see a conversation is told what it would be told of one that never was.
//! It knows nothing of how they are shown.

pub mod asker;
pub mod list;
pub mod messages;
pub mod news;
pub mod rows;
pub mod told;
pub mod unread;

use std::collections::BTreeSet;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::event::{ConversationId, Invalid, Json, UserId};
use crate::features::conversation::asker::{Asker, ConversationError, seen};
use crate::features::conversation::list::{first_names, told_to};
use crate::features::conversation::news::News;
use crate::features::conversation::rows::{Head, Member};
use crate::features::conversation::unread::Unread;
use crate::id::{Random, UserNo};
use crate::publish::{self, Receipt, members as member_rows};
use crate::store::shared::StoreError;
use crate::store::transaction::Transaction;
use crate::store::{Store, keys};

/// Conversations that one user can be in.
pub const MEMBERSHIPS_MAX: u64 = 10_000;
/// Characters of a conversation's name.
pub const NAME_CHARS_MAX: usize = 128;
/// Users that `peers` gives at most, those of the newest conversations first.
pub const PEERS_MAX: usize = 20_000;

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
    /// Hashes under which a repeat is recognised.
    pub keys: Vec<[u8; 16]>,
}

impl Creation {
    fn fingerprint(&self) -> [u8; 16] {
        let names: Vec<&str> = self.members.iter().map(UserId::as_str).collect();
        let name = self.name.as_ref().map_or("", |name| &name.0);
        keys::hash(&[b"conversation", names.join(" ").as_bytes(), name.as_bytes()])
    }
}

/// Makes a conversation, or finds the 1:1 that there is. Gives it as the asker sees it, and whether it is new.
pub async fn create(
    store: &Store,
    random: &Random,
    asker: Asker,
    creation: Creation,
) -> Result<(String, bool), ConversationError> {
    let news = asker.news(random);
    let bytes = 256 + creation.members.len() * 128;
    let decide = move |transaction: &mut Transaction<'_>| {
        let (id, is_new) = make(transaction, &news, &asker, creation)?;
        let seen = seen(transaction, &id, &asker)?;
        Ok((told_to(transaction, &id, &seen)?, is_new))
    };
    store.commit(bytes, decide).await
}

fn make(
    transaction: &mut Transaction<'_>,
    news: &News,
    asker: &Asker,
    creation: Creation,
) -> Result<(ConversationId, bool), ConversationError> {
    let fingerprint = creation.fingerprint();
    if let Some(first) = publish::repeated(transaction, &creation.keys, &fingerprint)? {
        let id = first.id.as_str().parse();
        return Ok((id.map_err(|_| ConversationError::Unknown)?, false));
    }
    let named = creation.members.iter();
    let users: Vec<UserNo> = named.map(|name| transaction.user(name)).collect();
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
    let now_ms = transaction.now_ms();
    let head = Head {
        creator: transaction.user(&asker.user),
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
    let receipt = Receipt {
        id: id.as_str().parse().expect("an id of letters and digits"),
        time_ms: now_ms,
        recipients: 0,
        is_duplicate: false,
        position: None,
    };
    publish::remember(transaction, &creation.keys, fingerprint, &receipt);
    if let Some(key) = direct_key {
        transaction.put(key, id.as_str().as_bytes().to_vec());
    }
    rows::put_head(transaction, &id, &head);
    for (user, count) in users.iter().zip(counts) {
        rows::put_member(transaction, &id, *user, &Member::default());
        rows::put_membership(transaction, *user, &id, count + 1);
    }
    let told = told::conversation(&id, &head, &first_names(transaction, &users));
    news.append(transaction, "conversation.new", &id, Json::of(&told), users);
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

/// Calls a group by another name. Gives it as the asker sees it.
pub async fn rename(
    store: &Store,
    random: &Random,
    asker: Asker,
    id: ConversationId,
    name: Name,
) -> Result<String, ConversationError> {
    let news = asker.news(random);
    let decide = move |transaction: &mut Transaction<'_>| {
        let mut seen = seen(transaction, &id, &asker)?;
        let mut head = seen.head.clone();
        if head.is_direct {
            return Err(ConversationError::Direct);
        }
        if head.name.as_ref() == Some(&name.0) {
            return Ok(told_to(transaction, &id, &seen)?);
        }
        head.name = Some(name.0);
        head.updated_ms = transaction.now_ms();
        rows::put_head(transaction, &id, &head);
        let users = member_rows::of(transaction, &id)?;
        let told = told::conversation(&id, &head, &first_names(transaction, &users));
        news.append(
            transaction,
            "conversation.updated",
            &id,
            Json::of(&told),
            users,
        );
        seen.head = head;
        Ok(told_to(transaction, &id, &seen)?)
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
    let news = asker.news(random);
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
        let told = told::conversation(&id, &head, &first_names(transaction, &users));
        let data = json!({ "conversation_id": id, "user": user, "conversation": told });
        news.append(
            transaction,
            "conversation.joined",
            &id,
            Json::of(&data),
            users,
        );
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
    let news = asker.news(random);
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
    news.append(transaction, "conversation.left", id, Json::of(&data), users);
    Ok(())
}

/// The user's conversations, those with the newest activity first, at most `count_max`.
pub fn list(
    transaction: &Transaction<'_>,
    user: UserNo,
    count_max: usize,
) -> Result<Vec<String>, StoreError> {
    let (told, _) = list::of_user(transaction, user, None, count_max)?;
    Ok(told)
}

/// Takes a user who is erased out of its conversations, at most `count_max` in one command. Tells whether it is in
/// none any more.
pub fn forget(
    transaction: &mut Transaction<'_>,
    news: &News,
    user: UserNo,
    count_max: usize,
) -> Result<bool, StoreError> {
    let ids = rows::memberships(transaction, user)?;
    for id in ids.iter().take(count_max) {
        let Some(head) = rows::head(transaction, id)? else {
            continue;
        };
        match head.is_direct {
            true => forget_direct(transaction, id, &head, user)?,
            false => take_out(transaction, news, id, head, user)?,
        }
    }
    Ok(ids.len() <= count_max)
}

/// A 1:1 stays for the other one, with the placeholder of the user beside it; nobody finds it again. With the second of
/// the two it is gone.
fn forget_direct(
    transaction: &mut Transaction<'_>,
    id: &ConversationId,
    head: &Head,
    user: UserNo,
) -> Result<(), StoreError> {
    let users = member_rows::of(transaction, id)?;
    for other in users.iter().filter(|other| **other != user) {
        transaction.delete(rows::direct_key(user, *other));
    }
    let count = rows::membership_count(transaction, user)?;
    rows::delete_membership(transaction, user, id, count.saturating_sub(1));
    if users.iter().all(|user| transaction.is_erased(*user)) {
        for user in users {
            transaction.delete(member_rows::key(id, user));
        }
        rows::retire(transaction, id, head);
    }
    Ok(())
}

/// How many conversations the user is in.
pub fn count(transaction: &Transaction<'_>, user: UserNo) -> Result<u64, StoreError> {
    rows::membership_count(transaction, user)
}

/// Up to which message a member has read; `None` for those who are not in it.
pub fn read_upto(
    transaction: &Transaction<'_>,
    id: &ConversationId,
    user: UserNo,
) -> Result<Option<u64>, StoreError> {
    let member = rows::member(transaction, id, user)?;
    Ok(member.map(|member| member.read_n))
}

/// What is kept of the user's own part in these conversations, for an export.
pub fn export(
    transaction: &Transaction<'_>,
    user: UserNo,
    ids: &[ConversationId],
) -> Result<Vec<Value>, StoreError> {
    let mut told = Vec::with_capacity(ids.len());
    for id in ids {
        let head = rows::head(transaction, id)?;
        let member = rows::member(transaction, id, user)?;
        if let (Some(head), Some(member)) = (head, member) {
            told.push(json!({
                "conversation": told::conversation(id, &head, &[]),
                "joined": member.joined_n,
                "read_upto": member.read_n,
                "delivered_upto": member.delivered_n,
            }));
        }
    }
    Ok(told)
}

/// What the user has not read.
pub fn unread(transaction: &Transaction<'_>, user: UserNo) -> Result<Unread, StoreError> {
    unread::of_user(transaction, user)
}

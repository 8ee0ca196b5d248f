//! Revocation: tokens that are refused although their signature is good and their time is not over.
//!
//! Promises: a revocation is on stable storage before it is answered and holds across restarts; checking one costs two
//! look-ups in memory. Revoking a user refuses the tokens issued up to that moment, not those issued later.

use dashmap::DashMap;

use crate::clock::UnixMs;
use crate::event::UserId;
use crate::store::shared::StoreError;
use crate::store::{Store, keys};
use crate::token::Claims;

/// Kind of the rows of revoked users: name → issued before.
const USERS: u8 = b'r';
/// Kind of the rows of revoked tokens: jti → when it was revoked.
const TOKENS: u8 = b'j';

#[derive(Default)]
pub struct Revocations {
    /// Written by `revoke_*` and at open, read for every request.
    users: DashMap<Box<str>, UnixMs>,
    tokens: DashMap<Box<str>, UnixMs>,
}

/// What a revocation took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    User,
    Token,
}

impl Revocations {
    pub async fn load(store: &Store) -> Result<Revocations, StoreError> {
        let revocations = Revocations::default();
        for (kind, map) in [(USERS, &revocations.users), (TOKENS, &revocations.tokens)] {
            for (name, value) in store.rows(kind).await? {
                if let (Ok(name), Ok(time)) = (String::from_utf8(name), value.try_into()) {
                    map.insert(name.into(), u64::from_le_bytes(time));
                }
            }
        }
        Ok(revocations)
    }

    /// Refuses the user's tokens that were issued up to `issued_before_ms`.
    pub async fn revoke_user(
        &self,
        store: &Store,
        user: &UserId,
        issued_before_ms: UnixMs,
    ) -> Result<(), StoreError> {
        save(store, USERS, user.as_str(), issued_before_ms).await?;
        self.users.insert(user.as_str().into(), issued_before_ms);
        Ok(())
    }

    /// Refuses one token by its `jti`.
    pub async fn revoke_token(
        &self,
        store: &Store,
        jti: &str,
        now_ms: UnixMs,
    ) -> Result<(), StoreError> {
        save(store, TOKENS, jti, now_ms).await?;
        self.tokens.insert(jti.into(), now_ms);
        Ok(())
    }

    /// Whether these claims were revoked. A token that does not say when it was issued counts as old.
    pub fn check(&self, claims: &Claims) -> Option<Revoked> {
        let issued_ms = claims.issued_ms.unwrap_or(0);
        let before_ms = self
            .users
            .get(claims.sub.as_str())
            .map(|entry| *entry.value());
        if before_ms.is_some_and(|before_ms| issued_ms <= before_ms) {
            return Some(Revoked::User);
        }
        let jti = claims.jti.as_deref()?;
        self.tokens.contains_key(jti).then_some(Revoked::Token)
    }
}

async fn save(store: &Store, kind: u8, name: &str, time_ms: UnixMs) -> Result<(), StoreError> {
    let key = keys::state(kind, name.as_bytes());
    let save = move |transaction: &mut crate::store::transaction::Transaction<'_>| {
        transaction.put(key, time_ms.to_le_bytes().to_vec());
        Ok(())
    };
    store.commit_always(128, save).await
}

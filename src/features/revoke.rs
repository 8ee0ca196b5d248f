//! Revocation: tokens that are refused although their signature is good and their time is not over.
//!
//! Promises: a revocation is on stable storage before it is answered and holds across restarts; checking one costs two
//! look-ups in memory. Revoking a user refuses the tokens issued up to that moment, not those issued later. Users are
//! kept by a hash of their name, so that a revocation outlives the erasure of its user and names nobody.

use dashmap::DashMap;

use crate::clock::UnixMs;
use crate::event::UserId;
use crate::store::shared::StoreError;
use crate::store::{Store, keys};
use crate::token::Claims;

/// Kind of the rows of revoked users: hash of the name → issued before.
const USERS: u8 = b'r';
/// Kind of the rows of revoked tokens: jti → when it was revoked.
const TOKENS: u8 = b'j';

#[derive(Default)]
pub struct Revocations {
    /// Written by `revoke_*` and at open, read for every request.
    users: DashMap<[u8; 16], UnixMs>,
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
        for (hash, value) in store.rows(USERS).await? {
            if let (Ok(hash), Ok(time)) = (hash.try_into(), value.try_into()) {
                revocations.users.insert(hash, u64::from_le_bytes(time));
            }
        }
        for (jti, value) in store.rows(TOKENS).await? {
            if let (Ok(jti), Ok(time)) = (String::from_utf8(jti), value.try_into()) {
                revocations
                    .tokens
                    .insert(jti.into(), u64::from_le_bytes(time));
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
        let hash = hash_of(user);
        save(store, USERS, &hash, issued_before_ms).await?;
        self.users.insert(hash, issued_before_ms);
        Ok(())
    }

    /// Refuses one token by its `jti`.
    pub async fn revoke_token(
        &self,
        store: &Store,
        jti: &str,
        now_ms: UnixMs,
    ) -> Result<(), StoreError> {
        save(store, TOKENS, jti.as_bytes(), now_ms).await?;
        self.tokens.insert(jti.into(), now_ms);
        Ok(())
    }

    /// Up to which time of issue the user's tokens are refused, if any are.
    pub fn revoked_before(&self, user: &UserId) -> Option<UnixMs> {
        // Hashing a name costs more than a look-up; most servers never revoke anyone.
        if self.users.is_empty() {
            return None;
        }
        self.users.get(&hash_of(user)).map(|entry| *entry.value())
    }

    /// Whether these claims were revoked. A token that does not say when it was issued counts as old.
    pub fn check(&self, claims: &Claims) -> Option<Revoked> {
        let issued_ms = claims.issued_ms.unwrap_or(0);
        let before_ms = self.revoked_before(&claims.sub);
        if before_ms.is_some_and(|before_ms| issued_ms <= before_ms) {
            return Some(Revoked::User);
        }
        let jti = claims.jti.as_deref()?;
        self.tokens.contains_key(jti).then_some(Revoked::Token)
    }
}

fn hash_of(user: &UserId) -> [u8; 16] {
    keys::hash(&[b"revoked", user.as_str().as_bytes()])
}

async fn save(store: &Store, kind: u8, name: &[u8], time_ms: UnixMs) -> Result<(), StoreError> {
    let key = keys::state(kind, name);
    let save = move |transaction: &mut crate::store::transaction::Transaction<'_>| {
        transaction.put(key, time_ms.to_le_bytes().to_vec());
        Ok(())
    };
    store.commit_always(128, save).await
}

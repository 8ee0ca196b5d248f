//! Tokens that were verified before, so that a caller who comes often pays for its signature once.
//!
//! Promises: only the very same bytes are known again, for as long as the keys are the ones that verified them; the
//! table is bounded, and a token that comes once takes no place in it. Whether a token has expired or was revoked is
//! asked anew each time, elsewhere.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::token::keys::KeySet;

/// Tokens remembered; a full table is emptied. With `TOKEN_BYTES_MAX` it bounds the memory to a few MiB.
const KNOWN_MAX: usize = 4096;
/// A longer token is verified each time.
const TOKEN_BYTES_MAX: usize = 1024;
/// Hashes of tokens that came once.
const SEEN_MAX: usize = 4096;

/// What tokens said when they were verified.
#[derive(Debug)]
pub struct Known<T> {
    /// Random, so that nobody can choose tokens that push others out.
    hasher: RandomState,
    seen: Box<[AtomicU64]>,
    /// Written by `note`, read for each token.
    table: RwLock<Table<T>>,
}

#[derive(Debug)]
struct Table<T> {
    /// The keys that verified what is in the table.
    keys: Option<Arc<KeySet>>,
    /// Tokens by their signatures, a quarter of their text and no two alike.
    by_signature: HashMap<Box<str>, (Box<str>, T)>,
}

impl<T> Default for Known<T> {
    fn default() -> Known<T> {
        Known {
            hasher: RandomState::new(),
            seen: (0..SEEN_MAX).map(|_| AtomicU64::new(0)).collect(),
            table: RwLock::new(Table {
                keys: None,
                by_signature: HashMap::new(),
            }),
        }
    }
}

impl<T: Clone> Known<T> {
    /// What `token` says, if it was verified by these keys.
    pub fn find(&self, token: &str, keys: Option<&Arc<KeySet>>) -> Option<T> {
        let table = self.table.read();
        if !table.is_of(keys) {
            return None;
        }
        let (known, says) = table.by_signature.get(signature(token))?;
        (**known == *token).then(|| says.clone())
    }

    /// Remembers a token that these keys verified, when it came for the second time.
    pub fn note(&self, token: &str, keys: Option<&Arc<KeySet>>, verified: &T) {
        if token.len() > TOKEN_BYTES_MAX || !self.was_seen(token) {
            return;
        }
        let mut table = self.table.write();
        if !table.is_of(keys) || table.by_signature.len() >= KNOWN_MAX {
            table.by_signature.clear();
            table.keys = keys.cloned();
        }
        let known = (token.into(), verified.clone());
        table.by_signature.insert(signature(token).into(), known);
    }

    fn was_seen(&self, token: &str) -> bool {
        let hash = self.hasher.hash_one(token);
        let place = usize::try_from(hash).unwrap_or(usize::MAX) % SEEN_MAX;
        self.seen[place].swap(hash, Ordering::Relaxed) == hash
    }
}

/// The last part of a token.
fn signature(token: &str) -> &str {
    token.rsplit_once('.').map_or(token, |(_, last)| last)
}

impl<T> Table<T> {
    fn is_of(&self, keys: Option<&Arc<KeySet>>) -> bool {
        match (&self.keys, keys) {
            (Some(these), Some(those)) => Arc::ptr_eq(these, those),
            (None, None) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_from_its_second_time_on_while_the_keys_are_the_same() {
        let known = Known::default();
        let (old, new) = (Arc::new(KeySet::default()), Arc::new(KeySet::default()));
        known.note("a.b.c", Some(&old), &7);
        assert!(known.find("a.b.c", Some(&old)).is_none(), "it came once");
        known.note("a.b.c", Some(&old), &7);
        assert!(known.find("a.b.c", Some(&old)).is_some());
        assert!(known.find("a.b.d", Some(&old)).is_none());
        let of_another = known.find("a.x.c", Some(&old));
        assert!(of_another.is_none(), "a signature alone is no token");
        assert!(known.find("a.b.c", Some(&new)).is_none(), "by other keys");
        assert!(known.find("a.b.c", None).is_none());
    }

    #[test]
    fn the_table_is_bounded() {
        let known = Known::default();
        for number in 0..3 * KNOWN_MAX {
            let token = number.to_string();
            known.note(&token, None, &7);
            known.note(&token, None, &7);
            assert!(known.find(&token, None).is_some());
        }
        assert!(known.table.read().by_signature.len() <= KNOWN_MAX);
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        known.note(&long, None, &7);
        known.note(&long, None, &7);
        assert!(known.find(&long, None).is_none());
    }
}

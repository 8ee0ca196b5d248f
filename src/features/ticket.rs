//! Tickets: a way to open a stream where no header can be sent, without a token in the URL.
//!
//! Promises: 256 random bits, for reading only; first used within 60 s, then good while its stream lives and two
//! minutes after, never past the end of the token it was bought with; open streams survive a restart. Only a hash is
//! stored, so the data directory gives no ticket away.

use std::sync::Arc;

use dashmap::DashMap;

use crate::clock::UnixMs;
use crate::event::UserId;
use crate::id::Random;
use crate::store::shared::StoreError;
use crate::store::{Store, keys};
use crate::token::{Claims, Scopes};

const TICKETS: u8 = b'q';
/// How long a ticket waits for its first use.
pub const FIRST_USE_MS: u64 = 60_000;
/// How long a ticket outlives its last stream.
const AFTERLIFE_MS: u64 = 120_000;
const TICKET_BYTES: usize = 32;
/// Tickets kept at a time; the oldest unused ones are swept each minute.
const TICKETS_MAX: usize = 200_000;

type Hash = [u8; 16];

#[derive(Default)]
pub struct Tickets(DashMap<Hash, Arc<Ticket>>);

struct Ticket {
    claims: Claims,
    life: parking_lot::Mutex<Life>,
}

/// Written when a stream opens or ends, read when one wants to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    /// Without an open stream it is good until then.
    until_ms: UnixMs,
    streams: u32,
    is_used: bool,
}

/// A stream that a ticket opened; dropping it starts the ticket's afterlife.
pub struct Riding {
    ticket: Arc<Ticket>,
    clock: crate::clock::Clock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many tickets are waiting for their first use")]
pub struct TooMany;

impl Tickets {
    /// Takes up the tickets that were good when the server stopped.
    pub async fn load(store: &Store) -> Result<Tickets, StoreError> {
        let tickets = Tickets::default();
        let now_ms = store.now_ms();
        for (hash, row) in store.rows(TICKETS).await? {
            if let (Ok(hash), Some(ticket)) = (hash.try_into(), decode(&row, now_ms)) {
                tickets.0.insert(hash, Arc::new(ticket));
            }
        }
        Ok(tickets)
    }

    /// Makes a ticket for these claims; it is on stable storage when this returns.
    pub async fn issue(
        &self,
        store: &Store,
        random: &Random,
        claims: &Claims,
    ) -> Result<String, IssueError> {
        if self.0.len() >= TICKETS_MAX {
            return Err(IssueError::TooMany(TooMany));
        }
        let text = random.hex(TICKET_BYTES);
        let hash = hash_of(&text);
        let until_ms = store.now_ms() + FIRST_USE_MS;
        let life = Life {
            until_ms,
            streams: 0,
            is_used: false,
        };
        let reading = Claims {
            scope: Scopes::parse(""),
            topics: Vec::new(),
            ..claims.clone()
        };
        let ticket = Arc::new(Ticket {
            claims: reading,
            life: parking_lot::Mutex::new(life),
        });
        save(store, hash, &ticket, life).await?;
        self.0.insert(hash, ticket);
        Ok(text)
    }

    /// The claims of a good ticket, and the hold that keeps it good while the stream lives.
    pub async fn ride(
        &self,
        store: &Store,
        clock: &crate::clock::Clock,
        text: &str,
    ) -> Option<(Claims, Riding)> {
        if text.len() != TICKET_BYTES * 2 {
            return None;
        }
        let hash = hash_of(text);
        let ticket = self.0.get(&hash).map(|entry| Arc::clone(entry.value()))?;
        let now_ms = clock.now_ms();
        let used_first = {
            let mut life = ticket.life.lock();
            if now_ms >= ticket.claims.expires_ms || (life.streams == 0 && now_ms >= life.until_ms)
            {
                return None;
            }
            life.streams += 1;
            let first = !life.is_used;
            life.is_used = true;
            first.then_some(*life)
        };
        let riding = Riding {
            ticket: Arc::clone(&ticket),
            clock: clock.clone(),
        };
        if let Some(life) = used_first {
            save(store, hash, &ticket, life).await.ok()?;
        }
        Some((ticket.claims.clone(), riding))
    }

    /// Forgets the tickets that are no longer good; the server calls it each minute.
    pub async fn sweep(&self, store: &Store) -> Result<(), StoreError> {
        let now_ms = store.now_ms();
        let is_over = |ticket: &Ticket| {
            let life = *ticket.life.lock();
            now_ms >= ticket.claims.expires_ms || (life.streams == 0 && now_ms >= life.until_ms)
        };
        self.forget(store, is_over).await
    }

    /// Forgets all tickets of a user, who is erased. Open streams lose nothing by it.
    pub async fn erase(&self, store: &Store, user: &UserId) -> Result<(), StoreError> {
        self.forget(store, |ticket| ticket.claims.sub == *user)
            .await
    }

    async fn forget(
        &self,
        store: &Store,
        is_over: impl Fn(&Ticket) -> bool,
    ) -> Result<(), StoreError> {
        let over: Vec<Hash> = self
            .0
            .iter()
            .filter(|entry| is_over(entry.value()))
            .map(|entry| *entry.key())
            .collect();
        for some in over.chunks(256) {
            let hashes = some.to_vec();
            let forget = move |transaction: &mut crate::store::transaction::Transaction<'_>| {
                for hash in hashes {
                    transaction.delete(keys::state(TICKETS, &hash));
                }
                Ok::<(), StoreError>(())
            };
            store.commit_always(some.len() * 32, forget).await?;
            for hash in some {
                self.0.remove(hash);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    TooMany(TooMany),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Drop for Riding {
    fn drop(&mut self) {
        let mut life = self.ticket.life.lock();
        life.streams -= 1;
        life.until_ms = self.clock.now_ms() + AFTERLIFE_MS;
    }
}

fn hash_of(text: &str) -> Hash {
    keys::hash(&[b"ticket", text.as_bytes()])
}

async fn save(store: &Store, hash: Hash, ticket: &Ticket, life: Life) -> Result<(), StoreError> {
    let row = encode(ticket, life);
    let save = move |transaction: &mut crate::store::transaction::Transaction<'_>| {
        transaction.put(keys::state(TICKETS, &hash), row);
        Ok(())
    };
    store.commit_always(256, save).await
}

fn encode(ticket: &Ticket, life: Life) -> Vec<u8> {
    let claims = &ticket.claims;
    let row = serde_json::json!([
        claims.sub.as_str(),
        claims.expires_ms,
        claims.issued_ms,
        claims.jti,
        life.until_ms,
        life.is_used
    ]);
    row.to_string().into_bytes()
}

/// A used ticket whose stream the restart cut gets its afterlife from the start on.
fn decode(row: &[u8], now_ms: UnixMs) -> Option<Ticket> {
    type Row = (
        crate::event::UserId,
        UnixMs,
        Option<UnixMs>,
        Option<String>,
        UnixMs,
        bool,
    );
    let (sub, expires_ms, issued_ms, jti, until_ms, is_used): Row =
        serde_json::from_slice(row).ok()?;
    let until_ms = if is_used {
        now_ms + AFTERLIFE_MS
    } else {
        until_ms
    };
    let claims = Claims {
        sub,
        scope: Scopes::parse(""),
        expires_ms,
        issued_ms,
        jti,
        topics: Vec::new(),
    };
    let life = Life {
        until_ms,
        streams: 0,
        is_used,
    };
    Some(Ticket {
        claims,
        life: parking_lot::Mutex::new(life),
    })
}

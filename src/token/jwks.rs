//! A JWK set from a file or an address, read again while the server runs.
//!
//! Promises: one task does all the reading, so that reads never overlap; a token with an unknown `kid` makes it read at
//! most once in `Pace::between_wishes`; a failed read leaves the keys of the last good one. A set is at most
//! `JWKS_BYTES_MAX` long, and its address is never logged. Callers never fetch: they wait for the task, for a
//! bounded time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::token::keys::KeySet;

/// Length of a JWK set; one of 64 RSA keys has about 40 KiB.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;

/// How often a set is read.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From one read of an address to the next.
    pub period: Duration,
    /// From a failed read to the next, and from one look at a file's time to the next.
    pub retry: Duration,
    /// Between two looks at whether a file has changed.
    pub look: Duration,
    /// Between two reads that an unknown `kid` asked for.
    pub between_wishes: Duration,
    /// How long one read may take.
    pub timeout: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            period: Duration::from_secs(600),
            retry: Duration::from_secs(30),
            look: Duration::from_secs(1),
            between_wishes: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    #[error("it cannot be read: {0}")]
    File(#[from] std::io::Error),
    #[error("it cannot be fetched: {0}")]
    Fetch(#[from] reqwest::Error),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("it is longer than 256 KiB")]
    TooLong,
    #[error("no answer in time")]
    Late,
    #[error("{0}")]
    Form(&'static str),
}

#[derive(Debug)]
pub struct Jwks {
    source: Source,
    pace: Pace,
    /// Written by `open` and the refreshing task; read for each token.
    keys: ArcSwap<KeySet>,
    /// Rung by `wish`, heard by the refreshing task.
    wishes: Notify,
    /// Counts the turns of the refreshing task; written by it, watched by `wish`.
    turns: watch::Sender<u64>,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Address {
        client: reqwest::Client,
        url: String,
    },
}

/// Tells one content of a file from another without reading it.
type Stamp = (SystemTime, u64);

impl Jwks {
    /// `place` is an `http://` or `https://` address, else a path. A file must be readable now; an address that does
    /// not answer now will be asked again, since an issuer may start later than this server.
    pub async fn open(place: &str, pace: Pace) -> Result<Jwks, JwksError> {
        let is_address = place.starts_with("https://") || place.starts_with("http://");
        let source = if is_address {
            let client = reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(pace.timeout)
                .build()?;
            let url = place.to_owned();
            Source::Address { client, url }
        } else {
            Source::File(PathBuf::from(place))
        };
        let jwks = Jwks {
            source,
            pace,
            keys: ArcSwap::default(),
            wishes: Notify::new(),
            turns: watch::Sender::new(0),
        };
        match jwks.read().await {
            Ok(keys) => jwks.keys.store(Arc::new(keys)),
            Err(error) if is_address => tell(&error),
            Err(error) => return Err(error),
        }
        Ok(jwks)
    }

    pub fn keys(&self) -> Arc<KeySet> {
        self.keys.load_full()
    }

    /// Asks for a read and waits for the task's next turn, which is none if there was a read lately.
    pub async fn wish(&self) {
        let mut turns = self.turns.subscribe();
        self.wishes.notify_one();
        // Late or not, the caller looks at the keys that there are.
        timeout(self.pace.timeout, turns.changed()).await.ok();
    }

    /// Reads the set again: at intervals, when its file has changed, and on wishes.
    pub async fn refresh_forever(&self, stop: CancellationToken) {
        let mut stamp = None;
        let mut wish_allowed_at = Instant::now();
        let mut next_read_at = Instant::now() + self.pace.look.min(self.pace.retry);
        loop {
            let is_wish = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep_until(next_read_at) => false,
                () = self.wishes.notified() => true,
            };
            if !is_wish || Instant::now() >= wish_allowed_at {
                if is_wish {
                    wish_allowed_at = Instant::now() + self.pace.between_wishes;
                }
                next_read_at = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    pause = self.refresh(&mut stamp) => Instant::now() + pause,
                };
            }
            self.turns.send_modify(|turns| *turns += 1);
        }
    }

    /// Reads the set unless it is a file with the same `stamp`; returns how long to wait for the next time.
    async fn refresh(&self, stamp: &mut Option<Stamp>) -> Duration {
        let found = match &self.source {
            Source::File(path) => tokio::fs::metadata(path).await.ok(),
            Source::Address { .. } => None,
        };
        let found = found.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        if found.is_some() && found == *stamp {
            return self.pace.look;
        }
        match self.read().await {
            Ok(keys) => {
                self.keys.store(Arc::new(keys));
                *stamp = found;
            }
            Err(error) => {
                tell(&error);
                return self.pace.retry;
            }
        }
        match self.source {
            Source::File(_) => self.pace.look,
            Source::Address { .. } => self.pace.period,
        }
    }

    async fn read(&self) -> Result<KeySet, JwksError> {
        let read = timeout(self.pace.timeout, self.read_bytes());
        let bytes = read.await.map_err(|_| JwksError::Late)??;
        let keys = KeySet::from_jwks(&bytes).map_err(JwksError::Form)?;
        if keys.is_empty() {
            tracing::warn!("The JWKS has no key that can verify a token");
        }
        Ok(keys)
    }

    async fn read_bytes(&self) -> Result<Vec<u8>, JwksError> {
        let mut bytes = Vec::new();
        match &self.source {
            Source::File(path) => {
                let file = tokio::fs::File::open(path).await?;
                let mut bounded = file.take(JWKS_BYTES_MAX as u64 + 1);
                bounded.read_to_end(&mut bytes).await?;
            }
            Source::Address { client, url } => {
                let request = client.get(url).header("accept", "application/json");
                let answer = request.send().await.map_err(reqwest::Error::without_url)?;
                if answer.status().as_u16() != 200 {
                    return Err(JwksError::Status(answer.status().as_u16()));
                }
                let mut answer = answer;
                while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > JWKS_BYTES_MAX {
                        break;
                    }
                }
            }
        }
        if bytes.len() > JWKS_BYTES_MAX {
            return Err(JwksError::TooLong);
        }
        Ok(bytes)
    }
}

fn tell(error: &JwksError) {
    tracing::warn!(%error, "The JWKS could not be read; the keys of the last good read stay in use");
}

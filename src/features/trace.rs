//! Finding one event among all that are stored, by its id.
//!
//! Promises: memory is asked first; the records are read newest first, in bounded steps beside the readers, one search
//! at a time and no longer than `SEARCH_MAX`. Of several events with one id the newest is found.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::event::{Event, EventId};
use crate::store::shared::StoreError;
use crate::store::{Store, sweep};

/// Commits looked at in one step.
const STEP_COMMITS: u64 = 10_000;
const SEARCH_MAX: Duration = Duration::from_secs(20);

/// The right to search, which one has at a time.
pub struct Traces(Semaphore);

impl Default for Traces {
    fn default() -> Traces {
        Traces(Semaphore::new(1))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    #[error("another search through the stored events is going on")]
    Busy,
    /// There may be such an event among the older ones.
    #[error("the search took too long and was given up")]
    GivenUp,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Traces {
    /// The newest event with this id; `None` when none is stored.
    pub async fn find(
        &self,
        store: &Store,
        id: &EventId,
    ) -> Result<Option<Arc<Event>>, TraceError> {
        if let Some(event) = store.recent(id) {
            return Ok(Some(event));
        }
        let _turn = self.0.try_acquire().map_err(|_| TraceError::Busy)?;
        let deadline = Instant::now() + SEARCH_MAX;
        let mut end = store
            .look(|transaction| Ok(transaction.next_commit()))
            .await?;
        while end > 0 {
            if Instant::now() > deadline {
                return Err(TraceError::GivenUp);
            }
            let (start, id) = (end.saturating_sub(STEP_COMMITS), id.clone());
            let found = store
                .aside(move |rows| sweep::with_id(rows, id.as_str(), start..end))
                .await?;
            if let Some(event) = found {
                return Ok(Some(Arc::new(event)));
            }
            end = start;
        }
        Ok(None)
    }
}

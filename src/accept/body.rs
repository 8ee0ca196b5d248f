//! A request's body that must come at a decent speed.
//!
//! Promises: whoever reads the body gets `TooSlow` when nothing came for `pause_max`, or when the whole came more
//! slowly than `BYTES_PER_SECOND_MIN` after a first `pause_max`. Only time spent waiting for the peer counts.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::accept::counts::Counts;

/// A drip of single bytes would hold a connection for ever; the slowest mobile link is ten times faster.
const BYTES_PER_SECOND_MIN: u64 = 500;

/// The request's body came too slowly; told to the reader of the body, as 408 to the peer if anyone still listens.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the request's body came too slowly")]
pub struct TooSlow;

pub struct PacedBody {
    body: Incoming,
    counts: Arc<Counts>,
    pause_max: Duration,
    received_bytes: u64,
    /// Time spent waiting before the present wait.
    waited: Duration,
    wait: Option<Wait>,
}

struct Wait {
    since: Instant,
    end: Pin<Box<Sleep>>,
}

impl PacedBody {
    pub fn new(body: Incoming, counts: Arc<Counts>, pause_max: Duration) -> PacedBody {
        PacedBody {
            body,
            counts,
            pause_max,
            received_bytes: 0,
            waited: Duration::ZERO,
            wait: None,
        }
    }

    /// How long the peer may let us wait now.
    fn patience(&self) -> Duration {
        let earned = Duration::from_millis(self.received_bytes * 1000 / BYTES_PER_SECOND_MIN);
        let left = (self.pause_max + earned).saturating_sub(self.waited);
        left.min(self.pause_max)
    }

    fn received(&mut self, frame: &Frame<Bytes>) {
        self.received_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if let Some(wait) = self.wait.take() {
            self.waited += wait.since.elapsed();
        }
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let paced = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut paced.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                paced.received(frame);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let patience = paced.patience();
        let wait = paced.wait.get_or_insert_with(|| Wait {
            since: Instant::now(),
            end: Box::pin(tokio::time::sleep(patience)),
        });
        ready!(wait.end.as_mut().poll(context));
        Counts::add(&paced.counts.body_late);
        Poll::Ready(Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

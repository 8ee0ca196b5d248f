//! An end to the wait for an HTTP/2 stream whose reader keeps its window closed. HTTP/1 has it from `socket`.
//!
//! Promises: a stream whose peer takes nothing of what is there for it within the write timeout is reset and counted;
//! the other streams of its connection go on. What waits is known by the body: a frame was given out, and hyper did not
//! come for the next one. A last frame that hyper has handed to h2 is out of sight.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Instant, sleep};

use crate::accept::counts::Counts;

tokio::task_local! {
    /// Since when a frame waits for the peer's window. Written by a stream's body, read by the task that runs both.
    static WAITS_SINCE: Cell<Option<Instant>>;
}

/// Runs each HTTP/2 stream as a task of its own, as hyper wants it, and drops it when its peer takes nothing: hyper then
/// resets the stream.
#[derive(Clone)]
pub struct Streams {
    pub write_timeout: Duration,
    pub counts: Arc<Counts>,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let Streams {
            write_timeout,
            counts,
        } = self.clone();
        tokio::spawn(WAITS_SINCE.scope(Cell::new(None), async move {
            let mut stream = pin!(stream);
            let mut patience = pin!(sleep(write_timeout));
            let is_whole = poll_fn(|context| {
                if stream.as_mut().poll(context).is_ready() {
                    return Poll::Ready(true);
                }
                let Some(since) = WAITS_SINCE.with(Cell::get) else {
                    return Poll::Pending;
                };
                if patience.deadline() != since + write_timeout {
                    patience.as_mut().reset(since + write_timeout);
                }
                patience.as_mut().poll(context).map(|()| false)
            });
            if !is_whole.await {
                Counts::add(&counts.streams_stalled);
            }
        }));
    }
}

/// Has the stream's task know what its body waits for.
pub fn watched(response: Response) -> Response {
    response.map(|body| Body::new(WatchedBody(body)))
}

struct WatchedBody(Body);

impl http_body::Body for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.0).poll_frame(context);
        let waits_since = match &polled {
            Poll::Ready(Some(_)) => Some(Instant::now()),
            Poll::Ready(None) | Poll::Pending => None,
        };
        // Nobody watches where it is not such a task that reads the body.
        WAITS_SINCE.try_with(|cell| cell.set(waits_since)).ok();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

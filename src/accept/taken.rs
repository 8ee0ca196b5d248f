//! A connection that carries one stream to its end, without hyper: HTTP/1.1 with chunks (RFC 9112, section 7.1).
//!
//! Promises: the reader gets the same response as from hyper, and `Connection: close`, since nothing else will be
//! answered here; a reader that goes away is noticed at once, one that takes nothing by the socket's write timeout;
//! what it sends meanwhile is read and forgotten, up to a bound. It knows bytes only.

use std::fmt::Write as _;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::response::Parts;
use axum::response::Response;
use bytes::{Buf, BytesMut};
use futures_util::poll;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use crate::accept::socket::Socket;
use crate::accept::spare;
use crate::http::stream::News;
use crate::http::streaming::{Streaming, Takeable, Written};

const LINE_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// What the head of a response, the first frame and a few events take.
const HEAD_BYTES: usize = 2048;
/// What is written at once while a reader catches up; a turn may come on top of it.
const TOGETHER_BYTES_MAX: usize = 16 << 10;
/// Bytes for a chunk's size: as many digits as a size can have, and the end of the line.
const CHUNK_HEADROOM: usize = usize::BITS as usize / 4 + LINE_END.len();

/// Where the service of one HTTP/1 connection leaves the stream that its task is to take over.
#[derive(Clone, Default)]
pub struct Slot(Arc<Mutex<Option<Box<Taken>>>>);

/// A stream whose response has not been written yet.
pub struct Taken {
    head: Parts,
    streaming: Streaming,
}

impl Slot {
    /// Takes the stream out of the response, if it is one.
    pub fn offer(&self, response: Response) -> Option<Response> {
        let takeable = response.extensions().get::<Takeable>();
        let Some(streaming) = takeable.and_then(Takeable::take) else {
            return Some(response);
        };
        let (head, _) = response.into_parts();
        *self.0.lock() = Some(Box::new(Taken { head, streaming }));
        None
    }

    pub fn is_filled(&self) -> bool {
        self.0.lock().is_some()
    }

    pub fn take(&self) -> Option<Box<Taken>> {
        self.0.lock().take()
    }
}

impl Taken {
    /// Writes the response and every turn of its stream, until one side ends it or `cut` ends both. What is done once
    /// and what ends soon are futures of their own: this one is kept for as long as the stream is open.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice"
    )]
    pub fn carry(
        self: Box<Self>,
        mut socket: Socket,
        cut: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let (mut streaming, head) = self.begin();
            // Boxed: once a stream is open it has no place for it.
            let opening = Box::pin(opened(&mut socket, &mut streaming, head, &cut));
            let mut goes_on = opening.await;
            while goes_on {
                let news = NewsUnlessGone {
                    socket: &mut socket,
                    news: streaming.news(),
                };
                let Some(news) = news.await else {
                    return;
                };
                let (bytes, is_last) = turn(&mut streaming, news, spare::take());
                goes_on = sent(&mut socket, bytes, &cut).await && !is_last;
            }
            // A peer that has gone already cannot be told; the socket closes either way.
            socket.shutdown().await.ok();
        }
    }

    /// The stream, and the response with the first frame.
    fn begin(self: Box<Self>) -> (Streaming, BytesMut) {
        let Taken {
            head,
            mut streaming,
        } = *self;
        let bytes = head_bytes(&head);
        let before = bytes.len();
        let bytes = streaming.greeting(CHUNK_HEADROOM, bytes);
        (streaming, chunked(bytes, before, false))
    }
}

/// Writes how a stream begins, and all that its reader missed. What is there without waiting goes out together: most who
/// come back missed little, and have all of it in one packet. False: the stream is over.
async fn opened(
    socket: &mut Socket,
    streaming: &mut Streaming,
    mut bytes: BytesMut,
    cut: &CancellationToken,
) -> bool {
    let mut is_last = false;
    while !is_last && !streaming.is_caught_up() {
        let news = {
            let mut waiting = pin!(streaming.news());
            let polled = poll!(waiting.as_mut());
            // A page is often followed by no more than the word that this was all.
            let is_enough = bytes.len() >= TOGETHER_BYTES_MAX
                && !matches!(&polled, Poll::Ready(news) if news.is_short());
            if (polled.is_pending() || is_enough) && !sent(socket, mem::take(&mut bytes), cut).await
            {
                return false;
            }
            let news = match polled {
                Poll::Ready(news) => Some(news),
                Poll::Pending => {
                    let (socket, news) = (&mut *socket, waiting);
                    NewsUnlessGone { socket, news }.await
                }
            };
            let Some(news) = news else {
                return false;
            };
            news
        };
        (bytes, is_last) = turn(streaming, news, bytes);
    }
    sent(socket, bytes, cut).await && !is_last
}

/// One turn as a chunk behind what the buffer holds, and whether it is the last.
fn turn(streaming: &mut Streaming, news: News, buffer: BytesMut) -> (BytesMut, bool) {
    let before = buffer.len();
    let Written { bytes, is_last } = streaming.write(news, CHUNK_HEADROOM, buffer);
    (chunked(bytes, before, is_last), is_last)
}

/// Writes the bytes. False: the peer does not take them, or it is time to cut.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice"
)]
fn sent(
    socket: &mut Socket,
    bytes: BytesMut,
    cut: &CancellationToken,
) -> impl Future<Output = bool> {
    async move {
        let mut writing = pin!(socket.write_all(&bytes));
        let is_sent = match poll!(writing.as_mut()) {
            Poll::Ready(sent) => sent.is_ok(),
            // Boxed: a stream has no place for it while nothing is in the way of its bytes, which is nearly always.
            Poll::Pending => Box::pin(unless_cut(writing, cut)).await,
        };
        spare::give_back(bytes);
        is_sent
    }
}

/// Waits for the end of a write. False: it failed, or it is time to cut.
async fn unless_cut(
    writing: impl Future<Output = io::Result<()>>,
    cut: &CancellationToken,
) -> bool {
    tokio::select! {
        biased;
        written = writing => written.is_ok(),
        () = cut.cancelled() => false,
    }
}

pin_project! {
    /// What is next for the reader, or nothing once the reader has gone.
    struct NewsUnlessGone<'a, F> {
        socket: &'a mut Socket,
        #[pin]
        news: F,
    }
}

impl<F: Future<Output = News>> Future for NewsUnlessGone<'_, F> {
    type Output = Option<News>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<News>> {
        let waiting = self.project();
        match waiting.news.poll(context) {
            // Writing it tells whether the reader is there.
            Poll::Ready(news) => Poll::Ready(Some(news)),
            Poll::Pending => waiting.socket.poll_gone(context).map(|()| None),
        }
    }
}

/// The frames of one turn, behind `before` other bytes and their headroom, as a chunk.
fn chunked(mut bytes: BytesMut, before: usize, is_last: bool) -> BytesMut {
    let length = bytes.len().saturating_sub(before + CHUNK_HEADROOM);
    if length > 0 {
        let mut start = before + CHUNK_HEADROOM - LINE_END.len();
        bytes[start..][..LINE_END.len()].copy_from_slice(LINE_END);
        let mut left = length;
        while left > 0 {
            start -= 1;
            bytes[start] = b"0123456789abcdef"[left % 16];
            left /= 16;
        }
        let unused = start - before;
        // The shorter side closes the gap.
        match before <= length {
            true => {
                bytes.copy_within(..before, unused);
                bytes.advance(unused);
            }
            false => {
                bytes.copy_within(start.., before);
                bytes.truncate(bytes.len() - unused);
            }
        }
        bytes.extend_from_slice(LINE_END);
    }
    if is_last {
        bytes.extend_from_slice(LAST_CHUNK);
    }
    bytes
}

fn head_bytes(head: &Parts) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES);
    let reason = head.status.canonical_reason().unwrap_or("");
    let now = httpdate::fmt_http_date(std::time::SystemTime::now());
    write!(bytes, "HTTP/1.1 {} {reason}\r\n", head.status.as_u16())
        .expect("writing to memory does not fail");
    for (name, value) in &head.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    write!(
        bytes,
        "transfer-encoding: chunked\r\nconnection: close\r\ndate: {now}\r\n\r\n"
    )
    .expect("writing to memory does not fail");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::connections::Connection;

    fn size_of_future<F>(_: impl Fn(Box<Taken>, Socket, CancellationToken) -> F) -> usize {
        size_of::<F>()
    }

    /// Each is allocated once a stream. tokio adds 112 bytes to the one, `Arc` 16 to the other; then the allocator's sizes
    /// are 640 and 128, and the next are 768 and 160.
    #[test]
    fn what_every_open_stream_keeps_is_small() {
        assert!(size_of_future(Taken::carry) <= 528);
        assert!(size_of::<Connection>() <= 112);
    }
}

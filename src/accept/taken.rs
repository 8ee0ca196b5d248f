//! A connection that carries one stream to its end, without hyper: HTTP/1.1 with chunks (RFC 9112, section 7.1).
//!
//! Promises: the reader gets the same response as from hyper, and `Connection: close`, since nothing else will be
//! answered here; a reader that goes away is noticed at once, one that takes nothing by the socket's write timeout;
//! what it sends meanwhile is read and forgotten, up to a bound. It knows bytes only.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::response::Parts;
use axum::response::Response;
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::accept::socket::Socket;
use crate::http::streaming::{Streaming, Takeable};

/// What a reader may send after its request before it is no longer listened to.
const FORGOTTEN_BYTES_MAX: usize = 64 * 1024;
const LINE_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
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
    /// Writes the response and every turn of its stream, until one side ends it or `cut` ends both. No async fn, which
    /// keeps its arguments twice: that and what is dropped early would be 300 bytes a stream.
    pub fn carry(
        self: Box<Self>,
        mut socket: Socket,
        cut: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        let Taken {
            head,
            mut streaming,
        } = *self;
        let mut before = head_bytes(&head);
        async move {
            let mut forgotten = 0;
            loop {
                let written = tokio::select! {
                    biased;
                    () = Gone { socket: &mut socket, forgotten: &mut forgotten } => return,
                    written = streaming.turn(CHUNK_HEADROOM) => written,
                };
                let mut bytes = chunked(written.bytes, written.is_last);
                if !before.is_empty() {
                    before.extend_from_slice(&bytes);
                    bytes = std::mem::take(&mut before);
                }
                let is_sent = tokio::select! {
                    biased;
                    sent = socket.write_all(&bytes) => sent.is_ok(),
                    () = cut.cancelled() => false,
                };
                if written.is_last || !is_sent {
                    // A peer that has gone already cannot be told; the socket closes either way.
                    socket.shutdown().await.ok();
                    return;
                }
            }
        }
    }
}

/// The frames of one turn, behind their headroom, as a chunk.
fn chunked(mut bytes: BytesMut, is_last: bool) -> BytesMut {
    if let Some(mut length @ 1..) = bytes.len().checked_sub(CHUNK_HEADROOM) {
        let mut start = CHUNK_HEADROOM - LINE_END.len();
        bytes[start..CHUNK_HEADROOM].copy_from_slice(LINE_END);
        while length > 0 {
            start -= 1;
            bytes[start] = b"0123456789abcdef"[length % 16];
            length /= 16;
        }
        bytes.advance(start);
        bytes.extend_from_slice(LINE_END);
    }
    if is_last {
        bytes.extend_from_slice(LAST_CHUNK);
    }
    bytes
}

fn head_bytes(head: &Parts) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(512);
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

/// Resolves when the peer has closed its half, or the connection broke.
struct Gone<'a> {
    socket: &'a mut Socket,
    forgotten: &'a mut usize,
}

impl Future for Gone<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let gone = self.get_mut();
        let mut space = [0; 256];
        while *gone.forgotten < FORGOTTEN_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(&mut *gone.socket).poll_read(context, &mut buffer));
            match buffer.filled().len() {
                0 => return Poll::Ready(()),
                _ if read.is_err() => return Poll::Ready(()),
                count => *gone.forgotten += count,
            }
        }
        // A peer that keeps talking is no longer listened to; writes will tell when it goes.
        Poll::Pending
    }
}

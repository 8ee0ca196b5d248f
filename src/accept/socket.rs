//! One accepted TCP connection: its socket options, its first bytes, and an end to writes that do not progress.
//!
//! Promises: a peer that vanished is noticed by the kernel within 45 s even when nothing is written; a peer that takes
//! no byte for the write timeout gets an error instead of a wait. While nothing is blocked it costs two pointers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use crate::accept::counts::Counts;

/// How long sent data may stay unacknowledged at least. Linux counts a closed window too, so the wait is longer than
/// the write time-out: a reader that is merely slow is told so instead of being cut by the kernel.
const UNACKNOWLEDGED_MIN: Duration = Duration::from_secs(20);
const BEYOND_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which the kernel asks whether the peer is still there; then every interval.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// What a peer may send that nobody will answer, before it is no longer listened to.
const FORGOTTEN_BYTES_MAX: u32 = 64 * 1024;

/// The first bytes of an HTTP/2 connection; no HTTP/1 method begins with them.
const HTTP2_START: &[u8; 3] = b"PRI";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Counts a socket as open for as long as it lives, also when a WebSocket has it, and keeps its place.
#[derive(Debug)]
pub struct Open {
    counts: Arc<Counts>,
    _place: Place,
}

/// One of a bounded number of places; it comes back when this is dropped. Half as large as the semaphore's own permit.
#[derive(Debug)]
struct Place(Arc<Semaphore>);

impl Place {
    fn of(permit: OwnedSemaphorePermit) -> Place {
        let places = Arc::clone(permit.semaphore());
        permit.forget();
        Place(places)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

impl Open {
    pub fn new(counts: Arc<Counts>, place: OwnedSemaphorePermit) -> Open {
        Counts::add(&counts.accepted);
        Counts::add(&counts.open);
        Open {
            counts,
            _place: Place::of(place),
        }
    }

    /// Counts an error of the kernel by its reason.
    fn note(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::TimedOut {
            Counts::add(&self.counts.vanished);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    open: Open,
    write_timeout_ms: u32,
    /// Bytes that `poll_gone` read.
    forgotten: u32,
    /// Ends a blocked write; there only while one is blocked.
    stall: Option<Pin<Box<Sleep>>>,
    /// Bytes that `protocol` took and `poll_read` gives back, from `replayed` to `taken`.
    start: [u8; HTTP2_START.len()],
    taken: u8,
    replayed: u8,
}

impl Socket {
    pub fn new(stream: TcpStream, open: Open, write_timeout: Duration) -> Socket {
        if let Err(error) = set_options(&stream, write_timeout) {
            tracing::debug!(%error, "The options of a socket could not be set");
        }
        Socket {
            stream,
            open,
            write_timeout_ms: u32::try_from(write_timeout.as_millis()).unwrap_or(u32::MAX),
            forgotten: 0,
            stall: None,
            start: [0; HTTP2_START.len()],
            taken: 0,
            replayed: 0,
        }
    }

    /// Waits for as many bytes as tell the protocol. They are read again by whoever reads next.
    pub async fn protocol(&mut self) -> io::Result<Protocol> {
        loop {
            let taken = usize::from(self.taken);
            if self.start[..taken] != HTTP2_START[..taken] {
                return Ok(Protocol::Http1);
            }
            if taken == HTTP2_START.len() {
                return Ok(Protocol::Http2);
            }
            match self.stream.read(&mut self.start[taken..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.taken += read as u8,
            }
        }
    }

    /// Resolves when the peer has closed its half, or the connection broke. What it says meanwhile is read and forgotten,
    /// up to a bound.
    pub fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut space = [0; 256];
        while self.forgotten < FORGOTTEN_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(&mut *self).poll_read(context, &mut buffer));
            match buffer.filled().len() {
                0 => return Poll::Ready(()),
                _ if read.is_err() => return Poll::Ready(()),
                count => self.forgotten += count as u32,
            }
        }
        // A peer that keeps talking is no longer listened to; writes will tell when it goes.
        Poll::Pending
    }

    /// Passes on what a write gave, or the end of patience when it goes on giving nothing.
    fn watched(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.stall = None;
            return Poll::Ready(written.inspect_err(|error| self.open.note(error)));
        }
        let patience = Duration::from_millis(self.write_timeout_ms.into());
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stall.as_mut().poll(context));
        Counts::add(&self.open.counts.write_stalled);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

fn set_options(stream: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let unacknowledged_max = (write_timeout + BEYOND_WRITE_TIMEOUT).max(UNACKNOWLEDGED_MIN);
    socket.set_tcp_user_timeout(Some(unacknowledged_max))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        if socket.replayed == socket.taken {
            let read = ready!(Pin::new(&mut socket.stream).poll_read(context, buffer));
            return Poll::Ready(read.inspect_err(|error| socket.open.note(error)));
        }
        let left = &socket.start[usize::from(socket.replayed)..usize::from(socket.taken)];
        let given = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..given]);
        socket.replayed += given as u8;
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // The rest of the request is most often there already: one call to hyper less.
        match Pin::new(&mut socket.stream).poll_read(context, buffer) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let written = Pin::new(&mut socket.stream).poll_write(context, bytes);
        socket.watched(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let written = Pin::new(&mut socket.stream).poll_write_vectored(context, slices);
        socket.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

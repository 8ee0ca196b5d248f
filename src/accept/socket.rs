//! One accepted TCP connection: its socket options, its first bytes, and an end to writes that do not progress.
//!
//! Promises: a peer that vanished is noticed by the kernel within 45 s even when nothing is written; a peer that takes
//! no byte for the write timeout gets an error instead of a wait. While nothing is blocked it costs three pointers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
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

/// What is read of a connection at first.
const START_BYTES: usize = 1024;
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
    /// Bytes that `protocol` took, until `poll_read` has given them back.
    start: Option<Box<Start>>,
}

/// The first bytes of a connection: the whole head of most first requests.
#[derive(Debug)]
struct Start {
    bytes: [u8; START_BYTES],
    taken: usize,
    replayed: usize,
}

impl Socket {
    pub fn new(stream: TcpStream, open: Open, write_timeout: Duration) -> Socket {
        Socket {
            stream,
            open,
            write_timeout_ms: u32::try_from(write_timeout.as_millis()).unwrap_or(u32::MAX),
            forgotten: 0,
            stall: None,
            start: None,
        }
    }

    /// Waits for as many bytes as tell the protocol. They are read again by whoever reads next.
    pub async fn protocol(&mut self) -> io::Result<Protocol> {
        let start = self.start.insert(Box::new(Start {
            bytes: [0; START_BYTES],
            taken: 0,
            replayed: 0,
        }));
        loop {
            let known = start.taken.min(HTTP2_START.len());
            if start.bytes[..known] != HTTP2_START[..known] {
                return Ok(Protocol::Http1);
            }
            if known == HTTP2_START.len() {
                return Ok(Protocol::Http2);
            }
            match self.stream.read(&mut start.bytes[start.taken..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => start.taken += read,
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

/// Sets the options of all connections that the listener will accept: they inherit its own (Linux; `tcp(7)`), which spares
/// each of them six calls of the kernel.
pub fn set_options(listener: &TcpListener, write_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(listener);
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
        let Some(start) = &mut socket.start else {
            let read = ready!(Pin::new(&mut socket.stream).poll_read(context, buffer));
            return Poll::Ready(read.inspect_err(|error| socket.open.note(error)));
        };
        let left = &start.bytes[start.replayed..start.taken];
        let given = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..given]);
        start.replayed += given;
        if start.replayed == start.taken {
            socket.start = None;
        }
        Poll::Ready(Ok(()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_inherit_the_options_of_their_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        set_options(&listener, Duration::from_secs(30)).unwrap();
        let address = listener.local_addr().unwrap();
        let _peer = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        let unacknowledged_max = socket.tcp_user_timeout().unwrap();
        assert_eq!(unacknowledged_max, Some(Duration::from_secs(35)));
    }
}

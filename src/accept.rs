//! The accept loop: takes connections, speaks HTTP/1.1 or HTTP/2 on them, and ends them.
//!
//! Promises: every wait for a peer has an end (first byte, head, body, write), every connection a place in a bounded
//! number of tasks; running out of descriptors slows accepting and stops nothing; after `stop` no connection is
//! accepted, and after `drain` none is left. What a request means is the router's business alone. Upgraded
//! connections (WebSocket) leave this file's hands and must watch `stop` themselves, as every stream must.

mod body;
mod counts;
mod framing;
mod socket;
pub mod spare;
mod taken;
#[cfg(test)]
mod tests;
mod window;

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{Method, Version, header};
use axum::response::Response;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service as HyperService;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::io::InspectReader;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::accept::body::TooSlow;
pub use crate::accept::counts::{Counts, Told};

use crate::accept::body::PacedBody;
use crate::accept::framing::Framing;
use crate::accept::socket::{Open, Protocol, Socket};
use crate::accept::taken::Slot;
use crate::accept::window::Streams;
use crate::http::AmbiguousLength;

/// Length of a request's head, and of hyper's buffers for one HTTP/1 connection.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Header fields of one request.
const HEADERS_MAX: usize = 100;
/// Streams of one HTTP/2 connection; a browser has one connection for all its tabs.
const STREAMS_MAX: u32 = 256;
/// Connections that the kernel keeps until we accept them; it takes less where `net.core.somaxconn` is lower.
const BACKLOG: u32 = 65_535;
/// What a peer may send on one HTTP/2 stream, and on all of a connection, before we have read it.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// What we may hold for one HTTP/2 stream that the peer has not taken.
const STREAM_SEND_BYTES: usize = 32 * 1024;
/// Streams that a peer may reset before we looked at them, and that we may reset for its errors, until we hang up.
const PENDING_RESETS_MAX: usize = 20;
const ERROR_RESETS_MAX: usize = 64;
/// Time between two pings on an HTTP/2 connection, and for the answer.
const HTTP2_PING: Duration = Duration::from_secs(20);
const HTTP2_PONG: Duration = Duration::from_secs(10);
/// The pause after a failed accept: long enough to idle, short enough to go unnoticed.
const ACCEPT_PAUSE_MS: std::ops::Range<u64> = 50..200;

/// What bounds a connection.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Open connections. At this number no more are accepted until one ends: they wait in the kernel's queue, where an
    /// `EventSource` sees a slow connect instead of an error for ever. Choose it above `limits.connections`, so that
    /// short requests still get in when all streams are taken.
    pub connections_max: usize,
    /// For the first byte, then for each head of a request; also how long an idle connection is kept.
    pub head_timeout: Duration,
    /// For the next bytes of a request's body.
    pub body_timeout: Duration,
    /// For a peer that takes no byte.
    pub write_timeout: Duration,
    /// From `stop` to the end of the last connection.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            connections_max: 11_000,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// Listens on an address, with room for all clients of a server that was away for a moment to return at once: whom the
/// kernel's queue has no room for waits a second, then three, then seven.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What answers a request: the router, and what stands before it.
pub type Service = Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;

/// Serves `service` on `listener` until `stop`, then until the last connection has ended. Returns how many of them had
/// to be ended by force.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    settings: Settings,
    counts: Arc<Counts>,
    stop: CancellationToken,
) -> u64 {
    if let Err(error) = socket::set_options(&listener, settings.write_timeout) {
        tracing::warn!(%error, "The options of connections could not be set");
    }
    let places = Arc::new(Semaphore::new(settings.connections_max));
    let server = Arc::new(Server::new(service, settings, counts, stop));
    loop {
        let taken = tokio::select! {
            biased;
            () = server.stop.cancelled() => break,
            taken = take(&listener, &places) => taken,
        };
        match taken {
            Ok((stream, peer, place)) => {
                let open = Open::new(server.counts.clone(), place);
                let socket = Socket::new(stream, open, server.settings.write_timeout);
                server.tasks.spawn(server.clone().connection(socket, peer));
            }
            Err(error) => server.pause(&error).await,
        }
    }
    drop(listener);
    let cut_before = server.counts.cut.load(Ordering::Relaxed);
    server.tasks.close();
    if timeout(server.settings.drain, server.tasks.wait())
        .await
        .is_err()
    {
        server.cut.cancel();
    }
    // Each connection ends itself by then; see `finish` and `taken`.
    server.tasks.wait().await;
    server.counts.cut.load(Ordering::Relaxed) - cut_before
}

/// Accepts a connection once there is a place for it.
async fn take(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await;
    let place = place.expect("the semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

type Http1 = http1::UpgradeableConnection<TokioIo<Followed>, Requests>;
type Followed = InspectReader<Socket, Box<dyn FnMut(&[u8]) + Send>>;

/// What all connections share.
struct Server {
    service: Service,
    settings: Settings,
    counts: Arc<Counts>,
    stop: CancellationToken,
    /// Ends streams whose readers do not take the last bytes; at the end of a drain.
    cut: CancellationToken,
    tasks: TaskTracker,
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
}

impl Server {
    fn new(
        service: Service,
        settings: Settings,
        counts: Arc<Counts>,
        stop: CancellationToken,
    ) -> Server {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(settings.head_timeout)
            .keep_alive(true)
            .half_close(false)
            .pipeline_flush(false)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX);
        let mut http2 = http2::Builder::new(Streams {
            write_timeout: settings.write_timeout,
            counts: counts.clone(),
        });
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(HTTP2_PONG)
            .enable_connect_protocol()
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(STREAM_SEND_BYTES)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_local_error_reset_streams(ERROR_RESETS_MAX);
        Server {
            service,
            settings,
            counts,
            stop,
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            http1,
            http2,
        }
    }

    /// Lets a while pass after a failed accept, so that running out of descriptors does not become a busy loop.
    async fn pause(&self, error: &io::Error) {
        Counts::add(&self.counts.accept_failed);
        let is_of_one_peer = matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::Interrupted
        );
        if is_of_one_peer {
            return;
        }
        tracing::warn!(%error, "A connection could not be accepted; waiting a moment");
        let pause = Duration::from_millis(fastrand::u64(ACCEPT_PAUSE_MS));
        timeout(pause, self.stop.cancelled()).await.ok();
    }

    /// Serves one connection from its first byte to its end.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice: 136 bytes a connection, 256 when allocated"
    )]
    fn connection(
        self: Arc<Server>,
        mut socket: Socket,
        peer: SocketAddr,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let protocol = tokio::select! {
                biased;
                protocol = timeout(self.settings.head_timeout, socket.protocol()) => protocol,
                () = self.stop.cancelled() => return,
            };
            match protocol {
                Ok(Ok(Protocol::Http1)) => self.http1(socket, peer).await,
                // Boxed, since it is several times as large as the other and rarer.
                Ok(Ok(Protocol::Http2)) => Box::pin(self.http2(socket, peer)).await,
                Ok(Err(_)) => Counts::add(&self.counts.left),
                Err(_) => Counts::add(&self.counts.silent),
            }
        }
    }

    /// Serves one HTTP/1 connection; one that comes to carry a stream goes on in a smaller task of its own.
    async fn http1(self: &Arc<Server>, socket: Socket, peer: SocketAddr) {
        let slot = Slot::default();
        let framing = Framing::default();
        let requests = Requests {
            server: self.clone(),
            peer,
            has_asked: None,
            slot: Some(slot.clone()),
            heads: Some(Heads::of(&framing)),
        };
        let socket: Followed =
            InspectReader::new(socket, Box::new(move |bytes| framing.follow(bytes)));
        let connection = self.http1.serve_connection(TokioIo::new(socket), requests);
        let mut serving = Serving {
            connection: Some(connection.with_upgrades()),
            slot,
        };
        self.finish(Pin::new(&mut serving), |serving| {
            let connection = serving.get_mut().connection.as_mut();
            if let Some(connection) = connection {
                Pin::new(connection).graceful_shutdown();
            }
        })
        .await;
        let taken = serving.slot.take();
        let parts = serving.connection.and_then(Http1::into_parts);
        if let (Some(taken), Some(parts)) = (taken, parts) {
            let socket = parts.io.into_inner().into_inner();
            self.tasks.spawn(taken.carry(socket, self.cut.clone()));
        }
    }

    async fn http2(self: Arc<Server>, socket: Socket, peer: SocketAddr) {
        let has_asked = Arc::new(AtomicBool::new(false));
        let requests = Requests {
            server: self.clone(),
            peer,
            has_asked: Some(has_asked.clone()),
            slot: None,
            heads: None,
        };
        let connection = self.http2.serve_connection(TokioIo::new(socket), requests);
        let connection = pin!(connection);
        let mut finish = pin!(self.finish(connection, http2::Connection::graceful_shutdown));
        // hyper waits for ever for the handshake and for the first request.
        match timeout(self.settings.head_timeout, finish.as_mut()).await {
            Ok(()) => {}
            Err(_) if has_asked.load(Ordering::Relaxed) => finish.await,
            Err(_) => Counts::add(&self.counts.head_late),
        }
    }

    /// Waits for the end of a connection; when it is time to stop, asks for the end and at last enforces it.
    async fn finish<C>(&self, mut connection: Pin<&mut C>, ask_to_end: fn(Pin<&mut C>))
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => Some(ended),
            () = self.stop.cancelled() => None,
        };
        if let Some(ended) = ended {
            return self.note(ended);
        }
        ask_to_end(connection.as_mut());
        match timeout(self.settings.drain, connection).await {
            Ok(ended) => self.note(ended),
            Err(_) => Counts::add(&self.counts.cut),
        }
    }

    /// Counts how a connection ended. hyper has answered 400 or 431 where it could.
    fn note(&self, ended: hyper::Result<()>) {
        let Err(error) = ended else {
            return;
        };
        let count = if error.is_timeout() {
            &self.counts.head_late
        } else if error.is_parse_too_large() {
            &self.counts.head_too_large
        } else if error.is_parse() {
            &self.counts.malformed
        } else {
            &self.counts.left
        };
        Counts::add(count);
        tracing::debug!(%error, "A connection ended early");
    }
}

/// An HTTP/1 connection until its end, or until a stream is to be taken over.
struct Serving {
    connection: Option<Http1>,
    slot: Slot,
}

impl Future for Serving {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let serving = self.get_mut();
        let Some(connection) = serving.connection.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        match Pin::new(connection).poll(context) {
            // The service left a stream and never answers: hyper has nothing more to do.
            Poll::Pending if serving.slot.is_filled() => Poll::Ready(Ok(())),
            polled => polled,
        }
    }
}

/// Hands the requests of one connection to the service, with the peer's address and a body that must not dawdle.
struct Requests {
    server: Arc<Server>,
    peer: SocketAddr,
    /// Set with the first request, where someone waits for it: on HTTP/2.
    has_asked: Option<Arc<AtomicBool>>,
    /// Where a stream may be left for the connection's task, on HTTP/1.
    slot: Option<Slot>,
    /// The heads of requests as they came, on HTTP/1.
    heads: Option<Heads>,
}

/// Counts requests as they are served, to find them among those that came.
struct Heads {
    framing: Framing,
    served: AtomicU64,
}

impl Heads {
    fn of(framing: &Framing) -> Heads {
        Heads {
            framing: framing.clone(),
            served: AtomicU64::new(0),
        }
    }

    fn is_ambiguous<B>(&self, request: &hyper::Request<B>) -> bool {
        let number = self.served.fetch_add(1, Ordering::Relaxed) + 1;
        request.headers().contains_key(header::TRANSFER_ENCODING) && !self.framing.is_clear(number)
    }
}

impl HyperService<hyper::Request<Incoming>> for Requests {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = Answering;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        if let Some(has_asked) = &self.has_asked {
            has_asked.store(true, Ordering::Relaxed);
        }
        // HTTP/1.0 knows no chunks, and HEAD no body.
        let is_takeable = request.version() == Version::HTTP_11 && request.method() == Method::GET;
        let slot = self.slot.clone().filter(|_| is_takeable);
        let mut request: Request = request.map(|body| {
            let counts = self.server.counts.clone();
            let pause_max = self.server.settings.body_timeout;
            Body::new(PacedBody::new(body, counts, pause_max))
        });
        request.extensions_mut().insert(ConnectInfo(self.peer));
        if self
            .heads
            .as_ref()
            .is_some_and(|heads| heads.is_ambiguous(&request))
        {
            request.extensions_mut().insert(AmbiguousLength);
        }
        Answering {
            answer: (self.server.service)(request),
            slot,
            is_watched: self.has_asked.is_some(),
        }
    }
}

/// The service's answer, unless it is a stream that the connection's task takes over: then it never comes.
struct Answering {
    answer: BoxFuture<'static, Response>,
    slot: Option<Slot>,
    /// On HTTP/2, where no socket tells whether the peer takes this answer.
    is_watched: bool,
}

impl Future for Answering {
    type Output = Result<Response, std::convert::Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answering = self.get_mut();
        let response = ready!(answering.answer.as_mut().poll(context));
        let kept = match &answering.slot {
            Some(slot) => slot.offer(response),
            None if answering.is_watched => Some(window::watched(response)),
            None => Some(response),
        };
        kept.map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
    }
}

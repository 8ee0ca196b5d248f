//! One server from start to end: open the store, spawn what runs beside, serve, drain.
//!
//! Promises: when `start` returns, connections are accepted; every task has an owner that ends it; a drain tells every
//! stream, finishes every write, and leaves the data directory free. A store that fails ends the server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::{self, Counts, Told};
use crate::clock::Clock;
use crate::config::Config;
use crate::features::ack::Acks;
use crate::features::badge::Badges;
use crate::features::digest::{self, Digests};
use crate::features::feed::Feeds;
use crate::features::notification::Notifications;
use crate::features::pointers::Pointers;
use crate::features::presence::Presence;
use crate::features::receipts::Receipts;
use crate::features::revoke::Revocations;
use crate::features::ticket::Tickets;
use crate::features::typing::Typing;
use crate::features::{erase, retention};
use crate::http;
use crate::http::admin::Watch;
use crate::http::connections::{self, Connections};
use crate::http::link::DeflatePools;
use crate::http::privacy::Privacy;
use crate::http::state::App;
use crate::id::Random;
use crate::limits::{self, Limits};
use crate::metrics::Metrics;
use crate::metrics::summary::{SAMPLED_EVERY, Summary};
use crate::secret::{self, SecretError};
use crate::store::opening::OpenError;
use crate::store::shared::StoreError;
use crate::store::upkeep::Retention;
use crate::store::{self, Store, Surroundings};
use crate::token::{self, Verifier};
use crate::wake::Wakes;

/// How often limits and tickets forget what is over.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// Connections beyond `limits.connections`, for short requests when all streams are taken.
const SHORT_REQUESTS: usize = 1_000;
const DAY_MS: f64 = 86_400_000.0;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Keys(#[from] token::OpenError),
    #[error("cannot read the data directory {0}: {1}")]
    Store(PathBuf, StoreError),
    #[error("cannot tell the address of the listener: {0}")]
    Listener(std::io::Error),
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Drained,
    /// A write to the data directory failed; nothing can be promised any more.
    StoreFailed,
}

/// A server that accepts connections.
pub struct Running {
    app: Arc<App>,
    address: std::net::SocketAddr,
    store: store::Running,
    accepting: JoinHandle<u64>,
    /// Ends the accept loop and its connections.
    stop: CancellationToken,
    /// Ends the tasks beside; after the last connection.
    stop_beside: CancellationToken,
    beside: JoinSet<()>,
}

/// Opens the data directory and serves on `listener`.
pub async fn start(config: Config, listener: TcpListener) -> Result<Running, StartError> {
    start_by(Clock::system(), config, listener).await
}

/// The same by another clock, for tests of what lasts a day.
pub async fn start_by(
    clock: Clock,
    config: Config,
    listener: TcpListener,
) -> Result<Running, StartError> {
    // The provider may be installed already, by an earlier server in this process.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let address = listener.local_addr().map_err(StartError::Listener)?;
    let random = Random::system();
    let counts = Arc::new(Counts::default());
    let metrics = Metrics::default().with(Box::new(Told(Arc::clone(&counts))));
    let (metrics, wakes) = (Arc::new(metrics), Wakes::default());
    let surroundings = Surroundings {
        clock: clock.clone(),
        random: random.clone(),
        wakes: wakes.clone(),
        metrics: Arc::clone(&metrics),
    };
    let opened = open_store(&config, surroundings).await?;
    let secret = token_secret(&config)?;
    let verifier = Arc::new(Verifier::open(token_settings(&config, &secret)).await?);
    let store = opened.store.clone();
    let data_dir = config.server.data_dir.clone();
    let unreadable = |error| StartError::Store(data_dir.clone(), error);
    let told = told_of_connections(&config, &store, &clock, (&wakes, &metrics));
    let told = told.await.map_err(unreadable)?;
    let badges = Badges::default();
    let (notifications, feeds) = features(&config, &store, &badges, &random)
        .await
        .map_err(unreadable)?;
    let app = Arc::new(App {
        metrics,
        wakes,
        limits: Limits::new(&limit_settings(&config)),
        verifier: Arc::clone(&verifier),
        secret,
        revocations: Revocations::load(&store).await.map_err(unreadable)?,
        tickets: Tickets::load(&store).await.map_err(unreadable)?,
        acks: Acks::default(),
        badges,
        privacy: Privacy::default(),
        watch: Watch::begin(clock.now_ms()),
        receipts: Receipts::load(&store).await.map_err(unreadable)?,
        presence: told.presence.clone(),
        typing: told.typing.clone(),
        pointers: Pointers::default(),
        connections: Connections::new(told, config.stream.ping_seconds),
        notifications,
        feeds,
        deflate: DeflatePools::default(),
        sockets: TaskTracker::new(),
        random,
        store,
        clock,
        config,
    });
    Ok(serve(app, (opened, verifier), (listener, address), counts))
}

/// Begins to accept connections.
fn serve(
    app: Arc<App>,
    (store, verifier): (store::Running, Arc<Verifier>),
    (listener, address): (TcpListener, std::net::SocketAddr),
    counts: Arc<Counts>,
) -> Running {
    let (stop, stop_beside) = (CancellationToken::new(), CancellationToken::new());
    let beside = spawn_beside(&app, verifier, &stop_beside);
    let accepting = accept::serve(
        listener,
        Arc::new(http::service(Arc::clone(&app))),
        accept_settings(&app.config),
        counts,
        stop.clone(),
    );
    let accepting = tokio::spawn(accepting);
    Running {
        app,
        address,
        store,
        accepting,
        stop,
        stop_beside,
        beside,
    }
}

/// The engine takes its time, so it opens beside the runtime.
async fn open_store(
    config: &Config,
    surroundings: Surroundings,
) -> Result<store::Running, OpenError> {
    let settings = store_settings(config);
    let opening =
        tokio::task::spawn_blocking(move || store::Running::open(&settings, &surroundings));
    opening.await.expect("opening catches the engine's panics")
}

/// Those who hear of connections that open and end; presence takes up who was here when the server stopped.
async fn told_of_connections(
    config: &Config,
    store: &Store,
    clock: &Clock,
    (wakes, metrics): (&Wakes, &Arc<Metrics>),
) -> Result<connections::Told, StoreError> {
    let presence = Presence::load(store, clock, config.presence.offline_after_seconds);
    Ok(connections::Told {
        wakes: wakes.clone(),
        metrics: Arc::clone(metrics),
        presence: presence.await?,
        typing: Typing::new(config.typing.repeat_seconds, config.typing.clear_seconds),
    })
}

/// The features that gather, with what was pending when the server stopped.
async fn features(
    config: &Config,
    store: &store::Store,
    badges: &Badges,
    random: &Random,
) -> Result<(Notifications, Feeds), StoreError> {
    let notifications = Notifications {
        inbox_max: config.notifications.inbox_max,
        digests: Digests::load(digest_rule(config), store).await?,
        badges: badges.clone(),
        random: random.clone(),
    };
    let feeds = Feeds::load(store, config.feed.digest_seconds).await?;
    Ok((notifications, feeds))
}

fn spawn_beside(app: &Arc<App>, verifier: Arc<Verifier>, stop: &CancellationToken) -> JoinSet<()> {
    let mut beside = JoinSet::new();
    beside.spawn(verifier.refresh_forever(stop.clone()));
    beside.spawn(app.acks.clone().write_forever(
        app.store.clone(),
        app.receipts.clone(),
        app.random.clone(),
        stop.clone(),
    ));
    beside.spawn(app.receipts.clone().tell_forever(
        app.store.clone(),
        app.wakes.clone(),
        app.random.clone(),
        stop.clone(),
    ));
    beside.spawn(retention::keep_forever(
        app.store.clone(),
        app.badges.clone(),
        app.config.conversations.message_retention_days,
        stop.clone(),
    ));
    beside.spawn(app.badges.clone().tell_forever(
        app.store.clone(),
        app.wakes.clone(),
        app.random.clone(),
        stop.clone(),
    ));
    let memory = erase::Memory {
        feed_auto: app.feeds.auto.clone(),
        presence: app.presence.clone(),
    };
    beside.spawn(app.privacy.erasures.clone().work_forever(
        app.store.clone(),
        memory,
        app.random.clone(),
        stop.clone(),
    ));
    beside.spawn(sample_forever(Arc::clone(app), stop.clone()));
    spawn_tellers(app, &mut beside, stop);
    beside.spawn(app.notifications.digests.clone().tell_forever(
        app.store.clone(),
        app.random.clone(),
        stop.clone(),
    ));
    beside.spawn(app.feeds.clone().tell_forever(
        app.store.clone(),
        app.random.clone(),
        stop.clone(),
    ));
    beside.spawn(Arc::clone(&app.connections).beat_forever(stop.clone()));
    beside.spawn(app.store.clone().watch(stop.clone()));
    beside.spawn(tidy_forever(Arc::clone(app), stop.clone()));
    beside
}

/// Notes what was counted so far, so that an administrator can be told rates.
async fn sample_forever(app: Arc<App>, stop: CancellationToken) {
    loop {
        if let Ok(text) = app.metrics.encode() {
            let totals = Summary::of(&text).totals();
            app.watch.rates.sample(tokio::time::Instant::now(), totals);
        }
        let is_over = tokio::time::timeout(SAMPLED_EVERY, stop.cancelled()).await;
        if is_over.is_ok() {
            return;
        }
    }
}

/// The tasks that tell what is not logged: presence, typing and live signals.
fn spawn_tellers(app: &Arc<App>, beside: &mut JoinSet<()>, stop: &CancellationToken) {
    let shared = || {
        (
            app.store.clone(),
            app.wakes.clone(),
            app.random.clone(),
            stop.clone(),
        )
    };
    let (store, wakes, random, stop) = shared();
    beside.spawn(
        app.presence
            .clone()
            .tell_forever(store, wakes, random, stop),
    );
    let (store, wakes, random, stop) = shared();
    beside.spawn(app.typing.clone().tell_forever(store, wakes, random, stop));
    let (store, wakes, random, stop) = shared();
    beside.spawn(
        app.pointers
            .clone()
            .tell_forever(store, wakes, random, stop),
    );
}

/// Once a minute: forgets rates that no longer matter and tickets that are over.
async fn tidy_forever(app: Arc<App>, stop: CancellationToken) {
    while tokio::time::timeout(TIDY_EVERY, stop.cancelled())
        .await
        .is_err()
    {
        app.limits.trim();
        if let Err(error) = app.tickets.sweep(&app.store).await {
            tracing::warn!(%error, "old tickets could not be swept");
        }
    }
}

impl Running {
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// Resolves when the store has failed.
    pub async fn failure(&self) {
        self.app.store.failure().await;
    }

    /// Tells every stream to go, finishes what was asked, and closes the store.
    pub async fn drain(self) -> Outcome {
        let Running {
            app,
            store,
            accepting,
            stop,
            stop_beside,
            mut beside,
            ..
        } = self;
        app.connections.drain();
        stop.cancel();
        app.sockets.close();
        match accepting.await {
            Ok(0) => {}
            Ok(cut) => tracing::warn!(cut, "connections were cut at the end of the drain"),
            Err(error) => tracing::error!(%error, "the accept loop ended in a panic"),
        }
        if tokio::time::timeout(app.config.server.drain_seconds, app.sockets.wait())
            .await
            .is_err()
        {
            tracing::warn!("sockets were cut at the end of the drain");
        }
        stop_beside.cancel();
        while let Some(ended) = beside.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task beside the server ended in a panic");
            }
        }
        let has_failed = app.store.has_failed();
        drop(app);
        if has_failed {
            return Outcome::StoreFailed;
        }
        let closing = tokio::task::spawn_blocking(move || store.close());
        // A handle that outlived its connection would keep the committer; the process ends anyway.
        drop(tokio::time::timeout(Duration::from_secs(5), closing).await);
        Outcome::Drained
    }
}

fn store_settings(config: &Config) -> store::Settings {
    store::Settings {
        directory: config.server.data_dir.clone(),
        retention: Retention {
            events: config.log.retention_events,
            age_ms: (config.log.retention_days * DAY_MS) as u64,
            bytes: config.log.retention_bytes,
            total_bytes: config.log.retention_total_bytes,
        },
        ring_bytes: config.store.ring_bytes as u64,
        cache_bytes: config.store.cache_bytes,
        free_bytes_min: config.store.min_free_bytes,
        ballast_bytes: config.store.ballast_bytes,
    }
}

/// The configured secret, or the one that the data directory keeps.
fn token_secret(config: &Config) -> Result<SecretString, SecretError> {
    match config.auth.hs256_secret.expose_secret() {
        "" => secret::read_or_make(&config.server.data_dir),
        _ => Ok(config.auth.hs256_secret.clone()),
    }
}

fn token_settings(config: &Config, secret: &SecretString) -> token::Settings {
    let auth = &config.auth;
    token::Settings {
        hs256_secret: SecretString::from(secret.expose_secret().to_owned()),
        public_keys: auth.public_keys.clone(),
        jwks: auth.jwks.clone(),
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
    }
}

fn digest_rule(config: &Config) -> digest::Rule {
    let notifications = &config.notifications;
    let window_ms = notifications.digest_window_seconds.as_millis();
    digest::Rule {
        threshold: notifications.digest_threshold,
        window_ms: u64::try_from(window_ms).unwrap_or(u64::MAX),
        every: notifications.digest_every_seconds,
    }
}

fn limit_settings(config: &Config) -> limits::Settings {
    let limits = &config.limits;
    let seats = |count: usize| {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        std::num::NonZeroU32::new(count).unwrap_or(std::num::NonZeroU32::MIN)
    };
    limits::Settings {
        connections_per_user: seats(limits.connections_per_user),
        connections: seats(limits.connections),
        user_writes_per_second: limits.user_writes_per_second,
        user_writes_burst: limits.user_writes_burst,
        publish_per_second: limits.publish_per_second,
        auth_failures_per_minute: limits.auth_failures_per_minute,
    }
}

fn accept_settings(config: &Config) -> accept::Settings {
    accept::Settings {
        connections_max: config.limits.connections.saturating_add(SHORT_REQUESTS),
        write_timeout: config.stream.write_timeout_seconds,
        drain: config.server.drain_seconds,
        ..accept::Settings::default()
    }
}

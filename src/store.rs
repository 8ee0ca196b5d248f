//! The store: every user's log and the state of the features, on stable storage.
//!
//! Promises: `commit` answers after a real sync; readers see only what is durable; a refused or failed command leaves
//! nothing. Its functions are few and speak of commits, logs and rows, so that a shared store can take its place when
//! one machine is outgrown. Nothing outside this module names the engine.

pub mod archive;
pub mod committer;
pub mod disk;
pub mod engine;
pub mod index;
pub mod inspect;
pub mod intent;
pub mod journal;
pub mod journaled;
pub mod keys;
pub mod layers;
pub mod logs;
pub mod long;
pub mod mark;
pub mod memory;
pub mod opening;
pub mod ops;
pub mod pulse;
pub mod queue;
pub mod read;
pub mod record;
pub mod redaction;
pub mod repair;
pub mod ring;
pub mod rounds;
pub mod shared;
pub mod space;
pub mod staging;
pub mod sweep;
pub mod syncing;
pub mod times;
pub mod topics;
pub mod transaction;
pub mod upkeep;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, UnixMs};
use crate::event::{Event, EventId, Topic, UserId};
use crate::id::{Random, UserNo};
use crate::metrics::Metrics;
use crate::store::committer::Committer;
use crate::store::engine::{Engine, EngineError, Row, Rows};
use crate::store::logs::{Commits, Place, View};
use crate::store::mark::Mark;
use crate::store::opening::{Directory, OpenError, Opening};
use crate::store::pulse::Pulse;
use crate::store::queue::{Gone, Receiver, Sender, Verdict};
use crate::store::read::{PageBounds, Read};
use crate::store::ring::Ring;
use crate::store::shared::{Shared, StoreError};
use crate::store::space::Space;
use crate::store::times::{Times, Written};
use crate::store::topics::Topics;
use crate::store::transaction::{Transaction, Writer};
use crate::store::upkeep::{Retention, Upkeep};
use crate::wake::Wakes;

/// While a group is synced, so many commands that wait are worth waking the committer for.
const CROWD_MIN: usize = 32;
/// Readers of old events that may wait for the disk at a time.
const DISK_READERS_MAX: usize = 8;
/// Positions looked up at a time for a reader near its tail.
const PLACES_MAX: usize = 512;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Settings {
    pub directory: PathBuf,
    pub retention: Retention,
    pub ring_bytes: u64,
    pub cache_bytes: u64,
    pub free_bytes_min: u64,
    pub ballast_bytes: u64,
}

/// What the parts around the store give it.
#[derive(Clone)]
pub struct Surroundings {
    pub clock: Clock,
    pub random: Random,
    pub wakes: Wakes,
    pub metrics: Arc<Metrics>,
}

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    requests: Sender,
}

/// A store on disk whose committer runs on a thread of its own.
pub struct Running {
    pub store: Store,
    committer: std::thread::JoinHandle<()>,
}

impl Running {
    /// Opens the directory; blocks while it reads what memory needs.
    pub fn open(settings: &Settings, surroundings: &Surroundings) -> Result<Running, OpenError> {
        let directory = Directory::lock(&settings.directory)?;
        let io = |error| OpenError::Io(settings.directory.clone(), error);
        let engine = directory.open_engine(settings.cache_bytes, settings.ballast_bytes)?;
        let (mark, marked) = Mark::open(&directory.mark_path()).map_err(io)?;
        let rows = Rows::new(Box::new(engine));
        opening::check_format(&rows, &settings.directory)?;
        let opened = open_rows(rows, marked, settings, surroundings)
            .map_err(|error| directory.damaged(&error))?;
        let (store, mut writer_side) = opened;
        let is_full = Arc::clone(&store.shared.is_full);
        writer_side.mark = Some(mark);
        let (free_bytes_min, ballast_bytes) = (settings.free_bytes_min, settings.ballast_bytes);
        writer_side.space = Some(Space::watch(
            &directory.path,
            free_bytes_min,
            ballast_bytes,
            is_full,
        ));
        let committer = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build();
                let runtime = runtime.expect("a runtime with a timer only needs memory");
                runtime.block_on(writer_side.into_committer().run());
                drop(directory);
            })
            .map_err(io)?;
        Ok(Running { store, committer })
    }

    /// Waits until everything asked for is committed and the directory is free again. All other handles must be gone.
    pub fn close(self) {
        drop(self.store);
        if self.committer.join().is_err() {
            tracing::error!("the committer ended in a panic");
        }
    }
}

/// Opens a store on any engine; the caller runs the committer. For the simulation and for tests.
pub fn open_on(
    engine: Box<dyn Engine>,
    settings: &Settings,
    surroundings: &Surroundings,
) -> Result<(Store, Committer), EngineError> {
    let (store, writer_side) = open_rows(Rows::new(engine), None, settings, surroundings)?;
    Ok((store, writer_side.into_committer()))
}

/// The parts of a committer that is not running yet.
struct WriterSide {
    writer: Writer,
    upkeep: Upkeep,
    requests: Receiver,
    mark: Option<Mark>,
    space: Option<Space>,
}

impl WriterSide {
    fn into_committer(self) -> Committer {
        Committer::new(
            self.writer,
            self.upkeep,
            self.requests,
            self.mark,
            self.space,
        )
    }
}

fn open_rows(
    rows: Rows,
    marked: Option<u64>,
    settings: &Settings,
    surroundings: &Surroundings,
) -> Result<(Store, WriterSide), EngineError> {
    let retention_events = settings.retention.events;
    let opening = Opening {
        rows: &rows,
        random: &surroundings.random,
        retention_events,
        marked,
    };
    let opened = opening.run()?;
    let topics = Topics::load(&rows)?;
    surroundings.clock.not_before(opened.newest_ms);
    let shared = Arc::new(Shared {
        rows,
        logs: opened.logs,
        ring: Ring::new(settings.ring_bytes),
        times: Times::default(),
        wakes: surroundings.wakes.clone(),
        clock: surroundings.clock.clone(),
        metrics: Arc::clone(&surroundings.metrics),
        is_full: Arc::default(),
        failed: watch::Sender::new(false),
        at_work: Pulse::default(),
        in_sync: Pulse::default(),
        disk_readers: Semaphore::new(DISK_READERS_MAX),
    });
    let mut upkeep = Upkeep::new(settings.retention, opened.live_bytes);
    upkeep.resume(&shared.logs, &opened.replayed);
    shared
        .ring
        .push(opened.replayed.into_iter().map(|(event, _)| event));
    // The simulation is to meet commands that are applied while the group before is under way.
    let crowd_min = match shared.rows.is_resident() {
        true => 1,
        false => CROWD_MIN,
    };
    let (sender, requests) = queue::queue(crowd_min);
    let writer = Writer::new(Arc::clone(&shared), topics, opened.next_commit);
    let store = Store {
        shared,
        requests: sender,
    };
    Ok((
        store,
        WriterSide {
            writer,
            upkeep,
            requests,
            mark: None,
            space: None,
        },
    ))
}

impl Store {
    /// Runs `decide` in the committer and answers once what it staged is durable. When it refuses, nothing is kept.
    /// `bytes` is about what the command holds in memory.
    pub async fn commit<T, E>(
        &self,
        bytes: usize,
        decide: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        if self.shared.is_full.load(Ordering::Relaxed) {
            return Err(StoreError::DiskFull.into());
        }
        self.commit_always(bytes, decide).await
    }

    /// Like `commit`, also when the disk is nearly full: for what makes room or keeps someone out.
    pub async fn commit_always<T, E>(
        &self,
        bytes: usize,
        decide: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let run = Box::new(
            move |transaction: &mut Transaction<'_>| match decide(transaction) {
                // A caller who has gone away hears nothing; the command stays what it is.
                Ok(value) => Verdict::Keep(Box::new(move |durable: Result<(), StoreError>| {
                    drop(reply.send(durable.map(|()| value).map_err(E::from)));
                })),
                Err(error) => Verdict::Discard(Box::new(move || drop(reply.send(Err(error))))),
            },
        );
        let gone = |_: Gone| StoreError::Failed("the committer has stopped".to_owned());
        self.requests.send(bytes, run).await.map_err(gone)?;
        answer.await.unwrap_or_else(|_| Err(gone(Gone).into()))
    }

    /// Reads many rows at one moment: after everything that was asked for before, and before everything after. It
    /// answers once all that it saw is durable. Keep it short: commits wait for it.
    pub async fn look<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.commit_always(64, read).await
    }

    /// Rows of a feature from `from` up to but not including `to`, in order, at most `count_max`; all of them durable.
    /// It holds up no commit: for long lists that need not be of one moment with other rows.
    pub async fn range(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
        count_max: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let scan = move |shared: &Shared| shared.rows.range(&from, &to, count_max);
        let found = self.with_rows(scan).await?;
        // The engine shows what is applied and not yet synced; a commit of nothing waits for the sync.
        self.look(|_| Ok(())).await?;
        Ok(found)
    }

    /// The user's log, created if there was none.
    pub async fn log(&self, name: &UserId) -> Result<UserNo, StoreError> {
        match self.find(name) {
            Some(user) => Ok(user),
            None => {
                let name = name.clone();
                self.commit_always(64, move |transaction| Ok(transaction.user(&name)))
                    .await
            }
        }
    }

    pub fn find(&self, name: &UserId) -> Option<UserNo> {
        self.shared.logs.find(name)
    }

    pub fn name(&self, user: UserNo) -> UserId {
        self.shared.logs.name(user)
    }

    pub fn view(&self, user: UserNo) -> View {
        self.shared.logs.view(user)
    }

    pub fn logs(&self) -> u32 {
        self.shared.logs.count()
    }

    /// Events of the user's log after `after`, as many as the bounds allow.
    pub async fn read(
        &self,
        user: UserNo,
        after: u64,
        bounds: PageBounds,
    ) -> Result<Read, StoreError> {
        Ok(self.view_and_read(user, after, bounds).await?.1)
    }

    /// The same, with how the log stands: as it was looked at, or after the disk was asked.
    pub async fn view_and_read(
        &self,
        user: UserNo,
        after: u64,
        bounds: PageBounds,
    ) -> Result<(View, Read), StoreError> {
        if let (view, Some(read)) = self.read_recent(user, after, bounds) {
            return Ok((view, read));
        }
        self.shared.metrics.reads_disk.inc();
        let old = move |shared: &Shared| read::old(shared, user, after, bounds, PLACES_MAX);
        // Boxed: a reader that waits at its tail has no room for it.
        let read = Box::pin(self.with_rows(old)).await?;
        Ok((self.view(user), read))
    }

    /// The same from memory alone; `None` when the disk must be asked.
    pub fn read_recent(
        &self,
        user: UserNo,
        after: u64,
        bounds: PageBounds,
    ) -> (View, Option<Read>) {
        let count_max = PLACES_MAX.min(bounds.events);
        let mut commits = Commits::new();
        let logs = &self.shared.logs;
        let (view, place) = logs.place_after(user, after, count_max, &mut commits);
        let read = match place {
            Place::AtTail => Some(Read::AtTail),
            Place::Gone { floor } => Some(Read::Gone { floor }),
            Place::Indexed { .. } => None,
            Place::Known => read::recent(&self.shared, after, bounds, &commits),
        };
        (view, read)
    }

    /// The newest seq before the first retained event at or after `time_ms`.
    pub async fn seq_before(&self, user: UserNo, time_ms: UnixMs) -> Result<u64, StoreError> {
        self.with_rows(move |shared| read::seq_before(shared, user, time_ms))
            .await
    }

    /// Users subscribed to a topic, in the order of their numbers, at most `count_max` after `after`.
    pub async fn subscribers(
        &self,
        topic: Topic,
        after: Option<UserNo>,
        count_max: usize,
    ) -> Result<Vec<UserNo>, StoreError> {
        self.with_rows(move |shared| topics::subscribers(&shared.rows, &topic, after, count_max))
            .await
    }

    /// The newest event in memory with this id.
    pub fn recent(&self, id: &EventId) -> Option<Arc<Event>> {
        self.shared.ring.find(id.as_str())
    }

    /// Rare and slow work on the rows, one bounded step of it: the functions of `sweep`, `topics` and `read`.
    pub async fn aside<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Rows) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.with_rows(move |shared| step(&shared.rows)).await
    }

    /// When the event was appended and synced, if that is not too long ago.
    pub fn written(&self, commit: u64) -> Option<Written> {
        self.shared.times.of(commit)
    }

    /// Whether the user of this number was erased.
    pub fn is_erased(&self, user: UserNo) -> bool {
        self.shared.logs.read(user, |head| head.is_erased)
    }

    /// What the user's kept events count against the retention.
    pub fn log_bytes(&self, user: UserNo) -> u64 {
        self.shared.logs.read(user, |head| head.bytes)
    }

    /// Whether nothing is stored any more of what the log does not show.
    pub fn is_trimmed(&self, user: UserNo) -> bool {
        let logs = &self.shared.logs;
        logs.read(user, |head| head.kept_from >= head.floor)
    }

    /// One row of a feature.
    pub async fn row(&self, key: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        self.with_rows(move |shared| shared.rows.get(&key)).await
    }

    /// All rows of one feature's kind: what follows the kind in the key, and the value.
    pub async fn rows(&self, kind: u8) -> Result<Vec<Row>, StoreError> {
        self.with_rows(move |shared| {
            let (from, to) = keys::states(kind);
            let found = shared.rows.range(&from, &to, usize::MAX)?;
            let name = |(key, value): Row| (key[from.len()..].to_vec(), value);
            Ok(found.into_iter().map(name).collect())
        })
        .await
    }

    /// Asks the rows without holding up an async worker.
    async fn with_rows<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Shared) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.shared.rows.is_resident() {
            return Ok(ask(&self.shared)?);
        }
        let _place = self.shared.disk_readers.acquire().await;
        let shared = Arc::clone(&self.shared);
        let asked = tokio::task::spawn_blocking(move || ask(&shared)).await;
        let asked = asked.map_err(|error| StoreError::Failed(error.to_string()))?;
        Ok(asked?)
    }

    pub fn now_ms(&self) -> UnixMs {
        self.shared.clock.now_ms()
    }

    pub fn disk_bytes(&self) -> u64 {
        self.shared.rows.disk_bytes()
    }

    pub fn unsynced_values(&self) -> u64 {
        self.shared.rows.unsynced_values()
    }

    pub fn is_full(&self) -> bool {
        self.shared.is_full.load(Ordering::Relaxed)
    }

    pub fn has_failed(&self) -> bool {
        *self.shared.failed.borrow()
    }

    /// Lets the store fail when the committer hangs, until `stop`.
    pub async fn watch(self, stop: CancellationToken) {
        pulse::watch(&self.shared, stop).await;
    }

    /// Resolves when a write or sync has failed.
    pub async fn failure(&self) {
        let mut failed = self.shared.failed.subscribe();
        // The sender lives in `shared`, which this handle keeps.
        drop(failed.wait_for(|failed| *failed).await);
    }
}

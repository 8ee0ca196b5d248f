//! The engine behind a journal: what is durable in the journal is put into the engine later, many operations at a time.
//!
//! Promises: as every engine's: `apply` is all or nothing also across a crash, `sync` reaches stable storage, readers
//! see what was applied. A sync costs one write and one sync of a small file, whatever the engine costs. The engine gets
//! only what is durable, and the journal forgets only what the engine has synced. A start puts the rest into it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::store::disk::{Disk, OpenError};
use crate::store::engine::{BATCH_BYTES_MAX, BATCH_OPS_MAX, Engine, EngineError, Op, Visit};
use crate::store::journal::{self, Found, Journal, Text};
use crate::store::layers::{self, Layer, Layers};

/// Which groups the engine has, in a row behind all others: number and checksum.
const MOVED_KEY: [u8; 2] = [0xff, b'j'];
/// Rows wait for the engine until they are so many, or for so long: many together cost it less, and of rows that are
/// written often only the newest goes there.
const MOVE_BYTES: u64 = 256 << 10;
const MOVE_AFTER: Duration = Duration::from_millis(200);
/// Whoever applies waits while more than this waits for the engine.
const WAITING_BYTES_MAX: u64 = 4 << 20;
/// A group ends here even when nobody asked for a sync.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// Changed rows that a scan looks at together.
const CHANGES_TOGETHER: usize = 256;

/// What is done about groups that the journal lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Refuse,
    /// To save what is left of a damaged store.
    StepOver,
}

pub struct Journaled {
    core: Arc<Core>,
    mover: Option<JoinHandle<()>>,
}

struct Core {
    engine: Box<dyn Engine>,
    directory: PathBuf,
    state: Mutex<State>,
    /// Told to the mover when there is something for it, and by it when there is less.
    changed: Condvar,
    /// Locked for a whole write and sync: there is one at a time.
    journal: Mutex<Journal>,
}

/// Groups are numbers of the journal.
#[derive(Default)]
struct State {
    layers: Layers,
    /// The operations of `fresh`, for the journal.
    text: Text,
    /// Newest group that is durable; written by `sync`, read by the mover.
    durable: u64,
    /// When rows began to wait for the engine.
    waits_since: Option<Instant>,
    /// Groups up to this are on stable storage in the engine; written by the mover, read by `sync`.
    moved: u64,
    /// Groups up to this must be, before the journal can go on; written by `sync`, read by the mover.
    wanted: u64,
    is_closing: bool,
    /// Why nothing more is taken; written by the mover and by `sync`, whichever fails first.
    failed: Option<EngineError>,
}

impl Journaled {
    /// Opens or creates the engine and its journal in `directory`, which must exist.
    pub fn open(
        directory: &Path,
        cache_bytes: u64,
        missing: Missing,
    ) -> Result<Journaled, OpenError> {
        let is_new = !journal::exists(directory);
        let disk = Disk::open(directory, cache_bytes)?;
        let moved = match moved(&disk) {
            // All that the journal holds is put into what is left.
            Err(_) if missing == Missing::StepOver => None,
            moved => moved?,
        };
        if is_new && moved.is_some() && missing == Missing::Refuse {
            let cause = "its files `log/journal.0` and `log/journal.1` are missing";
            return Err(OpenError::Damaged(cause.to_owned()));
        }
        let found = journal::read(directory).map_err(OpenError::Io)?;
        Journaled::on(
            Box::new(disk),
            directory,
            (found, moved.unwrap_or(0)),
            missing,
        )
    }

    fn on(
        engine: Box<dyn Engine>,
        directory: &Path,
        (found, moved): (Found, u64),
        missing: Missing,
    ) -> Result<Journaled, OpenError> {
        let core = Arc::new(Core::open(engine, directory, (found, moved), missing)?);
        let mover = std::thread::Builder::new().name("mover".to_owned()).spawn({
            let core = Arc::clone(&core);
            move || core.move_on()
        });
        let mover = Some(mover.map_err(OpenError::Io)?);
        Ok(Journaled { core, mover })
    }
}

impl Drop for Journaled {
    /// What was applied is kept, and the engine has all of it: a start after this finds nothing to do in the journal.
    fn drop(&mut self) {
        if let Err(error) = self.core.sync() {
            tracing::error!(%error, "cannot sync the journal at the end");
        }
        self.core.state.lock().is_closing = true;
        self.core.changed.notify_all();
        if let Some(mover) = self.mover.take()
            && mover.join().is_err()
        {
            tracing::error!("the thread that fills the engine ended in a panic");
        }
    }
}

/// Which groups the engine says it has.
fn moved(engine: &dyn Engine) -> Result<Option<u64>, OpenError> {
    let failed = |error: EngineError| OpenError::Damaged(error.to_string());
    let Some(row) = engine.get(&MOVED_KEY).map_err(failed)? else {
        return Ok(None);
    };
    let number = row.first_chunk().map(|number| u64::from_le_bytes(*number));
    match number.filter(|number| row == moved_row(*number)) {
        None => Err(OpenError::Damaged(
            "the row that knows its journal is damaged".to_owned(),
        )),
        number => Ok(number),
    }
}

fn moved_row(number: u64) -> Vec<u8> {
    let number = number.to_le_bytes();
    [number.as_slice(), &crc32c::crc32c(&number).to_le_bytes()].concat()
}

impl Core {
    /// Puts what the journal knows and the engine does not into the engine.
    fn open(
        engine: Box<dyn Engine>,
        directory: &Path,
        (found, moved): (Found, u64),
        missing: Missing,
    ) -> Result<Core, OpenError> {
        let failed = |error: EngineError| OpenError::Damaged(error.to_string());
        let (newest, places) = (found.newest(), found.places);
        let (groups, lacking) = found.after(moved);
        if let (Some(number), Missing::Refuse) = (lacking, missing) {
            return Err(OpenError::Damaged(format!(
                "its journal, the files `log/journal.0` and `log/journal.1`, lacks group {number} of those that `log/db` does not have"
            )));
        }
        if !groups.is_empty() {
            tracing::info!(groups = groups.len(), "taking over what the journal holds");
            let ops = groups.into_iter().flat_map(|(_, ops)| ops);
            let layer = ops.map(layers::row).collect();
            fill(&*engine, &layer, newest).map_err(failed)?;
        }
        // Also what it had: a server that was killed need not have synced it, and the journal goes on from here.
        engine.sync().map_err(failed)?;
        let newest = newest.max(moved);
        let journal = Journal::open(directory, places, newest).map_err(OpenError::Io)?;
        let state = State {
            durable: newest,
            moved: newest,
            ..State::default()
        };
        Ok(Core {
            engine,
            directory: directory.to_owned(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            journal: Mutex::new(journal),
        })
    }

    /// Puts what is durable into the engine, until it is closed.
    fn move_on(&self) {
        let mut state = self.state.lock();
        loop {
            self.wait_for_rows(&mut state);
            let is_over = state.is_closing && !state.layers.is_anything_durable();
            if state.failed.is_some() || is_over {
                break;
            }
            let (layer, upto) = (state.layers.begin_move(), state.durable);
            state.waits_since = None;
            let outcome = MutexGuard::unlocked(&mut state, || self.take(&layer, upto));
            match outcome {
                Ok(()) => {
                    state.layers.end_move();
                    state.moved = upto;
                }
                Err(error) => {
                    tracing::error!(%error, "the engine takes no more; all that was acknowledged is in the journal");
                    state.failed = Some(error);
                }
            }
            self.changed.notify_all();
        }
    }

    fn wait_for_rows(&self, state: &mut MutexGuard<'_, State>) {
        loop {
            let is_due = state.layers.waiting_bytes() >= MOVE_BYTES || state.wanted > state.moved;
            if is_due || state.is_closing || state.failed.is_some() {
                return;
            }
            match state.waits_since {
                None => self.changed.wait(state),
                Some(since) => {
                    if self
                        .changed
                        .wait_until(state, since + MOVE_AFTER)
                        .timed_out()
                    {
                        return;
                    }
                }
            }
        }
    }

    fn take(&self, layer: &Layer, upto: u64) -> Result<(), EngineError> {
        fail::fail_point!("before_move");
        fill(&*self.engine, layer, upto)?;
        fail::fail_point!("after_move");
        Ok(())
    }

    /// Makes everything applied durable in the journal.
    fn sync(&self) -> Result<(), EngineError> {
        let mut journal = self.journal.lock();
        let mut text = {
            let mut state = self.state.lock();
            state.is_working()?;
            if state.text.is_empty() {
                return Ok(());
            }
            state.layers.begin_sync();
            std::mem::take(&mut state.text)
        };
        let written = self.write(&mut journal, &mut text);
        let mut state = self.state.lock();
        if let Err(error) = &written {
            // A second sync might lie.
            state.failed.get_or_insert_with(|| error.clone());
            self.changed.notify_all();
        }
        let number = written?;
        state.durable = number;
        let was_waiting = state.waits_since.is_some();
        if state.layers.end_sync() >= MOVE_BYTES || !was_waiting {
            self.changed.notify_all();
        }
        state.waits_since.get_or_insert_with(Instant::now);
        text.clear();
        if state.text.is_empty() {
            state.text = text;
        }
        Ok(())
    }

    /// Writes the next group, makes it durable, and gives its number.
    fn write(&self, journal: &mut Journal, text: &mut Text) -> Result<u64, EngineError> {
        let failed = |error: std::io::Error| EngineError::Failed(error.to_string());
        if let Some(taken_over) = journal.taken_over(text) {
            self.wait_until_moved(taken_over)?;
        }
        let number = journal.next();
        fail::fail_point!("before_write");
        journal.write(text).map_err(failed)?;
        fail::fail_point!("after_write");
        fail::fail_point!("before_sync");
        if !is_sync_skipped() {
            journal.sync().map_err(failed)?;
        }
        fail::fail_point!("after_sync");
        Ok(number)
    }

    /// Waits until groups up to this number are on stable storage in the engine.
    fn wait_until_moved(&self, number: u64) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        while state.moved < number {
            state.is_working()?;
            state.wanted = state.wanted.max(number);
            self.changed.notify_all();
            self.changed.wait(&mut state);
        }
        Ok(())
    }
}

impl State {
    fn is_working(&self) -> Result<(), EngineError> {
        self.failed.clone().map_or(Ok(()), Err)
    }
}

/// Puts rows into the engine, in batches, and with the last of them which groups those are. A crash in between leaves
/// some of them: the journal has them all. Each batch is synced before the next is written: sled moves old rows about and
/// writes over their old place once the new one is written, synced or not, so that a power cut after several batches
/// took rows away that were on stable storage for long.
fn fill(engine: &dyn Engine, layer: &Layer, upto: u64) -> Result<(), EngineError> {
    let mut batch = Vec::new();
    let mut batch_bytes = 0;
    for (key, value) in layer {
        let bytes = layers::bytes(key, value.as_deref());
        // One place is left for the row that tells the groups.
        let is_full = batch.len() + 1 == BATCH_OPS_MAX || batch_bytes + bytes > BATCH_BYTES_MAX;
        if is_full && !batch.is_empty() {
            engine.apply(std::mem::take(&mut batch))?;
            engine.sync()?;
            batch_bytes = 0;
        }
        batch_bytes += bytes;
        batch.push(match value {
            Some(value) => Op::Put(key.clone(), value.clone()),
            None => Op::Delete(key.clone()),
        });
    }
    batch.push(Op::Put(MOVED_KEY.to_vec(), moved_row(upto)));
    engine.apply(batch)?;
    engine.sync()
}

impl Engine for Journaled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        // Rows that go to the engine meanwhile are there before they leave the layers.
        let known = self.core.state.lock().layers.get(key);
        known.map_or_else(|| self.core.engine.get(key), Ok)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), EngineError> {
        let mut from = from.to_vec();
        loop {
            let (changes, are_all) =
                self.core
                    .state
                    .lock()
                    .layers
                    .changes(&from, to, CHANGES_TOGETHER);
            let end = match changes.last_key_value().filter(|_| !are_all) {
                // The first key behind the last change.
                Some((last, _)) => [last.as_slice(), &[0]].concat(),
                None => to.to_vec(),
            };
            let flow = scan_changed(&*self.core.engine, (&from, &end), changes, visit)?;
            if are_all || flow.is_break() {
                return Ok(());
            }
            from = end;
        }
    }

    fn last_key(&self, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let (changes, _) = self.core.state.lock().layers.changes(from, to, usize::MAX);
        layers::last_key(&changes, to, |end| self.core.engine.last_key(from, end))
    }

    fn apply(&self, ops: Vec<Op>) -> Result<(), EngineError> {
        let mut state = self.core.state.lock();
        state.is_working()?;
        for op in ops {
            state.text.add(&op);
            state.layers.put(op);
        }
        if state.text.bytes() > GROUP_BYTES_MAX {
            MutexGuard::unlocked(&mut state, || self.core.sync())?;
        }
        while state.layers.waiting_bytes() > WAITING_BYTES_MAX {
            state.is_working()?;
            self.core.changed.wait(&mut state);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.core.sync()
    }

    fn disk_bytes(&self) -> u64 {
        self.core.engine.disk_bytes() + journal::disk_bytes(&self.core.directory)
    }

    fn unsynced_values(&self) -> u64 {
        self.core.engine.unsynced_values()
    }

    fn is_resident(&self) -> bool {
        false
    }
}

/// Visits the engine's rows of a range as the changes have them.
fn scan_changed(
    engine: &dyn Engine,
    (from, to): (&[u8], &[u8]),
    changes: Layer,
    visit: Visit<'_>,
) -> Result<ControlFlow<()>, EngineError> {
    let mut changes = changes.into_iter().peekable();
    let mut flow = ControlFlow::Continue(());
    engine.scan(from, to, &mut |key, stored| {
        while let Some((changed, value)) = changes.next_if(|(changed, _)| changed.as_slice() < key)
        {
            if let Some(value) = value {
                flow = visit(&changed, &value);
                flow?;
            }
        }
        flow = match changes.next_if(|(changed, _)| changed == key) {
            Some((_, None)) => ControlFlow::Continue(()),
            Some((_, Some(value))) => visit(key, &value),
            None => visit(key, stored),
        };
        flow
    })?;
    for (key, value) in changes {
        if let (Some(value), true) = (value, flow.is_continue()) {
            flow = visit(&key, &value);
        }
    }
    Ok(flow)
}

/// A fault that the checker must catch.
fn is_sync_skipped() -> bool {
    fail::fail_point!("mutant_skip_sync", |_| true);
    false
}

#[cfg(test)]
mod tests;

//! F8: a data directory is damaged by hand. The server refuses with a sentence, or serves and says what is gone;
//! what it must never do is lose something and keep silent.
//!
//! Every trial works on a copy. One origin was stopped in order, the other was killed.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use tokio::time::sleep;

use crate::bench::{Bench, Report, Run, copy_directory};
use crate::delivery;
use crate::history::{CommittedLog, Entry, Invariant, Op, Origin, Read, Recorder, Transport};
use crate::http::{Ask, Link, Target, token};
use crate::invariants::{self, Violation};
use crate::life::{Life, Shape};
use crate::nemesis::{Recipe, Refused, Server, Started};
use crate::publisher::{self, Draft, Key};
use crate::truth;

const SHAPE: Shape = Shape {
    users: 6,
    publishers: 8,
    readers: 0,
    pad_bytes: 200,
};
/// Twice what the server is allowed.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
const PAGE_BYTES: u64 = 4096;
const JOURNALS: [&str; 2] = ["journal.0", "journal.1"];

/// A way to damage a data directory; gives a sentence, or None where the directory has no such file.
type Damage = fn(&Origins, &Path, &mut Rng) -> Result<Option<String>>;

const DAMAGES: [Damage; 16] = [
    flip_bit,
    zero_page,
    truncate_anywhere,
    truncate_end,
    zero_end,
    remove_db,
    remove_snapshots,
    older_db,
    foreign_db,
    foreign_file,
    flip_bit_of_journal,
    zero_block_of_journal,
    zero_newest_of_journal,
    remove_journal,
    older_journal,
    older_store,
];

/// A data directory as the server left it, and what was in it.
struct Kept {
    data: PathBuf,
    history: Vec<Entry>,
    logs: Vec<CommittedLog>,
}

/// The origins, and a copy of the data directory from before the last events were written.
struct Origins {
    stopped: Kept,
    killed: Kept,
    older: PathBuf,
}

pub async fn damaged(bench: &Bench, count: usize) -> Result<Report> {
    let mut run = Run::new(bench, "F8", count);
    let mut rng = bench.rng("F8");
    let mut recipe = bench.recipe("F8")?;
    let origins = make_origins(bench, &recipe, &mut rng).await?;
    run.acked(origins.killed.logs.iter().map(|log| log.head.seq).sum());
    recipe.data = bench.work.join("F8-damaged");
    let (mut refused, mut served) = (0, 0);
    for trial in 0..count {
        if run.is_broken() {
            break;
        }
        let origin = if (trial / DAMAGES.len()).is_multiple_of(2) {
            &origins.stopped
        } else {
            &origins.killed
        };
        copy_directory(&origin.data, &recipe.data)?;
        let Some(what) = DAMAGES[trial % DAMAGES.len()](&origins, &recipe.data, &mut rng)? else {
            run.clean(1);
            continue;
        };
        let recorder = Recorder::with(origin.history.clone());
        recorder.fault(&what, true);
        let target = Target::default();
        let outcome = match recipe.start().await {
            Err(error) => Err(error),
            Ok(Started::Refused(answer)) => {
                refused += 1;
                judge_refusal(&recorder, &recipe, &what, &answer);
                Ok(())
            }
            Ok(Started::Ready(server)) => {
                served += 1;
                target.set(Some(server.address));
                let outcome = judge_service(&recorder, &target, &origin.logs).await;
                drop(server);
                outcome
            }
        };
        let named = |violation: Violation| {
            Violation::new(violation.invariant, format!("{what}: {}", violation.what))
        };
        let violations = outcome.map(|()| {
            recorder
                .with_entries(invariants::check)
                .into_iter()
                .map(named)
                .collect()
        });
        run.judge(
            violations.with_context(|| what.clone()),
            Some(&recorder),
            &recipe.data,
        );
    }
    run.fact(format!(
        "{refused} refused, {served} served with honest resets"
    ));
    Ok(run.report())
}

/// Two directories: one from a server that was stopped, one from a server that was killed.
async fn make_origins(bench: &Bench, recipe: &Recipe, rng: &mut Rng) -> Result<Origins> {
    let target = Target::default();
    let mut life = Life::begin("damaged", &target, SHAPE, rng)?;

    let server = recipe.start_ready(&target).await?;
    blow(&mut life).await?;
    drain(server).await?;
    let older = bench.work.join("F8-older");
    copy_directory(&recipe.data, &older)?;

    let server = recipe.start_ready(&target).await?;
    blow(&mut life).await?;
    life.settle().await?;
    drain(server).await?;
    let stopped = keep(&life, &recipe.data, bench.work.join("F8-stopped")).await?;

    let server = recipe.start_ready(&target).await?;
    blow(&mut life).await?;
    life.settle().await?;
    server.kill()?;
    let killed = keep(&life, &recipe.data, bench.work.join("F8-killed")).await?;
    life.end().await;
    Ok(Origins {
        stopped,
        killed,
        older,
    })
}

async fn drain(server: Server) -> Result<()> {
    let code = server.stop(DRAIN_TIME_MAX).await?;
    ensure!(code == Some(0), "a drained server exits 0, not {code:?}");
    Ok(())
}

async fn blow(life: &mut Life) -> Result<()> {
    let storm = life.storm()?;
    sleep(Duration::from_millis(300)).await;
    storm.calm().await;
    Ok(())
}

async fn keep(life: &Life, data: &Path, kept: PathBuf) -> Result<Kept> {
    copy_directory(data, &kept)?;
    let history = life.recorder.with_entries(<[Entry]>::to_vec);
    let mut logs: Vec<CommittedLog> = Vec::new();
    for entry in history.iter().rev() {
        if let Op::Log(log) = &entry.op
            && logs.iter().all(|known| known.user != log.user)
        {
            logs.push(log.clone());
        }
    }
    Ok(Kept {
        data: kept,
        history,
        logs,
    })
}

/// A refusal ends with code 1 and a sentence that names the place and the tool; a panic is neither.
fn judge_refusal(recorder: &Recorder, recipe: &Recipe, what: &str, refused: &Refused) {
    let Refused {
        code, signal, said, ..
    } = refused;
    let is_orderly = *code == Some(1) && !said.contains("panicked at");
    let words = format!(
        "{what}: ends with code {code:?}, signal {signal:?}, and says: {}",
        said.trim()
    );
    recorder.claim(
        Invariant::Honest,
        is_orderly,
        format!("a refusal exits 1 without a panic; {words}"),
    );
    let names_place = said.contains(recipe.data.to_string_lossy().as_ref());
    let names_tool = ["tidings verify", "tidings repair", "tidings restore"]
        .iter()
        .any(|tool| said.contains(tool));
    let what = format!("a refusal names the directory and the tool; {words}");
    recorder.claim(Invariant::Honest, names_place && names_tool, what);
}

/// Old cursors must go on or be reset, new events must not take old positions, and what is gone must be said.
async fn judge_service(recorder: &Recorder, target: &Target, logs: &[CommittedLog]) -> Result<()> {
    let publisher_token = publisher::token()?;
    let mut link = Link::open(target.required()?).await?;
    for (number, log) in logs.iter().enumerate() {
        let process = format!("resuming-{number}");
        let origin = Origin::After(log.head.clone());
        let invoke = Read::Invoke {
            user: log.user.clone(),
            transport: Transport::Poll,
            origin,
        };
        let draft = Draft::new(format!("after-damage-{number}"), &log.user, Key::None, 20);
        publisher::publish(recorder, "publisher", &publisher_token, &mut link, &draft).await;
        recorder.record(&process, Op::Read(invoke));
        let path = format!("/v1/events?format=json&wait=0&cursor={}", log.head);
        let answer = link.ask(&Ask::get(path, &token(&log.user, None)?)).await?;
        match delivery::understand_page(&answer.body) {
            Ok(reads) => reads
                .into_iter()
                .for_each(|read| recorder.record(&process, Op::Read(read))),
            Err(reason) => recorder.claim(
                Invariant::Honest,
                false,
                format!("{}: {reason}", answer.status),
            ),
        }
        recorder.record(&process, Op::Read(Read::End));
        recorder.record(&process, Op::Read(Read::Leave));
        recorder.record("truth", Op::Log(truth::read_log(target, &log.user).await?));
    }
    Ok(())
}

/// The engine's directory: the one that holds the file `db`.
fn engine_of(data: &Path) -> PathBuf {
    let below = data.join("log");
    if below.is_dir() {
        below
    } else {
        data.to_owned()
    }
}

fn db_of(data: &Path) -> PathBuf {
    engine_of(data).join("db")
}

fn flip_bit(_: &Origins, data: &Path, rng: &mut Rng) -> Result<Option<String>> {
    flip_bit_of(&db_of(data), rng)
}

fn flip_bit_of(path: &Path, rng: &mut Rng) -> Result<Option<String>> {
    let mut file = open(path)?;
    let length = file.metadata()?.len();
    // Most of the file is empty; a flipped bit must hit something that was written.
    for _ in 0..10_000 {
        let place = rng.u64(0..length);
        let mut byte = [0_u8];
        file.seek(SeekFrom::Start(place))?;
        file.read_exact(&mut byte)?;
        if byte[0] != 0 {
            file.seek(SeekFrom::Start(place))?;
            file.write_all(&[byte[0] ^ (1 << rng.u8(0..8))])?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            return Ok(Some(format!(
                "a bit of {name} flipped at {place} of {length}"
            )));
        }
    }
    Ok(None)
}

fn zero_page(_: &Origins, data: &Path, rng: &mut Rng) -> Result<Option<String>> {
    let end = written_bytes(&db_of(data))?;
    let place = rng.u64(0..end.div_ceil(PAGE_BYTES)) * PAGE_BYTES;
    zero(&db_of(data), place, PAGE_BYTES)?;
    Ok(Some(format!(
        "a page of db zeroed at {place}, written are {end}"
    )))
}

fn truncate_anywhere(_: &Origins, data: &Path, rng: &mut Rng) -> Result<Option<String>> {
    let end = written_bytes(&db_of(data))?;
    let length = rng.u64(0..end);
    open(&db_of(data))?.set_len(length)?;
    Ok(Some(format!(
        "db truncated to {length}, written were {end}"
    )))
}

fn truncate_end(_: &Origins, data: &Path, rng: &mut Rng) -> Result<Option<String>> {
    let end = written_bytes(&db_of(data))?;
    let length = end.saturating_sub(rng.u64(1..20_000));
    open(&db_of(data))?.set_len(length)?;
    Ok(Some(format!(
        "db lost its end: {length} of {end} written bytes left"
    )))
}

fn zero_end(_: &Origins, data: &Path, rng: &mut Rng) -> Result<Option<String>> {
    let end = written_bytes(&db_of(data))?;
    let lost = rng.u64(1..20_000).min(end);
    zero(&db_of(data), end - lost, lost)?;
    Ok(Some(format!(
        "the last {lost} of {end} written bytes of db zeroed"
    )))
}

fn remove_db(_: &Origins, data: &Path, _: &mut Rng) -> Result<Option<String>> {
    std::fs::remove_file(db_of(data))?;
    Ok(Some("db removed".to_owned()))
}

fn remove_snapshots(_: &Origins, data: &Path, _: &mut Rng) -> Result<Option<String>> {
    let mut removed = 0;
    for entry in std::fs::read_dir(engine_of(data))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok((removed > 0).then(|| format!("{removed} snapshots removed")))
}

fn older_db(origins: &Origins, data: &Path, _: &mut Rng) -> Result<Option<String>> {
    std::fs::copy(db_of(&origins.older), db_of(data))?;
    Ok(Some("db replaced by an older copy of itself".to_owned()))
}

fn foreign_db(_: &Origins, data: &Path, rng: &mut Rng) -> Result<Option<String>> {
    let bytes: Vec<u8> = (0..rng.usize(1..200_000)).map(|_| rng.u8(..)).collect();
    std::fs::write(db_of(data), &bytes)?;
    Ok(Some(format!(
        "db replaced by {} foreign bytes",
        bytes.len()
    )))
}

fn foreign_file(_: &Origins, data: &Path, rng: &mut Rng) -> Result<Option<String>> {
    let names = [
        "snap.00000000000000ff",
        "snap.0.generating",
        "holiday.jpg",
        "blobs/12345",
    ];
    let name = names[rng.usize(0..names.len())];
    let path = engine_of(data).join(name);
    std::fs::create_dir_all(
        path.parent()
            .context("a file in the data directory has a parent")?,
    )?;
    std::fs::write(path, b"this is not ours")?;
    Ok(Some(format!("a foreign file {name}")))
}

/// One of the two files of the journal.
fn journal_of(data: &Path, rng: &mut Rng) -> PathBuf {
    engine_of(data).join(JOURNALS[rng.usize(0..2)])
}

fn flip_bit_of_journal(_: &Origins, data: &Path, rng: &mut Rng) -> Result<Option<String>> {
    flip_bit_of(&journal_of(data, rng), rng)
}

fn zero_block_of_journal(_: &Origins, data: &Path, rng: &mut Rng) -> Result<Option<String>> {
    let path = journal_of(data, rng);
    let Ok(end) = written_bytes(&path) else {
        return Ok(None);
    };
    let place = rng.u64(0..end.div_ceil(PAGE_BYTES)) * PAGE_BYTES;
    zero(&path, place, PAGE_BYTES)?;
    Ok(Some(format!(
        "a block of {} zeroed at {place}",
        path.display()
    )))
}

/// The group that was written last looks as if it had never been written.
fn zero_newest_of_journal(_: &Origins, data: &Path, _: &mut Rng) -> Result<Option<String>> {
    let mut newest = (0, PathBuf::new(), 0);
    for name in JOURNALS {
        let path = engine_of(data).join(name);
        for (block, bytes) in std::fs::read(&path)?
            .chunks(PAGE_BYTES as usize)
            .enumerate()
        {
            let number = u64::from_le_bytes(bytes[8..16].try_into()?);
            if bytes.starts_with(b"\xfftidjnl\xff") && number > newest.0 {
                newest = (number, path.clone(), block as u64 * PAGE_BYTES);
            }
        }
    }
    let (number, path, place) = newest;
    if number == 0 {
        return Ok(None);
    }
    zero(&path, place, PAGE_BYTES)?;
    Ok(Some(format!(
        "group {number}, the journal's newest, zeroed"
    )))
}

fn remove_journal(_: &Origins, data: &Path, rng: &mut Rng) -> Result<Option<String>> {
    let path = journal_of(data, rng);
    std::fs::remove_file(&path)?;
    Ok(Some(format!("{} removed", path.display())))
}

fn older_journal(origins: &Origins, data: &Path, _: &mut Rng) -> Result<Option<String>> {
    for name in JOURNALS {
        std::fs::copy(
            engine_of(&origins.older).join(name),
            engine_of(data).join(name),
        )?;
    }
    Ok(Some(
        "the journal replaced by an older copy of itself".to_owned(),
    ))
}

/// A backup that somebody copied back by hand: sound in itself, and only the mark knows that there was more.
fn older_store(origins: &Origins, data: &Path, _: &mut Rng) -> Result<Option<String>> {
    let path = data.join("mark");
    let mark = std::fs::read(&path).context("the data directory has a mark")?;
    copy_directory(&origins.older, data)?;
    std::fs::write(path, mark)?;
    Ok(Some(
        "everything but the mark replaced by an older copy of itself".to_owned(),
    ))
}

fn open(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.with_context(|| format!("opening {}", path.display()))
}

fn zero(path: &Path, place: u64, count: u64) -> Result<()> {
    let mut file = open(path)?;
    file.seek(SeekFrom::Start(place))?;
    file.write_all(&vec![0; usize::try_from(count)?])?;
    Ok(())
}

/// Length up to the last byte that is not zero.
fn written_bytes(path: &Path) -> Result<u64> {
    let bytes = std::fs::read(path)?;
    let last = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .context("db holds nothing")?;
    Ok(last as u64 + 1)
}

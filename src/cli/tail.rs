//! `tidings tail`: a user's log as lines on stdout, for ever.
//!
//! Promises: every durable event after the start is printed at least once and in order, across restarts of the server
//! and of this program; the cursor file is written only after the lines before it have left. It says on stderr when
//! something is missing; it never ends by itself except where trying again cannot help.

use std::io::{self, BufWriter, Stdout, Write};
use std::time::Duration;

use anyhow::bail;
use reqwest::Response;
use serde::Deserialize;
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::client::{Backoff, Refusal, Server, innermost};
use super::lines::{LINE_BYTES_MAX, Lines};
use super::place::CursorFile;

const EVENTS_PATH: &str = "v1/events";
const STDOUT_PATH: &str = "/dev/fd/1";
/// Pings without which a connection counts as dead.
const PINGS_MISSED: u32 = 3;
/// How long a stream may be silent before it has said how often it pings.
const FIRST_SILENCE: Duration = Duration::from_secs(60);
/// How long lines may wait for others to leave with, so that the cursor file is not written for each of them.
const GATHER: Duration = Duration::from_millis(10);
/// The longest silence that a server can make this program wait for.
const SILENCE_MAX: Duration = Duration::from_secs(3 * 3600);

/// What is asked for.
pub struct Order {
    /// A cursor, a seq, `start`, `now` or `-N`.
    pub start: String,
    pub cursor_file: Option<CursorFile>,
    pub types: String,
    pub topics: String,
    pub prints_signals: bool,
    pub prints_control: bool,
}

pub struct Tail {
    server: Server,
    order: Order,
    place: Place,
    /// The cursor that the file holds.
    kept: Option<String>,
    backoff: Backoff,
    silence_max: Duration,
    /// What the server asked for when it said goodbye.
    asked_wait: Option<Duration>,
    out: BufWriter<Stdout>,
}

/// Where the next connection goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// What the user asked for; the server says what it means.
    Asked(String),
    At(String),
}

/// What this program needs to know of a line.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "type")]
    line_type: String,
    #[serde(default)]
    ephemeral: bool,
    cursor: Option<String>,
    head: Option<String>,
    earliest: Option<u64>,
    reason: Option<String>,
    user: Option<String>,
    ping_ms: Option<u64>,
    retry_ms: Option<u64>,
}

impl Tail {
    pub fn new(server: Server, order: Order) -> anyhow::Result<Tail> {
        let kept = match &order.cursor_file {
            Some(file) => file.read()?,
            None => None,
        };
        let place = match &kept {
            Some(cursor) => Place::At(cursor.clone()),
            None => Place::Asked(order.start.clone()),
        };
        Ok(Tail {
            server,
            order,
            place,
            kept,
            backoff: Backoff::default(),
            silence_max: FIRST_SILENCE,
            asked_wait: None,
            out: BufWriter::new(io::stdout()),
        })
    }

    /// Goes on until trying again cannot help, or nobody takes what is printed.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            () = reader_gone() => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
            outcome = self.follow() => outcome,
        }
    }

    async fn follow(&mut self) -> anyhow::Result<()> {
        loop {
            let (reason, asked) = match self.open().await {
                Ok(response) => (self.read(response).await?, self.asked_wait.take()),
                Err(Refusal::Later { reason, wait }) => (reason, wait),
                Err(Refusal::Final(reason)) => bail!(reason),
            };
            let wait = self.backoff.next_wait(asked);
            eprintln!("tidings: {reason}; next try in {:.1} s", wait.as_secs_f64());
            tokio::time::sleep(wait).await;
        }
    }

    async fn open(&self) -> Result<Response, Refusal> {
        let (Place::Asked(cursor) | Place::At(cursor)) = &self.place;
        // After a gap all that is left is printed, not only what is new.
        let mut query = vec![
            ("format", "ndjson"),
            ("on_gap", "earliest"),
            ("cursor", cursor.as_str()),
        ];
        let filters = [("types", &self.order.types), ("topics", &self.order.topics)];
        let filters = filters.into_iter().filter(|(_, filter)| !filter.is_empty());
        query.extend(filters.map(|(name, filter)| (name, filter.as_str())));
        self.server.open(EVENTS_PATH, &query).await
    }

    /// Prints a stream to its end and says why it ended.
    async fn read(&mut self, mut response: Response) -> anyhow::Result<String> {
        let mut lines = Lines::default();
        // When what was taken has to leave; none while nothing waits to.
        let mut leave_at = None;
        self.silence_max = FIRST_SILENCE;
        loop {
            let wait_until = leave_at.unwrap_or_else(|| Instant::now() + self.silence_max);
            let next = tokio::time::timeout_at(wait_until, response.chunk()).await;
            let ended = match next {
                Ok(Ok(Some(piece))) => {
                    leave_at = leave_at.or_else(|| Some(Instant::now() + GATHER));
                    self.take_piece(&mut lines, &piece)?
                }
                Ok(Ok(None)) => Some("the server ended the stream".to_owned()),
                Ok(Err(error)) => Some(format!("the connection broke: {}", innermost(&error))),
                Err(_) if leave_at.is_some() => None,
                Err(_) => {
                    let seconds = self.silence_max.as_secs_f64();
                    Some(format!("nothing came for {seconds:.0} s"))
                }
            };
            if ended.is_some() || leave_at.is_some_and(|leave_at| leave_at <= Instant::now()) {
                self.flush()?;
                leave_at = None;
            }
            if let Some(reason) = ended {
                return Ok(reason);
            }
        }
    }

    /// Takes the lines that are whole with `piece`; says why the stream cannot be read further, if so.
    fn take_piece(&mut self, lines: &mut Lines, piece: &[u8]) -> anyhow::Result<Option<String>> {
        lines.feed(piece);
        while let Some(line) = lines.next_line() {
            if let Err(error) = self.take(line)? {
                return Ok(Some(format!(
                    "the server sent a line that is no event: {error}"
                )));
            }
        }
        if lines.is_too_long() {
            bail!("the server sent a line of more than {LINE_BYTES_MAX} bytes");
        }
        Ok(None)
    }

    /// Prints a line, or tells of it, and moves the place.
    fn take(&mut self, bytes: &[u8]) -> io::Result<serde_json::Result<()>> {
        if bytes.is_empty() {
            return Ok(Ok(()));
        }
        let line: Line = match serde_json::from_slice(bytes) {
            Ok(line) => line,
            Err(error) => return Ok(Err(error)),
        };
        let is_control = line.line_type.starts_with("sys.");
        if is_control {
            self.obey(&line);
        }
        let is_printed = match (is_control, line.ephemeral) {
            (true, _) => self.order.prints_control,
            (false, true) => self.order.prints_signals,
            (false, false) => {
                self.backoff.succeeded();
                true
            }
        };
        if is_printed {
            self.out.write_all(bytes)?;
            self.out.write_all(b"\n")?;
        } else if let Some(note) = note(&line) {
            eprintln!("tidings: {note}");
        }
        self.place = next_place(&self.place, &line);
        Ok(Ok(()))
    }

    fn obey(&mut self, line: &Line) {
        match line.line_type.as_str() {
            // Neither `ready` nor `live` makes a good connection: a server that always ends the stream there would
            // be asked without pause.
            "sys.ping" => self.backoff.succeeded(),
            "sys.ready" => {
                let ping = line.ping_ms.map(Duration::from_millis);
                if let Some(ping) = ping.filter(|ping| !ping.is_zero()) {
                    self.silence_max = ping.saturating_mul(PINGS_MISSED).min(SILENCE_MAX);
                }
            }
            "sys.bye" => self.asked_wait = line.retry_ms.map(Duration::from_millis),
            _ => {}
        }
    }

    /// Lets the lines leave, then keeps the place.
    fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush()?;
        let (Some(file), Place::At(cursor)) = (&self.order.cursor_file, &self.place) else {
            return Ok(());
        };
        if self.kept.as_ref() != Some(cursor) {
            file.write(cursor)?;
            self.kept = Some(cursor.clone());
        }
        Ok(())
    }
}

/// Waits until the other end of stdout is closed; for ever where stdout is no pipe. Without it `tail | head -1`
/// would stay until the next event. The pipe is opened a second time, since waiting on it needs a mode that would
/// disturb whoever shares stdout.
async fn reader_gone() {
    if let Ok(stdout) = pipe::OpenOptions::new().open_sender(STDOUT_PATH)
        && stdout.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Where the next connection goes on once `line` has been printed.
fn next_place(place: &Place, line: &Line) -> Place {
    let at = |cursor: &Option<String>| cursor.clone().map(Place::At);
    let moved = match (line.line_type.as_str(), place) {
        _ if line.ephemeral => None,
        // A place that is known already stays until something came after it: a reset may follow.
        ("sys.ready", Place::At(_)) | ("sys.bye" | "sys.error" | "sys.auth", _) => None,
        ("sys.reset", _) => at(&line.cursor).or_else(|| before_earliest(line).map(Place::At)),
        _ => at(&line.cursor),
    };
    moved.unwrap_or_else(|| place.clone())
}

/// The cursor just before the oldest event that is left: where `on_gap=earliest` goes on.
fn before_earliest(line: &Line) -> Option<String> {
    let (epoch, _) = line.head.as_deref()?.rsplit_once('-')?;
    match line.earliest {
        Some(earliest) => Some(format!("{epoch}-{}", earliest.saturating_sub(1))),
        None => line.head.clone(),
    }
}

/// What a person should know of a line that is not printed.
fn note(line: &Line) -> Option<String> {
    let reason = line.reason.as_deref().unwrap_or("no reason given");
    let cursor = line.cursor.as_deref().unwrap_or("an unknown place");
    match line.line_type.as_str() {
        "sys.ready" => {
            let user = line.user.as_deref().unwrap_or("an unknown user");
            // Where a reset follows, it says the place.
            Some(match &line.cursor {
                Some(cursor) => format!("reading the log of {user} from {cursor}"),
                None => format!("reading the log of {user}"),
            })
        }
        "sys.live" => Some(format!("caught up at {cursor}")),
        "sys.reset" => {
            let earliest = before_earliest(line);
            let from = earliest.as_deref().unwrap_or(cursor);
            Some(format!(
                "events may be missing ({reason}): going on after {from}"
            ))
        }
        "sys.bye" => Some(format!("the server says goodbye ({reason})")),
        "sys.error" => Some(format!("the server reports a fault ({reason})")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(place: Place, lines: &[&str]) -> Place {
        lines.iter().fold(place, |place, line| {
            next_place(&place, &serde_json::from_str(line).unwrap())
        })
    }

    #[test]
    fn the_place_moves_with_what_was_printed() {
        let ready = r#"{"type":"sys.ready","cursor":"aaaaaa-5","head":"aaaaaa-9"}"#;
        let at = |cursor: &str| Place::At(cursor.to_owned());
        let asked = Place::Asked("start".to_owned());
        let cases: [(Place, &[&str], Place); 9] = [
            (asked.clone(), &[], asked.clone()),
            (asked.clone(), &[ready], at("aaaaaa-5")),
            (at("aaaaaa-2"), &[ready], at("aaaaaa-2")),
            (
                at("aaaaaa-2"),
                &[ready, r#"{"type":"a.b","seq":6,"cursor":"aaaaaa-6"}"#],
                at("aaaaaa-6"),
            ),
            (
                at("aaaaaa-2"),
                &[r#"{"type":"typing.start","ephemeral":true,"cursor":"aaaaaa-7"}"#],
                at("aaaaaa-2"),
            ),
            (
                at("aaaaaa-2"),
                &[r#"{"type":"sys.ping","head":"aaaaaa-9"}"#],
                at("aaaaaa-2"),
            ),
            (
                at("aaaaaa-2"),
                &[
                    r#"{"type":"sys.ping","cursor":"aaaaaa-4"}"#,
                    r#"{"type":"sys.bye","reason":"drain"}"#,
                ],
                at("aaaaaa-4"),
            ),
            (
                at("aaaaaa-2"),
                &[r#"{"type":"sys.reset","reason":"epoch","head":"bbbbbb-9","earliest":4}"#],
                at("bbbbbb-3"),
            ),
            (
                at("aaaaaa-2"),
                &[r#"{"type":"sys.reset","reason":"epoch","head":"bbbbbb-9","cursor":"bbbbbb-9"}"#],
                at("bbbbbb-9"),
            ),
        ];
        for (place, lines, expected) in cases {
            assert_eq!(after(place, lines), expected, "after {lines:?}");
        }
    }

    #[test]
    fn a_gap_is_told() {
        let reset = r#"{"type":"sys.reset","reason":"trimmed","head":"bbbbbb-9","earliest":4}"#;
        let note = note(&serde_json::from_str(reset).unwrap()).unwrap();
        assert_eq!(
            note,
            "events may be missing (trimmed): going on after bbbbbb-3"
        );
    }
}

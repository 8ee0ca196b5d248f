//! `tidings publish`: one event, or each line of an input as one.
//!
//! Promises: batches go one after the other, memory stays bounded however long the input is, what is sent again is
//! published once, and a line that cannot be published is named by its number. It never reads further ahead
//! of the server than a few pieces.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::sync::mpsc::{self, Receiver, error::TryRecvError};

use super::batch::{Batch, Template};
use super::client::{Backoff, Refusal, Server, problem_words};
use super::lines::{LINE_BYTES_MAX, Lines};
use crate::event::Json;

const PUBLISH_PATH: &str = "v1/publish";
/// How long one batch may take; it is sent again after that, so this is below the default of `--retry-for`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes read from the input at once, and how many such pieces may wait.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES_MAX: usize = 4;
/// Refused lines that are named; the others are counted.
const NAMED_MAX: usize = 10;

pub struct Publisher {
    server: Server,
    /// How long tries go on from the first failure.
    retry_for: Duration,
    progress: ProgressBar,
    counts: Counts,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    published: u64,
    /// Of these, what the server had already.
    duplicates: u64,
}

impl Publisher {
    pub fn new(server: Server, retry_for: Duration) -> Publisher {
        Publisher {
            server,
            retry_for,
            progress: ProgressBar::hidden(),
            counts: Counts::default(),
        }
    }

    /// Publishes one event and prints the server's reply.
    pub async fn one(&mut self, template: &Template, data: &Json) -> anyhow::Result<()> {
        let reply = self.send(template.event(data)).await?;
        writeln!(io::stdout(), "{}", reply.trim_end())?;
        Ok(())
    }

    /// Publishes each line of `input` and says at the end how many there were.
    pub async fn many(&mut self, template: &Template, input: &Path) -> anyhow::Result<()> {
        let started = Instant::now();
        let pieces = self.open(input)?;
        let outcome = self.publish_lines(template, pieces).await;
        self.progress.finish_and_clear();
        eprintln!("{}", summary(&self.counts, started.elapsed()));
        outcome
    }

    fn open(&mut self, input: &Path) -> anyhow::Result<Receiver<io::Result<Vec<u8>>>> {
        let is_stdin = input == Path::new("-");
        let mut length = None;
        let source: Box<dyn Read + Send> = if is_stdin {
            Box::new(io::stdin())
        } else {
            let failed = || format!("{} cannot be read", input.display());
            let file = File::open(input).with_context(failed)?;
            let metadata = file.metadata().with_context(failed)?;
            length = metadata.is_file().then_some(metadata.len());
            Box::new(file)
        };
        if io::stderr().is_terminal() {
            self.progress = progress(length);
        }
        Ok(pieces_of(source))
    }

    async fn publish_lines(
        &mut self,
        template: &Template,
        mut pieces: Receiver<io::Result<Vec<u8>>>,
    ) -> anyhow::Result<()> {
        let mut lines = Lines::default();
        let mut feed = Feed::new(template);
        loop {
            let piece = match pieces.try_recv() {
                Ok(piece) => piece,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    // The input pauses: what is there goes out, so that a slow input is published as it comes.
                    self.settle(feed.take()).await?;
                    match pieces.recv().await {
                        Some(piece) => piece,
                        None => break,
                    }
                }
            };
            let piece = piece.context("the input cannot be read further")?;
            self.progress.inc(u64::try_from(piece.len()).unwrap_or(0));
            lines.feed(&piece);
            while let Some(line) = lines.next_line() {
                self.add(&mut feed, line).await?;
            }
            if lines.is_too_long() {
                self.settle(feed.take()).await?;
                let line = feed.line + 1;
                bail!(
                    "line {line} is longer than {LINE_BYTES_MAX} bytes; what stands before it is published"
                );
            }
        }
        if let Some(line) = lines.rest() {
            self.add(&mut feed, line).await?;
        }
        self.settle(feed.take()).await
    }

    /// Adds a line to the batch; sends the batch first where it has no room, or where the line is bad.
    async fn add(&mut self, feed: &mut Feed<'_>, line: &[u8]) -> anyhow::Result<()> {
        feed.line += 1;
        let event = match feed.event(line) {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            Err(complaint) => {
                self.settle(feed.take()).await?;
                let line = feed.line;
                bail!("line {line}: {complaint}; what stands before it is published");
            }
        };
        if !feed.batch.fits(event.len()) {
            self.settle(feed.take()).await?;
        }
        feed.batch.push(feed.line, &event);
        Ok(())
    }

    /// Sends a batch and counts its results.
    async fn settle(&mut self, batch: Batch) -> anyhow::Result<()> {
        let (Some(first), Some(last)) = (batch.lines.first(), batch.lines.last()) else {
            return Ok(());
        };
        let reply = self
            .send(batch.body())
            .await
            .with_context(|| match first == last {
                true => format!("line {first}"),
                false => format!("lines {first} to {last}"),
            })?;
        let refused = count(&mut self.counts, &reply, &batch.lines)?;
        let published = self.counts.published;
        self.progress.set_message(format!("{published} events"));
        if refused.is_empty() {
            return Ok(());
        }
        let mut named: Vec<String> = refused.iter().take(NAMED_MAX).cloned().collect();
        if refused.len() > NAMED_MAX {
            named.push(format!("and {} more", refused.len() - NAMED_MAX));
        }
        Err(anyhow!("the server refused {}", named.join("; ")))
    }

    /// Sends a body again and again until it is taken, refused for good, or the time is over.
    async fn send(&mut self, body: String) -> anyhow::Result<String> {
        let started = Instant::now();
        let mut backoff = Backoff::default();
        let mut is_noted = false;
        loop {
            let sent = self
                .server
                .post(PUBLISH_PATH, body.clone(), REQUEST_TIMEOUT)
                .await;
            let (reason, asked) = match sent {
                Ok(reply) => match busy(&reply) {
                    // Sent whole once more: the events that were taken are known by their ids.
                    Some(reason) => (reason, None),
                    None => return Ok(reply),
                },
                Err(Refusal::Final(reason)) => bail!(reason),
                Err(Refusal::Later { reason, wait }) => (reason, wait),
            };
            let wait = backoff.next_wait(asked);
            let retry_for = humantime::format_duration(self.retry_for);
            if started.elapsed() + wait > self.retry_for {
                bail!("{reason} (tried for {retry_for}, see --retry-for)");
            }
            if !is_noted {
                is_noted = true;
                self.progress
                    .suspend(|| eprintln!("tidings: {reason}; trying again for {retry_for}"));
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// The batch that is being filled and the number of the line last read.
struct Feed<'a> {
    template: &'a Template,
    batch: Batch,
    line: u64,
}

impl Feed<'_> {
    fn new(template: &Template) -> Feed<'_> {
        Feed {
            template,
            batch: Batch::new(),
            line: 0,
        }
    }

    /// The event of a line; none for a blank one.
    fn event(&self, line: &[u8]) -> Result<Option<String>, String> {
        let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        let event =
            Json::parse(text).and_then(|data| self.template.event_of_line(self.line, &data));
        event.map(Some).map_err(|invalid| invalid.message)
    }

    fn take(&mut self) -> Batch {
        std::mem::replace(&mut self.batch, Batch::new())
    }
}

/// Counts the results of a batch and gives its refused lines in words.
fn count(counts: &mut Counts, reply: &str, lines: &[u64]) -> anyhow::Result<Vec<String>> {
    let reply: Value = serde_json::from_str(reply).context("the server's reply is not JSON")?;
    let results = results(&reply)
        .filter(|results| results.len() == lines.len())
        .context("the server's reply does not hold one result for each event")?;
    let mut refused = Vec::new();
    for (line, result) in lines.iter().zip(results) {
        let is_refused = result.get("error").is_some()
            || result.get("code").is_some()
            || result["status"]
                .as_u64()
                .is_some_and(|status| status >= 400);
        if is_refused {
            let words = problem_words(result).unwrap_or("without a reason");
            refused.push(format!("line {line}: {words}"));
            continue;
        }
        counts.published += 1;
        counts.duplicates += u64::from(result["duplicate"] == true);
    }
    Ok(refused)
}

/// The results of a batch, in order.
fn results(reply: &Value) -> Option<&Vec<Value>> {
    reply.as_array().or_else(|| reply["results"].as_array())
}

/// Why the server asks for one of a batch's events again later, if it does.
fn busy(reply: &str) -> Option<String> {
    let reply: Value = serde_json::from_str(reply).ok()?;
    let later = results(&reply)?.iter().find(|result| {
        let status = &result["error"]["status"];
        *status == 429 || *status == 503
    })?;
    let words = problem_words(later).unwrap_or("it is busy");
    Some(format!("the server says of an event: {words}"))
}

fn summary(counts: &Counts, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let events = match counts.published {
        1 => "1 event".to_owned(),
        published => format!("{published} events"),
    };
    // Counts of events are far below 2^53, where a float is exact.
    let per_second = counts.published as f64 / seconds.max(0.001);
    let already = match counts.duplicates {
        0 => String::new(),
        duplicates => format!(", {duplicates} of them were there already"),
    };
    format!("{events} published in {seconds:.1} s ({per_second:.0}/s){already}")
}

fn progress(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{bar:32} {percent}% {msg} {elapsed}",
        ),
        None => (ProgressBar::no_length(), "{spinner} {msg} {elapsed}"),
    };
    let style = ProgressStyle::with_template(template).expect("a template of known keys");
    bar.set_style(style);
    bar
}

/// Reads `source` in a thread of its own, since a read may block for ever; it ends with the input or the receiver.
fn pieces_of(mut source: Box<dyn Read + Send>) -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    thread::spawn(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let piece = match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(buffer[..length].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_end = piece.is_err();
            if sender.blocking_send(piece).is_err() || is_end {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_and_refusals_named() {
        let mut counts = Counts::default();
        let reply = r#"{"results":[{"id":"a","duplicate":false},{"id":"b","duplicate":true},
            {"error":{"status":413,"code":"too_large","message":"too large"}},{"error":{"message":"no"}}]}"#;
        let refused = count(&mut counts, reply, &[3, 5, 8, 9]).unwrap();
        assert_eq!(refused, ["line 8: too large", "line 9: no"]);
        assert_eq!(
            counts,
            Counts {
                published: 2,
                duplicates: 1
            }
        );
        assert_eq!(busy(reply), None);
        let full = r#"{"results":[{"id":"a"},{"error":{"status":503,"message":"draining"}}]}"#;
        let reason = busy(full).unwrap();
        assert_eq!(reason, "the server says of an event: draining");
        assert!(count(&mut counts, "[]", &[1]).is_err());
        assert!(count(&mut counts, "<html>", &[1]).is_err());
        assert_eq!(
            summary(&counts, Duration::from_secs(2)),
            "2 events published in 2.0 s (1/s), 1 of them were there already"
        );
    }

    #[test]
    fn a_line_is_an_event_or_nothing_or_a_complaint() {
        let template = Template::new(
            &["alice".parse().unwrap()],
            &"t".parse().unwrap(),
            None,
            Some("x".parse().unwrap()),
        );
        let mut feed = Feed::new(&template);
        feed.line = 7;
        assert_eq!(feed.event(b"  "), Ok(None));
        assert!(
            feed.event(b" {} ")
                .unwrap()
                .unwrap()
                .contains(r#""id":"x-7""#)
        );
        assert!(
            feed.event(b"{")
                .unwrap_err()
                .contains("not acceptable JSON")
        );
        assert!(feed.event(b"\xff").unwrap_err().contains("UTF-8"));
    }
}

//! The nemesis' hands on processes: start the real binary, kill it, ask it to stop, look at its memory and files.
//!
//! A server is started on a free port with a known secret and with limits that a checker may exceed; it dies with
//! the checker. What it writes to stderr is kept in a file. Only processes started here are ever signalled.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

use crate::http::{SECRET, Target};

/// A server that is neither ready nor gone after this time hangs.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// How to start a server.
#[derive(Clone)]
pub struct Recipe {
    pub binary: PathBuf,
    pub data: PathBuf,
    pub stderr: PathBuf,
    /// Settings beside those that every server of the checker gets, as `section.key=value`.
    pub settings: Vec<String>,
    pub failpoints: Option<String>,
}

/// Limits are tested elsewhere; here they would only hide what we look for.
const SETTINGS: [&str; 12] = [
    "demo.enabled=false",
    "limits.connections=100000",
    "limits.connections_per_user=100000",
    "limits.user_writes_per_second=1000000",
    "limits.user_writes_burst=1000000",
    "limits.publish_per_second=10000000",
    "limits.auth_failures_per_minute=1000000",
    "log.retention_events=0",
    "log.retention_days=0",
    "log.retention_bytes=0",
    "server.drain_seconds=5",
    "store.min_free_bytes=33554432",
];

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// From the start of the process to its `listening on` line.
    pub ready_after: Duration,
}

/// A server that ended instead of listening.
pub struct Refused {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub after: Duration,
    /// What it wrote to stderr.
    pub said: String,
}

pub enum Started {
    Ready(Server),
    Refused(Refused),
}

impl Recipe {
    /// Starts a server and waits until it listens or ends.
    pub async fn start(&self) -> Result<Started> {
        let said_before = std::fs::metadata(&self.stderr).map_or(0, |metadata| metadata.len());
        let stderr = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.stderr)?;
        let began = Instant::now();
        let mut child = self.spawn(stderr)?;
        let stdout = child.stdout.take().context("stdout was piped")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // An end without a line arrives as an empty one.
            BufReader::new(stdout).read_line(&mut line).ok();
            sender.send(line).ok();
        });
        while began.elapsed() < START_TIME_MAX {
            if let Ok(line) = lines.try_recv()
                && let Some(address) = address_in(&line)
            {
                return Ok(Started::Ready(Server {
                    child,
                    address,
                    ready_after: began.elapsed(),
                }));
            }
            if let Some(status) = child.try_wait()? {
                let said = text_from(&self.stderr, said_before)?;
                let after = began.elapsed();
                return Ok(Started::Refused(Refused {
                    code: status.code(),
                    signal: status.signal(),
                    after,
                    said,
                }));
            }
            sleep(Duration::from_millis(2)).await;
        }
        child.kill()?;
        child.wait()?;
        bail!("the server neither listened nor ended within {START_TIME_MAX:?}")
    }

    /// Starts a server that has every reason to start.
    pub async fn start_ready(&self, target: &Target) -> Result<Server> {
        match self.start().await? {
            Started::Ready(server) => {
                target.set(Some(server.address));
                Ok(server)
            }
            Started::Refused(refused) => {
                let Refused {
                    code, signal, said, ..
                } = refused;
                bail!(
                    "the server ended with code {code:?}, signal {signal:?} instead of listening: {}",
                    said.trim()
                )
            }
        }
    }

    fn spawn(&self, stderr: File) -> Result<Child> {
        let mut command = Command::new(&self.binary);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&self.data);
        let secret = format!("auth.hs256_secret={SECRET}");
        let own = SETTINGS.iter().copied().chain([secret.as_str()]);
        for setting in own.chain(self.settings.iter().map(String::as_str)) {
            command.arg("--set").arg(setting);
        }
        match &self.failpoints {
            Some(failpoints) => command.env("FAILPOINTS", failpoints),
            None => command.env_remove("FAILPOINTS"),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        // SAFETY: prctl is async-signal-safe and touches nothing but the new process.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        command
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    line.trim()
        .strip_prefix("listening on http://")?
        .parse()
        .ok()
}

/// What a file holds from some place on.
fn text_from(path: &Path, begin: u64) -> Result<String> {
    let bytes = std::fs::read(path)?;
    let begin = usize::try_from(begin)?.min(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[begin..]).into_owned())
}

impl Server {
    /// kill -9, and the process is gone when this returns.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; gives the exit code, or None where it had to be killed.
    pub async fn stop(mut self, within: Duration) -> Result<Option<i32>> {
        // SAFETY: the child was not waited for yet, so its id is still its own.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let began = Instant::now();
        while began.elapsed() < within {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            sleep(Duration::from_millis(5)).await;
        }
        self.kill()?;
        Ok(None)
    }

    /// Processor time that the server has used.
    pub fn worked(&self) -> Result<Duration> {
        const TICKS_PER_SECOND: u64 = 100;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold anything; user and system time are fields 14 and 15 of the line.
        let after_name = stat.rsplit_once(')').context("a process has a name")?.1;
        let fields = after_name.split_whitespace().skip(11).take(2);
        let ticks = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
    }

    pub fn open_files(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only where the process is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

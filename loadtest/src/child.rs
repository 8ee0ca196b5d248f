//! A server as a child of this process: started on its processor, with descriptors, and gone when we are.
//!
//! Promises: a child ends with us, however we end: by drop, by the kernel's parent-death signal where drop cannot run.
//! The guard sets that up from inside the child and then becomes the server, so that no unsafe code is needed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};

use crate::{machine, process};

const END_TIME_MAX: Duration = Duration::from_secs(15);
const LOG_TAIL_BYTES: usize = 600;

/// What to start, and how.
pub struct Start<'a> {
    pub program: &'a Path,
    pub arguments: Vec<String>,
    pub core: Option<usize>,
    /// Where its stderr goes; its end is shown when it does not start.
    pub log: PathBuf,
}

pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    pub fn start(start: &Start) -> Result<Server> {
        let own = std::env::current_exe().context("cannot find this program itself")?;
        let mut command = Command::new(own);
        command.args(["guard", "--parent", &std::process::id().to_string()]);
        if let Some(core) = start.core {
            command.arg("--core").arg(core.to_string());
        }
        command.arg("--").arg(start.program).args(&start.arguments);
        let log = File::options().create(true).append(true).open(&start.log)?;
        if let Some(directory) = start.log.parent() {
            // A configuration that happens to lie where the tool was started is not the server's.
            command.current_dir(directory);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", start.program.display()))?;
        Ok(Server {
            child,
            log: start.log.clone(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the one line that says where it listens, and reads on for ever so that it never blocks.
    pub fn listening(&mut self, time_max: Duration) -> Result<SocketAddr> {
        let stdout = self.child.stdout.take().context("asked twice")?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || read_lines(stdout, &sender));
        let line = receiver.recv_timeout(time_max);
        let address = line.ok().and_then(|line| {
            let address = line.trim().strip_prefix("listening on http://")?;
            address.parse().ok()
        });
        address.with_context(|| format!("the server does not listen: {}", log_tail(&self.log)))
    }

    /// Waits until something accepts connections there.
    pub fn accepting(&mut self, address: SocketAddr, time_max: Duration) -> Result<()> {
        let began = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            let has_ended = self.child.try_wait()?.is_some();
            if has_ended || began.elapsed() > time_max {
                bail!("the server does not listen: {}", log_tail(&self.log));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// `kill -9`, and gone when this returns.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill the server")?;
        self.child.wait().context("cannot wait for the server")?;
        Ok(())
    }

    fn end(&mut self) {
        let family = process::family(self.pid());
        signal(self.pid(), Signal::TERM);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < END_TIME_MAX {
            std::thread::sleep(Duration::from_millis(5));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            for pid in family {
                signal(pid, Signal::KILL);
            }
        }
        // It was killed or has ended; what remains is to take its place from the process table.
        self.child.wait().ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// What a server said last.
pub fn log_tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let tail = &text[text.len().saturating_sub(LOG_TAIL_BYTES)..];
    String::from_utf8_lossy(tail).trim().to_owned()
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        // A process that is gone already needs no signal.
        kill_process(pid, signal).ok();
    }
}

fn read_lines(stdout: ChildStdout, sender: &mpsc::Sender<String>) {
    for line in BufReader::new(stdout).lines() {
        // Only the first line is waited for; who waited may be gone.
        let Ok(line) = line else { return };
        sender.send(line).ok();
    }
}

/// Runs in the child: asks to be ended with the parent, moves to the processor, raises the limit, becomes the server.
pub fn guard(parent: u32, core: Option<usize>, command: &[String]) -> Result<()> {
    // TERM, not KILL: nginx takes its workers with it.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    if getppid() != Pid::from_raw(parent as i32) {
        bail!("the parent is gone already");
    }
    if let Some(core) = core {
        machine::pin(core)?;
    }
    machine::connections_max()?;
    let (program, arguments) = command.split_first().context("nothing to guard")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {program}"))
}

//! Servers for the black-box tests: the real binary in a process of its own, on a port of its own.
//!
//! Promises: a server is listening when `spawn` returns, and is dead when its `Server` is dropped. Settings that
//! tests would trip over (the bound on unauthenticated tries, the demo) are set here, in one place. It never
//! knows what the server's answers mean: that is the business of `client` and of the readers.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidings::clock::Clock;

use crate::client::Call;
use crate::tokens;

/// How long a server may take to say `listening on`, or to end after a signal.
const START_WAIT: Duration = Duration::from_secs(30);
/// The pace at which conditions are looked at again.
pub const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What a server is started with; `Options::new()` is what most tests want.
#[derive(Clone, Default)]
pub struct Options {
    settings: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    data: Option<PathBuf>,
}

impl Options {
    pub fn new() -> Options {
        let secret = format!("auth.hs256_secret={}", tokens::SECRET);
        Options {
            settings: vec![
                secret,
                "demo.enabled=false".to_owned(),
                "limits.auth_failures_per_minute=100000".to_owned(),
            ],
            ..Options::default()
        }
    }

    /// Nothing but the listener and the data directory: what an operator without a configuration gets.
    pub fn bare() -> Options {
        Options::default()
    }

    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Options {
        self.settings.push(format!("{key}={value}"));
        self
    }

    pub fn argument(mut self, argument: &str) -> Options {
        self.arguments.push(argument.to_owned());
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Options {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps the data in `directory`, which the caller owns.
    pub fn data(mut self, directory: &Path) -> Options {
        self.data = Some(directory.to_owned());
        self
    }
}

/// A running server and all that it printed.
pub struct Server {
    pub address: SocketAddr,
    pub data: PathBuf,
    /// The binary's process, or `None` for a server in this process.
    process: Option<Process>,
    running: Option<tidings::server::Running>,
    options: Options,
    _directory: Option<tempfile::TempDir>,
}

/// Starts the real binary and waits for its one line on stdout.
pub fn spawn(options: Options) -> Server {
    match try_spawn(options) {
        Ok(server) => server,
        Err(failure) => panic!("the server did not start: {failure:?}"),
    }
}

/// Serves in this process, for what needs no signal, no log and no crash.
pub async fn start(options: Options) -> Server {
    start_by(Clock::system(), options).await
}

/// Serves in this process by a clock of the test's.
pub async fn start_by(clock: Clock, options: Options) -> Server {
    let (directory, data) = data_directory(&options);
    let sources = tidings::config::Sources {
        set: options.settings.clone(),
        listen: Some("127.0.0.1:0".to_owned()),
        data: Some(data.clone()),
        ..tidings::config::Sources::default()
    };
    let config = tidings::config::Config::load(&sources).expect("the test's settings are valid");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("ports are free");
    let running = tidings::server::start_by(clock, config, listener)
        .await
        .expect("a server starts");
    Server {
        address: running.address(),
        data,
        process: None,
        running: Some(running),
        options,
        _directory: directory,
    }
}

/// The data directory: the one that the options name, or a new one that lives as long as the server.
fn data_directory(options: &Options) -> (Option<tempfile::TempDir>, PathBuf) {
    match &options.data {
        Some(data) => (None, data.clone()),
        None => {
            let directory = tempfile::tempdir().expect("the temporary directory can be written");
            let data = directory.path().join("data");
            (Some(directory), data)
        }
    }
}

/// Why a server did not start: how it ended and what it said.
#[derive(Debug)]
pub struct Failure {
    pub status: Option<ExitStatus>,
    pub stderr: String,
}

pub fn try_spawn(options: Options) -> Result<Server, Failure> {
    let (directory, data) = data_directory(&options);
    let mut process = Process::start(&serve_arguments(&options, &data), &options.environment);
    match process.first_line() {
        Some(line) => Ok(Server {
            address: parse_listening(&line),
            data,
            process: Some(process),
            running: None,
            options,
            _directory: directory,
        }),
        None => Err(process.failure()),
    }
}

fn serve_arguments(options: &Options, data: &Path) -> Vec<String> {
    let mut arguments = vec!["serve".to_owned()];
    arguments.extend(["--listen".to_owned(), "127.0.0.1:0".to_owned()]);
    arguments.extend(["--data".to_owned(), data.display().to_string()]);
    for setting in &options.settings {
        arguments.extend(["--set".to_owned(), setting.clone()]);
    }
    arguments.extend(options.arguments.iter().cloned());
    arguments
}

fn parse_listening(line: &str) -> SocketAddr {
    let address = line.strip_prefix("listening on http://");
    let address = address.unwrap_or_else(|| panic!("the first line on stdout was {line:?}"));
    address
        .parse()
        .unwrap_or_else(|_| panic!("no address in {line:?}"))
}

impl Server {
    /// A call without credentials.
    pub fn call(&self, method: &str, path: &str) -> Call {
        Call::new(self.address, method, path)
    }

    pub fn get(&self, path: &str) -> Call {
        self.call("GET", path)
    }

    pub fn post(&self, path: &str) -> Call {
        self.call("POST", path)
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("`spawn` made this server")
    }

    fn process_mut(&mut self) -> &mut Process {
        self.process.as_mut().expect("`spawn` made this server")
    }

    /// Drains a server of this process, and waits until its data directory is free.
    pub async fn drain(&mut self) {
        let running = self
            .running
            .take()
            .expect("`start` made this server, and it was not drained");
        let outcome = running.drain().await;
        assert_eq!(outcome, tidings::server::Outcome::Drained);
    }

    pub fn pid(&self) -> u32 {
        self.process().child.id()
    }

    /// Everything the server wrote to stderr until now.
    pub fn logs(&self) -> String {
        self.process().stderr.lock().unwrap().clone()
    }

    /// The lines on stdout after `listening on`: the contract says that there are none.
    pub fn more_stdout(&mut self) -> Vec<String> {
        self.process().stdout.try_iter().collect()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the server runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.and_then(|kib| kib.parse::<u64>().ok())
            .expect("Linux tells VmRSS in kB")
            * 1024
    }

    /// Ends the process as a power cut of the process would: no warning, no clean-up.
    pub fn kill9(&mut self) {
        self.process_mut()
            .child
            .kill()
            .expect("the process is ours");
        self.process_mut()
            .child
            .wait()
            .expect("the process is ours");
    }

    pub fn sigterm(&self) {
        self.interrupt("TERM");
    }

    pub fn interrupt(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status();
        assert!(
            sent.expect("kill can be run").success(),
            "the signal could not be sent"
        );
    }

    /// Waits until the process has ended by itself.
    pub async fn exited(&mut self) -> ExitStatus {
        self.process_mut().exited().await
    }

    /// Starts a new process on the same data directory, with the same options and on a new port.
    pub fn restart(&mut self) {
        if self
            .process_mut()
            .child
            .try_wait()
            .expect("the process is ours")
            .is_none()
        {
            self.kill9();
        }
        let arguments = serve_arguments(&self.options, &self.data);
        self.process = Some(Process::start(&arguments, &self.options.environment));
        match self.process_mut().first_line() {
            Some(line) => self.address = parse_listening(&line),
            None => panic!(
                "the server did not start again: {:?}",
                self.process_mut().failure()
            ),
        }
    }

    /// The server still answers, has not panicked, and says so in its metrics.
    pub async fn assert_healthy(&self) {
        let started = Instant::now();
        let reply = self.get("/healthz").send().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(2), "/healthz took {took:?}");
        let logs = self.process.as_ref().map_or(String::new(), |_| self.logs());
        assert!(
            !logs.contains("panicked at"),
            "a panic stands in the log:\n{logs}"
        );
        assert!(
            !logs.contains(" ERROR "),
            "an error stands in the log:\n{logs}"
        );
        for (name, value) in self.metrics().await {
            let is_panic_count = name.contains("panic");
            assert!(!is_panic_count || value == 0.0, "{name} is {value}");
        }
    }

    /// Every sample of `/metrics`: name with labels, value.
    pub async fn metrics(&self) -> Vec<(String, f64)> {
        let reply = self.get("/metrics").send().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let text = reply.text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let parsed = samples.map(|line| {
            let (name, value) = line
                .rsplit_once(' ')
                .unwrap_or_else(|| panic!("metric {line:?}"));
            let value = value.parse().unwrap_or_else(|_| panic!("metric {line:?}"));
            (name.to_owned(), value)
        });
        parsed.collect()
    }
}

/// One run of the binary, its output gathered by two threads.
struct Process {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Process {
    fn start(arguments: &[String], environment: &[(String, String)]) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built by cargo");
        let (lines, stdout) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("piped above"));
        let out = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let text = Arc::clone(&stderr);
        let mut err = child.stderr.take().expect("piped above");
        let err = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = err.read(&mut buffer) {
                text.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Process {
            child,
            stdout,
            stderr,
            readers: vec![out, err],
        }
    }

    /// The first line on stdout, or `None` when the process ended without one.
    fn first_line(&mut self) -> Option<String> {
        match self.stdout.recv_timeout(START_WAIT) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!(
                    "no `listening on` within {START_WAIT:?}: {}",
                    self.stderr.lock().unwrap()
                )
            }
        }
    }

    fn failure(&mut self) -> Failure {
        let status = self.child.wait().ok();
        for reader in self.readers.drain(..) {
            reader.join().expect("the readers do not panic");
        }
        Failure {
            status,
            stderr: self.stderr.lock().unwrap().clone(),
        }
    }

    async fn exited(&mut self) -> ExitStatus {
        let deadline = Instant::now() + START_WAIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                for reader in self.readers.drain(..) {
                    reader.join().expect("the readers do not panic");
                }
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the server did not end within {START_WAIT:?}"
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A failed test shows how its server fared.
        if std::thread::panicking() {
            let logs = self
                .stderr
                .lock()
                .map_or(String::new(), |logs| logs.clone());
            let last: Vec<&str> = logs.lines().rev().take(12).collect();
            println!(
                "the server {:?}, ended {:?}",
                self.child.id(),
                self.child.try_wait()
            );
            last.iter().rev().for_each(|line| println!("  {line}"));
        }
        // A process that has ended already cannot be killed; there is nothing left to do then.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What one run of the binary with `arguments` printed, for the commands that end by themselves.
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built by cargo");
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Looks again and again until `condition` holds; for states that no reply announces.
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(
            Instant::now() < deadline,
            "this did not become true: {what}"
        );
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

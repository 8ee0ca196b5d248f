//! What the release binary takes over HTTP: publishes a second, and memory for each idle stream.
//!
//! Only loopback is spoken to.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidings::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{BODY_BYTES, PUBLISHERS, RUN, cpu_seconds, pss_kib};

/// The release binary on a port of its own.
struct Server {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let directory = tempfile::tempdir_in(".").unwrap();
        let data = directory.path().join("data");
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .args([
                "--set",
                "limits.publish_per_second=10000000",
                "--set",
                "limits.connections_per_user=20000",
            ])
            .args([
                "--set",
                "auth.hs256_secret=0123456789abcdef0123456789abcdef",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().to_owned();
        Server {
            child,
            address,
            _directory: directory,
        }
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn token(sub: &str, scope: &str) -> String {
    let now_s = Clock::system().wall_ms() / 1_000;
    let grant = tidings::token::Grant {
        sub: sub.parse().unwrap(),
        scope: scope.to_owned(),
        topics: Vec::new(),
        expires_s: now_s + 3_600,
        issued_s: now_s,
        jti: None,
        issuer: String::new(),
        audience: Vec::new(),
    };
    tidings::token::mint(
        &"0123456789abcdef0123456789abcdef".to_owned().into(),
        &grant,
    )
}

pub async fn http() {
    let server = Server::start();
    let token = token("backend", "publish");
    let started = Instant::now();
    let cpu = cpu_seconds(&server.pid());
    let tasks: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let (address, token) = (server.address.clone(), token.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(&address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let text = "x".repeat(BODY_BYTES);
                let body = format!(r#"{{"to":{{"user":"user-{publisher}"}},"type":"a.b","data":{{"text":"{text}"}}}}"#);
                let request = format!(
                    "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let mut reply = vec![0; 4096];
                let mut acked = 0u64;
                while started.elapsed() < RUN {
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let count = stream.read(&mut reply).await.unwrap();
                    assert!(reply[..count].starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&reply[..count]));
                    acked += 1;
                }
                acked
            })
        })
        .collect();
    let mut acked = 0;
    for task in tasks {
        acked += task.await.unwrap();
    }
    let rate = acked as f64 / started.elapsed().as_secs_f64();
    let cpu_us = (cpu_seconds(&server.pid()) - cpu) / acked as f64 * 1e6;
    println!(
        "http: {rate:.0} acked durable events/s over HTTP, one event a request, {PUBLISHERS} connections (bar 10,000)"
    );
    println!("http: {cpu_us:.1} µs CPU of the server an event");
}

pub async fn idle() {
    const STREAMS: usize = 5_000;
    let server = Server::start();
    let before = pss_kib(&server.pid());
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let token = token(&format!("user-{}", number % 500), "");
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        let request = format!(
            "GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = vec![0; 4096];
        let mut text = String::new();
        while !text.contains("sys.live") {
            let count = stream.read(&mut reply).await.unwrap();
            text.push_str(&String::from_utf8_lossy(&reply[..count]));
        }
        streams.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let grown = (pss_kib(&server.pid()) - before) as f64 / STREAMS as f64;
    println!(
        "idle: {grown:.1} KiB of PSS for each of {STREAMS} idle SSE streams of 500 users (bar 12)"
    );
}

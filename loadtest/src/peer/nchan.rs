//! nginx with the nchan module, as Debian packages them (`libnginx-mod-nchan`): memory store, one worker.
//!
//! Promises: it keeps as many events as a scenario publishes, pings as often as Tidings does, and logs no request; it
//! runs from a configuration of its own in the run's directory and touches no installed one.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Control, Form, Needs, Page, Peer};
use crate::child::{Server, Start};
use crate::context::Context;
use crate::http;
use crate::verify::Position;

const NGINX: &str = "/usr/sbin/nginx";
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

pub struct Nchan {
    server: Server,
    address: SocketAddr,
}

/// Fails with the cure where it is not installed.
pub fn check_installed() -> Result<()> {
    let is_installed = Path::new(MODULE).exists() && Path::new(NGINX).exists();
    ensure!(
        is_installed,
        "nchan is not installed: apt-get install nginx-light libnginx-mod-nchan"
    );
    Ok(())
}

impl Nchan {
    pub fn start(context: &Context, directory: &Path, needs: &Needs) -> Result<Nchan> {
        // nginx cannot pick a port itself; between here and there nobody else should take this one.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let path = directory.join("nginx.conf");
        std::fs::write(&path, configuration(directory, address, needs.ping_seconds))?;
        let mut server = Server::start(&Start {
            program: Path::new(NGINX),
            arguments: [
                "-p",
                &directory.to_string_lossy(),
                "-c",
                &path.to_string_lossy(),
            ]
            .map(str::to_owned)
            .to_vec(),
            core: context.server_core(),
            log: directory.join("nginx.log"),
        })?;
        server.accepting(address, Duration::from_secs(10))?;
        Ok(Nchan { server, address })
    }
}

/// nginx gives up a sixteenth of its connections before it is out of them, hence twice as many as descriptors.
fn configuration(directory: &Path, address: SocketAddr, ping_seconds: u32) -> String {
    let directory = directory.display();
    format!(
        "load_module {MODULE};
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log warn;
events {{ worker_connections 40000; use epoll; multi_accept on; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  nchan_shared_memory_size 1g;
  nchan_message_buffer_length 100000;
  nchan_message_timeout 1h;
  nchan_subscriber_timeout 1h;
  server {{
    listen {address} backlog=4096;
    location = /publish {{ nchan_publisher; nchan_channel_id $arg_id; }}
    location = /events {{
      nchan_subscriber eventsource websocket; nchan_channel_id $arg_id; nchan_subscriber_first_message oldest;
      nchan_eventsource_ping_interval {ping_seconds};
    }}
    location = /poll {{ nchan_subscriber longpoll; nchan_channel_id $arg_id; nchan_subscriber_first_message oldest; }}
  }}
}}
"
    )
}

impl Peer for Nchan {
    fn name(&self) -> &'static str {
        "nchan"
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pid(&self) -> Option<u32> {
        Some(self.server.pid())
    }

    fn envelope_bytes(&self, _needs: &Needs) -> usize {
        "id: 1795271572:0\ndata: \n\n".len()
    }

    fn is_dense(&self) -> bool {
        false
    }

    fn batch_max(&self) -> usize {
        1
    }

    fn preparation(&self, _needs: &Needs, _readers: u32) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn subscribe(&self, needs: &Needs, _: u32, track: u32, form: Form, after: &str) -> Vec<u8> {
        let (path, headers) = match form {
            Form::Events => ("events", "Accept: text/event-stream\r\n".to_owned()),
            Form::Poll => ("poll", String::new()),
            Form::Socket | Form::DeflatedSocket => ("events", crate::websocket::offer(false)),
        };
        let after = match (form, after.split_once('|')) {
            (Form::Poll, Some((modified, etag))) => {
                format!("If-Modified-Since: {modified}\r\nIf-None-Match: {etag}\r\n")
            }
            (Form::Events, _) if !after.is_empty() => format!("Last-Event-ID: {after}\r\n"),
            _ => String::new(),
        };
        let run = needs.run;
        format!("GET /{path}?id={run:x}-{track} HTTP/1.1\r\nHost: x\r\n{headers}{after}\r\n")
            .into_bytes()
    }

    fn publish(&self, needs: &Needs, events: &[(u32, String)]) -> Vec<u8> {
        let (track, text) = &events[0];
        let (run, length) = (needs.run, text.len());
        format!("POST /publish?id={run:x}-{track} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{text}")
            .into_bytes()
    }

    /// A time in seconds and a number within it.
    fn position(&self, id: &str) -> Option<Position> {
        let (major, minor) = id.split_once(':')?;
        Some(Position {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }

    /// Comments only.
    fn control(&self, _name: Option<&str>, _data: Option<&[u8]>) -> Control {
        Control::Live
    }

    fn page<'a>(&self, head: &[u8], body: &'a [u8]) -> Result<Page<'a>> {
        let modified = http::header(head, "last-modified").context("a poll without a time")?;
        let etag = http::header(head, "etag").context("a poll without an etag")?;
        Ok(Page {
            events: vec![(body, None)],
            next: Some(format!("{modified}|{etag}")),
        })
    }
}

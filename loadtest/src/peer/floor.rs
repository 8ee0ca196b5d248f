//! The floor as a peer: the server of `floor.rs` in a process of its own, from this same program.
//!
//! Promises: it is told nothing that makes it slower or faster than TARGETS.md defines it; with `--floor-fault` it
//! breaks on purpose, so that everyone can see the verification fail.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{Control, Form, Needs, Page, Peer};
use crate::child::{Server, Start};
use crate::context::Context;
use crate::frames;
use crate::verify::Position;

pub struct Floor {
    server: Server,
    address: SocketAddr,
}

impl Floor {
    pub fn start(context: &Context, needs: &Needs, directory: &Path) -> Result<Floor> {
        let mut arguments = vec![
            "floor-server".to_owned(),
            "--ping-seconds".to_owned(),
            needs.ping_seconds.to_string(),
        ];
        if let Some(fault) = &context.floor_fault {
            arguments.extend(["--fault".to_owned(), fault.clone()]);
        }
        let mut server = Server::start(&Start {
            program: &std::env::current_exe()?,
            arguments,
            core: context.server_core(),
            log: directory.join("floor.log"),
        })?;
        let address = server.listening(Duration::from_secs(10))?;
        Ok(Floor { server, address })
    }
}

impl Peer for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pid(&self) -> Option<u32> {
        Some(self.server.pid())
    }

    fn envelope_bytes(&self, _needs: &Needs) -> usize {
        "data: \nid: 1234\n\n".len()
    }

    fn is_dense(&self) -> bool {
        true
    }

    fn batch_max(&self) -> usize {
        1
    }

    fn preparation(&self, _needs: &Needs, _readers: u32) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn subscribe(&self, _: &Needs, _: u32, track: u32, form: Form, after: &str) -> Vec<u8> {
        let path = match form {
            Form::Poll => "poll",
            _ => "events",
        };
        let after = if after.is_empty() { "0" } else { after };
        format!("GET /{path}/{track}/{after} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
    }

    fn publish(&self, _needs: &Needs, events: &[(u32, String)]) -> Vec<u8> {
        let (track, text) = &events[0];
        let length = text.len();
        format!(
            "POST /publish/{track}/0 HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{text}"
        )
        .into_bytes()
    }

    fn position(&self, id: &str) -> Option<Position> {
        let major = id.parse().ok()?;
        Some(Position { major, minor: 0 })
    }

    fn control(&self, _name: Option<&str>, _data: Option<&[u8]>) -> Control {
        Control::Live
    }

    fn page<'a>(&self, _head: &[u8], body: &'a [u8]) -> Result<Page<'a>> {
        let mut page = Page {
            events: Vec::new(),
            next: None,
        };
        for frame in frames::whole(body) {
            let position = frame.id.and_then(|id| self.position(id));
            if let (Some(data), Some(id)) = (frame.data, frame.id) {
                page.events.push((data, position));
                page.next = Some(id.to_owned());
            }
        }
        Ok(page)
    }
}

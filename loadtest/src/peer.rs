//! What a server under load must be able to do for the tool. Each peer is one small file in `peer/`.
//!
//! Promises: scenarios know no peer's wire format; a peer knows no scenario. To add a server, write a file that
//! implements `Peer` and name it in `PEERS` and `start`. It never measures.

pub mod floor;
pub mod nchan;
pub mod tidings;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, bail};

use crate::context::Context;
use crate::verify::Position;

/// Bytes of one event on the wire as SSE, the same for every peer.
pub const FRAME_BYTES: usize = 300;

pub const PEERS: [&str; 3] = ["floor", "nchan", "tidings"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Events,
    Poll,
    Socket,
    DeflatedSocket,
}

/// Whom a track reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One track, which every reader reads: a topic, each subscriber with a log of its own.
    Topic,
    /// Each track is one user.
    Users,
    /// Each track is a conversation; each reader is one of its members.
    Conversations,
}

/// A long poll's answer: its events, and from where to ask again.
pub struct Page<'a> {
    pub events: Vec<(&'a [u8], Option<Position>)>,
    pub next: Option<String>,
}

/// What a control frame means to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Live,
    Nothing,
    Lost,
}

/// What a scenario asks of a server before it begins.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    pub run: u32,
    pub reach: Reach,
    pub ping_seconds: u32,
    /// Memory for the newest events, where the peer has such a bound.
    pub recent_bytes: u64,
}

pub trait Peer {
    fn name(&self) -> &'static str;
    fn address(&self) -> SocketAddr;
    /// None: it runs elsewhere and was not named, so what it costs is not known.
    fn pid(&self) -> Option<u32>;
    /// Bytes that its frame adds to a mark's text.
    fn envelope_bytes(&self, needs: &Needs) -> usize;
    /// Positions rise by one.
    fn is_dense(&self) -> bool;
    /// The id comes last in a frame, and a reader is told when it has caught up.
    fn is_strict(&self) -> bool {
        false
    }
    /// Events in one publish.
    fn batch_max(&self) -> usize;
    /// Requests that must be answered before anything can be published to all readers.
    fn preparation(&self, needs: &Needs, readers: u32) -> Vec<Vec<u8>>;
    fn subscribe(&self, needs: &Needs, reader: u32, track: u32, form: Form, after: &str)
    -> Vec<u8>;
    /// Each event with its track; not more of them than `batch_max`.
    fn publish(&self, needs: &Needs, events: &[(u32, String)]) -> Vec<u8>;
    fn position(&self, id: &str) -> Option<Position>;
    /// What a frame means that has a name, or no data.
    fn control(&self, name: Option<&str>, data: Option<&[u8]>) -> Control;
    fn page<'a>(&self, head: &[u8], body: &'a [u8]) -> Result<Page<'a>>;

    /// A socket's text: its id, and what it means where it is no event.
    fn socket_text<'a>(&self, _text: &'a [u8]) -> (Option<&'a str>, Option<Control>) {
        (None, None)
    }
    /// `kill -9` now.
    fn kill(&mut self) -> Result<()> {
        bail!("{} is not restarted", self.name())
    }
    /// Starts again on the same data.
    fn restart(&mut self, _context: &Context, _needs: &Needs) -> Result<()> {
        bail!("{} is not restarted", self.name())
    }
}

/// Fails where the peer cannot run on this machine, with the cure: told before the others are measured.
pub fn check_installed(name: &str) -> Result<()> {
    match name {
        "nchan" => nchan::check_installed(),
        _ => Ok(()),
    }
}

pub fn start(
    name: &str,
    context: &Context,
    needs: &Needs,
    directory: &Path,
) -> Result<Box<dyn Peer>> {
    Ok(match name {
        "tidings" => Box::new(tidings::Tidings::start(context, needs, directory)?),
        "floor" => Box::new(floor::Floor::start(context, needs, directory)?),
        "nchan" => Box::new(nchan::Nchan::start(context, directory, needs)?),
        _ => bail!("there is no peer {name}; there are {}", PEERS.join(", ")),
    })
}

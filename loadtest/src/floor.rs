//! The floor of TARGETS.md: a bare epoll server without any HTTP library that keeps nothing on disk. What it costs is
//! what the kernel costs; every other figure is told as a multiple of it.
//!
//! Promises: one `write` of all ready frames per stream and turn; frames are made once, at publish. With `--fault` it
//! drops, repeats, swaps or forges on purpose. It checks nobody, knows no limits, and must never be used for anything.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{Timespec, epoll};
use socket2::{Domain, Socket, Type};

use crate::floor::fault::Fault;

pub mod fault;

const BACKLOG: i32 = 4096;
const EVENTS_PER_TURN: usize = 1024;
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n";
const LISTENER: u64 = u64::MAX;
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// All frames of one track, end to end, ready to be written.
#[derive(Default)]
struct Track {
    published: u64,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    streams: Vec<u32>,
    polls: Vec<u32>,
    is_dirty: bool,
}

#[derive(Clone, Copy)]
enum Doing {
    Asking,
    Streaming { track: u32, written: usize },
    Polling { track: u32, written: usize },
}

struct Connection {
    socket: TcpStream,
    doing: Doing,
    /// The beginning of a request that a read split; empty nearly always.
    partial: Vec<u8>,
}

struct Floor {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    names: HashMap<u32, u32>,
    tracks: Vec<Track>,
    dirty: Vec<u32>,
    fault: Fault,
}

struct Request<'a> {
    action: &'a str,
    track: u32,
    after: usize,
    body: &'a [u8],
}

/// Serves until it is killed.
pub fn serve(ping: Duration, fault: Fault) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener: TcpListener = socket.into();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        &listener,
        epoll::EventData::new_u64(LISTENER),
        epoll::EventFlags::IN,
    )?;
    println!("listening on http://{}", listener.local_addr()?);
    let mut floor = Floor {
        epoll,
        listener,
        connections: Vec::new(),
        free: Vec::new(),
        names: HashMap::new(),
        tracks: Vec::new(),
        dirty: Vec::new(),
        fault,
    };
    let mut events = Vec::with_capacity(EVENTS_PER_TURN);
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    let mut next_ping = Instant::now() + ping;
    loop {
        let wait = Timespec::try_from(next_ping.saturating_duration_since(Instant::now()))?;
        events.clear();
        epoll::wait(
            &floor.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&wait),
        )?;
        for event in &events {
            match event.data.u64() {
                LISTENER => floor.accept()?,
                index => floor.ready(index as u32, event.flags, &mut buffer)?,
            }
        }
        floor.deliver()?;
        if Instant::now() >= next_ping {
            floor.ping();
            next_ping += ping;
        }
    }
}

impl Floor {
    fn accept(&mut self) -> Result<()> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot accept"),
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() as u32 - 1
            });
            let data = epoll::EventData::new_u64(u64::from(index));
            epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
            self.connections[index as usize] = Some(Connection {
                socket,
                doing: Doing::Asking,
                partial: Vec::new(),
            });
        }
    }

    fn ready(&mut self, index: u32, flags: epoll::EventFlags, buffer: &mut [u8]) -> Result<()> {
        if flags.contains(epoll::EventFlags::OUT) && !self.write_rest(index)? {
            self.interest(index, epoll::EventFlags::IN)?;
        }
        if !flags
            .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
        {
            return Ok(());
        }
        let Some(connection) = &mut self.connections[index as usize] else {
            return Ok(());
        };
        let count = match connection.socket.read(buffer) {
            Ok(count) if count > 0 => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Ok(_) | Err(_) => {
                self.close(index);
                return Ok(());
            }
        };
        if connection.partial.is_empty() {
            let used = self.requests(index, &buffer[..count])?;
            self.keep(index, buffer[used..count].to_vec());
        } else {
            let mut bytes = std::mem::take(&mut connection.partial);
            bytes.extend_from_slice(&buffer[..count]);
            let used = self.requests(index, &bytes)?;
            self.keep(index, bytes.split_off(used));
        }
        Ok(())
    }

    fn keep(&mut self, index: u32, rest: Vec<u8>) {
        if let Some(connection) = &mut self.connections[index as usize] {
            connection.partial = rest;
        }
    }

    /// Serves the whole requests in `bytes`; gives how many bytes they were.
    fn requests(&mut self, index: u32, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        while let Some((request, length)) = parse(&bytes[used..])? {
            used += length;
            let track = self.track(request.track);
            match request.action {
                "publish" => self.publish(index, track, request.body),
                "events" => self.stream(index, track, request.after)?,
                "poll" => self.poll(index, track, request.after)?,
                other => bail!("there is no {other} here"),
            }
        }
        Ok(used)
    }

    fn track(&mut self, name: u32) -> u32 {
        let tracks = &mut self.tracks;
        *self.names.entry(name).or_insert_with(|| {
            tracks.push(Track::default());
            tracks.len() as u32 - 1
        })
    }

    fn publish(&mut self, index: u32, number: u32, body: &[u8]) {
        let track = &mut self.tracks[number as usize];
        track.published += 1;
        self.fault
            .apply(number, (track.published, body), &mut |id, text| {
                track.bytes.extend_from_slice(b"data: ");
                track.bytes.extend_from_slice(text);
                write!(track.bytes, "\nid: {id}\n\n").expect("a Vec takes what is written");
                track.ends.push(track.bytes.len());
            });
        if !std::mem::replace(&mut track.is_dirty, true) {
            self.dirty.push(number);
        }
        self.write(index, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    }

    fn stream(&mut self, index: u32, number: u32, after: usize) -> Result<()> {
        let track = &mut self.tracks[number as usize];
        track.streams.push(index);
        let written = after.checked_sub(1).and_then(|last| track.ends.get(last));
        let doing = Doing::Streaming {
            track: number,
            written: written.copied().unwrap_or(0),
        };
        if let Some(connection) = &mut self.connections[index as usize] {
            connection.doing = doing;
        }
        self.write(index, HEAD.as_bytes());
        self.write_rest(index)?;
        Ok(())
    }

    fn poll(&mut self, index: u32, number: u32, after: usize) -> Result<()> {
        let track = &mut self.tracks[number as usize];
        track.polls.push(index);
        let written = after.checked_sub(1).and_then(|last| track.ends.get(last));
        let written = written.copied().unwrap_or(0);
        let has_news = written < track.bytes.len();
        if let Some(connection) = &mut self.connections[index as usize] {
            connection.doing = Doing::Polling {
                track: number,
                written,
            };
        }
        if has_news && !std::mem::replace(&mut track.is_dirty, true) {
            self.dirty.push(number);
        }
        Ok(())
    }

    /// Everything that was published in this turn goes out: one write for each stream.
    fn deliver(&mut self) -> Result<()> {
        for number in std::mem::take(&mut self.dirty) {
            let track = &mut self.tracks[number as usize];
            track.is_dirty = false;
            let polls = std::mem::take(&mut track.polls);
            for index in polls {
                self.answer_poll(index);
            }
            let mut streams = std::mem::take(&mut self.tracks[number as usize].streams);
            for &index in &streams {
                self.write_rest(index)?;
            }
            // A connection that broke just now is gone from the list too, before its place is another's.
            streams.retain(|index| self.connections[*index as usize].is_some());
            self.tracks[number as usize].streams = streams;
        }
        Ok(())
    }

    fn answer_poll(&mut self, index: u32) {
        let Some(connection) = &mut self.connections[index as usize] else {
            return;
        };
        let Doing::Polling { track, written } = connection.doing else {
            return;
        };
        connection.doing = Doing::Asking;
        let frames = &self.tracks[track as usize].bytes[written..];
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            frames.len()
        )
        .into_bytes();
        answer.extend_from_slice(frames);
        self.write(index, &answer);
    }

    /// Small answers: they fit, or the connection is broken.
    fn write(&mut self, index: u32, bytes: &[u8]) {
        let Some(connection) = &mut self.connections[index as usize] else {
            return;
        };
        if !matches!(connection.socket.write(bytes), Ok(count) if count == bytes.len()) {
            self.close(index);
        }
    }

    /// All that a stream has not been given yet, in one write; what does not fit is written when it does. True: some
    /// of it is left.
    fn write_rest(&mut self, index: u32) -> Result<bool> {
        let Some(connection) = &mut self.connections[index as usize] else {
            return Ok(false);
        };
        let Doing::Streaming { track, written } = &mut connection.doing else {
            return Ok(false);
        };
        let bytes = &self.tracks[*track as usize].bytes;
        while *written < bytes.len() {
            match connection.socket.write(&bytes[*written..]) {
                Ok(count) => *written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.close(index);
                    return Ok(false);
                }
            }
        }
        let is_behind = *written < bytes.len();
        if is_behind {
            self.interest(index, epoll::EventFlags::IN | epoll::EventFlags::OUT)?;
        }
        Ok(is_behind)
    }

    fn interest(&self, index: u32, flags: epoll::EventFlags) -> Result<()> {
        if let Some(connection) = &self.connections[index as usize] {
            let data = epoll::EventData::new_u64(u64::from(index));
            epoll::modify(&self.epoll, &connection.socket, data, flags)?;
        }
        Ok(())
    }

    fn ping(&mut self) {
        for index in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[index] else {
                continue;
            };
            let Doing::Streaming { track, written } = connection.doing else {
                continue;
            };
            // Never into the middle of a frame.
            if written == self.tracks[track as usize].bytes.len() {
                self.write(index as u32, b": ping\n\n");
            }
        }
    }

    fn close(&mut self, index: u32) {
        let Some(connection) = self.connections[index as usize].take() else {
            return;
        };
        self.free.push(index);
        match connection.doing {
            Doing::Streaming { track, .. } => {
                self.tracks[track as usize]
                    .streams
                    .retain(|stream| *stream != index);
            }
            Doing::Polling { track, .. } => {
                self.tracks[track as usize]
                    .polls
                    .retain(|poll| *poll != index);
            }
            Doing::Asking => {}
        }
    }
}

/// `METHOD /action/track/after HTTP/1.1` and its body, if it is all there, with its length.
fn parse(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).context("a head is no text")?;
    let body_bytes = match head.split_once("Content-Length: ") {
        Some((_, rest)) => rest.split("\r\n").next().unwrap_or("").parse()?,
        None => 0,
    };
    let begin = end + 4;
    let Some(body) = bytes.get(begin..begin + body_bytes) else {
        return Ok(None);
    };
    let path = head.split(' ').nth(1).context("no path")?;
    let mut parts = path.split('/').skip(1);
    let action = parts.next().context("no action")?;
    let track = parts.next().context("no track")?.parse()?;
    let after = parts.next().context("no place")?.parse()?;
    let request = Request {
        action,
        track,
        after,
        body,
    };
    Ok(Some((request, begin + body_bytes)))
}

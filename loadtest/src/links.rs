//! All sockets of the load, in one epoll set, on one thread: opened from many loopback addresses, read when readable.
//!
//! Promises: a source address is never out of ports, however many connections a run opens; what cannot be written at
//! once is written when it can be. Only loopback addresses are ever connected to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{Timespec, epoll};
use socket2::{Domain, Socket, Type};

use crate::frames;
use crate::http::Decoder;
use crate::websocket;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
const EVENTS_PER_TURN: usize = 1024;
/// Where the load has a processor of its own, a wait this short is a loop: a processor that sleeps wakes late, epoll
/// itself counts in milliseconds, and either would look like the server's latency.
const BUSY_WAIT: Duration = Duration::from_millis(1);
/// 28,000 ports each.
const SOURCE_ADDRESSES: u64 = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Reader(u32),
    Publisher(u32),
}

/// What a link's bytes are.
pub enum Inbox {
    Events(frames::Splitter),
    Socket(websocket::Splitter),
    /// The head and body of the answer that is coming.
    Whole {
        status: u16,
        head: Vec<u8>,
        body: Vec<u8>,
    },
}

impl Inbox {
    pub fn whole() -> Inbox {
        Inbox::Whole {
            status: 0,
            head: Vec::new(),
            body: Vec::new(),
        }
    }
}

pub struct Link {
    socket: TcpStream,
    pub owner: Owner,
    pub decoder: Decoder,
    pub inbox: Inbox,
    /// Still to be written.
    pub outgoing: Vec<u8>,
    token: u64,
    is_waiting_to_write: bool,
}

impl Link {
    /// What there is to read, into `buffer`. Some(0): the end. None: nothing now.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        match self.socket.read(buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Some(0)),
            Err(error) => Err(error).context("cannot read a connection"),
        }
    }
}

struct Slot {
    generation: u32,
    link: Option<Link>,
}

pub struct Links {
    epoll: OwnedFd,
    slots: Vec<Slot>,
    free: Vec<usize>,
    events: Vec<epoll::Event>,
    opened: u64,
    has_own_processor: bool,
}

impl Links {
    pub fn new(has_own_processor: bool) -> Result<Links> {
        Ok(Links {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            slots: Vec::new(),
            free: Vec::new(),
            events: Vec::with_capacity(EVENTS_PER_TURN),
            opened: 0,
            has_own_processor,
        })
    }

    /// Connects and sends the first request; gives the slot of the link.
    pub fn open(
        &mut self,
        to: SocketAddr,
        owner: Owner,
        inbox: Inbox,
        request: Vec<u8>,
    ) -> Result<usize> {
        let socket = connect(to, self.opened)?;
        self.opened += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                link: None,
            });
            self.slots.len() - 1
        });
        self.slots[index].generation += 1;
        let token = u64::from(self.slots[index].generation) << 32 | index as u64;
        let data = epoll::EventData::new_u64(token);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        let link = Link {
            socket,
            owner,
            decoder: Decoder::default(),
            inbox,
            outgoing: request,
            token,
            is_waiting_to_write: false,
        };
        self.put(index, link)?;
        Ok(index)
    }

    /// The slots in which something happened, within `time_max`.
    pub fn wait(&mut self, time_max: Duration, happened: &mut Vec<u64>) -> Result<()> {
        let is_busy = self.has_own_processor && time_max <= BUSY_WAIT;
        let timeout = if is_busy { Duration::ZERO } else { time_max };
        let timeout = Timespec::try_from(timeout).context("a wait too long")?;
        let until = Instant::now() + time_max;
        self.events.clear();
        loop {
            let spare = rustix::buffer::spare_capacity(&mut self.events);
            match epoll::wait(&self.epoll, spare, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for connections"),
            }
            if !is_busy || !self.events.is_empty() || Instant::now() >= until {
                break;
            }
        }
        happened.clear();
        happened.extend(self.events.iter().map(|event| event.data.u64()));
        Ok(())
    }

    /// Takes a link out to work with it. None: it was closed since.
    pub fn take(&mut self, token: u64) -> Option<(usize, Link)> {
        let index = (token & 0xffff_ffff) as usize;
        let slot = &mut self.slots[index];
        let is_same = u64::from(slot.generation) == token >> 32;
        is_same
            .then(|| slot.link.take())
            .flatten()
            .map(|link| (index, link))
    }

    /// Puts it back and writes what it has to say.
    pub fn put(&mut self, index: usize, mut link: Link) -> Result<()> {
        if !link.outgoing.is_empty() {
            self.flush(&mut link)?;
        }
        self.slots[index].link = Some(link);
        Ok(())
    }

    pub fn send(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        let mut link = self.slots[index]
            .link
            .take()
            .context("the connection is closed")?;
        link.outgoing.extend_from_slice(bytes);
        self.put(index, link)
    }

    fn flush(&mut self, link: &mut Link) -> Result<()> {
        let written = match link.socket.write(&link.outgoing) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            // The end is met when it is read.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                ) =>
            {
                link.outgoing.len()
            }
            Err(error) => return Err(error).context("cannot write to a connection"),
        };
        link.outgoing.drain(..written);
        let is_rest = !link.outgoing.is_empty();
        if is_rest != link.is_waiting_to_write {
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, is_rest);
            let data = epoll::EventData::new_u64(link.token);
            epoll::modify(&self.epoll, &link.socket, data, flags)?;
            link.is_waiting_to_write = is_rest;
        }
        Ok(())
    }

    /// The slot is free for others once its link is gone: taken out by the caller, or dropped here.
    pub fn close(&mut self, index: usize) {
        self.slots[index].link = None;
        self.free.push(index);
    }
}

fn connect(to: SocketAddr, number: u64) -> Result<TcpStream> {
    ensure!(to.ip().is_loopback(), "{to} is not on this machine");
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if to.is_ipv4() {
        let from = Ipv4Addr::new(127, 0, 1, (1 + number % SOURCE_ADDRESSES) as u8);
        socket
            .bind(&SocketAddr::from((from, 0)).into())
            .with_context(|| format!("no port left at {from}"))?;
    }
    socket
        .connect_timeout(&to.into(), CONNECT_TIME_MAX)
        .context("cannot connect to the server")?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

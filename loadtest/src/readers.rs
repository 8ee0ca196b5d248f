//! The readers: one connection each, in any form, every event entered into the ledger, every delivery timed.
//!
//! Promises: a reader keeps the cursor of the last event it was given and goes on from there; parsing is a search for
//! bytes, not a parse, so that the load weighs little beside what it measures.

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;

use crate::frames;
use crate::http::Part;
use crate::links::{Inbox, Link};
use crate::peer::{Control, Form, Needs, Peer};
use crate::verify::Ledger;
use crate::websocket::{self, Inflater};

pub struct Reader {
    pub track: u32,
    pub slot: Option<usize>,
    /// Where it goes on.
    pub cursor: String,
    pub is_live: bool,
}

pub struct Readers {
    pub list: Vec<Reader>,
    pub form: Form,
    pub ledger: Ledger,
    pub delivered: Histogram<u64>,
    pub live: usize,
    /// Control frames of open readers, such as pings.
    pub pings: u64,
    /// Messages that came compressed.
    pub inflated: u64,
    /// Events without a mark, where the scenario has such: type and number.
    pub kinds: std::collections::BTreeMap<String, u64>,
    pub counts_kinds: bool,
    /// Taken out while a text lies in it.
    inflater: Option<Inflater>,
}

/// What becomes of a link after its bytes were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Stays,
    Ends,
}

impl Readers {
    pub fn new(tracks_of_readers: &[u32], form: Form, ledger: Ledger) -> Result<Readers> {
        let reader = |track: &u32| Reader {
            track: *track,
            slot: None,
            cursor: String::new(),
            is_live: false,
        };
        Ok(Readers {
            list: tracks_of_readers.iter().map(reader).collect(),
            form,
            ledger,
            delivered: histogram()?,
            live: 0,
            pings: 0,
            inflated: 0,
            kinds: std::collections::BTreeMap::new(),
            counts_kinds: false,
            inflater: None,
        })
    }

    pub fn request(&self, peer: &dyn Peer, needs: &Needs, index: u32) -> Vec<u8> {
        let reader = &self.list[index as usize];
        peer.subscribe(needs, index, reader.track, self.form, &reader.cursor)
    }

    pub fn inbox(&self) -> Inbox {
        match self.form {
            Form::Events => Inbox::Events(frames::Splitter::default()),
            Form::Socket | Form::DeflatedSocket => Inbox::Socket(websocket::Splitter::default()),
            Form::Poll => Inbox::whole(),
        }
    }

    pub fn set_live(&mut self, index: u32) {
        let reader = &mut self.list[index as usize];
        if !std::mem::replace(&mut reader.is_live, true) {
            self.live += 1;
        }
    }

    pub fn set_closed(&mut self, index: u32) {
        let reader = &mut self.list[index as usize];
        reader.slot = None;
        if std::mem::take(&mut reader.is_live) {
            self.live -= 1;
        }
    }

    /// Takes in what one connection brought.
    pub fn take_in(
        &mut self,
        (peer, needs): (&dyn Peer, &Needs),
        index: u32,
        link: &mut Link,
        mut input: &[u8],
        now_ns: u64,
    ) -> Result<Fate> {
        while let Some(part) = link.decoder.next(&mut input)? {
            match (part, &mut link.inbox) {
                (Part::Head { status, head }, inbox) => {
                    self.begin(peer, index, inbox, status, head)?
                }
                (Part::Body(mut bytes), Inbox::Events(splitter)) => {
                    while let Some(frame) = splitter.next(&mut bytes)? {
                        self.frame(peer, index, &frame, now_ns);
                    }
                }
                (Part::Body(mut bytes), Inbox::Socket(splitter)) => {
                    while let Some(frame) = splitter.next(&mut bytes)? {
                        if self.socket_frame(peer, index, &frame, now_ns, &mut link.outgoing)?
                            == Fate::Ends
                        {
                            return Ok(Fate::Ends);
                        }
                    }
                }
                (Part::Body(bytes), Inbox::Whole { body, .. }) => body.extend_from_slice(bytes),
                (Part::End, Inbox::Whole { status, head, body }) => {
                    if *status == 200 {
                        self.page(peer, index, head, body, now_ns)?;
                    }
                    body.clear();
                    link.outgoing.extend(self.request(peer, needs, index));
                }
                (Part::End, _) => return Ok(Fate::Ends),
            }
        }
        Ok(Fate::Stays)
    }

    fn begin(
        &mut self,
        peer: &dyn Peer,
        index: u32,
        inbox: &mut Inbox,
        answered: u16,
        told: &[u8],
    ) -> Result<()> {
        match inbox {
            Inbox::Whole { status, head, .. } => {
                // 304 and 408: nothing came in time, ask again.
                if ![200, 304, 408].contains(&answered) {
                    bail!("a poll was answered with {answered}");
                }
                *status = answered;
                head.clear();
                head.extend_from_slice(told);
            }
            Inbox::Socket(_) => {
                let is_deflate_offered = self.form == Form::DeflatedSocket;
                websocket::check_answer(answered, told, is_deflate_offered)?;
                if !peer.is_strict() {
                    self.set_live(index);
                }
            }
            Inbox::Events(_) if answered == 200 => {}
            Inbox::Events(_) => bail!("a reader was answered with {answered}"),
        }
        Ok(())
    }

    fn frame(&mut self, peer: &dyn Peer, index: u32, frame: &frames::Frame, now_ns: u64) {
        match (frame.name, frame.data) {
            (None, Some(data)) => {
                if peer.is_strict() && !frame.is_id_last {
                    self.ledger
                        .cut(|| "a frame goes on behind its id".to_owned());
                }
                self.event(peer, index, data, frame.id, now_ns);
            }
            (name, data) => {
                let control = peer.control(name, data);
                self.control(index, control, data.unwrap_or_default());
                self.keep_cursor(index, frame.id);
            }
        }
    }

    fn socket_frame(
        &mut self,
        peer: &dyn Peer,
        index: u32,
        frame: &websocket::Frame,
        now_ns: u64,
        outgoing: &mut Vec<u8>,
    ) -> Result<Fate> {
        match frame.opcode {
            websocket::TEXT => {
                let mut inflater = self.inflater.take().unwrap_or_default();
                self.inflated += u64::from(frame.is_deflated);
                let text = match frame.is_deflated {
                    true => inflater.inflate(frame.payload)?,
                    false => frame.payload,
                };
                match peer.socket_text(text) {
                    (_, Some(control)) => self.control(index, control, text),
                    (id, None) => self.event(peer, index, text, id, now_ns),
                }
                self.inflater = Some(inflater);
            }
            websocket::PING => {
                self.pings += 1;
                outgoing.extend(websocket::control(websocket::PONG, frame.payload));
            }
            websocket::CLOSE => return Ok(Fate::Ends),
            _ => {}
        }
        Ok(Fate::Stays)
    }

    fn page(
        &mut self,
        peer: &dyn Peer,
        index: u32,
        head: &[u8],
        body: &[u8],
        now_ns: u64,
    ) -> Result<()> {
        let page = peer.page(head, body)?;
        for (data, position) in page.events {
            let due = self.ledger.receive(index as usize, data, position);
            self.time(due, now_ns);
            self.count_kind(data);
        }
        if let Some(next) = &page.next {
            self.keep_cursor(index, Some(next));
        }
        Ok(())
    }

    fn event(&mut self, peer: &dyn Peer, index: u32, data: &[u8], id: Option<&str>, now_ns: u64) {
        let position = id.and_then(|id| peer.position(id));
        // A signal has no position and is not in the log; only scenarios with unmarked events have any.
        let due = self.ledger.receive(index as usize, data, position);
        self.time(due, now_ns);
        self.count_kind(data);
        self.keep_cursor(index, id);
    }

    fn count_kind(&mut self, data: &[u8]) {
        if let Some(kind) = self
            .counts_kinds
            .then(|| frames::text(data, "type"))
            .flatten()
        {
            match self.kinds.get_mut(kind) {
                Some(count) => *count += 1,
                None => _ = self.kinds.insert(kind.to_owned(), 1),
            }
        }
    }

    fn control(&mut self, index: u32, control: Control, data: &[u8]) {
        if self.list[index as usize].is_live {
            self.pings += 1;
        }
        match control {
            Control::Live => self.set_live(index),
            Control::Nothing => {}
            Control::Lost => self.ledger.cut(|| {
                let text = String::from_utf8_lossy(data);
                format!("reader {index} was told {text}")
            }),
        }
    }

    fn time(&mut self, due_ns: Option<u64>, now_ns: u64) {
        if let Some(due_ns) = due_ns {
            self.delivered
                .saturating_record(now_ns.saturating_sub(due_ns));
        }
    }

    fn keep_cursor(&mut self, index: u32, id: Option<&str>) {
        if let Some(id) = id {
            let cursor = &mut self.list[index as usize].cursor;
            cursor.clear();
            cursor.push_str(id);
        }
    }
}

/// Nanoseconds up to two minutes, to three digits.
pub fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 120_000_000_000, 3).context("the bounds hold")
}

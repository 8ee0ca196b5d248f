//! The frames of one turn of a stream, on their way out.
//!
//! Promises: a stream that waits holds no buffer; whoever carries the frames may have headroom before them for bytes of
//! its own, so that a turn is one write. It never waits.

use std::borrow::Borrow;

use bytes::{Bytes, BytesMut};

use crate::event::{Event, Signal};
use crate::frame::{AROUND_EVENT_BYTES, Control, Layout};
use crate::id::Position;

/// What a turn's buffer holds at first: one event of ordinary size.
const FIRST_BYTES: usize = 512;

/// Frames on their way out. On a socket each is a message of its own.
pub struct Frames {
    layout: Layout,
    /// What the buffer held before, which is left as it is.
    before: usize,
    /// Bytes left free before the first frame, for what its carrier puts there.
    headroom: usize,
    /// Without an allocation until the first frame: a stream that waits holds no buffer.
    bytes: BytesMut,
    /// Where each message ends; filled for sockets only.
    ends: Vec<usize>,
}

impl Frames {
    /// Frames behind `headroom` bytes that their carrier fills.
    pub fn new(layout: Layout, headroom: usize) -> Frames {
        Frames::within(BytesMut::new(), layout, headroom)
    }

    /// The same behind what a buffer holds.
    pub fn within(buffer: BytesMut, layout: Layout, headroom: usize) -> Frames {
        Frames {
            layout,
            before: buffer.len(),
            headroom,
            bytes: buffer,
            ends: Vec::new(),
        }
    }

    /// What the buffer held, the headroom and the frames; no headroom when there is no frame.
    pub fn into_bytes(mut self) -> BytesMut {
        if self.bytes.len() == self.before + self.headroom {
            self.bytes.truncate(self.before);
        }
        self.bytes
    }

    fn out(&mut self) -> &mut BytesMut {
        self.begin(FIRST_BYTES);
        &mut self.bytes
    }

    /// Gives the first frame so many bytes, its headroom among them.
    fn begin(&mut self, bytes: usize) {
        if self.bytes.len() == self.before {
            self.bytes.reserve(bytes);
            self.bytes.resize(self.before + self.headroom, 0);
        }
    }

    /// The messages, each sharing the bytes of all.
    pub fn into_messages(self) -> impl Iterator<Item = Bytes> {
        let bytes = self.bytes.freeze();
        let mut start = 0;
        self.ends.into_iter().map(move |end| {
            let message = bytes.slice(start..end);
            start = end;
            message
        })
    }

    pub fn control(&mut self, control: &Control<'_>, retry_ms: Option<u64>) {
        self.layout.control(self.out(), control, retry_ms);
        self.ended();
    }

    /// Makes place for so many events at once, whose own JSON has so many bytes.
    pub fn reserve(&mut self, events: usize, json_bytes: usize) {
        let bytes = events * AROUND_EVENT_BYTES + json_bytes;
        self.begin(FIRST_BYTES.max(self.headroom + bytes));
        self.bytes.reserve(bytes);
    }

    pub fn event(&mut self, position: Position, event: &Event) {
        self.layout.event(self.out(), position, event);
        self.ended();
    }

    pub fn signals(&mut self, signals: &[impl Borrow<Signal>]) {
        for signal in signals {
            self.layout.signal(self.out(), signal.borrow());
            self.ended();
        }
    }

    fn ended(&mut self) {
        if self.layout == Layout::Bare {
            self.ends.push(self.bytes.len());
        }
    }
}

//! The client's half of RFC 6455, as far as a reader needs it: the handshake, frames in, pongs out, inflating.
//!
//! Promises: frames are cut right wherever reads split them; a compressed message is inflated as agreed, without
//! context from the one before. Fragmented messages are refused by name: no server here sends them.

use anyhow::{Context, Result, bail, ensure};
use flate2::{Decompress, FlushDecompress, Status};

/// The key of the RFC's own example, whose answer is therefore known.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const DEFLATE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The headers that turn a GET into a handshake.
pub fn offer(is_deflate_offered: bool) -> String {
    let extensions = match is_deflate_offered {
        true => format!("Sec-WebSocket-Extensions: {DEFLATE}\r\n"),
        false => String::new(),
    };
    format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{extensions}"
    )
}

/// Whether the answer agrees, and agrees to deflate where that was offered.
pub fn check_answer(status: u16, head: &[u8], is_deflate_offered: bool) -> Result<()> {
    ensure!(status == 101, "the handshake was answered with {status}");
    let accept = crate::http::header(head, "sec-websocket-accept");
    ensure!(
        accept == Some(ACCEPT),
        "the handshake's accept is {accept:?}"
    );
    let extensions = crate::http::header(head, "sec-websocket-extensions").unwrap_or("");
    let is_deflated = extensions.contains("permessage-deflate");
    ensure!(
        is_deflated == is_deflate_offered,
        "deflate was offered: {is_deflate_offered}; agreed: {extensions:?}"
    );
    ensure!(
        !is_deflated || extensions.contains("server_no_context_takeover"),
        "the server keeps its context: {extensions:?}"
    );
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: u8,
    pub is_deflated: bool,
    pub payload: &'a [u8],
}

#[derive(Default)]
pub struct Splitter {
    carry: Vec<u8>,
    spent: usize,
}

impl Splitter {
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'s>>> {
        self.carry.drain(..std::mem::take(&mut self.spent));
        if self.carry.is_empty() {
            if let Some((frame, length)) = frame(input)? {
                *input = &input[length..];
                return Ok(Some(frame));
            }
            self.carry.extend_from_slice(std::mem::take(input));
            return Ok(None);
        }
        self.carry.extend_from_slice(std::mem::take(input));
        match frame(&self.carry)? {
            Some((frame, length)) => {
                self.spent = length;
                Ok(Some(frame))
            }
            None => Ok(None),
        }
    }
}

/// The frame at the beginning of `bytes` and its whole length, if it is all there.
fn frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    ensure!(second & 0x80 == 0, "a server's frame is masked");
    ensure!(first & 0x80 != 0, "a fragmented message");
    let (length, head) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (usize::try_from(u64::from_be_bytes(*length))?, 10),
            None => return Ok(None),
        },
        length => (usize::from(length), 2),
    };
    ensure!(length <= MESSAGE_BYTES_MAX, "a frame of {length} bytes");
    let Some(payload) = bytes.get(head..head + length) else {
        return Ok(None);
    };
    let frame = Frame {
        opcode: first & 0x0f,
        is_deflated: first & 0x40 != 0,
        payload,
    };
    Ok(Some((frame, head + length)))
}

/// A client's frame; control frames only, so at most 125 bytes. The mask may be anything, so it is nothing.
pub fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(125)];
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// One for all connections, since no message leans on the one before.
pub struct Inflater {
    state: Decompress,
    output: Vec<u8>,
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater {
            state: Decompress::new(false),
            output: Vec::with_capacity(64 * 1024),
        }
    }
}

impl Inflater {
    pub fn inflate(&mut self, payload: &[u8]) -> Result<&[u8]> {
        self.state.reset(false);
        self.output.clear();
        for part in [payload, &[0, 0, 0xff, 0xff]] {
            let begun = self.state.total_in();
            loop {
                let taken = (self.state.total_in() - begun) as usize;
                if taken == part.len() {
                    break;
                }
                self.output.reserve(4096);
                ensure!(
                    self.output.len() <= MESSAGE_BYTES_MAX,
                    "a message inflates too far"
                );
                let status = self.state.decompress_vec(
                    &part[taken..],
                    &mut self.output,
                    FlushDecompress::Sync,
                );
                match status.context("a message that does not inflate")? {
                    Status::StreamEnd => return Ok(&self.output),
                    Status::BufError if (self.state.total_in() - begun) as usize == taken => {
                        bail!("a message that stops in the middle")
                    }
                    _ => {}
                }
            }
        }
        Ok(&self.output)
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..126 => frame.push(length as u8),
            length @ 126..65536 => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn frames_of_every_length_are_cut_right_wherever_reads_split_them() {
        let payloads = [0, 1, 125, 126, 300, 70_000].map(|length| vec![b'x'; length]);
        let stream: Vec<u8> = payloads
            .iter()
            .flat_map(|payload| server_frame(0x81, payload))
            .collect();
        for piece_bytes in [1, 3, 1000, 1 << 20] {
            let mut splitter = Splitter::default();
            let mut found = Vec::new();
            for mut piece in stream.chunks(piece_bytes) {
                while let Some(frame) = splitter.next(&mut piece).unwrap() {
                    assert_eq!((frame.opcode, frame.is_deflated), (TEXT, false));
                    found.push(frame.payload.to_vec());
                }
            }
            assert_eq!(found, payloads);
        }
    }

    #[test]
    fn what_no_server_should_send_is_refused() {
        for bytes in [[0x81, 0x80], [0x01, 0x00]] {
            assert!(frame(&bytes).is_err());
        }
        let huge = [&[0x81, 127][..], &u64::MAX.to_be_bytes()].concat();
        assert!(frame(&huge).is_err());
    }

    #[test]
    fn messages_inflate_one_by_one() {
        let mut inflater = Inflater::default();
        for length in [10, 300, 100_000] {
            let text = "tidings ".repeat(length / 8 + 1);
            let mut deflated = Vec::with_capacity(length + 1000);
            let mut state = Compress::new(Compression::fast(), false);
            state
                .compress_vec(text.as_bytes(), &mut deflated, FlushCompress::Sync)
                .unwrap();
            let deflated = deflated.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap();
            assert_eq!(inflater.inflate(deflated).unwrap(), text.as_bytes());
            assert!(inflater.inflate(&[0xff; 20]).is_err());
        }
    }

    #[test]
    fn an_answer_must_agree_to_what_was_offered() {
        let head = format!("HTTP/1.1 101 x\r\nSec-WebSocket-Accept: {ACCEPT}");
        let deflate = format!("{head}\r\nSec-WebSocket-Extensions: {DEFLATE}");
        assert!(check_answer(101, head.as_bytes(), false).is_ok());
        assert!(check_answer(101, deflate.as_bytes(), true).is_ok());
        assert!(check_answer(101, head.as_bytes(), true).is_err());
        assert!(check_answer(101, deflate.as_bytes(), false).is_err());
        assert!(check_answer(200, head.as_bytes(), false).is_err());
    }
}

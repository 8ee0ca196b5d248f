//! A WebSocket client of the tests' own, so that the server is not tested with the library that it is made of.
//!
//! Promises: text messages whole and in order, close codes as they came, and frames of any shape on the way out,
//! lawful or not (RFC 6455). It inflates what the server deflates (RFC 7692) and never answers a ping unless asked to.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use flate2::read::DeflateDecoder;

use crate::client::{Raw, Reply, WAIT};

/// The key and its answer from RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// What the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// A close frame, with its code (1005 when it has none) and reason.
    Close(u16, String),
    /// The connection ended.
    End,
}

/// How a connection is opened.
#[derive(Clone, Default)]
pub struct Handshake {
    pub headers: Vec<(String, String)>,
}

impl Handshake {
    pub fn header(mut self, name: &str, value: &str) -> Handshake {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn token(self, token: &str) -> Handshake {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub fn protocols(self, protocols: &str) -> Handshake {
        self.header("Sec-WebSocket-Protocol", protocols)
    }
}

pub struct Socket {
    raw: Raw,
    pub reply: Reply,
    is_deflated: bool,
    fragments: Vec<u8>,
    is_fragment_deflated: bool,
    /// Whether pings are answered by themselves; on unless a test turns it off.
    pub answers_pings: bool,
}

/// Opens a socket; a refusal comes back as the reply it is.
pub async fn connect(
    address: SocketAddr,
    path: &str,
    handshake: Handshake,
) -> Result<Socket, Reply> {
    let mut raw = Raw::connect(address).await;
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    for (name, value) in &handshake.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    raw.send(request.as_bytes()).await;
    let reply = raw.reply().await.expect("a handshake is answered");
    if reply.status != 101 {
        return Err(reply);
    }
    assert_eq!(
        reply.header("sec-websocket-accept"),
        Some(ACCEPT),
        "{reply:?}"
    );
    let extensions = reply.header("sec-websocket-extensions").unwrap_or("");
    let is_deflated = extensions.contains("permessage-deflate");
    // The server's encoder knows the largest window only: it must not use it where a smaller one was agreed on.
    let is_deflated = is_deflated && !extensions.contains("server_max_window_bits");
    Ok(Socket {
        raw,
        is_deflated,
        reply,
        fragments: Vec::new(),
        is_fragment_deflated: false,
        answers_pings: true,
    })
}

impl Socket {
    pub async fn send_text(&mut self, text: &str) {
        self.send_frame(0x80 | opcode::TEXT, text.as_bytes()).await;
    }

    /// Sends one masked frame; `first_byte` is FIN, the reserved bits and the opcode.
    pub async fn send_frame(&mut self, first_byte: u8, payload: &[u8]) {
        self.send_bytes(&encode_frame(first_byte, payload)).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.raw.send(bytes).await;
    }

    pub async fn close(&mut self, code: u16) {
        self.send_frame(0x80 | opcode::CLOSE, &code.to_be_bytes())
            .await;
    }

    /// The next message; pings are answered on the way where `answers_pings` says so, and still told.
    pub async fn next(&mut self) -> Message {
        self.next_within(WAIT).await
    }

    pub async fn next_within(&mut self, wait: Duration) -> Message {
        loop {
            if let Some((first_byte, payload)) = self.take_frame() {
                if let Some(message) = self.message(first_byte, payload) {
                    if let (Message::Ping(payload), true) = (&message, self.answers_pings) {
                        let payload = payload.clone();
                        self.send_frame(0x80 | opcode::PONG, &payload).await;
                    }
                    return message;
                }
            } else if !self.raw.read_more(wait).await {
                return Message::End;
            }
        }
    }

    /// The next message that is neither ping nor pong.
    pub async fn next_text(&mut self) -> Message {
        loop {
            match self.next().await {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// Reads on until the server closes, and gives the code of its close frame.
    pub async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.next().await {
                Message::Close(code, _) => return Some(code),
                Message::End => return None,
                _ => {}
            }
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let bytes = &self.raw.received;
        let (first_byte, second_byte) = (*bytes.first()?, *bytes.get(1)?);
        assert_eq!(second_byte & 0x80, 0, "a server does not mask its frames");
        let (length, head) = match second_byte {
            126 => (
                usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
                4,
            ),
            127 => {
                let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap());
                (usize::try_from(length).expect("frames fit into memory"), 10)
            }
            short => (usize::from(short), 2),
        };
        let payload = bytes.get(head..head + length)?.to_vec();
        self.raw.received.drain(..head + length);
        Some((first_byte, payload))
    }

    fn message(&mut self, first_byte: u8, payload: Vec<u8>) -> Option<Message> {
        let is_deflated = first_byte & 0x40 != 0;
        assert!(
            !is_deflated || self.is_deflated,
            "deflated without having agreed on it"
        );
        assert_eq!(first_byte & 0x30, 0, "reserved bits are zero");
        match first_byte & 0x0f {
            opcode::PING => Some(Message::Ping(payload)),
            opcode::PONG => Some(Message::Pong(payload)),
            opcode::CLOSE => {
                let code = payload
                    .get(..2)
                    .map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                let reason = payload.get(2..).unwrap_or_default();
                Some(Message::Close(
                    code,
                    String::from_utf8(reason.to_vec()).expect("UTF-8"),
                ))
            }
            opcode @ (opcode::TEXT | opcode::CONTINUATION) => {
                if opcode == opcode::TEXT {
                    assert!(self.fragments.is_empty(), "a message inside another");
                    self.is_fragment_deflated = is_deflated;
                }
                self.fragments.extend(payload);
                (first_byte & 0x80 != 0).then(|| self.whole_text())
            }
            other => panic!("a frame with opcode {other}"),
        }
    }

    fn whole_text(&mut self) -> Message {
        let bytes = std::mem::take(&mut self.fragments);
        let bytes = if self.is_fragment_deflated {
            inflate(bytes)
        } else {
            bytes
        };
        Message::Text(String::from_utf8(bytes).expect("text messages are UTF-8"))
    }
}

/// One masked frame as a client sends it.
pub fn encode_frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first_byte];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// Inflates one message of a server that keeps no context from message to message.
fn inflate(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend([0, 0, 0xff, 0xff]);
    // A final empty block, so that the decoder meets an end.
    bytes.extend([1, 0, 0, 0xff, 0xff]);
    let mut plain = Vec::new();
    DeflateDecoder::new(bytes.as_slice())
        .read_to_end(&mut plain)
        .expect("valid deflate");
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_rfc_6455() {
        // Section 5.7: a single-frame masked text message that contains "Hello".
        let expected = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        assert_eq!(encode_frame(0x81, b"Hello"), expected);
        assert_eq!(encode_frame(0x82, &[0; 256])[..4], [0x82, 0xfe, 1, 0]);
        assert_eq!(
            encode_frame(0x82, &[0; 65536])[..10],
            [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]
        );
    }

    #[test]
    fn inflating_is_that_of_rfc_7692() {
        // Section 7.2.3.1: "Hello" compressed.
        let bytes = vec![0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(bytes), b"Hello");
    }
}

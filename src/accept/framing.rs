//! Finds requests on an HTTP/1.1 connection that tell their length twice, by `Content-Length` and by chunks.
//!
//! A proxy that goes by the one and a server that goes by the other see different requests in the same bytes. RFC 9112,
//! section 6.3, lets a server refuse such a message; hyper drops the length before a service can see it, so the bytes
//! are followed here, beside hyper, from head to head. Promises: a request in chunks is clear only where this file read
//! its head whole and found no length in it; nothing is kept but the beginning of one line. What comes after an upgrade
//! is read as if it were HTTP, which harms nothing: no request is served any more.

use std::mem;
use std::sync::Arc;

use memchr::memchr;
use parking_lot::Mutex;
use smallvec::SmallVec;

/// `Content-Length: ` and the digits of the largest length, with white space to spare.
const LINE_BYTES_MAX: usize = 56;
/// Behind the bytes of a chunk.
const LINE_END_BYTES: u64 = 2;

/// Follows one connection; clones follow the same one.
#[derive(Debug, Clone, Default)]
pub struct Framing(Arc<Mutex<Followed>>);

impl Framing {
    /// Takes the next bytes that the peer sent.
    pub fn follow(&self, bytes: &[u8]) {
        self.0.lock().follow(bytes);
    }

    /// Whether the request that came as the `number`th, from 1, does not tell a length. Asked of requests in chunks.
    pub fn is_clear(&self, number: u64) -> bool {
        let followed = self.0.lock();
        number <= followed.heads && followed.ambiguous.is_none_or(|first| number < first)
    }
}

#[derive(Debug, Default)]
struct Followed {
    at: At,
    /// Heads that have ended, and the first of them that is ambiguous.
    heads: u64,
    ambiguous: Option<u64>,
    head: Head,
    /// The beginning of the line that has not ended.
    line: SmallVec<[u8; LINE_BYTES_MAX]>,
}

/// What the next byte belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Head,
    /// A body of which so many bytes are left.
    Body(u64),
    ChunkSize,
    /// A chunk of which so many bytes are left, with the end of its line.
    Chunk(u64),
    Trailer,
    /// Nothing that is understood.
    Lost,
}

#[derive(Debug, Default)]
struct Head {
    has_begun: bool,
    length: Option<u64>,
    is_chunked: bool,
}

impl Followed {
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.at {
                At::Lost => return,
                At::Body(left) => {
                    let left = skip(&mut bytes, left);
                    self.at = if left > 0 { At::Body(left) } else { At::Head };
                }
                At::Chunk(left) => {
                    let left = skip(&mut bytes, left);
                    self.at = if left > 0 {
                        At::Chunk(left)
                    } else {
                        At::ChunkSize
                    };
                }
                At::Head | At::ChunkSize | At::Trailer => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        return self.keep(bytes);
                    };
                    let part = &bytes[..end];
                    bytes = &bytes[end + 1..];
                    // Nearly all lines come whole.
                    if self.line.is_empty() {
                        self.line_ended(&part[..end.min(LINE_BYTES_MAX)]);
                    } else {
                        self.keep(part);
                        let line = mem::take(&mut self.line);
                        self.line_ended(&line);
                    }
                }
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        let kept = part.len().min(LINE_BYTES_MAX - self.line.len());
        self.line.extend_from_slice(&part[..kept]);
    }

    fn line_ended(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.at = match self.at {
            At::ChunkSize => match chunk_size(line) {
                Some(0) => At::Trailer,
                Some(size) => At::Chunk(size.saturating_add(LINE_END_BYTES)),
                None => At::Lost,
            },
            At::Trailer if line.is_empty() => At::Head,
            At::Head if !line.is_empty() => {
                self.head.take(line);
                At::Head
            }
            // Empty lines before a request are none of it (RFC 9112, section 2.2).
            At::Head if self.head.has_begun => self.head_ended(),
            at => at,
        };
    }

    fn head_ended(&mut self) -> At {
        self.heads += 1;
        match mem::take(&mut self.head) {
            Head {
                length: Some(_),
                is_chunked: true,
                ..
            } => {
                // hyper serves nothing after it, for its answer closes the connection.
                self.ambiguous = Some(self.heads);
                At::Lost
            }
            Head {
                is_chunked: true, ..
            } => At::ChunkSize,
            Head {
                length: Some(length @ 1..),
                ..
            } => At::Body(length),
            _ => At::Head,
        }
    }
}

impl Head {
    fn take(&mut self, line: &[u8]) {
        let is_field = mem::replace(&mut self.has_begun, true);
        let Some(colon) = memchr(b':', line).filter(|_| is_field) else {
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            // One that is no number, hyper refuses.
            let length = std::str::from_utf8(value).ok();
            self.length = Some(length.and_then(|text| text.parse().ok()).unwrap_or(0));
        }
    }
}

/// Skips so many bytes, and tells how many are still to come.
fn skip(bytes: &mut &[u8], left: u64) -> u64 {
    let skipped = left.min(bytes.len() as u64);
    *bytes = &bytes[skipped as usize..];
    left - skipped
}

/// The hexadecimal digits that a chunk begins with; what stands behind them says nothing about its size.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let digits = std::str::from_utf8(&line[..digits.count()]).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n12\r\n\
         GET / HTTP/1.1\r\n\r\n\r\n0\r\nContent-Length: 9\r\n\r\n";
    const MEASURED: &str =
        "POST / HTTP/1.1\r\nHost: x\r\nContent-length:22 \r\n\r\nTransfer-Encoding: x\r\n";
    const BARE: &str = "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const BOTH: &str = "POST / HTTP/1.1\r\nCONTENT-LENGTH: 5\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\n";

    fn followed(bytes: &[u8], cuts: &[usize]) -> Framing {
        let framing = Framing::default();
        let mut begin = 0;
        for &cut in cuts {
            let end = (begin + cut).min(bytes.len());
            framing.follow(&bytes[begin..end]);
            begin = end;
        }
        framing.follow(&bytes[begin..]);
        framing
    }

    #[test]
    fn a_head_that_has_not_come_is_not_clear() {
        let framing = followed(&CHUNKED.as_bytes()[..50], &[]);
        assert!(!framing.is_clear(1));
        framing.follow(&CHUNKED.as_bytes()[50..]);
        assert!(framing.is_clear(1) && !framing.is_clear(2));
    }

    #[test]
    fn what_is_not_followed_is_not_clear() {
        let lost = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n";
        let framing = followed(lost.as_bytes(), &[]);
        framing.follow(CHUNKED.as_bytes());
        assert!(framing.is_clear(1) && !framing.is_clear(2));
    }

    proptest! {
        #[test]
        fn ambiguous_heads_are_found_between_others_however_the_bytes_are_cut(
            before in prop::collection::vec(prop::sample::select(vec![CHUNKED, MEASURED, BARE]), 0..6),
            cuts in prop::collection::vec(1_usize..60, 0..40),
        ) {
            let number = before.len() as u64 + 1;
            let whole = before.concat() + BOTH + CHUNKED;
            let framing = followed(whole.as_bytes(), &cuts);
            for clear in 1..number {
                prop_assert!(framing.is_clear(clear));
            }
            prop_assert!(!framing.is_clear(number) && !framing.is_clear(number + 1));
        }

        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(1_usize..60, 0..9)) {
            followed(&bytes, &cuts);
        }
    }
}

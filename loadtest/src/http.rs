//! HTTP/1.1 answers, taken apart as they come: head, pieces of the body, end.
//!
//! Promises: bodies with a length, in chunks, or up to the end of the connection are cut right wherever reads split
//! them; nothing is copied that lies whole in the input. It knows no more of HTTP than servers on this machine say.

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;

const HEAD_BYTES_MAX: usize = 16 * 1024;
const LINE_BYTES_MAX: usize = 1024;

#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    Head { status: u16, head: &'a [u8] },
    Body(&'a [u8]),
    End,
}

#[derive(Clone, Copy)]
enum Stage {
    Head,
    Fixed(u64),
    ChunkLine,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    /// Up to the end of the connection; after a 101, what another protocol says.
    Open,
}

/// Keeps the beginning of a head, line or frame that a read split.
#[derive(Default)]
pub struct Carry {
    bytes: Vec<u8>,
    is_spent: bool,
}

impl Carry {
    /// What stands before `mark`, without it. None: not all of it is here yet; what is here is kept.
    pub fn until<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        mark: &[u8],
        bytes_max: usize,
    ) -> Result<Option<&'s [u8]>> {
        if std::mem::take(&mut self.is_spent) {
            self.bytes.clear();
        }
        let whole: &'i [u8] = input;
        if self.bytes.is_empty()
            && let Some(end) = memmem::find(whole, mark)
        {
            *input = &whole[end + mark.len()..];
            return Ok(Some(&whole[..end]));
        }
        let before = self.bytes.len();
        self.bytes.extend_from_slice(whole);
        let from = before.saturating_sub(mark.len() - 1);
        let Some(found) = memmem::find(&self.bytes[from..], mark) else {
            ensure!(self.bytes.len() <= bytes_max, "something that does not end");
            *input = &[];
            return Ok(None);
        };
        let end = from + found;
        *input = &whole[end + mark.len() - before..];
        self.is_spent = true;
        Ok(Some(&self.bytes[..end]))
    }
}

pub struct Decoder {
    stage: Stage,
    carry: Carry,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            stage: Stage::Head,
            carry: Carry::default(),
        }
    }
}

impl Decoder {
    /// The next part, if `input` holds one; `input` is moved past what was taken.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Part<'s>>> {
        loop {
            match self.stage {
                Stage::Fixed(0) => {
                    self.stage = Stage::Head;
                    return Ok(Some(Part::End));
                }
                _ if input.is_empty() => return Ok(None),
                Stage::Head => return self.head(input),
                Stage::Fixed(left) => {
                    let body = take(input, left);
                    self.stage = Stage::Fixed(left - body.len() as u64);
                    return Ok(Some(Part::Body(body)));
                }
                Stage::Chunk(left) => {
                    let body = take(input, left);
                    self.stage = match left - body.len() as u64 {
                        0 => Stage::ChunkEnd,
                        left => Stage::Chunk(left),
                    };
                    return Ok(Some(Part::Body(body)));
                }
                Stage::Open => return Ok(Some(Part::Body(std::mem::take(input)))),
                stage @ (Stage::ChunkLine | Stage::ChunkEnd | Stage::Trailer) => {
                    let Some(line) = self.carry.until(input, b"\r\n", LINE_BYTES_MAX)? else {
                        return Ok(None);
                    };
                    self.stage = after_line(stage, line)?;
                }
            }
        }
    }

    fn head<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Part<'s>>> {
        let Some(head) = self.carry.until(input, b"\r\n\r\n", HEAD_BYTES_MAX)? else {
            return Ok(None);
        };
        let status = status(head)?;
        self.stage = body_stage(status, head)?;
        Ok(Some(Part::Head { status, head }))
    }
}

fn take<'i>(input: &mut &'i [u8], bytes_max: u64) -> &'i [u8] {
    let (taken, rest) = input.split_at(input.len().min(bytes_max as usize));
    *input = rest;
    taken
}

fn after_line(stage: Stage, line: &[u8]) -> Result<Stage> {
    Ok(match stage {
        Stage::ChunkLine => match chunk_bytes(line)? {
            0 => Stage::Trailer,
            bytes => Stage::Chunk(bytes),
        },
        Stage::ChunkEnd if line.is_empty() => Stage::ChunkLine,
        Stage::Trailer if line.is_empty() => Stage::Fixed(0),
        Stage::Trailer => Stage::Trailer,
        _ => bail!("a chunk is longer than it said"),
    })
}

fn chunk_bytes(line: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(line).context("a chunk's line is not text")?;
    let digits = text.split(';').next().unwrap_or("").trim();
    u64::from_str_radix(digits, 16).with_context(|| format!("no chunk begins with {text:?}"))
}

fn status(head: &[u8]) -> Result<u16> {
    let code = head
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    code.and_then(|code| std::str::from_utf8(code).ok()?.parse().ok())
        .with_context(|| format!("not an HTTP/1.1 answer: {}", String::from_utf8_lossy(head)))
}

fn body_stage(status: u16, head: &[u8]) -> Result<Stage> {
    if status == 101 {
        return Ok(Stage::Open);
    }
    if status == 204 || status == 304 {
        return Ok(Stage::Fixed(0));
    }
    if let Some(length) = header(head, "content-length") {
        let length = length.parse().context("a content-length is no number")?;
        return Ok(Stage::Fixed(length));
    }
    match header(head, "transfer-encoding") {
        Some(_) => Ok(Stage::ChunkLine),
        None => Ok(Stage::Open),
    }
}

/// A header of a head, by its name in lower case.
pub fn header<'h>(head: &'h [u8], name: &str) -> Option<&'h str> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (own, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        let is_it = own.eq_ignore_ascii_case(name.as_bytes());
        is_it.then(|| std::str::from_utf8(value).ok().map(str::trim))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the decoder says of an input that arrives in pieces of one size.
    fn parts(input: &[u8], piece_bytes: usize) -> Result<Vec<String>> {
        let mut decoder = Decoder::default();
        let mut parts = vec![];
        let mut body = String::new();
        for mut piece in input.chunks(piece_bytes) {
            while let Some(part) = decoder.next(&mut piece)? {
                match part {
                    Part::Head { status, .. } => parts.push(format!("head {status}")),
                    Part::Body(bytes) => body.push_str(std::str::from_utf8(bytes)?),
                    Part::End => parts.push(format!("end of {:?}", std::mem::take(&mut body))),
                }
            }
        }
        if !body.is_empty() {
            parts.push(format!("open {body:?}"));
        }
        Ok(parts)
    }

    #[track_caller]
    fn check(input: &str, expected: &[&str]) {
        for piece_bytes in [1, 2, 3, 7, 16, 1000] {
            let found = parts(input.as_bytes(), piece_bytes).unwrap();
            assert_eq!(found, expected, "in pieces of {piece_bytes}");
        }
    }

    #[test]
    fn answers_are_cut_right_wherever_reads_split_them() {
        check(
            "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 204 No Content\r\n\r\n",
            &["head 201", "end of \"hello\"", "head 204", "end of \"\""],
        );
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n",
            &["head 200", "end of \"hello0123456789\""],
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n",
            &["head 200", "open \": hi\\n\\n\""],
        );
    }

    #[test]
    fn what_is_not_http_is_refused() {
        assert!(parts(b"SSH-2.0-OpenSSH\r\n\r\n", 100).is_err());
        assert!(
            parts(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n",
                100
            )
            .is_err()
        );
        assert!(parts(&[b'x'; HEAD_BYTES_MAX + 1], 1000).is_err());
    }

    #[test]
    fn headers_are_found_in_any_case() {
        let head = b"HTTP/1.1 200 OK\r\nEtag: 7\r\nLast-Modified:  Sat, 21 Nov 2026 14:32:52 GMT";
        assert_eq!(header(head, "etag"), Some("7"));
        assert_eq!(
            header(head, "last-modified"),
            Some("Sat, 21 Nov 2026 14:32:52 GMT")
        );
        assert_eq!(header(head, "content-length"), None);
    }
}

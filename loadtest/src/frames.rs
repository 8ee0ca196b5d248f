//! Server-sent events, taken apart frame by frame, and the fields of JSON that readers need, found without parsing it.
//!
//! Promises: frames are cut right wherever reads split them; a frame whose `id` line is not its last is told apart, for
//! cut in the middle it would lose its event. It holds nothing but the frame that is not whole yet.

use anyhow::Result;
use memchr::memmem;

use crate::http::Carry;

const FRAME_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Frame<'a> {
    pub name: Option<&'a str>,
    pub data: Option<&'a [u8]>,
    pub id: Option<&'a str>,
    /// Whether the id line came last: only then a frame that was cut loses nothing.
    pub is_id_last: bool,
}

#[derive(Default)]
pub struct Splitter {
    carry: Carry,
}

impl Splitter {
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'s>>> {
        if input.is_empty() {
            return Ok(None);
        }
        let bytes = self.carry.until(input, b"\n\n", FRAME_BYTES_MAX)?;
        Ok(bytes.map(frame))
    }
}

/// The frames of a body that is all there.
pub fn whole(body: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let end = memmem::find(rest, b"\n\n")?;
        let bytes = &rest[..end];
        rest = &rest[end + 2..];
        Some(frame(bytes))
    })
}

/// Our peers write one `data` line; of several the last would count.
fn frame(bytes: &[u8]) -> Frame<'_> {
    let mut frame = Frame {
        is_id_last: true,
        ..Frame::default()
    };
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some(data) = line.strip_prefix(b"data: ") {
            frame.data = Some(data);
            frame.is_id_last = frame.id.is_none();
        } else if let Some(id) = line.strip_prefix(b"id: ") {
            frame.id = std::str::from_utf8(id).ok();
        } else if let Some(name) = line.strip_prefix(b"event: ") {
            frame.name = std::str::from_utf8(name).ok();
        }
    }
    frame
}

/// The text of a string field, the first of that name. Texts with escapes are cut at the first quote.
pub fn text<'j>(json: &'j [u8], field: &str) -> Option<&'j str> {
    let key = format!("\"{field}\":\"");
    let begin = memmem::find(json, key.as_bytes())? + key.len();
    let length = memchr::memchr(b'"', &json[begin..])?;
    std::str::from_utf8(&json[begin..begin + length]).ok()
}

/// Every number that follows `"seq":`, in order.
pub fn seqs(json: &[u8]) -> impl Iterator<Item = u64> {
    const KEY: &[u8] = b"\"seq\":";
    memmem::find_iter(json, KEY).filter_map(|at| {
        let digits = json[at + KEY.len()..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        let count = digits.count();
        let digits = &json[at + KEY.len()..at + KEY.len() + count];
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_right_wherever_reads_split_them() {
        let stream = ": hi\n\nretry: 3740\nevent: live\ndata: {}\nid: a-7\n\ndata: {\"v\":1}\nid: a-8\n\nid: 1:0\ndata: x\n\ndata: {\"ephemeral\":true}\n\n";
        for piece_bytes in [1, 2, 5, 17, 1000] {
            let mut splitter = Splitter::default();
            let mut found = Vec::new();
            for mut piece in stream.as_bytes().chunks(piece_bytes) {
                while let Some(frame) = splitter.next(&mut piece).unwrap() {
                    let data = frame
                        .data
                        .map(|data| String::from_utf8(data.to_vec()).unwrap());
                    let parts = (
                        frame.name.map(str::to_owned),
                        data,
                        frame.id.map(str::to_owned),
                    );
                    found.push((parts, frame.is_id_last));
                }
            }
            let expected = [
                (None, None, None, true),
                (Some("live"), Some("{}"), Some("a-7"), true),
                (None, Some("{\"v\":1}"), Some("a-8"), true),
                (None, Some("x"), Some("1:0"), false),
                (None, Some("{\"ephemeral\":true}"), None, true),
            ]
            .map(|(name, data, id, last)| {
                let own = |text: Option<&str>| text.map(str::to_owned);
                ((own(name), own(data), own(id)), last)
            });
            assert_eq!(found, expected, "in pieces of {piece_bytes}");
        }
    }

    #[test]
    fn fields_are_found_without_parsing() {
        let json = br#"{"seq":41,"cursor":"ab-41","results":[{"seq":42},{"seq":null},{"seq":7}]}"#;
        assert_eq!(text(json, "cursor"), Some("ab-41"));
        assert_eq!(text(json, "head"), None);
        assert_eq!(seqs(json).collect::<Vec<_>>(), [41, 42, 7]);
    }
}

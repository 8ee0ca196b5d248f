//! The mark that every published event carries: whose run, which track, its number there, and when it was due.
//!
//! Promises: an event is recognised by its bytes alone, whatever a server wraps around it; `find` tells a whole mark
//! from a damaged one; the filling behind the mark is checked too. It never looks at the wire format.

use std::fmt::Write;

use memchr::memmem;

const BEGIN: &[u8] = b"~lt~";
/// Longest mark: four numbers, three dots, both ends.
const BYTES_MAX: usize = 64;

/// A track is what one publish reaches: a topic or a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub run: u32,
    pub track: u32,
    pub number: u32,
    /// When the plan wanted it sent, in nanoseconds since the tool began: late sending counts as latency.
    pub due_ns: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Damaged,
    Whole(Mark),
}

impl Mark {
    /// The mark and its filling, `bytes` long in all where that is more than the mark needs.
    pub fn text(&self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes.max(BYTES_MAX));
        write!(
            text,
            "~lt~{:x}.{}.{}.{}~",
            self.run, self.track, self.number, self.due_ns
        )
        .expect("a String takes what is written");
        while text.len() < bytes {
            text.push(self.filling() as char);
        }
        text
    }

    fn filling(&self) -> u8 {
        b'a' + (self.number % 26) as u8
    }

    /// The mark in `data`, if its filling brings it to `bytes`.
    pub fn find(data: &[u8], bytes: usize) -> Found {
        let Some(begin) = memmem::find(data, BEGIN) else {
            return Found::Nothing;
        };
        let rest = &data[begin + BEGIN.len()..];
        let Some(length) = memchr::memchr(b'~', &rest[..rest.len().min(BYTES_MAX)]) else {
            return Found::Damaged;
        };
        let Some(mark) = Mark::parse(&rest[..length]) else {
            return Found::Damaged;
        };
        let filling = bytes.saturating_sub(BEGIN.len() + length + 1);
        let behind = &rest[length + 1..];
        let is_filled = behind.len() >= filling
            && behind[..filling].iter().all(|byte| *byte == mark.filling())
            && behind.get(filling) != Some(&mark.filling());
        if is_filled {
            Found::Whole(mark)
        } else {
            Found::Damaged
        }
    }

    fn parse(inner: &[u8]) -> Option<Mark> {
        let mut parts = std::str::from_utf8(inner).ok()?.split('.');
        let mark = Mark {
            run: u32::from_str_radix(parts.next()?, 16).ok()?,
            track: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
            due_ns: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark {
        run: 0xbeef,
        track: 7,
        number: 27,
        due_ns: 123_456_789,
    };

    #[test]
    fn a_mark_is_found_in_whatever_surrounds_it() {
        let text = MARK.text(100);
        assert_eq!(text.len(), 100);
        let wrapped = format!("{{\"data\":{{\"text\":\"{text}\"}}}}");
        assert_eq!(Mark::find(wrapped.as_bytes(), 100), Found::Whole(MARK));
        assert_eq!(Mark::find(text.as_bytes(), 100), Found::Whole(MARK));
        assert_eq!(Mark::find(b"{\"type\":\"sys.ping\"}", 100), Found::Nothing);
    }

    #[test]
    fn damage_is_seen_wherever_it_is() {
        let text = MARK.text(100);
        for (what, damaged) in [
            ("cut in the filling", text[..99].to_owned()),
            ("cut in the mark", text[..12].to_owned()),
            ("another number", text.replacen(".27.", ".28.", 1)),
            ("no number", text.replacen(".27.", ".x.", 1)),
            ("too many parts", text.replacen(".27.", ".27.1.", 1)),
            ("too long", format!("{text}b")),
            ("another letter", text.replacen("bbb", "bab", 1)),
        ] {
            assert_eq!(
                Mark::find(damaged.as_bytes(), 100),
                Found::Damaged,
                "{what}"
            );
        }
    }
}

//! Where a reader starts: the text of a position, and what it may be.
//!
//! Promises: any text is read, what makes no sense becomes `Malformed` and is told back shortened; nothing longer than
//! a position is ever looked at.

use std::str::FromStr;

use crate::clock::{UnixMs, parse_time};
use crate::id::{Position, parse_seq};

/// Where a reader wants to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// After a position of a named epoch.
    After(Position),
    /// After a seq of the present epoch.
    AfterSeq(u64),
    /// At the oldest retained event.
    Oldest,
    /// After the newest event.
    Now,
    /// At the newest events, this many.
    Last(u64),
    /// At the first retained event at or after a time.
    Since(UnixMs),
    /// The text is none of these.
    Malformed(String),
}

impl FromStr for Start {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Start, Self::Err> {
        Ok(match text {
            "start" => Start::Oldest,
            "now" => Start::Now,
            _ => parse_place(text).unwrap_or_else(|| Start::Malformed(shortened(text))),
        })
    }
}

fn parse_place(text: &str) -> Option<Start> {
    if let Ok(position) = text.parse() {
        return Some(Start::After(position));
    }
    if let Some(count) = text.strip_prefix('-') {
        return parse_seq(count)
            .ok()
            .filter(|count| *count > 0)
            .map(Start::Last);
    }
    parse_seq(text).ok().map(Start::AfterSeq)
}

impl Start {
    /// The value of `since`: RFC 3339 or Unix milliseconds.
    pub fn since(text: &str) -> Start {
        parse_time(text).map_or_else(|| Start::Malformed(shortened(text)), Start::Since)
    }
}

/// What a malformed position is told back as: enough to recognise it, never a page of it.
fn shortened(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_read_or_malformed() {
        let start = |text: &str| text.parse::<Start>().unwrap();
        assert_eq!(start("start"), Start::Oldest);
        assert_eq!(start("now"), Start::Now);
        assert_eq!(start("42"), Start::AfterSeq(42));
        assert_eq!(start("0"), Start::AfterSeq(0));
        assert_eq!(start("-20"), Start::Last(20));
        assert!(matches!(
            start("q7m2kd-42"),
            Start::After(Position { seq: 42, .. })
        ));
        for bad in [
            "-0",
            "+5",
            "007",
            "1e3",
            "0x1",
            "NaN",
            "--1",
            "-",
            "END",
            "18446744073709551616",
            "q7m2kd-",
        ] {
            assert_eq!(start(bad), Start::Malformed(bad.to_owned()), "{bad:?}");
        }
        assert_eq!(start(&"9".repeat(10_000)), Start::Malformed("9".repeat(64)));
        assert_eq!(Start::since("1970-01-01T00:00:01Z"), Start::Since(1_000));
        assert_eq!(Start::since("soon"), Start::Malformed("soon".to_owned()));
    }
}

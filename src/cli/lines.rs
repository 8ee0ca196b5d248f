//! Bytes that come in pieces, taken apart into lines.
//!
//! Promises: the same lines come out however the bytes were cut, each without its line end (LF or CRLF), and no more
//! is kept than one unfinished line and the last piece.

/// Bytes of one line: the greatest event that a server can be configured for, and its envelope.
pub const LINE_BYTES_MAX: usize = 17 * 1024 * 1024;

#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Where the first line begins that was not taken yet.
    start: usize,
    /// Up to where no line end was found.
    searched: usize,
}

impl Lines {
    pub fn feed(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(piece);
    }

    /// The next whole line.
    pub fn next_line(&mut self) -> Option<&[u8]> {
        let found = self.bytes[self.searched..]
            .iter()
            .position(|&byte| byte == b'\n');
        let Some(length) = found else {
            self.searched = self.bytes.len();
            return None;
        };
        let end = self.searched + length;
        let line = &self.bytes[self.start..end];
        self.start = end + 1;
        self.searched = self.start;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// What is left when no more comes: a last line without an end.
    pub fn rest(&mut self) -> Option<&[u8]> {
        let line = &self.bytes[self.start..];
        self.start = self.bytes.len();
        self.searched = self.start;
        (!line.is_empty()).then(|| line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// The unfinished line is already longer than any line may be.
    pub fn is_too_long(&self) -> bool {
        self.bytes.len() - self.start > LINE_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for piece in pieces {
            lines.feed(piece);
            while let Some(line) = lines.next_line() {
                all.push(line.to_vec());
            }
        }
        all.extend(lines.rest().map(<[u8]>::to_vec));
        all
    }

    #[test]
    fn line_ends_are_taken_off() {
        assert_eq!(all(&[b"a\nb\r\n\n", b"c"]), [&b"a"[..], b"b", b"", b"c"]);
        assert!(all(&[b""]).is_empty());
    }

    #[test]
    fn a_line_without_end_is_noticed() {
        let mut lines = Lines::default();
        lines.feed(b"x\n");
        lines.feed(&vec![b'x'; LINE_BYTES_MAX]);
        assert!(lines.next_line().is_some());
        assert!(!lines.is_too_long());
        lines.feed(b"x");
        assert!(lines.next_line().is_none() && lines.is_too_long());
    }

    proptest! {
        #[test]
        fn the_cut_makes_no_difference(text in "[ab\r\n]{0,60}", cuts in prop::collection::vec(0_usize..60, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(all(&pieces), all(&[text.as_bytes()]));
        }
    }
}

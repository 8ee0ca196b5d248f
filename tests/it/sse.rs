//! A strict reader of server-sent events that keeps the raw bytes.
//!
//! `Parser` follows the line rules of WHATWG HTML (CR, LF and CRLF end a line, a blank line ends a frame) and keeps
//! each frame as it came. `Frame::check` holds what PROTOCOL.md section 3.1 adds: `id:` is the last line and never
//! empty, every frame has one line of data, ephemeral frames have no id. It never forgives: what it does not know, it
//! refuses.

use serde_json::Value;

/// One frame: its bytes with the blank line, and its fields in the order in which they came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub raw: String,
    pub fields: Vec<(String, String)>,
}

/// Cuts a byte stream into frames, however the bytes were cut on the way.
#[derive(Default)]
pub struct Parser {
    bytes: Vec<u8>,
    /// How far `bytes` was searched for the end of a frame.
    searched: usize,
}

impl Parser {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has arrived.
    pub fn next_frame(&mut self) -> Option<Frame> {
        let mut line_start = 0;
        let mut position = self.searched;
        if position > 0 {
            line_start = self.bytes[..position]
                .iter()
                .rposition(|byte| matches!(byte, b'\n' | b'\r'))
                .map_or(0, |end| end + 1);
        }
        while let Some((line_end, next_line)) = line_end(&self.bytes, position) {
            if line_end == line_start {
                let raw: Vec<u8> = self.bytes.drain(..next_line).collect();
                self.searched = 0;
                return Some(Frame::of(raw));
            }
            line_start = next_line;
            position = next_line;
        }
        self.searched = line_start;
        None
    }
}

/// Where the line that goes on at `from` ends, and where the next one begins. A CR at the very end may be half of a
/// CRLF, so it does not end a line yet.
fn line_end(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let end = from
        + bytes
            .get(from..)?
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'))?;
    match (bytes[end], bytes.get(end + 1)) {
        (b'\r', None) => None,
        (b'\r', Some(b'\n')) => Some((end, end + 2)),
        _ => Some((end, end + 1)),
    }
}

impl Frame {
    fn of(raw: Vec<u8>) -> Frame {
        let raw = String::from_utf8(raw).expect("an event stream is UTF-8");
        let mut fields = Vec::new();
        let mut position = 0;
        while let Some((end, next)) = line_end(raw.as_bytes(), position) {
            let line = &raw[position..end];
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            if !line.is_empty() {
                fields.push((
                    name.to_owned(),
                    value.strip_prefix(' ').unwrap_or(value).to_owned(),
                ));
            }
            position = next;
        }
        Frame { raw, fields }
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name);
        values.next().map(|(_, value)| value.as_str())
    }

    pub fn event(&self) -> Option<&str> {
        self.field("event")
    }

    pub fn id(&self) -> Option<&str> {
        self.field("id")
    }

    pub fn retry(&self) -> Option<u64> {
        self.field("retry")
            .map(|retry| retry.parse().expect("retry is a number"))
    }

    #[track_caller]
    pub fn data(&self) -> Value {
        let data = self
            .field("data")
            .unwrap_or_else(|| panic!("no data: {:?}", self.raw));
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {:?}", self.raw))
    }

    /// What PROTOCOL.md asks of each frame by itself.
    #[track_caller]
    pub fn check(&self) {
        let raw = &self.raw;
        assert!(
            !raw.contains(['\r', '\0']) && !raw.starts_with('\u{feff}'),
            "CR, NUL, or a BOM at the start, in {raw:?}"
        );
        for line in raw.lines().filter(|line| !line.is_empty()) {
            let name = line.split(": ").next().unwrap_or("");
            let is_known = ["event", "data", "id", "retry"].contains(&name);
            assert!(is_known, "a line that no one needs: {line:?}");
        }
        for name in ["event", "data", "id", "retry"] {
            let count = self
                .fields
                .iter()
                .filter(|(field, _)| field == name)
                .count();
            assert!(count <= 1, "{name} stands {count} times in {raw:?}");
        }
        let data = self.data();
        if let Some(id) = self.id() {
            assert!(is_cursor(id), "the id {id:?} is no cursor in {raw:?}");
            let last = self.fields.last().map(|(name, _)| name.as_str());
            assert_eq!(
                last,
                Some("id"),
                "id is the last line of its frame: {raw:?}"
            );
        }
        assert_ne!(self.retry(), Some(0), "{raw:?}");
        let must_have_id = match self.event() {
            Some("ready" | "live" | "reset" | "snapshot") => Some(true),
            Some("bye" | "error" | "auth") => Some(false),
            Some("ping") => None,
            _ => Some(data["ephemeral"] != true),
        };
        if let Some(must_have_id) = must_have_id {
            assert_eq!(self.id().is_some(), must_have_id, "the id line of {raw:?}");
        }
    }
}

/// `<epoch>-<seq>`: six of `[a-z0-9]`, a dash, a number without leading zeros.
pub fn is_cursor(text: &str) -> bool {
    let Some((epoch, seq)) = text.split_once('-') else {
        return false;
    };
    let is_epoch = epoch.len() == 6
        && epoch
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_seq = seq
        .parse::<u64>()
        .is_ok_and(|number| number.to_string() == seq);
    is_epoch && is_seq
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8]) -> Vec<Vec<(String, String)>> {
        let mut parser = Parser::default();
        parser.feed(bytes);
        std::iter::from_fn(|| parser.next_frame())
            .map(|frame| frame.fields)
            .collect()
    }

    fn field(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn lines_end_as_html_says() {
        let expected = vec![
            vec![field("data", "a"), field("id", "1")],
            vec![field("data", "b")],
        ];
        for text in [
            "data: a\nid: 1\n\ndata: b\n\n",
            "data: a\r\nid: 1\r\n\r\ndata: b\r\n\r\n",
            "data: a\rid: 1\r\rdata: b\n\n",
            "data:a\nid:1\n\ndata:b\n\n",
        ] {
            assert_eq!(frames(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(frames(b"data:  two\n\n"), vec![vec![field("data", " two")]]);
        assert_eq!(frames(b"data\n\n"), vec![vec![field("data", "")]]);
        assert_eq!(frames(b": comment\n\n"), vec![vec![field("", "comment")]]);
    }

    #[test]
    fn bytes_may_be_cut_anywhere() {
        let text = "retry: 5\r\nevent: ready\ndata: {\"a\":\"ä\"}\nid: abcdef-1\n\ndata: 2\r\r\ndata: 3\n\n";
        let whole = frames(text.as_bytes());
        assert_eq!(whole.len(), 3);
        for cut in 0..=text.len() {
            let mut parser = Parser::default();
            let mut found = Vec::new();
            for half in [&text.as_bytes()[..cut], &text.as_bytes()[cut..]] {
                parser.feed(half);
                found.extend(std::iter::from_fn(|| parser.next_frame()));
            }
            let fields: Vec<_> = found.iter().map(|frame| frame.fields.clone()).collect();
            assert_eq!(fields, whole, "cut at {cut}");
            let raw: String = found.iter().map(|frame| frame.raw.as_str()).collect();
            assert_eq!(raw, text, "cut at {cut}");
        }
    }

    #[test]
    fn frames_that_break_the_contract_are_refused() {
        for bad in [
            "id: abcdef-1\ndata: {}\n\n",
            "data: {}\nid: \n\n",
            "data: {}\n\n",
            "id: abcdef-1\n\n",
            "data: {\ndata: }\nid: abcdef-1\n\n",
            "data: {\"ephemeral\":true}\nid: abcdef-1\n\n",
            "event: bye\ndata: {}\nid: abcdef-1\n\n",
            "event: ready\ndata: {}\n\n",
            "retry: 0\nevent: bye\ndata: {}\n\n",
            ": ping\n\n",
            "data: {}\nid: abcdef-01\n\n",
            "data: {}\nid: ABCDEF-1\n\n",
            "data:{}\nid: abcdef-1\n\n",
            "data: {}\r\nid: abcdef-1\r\n\r\n",
        ] {
            let mut parser = Parser::default();
            parser.feed(bad.as_bytes());
            let frame = parser.next_frame().unwrap();
            assert!(
                std::panic::catch_unwind(|| frame.check()).is_err(),
                "{bad:?} was taken"
            );
        }
        for good in [
            "data: {}\nid: abcdef-1\n\n",
            "data: {\"ephemeral\":true}\n\n",
            "event: ping\ndata: {}\n\n",
            "event: ping\ndata: {}\nid: a1b2c3-0\n\n",
            "retry: 1\nevent: bye\ndata: {}\n\n",
        ] {
            let mut parser = Parser::default();
            parser.feed(good.as_bytes());
            parser.next_frame().unwrap().check();
        }
    }
}

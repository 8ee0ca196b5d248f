//! A strict parser of server-sent events: bytes in, whole frames out.
//!
//! A frame counts only once its empty line has come, as in a browser: what a crash cut in two is dropped. It remembers
//! whether `id:` was the last line of its frame, because the protocol promises that.

#[derive(Debug, Default, PartialEq, Eq)]
pub struct SseFrame {
    pub event: Option<String>,
    pub data: Option<String>,
    pub id: Option<String>,
    /// False where a line followed the `id:` line.
    pub is_id_last: bool,
}

#[derive(Default)]
pub struct SseParser {
    rest: Vec<u8>,
    frame: SseFrame,
}

impl SseParser {
    /// Takes bytes as they come and gives the frames that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<SseFrame> {
        self.rest.extend_from_slice(bytes);
        let mut frames = Vec::new();
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[begin..begin + length]).into_owned();
            begin += length + 1;
            if line.is_empty() {
                frames.push(std::mem::take(&mut self.frame));
            } else {
                self.take_line(&line);
            }
        }
        self.rest.drain(..begin);
        frames
    }

    fn take_line(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        self.frame.is_id_last = field == "id";
        match field {
            "event" => self.frame.event = Some(value),
            "id" => self.frame.id = Some(value),
            "data" => match &mut self.frame.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                none => *none = Some(value),
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_counts_only_when_it_is_whole() {
        let mut parser = SseParser::default();
        assert_eq!(parser.push(b"data: {\"a\":1}\nid: e-1\n"), []);
        let frames = parser.push(b"\nid: e-2\ndata: x\n\nretry: 5");
        let first = SseFrame {
            data: Some("{\"a\":1}".into()),
            id: Some("e-1".into()),
            is_id_last: true,
            event: None,
        };
        let second = SseFrame {
            data: Some("x".into()),
            id: Some("e-2".into()),
            is_id_last: false,
            event: None,
        };
        assert_eq!(frames, [first, second]);
    }

    #[test]
    fn bytes_may_come_one_by_one() {
        let mut parser = SseParser::default();
        let frames: Vec<_> = b"event: live\ndata: 1\n\n"
            .iter()
            .flat_map(|byte| parser.push(&[*byte]))
            .collect();
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].event.as_deref(), Some("live"));
    }
}

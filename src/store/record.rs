//! The bytes of a record: one event's body, stored once, and the logs and seqs under which its recipients have it.
//!
//! Promises: what was encoded decodes to the same event and recipients; a record that misses a chunk is known as
//! damaged. The body stands before the recipients, so that a reader of one log need not load a long list of others.

use bytes::Bytes;

use crate::event::{ConnId, Event, NameLens};
use crate::id::UserNo;
use crate::store::engine::VALUE_BYTES_MAX;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 25;
/// An event's JSON begins with its id.
const BEFORE_ID: &str = "\"id\":\"";
/// A record is stored in pieces of this many bytes, one row each.
pub const CHUNK_BYTES: usize = VALUE_BYTES_MAX;

/// One log that holds the event, and its seq there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recipient {
    pub user: UserNo,
    pub seq: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record is damaged")]
pub struct Damaged;

/// What the first chunk tells of the whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub time_ms: u64,
    pub recipients: u32,
    lens: NameLens,
    conn_len: u8,
    json_len: u32,
    recipients_len: u32,
}

impl Header {
    pub fn read(first_chunk: &[u8]) -> Result<Header, Damaged> {
        let header: &[u8; HEADER_BYTES] = first_chunk.first_chunk().ok_or(Damaged)?;
        if header[0] != VERSION {
            return Err(Damaged);
        }
        let number = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        Ok(Header {
            time_ms: u64::from(number(5)) | u64::from(number(9)) << 32,
            recipients: number(13),
            lens: NameLens {
                id: header[1],
                event_type: header[2],
                topic: header[3],
            },
            conn_len: header[4],
            json_len: number(17),
            recipients_len: number(21),
        })
    }

    /// The event's id, as the record's first chunk has it.
    pub fn id(first_chunk: &[u8]) -> Option<&[u8]> {
        let header = Header::read(first_chunk).ok()?;
        let start = HEADER_BYTES + usize::from(header.conn_len) + BEFORE_ID.len();
        first_chunk.get(start..start + usize::from(header.lens.id))
    }

    /// Bytes from the start of the record to the end of the event's JSON.
    pub fn body_bytes(&self) -> usize {
        HEADER_BYTES + usize::from(self.conn_len) + self.json_len as usize
    }

    pub fn total_bytes(&self) -> usize {
        self.body_bytes() + self.recipients_len as usize
    }

    /// Rows that hold the first `bytes` of a record.
    pub fn chunks_of(bytes: usize) -> u16 {
        u16::try_from(bytes.div_ceil(CHUNK_BYTES))
            .expect("bodies and audiences are bounded far below 200 MB")
    }

    /// What the event counts against the retention of each log that holds it, in bytes.
    pub fn retained_bytes(&self) -> u64 {
        retained_bytes(self.json_len as usize)
    }
}

/// What an event of `json_bytes` counts against the retention of each log that holds it, in bytes.
pub fn retained_bytes(json_bytes: usize) -> u64 {
    (json_bytes + HEADER_BYTES) as u64
}

/// `recipients` must be sorted by user.
pub fn encode(event: &Event, recipients: &[Recipient]) -> Vec<u8> {
    let conn = event.exclude_conn.as_ref().map_or("", ConnId::as_str);
    let list = encode_recipients(recipients);
    let length = |bytes: usize| u32::try_from(bytes).expect("a record is bounded far below 4 GiB");
    let mut record =
        Vec::with_capacity(HEADER_BYTES + conn.len() + event.json().len() + list.len());
    let lens = event.lens();
    let conn_len = u8::try_from(conn.len()).expect("a connection id is at most 64 characters");
    record.extend_from_slice(&[VERSION, lens.id, lens.event_type, lens.topic, conn_len]);
    record.extend_from_slice(&event.time_ms.to_le_bytes());
    record.extend_from_slice(&length(recipients.len()).to_le_bytes());
    record.extend_from_slice(&length(event.json().len()).to_le_bytes());
    record.extend_from_slice(&length(list.len()).to_le_bytes());
    record.extend_from_slice(conn.as_bytes());
    record.extend_from_slice(event.json());
    record.extend_from_slice(&list);
    record
}

/// Reads the event from the first `Header::body_bytes` of a record.
pub fn decode_event(commit: u64, mut body: Vec<u8>) -> Result<Event, Damaged> {
    let header = Header::read(&body)?;
    if body.len() < header.body_bytes() {
        return Err(Damaged);
    }
    body.truncate(header.body_bytes());
    let json_start = HEADER_BYTES + usize::from(header.conn_len);
    let conn = std::str::from_utf8(&body[HEADER_BYTES..json_start]).map_err(|_| Damaged)?;
    let exclude_conn = match conn {
        "" => None,
        conn => Some(conn.parse().map_err(|_| Damaged)?),
    };
    let json = Bytes::from(body).slice(json_start..);
    Event::from_parts(commit, header.time_ms, exclude_conn, header.lens, json).ok_or(Damaged)
}

/// Reads the recipients from a whole record.
pub fn decode_recipients(record: &[u8]) -> Result<Vec<Recipient>, Damaged> {
    let header = Header::read(record)?;
    let mut list = record
        .get(header.body_bytes()..header.total_bytes())
        .ok_or(Damaged)?;
    let mut recipients = Vec::with_capacity((header.recipients as usize).min(list.len()));
    let mut user = 0;
    for _ in 0..header.recipients {
        user += read_varint(&mut list)?;
        recipients.push(Recipient {
            user: UserNo(u32::try_from(user).map_err(|_| Damaged)?),
            seq: read_varint(&mut list)?,
        });
    }
    match list.is_empty() {
        true => Ok(recipients),
        false => Err(Damaged),
    }
}

/// User numbers as differences, for they are sorted; then each one's seq.
fn encode_recipients(recipients: &[Recipient]) -> Vec<u8> {
    let mut list = Vec::with_capacity(recipients.len() * 4);
    let mut previous = 0;
    for recipient in recipients {
        assert!(
            recipient.user.0 >= previous,
            "recipients are sorted by user"
        );
        write_varint(&mut list, u64::from(recipient.user.0 - previous));
        write_varint(&mut list, recipient.seq);
        previous = recipient.user.0;
    }
    list
}

/// LEB128: seven bits a byte, the highest bit says that more follow.
pub fn write_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

pub fn read_varint(bytes: &mut &[u8]) -> Result<u64, Damaged> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Damaged)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Draft, Json};
    use proptest::prelude::*;

    fn event(data: &str, conn: Option<&str>) -> Event {
        let draft = Draft {
            id: "e1".parse().unwrap(),
            event_type: "message.new".parse().unwrap(),
            time_ms: 1_795_228_200_123,
            topic: Some("a:b".parse().unwrap()),
            actor: None,
            data: Json::of(&serde_json::Value::from(data)),
            exclude_conn: conn.map(|conn| conn.parse().unwrap()),
        };
        let mut event = Event::of(&draft);
        event.commit = 9;
        event
    }

    proptest! {
        #[test]
        fn records_round_trip(data in ".{0,5000}", users in prop::collection::btree_map(any::<u32>(), 1u64..1 << 53, 0..300)) {
            let recipients: Vec<Recipient> =
                users.into_iter().map(|(user, seq)| Recipient { user: UserNo(user), seq }).collect();
            let event = event(&data, Some("c1"));
            let record = encode(&event, &recipients);
            let header = Header::read(&record).unwrap();
            prop_assert_eq!(header.total_bytes(), record.len());
            prop_assert_eq!(Header::id(&record), Some(b"e1".as_slice()));
            prop_assert_eq!(decode_event(9, record[..header.body_bytes()].to_vec()), Ok(event));
            prop_assert_eq!(decode_recipients(&record), Ok(recipients));
        }

        #[test]
        fn any_bytes_decode_or_are_damaged(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let _ = (decode_event(1, bytes.clone()), Header::id(&bytes));
            let _ = decode_recipients(&bytes);
            let mut record = encode(&event("x", None), &[Recipient { user: UserNo(3), seq: 4 }]);
            record.truncate(cut.min(record.len() - 1));
            prop_assert!(decode_recipients(&record).is_err());
        }

        #[test]
        fn varints_round_trip(number: u64) {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, number);
            prop_assert_eq!(read_varint(&mut bytes.as_slice()), Ok(number));
        }
    }

    #[test]
    fn a_record_without_recipients_and_connection_is_a_record() {
        let event = event("x", None);
        let record = encode(&event, &[]);
        assert_eq!(decode_event(9, record.clone()), Ok(event));
        assert_eq!(decode_recipients(&record), Ok(vec![]));
    }
}

//! The file of a backup: every row and the secret in one run of bytes, from which a store can be made again.
//!
//! Promises: what `read` accepts is what `write` was given; a file that is cut, changed or longer than it was written
//! is refused with the place. Memory stays within one block, whatever the size. It never looks into a row beyond its
//! key, and knows nothing of directories.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::ControlFlow;

use crate::clock::UnixMs;
use crate::store::engine::{EngineError, Rows};
use crate::store::keys;
use crate::store::record::{Damaged, read_varint, write_varint};

const MAGIC: [u8; 8] = *b"tidings\n";
const VERSION: u32 = 1;
/// Magic, version, time and a checksum over them.
const HEAD_BYTES: usize = 24;
/// A block is written once it holds this much; one row more may follow.
const BLOCK_BYTES: usize = 256 << 10;
/// No block is longer; a length beyond it is damage and is never allocated.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Kind and length before a block, its checksum behind it.
const BLOCK_HEAD_BYTES: usize = 5;
const ROWS: u8 = b'r';
const SECRET: u8 = b's';
const END: u8 = b'z';
/// Behind all rows: the kinds of keys are letters.
const ROWS_END: &[u8] = &[0xff];

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it is no backup made by `tidings backup`")]
    Foreign,
    #[error(
        "it was written by a newer version of tidings (format {0}); restore it with that version"
    )]
    Newer(u32),
    #[error("it is cut short after {at} bytes; use another backup")]
    Cut { at: u64 },
    #[error("it is damaged between byte {from} and byte {to}; use another backup")]
    Damaged { from: u64, to: u64 },
    #[error("{0}")]
    Store(#[from] EngineError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub rows: u64,
    pub logs: u64,
    pub events: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

impl Counts {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        self.logs += u64::from(keys::parse_user(key).is_some());
        self.events += u64::from(keys::parse_record(key).is_some_and(|(_, chunk)| chunk == 0));
        self.bytes += (key.len() + value.len()) as u64;
    }

    fn encode(&self) -> Vec<u8> {
        let fields = [self.rows, self.logs, self.events, self.bytes];
        fields
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .collect()
    }
}

/// One thing that a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    Secret(&'a [u8]),
    Row { key: &'a [u8], value: &'a [u8] },
}

/// What is to be written.
pub struct Source<'a> {
    pub rows: &'a Rows,
    pub secret: Option<&'a [u8]>,
    pub time_ms: UnixMs,
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    /// Over everything since the head: a block that is moved or left out is noticed by the next one.
    sum: u32,
}

impl Writer<'_> {
    fn block(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        assert!(payload.len() <= BLOCK_BYTES_MAX, "a block is bounded");
        let length = u32::try_from(payload.len()).expect("bounded on the line above");
        let mut head = [kind; BLOCK_HEAD_BYTES];
        head[1..].copy_from_slice(&length.to_le_bytes());
        self.sum = crc32c::crc32c_append(crc32c::crc32c_append(self.sum, &head), payload);
        self.out.write_all(&head)?;
        self.out.write_all(payload)?;
        self.out.write_all(&self.sum.to_le_bytes())
    }
}

/// Writes all rows; `progress` hears of each block. Ends with an error at the first damaged row.
pub fn write(
    source: &Source<'_>,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(&Counts),
) -> Result<Counts, ArchiveError> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&source.time_ms.to_le_bytes());
    let sum = crc32c::crc32c(&head);
    head.extend_from_slice(&sum.to_le_bytes());
    out.write_all(&head)?;
    let mut writer = Writer { out, sum };
    if let Some(secret) = source.secret {
        writer.block(SECRET, secret)?;
    }
    let mut counts = Counts::default();
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut written = Ok(());
    source.rows.scan(&[], ROWS_END, &mut |key, value| {
        for part in [key, value] {
            write_varint(&mut block, part.len() as u64);
            block.extend_from_slice(part);
        }
        counts.add(key, value);
        if block.len() >= BLOCK_BYTES {
            written = writer.block(ROWS, &block);
            block.clear();
            progress(&counts);
        }
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    written?;
    if !block.is_empty() {
        writer.block(ROWS, &block)?;
    }
    writer.block(END, &counts.encode())?;
    progress(&counts);
    Ok(counts)
}

struct Reader<'a> {
    input: &'a mut dyn Read,
    /// Bytes read so far.
    at: u64,
    sum: u32,
}

impl Reader<'_> {
    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => return Err(ArchiveError::Cut { at: self.at }),
                Ok(count) => {
                    filled += count;
                    self.at += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Io(error)),
            }
        }
        Ok(())
    }

    fn head(&mut self) -> Result<(), ArchiveError> {
        let mut head = [0; HEAD_BYTES];
        match self.exact(&mut head) {
            Err(ArchiveError::Cut { at }) if !MAGIC.starts_with(&head[..8.min(at as usize)]) => {
                return Err(ArchiveError::Foreign);
            }
            result => result?,
        }
        if head[..8] != MAGIC {
            return Err(ArchiveError::Foreign);
        }
        let (fields, sum) = head.split_at(HEAD_BYTES - 4);
        self.sum = crc32c::crc32c(fields);
        if self.sum.to_le_bytes() != sum {
            return Err(ArchiveError::Damaged {
                from: 0,
                to: self.at,
            });
        }
        match u32::from_le_bytes([head[8], head[9], head[10], head[11]]) {
            VERSION => Ok(()),
            newer => Err(ArchiveError::Newer(newer)),
        }
    }

    /// Reads the next block into `payload` and gives its kind.
    fn block(&mut self, payload: &mut Vec<u8>) -> Result<u8, ArchiveError> {
        let from = self.at;
        let mut head = [0; BLOCK_HEAD_BYTES];
        self.exact(&mut head)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > BLOCK_BYTES_MAX {
            return Err(ArchiveError::Damaged { from, to: self.at });
        }
        payload.resize(length, 0);
        self.exact(payload)?;
        let mut sum = [0; 4];
        self.exact(&mut sum)?;
        self.sum = crc32c::crc32c_append(crc32c::crc32c_append(self.sum, &head), payload);
        match self.sum.to_le_bytes() == sum {
            true => Ok(head[0]),
            false => Err(ArchiveError::Damaged { from, to: self.at }),
        }
    }

    fn is_at_end(&mut self) -> Result<bool, ArchiveError> {
        match self.exact(&mut [0]) {
            Ok(()) => Ok(false),
            Err(ArchiveError::Cut { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Reads a backup. What `take` got counts only if this returns `Ok`: the end may be missing.
pub fn read(
    input: &mut dyn Read,
    take: &mut dyn FnMut(Piece<'_>) -> Result<(), ArchiveError>,
) -> Result<Counts, ArchiveError> {
    let mut reader = Reader {
        input,
        at: 0,
        sum: 0,
    };
    reader.head()?;
    let mut counts = Counts::default();
    let mut payload = Vec::new();
    loop {
        let from = reader.at;
        let kind = reader.block(&mut payload)?;
        let damaged = |to| ArchiveError::Damaged { from, to };
        match kind {
            ROWS => take_rows(&payload, &mut counts, take, || damaged(reader.at))?,
            SECRET => take(Piece::Secret(&payload))?,
            END if payload == counts.encode() => break,
            _ => return Err(damaged(reader.at)),
        }
    }
    let end = reader.at;
    match reader.is_at_end()? {
        true => Ok(counts),
        false => Err(ArchiveError::Damaged {
            from: end,
            to: reader.at,
        }),
    }
}

fn take_rows(
    mut payload: &[u8],
    counts: &mut Counts,
    take: &mut dyn FnMut(Piece<'_>) -> Result<(), ArchiveError>,
    damaged: impl Fn() -> ArchiveError,
) -> Result<(), ArchiveError> {
    while !payload.is_empty() {
        let key = take_part(&mut payload).map_err(|Damaged| damaged())?;
        let value = take_part(&mut payload).map_err(|Damaged| damaged())?;
        counts.add(key, value);
        take(Piece::Row { key, value })?;
    }
    Ok(())
}

fn take_part<'a>(payload: &mut &'a [u8]) -> Result<&'a [u8], Damaged> {
    let length = usize::try_from(read_varint(payload)?).map_err(|_| Damaged)?;
    let (part, rest) = payload.split_at_checked(length).ok_or(Damaged)?;
    *payload = rest;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UserNo;
    use crate::store::engine::Op;
    use crate::store::memory::Memory;
    use proptest::prelude::*;

    type Held = (Option<Vec<u8>>, Vec<(Vec<u8>, Vec<u8>)>);

    fn rows_of(pairs: &[(Vec<u8>, Vec<u8>)]) -> Rows {
        let rows = Rows::new(Box::new(Memory::default()));
        for (key, value) in pairs {
            rows.apply(vec![Op::Put(key.clone(), value.clone())])
                .unwrap();
        }
        rows
    }

    fn archive(rows: &Rows, secret: Option<&[u8]>) -> (Vec<u8>, Counts) {
        let mut file = Vec::new();
        let source = Source {
            rows,
            secret,
            time_ms: 1_795_228_200_123,
        };
        let counts = write(&source, &mut file, &mut |_| {}).unwrap();
        (file, counts)
    }

    fn held(mut file: &[u8]) -> Result<(Held, Counts), ArchiveError> {
        let mut held: Held = (None, Vec::new());
        let counts = read(&mut file, &mut |piece| {
            match piece {
                Piece::Secret(secret) => held.0 = Some(secret.to_vec()),
                Piece::Row { key, value } => held.1.push((key.to_vec(), value.to_vec())),
            }
            Ok(())
        })?;
        Ok((held, counts))
    }

    fn small() -> Vec<u8> {
        let pairs = [
            (keys::record(1, 0), b"first".to_vec()),
            (keys::record(1, 1), b"second".to_vec()),
            (keys::meta("generation"), vec![7; 8]),
            (keys::user(UserNo(0)), b"alice".to_vec()),
        ];
        archive(&rows_of(&pairs), Some(b"0123456789abcdef")).0
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            pairs in prop::collection::btree_map(prop::collection::vec(0u8..0xff, 1..30), prop::collection::vec(any::<u8>(), 0..300), 0..40),
            secret in prop::option::of(prop::collection::vec(any::<u8>(), 32..64)),
        ) {
            let pairs: Vec<_> = pairs.into_iter().collect();
            let (file, written) = archive(&rows_of(&pairs), secret.as_deref());
            let (read, counts) = held(&file).unwrap();
            prop_assert_eq!(counts, written);
            prop_assert_eq!(read, (secret, pairs));
        }
    }

    #[test]
    fn logs_and_events_are_counted() {
        let (_, counts) = held(&small()).unwrap();
        assert_eq!((counts.rows, counts.logs, counts.events), (4, 1, 1));
    }

    #[test]
    fn a_cut_file_is_refused_at_every_length() {
        let file = small();
        for length in 0..file.len() {
            let error = held(&file[..length]).unwrap_err();
            assert!(
                matches!(error, ArchiveError::Cut { at } if at == length as u64),
                "{length}: {error}"
            );
        }
    }

    #[test]
    fn a_changed_file_is_refused_at_every_bit() {
        let file = small();
        for place in 0..file.len() * 8 {
            let mut changed = file.clone();
            changed[place / 8] ^= 1 << (place % 8);
            assert!(held(&changed).is_err(), "bit {place}");
        }
        let longer = [&file[..], b"x"].concat();
        assert!(matches!(held(&longer), Err(ArchiveError::Damaged { .. })));
        assert!(matches!(held(b"hello"), Err(ArchiveError::Foreign)));
        assert!(matches!(held(&[0; 100]), Err(ArchiveError::Foreign)));
    }

    #[test]
    fn a_block_left_out_is_noticed() {
        let pairs: Vec<_> = (0..300u64)
            .map(|commit| (keys::record(commit, 0), vec![1; 3000]))
            .collect();
        let (file, _) = archive(&rows_of(&pairs), None);
        let length = u32::from_le_bytes(file[HEAD_BYTES + 1..HEAD_BYTES + 5].try_into().unwrap());
        let mut shorter = file.clone();
        shorter.drain(HEAD_BYTES..HEAD_BYTES + BLOCK_HEAD_BYTES + length as usize + 4);
        assert!(matches!(held(&shorter), Err(ArchiveError::Damaged { .. })));
    }

    #[test]
    fn a_damaged_row_ends_a_backup() {
        let memory = Memory::default();
        let rows = Rows::new(Box::new(memory.clone()));
        rows.apply(vec![Op::Put(keys::meta("a"), vec![1])]).unwrap();
        memory.damage(&keys::meta("a"), |value| value[4] ^= 1);
        let source = Source {
            rows: &rows,
            secret: None,
            time_ms: 0,
        };
        let result = write(&source, &mut Vec::new(), &mut |_| {});
        assert!(matches!(result, Err(ArchiveError::Store(_))));
    }
}

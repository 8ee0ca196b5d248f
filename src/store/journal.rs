//! The journal: two files, filled in turn, in which one write and one sync make a group of operations durable.
//!
//! Promises: a group is found whole or not at all; no write touches a block that holds a group which was synced before,
//! so a torn write takes nothing that was acked; groups have numbers without holes, and one that is missing is told.
//! A file is filled again only after its groups are on stable storage elsewhere: whoever writes sees to that.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::store::engine::Op;
use crate::store::ops;

const NAMES: [&str; 2] = ["journal.0", "journal.1"];
/// Length of a file. A larger one would hold more that a start must go through, and take more of the disk; a smaller one
/// would have the engine synced more often: at this length about once a second at 5,000 events a second.
const FILE_BYTES: u64 = 2 << 20;
/// Each group begins with a block of its own. What a disk writes at once is at most this.
const BLOCK_BYTES: usize = 4096;
/// Begins each group. What users send is UTF-8, where 0xff never occurs: none of it passes for a group.
const MAGIC: [u8; 8] = *b"\xfftidjnl\xff";
/// Magic, number, length of the text, checksum over number, length and text.
const HEADER_BYTES: usize = 24;

/// Operations that are to be durable together, as bytes; what they begin with is filled in by the journal.
#[derive(Debug)]
pub struct Text(Vec<u8>);

impl Default for Text {
    fn default() -> Text {
        Text(vec![0; HEADER_BYTES])
    }
}

impl Text {
    pub fn add(&mut self, op: &Op) {
        ops::write(&mut self.0, op);
    }

    pub fn is_empty(&self) -> bool {
        self.0.len() == HEADER_BYTES
    }

    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Empties it and keeps its memory, unless that is more than is used again soon.
    pub fn clear(&mut self) {
        self.0.truncate(HEADER_BYTES);
        self.0.shrink_to(FILE_BYTES as usize / 8);
    }

    fn seal(&mut self, number: u64) {
        let length =
            u32::try_from(self.0.len() - HEADER_BYTES).expect("a group is bounded far below 4 GiB");
        self.0[..8].copy_from_slice(&MAGIC);
        self.0[8..16].copy_from_slice(&number.to_le_bytes());
        self.0[16..20].copy_from_slice(&length.to_le_bytes());
        let checksum = checksum(&self.0);
        self.0[20..24].copy_from_slice(&checksum.to_le_bytes());
        self.0.resize(self.0.len().next_multiple_of(BLOCK_BYTES), 0);
    }
}

/// Over number, length and text of a sealed group.
fn checksum(group: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&group[8..20]), &group[HEADER_BYTES..])
}

pub struct Journal {
    files: [File; 2],
    /// Newest group in each file; 0 for none.
    newest: [u64; 2],
    /// The file that is being filled, and how far it is.
    turn: usize,
    place: u64,
    next: u64,
}

/// What the files hold.
pub struct Found {
    groups: BTreeMap<u64, Vec<Op>>,
    /// Newest group in each; 0 for none.
    pub places: [u64; 2],
}

/// Whether the files are there; a directory of an older format has none.
pub fn exists(directory: &Path) -> bool {
    NAMES.iter().any(|name| directory.join(name).exists())
}

/// Reads the groups that a crash left. What was being written then is no group yet, and nobody was told of it.
pub fn read(directory: &Path) -> io::Result<Found> {
    let mut groups = BTreeMap::new();
    let mut places = [0; 2];
    for (name, newest) in NAMES.iter().zip(&mut places) {
        let bytes = match fs::read(directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let mut rest = bytes.as_slice();
        while rest.len() >= HEADER_BYTES {
            let taken = match group(rest) {
                Some((number, ops, length)) => {
                    groups.insert(number, ops);
                    *newest = number.max(*newest);
                    length.next_multiple_of(BLOCK_BYTES)
                }
                None => BLOCK_BYTES,
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }
    Ok(Found { groups, places })
}

/// The group that begins here, its number and its length, if there is one.
fn group(bytes: &[u8]) -> Option<(u64, Vec<Op>, usize)> {
    let number = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    let length = u32::from_le_bytes(bytes.get(16..20)?.try_into().ok()?);
    let sum = u32::from_le_bytes(bytes.get(20..24)?.try_into().ok()?);
    let end = HEADER_BYTES.checked_add(usize::try_from(length).ok()?)?;
    let group = bytes.get(..end).filter(|group| group.starts_with(&MAGIC))?;
    if checksum(group) != sum {
        return None;
    }
    Some((number, ops::read(&group[HEADER_BYTES..]).ok()?, end))
}

impl Found {
    /// The groups after number `after`, in order, and the first number that is missing among them, if any is.
    pub fn after(mut self, after: u64) -> (Vec<(u64, Vec<Op>)>, Option<u64>) {
        let newest = self.newest();
        let wanted = self.groups.split_off(&(after + 1));
        let missing = match newest < after {
            true => Some(after),
            false => (after + 1..=newest).find(|number| !wanted.contains_key(number)),
        };
        (wanted.into_iter().collect(), missing)
    }

    pub fn newest(&self) -> u64 {
        self.places[0].max(self.places[1])
    }
}

impl Journal {
    /// Opens the files, or makes them, to write groups after those that were found. All of them must be on stable storage
    /// elsewhere by then.
    pub fn open(directory: &Path, places: [u64; 2], after: u64) -> io::Result<Journal> {
        let files = [
            open_file(&directory.join(NAMES[0]))?,
            open_file(&directory.join(NAMES[1]))?,
        ];
        File::open(directory)?.sync_all()?;
        Ok(Journal {
            files,
            newest: places,
            // The other one holds the newest group, which tells the next start how far the journal went.
            turn: usize::from(places[0] > places[1]),
            place: 0,
            next: after + 1,
        })
    }

    /// Number of the next group.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Groups up to this number must be on stable storage elsewhere before the text can be written.
    pub fn taken_over(&self, text: &Text) -> Option<u64> {
        self.is_full_for(text).then(|| self.newest[1 - self.turn])
    }

    /// The text must not share a file with what was there before; one that is longer than a file makes it longer.
    fn is_full_for(&self, text: &Text) -> bool {
        self.place > 0 && self.place + text.bytes() as u64 > FILE_BYTES
    }

    /// Writes the next group; `sync` makes it durable.
    pub fn write(&mut self, text: &mut Text) -> io::Result<()> {
        if self.is_full_for(text) {
            self.turn = 1 - self.turn;
            self.place = 0;
            let file = &self.files[self.turn];
            if file.metadata()?.len() > FILE_BYTES {
                file.set_len(FILE_BYTES)?;
            }
        }
        text.seal(self.next);
        self.files[self.turn].write_all_at(&text.0, self.place)?;
        self.place += text.0.len() as u64;
        self.newest[self.turn] = self.next;
        self.next += 1;
        Ok(())
    }

    pub fn sync(&self) -> io::Result<()> {
        self.files[self.turn].sync_data()
    }
}

/// Bytes that the files take on the disk.
pub fn disk_bytes(directory: &Path) -> u64 {
    let lengths = NAMES.map(|name| fs::metadata(directory.join(name)).map_or(0, |file| file.len()));
    lengths.iter().sum()
}

/// A file of its full length, all of it written: so a sync has no more to write than the group.
fn open_file(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let length = file.metadata()?.len();
    if length < FILE_BYTES {
        file.write_all_at(&vec![0; (FILE_BYTES - length) as usize], length)?;
        file.sync_all()?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests;

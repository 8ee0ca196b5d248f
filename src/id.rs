//! Numbers and names that the server itself gives: user numbers, epochs, positions, event ids, secrets.
//!
//! Promises: a position is written and read in one form, `<epoch>-<seq>`; ids and secrets come from the operating
//! system's random source unless a test gives a seed. It never keeps anything.

use std::cell::RefCell;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest;
use parking_lot::Mutex;
use smallvec::SmallVec;

/// The server's own number of a user: dense from 0, never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserNo(pub u32);

/// Hashes the keys of a map by user number: one multiplication, which spreads numbers that follow one another over both
/// ends of the hash. The server gives these numbers itself, so nobody can choose them to share a place.
pub type ByUser = BuildHasherDefault<UserHasher>;

#[derive(Default)]
pub struct UserHasher(u64);

impl Hasher for UserHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a user number is hashed as a number");
    }

    fn write_u32(&mut self, number: u32) {
        // 2^64 divided by the golden ratio.
        self.0 = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub const EPOCH_CHARS: usize = 6;
const EPOCH_ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// A seq has at most 16 digits (2^53 − 1), so a position has at most 23 characters; nothing longer is looked at.
const POSITION_CHARS_MAX: usize = EPOCH_CHARS + 1 + 16;

/// Names one life of one user's log.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; EPOCH_CHARS]);

impl Epoch {
    /// The epoch of a log's `life` in a store whose random `generation` changes on restore and after damage.
    pub fn of(generation: u64, user: UserNo, life: u32) -> Epoch {
        let mut seed = [0; 16];
        seed[..8].copy_from_slice(&generation.to_le_bytes());
        seed[8..12].copy_from_slice(&user.0.to_le_bytes());
        seed[12..].copy_from_slice(&life.to_le_bytes());
        let hash = digest::digest(&digest::SHA256, &seed);
        let mut letters = [0; EPOCH_CHARS];
        for (letter, byte) in letters.iter_mut().zip(hash.as_ref()) {
            *letter = EPOCH_ALPHABET[usize::from(*byte) % EPOCH_ALPHABET.len()];
        }
        Epoch(letters)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an epoch is made of ASCII letters and digits")
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The text is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl FromStr for Epoch {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Epoch, Malformed> {
        let letters: [u8; EPOCH_CHARS] = text.as_bytes().try_into().map_err(|_| Malformed)?;
        let is_known = |letter: &u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        match letters.iter().all(is_known) {
            true => Ok(Epoch(letters)),
            false => Err(Malformed),
        }
    }
}

/// A place in one log: everything up to and including `seq` of the log's life `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub epoch: Epoch,
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.epoch, self.seq)
    }
}

impl Position {
    /// The same text, for frames: each tells a position twice, and `fmt` takes longer than all the rest of one.
    pub fn text(self) -> PositionText {
        let mut bytes = [0; SEQ_START + SEQ_CHARS_MAX];
        bytes[..EPOCH_CHARS].copy_from_slice(&self.epoch.0);
        bytes[EPOCH_CHARS] = b'-';
        let mut digits = itoa::Buffer::new();
        let seq = digits.format(self.seq).as_bytes();
        let length = SEQ_START + seq.len();
        bytes[SEQ_START..length].copy_from_slice(seq);
        PositionText { bytes, length }
    }
}

/// Where the seq begins in the text of a position.
const SEQ_START: usize = EPOCH_CHARS + 1;
/// Digits of the greatest `u64`.
const SEQ_CHARS_MAX: usize = 20;

/// A position as it is written.
pub struct PositionText {
    bytes: [u8; SEQ_START + SEQ_CHARS_MAX],
    length: usize,
}

impl PositionText {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The digits of the seq alone.
    pub fn seq_bytes(&self) -> &[u8] {
        &self.bytes[SEQ_START..self.length]
    }
}

impl FromStr for Position {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Position, Malformed> {
        if text.len() > POSITION_CHARS_MAX {
            return Err(Malformed);
        }
        let (epoch, seq) = text.split_once('-').ok_or(Malformed)?;
        Ok(Position {
            epoch: epoch.parse()?,
            seq: parse_seq(seq)?,
        })
    }
}

/// The greatest seq that a JavaScript number can hold: 2^53 − 1.
const SEQ_MAX: u64 = (1 << 53) - 1;

/// Reads a seq: decimal digits without sign or leading zero, at most 2^53 − 1.
pub fn parse_seq(text: &str) -> Result<u64, Malformed> {
    let is_plain = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain || (text.len() > 1 && text.starts_with('0')) {
        return Err(Malformed);
    }
    let seq = text.parse().map_err(|_| Malformed)?;
    if seq > SEQ_MAX {
        return Err(Malformed);
    }
    Ok(seq)
}

/// Bytes of the system's random source fetched at once: one call for many ids.
const POOL_BYTES: usize = 512;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL_BYTES], left: 0 }) };
}

/// Random bytes that wait to be used, each once.
struct Pool {
    bytes: [u8; POOL_BYTES],
    /// So many at the start are unused.
    left: usize,
}

impl Pool {
    fn fill(&mut self, wanted: &mut [u8]) {
        for part in wanted.chunks_mut(POOL_BYTES) {
            if self.left < part.len() {
                aws_lc_rs::rand::fill(&mut self.bytes)
                    .expect("the operating system's random source does not fail");
                self.left = POOL_BYTES;
            }
            let taken = &mut self.bytes[self.left - part.len()..self.left];
            part.copy_from_slice(taken);
            // What was given away is nobody else's to read.
            taken.fill(0);
            self.left -= part.len();
        }
    }
}

/// Where random numbers come from; a seeded one repeats exactly, for the simulation.
#[derive(Clone)]
pub struct Random(Option<Arc<Mutex<fastrand::Rng>>>);

impl Random {
    pub fn system() -> Random {
        Random(None)
    }

    pub fn seeded(seed: u64) -> Random {
        Random(Some(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)))))
    }

    pub fn fill(&self, bytes: &mut [u8]) {
        match &self.0 {
            Some(seeded) => seeded.lock().fill(bytes),
            None => POOL.with_borrow_mut(|pool| pool.fill(bytes)),
        }
    }

    pub fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number from `low` to `high`, both included; for jitter, where a slight bias does no harm.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        match &self.0 {
            Some(seeded) => seeded.lock().u64(low..=high.max(low)),
            None => fastrand::u64(low..=high.max(low)),
        }
    }

    /// `bytes` random bytes in lower-case hexadecimal digits.
    pub fn hex(&self, bytes: usize) -> String {
        let mut random = SmallVec::<[u8; 32]>::from_elem(0, bytes);
        self.fill(&mut random);
        hex(&random)
    }

    /// A UUIDv7 (RFC 9562): sorts by time.
    pub fn uuid_v7(&self, unix_ms: u64) -> String {
        let mut random = [0; 10];
        self.fill(&mut random);
        uuid::Builder::from_unix_timestamp_millis(unix_ms, &random)
            .into_uuid()
            .hyphenated()
            .encode_lower(&mut uuid::Uuid::encode_buffer())
            .to_owned()
    }
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn epochs_differ_by_generation_user_and_life() {
        let epoch = Epoch::of(1, UserNo(2), 3);
        assert_eq!(epoch, Epoch::of(1, UserNo(2), 3));
        for other in [
            Epoch::of(9, UserNo(2), 3),
            Epoch::of(1, UserNo(9), 3),
            Epoch::of(1, UserNo(2), 9),
        ] {
            assert_ne!(epoch, other);
        }
        assert_eq!(epoch.as_str().parse(), Ok(epoch));
    }

    #[test]
    fn only_well_formed_positions_are_read() {
        let good: Position = "q7m2kd-42".parse().unwrap();
        assert_eq!((good.epoch.as_str(), good.seq), ("q7m2kd", 42));
        for bad in [
            "",
            " ",
            "-1",
            "+5",
            "007",
            "q7m2kd-007",
            "q7m2kd-",
            "-42",
            "q7m2kd",
            "q7m2kd-4 2",
            "q7m2kd-+4",
            "q7m2kd--4",
            "Q7M2KD-42",
            "q7m2k-42",
            "q7m2kdd-42",
            "q7m2kd-1e3",
            "q7m2kd-0x10",
            "q7m2kd-NaN",
            "q7m2kd-٤٢",
            "q7m2kd-9007199254740992",
            "q7m2kd-18446744073709551616",
            "q7m2kd-42\0",
            "q7m2kd-42%0D%0A",
            "q7m2kd_42",
            "é7m2k-42",
        ] {
            assert_eq!(
                bad.parse::<Position>(),
                Err(Malformed),
                "{bad:?} was taken for a position"
            );
        }
        assert!("1".repeat(10_000).parse::<Position>().is_err());
        assert_eq!(parse_seq("9007199254740991"), Ok((1 << 53) - 1));
    }

    #[test]
    fn no_random_byte_is_given_twice() {
        let random = Random::system();
        let mut given = std::collections::HashSet::new();
        for length in (8..40).cycle().take(2_000) {
            let mut bytes = vec![0; length];
            random.fill(&mut bytes);
            assert!(
                given.insert(bytes[..8].to_vec()),
                "the same eight bytes again"
            );
            assert!(given.insert(bytes[length - 8..].to_vec()) || length == 8);
        }
        let mut long = vec![0; 3 * POOL_BYTES + 1];
        random.fill(&mut long);
        assert!(long.chunks(8).all(|part| part.len() < 8 || part != [0; 8]));
    }

    #[test]
    fn a_seed_repeats_exactly() {
        let ids = |seed| {
            let random = Random::seeded(seed);
            (random.uuid_v7(5), random.hex(4), random.between(3, 9))
        };
        assert_eq!(ids(7), ids(7));
        assert_ne!(ids(7), ids(8));
    }

    proptest! {
        #[test]
        fn positions_round_trip(generation: u64, user: u32, seq in 0..=(1u64 << 53) - 1) {
            let position = Position { epoch: Epoch::of(generation, UserNo(user), 0), seq };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
            let text = position.text();
            prop_assert_eq!(text.as_bytes().to_vec(), position.to_string().into_bytes());
            prop_assert_eq!(text.seq_bytes().to_vec(), seq.to_string().into_bytes());
        }

        #[test]
        fn any_text_is_refused_or_reads_back_as_itself(text in ".{0,40}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }
}

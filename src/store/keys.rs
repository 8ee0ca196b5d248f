//! The keys of all rows: one kind byte, then fields whose bytes sort as their values do.
//!
//! Promises: byte order equals the order of commits, seqs and days. It never reads or writes a row.

use aws_lc_rs::digest;

use crate::event::Topic;
use crate::id::UserNo;

/// A body and its recipients, in the order of commits; long records go on under the next sub-keys.
const RECORD: u8 = b'e';
/// Where the events of one log are: blocks of commit numbers.
const BLOCK: u8 = b'i';
const USER: u8 = b'u';
const META: u8 = b'm';
const SUBSCRIPTION: u8 = b't';
const REMEMBERED: u8 = b'k';
/// Operations of a command that was too large for one batch, until all of them are applied.
const INTENT: u8 = b'x';
/// Rows of features, by a kind byte of their own.
const STATE: u8 = b's';

/// One block of a log's index holds this many commit numbers.
pub const BLOCK_EVENTS: u64 = 128;

pub fn record(commit: u64, chunk: u16) -> Vec<u8> {
    let mut key = Vec::with_capacity(11);
    key.push(RECORD);
    key.extend_from_slice(&commit.to_be_bytes());
    key.extend_from_slice(&chunk.to_be_bytes());
    key
}

/// Commit and chunk of a record's key.
pub fn parse_record(key: &[u8]) -> Option<(u64, u16)> {
    let rest: &[u8; 10] = key.strip_prefix(&[RECORD])?.try_into().ok()?;
    let (commit, chunk) = rest.split_first_chunk::<8>()?;
    Some((
        u64::from_be_bytes(*commit),
        u16::from_be_bytes(chunk.try_into().ok()?),
    ))
}

/// The end of all records.
pub fn records_end() -> Vec<u8> {
    vec![RECORD + 1]
}

/// The block that holds `seq`; its key names the first seq that a block there can hold.
pub fn block(user: UserNo, seq: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(13);
    key.push(BLOCK);
    key.extend_from_slice(&user.0.to_be_bytes());
    key.extend_from_slice(&block_start(seq).to_be_bytes());
    key
}

/// The first seq of the block that holds `seq`: 1, 129, 257 …
pub fn block_start(seq: u64) -> u64 {
    assert!(seq > 0, "seqs start at 1");
    (seq - 1) / BLOCK_EVENTS * BLOCK_EVENTS + 1
}

pub fn user(user: UserNo) -> Vec<u8> {
    let mut key = vec![USER];
    key.extend_from_slice(&user.0.to_be_bytes());
    key
}

pub fn parse_user(key: &[u8]) -> Option<UserNo> {
    let number: [u8; 4] = key.strip_prefix(&[USER])?.try_into().ok()?;
    Some(UserNo(u32::from_be_bytes(number)))
}

/// First key and end of all user rows.
pub fn users() -> (Vec<u8>, Vec<u8>) {
    (vec![USER], vec![USER + 1])
}

pub fn meta(name: &str) -> Vec<u8> {
    let mut key = vec![META];
    key.extend_from_slice(name.as_bytes());
    key
}

pub fn subscription(topic: &Topic, user: UserNo) -> Vec<u8> {
    let (mut key, _) = topic_subscriptions(topic);
    key.extend_from_slice(&user.0.to_be_bytes());
    key
}

/// First key and end of the subscriptions of one topic. A topic holds no NUL, so none is another's prefix.
pub fn topic_subscriptions(topic: &Topic) -> (Vec<u8>, Vec<u8>) {
    let mut from = vec![SUBSCRIPTION];
    from.extend_from_slice(topic.as_str().as_bytes());
    let mut to = from.clone();
    from.push(0);
    to.push(1);
    (from, to)
}

pub fn subscriptions() -> (Vec<u8>, Vec<u8>) {
    (vec![SUBSCRIPTION], vec![SUBSCRIPTION + 1])
}

/// Topic and user of a subscription's key.
pub fn parse_subscription(key: &[u8]) -> Option<(Topic, UserNo)> {
    let rest = key.strip_prefix(&[SUBSCRIPTION])?;
    let (topic, number) = rest.split_last_chunk::<4>()?;
    let topic = std::str::from_utf8(topic.strip_suffix(&[0])?).ok()?;
    Some((topic.parse().ok()?, UserNo(u32::from_be_bytes(*number))))
}

/// What an operator calls the rows whose keys begin like this one.
pub fn kind_words(key: &[u8]) -> &'static str {
    match key.first() {
        Some(&RECORD) => "events",
        Some(&BLOCK) => "parts of the index",
        Some(&USER) => "the names and bounds of logs",
        Some(&META) => "notes about the store",
        Some(&SUBSCRIPTION) => "subscriptions to topics",
        Some(&REMEMBERED) => "remembered event ids",
        Some(&INTENT) => "steps of a large command",
        _ => "rows of features",
    }
}

pub const DAY_MS: u64 = 86_400_000;

/// A remembered idempotency key, under the day on which it was first used, so that whole days can be forgotten.
pub fn remembered(day: u32, hash: &[u8; 16]) -> Vec<u8> {
    let mut key = vec![REMEMBERED];
    key.extend_from_slice(&day.to_be_bytes());
    key.extend_from_slice(hash);
    key
}

/// First key and end of all that was remembered before `day`.
pub fn remembered_before(day: u32) -> (Vec<u8>, Vec<u8>) {
    let mut to = vec![REMEMBERED];
    to.extend_from_slice(&day.to_be_bytes());
    (vec![REMEMBERED], to)
}

pub fn day_of(unix_ms: u64) -> u32 {
    u32::try_from(unix_ms / DAY_MS).unwrap_or(u32::MAX)
}

pub fn intent(chunk: u32) -> Vec<u8> {
    let mut key = vec![INTENT];
    key.extend_from_slice(&chunk.to_be_bytes());
    key
}

pub fn intents() -> (Vec<u8>, Vec<u8>) {
    (vec![INTENT], vec![INTENT + 1])
}

/// One chunk of a value that is too long for one row. The first is `key` and two zero bytes.
pub fn chunk(key: &[u8], number: u16) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(key.len() + 2);
    chunk.extend_from_slice(key);
    chunk.extend_from_slice(&number.to_be_bytes());
    chunk
}

/// The end of all chunks of a key: one past the greatest number.
pub fn chunks_end(key: &[u8]) -> Vec<u8> {
    let mut end = chunk(key, u16::MAX);
    end.push(0);
    end
}

/// A row of a feature: `kind` is the feature's own byte, one of those listed in `features.rs`.
pub fn state(kind: u8, name: &[u8]) -> Vec<u8> {
    let mut key = vec![STATE, kind];
    key.extend_from_slice(name);
    key
}

/// First key and end of a feature's rows.
pub fn states(kind: u8) -> (Vec<u8>, Vec<u8>) {
    (vec![STATE, kind], vec![STATE, kind + 1])
}

/// First key and end of one user's rows of a kind whose names begin with the user.
pub fn states_of(kind: u8, user: UserNo) -> (Vec<u8>, Vec<u8>) {
    let to = match user.0.checked_add(1) {
        Some(next) => state(kind, &next.to_be_bytes()),
        None => states(kind).1,
    };
    (state(kind, &user.0.to_be_bytes()), to)
}

/// The first 16 bytes of SHA-256 over length-prefixed parts: parts cannot run into each other.
pub fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let hash = context.finish();
    hash.as_ref()[..16]
        .try_into()
        .expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn byte_order_is_commit_order(a: (u64, u16), b: (u64, u16)) {
            prop_assert_eq!(record(a.0, a.1).cmp(&record(b.0, b.1)), a.cmp(&b));
            prop_assert_eq!(parse_record(&record(a.0, a.1)), Some(a));
        }

        #[test]
        fn byte_order_is_seq_order(user: u32, a in 1u64.., b in 1u64..) {
            let order = block_start(a).cmp(&block_start(b));
            prop_assert_eq!(block(UserNo(user), a).cmp(&block(UserNo(user), b)), order);
            prop_assert!(block_start(a) <= a && a < block_start(a).saturating_add(BLOCK_EVENTS));
        }

        #[test]
        fn subscriptions_read_back(topic in "[A-Za-z0-9_.:@/-]{1,128}", user: u32) {
            let topic: Topic = topic.parse().unwrap();
            let key = subscription(&topic, UserNo(user));
            let (from, to) = topic_subscriptions(&topic);
            prop_assert!(from <= key && key < to);
            prop_assert_eq!(parse_subscription(&key), Some((topic, UserNo(user))));
        }
    }

    #[test]
    fn the_rows_of_one_user_are_no_others() {
        for user in [0, 1, 255, 256, u32::MAX] {
            let (from, to) = states_of(b'a', UserNo(user));
            let is_inside = |key: &[u8]| from.as_slice() <= key && key < to.as_slice();
            assert!(is_inside(&state(b'a', &user.to_be_bytes())));
            assert!(is_inside(&state(
                b'a',
                &[user.to_be_bytes().as_slice(), &[255; 9]].concat()
            )));
            assert!(!is_inside(&state(
                b'a',
                &user.wrapping_add(1).to_be_bytes()
            )));
            assert!(!is_inside(&state(b'b', &user.to_be_bytes())));
        }
    }

    #[test]
    fn hashed_parts_do_not_run_into_each_other() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }
}

use super::*;

const USERS: u64 = 200;
const KEPT: u64 = 64;
const VALUE_BYTES: usize = 240;
const LIVE_BYTES: u64 = USERS * KEPT * (VALUE_BYTES as u64 + 16);

/// The row of an event of a log.
fn key(user: u64, number: u64) -> Vec<u8> {
    [user.to_be_bytes(), number.to_be_bytes()].concat()
}

/// One more event for each user, and for some of them the oldest deleted, as retention does now and then.
fn churn(disk: &Disk, number: u64) {
    let apply = |ops: Vec<Op>| {
        disk.apply(ops).unwrap();
        disk.sync().unwrap();
    };
    let put = |user| Op::Put(key(user, number), vec![number as u8; VALUE_BYTES]);
    apply((0..USERS).map(put).collect());
    let oldest = number.saturating_sub(KEPT);
    for user in (0..USERS).filter(|user| user % 16 == number % 16) {
        let old = oldest.saturating_sub(16)..oldest;
        apply(old.map(|number| Op::Delete(key(user, number))).collect());
    }
}

/// Without cleaning up it is 7 times.
#[test]
fn the_file_stays_below_four_times_what_is_live() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::open(directory.path(), 8 << 20).unwrap();
    (0..400).for_each(|number| churn(&disk, number));
    let ratio = disk.disk_bytes() as f64 / LIVE_BYTES as f64;
    assert!(ratio < 4.0, "{ratio}");
}

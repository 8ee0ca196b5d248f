//! Wall-clock time. Owns the only call to the system's clock, so that a test passes other values.
//!
//! Promises: `now_ms` never runs backwards within one process, whatever the system clock does, so that event
//! times and retention never see time turn round. It says nothing about durations: those come from tokio.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub type UnixMs = u64;

#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
struct Source {
    /// The greatest time ever told; written and read by `now_ms` only.
    greatest_ms: AtomicU64,
    is_manual: bool,
}

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Clock {
        Clock(Arc::new(Source {
            greatest_ms: AtomicU64::new(0),
            is_manual: false,
        }))
    }

    /// A clock that stands at `start_ms` until `advance_ms` moves it.
    pub fn manual(start_ms: UnixMs) -> Clock {
        Clock(Arc::new(Source {
            greatest_ms: AtomicU64::new(start_ms),
            is_manual: true,
        }))
    }

    /// The time now; for the system's clock the greatest seen so far, should the system step back.
    pub fn now_ms(&self) -> UnixMs {
        if self.0.is_manual {
            return self.0.greatest_ms.load(Ordering::Relaxed);
        }
        let now = system_ms();
        let greatest = self.0.greatest_ms.load(Ordering::Relaxed);
        // Most often it was told in the same millisecond; to write it again would take it from the other processors.
        if greatest >= now {
            return greatest;
        }
        self.0
            .greatest_ms
            .fetch_max(now, Ordering::Relaxed)
            .max(now)
    }

    /// The time by which tokens are judged: the system's, even when it stepped back.
    pub fn wall_ms(&self) -> UnixMs {
        if self.0.is_manual {
            self.now_ms()
        } else {
            system_ms()
        }
    }

    /// Moves a manual clock on; the system's clock takes no orders.
    pub fn advance_ms(&self, by_ms: u64) {
        assert!(self.0.is_manual, "only a manual clock can be moved");
        self.0.greatest_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Never tell a time before `floor_ms`: the newest time that the store has seen.
    pub fn not_before(&self, floor_ms: UnixMs) {
        self.0.greatest_ms.fetch_max(floor_ms, Ordering::Relaxed);
    }
}

/// `2026-11-21T02:30:00.123Z`: RFC 3339, UTC, milliseconds. A time past the year 9999 is told as that year's end.
pub fn rfc3339(unix_ms: UnixMs) -> String {
    const LAST_MS: UnixMs = 253_402_207_200_999;
    let ms = i64::try_from(unix_ms.min(LAST_MS)).expect("bounded by the line above");
    let timestamp = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    let time = jiff::tz::Offset::UTC.to_datetime(timestamp);
    // By hand: every event and every answer to a publish tells a time, and the general printer costs eight times as much.
    let mut text = *b"0000-00-00T00:00:00.000Z";
    write_digits(&mut text[0..4], time.year());
    write_digits(&mut text[5..7], time.month().into());
    write_digits(&mut text[8..10], time.day().into());
    write_digits(&mut text[11..13], time.hour().into());
    write_digits(&mut text[14..16], time.minute().into());
    write_digits(&mut text[17..19], time.second().into());
    write_digits(&mut text[20..23], time.millisecond());
    str::from_utf8(&text).expect("digits are ASCII").to_owned()
}

/// Fills `place` with the last digits of a number that is not negative.
fn write_digits(place: &mut [u8], number: i16) {
    let mut left = number.unsigned_abs();
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

/// Reads an RFC 3339 time or Unix milliseconds.
pub fn parse_time(text: &str) -> Option<UnixMs> {
    if let Ok(ms) = text.parse::<UnixMs>() {
        return Some(ms);
    }
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(timestamp.as_millisecond()).ok()
}

fn system_ms() -> UnixMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn time_never_runs_backwards() {
        let clock = Clock::system();
        let future = clock.now_ms() + 60_000;
        clock.not_before(future);
        assert_eq!(clock.now_ms(), future);
        assert!(clock.wall_ms() < future);
    }

    #[test]
    fn times_are_told_and_read_in_one_form() {
        assert_eq!(rfc3339(1_795_228_200_123), "2026-11-21T02:30:00.123Z");
        assert_eq!(
            parse_time("2026-11-21T02:30:00.123Z"),
            Some(1_795_228_200_123)
        );
        assert_eq!(parse_time("1795228200123"), Some(1_795_228_200_123));
        assert_eq!(parse_time("yesterday"), None);
        assert!(rfc3339(u64::MAX).starts_with("9999-"));
    }

    proptest! {
        #[test]
        fn a_time_reads_back_and_is_told_as_the_library_tells_it(unix_ms in 0..253_402_207_200_999_u64) {
            let text = rfc3339(unix_ms);
            prop_assert_eq!(parse_time(&text), Some(unix_ms));
            let timestamp = jiff::Timestamp::from_millisecond(unix_ms as i64).unwrap();
            prop_assert_eq!(text, format!("{timestamp:.3}"));
        }
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(1_000);
        assert_eq!(clock.now_ms(), 1_000);
        clock.clone().advance_ms(5);
        assert_eq!(clock.now_ms(), 1_005);
    }
}

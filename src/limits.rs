//! How much one user, one address and all together may ask for: rates and numbers of connections.
//!
//! Promises: a refusal says when to come again; what is remembered is bounded (`KEYS_MAX` a table) whatever callers
//! send, and forgotten by `trim`; a seat comes back when its connection ends, however it ends. It does not know what
//! is counted and never waits.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::{NoOpMiddleware, StateInformationMiddleware};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::event::UserId;

/// Keys of one table, about 60 bytes each; a full table is trimmed before its time.
const KEYS_MAX: usize = 200_000;
/// The time between two trims of a full table, and what a caller is told who finds it full.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// The limits of the configuration, which refuses a zero.
#[derive(Debug, Clone)]
pub struct Settings {
    pub connections_per_user: NonZeroU32,
    pub connections: NonZeroU32,
    pub user_writes_per_second: NonZeroU32,
    pub user_writes_burst: NonZeroU32,
    pub publish_per_second: NonZeroU32,
    pub auth_failures_per_minute: NonZeroU32,
}

/// How long to wait before the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter(pub Duration);

impl RetryAfter {
    /// For the header `Retry-After`: whole seconds, at least one.
    pub fn seconds(self) -> u64 {
        let whole = self.0.as_secs();
        let is_more = self.0.subsec_nanos() > 0;
        (whole + u64::from(is_more)).max(1)
    }
}

/// A user, or the network of an address, as a number: a table of numbers keeps no text alive.
type Key = u64;

type Keyed<M> = DefaultKeyedRateLimiter<Key, M>;

#[derive(Debug)]
pub struct Limits {
    /// Written by `user_write`, shrunk by `trim`.
    user_writes: Keyed<NoOpMiddleware>,
    publishes: DefaultDirectRateLimiter,
    publish_burst: NonZeroU32,
    /// Written by `auth_failure`, shrunk by `trim`.
    auth_failures: Keyed<StateInformationMiddleware>,
    /// Networks that used up their failures, and until when; written by `auth_failure`, read by `auth_allowed`.
    barred: DashMap<Key, Instant>,
    bar_pause: Duration,
    /// When a full table may be trimmed again; written and read by `can_grow`.
    full_trim_at: Mutex<Instant>,
    /// Random, so that nobody can choose a name that shares another's number.
    hasher: RandomState,
    clock: DefaultClock,
    seats: Arc<Seats>,
}

impl Limits {
    pub fn new(settings: &Settings) -> Limits {
        let writes = Quota::per_second(settings.user_writes_per_second)
            .allow_burst(settings.user_writes_burst);
        let failures = Quota::per_minute(settings.auth_failures_per_minute);
        let publish_burst = settings.publish_per_second;
        let publishes = Quota::per_second(settings.publish_per_second).allow_burst(publish_burst);
        Limits {
            user_writes: RateLimiter::keyed(writes),
            publishes: RateLimiter::direct(publishes),
            publish_burst,
            auth_failures: RateLimiter::keyed(failures).with_middleware(),
            barred: DashMap::new(),
            bar_pause: failures.replenish_interval(),
            full_trim_at: Mutex::new(Instant::now()),
            hasher: RandomState::new(),
            clock: DefaultClock::default(),
            seats: Arc::new(Seats {
                in_all_max: settings.connections,
                per_user_max: settings.connections_per_user,
                in_all: AtomicU32::new(0),
                per_user: DashMap::new(),
            }),
        }
    }

    /// Counts one write of a user.
    pub fn user_write(&self, user: &UserId) -> Result<(), RetryAfter> {
        if !self.can_grow(self.user_writes.len()) {
            return Err(RetryAfter(FULL_PAUSE));
        }
        let key = self.hasher.hash_one(user);
        self.user_writes
            .check_key(&key)
            .map_err(|until| self.retry_after(&until))
    }

    /// Counts `events` published at once. A batch greater than the burst costs the whole burst.
    pub fn publish(&self, events: NonZeroU32) -> Result<(), RetryAfter> {
        let cost = events.min(self.publish_burst);
        self.publishes
            .check_n(cost)
            .expect("the cost is at most the burst")
            .map_err(|until| self.retry_after(&until))
    }

    /// Whether a token from this address may be looked at. Ask before verifying one.
    pub fn auth_allowed(&self, address: IpAddr) -> Result<(), RetryAfter> {
        let until = self.barred.get(&self.network(address)).map(|until| *until);
        match until.and_then(|until| until.checked_duration_since(Instant::now())) {
            Some(left) if !left.is_zero() => Err(RetryAfter(left)),
            _ => Ok(()),
        }
    }

    /// Counts a token that was refused.
    pub fn auth_failure(&self, address: IpAddr) {
        if !self.can_grow(self.auth_failures.len()) {
            return;
        }
        let key = self.network(address);
        let pause = match self.auth_failures.check_key(&key) {
            Ok(state) if state.remaining_burst_capacity() > 0 => return,
            Ok(_) => self.bar_pause,
            Err(until) => until.wait_time_from(self.clock.now()),
        };
        self.barred.insert(key, Instant::now() + pause);
    }

    /// Takes a seat for one connection; it comes back when the seat is dropped.
    pub fn connect(&self, user: &UserId) -> Result<Seat, Full> {
        Seats::take(&self.seats, self.hasher.hash_one(user))
    }

    /// Connections that have a seat.
    pub fn connections(&self) -> u32 {
        self.seats.in_all.load(Ordering::Relaxed)
    }

    /// Users with at least one connection.
    pub fn connected_users(&self) -> usize {
        self.seats.per_user.len()
    }

    /// Forgets those whose rate is no different from a newcomer's. The server calls it each minute.
    pub fn trim(&self) {
        self.user_writes.retain_recent();
        self.user_writes.shrink_to_fit();
        self.auth_failures.retain_recent();
        self.auth_failures.shrink_to_fit();
        let now = Instant::now();
        self.barred.retain(|_, until| *until > now);
        self.barred.shrink_to_fit();
        self.seats.per_user.shrink_to_fit();
    }

    /// Whether a table of `keys` may grow; a full one is trimmed, so that room is found a little later.
    fn can_grow(&self, keys: usize) -> bool {
        if keys < KEYS_MAX {
            return true;
        }
        let now = Instant::now();
        let is_due = {
            let mut allowed_at = self.full_trim_at.lock();
            let is_due = now >= *allowed_at;
            if is_due {
                *allowed_at = now + FULL_PAUSE;
            }
            is_due
        };
        if is_due {
            self.trim();
        }
        false
    }

    /// One IPv4 address, or the /64 in which an IPv6 host chooses its addresses as it likes.
    fn network(&self, address: IpAddr) -> Key {
        let network = match address.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits() >> 64,
        };
        self.hasher.hash_one(network)
    }

    fn retry_after(&self, until: &NotUntil<<DefaultClock as Clock>::Instant>) -> RetryAfter {
        RetryAfter(until.wait_time_from(self.clock.now()))
    }
}

/// Which number of connections is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    User,
    Server,
}

#[derive(Debug)]
struct Seats {
    in_all_max: NonZeroU32,
    per_user_max: NonZeroU32,
    /// Written by `take` and by the drop of a seat; read for the metrics.
    in_all: AtomicU32,
    /// Users with at least one seat; written like `in_all`.
    per_user: DashMap<Key, u32>,
}

impl Seats {
    fn take(seats: &Arc<Seats>, user: Key) -> Result<Seat, Full> {
        let grown = |taken: u32| (taken < seats.in_all_max.get()).then_some(taken + 1);
        seats
            .in_all
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
            .map_err(|_| Full::Server)?;
        let mut taken = seats.per_user.entry(user).or_insert(0);
        if *taken >= seats.per_user_max.get() {
            seats.in_all.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::User);
        }
        *taken += 1;
        drop(taken);
        Ok(Seat {
            user,
            seats: seats.clone(),
        })
    }
}

/// The right of one connection to be there.
#[derive(Debug)]
pub struct Seat {
    user: Key,
    seats: Arc<Seats>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Entry::Occupied(mut taken) = self.seats.per_user.entry(self.user) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
        self.seats.in_all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            connections_per_user: nonzero(32),
            connections: nonzero(100),
            user_writes_per_second: nonzero(10),
            user_writes_burst: nonzero(30),
            publish_per_second: nonzero(20_000),
            auth_failures_per_minute: nonzero(20),
        }
    }

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    fn nonzero(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    #[test]
    fn a_user_may_write_a_burst_and_then_at_its_rate() {
        let limits = Limits::new(&Settings {
            user_writes_per_second: nonzero(1),
            ..settings()
        });
        let alice = user("alice");
        for number in 0..30 {
            assert_eq!(limits.user_write(&alice), Ok(()), "write {number}");
        }
        let RetryAfter(pause) = limits.user_write(&alice).unwrap_err();
        assert!(pause > Duration::from_millis(500) && pause <= Duration::from_secs(1));
        assert_eq!(limits.user_write(&user("bob")), Ok(()));
    }

    #[test]
    fn a_batch_is_counted_by_its_events_and_always_fits_once() {
        let limits = Limits::new(&Settings {
            publish_per_second: nonzero(2),
            ..settings()
        });
        assert_eq!(limits.publish(nonzero(500)), Ok(()));
        let RetryAfter(pause) = limits.publish(nonzero(2)).unwrap_err();
        assert!(pause > Duration::from_millis(800) && pause <= Duration::from_secs(1));
        let fresh = Limits::new(&settings());
        assert_eq!(fresh.publish(nonzero(u32::MAX)), Ok(()));
        assert!(fresh.publish(nonzero(20_000)).is_err());
    }

    #[test]
    fn an_address_is_barred_after_its_failures_and_not_for_ever() {
        let limits = Limits::new(&settings());
        let bad: IpAddr = "192.0.2.1".parse().unwrap();
        for number in 0..20 {
            assert_eq!(limits.auth_allowed(bad), Ok(()), "try {number}");
            limits.auth_failure(bad);
        }
        let RetryAfter(pause) = limits.auth_allowed(bad).unwrap_err();
        assert!(pause > Duration::from_secs(2) && pause <= Duration::from_secs(3));
        assert_eq!(limits.auth_allowed("192.0.2.2".parse().unwrap()), Ok(()));
        assert!(
            limits
                .auth_allowed("::ffff:192.0.2.1".parse().unwrap())
                .is_err()
        );

        let hasty = Limits::new(&Settings {
            auth_failures_per_minute: nonzero(6_000),
            ..settings()
        });
        while hasty.auth_allowed(bad).is_ok() {
            hasty.auth_failure(bad);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while hasty.auth_allowed(bad).is_err() {
            assert!(Instant::now() < deadline, "still barred");
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let limits = Limits::new(&settings());
        for number in 0..20 {
            limits.auth_failure(format!("2001:db8:1:2::{number:x}").parse().unwrap());
        }
        assert!(
            limits
                .auth_allowed("2001:db8:1:2:ffff::1".parse().unwrap())
                .is_err()
        );
        assert_eq!(
            limits.auth_allowed("2001:db8:1:3::1".parse().unwrap()),
            Ok(())
        );
    }

    #[test]
    fn those_who_are_quiet_again_are_forgotten() {
        let limits = Limits::new(&Settings {
            user_writes_per_second: nonzero(1_000),
            auth_failures_per_minute: nonzero(60_000),
            ..settings()
        });
        for number in 0..1_000 {
            limits.user_write(&user(&format!("user-{number}"))).unwrap();
            limits.auth_failure(IpAddr::from([10, 0, (number / 256) as u8, number as u8]));
        }
        assert_eq!(limits.user_writes.len(), 1_000);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !(limits.user_writes.is_empty() && limits.auth_failures.is_empty()) {
            assert!(Instant::now() < deadline, "not forgotten");
            limits.trim();
        }
    }

    #[test]
    fn a_full_table_makes_room_by_itself() {
        let limits = Limits::new(&settings());
        for key in 0..KEYS_MAX as u64 {
            limits.user_writes.check_key(&key).unwrap();
        }
        let newcomer = user("new");
        assert_eq!(limits.user_write(&newcomer), Err(RetryAfter(FULL_PAUSE)));
        let deadline = Instant::now() + Duration::from_secs(10);
        while limits.user_write(&newcomer).is_err() {
            assert!(Instant::now() < deadline, "still full");
            assert!(limits.user_writes.len() <= KEYS_MAX);
            std::thread::yield_now();
        }
    }

    #[test]
    fn seats_are_counted_by_user_and_in_all() {
        let limits = Limits::new(&settings());
        let alice = user("alice");
        let mut seats: Vec<Seat> = (0..32).map(|_| limits.connect(&alice).unwrap()).collect();
        assert_eq!(limits.connect(&alice).unwrap_err(), Full::User);
        assert_eq!((limits.connections(), limits.connected_users()), (32, 1));
        seats.extend((0..68).map(|number| limits.connect(&user(&format!("u{number}"))).unwrap()));
        assert_eq!(limits.connect(&user("late")).unwrap_err(), Full::Server);
        seats.remove(0);
        seats.push(limits.connect(&alice).unwrap());
        drop(seats);
        assert_eq!((limits.connections(), limits.connected_users()), (0, 0));
    }

    #[test]
    fn seats_hold_under_many_threads() {
        let limits = Limits::new(&Settings {
            connections_per_user: nonzero(5),
            connections: nonzero(12),
            ..settings()
        });
        let most_for_one = AtomicU32::new(0);
        let most_in_all = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (limits, most_for_one, most_in_all) = (&limits, &most_for_one, &most_in_all);
                scope.spawn(move || {
                    let name = user(&format!("user-{}", thread % 3));
                    let mut kept = Vec::new();
                    for turn in 0..2_000 {
                        match limits.connect(&name) {
                            Ok(seat) => kept.push(seat),
                            Err(Full::User | Full::Server) => kept.clear(),
                        }
                        if turn % 7 == thread % 7 {
                            kept.pop();
                        }
                        let key = limits.hasher.hash_one(&name);
                        let for_one = limits.seats.per_user.get(&key).map_or(0, |taken| *taken);
                        most_for_one.fetch_max(for_one, Ordering::Relaxed);
                        most_in_all.fetch_max(limits.connections(), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(most_for_one.into_inner(), 5);
        assert!(most_in_all.into_inner() <= 12);
        assert_eq!((limits.connections(), limits.connected_users()), (0, 0));
    }
}

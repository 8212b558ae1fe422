//! What is rated and what is counted: a token bucket, for one shard (`Bucket`) and for all of them (`Meter`), and a count with a limit
//! for all of them (`Places`). Those for all are one atomic each, shared by `Arc`: a bound of the node that holds exactly on any number
//! of shards, without a question to another one.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::image::image;
use crate::time::Instant;

/// Parts of a nanosecond that buckets are kept in, so that what one token is rounded by shows at no rate. A clock in these parts
/// runs for eighteen years.
const PARTS: u64 = 32;
const SECOND: u64 = 1_000_000_000 * PARTS;
/// No bucket takes longer than eleven days to be full again, unless something is owed.
const SECONDS_OF_BURST: u64 = 1_000_000;

/// How fast, and how much at once.
///
/// In any time T no more than `burst + rate × T` tokens go, and less than one beside them. Who takes more than the whole burst at
/// once is the exception: that passes when the bucket is full, and what is beyond is owed before anything else goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    rate: u64,
    burst: u64,
}

impl Pace {
    /// `rate` tokens in a second, 1 to 32 × 10⁹, and up to `burst` of them at once, from 1 to what comes in `SECONDS_OF_BURST`. What
    /// lies outside is taken as the nearest.
    #[must_use]
    pub const fn new(rate: u64, burst: u64) -> Self {
        const fn within(value: u64, most: u64) -> u64 {
            match value {
                0 => 1,
                _ if value > most => most,
                _ => value,
            }
        }
        let rate = within(rate, SECOND);
        Self {
            rate,
            burst: within(burst, rate.saturating_mul(SECONDS_OF_BURST)),
        }
    }

    /// So many in a second, and those of one second at once.
    #[must_use]
    pub const fn per_second(rate: u32) -> Self {
        Self::new(rate as u64, rate as u64)
    }

    /// A rate and its burst as they are configured: without a rate there is no limit, and without a burst it is that of a second.
    #[must_use]
    pub const fn configured(rate: u32, burst: u32) -> Option<Self> {
        match (rate, burst) {
            (0, _) => None,
            (rate, 0) => Some(Self::per_second(rate)),
            (rate, burst) => Some(Self::new(rate as u64, burst as u64)),
        }
    }

    /// Time in which so many tokens come, rounded up: nobody gets more than the rate.
    fn time_of(self, tokens: u64) -> u64 {
        let time = (u128::from(tokens) * u128::from(SECOND)).div_ceil(u128::from(self.rate));
        u64::try_from(time).unwrap_or(u64::MAX)
    }

    /// Time in which the burst comes. Each of its tokens may be rounded up, so as much is added, less than one token.
    fn window(self) -> u64 {
        let time = u128::from(self.burst) * u128::from(SECOND) / u128::from(self.rate);
        let rounding = self.burst.min(SECOND / self.rate);
        u64::try_from(time)
            .unwrap_or(u64::MAX)
            .saturating_add(rounding)
    }

    /// When a bucket is full that is to lose `tokens`, or for how long it must not.
    fn full_after(self, full_at: u64, now: u64, tokens: u64) -> Result<u64, Duration> {
        let begin = full_at.max(now);
        let after = begin.saturating_add(self.time_of(tokens));
        let latest = now.saturating_add(self.window());
        if after <= latest || begin == now {
            return Ok(after);
        }
        // More than the burst goes once the bucket is full.
        let missing = (after - latest).min(begin - now);
        Err(Duration::from_nanos(missing.div_ceil(PARTS)))
    }

    /// How long nothing goes, as what is owed is more than the burst.
    fn owed(self, full_at: u64, now: u64) -> Duration {
        let owed = full_at.saturating_sub(now.saturating_add(self.window()));
        Duration::from_nanos(owed.div_ceil(PARTS))
    }
}

const fn parts(at: Instant) -> u64 {
    at.0.saturating_mul(PARTS)
}

/// The token bucket of one shard, as the time at which it is full again. The default one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket {
    full_at: u64,
}

image!(struct Bucket { full_at });

impl Bucket {
    /// Takes `tokens`.
    ///
    /// # Errors
    /// There are not so many: how long until there are, if nobody takes any. Nothing is taken.
    pub fn take(&mut self, now: Instant, tokens: u64, pace: Pace) -> Result<(), Duration> {
        self.full_at = pace.full_after(self.full_at, parts(now), tokens)?;
        Ok(())
    }

    /// Takes `tokens` that are gone already, whether they are there or not: how long to wait before the next.
    pub fn owe(&mut self, now: Instant, tokens: u64, pace: Pace) -> Duration {
        let begin = self.full_at.max(parts(now));
        self.full_at = begin.saturating_add(pace.time_of(tokens));
        pace.owed(self.full_at, parts(now))
    }

    /// Nobody has to know it any more: it is as a new one.
    #[must_use]
    pub const fn is_full(self, now: Instant) -> bool {
        self.full_at <= parts(now)
    }
}

/// A token bucket that all shards take from. What it promises holds for all of them together; see `Pace`.
///
/// Clocks of shards may differ, as one that stood still does not count that time: the latest that it was told is what counts.
#[derive(Debug, Default)]
pub struct Meter {
    full_at: AtomicU64,
    latest: AtomicU64,
}

impl Meter {
    /// Takes `tokens`. The time is that of this shard.
    ///
    /// # Errors
    /// There are not so many: how long until there are, if nobody takes any. Nothing is taken.
    pub fn take(&self, now: Instant, tokens: u64, pace: Pace) -> Result<(), Duration> {
        let now = self.look(now);
        self.change(|full_at| pace.full_after(full_at, now, tokens))
            .map(|_full_at| ())
    }

    /// Takes `tokens` that are gone already, whether they are there or not: how long to wait before the next.
    pub fn owe(&self, now: Instant, tokens: u64, pace: Pace) -> Duration {
        let now = self.look(now);
        let time = pace.time_of(tokens);
        let owing = |full_at: u64| Ok::<_, Infallible>(full_at.max(now).saturating_add(time));
        let Ok(full_at) = self.change(owing);
        pace.owed(full_at, now)
    }

    /// Gives back what was taken just now and is not used.
    pub fn give(&self, tokens: u64, pace: Pace) {
        let time = pace.time_of(tokens);
        let Ok(_) = self.change(|full_at| Ok::<_, Infallible>(full_at.saturating_sub(time)));
    }

    /// Nothing was taken of late.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.load(Ordering::Relaxed) <= self.look(now)
    }

    fn look(&self, now: Instant) -> u64 {
        let now = parts(now);
        self.latest.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// Nothing else is read by what is read here, so no order is needed.
    fn change<E>(&self, next: impl Fn(u64) -> Result<u64, E>) -> Result<u64, E> {
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let after = next(full_at)?;
            let swapped = self.full_at.compare_exchange_weak(
                full_at,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swapped {
                Ok(_) => return Ok(after),
                Err(other) => full_at = other,
            }
        }
    }
}

/// How many there are of something on all shards, with a limit that holds exactly.
#[derive(Debug, Default)]
pub struct Places {
    taken: AtomicU64,
}

impl Places {
    /// Takes a place if fewer than `limit` are taken. Whoever has one gives it back.
    #[must_use]
    pub fn take(&self, limit: u64) -> bool {
        let one_more = |taken: u64| (taken < limit).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    /// Takes a place in any case: whoever has it is here already.
    pub fn adopt(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives one back. Of those that were taken before the count began anew nothing is known.
    pub fn give_back(&self) {
        let one_less = |taken: u64| taken.checked_sub(1);
        let _ = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }

    /// So many are taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const NS: u64 = 1_000_000_000;

    fn most(pace: Pace, ns: u64) -> u128 {
        u128::from(pace.burst) + u128::from(pace.rate) * u128::from(ns) / u128::from(NS) + 1
    }

    fn paces() -> impl Strategy<Value = Pace> {
        let rate = prop_oneof![1u64..20, 1u64..5000, 1u64..=1_000_000_000];
        let burst = prop_oneof![1u64..20, 1u64..5000, 1u64..=1_000_000_000];
        (rate, burst).prop_map(|(rate, burst)| Pace::new(rate, burst))
    }

    proptest! {
        /// Each step: which shard, how much later its clock is, by how much that clock is behind, and a part of the burst.
        #[test]
        fn no_interval_has_more_than_burst_and_rate(
            pace in paces(),
            steps in prop::collection::vec((0..3usize, 0..2_000_000_000u64, 0..3_000_000_000u64, 1..=1000u64), 1..60),
        ) {
            let meter = Meter::default();
            let mut latest = 0;
            let mut clock = 0;
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (shard, later, behind, share) in steps {
                clock += later;
                let now = if shard == 0 { clock } else { clock.saturating_sub(behind) };
                latest = latest.max(now);
                let tokens = (pace.burst / share).max(1);
                while meter.take(Instant(now), tokens, pace).is_ok() {
                    taken.push((latest, tokens));
                    if taken.len() > 2000 {
                        break;
                    }
                }
            }
            for first in 0..taken.len() {
                let mut sum = 0;
                for &(at, tokens) in &taken[first..] {
                    sum += u128::from(tokens);
                    prop_assert!(sum <= most(pace, at - taken[first].0), "{sum} {pace:?}");
                }
            }
        }

        #[test]
        fn who_waits_as_long_as_it_was_told_gets_it_and_who_asks_before_does_not(
            pace in paces(),
            owed in 0..5_000_000_000u64,
            tokens in prop_oneof![1u64..50, 1u64..=2_000_000_000],
            start in 0..10 * NS,
        ) {
            let mut bucket = Bucket::default();
            bucket.owe(Instant(start), owed, pace);
            let before = bucket;
            if let Err(wait) = bucket.take(Instant(start), tokens, pace) {
                prop_assert_eq!(bucket, before, "nothing was taken");
                let then = Instant(start) + wait;
                prop_assert!(wait > Duration::ZERO);
                prop_assert!(bucket.take(Instant(then.0 - 1), tokens, pace).is_err());
                prop_assert_eq!(bucket, before);
                prop_assert!(bucket.take(then, tokens, pace).is_ok());
            }
        }

        #[test]
        fn whoever_always_asks_gets_all_of_the_rate(pace in paces(), rounds in 1..50u64) {
            let mut bucket = Bucket::default();
            let step = (pace.burst / 7).max(1);
            let (mut now, mut sum) = (Instant(NS), 0u128);
            // The burst is at most thirteen steps.
            for _ in 0..rounds * 7 + 14 {
                if let Err(wait) = bucket.take(now, step, pace) {
                    now = now + wait;
                    prop_assert!(bucket.take(now, step, pace).is_ok());
                }
                sum += u128::from(step);
            }
            let due = u128::from(pace.burst)
                + u128::from(pace.rate) * u128::from(now.0 - NS) / u128::from(NS);
            // A look is as exact as the clock, a take as the parts of its nanoseconds.
            let rounding = u128::from(step) + u128::from(pace.rate) * 2 * u128::from(rounds * 7 + 14) / u128::from(NS);
            prop_assert!(sum + rounding >= due, "{sum} of {due}");
            prop_assert!(sum <= due + 1, "{sum} of {due}");
        }

        #[test]
        fn one_shard_and_all_of_them_count_alike(
            pace in paces(),
            steps in prop::collection::vec((0..NS, 1..1000u64, any::<bool>()), 1..100),
        ) {
            let (meter, mut bucket) = (Meter::default(), Bucket::default());
            let mut now = Instant::START;
            for (later, tokens, owes) in steps {
                now = now + Duration::from_nanos(later);
                if owes {
                    prop_assert_eq!(meter.owe(now, tokens, pace), bucket.owe(now, tokens, pace));
                } else {
                    prop_assert_eq!(meter.take(now, tokens, pace), bucket.take(now, tokens, pace));
                }
                prop_assert_eq!(meter.is_full(now), bucket.is_full(now));
            }
        }

        #[test]
        fn no_number_is_too_large(
            rate in any::<u64>(), burst in any::<u64>(), now in any::<u64>(), tokens in any::<u64>(),
        ) {
            let pace = Pace::new(rate, burst);
            let meter = Meter::default();
            prop_assert!(meter.take(Instant(now), tokens, pace).is_ok(), "a full one gives all");
            meter.owe(Instant(now), tokens, pace);
            let _ = meter.take(Instant(now), tokens, pace);
            let _ = meter.take(Instant(0), u64::MAX, pace);
        }
    }

    #[test]
    fn burst_goes_at_once_one_by_one_and_not_one_more() {
        for (rate, burst) in [(3, 3), (7, 70), (1, 1), (30, 7), (1_000_000, 10_000)] {
            let pace = Pace::new(rate, burst);
            let mut bucket = Bucket::default();
            let taken = (0..2 * burst).take_while(|_| bucket.take(Instant(NS), 1, pace).is_ok());
            assert_eq!(taken.count() as u64, burst, "{pace:?}");
        }
    }

    #[test]
    fn more_than_the_burst_goes_when_it_is_full_and_is_owed() {
        let pace = Pace::new(10, 5);
        let mut bucket = Bucket::default();
        let at = |ms: u64| Instant(ms * 1_000_000);
        assert_eq!(bucket.take(at(1000), 1, pace), Ok(()));
        let wait = Duration::from_millis(100);
        assert_eq!(bucket.take(at(1000), 50, pace), Err(wait));
        assert_eq!(bucket.take(at(1100), 50, pace), Ok(()));
        let next = bucket.take(at(1100), 1, pace).unwrap_err();
        assert_eq!(next.as_millis(), 4600, "fifty less the five, and one more");
        assert_eq!(bucket.take(at(5700), 1, pace), Ok(()));
    }

    #[test]
    fn what_is_owed_is_waited_for() {
        let pace = Pace::new(1000, 500);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.owe(Instant(NS), 500, pace), Duration::ZERO);
        let wait = bucket.owe(Instant(NS), 1000, pace);
        assert!(wait <= Duration::from_secs(1) && wait > Duration::from_millis(999));
        assert!(!bucket.is_full(Instant(2 * NS)));
        assert!(bucket.is_full(Instant(3 * NS)));
    }

    #[test]
    fn threads_that_take_at_once_get_the_burst_and_the_places_and_no_more() {
        let (meter, places) = (Arc::new(Meter::default()), Arc::new(Places::default()));
        let pace = Pace::new(10, 10_000);
        let threads: Vec<_> = (0..4u64)
            .map(|shard| {
                let (meter, places) = (Arc::clone(&meter), Arc::clone(&places));
                thread::spawn(move || {
                    let now = Instant(NS - shard);
                    let taken = (0..5000).filter(|_| meter.take(now, 1, pace).is_ok());
                    let taken = taken.count();
                    let placed = (0..5000).filter(|_| places.take(7777)).count();
                    (taken, placed)
                })
            })
            .collect();
        let sums = threads.into_iter().map(|thread| thread.join().unwrap());
        let (taken, placed) = sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert_eq!((taken, placed), (10_000, 7777));
        assert!(!places.take(7777));
        places.give_back();
        assert!(places.take(7777));
        places.adopt();
        assert_eq!(places.taken(), 7778);
    }
}

//! Time as values: the core never reads a clock, it is told.

use std::cell::Cell;
use std::ops::Add;
use std::time::Duration;

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;

/// A point on the monotonic clock, in nanoseconds since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The start of the process.
    pub const START: Self = Self(0);

    /// Time since `earlier`; zero when `earlier` lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since the start of the process.
    #[must_use]
    pub const fn secs(self) -> u32 {
        (self.0 / 1_000_000_000) as u32
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Time that somebody has lived through. Who looks at a clock after much longer than ever has stood still: the process was stopped, or
/// its machine. That time does not count, so what arrived meanwhile is read before anything is over that it would have been in
/// time for.
#[derive(Clone, Debug)]
pub struct Lived {
    standstill: Duration,
    /// The last look, in nanoseconds of the clock.
    last: Cell<u64>,
    /// Nanoseconds that did not count.
    stood: Cell<u64>,
}

impl Lived {
    /// Whoever looks less often than this has stood still. `start` is what the clock shows now.
    #[must_use]
    pub const fn new(standstill: Duration, start: Duration) -> Self {
        Self {
            standstill,
            last: Cell::new(start.as_nanos() as u64),
            stood: Cell::new(0),
        }
    }

    /// A look at the clock.
    pub fn look(&self, clock: u64) -> Instant {
        let gap = clock.saturating_sub(self.last.replace(clock));
        let most = u64::try_from(self.standstill.as_nanos()).unwrap_or(u64::MAX);
        // Whole seconds: they begin together with those of the wall clock.
        let stood = gap.saturating_sub(most) / SECOND * SECOND;
        self.stood.set(self.stood.get() + stood);
        Instant(clock - self.stood.get())
    }

    /// What the clock shows at a point of this time.
    #[must_use]
    pub const fn clock_at(&self, at: Instant) -> u64 {
        at.0.saturating_add(self.stood.get())
    }
}

/// Both clocks, read once at the head of a turn and handed to every handler of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time: deadlines and intervals.
    pub at: Instant,
    /// Wall clock, milliseconds since the Unix epoch: what others name in Unix time is compared with it once, when it comes,
    /// and `time` fields tell it.
    pub unix_ms: u64,
}

impl Now {
    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn unix_s(self) -> u64 {
        self.unix_ms / 1000
    }

    /// When it is so late, if nobody sets the wall clock until then. What somebody names in Unix seconds is kept as this: a
    /// clock that is set ends nothing early and keeps nothing longer.
    #[must_use]
    pub const fn instant_of(self, unix_s: u64) -> Instant {
        let unix_ms = unix_s.saturating_mul(1000);
        let ahead = unix_ms.saturating_sub(self.unix_ms);
        let past = self.unix_ms.saturating_sub(unix_ms);
        Instant(
            self.at
                .0
                .saturating_add(ahead.saturating_mul(1_000_000))
                .saturating_sub(past.saturating_mul(1_000_000)),
        )
    }

    /// The same as whole seconds since the start of the process, at least 1.
    #[must_use]
    pub fn second_of(self, unix_s: u64) -> u32 {
        let rounded = self.instant_of(unix_s).0.saturating_add(500_000_000) / 1_000_000_000;
        u32::try_from(rounded).unwrap_or(u32::MAX).max(1)
    }
}

/// When the shard wants to be called again, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The point in time.
    pub at: Instant,
}

/// A point on the wall clock as RFC 3339 writes it, in UTC, with a fraction where it has one; what lies behind the year 9999 is its end.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    const END_MS: u64 = 253_402_300_799_999;
    let nanos = i128::from(unix_ms.min(END_MS)) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_in_unix_time_is_kept_on_the_clock_that_only_runs() {
        let now = Now {
            at: Instant(5_300_000_000),
            unix_ms: 1_700_000_000_300,
        };
        assert_eq!(now.second_of(1_700_000_000), 5);
        assert_eq!(now.second_of(1_700_000_060), 65);
        assert_eq!(now.second_of(1), 1, "long ago");
        assert_eq!(now.second_of(u64::MAX), u32::MAX);
        assert_eq!(now.instant_of(1_700_000_001), Instant(6_000_000_000));
        assert_eq!(now.instant_of(1_699_999_999), Instant(4_000_000_000));
        assert_eq!(now.instant_of(1), Instant(0));
    }

    #[test]
    fn time_in_which_nobody_could_look_does_not_count() {
        let lived = Lived::new(Duration::from_secs(1), Duration::from_secs(8));
        assert_eq!(lived.look(8 * SECOND + 7), Instant(8 * SECOND + 7));
        assert_eq!(lived.look(60 * SECOND + 9), Instant(9 * SECOND + 9));
        let later = lived.look(60 * SECOND + 11);
        assert_eq!(later, Instant(9 * SECOND + 11));
        assert_eq!(lived.clock_at(later), 60 * SECOND + 11);
    }

    #[test]
    fn moments_are_written_as_rfc_3339_has_them() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_735_689_599_990, "2024-12-31T23:59:59.99Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(unix_ms), text);
        }
    }
}

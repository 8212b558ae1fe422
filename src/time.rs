//! Time as values: the core never reads a clock, it is told.

use std::ops::Add;
use std::time::Duration;

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
}

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
    /// Wall clock, milliseconds since the Unix epoch: token expiry and `time` fields.
    pub unix_ms: u64,
}

impl Now {
    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn unix_s(self) -> u64 {
        self.unix_ms / 1000
    }
}

/// When the shard wants to be called again, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The point in time.
    pub at: Instant,
}

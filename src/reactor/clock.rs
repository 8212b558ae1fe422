//! The two clocks, read at the head of a turn.

use std::time::{Duration, Instant as StdInstant, SystemTime};

use crate::time::{Instant, Lived, Now};

/// Threads look at their clock far more often than this.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Where `Instant` 0 lies. All shards of a process begin with one; each then has lived through its own time.
#[derive(Clone, Debug)]
pub struct Clock {
    start: StdInstant,
    time: Lived,
}

impl Clock {
    /// A clock whose monotonic time starts at the last whole second of the wall clock but one: seconds of both begin together,
    /// so that what is kept in whole ones is not rounded, and second 0, which stands for never, is over.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the reactor is where clocks are read"
    )]
    pub fn start() -> Self {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let start = StdInstant::now();
        let since = Duration::from_secs(1) + Duration::from_nanos(u64::from(unix.subsec_nanos()));
        let start = start.checked_sub(since).unwrap_or(start);
        Self {
            start,
            time: Lived::new(STANDSTILL, start.elapsed()),
        }
    }

    /// Both clocks.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the reactor is where clocks are read"
    )]
    pub fn now(&self) -> Now {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let elapsed = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now {
            at: self.time.look(elapsed),
            unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The monotonic clock alone.
    #[must_use]
    pub fn at(&self) -> Instant {
        let elapsed = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.time.look(elapsed)
    }

    /// The same point as the standard library's clock has it.
    #[must_use]
    pub fn to_std(&self, at: Instant) -> StdInstant {
        self.start + Duration::from_nanos(self.time.clock_at(at))
    }
}

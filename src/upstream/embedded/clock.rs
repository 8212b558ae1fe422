//! Log time: what retention, keys and segments go by.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock that never goes back, over restarts, and does not jump when the machine's clock is set: it starts with the
/// wall clock, goes on with the monotonic one, and comes nearer to the wall clock by an eighth of the time that passes.
#[derive(Clone, Debug)]
pub struct LogClock {
    /// Log time at `at`, microseconds since the Unix epoch.
    now_us: u64,
    at: Instant,
}

impl LogClock {
    /// Not before what was recorded last.
    #[must_use]
    pub fn start(recorded_ms: u64) -> Self {
        Self {
            now_us: wall_us().max(recorded_ms.saturating_mul(1000)),
            at: monotonic(),
        }
    }

    /// Unix milliseconds.
    pub fn now_ms(&mut self) -> u64 {
        let at = monotonic();
        self.now_us = advance(self.now_us, at.duration_since(self.at), wall_us());
        self.at = at;
        self.now_us / 1000
    }

    /// Lets time pass.
    #[cfg(test)]
    pub fn skip(&mut self, time: Duration) {
        self.now_us += u64::try_from(time.as_micros()).expect("some years");
    }
}

/// The machine's clock, Unix milliseconds.
pub fn wall_ms() -> u64 {
    wall_us() / 1000
}

/// Log time after `passed`.
fn advance(now_us: u64, passed: Duration, wall_us: u64) -> u64 {
    let passed = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
    let plain = now_us.saturating_add(passed);
    if wall_us > plain {
        plain.saturating_add((wall_us - plain).min(passed / 8))
    } else {
        plain - (plain - wall_us).min(passed / 8)
    }
}

/// The monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the log has a clock of its own: it is not part of the core"
)]
pub fn monotonic() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the log has a clock of its own: it is not part of the core"
)]
fn wall_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_clock_is_followed_slowly_and_never_backwards() {
        let second = Duration::from_secs(1);
        assert_eq!(advance(10_000_000, second, 11_000_000), 11_000_000);
        assert_eq!(advance(10_000_000, second, 99_000_000), 11_125_000);
        assert_eq!(advance(10_000_000, second, 0), 10_875_000);
        assert_eq!(advance(10_000_000, Duration::ZERO, 99_000_000), 10_000_000);
    }

    #[test]
    fn time_starts_where_it_was_left() {
        let future = wall_us() / 1000 + 1_000_000;
        assert!(LogClock::start(future).now_ms() >= future);
    }
}

//! Deadlines: every wait of a test ends, and says what it waited for.

use std::time::{Duration, Instant};

/// No event of these tests takes longer on a loaded machine with two cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The clock of the tests.
#[expect(
    clippy::disallowed_methods,
    reason = "tests measure the real process in real time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Since the Unix epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "token expiry and due times are wall-clock time"
)]
fn since_epoch() -> Duration {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("a clock after 1970")
}

/// Seconds since the Unix epoch, for token claims.
pub(crate) fn unix_seconds() -> i64 {
    i64::try_from(since_epoch().as_secs()).expect("a clock before the year 292e9")
}

/// Milliseconds since the Unix epoch, for due times and times that the server says.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).expect("a clock before the year 584e6")
}

/// Asks `poll` again until it answers; fails the test at the deadline. For facts that come without an event
/// on a socket: a file that appears, a process that ends, a counter that the server publishes.
pub(crate) fn until<T>(what: &str, poll: impl FnMut() -> Option<T>) -> T {
    until_within(DEADLINE, what, poll)
}

/// The same for what takes its time.
pub(crate) fn until_within<T>(
    deadline: Duration,
    what: &str,
    mut poll: impl FnMut() -> Option<T>,
) -> T {
    let end = now() + deadline;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(now() < end, "waited {deadline:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

//! What the swarm counts while a window of time is measured.

use hdrhistogram::Histogram;

use super::super::BenchError;

/// Latencies above this are recorded as this: one minute in nanoseconds.
const LATENCY_MAX: u64 = 60_000_000_000;

/// Counters since the last `Swarm::measure`.
pub(crate) struct Stats {
    /// Publications received for the first time.
    pub(crate) deliveries: u64,
    /// Publications sent.
    pub(crate) publications: u64,
    /// Receives of subscribers that brought bytes.
    pub(crate) receives: u64,
    /// Bytes received by subscribers.
    pub(crate) bytes: u64,
    /// Bytes sent, all clients.
    pub(crate) sent: u64,
    /// Bytes of the requests to upgrade, part of `sent`.
    pub(crate) upgrade_sent: u64,
    /// Bytes of the answers to them, part of `bytes`.
    pub(crate) upgrade_bytes: u64,
    /// Frames received by subscribers.
    pub(crate) frames: u64,
    /// When subscribers were told to reconnect elsewhere.
    pub(crate) told: Vec<u64>,
    /// Nanoseconds from the intended send time.
    pub(crate) latency: Histogram<u64>,
    /// Nanoseconds from `Swarm::connect` to the end of each join.
    pub(crate) joins: Histogram<u64>,
}

impl Stats {
    pub(super) fn new() -> Result<Self, BenchError> {
        Ok(Self {
            deliveries: 0,
            publications: 0,
            receives: 0,
            bytes: 0,
            sent: 0,
            upgrade_sent: 0,
            upgrade_bytes: 0,
            frames: 0,
            told: Vec::new(),
            latency: histogram()?,
            joins: histogram()?,
        })
    }

    #[inline]
    pub(super) fn delivered(&mut self, latency: u64) {
        self.deliveries += 1;
        self.latency.saturating_record(latency);
    }
}

/// An empty histogram of nanoseconds with three significant digits.
pub(crate) fn histogram() -> Result<Histogram<u64>, BenchError> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).map_err(|_| BenchError::Histogram)
}

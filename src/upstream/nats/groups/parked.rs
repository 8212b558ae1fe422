//! What of a group waits here: in lines, or for its time where its line waits with it. The server keeps it leased to this process, which
//! remembers its number only and reads it again when it is wanted. What waits for its time alone is given back with a delay, which the
//! server keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::upstream::desk::unix_ms;
use crate::upstream::log::{Lease, LineId};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// By line and sequence.
    pub(super) lined: BTreeMap<(LineId, u64), Lease>,
    /// By due time and sequence.
    pub(super) delayed: BTreeMap<(Instant, u64), (Lease, LineId)>,
}

/// When something is due that is due at this time of the wall clock.
pub(super) fn due_at(unix_now: u64, due: u64) -> Instant {
    Instant::now() + Duration::from_millis(due.saturating_sub(unix_now))
}

/// The word that gives a delivery back for a while.
pub(super) fn later(until_unix_ms: u64) -> Bytes {
    let ms = until_unix_ms.saturating_sub(unix_ms());
    Bytes::from(format!(
        "-NAK {{\"delay\": {}}}",
        ms.saturating_mul(1_000_000)
    ))
}

impl Parked {
    /// When the first is due.
    pub(super) fn first_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|(&(due, _), _)| due)
    }

    /// All that wait.
    pub(super) fn leases(&self) -> Vec<Lease> {
        let delayed = self.delayed.values().map(|(lease, _)| *lease);
        self.lined.values().copied().chain(delayed).collect()
    }
}

//! Copies of a whole log.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::mesh::durable::LogError;

/// What of a log is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Entries with a greater cursor.
    pub after: u64,
    /// Bytes of entries a second at most; 0 for no limit.
    pub rate: u64,
}

/// A log that can be copied as a whole while it is used.
#[allow(async_fn_in_trait, reason = "the bridge runs its log on one thread")]
pub trait Copies: 'static {
    /// Gives a stream of `upstream::copy`: the entries, then everything else, as all of it was at one moment near the end. Waits
    /// while nobody takes what is given; ends early where nobody does any more.
    async fn copy(&self, wanted: Wanted, out: mpsc::Sender<Bytes>) -> Result<(), LogError>;
}

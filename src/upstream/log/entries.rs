//! What a log keeps: entries, appended once and read as often as anybody likes.

use std::sync::Arc;

use super::Status;
use crate::mesh::durable::{Appended, LogError, Read, Span};
use crate::model::{ChannelName, Draft, Entry, StreamPosition};

/// The entries of a log.
///
/// Promises:
/// - An entry is stored when `append` says so: it survives the loss of the process, and of the machine where the log is
///   configured so.
/// - Offsets of a channel are 1, 2, 3 … without holes within an epoch, in the order of the appends, over restarts.
/// - Of two processes that write one channel at the same time at most one succeeds.
/// - `tail` gives every entry that was stored since the log was opened, also one whose append has failed without
///   anybody knowing whether it was stored; once, in the order of its channel.
#[allow(async_fn_in_trait, reason = "the bridge runs its log on one thread")]
pub trait Entries: 'static {
    /// Batches that may be appended at the same time. The appends of a channel come in the order in which they are to be
    /// stored, in one batch or in several.
    const APPENDS_AT_ONCE: usize;

    /// Appends in one batch at most. A batch is answered as a whole: where the way to the log is long, several small ones keep it
    /// busy while one large one leaves it idle between them.
    const APPENDS_PER_BATCH: usize = 2048;

    /// How it does. Cheap.
    fn status(&self) -> Status;

    /// Stores a batch; one result for each, in order. One failure is not everybody's, but where an append of a channel
    /// has failed, the later ones of the same channel may succeed: they get the next offsets.
    async fn append(&self, batch: Vec<Draft>) -> Vec<Result<Appended, LogError>>;

    /// Entries that have become visible since the last call, in the order of the log; waits until there are some. May be dropped
    /// at any time without losing any. After `Err` the log has lost its place (it was opened anew): what was stored meanwhile is
    /// read by whoever cares, and later entries come again.
    async fn tail(&self) -> Result<Vec<Arc<Entry>>, LogError>;

    /// What of channels is not kept any more, by rules of their namespaces or by itself: for whoever has it in memory. `tail`
    /// returns when there is some.
    fn take_forgotten(&self) -> Vec<(ChannelName, Forgotten)> {
        Vec::new()
    }

    /// A part of a channel, oldest first.
    async fn read(&self, read: &Read) -> Result<Slice, LogError>;

    /// A part of the whole log, oldest first.
    async fn scan(&self, scan: &Scan) -> Result<Scanned, LogError>;

    /// The cursor of the first entry that was taken in at this time or later, or of the end.
    async fn seek(&self, unix_ms: u64) -> Result<u64, LogError>;

    /// Forgets what a channel has kept; its position stays.
    async fn trim(&self, channel: &ChannelName) -> Result<(), LogError>;
}

/// What of a channel is not kept any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// All before this offset.
    Before(u64),
    /// These offsets, ascending.
    Some(Box<[u64]>),
}

/// A part of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The channel's end when it was read. Of a channel that was never appended to: its epoch, and offset 0.
    pub position: StreamPosition,
    /// Ascending. Holes are what ended before its turn: its time was over, or a later one has its key.
    pub entries: Vec<Arc<Entry>>,
    /// What of the channel that is.
    pub span: Span,
}

/// A question about the whole log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Entries with a greater cursor.
    pub after: u64,
    /// Entries of these channels, globs; empty for all.
    pub channels: Vec<Box<str>>,
    /// Entries at most.
    pub limit: usize,
    /// Bytes of records at most; one entry is given whatever its size.
    pub bytes: usize,
    /// Entries looked at at most, those of other channels included.
    pub looked_at: usize,
}

/// Answer to `Scan`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Ascending.
    pub entries: Vec<Arc<Entry>>,
    /// Go on after this.
    pub next: u64,
    /// Nothing is behind it yet.
    pub at_end: bool,
}

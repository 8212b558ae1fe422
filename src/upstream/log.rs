//! The seam to a durable log, in the parts that can be had separately. Whoever uses a log says which parts it needs.

mod copies;
mod entries;
mod groups;
mod letters;
mod scheduled;
mod values;

use crate::config::Config;

pub use copies::{Copies, Wanted};
pub use entries::{Entries, Forgotten, Scan, Scanned, Slice};
pub use groups::{
    Failure, FromLine, Group, Groups, Lag, Lease, Leased, Line, LineId, Settled, Undone,
    worker_name,
};
pub use letters::{Announce, Bounds, Cause, Census, DeadLetter, EXPIRED, Letters};
pub use scheduled::{Name, Page, Pending, Place, Schedule, Scheduled, Which};
pub use values::{Found, Values};

/// A durable log: all parts of the seam, opened and closed as one.
///
/// Its futures run on the bridge's only thread, beside everything else there. The one in JetStream never blocks that thread. The
/// embedded one does while it commits: for what a commit looks up and writes, its sync to the disk, and before that, where the
/// background is behind with flushing, until that has caught up or has failed. Parts of channels and of the whole log it reads
/// on other threads.
#[allow(async_fn_in_trait, reason = "the bridge runs its log on one thread")]
pub trait Log: Copies + Entries + Groups + Letters + Scheduled + Values {
    /// A reload: what of it the log can follow, it does, and nobody waits for it.
    fn reload(&self, _config: &Config) {}

    /// Everything that was settled is stored; nothing is asked after it.
    async fn close(&self);
}

/// What a namespace has forgotten by rules of its own, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expiries {
    /// Its name; empty for channels without one.
    pub namespace: Box<str>,
    /// Entries.
    pub entries: u64,
    /// Bytes of the log that are free.
    pub bytes: u64,
}

/// How a log does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Why nothing can be appended; `None` while it can.
    pub down: Option<Box<str>>,
    /// What an operator should know, a sentence each.
    pub warnings: Vec<Box<str>>,
    /// Bytes kept, as far as that is known.
    pub bytes: u64,
    /// Entries kept, as far as that is known.
    pub entries: u64,
    /// Cursor of the last entry.
    pub end: u64,
    /// What waits for its time.
    pub schedule: Schedule,
    /// What namespaces have forgotten.
    pub expiries: Vec<Expiries>,
    /// Leases of this process that nobody here knew any more, so that what they are of was given again, since the start.
    pub orphaned_leases: u64,
}

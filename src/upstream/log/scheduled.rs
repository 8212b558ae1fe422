//! Publications that are not due yet.

use crate::mesh::durable::LogError;
use crate::metrics::Histogram;
use crate::model::{ChannelName, Draft, EventId};

/// What waits in a log for its time. It gets there by `Entries::append` of a draft with a time, and comes out by itself: when it is
/// due it becomes an entry like any other.
///
/// Promises:
/// - What waits is stored like an entry, and retention does not count it. It stands in no channel and has no offset.
/// - Each becomes an entry once, whoever is killed when, not before its time. What is overdue comes in the order of the times.
/// - An idempotency key of what waits counts like that of an entry.
#[allow(async_fn_in_trait, reason = "the bridge runs its log on one thread")]
pub trait Scheduled: 'static {
    /// A page of what waits, in the order of the times.
    async fn scheduled(&self, wanted: &Page) -> Result<Vec<Pending>, LogError>;

    /// What waits under this name.
    async fn pending(&self, which: &Which) -> Result<Option<Pending>, LogError>;

    /// Forgets one that waits; its key is free again. `None` if there is none: it may be published.
    async fn cancel(&self, which: &Which) -> Result<Option<Pending>, LogError>;

    /// Gives one that waits another time, Unix milliseconds. Likewise.
    async fn change(&self, which: &Which, due_ms: u64) -> Result<Option<Pending>, LogError>;
}

/// Part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Of this channel; `None` for all.
    pub channel: Option<ChannelName>,
    /// Behind this one.
    pub after: Option<Place>,
    /// At most.
    pub limit: usize,
    /// Bytes of their records at most; one is given whatever its size.
    pub bytes: usize,
}

/// Where one stands among those that wait: its time, and a number that is its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Unix milliseconds.
    pub due_ms: u64,
    /// The log's own.
    pub number: u128,
}

/// One that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// See there.
    pub place: Place,
    /// What is published, with its time.
    pub draft: Draft,
}

/// One of those that wait in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which {
    /// Channel.
    pub channel: ChannelName,
    /// Which of them.
    pub name: Name,
}

/// How one is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// By its idempotency key.
    Key(Box<str>),
    /// By its event id.
    Event(EventId),
}

/// How those that wait do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// How many wait, as far as that is known.
    pub pending: u64,
    /// When the first one is due, Unix milliseconds, as far as that is known.
    pub next_ms: Option<u64>,
    /// How much later than their time this process has published them.
    pub late: Histogram,
}

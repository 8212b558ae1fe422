//! Between control and the shards.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use super::bell::Doorbell;
use super::durable::DurableLink;
use super::hook::HookLink;
use crate::config::Config;
use crate::config::keys::{KeySet, KeySource};
use crate::metrics::Counters;
use crate::model::{AskId, ShardId};

/// Who waits for a page: a request at an internal listener. Echoed; one that has ended is ignored by the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFor(pub AskId);

/// From control to a shard.
#[derive(Debug)]
pub enum ToShard {
    /// The configuration changed.
    Reload(Arc<Config>),
    /// Stop listening, answer what waits, tell everybody within `window` to come back elsewhere, cut what is left after `grace` more.
    Drain {
        /// Disconnects are spread over this time.
        window: Duration,
        /// Time for the last bytes.
        grace: Duration,
    },
    /// Report the counters.
    Observe,
    /// Answer to `PageWanted`.
    Page(PageFor, ControlPage),
    /// The service with the public keys has answered, or does not (`None`).
    Keys(KeySource, Option<Arc<KeySet>>),
    /// End now.
    Stop,
}

/// From a shard to control.
#[derive(Debug)]
pub enum FromShard {
    /// Tokens name keys that are not known here. Answered by `Keys`.
    KeysWanted(ShardId, KeySource),
    /// Unfinished input of clients has reached its bound: so many bytes. Told from time to time.
    InputFull(ShardId, u64),
    /// The listeners are up.
    Ready(ShardId),
    /// Somebody at an internal listener asks for a page that control writes. Answered by `Page`, always.
    PageWanted(ShardId, PageFor, PageKind),
    /// A table that peers fill is four fifths full (`true`), or no longer so.
    Table(ShardId, TableKind, bool),
    /// The shard came near a limit of the system, or is no longer near it.
    Strained(ShardId, Strain),
    /// The shard works with this configuration.
    Reloaded(ShardId, Arc<Config>),
    /// Answer to `Observe`.
    Observed(ShardId, Box<Counters>),
    /// No connection, operation or message is left, or the deadline passed. The shard's thread ends after it.
    Drained(ShardId, DrainOutcome),
    /// The shard's thread ended for a reason of its own; the process cannot go on.
    Failed(ShardId, String),
}

/// How near a shard is to what the system lets it have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strain {
    /// Open connections.
    pub open: u32,
    /// Connections at which no more are accepted.
    pub open_max: u32,
    /// Nine tenths of them were reached, and it has not come well below since.
    pub is_near: bool,
    /// Nobody is accepted.
    pub is_paused: bool,
    /// What accepting failed with last (`errno`); 0 when it did not.
    pub failed: i32,
    /// Connections that wait on the fullest listener.
    pub queued: u32,
    /// Places of its queue.
    pub queued_max: u32,
    /// Nine tenths of them were taken, and it has not come well below since.
    pub is_crowded: bool,
    /// Connections that the kernel refused since the shard was looked at last, because a queue was full.
    pub dropped: u32,
}

/// Pages that control writes, wherever they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Is this process ready?
    Ready,
    /// All counters.
    Metrics,
}

/// A page that control wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPage {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`
    pub content_type: &'static str,
    /// What is written.
    pub body: Bytes,
}

/// A table of a shard with a bound, filled by what peers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableKind {
    /// Channels that the shard owns: `channel.owned_limit`.
    ChannelsOwned,
    /// Channels with subscribers on the shard.
    ChannelsLocal,
    /// Idempotency keys of channels that are not durable.
    IdempotencyKeys,
    /// Address prefixes whose clients are counted.
    Prefixes,
    /// Revoked tokens, or users that are shut out.
    Revocations,
}

impl TableKind {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::ChannelsOwned,
        Self::ChannelsLocal,
        Self::IdempotencyKeys,
        Self::Prefixes,
        Self::Revocations,
    ];

    /// Its metric.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChannelsOwned => "channels_owned",
            Self::ChannelsLocal => "channels_local",
            Self::IdempotencyKeys => "idempotency_keys",
            Self::Prefixes => "prefixes",
            Self::Revocations => "revocations",
        }
    }
}

/// How a drain ended. The first three are all connections that were there or came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainOutcome {
    /// Connections that were told to come back elsewhere, and left.
    pub told: u64,
    /// Connections that left by themselves before it was their turn.
    pub left: u64,
    /// Connections cut at the deadline.
    pub forced: u64,
    /// Of those that were cut: they waited for the answer to a request.
    pub unanswered: u64,
    /// Durable publications accepted and not acknowledged.
    pub unacked: u64,
}

/// Control's end of the line to one shard.
#[derive(Clone)]
pub struct ShardLink {
    /// Which shard.
    pub shard: ShardId,
    /// Bounded queue into it.
    pub queue: Arc<ArrayQueue<ToShard>>,
    /// Wakes it.
    pub bell: Arc<dyn Doorbell>,
    /// Its calls to backends.
    pub hooks: HookLink,
    /// What it asks of the log.
    pub durable: DurableLink,
}

/// A shard thread's end of the line to control.
#[derive(Clone)]
pub struct ControlLink {
    /// Messages for this shard.
    pub inbox: Arc<ArrayQueue<ToShard>>,
    /// Bounded queue shared by all shards. When it is full a report waits in its shard.
    pub reports: Arc<ArrayQueue<FromShard>>,
    /// Wakes control.
    pub bell: Arc<dyn Doorbell>,
    /// Calls to backends.
    pub hooks: HookLink,
    /// What is asked of the log.
    pub durable: DurableLink,
}

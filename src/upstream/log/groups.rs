//! Queue groups as a log keeps them: who has which entry, and what became of it.

use std::sync::Arc;
use std::time::Duration;

use crate::mesh::durable::LogError;
use crate::model::{ClientId, Entry};

/// The queue groups of a log. It only leases entries and is told what became of them; who gets which, and when it is tried
/// again, is decided by whoever asks.
#[allow(async_fn_in_trait, reason = "the bridge runs its log on one thread")]
pub trait Groups: 'static {
    /// Makes a group, or changes one. It takes from the log's beginning or from now on, as it was first said.
    async fn open_group(&self, group: &Group) -> Result<(), LogError>;

    /// All groups.
    async fn groups(&self) -> Result<Vec<Group>, LogError>;

    /// Forgets a group. `false` if there is none.
    async fn delete_group(&self, name: &str) -> Result<bool, LogError>;

    /// Takes at most `limit` entries for a group that nobody has: they are leased to this process until they are
    /// settled, or until it ends (or does not keep them). Waits until there is one. May be dropped at any time: what it would
    /// have given is given later.
    async fn fetch(&self, group: &str, limit: usize) -> Result<Vec<Leased>, LogError>;

    /// Says what became of leased entries. Durable with the next commit at the latest; a lease that is unknown is ignored.
    async fn settle(&self, group: &str, settled: &[(Lease, Settled)]) -> Result<(), LogError>;

    /// How far behind a group is.
    async fn lag(&self, group: &str) -> Result<Lag, LogError>;
}

/// A queue group as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Group {
    /// Name.
    pub name: Box<str>,
    /// Channels it takes from: names, or globs.
    pub channels: Vec<Box<str>>,
    /// It starts with what is kept already; else with what comes next. Read when the group is made.
    pub from_beginning: bool,
    /// A lease that is neither settled nor kept for this long may be given to others, by logs that are shared.
    pub lease: Duration,
    /// A channel's entries come in order, also those that a process had when it died: they come first, once its leases have run
    /// out.
    #[serde(default)]
    pub ordered: bool,
}

/// A leased entry of a group: opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease(pub u64);

/// See `Groups::fetch`.
#[derive(Clone, Debug)]
pub struct Leased {
    /// To settle it.
    pub lease: Lease,
    /// What it is.
    pub entry: Arc<Entry>,
    /// What has failed with it so far.
    pub failures: Vec<Failure>,
}

/// What became of a leased entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is done, for good.
    Done,
    /// An attempt failed. The lease is kept.
    Failed(Failure),
    /// Work goes on: the lease is kept. Where leases run out, this is said again within `Group::lease`.
    Kept,
    /// This process gives it back: it is fetched again, here or elsewhere.
    Returned,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Which, from 1.
    pub attempt: u32,
    /// When, Unix milliseconds.
    pub unix_ms: u64,
    /// What the worker said, or `ack_wait` if it said nothing in time.
    pub reason: Box<str>,
    /// Who had it: user and client id of the worker, for people.
    pub worker: Box<str>,
}

/// How far behind a group is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Entries that are neither done nor leased, as far as that is known.
    pub entries: u64,
    /// Entries that somebody has leased, here or elsewhere.
    pub leased: u64,
    /// When the oldest entry that is not done was taken in, Unix milliseconds; `None` if all are done.
    pub oldest_unix_ms: Option<u64>,
    /// Entries that retention, or an order to forget them, has taken before they were done; about as many. Survives restarts.
    pub lost: u64,
    /// Of them, those that were lost before this process looked first.
    pub lost_before: u64,
}

/// Who gets deliveries: for people.
#[must_use]
pub fn worker_name(user: &str, client: ClientId) -> String {
    if user.is_empty() {
        client.to_string()
    } else {
        format!("{user} {client}")
    }
}

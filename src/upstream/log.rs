//! The seam to a durable log: what every log must be able to do, and what it promises.

use std::sync::Arc;
use std::time::Duration;

use crate::mesh::durable::{Appended, LogError, Read};
use crate::model::{ChannelName, ClientId, Draft, Entry, EventId, StreamPosition};

/// A durable log. Its futures run on the bridge's thread; none of them blocks it for longer than one commit takes.
///
/// Promises:
/// - An entry is stored when `append` says so: it survives the loss of the process, and of the machine where the log is
///   configured so.
/// - Offsets of a channel are 1, 2, 3 … without holes within an epoch, in the order of the appends, over restarts.
/// - Of two processes that write one channel at the same time at most one succeeds.
/// - `tail` gives every entry that was stored since the log was opened, also one whose append has failed without
///   anybody knowing whether it was stored; once, in the order of its channel.
#[allow(async_fn_in_trait, reason = "the bridge runs its log on one thread")]
pub trait Log: 'static {
    /// Batches that may be appended at the same time. The appends of a channel come in the order in which they are to be
    /// stored, in one batch or in several.
    const APPENDS_AT_ONCE: usize;

    /// Appends in one batch at most. A batch is answered as a whole: where the way to the log is long, several small ones keep it
    /// busy while one large one leaves it idle between them.
    const BATCH_MAX: usize = 2048;

    /// How it does. Cheap.
    fn status(&self) -> Status;

    /// Stores a batch; one result for each, in order. One failure is not everybody's, but where an append of a channel
    /// has failed, the later ones of the same channel may succeed: they get the next offsets.
    async fn append(&self, batch: Vec<Draft>) -> Vec<Result<Appended, LogError>>;

    /// Entries that have become visible since the last call, in the order of the log; waits until there are some. May be dropped
    /// at any time without losing any. After `Err` the log has lost its place (it was opened anew): what was stored meanwhile is
    /// read by whoever cares, and later entries come again.
    async fn tail(&self) -> Result<Vec<Arc<Entry>>, LogError>;

    /// A part of a channel, oldest first.
    async fn read(&self, read: &Read) -> Result<Slice, LogError>;

    /// A part of the whole log, oldest first.
    async fn scan(&self, scan: &Scan) -> Result<Scanned, LogError>;

    /// The cursor of the first entry that was taken in at this time or later, or of the end.
    async fn seek(&self, unix_ms: u64) -> Result<u64, LogError>;

    /// Forgets what a channel has kept; its position stays.
    async fn trim(&self, channel: &ChannelName) -> Result<(), LogError>;

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

    /// Keeps a dead letter, durably. The same letter (group and event) once more replaces the first.
    async fn bury(&self, letter: &DeadLetter) -> Result<(), LogError>;

    /// Dead letters in the order of (group, event), those after `after`.
    async fn dead_letters(
        &self,
        group: Option<&str>,
        after: Option<(&str, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError>;

    /// One dead letter.
    async fn dead_letter(
        &self,
        group: &str,
        event: EventId,
    ) -> Result<Option<DeadLetter>, LogError>;

    /// Forgets a dead letter. `false` if there is none.
    async fn exhume(&self, group: &str, event: EventId) -> Result<bool, LogError>;

    /// A small value that survives, by key; `None` forgets it. For what the bridge remembers (schemas).
    async fn put(&self, key: &str, value: Option<&[u8]>) -> Result<(), LogError>;

    /// See `put`.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LogError>;

    /// Everything that was settled is stored; nothing is asked after it.
    async fn close(&self);
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
}

/// A part of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The channel's end when it was read. Of a channel that was never appended to: its epoch, and offset 0.
    pub position: StreamPosition,
    /// Ascending, without holes.
    pub entries: Vec<Arc<Entry>>,
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

/// See `Log::fetch`.
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
    /// When the oldest entry that is not done was taken in, Unix milliseconds; `None` if all are done.
    pub oldest_unix_ms: Option<u64>,
    /// Entries that retention, or an order to forget them, has taken before they were done; about as many. Survives restarts.
    pub lost: u64,
    /// Of them, those that were lost before this process looked first.
    pub lost_before: u64,
}

/// An entry whose attempts are used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Group that could not work it off.
    pub group: Box<str>,
    /// What it is.
    pub entry: Arc<Entry>,
    /// Its whole history, oldest first.
    pub failures: Vec<Failure>,
    /// When it died, Unix milliseconds.
    pub unix_ms: u64,
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

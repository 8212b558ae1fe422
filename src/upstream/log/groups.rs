//! Queue groups as a log keeps them: who has which entry, and what became of it.

use std::sync::Arc;
use std::time::Duration;

use crate::mesh::durable::LogError;
use crate::model::{ClientId, Entry};

/// The queue groups of a log. It only leases entries and is told what became of them; who gets which, and when it is tried
/// again, is decided by whoever asks.
#[allow(async_fn_in_trait, reason = "the bridge runs its log on one thread")]
pub trait Groups: 'static {
    /// A retry that is not further away may be kept by whoever has the lease: the log says after the loss of the process in time what was
    /// leased, and when it is due.
    const RETRY_KEPT: Duration = Duration::from_secs(10);

    /// The log itself forgets what has ended before its turn, and counts it or makes a letter of it. Else it gives it like anything
    /// else, and whoever fetches does that.
    const FORGETS_ENDED: bool = true;

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

    /// What is settled so far is stored when this returns: it survives the loss of the process, and of the machine where the log
    /// is configured so.
    async fn store_settled(&self, group: &str) -> Result<(), LogError>;

    /// Lines of a group in which entries wait: after a start, for whoever decides about their turns.
    async fn lines(&self, group: &str) -> Result<Vec<Line>, LogError>;

    /// Takes entries that an earlier process, or this one, had and gave back or never settled, as far as they come before all
    /// others: of an ordered group they stand in front of what its lines have. None where the log gives them by itself.
    async fn left_over(&self, group: &str, limit: usize) -> Result<Vec<Leased>, LogError>;

    /// Nobody here takes from the group now: what waits in its lines is for others, where there may be some.
    async fn leave_lines(&self, group: &str) -> Result<(), LogError>;

    /// Takes the first entries of some lines, at most so many of each, like `fetch`. Every line that has entries gives one at least.
    async fn fetch_lines(
        &self,
        group: &str,
        wanted: &[(LineId, usize)],
    ) -> Result<Vec<FromLine>, LogError>;

    /// There are no lines any more: whatever waits in one, or for its time and its line with it, is fetched like the rest; with `all`
    /// whatever waits for its time, too, as far as the log can call it back.
    async fn release(&self, group: &str, all: bool) -> Result<(), LogError>;

    /// The group begins anew behind this cursor: what it had not done and what waits is its no more, and its leases are unknown. Durable.
    async fn seek_group(&self, group: &str, after: u64) -> Result<(), LogError>;

    /// Entries behind a cursor that the group has not done, in the order of the log, as far as that is known.
    async fn undone(&self, group: &str, after: u64, limit: usize) -> Result<Vec<Undone>, LogError>;

    /// How far behind a group is.
    async fn lag(&self, group: &str) -> Result<Lag, LogError>;
}

/// Name of a line of a group: entries with the same key and priority, which wait for their turn behind each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LineId(pub u64);

/// A line in which entries wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub id: LineId,
    /// Entries in it.
    pub entries: u64,
    /// Entries that come back to it by `fetch` when their time has come.
    pub delayed: u64,
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
    /// It starts behind this cursor, whatever `from_beginning` says. Read when the group is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_after: Option<u64>,
    /// A lease that is neither settled nor kept for this long may be given to others, by logs that are shared.
    pub lease: Duration,
    /// A channel's entries come in order, also those that a process had when it died: they come first, once its leases have run
    /// out.
    #[serde(default)]
    pub ordered: bool,
}

/// An entry that a group has not done.
#[derive(Clone, Debug)]
pub struct Undone {
    /// What it is.
    pub entry: Arc<Entry>,
    /// What has failed with it.
    pub failures: Vec<Failure>,
    /// Somebody has leased it.
    pub is_leased: bool,
}

/// What a line has given.
#[derive(Clone, Debug)]
pub struct FromLine {
    /// Which.
    pub id: LineId,
    /// Its first entries, in order.
    pub leased: Vec<Leased>,
    /// Entries that it still has.
    pub left: u64,
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
    /// It has waited for its time, and that has come: `Settled::Delayed`.
    pub was_delayed: bool,
}

/// What became of a leased entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is done, for good.
    Done,
    /// The same, but nobody has done it: its time was over.
    Lost,
    /// An attempt failed. The lease is kept.
    Failed(Failure),
    /// Work goes on: the lease is kept. Where leases run out, this is said again within `Group::lease`.
    Kept,
    /// This process gives it back: it is fetched again, here or elsewhere.
    Returned,
    /// Nobody has it until this time: then it is fetched again. Of a line, where it belongs to one.
    Delayed {
        /// Unix milliseconds.
        until_unix_ms: u64,
        /// See `Line::delayed`.
        line: Option<LineId>,
    },
    /// It waits in a line, at its place in the order of the log, for `fetch_lines`.
    Lined(LineId),
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
    /// When the next attempt is due, Unix milliseconds; 0 where the group's backoff says it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub next_unix_ms: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How far behind a group is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Entries that are neither done nor leased nor delayed, as far as that is known.
    pub entries: u64,
    /// Entries that wait for their time.
    pub delayed: u64,
    /// When the first of them is due, Unix milliseconds.
    pub due_unix_ms: Option<u64>,
    /// Entries that somebody has leased, here or elsewhere.
    pub leased: u64,
    /// When the oldest entry that is not done was taken in, Unix milliseconds; `None` if all are done.
    pub oldest_unix_ms: Option<u64>,
    /// Entries that retention, or an order to forget them, has taken before they were done; about as many. Survives restarts.
    pub lost: u64,
    /// Of them, those that were lost before this process looked first.
    pub lost_before: u64,
    /// Of them, those that this process has made dead letters of.
    pub buried: u64,
    /// A seek to behind this cursor has begun, here or elsewhere, and is not finished: `Groups::seek_group` finishes it.
    pub seeking: Option<u64>,
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

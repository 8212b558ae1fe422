//! The desk: whatever is asked about queue groups, dead letters and replays is answered here, on the bridge's thread.

use std::rc::Rc;

use bytes::Bytes;

use super::Log;
use crate::config::Config;
use crate::mesh::durable::{Append, Appended, Ask, LogError, RequestId};
use crate::model::{ConnId, ShardId};

/// Who waits for an answer.
pub type Asker = (ShardId, RequestId);

/// A connection that takes deliveries.
pub type WorkerId = (ShardId, ConnId);

/// What the desk needs of the bridge. None of it calls back into the desk before it returns.
#[allow(async_fn_in_trait, reason = "the desk runs on one thread")]
pub trait Outlet: 'static {
    /// The answer to `Desk::ask`; every question gets one.
    fn answer(&self, to: Asker, result: Result<Bytes, LogError>);

    /// A delivery, JSON. Those of one worker stay in order.
    fn deliver(&self, to: WorkerId, delivery: Bytes);

    /// Something is published on an ephemeral channel.
    fn announce(&self, channel: &str, data: Bytes);

    /// Calls the hook with this name; an error says why it does not count as called.
    async fn hook(&self, name: &str, body: Bytes) -> Result<(), String>;

    /// Stores publications like anybody's, one result each, in order.
    async fn append(&self, appends: Vec<Append>) -> Vec<Result<Appended, LogError>>;
}

/// How a group does, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupReport {
    /// Name.
    pub name: Box<str>,
    /// Connections that take from it.
    pub workers: usize,
    /// Deliveries that are neither settled nor run out.
    pub in_flight: usize,
    /// Entries that are leased to this process, those in flight included.
    pub held: usize,
    /// Of them, those that wait for their next attempt.
    pub retries: usize,
    /// Entries that are neither done nor leased, as of a few seconds ago.
    pub lag: u64,
    /// When the oldest entry that is not done was taken in, Unix milliseconds, likewise.
    pub oldest_unix_ms: Option<u64>,
    /// Deliveries since the start.
    pub delivered: u64,
    /// Of them, those of an entry that was delivered before.
    pub redelivered: u64,
    /// Deliveries that were acknowledged.
    pub acked: u64,
    /// Deliveries that a worker gave up.
    pub naked: u64,
    /// Deliveries that ran out.
    pub timed_out: u64,
    /// Entries that became dead letters.
    pub dead: u64,
}

/// See the module. Lives on a current-thread runtime, within a `LocalSet`.
pub struct Desk<L, O> {
    log: Rc<L>,
    outlet: Rc<O>,
}

impl<L: Log, O: Outlet> Desk<L, O> {
    /// Begins: groups are read from the log, triggers start.
    #[must_use]
    pub fn new(log: Rc<L>, outlet: Rc<O>, config: &Config) -> Self {
        let desk = Self { log, outlet };
        desk.reload(config);
        desk
    }

    /// A question; `Outlet::answer` follows, perhaps before this returns.
    pub fn ask(&self, asker: Asker, ask: Ask) {
        let _ = ask;
        self.outlet.answer(asker, Ok(Bytes::from_static(b"{}")));
    }

    /// A worker's connection is gone: what it has goes to others and does not count as an attempt.
    pub fn gone(&self, worker: WorkerId) {
        let _ = worker;
    }

    /// Another configuration counts: triggers that are gone stop, and their groups are forgotten.
    pub fn reload(&self, config: &Config) {
        let _ = config;
    }

    /// How all groups do.
    #[must_use]
    pub fn report(&self) -> Vec<GroupReport> {
        Vec::new()
    }

    /// Gives back everything that is leased. Later questions are answered with an error.
    pub async fn close(&self) {
        self.log.status();
    }
}

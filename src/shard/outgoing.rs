//! What the log's side gives connections, until they have it.
//!
//! Deliveries and answers with deliveries go to a worker as its connection takes them: one that keeps up is never ended for
//! what it was given at once. How much may wait here the desk knows: it counts bytes (`desk/group/window`). It counts what is
//! acknowledged or waited for too long as gone, though it may wait here still: so there is a bound here too. Fetches over HTTP
//! are followed until their answer is with the kernel, so that what finds nobody goes to others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::Shard;
use super::connection::State;
use crate::limits::HTTP_BODY_BYTES_MAX;
use crate::mesh::durable::RequestId;
use crate::model::ConnId;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::push::{Push, ReplyBody};
use crate::session::Phase;

/// Connections that are looked at in one turn.
const LOOKED_AT_PER_TURN: usize = 256;
/// The answer to a fetch that found nothing.
const NOTHING: &[u8] = b"{\"deliveries\":[]}";

/// What waits for a worker's connection to take what is before it.
enum Parcel {
    Delivery(Bytes),
    /// To a command.
    Answer {
        id: u32,
        request: RequestId,
        json: Bytes,
    },
}

impl Parcel {
    const fn bytes(&self) -> usize {
        match self {
            Self::Delivery(json) | Self::Answer { json, .. } => json.len(),
        }
    }
}

/// What a worker was given and its connection does not take.
#[derive(Default)]
struct Undelivered {
    generation: u32,
    messages: VecDeque<Parcel>,
    /// What they hold.
    bytes: usize,
}

/// A service's fetch.
struct Fetch {
    generation: u32,
    request: RequestId,
    is_answered: bool,
    /// Nobody waits for it any more, and the log's side knows.
    is_abandoned: bool,
}

impl Fetch {
    /// Is it this question of this connection? It may ask others.
    fn is_of(&self, conn: ConnId, request: RequestId) -> bool {
        self.generation == conn.generation && self.request == request
    }
}

/// The shard's part of the module.
#[derive(Default)]
pub(super) struct Outgoing {
    /// By slot.
    workers: BTreeMap<u32, Undelivered>,
    /// Where the next look at them begins.
    at: u32,
    /// How many of them are still to be looked at, for what the kernel has taken.
    unseen: usize,
    fetches: BTreeMap<u32, Fetch>,
    /// Slots of those whose answer is being sent.
    sending: BTreeSet<u32>,
}

impl Outgoing {
    /// Deliveries that a service has fetched are on their way.
    pub(super) fn is_sending(&self, slot: u32) -> bool {
        self.sending.contains(&slot)
    }

    /// The kernel has taken bytes: every worker is looked at once, some in each turn.
    pub(super) fn see_all(&mut self) {
        self.unseen = self.workers.len();
    }

    /// Nobody is to be given anything.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            workers,
            at: _,
            unseen: _,
            fetches,
            sending,
        } = self;
        workers.is_empty() && fetches.is_empty() && sending.is_empty()
    }

    pub(super) const fn has_unseen(&self) -> bool {
        self.unseen > 0
    }
}

impl Shard {
    /// A delivery for a worker.
    pub(super) fn deliver_to_worker(&mut self, conn: ConnId, json: Bytes) {
        self.queue_for_worker(conn, Parcel::Delivery(json));
    }

    /// The answer to a worker's fetch.
    pub(super) fn answer_worker(&mut self, conn: ConnId, id: u32, request: RequestId, json: Bytes) {
        if &*json == NOTHING {
            return self.reply(conn, id, ReplyBody::Rpc(&json));
        }
        self.queue_for_worker(conn, Parcel::Answer { id, request, json });
    }

    fn queue_for_worker(&mut self, conn: ConnId, message: Parcel) {
        let is_there = self
            .connections
            .current(conn.slot, conn.generation)
            .is_some_and(|connection| {
                connection.is_session && connection.session.phase == Phase::Connected
            });
        if !is_there {
            // Its end was told, and what it was given goes to others.
            return;
        }
        let worker = self.outgoing.workers.entry(conn.slot).or_default();
        if worker.generation != conn.generation {
            *worker = Undelivered {
                generation: conn.generation,
                ..Undelivered::default()
            };
        }
        worker.bytes += message.bytes();
        worker.messages.push_back(message);
        self.feed_worker(conn.slot);
        let most = (self.config.client.queue_max_size.saturating_mul(2))
            .saturating_add(HTTP_BODY_BYTES_MAX);
        let bytes = self.outgoing.workers.get(&conn.slot).map(|one| one.bytes);
        if bytes.is_some_and(|bytes| bytes > most) {
            self.outgoing.workers.remove(&conn.slot);
            self.disconnect(conn.slot, &Disconnect::Slow);
        }
    }

    /// Gives a worker what its connection has room for. What is larger than that goes when nothing else waits to be sent.
    fn feed_worker(&mut self, slot: u32) {
        let room = self.config.client.queue_max_size / 2;
        loop {
            let Some(worker) = self.outgoing.workers.get_mut(&slot) else {
                unreachable!("it is a worker until here");
            };
            let generation = worker.generation;
            let unsent = self
                .connections
                .current(slot, generation)
                .filter(|connection| connection.session.phase == Phase::Connected)
                .map(super::Connection::unsent_bytes);
            let (Some(unsent), Some(next)) = (unsent, worker.messages.front()) else {
                self.outgoing.workers.remove(&slot);
                return;
            };
            if unsent > 0 && unsent.saturating_add(next.bytes()) > room {
                return;
            }
            let Some(message) = worker.messages.pop_front() else {
                unreachable!("it was there just now");
            };
            worker.bytes -= message.bytes();
            match message {
                Parcel::Delivery(json) => {
                    self.counters.worker_deliveries += 1;
                    self.with_session(slot, |_, context| context.push("", &Push::Message(&json)));
                }
                Parcel::Answer { id, request, json } => {
                    self.reply(ConnId { slot, generation }, id, ReplyBody::Rpc(&json));
                    self.log.taken(request);
                }
            }
        }
    }

    /// Workers that were not looked at since the kernel took bytes get more.
    pub(super) fn feed_workers(&mut self) {
        let count = self.outgoing.unseen.min(LOOKED_AT_PER_TURN);
        if count == 0 {
            return;
        }
        self.outgoing.unseen -= count;
        let at = self.outgoing.at;
        let behind = self.outgoing.workers.range(at..);
        let from_start = self.outgoing.workers.range(..at);
        let slots: Vec<u32> = behind
            .chain(from_start)
            .map(|(&slot, _)| slot)
            .take(count)
            .collect();
        self.outgoing.at = slots.last().map_or(0, |slot| slot + 1);
        for slot in slots {
            self.feed_worker(slot);
        }
    }

    /// The kernel has taken bytes of a connection's own memory.
    pub(super) fn batch_taken(&mut self, slot: u32) {
        if self.outgoing.workers.contains_key(&slot) {
            self.feed_worker(slot);
        }
        let is_sent = |connection: &super::Connection| connection.unsent_bytes() == 0;
        if self.outgoing.is_sending(slot) && is_sent(self.connections.of(slot)) {
            self.fetch_is_over(slot);
        }
    }

    /// Everything polled is with the kernel, or came back: answers to fetches may be with their callers.
    pub(super) fn look_at_fetches(&mut self) {
        let connections = &self.connections;
        let sending = self.outgoing.sending.iter().copied();
        let sent: Vec<u32> = sending
            .filter(|&slot| connections.of(slot).unsent_bytes() == 0)
            .collect();
        for slot in sent {
            self.fetch_is_over(slot);
        }
    }

    /// A service's fetch was asked.
    pub(super) fn fetch_begins(&mut self, conn: ConnId, request: RequestId) {
        // The answer to the one before was taken: the next request of a connection is not read before (`await_request`).
        self.fetch_is_over(conn.slot);
        let fetch = Fetch {
            generation: conn.generation,
            request,
            is_answered: false,
            is_abandoned: false,
        };
        self.outgoing.fetches.insert(conn.slot, fetch);
    }

    /// It is answered: what its caller gets.
    pub(super) fn fetch_answered(
        &mut self,
        conn: ConnId,
        request: RequestId,
        answer: Bytes,
    ) -> Bytes {
        let fetches = &mut self.outgoing.fetches;
        let Some(fetch) = fetches
            .get_mut(&conn.slot)
            .filter(|fetch| fetch.is_of(conn, request))
        else {
            return answer;
        };
        if fetch.is_abandoned || &*answer == NOTHING {
            fetches.remove(&conn.slot);
            return Bytes::from_static(NOTHING);
        }
        fetch.is_answered = true;
        self.outgoing.sending.insert(conn.slot);
        answer
    }

    /// It is answered without deliveries.
    pub(super) fn fetch_failed(&mut self, conn: ConnId, request: RequestId) {
        let fetches = &mut self.outgoing.fetches;
        if fetches
            .get(&conn.slot)
            .is_some_and(|fetch| fetch.is_of(conn, request))
        {
            fetches.remove(&conn.slot);
        }
    }

    /// Whoever waits at this connection is not to be waited for: its fetch, if it has one, is answered at once, with nothing.
    pub(super) fn abandon_fetch(&mut self, slot: u32) {
        if let Some(fetch) = self.outgoing.fetches.get_mut(&slot)
            && !fetch.is_answered
            && !fetch.is_abandoned
        {
            fetch.is_abandoned = true;
            let request = fetch.request;
            self.log.abandoned(request);
        }
    }

    /// A connection is closed, or has sent everything: was the answer to its fetch taken, if it had asked for one?
    pub(super) fn fetch_is_over(&mut self, slot: u32) {
        let is_sending = self.outgoing.sending.remove(&slot);
        let Some(fetch) = self.outgoing.fetches.remove(&slot) else {
            debug_assert!(!is_sending, "what is sent is the answer to a fetch");
            return;
        };
        let is_sent = self
            .connections
            .current(slot, fetch.generation)
            .is_some_and(|connection| {
                connection.unsent_bytes() == 0 && connection.state != State::Gone
            });
        match (fetch.is_answered, fetch.is_abandoned) {
            (_, true) => {}
            (true, false) if is_sent => self.log.taken(fetch.request),
            (true | false, false) => self.log.abandoned(fetch.request),
        }
    }
}

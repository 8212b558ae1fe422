//! One shard: its connections, who listens, the channels it owns, and the queues to its peers.
//!
//! A reactor feeds it what happened (`handle_*`) and takes what is to be done (`poll_output`). Handlers change state and
//! mark; nothing is sent before the reactor asks. See `ARCHITECTURE.md` for the contract.

mod admission;
mod answers;
mod api;
mod client;
mod connection;
mod deliver;
mod drain;
mod durable;
mod emulation;
mod held;
mod hooks;
mod http;
mod inbox;
pub mod inspect;
mod keys;
mod offenders;
mod order;
mod outbox;
mod outgoing;
mod pages;
mod poll;
mod revoke;
mod rings;
mod route;
mod tables;
mod timers;
mod users;
mod waits;
mod websocket;
mod written;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::revocation::Revocations;
use crate::broker::{Hub, Owner};
use crate::config::Config;
use crate::limits;
use crate::mem::{Key, Rng, SecretHash, Secrets, Slab, Tick, TimerWheel};
use crate::mesh::Endpoint;
use crate::mesh::control::{FromShard, ToShard};
use crate::mesh::durable::ToLog;
use crate::mesh::hook::Call;
use crate::metrics::Counters;
use crate::model::{ConnId, HubId, ShardId};
use crate::protocol::disconnect::Disconnect;
use crate::session::fanout::Compression;
use crate::session::order::{Mark, Spares};
use crate::session::poll::Said;
use crate::session::shares::Shares;
use crate::session::{Calls, Context, Requests, Session, Tokens};
use crate::time::{Deadline, Instant, Now};
use crate::wire::http::DateLine;
use crate::wire::websocket::Inflater;

pub use crate::mem::RingRange;
use connection::{Connection, State};
use outbox::Outbox;

/// What a shard speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Clients, services, everything.
    Proxy,
    /// A plain WebSocket echo server on the same wire and reactor.
    Echo,
}

/// Who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; `None` on a unix socket.
    pub ip: Option<IpAddr>,
    /// Where it came in.
    pub door: Door,
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// Clients, and services unless they have a door of their own.
    #[default]
    Clients,
    /// Services and probes: `server.internal_listen`.
    Internal,
}

/// Why a socket was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The shard has as many connections as it may.
    #[error("too many connections")]
    Full,
    /// The shard is draining.
    #[error("draining")]
    Draining,
}

/// How the receiving side ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// The peer sent FIN.
    Eof,
    /// The connection is broken.
    Reset,
}

/// A send failed: the peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer is gone")]
pub struct SendFailed;

/// How a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// FIN after everything that was sent.
    Finish,
    /// RST.
    Abort,
}

/// Bytes to send.
#[derive(Debug, PartialEq, Eq)]
pub enum SendBatch {
    /// In the fan-out ring until `handle_flushed`.
    Ring(RingRange),
    /// Owned by the reactor until it comes back.
    Owned(Vec<u8>),
}

/// What the reactor has to do.
#[derive(Debug)]
pub enum Output {
    /// Send.
    Transmit {
        /// To whom.
        conn: ConnId,
        /// What.
        batch: SendBatch,
    },
    /// Close; `handle_closed` follows.
    Close {
        /// Whom.
        conn: ConnId,
        /// How.
        how: Close,
    },
    /// Read no further from it. What had been read by then still comes: at most `RECEIVE_POOL_BYTES`. The end of the
    /// connection is still told where it is broken; one that the peer only closed is told when reading goes on.
    Pause(ConnId),
    /// Read again.
    Resume(ConnId),
    /// Its peer is dead when it has not acknowledged something for this long: nobody there answers pings.
    Patience(ConnId, Duration),
    /// Close our side: the peer is told that nothing more comes, and may still send. Everything is sent by then.
    HalfClose(ConnId),
    /// Ring that shard's bell.
    Wake(ShardId),
    /// Hand to control.
    Report(FromShard),
    /// Ask a backend; `handle_answer` follows, once.
    Call(Box<Call>),
    /// Ask the log; `handle_log` follows.
    Log(ToLog),
}

/// See the module.
pub struct Shard {
    id: ShardId,
    mode: Mode,
    config: Arc<Config>,
    tokens: Tokens,
    connections: Slab<Connection>,
    hub: Hub,
    owner: Owner,
    mesh: Endpoint,
    users: users::Users,
    admission: admission::Admission,
    calls: api::Calls,
    /// Pages that are awaited of control.
    pages: u32,
    waits: waits::Waits,
    hooks: Calls,
    /// What is asked of the log.
    log: Requests,
    /// Subscribers that get the next part of what they missed when their connection takes it.
    parts: VecDeque<(ConnId, HubId)>,
    /// Those whose connection takes nothing now, by slot.
    stalled: durable::Stalled,
    outbox: Outbox,
    /// What the log's side gives connections.
    outgoing: outgoing::Outgoing,
    reports: VecDeque<FromShard>,
    wheel: TimerWheel,
    /// Of the wheel: a tick, and the slots that are still to be looked at.
    fired: (Tick, Vec<u32>),
    drain: Option<drain::Drain>,
    /// Questions for lost deliveries that found a queue full: hub channel and round.
    unasked: Vec<(HubId, u32)>,
    key_waits: keys::KeyWaits,
    offenders: offenders::Offenders,
    revocations: Revocations,
    /// See `Context::key_wanted`.
    key_wanted: Option<crate::session::KeyWanted>,
    counters: Counters,
    rng: Rng,
    /// Both clocks as of the handler that runs.
    now: Now,
    /// Unique id of the process, the same on every shard.
    uid: String,
    /// Frames of the session that runs; kept for its capacity.
    scratch: Vec<u8>,
    /// Channels with publications of this turn that no subscriber has been given yet.
    runs: Vec<HubId>,
    /// Bytes of the fan-out ring that they will take, about.
    run_bytes: usize,
    /// What is given to the subscribers of one channel; kept for its capacity.
    written: written::Written,
    /// What goes to clients that it was agreed on with is compressed by this.
    compression: Compression,
    /// What comes from them is inflated by this.
    inflater: Inflater,
    /// When the oldest publication that is not with the kernel yet was taken in.
    fan_out_since: Option<Instant>,
    /// See `Context::said`.
    said: VecDeque<(ConnId, Said)>,
    secrets: Secrets,
    /// `Date` of answers.
    date: DateLine,
    /// Bytes of unfinished input that all connections hold.
    input_bytes: usize,
    /// When control was told last that they have reached their bound.
    input_told: Option<Instant>,
    /// Connections whose answers may all be with the kernel after the next flush, if they are not yet.
    owing: Vec<ConnId>,
    /// Connections whose answers are sent and whose next request is to be taken.
    taken: VecDeque<ConnId>,
    /// See `Context::moved`.
    moved: Vec<(u32, u32, u32)>,
    /// See `Context::marks`.
    marks: Vec<Mark>,
    /// See `Context::spares`.
    spares: Spares,
    /// Bytes of commands that wait for their turn.
    waiting_bytes: usize,
    /// Of these, what address prefixes have.
    waiting_shares: Shares,
    /// The last step of the inbox ended by its number.
    has_messages: bool,
    /// Sessions that can go on with commands that waited.
    ready: VecDeque<ConnId>,
    /// Publications of clients that are out, not answered: their subscribers get them first, the publisher among them.
    published: Vec<inbox::PublishedTo>,
    /// Stands for the address prefix of each connection, by slot; 0 where it is not known.
    prefixes: Vec<u32>,
    prefix_hash: SecretHash,
    /// Tables of which control was told that they are filling.
    filling: tables::Filling,
}

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handled {
    /// It is carried out.
    Done,
    /// It has to wait for its turn, and is read again then.
    Waits,
    /// It ended the session.
    Ended,
}

impl Shard {
    /// A shard without connections. The same seed and inputs give the same outputs.
    #[must_use]
    pub fn new(
        id: ShardId,
        mode: Mode,
        config: Arc<Config>,
        endpoint: Endpoint,
        seed: u64,
    ) -> Self {
        let rng = Rng::new(seed ^ u64::from(id.0) << 48);
        let key = key_of_tables(&seeded_key(seed), id);
        let compression = Compression::new(&config.websocket);
        let inflater = Inflater::shared(config.websocket.inflated_bytes_max());
        Self {
            id,
            mode,
            tokens: Tokens::new(&config),
            config,
            connections: Slab::default(),
            hub: Hub::new(&key),
            owner: Owner::new(&key),
            mesh: endpoint,
            users: users::Users::new(&key),
            admission: admission::Admission::new(&key),
            calls: api::Calls::default(),
            pages: 0,
            waits: waits::Waits::default(),
            hooks: Calls::default(),
            log: Requests::default(),
            parts: VecDeque::new(),
            stalled: durable::Stalled::default(),
            outgoing: outgoing::Outgoing::default(),
            outbox: Outbox::new(limits::FANOUT_RING_BYTES, limits::OWN_RING_BYTES),
            reports: VecDeque::new(),
            wheel: TimerWheel::default(),
            fired: (0, Vec::new()),
            drain: None,
            unasked: Vec::new(),
            key_waits: keys::KeyWaits::default(),
            offenders: offenders::Offenders::default(),
            revocations: Revocations::new(&key),
            key_wanted: None,
            counters: Counters::default(),
            rng,
            now: Now::default(),
            uid: format!("{:016x}", Rng::new(!seed).bits()),
            scratch: Vec::new(),
            runs: Vec::new(),
            run_bytes: 0,
            written: written::Written::default(),
            compression,
            inflater,
            fan_out_since: None,
            said: VecDeque::new(),
            secrets: Secrets::new(&seeded_key(seed), id.0),
            date: DateLine::default(),
            input_bytes: 0,
            input_told: None,
            owing: Vec::new(),
            taken: VecDeque::new(),
            moved: Vec::new(),
            marks: Vec::new(),
            spares: Vec::new(),
            waiting_bytes: 0,
            waiting_shares: Shares::new(usize::MAX, limits::WAITING_BYTES_SHARD_MAX),
            has_messages: false,
            ready: VecDeque::new(),
            published: Vec::new(),
            prefixes: Vec::new(),
            prefix_hash: hash_of_prefixes(&seeded_key(seed)),
            filling: tables::Filling::default(),
        }
    }

    /// Which shard it is.
    #[must_use]
    pub const fn id(&self) -> ShardId {
        self.id
    }

    /// The key of the process: what clients are told (their ids, secrets of connections, the process' own id, epochs) follows from
    /// it, and nothing else follows from that; where tables file what peers name as well. Without it all comes from the seed,
    /// as a repeatable run wants. For a shard that has nothing yet.
    ///
    /// # Panics
    /// If the shard has connections.
    #[must_use]
    pub fn with_key(self, key: &[u8; 32]) -> Self {
        assert!(self.connections.is_empty(), "a key comes before everything");
        let own = |secrets: &mut Secrets| u128::from_le_bytes(secrets.make()) as u64;
        let tables = key_of_tables(key, self.id);
        Self {
            secrets: Secrets::new(key, self.id.0),
            uid: format!("{:016x}", own(&mut Secrets::new(key, ALL_SHARDS))),
            hub: Hub::new(&tables),
            owner: Owner::new(&tables),
            users: users::Users::new(&tables),
            admission: admission::Admission::new(&tables),
            revocations: Revocations::new(&tables),
            prefix_hash: hash_of_prefixes(key),
            ..self
        }
    }

    /// A socket was accepted. `slot` is the reactor's number for it and must be free. When it is refused the reactor closes
    /// it and speaks of it no more.
    pub fn handle_accepted(&mut self, now: Now, slot: u32, peer: Peer) -> Result<ConnId, Refused> {
        self.now = now;
        if self
            .drain
            .as_ref()
            .is_some_and(|drain| !drain.takes_in(now.at))
        {
            self.counters.refused += 1;
            return Err(Refused::Draining);
        }
        let most = self
            .config
            .server
            .connections_per_shard_max
            .min(limits::CONNECTIONS_MAX);
        if self.connections.len() as u64 >= u64::from(most) || slot >= limits::CONNECTIONS_MAX {
            self.counters.refused += 1;
            return Err(Refused::Full);
        }
        let connection = Connection {
            door: peer.door,
            ..Connection::default()
        };
        let generation = self.connections.insert_at(slot, connection);
        self.counters.accepted += 1;
        self.came(slot, peer);
        if let Some(drain) = &mut self.drain {
            drain.came(now.at, slot);
        }
        let by = TimerWheel::tick_after(now.at, self.config.server.handshake_timeout);
        self.set_deadline(slot, by);
        Ok(ConnId { slot, generation })
    }

    /// Bytes arrived. They are changed in place.
    pub fn handle_received(&mut self, now: Now, conn: ConnId, bytes: &mut [u8]) {
        self.now = now;
        if self
            .connections
            .current(conn.slot, conn.generation)
            .is_none()
        {
            return;
        }
        self.counters.bytes_received += bytes.len() as u64;
        self.received(conn.slot, bytes);
        self.settle();
    }

    /// The receiving side ended.
    pub fn handle_ended(&mut self, now: Now, conn: ConnId, cause: EndCause) {
        self.now = now;
        let Some(connection) = self.connections.current_mut(conn.slot, conn.generation) else {
            return;
        };
        match (connection.state, cause) {
            (State::Gone, _) => return,
            // The answer to a request of a half-closed peer is still sent.
            (State::Waiting, EndCause::Eof)
                if !connection.is_session && !self.admission.is_asked(conn.slot) =>
            {
                connection.has_ended = true;
                connection.keep_alive &= connection.held.is_some();
                self.abandon_fetch(conn.slot);
            }
            (State::Owing, EndCause::Eof) => connection.has_ended = true,
            (State::Open | State::Waiting, EndCause::Eof)
                if connection.is_session && !connection.is_poll() && connection.is_unfinished() =>
            {
                self.end_later(conn.slot);
            }
            (_, EndCause::Eof) => self.finish(conn.slot),
            // Both sides are closed: a reset would take from the peer what it has not read yet.
            (State::Lingering, EndCause::Reset) => self.finish(conn.slot),
            (_, EndCause::Reset) if self.goes_on_alone(conn.slot) => {}
            (_, EndCause::Reset) => self.abort(conn.slot),
        }
        self.settle();
    }

    /// The socket is gone and its slot may be given again.
    pub fn handle_closed(&mut self, now: Now, conn: ConnId) {
        self.now = now;
        if self
            .connections
            .current(conn.slot, conn.generation)
            .is_none()
        {
            return;
        }
        self.end_session(conn.slot);
        self.fetch_is_over(conn.slot);
        self.forget_input(conn.slot);
        self.leave_place(conn.slot);
        if let Some(connection) = self.connections.remove(conn.slot) {
            self.outbox.forget(&connection);
            self.stalled.remove(&conn.slot);
            self.counters.closed += 1;
            if let Some(drain) = &mut self.drain {
                drain.closed(&connection);
            }
        }
        self.settle();
    }

    /// Control says something.
    pub fn handle_control(&mut self, now: Now, message: ToShard) {
        self.now = now;
        match message {
            ToShard::Reload(config) => self.reload(config),
            ToShard::Drain { window, grace } => self.start_drain(window, grace),
            ToShard::Observe => {
                let observed = FromShard::Observed(self.id, Box::new(self.counters()));
                self.reports.push_back(observed);
            }
            ToShard::Page(conn, page) => self.page_answered(conn, &page),
            ToShard::Keys(source, set) => self.keys_answered(source, set.as_ref()),
            ToShard::Stop => self.stop(),
        }
        self.settle();
    }

    /// The counters, gauges brought up to date.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.connections = self.connections.len() as u64;
        counters.sessions = self.users.sessions();
        counters.subscriptions = self
            .hub
            .iter()
            .map(|channel| channel.subscribers.len() as u64)
            .sum();
        counters.channels_local = self.hub.len() as u64;
        counters.channels_owned = self.owner.len() as u64;
        counters.channels_owned_limit = u64::from(self.config.channels.owned_limit);
        let owned = self.owner.counts();
        counters.idempotency_keys = owned.keys;
        counters.idempotency_keys_evicted = owned.keys_evicted;
        counters.channels_evicted = owned.evicted;
        counters.channels_refused = owned.refused_full;
        counters.new_channels_refused = owned.refused_rate;
        counters.subscriptions_crowded = self.hub.crowded();
        counters.prefixes = self.admission.prefixes() as u64;
        [counters.encoded_json, counters.encoded_protobuf] = self.written.encoded;
        counters.backlog_bytes = self.outbox.backlog_bytes() as u64;
        counters.revocations = self.revocations.len() as u64;
        counters.key_waiting = self.key_waits.len() as u64;
        counters.input_bytes = self.input_bytes as u64;
        counters.keys = self.tokens.fetched_keys() as u64;
        counters.log_appends = self.log.appends() as u64;
        counters.log_asks = self.log.asks() as u64;
        counters.mesh_queued = self.mesh.queued() as u64;
        counters.waiting_bytes = self.waiting_bytes as u64;
        counters
    }

    /// For the reactor's own observations.
    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// False while draining: what stands in the listeners' queues is taken in, then they are closed, and
    /// `handle_unlistened` says so.
    #[must_use]
    pub const fn is_accepting(&self) -> bool {
        self.drain.is_none()
    }

    /// The fan-out ring is nearly full: take the outputs before feeding more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.outbox.is_full(self.run_bytes)
    }

    /// A message waits to be read from another shard, or to be sent to one: `handle_mesh` wants to be called.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.mesh.has_work()
            || self.owner.has_behind()
            || !self.unasked.is_empty()
            || self.owner.has_woken()
            || !self.parts.is_empty()
            || !self.ready.is_empty()
            || self.key_waits.has_answers()
            || !self.taken.is_empty()
            || self.outgoing.has_unseen()
    }

    /// Bytes of a `SendBatch::Ring`, at the same address until `handle_flushed`.
    #[must_use]
    pub fn ring_bytes(&self, range: RingRange) -> &[u8] {
        self.outbox.bytes(range)
    }

    /// When `handle_timeout` wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.next_deadline().map(|at| Deadline { at })
    }

    /// What is to be done; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        // What comes of these goes to connections that may have a batch in this slice: one send for each.
        if !self.outbox.has_unflushed() {
            if !self.runs.is_empty() {
                self.fan_out_since.get_or_insert(self.now.at);
                self.give_runs();
                self.forget_runs();
                self.settle();
            }
            if !self.published.is_empty() {
                self.tell_published();
                self.settle();
            }
        }
        if let Some(shard) = self.mesh.poll_wake() {
            return Some(Output::Wake(shard));
        }
        if let Some(output) = self.poll_transmit() {
            return Some(output);
        }
        if let Some(call) = self.hooks.pop() {
            return Some(Output::Call(call));
        }
        if let Some(request) = self.log.pop() {
            return Some(Output::Log(request));
        }
        self.drained();
        self.watch_tables();
        self.reports.pop_front().map(Output::Report)
    }

    /// Runs a session's code with its context; what it says is queued, who moved is told.
    fn with_session<R>(
        &mut self,
        slot: u32,
        run: impl FnOnce(&mut Session, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let generation = self.connections.generation(slot);
        let prefix = self.prefix_at(slot);
        let connection = self.connections.at_mut(slot)?;
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let is_ordered = connection.session.order.is_some();
        let mut context = Context {
            now: self.now,
            prefix,
            conn: ConnId { slot, generation },
            format: connection.session.format,
            config: &self.config,
            tokens: &self.tokens,
            revocations: &self.revocations,
            hub: &mut self.hub,
            mesh: &mut self.mesh,
            hooks: &mut self.hooks,
            log: &mut self.log,
            parts: &mut self.parts,
            counters: &mut self.counters,
            rng: &mut self.rng,
            secrets: &mut self.secrets,
            out: &mut out,
            inappropriate: false,
            compression: &mut self.compression,
            node: &self.uid,
            said: &mut self.said,
            moved: &mut self.moved,
            key_wanted: &mut self.key_wanted,
            is_command: false,
            awaits: None,
            answer_bytes: 0,
            is_ordered,
            marks: &mut self.marks,
            spares: &mut self.spares,
        };
        let result = run(&mut connection.session, &mut context);
        let (inappropriate, is_command) = (context.inappropriate, context.is_command);
        let answer_bytes = context.answer_bytes;
        if is_ordered && !self.marks.is_empty() {
            let session = &mut connection.session;
            if session.put_in_order(&mut out, &self.marks, is_command, &mut self.spares)
                || connection.has_ended
            {
                self.ready.push_back(ConnId { slot, generation });
            }
            self.marks.clear();
        }
        for (conn, hub, place) in self.moved.drain(..) {
            if let Some(other) = self.connections.at_mut(conn)
                && let Some(index) = other.session.subscription_at(hub)
            {
                other.session.subscriptions[index].place = place;
            }
        }
        if !out.is_empty() {
            self.queue_answer(slot, &out, answer_bytes);
        }
        self.scratch = out;
        if inappropriate {
            self.disconnect(slot, &Disconnect::InappropriateProtocol);
        }
        Some(result)
    }

    /// What stands for the address prefix of a connection's client; 0 where it is not known.
    fn prefix_at(&self, slot: u32) -> u32 {
        self.prefixes.get(slot as usize).copied().unwrap_or(0)
    }

    /// Files a deadline of a connection if it is nearer than the one that is filed.
    fn set_deadline(&mut self, slot: u32, at: Tick) {
        let Some(connection) = self.connections.at_mut(slot) else {
            return;
        };
        connection.by = at;
        if at != 0 && (connection.filed == 0 || at < connection.filed) {
            connection.filed = self.wheel.file(slot, at);
        }
    }
}

/// In place of a shard's number, for what is the same on all of them.
const ALL_SHARDS: u16 = u16::MAX;

/// What stands for address prefixes, the same on every shard of the process.
fn hash_of_prefixes(key: &[u8; 32]) -> SecretHash {
    SecretHash::new(&Key::new(*key).derive("address prefixes"))
}

/// The key that the tables of one shard follow from.
fn key_of_tables(key: &[u8; 32], id: ShardId) -> Key {
    Key::new(*key).derive(&format!("tables of shard {}", id.0))
}

/// A key that a seed stands for.
fn seeded_key(seed: u64) -> [u8; 32] {
    let mut rng = Rng::new(seed);
    let mut key = [0; 32];
    for part in key.chunks_exact_mut(8) {
        part.copy_from_slice(&rng.bits().to_le_bytes());
    }
    key
}

#[cfg(test)]
mod tests;

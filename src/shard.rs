//! One shard: its connections, who listens, the channels it owns, and the queues to its peers.
//!
//! A reactor feeds it what happened (`handle_*`) and takes what is to be done (`poll_output`). Handlers change state and
//! mark; nothing is sent before the reactor asks. See `ARCHITECTURE.md` for the contract.

mod admission;
mod after;
mod answers;
mod api;
mod backlog;
mod client;
mod connection;
mod connections;
mod deliver;
mod drain;
mod durable;
mod emulation;
mod held;
mod hooks;
mod http;
mod image;
mod inbox;
mod input;
pub mod inspect;
mod intake;
mod kept;
mod keys;
mod late;
mod local;
mod loss;
mod order;
mod outbox;
mod outgoing;
mod owned;
mod pages;
mod people;
mod poll;
mod questions;
mod revoke;
mod route;
mod tables;
mod timers;
mod waits;
mod websocket;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::limits;
use crate::mem::{Key, Place, Rng, Secrets, Shares, TimerWheel};
use crate::mesh::Endpoint;
use crate::mesh::control::{FromShard, ToShard};
use crate::mesh::durable::ToLog;
use crate::mesh::hook::Call;
use crate::metrics::Counters;
use crate::model::{ConnId, ShardId};
use crate::protocol::disconnect::Disconnect;
use crate::session::late::Late;
use crate::session::order::{ReplyMark, Spares};
use crate::session::{Calls, Context, Requests, Session};
use crate::speaker::{Compression, Said};
use crate::time::{Deadline, Now};
use crate::wire::http::DateLine;
use crate::wire::websocket::Inflater;

pub use crate::mem::RingRange;
use connection::{Connection, Due, State};
use connections::Connections;
pub use image::Unmoved;
use local::Local;
use owned::Owned;
use people::People;

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
    /// That of the process: see `with_key`.
    key: [u8; 32],
    mode: Mode,
    config: Arc<Config>,
    people: People,
    connections: Connections,
    local: Local,
    owned: Owned,
    mesh: Endpoint,
    calls: api::ApiCalls,
    questions: questions::Questions,
    waits: waits::Waits,
    hooks: Calls,
    /// What is asked of the log.
    log: Requests,
    /// Publications that wait for a rate.
    late: Late,
    /// What the log's side gives connections.
    outgoing: outgoing::Outgoing,
    reports: VecDeque<FromShard>,
    drain: Option<drain::Draining>,
    intake: intake::Intake,
    key_waits: keys::KeyWaits,
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
    /// What goes to clients that it was agreed on with is compressed by this.
    compression: Compression,
    /// Bytes that were inflated in this turn.
    inflated: usize,
    /// Connections with compressed messages that this turn had no share left for.
    inflating: VecDeque<ConnId>,
    /// See `Context::said`.
    said: VecDeque<(ConnId, Said)>,
    secrets: Secrets,
    /// `Date` of answers.
    date: DateLine,
    /// See `Context::ended`.
    ended: Vec<u32>,
    /// See `Context::moved`.
    moved: Vec<(u32, u32, Place)>,
    /// See `Context::marks`.
    marks: Vec<ReplyMark>,
    /// See `Context::spares`.
    spares: Spares,
    /// Bytes of commands that wait for their turn.
    waiting_bytes: usize,
    /// Of these, what address prefixes have.
    waiting_shares: Shares,
    /// The last step of the inbox ended by its number.
    has_messages: bool,
    /// Commands that were taken up again in this turn.
    taken: usize,
    /// Sessions that can go on with commands that waited.
    ready: VecDeque<ConnId>,
    /// Publications of clients that are out, not answered: their subscribers get them first, the publisher among them.
    published: Vec<inbox::PublishedTo>,
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
        let key = seeded_key(seed);
        let tables = key_of_tables(&key, id);
        let compression = Compression::new(&config.websocket);
        let inflater = Inflater::shared(config.websocket.inflated_bytes_max());
        let weights = Arc::clone(&config.tenants.weights);
        Self {
            id,
            mode,
            people: People::new(&tables, &Key::new(key), &config),
            config,
            connections: Connections::new(
                limits::FANOUT_RING_BYTES,
                limits::OWN_RING_BYTES,
                inflater,
                &weights,
            ),
            local: Local::new(&tables, &weights),
            owned: Owned::new(&tables),
            late: Late::default(),
            mesh: endpoint,
            calls: api::ApiCalls::default(),
            questions: questions::Questions::default(),
            waits: waits::Waits::default(),
            hooks: Calls::default(),
            log: Requests::default(),
            outgoing: outgoing::Outgoing::default(),
            reports: VecDeque::new(),
            drain: None,
            intake: intake::Intake::default(),
            key_waits: keys::KeyWaits::default(),
            key_wanted: None,
            counters: Counters::default(),
            rng,
            now: Now::default(),
            uid: format!("{:016x}", Rng::new(!seed).bits()),
            scratch: Vec::new(),
            compression,
            inflated: 0,
            inflating: VecDeque::new(),
            said: VecDeque::new(),
            secrets: Secrets::new(&key, id.0),
            key,
            date: DateLine::default(),
            ended: Vec::new(),
            moved: Vec::new(),
            marks: Vec::new(),
            spares: Vec::new(),
            waiting_bytes: 0,
            waiting_shares: Shares::new(usize::MAX, limits::WAITING_BYTES_SHARD_MAX),
            has_messages: false,
            taken: 0,
            ready: VecDeque::new(),
            published: Vec::new(),
            filling: tables::Filling::default(),
        }
    }

    /// Which shard it is.
    #[must_use]
    pub const fn id(&self) -> ShardId {
        self.id
    }

    /// The configuration that it follows.
    #[must_use]
    pub const fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The key of the process, which whoever goes on with its image needs.
    #[must_use]
    pub const fn key(&self) -> &[u8; 32] {
        &self.key
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
            key: *key,
            secrets: Secrets::new(key, self.id.0),
            uid: format!("{:016x}", own(&mut Secrets::new(key, ALL_SHARDS))),
            local: Local::new(&tables, &self.config.tenants.weights),
            owned: Owned::new(&tables),
            people: People::new(&tables, &Key::new(*key), &self.config),
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
            since: TimerWheel::tick(now.at),
            ..Connection::default()
        };
        let conn = self.connections.insert(slot, connection);
        self.counters.accepted += 1;
        self.came(slot, peer);
        if peer.door == Door::Clients && self.mode == Mode::Proxy {
            self.handshake_begins(slot);
        }
        if let Some(drain) = &mut self.drain {
            drain.came(now.at, conn);
        }
        let by = TimerWheel::tick_after(now.at, self.config.server.handshake_timeout);
        self.connections.set_deadline(slot, by);
        Ok(conn)
    }

    /// Bytes arrived. They are changed in place.
    pub fn handle_received(&mut self, now: Now, conn: ConnId, bytes: &mut [u8]) {
        self.now = now;
        if !self.is_here(conn) {
            return;
        }
        self.counters.bytes_received += bytes.len() as u64;
        let count = bytes.len();
        self.received(conn.slot, bytes);
        self.pace_input(conn.slot, count);
        self.settle();
    }

    /// The receiving side ended.
    pub fn handle_ended(&mut self, now: Now, conn: ConnId, cause: EndCause) {
        self.now = now;
        if !self.is_here(conn) {
            return;
        }
        let connection = self.connections.of_mut(conn.slot);
        match (connection.state, cause) {
            (State::Gone, _) => return,
            // The answer to a request of a half-closed peer is still sent.
            (State::Waiting, EndCause::Eof)
                if !connection.is_session && !self.people.is_asked(conn.slot) =>
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
        if !self.is_here(conn) {
            return;
        }
        debug_assert_eq!(
            self.connections.of(conn.slot).state,
            State::Gone,
            "a socket is closed when that was asked for"
        );
        self.end_session(conn.slot);
        self.fetch_is_over(conn.slot);
        self.forget_input(conn.slot);
        self.leave_place(conn.slot);
        self.handshake_over(conn.slot);
        let connection = self.connections.remove(conn.slot);
        self.local.forget_parts(conn.slot);
        self.counters.closed += 1;
        if let Some(drain) = &mut self.drain {
            drain.closed(&connection);
        }
        self.settle();
    }

    /// Control says something.
    pub fn handle_control(&mut self, now: Now, message: ToShard) {
        self.now = now;
        match message {
            ToShard::Reload(config) => {
                let taken = FromShard::Reloaded(self.id, Arc::clone(&config));
                self.reload(config);
                self.reports.push_back(taken);
            }
            ToShard::Drain { window, grace } => self.start_drain(window, grace),
            ToShard::Observe => {
                let observed = FromShard::Observed(self.id, Box::new(self.counters()));
                self.reports.push_back(observed);
            }
            ToShard::Page(ask, page) => self.page_answered(ask, &page),
            ToShard::Keys(source, set) => self.keys_answered(&source, set.as_ref()),
            ToShard::Stop => self.stop(),
        }
        self.settle();
    }

    /// The counters, gauges brought up to date.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.connections = self.connections.len() as u64;
        counters.sessions = self.people.sessions();
        counters.subscriptions = self
            .local
            .hub()
            .iter()
            .map(|channel| channel.subscribers.len() as u64)
            .sum();
        counters.channels_local = self.local.hub().len() as u64;
        counters.channels_owned = self.owned.len() as u64;
        counters.channels_owned_limit = u64::from(self.config.channels.owned_limit);
        let owned = self.owned.counts();
        counters.idempotency_keys = owned.keys;
        counters.idempotency_keys_evicted = owned.keys_evicted;
        counters.channels_evicted = owned.evicted;
        counters.channels_refused = owned.refused_full;
        counters.new_channels_refused = owned.refused_rate;
        counters.subscriptions_crowded = self.local.hub().crowded();
        counters.prefixes = self.people.prefixes_counted() as u64;
        [counters.encoded_json, counters.encoded_protobuf] = self.local.encoded();
        counters.backlog_bytes = self.connections.backlog_bytes() as u64;
        counters.revocations = self.people.revocations().len() as u64;
        counters.key_waiting = self.key_waits.len() as u64;
        counters.batch_bytes = self.local.waiting_bytes() as u64;
        counters.input_bytes = self.connections.input_bytes() as u64;
        counters.keys = self.people.tokens().fetched_keys() as u64;
        counters.log_appends = self.log.appends() as u64;
        counters.log_asks = self.log.asks() as u64;
        counters.mesh_queued = self.mesh.queued() as u64;
        counters.stale_answers += self.questions.stale() + self.calls.stale() + self.waits.stale();
        counters.waiting_bytes = self.waiting_bytes as u64;
        counters.handshakes = u64::from(self.intake.handshakes());
        counters.drain_untold = self.drain.as_ref().map_or(0, drain::Draining::untold) as u64;
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
        self.connections.is_full(self.local.run_bytes())
    }

    /// A message waits to be read from another shard, or to be sent to one: `handle_mesh` wants to be called.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.mesh.has_work()
            || self.owned.has_behind()
            || self.local.unasked() > 0
            || self.owned.has_woken()
            || self.local.has_parts()
            || !self.ready.is_empty()
            || !self.inflating.is_empty()
            || self.key_waits.has_answers()
            || self.connections.has_taken()
            || self.outgoing.has_unseen()
    }

    /// Several customers share it: whoever comes waits for no long slice of somebody else's.
    #[must_use]
    pub fn has_tenants(&self) -> bool {
        self.config.tenants.are_configured()
    }

    /// Bytes of a `SendBatch::Ring`, at the same address until `handle_flushed`.
    #[must_use]
    pub fn ring_bytes(&self, range: RingRange) -> &[u8] {
        self.connections.bytes(range)
    }

    /// When `handle_timeout` wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.next_deadline().map(|at| Deadline { at })
    }

    /// What is to be done; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        loop {
            let output = self.next_output();
            // Runs that were left over follow behind what is on its way, or at once.
            let is_left = self.has_tenants() && self.local.has_runs();
            if output.is_some() || self.connections.has_unflushed() || !is_left {
                return output;
            }
        }
    }

    fn next_output(&mut self) -> Option<Output> {
        // What comes of these goes to connections that may have a batch in this slice: one send for each.
        if !self.connections.has_unflushed() {
            if self.local.has_runs() {
                self.give_runs();
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

    /// Is the connection still there? What comes for one that is gone has crossed its end, and is counted.
    fn is_here(&mut self, conn: ConnId) -> bool {
        let connection = self.connections.current(conn.slot, conn.generation);
        let is_here = connection.is_some();
        self.counters.stale += u64::from(!is_here);
        is_here
    }

    /// Runs a session's code with its context; what it says is queued, who moved is told.
    fn with_session<R>(
        &mut self,
        slot: u32,
        run: impl FnOnce(&mut Session, &mut Context<'_>) -> R,
    ) -> R {
        let generation = self.connections.generation(slot);
        let prefix = self.people.prefix_at(slot);
        let connection = self.connections.of_mut(slot);
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let is_ordered = connection.session.order.is_some();
        let before = connection.session.stamp();
        let (hub, parts) = self.local.lend();
        let mut context = Context {
            now: self.now,
            prefix,
            conn: ConnId { slot, generation },
            format: connection.session.format,
            config: &self.config,
            rules: self.config.rules_or_none(connection.session.tenant()),
            tokens: self.people.tokens(),
            revocations: self.people.revocations(),
            hub,
            mesh: &mut self.mesh,
            hooks: &mut self.hooks,
            log: &mut self.log,
            late: &mut self.late,
            asked: &mut self.questions.of_sessions,
            parts,
            counters: &mut self.counters,
            rng: &mut self.rng,
            secrets: &mut self.secrets,
            out: &mut out,
            inappropriate: false,
            compression: &mut self.compression,
            node: &self.uid,
            said: &mut self.said,
            ended: &mut self.ended,
            moved: &mut self.moved,
            key_wanted: &mut self.key_wanted,
            is_command: false,
            is_timed: false,
            awaits: None,
            answer_by: 0,
            answer_bytes: 0,
            is_ordered,
            marks: &mut self.marks,
            spares: &mut self.spares,
        };
        let result = run(&mut connection.session, &mut context);
        let (inappropriate, is_command) = (context.inappropriate, context.is_command);
        let mut due = Due::of(before, connection.session.stamp());
        if context.is_timed {
            due.add(Due::TIME);
        }
        let (answer_bytes, answer_by) = (context.answer_bytes, context.answer_by);
        connection.due.add(due);
        if is_ordered && !self.marks.is_empty() {
            let session = &mut connection.session;
            if session.put_in_order(&mut out, &self.marks, is_command, &mut self.spares)
                || connection.has_ended
            {
                self.ready.push_back(ConnId { slot, generation });
            }
            self.marks.clear();
        }
        if !self.ended.is_empty() {
            if let Some(backlog) = &mut connection.backlog {
                backlog.keep(&mut self.ended);
            }
            self.ended.clear();
        }
        for (conn, hub, place) in self.moved.drain(..) {
            let other = &mut self.connections.of_mut(conn).session;
            let Some(index) = other.subscription_at(hub) else {
                unreachable!("whoever has a place in a channel is subscribed to it");
            };
            other.subscriptions[index].place = Some(place);
        }
        if !out.is_empty() {
            self.queue_answer(slot, &out, answer_bytes);
        }
        self.scratch = out;
        if answer_by != 0 {
            self.connections.file(slot, answer_by);
        }
        if inappropriate {
            self.disconnect(slot, &Disconnect::InappropriateProtocol);
        }
        if due != Due::NOTHING {
            self.after(slot);
        }
        result
    }
}

/// In place of a shard's number, for what is the same on all of them.
const ALL_SHARDS: u16 = u16::MAX;

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

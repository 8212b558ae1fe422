//! The clients: one thread drives all of them on rings of its own, with direct descriptors. One ring's table cannot be
//! larger than the descriptor limit, so a large swarm has several rings.

mod api;
mod client;
mod inflated;
mod join;
mod load;
mod plan;
mod publish;
mod state;
mod stats;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::SockAddr;

pub(crate) use load::Load;
pub(crate) use plan::Plan;
pub(crate) use stats::{Stats, histogram};

use super::BenchError;
use super::ledger::Counts;
use super::progress::Progress;
use crate::uring::{BufferConfig, Completion, Kind, Ring, RingConfig, Sqe};
use client::Phase;
use state::State;

/// Clients of one ring: below the usual descriptor limit of 20 000.
const CLIENTS_PER_RING: u32 = 19_000;
/// Connects begun in one turn.
const CONNECTS_PER_TURN: u32 = 64;
/// Longest sleep in the ring.
const WAIT_MAX: Duration = Duration::from_millis(20);
/// Longest sleep when several rings take turns.
const WAIT_MAX_OF_MANY: Duration = Duration::from_micros(500);
/// Joining ends without success when nobody has joined for this long.
const JOIN_STALL: Duration = Duration::from_secs(20);
/// Longest wait for all sockets to be gone.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
const ENOBUFS: i32 = 105;
const ECANCELED: i32 = 125;

/// All clients of a run.
pub(crate) struct Swarm {
    rings: Vec<Ring>,
    state: State,
    epoch: Instant,
    /// The next client to connect.
    next: u32,
    /// Receives to arm again once buffers are back.
    starved: Vec<u32>,
    target: SockAddr,
    domain: i32,
    /// Of the source addresses.
    salt: u8,
}

impl Swarm {
    /// Makes the rings; nobody connects yet.
    pub(crate) fn new(plan: Plan) -> Result<Self, BenchError> {
        let clients = plan.connections + 1;
        let rings = clients.div_ceil(CLIENTS_PER_RING);
        let config = RingConfig {
            submissions: 4096,
            completions: 65_536,
            slots: clients.min(CLIENTS_PER_RING),
            reserved: 0,
            accepts: 0,
            buffers: BufferConfig {
                count: 256,
                size: 64 * 1024,
                lent: 256,
                incremental: true,
            },
        };
        let rings = (0..rings)
            .map(|_| Ring::new(&config))
            .collect::<Result<Vec<_>, _>>()?;
        let target = SockAddr::from(plan.address);
        let domain = i32::from(target.domain());
        let state = State::new(plan)?;
        // Runs are more than a second apart, and ports linger for a minute.
        #[expect(clippy::disallowed_methods, reason = "neighbouring runs must differ")]
        let salt = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs() as u8;
        #[expect(clippy::disallowed_methods, reason = "the generator measures time")]
        let epoch = Instant::now();
        Ok(Self {
            rings,
            state,
            epoch,
            next: clients,
            starved: Vec::new(),
            target,
            domain,
            salt,
        })
    }

    /// Nanoseconds since the start of the swarm.
    #[must_use]
    pub(crate) fn clock(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Connects and joins everybody who is not connected, as fast as `concurrency` allows.
    pub(crate) fn connect(&mut self, progress: &Progress) -> Result<(), BenchError> {
        let wanted = self.state.plan.connections;
        self.next = 0;
        self.state.connect_started = self.clock();
        let mut joined = (self.state.joined, self.clock());
        while self.state.joined < wanted || !self.is_publisher_ready() {
            self.turn()?;
            progress.set(u64::from(self.state.joined));
            if self.state.joined > joined.0 {
                joined = (self.state.joined, self.clock());
            }
            let stalled = self.clock() - joined.1 > JOIN_STALL.as_nanos() as u64;
            if stalled || self.state.refused > 0 || self.state.disconnected > u64::from(wanted) {
                let State {
                    joined,
                    refused,
                    disconnected: closed,
                    ..
                } = self.state;
                return Err(BenchError::Connections {
                    joined,
                    wanted,
                    refused,
                    closed,
                });
            }
        }
        Ok(())
    }

    fn is_publisher_ready(&self) -> bool {
        !self.state.plan.has_publisher
            || self.state.clients[self.state.publisher() as usize].is_ready()
    }

    /// Resets every subscriber's connection, and waits until all are gone. A reset leaves no lingering port.
    pub(crate) fn disconnect(&mut self) -> Result<(), BenchError> {
        for index in 0..self.state.plan.connections {
            self.state.clients[index as usize].leaving = true;
            self.state.doomed.push(index);
        }
        let gone = |swarm: &Self| {
            swarm
                .state
                .clients
                .iter()
                .rev()
                .skip(1)
                .all(|client| client.phase == Phase::Idle)
        };
        let deadline = self.clock() + LEAVE_TIMEOUT.as_nanos() as u64;
        while !gone(self) && self.clock() < deadline {
            self.turn()?;
        }
        Ok(())
    }

    /// From now on the server may be gone.
    pub(crate) fn expect_loss(&mut self) {
        for client in &mut self.state.clients {
            client.leaving = true;
        }
    }

    /// Waits until nobody has a connection any more.
    pub(crate) fn await_loss(&mut self) -> Result<(), BenchError> {
        let deadline = self.clock() + LEAVE_TIMEOUT.as_nanos() as u64;
        let is_there = |client: &client::Client| client.phase != Phase::Idle;
        while self.state.clients.iter().any(is_there) && self.clock() < deadline {
            self.turn()?;
        }
        Ok(())
    }

    /// Connects the one who publishes, and nobody else.
    pub(crate) fn connect_publisher(&mut self) -> Result<(), BenchError> {
        self.next = self.state.publisher();
        let deadline = self.clock() + JOIN_STALL.as_nanos() as u64;
        while !self.is_publisher_ready() && self.clock() < deadline {
            self.turn()?;
        }
        Ok(())
    }

    /// Runs for `time` with the load that is set.
    pub(crate) fn run(&mut self, time: Duration, progress: &Progress) -> Result<(), BenchError> {
        let start = self.clock();
        let end = start + time.as_nanos() as u64;
        while self.state.now < end {
            self.turn()?;
            progress.set((self.state.now.min(end) - start) / 100_000_000);
        }
        Ok(())
    }

    /// From now on this load.
    pub(crate) fn set_load(&mut self, load: Load) {
        self.state.now = self.clock();
        self.state.set_load(load);
    }

    /// Publishes `count` to every channel, outside any load.
    pub(crate) fn publish_now(&mut self, count: u32) {
        self.state.now = self.clock();
        self.state.publish_now(count);
    }

    /// Waits until everything published has arrived, at most until nothing has come for `patience`.
    pub(crate) fn settle(&mut self, patience: Duration) -> Result<(), BenchError> {
        let mut received = (self.state.stats.bytes, self.clock());
        let mut checked = 0;
        loop {
            self.turn()?;
            let now = self.clock();
            // The books of a large swarm take a while to add up.
            if now - checked > 10_000_000 {
                if self.state.is_settled() {
                    return Ok(());
                }
                checked = self.clock();
            }
            if self.state.stats.bytes != received.0 {
                received = (self.state.stats.bytes, now);
            } else if now - received.1 > patience.as_nanos() as u64 {
                return Ok(());
            }
        }
    }

    /// One in so many subscribers reads nothing from now on: what it is sent stays in its socket. Returns how many.
    pub(crate) fn stall(&mut self, one_in: u32) -> Result<u32, BenchError> {
        let mut count = 0;
        for index in (0..self.state.plan.connections).step_by(one_in as usize) {
            let (ring, slot) = Self::place(index);
            let client = &mut self.state.clients[index as usize];
            if client.is_ready() && client.receiving {
                client.stalled = true;
                self.rings[ring].push(&Sqe::cancel_receive(slot, client.generation))?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// They read again.
    pub(crate) fn read_on(&mut self) -> Result<(), BenchError> {
        for index in 0..self.state.plan.connections {
            let (ring, slot) = Self::place(index);
            let client = &mut self.state.clients[index as usize];
            if std::mem::take(&mut client.stalled)
                && !std::mem::replace(&mut client.receiving, true)
            {
                self.rings[ring].push(&Sqe::receive(slot, client.generation, 0))?;
            }
        }
        Ok(())
    }

    /// How many publications subscribers were told that they did not get.
    #[must_use]
    pub(crate) fn reported(&self) -> u64 {
        self.state.reported()
    }

    /// Publications so far, each as often as it has subscribers.
    #[must_use]
    pub(crate) fn published_to_all(&self) -> u64 {
        self.state.published_to_all()
    }

    /// Ends a window: what it has counted. The next begins.
    pub(crate) fn measure(&mut self) -> Result<Stats, BenchError> {
        self.state.measure()
    }

    /// The ledger as it stands.
    #[must_use]
    pub(crate) fn books(&self) -> Counts {
        self.state.books()
    }

    /// Connections that ended although nobody asked.
    #[must_use]
    pub(crate) const fn disconnected(&self) -> u64 {
        self.state.disconnected
    }

    /// Commands that were refused.
    #[must_use]
    pub(crate) const fn refused(&self) -> u64 {
        self.state.refused
    }

    /// Subscribers that are connected.
    #[must_use]
    pub(crate) const fn joined(&self) -> u32 {
        self.state.joined
    }

    // --- one turn ---

    fn turn(&mut self) -> Result<(), BenchError> {
        self.state.now = self.clock();
        let due = self.state.publish_due();
        self.start_connects()?;
        self.take_down()?;
        self.flush()?;
        let until_due = due.map(|due| Duration::from_nanos(due.saturating_sub(self.state.now)));
        let wait = until_due.unwrap_or(WAIT_MAX).min(WAIT_MAX);
        let wait = if self.wants_more() {
            Duration::ZERO
        } else {
            wait
        };
        if self.rings.len() == 1 {
            self.enter(0, wait)?;
            self.drain(0)?;
        } else {
            self.turn_many(wait)?;
        }
        self.state.take_failure()
    }

    /// No ring of several can be waited for alone: all are looked at, then one sleeps shortly.
    fn turn_many(&mut self, wait: Duration) -> Result<(), BenchError> {
        let mut received = false;
        for ring in 0..self.rings.len() {
            self.enter(ring, Duration::ZERO)?;
            received |= self.drain(ring)?;
        }
        if !received && !wait.is_zero() {
            self.enter(0, wait.min(WAIT_MAX_OF_MANY))?;
            self.drain(0)?;
        }
        Ok(())
    }

    fn wants_more(&self) -> bool {
        !self.state.dirty.is_empty() || !self.state.doomed.is_empty() || self.may_connect()
    }

    fn may_connect(&self) -> bool {
        self.next < self.state.clients.len() as u32
            && self.state.joining < self.state.plan.concurrency
    }

    fn enter(&mut self, ring: usize, wait: Duration) -> Result<(), BenchError> {
        let ring = &mut self.rings[ring];
        if wait.is_zero() || ring.has_pending() {
            ring.enter(0)?;
        } else {
            ring.enter_timeout(1, wait)?;
        }
        // One call runs about twenty deferred completions.
        for _ in 0..25 {
            if !ring.needs_enter() {
                break;
            }
            ring.enter(0)?;
        }
        Ok(())
    }

    fn place(index: u32) -> (usize, u32) {
        (
            (index / CLIENTS_PER_RING) as usize,
            index % CLIENTS_PER_RING,
        )
    }

    fn start_connects(&mut self) -> Result<(), BenchError> {
        for _ in 0..CONNECTS_PER_TURN {
            if !self.may_connect() {
                break;
            }
            let index = self.next;
            self.next += 1;
            let is_missing = index == self.state.publisher() && !self.state.plan.has_publisher;
            if !is_missing && self.state.clients[index as usize].phase == Phase::Idle {
                self.start_connect(index)?;
            }
        }
        Ok(())
    }

    fn start_connect(&mut self, index: u32) -> Result<(), BenchError> {
        let (ring, slot) = Self::place(index);
        let client = &mut self.state.clients[index as usize];
        client.phase = Phase::Connecting;
        self.state.joining += 1;
        let (generation, ring) = (client.generation, &mut self.rings[ring]);
        // Submissions of one queue start in order, and each of these ends at once except the connect.
        ring.push(&Sqe::socket(slot, generation, self.domain))?;
        ring.push(&Sqe::nodelay(slot, generation))?;
        if let Some(source) = self.state.plan.source(index, self.salt) {
            ring.push_bind(slot, generation, &SockAddr::from(source))?;
        }
        ring.push_connect(slot, generation, &self.target)?;
        Ok(())
    }

    /// Resets the connections of doomed clients; their receive then ends, and with it the rest.
    fn take_down(&mut self) -> Result<(), BenchError> {
        let count = self.state.doomed.len().min(512);
        for index in self.state.doomed.drain(..count).collect::<Vec<_>>() {
            let (ring, slot) = Self::place(index);
            let client = &self.state.clients[index as usize];
            if client.receiving {
                self.rings[ring].push(&Sqe::abort(slot, client.generation))?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BenchError> {
        for index in std::mem::take(&mut self.state.dirty) {
            let (ring, slot) = Self::place(index);
            let client = &mut self.state.clients[index as usize];
            client.dirty = false;
            if client.sending
                || client.out.is_empty()
                || matches!(client.phase, Phase::Idle | Phase::Closing)
            {
                continue;
            }
            client.sending = true;
            let batch = std::mem::take(&mut client.out);
            self.rings[ring].push_send(slot, client.generation, batch)?;
        }
        Ok(())
    }

    /// Handles every completion of a ring; whether there was any.
    fn drain(&mut self, place: usize) -> Result<bool, BenchError> {
        let first = place as u32 * CLIENTS_PER_RING;
        let mut any = false;
        while let Some(completion) = self.rings[place].pop() {
            any = true;
            let index = first + completion.slot();
            let generation = self.state.clients[index as usize].generation;
            let is_stale =
                (completion.generation() ^ generation) & crate::uring::op::GENERATION_MASK != 0;
            match completion.kind() {
                Some(Kind::Receive) => self.received(place, index, completion, is_stale)?,
                Some(Kind::SendOwned) => {
                    let result = completion.result();
                    let batch = self.rings[place].take_batch(completion);
                    if !is_stale {
                        self.state.sent(index, &batch, result);
                        self.close_if_over(index)?;
                    }
                }
                Some(Kind::Connect) if !is_stale => self.connected(index, completion.result())?,
                Some(Kind::Close) if !is_stale => self.state.clients[index as usize].reset(),
                _ => {}
            }
        }
        self.rings[place].publish_buffers();
        for index in std::mem::take(&mut self.starved) {
            let generation = self.state.clients[index as usize].generation;
            self.rings[place].push(&Sqe::receive(Self::place(index).1, generation, 0))?;
        }
        Ok(any)
    }

    fn received(
        &mut self,
        place: usize,
        index: u32,
        completion: Completion,
        is_stale: bool,
    ) -> Result<(), BenchError> {
        let (result, more) = (completion.result(), completion.more());
        self.state.now = self.clock();
        let bytes = self.rings[place].take_bytes(completion);
        if is_stale {
            return Ok(());
        }
        if !bytes.is_empty() {
            self.state.receive(index, bytes);
        }
        if more {
            return Ok(());
        }
        if self.state.clients[index as usize].stalled
            && (result > 0 || result == -ECANCELED || result == -ENOBUFS)
        {
            self.state.clients[index as usize].receiving = false;
            return Ok(());
        }
        if result > 0 || result == -ENOBUFS {
            self.starved.push(index);
            return Ok(());
        }
        self.state.clients[index as usize].receiving = false;
        self.state.ended(index);
        self.close_if_over(index)
    }

    fn connected(&mut self, index: u32, result: i32) -> Result<(), BenchError> {
        if result < 0 {
            self.state.ended(index);
            return self.close_if_over(index);
        }
        let (ring, slot) = Self::place(index);
        let client = &mut self.state.clients[index as usize];
        client.receiving = true;
        self.rings[ring].push(&Sqe::receive(slot, client.generation, 0))?;
        self.state.connected(index);
        Ok(())
    }

    fn close_if_over(&mut self, index: u32) -> Result<(), BenchError> {
        let client = &self.state.clients[index as usize];
        if client.phase == Phase::Closing && !client.receiving && !client.sending {
            let (ring, slot) = Self::place(index);
            self.rings[ring].push(&Sqe::close(slot, client.generation))?;
        }
        Ok(())
    }
}

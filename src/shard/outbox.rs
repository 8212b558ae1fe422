//! What goes out. Frames are encoded once into the fan-out ring; a connection holds one range of it, and its turn comes in
//! the order in which connections became dirty. A connection whose socket does not keep up owns a copy of its bytes.

use std::collections::VecDeque;

use super::connection::{Backlog, Connection, KEEP, State};
use super::deliver::lost;
use super::rings::{Heads, Rings};
use super::written::Written;
use super::{Close, Output, SendBatch, SendFailed, Shard};
use crate::broker::hub::Subscriber;
use crate::config::namespace::SlowConsumer;
use crate::limits::{
    BACKLOG_BYTES_MAX, FANOUT_PIECE_BYTES_MAX, HELD_PAUSE_BYTES, OWN_PIECE_BYTES_MAX,
    PENDING_JOIN_BYTES_MAX,
};
use crate::mem::{RingRange, Slab};
use crate::model::{ConnId, Format};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::push::Push;
use crate::session::fanout::{self, Compression};
use crate::session::flag;
use crate::time::Now;

/// The shard's half of every outbox.
pub(super) struct Outbox {
    rings: Rings,
    /// Connections with something to send, and the ring's head when each became dirty: the oldest byte that any of them
    /// needs is not before the first one's.
    dirty: VecDeque<(u32, Heads)>,
    /// Connections to close once the kernel has what they sent.
    closing: Vec<u32>,
    /// What the reactor is to do with connections: closes, pauses and their ends, in order.
    orders: VecDeque<Output>,
    backlog_bytes: usize,
    /// Ring batches were polled since the last flush: their bytes are still needed.
    is_unflushed: bool,
}

/// What `mark` could not do by itself.
#[derive(PartialEq, Eq)]
enum Marked {
    Done,
    /// The bytes must go to the connection's own memory.
    Copy,
}

impl Outbox {
    pub(super) fn new(shared_bytes: u32, own_bytes: u32) -> Self {
        Self {
            rings: Rings::new(shared_bytes, own_bytes),
            dirty: VecDeque::new(),
            closing: Vec::new(),
            orders: VecDeque::new(),
            backlog_bytes: 0,
            is_unflushed: false,
        }
    }

    pub(super) fn bytes(&self, range: RingRange) -> &[u8] {
        self.rings.bytes(range)
    }

    pub(super) const fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// Batches of the rings were polled and are not known to be with the kernel.
    pub(super) const fn has_unflushed(&self) -> bool {
        self.is_unflushed
    }

    /// See `inspect`: positions are remembered that rings which start at the front again would not have.
    pub(super) fn remembers_empty_rings(&self) -> bool {
        self.rings.used() == 0 && !self.dirty.is_empty() && !self.rings.are_at_front()
    }

    pub(super) const fn ring_used(&self) -> u32 {
        self.rings.used()
    }

    /// `waiting`: bytes of publications that are not in the ring yet.
    pub(super) fn is_full(&self, waiting: usize) -> bool {
        self.rings.is_full(waiting)
    }

    pub(super) fn forget(&mut self, connection: &Connection) {
        if let Some(backlog) = &connection.backlog {
            self.backlog_bytes -= backlog.unsent();
        }
    }

    /// Frees the bytes that no dirty connection needs. Dirty connections remember positions, also those whose bytes are
    /// their own: the rings start at the front only when there is none.
    fn release(&mut self) {
        match self.dirty.front() {
            Some(&(_, heads)) => self.rings.release_to(heads),
            None => {
                self.rings.release_to(self.rings.heads());
                self.rings.rewind();
            }
        }
    }

    /// Adds a range of the ring to what the connection sends next.
    fn mark(
        &mut self,
        connection: &mut Connection,
        slot: u32,
        range: RingRange,
        head: Heads,
    ) -> Marked {
        if connection.pending.len == 0 {
            connection.pending = range;
        } else if connection.pending.end() == range.start {
            connection.pending.len += range.len;
        } else {
            if connection.pending.len + range.len > PENDING_JOIN_BYTES_MAX {
                return Marked::Copy;
            }
            match self.rings.append_joined(connection.pending, range) {
                Some(joined) => connection.pending = joined,
                None => return Marked::Copy,
            }
        }
        self.make_dirty(connection, slot, head);
        Marked::Done
    }

    fn make_dirty(&mut self, connection: &mut Connection, slot: u32, head: Heads) {
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push_back((slot, head));
        }
    }

    /// Copies bytes behind everything the connection has to send.
    fn copy(&mut self, connection: &mut Connection, slot: u32, bytes: &[u8], hub: u32) {
        self.own_pending(connection);
        connection.backlog.get_or_insert_default().push(bytes, hub);
        self.backlog_bytes += bytes.len();
        let head = self.rings.heads();
        self.make_dirty(connection, slot, head);
    }

    /// Moves a pending range into the connection's own memory.
    fn own_pending(&mut self, connection: &mut Connection) {
        let range = std::mem::take(&mut connection.pending);
        if range.len > 0 {
            let backlog = connection.backlog.get_or_insert_default();
            backlog.push(self.rings.bytes(range), KEEP);
            self.backlog_bytes += range.len as usize;
        }
    }
}

/// Tells a peer what it has lost, behind what it gets. Returns how many bytes that is.
fn tell_losses(
    backlog: &mut Backlog,
    format: Format,
    listens: bool,
    compression: &mut Compression,
) -> usize {
    let before = backlog.bytes.len();
    let losses = std::mem::take(&mut backlog.lost).into_iter();
    for (channel, publications) in losses.filter(|_| listens) {
        let said = lost(&channel, Some(publications));
        let mut message = Vec::new();
        fanout::push(&mut message, format, compression, "", &Push::Message(&said));
        backlog.push(&message, KEEP);
    }
    backlog.bytes.len() - before
}

impl Shard {
    /// Queues what a session says. Answers among it that its peer does not take make the next command wait.
    pub(super) fn queue_answer(&mut self, slot: u32, bytes: &[u8], answer_bytes: usize) {
        self.queue(slot, bytes);
        if answer_bytes > 0
            && let Some(connection) = self.connections.at_mut(slot)
            && let Some(backlog) = &mut connection.backlog
            && !backlog.bytes.is_empty()
        {
            backlog.answered(answer_bytes);
        }
    }

    /// Queues bytes for one connection.
    pub(super) fn queue(&mut self, slot: u32, bytes: &[u8]) {
        let Some(connection) = self.connections.at_mut(slot) else {
            return;
        };
        if matches!(connection.state, State::Gone) {
            return;
        }
        let head = self.outbox.rings.heads();
        let fits = bytes.len() <= OWN_PIECE_BYTES_MAX as usize
            && connection
                .backlog
                .as_ref()
                .is_none_or(|backlog| backlog.bytes.is_empty());
        if fits
            && let Some(range) = self.outbox.rings.append_own(bytes)
            && self.outbox.mark(connection, slot, range, head) == Marked::Done
        {
            return;
        }
        self.outbox.copy(connection, slot, bytes, KEEP);
        self.check_backlog(slot);
    }

    /// Queues what was written for every subscriber of a hub channel that `wanted` picks, each its class's piece. Returns how
    /// many publications they got.
    pub(super) fn fan_out(
        &mut self,
        hub: u32,
        written: &mut Written,
        droppable: bool,
        wanted: impl Fn(&Subscriber) -> bool,
    ) -> u64 {
        let Some(channel) = self.hub.at(hub) else {
            return 0;
        };
        let drop_oldest = droppable && channel.namespace.slow_consumer == SlowConsumer::DropOldest;
        let head = self.outbox.rings.heads();
        let rings = &mut self.outbox.rings;
        written.place(|bytes| {
            if bytes.len() <= FANOUT_PIECE_BYTES_MAX as usize {
                rings.append_shared(bytes)
            } else {
                None
            }
        });
        let pieces = written.pieces();
        let mut special: Vec<(u32, u16)> = Vec::new();
        let mut publications = 0;
        for subscriber in &channel.subscribers {
            let piece = &pieces[usize::from(subscriber.class)];
            if piece.is_empty() || !wanted(subscriber) {
                continue;
            }
            let Some(connection) = self.connections.at_mut(subscriber.conn) else {
                continue;
            };
            publications += u64::from(piece.publications);
            // A connection that does not keep up owns its bytes, piece by piece, so that they can be dropped.
            let slow = connection.is_sending && drop_oldest
                || connection
                    .backlog
                    .as_ref()
                    .is_some_and(|b| !b.bytes.is_empty());
            match piece.range {
                Some(range) if !slow && !connection.is_corked() => {
                    if self.outbox.mark(connection, subscriber.conn, range, head) == Marked::Copy {
                        special.push((subscriber.conn, subscriber.class));
                    }
                }
                _ => special.push((subscriber.conn, subscriber.class)),
            }
        }
        for (slot, class) in special {
            self.fan_out_special(slot, hub, written.bytes(class), drop_oldest);
        }
        publications
    }

    fn fan_out_special(&mut self, slot: u32, hub: u32, frame: &[u8], drop_oldest: bool) {
        let Some(connection) = self.connections.at_mut(slot) else {
            return;
        };
        if let Some(connecting) = &mut connection.session.connecting {
            if connecting.pushes.len() > self.config.client.queue_max_size {
                self.disconnect(slot, &Disconnect::Slow);
            } else {
                connecting.pushes.extend_from_slice(frame);
            }
            return;
        }
        self.outbox.copy(
            connection,
            slot,
            frame,
            if drop_oldest { hub } else { KEEP },
        );
        self.check_backlog(slot);
    }

    /// A connection with too many unsent bytes is dealt with as its channels say.
    fn check_backlog(&mut self, slot: u32) {
        let limit = match self.mode {
            super::Mode::Proxy => self.config.client.queue_max_size,
            super::Mode::Echo => crate::limits::ECHO_MESSAGE_BYTES_MAX * 2,
        };
        let Some(connection) = self.connections.at_mut(slot) else {
            return;
        };
        let Some(backlog) = &mut connection.backlog else {
            return;
        };
        let too_many_bytes = self.outbox.backlog_bytes > BACKLOG_BYTES_MAX;
        if backlog.waiting() <= limit && !too_many_bytes {
            return;
        }
        if matches!(
            connection.state,
            State::Finishing | State::Refused | State::Lingering | State::Gone
        ) || !connection.is_session
        {
            // A session that ends adds nothing but its close frame, which its peer may still read in time. An HTTP answer
            // may be larger than a client's queue; the peer asked for it.
            let most = limit.max(crate::limits::HTTP_BODY_BYTES_MAX) * 16;
            if too_many_bytes || !connection.is_session && backlog.unsent() > most {
                self.abort(slot);
            }
            return;
        }
        let before = backlog.bytes.len();
        let keep = limit.saturating_sub(backlog.in_flight) / 2;
        let lost = backlog.drop_oldest(keep, if too_many_bytes { 0 } else { limit });
        let mut count = 0;
        for &(hub, publications) in &lost {
            count += publications;
            let session = &connection.session;
            let Some(at) = session.subscription_at(hub) else {
                continue;
            };
            if session.subscriptions[at].has(flag::POSITIONED) {
                count += backlog.purge(hub);
            } else if let Some(channel) = self.hub.at(hub) {
                backlog.lose(&channel.name, publications);
            }
        }
        self.outbox.backlog_bytes -= before - backlog.bytes.len();
        self.counters.dropped_slow += count;
        if backlog.waiting() > limit || too_many_bytes && lost.is_empty() {
            self.disconnect(slot, &Disconnect::Slow);
            return;
        }
        for (hub, _) in lost {
            self.tell_insufficient(slot, hub);
        }
        self.wake_parts(slot);
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Output> {
        if let Some(order) = self.outbox.orders.pop_front() {
            return Some(order);
        }
        while let Some((slot, _)) = self.outbox.dirty.pop_front() {
            let generation = self.connections.generation(slot);
            let Some(connection) = self.connections.at_mut(slot) else {
                continue;
            };
            if !std::mem::take(&mut connection.is_dirty) || connection.state == State::Gone {
                continue;
            }
            let conn = ConnId { slot, generation };
            if connection.close.is_some() {
                self.outbox.closing.push(slot);
            }
            if connection.is_sending {
                self.outbox.own_pending(connection);
                self.check_backlog(slot);
                continue;
            }
            if connection
                .backlog
                .as_ref()
                .is_some_and(|backlog| !backlog.bytes.is_empty() || !backlog.lost.is_empty())
            {
                self.outbox.own_pending(connection);
                let format = connection.session.format;
                let listens = connection.state == State::Open;
                let Some(backlog) = &mut connection.backlog else {
                    continue;
                };
                if !backlog.lost.is_empty() {
                    let told = tell_losses(backlog, format, listens, &mut self.compression);
                    self.outbox.backlog_bytes += told;
                }
                if backlog.bytes.is_empty() {
                    continue;
                }
                connection.is_sending = true;
                let batch = SendBatch::Owned(backlog.take_batch());
                self.counters.sends += 1;
                return Some(Output::Transmit { conn, batch });
            }
            let range = std::mem::take(&mut connection.pending);
            if range.len > 0 {
                self.counters.sends += 1;
                self.counters.bytes_sent += u64::from(range.len);
                self.outbox.is_unflushed = true;
                return Some(Output::Transmit {
                    conn,
                    batch: SendBatch::Ring(range),
                });
            }
        }
        // Entries of connections that need nothing any more leave bytes behind that no flush follows.
        if !self.outbox.is_unflushed {
            self.outbox.release();
        }
        None
    }

    /// A batch came back: a ring batch that the kernel did not take whole, or an owned one.
    pub fn handle_sent(
        &mut self,
        now: Now,
        conn: ConnId,
        batch: SendBatch,
        result: Result<usize, SendFailed>,
    ) {
        self.now = now;
        let Some(connection) = self.connections.current_mut(conn.slot, conn.generation) else {
            return;
        };
        let Ok(taken) = result else {
            self.send_failed(conn.slot);
            return;
        };
        match batch {
            SendBatch::Ring(range) => {
                assert!(
                    taken < range.len as usize,
                    "a ring batch came back although it was taken whole"
                );
                assert!(
                    !connection.is_sending,
                    "a ring batch was out beside an owned one"
                );
                self.counters.sends_short += 1;
                let rest = range.skip(taken as u32);
                // What was queued since stands behind the rest.
                let backlog = connection.backlog.get_or_insert_default();
                backlog.push_front(self.outbox.rings.bytes(rest));
                if connection.session.was_pinged(now, &self.config) {
                    backlog.pinged(rest.len as usize);
                }
                self.outbox.backlog_bytes += rest.len as usize;
                let head = self.outbox.rings.heads();
                self.outbox.make_dirty(connection, conn.slot, head);
                self.check_backlog(conn.slot);
                self.settle();
            }
            SendBatch::Owned(bytes) => self.owned_sent(conn, &bytes, taken),
        }
    }

    /// An owned batch came back: so much of it is with the kernel.
    fn owned_sent(&mut self, conn: ConnId, bytes: &[u8], taken: usize) {
        let Some(connection) = self.connections.current_mut(conn.slot, conn.generation) else {
            return;
        };
        assert!(
            connection.is_sending,
            "an owned batch came back that was never out"
        );
        let now = self.now;
        connection.is_sending = false;
        self.counters.bytes_sent += taken as u64;
        let Some(backlog) = &mut connection.backlog else {
            return;
        };
        let (owed, had_ping) = (backlog.owes_answers(), backlog.has_ping());
        backlog.gone(taken);
        self.outbox.backlog_bytes -= std::mem::take(&mut backlog.in_flight);
        if taken < bytes.len() {
            backlog.push_front(&bytes[taken..]);
            self.outbox.backlog_bytes += bytes.len() - taken;
        }
        if had_ping && (!backlog.has_ping() || backlog.bytes.is_empty()) {
            connection.session.ping_went_out(now, &self.config);
        }
        if !backlog.lost.is_empty() {
            let (format, state) = (connection.session.format, connection.state);
            let listens = state == State::Open;
            let told = tell_losses(backlog, format, listens, &mut self.compression);
            self.outbox.backlog_bytes += told;
        }
        if backlog.bytes.is_empty() {
            connection.backlog = None;
            if connection.state == State::Owing {
                self.owing.push(conn);
            }
            self.batch_taken(conn.slot);
            let Some(connection) = self.connections.at_mut(conn.slot) else {
                return;
            };
            if connection.close.is_some() && connection.pending.len == 0 {
                self.outbox.closing.push(conn.slot);
                return self.close_sent();
            }
        } else {
            let head = self.outbox.rings.heads();
            self.outbox.make_dirty(connection, conn.slot, head);
            self.batch_taken(conn.slot);
        }
        self.wake_parts(conn.slot);
        let owes = |one: &Connection| one.owes_answers();
        if owed && !self.connections.at(conn.slot).is_some_and(owes) {
            self.make_ready(conn.slot);
            self.settle();
        }
    }

    /// The peer is gone. What it had asked for before it said no more is still carried out.
    fn send_failed(&mut self, slot: u32) {
        let Some(connection) = self.connections.at_mut(slot) else {
            return;
        };
        if let Some(backlog) = &mut connection.backlog {
            self.outbox.backlog_bytes -= std::mem::take(&mut backlog.in_flight);
        }
        connection.is_sending = false;
        if self.goes_on_alone(slot) {
            if let Some(connection) = self.connections.at_mut(slot) {
                self.outbox.forget(connection);
                connection.backlog = None;
            }
            self.make_ready(slot);
        } else {
            self.abort(slot);
        }
        self.settle();
    }

    /// Every ring batch polled so far is with the kernel, and its failures were reported.
    pub fn handle_flushed(&mut self, now: Now) {
        self.now = now;
        if std::mem::take(&mut self.outbox.is_unflushed) {
            self.outgoing.see_all();
        }
        self.outbox.release();
        if self.outbox.dirty.is_empty()
            && let Some(since) = self.fan_out_since.take()
        {
            self.counters
                .fan_out
                .record(u64::try_from(now.at.since(since).as_nanos()).unwrap_or(u64::MAX));
        }
        self.feed_workers();
        self.look_at_fetches();
        self.close_sent();
        self.answers_sent();
        self.settle();
    }

    /// Closes the connections that wanted to be closed and have nothing left to send.
    fn close_sent(&mut self) {
        for slot in std::mem::take(&mut self.outbox.closing) {
            let generation = self.connections.generation(slot);
            let Some(connection) = self.connections.at_mut(slot) else {
                continue;
            };
            if let Some(how) = connection.close
                && !matches!(connection.state, State::Gone | State::Lingering)
                && connection.is_sent()
            {
                let conn = ConnId { slot, generation };
                if connection.state == State::Refused {
                    connection.state = State::Lingering;
                    self.outbox.orders.push_back(Output::HalfClose(conn));
                    self.limit_lingering(slot);
                } else {
                    connection.state = State::Gone;
                    self.outbox.orders.push_back(Output::Close { conn, how });
                }
            }
        }
    }

    /// Reads no further from a connection: what it sends stays in its socket. What the reactor has read by now still comes.
    pub(super) fn stop_reading(&mut self, slot: u32) {
        let generation = self.connections.generation(slot);
        if let Some(connection) = self.connections.at_mut(slot)
            && connection.state != State::Gone
            && !std::mem::replace(&mut connection.is_paused, true)
        {
            self.counters.receives_paused += 1;
            self.outbox
                .orders
                .push_back(Output::Pause(ConnId { slot, generation }));
        }
    }

    /// Reads again, unless much is held that still waits. What is held because the rest is missing waits for nothing else.
    pub(super) fn read_on(&mut self, slot: u32) {
        let generation = self.connections.generation(slot);
        if let Some(connection) = self.connections.at_mut(slot)
            && connection.state != State::Gone
            && connection.is_paused
            && !(connection.is_held_up()
                && connection
                    .held
                    .as_ref()
                    .is_some_and(|held| held.len() >= HELD_PAUSE_BYTES))
        {
            connection.is_paused = false;
            self.outbox
                .orders
                .push_back(Output::Resume(ConnId { slot, generation }));
        }
    }

    /// Pings of a connection whose client sends nothing are answered by the kernel's acknowledgements alone.
    pub(super) fn expect_acknowledgements(&mut self, slot: u32) {
        let client = &self.config.client;
        if client.ping_interval.is_some() {
            let generation = self.connections.generation(slot);
            let order = Output::Patience(ConnId { slot, generation }, client.pong_timeout);
            self.outbox.orders.push_back(order);
        }
    }

    /// Gives up the memory that only a rush needed.
    pub fn shrink(&mut self) {
        /// Places that a queue keeps.
        const KEPT: usize = 1024;
        self.outbox.dirty.shrink_to(KEPT);
        self.outbox.closing.shrink_to(KEPT);
        self.outbox.orders.shrink_to(KEPT);
        self.said.shrink_to(KEPT);
        self.parts.shrink_to(KEPT);
        self.scratch.shrink_to(64 << 10);
    }

    /// Sends what is queued, then closes with FIN.
    pub(super) fn finish(&mut self, slot: u32) {
        self.end_session(slot);
        self.forget_input(slot);
        let Some(connection) = self.connections.at_mut(slot) else {
            return;
        };
        if matches!(connection.state, State::Gone) {
            return;
        }
        connection.state = State::Finishing;
        connection.close = Some(Close::Finish);
        let head = self.outbox.rings.heads();
        self.outbox.make_dirty(connection, slot, head);
        let by = crate::mem::TimerWheel::tick_after(self.now.at, super::websocket::CLOSE_TIMEOUT);
        self.set_deadline(slot, by);
    }

    /// Closes with RST; what is queued is lost.
    pub(super) fn abort(&mut self, slot: u32) {
        self.end_session(slot);
        let generation = self.connections.generation(slot);
        if let Some(connection) = self.connections.at_mut(slot)
            && connection.state != State::Gone
        {
            connection.state = State::Gone;
            connection.pending = RingRange::default();
            self.outbox.orders.push_back(Output::Close {
                conn: ConnId { slot, generation },
                how: Close::Abort,
            });
        }
        // What was lost on its way was not taken.
        self.fetch_is_over(slot);
    }

    /// For the simulator's checkers: bytes that all connections hold, counted anew.
    #[must_use]
    pub fn backlog_bytes_counted(&self) -> (usize, usize) {
        let counted = |connections: &Slab<Connection>| {
            connections
                .iter()
                .filter_map(|(_, connection)| {
                    connection.backlog.as_ref().map(|backlog| backlog.unsent())
                })
                .sum()
        };
        (self.outbox.backlog_bytes, counted(&self.connections))
    }
}

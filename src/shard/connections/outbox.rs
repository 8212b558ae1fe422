//! What goes out. Frames are encoded once into the fan-out ring; a connection holds one range of it, and its turn comes in
//! the order in which connections of its tenant became dirty, where tenants take turns by bytes. A connection whose socket does not
//! keep up owns a copy of its bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::leave_out::Leaving;
use super::rings::{Heads, Rings};
use super::{Connection, Connections, Due, State};
use crate::broker::HubChannel;
use crate::broker::hub::Subscriber;
use crate::limits::{
    FANOUT_PIECE_BYTES_MAX, HELD_PAUSE_BYTES, OWN_PIECE_BYTES_MAX, PENDING_JOIN_BYTES_MAX,
};
use crate::mem::{HeldBytes, LaneId, Origin, Place, RingRange, Shared, Slab, Tick, Turns};
use crate::metrics::Counters;
use crate::model::{ConnId, Format, Weights};
use crate::protocol::push::Push;
use crate::shard::backlog::Backlog;
use crate::shard::loss::lost;
use crate::shard::{Close, Output, SendBatch};
use crate::speaker::{self, Compression, Written};
use crate::time::Instant;

/// Bytes that a tenant with weight 1 is sent in its turn: a few small messages.
pub(super) const TURN_BYTES: u32 = 4 << 10;
/// What a send costs beside its bytes: about as much as so many more.
const SEND_BYTES: u32 = 1 << 10;

/// The shard's half of every outbox.
pub(super) struct Outbox {
    pub(super) rings: Rings,
    /// Connections with something to send, and the rings' heads when each became dirty: the oldest byte that any of a tenant's
    /// needs is not before the first one's.
    pub(super) dirty: Turns<(u32, Heads)>,
    /// Connections to close once the kernel has what they sent.
    pub(super) closing: Vec<u32>,
    /// What the reactor is to do with connections: closes, pauses and their ends, in order.
    pub(super) orders: VecDeque<ConnOrder>,
    /// Bytes that connections own.
    pub(super) held: HeldBytes,
    /// Ring batches were polled since the last flush: their bytes are still needed.
    pub(super) is_unflushed: bool,
}

/// What the reactor is to do with a connection: see `Output`.
#[derive(Debug)]
pub(super) enum ConnOrder {
    Close { conn: ConnId, how: Close },
    Pause(ConnId),
    Resume(ConnId),
    Patience(ConnId, Duration),
    HalfClose(ConnId),
}

impl From<ConnOrder> for Output {
    fn from(order: ConnOrder) -> Self {
        match order {
            ConnOrder::Close { conn, how } => Self::Close { conn, how },
            ConnOrder::Pause(conn) => Self::Pause(conn),
            ConnOrder::Resume(conn) => Self::Resume(conn),
            ConnOrder::Patience(conn, within) => Self::Patience(conn, within),
            ConnOrder::HalfClose(conn) => Self::HalfClose(conn),
        }
    }
}

/// What `mark` could not do by itself.
#[derive(PartialEq, Eq)]
enum Marked {
    Done,
    /// The bytes must go to the connection's own memory.
    Copy,
}

impl Outbox {
    pub(super) fn new(shared_bytes: u32, own_bytes: u32, weights: &Arc<Weights>) -> Self {
        Self {
            rings: Rings::new(shared_bytes, own_bytes),
            dirty: Turns::new(TURN_BYTES, weights),
            closing: Vec::new(),
            orders: VecDeque::new(),
            held: HeldBytes::default(),
            is_unflushed: false,
        }
    }

    /// Frees the bytes that no dirty connection needs. Dirty connections remember positions, also those whose bytes are
    /// their own: the rings start at the front only when there is none. While there is room, nobody looks through many tenants.
    fn release(&mut self) {
        if self.dirty.waiting() > 1 && !self.rings.are_half_full() {
            return;
        }
        let fronts = self.dirty.fronts().map(|(_, &(_, heads))| heads);
        match fronts.reduce(|a, b| self.rings.earlier(a, b)) {
            Some(heads) => self.rings.release_to(heads),
            None => {
                self.rings.release_to(self.rings.heads());
                self.rings.rewind();
            }
        }
    }

    /// Whoever has waited while more than half of a ring was written takes its bytes along, so that what comes next has room. Returns
    /// who owns more than before.
    fn make_room(&mut self, slab: &mut Slab<Connection>) -> Vec<u32> {
        let mut grown = Vec::new();
        let is_back = |rings: &Rings, heads| rings.is_far_back(heads);
        let fronts = self.dirty.fronts();
        let lanes: Vec<LaneId> = fronts
            .filter(|&(_, &(_, heads))| is_back(&self.rings, heads))
            .map(|(lane, _)| lane)
            .collect();
        for lane in lanes {
            let queue = self.dirty.queue_mut(lane);
            let back = queue.take_while(|(_, heads)| is_back(&self.rings, *heads));
            let count = back.map(|&mut (slot, _)| grown.push(slot)).count();
            // Nobody of them needs what is before the next one's.
            let next = self.dirty.queue_mut(lane).nth(count);
            let heads = next.map_or(self.rings.heads(), |&mut (_, heads)| heads);
            for (_, own) in self.dirty.queue_mut(lane).take(count) {
                *own = heads;
            }
        }
        // Neighbours have the same range: it is copied once for all of them.
        let mut last: Option<(RingRange, Arc<Shared>)> = None;
        grown.retain(|&slot| {
            let Some(connection) = slab.at_mut(slot).filter(|one| one.pending.len > 0) else {
                return false;
            };
            let range = std::mem::take(&mut connection.pending);
            let (_, bytes) = match last.take_if(|(of, _)| *of == range) {
                Some(same) => last.insert(same),
                None => {
                    let bytes = self.rings.bytes(range).to_vec();
                    last.insert((range, Shared::new(bytes, &self.held)))
                }
            };
            Self::backlog(connection, &self.held).share(bytes, None);
            true
        });
        grown
    }

    /// Adds a range of the ring to what the connection sends next.
    fn mark(
        &mut self,
        connection: &mut Connection,
        slot: u32,
        range: RingRange,
        head: Heads,
        lane: Option<LaneId>,
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
        self.make_dirty(connection, slot, head, lane);
        Marked::Done
    }

    /// `lane` is that of its tenant, where it is known.
    fn make_dirty(
        &mut self,
        connection: &mut Connection,
        slot: u32,
        head: Heads,
        lane: Option<LaneId>,
    ) {
        if !connection.is_dirty {
            connection.is_dirty = true;
            let lane = lane.unwrap_or_else(|| self.dirty.lane(connection.session.tenant()));
            self.dirty.push_to(lane, (slot, head));
        }
    }

    /// Puts something behind everything the connection has to send.
    fn own(&mut self, connection: &mut Connection, slot: u32, add: impl FnOnce(&mut Backlog)) {
        self.own_pending(connection);
        add(Self::backlog(connection, &self.held));
        let head = self.rings.heads();
        self.make_dirty(connection, slot, head, None);
    }

    /// What the connection owns.
    fn backlog<'c>(connection: &'c mut Connection, held: &HeldBytes) -> &'c mut Backlog {
        (connection.backlog).get_or_insert_with(|| Box::new(Backlog::new(held)))
    }

    /// Moves a pending range into the connection's own memory.
    fn own_pending(&mut self, connection: &mut Connection) {
        let range = std::mem::take(&mut connection.pending);
        if range.len > 0 {
            Self::backlog(connection, &self.held).push(self.rings.bytes(range));
        }
    }
}

/// Tells a peer what it has lost, behind what it gets.
fn tell_losses(
    backlog: &mut Backlog,
    format: Format,
    listens: bool,
    compression: &mut Compression,
) {
    let losses = std::mem::take(&mut backlog.lost).into_iter();
    for (channel, loss) in losses.filter(|_| listens) {
        let said = lost(&channel, Some(loss));
        let mut message = Vec::new();
        speaker::push(&mut message, format, compression, "", &Push::Message(&said));
        backlog.push(&message);
    }
}

/// What a look for something to send found.
pub(in crate::shard) enum NextSend {
    /// Do this.
    Do(Output),
    /// This connection waits for its batch, and owns more bytes than before: that has a bound.
    Grown(u32),
    /// Nothing.
    Nothing,
}

/// What became of an owned batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) struct Back {
    /// Nothing is left of what the connection owned.
    pub(in crate::shard) is_sent: bool,
    /// A ping that was among it is with the kernel.
    pub(in crate::shard) is_pinged: bool,
}

/// What is to be sent.
impl Connections {
    /// Queues bytes for one connection. True if it owns more bytes than before: that has a bound.
    pub(in crate::shard) fn queue(&mut self, slot: u32, pieces: &[&[u8]]) -> bool {
        let Some(connection) = self.slab.at_mut(slot) else {
            return false;
        };
        if matches!(connection.state, State::Gone) {
            return false;
        }
        let outbox = &mut self.outbox;
        let head = outbox.rings.heads();
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let fits = len <= OWN_PIECE_BYTES_MAX as usize
            && connection
                .backlog
                .as_ref()
                .is_none_or(|backlog| backlog.is_empty());
        if fits
            && let Some(range) = outbox.rings.append_own(pieces)
            && outbox.mark(connection, slot, range, head, None) == Marked::Done
        {
            return false;
        }
        outbox.own(connection, slot, |backlog| backlog.push(&pieces.concat()));
        true
    }

    /// What was queued last was answers: those that its peer does not take make the next command wait.
    pub(in crate::shard) fn answered(&mut self, slot: u32, bytes: usize) {
        if let Some(connection) = self.slab.at_mut(slot)
            && let Some(backlog) = &mut connection.backlog
            && !backlog.is_empty()
        {
            backlog.answered(bytes);
        }
    }

    /// Queues what was written for a class of subscribers behind what a connection owns, in one piece. Where it has a `hub` the channel
    /// there says what becomes of it while it waits; it is the publication of `origin` then.
    pub(in crate::shard) fn share(
        &mut self,
        slot: u32,
        written: &mut Written,
        class: u16,
        hub: Option<Place>,
        origin: &Origin,
    ) {
        if let Some(connection) = self.slab.at_mut(slot) {
            let outbox = &mut self.outbox;
            let piece = written.shared(class, origin, &outbox.held);
            outbox.own(connection, slot, |backlog| backlog.share(piece, hub));
        }
    }

    /// Queues what was written for every subscriber of a channel that `wanted` picks, each its class's piece. Those who cannot be
    /// given it here are left to the caller: slot and class. Returns how many publications all of them get.
    ///
    /// # Panics
    /// If a subscriber has no connection.
    pub(in crate::shard) fn fan_out(
        &mut self,
        channel: &HubChannel,
        written: &mut Written,
        wanted: impl Fn(&Subscriber) -> bool,
        special: &mut Vec<(u32, u16)>,
    ) -> u64 {
        let head = self.outbox.rings.heads();
        let lane = Some(self.outbox.dirty.lane(channel.name.tenant()));
        let rings = &mut self.outbox.rings;
        written.place(|bytes| {
            if bytes.len() <= FANOUT_PIECE_BYTES_MAX as usize {
                rings.append_shared(bytes)
            } else {
                None
            }
        });
        let pieces = written.pieces();
        debug_assert_eq!(
            pieces.len(),
            channel.classes.len(),
            "a piece for each class"
        );
        let mut publications = 0;
        for subscriber in &channel.subscribers {
            let piece = &pieces[usize::from(subscriber.class)];
            if piece.is_empty() || !wanted(subscriber) {
                continue;
            }
            let Some(connection) = self.slab.at_mut(subscriber.conn) else {
                unreachable!("a subscriber leaves before its connection does");
            };
            publications += u64::from(piece.publications);
            // A connection that does not keep up has a queue of its own, of what it shares with others.
            let slow =
                connection.is_sending || connection.backlog.as_ref().is_some_and(|b| !b.is_empty());
            match piece.range {
                Some(range) if !slow && !connection.is_corked() => {
                    let outbox = &mut self.outbox;
                    let marked = outbox.mark(connection, subscriber.conn, range, head, lane);
                    if marked == Marked::Copy {
                        special.push((subscriber.conn, subscriber.class));
                    }
                }
                _ => special.push((subscriber.conn, subscriber.class)),
            }
        }
        publications
    }
}

/// What is done about it.
impl Connections {
    /// What is to be done next.
    pub(in crate::shard) fn poll<'n>(
        &mut self,
        compression: &mut Compression,
        counters: &mut Counters,
        channel_at: impl Fn(u32) -> Option<&'n HubChannel>,
    ) -> NextSend {
        let outbox = &mut self.outbox;
        if let Some(order) = outbox.orders.pop_front() {
            return NextSend::Do(order.into());
        }
        while let Some((slot, _)) = outbox.dirty.pop() {
            let generation = self.slab.generation(slot);
            let Some(connection) = self.slab.at_mut(slot) else {
                continue;
            };
            if !std::mem::take(&mut connection.is_dirty) || connection.state == State::Gone {
                continue;
            }
            let conn = ConnId { slot, generation };
            if connection.close.is_some() {
                outbox.closing.push(slot);
            }
            if connection.is_sending {
                outbox.own_pending(connection);
                return NextSend::Grown(slot);
            }
            if connection
                .backlog
                .as_ref()
                .is_some_and(|backlog| !backlog.is_empty() || !backlog.lost.is_empty())
            {
                outbox.own_pending(connection);
                let format = connection.session.format;
                let listens = connection.state == State::Open;
                let Some(backlog) = &mut connection.backlog else {
                    unreachable!("it was there just now");
                };
                if backlog.has_unconflated() && listens {
                    // What is sent is the latest.
                    let mut leaving = Leaving::out_of(backlog, &connection.session, &channel_at);
                    leaving.conflate();
                    counters.conflated += leaving.left.conflated;
                }
                if !backlog.lost.is_empty() {
                    tell_losses(backlog, format, listens, compression);
                }
                if backlog.is_empty() {
                    continue;
                }
                connection.is_sending = true;
                let bytes = backlog.take_batch();
                outbox.dirty.charge(bytes.len() as u32 + SEND_BYTES);
                let batch = SendBatch::Owned(bytes);
                counters.sends += 1;
                return NextSend::Do(Output::Transmit { conn, batch });
            }
            let range = std::mem::take(&mut connection.pending);
            if range.len > 0 {
                counters.sends += 1;
                counters.bytes_sent += u64::from(range.len);
                outbox.dirty.charge(range.len + SEND_BYTES);
                outbox.is_unflushed = true;
                let batch = SendBatch::Ring(range);
                return NextSend::Do(Output::Transmit { conn, batch });
            }
        }
        // Entries of connections that need nothing any more leave bytes behind that no flush follows.
        if !outbox.is_unflushed {
            outbox.release();
        }
        NextSend::Nothing
    }

    /// A ring batch came back of which the kernel took only so much: the rest is the connection's own, in front. `pinged`: its last
    /// bytes are a ping.
    ///
    /// # Panics
    /// If it was taken whole, or an owned one was out beside it.
    pub(in crate::shard) fn ring_batch_back(
        &mut self,
        slot: u32,
        range: RingRange,
        taken: usize,
        pinged: bool,
    ) {
        assert!(
            taken < range.len as usize,
            "a ring batch came back although it was taken whole"
        );
        let Some(connection) = self.slab.at_mut(slot) else {
            return;
        };
        assert!(
            !connection.is_sending,
            "a ring batch was out beside an owned one"
        );
        let rest = range.skip(taken as u32);
        let outbox = &mut self.outbox;
        // What was queued since stands behind the rest.
        let backlog = Outbox::backlog(connection, &outbox.held);
        backlog.push_front(outbox.rings.bytes(rest));
        if pinged {
            backlog.pinged(rest.len as usize);
        }
        let head = outbox.rings.heads();
        outbox.make_dirty(connection, slot, head, None);
    }

    /// An owned batch came back: so much of it is with the kernel.
    ///
    /// # Panics
    /// If none was out.
    pub(in crate::shard) fn owned_batch_back(
        &mut self,
        slot: u32,
        bytes: &[u8],
        taken: usize,
        compression: &mut Compression,
    ) -> Back {
        let mut back = Back::default();
        let Some(connection) = self.slab.at_mut(slot) else {
            return back;
        };
        assert!(
            connection.is_sending,
            "an owned batch came back that was never out"
        );
        connection.is_sending = false;
        let outbox = &mut self.outbox;
        // A peer whose own bytes were let go takes nothing any more.
        let Some(backlog) = connection.backlog.as_mut() else {
            return back;
        };
        let had_ping = backlog.has_ping();
        connection.due.add(Due::ROOM);
        if backlog.owes_answers() {
            connection.due.add(Due::OWED);
        }
        backlog.batch_back(bytes, taken);
        back.is_pinged = had_ping && (!backlog.has_ping() || backlog.is_empty());
        // Where something is left to be sent, it is told with that.
        if !backlog.lost.is_empty() && backlog.is_empty() {
            let (format, state) = (connection.session.format, connection.state);
            let listens = state == State::Open;
            tell_losses(backlog, format, listens, compression);
        }
        back.is_sent = backlog.is_empty();
        if back.is_sent {
            connection.backlog = None;
            if connection.state == State::Owing {
                let generation = self.slab.generation(slot);
                self.owing.push(ConnId { slot, generation });
            }
        } else {
            let head = outbox.rings.heads();
            outbox.make_dirty(connection, slot, head, None);
        }
        back
    }

    /// A send failed: its peer is gone, and the batch with it.
    pub(in crate::shard) fn batch_failed(&mut self, slot: u32) {
        if let Some(connection) = self.slab.at_mut(slot) {
            if let Some(backlog) = &mut connection.backlog {
                backlog.forget_batch();
            }
            connection.is_sending = false;
        }
    }

    /// Lets go what a connection owns to be sent: nobody takes it.
    pub(in crate::shard) fn drop_backlog(&mut self, slot: u32) {
        if let Some(connection) = self.slab.at_mut(slot) {
            connection.backlog = None;
            connection.due.add(Due::ROOM);
        }
    }

    /// Every ring batch polled so far is with the kernel, and its failures were reported. True if there was one.
    pub(in crate::shard) fn flushed(&mut self) -> bool {
        let was_unflushed = std::mem::take(&mut self.outbox.is_unflushed);
        self.outbox.release();
        was_unflushed
    }

    /// Makes room in the rings where several tenants share them: whoever has waited for long while others were served, or has filled
    /// them alone, so that nobody else's commands are taken in. Returns who owns more bytes than before: that has a bound.
    pub(in crate::shard) fn make_room(&mut self) -> Vec<u32> {
        let outbox = &mut self.outbox;
        let is_wanted = if outbox.dirty.waiting() > 1 {
            outbox.rings.are_half_full()
        } else {
            outbox.rings.is_full(0)
        };
        if !is_wanted {
            return Vec::new();
        }
        let grown = outbox.make_room(&mut self.slab);
        outbox.release();
        grown
    }

    /// Closes the connections that wanted to be closed and have nothing left to send; of those whose peer may be sending still, our
    /// side, and theirs at `linger_until`.
    pub(in crate::shard) fn close_sent(&mut self, linger_until: Tick) {
        for slot in std::mem::take(&mut self.outbox.closing) {
            let generation = self.slab.generation(slot);
            let Some(connection) = self.slab.at_mut(slot) else {
                continue;
            };
            if let Some(how) = connection.close
                && !matches!(connection.state, State::Gone | State::Lingering)
                && connection.is_sent()
            {
                let conn = ConnId { slot, generation };
                if connection.state == State::Refused {
                    connection.state = State::Lingering;
                    self.outbox.orders.push_back(ConnOrder::HalfClose(conn));
                    self.set_deadline(slot, linger_until);
                } else {
                    connection.state = State::Gone;
                    self.outbox.orders.push_back(ConnOrder::Close { conn, how });
                }
            }
        }
    }

    /// A connection that is to be closed once everything is sent may be so far.
    pub(in crate::shard) fn close_if_sent(&mut self, slot: u32, linger_until: Tick) {
        self.outbox.closing.push(slot);
        self.close_sent(linger_until);
    }
}

/// What the reactor is told about them.
impl Connections {
    /// Reads no further from a connection: what it sends stays in its socket. What the reactor has read by now still comes. True
    /// if it was read until now.
    pub(in crate::shard) fn stop_reading(&mut self, slot: u32) -> bool {
        let conn = self.id(slot);
        let stops = self.slab.at_mut(slot).is_some_and(|connection| {
            connection.state != State::Gone && !std::mem::replace(&mut connection.is_paused, true)
        });
        if stops {
            self.outbox.orders.push_back(ConnOrder::Pause(conn));
        }
        stops
    }

    /// Reads again, unless much is held that still waits, or it was slowed down. What is held because the rest is missing waits for
    /// nothing else.
    pub(in crate::shard) fn read_on(&mut self, slot: u32) {
        let conn = self.id(slot);
        let is_slowed = self.slowed_until(slot) != 0;
        if let Some(connection) = self.slab.at_mut(slot)
            && connection.state != State::Gone
            && connection.is_paused
            && !(is_slowed && connection.is_served())
            && !(connection.is_held_up()
                && connection
                    .held
                    .as_ref()
                    .is_some_and(|held| held.len() >= HELD_PAUSE_BYTES))
        {
            connection.is_paused = false;
            self.outbox.orders.push_back(ConnOrder::Resume(conn));
        }
    }

    /// A peer that acknowledges nothing for so long is dead.
    pub(in crate::shard) fn expect_acknowledgements(&mut self, slot: u32, within: Duration) {
        let order = ConnOrder::Patience(self.id(slot), within);
        self.outbox.orders.push_back(order);
    }

    /// Sends what is queued, then closes with FIN; with RST where that takes until `by`.
    pub(in crate::shard) fn finish(&mut self, slot: u32, by: Tick) {
        let Some(connection) = self.slab.at_mut(slot) else {
            return;
        };
        if matches!(connection.state, State::Gone) {
            return;
        }
        connection.state = State::Finishing;
        connection.close = Some(Close::Finish);
        let head = self.outbox.rings.heads();
        self.outbox.make_dirty(connection, slot, head, None);
        self.set_deadline(slot, by);
    }

    /// Closes with RST; what is queued is lost.
    pub(in crate::shard) fn abort(&mut self, slot: u32) {
        let conn = self.id(slot);
        if let Some(connection) = self.slab.at_mut(slot)
            && connection.state != State::Gone
        {
            connection.state = State::Gone;
            connection.pending = RingRange::default();
            let how = Close::Abort;
            self.outbox.orders.push_back(ConnOrder::Close { conn, how });
        }
    }
}

/// How much it is.
impl Connections {
    /// Bytes of a ring batch.
    pub(in crate::shard) fn bytes(&self, range: RingRange) -> &[u8] {
        self.outbox.rings.bytes(range)
    }

    /// Bytes that connections own because their peers do not take them; what several share counts once.
    pub(in crate::shard) fn backlog_bytes(&self) -> usize {
        self.outbox.held.get()
    }

    /// The same as `backlog_bytes`, counted anew.
    pub(in crate::shard) fn backlog_bytes_counted(&self) -> usize {
        let mut shared = std::collections::HashMap::new();
        let backlogs = (self.slab.iter()).filter_map(|(_, one)| one.backlog.as_ref());
        let own: usize = backlogs
            .map(|backlog| {
                let (own, pieces) = backlog.counted();
                shared.extend(pieces);
                own
            })
            .sum();
        own + shared.values().sum::<usize>()
    }

    /// Batches of the rings were polled and are not known to be with the kernel.
    pub(in crate::shard) const fn has_unflushed(&self) -> bool {
        self.outbox.is_unflushed
    }

    /// Nobody has anything to send that was not polled.
    pub(in crate::shard) fn is_clean(&self) -> bool {
        self.outbox.dirty.is_empty()
    }

    /// See `inspect`: positions are remembered that rings which start at the front again would not have.
    pub(in crate::shard) fn remembers_empty_rings(&self) -> bool {
        let rings = &self.outbox.rings;
        rings.used() == 0 && !self.outbox.dirty.is_empty() && !rings.are_at_front()
    }

    /// Bytes of the rings that somebody needs.
    pub(in crate::shard) const fn ring_used(&self) -> u32 {
        self.outbox.rings.used()
    }

    /// The rings are nearly full. `waiting`: bytes of publications that are not in the ring yet.
    pub(in crate::shard) fn is_full(&self, waiting: usize) -> bool {
        self.outbox.rings.is_full(waiting)
    }

    /// Gives up the memory that only a rush needed: queues keep so many places.
    pub(in crate::shard) fn shrink(&mut self, now: Instant, kept: usize) {
        self.shrink_paces(now);
        self.outbox.dirty.shrink_to(kept);
        self.outbox.closing.shrink_to(kept);
        self.outbox.orders.shrink_to(kept);
    }
}

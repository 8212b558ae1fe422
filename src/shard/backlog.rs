//! What a connection has to send that the kernel did not take at once. Who does not keep up costs a place in a queue for each piece,
//! not its bytes: those that many connections get are in memory once.

mod image;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::limits::{ANSWERS_BYTES_MAX, OWNED_BATCH_BYTES_MAX};
use crate::mem::{HeldBytes, Origin, Place, Shared, Tick};
use crate::model::ChannelName;
use crate::shard::loss::{Loss, Losses};
pub(super) use image::SharedPieces;

/// A smaller piece that must be kept is copied to each connection: that costs less than to share it.
const SHARED_FROM_BYTES: usize = 512;

/// What is left to be sent of some bytes.
#[derive(Debug)]
struct QueuedPiece {
    of: Arc<Shared>,
    /// Bytes of it that are gone.
    from: u32,
    /// The hub slot of a publication whose channel says what becomes of it here; `None` for everything else, which is sent.
    hub: Option<Place>,
}

/// What waits of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OfChannel {
    hub: Place,
    pieces: u32,
    bytes: usize,
}

impl OfChannel {
    /// Bytes of memory, as of `QueuedPiece`.
    const BYTES: usize = 2 * size_of::<Self>();
}

impl QueuedPiece {
    /// Bytes of memory of its place in a queue: one that grows has up to twice as many places as pieces.
    const BYTES: usize = 2 * size_of::<Self>();

    const fn new(of: Arc<Shared>, hub: Option<Place>) -> Self {
        Self { of, from: 0, hub }
    }

    fn bytes(&self) -> &[u8] {
        &self.of.bytes()[self.from as usize..]
    }
}

/// Unsent bytes of a slow connection.
#[derive(Debug)]
pub(super) struct Backlog {
    /// What the kernel has not been given, in order.
    pieces: VecDeque<QueuedPiece>,
    /// Bytes behind them that only this connection gets; a piece as soon as another one follows.
    tail: Vec<u8>,
    /// Bytes of both.
    queued: usize,
    /// Bytes of the batch in flight.
    in_flight: usize,
    /// Unsent bytes up to the end of the last answer among them.
    before: usize,
    /// Bytes of answers in there.
    answers: usize,
    /// The largest message.
    large: usize,
    /// Unsent bytes up to its end.
    before_large: usize,
    /// Unsent bytes up to the end of the ping that is to be answered.
    before_ping: usize,
    /// Some of them were taken since the last look.
    has_taken: bool,
    /// What its peer has to be told that it lost.
    pub(super) lost: Vec<(ChannelName, Loss)>,
    /// Of channels that say what becomes of what waits.
    channels: Vec<OfChannel>,
    /// Publications with a key that came since a later one was last looked for.
    unconflated: u32,
    /// Those that were left then.
    conflated: u32,
    /// Something has waited too long from this tick on, or it is time to look; 0 for never.
    pub(super) age_by: Tick,
    /// Of all connections; the tail, the batch in flight and the queue are counted here, what is shared by itself.
    held: HeldBytes,
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.held.sub(self.own_memory());
    }
}

/// What comes in.
impl Backlog {
    pub(super) fn new(held: &HeldBytes) -> Self {
        Self {
            pieces: VecDeque::new(),
            tail: Vec::new(),
            queued: 0,
            in_flight: 0,
            before: 0,
            answers: 0,
            large: 0,
            before_large: 0,
            before_ping: 0,
            has_taken: false,
            lost: Vec::new(),
            channels: Vec::new(),
            unconflated: 0,
            conflated: 0,
            age_by: 0,
            held: held.clone(),
        }
    }

    /// Queues bytes that only this connection gets.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.held.add(bytes.len());
        self.pushed(bytes.len());
    }

    /// Queues bytes that others get as well; their channel says what becomes of them where they have a `hub`.
    pub(super) fn share(&mut self, of: &Arc<Shared>, hub: Option<Place>) {
        let len = of.bytes().len();
        if hub.is_none() && len < SHARED_FROM_BYTES {
            return self.push(of.bytes());
        }
        self.end_tail();
        self.held.add(QueuedPiece::BYTES);
        self.pieces.push_back(QueuedPiece::new(Arc::clone(of), hub));
        if let Some(hub) = hub {
            self.count(hub, len);
            self.unconflated += u32::from(of.origin().key.is_some());
        }
        self.pushed(len);
    }

    /// One piece more of a channel.
    fn count(&mut self, hub: Place, bytes: usize) {
        match self.channels.iter_mut().find(|one| one.hub == hub) {
            Some(one) => {
                one.pieces += 1;
                one.bytes += bytes;
            }
            None => {
                self.held.add(OfChannel::BYTES);
                let pieces = 1;
                self.channels.push(OfChannel { hub, pieces, bytes });
            }
        }
    }

    fn pushed(&mut self, len: usize) {
        self.queued += len;
        if len > self.large.min(self.before_large) {
            self.large = len;
            self.before_large = self.unsent();
        }
    }

    /// What was gathered is a piece.
    fn end_tail(&mut self) {
        let tail = std::mem::take(&mut self.tail);
        if !tail.is_empty() {
            self.held.sub(tail.len());
            self.held.add(QueuedPiece::BYTES);
            let of = Shared::new(tail, &self.held);
            self.pieces.push_back(QueuedPiece::new(of, None));
        }
    }

    /// Puts what the kernel did not take before everything that was queued since.
    pub(super) fn push_front(&mut self, bytes: &[u8]) {
        self.queued += bytes.len();
        self.held.add(QueuedPiece::BYTES);
        let of = Shared::new(bytes.to_vec(), &self.held);
        self.pieces.push_front(QueuedPiece::new(of, None));
    }

    /// An answer was added last.
    pub(super) fn answered(&mut self, bytes: usize) {
        self.before = self.unsent();
        self.answers += bytes;
    }

    /// The last of so many unsent bytes are a ping.
    pub(super) const fn pinged(&mut self, unsent: usize) {
        self.before_ping = unsent;
        self.has_taken = false;
    }

    /// The peer is to be told of publications that it did not get.
    pub(super) fn lose(&mut self, channel: &ChannelName, loss: Loss) {
        match self.lost.iter_mut().find(|(other, _)| other == channel) {
            Some((_, lost)) => lost.add(loss),
            None => self.lost.push((channel.clone(), loss)),
        }
    }
}

/// What goes out.
impl Backlog {
    /// Takes what is sent next: not so much that others wait for it.
    pub(super) fn take_batch(&mut self) -> Vec<u8> {
        debug_assert_eq!(self.in_flight, 0, "one batch at a time");
        let len = self.queued.min(OWNED_BATCH_BYTES_MAX);
        self.held.add(len);
        self.in_flight = len;
        self.queued -= len;
        if self.pieces.is_empty() && self.tail.len() == len {
            self.held.sub(len);
            return std::mem::take(&mut self.tail);
        }
        let mut batch = Vec::with_capacity(len);
        while batch.len() < len {
            let Some(first) = self.pieces.front_mut() else {
                self.end_tail();
                continue;
            };
            let left = len - batch.len();
            let bytes = first.of.bytes().len() - first.from as usize;
            // Where only its head is on its way, the rest has to follow.
            if let Some(hub) = first.hub.take() {
                uncount(&mut self.channels, &self.held, hub, bytes);
            }
            let bytes = first.bytes();
            if bytes.len() <= left {
                batch.extend_from_slice(bytes);
                self.pieces.pop_front();
                self.held.sub(QueuedPiece::BYTES);
            } else {
                batch.extend_from_slice(&bytes[..left]);
                first.from += left as u32;
            }
        }
        self.give_up_places();
        batch
    }

    /// A queue that was longer has no more than twice as many places as pieces, about.
    fn give_up_places(&mut self) {
        const FEW: usize = 64;
        let wanted = self.pieces.len() * 2 + FEW;
        if self.pieces.capacity() > wanted {
            self.pieces.shrink_to(self.pieces.len() * 3 / 2);
        }
    }

    /// The batch in flight came back: so much of it was sent, and the rest comes first again.
    pub(super) fn batch_back(&mut self, batch: &[u8], taken: usize) {
        debug_assert_eq!(batch.len(), self.in_flight, "it is the one that was out");
        self.gone(taken);
        self.forget_batch();
        if taken < batch.len() {
            self.push_front(&batch[taken..]);
        }
    }

    /// The batch in flight is lost.
    pub(super) fn forget_batch(&mut self) {
        self.held.sub(std::mem::take(&mut self.in_flight));
    }

    /// So much was sent.
    const fn gone(&mut self, bytes: usize) {
        self.before = self.before.saturating_sub(bytes);
        if self.before == 0 {
            self.answers = 0;
        }
        self.before_large = self.before_large.saturating_sub(bytes);
        self.before_ping = self.before_ping.saturating_sub(bytes);
        self.has_taken |= bytes > 0;
    }

    /// More has to be taken until the next look.
    pub(super) const fn looked_at(&mut self) {
        self.has_taken = false;
    }
}

/// What there is.
impl Backlog {
    /// The kernel has been given everything.
    pub(super) fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Bytes that are not known to be with the kernel.
    pub(super) const fn unsent(&self) -> usize {
        self.queued + self.in_flight
    }

    /// Of these, what is on its way to it.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Unsent bytes that count: all but the largest message, which a peer that keeps up gets whatever its size is.
    pub(super) fn waiting(&self) -> usize {
        self.unsent() - self.large.min(self.before_large).min(self.unsent())
    }

    /// Answers that make commands wait until they are sent.
    pub(super) const fn owes_answers(&self) -> bool {
        self.answers > ANSWERS_BYTES_MAX
    }

    /// A ping is among what is to be sent.
    pub(super) const fn has_ping(&self) -> bool {
        self.before_ping > 0
    }

    /// The peer takes what is before the ping.
    pub(super) const fn comes_to_ping(&self) -> bool {
        self.has_ping() && self.has_taken
    }

    /// Bytes of memory that no other connection has a part in.
    fn own_memory(&self) -> usize {
        let places = self.pieces.len() * QueuedPiece::BYTES;
        self.tail.len() + self.in_flight + places + self.channels.len() * OfChannel::BYTES
    }

    /// For the checkers: memory of its own, and what it shares, by where that is.
    pub(super) fn counted(&self) -> (usize, impl Iterator<Item = (*const Shared, usize)> + '_) {
        let shared = (self.pieces.iter()).map(|one| (Arc::as_ptr(&one.of), one.of.memory()));
        (self.own_memory(), shared)
    }
}

/// What of channels waits.
impl Backlog {
    /// More than `most` bytes of a channel wait, in more than one publication: one that stands alone is sent whatever its size is.
    pub(super) fn has_too_much(&self, hub: u32, most: usize) -> bool {
        let mut channels = self.channels.iter();
        channels.any(|one| one.hub.get() == hub && one.bytes > most && one.pieces > 1)
    }

    /// Hub slots of the channels whose publications wait.
    pub(super) fn hubs(&self) -> impl Iterator<Item = u32> + '_ {
        self.channels.iter().map(|one| one.hub.get())
    }

    /// Publications of channels that say what becomes of what waits, in order.
    pub(super) fn publications(&self) -> impl Iterator<Item = (u32, &Origin)> + '_ {
        (self.pieces.iter()).filter_map(|one| one.hub.map(|hub| (hub.get(), one.of.origin())))
    }

    /// Publications with a key came since a later one was last looked for.
    pub(super) const fn has_unconflated(&self) -> bool {
        self.unconflated > 0
    }

    /// So many that a look for later ones is paid for by those that came.
    pub(super) const fn has_much_unconflated(&self) -> bool {
        const FEW: u32 = 16;
        self.unconflated > self.conflated + FEW
    }
}

/// What is left out.
impl Backlog {
    /// Subscriptions to these hub channels are over: what was queued of them stays, as whoever loses it could not be told.
    pub(super) fn keep(&mut self, hubs: &mut [u32]) {
        hubs.sort_unstable();
        let is_over = |hub: Place| hubs.binary_search(&hub.get()).is_ok();
        for piece in &mut self.pieces {
            piece.hub = piece.hub.filter(|&hub| !is_over(hub));
        }
        let before = self.channels.len();
        self.channels.retain(|one| !is_over(one.hub));
        (self.held).sub((before - self.channels.len()) * OfChannel::BYTES);
    }

    /// Drops everything of one hub channel: what follows a gap is no use to a subscriber that will recover.
    pub(super) fn purge(&mut self, hub: u32) -> Loss {
        let lost = self.drop_pieces(Loss::of, |of, _, _| of == hub);
        lost.first().map_or_else(Loss::default, |&(_, loss)| loss)
    }

    /// Of the publications with the same key only the latest stays, where their channel `may` be conflated.
    pub(super) fn conflate(&mut self, may: impl Fn(u32) -> bool) -> Losses {
        let mut latest: HashTable<usize> = HashTable::new();
        let mut is_replaced = vec![false; self.pieces.len()];
        let mut looked_at: Option<(Place, bool)> = None;
        let key_at = |at: usize| {
            let piece: &QueuedPiece = &self.pieces[at];
            let key = piece.of.origin().key.as_ref();
            piece.hub.zip(key)
        };
        for at in (0..self.pieces.len()).rev() {
            let Some((hub, key)) = key_at(at) else {
                continue;
            };
            let may_be = match looked_at {
                Some((of, may_be)) if of == hub => may_be,
                _ => may(hub.get()),
            };
            looked_at = Some((hub, may_be));
            if !may_be {
                continue;
            }
            let is_same = |&other: &usize| {
                key_at(other).is_some_and(|(of, other)| of == hub && other.bytes == key.bytes)
            };
            let hash = |&other: &usize| key_at(other).map_or(0, |(hub, key)| filed(hub, key.hash));
            match latest.entry(filed(hub, key.hash), is_same, hash) {
                Entry::Occupied(_) => is_replaced[at] = true,
                Entry::Vacant(free) => {
                    free.insert(at);
                }
            }
        }
        self.unconflated = 0;
        self.conflated = latest.len() as u32;
        drop(latest);
        self.drop_pieces(Loss::conflated, |_, at, _| is_replaced[at])
    }

    /// Drops the oldest pieces that `may` be until `keep_bytes` are left; one that stands alone stays if what waits is no more than
    /// `limit`. Returns the hub slots that lost something, and how much each.
    pub(super) fn drop_oldest(
        &mut self,
        keep_bytes: usize,
        limit: usize,
        may: impl Fn(u32) -> bool,
    ) -> Losses {
        // Only one that stands alone: what is left of a channel behind what was dropped would follow a gap.
        let is_alone = self.tail.is_empty() && self.pieces.len() == 1;
        let newest = (is_alone && self.pieces[0].hub.is_some()).then_some(0);
        let mut lost = self.drop_before(keep_bytes, newest, &may);
        if self.waiting() > limit {
            for (hub, loss) in self.drop_before(keep_bytes, None, &may) {
                crate::shard::loss::add(&mut lost, hub, loss);
            }
        }
        lost
    }

    /// Drops the oldest pieces that `may` be, but not the one at `spared`, until `keep_bytes` are left.
    fn drop_before(
        &mut self,
        keep_bytes: usize,
        spared: Option<usize>,
        may: impl Fn(u32) -> bool,
    ) -> Losses {
        let mut excess = self.queued.saturating_sub(keep_bytes);
        self.drop_pieces(Loss::of, |hub, at, piece| {
            let goes = excess > 0 && spared != Some(at) && may(hub);
            if goes {
                excess = excess.saturating_sub(piece.bytes().len());
            }
            goes
        })
    }

    /// Drops the oldest pieces of one channel until `keep_bytes` of it are left; its newest stays.
    pub(super) fn drop_oldest_of(&mut self, hub: u32, keep_bytes: usize) -> Losses {
        let found = self.channels.iter().find(|one| one.hub.get() == hub);
        let Some(&OfChannel { pieces, bytes, .. }) = found else {
            return Losses::new();
        };
        let (mut pieces, mut excess) = (pieces, bytes.saturating_sub(keep_bytes));
        self.drop_pieces(Loss::of, |of, _, piece| {
            let goes = of == hub && excess > 0 && pieces > 1;
            if goes {
                pieces -= 1;
                excess = excess.saturating_sub(piece.bytes().len());
            }
            goes
        })
    }

    /// Drops the pieces that `goes` names by their hub slot and what they are.
    pub(super) fn drop_if(&mut self, goes: impl Fn(u32, &Origin) -> bool) -> Losses {
        self.drop_pieces(Loss::of, |hub, _, piece| goes(hub, piece.of.origin()))
    }

    /// Drops all behind what is on its way: the connection ends. Returns what went of channels.
    pub(super) fn cut(&mut self) -> Losses {
        // The first piece may have begun; where it is what the kernel did not take of a batch, the one behind it may have as well.
        let begun = self.pieces.iter().rposition(|piece| piece.from > 0);
        let stay = begun.map_or(1, |at| at + 1);
        let lost = self.drop_pieces(Loss::of, |_, at, _| at >= stay);
        for piece in self.pieces.drain(stay.min(self.pieces.len())..) {
            self.queued -= piece.bytes().len();
            self.held.sub(QueuedPiece::BYTES);
        }
        let tail = std::mem::take(&mut self.tail);
        self.queued -= tail.len();
        self.held.sub(tail.len());
        self.give_up_places();
        (self.answers, self.before, self.before_ping) = (0, 0, 0);
        (self.large, self.before_large) = (0, 0);
        self.age_by = 0;
        lost
    }

    /// Drops the publications that `drops` names by their hub slot and their place in the queue.
    fn drop_pieces(
        &mut self,
        as_loss: impl Fn(&Origin) -> Loss,
        mut drops: impl FnMut(u32, usize, &QueuedPiece) -> bool,
    ) -> Losses {
        let mut lost = Losses::new();
        let (queued, channels, held) = (&mut self.queued, &mut self.channels, &self.held);
        let mut places = 0..;
        self.pieces.retain(|piece| {
            let at = places.next().unwrap_or_default();
            let Some(hub) = piece.hub.filter(|hub| drops(hub.get(), at, piece)) else {
                return true;
            };
            let len = piece.bytes().len();
            *queued -= len;
            held.sub(QueuedPiece::BYTES);
            uncount(channels, held, hub, len);
            crate::shard::loss::add(&mut lost, hub.get(), as_loss(piece.of.origin()));
            false
        });
        self.give_up_places();
        lost
    }
}

/// Where a key of a channel is filed.
fn filed(hub: Place, hash: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    hash ^ u64::from(hub.get()).wrapping_mul(ODD)
}

/// One piece of a channel less.
fn uncount(channels: &mut Vec<OfChannel>, held: &HeldBytes, hub: Place, bytes: usize) {
    let Some(at) = channels.iter().position(|one| one.hub == hub) else {
        unreachable!("each piece of a channel is counted");
    };
    channels[at].pieces -= 1;
    channels[at].bytes -= bytes;
    if channels[at].pieces == 0 {
        channels.swap_remove(at);
        held.sub(OfChannel::BYTES);
    }
}

#[cfg(test)]
mod tests;

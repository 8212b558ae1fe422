//! What a connection has to send that the kernel did not take at once. Who does not keep up costs a place in a queue for each piece,
//! not its bytes: those that many connections get are in memory once.

mod image;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits::{ANSWERS_BYTES_MAX, OWNED_BATCH_BYTES_MAX};
use crate::mem::{HeldBytes, Place, Shared};
use crate::model::ChannelName;
pub(super) use image::SharedPieces;

/// A smaller piece that must be kept is copied to each connection: that costs less than to share it.
const SHARED_FROM_BYTES: usize = 512;

/// What is left to be sent of some bytes.
#[derive(Debug)]
struct QueuedPiece {
    of: Arc<Shared>,
    /// Bytes of it that are gone.
    from: u32,
    /// The hub slot of a publication that may be dropped; nothing else may.
    hub: Option<Place>,
}

impl QueuedPiece {
    /// Bytes of memory of its place in a queue.
    const BYTES: usize = size_of::<Self>();

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
    /// What its peer has to be told that it lost: channel and publications.
    pub(super) lost: Vec<(ChannelName, u64)>,
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
            held: held.clone(),
        }
    }

    /// Queues bytes that only this connection gets.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.held.add(bytes.len());
        self.pushed(bytes.len());
    }

    /// Queues bytes that others get as well; they may be dropped where they have a `hub`.
    pub(super) fn share(&mut self, of: &Arc<Shared>, hub: Option<Place>) {
        let len = of.bytes().len();
        if hub.is_none() && len < SHARED_FROM_BYTES {
            return self.push(of.bytes());
        }
        self.end_tail();
        self.held.add(QueuedPiece::BYTES);
        self.pieces.push_back(QueuedPiece::new(Arc::clone(of), hub));
        self.pushed(len);
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
    pub(super) fn lose(&mut self, channel: &ChannelName, publications: u64) {
        match self.lost.iter_mut().find(|(other, _)| other == channel) {
            Some((_, count)) => *count += publications,
            None => self.lost.push((channel.clone(), publications)),
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
            let bytes = first.bytes();
            if bytes.len() <= left {
                batch.extend_from_slice(bytes);
                self.pieces.pop_front();
                self.held.sub(QueuedPiece::BYTES);
            } else {
                batch.extend_from_slice(&bytes[..left]);
                first.from += left as u32;
                // Its head is on its way: the rest has to follow.
                first.hub = None;
            }
        }
        batch
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
        self.tail.len() + self.in_flight + self.pieces.len() * QueuedPiece::BYTES
    }

    /// For the checkers: memory of its own, and what it shares, by where that is.
    pub(super) fn counted(&self) -> (usize, impl Iterator<Item = (*const Shared, usize)> + '_) {
        let shared = (self.pieces.iter()).map(|one| (Arc::as_ptr(&one.of), one.of.memory()));
        (self.own_memory(), shared)
    }
}

/// What is dropped.
impl Backlog {
    /// Subscriptions to these hub channels are over: what was queued of them stays, as whoever loses it could not be told.
    pub(super) fn keep(&mut self, hubs: &mut [u32]) {
        hubs.sort_unstable();
        for piece in &mut self.pieces {
            let is_over = |hub: &Place| hubs.binary_search(&hub.get()).is_ok();
            piece.hub = piece.hub.filter(|hub| !is_over(hub));
        }
    }

    /// Drops everything of one hub channel: what follows a gap is no use to a subscriber that will recover.
    pub(super) fn purge(&mut self, hub: u32) -> u64 {
        self.drop_pieces(|_, of| of == Some(Place::new(hub)))
    }

    /// Drops the oldest droppable pieces until `keep_bytes` are left; one that stands alone stays if what waits is no more than
    /// `limit`. Returns the hub slots that lost something, and how much each.
    pub(super) fn drop_oldest(&mut self, keep_bytes: usize, limit: usize) -> Vec<(u32, u64)> {
        // Only one that stands alone: what is left of a channel behind what was dropped would follow a gap.
        let is_alone = self.tail.is_empty() && self.pieces.len() == 1;
        let newest = (is_alone && self.pieces[0].hub.is_some()).then_some(0);
        let mut lost = self.drop_before(keep_bytes, newest);
        if self.waiting() > limit {
            for (hub, count) in self.drop_before(keep_bytes, None) {
                count_lost(&mut lost, hub, count);
            }
        }
        lost
    }

    /// Drops the oldest droppable pieces, but not the one at `spared`, until `keep_bytes` are left.
    fn drop_before(&mut self, keep_bytes: usize, spared: Option<usize>) -> Vec<(u32, u64)> {
        let mut excess = self.queued.saturating_sub(keep_bytes);
        let mut lost: Vec<(u32, u64)> = Vec::new();
        let mut places = 0..;
        self.drop_pieces(|len, hub| {
            let is_spared = places.next() == spared;
            let Some(hub) = hub.filter(|_| excess > 0 && !is_spared) else {
                return false;
            };
            excess = excess.saturating_sub(len);
            count_lost(&mut lost, hub.get(), 1);
            true
        });
        lost
    }

    fn drop_pieces(&mut self, mut drops: impl FnMut(usize, Option<Place>) -> bool) -> u64 {
        let mut count = 0;
        let queued = &mut self.queued;
        let held = &self.held;
        self.pieces.retain(|piece| {
            let len = piece.bytes().len();
            let goes = drops(len, piece.hub);
            if goes {
                *queued -= len;
                held.sub(QueuedPiece::BYTES);
                count += 1;
            }
            !goes
        });
        count
    }
}

fn count_lost(lost: &mut Vec<(u32, u64)>, hub: u32, publications: u64) {
    match lost.iter_mut().find(|(other, _)| *other == hub) {
        Some((_, count)) => *count += publications,
        None => lost.push((hub, publications)),
    }
}

#[cfg(test)]
mod tests;

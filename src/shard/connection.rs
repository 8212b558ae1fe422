//! The record of one connection: a socket with framing, and the session behind it.

use std::collections::VecDeque;

use super::held::Held;
use crate::limits::{ANSWERS_BYTES_MAX, OWNED_BATCH_BYTES_MAX};
use crate::mem::{RingRange, Tick};
use crate::model::ChannelName;
use crate::session::{Session, Stamp};
use crate::shard::{Close, Door};
use crate::wire::websocket::Decoder;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// A request head, or its body, is awaited.
    #[default]
    Head,
    /// A request or a connect command waits for owners; what arrives is held.
    Waiting,
    /// WebSocket.
    Open,
    /// Answers to earlier requests are on their way: the next request is taken once they are sent; what arrives is held.
    Owing,
    /// Everything queued is sent, then the socket is closed.
    Finishing,
    /// As `Finishing`, but the peer may be sending still: `Lingering` follows.
    Refused,
    /// Our side is closed; what the peer sends is read past for a while.
    Lingering,
    /// `Output::Close` is out.
    Gone,
}

/// What is to be done since a connection has moved: see `shard/after`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due(u8);

impl Due {
    pub(super) const NOTHING: Self = Self(0);
    pub(super) const PHASE: Self = Self(1);
    pub(super) const TIME: Self = Self(1 << 1);
    pub(super) const ROOM: Self = Self(1 << 2);
    pub(super) const OWED: Self = Self(1 << 3);
    pub(super) const TURN: Self = Self(1 << 4);
    pub(super) const INPUT: Self = Self(1 << 5);

    /// Both.
    #[must_use]
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Any of these.
    pub(super) const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    pub(super) const fn add(&mut self, more: Self) {
        self.0 |= more.0;
    }

    /// What a step of a session has made due, by what it was before and is now.
    pub(super) fn of(before: Stamp, now: Stamp) -> Self {
        let mut due = Self::NOTHING;
        if before != now {
            if before.phase != now.phase {
                due.add(Self::PHASE);
            }
            if now.may_be_sooner(before) {
                due.add(Self::TIME);
            }
        }
        due
    }
}

/// State of one connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Bytes in the fan-out ring that go out with the next send.
    pub(super) pending: RingRange,
    /// Bytes that the connection owns because the kernel did not take them at once.
    pub(super) backlog: Option<Box<Backlog>>,
    /// Unfinished WebSocket input.
    pub(super) decoder: Decoder,
    /// Unfinished HTTP input, or input behind a command that waits.
    pub(super) held: Option<Box<Held>>,
    /// Deadline of the state, beside the session's own; 0 for none.
    pub(super) by: Tick,
    /// Tick under which the slot is filed in the wheel; 0 for none.
    pub(super) filed: Tick,
    pub(super) state: State,
    /// What is to be done about it.
    pub(super) due: Due,
    /// Where it came in.
    pub(super) door: Door,
    /// The WebSocket carries a session (else it is an echo).
    pub(super) is_session: bool,
    /// The session is connected and filed among the users.
    pub(super) is_known: bool,
    /// A command waits for the key of its token; what arrives behind it is held, and time does not count.
    pub(super) is_parked: bool,
    /// An entry in the outbox's list of dirty connections.
    pub(super) is_dirty: bool,
    /// `Output::Pause` is out: nothing more is read.
    pub(super) is_paused: bool,
    /// An owned batch is in flight.
    pub(super) is_sending: bool,
    /// The HTTP connection outlives its request.
    pub(super) keep_alive: bool,
    /// The answer to the request has no body.
    pub(super) is_head: bool,
    /// The peer has closed its side; what it has asked for is still answered.
    pub(super) has_ended: bool,
    /// Bytes that were read past since the connection was refused.
    pub(super) read_past: u32,
    /// How it will be closed, once everything is sent.
    pub(super) close: Option<Close>,
    pub(super) session: Session,
}

/// A connection's record with its session and first subscription. The aim is a few hundred bytes for everything in user space.
const _: () = assert!(size_of::<Connection>() <= 200, "bytes per idle connection");

/// Unsent bytes of a slow connection.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// What the kernel has not been given.
    pub(super) bytes: VecDeque<u8>,
    /// Bytes of the batch in flight.
    pub(super) in_flight: usize,
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
    /// Pieces of `bytes`, in order: length and the hub slot of a publication that may be dropped, else `KEEP`.
    pub(super) pieces: Vec<(u32, u32)>,
}

/// See `Backlog::pieces`.
pub(super) const KEEP: u32 = u32::MAX;

impl Connection {
    /// Nothing waits to be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.pending.len == 0
            && !self.is_sending
            && self
                .backlog
                .as_ref()
                .is_none_or(|backlog| backlog.bytes.is_empty())
    }

    /// Input is kept and not read yet.
    pub(super) fn is_held_up(&self) -> bool {
        matches!(self.state, State::Waiting | State::Owing)
            || self.is_parked
            || self.session.has_enough()
    }

    /// What its peer has asked for is not all under way: it is lost if the connection ends now.
    pub(super) fn is_unfinished(&self) -> bool {
        self.session.is_unfinished() || self.held.is_some()
    }

    /// Pushes must wait for the connect reply.
    pub(super) fn is_corked(&self) -> bool {
        self.session.connecting.is_some()
    }
}

impl Connection {
    /// Its session may carry out a command.
    pub(super) fn can_answer(&self) -> bool {
        self.state == State::Open && !self.is_parked && !self.owes_answers()
    }

    /// Answers that the peer asked for and has not taken: it gets no more before they are out.
    pub(super) fn owes_answers(&self) -> bool {
        self.backlog
            .as_ref()
            .is_some_and(|backlog| backlog.owes_answers())
    }

    /// Nothing more is read of its input: what came is not carried out yet.
    pub(super) fn must_hold(&self) -> bool {
        self.is_held_up() || self.held.is_some()
    }

    /// Bytes that wait because the peer does not take them.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.unsent())
    }

    /// Bytes that the kernel has not taken.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.pending.len as usize + self.backlog_bytes()
    }
}

impl Backlog {
    pub(super) fn push(&mut self, bytes: &[u8], hub: u32) {
        self.bytes.extend(bytes);
        if bytes.len() > self.large.min(self.before_large) {
            self.large = bytes.len();
            self.before_large = self.unsent();
        }
        match self.pieces.last_mut() {
            Some((len, last)) if *last == KEEP && hub == KEEP => *len += bytes.len() as u32,
            _ => self.pieces.push((bytes.len() as u32, hub)),
        }
    }

    /// Puts what the kernel did not take before everything that was queued since.
    pub(super) fn push_front(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.bytes.rotate_right(bytes.len());
        self.pieces.insert(0, (bytes.len() as u32, KEEP));
    }

    /// Takes what is sent next: not so much that others wait for it.
    pub(super) fn take_batch(&mut self) -> Vec<u8> {
        let len = self.bytes.len().min(OWNED_BATCH_BYTES_MAX);
        let batch = if len == self.bytes.len() {
            Vec::from(std::mem::take(&mut self.bytes))
        } else {
            let (front, back) = self.bytes.as_slices();
            let front = &front[..len.min(front.len())];
            let mut batch = Vec::with_capacity(len);
            batch.extend_from_slice(front);
            batch.extend_from_slice(&back[..len - front.len()]);
            self.bytes.drain(..len);
            batch
        };
        self.in_flight = len;
        let mut left = len as u32;
        let mut whole = 0;
        for (bytes, hub) in &mut self.pieces {
            if *bytes > left {
                if left > 0 {
                    // Its head is on its way: the rest has to follow.
                    *bytes -= left;
                    *hub = KEEP;
                }
                break;
            }
            left -= *bytes;
            whole += 1;
        }
        self.pieces.drain(..whole);
        batch
    }

    /// An answer was added last.
    pub(super) fn answered(&mut self, bytes: usize) {
        self.before = self.unsent();
        self.answers += bytes;
    }

    /// So much was sent.
    pub(super) const fn gone(&mut self, bytes: usize) {
        self.before = self.before.saturating_sub(bytes);
        if self.before == 0 {
            self.answers = 0;
        }
        self.before_large = self.before_large.saturating_sub(bytes);
        self.before_ping = self.before_ping.saturating_sub(bytes);
        self.has_taken |= bytes > 0;
    }

    /// The last of so many unsent bytes are a ping.
    pub(super) const fn pinged(&mut self, unsent: usize) {
        self.before_ping = unsent;
        self.has_taken = false;
    }

    /// A ping is among what is to be sent.
    pub(super) const fn has_ping(&self) -> bool {
        self.before_ping > 0
    }

    /// The peer takes what is before the ping.
    pub(super) const fn comes_to_ping(&self) -> bool {
        self.has_ping() && self.has_taken
    }

    /// More has to be taken until the next look.
    pub(super) const fn looked_at(&mut self) {
        self.has_taken = false;
    }

    /// Unsent bytes that count: all but the largest message, which a peer that keeps up gets whatever its size is.
    pub(super) fn waiting(&self) -> usize {
        self.unsent() - self.large.min(self.before_large).min(self.unsent())
    }

    /// Answers that make commands wait until they are sent.
    pub(super) const fn owes_answers(&self) -> bool {
        self.answers > ANSWERS_BYTES_MAX
    }

    pub(super) fn unsent(&self) -> usize {
        self.bytes.len() + self.in_flight
    }

    /// Drops everything of one hub channel: what follows a gap is no use to a subscriber that will recover.
    pub(super) fn purge(&mut self, hub: u32) -> u64 {
        self.drop_pieces(|_, of| of == hub)
    }

    /// Drops the oldest droppable pieces until `keep_bytes` are left; one that stands alone stays if what waits is no more than
    /// `limit`. Returns the hub slots that lost something, and how much each.
    pub(super) fn drop_oldest(&mut self, keep_bytes: usize, limit: usize) -> Vec<(u32, u64)> {
        // Only one that stands alone: what is left of a channel behind what was dropped would follow a gap.
        let newest = match self.pieces[..] {
            [(_, hub)] if hub != KEEP => Some(0),
            _ => None,
        };
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
        let mut excess = self.bytes.len().saturating_sub(keep_bytes);
        let mut lost: Vec<(u32, u64)> = Vec::new();
        let mut places = 0..;
        self.drop_pieces(|len, hub| {
            let is_spared = places.next() == spared;
            if hub == KEEP || excess == 0 || is_spared {
                return false;
            }
            excess = excess.saturating_sub(len as usize);
            count_lost(&mut lost, hub, 1);
            true
        });
        lost
    }

    /// The peer is to be told of publications that it did not get.
    pub(super) fn lose(&mut self, channel: &ChannelName, publications: u64) {
        match self.lost.iter_mut().find(|(other, _)| other == channel) {
            Some((_, count)) => *count += publications,
            None => self.lost.push((channel.clone(), publications)),
        }
    }

    fn drop_pieces(&mut self, mut drops: impl FnMut(u32, u32) -> bool) -> u64 {
        let mut count = 0;
        let mut kept = Vec::with_capacity(self.bytes.len());
        let mut pieces = Vec::with_capacity(self.pieces.len());
        let mut at = 0;
        let bytes = self.bytes.make_contiguous();
        for &(len, hub) in &self.pieces {
            let piece = &bytes[at..at + len as usize];
            at += len as usize;
            if drops(len, hub) {
                count += 1;
            } else {
                kept.extend_from_slice(piece);
                pieces.push((len, hub));
            }
        }
        self.bytes = kept.into();
        self.pieces = pieces;
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
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_part_and_what_it_begins_can_no_longer_be_dropped() {
        let mut backlog = Backlog::default();
        backlog.push(b"reply", KEEP);
        backlog.push(&[1; OWNED_BATCH_BYTES_MAX - 10], 1);
        backlog.push(&[2; 20], 2);
        backlog.push(&[3; 30], 1);
        let batch = backlog.take_batch();
        assert_eq!(batch.len(), OWNED_BATCH_BYTES_MAX);
        assert_eq!(batch[..6], *b"reply\x01");
        assert_eq!(batch[batch.len() - 5..], [2; 5]);
        assert_eq!(backlog.pieces, [(15, KEEP), (30, 1)]);
        assert_eq!(backlog.unsent(), OWNED_BATCH_BYTES_MAX + 45);
        assert_eq!(backlog.drop_oldest(0, 0), [(1, 1)]);
        assert_eq!(backlog.bytes, [2; 15]);
        // What the kernel did not take comes first again.
        backlog.in_flight = 0;
        backlog.push_front(&batch[batch.len() - 3..]);
        assert_eq!(backlog.take_batch(), [2; 18]);
        assert!(backlog.bytes.is_empty() && backlog.pieces.is_empty());
    }

    #[test]
    fn one_message_does_not_count_whatever_its_size_is() {
        let mut backlog = Backlog::default();
        backlog.push(&[0; 10], KEEP);
        backlog.push(&[0; 5000], 1);
        backlog.push(&[0; 20], 1);
        assert_eq!((backlog.unsent(), backlog.waiting()), (5030, 30));
        // While it is on its way a second one counts.
        backlog.push(&[0; 4000], 1);
        assert_eq!(backlog.waiting(), 4030);
        backlog.in_flight = std::mem::take(&mut backlog.bytes).len();
        for taken in [2000, 3010] {
            backlog.in_flight -= taken;
            backlog.gone(taken);
        }
        assert_eq!((backlog.unsent(), backlog.waiting()), (4020, 4020));
        backlog.push(&[0; 9000], 1);
        assert_eq!(backlog.waiting(), 4020);
    }

    #[test]
    fn answers_that_are_not_taken_are_owed_until_the_last_byte() {
        let mut backlog = Backlog::default();
        backlog.push(&[0; 100], KEEP);
        backlog.push(&[0; ANSWERS_BYTES_MAX], KEEP);
        backlog.answered(ANSWERS_BYTES_MAX);
        assert!(!backlog.owes_answers(), "as much as may wait");
        backlog.push(&[0; 1], KEEP);
        backlog.answered(1);
        backlog.push(&[0; 1000], 1);
        assert!(backlog.owes_answers());
        backlog.gone(100 + ANSWERS_BYTES_MAX);
        assert!(backlog.owes_answers());
        backlog.gone(1);
        assert!(!backlog.owes_answers(), "what follows is no answer");
    }

    #[test]
    fn newest_stays_where_only_its_size_exceeds() {
        let mut backlog = Backlog::default();
        backlog.push(&[0; 600], 2);
        assert_eq!(backlog.waiting(), 0);
        assert_eq!(backlog.drop_oldest(500, 1000), []);
        assert_eq!(backlog.pieces, [(600, 2)]);
        backlog.push(&[0; 2000], KEEP);
        assert_eq!(backlog.drop_oldest(100, 500), [(2, 1)], "others exceed too");
    }

    #[test]
    fn only_the_oldest_droppable_pieces_go() {
        let mut backlog = Backlog::default();
        for (bytes, hub) in [
            (&b"reply"[..], KEEP),
            (b"a1", 1),
            (b"b1", 2),
            (b"more", KEEP),
            (b"a2", 1),
        ] {
            backlog.push(bytes, hub);
        }
        let lost = backlog.drop_oldest(12, 0);
        assert_eq!(lost, [(1, 1), (2, 1)]);
        assert_eq!(backlog.bytes, b"replymorea2");
        assert_eq!(backlog.pieces, [(5, KEEP), (4, KEEP), (2, 1)]);
    }
}

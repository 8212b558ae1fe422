//! What the reactor remembers of each socket: sixteen bytes, and the order in which a socket is closed.

use crate::model::ConnId;
use crate::shard::{Close, RingRange};

/// Slots of one piece of the table; a piece is taken when the first of its slots is used.
const PIECE: usize = 1024;

const OPEN: u32 = 1 << 0;
const ARMED: u32 = 1 << 1;
const SENDING: u32 = 1 << 2;
const ENDED: u32 = 1 << 3;
const FINISHING: u32 = 1 << 4;
const ABORTING: u32 = 1 << 5;
const ABORTED: u32 = 1 << 6;
const CLOSE_QUEUED: u32 = 1 << 7;
const CLOSED: u32 = 1 << 8;
const PAUSED: u32 = 1 << 9;
const WATCHING: u32 = 1 << 10;
const HEARD: u32 = 1 << 11;
const LISTED: u32 = 1 << 12;
const SHUTTING: u32 = 1 << 13;
const RESTING: u32 = 1 << 14;
const DENSE: u32 = 1 << 15;
const BY_TURNS: u32 = 1 << 16;
const BULKY: u32 = 1 << 17;
/// One receive that was little work, in a row of them, of a connection whose bytes were much; the count has what is left of the flags.
const LIGHT: u32 = 1 << 24;
/// Such a row after which its bytes are taken to be little work. A message is much work when its last piece is there: the pieces before
/// it say nothing, and there are 32 of them in one of 64 KiB.
const LIGHT_ROW: u32 = 64 * LIGHT;

/// One socket's operations.
#[derive(Clone, Copy, Default)]
pub(super) struct Slot {
    /// The ring range under way in this flush; meaningless otherwise.
    pub(super) range: RingRange,
    generation: u32,
    flags: u32,
}

const _: () = assert!(size_of::<Slot>() <= 16, "idle memory is counted in these");

/// What is armed on a socket. Both go by one `user_data`, so that a close ends whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arm {
    /// Bytes are wanted.
    Receive,
    /// Bytes are wanted, once.
    ReceiveOnce,
    /// A few bytes are wanted, once: what is in them is much work.
    ReceiveFew,
    /// No bytes are wanted, or none can come: only the end of the connection is of interest.
    Watch,
}

/// What has to be submitted to close a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Reset it; its operations then end by themselves.
    Abort,
    /// End the receive or the watch, then free the slot.
    CancelAndClose,
    /// Free the slot.
    Close,
}

impl Slot {
    pub(super) fn opened(generation: u32) -> Self {
        Self {
            generation,
            flags: OPEN,
            ..Self::default()
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u32, value: bool) {
        if value {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.has(OPEN)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.has(FINISHING | ABORTING)
    }

    /// What should be armed and is not.
    pub(super) fn wanted(&self) -> Option<Arm> {
        if !self.has(OPEN) || self.has(ARMED | FINISHING | ABORTING) {
            None
        } else if self.has(ENDED | PAUSED) {
            Some(Arm::Watch)
        } else if self.has(RESTING) {
            None
        } else if self.has(DENSE) {
            Some(Arm::ReceiveFew)
        } else if self.has(BY_TURNS) {
            Some(Arm::ReceiveOnce)
        } else {
            Some(Arm::Receive)
        }
    }

    /// Nothing is read until its neighbours have been served. True if what is armed has to be cancelled for it.
    pub(super) fn rest(&mut self) -> bool {
        debug_assert!(!self.has(RESTING), "it is listed once");
        self.set(RESTING | BY_TURNS, true);
        self.has(ARMED) && !self.has(WATCHING | PAUSED | FINISHING | ABORTING)
    }

    pub(super) fn is_resting(&self) -> bool {
        self.has(RESTING)
    }

    /// It has rested.
    pub(super) fn rested(&mut self) {
        self.set(RESTING, false);
    }

    /// It is read once each time that it has rested.
    pub(super) fn goes_by_turns(&self) -> bool {
        self.has(BY_TURNS)
    }

    /// Much of what it has brought waits to be dispatched: what comes behind that waits with it.
    pub(super) fn is_bulky(&self) -> bool {
        self.has(BULKY)
    }

    pub(super) fn set_bulky(&mut self, bulky: bool) {
        self.set(BULKY, bulky);
    }

    /// It is read as everybody is.
    pub(super) fn go_freely(&mut self) {
        self.set(BY_TURNS, false);
    }

    /// What it sends is read in small pieces, or no longer.
    pub(super) fn set_dense(&mut self, dense: bool) {
        self.set(DENSE, dense);
        self.flags &= LIGHT - 1;
    }

    /// A receive was little work: many in a row end the small pieces.
    pub(super) fn was_light(&mut self) {
        if self.has(DENSE) {
            self.flags += LIGHT;
            if self.flags >= LIGHT_ROW {
                self.set_dense(false);
            }
        }
    }

    pub(super) fn is_dense(&self) -> bool {
        self.has(DENSE)
    }

    /// That is armed now.
    pub(super) fn arm(&mut self, what: Arm) {
        self.set(ARMED, true);
        self.set(WATCHING, what == Arm::Watch);
    }

    /// What was armed is over.
    pub(super) fn disarm(&mut self) {
        self.set(ARMED | WATCHING, false);
    }

    pub(super) fn is_armed(&self) -> bool {
        self.has(ARMED)
    }

    /// What is armed is no receive.
    pub(super) fn is_watching(&self) -> bool {
        self.has(WATCHING)
    }

    /// Nothing more is to be read for now. True if what is armed has to be cancelled for it; the rest follows from its end.
    pub(super) fn pause(&mut self) -> bool {
        let first = !self.has(PAUSED);
        self.set(PAUSED, true);
        first && self.has(ARMED) && !self.has(WATCHING | FINISHING | ABORTING)
    }

    /// Reading goes on. True as with `pause`.
    pub(super) fn resume(&mut self) -> bool {
        let paused = self.has(PAUSED);
        self.set(PAUSED, false);
        paused && self.has(WATCHING) && !self.has(ENDED | FINISHING | ABORTING)
    }

    /// Bytes came. True if the socket is to be listed for a look at its health: see `Hot::probe`.
    pub(super) fn heard(&mut self) -> bool {
        let listed = self.has(LISTED);
        self.set(HEARD | LISTED, true);
        !listed
    }

    /// Something is sent: if the peer is gone, that tells.
    pub(super) fn spoken(&mut self) {
        self.set(HEARD, false);
    }

    /// Takes the socket off the list. True if nothing was sent since bytes came last, and a receive waits for more.
    pub(super) fn unlist(&mut self) -> bool {
        let heard = self.has(HEARD);
        self.set(HEARD | LISTED, false);
        heard && self.has(ARMED) && !self.has(WATCHING | ENDED | FINISHING | ABORTING)
    }

    /// The peer has nothing more to say. `false` if that was known.
    pub(super) fn end(&mut self) -> bool {
        let first = !self.has(ENDED);
        self.set(ENDED, true);
        first
    }

    pub(super) fn set_sending(&mut self, sending: bool) {
        assert!(
            self.has(SENDING) != sending,
            "a connection has at most one send in flight"
        );
        self.set(SENDING, sending);
    }

    /// Our side of the connection is being closed, by a thread of the kernel's: the slot is its until then.
    pub(super) fn set_shutting(&mut self, shutting: bool) {
        self.set(SHUTTING, shutting);
    }

    pub(super) fn is_sending(&self) -> bool {
        self.has(SENDING)
    }

    /// From now on the socket is being closed. An abort overtakes an earlier finish.
    pub(super) fn close(&mut self, how: Close) {
        self.set(
            match how {
                Close::Finish => FINISHING,
                Close::Abort => ABORTING,
            },
            true,
        );
    }

    /// What to submit now, at most once each. A finish waits for the send under way; nothing closes the slot under an
    /// armed receive, which would outlive it and meet the slot's next owner. An abort ends a receive but no watch.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        if !self.is_closing() || self.has(CLOSE_QUEUED) {
            return None;
        }
        if self.has(ABORTING) && !self.has(ABORTED) {
            self.set(ABORTED, true);
            return Some(Step::Abort);
        }
        let receives = self.has(ARMED) && !self.has(WATCHING);
        if self.has(SENDING | SHUTTING) || self.has(ABORTED) && receives {
            return None;
        }
        self.set(CLOSE_QUEUED, true);
        Some(if self.has(ARMED) {
            Step::CancelAndClose
        } else {
            Step::Close
        })
    }

    /// The kernel has freed the slot.
    pub(super) fn set_closed(&mut self) {
        self.set(CLOSED, true);
    }

    /// No operation is left and the kernel has freed the slot.
    pub(super) fn is_gone(&self) -> bool {
        self.has(CLOSED) && !self.has(ARMED | SENDING | SHUTTING)
    }
}

/// All sockets of a ring, by slot number.
#[derive(Default)]
pub(super) struct Slots {
    pieces: Vec<Option<Box<[Slot; PIECE]>>>,
    open: u32,
}

impl Slots {
    /// Connections.
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// The state of a slot, used or not.
    pub(super) fn at(&mut self, slot: u32) -> &mut Slot {
        let (piece, at) = (slot as usize / PIECE, slot as usize % PIECE);
        if piece >= self.pieces.len() {
            self.pieces.resize_with(piece + 1, || None);
        }
        &mut self.pieces[piece].get_or_insert_with(|| Box::new([Slot::default(); PIECE]))[at]
    }

    /// The state of a connection; `None` if that connection is gone.
    pub(super) fn of(&mut self, slot: u32, generation: u32) -> Option<&mut Slot> {
        let state = self.at(slot);
        (state.is_open() && state.generation == generation).then_some(state)
    }

    pub(super) fn insert(&mut self, conn: ConnId) -> &mut Slot {
        self.open += 1;
        let state = self.at(conn.slot);
        assert!(
            !state.is_open(),
            "a slot is opened when its last owner is gone"
        );
        *state = Slot::opened(conn.generation);
        state
    }

    /// Gives up the pieces that nobody is in.
    pub(super) fn shrink(&mut self) {
        for piece in &mut self.pieces {
            let is_empty = |piece: &mut Box<[Slot; PIECE]>| !piece.iter().any(Slot::is_open);
            piece.take_if(is_empty);
        }
    }

    pub(super) fn remove(&mut self, slot: u32) {
        assert!(self.at(slot).is_open(), "a slot is freed once");
        self.open -= 1;
        *self.at(slot) = Slot::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(slot: &mut Slot) -> Vec<Step> {
        std::iter::from_fn(|| slot.next_step()).collect()
    }

    #[test]
    fn a_finish_cancels_an_armed_receive_before_the_slot_is_freed() {
        let mut slot = Slot::opened(1);
        slot.arm(Arm::Receive);
        slot.close(Close::Finish);
        assert_eq!(steps(&mut slot), [Step::CancelAndClose]);
        slot.set_closed();
        assert!(!slot.is_gone(), "the receive has not ended");
        slot.disarm();
        assert!(slot.is_gone());
    }

    #[test]
    fn a_finish_after_the_end_of_the_stream_is_a_plain_close() {
        let mut slot = Slot::opened(1);
        assert!(slot.end() && !slot.end());
        assert_eq!(
            slot.wanted(),
            Some(Arm::Watch),
            "a half-closed peer may still be cut off"
        );
        slot.close(Close::Finish);
        assert_eq!(steps(&mut slot), [Step::Close]);
    }

    #[test]
    fn a_finish_waits_for_the_send_under_way_and_an_abort_does_not() {
        let mut slot = Slot::opened(1);
        slot.set_sending(true);
        slot.close(Close::Finish);
        assert_eq!(steps(&mut slot), []);
        slot.close(Close::Abort);
        assert_eq!(steps(&mut slot), [Step::Abort]);
        slot.set_sending(false);
        assert_eq!(steps(&mut slot), [Step::Close]);
    }

    #[test]
    fn a_close_waits_for_the_half_close_under_way() {
        for how in [Close::Finish, Close::Abort] {
            let mut slot = Slot::opened(1);
            slot.set_shutting(true);
            slot.close(how);
            let before: &[Step] = match how {
                Close::Finish => &[],
                Close::Abort => &[Step::Abort],
            };
            assert_eq!(steps(&mut slot), before);
            slot.set_shutting(false);
            assert_eq!(steps(&mut slot), [Step::Close]);
        }
    }

    #[test]
    fn an_abort_frees_the_slot_only_after_the_receive_has_ended() {
        let mut slot = Slot::opened(1);
        slot.arm(Arm::Receive);
        slot.close(Close::Abort);
        assert_eq!(steps(&mut slot), [Step::Abort]);
        slot.disarm();
        assert_eq!(steps(&mut slot), [Step::Close]);
    }

    #[test]
    fn a_paused_socket_is_watched_and_read_again_afterwards() {
        let mut slot = Slot::opened(1);
        assert_eq!(slot.wanted(), Some(Arm::Receive));
        slot.arm(Arm::Receive);
        assert_eq!(slot.wanted(), None);
        assert!(slot.pause(), "the receive has to end");
        assert!(!slot.pause(), "once");
        slot.disarm();
        assert_eq!(slot.wanted(), Some(Arm::Watch));
        slot.arm(Arm::Watch);
        assert!(slot.is_watching());
        assert!(slot.resume(), "the watch has to end");
        assert!(!slot.resume(), "once");
        slot.disarm();
        assert_eq!(slot.wanted(), Some(Arm::Receive));
    }

    #[test]
    fn a_pause_that_is_over_before_the_receive_ended_arms_a_receive() {
        let mut slot = Slot::opened(1);
        slot.arm(Arm::Receive);
        assert!(slot.pause());
        assert!(!slot.resume(), "the receive is ending already");
        slot.disarm();
        assert_eq!(slot.wanted(), Some(Arm::Receive));
        assert!(!slot.pause(), "nothing is armed");
        assert_eq!(slot.wanted(), Some(Arm::Watch));
    }

    #[test]
    fn a_paused_socket_is_closed_like_any_other() {
        for how in [Close::Finish, Close::Abort] {
            let mut slot = Slot::opened(1);
            slot.pause();
            slot.arm(Arm::Watch);
            slot.close(how);
            assert!(!slot.resume() && slot.wanted().is_none());
            match how {
                Close::Finish => assert_eq!(steps(&mut slot), [Step::CancelAndClose]),
                Close::Abort => {
                    assert_eq!(steps(&mut slot), [Step::Abort, Step::CancelAndClose]);
                }
            }
            slot.disarm();
            slot.set_closed();
            assert!(slot.is_gone());
        }
    }

    #[test]
    fn a_socket_that_was_heard_is_looked_at_unless_something_was_sent_since() {
        let mut slot = Slot::opened(1);
        slot.arm(Arm::Receive);
        assert!(slot.heard() && !slot.heard());
        assert!(slot.unlist());
        assert!(!slot.unlist());
        assert!(slot.heard());
        slot.spoken();
        assert!(!slot.unlist());
        assert!(slot.heard());
        slot.close(Close::Finish);
        assert!(!slot.unlist(), "it is going");
    }

    #[test]
    fn one_that_rests_is_not_read_and_a_dense_one_in_small_pieces() {
        let mut slot = Slot::opened(1);
        slot.arm(Arm::Receive);
        assert!(slot.rest(), "the receive has to end");
        slot.disarm();
        assert_eq!(slot.wanted(), None);
        slot.rested();
        assert_eq!(slot.wanted(), Some(Arm::ReceiveOnce));
        slot.go_freely();
        assert_eq!(slot.wanted(), Some(Arm::Receive));
        slot.set_dense(true);
        for _ in 1..LIGHT_ROW / LIGHT {
            slot.was_light();
        }
        assert_eq!(
            slot.wanted(),
            Some(Arm::ReceiveFew),
            "a message may have so many pieces"
        );
        slot.was_light();
        assert_eq!(slot.wanted(), Some(Arm::Receive));
        slot.was_light();
        slot.set_dense(true);
        slot.was_light();
        slot.set_dense(true);
        for _ in 1..LIGHT_ROW / LIGHT {
            slot.was_light();
        }
        assert_eq!(slot.wanted(), Some(Arm::ReceiveFew), "in a row");
        slot.arm(Arm::ReceiveFew);
        slot.disarm();
        assert!(!slot.rest(), "it ended by itself");
        assert!(!slot.pause());
        assert_eq!(slot.wanted(), Some(Arm::Watch), "its end is noticed");
        slot.resume();
        slot.close(Close::Finish);
        assert_eq!(steps(&mut slot), [Step::Close]);
    }

    #[test]
    fn a_stale_generation_finds_nothing() {
        let mut slots = Slots::default();
        slots.insert(ConnId {
            slot: 70_000,
            generation: 4,
        });
        assert!(slots.of(70_000, 4).is_some());
        assert!(slots.of(70_000, 3).is_none());
        slots.remove(70_000);
        assert!(slots.of(70_000, 4).is_none());
        assert_eq!(slots.open(), 0);
        slots.shrink();
        assert!(slots.pieces.iter().all(Option::is_none));
        assert!(slots.of(70_000, 4).is_none());
    }
}

//! Receiving: one armed receive for each connection, its bytes handed to the shard in place.

use std::io;
use std::time::Duration;

use super::fair::{
    BULK_BYTES, CROWDED_BYTES, HEAVY_RECEIVE, RECEIVE_BYTES, Share, WEIGHED_BYTES, Weight,
};
use super::hot::Hot;
use super::slots::{Arm, Slot};
use crate::model::ConnId;
use crate::shard::EndCause;
use crate::time::Now;
use crate::uring::{Completion, Sqe, socket};

/// Connections that were heard and not answered are asked about their health this often.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// Of them, those that one turn asks about.
const PROBES: usize = 256;

/// What a completion of a receive, or of the watch in its place, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brought {
    /// Bytes.
    Bytes,
    /// No buffer was free for them.
    Starved,
    /// A pause or its end, a peer that closed its side only, or a kernel that could not just now.
    Nothing,
    /// The peer has nothing more to say.
    End,
    /// The connection is broken.
    Break,
}

impl Brought {
    fn by(result: i32, watched: bool) -> Self {
        match result {
            1.. if !watched => Self::Bytes,
            1.. if !Sqe::is_end(result) => Self::Nothing,
            0 if !watched => Self::End,
            0.. => Self::Break,
            _ if result == -libc::ENOBUFS => Self::Starved,
            _ if result == -libc::ECANCELED || socket::is_passing(-result) => Self::Nothing,
            _ => Self::Break,
        }
    }
}

impl Hot {
    /// The order of `spec/io_uring.md` §3: the buffer's book first, then the generation, then the bytes.
    pub(super) fn received(&mut self, now: Now, completion: Completion) -> io::Result<()> {
        let conn = ConnId {
            slot: completion.slot(),
            generation: completion.generation(),
        };
        let (result, more) = (completion.result(), completion.more());
        let bytes = self.ring.take_bytes(completion);
        let Some(state) = self.slots.of(conn.slot, conn.generation) else {
            return Ok(());
        };
        let watched = state.is_watching();
        if !more {
            state.disarm();
        }
        if !state.is_closing() {
            match Brought::by(result, watched) {
                // What comes while the connection is paused had been read before.
                Brought::Bytes => {
                    if state.heard() {
                        self.heard.push_back((conn.slot, conn.generation));
                    }
                    let len = bytes.len();
                    if len < WEIGHED_BYTES {
                        self.shard.handle_received(now, conn, bytes);
                    } else {
                        let begun = self.clock.at();
                        self.shard.handle_received(now, conn, bytes);
                        self.dispatched = self.clock.at();
                        let work = self.dispatched.since(begun);
                        self.weigh(conn, Weight::new(work, len))?;
                    }
                }
                // What is wanted now is armed below.
                Brought::Nothing => {}
                // The bytes are still in the socket. It is armed again when buffers have been given back.
                Brought::Starved => self.shard.counters_mut().receives_starved += 1,
                Brought::End => {
                    if state.end() {
                        self.shard.handle_ended(now, conn, EndCause::Eof);
                    }
                }
                Brought::Break => self.broken(now, conn),
            }
        }
        if !more {
            self.unarmed.push((conn.slot, conn.generation));
            self.advance_close(now, conn)?;
        }
        Ok(())
    }

    /// A connection that costs much rests, where there are others.
    fn weigh(&mut self, conn: ConnId, weight: Weight) -> io::Result<()> {
        let ConnId { slot, generation } = conn;
        let Some(state) = self.slots.of(slot, generation) else {
            return Ok(());
        };
        if self.pending.is_empty() && self.resting.is_empty() {
            // Nobody else wants anything.
            state.set_dense(false);
            state.go_freely();
            return Ok(());
        }
        if weight.is_dense() {
            state.set_dense(true);
        } else if weight.is_thin() {
            state.was_light();
        }
        if weight.is_heavy() || state.is_dense() {
            let is_armed = state.is_armed();
            self.rest(conn, weight, false, is_armed)?;
        }
        Ok(())
    }

    /// A receive has come out of the kernel. Whoever brings much while much waits rests before the buffers are used up, and goes by
    /// turns from then on, until nobody else does; who found no buffer waits for its turn with them. Returns whether it is one of
    /// those that are dispatched behind what is little.
    pub(super) fn received_early(&mut self, completion: &Completion) -> io::Result<bool> {
        let (result, bytes) = (completion.result(), completion.bytes());
        let conn = ConnId {
            slot: completion.slot(),
            generation: completion.generation(),
        };
        let starved = result == -libc::ENOBUFS;
        let Some(state) = self.slots.of(conn.slot, conn.generation) else {
            return Ok(false);
        };
        if bytes >= BULK_BYTES && !state.is_bulky() {
            state.set_bulky(true);
            self.bulky.push((conn.slot, conn.generation));
        }
        let is_bulky = state.is_bulky();
        if bytes < BULK_BYTES && !starved {
            if bytes > 0 {
                state.go_freely();
            }
            return Ok(is_bulky);
        }
        let weight = Weight::new(Duration::ZERO, RECEIVE_BYTES as usize);
        let by_turns = state.goes_by_turns();
        if by_turns && self.resting.is_empty() && !starved {
            state.go_freely();
        } else if by_turns || starved || self.pending.bytes() + bytes >= CROWDED_BYTES {
            // Who did not use the buffers up is the first to get one.
            self.rest(conn, weight, starved && !by_turns, completion.more())?;
        }
        Ok(is_bulky)
    }

    fn rest(
        &mut self,
        conn: ConnId,
        weight: Weight,
        is_first: bool,
        is_armed: bool,
    ) -> io::Result<()> {
        let ConnId { slot, generation } = conn;
        let Some(state) = self.slots.of(slot, generation) else {
            return Ok(());
        };
        if state.is_resting() || state.is_closing() {
            return Ok(());
        }
        if is_first {
            self.resting.push_front((slot, generation, weight));
        } else {
            self.resting.push_back((slot, generation, weight));
        }
        if state.rest() && is_armed {
            self.ring.push(&Sqe::cancel_receive(slot, generation))?;
        }
        Ok(())
    }

    /// Some of those who rest are read again.
    pub(super) fn wake_resting(&mut self) -> io::Result<()> {
        if self.pending.bytes() >= CROWDED_BYTES {
            return Ok(());
        }
        let mut share = Share::of_turn();
        while let Some(&(slot, generation, weight)) = self.resting.front() {
            if !share.has_room(weight) {
                break;
            }
            self.resting.pop_front();
            if let Some(state) = self.slots.of(slot, generation) {
                state.rested();
                self.arm(slot, generation)?;
            }
        }
        Ok(())
    }

    /// The connection is broken: nothing is armed on it any more.
    fn broken(&mut self, now: Now, conn: ConnId) {
        if let Some(state) = self.slots.of(conn.slot, conn.generation) {
            state.end();
            self.shard.handle_ended(now, conn, EndCause::Reset);
        }
    }

    /// Arms the receives that ended and should not have: oldest first, after the buffers were given back.
    pub(super) fn arm_receives(&mut self) -> io::Result<()> {
        let mut unarmed = std::mem::take(&mut self.unarmed);
        for (slot, generation) in unarmed.drain(..) {
            match self
                .slots
                .of(slot, generation)
                .and_then(|state| state.wanted())
            {
                Some(Arm::Receive | Arm::ReceiveOnce | Arm::ReceiveFew) => {
                    self.arm(slot, generation)?
                }
                // Most streams that ended are closed before the turn is over.
                Some(Arm::Watch) => self.unwatched.push((slot, generation)),
                None => {}
            }
        }
        self.unarmed = unarmed;
        Ok(())
    }

    /// Arms the watches of those that are not being closed.
    pub(super) fn arm_watches(&mut self) -> io::Result<()> {
        let mut unwatched = std::mem::take(&mut self.unwatched);
        for (slot, generation) in unwatched.drain(..) {
            self.arm(slot, generation)?;
        }
        self.unwatched = unwatched;
        Ok(())
    }

    /// Arms what is wanted.
    pub(super) fn arm(&mut self, slot: u32, generation: u32) -> io::Result<()> {
        let cap = self.receive_cap;
        let Some(state) = self.slots.of(slot, generation) else {
            return Ok(());
        };
        let Some(what) = state.wanted() else {
            return Ok(());
        };
        state.arm(what);
        self.ring.push(&match what {
            Arm::Receive => Sqe::receive(slot, generation, cap),
            Arm::ReceiveOnce => Sqe::receive_once(slot, generation, RECEIVE_BYTES),
            Arm::ReceiveFew => Sqe::receive_once(slot, generation, HEAVY_RECEIVE),
            Arm::Watch => Sqe::watch(slot, generation),
        })
    }

    /// Nothing more is to be read from a connection for now. What the kernel has read still comes.
    pub(super) fn pause(&mut self, conn: ConnId) -> io::Result<()> {
        let ConnId { slot, generation } = conn;
        let state = self.slots.of(slot, generation);
        if !state.is_some_and(Slot::pause) {
            return Ok(());
        }
        self.ring.push(&Sqe::cancel_receive(slot, generation))
    }

    /// Reading goes on.
    pub(super) fn resume(&mut self, conn: ConnId) -> io::Result<()> {
        let ConnId { slot, generation } = conn;
        let state = self.slots.of(slot, generation);
        if !state.is_some_and(Slot::resume) {
            return Ok(());
        }
        self.ring.push(&Sqe::cancel_receive(slot, generation))
    }

    /// Asks the kernel about connections that said something and were told nothing since: a receive waits for the next
    /// event of its socket, and a reset that came together with bytes is none.
    pub(super) fn probe(&mut self, now: Now) -> io::Result<()> {
        if self.heard.is_empty() || now.at.since(self.probed) < PROBE_INTERVAL {
            return Ok(());
        }
        for _ in 0..PROBES {
            let Some((slot, generation)) = self.heard.pop_front() else {
                self.probed = now.at;
                break;
            };
            if self
                .slots
                .of(slot, generation)
                .is_some_and(|state| state.unlist())
            {
                self.ring.push(&Sqe::probe(slot, generation))?;
            }
        }
        Ok(())
    }

    /// A probe has its answer.
    pub(super) fn probed(&mut self, now: Now, conn: ConnId, result: i32) {
        let lives = result >= 0 || socket::is_passing(-result);
        let is_open = self
            .slots
            .of(conn.slot, conn.generation)
            .is_some_and(|state| !state.is_closing());
        if !lives && is_open {
            self.broken(now, conn);
        }
    }
}

#[cfg(test)]
mod tests;

//! Receiving: one armed receive for each connection, its bytes handed to the shard in place.

use std::io;
use std::time::Duration;

use super::hot::Hot;
use super::slots::{Arm, Slot};
use crate::model::ConnId;
use crate::shard::EndCause;
use crate::time::Now;
use crate::uring::{Completion, Sqe};

/// Connections that were heard and not answered are asked about their health this often.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// Of them, those that one turn asks about.
const PROBES: usize = 256;

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
            match result {
                // What comes while the connection is paused had been read before.
                1.. if !watched => {
                    if state.heard() {
                        self.heard.push_back((conn.slot, conn.generation));
                    }
                    self.shard.handle_received(now, conn, bytes);
                }
                // A pause or its end; what is wanted now is armed below.
                result if result == -libc::ECANCELED => {}
                // The bytes are still in the socket. It is armed again when buffers have been given back.
                result if result == -libc::ENOBUFS => {
                    self.shard.counters_mut().receives_starved += 1
                }
                // The peer closed its side only.
                1.. if !Sqe::is_end(result) => {}
                0 if !watched => {
                    if state.end() {
                        self.shard.handle_ended(now, conn, EndCause::Eof);
                    }
                }
                _ => self.broken(now, conn),
            }
        }
        if !more {
            self.unarmed.push((conn.slot, conn.generation));
            self.advance_close(now, conn)?;
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
                Some(Arm::Receive) => self.arm(slot, generation)?,
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
        let lives = result >= 0
            || [libc::EAGAIN, libc::EINTR, libc::ENOBUFS, libc::ENOMEM].contains(&-result);
        let is_open = self
            .slots
            .of(conn.slot, conn.generation)
            .is_some_and(|state| !state.is_closing());
        if !lives && is_open {
            self.broken(now, conn);
        }
    }
}

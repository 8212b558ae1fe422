//! Receiving: one armed receive for each connection, its bytes handed to the shard in place.

use std::io;

use super::hot::Hot;
use crate::model::ConnId;
use crate::shard::EndCause;
use crate::time::Now;
use crate::uring::{Completion, Sqe};

impl Hot {
    /// The order of `spec/io_uring.md` §3: the buffer's book first, then the generation, then the bytes.
    pub(super) fn received(&mut self, now: Now, completion: Completion) -> io::Result<()> {
        let conn = ConnId { slot: completion.slot(), generation: completion.generation() };
        let (result, more) = (completion.result(), completion.more());
        let bytes = self.ring.take_bytes(completion);
        let Some(state) = self.slots.of(conn.slot, conn.generation) else { return Ok(()) };
        if !more {
            state.set_armed(false);
        }
        if !state.is_closing() {
            match result {
                1.. => self.shard.handle_received(now, conn, bytes),
                // The bytes are still in the socket. It is armed again when buffers have been given back.
                result if result == -libc::ENOBUFS => self.shard.counters_mut().receives_starved += 1,
                _ => {
                    if state.end() {
                        let cause = if result == 0 { EndCause::Eof } else { EndCause::Reset };
                        self.shard.handle_ended(now, conn, cause);
                    }
                }
            }
        }
        if !more {
            self.unarmed.push((conn.slot, conn.generation));
            self.advance_close(now, conn)?;
        }
        Ok(())
    }

    /// Arms the receives that ended and should not have: oldest first, after the buffers were given back.
    pub(super) fn arm_receives(&mut self) -> io::Result<()> {
        let mut unarmed = std::mem::take(&mut self.unarmed);
        for (slot, generation) in unarmed.drain(..) {
            self.arm_receive(slot, generation)?;
        }
        self.unarmed = unarmed;
        Ok(())
    }

    pub(super) fn arm_receive(&mut self, slot: u32, generation: u32) -> io::Result<()> {
        let cap = self.receive_cap;
        let Some(state) = self.slots.of(slot, generation) else { return Ok(()) };
        if !state.wants_receive() {
            return Ok(());
        }
        state.set_armed(true);
        self.ring.push(&Sqe::receive(slot, generation, cap))
    }
}

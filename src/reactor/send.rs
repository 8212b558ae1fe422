//! Sending: what the shard has to say, in slices, and the close that follows.

use std::io;
use std::time::Duration;

use super::hot::Hot;
use super::slots::Step;
use crate::limits::SLICE_BYTES;
use crate::model::ConnId;
use crate::shard::{Output, SendBatch, SendFailed};
use crate::time::Now;
use crate::uring::{Completion, Kind, Sqe, socket};

/// Sends of one slice. Each takes the thread for some microseconds in which nothing is received (§4).
pub(super) const SLICE: usize = 256;

/// Of a slice, a part is one in so many, where tenants share the shard: behind each it is looked whether somebody else has come, who
/// then waits for a few sends only.
const PARTS: usize = 32;

/// What one slice has of sends so far. It ends by their number and by their bytes: the kernel copies both.
pub(super) struct Slice {
    /// Tenants share the shard: it is sent in parts.
    is_shared: bool,
    sends: usize,
    bytes: usize,
    /// Both, when its last part began.
    part: (usize, usize),
}

impl Slice {
    pub(super) const fn new(is_shared: bool) -> Self {
        Self {
            is_shared,
            sends: 0,
            bytes: 0,
            part: (0, 0),
        }
    }

    pub(super) fn add(&mut self, output: &Output) {
        if let Output::Transmit { batch, .. } = output {
            self.sends += 1;
            self.bytes += match batch {
                SendBatch::Ring(range) => range.len as usize,
                SendBatch::Owned(bytes) => bytes.len(),
            };
        }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.sends >= SLICE || self.bytes >= SLICE_BYTES
    }

    pub(super) const fn begin_part(&mut self) {
        self.part = (self.sends, self.bytes);
    }

    /// It goes on: neither it nor its part is full.
    pub(super) const fn has_room(&self) -> bool {
        let (sends, bytes) = self.part;
        let is_part_full =
            self.sends - sends >= SLICE / PARTS || self.bytes - bytes >= SLICE_BYTES / PARTS;
        !(self.is_full() || self.is_shared && is_part_full)
    }
}

impl Hot {
    /// Takes outputs until the shard has none or a slice is full. Where tenants share the shard, it ends with a part of a slice if
    /// something has come meanwhile. Returns whether there may be more.
    pub(super) fn flush(&mut self, now: Now) -> io::Result<bool> {
        let mut slice = Slice::new(self.shard.has_tenants());
        let mut first = true;
        loop {
            let mut taken = 0;
            slice.begin_part();
            while slice.has_room()
                && let Some(output) = self.shard.poll_output()
            {
                taken += 1;
                slice.add(&output);
                self.carry_out(output)?;
            }
            // `handle_flushed` may bring outputs: the loop ends when a flush has brought none.
            if taken == 0 && !first {
                return Ok(false);
            }
            first = false;
            self.send_slice(now)?;
            // Sending a slice takes its time; the fan-out is measured to its end.
            self.shard.handle_flushed(self.clock.now());
            self.start_closes(now)?;
            if slice.is_full() || !slice.has_room() && self.has_arrived() {
                return Ok(true);
            }
        }
    }

    /// Something has come that nobody has looked at.
    fn has_arrived(&self) -> bool {
        self.ring.needs_enter() || !self.pending.is_empty() || self.shard.has_work()
    }

    fn carry_out(&mut self, output: Output) -> io::Result<()> {
        match output {
            Output::Transmit {
                conn,
                batch: SendBatch::Ring(range),
            } => {
                if let Some(state) = self.slots.of(conn.slot, conn.generation) {
                    assert!(
                        !state.is_sending(),
                        "a connection has at most one send in flight"
                    );
                    state.range = range;
                    state.spoken();
                    self.slice.push((conn, range));
                }
            }
            Output::Transmit {
                conn,
                batch: SendBatch::Owned(batch),
            } => match self.slots.of(conn.slot, conn.generation) {
                Some(state) => {
                    state.set_sending(true);
                    state.spoken();
                    self.ring.push_send(conn.slot, conn.generation, batch)?;
                }
                None => debug_assert!(false, "a send for a connection that is gone"),
            },
            Output::Close { conn, how } => self.closes.push((conn, how)),
            Output::Pause(conn) => self.pause(conn)?,
            Output::Resume(conn) => self.resume(conn)?,
            Output::Patience(conn, time) => self.limit_unacknowledged(conn, time)?,
            Output::HalfClose(conn) => {
                if let Some(state) = self.slots.of(conn.slot, conn.generation)
                    && !state.is_closing()
                {
                    state.set_shutting(true);
                    self.ring
                        .push(&Sqe::half_close(conn.slot, conn.generation))?;
                }
            }
            Output::Wake(shard) => {
                if let Some(ring) = self.sleepers.ring_to_wake(shard) {
                    self.ring.push(&Sqe::wake(ring))?;
                }
            }
            Output::Report(report) => self.reports.push(report),
            Output::Call(call) => self.reports.call(call),
            Output::Log(request) => self.reports.ask_log(request),
        }
        Ok(())
    }

    /// On a unix socket this fails, and its peer cannot be out of reach.
    fn limit_unacknowledged(&mut self, conn: ConnId, time: Duration) -> io::Result<()> {
        let wanted = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        // The kernel reads it where it is. It changes with the configuration, and then stays: four bytes for each reload.
        if *self.unacknowledged_max != wanted {
            self.unacknowledged_max = Box::leak(Box::new(wanted));
        }
        let ConnId { slot, generation } = conn;
        if self.slots.of(slot, generation).is_none() {
            return Ok(());
        }
        let sqe = Sqe::unacknowledged_max(slot, generation, self.unacknowledged_max);
        self.ring.push(&sqe)
    }

    /// Submits the slice and everything queued, then tells the shard what was not taken.
    fn send_slice(&mut self, now: Now) -> io::Result<()> {
        if self.slice.is_empty() {
            return Ok(());
        }
        let (shard, slice) = (&self.shard, &self.slice);
        let sends = slice
            .iter()
            .map(|&(conn, range)| (conn.slot, conn.generation, shard.ring_bytes(range)));
        self.ring.send_now(sends)?;
        self.slice.clear();
        self.collect(now)
    }

    /// Moves completions out of the kernel's queue. Failed silent sends are told at once: until then their bytes may
    /// not be overwritten. Everything else waits its turn.
    pub(super) fn collect(&mut self, now: Now) -> io::Result<()> {
        while let Some(completion) = self.ring.pop() {
            match completion.kind() {
                Some(Kind::SendNow) => self.fell_short(now, &completion),
                kind => {
                    let is_bulk =
                        kind == Some(Kind::Receive) && self.received_early(&completion)?;
                    self.pending.push(completion, is_bulk);
                }
            }
        }
        Ok(())
    }

    fn fell_short(&mut self, now: Now, completion: &Completion) {
        let conn = ConnId {
            slot: completion.slot(),
            generation: completion.generation(),
        };
        let Some(state) = self.slots.of(conn.slot, conn.generation) else {
            return;
        };
        let batch = SendBatch::Ring(state.range);
        self.shard
            .handle_sent(now, conn, batch, outcome(completion.result()));
    }

    /// An owned batch came back.
    pub(super) fn sent(&mut self, now: Now, completion: Completion) -> io::Result<()> {
        let conn = ConnId {
            slot: completion.slot(),
            generation: completion.generation(),
        };
        let result = outcome(completion.result());
        let batch = self.ring.take_batch(completion);
        let Some(state) = self.slots.of(conn.slot, conn.generation) else {
            unreachable!("a slot is freed after its last completion")
        };
        state.set_sending(false);
        self.shard
            .handle_sent(now, conn, SendBatch::Owned(batch), result);
        self.advance_close(now, conn)
    }

    fn start_closes(&mut self, now: Now) -> io::Result<()> {
        let mut closes = std::mem::take(&mut self.closes);
        for (conn, how) in closes.drain(..) {
            if let Some(state) = self.slots.of(conn.slot, conn.generation) {
                state.close(how);
                self.advance_close(now, conn)?;
            }
        }
        self.closes = closes;
        Ok(())
    }

    /// Submits the next step of a close, or frees the slot after the last.
    pub(super) fn advance_close(&mut self, now: Now, conn: ConnId) -> io::Result<()> {
        let ConnId { slot, generation } = conn;
        let Some(state) = self.slots.of(slot, generation) else {
            return Ok(());
        };
        while let Some(step) = state.next_step() {
            match step {
                Step::Abort => self.ring.push(&Sqe::abort(slot, generation))?,
                Step::CancelAndClose => {
                    self.ring.push_chain(
                        Sqe::cancel_receive(slot, generation),
                        &Sqe::close(slot, generation),
                    )?;
                }
                Step::Close => self.ring.push(&Sqe::close(slot, generation))?,
            }
        }
        if !state.is_gone() {
            return Ok(());
        }
        self.slots.remove(slot);
        self.shard.handle_closed(now, conn);
        let Some(early) = self
            .early
            .iter()
            .position(|accepted| accepted.slot == Ok(slot))
        else {
            return Ok(());
        };
        let accepted = self.early.swap_remove(early);
        self.open(now, accepted)
    }

    /// Our side of a connection is closed, or it was broken. It lasts until its last operation has ended.
    pub(super) fn half_closed(&mut self, now: Now, conn: ConnId) -> io::Result<()> {
        if let Some(state) = self.slots.of(conn.slot, conn.generation) {
            state.set_shutting(false);
        }
        self.advance_close(now, conn)
    }

    /// The kernel freed a slot.
    pub(super) fn closed(&mut self, now: Now, conn: ConnId) -> io::Result<()> {
        // A socket that the shard refused was never a connection.
        let Some(state) = self.slots.of(conn.slot, conn.generation) else {
            return Ok(());
        };
        state.set_closed();
        self.advance_close(now, conn)
    }

    /// A reset is not to be had (a unix socket): its operations are cancelled instead.
    pub(super) fn abort_refused(&mut self, conn: ConnId) -> io::Result<()> {
        let Some(state) = self.slots.of(conn.slot, conn.generation) else {
            return Ok(());
        };
        let (armed, sending) = (state.is_armed(), state.is_sending());
        if armed {
            self.ring
                .push(&Sqe::cancel_receive(conn.slot, conn.generation))?;
        }
        if sending {
            self.ring
                .push(&Sqe::cancel_send(conn.slot, conn.generation))?;
        }
        Ok(())
    }
}

/// Bytes taken, or the peer is gone. A socket that is full for now took nothing.
pub(super) fn outcome(result: i32) -> Result<usize, SendFailed> {
    match result {
        0.. => Ok(result as usize),
        result if socket::is_passing(-result) => Ok(0),
        _ => Err(SendFailed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_and_its_parts_end_by_sends_and_by_bytes() {
        let send = |bytes: usize| Output::Transmit {
            conn: ConnId {
                slot: 0,
                generation: 0,
            },
            batch: SendBatch::Owned(vec![0; bytes]),
        };
        for (is_shared, bytes, wanted) in [
            (true, 10, vec![SLICE / PARTS; PARTS]),
            (true, SLICE_BYTES / 64, vec![64 / PARTS; PARTS]),
            (false, 10, vec![SLICE]),
            (false, SLICE_BYTES / 64, vec![64]),
        ] {
            let mut slice = Slice::new(is_shared);
            let mut parts = Vec::new();
            while !slice.is_full() {
                slice.begin_part();
                let mut sends = 0;
                while slice.has_room() {
                    slice.add(&send(bytes));
                    sends += 1;
                }
                parts.push(sends);
            }
            assert_eq!(parts, wanted);
        }
    }
}

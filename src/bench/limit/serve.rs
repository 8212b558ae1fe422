//! The limit's loop: accept, count bytes, fan out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::frame;
use super::super::payload::{self, Stamp};
use super::{LISTENER, LimitPlan};
use crate::uring::{Completion, Kind, Ring, Sqe};
use std::io;

/// Sends handed to the kernel at once; receives are served in between.
const SLICE: usize = 256;
/// How often the thread looks whether it shall end, and flushes publications that wait for company.
const TICK: Duration = Duration::from_millis(5);
const ENOBUFS: i32 = 105;

/// What a send needs to know of a slot; apart from the rest, so that a fan-out touches eight bytes of each subscriber.
#[derive(Clone, Copy, Default)]
struct Hot {
    generation: u32,
    open: bool,
    /// An owned send is out.
    sending: bool,
}

/// The rest of an accepted connection.
#[derive(Default)]
struct Conn {
    /// Current step of the opening; past the last one triggers follow.
    step: usize,
    /// First bytes of the opening, or an unfinished trigger.
    carry: Vec<u8>,
    /// Bytes that did not fit into the socket; they go first.
    owed: Vec<u8>,
}

/// Publications of one channel that wait to be sent together.
#[derive(Default)]
struct Channel {
    frames: Vec<u8>,
    count: u32,
    members: Vec<u32>,
}

pub(super) struct Serve {
    plan: LimitPlan,
    ring: Ring,
    hot: Vec<Hot>,
    conns: Vec<Conn>,
    /// Slot of each client, by number; 0 is nobody, since the listener has it.
    slots: Vec<u32>,
    channels: Vec<Channel>,
    /// Channels with publications that have not left.
    waiting: Vec<u32>,
    /// Answers of openings: slot and bytes.
    answers: Vec<(u32, u32)>,
    /// Echoes: slot and stamp.
    echoes: Vec<(u32, Stamp)>,
    starved: Vec<u32>,
    zeros: Vec<u8>,
    frame: Vec<u8>,
}

impl Serve {
    pub(super) fn new(plan: LimitPlan, ring: Ring) -> Self {
        let mut channels: Vec<Channel> = (0..plan.channels).map(|_| Channel::default()).collect();
        for client in 0..plan.connections {
            for place in 0..plan.subscriptions {
                channels[((client * plan.subscriptions + place) % plan.channels) as usize]
                    .members
                    .push(client);
            }
        }
        Self {
            hot: vec![Hot::default(); ring.slots() as usize],
            conns: (0..ring.slots()).map(|_| Conn::default()).collect(),
            slots: vec![LISTENER; plan.connections as usize + 1],
            channels,
            waiting: Vec::new(),
            answers: Vec::new(),
            echoes: Vec::new(),
            starved: Vec::new(),
            zeros: vec![
                b'.';
                plan.steps
                    .iter()
                    .map(|step| step.read as usize)
                    .max()
                    .unwrap_or(0)
            ],
            frame: Vec::new(),
            plan,
            ring,
        }
    }

    pub(super) fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.ring.enter(0)?;
            for _ in 0..24 {
                if !self.ring.needs_enter() {
                    break;
                }
                self.ring.enter(0)?;
            }
            let any = self.drain(&[])?;
            self.answer()?;
            self.fan_out(false)?;
            if !any && !self.ring.has_pending() {
                self.ring.enter_timeout(1, TICK)?;
                if !self.ring.has_pending() {
                    self.fan_out(true)?;
                }
            }
        }
        Ok(())
    }

    /// Handles every completion; `block` is what the last sends were for.
    fn drain(&mut self, block: &[u8]) -> io::Result<bool> {
        let mut any = false;
        while let Some(completion) = self.ring.pop() {
            any = true;
            let slot = completion.slot() as usize;
            match completion.kind() {
                Some(Kind::Accept) => self.accepted(completion)?,
                Some(Kind::Receive) => self.received(completion)?,
                Some(Kind::SendNow) => {
                    self.fell_short(slot, &block[taken(&completion).min(block.len())..])?
                }
                Some(Kind::SendOwned) => {
                    let sent = taken(&completion);
                    let batch = self.ring.take_batch(completion);
                    self.hot[slot].sending = false;
                    self.fell_short(slot, &batch[sent..])?;
                }
                Some(Kind::Close) => {
                    let generation = self.hot[slot].generation.wrapping_add(1);
                    self.hot[slot] = Hot {
                        generation,
                        ..Hot::default()
                    };
                    self.conns[slot] = Conn::default();
                }
                _ => {}
            }
        }
        self.ring.publish_buffers();
        for slot in std::mem::take(&mut self.starved) {
            self.ring
                .push(&Sqe::receive(slot, self.hot[slot as usize].generation, 0))?;
        }
        Ok(any)
    }

    /// A socket was full: the rest is owed, and sent by the ring when there is room.
    fn fell_short(&mut self, slot: usize, rest: &[u8]) -> io::Result<()> {
        let (hot, conn) = (&mut self.hot[slot], &mut self.conns[slot]);
        if !hot.open {
            return Ok(());
        }
        // What an owned send left over comes before what was queued behind it.
        conn.owed.splice(..0, rest.iter().copied());
        if !conn.owed.is_empty() && !hot.sending {
            hot.sending = true;
            let owed = std::mem::take(&mut conn.owed);
            self.ring.push_send(slot as u32, hot.generation, owed)?;
        }
        Ok(())
    }

    fn accepted(&mut self, completion: Completion) -> io::Result<()> {
        let accepted = self.ring.take_accepted(completion);
        self.ring.push_accept(accepted.index, 0, LISTENER)?;
        if let Ok(slot) = accepted.slot {
            let hot = &mut self.hot[slot as usize];
            hot.open = true;
            self.ring.push(&Sqe::receive(slot, hot.generation, 0))?;
        }
        Ok(())
    }

    fn received(&mut self, completion: Completion) -> io::Result<()> {
        let (slot, generation, result, more) = (
            completion.slot(),
            completion.generation(),
            completion.result(),
            completion.more(),
        );
        let conn = &mut self.conns[slot as usize];
        let bytes = self.ring.take_bytes(completion);
        if !bytes.is_empty() {
            conn.carry.extend_from_slice(bytes);
            self.advance(slot);
        }
        if more {
            return Ok(());
        }
        if result > 0 || result == -ENOBUFS {
            self.starved.push(slot);
        } else {
            self.hot[slot as usize].open = false;
            self.ring.push(&Sqe::close(slot, generation))?;
        }
        Ok(())
    }

    /// Counts what a connection has sent: steps of the opening, then triggers.
    fn advance(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        while let Some(step) = self.plan.steps.get(conn.step) {
            if conn.carry.len() < step.write as usize {
                return;
            }
            if conn.step == 0
                && let Some(client) = conn
                    .carry
                    .first_chunk()
                    .and_then(|letters| payload::number(*letters))
                && let Some(known) = self.slots.get_mut(client as usize)
            {
                *known = slot;
            }
            conn.carry.drain(..step.write as usize);
            conn.step += 1;
            if step.read > 0 {
                self.answers.push((slot, step.read));
            }
        }
        self.triggers(slot);
    }

    fn triggers(&mut self, slot: u32) {
        let carry = std::mem::take(&mut self.conns[slot as usize].carry);
        let mut used_all = 0;
        while let Some((stamp, used)) = trigger(&carry[used_all..]) {
            used_all += used;
            match stamp {
                Some(stamp) if self.plan.echo => self.echoes.push((slot, stamp)),
                Some(stamp) => self.wait(stamp),
                None => {}
            }
        }
        let mut carry = carry;
        carry.drain(..used_all);
        self.conns[slot as usize].carry = carry;
    }

    /// A publication waits for its channel's turn.
    fn wait(&mut self, stamp: Stamp) {
        self.frame.clear();
        write_frame(
            stamp,
            self.plan.size,
            self.plan.frame_bytes,
            &mut self.frame,
        );
        let Some(channel) = self.channels.get_mut(stamp.channel as usize) else {
            return;
        };
        if channel.count == 0 {
            self.waiting.push(stamp.channel);
        }
        channel.frames.extend_from_slice(&self.frame);
        channel.count += 1;
    }

    fn answer(&mut self) -> io::Result<()> {
        if !self.answers.is_empty() {
            // Two answers to one connection never wait together: the client speaks in between.
            let (hot, zeros) = (&self.hot, &self.zeros);
            let sends = self.answers.iter();
            let sends = sends.map(|(slot, len)| {
                (
                    *slot,
                    hot[*slot as usize].generation,
                    &zeros[..*len as usize],
                )
            });
            self.ring.send_now(sends)?;
            self.answers.clear();
        }
        for (slot, stamp) in std::mem::take(&mut self.echoes) {
            self.frame.clear();
            write_frame(
                stamp,
                self.plan.size,
                self.plan.frame_bytes,
                &mut self.frame,
            );
            let generation = self.hot[slot as usize].generation;
            self.ring
                .send_now(std::iter::once((slot, generation, self.frame.as_slice())))?;
        }
        Ok(())
    }

    /// Sends what is complete; everything if `all`.
    fn fan_out(&mut self, all: bool) -> io::Result<()> {
        for channel in std::mem::take(&mut self.waiting) {
            let known = &mut self.channels[channel as usize];
            let per_send = self.plan.messages_per_send.unwrap_or(known.count);
            let complete = if all {
                known.count
            } else {
                known.count / per_send * per_send
            };
            let len = known.frames.len() / known.count as usize * complete as usize;
            known.count -= complete;
            if known.count > 0 {
                self.waiting.push(channel);
            }
            let rest = known.frames.split_off(len);
            let frames = std::mem::replace(&mut known.frames, rest);
            let members = std::mem::take(&mut known.members);
            let block = frames.len() / (complete.div_ceil(per_send).max(1) as usize);
            for block in frames.chunks(block.max(1)) {
                self.send_to(&members, block)?;
            }
            self.channels[channel as usize].members = members;
        }
        Ok(())
    }

    fn send_to(&mut self, members: &[u32], block: &[u8]) -> io::Result<()> {
        for slice in members.chunks(SLICE) {
            let (hot, conns, slots) = (&self.hot, &mut self.conns, &self.slots);
            let sends = slice.iter().filter_map(|client| {
                let slot = slots[*client as usize];
                let hot = hot[slot as usize];
                if hot.sending {
                    conns[slot as usize].owed.extend_from_slice(block);
                }
                (hot.open && !hot.sending).then_some((slot, hot.generation, block))
            });
            self.ring.send_now(sends)?;
            self.drain(block)?;
        }
        Ok(())
    }
}

/// Bytes that a send took; none if it failed.
fn taken(completion: &Completion) -> usize {
    usize::try_from(completion.result()).unwrap_or(0)
}

/// The first trigger in `bytes`: its stamp, if it has one, and its length. Triggers come masked; the mask is undone
/// as any server must.
fn trigger(bytes: &[u8]) -> Option<(Option<Stamp>, usize)> {
    let (header, len) = frame::lengths(bytes)?;
    let mask: [u8; 4] = *bytes.get(header..)?.first_chunk()?;
    let end = (header + 4).checked_add(len)?;
    let mut text = bytes.get(header + 4..end)?.to_vec();
    for (i, byte) in text.iter_mut().enumerate() {
        *byte ^= mask[i & 3];
    }
    Some((payload::find(&text), end))
}

/// A frame of `frame_bytes` with a payload of `size` in it.
fn write_frame(stamp: Stamp, size: usize, frame_bytes: usize, out: &mut Vec<u8>) {
    let mut header = frame::header_len(frame_bytes);
    while frame::header_len(frame_bytes.saturating_sub(header)) < header {
        header = frame::header_len(frame_bytes.saturating_sub(header));
    }
    let mut text = vec![b'.'; frame_bytes.saturating_sub(header + size)];
    payload::write(stamp, size, &mut text);
    frame::write_unmasked(frame::TEXT, &text, out);
}

#[cfg(test)]
mod tests {
    use super::super::super::frame::Scan;
    use super::*;

    const STAMP: Stamp = Stamp {
        channel: 1,
        sequence: 2,
        intended: 3,
    };

    #[test]
    fn frames_have_the_asked_length_and_carry_the_stamp() {
        for bytes in [
            60, 127, 128, 129, 130, 131, 250, 4096, 65_539, 65_545, 70_000,
        ] {
            let mut out = Vec::new();
            write_frame(STAMP, 50, bytes, &mut out);
            let Scan::Frame {
                payload: text,
                used,
                ..
            } = frame::scan(&out)
            else {
                panic!("a whole frame")
            };
            assert_eq!(used, out.len());
            // One byte of a length form cannot be expressed.
            assert!(
                out.len().abs_diff(bytes) <= 6,
                "{bytes} became {}",
                out.len()
            );
            assert_eq!(payload::find(text), Some(STAMP));
        }
    }

    #[test]
    fn triggers_are_cut_where_they_end() {
        let mut text = Vec::new();
        payload::write(STAMP, 128, &mut text);
        let mut bytes = Vec::new();
        frame::write_masked(frame::TEXT, &text, 0xDEAD_BEEF, &mut bytes);
        let len = bytes.len();
        bytes.extend_from_slice(&bytes.clone());
        assert_eq!(trigger(&bytes), Some((Some(STAMP), len)));
        assert_eq!(trigger(&bytes[len..]), Some((Some(STAMP), len)));
        assert_eq!(trigger(&bytes[..len - 1]), None);
        assert_eq!(trigger(&[]), None);
    }
}

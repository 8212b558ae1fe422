//! A mesh with a network in between: what a shard sends another one waits on a wire until somebody passes it on.

use rtrb::{Consumer, Producer, RingBuffer};

use super::endpoint::{Endpoint, Ends, build_of};
use super::message::Message;
use crate::model::ShardId;

/// One direction between two shards.
pub struct Wire {
    to: ShardId,
    sent: Consumer<Message>,
    passed: Producer<Message>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// It is where it was sent to.
    On,
    /// Nobody will ever see it.
    Lost,
}

impl Wire {
    /// Who is at its end.
    #[must_use]
    pub const fn to(&self) -> ShardId {
        self.to
    }

    /// Passes the oldest message on, or loses it. `None` if there is none, or no room for it.
    pub fn pass(&mut self, is_lost: impl FnOnce(&Message) -> bool) -> Option<Passed> {
        if self.passed.is_full() {
            return None;
        }
        let message = self.sent.pop().ok()?;
        if is_lost(&message) {
            return Some(Passed::Lost);
        }
        // There was room.
        self.passed.push(message).ok()?;
        Some(Passed::On)
    }
}

/// The mesh of `shards` shards, whose queues hold `queue` messages, and the wires between them.
///
/// # Panics
/// If `shards` is 0 or above `SHARDS_MAX`.
#[must_use]
pub fn build_wired(shards: u16, queue: usize) -> (Vec<Endpoint>, Vec<Wire>) {
    let mut wires = Vec::new();
    let endpoints = build_of(shards, queue, |queue, to| {
        let (producer, sent) = RingBuffer::new(queue);
        let (passed, consumer) = RingBuffer::new(queue);
        wires.push(Wire { to, sent, passed });
        (Some(producer), Some(consumer)) as Ends
    });
    (endpoints, wires)
}

//! One shard's queues: an SPSC queue per ordered pair of shards.
//!
//! A queue holds `QUEUE` messages, of which `MESH_COMMANDS_MAX` places are kept for answers. A shard has at most that many
//! commands outstanding at another one, so an answer always fits (invariant 1). Deliveries and commands are refused when
//! the rest is full. What must not be lost (`Leave`, `Release`, `Behind`) waits in `held`, and everything that
//! comes after it waits behind it or is refused, so the order of a pair is kept.

use std::collections::VecDeque;

use rtrb::{Consumer, Producer, RingBuffer};

use super::message::Message;
use crate::limits::{MESH_COMMANDS_MAX, SHARDS_MAX};
use crate::model::ShardId;

/// Messages in one queue.
pub const QUEUE: usize = 4096;

struct Pair {
    to: Producer<Message>,
    from: Consumer<Message>,
    held: VecDeque<Message>,
    outstanding: usize,
    /// Something was pushed since the bell was last rung.
    pushed: bool,
}

/// What one shard holds of its queues to and from another.
pub(super) type Ends = (Option<Producer<Message>>, Option<Consumer<Message>>);

/// See the module.
pub struct Endpoint {
    shard: ShardId,
    pairs: Vec<Option<Pair>>,
    /// What the shard says to itself, handled before its handler returns.
    own: VecDeque<Message>,
}

/// The mesh of `shards` shards.
///
/// # Panics
/// If `shards` is 0 or above `SHARDS_MAX`.
#[must_use]
pub fn build(shards: u16) -> Vec<Endpoint> {
    build_with(shards, QUEUE)
}

/// A mesh whose queues hold `queue` messages beside the places of answers: small ones make the simulator reach the bounds.
///
/// # Panics
/// If `shards` is 0 or above `SHARDS_MAX`.
#[must_use]
pub fn build_with(shards: u16, queue: usize) -> Vec<Endpoint> {
    build_of(shards, queue, |queue, _| {
        let (producer, consumer) = RingBuffer::new(queue);
        (Some(producer), Some(consumer))
    })
}

/// A mesh of such queues: `make` gets how many messages one holds and who is at its end.
pub(super) fn build_of(
    shards: u16,
    queue: usize,
    mut make: impl FnMut(usize, ShardId) -> Ends,
) -> Vec<Endpoint> {
    assert!(
        (1..=SHARDS_MAX).contains(&usize::from(shards)),
        "number of shards"
    );
    let count = usize::from(shards);
    let queue = queue.max(MESH_COMMANDS_MAX + 1);
    let mut ends: Vec<Vec<Ends>> = (0..count)
        .map(|_| (0..count).map(|_| (None, None)).collect())
        .collect();
    let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
    for (from, to) in pairs.filter(|(from, to)| from != to) {
        let (producer, consumer) = make(queue, ShardId(to as u16));
        ends[from][to].0 = producer;
        ends[to][from].1 = consumer;
    }
    ends.into_iter()
        .enumerate()
        .map(|(shard, pairs)| Endpoint {
            shard: ShardId(shard as u16),
            own: VecDeque::new(),
            pairs: pairs
                .into_iter()
                .map(|(to, from)| {
                    Some(Pair {
                        to: to?,
                        from: from?,
                        held: VecDeque::new(),
                        outstanding: 0,
                        pushed: false,
                    })
                })
                .collect(),
        })
        .collect()
}

impl Endpoint {
    /// Whose endpoint it is.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// Shards of the mesh, this one included.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.pairs.len() as u16
    }

    /// Sends a command. It comes back when the queue is full or too many are outstanding.
    pub fn command(&mut self, to: ShardId, message: Message) -> Result<(), Message> {
        debug_assert!(!message.is_answer(), "a place is kept for its answer");
        let Some(pair) = &mut self.pairs[usize::from(to.0)] else {
            self.own.push_back(message);
            return Ok(());
        };
        if !pair.held.is_empty()
            || pair.outstanding == MESH_COMMANDS_MAX
            || pair.to.slots() <= MESH_COMMANDS_MAX
        {
            return Err(message);
        }
        pair.outstanding += 1;
        pair.push(message);
        Ok(())
    }

    /// Sends the answer to a command: there is always room.
    pub fn answer(&mut self, to: ShardId, message: Message) {
        debug_assert!(message.is_answer(), "it takes the place that was kept");
        let Some(pair) = &mut self.pairs[usize::from(to.0)] else {
            self.own.push_back(message);
            return;
        };
        if pair.held.is_empty() {
            pair.push(message);
        } else {
            pair.held.push_back(message);
        }
    }

    /// Sends what may be dropped; `false` if it was.
    pub fn delivery(&mut self, to: ShardId, message: Message) -> bool {
        debug_assert!(!message.is_answer(), "an answer is never dropped");
        let Some(pair) = &mut self.pairs[usize::from(to.0)] else {
            self.own.push_back(message);
            return true;
        };
        if !pair.held.is_empty() || pair.to.slots() <= MESH_COMMANDS_MAX {
            return false;
        }
        pair.push(message);
        true
    }

    /// A delivery to this shard would be taken.
    #[must_use]
    pub fn has_room(&self, to: ShardId) -> bool {
        self.pairs[usize::from(to.0)]
            .as_ref()
            .is_none_or(|pair| pair.held.is_empty() && pair.to.slots() > MESH_COMMANDS_MAX)
    }

    /// Sends what must arrive; it waits here while the queue is full. Bounded by what it speaks of: one per subscription
    /// or connection that ended, one per channel that is behind.
    pub fn keep(&mut self, to: ShardId, message: Message) {
        debug_assert!(!message.is_answer(), "an answer has a place");
        let Some(pair) = &mut self.pairs[usize::from(to.0)] else {
            self.own.push_back(message);
            return;
        };
        if pair.held.is_empty() && pair.to.slots() > MESH_COMMANDS_MAX {
            pair.push(message);
        } else {
            pair.held.push_back(message);
        }
    }

    /// Moves held messages into queues that have room again.
    pub fn flush(&mut self) {
        for pair in self.pairs.iter_mut().flatten() {
            while let Some(message) = pair.held.front() {
                let room = pair.to.slots();
                if room == 0 || (room <= MESH_COMMANDS_MAX && !message.is_answer()) {
                    break;
                }
                if let Some(message) = pair.held.pop_front() {
                    pair.push(message);
                }
            }
        }
    }

    /// The next message from `from`, which may be the shard itself.
    pub fn receive(&mut self, from: ShardId) -> Option<Message> {
        let Some(pair) = &mut self.pairs[usize::from(from.0)] else {
            return self.own.pop_front();
        };
        let message = pair.from.pop().ok()?;
        if message.is_answer() {
            assert!(
                pair.outstanding > 0,
                "an answer came to a command that was never sent"
            );
            pair.outstanding -= 1;
        }
        Some(message)
    }

    /// A shard whose bell has to be rung.
    pub fn poll_wake(&mut self) -> Option<ShardId> {
        let (shard, pair) = self
            .pairs
            .iter_mut()
            .enumerate()
            .find_map(|(shard, pair)| Some((shard, pair.as_mut().filter(|pair| pair.pushed)?)))?;
        pair.pushed = false;
        Some(ShardId(shard as u16))
    }

    /// Half of the commands that may be under way at some shard are.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        let outstanding = |pair: &Pair| pair.outstanding > MESH_COMMANDS_MAX / 2;
        self.pairs.iter().flatten().any(outstanding)
    }

    /// A message waits to be received, or to be sent.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.pairs
            .iter()
            .flatten()
            .any(|pair| !pair.from.is_empty() || !pair.held.is_empty())
    }

    /// Messages waiting to be received.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.pairs
            .iter()
            .flatten()
            .map(|pair| pair.from.slots())
            .sum()
    }

    /// Messages of the shard to itself that it has not handled.
    #[must_use]
    pub fn own(&self) -> usize {
        self.own.len()
    }

    /// Nothing is on its way, and no answer to a command is awaited.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let mut pairs = self.pairs.iter().flatten();
        let is_idle = self.own.is_empty() && self.queued() == 0 && self.held() == 0;
        is_idle && pairs.all(|pair| pair.outstanding == 0)
    }

    /// Messages waiting to be sent.
    #[must_use]
    pub fn held(&self) -> usize {
        self.pairs
            .iter()
            .flatten()
            .map(|pair| pair.held.len())
            .sum()
    }
}

impl Pair {
    fn push(&mut self, message: Message) {
        self.pushed = true;
        assert!(
            self.to.push(message).is_ok(),
            "an answer found no place although its command had reserved one"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::message::PublishFor;
    use crate::model::ConnId;

    fn answer() -> Message {
        let conn = ConnId {
            slot: 0,
            generation: 0,
        };
        let publisher = PublishFor {
            conn,
            id: 1,
            by_rpc: false,
        };
        Message::Published(publisher, Ok(Default::default()))
    }

    fn release() -> Message {
        Message::Adopt(1)
    }

    #[test]
    fn an_answer_fits_into_a_queue_that_is_full_for_everything_else() {
        let mut mesh = build_with(2, MESH_COMMANDS_MAX + 4);
        let (left, right) = mesh.split_at_mut(1);
        let (a, b) = (&mut left[0], &mut right[0]);
        for _ in 0..4 {
            a.command(ShardId(1), release()).map_err(drop).unwrap();
        }
        assert!(a.command(ShardId(1), release()).is_err());
        assert!(!a.delivery(ShardId(1), release()));
        while b.delivery(ShardId(0), release()) {}
        for _ in 0..4 {
            assert!(b.receive(ShardId(0)).is_some());
            b.answer(ShardId(0), answer());
        }
        assert_eq!(std::iter::from_fn(|| a.receive(ShardId(1))).count(), 8);
    }

    #[test]
    fn what_must_arrive_waits_and_nothing_overtakes_it() {
        let mut mesh = build_with(2, MESH_COMMANDS_MAX + 1);
        let (left, right) = mesh.split_at_mut(1);
        let (a, b) = (&mut left[0], &mut right[0]);
        assert!(a.delivery(ShardId(1), release()));
        a.keep(ShardId(1), release());
        assert_eq!(a.held(), 1);
        assert!(b.receive(ShardId(0)).is_some());
        assert!(
            a.command(ShardId(1), release()).is_err(),
            "it would overtake"
        );
        assert!(!a.delivery(ShardId(1), release()), "it would overtake");
        a.keep(ShardId(1), release());
        assert_eq!(a.held(), 2, "it would overtake");
        for left in [1, 0] {
            a.flush();
            assert_eq!(a.held(), left, "there is one place");
            assert!(b.receive(ShardId(0)).is_some());
        }
        assert_eq!(a.poll_wake(), Some(ShardId(1)));
        assert_eq!(a.poll_wake(), None);
    }

    #[test]
    fn what_was_held_takes_no_place_of_an_answer() {
        let mut mesh = build_with(2, MESH_COMMANDS_MAX + 4);
        let (left, right) = mesh.split_at_mut(1);
        let (a, b) = (&mut left[0], &mut right[0]);
        let commands = (0..).take_while(|_| a.command(ShardId(1), release()).is_ok());
        let owed = commands.count();
        assert!(owed > 0);
        while b.delivery(ShardId(0), release()) {}
        for _ in 0..MESH_COMMANDS_MAX {
            b.keep(ShardId(0), release());
        }
        assert_eq!(b.held(), MESH_COMMANDS_MAX);
        assert!(a.receive(ShardId(1)).is_some());
        b.flush();
        assert_eq!(b.held(), MESH_COMMANDS_MAX - 1, "one place was free");
        for _ in 0..owed {
            assert!(b.receive(ShardId(0)).is_some());
            b.answer(ShardId(0), answer());
        }
        // What is before the answers fits, place by place, and then they do.
        let mut received = Vec::new();
        while let Some(message) = a.receive(ShardId(1)) {
            received.push(message.is_answer());
            b.flush();
        }
        let before = received.iter().take_while(|&&is_answer| !is_answer).count();
        assert_eq!((received.len() - before, b.held()), (owed, 0));
        assert!(received[before..].iter().all(|&is_answer| is_answer));
    }

    #[test]
    fn shard_of_which_half_may_be_asked_is_pressed_until_it_has_answered() {
        let mut mesh = build_with(2, 2 * MESH_COMMANDS_MAX);
        let (left, right) = mesh.split_at_mut(1);
        let (a, b) = (&mut left[0], &mut right[0]);
        for _ in 0..MESH_COMMANDS_MAX / 2 {
            assert!(a.command(ShardId(1), release()).is_ok());
        }
        assert!(!a.is_pressed());
        assert!(a.command(ShardId(1), release()).is_ok());
        assert!(a.is_pressed());
        assert!(b.receive(ShardId(0)).is_some());
        b.answer(ShardId(0), answer());
        assert!(a.receive(ShardId(1)).is_some());
        assert!(!a.is_pressed());
    }
}

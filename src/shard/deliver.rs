//! Publications and join/leave on their way to local subscribers.

use std::sync::Arc;

use super::Shard;
use crate::broker::HubChannel;
use crate::config::namespace::SlowConsumer;
use crate::limits::FANOUT_PIECE_BYTES_MAX;
use crate::mesh::Message;
use crate::mesh::message::{Query, QueryFor, QueryKind};
use crate::model::{
    ChannelName, ClientInfo, Encoding, HubId, Offset, Publication, Since, StreamPosition,
};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::push::{Push, Unsubscribe};
use crate::session::flag;

/// Bytes of one run.
const RUN_BYTES_MAX: usize = FANOUT_PIECE_BYTES_MAX as usize / 4;
/// Bytes of one run for all classes of a mixed audience. A second run of the turn would not stand behind the first in the ring
/// and every subscriber would have to copy: it is put off as long as a class's piece still fits.
const MIXED_RUN_BYTES_MAX: usize = FANOUT_PIECE_BYTES_MAX as usize;
/// A run's memory is kept for the next turn up to this many publications.
const RUN_PUBLICATIONS_KEPT: usize = 256;

/// What a subscriber is told who has missed publications that nothing brings back; how many, where that is known.
pub(super) fn lost(channel: &ChannelName, publications: Option<u64>) -> Vec<u8> {
    let channel = channel.as_str();
    let lost = match publications {
        Some(publications) => {
            serde_json::json!({ "channel": channel, "publications": publications })
        }
        None => serde_json::json!({ "channel": channel }),
    };
    serde_json::json!({ "lost": lost }).to_string().into_bytes()
}

impl Shard {
    /// A publication from its owner.
    pub(super) fn deliver(&mut self, name: &ChannelName, publication: &Arc<Publication>) {
        let Some(id) = self.hub.find(name) else {
            return;
        };
        if publication.offset.0 > 0 && !self.advance(id, publication) {
            return;
        }
        self.deliver_now(id, publication);
    }

    /// Moves the channel's position; `false` if the publication is not to be delivered now.
    fn advance(&mut self, id: HubId, publication: &Publication) -> bool {
        let Some(channel) = self.hub.channel_mut(id) else {
            return false;
        };
        if channel.subscribers.is_empty() || channel.catching_up {
            return false;
        }
        if channel.position.epoch != publication.epoch {
            let position = StreamPosition {
                epoch: publication.epoch,
                offset: publication.offset,
            };
            self.insufficient(id, position);
            return true;
        }
        let next = channel.position.offset.0 + 1;
        if publication.offset.0 < next {
            return false;
        }
        if publication.offset.0 > next {
            self.catch_up(id);
            return false;
        }
        channel.position.offset = publication.offset;
        true
    }

    /// Takes a publication in, behind the channel's others of this turn: all of them are given to the subscribers at once, written
    /// once for each class as one contiguous piece of the fan-out ring.
    fn deliver_now(&mut self, id: HubId, publication: &Arc<Publication>) {
        if !publication.json {
            self.drop_json_subscribers(id);
        }
        let Some(channel) = self.hub.channel_mut(id) else {
            return;
        };
        if channel.run.is_empty() {
            self.runs.push(id);
        }
        self.run_bytes += channel.add_to_run(publication);
        // What may be dropped is dropped one by one.
        let single = channel.namespace.slow_consumer == SlowConsumer::DropOldest;
        let most = if channel.classes.len() > 1 {
            MIXED_RUN_BYTES_MAX
        } else {
            RUN_BYTES_MAX
        };
        if single || channel.run_bytes >= most {
            self.give_run(id);
        }
    }

    /// A payload that is no JSON cannot be written for them; what came before it still is.
    fn drop_json_subscribers(&mut self, id: HubId) {
        if !self.hub.channel(id).is_some_and(HubChannel::has_json) {
            return;
        }
        self.give_run(id);
        let Some(channel) = self.hub.channel(id) else {
            return;
        };
        let slots: Vec<u32> = channel
            .subscribers
            .iter()
            .filter(|subscriber| {
                let class = &channel.classes[usize::from(subscriber.class)];
                class.format.encoding == Encoding::Json
            })
            .map(|subscriber| subscriber.conn)
            .collect();
        for slot in slots {
            self.disconnect(slot, &Disconnect::InappropriateProtocol);
        }
    }

    /// Gives a channel's run to its subscribers.
    pub(super) fn give_run(&mut self, id: HubId) {
        let Some(channel) = self.hub.channel_mut(id) else {
            return;
        };
        if channel.run.is_empty() {
            return;
        }
        let mut run = std::mem::take(&mut channel.run);
        self.run_bytes -= std::mem::take(&mut channel.run_bytes);
        let mut written = std::mem::take(&mut self.written);
        written.run(channel, &run, &mut self.compression);
        self.counters.deliveries += self.fan_out(id.slot, &mut written, true, |_| true);
        self.written = written;
        if self.hub.channel(id).is_some_and(HubChannel::has_polls) {
            self.answer_polls(id, &run);
        }
        let is_of_stream = run.last().is_some_and(|last| last.offset.0 > 0);
        if let Some(channel) = self.hub.channel_mut(id) {
            channel.move_chains(is_of_stream);
        }
        if let Some(channel) = self.hub.channel_mut(id)
            && run.capacity() <= RUN_PUBLICATIONS_KEPT
        {
            run.clear();
            channel.run = run;
        }
    }

    /// Gives all runs of this turn.
    pub(super) fn give_runs(&mut self) {
        let mut runs = std::mem::take(&mut self.runs);
        for id in runs.drain(..) {
            self.give_run(id);
        }
        if self.runs.is_empty() {
            self.runs = runs;
        }
    }

    /// Bytes of runs that a channel which lost its subscribers took with it are not counted for ever.
    pub(super) fn forget_runs(&mut self) {
        self.run_bytes = self
            .runs
            .iter()
            .filter_map(|&id| self.hub.channel(id))
            .map(|channel| channel.run_bytes)
            .sum();
    }

    /// Somebody joined or left a channel.
    pub(super) fn announce(&mut self, name: &ChannelName, info: &ClientInfo, joined: bool) {
        let Some(id) = self.hub.find(name) else {
            return;
        };
        let Some(channel) = self.hub.channel(id) else {
            return;
        };
        if !channel
            .subscribers
            .iter()
            .any(|subscriber| subscriber.join_leave)
        {
            return;
        }
        let push = if joined {
            Push::Join(info)
        } else {
            Push::Leave(info)
        };
        self.give_run(id);
        let Some(channel) = self.hub.channel(id) else {
            return;
        };
        let mut written = std::mem::take(&mut self.written);
        written.push(channel, name.as_str(), &push, &mut self.compression);
        self.fan_out(id.slot, &mut written, false, |subscriber| {
            subscriber.join_leave
        });
        self.written = written;
    }

    /// The owner says where a channel stands after deliveries to this shard were dropped.
    pub(super) fn behind(&mut self, name: &ChannelName, position: StreamPosition) {
        let Some(id) = self.hub.find(name) else {
            return;
        };
        let Some(channel) = self.hub.channel(id) else {
            return;
        };
        if !channel.subscribers.is_empty() && !channel.catching_up && channel.position != position {
            self.catch_up(id);
        }
    }

    /// Reads what was lost again from the owner; deliveries until then come with it.
    fn catch_up(&mut self, id: HubId) {
        let Some(channel) = self.hub.channel_mut(id) else {
            return;
        };
        channel.catching_up = true;
        channel.round = channel.round.wrapping_add(1);
        let round = channel.round;
        let name = channel.name.clone();
        let query = Query {
            channel: name.clone(),
            what: QueryKind::History {
                limit: channel.namespace.history_size,
                since: Some((
                    channel.position.offset.0,
                    Since::Epoch(channel.position.epoch),
                )),
                reverse: false,
            },
        };
        let owner = crate::broker::owner::owner_of(&name, self.mesh.shards());
        let asker = QueryFor::CatchUp { hub: id, round };
        let question = Message::Query(asker, Box::new(query));
        if self.mesh.command(owner, question).is_err() {
            self.unasked.push((id, round));
        }
    }

    /// Asks the questions again that found a queue full.
    pub(super) fn ask_again(&mut self) {
        for (id, round) in std::mem::take(&mut self.unasked) {
            if self
                .hub
                .channel(id)
                .is_some_and(|channel| channel.catching_up && channel.round == round)
            {
                self.catch_up(id);
            }
        }
    }

    /// What was lost, read again. `None` if it can no longer be read.
    pub(super) fn caught_up(
        &mut self,
        id: HubId,
        round: u32,
        missed: Option<(Vec<Arc<Publication>>, StreamPosition)>,
    ) {
        let Some(channel) = self.hub.channel_mut(id) else {
            return;
        };
        // The answer to an earlier question would be delivered to subscribers that stand elsewhere by now.
        if channel.round != round || !std::mem::take(&mut channel.catching_up) {
            return;
        }
        let (epoch, offset) = (channel.position.epoch, channel.position.offset.0);
        match missed {
            Some((missed, position)) if position.epoch == epoch => {
                let complete = missed.first().map_or(position.offset.0 == offset, |first| {
                    first.offset.0 == offset + 1
                });
                if !complete {
                    // What is there follows the gap.
                    let first = missed.first().map(|first| first.offset.0);
                    let offset =
                        first.map_or(position.offset, |first| Offset(first.saturating_sub(1)));
                    self.insufficient(id, StreamPosition { offset, ..position });
                }
                for publication in missed {
                    if let Some(channel) = self.hub.channel_mut(id) {
                        channel.position.offset = channel.position.offset.max(publication.offset);
                    }
                    self.deliver_now(id, &publication);
                }
                // More was missed than this shard's rules let it ask for at once.
                if self
                    .hub
                    .channel(id)
                    .is_some_and(|channel| channel.position.offset < position.offset)
                {
                    self.catch_up(id);
                }
            }
            Some((_, position)) => self.insufficient(id, position),
            None => self.insufficient(id, StreamPosition::default()),
        }
    }

    /// The positioned subscribers of a channel have missed something that they can only get by recovering.
    pub(super) fn insufficient(&mut self, id: HubId, position: StreamPosition) {
        self.give_run(id);
        let Some(channel) = self.hub.channel_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut channel.position, position);
        channel.catching_up = false;
        let hub = id.slot;
        let missed = match before.epoch == position.epoch {
            true => Some(position.offset.0.saturating_sub(before.offset.0)),
            false if before.offset.0 > 0 || position.offset.0 > 0 => None,
            // Nothing was ever kept.
            false => Some(0),
        };
        if missed != Some(0) {
            self.tell_lost(id, missed, false);
        }
        let Some(channel) = self.hub.channel(id) else {
            return;
        };
        let slots: Vec<u32> = channel
            .subscribers
            .iter()
            .map(|subscriber| subscriber.conn)
            .collect();
        for slot in slots {
            self.tell_insufficient(slot, hub);
        }
    }

    /// Something of a channel without a stream, or of its joins and leaves, did not reach this shard.
    pub(super) fn lost(&mut self, name: &ChannelName) {
        if let Some(id) = self.hub.find(name) {
            self.give_run(id);
            self.tell_lost(id, None, true);
        }
    }

    /// Subscribers are told that they have missed something: those to whom no recovery brings it back, or everybody.
    fn tell_lost(&mut self, id: HubId, publications: Option<u64>, everybody: bool) {
        let Some(channel) = self.hub.channel(id) else {
            return;
        };
        let said = lost(&channel.name, publications);
        let mut written = std::mem::take(&mut self.written);
        written.push(channel, "", &Push::Message(&said), &mut self.compression);
        let connections: Vec<u32> = (channel.subscribers.iter())
            .map(|subscriber| subscriber.conn)
            .collect();
        let plain: hashbrown::HashSet<u32, foldhash::fast::FixedState> = connections
            .into_iter()
            .filter(|&slot| {
                let session = self.connections.at(slot).map(|one| &one.session);
                session.is_some_and(|session| {
                    let at = session.subscription_at(id.slot);
                    at.is_some_and(|at| {
                        everybody || !session.subscriptions[at].has(flag::POSITIONED)
                    })
                })
            })
            .collect();
        self.fan_out(id.slot, &mut written, false, |subscriber| {
            plain.contains(&subscriber.conn)
        });
        self.written = written;
    }

    /// A positioned subscriber has a gap: its subscription ends so that it recovers; one made by the server ends with its connection.
    pub(super) fn tell_insufficient(&mut self, slot: u32, hub: u32) {
        let disconnect = self.with_session(slot, |session, context| {
            let index = session.subscription_at(hub)?;
            let subscription = &session.subscriptions[index];
            if subscription.is_pending() || !subscription.has(flag::POSITIONED) {
                return None;
            }
            if subscription.has(flag::SERVER_SIDE) {
                return Some(Disconnect::InsufficientState);
            }
            session.end_subscription(context, hub, Some(Unsubscribe::Insufficient));
            None
        });
        if let Some(Some(disconnect)) = disconnect {
            self.disconnect(slot, &disconnect);
        }
    }
}

//! Publications and join/leave on their way to local subscribers.

use std::sync::Arc;

use super::Shard;
use super::local::{Arrival, Giving, gap, missed};
use super::loss::{Loss, lost};
use crate::broker::hub::News;
use crate::limits::MESH_TIMEOUT;
use crate::mesh::Message;
use crate::mesh::durable::Span;
use crate::mesh::message::QueryFor;
use crate::model::{ChannelName, ClientInfo, Encoding, HubId, Offset, Publication, StreamPosition};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::push::{Push, Unsubscribe};
use crate::session::flag;
use crate::wire::json::write::Members;

/// Runs for so many subscribers are given in one slice where there are tenants, and the one that reaches it whole: about as much work
/// as a few dozen sends.
const SUBSCRIBERS_PER_SLICE: usize = 1024;

/// What a subscriber is told of joins and leaves that it was not told one by one.
fn counted(channel: &ChannelName, news: News) -> Vec<u8> {
    let mut out = Vec::new();
    let mut message = Members::open(&mut out);
    let mut counted = message.object("join_leave");
    counted.text("channel", channel.name());
    counted.number("joined", u64::from(news.joined));
    counted.number("left", u64::from(news.left));
    counted.close();
    message.close();
    out
}

impl Shard {
    /// A publication from its owner.
    pub(super) fn deliver(&mut self, name: &ChannelName, publication: &Arc<Publication>) {
        // The last subscriber may have left while it was on its way.
        let Some(id) = self.local.hub().find(name) else {
            return;
        };
        if publication.offset.0 > 0 {
            match self.local.arrived(id, publication) {
                Arrival::Next => {}
                Arrival::Restarted(position) => self.insufficient(id, position),
                Arrival::Gap => return self.catch_up(id),
                Arrival::Ignored => return,
            }
        }
        self.deliver_now(id, publication);
    }

    /// Takes a publication in.
    fn deliver_now(&mut self, id: HubId, publication: &Arc<Publication>) {
        if !publication.json {
            self.drop_json_subscribers(id);
        }
        // Whoever is told to go soon gets what there is first.
        let may_wait = self.drain.is_none();
        if (self.local).take_in(id, publication, self.now.at, may_wait) {
            self.give_run(id);
        }
    }

    /// A payload that is no JSON cannot be written for them; what came before it still is.
    fn drop_json_subscribers(&mut self, id: HubId) {
        if !self.local.has_json(id) {
            return;
        }
        self.give_run(id);
        let slots = (self.local).slots(id, |class| class.format.encoding == Encoding::Json);
        for slot in slots {
            self.disconnect(slot, &Disconnect::InappropriateProtocol);
        }
    }

    /// Gives a channel's run to its subscribers, also one that waits for others.
    pub(super) fn give_run(&mut self, id: HubId) {
        while self.give_part_of_run(id) {}
    }

    fn give_part_of_run(&mut self, id: HubId) -> bool {
        let Some(giving) = self.local.begin_run(id, &mut self.compression) else {
            return false;
        };
        let Giving {
            run,
            mut written,
            replaced,
        } = giving;
        self.counters.batch_left_out += replaced as u64;
        // What may be left out is given one by one.
        let single = <&[_; 1]>::try_from(&run[..]).ok().map(|[one]| &**one);
        let name = self.local.hub().of(id.slot).name.clone();
        let count = self.fan_out(id.slot, &mut written, single, |_| true);
        self.counters.deliveries += count;
        self.count_deliveries(name.tenant(), count);
        self.local.put_back(written);
        if self.local.has_polls(id) {
            let from = if replaced > 0 { run.len() - 1 } else { 0 };
            self.answer_polls(id, &run[from..]);
        }
        self.local.end_run(id, run);
        true
    }

    /// Gives the runs that have waited for others as long as they may, as far as there is room for them.
    pub(super) fn give_waited(&mut self) {
        while !self.is_full() && self.local.take_waited(self.now.at) {}
    }

    /// Gives a client what waits of the channels that it is subscribed to: a service has something else to say to it.
    pub(super) fn give_waiting_to(&mut self, slot: u32) {
        if !self.local.has_waiting() {
            return;
        }
        let subscriptions = self.connections.of(slot).session.subscriptions.iter();
        let hubs: Vec<u32> = subscriptions.map(|subscription| subscription.hub).collect();
        for hub in hubs {
            self.give_run(self.local.hub().id_at(hub));
        }
    }

    /// Gives the runs of this turn. Where there are tenants no more of them than a part of a slice is work for: the others follow
    /// behind that, and whoever comes meanwhile has its turn among them.
    pub(super) fn give_runs(&mut self) {
        let most = match self.has_tenants() {
            true => SUBSCRIBERS_PER_SLICE,
            false => usize::MAX,
        };
        let mut given = 0;
        for _ in 0..self.local.runs() {
            if given >= most {
                break;
            }
            let Some((id, subscribers)) = self.local.next_run(self.now.at) else {
                break;
            };
            given += subscribers;
            self.give_run(id);
        }
        self.local.runs_given();
    }

    /// Somebody joined or left a channel.
    pub(super) fn announce(&mut self, name: &ChannelName, info: &ClientInfo, joined: bool) {
        let Some(id) = self.local.hub().find(name) else {
            return;
        };
        if !self.local.is_told(id, joined, self.now.at) {
            return;
        }
        let push = if joined {
            Push::Join(info)
        } else {
            Push::Leave(info)
        };
        self.give_run(id);
        let compression = &mut self.compression;
        let Some(mut written) = self.local.write(id, name.name(), &push, compression) else {
            return;
        };
        self.fan_out(id.slot, &mut written, None, |subscriber| {
            subscriber.join_leave
        });
        self.local.put_back(written);
    }

    /// Tells of the joins and leaves of a second that were not told one by one.
    pub(super) fn give_news(&mut self) {
        while !self.is_full()
            && let Some((id, news)) = self.local.next_news(self.now.at)
        {
            let untold = u64::from(news.joined) + u64::from(news.left);
            let Some(channel) = self.local.hub().channel(id).filter(|_| untold > 0) else {
                continue;
            };
            self.counters.joins_left_out += untold;
            let said = counted(&channel.name, news);
            let push = Push::Message(&said);
            let Some(mut written) = self.local.write(id, "", &push, &mut self.compression) else {
                continue;
            };
            self.fan_out(id.slot, &mut written, None, |subscriber| {
                subscriber.join_leave
            });
            self.local.put_back(written);
        }
    }

    /// The owner says where a channel stands after deliveries to this shard were dropped.
    pub(super) fn behind(&mut self, name: &ChannelName, position: StreamPosition) {
        if let Some(id) = self.local.hub().find(name)
            && self.local.is_behind(id, position)
        {
            self.catch_up(id);
        }
    }

    /// Reads what was lost again from the owner; deliveries until then come with it.
    fn catch_up(&mut self, id: HubId) {
        let Some((round, query)) = self.local.catch_up(id) else {
            return;
        };
        let until = self.now.at + MESH_TIMEOUT;
        let Ok(ask) = self.questions.catch_ups.open(until, 0, (id, round)) else {
            self.local.could_not_ask(id, round);
            return;
        };
        let owner = crate::broker::owner::owner_of(&query.channel, self.mesh.shards());
        let question = Message::Query(QueryFor::CatchUp(ask), Box::new(query));
        if self.mesh.command(owner, question).is_err() {
            self.questions.catch_ups.close(ask);
            self.local.could_not_ask(id, round);
        }
    }

    /// Asks the questions again that found a queue full.
    pub(super) fn ask_again(&mut self) {
        for id in self.local.take_unasked() {
            self.catch_up(id);
        }
    }

    /// What was lost, read again. `None` if it can no longer be read.
    pub(super) fn caught_up(
        &mut self,
        id: HubId,
        round: u32,
        missed: Option<(Vec<Arc<Publication>>, StreamPosition, Span)>,
    ) {
        let Some(at) = self.local.caught_up(id, round) else {
            return;
        };
        match missed {
            Some((missed, position, span)) if position.epoch == at.epoch => {
                if let Some(position) = gap(at, span, position) {
                    self.insufficient(id, position);
                }
                let last = missed.last().map_or(at.offset, |last| last.offset);
                for publication in missed {
                    self.local.move_to(id, publication.offset);
                    self.deliver_now(id, &publication);
                }
                if span.to > last.0 {
                    // What stood there has ended.
                    self.local.move_to(id, Offset(span.to));
                }
                // More was missed than this shard's rules let it ask for at once.
                if self.local.is_before(id, position.offset) {
                    self.catch_up(id);
                }
            }
            Some((_, position, _)) => self.insufficient(id, position),
            None => self.insufficient(id, StreamPosition::default()),
        }
    }

    /// The positioned subscribers of a channel have missed something that they can only get by recovering.
    pub(super) fn insufficient(&mut self, id: HubId, position: StreamPosition) {
        self.give_run(id);
        let Some(before) = self.local.restart(id, position) else {
            return;
        };
        let missed = missed(before, position);
        if missed != Some(0) {
            // Their number is known where both are of one life of the channel.
            let loss = missed.map(|_| Loss::between(before.offset.0, position.offset.0));
            self.tell_lost(id, loss, false);
        }
        for slot in self.local.slots(id, |_| true) {
            self.tell_insufficient(slot, id.slot);
        }
    }

    /// Something of a channel without a stream, or of its joins and leaves, did not reach this shard.
    pub(super) fn lost(&mut self, name: &ChannelName) {
        if let Some(id) = self.local.hub().find(name) {
            self.give_run(id);
            self.tell_lost(id, None, true);
        }
    }

    /// Subscribers are told that they have missed something: those to whom no recovery brings it back, or everybody.
    fn tell_lost(&mut self, id: HubId, loss: Option<Loss>, everybody: bool) {
        let Some(channel) = self.local.hub().channel(id) else {
            return;
        };
        let said = lost(&channel.name, loss);
        let connections = self.local.slots(id, |_| true);
        let push = Push::Message(&said);
        let Some(mut written) = self.local.write(id, "", &push, &mut self.compression) else {
            return;
        };
        let plain: hashbrown::HashSet<u32, foldhash::fast::FixedState> = connections
            .into_iter()
            .filter(|&slot| {
                let session = &self.connections.of(slot).session;
                let at = session.subscription_at(id.slot);
                at.is_some_and(|at| everybody || !session.subscriptions[at].has(flag::POSITIONED))
            })
            .collect();
        self.fan_out(id.slot, &mut written, None, |subscriber| {
            plain.contains(&subscriber.conn)
        });
        self.local.put_back(written);
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
        if let Some(disconnect) = disconnect {
            self.disconnect(slot, &disconnect);
        }
    }
}

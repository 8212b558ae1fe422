//! The channels this shard owns: what is asked of it as their owner, by any shard, and what it tells those with subscribers. A room
//! of the shard: it answers through the mesh, and knows neither connections nor sessions.

use std::sync::Arc;

use crate::broker::Owner;
use crate::broker::followed::{PartAsker, Tries};
use crate::broker::owner::{Behind, ChannelOwned, Counts, PlacedPublication};
use crate::config::{ChannelRules, Config};
use crate::image::{ImageError, ImageReader, ImageWriter};
use crate::limits::{DELIVER_MANY_BYTES_MAX, DELIVER_MANY_MAX};
use crate::mem::Key;
use crate::mesh::durable::{Page, Read};
use crate::mesh::message::{
    AnswerKind, Interest, InterestFor, Interested, Leave, PublishError, PublishFor, Query,
    QueryFor, QueryKind,
};
use crate::mesh::{Endpoint, Message};
use crate::metrics::Counters;
use crate::model::{
    AskId, ChannelName, ClientInfo, Draft, Publication, ShardId, StreamPosition, TenantId,
};
use crate::time::{Instant, Now};

/// See the module.
pub(super) struct Owned {
    owner: Owner,
}

/// The room at work: with the rules, and the way to those who are told.
pub(super) struct Owning<'a> {
    owner: &'a mut Owner,
    now: Now,
    config: &'a Config,
    mesh: &'a mut Endpoint,
    counters: &'a mut Counters,
}

impl Owned {
    /// Owns nothing yet. What nobody shall foresee follows from `key`.
    pub(super) fn new(key: &Key) -> Self {
        Self {
            owner: Owner::new(key),
        }
    }

    /// Writes all of it.
    pub(super) fn write_image(&self, config: &Config, out: &mut ImageWriter) {
        let Self { owner } = self;
        owner.write_image(&config.channels, out);
    }

    /// Reads what `write_image` has written, with the same key and configuration.
    pub(super) fn read_image(
        key: &Key,
        config: &Config,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        Ok(Self {
            owner: Owner::read_image(key, &config.channels, from)?,
        })
    }

    /// To do something.
    pub(super) const fn at_work<'a>(
        &'a mut self,
        now: Now,
        config: &'a Config,
        mesh: &'a mut Endpoint,
        counters: &'a mut Counters,
    ) -> Owning<'a> {
        Owning {
            owner: &mut self.owner,
            now,
            config,
            mesh,
            counters,
        }
    }

    /// A new configuration.
    pub(super) fn reload(&mut self, rules: &ChannelRules) {
        self.owner.reload(rules);
    }

    /// Channels owned.
    pub(super) fn len(&self) -> usize {
        self.owner.len()
    }

    /// Channels with subscribers on some shard.
    pub(super) fn active(&self) -> u32 {
        self.owner.active()
    }

    /// Those of one tenant.
    pub(super) fn active_of(&self, tenant: TenantId<'_>) -> u32 {
        self.owner.active_of(tenant)
    }

    /// Idempotency keys.
    pub(super) fn keys(&self) -> usize {
        self.owner.keys()
    }

    pub(super) fn counts(&self) -> Counts {
        self.owner.counts()
    }

    /// Somebody lost deliveries and was not told yet.
    pub(super) fn has_behind(&self) -> bool {
        self.owner.has_behind()
    }

    /// Somebody waited for the log who can be answered.
    pub(super) fn has_woken(&self) -> bool {
        self.owner.has_woken()
    }

    /// Who waited for the log and can be answered, and how often it was tried.
    pub(super) fn take_woken(&mut self) -> Option<(PartAsker, Tries)> {
        self.owner.take_woken()
    }

    /// What the log has to be asked.
    pub(super) fn take_reads(&mut self) -> Vec<Read> {
        self.owner.take_reads()
    }

    /// The log keeps nothing of a channel before this offset.
    pub(super) fn ended(&mut self, channel: &ChannelName, offsets: &[u64]) {
        self.owner.ended(channel, offsets);
    }

    pub(super) fn begins(&mut self, channel: &ChannelName, first: u64) {
        self.owner.begins(channel, first);
    }

    /// The log has lost its place.
    pub(super) fn restarted(&mut self) {
        self.owner.restarted();
    }

    /// When something of a channel ends.
    pub(super) fn next_sweep(&self) -> Option<Instant> {
        self.owner.next_sweep()
    }

    /// Looks at the channels of which something ends.
    pub(super) fn sweep(&mut self, now: Now) {
        if self.owner.next_sweep().is_some_and(|at| at <= now.at) {
            self.owner.sweep(now);
        }
    }

    /// For the simulator's checkers.
    pub(super) fn inspect(&self) -> Vec<ChannelOwned> {
        self.owner.inspect()
    }

    /// Durable channels in use whose end could not be asked for.
    pub(super) fn unopened(&self) -> usize {
        self.owner.unopened()
    }
}

/// What is asked of it.
impl Owning<'_> {
    /// A subscriber comes, or asks for what it missed. False if it waits for the log.
    pub(super) fn interest(
        &mut self,
        (from, asker): (ShardId, InterestFor),
        interest: Box<Interest>,
        tries: Tries,
    ) -> bool {
        let recovers = interest.recover.is_some();
        let joins = interest
            .presence
            .clone()
            .filter(|_| interest.join)
            .map(|info| (interest.channel.clone(), info));
        let rules = &self.config.channels;
        let answer = (self.owner).interest(self.now, (from, asker), interest, tries, rules);
        let Some(mut answer) = answer else {
            return false;
        };
        if recovers {
            let counter = if answer.recovered {
                &mut self.counters.recovered
            } else {
                &mut self.counters.recovery_failed
            };
            *counter += 1;
        }
        let joins = joins.filter(|_| answer.refused.is_none());
        // Where the subscriber is, the join follows its reply at once, whatever comes next.
        answer.joined = joins.as_ref().map(|(_, info)| Arc::clone(info));
        self.mesh
            .answer(from, Message::Interested(asker, Box::new(answer)));
        if let Some((channel, info)) = joins {
            let mask = self.owner.interest_of(&channel) & !(1 << from.0);
            self.tell_presence(&channel, &info, true, mask);
        }
        true
    }

    /// A subscriber has left.
    pub(super) fn leave(&mut self, from: ShardId, leave: Leave) {
        let channel = leave.channel.clone();
        if let Some((info, mask)) = self.owner.leave(self.now, from, leave) {
            self.tell_presence(&channel, &info, false, mask);
        }
    }

    /// A publication, whose publisher is answered.
    pub(super) fn publish(&mut self, from: ShardId, publisher: PublishFor, draft: Box<Draft>) {
        let result = self.publish_unasked(draft);
        self.mesh
            .answer(from, Message::Published(publisher, result));
    }

    /// A publication. Where it stands.
    pub(super) fn publish_unasked(
        &mut self,
        draft: Box<Draft>,
    ) -> Result<StreamPosition, PublishError> {
        let rules = &self.config.channels;
        let outcome = self.owner.publish(self.now, draft, rules)?;
        if let Some(delivery) = outcome.deliver {
            self.hand_out(&delivery);
        }
        Ok(outcome.position)
    }

    /// A publication of many that are handed out together. Where it stands.
    pub(super) fn publish_one(
        &mut self,
        draft: Box<Draft>,
        deliveries: &mut Vec<PlacedPublication>,
    ) -> Result<StreamPosition, PublishError> {
        let rules = &self.config.channels;
        let outcome = self.owner.publish(self.now, draft, rules)?;
        if let Some(delivery) = outcome.deliver {
            self.counters.publications += 1;
            if delivery.shards != 0 {
                deliveries.push(delivery);
            }
        }
        Ok(outcome.position)
    }

    /// A question of a client or a shard. False if it waits for the log.
    pub(super) fn query(
        &mut self,
        from: ShardId,
        for_whom: QueryFor,
        query: Box<Query>,
        tries: Tries,
    ) -> bool {
        let asker = |query| PartAsker::Query(from, for_whom, query);
        let Some(what) = self.ask(query, asker, tries) else {
            return false;
        };
        self.mesh
            .answer(from, Message::Answer(for_whom, Box::new(what)));
        true
    }

    /// The answer to a question. `None` if the asker waits for the log.
    pub(super) fn ask(
        &mut self,
        query: Box<Query>,
        asker: impl FnOnce(Box<Query>) -> PartAsker,
        tries: Tries,
    ) -> Option<AnswerKind> {
        let rules = &self.config.channels;
        let is_durable = rules
            .resolve_of(&query.channel)
            .is_ok_and(|namespace| namespace.is_durable());
        if is_durable {
            (self.owner).query_durable(self.now, query, asker, tries, rules)
        } else {
            Some(self.owner.query(self.now, &query, rules))
        }
    }

    /// The answer to a question that does not wait for the log.
    pub(super) fn ask_now(&mut self, query: &Query) -> AnswerKind {
        debug_assert!(!self.waits_for_log(query), "it can wait");
        self.owner.query(self.now, query, &self.config.channels)
    }

    /// May the answer have to be read from the log?
    pub(super) fn waits_for_log(&self, query: &Query) -> bool {
        let namespace = self.config.channels.resolve_of(&query.channel);
        matches!(query.what, QueryKind::History { .. })
            && namespace.is_ok_and(|namespace| namespace.is_durable())
    }
}

/// What comes from the log.
impl Owning<'_> {
    /// The log has stored a publication.
    pub(super) fn stored(&mut self, name: ChannelName, publication: Arc<Publication>) {
        if let Some(delivery) = self.owner.stored(self.now, name, publication) {
            self.hand_out(&delivery);
        }
    }

    /// What was to be read.
    pub(super) fn read(&mut self, page: Page) {
        for delivery in self.owner.read(self.now, page) {
            self.hand_out(&delivery);
        }
    }

    /// It could not be read: those who wait for it are told. Those of calls are left: call and item.
    pub(super) fn read_failed(&mut self, channel: &ChannelName) -> Vec<(AskId, u32)> {
        let mut calls = Vec::new();
        for asker in self.owner.read_failed(channel) {
            match asker {
                PartAsker::Interest(from, asker, interest) => {
                    let answer = Box::new(overloaded(&interest));
                    self.mesh.answer(from, Message::Interested(asker, answer));
                }
                PartAsker::Query(from, asker, _) => {
                    let answer = Message::Answer(asker, Box::new(AnswerKind::Overloaded));
                    self.mesh.answer(from, answer);
                }
                PartAsker::Api(wait, item, _) => calls.push((wait, item)),
            }
        }
        calls
    }
}

/// What it tells.
impl Owning<'_> {
    /// Gives a publication that has its place to the shards that want it.
    fn hand_out(&mut self, delivery: &PlacedPublication) {
        self.counters.publications += 1;
        let PlacedPublication {
            channel,
            publication,
            shards,
        } = delivery;
        for shard in bits(*shards) {
            let message = Message::Deliver(channel.clone(), Arc::clone(publication));
            if !self.mesh.delivery(shard, message) {
                self.counters.dropped_mesh += 1;
                self.owner.mark_behind(channel, shard);
            }
        }
    }

    /// Sends each shard its publications in few messages: as many single ones could fill its queue.
    pub(super) fn hand_out_together(&mut self, deliveries: &mut Vec<PlacedPublication>) {
        let shards = deliveries.iter().fold(0, |all, one| all | one.shards);
        for shard in bits(shards) {
            let mut many = Vec::new();
            let mut bytes = 0;
            for one in deliveries.iter() {
                if one.shards >> shard.0 & 1 == 0 {
                    continue;
                }
                bytes += one.publication.data.len();
                many.push((one.channel.clone(), Arc::clone(&one.publication)));
                if many.len() == DELIVER_MANY_MAX || bytes >= DELIVER_MANY_BYTES_MAX {
                    self.hand_out_to(shard, std::mem::take(&mut many));
                    bytes = 0;
                }
            }
            if !many.is_empty() {
                self.hand_out_to(shard, many);
            }
        }
        deliveries.clear();
    }

    fn hand_out_to(&mut self, shard: ShardId, many: Vec<(ChannelName, Arc<Publication>)>) {
        if self.mesh.has_room(shard) {
            self.mesh.delivery(shard, Message::DeliverMany(many));
            return;
        }
        self.counters.dropped_mesh += many.len() as u64;
        for (channel, _) in &many {
            self.owner.mark_behind(channel, shard);
        }
    }

    fn tell_presence(
        &mut self,
        channel: &ChannelName,
        info: &Arc<ClientInfo>,
        joined: bool,
        mask: u64,
    ) {
        for shard in bits(mask) {
            let message = Message::Presence(channel.clone(), Arc::clone(info), joined);
            if !self.mesh.delivery(shard, message) {
                self.counters.dropped_mesh += 1;
                self.owner.mark_lost(channel, shard);
            }
        }
    }

    /// Tells the shards that lost deliveries where their channels stand, once there is room for it.
    pub(super) fn tell_behind(&mut self) {
        let mesh = &self.mesh;
        for behind in self.owner.take_behind(|shard| mesh.has_room(shard)) {
            let Behind {
                name,
                position,
                behind,
                lost,
            } = behind;
            for shard in bits(behind) {
                self.mesh
                    .keep(shard, Message::Behind(name.clone(), position));
            }
            for shard in bits(lost) {
                self.mesh.keep(shard, Message::Lost(name.clone()));
            }
        }
    }
}

/// Shards of a mask.
fn bits(mut mask: u64) -> impl Iterator<Item = ShardId> {
    std::iter::from_fn(move || {
        let lowest = mask.trailing_zeros();
        (mask != 0).then(|| {
            mask &= mask - 1;
            ShardId(lowest as u16)
        })
    })
}

fn overloaded(interest: &Interest) -> Interested {
    Interested {
        channel: interest.channel.clone(),
        hub: interest.hub,
        position: StreamPosition::default(),
        missed: Vec::new(),
        recovered: false,
        after: interest.recover.map_or(0, |recover| recover.offset),
        refused: Some(PublishError::Overloaded),
        more: false,
        joined: None,
    }
}

//! The owner's side of every channel whose name hashes to this shard: offsets, history, presence, interest.

use std::sync::Arc;

use hashbrown::HashTable;

use super::channel::Channel;
use super::recovery;
use crate::config::ChannelRules;
use crate::config::namespace::RecoveryMode;
use crate::limits::{CHANNELS_OWNED_MAX, SHARDS_MAX};
use crate::mem::{Rng, Slab, SlotPool};
use crate::mesh::message::{
    AnswerKind, Interest, Interested, Leave, Publish, PublishError, Query, QueryKind,
};
use crate::model::{
    ChannelName, ClientId, ClientInfo, Epoch, Publication, ShardId, StreamPosition,
};
use crate::time::Now;

/// Channels looked at in one sweep.
const SWEEP: u32 = 1024;

/// All channels owned by one shard.
pub struct Owner {
    channels: Slab<Channel>,
    slots: SlotPool,
    by_name: HashTable<u32>,
    rng: Rng,
    /// Channels with a shard in `behind`.
    behind: Vec<u32>,
    swept: u32,
    /// Channels with a bit in `interest`.
    active: u32,
}

/// A channel as its owner sees it.
#[derive(Debug)]
pub struct ChannelOwned {
    /// Name.
    pub name: ChannelName,
    /// Top.
    pub position: StreamPosition,
    /// Shards with subscribers: bit n for shard n.
    pub interest: u64,
    /// Who is present, sorted.
    pub presence: Vec<ClientId>,
    /// Offsets kept.
    pub kept: Vec<u64>,
}

/// What came of a publish.
pub struct Outcome {
    /// Position given, or that of the first publication with the same key.
    pub position: StreamPosition,
    /// What the shards in `mask` get; `None` when nothing new was published.
    pub deliver: Option<(Arc<Publication>, u64)>,
}

impl Owner {
    /// Owns nothing yet; epochs come from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            channels: Slab::default(),
            slots: SlotPool::new(CHANNELS_OWNED_MAX as u32),
            by_name: HashTable::new(),
            rng: Rng::new(seed),
            behind: Vec::new(),
            swept: 0,
            active: 0,
        }
    }

    /// Channels owned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// No channel is owned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Channels that have a subscriber on any shard.
    #[must_use]
    pub const fn active(&self) -> u32 {
        self.active
    }

    fn find(&self, hash: u64, name: &ChannelName) -> Option<u32> {
        self.by_name
            .find(hash, |&slot| {
                self.channels
                    .at(slot)
                    .is_some_and(|channel| channel.name == *name)
            })
            .copied()
    }

    /// The channel, made if it is new. `None` when its namespace is gone or there are too many.
    fn open(
        &mut self,
        now: Now,
        hash: u64,
        name: &ChannelName,
        rules: &ChannelRules,
    ) -> Result<&mut Channel, PublishError> {
        let slot = match self.find(hash, name) {
            Some(slot) => slot,
            None => {
                let Ok(namespace) = rules.resolve(name.as_str()) else {
                    return Err(PublishError::UnknownChannel);
                };
                let slot = self.slots.take().ok_or(PublishError::Overloaded)?;
                let epoch = Epoch::from_random(self.rng.bits());
                self.channels.insert_at(
                    slot,
                    Channel::new(name.clone(), Arc::clone(namespace), epoch, now.at),
                );
                let channels = &self.channels;
                self.by_name.insert_unique(hash, slot, |&slot| {
                    channels
                        .at(slot)
                        .map_or(0, |channel| channel_hash(&channel.name))
                });
                slot
            }
        };
        let channel = self.channels.at_mut(slot).ok_or(PublishError::Overloaded)?;
        channel.used = now.at;
        Ok(channel)
    }

    /// Takes a publication in.
    pub fn publish(
        &mut self,
        now: Now,
        publish: Publish,
        rules: &ChannelRules,
    ) -> Result<Outcome, PublishError> {
        let hash = channel_hash(&publish.channel);
        if self.find(hash, &publish.channel).is_none() {
            let Ok(namespace) = rules.resolve(publish.channel.as_str()) else {
                return Err(PublishError::UnknownChannel);
            };
            let keeps = namespace.history_size > 0 && !publish.skip_history;
            if !keeps && publish.idempotency_key.is_empty() && publish.version == 0 {
                return Ok(Outcome {
                    position: StreamPosition::default(),
                    deliver: None,
                });
            }
        }
        let channel = self.open(now, hash, &publish.channel, rules)?;
        channel.expire(now);
        if !publish.idempotency_key.is_empty()
            && let Some(keys) = &mut channel.idempotency
            && let Some(position) = keys.find(now.at, &publish.idempotency_key)
        {
            return Ok(Outcome {
                position,
                deliver: None,
            });
        }
        if publish.version > 0 {
            if let Some(last) = &channel.version
                && last.1 == publish.version_epoch
                && publish.version <= last.0
            {
                return Ok(Outcome {
                    position: channel.position(),
                    deliver: None,
                });
            }
            channel.version = Some(Box::new((publish.version, publish.version_epoch)));
        }
        let publication = Publication {
            offset: Default::default(),
            epoch: Epoch::default(),
            data: publish.data,
            json: publish.json,
            info: publish.info,
            tags: publish.tags,
            unix_ms: now.unix_ms,
            tells_time: channel.namespace.publication_time,
            patch: None,
            delta: publish.delta,
        };
        let publication = channel.append(publication, publish.skip_history);
        let position = StreamPosition {
            epoch: publication.epoch,
            offset: publication.offset,
        };
        if !publish.idempotency_key.is_empty() {
            let ttl = channel.namespace.idempotency_ttl;
            let keys = channel.idempotency.get_or_insert_default();
            keys.remember(now.at, publish.idempotency_key, position, ttl);
        }
        Ok(Outcome {
            position,
            deliver: Some((publication, channel.interest)),
        })
    }

    /// Takes a subscriber of `from` in: interest, presence, what it missed.
    pub fn interest(
        &mut self,
        now: Now,
        from: ShardId,
        interest: &Interest,
        rules: &ChannelRules,
    ) -> Interested {
        let mut answer = Interested {
            channel: interest.channel.clone(),
            hub: interest.hub,
            reply_to: interest.reply_to,
            position: StreamPosition::default(),
            missed: Vec::new(),
            recovered: false,
            after: interest.recover.map_or(0, |recover| recover.offset),
            overloaded: false,
        };
        let Ok(channel) = self.open(
            now,
            channel_hash(&interest.channel),
            &interest.channel,
            rules,
        ) else {
            answer.overloaded = true;
            return answer;
        };
        channel.expire(now);
        let is_first = channel.interest == 0;
        channel.interest |= 1 << from.0;
        if interest.delta {
            channel.patched |= 1 << from.0;
        }
        answer.position = channel.position();
        if let Some(mut recover) = interest.recover {
            recover.cache |= channel.namespace.force_recovery_mode == RecoveryMode::Cache;
            (answer.missed, answer.recovered) =
                recovery::recover(&channel.history, answer.position, &recover);
        }
        if let Some(info) = &interest.presence
            && interest.keep
        {
            channel
                .presence
                .get_or_insert_default()
                .insert(Arc::clone(info));
        }
        self.active += u32::from(is_first);
        answer
    }

    /// Shards that want to know of a join or leave.
    #[must_use]
    pub fn interest_of(&self, name: &ChannelName) -> u64 {
        self.find(channel_hash(name), name)
            .and_then(|slot| self.channels.at(slot))
            .map_or(0, |channel| channel.interest)
    }

    /// Takes a subscriber of `from` out. Returns who is told of it, and which shards get it.
    pub fn leave(&mut self, from: ShardId, leave: Leave) -> Option<(Arc<ClientInfo>, u64)> {
        let slot = self.find(channel_hash(&leave.channel), &leave.channel)?;
        let channel = self.channels.at_mut(slot)?;
        if leave.last && channel.interest != 0 {
            channel.interest &= !(1 << from.0);
            self.active -= u32::from(channel.interest == 0);
            channel.patched &= channel.interest;
        }
        let info = leave.info?;
        if let Some(presence) = &mut channel.presence
            && presence.remove(info.client)
            && presence.is_empty()
        {
            channel.presence = None;
        }
        leave.leave.then_some((info, channel.interest))
    }

    /// Answers a question about a channel. A question does not make a channel unless its position is asked.
    pub fn query(&mut self, now: Now, query: &Query, rules: &ChannelRules) -> AnswerKind {
        let Some(slot) = self.find(channel_hash(&query.channel), &query.channel) else {
            return match query.what {
                QueryKind::Presence => AnswerKind::Presence(Vec::new()),
                QueryKind::PresenceStats => AnswerKind::PresenceStats {
                    clients: 0,
                    users: 0,
                },
                QueryKind::HistoryRemove => AnswerKind::Removed,
                QueryKind::History {
                    limit,
                    since,
                    reverse,
                } => match self.open(now, channel_hash(&query.channel), &query.channel, rules) {
                    Ok(channel) => Self::history(channel, limit, since, reverse),
                    Err(_) => AnswerKind::Overloaded,
                },
            };
        };
        let Some(channel) = self.channels.at_mut(slot) else {
            return AnswerKind::Overloaded;
        };
        channel.expire(now);
        match query.what {
            QueryKind::Presence => AnswerKind::Presence(
                channel
                    .presence
                    .as_ref()
                    .map_or_else(Vec::new, |presence| presence.list()),
            ),
            QueryKind::PresenceStats => {
                let (clients, users) = channel
                    .presence
                    .as_ref()
                    .map_or((0, 0), |presence| presence.stats());
                AnswerKind::PresenceStats { clients, users }
            }
            QueryKind::History {
                limit,
                since,
                reverse,
            } => {
                channel.used = now.at;
                Self::history(channel, limit, since, reverse)
            }
            QueryKind::HistoryRemove => {
                channel.history.clear();
                AnswerKind::Removed
            }
        }
    }

    fn history(
        channel: &Channel,
        limit: u32,
        since: Option<(u64, Option<Option<Epoch>>)>,
        reverse: bool,
    ) -> AnswerKind {
        match recovery::page(&channel.history, channel.position(), limit, since, reverse) {
            Some(page) => AnswerKind::History(page, channel.position()),
            None => AnswerKind::Unrecoverable,
        }
    }

    /// A delivery to `shard` was dropped: it is told where the channel stands as soon as there is room.
    pub fn mark_behind(&mut self, name: &ChannelName, shard: ShardId) {
        let Some(slot) = self.find(channel_hash(name), name) else {
            return;
        };
        if let Some(channel) = self.channels.at_mut(slot)
            && channel.namespace.history_size > 0
        {
            if channel.behind == 0 {
                self.behind.push(slot);
            }
            channel.behind |= 1 << shard.0;
        }
    }

    /// A channel is behind on some shard that was not told.
    #[must_use]
    pub const fn has_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// The channels that are behind on a shard for which there is room: name, position, shards. Each is reported once.
    pub fn take_behind(
        &mut self,
        has_room: impl Fn(ShardId) -> bool,
    ) -> Vec<(ChannelName, StreamPosition, u64)> {
        let mut out = Vec::new();
        for slot in std::mem::take(&mut self.behind) {
            let Some(channel) = self.channels.at_mut(slot) else {
                continue;
            };
            channel.behind &= channel.interest;
            let told = (0..SHARDS_MAX as u16)
                .filter(|&shard| channel.behind >> shard & 1 == 1 && has_room(ShardId(shard)))
                .fold(0, |mask, shard| mask | 1 << shard);
            channel.behind &= !told;
            if told != 0 {
                out.push((channel.name.clone(), channel.position(), told));
            }
            if channel.behind != 0 {
                self.behind.push(slot);
            }
        }
        out
    }

    /// A new configuration: channels whose namespace still exists follow it.
    pub fn reload(&mut self, rules: &ChannelRules) {
        for slot in 0..self.channels.slots() {
            if let Some(channel) = self.channels.at_mut(slot)
                && let Ok(namespace) = rules.resolve(channel.name.as_str())
            {
                channel.namespace = Arc::clone(namespace);
            }
        }
    }

    /// Forgets what is too old, a bounded number of channels at a time.
    pub fn sweep(&mut self, now: Now) {
        let slots = self.channels.slots();
        for _ in 0..SWEEP.min(slots) {
            self.swept = (self.swept + 1) % slots;
            let Some(channel) = self.channels.at_mut(self.swept) else {
                continue;
            };
            channel.expire(now);
            if channel.is_forgettable(now.at) {
                let slot = self.swept;
                let hash = channel_hash(&channel.name);
                if let Ok(entry) = self.by_name.find_entry(hash, |&other| other == slot) {
                    entry.remove();
                }
                self.channels.remove(slot);
                self.slots.give(slot);
            }
        }
    }

    /// All channels, for the simulator's checkers.
    #[must_use]
    pub fn inspect(&self) -> Vec<ChannelOwned> {
        let of = |channel: &Channel| ChannelOwned {
            name: channel.name.clone(),
            position: channel.position(),
            interest: channel.interest,
            presence: channel.presence.as_ref().map_or_else(Vec::new, |presence| {
                presence.list().iter().map(|info| info.client).collect()
            }),
            kept: channel
                .history
                .iter()
                .map(|publication| publication.offset.0)
                .collect(),
        };
        self.channels
            .iter()
            .map(|(_, channel)| of(channel))
            .collect()
    }
}

/// The hash that names a channel's owner and files it, the same on every shard.
#[must_use]
pub fn channel_hash(name: &ChannelName) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The seed is fixed: an owner must not change while one shard restarts. Collisions cost time, not correctness,
    // and names cost the attacker a permission each.
    let mut hasher = foldhash::fast::FixedState::with_seed(0x7269_6e67_6d61_696e).build_hasher();
    hasher.write(name.as_str().as_bytes());
    hasher.finish()
}

/// The shard that owns a channel.
#[must_use]
pub fn owner_of(name: &ChannelName, shards: u16) -> ShardId {
    ShardId(((u128::from(channel_hash(name)) * u128::from(shards)) >> 64) as u16)
}

/// The shard that counts a user's connections.
#[must_use]
pub fn user_registry(user: &str, shards: u16) -> ShardId {
    ShardId(((u128::from(user_hash(user)) * u128::from(shards)) >> 64) as u16)
}

/// The hash that names a user's registry, the same on every shard.
#[must_use]
pub fn user_hash(user: &str) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::fast::FixedState::with_seed(0x7573_6572).build_hasher();
    hasher.write(user.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mesh::message::ReplyTo;
    use crate::time::Instant;

    fn publish(version: u64, delta: bool) -> Publish {
        Publish {
            channel: ChannelName::new("c"),
            reply_to: ReplyTo::Nobody,
            data: Bytes::from_static(b"1"),
            json: true,
            info: None,
            tags: Box::default(),
            skip_history: false,
            delta,
            idempotency_key: Box::default(),
            version,
            version_epoch: Box::default(),
        }
    }

    #[test]
    fn publication_says_whether_its_publisher_allows_a_patch() {
        let mut owner = Owner::new(1);
        for delta in [true, false] {
            let outcome = owner
                .publish(
                    Now::default(),
                    publish(1 + u64::from(!delta), delta),
                    &ChannelRules::default(),
                )
                .unwrap();
            assert_eq!(outcome.deliver.unwrap().0.delta, delta);
        }
    }

    #[test]
    fn version_outlives_the_sweep_in_a_channel_without_history() {
        let rules = ChannelRules::default();
        let mut owner = Owner::new(1);
        let mut now = Now::default();
        assert!(
            owner
                .publish(now, publish(5, false), &rules)
                .unwrap()
                .deliver
                .is_some()
        );
        now.at = Instant::START + std::time::Duration::from_secs(60);
        owner.sweep(now);
        assert!(
            owner
                .publish(now, publish(5, false), &rules)
                .unwrap()
                .deliver
                .is_none()
        );
        assert!(
            owner
                .publish(now, publish(6, false), &rules)
                .unwrap()
                .deliver
                .is_some()
        );
    }
}

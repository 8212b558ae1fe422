//! The owner's side of every channel whose name hashes to this shard: offsets, history, presence, interest.

mod image;
mod log;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::channel::Channel;
use super::followed::{PartAsker, Tries};
use super::idempotency::Idempotency;
use super::makers::Maker;
use super::presence::PresencePage;
use super::recovery::{self, KeptHistory};
use super::table::{ChannelTable, NoRecord};
use crate::config::namespace::RecoveryMode;
use crate::config::{ChannelRules, Namespace};
use crate::limits::{IDEMPOTENCY_KEYS_MAX, LOG_PAGE_BYTES, SHARDS_MAX};
use crate::mem::Key;
use crate::mesh::durable::{Read, Span};
use crate::mesh::message::{
    AnswerKind, Interest, InterestFor, Interested, Leave, PublishError, Query, QueryKind,
};
use crate::model::{
    ChannelName, ClientId, ClientInfo, Draft, Epoch, Offset, Publication, ShardId, StreamPosition,
    TenantId, Way,
};
use crate::time::{Instant, Now};

/// Parts of the log are kept for once to twice this long.
const PARTS_KEPT: Duration = Duration::from_secs(5);
/// Channels whose end could not be asked for are asked for again after this.
const UNOPENED_RETRY: Duration = Duration::from_millis(500);
/// Idempotency keys forgotten in one sweep.
const KEYS_SWEEP: usize = 1024;

/// All channels owned by one shard.
pub struct Owner {
    table: ChannelTable,
    keys: Idempotency,
    /// Channels with a shard in `behind`.
    behind: Vec<u32>,
    /// Channels with a bit in `interest`.
    active: u32,
    /// What the log has to be asked.
    reads: Vec<Read>,
    /// Channels where somebody waited who can be answered now.
    woken: VecDeque<u32>,
    /// Channels with parts of the log and the bytes of each, the oldest part first.
    parts: VecDeque<(u32, usize)>,
    /// Bytes of these parts.
    part_bytes: usize,
    /// Channels with subscribers whose end could not be asked for.
    unopened: Vec<u32>,
    /// When they were asked for last.
    unopened_tried: Instant,
    parts_swept: Instant,
    /// Parts that were there at that time.
    parts_old: usize,
    /// What was refused for want of a place.
    refused_full: u64,
    /// What clients were refused because they make too much.
    refused_rate: u64,
}

/// What an owner counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Channels that made room for others.
    pub evicted: u64,
    /// Subscriptions, publications and questions refused because every place was taken by a channel in use.
    pub refused_full: u64,
    /// Publications of clients refused because they made too many channels or keys.
    pub refused_rate: u64,
    /// Idempotency keys.
    pub keys: u64,
    /// Idempotency keys that made room for others.
    pub keys_evicted: u64,
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

/// A channel of which something did not reach shards with subscribers.
#[derive(Debug)]
pub struct Behind {
    /// Its name.
    pub name: ChannelName,
    /// Where it stands.
    pub position: StreamPosition,
    /// Shards that can read again what they lost: bit n for shard n.
    pub behind: u64,
    /// Shards that cannot.
    pub lost: u64,
}

/// What came of a publish.
pub struct Outcome {
    /// Position given, or that of the first publication with the same key.
    pub position: StreamPosition,
    /// `None` when nothing new was published.
    pub deliver: Option<PlacedPublication>,
}

/// A publication in its place.
pub struct PlacedPublication {
    /// Its channel.
    pub channel: ChannelName,
    /// See `Publication`.
    pub publication: Arc<Publication>,
    /// Shards that get it: bit n for shard n.
    pub shards: u64,
}

impl Owner {
    /// Owns nothing yet. What nobody shall foresee follows from `key`.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        Self {
            table: ChannelTable::new(key),
            keys: Idempotency::new(key, IDEMPOTENCY_KEYS_MAX),
            behind: Vec::new(),
            active: 0,
            reads: Vec::new(),
            woken: VecDeque::new(),
            parts: VecDeque::new(),
            part_bytes: 0,
            unopened: Vec::new(),
            unopened_tried: Instant::START,
            parts_swept: Instant::START,
            parts_old: 0,
            refused_full: 0,
            refused_rate: 0,
        }
    }

    /// Channels owned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// No channel is owned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Channels that have a subscriber on any shard.
    #[must_use]
    pub const fn active(&self) -> u32 {
        self.active
    }

    /// Those of one tenant. Looks at all channels.
    #[must_use]
    pub fn active_of(&self, tenant: TenantId<'_>) -> u32 {
        let all = self.table.iter();
        all.filter(|channel| channel.interest != 0 && channel.name.tenant() == tenant)
            .count() as u32
    }

    /// Idempotency keys.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// What it has counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            evicted: self.table.evicted,
            refused_full: self.refused_full,
            refused_rate: self.refused_rate,
            keys: self.keys.len() as u64,
            keys_evicted: self.keys.evicted,
        }
    }

    /// The channel's slot, made if it is new.
    fn open(
        &mut self,
        now: Now,
        name: &ChannelName,
        rules: &ChannelRules,
    ) -> Result<u32, PublishError> {
        let hash = self.table.hash(name);
        match self.table.find(hash, name) {
            Some(slot) => {
                self.table.touch(now.at, slot);
                Ok(slot)
            }
            None => {
                let namespace = resolve(name, rules)?;
                let made = self.table.make(now.at, hash, name, namespace, None, rules);
                made.map_err(|why| self.refuse(why))
            }
        }
    }

    fn refuse(&mut self, why: NoRecord) -> PublishError {
        match why {
            NoRecord::Full => {
                self.refused_full += 1;
                PublishError::Overloaded
            }
            NoRecord::MakerFull => {
                self.refused_rate += 1;
                PublishError::TooManyNew
            }
            NoRecord::TenantRate(wait) => {
                let ms = wait.as_nanos().div_ceil(1_000_000);
                PublishError::TooFast(u32::try_from(ms).unwrap_or(u32::MAX))
            }
            NoRecord::TenantFull => PublishError::TenantFull,
        }
    }

    /// Takes a publication in.
    ///
    /// The namespace is not looked up again. What the draft says of it is what its door knew, and a reload may have come between:
    /// where the channel has a record, the record's namespace counts in its place, which follows each reload (`reload`); where a
    /// record is made, it is made by the rules in force; and without one nobody listens and nothing is kept, as if the publication
    /// had come before the reload.
    ///
    /// # Errors
    /// See `PublishError`.
    pub fn publish(
        &mut self,
        now: Now,
        draft: Box<Draft>,
        rules: &ChannelRules,
    ) -> Result<Outcome, PublishError> {
        let name = &draft.record.channel;
        let hash = self.table.hash(name);
        let known = self.table.find(hash, name);
        let channel = known.map(|slot| self.table.of(slot));
        let terms = channel.map_or(draft.terms, |channel| channel.namespace.terms());
        if terms.way == Way::Log {
            // It was on its way when the namespace was another: the log did not get it.
            return Err(PublishError::Overloaded);
        }
        let keeps = terms.keeps && !draft.skip_history || draft.version > 0;
        // A record that subscribers made outlives them from its first publication on.
        let makes =
            keeps && channel.is_none_or(|channel| channel.is_unwritten() && channel.made.is_none());
        let key = (!draft.record.key.is_empty()).then(|| self.keys.name(name, &draft.record.key));
        if let Some(position) = key.and_then(|key| self.keys.find(now.at, key)) {
            return Ok(Outcome {
                position,
                deliver: None,
            });
        }
        let keeps_data = terms.keeps && !draft.skip_history;
        if keeps_data && !ChannelTable::has_history_left(name.tenant(), rules) {
            return Err(PublishError::TenantFull);
        }
        let maker = if makes || key.is_some() {
            Maker::of(&draft, self.table.makers())
        } else {
            None
        };
        if !self.table.take_rate(now.at, maker, rules) {
            self.refused_rate += 1;
            return Err(PublishError::TooManyNew);
        }
        let slot = match known {
            Some(slot) => {
                if let Some(maker) = maker.filter(|_| makes) {
                    let claimed = self.table.claim(slot, maker, rules);
                    claimed.map_err(|why| self.refuse(why))?;
                }
                self.table.touch(now.at, slot);
                Some(slot)
            }
            None if makes => Some(self.make_for(now, hash, name, maker, rules)?),
            None => None,
        };
        let outcome = match slot {
            Some(slot) => {
                let outcome = self.append(now, slot, draft);
                self.table.settle(now.at, slot);
                outcome
            }
            // Nobody listens, and nothing is kept.
            None => Outcome {
                position: StreamPosition::default(),
                deliver: None,
            },
        };
        if let Some(key) = key {
            let of_client = maker.is_some();
            self.keys
                .remember(now.at, key, outcome.position, terms.key_ttl, of_client);
        }
        Ok(outcome)
    }

    /// The slot of a channel without a record that something is published in which is kept.
    fn make_for(
        &mut self,
        now: Now,
        hash: u64,
        name: &ChannelName,
        maker: Option<Maker>,
        rules: &ChannelRules,
    ) -> Result<u32, PublishError> {
        let namespace = resolve(name, rules)?;
        if namespace.is_durable() {
            return Err(PublishError::Overloaded);
        }
        let made = self.table.make(now.at, hash, name, namespace, maker, rules);
        made.map_err(|why| self.refuse(why))
    }

    /// Gives a publication its place in a channel, unless its version is not newer.
    fn append(&mut self, now: Now, slot: u32, draft: Box<Draft>) -> Outcome {
        let channel = self.table.of_mut(slot);
        channel.expire(now.at);
        let Draft {
            record,
            version,
            version_epoch,
            skip_history,
            ..
        } = *draft;
        if version > 0 {
            if let Some(last) = &channel.version
                && last.1 == version_epoch
                && version <= last.0
            {
                return Outcome {
                    position: channel.position(),
                    deliver: None,
                };
            }
            channel.version = Some(Box::new((version, version_epoch)));
        }
        let publication = Publication {
            offset: Default::default(),
            epoch: Epoch::default(),
            data: record.data,
            json: record.json,
            info: record.publisher,
            tags: record.tags,
            unix_ms: now.unix_ms,
            tells_time: channel.namespace.publication_time,
            patch: None,
            delta: record.delta,
        };
        let publication = channel.append(now.at, publication, skip_history);
        Outcome {
            position: StreamPosition {
                epoch: publication.epoch,
                offset: publication.offset,
            },
            deliver: Some(PlacedPublication {
                channel: record.channel,
                publication,
                shards: channel.interest,
            }),
        }
    }

    /// Takes a subscriber of `from` in: interest, presence, what it missed. `None` if the log has to be asked first: it is
    /// then among those of `take_woken` later.
    pub fn interest(
        &mut self,
        now: Now,
        (from, asker): (ShardId, InterestFor),
        interest: Box<Interest>,
        tries: Tries,
        rules: &ChannelRules,
    ) -> Option<Interested> {
        let mut answer = Interested {
            channel: interest.channel.clone(),
            hub: interest.hub,
            position: StreamPosition::default(),
            missed: Vec::new(),
            recovered: false,
            after: interest.recover.map_or(0, |recover| recover.offset),
            refused: None,
            more: false,
            joined: None,
        };
        if tries == Tries::Gone {
            answer.refused = Some(PublishError::Overloaded);
            return Some(answer);
        }
        let slot = match self.open(now, &interest.channel, rules) {
            Ok(slot) => slot,
            Err(why) => {
                answer.refused = Some(why);
                return Some(answer);
            }
        };
        let channel = self.table.of_mut(slot);
        channel.expire(now.at);
        let cache = channel.namespace.force_recovery_mode == RecoveryMode::Cache;
        let recover = interest.recover.map(|mut recover| {
            recover.cache |= cache;
            recover
        });
        if channel.namespace.is_durable() {
            match log::durable_missed(channel, recover.as_ref(), tries) {
                Ok((missed, recovered, more)) => {
                    (answer.missed, answer.recovered, answer.more) = (missed, recovered, more);
                }
                Err(read) => {
                    let asker = PartAsker::Interest(from, asker, interest);
                    self.park(now, slot, (asker, tries), read);
                    return None;
                }
            }
            answer.position = channel.position();
        } else {
            answer.position = channel.position();
            if let Some(recover) = recover {
                (answer.missed, answer.recovered) =
                    recovery::recover(&channel.history, answer.position, &recover);
                answer.more = recovery::cut(&mut answer.missed, LOG_PAGE_BYTES as usize);
            }
        }
        if interest.delta {
            channel.patched |= 1 << from.0;
        }
        if let Some(info) = &interest.presence
            && interest.keep
        {
            channel
                .presence
                .get_or_insert_default()
                .insert(Arc::clone(info));
        }
        self.active += u32::from(self.table.occupy(slot, from));
        Some(answer)
    }

    /// Shards that want to know of a join or leave.
    #[must_use]
    pub fn interest_of(&self, name: &ChannelName) -> u64 {
        self.table
            .find(self.table.hash(name), name)
            .map_or(0, |slot| self.table.of(slot).interest)
    }

    /// Takes a subscriber of `from` out. Returns who is told of it, and which shards get it.
    pub fn leave(
        &mut self,
        now: Now,
        from: ShardId,
        leave: Leave,
    ) -> Option<(Arc<ClientInfo>, u64)> {
        let (slot, channel) = self.table.find_mut(&leave.channel)?;
        if let Some(followed) = &mut channel.followed {
            followed.disown(from, &leave);
        }
        if let (Some(info), Some(presence)) = (&leave.info, &mut channel.presence)
            && presence.remove(info.client)
            && presence.is_empty()
        {
            channel.presence = None;
        }
        if leave.last && self.table.vacate(slot, from) {
            self.active -= 1;
            self.table.touch(now.at, slot);
        }
        let interest = self.table.of(slot).interest;
        if interest == 0 {
            self.table.settle(now.at, slot);
        }
        let info = leave.info?;
        leave.leave.then_some((info, interest))
    }

    /// Answers a question about a channel. A question leaves nothing behind.
    pub fn query(&mut self, now: Now, query: &Query, rules: &ChannelRules) -> AnswerKind {
        let hash = self.table.hash(&query.channel);
        let known = self.table.find(hash, &query.channel);
        if let Some(slot) = known {
            self.table.touch(now.at, slot);
        }
        let Some(channel) = known.map(|slot| self.table.of_mut(slot)) else {
            return self.query_unknown(hash, query, rules);
        };
        channel.expire(now.at);
        let presence = channel.presence.as_ref();
        match query.what {
            QueryKind::Presence { limit, after } => {
                let page = presence.map_or(Some(PresencePage::default()), |presence| {
                    presence.page(limit, after)
                });
                page.map_or(AnswerKind::PresenceTooLarge, |(list, next)| {
                    AnswerKind::Presence(list, next)
                })
            }
            QueryKind::PresenceStats => {
                let (clients, users) = presence.map_or((0, 0), |presence| presence.stats());
                AnswerKind::PresenceStats { clients, users }
            }
            QueryKind::HistoryRemove => {
                if channel.namespace.is_durable() {
                    channel.trimmed();
                } else {
                    channel.history.clear();
                    channel.count_history();
                }
                AnswerKind::Removed
            }
            QueryKind::History { .. } => history(&channel.history, channel.position(), query.what),
        }
    }

    /// Answers a question about a channel that nothing is kept of.
    fn query_unknown(&self, hash: u64, query: &Query, rules: &ChannelRules) -> AnswerKind {
        match query.what {
            QueryKind::Presence { .. } => AnswerKind::Presence(Vec::new(), None),
            QueryKind::PresenceStats => AnswerKind::PresenceStats {
                clients: 0,
                users: 0,
            },
            QueryKind::HistoryRemove => AnswerKind::Removed,
            QueryKind::History { .. } if rules.resolve_of(&query.channel).is_err() => {
                AnswerKind::Overloaded
            }
            QueryKind::History { .. } => {
                let position = StreamPosition {
                    epoch: self.table.epoch(hash, &query.channel),
                    offset: Offset(0),
                };
                history(&KeptHistory::default(), position, query.what)
            }
        }
    }

    /// A delivery to `shard` was dropped: it is told where the channel stands as soon as there is room.
    pub fn mark_behind(&mut self, name: &ChannelName, shard: ShardId) {
        if let Some((slot, channel)) = self.table.find_mut(name) {
            if !channel.is_behind() {
                self.behind.push(slot);
            }
            if channel.namespace.history_size > 0 {
                channel.behind |= 1 << shard.0;
            } else {
                channel.lost |= 1 << shard.0;
            }
        }
    }

    /// Something of a channel that is not kept was dropped on its way to `shard`.
    pub fn mark_lost(&mut self, name: &ChannelName, shard: ShardId) {
        if let Some((slot, channel)) = self.table.find_mut(name) {
            if !channel.is_behind() {
                self.behind.push(slot);
            }
            channel.lost |= 1 << shard.0;
        }
    }

    /// A channel is behind on some shard that was not told.
    #[must_use]
    pub const fn has_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// The channels that are behind on a shard for which there is room. Each is reported once.
    pub fn take_behind(&mut self, has_room: impl Fn(ShardId) -> bool) -> Vec<Behind> {
        let mut out = Vec::new();
        let mut slots = std::mem::take(&mut self.behind);
        // The place of a channel that was forgotten may be here for that one and for the next.
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            let Some(channel) = self.table.at_mut(slot) else {
                // It was forgotten: nobody is left who could be behind.
                continue;
            };
            channel.behind &= channel.interest;
            channel.lost &= channel.interest;
            let all = channel.behind | channel.lost;
            let told = (0..SHARDS_MAX as u16)
                .filter(|&shard| all >> shard & 1 == 1 && has_room(ShardId(shard)))
                .fold(0, |mask, shard| mask | 1 << shard);
            if told != 0 {
                out.push(Behind {
                    name: channel.name.clone(),
                    position: channel.position(),
                    behind: channel.behind & told,
                    lost: channel.lost & told,
                });
            }
            channel.behind &= !told;
            channel.lost &= !told;
            if channel.is_behind() {
                self.behind.push(slot);
            }
        }
        out
    }

    /// A new configuration: channels whose namespace still exists follow it.
    pub fn reload(&mut self, rules: &ChannelRules) {
        for slot in 0..self.table.slots() {
            if let Some(channel) = self.table.at_mut(slot)
                && let Ok(namespace) = rules.resolve_of(&channel.name)
            {
                channel.namespace = Arc::clone(namespace);
            }
        }
        self.table.refile();
    }

    /// When `sweep` wants to be called.
    #[must_use]
    pub fn next_sweep(&self) -> Option<Instant> {
        /// Keys are no concern of anybody once they have ended: they are looked for together.
        const KEYS_LATER: Duration = Duration::from_secs(1);
        let parts = (!self.parts.is_empty()).then(|| self.parts_swept + PARTS_KEPT);
        let unopened = (!self.unopened.is_empty()).then(|| self.unopened_tried + UNOPENED_RETRY);
        let keys = self.keys.next().map(|end| end + KEYS_LATER);
        let all = [self.table.next(), parts, unopened, keys];
        all.into_iter().flatten().min()
    }

    /// Forgets what has ended, a bounded part of it at a time.
    pub fn sweep(&mut self, now: Now) {
        if now.at.since(self.unopened_tried) >= UNOPENED_RETRY {
            self.unopened_tried = now.at;
            for slot in std::mem::take(&mut self.unopened) {
                if let Some(channel) = self.table.at_mut(slot)
                    && channel.namespace.is_durable()
                    && channel.interest != 0
                {
                    self.reads.extend(channel.open_read());
                }
            }
        }
        // Parts of the log serve those who come back together; nobody else does for long.
        if now.at.since(self.parts_swept) >= PARTS_KEPT {
            self.parts_swept = now.at;
            for _ in 0..std::mem::take(&mut self.parts_old) {
                self.drop_part();
            }
            self.parts_old = self.parts.len();
        }
        self.keys.sweep(now.at, KEYS_SWEEP);
        self.table.sweep(now.at);
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
        self.table.iter().map(of).collect()
    }
}

/// The namespace of a channel that a record is made of, by the rules in force.
fn resolve<'r>(
    name: &ChannelName,
    rules: &'r ChannelRules,
) -> Result<&'r Arc<Namespace>, PublishError> {
    rules
        .resolve_of(name)
        .map_err(|_gone| PublishError::UnknownChannel)
}

/// The page of history that is asked for; the position alone where something else is.
fn history(kept: &KeptHistory, position: StreamPosition, what: QueryKind) -> AnswerKind {
    let (limit, since, reverse) = match what {
        QueryKind::History {
            limit,
            since,
            reverse,
        } => (limit, since, reverse),
        QueryKind::Presence { .. } | QueryKind::PresenceStats | QueryKind::HistoryRemove => {
            (0, None, false)
        }
    };
    match recovery::page(kept, position, limit, since, reverse) {
        Some(page) => {
            let offset = |one: Option<&Arc<Publication>>| one.map(|one| one.offset.0);
            let (top, from) = (position.offset.0, offset(page.first()));
            let span = Span {
                from: from.unwrap_or(top + 1),
                to: offset(page.last()).unwrap_or(top),
            };
            AnswerKind::History(page, position, span)
        }
        None => AnswerKind::Unrecoverable,
    }
}

/// The hash that names a channel's owner, the same on every shard and in every process. Names that share it can be made up:
/// it files nothing.
fn channel_hash(name: &ChannelName) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::fast::FixedState::with_seed(0x7269_6e67_6d61_696e).build_hasher();
    hasher.write(name.whole().as_bytes());
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

/// The hash that names a user's registry, the same on every shard. It files nothing.
#[must_use]
pub fn user_hash(user: &str) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::fast::FixedState::with_seed(0x7573_6572).build_hasher();
    hasher.write(user.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests;

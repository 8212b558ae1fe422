//! The owner's side of every channel whose name hashes to this shard: offsets, history, presence, interest.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashTable;

use super::channel::Channel;
use super::durable::{Asker, Found, STALE, Stored, TRIES_MAX};
use super::recovery;
use crate::config::ChannelRules;
use crate::config::namespace::RecoveryMode;
use crate::limits::{CHANNELS_OWNED_MAX, LOG_PAGE_BYTES, LOG_PAGES_BYTES_MAX, SHARDS_MAX};
use crate::mem::{Rng, Slab, SlotPool};
use crate::mesh::durable::{Page, Read};
use crate::mesh::message::{
    AnswerKind, Interest, Interested, Leave, Publish, PublishError, Query, QueryKind, Recover,
};
use crate::model::{
    ChannelName, ClientId, ClientInfo, Epoch, Publication, ShardId, StreamPosition,
};
use crate::time::{Instant, Now};

/// Parts of the log are kept for once to twice this long.
const PARTS_KEPT: std::time::Duration = std::time::Duration::from_secs(5);
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
    /// What the log has to be asked.
    reads: Vec<Read>,
    /// Channels where somebody waited who can be answered now.
    woken: VecDeque<u32>,
    /// Channels with parts of the log, the oldest part first.
    parts: VecDeque<u32>,
    /// Bytes of these parts.
    part_bytes: usize,
    /// Channels with subscribers whose end could not be asked for: again at the next sweep.
    unopened: Vec<u32>,
    parts_swept: Instant,
    /// Parts that were there at that time.
    parts_old: usize,
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
            reads: Vec::new(),
            woken: VecDeque::new(),
            parts: VecDeque::new(),
            part_bytes: 0,
            unopened: Vec::new(),
            parts_swept: Instant::START,
            parts_old: 0,
        }
    }

    /// Epochs come from this seed from now on: nobody is told anything else that follows from it.
    pub fn reseed(&mut self, seed: u64) {
        self.rng = Rng::new(seed);
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
        if channel.namespace.is_durable() {
            // It was on its way when the namespace was another: the log did not get it.
            return Err(PublishError::Overloaded);
        }
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

    /// Takes a subscriber of `from` in: interest, presence, what it missed. `None` if the log has to be asked first: it is
    /// then among those of `take_woken` later.
    pub fn interest(
        &mut self,
        now: Now,
        from: ShardId,
        interest: Box<Interest>,
        tries: u8,
        rules: &ChannelRules,
    ) -> Option<Interested> {
        let mut answer = Interested {
            channel: interest.channel.clone(),
            hub: interest.hub,
            reply_to: interest.reply_to,
            position: StreamPosition::default(),
            missed: Vec::new(),
            recovered: false,
            after: interest.recover.map_or(0, |recover| recover.offset),
            overloaded: false,
            more: false,
            joined: None,
        };
        if tries == STALE {
            answer.overloaded = true;
            return Some(answer);
        }
        let hash = channel_hash(&interest.channel);
        let Ok(channel) = self.open(now, hash, &interest.channel, rules) else {
            answer.overloaded = true;
            return Some(answer);
        };
        channel.expire(now);
        let cache = channel.namespace.force_recovery_mode == RecoveryMode::Cache;
        let recover = interest.recover.map(|mut recover| {
            recover.cache |= cache;
            recover
        });
        if channel.namespace.is_durable() {
            match durable_missed(channel, recover.as_ref(), tries) {
                Ok((missed, recovered, more)) => {
                    (answer.missed, answer.recovered, answer.more) = (missed, recovered, more);
                }
                Err(read) => {
                    let asker = Asker::Interest(from, interest);
                    channel
                        .durable_mut()
                        .parked
                        .push((asker, tries.saturating_add(1).min(TRIES_MAX)));
                    self.reads.extend(read);
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
        let is_first = channel.interest == 0;
        channel.interest |= 1 << from.0;
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
        self.active += u32::from(is_first);
        Some(answer)
    }

    /// A question about a durable channel that may have to ask the log. `None`: the asker is among those of `take_woken` later.
    pub fn query_durable(
        &mut self,
        now: Now,
        query: Box<Query>,
        asker: impl FnOnce(Box<Query>) -> Asker,
        tries: u8,
        rules: &ChannelRules,
    ) -> Option<AnswerKind> {
        let QueryKind::History { limit, .. } = query.what else {
            return Some(self.query(now, &query, rules));
        };
        let hash = channel_hash(&query.channel);
        let Ok(channel) = self.open(now, hash, &query.channel, rules) else {
            return Some(AnswerKind::Overloaded);
        };
        channel.expire(now);
        let read = if !channel.is_open() {
            channel.open_read()
        } else if limit == 0 {
            return Some(AnswerKind::History(Vec::new(), channel.position()));
        } else {
            match channel.page(query.what, tries) {
                Found::Some { publications, .. } => {
                    return Some(AnswerKind::History(publications, channel.position()));
                }
                Found::Gone => return Some(AnswerKind::Unrecoverable),
                Found::Read(after) => channel.part_read(after),
            }
        };
        let asker = asker(query);
        channel
            .durable_mut()
            .parked
            .push((asker, tries.saturating_add(1).min(TRIES_MAX)));
        self.reads.extend(read);
        None
    }

    /// What the log is to be asked, once each.
    pub fn take_reads(&mut self) -> Vec<Read> {
        std::mem::take(&mut self.reads)
    }

    /// Somebody waits whose answer can be given, or whose question has to be asked anew.
    #[must_use]
    pub fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Channels with subscribers whose end has to be asked for again.
    #[must_use]
    pub const fn unopened(&self) -> usize {
        self.unopened.len()
    }

    /// One of those who waited, and how often it has.
    pub fn take_woken(&mut self) -> Option<(Asker, u8)> {
        loop {
            let slot = *self.woken.front()?;
            let durable = self
                .channels
                .at_mut(slot)
                .and_then(|channel| channel.durable.as_mut());
            if let Some(asker) = durable.and_then(|durable| durable.woken.pop_front()) {
                return Some(asker);
            }
            self.woken.pop_front();
        }
    }

    /// A publication out of the log, for a channel that this shard owns: what goes to whom.
    pub fn stored(
        &mut self,
        name: &ChannelName,
        publication: Arc<Publication>,
    ) -> Option<(Arc<Publication>, u64)> {
        let slot = self.find(channel_hash(name), name)?;
        let channel = self.channels.at_mut(slot)?;
        if !channel.namespace.is_durable() {
            return None;
        }
        let was_open = channel.is_open();
        match channel.stored(publication) {
            Stored::Next(publication) => Some((publication, channel.interest)),
            Stored::Nothing => {
                if was_open && !channel.is_open() {
                    self.reads.extend(channel.open_read());
                }
                None
            }
        }
    }

    /// The log's side lost its place: what is in use is asked for anew, the rest is forgotten.
    pub fn restarted(&mut self) {
        for slot in 0..self.channels.slots() {
            if let Some(channel) = self.channels.at_mut(slot)
                && channel.namespace.is_durable()
            {
                channel.reopen();
                if channel.interest != 0 {
                    self.reads.extend(channel.open_read());
                }
            }
        }
    }

    /// A part of the log came. What goes to whom because of it.
    pub fn read(&mut self, page: Page) -> Vec<(Arc<Publication>, u64)> {
        let Some(slot) = self.find(channel_hash(&page.channel), &page.channel) else {
            return Vec::new();
        };
        let Some(channel) = self.channels.at_mut(slot) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        if page.after == u64::MAX {
            if channel.asks_again() {
                self.reads.extend(channel.open_read());
                return out;
            }
            let opened = channel.opened(page.position);
            let interest = channel.interest;
            if opened.moved && interest != 0 {
                // Subscribers stand where the channel ended before; what lies between is read by their shards.
                if !channel.is_behind() {
                    self.behind.push(slot);
                }
                channel.behind |= interest;
            }
            out.extend(opened.later.into_iter().map(|later| (later, interest)));
            if !channel.is_open() {
                self.reads.extend(channel.open_read());
            }
        } else {
            let bytes = channel.part_came(page);
            if bytes > 0 {
                self.parts.push_back(slot);
                self.part_bytes += bytes;
            }
        }
        if channel.durable_mut().wake() {
            self.woken.push_back(slot);
        }
        while self.part_bytes > LOG_PAGES_BYTES_MAX && self.parts.len() > 1 {
            self.drop_part();
        }
        out
    }

    fn drop_part(&mut self) {
        if let Some(slot) = self.parts.pop_front()
            && let Some(channel) = self.channels.at_mut(slot)
        {
            self.part_bytes = self.part_bytes.saturating_sub(channel.drop_part());
        }
        if self.parts.is_empty() {
            self.part_bytes = 0;
        }
    }

    /// A part of the log could not be read: whoever waited for the channel gets an error.
    pub fn read_failed(&mut self, name: &ChannelName) -> Vec<Asker> {
        let Some(slot) = self.find(channel_hash(name), name) else {
            return Vec::new();
        };
        let Some(channel) = self.channels.at_mut(slot) else {
            return Vec::new();
        };
        channel.read_failed();
        if !channel.is_open() && channel.interest != 0 {
            self.unopened.push(slot);
        }
        let parked = std::mem::take(&mut channel.durable_mut().parked);
        parked.into_iter().map(|(asker, _)| asker).collect()
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
        if let Some(durable) = &mut channel.durable {
            durable.disown(from, &leave);
        }
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
                if channel.namespace.is_durable() {
                    channel.trimmed();
                } else {
                    channel.history.clear();
                }
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
        if let Some(channel) = self.channels.at_mut(slot) {
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
        let Some(slot) = self.find(channel_hash(name), name) else {
            return;
        };
        if let Some(channel) = self.channels.at_mut(slot) {
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
        for slot in std::mem::take(&mut self.behind) {
            let Some(channel) = self.channels.at_mut(slot) else {
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
        for slot in std::mem::take(&mut self.unopened) {
            if let Some(channel) = self.channels.at_mut(slot)
                && channel.namespace.is_durable()
            {
                self.reads.extend(channel.open_read());
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

/// What a subscriber of a durable channel missed, whether that is what it asked for, and whether more follows. `Err` if the
/// log has to be asked (what for, unless that is under way).
#[allow(clippy::type_complexity, reason = "named where it is used")]
fn durable_missed(
    channel: &mut Channel,
    recover: Option<&Recover>,
    tries: u8,
) -> Result<(Vec<Arc<Publication>>, bool, bool), Option<Read>> {
    if !channel.is_open() {
        return Err(channel.open_read());
    }
    let Some(recover) = recover else {
        return Ok((Vec::new(), false, false));
    };
    let found = if recover.cache {
        channel.latest(recover)
    } else {
        channel.missed(recover)
    };
    match found {
        Found::Some { publications, more } => Ok((publications, true, more)),
        Found::Gone => Ok((Vec::new(), false, false)),
        Found::Read(_) if tries >= TRIES_MAX => Ok((Vec::new(), false, false)),
        Found::Read(after) => Err(channel.part_read(after)),
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

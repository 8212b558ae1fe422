//! The channels that a shard owns: found by name, in the order of their last use where nobody subscribes to them, by when
//! something of them ends, and by the clients that made them.
//!
//! What nobody uses is forgotten: at once where nothing was published, else when it ends. A full table forgets the channel
//! without subscribers that was used longest ago.

mod image;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;

use super::channel::{Channel, ChannelShare};
use super::epochs::Epochs;
use super::list::List;
use super::makers::{Maker, MakerFull, Makers, first_that_may_go};
use crate::config::{ChannelRules, Namespace};
use crate::limits::CHANNELS_OWNED_MAX;
use crate::mem::{Key, Pace, QuotaLimit, SecretHash, Slab, SlotPool};
use crate::model::{ChannelName, Epoch, Offset, ShardId, TenantId};
use crate::time::Instant;

/// Channels looked at in one sweep.
const SWEEP: usize = 1024;
/// Publications forgotten in one sweep.
const SWEEP_PUBLICATIONS: usize = 8192;
/// Whatever was due and could not go is looked at again after this, seconds.
const AGAIN_S: u32 = 1;

/// See the module.
pub(super) struct ChannelTable {
    channels: Slab<Channel>,
    slots: SlotPool,
    by_name: HashTable<u32>,
    names: SecretHash,
    epochs: Epochs,
    /// Channels without a subscriber, the one that was used longest ago first.
    idle: List<Channel>,
    makers: Makers,
    /// When channels are looked at, in seconds since the start of the process.
    due: BTreeSet<(u32, u32)>,
    /// Slots below have not been filed since the rules changed.
    refile: u32,
    /// Channels that made room for others.
    pub(super) evicted: u64,
}

/// Why nothing of a channel is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRecord {
    /// Every place is taken by a channel that is in use.
    Full,
    /// Its maker has as much as it may have, and nothing of that may go now.
    MakerFull,
    /// Its tenant has made many of late: how long until it may make another.
    TenantRate(Duration),
    /// Its tenant has as many as it may have.
    TenantFull,
}

impl ChannelTable {
    pub(super) fn new(key: &Key) -> Self {
        Self {
            channels: Slab::default(),
            slots: SlotPool::new(CHANNELS_OWNED_MAX as u32),
            by_name: HashTable::new(),
            names: SecretHash::new(&key.derive("names of channels")),
            epochs: Epochs::new(&key.derive("epochs")),
            idle: List::new(|channel| Some(&mut channel.idle)),
            makers: Makers::new(key),
            due: BTreeSet::new(),
            refile: 0,
            evicted: 0,
        }
    }

    /// May this tenant keep something more in a history? It is counted where it may not.
    pub(super) fn has_history_left(tenant: TenantId<'_>, rules: &ChannelRules) -> bool {
        let Some((limits, quota)) = rules.limits_of(tenant) else {
            return true;
        };
        let most = limits.history_bytes_max;
        let is_left = most == 0 || quota.history_bytes.get() < most;
        if !is_left {
            quota.refuse(QuotaLimit::HistoryBytes);
        }
        is_left
    }

    /// A place for one more channel of a tenant; `None` where nobody counts.
    fn take_share(
        now: Instant,
        tenant: TenantId<'_>,
        rules: &ChannelRules,
    ) -> Result<Option<Box<ChannelShare>>, NoRecord> {
        let Some((limits, quota)) = rules.limits_of(tenant) else {
            return Ok(None);
        };
        let most = match limits.channels_max {
            0 => u64::MAX,
            most => u64::from(most),
        };
        if !quota.channels.take(most) {
            quota.refuse(QuotaLimit::Channels);
            return Err(NoRecord::TenantFull);
        }
        let share = ChannelShare::new(quota);
        if let Some(pace) = Pace::configured(limits.channel_rate, limits.channel_burst)
            && let Err(wait) = quota.new_channels.take(now, 1, pace)
        {
            quota.refuse(QuotaLimit::ChannelRate);
            return Err(NoRecord::TenantRate(wait));
        }
        Ok(Some(share))
    }

    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }

    pub(super) fn slots(&self) -> u32 {
        self.channels.slots()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.channels.iter().map(|(_, channel)| channel)
    }

    /// A channel that was found or made just now.
    pub(super) fn of(&self, slot: u32) -> &Channel {
        self.channels.of(slot)
    }

    /// The same, to change it.
    pub(super) fn of_mut(&mut self, slot: u32) -> &mut Channel {
        self.channels.of_mut(slot)
    }

    /// The channel in a slot that may be another one by now, or empty.
    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut Channel> {
        self.channels.at_mut(slot)
    }

    pub(super) const fn makers(&self) -> &Makers {
        &self.makers
    }

    /// What the table files a name under.
    pub(super) fn hash(&self, name: &ChannelName) -> u64 {
        self.names.of(name.whole().as_bytes())
    }

    pub(super) fn find(&self, hash: u64, name: &ChannelName) -> Option<u32> {
        self.by_name
            .find(hash, |&slot| self.channels.of(slot).name == *name)
            .copied()
    }

    pub(super) fn find_mut(&mut self, name: &ChannelName) -> Option<(u32, &mut Channel)> {
        let slot = self.find(self.hash(name), name)?;
        Some((slot, self.channels.of_mut(slot)))
    }

    /// The epoch of a channel that there is no record of.
    pub(super) fn epoch(&self, hash: u64, name: &ChannelName) -> Epoch {
        self.epochs.of(hash, name)
    }

    /// May this client make something that is kept?
    pub(super) fn take_rate(
        &mut self,
        now: Instant,
        maker: Option<Maker>,
        rules: &ChannelRules,
    ) -> bool {
        maker.is_none_or(|maker| self.makers.take(now, maker, rules))
    }

    /// Makes the record of a channel that has none. Where there is no room, another one goes: of the client's own if it has
    /// too many, else the one without subscribers that was used longest ago.
    pub(super) fn make(
        &mut self,
        now: Instant,
        hash: u64,
        name: &ChannelName,
        namespace: &Arc<Namespace>,
        maker: Option<Maker>,
        rules: &ChannelRules,
    ) -> Result<u32, NoRecord> {
        if let Some(maker) = maker {
            self.make_room(maker, rules)?;
        }
        // A limit that became lower is reached step by step.
        for _ in 0..2 {
            if self.len() < rules.owned_limit as usize {
                break;
            }
            let first = first_that_may_go(&mut self.idle, &mut self.channels);
            self.evict(first.ok_or(NoRecord::Full)?);
        }
        let share = Self::take_share(now, name.tenant(), rules)?;
        let slot = self.slots.take().ok_or(NoRecord::Full)?;
        let epoch = self.epochs.of(hash, name);
        let mut channel = Channel::new(name.clone(), Arc::clone(namespace), epoch, now);
        channel.made = maker.map(Maker::made);
        channel.share = share;
        self.channels.insert_at(slot, channel);
        let (channels, names) = (&self.channels, &self.names);
        let rehash = |&slot: &u32| rehash(channels, names, slot);
        self.by_name.insert_unique(hash, slot, rehash);
        self.idle.push(&mut self.channels, slot);
        self.makers.add(&mut self.channels, slot);
        Ok(slot)
    }

    /// A client is the first to have something kept in a channel that has a record because of its subscribers: it counts among
    /// those that the client made, which it will be when they have gone.
    pub(super) fn claim(
        &mut self,
        slot: u32,
        maker: Maker,
        rules: &ChannelRules,
    ) -> Result<(), NoRecord> {
        self.make_room(maker, rules)?;
        let channel = self.channels.of_mut(slot);
        assert!(channel.made.is_none(), "a channel is made once");
        channel.made = Some(maker.made());
        if channel.interest == 0 {
            self.makers.add(&mut self.channels, slot);
        }
        Ok(())
    }

    /// A client that has reached its limits loses its oldest. Subscribers that left may have put it above them, and a reload
    /// may have lowered them: that is made good step by step.
    fn make_room(&mut self, maker: Maker, rules: &ChannelRules) -> Result<(), NoRecord> {
        for _ in 0..2 {
            let own = self.makers.over_limit(&mut self.channels, maker, rules);
            match own.map_err(|MakerFull| NoRecord::MakerFull)? {
                Some(slot) => self.evict(slot),
                None => break,
            }
        }
        Ok(())
    }

    fn evict(&mut self, slot: u32) {
        self.forget(slot);
        self.evicted += 1;
    }

    fn forget(&mut self, slot: u32) {
        self.makers.remove(&mut self.channels, slot);
        self.idle.remove(&mut self.channels, slot);
        let Some(channel) = self.channels.remove(slot) else {
            unreachable!("a channel is forgotten once");
        };
        assert!(channel.interest == 0, "a channel in use was forgotten");
        let hash = self.hash(&channel.name);
        match self.by_name.find_entry(hash, |&other| other == slot) {
            Ok(entry) => {
                entry.remove();
            }
            Err(_absent) => unreachable!("a channel is found by its name"),
        }
        if channel.filed != 0 {
            self.due.remove(&(channel.filed, slot));
        }
        if channel.top != Offset(0) {
            self.epochs.end(hash);
        }
        self.slots.give(slot);
    }

    /// Somebody reads it or writes to it.
    pub(super) fn touch(&mut self, now: Instant, slot: u32) {
        let channel = self.channels.of_mut(slot);
        channel.used = now;
        if channel.interest == 0 {
            self.idle.touch(&mut self.channels, slot);
        }
    }

    /// A shard has a subscriber. `true` if it is the first that has.
    pub(super) fn occupy(&mut self, slot: u32, from: ShardId) -> bool {
        let is_first = self.channels.of(slot).interest == 0;
        if is_first {
            self.makers.remove(&mut self.channels, slot);
            self.idle.remove(&mut self.channels, slot);
        }
        self.channels.of_mut(slot).interest |= 1 << from.0;
        is_first
    }

    /// A shard has no subscriber any more. `true` if no shard has one now.
    pub(super) fn vacate(&mut self, slot: u32, from: ShardId) -> bool {
        let channel = self.channels.of_mut(slot);
        if channel.interest == 0 {
            return false;
        }
        channel.interest &= !(1 << from.0);
        channel.patched &= channel.interest;
        let is_last = channel.interest == 0;
        if is_last {
            self.idle.push(&mut self.channels, slot);
            self.makers.add(&mut self.channels, slot);
        }
        is_last
    }

    /// After a change: what nobody needs is forgotten, the rest is looked at again when something of it ends.
    pub(super) fn settle(&mut self, now: Instant, slot: u32) {
        self.channels.of_mut(slot).count_history();
        if self.channels.of(slot).is_forgettable(now) {
            self.forget(slot);
        } else {
            self.file(slot);
        }
    }

    /// Files when something of a channel ends, if anything does.
    fn file(&mut self, slot: u32) {
        let channel = self.channels.of_mut(slot);
        let Some(ends) = channel.ends_at() else {
            return;
        };
        let due = ends.secs().saturating_add(1);
        if channel.filed == 0 || due < channel.filed {
            let before = std::mem::replace(&mut channel.filed, due);
            if before != 0 {
                self.due.remove(&(before, slot));
            }
            self.due.insert((due, slot));
        }
    }

    /// The rules have changed, and with them when something ends.
    pub(super) fn refile(&mut self) {
        self.refile = self.channels.slots();
    }

    /// When there is something to sweep.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.refile > 0 {
            return Some(Instant::START);
        }
        let (due, _) = self.due.first()?;
        Some(Instant::START + Duration::from_secs(u64::from(*due)))
    }

    /// Forgets what has ended, a bounded number of channels and of publications at a time.
    pub(super) fn sweep(&mut self, now: Instant) {
        let mut left = SWEEP_PUBLICATIONS;
        for _ in 0..SWEEP {
            match self.due.first() {
                Some(&(due, slot)) if due <= now.secs() && left > 0 => {
                    left = self.look(now, slot, left);
                }
                Some(_) | None => break,
            }
        }
        let refiled = self.refile.saturating_sub(SWEEP as u32);
        for slot in refiled..std::mem::replace(&mut self.refile, refiled) {
            if self.channels.at(slot).is_some() {
                self.file(slot);
            }
        }
        self.makers.rest(now);
        if self.by_name.capacity() > 4 * SWEEP && self.by_name.len() < self.by_name.capacity() / 8 {
            let (channels, names) = (&self.channels, &self.names);
            let rehash = |&slot: &u32| rehash(channels, names, slot);
            self.by_name.shrink_to(self.by_name.len() * 2, rehash);
        }
    }

    /// Something of a channel is due: so many publications at most are forgotten. Returns how many more it might have been; 0 where
    /// the channel stays due.
    fn look(&mut self, now: Instant, slot: u32, most: usize) -> usize {
        let channel = self.channels.of_mut(slot);
        let left = channel.expire_some(now, most);
        if left == 0 {
            return 0;
        }
        let filed = self.due.pop_first();
        debug_assert_eq!(
            filed,
            Some((channel.filed, slot)),
            "a channel is filed once"
        );
        channel.filed = 0;
        self.settle(now, slot);
        let Some(channel) = self.channels.at_mut(slot) else {
            // It was forgotten.
            return left;
        };
        let again = now.secs() + AGAIN_S;
        if channel.filed != 0 && channel.filed < again {
            self.due.remove(&(channel.filed, slot));
            channel.filed = again;
            self.due.insert((again, slot));
        }
        left
    }
}

fn rehash(channels: &Slab<Channel>, names: &SecretHash, slot: u32) -> u64 {
    names.of(channels.of(slot).name.whole().as_bytes())
}

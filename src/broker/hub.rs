//! Who listens on this shard.

mod image;

use std::sync::Arc;

use hashbrown::{HashMap, HashTable};
use smallvec::SmallVec;

use super::filter::Filter;
use crate::config::Namespace;
use crate::limits::{CHANNELS_OWNED_MAX, CLASSES_PER_CHANNEL_MAX};
use crate::mem::{Key, Place, SecretHash, Slab, SlotPool};
use crate::model::{ChannelName, Encoding, Format, HubId, Publication, Speaker, StreamPosition};

/// One entry of a channel's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Slot of the connection.
    pub conn: u32,
    /// Index of its class.
    pub class: u16,
    /// Gets join and leave pushes.
    pub join_leave: bool,
}

/// Joins and leaves of one second, where not all of them are told one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The second is filed.
    pub is_filed: bool,
    /// Told one by one.
    pub told: u32,
    /// Joins that were not.
    pub joined: u32,
    /// Leaves that were not.
    pub left: u32,
}

/// Subscribers that get the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// How their messages are written.
    pub format: Format,
    /// Which publications they get.
    pub filter: Option<Arc<Filter>>,
    /// How they get payloads.
    pub delta: Delta,
    /// How many there are; the place of a class without any is given again.
    pub count: u32,
}

/// How subscribers get payloads (`spec/centrifuge.md` §4.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delta {
    /// Delta is not agreed.
    #[default]
    Off,
    /// Delta is agreed, but nothing tells that no publication is lost on the way: each is told whole.
    Whole,
    /// The next publication is told whole, those behind it may be patches.
    Fresh,
    /// The client has the publication at the channel's position: the next may be a patch of it.
    Based,
}

impl Class {
    fn is_alike(&self, other: &Self) -> bool {
        self.count > 0
            && self.format == other.format
            && self.delta == other.delta
            && self.filter == other.filter
    }
}

/// A channel with at least one local subscriber, pending ones included.
#[derive(Debug)]
pub struct HubChannel {
    /// Its name.
    pub name: ChannelName,
    /// Its rules.
    pub namespace: Arc<Namespace>,
    /// Everybody who gets its publications.
    pub subscribers: Vec<Subscriber>,
    /// What they differ in.
    pub classes: SmallVec<[Class; 1]>,
    /// Subscribers that wait for the owner's answer. They are in no list yet.
    pub pending: u32,
    /// The owner knows of this shard's interest: a subscriber that asks for nothing else need not wait.
    pub confirmed: bool,
    /// Where the local subscribers stand. Meaningless while there is none.
    pub position: StreamPosition,
    /// Publications that no subscriber has been given yet: of this turn, or that wait for others.
    pub run: Vec<Arc<Publication>>,
    /// Bytes of the fan-out ring that `run` will take, about.
    pub run_bytes: usize,
    /// Publications before those of `run` that a later one of it has replaced.
    pub run_replaced: usize,
    /// The run is to be given in this turn.
    pub run_is_due: bool,
    /// Where the channel is listed, to be given its run when that has waited.
    pub window: Option<u32>,
    /// Subscribers that get joins and leaves.
    pub observers: u32,
    /// Joins and leaves of this second, if they are counted.
    pub news: News,
    /// Deliveries were lost and are being read again from the owner; later ones come with them.
    pub catching_up: bool,
    /// Number of the last question for lost deliveries: only its answer counts.
    pub round: u32,
    /// Who subscribed first: numbers for its user and its address prefix, 0 where there is none.
    opener: [u32; 2],
}

impl HubChannel {
    /// One subscriber more in a class like this.
    fn join_class(&mut self, class: Class) -> u16 {
        let found = self.classes.iter().position(|own| own.is_alike(&class));
        let at = match found {
            Some(at) => at,
            None => match self.classes.iter().position(|class| class.count == 0) {
                Some(free) => {
                    self.classes[free] = class;
                    free
                }
                None => {
                    self.classes.push(class);
                    self.classes.len() - 1
                }
            },
        };
        self.classes[at].count += 1;
        at as u16
    }

    /// Adds a publication to the run. Where subscribers get the latest only, and none has a filter that might keep back just that,
    /// those before it are let go.
    pub fn add_to_run(&mut self, publication: &Arc<Publication>) {
        /// Bytes of a push around channel name and payload, about.
        const AROUND: usize = 96;
        let each = publication.data.len() + self.name.whole().len() + AROUND;
        let in_use = || self.classes.iter().filter(|class| class.count > 0);
        if self.gives_latest() && in_use().all(|class| class.filter.is_none()) {
            self.run_replaced += self.run.len();
            self.run.clear();
            self.run_bytes = 0;
        }
        self.run_bytes += each * self.classes.iter().filter(|class| class.count > 0).count();
        self.run.push(Arc::clone(publication));
    }

    /// Do subscribers get only the latest of a run?
    #[must_use]
    pub fn gives_latest(&self) -> bool {
        self.namespace.batch_flush_latest && !self.namespace.batch_max_delay.is_zero()
    }

    /// As many publications wait as may.
    #[must_use]
    pub fn run_is_full(&self) -> bool {
        let most = self.namespace.batch_max_size as usize;
        most > 0 && self.run.len() + self.run_replaced >= most
    }

    /// Has a subscriber that is a long poll.
    #[must_use]
    pub fn has_polls(&self) -> bool {
        self.classes
            .iter()
            .any(|class| class.count > 0 && class.format.speaker == Speaker::Poll)
    }

    /// A filter more fits, with those of subscribers that wait.
    #[must_use]
    pub fn has_room_for_class(&self) -> bool {
        self.classes.len() + (self.pending as usize) < CLASSES_PER_CHANNEL_MAX
    }

    /// Subscribers that take patches were given publications: the next one may be a patch of the last, if that was one of
    /// the stream.
    pub fn move_chains(&mut self, is_of_stream: bool) {
        let delta = if is_of_stream {
            Delta::Based
        } else {
            Delta::Fresh
        };
        for at in 0..self.classes.len() {
            let class = &self.classes[at];
            let chained = matches!(class.delta, Delta::Fresh | Delta::Based);
            if class.count == 0 || !chained || class.delta == delta {
                continue;
            }
            let moved = Class {
                delta,
                ..class.clone()
            };
            let Some(twin) = self.classes.iter().position(|own| own.is_alike(&moved)) else {
                self.classes[at] = moved;
                continue;
            };
            for subscriber in &mut self.subscribers {
                if usize::from(subscriber.class) == at {
                    subscriber.class = twin as u16;
                }
            }
            self.classes[twin].count += std::mem::take(&mut self.classes[at].count);
        }
    }

    /// Has a subscriber that can only get JSON.
    #[must_use]
    pub fn has_json(&self) -> bool {
        self.classes
            .iter()
            .any(|class| class.count > 0 && class.format.encoding == Encoding::Json)
    }
}

/// All channels with local subscribers.
pub struct Hub {
    channels: Slab<HubChannel>,
    slots: SlotPool,
    by_name: HashTable<u32>,
    names: SecretHash,
    /// Channels that each user and each prefix was the first to subscribe to.
    opened: HashMap<u32, u32, SecretHash>,
    /// Places of the table.
    most: usize,
    /// Subscriptions refused because who asked has too large a part of a table that is filling.
    crowded: u64,
}

/// Who subscribes: a user, empty for the anonymous one, and what stands for an address prefix, 0 where it is not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opener<'a> {
    /// User id.
    pub user: &'a str,
    /// See `Context::prefix`.
    pub prefix: u32,
}

/// Of a table that is nearly full, one user or address prefix may have one in so many places.
const SHARE: usize = 4;
/// Shares count when so many eighths are taken: where all come through one balancer they are one prefix, which should not lack
/// what nobody else uses.
const SHARED_EIGHTHS: usize = 7;

impl Hub {
    /// Nobody listens yet. Where names are filed follows from `key`.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        Self {
            channels: Slab::default(),
            slots: SlotPool::new(CHANNELS_OWNED_MAX as u32),
            by_name: HashTable::new(),
            names: SecretHash::new(key),
            opened: HashMap::with_hasher(SecretHash::new(&key.derive("openers"))),
            most: CHANNELS_OWNED_MAX,
            crowded: 0,
        }
    }

    /// Subscriptions refused because who asked has too large a part of a table that is filling.
    #[must_use]
    pub const fn crowded(&self) -> u64 {
        self.crowded
    }

    /// What the one who opens a channel is counted under. `None` if it has its share.
    fn opener(&mut self, opener: Opener<'_>) -> Option<[u32; 2]> {
        let user = match opener.user {
            "" => 0,
            user => (self.opened.hasher().of(user.as_bytes()) as u32).max(1),
        };
        let keys = [user, opener.prefix];
        let has_share = |key: &u32| {
            let opened = self.opened.get(key).copied().unwrap_or(0);
            *key != 0 && opened as usize >= self.most / SHARE
        };
        if self.len() >= self.most / 8 * SHARED_EIGHTHS && keys.iter().any(has_share) {
            self.crowded += 1;
            return None;
        }
        for key in keys.into_iter().filter(|&key| key != 0) {
            *self.opened.entry(key).or_default() += 1;
        }
        Some(keys)
    }

    fn closed(&mut self, opener: [u32; 2]) {
        for key in opener {
            if let Some(opened) = self.opened.get_mut(&key) {
                *opened -= 1;
                if *opened == 0 {
                    self.opened.remove(&key);
                }
            }
        }
    }

    fn hash(&self, name: &ChannelName) -> u64 {
        self.secret_hash(name.whole().as_bytes())
    }

    /// What clients tell publications apart by is filed under it: nobody foresees where.
    #[must_use]
    pub fn secret_hash(&self, bytes: &[u8]) -> u64 {
        self.names.of(bytes)
    }

    /// Channels with a local subscriber.
    #[must_use]
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Nobody listens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// The channel of this name.
    #[must_use]
    pub fn find(&self, name: &ChannelName) -> Option<HubId> {
        self.find_str(self.hash(name), name.whole())
    }

    fn find_str(&self, hash: u64, name: &str) -> Option<HubId> {
        let slot = *self.by_name.find(hash, |&slot| {
            self.channels
                .at(slot)
                .is_some_and(|channel| channel.name.whole() == name)
        })?;
        Some(HubId {
            slot,
            generation: self.channels.generation(slot),
        })
    }

    /// Adds a pending subscriber, and the channel if it is new. `None` when there are too many channels, of all or of this
    /// subscriber's user or prefix.
    pub fn enter(
        &mut self,
        name: &ChannelName,
        namespace: &Arc<Namespace>,
        opener: Opener<'_>,
    ) -> Option<HubId> {
        let hash = self.hash(name);
        let id = match self.find_str(hash, name.whole()) {
            Some(id) => id,
            None => {
                if self.len() >= self.most {
                    return None;
                }
                let opener = self.opener(opener)?;
                let slot = self.slots.take()?;
                let generation = self.channels.insert_at(
                    slot,
                    HubChannel {
                        name: name.clone(),
                        namespace: Arc::clone(namespace),
                        subscribers: Vec::new(),
                        pending: 0,
                        confirmed: false,
                        position: StreamPosition::default(),
                        catching_up: false,
                        classes: SmallVec::new(),
                        run: Vec::new(),
                        run_bytes: 0,
                        run_replaced: 0,
                        run_is_due: false,
                        window: None,
                        observers: 0,
                        news: News::default(),
                        round: 0,
                        opener,
                    },
                );
                let (channels, names) = (&self.channels, &self.names);
                self.by_name.insert_unique(hash, slot, |&slot| {
                    channels
                        .at(slot)
                        .map_or(0, |channel| names.of(channel.name.whole().as_bytes()))
                });
                HubId { slot, generation }
            }
        };
        self.channels.of_mut(id.slot).pending += 1;
        Some(id)
    }

    /// The pending subscriber becomes one that gets publications. Returns its place in the list.
    ///
    /// # Panics
    /// If it never entered.
    pub fn activate(&mut self, id: HubId, conn: u32, join_leave: bool, class: Class) -> Place {
        let channel = self
            .channels
            .current_mut(id.slot, id.generation)
            .expect("a pending subscriber keeps its channel");
        assert!(
            channel.pending > 0,
            "a subscriber became active that never entered"
        );
        channel.pending -= 1;
        channel.observers += u32::from(join_leave);
        let class = channel.join_class(class);
        channel.subscribers.push(Subscriber {
            conn,
            class,
            join_leave,
        });
        Place::new(channel.subscribers.len() as u32 - 1)
    }

    /// Takes a subscriber out: `place` is its place in the list, `None` while it is pending.
    /// Returns who moved into its place, and whether the channel is gone.
    ///
    /// # Panics
    /// If it never entered.
    pub fn exit(&mut self, id: HubId, place: Option<Place>) -> (Option<Subscriber>, bool) {
        let channel = self
            .channels
            .current_mut(id.slot, id.generation)
            .expect("a subscriber keeps its channel");
        let moved = match place {
            None => {
                assert!(channel.pending > 0, "a subscriber left that never entered");
                channel.pending -= 1;
                None
            }
            Some(place) => {
                let left = channel.subscribers.swap_remove(place.get() as usize);
                channel.classes[usize::from(left.class)].count -= 1;
                channel.observers -= u32::from(left.join_leave);
                if channel.subscribers.capacity() > 64
                    && channel.subscribers.len() < channel.subscribers.capacity() / 4
                {
                    channel.subscribers.shrink_to(channel.subscribers.len() * 2);
                }
                channel.subscribers.get(place.get() as usize).copied()
            }
        };
        let gone = channel.pending == 0 && channel.subscribers.is_empty();
        if gone {
            let hash = self.names.of(channel.name.whole().as_bytes());
            if let Ok(entry) = self.by_name.find_entry(hash, |&slot| slot == id.slot) {
                entry.remove();
            }
            let opener = channel.opener;
            self.channels.remove(id.slot);
            if self.by_name.capacity() > 4096 && self.by_name.len() < self.by_name.capacity() / 8 {
                let (channels, names) = (&self.channels, &self.names);
                self.by_name.shrink_to(self.by_name.len() * 2, |&slot| {
                    channels
                        .at(slot)
                        .map_or(0, |channel| names.of(channel.name.whole().as_bytes()))
                });
            }
            self.slots.give(id.slot);
            self.closed(opener);
        }
        (moved, gone)
    }

    /// The channel, unless it is gone.
    #[must_use]
    pub fn channel(&self, id: HubId) -> Option<&HubChannel> {
        self.channels.current(id.slot, id.generation)
    }

    /// The channel, unless it is gone.
    pub fn channel_mut(&mut self, id: HubId) -> Option<&mut HubChannel> {
        self.channels.current_mut(id.slot, id.generation)
    }

    /// The channel in a slot that a live subscription names, which keeps it.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn of(&self, slot: u32) -> &HubChannel {
        self.channels.of(slot)
    }

    /// The channel in a slot, if there is one, whichever it is.
    #[must_use]
    pub fn at(&self, slot: u32) -> Option<&HubChannel> {
        self.channels.at(slot)
    }

    /// The id of the channel in a slot.
    #[must_use]
    pub fn id_at(&self, slot: u32) -> HubId {
        HubId {
            slot,
            generation: self.channels.generation(slot),
        }
    }

    /// All channels.
    pub fn iter(&self) -> impl Iterator<Item = &HubChannel> {
        self.channels.iter().map(|(_, channel)| channel)
    }

    /// A new configuration: channels whose namespace still exists follow it.
    pub fn reload(&mut self, rules: &crate::config::ChannelRules) {
        for slot in 0..self.channels.slots() {
            if let Some(channel) = self.channels.at_mut(slot)
                && let Ok(namespace) = rules.resolve_of(&channel.name)
            {
                channel.namespace = Arc::clone(namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FilterNode;

    fn class(delta: Delta, kind: Option<&str>) -> Class {
        let leaf = |kind: &str| FilterNode {
            key: "kind".into(),
            cmp: "eq".into(),
            val: kind.into(),
            ..FilterNode::default()
        };
        let filter = kind.map(|kind| Arc::new(Filter::new(&leaf(kind)).unwrap()));
        Class {
            format: Format::default(),
            filter,
            delta,
            count: 0,
        }
    }

    /// A channel with a subscriber for each class, on connections 0, 1, 2 …
    fn hub(classes: &[Class]) -> (Hub, HubId) {
        let mut hub = Hub::new(&Key::new([1; 32]));
        let name = ChannelName::from_whole("a");
        let mut id = None;
        for (conn, class) in classes.iter().enumerate() {
            let entered = hub
                .enter(&name, &Arc::default(), Opener::default())
                .unwrap();
            hub.activate(entered, conn as u32, false, class.clone());
            id = Some(entered);
        }
        (hub, id.unwrap())
    }

    /// What each subscriber's class is, and whether the counts are those of the subscribers.
    fn deltas(channel: &HubChannel) -> Vec<Delta> {
        for (at, class) in channel.classes.iter().enumerate() {
            let mine = |subscriber: &&Subscriber| usize::from(subscriber.class) == at;
            let count = channel.subscribers.iter().filter(mine).count();
            assert_eq!(class.count as usize, count);
        }
        let delta = |subscriber: &Subscriber| channel.classes[usize::from(subscriber.class)].delta;
        channel.subscribers.iter().map(delta).collect()
    }

    #[test]
    fn subscribers_with_the_same_filter_share_a_class() {
        let kinds = [Some("a"), None, Some("b"), Some("a"), None];
        let (hub, id) = hub(&kinds.map(|kind| class(Delta::Off, kind)));
        let channel = hub.channel(id).unwrap();
        let classes: Vec<_> = channel.subscribers.iter().map(|one| one.class).collect();
        assert_eq!(classes, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn fresh_subscribers_join_the_based_ones_after_their_first_publication() {
        use Delta::{Based, Fresh, Off, Whole};
        let all = [Fresh, Off, Whole, Based, Fresh];
        let (mut hub, id) = hub(&all.map(|delta| class(delta, None)));
        let channel = hub.channel_mut(id).unwrap();
        assert_eq!(deltas(channel), all);
        channel.move_chains(true);
        assert_eq!(deltas(channel), [Based, Off, Whole, Based, Based]);
        channel.move_chains(true);
        assert_eq!(deltas(channel), [Based, Off, Whole, Based, Based]);
        channel.move_chains(false);
        assert_eq!(deltas(channel), [Fresh, Off, Whole, Fresh, Fresh]);
    }

    #[test]
    fn filters_of_a_channel_are_bounded_also_while_their_subscribers_wait() {
        let (mut hub, id) = hub(&[class(Delta::Off, None)]);
        let name = ChannelName::from_whole("a");
        for _ in 1..CLASSES_PER_CHANNEL_MAX {
            assert!(hub.channel(id).unwrap().has_room_for_class());
            hub.enter(&name, &Arc::default(), Opener::default())
                .unwrap();
        }
        assert!(!hub.channel(id).unwrap().has_room_for_class());
    }

    #[test]
    fn nobody_has_most_of_a_table_that_is_filling() {
        let mut hub = Hub::new(&Key::new([1; 32]));
        hub.most = 40;
        let enter = |hub: &mut Hub, n: usize, user, prefix| {
            let name = ChannelName::from_whole(&n.to_string());
            hub.enter(&name, &Arc::default(), Opener { user, prefix })
        };
        let ids: Vec<_> = (0..47)
            .filter_map(|n| enter(&mut hub, n, "42", 7))
            .collect();
        assert_eq!(ids.len(), 35, "it may have more while there is room");
        assert!(
            enter(&mut hub, 100, "43", 7).is_none(),
            "another user of the prefix"
        );
        assert!(
            enter(&mut hub, 100, "42", 8).is_none(),
            "the user from elsewhere"
        );
        assert!(
            enter(&mut hub, 0, "43", 7).is_some(),
            "a channel that is there"
        );
        assert_eq!(hub.crowded(), 14);
        assert!(enter(&mut hub, 101, "43", 8).is_some());
        assert!(enter(&mut hub, 102, "", 0).is_some());
        for id in ids.into_iter().skip(1).take(26) {
            hub.exit(id, None);
        }
        assert!(enter(&mut hub, 103, "42", 7).is_some(), "it has left some");
        let filled = (200..300).filter(|&n| enter(&mut hub, n, "", 0).is_some());
        assert_eq!(filled.count(), 40 - 12);
    }
}

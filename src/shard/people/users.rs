//! Whose connections are here, and, for the users registered on this shard, how many connections they have anywhere.

use hashbrown::{HashMap, HashSet, HashTable};
use smallvec::SmallVec;

use crate::broker::owner::user_hash;
use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::mem::{Key, SecretHash};
use crate::mesh::message::UserCount;
use crate::model::{ConnId, ShardId};

/// See the module. A connected session is one entry, its slot: whose it is, is asked of whoever has the sessions.
pub(super) struct Users {
    slots: HashTable<u32>,
    hash: SecretHash,
    /// Distinct users among them.
    distinct: u32,
    /// Connections of the users registered here, while a limit is configured.
    /// Oldest first.
    registry: HashMap<Box<str>, UserConnections, SecretHash>,
    sample: Sample,
}

/// Connections of one user.
type UserConnections = SmallVec<[(ShardId, ConnId); 1]>;

/// Hashes of local users, so that several shards can say how many users they have together. It holds everybody while they
/// are few, then those with the smallest hashes.
struct Sample {
    hashes: HashSet<u64, SecretHash>,
    /// Greatest hash that is taken in.
    below: u64,
}

/// Hashes of a sample at most.
const SAMPLE_KEPT: usize = 4096;

impl Sample {
    fn new(hash: SecretHash) -> Self {
        Self {
            hashes: HashSet::with_hasher(hash),
            below: u64::MAX,
        }
    }

    fn insert(&mut self, hash: u64) {
        if hash > self.below {
            return;
        }
        self.hashes.insert(hash);
        while self.hashes.len() > SAMPLE_KEPT {
            self.below /= 2;
            let below = self.below;
            self.hashes.retain(|&hash| hash <= below);
        }
    }

    /// So many users have gone that everybody fits again.
    fn is_too_small(&self, distinct: u32) -> bool {
        self.below < u64::MAX && (distinct as usize) < SAMPLE_KEPT / 2
    }
}

impl Users {
    pub(super) fn new(key: &Key) -> Self {
        let hash = SecretHash::new(key);
        Self {
            slots: HashTable::new(),
            registry: HashMap::with_hasher(hash.clone()),
            sample: Sample::new(hash.clone()),
            hash,
            distinct: 0,
        }
    }

    /// Sessions past their connect command.
    pub(super) fn sessions(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Distinct users, for a count over all shards.
    pub(super) fn count(&self) -> UserCount {
        UserCount {
            distinct: self.distinct,
            sample: self.sample.hashes.iter().copied().collect(),
            below: self.sample.below,
        }
    }

    /// Connections of a user, by slot.
    pub(super) fn of<'u>(&self, user: &str, user_of: impl Fn(u32) -> &'u str) -> Vec<u32> {
        let hash = self.hash.of(user.as_bytes());
        let slots = self.slots.iter_hash(hash).copied();
        let mut slots: Vec<u32> = slots.filter(|&slot| user_of(slot) == user).collect();
        slots.sort_unstable();
        slots
    }

    /// The connection in a slot is one of its user's from here on.
    pub(super) fn insert<'u>(&mut self, slot: u32, user_of: impl Fn(u32) -> &'u str) {
        let user = user_of(slot);
        let hash = self.hash.of(user.as_bytes());
        debug_assert!(
            self.slots.find(hash, |&other| other == slot).is_none(),
            "a session is filed once"
        );
        if !self.has_one(hash, user, &user_of) {
            self.distinct += 1;
            self.sample.insert(user_hash(user));
        }
        let filed = &self.hash;
        self.slots
            .insert_unique(hash, slot, |&slot| filed.of(user_of(slot).as_bytes()));
    }

    /// The connection in a slot, which still says whose it is, is none of its user's any more.
    ///
    /// # Panics
    /// If it is not filed under that user.
    pub(super) fn remove<'u>(&mut self, slot: u32, user_of: impl Fn(u32) -> &'u str) {
        let user = user_of(slot);
        let hash = self.hash.of(user.as_bytes());
        match self.slots.find_entry(hash, |&other| other == slot) {
            Ok(entry) => entry.remove(),
            Err(_absent) => unreachable!("a session is filed under its user while it is known"),
        };
        if self.has_one(hash, user, &user_of) {
            return;
        }
        self.distinct -= 1;
        self.sample.hashes.remove(&user_hash(user));
        if self.sample.is_too_small(self.distinct) {
            self.sample.below = u64::MAX;
            for &slot in &self.slots {
                self.sample.insert(user_hash(user_of(slot)));
            }
        }
    }

    fn has_one<'u>(&self, hash: u64, user: &str, user_of: impl Fn(u32) -> &'u str) -> bool {
        let is_its = |&other: &u32| user_of(other) == user;
        self.slots.find(hash, is_its).is_some()
    }

    /// One more connection of a user registered here, who may have `limit`, at least one: `None` if it is refused, else those that
    /// go for it, oldest first. A newcomer `displaces` others where the limit is reached.
    pub(super) fn admit(
        &mut self,
        user: &str,
        place: (ShardId, ConnId),
        limit: u32,
        displaces: bool,
    ) -> Option<Vec<(ShardId, ConnId)>> {
        let limit = limit.max(1) as usize;
        let Some(places) = self.registry.get_mut(user) else {
            let places = SmallVec::from_buf([place]);
            self.registry.insert(user.into(), places);
            return Some(Vec::new());
        };
        debug_assert!(!places.is_empty(), "who has none is not registered");
        if places.len() >= limit && !displaces {
            return None;
        }
        let excess = (places.len() + 1).saturating_sub(limit);
        let displaced = places.drain(..excess).collect();
        places.push(place);
        Some(displaced)
    }

    /// Users registered here, and how many connections each has.
    pub(super) fn registered(&self) -> Vec<(Box<str>, u32)> {
        self.registry
            .iter()
            .map(|(user, places)| (user.clone(), places.len() as u32))
            .collect()
    }

    /// A connection is gone. One that was displaced is gone from here already.
    pub(super) fn release(&mut self, user: &str, from: ShardId, conn: ConnId) {
        if let Some(places) = self.registry.get_mut(user) {
            if let Some(at) = places.iter().position(|place| *place == (from, conn)) {
                places.remove(at);
            }
            if places.is_empty() {
                self.registry.remove(user);
            }
        }
    }
}

impl Users {
    pub(super) fn write(&self, out: &mut ImageWriter) {
        let Self {
            slots,
            hash: _,
            distinct,
            registry,
            sample,
        } = self;
        let mut slots: Vec<u32> = slots.iter().copied().collect();
        slots.sort_unstable();
        slots.write(out);
        distinct.write(out);
        out.map(registry.iter());
        let Sample { hashes, below } = sample;
        let mut hashes: Vec<u64> = hashes.iter().copied().collect();
        hashes.sort_unstable();
        hashes.write(out);
        below.write(out);
    }

    pub(super) fn read<'u>(
        key: &Key,
        user_of: impl Fn(u32) -> Option<&'u str>,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        let mut users = Self::new(key);
        let filed = users.hash.clone();
        let hash = |slot: u32| filed.of(user_of(slot).unwrap_or_default().as_bytes());
        for slot in Vec::<u32>::read(from)? {
            if user_of(slot).is_none() {
                return Err(ImageError::Wrong {
                    what: "a session without a connection",
                });
            }
            let is_it = |&other: &u32| other == slot;
            if users.slots.find(hash(slot), is_it).is_some() {
                return Err(ImageError::Wrong {
                    what: "a session twice",
                });
            }
            users
                .slots
                .insert_unique(hash(slot), slot, |&slot| hash(slot));
        }
        users.distinct = Image::read(from)?;
        from.map(|user, places| users.registry.insert(user, places))?;
        users.sample.hashes.extend(Vec::<u64>::read(from)?);
        users.sample.below = Image::read(from)?;
        Ok(users)
    }
}

//! Whose connections are here, and, for the users registered on this shard, how many connections they have anywhere.

use hashbrown::{HashMap, HashSet, HashTable};
use smallvec::SmallVec;

use super::Shard;
use super::connection::Connection;
use crate::broker::owner::user_hash;
use crate::mem::{Key, SecretHash, Slab};
use crate::mesh::Message;
use crate::mesh::message::{Admit, UserCount};
use crate::model::{ConnId, ShardId};
use crate::protocol::disconnect::Disconnect;

/// See the module. A connected session is one entry: four bytes and the user id it already has.
pub(super) struct Users {
    slots: HashTable<u32>,
    hash: SecretHash,
    /// Distinct users among them.
    distinct: u32,
    /// Connections of the users registered here, while a limit is configured.
    /// Oldest first.
    registry: HashMap<Box<str>, Places, SecretHash>,
    sample: Sample,
}

/// Connections of one user.
type Places = SmallVec<[(ShardId, ConnId); 1]>;

/// Hashes of local users, so that several shards can say how many users they have together. It holds everybody while they
/// are few, then those with the smallest hashes.
struct Sample {
    hashes: HashSet<u64, SecretHash>,
    /// Greatest hash that is taken in.
    below: u64,
}

/// Hashes of a sample at most.
const SAMPLE_MAX: usize = 4096;

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
        while self.hashes.len() > SAMPLE_MAX {
            self.below /= 2;
            let below = self.below;
            self.hashes.retain(|&hash| hash <= below);
        }
    }

    /// So many users have gone that everybody fits again.
    fn is_too_small(&self, distinct: u32) -> bool {
        self.below < u64::MAX && (distinct as usize) < SAMPLE_MAX / 2
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

    fn user(connections: &Slab<Connection>, slot: u32) -> &str {
        connections
            .at(slot)
            .map_or("", |connection| &connection.session.user)
    }

    /// Connections of a user.
    pub(super) fn of(&self, connections: &Slab<Connection>, user: &str) -> Vec<u32> {
        let hash = self.hash.of(user.as_bytes());
        self.slots
            .iter_hash(hash)
            .copied()
            .filter(|&slot| Self::user(connections, slot) == user)
            .collect()
    }

    pub(super) fn insert(&mut self, connections: &Slab<Connection>, slot: u32) {
        let user = Self::user(connections, slot);
        let hash = self.hash.of(user.as_bytes());
        if self
            .slots
            .find(hash, |&other| Self::user(connections, other) == user)
            .is_none()
        {
            self.distinct += 1;
            self.sample.insert(user_hash(user));
        }
        let filed = &self.hash;
        self.slots.insert_unique(hash, slot, |&slot| {
            filed.of(Self::user(connections, slot).as_bytes())
        });
    }

    pub(super) fn remove(&mut self, connections: &Slab<Connection>, slot: u32) {
        let user = Self::user(connections, slot);
        let hash = self.hash.of(user.as_bytes());
        if let Ok(entry) = self.slots.find_entry(hash, |&other| other == slot) {
            entry.remove();
            if self
                .slots
                .find(hash, |&other| Self::user(connections, other) == user)
                .is_none()
            {
                self.distinct -= 1;
                self.sample.hashes.remove(&user_hash(user));
                if self.sample.is_too_small(self.distinct) {
                    self.sample.below = u64::MAX;
                    for &slot in &self.slots {
                        let hash = user_hash(Self::user(connections, slot));
                        self.sample.insert(hash);
                    }
                }
            }
        }
    }

    /// One more connection of a user registered here: `None` if it is refused, else the ones that go for it.
    fn admit(&mut self, from: ShardId, admit: &Admit) -> Option<Vec<(ShardId, ConnId)>> {
        let conn = admit.conn;
        let limit = admit.limit.max(1) as usize;
        let Some(places) = self.registry.get_mut(&admit.user) else {
            let places = SmallVec::from_buf([(from, conn)]);
            self.registry.insert(admit.user.clone(), places);
            return Some(Vec::new());
        };
        if places.len() >= limit && !admit.displaces {
            return None;
        }
        let excess = (places.len() + 1).saturating_sub(limit);
        let displaced = places.drain(..excess).collect();
        places.push((from, conn));
        Some(displaced)
    }

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

impl Shard {
    /// As the registry of a user: may it have one more connection? Those that go for it are told.
    pub(super) fn own_admit(&mut self, from: ShardId, admit: &Admit) -> bool {
        let Some(displaced) = self.users.admit(from, admit) else {
            return false;
        };
        for (shard, conn) in displaced {
            self.mesh.keep(shard, Message::Displace(conn));
        }
        true
    }

    /// The user of a connection has a newer one in its place.
    pub(super) fn displace(&mut self, conn: ConnId) {
        let is_admitted = self
            .connections
            .current(conn.slot, conn.generation)
            .is_some_and(|connection| connection.is_session && connection.session.admitted);
        if is_admitted {
            self.counters.users_displaced += 1;
            self.disconnect(conn.slot, &Disconnect::ConnectionLimit);
        }
    }

    /// Ends the session of a connection: its subscriptions and its place among the users.
    pub(super) fn end_session(&mut self, slot: u32) {
        let Some(connection) = self.connections.at(slot) else {
            return;
        };
        if !connection.is_session || connection.session.phase == crate::session::Phase::Ended {
            return;
        }
        if connection.is_known {
            self.users.remove(&self.connections, slot);
        }
        if let Some(connection) = self.connections.at_mut(slot) {
            connection.is_known = false;
            connection.is_parked = false;
        }
        self.forget_waiting(slot);
        self.with_session(slot, |session, context| session.end(context));
    }
}

//! Keys of publications that were already made, of all channels of a shard.

use std::collections::BTreeSet;
use std::time::Duration;

use hashbrown::HashMap;

use crate::mem::{Key, SecretHash};
use crate::model::{ChannelName, StreamPosition};
use crate::time::Instant;

/// A channel and a key, of whatever length, as a number that nobody who has not the secret finds a second one for.
pub(super) type Name = u128;

/// First positions by key. There is one bound for all channels; who ends first makes room.
pub(super) struct Idempotency {
    secret: Key,
    positions: HashMap<Name, (StreamPosition, Instant), SecretHash>,
    ends: BTreeSet<(Instant, Name)>,
    most: usize,
    /// Keys that made room before their end.
    pub(super) evicted: u64,
}

impl Idempotency {
    /// No key of at most `most`.
    pub(super) fn new(key: &Key, most: usize) -> Self {
        Self {
            secret: key.derive("idempotency keys"),
            positions: HashMap::with_hasher(SecretHash::new(&key.derive("table of keys"))),
            ends: BTreeSet::new(),
            most,
            evicted: 0,
        }
    }

    pub(super) fn name(&self, channel: &ChannelName, key: &str) -> Name {
        let mac = self
            .secret
            .mac(&[channel.as_str().as_bytes(), key.as_bytes()]);
        u128::from_le_bytes(*mac.first_chunk().expect("32 bytes begin with sixteen"))
    }

    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    /// Where the publication with this key went.
    pub(super) fn find(&self, now: Instant, name: Name) -> Option<StreamPosition> {
        let (position, end) = self.positions.get(&name)?;
        (*end > now).then_some(*position)
    }

    /// Remembers a key for `ttl`.
    pub(super) fn remember(
        &mut self,
        now: Instant,
        name: Name,
        position: StreamPosition,
        ttl: Duration,
    ) {
        let end = now + ttl;
        if let Some((_, before)) = self.positions.insert(name, (position, end)) {
            self.ends.remove(&(before, name));
        }
        self.ends.insert((end, name));
        if self.positions.len() > self.most
            && let Some((_, first)) = self.ends.pop_first()
        {
            self.positions.remove(&first);
            self.evicted += 1;
        }
    }

    /// When the first one ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Forgets keys that have ended, at most so many.
    pub(super) fn sweep(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            match self.ends.first() {
                Some(&(end, name)) if end <= now => {
                    self.ends.pop_first();
                    self.positions.remove(&name);
                }
                Some(_) | None => break,
            }
        }
        if self.positions.capacity() > 1024 && self.positions.len() < self.positions.capacity() / 8
        {
            self.positions.shrink_to(self.positions.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Offset;

    fn position(offset: u64) -> StreamPosition {
        StreamPosition {
            offset: Offset(offset),
            ..StreamPosition::default()
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    #[test]
    fn key_is_of_one_channel_and_ends_with_its_time() {
        let mut keys = Idempotency::new(&Key::new([1; 32]), 10);
        let (a, b) = (ChannelName::new("a"), ChannelName::new("ab"));
        let name = keys.name(&a, "bc");
        keys.remember(at(0), name, position(7), Duration::from_secs(60));
        assert_eq!(keys.find(at(59), name), Some(position(7)));
        assert_eq!(keys.find(at(60), name), None);
        let other = keys.name(&b, "c");
        assert_eq!(keys.find(at(0), other), None, "not the texts in one");
        keys.sweep(at(59), 10);
        assert_eq!(keys.len(), 1);
        keys.sweep(at(60), 10);
        assert_eq!((keys.len(), keys.next()), (0, None));
    }

    #[test]
    fn keys_of_a_shard_are_bounded_and_who_ends_first_makes_room() {
        let mut keys = Idempotency::new(&Key::new([1; 32]), 100);
        for name in 0..=100 {
            let ttl = Duration::from_secs(if name == 5 { 1 } else { 60 });
            keys.remember(at(0), name, position(1), ttl);
        }
        assert_eq!((keys.len(), keys.evicted), (100, 1));
        assert_eq!(keys.find(at(0), 5), None);
        assert!(keys.find(at(0), 0).is_some());
    }
}

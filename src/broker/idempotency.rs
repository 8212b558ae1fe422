//! Keys of publications that were already made, of all channels of a shard.

use std::collections::BTreeSet;
use std::time::Duration;

use hashbrown::HashMap;

use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::mem::{Key, SecretHash};
use crate::model::{ChannelName, StreamPosition};
use crate::time::Instant;

/// A channel and a key, of whatever length, as a number that nobody who has not the secret finds a second one for.
pub(super) type Name = u128;

/// What is kept of a key.
#[derive(Clone, Copy)]
struct KeptKey {
    position: StreamPosition,
    end: Instant,
    of_client: bool,
}

/// First positions by key. There is one bound for all channels; who ends first makes room, keys of clients before those of
/// services: what clients make up costs no service a key.
pub(super) struct Idempotency {
    secret: Key,
    positions: HashMap<Name, KeptKey, SecretHash>,
    /// When they end: those of services, those of clients.
    ends: [BTreeSet<(Instant, Name)>; 2],
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
            ends: [BTreeSet::new(), BTreeSet::new()],
            most,
            evicted: 0,
        }
    }

    pub(super) fn name(&self, channel: &ChannelName, key: &str) -> Name {
        let mac = self
            .secret
            .mac(&[channel.whole().as_bytes(), key.as_bytes()]);
        u128::from_le_bytes(*mac.first_chunk().expect("32 bytes begin with sixteen"))
    }

    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    /// Where the publication with this key went.
    pub(super) fn find(&self, now: Instant, name: Name) -> Option<StreamPosition> {
        let kept = self.positions.get(&name)?;
        (kept.end > now).then_some(kept.position)
    }

    /// Remembers a key of a client or service for `ttl`.
    pub(super) fn remember(
        &mut self,
        now: Instant,
        name: Name,
        position: StreamPosition,
        ttl: Duration,
        of_client: bool,
    ) {
        let end = now + ttl;
        let kept = KeptKey {
            position,
            end,
            of_client,
        };
        if let Some(before) = self.positions.insert(name, kept) {
            self.ends[usize::from(before.of_client)].remove(&(before.end, name));
        }
        self.ends[usize::from(of_client)].insert((end, name));
        if self.positions.len() > self.most {
            let others = self.ends.iter().rev().flatten();
            let first = others.map(|&(_, other)| other).find(|&other| other != name);
            if let Some(first) = first {
                self.forget(first);
                self.evicted += 1;
            }
        }
    }

    fn forget(&mut self, name: Name) {
        if let Some(kept) = self.positions.remove(&name) {
            self.ends[usize::from(kept.of_client)].remove(&(kept.end, name));
        }
    }

    fn first(&self) -> Option<(Instant, Name)> {
        let firsts = self.ends.iter().filter_map(BTreeSet::first);
        firsts.min().copied()
    }

    /// When the first one ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.first().map(|(end, _)| end)
    }

    /// Forgets keys that have ended, at most so many.
    pub(super) fn sweep(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            match self.first() {
                Some((end, name)) if end <= now => self.forget(name),
                Some(_) | None => break,
            }
        }
        if self.positions.capacity() > 1024 && self.positions.len() < self.positions.capacity() / 8
        {
            self.positions.shrink_to(self.positions.len() * 2);
        }
    }

    /// Writes all of them, in the order in which they end.
    pub(super) fn write(&self, out: &mut ImageWriter) {
        let Self {
            secret: _,
            positions,
            ends,
            most: _,
            evicted,
        } = self;
        for ends in ends {
            out.length(ends.len());
            for (end, name) in ends {
                let KeptKey {
                    position,
                    end: _,
                    of_client: _,
                } = &positions[name];
                end.write(out);
                name.write(out);
                position.write(out);
            }
        }
        evicted.write(out);
    }

    /// Reads them, with the same key.
    pub(super) fn read(
        key: &Key,
        most: usize,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        let mut keys = Self::new(key, most);
        for of_client in [false, true] {
            for _ in 0..from.length()? {
                let (end, name) = Image::read(from)?;
                let kept = KeptKey {
                    position: Image::read(from)?,
                    end,
                    of_client,
                };
                if keys.positions.insert(name, kept).is_some() {
                    return Err(ImageError::Wrong {
                        what: "an idempotency key twice",
                    });
                }
                keys.ends[usize::from(of_client)].insert((end, name));
            }
        }
        keys.evicted = Image::read(from)?;
        Ok(keys)
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
        let (a, b) = (ChannelName::from_whole("a"), ChannelName::from_whole("ab"));
        let name = keys.name(&a, "bc");
        keys.remember(at(0), name, position(7), Duration::from_secs(60), false);
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
            keys.remember(at(0), name, position(1), ttl, false);
        }
        assert_eq!((keys.len(), keys.evicted), (100, 1));
        assert_eq!(keys.find(at(0), 5), None);
        assert!(keys.find(at(0), 0).is_some());
    }

    #[test]
    fn keys_of_clients_make_room_first_and_none_goes_as_it_comes() {
        let mut keys = Idempotency::new(&Key::new([1; 32]), 100);
        let ttl = |seconds| Duration::from_secs(seconds);
        for name in 0..90 {
            keys.remember(at(0), name, position(1), ttl(60), false);
        }
        for name in 1000..2000 {
            keys.remember(at(1), name, position(1), ttl(900), true);
            assert!(keys.find(at(1), name).is_some(), "{name}");
        }
        let services = (0..90).filter(|&name| keys.find(at(1), name).is_some());
        assert_eq!((services.count(), keys.len()), (90, 100));
        for name in 90..200 {
            keys.remember(at(2), name, position(1), ttl(30), false);
            assert!(keys.find(at(2), name).is_some(), "{name}");
        }
        assert_eq!(keys.len(), 100, "services take what clients had");
        keys.remember(at(3), 2000, position(1), ttl(1), true);
        assert!(keys.find(at(3), 2000).is_some(), "it ends first and stays");
        keys.remember(at(3), 2001, position(1), ttl(1), true);
        assert_eq!(keys.find(at(3), 2000), None, "the next of a client");
        keys.sweep(at(3600), 1000);
        assert_eq!((keys.len(), keys.next()), (0, None));
    }
}

//! The epoch of a channel without a record of it: it follows from the name and a secret, so that a position before the first
//! publication, given out to whoever asked, stays true while nothing is kept for it.

use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::mem::{Key, SecretHash};
use crate::model::{ChannelName, Epoch};

/// Groups of names that begin a new life together: so many that channels which come and go in a crowd leave most of those that
/// stay alone.
const LIVES: usize = 1 << 18;

/// See the module.
pub(super) struct Epochs {
    names: SecretHash,
    /// Which life the channels of each group are in. It ends for all of a group when one of them is forgotten that had
    /// publications: nobody may take an offset of the life before for one of the next. There once the first has ended.
    lives: Option<Box<[u32]>>,
}

impl Epochs {
    pub(super) fn new(key: &Key) -> Self {
        Self {
            names: SecretHash::new(key),
            lives: None,
        }
    }

    /// The epoch of a channel that nothing is kept of. `hash` is that of its name, the same each time.
    pub(super) fn of(&self, hash: u64, name: &ChannelName) -> Epoch {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.names.build_hasher();
        hasher.write_u32(self.lives.as_ref().map_or(0, |lives| lives[group(hash)]));
        hasher.write(name.whole().as_bytes());
        Epoch::from_random(hasher.finish())
    }

    /// A channel with publications is forgotten.
    pub(super) fn end(&mut self, hash: u64) {
        let lives = self.lives.get_or_insert_with(no_lives);
        let life = &mut lives[group(hash)];
        *life = life.wrapping_add(1);
    }

    /// Writes which lives have ended.
    pub(super) fn write(&self, out: &mut ImageWriter) {
        let Self { names: _, lives } = self;
        lives.is_some().write(out);
        out.sparse(lives.as_deref().unwrap_or_default(), &0);
    }

    /// Reads it, with the same key.
    pub(super) fn read(key: &Key, from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let mut epochs = Self::new(key);
        if bool::read(from)? {
            epochs.lives = Some(no_lives());
        }
        from.sparse(epochs.lives.as_deref_mut().unwrap_or_default())?;
        Ok(epochs)
    }
}

fn no_lives() -> Box<[u32]> {
    vec![0; LIVES].into_boxed_slice()
}

const fn group(hash: u64) -> usize {
    (hash % LIVES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_stays_until_a_channel_of_its_group_ends_and_never_comes_again() {
        let mut epochs = Epochs::new(&Key::new([1; 32]));
        let (a, b) = (ChannelName::from_whole("a"), ChannelName::from_whole("b"));
        let first = epochs.of(7, &a);
        assert!(epochs.lives.is_none(), "nothing has ended");
        assert_eq!(epochs.of(7, &a), first);
        assert_ne!(epochs.of(7, &b), first, "each name has its own");
        epochs.end(8);
        assert_eq!(epochs.of(7, &a), first, "that was another group");
        let mut seen = std::collections::HashSet::from([first]);
        for _ in 0..1000 {
            epochs.end(7);
            assert!(seen.insert(epochs.of(7, &a)));
        }
        let other = Epochs::new(&Key::new([2; 32]));
        assert_ne!(other.of(7, &a), first, "another process, another secret");
    }

    #[test]
    fn crowd_that_comes_and_goes_leaves_most_of_those_that_stay_alone() {
        let mut epochs = Epochs::new(&Key::new([1; 32]));
        let name = ChannelName::from_whole("a");
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
        let all = |epochs: &Epochs| -> Vec<Epoch> {
            (0..1000).map(|n| epochs.of(hash(n), &name)).collect()
        };
        let before = all(&epochs);
        for n in 1000..11_000 {
            epochs.end(hash(n));
        }
        let after = all(&epochs);
        let same = before
            .iter()
            .zip(&after)
            .filter(|(one, other)| one == other);
        assert!(same.count() > 900);
    }
}

//! Who has how much under way in a table that all clients of a shard share: one connection, one user, one address prefix get a part
//! of it, so that whoever asks for the rest finds room.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::image::{ImageError, ImageReader, ImageWriter};
use crate::model::ConnId;

/// Whose a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whose<'a> {
    /// The connection that asks.
    pub conn: ConnId,
    /// Its user; empty for the anonymous one, who is nobody in particular.
    pub user: &'a str,
    /// Its address prefix; 0 where that is unknown.
    pub from: u32,
}

/// Holders of one request: keys of the table, each with the part of it that the holder may have, as a shift.
pub type Holders = SmallVec<[(u64, u8); 3]>;

/// One connection has a sixteenth, one user a quarter, one prefix half.
const PARTS: [u8; 3] = [4, 2, 1];

/// See the module.
#[derive(Debug)]
pub struct Shares {
    taken: HashMap<u64, (usize, usize), FixedState>,
    seed: FixedState,
    /// Requests that the table holds, and their bytes.
    most: (usize, usize),
}

impl Shares {
    /// Of a table with room for so many requests and bytes.
    #[must_use]
    pub fn new(requests: usize, bytes: usize) -> Self {
        // A collision makes two share one part, which costs whoever chose it.
        let seed = FixedState::with_seed(0x5368_6172);
        Self {
            taken: HashMap::with_hasher(seed.clone()),
            seed,
            most: (requests, bytes),
        }
    }

    fn holders(&self, whose: &Whose<'_>) -> Holders {
        let key = |kind: u8, write: &dyn Fn(&mut dyn Hasher)| {
            let mut hasher = self.seed.build_hasher();
            hasher.write_u8(kind);
            write(&mut hasher);
            hasher.finish()
        };
        let ConnId { slot, generation } = whose.conn;
        let mut holders = Holders::new();
        let conn = u64::from(slot) << 32 | u64::from(generation);
        holders.push((key(0, &|hasher| hasher.write_u64(conn)), PARTS[0]));
        if !whose.user.is_empty() {
            let user = whose.user.as_bytes();
            holders.push((key(1, &|hasher| hasher.write(user)), PARTS[1]));
        }
        if whose.from != 0 {
            holders.push((key(2, &|hasher| hasher.write_u32(whose.from)), PARTS[2]));
        }
        holders
    }

    /// One request more with so many bytes: who has a share in it. `None` if somebody would have too much; one request is always
    /// possible.
    pub fn take(&mut self, whose: &Whose<'_>, bytes: usize) -> Option<Holders> {
        let holders = self.holders(whose);
        let is_over = holders.iter().any(|(key, part)| {
            let (requests, held) = self.taken.get(key).copied().unwrap_or_default();
            requests > 0 && (requests >= self.most.0 >> part || held + bytes > self.most.1 >> part)
        });
        if is_over {
            return None;
        }
        for (key, _) in &holders {
            let (requests, held) = self.taken.entry(*key).or_default();
            *requests += 1;
            *held += bytes;
        }
        Some(holders)
    }

    /// What somebody holds as one request was so many bytes and is so many now; none is the end of it. Nobody is refused: see
    /// `is_used_up`.
    pub fn change(&mut self, whose: &Whose<'_>, before: usize, after: usize) {
        for (key, _) in self.holders(whose) {
            let (requests, held) = self.taken.entry(key).or_default();
            *requests += usize::from(before == 0);
            *requests -= usize::from(after == 0);
            *held = *held + after - before;
            if *requests == 0 {
                self.taken.remove(&key);
            }
        }
    }

    /// One of these has all the bytes that it may have.
    #[must_use]
    pub fn is_used_up(&self, whose: &Whose<'_>) -> bool {
        let is_over = |(key, part): &(u64, u8)| {
            let held = self.taken.get(key).map_or(0, |(_, held)| *held);
            held >= self.most.1 >> part
        };
        self.holders(whose).iter().any(is_over)
    }

    /// A request is over.
    pub fn give(&mut self, holders: &Holders, bytes: usize) {
        for (key, _) in holders {
            let Some((requests, held)) = self.taken.get_mut(key) else {
                continue;
            };
            *requests -= 1;
            *held -= bytes;
            if *requests == 0 {
                self.taken.remove(key);
            }
        }
    }
}

impl Shares {
    /// Writes who has what.
    pub fn write(&self, out: &mut ImageWriter) {
        let Self {
            taken,
            seed: _,
            most: _,
        } = self;
        out.map(taken.iter());
    }

    /// Reads what `write` of a table with as much room has written.
    ///
    /// # Errors
    /// It cannot be.
    pub fn read(
        requests: usize,
        bytes: usize,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        let mut shares = Self::new(requests, bytes);
        from.map(|holder, has| shares.taken.insert(holder, has))?;
        Ok(shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(slot: u32, user: &str, from: u32) -> Whose<'_> {
        let conn = ConnId {
            slot,
            generation: 1,
        };
        Whose { conn, user, from }
    }

    #[test]
    fn connection_user_and_prefix_have_their_parts_and_give_them_back() {
        let mut shares = Shares::new(64, 6400);
        let mut taken = Vec::new();
        let mut count = |shares: &mut Shares, whose: &dyn Fn(u32) -> Whose<'static>| {
            let mut count = 0;
            for slot in 0..100 {
                while let Some(holders) = shares.take(&whose(slot), 1) {
                    taken.push(holders);
                    count += 1;
                }
            }
            count
        };
        assert_eq!(
            count(&mut shares, &|_| whose(7, "", 0)),
            4,
            "one connection"
        );
        assert_eq!(
            count(&mut shares, &|slot| whose(100 + slot, "a", 1)),
            16,
            "one user"
        );
        assert_eq!(
            count(&mut shares, &|slot| whose(300 + slot, "", 1)),
            16,
            "one prefix"
        );
        assert_eq!(
            count(&mut shares, &|slot| whose(500 + slot, "b", 2)),
            16,
            "another user"
        );
        for holders in taken.drain(..) {
            shares.give(&holders, 1);
        }
        assert!(shares.taken.is_empty());
    }

    #[test]
    fn what_grows_and_shrinks_is_one_request_and_counts_as_it_is() {
        let mut shares = Shares::new(usize::MAX, 1600);
        for slot in 0..9 {
            shares.change(&whose(slot, "", 1), 0, 10);
            shares.change(&whose(slot, "", 1), 10, 90);
        }
        assert!(
            shares.is_used_up(&whose(99, "", 1)),
            "half of all is a prefix's"
        );
        assert!(!shares.is_used_up(&whose(99, "", 2)));
        shares.change(&whose(0, "", 1), 90, 70);
        assert!(!shares.is_used_up(&whose(99, "", 1)));
        assert!(!shares.is_used_up(&whose(1, "", 1)));
        shares.change(&whose(0, "", 1), 70, 100);
        assert!(
            shares.is_used_up(&whose(0, "", 2)),
            "a sixteenth is a connection's"
        );
        for slot in 0..9 {
            let held = if slot == 0 { 100 } else { 90 };
            shares.change(&whose(slot, "", 1), held, 0);
        }
        assert!(shares.taken.is_empty());
    }

    #[test]
    fn bytes_count_as_well_and_one_request_is_always_possible() {
        let mut shares = Shares::new(64, 6400);
        let mut take = |slot, bytes| shares.take(&whose(slot, "a", 1), bytes);
        let large = take(1, 5000).unwrap();
        assert!(take(1, 1).is_none());
        shares.give(&large, 5000);
        let mut take = |slot, bytes| shares.take(&whose(slot, "a", 1), bytes);
        let quarter: Vec<_> = (0..4).map(|slot| take(slot, 400).unwrap()).collect();
        assert!(take(9, 1).is_none());
        for holders in quarter {
            shares.give(&holders, 400);
        }
        assert!(shares.taken.is_empty());
    }
}

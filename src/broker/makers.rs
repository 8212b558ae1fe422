//! What clients make that outlives them: how fast each may make more, and how much of each is kept.

use hashbrown::HashMap;

use super::channel::{Channel, Made};
use super::list::{Link, List};
use crate::config::ChannelRules;
use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::mem::{Bucket, Key, Pace, SecretHash, Slab};
use crate::model::Draft;
use crate::time::Instant;

/// What was not made in so many seconds may be made at once.
const BURST_SECONDS: u64 = 10;
/// Buckets of the table of rates. Who shares both of its buckets with others shares their rate.
const BUCKETS: usize = 1 << 13;
/// Channels looked at for one that may go.
const LOOKED_AT_FOR_ONE: usize = 64;

/// Who makes something: numbers that stand for its connection, its user, its address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Maker {
    connection: u64,
    /// That of the connection where the user is anonymous.
    user: u64,
    /// 0 where the prefix is not known.
    prefix: u64,
}

impl Image for Made {
    fn write(&self, out: &mut ImageWriter) {
        // Which places it has in the lists, these say.
        let Self {
            user,
            prefix,
            by_user: _,
            by_prefix: _,
        } = self;
        user.write(out);
        prefix.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Ok(Self {
            user: Image::read(from)?,
            prefix: Image::read(from)?,
            by_user: Link::default(),
            by_prefix: Link::default(),
        })
    }
}

/// Channels without subscribers by who made them: those with subscribers are bounded by what subscribers may have, and may not go.
struct MadeChannels {
    by: HashMap<u64, List<Channel>, SecretHash>,
    of: fn(&mut Channel) -> Option<&mut Link>,
}

/// See the module.
pub(super) struct Makers {
    hash: SecretHash,
    users: MadeChannels,
    prefixes: MadeChannels,
    /// Two rows of token buckets. There while somebody made something.
    rates: Option<Box<[[Bucket; BUCKETS]; 2]>>,
}

impl Maker {
    /// The client that publishes; `None` for a service, whose key says that it is trusted.
    pub(super) fn of(draft: &Draft, makers: &Makers) -> Option<Self> {
        let info = draft.record.publisher.as_ref()?;
        let client = info.client.0;
        let connection = makers.hash.of(&client.to_le_bytes());
        Some(Self {
            connection,
            user: match &*info.user {
                "" => connection,
                user => {
                    let tenant = draft.record.channel.tenant();
                    makers.hash.of(tenant.whole(user).as_bytes())
                }
            },
            prefix: u64::from(draft.prefix),
        })
    }

    /// What its channel remembers.
    pub(super) fn made(self) -> Box<Made> {
        Box::new(Made {
            user: self.user,
            prefix: self.prefix,
            by_user: Link::default(),
            by_prefix: Link::default(),
        })
    }
}

impl MadeChannels {
    fn new(key: &Key, of: fn(&mut Channel) -> Option<&mut Link>) -> Self {
        Self {
            by: HashMap::with_hasher(SecretHash::new(key)),
            of,
        }
    }

    fn add(&mut self, channels: &mut Slab<Channel>, key: u64, slot: u32) {
        let of = self.of;
        let list = self.by.entry(key).or_insert_with(|| List::new(of));
        list.push(channels, slot);
    }

    fn remove(&mut self, channels: &mut Slab<Channel>, key: u64, slot: u32) {
        let Some(list) = self.by.get_mut(&key) else {
            unreachable!("whoever has made a channel has a list");
        };
        list.remove(channels, slot);
        if list.len() == 0 {
            self.by.remove(&key);
        }
        if self.by.capacity() > 1024 && self.by.len() < self.by.capacity() / 8 {
            self.by.shrink_to(self.by.len() * 2);
        }
    }

    /// Writes the channels of each, in their order.
    fn write(
        &self,
        channels: &Slab<Channel>,
        link_of: impl Fn(&Channel) -> Option<&Link> + Copy,
        out: &mut ImageWriter,
    ) {
        let Self { by, of: _ } = self;
        let mut keys: Vec<u64> = by.keys().copied().collect();
        keys.sort_unstable();
        out.length(keys.len());
        for key in keys {
            key.write(out);
            by[&key].write(channels, link_of, out);
        }
    }

    /// Reads what `write` has written; whose a channel is says `key_of`.
    fn read(
        &mut self,
        channels: &mut Slab<Channel>,
        from: &mut ImageReader<'_>,
        key_of: impl Fn(&Made) -> u64,
    ) -> Result<(), ImageError> {
        for _ in 0..from.length()? {
            let key = u64::read(from)?;
            let is_its = |channel: &Channel| {
                let made = channel.made.as_deref().map(&key_of);
                channel.interest == 0 && made == Some(key)
            };
            let list = List::read(self.of, channels, from, is_its)?;
            if list.len() == 0 || self.by.insert(key, list).is_some() {
                return Err(ImageError::Wrong { what: "a maker" });
            }
        }
        Ok(())
    }

    /// The oldest channel of this maker that may go, if it has reached `limit`.
    fn oldest_over(
        &mut self,
        channels: &mut Slab<Channel>,
        key: u64,
        limit: u32,
    ) -> Result<Option<u32>, MakerFull> {
        let Some(list) = self.by.get_mut(&key) else {
            return Ok(None);
        };
        if limit == 0 || list.len() < limit {
            return Ok(None);
        }
        first_that_may_go(list, channels).map(Some).ok_or(MakerFull)
    }
}

/// The maker has reached its limit, and nothing of it may go.
#[derive(Debug)]
pub(super) struct MakerFull;

/// The first channel of a list that may be forgotten. Those that may not are put at the end, lest they be looked at each time.
pub(super) fn first_that_may_go(
    list: &mut List<Channel>,
    channels: &mut Slab<Channel>,
) -> Option<u32> {
    for _ in 0..LOOKED_AT_FOR_ONE {
        let slot = list.first()?;
        if channels.of(slot).may_go() {
            return Some(slot);
        }
        list.touch(channels, slot);
    }
    None
}

impl Makers {
    pub(super) fn new(key: &Key) -> Self {
        Self {
            hash: SecretHash::new(&key.derive("makers")),
            users: MadeChannels::new(&key.derive("makers by user"), |channel| {
                Some(&mut channel.made.as_mut()?.by_user)
            }),
            prefixes: MadeChannels::new(&key.derive("makers by prefix"), |channel| {
                Some(&mut channel.made.as_mut()?.by_prefix)
            }),
            rates: None,
        }
    }

    /// May this client make something now? It is counted if so.
    pub(super) fn take(&mut self, now: Instant, maker: Maker, rules: &ChannelRules) -> bool {
        let limits = [
            (maker.connection, rules.new_rate_limit),
            (maker.user, rules.new_rate_limit_per_user),
            (maker.prefix, rules.new_rate_limit_per_prefix),
        ];
        let mut full = [None; 3];
        for (at, (key, per_second)) in limits.into_iter().enumerate() {
            // A user may stand for its connection: the two are counted apart.
            let cells = cells(key.wrapping_add(at as u64));
            if key == 0 || per_second == 0 {
                continue;
            }
            let pace = Pace::new(per_second.into(), BURST_SECONDS * u64::from(per_second));
            let rates = self.rates.get_or_insert_with(empty_rates);
            let mut least = rates[0][cells[0]].min(rates[1][cells[1]]);
            if least.take(now, 1, pace).is_err() {
                return false;
            }
            full[at] = Some((cells, least));
        }
        if let Some(rates) = &mut self.rates {
            for (cells, least) in full.into_iter().flatten() {
                for (row, cell) in rates.iter_mut().zip(cells) {
                    row[cell] = row[cell].max(least);
                }
            }
        }
        true
    }

    /// Nobody has made anything of late: what counted them is given back.
    pub(super) fn rest(&mut self, now: Instant) {
        let is_over =
            |rates: &[[Bucket; BUCKETS]; 2]| rates.iter().flatten().all(|one| one.is_full(now));
        if self.rates.as_deref().is_some_and(is_over) {
            self.rates = None;
        }
    }

    /// The client makes one channel more: which of its own go for it.
    pub(super) fn over_limit(
        &mut self,
        channels: &mut Slab<Channel>,
        maker: Maker,
        rules: &ChannelRules,
    ) -> Result<Option<u32>, MakerFull> {
        let of_user = self
            .users
            .oldest_over(channels, maker.user, rules.kept_limit_per_user)?;
        if of_user.is_some() {
            return Ok(of_user);
        }
        let limit = rules.kept_limit_per_prefix;
        self.prefixes.oldest_over(channels, maker.prefix, limit)
    }

    /// A channel has no subscriber: it is filed if a client made it.
    pub(super) fn add(&mut self, channels: &mut Slab<Channel>, slot: u32) {
        let Some((user, prefix)) = makers_of(channels, slot) else {
            return;
        };
        self.users.add(channels, user, slot);
        if prefix != 0 {
            self.prefixes.add(channels, prefix, slot);
        }
    }

    /// A channel without subscribers gets one, or is about to be forgotten: it is not filed any more.
    pub(super) fn remove(&mut self, channels: &mut Slab<Channel>, slot: u32) {
        let Some((user, prefix)) = makers_of(channels, slot) else {
            return;
        };
        self.users.remove(channels, user, slot);
        if prefix != 0 {
            self.prefixes.remove(channels, prefix, slot);
        }
    }
}

/// User and prefix of the client that made a channel; `None` if no client did.
fn makers_of(channels: &Slab<Channel>, slot: u32) -> Option<(u64, u64)> {
    let made = channels.of(slot).made.as_ref()?;
    Some((made.user, made.prefix))
}

impl Makers {
    pub(super) fn write(&self, channels: &Slab<Channel>, out: &mut ImageWriter) {
        let Self {
            hash: _,
            users,
            prefixes,
            rates,
        } = self;
        users.write(
            channels,
            |channel| Some(&channel.made.as_ref()?.by_user),
            out,
        );
        prefixes.write(
            channels,
            |channel| Some(&channel.made.as_ref()?.by_prefix),
            out,
        );
        rates.is_some().write(out);
        for row in rates.iter().flat_map(|rows| rows.iter()) {
            out.sparse(row, &Bucket::default());
        }
    }

    /// Reads it, with the same key.
    pub(super) fn read(
        key: &Key,
        channels: &mut Slab<Channel>,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        let mut makers = Self::new(key);
        makers.users.read(channels, from, |made| made.user)?;
        makers.prefixes.read(channels, from, |made| made.prefix)?;
        if bool::read(from)? {
            for row in makers.rates.insert(empty_rates()).iter_mut() {
                from.sparse(row)?;
            }
        }
        Ok(makers)
    }
}

fn empty_rates() -> Box<[[Bucket; BUCKETS]; 2]> {
    let cells = vec![[Bucket::default(); BUCKETS]; 2].into_boxed_slice();
    cells.try_into().expect("two rows")
}

/// The two buckets of a key that is a hash.
const fn cells(key: u64) -> [usize; 2] {
    let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [
        (key % BUCKETS as u64) as usize,
        ((mixed >> 40) % BUCKETS as u64) as usize,
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn maker(connection: u64, user: u64, prefix: u64) -> Maker {
        let mix = |n: u64| {
            if n == 0 {
                0
            } else {
                n.wrapping_mul(0xdead_beef_1234_5671)
            }
        };
        Maker {
            connection: mix(connection),
            user: mix(user),
            prefix: mix(prefix),
        }
    }

    fn rules(connection: u32, user: u32, prefix: u32) -> ChannelRules {
        ChannelRules {
            new_rate_limit: connection,
            new_rate_limit_per_user: user,
            new_rate_limit_per_prefix: prefix,
            ..ChannelRules::default()
        }
    }

    fn taken(
        makers: &mut Makers,
        at: Instant,
        who: impl Fn(u64) -> Maker,
        rules: &ChannelRules,
    ) -> u64 {
        (0..100_000)
            .take_while(|&n| makers.take(at, who(n), rules))
            .count() as u64
    }

    #[test]
    fn connection_user_and_prefix_each_have_a_rate_and_ten_seconds_of_it_at_once() {
        let now = Instant(5_000_000_000);
        let rules = rules(10, 20, 40);
        let mut makers = Makers::new(&Key::new([1; 32]));
        let one = |_| maker(1, 1001, 2001);
        assert_eq!(taken(&mut makers, now, one, &rules), 100, "a connection");
        let user = |n| maker(10 + n, 1001, 2001);
        assert_eq!(
            taken(&mut makers, now, user, &rules),
            100,
            "its user has 200"
        );
        let prefix = |n| maker(100_000 + n, 200_000 + n, 2001);
        assert_eq!(
            taken(&mut makers, now, prefix, &rules),
            200,
            "the prefix has 400"
        );
        assert!(
            makers.take(now, maker(7, 8, 9), &rules),
            "others do not notice"
        );
        assert!(makers.take(now + Duration::from_secs(1), one(0), &rules));
        assert_eq!(
            taken(&mut makers, now + Duration::from_secs(60), one, &rules),
            100
        );
    }

    #[test]
    fn rate_of_nothing_is_off_and_a_prefix_that_is_not_known_has_none() {
        let mut makers = Makers::new(&Key::new([1; 32]));
        let now = Instant(1_000_000_000);
        let one = |_| maker(1, 2, 3);
        assert_eq!(taken(&mut makers, now, one, &rules(0, 0, 0)), 100_000);
        assert!(makers.rates.is_none());
        let unknown = |_| maker(1, 2, 0);
        assert_eq!(taken(&mut makers, now, unknown, &rules(0, 0, 1)), 100_000);
        assert_eq!(taken(&mut makers, now, one, &rules(0, 0, 1)), 10);
        makers.rest(now);
        assert!(makers.rates.is_some());
        makers.rest(now + Duration::from_secs(BURST_SECONDS));
        assert!(
            makers.rates.is_none(),
            "nothing is held for those who are gone"
        );
    }
}

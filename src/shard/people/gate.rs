//! What the node lets in (`spec/centrifuge.md` §1.3). One shard keeps the gate of all: a count is only exact in one place.

use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashMap;

use crate::config::Client;
use crate::image::{Image, ImageError, ImageReader, ImageWriter, image};
use crate::limits::{PREFIXES_MAX, RETRY_AFTER_MAX};
use crate::mem::{Bucket, Key, Pace, SecretHash};
use crate::mesh::message::{Prefix, TurnedAway};
use crate::time::Instant;

/// Prefixes are looked through for those that nobody needs at most this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Gate {
    inside: u32,
    rate: Turnstile,
    prefixes: HashMap<Prefix, PrefixClients, SecretHash>,
    swept: Instant,
}

/// Clients of one prefix.
#[derive(Default)]
struct PrefixClients {
    inside: u32,
    rate: Turnstile,
}

/// A bucket whose refused ones are told to come back one after the other, as tokens come.
#[derive(Clone, Copy, Default)]
struct Turnstile {
    rate: Bucket,
    /// When the last one who found no token was told to come back.
    booked: Instant,
}

const SECOND_NS: u64 = 1_000_000_000;
/// Stands for every prefix that came when the table was full: it is that of no address.
const OTHERS: Prefix = Prefix {
    bits: u128::MAX,
    is_v4: true,
};

impl Turnstile {
    /// Takes a token; how long to wait if there is none.
    fn take(&mut self, now: Instant, per_second: u32) -> Result<(), Duration> {
        let Err(wait) = self.rate.take(now, 1, Pace::per_second(per_second)) else {
            return Ok(());
        };
        let token = SECOND_NS / u64::from(per_second.max(1));
        let booked = (now + wait).0.max(self.booked.0 + token);
        self.booked = Instant(booked).min(now + RETRY_AFTER_MAX);
        Err(self.booked.since(now))
    }

    /// Nobody took of it of late.
    const fn is_full(self, now: Instant) -> bool {
        self.rate.is_full(now)
    }
}

image!(struct Turnstile { rate, booked });
image!(struct PrefixClients { inside, rate });
image!(struct Prefix { bits, is_v4 });

/// Is a limit set, and reached?
const fn is_reached(limit: u32, inside: u32) -> bool {
    limit > 0 && inside >= limit
}

impl Gate {
    pub(super) fn new(key: &Key) -> Self {
        Self {
            inside: 0,
            rate: Turnstile::default(),
            prefixes: HashMap::with_hasher(SecretHash::new(key)),
            swept: Instant::START,
        }
    }

    /// Lets one more in, or says why not: under which prefix it is counted. A refused one takes no place and no token.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        client: &Client,
        prefix: Option<Prefix>,
    ) -> Result<Option<Prefix>, TurnedAway> {
        if is_reached(client.connection_limit, self.inside) {
            return Err(TurnedAway::Full);
        }
        let mut rate = self.rate;
        if client.connection_rate_limit > 0
            && let Err(wait) = rate.take(now, client.connection_rate_limit)
        {
            self.rate = rate;
            return Err(TurnedAway::TooFast(wait));
        }
        let counted = match prefix {
            Some(prefix) => {
                let counted = self.place_of(now, prefix);
                self.enter_prefix(now, client, counted)?;
                Some(counted)
            }
            None => None,
        };
        self.rate = rate;
        self.inside += 1;
        Ok(counted)
    }

    /// Under which prefix a client is counted: its own, or the one that all share who came when the table was full.
    fn place_of(&mut self, now: Instant, prefix: Prefix) -> Prefix {
        let has_place =
            |gate: &Self| gate.prefixes.len() < PREFIXES_MAX || gate.prefixes.contains_key(&prefix);
        if !has_place(self) {
            self.sweep(now);
        }
        if has_place(self) { prefix } else { OTHERS }
    }

    fn enter_prefix(
        &mut self,
        now: Instant,
        client: &Client,
        prefix: Prefix,
    ) -> Result<(), TurnedAway> {
        let group = self.prefixes.entry(prefix).or_default();
        if is_reached(client.connection_limit_per_prefix, group.inside) {
            return Err(TurnedAway::PrefixFull);
        }
        if client.connection_rate_limit_per_prefix > 0 {
            (group.rate)
                .take(now, client.connection_rate_limit_per_prefix)
                .map_err(TurnedAway::PrefixTooFast)?;
        }
        group.inside += 1;
        Ok(())
    }

    /// Forgets prefixes that nobody is from and whose bucket is full.
    fn sweep(&mut self, now: Instant) {
        if now.since(self.swept) < SWEEP_INTERVAL && self.swept != Instant::START {
            return;
        }
        self.swept = now;
        self.prefixes
            .retain(|_, group| group.inside > 0 || !group.rate.is_full(now));
    }

    /// One has left.
    pub(super) fn leave(&mut self, now: Instant, prefix: Option<Prefix>) {
        self.inside = self.inside.saturating_sub(1);
        if let Some(prefix) = prefix
            && let Some(group) = self.prefixes.get_mut(&prefix)
        {
            group.inside = group.inside.saturating_sub(1);
            if group.inside == 0 && group.rate.is_full(now) {
                self.prefixes.remove(&prefix);
            }
        }
        self.sweep_some(now);
    }

    fn sweep_some(&mut self, now: Instant) {
        if now.since(self.swept) >= SWEEP_INTERVAL * 60 {
            self.sweep(now);
        }
    }

    /// These were inside before anybody counted.
    pub(super) const fn adopt(&mut self, count: u32) {
        self.inside = self.inside.saturating_add(count);
    }

    pub(super) const fn inside(&self) -> u32 {
        self.inside
    }

    pub(super) fn prefixes(&self) -> usize {
        self.prefixes.len()
    }
}

impl Gate {
    pub(super) fn write(&self, out: &mut ImageWriter) {
        let Self {
            inside,
            rate,
            prefixes,
            swept,
        } = self;
        inside.write(out);
        rate.write(out);
        out.map(prefixes.iter());
        swept.write(out);
    }

    pub(super) fn read(key: &Key, from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let mut gate = Self::new(key);
        gate.inside = Image::read(from)?;
        gate.rate = Image::read(from)?;
        from.map(|prefix, group| gate.prefixes.insert(prefix, group))?;
        gate.swept = Image::read(from)?;
        Ok(gate)
    }
}

/// The prefix of an address that limits are for.
pub(super) fn prefix_of(client: &Client, address: IpAddr) -> Prefix {
    let keep = |bits: u128, width: u32, length: u8| {
        let drop = width - u32::from(length).min(width);
        if drop >= 128 { 0 } else { bits >> drop << drop }
    };
    match address.to_canonical() {
        IpAddr::V4(v4) => Prefix {
            bits: keep(u128::from(u32::from(v4)), 32, client.ipv4_prefix),
            is_v4: true,
        },
        IpAddr::V6(v6) => Prefix {
            bits: keep(u128::from(v6), 128, client.ipv6_prefix),
            is_v4: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    fn from(text: &str, client: &Client) -> Option<Prefix> {
        Some(prefix_of(client, text.parse().unwrap()))
    }

    #[test]
    fn count_is_never_above_the_limit_and_a_place_that_is_left_is_given_again() {
        let client = Client {
            connection_limit: 2,
            ..Client::default()
        };
        let mut gate = Gate::new(&Key::new([1; 32]));
        assert_eq!(gate.enter(at(0), &client, None), Ok(None));
        assert_eq!(gate.enter(at(0), &client, None), Ok(None));
        assert_eq!(gate.enter(at(0), &client, None), Err(TurnedAway::Full));
        gate.leave(at(1), None);
        assert_eq!(gate.enter(at(1), &client, None), Ok(None));
        assert_eq!(gate.inside(), 2);
    }

    #[test]
    fn rate_allows_a_burst_of_one_second_and_then_its_pace() {
        let client = Client {
            connection_rate_limit: 10,
            ..Client::default()
        };
        let mut gate = Gate::new(&Key::new([1; 32]));
        let now = at(5000);
        for _ in 0..10 {
            assert_eq!(gate.enter(now, &client, None), Ok(None));
        }
        let wait = Duration::from_millis(100);
        assert_eq!(
            gate.enter(now, &client, None),
            Err(TurnedAway::TooFast(wait))
        );
        for place in 2..5 {
            assert_eq!(
                gate.enter(now, &client, None),
                Err(TurnedAway::TooFast(wait * place)),
                "whoever is refused comes back behind those before it"
            );
        }
        assert_eq!(gate.enter(at(5100), &client, None), Ok(None));
        assert!(gate.enter(at(5100), &client, None).is_err());
        for _ in 0..10 {
            assert_eq!(gate.enter(at(7000), &client, None), Ok(None));
        }
        assert!(
            gate.enter(at(7000), &client, None).is_err(),
            "no more than a second is saved up"
        );
    }

    #[test]
    fn prefixes_have_their_own_counts_and_buckets() {
        let client = Client {
            connection_limit_per_prefix: 1,
            ..Client::default()
        };
        let mut gate = Gate::new(&Key::new([1; 32]));
        let (a, b) = (from("10.0.0.1", &client), from("10.0.0.2", &client));
        assert_eq!(gate.enter(at(0), &client, a), Ok(a));
        assert_eq!(gate.enter(at(0), &client, a), Err(TurnedAway::PrefixFull));
        assert_eq!(gate.enter(at(0), &client, b), Ok(b));
        assert_eq!(
            gate.enter(at(0), &client, from("::ffff:10.0.0.2", &client)),
            Err(TurnedAway::PrefixFull),
            "an IPv4 address written as IPv6 is the same"
        );
        let (c, d) = (from("2001:db8::1", &client), from("2001:db8::2", &client));
        assert_eq!(gate.enter(at(0), &client, c), Ok(c));
        assert_eq!(
            gate.enter(at(0), &client, d),
            Err(TurnedAway::PrefixFull),
            "one /64"
        );
        gate.leave(at(1), a);
        assert_eq!(gate.enter(at(1), &client, a), Ok(a));
        assert_eq!(
            gate.enter(at(1), &client, None),
            Ok(None),
            "no address, no limit"
        );
        assert_eq!(gate.inside(), 4);
    }

    #[test]
    fn table_of_prefixes_is_bounded_and_who_finds_no_place_shares_one() {
        let client = Client {
            connection_rate_limit_per_prefix: 1,
            connection_limit_per_prefix: 2,
            ..Client::default()
        };
        let mut gate = Gate::new(&Key::new([1; 32]));
        let prefix = |bits| Some(Prefix { bits, is_v4: false });
        for bits in 1..=PREFIXES_MAX as u128 {
            let one = prefix(bits);
            assert_eq!(gate.enter(at(0), &client, one), Ok(one));
            gate.leave(at(0), one);
        }
        let newcomer = prefix(u128::MAX);
        let others = Some(OTHERS);
        assert_eq!(gate.enter(at(500), &client, newcomer), Ok(others));
        assert!(matches!(
            gate.enter(at(500), &client, prefix(u128::MAX - 1)),
            Err(TurnedAway::PrefixTooFast(_))
        ));
        gate.leave(at(600), others);
        assert_eq!(
            gate.enter(at(2000), &client, newcomer),
            Ok(newcomer),
            "the second of the first ones is over"
        );
        assert!(gate.prefixes() < 10);
    }
}

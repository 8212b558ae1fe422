//! Admission of client connections before their handshake is answered (`spec/centrifuge.md` §1.3): how many there are, how
//! fast they come, from where. The gate that counts them is on one shard; the others ask it and wait.

mod gate;

use std::hash::BuildHasher;
use std::net::IpAddr;

use hashbrown::HashMap;

use super::answers::TEXT;
use super::connection::State;
use super::{Peer, Shard};
use crate::config::{Config, TrustedProxy};
use crate::mem::Key;
use crate::mesh::Message;
use crate::mesh::message::{Enter, Prefix, TurnedAway};
use crate::model::{ConnId, ShardId};
use crate::wire::http::RequestHead;
use gate::{Gate, prefix_of};

/// The shard that keeps the gate.
const GATE: ShardId = ShardId(0);

/// See the module.
pub(super) struct Admission {
    gate: Gate,
    /// Connections that admission knows something of, by slot. Empty while nothing is limited.
    places: HashMap<u32, Place, foldhash::fast::FixedState>,
}

/// How far a connection has come.
enum Place {
    /// It was accepted from this address.
    Came(IpAddr),
    /// The gate has been asked.
    Asked,
    /// It is let in, until it closes.
    In(Option<Prefix>),
}

impl Admission {
    pub(super) fn new(key: &Key) -> Self {
        Self {
            gate: Gate::new(key),
            places: HashMap::with_hasher(foldhash::fast::FixedState::with_seed(key.seed())),
        }
    }

    /// Connections that the gate on this shard has let in.
    pub(super) const fn inside(&self) -> u32 {
        self.gate.inside()
    }

    /// Address prefixes that the gate on this shard counts.
    pub(super) fn prefixes(&self) -> usize {
        self.gate.prefixes()
    }

    /// The connection waits for the gate.
    pub(super) fn is_asked(&self, slot: u32) -> bool {
        matches!(self.places.get(&slot), Some(Place::Asked))
    }

    /// Connections of this shard that are let in.
    pub(super) fn here(&self) -> u32 {
        let is_in = |place: &&Place| matches!(place, Place::In(_));
        self.places.values().filter(is_in).count() as u32
    }
}

impl Shard {
    /// A socket was accepted: its address is remembered if a limit needs it, or if it may be that of a proxy.
    pub(super) fn came(&mut self, slot: u32, peer: Peer) {
        self.know_prefix(slot, peer.ip);
        if (self.config.client.limits_prefixes() || !self.config.server.trusted_proxies.is_empty())
            && let Some(address) = peer.ip
        {
            self.admission.places.insert(slot, Place::Came(address));
        }
    }

    /// Where the client of a connection is, as far as that is known.
    fn know_prefix(&mut self, slot: u32, address: Option<IpAddr>) {
        let slot = slot as usize;
        if self.prefixes.len() <= slot {
            self.prefixes.resize(slot + 1, 0);
        }
        let client = &self.config.client;
        self.prefixes[slot] = address.map_or(0, |address| {
            let prefix = prefix_of(client, address);
            (self.prefix_hash.hash_one(prefix) as u32).max(1)
        });
    }

    /// The address that a client's request comes from: the peer's, or what trusted proxies say of it. `None` when no limit of
    /// connections needs it, or on a unix socket that is not trusted.
    pub(super) fn client_address(&mut self, slot: u32, head: &RequestHead<'_>) -> Option<IpAddr> {
        let limits_prefixes = self.config.client.limits_prefixes();
        if !limits_prefixes && self.config.server.trusted_proxies.is_empty() {
            return None;
        }
        let peer = match self.admission.places.get(&slot) {
            Some(Place::Came(address)) => Some(address.to_canonical()),
            Some(Place::Asked | Place::In(_)) => return None,
            None => None,
        };
        let address = forwarded(&self.config, peer, head.headers("X-Forwarded-For"));
        self.know_prefix(slot, address);
        address.filter(|_| limits_prefixes)
    }

    /// May the client's request on this connection be served? If not now, the connection waits, and its request is read
    /// again once the gate has answered.
    pub(super) fn is_let_in(&mut self, slot: u32, address: Option<IpAddr>) -> bool {
        if !self.config.client.limits_connections() {
            return true;
        }
        if let Some(Place::In(_)) = self.admission.places.get(&slot) {
            return true;
        }
        let prefix = address.map(|address| prefix_of(&self.config.client, address));
        self.admission.places.insert(slot, Place::Asked);
        let conn = ConnId {
            slot,
            generation: self.connections.generation(slot),
        };
        if let Some(connection) = self.connections.at_mut(slot) {
            connection.state = State::Waiting;
        }
        let enter = Box::new(Enter { conn, prefix });
        if self.mesh.command(GATE, Message::Enter(enter)).is_err() {
            self.counters.refused_mesh += 1;
            self.turn_away(slot, TurnedAway::Busy);
        }
        false
    }

    /// As the gate: somebody wants in.
    pub(super) fn own_enter(&mut self, from: ShardId, mut enter: Box<Enter>) {
        let client = &self.config.client;
        let entered = self.admission.gate.enter(self.now.at, client, enter.prefix);
        // It leaves under the prefix that it was counted under.
        let result = entered.map(|counted| enter.prefix = counted);
        self.mesh.answer(from, Message::Entered(enter, result));
    }

    /// As the gate: somebody has left.
    pub(super) fn own_exit(&mut self, prefix: Option<Prefix>) {
        self.admission.gate.leave(self.now.at, prefix);
    }

    /// As the gate: a shard has connections that nobody counted.
    pub(super) const fn own_adopt(&mut self, count: u32) {
        self.admission.gate.adopt(count);
    }

    /// The gate has answered.
    pub(super) fn entered(&mut self, enter: &Enter, result: Result<(), TurnedAway>) {
        let ConnId { slot, generation } = enter.conn;
        let waits = self.connections.current(slot, generation).is_some()
            && matches!(self.admission.places.get(&slot), Some(Place::Asked));
        if !waits {
            if result.is_ok() {
                self.mesh
                    .keep(GATE, Message::Exit(enter.prefix.map(Box::new)));
            }
            return;
        }
        match result {
            Ok(()) => {
                self.admission.places.insert(slot, Place::In(enter.prefix));
                if let Some(connection) = self.connections.at_mut(slot)
                    && connection.state == State::Waiting
                {
                    connection.state = State::Head;
                    self.resume(slot);
                }
            }
            Err(turned_away) => self.turn_away(slot, turned_away),
        }
    }

    /// 503, and the connection closes: what a client sends behind its handshake is no request.
    fn turn_away(&mut self, slot: u32, why: TurnedAway) {
        self.admission.places.remove(&slot);
        // It may have been cut meanwhile.
        match self.connections.at_mut(slot) {
            Some(connection) if connection.state == State::Waiting => {
                connection.keep_alive = false;
            }
            _ => return,
        }
        self.drop_held(slot);
        let counter = match why {
            TurnedAway::Full => &mut self.counters.turned_away_limit,
            TurnedAway::TooFast(_) => &mut self.counters.turned_away_rate,
            TurnedAway::PrefixFull => &mut self.counters.turned_away_prefix_limit,
            TurnedAway::PrefixTooFast(_) => &mut self.counters.turned_away_prefix_rate,
            TurnedAway::Busy => &mut self.counters.turned_away_busy,
        };
        *counter += 1;
        let wait = match why {
            TurnedAway::TooFast(wait) | TurnedAway::PrefixTooFast(wait) => Some(wait),
            TurnedAway::Busy => Some(std::time::Duration::from_secs(1)),
            TurnedAway::Full | TurnedAway::PrefixFull => None,
        };
        let seconds = wait.map(|wait| wait.as_secs_f64().ceil().max(1.0).to_string());
        let headers: Vec<(&str, &str)> = seconds
            .iter()
            .map(|seconds| ("Retry-After", seconds.as_str()))
            .collect();
        // Its body may be still to come, and must not take the answer from it.
        if self
            .write_answer(slot, 503, TEXT, &headers, b"too many connections\n")
            .is_some()
        {
            self.linger(slot);
        }
    }

    /// A connection is gone: its place is free. One that still waits gives it back when the gate answers.
    pub(super) fn leave_place(&mut self, slot: u32) {
        if let Some(Place::In(prefix)) = self.admission.places.remove(&slot) {
            self.mesh.keep(GATE, Message::Exit(prefix.map(Box::new)));
        }
    }

    /// Limits came with a new configuration: who is inside already counts, from now on.
    pub(super) fn count_insiders(&mut self) {
        let mut count = 0;
        for (slot, connection) in self.connections.iter() {
            let is_known = matches!(
                self.admission.places.get(&slot),
                Some(Place::In(_) | Place::Asked)
            );
            if connection.is_session && !is_known {
                self.admission.places.insert(slot, Place::In(None));
                count += 1;
            }
        }
        if count > 0 {
            self.mesh.keep(GATE, Message::Adopt(count));
        }
    }
}

/// The last hop of `X-Forwarded-For` that no trusted proxy stands for. Each trusted one vouches for the hop before it; text
/// that is no address is vouched for by nobody.
fn forwarded<'h>(
    config: &Config,
    peer: Option<IpAddr>,
    lines: impl Iterator<Item = &'h str>,
) -> Option<IpAddr> {
    let trusted = |hop: Option<IpAddr>| {
        config
            .server
            .trusted_proxies
            .iter()
            .any(|proxy| match proxy {
                TrustedProxy::Unix => hop.is_none(),
                TrustedProxy::Network(network) => hop.is_some_and(|hop| network.contains(hop)),
            })
    };
    if !trusted(peer) {
        return peer;
    }
    let mut hops: Vec<&str> = lines.flat_map(|line| line.split(',')).collect();
    let mut nearest = peer;
    while let Some(hop) = hops.pop() {
        // Some proxies write the port as well.
        let hop = hop.trim();
        let with_port = || hop.parse::<std::net::SocketAddr>().map(|hop| hop.ip());
        let Ok(hop) = hop.parse::<IpAddr>().or_else(|_| with_port()) else {
            break;
        };
        nearest = Some(hop.to_canonical());
        if !trusted(nearest) {
            break;
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_untrusted_hop_is_the_client() {
        let mut config = Config::built_in();
        config.server.trusted_proxies = ["10.0.0.0/8", "192.168.1.1", "unix"]
            .map(|text| TrustedProxy::parse(text).unwrap())
            .to_vec();
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let cases: &[(Option<&str>, &[&str], Option<&str>)] = &[
            (Some("8.8.8.8"), &["1.1.1.1"], Some("8.8.8.8")),
            (Some("10.1.1.1"), &["1.1.1.1"], Some("1.1.1.1")),
            (
                Some("10.1.1.1"),
                &["6.6.6.6, 1.1.1.1, 10.2.2.2"],
                Some("1.1.1.1"),
            ),
            (
                Some("10.1.1.1"),
                &["6.6.6.6", "2.2.2.2", "192.168.1.1"],
                Some("2.2.2.2"),
            ),
            (Some("10.1.1.1"), &["10.3.3.3"], Some("10.3.3.3")),
            (Some("10.1.1.1"), &["1.1.1.1, junk"], Some("10.1.1.1")),
            (Some("10.1.1.1"), &["::ffff:1.1.1.1"], Some("1.1.1.1")),
            (Some("10.1.1.1"), &[], Some("10.1.1.1")),
            (None, &["1.1.1.1"], Some("1.1.1.1")),
        ];
        for (peer, lines, wanted) in cases {
            let found = forwarded(&config, peer.and_then(address), lines.iter().copied());
            assert_eq!(found, wanted.and_then(address), "{peer:?} {lines:?}");
        }
        config.server.trusted_proxies.clear();
        assert_eq!(forwarded(&config, None, ["1.1.1.1"].into_iter()), None);
    }
}

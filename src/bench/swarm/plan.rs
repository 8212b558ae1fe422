//! What the swarm is to be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::super::driver::Driver;

/// Connections from one source address.
const CLIENTS_PER_SOURCE: u32 = 20_000;
/// Their ports begin here, above what services use.
const PORT_FIRST: u16 = 12_000;
const _: () = assert!(
    PORT_FIRST as u32 + CLIENTS_PER_SOURCE < 32_768,
    "the ports must stay below the ephemeral range"
);

/// What the swarm is to be.
pub(crate) struct Plan {
    /// The server.
    pub(crate) address: SocketAddr,
    /// `Host` header.
    pub(crate) host: String,
    /// Protocol.
    pub(crate) driver: Driver,
    /// Subscribers.
    pub(crate) connections: u32,
    /// Channels in all.
    pub(crate) channels: u32,
    /// Channels of each subscriber; at most `channels`.
    pub(crate) subscriptions: u32,
    /// Payload bytes.
    pub(crate) size: usize,
    /// The smallest text of a publish: the limit's are padded to those of the server.
    pub(crate) publish_bytes_min: usize,
    /// Publish over HTTP with this key.
    pub(crate) api_key: Option<String>,
    /// There is a client that only publishes.
    pub(crate) has_publisher: bool,
    /// Connections between connect and join at any time.
    pub(crate) concurrency: u32,
}

impl Plan {
    /// The channels of a subscriber.
    pub(crate) fn channels_of(&self, client: u32) -> impl Iterator<Item = u32> + use<> {
        let (first, count, all) = (
            client * self.subscriptions,
            self.subscriptions,
            self.channels,
        );
        (0..count).map(move |place| (first + place) % all)
    }

    /// The number of the subscription of a client to a channel.
    #[inline]
    pub(super) fn subscription(&self, client: u32, channel: u32) -> Option<u32> {
        let first = client * self.subscriptions;
        if self.channels == 1 {
            return (channel == 0).then_some(first);
        }
        let place = (channel.checked_add(self.channels)? - first % self.channels) % self.channels;
        (place < self.subscriptions && channel < self.channels).then_some(first + place)
    }

    /// Large swarms on loopback come from several addresses, since one has too few ports. `salt` keeps a run clear of
    /// the lingering ports of the one before. Ports are chosen here: the kernel's search for a free one takes longer
    /// with every socket bound. A bind that fails leaves the choice to the connect.
    pub(super) fn source(&self, index: u32, salt: u8) -> Option<SocketAddr> {
        let IpAddr::V4(target) = self.address.ip() else {
            return None;
        };
        if !target.is_loopback() || self.connections < CLIENTS_PER_SOURCE {
            return None;
        }
        let host = 2 + (index / CLIENTS_PER_SOURCE) as u8;
        let port = PORT_FIRST + (index % CLIENTS_PER_SOURCE) as u16;
        Some(SocketAddr::new(
            IpAddr::V4(Ipv4Addr::new(127, salt.max(1), 0, host)),
            port,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(connections: u32, channels: u32, subscriptions: u32) -> Plan {
        Plan {
            address: "127.0.0.1:1".parse().unwrap(),
            host: String::new(),
            driver: Driver::Script { steps: Vec::new() },
            connections,
            channels,
            subscriptions,
            size: 128,
            publish_bytes_min: 0,
            api_key: None,
            has_publisher: true,
            concurrency: 1,
        }
    }

    #[test]
    fn subscription_is_found_by_client_and_channel_and_by_no_other() {
        let plan = plan(20, 7, 3);
        for client in 0..20 {
            let own: Vec<u32> = plan.channels_of(client).collect();
            for channel in 0..9 {
                let expected = own
                    .iter()
                    .position(|own| *own == channel)
                    .map(|place| client * 3 + place as u32);
                assert_eq!(plan.subscription(client, channel), expected);
            }
        }
    }

    #[test]
    fn large_swarm_comes_from_several_addresses_of_the_loopback() {
        assert_eq!(plan(15_000, 1, 1).source(14_999, 7), None);
        let large = plan(100_000, 1, 1);
        let sources: std::collections::BTreeSet<_> =
            (0..100_000).map(|index| large.source(index, 7)).collect();
        assert_eq!(sources.len(), 100_000);
        assert_ne!(large.source(0, 7), large.source(99_999, 7));
        assert!(large.source(99_999, 7).unwrap().ip().is_loopback());
    }
}

//! Where a request comes from when it came through proxies.

use std::net::IpAddr;

use crate::config::{Config, TrustedProxy};

/// The last hop of `X-Forwarded-For` that no trusted proxy stands for. Each trusted one vouches for the hop before it; text
/// that is no address is vouched for by nobody.
pub(super) fn forwarded<'h>(
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

//! Names under which a browser reaches this host and no stranger's page.

use std::net::IpAddr;

/// Is this `Host` an address, `localhost`, or one of `names`? Those are exact, or begin with `*` for any beginning.
pub(super) fn is_trusted(host: &str, names: &[String]) -> bool {
    let name = without_port(host);
    let is_address = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(name)
        .parse::<IpAddr>()
        .is_ok();
    // A browser takes a name with a final dot for the same one, and so does every name server.
    let name = self::name(name);
    let is_localhost = name.eq_ignore_ascii_case("localhost")
        || name
            .len()
            .checked_sub(".localhost".len())
            .and_then(|at| name.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(".localhost"));
    is_address || is_localhost || names.iter().any(|pattern| is_named(name, pattern))
}

fn is_named(name: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => name.eq_ignore_ascii_case(pattern),
        Some(end) => name
            .len()
            .checked_sub(end.len())
            .and_then(|at| name.get(at..))
            .is_some_and(|tail| tail.eq_ignore_ascii_case(end)),
    }
}

/// The name in a `Host`, as name servers take it: without a port and without a final dot.
pub(super) fn name(host: &str) -> &str {
    let name = without_port(host);
    name.strip_suffix('.').unwrap_or(name)
}

/// The host of `host:port`; an IPv6 address stands in brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_named_hosts_are_trusted_and_nothing_else() {
        let names = ["probe.internal".to_owned(), "*.cluster.local".to_owned()];
        for host in [
            "127.0.0.1",
            "127.0.0.1:8001",
            "10.1.2.3:1",
            "[::1]",
            "[::1]:8001",
            "localhost",
            "LOCALHOST:80",
            "localhost.:80",
            "a.localhost:1",
            "probe.internal:8001",
            "Probe.Internal",
            "edge.ns.cluster.local",
        ] {
            assert!(is_trusted(host, &names), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "probe.internal.evil.example:8001",
            "xprobe.internal",
            "cluster.local",
            "127.0.0.1:80:80",
            "evil.example:127.0.0.1",
            "2130706433.evil",
        ] {
            assert!(!is_trusted(host, &names), "{host}");
        }
        assert!(is_trusted("anything.example", &["*".to_owned()]));
    }
}

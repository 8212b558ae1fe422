//! What the kernel of this host has dropped: of all that goes through it, not of one process alone.

use std::fs;
use std::path::Path;

use super::{Finding, State};

/// A counter: its place in `/proc`, what is said of it, and what helps.
struct Counted {
    name: &'static str,
    subject: &'static str,
    why: &'static str,
}

const COUNTED: [Counted; 7] = [
    Counted {
        name: "ListenOverflows",
        subject: "full accept queues (ListenOverflows)",
        why: "somebody was turned away at a full queue: raise net.core.somaxconn and server.backlog, or add shards",
    },
    Counted {
        name: "SyncookiesSent",
        subject: "half-open connections over the limit (SyncookiesSent)",
        why: "connections begin faster than they complete: raise net.ipv4.tcp_max_syn_backlog, or look for a flood",
    },
    Counted {
        name: "TCPBacklogDrop",
        subject: "segments behind a busy socket (TCPBacklogDrop)",
        why: "a socket was busy for too long: give the shards cores of their own, raise net.core.rmem_max",
    },
    Counted {
        name: "TCPRcvQDrop",
        subject: "segments that a full receive queue lost (TCPRcvQDrop)",
        why: "memory for sockets was short: raise the maximum of net.ipv4.tcp_mem",
    },
    Counted {
        name: "RcvPruned",
        subject: "received data thrown away (RcvPruned)",
        why: "receive buffers were over their limit: raise the maximum of net.ipv4.tcp_rmem and of net.ipv4.tcp_mem",
    },
    Counted {
        name: "TCPMemoryPressures",
        subject: "shortage of memory for sockets (TCPMemoryPressures)",
        why: "all sockets together came near net.ipv4.tcp_mem: raise its maximum",
    },
    Counted {
        name: SOFTNET,
        subject: "packets that no core took in time (softnet)",
        why: "packets came faster than the kernel takes them: raise net.core.netdev_max_backlog, spread interrupts (tuning/irq-placement.sh)",
    },
];

/// Not a name of the kernel's: the sum of a column of `/proc/net/softnet_stat`.
const SOFTNET: &str = "softnet";

/// The counters since this host, or its network namespace, was started. `None` where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops([Option<u64>; COUNTED.len()]);

impl Drops {
    /// Reads what lies under `proc`.
    #[must_use]
    pub fn read(proc: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(proc.join(path)).unwrap_or_default();
        let (netstat, softnet) = (text("net/netstat"), text("net/softnet_stat"));
        Self(COUNTED.map(|counted| match counted.name {
            SOFTNET => dropped_packets(&softnet),
            name => of_netstat(&netstat, name),
        }))
    }

    /// What has been dropped, and whether it still is: the same counters were read `seconds` before, or now where that is 0.
    #[must_use]
    pub fn judge(&self, before: &Self, seconds: u64) -> Vec<Finding> {
        let values = self.0.iter().zip(&before.0);
        let findings = COUNTED.iter().zip(values);
        findings
            .filter_map(|(counted, (now, before))| {
                let now = (*now)?;
                let fresh = now.saturating_sub(before.unwrap_or(now));
                let found = match (now, fresh) {
                    (0, _) => "none".to_owned(),
                    (_, 0) if seconds == 0 => format!("{now} since the boot"),
                    (_, 0) => format!("{now} since the boot, none in the last {seconds} s"),
                    _ => format!("{now} since the boot, {fresh} in the last {seconds} s"),
                };
                Some(Finding {
                    subject: counted.subject.into(),
                    found,
                    wanted: "none".to_owned(),
                    why: counted.why.into(),
                    // What was once may be long over, and somebody else's.
                    state: if fresh > 0 {
                        State::Problem
                    } else {
                        State::Fine
                    },
                })
            })
            .collect()
    }
}

/// A value of `/proc/net/netstat`: pairs of lines, names and values.
fn of_netstat(text: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = text.lines().collect();
    let (pairs, _) = lines.as_chunks::<2>();
    pairs.iter().find_map(|[names, values]| {
        let at = names.split_whitespace().position(|one| one == name)?;
        values.split_whitespace().nth(at)?.parse().ok()
    })
}

/// The second column of each core, hexadecimal.
fn dropped_packets(text: &str) -> Option<u64> {
    let column = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    let columns: Vec<u64> = text.lines().filter_map(column).collect();
    (!columns.is_empty()).then(|| columns.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names_and_what_grows_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        let net = directory.path().join("net");
        fs::create_dir(&net).unwrap();
        let write = |overflows: u64| {
            let text = format!(
                "TcpExt: SyncookiesSent ListenOverflows Else\nTcpExt: 0 {overflows} 9\nIpExt: A\nIpExt: 1\n"
            );
            fs::write(net.join("netstat"), text).unwrap();
        };
        fs::write(net.join("softnet_stat"), "0a 0000000f 1\n0b 00000001 0\n").unwrap();
        write(5);
        let before = Drops::read(directory.path());
        let found = before.judge(&before, 1);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().all(|one| one.state == State::Fine));
        let of = |found: &[Finding], name: &str| {
            let one = found.iter().find(|one| one.subject.contains(name));
            one.cloned().unwrap()
        };
        assert_eq!(of(&found, "SyncookiesSent").found, "none");
        assert!(of(&found, "softnet").found.starts_with("16 since the boot"));
        write(8);
        let found = Drops::read(directory.path()).judge(&before, 1);
        let overflows = of(&found, "ListenOverflows");
        assert_eq!(overflows.state, State::Problem);
        assert!(
            overflows
                .found
                .contains("8 since the boot, 3 in the last 1 s")
        );
    }

    #[test]
    fn silent_kernel_has_dropped_nothing_that_is_known() {
        let nothing = Drops::read(Path::new("/nowhere"));
        assert!(nothing.judge(&nothing, 1).is_empty());
    }
}

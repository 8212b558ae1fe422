//! Does this host fit? What stands in `/proc`, against what the configuration needs (`spec/io_uring.md` §2.2, §10, §11).
//!
//! `Host::read` reads, everything else is pure.

mod drops;
mod places;

use std::borrow::Cow;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::config::{ReactorChoice, Server};
pub use drops::Drops;
pub use places::places;

/// Oldest kernel with everything that the io_uring reactor uses.
const KERNEL_MIN: (u32, u32) = (6, 12);
/// Entries of one shard's submission queue, of its completion queue, and of its two buffer rings.
const RING_ENTRIES: (u64, u64, u64) = (4096, 65_536, 256 + 1024);
/// Locked bytes of the second ring of a shard's thread, the one for everything that is not a client socket.
const SECOND_RING_BYTES: u64 = 128 * 1024;
/// Descriptors beside client sockets: rings, listeners, files, the admin listener.
const DESCRIPTORS_SPARE: u64 = 256;
/// Bytes that one slow reader should hold in the kernel at most.
const SEND_BUFFER_BYTES: u64 = 262_144;
/// Bit of `CAP_IPC_LOCK` and of `CAP_SYS_ADMIN` (`linux/capability.h`).
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;
/// `AT_PAGESZ` of the auxiliary vector (`getauxval(3)`).
const AT_PAGESZ: usize = 6;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Fine,
    /// It runs, but not as well as it could.
    Advice,
    /// It does not run as configured.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What: the name of a sysctl, a limit, a file, a key, or a part of a running proxy.
    pub subject: Cow<'static, str>,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub wanted: String,
    /// What for, or what helps.
    pub why: Cow<'static, str>,
    /// How much it matters.
    pub state: State,
}

/// What this host says about itself. `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// `kernel.osrelease`
    pub kernel: Option<String>,
    /// `kernel.io_uring_disabled`
    pub io_uring_disabled: Option<u64>,
    /// `/proc/self/status`
    pub status: Status,
    /// Soft limit of open descriptors.
    pub nofile: Option<u64>,
    /// Soft limit of locked bytes; `u64::MAX` is unlimited.
    pub memlock: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of a page.
    pub page: u64,
    /// `fs.file-max`
    pub file_max: Option<u64>,
    /// `net.core.somaxconn`
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`
    pub syn_backlog: Option<u64>,
    /// Maximum of `net.ipv4.tcp_mem`, pages.
    pub tcp_mem_max: Option<u64>,
    /// Maximum of `net.ipv4.tcp_wmem`, bytes.
    pub tcp_wmem_max: Option<u64>,
    /// `net.ipv4.tcp_notsent_lowat`
    pub notsent_lowat: Option<u64>,
    /// `net.ipv4.tcp_slow_start_after_idle`
    pub slow_start_after_idle: Option<u64>,
    /// Number of ports in `net.ipv4.ip_local_port_range`.
    pub ports: Option<u64>,
    /// `net.netfilter.nf_conntrack_max`; absent without the module.
    pub conntrack_max: Option<u64>,
}

/// What `/proc/self/status` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// 0 none, 1 strict, 2 filter.
    pub seccomp: Option<u64>,
    /// Effective capabilities, one bit each.
    pub capabilities: u64,
    /// Cores that the process may use.
    pub cores: Option<u64>,
}

/// Looks at this host.
#[must_use]
pub fn examine(server: &Server) -> Vec<Finding> {
    judge(&Host::read(Path::new("/proc")), server)
}

/// One line each: what matters most comes last, next to the prompt.
///
/// # Errors
/// Those of `out`.
pub fn print(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.state);
    for Finding {
        subject,
        found,
        wanted,
        why,
        state,
    } in sorted
    {
        match state {
            State::Fine => writeln!(out, "fine     {subject}: {found}")?,
            State::Advice => writeln!(out, "advice   {subject}: {found}, better {wanted}: {why}")?,
            State::Problem => {
                writeln!(out, "problem  {subject}: {found}, must be {wanted}: {why}")?
            }
        }
    }
    Ok(())
}

/// The same for programs: everything, and how much of it matters.
#[must_use]
pub fn json(findings: &[Finding]) -> String {
    let count = |state| findings.iter().filter(|one| one.state == state).count();
    serde_json::json!({
        "problems": count(State::Problem),
        "advice": count(State::Advice),
        "findings": findings,
    })
    .to_string()
}

/// Is something wrong?
#[must_use]
pub fn has_problem(findings: &[Finding]) -> bool {
    findings.iter().any(|one| one.state == State::Problem)
}

impl Host {
    /// Reads what lies under `proc`.
    #[must_use]
    pub fn read(proc: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(proc.join(path)).unwrap_or_default();
        let column = |path: &str, at| numbers(&text(path)).get(at).copied();
        let limits = text("self/limits");
        let ports = numbers(&text("sys/net/ipv4/ip_local_port_range"));
        Self {
            kernel: Some(text("sys/kernel/osrelease").trim().to_owned())
                .filter(|text| !text.is_empty()),
            io_uring_disabled: column("sys/kernel/io_uring_disabled", 0),
            status: parse_status(&text("self/status")),
            nofile: soft_limit(&limits, "Max open files"),
            memlock: soft_limit(&limits, "Max locked memory"),
            memory: field(&text("meminfo"), "MemTotal")
                .and_then(|text| Some(numbers(text).first()? * 1024)),
            page: fs::read(proc.join("self/auxv"))
                .ok()
                .and_then(|bytes| page_size(&bytes))
                .unwrap_or(4096),
            file_max: column("sys/fs/file-max", 0),
            somaxconn: column("sys/net/core/somaxconn", 0),
            syn_backlog: column("sys/net/ipv4/tcp_max_syn_backlog", 0),
            tcp_mem_max: column("sys/net/ipv4/tcp_mem", 2),
            tcp_wmem_max: column("sys/net/ipv4/tcp_wmem", 2),
            notsent_lowat: column("sys/net/ipv4/tcp_notsent_lowat", 0),
            slow_start_after_idle: column("sys/net/ipv4/tcp_slow_start_after_idle", 0),
            ports: ports
                .first()
                .zip(ports.get(1))
                .map(|(first, last)| last.saturating_sub(*first) + 1),
            conntrack_max: column("sys/net/netfilter/nf_conntrack_max", 0),
        }
    }

    const fn has(&self, capability: u32) -> bool {
        self.status.capabilities >> capability & 1 == 1
    }
}

/// What a host is worth for a configuration.
#[must_use]
pub fn judge(host: &Host, server: &Server) -> Vec<Finding> {
    let cores = host.status.cores.unwrap_or(1);
    let shards = if server.shards == 0 {
        cores
    } else {
        u64::from(server.shards)
    };
    let mut findings = Vec::new();
    // The portable reactor needs nothing of io_uring; `auto` runs without it, slower.
    let severity = match server.reactor {
        ReactorChoice::Uring => Some(State::Problem),
        ReactorChoice::Auto => Some(State::Advice),
        ReactorChoice::Portable => None,
    };
    if let Some(severity) = severity {
        findings.extend(judge_io_uring(host, shards, severity));
    }
    findings.extend(judge_capacity(host, server, shards, cores));
    findings.extend(judge_network(host, server));
    findings
}

fn judge_io_uring(host: &Host, shards: u64, severity: State) -> Vec<Finding> {
    let worse = |bad: bool| if bad { severity } else { State::Fine };
    let kernel = host.kernel.as_deref().unwrap_or("unknown");
    let old = parse_kernel(kernel).is_none_or(|version| version < KERNEL_MIN);
    let disabled = match host.io_uring_disabled {
        Some(2..) => true,
        Some(1) => !host.has(CAP_SYS_ADMIN),
        _ => false,
    };
    let need = memlock_need(shards);
    let memlock = host.memlock.unwrap_or(0);
    let may_lock = host.has(CAP_IPC_LOCK) || memlock >= need;
    let seccomp = host.status.seccomp.unwrap_or(0);
    vec![
        Finding {
            subject: "kernel".into(),
            found: kernel.to_owned(),
            wanted: format!("{}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1),
            why: "receive buffers are consumed in parts, which older kernels cannot".into(),
            state: worse(old),
        },
        Finding {
            subject: "kernel.io_uring_disabled".into(),
            found: host
                .io_uring_disabled
                .map_or_else(|| "absent".to_owned(), |value| value.to_string()),
            wanted: "0, or 1 with the service's group in kernel.io_uring_group".to_owned(),
            why: "the kernel refuses io_uring to this process".into(),
            state: worse(disabled),
        },
        Finding {
            subject: "seccomp".into(),
            found: if seccomp == 0 {
                "no filter".to_owned()
            } else {
                format!("mode {seccomp}")
            },
            wanted:
                "no filter, or one that allows io_uring_setup, io_uring_enter and io_uring_register"
                    .to_owned(),
            why: "container profiles block these by default".into(),
            state: if seccomp == 0 {
                State::Fine
            } else {
                State::Advice
            },
        },
        Finding {
            subject: "RLIMIT_MEMLOCK".into(),
            found: if host.has(CAP_IPC_LOCK) {
                "CAP_IPC_LOCK".to_owned()
            } else {
                amount(memlock)
            },
            wanted: format!("{} for {shards} shards, or CAP_IPC_LOCK", amount(need)),
            why: "rings are locked memory, counted for all processes of the user".into(),
            state: worse(!may_lock),
        },
    ]
}

fn judge_capacity(host: &Host, server: &Server, shards: u64, cores: u64) -> Vec<Finding> {
    let nofile = host.nofile.unwrap_or(0);
    let per_shard = u64::from(server.connections_per_shard_max);
    // io_uring checks the limit against each shard's table; with epoll every socket of the process counts.
    let nofile_wanted = match server.reactor {
        ReactorChoice::Portable => per_shard * shards + DESCRIPTORS_SPARE,
        ReactorChoice::Auto | ReactorChoice::Uring => per_shard,
    };
    let nofile_state = match nofile {
        0..DESCRIPTORS_SPARE => State::Problem,
        _ if nofile < nofile_wanted => State::Advice,
        _ => State::Fine,
    };
    let connections = shards * per_shard.min(nofile);
    let mut findings = vec![
        Finding {
            subject: "RLIMIT_NOFILE".into(),
            found: nofile.to_string(),
            wanted: format!("{nofile_wanted} or more"),
            why: "connections of a shard are cut to it (server.connections_per_shard_max)".into(),
            state: nofile_state,
        },
        Finding {
            subject: "cores".into(),
            found: format!("{cores} for {shards} shards"),
            wanted: "one for each shard".to_owned(),
            why: "shards that share a core wait for each other".into(),
            state: if shards > cores {
                State::Advice
            } else {
                State::Fine
            },
        },
    ];
    let files = connections + connections / 10 + 100_000;
    findings.extend(at_least(
        "fs.file-max",
        host.file_max,
        files,
        "every socket is a file, also without a descriptor",
    ));
    if let Some(max) = host.conntrack_max {
        let why =
            "a full table drops packets of everybody; or exempt the service ports with NOTRACK";
        findings.extend(at_least(
            "net.netfilter.nf_conntrack_max",
            Some(max),
            connections * 2,
            why,
        ));
    }
    if let (Some(pages), Some(memory)) = (host.tcp_mem_max, host.memory) {
        findings.push(Finding {
            subject: "net.ipv4.tcp_mem (maximum)".into(),
            found: amount(pages.saturating_mul(host.page)),
            wanted: format!("{} (a quarter of the memory)", amount(memory / 4)),
            why: "the kernel's bound for all sockets: over it, data is dropped for everybody"
                .into(),
            // The kernel's own choice at boot is about 9 %.
            state: if pages.saturating_mul(host.page) < memory / 8 {
                State::Advice
            } else {
                State::Fine
            },
        });
    }
    findings
}

fn judge_network(host: &Host, server: &Server) -> Vec<Finding> {
    let backlog = u64::from(server.backlog);
    let found =
        |value: Option<u64>| value.map_or_else(|| "absent".to_owned(), |value| value.to_string());
    let advice = |bad: bool| if bad { State::Advice } else { State::Fine };
    let mut findings = Vec::new();
    findings.extend(at_least(
        "net.core.somaxconn",
        host.somaxconn,
        backlog,
        "server.backlog is cut to it",
    ));
    let why = "half-open connections of a reconnect storm";
    findings.extend(at_least(
        "net.ipv4.tcp_max_syn_backlog",
        host.syn_backlog,
        backlog,
        why,
    ));
    let why = "connections to one address from one address: a load generator runs out of ports";
    findings.extend(at_least(
        "net.ipv4.ip_local_port_range",
        host.ports,
        50_000,
        why,
    ));
    findings.push(Finding {
        subject: "net.ipv4.tcp_wmem (maximum)".into(),
        found: found(host.tcp_wmem_max),
        wanted: SEND_BUFFER_BYTES.to_string(),
        why: "what one slow reader may hold in the kernel before its queue here counts".into(),
        state: advice(host.tcp_wmem_max.is_some_and(|max| max > SEND_BUFFER_BYTES)),
    });
    findings.push(Finding {
        subject: "net.ipv4.tcp_notsent_lowat".into(),
        found: found(host.notsent_lowat),
        wanted: "16384".to_owned(),
        why: "unsent data stays here, where old publications can still be dropped".into(),
        state: advice(
            host.notsent_lowat
                .is_some_and(|bytes| bytes > SEND_BUFFER_BYTES),
        ),
    });
    findings.push(Finding {
        subject: "net.ipv4.tcp_slow_start_after_idle".into(),
        found: found(host.slow_start_after_idle),
        wanted: "0".to_owned(),
        why: "the first burst on a quiet connection would start slowly".into(),
        state: advice(host.slow_start_after_idle.is_some_and(|on| on != 0)),
    });
    findings
}

/// A number that should be at least another; nothing where the host does not tell.
fn at_least(
    subject: &'static str,
    found: Option<u64>,
    wanted: u64,
    why: &'static str,
) -> Option<Finding> {
    let found = found?;
    let state = if found < wanted {
        State::Advice
    } else {
        State::Fine
    };
    Some(Finding {
        subject: subject.into(),
        found: found.to_string(),
        wanted: format!("{wanted} or more"),
        why: why.into(),
        state,
    })
}

/// Bytes that the rings of so many shards lock, with a fifth to spare (`spec/io_uring.md` §2.2).
fn memlock_need(shards: u64) -> u64 {
    let (submissions, completions, buffers) = RING_ENTRIES;
    let shard = 64 * submissions + 16 * completions + 16 * buffers + SECOND_RING_BYTES;
    shards * shard / 5 * 6
}

/// Major and minor number of a release such as `6.12.3-amd64`.
fn parse_kernel(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn parse_status(status: &str) -> Status {
    Status {
        seccomp: field(status, "Seccomp").and_then(|text| text.parse().ok()),
        capabilities: field(status, "CapEff")
            .and_then(|text| u64::from_str_radix(text, 16).ok())
            .unwrap_or(0),
        cores: field(status, "Cpus_allowed_list").and_then(count_list),
    }
}

/// The value of `Name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// How many a list such as `0-3,8` has.
fn count_list(list: &str) -> Option<u64> {
    list.split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            last.checked_sub(first)?.checked_add(1)
        })
        .sum()
}

/// The soft limit in a line of `/proc/self/limits`.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// All numbers at the start of a text.
fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect()
}

/// The page size in an auxiliary vector: pairs of native words.
fn page_size(auxv: &[u8]) -> Option<u64> {
    let (words, _) = auxv.as_chunks::<{ size_of::<usize>() }>();
    let (pairs, _) = words.as_chunks::<2>();
    let [_, value] = pairs
        .iter()
        .find(|[kind, _]| usize::from_ne_bytes(*kind) == AT_PAGESZ)?;
    u64::try_from(usize::from_ne_bytes(*value)).ok()
}

/// Bytes, readable.
fn amount(bytes: u64) -> String {
    match bytes {
        u64::MAX => "unlimited".to_owned(),
        0..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Host {
        Host {
            kernel: Some("6.18.44".to_owned()),
            io_uring_disabled: Some(0),
            status: Status {
                seccomp: Some(0),
                capabilities: 0,
                cores: Some(4),
            },
            nofile: Some(1 << 20),
            memlock: Some(64 << 20),
            memory: Some(64 << 30),
            page: 4096,
            file_max: Some(10_000_000),
            somaxconn: Some(65_535),
            syn_backlog: Some(65_535),
            tcp_mem_max: Some(4 << 20),
            tcp_wmem_max: Some(262_144),
            notsent_lowat: Some(16_384),
            slow_start_after_idle: Some(0),
            ports: Some(60_000),
            conntrack_max: None,
        }
    }

    fn uring() -> Server {
        Server {
            reactor: ReactorChoice::Uring,
            ..Server::default()
        }
    }

    /// Subjects that are not fine, with how much they matter.
    fn complaints(host: &Host, server: &Server) -> Vec<(&'static str, State)> {
        let findings = judge(host, server)
            .into_iter()
            .filter(|finding| finding.state != State::Fine);
        findings
            .map(|finding| match finding.subject {
                Cow::Borrowed(subject) => (subject, finding.state),
                Cow::Owned(subject) => panic!("{subject} is no name of the host's"),
            })
            .collect()
    }

    #[test]
    fn host_that_fits_gets_no_complaint() {
        assert_eq!(complaints(&good(), &uring()), []);
    }

    #[test]
    fn each_obstacle_to_io_uring_is_named() {
        let mut host = good();
        host.kernel = Some("6.1.0-39-amd64".to_owned());
        host.io_uring_disabled = Some(2);
        host.status.seccomp = Some(2);
        host.memlock = Some(64 << 10);
        let wanted = [
            ("kernel", State::Problem),
            ("kernel.io_uring_disabled", State::Problem),
            ("seccomp", State::Advice),
            ("RLIMIT_MEMLOCK", State::Problem),
        ];
        assert_eq!(complaints(&host, &uring()), wanted);
        let auto = complaints(&host, &Server::default());
        assert!(
            auto.iter().all(|(_, state)| *state == State::Advice) && auto.len() == 4,
            "`auto` runs without it"
        );
        let portable = Server {
            reactor: ReactorChoice::Portable,
            ..Server::default()
        };
        assert_eq!(
            complaints(&host, &portable),
            [("RLIMIT_NOFILE", State::Advice)]
        );
    }

    #[test]
    fn capabilities_lift_the_limits_they_stand_for() {
        let mut host = good();
        host.memlock = Some(0);
        host.io_uring_disabled = Some(1);
        host.status.capabilities = 1 << CAP_IPC_LOCK | 1 << CAP_SYS_ADMIN;
        assert_eq!(complaints(&host, &uring()), []);
    }

    #[test]
    fn locked_memory_is_counted_per_shard() {
        // io_uring.md §2.2: about 1.4 MiB a shard, a fifth to spare; six rings fit into 8 MiB, seven do not.
        assert!((1_400_000..1_800_000).contains(&memlock_need(1)));
        let host = Host {
            memlock: Some(8 << 20),
            ..good()
        };
        let server = |shards| Server { shards, ..uring() };
        assert!(
            !complaints(&host, &server(4))
                .iter()
                .any(|(subject, _)| *subject == "RLIMIT_MEMLOCK")
        );
        assert!(complaints(&host, &server(7)).contains(&("RLIMIT_MEMLOCK", State::Problem)));
        assert!(complaints(&host, &server(7)).contains(&("cores", State::Advice)));
    }

    #[test]
    fn small_limits_are_advised_against() {
        let host = Host {
            nofile: Some(1024),
            somaxconn: Some(4096),
            syn_backlog: Some(256),
            file_max: Some(50_000),
            conntrack_max: Some(1000),
            tcp_mem_max: Some(100_000),
            tcp_wmem_max: Some(4 << 20),
            notsent_lowat: Some(u64::from(u32::MAX)),
            slow_start_after_idle: Some(1),
            ports: Some(28_232),
            ..good()
        };
        let complaints = complaints(&host, &uring());
        assert_eq!(complaints.len(), 10, "{complaints:?}");
        assert!(complaints.iter().all(|(_, state)| *state == State::Advice));
    }

    #[test]
    fn silent_host_is_judged_without_panic() {
        let complaints = complaints(&Host::default(), &uring());
        assert!(
            complaints.contains(&("kernel", State::Problem))
                && complaints.contains(&("RLIMIT_NOFILE", State::Problem))
        );
    }

    #[test]
    fn texts_of_proc_are_read() {
        assert_eq!(parse_kernel("6.18.44"), Some((6, 18)));
        assert_eq!(parse_kernel("6.12-rc3"), Some((6, 12)));
        assert_eq!(parse_kernel("unknown"), None);
        let status = "Name:\tx\nCapEff:\t0000000000004000\nSeccomp:\t2\nSeccomp_filters:\t1\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3,8\n";
        assert_eq!(
            parse_status(status),
            Status {
                seccomp: Some(2),
                capabilities: 1 << CAP_IPC_LOCK,
                cores: Some(5)
            }
        );
        let limits = "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 20000                files\nMax locked memory         unlimited            unlimited            bytes\n";
        assert_eq!(soft_limit(limits, "Max open files"), Some(1024));
        assert_eq!(soft_limit(limits, "Max locked memory"), Some(u64::MAX));
        assert_eq!(soft_limit(limits, "Max nothing"), None);
        assert_eq!(numbers("32768\t60999\n"), [32_768, 60_999]);
        assert_eq!(count_list("0-x"), None);
        let auxv: Vec<u8> = [3usize, 9, AT_PAGESZ, 65_536, 0, 0]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        assert_eq!(page_size(&auxv), Some(65_536));
    }

    #[test]
    fn this_host_can_be_examined_and_printed() {
        let findings = examine(&Server::default());
        assert!(
            findings
                .iter()
                .any(|finding| finding.subject == "kernel" && finding.found != "unknown")
        );
        let mut out = Vec::new();
        print(&findings, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap().lines().count(),
            findings.len()
        );
    }
}

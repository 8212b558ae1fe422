//! Can the kernel serve a shard, and if not, why: set-up, operations, behaviour (§10).

use std::fmt;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::{Probe, opcode};

use super::op::{Kind, Sqe};
use super::ring::Ring;
use super::setup::{RingConfig, SetupError, Step};
use super::socket;

/// Optional abilities of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// A receive can be bounded per wake-up (Linux 6.17). Without it a flooding peer gets larger slices.
    pub receive_cap: bool,
    /// Slots of one ring's file table, after the descriptor limit.
    pub slots: u32,
}

/// The hot path cannot run. `Display` names the cause, what was found and what to change.
#[derive(Debug, thiserror::Error)]
#[error("io_uring cannot serve: {cause}. {host}. {remedy}, or start with --reactor portable (more CPU per message, descriptors count against RLIMIT_NOFILE)", remedy = self.cause.remedy())]
pub struct ProbeError {
    /// Why.
    pub cause: Cause,
    /// What was found on this host.
    pub host: Host,
}

/// Why the hot path cannot run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// `ENOSYS`
    #[error(
        "io_uring_setup: ENOSYS, the kernel is built without io_uring or a filter answers for it"
    )]
    Missing,
    /// `EPERM`
    #[error("io_uring_setup: EPERM")]
    Denied,
    /// `ENOMEM`
    #[error(
        "io_uring_setup: ENOMEM, the rings need {needed} bytes of locked memory and RLIMIT_MEMLOCK is {limit} for all processes of this user together"
    )]
    LockedMemory {
        /// Bytes that all shards' rings need.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// `EINVAL` at set-up: a flag that the kernel does not know.
    #[error(
        "{0:?} of the ring: EINVAL, the kernel is too old (SINGLE_ISSUER 6.0, DEFER_TASKRUN 6.1, NO_SQARRAY 6.6, incremental buffers 6.12)"
    )]
    TooOld(Step),
    /// `EMFILE`: the file table is larger than the descriptor limit.
    #[error("a file table of {wanted} slots: EMFILE, RLIMIT_NOFILE is {limit}")]
    Descriptors {
        /// Slots asked for.
        wanted: u32,
        /// The limit.
        limit: u64,
    },
    /// An operation is absent.
    #[error("the kernel lacks the operation {0}")]
    Operation(&'static str),
    /// An operation is there and does something else.
    #[error("the self-test failed: {0}")]
    Behaviour(&'static str),
    /// Another refusal.
    #[error("{step:?} of the ring: errno {errno}")]
    Other {
        /// Where.
        step: Step,
        /// What the kernel said.
        errno: i32,
    },
}

impl Cause {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Missing | Self::Denied => {
                "Set kernel.io_uring_disabled=0 (or 1 and put this user into kernel.io_uring_group), and let the container's seccomp profile allow io_uring_setup, io_uring_enter and io_uring_register"
            }
            Self::LockedMemory { .. } => {
                "Raise RLIMIT_MEMLOCK (LimitMEMLOCK=) or grant CAP_IPC_LOCK"
            }
            Self::TooOld(_) | Self::Operation(_) => "Linux 6.12 or newer is needed",
            Self::Descriptors { .. } => {
                "Raise RLIMIT_NOFILE (LimitNOFILE=) or lower server.connections_per_shard_max"
            }
            Self::Behaviour(_) | Self::Other { .. } => "Please report this with the line above",
        }
    }
}

/// What decides about io_uring on a host.
#[derive(Debug, PartialEq, Eq)]
pub struct Host {
    /// `uname -r`
    pub kernel: String,
    /// `kernel.io_uring_disabled`; `None` where the key does not exist (before 6.6).
    pub disabled: Option<u8>,
    /// `Seccomp:` of this process: 0 off, 2 a filter is active.
    pub seccomp: Option<u8>,
    /// `CAP_IPC_LOCK` is effective: rings are not charged to `RLIMIT_MEMLOCK`.
    pub may_lock: bool,
}

impl Host {
    /// Reads it from `/proc`.
    #[must_use]
    pub fn read() -> Self {
        const CAP_IPC_LOCK: u64 = 1 << 14;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let file = |path| {
            std::fs::read_to_string(path)
                .ok()
                .map(|text| text.trim().to_owned())
        };
        Self {
            kernel: file("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
            disabled: file("/proc/sys/kernel/io_uring_disabled").and_then(|text| text.parse().ok()),
            seccomp: field("Seccomp:").and_then(|text| text.parse().ok()),
            may_lock: field("CapEff:")
                .and_then(|text| u64::from_str_radix(text, 16).ok())
                .is_some_and(|caps| caps & CAP_IPC_LOCK != 0),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel {}, kernel.io_uring_disabled=", self.kernel)?;
        match self.disabled {
            Some(value) => write!(f, "{value}")?,
            None => f.write_str("absent")?,
        }
        f.write_str(match self.seccomp {
            Some(2) => ", a seccomp filter is active (mode 2)",
            Some(0) => ", no seccomp filter",
            _ => ", seccomp unknown",
        })?;
        f.write_str(if self.may_lock {
            ", CAP_IPC_LOCK present"
        } else {
            ", CAP_IPC_LOCK absent"
        })
    }
}

/// Locked memory that `shards` rings of this shape and their runtimes' rings are charged (§2.2), with a fifth to spare.
#[must_use]
pub fn locked_bytes(config: &RingConfig, shards: u16) -> u64 {
    const RUNTIME_RING: u64 = 128 * 1024;
    let ring = 64 * u64::from(config.submissions)
        + 16 * u64::from(config.completions)
        + 16 * u64::from(config.buffers.count)
        + RUNTIME_RING;
    u64::from(shards) * ring * 6 / 5
}

/// Tries a ring of this shape: set-up, operations, behaviour. `shards` only counts for the memory that is named when
/// there is too little. The descriptor limit cuts `config.slots`; that alone is no failure.
pub fn probe(config: &RingConfig, shards: u16) -> Result<Abilities, ProbeError> {
    check(config, shards).map_err(|cause| ProbeError {
        cause,
        host: Host::read(),
    })
}

fn check(config: &RingConfig, shards: u16) -> Result<Abilities, Cause> {
    let mut ring = Ring::new(config).map_err(|error| cause_of(&error, config, shards))?;
    check_operations(&ring)?;
    let receive_cap = check_behaviour(&mut ring)?;
    Ok(Abilities {
        receive_cap,
        slots: ring.slots(),
    })
}

/// Reads the kernel's refusal.
#[must_use]
pub fn cause_of(error: &SetupError, config: &RingConfig, shards: u16) -> Cause {
    let step = error.step;
    match (error.cause.raw_os_error().unwrap_or(0), step) {
        (libc::ENOSYS, _) => Cause::Missing,
        (libc::EPERM | libc::EACCES, Step::Setup) => Cause::Denied,
        (libc::ENOMEM, _) => Cause::LockedMemory {
            needed: locked_bytes(config, shards),
            limit: socket::locked_bytes_max(),
        },
        (libc::EINVAL, _) => Cause::TooOld(step),
        (libc::EMFILE, Step::FileTable(wanted)) => Cause::Descriptors {
            wanted,
            limit: socket::descriptors_max(),
        },
        (errno, _) => Cause::Other { step, errno },
    }
}

fn check_operations(ring: &Ring) -> Result<(), Cause> {
    const NEEDED: [(u8, &str); 8] = [
        (opcode::Recv::CODE, "RECV"),
        (opcode::Send::CODE, "SEND"),
        (opcode::Accept::CODE, "ACCEPT"),
        (opcode::Connect::CODE, "CONNECT"),
        (opcode::Close::CODE, "CLOSE"),
        (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
        (opcode::MsgRingData::CODE, "MSG_RING"),
        (opcode::Socket::CODE, "SOCKET"),
    ];
    let mut supported = Probe::new();
    ring.read_probe(&mut supported)
        .map_err(|_| Cause::Behaviour("IORING_REGISTER_PROBE"))?;
    match NEEDED
        .iter()
        .find(|(code, _)| !supported.is_supported(*code))
    {
        Some((_, name)) => Err(Cause::Operation(name)),
        None => Ok(()),
    }
}

/// Sends through a pair of sockets as a shard would. Returns whether the receive cap works.
fn check_behaviour(ring: &mut Ring) -> Result<bool, Cause> {
    const RECEIVER: u32 = 0;
    const SENDER: u32 = 1;
    let (receiver, sender) =
        UnixStream::pair().map_err(|_| Cause::Behaviour("a pair of sockets"))?;
    let install = |ring: &mut Ring| {
        ring.install(RECEIVER, &receiver)
            .and_then(|()| ring.install(SENDER, &sender))
    };
    install(ring).map_err(|_| Cause::Behaviour("direct descriptors"))?;
    let capped = exchange(ring, RECEIVER, SENDER, 1024);
    let receive_cap = match capped {
        Ok(()) => true,
        Err(Refused::Cap) => {
            exchange(ring, RECEIVER, SENDER, 0).map_err(Refused::into_cause)?;
            false
        }
        Err(other) => return Err(other.into_cause()),
    };
    short_send(ring)?;
    Ok(receive_cap)
}

enum Refused {
    Cap,
    Because(&'static str),
}

impl Refused {
    fn into_cause(self) -> Cause {
        match self {
            Self::Cap => Cause::Behaviour("a multishot receive"),
            Self::Because(what) => Cause::Behaviour(what),
        }
    }
}

/// One silent send of 3000 bytes into an armed receive, which must bring them in order and stay armed.
fn exchange(ring: &mut Ring, receiver: u32, sender: u32, cap: u32) -> Result<(), Refused> {
    let refused = |what| move |_: std::io::Error| Refused::Because(what);
    let sent: Vec<u8> = (0..3000u32).map(|at| at as u8).collect();
    ring.push(&Sqe::receive(receiver, 0, cap))
        .map_err(refused("submitting"))?;
    ring.send_now([(sender, 0, &sent[..])].into_iter())
        .map_err(refused("submitting"))?;
    let mut received = Vec::new();
    for _ in 0..20 {
        while let Some(completion) = ring.pop() {
            match (completion.kind(), completion.result()) {
                (Some(Kind::Receive), result) if result == -libc::EINVAL => {
                    return Err(Refused::Cap);
                }
                (Some(Kind::Receive), 1..) if completion.more() => {
                    received.extend_from_slice(ring.take_bytes(completion));
                }
                (Some(Kind::Receive), _) => {
                    return Err(Refused::Because("a multishot receive into shared buffers"));
                }
                _ => return Err(Refused::Because("a silent send")),
            }
        }
        if received.len() >= sent.len() {
            ring.publish_buffers();
            let intact = received == sent;
            return if intact {
                Ok(())
            } else {
                Err(Refused::Because("received bytes differ from those sent"))
            };
        }
        ring.enter_timeout(1, Duration::from_millis(50))
            .map_err(refused("entering"))?;
    }
    Err(Refused::Because("a receive that never came"))
}

/// A silent send into a socket that does not take all of it. The kernel has to say how much it took, as the rest is sent
/// again by that count, and to say so of a socket that takes nothing.
fn short_send(ring: &mut Ring) -> Result<(), Cause> {
    const SENDER: u32 = 2;
    /// More than a socket takes with so small a buffer.
    const BYTES: usize = 1 << 20;
    const SEND_BUFFER: usize = 64 << 10;
    let failed = |_: std::io::Error| Cause::Behaviour("a short silent send");
    let (sender, receiver) = UnixStream::pair().map_err(failed)?;
    socket2::SockRef::from(&sender)
        .set_send_buffer_size(SEND_BUFFER)
        .map_err(failed)?;
    ring.install(SENDER, &sender).map_err(failed)?;
    let sent: Vec<u8> = (0..BYTES).map(|at| (at / 251) as u8).collect();
    let send = |ring: &mut Ring| -> Result<i32, Cause> {
        ring.send_now([(SENDER, 0, &sent[..])].into_iter())
            .map_err(failed)?;
        match ring.pop() {
            Some(completion) if completion.kind() == Some(Kind::SendNow) => Ok(completion.result()),
            _ => Err(Cause::Behaviour("a short silent send")),
        }
    };
    let taken = send(ring)?;
    let len = usize::try_from(taken).unwrap_or(0);
    if len == 0 || len >= BYTES || send(ring)? != -libc::EAGAIN {
        return Err(Cause::Behaviour("a short silent send"));
    }
    ring.uninstall(SENDER).map_err(failed)?;
    drop(sender);
    let mut received = Vec::new();
    (&receiver).read_to_end(&mut received).map_err(failed)?;
    if received == sent[..len] {
        Ok(())
    } else {
        Err(Cause::Behaviour("the count of a short silent send"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn message(step: Step, errno: i32) -> String {
        let config = RingConfig::shard(100_000);
        let error = SetupError {
            step,
            cause: io::Error::from_raw_os_error(errno),
        };
        let host = Host {
            kernel: "6.1.0".into(),
            disabled: Some(2),
            seccomp: Some(2),
            may_lock: false,
        };
        ProbeError {
            cause: cause_of(&error, &config, 2),
            host,
        }
        .to_string()
    }

    #[test]
    fn every_refusal_names_its_cause_and_its_remedy() {
        let denied = message(Step::Setup, libc::EPERM);
        assert!(
            denied.contains("kernel.io_uring_disabled=2")
                && denied.contains("seccomp filter is active"),
            "{denied}"
        );
        let old = message(Step::Setup, libc::EINVAL);
        assert!(
            old.contains("Kernel 6.1.0") && old.contains("6.12"),
            "{old}"
        );
        let table = message(Step::FileTable(131_072), libc::EMFILE);
        assert!(
            table.contains("131072") && table.contains(&socket::descriptors_max().to_string()),
            "{table}"
        );
        let memory = message(Step::Setup, libc::ENOMEM);
        assert!(
            memory.contains("RLIMIT_MEMLOCK") && memory.contains("CAP_IPC_LOCK absent"),
            "{memory}"
        );
        assert!(message(Step::Setup, libc::ENOSYS).contains("ENOSYS"));
        assert!(message(Step::Buffers, libc::EBADF).contains("--reactor portable"));
    }

    #[test]
    fn a_host_with_io_uring_passes_the_probe_or_says_why_not() {
        match probe(&RingConfig::shard(1000), 1) {
            Ok(abilities) => assert!(abilities.slots > 0),
            Err(error) => assert!(error.to_string().contains("Kernel"), "{error}"),
        }
    }
}

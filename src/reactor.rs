//! The reactors: they bring completions to a shard and carry out what it says, one thread for each shard.
//!
//! `Uring` drives the shard's own ring; `Portable` fulfils the same duties on epoll where io_uring is refused.

mod accept;
mod clock;
mod doorbell;
mod hot;
mod portable;
mod receive;
mod reports;
mod send;
mod slots;
mod thread;

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use crate::config::{Config, ListenAddr, ReactorChoice};
use crate::mesh;
use crate::mesh::control::{ControlLink, Doorbell, FromShard, ShardLink, TO_SHARD_MAX};
use crate::mesh::durable::DurableLink;
use crate::mesh::hook::HookLink;
use crate::model::ShardId;
use crate::shard::{Door, Mode};
use crate::uring::{Abilities, ProbeError, probe, socket};

pub use clock::Clock;
use doorbell::Sleepers;
use reports::Reports;

/// The reactor that will drive the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// io_uring, with what the kernel can do.
    Uring(Abilities),
    /// monoio's epoll driver.
    Portable,
}

/// What to start.
pub struct Plan {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// What the shards speak.
    pub mode: Mode,
    /// See `choose`.
    pub reactor: Chosen,
    /// Shards, 1 to `SHARDS_MAX`.
    pub shards: u16,
    /// Cores to pin shards to, in order, wrapping around; empty pins nothing.
    pub cores: Vec<usize>,
    /// Seed of every random choice of the shards.
    pub seed: u64,
    /// Key of the secrets that clients are told.
    pub key: [u8; 32],
}

/// Shards that run.
pub struct Running {
    /// Control's end of the line to each shard.
    pub links: Vec<ShardLink>,
    /// Where they listen: the configured addresses with the ports that the kernel chose.
    pub listening: Vec<ListenAddr>,
    /// Where they listen for services and probes alone.
    pub internal: Vec<ListenAddr>,
    /// The threads. One ends after its shard reported `Drained` or `Failed`.
    pub threads: Vec<JoinHandle<()>>,
}

/// Why the shards did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// As configured.
        address: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A shard's thread did not come up.
    #[error("shard {shard} did not start: {cause}")]
    Shard {
        /// Which.
        shard: u16,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The process is out of something.
    #[error("cannot start shards: {0}")]
    Process(#[from] io::Error),
}

/// Decides between the reactors. `auto` takes io_uring where it works; otherwise the refusal comes along and should
/// be logged as a warning. `uring` refuses to start instead.
pub fn choose(config: &Config, shards: u16) -> Result<(Chosen, Option<ProbeError>), ProbeError> {
    socket::raise_descriptors_max();
    if config.server.reactor == ReactorChoice::Portable {
        return Ok((Chosen::Portable, None));
    }
    match probe::probe(
        &thread::ring_config(config.server.connections_per_shard_max),
        shards,
    ) {
        Ok(abilities) => Ok((Chosen::Uring(abilities), None)),
        Err(refusal) if config.server.reactor == ReactorChoice::Auto => {
            Ok((Chosen::Portable, Some(refusal)))
        }
        Err(refusal) => Err(refusal),
    }
}

/// A socket that a shard accepts on, and what for.
pub(super) struct Listener {
    pub(super) socket: socket2::Socket,
    pub(super) door: Door,
}

/// Everything that a shard's thread takes with it.
struct ShardThread {
    id: ShardId,
    config: Arc<Config>,
    mode: Mode,
    seed: u64,
    key: [u8; 32],
    endpoint: mesh::Endpoint,
    listeners: Vec<Listener>,
    link: ControlLink,
    sleepers: Arc<Sleepers>,
    clock: Clock,
}

/// Binds the listeners and starts a thread for each shard. Returns when all of them serve.
pub fn start(
    plan: Plan,
    reports: Arc<ArrayQueue<FromShard>>,
    control_bell: Arc<dyn Doorbell>,
    hook_bell: Arc<dyn Doorbell>,
    log_bell: Arc<dyn Doorbell>,
) -> Result<Running, StartError> {
    socket::raise_descriptors_max();
    let mut listeners = (0..plan.shards).map(|_| Vec::new()).collect::<Vec<_>>();
    let mut listen_on = |addresses: &[ListenAddr], door| -> Result<Vec<ListenAddr>, StartError> {
        let bound = addresses.iter().map(|address| {
            let bound = listen(address, door, plan.config.server.backlog, &mut listeners);
            bound.map_err(|cause| StartError::Listen {
                address: display(address),
                cause,
            })
        });
        bound.collect()
    };
    let listening = listen_on(&plan.config.server.listen, Door::Clients)?;
    let internal = listen_on(&plan.config.server.internal_listen, Door::Internal)?;
    let sleepers = Arc::new(Sleepers::new(plan.shards)?);
    let clock = Clock::start();
    let mut running = Running {
        links: Vec::new(),
        listening,
        internal,
        threads: Vec::new(),
    };
    let (started, starts) = mpsc::channel();
    for (endpoint, listeners) in mesh::build(plan.shards).into_iter().zip(listeners) {
        let id = endpoint.shard();
        let inbox = Arc::new(ArrayQueue::new(TO_SHARD_MAX));
        let bell: Arc<dyn Doorbell> = Arc::new(sleepers.bell(id).try_clone()?);
        let hooks = HookLink::new(Arc::clone(&hook_bell));
        let durable = DurableLink::new(Arc::clone(&log_bell));
        running.links.push(ShardLink {
            shard: id,
            queue: Arc::clone(&inbox),
            bell,
            hooks: hooks.clone(),
            durable: durable.clone(),
        });
        let thread = ShardThread {
            id,
            config: Arc::clone(&plan.config),
            mode: plan.mode,
            seed: plan.seed,
            key: plan.key,
            endpoint,
            listeners,
            link: ControlLink {
                inbox,
                reports: Arc::clone(&reports),
                bell: Arc::clone(&control_bell),
                hooks,
                durable,
            },
            sleepers: Arc::clone(&sleepers),
            clock,
        };
        let core = plan
            .cores
            .get(usize::from(id.0) % plan.cores.len().max(1))
            .copied();
        let (reactor, started) = (plan.reactor, started.clone());
        let thread = std::thread::Builder::new()
            .name(format!("shard-{}", id.0))
            .spawn(move || run(thread, reactor, core, &started))?;
        running.threads.push(thread);
    }
    for (shard, result) in starts.iter().take(usize::from(plan.shards)) {
        result.map_err(|cause| StartError::Shard { shard, cause })?;
    }
    Ok(running)
}

/// One shard's thread from start to end. What goes wrong is reported: a shard that is gone takes the process with it.
fn run(
    thread: ShardThread,
    reactor: Chosen,
    core: Option<usize>,
    starts: &mpsc::Sender<(u16, io::Result<()>)>,
) {
    let id = thread.id;
    let link = thread.link.clone();
    if let Some(id) = core {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    let mut reports = Reports::new(link.clone());
    let starts = starts.clone();
    let started = move |result: io::Result<()>| {
        if result.is_ok() {
            reports.push(FromShard::Ready(id));
            reports.hand_over();
        }
        // Nobody waits any more if another shard failed first.
        let _ = starts.send((id.0, result));
    };
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| match reactor {
        Chosen::Uring(abilities) => thread::run(thread, abilities, started),
        Chosen::Portable => portable::run(thread, started),
    }));
    let reason = match result {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic_text(&*panic),
    };
    let mut failed = FromShard::Failed(id, reason);
    while let Err(back) = link.reports.push(failed) {
        failed = back;
        link.bell.ring();
        std::thread::yield_now();
    }
    link.bell.ring();
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without text"))
}

fn display(address: &ListenAddr) -> String {
    match address {
        ListenAddr::Tcp(address) => address.to_string(),
        ListenAddr::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// The ring of a process that was killed keeps its listener for some ten milliseconds after the process is gone.
fn listen_unix(path: &Path, backlog: u32) -> io::Result<socket2::Socket> {
    const PATIENCE: Duration = Duration::from_millis(20);
    for _ in 0..50 {
        match socket::listen_unix(path, backlog) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(PATIENCE),
            other => return other,
        }
    }
    socket::listen_unix(path, backlog)
}

/// Gives every shard a listener on the address: its own on TCP, a shared one on a unix socket, which has no REUSEPORT.
fn listen(
    address: &ListenAddr,
    door: Door,
    backlog: u32,
    shards: &mut [Vec<Listener>],
) -> io::Result<ListenAddr> {
    match address {
        ListenAddr::Unix(path) => {
            let socket = listen_unix(path, backlog)?;
            for shard in shards {
                let socket = socket.try_clone()?;
                shard.push(Listener { socket, door });
            }
            Ok(address.clone())
        }
        ListenAddr::Tcp(address) => {
            let mut bound: SocketAddr = *address;
            for shard in shards {
                let socket = socket::listen_tcp(bound, backlog)?;
                bound = socket.local_addr()?.as_socket().unwrap_or(bound);
                shard.push(Listener { socket, door });
            }
            Ok(ListenAddr::Tcp(bound))
        }
    }
}

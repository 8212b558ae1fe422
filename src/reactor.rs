//! The reactors: they bring completions to a shard and carry out what it says, one thread for each shard.
//!
//! `Uring` drives the shard's own ring; `Portable` fulfils the same duties on epoll where io_uring is refused.

mod accept;
mod arrivals;
mod clock;
mod doorbell;
mod fair;
mod hot;
mod open;
mod portable;
mod receive;
mod reports;
mod send;
mod slots;
mod strain;
mod thread;

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use crossbeam_queue::ArrayQueue;

use crate::config::{Config, ListenAddr, ReactorChoice};
use crate::limits::{CONTROL_TO_SHARD_MAX, SILENCE_MAX};
use crate::mesh;
use crate::mesh::bell::Doorbell;
use crate::mesh::control::{ControlLink, FromShard, ShardLink};
use crate::mesh::durable::DurableLink;
use crate::mesh::hook::HookLink;
use crate::model::ShardId;
use crate::shard::{Door, Mode};
use crate::uring::inherited::{InheritError, Inherited};
use crate::uring::listen::{Bound, ListenError, Terms};
use crate::uring::socket::Patience;
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
    /// Listeners that somebody else bound.
    pub inherited: Inherited,
}

/// Why the shards did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A socket that was handed over is not used.
    #[error(transparent)]
    Inherit(#[from] InheritError),
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
    /// Somebody else listens on it too: who stands in its queue is not lost with this process.
    pub(super) stays: bool,
    /// This shard is the one of those that share it which looks at its queue.
    pub(super) is_watched: bool,
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

/// Shards whose threads wait for the word to serve, and addresses that are taken and not listened on yet.
pub struct Prepared {
    /// Control's end of the line to each shard.
    pub links: Vec<ShardLink>,
    bound: Vec<(Bound, Door)>,
    /// One word for each thread.
    go: Vec<mpsc::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// Takes the addresses and makes a thread for each shard with everything that can fail. Nobody is accepted before `launch`.
pub fn prepare(
    mut plan: Plan,
    reports: Arc<ArrayQueue<FromShard>>,
    control_bell: Arc<dyn Doorbell>,
    hook_bell: Arc<dyn Doorbell>,
    log_bell: Arc<dyn Doorbell>,
) -> Result<Prepared, StartError> {
    socket::raise_descriptors_max();
    let bound = bind(&mut plan)?;
    let sleepers = Arc::new(Sleepers::new(plan.shards)?);
    let clock = Clock::start();
    let mut prepared = Prepared {
        links: Vec::new(),
        bound,
        go: Vec::new(),
        threads: Vec::new(),
    };
    let (started, starts) = mpsc::channel();
    for endpoint in mesh::build(plan.shards) {
        let id = endpoint.shard();
        let inbox = Arc::new(ArrayQueue::new(CONTROL_TO_SHARD_MAX));
        let bell: Arc<dyn Doorbell> = Arc::new(sleepers.bell(id).try_clone()?);
        let hooks = HookLink::new(Arc::clone(&hook_bell));
        let durable = DurableLink::new(Arc::clone(&log_bell));
        prepared.links.push(ShardLink {
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
            listeners: prepared.listeners(id, plan.shards, patience(&plan.config))?,
            link: ControlLink {
                inbox,
                reports: Arc::clone(&reports),
                bell: Arc::clone(&control_bell),
                hooks,
                durable,
            },
            sleepers: Arc::clone(&sleepers),
            clock: clock.clone(),
        };
        let core = plan
            .cores
            .get(usize::from(id.0) % plan.cores.len().max(1))
            .copied();
        let (reactor, started) = (plan.reactor, started.clone());
        let (go, word) = mpsc::channel();
        prepared.go.push(go);
        let thread = std::thread::Builder::new()
            .name(format!("shard-{}", id.0))
            .spawn(move || run(thread, reactor, core, &started, &word))?;
        prepared.threads.push(thread);
    }
    for (shard, result) in starts.iter().take(usize::from(plan.shards)) {
        result.map_err(|cause| StartError::Shard { shard, cause })?;
    }
    Ok(prepared)
}

/// Takes all addresses of the plan.
fn bind(plan: &mut Plan) -> Result<Vec<(Bound, Door)>, StartError> {
    let mut inherited = std::mem::take(&mut plan.inherited);
    let server = &plan.config.server;
    let doors = [
        ("server.listen", &server.listen, Door::Clients),
        (
            "server.internal_listen",
            &server.internal_listen,
            Door::Internal,
        ),
    ];
    let mut bound = Vec::new();
    for (key, addresses, door) in doors {
        let terms = Terms {
            key,
            backlog: server.backlog,
            shared: server.shared_port,
            only_v6: true,
            mode: server.unix_mode,
            group: server.unix_group.clone(),
        };
        let of_door = inherited.bind(addresses, usize::from(plan.shards), &terms)?;
        bound.extend(of_door.into_iter().map(|one| (one, door)));
    }
    inherited.finish()?;
    Ok(bound)
}

/// The kernel watches peers as closely as pings do: also where nothing is sent to them, or nobody answers pings.
fn patience(config: &Config) -> Patience {
    let (idle, pong) = match config.client.ping_interval {
        Some(interval) => (interval, config.client.pong_timeout),
        None => (SILENCE_MAX / 2, SILENCE_MAX / 2),
    };
    Patience {
        idle,
        interval: pong / 4,
        total: idle + pong,
    }
}

impl Listener {
    /// Peers that are accepted from here on are watched as this configuration says.
    fn watch_as(&self, config: &Config) {
        // On a unix socket this fails, and none of its peers can be out of reach.
        let _ = socket::set_patience(&self.socket, patience(config));
    }
}

impl Prepared {
    /// Where they will listen: the configured addresses with the ports that the kernel chose.
    pub fn addresses(&self, door: Door) -> impl Iterator<Item = &ListenAddr> {
        let of_door = self.bound.iter().filter(move |(_, of)| *of == door);
        of_door.map(|(bound, _)| bound.address())
    }

    /// What a shard accepts on: on TCP a socket of its own, of a unix socket and of one that is inherited its share.
    fn listeners(
        &self,
        shard: ShardId,
        shards: u16,
        patience: Patience,
    ) -> io::Result<Vec<Listener>> {
        let shard = usize::from(shard.0);
        let mut listeners = Vec::new();
        for (bound, door) in &self.bound {
            for index in bound.share(shard, usize::from(shards)) {
                let socket = bound.socket(index)?;
                if matches!(bound.address(), ListenAddr::Tcp(_)) {
                    socket::set_patience(&socket, patience)?;
                }
                listeners.push(Listener {
                    socket,
                    door: *door,
                    stays: bound.is_inherited(),
                    is_watched: index % usize::from(shards) == shard,
                });
            }
        }
        Ok(listeners)
    }

    /// From now on whoever connects is served. Gives the threads; one ends after its shard reported `Drained` or `Failed`.
    pub fn launch(self) -> Result<Vec<JoinHandle<()>>, StartError> {
        for (bound, _) in &self.bound {
            bound.listen()?;
        }
        for go in &self.go {
            // One that failed meanwhile has reported it.
            let _ = go.send(());
        }
        Ok(self.threads)
    }
}

/// One shard's thread from start to end. What goes wrong is reported: a shard that is gone takes the process with it.
fn run(
    thread: ShardThread,
    reactor: Chosen,
    core: Option<usize>,
    starts: &mpsc::Sender<(u16, io::Result<()>)>,
    go: &mpsc::Receiver<()>,
) {
    let id = thread.id;
    let link = thread.link.clone();
    if let Some(id) = core {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    let mut reports = Reports::new(link.clone());
    let starts = starts.clone();
    let started = move |result: io::Result<()>| {
        let is_ok = result.is_ok();
        // Nobody waits any more if another shard failed first.
        let _ = starts.send((id.0, result));
        // Without the word the process is about to end.
        if is_ok && go.recv().is_ok() {
            reports.push(FromShard::Ready(id));
            reports.hand_over();
        }
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

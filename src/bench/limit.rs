//! The yardstick: what the kernel itself can do for the same traffic. A thread with a ring set up like a shard's accepts the
//! swarm, answers its opening with as many bytes as a server would, and for each publication sends as many bytes to each
//! subscriber as a server would, with silent sends in slices. There is no protocol, no session and no channel state.

mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use super::BenchError;
use super::driver::Step;
use super::process::CpuSource;
use crate::uring::{Ring, RingConfig, socket};
use serve::Serve;

/// What the thread does.
#[derive(Clone, Debug)]
pub(crate) struct LimitPlan {
    /// Core to run on.
    pub(crate) core: Option<usize>,
    /// Subscribers that will come; one more connection may be the publisher.
    pub(crate) connections: u32,
    /// Channels in all.
    pub(crate) channels: u32,
    /// Channels of each subscriber.
    pub(crate) subscriptions: u32,
    /// The opening of each connection. The first step writes at least eight bytes: the client's number.
    pub(crate) steps: Vec<Step>,
    /// Bytes of one delivery, frame header included.
    pub(crate) frame_bytes: usize,
    /// Payload bytes within it.
    pub(crate) size: usize,
    /// Publications of a channel that leave in one send; `None` sends what has come, as a server does.
    pub(crate) messages_per_send: Option<u32>,
    /// Answer the sender instead of the subscribers.
    pub(crate) echo: bool,
}

/// The running threads; they end when this is dropped.
pub(crate) struct LimitServer {
    /// Where they listen.
    pub(crate) address: SocketAddr,
    tasks: Vec<PathBuf>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Connections of one thread: the file table of its ring is not larger than the descriptor limit.
const CONNECTIONS_PER_THREAD: u32 = 15_000;

impl LimitServer {
    /// Starts as many threads as the connections need; returns once they listen. With more than one, publications
    /// reach only the subscribers that share the publisher's thread, so only shapes without fan-out may need more.
    pub(crate) fn start(plan: &LimitPlan) -> Result<Self, BenchError> {
        let count = if plan.connections
            < socket::descriptors_max().saturating_sub(100).min(1 << 20) as u32
        {
            1
        } else {
            plan.connections.div_ceil(CONNECTIONS_PER_THREAD)
        };
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut this = Self {
            address: unbound,
            tasks: Vec::new(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..count {
            this.start_thread(plan.clone())?;
        }
        Ok(this)
    }

    fn start_thread(&mut self, plan: LimitPlan) -> Result<(), BenchError> {
        let (ready, started) = mpsc::channel();
        let (stop, address) = (Arc::clone(&self.stop), self.address);
        let name = "bench-limit".to_owned();
        self.threads
            .push(thread::Builder::new().name(name).spawn(move || {
                if let Some(core) = plan.core {
                    core_affinity::set_for_current(core_affinity::CoreId { id: core });
                }
                match open(&plan, address) {
                    Ok((ring, address)) => {
                        let _ = ready.send(Ok((address, CpuSource::current_thread())));
                        // The swarm notices a thread that has ended: its connections do not answer any more.
                        let _ = Serve::new(plan, ring).run(&stop);
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            })?);
        let (address, cpu) = started.recv().map_err(|_| BenchError::Limit)??;
        self.address = address;
        if let Some(CpuSource::Threads(tasks)) = cpu {
            self.tasks.extend(tasks);
        }
        Ok(())
    }

    /// Whose CPU time the figures count.
    #[must_use]
    pub(crate) fn cpu(&self) -> Option<CpuSource> {
        Some(CpuSource::Threads(self.tasks.clone()))
    }
}

impl Drop for LimitServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Slot of the listener.
const LISTENER: u32 = 0;

fn open(plan: &LimitPlan, address: SocketAddr) -> Result<(Ring, SocketAddr), BenchError> {
    let listener = socket::listen_tcp(address, 8192)?;
    let address = listener
        .local_addr()?
        .as_socket()
        .ok_or(BenchError::Limit)?;
    // The table is cut to the descriptor limit; connections spread unevenly over several listeners.
    let config = RingConfig::shard(plan.connections + 1);
    let mut ring = Ring::new(&config)?;
    ring.install(LISTENER, &listener)?;
    for index in 0..config.accepts {
        ring.push_accept(index, 0, LISTENER)?;
    }
    Ok((ring, address))
}

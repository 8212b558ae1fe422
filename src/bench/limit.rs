//! The yardstick: what the kernel itself can do for the same traffic. A thread with a ring set up like a shard's accepts the
//! swarm, answers its opening with as many bytes as a server would, and for each publication sends as many bytes to each
//! subscriber as a server would, with silent sends in slices. There is no protocol, no session and no channel state.

mod serve;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

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
    /// Publications of a channel that leave in one send.
    pub(crate) messages_per_send: u32,
    /// Answer the sender instead of the subscribers.
    pub(crate) echo: bool,
}

/// The running thread; ends when dropped.
pub(crate) struct LimitServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    cpu: Option<CpuSource>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LimitServer {
    /// Starts the thread; returns once it listens.
    pub(crate) fn start(plan: LimitPlan) -> Result<Self, BenchError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, started) = mpsc::channel();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("bench-limit".to_owned())
            .spawn(move || {
                if let Some(core) = plan.core {
                    core_affinity::set_for_current(core_affinity::CoreId { id: core });
                }
                match open(&plan) {
                    Ok((ring, address)) => {
                        let _ = ready.send(Ok((address, CpuSource::current_thread())));
                        // The swarm notices a thread that has ended: its connections do not answer any more.
                        let _ = Serve::new(plan, ring).run(&stopped);
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            })?;
        let (address, cpu) = started.recv().map_err(|_| BenchError::Limit)??;
        Ok(Self {
            address,
            cpu,
            stop,
            thread: Some(thread),
        })
    }

    /// Whose CPU time the figures count.
    #[must_use]
    pub(crate) fn cpu(&self) -> Option<CpuSource> {
        self.cpu.clone()
    }
}

impl Drop for LimitServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Slot of the listener.
const LISTENER: u32 = 0;

fn open(plan: &LimitPlan) -> Result<(Ring, SocketAddr), BenchError> {
    let listener = socket::listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0)), 8192)?;
    let address = listener
        .local_addr()?
        .as_socket()
        .ok_or(BenchError::Limit)?;
    let config = RingConfig::shard(plan.connections + 64);
    let mut ring = Ring::new(&config)?;
    ring.install(LISTENER, &listener)?;
    for index in 0..config.accepts {
        ring.push_accept(index, 0, LISTENER)?;
    }
    Ok((ring, address))
}

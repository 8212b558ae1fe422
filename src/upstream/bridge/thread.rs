//! The bridge's thread, from opening the log to its end.

use std::io;
use std::sync::mpsc as sync_mpsc;

use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;

use super::{Bridge, Parts, Report, run};
use crate::config::durable::Engine;
use crate::upstream::Embedded;
use crate::upstream::embedded::OpenError;
use crate::upstream::log::Log;
#[cfg(feature = "nats")]
use crate::upstream::nats::{ConnectError, Jetstream};

/// How much later than a shard the log's threads get a core that both want.
const NICE: i32 = 19;

/// Why there is no durable log.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The embedded one.
    #[error("durable log")]
    Embedded(#[from] OpenError),
    /// The one in JetStream.
    #[cfg(feature = "nats")]
    #[error("durable log")]
    Nats(#[from] ConnectError),
    /// This program was built without it.
    #[error("durable.engine = \"nats\": this program was built without the feature `nats`")]
    WithoutNats,
    /// The process is out of something.
    #[error("durable log")]
    Process(#[from] io::Error),
}

impl StartError {
    /// The configuration asks for what there is not.
    #[must_use]
    pub const fn is_of_configuration(&self) -> bool {
        match self {
            Self::WithoutNats => true,
            #[cfg(feature = "nats")]
            Self::Nats(error) => matches!(
                error,
                ConnectError::Server(_)
                    | ConnectError::NoServer
                    | ConnectError::Name
                    | ConnectError::Replicas
            ),
            Self::Embedded(_) | Self::Process(_) => false,
        }
    }

    /// Another start will find the same: the log is damaged, foreign, missing, or a later version wrote it.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Embedded(
                OpenError::Newer { .. }
                    | OpenError::Corrupt { .. }
                    | OpenError::Missing { .. }
                    | OpenError::Unfinished { .. }
            )
        )
    }
}

/// Opens the log and starts the bridge. Returns when the log is open.
///
/// # Errors
/// The log cannot be opened.
pub fn start(parts: Parts) -> Result<Bridge, StartError> {
    let (stop, stopped) = oneshot::channel();
    let (report_in, report) = watch::channel(Report::default());
    let (opened, opening) = sync_mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("durable".to_owned())
        .spawn(move || {
            // The fast path goes first where cores are few. Threads that the log starts inherit it; a kernel that refuses it is no reason
            // to have no log.
            let _ = rustix::process::nice(NICE);
            let outcome = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .thread_name("durable-io")
                .max_blocking_threads(4)
                .build();
            let runtime = match outcome {
                Ok(runtime) => runtime,
                Err(error) => return drop(opened.send(Err(StartError::Process(error)))),
            };
            let local = LocalSet::new();
            local.block_on(&runtime, open(parts, report_in, stopped, &opened));
        })?;
    match opening.recv() {
        Ok(Ok(())) => Ok(Bridge {
            report,
            stop,
            thread,
        }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::Process(io::Error::other(
            "the bridge's thread ended",
        ))),
    }
}

async fn open(
    parts: Parts,
    report: watch::Sender<Report>,
    stop: oneshot::Receiver<()>,
    opened: &sync_mpsc::SyncSender<Result<(), StartError>>,
) {
    match parts.config.durable.engine {
        Engine::Embedded => match Embedded::open(&parts.config.durable) {
            Ok(log) => serve(log, parts, report, stop, opened).await,
            Err(error) => drop(opened.send(Err(error.into()))),
        },
        #[cfg(feature = "nats")]
        Engine::Nats => match Jetstream::connect(&parts.config.durable).await {
            Ok(log) => serve(log, parts, report, stop, opened).await,
            Err(error) => drop(opened.send(Err(error.into()))),
        },
        #[cfg(not(feature = "nats"))]
        Engine::Nats => drop(opened.send(Err(StartError::WithoutNats))),
    }
}

async fn serve<L: Log>(
    log: L,
    parts: Parts,
    report: watch::Sender<Report>,
    stop: oneshot::Receiver<()>,
    opened: &sync_mpsc::SyncSender<Result<(), StartError>>,
) {
    // Nobody waits if the process ends already.
    let _ = opened.send(Ok(()));
    run(log, parts, report, stop).await;
}

//! The log of a configuration, used by a command in place of a proxy.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use super::ToolError;
use crate::config::Config;
use crate::config::durable::{Durable, Engine};
use crate::mesh::durable::LogError;
use crate::upstream::Embedded;
use crate::upstream::log::Log;
#[cfg(feature = "nats")]
use crate::upstream::nats::Jetstream;

/// How long a log that is not available is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Before it is asked again.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// What is done with a log.
pub(super) trait Use {
    /// What comes of it.
    type Output;

    /// Does it.
    async fn run(self, log: &impl Log) -> Result<Self::Output, ToolError>;
}

/// Opens the log of a configuration, or the embedded one in `directory`, uses it and closes it.
pub(super) fn with<U: Use>(
    config: &Config,
    directory: Option<&Path>,
    what: U,
) -> Result<U::Output, ToolError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ToolError::file("the runtime", error))?;
    let mut durable = config.durable.clone();
    if let Some(directory) = directory {
        durable.engine = Engine::Embedded;
        directory.clone_into(&mut durable.embedded.directory);
    }
    LocalSet::new().block_on(&runtime, within(&durable, what))
}

/// The same where a runtime is there already.
pub(super) async fn within<U: Use>(durable: &Durable, what: U) -> Result<U::Output, ToolError> {
    match durable.engine {
        Engine::Embedded => used(Embedded::open(durable)?, what).await,
        #[cfg(feature = "nats")]
        Engine::Nats => {
            let connected = Jetstream::connect(durable).await;
            let log = connected.map_err(|error| ToolError::Nothing(error.to_string()))?;
            used(log, what).await
        }
        #[cfg(not(feature = "nats"))]
        Engine::Nats => Err(ToolError::Usage(
            "this program was built without the feature `nats`".to_owned(),
        )),
    }
}

async fn used<L: Log, U: Use>(log: L, what: U) -> Result<U::Output, ToolError> {
    let outcome = what.run(&log).await;
    log.close().await;
    outcome
}

/// Asks a log, and again while it is not available.
pub(super) async fn retried<T>(
    mut ask: impl AsyncFnMut() -> Result<T, LogError>,
) -> Result<T, ToolError> {
    let began = now();
    loop {
        match ask().await {
            Ok(value) => return Ok(value),
            Err(LogError::Unavailable { .. } | LogError::Busy { .. } | LogError::Behind { .. })
                if began.elapsed() < PATIENCE =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            Err(source) => return Err(failed(source)),
        }
    }
}

/// The log cannot do what was asked.
pub(super) fn failed(source: LogError) -> ToolError {
    ToolError::Log {
        name: "the durable log".to_owned(),
        source,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command on the command line is no part of the core"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

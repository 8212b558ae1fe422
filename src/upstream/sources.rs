//! Sources: rows and records of others become publications of durable channels, each once.
//!
//! A source is a task on the bridge's thread. It reads a batch, publishes it like anybody, so that subscribers, groups and schemas see it,
//! and says afterwards that it is done with it: rows are deleted, or a place is kept among the values of the log. What is
//! interrupted in between is done again, and the idempotency keys of rows and records store nothing twice. So a source may be
//! ended at any await.

mod kafka;
mod ledger;
mod offer;
mod postgres;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::info;

use super::desk::Outlet;
use super::log::Values;
use crate::config::Config;
use crate::config::sources::{OutboxSource, SourceKind};
use crate::mesh::durable::LogError;
use crate::model::Record;

pub use ledger::SourceReport;

use ledger::Ledger;
use offer::Fault;

/// What failed once is tried again after this; twice as long after each failure that follows.
const RETRY: Duration = Duration::from_millis(100);
/// … but not longer.
const RETRY_MOST: Duration = Duration::from_secs(5);
/// A server that does not answer for this long is given up, and asked anew.
const PATIENCE: Duration = Duration::from_secs(60);
/// A server is to be connected within this time.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Places are kept under this and the name of the source.
const PLACE_PREFIX: &str = "source/";

/// What sources need of the bridge.
pub trait Sink: Outlet {
    /// The configuration in force.
    fn config(&self) -> Arc<Config>;

    /// Why the schema of its namespace does not take a publication.
    fn check_schema(&self, record: &Record) -> Result<(), LogError>;
}

/// All sources of a configuration. Lives on a current-thread runtime, within a `LocalSet`.
pub struct Sources<L, O> {
    log: Rc<L>,
    sink: Rc<O>,
    running: RefCell<Vec<Running>>,
}

struct Running {
    spec: Rc<OutboxSource>,
    ledger: Rc<Ledger>,
    task: JoinHandle<()>,
}

/// What a source works with.
struct Context<L, O> {
    log: Rc<L>,
    sink: Rc<O>,
    spec: Rc<OutboxSource>,
    ledger: Rc<Ledger>,
}

impl<L: Values, O: Sink> Sources<L, O> {
    /// Begins.
    #[must_use]
    pub fn new(log: Rc<L>, sink: Rc<O>, config: &Config) -> Self {
        let sources = Self {
            log,
            sink,
            running: RefCell::default(),
        };
        sources.reload(config);
        sources
    }

    /// Another configuration counts: sources that are gone or changed end, and new and changed ones begin.
    pub fn reload(&self, config: &Config) {
        let mut running = self.running.borrow_mut();
        let mut before = std::mem::take(&mut *running);
        for spec in &config.sources {
            let same = before.iter().position(|one| *one.spec == *spec);
            if let Some(at) = same {
                running.push(before.swap_remove(at));
                continue;
            }
            let namesake = before.iter().position(|one| one.spec.name == spec.name);
            let namesake = namesake.map(|at| before.swap_remove(at));
            running.push(self.begin(spec, namesake));
        }
        for gone in before {
            info!(source = %gone.spec.name, "the source is gone from the configuration");
            gone.task.abort();
        }
    }

    /// A source begins once the one that had its name has ended, and goes on counting where that one was of its kind.
    fn begin(&self, spec: &OutboxSource, before: Option<Running>) -> Running {
        let spec = Rc::new(spec.clone());
        let ledger = match &before {
            Some(before) if before.spec.kind == spec.kind => Rc::clone(&before.ledger),
            Some(_) | None => Rc::new(Ledger::new(&spec)),
        };
        let context = Context {
            log: Rc::clone(&self.log),
            sink: Rc::clone(&self.sink),
            spec: Rc::clone(&spec),
            ledger: Rc::clone(&ledger),
        };
        let task = tokio::task::spawn_local(async move {
            if let Some(before) = before {
                before.task.abort();
                // It has been cancelled.
                let _ = before.task.await;
            }
            context.run().await;
        });
        Running { spec, ledger, task }
    }

    /// Ends all of them: nothing is published any more.
    pub async fn close(&self) {
        let running = std::mem::take(&mut *self.running.borrow_mut());
        for one in &running {
            one.task.abort();
        }
        for one in running {
            // It has been cancelled.
            let _ = one.task.await;
        }
    }
}

impl<L, O> Sources<L, O> {
    /// How they do, in the order of the configuration.
    #[must_use]
    pub fn report(&self) -> Vec<SourceReport> {
        let running = self.running.borrow();
        let report = |one: &Running| SourceReport {
            is_up: one.ledger.report().is_up && !one.task.is_finished(),
            ..one.ledger.report()
        };
        running.iter().map(report).collect()
    }

    /// What an operator should know, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<Box<str>> {
        let running = self.running.borrow();
        // A source ends by itself only where something here is wrong.
        let ended = running.iter().filter(|one| one.task.is_finished());
        let ended = ended.map(|one| {
            let name = &one.spec.name;
            format!("source {name} has ended by a fault of this program; a restart begins it anew")
                .into()
        });
        let warnings = running.iter().flat_map(|one| one.ledger.warnings());
        ended.chain(warnings).collect()
    }
}

impl<L: Values, O: Sink> Context<L, O> {
    /// Reads and publishes, and begins anew after each failure.
    async fn run(self) {
        let mut failures = 0u32;
        loop {
            let done = self.ledger.batches();
            let fault = match self.spec.kind {
                SourceKind::Postgres => postgres::read(&self).await,
                SourceKind::Kafka => kafka::read(&self).await,
            };
            if self.ledger.batches() > done {
                failures = 0;
            }
            self.ledger.failed(&fault);
            tokio::time::sleep(pause(failures)).await;
            failures = failures.saturating_add(1);
        }
    }

    fn place_key(&self) -> String {
        format!("{PLACE_PREFIX}{}", self.spec.name)
    }

    /// Where the source was.
    async fn place(&self) -> Result<Option<String>, Fault> {
        let Some(value) = self.log.get(&self.place_key()).await? else {
            return Ok(None);
        };
        let text = String::from_utf8(value).map_err(|_bytes| self.foreign_place())?;
        Ok(Some(text))
    }

    /// Keeps where the source is.
    async fn keep_place(&self, place: &str) -> Result<(), Fault> {
        let key = self.place_key();
        Ok(self.log.put(&key, Some(place.as_bytes())).await?)
    }

    fn foreign_place(&self) -> Fault {
        Fault::Unfit(format!(
            "the log keeps a place under the name `{}` that this source cannot read; give the source another name",
            self.spec.name
        ))
    }

    /// A password: the key's own, or what is in the file now, without a line break at its end.
    fn password(&self, own: &str, file: &std::path::Path) -> Result<String, Fault> {
        if file.as_os_str().is_empty() {
            return Ok(own.to_owned());
        }
        let text = std::fs::read_to_string(file).map_err(|error| {
            Fault::Unfit(format!("the password file {}: {error}", file.display()))
        })?;
        Ok(text.trim_end_matches(['\n', '\r']).to_owned())
    }
}

fn pause(failures: u32) -> Duration {
    RETRY.saturating_mul(1 << failures.min(10)).min(RETRY_MOST)
}

/// A task that ends with whoever waits for it.
struct Driver<T>(JoinHandle<T>);

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!(pause(0), RETRY);
        assert_eq!(pause(2), RETRY * 4);
        assert_eq!(pause(u32::MAX), RETRY_MOST);
    }
}

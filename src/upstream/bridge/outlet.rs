//! What the desk needs of the bridge, and what the bridge counts.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::sync::oneshot;

use super::breaker::Breaker;
use super::{HookCall, PushCall, Report, Shared, Whose};
use crate::config::Config;
use crate::limits::ADMIN_ASKS_MAX;
use crate::mesh::durable::{Appended, FromLog, LogError, RequestId};
use crate::model::{AskId, Draft, Record, ShardId};
use crate::upstream::desk::{Asker, Outlet, Pushed, WorkerId};
use crate::upstream::sources::Sink;

/// The shard that questions of the admin listener seem to come from.
const ADMIN: ShardId = ShardId(u16::MAX);
/// A publication of the desk that finds the log busy is told to come again after this.
const DESK_RETRY: Duration = Duration::from_millis(100);

/// The desk's line to the shards, to the log and to hooks.
pub(super) struct Line(pub(super) Rc<Shared>);

/// Questions of the admin listener under way.
#[derive(Default)]
pub(super) struct Questions {
    next: u32,
    waiting: HashMap<u32, oneshot::Sender<Result<Bytes, LogError>>, foldhash::fast::FixedState>,
}

impl Questions {
    /// A name for a question; `None` when too many wait, which the one who asked is told.
    pub(super) fn add(
        &mut self,
        answer: oneshot::Sender<Result<Bytes, LogError>>,
    ) -> Option<Asker> {
        if self.waiting.len() >= ADMIN_ASKS_MAX {
            // Whoever asked may be gone.
            let _ = answer.send(Err(LogError::Busy {
                retry_after: DESK_RETRY,
            }));
            return None;
        }
        self.next = self.next.wrapping_add(1);
        self.waiting.insert(self.next, answer);
        let id = RequestId(AskId {
            slot: self.next,
            generation: 0,
        });
        Some((ADMIN, id))
    }
}

impl Outlet for Line {
    fn answer(&self, to: Asker, result: Result<Bytes, LogError>) {
        let (shard, id) = to;
        if shard == ADMIN {
            let waiting = self.0.questions.borrow_mut().waiting.remove(&id.0.slot);
            if let Some(waiting) = waiting {
                // Whoever asked may be gone.
                let _ = waiting.send(result);
            }
            return;
        }
        self.0.send(shard, FromLog::Answered(id, result));
        self.0.flush();
    }

    fn deliver(&self, to: WorkerId, delivery: Bytes) {
        self.0.deliver(to, delivery);
        self.0.flush_soon.notify_one();
    }

    async fn hook(&self, name: &str, body: Bytes) -> Result<(), String> {
        let (done, outcome) = oneshot::channel();
        let call = HookCall {
            name: name.to_owned(),
            body,
            done,
        };
        let gone = || "hooks are not called any more".to_owned();
        self.0.hooks.send(call).await.map_err(|_closed| gone())?;
        outcome.await.map_err(|_dropped| gone())?
    }

    async fn push(&self, name: &str, body: Bytes) -> Pushed {
        let (done, outcome) = oneshot::channel();
        let call = PushCall {
            name: name.to_owned(),
            body,
            done,
        };
        let gone = || Pushed::Away("hooks are not called any more".to_owned(), None);
        match self.0.pushes.send(call).await {
            Ok(()) => outcome.await.unwrap_or_else(|_dropped| gone()),
            Err(_closed) => gone(),
        }
    }

    async fn append(&self, drafts: Vec<Draft>) -> Vec<Result<Appended, LogError>> {
        let mut waiting = Vec::with_capacity(drafts.len());
        {
            let mut queue = self.0.waiting.borrow_mut();
            for draft in drafts {
                let (sender, receiver) = oneshot::channel();
                let refused = self.0.refused_of_desk(&draft.record);
                match refused.or_else(|| self.0.refused_for_now(1)) {
                    // The receiver is here.
                    Some(error) => drop(sender.send(Err(error))),
                    None => queue.push_back((Whose::Desk(sender), draft)),
                }
                waiting.push(receiver);
            }
        }
        self.0.waits.notify_one();
        let mut results = Vec::with_capacity(waiting.len());
        for receiver in waiting {
            results.push(receiver.await.unwrap_or(Err(LogError::Busy {
                retry_after: DESK_RETRY,
            })));
        }
        results
    }
}

impl Sink for Line {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.0.config.borrow())
    }

    fn check_schema(&self, record: &Record) -> Result<(), LogError> {
        self.0.schemas.borrow().check(record)
    }
}

/// What the bridge counts.
#[derive(Default)]
pub(super) struct Counter {
    pub(super) schema_refused: Cell<u64>,
    batches: Cell<u64>,
    appends: Cell<u64>,
    append_ns: Cell<u64>,
}

impl Counter {
    pub(super) fn appended(&self, count: usize, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.batches.set(self.batches.get() + 1);
        self.appends.set(self.appends.get() + count as u64);
        self.append_ns
            .set(self.append_ns.get().saturating_add(took));
    }

    pub(super) fn report(&self, breaker: &Breaker) -> Report {
        Report {
            batches: self.batches.get(),
            appends: self.appends.get(),
            append_ns: self.append_ns.get(),
            schema_refused: self.schema_refused.get(),
            breaker: breaker.name(),
            breaker_opened: breaker.opened,
            breaker_refused: breaker.refused,
            ..Report::default()
        }
    }
}

/// Now, for what takes how long.
#[expect(
    clippy::disallowed_methods,
    reason = "the bridge measures its log, and this is no core module"
)]
pub(super) fn clock() -> Instant {
    Instant::now()
}

//! Appends on their way to the log: batch after batch, and refused at once while the log keeps nothing.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::breaker::{Change, Due};
use super::{Shared, outlet};
use crate::mesh::durable::{Appended, LogError, Read};
use crate::model::ChannelName;
use crate::upstream::log::Entries;

/// A channel that nobody has: the log is asked about it whether it answers.
const ASKED_CHANNEL: &str = "$log:answers";

/// How the log takes appends.
impl Shared {
    /// How long a publisher waits for the log.
    fn patience(&self) -> Duration {
        self.config.borrow().durable.append_timeout
    }

    /// Why so many appends are not taken in: the log has kept nothing of late.
    pub(super) fn refused_for_now(&self, count: u64) -> Option<LogError> {
        let mut breaker = self.breaker.borrow_mut();
        let retry_after = breaker.refusal(outlet::clock())?;
        breaker.refused += count;
        Some(not_kept(retry_after))
    }

    /// The log has answered a batch.
    fn batch_ended(&self, began: Instant, results: &[Result<Appended, LogError>]) {
        // What is refused for what it is was looked at as well.
        let is_kept = |result: &Result<Appended, LogError>| {
            !matches!(
                result,
                Err(LogError::Unavailable { .. } | LogError::Busy { .. })
            )
        };
        let is_kept = results.iter().any(is_kept);
        let now = outlet::clock();
        let patience = self.patience();
        let change = (self.breaker.borrow_mut()).ended(now, began, is_kept, patience);
        self.appends_moved.notify_one();
        self.breaker_changed(change);
    }

    fn breaker_changed(&self, change: Option<Change>) {
        match change {
            None => {}
            Some(Change::Closed) => info!("the durable log keeps publications again"),
            Some(Change::Opened) => {
                warn!(
                    "the durable log has kept nothing for as long as publishers wait: durable publications are refused at once until it answers"
                );
                self.refuse_waiting();
            }
        }
    }

    /// Tells those whose appends the log has not got yet that it will not.
    fn refuse_waiting(&self) {
        let waiting = self.waiting.take();
        let Some(error) = self.refused_for_now(waiting.len() as u64) else {
            return self.waiting.borrow_mut().extend(waiting);
        };
        let count = waiting.len();
        let whose = waiting.into_iter().map(|(whose, _)| whose).collect();
        self.tell(whose, vec![Err(error); count]);
        self.flush();
    }
}

fn not_kept(retry_after: Duration) -> LogError {
    LogError::Unavailable {
        reason: "the log does not answer".into(),
        retry_after,
    }
}

/// Appends what waits, batch after batch.
pub(super) async fn commit<L: Entries>(log: Rc<L>, shared: Rc<Shared>) {
    loop {
        let (whose, batch) = shared.batch(L::APPENDS_PER_BATCH);
        if batch.is_empty() {
            shared.waits.notified().await;
            continue;
        }
        if !shared.waiting.borrow().is_empty() {
            // Another committer may go on with the rest.
            shared.waits.notify_one();
        }
        let since = outlet::clock();
        shared.breaker.borrow_mut().begun(since);
        shared.appends_moved.notify_one();
        let results = log.append(batch).await;
        shared.counter.appended(results.len(), since.elapsed());
        shared.batch_ended(since, &results);
        debug_assert_eq!(whose.len(), results.len(), "each append has a result");
        shared.tell(whose, results);
        shared.flush();
        // What came meanwhile is taken before the next batch is made.
        tokio::task::yield_now().await;
    }
}

/// Notices that the log keeps nothing any more, and that it answers again.
pub(super) async fn watch_appends<L: Entries>(log: Rc<L>, shared: Rc<Shared>) {
    loop {
        let due = shared.breaker.borrow().due(shared.patience());
        let at = match due {
            None => {
                shared.appends_moved.notified().await;
                continue;
            }
            Some(Due::Look(at) | Due::Ask(at)) => at,
        };
        tokio::select! {
            () = shared.appends_moved.notified() => continue,
            () = tokio::time::sleep_until(at.into()) => {}
        }
        match due {
            Some(Due::Ask(_)) => {
                // Where a channel ends that nobody has: it costs a log little, and one that stands still does not answer.
                let read = Read {
                    channel: ChannelName::from_whole(ASKED_CHANNEL),
                    after: None,
                    limit: 0,
                    bytes: 0,
                };
                let answer = tokio::time::timeout(shared.patience(), log.read(&read)).await;
                let is_answered = matches!(answer, Ok(Ok(_)));
                let now = outlet::clock();
                shared.breaker.borrow_mut().answered(now, is_answered);
            }
            Some(Due::Look(_)) | None => {
                let looked = shared
                    .breaker
                    .borrow_mut()
                    .look(outlet::clock(), shared.patience());
                shared.breaker_changed(looked);
            }
        }
    }
}

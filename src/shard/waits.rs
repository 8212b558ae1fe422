//! Commands of the server API that are done when owners have answered: a subscription that a service made counts
//! once its presence is known.

use crate::limits::{API_CALLS_MAX, SERVE_TIMEOUT};
use crate::mem::Asks;
use crate::mesh::message::{Answered, Answers, CommandsFor};
use crate::model::{AskId, ShardId};
use crate::time::Instant;

/// Who asked, and what it gets.
pub(super) type Reply = (ShardId, CommandsFor, Answers);

struct Wait {
    /// `None` while the commands are being handled.
    reply: Option<Reply>,
    left: u32,
}

/// See the module.
pub(super) struct Waits(Asks<Wait>);

impl Default for Waits {
    fn default() -> Self {
        Self(Asks::new(API_CALLS_MAX, usize::MAX))
    }
}

impl Waits {
    /// Commands begin; they wait for themselves until `end`. `None` when too many do.
    pub(super) fn begin(&mut self, now: Instant) -> Option<AskId> {
        let wait = Wait {
            reply: None,
            left: 1,
        };
        self.0.open(now + SERVE_TIMEOUT, 0, wait).ok()
    }

    /// One more answer will come.
    pub(super) fn add(&mut self, id: AskId) {
        if let Some(wait) = self.0.kept_mut(id) {
            wait.left += 1;
        }
    }

    /// An answer that came late takes the place that was kept for it.
    pub(super) fn put(&mut self, id: AskId, item: u32, answered: Answered) {
        let reply = self.0.kept_mut(id).and_then(|wait| wait.reply.as_mut());
        let place =
            reply.and_then(|(_, _, answers)| answers.iter_mut().find(|(other, _)| *other == item));
        if let Some((_, place)) = place {
            *place = answered;
        }
    }

    /// The commands have been handled: this goes out once nothing is awaited any more.
    pub(super) fn end(&mut self, id: AskId, reply: Reply) -> Option<Reply> {
        self.0.kept_mut(id)?.reply = Some(reply);
        self.count_down(id)
    }

    /// One answer came. The last one tells what goes to whom.
    pub(super) fn count_down(&mut self, id: AskId) -> Option<Reply> {
        let wait = self.0.kept_mut(id)?;
        wait.left -= 1;
        if wait.left > 0 {
            return None;
        }
        self.0.close(id)?.reply
    }

    /// Commands that have waited too long: what goes to whom, as far as it is known.
    pub(super) fn next_overdue(&mut self, now: Instant) -> Option<Reply> {
        self.0.next_overdue(now)?.1.reply
    }

    /// When the next ones have.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.0.next_at()
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }
}

//! Commands of the server API that are done when owners have answered: a subscription that a service made counts
//! once its presence is known.

use crate::limits::{API_CALLS_MAX, SERVE_TIMEOUT};
use crate::mem::Asks;
use crate::mesh::message::{Answered, Answers, CommandsFor};
use crate::model::{AskId, ShardId};
use crate::time::Instant;

/// Who asked, and what it gets.
pub(super) type CallReply = (ShardId, CommandsFor, Answers);

struct OpenWait {
    /// `None` while the commands are being handled.
    reply: Option<CallReply>,
    left: u32,
}

/// See the module.
pub(super) struct Waits {
    open: Asks<OpenWait>,
    /// Answers that came when their commands had been answered without them.
    stale: u64,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            open: Asks::new(API_CALLS_MAX, usize::MAX),
            stale: 0,
        }
    }
}

impl Waits {
    /// Commands begin; they wait for themselves until `end`. `None` when too many do.
    pub(super) fn begin(&mut self, now: Instant) -> Option<AskId> {
        let wait = OpenWait {
            reply: None,
            left: 1,
        };
        self.open.open(now + SERVE_TIMEOUT, 0, wait).ok()
    }

    /// One more answer will come. They have just begun.
    pub(super) fn add(&mut self, id: AskId) {
        let wait = self.open.of_mut(id);
        debug_assert!(wait.reply.is_none(), "the commands are being handled");
        wait.left += 1;
    }

    /// An answer that came late takes the place that was kept for it, unless the commands were answered without it.
    pub(super) fn put(&mut self, id: AskId, item: u32, answered: Answered) {
        let reply = self.open.kept_mut(id).map(|wait| wait.reply.as_mut());
        if let Some(reply) = reply {
            let place = reply
                .and_then(|(_, _, answers)| answers.iter_mut().find(|(other, _)| *other == item));
            let Some((_, place)) = place else {
                unreachable!("a place was kept for what comes late");
            };
            *place = answered;
        }
    }

    /// The commands have been handled: this goes out once nothing is awaited any more.
    pub(super) fn end(&mut self, id: AskId, reply: CallReply) -> Option<CallReply> {
        let before = self.open.of_mut(id).reply.replace(reply);
        debug_assert!(before.is_none(), "commands are handled once");
        self.count_down(id)
    }

    /// One answer came. The last one tells what goes to whom.
    pub(super) fn count_down(&mut self, id: AskId) -> Option<CallReply> {
        let Some(wait) = self.open.kept_mut(id) else {
            self.stale += 1;
            return None;
        };
        wait.left -= 1;
        if wait.left > 0 {
            return None;
        }
        let reply = self.open.close(id).and_then(|wait| wait.reply);
        debug_assert!(
            reply.is_some(),
            "commands wait for themselves until they are handled"
        );
        reply
    }

    /// Commands that have waited too long: what goes to whom, as far as it is known.
    pub(super) fn next_overdue(&mut self, now: Instant) -> Option<CallReply> {
        self.open.next_overdue(now)?.1.reply
    }

    /// When the next ones have.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.open.next_at()
    }

    pub(super) const fn len(&self) -> usize {
        self.open.len()
    }

    /// Answers that came too late for their commands.
    pub(super) const fn stale(&self) -> u64 {
        self.stale
    }
}

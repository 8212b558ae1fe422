//! Commands of the server API that are done when owners have answered: a subscription that a service made counts
//! once its presence is known.

use crate::limits::API_CALLS_MAX;
use crate::mem::{Slab, SlotPool};
use crate::mesh::message::{Answered, Answers};
use crate::model::ShardId;

struct Wait {
    /// Who asked, and what it gets; `None` while the commands are being handled.
    answers: Option<(ShardId, Box<Answers>)>,
    left: u32,
}

/// See the module.
pub(super) struct Waits {
    waits: Slab<Wait>,
    slots: SlotPool,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            waits: Slab::default(),
            slots: SlotPool::new(API_CALLS_MAX),
        }
    }
}

impl Waits {
    /// Commands begin; they wait for themselves until `end`. `None` when too many do.
    pub(super) fn begin(&mut self) -> Option<u32> {
        let slot = self.slots.take()?;
        let wait = Wait {
            answers: None,
            left: 1,
        };
        self.waits.insert_at(slot, wait);
        Some(slot)
    }

    /// One more answer will come.
    pub(super) fn add(&mut self, slot: u32) {
        if let Some(wait) = self.waits.at_mut(slot) {
            wait.left += 1;
        }
    }

    /// An answer that came late takes the place that was kept for it.
    pub(super) fn put(&mut self, slot: u32, item: u32, answered: Answered) {
        let answers = self
            .waits
            .at_mut(slot)
            .and_then(|wait| wait.answers.as_mut());
        let place = answers
            .and_then(|(_, answers)| answers.items.iter_mut().find(|(other, _)| *other == item));
        if let Some((_, place)) = place {
            *place = answered;
        }
    }

    /// The commands have been handled: these are their answers, once nothing is awaited any more.
    pub(super) fn end(
        &mut self,
        slot: u32,
        to: ShardId,
        answers: Box<Answers>,
    ) -> Option<(ShardId, Box<Answers>)> {
        self.waits.at_mut(slot)?.answers = Some((to, answers));
        self.count_down(slot)
    }

    /// One answer came. The last one tells what goes to whom.
    pub(super) fn count_down(&mut self, slot: u32) -> Option<(ShardId, Box<Answers>)> {
        let wait = self.waits.at_mut(slot)?;
        wait.left -= 1;
        if wait.left > 0 {
            return None;
        }
        self.slots.give(slot);
        self.waits.remove(slot)?.answers
    }
}

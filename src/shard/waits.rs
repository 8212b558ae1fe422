//! Commands of the server API that are done when owners have answered: a subscription that a service made counts
//! once its presence is known.

use crate::limits::API_CALLS_MAX;
use crate::mem::{Slab, SlotPool};
use crate::mesh::message::ReplyTo;
use crate::model::ShardId;

struct Wait {
    from: ShardId,
    reply_to: ReplyTo,
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
    /// A command begins; it waits for itself until `count_down`. `None` when too many do.
    pub(super) fn begin(&mut self, from: ShardId, reply_to: ReplyTo) -> Option<u32> {
        let slot = self.slots.take()?;
        self.waits.insert_at(
            slot,
            Wait {
                from,
                reply_to,
                left: 1,
            },
        );
        Some(slot)
    }

    /// One more answer will come.
    pub(super) fn add(&mut self, slot: u32) {
        if let Some(wait) = self.waits.at_mut(slot) {
            wait.left += 1;
        }
    }

    /// One answer came. The last one tells who is to be answered.
    pub(super) fn count_down(&mut self, slot: u32) -> Option<(ShardId, ReplyTo)> {
        let wait = self.waits.at_mut(slot)?;
        wait.left -= 1;
        if wait.left > 0 {
            return None;
        }
        self.slots.give(slot);
        self.waits
            .remove(slot)
            .map(|wait| (wait.from, wait.reply_to))
    }
}

//! Subscribers that get what they missed in parts.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::model::{ConnId, HubId};

/// Subscribers whose next part can be asked for.
pub(in crate::shard) type PartsQueue = VecDeque<(ConnId, HubId)>;

/// See the module.
#[derive(Default)]
pub(super) struct Parts {
    queue: PartsQueue,
    /// Those whose connection takes nothing now, by slot.
    stalled: HashMap<u32, Vec<(ConnId, HubId)>, FixedState>,
}

impl Parts {
    pub(super) const fn queue(&mut self) -> &mut PartsQueue {
        &mut self.queue
    }

    pub(super) fn ready(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.stalled.values().map(Vec::len).sum::<usize>()
    }

    pub(super) fn stall(&mut self, conn: ConnId, hub: HubId) {
        self.stalled.entry(conn.slot).or_default().push((conn, hub));
    }

    pub(super) fn has_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    pub(super) fn wake(&mut self, slot: u32) {
        if let Some(parts) = self.stalled.remove(&slot) {
            self.queue.extend(parts);
        }
    }

    pub(super) fn forget(&mut self, slot: u32) {
        self.stalled.remove(&slot);
    }

    pub(super) fn shrink(&mut self, kept: usize) {
        self.queue.shrink_to(kept);
    }
}

impl Image for Parts {
    fn write(&self, out: &mut ImageWriter) {
        let Self { queue, stalled } = self;
        queue.write(out);
        out.map(stalled.iter());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let mut parts = Self {
            queue: Image::read(from)?,
            ..Self::default()
        };
        from.map(|slot, waiting| parts.stalled.insert(slot, waiting))?;
        Ok(parts)
    }
}

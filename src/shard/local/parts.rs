//! Subscribers that get what they missed in parts.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::broker::Hub;
use crate::image::{ImageError, ImageReader, ImageWriter};
use crate::mem::Turns;
use crate::model::{ConnId, HubId, TenantId, Weights};

/// Subscribers whose next part can be asked for.
pub(in crate::shard) type PartsQueue = Turns<(ConnId, HubId)>;

/// Parts that a tenant with weight 1 may ask for in its turn.
const TURN_PARTS: u32 = 1;

/// See the module.
pub(super) struct Parts {
    queue: PartsQueue,
    /// Those whose connection takes nothing now, by slot.
    stalled: HashMap<u32, Vec<(ConnId, HubId)>, FixedState>,
}

impl Parts {
    pub(super) fn new(weights: &Arc<Weights>) -> Self {
        Self {
            queue: Turns::new(TURN_PARTS, weights),
            stalled: HashMap::default(),
        }
    }

    pub(super) const fn queue(&mut self) -> &mut PartsQueue {
        &mut self.queue
    }

    pub(super) const fn ready(&self) -> usize {
        self.queue.len()
    }

    /// One more.
    pub(super) fn again(&mut self, hub: &Hub, conn: ConnId, id: HubId) {
        let channel = hub.channel(id);
        let tenant = channel.map_or(TenantId::NONE, |channel| channel.name.tenant());
        self.queue.push(tenant, (conn, id));
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

    pub(super) fn wake(&mut self, hub: &Hub, slot: u32) {
        for (conn, id) in self.stalled.remove(&slot).into_iter().flatten() {
            self.again(hub, conn, id);
        }
    }

    pub(super) fn forget(&mut self, slot: u32) {
        self.stalled.remove(&slot);
    }

    pub(super) fn shrink(&mut self, kept: usize) {
        self.queue.shrink_to(kept);
    }
}

impl Parts {
    pub(super) fn write(&self, out: &mut ImageWriter) {
        let Self { queue, stalled } = self;
        queue.write(out);
        out.map(stalled.iter());
    }

    /// Reads what `write` has written.
    pub(super) fn read(
        weights: &Arc<Weights>,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        let mut parts = Self {
            queue: Turns::read(TURN_PARTS, weights, from)?,
            stalled: HashMap::default(),
        };
        from.map(|slot, waiting| parts.stalled.insert(slot, waiting))?;
        Ok(parts)
    }
}

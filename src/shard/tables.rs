//! How full the tables are that peers fill: control hears of it before one is full.

use super::Shard;
use crate::limits::{CHANNELS_OWNED_MAX, IDEMPOTENCY_KEYS_MAX, PREFIXES_MAX, REVOCATIONS_MAX};
use crate::mesh::control::{FromShard, TableKind};

/// By `TableKind`.
pub(super) type Filling = [bool; TableKind::ALL.len()];

impl Shard {
    /// Reports a table that has become four fifths full, and one that is less than three fifths full again.
    pub(super) fn watch_tables(&mut self) {
        for (at, table) in TableKind::ALL.into_iter().enumerate() {
            let (len, most) = self.fill_of(table);
            let is_filling = if self.filling[at] {
                len * 5 >= most * 3
            } else {
                len * 5 >= most * 4
            };
            if is_filling != self.filling[at] {
                self.filling[at] = is_filling;
                let report = FromShard::Table(self.id, table, is_filling);
                self.reports.push_back(report);
            }
        }
    }

    /// Places taken, and places.
    fn fill_of(&self, table: TableKind) -> (usize, usize) {
        match table {
            TableKind::ChannelsOwned => {
                let most = self.config.channels.owned_limit as usize;
                (self.owned.len(), most)
            }
            TableKind::ChannelsLocal => (self.local.hub().len(), CHANNELS_OWNED_MAX),
            TableKind::IdempotencyKeys => (self.owned.keys(), IDEMPOTENCY_KEYS_MAX),
            TableKind::Prefixes => (self.people.prefixes_counted(), PREFIXES_MAX),
            TableKind::Revocations => (self.people.revocations().fullest(), REVOCATIONS_MAX),
        }
    }
}

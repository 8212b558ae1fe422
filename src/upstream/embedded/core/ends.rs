//! What a batch says of entries that end before their turn.

use std::collections::BTreeMap;

use fjall::OwnedWriteBatch;

use super::{Core, wall_ms};
use crate::model::Entry;
use crate::upstream::desk::turns::key_of;
use crate::upstream::embedded::ends;

/// What a batch has said so far.
#[derive(Default)]
pub(super) struct Endings {
    /// When something ends.
    pub times: Vec<u64>,
    /// What is the latest with its key.
    latest: BTreeMap<Vec<u8>, u64>,
}

impl Core {
    /// Adds to a batch when an entry of a channel ends, and that it replaces another one.
    pub(super) fn note_ends(
        &self,
        batch: &mut OwnedWriteBatch,
        endings: &mut Endings,
        channel_id: u64,
        entry: &Entry,
    ) {
        let rows = &self.store.scheduled;
        if let Some(at) = entry.record.ends_ms() {
            ends::put(batch, rows, (ends::TTL, at, entry.cursor));
            endings.times.push(at);
        }
        let rule = self.rules.find(entry.record.channel.whole());
        let Some((by, after)) = rule.and_then(|rule| rule.compacts.as_ref()) else {
            return;
        };
        let key = key_of(by, entry);
        if key.is_empty() {
            return;
        }
        let row = ends::latest_key(channel_id, &key);
        let stored = || ends::latest(&self.store, &row);
        let before = endings.latest.get(&row).copied();
        if let Some(before) = before.or_else(stored) {
            let at = wall_ms().saturating_add(*after);
            ends::put(batch, rows, (ends::REPLACED, at, before));
            endings.times.push(at);
        }
        batch.insert(rows, &row[..], entry.cursor.to_be_bytes());
        endings.latest.insert(row, entry.cursor);
    }
}

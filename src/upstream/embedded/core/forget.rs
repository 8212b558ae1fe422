//! What namespaces do not keep any more, forgotten: floors, trims, and the blocks that go.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use fjall::{Keyspace, OwnedWriteBatch, Readable as _};

use super::{
    Broken, Core, FLOORS, FREED, IDLE_ROWS_PER_STEP, Row, Rules, Store, index_key, trim_key,
};
use crate::limits::LOG_TRIMS_MAX;
use crate::model::ChannelName;
use crate::upstream::embedded::block;
use crate::upstream::embedded::ends::Holed;
use crate::upstream::embedded::segments::Segment;
use crate::upstream::embedded::sweep::{Gone, Swept};

/// Channels with too many entries that one step looks at.
const FULL_PER_STEP: usize = 512;
/// The disk gets smaller once so many bytes of a segment's files are of blocks that went, and this share of them.
const COMPACTED_FROM_BYTES: u64 = 1 << 20;
const COMPACTED_FROM_SHARE: u64 = 4;

/// A block that goes.
#[derive(Clone, Copy)]
pub(super) struct Block {
    segment: u64,
    key: u64,
    channel_id: u64,
    first_offset: u64,
    last: u64,
    bytes: u64,
    count: u64,
    /// Entries that it had yet.
    left: u64,
}

pub(super) fn freed_key(segment: u64) -> Vec<u8> {
    [FREED, &segment.to_be_bytes()].concat()
}

impl Core {
    /// Other rules count from now on.
    pub fn obey(&mut self, rules: &Arc<Rules>) {
        self.rules = Arc::clone(rules);
        Arc::make_mut(&mut self.floors).rename(rules.names());
        let counts = rules.all().any(|(_, rule)| rule.count.is_some());
        self.full_at = counts.then(Vec::new);
        self.full.clear();
    }

    /// The rules that count.
    #[must_use]
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Some channels that have more entries than their namespace keeps.
    ///
    /// # Errors
    ///
    /// The store has failed.
    pub fn take_full(&mut self) -> Result<Vec<(ChannelName, Row)>, Broken> {
        self.find_full()?;
        let mut found = Vec::new();
        let mut batch = self.store.batch();
        while found.len() < FULL_PER_STEP {
            let Some(channel) = self.full.pop_first() else {
                break;
            };
            let rule = self.rules.find(channel.whole());
            let (Some(count), Some(mut row)) =
                (rule.and_then(|rule| rule.count), self.row(&channel)?)
            else {
                continue;
            };
            let most = row.top.saturating_sub(count);
            if most > row.trimmed {
                row.trimmed = most;
                batch.insert(&self.store.channels, channel.whole(), row.encode());
                self.rows.put(channel.clone(), row.clone());
            }
            found.push((channel, row));
        }
        if !batch.is_empty() {
            Store::commit(batch, false).map_err(Broken)?;
        }
        Ok(found)
    }

    /// More than one step takes at once waits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.full.is_empty() || self.full_at.is_some()
    }

    /// After a start and after a reload all channels are looked at, some at a time.
    fn find_full(&mut self) -> Result<(), Broken> {
        let Some(after) = self.full_at.take().filter(|_| self.full.is_empty()) else {
            return Ok(());
        };
        let snapshot = self.store.db.snapshot();
        let range = (Bound::Excluded(after), Bound::Unbounded);
        for guard in snapshot
            .range(&self.store.channels, range)
            .take(IDLE_ROWS_PER_STEP)
        {
            let (key, value) = guard.into_inner()?;
            if let Ok(name) = str::from_utf8(&key)
                && let Some(count) = self.rules.find(name).and_then(|rule| rule.count)
                && Row::decode(&value).is_ok_and(|row| row.trimmed > 0 || row.top > count)
            {
                self.full.insert(ChannelName::from_whole(name));
            }
            self.full_at = Some(key.to_vec());
        }
        Ok(())
    }

    /// Adds what a sweep has found to a batch. What of a block cannot be noted is left.
    pub fn forget(&mut self, swept: &mut Swept, batch: &mut OwnedWriteBatch) {
        let state = &self.store.state;
        let floors = Arc::make_mut(&mut self.floors);
        for (name, floor) in &swept.floors {
            floors.set(name, *floor);
            let key = [FLOORS, name.as_bytes()].concat();
            batch.insert(state, key, floor.encode());
        }
        let mut unnoted = Vec::new();
        for (id, _, offset) in &swept.trims {
            if !self.note_trim(*id, *offset, batch) {
                unnoted.push(*id);
            }
        }
        swept
            .gone
            .retain(|gone| gone.is_whole || !unnoted.contains(&gone.channel_id));
        let whole = swept.gone.iter().filter(|gone| gone.is_whole).map(block_of);
        let blocks: Vec<Block> = self.forgotten_ends.drain(..).chain(whole).collect();
        for block in blocks {
            self.remove(block, batch);
        }
    }

    /// What is known of a channel that is about to be forgotten.
    ///
    /// # Errors
    ///
    /// The store has failed.
    pub fn row_of(&mut self, channel: &ChannelName) -> Result<Option<Row>, Broken> {
        self.row(channel)
    }

    /// Up to this cursor it is known what groups lose with the log where that becomes letters.
    #[must_use]
    pub fn judged_to(&self) -> u64 {
        let rules = self.rules.all().filter(|(_, rule)| rule.makes_letters);
        let floors = rules.map(|(name, _)| self.floors.get(name).cursor);
        floors.min().unwrap_or(u64::MAX)
    }

    /// Forgets what a channel has kept, up to an offset; gives how many entries that may have been.
    ///
    /// # Errors
    ///
    /// It is not known whether it was done.
    pub fn trim(&mut self, channel: &ChannelName, up_to: u64) -> Result<u64, Broken> {
        let Some(mut row) = self.row(channel)? else {
            return Ok(0);
        };
        let up_to = up_to.min(row.top);
        let kept = up_to.saturating_sub(row.trimmed);
        row.trimmed = row.trimmed.max(up_to);
        let mut batch = self.store.batch();
        batch.insert(&self.store.channels, channel.whole(), row.encode());
        let is_noted = self.trims.len() < LOG_TRIMS_MAX || self.trims.contains_key(&row.id);
        if is_noted {
            let value = [row.trimmed.to_be_bytes(), self.end.to_be_bytes()].concat();
            batch.insert(&self.store.state, trim_key(row.id), value);
        }
        Store::commit(batch, true).map_err(Broken)?;
        if is_noted {
            Arc::make_mut(&mut self.trims).insert(row.id, row.trimmed);
            self.trim_ends.insert(row.id, self.end);
        }
        self.rows.put(channel.clone(), row);
        Ok(kept)
    }

    /// `false` where too many channels have one.
    fn note_trim(&mut self, id: u64, offset: u64, batch: &mut OwnedWriteBatch) -> bool {
        let known = self.trims.get(&id).copied();
        if known.is_none() && self.trims.len() >= LOG_TRIMS_MAX {
            return false;
        }
        let offset = known.unwrap_or(0).max(offset);
        let value = [offset.to_be_bytes(), self.end.to_be_bytes()].concat();
        batch.insert(&self.store.state, trim_key(id), value);
        Arc::make_mut(&mut self.trims).insert(id, offset);
        self.trim_ends.insert(id, self.end);
        true
    }

    /// The last block of a segment stays until another one is behind it: by it, the segment knows where it ends.
    fn remove(&mut self, block: Block, batch: &mut OwnedWriteBatch) {
        let Some(segment) = self.segments.find(block.segment) else {
            return;
        };
        if segment.last <= block.last {
            let is_known = |other: &Block| other.key == block.key;
            if !self.forgotten_ends.iter().any(is_known) {
                self.forgotten_ends.push(block);
            }
            // Copies of the log say so, too.
            let offset = block.first_offset + block.count.saturating_sub(1);
            self.note_trim(block.channel_id, offset, batch);
            return;
        }
        batch.remove(&segment.blocks, block.key.to_be_bytes());
        let index = index_key(block.channel_id, block.first_offset);
        batch.remove(&segment.index, index);
        self.free(block.segment, block.bytes, block.left, batch);
    }

    /// So many bytes and entries of a segment are gone.
    fn free(&mut self, number: u64, bytes: u64, entries: u64, batch: &mut OwnedWriteBatch) {
        let Some(segment) = self.segments.find(number) else {
            return;
        };
        segment.freed.0 += bytes;
        segment.freed.1 += entries;
        segment.uncompacted += bytes;
        let value = [segment.freed.0.to_be_bytes(), segment.freed.1.to_be_bytes()].concat();
        batch.insert(&self.store.state, freed_key(number), value);
    }

    /// Adds to a batch that some of a block's entries are gone. The others keep their places.
    pub fn make_holes(
        &mut self,
        block: &Holed,
        goes: impl Fn(u64) -> bool,
        batch: &mut OwnedWriteBatch,
    ) {
        let gone: BTreeSet<u64> = (block.entries.iter())
            .map(|entry| entry.cursor)
            .filter(|cursor| goes(*cursor))
            .collect();
        let Some(segment) = self.segments.find(block.segment) else {
            return;
        };
        let left = block::without(block.block, &block.value, |cursor| gone.contains(&cursor));
        let Ok(left) = left else {
            return;
        };
        let bytes = block.value.len().saturating_sub(left.len()) as u64;
        batch.insert(&segment.blocks, block.block.to_be_bytes(), left);
        self.free(block.segment, bytes, gone.len() as u64, batch);
    }

    /// Entries that were removed out of segments that are alive.
    #[must_use]
    pub fn freed_entries(&self) -> u64 {
        self.segments.list().iter().map(|one| one.freed.1).sum()
    }

    /// Keyspaces whose files hold much of what is gone, to be written anew.
    pub fn take_uncompacted(&mut self) -> Option<[Keyspace; 2]> {
        let is_due = |segment: &&mut Segment| {
            let most = (segment.bytes / COMPACTED_FROM_SHARE).max(COMPACTED_FROM_BYTES);
            segment.uncompacted >= most
        };
        let segment = self.segments.list_mut().iter_mut().find(is_due)?;
        segment.uncompacted = 0;
        Some([segment.blocks.clone(), segment.index.clone()])
    }
}

fn block_of(gone: &Gone) -> Block {
    Block {
        segment: gone.segment,
        key: gone.block,
        channel_id: gone.channel_id,
        first_offset: gone.first_offset,
        last: gone.block + gone.count.saturating_sub(1),
        bytes: gone.bytes,
        count: gone.count,
        left: gone
            .left
            .as_ref()
            .map_or(gone.count, |left| left.len() as u64),
    }
}

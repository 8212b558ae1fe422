//! What has ended before its turn, taken out: of its blocks, of what is in memory, and from the groups that had not done it.

use std::collections::{BTreeMap, BTreeSet};

use fjall::OwnedWriteBatch;

use super::forget::{Burial, letter};
use super::{Broken, Inner};
use crate::model::Entry;
use crate::upstream::embedded::buried;
use crate::upstream::embedded::ends::{self, Ended, Holed};

/// What a group is at work on stays until it is settled; that is looked at again after so long.
const LEASED_PAUSE_MS: u64 = 1000;

impl Inner {
    /// Adds to a batch that entries are gone, but for those that a worker has.
    pub(super) fn end(
        &mut self,
        ended: &Ended,
        unix_ms: u64,
        batch: &mut OwnedWriteBatch,
        burials: &mut Vec<Burial>,
    ) -> Result<(), Broken> {
        let Some(core) = &mut self.core else {
            return Ok(());
        };
        let leased: BTreeSet<u64> = (self.groups.values())
            .flat_map(|state| ended.blocks.iter().map(move |block| (state, block)))
            .filter(|(state, block)| state.filter.wants(block.channel.whole()))
            .flat_map(|(state, block)| {
                let cursors = block.entries.iter().map(|entry| entry.cursor);
                cursors.filter(|cursor| state.has_leased(*cursor))
            })
            .collect();
        let keyspace = core.store.scheduled.clone();
        for &(kind, ends_ms, cursor) in &ended.rows {
            ends::remove(batch, &keyspace, (kind, ends_ms, cursor));
            if leased.contains(&cursor) {
                let again = unix_ms.saturating_add(LEASED_PAUSE_MS);
                ends::put(batch, &keyspace, (kind, again, cursor));
                core.ends.added(again);
            }
        }
        let goes = |cursor: u64| !leased.contains(&cursor);
        for block in &ended.blocks {
            let gone = block.entries.iter().filter(|entry| goes(entry.cursor));
            let offsets: Vec<u64> = gone.map(|entry| entry.position.offset.0).collect();
            if offsets.is_empty() {
                continue;
            }
            core.make_holes(block, goes, batch);
            let name = core.rules().names().namespace(block.channel.whole());
            let name = name.unwrap_or_default();
            let expiries = self.sweeper.expiries.entry(name.into()).or_default();
            expiries.namespace = name.into();
            expiries.entries += offsets.len() as u64;
            let known = self.sweeper.ended.entry(block.channel.clone()).or_default();
            known.extend(offsets);
        }
        let cursors = || {
            let entries = ended.blocks.iter().flat_map(|block| &block.entries);
            entries
                .map(|entry| entry.cursor)
                .filter(|cursor| goes(*cursor))
        };
        let gone: BTreeSet<u64> = cursors().collect();
        let Some(&reach) = gone.last() else {
            return Ok(());
        };
        self.recent.forget(|entry| gone.contains(&entry.cursor));
        for state in self.groups.values_mut() {
            if state.has_done_to(reach) {
                continue;
            }
            let its = |block: &&Holed| state.filter.wants(block.channel.whole());
            let its: BTreeMap<u64, _> = (ended.blocks.iter().filter(its))
                .flat_map(|block| block.entries.iter().map(move |entry| (block, entry)))
                .filter(|(_, entry)| goes(entry.cursor))
                .map(|(block, entry)| (entry.cursor, (block, entry)))
                .collect();
            let is_gone = |entry: &Entry| gone.contains(&entry.cursor);
            // Whoever wants the latest has lost nothing with what it replaces.
            let is_replaced = |cursor: &u64| ended.replaced.contains(cursor);
            state.leave_out(its.keys().copied().filter(is_replaced), is_gone);
            let over = its.keys().copied().filter(|cursor| !is_replaced(cursor));
            for lost in state.forget(over, is_gone) {
                let Some((block, entry)) = its.get(&lost.cursor) else {
                    continue;
                };
                let rule = core.rules().find(block.channel.whole());
                if !rule.is_some_and(|rule| rule.makes_letters) {
                    continue;
                }
                let letter = letter(&core.store, state, lost, entry, unix_ms);
                let before = buried::stored(&core.store, &letter.group, entry.record.event)?;
                burials.push(Burial { before, letter });
            }
        }
        Ok(())
    }
}

//! What namespaces do not keep is looked for beside, and forgotten here: together with what groups lose by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Broken, Inner, Store};
use crate::model::{ChannelName, Entry};
use crate::upstream::embedded::buried;
use crate::upstream::embedded::clock::wall_ms;
use crate::upstream::embedded::floors::Rules;
use crate::upstream::embedded::groups::{Lost, State};
use crate::upstream::embedded::sweep::{Gone, Swept, sweep};
use crate::upstream::log::{DeadLetter, Expiries, Failure};

/// Between two sweeps.
const SWEEP_PAUSE: Duration = Duration::from_millis(500);
/// Blocks that one sweep looks at: fewer where many groups may lose some, or where their entries are read as well.
const BLOCKS_PER_SWEEP: usize = 2048;
const BLOCKS_WITH_LETTERS: usize = 64;
const GROUPS_PER_SHARE: usize = 256;

/// Why an entry that nobody has failed with is a dead letter.
const REASON: &str = "expired";

/// What is done about it now.
pub struct Sweeper {
    rules: Arc<Rules>,
    /// One on its way.
    sweeping: Option<oneshot::Receiver<fjall::Result<Swept>>>,
    /// Files that are written anew.
    compacting: Option<oneshot::Receiver<()>>,
    next: Instant,
    /// Of channels: the first offset that is kept, for whoever has older ones in memory.
    begins: BTreeMap<ChannelName, u64>,
    /// By namespace: entries and bytes that were removed.
    expiries: BTreeMap<Box<str>, Expiries>,
}

impl Sweeper {
    /// Nothing is done.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            rules: Arc::default(),
            sweeping: None,
            compacting: None,
            next: now,
            begins: BTreeMap::new(),
            expiries: BTreeMap::new(),
        }
    }

    /// Something is looked for.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.sweeping.is_some()
    }

    /// When the next look is due, where there is anything to look for.
    #[must_use]
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        (!self.rules.is_empty()).then(|| self.next.saturating_duration_since(now))
    }

    /// Somebody should know where channels begin.
    #[must_use]
    pub fn has_begins(&self) -> bool {
        !self.begins.is_empty()
    }

    /// Where channels begin.
    pub fn take_begins(&mut self) -> Vec<(ChannelName, u64)> {
        std::mem::take(&mut self.begins).into_iter().collect()
    }

    /// What was removed since the start.
    #[must_use]
    pub fn expiries(&self) -> Vec<Expiries> {
        self.expiries.values().cloned().collect()
    }

    /// What is on its way is of a log that is gone.
    pub fn abandon(&mut self) {
        self.sweeping = None;
    }
}

impl Inner {
    /// Other rules count from now on.
    pub fn obey(&mut self, rules: Rules, now: Instant) {
        self.sweeper.rules = Arc::new(rules);
        self.sweeper.next = now;
        self.tell_rules();
    }

    /// A log that was opened knows the rules.
    pub fn tell_rules(&mut self) {
        if let Some(core) = &mut self.core {
            core.obey(&self.sweeper.rules);
        }
    }

    /// Looks whether something was found, and for more when it is time. `true` if something is forgotten.
    pub fn sweep_if_due(&mut self, now: Instant) -> Result<bool, Broken> {
        let mut is_any = false;
        if let Some(sweeping) = &mut self.sweeper.sweeping {
            let found = match sweeping.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return Ok(false),
                // What cannot be read is tried again.
                Err(oneshot::error::TryRecvError::Closed) | Ok(Err(_)) => None,
                Ok(Ok(found)) => Some(found),
            };
            self.sweeper.sweeping = None;
            self.sweeper.next = now + SWEEP_PAUSE;
            if let Some(found) = found {
                if found.is_behind {
                    self.sweeper.next = now;
                }
                is_any = self.forget(found)?;
            }
        }
        self.compact();
        if self.sweeper.rules.is_empty() || now < self.sweeper.next {
            return Ok(is_any);
        }
        let Some((search, _)) = self.search()? else {
            return Ok(is_any);
        };
        let (done, sweeping) = oneshot::channel();
        self.sweeper.sweeping = Some(sweeping);
        tokio::task::spawn_blocking(move || done.send(search()));
        Ok(is_any)
    }

    /// The next search, and whether others have to follow it.
    #[allow(clippy::type_complexity)]
    fn search(
        &mut self,
    ) -> Result<Option<(impl FnOnce() -> fjall::Result<Swept> + Send + use<>, bool)>, Broken> {
        let Some(core) = &mut self.core else {
            return Ok(None);
        };
        let now_ms = core.clock.now_ms();
        let full = core.take_full()?;
        let (view, rules, has_more) = (core.view(), Arc::clone(core.rules()), core.is_full());
        let reads_entries = rules.all().any(|(_, rule)| rule.makes_letters);
        let most = match reads_entries && !self.groups.is_empty() {
            true => BLOCKS_WITH_LETTERS,
            false => BLOCKS_PER_SWEEP / (1 + self.groups.len() / GROUPS_PER_SHARE),
        };
        let blocks = most.max(BLOCKS_WITH_LETTERS);
        let search = move || {
            let mut swept = sweep(&view, &rules, full, now_ms, blocks)?;
            swept.is_behind |= has_more;
            Ok(swept)
        };
        Ok(Some((search, has_more)))
    }

    /// Everything that is due is forgotten when this returns.
    #[cfg(test)]
    pub fn sweep_now(&mut self) {
        while let Some((search, _)) = self.search().expect("it goes on") {
            let found = search().expect("found");
            let is_behind = found.is_behind;
            self.forget(found).expect("forgotten");
            if !is_behind {
                break;
            }
        }
    }

    /// Forgets what was found, in one batch with what groups lose by it.
    fn forget(&mut self, mut swept: Swept) -> Result<bool, Broken> {
        let Some(core) = &mut self.core else {
            return Ok(false);
        };
        if swept.floors.is_empty() && swept.trims.is_empty() && swept.gone.is_empty() {
            return Ok(false);
        }
        let mut batch = core.store.batch();
        core.forget(&mut swept, &mut batch);
        let view = core.view();
        let trims: BTreeMap<&ChannelName, u64> = swept
            .trims
            .iter()
            .map(|(_, channel, offset)| (channel, *offset))
            .collect();
        let is_gone = |entry: &Entry| {
            let channel = &entry.record.channel;
            entry.cursor <= view.floors.of(channel.as_str())
                || trims
                    .get(channel)
                    .is_some_and(|offset| entry.position.offset.0 <= *offset)
        };
        self.recent.forget(is_gone);
        let reach = swept.gone.iter().map(|gone| gone.last).max().unwrap_or(0);
        let unix_ms = wall_ms();
        let mut letters = Vec::new();
        for state in self.groups.values_mut() {
            if state.has_done_to(reach) {
                continue;
            }
            let its = |gone: &&Gone| state.filter.wants(gone.channel.as_str());
            let its: Vec<&Gone> = swept.gone.iter().filter(its).collect();
            let blocks = its.iter().map(|gone| (gone.first, gone.last));
            for lost in state.forget(blocks, is_gone) {
                let entries = its.iter().flat_map(|gone| &gone.entries);
                let Some(entry) = entries.into_iter().find(|one| one.cursor == lost.cursor) else {
                    continue;
                };
                let letter = letter(&core.store, state, lost, entry, unix_ms);
                let before = buried::stored(&core.store, &letter.group, entry.record.event)?;
                buried::write(&mut batch, &core.store, before.as_ref(), &letter);
                letters.push((before, letter));
            }
            state.write(&mut batch, &core.store);
        }
        let is_durable = false;
        Store::commit(batch, is_durable).map_err(Broken)?;
        for (before, letter) in &letters {
            buried::count(&mut core.letters, before.as_ref(), letter);
        }
        for gone in &swept.gone {
            let rules = &self.sweeper.rules;
            let name = rules.names().namespace(gone.channel.as_str());
            let name = name.unwrap_or_default();
            let expiries = self.sweeper.expiries.entry(name.into()).or_default();
            expiries.namespace = name.into();
            expiries.entries += (gone.last + 1).saturating_sub(gone.first);
            expiries.bytes += if gone.is_whole { gone.bytes } else { 0 };
            let first = self.sweeper.begins.entry(gone.channel.clone()).or_default();
            *first = (*first).max(gone.last_offset() + 1);
        }
        Ok(true)
    }

    /// Writes files anew of which much is gone.
    fn compact(&mut self) {
        if let Some(compacting) = &mut self.sweeper.compacting {
            if compacting.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                return;
            }
            self.sweeper.compacting = None;
        }
        let Some(core) = &mut self.core else {
            return;
        };
        let Some(keyspaces) = core.take_uncompacted() else {
            return;
        };
        // What is waited for ends only while the store is open.
        let store = core.store.clone();
        let (done, compacting) = oneshot::channel();
        self.sweeper.compacting = Some(compacting);
        tokio::task::spawn_blocking(move || {
            for keyspace in keyspaces {
                // What stays is written anew with what goes next.
                let _ = keyspace
                    .rotate_memtable_and_wait()
                    .and_then(|()| keyspace.major_compact());
            }
            drop(store);
            let _ = done.send(());
        });
    }
}

/// What a group has lost, as its dead letter.
fn letter(
    store: &Store,
    state: &State,
    lost: Lost,
    entry: &Arc<Entry>,
    unix_ms: u64,
) -> DeadLetter {
    let on_disk = || state.parked().failures(store, lost.cursor);
    let mut failures = lost.failures.unwrap_or_else(on_disk);
    failures.push(Failure {
        attempt: failures.last().map_or(1, |last| last.attempt + 1),
        unix_ms,
        reason: REASON.into(),
        worker: "".into(),
        next_unix_ms: 0,
    });
    DeadLetter {
        group: state.spec.name.clone(),
        entry: Arc::clone(entry),
        failures,
        unix_ms,
    }
}

//! What namespaces do not keep is looked for beside, and forgotten here: together with what groups lose by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::OwnedWriteBatch;
use tokio::sync::oneshot;

use super::{Broken, Inner, Store};
use crate::model::{ChannelName, Draft, Entry};
use crate::upstream::embedded::buried;
use crate::upstream::embedded::clock::{monotonic, wall_ms};
use crate::upstream::embedded::ends;
use crate::upstream::embedded::floors::{Rule, Rules};
use crate::upstream::embedded::groups::{Lost, State};
use crate::upstream::embedded::refusal;
use crate::upstream::embedded::sweep::{Gone, Swept, sweep};
use crate::upstream::log::{DeadLetter, EXPIRED, Expiries, Failure, Forgotten};

/// Between two sweeps.
const SWEEP_PAUSE: Duration = Duration::from_millis(500);
/// Blocks that one sweep looks at: fewer where many groups may lose some, or where their entries are read as well.
const BLOCKS_PER_SWEEP: usize = 2048;
const BLOCKS_WITH_LETTERS: usize = 64;
const GROUPS_PER_SHARE: usize = 256;
/// Entries that end by themselves and go with one sweep.
const ENDED_PER_SWEEP: usize = 2048;

/// What is done about it now.
pub struct Sweeper {
    rules: Arc<Rules>,
    /// One on its way.
    sweeping: Option<oneshot::Receiver<fjall::Result<Swept>>>,
    /// Somebody else looks for what is forgotten by order.
    is_held: bool,
    /// Files that are written anew.
    compacting: Option<oneshot::Receiver<()>>,
    next: Instant,
    /// Of channels: the first offset that is kept, for whoever has older ones in memory.
    begins: BTreeMap<ChannelName, u64>,
    /// Offsets that have ended before their turn.
    pub(super) ended: BTreeMap<ChannelName, Vec<u64>>,
    /// By namespace: entries and bytes that were removed.
    pub(super) expiries: BTreeMap<Box<str>, Expiries>,
}

impl Sweeper {
    /// Nothing is done.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            rules: Arc::default(),
            sweeping: None,
            is_held: false,
            compacting: None,
            next: now,
            begins: BTreeMap::new(),
            ended: BTreeMap::new(),
            expiries: BTreeMap::new(),
        }
    }

    /// Something is looked for.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.sweeping.is_some()
    }

    /// Nothing is looked for until it is let go. `false`: something is looked for just now.
    pub fn hold(&mut self) -> bool {
        let is_free = !self.is_held && !self.is_busy();
        self.is_held |= is_free;
        is_free
    }

    /// It goes on.
    pub fn let_go(&mut self) {
        self.is_held = false;
    }

    /// When the next look is due, where there is anything to look for. `ends`: after how long something ends by itself.
    #[must_use]
    pub fn pause(&self, now: Instant, ends: Option<Duration>) -> Option<Duration> {
        let next = self.next.saturating_duration_since(now);
        let looks = |(_, rule): (&str, &Rule)| rule.is_less() || rule.makes_letters;
        match self.rules.all().any(looks) {
            true => Some(next),
            false => ends.map(|ends| ends.max(next)),
        }
    }

    /// Somebody should know what of channels is not kept any more.
    #[must_use]
    pub fn has_forgotten(&self) -> bool {
        !self.begins.is_empty() || !self.ended.is_empty()
    }

    /// What of channels is not kept any more.
    pub fn take_forgotten(&mut self) -> Vec<(ChannelName, Forgotten)> {
        let begins = std::mem::take(&mut self.begins).into_iter();
        let begins = begins.map(|(channel, first)| (channel, Forgotten::Before(first)));
        let ended = std::mem::take(&mut self.ended).into_iter();
        let ended = ended.map(|(channel, mut offsets)| {
            offsets.sort_unstable();
            (channel, Forgotten::Some(offsets.into()))
        });
        begins.chain(ended).collect()
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
        let ends = self.core.as_ref().and_then(|core| core.ends.first_ms());
        let has_ended = ends.is_some_and(|ends| ends <= wall_ms());
        let has_none = self.sweeper.rules.is_empty() && !has_ended;
        if has_none || now < self.sweeper.next || self.sweeper.is_held {
            return Ok(is_any);
        }
        let Some((search, _)) = self.search(wall_ms())? else {
            return Ok(is_any);
        };
        let (done, sweeping) = oneshot::channel();
        self.sweeper.sweeping = Some(sweeping);
        tokio::task::spawn_blocking(move || {
            // Nobody waits where the log has failed meanwhile.
            let _ = done.send(search());
        });
        Ok(is_any)
    }

    /// The next search, and whether others have to follow it.
    #[allow(clippy::type_complexity)]
    fn search(
        &mut self,
        wall_ms: u64,
    ) -> Result<Option<(impl FnOnce() -> fjall::Result<Swept> + Send + use<>, bool)>, Broken> {
        let Some(core) = &mut self.core else {
            return Ok(None);
        };
        let now_ms = core.clock.now_ms();
        let full = core.take_full()?;
        let (mut view, rules, has_more) = (core.view(), Arc::clone(core.rules()), core.is_full());
        view.now_ms = wall_ms;
        let reads_entries = rules.all().any(|(_, rule)| rule.makes_letters);
        let most = match reads_entries && !self.groups.is_empty() {
            true => BLOCKS_WITH_LETTERS,
            false => BLOCKS_PER_SWEEP / (1 + self.groups.len() / GROUPS_PER_SHARE),
        };
        let blocks = most.max(BLOCKS_WITH_LETTERS);
        let doomed = core.segments.doomed(now_ms);
        let ends = core.ends.begin();
        let store = core.store.clone();
        let search = move || {
            let mut swept = sweep(&view, &rules, full, (now_ms, doomed), blocks)?;
            if let Some(from) = ends.filter(|from| *from <= view.now_ms) {
                swept.ended = ends::look(&view, &store, from, ENDED_PER_SWEEP)?;
            }
            swept.is_behind |= has_more || swept.ended.is_behind;
            Ok(swept)
        };
        Ok(Some((search, has_more)))
    }

    /// Everything that is due is forgotten when this returns.
    #[cfg(test)]
    pub fn sweep_now(&mut self) {
        self.sweep_as_of(wall_ms());
    }

    /// The same as if it were another time.
    #[cfg(test)]
    pub fn sweep_as_of(&mut self, wall_ms: u64) {
        while let Some((search, _)) = self.search(wall_ms).expect("it goes on") {
            let found = search().expect("found");
            let is_behind = found.is_behind;
            self.forget(found).expect("forgotten");
            if !is_behind {
                break;
            }
        }
    }

    /// What groups lose of a channel becomes letters.
    #[must_use]
    pub fn makes_letters(&self, channel: &ChannelName) -> bool {
        let rule = self.sweeper.rules.find(channel.whole());
        !self.groups.is_empty() && rule.is_some_and(|rule| rule.makes_letters)
    }

    /// Forgets what was found, in one batch with what groups lose by it and the letters of that.
    pub fn forget(&mut self, mut swept: Swept) -> Result<bool, Broken> {
        let Some(core) = &mut self.core else {
            return Ok(false);
        };
        let mut ended = std::mem::take(&mut swept.ended);
        let is_nothing = swept.floors.is_empty() && swept.trims.is_empty() && swept.gone.is_empty();
        if is_nothing && ended.rows.is_empty() {
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
            entry.cursor <= view.floors.of(channel.whole())
                || trims
                    .get(channel)
                    .is_some_and(|offset| entry.position.offset.0 <= *offset)
        };
        // What the rules of namespaces take has not ended beside.
        for block in &mut ended.blocks {
            block.entries.retain(|entry| !is_gone(entry));
        }
        self.recent.forget(is_gone);
        let reach = swept.gone.iter().map(|gone| gone.last).max().unwrap_or(0);
        let unix_ms = wall_ms();
        let mut burials = Vec::new();
        for state in self.groups.values_mut() {
            if state.has_done_to(reach) {
                continue;
            }
            let its = |gone: &&Gone| {
                state.filter.wants(gone.channel.whole()) && state.has_any(gone.first, gone.last)
            };
            let its: Vec<&Gone> = swept.gone.iter().filter(its).collect();
            let cursors = its.iter().flat_map(|gone| gone.cursors());
            for lost in state.forget(cursors, is_gone) {
                let entries = its.iter().flat_map(|gone| &gone.entries);
                let Some(entry) = entries.into_iter().find(|one| one.cursor == lost.cursor) else {
                    continue;
                };
                let letter = letter(&core.store, state, lost, entry, unix_ms);
                let before = buried::stored(&core.store, &letter.group, entry.record.event)?;
                burials.push(Burial { before, letter });
            }
        }
        self.end(&ended, unix_ms, &mut batch, &mut burials)?;
        self.bury_all(burials, batch)?;
        if !ended.rows.is_empty()
            && let Some(core) = &mut self.core
        {
            core.ends.done(ended.next);
        }
        for gone in &swept.gone {
            if !swept.is_by_order {
                let rules = &self.sweeper.rules;
                let name = rules.names().namespace(gone.channel.whole());
                let name = name.unwrap_or_default();
                let expiries = self.sweeper.expiries.entry(name.into()).or_default();
                expiries.namespace = name.into();
                expiries.entries += gone.cursors().count() as u64;
                expiries.bytes += if gone.is_whole { gone.bytes } else { 0 };
            }
            let first = self.sweeper.begins.entry(gone.channel.clone()).or_default();
            *first = (*first).max(gone.last_offset() + 1);
        }
        Ok(true)
    }

    /// Stores a batch with all that groups have changed, the letters of what they have lost, and what announces those.
    fn bury_all(&mut self, burials: Vec<Burial>, mut batch: OwnedWriteBatch) -> Result<(), Broken> {
        let Some(core) = &mut self.core else {
            return Ok(());
        };
        for state in self.groups.values_mut() {
            state.write(&mut batch, &core.store);
        }
        for Burial { before, letter } in &burials {
            buried::write(&mut batch, &core.store, before.as_ref(), letter);
        }
        let announced = burials
            .iter()
            .filter_map(|burial| self.announce?(&burial.letter));
        let announced: Vec<Draft> = announced.filter(|draft| refusal(draft).is_none()).collect();
        if announced.is_empty() {
            let is_durable = false;
            Store::commit(batch, is_durable).map_err(Broken)?;
            self.dirty = None;
            self.unsynced = self.unsynced.or_else(|| Some(monotonic()));
        } else {
            let entries = core.append_to(batch, announced)?;
            let end = core.end;
            self.stored(end, entries);
        }
        let Some(core) = &mut self.core else {
            return Ok(());
        };
        for Burial { before, letter } in &burials {
            buried::count(&mut core.letters, before.as_ref(), letter);
            if let Some(state) = self.groups.get_mut(&letter.group) {
                state.buried += 1;
            }
        }
        Ok(())
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

/// A letter that the log makes by itself.
pub(super) struct Burial {
    /// The one in whose place it is put.
    pub before: Option<buried::Row>,
    /// What.
    pub letter: DeadLetter,
}

/// What a group has lost, as its dead letter.
pub(super) fn letter(
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
        reason: EXPIRED.into(),
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

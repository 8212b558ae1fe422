//! The log while it is open: appends, channels, retention. Everything here runs on the bridge's thread.

mod ends;
mod forget;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fjall::{AbstractTree as _, Keyspace, OwnedWriteBatch, Readable as _};
use hashbrown::HashMap;

use super::block::{self, Head};
use super::buried;
use super::channels::{Row, Rows};
use super::clock::{LogClock, wall_ms};
use super::ends::{Ends, Tidied};
use super::error::{OpenError, words};
use super::floors::{FLOORS, FREED, Floor, Floors, Rules};
use super::keys::{self, Keys};
use super::later::{self, Later};
use super::segments::{Retention, Segments, View, cursor_of, index_key};
use super::store::{Location, Store};
use crate::config::durable::Durable;
use crate::limits::{LOG_UNFLUSHED_BYTES_MAX, LOG_UNFLUSHED_MAX};
use crate::mesh::durable::{Appended, epoch_of};
use crate::model::{ChannelName, Draft, Entry, EventId, Offset, Record, StreamPosition};
use crate::upstream::log::Census;

use self::ends::Endings;

/// Row of the log's id.
pub const LOG_ID: &[u8] = b"m/log";
/// Row of the log's line: see `copy::Start::line`.
pub const LINE: &[u8] = b"m/line";
const LIVES: &[u8] = b"m/lives";
const NEXT_CHANNEL: &[u8] = b"m/next_channel";
const NEXT_GROUP: &[u8] = b"m/next_group";
/// A publisher's clock may be so far ahead of the log's; what is beyond does not count for `seek`.
const CLOCK_AHEAD_MS: u64 = 3_600_000;
/// A channel that was not used for so long is forgotten, or for the retention, whichever is longer.
const IDLE_MS: u64 = 30 * 24 * 3_600_000;
/// Rows that one step looks at for idle ones.
const IDLE_ROWS_PER_STEP: usize = 1000;
/// After all rows were looked at, the next look is so much later.
const IDLE_PAUSE_MS: u64 = 3_600_000;

const FLUSH_PAUSE: Duration = Duration::from_millis(2);

type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// An open log.
pub struct Core {
    /// Where everything is.
    pub store: Store,
    /// Segments.
    pub segments: Segments,
    /// Log time.
    pub clock: LogClock,
    /// Cursor of the last entry.
    pub end: u64,
    /// Dead letters.
    pub letters: Census,
    /// What waits for its time.
    pub later: Later,
    /// What ends before its turn.
    pub ends: Ends,
    tidied: Tidied,
    /// Which log it is.
    pub log_id: u128,
    lives: u64,
    next_channel: u64,
    next_group: u64,
    mark_ms: u64,
    rows: Rows,
    keys: Keys,
    trims: Arc<Map<u64, u64>>,
    /// Of each trim: the log's end then.
    trim_ends: Map<u64, u64>,
    rules: Arc<Rules>,
    floors: Arc<Floors>,
    /// Channels that may have more entries than their namespace keeps.
    full: BTreeSet<ChannelName>,
    /// The channel after which the search for such channels goes on; `None` once all were looked at.
    full_at: Option<Vec<u8>>,
    /// Blocks that are forgotten and were the last of their segments.
    forgotten_ends: Vec<forget::Block>,
    idle_ms: u64,
    /// The channel after which the next look for idle ones begins, and when.
    idle_at: (Vec<u8>, u64),
    /// The last block as it was written: the next one takes its memory.
    block: Vec<u8>,
}

/// Records of one channel in the batch at hand.
struct Staged {
    channel: ChannelName,
    row: Row,
    /// Without their cursors. In their last place from the start: records are large to move.
    entries: Vec<Arc<Entry>>,
    is_touched: bool,
}

/// A batch on its way to the disk.
#[derive(Default)]
struct Plan {
    staged: Vec<Staged>,
    places: Map<ChannelName, usize>,
    keys: Map<[u8; 24], (u64, EventId)>,
    rows: Vec<(Keyspace, Vec<u8>, Vec<u8>)>,
    new_channels: bool,
    /// Publications that were waiting for their time; else those of publishers.
    is_due: bool,
    /// What is published later, and the keys of it: when, and what.
    later: Vec<later::Row>,
    later_keys: BTreeMap<(ChannelName, Box<str>), (u64, EventId)>,
    /// What ends before its turn.
    endings: Endings,
}

/// Why something cannot be done: the store has to be opened again.
#[derive(Debug)]
pub struct Broken(pub String);

impl From<fjall::Error> for Broken {
    fn from(error: fjall::Error) -> Self {
        Self(words(&error))
    }
}

impl Core {
    /// Opens what is in the directory.
    ///
    /// # Errors
    ///
    /// See `OpenError`.
    pub fn open(location: &Location, config: &Durable) -> Result<Self, OpenError> {
        let store = Store::open(location, config.embedded.cache_bytes)?;
        Self::read(store, config).map_err(|error| OpenError::of_fjall(location.path(), &error))
    }

    fn read(store: Store, config: &Durable) -> fjall::Result<Self> {
        let retention = Retention {
            age: config.retention_age,
            bytes: config.retention_bytes,
        };
        let mut segments = Segments::open(&store.db, retention)?;
        let mut floors = Floors::default();
        for guard in store.state.prefix(FLOORS) {
            let (key, value) = guard.into_inner()?;
            if let Ok(name) = str::from_utf8(&key[FLOORS.len()..]) {
                floors.set(name, Floor::decode(&value));
            }
        }
        for guard in store.state.prefix(FREED) {
            let (key, value) = guard.into_inner()?;
            if let Some(segment) = segments.find(cursor_of(&key[FREED.len()..])) {
                let number = |at| cursor_of(value.get(at..at + 8).unwrap_or_default());
                segment.freed = (number(0), number(8));
            }
        }
        let end = segments.list().iter().map(|segment| segment.last).max();
        let mut newest = None;
        if let Some(segment) = segments.list().iter().rfind(|segment| !segment.is_empty())
            && let Some(guard) = segment.blocks.last_key_value()
        {
            newest = Head::read(&guard.value()?).ok();
        }
        let number = |key: &[u8]| -> fjall::Result<u64> {
            Ok(store.state.get(key)?.map_or(0, |value| cursor_of(&value)))
        };
        let (lives, next_channel, next_group) =
            (number(LIVES)?, number(NEXT_CHANNEL)?, number(NEXT_GROUP)?);
        let mut trims = Map::default();
        let mut trim_ends = Map::default();
        for guard in store.state.prefix(b"t/") {
            let (key, value) = guard.into_inner()?;
            let id = cursor_of(key.get(2..).unwrap_or_default());
            trims.insert(id, cursor_of(value.get(..8).unwrap_or_default()));
            trim_ends.insert(id, cursor_of(value.get(8..).unwrap_or_default()));
        }
        let log_id = match store.state.get(LOG_ID)? {
            Some(value) => value[..].try_into().map_or(0, u128::from_be_bytes),
            None => {
                let mut random = [0; 16];
                getrandom::fill(&mut random)
                    .map_err(|error| fjall::Error::Io(std::io::Error::other(error.to_string())))?;
                store.state.insert(LOG_ID, random)?;
                store.db.persist(fjall::PersistMode::SyncAll)?;
                u128::from_be_bytes(random)
            }
        };
        let age_ms = u64::try_from(config.retention_age.as_millis()).unwrap_or(u64::MAX);
        Ok(Self {
            keys: Keys::open(&store.db)?,
            segments,
            clock: LogClock::start(newest.as_ref().map_or(0, |head| head.log_ms)),
            end: end.unwrap_or(0),
            letters: buried::census(&store)?,
            later: Later::open(&store)?,
            ends: Ends::open(&store)?,
            tidied: Tidied::default(),
            log_id,
            lives,
            next_channel,
            next_group,
            mark_ms: newest.map_or(0, |head| head.mark_ms),
            rows: Rows::default(),
            trims: Arc::new(trims),
            trim_ends,
            rules: Arc::default(),
            floors: Arc::new(floors),
            full: BTreeSet::new(),
            full_at: None,
            forgotten_ends: Vec::new(),
            // Its entries are gone by then, with the segment that held the last one.
            idle_ms: age_ms.saturating_add(age_ms / 16).max(IDLE_MS),
            block: Vec::new(),
            idle_at: (Vec::new(), 0),
            store,
        })
    }

    /// The log as it is now.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            segments: self.segments.list().into(),
            end: self.end,
            snapshot: self.store.db.snapshot(),
            trims: Arc::clone(&self.trims),
            floors: Arc::clone(&self.floors),
            now_ms: wall_ms(),
            has_holes: self.freed_entries() > 0,
        }
    }

    /// The line of the log, which is made when it is first asked for.
    ///
    /// # Errors
    ///
    /// The store has failed.
    pub fn line(&self) -> Result<String, Broken> {
        if let Some(value) = self.store.state.get(LINE)? {
            return Ok(String::from_utf8_lossy(&value).into_owned());
        }
        let line = new_line().map_err(Broken)?;
        let mut batch = self.store.batch();
        batch.insert(&self.store.state, LINE, line.as_bytes());
        Store::commit(batch, true).map_err(Broken)?;
        Ok(line)
    }

    /// The line of the log, if it was asked for before.
    #[must_use]
    pub fn known_line(&self) -> Option<String> {
        let value = self.store.state.get(LINE).ok()??;
        Some(String::from_utf8_lossy(&value).into_owned())
    }

    /// Where idempotency keys are.
    #[must_use]
    pub fn keyspaces_of_keys(&self) -> Vec<(Box<str>, Keyspace)> {
        self.keys.keyspaces().collect()
    }

    /// Position of a channel that was never appended to.
    #[must_use]
    pub fn nowhere(&self, channel: &ChannelName) -> StreamPosition {
        StreamPosition {
            epoch: epoch_of(self.log_id, self.lives, channel.whole()),
            offset: Offset(0),
        }
    }

    /// What is known of a channel, if it is in memory.
    pub fn known(&mut self, channel: &ChannelName) -> Option<Row> {
        self.rows.find(channel)
    }

    /// What is known of a channel, from the disk if need be.
    fn row(&mut self, channel: &ChannelName) -> Result<Option<Row>, Broken> {
        if let Some(row) = self.rows.find(channel) {
            return Ok(Some(row));
        }
        if channel.whole().is_empty() {
            return Ok(None);
        }
        let Some(value) = self.store.channels.get(channel.whole())? else {
            return Ok(None);
        };
        let row = Row::decode(&value).map_err(|damage| Broken(damage.to_string()))?;
        self.rows.put(channel.clone(), row.clone());
        Ok(Some(row))
    }

    /// Stores a batch with one sync, and whatever `with` adds. The new entries come back in the order of the log.
    ///
    /// # Errors
    ///
    /// It is not known whether anything was stored.
    pub fn append(
        &mut self,
        drafts: Vec<Draft>,
        with: impl FnOnce(&mut OwnedWriteBatch, &Store),
    ) -> Result<(Vec<Appended>, Vec<Arc<Entry>>), Broken> {
        let mut batch = self.store.batch();
        with(&mut batch, &self.store);
        self.append_plan(Plan::default(), drafts, batch)
    }

    /// The same, together with what is in a batch.
    ///
    /// # Errors
    ///
    /// It is not known whether anything was stored.
    pub fn append_to(
        &mut self,
        batch: OwnedWriteBatch,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Arc<Entry>>, Broken> {
        let (_, entries) = self.append_plan(Plan::default(), drafts, batch)?;
        Ok(entries)
    }

    /// The same for what has waited for its time.
    ///
    /// # Errors
    ///
    /// It is not known whether anything was stored.
    pub fn append_due(
        &mut self,
        drafts: Vec<Draft>,
        with: impl FnOnce(&mut OwnedWriteBatch, &Store),
    ) -> Result<(Vec<Appended>, Vec<Arc<Entry>>), Broken> {
        let plan = Plan {
            is_due: true,
            ..Plan::default()
        };
        let mut batch = self.store.batch();
        with(&mut batch, &self.store);
        self.append_plan(plan, drafts, batch)
    }

    fn append_plan(
        &mut self,
        mut plan: Plan,
        drafts: Vec<Draft>,
        mut batch: OwnedWriteBatch,
    ) -> Result<(Vec<Appended>, Vec<Arc<Entry>>), Broken> {
        let now_ms = self.clock.now_ms();
        self.segments.roll(&self.store.db, now_ms)?;
        let mut results = Vec::with_capacity(drafts.len());
        for draft in drafts {
            results.push(self.plan(&mut plan, draft, now_ms)?);
        }
        let entries = self.write(&mut batch, &mut plan, now_ms);
        if batch.is_empty() {
            return Ok((results, entries));
        }
        self.wait_for_flushes()?;
        Store::commit(batch, true).map_err(Broken)?;
        if let Some(last) = entries.last() {
            self.end = last.cursor;
            let first = entries[0].cursor;
            let active = self.segments.active();
            if active.is_empty() {
                active.first = first;
                active.first_ms = now_ms;
            }
            active.last = last.cursor;
            active.last_ms = now_ms;
        }
        let times = plan.endings.times.iter();
        times.for_each(|at| self.ends.added(*at));
        self.later.added(plan.later.iter().map(|row| row.spot));
        for staged in plan.staged.into_iter().filter(|staged| staged.is_touched) {
            self.rows.put(staged.channel, staged.row);
        }
        Ok((results, entries))
    }

    /// Waits while too much is in memory only. The library would wait for a background that has failed, for ever.
    fn wait_for_flushes(&mut self) -> Result<(), Broken> {
        let behind = |keyspace: &Keyspace| {
            keyspace.tree.active_memtable().size() > LOG_UNFLUSHED_BYTES_MAX
                || keyspace.sealed_memtable_count() >= LOG_UNFLUSHED_MAX
        };
        let blocks = self.segments.active().blocks.clone();
        while behind(&blocks) || behind(&self.store.scheduled) {
            self.store.check().map_err(Broken)?;
            std::thread::sleep(FLUSH_PAUSE);
        }
        Ok(())
    }

    /// Decides about one append.
    fn plan(&mut self, plan: &mut Plan, draft: Draft, now_ms: u64) -> Result<Appended, Broken> {
        if draft.due_ms > 0 && !plan.is_due {
            return self.plan_later(plan, draft, now_ms);
        }
        let place = self.stage(plan, &draft.record.channel)?;
        let row_key = if draft.record.key.is_empty() || draft.terms.key_ttl.is_zero() {
            None
        } else {
            Some(keys::row_key(plan.staged[place].row.id, &draft.record.key))
        };
        if let Some(row_key) = &row_key {
            let first = match plan.keys.get(row_key) {
                Some(&(offset, event)) => Some((offset, Some(event))),
                None => self.keys.find(row_key, now_ms)?,
            };
            if let Some((offset, event)) = first {
                return Ok(Appended {
                    position: StreamPosition {
                        epoch: plan.staged[place].row.epoch,
                        offset: Offset(offset),
                    },
                    is_new: false,
                    event,
                    due_ms: 0,
                });
            }
            if !plan.is_due
                && let Some(waits) = self.waiting(plan, &draft.record)?
            {
                return Ok(waits);
            }
        }
        let row = &mut plan.staged[place].row;
        if draft.version > 0 {
            if row.version_epoch == draft.version_epoch && draft.version <= row.version {
                return Ok(Appended {
                    position: row.position(),
                    is_new: false,
                    event: None,
                    due_ms: 0,
                });
            }
            row.version = draft.version;
            row.version_epoch = draft.version_epoch;
        }
        row.top += 1;
        row.used_ms = now_ms;
        let position = row.position();
        let event = draft.record.event;
        if let Some(row_key) = row_key {
            let place = (position.offset.0, event);
            let (keyspace, value) =
                self.keys
                    .place(&self.store.db, place, draft.terms.key_ttl, now_ms)?;
            plan.rows.push((keyspace, row_key.to_vec(), value.to_vec()));
            plan.keys.insert(row_key, place);
        }
        plan.staged[place].is_touched = true;
        plan.staged[place].entries.push(Arc::new(Entry {
            cursor: 0,
            position,
            record: draft.record,
        }));
        Ok(Appended {
            position,
            is_new: true,
            event: Some(event),
            due_ms: 0,
        })
    }

    /// Decides about one that is published later. A channel that is not there is not made for it.
    fn plan_later(
        &mut self,
        plan: &mut Plan,
        draft: Draft,
        now_ms: u64,
    ) -> Result<Appended, Broken> {
        let record = &draft.record;
        if !record.key.is_empty() {
            if let Some(waits) = self.waiting(plan, record)? {
                return Ok(waits);
            }
            if let Some(published) = self.published(plan, &draft, now_ms)? {
                return Ok(published);
            }
        }
        if let Some(row) = later::with_event(&self.store, &record.channel, record.event)? {
            return Ok(waits(row.spot.0, record.event));
        }
        let due = (draft.due_ms, record.event);
        if !record.key.is_empty() {
            let name = (record.channel.clone(), record.key.clone());
            plan.later_keys.insert(name, due);
        }
        let spot = (draft.due_ms, self.later.number());
        plan.later.push(later::Row { spot, draft });
        Ok(Appended {
            is_new: true,
            ..waits(due.0, due.1)
        })
    }

    /// What waits with the key of a publication.
    fn waiting(&self, plan: &Plan, record: &Record) -> Result<Option<Appended>, Broken> {
        if !plan.later_keys.is_empty() {
            let name = (record.channel.clone(), record.key.clone());
            if let Some(&(due, event)) = plan.later_keys.get(&name) {
                return Ok(Some(waits(due, event)));
            }
        }
        if self.later.count() == 0 {
            return Ok(None);
        }
        let row = later::with_key(&self.store, &record.channel, &record.key)?;
        Ok(row.map(|row| waits(row.spot.0, row.draft.record.event)))
    }

    /// What was published with the key of a publication.
    fn published(
        &mut self,
        plan: &Plan,
        draft: &Draft,
        now_ms: u64,
    ) -> Result<Option<Appended>, Broken> {
        let channel = &draft.record.channel;
        let row = match plan.places.get(channel) {
            Some(place) => Some(plan.staged[*place].row.clone()),
            None => self.row(channel)?,
        };
        let Some(row) = row.filter(|_| !draft.terms.key_ttl.is_zero()) else {
            return Ok(None);
        };
        let row_key = keys::row_key(row.id, &draft.record.key);
        let first = match plan.keys.get(&row_key) {
            Some(&(offset, event)) => Some((offset, Some(event))),
            None => self.keys.find(&row_key, now_ms)?,
        };
        Ok(first.map(|(offset, event)| Appended {
            position: StreamPosition {
                epoch: row.epoch,
                offset: Offset(offset),
            },
            is_new: false,
            event,
            due_ms: 0,
        }))
    }

    /// Where a channel is in the plan.
    fn stage(&mut self, plan: &mut Plan, channel: &ChannelName) -> Result<usize, Broken> {
        if let Some(place) = plan.places.get(channel) {
            return Ok(*place);
        }
        let row = match self.row(channel)? {
            Some(row) => row,
            None => {
                self.next_channel += 1;
                plan.new_channels = true;
                Row {
                    id: self.next_channel,
                    epoch: self.nowhere(channel).epoch,
                    top: 0,
                    cursor: 0,
                    trimmed: 0,
                    version: 0,
                    version_epoch: Box::default(),
                    used_ms: 0,
                }
            }
        };
        let place = plan.staged.len();
        plan.places.insert(channel.clone(), place);
        plan.staged.push(Staged {
            channel: channel.clone(),
            row,
            entries: Vec::new(),
            is_touched: false,
        });
        Ok(place)
    }

    /// Turns a plan into rows of a batch.
    fn write(
        &mut self,
        batch: &mut OwnedWriteBatch,
        plan: &mut Plan,
        now_ms: u64,
    ) -> Vec<Arc<Entry>> {
        let mut cursor = self.end;
        let mut entries = Vec::with_capacity(plan.staged.iter().map(|s| s.entries.len()).sum());
        // Small rows stand together, where the library's journal gathers them into one write.
        let mut index = Vec::new();
        for staged in plan.staged.iter_mut().filter(|staged| staged.is_touched) {
            let mut offset = staged.row.top - staged.entries.len() as u64;
            let mut new = std::mem::take(&mut staged.entries).into_iter();
            while !new.as_slice().is_empty() {
                let count = block_records(new.as_slice());
                let part = &new.as_slice()[..count];
                let latest = part
                    .iter()
                    .map(|entry| entry.record.unix_ms)
                    .max()
                    .unwrap_or(0);
                self.mark_ms = self.mark_ms.max(latest.min(now_ms + CLOCK_AHEAD_MS));
                let active = self.segments.active();
                let head = Head {
                    channel_id: staged.row.id,
                    epoch: staged.row.epoch,
                    first_offset: offset + 1,
                    log_ms: now_ms,
                    mark_ms: self.mark_ms,
                    bytes_before: active.bytes,
                    count: u16::try_from(count).unwrap_or(u16::MAX),
                    channel: staged.channel.clone(),
                };
                let value = &mut self.block;
                block::encode_into(value, &head, part.iter().map(|entry| &entry.record));
                active.bytes += value.len() as u64;
                let key = (cursor + 1).to_be_bytes();
                batch.insert(&active.blocks, key, value.as_slice());
                index.push((index_key(staged.row.id, offset + 1), key));
                offset += count as u64;
                for mut entry in new.by_ref().take(count) {
                    cursor += 1;
                    if let Some(entry) = Arc::get_mut(&mut entry) {
                        entry.cursor = cursor;
                    }
                    self.note_ends(batch, &mut plan.endings, staged.row.id, &entry);
                    entries.push(entry);
                }
            }
            staged.row.cursor = cursor;
            let rule = self.rules.find(staged.channel.whole());
            if let Some(count) = rule.and_then(|rule| rule.count)
                && staged.row.top.saturating_sub(count) > staged.row.trimmed
            {
                staged.row.trimmed = staged.row.top - count;
                self.full.insert(staged.channel.clone());
            }
        }
        let active = self.segments.active();
        for (key, value) in index {
            batch.insert(&active.index, key, value);
        }
        for staged in plan.staged.iter().filter(|staged| staged.is_touched) {
            let name = staged.channel.whole();
            batch.insert(&self.store.channels, name, staged.row.encode());
        }
        for (keyspace, key, value) in plan.rows.drain(..) {
            batch.insert(&keyspace, key, value);
        }
        for row in &plan.later {
            later::put(batch, &self.store.scheduled, row);
        }
        if !plan.later.is_empty() {
            self.later
                .note(batch, &self.store, plan.later.len() as u64, 0);
        }
        if plan.new_channels && !entries.is_empty() {
            batch.insert(
                &self.store.state,
                NEXT_CHANNEL,
                self.next_channel.to_be_bytes(),
            );
        }
        entries
    }

    /// A number for a new group, to be stored by `keep_group_number`.
    pub fn group_number(&mut self, batch: &mut OwnedWriteBatch) -> u64 {
        self.next_group += 1;
        batch.insert(&self.store.state, NEXT_GROUP, self.next_group.to_be_bytes());
        self.next_group
    }

    /// What has to be done from time to time. Gives the keyspaces that are to be deleted.
    ///
    /// # Errors
    ///
    /// The store has failed.
    pub fn tend(&mut self) -> Result<Vec<Keyspace>, Broken> {
        self.store.check().map_err(Broken)?;
        let now_ms = self.clock.now_ms();
        self.segments.roll(&self.store.db, now_ms)?;
        let mut dropped = self.keys.expired(now_ms);
        let mut batch = self.store.batch();
        for segment in self.segments.expired(now_ms, self.judged_to()) {
            if segment.freed.1 > 0 {
                batch.remove(&self.store.state, forget::freed_key(segment.number()));
            }
            dropped.extend([segment.blocks, segment.index]);
        }
        self.forget_trims(&mut batch);
        let first = self.segments.first(self.end);
        self.tidied.tidy(&self.store, first, &mut batch)?;
        self.forget_idle(&mut batch, now_ms)?;
        if !batch.is_empty() {
            Store::commit(batch, false).map_err(Broken)?;
        }
        Ok(dropped)
    }

    /// Trims whose entries have all expired.
    fn forget_trims(&mut self, batch: &mut OwnedWriteBatch) {
        let first = self.segments.first(self.end);
        let over: Vec<u64> = self
            .trim_ends
            .extract_if(|_, end| *end < first)
            .map(|(id, _)| id)
            .collect();
        if over.is_empty() {
            return;
        }
        let trims = Arc::make_mut(&mut self.trims);
        for id in over {
            trims.remove(&id);
            batch.remove(&self.store.state, trim_key(id));
        }
    }

    /// Some of the channels that were not used for long.
    fn forget_idle(&mut self, batch: &mut OwnedWriteBatch, now_ms: u64) -> Result<(), Broken> {
        if now_ms < self.idle_at.1 {
            return Ok(());
        }
        let snapshot = self.store.db.snapshot();
        let after = (
            std::ops::Bound::Excluded(self.idle_at.0.clone()),
            std::ops::Bound::Unbounded,
        );
        let mut looked_at = 0;
        let mut is_any_idle = false;
        for guard in snapshot
            .range(&self.store.channels, after)
            .take(IDLE_ROWS_PER_STEP)
        {
            let (name, value) = guard.into_inner()?;
            looked_at += 1;
            self.idle_at.0 = name.to_vec();
            let is_idle = Row::decode(&value)
                .is_ok_and(|row| row.used_ms.saturating_add(self.idle_ms) <= now_ms);
            if is_idle {
                is_any_idle = true;
                if let Ok(name) = str::from_utf8(&name) {
                    self.rows.forget(&ChannelName::from_whole(name));
                }
                batch.remove(&self.store.channels, name);
            }
        }
        if looked_at < IDLE_ROWS_PER_STEP {
            self.idle_at = (Vec::new(), now_ms + IDLE_PAUSE_MS);
        }
        if is_any_idle {
            // The epochs that come after differ from those that were forgotten.
            self.lives += 1;
            batch.insert(&self.store.state, LIVES, self.lives.to_be_bytes());
        }
        Ok(())
    }
}

/// What is told of one that waits.
fn waits(due_ms: u64, event: EventId) -> Appended {
    Appended {
        position: StreamPosition::default(),
        is_new: false,
        event: Some(event),
        due_ms,
    }
}

/// A line that no other log has.
///
/// # Errors
///
/// The system has no randomness.
pub fn new_line() -> Result<String, String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    Ok(format!("{:032x}", u128::from_be_bytes(random)))
}

/// Records that go into the next block.
fn block_records(entries: &[Arc<Entry>]) -> usize {
    let mut bytes = 0;
    entries
        .iter()
        .take(block::RECORDS_PER_BLOCK)
        .take_while(|entry| {
            bytes += entry.record.bytes();
            bytes <= block::BYTES_PER_BLOCK
        })
        .count()
        .max(1)
}

fn trim_key(channel_id: u64) -> Vec<u8> {
    [&b"t/"[..], &channel_id.to_be_bytes()].concat()
}

//! Queue groups: what each has read, what of it is not done yet, and what has failed.
//!
//! A group has read the log up to `read`; of that, everything is done except what is in `open`. On disk: `g/` name → group
//! and its number; `r/` number → `read`; `l/` number → how many it has lost; `o/` number, chunk → the open cursors of that chunk; `f/` number, cursor →
//! failures. Only chunks with changes are written, together, so that what is on disk is the group as it was at one moment. What waits
//! for its time, or in a line, is on the disk only (`parked`).

mod expiry;

pub use expiry::Lost;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use fjall::{OwnedWriteBatch, Slice};

use super::parked::{
    CHUNK_CURSORS, Cursors, DELAYED, FAILURES, Found, LINED, Parked, Waits, row_key,
};
use crate::limits::ENTRY_FAILURES_MAX;
use crate::model::Entry;
use crate::upstream::embedded::bytes::{Reader, put_number};
use crate::upstream::embedded::read::Filter;
use crate::upstream::embedded::segments::cursor_of;
use crate::upstream::embedded::store::Store;
use crate::upstream::log::{Failure, FromLine, Group, Lag, Lease, Leased, LineId, Settled};

/// Entries of late that groups take from memory.
const RECENT_KEPT: usize = 16_384;
/// Bytes of their records.
const RECENT_BYTES_KEPT: usize = 16 << 20;
/// Entries that one look at `Recent` goes over.
const LOOKED_AT_ONCE: usize = 4096;

/// The entries that were stored last.
#[derive(Debug, Default)]
pub struct Recent {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// Everything after this cursor is in `entries`.
    from: u64,
}

impl Recent {
    /// Nothing is known of what is up to `end`.
    pub fn start(&mut self, end: u64) {
        *self = Self {
            from: end,
            ..Self::default()
        };
    }

    /// The next entry.
    pub fn push(&mut self, entry: &Arc<Entry>) {
        self.bytes += entry.record.bytes();
        self.entries.push_back(Arc::clone(entry));
        while self.entries.len() > RECENT_KEPT || self.bytes > RECENT_BYTES_KEPT {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= oldest.record.bytes();
            self.from = oldest.cursor;
        }
    }

    /// Entries after this cursor; `None` if not all of them are here.
    fn after(&self, cursor: u64) -> Option<impl Iterator<Item = &Arc<Entry>>> {
        (cursor >= self.from).then(|| {
            let start = self.entries.partition_point(|entry| entry.cursor <= cursor);
            self.entries.range(start..)
        })
    }

    /// Forgets entries.
    pub fn forget(&mut self, is_gone: impl Fn(&Entry) -> bool) {
        self.entries.retain(|entry| !is_gone(entry));
        self.bytes = self.entries.iter().map(|entry| entry.record.bytes()).sum();
    }
}

/// An entry that a group has read and not done.
#[derive(Clone, Debug)]
pub struct Open {
    /// `None` where it is not in memory: given by a process before this one.
    entry: Option<Arc<Entry>>,
    failures: Vec<Failure>,
    is_leased: bool,
}

/// What the next step of a fetch is.
#[derive(Debug)]
pub enum Next {
    /// These are for the caller.
    Take(Vec<Leased>),
    /// Entries after this cursor have to be read from the disk, for `refill`.
    Scan(u64),
    /// These entries have to be read from the disk, for `restore`.
    Load(Vec<u64>),
    /// What waits from here on may be due: it has to be read from the disk, for `wake`.
    Due((u64, u64)),
    /// Nothing is there, until this time, Unix milliseconds.
    Wait(Option<u64>),
}

/// One group.
#[derive(Debug)]
pub struct State {
    /// As it was opened.
    pub spec: Group,
    /// Of the group's channels.
    pub filter: Arc<Filter>,
    number: u64,
    read: u64,
    open: BTreeMap<u64, Open>,
    /// Open ones that nobody has.
    free: BTreeSet<u64>,
    /// Read ahead: cursors in (`read`, `scanned`].
    ahead: VecDeque<Arc<Entry>>,
    scanned: u64,
    /// Counts refills, so that of two at the same time one counts.
    pub refills: u64,
    /// What waits on the disk.
    parked: Parked,
    /// Chunks that are on disk.
    stored: BTreeSet<u64>,
    /// Chunks that differ from what is on disk.
    dirty: BTreeSet<u64>,
    dirty_failures: BTreeSet<u64>,
    is_read_dirty: bool,
    /// Entries that expired, or were trimmed away, before they were done.
    lost: u64,
    /// As it was read.
    lost_before: u64,
    is_lost_dirty: bool,
    /// Letters that the log has made of what expired, since the start.
    pub buried: u64,
}

impl State {
    /// A group that begins after `read`.
    #[must_use]
    pub fn new(spec: Group, number: u64, read: u64) -> Self {
        Self {
            filter: Arc::new(Filter::of_group(&spec.name, &spec.channels)),
            spec,
            number,
            read,
            open: BTreeMap::new(),
            free: BTreeSet::new(),
            ahead: VecDeque::new(),
            scanned: read,
            refills: 0,
            parked: Parked::new(number),
            stored: BTreeSet::new(),
            dirty: BTreeSet::new(),
            dirty_failures: BTreeSet::new(),
            is_read_dirty: true,
            lost: 0,
            lost_before: 0,
            is_lost_dirty: false,
            buried: 0,
        }
    }

    /// Changes its channels: what comes next is chosen by the new ones.
    pub fn change(&mut self, spec: Group) {
        self.filter = Arc::new(Filter::of_group(&spec.name, &spec.channels));
        self.spec = spec;
        self.forget_ahead();
    }

    fn forget_ahead(&mut self) {
        self.ahead.clear();
        self.scanned = self.read;
        self.refills += 1;
    }

    /// Up to `limit` entries that nobody has, or what is missing for that. What has ended is left for whoever forgets it.
    pub fn next(
        &mut self,
        limit: usize,
        recent: &Recent,
        end: u64,
        (now_ms, wall_ms): (u64, u64),
    ) -> Next {
        let (free, missing) = self.free_first(limit, wall_ms);
        let is_there = |cursor: &u64| missing.binary_search(cursor).is_err();
        let given: Vec<u64> = free.into_iter().filter(is_there).collect();
        if given.is_empty() && !missing.is_empty() {
            return Next::Load(missing);
        }
        let first_due = self.parked.first_due();
        if given.is_empty()
            && let Some(from) = first_due.filter(|(due, _)| *due <= now_ms)
        {
            return Next::Due(from);
        }
        let mut taken: Vec<Leased> = given
            .into_iter()
            .filter_map(|cursor| self.lease(cursor, wall_ms))
            .collect();
        if taken.is_empty() && self.ahead.is_empty() && self.scanned < end {
            let found = recent.after(self.scanned).map(|entries| {
                let (mut next, mut looked_at) = (self.scanned, 0);
                let mut wanted = Vec::new();
                for entry in entries.take(LOOKED_AT_ONCE) {
                    (next, looked_at) = (entry.cursor, looked_at + 1);
                    if self.filter.wants(entry.record.channel.whole()) {
                        wanted.push(Arc::clone(entry));
                    }
                }
                // Entries that were trimmed away are missing behind the last one.
                (
                    wanted,
                    if looked_at < LOOKED_AT_ONCE {
                        end
                    } else {
                        next
                    },
                )
            });
            match found {
                None => return Next::Scan(self.scanned),
                Some((entries, next)) => self.refill(entries, next),
            }
        }
        while taken.len() < limit {
            let Some(entry) = self.ahead.pop_front() else {
                break;
            };
            self.read = entry.cursor;
            self.is_read_dirty = true;
            self.dirty.insert(entry.cursor / CHUNK_CURSORS);
            let lease = Lease(entry.cursor);
            let is_leased = !entry.record.is_over(wall_ms);
            let open = Open {
                entry: Some(Arc::clone(&entry)),
                failures: Vec::new(),
                is_leased,
            };
            self.open.insert(entry.cursor, open);
            if !is_leased {
                self.free.insert(entry.cursor);
                continue;
            }
            taken.push(Leased {
                lease,
                entry,
                failures: Vec::new(),
                was_delayed: false,
            });
        }
        if self.ahead.is_empty() && self.read < self.scanned {
            self.read = self.scanned;
            self.is_read_dirty = true;
        }
        match taken.is_empty() {
            false => Next::Take(taken),
            true if self.scanned < end => Next::Scan(self.scanned),
            true => Next::Wait(first_due.map(|(due, _)| due)),
        }
    }

    /// The first ones that nobody has and that have not ended, and those of them that are not in memory.
    #[must_use]
    pub fn free_first(&self, limit: usize, wall_ms: u64) -> (Vec<u64>, Vec<u64>) {
        let entry_of = |cursor: &u64| self.open.get(cursor).and_then(|open| open.entry.as_ref());
        let is_left = |cursor: &&u64| {
            let entry = entry_of(cursor);
            entry.is_none_or(|entry| !entry.record.is_over(wall_ms))
        };
        let free: Vec<u64> = self
            .free
            .iter()
            .filter(is_left)
            .take(limit)
            .copied()
            .collect();
        let is_missing = |cursor: &&u64| entry_of(cursor).is_none();
        let missing = free.iter().filter(is_missing).copied().collect();
        (free, missing)
    }

    /// Leases an open entry that is in memory, unless it has ended.
    pub fn lease(&mut self, cursor: u64, wall_ms: u64) -> Option<Leased> {
        let open = self.open.get_mut(&cursor)?;
        let entry = open.entry.clone()?;
        open.is_leased = !entry.record.is_over(wall_ms);
        if !open.is_leased {
            self.free.insert(cursor);
            return None;
        }
        self.free.remove(&cursor);
        Some(Leased {
            lease: Lease(cursor),
            entry,
            failures: open.failures.clone(),
            was_delayed: false,
        })
    }

    /// Entries that were read ahead, up to `next`.
    pub fn refill(&mut self, entries: Vec<Arc<Entry>>, next: u64) {
        self.refills += 1;
        self.ahead.extend(entries);
        self.scanned = self.scanned.max(next);
    }

    /// An open entry that was read from the disk; `None` if it is not there any more.
    pub fn restore(&mut self, cursor: u64, entry: Option<Arc<Entry>>) {
        match entry {
            Some(entry) => {
                if let Some(open) = self.open.get_mut(&cursor) {
                    open.entry = Some(entry);
                }
            }
            None => {
                self.lose(1);
                self.finish(cursor);
            }
        }
    }

    fn finish(&mut self, cursor: u64) {
        if let Some(open) = self.open.remove(&cursor) {
            self.free.remove(&cursor);
            self.dirty.insert(cursor / CHUNK_CURSORS);
            if !open.failures.is_empty() {
                self.dirty_failures.insert(cursor);
            }
        }
    }

    /// What became of a lease. `true` if somebody else may have it now.
    pub fn settle(&mut self, lease: Lease, settled: &Settled) -> bool {
        let cursor = lease.0;
        let Some(open) = self.open.get_mut(&cursor).filter(|open| open.is_leased) else {
            return false;
        };
        match settled {
            Settled::Done => self.finish(cursor),
            Settled::Lost => {
                self.lose(1);
                self.finish(cursor);
            }
            Settled::Failed(failure) => {
                if open.failures.len() >= ENTRY_FAILURES_MAX {
                    open.failures.remove(0);
                }
                open.failures.push(failure.clone());
                self.dirty_failures.insert(cursor);
            }
            Settled::Kept => {}
            Settled::Returned => {
                open.is_leased = false;
                self.free.insert(cursor);
                return true;
            }
            Settled::Delayed {
                until_unix_ms,
                line,
            } => {
                self.park(cursor, Waits::Until(*until_unix_ms, *line));
                return true;
            }
            Settled::Lined(line) => self.park(cursor, Waits::In(*line)),
        }
        false
    }

    /// An open entry waits on the disk from now on.
    fn park(&mut self, cursor: u64, waits: Waits) {
        let Some(open) = self.open.remove(&cursor) else {
            return;
        };
        self.free.remove(&cursor);
        let unwritten = self.dirty_failures.remove(&cursor);
        let failures = unwritten.then_some(&*open.failures);
        self.parked.park(cursor, waits, failures);
    }

    /// What was found where it waits, up to `next`, is leased to whoever asked.
    pub fn wake(
        &mut self,
        found: Vec<Found>,
        next: Option<(u64, u64)>,
        wall_ms: u64,
    ) -> Vec<Leased> {
        let leased = self.unpark(found, wall_ms);
        if let Some(next) = next {
            self.parked.is_due_from(next);
        }
        leased
    }

    /// What was found in lines is leased to whoever asked.
    pub fn unpark_lines(
        &mut self,
        found: Vec<(LineId, Vec<Found>)>,
        wall_ms: u64,
    ) -> Vec<FromLine> {
        let mut given = Vec::with_capacity(found.len());
        for (id, found) in found {
            let leased = self.unpark(found, wall_ms);
            let left = self.parked.in_line(id);
            given.push(FromLine { id, leased, left });
        }
        given
    }

    fn unpark(&mut self, found: Vec<Found>, wall_ms: u64) -> Vec<Leased> {
        let mut leased = Vec::with_capacity(found.len());
        for found in found {
            let cursor = found.cursor;
            if !self.parked.unpark(cursor, found.waits) {
                // It was counted as lost before.
                self.dirty.insert(cursor / CHUNK_CURSORS);
                self.dirty_failures.insert(cursor);
                continue;
            }
            let open = Open {
                entry: found.entry,
                failures: found.failures,
                is_leased: true,
            };
            let is_there = open.entry.is_some();
            self.open.insert(cursor, open);
            if is_there {
                leased.extend(self.lease(cursor, wall_ms).map(|leased| Leased {
                    was_delayed: matches!(found.waits, Waits::Until(..)),
                    ..leased
                }));
            } else {
                self.restore(cursor, None);
            }
        }
        leased
    }

    /// What waits elsewhere is at its time now: it is fetched like the rest.
    pub fn free_parked(&mut self, rows: Vec<(u64, Waits)>) {
        for (cursor, waits) in rows {
            if self.parked.unpark(cursor, waits) {
                self.parked.park(cursor, Waits::Until(0, None), None);
            } else {
                self.dirty.insert(cursor / CHUNK_CURSORS);
            }
        }
    }

    /// Cursors behind one that are in memory and not done, ascending, and whether somebody has them.
    #[must_use]
    pub fn open_behind(&self, after: u64, limit: usize) -> Vec<(u64, bool)> {
        let open = self.open.range(after.saturating_add(1)..).take(limit);
        open.map(|(cursor, open)| (*cursor, open.is_leased))
            .collect()
    }

    /// It has taken what it wanted of the log up to here.
    #[must_use]
    pub fn read_to(&self) -> u64 {
        self.read
    }

    /// Begins anew behind a cursor, with nothing that it had. Adds that to a batch.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn begin_behind(
        &mut self,
        after: u64,
        batch: &mut OwnedWriteBatch,
        store: &Store,
    ) -> fjall::Result<()> {
        for key in self.rows(store)? {
            if !matches!(key[0], b'r' | b'l') {
                batch.remove(&store.state, key);
            }
        }
        self.open.clear();
        self.free.clear();
        self.parked = Parked::new(self.number);
        self.stored.clear();
        self.dirty.clear();
        self.dirty_failures.clear();
        self.read = after;
        self.forget_ahead();
        self.is_read_dirty = true;
        self.write(batch, store);
        Ok(())
    }

    /// What waits on the disk.
    #[must_use]
    pub fn parked(&self) -> &Parked {
        &self.parked
    }

    /// A lease is done; gives what is needed to undo that.
    pub fn take_out(&mut self, lease: Lease) -> Option<Open> {
        let open = self.open.get(&lease.0).filter(|open| open.is_leased)?;
        let open = open.clone();
        self.finish(lease.0);
        Some(open)
    }

    /// It could not be stored that a lease is done.
    pub fn put_back(&mut self, lease: Lease, open: Open) {
        self.dirty.insert(lease.0 / CHUNK_CURSORS);
        self.dirty_failures.insert(lease.0);
        self.open.insert(lease.0, open);
    }

    /// It is another one after it was deleted and made again.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Entries were taken from it before they were done.
    pub fn lose(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
        self.is_lost_dirty |= count > 0;
    }

    /// What is behind, where the part of the log after `.0` that nobody has looked at holds `unread` of the group's.
    #[must_use]
    pub fn lag(&self, unread: u64, oldest_unread_ms: Option<u64>) -> Lag {
        let oldest_open = self.open.values().next();
        let known = oldest_open
            .and_then(|open| open.entry.as_ref())
            .or_else(|| self.ahead.front())
            .map(|entry| entry.record.unix_ms);
        Lag {
            entries: self.free.len() as u64
                + self.ahead.len() as u64
                + unread
                + self.parked.lined(),
            delayed: self.parked.delayed(),
            due_unix_ms: self.parked.first_due().map(|(due, _)| due),
            leased: (self.open.len() - self.free.len()) as u64,
            oldest_unix_ms: known.or(oldest_unread_ms),
            lost: self.lost,
            lost_before: self.lost_before,
            buried: self.buried,
            seeking: None,
        }
    }

    /// Cursor of the oldest entry that is not done, where that is not in memory.
    #[must_use]
    pub fn oldest_missing(&self) -> Option<u64> {
        let parked = self.parked.cursors().first();
        let Some((cursor, open)) = self.open.first_key_value() else {
            return parked;
        };
        match parked.filter(|parked| parked < cursor) {
            Some(parked) => Some(parked),
            None => open.entry.is_none().then_some(*cursor),
        }
    }

    /// Where it has looked up to.
    #[must_use]
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// Something has changed since it was written.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.is_read_dirty
            || self.is_lost_dirty
            || !self.dirty.is_empty()
            || !self.dirty_failures.is_empty()
            || self.parked.is_dirty()
    }

    /// Adds what has changed to a batch. If the batch fails, `renew` has to follow.
    pub fn write(&mut self, batch: &mut OwnedWriteBatch, store: &Store) {
        let state = &store.state;
        if std::mem::take(&mut self.is_read_dirty) {
            batch.insert(
                state,
                row_key(b'r', self.number, None),
                self.read.to_be_bytes(),
            );
        }
        if std::mem::take(&mut self.is_lost_dirty) {
            let key = row_key(b'l', self.number, None);
            batch.insert(state, key, self.lost.to_be_bytes());
        }
        for chunk in std::mem::take(&mut self.dirty) {
            let key = row_key(b'o', self.number, Some(chunk));
            let start = chunk * CHUNK_CURSORS;
            let mut value = Vec::new();
            let open = self.open.range(start..start + CHUNK_CURSORS);
            let mut cursors: Vec<u64> = open.map(|(at, _)| *at).collect();
            cursors.extend(self.parked.cursors().of_chunk(chunk));
            cursors.sort_unstable();
            for cursor in cursors {
                put_number(&mut value, cursor - start);
            }
            if !value.is_empty() {
                self.stored.insert(chunk);
                batch.insert(state, key, value);
            } else if self.stored.remove(&chunk) {
                batch.remove(state, key);
            }
        }
        for cursor in &self.dirty_failures {
            self.parked.leave_failures(*cursor);
        }
        self.parked.write(batch, store);
        for cursor in std::mem::take(&mut self.dirty_failures) {
            let key = row_key(FAILURES, self.number, Some(cursor));
            match self.open.get(&cursor) {
                Some(open) => {
                    let value = serde_json::to_vec(&open.failures).unwrap_or_default();
                    batch.insert(state, key, value);
                }
                None => batch.remove(state, key),
            }
        }
    }

    /// All its rows but its name.
    fn rows(&self, store: &Store) -> fjall::Result<Vec<Slice>> {
        let mut keys = vec![
            row_key(b'r', self.number, None).into(),
            row_key(b'l', self.number, None).into(),
        ];
        for kind in [b'o', FAILURES, DELAYED, LINED] {
            for guard in store.state.prefix(row_key(kind, self.number, None)) {
                keys.push(guard.key()?);
            }
        }
        Ok(keys)
    }

    /// Adds to a batch that the group is forgotten.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn remove(&self, batch: &mut OwnedWriteBatch, store: &Store) -> fjall::Result<()> {
        batch.remove(&store.state, name_key(&self.spec.name));
        for key in self.rows(store)? {
            batch.remove(&store.state, key);
        }
        Ok(())
    }

    /// Adds the group's name, number and channels to a batch.
    pub fn write_spec(&self, batch: &mut OwnedWriteBatch, store: &Store) {
        let stored = Stored {
            number: self.number,
            group: self.spec.clone(),
        };
        let value = serde_json::to_vec(&stored).unwrap_or_default();
        batch.insert(&store.state, name_key(&self.spec.name), value);
    }

    /// The store was opened again: what is there is older than what is here.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn renew(&mut self, store: &Store, end: u64) -> fjall::Result<()> {
        self.stored.clear();
        self.parked.renew();
        for key in self.rows(store)? {
            let number = cursor_of(key.get(10..).unwrap_or_default());
            match key[0] {
                b'o' => {
                    self.stored.insert(number);
                    self.dirty.insert(number);
                }
                FAILURES if !self.parked.cursors().contains(number) => {
                    self.dirty_failures.insert(number);
                }
                _ => {}
            }
        }
        self.is_read_dirty = true;
        self.is_lost_dirty = self.lost > 0;
        for (cursor, open) in &self.open {
            self.dirty.insert(cursor / CHUNK_CURSORS);
            if !open.failures.is_empty() {
                self.dirty_failures.insert(*cursor);
            }
        }
        self.read = self.read.min(end);
        self.forget_ahead();
        Ok(())
    }
}

/// As `g/` holds it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    number: u64,
    group: Group,
}

/// A group out of its row.
#[must_use]
pub fn stored_group(value: &[u8]) -> Option<Group> {
    let stored = serde_json::from_slice::<Stored>(value).ok()?;
    Some(stored.group)
}

/// All groups of the store, with nobody holding any of their entries.
///
/// # Errors
///
/// The library's.
pub fn load(store: &Store) -> fjall::Result<BTreeMap<Box<str>, State>> {
    let mut groups = BTreeMap::new();
    for guard in store.state.prefix(b"g/") {
        let Ok(stored) = serde_json::from_slice::<Stored>(&guard.value()?) else {
            continue;
        };
        let number = stored.number;
        let read = store.state.get(row_key(b'r', number, None))?;
        let read = read.map_or(0, |value| cursor_of(&value));
        let mut state = State::new(stored.group, number, read);
        state.is_read_dirty = false;
        let lost = store.state.get(row_key(b'l', number, None))?;
        state.lost = lost.map_or(0, |value| cursor_of(&value));
        state.lost_before = state.lost;
        let mut undone = Cursors::default();
        for guard in store.state.prefix(row_key(b'o', number, None)) {
            let (key, value) = guard.into_inner()?;
            let chunk = cursor_of(key.get(10..).unwrap_or_default());
            let start = chunk.saturating_mul(CHUNK_CURSORS);
            state.stored.insert(chunk);
            let value = Bytes::from_owner(value);
            let mut reader = Reader::new(&value, 0);
            while let Ok(above) = reader.number() {
                undone.insert(start.saturating_add(above));
            }
        }
        state.parked = Parked::load(number, store, &undone)?;
        for chunk in &state.stored {
            for cursor in undone.of_chunk(*chunk) {
                if state.parked.cursors().contains(cursor) {
                    continue;
                }
                state.open.insert(
                    cursor,
                    Open {
                        entry: None,
                        failures: Vec::new(),
                        is_leased: false,
                    },
                );
            }
        }
        for guard in store.state.prefix(row_key(FAILURES, number, None)) {
            let (key, value) = guard.into_inner()?;
            let cursor = cursor_of(key.get(10..).unwrap_or_default());
            if let Some(open) = state.open.get_mut(&cursor) {
                open.failures = serde_json::from_slice(&value).unwrap_or_default();
            }
        }
        state.free = state.open.keys().copied().collect();
        groups.insert(state.spec.name.clone(), state);
    }
    Ok(groups)
}

fn name_key(name: &str) -> Vec<u8> {
    [b"g/", name.as_bytes()].concat()
}

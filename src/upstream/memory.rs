//! A log in memory that keeps every promise of the seam, for tests; and short ways to records and entries.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::log::{
    Bounds, Census, Copies, DeadLetter, Entries, Failure, FromLine, Group, Groups, Lag, Lease,
    Leased, Letters, Line, LineId, Log, Name, Page, Pending, Place, Scan, Scanned, Scheduled,
    Settled, Slice, Status, Undone, Values, Wanted, Which,
};
use crate::config::glob_match;
use crate::config::namespace::leaves_out;
use crate::mesh::durable::{Appended, LogError, Read, Span};
use crate::model::{ChannelName, Draft, Entry, Epoch, EventId, Offset, Record, StreamPosition};

/// A publication of a service.
pub fn record(channel: &str, event: EventId, json: &str) -> Record {
    Record {
        channel: ChannelName::from_whole(channel),
        event,
        key: "".into(),
        schema: 0,
        tags: Box::new([]),
        publisher: None,
        trace: "".into(),
        unix_ms: 1_700_000_000_000,
        ttl_ms: 0,
        data: Bytes::copy_from_slice(json.as_bytes()),
        json: true,
        delta: false,
        hops: 0,
        origin: None,
    }
}

/// An entry that stands there.
pub fn entry(cursor: u64, offset: u64, record: Record) -> Arc<Entry> {
    Arc::new(Entry {
        cursor,
        position: StreamPosition {
            epoch: Epoch::from_random(77),
            offset: Offset(offset),
        },
        record,
    })
}

/// Where a publication stands, and what it is called.
type Named = (StreamPosition, EventId);

/// See the module.
#[derive(Default)]
pub struct MemoryLog {
    entries: RefCell<Vec<Arc<Entry>>>,
    ends: RefCell<BTreeMap<ChannelName, u64>>,
    keys: RefCell<BTreeMap<(ChannelName, Box<str>), Named>>,
    groups: RefCell<BTreeMap<Box<str>, State>>,
    letters: RefCell<BTreeMap<(Box<str>, EventId), DeadLetter>>,
    values: RefCell<BTreeMap<String, Vec<u8>>>,
    later: RefCell<BTreeMap<Place, Draft>>,
    changed: Notify,
    leases: Cell<u64>,
    tailed: Cell<usize>,
    /// Nothing can be stored.
    pub down: Cell<bool>,
    /// Appends wait while this is true.
    pub stands_still: Option<tokio::sync::watch::Receiver<bool>>,
    /// So many entries are done, and then nothing is settled any more.
    pub dones_left: Cell<Option<usize>>,
    /// Calls of `settle`.
    pub settles: Cell<usize>,
}

struct State {
    group: Group,
    begins_after: u64,
    done: BTreeMap<u64, bool>,
    leased: BTreeMap<Lease, u64>,
    failures: BTreeMap<u64, Vec<Failure>>,
    /// By cursor: until when, of which line.
    delayed: BTreeMap<u64, (u64, Option<LineId>)>,
    lined: BTreeMap<(LineId, u64), ()>,
    /// What was leased by whomever.
    had: BTreeSet<u64>,
    lost: u64,
}

impl State {
    fn takes(&self, entry: &Entry) -> bool {
        let own = format!("$queue:{}", self.group.name);
        let channel = entry.record.channel.whole();
        let matches = |glob: &str| glob_match(glob, channel) && !leaves_out(glob, channel);
        (channel == own || self.group.channels.iter().any(|glob| matches(glob)))
            && entry.cursor > self.begins_after
            && !self.done.contains_key(&entry.cursor)
    }

    fn is_leased(&self, cursor: u64) -> bool {
        self.leased.values().any(|&leased| leased == cursor)
    }

    fn waits(&self, cursor: u64) -> bool {
        let is_lined = self.lined.keys().any(|(_, lined)| *lined == cursor);
        let delayed = self.delayed.get(&cursor);
        is_lined || delayed.is_some_and(|(until, _)| *until > super::desk::unix_ms())
    }
}

impl MemoryLog {
    /// The process ends and another one opens the same log.
    pub fn restart(&self) {
        for state in self.groups.borrow_mut().values_mut() {
            state.leased.clear();
        }
        self.changed.notify_waiters();
    }

    /// Leases of a group that are out.
    pub fn leased(&self, group: &str) -> usize {
        let groups = self.groups.borrow();
        groups.get(group).map_or(0, |state| state.leased.len())
    }

    /// Stores publications without anybody's doing.
    pub fn put_all(&self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            self.store(record);
        }
        self.changed.notify_waiters();
    }

    /// Everything that is stored.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.entries.borrow().clone()
    }

    fn store(&self, record: Record) -> StreamPosition {
        let mut ends = self.ends.borrow_mut();
        let end = ends.entry(record.channel.clone()).or_default();
        *end += 1;
        let mut entries = self.entries.borrow_mut();
        let stored = entry(entries.len() as u64 + 1, *end, record);
        let position = stored.position;
        entries.push(stored);
        position
    }

    fn check(&self) -> Result<(), LogError> {
        if self.down.get() {
            return Err(LogError::Unavailable {
                reason: "down".into(),
                retry_after: Duration::from_millis(10),
            });
        }
        Ok(())
    }

    fn take(
        &self,
        group: &str,
        limit: usize,
        is_meant: impl Fn(&State, u64) -> bool,
    ) -> Result<Vec<Leased>, LogError> {
        let mut groups = self.groups.borrow_mut();
        let state = groups
            .get_mut(group)
            .ok_or_else(|| LogError::NotFound("no such group".into()))?;
        let mut taken = Vec::new();
        for entry in self.entries.borrow().iter() {
            if taken.len() == limit {
                break;
            }
            if !state.takes(entry)
                || state.is_leased(entry.cursor)
                || state.waits(entry.cursor)
                || !is_meant(state, entry.cursor)
            {
                continue;
            }
            let was_delayed = state.delayed.remove(&entry.cursor).is_some();
            let lease = Lease(self.leases.get());
            self.leases.set(lease.0 + 1);
            state.leased.insert(lease, entry.cursor);
            state.had.insert(entry.cursor);
            taken.push(Leased {
                lease,
                entry: entry.clone(),
                failures: state
                    .failures
                    .get(&entry.cursor)
                    .cloned()
                    .unwrap_or_default(),
                was_delayed,
            });
        }
        Ok(taken)
    }
}

impl Entries for MemoryLog {
    const APPENDS_AT_ONCE: usize = 1;

    fn status(&self) -> Status {
        Status {
            end: self.entries.borrow().len() as u64,
            ..Status::default()
        }
    }

    async fn append(&self, batch: Vec<Draft>) -> Vec<Result<Appended, LogError>> {
        if let Some(mut stands_still) = self.stands_still.clone() {
            // Whoever made it stand still may be gone.
            let _ = stands_still.wait_for(|stands| !stands).await;
        }
        let mut results = Vec::new();
        for draft in batch {
            if let Err(error) = self.check() {
                results.push(Err(error));
                continue;
            }
            if draft.due_ms > 0 {
                let place = Place {
                    due_ms: draft.due_ms,
                    number: draft.record.event.0,
                };
                results.push(Ok(Appended {
                    position: StreamPosition::default(),
                    is_new: true,
                    event: Some(draft.record.event),
                    due_ms: draft.due_ms,
                }));
                self.later.borrow_mut().insert(place, draft);
                continue;
            }
            let key = (draft.record.channel.clone(), draft.record.key.clone());
            let first = self.keys.borrow().get(&key).copied();
            if let Some((position, event)) = first.filter(|_| !key.1.is_empty()) {
                results.push(Ok(Appended {
                    position,
                    is_new: false,
                    event: Some(event),
                    due_ms: 0,
                }));
                continue;
            }
            let event = draft.record.event;
            let position = self.store(draft.record);
            self.keys.borrow_mut().insert(key, (position, event));
            results.push(Ok(Appended {
                position,
                is_new: true,
                event: Some(event),
                due_ms: 0,
            }));
        }
        self.changed.notify_waiters();
        results
    }

    async fn tail(&self) -> Result<Vec<Arc<Entry>>, LogError> {
        loop {
            let changed = self.changed.notified();
            let new = self.entries.borrow()[self.tailed.get()..].to_vec();
            if !new.is_empty() {
                self.tailed.set(self.tailed.get() + new.len());
                return Ok(new);
            }
            changed.await;
        }
    }

    async fn read(&self, read: &Read) -> Result<Slice, LogError> {
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.entries.borrow().iter() {
            if entry.record.channel != read.channel
                || read
                    .after
                    .is_none_or(|after| entry.position.offset.0 <= after)
            {
                continue;
            }
            bytes += entry.record.data.len();
            let is_full = entries.len() >= read.limit as usize;
            if is_full || (bytes > read.bytes as usize && !entries.is_empty()) {
                break;
            }
            entries.push(entry.clone());
        }
        let end = self.ends.borrow().get(&read.channel).copied();
        let offset = |one: &Arc<Entry>| one.position.offset.0;
        let (first, last) = (entries.first().map(offset), entries.last().map(offset));
        let nothing = (end.unwrap_or(0) + 1, end.unwrap_or(0));
        let (from, to) = first.zip(last).unwrap_or(nothing);
        Ok(Slice {
            span: Span { from, to },
            position: StreamPosition {
                epoch: Epoch::from_random(77),
                offset: Offset(end.unwrap_or(0)),
            },
            entries,
        })
    }

    async fn scan(&self, scan: &Scan) -> Result<Scanned, LogError> {
        let mut found = Scanned {
            entries: Vec::new(),
            next: scan.after,
            at_end: true,
        };
        let mut bytes = 0;
        let all = self.entries.borrow();
        let behind = all.iter().filter(|entry| entry.cursor > scan.after);
        for (looked_at, entry) in behind.enumerate() {
            let channel = entry.record.channel.whole();
            let mut globs = scan.channels.iter();
            let fits = scan.channels.is_empty() || globs.any(|glob| glob_match(glob, channel));
            let is_full = found.entries.len() >= scan.limit || bytes >= scan.bytes;
            if looked_at >= scan.looked_at || (fits && is_full) {
                found.at_end = false;
                break;
            }
            found.next = entry.cursor;
            if fits {
                bytes += entry.record.bytes();
                found.entries.push(entry.clone());
            }
        }
        Ok(found)
    }

    async fn seek(&self, unix_ms: u64) -> Result<u64, LogError> {
        let all = self.entries.borrow();
        let first = all.iter().find(|entry| entry.record.unix_ms >= unix_ms);
        Ok(first.map_or(all.len() as u64, |entry| entry.cursor))
    }

    async fn trim(&self, channel: &ChannelName) -> Result<(), LogError> {
        let mut entries = self.entries.borrow_mut();
        for state in self.groups.borrow_mut().values_mut() {
            let its = entries
                .iter()
                .filter(|entry| entry.record.channel == *channel);
            let undone = its.filter(|entry| state.takes(entry) && !state.is_leased(entry.cursor));
            state.lost += undone.count() as u64;
        }
        entries.retain(|entry| entry.record.channel != *channel);
        Ok(())
    }
}

impl Groups for MemoryLog {
    async fn open_group(&self, group: &Group) -> Result<(), LogError> {
        self.check()?;
        let end = self.entries.borrow().len() as u64;
        let mut groups = self.groups.borrow_mut();
        let state = groups.entry(group.name.clone()).or_insert_with(|| State {
            group: group.clone(),
            begins_after: match group.start_after {
                Some(after) => after,
                None if group.from_beginning => 0,
                None => end,
            },
            done: BTreeMap::new(),
            leased: BTreeMap::new(),
            failures: BTreeMap::new(),
            delayed: BTreeMap::new(),
            lined: BTreeMap::new(),
            had: BTreeSet::new(),
            lost: 0,
        });
        state.group.channels.clone_from(&group.channels);
        Ok(())
    }

    async fn groups(&self) -> Result<Vec<Group>, LogError> {
        self.check()?;
        let groups = self.groups.borrow();
        Ok(groups.values().map(|state| state.group.clone()).collect())
    }

    async fn delete_group(&self, name: &str) -> Result<bool, LogError> {
        self.check()?;
        Ok(self.groups.borrow_mut().remove(name).is_some())
    }

    async fn fetch(&self, group: &str, limit: usize) -> Result<Vec<Leased>, LogError> {
        loop {
            let changed = self.changed.notified();
            self.check()?;
            let taken = self.take(group, limit, |_, _| true)?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
        }
    }

    async fn settle(&self, group: &str, settled: &[(Lease, Settled)]) -> Result<(), LogError> {
        self.check()?;
        self.settles.set(self.settles.get() + 1);
        let mut groups = self.groups.borrow_mut();
        let Some(state) = groups.get_mut(group) else {
            return Ok(());
        };
        for (lease, settled) in settled {
            let Some(&cursor) = state.leased.get(lease) else {
                continue;
            };
            match settled {
                Settled::Done | Settled::Lost => {
                    match self.dones_left.get() {
                        Some(0) => continue,
                        left => self.dones_left.set(left.map(|left| left - 1)),
                    }
                    state.done.insert(cursor, true);
                    state.leased.remove(lease);
                }
                Settled::Failed(failure) => {
                    let failures = state.failures.entry(cursor).or_default();
                    failures.push(failure.clone());
                }
                Settled::Kept => {}
                Settled::Returned => {
                    state.leased.remove(lease);
                }
                Settled::Delayed {
                    until_unix_ms,
                    line,
                } => {
                    state.leased.remove(lease);
                    state.delayed.insert(cursor, (*until_unix_ms, *line));
                }
                Settled::Lined(line) => {
                    state.leased.remove(lease);
                    state.lined.insert((*line, cursor), ());
                }
            }
        }
        self.changed.notify_waiters();
        Ok(())
    }

    async fn store_settled(&self, _: &str) -> Result<(), LogError> {
        self.check()
    }

    async fn lines(&self, group: &str) -> Result<Vec<Line>, LogError> {
        self.check()?;
        let groups = self.groups.borrow();
        let mut lines: BTreeMap<LineId, (u64, u64)> = BTreeMap::new();
        if let Some(state) = groups.get(group) {
            for (id, _) in state.lined.keys() {
                lines.entry(*id).or_default().0 += 1;
            }
            for (_, line) in state.delayed.values() {
                if let Some(id) = line {
                    lines.entry(*id).or_default().1 += 1;
                }
            }
        }
        let line = |(id, (entries, delayed))| Line {
            id,
            entries,
            delayed,
        };
        Ok(lines.into_iter().map(line).collect())
    }

    async fn left_over(&self, group: &str, limit: usize) -> Result<Vec<Leased>, LogError> {
        self.check()?;
        self.take(group, limit, |state, cursor| {
            state.had.contains(&cursor) && !state.delayed.contains_key(&cursor)
        })
    }

    async fn leave_lines(&self, _: &str) -> Result<(), LogError> {
        Ok(())
    }

    async fn fetch_lines(
        &self,
        group: &str,
        wanted: &[(LineId, usize)],
    ) -> Result<Vec<FromLine>, LogError> {
        self.check()?;
        let mut groups = self.groups.borrow_mut();
        let state = groups
            .get_mut(group)
            .ok_or_else(|| LogError::NotFound("no such group".into()))?;
        let mut given = Vec::new();
        for &(id, limit) in wanted {
            let all = state.lined.range((id, 0)..=(id, u64::MAX));
            let mut cursors: Vec<u64> = all.map(|((_, cursor), ())| *cursor).collect();
            let left = cursors.len().saturating_sub(limit) as u64;
            cursors.truncate(limit);
            let mut leased = Vec::new();
            for cursor in cursors {
                state.lined.remove(&(id, cursor));
                let lease = Lease(self.leases.get());
                self.leases.set(lease.0 + 1);
                let entries = self.entries.borrow();
                let Some(entry) = entries.iter().find(|entry| entry.cursor == cursor) else {
                    continue;
                };
                state.leased.insert(lease, cursor);
                leased.push(Leased {
                    lease,
                    entry: entry.clone(),
                    failures: state.failures.get(&cursor).cloned().unwrap_or_default(),
                    was_delayed: false,
                });
            }
            given.push(FromLine { id, leased, left });
        }
        Ok(given)
    }

    async fn release(&self, group: &str, all: bool) -> Result<(), LogError> {
        self.check()?;
        if let Some(state) = self.groups.borrow_mut().get_mut(group) {
            state.lined.clear();
            state.delayed.retain(|_, (_, line)| line.is_none() && !all);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    async fn seek_group(&self, group: &str, after: u64) -> Result<(), LogError> {
        self.check()?;
        if let Some(state) = self.groups.borrow_mut().get_mut(group) {
            state.begins_after = after;
            state.done.clear();
            state.leased.clear();
            state.failures.clear();
            state.lined.clear();
            state.delayed.clear();
            state.had.clear();
        }
        self.changed.notify_waiters();
        Ok(())
    }

    async fn undone(&self, group: &str, after: u64, limit: usize) -> Result<Vec<Undone>, LogError> {
        self.check()?;
        let groups = self.groups.borrow();
        let Some(state) = groups.get(group) else {
            return Ok(Vec::new());
        };
        let entries = self.entries.borrow();
        let behind = entries
            .iter()
            .filter(|entry| entry.cursor > after && state.takes(entry));
        let undone = behind.take(limit).map(|entry| Undone {
            entry: entry.clone(),
            failures: state
                .failures
                .get(&entry.cursor)
                .cloned()
                .unwrap_or_default(),
            is_leased: state.is_leased(entry.cursor),
        });
        Ok(undone.collect())
    }

    async fn lag(&self, group: &str) -> Result<Lag, LogError> {
        let groups = self.groups.borrow();
        let Some(state) = groups.get(group) else {
            return Ok(Lag::default());
        };
        let all = self.entries.borrow();
        let undone: Vec<&Arc<Entry>> = all.iter().filter(|entry| state.takes(entry)).collect();
        let leased = undone.iter().filter(|entry| state.is_leased(entry.cursor));
        let leased = leased.count();
        let delayed = state.delayed.len();
        Ok(Lag {
            entries: (undone.len() - leased - delayed) as u64,
            delayed: delayed as u64,
            due_unix_ms: state.delayed.values().map(|(until, _)| *until).min(),
            leased: leased as u64,
            oldest_unix_ms: undone.iter().map(|entry| entry.record.unix_ms).min(),
            lost: state.lost,
            lost_before: 0,
            buried: 0,
            seeking: None,
        })
    }
}

impl Letters for MemoryLog {
    async fn bury(&self, letter: &DeadLetter) -> Result<(), LogError> {
        self.check()?;
        let key = (letter.group.clone(), letter.entry.record.event);
        self.letters.borrow_mut().insert(key, letter.clone());
        Ok(())
    }

    async fn dead_letters(
        &self,
        group: Option<&str>,
        after: Option<(&str, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        self.check()?;
        let from = after.map_or(Bound::Unbounded, |(group, event)| {
            Bound::Excluded((group.into(), event))
        });
        let letters = self.letters.borrow();
        let behind = letters
            .range((from, Bound::Unbounded))
            .map(|(_, letter)| letter);
        let of_group = behind.filter(|letter| group.is_none_or(|group| *letter.group == *group));
        Ok(of_group.take(limit).cloned().collect())
    }

    async fn dead_letter(
        &self,
        group: &str,
        event: EventId,
    ) -> Result<Option<DeadLetter>, LogError> {
        self.check()?;
        Ok(self.letters.borrow().get(&(group.into(), event)).cloned())
    }

    async fn exhume(&self, group: &str, event: EventId) -> Result<bool, LogError> {
        self.check()?;
        let mut letters = self.letters.borrow_mut();
        Ok(letters.remove(&(group.into(), event)).is_some())
    }

    async fn give_up(
        &self,
        _: Lease,
        letter: &DeadLetter,
        obituary: Option<Draft>,
    ) -> Result<Option<Draft>, LogError> {
        self.bury(letter).await?;
        Ok(obituary)
    }

    async fn expire_letters(&self, bounds: Bounds) -> Result<Vec<Box<str>>, LogError> {
        self.check()?;
        let mut gone = Vec::new();
        loop {
            let census = self.census();
            let mut letters = self.letters.borrow_mut();
            let oldest = letters.iter().min_by_key(|(_, letter)| letter.unix_ms);
            let Some((key, letter)) = oldest else {
                return Ok(gone);
            };
            let (key, died_ms) = (key.clone(), letter.unix_ms);
            let now_ms = super::desk::unix_ms();
            if !bounds.are_passed(died_ms, now_ms, census.letters, census.bytes) {
                return Ok(gone);
            }
            letters.remove(&key);
            gone.push(key.0);
        }
    }

    fn census(&self) -> Census {
        let mut census = Census::default();
        for letter in self.letters.borrow().values() {
            census.add(&letter.group, letter.cause(), letter.bytes());
        }
        census
    }
}

impl MemoryLog {
    fn waiting(&self, which: &Which) -> Option<Pending> {
        let later = self.later.borrow();
        let is_meant = |draft: &Draft| {
            draft.record.channel == which.channel
                && match &which.name {
                    Name::Key(key) => draft.record.key == *key,
                    Name::Event(event) => draft.record.event == *event,
                }
        };
        let (place, draft) = later.iter().find(|(_, draft)| is_meant(draft))?;
        Some(Pending {
            place: *place,
            draft: draft.clone(),
        })
    }
}

/// Time never comes here: what waits is published by nobody.
impl Scheduled for MemoryLog {
    async fn scheduled(&self, wanted: &Page) -> Result<Vec<Pending>, LogError> {
        self.check()?;
        let later = self.later.borrow();
        let from = wanted.after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = later.range((from, Bound::Unbounded));
        let is_of = |draft: &Draft| {
            let channel = wanted.channel.as_ref();
            channel.is_none_or(|channel| draft.record.channel == *channel)
        };
        let pending = |(place, draft): (&Place, &Draft)| Pending {
            place: *place,
            draft: draft.clone(),
        };
        let found = behind.filter(|(_, draft)| is_of(draft)).map(pending);
        Ok(found.take(wanted.limit).collect())
    }

    async fn pending(&self, which: &Which) -> Result<Option<Pending>, LogError> {
        self.check()?;
        Ok(self.waiting(which))
    }

    async fn cancel(&self, which: &Which) -> Result<Option<Pending>, LogError> {
        self.check()?;
        let found = self.waiting(which);
        if let Some(pending) = &found {
            self.later.borrow_mut().remove(&pending.place);
        }
        Ok(found)
    }

    async fn change(&self, which: &Which, due_ms: u64) -> Result<Option<Pending>, LogError> {
        let Some(mut pending) = self.cancel(which).await? else {
            return Ok(None);
        };
        pending.place.due_ms = due_ms;
        pending.draft.due_ms = due_ms;
        let draft = pending.draft.clone();
        self.later.borrow_mut().insert(pending.place, draft);
        Ok(Some(pending))
    }
}

impl Values for MemoryLog {
    async fn put(&self, key: &str, value: Option<&[u8]>) -> Result<(), LogError> {
        self.check()?;
        let mut values = self.values.borrow_mut();
        match value {
            Some(value) => values.insert(key.to_owned(), value.to_vec()),
            None => values.remove(key),
        };
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LogError> {
        self.check()?;
        Ok(self.values.borrow().get(key).cloned())
    }

    async fn all(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        self.check()?;
        let values = self.values.borrow();
        let found = values.iter().filter(|(key, _)| key.starts_with(prefix));
        let mut found: Vec<_> = found.map(|(k, v)| (k.clone(), v.clone())).collect();
        found.sort_unstable();
        Ok(found)
    }
}

impl Copies for MemoryLog {
    async fn copy(&self, _: Wanted, _: mpsc::Sender<Bytes>) -> Result<(), LogError> {
        Err(LogError::BadRequest("nothing is stored".into()))
    }
}

impl Log for MemoryLog {
    async fn close(&self) {}
}

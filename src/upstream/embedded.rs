//! The embedded log: in one directory of this machine, on the storage library `fjall`.
//!
//! Everything that is appended at once is one batch of the library and one sync of its journal. Records of a channel go
//! into blocks, blocks and their index into segments, which are forgotten as a whole. A failed write makes the log
//! unavailable; it is then opened again, in place, until that works.

mod block;
mod bytes;
mod channels;
mod clock;
mod core;
mod error;
mod groups;
mod inner;
mod journal;
mod keys;
mod letters;
mod read;
mod segments;
mod store;
mod tail;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use fjall::Readable as _;
use tokio::sync::Notify;

pub use self::error::OpenError;

use self::channels::Row;
use self::clock::monotonic;
use self::core::{Broken, Core};
use self::groups::{Recent, State};
use self::inner::{GROUPS_PAUSE, Inner, REOPEN_PAUSE};
use self::segments::View;
use self::store::{Directory, Store};
use self::tail::Tail;
use super::log::{
    DeadLetter, Group, Lag, Lease, Leased, Log, Scan, Scanned, Settled, Slice, Status,
};
use crate::config::durable::Durable;
use crate::mesh::durable::{Appended, LogError, Read};
use crate::model::{ChannelName, Draft, Entry, EventId};

/// Between two looks at what expires.
const TEND_PAUSE: Duration = Duration::from_secs(1);
/// Blocks that are looked at to count what an order takes from groups.
const TRIM_LOOKS_MAX: usize = 4096;
/// Bytes of one record: the library takes 4 GiB.
const RECORD_BYTES_MAX: usize = 256 << 20;
/// Bytes of a name in a key.
const NAME_BYTES_MAX: usize = 1024;
/// Entries and bytes that are read ahead for a group, or for whoever follows the log.
const AHEAD_MAX: usize = 4096;
const AHEAD_BYTES_MAX: usize = 8 << 20;
/// Entries of others that are passed over at once while reading ahead.
const PASSED_MAX: usize = 1 << 16;
/// Blocks that are looked at to say how far behind a group is.
const LAG_BLOCKS_MAX: usize = 256;

/// See the module.
pub struct Embedded {
    directory: Directory,
    config: Durable,
    /// Something has happened that whoever waits wants to know.
    changed: Notify,
    inner: RefCell<Inner>,
}

impl Embedded {
    /// Opens the log, and makes it if there is none. Takes as long as reading the last few hundred MB does.
    ///
    /// # Errors
    ///
    /// See `OpenError`.
    pub fn open(config: &Durable) -> Result<Self, OpenError> {
        let directory = Directory::claim(&config.embedded.directory)?;
        let core = Core::open(directory.path(), config)?;
        let groups = groups::load(&core.store)
            .map_err(|error| OpenError::of_fjall(directory.path(), &error))?;
        let mut recent = Recent::default();
        recent.start(core.end);
        Ok(Self {
            directory,
            config: config.clone(),
            changed: Notify::new(),
            inner: RefCell::new(Inner {
                down: None,
                tail: Tail::new(core.end),
                is_lost: false,
                recent,
                groups,
                tended: monotonic(),
                dirty: None,
                unsynced: None,
                damaged: 0,
                bytes: core.store.db.disk_space().unwrap_or(0),
                entries: core.end + 1 - core.segments.first(core.end),
                end: core.end,
                core: Some(core),
            }),
        })
    }

    /// Does what is due. Called wherever the log is used, and by whoever follows it.
    fn step(&self) {
        let now = monotonic();
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        if inner.core.is_none() {
            if inner.reopen(self.directory.path(), &self.config, now) {
                self.changed.notify_waiters();
            }
            return;
        }
        let result = inner.write_groups_if_due(now).and_then(|()| {
            if now.duration_since(inner.tended) >= TEND_PAUSE {
                inner.tended = now;
                inner.tend()?;
            }
            Ok(())
        });
        if let Err(broken) = result {
            inner.fail(&broken);
        }
    }

    /// How long nothing is due.
    fn pause(&self) -> Duration {
        let inner = self.inner.borrow();
        if inner.dirty.is_some() || inner.unsynced.is_some() || inner.core.is_none() {
            GROUPS_PAUSE
        } else {
            TEND_PAUSE
        }
    }

    /// Uses the open log. What fails makes it unavailable.
    fn with<T>(&self, run: impl FnOnce(&mut Core) -> Result<T, Broken>) -> Result<T, LogError> {
        self.step();
        let mut inner = self.inner.borrow_mut();
        let Some(core) = &mut inner.core else {
            return Err(inner.unavailable());
        };
        match run(core) {
            Ok(value) => Ok(value),
            Err(broken) => {
                inner.fail(&broken);
                Err(inner.unavailable())
            }
        }
    }

    /// Reads elsewhere, where waiting for the disk is allowed.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View, &Store) -> fjall::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        let (view, store) = self.with(|core| Ok((core.view(), core.store.clone())))?;
        let result = tokio::task::spawn_blocking(move || read(&view, &store)).await;
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(unreadable(&error::words(&error))),
            Err(_) => Err(unreadable("the storage library gave up")),
        }
    }

    async fn scan_for(&self, after: u64, filter: Arc<read::Filter>) -> Result<Scanned, LogError> {
        let scan = Scan {
            after,
            channels: Vec::new(),
            limit: AHEAD_MAX,
            bytes: AHEAD_BYTES_MAX,
            looked_at: PASSED_MAX,
        };
        self.scan_with(scan, filter).await
    }

    async fn scan_with(&self, scan: Scan, filter: Arc<read::Filter>) -> Result<Scanned, LogError> {
        let found = self
            .reading(move |view, _| read::scan(view, &scan, &filter))
            .await?;
        self.inner.borrow_mut().damaged += found.damaged;
        Ok(found.scanned)
    }

    /// Groups that take from the channel and are not at the end, and where they have looked up to.
    fn behind(&self, channel: &ChannelName) -> Vec<(Box<str>, u64, u64)> {
        let inner = self.inner.borrow();
        let takes =
            |state: &State| state.filter.wants(channel.as_str()) && state.scanned() < inner.end;
        let groups = inner.groups.iter().filter(|(_, state)| takes(state));
        groups
            .map(|(name, state)| (name.clone(), state.number(), state.scanned()))
            .collect()
    }

    /// Counts what an order has taken from groups that had not looked at it: `kept` entries of the channel were there. Where
    /// too many blocks would have to be looked at, all that may be its own count.
    async fn count_losses(
        &self,
        view: View,
        channel: &ChannelName,
        behind: Vec<(Box<str>, u64, u64)>,
        kept: u64,
    ) {
        if behind.is_empty() || kept == 0 {
            return;
        }
        let filter = read::Filter::of_scan(&[channel.as_str().into()]);
        let blocks = (TRIM_LOOKS_MAX / behind.len()).max(1);
        let counting = tokio::task::spawn_blocking(move || {
            let count = |(name, number, after): (Box<str>, u64, u64)| {
                // What cannot be read counts as if it were not looked at.
                let (wanted, to) = read::count(&view, after, &filter, blocks).unwrap_or((0, after));
                let lost = wanted.saturating_add(view.end.saturating_sub(to)).min(kept);
                (name, number, lost)
            };
            behind.into_iter().map(count).collect::<Vec<_>>()
        });
        let Ok(losses) = counting.await else { return };
        let mut inner = self.inner.borrow_mut();
        for (name, number, lost) in losses {
            let state = inner.groups.get_mut(&name);
            // One that was made meanwhile has lost nothing.
            if let Some(state) = state.filter(|state| state.number() == number) {
                state.lose(lost);
            }
        }
        if inner.groups.values().any(State::is_dirty) && inner.mark_dirty() {
            self.changed.notify_waiters();
        }
    }

    fn group<T>(&self, name: &str, run: impl FnOnce(&mut State) -> T) -> Result<T, LogError> {
        let mut inner = self.inner.borrow_mut();
        let state = inner.groups.get_mut(name);
        state
            .map(run)
            .ok_or_else(|| LogError::NotFound(format!("there is no queue group {name}").into()))
    }

    fn is_open(&self) -> Result<(), LogError> {
        let inner = self.inner.borrow();
        match &inner.core {
            Some(_) => Ok(()),
            None => Err(inner.unavailable()),
        }
    }
}

/// Something could not be read; the log itself goes on.
fn unreadable(reason: &str) -> LogError {
    LogError::Unavailable {
        reason: reason.into(),
        retry_after: REOPEN_PAUSE,
    }
}

/// Why a record cannot be stored in any log of this kind.
fn refusal(draft: &Draft) -> Option<LogError> {
    let name = draft.record.channel.as_str();
    let says = if name.is_empty() || name.len() > NAME_BYTES_MAX {
        "the channel's name is empty or too long"
    } else if draft.record.bytes() > RECORD_BYTES_MAX {
        "the publication is too large"
    } else {
        return None;
    };
    Some(LogError::Refused(says.into()))
}

fn check_name(name: &str) -> Result<(), LogError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return Err(LogError::BadRequest(
            "the group's name is empty, too long or holds a zero byte".into(),
        ));
    }
    Ok(())
}

impl Log for Embedded {
    const APPENDS_AT_ONCE: usize = 1;

    fn status(&self) -> Status {
        let inner = self.inner.borrow();
        let mut warnings: Vec<Box<str>> = Vec::new();
        if inner.damaged > 0 {
            warnings.push(
                format!(
                    "{} stored blocks of the durable log are damaged and were passed over",
                    inner.damaged
                )
                .into(),
            );
        }
        Status {
            down: inner.down.as_ref().map(|down| down.reason.clone()),
            warnings,
            bytes: inner.bytes,
            entries: inner.entries,
            end: inner.end,
        }
    }

    async fn append(&self, batch: Vec<Draft>) -> Vec<Result<Appended, LogError>> {
        self.step();
        let mut inner = self.inner.borrow_mut();
        if inner.core.is_none() {
            let error = inner.unavailable();
            return batch.iter().map(|_| Err(error.clone())).collect();
        }
        let mut refused: Vec<Option<LogError>> = batch.iter().map(refusal).collect();
        let mut kept = batch;
        let mut places = refused.iter();
        kept.retain(|_| places.next().is_some_and(Option::is_none));
        match inner.append(kept) {
            Ok(results) => {
                let mut results = results.into_iter();
                drop(inner);
                self.changed.notify_waiters();
                refused
                    .iter_mut()
                    .map(|refused| match refused.take() {
                        Some(error) => Err(error),
                        None => results.next().ok_or(LogError::Busy {
                            retry_after: REOPEN_PAUSE,
                        }),
                    })
                    .collect()
            }
            Err(broken) => {
                inner.fail(&broken);
                let error = inner.unavailable();
                let of = |refused: Option<LogError>| Err(refused.unwrap_or_else(|| error.clone()));
                refused.into_iter().map(of).collect()
            }
        }
    }

    async fn tail(&self) -> Result<Vec<Arc<Entry>>, LogError> {
        let all = Arc::new(read::Filter::of_scan(&[]));
        loop {
            self.step();
            let changed = self.changed.notified();
            let next = {
                let mut inner = self.inner.borrow_mut();
                if std::mem::take(&mut inner.is_lost) {
                    return Err(unreadable(
                        "the durable log was opened again and is another one",
                    ));
                }
                let end = inner.end;
                match inner.tail.next(end) {
                    tail::Next::Scan(_) if inner.core.is_none() => tail::Next::Wait,
                    next => next,
                }
            };
            match next {
                tail::Next::Take(entries) => return Ok(entries),
                tail::Next::Scan(after) => {
                    // What cannot be read now is read later: nothing is left out.
                    if let Ok(scanned) = self.scan_for(after, Arc::clone(&all)).await {
                        self.inner.borrow_mut().tail.give(scanned.next);
                        if !scanned.entries.is_empty() {
                            return Ok(scanned.entries);
                        }
                    } else {
                        tokio::time::sleep(GROUPS_PAUSE).await;
                    }
                }
                tail::Next::Wait => {
                    let _ = tokio::time::timeout(self.pause(), changed).await;
                }
            }
        }
    }

    async fn read(&self, read: &Read) -> Result<Slice, LogError> {
        let (known, nowhere) =
            self.with(|core| Ok((core.known(&read.channel), core.nowhere(&read.channel))))?;
        let is_short = |row: &Row| read.limit == 0 || read.after >= row.top;
        if let Some(row) = known.as_ref().filter(|row| is_short(row)) {
            return Ok(Slice {
                position: row.position(),
                entries: Vec::new(),
            });
        }
        let wanted = read.clone();
        let (row, mut entries, damaged) = self
            .reading(move |view, store| {
                let name = wanted.channel.as_str();
                let value = match name.is_empty() {
                    true => None,
                    false => view.snapshot.get(&store.channels, name)?,
                };
                let Some(row) = value.and_then(|value| Row::decode(&value).ok()) else {
                    return Ok((None, Vec::new(), 0));
                };
                let (entries, damaged) = read::channel(view, &row, &wanted)?;
                Ok((Some(row), entries, damaged))
            })
            .await?;
        self.inner.borrow_mut().damaged += damaged;
        // What was appended meanwhile may have been given by `tail` already, so the position must not be behind it.
        let newer = self.with(|core| {
            let Some(newer) = core.known(&read.channel) else {
                return Ok(row);
            };
            let reached = entries
                .last()
                .map_or(read.after, |last| last.position.offset.0);
            let top = row.as_ref().map_or(0, |row| row.top);
            if newer.top > top && reached >= top {
                let bytes: usize = entries.iter().map(|entry| entry.record.bytes()).sum();
                let rest = Read {
                    channel: read.channel.clone(),
                    after: reached,
                    limit: read.limit.saturating_sub(entries.len() as u32),
                    bytes: read
                        .bytes
                        .saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX)),
                };
                // It is in memory still.
                if entries.is_empty() || rest.bytes > 0 {
                    let more = read::channel(&core.view(), &newer, &rest)?.0;
                    let offset = more.first().map_or(0, |first| first.position.offset.0);
                    if entries.is_empty() || offset == reached + 1 {
                        entries.extend(more);
                    }
                }
            }
            Ok(Some(newer))
        })?;
        Ok(Slice {
            position: newer.map_or(nowhere, |row| row.position()),
            entries,
        })
    }

    async fn scan(&self, scan: &Scan) -> Result<Scanned, LogError> {
        let filter = Arc::new(read::Filter::of_scan(&scan.channels));
        self.scan_with(scan.clone(), filter).await
    }

    async fn seek(&self, unix_ms: u64) -> Result<u64, LogError> {
        self.reading(move |view, _| read::seek(view, unix_ms)).await
    }

    async fn trim(&self, channel: &ChannelName) -> Result<(), LogError> {
        // What is appended while losses are counted stays.
        let (view, kept) = self.with(|core| {
            let view = core.view();
            Ok((view, core.trim(channel)?))
        })?;
        let behind = self.behind(channel);
        {
            let mut inner = self.inner.borrow_mut();
            inner.recent.trim(channel);
            inner
                .groups
                .values_mut()
                .for_each(|state| state.trim(channel));
            if inner.groups.values().any(State::is_dirty) {
                inner.mark_dirty();
            }
        }
        self.count_losses(view, channel, behind, kept).await;
        Ok(())
    }

    async fn open_group(&self, group: &Group) -> Result<(), LogError> {
        check_name(&group.name)?;
        self.step();
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let Some(core) = &mut inner.core else {
            return Err(inner.unavailable());
        };
        let count = inner.groups.len();
        let mut batch = core.store.batch();
        match inner.groups.get_mut(&group.name) {
            Some(state) => {
                let is_same =
                    state.spec.channels == group.channels && state.spec.lease == group.lease;
                if is_same {
                    return Ok(());
                }
                state.change(group.clone());
                state.write_spec(&mut batch, &core.store);
            }
            None if count >= groups::GROUPS_MAX => {
                return Err(LogError::Refused("there are too many queue groups".into()));
            }
            None => {
                let read = match group.from_beginning {
                    true => core.segments.first(core.end) - 1,
                    false => core.end,
                };
                let number = core.group_number(&mut batch);
                let mut state = State::new(group.clone(), number, read);
                state.write_spec(&mut batch, &core.store);
                state.write(&mut batch, &core.store);
                inner.groups.insert(group.name.clone(), state);
            }
        }
        if let Err(reason) = Store::commit(batch, true) {
            if inner.groups.len() > count {
                inner.groups.remove(&group.name);
            }
            inner.fail(&Broken(reason));
            return Err(inner.unavailable());
        }
        self.changed.notify_waiters();
        Ok(())
    }

    async fn groups(&self) -> Result<Vec<Group>, LogError> {
        let inner = self.inner.borrow();
        Ok(inner
            .groups
            .values()
            .map(|state| state.spec.clone())
            .collect())
    }

    async fn delete_group(&self, name: &str) -> Result<bool, LogError> {
        self.step();
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let Some(core) = &mut inner.core else {
            return Err(inner.unavailable());
        };
        let Some(state) = inner.groups.get(name) else {
            return Ok(false);
        };
        let mut batch = core.store.batch();
        let removed = state
            .remove(&mut batch, &core.store)
            .map_err(|error| error::words(&error))
            .and_then(|()| Store::commit(batch, true));
        if let Err(reason) = removed {
            inner.fail(&Broken(reason));
            return Err(inner.unavailable());
        }
        inner.groups.remove(name);
        self.changed.notify_waiters();
        Ok(true)
    }

    async fn fetch(&self, group: &str, limit: usize) -> Result<Vec<Leased>, LogError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        loop {
            self.step();
            let changed = self.changed.notified();
            let (next, refills, filter) = {
                let mut inner = self.inner.borrow_mut();
                let inner = &mut *inner;
                let Some(state) = inner.groups.get_mut(group) else {
                    return Err(LogError::NotFound(
                        format!("there is no queue group {group}").into(),
                    ));
                };
                let next = state.next(limit, &inner.recent, inner.end);
                let found = (next, state.refills, Arc::clone(&state.filter));
                if state.is_dirty() && inner.mark_dirty() {
                    self.changed.notify_waiters();
                }
                found
            };
            match next {
                groups::Next::Take(leased) => return Ok(leased),
                groups::Next::Scan(after) => {
                    let scanned = self.scan_for(after, filter).await?;
                    self.group(group, |state| {
                        if state.refills == refills {
                            state.refill(scanned.entries, scanned.next);
                        }
                    })?;
                }
                groups::Next::Load(cursors) => {
                    let found = self
                        .reading(move |view, _| {
                            cursors
                                .into_iter()
                                .map(|cursor| Ok((cursor, read::entry(view, cursor)?)))
                                .collect::<fjall::Result<Vec<_>>>()
                        })
                        .await?;
                    self.group(group, |state| {
                        for (cursor, entry) in found {
                            state.restore(cursor, entry);
                        }
                    })?;
                }
                groups::Next::Wait => {
                    let _ = tokio::time::timeout(TEND_PAUSE, changed).await;
                }
            }
        }
    }

    async fn settle(&self, group: &str, settled: &[(Lease, Settled)]) -> Result<(), LogError> {
        let is_free = self.group(group, |state| {
            settled.iter().fold(false, |is_free, (lease, settled)| {
                state.settle(*lease, settled) || is_free
            })
        })?;
        // Whoever follows the log calls again when it is time to write.
        if self.inner.borrow_mut().mark_dirty() || is_free {
            self.changed.notify_waiters();
        }
        self.step();
        Ok(())
    }

    /// The entries are exact where they are few; of more, those that nobody has looked at count as the group's.
    async fn lag(&self, group: &str) -> Result<Lag, LogError> {
        let (scanned, filter, missing) = self.group(group, |state| {
            let missing = state.oldest_missing();
            (state.scanned(), Arc::clone(&state.filter), missing)
        })?;
        let (unread, oldest) = if scanned >= self.inner.borrow().end && missing.is_none() {
            (0, None)
        } else {
            self.reading(move |view, _| lag_on_disk(view, scanned, &filter, missing))
                .await?
        };
        self.group(group, |state| state.lag(unread, oldest))
    }

    async fn bury(&self, letter: &DeadLetter) -> Result<(), LogError> {
        check_name(&letter.group)?;
        self.with(|core| {
            let mut batch = core.store.batch();
            let key = letters::key(&letter.group, letter.entry.record.event);
            batch.insert(&core.store.letters, key, letters::encode(letter));
            Store::commit(batch, true).map_err(Broken)
        })
    }

    async fn dead_letters(
        &self,
        group: Option<&str>,
        after: Option<(&str, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        let group = group.map(str::to_owned);
        let after = after.map(|(group, event)| (group.to_owned(), event));
        let (letters, damaged) = self
            .reading(move |_, store| {
                let after = after
                    .as_ref()
                    .map(|(group, event)| (group.as_str(), *event));
                letters::list(store, group.as_deref(), after, limit)
            })
            .await?;
        self.inner.borrow_mut().damaged += damaged;
        Ok(letters)
    }

    async fn dead_letter(
        &self,
        group: &str,
        event: EventId,
    ) -> Result<Option<DeadLetter>, LogError> {
        let key = letters::key(group, event);
        let letter = self
            .reading(move |_, store| {
                let value = store.letters.get(&key)?;
                Ok(value.map(|value| letters::decode(&key, bytes_of(value))))
            })
            .await?;
        letter
            .transpose()
            .map_err(|damage| unreadable(&damage.to_string()))
    }

    async fn exhume(&self, group: &str, event: EventId) -> Result<bool, LogError> {
        self.with(|core| {
            let key = letters::key(group, event);
            if !core.store.letters.contains_key(&key)? {
                return Ok(false);
            }
            let mut batch = core.store.batch();
            batch.remove(&core.store.letters, key);
            Store::commit(batch, true).map_err(Broken)?;
            Ok(true)
        })
    }

    async fn put(&self, key: &str, value: Option<&[u8]>) -> Result<(), LogError> {
        if key.len() > NAME_BYTES_MAX {
            return Err(LogError::BadRequest("the key is too long".into()));
        }
        self.with(|core| {
            let mut batch = core.store.batch();
            match value {
                Some(value) => batch.insert(&core.store.state, value_key(key), value),
                None => batch.remove(&core.store.state, value_key(key)),
            }
            Store::commit(batch, true).map_err(Broken)
        })
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LogError> {
        let key = value_key(key);
        self.reading(move |_, store| Ok(store.state.get(key)?.map(|value| value.to_vec())))
            .await
    }

    async fn close(&self) {
        if self.is_open().is_err() {
            return;
        }
        let gone = {
            let mut inner = self.inner.borrow_mut();
            // Where this fails, what was settled last is given once more after the next start.
            let _ = inner.write_groups(true);
            inner.fail(&Broken("it is closed".to_owned()));
            inner.down.as_mut().and_then(|down| {
                down.is_closed = true;
                down.gone.take()
            })
        };
        if let Some(gone) = gone {
            let _ = gone.await;
        }
    }
}

/// How many of the group's entries nobody has looked at, and when the oldest that is not in memory was taken in.
fn lag_on_disk(
    view: &View,
    scanned: u64,
    filter: &read::Filter,
    missing: Option<u64>,
) -> fjall::Result<(u64, Option<u64>)> {
    let (wanted, counted_to) = match filter.wants_all() {
        true => (0, scanned),
        false => read::count(view, scanned, filter, LAG_BLOCKS_MAX)?,
    };
    let unread = wanted + view.end.saturating_sub(counted_to);
    let oldest = match missing {
        Some(cursor) => read::entry(view, cursor)?,
        None => {
            let scan = Scan {
                after: scanned,
                channels: Vec::new(),
                limit: 1,
                bytes: 0,
                looked_at: PASSED_MAX,
            };
            read::scan(view, &scan, filter)?.scanned.entries.pop()
        }
    };
    Ok((unread, oldest.map(|entry| entry.record.unix_ms)))
}

fn value_key(key: &str) -> Vec<u8> {
    [b"v/", key.as_bytes()].concat()
}

fn bytes_of(value: fjall::UserValue) -> ::bytes::Bytes {
    ::bytes::Bytes::from_owner(value)
}

#[cfg(test)]
mod tests;

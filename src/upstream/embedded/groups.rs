//! The queue groups of the embedded log: what is asked of them. What one group has and knows is its state.

pub(super) mod parked;
mod state;

use std::sync::Arc;

use super::clock::{monotonic, wall_ms};
use super::core::{Broken, Core};
use super::segments::View;
use super::store::Store;
use super::{Embedded, PASSED_AT_ONCE, READ_AHEAD_BYTES, TEND_PAUSE, check_name, error, read};
use crate::limits::GROUPS_STORED_MAX;
use crate::mesh::durable::LogError;
use crate::upstream::log::{
    FromLine, Group, Groups, Lag, Lease, Leased, Line, LineId, Scan, Settled, Undone,
};

pub use state::{Lost, Next, Recent, State, load, stored_group};

/// Blocks that are looked at to say how far behind a group is.
const BLOCKS_PER_LAG: usize = 256;
/// Rows of lines that are freed in one step.
const FREED_AT_ONCE: usize = 8192;

impl Groups for Embedded {
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
            None if count >= GROUPS_STORED_MAX => {
                return Err(LogError::Refused("there are too many queue groups".into()));
            }
            None => {
                let before = core.segments.first(core.end) - 1;
                let read = match group.start_after {
                    Some(after) => after.clamp(before, core.end),
                    None if group.from_beginning => before,
                    None => core.end,
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
            let (next, refills, (filter, number)) = {
                let mut inner = self.inner.borrow_mut();
                let inner = &mut *inner;
                let Some(state) = inner.groups.get_mut(group) else {
                    return Err(LogError::NotFound(
                        format!("there is no queue group {group}").into(),
                    ));
                };
                let now_ms = log_ms(&mut inner.core);
                let next = state.next(limit, &inner.recent, inner.end, (now_ms, wall_ms()));
                let found = (
                    next,
                    state.refills,
                    (Arc::clone(&state.filter), state.number()),
                );
                if state.is_dirty() && inner.mark_dirty() {
                    self.changed.notify_waiters();
                }
                found
            };
            match next {
                Next::Take(leased) => return Ok(leased),
                Next::Scan(after) => {
                    let scanned = self.scan_for(after, filter).await?;
                    self.group(group, |state| {
                        if state.refills == refills {
                            state.refill(scanned.entries, scanned.next);
                        }
                    })?;
                }
                Next::Load(cursors) => self.restore(group, cursors).await?,
                Next::Due(from) => {
                    self.write_parked()?;
                    let now_ms = log_ms(&mut self.inner.borrow_mut().core);
                    let (found, next) = self
                        .reading(move |view, store| {
                            let bytes = READ_AHEAD_BYTES;
                            parked::due(view, store, number, from, now_ms, limit, bytes)
                        })
                        .await?;
                    let leased = self.group(group, |state| match state.number() == number {
                        true => state.wake(found, next, wall_ms()),
                        false => Vec::new(),
                    })?;
                    self.mark_changed();
                    if !leased.is_empty() {
                        return Ok(leased);
                    }
                }
                Next::Wait(until_ms) => {
                    let pause = until_ms.map_or(TEND_PAUSE, |until| {
                        let now_ms = log_ms(&mut self.inner.borrow_mut().core);
                        std::time::Duration::from_millis(until.saturating_sub(now_ms).max(1))
                    });
                    let _ = tokio::time::timeout(pause.min(TEND_PAUSE), changed).await;
                }
            }
        }
    }

    async fn settle(&self, group: &str, settled: &[(Lease, Settled)]) -> Result<(), LogError> {
        // What waits for its time goes by the log's clock, which nobody sets.
        let log_ms = log_ms(&mut self.inner.borrow_mut().core);
        let wall_ms = wall_ms();
        let is_free = self.group(group, |state| {
            settled.iter().fold(false, |is_free, (lease, settled)| {
                let settled = match settled {
                    Settled::Delayed {
                        until_unix_ms,
                        line,
                    } => &Settled::Delayed {
                        until_unix_ms: log_ms + until_unix_ms.saturating_sub(wall_ms),
                        line: *line,
                    },
                    settled => settled,
                };
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

    async fn store_settled(&self, _: &str) -> Result<(), LogError> {
        self.step();
        let mut inner = self.inner.borrow_mut();
        if inner.core.is_none() {
            return Err(inner.unavailable());
        }
        if inner.dirty.is_none() && inner.unsynced.is_none() {
            return Ok(());
        }
        if let Err(broken) = inner.write_groups(true) {
            inner.fail(&broken);
            return Err(inner.unavailable());
        }
        inner.unsynced = None;
        Ok(())
    }

    async fn lines(&self, group: &str) -> Result<Vec<Line>, LogError> {
        self.group(group, |state| state.parked().lines())
    }

    async fn left_over(&self, group: &str, limit: usize) -> Result<Vec<Leased>, LogError> {
        let (free, missing) = self.group(group, |state| state.free_first(limit, wall_ms()))?;
        if !missing.is_empty() {
            self.restore(group, missing).await?;
        }
        let leased = self.group(group, |state| {
            let leased = free
                .iter()
                .filter_map(|cursor| state.lease(*cursor, wall_ms()));
            leased.collect::<Vec<_>>()
        })?;
        if leased.is_empty() && !free.is_empty() {
            // What there was is lost.
            return Box::pin(self.left_over(group, limit)).await;
        }
        Ok(leased)
    }

    /// The log is this process' alone.
    async fn leave_lines(&self, _: &str) -> Result<(), LogError> {
        Ok(())
    }

    async fn fetch_lines(
        &self,
        group: &str,
        wanted: &[(LineId, usize)],
    ) -> Result<Vec<FromLine>, LogError> {
        self.write_parked()?;
        let (number, asked) = self.group(group, |state| {
            let parked = state.parked();
            let from = |&(line, limit): &(LineId, usize)| (line, parked.line_from(line), limit);
            (state.number(), wanted.iter().map(from).collect::<Vec<_>>())
        })?;
        let found = self
            .reading(move |view, store| {
                let mut blocks = read::Blocks::default();
                parked::first_of_lines(view, store, number, &asked, READ_AHEAD_BYTES, &mut blocks)
            })
            .await?;
        let given = self.group(group, |state| match state.number() == number {
            true => state.unpark_lines(found, wall_ms()),
            false => Vec::new(),
        })?;
        self.mark_changed();
        Ok(given)
    }

    async fn release(&self, group: &str, all: bool) -> Result<(), LogError> {
        loop {
            self.write_parked()?;
            let number = self.group(group, |state| state.number())?;
            let rows = self
                .reading(move |view, store| {
                    parked::some_to_free(view, store, number, all, FREED_AT_ONCE)
                })
                .await?;
            if rows.is_empty() {
                self.changed.notify_waiters();
                return Ok(());
            }
            self.group(group, |state| state.free_parked(rows))?;
            self.mark_changed();
        }
    }

    async fn seek_group(&self, group: &str, after: u64) -> Result<(), LogError> {
        self.step();
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let Some(core) = &mut inner.core else {
            return Err(inner.unavailable());
        };
        let Some(state) = inner.groups.get_mut(group) else {
            return Err(LogError::NotFound(
                format!("there is no queue group {group}").into(),
            ));
        };
        let before = core.segments.first(core.end) - 1;
        let mut batch = core.store.batch();
        let begun = state
            .begin_behind(after.clamp(before, core.end), &mut batch, &core.store)
            .map_err(|error| error::words(&error))
            .and_then(|()| Store::commit(batch, true));
        if let Err(reason) = begun {
            inner.fail(&Broken(reason));
            return Err(inner.unavailable());
        }
        self.changed.notify_waiters();
        Ok(())
    }

    async fn undone(&self, group: &str, after: u64, limit: usize) -> Result<Vec<Undone>, LogError> {
        self.write_parked()?;
        let (number, filter, read, open, parked) = self.group(group, |state| {
            let open = state.open_behind(after, limit);
            let parked = state.parked().cursors().behind(after, limit);
            let filter = Arc::clone(&state.filter);
            (state.number(), filter, state.read_to(), open, parked)
        })?;
        self.reading(move |view, store| {
            let mut cursors: Vec<(u64, bool)> = open;
            cursors.extend(parked.into_iter().map(|cursor| (cursor, false)));
            cursors.sort_unstable();
            cursors.truncate(limit);
            let mut undone = parked::undone(view, store, number, &cursors)?;
            if undone.len() < limit {
                let scan = Scan {
                    after: after.max(read),
                    channels: Vec::new(),
                    limit: limit - undone.len(),
                    bytes: READ_AHEAD_BYTES,
                    looked_at: PASSED_AT_ONCE,
                };
                let found = read::scan(view, &scan, &filter)?.scanned.entries;
                undone.extend(found.into_iter().map(|entry| Undone {
                    entry,
                    failures: Vec::new(),
                    is_leased: false,
                }));
            }
            Ok(undone)
        })
        .await
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
}

impl Embedded {
    /// Reads entries that a group has open.
    async fn restore(&self, group: &str, cursors: Vec<u64>) -> Result<(), LogError> {
        let found = self
            .reading(move |view, _| {
                let mut blocks = read::Blocks::default();
                cursors
                    .into_iter()
                    .map(|cursor| Ok((cursor, blocks.entry(view, cursor)?)))
                    .collect::<fjall::Result<Vec<_>>>()
            })
            .await?;
        self.group(group, |state| {
            for (cursor, entry) in found {
                state.restore(cursor, entry);
            }
        })
    }

    /// What waits on the disk can be read there.
    pub(super) fn write_parked(&self) -> Result<(), LogError> {
        self.step();
        let mut inner = self.inner.borrow_mut();
        if inner.core.is_none() {
            return Err(inner.unavailable());
        }
        if inner.groups.values().any(|state| state.parked().is_dirty()) {
            if let Err(broken) = inner.write_groups(false) {
                inner.fail(&broken);
                return Err(inner.unavailable());
            }
            inner.unsynced = inner.unsynced.or_else(|| Some(monotonic()));
        }
        Ok(())
    }

    /// A group has changed: whoever follows the log writes it when it is time.
    fn mark_changed(&self) {
        if self.inner.borrow_mut().mark_dirty() {
            self.changed.notify_waiters();
        }
    }
}

/// Log time; the wall clock's while the log is down.
fn log_ms(core: &mut Option<Core>) -> u64 {
    core.as_mut()
        .map_or_else(wall_ms, |core| core.clock.now_ms())
}

/// How many of the group's entries nobody has looked at, and when the oldest that is not in memory was taken in.
fn lag_on_disk(
    view: &View,
    scanned: u64,
    filter: &read::Filter,
    missing: Option<u64>,
) -> fjall::Result<(u64, Option<u64>)> {
    let (wanted, counted_to) = match filter.wants_all() && view.is_whole() {
        true => (0, scanned),
        false => read::count(view, scanned, filter, BLOCKS_PER_LAG)?,
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
                looked_at: PASSED_AT_ONCE,
            };
            read::scan(view, &scan, filter)?.scanned.entries.pop()
        }
    };
    Ok((unread, oldest.map(|entry| entry.record.unix_ms)))
}

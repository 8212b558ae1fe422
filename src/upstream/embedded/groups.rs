//! The queue groups of the embedded log: what is asked of them. What one group has and knows is its state.

mod state;

use std::sync::Arc;

use super::core::Broken;
use super::segments::View;
use super::store::Store;
use super::{Embedded, PASSED_AT_ONCE, TEND_PAUSE, check_name, error, read};
use crate::limits::GROUPS_STORED_MAX;
use crate::mesh::durable::LogError;
use crate::upstream::log::{Group, Groups, Lag, Lease, Leased, Scan, Settled};

pub use state::{Next, Recent, State, load, stored_group};

/// Blocks that are looked at to say how far behind a group is.
const BLOCKS_PER_LAG: usize = 256;

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
                Next::Take(leased) => return Ok(leased),
                Next::Scan(after) => {
                    let scanned = self.scan_for(after, filter).await?;
                    self.group(group, |state| {
                        if state.refills == refills {
                            state.refill(scanned.entries, scanned.next);
                        }
                    })?;
                }
                Next::Load(cursors) => {
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
                Next::Wait => {
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

//! The state of the embedded log, up or down.

mod ends;
mod forget;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::OwnedWriteBatch;
use tokio::sync::oneshot;

use super::buried;
use super::clock::{LogClock, monotonic, wall_ms};
use super::core::{Broken, Core};
use super::error::{self, OpenError};
use super::groups::{Recent, State};
use super::read;
use super::segments::View;
use super::store::{Directory, Store};
use super::tail::Tail;
use crate::config::durable::Durable;
use crate::mesh::durable::{Appended, LogError};
use crate::metrics::Histogram;
use crate::model::{Draft, Entry};
use crate::upstream::log::{Announce, Census, DeadLetter, Lease};

pub use forget::Sweeper;

/// Between two attempts to open a log that has failed; what publishers are told to wait.
pub const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// What was settled is written after so long, unless an append takes it along.
pub const GROUPS_PAUSE: Duration = Duration::from_millis(50);
/// And is on the disk after so much more.
const SYNC_PAUSE: Duration = Duration::from_millis(150);

/// Groups whose losses are counted exactly in one step, and blocks that are looked at for each.
const LOST_LOOKS_PER_STEP: usize = 8;
const LOST_BLOCKS_PER_LOOK: usize = 64;

/// Everything that changes.
pub struct Inner {
    /// `None` while it is down.
    pub core: Option<Core>,
    pub down: Option<Down>,
    pub tail: Tail,
    /// The next call of `tail` says that the place is lost.
    pub is_lost: bool,
    pub recent: Recent,
    pub groups: BTreeMap<Box<str>, State>,
    pub tended: Instant,
    /// Since when a group has unwritten changes, and written ones that the disk may not have.
    pub dirty: Option<Instant>,
    pub unsynced: Option<Instant>,
    pub sweeper: Sweeper,
    /// Blocks and letters that could not be read.
    pub damaged: u64,
    /// Dead letters when it was open last.
    pub letters: Census,
    /// What announces a letter that the log makes by itself.
    pub announce: Option<Announce>,
    /// How much later than their time publications were published.
    pub late: Histogram,
    pub bytes: u64,
    pub entries: u64,
    pub end: u64,
}

/// Why nothing can be written, and what is done about it.
pub struct Down {
    pub reason: Box<str>,
    /// When to try next.
    pub next: Instant,
    /// The one before is gone when this has ended.
    pub gone: Option<oneshot::Receiver<()>>,
    /// Log time goes on meanwhile.
    pub clock: Option<LogClock>,
    /// Which log it was.
    pub log_id: Option<u128>,
    /// An attempt on its way.
    pub opening: Option<oneshot::Receiver<Result<Core, OpenError>>>,
    pub is_closed: bool,
}

impl Inner {
    pub fn unavailable(&self) -> LogError {
        let reason = self.down.as_ref().map(|down| down.reason.clone());
        LogError::Unavailable {
            reason: reason.unwrap_or_default(),
            retry_after: REOPEN_PAUSE,
        }
    }

    /// The store cannot be written any more.
    pub fn fail(&mut self, broken: &Broken) {
        let core = self.core.take();
        self.sweeper.abandon();
        let clock = core.as_ref().map(|core| core.clock.clone());
        if let Some(core) = &core {
            self.letters.clone_from(&core.letters);
        }
        let log_id = core.as_ref().map(|core| core.log_id);
        let (gone, is_gone) = oneshot::channel();
        // The library waits for its threads when it is dropped.
        tokio::task::spawn_blocking(move || {
            drop(core);
            let _ = gone.send(());
        });
        self.down = Some(Down {
            reason: broken.0.as_str().into(),
            next: monotonic(),
            gone: Some(is_gone),
            clock,
            log_id,
            opening: None,
            is_closed: false,
        });
    }

    /// Tries to open the store again. `true` once it is open.
    pub fn reopen(&mut self, directory: &Directory, config: &Durable, now: Instant) -> bool {
        let Some(down) = &mut self.down else {
            return false;
        };
        if let Some(opening) = &mut down.opening {
            let result = match opening.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return false,
                Err(oneshot::error::TryRecvError::Closed) => {
                    Err("the storage library gave up".to_owned())
                }
                Ok(result) => result.map_err(|error| error.to_string()),
            };
            down.opening = None;
            match result.and_then(|core| self.adopt(core)) {
                Ok(()) => return true,
                Err(reason) => {
                    if let Some(down) = &mut self.down {
                        down.reason = reason.into();
                    }
                }
            }
            return false;
        }
        let is_there = down
            .gone
            .as_mut()
            .is_some_and(|gone| gone.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        if down.is_closed || is_there || now < down.next {
            return false;
        }
        down.next = now + REOPEN_PAUSE;
        // Nothing is written where another log may be.
        if let Err(reason) = directory.look() {
            down.reason = reason.into();
            return false;
        }
        let (done, opening) = oneshot::channel();
        down.opening = Some(opening);
        let (location, config) = (directory.location().clone(), config.clone());
        tokio::task::spawn_blocking(move || {
            let opened = Directory::probe(&location)
                .and_then(|()| Directory::rewrite_journals(&location))
                .map_err(|error| OpenError::of_io(location.path(), &error))
                .and_then(|()| Core::open(&location, &config));
            let _ = done.send(opened);
        });
        false
    }

    /// Goes on with a store that was opened again.
    pub fn adopt(&mut self, mut core: Core) -> Result<(), String> {
        let known = self.down.as_ref().and_then(|down| down.log_id);
        if known.is_some_and(|known| known != core.log_id) {
            return Err("another log is in its place: restart to use that one".to_owned());
        }
        for state in self.groups.values_mut() {
            state
                .renew(&core.store, core.end)
                .map_err(|error| error::words(&error))?;
        }
        self.dirty = Some(monotonic());
        self.recent.start(core.end);
        self.is_lost |= !self.tail.resume(core.segments.first(core.end), core.end);
        self.end = core.end;
        if let Some(clock) = self.down.take().and_then(|down| down.clock) {
            core.clock = clock;
        }
        self.core = Some(core);
        self.tell_rules();
        Ok(())
    }

    /// A group has unwritten changes. `true` if none had any before.
    pub fn mark_dirty(&mut self) -> bool {
        let is_first = self.dirty.is_none();
        self.dirty = self.dirty.or_else(|| Some(monotonic()));
        is_first
    }

    pub fn write_groups_if_due(&mut self, now: Instant) -> Result<(), Broken> {
        let is_due = |since: Option<Instant>, pause: Duration| {
            since.is_some_and(|since| now.duration_since(since) >= pause)
        };
        if is_due(self.dirty, GROUPS_PAUSE) {
            self.write_groups(false)?;
            self.unsynced = self.unsynced.or(Some(now));
        }
        if is_due(self.unsynced, SYNC_PAUSE) {
            self.unsynced = None;
            if let Some(core) = &self.core {
                core.store.sync().map_err(Broken)?;
            }
        }
        Ok(())
    }

    pub fn write_groups(&mut self, durable: bool) -> Result<(), Broken> {
        self.dirty = None;
        let Some(core) = &self.core else {
            return Ok(());
        };
        let mut batch = core.store.batch();
        for state in self.groups.values_mut() {
            state.write(&mut batch, &core.store);
        }
        Store::commit(batch, durable).map_err(Broken)
    }

    pub fn tend(&mut self) -> Result<(), Broken> {
        let Some(core) = &mut self.core else {
            return Ok(());
        };
        let before = core.view();
        let dropped = core.tend()?;
        let first = core.segments.first(core.end);
        if !dropped.is_empty() {
            let db = core.store.db.clone();
            // Many files may go.
            tokio::task::spawn_blocking(move || {
                for keyspace in dropped {
                    // What stays is dropped after the next start.
                    let _ = db.delete_keyspace(keyspace);
                }
            });
        }
        self.bytes = core.store.db.disk_space()?;
        self.entries = (core.end + 1 - first).saturating_sub(core.freed_entries());
        let mut looks = LOST_LOOKS_PER_STEP;
        for state in self.groups.values_mut() {
            let unread = unread_before(&before, state, first, &mut looks)?;
            state.expire(first, unread);
        }
        if self.groups.values().any(State::is_dirty) {
            self.mark_dirty();
        }
        Ok(())
    }

    pub fn append(&mut self, batch: Vec<Draft>) -> Result<Vec<Appended>, Broken> {
        self.store(batch, |_, _| {})
    }

    /// Appends, and stores what groups have changed and whatever `more` adds with the same stroke.
    fn store(
        &mut self,
        batch: Vec<Draft>,
        more: impl FnOnce(&mut OwnedWriteBatch, &Store),
    ) -> Result<Vec<Appended>, Broken> {
        let Some(core) = &mut self.core else {
            return Err(Broken(String::new()));
        };
        let groups = &mut self.groups;
        // Many groups are idle.
        let is_any_dirty = self.dirty.is_some();
        let (results, entries) = core.append(batch, |batch, store| {
            for state in groups.values_mut().filter(|_| is_any_dirty) {
                state.write(batch, store);
            }
            more(batch, store);
        })?;
        let end = core.end;
        self.stored(end, entries);
        Ok(results)
    }

    /// Makes entries of publications whose time has come, some at a time. `true` if there were any.
    pub fn publish_due(&mut self, now_ms: u64) -> Result<bool, Broken> {
        let Some(core) = &mut self.core else {
            return Ok(false);
        };
        if core.later.first_ms().is_none_or(|first| first > now_ms) {
            return Ok(false);
        }
        let groups = &mut self.groups;
        let published = core.publish_due(now_ms, |batch, store| {
            for state in groups.values_mut() {
                state.write(batch, store);
            }
        })?;
        if published.due_ms.is_empty() && published.damaged == 0 {
            // What was looked for is not there; nothing was stored.
            return Ok(true);
        }
        let end = core.end;
        self.damaged += published.damaged;
        self.stored(end, published.entries);
        let now_ms = wall_ms();
        for due_ms in published.due_ms {
            let late = Duration::from_millis(now_ms.saturating_sub(due_ms));
            self.late
                .record(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(true)
    }

    /// Entries were stored, and all that groups had to say.
    fn stored(&mut self, end: u64, entries: Vec<Arc<Entry>>) {
        (self.dirty, self.unsynced) = (None, None);
        self.end = end;
        if self.groups.is_empty() {
            self.recent.start(self.end);
        } else {
            entries.iter().for_each(|entry| self.recent.push(entry));
        }
        self.tail.push(entries);
    }

    /// See `Letters::give_up`. What fails is as if it had not been asked for: the entry stays leased.
    pub fn give_up(
        &mut self,
        lease: Lease,
        letter: &DeadLetter,
        obituary: Option<Draft>,
    ) -> Result<(), Broken> {
        let Some(core) = &self.core else {
            return Err(Broken(String::new()));
        };
        let before = buried::stored(&core.store, &letter.group, letter.entry.record.event)?;
        let state = self.groups.get_mut(&letter.group);
        let open = state.and_then(|state| state.take_out(lease));
        let stored = self.store(obituary.into_iter().collect(), |batch, store| {
            buried::write(batch, store, before.as_ref(), letter);
        });
        match stored {
            Ok(_) => {
                if let Some(core) = &mut self.core {
                    buried::count(&mut core.letters, before.as_ref(), letter);
                }
                Ok(())
            }
            Err(broken) => {
                let state = self.groups.get_mut(&letter.group);
                if let (Some(state), Some(open)) = (state, open) {
                    state.put_back(lease, open);
                }
                Err(broken)
            }
        }
    }
}

/// How many entries of a group that nobody has looked at are before `first`. Where too many would have to be looked at, they
/// count as the group's.
fn unread_before(
    before: &View,
    state: &State,
    first: u64,
    looks: &mut usize,
) -> fjall::Result<u64> {
    let (after, end) = (state.scanned(), first.saturating_sub(1));
    if after >= end {
        return Ok(0);
    }
    if state.filter.wants_all() && before.is_whole() || *looks == 0 {
        return Ok(end - after);
    }
    *looks -= 1;
    let part = View {
        end,
        ..before.clone()
    };
    let (wanted, counted_to) = read::count(&part, after, &state.filter, LOST_BLOCKS_PER_LOOK)?;
    Ok(wanted + end.saturating_sub(counted_to))
}

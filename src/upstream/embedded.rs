//! The embedded log: in one directory of this machine, on the storage library `fjall`.
//!
//! Everything that is appended at once is one batch of the library and one sync of its journal. Records of a channel go
//! into blocks, blocks and their index into segments, which are forgotten as a whole. A failed write makes the log
//! unavailable; it is then opened again, in place, until that works.

mod block;
mod buried;
mod bytes;
mod channels;
mod clock;
mod copy;
mod core;
mod ends;
mod error;
mod floors;
mod groups;
mod inner;
mod journal;
mod keys;
mod later;
mod letters;
pub mod look;
mod read;
mod rebuild;
mod scheduled;
mod segments;
mod store;
mod sweep;
mod tail;
mod values;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use fjall::Readable as _;
use tokio::sync::Notify;

pub use self::error::OpenError;
pub use self::look::TRIMS;
pub use self::rebuild::{Rebuild, RestoreError, compact};

use self::channels::Row;
use self::clock::{monotonic, wall_ms};
use self::core::{Broken, Core};
use self::floors::Rules;
use self::groups::{Recent, State};
use self::inner::{GROUPS_PAUSE, Inner, REOPEN_PAUSE, Sweeper};
use self::segments::View;
use self::store::{Directory, Store};
use self::tail::Tail;
use super::log::{Entries, Forgotten, Log, Scan, Scanned, Schedule, Slice, Status};
use crate::config::Config;
use crate::config::durable::Durable;
use crate::limits::{LOG_NAME_BYTES_MAX, LOG_RECORD_BYTES_MAX};
use crate::mesh::durable::{Appended, LogError, Read, Span};
use crate::metrics::Histogram;
use crate::model::{ChannelName, Draft, Entry};

/// Between two looks at what expires.
const TEND_PAUSE: Duration = Duration::from_secs(1);
/// While something is looked for that namespaces do not keep.
const SWEPT_PAUSE: Duration = Duration::from_millis(10);
/// Format of the files that this version writes; it reads this and all before it.
const FORMAT: u32 = 1;
/// Blocks that are looked at to count what an order takes from groups.
const BLOCKS_PER_TRIM: usize = 4096;
/// The same where they are read for letters, in one step: more than a log has segments.
const BLOCKS_PER_BURIAL: usize = 128;
/// Entries and bytes that are read ahead for a group, or for whoever follows the log.
const READ_AHEAD: usize = 4096;
const READ_AHEAD_BYTES: usize = 8 << 20;
/// Entries of others that are passed over at once while reading ahead.
const PASSED_AT_ONCE: usize = 1 << 16;

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
        let path = &config.embedded.directory;
        let is_new = !Directory::has_data(path);
        if is_new && !config.embedded.create && !path.join(store::UNFINISHED).exists() {
            return Err(OpenError::Missing {
                directory: path.clone(),
            });
        }
        let directory = Directory::claim(path)?;
        if directory.path().join(store::UNFINISHED).exists() {
            return Err(OpenError::Unfinished {
                directory: directory.path().to_owned(),
            });
        }
        let core = Core::open(directory.location(), config)?;
        let groups = groups::load(&core.store)
            .map_err(|error| OpenError::of_fjall(directory.path(), &error))?;
        let mut recent = Recent::default();
        recent.start(core.end);
        let bytes = core.store.db.disk_space().unwrap_or(0);
        let entries =
            (core.end + 1 - core.segments.first(core.end)).saturating_sub(core.freed_entries());
        tracing::info!(
            engine = "embedded",
            directory = %directory.path().display(),
            is_new,
            entries,
            bytes,
            oldest_unix_s = core.segments.oldest_ms().map(|ms| ms / 1000),
            log = %format_args!("{:032x}", core.log_id),
            line = core.known_line(),
            "the durable log is open"
        );
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
                sweeper: Sweeper::new(monotonic()),
                damaged: 0,
                letters: core.letters.clone(),
                late: Histogram::default(),
                announce: None,
                bytes,
                entries,
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
            if inner.reopen(&self.directory, &self.config, now) {
                self.changed.notify_waiters();
            }
            return;
        }
        let result = inner.write_groups_if_due(now).and_then(|()| {
            if now.duration_since(inner.tended) >= TEND_PAUSE {
                inner.tended = now;
                self.directory.look().map_err(Broken)?;
                inner.tend()?;
            }
            if inner.sweep_if_due(now)? {
                self.changed.notify_waiters();
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
        let pause = if inner.dirty.is_some() || inner.unsynced.is_some() || inner.core.is_none() {
            GROUPS_PAUSE
        } else if inner.sweeper.is_busy() {
            SWEPT_PAUSE
        } else {
            let ends = inner.core.as_ref().and_then(|core| core.ends.first_ms());
            let ends = ends.map(|at| Duration::from_millis(at.saturating_sub(wall_ms())));
            let sweeps = inner.sweeper.pause(monotonic(), ends);
            sweeps.map_or(TEND_PAUSE, |pause| pause.max(SWEPT_PAUSE))
        };
        // The machine's clock may be set meanwhile: it is looked at again soon enough.
        let due = inner.core.as_ref().and_then(|core| core.later.first_ms());
        due.map_or(pause, |due| {
            pause.min(Duration::from_millis(due.saturating_sub(wall_ms())))
        })
    }

    /// Publishes what is due, some at a time. Called by whoever follows the log alone: publishers go on in between.
    fn publish_due(&self) {
        let mut inner = self.inner.borrow_mut();
        match inner.publish_due(wall_ms()) {
            Ok(true) => self.changed.notify_waiters(),
            Ok(false) => {}
            Err(broken) => inner.fail(&broken),
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

    /// For groups, and for whoever follows the log: with what has ended and is not forgotten yet.
    async fn scan_for(&self, after: u64, filter: Arc<read::Filter>) -> Result<Scanned, LogError> {
        let scan = Scan {
            after,
            channels: Vec::new(),
            limit: READ_AHEAD,
            bytes: READ_AHEAD_BYTES,
            looked_at: PASSED_AT_ONCE,
        };
        self.scan_with(scan, filter, View::with_ended).await
    }

    async fn scan_with(
        &self,
        scan: Scan,
        filter: Arc<read::Filter>,
        what: fn(View) -> View,
    ) -> Result<Scanned, LogError> {
        let found = self
            .reading(move |view, _| read::scan(&what(view.clone()), &scan, &filter))
            .await?;
        self.inner.borrow_mut().damaged += found.damaged;
        Ok(found.scanned)
    }

    /// What groups have not done of a channel becomes letters where its namespace says so, up to the offset that is given.
    async fn give_up_channel(&self, channel: &ChannelName) -> Result<Option<u64>, LogError> {
        let top = self.with(|core| core.row_of(channel))?.map(|row| row.top);
        let (Some(top), true) = (top, self.inner.borrow().makes_letters(channel)) else {
            return Ok(None);
        };
        // What somebody else is about to forget would be lost twice.
        while !self.inner.borrow_mut().sweeper.hold() {
            tokio::time::sleep(SWEPT_PAUSE).await;
            self.step();
        }
        let _held = Held(self);
        loop {
            let found = self.with(|core| Ok((core.view(), core.row_of(channel)?)))?;
            let (view, Some(mut row)) = found else {
                return Ok(Some(top));
            };
            row.trimmed = top;
            let name = channel.clone();
            let search = move || sweep::sweep_channel(&view, name, &row, BLOCKS_PER_BURIAL);
            let swept = match tokio::task::spawn_blocking(search).await {
                Ok(Ok(swept)) => swept,
                Ok(Err(error)) => return Err(unreadable(&error::words(&error))),
                Err(_) => return Err(unreadable("the storage library gave up")),
            };
            let is_behind = swept.is_behind;
            let mut inner = self.inner.borrow_mut();
            if let Err(broken) = inner.forget(swept) {
                inner.fail(&broken);
                return Err(inner.unavailable());
            }
            self.changed.notify_waiters();
            if !is_behind {
                return Ok(Some(top));
            }
        }
    }

    /// Groups that take from the channel and are not at the end, and where they have looked up to.
    fn behind(&self, channel: &ChannelName) -> Vec<(Box<str>, u64, u64)> {
        let inner = self.inner.borrow();
        let takes =
            |state: &State| state.filter.wants(channel.whole()) && state.scanned() < inner.end;
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
        let filter = read::Filter::of_scan(&[channel.whole().into()]);
        let blocks = (BLOCKS_PER_TRIM / behind.len()).max(1);
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

/// While it is there, only whoever has it forgets anything.
struct Held<'a>(&'a Embedded);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.inner.borrow_mut().sweeper.let_go();
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
    let name = draft.record.channel.whole();
    let says = if name.is_empty() || name.len() > LOG_NAME_BYTES_MAX {
        "the channel's name is empty or too long"
    } else if draft.record.bytes() > LOG_RECORD_BYTES_MAX {
        "the publication is too large"
    } else {
        return None;
    };
    Some(LogError::Refused(says.into()))
}

/// No more may wait for their time.
fn too_many_wait(room: u64) -> LogError {
    let says =
        format!("{room} publications wait for their time, as many as durable.scheduled_max allows");
    LogError::Full(says.into())
}

fn check_name(name: &str) -> Result<(), LogError> {
    if name.is_empty() || name.len() > LOG_NAME_BYTES_MAX || name.contains('\0') {
        return Err(LogError::BadRequest(
            "the group's name is empty, too long or holds a zero byte".into(),
        ));
    }
    Ok(())
}

impl Entries for Embedded {
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
            schedule: Schedule {
                pending: inner.core.as_ref().map_or(0, |core| core.later.count()),
                next_ms: inner.core.as_ref().and_then(|core| core.later.first_ms()),
                late: inner.late.clone(),
            },
            expiries: inner.sweeper.expiries(),
            orphaned_leases: 0,
        }
    }

    async fn append(&self, batch: Vec<Draft>) -> Vec<Result<Appended, LogError>> {
        self.step();
        let mut inner = self.inner.borrow_mut();
        if inner.core.is_none() {
            let error = inner.unavailable();
            return batch.iter().map(|_| Err(error.clone())).collect();
        }
        let room = self.config.scheduled_max;
        let mut waiting = inner.core.as_ref().map_or(0, |core| core.later.count());
        let refusal = |draft: &Draft| {
            waiting += u64::from(draft.due_ms > 0);
            let is_full = draft.due_ms > 0 && waiting > room;
            refusal(draft).or_else(|| is_full.then(|| too_many_wait(room)))
        };
        let mut refused: Vec<Option<LogError>> = batch.iter().map(refusal).collect();
        let mut kept = batch;
        let mut places = refused.iter();
        kept.retain(|_| places.next().is_some_and(Option::is_none));
        // What was written to a directory that is nowhere any more is lost with this process.
        let appended = inner
            .append(kept)
            .and_then(|results| self.directory.look().map(|()| results).map_err(Broken));
        match appended {
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
            self.publish_due();
            let changed = self.changed.notified();
            let next = {
                let mut inner = self.inner.borrow_mut();
                if std::mem::take(&mut inner.is_lost) {
                    return Err(unreadable(
                        "the durable log was opened again and is another one",
                    ));
                }
                if inner.sweeper.has_forgotten() {
                    return Ok(Vec::new());
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

    fn take_forgotten(&self) -> Vec<(ChannelName, Forgotten)> {
        self.inner.borrow_mut().sweeper.take_forgotten()
    }

    async fn read(&self, read: &Read) -> Result<Slice, LogError> {
        let (known, nowhere) =
            self.with(|core| Ok((core.known(&read.channel), core.nowhere(&read.channel))))?;
        let is_short = |row: &Row| read.after.is_none_or(|after| after >= row.top);
        let after = read.after.unwrap_or(0);
        if let Some(row) = known.as_ref().filter(|row| is_short(row)) {
            return Ok(Slice {
                position: row.position(),
                entries: Vec::new(),
                span: Span::behind(after, after),
            });
        }
        let wanted = read.clone();
        let (row, mut part) = self
            .reading(move |view, store| {
                let name = wanted.channel.whole();
                let value = match name.is_empty() {
                    true => None,
                    false => view.snapshot.get(&store.channels, name)?,
                };
                let Some(row) = value.and_then(|value| Row::decode(&value).ok()) else {
                    let span = Span::behind(after, after);
                    return Ok((
                        None,
                        read::Part {
                            span,
                            ..read::Part::default()
                        },
                    ));
                };
                let part = read::channel(view, &row, &wanted)?;
                Ok((Some(row), part))
            })
            .await?;
        self.inner.borrow_mut().damaged += part.damaged;
        // What was appended meanwhile may have been given by `tail` already, so the position must not be behind it.
        let newer = self.with(|core| {
            let Some(newer) = core.known(&read.channel) else {
                return Ok(row);
            };
            let top = row.as_ref().map_or(0, |row| row.top);
            let to = part.span.to;
            if read.after.is_some() && newer.top > top && to >= top {
                let entries = &part.entries;
                let bytes: usize = entries.iter().map(|entry| entry.record.bytes()).sum();
                let rest = Read {
                    channel: read.channel.clone(),
                    after: Some(to),
                    limit: read.limit.saturating_sub(entries.len() as u32),
                    bytes: read
                        .bytes
                        .saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX)),
                };
                // It is in memory still.
                if entries.is_empty() || rest.bytes > 0 {
                    let more = read::channel(&core.view(), &newer, &rest)?;
                    if part.entries.is_empty() && part.span.to < part.span.from {
                        part.span = more.span;
                        part.entries = more.entries;
                    } else if more.span.from == to + 1 {
                        part.span.to = part.span.to.max(more.span.to);
                        part.entries.extend(more.entries);
                    }
                }
            }
            Ok(Some(newer))
        })?;
        Ok(Slice {
            position: newer.map_or(nowhere, |row| row.position()),
            entries: part.entries,
            span: part.span,
        })
    }

    async fn scan(&self, scan: &Scan) -> Result<Scanned, LogError> {
        let filter = Arc::new(read::Filter::of_scan(&scan.channels));
        self.scan_with(scan.clone(), filter, |view| view).await
    }

    async fn seek(&self, unix_ms: u64) -> Result<u64, LogError> {
        self.reading(move |view, _| read::seek(view, unix_ms)).await
    }

    async fn trim(&self, channel: &ChannelName) -> Result<(), LogError> {
        if let Some(up_to) = self.give_up_channel(channel).await? {
            return self.with(|core| core.trim(channel, up_to)).map(drop);
        }
        // What is appended while losses are counted stays.
        let (view, kept) = self.with(|core| {
            let view = core.view();
            Ok((view, core.trim(channel, u64::MAX)?))
        })?;
        let behind = self.behind(channel);
        {
            let mut inner = self.inner.borrow_mut();
            let is_its = |entry: &Entry| entry.record.channel == *channel;
            inner.recent.forget(is_its);
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
}

impl Log for Embedded {
    fn reload(&self, config: &Config) {
        let mut inner = self.inner.borrow_mut();
        inner.obey(Rules::new(config), monotonic());
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

fn bytes_of(value: fjall::UserValue) -> ::bytes::Bytes {
    ::bytes::Bytes::from_owner(value)
}

#[cfg(test)]
mod tests;

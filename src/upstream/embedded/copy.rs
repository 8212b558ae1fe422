//! The embedded log copied while it is used: blocks as they are stored, in rounds, until little is left; then the rest and all that
//! is small, as it was at one moment.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{Keyspace, Readable as _, Snapshot};
use tokio::sync::mpsc;

use super::clock::{monotonic, wall_ms};
use super::look::TRIMS;
use super::segments::View;
use super::store::{SCHEDULED, Store};
use super::{Embedded, bytes_of, error, look, read, unreadable};
use crate::mesh::durable::LogError;
use crate::upstream::copy::{End, Frame, MAGIC, Rows, Start};
use crate::upstream::log::{Copies, Wanted};

/// Bytes of rows that are one frame.
const FRAME_BYTES: usize = 1 << 20;
/// A round with fewer entries is followed by the last one.
const ENTRIES_LEFT: u64 = 4096;
/// Rounds before the last one, however much comes meanwhile.
const ROUNDS_AT_ONCE: usize = 8;
/// Between two looks whether anybody still takes what is given.
const PAUSE: Duration = Duration::from_millis(100);
impl Copies for Embedded {
    async fn copy(&self, wanted: Wanted, out: mpsc::Sender<Bytes>) -> Result<(), LogError> {
        let line = self.with(|core| core.line())?;
        let trims = self.with(|core| Ok(core.view().trims))?;
        let mut sink = Sink::new(out, wanted.rate);
        let start = Start {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            line,
            after: wanted.after,
        };
        let mut after = wanted.after;
        let mut is_open = tokio::task::spawn_blocking(move || {
            let _ = sink.give(Bytes::from_static(MAGIC));
            let _ = sink.give(Frame::Start(start).encode());
            for (id, offset) in trims.iter() {
                let row = (id.to_be_bytes().to_vec(), offset.to_be_bytes().to_vec());
                sink.row(TRIMS, row.0.into(), row.1.into());
            }
            sink.cut();
            sink
        })
        .await
        .map_err(|_| gave_up())?;
        let mut damaged = 0;
        for round in 0..=ROUNDS_AT_ONCE {
            // What was settled so far is in the copy, too.
            let (view, store, keys) = self.settled()?;
            let unix_ms = wall_ms();
            let is_last = round == ROUNDS_AT_ONCE || view.end.saturating_sub(after) < ENTRIES_LEFT;
            let (first, end) = (view.segments.iter().find(|s| !s.is_empty()), view.end);
            let first = first.map_or(end + 1, |segment| segment.first);
            let mut sink = is_open;
            let part = tokio::task::spawn_blocking(move || -> fjall::Result<(Sink, u64)> {
                let mut damaged = entries(&view, after, &mut sink)?;
                if is_last {
                    sink.rate = 0;
                    damaged += rest(&view.snapshot, &store, &keys, &mut sink)?;
                }
                Ok((sink, damaged))
            });
            let part = part.await.map_err(|_| gave_up())?;
            let (sink, unread) = part.map_err(|error| unreadable(&error::words(&error)))?;
            (is_open, after, damaged) = (sink, end.max(after), damaged + unread);
            if is_last {
                let last = Frame::End(End {
                    first,
                    end,
                    unix_ms,
                    damaged,
                });
                let _ = is_open.out.send(last.encode()).await;
                break;
            }
        }
        Ok(())
    }
}

impl Embedded {
    /// The log as it is now, with all that was settled, and where its keys are.
    #[allow(clippy::type_complexity)]
    fn settled(&self) -> Result<(View, Store, Vec<(Box<str>, Keyspace)>), LogError> {
        self.step();
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        if inner.core.is_none() {
            return Err(inner.unavailable());
        }
        if inner.dirty.is_some() {
            if let Err(broken) = inner.write_groups(false) {
                inner.fail(&broken);
                return Err(inner.unavailable());
            }
            inner.unsynced = inner.unsynced.or_else(|| Some(monotonic()));
        }
        let core = inner.core.as_ref().ok_or_else(gave_up)?;
        Ok((core.view(), core.store.clone(), core.keyspaces_of_keys()))
    }
}

fn gave_up() -> LogError {
    unreadable("the storage library gave up")
}

/// Blocks with entries behind `after`; gives how many cannot be read.
fn entries(view: &View, after: u64, sink: &mut Sink) -> fjall::Result<u64> {
    let mut damaged = 0;
    for segment in view.segments.iter() {
        if segment.is_empty() || segment.last.min(view.end) <= after {
            continue;
        }
        let name = segment.name();
        damaged += read::blocks(view, segment, after + 1, |cursor, value| {
            let key = Bytes::copy_from_slice(&cursor.to_be_bytes());
            let last = look::cursors_of(&key, &value).map_or(cursor, |(_, last)| last);
            if last <= after {
                return true;
            }
            sink.row(&name, key, bytes_of(value))
        })?;
        sink.cut();
        if sink.out.is_closed() {
            break;
        }
    }
    Ok(damaged)
}

/// Everything that is not a block or found again by the blocks.
fn rest(
    snapshot: &Snapshot,
    store: &Store,
    keys: &[(Box<str>, Keyspace)],
    sink: &mut Sink,
) -> fjall::Result<u64> {
    let own = [
        ("channels", &store.channels),
        ("state", &store.state),
        ("letters", &store.letters),
        (SCHEDULED, &store.scheduled),
    ];
    let keys = keys.iter().map(|(name, keyspace)| (&**name, keyspace));
    for (name, keyspace) in own.into_iter().chain(keys) {
        for guard in snapshot.iter(keyspace) {
            let (key, value) = guard.into_inner()?;
            if !sink.row(name, bytes_of(key), bytes_of(value)) {
                return Ok(0);
            }
        }
        sink.cut();
    }
    Ok(0)
}

/// Where frames go: it waits for who takes them, and no faster than is asked.
struct Sink {
    out: mpsc::Sender<Bytes>,
    rows: Rows,
    bytes: usize,
    /// Bytes a second at most; 0 for no limit.
    rate: u64,
    began: Instant,
    given: u64,
}

impl Sink {
    fn new(out: mpsc::Sender<Bytes>, rate: u64) -> Self {
        Self {
            out,
            rows: Rows::default(),
            bytes: 0,
            rate,
            began: monotonic(),
            given: 0,
        }
    }

    /// `false` where nobody takes anything any more.
    fn give(&mut self, bytes: Bytes) -> bool {
        self.given += bytes.len() as u64;
        if let Some(due_us) = (self.given * 1_000_000).checked_div(self.rate) {
            let due = Duration::from_micros(due_us);
            while let Some(early) = due.checked_sub(self.began.elapsed())
                && !self.out.is_closed()
            {
                std::thread::sleep(early.min(PAUSE));
            }
        }
        self.out.blocking_send(bytes).is_ok()
    }

    fn row(&mut self, keyspace: &str, key: Bytes, value: Bytes) -> bool {
        let is_open = *self.rows.keyspace == *keyspace || self.cut();
        if self.rows.rows.is_empty() {
            self.rows.keyspace = keyspace.into();
        }
        self.bytes += key.len() + value.len();
        self.rows.rows.push((key, value));
        if self.bytes >= FRAME_BYTES {
            return self.cut();
        }
        is_open
    }

    /// Gives what was gathered.
    fn cut(&mut self) -> bool {
        if self.rows.rows.is_empty() {
            return !self.out.is_closed();
        }
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        self.give(Frame::Rows(rows).encode())
    }
}

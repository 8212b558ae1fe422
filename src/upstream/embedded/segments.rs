//! Segments: stretches of the log that are forgotten as a whole, so that forgetting deletes files and nothing else.

use std::sync::Arc;
use std::time::Duration;

use fjall::{Database, Keyspace, Snapshot};
use hashbrown::HashMap;

use super::block::Head;
use super::floors::Floors;
use super::store;

/// Name of a keyspace of blocks, before the number of its segment.
pub const BLOCKS: &str = "blocks-";
/// The same of their index.
pub const INDEX: &str = "index-";
/// The share of the retention that one segment holds, by age and by bytes: what is kept too long.
const SHARE: u64 = 32;
/// Segments that are alive at most, each made of two keyspaces.
const SEGMENTS_ALIVE: usize = 2 * SHARE as usize;
/// Those that may be alive while some wait until it is known what groups lose with them: as many more as an outage may leave.
const SEGMENTS_WAITING: usize = SEGMENTS_ALIVE + SHARE as usize;
/// What they may hold beyond the retention meanwhile: this share of it, and so many bytes at least.
const WAITING_SHARE: u64 = 8;
const WAITING_BYTES: u64 = 4 << 20;
/// A segment with fewer bytes is not closed for its bytes.
const CLOSED_FROM_BYTES: u64 = 1 << 20;

/// A stretch of the log.
#[derive(Clone)]
pub struct Segment {
    number: u64,
    /// Cursor of the first entry → block.
    pub blocks: Keyspace,
    /// Channel's number and first offset → cursor of the block.
    pub index: Keyspace,
    /// Cursor of the first entry; 0 while there is none.
    pub first: u64,
    /// Cursor of the last entry.
    pub last: u64,
    /// Log time of the first and of the last commit.
    pub first_ms: u64,
    /// See `first_ms`.
    pub last_ms: u64,
    /// Bytes of its blocks.
    pub bytes: u64,
    /// Bytes and entries of those that were removed.
    pub freed: (u64, u64),
    /// Bytes of those that its files may hold yet.
    pub uncompacted: u64,
}

impl Segment {
    fn open(db: &Database, number: u64) -> fjall::Result<Self> {
        let mut segment = Self {
            number,
            blocks: db.keyspace(&format!("{BLOCKS}{number}"), store::blocks)?,
            index: db.keyspace(&format!("{INDEX}{number}"), store::rows)?,
            first: 0,
            last: 0,
            first_ms: 0,
            last_ms: 0,
            bytes: 0,
            freed: (0, 0),
            uncompacted: 0,
        };
        if let Some(guard) = segment.blocks.first_key_value() {
            let (key, value) = guard.into_inner()?;
            segment.first = cursor_of(&key);
            segment.first_ms = Head::read(&value).map_or(0, |head| head.log_ms);
        }
        if let Some(guard) = segment.blocks.last_key_value() {
            let (key, value) = guard.into_inner()?;
            segment.last = cursor_of(&key);
            if let Ok(head) = Head::read(&value) {
                segment.last += u64::from(head.count).saturating_sub(1);
                segment.last_ms = head.log_ms;
                segment.bytes = head.bytes_before + value.len() as u64;
            }
        }
        Ok(segment)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Name of the keyspace of its blocks.
    #[must_use]
    pub fn name(&self) -> Box<str> {
        format!("{BLOCKS}{}", self.number).into()
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first == 0
    }
}

/// How long and how much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// See `Durable::retention_age`.
    pub age: Duration,
    /// See `Durable::retention_bytes`.
    pub bytes: u64,
}

impl Retention {
    fn age_ms(self) -> u64 {
        u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX)
    }
}

/// All segments that are alive, oldest first. The last one is written.
pub struct Segments {
    list: Vec<Segment>,
    retention: Retention,
}

impl Segments {
    /// Those of the store; the first one is made.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn open(db: &Database, retention: Retention) -> fjall::Result<Self> {
        let mut numbers: Vec<u64> = db
            .list_keyspace_names()
            .iter()
            .filter_map(|name| name.strip_prefix(BLOCKS)?.parse().ok())
            .collect();
        numbers.sort_unstable();
        if numbers.is_empty() {
            numbers.push(1);
        }
        let list = numbers
            .into_iter()
            .map(|number| Segment::open(db, number))
            .collect::<fjall::Result<_>>()?;
        Ok(Self { list, retention })
    }

    /// All, oldest first.
    #[must_use]
    pub fn list(&self) -> &[Segment] {
        &self.list
    }

    /// All, to be changed.
    pub fn list_mut(&mut self) -> &mut [Segment] {
        &mut self.list
    }

    /// One of them.
    pub fn find(&mut self, number: u64) -> Option<&mut Segment> {
        self.list
            .iter_mut()
            .find(|segment| segment.number == number)
    }

    /// The one that is written.
    pub fn active(&mut self) -> &mut Segment {
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// Cursor of the oldest entry; of the next one if there is none.
    #[must_use]
    pub fn first(&self, end: u64) -> u64 {
        self.list
            .iter()
            .find(|segment| !segment.is_empty())
            .map_or(end + 1, |segment| segment.first)
    }

    /// Log time of the oldest entry.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        let first = self.list.iter().find(|segment| !segment.is_empty());
        first.map(|segment| segment.first_ms)
    }

    /// Opens a new segment if the one that is written holds its share.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn roll(&mut self, db: &Database, now_ms: u64) -> fjall::Result<()> {
        let retention = self.retention;
        let active = self.active();
        if active.is_empty() {
            return Ok(());
        }
        let is_old = now_ms.saturating_sub(active.first_ms) >= (retention.age_ms() / SHARE).max(1);
        let is_large =
            retention.bytes > 0 && active.bytes >= (retention.bytes / SHARE).max(CLOSED_FROM_BYTES);
        if !is_old && !is_large {
            return Ok(());
        }
        let number = active.number + 1;
        // What is complete goes into files, lest it keeps journals alive.
        let closed = active.clone();
        self.list.push(Segment::open(db, number)?);
        closed.blocks.rotate_memtable()?;
        closed.index.rotate_memtable()?;
        Ok(())
    }

    /// Cursor of the last entry of what is kept long enough, or is too much; 0 where nothing is.
    #[must_use]
    pub fn doomed(&self, now_ms: u64) -> u64 {
        let doomed = &self.list[..self.count_expired(now_ms, u64::MAX)];
        doomed.last().map_or(0, |segment| segment.last)
    }

    /// Takes out what is kept long enough, or is too much. The one that is written stays, and what is behind this cursor waits, as long
    /// as not too much does.
    pub fn expired(&mut self, now_ms: u64, up_to: u64) -> Vec<Segment> {
        let count = self.count_expired(now_ms, up_to);
        self.list.drain(..count).collect()
    }

    fn count_expired(&self, now_ms: u64, up_to: u64) -> usize {
        let age_ms = self.retention.age_ms();
        let most = self.retention.bytes;
        let most_waiting = most.saturating_add((most / WAITING_SHARE).max(WAITING_BYTES));
        let kept = |segment: &Segment| segment.bytes.saturating_sub(segment.freed.0);
        let mut bytes: u64 = self.list.iter().map(kept).sum();
        let mut count = 0;
        for segment in &self.list[..self.list.len() - 1] {
            let is_old = segment.last_ms.saturating_add(age_ms) <= now_ms;
            let is_much = most > 0 && bytes > most;
            let left = self.list.len() - count;
            if !is_old && !is_much && left <= SEGMENTS_ALIVE && !segment.is_empty() {
                break;
            }
            let may_wait = left <= SEGMENTS_WAITING && (most == 0 || bytes <= most_waiting);
            if may_wait && segment.last > up_to {
                break;
            }
            bytes -= kept(segment);
            count += 1;
        }
        count
    }
}

/// The log as it is at one moment, for whoever reads it elsewhere.
#[derive(Clone)]
pub struct View {
    /// Oldest first.
    pub segments: Arc<[Segment]>,
    /// Cursor of the last entry.
    pub end: u64,
    /// What the keyspaces held then.
    pub snapshot: Snapshot,
    /// Channel's number → its entries up to this offset are forgotten by order.
    pub trims: Arc<HashMap<u64, u64, foldhash::fast::FixedState>>,
    /// Where what namespaces keep begins.
    pub floors: Arc<Floors>,
    /// The wall clock, for what ends by itself; 0 gives that, too, until it is forgotten.
    pub now_ms: u64,
    /// Some blocks have holes.
    pub has_holes: bool,
}

impl View {
    /// With what has ended and is not forgotten yet: whoever works it off has lost it, and learns that when it is forgotten.
    #[must_use]
    pub fn with_ended(mut self) -> Self {
        self.now_ms = 0;
        self
    }

    /// Every entry in it is kept.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.trims.is_empty() && self.floors.is_empty() && !self.has_holes
    }
}

/// The cursor that is a block's key; 0 if it is none.
#[must_use]
pub fn cursor_of(key: &[u8]) -> u64 {
    key.try_into().map_or(0, u64::from_be_bytes)
}

/// Key in the index.
#[must_use]
pub fn index_key(channel_id: u64, offset: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&channel_id.to_be_bytes());
    out[8..].copy_from_slice(&offset.to_be_bytes());
    out
}

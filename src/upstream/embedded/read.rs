//! Reading: runs on a thread that may wait for the disk, with a view of the log of one moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Readable as _, UserValue};

use super::block::{self, Head};
use super::bytes::Damage;
use super::channels::Row;
use super::segments::{Segment, View, cursor_of, index_key};
use crate::config::glob_match;
use crate::config::namespace::{is_queue, leaves_out, queue_of};
use crate::mesh::durable::{Read, Span};
use crate::model::{Entry, TenantId};
use crate::upstream::log::{Scan, Scanned};

/// Cursors that are passed over at first where the library cannot go on, and how often before the step grows.
const SKIP_CURSORS: u64 = block::RECORDS_PER_BLOCK as u64;
const SKIPS_BEFORE_GROWTH: u64 = 64;
/// Blocks of a channel that are looked at for one part: of most of them everything may have ended.
const BLOCKS_PER_PART: usize = 4096;
/// Bytes of unpacked blocks that are kept while entries are read here and there, besides the block that was read last.
const UNPACKED_BYTES_KEPT: usize = 4 << 20;

/// Which channels somebody wants.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Whoever's it is.
    everything: bool,
    /// All channels of the tenant `default`.
    all: bool,
    names: BTreeSet<Box<str>>,
    globs: Vec<Box<str>>,
    /// Channels of queue groups are taken by name only, announcements of dead letters by patterns that begin as they do.
    hides_own: bool,
}

impl Filter {
    /// Names and globs; everything if there are none.
    #[must_use]
    pub fn of_scan(channels: &[Box<str>]) -> Self {
        let mut filter = Self::default();
        filter.add(channels);
        filter.everything = channels.is_empty();
        filter
    }

    /// Names and globs, and the group's own channel.
    #[must_use]
    pub fn of_group(group: &str, channels: &[Box<str>]) -> Self {
        let mut filter = Self {
            hides_own: true,
            ..Self::default()
        };
        filter.add(channels);
        filter.names.insert(queue_of(group).into());
        filter
    }

    fn add(&mut self, channels: &[Box<str>]) {
        for channel in channels {
            if &**channel == "*" {
                self.all = true;
            } else if channel.contains('*') {
                self.globs.push(channel.clone());
            } else {
                self.names.insert(channel.clone());
            }
        }
    }

    /// Whether it is wanted.
    #[must_use]
    pub fn wants(&self, channel: &str) -> bool {
        if self.hides_own && is_queue(channel) {
            return self.names.contains(channel);
        }
        let is_hidden = |glob: &str| match self.hides_own {
            true => leaves_out(glob, channel),
            false => TenantId::of(glob) != TenantId::of(channel),
        };
        let mut globs = self.globs.iter();
        self.everything
            || self.all && !is_hidden("*")
            || self.names.contains(channel)
            || globs.any(|glob| glob_match(glob, channel) && !is_hidden(glob))
    }

    /// Whether everything is wanted, that of tenants aside.
    #[must_use]
    pub fn wants_all(&self) -> bool {
        self.everything || self.all
    }
}

/// What a scan gave, and what it could not read.
pub struct Found {
    /// As asked.
    pub scanned: Scanned,
    /// Blocks that are damaged.
    pub damaged: u64,
}

/// A part of the whole log.
///
/// # Errors
///
/// The library's, where it is not for one block.
pub fn scan(view: &View, scan: &Scan, filter: &Filter) -> fjall::Result<Found> {
    let mut walk = Walk {
        view,
        scan,
        filter,
        entries: Vec::new(),
        next: scan.after,
        bytes: 0,
        looked_at: 0,
        damaged: 0,
        is_full: false,
    };
    for segment in view.segments.iter() {
        if walk.is_full {
            break;
        }
        if !segment.is_empty() && segment.last > walk.next {
            walk.segment(segment)?;
        }
    }
    let at_end = !walk.is_full || walk.next >= view.end;
    if !walk.is_full {
        walk.next = walk.next.max(view.end);
    }
    Ok(Found {
        scanned: Scanned {
            entries: walk.entries,
            next: walk.next,
            at_end,
        },
        damaged: walk.damaged,
    })
}

/// A scan on its way.
struct Walk<'a> {
    view: &'a View,
    scan: &'a Scan,
    filter: &'a Filter,
    entries: Vec<Arc<Entry>>,
    next: u64,
    bytes: usize,
    looked_at: usize,
    damaged: u64,
    is_full: bool,
}

impl Walk<'_> {
    fn segment(&mut self, segment: &Segment) -> fjall::Result<()> {
        let damaged = blocks(self.view, segment, self.next + 1, |cursor, value| {
            self.block(cursor, value);
            !self.is_full
        })?;
        self.damaged += damaged;
        Ok(())
    }

    fn block(&mut self, cursor: u64, value: UserValue) {
        let Ok((channel, count)) = Head::peek(&value) else {
            self.damaged += 1;
            return;
        };
        let last = cursor + u64::from(count).saturating_sub(1);
        if last <= self.next {
            return;
        }
        if !self.filter.wants(channel) {
            self.looked_at += usize::from(count);
            self.next = last;
            self.is_full = self.looked_at >= self.scan.looked_at;
            return;
        }
        if last <= self.view.floors.of(channel) {
            self.looked_at += usize::from(count);
            self.next = last;
            self.is_full = self.looked_at >= self.scan.looked_at;
            return;
        }
        let trimmed = Head::place(&value)
            .and_then(|(id, _)| self.view.trims.get(&id).copied())
            .unwrap_or(0);
        let Ok(entries) = decode(cursor, value) else {
            self.damaged += 1;
            self.next = last;
            return;
        };
        for entry in entries {
            if entry.cursor <= self.next {
                continue;
            }
            self.looked_at += 1;
            let is_hidden =
                entry.position.offset.0 <= trimmed || entry.record.is_over(self.view.now_ms);
            if !is_hidden {
                let bytes = entry.record.bytes();
                if !self.entries.is_empty() && self.bytes + bytes > self.scan.bytes {
                    self.is_full = true;
                    return;
                }
                self.bytes += bytes;
            }
            self.next = entry.cursor;
            if !is_hidden {
                self.entries.push(entry);
            }
            if self.entries.len() >= self.scan.limit || self.looked_at >= self.scan.looked_at {
                self.is_full = true;
                return;
            }
        }
    }
}

/// Gives the blocks of a segment, from the one in which `from` is, until `each` says that it is enough; and how many cannot be
/// read.
///
/// # Errors
///
/// The library's, where it is not for one block.
pub fn blocks(
    view: &View,
    segment: &Segment,
    from: u64,
    mut each: impl FnMut(u64, UserValue) -> bool,
) -> fjall::Result<u64> {
    let mut start = block_at(view, segment, from).unwrap_or(segment.first);
    let (mut damaged, mut step) = (0, SKIP_CURSORS);
    'range: loop {
        let range = view.snapshot.range(&segment.blocks, start.to_be_bytes()..);
        for guard in range {
            let (key, value) = match guard.into_inner() {
                Ok(pair) => pair,
                Err(error) if is_damage(&error) => {
                    damaged += 1;
                    if damaged > SKIPS_BEFORE_GROWTH {
                        step = step.saturating_mul(2);
                    }
                    start = start.saturating_add(step);
                    if start > segment.last {
                        return Ok(damaged);
                    }
                    continue 'range;
                }
                Err(error) => return Err(error),
            };
            let cursor = cursor_of(&key);
            if cursor > view.end {
                return Ok(damaged);
            }
            start = cursor;
            if !each(cursor, value) {
                return Ok(damaged);
            }
        }
        return Ok(damaged);
    }
}

/// Key of the block in which this cursor is, or would be.
fn block_at(view: &View, segment: &Segment, cursor: u64) -> Option<u64> {
    let mut before = view
        .snapshot
        .range(&segment.blocks, ..=cursor.to_be_bytes());
    let key = before.next_back()?.key().ok()?;
    Some(cursor_of(&key))
}

fn decode(cursor: u64, value: UserValue) -> Result<Vec<Arc<Entry>>, Damage> {
    // Entries share the memory that the library has read the block into.
    block::decode(cursor, &Bytes::from_owner(value))
}

fn is_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Storage(error) => !matches!(error, fjall::LsmError::Io(_)),
        fjall::Error::Decompress(_)
        | fjall::Error::InvalidTag(_)
        | fjall::Error::InvalidTrailer => true,
        _ => false,
    }
}

/// A part of a channel.
#[derive(Default)]
pub struct Part {
    /// Ascending.
    pub entries: Vec<Arc<Entry>>,
    /// What of the channel they are.
    pub span: Span,
    /// Blocks that are damaged.
    pub damaged: u64,
}

/// Reads a part of a channel.
///
/// # Errors
///
/// The library's.
pub fn channel(view: &View, row: &Row, read: &Read) -> fjall::Result<Part> {
    let asked = read.after.unwrap_or(0);
    let mut part = Part {
        span: Span::behind(asked, asked),
        ..Part::default()
    };
    let after = read.after.map(|after| after.max(row.trimmed));
    let Some(after) = after.filter(|after| *after < row.top && read.limit > 0) else {
        if asked < row.trimmed {
            part.span = Span::behind(row.trimmed, row.trimmed);
        }
        return Ok(part);
    };
    let wanted = after + 1;
    part.span = Span::behind(after, after);
    let floor = view.floors.of(read.channel.whole());
    // The newest segment in which the channel has a block that begins at `wanted` or before.
    let mut begin = (0, 0);
    for (at, segment) in view.segments.iter().enumerate().rev() {
        let lowest = index_key(row.id, 0);
        let mut before = view
            .snapshot
            .range(&segment.index, lowest..=index_key(row.id, wanted));
        if let Some(guard) = before.next_back() {
            let key = guard.key()?;
            begin = (at, cursor_of(key.get(8..).unwrap_or_default()));
            break;
        }
    }
    let (mut bytes, mut looked_at) = (0, 0);
    for segment in &view.segments[begin.0..] {
        let range = index_key(row.id, begin.1)..=index_key(row.id, row.top);
        for guard in view.snapshot.range(&segment.index, range) {
            let (_, cursor) = guard.into_inner()?;
            let cursor = cursor_of(&cursor);
            if cursor <= floor {
                continue;
            }
            let block = match view.snapshot.get(&segment.blocks, cursor.to_be_bytes()) {
                Ok(block) => block,
                Err(error) if is_damage(&error) => None,
                Err(error) => return Err(error),
            };
            let Some((head, found)) = block.and_then(|value| {
                let head = Head::read(&value).ok()?;
                Some((head, decode(cursor, value).ok()?))
            }) else {
                part.damaged += 1;
                continue;
            };
            let last = head.first_offset + u64::from(head.count).saturating_sub(1);
            if last < wanted || head.epoch != row.epoch {
                continue;
            }
            if head.first_offset > part.span.to + 1 {
                // What was between is forgotten.
                if !part.entries.is_empty() {
                    return Ok(part);
                }
                part.span = Span::behind(head.first_offset - 1, head.first_offset - 1);
            }
            for entry in found {
                let offset = entry.position.offset.0;
                if offset < wanted || entry.record.is_over(view.now_ms) {
                    continue;
                }
                let size = entry.record.bytes();
                let has_room = part.entries.is_empty()
                    || part.entries.len() < read.limit as usize
                        && bytes + size <= read.bytes as usize;
                if !has_room || offset > row.top {
                    part.span.to = part.span.to.max(offset - 1);
                    return Ok(part);
                }
                bytes += size;
                part.span.to = offset;
                part.entries.push(entry);
            }
            part.span.to = last.min(row.top);
            looked_at += 1;
            if looked_at >= BLOCKS_PER_PART {
                return Ok(part);
            }
        }
        begin.1 = 0;
    }
    if part.entries.is_empty() && part.span.to < row.top {
        // Nothing of it is there any more.
        part.span = Span::behind(row.top, row.top);
    }
    Ok(part)
}

/// The block in which this cursor is, or would be: the number of its segment, its key and its value.
///
/// # Errors
///
/// The library's.
pub fn block_of(view: &View, cursor: u64) -> fjall::Result<Option<(u64, u64, UserValue)>> {
    let holds = |segment: &&Segment| (segment.first..=segment.last).contains(&cursor);
    let Some(segment) = view.segments.iter().find(holds) else {
        return Ok(None);
    };
    let mut before = view
        .snapshot
        .range(&segment.blocks, ..=cursor.to_be_bytes());
    let Some(guard) = before.next_back() else {
        return Ok(None);
    };
    match guard.into_inner() {
        Ok((key, value)) => Ok(Some((segment.number(), cursor_of(&key), value))),
        Err(error) if is_damage(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The entry with this cursor.
///
/// # Errors
///
/// The library's.
pub fn entry(view: &View, cursor: u64) -> fjall::Result<Option<Arc<Entry>>> {
    Blocks::default().entry(view, cursor)
}

/// Reads entries here and there: what stands in one block is unpacked once, as long as not too much was read since.
#[derive(Default)]
pub struct Blocks {
    /// By the cursor of the first entry.
    kept: BTreeMap<u64, Unpacked>,
    /// The same, in the order in which they were read.
    order: VecDeque<u64>,
    bytes: usize,
    #[cfg(test)]
    unpacked: u64,
}

struct Unpacked {
    /// Cursor of the last entry.
    last: u64,
    entries: Vec<Arc<Entry>>,
    bytes: usize,
}

impl Blocks {
    /// An entry by its cursor; `None` if there is none, or if it cannot be read.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn entry(&mut self, view: &View, cursor: u64) -> fjall::Result<Option<Arc<Entry>>> {
        let mut before = self.kept.range(..=cursor);
        if let Some((_, block)) = before.next_back().filter(|(_, block)| cursor <= block.last) {
            return Ok(block.find(cursor));
        }
        let Some((_, key, value)) = block_of(view, cursor)? else {
            return Ok(None);
        };
        let Ok((channel, count)) = Head::peek(&value) else {
            return Ok(None);
        };
        let last = key + u64::from(count).saturating_sub(1);
        if cursor <= view.floors.of(channel) || cursor > last {
            return Ok(None);
        }
        let entries = decode(key, value).unwrap_or_default();
        #[cfg(test)]
        {
            self.unpacked += 1;
        }
        let sizes = entries.iter().map(|entry| entry.record.bytes());
        let block = Unpacked {
            last,
            bytes: sizes.sum::<usize>() + entries.len() * size_of::<Entry>(),
            entries,
        };
        let found = block.find(cursor);
        self.bytes += block.bytes;
        self.order.push_back(key);
        self.kept.insert(key, block);
        while self.bytes > UNPACKED_BYTES_KEPT && self.order.len() > 1 {
            let oldest = self.order.pop_front();
            let oldest = oldest.and_then(|oldest| self.kept.remove(&oldest));
            self.bytes -= oldest.map_or(0, |oldest| oldest.bytes);
        }
        Ok(found)
    }

    /// How many blocks were unpacked so far.
    #[cfg(test)]
    pub fn unpacked(&self) -> u64 {
        self.unpacked
    }

    /// Bytes of those that are kept, about.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Unpacked {
    fn find(&self, cursor: u64) -> Option<Arc<Entry>> {
        let at = self.entries.binary_search_by_key(&cursor, |one| one.cursor);
        at.ok().map(|at| Arc::clone(&self.entries[at]))
    }
}

/// See `Entries::seek`. Binary, by the time mark of the blocks.
///
/// # Errors
///
/// The library's.
pub fn seek(view: &View, unix_ms: u64) -> fjall::Result<u64> {
    let mark = |segment: &Segment, cursor: u64| -> fjall::Result<Option<(u64, Head)>> {
        let range = ..=cursor.to_be_bytes();
        let Some(guard) = view.snapshot.range(&segment.blocks, range).next_back() else {
            return Ok(None);
        };
        let (key, value) = guard.into_inner()?;
        Ok(Head::read(&value).ok().map(|head| (cursor_of(&key), head)))
    };
    for segment in view.segments.iter().filter(|segment| !segment.is_empty()) {
        let last = segment.last.min(view.end);
        if mark(segment, last)?.is_some_and(|(_, head)| head.mark_ms < unix_ms) {
            continue;
        }
        // The first block whose mark is late enough begins in (low, high].
        let (mut low, mut high) = (segment.first - 1, last);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match mark(segment, middle)? {
                Some((_, head)) if head.mark_ms >= unix_ms => high = middle,
                _ => low = middle,
            }
        }
        if let Some((cursor, _)) = mark(segment, high)? {
            let value = view.snapshot.get(&segment.blocks, cursor.to_be_bytes())?;
            let entries = value.and_then(|value| decode(cursor, value).ok());
            return Ok(entries
                .unwrap_or_default()
                .iter()
                .find(|entry| entry.record.unix_ms >= unix_ms)
                .map_or(cursor, |entry| entry.cursor));
        }
    }
    Ok(view.end + 1)
}

/// How many of the next entries are wanted, and where that was counted to: `blocks` at most are looked at.
///
/// # Errors
///
/// The library's.
pub fn count(view: &View, after: u64, filter: &Filter, blocks: usize) -> fjall::Result<(u64, u64)> {
    let (mut wanted, mut counted_to, mut looked_at) = (0, after, 0);
    for segment in view.segments.iter() {
        if segment.is_empty() || segment.last <= counted_to {
            continue;
        }
        let start = block_at(view, segment, counted_to + 1).unwrap_or(segment.first);
        for guard in view.snapshot.range(&segment.blocks, start.to_be_bytes()..) {
            let (key, value) = guard.into_inner()?;
            let cursor = cursor_of(&key);
            if cursor > view.end {
                break;
            }
            if looked_at >= blocks {
                return Ok((wanted, counted_to));
            }
            looked_at += 1;
            let Ok((channel, count)) = Head::peek(&value) else {
                continue;
            };
            let last = cursor + u64::from(count).saturating_sub(1);
            if last > counted_to {
                if filter.wants(channel) && last > view.floors.of(channel) {
                    let from = counted_to.max(cursor - 1);
                    let from = from.max(trimmed_to(view, cursor, &value)).min(last);
                    wanted += match Head::may_have_holes(&value) {
                        false => last - from,
                        true => decode(cursor, value).map_or(0, |found| {
                            found.iter().filter(|entry| entry.cursor > from).count() as u64
                        }),
                    };
                }
                counted_to = last;
            }
        }
    }
    Ok((wanted, view.end.max(after)))
}

/// The last cursor of a block's entries that are forgotten by order; the one before the block if none is.
pub fn trimmed_to(view: &View, cursor: u64, block: &[u8]) -> u64 {
    let forgotten = Head::place(block).and_then(|(id, first)| {
        let trimmed = view.trims.get(&id)?;
        Some((trimmed + 1).saturating_sub(first))
    });
    (cursor - 1).saturating_add(forgotten.unwrap_or(0))
}

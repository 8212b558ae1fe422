//! Looks for what namespaces do not keep any more: a step reads a bounded number of blocks, on a thread that may wait for the disk.
//! What it finds is forgotten by one batch, with all that groups lose by it.

use std::sync::Arc;

use bytes::Bytes;
use fjall::Readable as _;

use super::block::{self, Head};
use super::channels::Row;
use super::ends::Ended;
use super::floors::{Floor, Rule, Rules};
use super::read;
use super::segments::{Segment, View, cursor_of, index_key};
use crate::model::{ChannelName, Entry};

/// A block with entries that are forgotten.
pub struct Gone {
    /// Number of its segment.
    pub segment: u64,
    /// Its key.
    pub block: u64,
    /// Number of its channel.
    pub channel_id: u64,
    /// Its channel.
    pub channel: ChannelName,
    /// Offset of its first entry.
    pub first_offset: u64,
    /// Cursors of the entries that are forgotten now.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// Nothing of it is kept.
    pub is_whole: bool,
    /// Its bytes.
    pub bytes: u64,
    /// Its entries, those that have ended too.
    pub count: u64,
    /// Cursors of those that have not, where some have; `None` where none has.
    pub left: Option<Vec<u64>>,
    /// Those that are forgotten now, where they are to become letters.
    pub entries: Vec<Arc<Entry>>,
}

impl Gone {
    /// Cursors of those that are forgotten now.
    pub fn cursors(&self) -> impl Iterator<Item = u64> {
        let is_left = |cursor: &u64| match &self.left {
            Some(left) => left.binary_search(cursor).is_ok(),
            None => true,
        };
        (self.first..=self.last).filter(is_left)
    }

    /// Offset of the last entry that is forgotten.
    #[must_use]
    pub fn last_offset(&self) -> u64 {
        self.first_offset + (self.last - self.block)
    }
}

/// What a step found.
#[derive(Default)]
pub struct Swept {
    /// New floors of namespaces.
    pub floors: Vec<(Box<str>, Floor)>,
    /// Channels that keep so many only: number and name, and the offset up to which their entries are forgotten.
    pub trims: Vec<(u64, ChannelName, u64)>,
    /// Blocks that are not kept.
    pub gone: Vec<Gone>,
    /// What has ended before its turn.
    pub ended: Ended,
    /// Blocks that may be looked at yet.
    left: usize,
    /// There is more to be done.
    pub is_behind: bool,
    /// Somebody has asked for it, and nothing has expired.
    pub is_by_order: bool,
}

/// A block of a namespace at its floor, or of another one between its blocks.
struct Passed<'a> {
    segment: &'a Segment,
    cursor: u64,
    head: Head,
    value: fjall::UserValue,
}

impl Passed<'_> {
    fn last(&self) -> u64 {
        self.cursor + u64::from(self.head.count).saturating_sub(1)
    }
}

/// One step: at most so many blocks are looked at. `full`: channels with more entries than their namespace keeps, and up to which offset
/// those are too many. `doomed`: the whole log forgets up to this cursor, with what was looked at before where that becomes letters.
///
/// # Errors
///
/// The library's.
pub fn sweep(
    view: &View,
    rules: &Rules,
    full: Vec<(ChannelName, Row)>,
    (now_ms, doomed): (u64, u64),
    blocks: usize,
) -> fjall::Result<Swept> {
    let mut swept = Swept {
        left: blocks,
        ..Swept::default()
    };
    for (name, rule) in rules.all() {
        let before = view.floors.get(name);
        let mut floor = before;
        let first = first_of(view);
        let doomed = if rule.makes_letters { doomed } else { 0 };
        let raises = rule.age_ms.is_some() || rule.bytes.is_some() || floor.cursor < doomed;
        if raises && floor.cursor + 1 < first {
            // The whole log begins later.
            floor = Floor {
                cursor: first - 1,
                counted: first - 1,
                bytes: 0,
            };
        }
        if rule.bytes.is_some() {
            count_bytes(view, rules, name, &mut floor, &mut swept)?;
        }
        if raises {
            let until = (now_ms, doomed);
            raise(view, rules, (name, rule), &mut floor, until, &mut swept)?;
        }
        if floor != before {
            swept.floors.push((name.into(), floor));
        }
    }
    for (channel, row) in full {
        let namespace = rules.names().namespace(channel.whole());
        let raised = swept
            .floors
            .iter()
            .find(|(name, _)| Some(&**name) == namespace);
        let raised = raised.map_or(0, |(_, floor)| floor.cursor);
        let floor = view.floors.of(channel.whole()).max(raised);
        let makes_letters = rules
            .find(channel.whole())
            .is_some_and(|rule| rule.makes_letters);
        trim(view, channel, &row, (floor, makes_letters), &mut swept)?;
    }
    swept.is_behind |= swept.left == 0;
    Ok(swept)
}

/// Cursor of the oldest entry; of the next one if there is none.
fn first_of(view: &View) -> u64 {
    let mut segments = view.segments.iter();
    let oldest = segments.find(|segment| !segment.is_empty());
    oldest.map_or(view.end + 1, |segment| segment.first)
}

/// Gives the blocks behind a cursor until `each` has enough, or enough were looked at.
fn walk(
    view: &View,
    after: u64,
    left: &mut usize,
    mut each: impl FnMut(&Passed<'_>) -> bool,
) -> fjall::Result<()> {
    for segment in view.segments.iter() {
        if segment.is_empty() || segment.last <= after {
            continue;
        }
        let mut is_over = false;
        read::blocks(view, segment, after + 1, |cursor, value| {
            if *left == 0 {
                is_over = true;
                return false;
            }
            let Ok(head) = Head::read(&value) else {
                return true;
            };
            let passed = Passed {
                segment,
                cursor,
                head,
                value,
            };
            if passed.last() <= after {
                return true;
            }
            *left -= 1;
            is_over = !each(&passed);
            !is_over
        })?;
        if is_over {
            break;
        }
    }
    Ok(())
}

/// Is it a channel of this namespace?
fn is_of(rules: &Rules, name: &str, channel: &ChannelName) -> bool {
    rules.names().namespace(channel.whole()) == Some(name)
}

/// Counts the bytes that came since they were counted.
fn count_bytes(
    view: &View,
    rules: &Rules,
    name: &str,
    floor: &mut Floor,
    swept: &mut Swept,
) -> fjall::Result<()> {
    if floor.counted < floor.cursor {
        (floor.counted, floor.bytes) = (floor.cursor, 0);
    }
    walk(view, floor.counted, &mut swept.left, |passed| {
        if is_of(rules, name, &passed.head.channel) {
            floor.bytes += passed.value.len() as u64;
        }
        floor.counted = passed.last();
        true
    })
}

/// One step for a channel that is forgotten up to an offset by order, and whose losses become letters.
///
/// # Errors
///
/// The library's.
pub fn sweep_channel(
    view: &View,
    channel: ChannelName,
    row: &Row,
    blocks: usize,
) -> fjall::Result<Swept> {
    let mut swept = Swept {
        left: blocks,
        is_by_order: true,
        ..Swept::default()
    };
    let floor = view.floors.of(channel.whole());
    trim(view, channel, row, (floor, true), &mut swept)?;
    Ok(swept)
}

/// Raises the floor of a namespace over what is too old or too much, and over what the whole log forgets.
fn raise(
    view: &View,
    rules: &Rules,
    (name, rule): (&str, &Rule),
    floor: &mut Floor,
    (now_ms, doomed): (u64, u64),
    swept: &mut Swept,
) -> fjall::Result<()> {
    let mut left = std::mem::take(&mut swept.left);
    let mut failed = None;
    let walked = walk(view, floor.cursor, &mut left, |passed| {
        let age = rule.age_ms.unwrap_or(u64::MAX);
        let is_old = passed.head.log_ms.saturating_add(age) <= now_ms;
        let is_much =
            rule.bytes.is_some_and(|most| floor.bytes > most) && floor.counted >= passed.last();
        if !is_old && !is_much && passed.last() > doomed {
            return false;
        }
        if is_of(rules, name, &passed.head.channel) {
            let bytes = passed.value.len() as u64;
            if floor.counted >= passed.last() {
                floor.bytes = floor.bytes.saturating_sub(bytes);
            }
            let block = (passed.cursor, passed.last());
            match gone(view, passed, block, rule.makes_letters) {
                Ok(gone) => swept.gone.push(gone),
                Err(error) => failed = Some(error),
            }
        }
        floor.cursor = passed.last();
        failed.is_none()
    });
    swept.left = left;
    walked?;
    if let Some(error) = failed {
        return Err(error);
    }
    if left > 0 {
        // What cannot be read keeps nothing waiting.
        floor.cursor = floor.cursor.max(doomed);
    }
    Ok(())
}

/// What of a block is forgotten now: of its entries up to a cursor, those that were not forgotten by order.
fn gone(
    view: &View,
    passed: &Passed<'_>,
    (first, last): (u64, u64),
    makes_letters: bool,
) -> fjall::Result<Gone> {
    let first = first.max(read::trimmed_to(view, passed.cursor, &passed.value) + 1);
    let mut entries = Vec::new();
    let mut left = None;
    let has_holes = Head::may_have_holes(&passed.value);
    if makes_letters || has_holes {
        // What cannot be read is lost.
        let value = Bytes::from_owner(passed.value.clone());
        entries = block::decode(passed.cursor, &value).unwrap_or_default();
        left = has_holes.then(|| entries.iter().map(|entry| entry.cursor).collect());
        entries.retain(|entry| (first..=last).contains(&entry.cursor));
    }
    Ok(Gone {
        segment: passed.segment.number(),
        block: passed.cursor,
        channel_id: passed.head.channel_id,
        channel: passed.head.channel.clone(),
        first_offset: passed.head.first_offset,
        first,
        last,
        is_whole: last == passed.last(),
        bytes: passed.value.len() as u64,
        count: u64::from(passed.head.count),
        left,
        entries: if makes_letters { entries } else { Vec::new() },
    })
}

/// Finds the entries of a channel that are more than its namespace keeps.
fn trim(
    view: &View,
    channel: ChannelName,
    row: &Row,
    (floor, makes_letters): (u64, bool),
    swept: &mut Swept,
) -> fjall::Result<()> {
    let mut reached = view.trims.get(&row.id).copied().unwrap_or(0);
    for segment in view.segments.iter().filter(|segment| !segment.is_empty()) {
        let range = index_key(row.id, 0)..=index_key(row.id, row.trimmed);
        for guard in view.snapshot.range(&segment.index, range) {
            let (_, cursor) = guard.into_inner()?;
            let cursor = cursor_of(&cursor);
            if cursor <= floor {
                // That is known already.
                continue;
            }
            if swept.left == 0 {
                // What was found is forgotten now, the rest with the next step.
                swept.is_behind = true;
                break;
            }
            swept.left -= 1;
            let Some(value) = view.snapshot.get(&segment.blocks, cursor.to_be_bytes())? else {
                continue;
            };
            let Ok(head) = Head::read(&value) else {
                continue;
            };
            let passed = Passed {
                segment,
                cursor,
                head,
                value,
            };
            let end = passed.head.first_offset + u64::from(passed.head.count) - 1;
            let last = passed.last() - (end - end.min(row.trimmed));
            let found = gone(view, &passed, (cursor, last), makes_letters)?;
            reached = reached.max(end.min(row.trimmed));
            if found.first <= found.last || found.is_whole {
                swept.gone.push(found);
            }
        }
    }
    let reached = if swept.is_behind {
        reached
    } else {
        row.trimmed
    };
    swept.trims.push((row.id, channel, reached));
    Ok(())
}

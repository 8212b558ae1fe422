//! When publications end by themselves, as it is stored, and what of them is due. Nothing is in memory for each of them.
//!
//! Beside what waits for its time (`later`): `x` time and cursor → nothing. Whoever reads looks at the clock, so that nothing is given
//! behind its time; what has ended is then taken out of its block, together with what groups lose by it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Keyspace, OwnedWriteBatch, Readable as _};

use super::block::{self, Head};
use super::read;
use super::segments::View;
use super::store::Store;
use crate::model::{ChannelName, Entry};

/// Rows begin so; the next letter ends them.
pub const ENDS: u8 = b'x';

/// When an entry ends, Unix milliseconds, and its cursor.
pub type End = (u64, u64);

/// What is known of all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// Nothing ends before.
    first: Option<u64>,
    /// The first of those that came since the last look.
    added: Option<u64>,
}

impl Ends {
    /// What is stored.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn open(store: &Store) -> fjall::Result<Self> {
        let mut rows = store.scheduled.range(row_key((0, 0))..rows_end());
        let key = rows.next().map(fjall::Guard::key).transpose()?;
        Ok(Self {
            first: key.map(|key| end_of(&key).0),
            added: None,
        })
    }

    /// When the first one ends.
    #[must_use]
    pub const fn first_ms(&self) -> Option<u64> {
        self.first
    }

    /// One was added.
    pub fn added(&mut self, ends_ms: u64) {
        let first = |known: Option<u64>| Some(known.map_or(ends_ms, |known| known.min(ends_ms)));
        (self.first, self.added) = (first(self.first), first(self.added));
    }

    /// A look begins.
    pub const fn begin(&mut self) -> Option<u64> {
        self.added = None;
        self.first
    }

    /// What a look has found was done; the next one ends then.
    pub fn done(&mut self, next: Option<u64>) {
        self.first = [next, self.added].into_iter().flatten().min();
    }
}

/// Adds a row to a batch.
pub fn put(batch: &mut OwnedWriteBatch, keyspace: &Keyspace, end: End) {
    batch.insert(keyspace, row_key(end), Vec::new());
}

/// Removes a row, in a batch.
pub fn remove(batch: &mut OwnedWriteBatch, keyspace: &Keyspace, end: End) {
    batch.remove(keyspace, row_key(end));
}

/// What has ended.
#[derive(Default)]
pub struct Ended {
    /// Rows that were looked at.
    pub rows: Vec<End>,
    /// Blocks in which something has ended.
    pub blocks: Vec<Holed>,
    /// When the one behind them ends.
    pub next: Option<u64>,
    /// More has ended already.
    pub is_behind: bool,
}

/// A block of which entries go before their turn.
pub struct Holed {
    /// Number of its segment.
    pub segment: u64,
    /// Its key.
    pub block: u64,
    /// Its channel.
    pub channel: ChannelName,
    /// As it is.
    pub value: Bytes,
    /// Those that go.
    pub entries: Vec<Arc<Entry>>,
}

/// Looks for what has ended, from a time on: at most so many.
///
/// # Errors
///
/// The library's.
pub fn look(view: &View, store: &Store, from_ms: u64, most: usize) -> fjall::Result<Ended> {
    let mut ended = Ended::default();
    let rows = row_key((from_ms, 0))..rows_end();
    for guard in view.snapshot.range(&store.scheduled, rows) {
        let end = end_of(&guard.key()?);
        if end.0 > view.now_ms || ended.rows.len() >= most {
            ended.next = Some(end.0);
            ended.is_behind = end.0 <= view.now_ms;
            break;
        }
        ended.rows.push(end);
    }
    let cursors = ended.rows.iter().map(|(_, cursor)| *cursor).collect();
    let is_over = |entry: &Entry| entry.record.is_over(view.now_ms);
    ended.blocks = holes(view, cursors, is_over)?;
    Ok(ended)
}

/// The blocks of entries that go; what is forgotten already is left out.
fn holes(
    view: &View,
    cursors: BTreeSet<u64>,
    goes: impl Fn(&Entry) -> bool,
) -> fjall::Result<Vec<Holed>> {
    let mut found = Vec::new();
    let mut rest = cursors.into_iter().peekable();
    while let Some(cursor) = rest.next() {
        let Some((segment, key, value)) = read::block_of(view, cursor)? else {
            continue;
        };
        let Ok(head) = Head::read(&value) else {
            continue;
        };
        let last = key + u64::from(head.count).saturating_sub(1);
        if cursor > last {
            continue;
        }
        let mut wanted = BTreeSet::from([cursor]);
        while let Some(next) = rest.next_if(|next| *next <= last) {
            wanted.insert(next);
        }
        let forgotten =
            read::trimmed_to(view, key, &value).max(view.floors.of(head.channel.as_str()));
        let value = Bytes::from_owner(value);
        // What cannot be read stays until its segment goes.
        let mut entries = block::decode(key, &value).unwrap_or_default();
        entries.retain(|entry| {
            entry.cursor > forgotten && wanted.contains(&entry.cursor) && goes(entry)
        });
        if !entries.is_empty() {
            found.push(Holed {
                segment,
                block: key,
                channel: head.channel,
                value,
                entries,
            });
        }
    }
    Ok(found)
}

fn row_key((ends_ms, cursor): End) -> Vec<u8> {
    let place = (u128::from(ends_ms) << 64 | u128::from(cursor)).to_be_bytes();
    [&[ENDS][..], &place].concat()
}

/// Behind all of them.
fn rows_end() -> Vec<u8> {
    vec![ENDS + 1]
}

fn end_of(key: &[u8]) -> End {
    let place = key.last_chunk().copied().map_or(0, u128::from_be_bytes);
    ((place >> 64) as u64, place as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sort_by_time_and_come_back() {
        let ends = [(1, 9), (2, 1), (2, 256), (256, 0), (u64::MAX, u64::MAX)];
        let keys = ends.map(row_key);
        assert!(keys.is_sorted());
        assert_eq!(keys.map(|key| end_of(&key)), ends);
        assert!(row_key((u64::MAX, u64::MAX)) < rows_end());
    }

    #[test]
    fn what_comes_while_somebody_looks_is_not_forgotten() {
        let mut ends = Ends::default();
        ends.added(50);
        assert_eq!(ends.begin(), Some(50));
        ends.added(70);
        ends.done(Some(90));
        assert_eq!(ends.first_ms(), Some(70));
        assert_eq!(ends.begin(), Some(70));
        ends.done(None);
        assert_eq!(ends.first_ms(), None);
    }
}

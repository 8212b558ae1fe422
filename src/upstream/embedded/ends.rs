//! When publications end before their turn, as it is stored, and what of them is due. Nothing is in memory for each of them.
//!
//! Beside what waits for its time (`later`): `x` time and cursor → nothing, of those with a time to live; `z` the same, of those that a
//! later one replaces; `l` number of a channel and 16 bytes of its key's SHA-256 → cursor of the latest with it. Whoever reads looks at the clock, so that nothing is given
//! behind its time; what has ended is then taken out of its block, together with what groups lose by it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Keyspace, OwnedWriteBatch, Readable as _};
use sha2::{Digest as _, Sha256};

use super::block::{self, Head};
use super::read;
use super::segments::{View, cursor_of};
use super::store::Store;
use crate::model::{ChannelName, Entry};

/// Rows of those with a time to live begin so; the next letter ends them.
pub const TTL: u8 = b'x';
/// Rows of those that are replaced.
pub const REPLACED: u8 = b'z';
/// Rows of the latest ones.
pub const LATEST: u8 = b'l';

/// Rows of the latest ones that one step looks at, for those whose entries are gone.
const LATEST_PER_STEP: usize = 1000;

/// Of what kind an end is; when it is, Unix milliseconds; the entry's cursor.
pub type End = (u8, u64, u64);

/// What is known of all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// Nothing ends before.
    first: Option<u64>,
    /// The first of those that came since the last look.
    added: Option<u64>,
}

/// Where the look for rows goes on whose entries are gone.
#[derive(Debug, Default)]
pub struct Tidied(Option<Vec<u8>>);

impl Ends {
    /// What is stored.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn open(store: &Store) -> fjall::Result<Self> {
        let mut ends = Self::default();
        for kind in [TTL, REPLACED] {
            let mut rows = store.scheduled.range(row_key((kind, 0, 0))..rows_end(kind));
            if let Some(key) = rows.next().map(fjall::Guard::key).transpose()? {
                ends.added(end_of(&key).1);
            }
        }
        Ok(ends)
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
    /// Of them, those that a later one has replaced.
    pub replaced: BTreeSet<u64>,
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
    for kind in [TTL, REPLACED] {
        let most = ended.rows.len() + most / 2;
        let rows = row_key((kind, from_ms, 0))..rows_end(kind);
        for guard in view.snapshot.range(&store.scheduled, rows) {
            let end = end_of(&guard.key()?);
            if end.1 > view.now_ms || ended.rows.len() >= most {
                ended.next = Some(ended.next.map_or(end.1, |next| next.min(end.1)));
                ended.is_behind |= end.1 <= view.now_ms;
                break;
            }
            ended.rows.push(end);
        }
    }
    let replaced = ended.rows.iter().filter(|end| end.0 == REPLACED);
    ended.replaced = replaced.map(|end| end.2).collect();
    let cursors = ended.rows.iter().map(|end| end.2).collect();
    let goes =
        |entry: &Entry| ended.replaced.contains(&entry.cursor) || entry.record.is_over(view.now_ms);
    ended.blocks = holes(view, cursors, goes)?;
    Ok(ended)
}

/// What the latest entry with a key replaces, as far as that is not in the batch; `None` where it is the first.
#[must_use]
pub fn latest(store: &Store, row: &[u8]) -> Option<u64> {
    let value = store.scheduled.get(row).ok()??;
    Some(cursor_of(&value))
}

/// The row of the latest entry of a channel with a key.
#[must_use]
pub fn latest_key(channel_id: u64, key: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(key);
    [&[LATEST][..], &channel_id.to_be_bytes(), &digest[..16]].concat()
}

impl Tidied {
    /// Adds to a batch that some rows of the latest ones are removed whose entries are gone: the log begins at `first`.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn tidy(
        &mut self,
        store: &Store,
        first: u64,
        batch: &mut OwnedWriteBatch,
    ) -> fjall::Result<()> {
        let from = self.0.take().unwrap_or_else(|| vec![LATEST]);
        let rows = store.scheduled.range(from..rows_end(LATEST));
        for (looked_at, guard) in rows.enumerate() {
            let (key, value) = guard.into_inner()?;
            if looked_at >= LATEST_PER_STEP {
                self.0 = Some(key.to_vec());
                break;
            }
            if cursor_of(&value) < first {
                batch.remove(&store.scheduled, key);
            }
        }
        Ok(())
    }
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
            read::trimmed_to(view, key, &value).max(view.floors.of(head.channel.whole()));
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

fn row_key((kind, ends_ms, cursor): End) -> Vec<u8> {
    let place = (u128::from(ends_ms) << 64 | u128::from(cursor)).to_be_bytes();
    [&[kind][..], &place].concat()
}

/// Behind all of them.
fn rows_end(kind: u8) -> Vec<u8> {
    vec![kind + 1]
}

fn end_of(key: &[u8]) -> End {
    let place = key.last_chunk().copied().map_or(0, u128::from_be_bytes);
    let kind = key.first().copied().unwrap_or_default();
    (kind, (place >> 64) as u64, place as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sort_by_time_and_come_back() {
        let times = [(1, 9), (2, 1), (2, 256), (256, 0), (u64::MAX, u64::MAX)];
        let ends = times.map(|(ms, cursor)| (TTL, ms, cursor));
        let keys = ends.map(row_key);
        assert!(keys.is_sorted());
        assert_eq!(keys.map(|key| end_of(&key)), ends);
        assert!(row_key((TTL, u64::MAX, u64::MAX)) < rows_end(TTL));
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

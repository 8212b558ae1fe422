//! What of a group waits on the disk: entries until their time, and entries in lines. None of it is in memory, but for its number.
//!
//! Rows: `d/` group's number, due, cursor → line, or nothing; `q/` group's number, line, cursor → nothing. What has failed with an
//! entry stays in `f/`, and its cursor among those that are not done in `o/`: a version that knows nothing of waiting gives it at once.
//! Changes are gathered and written together with the rest of the group, so that what is on disk is the group as it was at one moment;
//! before anything is read here, they have to be written.

use std::collections::BTreeMap;
use std::sync::Arc;

use fjall::{OwnedWriteBatch, Readable as _};

use crate::model::Entry;
use crate::upstream::embedded::read::Blocks;
use crate::upstream::embedded::segments::{View, cursor_of};
use crate::upstream::embedded::store::Store;
use crate::upstream::log::{Failure, Line, LineId, Undone};

/// Kind of the rows of what waits for its time.
pub const DELAYED: u8 = b'd';
/// Kind of the rows of what waits in a line.
pub const LINED: u8 = b'q';
/// Kind of the rows of failures.
pub const FAILURES: u8 = b'f';

/// When something is due, Unix milliseconds, and its cursor.
pub type Due = (u64, u64);

/// Where an entry waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Until this time, Unix milliseconds; of a line, where it belongs to one.
    Until(u64, Option<LineId>),
    /// In a line.
    In(LineId),
}

/// An entry that was read from where it waits; `None` if the log has forgotten it.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub cursor: u64,
    /// Where it waits.
    pub waits: Waits,
    /// What it is.
    pub entry: Option<Arc<Entry>>,
    /// What has failed with it.
    pub failures: Vec<Failure>,
}

/// What is known of a line.
#[derive(Clone, Copy, Debug)]
struct Kept {
    entries: u64,
    delayed: u64,
    /// No entry is before this cursor.
    from: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            entries: 0,
            delayed: 0,
            from: u64::MAX,
        }
    }
}

/// Cursors of one chunk, see `Cursors`.
pub const CHUNK_CURSORS: u64 = 4096;

/// A set of cursors: a bit for each, in chunks.
#[derive(Debug, Default)]
pub struct Cursors(BTreeMap<u64, Box<[u64; 64]>>);

impl Cursors {
    fn place(cursor: u64) -> (u64, usize, u64) {
        let within = cursor % CHUNK_CURSORS;
        (
            cursor / CHUNK_CURSORS,
            (within / 64) as usize,
            1 << (within % 64),
        )
    }

    /// Adds one.
    pub fn insert(&mut self, cursor: u64) {
        let (chunk, word, bit) = Self::place(cursor);
        self.0.entry(chunk).or_insert_with(|| Box::new([0; 64]))[word] |= bit;
    }

    /// Takes one out. `false` if it was not there.
    pub fn remove(&mut self, cursor: u64) -> bool {
        let (chunk, word, bit) = Self::place(cursor);
        let Some(words) = self.0.get_mut(&chunk) else {
            return false;
        };
        let was_there = words[word] & bit != 0;
        words[word] &= !bit;
        if was_there && words.iter().all(|word| *word == 0) {
            self.0.remove(&chunk);
        }
        was_there
    }

    /// Is it there?
    #[must_use]
    pub fn contains(&self, cursor: u64) -> bool {
        let (chunk, word, bit) = Self::place(cursor);
        self.0
            .get(&chunk)
            .is_some_and(|words| words[word] & bit != 0)
    }

    /// Those of a chunk, ascending.
    pub fn of_chunk(&self, chunk: u64) -> impl Iterator<Item = u64> {
        let start = chunk * CHUNK_CURSORS;
        let words = self
            .0
            .get(&chunk)
            .into_iter()
            .flat_map(|words| words.iter());
        words.enumerate().flat_map(move |(at, word)| {
            let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| start + at as u64 * 64 + bit)
        })
    }

    /// The first of all.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        let (chunk, _) = self.0.first_key_value()?;
        self.of_chunk(*chunk).next()
    }

    /// The first ones behind this one, ascending.
    #[must_use]
    pub fn behind(&self, cursor: u64, limit: usize) -> Vec<u64> {
        let chunks = self.0.range(cursor / CHUNK_CURSORS..);
        let all = chunks.flat_map(|(chunk, _)| self.of_chunk(*chunk));
        all.filter(|at| *at > cursor).take(limit).collect()
    }

    /// Takes out all before this one, and says how many those were.
    pub fn remove_before(&mut self, cursor: u64) -> u64 {
        let mut removed = 0;
        while let Some(first) = self.first().filter(|first| *first < cursor) {
            let chunk = first / CHUNK_CURSORS;
            if (chunk + 1) * CHUNK_CURSORS <= cursor {
                let words = self.0.remove(&chunk).unwrap_or_else(|| Box::new([0; 64]));
                removed += words
                    .iter()
                    .map(|word| u64::from(word.count_ones()))
                    .sum::<u64>();
            } else {
                self.remove(first);
                removed += 1;
            }
        }
        removed
    }
}

type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// See the module.
#[derive(Debug, Default)]
pub struct Parked {
    number: u64,
    lines: BTreeMap<LineId, Kept>,
    lined: u64,
    delayed: u64,
    /// Nothing is due before: time and cursor. Whoever reads begins here, behind all that was removed.
    first_due: Option<(u64, u64)>,
    /// All that waits, and is not lost.
    cursors: Cursors,
    /// What is to be written; `None` removes.
    rows: Rows,
    /// What was written last, and may be lost with its batch.
    written: Rows,
}

impl Parked {
    /// Nothing waits.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    /// What the store has: rows whose entries are not among those that are not done are left over, and go.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn load(number: u64, store: &Store, undone: &Cursors) -> fjall::Result<Self> {
        let mut parked = Self::new(number);
        for kind in [DELAYED, LINED] {
            for guard in store.state.prefix(row_key(kind, number, None)) {
                let (key, value) = guard.into_inner()?;
                match row(&key, &value) {
                    Some((cursor, waits)) if undone.contains(cursor) => parked.count(cursor, waits),
                    _ => {
                        parked.rows.insert(key.to_vec(), None);
                    }
                }
            }
        }
        Ok(parked)
    }

    fn count(&mut self, cursor: u64, waits: Waits) {
        self.cursors.insert(cursor);
        match waits {
            Waits::Until(due, line) => {
                self.delayed += 1;
                let first = self.first_due.unwrap_or((due, cursor));
                self.first_due = Some(first.min((due, cursor)));
                if let Some(line) = line {
                    self.lines.entry(line).or_default().delayed += 1;
                }
            }
            Waits::In(line) => {
                self.lined += 1;
                let kept = self.lines.entry(line).or_default();
                kept.entries += 1;
                kept.from = kept.from.min(cursor);
            }
        }
    }

    /// An entry waits from now on. What has failed with it is written where the store may not have it.
    pub fn park(&mut self, cursor: u64, waits: Waits, failures: Option<&[Failure]>) {
        self.count(cursor, waits);
        let (key, value) = self.key(cursor, waits);
        self.rows.insert(key, Some(value));
        if let Some(failures) = failures {
            let value = serde_json::to_vec(failures).unwrap_or_default();
            let key = row_key(FAILURES, self.number, Some(cursor));
            self.rows.insert(key, Some(value));
        }
    }

    /// It does not wait any more. `false` if it was counted as lost before.
    pub fn unpark(&mut self, cursor: u64, waits: Waits) -> bool {
        let line = match waits {
            Waits::Until(_, line) => {
                self.delayed = self.delayed.saturating_sub(1);
                line
            }
            Waits::In(line) => {
                self.lined = self.lined.saturating_sub(1);
                Some(line)
            }
        };
        if let Some(line) = line
            && let Some(kept) = self.lines.get_mut(&line)
        {
            match waits {
                Waits::Until(..) => kept.delayed = kept.delayed.saturating_sub(1),
                Waits::In(_) => {
                    kept.entries = kept.entries.saturating_sub(1);
                    if kept.from == cursor {
                        kept.from = cursor + 1;
                    }
                }
            }
            if (kept.entries, kept.delayed) == (0, 0) {
                self.lines.remove(&line);
            }
        }
        if self.delayed == 0 {
            self.first_due = None;
        }
        let (key, _) = self.key(cursor, waits);
        self.rows.insert(key, None);
        self.cursors.remove(cursor)
    }

    /// Nothing is due before this.
    pub fn is_due_from(&mut self, first: (u64, u64)) {
        if self.delayed > 0 {
            self.first_due = Some(first);
        }
    }

    /// Entries of a line.
    #[must_use]
    pub fn in_line(&self, line: LineId) -> u64 {
        self.lines.get(&line).map_or(0, |kept| kept.entries)
    }

    /// Where the entries of a line begin.
    #[must_use]
    pub fn line_from(&self, line: LineId) -> u64 {
        self.lines.get(&line).map_or(0, |kept| kept.from)
    }

    fn key(&self, cursor: u64, waits: Waits) -> (Vec<u8>, Vec<u8>) {
        let (kind, place, value) = match waits {
            Waits::Until(due, line) => (
                DELAYED,
                due,
                line.map_or(Vec::new(), |line| line.0.to_be_bytes().to_vec()),
            ),
            Waits::In(line) => (LINED, line.0, Vec::new()),
        };
        let mut key = row_key(kind, self.number, Some(place));
        key.extend_from_slice(&cursor.to_be_bytes());
        (key, value)
    }

    /// When the first is due, Unix milliseconds, and its cursor; or what is before that.
    #[must_use]
    pub fn first_due(&self) -> Option<(u64, u64)> {
        self.first_due
    }

    /// All that waits.
    #[must_use]
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// The log begins there now. Gives how many are lost.
    pub fn expire(&mut self, first: u64) -> u64 {
        self.cursors.remove_before(first)
    }

    /// It is forgotten. `false` if it did not wait here.
    pub fn lose(&mut self, cursor: u64) -> bool {
        self.cursors.remove(cursor)
    }

    /// What has failed with an entry that waits here, or did.
    #[must_use]
    pub fn failures(&self, store: &Store, cursor: u64) -> Vec<Failure> {
        let key = row_key(FAILURES, self.number, Some(cursor));
        let stored = match self.rows.get(&key) {
            Some(unwritten) => unwritten.clone(),
            None => store
                .state
                .get(&key)
                .ok()
                .flatten()
                .map(|value| value.to_vec()),
        };
        let failures = stored.and_then(|value| serde_json::from_slice(&value).ok());
        failures.unwrap_or_default()
    }

    /// Entries that wait for their time.
    #[must_use]
    pub fn delayed(&self) -> u64 {
        self.delayed
    }

    /// Entries that wait in lines.
    #[must_use]
    pub fn lined(&self) -> u64 {
        self.lined
    }

    /// All lines.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let line = |(&id, kept): (&LineId, &Kept)| Line {
            id,
            entries: kept.entries,
            delayed: kept.delayed,
        };
        self.lines.iter().map(line).collect()
    }

    /// Something is not written.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Failures of an entry are written by somebody else.
    pub fn leave_failures(&mut self, cursor: u64) {
        self.rows
            .remove(&row_key(FAILURES, self.number, Some(cursor)));
    }

    /// Adds what has changed to a batch. If the batch fails, `renew` has to follow.
    pub fn write(&mut self, batch: &mut OwnedWriteBatch, store: &Store) {
        if self.rows.is_empty() {
            return;
        }
        self.written = std::mem::take(&mut self.rows);
        for (key, value) in &self.written {
            match value {
                Some(value) => batch.insert(&store.state, &**key, &**value),
                None => batch.remove(&store.state, &**key),
            }
        }
    }

    /// The last batch may be lost: what was in it is written again.
    pub fn renew(&mut self) {
        let mut rows = std::mem::take(&mut self.written);
        rows.append(&mut self.rows);
        self.rows = rows;
    }
}

/// Key of a row of a group: its kind, the group's number, and what it is about.
#[must_use]
pub fn row_key(kind: u8, group: u64, number: Option<u64>) -> Vec<u8> {
    let mut key = vec![kind, b'/'];
    key.extend_from_slice(&group.to_be_bytes());
    if let Some(number) = number {
        key.extend_from_slice(&number.to_be_bytes());
    }
    key
}

/// A row of what waits.
fn row(key: &[u8], value: &[u8]) -> Option<(u64, Waits)> {
    let place = cursor_of(key.get(10..18)?);
    let cursor = cursor_of(key.get(18..)?);
    let waits = match key[0] {
        DELAYED => Waits::Until(place, (!value.is_empty()).then(|| LineId(cursor_of(value)))),
        _ => Waits::In(LineId(place)),
    };
    Some((cursor, waits))
}

/// What is due, in that order, and where the rest begins, if there is any.
///
/// # Errors
///
/// The library's.
pub fn due(
    view: &View,
    store: &Store,
    number: u64,
    from: (u64, u64),
    now_ms: u64,
    limit: usize,
    bytes: usize,
) -> fjall::Result<(Vec<Found>, Option<Due>)> {
    let mut cursors = Vec::new();
    let mut next = None;
    let mut start = row_key(DELAYED, number, Some(from.0));
    start.extend_from_slice(&from.1.to_be_bytes());
    let end = row_key(DELAYED, number, Some(u64::MAX));
    for guard in view.snapshot.range(&store.state, start..end) {
        let (key, value) = guard.into_inner()?;
        let Some((cursor, waits)) = row(&key, &value) else {
            continue;
        };
        let Waits::Until(due, _) = waits else {
            continue;
        };
        if due > now_ms || cursors.len() >= limit {
            next = Some((due, cursor));
            break;
        }
        cursors.push((cursor, waits));
    }
    let asked = cursors.clone();
    let found = find(view, store, number, cursors, bytes, &mut Blocks::default())?;
    if let Some(&(cursor, Waits::Until(due, _))) = asked.get(found.len()) {
        next = Some((due, cursor));
    }
    Ok((found, next))
}

/// The first entries of lines: which, from where, how many of each. Of each that has some one at least, besides as many as have
/// about so many bytes. Entries of several lines stand in the same `blocks`, as what comes at a time is stored together.
///
/// # Errors
///
/// The library's.
pub fn first_of_lines(
    view: &View,
    store: &Store,
    number: u64,
    wanted: &[(LineId, u64, usize)],
    bytes: usize,
    blocks: &mut Blocks,
) -> fjall::Result<Vec<(LineId, Vec<Found>)>> {
    let mut all = Vec::with_capacity(wanted.len());
    let mut left = bytes;
    for &(line, from, limit) in wanted {
        let prefix = row_key(LINED, number, Some(line.0));
        let key = |cursor: u64| [&*prefix, &cursor.to_be_bytes()].concat();
        let rows = view.snapshot.range(&store.state, key(from)..=key(u64::MAX));
        let mut cursors = Vec::new();
        for guard in rows.take(limit) {
            cursors.extend(row(&guard.key()?, &[]));
        }
        let found = find(view, store, number, cursors, left.max(1), blocks)?;
        let entries = found.iter().filter_map(|found| found.entry.as_ref());
        let used: usize = entries.map(|entry| entry.record.bytes()).sum();
        left = left.saturating_sub(used);
        all.push((line, found));
    }
    Ok(all)
}

/// Some of the rows that belong to a line; with `all` also those that only wait for their time.
///
/// # Errors
///
/// The library's.
pub fn some_to_free(
    view: &View,
    store: &Store,
    number: u64,
    all: bool,
    limit: usize,
) -> fjall::Result<Vec<(u64, Waits)>> {
    let mut rows = Vec::new();
    for kind in [LINED, DELAYED] {
        for guard in view
            .snapshot
            .prefix(&store.state, row_key(kind, number, None))
        {
            let (key, value) = guard.into_inner()?;
            match row(&key, &value) {
                Some((_, Waits::Until(0, None))) | None => {}
                Some((_, Waits::Until(_, None))) if !all => {}
                Some(found) => rows.push(found),
            }
            if rows.len() >= limit {
                return Ok(rows);
            }
        }
    }
    Ok(rows)
}

/// Entries that are not done, with their failures and whether somebody has leased them.
///
/// # Errors
///
/// The library's.
pub fn undone(
    view: &View,
    store: &Store,
    number: u64,
    cursors: &[(u64, bool)],
) -> fjall::Result<Vec<Undone>> {
    let waits = Waits::Until(0, None);
    let wanted = cursors.iter().map(|(cursor, _)| (*cursor, waits)).collect();
    let found = find(
        view,
        store,
        number,
        wanted,
        usize::MAX,
        &mut Blocks::default(),
    )?;
    let undone = found
        .into_iter()
        .zip(cursors)
        .filter_map(|(found, (_, is_leased))| {
            Some(Undone {
                entry: found.entry?,
                failures: found.failures,
                is_leased: *is_leased,
            })
        });
    Ok(undone.collect())
}

/// Reads entries and their failures, as many as have about so many bytes, and one in any case.
fn find(
    view: &View,
    store: &Store,
    number: u64,
    cursors: Vec<(u64, Waits)>,
    bytes: usize,
    blocks: &mut Blocks,
) -> fjall::Result<Vec<Found>> {
    let mut found = Vec::with_capacity(cursors.len());
    let mut used = 0;
    for (cursor, waits) in cursors {
        if used >= bytes {
            break;
        }
        let entry = blocks.entry(view, cursor)?;
        used += entry.as_ref().map_or(0, |entry| entry.record.bytes());
        let key = row_key(FAILURES, number, Some(cursor));
        let failures = view.snapshot.get(&store.state, key)?;
        let failures = failures.and_then(|value| serde_json::from_slice(&value).ok());
        found.push(Found {
            cursor,
            waits,
            entry,
            failures: failures.unwrap_or_default(),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_are_a_set(steps in prop::collection::vec((0..4u8, 0..20_000u64), 0..200)) {
            let (mut cursors, mut model) = (Cursors::default(), BTreeSet::new());
            for (what, cursor) in steps {
                match what {
                    0 | 1 => {
                        cursors.insert(cursor);
                        model.insert(cursor);
                    }
                    2 => prop_assert_eq!(cursors.remove(cursor), model.remove(&cursor)),
                    _ => {
                        let kept = model.split_off(&(cursor / 4));
                        prop_assert_eq!(cursors.remove_before(cursor / 4), model.len() as u64);
                        model = kept;
                    }
                }
                prop_assert_eq!(cursors.first(), model.first().copied());
                prop_assert_eq!(cursors.contains(cursor), model.contains(&cursor));
            }
            let all: Vec<u64> = (0..5).flat_map(|chunk| cursors.of_chunk(chunk).collect::<Vec<_>>()).collect();
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        }
    }
}

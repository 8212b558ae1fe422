//! What was stored and not yet given to whoever follows the log.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::Entry;

/// Entries that wait in memory; what is more is read from the disk.
const WAITING_KEPT: usize = 65_536;
/// Bytes of their records.
const WAITING_BYTES_KEPT: usize = 64 << 20;
/// Entries given at once, or those of one commit.
pub const GIVEN_AT_ONCE: usize = 4096;

/// How far the log was followed.
#[derive(Debug, Default)]
pub struct Tail {
    /// Everything up to this cursor was given.
    given: u64,
    /// Everything after this cursor is in `waiting`.
    from: u64,
    /// Of one commit each, with the bytes of their records: what nobody is behind of goes on as it is.
    waiting: VecDeque<(Vec<Arc<Entry>>, usize)>,
    count: usize,
    bytes: usize,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// These.
    Take(Vec<Arc<Entry>>),
    /// What is after this cursor has to be read from the disk.
    Scan(u64),
    /// Nothing is there.
    Wait,
}

impl Tail {
    /// Follows what comes after `end`.
    #[must_use]
    pub fn new(end: u64) -> Self {
        Self {
            given: end,
            from: end,
            ..Self::default()
        }
    }

    /// The next entries of the log, of one commit.
    pub fn push(&mut self, entries: Vec<Arc<Entry>>) {
        let Some(last) = entries.last().map(|entry| entry.cursor) else {
            return;
        };
        let bytes = entries.iter().map(|entry| entry.record.bytes()).sum();
        self.count += entries.len();
        self.bytes += bytes;
        self.waiting.push_back((entries, bytes));
        if self.count > WAITING_KEPT || self.bytes > WAITING_BYTES_KEPT {
            self.miss(last);
        }
    }

    /// What is up to `end` is not in memory.
    pub fn miss(&mut self, end: u64) {
        self.waiting.clear();
        (self.count, self.bytes) = (0, 0);
        self.from = end;
    }

    /// What comes next.
    pub fn next(&mut self, end: u64) -> Next {
        if self.given < self.from {
            return Next::Scan(self.given);
        }
        let mut taken = Vec::new();
        while let Some((entries, _)) = self.waiting.front()
            && (taken.is_empty() || taken.len() + entries.len() <= GIVEN_AT_ONCE)
            && let Some((mut entries, bytes)) = self.waiting.pop_front()
        {
            (self.count, self.bytes) = (self.count - entries.len(), self.bytes - bytes);
            if entries[0].cursor <= self.given {
                entries.retain(|entry| entry.cursor > self.given);
            }
            self.given = (entries.last()).map_or(self.given, |last| self.given.max(last.cursor));
            match taken.is_empty() {
                true => taken = entries,
                false => taken.append(&mut entries),
            }
        }
        match taken.is_empty() {
            false => Next::Take(taken),
            true if self.given < end => Next::Scan(self.given),
            true => Next::Wait,
        }
    }

    /// What comes next has to be read from the disk.
    #[cfg(test)]
    #[must_use]
    pub fn next_is_on_disk(&self) -> bool {
        self.given < self.from
    }

    /// Everything up to this cursor was read from the disk and is given now.
    pub fn give(&mut self, next: u64) {
        self.given = self.given.max(next);
    }

    /// The log was opened again and has entries from `first` to `end`. `false` if that is not the log that was followed.
    pub fn resume(&mut self, first: u64, end: u64) -> bool {
        self.miss(end);
        let is_same = self.given <= end && self.given + 1 >= first;
        if !is_same {
            self.given = end;
        }
        is_same
    }
}

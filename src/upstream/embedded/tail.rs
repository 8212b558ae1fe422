//! What was stored and not yet given to whoever follows the log.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::Entry;

/// Entries that wait in memory; what is more is read from the disk.
const WAITING_KEPT: usize = 65_536;
/// Bytes of their records.
const WAITING_BYTES_KEPT: usize = 64 << 20;
/// Entries given at once.
pub const GIVEN_AT_ONCE: usize = 4096;

/// How far the log was followed.
#[derive(Debug, Default)]
pub struct Tail {
    /// Everything up to this cursor was given.
    given: u64,
    /// Everything after this cursor is in `waiting`.
    from: u64,
    waiting: VecDeque<Arc<Entry>>,
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

    /// The next entry of the log.
    pub fn push(&mut self, entry: &Arc<Entry>) {
        self.bytes += entry.record.bytes();
        self.waiting.push_back(Arc::clone(entry));
        if self.waiting.len() > WAITING_KEPT || self.bytes > WAITING_BYTES_KEPT {
            self.miss(entry.cursor);
        }
    }

    /// What is up to `end` is not in memory.
    pub fn miss(&mut self, end: u64) {
        self.waiting.clear();
        self.bytes = 0;
        self.from = end;
    }

    /// What comes next.
    pub fn next(&mut self, end: u64) -> Next {
        if self.given < self.from {
            return Next::Scan(self.given);
        }
        let mut taken = Vec::new();
        while taken.len() < GIVEN_AT_ONCE {
            let Some(entry) = self.waiting.pop_front() else {
                break;
            };
            self.bytes -= entry.record.bytes();
            if entry.cursor > self.given {
                self.given = entry.cursor;
                taken.push(entry);
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

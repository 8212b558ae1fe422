//! What a group loses when the log forgets entries that it has not done.

use super::{CHUNK_CURSORS, Failure, State};
use crate::model::{ChannelName, Entry};

/// An entry that a group has lost, and what had failed with it as far as that is in memory.
pub struct Lost {
    /// Which.
    pub cursor: u64,
    /// `None` where it is on the disk.
    pub failures: Option<Vec<Failure>>,
}

impl State {
    /// Forgets a channel's entries that are read ahead. What is being read was there before and is read again.
    pub fn trim(&mut self, channel: &ChannelName) {
        let before = self.ahead.len();
        self.ahead.retain(|entry| entry.record.channel != *channel);
        self.lose((before - self.ahead.len()) as u64);
        self.refills += 1;
    }

    /// The log begins at `first` now: what is before it is lost, unless it is in memory. Of what was not looked at, `unread`
    /// was the group's.
    pub fn expire(&mut self, first: u64, unread: u64) {
        if self.read + 1 < first {
            let before = self.ahead.len();
            self.ahead.retain(|entry| entry.cursor >= first);
            self.lose((before - self.ahead.len()) as u64 + unread);
            self.read = first - 1;
            self.scanned = self.scanned.max(self.read);
            self.refills += 1;
            self.is_read_dirty = true;
        }
        let lost = self.parked.expire(first);
        if lost > 0 {
            self.lose(lost);
            let chunks = self.stored.range(..=first / CHUNK_CURSORS);
            self.dirty.extend(chunks);
        }
        let gone: Vec<u64> = self
            .open
            .range(..first)
            .filter(|(_, open)| open.entry.is_none())
            .map(|(cursor, _)| *cursor)
            .collect();
        for cursor in gone {
            self.restore(cursor, None);
        }
    }

    /// Nothing up to this cursor is its business.
    #[must_use]
    pub fn has_done_to(&self, cursor: u64) -> bool {
        let parked = self.parked.cursors().first();
        self.read >= cursor
            && self.open.range(..=cursor).next().is_none()
            && parked.is_none_or(|first| first > cursor)
    }

    /// Some of a stretch of the log may be its own and not done.
    #[must_use]
    pub fn has_any(&self, first: u64, last: u64) -> bool {
        if first > last {
            return false;
        }
        let mut parked = self.parked.cursors().behind(first.saturating_sub(1), 1);
        let is_parked = parked.pop().is_some_and(|cursor| cursor <= last);
        last > self.read || is_parked || self.open.range(first..=last).next().is_some()
    }

    /// Somebody has it.
    #[must_use]
    pub fn has_leased(&self, cursor: u64) -> bool {
        self.open.get(&cursor).is_some_and(|open| open.is_leased)
    }

    /// These entries of its channels, ascending, are forgotten. What somebody has stays with him.
    pub fn forget(
        &mut self,
        cursors: impl Iterator<Item = u64>,
        is_gone: impl Fn(&Entry) -> bool,
    ) -> Vec<Lost> {
        let lost = self.leave_out(cursors, is_gone);
        self.lose(lost.len() as u64);
        lost
    }

    /// The same, where that is no loss.
    pub fn leave_out(
        &mut self,
        cursors: impl Iterator<Item = u64>,
        is_gone: impl Fn(&Entry) -> bool,
    ) -> Vec<Lost> {
        let mut lost = Vec::new();
        for cursor in cursors {
            if let Some(open) = self.open.get(&cursor) {
                if !open.is_leased {
                    let failures = Some(open.failures.clone());
                    self.finish(cursor);
                    lost.push(Lost { cursor, failures });
                }
            } else if self.parked.lose(cursor) {
                self.dirty.insert(cursor / CHUNK_CURSORS);
                let failures = None;
                lost.push(Lost { cursor, failures });
            } else if cursor > self.read {
                let failures = Some(Vec::new());
                lost.push(Lost { cursor, failures });
            }
        }
        self.ahead.retain(|entry| !is_gone(entry));
        // What is being read was there before and is read again.
        self.refills += 1;
        lost
    }
}

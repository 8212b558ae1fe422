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

    /// Entries of its channels are forgotten: cursors of the first and the last of each block. What somebody has stays with him.
    pub fn forget(
        &mut self,
        blocks: impl Iterator<Item = (u64, u64)>,
        is_gone: impl Fn(&Entry) -> bool,
    ) -> Vec<Lost> {
        let mut lost = Vec::new();
        for (first, last) in blocks.filter(|(first, last)| first <= last) {
            let open = self.open.range(first..=last);
            let free: Vec<u64> = open
                .filter(|(_, open)| !open.is_leased)
                .map(|(cursor, _)| *cursor)
                .collect();
            for cursor in free {
                let failures = self.open.get(&cursor).map(|open| open.failures.clone());
                self.finish(cursor);
                lost.push(Lost { cursor, failures });
            }
            for cursor in self.parked.lose(first, last) {
                self.dirty.insert(cursor / CHUNK_CURSORS);
                lost.push(Lost {
                    cursor,
                    failures: None,
                });
            }
            lost.extend((first.max(self.read + 1)..=last).map(|cursor| Lost {
                cursor,
                failures: Some(Vec::new()),
            }));
        }
        self.ahead.retain(|entry| !is_gone(entry));
        // What is being read was there before and is read again.
        self.refills += 1;
        self.lose(lost.len() as u64);
        lost
    }
}

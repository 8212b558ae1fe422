//! Who gets what is ready, and how much more the group could give.

use super::{FETCHED_AT_ONCE, Group, Member, Output, PASSED_PER_TURN, State, Taker};
use crate::limits::{GROUP_HELD_BYTES_MAX, GROUP_HELD_MAX, GROUP_LINED_MAX, GROUP_LINES_MAX};
use crate::time::{Instant, Now};
use crate::upstream::desk::encode::Given;
use crate::upstream::desk::turns::Place;
use crate::upstream::log::Settled;

impl Member {
    /// A connection that has nothing of this group: other groups must not keep it from all of it.
    fn is_alone(&self) -> bool {
        matches!(self.taker, Taker::Connection(_)) && self.has.is_empty()
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.window.fits(bytes) || self.is_alone() && self.window.fits_beside(bytes)
    }
}

impl Group {
    /// Gives ready entries to members with credit and room. Called before outputs are taken. The oldest entry is given first,
    /// so a large one waits until a worker has room and is overtaken by nothing.
    pub fn dispatch(&mut self, now: Now) {
        let mut asked = 0;
        let mut is_cut = false;
        // Where nobody takes, nothing is looked for.
        while !self.rotation.is_empty()
            && let Some(cursor) = self.next_ready(now)
        {
            let Some(held) = self.held.get(&cursor) else {
                unreachable!("what is ready is held")
            };
            let (bytes, place) = (held.wire_bytes, held.place);
            if held.entry.record.is_over(now.unix_ms) {
                self.return_ended(now, cursor, place);
                continue;
            }
            let Some(key) = self.rotation.pop_front() else {
                break;
            };
            let Some(member) = self.members.get_mut(&key) else {
                continue;
            };
            member.in_rotation = false;
            if member.has.len() >= member.credit {
                continue;
            }
            if !member.has_room(bytes) {
                if !member.given.is_empty() {
                    // It is answered with what it has got.
                    continue;
                }
                member.window.miss();
                member.in_rotation = true;
                self.rotation.push_back(key);
                asked += 1;
                self.passed += 1;
                if self.passed >= self.rotation.len() {
                    break;
                }
                if asked >= PASSED_PER_TURN {
                    is_cut = true;
                    break;
                }
                continue;
            }
            (asked, self.passed) = (0, 0);
            match place {
                Some(place) => self.leave_line(now, place.line, cursor),
                None => {
                    self.ready.remove(&cursor);
                }
            }
            self.give(now, key, cursor);
            self.queue(key);
        }
        if !is_cut {
            self.passed = 0;
        }
        for key in std::mem::take(&mut self.served) {
            self.end_fetch(now, key);
        }
    }

    fn give(&mut self, now: Now, key: u64, cursor: u64) {
        let delivery = self.next_delivery();
        let (Some(member), Some(held)) = (self.members.get_mut(&key), self.held.get_mut(&cursor))
        else {
            return;
        };
        let until = match member.taker {
            Taker::Trigger => Instant(u64::MAX),
            Taker::Connection(_) | Taker::Fetch(..) => {
                let until = now.at + self.settings.ack_wait;
                self.timers.insert((until, cursor));
                until
            }
        };
        held.state = State::Given {
            member: key,
            holder: member.taker.holder(),
            worker: member.worker.clone(),
            delivery,
            until,
        };
        let given = Given {
            delivery,
            attempt: held.failed() + 1,
            entry: held.entry.clone(),
        };
        if !held.was_delivered {
            let waited = now.unix_ms.saturating_sub(held.entry.record.unix_ms);
            self.waits.add(waited);
        }
        self.counters.delivered += 1;
        self.counters.redelivered += u64::from(held.was_delivered);
        held.was_delivered = true;
        held.occupies = held.place.is_some();
        member.counts.delivered += 1;
        member.has.insert(cursor);
        member.bytes += held.wire_bytes;
        member.window.take(held.wire_bytes);
        self.deliveries.insert(delivery, cursor);
        match member.taker {
            Taker::Connection(worker) => self.outputs.push_back(Output::Deliver(worker, given)),
            Taker::Trigger => self.outputs.push_back(Output::Triggered(given)),
            Taker::Fetch(..) => {
                if member.given.is_empty() {
                    self.served.push(key);
                }
                member.given.push(given);
            }
        }
    }

    /// What has ended meanwhile is nobody's: the log forgets it.
    fn return_ended(&mut self, now: Now, cursor: u64, place: Option<Place>) {
        match place {
            Some(place) => {
                self.leave_line(now, place.line, cursor);
                if let Some(held) = self.held.get_mut(&cursor) {
                    held.occupies = true;
                }
            }
            None => {
                self.ready.remove(&cursor);
            }
        }
        self.finish(now, cursor, Settled::Returned);
    }

    /// The entry that is given next.
    fn next_ready(&mut self, now: Now) -> Option<u64> {
        if self.settings.paused {
            None
        } else if self.has_lines() {
            self.next_in_lines(now)
        } else {
            self.ready.first().copied()
        }
    }

    /// Somebody may have room who had none: all are asked anew.
    pub fn handle_freed(&mut self) {
        self.passed = 0;
    }

    /// Entries that members would take now, at most `FETCHED_AT_ONCE`, and not more than there is room for. `room` is what all
    /// groups together may hold besides, in bytes.
    #[must_use]
    pub fn wanted(&self, room: usize) -> usize {
        let mut free = 0;
        for key in &self.rotation {
            if let Some(member) = self.members.get(key) {
                let credit = member.credit.saturating_sub(member.has.len());
                let room = member.window.room(self.entry_bytes);
                let room = room.max(usize::from(member.is_alone()));
                if room < credit {
                    member.window.miss();
                }
                free += credit.min(room);
            }
            if free >= FETCHED_AT_ONCE {
                break;
            }
        }
        if self.settings.paused || self.is_releasing || self.is_sorting {
            return 0;
        }
        // Between two fetches nobody is there to take anything: the group would see no further than the backlog in front of it.
        let is_between = self.lingers && self.settings.turns.are_taken() && self.has_idle();
        if self.members.is_empty() && !is_between {
            return 0;
        }
        if self.has_lines() {
            return self.wanted_for_lines(free);
        }
        let wanted = free.min(FETCHED_AT_ONCE).saturating_sub(self.ready.len());
        if self.held.is_empty() && wanted > 0 {
            let fits = room.min(GROUP_HELD_BYTES_MAX) / self.entry_bytes;
            return wanted.min(fits.max(1));
        }
        let entries = GROUP_HELD_MAX.saturating_sub(self.held.len());
        let bytes = GROUP_HELD_BYTES_MAX
            .saturating_sub(self.held_bytes)
            .min(room);
        wanted.min(entries).min(bytes / self.entry_bytes)
    }

    /// Whose turn it is can be said of what was seen only: where keys or lanes take turns, the group looks ahead. What it has no
    /// room for waits in the lines of the log, so that nobody's entries stand in front of others for ever.
    fn wanted_for_lines(&self, free: usize) -> usize {
        if self.lines.count() >= GROUP_LINES_MAX {
            return 0;
        }
        let looks_ahead = self.settings.turns.are_taken() && self.lines.in_log() < GROUP_LINED_MAX;
        if looks_ahead {
            return FETCHED_AT_ONCE;
        }
        let wanted = free
            .min(FETCHED_AT_ONCE)
            .saturating_sub(self.lines.in_turns());
        // Behind a backlog the next line may be far away.
        match wanted > 0 && self.lines.in_log() > 0 {
            true => FETCHED_AT_ONCE,
            false => wanted,
        }
    }
}

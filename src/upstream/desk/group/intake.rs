//! What the log gives: who may have it and when, and what goes back to wait there.

use std::time::Duration;

use super::{Group, Held, Output, State, Taker};
use crate::config::namespace::is_queue;
use crate::limits::{ACK_WAIT_MAX, GROUP_HELD_BYTES_MAX};
use crate::model::Entry;
use crate::time::Now;
use crate::upstream::desk::encode::delivery_bytes;
use crate::upstream::desk::picks::Pick;
use crate::upstream::desk::turns::Place;
use crate::upstream::log::{EXPIRED, Failure, Leased, Settled};

/// What becomes of an entry whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It is not.
    No,
    /// It is lost.
    Lost,
    /// It is a dead letter.
    Letter,
}

impl Group {
    /// The log gave these.
    pub fn handle_leased(&mut self, now: Now, leased: Vec<Leased>) {
        if !self.has_to_keep() {
            self.keep_at = now.at + self.settings.lease() / 3;
        }
        for leased in leased {
            self.admit(now, leased, (false, Ended::No));
        }
    }

    /// The log gave this after its time was over.
    pub fn handle_ended(&mut self, now: Now, leased: Leased, becomes_letter: bool) {
        let ended = match becomes_letter {
            true => Ended::Letter,
            false => Ended::Lost,
        };
        self.admit(now, leased, (false, ended));
    }

    /// The log gave this of a line.
    pub(super) fn admit_from_line(&mut self, now: Now, leased: Leased) {
        self.admit(now, leased, (true, Ended::No));
    }

    fn admit(&mut self, now: Now, leased: Leased, (is_of_line, ended): (bool, Ended)) {
        let Leased {
            lease,
            entry,
            failures,
            mut was_delayed,
        } = leased;
        let cursor = entry.cursor;
        if let Some(held) = self.held.get_mut(&cursor) {
            // The log believed the lease to be over: the newer one counts.
            held.lease = lease;
            return;
        }
        let channel = entry.record.channel.whole();
        if is_queue(channel) && channel != &*self.own_channel {
            self.settled.push((lease, Settled::Done));
            return;
        }
        // Whoever put it into the queue of this group has chosen it.
        let pick = match is_queue(channel) {
            true => Pick::Taken,
            false => self.picker.pick(&entry.record),
        };
        if pick == Pick::Passed {
            self.counters.passed += 1;
            self.settled.push((lease, Settled::Done));
            return;
        }
        if ended == Ended::Lost {
            self.settled.push((lease, Settled::Lost));
            return;
        }
        let bytes = entry.record.bytes() + size_of::<Entry>();
        let wire_bytes = delivery_bytes(&self.name, &entry);
        self.entry_bytes = ((self.entry_bytes * 7 + bytes) / 8).max(size_of::<Entry>());
        self.held_bytes += bytes;
        let wait = failures
            .last()
            .filter(|_| !was_delayed)
            .map_or(Duration::ZERO, |last| self.wait_behind(now, last));
        let held = Held {
            lease,
            was_delivered: !failures.is_empty(),
            failures,
            bytes,
            wire_bytes,
            losses: 0,
            not_before: now.at + wait,
            place: self.place_of_entry(&entry),
            occupies: false,
            entry,
            state: State::Retry,
        };
        let is_dead = held.failed() >= self.settings.max_attempts;
        let place = held.place;
        self.held.insert(cursor, held);
        if let Some(place) = place {
            if is_of_line {
                self.learn_line(place);
            }
            if self.settings.ordered {
                was_delayed = self.woken_in_line(place, cursor, was_delayed);
            }
        }
        if ended == Ended::Letter {
            self.occupy(cursor);
            self.record_failure(now, cursor, EXPIRED, 0);
            self.bury(now, cursor);
        } else if let Pick::Unreadable(reason) = pick {
            self.occupy(cursor);
            self.record_failure(now, cursor, &reason, 0);
            self.bury(now, cursor);
        } else if is_dead {
            self.occupy(cursor);
            self.bury(now, cursor);
        } else if !wait.is_zero() {
            self.occupy(cursor);
            self.retry_later(now, cursor);
        } else if let Some(place) = place
            && !is_of_line
            && !(was_delayed && self.settings.ordered)
            && !self.has_line_room(place.line)
        {
            self.line_in_log(now, place, cursor);
        } else {
            self.make_ready(now, cursor);
        }
    }

    /// How long an entry waits behind its last failure, which an earlier process may have seen.
    fn wait_behind(&self, now: Now, last: &Failure) -> Duration {
        let (due, most) = match last.next_unix_ms {
            0 => {
                let nominal = self.settings.backoff.nominal(last.attempt);
                let due = last.unix_ms + u64::try_from(nominal.as_millis()).unwrap_or(0);
                (due, self.settings.backoff.cap)
            }
            due => {
                let pause = due.saturating_sub(last.unix_ms);
                (due, Duration::from_millis(pause).min(ACK_WAIT_MAX))
            }
        };
        // A clock that was set back makes nobody wait longer than was meant.
        Duration::from_millis(due.saturating_sub(now.unix_ms)).min(most)
    }

    fn place_of_entry(&self, entry: &Entry) -> Option<Place> {
        let ordered = self.settings.ordered;
        let has_lines = self.has_lines();
        has_lines.then(|| self.settings.turns.place(entry, ordered))
    }

    /// Where a held entry stands.
    pub(super) fn place_of(&self, cursor: u64) -> Option<Place> {
        let held = self.held.get(&cursor)?;
        self.place_of_entry(&held.entry)
    }

    /// It may be given now.
    pub(super) fn make_ready(&mut self, now: Now, cursor: u64) {
        let Some(held) = self.held.get_mut(&cursor) else {
            return;
        };
        held.state = State::Ready;
        match held.place {
            Some(place) => self.ready_in_line(now, place, cursor),
            None => {
                self.ready.insert(cursor);
            }
        }
    }

    /// It was under way and waits for its next attempt: here for a short while, else in the log.
    pub(super) fn retry_later(&mut self, now: Now, cursor: u64) {
        let is_tight = self.held.len() > self.bounds.retries_kept
            || self.held_bytes > GROUP_HELD_BYTES_MAX / 4;
        let Some(held) = self.held.get_mut(&cursor) else {
            return;
        };
        let wait = held.not_before.since(now.at);
        if wait.is_zero() {
            return self.retry_now(now, cursor);
        }
        if (wait < self.bounds.retry_kept && !is_tight) || self.is_releasing {
            held.state = State::Retry;
            self.timers.insert((held.not_before, cursor));
            if !self.settings.ordered {
                self.vacate(now, cursor);
            }
            return;
        }
        let until_unix_ms = now.unix_ms + u64::try_from(wait.as_millis()).unwrap_or(0);
        // Where no order is kept, others of the line go on meanwhile.
        let place = held.place.filter(|_| self.settings.ordered);
        let line = place.map(|place| place.line);
        if let Some(place) = place {
            self.delayed_in_line(place, cursor);
        }
        self.finish(
            now,
            cursor,
            Settled::Delayed {
                until_unix_ms,
                line,
            },
        );
    }

    /// It is time for its next attempt.
    pub(super) fn retry_now(&mut self, now: Now, cursor: u64) {
        self.make_ready(now, cursor);
        self.vacate(now, cursor);
    }

    /// It keeps others of its line back.
    fn occupy(&mut self, cursor: u64) {
        if let Some(held) = self.held.get_mut(&cursor)
            && let Some(place) = held.place
            && !std::mem::replace(&mut held.occupies, true)
        {
            self.occupy_line(place);
        }
    }

    /// It keeps nothing back any more.
    pub(super) fn vacate(&mut self, now: Now, cursor: u64) {
        if let Some(held) = self.held.get_mut(&cursor)
            && let Some(place) = held.place
            && std::mem::take(&mut held.occupies)
        {
            self.free_line(now, place.line);
        }
    }

    /// Returns what is neither given nor waiting for a retry.
    pub(super) fn give_back_idle(&mut self, now: Now) {
        self.lingers = false;
        for cursor in std::mem::take(&mut self.ready) {
            if let Some(held) = self.held.remove(&cursor) {
                self.held_bytes -= held.bytes;
                self.settled.push((held.lease, Settled::Returned));
            }
        }
        // In front of what the log has of their lines already.
        let ready = self.take_ready_of_lines();
        for cursor in ready {
            if let Some(place) = self.held.get(&cursor).and_then(|held| held.place) {
                self.line_in_log(now, place, cursor);
            }
        }
        // What waits while nobody here takes anything is for others as well.
        self.has_gone_idle |= std::mem::take(&mut self.has_parked);
    }

    pub(super) fn has_idle(&self) -> bool {
        !self.ready.is_empty() || self.lines.ready() > 0
    }

    /// Something is leased that has to be spoken of in time.
    pub(super) fn has_to_keep(&self) -> bool {
        !self.held.is_empty() || self.lines.in_log() > 0 || self.lines.delayed() > 0
    }

    /// The log is to hear from the group, though there may be nothing to say.
    pub fn take_turn_to_speak(&mut self) -> bool {
        std::mem::take(&mut self.has_to_speak)
    }

    /// The log has to release its lines, before anything else is taken in.
    #[must_use]
    pub const fn is_releasing(&self) -> bool {
        self.is_releasing
    }

    /// It has.
    pub fn handle_released(&mut self) {
        self.is_releasing = false;
    }

    /// Whoever takes from the group hears whether it is paused.
    pub(super) fn tell_paused(&mut self) {
        let paused = self.settings.paused;
        let takers = self.takers.keys().filter_map(|taker| match taker {
            Taker::Connection(worker) => Some(*worker),
            Taker::Fetch(..) | Taker::Trigger => None,
        });
        let told: Vec<Output> = takers
            .map(|worker| Output::Paused(worker, paused))
            .collect();
        self.outputs.extend(told);
    }
}

//! Which entries may be given: all but those that wait for their next attempt, or behind another one of their channel.

use std::time::Duration;

use super::{Group, Held, State};
use std::collections::BTreeSet;

use crate::model::{ChannelName, Entry};
use crate::time::Now;
use crate::upstream::desk::encode::delivery_bytes;
use crate::upstream::desk::settings::QUEUE_PREFIX;
use crate::upstream::log::{Leased, Settled};

impl Group {
    pub(super) fn admit(&mut self, now: Now, leased: Leased) {
        let Leased {
            lease,
            entry,
            failures,
        } = leased;
        let cursor = entry.cursor;
        if let Some(held) = self.held.get_mut(&cursor) {
            // The log believed the lease to be over: the newer one counts.
            held.lease = lease;
            return;
        }
        let channel = entry.record.channel.as_str();
        if channel.starts_with(QUEUE_PREFIX) && channel != &*self.own_channel {
            self.settled.push((lease, Settled::Done));
            return;
        }
        let bytes = entry.record.bytes() + size_of::<Entry>();
        let wire_bytes = delivery_bytes(&self.name, &entry);
        self.entry_bytes = ((self.entry_bytes * 7 + bytes) / 8).max(size_of::<Entry>());
        self.held_bytes += bytes;
        let not_before = failures.last().map_or(now.at, |last| {
            let failed = u32::try_from(failures.len()).unwrap_or(u32::MAX);
            let due = last.unix_ms + self.settings.backoff.nominal(failed).as_millis() as u64;
            let wait = due.saturating_sub(now.unix_ms);
            // A clock that was set back makes nobody wait longer than the rule.
            now.at + Duration::from_millis(wait).min(self.settings.backoff.cap)
        });
        let is_dead = failures.len() >= self.settings.max_attempts as usize;
        let held = Held {
            lease,
            entry,
            was_delivered: !failures.is_empty(),
            failures,
            bytes,
            wire_bytes,
            losses: 0,
            not_before,
            state: State::Waiting,
        };
        let channel = held.entry.shown_at().0.clone();
        self.held.insert(cursor, held);
        if self.settings.ordered {
            let lane = self.lanes.entry(channel.clone()).or_default();
            if is_dead {
                lane.active += 1;
            } else {
                lane.waiting.insert(cursor);
                self.advance(now, &channel);
                return;
            }
        }
        if is_dead {
            self.bury(now, cursor);
        } else {
            self.make_ready(now, cursor);
        }
    }

    /// It is given as soon as it may be.
    pub(super) fn make_ready(&mut self, now: Now, cursor: u64) {
        let Some(held) = self.held.get_mut(&cursor) else {
            return;
        };
        if held.not_before > now.at {
            held.state = State::Retry;
            self.timers.insert((held.not_before, cursor));
        } else {
            held.state = State::Ready;
            self.ready.insert(cursor);
        }
    }

    /// The next one of a channel has its turn if no other has it.
    pub(super) fn advance(&mut self, now: Now, channel: &ChannelName) {
        let Some(lane) = self.lanes.get_mut(channel) else {
            return;
        };
        if lane.active > 0 {
            return;
        }
        if let Some(cursor) = lane.waiting.pop_first() {
            lane.active = 1;
            self.make_ready(now, cursor);
        } else {
            self.lanes.remove(channel);
        }
    }

    /// Returns what is neither given nor waiting for a retry.
    pub(super) fn give_back_idle(&mut self) {
        let mut cursors = std::mem::take(&mut self.ready);
        if self.settings.ordered {
            for cursor in &cursors {
                if let Some(held) = self.held.get(cursor)
                    && let Some(lane) = self.lanes.get_mut(held.entry.shown_at().0)
                {
                    lane.active = lane.active.saturating_sub(1);
                }
            }
            for lane in self.lanes.values_mut() {
                cursors.append(&mut lane.waiting);
            }
            self.lanes.retain(|_, lane| lane.active > 0);
        }
        for cursor in cursors {
            if let Some(held) = self.held.remove(&cursor) {
                self.held_bytes -= held.bytes;
                self.settled.push((held.lease, Settled::Returned));
            }
        }
    }

    pub(super) fn leave_lanes(&mut self, now: Now) {
        let lanes = std::mem::take(&mut self.lanes);
        let waiting: BTreeSet<u64> = lanes.into_values().flat_map(|lane| lane.waiting).collect();
        for cursor in waiting {
            self.make_ready(now, cursor);
        }
    }

    pub(super) fn enter_lanes(&mut self, now: Now) {
        let ready = std::mem::take(&mut self.ready);
        for (cursor, held) in &mut self.held {
            let lane = self
                .lanes
                .entry(held.entry.shown_at().0.clone())
                .or_default();
            if ready.contains(cursor) {
                held.state = State::Waiting;
                lane.waiting.insert(*cursor);
            } else {
                lane.active += 1;
            }
        }
        let channels: Vec<ChannelName> = self.lanes.keys().cloned().collect();
        for channel in channels {
            self.advance(now, &channel);
        }
    }

    pub(super) fn has_idle(&self) -> bool {
        !self.ready.is_empty() || self.lanes.values().any(|lane| !lane.waiting.is_empty())
    }
}

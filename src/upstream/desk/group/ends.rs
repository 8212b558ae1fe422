//! How workers and the group itself come to an end: what somebody had goes to others.

use std::sync::Arc;

use super::lines::Lines;
use super::{Group, Held, Holder, LOSSES_PER_ATTEMPT, Output, State, Taker};
use crate::model::Entry;
use crate::time::Now;
use crate::upstream::desk::{Asker, WorkerId};
use crate::upstream::log::{Lease, LineId, Settled};

impl Group {
    /// What is held, in the order of the log.
    pub(super) fn cursors(&self) -> Vec<u64> {
        let mut cursors: Vec<u64> = self.held.keys().copied().collect();
        cursors.sort_unstable();
        cursors
    }

    /// It takes nothing any more: what it has goes to others, and this is no attempt. `false`: it did not take.
    pub fn handle_left(&mut self, now: Now, taker: Taker) -> bool {
        let Some(&key) = self.takers.get(&taker) else {
            return false;
        };
        let has = self.remove_member(now, key);
        for cursor in has {
            self.give_back(now, cursor);
        }
        true
    }

    /// A connection takes nothing any more: what it has, however it got it, goes to others, and this is no attempt. Where it
    /// `has_ended`, what many connections have ended with is taken to be the reason for it. How many deliveries it had.
    pub fn handle_gone(&mut self, now: Now, worker: WorkerId, has_ended: bool) -> usize {
        if let Some(&key) = self.takers.get(&Taker::Connection(worker)) {
            // What it has is found below, with what it has fetched.
            self.remove_member(now, key);
        }
        let asks = |taker: &Taker| matches!(taker, Taker::Fetch(_, Some(asks)) if *asks == worker);
        let waiting = self.takers.iter().filter(|(taker, _)| asks(taker));
        for key in waiting.map(|(_, &key)| key).collect::<Vec<u64>>() {
            // The answer finds nobody.
            self.end_fetch(now, key);
        }
        let is_its = |held: &Held| matches!(held.state, State::Given { holder: Holder::Connection(has), .. } if has == worker);
        let mut its = self.cursors();
        its.retain(|cursor| self.held.get(cursor).is_some_and(is_its));
        let had = its.len();
        for cursor in its {
            if has_ended {
                self.lose(now, cursor);
            } else {
                self.give_back(now, cursor);
            }
        }
        had
    }

    /// The service that asked is gone: it gets nothing. `false`: it does not wait.
    pub fn handle_abandoned(&mut self, now: Now, asker: Asker) -> bool {
        let Some(&key) = self.takers.get(&Taker::Fetch(asker, None)) else {
            return false;
        };
        self.end_fetch(now, key);
        true
    }

    /// What this holder has. `None`: there is no such delivery, or it is somebody else's.
    #[must_use]
    pub fn entry_of(&self, holder: Holder, delivery: u64) -> Option<Arc<Entry>> {
        let cursor = self.delivered(holder, delivery)?;
        Some(Arc::clone(&self.held.get(&cursor)?.entry))
    }

    /// This delivery found nobody: it goes to others, and this is no attempt. `false`: it is somebody else's.
    pub fn handle_returned(&mut self, now: Now, holder: Holder, delivery: u64) -> bool {
        let Some(cursor) = self.delivered(holder, delivery) else {
            return false;
        };
        self.give_back(now, cursor);
        true
    }

    /// It waits in this line of the log until whoever had it asks for it there. `false`: it is somebody else's.
    pub fn handle_lined(&mut self, now: Now, holder: Holder, delivery: u64, line: LineId) -> bool {
        let Some(cursor) = self.delivered(holder, delivery) else {
            return false;
        };
        self.take_back(cursor);
        self.finish(now, cursor, Settled::Lined(line));
        true
    }

    /// So many wait in lines on behalf of whoever had them: their leases have to be spoken of.
    pub fn handle_waiting(&mut self, waiting: usize) {
        self.lines.keep(waiting as u64);
    }

    /// So many that waited so are done, and so many have become dead letters.
    pub const fn handle_gathered(&mut self, done: u64, dead: u64) {
        self.counters.acked += done;
        self.counters.dead += dead;
    }

    /// Nobody has it any more, and it may be given at once.
    fn give_back(&mut self, now: Now, cursor: u64) {
        self.take_back(cursor);
        self.retry_now(now, cursor);
    }

    /// The connection that had it has ended.
    fn lose(&mut self, now: Now, cursor: u64) {
        let Some(held) = self.held.get_mut(&cursor) else {
            return;
        };
        held.losses += 1;
        if held.losses % LOSSES_PER_ATTEMPT == 0 {
            self.fail(now, cursor, "connection_lost", None);
        } else {
            self.give_back(now, cursor);
        }
    }

    /// The end, or the group is forgotten: everything is returned, waiting fetches are over. Nobody takes from it any more.
    pub fn handle_closed(&mut self, now: Now) {
        while let Some(&(_, key)) = self.fetches.first() {
            self.end_fetch(now, key);
        }
        let returned = self
            .held
            .values()
            .map(|held| (held.lease, Settled::Returned));
        self.settled.extend(returned);
        self.held.clear();
        self.held_bytes = 0;
        self.ready.clear();
        self.lines = Lines::default();
        self.deliveries.clear();
        self.timers.clear();
        self.members.clear();
        self.takers.clear();
        self.rotation.clear();
    }

    /// The group begins anew elsewhere: whatever it held is none of its business any more. Whoever takes from it stays.
    pub fn handle_emptied(&mut self) {
        for cursor in self.cursors() {
            self.take_back(cursor);
        }
        self.held.clear();
        self.held_bytes = 0;
        self.ready.clear();
        self.lines = Lines::default();
        self.deliveries.clear();
        self.timers.clear();
        self.settled.clear();
        (self.is_releasing, self.is_sorting) = (false, false);
    }

    /// The lease of what is held.
    #[must_use]
    pub fn lease_of(&self, cursor: u64) -> Option<Lease> {
        self.held.get(&cursor).map(|held| held.lease)
    }

    /// The group is deleted: whoever takes from it, or waits, is told so. `handle_closed` follows.
    pub fn handle_deleted(&mut self, now: Now) {
        let takers: Vec<(Taker, u64)> = self
            .takers
            .iter()
            .map(|(&taker, &key)| (taker, key))
            .collect();
        for (taker, key) in takers {
            match taker {
                Taker::Connection(worker) => {
                    self.remove_member(now, key);
                    self.outputs.push_back(Output::Deleted(worker));
                }
                Taker::Fetch(asker, _) => {
                    if let Some(member) = self.members.get(&key) {
                        self.fetches.remove(&(member.until, key));
                    }
                    self.remove_member(now, key);
                    self.outputs.push_back(Output::Ended(asker));
                }
                Taker::Trigger => {}
            }
        }
    }
}

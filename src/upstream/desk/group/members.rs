//! Who takes entries, and in which order.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::{Group, Member, Output, Taker, Window};
use crate::limits::GROUP_MEMBERS_MAX;
use crate::time::{Instant, Now};

impl Group {
    pub(super) fn add(
        &mut self,
        taker: Taker,
        credit: usize,
        window: &Rc<Window>,
        worker: &str,
        until: Instant,
    ) -> Option<u64> {
        if self.members.len() >= GROUP_MEMBERS_MAX {
            return None;
        }
        let key = self.next_member;
        self.next_member += 1;
        self.takers.insert(taker, key);
        self.members.insert(
            key,
            Member {
                taker,
                worker: worker.into(),
                credit,
                window: Rc::clone(window),
                has: BTreeSet::new(),
                bytes: 0,
                in_rotation: false,
                until,
                given: Vec::new(),
            },
        );
        self.idle_since = None;
        self.queue(key);
        Some(key)
    }

    /// What it has stays given.
    pub(super) fn remove_member(&mut self, now: Now, key: u64) -> BTreeSet<u64> {
        let Some(member) = self.members.remove(&key) else {
            return BTreeSet::new();
        };
        self.takers.remove(&member.taker);
        // The bytes of an answer are under way until it is known to be taken.
        if let Taker::Connection(worker) = member.taker
            && member.window.give(member.bytes)
        {
            self.outputs.push_back(Output::Freed(worker));
        }
        if self.rotation.len() > 2 * self.members.len() + 16 {
            let members = &self.members;
            self.rotation.retain(|key| members.contains_key(key));
        }
        if self.members.is_empty() {
            self.idle_since = Some(now.at);
        }
        member.has
    }

    /// It stands in the rotation if it has credit.
    pub(super) fn queue(&mut self, key: u64) {
        if let Some(member) = self.members.get_mut(&key)
            && !member.in_rotation
            && member.has.len() < member.credit
        {
            member.in_rotation = true;
            self.rotation.push_back(key);
        }
    }

    pub(super) fn end_fetch(&mut self, now: Now, key: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        self.fetches.remove(&(member.until, key));
        let given = std::mem::take(&mut member.given);
        if let Taker::Fetch(asker, _) = member.taker {
            let bytes = member.bytes;
            self.outputs.push_back(Output::Fetched(asker, given, bytes));
        }
        self.remove_member(now, key);
    }
}

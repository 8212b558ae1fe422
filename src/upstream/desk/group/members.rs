//! Who takes entries, and in which order.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Group, Member, Output, State, Taker, Window, WorkerCounts};
use crate::limits::GROUP_MEMBERS_MAX;
use crate::model::Entry;
use crate::time::{Instant, Now};

/// Deliveries that are shown of one worker.
const HAVINGS_SHOWN: usize = 100;

/// A worker, for people.
#[derive(Debug)]
pub struct WorkerReport {
    /// User and client id.
    pub name: Arc<str>,
    /// A fetch that waits; else a connection that takes messages.
    pub is_fetch: bool,
    /// Deliveries that it may have.
    pub credit: usize,
    /// Deliveries that it has.
    pub under_way: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// What has become of others.
    pub counts: WorkerCounts,
    /// The first of those that it has.
    pub has: Vec<Having>,
}

/// A delivery that is under way, for people.
#[derive(Debug)]
pub struct Having {
    /// Its number.
    pub delivery: u64,
    /// From 1.
    pub attempt: u32,
    /// What it is.
    pub entry: Arc<Entry>,
    /// Until it runs out.
    pub left: Duration,
}

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
                counts: WorkerCounts::default(),
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
            self.lingers = true;
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

    /// Who takes from it, and what each has.
    #[must_use]
    pub fn worker_reports(&self, now: Now) -> Vec<WorkerReport> {
        let report = |member: &Member| WorkerReport {
            name: member.worker.clone(),
            is_fetch: matches!(member.taker, Taker::Fetch(..)),
            credit: member.credit,
            bytes: member.bytes,
            counts: member.counts,
            has: member
                .has
                .iter()
                .filter_map(|cursor| {
                    let held = self.held.get(cursor)?;
                    let State::Given {
                        delivery, until, ..
                    } = &held.state
                    else {
                        return None;
                    };
                    Some(Having {
                        delivery: *delivery,
                        attempt: held.failed() + 1,
                        entry: held.entry.clone(),
                        left: until.since(now.at),
                    })
                })
                .take(HAVINGS_SHOWN)
                .collect(),
            under_way: member.has.len(),
        };
        self.members.values().map(report).collect()
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

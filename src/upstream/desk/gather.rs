//! Joins at work: parts are put into lines of the log as they come, and taken from there when their join is over.
//!
//! What is over is closed in this order: all parts are read, what is joined is appended under a key, what was done is kept (`join/<group>`),
//! letters are made, and then the parts are settled. Whoever dies before the second finds the same parts again and appends under the
//! same key; who dies behind it knows of each part that comes again what became of it, so it is no part of a later join.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::group::{Group, Holder};
use super::join::{Arrival, Closing, End, Joins};
use super::parts::Joining;
use super::triggers::{Fault, Rule};
use super::{Inner, Outlet, Place, RETRY, unix_ms};
use crate::limits::FAILURE_REASON_BYTES_MAX;
use crate::mesh::durable::LogError;
use crate::model::Entry;
use crate::upstream::log::{
    DeadLetter, Entries, Failure, Groups, Lease, Leased, Letters, LineId, Settled, Values,
};

/// Parts that are read of a line at a time.
const READ_OF_LINE: usize = 1024;
/// Lines that are read at a time.
const READ_AT_ONCE: usize = 64;
/// Whether everything has come is looked at this often while some wait for too long.
const LOOK_MS: u64 = 200;
/// Who failed, in letters.
const WORKER: &str = "trigger";

/// Where it is kept what became of the joins that were closed last.
pub(super) fn kept_at(group: &str) -> String {
    format!("join/{group}")
}

/// Where a part is now: its lease, and the line that it waited in.
struct Found {
    lease: Lease,
    line: LineId,
    entry: Arc<Entry>,
    failures: Vec<Failure>,
}

impl Place {
    /// The rule of its trigger, where that joins.
    pub(super) fn joining(&self) -> Option<Rc<Rule>> {
        let rule = self.trigger.borrow();
        rule.as_ref()
            .filter(|rule| rule.joining().is_some())
            .cloned()
    }
}

impl Joins {
    /// When there is something to look at, if nothing comes.
    pub(super) fn pause(&self, now_ms: u64) -> Option<std::time::Duration> {
        if self.are_closing() {
            // What is new is taken in meanwhile.
            return Some(std::time::Duration::ZERO);
        }
        let wait = self.next_due()?.saturating_sub(now_ms).max(LOOK_MS);
        Some(std::time::Duration::from_millis(wait))
    }
}

impl<L: Entries + Groups + Letters + Values, O: Outlet> Inner<L, O> {
    /// What its trigger was given goes where it belongs. Called by whoever drives the group.
    pub(super) fn take_parts(self: &Rc<Self>, place: &Rc<Place>, group: &mut Group) {
        let mut joins = place.joins.borrow_mut();
        let rule = place.joining();
        let Some((rule, joining)) = rule.as_ref().and_then(|rule| Some((rule, rule.joining()?)))
        else {
            // It has joined before.
            for given in joins.incoming.drain(..) {
                tokio::task::spawn_local(Rc::clone(self).trigger(Rc::clone(place), given));
            }
            return;
        };
        if place.is_unsure_of_lines.get() {
            // They come behind those that wait already.
            return;
        }
        let now = self.now();
        let holder = Holder::Trigger;
        while let Some(given) = joins.incoming.pop_front() {
            let delivery = given.delivery;
            match arrived(rule, joining, &given.entry, now.unix_ms) {
                Ok(Some(arrival)) => {
                    let line = joins.line_of(&arrival.key);
                    if group.handle_lined(now, holder, delivery, line) {
                        joins.add(joining.within, &arrival);
                    }
                }
                Ok(None) => {
                    group.handle_acked(now, holder, delivery);
                }
                Err(Fault::Failed(reason)) => {
                    group.handle_failed(now, holder, delivery, &reason, None);
                }
                Err(Fault::Hopeless(reason)) => {
                    group.handle_hopeless(now, holder, delivery, &reason);
                }
            }
        }
        group.handle_waiting(joins.waiting());
    }

    /// The group begins anew.
    pub(super) async fn forget_joins(&self, place: &Place) {
        if place.joining().is_none() {
            return;
        }
        place.joins.borrow_mut().forget();
        place.is_unsure_of_lines.set(true);
        if let Err(error) = self.log.put(&kept_at(&place.name), None).await {
            tracing::warn!(%error, group = &*place.name, "joins of before are not forgotten");
        }
    }

    /// Closes what is over. `true`: it looks again at once.
    pub(super) async fn tend_joins(
        &self,
        place: &Rc<Place>,
        rule: &Rc<Rule>,
        unsettled: &mut Vec<(Lease, Settled)>,
    ) -> bool {
        let Some(joining) = rule.joining() else {
            return false;
        };
        let tended = async {
            if place.is_unsure_of_lines.get() {
                self.read_parts(place, rule, joining).await?;
                place.is_unsure_of_lines.set(false);
                return Ok(true);
            }
            self.look_at_overdue(place, joining).await?;
            if !place.joins.borrow().are_closing() {
                return Ok(false);
            }
            if place.joins.borrow().is_unstored {
                self.log.store_settled(&place.name).await?;
                place.joins.borrow_mut().is_unstored = false;
            }
            let closings = place.joins.borrow_mut().take_closing();
            let closed = self.close(place, rule, joining, closings, unsettled).await;
            let waiting = place.joins.borrow().waiting();
            place.group.borrow_mut().handle_waiting(waiting);
            // New parts are taken in between.
            closed.map(|()| !place.joins.borrow().are_closing())
        };
        match tended.await {
            Ok(looks_again) => looks_again,
            Err(error) => self.later(place, &error).await,
        }
    }

    /// What was joined before waits in lines: who was killed, or reads with other rules, reads all of it again.
    async fn read_parts(
        &self,
        place: &Rc<Place>,
        rule: &Rule,
        joining: &Joining,
    ) -> Result<(), LogError> {
        let name = &*place.name;
        let kept = self.log.get(&kept_at(name)).await?;
        let seed = self.rng.borrow_mut().bits();
        let now_ms = unix_ms();
        let mut joins = std::mem::take(&mut *place.joins.borrow_mut());
        joins.restart(seed);
        let mut waiting: BTreeMap<u64, Arrival<'static>> = BTreeMap::new();
        let mut returned = Vec::new();
        let mut take = |joins: &Joins, leased: Leased| {
            let arrived = arrived(rule, joining, &leased.entry, now_ms);
            match arrived {
                Ok(Some(arrival)) => {
                    let line = joins.line_of(&arrival.key);
                    waiting.insert(arrival.part.cursor, arrival.into_owned());
                    Some((leased.lease, Settled::Lined(line)))
                }
                // They are judged when they come as usual.
                Ok(None) | Err(_) => {
                    returned.push((leased.lease, Settled::Returned));
                    None
                }
            }
        };
        let read = async {
            let mut lines: Vec<LineId> = self
                .log
                .lines(name)
                .await?
                .iter()
                .map(|line| line.id)
                .collect();
            while !lines.is_empty() {
                let first = lines.len().saturating_sub(READ_AT_ONCE);
                let some: Vec<(LineId, usize)> =
                    lines.drain(first..).map(|id| (id, READ_OF_LINE)).collect();
                let given = self.log.fetch_lines(name, &some).await?;
                let mut lined = Vec::new();
                for line in given {
                    if line.left > 0 {
                        lines.push(line.id);
                    }
                    let leased = line.leased.into_iter();
                    lined.extend(leased.filter_map(|leased| take(&joins, leased)));
                }
                self.settle_at_last(place, &lined).await?;
            }
            loop {
                let left_over = self.log.left_over(name, READ_OF_LINE).await?;
                if left_over.is_empty() {
                    return Ok(());
                }
                let leased = left_over.into_iter();
                let lined: Vec<_> = leased.filter_map(|leased| take(&joins, leased)).collect();
                self.settle_at_last(place, &lined).await?;
            }
        };
        let read = read.await;
        let settled = self.settle_at_last(place, &returned).await;
        if read.is_ok() && settled.is_ok() {
            if let Some(kept) = kept {
                joins.recall(&kept);
            }
            for arrival in waiting.values() {
                joins.add(joining.within, arrival);
            }
            place.group.borrow_mut().handle_waiting(joins.waiting());
        }
        // What came meanwhile is behind what has waited.
        joins
            .incoming
            .append(&mut place.joins.borrow_mut().incoming);
        *place.joins.borrow_mut() = joins;
        read.and(settled)
    }

    /// Says it until the log has heard it: what was taken out of lines is nobody's before. Fails when the group is deleted.
    async fn settle_at_last(
        &self,
        place: &Rc<Place>,
        settled: &[(Lease, Settled)],
    ) -> Result<(), LogError> {
        loop {
            let Err(error) = self.log.settle(&place.name, settled).await else {
                return Ok(());
            };
            self.look_whether_deleted(place).await;
            if place.is_gone.get() || self.is_closed.get() {
                return Err(error);
            }
            tracing::debug!(%error, group = &*place.name, "lines are settled again");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Gives up what waits too long, once it is known that nothing of it is behind.
    async fn look_at_overdue(&self, place: &Place, joining: &Joining) -> Result<(), LogError> {
        let now_ms = unix_ms();
        let is_unknown = {
            let mut joins = place.joins.borrow_mut();
            joins.are_overdue(now_ms) && joins.expire(now_ms, joining.within, false)
        };
        if !is_unknown {
            return Ok(());
        }
        let lag = self.log.lag(&place.name).await?;
        let mut joins = place.joins.borrow_mut();
        let undone = lag.entries + lag.delayed + lag.leased;
        let is_seen = joins.incoming.is_empty() && undone <= joins.waiting() as u64;
        joins.expire(now_ms, joining.within, is_seen);
        Ok(())
    }

    /// See the module. What cannot be done now goes back into its lines, and is closed later.
    async fn close(
        &self,
        place: &Place,
        rule: &Rule,
        joining: &Joining,
        mut closings: Vec<Closing>,
        unsettled: &mut Vec<(Lease, Settled)>,
    ) -> Result<(), LogError> {
        let mut found = BTreeMap::new();
        let mut failed = self.find(place, &closings, &mut found).await.err();
        let mut back = Vec::new();
        if failed.is_none() {
            for closing in &mut closings {
                look_for_missing(closing, &found);
            }
            failed = self
                .append_joined(place, rule, joining, &mut closings, &found, &mut back)
                .await;
            let kept = place.joins.borrow_mut().remember(&closings);
            let put = self.log.put(&kept_at(&place.name), Some(&kept)).await;
            if let Err(error) = put {
                place.joins.borrow_mut().take_back(closings.len());
                failed = Some(error);
                back.append(&mut closings);
            }
        } else {
            back.append(&mut closings);
        }
        let (mut done, mut dead) = (0, 0);
        for mut closing in closings {
            if let End::GivenUp(reason) = &closing.end {
                let reason = reason.clone();
                let buried =
                    self.bury_parts(place, joining, &mut closing, &reason, &mut found, unsettled);
                match buried.await {
                    (buried, None) => dead += buried,
                    (buried, Some(error)) => {
                        dead += buried;
                        failed = Some(error);
                        back.push(closing);
                    }
                }
                continue;
            }
            for part in &closing.parts {
                if let Some(part) = found.remove(&part.cursor) {
                    unsettled.push((part.lease, Settled::Done));
                    done += 1;
                }
            }
            if closing.end == End::Joined {
                place.joins.borrow_mut().count_completed();
            }
        }
        // The rest of what was read waits on.
        let rest = found.into_values();
        unsettled.extend(rest.map(|part| (part.lease, Settled::Lined(part.line))));
        let mut joins = place.joins.borrow_mut();
        joins.put_back(back);
        joins.is_unstored = true;
        place.group.borrow_mut().handle_gathered(done, dead);
        failed.map_or(Ok(()), Err)
    }

    /// Takes the parts of these joins out of their lines, with what else is found there before them.
    async fn find(
        &self,
        place: &Place,
        closings: &[Closing],
        found: &mut BTreeMap<u64, Found>,
    ) -> Result<(), LogError> {
        let mut missing: BTreeMap<LineId, BTreeSet<u64>> = BTreeMap::new();
        for closing in closings {
            let cursors = closing.parts.iter().map(|part| part.cursor);
            missing.entry(closing.line).or_default().extend(cursors);
        }
        while !missing.is_empty() {
            let some = missing.iter().take(READ_AT_ONCE);
            let asked: Vec<(LineId, usize)> =
                some.map(|(id, cursors)| (*id, cursors.len())).collect();
            for given in self.log.fetch_lines(&place.name, &asked).await? {
                let line = given.id;
                let wanted = missing.entry(line).or_default();
                for leased in given.leased {
                    let cursor = leased.entry.cursor;
                    wanted.remove(&cursor);
                    let Leased {
                        lease,
                        entry,
                        failures,
                        ..
                    } = leased;
                    let part = Found {
                        lease,
                        line,
                        entry,
                        failures,
                    };
                    found.insert(cursor, part);
                }
                if wanted.is_empty() || given.left == 0 {
                    missing.remove(&line);
                }
            }
        }
        Ok(())
    }

    /// Appends what is complete. What the log cannot store now goes `back`; what it does not take is given up.
    async fn append_joined(
        &self,
        place: &Place,
        rule: &Rule,
        joining: &Joining,
        closings: &mut Vec<Closing>,
        found: &BTreeMap<u64, Found>,
        back: &mut Vec<Closing>,
    ) -> Option<LogError> {
        let mut drafts = Vec::new();
        for closing in &mut *closings {
            if closing.end != End::Joined {
                continue;
            }
            let parts = closing.parts.iter();
            let parts: Vec<Arc<Entry>> = parts
                .filter_map(|part| found.get(&part.cursor))
                .map(|part| Arc::clone(&part.entry))
                .collect();
            match rule.draft(joining, &parts) {
                Ok(draft) => drafts.push(draft),
                Err(Fault::Failed(reason) | Fault::Hopeless(reason)) => {
                    closing.end = End::GivenUp(reason.into());
                    place.joins.borrow_mut().count_expired();
                }
            }
        }
        let mut results = match drafts.is_empty() {
            true => Vec::new(),
            false => self.outlet.append(drafts).await,
        }
        .into_iter();
        let mut failed = None;
        let mut kept = Vec::with_capacity(closings.len());
        for mut closing in closings.drain(..) {
            if closing.end != End::Joined {
                kept.push(closing);
                continue;
            }
            let busy = Err(LogError::Busy { retry_after: RETRY });
            match results.next().unwrap_or(busy) {
                Ok(_) => kept.push(closing),
                Err(error) if error.retry_after().is_some() => {
                    failed = Some(error);
                    back.push(closing);
                }
                Err(error) => {
                    closing.end = End::GivenUp(format!("join: {error}").into());
                    place.joins.borrow_mut().count_expired();
                    kept.push(closing);
                }
            }
        }
        *closings = kept;
        failed
    }

    /// Makes letters of the parts of a join. Gives how many it made, and leaves what it could not.
    async fn bury_parts(
        &self,
        place: &Place,
        joining: &Joining,
        closing: &mut Closing,
        reason: &str,
        found: &mut BTreeMap<u64, Found>,
        unsettled: &mut Vec<(Lease, Settled)>,
    ) -> (u64, Option<LogError>) {
        let mut buried = 0;
        while let Some(part) = closing.parts.first() {
            let cursor = part.cursor;
            if let Some(part) = found.get(&cursor) {
                let letter = letter(place, part, &joining.say(reason, &part.entry));
                if let Err(error) = self.keep(part.lease, &letter).await {
                    tracing::warn!(%error, group = &*place.name, "a dead letter is not kept yet");
                    return (buried, Some(error));
                }
                self.tell_dead(place, &letter);
                unsettled.push((part.lease, Settled::Done));
                found.remove(&cursor);
                buried += 1;
            }
            closing.parts.remove(0);
        }
        (buried, None)
    }
}

/// What a publication is to a join: a part, or none.
fn arrived<'a>(
    rule: &Rule,
    joining: &Joining,
    entry: &'a Entry,
    now_ms: u64,
) -> Result<Option<Arrival<'a>>, Fault> {
    if !rule.fits(&entry.record)? {
        return Ok(None);
    }
    joining
        .arrival(entry, now_ms)
        .map(Some)
        .map_err(Fault::Hopeless)
}

/// A join whose parts the log has forgotten is given up.
fn look_for_missing(closing: &mut Closing, found: &BTreeMap<u64, Found>) {
    let all = closing.parts.len();
    closing
        .parts
        .retain(|part| found.contains_key(&part.cursor));
    let gone = all - closing.parts.len();
    if gone > 0 && closing.end == End::Joined {
        let reason = format!("join: {gone} of {all} parts were forgotten before all were there");
        closing.end = End::GivenUp(reason.into());
    }
}

fn letter(place: &Place, part: &Found, reason: &str) -> DeadLetter {
    let mut end = reason.len().min(FAILURE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let unix_ms = unix_ms();
    let mut failures = part.failures.clone();
    failures.push(Failure {
        attempt: failures.last().map_or(0, |last| last.attempt) + 1,
        unix_ms,
        reason: reason[..end].into(),
        worker: WORKER.into(),
        next_unix_ms: 0,
    });
    DeadLetter {
        group: place.name.clone(),
        entry: Arc::clone(&part.entry),
        failures,
        unix_ms,
    }
}

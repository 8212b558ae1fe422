//! What the desk does by itself: it drives groups, works off triggers, and looks how far behind everybody is.

use std::rc::Rc;

use bytes::Bytes;

use super::deleted;
use super::encode::Given;
use super::group::{FETCHED_AT_ONCE, Group, Holder, Output};
use super::start::From;
use super::triggers::{Fault, Rule, TRIGGER_PREFIX};
use super::{
    DEAD_INTERVAL, IDLE, Inner, LAG_INTERVAL, LAG_PAUSE, LOOK_INTERVAL, LOST_INTERVAL, Outlet,
    Place, RETRY, ROOM_INTERVAL, Seek, clock, encode,
};
use crate::config::durable::Expired;
use crate::limits::GROUPS_HELD_BYTES_MAX;
use crate::mesh::durable::LogError;
use crate::upstream::log::{
    DeadLetter, Entries, Groups, Lag, Lease, Leased, Letters, Settled, Values,
};

impl<L: Entries + Groups + Letters + Values, O: Outlet> Inner<L, O> {
    /// Reads the groups of the log; until then questions wait.
    pub(super) async fn load(self: Rc<Self>) {
        while let Err(error) = self.load_once().await {
            tracing::debug!(%error, "queue groups");
            tokio::time::sleep(RETRY).await;
            if self.is_closed.get() {
                return;
            }
        }
        self.is_loaded.set(true);
        self.loaded.notify_waiters();
        self.start_triggers().await;
    }

    pub(super) async fn load_once(self: &Rc<Self>) -> Result<(), LogError> {
        for group in self.log.groups().await? {
            if group.name.starts_with(TRIGGER_PREFIX) || self.place(&group.name).is_some() {
                continue;
            }
            let settings = self.stored_settings(&group).await?;
            self.start(&group.name, settings, None)?;
        }
        Ok(())
    }

    /// Triggers and push rules of the configuration run; those that are gone do not, and their groups are forgotten.
    pub(super) async fn start_triggers(self: Rc<Self>) {
        while !self.is_closed.get() {
            let opening = self.opening.lock().await;
            let started = self.try_start_triggers().await;
            drop(opening);
            let Err(error) = started else { return };
            tracing::warn!(%error, "triggers and push rules do not start yet");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn try_start_triggers(self: &Rc<Self>) -> Result<(), LogError> {
        let rules = Rule::all(&self.config.borrow());
        for group in self.log.groups().await? {
            let is_kept = rules.iter().any(|rule| rule.group == *group.name);
            if group.name.starts_with(TRIGGER_PREFIX) && !is_kept {
                self.forget(&group.name).await?;
            }
        }
        for rule in rules {
            let name = rule.group.clone();
            let settings = rule.settings();
            self.make(&name, settings, From::Beginning, Some(Rc::new(rule)))
                .await?;
        }
        self.start_pushes().await
    }

    pub(super) async fn watch_lags(self: Rc<Self>) {
        while !self.is_closed.get() {
            let places: Vec<_> = self.groups.borrow().iter().flatten().cloned().collect();
            for place in places {
                let acked = place.group.borrow().counters().acked;
                place.pace.set(place.pace.get().look(acked));
                if let Ok(lag) = self.log.lag(&place.name).await {
                    place.lag.set(lag);
                    self.tell_losses(&place, lag);
                    self.look_at_seek(&place, lag.seeking);
                }
                // However many there are, looking at them is a small part of the work.
                tokio::time::sleep(LAG_PAUSE).await;
            }
            tokio::time::sleep(LAG_INTERVAL).await;
        }
    }

    /// Sees to it that a long time without a look at the clock means a stop.
    pub(super) async fn look_at_clock(self: Rc<Self>) {
        while !self.is_closed.get() {
            self.now();
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// One line says that a group has lost something, with all that came since the last one.
    fn tell_losses(&self, place: &Place, lag: Lag) {
        let told = place.lost_told.get();
        let before = told.map_or(lag.lost_before, |(lost, _)| lost);
        let is_early = told.is_some_and(|(_, at)| at.elapsed() < LOST_INTERVAL);
        if lag.lost <= before || is_early {
            return;
        }
        place.lost_told.set(Some((lag.lost, clock())));
        // Some of it may have waited in lines.
        place.is_unsure_of_lines.set(true);
        place.wake.notify_one();
        tracing::warn!(
            group = &*place.name,
            lost = lag.lost - before,
            in_all = lag.lost,
            "publications were forgotten before a queue group was done with them"
        );
    }

    /// One line says that there is a dead letter. A group whose workers fail makes many: those between two lines are counted.
    pub(super) fn tell_dead(&self, place: &Place, letter: &DeadLetter) {
        let (untold, last) = place.dead_told.get();
        if last.is_some_and(|at| at.elapsed() < DEAD_INTERVAL) {
            place.dead_told.set((untold + 1, last));
            return;
        }
        place.dead_told.set((0, Some(clock())));
        tracing::info!(
            group = &*place.name,
            event = %letter.entry.record.event,
            others = untold,
            "a publication became a dead letter"
        );
    }

    /// Drives one group until it is gone.
    pub(super) async fn drive(self: Rc<Self>, place: Rc<Place>) {
        let mut unsettled: Vec<(Lease, Settled)> = Vec::new();
        let mut syncs = Vec::new();
        let mut fails = false;
        loop {
            let others_wait = self.carry_out(&place, &mut place.group.borrow_mut());
            if others_wait {
                // They look first: a group with a backlog would take back all that it gives.
                tokio::task::yield_now().await;
            }
            let (wanted, due, speaks, is_gone) = {
                let mut group = place.group.borrow_mut();
                let now = self.now();
                if place.is_gone.get() {
                    if place.is_deleted.get() {
                        group.handle_deleted(now);
                    }
                    group.handle_closed(now);
                } else {
                    group.handle_timeout(now);
                }
                self.carry_out(&place, &mut group);
                self.take_parts(&place, &mut group);
                unsettled.extend(group.take_settled());
                syncs.append(&mut place.syncs.borrow_mut());
                let wanted = group.wanted(self.room());
                let speaks = group.take_turn_to_speak();
                (wanted, group.poll_timeout(), speaks, place.is_gone.get())
            };
            let mut unheard = None;
            if speaks || !unsettled.is_empty() {
                match self.log.settle(&place.name, &unsettled).await {
                    Ok(()) => unsettled.clear(),
                    Err(error) => {
                        tracing::debug!(%error, group = &*place.name, "settling is tried again");
                        // Said again in time; the list would grow as long as the log is down.
                        unsettled.retain(|(_, settled)| *settled != Settled::Kept);
                        if !is_gone {
                            tokio::time::sleep(RETRY).await;
                        }
                        unheard = Some(error);
                    }
                }
            }
            if !syncs.is_empty() && (unsettled.is_empty() || is_gone) {
                let stored = match unheard.filter(|_| !unsettled.is_empty()) {
                    Some(error) => Err(error),
                    None => self.log.store_settled(&place.name).await,
                };
                for sync in syncs.drain(..) {
                    self.answer_sync(&sync, &stored);
                }
            }
            if is_gone {
                if place.joining().is_some() {
                    // Whoever comes next has the parts sooner.
                    let _ = self.log.leave_lines(&place.name).await;
                }
                place.ended.set(true);
                return;
            }
            let seek = place.seek.borrow_mut().take();
            if let Some(Seek { after, asker, done }) = seek {
                let sought = match self.waited.check(asker) {
                    Ok(()) => self.log.seek_group(&place.name, after).await,
                    Err(error) => Err(error),
                };
                if sought.is_ok() {
                    unsettled.clear();
                    place.group.borrow_mut().handle_emptied();
                    self.forget_joins(&place).await;
                }
                let _ = done.send(sought);
                continue;
            }
            if unsettled.is_empty() && self.tend(&place, &mut unsettled).await {
                continue;
            }
            let now = self.now();
            let until = due.map_or(IDLE, |due| due.since(now.at)).min(IDLE);
            let until = place
                .joins
                .borrow()
                .pause(now.unix_ms)
                .map_or(until, |pause| until.min(pause));
            tokio::select! {
                leased = self.log.fetch(&place.name, wanted.max(1)), if wanted > 0 && !fails => {
                    match leased {
                        Ok(leased) => self.take_in(&place, leased),
                        Err(error) => {
                            if matches!(error, LogError::NotFound(_)) {
                                self.look_whether_deleted(&place).await;
                            }
                            tracing::debug!(%error, group = &*place.name, "fetching is tried again");
                            fails = true;
                        }
                    }
                }
                () = place.wake.notified() => place.group.borrow_mut().handle_freed(),
                () = tokio::time::sleep(if fails { RETRY.min(until) } else { until }) => fails = false,
            }
        }
    }

    /// Whatever waits in lines of the log. `true`: it looks again at once.
    async fn tend(&self, place: &Rc<Place>, unsettled: &mut Vec<(Lease, Settled)>) -> bool {
        match place.joining() {
            Some(rule) => self.tend_joins(place, &rule, unsettled).await,
            None => self.tend_lines(place).await,
        }
    }

    /// The log gave these. What has ended is nobody's.
    fn take_in(&self, place: &Place, leased: Vec<Leased>) {
        let now = self.now();
        let mut group = place.group.borrow_mut();
        if L::FORGETS_ENDED {
            return group.handle_leased(now, leased);
        }
        let is_over = |one: &Leased| one.entry.record.is_over(now.unix_ms);
        let (ended, leased): (Vec<_>, Vec<_>) = leased.into_iter().partition(is_over);
        let config = self.config.borrow();
        for one in ended {
            let namespace = config.channels.resolve_of(&one.entry.record.channel);
            let kept = namespace.map(|namespace| namespace.kept);
            let becomes_letter = kept.is_ok_and(|kept| kept.expired == Expired::DeadLetter);
            group.handle_ended(now, one, becomes_letter);
        }
        group.handle_leased(now, leased);
    }

    /// Whatever the group's lines need of the log. `true`: it looks again at once.
    async fn tend_lines(&self, place: &Rc<Place>) -> bool {
        let name = &*place.name;
        if place.group.borrow().is_releasing() {
            return match self.log.release(name, false).await {
                Ok(()) => {
                    place.group.borrow_mut().handle_released();
                    true
                }
                Err(error) => self.later(place, &error).await,
            };
        }
        if place.is_unsure_of_lines.get() {
            return match self.log.lines(name).await {
                Ok(lines) => {
                    let is_known = place.group.borrow_mut().handle_log_lines(&lines);
                    place.is_unsure_of_lines.set(!is_known);
                    true
                }
                Err(error) => self.later(place, &error).await,
            };
        }
        if place.group.borrow().is_sorting() {
            return match self.log.left_over(name, FETCHED_AT_ONCE).await {
                Ok(left_over) => {
                    let now = self.now();
                    place.group.borrow_mut().handle_left_over(now, left_over);
                    true
                }
                Err(error) => self.later(place, &error).await,
            };
        }
        if place.group.borrow_mut().take_idle() {
            if let Err(error) = self.log.leave_lines(name).await {
                tracing::debug!(%error, group = name, "its lines stay");
            }
            place.is_unsure_of_lines.set(true);
            return true;
        }
        let hungry = place.group.borrow_mut().take_hungry();
        if hungry.is_empty() {
            return false;
        }
        match self.log.fetch_lines(name, &hungry).await {
            Ok(given) => {
                let now = self.now();
                place.group.borrow_mut().handle_lines(now, given);
                true
            }
            Err(error) => {
                place.group.borrow_mut().handle_lines_failed(&hungry);
                self.later(place, &error).await
            }
        }
    }

    /// The log could not do it now.
    pub(super) async fn later(&self, place: &Rc<Place>, error: &LogError) -> bool {
        if matches!(error, LogError::NotFound(_)) {
            self.look_whether_deleted(place).await;
        }
        tracing::debug!(%error, group = &*place.name, "lines are looked at again");
        tokio::time::sleep(RETRY).await;
        true
    }

    /// Bytes that all groups together may hold besides.
    pub(super) fn room(&self) -> usize {
        let (looked, room) = self.room.get();
        let now = clock();
        if looked.is_some_and(|at| now.duration_since(at) < ROOM_INTERVAL) {
            return room;
        }
        let room = self.look_at_room();
        self.room.set((Some(now), room));
        room
    }

    fn look_at_room(&self) -> usize {
        let groups = self.groups.borrow();
        let held: usize = groups
            .iter()
            .flatten()
            .filter_map(|place| place.group.try_borrow().ok())
            .map(|group| group.held_bytes())
            .sum();
        GROUPS_HELD_BYTES_MAX.saturating_sub(held)
    }

    /// Does what a group wants done. `true`: other groups may use the room that it has given back.
    pub(super) fn carry_out(self: &Rc<Self>, place: &Rc<Place>, group: &mut Group) -> bool {
        let mut others_wait = false;
        while let Some(output) = group.poll_output() {
            match output {
                Output::Deliver(worker, given) => {
                    let mut out = Vec::new();
                    encode::delivery(&mut out, &place.name, &given);
                    self.outlet.deliver(worker, Bytes::from(out));
                }
                Output::Fetched(asker, givens, bytes) => {
                    self.answer_fetch(place, asker, &givens, bytes);
                }
                Output::Ended(asker) => {
                    self.ends_to_fetch(asker);
                    self.outlet
                        .answer(asker, Err(deleted::deleted(&place.name)));
                }
                Output::Deleted(worker) => {
                    self.outlet.deliver(worker, deleted::message(&place.name));
                }
                Output::Paused(worker, paused) => {
                    let message = encode::paused(&place.name, paused);
                    self.outlet.deliver(worker, message);
                }
                Output::Freed(worker) => {
                    others_wait |= self.wake_groups_of(worker, place.index);
                }
                Output::Triggered(given) => match place.push.borrow().as_ref() {
                    Some(pusher) => {
                        if pusher.take(given) {
                            let push = Rc::clone(self).push(Rc::clone(place), Rc::clone(pusher));
                            tokio::task::spawn_local(push);
                        }
                    }
                    None if place.joining().is_some() => {
                        place.joins.borrow_mut().incoming.push_back(given);
                    }
                    None => {
                        tokio::task::spawn_local(Rc::clone(self).trigger(Rc::clone(place), given));
                    }
                },
                Output::Bury(letter) => {
                    // What is not held any more was settled, or is somebody else's.
                    if let Some(lease) = group.lease_of(letter.entry.cursor) {
                        let burying = Rc::clone(self).bury(Rc::clone(place), lease, letter);
                        tokio::task::spawn_local(burying);
                    }
                }
            }
        }
        others_wait
    }

    pub(super) async fn bury(
        self: Rc<Self>,
        place: Rc<Place>,
        lease: Lease,
        letter: Box<DeadLetter>,
    ) {
        let outcome = self.keep(lease, &letter).await;
        if let Err(error) = &outcome {
            tracing::warn!(%error, group = &*place.name, "a dead letter is not kept yet");
        }
        let now = self.now();
        let cursor = letter.entry.cursor;
        place
            .group
            .borrow_mut()
            .handle_buried(now, cursor, outcome.is_ok());
        place.wake.notify_one();
        if outcome.is_ok() {
            self.tell_dead(&place, &letter);
        }
    }

    /// Does what a trigger's rule says about one publication.
    pub(super) async fn trigger(self: Rc<Self>, place: Rc<Place>, given: Given) {
        let rule = place.trigger.borrow().clone();
        let delivery = given.delivery;
        let outcome = match rule {
            Some(rule) if rule.tells_letters => {
                if !self.tell_hook(&place, &given).await {
                    return;
                }
                Ok(())
            }
            Some(rule) => rule.run(&*self.outlet, &place.name, &given).await,
            None => Ok(()),
        };
        let now = self.now();
        {
            let mut group = place.group.borrow_mut();
            match outcome {
                Ok(()) => group.handle_acked(now, Holder::Trigger, delivery),
                Err(Fault::Failed(reason)) => {
                    group.handle_failed(now, Holder::Trigger, delivery, &reason, None)
                }
                Err(Fault::Hopeless(reason)) => {
                    group.handle_hopeless(now, Holder::Trigger, delivery, &reason)
                }
            };
        }
        place.wake.notify_one();
    }
}

//! What is asked of the desk, and the answers.

use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;

use super::group::{Holder, Taker, Window, index_of};
use super::settings::{Wish, WishError, is_group_name, within};
use super::{
    Asker, CREDIT, Consumer, Inner, LOAD_WAIT, Nothing, Outlet, Place, RETRY, Scoped, Sync,
    WorkerId, asked, bad_request, closed, not_found, own, replay, scheduled, scope, unix_ms, wrong,
};
use crate::limits::{
    ACK_WAIT_MAX, FETCH_DELIVERIES_MAX, FETCH_WAIT_MS_MAX, FETCH_WAIT_MS_MIN, GROUP_CREDIT_MAX,
    GROUPS_PER_WORKER_MAX, HTTP_BODY_BYTES_MAX, SETTLED_PER_ASK_MAX,
};
use crate::mesh::durable::{Ask, Caller, LogError, LogMethod};
use crate::model::TenantId;
use crate::time::Now;
use crate::upstream::log::{Entries, Groups, Letters, Scheduled, Values, worker_name};
use crate::wire::json::fields;
use crate::wire::json::write::{self, Members};

/// Parameters of what settles deliveries.
#[derive(Debug, Default)]
struct Settling {
    delivery: Option<u64>,
    deliveries: Vec<u64>,
    delay_ms: Option<u64>,
    reason: Option<Box<str>>,
    ms: Option<u64>,
    sync: bool,
}
impl Scoped for Settling {
    /// A number is looked for among the deliveries of the tenant's groups.
    fn scope(&mut self, _: TenantId<'_>) {}
}
fields!(@Own Settling {
    "delivery" => delivery, "deliveries" => deliveries, "delay_ms" => delay_ms, "reason" => reason, "ms" => ms, "sync" => sync
});

/// Parameters of `credit` and `leave`.
#[derive(Debug, Default)]
struct Standing {
    group: Box<str>,
    credit: Option<u32>,
}
impl Scoped for Standing {
    fn scope(&mut self, tenant: TenantId<'_>) {
        scope(tenant, [&mut self.group]);
    }
}
fields!(@Own Standing { "group" => group, "credit" => credit });

impl<L, O: Outlet> Inner<L, O> {
    pub(super) fn now(&self) -> Now {
        let elapsed = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now {
            at: self.time.look(elapsed),
            unix_ms: unix_ms(),
        }
    }

    pub(super) fn place(&self, name: &str) -> Option<Rc<Place>> {
        let index = *self.by_name.borrow().get(name)?;
        self.groups.borrow().get(index)?.clone()
    }
}

impl<L: Entries + Groups + Letters + Scheduled + Values, O: Outlet> Inner<L, O> {
    pub(super) async fn answer(self: Rc<Self>, asker: Asker, ask: Ask, worker: Option<WorkerId>) {
        while !self.is_loaded.get() {
            let loaded = self.loaded.notified();
            if self.is_loaded.get() {
                break;
            }
            // The log may be down: whoever asks is told.
            if tokio::time::timeout(LOAD_WAIT, loaded).await.is_err() {
                self.waited.end(asker);
                self.ends_to_join(worker);
                self.ends_to_fetch(asker);
                return self.outlet.answer(asker, Err(closed()));
            }
        }
        let absent = |name: &str| {
            let is_here = self.by_name.borrow().contains_key(name);
            (!is_here).then(|| self.absent(name))
        };
        let result = match ask.method {
            LogMethod::Consume => self.consume(asker, &ask).await.map(Some),
            LogMethod::Fetch => self.fetch(asker, &ask).await.map(|()| None),
            LogMethod::Request => self.request(&ask).await.map(Some),
            LogMethod::Reply => self.reply(asker, &ask).await.map(Some),
            LogMethod::Groups if ask.data.is_empty() => {
                Ok(Some(self.list(TenantId::new(&ask.tenant))))
            }
            LogMethod::Groups => {
                asked::<Nothing>(&ask).map(|Nothing| Some(self.list(TenantId::new(&ask.tenant))))
            }
            LogMethod::DeleteGroup => self.delete(asker, &ask).await.map(Some),
            LogMethod::PauseGroup => self.pause(asker, &ask, true).await.map(Some),
            LogMethod::ResumeGroup => self.pause(asker, &ask, false).await.map(Some),
            LogMethod::SeekGroup => self.seek(asker, &ask).await.map(Some),
            LogMethod::PurgeGroup => self.purge(asker, &ask).await.map(Some),
            LogMethod::PeekGroup => self.peek(&ask).await.map(Some),
            LogMethod::CopyGroup => self.copy(asker, &ask).await.map(Some),
            LogMethod::Workers => self.list_workers(&ask).map(Some),
            LogMethod::DeadList => self.list_letters(&ask).await.map(Some),
            LogMethod::DeadShow => self.show_letter(&ask).await.map(Some),
            LogMethod::DeadRetry => self.retry_letters(&ask).await.map(Some),
            LogMethod::DeadDrop => self.drop_letters(&ask).await.map(Some),
            LogMethod::Replay => {
                let permit = self.replays.acquire().await;
                let random = self.rng.borrow_mut().bits();
                let is_durable = |channel: &str| {
                    let config = self.config.borrow();
                    let namespace = config.channels.resolve_whole(channel);
                    namespace.is_ok_and(|namespace| namespace.is_durable())
                };
                let targets = replay::Targets {
                    absent,
                    is_durable,
                    reach: |channels: &[Box<str>]| self.check_reach(channels),
                };
                let page = replay::page(&*self.log, &*self.outlet, &ask, random, targets).await;
                drop(permit);
                page.map(Some)
            }
            LogMethod::ScheduledList => scheduled::list(&*self.log, &ask).await.map(Some),
            LogMethod::ScheduledCancel => scheduled::cancel(&*self.log, &ask).await.map(Some),
            LogMethod::ScheduledChange => scheduled::change(&*self.log, &ask).await.map(Some),
            LogMethod::Ack
            | LogMethod::Nak
            | LogMethod::Extend
            | LogMethod::Credit
            | LogMethod::Leave => Err(bad_request("answered elsewhere")),
        };
        self.waited.end(asker);
        self.ends_to_join(worker);
        match result {
            Ok(Some(json)) => self.outlet.answer(asker, Ok(json)),
            // The group answers.
            Ok(None) => {}
            Err(error) => {
                self.ends_to_fetch(asker);
                self.outlet.answer(asker, Err(error));
            }
        }
    }
}

impl<L, O: Outlet> Inner<L, O> {
    pub(super) fn begins_to_join(&self, asker: Asker, ask: &Ask) -> Option<WorkerId> {
        let Caller::Client { conn, .. } = ask.caller else {
            return None;
        };
        let worker = (asker.0, conn);
        self.joining
            .borrow_mut()
            .entry(worker)
            .or_insert((0, false))
            .0 += 1;
        Some(worker)
    }

    /// What it joined while it went away, it leaves.
    pub(super) fn ends_to_join(&self, worker: Option<WorkerId>) {
        let Some(worker) = worker else { return };
        let mut joining = self.joining.borrow_mut();
        let Some((count, is_gone)) = joining.get_mut(&worker) else {
            return;
        };
        *count -= 1;
        let is_gone = *is_gone;
        if *count == 0 {
            joining.remove(&worker);
        }
        drop(joining);
        if is_gone {
            self.drop_worker(worker);
        }
    }

    pub(super) fn drop_worker(&self, worker: WorkerId) {
        let Some(left) = self.workers.borrow_mut().remove(&worker) else {
            return;
        };
        self.forget_answers(&left);
        let now = self.now();
        for index in left.groups {
            let place = self.groups.borrow().get(index).cloned().flatten();
            if let Some(place) = place {
                let had = place.group.borrow_mut().handle_gone(now, worker, true);
                self.count_returned(had);
                place.wake.notify_one();
            }
        }
    }
}

impl<L: Entries + Groups + Letters + Values, O: Outlet> Inner<L, O> {
    pub(super) async fn consume(
        self: &Rc<Self>,
        asker: Asker,
        ask: &Ask,
    ) -> Result<Bytes, LogError> {
        let Caller::Client {
            conn, client, user, ..
        } = &ask.caller
        else {
            return Err(bad_request("only a connection consumes: a service fetches"));
        };
        let wish = asked::<Wish>(ask)?;
        let credit = wish.credit.unwrap_or(CREDIT);
        let credit = within(credit, 1, GROUP_CREDIT_MAX, "credit", "1 to 10000").map_err(wrong)?;
        let worker = (asker.0, *conn);
        let place = self.open(&wish, &ask.caller).await?;
        let (window, _) = self.join(worker, &place)?;
        let name = worker_name(user, *client);
        let taker = Taker::Connection(worker);
        let mut group = place.group.borrow_mut();
        let joined = group.handle_joined(taker, credit as usize, &window, &name);
        drop(group);
        if !joined {
            return Err(LogError::Busy { retry_after: RETRY });
        }
        place.wake.notify_one();
        let mut out = Vec::new();
        let mut members = Members::open(&mut out);
        members.text("group", own(&place.name));
        members.number("credit", credit);
        members.close();
        Ok(Bytes::from(out))
    }

    pub(super) async fn fetch(self: &Rc<Self>, asker: Asker, ask: &Ask) -> Result<(), LogError> {
        let wish = asked::<Wish>(ask)?;
        let limit = wish.limit.unwrap_or(1);
        let limit = within(limit, 1, FETCH_DELIVERIES_MAX, "limit", "1 to 1000").map_err(wrong)?;
        let wait = wish.wait_ms.unwrap_or(0);
        let wait = within(wait, 0, FETCH_WAIT_MS_MAX, "wait_ms", "0 to 20000").map_err(wrong)?;
        // Even who does not wait gets what is there; the log needs a moment to say so.
        let wait = std::time::Duration::from_millis(wait.max(FETCH_WAIT_MS_MIN));
        let place = self.open(&wish, &ask.caller).await?;
        let wait = if self.hurried.borrow().contains(&asker.0) {
            std::time::Duration::from_millis(FETCH_WAIT_MS_MIN)
        } else {
            wait
        };
        let (worker, name) = match &ask.caller {
            Caller::Service => (None, "service".to_owned()),
            Caller::Client {
                conn, client, user, ..
            } => (Some((asker.0, *conn)), worker_name(user, *client)),
        };
        let window = match worker {
            Some(worker) => self.join(worker, &place)?.1,
            None => Window::new(HTTP_BODY_BYTES_MAX),
        };
        if !self.waits_in(asker, &place) {
            self.answer_fetch(&place, asker, &[], 0);
            return Ok(());
        }
        let now = self.now();
        let taken = place.group.borrow_mut().handle_fetch(
            now,
            Taker::Fetch(asker, worker),
            limit as usize,
            &window,
            wait,
            &name,
        );
        if !taken {
            return Err(LogError::Busy { retry_after: RETRY });
        }
        place.wake.notify_one();
        Ok(())
    }
}

impl<L, O: Outlet> Inner<L, O> {
    /// A connection takes from a group: what it has goes to others when it is gone. Gives its windows: of messages, of answers.
    fn join(&self, worker: WorkerId, place: &Place) -> Result<(Rc<Window>, Rc<Window>), LogError> {
        let mut workers = self.workers.borrow_mut();
        let worker = workers
            .entry(worker)
            .or_insert_with(|| Consumer::new(&self.config.borrow()));
        let groups = &mut worker.groups;
        if groups.len() >= GROUPS_PER_WORKER_MAX && !groups.contains(&place.index) {
            return Err(bad_request("a connection consumes at most 16 groups"));
        }
        groups.insert(place.index);
        Ok((Rc::clone(&worker.pushed), Rc::clone(&worker.answered)))
    }

    /// `None`: it is answered when what it says is stored.
    pub(super) fn settle(&self, asker: Asker, ask: &Ask) -> Result<Option<Bytes>, LogError> {
        let asked: Settling = asked(ask)?;
        if asked.deliveries.len() > SETTLED_PER_ASK_MAX {
            return Err(bad_request("`deliveries` has at most 10000 members"));
        }
        let holder = match ask.caller {
            Caller::Service => Holder::Service,
            Caller::Client { conn, .. } => Holder::Connection((asker.0, conn)),
        };
        let time = |ms: Option<u64>| ms.map(std::time::Duration::from_millis);
        if time(asked.delay_ms).max(time(asked.ms)) > Some(ACK_WAIT_MAX) {
            return Err(bad_request("`delay_ms` and `ms` are 0 to 43200000"));
        }
        let tenant = TenantId::new(&ask.tenant);
        let now = self.now();
        let mut done = 0;
        let mut unknown = Vec::new();
        let mut deleted = BTreeSet::new();
        let mut settled = BTreeSet::new();
        let gone = self.deleted.borrow();
        let groups = self.groups.borrow();
        for &delivery in asked.delivery.iter().chain(&asked.deliveries) {
            let place = groups.get(index_of(delivery)).and_then(Option::as_ref);
            let place = place.filter(|place| TenantId::of(&place.name) == tenant);
            let known = place.is_some_and(|place| {
                let mut group = place.group.borrow_mut();
                let known = match ask.method {
                    LogMethod::Ack => group.handle_acked(now, holder, delivery),
                    LogMethod::Nak => {
                        let reason = asked.reason.as_deref().unwrap_or("nak");
                        group.handle_failed(now, holder, delivery, reason, time(asked.delay_ms))
                    }
                    _ => group.handle_extended(now, holder, delivery, time(asked.ms)),
                };
                place.wake.notify_one();
                known
            });
            if known {
                done += 1;
                settled.insert(index_of(delivery));
            } else {
                if place.is_none() {
                    let gone = gone.at(index_of(delivery)).into_iter();
                    deleted.extend(gone.filter(|group| TenantId::of(group) == tenant));
                }
                unknown.push(delivery);
            }
        }
        let name = match ask.method {
            LogMethod::Ack => "acked",
            LogMethod::Nak => "naked",
            _ => "extended",
        };
        let mut out = Vec::new();
        let mut members = Members::open(&mut out);
        members.number(name, done);
        if !unknown.is_empty() {
            members.array("unknown", unknown, write::number);
        }
        if !deleted.is_empty() {
            members.array("deleted_groups", deleted, |out, group| {
                write::string(out, own(group));
            });
        }
        members.close();
        let answer = Bytes::from(out);
        if !asked.sync || settled.is_empty() || ask.method == LogMethod::Extend {
            return Ok(Some(answer));
        }
        let sync = Rc::new(Sync {
            asker,
            answer,
            left: std::cell::Cell::new(settled.len()),
        });
        for place in settled.iter().filter_map(|index| groups[*index].as_ref()) {
            place.syncs.borrow_mut().push(Rc::clone(&sync));
            place.wake.notify_one();
        }
        Ok(None)
    }

    /// What a question has settled in one of its groups is stored, or is not.
    pub(super) fn answer_sync(&self, sync: &Sync, stored: &Result<(), LogError>) {
        let left = sync.left.get();
        if left == 0 {
            return;
        }
        match stored {
            Ok(()) => {
                sync.left.set(left - 1);
                if left == 1 {
                    self.outlet.answer(sync.asker, Ok(sync.answer.clone()));
                }
            }
            Err(error) => {
                sync.left.set(0);
                self.outlet.answer(sync.asker, Err(error.clone()));
            }
        }
    }

    pub(super) fn credit(&self, asker: Asker, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Standing = asked(ask)?;
        let Caller::Client { conn, .. } = ask.caller else {
            return Err(bad_request("only a connection has credit"));
        };
        let credit = asked
            .credit
            .ok_or_else(|| bad_request("`credit` is missing"))?;
        let credit = within(credit, 0, GROUP_CREDIT_MAX, "credit", "0 to 10000").map_err(wrong)?;
        let place = self
            .place(&asked.group)
            .ok_or_else(|| self.absent(&asked.group))?;
        let taker = Taker::Connection((asker.0, conn));
        let known = place
            .group
            .borrow_mut()
            .handle_credit(taker, credit as usize);
        place.wake.notify_one();
        if known {
            Ok(Bytes::from_static(b"{}"))
        } else {
            Err(not_found("this connection does not consume the group"))
        }
    }

    pub(super) fn leave(&self, asker: Asker, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Standing = asked(ask)?;
        let Caller::Client { conn, .. } = ask.caller else {
            return Err(bad_request("only a connection leaves"));
        };
        let worker = (asker.0, conn);
        let place = self
            .place(&asked.group)
            .ok_or_else(|| self.absent(&asked.group))?;
        let now = self.now();
        let known = place
            .group
            .borrow_mut()
            .handle_left(now, Taker::Connection(worker));
        place.group.borrow_mut().handle_gone(now, worker, false);
        if let Some(worker) = self.workers.borrow_mut().get_mut(&worker) {
            worker.groups.remove(&place.index);
        }
        place.wake.notify_one();
        if known {
            Ok(Bytes::from_static(b"{}"))
        } else {
            Err(not_found("this connection does not consume the group"))
        }
    }
}

impl<L: Groups + Values, O: Outlet> Inner<L, O> {
    pub(super) async fn delete(
        self: &Rc<Self>,
        asker: Asker,
        ask: &Ask,
    ) -> Result<Bytes, LogError> {
        let asked: Standing = asked(ask)?;
        if !is_group_name(&asked.group) {
            return Err(wrong(WishError::Group));
        }
        let _one = self.turn_of(Some(asker)).await?;
        let is_pushed = |place: Rc<Place>| place.push.borrow().is_some();
        if self.place(&asked.group).is_some_and(is_pushed) {
            return Err(bad_request(
                "the group belongs to a rule of `[[queue.push]]`: take that out of the configuration first",
            ));
        }
        if self.forget(&asked.group).await? {
            Ok(Bytes::from_static(b"{}"))
        } else {
            Err(self.absent(&asked.group))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::{null, object};

    #[test]
    fn null_parameters_are_absent_ones_and_unknown_ones_are_named() {
        let settling = serde_json::json!({
            "delivery": 1, "deliveries": [2], "delay_ms": 3, "reason": "r", "ms": 4, "sync": true,
        });
        null::covers(&settling, &null::names::<Settling>());
        null::same(&settling, &[], |text| {
            format!("{:?}", object::<Settling>(text.as_bytes()))
        });
        let standing = serde_json::json!({ "group": "g", "credit": 1 });
        null::covers(&standing, &null::names::<Standing>());
        null::same(&standing, &[], |text| {
            format!("{:?}", object::<Standing>(text.as_bytes()))
        });
        let error = super::super::parameters::<Settling>(br#"{"delay":5}"#).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "delay: unknown, known are delivery, deliveries, delay_ms, reason, ms, sync"
        );
        let error = super::super::parameters::<Nothing>(br#"{"group":"g"}"#)
            .map(|Nothing| ())
            .expect_err("unknown");
        assert_eq!(error.to_string(), "group: unknown, nothing may stand here");
    }
}

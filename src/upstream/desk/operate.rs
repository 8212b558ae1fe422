//! What operators do with groups: look, pause, begin anew, copy.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::json;

use super::settings::{WishError, is_group_name};
use super::start::{From, Start};
use super::{
    Asker, Inner, Outlet, Place, SEEK_PATIENCE, Scoped, Seek, asked, bad_request, clock, closed,
    encode, own, scope, unix_ms, wrong,
};
use crate::limits::PEEKED_MAX;
use crate::mesh::durable::{Ask, LogError};
use crate::model::TenantId;
use crate::upstream::log::{Entries, Groups, Letters, Undone, Values};
use crate::wire::json::fields;
use crate::wire::json::write::Members;

/// What waits is to be worked off within this time, for `Pace::desired`.
const WORKED_OFF_S: f64 = 60.0;
/// How much a look counts against those before.
const SHARE: f64 = 0.2;

/// How fast a group is worked off.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    looked: Option<(Instant, u64)>,
    rate: f64,
}

impl Pace {
    /// So many are acknowledged in all by now.
    pub(super) fn look(self, acked: u64) -> Self {
        let now = clock();
        let Some((at, before)) = self.looked else {
            return Self {
                looked: Some((now, acked)),
                rate: 0.0,
            };
        };
        let seconds = now.duration_since(at).as_secs_f64().max(0.001);
        let rate = acked.saturating_sub(before) as f64 / seconds;
        Self {
            looked: Some((now, acked)),
            rate: self.rate + SHARE * (rate - self.rate),
        }
    }

    /// Acknowledged in a second.
    pub(super) const fn rate(self) -> f64 {
        self.rate
    }

    /// Workers that would work off so much within a minute, as fast as these are.
    pub(super) fn desired(self, ready: u64, workers: usize) -> Option<u64> {
        if ready == 0 {
            return Some(workers.min(1) as u64);
        }
        if workers == 0 || self.rate < 0.01 {
            return None;
        }
        let of_one = self.rate / workers as f64;
        let wanted = (ready as f64 / WORKED_OFF_S + self.rate) / of_one;
        Some(wanted.ceil() as u64)
    }
}

#[derive(Debug, Default)]
struct Named {
    group: Box<str>,
}
impl Scoped for Named {
    fn scope(&mut self, tenant: TenantId<'_>) {
        scope(tenant, [&mut self.group]);
    }
}
fields!(@Own Named { "group" => group });

#[derive(Debug, Default)]
struct Seeking {
    group: Box<str>,
    to: Option<Start>,
}
impl Scoped for Seeking {
    fn scope(&mut self, tenant: TenantId<'_>) {
        scope(tenant, [&mut self.group]);
        scope(tenant, self.to.iter_mut().filter_map(Start::channel));
    }
}
fields!(@Own Seeking { "group" => group, "to" => to });

#[derive(Debug, Default)]
struct Peeking {
    group: Box<str>,
    after: Option<u64>,
    limit: Option<usize>,
}
impl Scoped for Peeking {
    fn scope(&mut self, tenant: TenantId<'_>) {
        scope(tenant, [&mut self.group]);
    }
}
fields!(@Own Peeking { "group" => group, "after" => after, "limit" => limit });

#[derive(Debug, Default)]
struct Copying {
    group: Box<str>,
    to: Box<str>,
    from: Option<Start>,
}
impl Scoped for Copying {
    fn scope(&mut self, tenant: TenantId<'_>) {
        scope(tenant, [&mut self.group, &mut self.to]);
        scope(tenant, self.from.iter_mut().filter_map(Start::channel));
    }
}
fields!(@Own Copying { "group" => group, "to" => to, "from" => from });

impl<L, O: Outlet> Inner<L, O> {
    pub(super) fn list(&self, tenant: TenantId<'_>) -> Bytes
    where
        L: Letters,
    {
        let census = self.log.census();
        let letters = census.of_groups();
        let groups = self.groups.borrow();
        let now = unix_ms();
        let mut list: Vec<serde_json::Value> = groups.iter().flatten().filter(|place| TenantId::of(&place.name) == tenant).map(|place| {
            let report = place.report();
            let group = place.group.borrow();
            let settings = group.settings();
            let turns = &settings.turns;
            let mut rules = json!({
                "ordered": settings.ordered, "max_attempts": settings.max_attempts,
                "ack_wait_ms": settings.ack_wait.as_millis() as u64,
            });
            if let Some(key) = &turns.key {
                rules["key"] = key.to_string().into();
                rules["key_concurrency"] = turns.concurrency.into();
                rules["key_rate"] = turns.rate.into();
            }
            if let Some(lanes) = &turns.lanes {
                rules["lanes"] = json!({ "by": lanes.by.to_string(), "weights": lanes.weights });
            }
            if !settings.picks.are_all() {
                rules["tags"] = json!(settings.picks.tags);
                rules["where"] = (*settings.picks.condition).into();
            }
            if settings.lag_max > 0 {
                rules["lag_max"] = settings.lag_max.into();
            }
            let mut shown = json!({
                "group": own(&report.name), "channels": settings.channels.iter().map(|channel| own(channel)).collect::<Vec<_>>(), "paused": report.is_paused,
                "workers": report.workers, "fetches": report.waiting, "lag": report.lag, "ready": report.ready,
                "delayed": report.delayed, "in_flight": report.in_flight, "held": report.held,
                "oldest_age_ms": report.oldest_unix_ms.map(|at| now.saturating_sub(at)),
                "due_in_ms": report.due_unix_ms.map(|at| at.saturating_sub(now)),
                "delivered": report.delivered, "redelivered": report.redelivered, "acked": report.acked,
                "naked": report.naked, "timed_out": report.timed_out, "dead": report.dead, "passed": report.passed,
                "letters": letters.get(&*report.name).copied().unwrap_or(0),
                "lost": report.lost, "held_back": report.held_back, "acked_per_second": (report.rate * 100.0).round() / 100.0,
                "desired_workers": report.desired_workers,
                "time_in_queue_ms": { "p50": report.waits.quantile(0.5), "p99": report.waits.quantile(0.99) },
            });
            if report.is_seeking {
                shown["seeking"] = true.into();
            }
            if let Some(joins) = report.joins {
                shown["joins"] = json!({
                    "open": joins.open, "parts": joins.parts, "completed": joins.completed, "expired": joins.expired,
                });
            }
            if let (Some(shown), serde_json::Value::Object(rules)) = (shown.as_object_mut(), rules) {
                shown.extend(rules);
            }
            shown
        }).collect();
        list.sort_by(|a, b| a["group"].as_str().cmp(&b["group"].as_str()));
        Bytes::from(json!({ "groups": list }).to_string())
    }

    fn named(&self, name: &str) -> Result<Rc<Place>, LogError> {
        if !is_group_name(name) {
            return Err(wrong(WishError::Group));
        }
        self.place(name).ok_or_else(|| self.absent(name))
    }

    /// Who takes from a group.
    pub(super) fn list_workers(&self, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Named = asked(ask)?;
        let place = self.named(&asked.group)?;
        let reports = place.group.borrow().worker_reports(self.now());
        let mut out = Vec::new();
        let mut members = Members::open(&mut out);
        members.text("group", own(&place.name));
        members.array("workers", reports, |out, worker| {
            let mut members = Members::open(out);
            members.text("worker", &worker.name);
            members.text("takes", if worker.is_fetch { "fetch" } else { "consume" });
            members.number("credit", worker.credit);
            members.number("in_flight", worker.under_way);
            members.number("bytes", worker.bytes);
            members.number("delivered", worker.counts.delivered);
            members.number("acked", worker.counts.acked);
            members.number("failed", worker.counts.failed);
            members.array("deliveries", worker.has, |out, having| {
                let mut members = Members::open(out);
                members.number("delivery", having.delivery);
                members.number("attempt", having.attempt);
                members.number("lease_left_ms", having.left.as_millis());
                encode::place_of(&mut members, &having.entry);
            });
        });
        members.close();
        Ok(Bytes::from(out))
    }
}

impl<L: Entries + Groups + Letters + Values, O: Outlet> Inner<L, O> {
    /// Nothing is given until `queue/resume`.
    pub(super) async fn pause(
        &self,
        asker: Asker,
        ask: &Ask,
        paused: bool,
    ) -> Result<Bytes, LogError> {
        let asked: Named = asked(ask)?;
        let place = self.named(&asked.group)?;
        let _one = self.turn_of(Some(asker)).await?;
        let mut settings = place.group.borrow().settings().clone();
        if settings.paused != paused {
            settings.paused = paused;
            let text = serde_json::to_vec(&settings).map_err(|_| bad_request("settings"))?;
            let key = format!("group/{}", place.name);
            self.log.put(&key, Some(&text)).await?;
            let now = self.now();
            place.group.borrow_mut().handle_settings(now, settings);
            place.wake.notify_one();
            tracing::info!(
                group = &*place.name,
                paused,
                "a queue group is paused or goes on"
            );
        }
        let mut out = Vec::new();
        Members::open(&mut out).boolean("paused", paused);
        Ok(Bytes::from(out))
    }

    /// The group begins anew elsewhere.
    pub(super) async fn seek(&self, asker: Asker, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Seeking = asked(ask)?;
        let place = self.named(&asked.group)?;
        let start = asked.to.ok_or_else(|| {
            bad_request("`to` is missing: \"beginning\", \"end\", or an object with `time`, `last`, or `channel` and `offset`")
        })?;
        let channels = place.group.borrow().settings().channels.clone();
        let after = match self.resolve(&start, &channels).await? {
            From::Beginning => 0,
            From::New => self.log.status().end,
            From::After(cursor) => cursor,
        };
        self.begin_behind(Some(asker), &place, after).await?;
        tracing::info!(
            group = &*place.name,
            after,
            "a queue group begins anew elsewhere"
        );
        let lag = self.log.lag(&place.name).await?;
        place.lag.set(lag);
        let mut out = Vec::new();
        let mut members = Members::open(&mut out);
        members.number("lag", lag.entries + lag.delayed + lag.leased);
        members.close();
        Ok(Bytes::from(out))
    }

    /// The group forgets what it has not done.
    pub(super) async fn purge(&self, asker: Asker, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Named = asked(ask)?;
        let place = self.named(&asked.group)?;
        let lag = self.log.lag(&place.name).await?;
        let purged = lag.entries + lag.delayed + lag.leased;
        let end = self.log.status().end;
        self.begin_behind(Some(asker), &place, end).await?;
        tracing::info!(
            group = &*place.name,
            purged,
            "a queue group forgets what it has not done"
        );
        if let Ok(lag) = self.log.lag(&place.name).await {
            place.lag.set(lag);
        }
        let mut out = Vec::new();
        Members::open(&mut out).number("purged", purged);
        Ok(Bytes::from(out))
    }

    async fn begin_behind(
        &self,
        asker: Option<Asker>,
        place: &Place,
        after: u64,
    ) -> Result<(), LogError> {
        let _one = self.turn_of(asker).await?;
        let (done, is_done) = tokio::sync::oneshot::channel();
        if place.seek.borrow().is_some() || place.is_gone.get() {
            return Err(closed());
        }
        *place.seek.borrow_mut() = Some(Seek { after, asker, done });
        place.is_seeking.set(true);
        place.wake.notify_one();
        let sought = is_done.await.unwrap_or_else(|_| Err(closed()));
        place.is_seeking.set(false);
        sought
    }

    /// A seek that whoever began it has not finished, because it was killed or the log was down, is finished here.
    pub(super) fn look_at_seek(self: &Rc<Self>, place: &Rc<Place>, seeking: Option<u64>) {
        let Some(after) = seeking.filter(|_| !place.is_seeking.get()) else {
            return place.sought.set(None);
        };
        match place.sought.get() {
            Some((known, since)) if known == after => {
                if since.elapsed() < SEEK_PATIENCE {
                    return;
                }
                place.sought.set(None);
                let (desk, place) = (Rc::clone(self), Rc::clone(place));
                tokio::task::spawn_local(async move { desk.finish_seek(&place, after).await });
            }
            _ => place.sought.set(Some((after, clock()))),
        }
    }

    async fn finish_seek(&self, place: &Place, after: u64) {
        let group = &*place.name;
        match self.begin_behind(None, place, after).await {
            Ok(()) => tracing::info!(group, after, "a seek that had come half way is finished"),
            Err(error) => tracing::debug!(%error, group, "a seek is finished later"),
        }
        if let Ok(lag) = self.log.lag(group).await {
            place.lag.set(lag);
        }
    }

    /// What the group has not done, oldest first.
    pub(super) async fn peek(&self, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Peeking = asked(ask)?;
        let place = self.named(&asked.group)?;
        let limit = asked.limit.unwrap_or(10).clamp(1, PEEKED_MAX);
        let after = asked.after.unwrap_or(0);
        let undone = self.log.undone(&place.name, after, limit).await?;
        let next = undone.last().map(|last| last.entry.cursor);
        let next = next.filter(|_| undone.len() == limit);
        let mut out = Vec::new();
        let mut members = Members::open(&mut out);
        let now = unix_ms();
        members.array("entries", undone, |out, one: Undone| {
            let mut members = Members::open(out);
            members.text("state", state_of(&one, now));
            members.number("failed", one.failures.last().map_or(0, |last| last.attempt));
            if let Some(last) = one.failures.last() {
                members.text("reason", &last.reason);
                if last.next_unix_ms > now && !one.is_leased {
                    members.number("due_in_ms", last.next_unix_ms - now);
                }
            }
            encode::entry(&mut members, &one.entry, true);
        });
        if let Some(next) = next {
            members.number("next", next);
        }
        members.close();
        Ok(Bytes::from(out))
    }

    /// Another group with the same rules, which begins with what this one has not done.
    pub(super) async fn copy(self: &Rc<Self>, asker: Asker, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Copying = asked(ask)?;
        let place = self.named(&asked.group)?;
        if !is_group_name(&asked.to) {
            return Err(bad_request(
                "`to` is the name of the new group: 1 to 128 of A-Z a-z 0-9 . _ -",
            ));
        }
        let _one = self.turn_of(Some(asker)).await?;
        let copied = |to: &str| {
            let mut out = Vec::new();
            Members::open(&mut out).text("group", own(to));
            Bytes::from(out)
        };
        if let Some(other) = self.place(&asked.to) {
            // Whoever was not answered in time asks again.
            let is_new = other.group.borrow().counters().delivered == 0;
            if is_new && *other.copied_by.borrow() == ask.data {
                return Ok(copied(&asked.to));
            }
            return Err(bad_request(
                "there is a group with the name in `to`: delete it, or take another name",
            ));
        }
        let settings = place.group.borrow().settings().clone();
        let from = match &asked.from {
            Some(start) => self.resolve(start, &settings.channels).await?,
            None => {
                let first = self.log.undone(&place.name, 0, 1).await?;
                let first = first.first().map(|first| first.entry.cursor - 1);
                From::After(first.unwrap_or_else(|| self.log.status().end))
            }
        };
        let made = self.make(&asked.to, settings, from, None).await?;
        made.copied_by.replace(ask.data.clone());
        Ok(copied(&asked.to))
    }
}

fn state_of(one: &Undone, now_ms: u64) -> &'static str {
    if one.is_leased {
        "leased"
    } else if one
        .failures
        .last()
        .is_some_and(|last| last.next_unix_ms > now_ms)
    {
        "delayed"
    } else {
        "ready"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::{null, object};

    #[test]
    fn null_parameters_are_absent_ones() {
        let sample = json!({ "group": "g", "to": "new" });
        null::covers(&sample, &null::names::<Seeking>());
        null::same(&sample, &[], |text| {
            format!("{:?}", object::<Seeking>(text.as_bytes()))
        });
        let sample = json!({ "group": "g", "after": 1, "limit": 2 });
        null::covers(&sample, &null::names::<Peeking>());
        null::same(&sample, &[], |text| {
            format!("{:?}", object::<Peeking>(text.as_bytes()))
        });
        let sample = json!({ "group": "g", "to": "h", "from": { "last": 1 } });
        null::covers(&sample, &null::names::<Copying>());
        null::same(&sample, &[], |text| {
            format!("{:?}", object::<Copying>(text.as_bytes()))
        });
    }

    #[test]
    fn workers_that_are_wanted_follow_from_what_waits_and_from_the_pace_of_those_there_are() {
        let pace = Pace {
            looked: None,
            rate: 10.0,
        };
        assert_eq!(pace.desired(600, 2), Some(4));
        assert_eq!(pace.desired(0, 2), Some(1));
        assert_eq!(pace.desired(5, 0), None);
        assert_eq!(Pace::default().desired(5, 2), None);
    }
}

//! Groups whose deliveries are posted to a target (`[[queue.push]]`): the desk takes them like a worker, and the target's answer
//! says what became of them.
//!
//! What was posted and has failed is a failed attempt, as the target may have had it. Where nobody was asked (no connection, an open
//! breaker, 429) nothing is given for a while and no attempt is counted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::de::{Error as _, MapAccess};

use super::encode::{self, Given};
use super::group::{Group, Holder, Taker, Window};
use super::picks::Picks;
use super::settings::{Backoff, Settings};
use super::start::From;
use super::turns::{Key, LANE_WEIGHTS, LANES, Lanes, Turns};
use super::{Inner, Outlet, Place, bad_request, clock};
use crate::config::durable::Push;
use crate::limits::{ACK_WAIT_MAX, PUSH_BYTES_MAX};
use crate::mesh::durable::LogError;
use crate::upstream::log::{Entries, Groups, Letters, Values};
use crate::wire::json::write::Members;
use crate::wire::json::{Malformed, Part, Value, fields, object};

/// A target that was away is asked again after this, and after twice as long each time.
const REST: Duration = Duration::from_millis(250);
/// … at most.
const REST_LONGEST: Duration = Duration::from_secs(10);

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The target has done it, and says this.
    Done(Bytes),
    /// The target does not want it.
    Refused {
        /// Status and body.
        reason: String,
        /// It said when to come again.
        retry_after: Option<Duration>,
    },
    /// The target may have had it.
    Failed {
        /// What went wrong.
        reason: String,
        /// It said when to come again.
        retry_after: Option<Duration>,
        /// That was about whatever else there is, too.
        is_busy: bool,
    },
    /// Nobody had it, for this reason; whether the target said when to come again.
    Away(String, Option<Duration>),
}

/// A push rule at work.
pub(super) struct Pusher {
    rule: RefCell<Push>,
    /// Given, and not posted yet.
    queue: RefCell<VecDeque<Given>>,
    /// Under way.
    calls: Cell<u32>,
    /// Nothing is given until then.
    rest_until: Cell<Option<Instant>>,
    /// How often it was away in a row: while it is not 0, one call at a time shows whether it is back.
    away: Cell<u32>,
    /// The rule is gone.
    is_over: Cell<bool>,
}

impl Pusher {
    fn new(rule: Push) -> Self {
        Self {
            rule: RefCell::new(rule),
            queue: RefCell::default(),
            calls: Cell::new(0),
            rest_until: Cell::new(None),
            away: Cell::new(0),
            is_over: Cell::new(false),
        }
    }

    const fn rests(&self) -> bool {
        self.rest_until.get().is_some()
    }

    fn calls_max(&self) -> u32 {
        match self.away.get() {
            0 => self.rule.borrow().concurrency,
            _ => 1,
        }
    }

    fn credit(&self) -> usize {
        if self.rests() || self.is_over.get() {
            return 0;
        }
        self.rule.borrow().batch as usize * self.calls_max() as usize
    }

    /// `true`: one more call may be made.
    pub(super) fn take(&self, given: Given) -> bool {
        self.queue.borrow_mut().push_back(given);
        let may_begin = self.rests() || self.is_over.get() || self.calls.get() < self.calls_max();
        self.calls.set(self.calls.get() + u32::from(may_begin));
        may_begin
    }

    /// What is posted next.
    fn next(&self) -> Vec<Given> {
        let mut queue = self.queue.borrow_mut();
        let count = queue.len().min(self.rule.borrow().batch as usize);
        queue.drain(..count).collect()
    }

    /// The body of a call: a delivery, or several where there may be several.
    fn body(&self, group: &str, givens: &[Given]) -> Bytes {
        let mut out = Vec::new();
        match givens {
            [given] if self.rule.borrow().batch == 1 => encode::delivery(&mut out, group, given),
            _ => Members::open(&mut out).array("deliveries", givens, |out, given| {
                encode::delivery(out, group, given);
            }),
        }
        Bytes::from(out)
    }

    /// Nothing is given for a while. What was given and not posted goes to others. Gives for how long, where it did not rest already.
    fn rest(&self, retry_after: Option<Duration>) -> Option<Duration> {
        let began = !self.rests();
        let times = self.away.get();
        let time = retry_after.unwrap_or_else(|| (REST * (1 << times.min(6))).min(REST_LONGEST));
        let until = clock() + time.max(REST);
        self.rest_until.set(self.rest_until.get().max(Some(until)));
        if began {
            self.away.set(times.saturating_add(1));
        }
        began.then_some(time)
    }
}

/// Deliveries of a call that the target has not done.
#[derive(Debug, Default)]
struct Answer {
    failed: Vec<NotDone>,
}
fields!(Answer { "failed" => failed });

#[derive(Debug, Default)]
struct NotDone {
    event_id: Box<str>,
    reason: Option<Box<str>>,
    delay_ms: Option<u64>,
}
fields!(NotDone { "event_id" => event_id, "reason" => reason, "delay_ms" => delay_ms });

impl<'de> Value<'de> for Vec<NotDone> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let found = map.next_value::<Option<Vec<Part<NotDone>>>>();
        let found = found.map_err(|_| A::Error::custom(": expected a list of objects"))?;
        let parts = found.unwrap_or_default().into_iter();
        Ok(parts.filter_map(|part| part.0).collect())
    }
}

/// What an answer says. One that is no JSON object says that all is done.
fn answer(body: &[u8]) -> Result<Vec<NotDone>, Malformed> {
    match object::<Answer>(body) {
        Ok(answer) => Ok(answer.failed),
        Err(error) if error.is_syntax() || !body.trim_ascii_start().starts_with(b"{") => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Tells a group what came of a call.
fn settle(group: &mut Group, now: crate::time::Now, batch: &[Given], pushed: &Pushed) {
    let holder = Holder::Trigger;
    let fail = |group: &mut Group, reason: &str, delay: Option<Duration>| {
        for given in batch {
            group.handle_failed(now, holder, given.delivery, reason, delay);
        }
    };
    match pushed {
        Pushed::Done(body) => match answer(body) {
            Ok(failed) => {
                for given in batch {
                    let event = given.entry.record.event.encode();
                    let is_its = |one: &&NotDone| one.event_id.as_bytes() == &event[..];
                    match failed.iter().find(is_its) {
                        Some(one) => {
                            let reason = one.reason.as_deref().unwrap_or("nak");
                            let delay = one.delay_ms.map(Duration::from_millis);
                            let delay = delay.map(|delay| delay.min(ACK_WAIT_MAX));
                            group.handle_failed(now, holder, given.delivery, reason, delay)
                        }
                        None => group.handle_acked(now, holder, given.delivery),
                    };
                }
            }
            Err(error) => fail(group, &format!("answer: {error}"), None),
        },
        Pushed::Refused {
            reason,
            retry_after,
        }
        | Pushed::Failed {
            reason,
            retry_after,
            ..
        } => fail(group, reason, *retry_after),
        Pushed::Away(..) => {
            for given in batch {
                group.handle_returned(now, holder, given.delivery);
            }
        }
    }
}

/// The rules of a group as a push rule says them.
fn settings(rule: &Push, before: Option<&Settings>) -> Result<Settings, LogError> {
    let wrong = |error: &dyn std::fmt::Display| bad_request(&error.to_string());
    let key = (!rule.key.is_empty()).then(|| Key::parse(&rule.key));
    let backoff = Backoff {
        base: rule.backoff_base,
        factor: f64::from(rule.backoff_factor),
        cap: rule.backoff_cap,
        ..Backoff::default()
    };
    let before = before.cloned().unwrap_or_default();
    let tags = rule.tags.iter();
    let picks = Picks {
        tags: tags
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect(),
        condition: rule.condition.as_str().into(),
    };
    let lanes = match rule.lanes_by.as_str() {
        "" => None,
        by => Some(Lanes {
            by: Key::parse(by).map_err(|error| wrong(&error))?,
            weights: <[u32; LANES]>::try_from(&*rule.lanes_weights).unwrap_or(LANE_WEIGHTS),
        }),
    };
    Ok(Settings {
        channels: rule
            .channels
            .iter()
            .map(|one| one.as_str().into())
            .collect(),
        ack_wait: rule.ack_wait,
        ordered: rule.ordered,
        max_attempts: rule.max_attempts,
        backoff,
        turns: Turns {
            key: key.transpose().map_err(|error| wrong(&error))?,
            concurrency: rule.key_concurrency,
            rate: f64::from(rule.key_rate),
            lanes,
            ..before.turns
        },
        picks,
        gathers: false,
        lag_max: before.lag_max,
        paused: before.paused,
    })
}

impl<L: Entries + Groups + Letters + Values, O: Outlet> Inner<L, O> {
    /// Push rules of the configuration run; those that are gone do not, and their groups stay as they are.
    pub(super) async fn start_pushes(self: &Rc<Self>) -> Result<(), LogError> {
        let rules = self.config.borrow().queue.push.clone();
        let places: Vec<_> = self.groups.borrow().iter().flatten().cloned().collect();
        for place in places {
            let is_kept = rules.iter().any(|rule| rule.group == *place.name);
            let pusher = place.push.borrow().clone();
            if let Some(pusher) = pusher.filter(|_| !is_kept) {
                tracing::info!(group = &*place.name, "a queue group is not pushed any more");
                self.stop_push(&place, &pusher);
            }
        }
        for rule in rules {
            let place = self.known(&rule.group).await?;
            let place = place.filter(|place| !place.is_gone.get());
            let before = place
                .as_ref()
                .map(|place| place.group.borrow().settings().clone());
            let settings = settings(&rule, before.as_ref())?;
            let differs = before.is_none_or(|before| !before.differences(&settings).is_empty());
            let place = match place {
                Some(place) if !differs => place,
                _ => {
                    let from = match rule.from_new {
                        true => From::New,
                        false => From::Beginning,
                    };
                    self.make(&rule.group, settings, from, None).await?
                }
            };
            self.attach(&place, rule);
        }
        Ok(())
    }
}

impl<L: 'static, O: Outlet> Inner<L, O> {
    fn attach(&self, place: &Rc<Place>, rule: Push) {
        let known = place.push.borrow().clone();
        let pusher = match known.filter(|pusher| !pusher.is_over.get()) {
            Some(pusher) => {
                pusher.rule.replace(rule);
                pusher
            }
            None => {
                let pusher = Rc::new(Pusher::new(rule));
                place.push.replace(Some(Rc::clone(&pusher)));
                pusher
            }
        };
        place.group.borrow_mut().handle_joined(
            Taker::Trigger,
            pusher.credit(),
            &Window::new(PUSH_BYTES_MAX),
            "push",
        );
        place.wake.notify_one();
    }

    /// The rule is gone: what is under way is answered, and nothing more is given.
    fn stop_push(&self, place: &Rc<Place>, pusher: &Rc<Pusher>) {
        pusher.is_over.set(true);
        place.group.borrow_mut().handle_credit(Taker::Trigger, 0);
        self.end_push(place, pusher);
    }

    /// It leaves once nothing is under way, unless another rule has come meanwhile.
    fn end_push(&self, place: &Place, pusher: &Rc<Pusher>) {
        if !pusher.is_over.get() || pusher.calls.get() > 0 {
            return;
        }
        let current = place.push.borrow().clone();
        if current.is_some_and(|current| Rc::ptr_eq(&current, pusher)) {
            let now = self.now();
            place.group.borrow_mut().handle_left(now, Taker::Trigger);
            place.push.replace(None);
        }
        place.wake.notify_one();
    }

    /// Posts what there is, one call after the other. Counts as one of `calls` from before it begins.
    pub(super) async fn push(self: Rc<Self>, place: Rc<Place>, pusher: Rc<Pusher>) {
        while !pusher.rests() && !pusher.is_over.get() {
            let batch = pusher.next();
            if batch.is_empty() || pusher.calls.get() > pusher.calls_max() {
                pusher.queue.borrow_mut().extend(batch);
                break;
            }
            let (target, ack_wait) = {
                let rule = pusher.rule.borrow();
                (rule.target.clone(), rule.ack_wait)
            };
            let body = pusher.body(&place.name, &batch);
            let call = self.outlet.push(&target, body);
            let pushed = match tokio::time::timeout(ack_wait, call).await {
                Ok(pushed) => pushed,
                Err(_elapsed) => Pushed::Failed {
                    reason: "ack_wait".to_owned(),
                    retry_after: None,
                    is_busy: false,
                },
            };
            self.pushed(&place, &pusher, &batch, &pushed);
        }
        if pusher.rests() || pusher.is_over.get() {
            let unposted: Vec<Given> = pusher.queue.borrow_mut().drain(..).collect();
            let now = self.now();
            let mut group = place.group.borrow_mut();
            for given in unposted {
                group.handle_returned(now, Holder::Trigger, given.delivery);
            }
        }
        pusher.calls.set(pusher.calls.get() - 1);
        self.end_push(&place, &pusher);
        place.wake.notify_one();
    }

    fn pushed(
        self: &Rc<Self>,
        place: &Rc<Place>,
        pusher: &Rc<Pusher>,
        batch: &[Given],
        pushed: &Pushed,
    ) {
        let rest = match pushed {
            Pushed::Away(reason, retry_after) => {
                let rest = pusher.rest(*retry_after);
                if let Some(time) = rest {
                    let group = &*place.name;
                    tracing::debug!(group, reason, ?time, "a push finds nobody");
                }
                rest
            }
            Pushed::Failed {
                is_busy: true,
                retry_after,
                ..
            } => pusher.rest(*retry_after),
            Pushed::Done(_) | Pushed::Refused { .. } | Pushed::Failed { .. } => {
                pusher.away.set(0);
                None
            }
        };
        let now = self.now();
        {
            let mut group = place.group.borrow_mut();
            group.handle_credit(Taker::Trigger, pusher.credit());
            settle(&mut group, now, batch, pushed);
        }
        place.wake.notify_one();
        if rest.is_some() {
            tokio::task::spawn_local(Rc::clone(self).end_rest(Rc::clone(place), Rc::clone(pusher)));
        }
    }

    /// Waits until its time is over; then one call shows whether the target is back.
    async fn end_rest(self: Rc<Self>, place: Rc<Place>, pusher: Rc<Pusher>) {
        while let Some(until) = pusher.rest_until.get().filter(|until| *until > clock()) {
            tokio::time::sleep(until - clock()).await;
        }
        pusher.rest_until.set(None);
        if !pusher.is_over.get() {
            let credit = pusher.credit();
            place
                .group
                .borrow_mut()
                .handle_credit(Taker::Trigger, credit);
            place.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_names_what_is_not_done_and_anything_else_says_that_all_is() {
        let failed = answer(br#"{"failed":[{"event_id":"a","reason":"r","delay_ms":5},null]}"#);
        let failed = failed.expect("an answer");
        assert_eq!(failed.len(), 1);
        assert_eq!((&*failed[0].event_id, failed[0].delay_ms), ("a", Some(5)));
        for body in [
            "",
            "OK",
            "[]",
            "{}",
            r#"{"ok":true}"#,
            r#"{"failed":null}"#,
            "{",
        ] {
            let failed = answer(body.as_bytes()).expect(body);
            assert!(failed.is_empty(), "{body}");
        }
        // Whoever wanted to name some has not, so nothing is taken for done.
        for body in [
            r#"{"failed":"a"}"#,
            r#"{"failed":[1]}"#,
            r#"{"failed":{"a":1}}"#,
        ] {
            assert!(answer(body.as_bytes()).is_err(), "{body}");
        }
    }
}

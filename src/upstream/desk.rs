//! The desk: whatever is asked about queue groups, dead letters and replays is answered here, on the bridge's thread.

mod dead;
pub mod encode;
pub mod group;
pub mod replay;
pub mod settings;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tokio::sync::Notify;

use super::Log;
use super::log::{DeadLetter, Group as LogGroup, Lag, Lease, Settled, worker_name};
use super::triggers::{Fault, Rule, TRIGGER_PREFIX};
use crate::config::{Config, glob_match};
use crate::mem::Rng;
use crate::mesh::durable::{Append, Appended, Ask, Caller, LogError, Method, RequestId};
use crate::model::{ConnId, ShardId};
use crate::time::{Instant, Now};

use group::{GROUPS_MAX, Group, Holder, LEASE, Output, Taker, index_of};
use settings::{GROUP_BYTES_MAX, Settings, WAIT_MAX, Wish, WishError, is_group_name, within};

/// Deliveries under way at a worker that does not say how many.
const CREDIT: u32 = 16;
/// At most.
const CREDIT_MAX: u32 = 10_000;
/// Groups that one connection consumes.
const GROUPS_PER_WORKER_MAX: usize = 16;
/// Deliveries in the answer to one fetch.
const FETCH_LIMIT_MAX: u32 = 1000;
/// Longest wait of a fetch, milliseconds.
const FETCH_WAIT_MAX_MS: u64 = 20_000;
/// Time that the log has to say what there is.
const FETCH_WAIT_MIN_MS: u64 = 50;
/// Deliveries settled by one question.
const DELIVERIES_MAX: usize = 10_000;
/// Publications that a trigger works on at a time.
const TRIGGER_CREDIT: usize = 64;
/// Pages of replays that are made at a time.
const REPLAYS_MAX: usize = 1;
/// Bytes that all groups together hold.
const HELD_BYTES_IN_ALL_MAX: usize = 512 << 20;
/// What the log could not do is tried again after this.
const RETRY: std::time::Duration = std::time::Duration::from_millis(250);
/// Questions wait this long for the groups to be read after a start.
const LOAD_WAIT: std::time::Duration = std::time::Duration::from_secs(5);
/// A group looks after itself at least this often.
const IDLE: std::time::Duration = std::time::Duration::from_secs(10);
/// How far groups are behind is asked this often.
const LAG_INTERVAL: std::time::Duration = std::time::Duration::from_secs(2);
/// Time for returning what is leased at the end.
const CLOSE_TIME: std::time::Duration = std::time::Duration::from_secs(2);
/// Times that a hook is told of a dead letter until it listens.
const HOOK_ATTEMPTS: u32 = 5;

/// Who waits for an answer.
pub type Asker = (ShardId, RequestId);

/// A connection that takes deliveries.
pub type WorkerId = (ShardId, ConnId);

/// What the desk needs of the bridge. None of it calls back into the desk before it returns.
#[allow(async_fn_in_trait, reason = "the desk runs on one thread")]
pub trait Outlet: 'static {
    /// The answer to `Desk::ask`; every question gets one.
    fn answer(&self, to: Asker, result: Result<Bytes, LogError>);

    /// A delivery, JSON. Those of one worker stay in order.
    fn deliver(&self, to: WorkerId, delivery: Bytes);

    /// Something is published on an ephemeral channel.
    fn announce(&self, channel: &str, data: Bytes);

    /// Calls the hook with this name; an error says why it does not count as called.
    async fn hook(&self, name: &str, body: Bytes) -> Result<(), String>;

    /// Stores publications like anybody's, one result each, in order.
    async fn append(&self, appends: Vec<Append>) -> Vec<Result<Appended, LogError>>;
}

/// How a group does, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupReport {
    /// Name.
    pub name: Box<str>,
    /// Connections that take from it.
    pub workers: usize,
    /// Deliveries that are neither settled nor run out.
    pub in_flight: usize,
    /// Entries that are leased to this process, those in flight included.
    pub held: usize,
    /// Of them, those that wait for their next attempt.
    pub retries: usize,
    /// Entries that are neither done nor leased, as of a few seconds ago.
    pub lag: u64,
    /// When the oldest entry that is not done was taken in, Unix milliseconds, likewise.
    pub oldest_unix_ms: Option<u64>,
    /// Deliveries since the start.
    pub delivered: u64,
    /// Of them, those of an entry that was delivered before.
    pub redelivered: u64,
    /// Deliveries that were acknowledged.
    pub acked: u64,
    /// Deliveries that a worker gave up.
    pub naked: u64,
    /// Deliveries that ran out.
    pub timed_out: u64,
    /// Entries that became dead letters.
    pub dead: u64,
}

/// See the module. Lives on a current-thread runtime, within a `LocalSet`.
pub struct Desk<L, O>(Rc<Inner<L, O>>);

struct Inner<L, O> {
    log: Rc<L>,
    outlet: Rc<O>,
    /// By the index that their deliveries begin with.
    groups: RefCell<Vec<Option<Rc<Place>>>>,
    by_name: RefCell<BTreeMap<Box<str>, usize>>,
    /// Groups of each connection.
    workers: RefCell<HashMap<WorkerId, BTreeSet<usize>, FixedState>>,
    /// Connections whose `consume` is under way, and whether they are gone meanwhile.
    joining: RefCell<HashMap<WorkerId, (u32, bool), FixedState>>,
    config: RefCell<Config>,
    /// The groups of the log are known here.
    is_loaded: Cell<bool>,
    loaded: Notify,
    is_closed: Cell<bool>,
    /// One group is made or changed at a time.
    opening: tokio::sync::Mutex<()>,
    replays: tokio::sync::Semaphore,
    started: std::time::Instant,
    rng: RefCell<Rng>,
}

/// A group and the task that drives it.
struct Place {
    name: Box<str>,
    index: usize,
    group: RefCell<Group>,
    wake: Notify,
    is_gone: Cell<bool>,
    ended: Cell<bool>,
    lag: Cell<Lag>,
    trigger: RefCell<Option<Rc<Rule>>>,
}

impl<L: Log, O: Outlet> Desk<L, O> {
    /// Begins: groups are read from the log, triggers start.
    #[must_use]
    pub fn new(log: Rc<L>, outlet: Rc<O>, config: &Config) -> Self {
        let seed = seed();
        let inner = Rc::new(Inner {
            log,
            outlet,
            groups: RefCell::default(),
            by_name: RefCell::default(),
            workers: RefCell::default(),
            joining: RefCell::default(),
            config: RefCell::new(config.clone()),
            is_loaded: Cell::new(false),
            loaded: Notify::new(),
            is_closed: Cell::new(false),
            opening: tokio::sync::Mutex::new(()),
            replays: tokio::sync::Semaphore::new(REPLAYS_MAX),
            started: clock(),
            rng: RefCell::new(Rng::new(seed)),
        });
        tokio::task::spawn_local(Rc::clone(&inner).load());
        tokio::task::spawn_local(Rc::clone(&inner).watch_lags());
        Self(inner)
    }

    /// A question; `Outlet::answer` follows, perhaps before this returns.
    pub fn ask(&self, asker: Asker, ask: Ask) {
        let inner = &self.0;
        if inner.is_closed.get() {
            return inner.outlet.answer(asker, Err(closed()));
        }
        let result = match ask.method {
            Method::Ack | Method::Nak | Method::Extend => inner.settle(asker, &ask),
            Method::Credit => inner.credit(asker, &ask),
            Method::Leave => inner.leave(asker, &ask),
            Method::Consume
            | Method::Fetch
            | Method::Groups
            | Method::DeleteGroup
            | Method::DeadList
            | Method::DeadShow
            | Method::DeadRetry
            | Method::DeadDrop
            | Method::Replay => {
                let worker = inner.begins_to_join(asker, &ask);
                tokio::task::spawn_local(Rc::clone(inner).answer(asker, ask, worker));
                return;
            }
        };
        inner.outlet.answer(asker, result);
    }

    /// A worker's connection is gone: what it has goes to others and does not count as an attempt.
    pub fn gone(&self, worker: WorkerId) {
        if let Some((_, is_gone)) = self.0.joining.borrow_mut().get_mut(&worker) {
            *is_gone = true;
        }
        self.0.drop_worker(worker);
    }

    /// Another configuration counts: triggers that are gone stop, and their groups are forgotten.
    pub fn reload(&self, config: &Config) {
        self.0.config.replace(config.clone());
        if self.0.is_loaded.get() {
            tokio::task::spawn_local(Rc::clone(&self.0).start_triggers());
        }
    }

    /// How all groups do.
    #[must_use]
    pub fn report(&self) -> Vec<GroupReport> {
        let groups = self.0.groups.borrow();
        let mut reports: Vec<GroupReport> = groups
            .iter()
            .flatten()
            .map(|place| place.report())
            .collect();
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }

    /// Gives back everything that is leased. Later questions are answered with an error.
    pub async fn close(&self) {
        self.0.is_closed.set(true);
        let places: Vec<_> = self.0.groups.borrow().iter().flatten().cloned().collect();
        for place in &places {
            place.is_gone.set(true);
            place.wake.notify_one();
        }
        let until = clock() + CLOSE_TIME;
        while clock() < until && places.iter().any(|place| !place.ended.get()) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

impl Place {
    fn report(&self) -> GroupReport {
        let group = self.group.borrow();
        let counters = group.counters();
        let lag = self.lag.get();
        GroupReport {
            name: self.name.clone(),
            workers: group.workers(),
            in_flight: group.in_flight(),
            held: group.held(),
            retries: group.retries(),
            lag: lag.entries,
            oldest_unix_ms: lag.oldest_unix_ms,
            delivered: counters.delivered,
            redelivered: counters.redelivered,
            acked: counters.acked,
            naked: counters.naked,
            timed_out: counters.timed_out,
            dead: counters.dead,
        }
    }
}

/// Parameters of what settles deliveries.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settling {
    delivery: Option<u64>,
    #[serde(default)]
    deliveries: Vec<u64>,
    delay_ms: Option<u64>,
    reason: Option<Box<str>>,
    ms: Option<u64>,
}

/// Parameters of `credit` and `leave`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Standing {
    group: Box<str>,
    credit: Option<u32>,
}

impl<L: Log, O: Outlet> Inner<L, O> {
    fn now(&self) -> Now {
        Now {
            at: Instant(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)),
            unix_ms: unix_ms(),
        }
    }

    fn place(&self, name: &str) -> Option<Rc<Place>> {
        let index = *self.by_name.borrow().get(name)?;
        self.groups.borrow().get(index)?.clone()
    }

    async fn answer(self: Rc<Self>, asker: Asker, ask: Ask, worker: Option<WorkerId>) {
        while !self.is_loaded.get() {
            let loaded = self.loaded.notified();
            if self.is_loaded.get() {
                break;
            }
            // The log may be down: whoever asks is told.
            if tokio::time::timeout(LOAD_WAIT, loaded).await.is_err() {
                self.ends_to_join(worker);
                return self.outlet.answer(asker, Err(closed()));
            }
        }
        let result = match ask.method {
            Method::Consume => self.consume(asker, &ask).await.map(Some),
            Method::Fetch => self.fetch(asker, &ask).await.map(|()| None),
            Method::Groups => Ok(Some(self.list())),
            Method::DeleteGroup => self.delete(&ask).await.map(Some),
            Method::DeadList => dead::list(&*self.log, &ask.data).await.map(Some),
            Method::DeadShow => dead::show(&*self.log, &ask.data).await.map(Some),
            Method::DeadRetry => dead::retry(&*self.log, &*self.outlet, &ask.data)
                .await
                .map(Some),
            Method::DeadDrop => dead::forget(&*self.log, &ask.data).await.map(Some),
            Method::Replay => {
                let permit = self.replays.acquire().await;
                let random = self.rng.borrow_mut().bits();
                let has_group = |name: &str| self.by_name.borrow().contains_key(name);
                let page =
                    replay::page(&*self.log, &*self.outlet, &ask.data, random, has_group).await;
                drop(permit);
                page.map(Some)
            }
            Method::Ack | Method::Nak | Method::Extend | Method::Credit | Method::Leave => {
                Err(bad_request("answered elsewhere"))
            }
        };
        self.ends_to_join(worker);
        match result {
            Ok(Some(json)) => self.outlet.answer(asker, Ok(json)),
            // The group answers.
            Ok(None) => {}
            Err(error) => self.outlet.answer(asker, Err(error)),
        }
    }

    fn begins_to_join(&self, asker: Asker, ask: &Ask) -> Option<WorkerId> {
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
    fn ends_to_join(&self, worker: Option<WorkerId>) {
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

    fn drop_worker(&self, worker: WorkerId) {
        let left = self.workers.borrow_mut().remove(&worker);
        let now = self.now();
        for index in left.unwrap_or_default() {
            let place = self.groups.borrow().get(index).cloned().flatten();
            if let Some(place) = place {
                place
                    .group
                    .borrow_mut()
                    .handle_left(now, Taker::Connection(worker));
                place.wake.notify_one();
            }
        }
    }

    async fn consume(self: &Rc<Self>, asker: Asker, ask: &Ask) -> Result<Bytes, LogError> {
        let Caller::Client {
            conn, client, user, ..
        } = &ask.caller
        else {
            return Err(bad_request("only a connection consumes: a service fetches"));
        };
        let wish = wish_of(&ask.data)?;
        let credit = wish.credit.unwrap_or(CREDIT);
        let credit = within(credit, 1, CREDIT_MAX, "credit", "1 to 10000").map_err(wrong)?;
        let worker = (asker.0, *conn);
        let groups_of_worker = self.workers.borrow().get(&worker).map_or(0, BTreeSet::len);
        if groups_of_worker >= GROUPS_PER_WORKER_MAX {
            return Err(bad_request("a connection consumes at most 16 groups"));
        }
        let place = self.open(&wish, &ask.caller).await?;
        let name = worker_name(user, *client);
        let taker = Taker::Connection(worker);
        let joined = place
            .group
            .borrow_mut()
            .handle_joined(taker, credit as usize, &name);
        if !joined {
            return Err(LogError::Busy { retry_after: RETRY });
        }
        self.workers
            .borrow_mut()
            .entry(worker)
            .or_default()
            .insert(place.index);
        place.wake.notify_one();
        let mut out = BytesMut::new();
        out.extend_from_slice(b"{\"group\":");
        encode::string(&mut out, &place.name);
        out.extend_from_slice(b",\"credit\":");
        encode::number(&mut out, u64::from(credit));
        out.extend_from_slice(b"}");
        Ok(out.freeze())
    }

    async fn fetch(self: &Rc<Self>, asker: Asker, ask: &Ask) -> Result<(), LogError> {
        let wish = wish_of(&ask.data)?;
        let limit = wish.limit.unwrap_or(1);
        let limit = within(limit, 1, FETCH_LIMIT_MAX, "limit", "1 to 1000").map_err(wrong)?;
        let wait = wish.wait_ms.unwrap_or(0);
        let wait = within(wait, 0, FETCH_WAIT_MAX_MS, "wait_ms", "0 to 20000").map_err(wrong)?;
        // Even who does not wait gets what is there; the log needs a moment to say so.
        let wait = std::time::Duration::from_millis(wait.max(FETCH_WAIT_MIN_MS));
        let place = self.open(&wish, &ask.caller).await?;
        let now = self.now();
        let taken = place
            .group
            .borrow_mut()
            .handle_fetch(now, asker, limit as usize, wait);
        if !taken {
            return Err(LogError::Busy { retry_after: RETRY });
        }
        place.wake.notify_one();
        Ok(())
    }

    /// The group of a wish, made or changed as it says.
    async fn open(self: &Rc<Self>, wish: &Wish, caller: &Caller) -> Result<Rc<Place>, LogError> {
        if !is_group_name(&wish.group) {
            return Err(wrong(WishError::Group));
        }
        let before = self.place(&wish.group);
        let settings_before = before
            .as_ref()
            .map(|place| place.group.borrow().settings().clone());
        let settings = wish.settings(settings_before.as_ref()).map_err(wrong)?;
        permit(caller, &wish.group, &settings.channels)?;
        if let Some(place) = &before
            && settings_before.as_ref() == Some(&settings)
        {
            return Ok(Rc::clone(place));
        }
        let _one = self.opening.lock().await;
        let from_beginning = wish.from.unwrap_or_default() == settings::From::Beginning;
        self.make(&wish.group, settings, from_beginning, None).await
    }

    /// Makes a group or changes it.
    async fn make(
        self: &Rc<Self>,
        name: &str,
        settings: Settings,
        from_beginning: bool,
        trigger: Option<Rc<Rule>>,
    ) -> Result<Rc<Place>, LogError> {
        let of_log = LogGroup {
            name: name.into(),
            channels: settings.channels.clone(),
            from_beginning,
            lease: LEASE,
        };
        let text = serde_json::to_vec(&settings).map_err(|_| bad_request("settings"))?;
        self.log.put(&format!("group/{name}"), Some(&text)).await?;
        self.log.open_group(&of_log).await?;
        if let Some(place) = self.place(name) {
            let now = self.now();
            place.group.borrow_mut().handle_settings(now, settings);
            *place.trigger.borrow_mut() = trigger;
            place.wake.notify_one();
            return Ok(place);
        }
        self.start(name, settings, trigger)
    }

    fn start(
        self: &Rc<Self>,
        name: &str,
        settings: Settings,
        trigger: Option<Rc<Rule>>,
    ) -> Result<Rc<Place>, LogError> {
        let mut groups = self.groups.borrow_mut();
        let index = groups
            .iter()
            .position(Option::is_none)
            .unwrap_or(groups.len());
        if index >= GROUPS_MAX {
            return Err(bad_request("there are as many groups as there may be"));
        }
        let seed = self.rng.borrow_mut().bits();
        let is_trigger = trigger.is_some();
        let place = Rc::new(Place {
            name: name.into(),
            index,
            group: RefCell::new(Group::new(name, index, settings, seed)),
            wake: Notify::new(),
            is_gone: Cell::new(false),
            ended: Cell::new(false),
            lag: Cell::default(),
            trigger: RefCell::new(trigger),
        });
        if is_trigger {
            place
                .group
                .borrow_mut()
                .handle_joined(Taker::Trigger, TRIGGER_CREDIT, "trigger");
        }
        if index == groups.len() {
            groups.push(Some(Rc::clone(&place)));
        } else {
            groups[index] = Some(Rc::clone(&place));
        }
        self.by_name.borrow_mut().insert(name.into(), index);
        tokio::task::spawn_local(Rc::clone(self).drive(Rc::clone(&place)));
        Ok(place)
    }

    fn settle(&self, asker: Asker, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Settling =
            serde_json::from_slice(&ask.data).map_err(|error| bad_request(&error.to_string()))?;
        if asked.deliveries.len() > DELIVERIES_MAX {
            return Err(bad_request("`deliveries` has at most 10000 members"));
        }
        let holder = match ask.caller {
            Caller::Service => Holder::Service,
            Caller::Client { conn, .. } => Holder::Connection((asker.0, conn)),
        };
        let time = |ms: Option<u64>| ms.map(std::time::Duration::from_millis);
        if time(asked.delay_ms).max(time(asked.ms)) > Some(WAIT_MAX) {
            return Err(bad_request("`delay_ms` and `ms` are 0 to 43200000"));
        }
        let now = self.now();
        let mut done = 0;
        let mut unknown = Vec::new();
        let groups = self.groups.borrow();
        for &delivery in asked.delivery.iter().chain(&asked.deliveries) {
            let place = groups.get(index_of(delivery)).and_then(Option::as_ref);
            let known = place.is_some_and(|place| {
                let mut group = place.group.borrow_mut();
                let known = match ask.method {
                    Method::Ack => group.handle_acked(now, holder, delivery),
                    Method::Nak => {
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
            } else {
                unknown.push(delivery);
            }
        }
        let name: &[u8] = match ask.method {
            Method::Ack => b"{\"acked\":",
            Method::Nak => b"{\"naked\":",
            _ => b"{\"extended\":",
        };
        let mut out = BytesMut::from(name);
        encode::number(&mut out, done);
        if !unknown.is_empty() {
            out.extend_from_slice(b",\"unknown\":[");
            for (at, delivery) in unknown.into_iter().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b",");
                }
                encode::number(&mut out, delivery);
            }
            out.extend_from_slice(b"]");
        }
        out.extend_from_slice(b"}");
        Ok(out.freeze())
    }

    fn credit(&self, asker: Asker, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Standing =
            serde_json::from_slice(&ask.data).map_err(|error| bad_request(&error.to_string()))?;
        let Caller::Client { conn, .. } = ask.caller else {
            return Err(bad_request("only a connection has credit"));
        };
        let credit = asked
            .credit
            .ok_or_else(|| bad_request("`credit` is missing"))?;
        let credit = within(credit, 0, CREDIT_MAX, "credit", "0 to 10000").map_err(wrong)?;
        let place = self
            .place(&asked.group)
            .ok_or_else(|| no_group(&asked.group))?;
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

    fn leave(&self, asker: Asker, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Standing =
            serde_json::from_slice(&ask.data).map_err(|error| bad_request(&error.to_string()))?;
        let Caller::Client { conn, .. } = ask.caller else {
            return Err(bad_request("only a connection leaves"));
        };
        let worker = (asker.0, conn);
        let place = self
            .place(&asked.group)
            .ok_or_else(|| no_group(&asked.group))?;
        let now = self.now();
        let known = place
            .group
            .borrow_mut()
            .handle_left(now, Taker::Connection(worker));
        if let Some(groups) = self.workers.borrow_mut().get_mut(&worker) {
            groups.remove(&place.index);
        }
        place.wake.notify_one();
        if known {
            Ok(Bytes::from_static(b"{}"))
        } else {
            Err(not_found("this connection does not consume the group"))
        }
    }

    fn list(&self) -> Bytes {
        let groups = self.groups.borrow();
        let now = unix_ms();
        let mut list: Vec<serde_json::Value> = groups
            .iter()
            .flatten()
            .map(|place| {
                let report = place.report();
                let group = place.group.borrow();
                let settings = group.settings();
                serde_json::json!({
                    "group": report.name, "channels": settings.channels, "ordered": settings.ordered,
                    "max_attempts": settings.max_attempts, "ack_wait_ms": settings.ack_wait.as_millis() as u64,
                    "workers": report.workers, "in_flight": report.in_flight, "held": report.held,
                    "retries": report.retries, "lag": report.lag,
                    "oldest_age_ms": report.oldest_unix_ms.map(|at| now.saturating_sub(at)),
                    "delivered": report.delivered, "redelivered": report.redelivered, "acked": report.acked,
                    "naked": report.naked, "timed_out": report.timed_out, "dead": report.dead,
                })
            })
            .collect();
        list.sort_by(|a, b| a["group"].as_str().cmp(&b["group"].as_str()));
        Bytes::from(serde_json::json!({ "groups": list }).to_string())
    }

    async fn delete(self: &Rc<Self>, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Standing =
            serde_json::from_slice(&ask.data).map_err(|error| bad_request(&error.to_string()))?;
        if !is_group_name(&asked.group) {
            return Err(wrong(WishError::Group));
        }
        let _one = self.opening.lock().await;
        if self.forget(&asked.group).await? {
            Ok(Bytes::from_static(b"{}"))
        } else {
            Err(no_group(&asked.group))
        }
    }

    async fn forget(&self, name: &str) -> Result<bool, LogError> {
        if let Some(place) = self.place(name) {
            place.is_gone.set(true);
            place.wake.notify_one();
            while !place.ended.get() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            self.by_name.borrow_mut().remove(name);
            self.groups.borrow_mut()[place.index] = None;
            for groups in self.workers.borrow_mut().values_mut() {
                groups.remove(&place.index);
            }
        }
        self.log.put(&format!("group/{name}"), None).await?;
        self.log.delete_group(name).await
    }

    /// Reads the groups of the log; until then questions wait.
    async fn load(self: Rc<Self>) {
        loop {
            match self.load_once().await {
                Ok(()) => break,
                Err(error) => {
                    tracing::debug!(%error, "queue groups");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        self.is_loaded.set(true);
        self.loaded.notify_waiters();
        self.start_triggers().await;
    }

    async fn load_once(self: &Rc<Self>) -> Result<(), LogError> {
        for group in self.log.groups().await? {
            if group.name.starts_with(TRIGGER_PREFIX) || self.place(&group.name).is_some() {
                continue;
            }
            let text = self.log.get(&format!("group/{}", group.name)).await?;
            let settings = text
                .and_then(|text| serde_json::from_slice::<Settings>(&text).ok())
                .unwrap_or_else(|| Settings {
                    channels: group.channels.clone(),
                    ..Settings::default()
                });
            self.start(&group.name, settings, None)?;
        }
        Ok(())
    }

    /// Triggers of the configuration run; those that are gone do not, and their groups are forgotten.
    async fn start_triggers(self: Rc<Self>) {
        let _one = self.opening.lock().await;
        let rules = Rule::all(&self.config.borrow());
        let present: Vec<Box<str>> = match self.log.groups().await {
            Ok(groups) => groups.into_iter().map(|group| group.name).collect(),
            Err(_) => Vec::new(),
        };
        for name in present {
            let is_old =
                name.starts_with(TRIGGER_PREFIX) && !rules.iter().any(|rule| rule.group == *name);
            if is_old && let Err(error) = self.forget(&name).await {
                tracing::warn!(%error, group = &*name, "a trigger's group is not forgotten yet");
            }
        }
        for rule in rules {
            let name = rule.group.clone();
            let settings = Settings {
                channels: rule.channels.clone(),
                ..Settings::default()
            };
            let rule = Rc::new(rule);
            while let Err(error) = self
                .make(&name, settings.clone(), true, Some(Rc::clone(&rule)))
                .await
            {
                tracing::warn!(%error, group = name, "a trigger does not start");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn watch_lags(self: Rc<Self>) {
        while !self.is_closed.get() {
            let places: Vec<_> = self.groups.borrow().iter().flatten().cloned().collect();
            for place in places {
                if let Ok(lag) = self.log.lag(&place.name).await {
                    place.lag.set(lag);
                }
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(LAG_INTERVAL).await;
        }
    }

    /// Drives one group until it is gone.
    async fn drive(self: Rc<Self>, place: Rc<Place>) {
        let mut unsettled: Vec<(Lease, Settled)> = Vec::new();
        let mut fails = false;
        loop {
            let (wanted, due, is_gone) = {
                let mut group = place.group.borrow_mut();
                let now = self.now();
                if place.is_gone.get() {
                    group.handle_closed(now);
                } else {
                    group.handle_timeout(now);
                }
                self.carry_out(&place, &mut group);
                unsettled.extend(group.take_settled());
                let wanted = group.wanted(self.room());
                (wanted, group.poll_timeout(), place.is_gone.get())
            };
            if !unsettled.is_empty() {
                match self.log.settle(&place.name, &unsettled).await {
                    Ok(()) => unsettled.clear(),
                    Err(error) => {
                        tracing::debug!(%error, group = &*place.name, "settling is tried again");
                        if !is_gone {
                            tokio::time::sleep(RETRY).await;
                        }
                    }
                }
            }
            if is_gone {
                place.ended.set(true);
                return;
            }
            let now = self.now().at;
            let until = due.map_or(IDLE, |due| due.since(now)).min(IDLE);
            tokio::select! {
                leased = self.log.fetch(&place.name, wanted.max(1)), if wanted > 0 && !fails => {
                    match leased {
                        Ok(leased) => {
                            let now = self.now();
                            place.group.borrow_mut().handle_leased(now, leased);
                        }
                        Err(error) => {
                            tracing::debug!(%error, group = &*place.name, "fetching is tried again");
                            fails = true;
                        }
                    }
                }
                () = place.wake.notified() => {}
                () = tokio::time::sleep(if fails { RETRY.min(until) } else { until }) => fails = false,
            }
        }
    }

    /// Bytes that all groups together may hold besides.
    fn room(&self) -> usize {
        let groups = self.groups.borrow();
        let held: usize = groups
            .iter()
            .flatten()
            .filter_map(|place| place.group.try_borrow().ok())
            .map(|group| group.held_bytes())
            .sum();
        HELD_BYTES_IN_ALL_MAX.saturating_sub(held)
    }

    fn carry_out(self: &Rc<Self>, place: &Rc<Place>, group: &mut Group) {
        while let Some(output) = group.poll_output() {
            match output {
                Output::Deliver(worker, given) => {
                    let mut out = BytesMut::new();
                    encode::delivery(&mut out, &place.name, &given);
                    self.outlet.deliver(worker, out.freeze());
                }
                Output::Fetched(asker, givens) => {
                    let mut out = BytesMut::from(&b"{\"deliveries\":["[..]);
                    for (at, given) in givens.iter().enumerate() {
                        if at > 0 {
                            out.extend_from_slice(b",");
                        }
                        encode::delivery(&mut out, &place.name, given);
                    }
                    out.extend_from_slice(b"]}");
                    self.outlet.answer(asker, Ok(out.freeze()));
                }
                Output::Triggered(given) => {
                    tokio::task::spawn_local(Rc::clone(self).trigger(Rc::clone(place), given));
                }
                Output::Bury(letter) => {
                    tokio::task::spawn_local(Rc::clone(self).bury(Rc::clone(place), letter));
                }
            }
        }
    }

    async fn bury(self: Rc<Self>, place: Rc<Place>, letter: Box<DeadLetter>) {
        let outcome = self.log.bury(&letter).await;
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
        if outcome.is_err() {
            return;
        }
        let mut out = BytesMut::new();
        encode::obituary(&mut out, &letter);
        let text = out.freeze();
        self.outlet
            .announce(&format!("$dead:{}", letter.group), text.clone());
        let hook = self.config.borrow().queue.dead_letter_hook.clone();
        if hook.is_empty() {
            return;
        }
        for attempt in 1..=HOOK_ATTEMPTS {
            let Err(error) = self.outlet.hook(&hook, text.clone()).await else {
                return;
            };
            tracing::warn!(error, attempt, hook, "a dead letter could not be told");
            tokio::time::sleep(RETRY * attempt).await;
        }
    }

    /// Does what a trigger's rule says about one publication.
    async fn trigger(self: Rc<Self>, place: Rc<Place>, given: group::Given) {
        let rule = place.trigger.borrow().clone();
        let delivery = given.delivery;
        let outcome = match rule {
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

fn wish_of(data: &[u8]) -> Result<Wish, LogError> {
    serde_json::from_slice(data).map_err(|error| bad_request(&error.to_string()))
}

/// May a caller have these channels in this group?
fn permit(caller: &Caller, group: &str, channels: &[Box<str>]) -> Result<(), LogError> {
    let Caller::Client { grants, .. } = caller else {
        return Ok(());
    };
    let of_group = grants
        .iter()
        .filter(|grant| glob_match(&grant.groups, group));
    let granted: Vec<&str> = of_group
        .flat_map(|grant| grant.channels.iter().map(AsRef::as_ref))
        .collect();
    match channels
        .iter()
        .find(|wanted| !granted.iter().any(|granted| covers(granted, wanted)))
    {
        Some(wanted) => Err(LogError::Forbidden(
            format!("the token does not let this group take from `{wanted}`").into(),
        )),
        None if granted.is_empty() => Err(LogError::Forbidden(
            format!("the token does not let its client consume `{group}`").into(),
        )),
        None => Ok(()),
    }
}

/// Is everything that `wanted` matches also matched by `granted`? Says no where that is not plain.
fn covers(granted: &str, wanted: &str) -> bool {
    if granted == wanted {
        return true;
    }
    if !wanted.contains('*') {
        return glob_match(granted, wanted);
    }
    // A pattern lies within one that ends with its only star if it begins with the same text.
    granted.strip_suffix('*').is_some_and(|prefix| {
        !prefix.contains('*')
            && wanted
                .split('*')
                .next()
                .is_some_and(|start| start.starts_with(prefix))
    })
}

fn bad_request(why: &str) -> LogError {
    LogError::BadRequest(why.into())
}

fn not_found(why: &str) -> LogError {
    LogError::NotFound(why.into())
}

fn no_group(name: &str) -> LogError {
    let name: String = name.chars().take(GROUP_BYTES_MAX).collect();
    LogError::NotFound(format!("there is no group `{name}`").into())
}

fn wrong(error: WishError) -> LogError {
    LogError::BadRequest(error.to_string().into())
}

fn closed() -> LogError {
    LogError::Unavailable {
        reason: "queue groups are not available now".into(),
        retry_after: RETRY,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the desk tells its state machines the time, and this is no core module"
)]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "failures carry the wall clock's time, and this is no core module"
)]
pub(in crate::upstream) fn unix_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// Numbers of deliveries are not to be guessed.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| unix_ms())
}

#[cfg(test)]
mod tests;

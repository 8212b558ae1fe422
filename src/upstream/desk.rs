//! The desk: whatever is asked about queue groups, dead letters and replays is answered here, on the bridge's thread.

mod answered;
mod ask;
mod behind;
mod dead;
mod deleted;
mod drive;
pub mod encode;
mod gather;
mod grant;
pub mod group;
pub mod join;
mod operate;
mod parts;
pub mod picks;
mod push;
pub mod replay;
mod request;
mod rules;
mod scheduled;
pub mod settings;
pub mod start;
mod told;
mod triggers;
pub mod turns;
mod waited;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tokio::sync::Notify;

use super::log::{Census, Entries, Groups, Lag, Letters, Scheduled, Values};
use crate::config::Config;
use crate::limits::{GROUP_NAME_BYTES_MAX, REPLAYS_MAX};
use crate::mem::Rng;
use crate::mesh::durable::{Appended, Ask, LogError, LogMethod, RequestId};
use crate::model::{ConnId, Draft, Entry, Record, ShardId, TenantId};
use crate::time::Lived;
use crate::wire::json::{self, Object, Rules};

pub use dead::into_queue;
pub use push::Pushed;

use answered::Fetch;
use deleted::Deleted;
use group::{Group, Waits, Window};
use join::{JoinCounts, Joins};
use operate::Pace;
use push::Pusher;
use request::Replies;
use settings::WishError;
use triggers::Rule;
use waited::Waited;

/// Deliveries under way at a worker that does not say how many.
const CREDIT: u32 = 16;
/// Publications that a trigger works on at a time.
const TRIGGER_CREDIT: usize = 64;
/// Parts of joins that are looked at together.
const JOIN_CREDIT: usize = 1024;
/// What the log could not do is tried again after this.
const RETRY: std::time::Duration = std::time::Duration::from_millis(250);
/// Questions wait this long for the groups to be read after a start.
const LOAD_WAIT: std::time::Duration = std::time::Duration::from_secs(5);
/// A group looks after itself at least this often.
const IDLE: std::time::Duration = std::time::Duration::from_secs(10);
/// A seek of somebody else's that is not finished for so long is finished here.
const SEEK_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
/// What a group has lost is told at most this often.
const LOST_INTERVAL: std::time::Duration = std::time::Duration::from_mins(1);
/// A dead letter of a group is told at most this often.
const DEAD_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);
/// How far groups are behind is asked this often.
const LAG_INTERVAL: std::time::Duration = std::time::Duration::from_secs(2);
/// Between two groups that are looked at.
const LAG_PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
/// What all groups together hold is looked at this often.
const ROOM_INTERVAL: std::time::Duration = std::time::Duration::from_millis(2);
/// The desk looks at its clock this often.
const LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);
/// Much longer than that: the process or its machine was stopped. Acknowledgements that arrived meanwhile are in time.
const STANDSTILL: std::time::Duration = std::time::Duration::from_secs(1);
/// Time for returning what is leased at the end.
const CLOSE_TIME: std::time::Duration = std::time::Duration::from_secs(2);

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

    /// Calls the hook with this name; an error says why it does not count as called.
    async fn hook(&self, name: &str, body: Bytes) -> Result<(), String>;

    /// Posts deliveries to the target with this name, within its bounds.
    async fn push(&self, name: &str, body: Bytes) -> Pushed;

    /// Stores publications like anybody's, one result each, in order.
    async fn append(&self, drafts: Vec<Draft>) -> Vec<Result<Appended, LogError>>;
}

/// How a group does, for metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupReport {
    /// Name.
    pub name: Box<str>,
    /// Connections that take from it.
    pub workers: usize,
    /// Fetches that wait for deliveries.
    pub waiting: usize,
    /// Deliveries that are neither settled nor run out.
    pub in_flight: usize,
    /// Entries that are leased to this process, those in flight included.
    pub held: usize,
    /// It gives nothing until it goes on.
    pub is_paused: bool,
    /// It is to begin anew elsewhere, and does not yet.
    pub is_seeking: bool,
    /// Entries that are not done: those that wait, are delayed or under way. As of a few seconds ago.
    pub lag: u64,
    /// Entries that nobody has and that may be given, likewise.
    pub ready: u64,
    /// Entries that wait for their time: the next attempt.
    pub delayed: u64,
    /// When the first of them is due, Unix milliseconds; `None` where that is not known.
    pub due_unix_ms: Option<u64>,
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
    /// Entries of its channels that it does not take.
    pub passed: u64,
    /// Entries that were taken from it before they were done, as far as the log remembers.
    pub lost: u64,
    /// Publications that were refused since the start because it has as much to do as it may have.
    pub held_back: u64,
    /// How long entries have waited for their first delivery.
    pub waits: Waits,
    /// What its trigger joins; `None` where it does not.
    pub joins: Option<JoinCounts>,
    /// Deliveries that are acknowledged in a second, of late.
    pub rate: f64,
    /// Workers that would work off what waits within a minute, at the pace of those that are there; `None` where that is not known.
    pub desired_workers: Option<u64>,
}

/// See the module. Lives on a current-thread runtime, within a `LocalSet`.
pub struct Desk<L, O>(Rc<Inner<L, O>>);

struct Inner<L, O> {
    log: Rc<L>,
    outlet: Rc<O>,
    /// By the index that their deliveries begin with.
    groups: RefCell<Vec<Option<Rc<Place>>>>,
    /// Those with a bound for what they have to do.
    limited: Cell<usize>,
    by_name: RefCell<BTreeMap<Box<str>, usize>>,
    workers: RefCell<HashMap<WorkerId, Consumer, FixedState>>,
    /// Fetches that are not known to be over.
    fetches: RefCell<HashMap<Asker, Fetch, FixedState>>,
    /// Connections whose `consume` is under way, and whether they are gone meanwhile.
    joining: RefCell<HashMap<WorkerId, (u32, bool), FixedState>>,
    /// Shards that drain: nobody waits through them.
    hurried: RefCell<BTreeSet<ShardId>>,
    /// Deliveries whose workers have gone.
    returned: Cell<u64>,
    /// Whoever waits for replies.
    replies: Replies,
    /// Groups that were deleted of late.
    deleted: RefCell<Deleted>,
    config: RefCell<Config>,
    /// The groups of the log are known here.
    is_loaded: Cell<bool>,
    loaded: Notify,
    is_closed: Cell<bool>,
    /// Dead letters that were forgotten because of their age or their number, since the start.
    expired_letters: Cell<u64>,
    /// One group is made or changed at a time.
    opening: tokio::sync::Mutex<()>,
    /// Whoever waits for that.
    waited: Waited,
    replays: tokio::sync::Semaphore,
    started: std::time::Instant,
    time: Lived,
    /// What groups may hold besides, and when that was looked at.
    room: Cell<(Option<std::time::Instant>, usize)>,
    rng: RefCell<Rng>,
}

/// A connection that takes deliveries.
struct Consumer {
    /// Indexes of its groups.
    groups: BTreeSet<usize>,
    /// Bytes of what it was given as messages and has not settled.
    pushed: Rc<Window>,
    /// Bytes of answers that its connection has not taken.
    answered: Rc<Window>,
    /// Those answers.
    answers: Vec<Asker>,
}

impl Consumer {
    /// Each window is a half of what may wait for its connection.
    fn new(config: &Config) -> Self {
        let half = config.client.queue_max_size / 2;
        Self {
            groups: BTreeSet::new(),
            pushed: Window::new(half),
            answered: Window::new(half),
            answers: Vec::new(),
        }
    }
}

/// A group and the task that drives it.
struct Place {
    name: Box<str>,
    index: usize,
    group: RefCell<Group>,
    wake: Notify,
    is_gone: Cell<bool>,
    /// It is gone because it is deleted.
    is_deleted: Cell<bool>,
    ended: Cell<bool>,
    /// What the log has in lines is not known, or may have changed.
    is_unsure_of_lines: Cell<bool>,
    /// Whoever waits until what was settled is stored.
    syncs: RefCell<Vec<Rc<Sync>>>,
    /// It is to begin anew.
    seek: RefCell<Option<Seek>>,
    /// Somebody here waits for that.
    is_seeking: Cell<bool>,
    /// A seek that somebody else, or an earlier process, has not finished, and since when that is known.
    sought: Cell<Option<(u64, std::time::Instant)>>,
    pace: Cell<Pace>,
    lag: Cell<Lag>,
    /// What has come for it since that was looked at.
    came: Cell<u64>,
    /// Publications refused since the start because it is too far behind.
    refused: Cell<u64>,
    /// What was told of its losses, and when.
    lost_told: Cell<Option<(u64, std::time::Instant)>>,
    /// Dead letters since one was told, and when that was.
    dead_told: Cell<(u64, Option<std::time::Instant>)>,
    /// The question that has made it as a copy of another one.
    copied_by: RefCell<Bytes>,
    trigger: RefCell<Option<Rc<Rule>>>,
    joins: RefCell<Joins>,
    push: RefCell<Option<Rc<Pusher>>>,
}

impl<L: Entries + Groups + Letters + Scheduled + Values, O: Outlet> Desk<L, O> {
    /// Begins: groups are read from the log, triggers start.
    #[must_use]
    pub fn new(log: Rc<L>, outlet: Rc<O>, config: &Config) -> Self {
        let seed = seed();
        let inner = Rc::new(Inner {
            log,
            outlet,
            groups: RefCell::default(),
            limited: Cell::new(0),
            by_name: RefCell::default(),
            workers: RefCell::default(),
            fetches: RefCell::default(),
            joining: RefCell::default(),
            hurried: RefCell::default(),
            returned: Cell::default(),
            replies: Replies::default(),
            deleted: RefCell::default(),
            config: RefCell::new(config.clone()),
            is_loaded: Cell::new(false),
            loaded: Notify::new(),
            is_closed: Cell::new(false),
            expired_letters: Cell::new(0),
            opening: tokio::sync::Mutex::new(()),
            waited: Waited::default(),
            replays: tokio::sync::Semaphore::new(REPLAYS_MAX),
            started: clock(),
            time: Lived::new(STANDSTILL, std::time::Duration::ZERO),
            room: Cell::new((None, 0)),
            rng: RefCell::new(Rng::new(seed)),
        });
        inner.log.announce_by(told::announcement);
        tokio::task::spawn_local(Rc::clone(&inner).load());
        tokio::task::spawn_local(Rc::clone(&inner).watch_lags());
        tokio::task::spawn_local(Rc::clone(&inner).watch_limited());
        tokio::task::spawn_local(Rc::clone(&inner).look_at_clock());
        tokio::task::spawn_local(Rc::clone(&inner).watch_letters());
        Self(inner)
    }

    /// A question; `Outlet::answer` follows, perhaps before this returns.
    pub fn ask(&self, asker: Asker, ask: Ask) {
        let inner = &self.0;
        if inner.is_closed.get() {
            return inner.outlet.answer(asker, Err(closed()));
        }
        let result = match ask.method {
            LogMethod::Ack | LogMethod::Nak | LogMethod::Extend => {
                match inner.settle(asker, &ask) {
                    Ok(Some(answer)) => Ok(answer),
                    // It is answered when that is stored.
                    Ok(None) => return,
                    Err(error) => Err(error),
                }
            }
            LogMethod::Credit => inner.credit(asker, &ask),
            LogMethod::Leave => inner.leave(asker, &ask),
            LogMethod::Consume
            | LogMethod::Fetch
            | LogMethod::Request
            | LogMethod::Reply
            | LogMethod::Groups
            | LogMethod::DeleteGroup
            | LogMethod::PauseGroup
            | LogMethod::ResumeGroup
            | LogMethod::SeekGroup
            | LogMethod::PurgeGroup
            | LogMethod::PeekGroup
            | LogMethod::CopyGroup
            | LogMethod::Workers
            | LogMethod::DeadList
            | LogMethod::DeadShow
            | LogMethod::DeadRetry
            | LogMethod::DeadDrop
            | LogMethod::Replay
            | LogMethod::ScheduledList
            | LogMethod::ScheduledCancel
            | LogMethod::ScheduledChange => {
                let worker = inner.begins_to_join(asker, &ask);
                inner.waited.begin(asker, ask.method);
                if ask.method == LogMethod::Fetch {
                    inner.begins_to_fetch(asker, worker);
                }
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

    /// Whoever asked does not wait any more. Deliveries that it was given go to others, and this is no attempt. An operation that has
    /// not begun is not begun.
    pub fn abandoned(&self, asker: Asker) {
        self.0.waited.give_up(asker);
        self.0.abandon(asker);
    }

    /// The answer to a fetch is with its caller.
    pub fn taken(&self, asker: Asker) {
        self.0.take_answer(asker);
    }

    /// The shard drains: fetches that wait through it are answered with what there is, later ones do not wait.
    pub fn hurry(&self, shard: ShardId) {
        self.0.hurried.borrow_mut().insert(shard);
        let now = self.0.now();
        for place in self.0.groups.borrow().iter().flatten() {
            place.group.borrow_mut().handle_hurry(now, shard);
            place.wake.notify_one();
        }
    }

    /// Another configuration counts: triggers and push rules that are gone stop, and the groups of triggers are forgotten.
    pub fn reload(&self, config: &Config) {
        self.0.config.replace(config.clone());
        if self.0.is_loaded.get() {
            tokio::task::spawn_local(Rc::clone(&self.0).start_triggers());
        }
    }
}

impl<L, O: Outlet> Desk<L, O> {
    /// Why something is not published: a group that would get it is as far behind as it may be (`lag_max`).
    #[must_use]
    pub fn hold_back(&self, record: &Record) -> Option<LogError> {
        self.0.hold_back(record)
    }

    /// The log's tail has yielded these.
    pub fn stored(&self, entries: &[Arc<Entry>]) {
        self.0.replies.look(entries);
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

    /// Dead letters, and how many were forgotten since the start because of their age or their number.
    #[must_use]
    pub fn letters(&self) -> (Census, u64)
    where
        L: Letters,
    {
        (self.0.log.census(), self.0.expired_letters.get())
    }

    /// Deliveries that have gone to others since the start, because whoever had them was gone before it was done with them.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.0.returned.get()
    }

    /// What an operator should know, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<Box<str>> {
        let groups = self.0.groups.borrow();
        let losses = groups.iter().flatten().filter_map(|place| {
            let lag = place.lag.get();
            let lost = lag.lost.saturating_sub(lag.lost_before);
            (lost > 0).then(|| {
                format!(
                    "queue group {} has lost up to {lost} publications that were forgotten before they were done",
                    place.name
                )
                .into()
            })
        });
        losses.collect()
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
    /// What it has not done, as of the last look.
    fn undone(&self) -> u64 {
        let lag = self.lag.get();
        let held = self.group.borrow().held() as u64;
        // What is leased elsewhere counts as well.
        lag.entries + lag.delayed + lag.leased.max(held)
    }

    fn report(&self) -> GroupReport {
        let group = self.group.borrow();
        let counters = group.counters();
        let lag = self.lag.get();
        let delayed = lag.delayed + group.retries() as u64;
        let others = (group.in_flight() + group.retries()) as u64;
        let undone = self.undone();
        let ready = undone.saturating_sub(lag.delayed + lag.leased.min(others).max(others));
        let pace = self.pace.get();
        GroupReport {
            name: self.name.clone(),
            workers: group.workers(),
            waiting: group.waiting(),
            in_flight: group.in_flight(),
            held: group.held(),
            is_paused: group.settings().paused,
            is_seeking: self.is_seeking.get() || lag.seeking.is_some(),
            lag: undone,
            ready,
            delayed,
            due_unix_ms: lag.due_unix_ms,
            oldest_unix_ms: lag.oldest_unix_ms,
            delivered: counters.delivered,
            redelivered: counters.redelivered,
            acked: counters.acked,
            naked: counters.naked,
            timed_out: counters.timed_out,
            dead: counters.dead + lag.buried,
            passed: counters.passed,
            lost: lag.lost,
            held_back: self.refused.get(),
            waits: group.waits().clone(),
            joins: self.joining().map(|_| self.joins.borrow().counts()),
            rate: pace.rate(),
            desired_workers: pace.desired(ready, group.workers() + group.waiting()),
        }
    }
}

/// What a group does between two turns.
struct Seek {
    /// It begins behind this cursor.
    after: u64,
    /// Who has asked for it; `None` where that is the desk itself.
    asker: Option<Asker>,
    done: tokio::sync::oneshot::Sender<Result<(), LogError>>,
}

/// A question that is answered when what it settled is stored, in all groups that it is about.
struct Sync {
    asker: Asker,
    answer: Bytes,
    left: Cell<usize>,
}

/// The parameters of a question that has none.
#[derive(Default)]
struct Nothing;

impl<'de> Object<'de> for Nothing {
    const RULES: Rules = Rules::Own;

    fn read<A: serde::de::MapAccess<'de>>(&mut self, _: &str, _: &mut A) -> Result<bool, A::Error> {
        Ok(false)
    }
}

/// Parameters of a question. What they name is the asker's tenant's.
trait Scoped {
    /// Makes every name whole.
    fn scope(&mut self, tenant: TenantId<'_>);
}

impl Scoped for Nothing {
    fn scope(&mut self, _: TenantId<'_>) {}
}

/// The parameters of a question.
fn asked<'a, T: Object<'a> + Scoped>(ask: &'a Ask) -> Result<T, LogError> {
    let mut asked: T = parameters(&ask.data)?;
    asked.scope(TenantId::new(&ask.tenant));
    Ok(asked)
}

fn parameters<'a, T: Object<'a>>(data: &'a [u8]) -> Result<T, LogError> {
    json::object(data).map_err(|error| bad_request(&error.to_string()))
}

/// Makes names whole.
fn scope<'n>(tenant: TenantId<'_>, names: impl IntoIterator<Item = &'n mut Box<str>>) {
    for name in names {
        if let Cow::Owned(whole) = tenant.whole(name) {
            *name = whole.into();
        }
    }
}

/// What its tenant calls it.
fn own(whole: &str) -> &str {
    TenantId::split(whole).1
}

fn bad_request(why: &str) -> LogError {
    LogError::BadRequest(why.into())
}

fn not_found(why: &str) -> LogError {
    LogError::NotFound(why.into())
}

fn no_group(name: &str) -> LogError {
    let name: String = own(name).chars().take(GROUP_NAME_BYTES_MAX).collect();
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

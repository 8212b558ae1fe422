//! One queue group: who gets which entry, when it is tried again, and when it is given up. Knows no clock and waits for
//! nothing: it is told what happens (`handle_*`), and drained (`poll_output`, `take_settled`).
//!
//! An entry is called by its cursor. It is held from the moment it is leased until `take_settled` says that it is done or
//! returned, or waits in the log; meanwhile it is in one `State`.

mod dispatch;
mod ends;
mod intake;
mod lines;
mod members;
mod waits;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::encode::Given;
use super::picks::{Pick, Picker};
use super::settings::Settings;
use super::turns::Place;
use super::{Asker, WorkerId};
use crate::config::namespace::queue_of;
use crate::limits::{FAILURE_REASON_BYTES_MAX, GROUP_HELD_MAX, GROUPS_AT_DESK_MAX};
use crate::mem::Rng;
use crate::model::{Entry, Record, ShardId};
use crate::time::{Instant, Now};
use crate::upstream::log::{DeadLetter, Failure, Lease, Settled};

use lines::Lines;

pub use members::{Having, WorkerReport};
pub use waits::Waits;
pub use window::Window;

/// Entries that are fetched at a time.
pub const FETCHED_AT_ONCE: usize = 1024;
/// Members that are asked in one turn for an entry which they have no room for.
const PASSED_PER_TURN: usize = 256;
/// An entry that was under way when its worker's connection ended, so often, has failed once: it may be what ends them.
pub const LOSSES_PER_ATTEMPT: u32 = 16;
/// What nobody takes is given back after this time.
const LINGER: Duration = Duration::from_secs(1);
/// A dead letter that could not be kept is tried again after this time.
const BURY_AGAIN: Duration = Duration::from_secs(1);
/// Bits of a delivery's number that count within its group: with the index of the group before them it stays exact in JavaScript.
const SERIAL_BITS: u32 = 39;
const _: () = assert!(
    (GROUPS_AT_DESK_MAX as u64) << SERIAL_BITS <= 1 << 53,
    "a delivery is an exact number in JavaScript"
);

/// Index of the group that a delivery is of.
#[must_use]
pub const fn index_of(delivery: u64) -> usize {
    (delivery >> SERIAL_BITS) as usize
}

/// Who takes entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Taker {
    /// A connection, until it leaves.
    Connection(WorkerId),
    /// A question that is answered with deliveries: a connection's, or a service's.
    Fetch(Asker, Option<WorkerId>),
    /// The desk itself.
    Trigger,
}

/// Who may settle a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The connection that got it.
    Connection(WorkerId),
    /// Any service: deliveries that were answers.
    Service,
    /// The desk itself.
    Trigger,
}

impl Taker {
    const fn holder(self) -> Holder {
        match self {
            Self::Connection(worker) => Holder::Connection(worker),
            Self::Fetch(_, Some(worker)) => Holder::Connection(worker),
            Self::Fetch(_, None) => Holder::Service,
            Self::Trigger => Holder::Trigger,
        }
    }
}

/// What the group wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A connection gets this.
    Deliver(WorkerId, Given),
    /// A fetch is over. The bytes of its deliveries stay in its window until they are known to be taken.
    Fetched(Asker, Vec<Given>, usize),
    /// A connection that takes from the group is told that it is paused, or goes on.
    Paused(WorkerId, bool),
    /// A fetch is over because the group is deleted.
    Ended(Asker),
    /// A connection does not take from the group any more, because it is deleted.
    Deleted(WorkerId),
    /// A connection has room for bytes again that this group, or another one, has for it.
    Freed(WorkerId),
    /// The desk gets this.
    Triggered(Given),
    /// Keep this dead letter, then say `handle_buried`.
    Bury(Box<DeadLetter>),
}

/// What has happened since the group was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Deliveries.
    pub delivered: u64,
    /// Of them, those of an entry that was delivered before.
    pub redelivered: u64,
    /// Deliveries that were acknowledged.
    pub acked: u64,
    /// Deliveries that were given up.
    pub naked: u64,
    /// Deliveries that ran out.
    pub timed_out: u64,
    /// Entries that became dead letters.
    pub dead: u64,
    /// Entries of its channels that it does not take.
    pub passed: u64,
}

/// What is kept here, and what waits in the log.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Entries of one line that are kept here, while there is room.
    line_kept: usize,
    /// A retry that is so far away waits in the log.
    retry_kept: Duration,
    /// Entries that are held, beyond which every retry waits there.
    retries_kept: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            line_kept: 32,
            retry_kept: Duration::from_secs(10),
            retries_kept: GROUP_HELD_MAX / 4,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Group {
    bounds: Bounds,
    name: Box<str>,
    own_channel: Box<str>,
    settings: Settings,
    picker: Picker,
    counters: Counters,
    /// How long entries have waited for their first delivery.
    waits: Waits,
    /// Number of the next delivery: the group's index before `SERIAL_BITS` that go around.
    index: u64,
    serial: u64,
    rng: Rng,
    held: HashMap<u64, Held, FixedState>,
    held_bytes: usize,
    /// About how many bytes the next entry has.
    entry_bytes: usize,
    /// Empty where entries stand in lines.
    ready: BTreeSet<u64>,
    lines: Lines,
    /// What the log has in lines stands in others now: it has to release all of them.
    is_releasing: bool,
    /// What an earlier process had comes first, before any line takes its turn.
    is_sorting: bool,
    /// Something went to wait in a line, or with its line for its time, since the log last heard that nobody takes anything.
    has_parked: bool,
    /// Nobody takes anything, and the log does not know yet.
    has_gone_idle: bool,
    deliveries: HashMap<u64, u64, FixedState>,
    members: BTreeMap<u64, Member>,
    takers: HashMap<Taker, u64, FixedState>,
    next_member: u64,
    /// Members that may have credit, in the order in which they get entries.
    rotation: VecDeque<u64>,
    /// Members that had no room for the oldest entry, while others are not asked yet; 0 once all were.
    passed: usize,
    timers: BTreeSet<(Instant, u64)>,
    /// Ends of waiting fetches.
    fetches: BTreeSet<(Instant, u64)>,
    /// Fetches that have got something.
    served: Vec<u64>,
    /// Nobody takes anything since then.
    idle_since: Option<Instant>,
    /// What it has in hand is kept for whoever comes next, as after a fetch, and it goes on looking ahead.
    lingers: bool,
    keep_at: Instant,
    has_to_speak: bool,
    settled: Vec<(Lease, Settled)>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    entry: Arc<Entry>,
    failures: Vec<Failure>,
    bytes: usize,
    /// Of its delivery.
    wire_bytes: usize,
    /// Connections that have ended while they had it.
    losses: u32,
    was_delivered: bool,
    /// Not to be given before.
    not_before: Instant,
    /// Where there are lines.
    place: Option<Place>,
    /// It counts as active in its line.
    occupies: bool,
    state: State,
}

impl Held {
    /// Attempts that have failed.
    fn failed(&self) -> u32 {
        self.failures.last().map_or(0, |last| last.attempt)
    }
}

#[derive(Debug)]
enum State {
    /// In `ready`, or in that of its line.
    Ready,
    /// In `deliveries`, and in `timers` unless the desk has it.
    Given {
        member: u64,
        holder: Holder,
        worker: Arc<str>,
        delivery: u64,
        until: Instant,
    },
    /// In `timers`.
    Retry,
    /// A dead letter is being made of it; in `timers` if that has failed.
    Burying,
}

#[derive(Debug)]
struct Member {
    taker: Taker,
    worker: Arc<str>,
    credit: usize,
    window: Rc<Window>,
    has: BTreeSet<u64>,
    /// Of what it has.
    bytes: usize,
    in_rotation: bool,
    /// Of a fetch.
    until: Instant,
    given: Vec<Given>,
    counts: WorkerCounts,
}

/// What has become of a worker's deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Deliveries that it was given.
    pub delivered: u64,
    /// Those that it has acknowledged.
    pub acked: u64,
    /// Those that it has given up, or that have run out.
    pub failed: u64,
}

impl Group {
    /// Does it take this of its channels, or make a dead letter of it because nobody can tell?
    #[must_use]
    pub fn takes(&self, record: &Record) -> bool {
        self.picker.pick(record) != Pick::Passed
    }

    /// Nothing is held. `index` is below `GROUPS_AT_DESK_MAX`; the seed makes numbers of deliveries that no earlier process gave.
    #[must_use]
    pub fn new(name: &str, index: usize, settings: Settings, seed: u64) -> Self {
        assert!(index < GROUPS_AT_DESK_MAX, "groups are numbered from 0");
        let mut rng = Rng::new(seed);
        let hasher = FixedState::with_seed(rng.bits());
        Self {
            bounds: Bounds::default(),
            name: name.into(),
            own_channel: queue_of(name).into(),
            picker: Picker::new(&settings.picks),
            settings,
            counters: Counters::default(),
            waits: Waits::default(),
            index: index as u64,
            serial: rng.bits(),
            rng,
            held: HashMap::with_hasher(hasher.clone()),
            held_bytes: 0,
            entry_bytes: 16 << 10,
            ready: BTreeSet::new(),
            lines: Lines::default(),
            is_releasing: false,
            is_sorting: false,
            has_parked: false,
            has_gone_idle: false,
            deliveries: HashMap::with_hasher(hasher.clone()),
            members: BTreeMap::new(),
            takers: HashMap::with_hasher(hasher),
            next_member: 0,
            rotation: VecDeque::new(),
            passed: 0,
            timers: BTreeSet::new(),
            fetches: BTreeSet::new(),
            served: Vec::new(),
            idle_since: None,
            lingers: false,
            keep_at: Instant::START,
            has_to_speak: false,
            settled: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// A retry that is further away waits in the log.
    pub fn keep_retries(&mut self, within: Duration) {
        self.bounds.retry_kept = within;
    }

    /// Rules that count.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What has happened.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// How long entries have waited for their first delivery.
    #[must_use]
    pub const fn waits(&self) -> &Waits {
        &self.waits
    }

    /// Entries that are leased.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Bytes of them.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Deliveries that are neither settled nor run out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.deliveries.len()
    }

    /// Entries that wait for their next attempt.
    #[must_use]
    pub fn retries(&self) -> usize {
        let is_retry = |held: &&Held| matches!(held.state, State::Retry);
        self.held.values().filter(is_retry).count()
    }

    /// Connections that take from it.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.members.len() - self.fetches.len()
    }

    /// Fetches that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.fetches.len()
    }

    /// A connection, or the desk, takes entries, or wants more or fewer at a time. `false`: there are too many.
    pub fn handle_joined(
        &mut self,
        taker: Taker,
        credit: usize,
        window: &Rc<Window>,
        worker: &str,
    ) -> bool {
        debug_assert!(!matches!(taker, Taker::Fetch(..)), "fetches do not stay");
        if self.handle_credit(taker, credit) {
            return true;
        }
        let never = Instant(u64::MAX);
        self.add(taker, credit, window, worker, never).is_some()
    }

    /// At most that many deliveries are under way at this one from now on. `false`: it does not take from this group.
    pub fn handle_credit(&mut self, taker: Taker, credit: usize) -> bool {
        let Some(&key) = self.takers.get(&taker) else {
            return false;
        };
        if let Some(member) = self.members.get_mut(&key) {
            member.credit = credit;
        }
        self.queue(key);
        true
    }

    /// Somebody asks for at most `limit` deliveries, and waits for them. `false`: too many do.
    pub fn handle_fetch(
        &mut self,
        now: Now,
        taker: Taker,
        limit: usize,
        window: &Rc<Window>,
        wait: Duration,
        worker: &str,
    ) -> bool {
        debug_assert!(matches!(taker, Taker::Fetch(..)), "who asks, fetches");
        let until = now.at + wait;
        let Some(key) = self.add(taker, limit, window, worker, until) else {
            return false;
        };
        self.fetches.insert((until, key));
        true
    }

    /// Who waits through this shard waits no longer.
    pub fn handle_hurry(&mut self, now: Now, shard: ShardId) {
        let waits =
            |taker: &Taker| matches!(taker, Taker::Fetch((through, _), _) if *through == shard);
        let keys: Vec<u64> = self
            .takers
            .iter()
            .filter(|(taker, _)| waits(taker))
            .map(|(_, &key)| key)
            .collect();
        for key in keys {
            self.end_fetch(now, key);
        }
    }

    /// It is done. `false`: there is no such delivery, or it is somebody else's.
    pub fn handle_acked(&mut self, now: Now, holder: Holder, delivery: u64) -> bool {
        let Some(cursor) = self.delivered(holder, delivery) else {
            return false;
        };
        self.count_of_worker(cursor, |counts| counts.acked += 1);
        self.take_back(cursor);
        self.counters.acked += 1;
        self.finish(now, cursor, Settled::Done);
        true
    }

    /// The attempt failed. Without a delay the group's backoff says when the next one is. `false`: as `handle_acked`.
    pub fn handle_failed(
        &mut self,
        now: Now,
        holder: Holder,
        delivery: u64,
        reason: &str,
        delay: Option<Duration>,
    ) -> bool {
        let Some(cursor) = self.delivered(holder, delivery) else {
            return false;
        };
        self.counters.naked += 1;
        self.fail(now, cursor, reason, delay);
        true
    }

    /// No attempt will do: it is a dead letter. `false`: as `handle_acked`.
    pub fn handle_hopeless(
        &mut self,
        now: Now,
        holder: Holder,
        delivery: u64,
        reason: &str,
    ) -> bool {
        let Some(cursor) = self.delivered(holder, delivery) else {
            return false;
        };
        self.counters.naked += 1;
        self.record_failure(now, cursor, reason, 0);
        self.bury(now, cursor);
        true
    }

    /// It takes longer: it runs out later. Without a time it has another ack wait. `false`: as `handle_acked`.
    pub fn handle_extended(
        &mut self,
        now: Now,
        holder: Holder,
        delivery: u64,
        time: Option<Duration>,
    ) -> bool {
        let Some(cursor) = self.delivered(holder, delivery) else {
            return false;
        };
        let later = now.at + time.unwrap_or(self.settings.ack_wait);
        if let Some(Held {
            state: State::Given { until, .. },
            ..
        }) = self.held.get_mut(&cursor)
        {
            if self.timers.remove(&(*until, cursor)) {
                self.timers.insert((later, cursor));
            }
            *until = later;
        }
        true
    }

    /// What came of `Output::Bury`.
    pub fn handle_buried(&mut self, now: Now, cursor: u64, is_kept: bool) {
        let Some(held) = self.held.get(&cursor) else {
            return;
        };
        if !matches!(held.state, State::Burying) {
            return;
        }
        if is_kept {
            self.counters.dead += 1;
            self.finish(now, cursor, Settled::Done);
        } else {
            self.timers.insert((now.at + BURY_AGAIN, cursor));
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(&(at, cursor)) = self.timers.first() {
            if at > now.at {
                break;
            }
            self.timers.pop_first();
            self.time_is_up(now, cursor);
        }
        if self.has_to_keep() && now.at >= self.keep_at {
            self.keep_at = now.at + self.settings.lease() / 3;
            self.has_to_speak = true;
            let kept = self.held.values().map(|held| (held.lease, Settled::Kept));
            self.settled.extend(kept);
        }
        self.wake_lines(now);
        self.dispatch(now);
        while let Some(&(at, key)) = self.fetches.first() {
            if at > now.at {
                break;
            }
            self.end_fetch(now, key);
        }
        if self
            .idle_since
            .is_some_and(|since| now.at >= since + LINGER)
        {
            self.give_back_idle(now);
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What the log is to be told, in order.
    pub fn take_settled(&mut self) -> Vec<(Lease, Settled)> {
        std::mem::take(&mut self.settled)
    }

    /// When `handle_timeout` has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let has_idle = self.has_idle() || self.has_parked;
        let idle = self.idle_since.filter(|_| has_idle);
        let keep = self.has_to_keep().then_some(self.keep_at);
        [
            (self.passed > 0).then_some(Instant::START),
            self.timers.first().map(|&(at, _)| at),
            self.fetches.first().map(|&(at, _)| at),
            idle.map(|since| since + LINGER),
            keep,
            self.lines.next_due(),
            self.is_hungry().then_some(Instant::START),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn next_delivery(&mut self) -> u64 {
        self.serial = self.serial.wrapping_add(1);
        self.index << SERIAL_BITS | self.serial & ((1 << SERIAL_BITS) - 1)
    }

    /// The entry of a delivery that this holder has.
    fn delivered(&self, by: Holder, delivery: u64) -> Option<u64> {
        let cursor = *self.deliveries.get(&delivery)?;
        match &self.held.get(&cursor)?.state {
            State::Given { holder, .. } if *holder == by => Some(cursor),
            State::Given { .. } | State::Ready | State::Retry | State::Burying => None,
        }
    }

    /// The delivery is over: nobody has the entry. Its state is the caller's next business. Gives who had it.
    fn take_back(&mut self, cursor: u64) -> Option<Arc<str>> {
        let held = self.held.get_mut(&cursor)?;
        let State::Given {
            member,
            worker,
            delivery,
            until,
            ..
        } = std::mem::replace(&mut held.state, State::Retry)
        else {
            return None;
        };
        let bytes = held.wire_bytes;
        self.timers.remove(&(until, cursor));
        self.deliveries.remove(&delivery);
        if let Some(at) = self.members.get_mut(&member) {
            at.has.remove(&cursor);
            at.bytes = at.bytes.saturating_sub(bytes);
            if let (true, Taker::Connection(worker)) = (at.window.give(bytes), at.taker) {
                self.outputs.push_back(Output::Freed(worker));
            }
        }
        self.queue(member);
        Some(worker)
    }

    fn count_of_worker(&mut self, cursor: u64, count: impl FnOnce(&mut WorkerCounts)) {
        if let Some(Held {
            state: State::Given { member, .. },
            ..
        }) = self.held.get(&cursor)
            && let Some(member) = self.members.get_mut(member)
        {
            count(&mut member.counts);
        }
    }

    /// It leaves the group, after it was under way.
    fn finish(&mut self, now: Now, cursor: u64, settled: Settled) {
        let Some(held) = self.held.remove(&cursor) else {
            return;
        };
        self.held_bytes -= held.bytes;
        self.settled.push((held.lease, settled));
        if let Some(place) = held.place.filter(|_| held.occupies) {
            self.free_line(now, place.line);
        }
    }

    /// The attempt has failed, and it is tried again, or is a dead letter.
    fn fail(&mut self, now: Now, cursor: u64, reason: &str, delay: Option<Duration>) {
        let failed = self.held.get(&cursor).map_or(0, Held::failed) + 1;
        let delay = delay.unwrap_or_else(|| self.settings.backoff.delay(failed, &mut self.rng));
        let next_unix_ms = now.unix_ms + u64::try_from(delay.as_millis()).unwrap_or(0);
        let failed = self.record_failure(now, cursor, reason, next_unix_ms);
        if failed >= self.settings.max_attempts {
            self.bury(now, cursor);
            return;
        }
        if let Some(held) = self.held.get_mut(&cursor) {
            held.not_before = now.at + delay;
        }
        self.retry_later(now, cursor);
    }

    /// Takes it back and tells the log; gives how many attempts have failed.
    fn record_failure(&mut self, now: Now, cursor: u64, reason: &str, next_unix_ms: u64) -> u32 {
        self.count_of_worker(cursor, |counts| counts.failed += 1);
        let worker = self.take_back(cursor);
        let Some(held) = self.held.get_mut(&cursor) else {
            return 0;
        };
        let failed = held.failed() + 1;
        let failure = Failure {
            attempt: failed,
            unix_ms: now.unix_ms,
            reason: bounded(reason).into(),
            worker: worker.as_deref().unwrap_or("").into(),
            next_unix_ms,
        };
        self.settled
            .push((held.lease, Settled::Failed(failure.clone())));
        held.failures.push(failure);
        failed
    }

    fn bury(&mut self, now: Now, cursor: u64) {
        let Some(held) = self.held.get_mut(&cursor) else {
            return;
        };
        held.state = State::Burying;
        self.outputs.push_back(Output::Bury(Box::new(DeadLetter {
            group: self.name.clone(),
            entry: held.entry.clone(),
            failures: held.failures.clone(),
            unix_ms: now.unix_ms,
        })));
    }

    fn time_is_up(&mut self, now: Now, cursor: u64) {
        let Some(held) = self.held.get(&cursor) else {
            return;
        };
        match held.state {
            State::Given { .. } => {
                self.counters.timed_out += 1;
                self.fail(now, cursor, "ack_wait", None);
            }
            State::Retry => self.retry_now(now, cursor),
            State::Burying => self.bury(now, cursor),
            State::Ready => {}
        }
    }
}

/// As much of a reason as is kept.
fn bounded(reason: &str) -> &str {
    let mut end = reason.len().min(FAILURE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

#[cfg(test)]
mod tests;

//! A group against a model of the log and of its workers: whatever they do, every entry is done or dead once.

mod room;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

use crate::mesh::durable::RequestId;
use crate::model::{AskId, ConnId, EventId, ShardId};
use crate::upstream::desk::encode::delivery_bytes;
use crate::upstream::desk::turns::{Key, LANE_WEIGHTS, Lanes, Turns};
use crate::upstream::log::{FromLine, Leased, Line as LogLine, LineId};
use crate::upstream::memory;

const ATTEMPTS: u32 = 3;
const CHANNELS: [&str; 3] = ["a:1", "a:2", "b:1"];

fn worker(number: u32) -> WorkerId {
    let conn = ConnId {
        slot: number,
        generation: 1,
    };
    (ShardId(0), conn)
}

fn asker(number: u32) -> Asker {
    let id = RequestId(AskId {
        slot: number,
        generation: 0,
    });
    (ShardId(1), id)
}

fn settings(ordered: bool) -> Settings {
    Settings {
        channels: vec!["*".into()],
        ordered,
        max_attempts: ATTEMPTS,
        ..Settings::default()
    }
}

/// What the log knows of an entry.
#[derive(Debug, Default)]
struct Kept {
    lease: Option<Lease>,
    spoken_at: Instant,
    failures: Vec<Failure>,
    is_done: bool,
    is_dead: bool,
    was_taken: bool,
    lined: Option<LineId>,
    delayed: Option<(u64, Option<LineId>)>,
}

/// A delivery that nobody has settled, as its worker sees it.
#[derive(Debug)]
struct Out {
    delivery: u64,
    holder: Holder,
    cursor: u64,
}

/// The log, the workers and the clock around a group.
struct World {
    group: Group,
    ordered: bool,
    settings: Settings,
    bounds: Bounds,
    now: Now,
    log: BTreeMap<u64, Kept>,
    entries: BTreeMap<u64, Arc<Entry>>,
    leases: u64,
    out: Vec<Out>,
    credit: BTreeMap<u32, usize>,
    windows: BTreeMap<u32, Rc<Window>>,
    window_bytes: usize,
    fetching: BTreeMap<u32, usize>,
    askers: u32,
    acked: BTreeSet<u64>,
    cannot_bury: bool,
    starts: u64,
}

impl World {
    fn new(ordered: bool) -> Self {
        Self::of(settings(ordered))
    }

    fn of(settings: Settings) -> Self {
        Self {
            group: Group::new("g", 5, settings.clone(), 1),
            ordered: settings.ordered,
            settings,
            bounds: Bounds::default(),
            now: Now {
                at: Instant(1_000_000_000),
                unix_ms: 1_700_000_000_000,
            },
            log: BTreeMap::new(),
            entries: BTreeMap::new(),
            leases: 0,
            out: Vec::new(),
            credit: BTreeMap::new(),
            windows: BTreeMap::new(),
            window_bytes: usize::MAX,
            fetching: BTreeMap::new(),
            askers: 0,
            acked: BTreeSet::new(),
            cannot_bury: false,
            starts: 1,
        }
    }

    fn publish(&mut self, channel: usize) {
        let cursor = self.log.len() as u64 + 1;
        let record = memory::record(CHANNELS[channel], EventId(u128::from(cursor)), "1");
        self.entries
            .insert(cursor, memory::entry(cursor, cursor, record));
        self.log.insert(cursor, Kept::default());
        self.turn();
    }

    /// The process is killed: whatever it held is free, and what it did not say is not known.
    fn restart(&mut self) {
        self.starts += 1;
        self.group = Group::new("g", 5, self.settings.clone(), self.starts);
        self.group.bounds = self.bounds;
        for kept in self.log.values_mut() {
            kept.lease = None;
        }
        self.out.clear();
        self.credit.clear();
        self.windows.clear();
        self.fetching.clear();
        let lines = self.lines();
        assert!(self.group.handle_log_lines(&lines));
    }

    /// What the log has in lines.
    fn lines(&self) -> Vec<LogLine> {
        let mut lines: BTreeMap<LineId, LogLine> = BTreeMap::new();
        let mut line = |id| {
            let empty = LogLine {
                id,
                entries: 0,
                delayed: 0,
            };
            *lines.entry(id).or_insert(empty)
        };
        let mut found = Vec::new();
        for kept in self.log.values() {
            if let Some(id) = kept.lined {
                found.push((id, line(id), true));
            }
            if let Some((_, Some(id))) = kept.delayed {
                found.push((id, line(id), false));
            }
        }
        for (id, _, is_lined) in found {
            let line = lines.get_mut(&id).expect("it was made");
            if is_lined {
                line.entries += 1;
            } else {
                line.delayed += 1;
            }
        }
        lines.into_values().collect()
    }

    fn lease_of_lines(&mut self, wanted: &[(LineId, usize)]) -> Vec<FromLine> {
        let mut given = Vec::new();
        for &(id, limit) in wanted {
            let of_line = |kept: &Kept| kept.lined == Some(id);
            let all: Vec<u64> = self
                .log
                .iter()
                .filter(|(_, kept)| of_line(kept))
                .map(|(cursor, _)| *cursor)
                .collect();
            let leased = all.iter().take(limit).map(|cursor| {
                let kept = self.log.get_mut(cursor).expect("it is there");
                kept.lined = None;
                self.leases += 1;
                kept.lease = Some(Lease(self.leases));
                kept.spoken_at = self.now.at;
                Leased {
                    lease: Lease(self.leases),
                    entry: self.entries[cursor].clone(),
                    failures: kept.failures.clone(),
                    was_delayed: false,
                }
            });
            let leased: Vec<Leased> = leased.collect();
            let left = (all.len() - leased.len()) as u64;
            given.push(FromLine { id, leased, left });
        }
        given
    }

    /// Everything that follows from what has happened, until nothing does.
    fn turn(&mut self) {
        loop {
            self.group.handle_timeout(self.now);
            let mut is_quiet = true;
            for (lease, settled) in self.group.take_settled() {
                is_quiet &= settled == Settled::Kept;
                self.settled(lease, settled);
            }
            while let Some(output) = self.group.poll_output() {
                is_quiet = false;
                self.carry_out(output);
            }
            if self.group.is_releasing() {
                is_quiet = false;
                for kept in self.log.values_mut() {
                    kept.lined = None;
                    kept.delayed = kept.delayed.filter(|(_, line)| line.is_none());
                }
                self.group.handle_released();
            }
            if self.group.is_sorting() {
                let left_over = self.take(5, |kept| kept.was_taken);
                self.group.handle_left_over(self.now, left_over);
                continue;
            }
            if self.group.take_idle() {
                continue;
            }
            let hungry = self.group.take_hungry();
            if !hungry.is_empty() {
                let given = self.lease_of_lines(&hungry);
                self.group.handle_lines(self.now, given);
                continue;
            }
            let wanted = self.group.wanted(usize::MAX);
            let leased = self.lease(wanted);
            if is_quiet && leased.is_empty() {
                return;
            }
            self.group.handle_leased(self.now, leased);
        }
    }

    fn lease(&mut self, limit: usize) -> Vec<Leased> {
        self.take(limit, |_| true)
    }

    fn take(&mut self, limit: usize, wanted: impl Fn(&Kept) -> bool) -> Vec<Leased> {
        let now_ms = self.now.unix_ms;
        let is_free = |kept: &Kept| {
            let waits =
                kept.lined.is_some() || kept.delayed.is_some_and(|(until, _)| until > now_ms);
            kept.lease.is_none() && !kept.is_done && !waits && wanted(kept)
        };
        let free = self.log.iter_mut().filter(|(_, kept)| is_free(kept));
        let mut leased = Vec::new();
        for (cursor, kept) in free.take(limit) {
            self.leases += 1;
            kept.lease = Some(Lease(self.leases));
            kept.was_taken = true;
            kept.spoken_at = self.now.at;
            leased.push(Leased {
                lease: Lease(self.leases),
                entry: self.entries[cursor].clone(),
                failures: kept.failures.clone(),
                was_delayed: kept.delayed.take().is_some(),
            });
        }
        leased
    }

    fn settled(&mut self, lease: Lease, settled: Settled) {
        let found = self
            .log
            .iter_mut()
            .find(|(_, kept)| kept.lease == Some(lease));
        let (&cursor, kept) = found.expect("a lease that is out");
        kept.spoken_at = self.now.at;
        match settled {
            Settled::Done => {
                assert!(!kept.is_done, "done twice");
                assert!(kept.is_dead || self.acked.contains(&cursor), "nobody acked");
                kept.is_done = true;
                kept.lease = None;
            }
            Settled::Failed(failure) => {
                assert_eq!(failure.attempt as usize, kept.failures.len() + 1);
                if &*failure.reason == "ack_wait" {
                    self.out.retain(|out| out.cursor != cursor);
                }
                kept.failures.push(failure);
            }
            Settled::Kept => {}
            Settled::Lost => panic!("nothing ends here"),
            Settled::Returned => kept.lease = None,
            Settled::Delayed {
                until_unix_ms,
                line,
            } => {
                kept.lease = None;
                kept.delayed = Some((until_unix_ms, line));
            }
            Settled::Lined(line) => {
                kept.lease = None;
                kept.lined = Some(line);
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Deliver((_, conn), given) => {
                let holder = Holder::Connection(worker(conn.slot));
                self.given(holder, &given);
                let has = self.out.iter().filter(|out| out.holder == holder).count();
                assert!(has <= self.credit[&conn.slot], "more than its credit");
                let bytes = self.bytes_of(holder);
                assert!(has == 1 || bytes <= self.window_bytes, "more than fits");
            }
            Output::Fetched((_, id), givens, bytes) => {
                let sum = givens.iter().map(|given| delivery_bytes("g", &given.entry));
                assert_eq!(bytes, sum.sum::<usize>());
                assert!(
                    givens.len() <= 1 || bytes <= self.window_bytes,
                    "more than fits"
                );
                let limit = self.fetching.remove(&id.0.slot).expect("one answer");
                assert!(givens.len() <= limit, "more than was asked for");
                for given in &givens {
                    self.given(Holder::Service, given);
                }
            }
            Output::Bury(letter) => {
                let cursor = letter.entry.cursor;
                assert_eq!(letter.failures.len(), ATTEMPTS as usize);
                assert!(!self.out.iter().any(|out| out.cursor == cursor));
                if !self.cannot_bury {
                    self.log.get_mut(&cursor).unwrap().is_dead = true;
                }
                self.group
                    .handle_buried(self.now, cursor, !self.cannot_bury);
            }
            Output::Triggered(_) => panic!("there are no triggers"),
            Output::Ended(_) | Output::Deleted(_) => panic!("the group is not deleted"),
            Output::Freed(_) | Output::Paused(..) => {}
        }
    }

    /// Of what somebody has.
    fn bytes_of(&self, holder: Holder) -> usize {
        let its = self.out.iter().filter(|out| out.holder == holder);
        its.map(|out| delivery_bytes("g", &self.entries[&out.cursor]))
            .sum()
    }

    fn given(&mut self, holder: Holder, given: &Given) {
        let cursor = given.entry.cursor;
        assert!(given.delivery < 1 << 53 && index_of(given.delivery) == 5);
        assert!(
            !self.out.iter().any(|out| out.cursor == cursor),
            "two have it"
        );
        let kept = &self.log[&cursor];
        assert!(!kept.is_done && !kept.is_dead && !self.acked.contains(&cursor));
        if self.settings.turns.concurrency > 0 {
            let same =
                |out: &&Out| self.entries[&out.cursor].record.channel == given.entry.record.channel;
            let under_way = self.out.iter().filter(same).count();
            assert!(
                under_way < self.settings.turns.concurrency as usize,
                "too many of a key"
            );
        }
        if self.ordered {
            let channel = &given.entry.record.channel;
            for (earlier, kept) in self.log.range(..cursor) {
                let same = self.entries[earlier].record.channel == *channel;
                let over = kept.is_dead || self.acked.contains(earlier);
                assert!(!same || over, "{cursor} before {earlier}");
            }
        }
        self.out.push(Out {
            delivery: given.delivery,
            holder,
            cursor,
        });
    }

    fn pick(&self, at: usize) -> Option<(u64, Holder, u64)> {
        let out = self.out.get(at % self.out.len().max(1))?;
        Some((out.delivery, out.holder, out.cursor))
    }

    fn do_(&mut self, step: &Step) {
        match *step {
            Step::Publish(channel) => self.publish(channel),
            Step::Join(number, credit) => {
                self.credit.insert(number, credit);
                let taker = Taker::Connection(worker(number));
                let bytes = self.window_bytes;
                let window = self.windows.entry(number);
                let window = window.or_insert_with(|| Window::new(bytes));
                assert!(self.group.handle_joined(taker, credit, window, "w"));
            }
            Step::Leave(number) => {
                let left = self
                    .group
                    .handle_left(self.now, Taker::Connection(worker(number)));
                assert_eq!(left, self.credit.remove(&number).is_some());
                let gone = Holder::Connection(worker(number));
                self.out.retain(|out| out.holder != gone);
            }
            Step::Gone(number) => {
                self.group.handle_gone(self.now, worker(number), true);
                self.credit.remove(&number);
                self.windows.remove(&number);
                let gone = Holder::Connection(worker(number));
                self.out.retain(|out| out.holder != gone);
            }
            Step::Abandon => {
                let waits = self.group.handle_abandoned(self.now, asker(self.askers));
                assert_eq!(waits, self.fetching.contains_key(&self.askers));
            }
            Step::Return(at) => {
                if let Some((delivery, holder, cursor)) = self.pick(at) {
                    let returned = self
                        .group
                        .handle_returned(self.now, Holder::Service, delivery);
                    assert_eq!(returned, holder == Holder::Service);
                    self.out.retain(|out| out.cursor != cursor || !returned);
                }
            }
            Step::Fetch(limit) => {
                self.askers += 1;
                let asker = asker(self.askers);
                self.fetching.insert(self.askers, limit);
                let wait = Duration::from_secs(2);
                assert!(self.group.handle_fetch(
                    self.now,
                    Taker::Fetch(asker, None),
                    limit,
                    &Window::new(self.window_bytes),
                    wait,
                    "service"
                ));
            }
            Step::Ack(at) => self.ack(at),
            Step::Nak(at, delay) => {
                if let Some((delivery, holder, cursor)) = self.pick(at) {
                    let delay = delay.map(Duration::from_millis);
                    assert!(
                        self.group
                            .handle_failed(self.now, holder, delivery, "no", delay)
                    );
                    self.out.retain(|out| out.cursor != cursor);
                }
            }
            Step::Extend(at, ms) => {
                if let Some((delivery, holder, _)) = self.pick(at) {
                    let time = Some(Duration::from_millis(ms));
                    assert!(self.group.handle_extended(self.now, holder, delivery, time));
                }
            }
            Step::Foreign(at) => self.foreign(at),
            Step::Advance(ms) => self.advance(Duration::from_millis(ms)),
            Step::Restart => self.restart(),
            Step::Bury(can) => self.cannot_bury = !can,
        }
        self.turn();
        for number in self.credit.keys() {
            let bytes = self.bytes_of(Holder::Connection(worker(*number)));
            assert_eq!(self.windows[number].used(), bytes);
        }
    }

    fn ack(&mut self, at: usize) {
        let Some((delivery, holder, cursor)) = self.pick(at) else {
            return;
        };
        assert!(self.group.handle_acked(self.now, holder, delivery));
        assert!(
            !self.group.handle_acked(self.now, holder, delivery),
            "twice"
        );
        self.acked.insert(cursor);
        self.out.retain(|out| out.cursor != cursor);
    }

    /// Nobody settles what another one has.
    fn foreign(&mut self, at: usize) {
        if let Some((delivery, _, _)) = self.pick(at) {
            for other in [Holder::Connection(worker(99)), Holder::Trigger] {
                assert!(!self.group.handle_acked(self.now, other, delivery));
                assert!(
                    !self
                        .group
                        .handle_failed(self.now, other, delivery, "no", None)
                );
                assert!(!self.group.handle_extended(self.now, other, delivery, None));
                assert!(!self.group.handle_hopeless(self.now, other, delivery, "no"));
            }
        }
    }

    /// Time passes, and the group is told when it wants to be.
    fn advance(&mut self, time: Duration) {
        let end = self.now.at + time;
        loop {
            let due = self.group.poll_timeout().filter(|&due| due <= end);
            let next = due.unwrap_or(end).max(self.now.at);
            let passed = next.since(self.now.at);
            self.now.at = next;
            // Rounded up, as the wall clock may be ahead by a part of a millisecond.
            self.now.unix_ms += passed.as_nanos().div_ceil(1_000_000) as u64;
            self.turn();
            for kept in self.log.values().filter(|kept| kept.lease.is_some()) {
                assert!(
                    self.now.at.since(kept.spoken_at) < Settings::default().lease(),
                    "a lease ran out"
                );
            }
            if due.is_none() {
                return;
            }
        }
    }

    /// A worker that does everything ends it.
    fn finish(&mut self) {
        self.cannot_bury = false;
        self.do_(&Step::Join(7, 16));
        for _ in 0..1000 {
            while !self.out.is_empty() {
                self.ack(0);
                self.turn();
            }
            if self.log.values().all(|kept| kept.is_done) {
                break;
            }
            self.advance(Duration::from_secs(40));
        }
        for (cursor, kept) in &self.log {
            assert!(kept.is_done, "{cursor} is left over");
            let used_up = kept.failures.len() >= ATTEMPTS as usize;
            assert_eq!(kept.is_dead, used_up, "{cursor}");
            assert_ne!(kept.is_dead, self.acked.contains(cursor), "{cursor}");
        }
        assert_eq!((self.group.held(), self.group.held_bytes()), (0, 0));
        assert_eq!((self.group.in_flight(), self.group.retries()), (0, 0));
        self.advance(Duration::from_secs(1));
        assert_eq!(
            (self.group.lines.count(), self.group.lines.in_log()),
            (0, 0)
        );
        assert!(self.group.timers.is_empty());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Join(u32, usize),
    Leave(u32),
    Gone(u32),
    Abandon,
    Return(usize),
    Fetch(usize),
    Ack(usize),
    Nak(usize, Option<u64>),
    Extend(usize, u64),
    Foreign(usize),
    Advance(u64),
    Restart,
    Bury(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..CHANNELS.len()).prop_map(Step::Publish),
        3 => (0..4u32, 1..5usize).prop_map(|(worker, credit)| Step::Join(worker, credit)),
        1 => (0..4u32).prop_map(Step::Leave),
        1 => (0..4u32).prop_map(Step::Gone),
        1 => Just(Step::Abandon),
        1 => any::<usize>().prop_map(Step::Return),
        2 => (1..4usize).prop_map(Step::Fetch),
        5 => any::<usize>().prop_map(Step::Ack),
        4 => (any::<usize>(), prop::option::of(0..20_000u64)).prop_map(|(at, delay)| Step::Nak(at, delay)),
        1 => (any::<usize>(), 0..60_000u64).prop_map(|(at, ms)| Step::Extend(at, ms)),
        1 => any::<usize>().prop_map(Step::Foreign),
        4 => (0..50_000u64).prop_map(Step::Advance),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Bury),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_entry_is_done_or_dead_once_whatever_happens(
        kind in 0..6usize, is_narrow in any::<bool>(), is_tight in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut world = World::of(turns::kinds()[kind].clone());
        if is_tight {
            world.bounds = turns::TIGHT;
            world.group.bounds = turns::TIGHT;
        }
        if is_narrow {
            // Two deliveries, whatever the credit.
            world.window_bytes = 1000;
        }
        for step in &steps {
            world.do_(step);
        }
        world.finish();
    }
}

fn world_with(ordered: bool, entries: usize) -> World {
    let mut world = World::new(ordered);
    for _ in 0..entries {
        world.publish(0);
    }
    world
}

#[test]
fn workers_take_turns() {
    let mut world = world_with(false, 0);
    for number in 0..3 {
        world.do_(&Step::Join(number, 10));
    }
    for _ in 0..9 {
        world.publish(0);
    }
    for number in 0..3 {
        let holder = Holder::Connection(worker(number));
        let has = world.out.iter().filter(|out| out.holder == holder);
        assert_eq!(has.count(), 3);
    }
}

#[test]
fn deliveries_of_a_worker_that_left_go_to_others_and_are_no_attempt() {
    let mut world = world_with(false, 4);
    world.do_(&Step::Join(0, 4));
    world.do_(&Step::Join(1, 4));
    world.do_(&Step::Leave(0));
    let other = Holder::Connection(worker(1));
    assert!(world.out.len() == 4 && world.out.iter().all(|out| out.holder == other));
    assert!(world.log.values().all(|kept| kept.failures.is_empty()));
}

#[test]
fn what_nobody_takes_is_given_back() {
    let mut world = world_with(true, 6);
    world.do_(&Step::Join(0, 4));
    assert_eq!(world.out.len(), 1);
    world.do_(&Step::Leave(0));
    world.advance(Duration::from_secs(2));
    assert_eq!(world.group.held(), 0);
    assert!(world.log.values().all(|kept| kept.lease.is_none()));
}

#[test]
fn retry_comes_when_the_backoff_says_also_after_a_restart() {
    let mut world = world_with(false, 1);
    world.do_(&Step::Join(0, 1));
    world.do_(&Step::Nak(0, None));
    world.advance(Duration::from_millis(700));
    assert!(world.out.is_empty());
    world.restart();
    world.do_(&Step::Join(0, 1));
    assert!(world.out.is_empty(), "the first attempt was a moment ago");
    world.advance(Duration::from_millis(600));
    assert_eq!(world.out.len(), 1);
}

#[test]
fn silence_is_a_failed_attempt_and_extending_is_not_silence() {
    let mut world = world_with(false, 1);
    world.do_(&Step::Join(0, 1));
    world.advance(Duration::from_secs(29));
    world.do_(&Step::Extend(0, 30_000));
    world.advance(Duration::from_secs(29));
    assert_eq!(world.out.len(), 1);
    world.advance(Duration::from_secs(2));
    assert_eq!(world.group.counters().timed_out, 1);
    assert_eq!(&*world.log[&1].failures[0].reason, "ack_wait");
    assert_eq!(&*world.log[&1].failures[0].worker, "w");
}

#[test]
fn failed_entry_of_an_ordered_group_holds_up_its_channel_only() {
    let mut world = World::new(true);
    for channel in [0, 0, 1, 1] {
        world.publish(channel);
    }
    world.do_(&Step::Join(0, 8));
    let cursors = |world: &World| world.out.iter().map(|out| out.cursor).collect::<Vec<_>>();
    assert_eq!(cursors(&world), [1, 3]);
    world.do_(&Step::Nak(0, Some(5000)));
    world.do_(&Step::Ack(0));
    assert_eq!(cursors(&world), [4]);
    world.advance(Duration::from_secs(6));
    assert_eq!(cursors(&world), [4, 1]);
}

#[test]
fn hopeless_entry_dies_at_once() {
    let mut world = world_with(false, 1);
    world.group = Group::new(
        "g",
        5,
        Settings {
            max_attempts: 1,
            ..settings(false)
        },
        3,
    );
    world.do_(&Step::Join(0, 1));
    let (delivery, holder, _) = world.pick(0).unwrap();
    assert!(
        world
            .group
            .handle_hopeless(world.now, holder, delivery, "loop")
    );
    world.group.take_settled();
    let Some(Output::Bury(letter)) = world.group.poll_output() else {
        panic!("no letter");
    };
    assert_eq!(&*letter.failures[0].reason, "loop");
}

#[test]
fn what_belongs_to_another_groups_queue_is_passed_over() {
    let mut world = World::new(false);
    for (cursor, channel) in [(1, "$queue:other"), (2, "$queue:g")] {
        let record = memory::record(channel, EventId(cursor.into()), "1");
        world
            .entries
            .insert(cursor, memory::entry(cursor, 1, record));
        world.log.insert(cursor, Kept::default());
    }
    world.acked.insert(1);
    world.do_(&Step::Join(0, 4));
    assert_eq!(world.out.len(), 1);
    assert_eq!(world.out[0].cursor, 2);
    assert!(world.log[&1].is_done);
}

#[test]
fn order_may_be_asked_for_and_given_up_while_work_is_under_way() {
    let mut world = world_with(false, 5);
    world.do_(&Step::Join(0, 2));
    assert_eq!(world.out.len(), 2);
    world.group.handle_settings(world.now, settings(true));
    world.do_(&Step::Join(0, 5));
    assert_eq!(world.out.len(), 2, "two are under way already");
    world.ack(0);
    world.turn();
    assert_eq!(world.out.len(), 1);
    world.ack(0);
    world.turn();
    assert_eq!(world.out.len(), 1);
    world.group.handle_settings(world.now, settings(false));
    world.turn();
    assert_eq!(world.out.len(), 3);
    world.finish();
}

#[test]
fn closed_group_returns_everything() {
    let mut world = world_with(true, 5);
    world.do_(&Step::Join(0, 2));
    world.do_(&Step::Nak(0, None));
    world.do_(&Step::Fetch(1));
    world.group.handle_closed(world.now);
    world.turn();
    assert!(world.fetching.is_empty(), "waiting fetches are answered");
    assert!(world.log.values().all(|kept| kept.lease.is_none()));
}

//! The hot loop over a shard's ring, one turn at a time (`spec/io_uring.md` §2.4).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::accept::Accepts;
use super::arrivals::Arrivals;
use super::clock::Clock;
use super::doorbell::{SAFETY_TICK, Sleepers};
use super::fair::{DISPATCH_TIME, Pace, Weight};
use super::reports::Reports;
use super::slots::Slots;
use crate::mesh::control::{FromShard, ToShard};
use crate::model::{ConnId, ShardId};
use crate::shard::{Close, RingRange, Shard};
use crate::time::{Instant, Now};
use crate::uring::{Accepted, Kind, Ring, memory};

/// Times that a turn enters for deferred completions, twenty of them each: about a millisecond of receiving.
const ENTERS: u32 = 24;
/// Completions between two looks at the clock.
const CLOCK_EVERY: u32 = 32;
/// What was only needed in a rush is given back this often.
pub(super) const SHRINK_INTERVAL: Duration = Duration::from_secs(4);
/// Places that queues keep.
const PLACES_KEPT: usize = 1024;

/// What comes after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another turn at once.
    Turn,
    /// Sleep until something rings or is due.
    Sleep,
    /// The shard has drained.
    End,
}

/// What other shards have sent, until there is no more of it or its time is up.
pub(super) fn take_messages(shard: &mut Shard, clock: &Clock) {
    if !shard.has_messages() {
        return;
    }
    let begun = clock.now();
    let mut now = begun;
    while shard.has_messages() && !shard.is_full() && now.at.since(begun.at) < DISPATCH_TIME {
        shard.handle_messages(now);
        now = clock.now();
    }
}

/// One shard and its ring.
pub(super) struct Hot {
    pub(super) id: ShardId,
    pub(super) shard: Shard,
    pub(super) ring: Ring,
    pub(super) slots: Slots,
    pub(super) accepts: Accepts,
    /// Completions that wait for the shard to have room and time.
    pub(super) pending: Arrivals,
    /// Connections of which much waits there, and has in this rush: (slot, generation).
    pub(super) bulky: Vec<(u32, u32)>,
    /// How many bytes may wait.
    pub(super) pace: Pace,
    /// Those who cost much and are not read now, in the order in which they are read again: (slot, generation).
    pub(super) resting: VecDeque<(u32, u32, Weight)>,
    /// When the work for the last receive that was timed was done.
    pub(super) dispatched: Instant,
    /// Accepted sockets whose slot's last owner is not quite gone.
    pub(super) early: Vec<Accepted>,
    /// Receives that ended: (slot, generation).
    pub(super) unarmed: Vec<(u32, u32)>,
    /// Streams that ended and paused connections that nobody watches yet: (slot, generation).
    pub(super) unwatched: Vec<(u32, u32)>,
    /// Connections that said something since the last look at their health: (slot, generation).
    pub(super) heard: VecDeque<(u32, u32)>,
    /// When that was.
    pub(super) probed: Instant,
    /// The last value of `Output::Patience`, milliseconds.
    pub(super) unacknowledged_max: &'static u32,
    /// When memory was given back last.
    pub(super) shrunk: Instant,
    /// The shard knows that no listener is left.
    pub(super) unlistened: bool,
    /// Silent sends of the slice being built.
    pub(super) slice: Vec<(ConnId, RingRange)>,
    /// Closes to start when everything before them is sent.
    pub(super) closes: Vec<(ConnId, Close)>,
    pub(super) reports: Reports,
    pub(super) sleepers: Arc<Sleepers>,
    pub(super) clock: Clock,
    /// Bytes that one wake-up of a receive may bring; 0 where the kernel has no such bound.
    pub(super) receive_cap: u32,
}

impl Hot {
    /// Takes what happened, lets the shard think, sends what it says.
    pub(super) fn turn(&mut self) -> io::Result<Next> {
        let now = self.clock.now();
        self.reap(now)?;
        let busy = self.dispatch(now)?;
        self.ring.publish_buffers();
        self.arm_receives()?;
        self.think(now);
        let more = self.flush(now)?;
        self.wake_resting()?;
        self.arm_watches()?;
        self.probe(now)?;
        let open = self.slots.open();
        self.accepts
            .arm(&mut self.ring, now, open, &mut self.shard)?;
        self.give_back_memory(now.at);
        if let Some(strain) = self.accepts.look(now.at, open, &mut self.shard) {
            self.reports.push(FromShard::Strained(self.id, strain));
        }
        let accepting = self.shard.is_accepting();
        let unlistened = !accepting && self.accepts.are_stopped() && self.early.is_empty();
        let tells = unlistened && !std::mem::replace(&mut self.unlistened, unlistened);
        if tells {
            self.shard.handle_unlistened(now);
        }
        self.reports.hand_over();
        if busy || more {
            let taken = self.clock.now().at.since(now.at);
            self.shard
                .counters_mut()
                .turn
                .record(u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX));
        }
        if self.reports.ended() {
            // The last accepts end within a turn or two. Without them a ring that goes would keep its listeners for a while.
            return Ok(if self.accepts.are_stopped() {
                Next::End
            } else {
                Next::Turn
            });
        }
        if more || tells || !self.pending.is_empty() || !self.resting.is_empty() {
            return Ok(Next::Turn);
        }
        let due = self.shard.poll_timeout();
        if self.ring.has_pending() || due.is_some_and(|due| due.at <= now.at) {
            return Ok(Next::Turn);
        }
        Ok(Next::Sleep)
    }

    /// Lets the kernel post what it has deferred, up to a bound.
    fn reap(&mut self, now: Now) -> io::Result<()> {
        if self.ring.queued() > 0 || self.ring.needs_enter() {
            self.ring.enter(0)?;
        }
        // What the turn before left is dispatched first, and counts.
        self.collect(now)?;
        for _ in 0..ENTERS {
            if !self.ring.needs_enter() || self.pace.is_enough(self.pending.bytes()) {
                break;
            }
            self.ring.publish_buffers();
            self.ring.enter(0)?;
            self.collect(now)?;
        }
        Ok(())
    }

    /// Feeds completions to the shard as long as it has room for what they cause. Returns whether there were any.
    fn dispatch(&mut self, now: Now) -> io::Result<bool> {
        let busy = !self.pending.is_empty();
        let (mut handled, mut bytes) = (0, 0);
        self.dispatched = now.at;
        let mut has_bulk = false;
        while !self.shard.is_full() {
            handled += 1;
            if handled % CLOCK_EVERY == 0 {
                self.dispatched = self.clock.at();
            }
            // What is left is next, behind what has come of these; something goes on in any case.
            let is_over = self.dispatched.since(now.at) >= DISPATCH_TIME;
            if is_over && has_bulk {
                break;
            }
            let little = (!is_over).then(|| self.pending.pop_little()).flatten();
            has_bulk |= little.is_none();
            let Some(completion) = little.or_else(|| self.pending.pop_bulk()) else {
                break;
            };
            let conn = ConnId {
                slot: completion.slot(),
                generation: completion.generation(),
            };
            match completion.kind() {
                Some(Kind::Receive) => {
                    bytes += completion.bytes();
                    self.received(now, completion)?;
                }
                Some(Kind::SendOwned) => self.sent(now, completion)?,
                Some(Kind::Accept) => self.accepted(now, completion)?,
                Some(Kind::Close) => self.closed(now, conn)?,
                Some(Kind::HalfClose) => self.half_closed(now, conn)?,
                Some(Kind::Abort) => self.abort_refused(conn)?,
                Some(Kind::Probe) => self.probed(now, conn, completion.result()),
                // The turn itself is the answer, as it is to `Wake`.
                Some(Kind::Bell) => {
                    if !completion.more() {
                        self.ring.listen_to(self.sleepers.bell(self.id))?;
                    }
                }
                // A cancel that found nothing came too late, which its
                // operation's own completion tells; a wake-up that failed was for a shard that has ended.
                // An option that could not be set leaves the socket as it was.
                Some(Kind::Wake | Kind::Cancel | Kind::WakeFailed | Kind::Prepare) => {}
                Some(Kind::SendNow | Kind::Socket | Kind::Connect) | None => {
                    unreachable!("a completion of something never submitted: {completion:?}")
                }
            }
        }
        self.debulk();
        if Pace::tells(bytes) {
            self.pace.dispatched(bytes, self.clock.at().since(now.at));
        }
        Ok(busy)
    }

    /// Nothing of those of whom much has come waits any more: what they bring next is as little or as much as it is.
    pub(super) fn debulk(&mut self) {
        if self.pending.has_no_bulk() {
            for (slot, generation) in self.bulky.drain(..) {
                if let Some(state) = self.slots.of(slot, generation) {
                    state.set_bulky(false);
                }
            }
        }
    }

    /// Everything that reaches the shard without a socket.
    fn think(&mut self, now: Now) {
        while let Some(command) = self.reports.next_command() {
            if let ToShard::Reload(config) = &command {
                self.accepts.follow(config);
            }
            self.shard.handle_control(now, command);
        }
        while !self.shard.is_full()
            && let Some(answer) = self.reports.next_answer()
        {
            self.shard.handle_answer(now, answer);
        }
        while !self.shard.is_full()
            && let Some(message) = self.reports.next_from_log()
        {
            self.shard.handle_log(now, message);
        }
        if !self.shard.is_full() {
            self.shard.handle_mesh(now);
            take_messages(&mut self.shard, &self.clock);
        }
        if self
            .shard
            .poll_timeout()
            .is_some_and(|deadline| deadline.at <= now.at)
        {
            self.shard.handle_timeout(now);
        }
    }

    /// Sleeps in the ring until something completes, somebody rings or something is due.
    pub(super) fn sleep(&mut self) -> io::Result<()> {
        self.sleepers.lie_down(self.id);
        if self.is_quiet()? {
            let now = self.clock.now().at;
            let latest = now + SAFETY_TICK;
            let until = self
                .shard
                .poll_timeout()
                .map_or(latest, |due| due.at.min(latest));
            self.ring.enter_timeout(1, until.since(now))?;
        }
        self.sleepers.rise(self.id);
        Ok(())
    }

    /// The last look before sleep, after which everything rings.
    fn is_quiet(&mut self) -> io::Result<bool> {
        let now = self.clock.now();
        if self.shard.is_full() {
            return Ok(false);
        }
        self.shard.handle_mesh(now);
        let more = self.flush(now)?;
        Ok(!more
            && !self.shard.has_messages()
            && self.pending.is_empty()
            && !self.reports.has_command())
    }

    /// Gives up what was only needed in a rush.
    fn give_back_memory(&mut self, now: Instant) {
        if now.since(self.shrunk) >= SHRINK_INTERVAL {
            self.shrunk = now;
            self.pending.shrink_to(PLACES_KEPT);
            self.heard.shrink_to(PLACES_KEPT);
            self.resting.shrink_to(PLACES_KEPT);
            self.bulky.shrink_to(PLACES_KEPT);
            self.unarmed.shrink_to(PLACES_KEPT);
            self.unwatched.shrink_to(PLACES_KEPT);
            self.slots.shrink();
            self.shard.shrink();
            memory::give_back();
        }
    }
}

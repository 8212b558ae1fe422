//! The end of a shard: nobody new but those who stood in the listeners' queues, what waits is answered, everybody is told to come
//! back elsewhere, at a pace that makes no storm.

use std::collections::VecDeque;
use std::time::Duration;

use super::connection::{Connection, State};
use super::{Mode, Shard};
use crate::image::image;
use crate::mesh::control::{DrainOutcome, FromShard};
use crate::model::ConnId;
use crate::protocol::disconnect::Disconnect;
use crate::time::{Instant, Now};
use crate::wire::http::HttpError;

/// Connections are told in steps of this length.
const STEP: Duration = Duration::from_millis(50);

/// Whoever stood in a listener's queue has so long until its request is read. It is there already, as a rule, and on a busy
/// machine the socket is looked at later than in the next step.
const TAKEN_IN_WAIT: Duration = Duration::from_secs(1);

/// Connections told in one turn.
const TOLD_PER_TURN: usize = 1024;

/// A drain under way.
#[derive(Debug)]
pub(super) struct Draining {
    /// When the next step is due.
    pub(super) next: Instant,
    started: Instant,
    window: Duration,
    deadline: Instant,
    /// Connections not told yet, in random order.
    waiting: VecDeque<u32>,
    /// Those who came since, and until when their requests are waited for.
    taken_in: VecDeque<(Instant, u32)>,
    total: usize,
    outcome: DrainOutcome,
    reported: bool,
    /// No listener is left.
    unlistened: bool,
}

image!(struct Draining {
    next, started, window, deadline, waiting, taken_in, total, outcome, reported, unlistened
});
image!(struct DrainOutcome { clean, forced, unacked });

impl Draining {
    /// Is somebody taken in who stood in a listener's queue?
    pub(super) fn takes_in(&self, now: Instant) -> bool {
        !self.unlistened && now < self.deadline
    }

    /// Somebody was: told last, and not before its request can have been read.
    pub(super) fn came(&mut self, now: Instant, slot: u32) {
        self.next = now + STEP;
        self.total += 1;
        self.taken_in.push_back((now + TAKEN_IN_WAIT, slot));
    }

    /// Those whose requests were read, or are not waited for any longer, stand with all others.
    fn line_up(&mut self, now: Instant, waits_for_request: impl Fn(u32) -> bool) {
        for _ in 0..self.taken_in.len() {
            let Some((until, slot)) = self.taken_in.pop_front() else {
                break;
            };
            if now < until && waits_for_request(slot) {
                self.taken_in.push_back((until, slot));
            } else {
                self.waiting.push_back(slot);
            }
        }
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, connection: &Connection) {
        if connection.close == Some(super::Close::Finish) {
            self.outcome.clean += 1;
        } else {
            self.outcome.forced += 1;
        }
    }
}

impl Shard {
    pub(super) fn start_drain(&mut self, window: Duration, grace: Duration) {
        if self.drain.is_some() {
            return;
        }
        let mut waiting: Vec<u32> = self.connections.iter().map(|(slot, _)| slot).collect();
        for at in (1..waiting.len()).rev() {
            waiting.swap(at, self.rng.below(at as u64 + 1) as usize);
        }
        self.drain = Some(Draining {
            // What has arrived is read, and who waits for deliveries is answered, before the first is told to go.
            next: self.now.at + STEP,
            started: self.now.at,
            window,
            deadline: self.now.at + window + grace,
            total: waiting.len(),
            waiting: waiting.into(),
            taken_in: VecDeque::new(),
            outcome: DrainOutcome::default(),
            reported: false,
            unlistened: false,
        });
        self.local.hurry(self.now.at);
        if self.config.is_durable() {
            self.log.hurry();
        }
    }

    /// The listeners of a shard that drains are closed: nobody comes any more.
    pub fn handle_unlistened(&mut self, now: Now) {
        self.now = now;
        debug_assert!(self.drain.is_some(), "listeners are closed by a drain");
        if let Some(drain) = &mut self.drain {
            drain.unlistened = true;
        }
    }

    /// Ends at once: whoever is left is cut.
    pub(super) fn stop(&mut self) {
        self.start_drain(Duration::ZERO, Duration::ZERO);
        self.cut();
    }

    fn cut(&mut self) {
        let left: Vec<u32> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in left {
            self.abort(slot);
        }
    }

    pub(super) fn drain_step(&mut self) {
        let now = self.now.at;
        let Some(drain) = &mut self.drain else { return };
        if now < drain.next {
            return;
        }
        drain.next = now + STEP;
        if now >= drain.deadline {
            drain.outcome.unacked = self.log.appends() as u64;
            self.cut();
            return;
        }
        let connections = &self.connections;
        drain.line_up(now, |slot| {
            let found = connections.at(slot);
            found.is_some_and(|connection| connection.state == State::Head)
        });
        let elapsed = now.since(drain.started) + STEP;
        let due = if elapsed >= drain.window {
            drain.total
        } else {
            (drain.total as u128 * elapsed.as_nanos() / drain.window.as_nanos().max(1)) as usize
        };
        let told = drain.total - drain.waiting.len() - drain.taken_in.len();
        let batch = due.saturating_sub(told).min(drain.waiting.len());
        if batch > TOLD_PER_TURN {
            drain.next = now;
        }
        let batch: Vec<u32> = drain.waiting.drain(..batch.min(TOLD_PER_TURN)).collect();
        if batch.is_empty() {
            return;
        }
        let asking = self.log.clients();
        for slot in batch {
            let generation = self.connections.generation(slot);
            if asking.contains(&ConnId { slot, generation }) || self.people.is_asked(slot) {
                // Told once it has its answer.
                if let Some(drain) = &mut self.drain {
                    drain.waiting.push_back(slot);
                }
            } else {
                self.drain_connection(slot);
            }
        }
    }

    fn drain_connection(&mut self, slot: u32) {
        // It may have gone by itself.
        let Some(connection) = self.connections.at_mut(slot) else {
            return;
        };
        match connection.state {
            // A request that waits for its answer gets it; then the connection closes.
            State::Waiting if !connection.is_session => {
                connection.keep_alive = false;
                self.abandon_fetch(slot);
            }
            State::Head => self.end_of_http(slot, HttpError::ShuttingDown),
            State::Owing => self.finish(slot),
            State::Open | State::Waiting if connection.is_session => {
                self.disconnect(slot, &Disconnect::Shutdown)
            }
            State::Open | State::Waiting => {
                debug_assert!(
                    self.mode == Mode::Echo,
                    "a WebSocket without a session is an echo"
                );
                self.close_websocket(slot, 1001, "going away");
            }
            State::Finishing | State::Refused | State::Lingering | State::Gone => {}
        }
    }

    /// Reports the end of the drain, once.
    pub(super) fn drained(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        // What is on its way to the log is awaited, also where its publisher is gone: it may have been told to come back for the answer.
        let awaits = self.log.appends() > 0 && self.now.at < drain.deadline;
        if self.connections.is_empty() && drain.unlistened && !awaits && !drain.reported {
            drain.reported = true;
            drain.outcome.unacked = self.log.appends() as u64;
            self.reports
                .push_back(FromShard::Drained(self.id, drain.outcome));
        }
    }
}

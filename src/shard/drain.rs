//! The end of a shard: nobody new but those who stood in the listeners' queues, what waits is answered, everybody is told to come
//! back elsewhere, oldest first, at a pace that makes no storm.

use std::collections::VecDeque;
use std::time::Duration;

use super::connection::{Connection, Leaving, State};
use super::{Mode, Shard};
use crate::image::image;
use crate::mem::Rng;
use crate::mesh::control::{DrainOutcome, FromShard};
use crate::model::ConnId;
use crate::protocol::disconnect::Disconnect;
use crate::time::{Instant, Now};
use crate::wire::http::HttpError;

/// What else there is to do is looked at in steps of this length. Nobody is told before the first one: what has arrived is read,
/// and who waits for deliveries is answered.
const STEP: Duration = Duration::from_millis(50);

/// Connections whose turn comes within this time are told together, so that the pace costs few wake-ups.
const PACE: Duration = Duration::from_millis(1);

/// A shard that stood still for longer does not catch up at once: what is left is spread over what is left of the window.
const LATE: Duration = Duration::from_millis(20);

/// Whoever stood in a listener's queue has so long until its request is read. It is there already, as a rule, and on a busy
/// machine the socket is looked at later than in the next step.
const TAKEN_IN_WAIT: Duration = Duration::from_secs(1);

/// Connections told in one turn.
const TOLD_PER_TURN: usize = 1024;

/// A drain under way. The window is cut into as many equal shares as there are connections to tell, anew after each of them, and
/// each is told at a time of its share that chance picks.
#[derive(Debug)]
pub(super) struct Draining {
    /// When the next step is due.
    pub(super) next: Instant,
    /// The share of whoever is told next begins.
    share: Instant,
    /// When it is told.
    turn: Instant,
    /// The window ends.
    over: Instant,
    deadline: Instant,
    /// Connections not told yet: those who came last stand last, since others may have sent them here just now.
    waiting: VecDeque<ConnId>,
    /// Those who came since, and until when their requests are waited for.
    taken_in: VecDeque<(Instant, ConnId)>,
    /// Those whose turn has come, and who get an answer first.
    awaited: Vec<ConnId>,
    outcome: DrainOutcome,
    reported: bool,
    /// No listener is left.
    unlistened: bool,
}

image!(struct Draining {
    next, share, turn, over, deadline, waiting, taken_in, awaited, outcome, reported, unlistened
});
image!(struct DrainOutcome { told, left, forced, unanswered, unacked });

impl Draining {
    /// Is somebody taken in who stood in a listener's queue?
    pub(super) fn takes_in(&self, now: Instant) -> bool {
        !self.unlistened && now < self.deadline
    }

    /// Somebody was: told last, and not before its request can have been read.
    pub(super) fn came(&mut self, now: Instant, conn: ConnId) {
        self.taken_in.push_back((now + TAKEN_IN_WAIT, conn));
    }

    /// Those whose requests were read, or are not waited for any longer, stand with all others.
    fn line_up(&mut self, now: Instant, rng: &mut Rng, waits_for_request: impl Fn(ConnId) -> bool) {
        let nobody_waited = self.waiting.is_empty();
        for _ in 0..self.taken_in.len() {
            let Some((until, conn)) = self.taken_in.pop_front() else {
                break;
            };
            if now < until && waits_for_request(conn) {
                self.taken_in.push_back((until, conn));
            } else {
                self.waiting.push_back(conn);
            }
        }
        if nobody_waited && !self.waiting.is_empty() {
            self.share = self.share.max(now);
            self.pick(rng);
        }
    }

    /// How long each share of what is left is.
    fn share_length(&self) -> Duration {
        let left = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.over.since(self.share) / left.max(1)
    }

    /// Picks when in its share the next one is told.
    fn pick(&mut self, rng: &mut Rng) {
        let length = u64::try_from(self.share_length().as_nanos()).unwrap_or(u64::MAX);
        let chance = Duration::from_nanos(rng.below(length.max(1)));
        self.turn = self.share + chance;
    }

    /// The next one whose turn has come, if `is_there`; its share is over then. One that has gone by itself leaves its share to the others.
    fn take(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        is_there: impl Fn(ConnId) -> bool,
    ) -> Option<ConnId> {
        if now.since(self.turn) > LATE {
            self.share = now;
        }
        while self.turn <= now {
            let conn = *self.waiting.front()?;
            if is_there(conn) {
                self.share = (self.share + self.share_length()).min(self.over.max(self.share));
                self.waiting.pop_front();
                self.pick(rng);
                return Some(conn);
            }
            self.waiting.pop_front();
        }
        None
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, connection: &Connection) {
        let count = match connection.leaving {
            Leaving::Told => &mut self.outcome.told,
            Leaving::Not => &mut self.outcome.left,
            Leaving::Cut => &mut self.outcome.forced,
        };
        *count += 1;
    }

    /// It is not told yet, and nothing but its turn is to come before that.
    pub(super) fn waits_for_its_turn(&self, conn: ConnId) -> bool {
        self.waiting.contains(&conn)
    }

    /// Connections that are not told yet.
    pub(super) fn untold(&self) -> usize {
        self.waiting.len() + self.taken_in.len() + self.awaited.len()
    }
}

/// It has its last answer already.
const fn is_leaving(connection: &Connection) -> bool {
    matches!(
        connection.state,
        State::Finishing | State::Refused | State::Lingering | State::Gone
    )
}

impl Shard {
    pub(super) fn start_drain(&mut self, window: Duration, grace: Duration) {
        if self.drain.is_some() {
            return;
        }
        let mut waiting: Vec<(u32, ConnId)> = self
            .connections
            .iter()
            .filter(|(_, connection)| !is_leaving(connection))
            .map(|(slot, connection)| (connection.since, self.connections.id(slot)))
            .collect();
        waiting.sort_by_key(|&(since, _)| since);
        let (now, first) = (self.now.at, self.now.at + STEP);
        let mut drain = Draining {
            next: first,
            share: first,
            turn: first,
            over: first.max(now + window),
            deadline: now + window + grace,
            waiting: waiting.into_iter().map(|(_, conn)| conn).collect(),
            taken_in: VecDeque::new(),
            awaited: Vec::new(),
            outcome: DrainOutcome::default(),
            reported: false,
            unlistened: false,
        };
        drain.pick(&mut self.rng);
        self.drain = Some(drain);
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
        let is_left = |connection: &Connection| connection.state != State::Gone;
        let left: Vec<u32> = self
            .connections
            .iter()
            .filter(|(_, connection)| is_left(connection))
            .map(|(slot, _)| slot)
            .collect();
        for slot in left {
            let connection = self.connections.of_mut(slot);
            connection.leaving = Leaving::Cut;
            let is_unanswered =
                connection.state == State::Waiting || connection.session.order.is_some();
            if let Some(drain) = &mut self.drain {
                drain.outcome.unanswered += u64::from(is_unanswered);
            }
            self.abort(slot);
        }
    }

    pub(super) fn drain_step(&mut self) {
        let now = self.now.at;
        let Some(drain) = &mut self.drain else { return };
        if now < drain.next {
            return;
        }
        if now >= drain.deadline {
            drain.next = now + STEP;
            self.cut();
            return;
        }
        let connections = &self.connections;
        let current = |conn: ConnId| connections.current(conn.slot, conn.generation);
        drain.line_up(now, &mut self.rng, |conn| {
            current(conn).is_some_and(|connection| connection.state == State::Head)
        });
        // Who leaves by itself has no share of the window.
        let is_there = |conn| current(conn).is_some_and(|connection| !is_leaving(connection));
        let mut told = std::mem::take(&mut drain.awaited);
        for _ in 0..TOLD_PER_TURN {
            let Some(conn) = drain.take(now, &mut self.rng, is_there) else {
                break;
            };
            told.push(conn);
        }
        // A turn that has come already waits for no time.
        let by_turn = match drain.waiting.is_empty() {
            true => now + STEP,
            false if drain.turn <= now => now,
            false => drain.turn.max(now + PACE),
        };
        drain.next = by_turn.min(now + STEP);
        if told.is_empty() {
            return;
        }
        let asking = self.log.clients();
        for conn in told {
            if asking.contains(&conn) || self.waits_for_gate(conn) {
                // Told once it has its answer.
                if let Some(drain) = &mut self.drain {
                    drain.awaited.push(conn);
                }
            } else {
                self.drain_connection(conn);
            }
        }
    }

    fn drain_connection(&mut self, conn: ConnId) {
        let ConnId { slot, generation } = conn;
        // It may have gone by itself, or be about to.
        let connection = self.connections.current_mut(slot, generation);
        let Some(connection) = connection.filter(|connection| !is_leaving(connection)) else {
            return;
        };
        connection.leaving = Leaving::Told;
        self.counters.drain_told += 1;
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
        let is_under_way = self.log.appends() > 0 || !self.late.is_empty();
        let awaits = is_under_way && self.now.at < drain.deadline;
        if self.connections.is_empty() && drain.unlistened && !awaits && !drain.reported {
            drain.reported = true;
            drain.outcome.unacked = (self.log.appends() + self.late.len()) as u64;
            self.reports
                .push_back(FromShard::Drained(self.id, drain.outcome));
        }
    }
}

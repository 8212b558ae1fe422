//! Everything that happens by time.

use std::time::Duration;

use super::connection::State;
use super::connections::Fired;
use super::{Mode, Shard};
use crate::session::PeerState;
use crate::time::{Instant, Now};
use crate::wire::http::HttpError;

/// Connections whose time has come that one turn looks at.
const FIRED_PER_TURN: usize = 2048;
/// Messages that found no room, or were left for another turn, are looked at again after this: nobody rings for them.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

impl Shard {
    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.fire();
        self.give_waited();
        self.give_news();
        self.owned.sweep(now);
        self.keys_overdue();
        self.log_overdue();
        self.hooks_overdue();
        self.questions_overdue();
        self.calls_overdue();
        self.read_log();
        self.drain_step();
        self.intake_timeout();
        self.late_step();
        self.settle();
    }

    /// Looks at the connections whose time has come, some in each turn.
    fn fire(&mut self) {
        for _ in 0..FIRED_PER_TURN {
            if self.is_full() {
                return;
            }
            let Some(fired) = self.connections.fire(self.now.at) else {
                return;
            };
            match fired {
                Fired::Stale => {}
                Fired::Due(slot) => {
                    self.read_slowed(slot);
                    self.check_age(slot);
                    self.session_timeout(slot);
                    self.after(slot);
                }
                Fired::Overdue(slot, state) => {
                    self.read_slowed(slot);
                    self.overdue(slot, state);
                    self.check_age(slot);
                    self.session_timeout(slot);
                    self.after(slot);
                }
            }
        }
    }

    /// Reads a connection again that was slowed down, if its time has come.
    fn read_slowed(&mut self, slot: u32) {
        if self.connections.read_slowed(slot, self.now.at) {
            let session = &mut self.connections.of_mut(slot).session;
            session.heard_again(self.now, &self.config);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let retry = self.has_work().then(|| self.now.at + RETRY_INTERVAL);
        let at_once = (self.has_messages || self.has_more_ready()).then_some(self.now.at);
        [
            at_once,
            self.connections.next_at(self.now.at),
            self.owned.next_sweep(),
            self.local.next_waited_at(),
            self.local.next_news_at(),
            retry,
            self.drain.as_ref().map(|drain| drain.next),
            self.intake.next_at(),
            self.late.next_at(),
            self.key_waits.next_at(),
            self.log.next_at(),
            self.hooks.next_at(),
            self.questions.next_at(),
            self.calls.next_at(),
            self.waits.next_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The deadline of a connection's state has passed.
    fn overdue(&mut self, slot: u32, state: State) {
        let polls = |connection: &super::Connection| connection.is_poll();
        match state {
            State::Waiting if polls(self.connections.of(slot)) => {
                self.poll_overdue(slot);
            }
            State::Head => self.end_of_http(slot, HttpError::Timeout),
            State::Owing | State::Lingering => self.finish(slot),
            State::Waiting | State::Finishing | State::Refused => {
                self.abort(slot);
            }
            State::Open if self.connections.of(slot).has_ended => {
                self.finish(slot);
            }
            State::Open | State::Gone => {}
        }
    }

    fn session_timeout(&mut self, slot: u32) {
        let connection = self.connections.of(slot);
        if !connection.is_session
            || connection.is_parked
            || self.mode == Mode::Echo
            || !matches!(connection.state, State::Open | State::Waiting)
        {
            return;
        }
        let backlog = connection.backlog.as_ref();
        let peer = PeerState {
            is_held: connection.held.is_some(),
            is_slowed: self.connections.slowed_until(slot) != 0,
            comes_to_ping: backlog.is_some_and(|backlog| backlog.comes_to_ping()),
        };
        let before = connection.session.pong_by;
        let due = self.with_session(slot, |session, context| session.timeout(context, peer));
        if let Err(disconnect) = due {
            self.disconnect(slot, &disconnect);
        }
        let connection = self.connections.of_mut(slot);
        if connection.session.pong_by != before {
            let unsent = connection.unsent_bytes();
            if let Some(backlog) = &mut connection.backlog {
                match before {
                    0 => backlog.pinged(unsent),
                    _ => backlog.looked_at(),
                }
            }
        }
    }
}

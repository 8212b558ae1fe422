//! What is done after something has moved: of one connection by `after`, of the shard by `settle`. Whoever moves a connection marks
//! what is due (`Due`), or a step of its session shows it (`Session::stamp`); nobody else has to know what follows.
//!
//! | due | since | then |
//! |---|---|---|
//! | `PHASE` | a step of the session left it in another phase | the connection waits while its session connects, and goes on (`TURN`) behind that; a session that is connected is filed among its user's, and closed if that user or its token was shut out meanwhile; it may take parts that waited for its connect |
//! | `TIME` | a deadline of the session is another: ping, pong, expiry; its entry in the wheel fired; it waits for a key no more | the nearest deadline is filed |
//! | `ROOM` | unsent bytes of the connection were taken or dropped | it may take parts again that waited for room |
//! | `OWED` | the same, and it had more answers unsent than commands may come behind | if it has not any more, it goes on (`TURN`) |
//! | `TURN` | commands that waited may be carried out, or input that was held be read | it stands in `ready`, and `settle` takes it up |
//! | `INPUT` | a request that made it wait is answered, or let in | the input behind the request is read |
//!
//! Each is done once, whatever has made it due and how often. What becomes due by that is done as well.

use super::Shard;
use super::connection::{Connection, Due, State};
use super::order::TAKEN_PER_TURN;
use crate::session::Phase;

impl Shard {
    /// Does all that is due of the connection in a slot. Nothing is due nearly always, which costs a look.
    pub(super) fn after(&mut self, slot: u32) {
        loop {
            let due = std::mem::take(&mut self.connections.of_mut(slot).due);
            if due == Due::NOTHING {
                return;
            }
            self.do_due(slot, due);
        }
    }

    fn do_due(&mut self, slot: u32, due: Due) {
        if due.has(Due::PHASE) {
            self.follow_phase(slot);
        }
        if due.has(Due::TIME) {
            self.file(slot);
        }
        if due.has(Due::PHASE.and(Due::ROOM)) {
            self.wake_parts(slot);
        }
        let owes = |connection: &Connection| connection.owes_answers();
        if due.has(Due::TURN) || due.has(Due::OWED) && !owes(self.connections.of(slot)) {
            self.ready.push_back(self.connections.id(slot));
        }
        if due.has(Due::INPUT) {
            self.resume(slot);
        }
    }

    /// A session that waits for owners makes its connection wait; one that has its answer lets it go on.
    fn follow_phase(&mut self, slot: u32) {
        let connection = self.connections.of_mut(slot);
        if !connection.is_session {
            return;
        }
        let phase = connection.session.phase;
        // A request waits until it is answered, whatever its session does.
        match (connection.state, phase) {
            _ if connection.is_poll() => {}
            (State::Open, Phase::Connecting) => connection.state = State::Waiting,
            (State::Waiting, Phase::Connected | Phase::Refused) => {
                connection.state = State::Open;
                connection.due.add(Due::TURN);
            }
            _ => {}
        }
        if phase == Phase::Connected && !connection.is_known {
            self.make_known(slot);
            // It may have been shut out while its connect command waited.
            self.end_if_shut_out(slot);
        }
    }

    /// Files the nearest deadline of a connection, unless a nearer one is filed already.
    fn file(&mut self, slot: u32) {
        let connection = self.connections.of(slot);
        let session = if connection.is_session && !connection.is_parked {
            connection.session.deadline(self.now, &self.config)
        } else {
            0
        };
        let age = connection.backlog.as_ref().map_or(0, |one| one.age_by);
        let slowed = self.connections.slowed_until(slot);
        let times = [connection.by, session, age, slowed].into_iter();
        let nearest = times.filter(|&at| at != 0).min().unwrap_or(0);
        self.connections.file(slot, nearest);
    }

    /// The end of what one event or message has set off: handles what the shard has said to itself, until it has nothing more to
    /// say and no session can go on, or enough have in this turn.
    pub(super) fn settle(&mut self) {
        self.evict_largest();
        self.answer_own();
        while self.taken < TAKEN_PER_TURN && !self.ready.is_empty() && !self.is_full() {
            self.take_up_ready();
            self.answer_own();
        }
        debug_assert_eq!(self.mesh.own(), 0, "what it said to itself is handled");
    }

    /// Handles what the shard has said to itself.
    pub(super) fn answer_own(&mut self) {
        loop {
            self.hear();
            let Some(message) = self.mesh.receive(self.id) else {
                return;
            };
            self.dispatch(self.id, message);
        }
    }
}

#[cfg(test)]
mod tests;

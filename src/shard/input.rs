//! Input that cannot be handled yet (`shard/held`). All of it is counted, and has a bound for the shard beside those of each connection.

use super::connection::{Connection, State};
use super::connections::{Holds, paces};
use super::held::Held;
use super::{Door, Mode, Shard};
use crate::mesh::control::FromShard;
use crate::protocol::disconnect::Disconnect;
use crate::wire::http::HttpError;

/// Connections whose next request is taken in one turn.
const RESUMED_PER_TURN: usize = 64;

impl Connection {
    /// Bytes of unfinished input.
    pub(super) fn input_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.counted()) + self.decoder.held_bytes()
    }
}

impl Shard {
    /// Takes what a connection holds, to handle it.
    pub(super) fn take_held(&mut self, slot: u32) -> Option<Box<Held>> {
        self.connections.take_held(slot)
    }

    /// Gives back what is left of it.
    pub(super) fn put_held(&mut self, slot: u32, held: Box<Held>) {
        match self.connections.put_held(slot, held) {
            Holds::Little => {}
            Holds::Enough => self.stop_reading(slot),
            Holds::TooMuch => self.abort(slot),
        }
        self.bound_input();
    }

    /// Forgets what a connection holds.
    pub(super) fn drop_held(&mut self, slot: u32) {
        drop(self.take_held(slot));
        self.connections.read_on(slot);
    }

    /// Keeps input that must wait.
    pub(super) fn hold(&mut self, slot: u32, bytes: &[u8]) {
        let mut held = self.take_held(slot).unwrap_or_default();
        held.push(bytes);
        self.put_held(slot, held);
    }

    /// Goes on with input that waited.
    pub(super) fn resume(&mut self, slot: u32) {
        let connection = self.connections.of(slot);
        let (state, has_ended) = (connection.state, connection.has_ended);
        match state {
            State::Head => {
                if let Some(held) = self.take_held(slot) {
                    self.http_held(slot, held);
                }
                self.end_of_requests(slot, has_ended);
            }
            State::Open => {
                if let Some(mut held) = self.take_held(slot) {
                    self.websocket_received(slot, held.rest());
                }
                self.end_of_commands(slot);
            }
            State::Waiting
            | State::Owing
            | State::Finishing
            | State::Refused
            | State::Lingering
            | State::Gone => {}
        }
        self.connections.read_on(slot);
    }

    /// So much came of a client. It is read no further where that is more than it may send: what it sends waits in its socket.
    pub(super) fn pace_input(&mut self, slot: u32, bytes: usize) {
        let Some(pace) = paces::of_input(&self.config.client) else {
            return;
        };
        let connection = self.connections.of(slot);
        let counts = connection.is_served()
            && !connection.is_service
            && connection.door == Door::Clients
            && self.mode == Mode::Proxy;
        if counts && self.connections.take_input(slot, self.now.at, bytes, pace) {
            self.counters.input_slowed += 1;
        }
    }

    /// A peer that has closed its side gets what it asked for, and then the end.
    pub(super) fn end_of_requests(&mut self, slot: u32, has_ended: bool) {
        let is_idle = |connection: &Connection| connection.state == State::Head;
        if has_ended && is_idle(self.connections.of(slot)) {
            self.finish(slot);
        }
    }

    /// The unfinished input of all connections has a bound. When it is passed, those with the most of it go, until there is
    /// some room: a look at all connections pays for many receives.
    pub(super) fn bound_input(&mut self) {
        let most = self.config.server.input_max_size;
        if self.connections.input_bytes() <= most {
            return;
        }
        if self.connections.tells_of_input(self.now.at) {
            let bytes = self.connections.input_bytes() as u64;
            self.reports.push_back(FromShard::InputFull(self.id, bytes));
        }
        for slot in self.connections.holders() {
            if self.connections.input_bytes() <= most - most / 8 {
                return;
            }
            self.give_up_input(slot);
        }
    }

    /// The connection's input is let go, and with it the connection: its peer may come again.
    fn give_up_input(&mut self, slot: u32) {
        self.counters.input_given_up += 1;
        let held = self.take_held(slot);
        drop(self.connections.take_decoder(slot));
        let connection = self.connections.of_mut(slot);
        let is_answered = held
            .and_then(|held| held.arriving)
            .is_some_and(|arriving| arriving.asked.is_none());
        match connection.state {
            State::Head if !is_answered => self.refuse_http(slot, HttpError::Overloaded),
            State::Open if connection.is_session && self.mode == Mode::Proxy => {
                self.disconnect(slot, &Disconnect::TooManyRequests);
            }
            _ => self.abort(slot),
        }
    }

    /// The connection in a slot is about to be forgotten.
    pub(super) fn forget_input(&mut self, slot: u32) {
        drop(self.take_held(slot));
        drop(self.connections.take_decoder(slot));
    }

    /// For the simulator's checkers: unfinished input, as counted along the way and counted anew.
    #[must_use]
    pub fn input_bytes_counted(&self) -> (usize, usize) {
        let connections = &self.connections;
        (connections.input_bytes(), connections.input_bytes_counted())
    }

    /// An answer was sent whole: the next request is taken. Some in each turn, so that nobody waits for those who ask much.
    pub(super) fn resume_owing(&mut self) {
        for _ in 0..RESUMED_PER_TURN {
            if self.is_full() {
                return;
            }
            let Some(taken) = self.connections.next_taken() else {
                return;
            };
            if let Some(slot) = taken {
                self.resume(slot);
                self.settle();
            }
        }
    }
}

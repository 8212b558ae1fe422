//! Admission as the shard carries it: client connections wait before their handshake is answered (`spec/centrifuge.md` §1.3),
//! sessions while their user's registry decides. Who counts is in `people`; the gate and a user's registry are on one shard each,
//! which the others ask.

use std::net::IpAddr;
use std::time::Duration;

use super::answers::{RETRY_AFTER, TEXT, retry_after};
use super::connection::{Due, State};
use super::connections::Connections;
use super::people::LetIn;
use super::{Peer, Shard};
use crate::limits::MESH_TIMEOUT;
use crate::mesh::Message;
use crate::mesh::message::{Admit, EnterFor, Prefix, TurnedAway};
use crate::model::{ConnId, ShardId};
use crate::protocol::disconnect::Disconnect;
use crate::session::Counted;
use crate::wire::http::RequestHead;

/// A place may be free again after this time, as far as anybody can say.
const FULL_FOR: Duration = Duration::from_secs(5);
/// The same of a queue.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// The shard that keeps the gate.
const GATE: ShardId = ShardId(0);

/// Whose the session in a slot is.
pub(super) fn user_of<'c>(connections: &'c Connections) -> impl Fn(u32) -> &'c str {
    |slot| connections.of(slot).session.user.whole()
}

impl Shard {
    /// A socket was accepted.
    pub(super) fn came(&mut self, slot: u32, peer: Peer) {
        self.people.came(&self.config, slot, peer.ip);
    }

    /// The address that a client's request comes from, where a limit needs it.
    pub(super) fn client_address(&mut self, slot: u32, head: &RequestHead<'_>) -> Option<IpAddr> {
        let lines = head.headers("X-Forwarded-For");
        self.people.client_address(&self.config, slot, lines)
    }

    /// May the client's request on this connection be served? If not now, the connection waits, and its request is read
    /// again once the gate has answered.
    pub(super) fn is_let_in(&mut self, slot: u32, address: Option<IpAddr>) -> bool {
        let client = &self.config.client;
        let LetIn::Ask(prefix) = self.people.let_in(client, slot, address) else {
            return true;
        };
        let conn = ConnId {
            slot,
            generation: self.connections.generation(slot),
        };
        let connection = self.connections.of_mut(slot);
        connection.state = State::Waiting;
        self.connections.set_deadline(slot, 0);
        if !self.ask_gate(conn, prefix) {
            self.turn_away(slot, TurnedAway::Busy);
        }
        false
    }

    /// `false`: there is no room for the question.
    fn ask_gate(&mut self, conn: ConnId, prefix: Option<Prefix>) -> bool {
        let until = self.now.at + MESH_TIMEOUT;
        let Ok(ask) = self.questions.enters.open(until, 0, conn) else {
            return false;
        };
        let question = Message::Enter(EnterFor(ask), prefix.map(Box::new));
        if self.mesh.command(GATE, question).is_err() {
            self.questions.enters.close(ask);
            self.counters.refused_mesh += 1;
            return false;
        }
        true
    }

    /// A request waits on this connection for the gate.
    pub(super) fn waits_for_gate(&self, conn: ConnId) -> bool {
        let ConnId { slot, generation } = conn;
        self.connections.current(slot, generation).is_some() && self.people.is_asked(slot)
    }

    /// As the gate: somebody wants in.
    pub(super) fn own_enter(
        &mut self,
        from: ShardId,
        for_whom: EnterFor,
        prefix: Option<Box<Prefix>>,
    ) {
        let client = &self.config.client;
        let prefix = prefix.as_deref().copied();
        let entered = self.people.enter(self.now.at, client, prefix);
        let entered = entered.map(|counted| counted.map(Box::new));
        self.mesh.answer(from, Message::Entered(for_whom, entered));
    }

    /// As the gate: somebody has left.
    pub(super) fn own_exit(&mut self, prefix: Option<Prefix>) {
        self.people.exit(self.now.at, prefix);
    }

    /// As the gate: a shard has connections that nobody counted.
    pub(super) const fn own_adopt(&mut self, count: u32) {
        self.people.adopt_all(count);
    }

    /// The gate has answered.
    pub(super) fn entered(
        &mut self,
        ask: EnterFor,
        result: Result<Option<Box<Prefix>>, TurnedAway>,
    ) {
        let conn = self.questions.enters.close(ask.0);
        let Some(conn) = conn.filter(|&conn| self.waits_for_gate(conn)) else {
            // Nobody waits any more: the place goes back.
            if let Ok(prefix) = result {
                self.mesh.keep(GATE, Message::Exit(prefix));
            }
            return;
        };
        let slot = conn.slot;
        match result {
            Ok(prefix) => {
                // It leaves under the prefix that it was counted under.
                let prefix = prefix.as_deref().copied();
                self.people.entered(slot, prefix);
                let connection = self.connections.of_mut(slot);
                if connection.state == State::Waiting {
                    connection.state = State::Head;
                    connection.due.add(Due::INPUT);
                    self.after(slot);
                }
            }
            Err(turned_away) => self.turn_away(slot, turned_away),
        }
    }

    /// 503, and the connection closes: what a client sends behind its handshake is no request.
    pub(super) fn turn_away(&mut self, slot: u32, why: TurnedAway) {
        self.people.left(slot);
        let connection = self.connections.of_mut(slot);
        // It may have been cut meanwhile.
        if connection.state != State::Waiting {
            return;
        }
        connection.keep_alive = false;
        self.drop_held(slot);
        let counter = match why {
            TurnedAway::Full => &mut self.counters.turned_away_limit,
            TurnedAway::TooFast(_) => &mut self.counters.turned_away_rate,
            TurnedAway::PrefixFull => &mut self.counters.turned_away_prefix_limit,
            TurnedAway::PrefixTooFast(_) => &mut self.counters.turned_away_prefix_rate,
            TurnedAway::Busy => &mut self.counters.turned_away_busy,
        };
        *counter += 1;
        let wait = match why {
            TurnedAway::TooFast(wait) | TurnedAway::PrefixTooFast(wait) => wait,
            TurnedAway::Busy => BUSY_FOR,
            TurnedAway::Full | TurnedAway::PrefixFull => FULL_FOR,
        };
        let after = retry_after(&mut self.rng, wait);
        let headers = [(RETRY_AFTER, after.as_str())];
        // Its body may be still to come, and must not take the answer from it.
        self.write_answer(slot, 503, TEXT, &headers, b"too many connections\n");
        self.linger(slot);
    }

    /// A connection is gone: its place is free. One that still waits gives it back when the gate answers.
    pub(super) fn leave_place(&mut self, slot: u32) {
        if let Some(prefix) = self.people.left(slot) {
            self.mesh.keep(GATE, Message::Exit(prefix.map(Box::new)));
        }
    }

    /// Limits came with a new configuration: who is inside already counts, from now on.
    pub(super) fn count_insiders(&mut self) {
        let sessions = self.connections.iter();
        let sessions = sessions.filter(|(_, connection)| connection.is_session);
        let count = self.people.adopt(sessions.map(|(slot, _)| slot));
        if count > 0 {
            self.mesh.keep(GATE, Message::Adopt(count));
        }
    }

    /// As the registry of a user: may it have one more connection? Those that go for it are told.
    pub(super) fn own_admit(&mut self, from: ShardId, admit: &Admit) -> bool {
        let place = (from, admit.conn);
        let admitted = (self.people).admit(&admit.user, place, admit.limit, admit.displaces);
        let Some(displaced) = admitted else {
            return false;
        };
        for (shard, conn) in displaced {
            self.mesh.keep(shard, Message::Displace(conn));
        }
        true
    }

    /// The user of a connection has a newer one in its place.
    pub(super) fn displace(&mut self, conn: ConnId) {
        let is_admitted = self
            .connections
            .current(conn.slot, conn.generation)
            .is_some_and(|connection| {
                connection.is_session && connection.session.counted.has(Counted::BY_USER)
            });
        if is_admitted {
            self.counters.users_displaced += 1;
            self.disconnect(conn.slot, &Disconnect::ConnectionLimit);
        }
    }
}

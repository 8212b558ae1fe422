//! Commands of clients whose connections only bring replies: they come in requests of their own, to any shard, and are
//! handled where the session is (`spec/centrifuge.md` §1.7).

use super::Shard;
use super::answers::TEXT;
use super::connection::{Connection, State};
use crate::limits::{HELD_BYTES_MAX, MESH_TIMEOUT};
use crate::mesh::Message;
use crate::mesh::message::{Emulate, EmulateFor};
use crate::model::{ConnId, Encoding, ShardId};
use crate::protocol::centrifuge::decode_emulation;
use crate::session::key::SessionKey;
use crate::wire::http::Cors;

impl Shard {
    /// A request with commands; the connection waits until they are handled.
    pub(super) fn emulation_request(
        &mut self,
        slot: u32,
        encoding: Encoding,
        cors: Option<Box<Cors>>,
        body: &[u8],
    ) {
        let Ok(request) = decode_emulation(encoding, body) else {
            return self.respond_to(slot, 400, TEXT, cors.as_deref(), b"bad request\n");
        };
        if *request.node != *self.uid {
            return self.respond_to(slot, 404, TEXT, cors.as_deref(), b"unknown node\n");
        }
        let shards = self.mesh.shards();
        let Some(key) = SessionKey::parse(&request.session).filter(|key| key.shard.0 < shards)
        else {
            // Whoever guesses learns nothing.
            return self.respond_to(slot, 204, "", cors.as_deref(), b"");
        };
        let conn = ConnId {
            slot,
            generation: self.connections.generation(slot),
        };
        let emulate = Emulate {
            conn: key.conn,
            session: request.session.as_ref().into(),
            frame: request.data.into_owned(),
        };
        let until = self.now.at + MESH_TIMEOUT;
        let Ok(ask) = self.questions.emulations.open(until, 0, conn) else {
            return self.respond_to(slot, 500, TEXT, cors.as_deref(), b"try again\n");
        };
        let question = Message::Emulate(EmulateFor(ask), Box::new(emulate));
        if self.mesh.command(key.shard, question).is_err() {
            self.questions.emulations.close(ask);
            self.counters.refused_mesh += 1;
            return self.respond_to(slot, 500, TEXT, cors.as_deref(), b"try again\n");
        }
        let connection = self.connections.of_mut(slot);
        connection.state = State::Waiting;
        connection.session.rare.get_or_insert_default().cors = cors;
        self.connections.set_deadline(slot, 0);
    }

    /// Commands for a session of this shard, in the order in which they were asked.
    pub(super) fn emulate(&mut self, from: ShardId, request: EmulateFor, emulate: &Emulate) {
        let ConnId { slot, generation } = emulate.conn;
        let known = |connection: &Connection| {
            connection.is_stream()
                && connection.session.format.speaker.converses()
                && connection.session.is_named(&emulate.session)
        };
        let state = self
            .connections
            .current(slot, generation)
            .filter(|connection| known(connection))
            .map(|connection| (connection.state, connection.session.waiting_bytes()));
        let mut is_taken = true;
        match state {
            Some((State::Open | State::Waiting, waits)) if waits > HELD_BYTES_MAX => {
                self.abort(slot);
            }
            // Others have filled what the shard has room for.
            Some((State::Open | State::Waiting, _)) if self.waits_enough(slot) => {
                is_taken = false;
            }
            Some((State::Open | State::Waiting, _)) => self.commands(slot, &emulate.frame),
            Some((
                State::Head
                | State::Owing
                | State::Finishing
                | State::Refused
                | State::Lingering
                | State::Gone,
                _,
            ))
            | None => {}
        }
        let answer = Message::Emulated(request, is_taken);
        self.mesh.answer(from, answer);
    }

    /// The commands of a request are handled, or nobody was there to handle them. `false`: they were not, or that is not known.
    pub(super) fn emulated(&mut self, conn: ConnId, is_taken: bool) {
        // Whoever brought them may have gone meanwhile.
        if !self.awaits_answer(conn) {
            return;
        }
        let connection = self.connections.of_mut(conn.slot);
        let cors = connection.session.rare.take().and_then(|rare| rare.cors);
        if is_taken {
            self.respond_to(conn.slot, 204, "", cors.as_deref(), b"");
        } else {
            self.respond_to(conn.slot, 503, TEXT, cors.as_deref(), b"try again\n");
        }
    }
}

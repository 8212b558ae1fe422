//! WebSocket input: messages to the session, control frames, the closing handshake.

use std::time::Duration;

use super::connection::State;
use super::order::COMMANDS_AT_ONCE;
use super::{Mode, Shard};
use crate::limits::ECHO_MESSAGE_BYTES_MAX;
use crate::model::Framing;
use crate::wire::websocket::{
    Event, Opcode, ServerHeader, WebSocketError, encode_close, encode_frame_header,
};

/// The peer has this long to take the last bytes.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that are inflated in one turn, about: with what is done with them, a fraction of a millisecond. The last message may
/// take it over that by its own length.
pub(super) const INFLATED_PER_TURN: usize = 256 << 10;

impl Shard {
    /// Bytes of an open WebSocket.
    pub(super) fn websocket_received(&mut self, slot: u32, bytes: &mut [u8]) {
        let message_bytes_max = match self.mode {
            Mode::Echo => ECHO_MESSAGE_BYTES_MAX,
            Mode::Proxy => self.config.websocket.message_size_limit,
        };
        let connection = self.connections.of_mut(slot);
        let message_bytes_max = if connection.session.format.speaker.converses() {
            message_bytes_max
        } else {
            self.config.uni_websocket.message_size_limit
        };
        let deflates = connection.session.format.framing == Framing::Deflate;
        let mut decoder = self.connections.take_decoder(slot);
        let mut input = bytes;
        loop {
            let connection = self.connections.of(slot);
            if matches!(connection.state, State::Open | State::Waiting)
                && (connection.must_hold() || self.waits_enough(slot))
            {
                self.hold(slot, input);
                break;
            }
            if connection.state != State::Open {
                return;
            }
            // Small messages may inflate to large ones: what follows is read in one of the next turns.
            if self.inflated >= INFLATED_PER_TURN
                && deflates
                && connection.is_session
                && !input.is_empty()
            {
                self.hold(slot, input);
                self.inflating.push_back(self.connections.id(slot));
                break;
            }
            if connection.session.is_unfinished() && decoder.begins_close(input) {
                self.hold(slot, input);
                self.end_later(slot);
                break;
            }
            let event = if deflates {
                (self.connections).next_inflated(slot, &mut decoder, &mut input, message_bytes_max)
            } else {
                decoder.next(&mut input, message_bytes_max)
            };
            if deflates && let Ok(Some(Event::Text(message) | Event::Binary(message))) = &event {
                self.inflated += message.len();
            }
            match event {
                Ok(Some(event)) => self.websocket_event(slot, event),
                Ok(None) => break,
                Err(error) => {
                    self.refuse_websocket(slot, error);
                    return;
                }
            }
        }
        if self.connections.put_decoder(slot, decoder) {
            self.bound_input();
        }
    }

    /// What was left of the turn before goes on, as far as this turn's share reaches.
    pub(super) fn inflate_on(&mut self) {
        self.inflated = 0;
        while self.inflated < INFLATED_PER_TURN
            && !self.is_full()
            && let Some(conn) = self.inflating.pop_front()
        {
            self.take_up(conn, COMMANDS_AT_ONCE);
        }
    }

    fn websocket_event(&mut self, slot: u32, event: Event<'_>) {
        match event {
            Event::Close(status) => {
                self.finish(slot);
                // The answer is the last frame, also if it makes the queue too long.
                let mut reply = Vec::new();
                match status {
                    Some((code, _)) => encode_close(&mut reply, code, ""),
                    None => encode_frame_header(&mut reply, Opcode::Close, 0),
                }
                self.queue(slot, &reply);
            }
            Event::Text(payload) => self.message(slot, &payload, Opcode::Text),
            Event::Binary(payload) => self.message(slot, &payload, Opcode::Binary),
            Event::Ping(payload) => {
                let mut reply = Vec::with_capacity(payload.len() + 2);
                encode_frame_header(&mut reply, Opcode::Pong, payload.len());
                reply.extend_from_slice(&payload);
                self.queue(slot, &reply);
            }
            Event::Pong => {
                let connection = self.connections.of_mut(slot);
                connection.session.frame_pong();
            }
        }
    }

    fn message(&mut self, slot: u32, payload: &[u8], opcode: Opcode) {
        if self.mode == Mode::Echo {
            return self.echo(slot, payload, opcode);
        }
        self.commands(slot, payload);
    }

    fn echo(&mut self, slot: u32, payload: &[u8], opcode: Opcode) {
        let rare = self.connections.of_mut(slot).session.rare.as_mut();
        if let Some(own) = rare.and_then(|rare| rare.deflate.as_mut()) {
            let mut deflated = Vec::new();
            own.0.deflate(payload, &mut deflated);
            let header = ServerHeader::deflated(opcode, deflated.len());
            self.queue_pieces(slot, &[&header, &deflated]);
        } else {
            let header = ServerHeader::new(opcode, payload.len());
            self.queue_pieces(slot, &[&header, payload]);
        }
    }

    /// What follows a broken frame cannot be read.
    fn refuse_websocket(&mut self, slot: u32, error: WebSocketError) {
        self.counters.websocket_refused += 1;
        self.close_websocket(slot, error.close_code(), "");
    }

    /// Says that the connection ends, and that nothing more comes: what the peer sends behind that is not looked at, its close frame
    /// neither.
    pub(super) fn close_websocket(&mut self, slot: u32, code: u16, reason: &str) {
        self.linger(slot);
        let mut frame = Vec::new();
        encode_close(&mut frame, code, reason);
        self.queue(slot, &frame);
    }
}

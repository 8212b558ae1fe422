//! Client connections, whatever carries them: how each begins, what its input is, how it is told of its end
//! (`spec/centrifuge.md` §1.4 – §1.9).

use std::sync::Arc;

use super::Shard;
use super::admission::user_of;
use super::answers::{JSON, TEXT};
use super::connection::{Connection, Due, State};
use super::route::{ClientRoute, Subprotocol, Transport};
use crate::config::UniStream;
use crate::model::{ConnId, Encoding, Format, Speaker};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::push::Push;
use crate::session::Phase;
use crate::speaker::{self, Ending, Said, end, is_opening};
use crate::wire::http::{Cors, LAST_CHUNK, encode_stream_head};

impl Connection {
    /// A session whose pushes are the body of an HTTP response.
    pub(super) fn is_stream(&self) -> bool {
        self.is_session && self.session.format.is_stream()
    }

    /// A session that is a long poll.
    pub(super) fn is_poll(&self) -> bool {
        self.is_session && self.session.format.speaker == Speaker::Poll
    }
}

impl Shard {
    /// A client's request is served: from here on the connection has a session. `first` is the body of the request.
    pub(super) fn open_client(
        &mut self,
        slot: u32,
        client: ClientRoute,
        cors: Option<Box<Cors>>,
        first: &[u8],
    ) {
        let format = client.format;
        let connection = self.connections.of_mut(slot);
        client.kept.hand_to(&mut connection.session);
        match client.transport {
            Transport::WebSocket {
                key,
                protocol,
                frame_pings,
                deflate,
            } => {
                let protocol = protocol.map(Subprotocol::name);
                self.upgrade(slot, &key, protocol, deflate.as_ref(), cors.as_deref());
                self.begin(slot, format, frame_pings);
            }
            Transport::UniWebSocket { key, connect } => {
                let connect = connect.as_deref().map(str::as_bytes);
                if connect.is_some_and(|connect| !is_opening(format, connect, true)) {
                    return self.respond_to(slot, 400, TEXT, cors.as_deref(), b"bad request\n");
                }
                self.upgrade(slot, &key, None, None, cors.as_deref());
                self.begin(slot, format, true);
                if let Some(connect) = connect {
                    self.commands(slot, connect);
                }
            }
            Transport::Stream { connect } => {
                let first = connect.as_deref().map_or(first, str::as_bytes);
                if !is_opening(format, first, connect.is_some()) {
                    return self.respond_to(slot, 400, TEXT, cors.as_deref(), b"bad request\n");
                }
                self.open_stream(slot, format, cors);
                self.commands(slot, first);
            }
        }
    }

    fn open_stream(&mut self, slot: u32, format: Format, cors: Option<Box<Cors>>) {
        let content_type = match (format.framing.is_events(), format.encoding) {
            (true, _) => "text/event-stream; charset=utf-8",
            (false, Encoding::Protobuf) => "application/octet-stream",
            (false, Encoding::Json) => "application/x-ndjson",
        };
        let chunked = format.framing.is_chunked();
        let headers = cors.as_deref().map(Cors::headers).unwrap_or_default();
        let mut head = Vec::new();
        let date = self.date.at(self.now.unix_s());
        encode_stream_head(&mut head, date, content_type, chunked, &headers);
        if format.framing.is_events() {
            // Opens the stream early where something on the way waits for a first byte.
            let opening: &[u8] = if chunked { b"2\r\n\r\n\r\n" } else { b"\r\n" };
            head.extend_from_slice(opening);
        }
        let waits = self
            .uni_stream(format)
            .is_some_and(|endpoint| endpoint.connect_code_to_http_response.enabled);
        self.begin(slot, format, false);
        if !format.speaker.converses() {
            self.expect_acknowledgements(slot);
        }
        if !waits {
            self.queue(slot, &head);
            return;
        }
        let connection = self.connections.of_mut(slot);
        let rare = connection.session.rare.get_or_insert_default();
        rare.head = Some(head.into_boxed_slice());
        rare.cors = cors;
    }

    /// Configuration of the endpoint whose connections are written like this.
    fn uni_stream(&self, format: Format) -> Option<&UniStream> {
        if format.speaker.converses() || !format.is_stream() {
            None
        } else if format.framing.is_events() {
            Some(&self.config.uni_sse)
        } else {
            Some(&self.config.uni_http_stream)
        }
    }

    /// The connection carries a session from here on.
    pub(super) fn begin(&mut self, slot: u32, format: Format, frame_pings: bool) {
        let (now, config) = (self.now, Arc::clone(&self.config));
        let secret = format.names_sessions().then(|| self.secrets.make());
        let connection = self.connections.of_mut(slot);
        debug_assert!(!connection.is_session, "one session at a time");
        connection.state = State::Open;
        connection.by = 0;
        connection.is_session = true;
        connection.session.format = format;
        connection.session.frame_pings = frame_pings;
        if secret.is_some() {
            connection.session.rare.get_or_insert_default().secret = secret;
        }
        connection.session.open(now, &config);
        connection.due.add(Due::TIME);
        self.after(slot);
    }

    /// Input of a connection, as its state and its transport have it.
    pub(super) fn received(&mut self, slot: u32, bytes: &mut [u8]) {
        let connection = self.connections.of(slot);
        match connection.state {
            State::Head => self.http_received(slot, bytes),
            State::Open | State::Waiting if connection.is_stream() => {
                self.stream_received(slot, bytes);
            }
            State::Waiting | State::Owing => self.hold(slot, bytes),
            State::Open => self.websocket_received(slot, bytes),
            // It was told to go.
            State::Finishing => self.stop_reading(slot),
            State::Refused | State::Lingering => self.read_past(slot, bytes.len()),
            State::Gone => {}
        }
    }

    /// What follows the request of a stream: empty lines are read past (RFC 9112 §2.2). Everything else would be a request whose
    /// answer can never come, as the connection ends with the stream.
    fn stream_received(&mut self, slot: u32, bytes: &[u8]) {
        if bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            self.disconnect(slot, &Disconnect::BadRequest);
        }
    }

    /// What sessions have said to their shard.
    pub(super) fn hear(&mut self) {
        while let Some((conn, said)) = self.said.pop_front() {
            if self.is_here(conn) {
                self.heard(conn, said);
            }
        }
    }

    fn heard(&mut self, conn: ConnId, said: Said) {
        let slot = conn.slot;
        match said {
            Said::Polled(polled) => self.polled(slot, polled),
            Said::Refused(code, text) => {
                let connection = self.connections.of(slot);
                if connection.is_poll() {
                    self.refuse_poll(slot, code, &text);
                } else if connection.session.phase == Phase::Refused {
                    self.refuse_connect(slot, code, &text);
                }
            }
        }
    }

    /// A unidirectional client cannot be answered with an error: its connection ends, as the code says.
    fn refuse_connect(&mut self, slot: u32, code: u32, text: &str) {
        if self.answer_refused(slot, code, text) {
            return;
        }
        let transforms = &self.config.client.connect_code_to_unidirectional_disconnect;
        let disconnect = match (transforms.of(code), code) {
            (Some(to), _) => Disconnect::Custom(to.code, to.reason.as_str().into()),
            (None, 109 | 110) => Disconnect::Expired,
            (None, 111) => Disconnect::TooManyRequests,
            (None, 103) => Disconnect::PermissionDenied,
            (None, _) => Disconnect::Internal,
        };
        self.disconnect(slot, &disconnect);
    }

    /// Answers a connect that failed with a status, where the response has not begun. False where it has.
    fn answer_refused(&mut self, slot: u32, code: u32, text: &str) -> bool {
        let connection = self.connections.of_mut(slot);
        let format = connection.session.format;
        let Some(rare) = &mut connection.session.rare else {
            return false;
        };
        if rare.head.take().is_none() {
            return false;
        }
        let cors = rare.cors.take();
        let answer = self
            .uni_stream(format)
            .and_then(|endpoint| endpoint.connect_code_to_http_response.of(code));
        let (status, body) = match answer {
            Some(answer) if answer.body.is_empty() => (answer.status_code, text.to_owned()),
            Some(answer) => (answer.status_code, answer.body.clone()),
            None => (500, "Internal Server Error".to_owned()),
        };
        self.end_session(slot);
        let connection = self.connections.of_mut(slot);
        connection.keep_alive = false;
        let is_json = body.starts_with('{');
        let content_type = if is_json { JSON } else { TEXT };
        let body = if matches!(status, 204 | 304) {
            &[][..]
        } else {
            body.as_bytes()
        };
        self.respond_to(slot, status, content_type, cors.as_deref(), body);
        true
    }

    /// Ends a session with a code of the protocol, behind everything that is queued.
    pub(super) fn disconnect(&mut self, slot: u32, disconnect: &Disconnect) {
        let connection = self.connections.of(slot);
        if !connection.is_session || !matches!(connection.state, State::Open | State::Waiting) {
            return;
        }
        let format = connection.session.format;
        let counter = match disconnect {
            Disconnect::Slow => &mut self.counters.disconnected_slow,
            Disconnect::Degraded(_) => &mut self.counters.disconnected_degraded,
            Disconnect::NoPong => &mut self.counters.disconnected_no_pong,
            Disconnect::BadRequest => &mut self.counters.disconnected_bad_request,
            Disconnect::InvalidToken => &mut self.counters.disconnected_invalid_token,
            _ => &mut self.counters.disconnected_other,
        };
        *counter += 1;
        if *disconnect == Disconnect::InvalidToken {
            (self.people).add_offender(&self.config.client, slot, self.now.at);
        }
        match end(format, disconnect) {
            Ending::Response => self.end_poll(slot, disconnect),
            Ending::Body => self.end_stream(slot, format, disconnect),
            Ending::Nothing => self.finish(slot),
            Ending::PushAndClose if self.end_uni_websocket(slot, format, disconnect) => {}
            Ending::PushAndClose | Ending::Close => {
                self.close_websocket(slot, disconnect.code(), disconnect.reason());
            }
        }
    }

    /// A session is connected: it is one of its user's.
    pub(super) fn make_known(&mut self, slot: u32) {
        let connection = self.connections.of_mut(slot);
        debug_assert!(!connection.is_known, "once");
        connection.is_known = true;
        self.handshake_over(slot);
        (self.people).connected(slot, user_of(&self.connections));
    }

    /// Ends the session of a connection: its subscriptions and its place among the users.
    pub(super) fn end_session(&mut self, slot: u32) {
        let connection = self.connections.of(slot);
        if !connection.is_session || connection.session.phase == Phase::Ended {
            return;
        }
        if connection.is_known {
            self.people.disconnected(slot, user_of(&self.connections));
        }
        let connection = self.connections.of_mut(slot);
        connection.is_known = false;
        connection.is_parked = false;
        self.forget_waiting(slot);
        self.with_session(slot, |session, context| session.end(context));
    }

    /// A push that says why, then the last chunk where there are chunks, and the end of the connection.
    fn end_stream(&mut self, slot: u32, format: Format, disconnect: &Disconnect) {
        if self.answer_refused(slot, u32::from(disconnect.code()), disconnect.reason()) {
            return;
        }
        let mut last = Vec::new();
        if !disconnect.is_silent() {
            let push = Push::Disconnect(disconnect.code(), disconnect.reason());
            speaker::push(&mut last, format, &mut self.compression, "", &push);
        }
        if format.framing.is_chunked() {
            last.extend_from_slice(LAST_CHUNK);
        }
        self.end_session(slot);
        let connection = self.connections.of_mut(slot);
        connection.state = State::Finishing;
        self.drop_held(slot);
        self.queue(slot, &last);
        self.finish(slot);
    }

    /// A push says why unless that is off. True if no close frame is to follow.
    fn end_uni_websocket(&mut self, slot: u32, format: Format, disconnect: &Disconnect) -> bool {
        let (push, close) = (
            !self.config.uni_websocket.disable_disconnect_push,
            !self.config.uni_websocket.disable_closing_handshake,
        );
        self.end_session(slot);
        let connection = self.connections.of_mut(slot);
        connection.state = State::Finishing;
        self.drop_held(slot);
        if push {
            let mut frame = Vec::new();
            let push = Push::Disconnect(disconnect.code(), disconnect.reason());
            speaker::push(&mut frame, format, &mut self.compression, "", &push);
            self.queue(slot, &frame);
        }
        if !close {
            self.finish(slot);
        }
        !close
    }
}

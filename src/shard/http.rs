//! HTTP/1.1, what comes in: one request after the other, each judged by its head before a byte of its body is kept.

use std::net::IpAddr;

use super::Shard;
use super::answers::JSON;
use super::connection::State;
use super::held::{Arriving, Held};
use super::route::{JudgedRequest, Route};
use crate::limits::{BODY_UNUSED_BYTES_MAX, ECHO_MESSAGE_BYTES_MAX, HTTP_HEAD_BYTES_MAX};
use crate::mem::TimerWheel;
use crate::model::{Framing, TenantId};
use crate::protocol::api::OPENAPI;
use crate::wire::http::{
    BodyLength, BodyReader, CONTINUE, Cors, Decoded, HttpError, Method, decode_head,
};
use crate::wire::websocket::deflate::{Agreement, Deflater, Inflater};

/// The page of the first run: connect, publish, presence, latency.
const PAGE: &[u8] = include_bytes!("../page/index.html");

/// What a request head says, apart from the bytes that it lies in.
struct Judged {
    asked: JudgedRequest,
    /// Where its client is.
    address: Option<IpAddr>,
    /// Bytes of the head.
    len: usize,
    body: BodyLength,
    /// The client waits for a word before it sends the body.
    expects: bool,
}

impl Shard {
    /// Bytes of a connection that speaks HTTP.
    pub(super) fn http_received(&mut self, slot: u32, bytes: &mut [u8]) {
        let Some(mut held) = self.take_held(slot) else {
            let used = self.http_requests(slot, bytes);
            if used < bytes.len() {
                self.hold(slot, &bytes[used..]);
                self.expect_rest(slot);
            }
            return;
        };
        if held.arriving.is_some() {
            let used = self.body_received(slot, held, bytes);
            if used < bytes.len() {
                self.received(slot, &mut bytes[used..]);
            }
            return;
        }
        // Without the end of a line there is no head that was none before, and nobody looks through the same bytes again.
        let may_be_whole = memchr::memchr(b'\n', bytes).is_some();
        held.push(bytes);
        if may_be_whole || held.len() >= HTTP_HEAD_BYTES_MAX {
            self.http_held(slot, held);
        } else {
            self.put_held(slot, held);
        }
    }

    /// Takes requests out of what was held; the rest is held again.
    pub(super) fn http_held(&mut self, slot: u32, mut held: Box<Held>) {
        if held.arriving.is_some() {
            // It is read past, behind an answer that had to be sent first.
            let mut bytes = held.take_bytes();
            let used = self.body_received(slot, held, &bytes);
            if used < bytes.len() {
                self.received(slot, &mut bytes[used..]);
            }
            return;
        }
        let used = self.http_requests(slot, held.rest());
        held.skip(used);
        self.put_held(slot, held);
        self.expect_rest(slot);
    }

    /// Takes requests one after the other. What is left over has to be held: half a head, or what stands behind a request
    /// that waits.
    fn http_requests(&mut self, slot: u32, bytes: &mut [u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &mut bytes[used..];
            let connection = self.connections.of(slot);
            match connection.state {
                State::Head => {}
                State::Waiting | State::Owing if !connection.is_stream() => return used,
                _ => {
                    self.received(slot, rest);
                    return bytes.len();
                }
            }
            match self.http_request(slot, rest) {
                Ok(Some(taken)) => used += taken,
                Ok(None) => return used,
                Err(error) => {
                    self.refuse_http(slot, error);
                    return bytes.len();
                }
            }
        }
        used
    }

    /// Half a request is there: the rest of its head, and then of its body, has a time to come.
    fn expect_rest(&mut self, slot: u32) {
        let connection = self.connections.of(slot);
        let (state, by) = (connection.state, connection.by);
        let is_half = |held: &Held| held.arriving.is_none();
        if state == State::Head && connection.held.as_deref().is_some_and(is_half) {
            let at = TimerWheel::tick_after(self.now.at, self.config.server.handshake_timeout);
            self.connections
                .set_deadline(slot, if by == 0 { at } else { by.min(at) });
        }
    }

    /// Reads a head and says what it asks for, which changes nothing.
    fn judge(&mut self, slot: u32, bytes: &[u8]) -> Result<Option<Judged>, HttpError> {
        let (head, len) = match decode_head(bytes)? {
            Decoded::Incomplete => return Ok(None),
            Decoded::Complete(head, len) => (head, len),
        };
        let door = self.connections.of(slot).door;
        let judged = Judged {
            asked: self.route(door, &head),
            address: self.client_address(slot, &head),
            len,
            body: head.body,
            expects: head.expect_continue,
        };
        let connection = self.connections.of_mut(slot);
        connection.keep_alive = head.keep_alive && self.drain.is_none();
        connection.is_head = head.method == Method::Head;
        connection.is_service = matches!(judged.asked.route, Route::Api { .. });
        Ok(Some(judged))
    }

    /// Takes one request: how many bytes it was, `None` if its head is not whole, or waits to be let in.
    fn http_request(&mut self, slot: u32, bytes: &[u8]) -> Result<Option<usize>, HttpError> {
        let Some(judged) = self.judge(slot, bytes)? else {
            return Ok(None);
        };
        let (asked, rest) = (judged.asked, &bytes[judged.len..]);
        if let Route::Refused(error) = asked.route {
            let cors = asked.cors.as_deref();
            let used = self.refuse_by_head(slot, error, cors, judged.body, judged.expects, rest);
            return Ok(Some(judged.len + used));
        }
        let is_client = matches!(asked.route, Route::Client(_) | Route::Poll(_));
        if is_client && !self.is_let_in(slot, judged.address) {
            return Ok(None);
        }
        let used = match (
            judged.body,
            BodyReader::new(judged.body, asked.body_bytes_max),
        ) {
            (_, Err(error)) => {
                self.refuse(slot, error, asked.cors.as_deref(), true);
                rest.len()
            }
            (BodyLength::None, Ok(_)) => {
                self.serve(slot, asked, &[]);
                0
            }
            // Nearly every body has come with its head: it is read where it lies.
            (BodyLength::Length(len), Ok(_)) if len <= rest.len() as u64 => {
                self.serve(slot, asked, &rest[..len as usize]);
                len as usize
            }
            (_, Ok(reader)) => {
                let waits = judged.expects && rest.is_empty();
                if waits {
                    self.queue(slot, CONTINUE);
                }
                let arriving = Arriving::new(reader, Some(asked));
                self.body_begun(slot, arriving, rest)
            }
        };
        Ok(Some(judged.len + used))
    }

    /// A body that is not whole has begun.
    fn body_begun(&mut self, slot: u32, arriving: Arriving, bytes: &[u8]) -> usize {
        let at = TimerWheel::tick_after(self.now.at, self.config.server.handshake_timeout);
        self.connections.set_deadline(slot, at);
        let held = Box::new(Held::of(arriving));
        self.body_received(slot, held, bytes)
    }

    /// More of a body has come. Returns the bytes that were its.
    fn body_received(&mut self, slot: u32, mut held: Box<Held>, bytes: &[u8]) -> usize {
        let Some(arriving) = &mut held.arriving else {
            return 0;
        };
        match arriving.read(bytes) {
            Ok(used) if !arriving.is_whole() => {
                self.put_held(slot, held);
                used
            }
            Ok(used) => {
                if let Some(arriving) = held.arriving.take() {
                    self.body_arrived(slot, arriving);
                }
                used
            }
            Err(error) => {
                match arriving.asked.take() {
                    Some(asked) => self.refuse(slot, error, asked.cors.as_deref(), true),
                    // The answer was given, and more comes than is read past.
                    None => self.linger(slot),
                }
                bytes.len()
            }
        }
    }

    fn body_arrived(&mut self, slot: u32, arriving: Arriving) {
        match arriving.asked {
            Some(asked) => self.serve(slot, asked, &arriving.body),
            None => self.await_request(slot),
        }
    }

    /// Refuses a request whose head was understood, whatever its body is. What of the body is known to be little is read
    /// past, and the connection goes on. Returns how many bytes of `rest` belong to it.
    fn refuse_by_head(
        &mut self,
        slot: u32,
        error: HttpError,
        cors: Option<&Cors>,
        body: BodyLength,
        expects: bool,
        rest: &[u8],
    ) -> usize {
        let keeps = self.connections.of(slot).keep_alive && !error.ends_connection();
        if let Ok(reader) = BodyReader::new(body, BODY_UNUSED_BYTES_MAX) {
            let mut arriving = Arriving::new(reader, None);
            if let Ok(used) = arriving.read(rest) {
                if arriving.is_whole() {
                    self.refuse(slot, error, cors, error.ends_connection());
                    return used;
                }
                // A client that waits for a word may leave the body out: where the next request begins nobody knows.
                if keeps && !expects {
                    self.refuse(slot, error, cors, false);
                    return self.body_begun(slot, arriving, &[]) + used;
                }
            }
        }
        self.refuse(slot, error, cors, true);
        rest.len()
    }

    /// A connection that speaks HTTP ends: half a request is refused with this error.
    pub(super) fn end_of_http(&mut self, slot: u32, error: HttpError) {
        let held = self.connections.of(slot).held.as_ref();
        let is_answered = |held: &Held| {
            let arriving = held.arriving.as_ref();
            arriving.is_some_and(|arriving| arriving.asked.is_none())
        };
        match held {
            Some(held) if !is_answered(held) => self.refuse_http(slot, error),
            Some(_) => self.linger(slot),
            None => self.finish(slot),
        }
    }

    fn serve(&mut self, slot: u32, asked: JudgedRequest, body: &[u8]) {
        let cors = asked.cors.as_deref();
        match asked.route {
            Route::Client(client) => self.open_client(slot, *client, asked.cors, body),
            Route::Echo { key, deflate } => self.open_echo(slot, &key, deflate),
            Route::Emulation(encoding) => self.emulation_request(slot, encoding, asked.cors, body),
            Route::Poll(poll) => self.poll_request(slot, *poll, asked.cors),
            Route::Preflight(methods) => {
                let headers = cors.map(|cors| cors.preflight(methods));
                let headers = headers.unwrap_or_default();
                self.respond_with(slot, 204, "", &headers, b"");
            }
            Route::Health => self.respond(slot, 200, JSON, b"{}"),
            Route::Control(kind) => self.ask_control(slot, kind),
            Route::OpenApi => self.respond(slot, 200, JSON, OPENAPI.as_bytes()),
            Route::Init => match cors {
                Some(_) => self.respond_to(slot, 200, JSON, cors, b"{}"),
                // What another origin may read is not for a cache to say.
                None => self.respond_with(slot, 200, JSON, &[("Vary", "Origin")], b"{}"),
            },
            Route::Api {
                method,
                transport_errors,
                grant,
                tenant,
            } => {
                let method = method.as_deref();
                let caller = (TenantId::new(&tenant), grant.as_deref());
                self.api_request(slot, method, body, transport_errors, caller);
            }
            Route::Page => self.respond(slot, 200, "text/html; charset=utf-8", PAGE),
            Route::Options(allow) => {
                self.respond_with(slot, 204, "", &[("Allow", allow.value())], b"")
            }
            Route::Refused(error) => self.refuse(slot, error, cors, error.ends_connection()),
        }
    }

    fn open_echo(&mut self, slot: u32, key: &str, deflate: Option<Agreement>) {
        self.upgrade(slot, key, None, deflate.as_ref(), None);
        if let Some(agreement) = deflate {
            let connection = self.connections.of_mut(slot);
            let level = self.config.websocket.compression_level;
            connection.session.format.framing = Framing::Deflate;
            connection.session.rare.get_or_insert_default().deflate = Some(Box::new((
                Deflater::agreed(&agreement, level),
                Inflater::agreed(&agreement, ECHO_MESSAGE_BYTES_MAX),
            )));
        }
    }
}

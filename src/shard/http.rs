//! HTTP/1.1: the upgrade to WebSocket, the server API, the page of the first run.

use super::Shard;
use super::connection::State;
use super::route::{Asked, Route};
use crate::limits::{ECHO_MESSAGE_BYTES_MAX, HTTP_BODY_BYTES_MAX, HTTP_HEAD_BYTES_MAX};
use crate::mem::TimerWheel;
use crate::model::Framing;
use crate::protocol::api::OPENAPI;
use crate::wire::http::{
    BodyLength, CONTINUE, Cors, Decoded, HttpError, Method, Response, decode_chunked, decode_head,
    encode_response, encode_response_head, encode_upgrade,
};
use crate::wire::websocket::deflate::{Agreement, Deflater, Inflater};

/// The page of the first run: connect, publish, presence, latency.
const PAGE: &[u8] = include_bytes!("../page/index.html");
pub(super) const JSON: &str = "application/json";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// Header that every 401 needs.
const CHALLENGE: &str = "WWW-Authenticate";

impl Shard {
    /// Bytes of a connection that speaks HTTP.
    pub(super) fn http_received(&mut self, slot: u32, bytes: &mut [u8]) {
        let Some(connection) = self.connections.at_mut(slot) else {
            return;
        };
        match connection.held.take() {
            Some(mut held) => {
                if held.len() + bytes.len() > HTTP_HEAD_BYTES_MAX + HTTP_BODY_BYTES_MAX * 2 {
                    self.refuse_http(slot, HttpError::BodyTooLarge);
                    return;
                }
                held.extend_from_slice(bytes);
                self.http_requests(slot, &mut held);
            }
            None => self.http_requests(slot, bytes),
        }
    }

    /// Takes requests one after the other; what is left over is held.
    fn http_requests(&mut self, slot: u32, mut bytes: &mut [u8]) {
        loop {
            if bytes.is_empty() {
                return;
            }
            match self.connections.at(slot).map(|connection| connection.state) {
                Some(State::Head) => {}
                Some(_) => return self.received(slot, bytes),
                None => return,
            }
            match self.http_request(slot, bytes) {
                Ok(Some(used)) => bytes = &mut bytes[used..],
                Ok(None) => {
                    if let Some(connection) = self.connections.at_mut(slot) {
                        connection.held = Some(Box::new(bytes.to_vec()));
                    }
                    return;
                }
                Err(error) => return self.refuse_http(slot, error),
            }
        }
    }

    /// Takes one request: how many bytes it was, `None` if it is not whole yet.
    fn http_request(&mut self, slot: u32, bytes: &mut [u8]) -> Result<Option<usize>, HttpError> {
        let door = self.connections.at(slot).map(|connection| connection.door);
        let door = door.unwrap_or_default();
        let (asked, address, head_len, body, keep_alive, expects, is_head) =
            match decode_head(bytes)? {
                Decoded::Incomplete => return Ok(None),
                Decoded::Complete(head, used) => (
                    self.route(door, &head),
                    self.client_address(slot, &head),
                    used,
                    head.body,
                    head.keep_alive,
                    head.expect_continue,
                    head.method == Method::Head,
                ),
            };
        // Before the body is looked at: a chunked one is changed in place, and the request may be read again.
        let is_client = matches!(asked.route, Route::Client(_) | Route::Poll(_));
        if is_client && !self.is_let_in(slot, address) {
            return Ok(None);
        }
        let rest = &mut bytes[head_len..];
        let most = asked.body_bytes_max;
        let (body, body_len) = match body {
            BodyLength::None => (&mut rest[..0], 0),
            BodyLength::Length(len) if len > most => {
                self.refuse_request(slot, HttpError::BodyTooLarge, asked.cors.as_deref());
                return Ok(Some(bytes.len()));
            }
            BodyLength::Length(len) if rest.len() < len => {
                return Ok(self.expect_body(slot, expects, rest.is_empty()));
            }
            BodyLength::Length(len) => (&mut rest[..len], len),
            BodyLength::Chunked => match decode_chunked(rest, most) {
                Ok(Decoded::Complete(len, used)) => (&mut rest[..len], used),
                Ok(Decoded::Incomplete) => {
                    return Ok(self.expect_body(slot, expects, rest.is_empty()));
                }
                Err(error) => {
                    self.refuse_request(slot, error, asked.cors.as_deref());
                    return Ok(Some(bytes.len()));
                }
            },
        };
        if let Some(connection) = self.connections.at_mut(slot) {
            connection.keep_alive = keep_alive && self.drain.is_none();
            connection.is_head = is_head;
        }
        self.serve(slot, asked, body);
        Ok(Some(head_len + body_len))
    }

    /// A client that waits for permission to send its body gets it once.
    fn expect_body(&mut self, slot: u32, expects: bool, nothing_yet: bool) -> Option<usize> {
        let asked = self
            .connections
            .at_mut(slot)
            .is_some_and(|connection| std::mem::replace(&mut connection.continued, true));
        if expects && nothing_yet && !asked {
            self.queue(slot, CONTINUE);
        }
        None
    }

    fn serve(&mut self, slot: u32, asked: Asked, body: &mut [u8]) {
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
            } => {
                self.api_request(slot, method.as_deref(), body, transport_errors);
            }
            Route::Page => self.respond(slot, 200, "text/html; charset=utf-8", PAGE),
            Route::Options(allow) => self.respond_with(slot, 204, "", &[("Allow", allow)], b""),
            Route::Refused(error) => self.refuse_request(slot, error, cors),
        }
    }

    fn open_echo(&mut self, slot: u32, key: &str, deflate: Option<Agreement>) {
        self.upgrade(slot, key, None, deflate.as_ref(), None);
        if let Some(agreement) = deflate
            && let Some(connection) = self.connections.at_mut(slot)
        {
            let level = self.config.websocket.compression_level;
            connection.session.format.framing = Framing::Deflate;
            connection.session.rare.get_or_insert_default().deflate = Some(Box::new((
                Deflater::agreed(&agreement, level),
                Inflater::agreed(&agreement, ECHO_MESSAGE_BYTES_MAX),
            )));
        }
    }

    pub(super) fn upgrade(
        &mut self,
        slot: u32,
        key: &str,
        protocol: Option<&str>,
        deflate: Option<&Agreement>,
        cors: Option<&Cors>,
    ) {
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let extensions = deflate.map(ToString::to_string);
        let mut headers = cors.map(Cors::headers).unwrap_or_default();
        headers.extend(
            extensions
                .as_deref()
                .map(|extensions| ("Sec-WebSocket-Extensions", extensions)),
        );
        encode_upgrade(&mut out, key, protocol, &headers);
        self.queue(slot, &out);
        self.scratch = out;
        if let Some(connection) = self.connections.at_mut(slot) {
            connection.state = State::Open;
            connection.by = 0;
        }
    }

    /// Answers a request; the connection waits for the next one, or closes.
    pub(super) fn respond(&mut self, slot: u32, status: u16, content_type: &str, body: &[u8]) {
        self.respond_to(slot, status, content_type, None, body);
    }

    /// The same for a script of another origin.
    pub(super) fn respond_to(
        &mut self,
        slot: u32,
        status: u16,
        content_type: &str,
        cors: Option<&Cors>,
        body: &[u8],
    ) {
        let headers = cors.map(Cors::headers).unwrap_or_default();
        self.respond_with(slot, status, content_type, &headers, body);
    }

    /// The same with these headers.
    pub(super) fn respond_with(
        &mut self,
        slot: u32,
        status: u16,
        content_type: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let Some(connection) = self.connections.at_mut(slot) else {
            return;
        };
        let keep_alive = connection.keep_alive && self.drain.is_none();
        connection.state = State::Head;
        connection.continued = false;
        let is_head = std::mem::take(&mut connection.is_head);
        let has = |name: &str| headers.iter().any(|(one, _)| *one == name);
        let mut challenged: Vec<(&str, &str)>;
        let headers = if status == 401 && !has(CHALLENGE) {
            // A token of a client is what is wanted.
            challenged = headers.to_vec();
            challenged.push((CHALLENGE, "Bearer realm=\"clients\""));
            &challenged
        } else {
            headers
        };
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let response = Response {
            status,
            content_type,
            date: self.date.at(self.now.unix_s()),
            headers,
            body,
            keep_alive,
        };
        if is_head {
            encode_response_head(&mut out, &response);
        } else {
            encode_response(&mut out, &response);
        }
        self.queue(slot, &out);
        out.shrink_to(64 * 1024);
        self.scratch = out;
        if keep_alive {
            let by = TimerWheel::tick_after(self.now.at, self.config.server.http_idle_timeout);
            self.set_deadline(slot, by);
        } else {
            self.finish(slot);
        }
    }

    /// Refuses a request that cannot be understood or is too large; the connection closes.
    pub(super) fn refuse_http(&mut self, slot: u32, error: HttpError) {
        self.refuse_request(slot, error, None);
    }

    fn refuse_request(&mut self, slot: u32, error: HttpError, cors: Option<&Cors>) {
        let is_known = matches!(
            error,
            HttpError::Unauthorized | HttpError::Forbidden | HttpError::NotFound
        );
        self.counters.http_refused += u64::from(!is_known);
        if error.ends_connection()
            && let Some(connection) = self.connections.at_mut(slot)
        {
            connection.keep_alive = false;
        }
        let mut headers = error.headers();
        headers.extend(cors.map(Cors::headers).unwrap_or_default());
        self.respond_with(
            slot,
            error.status(),
            TEXT,
            &headers,
            error.text().as_bytes(),
        );
    }
}

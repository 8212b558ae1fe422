//! HTTP/1.1: the upgrade to WebSocket, the server API, the page of the first run.

use super::connection::State;
use super::{Mode, Shard};
use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_HEAD_BYTES_MAX};
use crate::mem::TimerWheel;
use crate::wire::http::{
    BodyLength, CONTINUE, Decoded, HttpError, Method, RequestHead, Response, decode_chunked,
    decode_head, encode_response, encode_upgrade, query_value,
};

/// The page of the first run: connect, publish, presence, latency.
const PAGE: &[u8] = include_bytes!("../page/index.html");

/// Protocols of the client endpoint that this program speaks, in no order: the client's first known one is taken.
const SUBPROTOCOL: &str = "centrifuge-json";

/// What a request head asks for.
enum Route {
    /// WebSocket with a session.
    Client {
        frame_pings: bool,
        named: bool,
        key: String,
    },
    /// WebSocket without one.
    Echo { key: String },
    /// Server API: `None` is the newline form.
    Api {
        method: Option<String>,
        key: ApiKey,
        transport_errors: bool,
    },
    /// The page.
    Page,
    /// An answer that needs no body of the request.
    Refused(HttpError),
    /// The origin is not allowed.
    Forbidden,
    /// Nothing is here.
    NotFound,
}

/// Does the request carry the key of the server API?
#[derive(Clone, Copy, PartialEq, Eq)]
enum ApiKey {
    Right,
    Wrong,
}

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
                Some(State::Open) => return self.websocket_received(slot, bytes),
                Some(State::Waiting) => return self.hold(slot, bytes),
                _ => return,
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
        let (route, head_len, body, keep_alive, expects, is_head) = match decode_head(bytes)? {
            Decoded::Incomplete => return Ok(None),
            Decoded::Complete(head, used) => (
                self.route(&head),
                used,
                head.body,
                head.keep_alive,
                head.expect_continue,
                head.method == Method::Head,
            ),
        };
        let rest = &mut bytes[head_len..];
        let (body, body_len) = match body {
            BodyLength::None => (&mut rest[..0], 0),
            BodyLength::Length(len) if rest.len() < len => {
                return Ok(self.expect_body(slot, expects, rest.is_empty()));
            }
            BodyLength::Length(len) => (&mut rest[..len], len),
            BodyLength::Chunked => match decode_chunked(rest)? {
                Decoded::Incomplete => return Ok(self.expect_body(slot, expects, rest.is_empty())),
                Decoded::Complete(len, used) => (&mut rest[..len], used),
            },
        };
        if let Some(connection) = self.connections.at_mut(slot) {
            connection.keep_alive = keep_alive && self.drain.is_none();
        }
        self.serve(slot, route, body, is_head)?;
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

    fn route(&self, head: &RequestHead<'_>) -> Route {
        let path = head.path.trim_end_matches('/');
        if self.mode == Mode::Echo {
            return match &head.upgrade {
                Some(upgrade) => Route::Echo {
                    key: upgrade.key.to_owned(),
                },
                None => Route::Refused(HttpError::UpgradeRequired),
            };
        }
        match path {
            "/connection/websocket" => self.client_route(head),
            "" => match head.method {
                Method::Get | Method::Head => Route::Page,
                _ => Route::Refused(HttpError::MethodNotAllowed),
            },
            "/api" => self.api_route(head, None),
            _ => match path.strip_prefix("/api/") {
                Some(method) => self.api_route(head, Some(method.to_owned())),
                None => Route::NotFound,
            },
        }
    }

    fn client_route(&self, head: &RequestHead<'_>) -> Route {
        if head.method != Method::Get {
            return Route::Refused(HttpError::MethodNotAllowed);
        }
        let Some(upgrade) = &head.upgrade else {
            return Route::Refused(HttpError::UpgradeRequired);
        };
        if !self.config.allows_origin(head.origin) {
            return Route::Forbidden;
        }
        Route::Client {
            frame_pings: query_value(head.query, "cf_ws_frame_ping_pong")
                .is_some_and(|value| value == "true"),
            named: upgrade.offers(SUBPROTOCOL),
            key: upgrade.key.to_owned(),
        }
    }

    fn api_route(&self, head: &RequestHead<'_>, method: Option<String>) -> Route {
        if head.method != Method::Post {
            return Route::Refused(HttpError::MethodNotAllowed);
        }
        let api = &self.config.http_api;
        let given = head.header("X-API-Key").map(str::to_owned).or_else(|| {
            let (scheme, key) = head.header("Authorization")?.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("apikey")
                .then(|| key.trim().to_owned())
        });
        let given =
            given.or_else(|| query_value(head.query, "api_key").map(|key| key.into_owned()));
        let right = api.insecure
            || !api.key.0.is_empty()
                && given.is_some_and(|given| same_secret(given.as_bytes(), api.key.0.as_bytes()));
        Route::Api {
            method,
            key: if right { ApiKey::Right } else { ApiKey::Wrong },
            transport_errors: api.transport_errors
                || head
                    .header("X-Centrifugo-Error-Mode")
                    .is_some_and(|mode| mode.eq_ignore_ascii_case("transport")),
        }
    }

    fn serve(
        &mut self,
        slot: u32,
        route: Route,
        body: &mut [u8],
        is_head: bool,
    ) -> Result<(), HttpError> {
        match route {
            Route::Client {
                frame_pings,
                named,
                key,
            } => {
                self.upgrade(slot, &key, named.then_some(SUBPROTOCOL));
                let (now, config) = (self.now, std::sync::Arc::clone(&self.config));
                if let Some(connection) = self.connections.at_mut(slot) {
                    connection.is_session = true;
                    connection.session.frame_pings = frame_pings;
                    connection.session.open(now, &config);
                }
                self.file(slot);
            }
            Route::Echo { key } => self.upgrade(slot, &key, None),
            Route::Api {
                key: ApiKey::Wrong, ..
            } => self.respond(slot, 401, "text/plain; charset=utf-8", b"unauthorized\n"),
            Route::Api {
                method,
                key: ApiKey::Right,
                transport_errors,
            } => {
                self.api_request(slot, method.as_deref(), body, transport_errors);
            }
            Route::Page if is_head => self.respond(slot, 200, "text/html; charset=utf-8", b""),
            Route::Page => self.respond(slot, 200, "text/html; charset=utf-8", PAGE),
            Route::Refused(error) => return Err(error),
            Route::Forbidden => self.respond(
                slot,
                403,
                "text/plain; charset=utf-8",
                b"origin not allowed\n",
            ),
            Route::NotFound => self.respond(slot, 404, "text/plain; charset=utf-8", b"not found\n"),
        }
        Ok(())
    }

    fn upgrade(&mut self, slot: u32, key: &str, protocol: Option<&str>) {
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        encode_upgrade(&mut out, key, protocol);
        self.queue(slot, &out);
        self.scratch = out;
        if let Some(connection) = self.connections.at_mut(slot) {
            connection.state = State::Open;
            connection.by = 0;
        }
    }

    /// Answers a request; the connection waits for the next one, or closes.
    pub(super) fn respond(&mut self, slot: u32, status: u16, content_type: &str, body: &[u8]) {
        let Some(connection) = self.connections.at_mut(slot) else {
            return;
        };
        let keep_alive = connection.keep_alive;
        connection.state = State::Head;
        connection.continued = false;
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        encode_response(
            &mut out,
            &Response {
                status,
                content_type,
                headers: &[],
                body,
                keep_alive,
            },
        );
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
        self.counters.http_refused += 1;
        let mut out = Vec::new();
        encode_response(&mut out, &error.response());
        self.queue(slot, &out);
        self.finish(slot);
    }
}

/// Compares in time that depends on the lengths only.
fn same_secret(given: &[u8], wanted: &[u8]) -> bool {
    given.len() == wanted.len()
        && std::hint::black_box(
            given
                .iter()
                .zip(wanted)
                .fold(0, |differ, (a, b)| differ | (a ^ b)),
        ) == 0
}

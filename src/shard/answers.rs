//! HTTP/1.1, what goes out: answers, refusals, and what becomes of their connections.

use std::time::Duration;

use super::Shard;
use super::connection::{Due, Leaving, State};
use crate::limits::{ANSWERS_BYTES_MAX, LINGER_BYTES_MAX};
use crate::mem::{Rng, Tick, TimerWheel};
use crate::wire::http::{
    Cors, HttpError, Response, encode_response, encode_response_head, encode_upgrade,
};
use crate::wire::websocket::deflate::Agreement;

pub(super) const JSON: &str = "application/json";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// Header that every 401 needs.
const CHALLENGE: &str = "WWW-Authenticate";
/// Header that says when the same may be asked again.
pub(super) const RETRY_AFTER: &str = "Retry-After";
/// When, if nothing else says it.
const RETRY: Duration = Duration::from_secs(1);
/// A peer that was refused may send on for this long. It is read past, so that no reset takes the answer from it
/// (RFC 9112 §9.6).
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// The same while the program waits for everybody to be gone.
const LINGER_TIMEOUT_IN_DRAIN: Duration = Duration::from_millis(500);

/// Whole seconds after which a peer may come back: this time at least, and up to half of it and a second more by chance, so that those who
/// were refused together do not come back together.
pub(super) fn retry_after(rng: &mut Rng, wait: Duration) -> String {
    let least = (wait.as_secs_f64().ceil() as u64).max(1);
    (least + rng.below(least / 2 + 2)).to_string()
}

impl Shard {
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
        let connection = self.connections.of_mut(slot);
        connection.state = State::Open;
        connection.by = 0;
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
        match self.write_answer(slot, status, content_type, headers, body) {
            true => self.await_request(slot),
            false => self.finish(slot),
        }
        self.after(slot);
    }

    /// Queues an answer. Returns whether the connection outlives it.
    pub(super) fn write_answer(
        &mut self,
        slot: u32,
        status: u16,
        content_type: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> bool {
        self.handshake_over(slot);
        let connection = self.connections.of_mut(slot);
        let keep_alive = connection.keep_alive && self.drain.is_none();
        if std::mem::replace(&mut connection.state, State::Head) == State::Waiting {
            connection.due.add(Due::INPUT);
        }
        let is_head = std::mem::take(&mut connection.is_head);
        let has = |name: &str| headers.iter().any(|(one, _)| *one == name);
        let comes_back = status == 503 || connection.leaving == Leaving::Told;
        let after = (comes_back && !has(RETRY_AFTER)).then(|| retry_after(&mut self.rng, RETRY));
        let mut more: Vec<(&str, &str)>;
        let headers = if status == 401 && !has(CHALLENGE) {
            // A token of a client is what is wanted.
            more = headers.to_vec();
            more.push((CHALLENGE, "Bearer realm=\"clients\""));
            &more
        } else if let Some(after) = &after {
            more = headers.to_vec();
            more.push((RETRY_AFTER, after));
            &more
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
        keep_alive
    }

    /// The next request may come. It is not taken before the answers to those before it are sent, but for a few: what a peer
    /// does not read costs little more than one answer. Deliveries are sent first whatever their size is: they count as taken
    /// when everything before the next answer is with the kernel.
    pub(super) fn await_request(&mut self, slot: u32) {
        let by = TimerWheel::tick_after(self.now.at, self.config.server.http_idle_timeout);
        self.connections.set_deadline(slot, by);
        let is_fetched = self.outgoing.is_sending(slot);
        let connection = self.connections.of_mut(slot);
        if connection.state == State::Head
            && (is_fetched || connection.unsent_bytes() > ANSWERS_BYTES_MAX)
        {
            connection.state = State::Owing;
            self.connections.owe(slot);
        }
    }

    /// Refuses a request that cannot be understood or is too large; the connection ends.
    pub(super) fn refuse_http(&mut self, slot: u32, error: HttpError) {
        self.refuse(slot, error, None, true);
    }

    /// Answers with an error. `lingers`: more of the request may come, and the connection ends.
    pub(super) fn refuse(
        &mut self,
        slot: u32,
        error: HttpError,
        cors: Option<&Cors>,
        lingers: bool,
    ) {
        let is_known = matches!(
            error,
            HttpError::Unauthorized
                | HttpError::KeyExpired
                | HttpError::Forbidden
                | HttpError::NotFound
        );
        self.counters.http_refused += u64::from(!is_known);
        if lingers {
            self.connections.of_mut(slot).keep_alive = false;
        }
        let mut headers = error.headers();
        headers.extend(cors.map(Cors::headers).unwrap_or_default());
        let text = error.text().as_bytes();
        if !lingers {
            self.respond_with(slot, error.status(), TEXT, &headers, text);
        } else {
            self.write_answer(slot, error.status(), TEXT, &headers, text);
            self.linger(slot);
        }
    }

    /// Ends a connection whose peer may be sending still: the answer goes out, then our side is closed, and what comes is read
    /// past for a while. Of a peer that has closed its side nothing comes.
    pub(super) fn linger(&mut self, slot: u32) {
        self.finish(slot);
        self.drop_held(slot);
        let connection = self.connections.of_mut(slot);
        if connection.state == State::Finishing && !connection.has_ended {
            connection.state = State::Refused;
        }
        self.after(slot);
    }

    /// Until when what a peer sends is read past whose answer is sent and towards whom our side is closed.
    pub(super) fn linger_until(&self) -> Tick {
        let time = match self.drain {
            Some(_) => LINGER_TIMEOUT_IN_DRAIN,
            None => LINGER_TIMEOUT,
        };
        TimerWheel::tick_after(self.now.at, time)
    }

    /// Bytes of a peer that was refused.
    pub(super) fn read_past(&mut self, slot: u32, bytes: usize) {
        let connection = self.connections.of_mut(slot);
        connection.read_past = connection.read_past.saturating_add(bytes as u32);
        if connection.read_past > LINGER_BYTES_MAX {
            self.abort(slot);
        }
    }
}

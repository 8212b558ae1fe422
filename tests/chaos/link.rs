//! A WebSocket connection of the harness: servers vanish under it, and that is no failure.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::support::client::PATH;
use crate::support::process::API_KEY;
use crate::support::token;
use crate::support::wait::until;

/// Longest wait for a connection, and for a connect command to be answered.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A read that brings nothing ends after this, so that the reader can look what it is told to do.
const READ_STEP: Duration = Duration::from_millis(50);

/// Longest wait for the answer to a request: longer than the proxy waits for its log. Whoever gives up earlier and asks again
/// may be answered before what was given up is done.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// A connected client.
pub(crate) struct Link {
    socket: WebSocket<TcpStream>,
    next_id: u64,
}

/// The connection is gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Link {
    /// Connected with this token; `None` while nobody is there.
    pub(crate) fn open(address: SocketAddr, token: &str) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, OPEN_TIMEOUT).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(OPEN_TIMEOUT)).ok()?;
        stream.set_write_timeout(Some(OPEN_TIMEOUT)).ok()?;
        let (socket, _) = tungstenite::client(format!("ws://localhost{PATH}"), stream).ok()?;
        let mut link = Self { socket, next_id: 0 };
        let id = link.send("connect", &json!({ "token": token })).ok()?;
        let answer = link
            .receive()
            .ok()?
            .into_iter()
            .find(|object| object["id"] == id)?;
        answer.get("connect")?;
        link.socket
            .get_ref()
            .set_read_timeout(Some(READ_STEP))
            .ok()?;
        Some(link)
    }

    /// Connected as a user to a proxy that is there. The ring of a killed one keeps its listener for some ten milliseconds more,
    /// and whoever the kernel gives to that one is turned away.
    pub(crate) fn to(address: SocketAddr, user: &str) -> Self {
        Self::to_with(address, &token::user(user))
    }

    /// The same, with this token.
    pub(crate) fn to_with(address: SocketAddr, token: &str) -> Self {
        until("a connection", || Self::open(address, token))
    }

    /// Sends a command; its id.
    pub(crate) fn send(&mut self, part: &str, request: &Value) -> Result<u64, Gone> {
        self.next_id += 1;
        let text = json!({ "id": self.next_id, part: request }).to_string();
        self.socket.send(Message::text(text)).map_err(|_| Gone)?;
        Ok(self.next_id)
    }

    /// Calls an RPC; the id of the command.
    pub(crate) fn rpc(&mut self, method: &str, data: &Value) -> Result<u64, Gone> {
        self.send("rpc", &json!({ "method": method, "data": data }))
    }

    /// What has come: replies and pushes in order; nothing after a short while.
    pub(crate) fn receive(&mut self) -> Result<Vec<Value>, Gone> {
        let text = match self.socket.read() {
            Ok(Message::Text(text)) => text,
            Ok(Message::Close(_)) => return Err(Gone),
            Ok(_) => return Ok(Vec::new()),
            Err(tungstenite::Error::Io(error))
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                return Ok(Vec::new());
            }
            Err(_) => return Err(Gone),
        };
        let mut objects = Vec::new();
        for line in text.as_str().lines() {
            if line == "{}" {
                self.socket.send(Message::text("{}")).map_err(|_| Gone)?;
            } else {
                objects.push(serde_json::from_str(line).map_err(|_| Gone)?);
            }
        }
        Ok(objects)
    }
}

/// An error that passes, and after how long it may have; `None` for one that stays.
pub(crate) fn temporary(error: &Value) -> Option<Duration> {
    const RETRY_AFTER: Duration = Duration::from_millis(50);
    const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);
    let code = error["code"].as_u64();
    let passes = matches!(code, Some(100 | 111)) || error["temporary"] == true;
    let delay = error["retry_after_ms"]
        .as_u64()
        .map_or(RETRY_AFTER, Duration::from_millis);
    passes.then(|| delay.min(RETRY_AFTER_MAX))
}

/// One request over a connection of its own, and the JSON of its answer; `None` when there was none.
pub(crate) fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Option<Value> {
    let mut stream = TcpStream::connect_timeout(&address, OPEN_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(OPEN_TIMEOUT)).ok()?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    loop {
        if let Some(answer) = whole(&bytes) {
            return serde_json::from_slice(&answer).ok();
        }
        match stream.read(&mut chunk).ok()? {
            0 => return None,
            len => bytes.extend_from_slice(&chunk[..len]),
        }
    }
}

/// Posts to the server API, waits a moment for an answer, and is gone whether there was one or not.
pub(crate) fn request_and_vanish(
    address: SocketAddr,
    path: &str,
    body: &Value,
    within: Duration,
) -> Option<()> {
    let mut stream = post(address, path, body)?;
    stream.set_read_timeout(Some(within)).ok()?;
    // The first byte of an answer is enough to be gone with it.
    let _ = stream.read(&mut [0]);
    Some(())
}

/// Posts to the server API, and is gone after this.
pub(crate) fn request_until(address: SocketAddr, path: &str, body: &Value, wait: impl FnOnce()) {
    let stream = until("a connection", || post(address, path, body));
    wait();
    drop(stream);
}

fn post(address: SocketAddr, path: &str, body: &Value) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, OPEN_TIMEOUT).ok()?;
    stream.set_write_timeout(Some(OPEN_TIMEOUT)).ok()?;
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {API_KEY}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
    Some(stream)
}

/// The body of a response once it is there.
fn whole(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = response.parse(bytes).ok()? else {
        return None;
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let Some(length) = length else {
        // Go sends long answers in chunks.
        return chunks(bytes.get(start..)?).map(Cow::Owned);
    };
    let length: usize = std::str::from_utf8(length.value).ok()?.parse().ok()?;
    bytes
        .get(start..start.checked_add(length)?)
        .map(Cow::Borrowed)
}

/// The body in chunks, if the last one is there.
fn chunks(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((head, length)) = httparse::parse_chunk_size(bytes).ok()?
        else {
            return None;
        };
        if length == 0 {
            return Some(body);
        }
        let end = head.checked_add(usize::try_from(length).ok()?)?;
        body.extend_from_slice(bytes.get(head..end)?);
        bytes = bytes.get(end + 2..)?;
    }
}
